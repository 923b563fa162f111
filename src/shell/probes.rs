//! Workers asked whether they are ready (--ready tcp, http:/PATH): a connection from a port of our own, by
//! the worker's lane, that is never waited for. To accept it is an answer; or a request is made, and the
//! status of what is answered decides.
//!
//! A few are asked at the same time, the others wait for their turn. That one has accepted is seen by its
//! having the connection (sock_diag): for that it is looked every few milliseconds.

use super::inquiry::Inquiry;
use super::observer::Observer;
use super::ours::Line;
use super::{Kind, Shell, token};
use crate::core::words::{human, reason};
use crate::core::{Event, LaneId, Time, WorkerId};
use crate::sys::socket;
use crate::wire::health;
use crate::wire::sock_diag::Conn;
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// So many are asked at the same time.
const AT_ONCE: usize = 8;
/// So often it is looked whether one has accepted.
const LOOK: Duration = Duration::from_millis(20);

/// What is asked.
enum What {
    /// To accept.
    Tcp,
    /// To answer this.
    Http { path: String, inquiry: Inquiry },
}

/// One that is asked.
struct Probe {
    stream: TcpStream,
    line: Line,
    lane: LaneId,
    what: What,
    until: Time,
    within: Duration,
}

/// All of them.
#[derive(Default)]
pub struct Probes {
    under_way: BTreeMap<WorkerId, Probe>,
    waiting: VecDeque<(WorkerId, LaneId, Duration)>,
    observer: Observer,
    /// When it is looked next whether they have accepted.
    look: Option<Time>,
}

impl Probes {
    /// When something is to be done though nothing happens.
    pub fn deadline(&self) -> Option<Time> {
        let ends = self.under_way.values().map(|p| p.until);
        ends.chain(self.look).min()
    }
}

impl Shell {
    /// Asks it, now or when its turn has come.
    pub(super) fn probe(&mut self, worker: WorkerId, lane: LaneId, within: Duration) {
        self.probes.waiting.push_back((worker, lane, within));
        self.next_probes();
    }

    fn next_probes(&mut self) {
        while self.probes.under_way.len() < AT_ONCE
            && let Some((worker, lane, within)) = self.probes.waiting.pop_front()
        {
            if let Err(e) = self.try_probe(worker, lane, within) {
                let _ = self.sockets.ask(lane, None);
                let answer = Err(format!("it cannot be asked: {}", reason(&e)));
                self.queue.push_back(Event::Probed { worker, answer });
            }
        }
    }

