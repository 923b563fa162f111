//! The workers' bind(2) and listen(2), answered. Each asks while a thread is blocked in the call,
//! so everything here is answered in the turn it is read, and nothing here waits.
//!
//! Order of a swap, and why: read first, then check that the caller still waits (what was read was
//! its own, not a successor's under the same number); dress the lane with the options of the
//! socket it replaces before the worker can see it; put it onto the worker's number, then answer 0
//! (answering by the same ioctl would return the number from bind).

use super::channel::To;
use super::sockets::Listened;
use super::{Shell, unseen};
use crate::core::words::reason;
use crate::core::{Addr, Ask, Event, LaneId, Level, Snag, WorkerId};
use crate::sys::closer::Copy;
use crate::sys::procfs::{self, Target};
use crate::sys::proclook::{self, Tie};
use crate::sys::seccomp::{self, Answer, Call, Notification};
use crate::sys::socket::{self, Reach};
use crate::sys::{errno_of, fds, inherit, passed};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest path read of a name that is removed: that of a socket is shorter.
const MAX_PATH: usize = 512;
/// Longest address read.
const MAX_ADDR: usize = 128;
/// So many processes of a worker's tree are asked whether they hold a socket, too.
const MATES: usize = 64;
/// Notifications of one worker in one turn.
pub const TURN: usize = 64;

/// A call that core has been asked about.
pub struct Pending {
    /// Whose.
    pub worker: WorkerId,
    /// What the kernel told.
    notif: Notification,
    /// The worker's own socket, where we may have a copy.
    theirs: Option<Copy>,
}

impl Pending {
    fn fd(&self) -> i32 {
        fd_arg(&self.notif)
    }

    /// The thread, and its descriptor.
    pub fn place(&self) -> (i32, i32) {
        (self.notif.tid, self.fd())
    }

    /// The copy of it, for good.
    pub fn take_copy(&mut self) -> Option<Copy> {
        self.theirs.take()
    }
}

fn fd_arg(n: &Notification) -> i32 {
    i32::try_from(n.args[0] & 0xffff_ffff).unwrap_or(-1)
}

/// A call that is not simply the kernel's business.
enum Known {
    /// Core says what becomes of it.
    Ours(Event),
    /// It is answered, or nobody waits for an answer any more.
    Over,
}

impl Shell {
    /// Reads one call of a worker and asks core about it, or answers at once what is not ours.
    /// False: nothing waits.
    pub(super) fn one_notification(&mut self, worker: WorkerId) -> bool {
        let listener = self
            .procs
            .map
            .get(&worker)
            .and_then(|p| p.listener.as_ref());
        let Some(listener) = listener else {
            return false;
        };
        let notif = match seccomp::receive(listener.as_fd()) {
            Ok(Some(n)) => n,
            Ok(None) => return false,
            Err(e) => {
                let message = format!("cannot receive a bind(2) of a worker: {}", reason(&e));
                self.say(Level::Error, "takeover-error", message);
                return false;
            }
        };
        let call = match notif.call {
            Call::Bind => self.bind_event(worker, notif),
            Call::Listen => self.listen_event(worker, notif),
            Call::Unlink => self.keep_name(worker, notif, notif.args[0]),
            Call::UnlinkAt => self.keep_name_at(worker, notif),
            Call::Other => None,
        };
        match call {
            Some(Known::Ours(event)) => self.queue.push_back(event),
            Some(Known::Over) => {}
            None => self.answer_call(worker, &notif, Answer::Continue),
        }
        true
    }

