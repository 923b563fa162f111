//! A worker's birth: what it is given (words, environment, descriptors), the fork, and the
//! descriptors that stay with us.

use super::channel::Stderr;
use super::procs::Proc;
use super::speech::Speech;
use super::{Kind, Shell, handed, token};
use crate::core::{Event, Phase, Pid, SlotNr, Takeover, WorkerId};
use crate::settings::expand;
use crate::sys::spawn::{self, Plan, Watch};
use crate::sys::{errno_of, fds};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

impl Shell {
    pub(super) fn spawn(&mut self, worker: WorkerId, slot: SlotNr, generation: u32) {
        self.spawned = true;
        // A stop came between the wish and its turn.
        let tried = match self.cluster.phase() {
            Phase::Serving => self.try_spawn(worker, slot, generation),
            Phase::Stopping { .. } | Phase::Done(_) => {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            }
        };
        let event = match tried {
            Ok(pid) => Event::Spawned {
                worker,
                pid: Pid(pid),
            },
            Err(e) => Event::SpawnFailed {
                worker,
                errno: errno_of(&e),
            },
        };
        self.queue.push_back(event);
    }

    fn try_spawn(&mut self, worker: WorkerId, slot: SlotNr, generation: u32) -> io::Result<i32> {
        let argv = self.argv(slot);
        let ready_fd = self.settings.ready_fd;
        let (speech, theirs) = Speech::open(self.ipc, ready_fd.is_some())?;
        let handed = self.sockets.handed();
        let pass: Vec<_> = handed.iter().map(|h| h.fd).collect();
        let count = pass.len();
        let mut extra = Vec::new();
        let mut channel = None;
        if let Some(fd) = &theirs.ipc {
            let free = i32::try_from(handed::FIRST + count).unwrap_or(i32::MAX);
            let number = free + i32::from(Some(free) == ready_fd);
            extra.push((fd.as_fd(), number));
            channel = Some(number);
        }
        if let (Some(fd), Some(number)) = (&theirs.newline, ready_fd) {
            extra.push((fd.as_fd(), number));
        }
        let env = self.environment(slot, generation, &speech.notify_name, channel);
        let (ours, theirs_report) = spawn::report_pair()?;
        let (err_read, err_write) = fds::pipe()?;
        if let Some(uid) = self.rights.ids.as_ref().and_then(|ids| ids.uid) {
            // Or it could not open /dev/stderr, as some servers do. (A sandbox may not allow it.)
            let _ = std::os::unix::fs::fchown(&err_write, Some(uid), None);
        }
        let plan = Plan {
            program: &self.program,
            argv: &argv,
            env: &env,
            cwd: Some(&self.cwd),
            stay: self.rights.ids.is_some() && self.settings.cwd.is_none(),
            ids: self.rights.ids.as_ref(),
            umask: self.settings.umask,
            nice: self.settings.nice,
            limits: &self.rights.limits,
            stdin: self.devnull.as_fd(),
            stderr: Some(err_write.as_fd()),
            pass,
            extra,
            nofile: self.nofile,
            watch: match self.settings.takeover {
                Takeover::Off => Watch::No,
                Takeover::Require => Watch::Require,
                Takeover::Auto | Takeover::Ports(_) => Watch::Try,
            },
            watch_unix: self.sockets.has_unix(),
            report: theirs_report.as_fd(),
        };
        let pid = spawn::fork_exec(&plan)?;
        let inode = fds::inode(err_read.as_fd()).unwrap_or(0);
        self.register(ours.as_fd(), token(Kind::Report, worker.0));
        self.register(err_read.as_fd(), token(Kind::Stderr, worker.0));
        self.listen_to(worker, speech);
        let workers = self.worker_count;
        self.stderrs
            .insert(worker, Stderr::new(err_read, inode, workers));
        let proc = Proc {
            pid: Some(pid),
            group: pid,
            forked: self.now(),
            report: Some(ours),
            listener: None,
            handed: count,
            listened: None,
        };
        self.procs.map.insert(worker, proc);
        Ok(pid)
    }

