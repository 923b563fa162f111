//! What a signal that stands for a verb (--on-signal) is an order for. A verb that only looks is
//! nothing that a signal could ask for: there is nobody to answer; nor is one whose answer somebody
//! should read.

use super::Ordered;
use crate::settings::{self, Order};

/// Why a verb cannot be a signal's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoOrder {
    /// It only looks.
    Looks,
    /// Its answer has to be read.
    Answers,
    /// These words are wrong, or not for a signal.
    Words(String),
}

impl From<String> for NoOrder {
    fn from(why: String) -> NoOrder {
        NoOrder::Words(why)
    }
}

type Found = Result<Order, NoOrder>;

pub(super) const fn looks(_: &[&str]) -> Found {
    Err(NoOrder::Looks)
}

pub(super) const fn answers(_: &[&str]) -> Found {
    Err(NoOrder::Answers)
}

pub(super) const fn stop(_: &[&str]) -> Found {
    Ok(Order::Stop)
}

pub(super) fn shutdown(rest: &[&str]) -> Found {
    match rest {
        [] | ["all"] => Ok(Order::Stop),
        _ => Err(NoOrder::Words(
            "a signal can ask for shutdown all, which is stop; one worker is for a client to name"
                .into(),
        )),
    }
}

pub(super) const fn kill(_: &[&str]) -> Found {
    Ok(Order::Kill)
}

pub(super) const fn reload(_: &[&str]) -> Found {
    Ok(Order::Reload)
}

pub(super) fn handover(rest: &[&str]) -> Found {
    match rest {
        [] => Ok(Order::Handover),
        _ => Err(NoOrder::Words(
            "a signal can ask for handover, to the binary that has our name on disk; another one is for a client to name"
                .into(),
        )),
    }
}

pub(super) const fn reopen(_: &[&str]) -> Found {
    Ok(Order::Reopen)
}

pub(super) fn enable(rest: &[&str]) -> Found {
    rotate(true, rest)
}

pub(super) fn disable(rest: &[&str]) -> Found {
    rotate(false, rest)
}

fn rotate(enable: bool, rest: &[&str]) -> Found {
    match rest {
        [] => Ok(Order::Rotate(enable)),
        _ => Err(NoOrder::Words(
            "a signal takes no reason with it: that it came is the reason".into(),
        )),
    }
}

pub(super) fn resize(rest: &[&str]) -> Found {
    let word = rest.first().copied().unwrap_or_default();
    Ok(Order::Resize(settings::size(word)?))
}

pub(super) fn restart(rest: &[&str]) -> Found {
    match rest {
        [] | ["all"] => Ok(Order::Reload),
        _ => Err(NoOrder::Words(
            "a signal can ask for restart all, which is reload; one worker is for a client to name"
                .into(),
        )),
    }
}

pub(super) fn signal(rest: &[&str]) -> Found {
    let (signal, target) = settings::signal_to(rest)?;
    Ok(Order::Signal(signal, target))
}

/// Those that can be asked for, as messages name them.
pub(super) fn possible<'a>(verbs: impl Iterator<Item = (&'a str, &'a str, Ordered)>) -> String {
    let can = |(name, words, order): (&str, &str, Ordered)| match order(&[]) {
        Err(NoOrder::Looks | NoOrder::Answers) => None,
        Ok(_) => Some(name.to_string()),
        Err(NoOrder::Words(_)) => Some(format!("{name} {words}")),
    };
    let all: Vec<String> = verbs.filter_map(can).collect();
    all.join(", ")
}
