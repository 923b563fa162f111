//! What a client is told of how its request has ended: exit code, and text or JSON.

use super::json::quote;
use super::report::last_lines;
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE, FAILED};
use crate::core::notice::{Next, Who};
use crate::core::words::{count, errno_text, human, no_room as why_no_room, signal_name};
use crate::core::{Came, Hitch, MAX_ASKERS, MAX_WORKERS, Outcome, Pid, Size, Target};
use std::time::Duration;

/// The exit code of the verb (of a stop: of the master), and the text.
///
/// `kept`: options that a reload has found changed, and left as they were.
pub fn answer(outcome: &Outcome, json: bool, kept: &[String]) -> (u8, String) {
    match outcome {
        Outcome::Ended { code, stuck } => (*code, ended(*code, stuck, json)),
        Outcome::TooMany => {
            let text = format!("{MAX_ASKERS} clients wait already: ");
            let next =
                "a stop goes on all the same, a resize was not begun; --no-wait needs no place\n";
            (EX_TEMPFAIL, refusal(&(text + next), json))
        }
        Outcome::Resizing { workers } => (0, resized(*workers, false, json)),
        Outcome::Resized { workers } => (0, resized(*workers, true, json)),
        Outcome::NotResized { workers, hitch } => (FAILED, not_resized(*workers, hitch, json)),
        Outcome::Reloading { generation } => (0, reloaded(*generation, None, json, kept)),
        Outcome::Reloaded { generation, took } => {
            (0, reloaded(*generation, Some(*took), json, kept))
        }
        Outcome::NotReloaded {
            generation,
            hitch,
            ready,
        } => (FAILED, not_reloaded(*generation, hitch, *ready, json)),
        Outcome::BackedOut {
            generation,
            goes_on,
        } => (0, backed_out(*generation, *goes_on, json)),
        Outcome::NothingToBackOut => (
            FAILED,
            refusal(
                "nothing to go back to: no upgrade is under way, and none has reached its end\n",
                json,
            ),
        ),
        Outcome::Starting { count } => (0, started(*count, None, json)),
        Outcome::Started { count, workers } => (0, started(*count, Some(*workers), json)),
        Outcome::NotStarted { started, hitch } => (FAILED, not_started(*started, hitch, json)),
        Outcome::Restarting { who } => match json {
            true => (0, restart_json(Some(who), None, None, None, "")),
            false => (0, format!("restarting {who}\n")),
        },
        Outcome::Restarted { old, new, took } => (0, restarted(old, new, *took, json)),
        Outcome::NotRestarted { hitch, ready } => (FAILED, not_restarted(hitch, *ready, json)),
        Outcome::ShuttingDown { who } => (0, shutting_down(who, None, json)),
        Outcome::ShutDown { who, workers } => (0, shutting_down(who, Some(*workers), json)),
        Outcome::NotShutDown { hitch } => {
            (FAILED, refusal(&format!("not shut down: {hitch}\n"), json))
        }
        Outcome::LastSlot { slot } => (
            FAILED,
            refusal(
                &format!("slot {slot} is the last one: stop, or shutdown all, ends the cluster\n"),
                json,
            ),
        ),
        Outcome::OutOfBounds { workers, asked } => (EX_USAGE, out_of_bounds(*workers, *asked)),
        Outcome::NoRoom {
            workers,
            asked,
            most,
        } => (FAILED, no_room(*workers, *asked, *most, json)),
        Outcome::Signalled { signal, whom } => (0, signalled(*signal, whom, json)),
        Outcome::Nobody { target } => (FAILED, refusal(&nobody(*target), json)),
        Outcome::Unknown { target, slots } => (EX_USAGE, unknown(*target, *slots)),
    }
}

/// Of what was not even begun there is nothing else to say.
pub fn refusal(why: &str, json: bool) -> String {
    match json {
        true => format!("{{\"error\":{}}}\n", quote(why.trim_end())),
        false => why.to_string(),
    }
}

fn words(pids: &[Pid], between: &str) -> String {
    let all: Vec<String> = pids.iter().map(Pid::to_string).collect();
    all.join(between)
}