    fn bind_event(&mut self, worker: WorkerId, notif: Notification) -> Option<Known> {
        // A thread outside our pid namespace cannot be looked at.
        if notif.tid == 0 {
            return None;
        }
        let fd = fd_arg(&notif);
        let len = usize::try_from(notif.args[2] & 0xffff_ffff).unwrap_or(usize::MAX);
        // No descriptor, no address: the kernel has the right error for each.
        if fd < 0 || len > MAX_ADDR {
            return None;
        }
        let mut bytes = [0u8; MAX_ADDR];
        let buf = bytes.get_mut(..len)?;
        let read = {
            let _worn = self.to_look();
            procfs::read_memory(notif.tid, notif.args[1], buf)
        };
        let got = match read {
            Ok(n) => n,
            Err(e) => {
                self.unreadable(&e);
                return None;
            }
        };
        let addr = self.asked_address(notif.tid, bytes.get(..got)?)?;
        if self.release_connected() {
            self.settle();
        }
        let seen = procfs::is_ours();
        let wanted = match addr {
            Addr::Tcp(_) => "TCP",
            Addr::Unix(_) | Addr::Other(_) => "UNIX",
        };
        let concerns = self.cluster.concerns(addr.clone());
        let (inode, theirs) = {
            let _worn = self.to_look();
            look_at_socket(notif.tid, fd, seen.then_some(wanted), concerns)?
        };
        if inode.is_some_and(|i| self.sockets.by_inode(i).is_some()) {
            // A second bind of what is our lane already: it is bound, and where it should be.
            self.answer_call(worker, &notif, Answer::Zero);
            return Some(Known::Over);
        }
        match &theirs {
            Some(s) if !is_ours_to_take(s.as_fd(), &addr) => return None,
            None if !seen => return None,
            Some(_) | None => {}
        }
        if concerns {
            self.release_closed(worker);
        }
        let snag = match concerns {
            true => self.snag(worker, &notif, theirs.as_ref()),
            false => None,
        };
        let device = theirs.as_ref().and_then(|s| socket::device(s.as_fd()));
        let device = device.map(|d| d.to_string_lossy().into_owned());
        if !self.still_waits(worker, &notif) {
            return Some(Known::Over);
        }
        let ask = self.remember(Pending {
            worker,
            notif,
            theirs,
        });
        Some(Known::Ours(Event::BindAsked {
            worker,
            ask,
            addr,
            device,
            snag,
        }))
    }

    /// Relative to a directory that it has open, or the removal of a directory: not what is meant.
    fn keep_name_at(&mut self, worker: WorkerId, notif: Notification) -> Option<Known> {
        let dir = notif.args[0] as i32;
        match (dir, notif.args[2]) {
            (libc::AT_FDCWD, 0) => self.keep_name(worker, notif, notif.args[1]),
            _ => None,
        }
    }

    /// A worker removes a name: that of a unix socket that all share stays, or clients would find
    /// nothing there until it is put back. It is told that it is gone: it is about to bind it, or
    /// to leave.
    fn keep_name(&mut self, worker: WorkerId, notif: Notification, at: u64) -> Option<Known> {
        if notif.tid == 0 {
            return None;
        }
        let mut bytes = [0u8; MAX_PATH];
        let got = {
            let _worn = self.to_look();
            procfs::read_memory(notif.tid, at, &mut bytes).ok()?
        };
        let path = bytes
            .get(..got)?
            .split(|b| *b == 0)
            .next()
            .filter(|p| p.len() < got)?;
        let path = Path::new(OsStr::from_bytes(path));
        let kept = self.sockets.keeps_name(notif.tid, path, || self.to_look());
        if !kept || !self.still_waits(worker, &notif) {
            return None;
        }
        self.answer_call(worker, &notif, Answer::Zero);
        let message = format!(
            "a worker removes {}, which all workers share: it stays",
            path.display()
        );
        self.say(Level::Debug, "socket-kept", message);
        Some(Known::Over)
    }

    /// The address in the bytes that bind(2) was given, if it can be one of ours.
    fn asked_address(&self, tid: i32, bytes: &[u8]) -> Option<Addr> {
        if let Some(addr) = socket::parse_addr(bytes) {
            return (addr.port() != 0).then_some(Addr::Tcp(addr));
        }
        let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
        if i32::from(family) != libc::AF_UNIX {
            return None;
        }
        let path = passed::name_of(bytes.get(2..)?)?;
        self.sockets.unix_meant(tid, &path, || self.to_look())
    }

    /// Why a swap of this socket would harm the worker, if it would.
    fn snag(&self, worker: WorkerId, notif: &Notification, theirs: Option<&Copy>) -> Option<Snag> {
        if theirs.is_some_and(|s| socket::is_filtered(s.as_fd())) {
            return Some(Snag::Filtered);
        }
        let _worn = self.to_look();
        let first = self.procs.map.get(&worker).and_then(|p| p.pid);
        let root = first.or_else(|| procfs::process_of(notif.tid));
        let mut tree = root.map(procfs::tree).unwrap_or_default();
        tree.truncate(MATES);
        let tie = proclook::tied(notif.tid, fd_arg(notif), &tree)?;
        Some(match tie {
            Tie::Epoll => Snag::InEpollSet,
            Tie::Duplicate => Snag::Duplicated,
            Tie::Shared => Snag::Shared,
        })
    }

    /// Whom the socket that is being bound is to serve, as far as that can be seen.
    pub(super) fn reach_asked(&self, ask: Ask) -> Reach {
        let theirs = self.pending.get(&ask).and_then(|p| p.theirs.as_ref());
        theirs.map(|s| Reach::of(s.as_fd())).unwrap_or_default()
    }

