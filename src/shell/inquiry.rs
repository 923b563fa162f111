//! One request of HTTP that we make, and the status of its answer: as far as it goes each time that
//! something has happened on its connection, which is never waited for.

use crate::wire::health::{self, Answer};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

/// So much of it was sent, and so much has come.
pub struct Inquiry {
    request: Vec<u8>,
    sent: usize,
    got: Vec<u8>,
}

impl Inquiry {
    /// That.
    pub fn new(request: Vec<u8>) -> Inquiry {
        Inquiry {
            request,
            sent: 0,
            got: Vec::new(),
        }
    }

    /// As far as it goes now; the status, or what was wrong with the answer, if it has come. An error: there
    /// will be none.
    pub fn go_on(&mut self, stream: &mut TcpStream) -> io::Result<Option<Result<u16, String>>> {
        while self.sent < self.request.len() {
            match stream.write(self.request.get(self.sent..).unwrap_or_default()) {
                Ok(n) => self.sent += n,
                // Not connected yet, or no room.
                Err(e) if is_not_yet(&e) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        let mut bytes = [0; 4096];
        loop {
            let ended = match stream.read(&mut bytes) {
                Ok(0) => true,
                Ok(n) => {
                    let room = health::MOST.saturating_sub(self.got.len());
                    self.got.extend(bytes.iter().take(n.min(room)));
                    false
                }
                Err(e) if is_not_yet(&e) => return Ok(None),
                Err(e) => return Err(e),
            };
            match health::parse(&self.got) {
                Answer::Status(code) => return Ok(Some(Ok(code))),
                Answer::Bad => return Ok(Some(Err("answered with what is no HTTP".into()))),
                Answer::More if ended => {
                    let why = "it closed the connection without an answer";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
                }
                Answer::More => {}
            }
        }
    }
}

fn is_not_yet(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}