fn ended(code: u8, stuck: &[Pid], json: bool) -> String {
    match (json, stuck) {
        (true, _) => format!("{{\"code\":{code},\"left\":[{}]}}\n", words(stuck, ",")),
        (false, []) => "stopped\n".to_string(),
        (false, some) => format!(
            "stopped, but not even SIGKILL has ended: {}\n",
            words(some, " ")
        ),
    }
}

fn or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".into(), quote)
}

fn resize_json(workers: u16, done: bool, error: Option<&str>, stderr: &str) -> String {
    format!(
        "{{\"workers\":{workers},\"done\":{done},\"error\":{},\"stderr\":{}}}\n",
        or_null(error),
        quote(stderr)
    )
}

fn resized(workers: u16, done: bool, json: bool) -> String {
    let them = count(usize::from(workers), "worker");
    match (json, done) {
        (true, _) => resize_json(workers, done, None, ""),
        (false, true) => format!("{them}\n"),
        (false, false) => format!("resizing to {them}\n"),
    }
}

fn not_resized(workers: u16, hitch: &Hitch, json: bool) -> String {
    let (why, last) = (why_not_resized(hitch), hitch.last_words());
    match (json, hitch.came()) {
        (true, _) => resize_json(workers, false, Some(&why), last),
        (false, Came::Wish | Came::Refusal) => format!("{why}\n"),
        (false, Came::Failure) => {
            let them = count(usize::from(workers), "worker");
            format!("not {them} yet: {why}\n{}", last_lines(last))
        }
    }
}

/// With what follows for the slot.
fn why_not_resized(hitch: &Hitch) -> String {
    match hitch {
        Hitch::Died(d) => {
            let next = match d.next {
                Next::Respawn(delay) => format!("goes on trying, again in {}", human(delay)),
                Next::HeldBack { wait, limit } => format!(
                    "is held back for {} by --restarts-per-minute {limit}",
                    human(wait)
                ),
                Next::Finished => "is finished (--respawn-on)".into(),
                Next::GivenUp { limit } => format!("is given up by --max-forks {limit}"),
                Next::Replaced | Next::TakenBack | Next::Nothing => "gets no other one".into(),
            };
            let (who, cause, lived) = (d.who, d.cause, human(d.lived));
            format!(
                "{who} ended: {cause} ({}) after {lived}, never ready; its slot {next}",
                d.exit
            )
        }
        Hitch::NotForked { slot, errno } => format!(
            "cannot fork for slot {slot}: {}; it goes on trying",
            errno_text(*errno)
        ),
        Hitch::Stuck(who) => {
            format!("{who} is still there after SIGKILL; it is killed again and again")
        }
        Hitch::Superseded { to, why, by } => {
            let by = by.map_or_else(String::new, |by| format!(", {by}"));
            format!("superseded by resize {to}: {why}{by}")
        }
        other => other.to_string(),
    }
}

fn reload_json(
    generation: u32,
    took: Option<Duration>,
    kept: &[String],
    error: Option<&str>,
    last: &str,
) -> String {
    let took = took.map_or_else(|| "null".into(), |t| format!("{:.3}", t.as_secs_f64()));
    let kept: Vec<String> = kept.iter().map(|o| quote(o)).collect();
    format!(
        "{{\"generation\":{generation},\"took\":{took},\"kept\":[{}],\"error\":{},\"stderr\":{}}}\n",
        kept.join(","),
        or_null(error),
        quote(last)
    )
}

fn reloaded(generation: u32, took: Option<Duration>, json: bool, kept: &[String]) -> String {
    if json {
        return reload_json(generation, took, kept, None, "");
    }
    let done = match took {
        Some(took) => format!("generation {generation} serves, after {}\n", human(took)),
        None => format!("reloading to generation {generation}\n"),
    };
    match kept {
        [] => done,
        some => format!(
            "{done}{} changed in --config: what is of the master itself stays as it is until that is started again\n",
            some.join(", ")
        ),
    }
}

