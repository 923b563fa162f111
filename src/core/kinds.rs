//! Of each notice: how loud it is, its name as an event, and whom it is about.

use super::event::Exit;
use super::notice::{Cause, LeftoverStage, Level, Next, Notice, Who};
use super::outcome::Came;

impl Notice {
    /// How loud it is.
    pub fn level(&self) -> Level {
        use Level::*;
        match self {
            Notice::LaneOpen { .. }
            | Notice::AllReady { .. }
            | Notice::Stopping { .. }
            | Notice::Stopped { .. }
            | Notice::Resizing { .. }
            | Notice::Resized { .. }
            | Notice::Disabled { .. }
            | Notice::Enabled { .. }
            | Notice::Healthy { .. }
            | Notice::Reloading { .. }
            | Notice::Reloaded { .. }
            | Notice::Exchanged { .. }
            | Notice::StopDelayed { .. }
            | Notice::Signalled { .. }
            | Notice::V4Only { .. }
            | Notice::Adopted { .. }
            | Notice::Leftovers {
                stage: LeftoverStage::Asked | LeftoverStage::Killed,
                ..
            } => Info,
            Notice::Ready { .. } | Notice::Recycling { .. } => Info,
            Notice::ReloadRefused { hitch } | Notice::ReloadFailed { hitch, .. } => {
                match hitch.came() {
                    Came::Wish => Info,
                    Came::Failure | Came::Refusal => Error,
                }
            }
            Notice::Drained {
                cut, ended, closed, ..
            } => match (cut, ended, closed) {
                (0, 0, 0) => Debug,
                // What was taken for quiet may have been an answer that paused.
                (0, _, _) => Info,
                (_, _, _) => Warn,
            },
            // A step on the way to another notice.
            Notice::Forked { .. }
            | Notice::Wavers { .. }
            | Notice::Listening { .. }
            | Notice::LetGo { .. }
            | Notice::Said { .. }
            | Notice::Draining { .. }
            | Notice::Respawning { .. }
            | Notice::RecyclesLater { .. }
            | Notice::GivenUp { .. } => Debug,
            Notice::NotRecycled { hitch, .. } => match hitch.came() {
                Came::Wish => Info,
                Came::Failure | Came::Refusal => Warn,
            },
            Notice::Died { cause, next, .. } => match (cause, next) {
                (Cause::Shutdown | Cause::Resize | Cause::Restart | Cause::Recycle, _)
                | (
                    Cause::Kill | Cause::Finished,
                    Next::Nothing | Next::Replaced | Next::TakenBack | Next::Finished,
                ) => Info,
                (
                    Cause::Finished,
                    Next::Respawn(_) | Next::HeldBack { .. } | Next::GivenUp { .. },
                ) => Warn,
                (
                    Cause::Failure
                    | Cause::Kill
                    | Cause::NotReady
                    | Cause::Hang
                    | Cause::NotStarted
                    | Cause::Oom(_),
                    _,
                ) => Warn,
            },
            Notice::NoneLeft { end } => match end {
                Some(Exit::Code(0)) => Info,
                Some(Exit::Code(_) | Exit::Signal(_) | Exit::Unknown) => Warn,
                None => Error,
            },
            Notice::LaneBusy { .. }
            | Notice::CrashLoop { .. }
            | Notice::ForksSpent { .. }
            | Notice::NeverReady { .. }
            | Notice::CannotRun { .. }
            | Notice::ExecFailed { .. }
            | Notice::Snagged { .. }
            | Notice::Stuck { .. } => Error,
            Notice::TakeoverRefused { required, .. } => match required {
                true => Error,
                false => Warn,
            },
            Notice::LaneQuits { .. }
            | Notice::Unserved { .. }
            | Notice::PartlyReady { .. }
            | Notice::SpawnFailed { .. }
            | Notice::NotReady { .. }
            | Notice::Hangs { .. }
            | Notice::LeftRunning { .. }
            | Notice::TooSlowToStop { .. }
            | Notice::StillThere { .. }
            | Notice::Forgotten { .. }
            | Notice::HardStop { .. }
            | Notice::Leftovers {
                stage: LeftoverStage::Overdue(_),
                ..
            }
            | Notice::AtBound { .. }
            | Notice::Unhealthy { .. }
            | Notice::NoRoom { .. }
            | Notice::NotSignalled { .. }
            | Notice::TooManyGenerations { .. }
            | Notice::LaneAlone { .. }
            | Notice::BindPassed { .. }
            | Notice::HandedOnly { .. }
            | Notice::Narrower { .. }
            | Notice::DeviceWider { .. }
            | Notice::LaneConnects { .. }
            | Notice::FamilyNeeded { .. } => Warn,
        }
    }

