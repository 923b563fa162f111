//! What comes from a worker's processes besides what they say: reports of a child on its way to exec, calls
//! that wait for us, and the end of the last of them.

use super::Shell;
use super::takeover;
use super::token::{Kind, token};
use crate::core::words::errno_text;
use crate::core::{Event, Level, WorkerId};
use crate::sys::spawn::{self, Report};
use crate::sys::{errno_of, fds, guise, process, procfs};
use std::os::fd::AsFd;

impl Shell {
    /// What a child says on its way to exec.
    pub(super) fn hear_report(&mut self, worker: WorkerId) {
        loop {
            let Some(p) = self.procs.map.get_mut(&worker) else {
                return;
            };
            let Some(fd) = &p.report else { return };
            let report = spawn::receive(fd.as_fd());
            match report {
                Ok(None) => return,
                Ok(Some(Report::Listener(listener))) => {
                    self.register(listener.as_fd(), token(Kind::Takeover, worker.0));
                    if let Some(p) = self.procs.map.get_mut(&worker) {
                        p.listener = Some(listener);
                    }
                    self.say_privileges();
                }
                Ok(Some(Report::Outlives(errno))) => self.say_outlives(errno),
                Ok(Some(Report::Unwatched(errno))) => {
                    self.queue
                        .push_back(Event::TakeoverRefused { worker, errno });
                }
                Ok(Some(Report::Failed(step, errno))) => {
                    self.queue.push_back(Event::ExecFailed {
                        worker,
                        step,
                        errno,
                    });
                    self.close_report(worker);
                }
                Ok(Some(Report::Closed | Report::Arrived)) => {
                    self.close_report(worker);
                    // Killed on its way, it says no more than one that has arrived.
                    let pid = self.procs.map.get(&worker).and_then(|p| p.pid);
                    if !pid.is_some_and(procfs::never_execed) {
                        self.queue.push_back(Event::Execed { worker });
                    }
                }
                Err(e) => {
                    let errno = errno_of(&e);
                    let step = "report";
                    self.queue.push_back(Event::ExecFailed {
                        worker,
                        step,
                        errno,
                    });
                    self.close_report(worker);
                }
            }
        }
    }

    /// What the filter costs. (Who is no root expects no privileges of what it starts; or knows it by --check.)
    fn say_privileges(&mut self) {
        let message = "workers cannot gain privileges by what they execute (set-user-ID programs, file capabilities): without CAP_SYS_ADMIN takeover takes no_new_privs; --takeover off does not";
        match (guise::capable(guise::SYS_ADMIN), process::euid()) {
            (true, _) => {}
            (false, 0) => self.say_once(Level::Info, "no-new-privs", message.into()),
            (false, _) => self.say_once(Level::Debug, "no-new-privs", message.into()),
        }
    }

    fn say_outlives(&mut self, errno: i32) {
        let message = format!(
            "workers do not end with the master (PR_SET_PDEATHSIG: {}): one that is killed leaves them behind, and they keep the port",
            errno_text(errno)
        );
        self.say_once(Level::Warn, "no-death-signal", message);
    }

    pub(super) fn close_report(&mut self, worker: WorkerId) {
        let fd = self
            .procs
            .map
            .get_mut(&worker)
            .and_then(|p| p.report.take());
        if let Some(fd) = fd {
            self.deregister(fd.as_fd());
        }
    }

    /// Calls of a worker's tree that wait for us; or the end of the tree.
    pub(super) fn hear_calls(&mut self, worker: WorkerId) {
        for _ in 0..takeover::TURN {
            let more = self.one_notification(worker);
            self.settle();
            if !more {
                let listener = self
                    .procs
                    .map
                    .get(&worker)
                    .and_then(|p| p.listener.as_ref());
                if listener.is_some_and(|l| fds::hung_up(l.as_fd())) {
                    self.tree_gone(worker);
                    self.settle();
                }
                return;
            }
        }
        self.ready.insert((Kind::Takeover, worker.0));
    }

    /// The last process of a worker's tree has gone.
    pub(super) fn tree_gone(&mut self, worker: WorkerId) {
        if let Some(p) = self.procs.map.get_mut(&worker) {
            if let Some(listener) = p.listener.take() {
                self.deregister(listener.as_fd());
            }
            let reaped = self.procs.map.get(&worker).is_some_and(|p| p.pid.is_none());
            // Its end has been seen but not yet waited for: the rest is dropped by then.
            if reaped {
                self.forget(worker);
            }
            self.queue.push_back(Event::TreeGone { worker });
        }
    }

    /// Drops what is kept for a worker.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.drain_stderr(worker);
        self.close_report(worker);
        self.served.forget(worker);
        self.idling.forget(worker);
        self.cgroups.gone(worker);
        self.stop_listening_to(worker);
        if let Some(p) = self.procs.map.remove(&worker)
            && let Some(listener) = p.listener
        {
            self.deregister(listener.as_fd());
        }
        self.orphan_stderr(worker);
    }
}