fn restart_json(
    old: Option<&Who>,
    new: Option<&Who>,
    took: Option<Duration>,
    error: Option<&str>,
    last: &str,
) -> String {
    let null = || "null".to_string();
    let pid = |w: Option<&Who>| w.and_then(|w| w.pid).map_or_else(null, |p| p.to_string());
    format!(
        "{{\"slot\":{},\"old\":{},\"pid\":{},\"took\":{},\"error\":{},\"stderr\":{}}}\n",
        old.map_or_else(null, |w| w.slot.to_string()),
        pid(old),
        pid(new),
        took.map_or_else(null, |t| format!("{:.3}", t.as_secs_f64())),
        or_null(error),
        quote(last)
    )
}

fn restarted(old: &Who, new: &Who, took: Duration, json: bool) -> String {
    match json {
        true => restart_json(Some(old), Some(new), Some(took), None, ""),
        false => format!("{new} in place of {old}, after {}\n", human(took)),
    }
}

fn not_restarted(hitch: &Hitch, ready: usize, json: bool) -> String {
    let why = match hitch {
        Hitch::Overtaken { why, by } => {
            let by = by.map_or_else(String::new, |by| format!(", {by}"));
            format!("a reload has begun, which replaces all workers ({why}{by})")
        }
        // (Had it not been ready it would not have had the place.)
        Hitch::Died(d) if d.ready_for.is_some() => format!(
            "{} was ready, and ended while the old one went: {} ({}) after {}; its slot goes on with the next",
            d.who,
            d.cause,
            d.exit,
            human(d.lived)
        ),
        other => other.to_string(),
    };
    let last = hitch.last_words();
    match json {
        true => restart_json(None, None, None, Some(&why), last),
        false => {
            let serves = match (ready, hitch.came()) {
                (0, Came::Failure) => "; no worker is ready now",
                (_, Came::Failure | Came::Wish | Came::Refusal) => "",
            };
            format!("not restarted: {why}{serves}\n{}", last_lines(last))
        }
    }
}

fn not_reloaded(generation: u32, hitch: &Hitch, ready: usize, json: bool) -> String {
    let last = hitch.last_words();
    match json {
        true => reload_json(generation, None, &[], Some(&hitch.to_string()), last),
        false => {
            let serves = match (ready, hitch) {
                // Those that are drained serve still.
                (_, Hitch::Stopping) => "",
                (0, _) => "; no worker is ready now",
                (_, _) => "",
            };
            format!("not reloaded: {hitch}{serves}\n{}", last_lines(last))
        }
    }
}

fn no_room(workers: u16, asked: u16, most: u16, json: bool) -> String {
    let why = format!("there cannot be {asked} workers: {}", why_no_room(most));
    match json {
        true => resize_json(workers, false, Some(&why), ""),
        false => format!("{why}\n"),
    }
}

fn backed_out(generation: u32, goes_on: u32, json: bool) -> String {
    match json {
        true => format!("{{\"called_off\":{generation},\"generation\":{goes_on}}}\n"),
        false => format!("generation {generation} is called off, generation {goes_on} goes on\n"),
    }
}

fn start_json(started: u16, done: bool, error: Option<&str>, last: &str) -> String {
    format!(
        "{{\"started\":{started},\"done\":{done},\"error\":{},\"stderr\":{}}}\n",
        or_null(error),
        quote(last)
    )
}

/// `workers`: so many there are now; `None`: it has only begun.
fn started(n: u16, workers: Option<u16>, json: bool) -> String {
    let them = count(usize::from(n), "worker");
    match (json, workers) {
        (true, Some(_)) => start_json(n, true, None, ""),
        (true, None) => start_json(0, false, None, ""),
        (false, Some(all)) => format!("{them} started, {all} in all\n"),
        (false, None) => format!("starting {them}\n"),
    }
}

fn not_started(started: u16, hitch: &Hitch, json: bool) -> String {
    let (why, last) = (hitch.to_string(), hitch.last_words());
    match (json, started) {
        (true, _) => start_json(started, false, Some(&why), last),
        (false, 0) => format!("not started: {why}\n{}", last_lines(last)),
        (false, n) => {
            let them = count(usize::from(n), "worker");
            format!("{them} started, then: {why}\n{}", last_lines(last))
        }
    }
}