    /// The event's name, for logs that machines read.
    pub fn event(&self) -> &'static str {
        match self {
            Notice::LaneOpen { .. } => "port-open",
            Notice::LaneBusy { .. } => "port-failed",
            Notice::LaneQuits { .. } => "port-closed",
            Notice::Forked { .. } => "forked",
            Notice::SpawnFailed { .. } => "spawn-failed",
            Notice::ExecFailed { .. } => "exec-failed",
            Notice::Listening { .. } => "listening",
            Notice::LetGo { .. } => "let-go",
            Notice::Ready { .. } => "ready",
            Notice::AllReady { .. } => "all-ready",
            Notice::PartlyReady { .. } => "partly-ready",
            Notice::Unserved { .. } => "unserved",
            Notice::NotReady { .. } => "not-ready",
            Notice::Died { .. } => "died",
            Notice::Said { .. } => "said",
            Notice::Hangs { .. } => "hangs",
            Notice::LeftRunning { .. } => "left-running",
            Notice::Recycling { .. } => "recycling",
            Notice::NotRecycled { .. } => "recycle-failed",
            Notice::RecyclesLater { .. } => "recycle-later",
            Notice::Respawning { .. } => "respawning",
            Notice::CrashLoop { .. } => "crash-loop",
            Notice::ForksSpent { .. } => "max-forks",
            Notice::GivenUp { .. } => "given-up",
            Notice::NoneLeft { .. } => "none-left",
            Notice::TooSlowToStop { .. } => "killed",
            Notice::StillThere { .. } => "still-there",
            Notice::Forgotten { .. } => "forgotten",
            Notice::Stopping { .. } => "stopping",
            Notice::HardStop { .. } => "hard-stop",
            Notice::NeverReady { .. } => "never-ready",
            Notice::CannotRun { .. } => "cannot-run",
            Notice::Leftovers { .. } => "leftovers",
            Notice::Stuck { .. } => "stuck",
            Notice::Stopped { .. } => "stopped",
            Notice::Resizing { .. } => "resizing",
            Notice::Resized { .. } => "resized",
            Notice::Disabled { .. } => "disabled",
            Notice::Enabled { .. } => "enabled",
            Notice::Unhealthy { .. } => "unhealthy",
            Notice::Healthy { .. } => "healthy",
            Notice::Wavers { why: Some(_), .. } => "check-failed",
            Notice::Wavers { why: None, .. } => "check-passed",
            Notice::AtBound { .. } => "at-bound",
            Notice::NoRoom { .. } => "no-room",
            Notice::Reloading { .. } => "reload-started",
            Notice::Reloaded { .. } => "reload-finished",
            Notice::ReloadRefused { .. } | Notice::ReloadFailed { .. } => "reload-failed",
            Notice::Exchanged { .. } => "reload-serving",
            Notice::TooManyGenerations { .. } => "generations",
            Notice::StopDelayed { .. } => "stop-delayed",
            Notice::Draining { .. } => "draining",
            Notice::Drained { .. } => "drained",
            Notice::LaneAlone { .. } => "port-shared",
            Notice::Signalled { .. } => "signalled",
            Notice::NotSignalled { .. } => "not-signalled",
            Notice::TakeoverRefused { .. } => "takeover-refused",
            Notice::BindPassed { .. } => "bind-passed",
            Notice::HandedOnly { .. } => "handed-only",
            Notice::Narrower { .. } => "address-wider",
            Notice::V4Only { .. } => "address-ipv4-only",
            Notice::FamilyNeeded { .. } => "address-family",
            Notice::DeviceWider { .. } => "address-device",
            Notice::LaneConnects { .. } => "port-connects",
            Notice::Snagged { .. } => "takeover-snag",
            Notice::Adopted { .. } => "takeover-adopted",
        }
    }

    /// Whom it is about.
    pub fn who(&self) -> Option<Who> {
        match self {
            Notice::LaneBusy { who, .. } => *who,
            Notice::LaneOpen { learnt_from, .. } => *learnt_from,
            Notice::Forked { who, .. }
            | Notice::LaneQuits { who, .. }
            | Notice::SpawnFailed { who, .. }
            | Notice::ExecFailed { who, .. }
            | Notice::Listening { who, .. }
            | Notice::LetGo { who }
            | Notice::Ready { who, .. }
            | Notice::NotReady { who, .. }
            | Notice::Died { who, .. }
            | Notice::LeftRunning { who }
            | Notice::Recycling { who, .. }
            | Notice::NotRecycled { who, .. }
            | Notice::RecyclesLater { who, .. }
            | Notice::Said { who, .. }
            | Notice::Hangs { who, .. }
            | Notice::Draining { who, .. }
            | Notice::Drained { who, .. }
            | Notice::TooSlowToStop { who, .. }
            | Notice::StillThere { who, .. }
            | Notice::Forgotten { who, .. }
            | Notice::TakeoverRefused { who, .. }
            | Notice::BindPassed { who, .. }
            | Notice::HandedOnly { who, .. }
            | Notice::Narrower { who, .. }
            | Notice::V4Only { who, .. }
            | Notice::FamilyNeeded { who, .. }
            | Notice::DeviceWider { who, .. }
            | Notice::Snagged { who, .. }
            | Notice::Adopted { who, .. } => Some(*who),
            Notice::Respawning { slot, .. }
            | Notice::CrashLoop { slot, .. }
            | Notice::GivenUp { slot, .. }
            | Notice::ForksSpent { slot, .. } => Some(Who {
                slot: *slot,
                pid: None,
            }),
            Notice::Signalled { whom, .. } => match whom.as_slice() {
                [one] => Some(*one),
                _ => None,
            },
            Notice::AllReady { .. }
            | Notice::NoneLeft { .. }
            | Notice::PartlyReady { .. }
            | Notice::Resizing { .. }
            | Notice::Resized { .. }
            | Notice::Disabled { .. }
            | Notice::Enabled { .. }
            | Notice::Unhealthy { .. }
            | Notice::Healthy { .. }
            | Notice::Wavers { .. }
            | Notice::AtBound { .. }
            | Notice::NoRoom { .. }
            | Notice::NotSignalled { .. }
            | Notice::Reloading { .. }
            | Notice::Reloaded { .. }
            | Notice::ReloadRefused { .. }
            | Notice::ReloadFailed { .. }
            | Notice::Exchanged { .. }
            | Notice::TooManyGenerations { .. }
            | Notice::StopDelayed { .. }
            | Notice::LaneAlone { .. }
            | Notice::Unserved { .. }
            | Notice::LaneConnects { .. }
            | Notice::Stopping { .. }
            | Notice::HardStop { .. }
            | Notice::NeverReady { .. }
            | Notice::CannotRun { .. }
            | Notice::Leftovers { .. }
            | Notice::Stuck { .. }
            | Notice::Stopped { .. } => None,
        }
    }
}
