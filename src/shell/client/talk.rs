//! A connection of the client's: what is sent, and what is read until the answer has come.

use super::{complain, print, print_harmless};
use crate::core::codes::{EX_NOPERM, EX_USAGE, FAILED, Failure, NOT_RUNNING, TIMED_OUT};
use crate::core::words::{human, reason};
use crate::sys::unix;
use crate::wire::command::{MAX_LINE, Told, decode, encode};
use crate::wire::key::Key;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take that waits for nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Asks, and waits for the answer: exit code and text. What comes before it is printed.
pub(super) fn ask(stream: UnixStream, words: &[String]) -> Result<(u8, String), Failure> {
    match told(stream, words, print)? {
        Some(answer) => Ok(answer),
        None => Err((FAILED, "the master hung up without an answer".into())),
    }
}

/// Asks what has no end but that of the master, or of who reads.
pub(super) fn follow(stream: UnixStream, words: &[String]) -> Result<u8, Failure> {
    match told(stream, words, print_harmless)? {
        Some((0, text)) => print_harmless(&text),
        Some((code, text)) => Err((code, text.trim_end().to_string())),
        // It has gone; its last word was an event.
        None => Ok(0),
    }
}

/// `None`: it hung up after it had said something, or before that.
fn told(
    mut stream: UnixStream,
    words: &[String],
    show: fn(&str) -> Result<u8, Failure>,
) -> Result<Option<(u8, String)>, Failure> {
    let lost = |e: std::io::Error| (FAILED, format!("the connection broke: {}", reason(&e)));
    let asked = encode(words);
    if asked.len() > MAX_LINE {
        let n = asked.len();
        return Err((
            EX_USAGE,
            format!(
                "{n} bytes of words (limit {MAX_LINE}): nothing was asked; what is long belongs into a file"
            ),
        ));
    }
    // One whom it does not know it answers and hangs up on, perhaps before the words are out.
    let sent = stream.write_all(asked.as_bytes());
    let mut from = BufReader::new(&mut stream);
    let mut said = false;
    loop {
        let mut line = String::new();
        let read = from.read_line(&mut line);
        let slow = |e: &std::io::Error| e.kind() == ErrorKind::WouldBlock;
        if read.as_ref().is_err_and(slow) {
            return Err((
                TIMED_OUT,
                format!(
                    "the master does not answer within {} (is it stopped, or the machine overloaded?)",
                    human(PATIENCE)
                ),
            ));
        }
        if line.is_empty() {
            if !said {
                sent.and(read.map(drop)).map_err(lost)?;
            }
            return Ok(None);
        }
        match decode(line.trim_end()).map_err(|e| (FAILED, e))? {
            Told::Answer(code, text) => return Ok(Some((code, text))),
            Told::More(text) => {
                // It has been heard, and takes its time.
                let _ = from.get_ref().set_read_timeout(None);
                show(&text)?;
            }
            Told::Complaint(text) => complain(text.trim_end()),
        }
        said = true;
    }
}

pub(super) fn connect(path: &Path) -> Result<UnixStream, Failure> {
    unix::connect_unix(path, PATIENCE).map_err(|e| {
        let at = path.display();
        match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                (NOT_RUNNING, format!("not running: nobody listens on {at}"))
            }
            ErrorKind::PermissionDenied => (
                EX_NOPERM,
                format!("{at}: permission denied: it belongs to another user"),
            ),
            ErrorKind::WouldBlock => (
                TIMED_OUT,
                format!(
                    "{at}: the master does not take clients within {}",
                    human(PATIENCE)
                ),
            ),
            _ => (FAILED, format!("{at}: {}", reason(&e))),
        }
    })
}

/// The same over TCP, with the key.
pub(super) fn connect_port(at: SocketAddr, key: &Key) -> Result<UnixStream, Failure> {
    let tcp = TcpStream::connect_timeout(&at, PATIENCE).map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => {
            (NOT_RUNNING, format!("not running: nobody listens on {at}"))
        }
        ErrorKind::TimedOut => (
            TIMED_OUT,
            format!("{at}: no answer within {}", human(PATIENCE)),
        ),
        _ => (FAILED, format!("{at}: {}", reason(&e))),
    })?;
    // From here on it is a stream like any other.
    let mut stream = UnixStream::from(OwnedFd::from(tcp));
    let lost = |e: std::io::Error| (FAILED, format!("the connection broke: {}", reason(&e)));
    stream.write_all(key.line().as_bytes()).map_err(lost)?;
    Ok(stream)
}
