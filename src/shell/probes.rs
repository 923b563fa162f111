//! Workers asked whether they are ready (--ready tcp, http:/PATH): a connection from a port of our own, by
//! the worker's lane, that is never waited for. To accept it is an answer; or a request is made, and the
//! status of what is answered decides.
//!
//! A few are asked at the same time, the others wait for their turn. That one has accepted is seen by its
//! having the connection (sock_diag): for that it is looked every few milliseconds.
//!
//! A connection that nobody has accepted waits on when its time is over, until somebody does: it is
//! remembered, for it must not be taken for a client's. (By what no other has: its address may be another
//! one's tomorrow.)

use super::observer::Observer;
use super::{Kind, Shell, token};
use crate::core::words::{human, reason};
use crate::core::{Event, LaneId, Time, WorkerId};
use crate::sys::socket;
use crate::wire::health::{self, Answer};
use crate::wire::sock_diag::Conn;
use crate::wire::untouched;
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// So many are asked at the same time.
const AT_ONCE: usize = 8;
/// So often it is looked whether one has accepted.
const LOOK: Duration = Duration::from_millis(20);

/// So many that were not accepted are remembered, the last ones.
const LEFT_MOST: usize = 1024;

/// What is asked.
#[derive(Clone, Debug)]
enum What {
    /// To accept.
    Tcp,
    /// To answer this: so much of it was sent, and so much has come.
    Http {
        path: String,
        request: Vec<u8>,
        sent: usize,
        got: Vec<u8>,
    },
}

/// One that is asked.
struct Probe {
    stream: TcpStream,
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
    /// Those that were not answered, and by which lane.
    left: VecDeque<(LaneId, u64)>,
}

impl Probes {
    /// Is it one of ours?
    pub fn is_ours(&self, conn: &Conn) -> bool {
        let left = self.left.iter().any(|(_, cookie)| *cookie == conn.cookie);
        left || self.under_way.values().any(|p| p.is_by(conn))
    }

    /// How many of ours wait in that lane, of these?
    pub fn waiting(&self, lane: LaneId, conns: &[Conn]) -> u32 {
        let left = |c: &Conn| self.left.contains(&(lane, c.cookie));
        let asked = |c: &Conn| {
            let mut asked = self.under_way.values();
            asked.any(|p| p.lane == lane && p.is_by(c))
        };
        let ours = |c: &&Conn| untouched::waits(c) && (left(c) || asked(c));
        u32::try_from(conns.iter().filter(ours).count()).unwrap_or(u32::MAX)
    }

    /// How many of ours there are in that lane, which is no more.
    pub fn forget(&mut self, lane: LaneId) -> u32 {
        let before = self.left.len();
        self.left.retain(|(of, _)| *of != lane);
        let asked = self.under_way.values().filter(|p| p.lane == lane);
        u32::try_from(before - self.left.len() + asked.count()).unwrap_or(u32::MAX)
    }

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
                request: health::request(path, to.port()),
                sent: 0,
                got: Vec::new(),
            },
        };
        let fd = socket::open_near(&from)?;
        self.sockets
            .ask(lane, Some(socket::local_addr(fd.as_fd())?))?;
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
        let probe = Probe {
            stream: TcpStream::from(fd),
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

    /// It may wait on, unanswered.
    fn keep_in_mind(&mut self, probe: &Probe) {
        let conns = self.probes.observer.connections(&self.sockets.numbers());
        self.probes.observer.rest();
        // (Who cannot be seen is a client.)
        let conns = conns.unwrap_or_default();
        if let Some(conn) = conns.iter().find(|c| probe.is_by(c)) {
            self.probes.left.push_back((probe.lane, conn.cookie));
        }
        if self.probes.left.len() > LEFT_MOST {
            self.probes.left.pop_front();
        }
    }

    fn end_probe(&mut self, worker: WorkerId, answer: Result<(), String>) {
        if let Some(probe) = self.probes.under_way.remove(&worker) {
            if answer.is_err() {
                self.keep_in_mind(&probe);
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
        let ours = self.stream.local_addr();
        ours.is_ok_and(|a| {
            (a.port(), a.ip().to_canonical()) == (conn.peer.port(), conn.peer.ip().to_canonical())
        })
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
        let What::Http {
            request, sent, got, ..
        } = &mut self.what
        else {
            return Ok(None);
        };
        while *sent < request.len() {
            match self.stream.write(request.get(*sent..).unwrap_or_default()) {
                Ok(n) => *sent += n,
                // Not connected yet, or no room.
                Err(e) if is_not_yet(&e) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        let mut bytes = [0; 4096];
        loop {
            let ended = match self.stream.read(&mut bytes) {
                Ok(0) => true,
                Ok(n) => {
                    let room = health::MOST.saturating_sub(got.len());
                    got.extend(bytes.iter().take(n.min(room)));
                    false
                }
                Err(e) if is_not_yet(&e) => return Ok(None),
                Err(e) => return Err(e),
            };
            let answer = match health::parse(got) {
                Answer::Status(..400) => return Ok(Some(Ok(()))),
                Answer::Status(code) => format!("answered {code}"),
                Answer::Bad => "answered with what is no HTTP".to_string(),
                Answer::More if ended => "no answer: it closed the connection".to_string(),
                Answer::More => continue,
            };
            return Ok(Some(Err(format!("{} {answer}", self.name()))));
        }
    }
}

fn is_not_yet(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
    )
}
