//! `status watch`: the same again each second, for a person who looks on; on a terminal in place of the
//! one before.

use super::print;
use super::talk::{PATIENCE, ask};
use crate::core::codes::{FAILED, Failure, NOT_RUNNING};
use crate::sys::{fds, process};
use nix::poll::{PollTimeout, poll};
use std::os::unix::net::UnixStream;

/// Between two looks, in milliseconds.
const EACH: u16 = 1000;
/// Home, and what was there before is gone.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Until it is interrupted, or the master has gone.
pub(super) fn run(
    words: &[String],
    connect: impl Fn() -> Result<UnixStream, Failure>,
) -> Result<u8, Failure> {
    let screen = fds::is_terminal(process::STDOUT);
    let mut seen = false;
    loop {
        let looked = connect().and_then(|stream| {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            ask(stream, words)
        });
        match looked {
            Ok((0, text)) if screen => print(&format!("{CLEAR}{text}"))?,
            Ok((0, text)) => print(&text)?,
            Ok((code, text)) => return Err((code, text.trim_end().to_string())),
            // It was there, and has gone, perhaps in the midst of an answer.
            Err((NOT_RUNNING | FAILED, _)) if seen => return Ok(0),
            Err(e) => return Err(e),
        };
        seen = true;
        // (Nothing is waited for but the time.)
        let _ = poll(&mut [], PollTimeout::from(EACH));
        if !is_read() {
            return Ok(0);
        }
    }
}

/// Does somebody read what we print? `status watch | head -1` ends.
fn is_read() -> bool {
    !fds::has_no_reader(process::STDOUT)
}