/// `workers`: so many there are to be now; `None`: it has only begun.
fn shutting_down(who: &Who, workers: Option<u16>, json: bool) -> String {
    if json {
        let or_null = |n: Option<String>| n.unwrap_or_else(|| "null".into());
        return format!(
            "{{\"slot\":{},\"pid\":{},\"workers\":{},\"error\":null}}\n",
            who.slot,
            or_null(who.pid.map(|p| p.to_string())),
            or_null(workers.map(|n| n.to_string()))
        );
    }
    match workers {
        Some(n) => format!("{who} shut down, {}\n", count(usize::from(n), "worker")),
        None => format!("shutting down {who}\n"),
    }
}

fn out_of_bounds(workers: u16, asked: Size) -> String {
    let there = match workers {
        1 => "there is 1 worker".to_string(),
        n => format!("there are {n} workers"),
    };
    let asked = match asked {
        Size::To(n) => n.to_string(),
        Size::More(n) => format!("+{n}"),
        Size::Fewer(n) => format!("-{n}"),
    };
    format!("{there}, and {asked} is refused: there can be 1 to {MAX_WORKERS}\n")
}

fn signalled(signal: i32, whom: &[Who], json: bool) -> String {
    let name = format!("SIG{}", signal_name(signal));
    let pids: Vec<Pid> = whom.iter().filter_map(|w| w.pid).collect();
    if json {
        let one = |w: &Who| {
            let pid = w.pid.map_or_else(|| "null".into(), |p| p.to_string());
            format!("{{\"slot\":{},\"pid\":{pid}}}", w.slot)
        };
        let all: Vec<String> = whom.iter().map(one).collect();
        return format!(
            "{{\"signal\":{},\"workers\":[{}]}}\n",
            quote(&name),
            all.join(",")
        );
    }
    match whom {
        [one] => format!("{name} sent to {one}\n"),
        all => format!(
            "{name} sent to {}: {}\n",
            count(all.len(), "worker"),
            words(&pids, " ")
        ),
    }
}

/// That there is no worker of that name to whom something could be done.
pub fn nobody(target: Target) -> String {
    match target {
        Target::All => "there is no worker now\n".into(),
        Target::Slot(n) | Target::Number(n) => format!(
            "slot {n} has no worker now (status tells why; a reload or an upgrade of all fills it)\n"
        ),
        Target::Pid(n) => format!("pid {n} does not run the command\n"),
    }
}

