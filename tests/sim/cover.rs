//! What a swarm has seen. A swarm that never reaches a state is a check that cannot fail, so the
//! default run counts every kind of event, action, notice, deadline and behaviour, and every mark
//! below, and fails if one of them stayed at zero. Each list is also an exhaustive match: a new
//! variant in core breaks the build here until it is counted. (What stands behind `but` is of a world that no
//! swarm begins in: workers that another master has left. core/tests/adoption.rs has it.)

use crate::plan::Kind;
use minicluster::core::{Action, Event, Notice, Seen, Why};
use std::collections::BTreeMap;

macro_rules! census {
    ($all:ident, $name:ident, $ty:ident: $($variant:ident)* $(; but $($never:ident)*)?) => {
        const $all: &[&str] = &[$(concat!(stringify!($ty), "::", stringify!($variant))),*];
        /// The name of its variant.
        pub fn $name(value: &$ty) -> &'static str {
            match value {
                $($ty::$variant { .. } => concat!(stringify!($ty), "::", stringify!($variant)),)*
                $($($ty::$never { .. } => concat!(stringify!($ty), "::", stringify!($never)),)*)?
            }
        }
    };
}

census!(EVENTS, event_name, Event: Spawned SpawnFailed TakeoverRefused Execed ExecFailed BindAsked
    ListenAsked Listens Seen Probed Checked Said Served Waiting LaneOpened LaneFailed LaneAlone LaneDied LaneLeft AdoptFailed Census Dismissed Closed Weighed Counted Reload BackOut Start Restart Shutdown Exit StopWithin Rotate Exited TreeGone StrayReaped Strays
    StraysUnnamed Signal Stop Resize SignalWorkers AskerGone Tick; but IsThere);
census!(ACTIONS, action_name, Action: Spawn Signal Dismiss DismissAtRest Lend Bound Pass Refuse Listen CheckHeld LookAt Probe Check CallOff
    LookForServers OpenLane Steer RefuseNew TakeCensus Weigh LookHung CloseQuiet CloseRest RetireLane FlushLane Inherit ShareLane NewGeneration
    CloseLane ForgetTree SweepStrays Answer Note Finish);
census!(NOTICES, notice_name, Notice: LaneOpen LaneBusy LaneQuits Forked SpawnFailed ExecFailed
    Listening LetGo Ready AllReady PartlyReady Unserved NotReady Said Hangs Died LeftRunning Recycling NotRecycled RecyclesLater Respawning CrashLoop ForksSpent GivenUp NoneLeft TooSlowToStop StillThere
    Forgotten Stopping HardStop NeverReady CannotRun Leftovers Stuck Stopped Resizing
    Resized Disabled Enabled Unhealthy Healthy Wavers AtBound NoRoom Reloading Reloaded ReloadRefused ReloadFailed Exchanged TooManyGenerations StopDelayed Draining Drained
    LaneAlone Signalled NotSignalled
    TakeoverRefused BindPassed HandedOnly Narrower V4Only FamilyNeeded DeviceWider LaneConnects
    Snagged Adopted);
census!(WHYS, why_name, Why: Hold Alive Look Probe Ready Watchdog Age Drain Census DrainDelay Successors Swap Weigh Watch Kill KillAgain Respawn StartTimeout Unserved Hung Check Leftovers
    GiveUp);
census!(SEEN, seen_name, Seen: Nothing Holds Accepts OwnSocket);
census!(KINDS, kind_name, Kind: Good Slow Crash ExitsZero NeverListens Prober WrongPort DeafToTerm
    SlowToTerm Stuck Wrapper Daemonizer Daemons HandedFds OwnSocket ExecFails Refused Snagged
    ManyBinds LateBinder Connector Mute Hung);

