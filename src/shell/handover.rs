//! Handover: the binary that is on disk now takes the place of the one that runs, in this very process. Same pid,
//! same workers, no socket closed: the kernel keeps all of it over exec(2), and what is in our memory is written
//! down before (`state`) and read behind it (`resume`). Clients of the workers notice nothing, since we are not
//! in their way. Rules:
//!
//! 1. The new one is asked first, as a child: it reads the state, with something at the numbers of all descriptors,
//!    and says whether it can go on from there. If it cannot, is not there, or says nothing for too long, nothing has happened.
//! 2. All stands still for the exec at the end of a turn: nobody waits in bind(2) for an answer that is ours to
//!    give (who comes later waits for the next one), no signal is unseen, nothing is asked of a worker that would
//!    have to be asked again. That moment is waited for.
//! 3. Signals are blocked from before that until the new one has its handlers: one that comes meanwhile waits.
//!    The ends of children are looked for behind it, whether they were told or not.
//! 4. Descriptors survive by the last step alone. If the exec fails they are what they were, and so is all else.
//! 5. One that cannot read the state after all goes back to the one before, which has it, and tells.
//! 6. Whoever asked waits on the same connection, and hears what came of it; so do all who type.

mod resume;
mod state;

pub use resume::{ask, asked, our_name, passed, resume};

use super::Shell;
use super::clients::ClientId;
use super::jobs::{Order as Job, Purpose, Waits};
use super::requests::{Answer, behind};
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE, FAILED};
use crate::core::words::{cut, human, reason};
use crate::core::{Asker, Exit, Level, Phase, Time};
use crate::settings;
use crate::sys::signal::Blocked;
use crate::sys::{carried, execute, fds, process};
use crate::verbs;
use crate::wire::command::Request;
use crate::wire::outcome::refusal;
use crate::wire::ran::{End, Ran};
use resume::{ACCEPTS, NAME, QUESTION, VARIABLE};
use state::{Header, LONGEST, Order};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The new one has so long to say that it can.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// So long it may all take, if nobody says otherwise.
const WITHIN: Duration = Duration::from_secs(60);

/// One that is under way.
pub struct Handover {
    order: Order,
    stage: Stage,
    /// What there was to be executed when it was asked.
    file: Print,
    /// It is given up then,
    until: Time,
    /// after that long.
    within: Duration,
}

/// Which file, as of when.
type Print = (u64, u64, i64, i64);

/// How far one is.
#[derive(Debug)]
enum Stage {
    /// The new one is to be asked.
    Begun,
    /// It was: by that serial.
    Asked(u64),
    /// It can. Its version.
    Ready,
}

fn print(path: &Path) -> Result<Print, String> {
    let m = std::fs::metadata(path).map_err(|e| format!("{}: {}", path.display(), reason(&e)))?;
    if !m.is_file() {
        return Err(format!("{}: not a regular file", path.display()));
    }
    // As whom we are it would do what somebody else likes.
    let stranger = ![0, process::euid()].contains(&m.uid());
    let group = ![0, process::egid()].contains(&m.gid()) && m.mode() & 0o020 != 0;
    if stranger || group || m.mode() & 0o002 != 0 {
        let whose = match (stranger, group) {
            (true, _) => format!("it is of uid {}", m.uid()),
            (false, true) => format!("gid {} may write it", m.gid()),
            (false, false) => "everybody may write it".to_string(),
        };
        let (shown, me) = (path.display(), process::euid());
        return Err(format!(
            "{shown}: {whose}, who could have uid {me} run anything"
        ));
    }
    Ok((m.dev(), m.ino(), m.mtime(), m.mtime_nsec()))
}