    fn argv(&self, slot: SlotNr) -> Vec<CString> {
        let word = |w: &std::ffi::OsString| CString::new(expand(w.as_bytes(), slot.0));
        // Words of a command line cannot hold NUL.
        self.settings
            .command
            .iter()
            .filter_map(|w| word(w).ok())
            .collect()
    }

    /// Ours without what was meant for us, then the worker's own, then what the operator says: by
    /// files, then by word.
    fn environment(
        &self,
        slot: SlotNr,
        generation: u32,
        notify: &str,
        channel: Option<i32>,
    ) -> Vec<CString> {
        let mut own: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut set = |k: &str, v: String| drop(own.insert(k.into(), v.into_bytes()));
        set("WORKER_ID", slot.to_string());
        set("NODE_APP_INSTANCE", slot.to_string());
        set("MINICLUSTER_NAME", self.claim.name.clone());
        set("MINICLUSTER_GENERATION", generation.to_string());
        set("MINICLUSTER_WORKERS", self.worker_count.to_string());
        if !notify.is_empty() {
            set("NOTIFY_SOCKET", notify.to_string());
        }
        if let Some(limit) = self.settings.watchdog {
            // Without WATCHDOG_PID it is meant for whoever serves, behind a wrapper or not.
            set("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        if let Some(number) = channel {
            set("NODE_CHANNEL_FD", number.to_string());
            set("NODE_CHANNEL_SERIALIZATION_MODE", "json".to_string());
        }
        if let Some(addr) = self.sockets.given().first() {
            set("PORT", addr.port().to_string());
            set("HOST", addr.ip().to_string());
        }
        let mut all = |vars: Vec<(String, String)>| {
            own.extend(
                vars.into_iter()
                    .map(|(k, v)| (k.into_bytes(), v.into_bytes())),
            );
        };
        all(handed::variables(&self.sockets.handed(), generation));
        // Their clients look whether it is their parent that speaks to them.
        all(vec![
            ("EINHORN_MASTER_PID".into(), std::process::id().to_string()),
            ("EINHORN_CHILD_INDEX".into(), slot.to_string()),
        ]);
        if let Some(socket) = &self.claim.socket {
            let path = socket.as_os_str().as_bytes();
            for name in ["MINICLUSTER_CONTROL", "EINHORN_SOCK_PATH"] {
                own.insert(name.into(), path.to_vec());
            }
        }
        for (k, v) in self.rights.variables() {
            own.insert(k.into_bytes(), expand(&v, slot.0));
        }
        for (k, v) in &self.settings.env {
            own.insert(k.clone().into_bytes(), expand(v.as_bytes(), slot.0));
        }
        let passed_on =
            |k: &[u8]| !self.settings.clear_env && !is_masters_own(k) && !own.contains_key(k);
        let inherited = std::env::vars_os()
            .filter(|(k, _)| passed_on(k.as_bytes()))
            .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()));
        inherited
            .chain(own.iter().map(|(k, v)| (k.clone(), v.clone())))
            .filter_map(|(k, v)| CString::new([k, b"=".to_vec(), v].concat()).ok())
            .collect()
    }
}

/// Variables that speak to us, not to our workers.
fn is_masters_own(key: &[u8]) -> bool {
    const EXACT: [&[u8]; 10] = [
        b"LISTEN_PID",
        b"LISTEN_FDS",
        b"LISTEN_FDNAMES",
        b"LISTEN_PIDFDID",
        b"NOTIFY_SOCKET",
        b"WATCHDOG_PID",
        b"WATCHDOG_USEC",
        b"WEB_CONCURRENCY",
        b"NODE_CHANNEL_FD",
        b"NODE_CHANNEL_SERIALIZATION_MODE",
    ];
    EXACT.contains(&key)
        || [&b"MINICLUSTER_"[..], b"EINHORN_", b"SERVER_STARTER_"]
            .iter()
            .any(|p| key.starts_with(p))
}