/// States worth reaching that are no variant of anything.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    /// The world was healed and all slots came to be ready.
    Converged,
    /// All workers ready, and no deadline pending: an idle master sleeps for ever.
    Quiescent,
    /// Stopped while the world was still hostile.
    StoppedInChaos,
    /// The stop came between fork and exec.
    StoppedBeforeExec,
    /// TreeGone was told before Exited.
    TreeGoneOvertook,
    /// A bind or listen was told before Execed.
    AskOvertookExec,
    /// A child was killed on its way to exec.
    EndedBeforeExec,
    /// It was stuck there.
    StuckBeforeExec,
    /// A fork waited for its turn, and the stop came first.
    ForkCancelled,
    /// A client asked for the end in the turn of the end.
    AskedTooLate,
    /// A process whose leader had ended asked for bind or listen.
    RemnantAsked,
    /// So did one whose tree was forgotten.
    StrangerAsked,
    /// A worker killed by us was not gone 5 s later.
    KilledAgain,
    /// The master slept through deadlines and news.
    Stalled,
    /// The clock leapt.
    Jumped,
    /// Many workers died at one moment.
    Stormed,
    /// News of a worker long gone was told again.
    Stale,
    /// Another binary took over.
    HandedOver,
    /// A client hung up before the end.
    AskerLeft,
    /// There were more waiting clients than the limit.
    AskersRefused,
    /// One slot went, and its number with it.
    Closed,
    /// Even for a resize.
    SizesRefused,
    /// A resize was waited for, and reached.
    Resized,
    /// A worker of a new slot ended, or could not be forked.
    ResizeFailed,
    /// Another resize came.
    ResizeSuperseded,
    /// The stop came.
    ResizeStopped,
    /// A worker said that it is not well.
    Triggered,
    /// A worker left clients in its queue,
    HungQueue,
    /// and one of those who share one from which nobody was taken,
    HungShared,
    /// or did not read what they said.
    HungBytes,
    /// One that was about to go had another client by then, or was not stopped in time.
    NotAtRest,
    /// There was no room for so many.
    NoRoom,
    /// A worker that had to go did not, or a new one could not be ended.
    ResizeStuck,
    /// A slot was wanted again while its worker was going.
    WantedAgain,
    /// What a worker that had to go left in its group was killed.
    RestKilled,
    /// The budget was shorter than the stop timeout.
    BudgetCut,
    /// A learnt lane was refused for want of room.
    LanesFull,
    /// A daemon's child became ours when the daemon ended, during the stop.
    Adopted,
    /// A batch of new workers took their places.
    Promoted,
    /// A reload reached its end,
    ReloadDone,
    /// failed,
    ReloadFailed,
    /// because a new worker ended,
    ReloadDied,
    /// or could not be forked,
    ReloadNotForked,
    /// or be ended,
    ReloadStuck,
    /// or the stop came,
    ReloadStopped,
    /// or another reload,
    ReloadOvertaken,
    /// and who waited was told.
    ReloadOvertakenTold,
    /// More waited for one than may.
    ReloadsRefused,
    /// It brought more workers,
    ReloadGrows,
    /// or fewer.
    ReloadShrinks,
    /// Slots that had been replaced were taken back,
    TakenBack,
    /// and that came to its end.
    BackDone,
    /// A worker was asked to stop with nothing left to do,
    Emptied,
    /// or while its siblings go on by its lane,
    SteeredStill,
    /// or when its time was over,
    DrainOverdue,
    /// or while its connections could not be seen or ended.
    Blind,
    /// A connection was lost by a worker that was at fault itself,
    LostByCrash,
    /// or that could not finish it in time.
    LostLate,
    /// What waited in a lane that nobody was left to read was reset.
    QueueReset,
    /// A server shut its lane down when it stopped.
    ShutDown,
    /// A worker with a socket of its own was in service when the world was at rest.
    OwnServes,
    /// A reload was called off by an operator; slots were added that run something else, or not.
    BackedOut,
    SlotsStarted,
    SlotsNotStarted,
    /// Canaries were watched, and the rest followed.
    CanariesPassed,
    /// Who was kept went when the new ones had been watched.
    KeptReleased,
    /// Who was kept had its place again.
    KeptRestored,
    /// Buckets of a port were dealt to other slots.
    DealtAnew,
    /// One was asked to stop with nothing left to do, while others went on,
    OwnEmptied,
    /// or what was in its queue went with it.
    OwnQueueLost,
    /// A port had nobody to serve it, and let nobody in.
    NobodyLetIn,
    /// What came before a port was known to be one of such sockets was reset.
    Flushed,
    /// A lane was inherited by the next generation.
    Inherited,
    /// A generation that has failed has left its queue to the one before.
    Bequeathed,
    /// A respawn was held back,
    HeldBack,
    /// or was one too many, and that the end.
    CrashLoopEnds,
    /// So were the forks.
    ForksEnd,
    /// Slots that were given up were tried again.
    Revived,
    /// A slot was finished,
    SlotFinished,
    /// and a reload filled it.
    FilledAgain,
    /// All were finished, or given up.
    AllFinished,
    AllGivenUp,
    /// A worker was killed for want of memory.
    OomKilled,
    /// A worker was replaced by another one while the others went on,
    Swapped,
    /// It had wished to be replaced before it had settled, and was, as a respawn; or it was not, for want of
    /// forks.
    FailedByWish,
    WishNotHeeded,
    /// or not, since that one failed;
    SwapFailed,
    /// or since a reload began;
    SwapOvertaken,
    /// or the old one ended first, and the new one had its place.
    SteppedIn,
    /// One said that it was on its way out, and was.
    Announced,
    /// Who waited for a restart heard of its end,
    Restarted,
    /// or why there was none.
    NotRestarted,
    /// Exit codes, each for its cause.
    Exit0,
    /// A hard stop.
    Exit1,
    /// Never ready.
    Exit69,
    /// Not even by SIGKILL.
    Exit71Stuck,
    /// A lane, or takeover with `require`.
    Exit71GaveUp,
    /// Port busy.
    Exit75,
    /// Port forbidden.
    Exit77,
    Exit78,
    /// Not executable.
    Exit126,
    /// Not found.
    Exit127,
}

