//! What a signal to the master is an order for (--on-signal), and which signals can be one.

use super::signal;
use crate::core::words::signal_name;
use crate::core::{Size, Target};
use serde::{Deserialize, Serialize};

/// What is to be done when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Nothing: it is ignored.
    Ignore,
    /// Reopen the log file.
    Reopen,
    /// Another binary in our own place.
    Handover,
    /// New workers for all old ones.
    Reload,
    /// Another number of slots.
    Resize(Size),
    /// In rotation (true), or out of it.
    Rotate(bool),
    /// A signal to workers.
    Signal(i32, Target),
    /// Graceful stop; a second one hard.
    Stop,
    /// Hard stop.
    Kill,
}

/// `SIG=VERB`: a signal that can be caught and is not the master's own, and the line behind it.
pub fn signal_and_line(text: &str) -> Result<(i32, &str), String> {
    let (name, line) = text.split_once('=').ok_or_else(|| {
        format!(
            "'{text}' is not SIG=VERB: write HUP=stop, WINCH=signal WINCH, or HUP= to ignore it"
        )
    })?;
    let number = signal(name)?;
    match why_not(number) {
        None => Ok((number, line.trim())),
        Some(why) => Err(format!("SIG{} {why}", signal_name(number))),
    }
}

/// Why it cannot be one, if so.
fn why_not(number: i32) -> Option<&'static str> {
    match signal_name(number).as_str() {
        "KILL" | "STOP" => Some("cannot be caught: the kernel does not even tell the master"),
        "CHLD" => Some("is how the master hears that a worker has ended"),
        "PIPE" | "XFSZ" => {
            Some("is how the kernel says that a write failed: no order of anybody's")
        }
        "ILL" | "TRAP" | "ABRT" | "BUS" | "FPE" | "SEGV" | "STKFLT" | "SYS" => {
            Some("says that the master itself has a fault, and has to end it")
        }
        _ if number > 31 => {
            Some("is a real-time signal: take one that has a name, as USR1 or WINCH")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_signal_that_can_be_caught_and_a_line() {
        for (text, want) in [
            ("HUP=stop", (1, "stop")),
            ("sigwinch= signal WINCH all ", (28, "signal WINCH all")),
            ("USR1=", (10, "")),
            ("12=reload", (12, "reload")),
        ] {
            assert_eq!(signal_and_line(text), Ok(want), "{text}");
        }
        for (bad, why) in [
            ("", "HUP=stop"),
            ("HUP", "or HUP= to ignore it"),
            ("=stop", "no signal"),
            ("NONE=stop", "no signal"),
            ("KILL=stop", "SIGKILL cannot be caught"),
            ("19=", "SIGSTOP cannot be caught"),
            ("CHLD=reload", "a worker has ended"),
            ("PIPE=", "a write failed"),
            ("SEGV=", "a fault"),
            ("40=stop", "SIG40 is a real-time signal"),
        ] {
            let e = signal_and_line(bad).unwrap_err();
            assert!(e.contains(why), "{bad}: {e}");
        }
    }
}