/// That there is none of that name at all.
pub fn unknown(target: Target, slots: u16) -> String {
    let last = slots.saturating_sub(1);
    match target {
        Target::Slot(n) | Target::Number(n) if n < u32::from(slots) => {
            format!("slot {n} was shut down: a resize to more opens it again\n")
        }
        Target::Slot(n) => format!("there is no slot {n}: slots are 0 to {last}\n"),
        Target::Pid(n) => format!("pid {n} is no worker; minicluster workers lists them\n"),
        Target::Number(n) => format!(
            "{n} is neither a slot (0 to {last}) nor the pid of a worker; minicluster workers lists them\n"
        ),
        // There may be none, but never none of that name.
        Target::All => nobody(target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::death::Death;
    use crate::core::notice::Cause;
    use crate::core::{By, Exit, SlotNr, Time};
    use std::time::Duration;

    fn who(slot: u16, pid: i32) -> Who {
        Who {
            slot: SlotNr(slot),
            pid: Some(Pid(pid)),
        }
    }

    fn hitches() -> Vec<Hitch> {
        let died = Death {
            who: who(5, 77),
            cause: Cause::Failure,
            exit: Exit::Code(3),
            at: Time(0),
            lived: Duration::from_millis(20),
            ready_for: None,
            next: Next::Respawn(Duration::from_millis(90)),
            last: "no database\u{7}".into(),
            generation: 1,
            hint: None,
            had_slot: true,
        };
        let by = By {
            pid: Pid(9),
            uid: 0,
        };
        vec![
            Hitch::Died(Box::new(died)),
            Hitch::NotForked {
                slot: SlotNr(5),
                errno: 11,
            },
            Hitch::Stuck(who(5, 77)),
            Hitch::Superseded {
                to: 8,
                why: "asked by a client",
                by: Some(by),
            },
            Hitch::Stopping,
        ]
    }

    #[test]
    fn what_came_between_is_told_with_what_happens_next() {
        let told: Vec<String> = hitches()
            .into_iter()
            .map(|hitch| answer(&Outcome::NotResized { workers: 6, hitch }, false, &[]))
            .map(|(code, text)| {
                assert_eq!(code, 1);
                text
            })
            .collect();
        assert_eq!(
            told,
            [
                "not 6 workers yet: worker 5 pid 77 ended: failure (exit 3) after 20ms, never ready; its slot goes on trying, again in 90ms\n    | no database?\n",
                "not 6 workers yet: cannot fork for slot 5: Resource temporarily unavailable; it goes on trying\n",
                "not 6 workers yet: worker 5 pid 77 is still there after SIGKILL; it is killed again and again\n",
                "superseded by resize 8: asked by a client, pid 9 of uid 0\n",
                "the cluster stops\n",
            ]
        );
    }

    #[test]
    fn of_a_restart_it_is_told_whether_the_new_one_had_the_place() {
        let told = |hitch| answer(&Outcome::NotRestarted { hitch, ready: 1 }, false, &[]);
        let Some(Hitch::Died(mut died)) = hitches().into_iter().next() else {
            panic!();
        };
        died.ready_for = Some(Duration::from_millis(5));
        let last = "\n    | no database?\n";
        assert_eq!(
            told(Hitch::Died(died.clone())),
            (
                1,
                format!(
                    "not restarted: worker 5 pid 77 was ready, and ended while the old one went: failure (exit 3) after 20ms; its slot goes on with the next{last}"
                )
            )
        );
        died.ready_for = None;
        let never =
            "not restarted: worker 5 pid 77 ended: failure (exit 3) after 20ms, never ready";
        assert_eq!(told(Hitch::Died(died)), (1, format!("{never}{last}")));
    }

    #[test]
    fn every_outcome_is_json_too_unless_it_is_an_error_of_usage() {
        let mut all = vec![
            Outcome::Ended {
                code: 71,
                stuck: vec![Pid(3), Pid(4)],
            },
            Outcome::Resizing { workers: 6 },
            Outcome::Resized { workers: 6 },
            Outcome::Signalled {
                signal: 10,
                whom: vec![who(0, 3), who(1, 4)],
            },
        ];
        let hitch = |hitch| Outcome::NotResized { workers: 6, hitch };
        all.extend(hitches().into_iter().map(hitch));
        for outcome in all {
            let (_, text) = answer(&outcome, true, &[]);
            crate::wire::json::parse(text.trim_end()).unwrap();
        }
    }

    #[test]
    fn bounds_and_names_are_told() {
        for (outcome, code, want) in [
            (
                Outcome::OutOfBounds {
                    workers: 1,
                    asked: Size::Fewer(1),
                },
                64,
                "there is 1 worker, and -1 is refused: there can be 1 to 1024\n",
            ),
            (
                Outcome::NoRoom {
                    workers: 2,
                    asked: 9,
                    most: 8,
                },
                1,
                "there cannot be 9 workers: the master's hard limit of open files has room for 8; raise that (ulimit -Hn, LimitNOFILE=) and start it again\n",
            ),
            (Outcome::Resized { workers: 1 }, 0, "1 worker\n"),
            (
                Outcome::Unknown {
                    target: Target::Number(9),
                    slots: 4,
                },
                64,
                "9 is neither a slot (0 to 3) nor the pid of a worker; minicluster workers lists them\n",
            ),
            (
                Outcome::Nobody {
                    target: Target::Slot(2),
                },
                1,
                "slot 2 has no worker now (status tells why; a reload or an upgrade of all fills it)\n",
            ),
            (
                Outcome::Signalled {
                    signal: 10,
                    whom: vec![who(0, 3), who(1, 4)],
                },
                0,
                "SIGUSR1 sent to 2 workers: 3 4\n",
            ),
        ] {
            assert_eq!(answer(&outcome, false, &[]), (code, want.to_string()));
        }
    }
}
