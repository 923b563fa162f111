//! Where the kernel does not take all of a steering program the operator is told, and what to do.

use super::Shell;
use super::group::Coarse;
use crate::core::words::reason;
use crate::core::{Key, Level};
use crate::sys::steer;

/// There is room for every program that we have (newer kernels begin with that).
const ENOUGH: u32 = 131_072;

/// What to say at the start where nothing can be steered at all.
pub(super) fn unsteered() -> Option<String> {
    let (what, e) = match steer::works() {
        Ok(()) => return None,
        Err(steer::Refused::Sharing(e)) => ("SO_REUSEPORT", e),
        Err(steer::Refused::Steering(e)) => ("SO_ATTACH_REUSEPORT_CBPF", e),
    };
    Some(format!(
        "new connections cannot be steered ({what}: {}): all workers share one socket of each port, old ones as well as new ones, so a reload may lose connections, and --balance has no effect",
        reason(&e)
    ))
}

impl Shell {
    /// Of ports whose connections are dealt out by less than they should be.
    pub(super) fn say_coarse(&mut self) {
        for (addr, coarse) in self.sockets.coarse() {
            self.counts_by(addr.port(), coarse.by);
            let ((level, event), message) = words(&addr.to_string(), coarse, steer::optmem_max());
            self.say_once(level, event, message);
        }
    }
}

fn words(addr: &str, coarse: Coarse, limit: Option<u64>) -> ((Level, &'static str), String) {
    let (event, how) = match (coarse.by, coarse.wanted) {
        (Some(n), Some((_, wanted))) => (
            (Level::Warn, "steering-coarse"),
            format!("by {n} buckets instead of {wanted}"),
        ),
        (None, Some((Key::Client, wanted))) => (
            (Level::Error, "steering-random"),
            format!(
                "at random instead of by {wanted} buckets; clients do not stay with their worker"
            ),
        ),
        (None, Some((Key::Connection, wanted))) => (
            (Level::Warn, "steering-random"),
            format!("at random instead of by {wanted} buckets"),
        ),
        (_, None) => (
            (Level::Warn, "steering-random"),
            "at random instead of by CPU".to_string(),
        ),
    };
    let limit = match limit {
        Some(n) => format!("is {n}"),
        None => "cannot be seen from here".to_string(),
    };
    let message = format!(
        "steering of {addr} is {how}: the kernel takes no longer program, its net.core.optmem_max {limit}; raise it to {ENOUGH} and reload"
    );
    (event, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_and_what_helps_is_told() {
        let of = |by, wanted| words("127.0.0.1:80", Coarse { by, wanted }, Some(4096));
        let ((level, event), message) = of(Some(256), Some((Key::Client, 1024)));
        let want = "steering of 127.0.0.1:80 is by 256 buckets instead of 1024: the kernel takes no longer program, its net.core.optmem_max is 4096; raise it to 131072 and reload";
        assert_eq!(
            (level, event, message.as_str()),
            (Level::Warn, "steering-coarse", want)
        );
        let ((level, event), message) = of(None, Some((Key::Client, 1024)));
        assert!(
            (level, event) == (Level::Error, "steering-random") && message.contains("do not stay"),
            "{message}"
        );
        let ((level, event), message) = of(None, Some((Key::Connection, 1024)));
        assert!(
            (level, event) == (Level::Warn, "steering-random") && !message.contains("stay"),
            "{message}"
        );
        let none = Coarse {
            by: None,
            wanted: None,
        };
        let ((level, event), message) = words("[::1]:1", none, None);
        assert!(
            (level, event) == (Level::Warn, "steering-random") && message.contains("by CPU"),
            "{message}"
        );
        assert!(message.contains("cannot be seen"), "{message}");
    }
}
