//! The ways in which a worker can speak to us: as to systemd (NOTIFY_SOCKET), over Node's channel
//! (`messages`), by a newline on a descriptor, by einhorn's acknowledgement on the control socket. All are read,
//! bounded, into core's words; none is waited for.

use super::pipe::Pipe;
use super::{Kind, Shell, token};
use crate::core::words::reason;
use crate::core::{Event, Level, Pid, Whom, Word, WorkerId};
use crate::sys::{closer, fds, notify, process, procfs};
use crate::wire::{einhorn, notify as datagrams};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Datagrams of one worker in one turn.
const TURN: usize = 16;
/// So far up a process is looked for the worker it belongs to.
pub(super) const ANCESTORS: usize = 64;

/// What one worker can speak to.
#[derive(Default, Serialize, Deserialize)]
pub struct Speech {
    #[serde(with = "crate::shell::carry")]
    notify: Option<OwnedFd>,
    /// Most have none, and there may be many workers.
    pub(super) pipe: Option<Box<Pipe>>,
    #[serde(with = "crate::shell::carry")]
    newline: Option<OwnedFd>,
    /// What it has said last of its state.
    status: Option<Box<str>>,
}

/// The worker's ends, to be closed here once it is born.
#[derive(Default)]
pub struct Theirs {
    /// The name of its notification socket, as it is told it.
    pub notify: String,
    /// Of Node's channel.
    pub ipc: Option<OwnedFd>,
    /// Where a newline says ready.
    pub newline: Option<OwnedFd>,
}

impl Speech {
    /// Opens what this worker shall have.
    pub fn open(ipc: bool, newline: bool) -> io::Result<(Speech, Theirs)> {
        let (mut s, mut theirs) = (Speech::default(), Theirs::default());
        let secret = u64::from_ne_bytes(notify::random());
        // It is seen in the worker's environment, and by who looks at all sockets of the machine: so
        // its guess-proof name is not all that is asked of a sender.
        let name = format!("minicluster/{}/{secret:016x}", process::id());
        // Without abstract names (no network namespace gives them away, but a sandbox may) there is
        // none; workers say it in another way.
        if let Ok(fd) = notify::open(&name) {
            s.notify = Some(fd);
            theirs.notify = format!("@{name}");
        }
        if ipc {
            let (ours, child) = fds::stream_pair()?;
            s.pipe = Some(Box::new(Pipe::new(ours)));
            theirs.ipc = Some(child);
        }
        if newline {
            let (ours, child) = fds::pipe()?;
            s.newline = Some(ours);
            theirs.newline = Some(child);
        }
        Ok((s, theirs))
    }
}

impl Shell {
    /// From here on the worker is heard.
    pub(super) fn listen_to(&mut self, worker: WorkerId, speech: Speech) {
        let n = worker.0;
        if let Some(fd) = &speech.notify {
            self.register(fd.as_fd(), token(Kind::Notify, n));
        } else {
            self.say_unheard();
        }
        if let Some(pipe) = &speech.pipe {
            self.register(pipe.fd(), token(Kind::Ipc, n));
        }
        if let Some(fd) = &speech.newline {
            self.register(fd.as_fd(), token(Kind::Newline, n));
        }
        self.speech.insert(worker, speech);
    }

    /// One that waits for its word would wait in vain.
    fn say_unheard(&mut self) {
        let message = "workers have no notification socket (NOTIFY_SOCKET): names in the abstract namespace of unix sockets are refused here; what they say by sd_notify, as that they are ready, is not heard".to_string();
        self.say_once(Level::Warn, "no-notify", message);
    }

    /// Nothing more is heard of it.
    pub(super) fn stop_listening_to(&mut self, worker: WorkerId) {
        self.close_ipc(worker);
        let Some(s) = self.speech.remove(&worker) else {
            return;
        };
        for fd in [s.notify, s.newline].into_iter().flatten() {
            self.deregister(fd.as_fd());
        }
    }

    /// Datagrams as of sd_notify.
    pub(super) fn hear_datagrams(&mut self, worker: WorkerId) {
        let mut buf = [0u8; datagrams::MAX];
        let mut fds = Vec::new();
        for _ in 0..TURN {
            let speech = self.speech.get(&worker);
            let Some(fd) = speech.and_then(|s| s.notify.as_ref()) else {
                // It has gone meanwhile: nothing of it may be ready for ever.
                return closer::elsewhere(fds);
            };
            match notify::receive(fd.as_fd(), &mut buf) {
                Ok(None) => return closer::elsewhere(fds),
                Ok(Some(mut came)) => {
                    fds.append(&mut came.fds);
                    let said = buf.get(..came.bytes).unwrap_or_default();
                    self.hear_datagram(worker, came.uid, said);
                }
                Err(e) => {
                    let message = format!("cannot hear a worker's notification: {}", reason(&e));
                    self.say_once(Level::Warn, "notify-error", message);
                    return closer::elsewhere(fds);
                }
            }
        }
        closer::elsewhere(fds);
        self.ready.insert((Kind::Notify, worker.0));
    }

