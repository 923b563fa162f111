//! What is asked whether clients may come (--ecv-monitor, --ecv-validator): a page, by a connection that
//! is never waited for, and a program of the operator's. When, and what follows, core decides.
//!
//! Any answer below 300 is a good one, and exit 0; a program says why not with its first line.
//! A page of the cluster's own is asked by its first port, as any client would: whoever serves there is
//! whom a client would come to. So if there is no answer since that worker is going, or has died, it is
//! asked once more, by whoever serves by now: nobody waits for our connection when a worker is emptied.

use super::inquiry::Inquiry;
use super::jobs::{Order, Purpose};
use super::ours::Line;
use super::{Kind, Shell, token};
use crate::core::words::{human, reason};
use crate::core::{Addr, Check, Event, Exit, Page, Question, Time};
use crate::sys::socket;
use crate::wire::health;
use crate::wire::ran::{End, Ran};
use mio::Interest;
use mio::unix::SourceFd;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The page that is asked.
struct Asked {
    stream: TcpStream,
    line: Line,
    inquiry: Inquiry,
    page: Page,
    until: Time,
    within: Duration,
    /// Is it asked once more already?
    again: bool,
}

/// What is asked.
#[derive(Default)]
pub struct Checks {
    page: Option<Asked>,
    /// The serial of its connection.
    last: u64,
}

impl Checks {
    /// Is a page being asked?
    pub fn are_under_way(&self) -> bool {
        self.page.is_some()
    }

    /// When something is to be done though nothing happens.
    pub fn deadline(&self) -> Option<Time> {
        self.page.as_ref().map(|a| a.until)
    }
}

impl Shell {
    pub(super) fn check(&mut self, check: Check, of: Question, within: Duration) {
        match of {
            Question::Page(page) => {
                let until = self.now() + within;
                self.ask_page(page, (until, within), false);
            }
            Question::Program(words) => self.run_validator(check, &words, within),
        }
    }

    /// Nobody wants to know any more.
    pub(super) fn call_off(&mut self, check: Check) {
        match check {
            Check::Monitor => self.end_page(Err("called off".into())),
            Check::Validator => self.hurry_validator(),
        }
    }

    fn tell_checked(&mut self, check: Check, answer: Result<(), String>) {
        self.queue.push_back(Event::Checked { check, answer });
    }

    /// Where the cluster's own page is.
    fn first_page(&self) -> io::Result<SocketAddr> {
        let addrs = self.cluster.addrs();
        let tcp = addrs.iter().find_map(Addr::tcp);
        let tcp = tcp.ok_or_else(|| io::Error::other("the cluster serves no port of TCP"))?;
        let way = self.sockets.way_to_port(tcp.port());
        let near = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), tcp.port());
        Ok(way.unwrap_or(near))
    }

    fn ask_page(&mut self, page: Page, time: (Time, Duration), again: bool) {
        if let Err(e) = self.try_page(&page, time, again) {
            let why = format!("GET {page}: {}", reason(&e));
            self.tell_checked(Check::Monitor, Err(why));
        }
    }

    fn try_page(
        &mut self,
        page: &Page,
        (until, within): (Time, Duration),
        again: bool,
    ) -> io::Result<()> {
        let to = match page.at {
            Some(at) => at,
            None => self.first_page()?,
        };
        let fd = socket::open_for(&to)?;
        match socket::connect(fd.as_fd(), &to) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let from = socket::local_addr(fd.as_fd())?;
        self.checks.last += 1;
        let raw = fd.as_raw_fd();
        let both = Interest::READABLE | Interest::WRITABLE;
        let at = token(Kind::Check, self.checks.last);
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&raw), at, both)?;
        // The table in force says by which lane it comes, as for any client.
        let lane = self.sockets.lane_of(to, from).map(|(_, lane)| lane);
        let lane = lane.or_else(|| self.sockets.only_lane(to.port()));
        let line = Line::new(from, to.port());
        self.ours.made(line, lane);
        self.checks.page = Some(Asked {
            stream: TcpStream::from(fd),
            line,
            inquiry: Inquiry::new(health::request(&page.host, &page.path, "application/json")),
            page: page.clone(),
            until,
            within,
            again,
        });
        Ok(())
    }

    /// Something has happened on its connection.
    pub(super) fn hear_check(&mut self, serial: u64) {
        let Some(asked) = self
            .checks
            .page
            .as_mut()
            .filter(|_| serial == self.checks.last)
        else {
            return;
        };
        let wrong = match asked.go_on() {
            Ok(None) => return,
            Ok(Some(Ok(..300))) => return self.end_page(Ok(())),
            Ok(Some(Ok(code))) => format!(" answered {code}"),
            Ok(Some(Err(why))) => format!(" {why}"),
            Err(_) if asked.page.at.is_none() && !asked.again => return self.ask_once_more(),
            Err(e) => format!(": {}", reason(&e)),
        };
        let why = format!("GET {}{wrong}", asked.page);
        self.end_page(Err(why));
    }

    /// Whoever was asked has gone.
    fn ask_once_more(&mut self) {
        if let Some(asked) = self.let_page_go(false) {
            self.ask_page(asked.page, (asked.until, asked.within), true);
        }
    }

    /// Its time is over.
    pub(super) fn checks_due(&mut self) {
        let now = self.now();
        if let Some(asked) = self.checks.page.as_ref().filter(|a| a.until <= now) {
            let (page, within) = (&asked.page, human(asked.within));
            let why = format!("GET {page}: no answer within {within}");
            self.end_page(Err(why));
        }
    }

    fn end_page(&mut self, answer: Result<(), String>) {
        if self.let_page_go(answer.is_ok()).is_some() {
            self.tell_checked(Check::Monitor, answer);
        }
    }

    fn let_page_go(&mut self, answered: bool) -> Option<Asked> {
        let asked = self.checks.page.take()?;
        match answered {
            true => self.ours.over(asked.line),
            // Whoever has it may have it for some time still.
            false => self.give_up_ours(asked.line),
        }
        self.deregister(asked.stream.as_fd());
        Some(asked)
    }

    fn run_validator(&mut self, check: Check, words: &[String], within: Duration) {
        let order = Order {
            name: format!("{check} {}", words.join(" ")),
            words: words.iter().map(OsString::from).collect(),
            cwd: self.settings().sources.here.clone(),
            variables: self.program_variables(),
            ours: false,
            stdin: Vec::new(),
            merged: true,
            limit: Some(within),
        };
        if !self.run_job(Purpose::Check, order) {
            self.tell_checked(check, Err("no program is run any more".into()));
        }
    }

    /// The program has ended.
    pub(super) fn validator_done(&mut self, ran: &Ran) {
        let mut said = ran.out.lines().map(str::trim);
        let said = said.find(|line| !line.is_empty());
        let answer = match (ran.end.why(), &ran.end, said) {
            (None, _, _) => Ok(()),
            // Who is told may be a terminal.
            (Some(_), End::Exited(Exit::Code(_)), Some(line)) => {
                Err(line.replace(char::is_control, "?"))
            }
            (Some(why), _, _) => Err(why),
        };
        self.tell_checked(Check::Validator, answer);
    }
}

impl Asked {
    fn go_on(&mut self) -> io::Result<Option<Result<u16, String>>> {
        if let Some(e) = self.stream.take_error()? {
            return Err(e);
        }
        self.inquiry.go_on(&mut self.stream)
    }
}