    fn listen_event(&mut self, worker: WorkerId, notif: Notification) -> Option<Known> {
        let Some(Target::Socket(inode)) = self.target(notif.tid, fd_arg(&notif)) else {
            return None;
        };
        if self.release_connected() {
            self.settle();
        }
        let lane = self.sockets.by_inode(inode)?;
        if !self.still_waits(worker, &notif) {
            return Some(Known::Over);
        }
        let ask = self.remember(Pending {
            worker,
            notif,
            theirs: None,
        });
        Some(Known::Ours(Event::ListenAsked { worker, ask, lane }))
    }

    /// What a worker's descriptor refers to.
    pub(super) fn target(&self, tid: i32, fd: i32) -> Option<Target> {
        let _worn = self.to_look();
        unseen::target(tid, fd)
    }

    fn remember(&mut self, pending: Pending) -> Ask {
        self.next_ask += 1;
        let ask = Ask(self.next_ask);
        self.pending.insert(ask, pending);
        ask
    }

    /// Puts the lane in the place of the worker's socket.
    pub(super) fn lend(&mut self, ask: Ask, lane: LaneId) {
        let Some(p) = self.pending.remove(&ask) else {
            return;
        };
        let Some(ours) = self.sockets.fd(lane) else {
            return self.answer_call(p.worker, &p.notif, Answer::Error(libc::EBADF));
        };
        // Without /proc nobody tells whether exec closes it; most servers say that it shall.
        let unseen = || {
            let theirs = p.theirs.as_ref().map(|s| fds::status_flags(s.as_fd()));
            libc::O_CLOEXEC | theirs.and_then(Result::ok).unwrap_or(0)
        };
        let flags = {
            let _worn = self.to_look();
            procfs::open_flags(p.notif.tid, p.fd()).unwrap_or_else(unseen)
        };
        let lane_flags = fds::status_flags(ours).unwrap_or(0);
        let mismatch = flags & libc::O_NONBLOCK == 0 && lane_flags & libc::O_NONBLOCK != 0;
        if flags & libc::O_NONBLOCK != 0 {
            let _ = fds::add_nonblock(ours);
        }
        if let Some(theirs) = &p.theirs {
            self.sockets.dress(lane, theirs.as_fd());
        }
        let done = match self.listener_of(p.worker) {
            Some(l) => {
                let cloexec = flags & libc::O_CLOEXEC != 0;
                seccomp::put_fd(l, p.notif.id, ours, p.fd(), cloexec)
            }
            None => return,
        };
        let answer = match done {
            Ok(()) => Answer::Zero,
            // The caller died meanwhile; the answer will find nobody either.
            Err(e) => Answer::Error(errno_of(&e)),
        };
        if mismatch {
            self.say_once(
                Level::Debug,
                "lane-nonblocking",
                "a worker binds a blocking socket, but its port is shared with one that does not block: its accept(2) may fail with EAGAIN".into(),
            );
        }
        // It may have removed the name to be able to bind it.
        self.mend_file(lane);
        self.answer_call(p.worker, &p.notif, answer);
    }

    /// Makes the lane listen, gives the worker its stderr back, and answers listen(2).
    pub(super) fn listen_on(&mut self, ask: Ask, lane: LaneId) {
        let Some(p) = self.pending.remove(&ask) else {
            return;
        };
        if let Err(e) = self.sockets.listen(lane) {
            let errno = errno_of(&e);
            let holder = None;
            self.queue.push_back(Event::LaneFailed {
                lane,
                errno,
                holder,
            });
            return self.answer_call(p.worker, &p.notif, Answer::Error(errno));
        }
        if let Some(proc) = self.procs.map.get_mut(&p.worker) {
            proc.listened = Some(Listened {
                pid: p.notif.tid,
                fd: p.fd(),
                lane,
            });
        }
        self.give_stderr_back(&p);
        self.answer_call(p.worker, &p.notif, Answer::Zero);
        let worker = p.worker;
        self.queue.push_back(Event::Listens { worker, lane });
    }