impl Shell {
    /// The verb. The answer comes when it is over.
    pub(super) fn hand_over(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let (no_wait, words): (Vec<&str>, Vec<&str>) =
            behind(r).partition(|w| *w == verbs::NO_WAIT);
        let (binary, within) = match settings::handover(&words) {
            Ok(found) => found,
            Err(e) => return Some((EX_USAGE, format!("{e}\n"))),
        };
        let refused = |code, why: &str| Some((code, refusal(&format!("{why}\n"), r.json)));
        if self.handover.is_some() {
            return refused(
                EX_TEMPFAIL,
                "not handed over: another handover is under way",
            );
        }
        if self.cluster.phase() != Phase::Serving {
            return refused(FAILED, "not handed over: the cluster stops");
        }
        if self.caller.is_some() {
            let why = "not handed over: the caller of -d waits for the workers still; try again when they are ready";
            return refused(EX_TEMPFAIL, why);
        }
        let to = binary.map_or_else(|| self.exe.clone(), PathBuf::from);
        let (asker, by, _) = self.asks(id, r, true);
        let waits = no_wait.is_empty().then_some(asker);
        let why = format!("asked by a client, {by}");
        if let Err(why) = self.begin_handover(to, within, waits, why) {
            self.waiting.forget(asker);
            let message = format!("not handed over: {why}");
            self.say(Level::Warn, "handover-failed", message.clone());
            return refused(FAILED, &message);
        }
        if no_wait.is_empty() {
            return None;
        }
        self.waiting.forget(asker);
        Some(match r.json {
            true => (0, "{\"handing_over\":true}\n".into()),
            false => (0, "handing over\n".into()),
        })
    }

    fn begin_handover(
        &mut self,
        to: PathBuf,
        within: Option<Duration>,
        asker: Option<Asker>,
        why: String,
    ) -> Result<(), String> {
        if process::has_gained() {
            let why = "this binary has more rights than whoever started it (setuid), and believes nothing that it is passed";
            return Err(why.to_string());
        }
        let (now, within) = (self.now(), within.unwrap_or(WITHIN));
        if let Err(e) = File::open(super::jobs::OURSELVES) {
            let why = reason(&e);
            return Err(format!(
                "there would be no way back: cannot open our own executable by /proc: {why}"
            ));
        }
        let file = print(&to)?;
        self.handover = Some(Handover {
            order: Order {
                asker,
                why,
                from: self.exe.clone(),
                was: env!("CARGO_PKG_VERSION").into(),
                to,
                at: now,
            },
            stage: Stage::Begun,
            file,
            until: now + within,
            within,
        });
        Ok(())
    }

    /// A signal wants it, that is mapped to it. What came of it is in the log.
    pub(super) fn hand_over_for_signal(&mut self, why: &'static str) {
        // One that is under way, or a stop, is what there is.
        if self.handover.is_some()
            || self.cluster.phase() != Phase::Serving
            || self.caller.is_some()
        {
            return;
        }
        if let Err(e) = self.begin_handover(self.exe.clone(), None, None, why.into()) {
            let message = format!("not handed over: {e}");
            self.say(Level::Warn, "handover-failed", message);
        }
    }

    /// When there is something to be done about it by the clock.
    pub(super) fn handover_deadline(&self) -> Option<Time> {
        self.handover.as_ref().map(|h| h.until)
    }

    /// The end of a turn: the next step, if there is one. It may not come back.
    pub(super) fn handover_due(&mut self) {
        let Some(h) = &self.handover else { return };
        if self.cluster.phase() != Phase::Serving {
            return self.not_handed_over("the cluster stops");
        }
        if h.until <= self.now() {
            let within = human(h.within);
            let what = match (self.not_calm(), &h.stage) {
                (Some(what), _) => what,
                (None, Stage::Asked(_)) => "the new binary has not answered",
                (None, Stage::Begun | Stage::Ready) => "its moment has not come",
            };
            return self.not_handed_over(&format!("{what} after {within} (timeout {within})"));
        }
        match h.stage {
            Stage::Begun => self.ask_new_one(),
            Stage::Asked(_) => {}
            Stage::Ready => self.take_the_step(),
        }
    }