    fn hear_datagram(&mut self, worker: WorkerId, uid: Option<u32>, bytes: &[u8]) {
        if uid.is_some_and(|uid| self.may_speak(uid)) {
            if let (Some(status), Some(s)) =
                (datagrams::status(bytes), self.speech.get_mut(&worker))
            {
                s.status = (!status.is_empty()).then(|| status.into());
            }
            return self.say_for(worker, datagrams::words(bytes));
        }
        let who = uid.map_or("nobody that is known".into(), |uid| format!("uid {uid}"));
        let message =
            format!("{who} speaks to the notification socket of a worker and is not heard");
        self.say_once(Level::Warn, "notify-stranger", message);
        // The queue is short and shared with it: the worker may have found no room.
        self.say_for(worker, vec![Word::Unheard]);
    }

    /// Root, ourselves, and the user of the workers.
    fn may_speak(&self, uid: u32) -> bool {
        let theirs = self.rights.ids.as_ref().and_then(|ids| ids.uid);
        uid == 0 || uid == process::euid() || Some(uid) == theirs
    }

    /// A newline, as of s6.
    pub(super) fn hear_newline(&mut self, worker: WorkerId) {
        let mut buf = [0u8; 64];
        let speech = self.speech.get_mut(&worker);
        let Some(fd) = speech.and_then(|s| s.newline.as_ref()) else {
            return;
        };
        let (said, over) = match fds::read(fd.as_fd(), &mut buf) {
            Ok(n) => (buf.iter().take(n).any(|b| *b == b'\n'), n == 0),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => (false, true),
        };
        if said {
            self.say_for(worker, vec![Word::Ready]);
        }
        match said || over {
            // One is enough.
            true => {
                let speech = self.speech.get_mut(&worker);
                if let Some(fd) = speech.and_then(|s| s.newline.take()) {
                    self.deregister(fd.as_fd());
                }
            }
            false => drop(self.ready.insert((Kind::Newline, worker.0))),
        }
    }

    /// What the worker of that process has said last of its state.
    pub(super) fn status_of(&self, pid: Option<Pid>) -> Option<String> {
        let worker = self.procs.by_pid(pid?.0)?;
        let status = self.speech.get(&worker)?.status.as_deref();
        status.map(String::from)
    }

    pub(super) fn say_for(&mut self, worker: WorkerId, words: Vec<Word>) {
        for word in words {
            self.queue.push_back(Event::Said { worker, word });
        }
        self.settle();
    }

    /// Asks a worker to stop: first by what its program may have a handler for, then by what ends it
    /// if it has none. The channel is closed last: an open one keeps Node alive.
    pub(super) fn dismiss(&mut self, worker: WorkerId, sig: i32) {
        self.ask_to_stop(worker, sig);
        // One that is stopped does not hear.
        self.signal(worker, libc::SIGCONT, Whom::Leader);
        self.close_ipc(worker);
    }

    /// By its channel, if it has one, and by the signal.
    pub(super) fn ask_to_stop(&mut self, worker: WorkerId, sig: i32) {
        self.tell_to_disconnect(worker);
        self.signal(worker, sig, Whom::Leader);
    }

    /// einhorn's acknowledgement: is it of a worker, or of a process that one has started? The answer,
    /// if the line was one.
    pub(super) fn acknowledge(&mut self, line: &[u8], speaker: i32) -> Option<String> {
        let said = einhorn::ack(line)?;
        if let Some(worker) = self.worker_with(speaker, &mut { ANCESTORS }) {
            self.say_for(worker, vec![Word::Ready]);
            return Some(einhorn::answer("worker acknowledged"));
        }
        Some(einhorn::answer(&format!(
            "pid {said} is no worker of this cluster"
        )))
    }

    /// The worker whose process this is, or of whose processes one has started it. No more than so many
    /// are looked at, which are then fewer.
    pub(super) fn worker_with(&self, mut pid: i32, looks: &mut usize) -> Option<WorkerId> {
        loop {
            if let Some(worker) = self.procs.by_pid(pid) {
                return Some(worker);
            }
            *looks = looks.checked_sub(1)?;
            pid = procfs::parent_of(pid).filter(|parent| *parent > 1)?;
        }
    }
}