census!(MARKS, mark_name, Mark: Converged Quiescent StoppedInChaos 
    StoppedBeforeExec TreeGoneOvertook AskOvertookExec EndedBeforeExec StuckBeforeExec ForkCancelled
    AskedTooLate RemnantAsked StrangerAsked
    KilledAgain Stalled Jumped Stormed Stale HandedOver AskerLeft AskersRefused Closed SizesRefused Resized ResizeFailed
    ResizeSuperseded ResizeStopped NoRoom Triggered HungQueue HungShared HungBytes NotAtRest ResizeStuck WantedAgain RestKilled Promoted ReloadDone ReloadFailed ReloadDied ReloadNotForked ReloadStuck
    ReloadStopped ReloadOvertaken ReloadOvertakenTold ReloadsRefused ReloadGrows ReloadShrinks TakenBack
    BackDone Emptied SteeredStill DrainOverdue Blind LostByCrash LostLate QueueReset ShutDown
    OwnServes BackedOut SlotsStarted SlotsNotStarted CanariesPassed KeptReleased KeptRestored DealtAnew OwnEmptied OwnQueueLost NobodyLetIn Flushed Inherited Bequeathed HeldBack CrashLoopEnds
    ForksEnd Revived SlotFinished FilledAgain AllFinished AllGivenUp OomKilled Swapped FailedByWish WishNotHeeded SwapFailed SwapOvertaken SteppedIn Announced Restarted NotRestarted BudgetCut LanesFull Adopted Exit0 Exit1
    Exit69 Exit71Stuck Exit71GaveUp Exit75 Exit77 Exit78 Exit126 Exit127);

/// How often each was seen.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    counts: BTreeMap<&'static str, u64>,
}

impl Cover {
    /// One more of that name.
    pub fn hit(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// One more of that mark.
    pub fn mark(&mut self, mark: Mark) {
        self.hit(mark_name(&mark));
    }

    /// How often it was seen.
    pub fn count(&self, name: &str) -> u64 {
        assert!(Cover::all().any(|n| n == name), "{name} is not counted");
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Cover) {
        for (name, n) in &other.counts {
            *self.counts.entry(name).or_default() += n;
        }
    }

    fn all() -> impl Iterator<Item = &'static str> {
        let lists = [EVENTS, ACTIONS, NOTICES, WHYS, SEEN, KINDS, MARKS];
        lists.into_iter().flatten().copied()
    }

    /// What was never seen.
    pub fn missing(&self) -> Vec<&'static str> {
        Cover::all()
            .filter(|name| !self.counts.contains_key(name))
            .collect()
    }

    /// The table, rarest first.
    pub fn table(&self) -> String {
        let row = |name| (self.counts.get(name).copied().unwrap_or(0), name);
        let mut rows: Vec<(u64, &str)> = Cover::all().map(row).collect();
        rows.sort();
        let line = |(n, name): &(u64, &str)| format!("{n:>10} {name}\n");
        rows.iter().map(line).collect()
    }
}