    fn try_probe(&mut self, worker: WorkerId, lane: LaneId, within: Duration) -> io::Result<()> {
        let gone = || io::Error::from(ErrorKind::NotFound);
        let generation = self
            .cluster
            .fleet()
            .get(worker)
            .ok_or_else(gone)?
            .generation;
        let (to, from) = self.sockets.way_to(lane).ok_or_else(gone)?;
        let what = match &self.recipe(generation).settings.ready_path {
            None => What::Tcp,
            Some(path) => What::Http {
                path: path.clone(),
                inquiry: Inquiry::new(health::request(
                    &format!("localhost:{}", to.port()),
                    path,
                    "*/*",
                )),
            },
        };
        let fd = socket::open_near(&from)?;
        let from = socket::local_addr(fd.as_fd())?;
        self.sockets.ask(lane, Some(from))?;
        match socket::connect(fd.as_fd(), &to) {
            Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let raw = fd.as_raw_fd();
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&raw), token(Kind::Probe, worker.0), both)?;
        let until = self.now() + within;
        if let What::Tcp = what {
            self.probes.look.get_or_insert(self.now() + LOOK);
        }
        let line = Line::new(from, to.port());
        self.ours.made(line, Some(lane));
        let probe = Probe {
            stream: TcpStream::from(fd),
            line,
            lane,
            what,
            until,
            within,
        };
        self.probes.under_way.insert(worker, probe);
        Ok(())
    }

    /// Something has happened on its connection.
    pub(super) fn hear_probe(&mut self, worker: WorkerId) {
        let Some(probe) = self.probes.under_way.get_mut(&worker) else {
            return;
        };
        match probe.go_on() {
            Ok(None) => {}
            Ok(Some(answer)) => self.end_probe(worker, answer),
            Err(e) => {
                let answer = Err(format!("{}: {}", probe.name(), reason(&e)));
                self.end_probe(worker, answer);
            }
        }
    }

    /// Those whose time is over, and those that have accepted.
    pub(super) fn probes_due(&mut self) {
        let now = self.now();
        if self.probes.look.is_some_and(|at| at <= now) {
            let accepted = self.accepted().unwrap_or_default();
            for worker in accepted {
                self.end_probe(worker, Ok(()));
            }
            let tcp = |p: &Probe| matches!(p.what, What::Tcp);
            let more = self.probes.under_way.values().any(tcp);
            self.probes.look = more.then_some(now + LOOK);
        }
        let late = |(worker, p): (&WorkerId, &Probe)| {
            let why = p.too_late();
            (p.until <= now).then_some((*worker, why))
        };
        let late: Vec<_> = self.probes.under_way.iter().filter_map(late).collect();
        for (worker, why) in late {
            self.end_probe(worker, Err(why));
        }
    }

    /// Who has a connection that was made to see that.
    fn accepted(&mut self) -> io::Result<Vec<WorkerId>> {
        let conns = self.probes.observer.connections(&self.sockets.numbers());
        self.probes.observer.rest();
        let held: Vec<Conn> = conns?.into_iter().filter(|c| c.inode != 0).collect();
        let mut accepted = Vec::new();
        for (worker, p) in &self.probes.under_way {
            let asked = matches!(p.what, What::Tcp) && held.iter().any(|c| p.is_by(c));
            accepted.extend(asked.then_some(*worker));
        }
        Ok(accepted)
    }

    /// We have given up one of our connections, but it may wait on.
    pub(super) fn give_up_ours(&mut self, line: Line) {
        let conns = self.probes.observer.connections(&self.sockets.numbers());
        self.probes.observer.rest();
        self.ours.given_up(line, &conns.unwrap_or_default());
    }

    /// Nobody is being asked any more: all are asked again by whoever takes over.
    pub(super) fn interrupt_probes(&mut self) {
        let why = || "the master was replaced in the midst of it".to_string();
        for (worker, ..) in std::mem::take(&mut self.probes.waiting) {
            let answer = Err(why());
            self.queue.push_back(Event::Probed { worker, answer });
        }
        let all: Vec<WorkerId> = self.probes.under_way.keys().copied().collect();
        for worker in all {
            self.end_probe(worker, Err(why()));
        }
    }

    fn end_probe(&mut self, worker: WorkerId, answer: Result<(), String>) {
        if let Some(probe) = self.probes.under_way.remove(&worker) {
            match answer.is_ok() {
                true => self.ours.over(probe.line),
                false => self.give_up_ours(probe.line),
            }
            self.deregister(probe.stream.as_fd());
            // Its lane may have gone with the worker.
            let _ = self.sockets.ask(probe.lane, None);
            self.queue.push_back(Event::Probed { worker, answer });
        }
        self.next_probes();
    }
}

impl Probe {
    /// Is this its other end?
    fn is_by(&self, conn: &Conn) -> bool {
        Line::of(conn) == self.line
    }

    fn name(&self) -> String {
        match &self.what {
            What::Tcp => "a connection".to_string(),
            What::Http { path, .. } => format!("GET {path}"),
        }
    }

    fn too_late(&self) -> String {
        let within = human(self.within);
        match self.what {
            What::Tcp => format!("no connection was accepted within {within}"),
            What::Http { .. } => format!("{}: no answer within {within}", self.name()),
        }
    }

    /// As far as it goes now; what is the answer, if there is one?
    fn go_on(&mut self) -> io::Result<Option<Result<(), String>>> {
        if let Some(e) = self.stream.take_error()? {
            return Err(e);
        }
        let What::Http { inquiry, .. } = &mut self.what else {
            return Ok(None);
        };
        let answer = inquiry.go_on(&mut self.stream)?;
        Ok(answer.map(|answer| match answer {
            Ok(..400) => Ok(()),
            Ok(code) => Err(format!("{} answered {code}", self.name())),
            Err(why) => Err(format!("{} {why}", self.name())),
        }))
    }
}