    /// From here on the worker's stderr is none of our business: it gets ours in place of the
    /// pipe, if the pipe is still what its fd 2 is. (With --silent it gets /dev/null. With --log-dir it
    /// stays our business.)
    fn give_stderr_back(&mut self, p: &Pending) {
        let Some(pipe) = self.stderrs.get(&p.worker) else {
            return;
        };
        let to = pipe.to;
        if to == To::Files {
            return;
        }
        if self.target(p.notif.tid, 2) != Some(Target::Pipe(pipe.inode)) {
            return;
        }
        // What it wrote before goes out before what it writes after.
        self.drain_stderr(p.worker);
        // Ours is not read fast enough: with the rest still in the pipe the order would be lost,
        // so this worker stays on it.
        let rest = self.stderrs.get(&p.worker);
        let rest = rest.and_then(|s| s.fd.as_ref());
        if rest.is_some_and(|fd| fds::readable_now(fd.as_fd())) {
            return;
        }
        let mute = match to {
            To::Nowhere => fds::mute().ok(),
            To::Log | To::Files => None,
        };
        let err = match to {
            To::Nowhere => mute.as_ref().map(AsFd::as_fd),
            To::Log | To::Files => self.log.given_back(),
        };
        if let (Some(l), Some(err)) = (self.listener_of(p.worker), err) {
            let _ = seccomp::put_fd(l, p.notif.id, err, 2, false);
        }
    }

    /// Lets the kernel execute the call, or fails it.
    pub(super) fn settle_ask(&mut self, ask: Ask, answer: Answer) {
        if let Some(p) = self.pending.remove(&ask) {
            self.answer_call(p.worker, &p.notif, answer);
        }
    }

    fn answer_call(&mut self, worker: WorkerId, notif: &Notification, answer: Answer) {
        let Some(l) = self.listener_of(worker) else {
            return;
        };
        if let Err(e) = seccomp::answer(l, notif.id, answer) {
            let message = format!(
                "cannot answer a bind(2) or listen(2) of a worker: {}",
                reason(&e)
            );
            self.say(Level::Error, "takeover-error", message);
        }
    }

    fn still_waits(&self, worker: WorkerId, notif: &Notification) -> bool {
        self.listener_of(worker)
            .is_some_and(|l| seccomp::still_waits(l, notif.id))
    }

    fn listener_of(&self, worker: WorkerId) -> Option<BorrowedFd<'_>> {
        self.procs
            .map
            .get(&worker)?
            .listener
            .as_ref()
            .map(AsFd::as_fd)
    }

    fn unreadable(&mut self, e: &std::io::Error) {
        // It has gone, or gave a bad address: the kernel will say so.
        if !matches!(errno_of(e), libc::EPERM | libc::EACCES | libc::ENOSYS) {
            return;
        }
        let why = reason(e);
        self.say_once(
            Level::Warn,
            "takeover-unreadable",
            format!(
                "cannot read the address of a worker's bind(2): {why}; it is left to itself. CAP_SYS_PTRACE, or a worker that stays dumpable, makes takeover work; or let COMMAND use the socket passed as fd 3 (LISTEN_FDS)"
            ),
        );
    }
}

/// The socket behind a descriptor that is being bound: its inode, and a copy of it where that is worth
/// its while. `None`: it is none of the wanted protocol, where that can be seen.
fn look_at_socket(
    tid: i32,
    fd: i32,
    wanted: Option<&str>,
    concerns: bool,
) -> Option<(Option<u64>, Option<Copy>)> {
    // A link of /proc is read first: to ask, or to copy and close, what is no socket can take as
    // long as some file system likes.
    let target = procfs::target(tid, fd);
    let is_socket = matches!(target, Some(Target::Socket(_)));
    let protocol = || procfs::socket_protocol(tid, fd).unwrap_or_default();
    if wanted.is_some_and(|w| !(is_socket && protocol().contains(w))) {
        return None;
    }
    // For a port that is none of ours that is enough: the rest takes time, where a worker has many
    // descriptors.
    let theirs = match concerns || wanted.is_none() {
        true => copy_of(tid, fd),
        false => None,
    };
    let inode = match (target, &theirs) {
        (Some(Target::Socket(inode)), _) => Some(inode),
        (_, copy) => copy.as_ref().and_then(|s| fds::inode(s.as_fd()).ok()),
    };
    Some((inode, theirs))
}

/// A copy of the thread's socket, where we may have one. All looks are at the thread and not at its
/// process, whose first thread may have ended.
fn copy_of(tid: i32, fd: i32) -> Option<Copy> {
    let copy = unseen::copy_of(tid, fd).ok()?;
    if socket::is_bound(copy.as_fd()) {
        inherit::no_linger(copy.as_fd());
    }
    Some(copy)
}

/// What the kernel would refuse, it shall refuse; and a socket made in a network of the worker's own
/// serves that, not ours.
fn is_ours_to_take(s: BorrowedFd<'_>, addr: &Addr) -> bool {
    match addr {
        Addr::Tcp(addr) => {
            socket::is_tcp_for(s, addr) && !socket::is_bound(s) && socket::is_in_our_network(s)
        }
        Addr::Unix(_) | Addr::Other(_) => passed::is_unnamed_unix_stream(s),
    }
}