    /// Why not now, if so.
    fn not_calm(&self) -> Option<&'static str> {
        let idle = self.queue.is_empty() && self.out.is_empty();
        match () {
            () if !idle || !self.pending.is_empty() => Some("a worker waits for an answer"),
            () if self.orphans.wait() => Some("workers of a dead master are being adopted"),
            () if self.checks.are_under_way() => Some("--ecv-monitor is being asked"),
            // It takes some turns, and who waits for it would not be known any more.
            () if self.metrics.reads() => Some("/metrics is being answered"),
            () => None,
        }
    }

    /// It reads the state as it is now, and says whether it can.
    fn ask_new_one(&mut self) {
        if self.not_calm().is_some() {
            return;
        }
        let Some(h) = &self.handover else { return };
        let order = h.order.clone();
        let written = self.state_of(Header::new(order.clone(), None));
        let done = written.and_then(|(header, text)| {
            let memory = in_memory(&text)?;
            Ok((memory, header.fds))
        });
        let (memory, fds) = match done {
            Ok(done) => done,
            Err(why) => return self.not_handed_over(&why),
        };
        let variables = vec![(QUESTION.into(), memory.as_raw_fd().to_string().into_bytes())];
        let job = Job {
            name: order.to.display().to_string(),
            words: vec![NAME.into()],
            cwd: "/".into(),
            variables,
            stdin: Vec::new(),
            merged: true,
            limit: Some(ANSWERS_WITHIN),
            ours: false,
        };
        let serial = self.jobs.next_serial();
        if let Some(h) = &mut self.handover {
            h.stage = Stage::Asked(serial);
        }
        let one = Waits {
            purpose: Purpose::Handover(serial),
            order: job,
            by: None,
        };
        // It has its own copy of the state.
        // What it leaves behind must not hold our lock, or the lifeline of workers.
        self.run_now(one, Some(&order.to), (&[memory.as_raw_fd()], &fds));
        drop(memory);
    }

    /// What the new one has said.
    pub(super) fn asked_the_new_one(&mut self, serial: u64, ran: &Ran) {
        let Some(h) = &mut self.handover else { return };
        match h.stage {
            Stage::Asked(now) if now == serial => {}
            // It was asked for a handover that has been given up since.
            Stage::Asked(_) | Stage::Begun | Stage::Ready => return,
        }
        let accepts = ran.out.lines().any(|l| l.starts_with(ACCEPTS));
        if accepts && ran.end == End::Exited(Exit::Code(0)) {
            h.stage = Stage::Ready;
            // The rest at the end of this turn.
            return;
        }
        let last = ran.out.lines().last().unwrap_or_default();
        let said = last.strip_prefix("minicluster: ").unwrap_or(last);
        let why = match &ran.end {
            // Whatever binary that is.
            End::Exited(Exit::Code(_)) if !said.is_empty() => cut(said.to_string()),
            end => match end.why() {
                Some(why) => ran.says(&why),
                None => "it has not said that it can: is it a minicluster?".to_string(),
            },
        };
        let path = h.order.to.display().to_string();
        self.not_handed_over(&format!("{path} cannot take over: {why}"));
    }

    /// All goes on as it was.
    fn not_handed_over(&mut self, why: &str) {
        if let Some(h) = self.handover.take() {
            if let Stage::Asked(serial) = h.stage {
                // Nobody waits for it any more.
                let now = self.now();
                self.jobs.hurry(Purpose::Handover(serial), now);
            }
            self.handover_failed(&h.order, why);
        }
    }

    fn handover_failed(&mut self, order: &Order, why: &str) {
        let version = env!("CARGO_PKG_VERSION");
        let message = format!("not handed over: {why}; minicluster {version} goes on as it was");
        let level = match self.cluster.phase() {
            Phase::Serving => Level::Warn,
            // A stop was wanted more.
            Phase::Stopping { .. } | Phase::Done(_) => Level::Info,
        };
        self.say(level, "handover-failed", message.clone());
        self.answer_handover(order.asker, FAILED, &message);
    }

    /// Whoever waits for it, if anybody does.
    fn answer_handover(&mut self, asker: Option<Asker>, code: u8, message: &str) {
        let Some((id, r)) = asker.and_then(|a| self.waiting.take(a)) else {
            return;
        };
        let text = match (r.json, code) {
            (true, 0) => format!(
                "{{\"handed_over\":true,\"pid\":{},\"version\":{}}}\n",
                process::id(),
                crate::wire::json::quote(env!("CARGO_PKG_VERSION"))
            ),
            (true, _) => refusal(&format!("{message}\n"), true),
            (false, _) => format!("{message}\n"),
        };
        self.need_not_wait(id);
        self.send_answer(id, r.framed, code, text);
    }

    /// The exec, if all stands still.
    fn take_the_step(&mut self) {
        // What is interrupted begins anew, so it is, when nothing else is in the way.
        if self.not_calm().is_some() {
            return;
        }
        let Some(h) = &mut self.handover else { return };
        // It is another one by now, which nobody has asked.
        match print(&h.order.to) {
            Ok(now) if now == h.file => {}
            Ok(now) => {
                (h.file, h.stage) = (now, Stage::Begun);
                self.wake();
                return;
            }
            Err(why) => return self.not_handed_over(&why),
        }
        self.interrupt_probes();
        self.settle();
        if self.not_calm().is_some() {
            return;
        }
        let Some(h) = &self.handover else { return };
        let blocked = Blocked::all();
        if self.signals.any() {
            // It is heard first; then all may be otherwise.
            drop(blocked);
            return self.wake();
        }
        let mut order = h.order.clone();
        order.at = self.now();
        self.log.flush();
        let why = match self.execute(order, blocked) {
            Ok(never) => match never {},
            Err(why) => why,
        };
        self.not_handed_over(&why);
    }

    /// There is something to be done in the next turn, which is to come at once.
    pub(super) fn wake(&mut self) {
        self.ready.insert((super::Kind::Signals, 0));
    }

    /// An error is a whole sentence, and then all is as it was.
    fn execute(&self, order: Order, blocked: Blocked) -> Result<std::convert::Infallible, String> {
        let back = File::open(super::jobs::OURSELVES).map_err(|e| {
            let why = reason(&e);
            format!("there would be no way back: cannot open our own executable: {why}")
        })?;
        let to = order.to.clone();
        let header = Header::new(order, Some(back.as_raw_fd()));
        let (header, text) = self.state_of(header)?;
        let memory = in_memory(&text)?;
        drop(text);
        let mut keep = header.fds;
        keep.extend([back.as_raw_fd(), memory.as_raw_fd()]);
        let number = memory.as_raw_fd().to_string();
        let kept = carried::keep_over_exec(&keep, true);
        let failed = match kept {
            Ok(()) => execute::execute(&to, &[(VARIABLE, OsString::from(number))]),
            Err(e) => e,
        };
        let _ = carried::keep_over_exec(&keep, false);
        drop(blocked);
        Err(format!("{}: {}", to.display(), reason(&failed)))
    }
}

/// In a file that is nowhere but in memory, from its beginning.
fn in_memory(text: &str) -> Result<OwnedFd, String> {
    let cannot = |e: std::io::Error| format!("its state cannot be written down: {}", reason(&e));
    if text.len() as u64 > LONGEST {
        return Err(format!(
            "its state has {} bytes (limit {LONGEST})",
            text.len()
        ));
    }
    let mut file = File::from(fds::memory(c"minicluster-state").map_err(cannot)?);
    file.write_all(text.as_bytes()).map_err(cannot)?;
    let fd = OwnedFd::from(file);
    fds::seal(fd.as_fd()).map_err(cannot)?;
    Ok(fd)
}
