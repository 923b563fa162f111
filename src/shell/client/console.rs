//! Somebody who types: a line is sent when the answer to the one before has come, and what happens
//! meanwhile is shown as it comes. The terminal does the editing, as it does for cat(1): so it works
//! under rlwrap(1), and a file of lines is as good as a terminal. Prompt and colour are for a terminal
//! alone.

use super::super::requests::LEAVE;
use super::{complain, print};
use crate::core::codes::{EX_USAGE, FAILED, Failure};
use crate::core::words::reason;
use crate::sys::fds;
use crate::wire::command::{MAX_LINE, Told, decode, encode};
use crate::wire::logs::harmless;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

struct Console {
    stream: UnixStream,
    /// What has come from the master, and has no end of line yet.
    heard: Vec<u8>,
    /// The same of who types.
    typed: Vec<u8>,
    /// Lines that are to be sent.
    lines: VecDeque<String>,
    /// Has all been typed that will be?
    over: bool,
    /// Is an answer due?
    waits: bool,
    /// Exit code of the last answer.
    code: u8,
    /// Is it a terminal that we write to, and somebody who types that we read?
    person: bool,
    prompt: String,
    /// Does it stand at the end of the screen?
    prompted: bool,
}

/// Until the input ends, or one of the two has gone. The exit code is that of the last verb.
pub(super) fn run(stream: UnixStream) -> Result<u8, Failure> {
    let (input, output) = (io::stdin(), io::stdout());
    let person = fds::is_terminal(input.as_fd()) && fds::is_terminal(output.as_fd());
    let mut c = Console {
        stream,
        heard: Vec::new(),
        typed: Vec::new(),
        lines: VecDeque::new(),
        over: false,
        waits: true,
        code: 0,
        person,
        prompt: String::new(),
        prompted: false,
    };
    c.send(&encode(&["console".to_string()]))?;
    c.greet()?;
    c.talk()
}

impl Console {
    fn send(&mut self, line: &str) -> Result<(), Failure> {
        self.waits = true;
        self.stream
            .write_all(line.as_bytes())
            .map_err(|e| match e.kind() {
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => (
                    FAILED,
                    format!("the master has gone: nobody heard {}", line.trim()),
                ),
                _ => lost(e),
            })
    }

    /// The first answer: who they are.
    fn greet(&mut self) -> Result<(), Failure> {
        while self.waits {
            if !self.hear()? {
                return Err((FAILED, "the master hung up".into()));
            }
        }
        Ok(())
    }

    fn talk(&mut self) -> Result<u8, Failure> {
        loop {
            while !self.waits {
                match self.lines.pop_front() {
                    Some(line) if LEAVE.contains(&line.trim()) => return self.leave(),
                    Some(line) if line.trim().is_empty() => {}
                    Some(line) if line.len() > MAX_LINE => {
                        let n = line.len();
                        self.code = EX_USAGE;
                        complain(&format!("a line of {n} bytes (limit {MAX_LINE}): not sent"));
                    }
                    Some(line) => self.send(&format!("{line}\n"))?,
                    None if self.over => return self.leave(),
                    None => {
                        self.ask_for_more();
                        break;
                    }
                }
            }
            let (heard, typed) = self.wait()?;
            if heard && !self.hear()? {
                return self.left_alone();
            }
            if typed {
                self.read_typed();
            }
        }
    }

    /// The end of ours.
    fn leave(&self) -> Result<u8, Failure> {
        if self.prompted && self.over {
            print("\n")?;
        }
        Ok(self.code)
    }

    /// The end of theirs.
    fn left_alone(&mut self) -> Result<u8, Failure> {
        if self.waits {
            return Err((FAILED, "the master has gone without an answer".into()));
        }
        self.show("the master has gone\n")?;
        Ok(self.code)
    }

    fn ask_for_more(&mut self) {
        if self.person && !self.prompted {
            let mut out = io::stdout();
            let _ = out
                .write_all(self.prompt.as_bytes())
                .and_then(|()| out.flush());
            self.prompted = true;
        }
    }

    /// Which of the two has something to read?
    fn wait(&self) -> Result<(bool, bool), Failure> {
        let input = io::stdin();
        let mut both = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        if !self.over && !self.waits {
            both.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        loop {
            match poll(&mut both, PollTimeout::NONE) {
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(lost(e.into())),
            }
        }
        let at = |n: usize| both.get(n).is_some_and(|p| p.any().unwrap_or(false));
        Ok((at(0), at(1)))
    }

    /// Reads what the master says. False: it has gone.
    fn hear(&mut self) -> Result<bool, Failure> {
        let mut buf = [0u8; 16 * 1024];
        let n = match self.stream.read(&mut buf) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            Err(e) => return Err(lost(e)),
        };
        self.heard.extend(buf.iter().take(n));
        while let Some(end) = self.heard.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            match decode(line.trim_end()).map_err(|e| (FAILED, e))? {
                Told::More(text) => self.show(&text)?,
                Told::Complaint(text) => match self.person {
                    true => self.show(&text)?,
                    false => complain(text.trim_end()),
                },
                Told::Answer(code, text) => self.answered(code, &text)?,
            }
        }
        Ok(n > 0)
    }

    fn answered(&mut self, code: u8, text: &str) -> Result<(), Failure> {
        self.waits = false;
        if self.prompt.is_empty() {
            // The greeting, which a file of lines has no use for.
            let name = text
                .split(", cluster ")
                .nth(1)
                .and_then(|t| t.split(',').next());
            self.prompt = format!("{}> ", name.unwrap_or("minicluster"));
            return match self.person {
                true => self.show(text),
                false => Ok(()),
            };
        }
        self.code = code;
        let is_json = text.starts_with(['{', '[']);
        match (code, self.person) {
            // All has been said.
            (_, _) if text.is_empty() => Ok(()),
            (0, _) => self.show(text),
            // What came of it is the answer, as in a shell.
            (_, false) if is_json => self.show(text),
            (_, true) => self.show(&red(text)),
            (_, false) => {
                complain(text.trim_end());
                Ok(())
            }
        }
    }

    /// Above the prompt, if that stands there.
    fn show(&mut self, text: &str) -> Result<(), Failure> {
        if std::mem::take(&mut self.prompted) {
            print("\r\x1b[K")?;
        }
        match self.person {
            true => print(&harmless(text)).map(drop),
            false => print(text).map(drop),
        }
    }

    fn read_typed(&mut self) {
        let mut buf = [0u8; 4096];
        // One read: a second one would wait.
        match fds::read(io::stdin().as_fd(), &mut buf) {
            Ok(0) => {
                self.over = true;
                let rest = std::mem::take(&mut self.typed);
                if !rest.is_empty() {
                    self.lines
                        .push_back(String::from_utf8_lossy(&rest).into_owned());
                }
            }
            Ok(n) => {
                self.prompted = false;
                self.typed.extend(buf.iter().take(n));
            }
            Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.over = true,
        }
        while let Some(end) = self.typed.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.typed.drain(..=end).collect();
            self.lines
                .push_back(String::from_utf8_lossy(&line).trim_end().to_string());
        }
    }
}

/// What has failed, for a person whose terminal has colours that are wanted.
fn red(text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_none_or(|t| t == "dumb");
    match plain {
        true => text.to_string(),
        false => format!("\x1b[31m{}\x1b[0m\n", text.trim_end()),
    }
}

fn lost(e: io::Error) -> Failure {
    (FAILED, format!("the connection broke: {}", reason(&e)))
}
