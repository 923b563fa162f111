//! The shell's part of the world: the loop's turns, one arm for each action, and outcomes that come
//! back as the next events of the same turn. What a real shell reads from the kernel it reads here
//! from the processes of the world.

use crate::cover::{Mark, action_name, event_name, notice_name, seen_name, why_name};
use crate::judge::SIGABRT;
use crate::kernel::{MASTER, Process, SIGKILL, Serial};
use crate::plan::Fate;
use crate::records::Job;
use crate::sizes::Happens;
use crate::world::{Mail, World};
use minicluster::core::notice::Limit;
use minicluster::core::{
    Action, Ask, Drain, Event, Hitch, LaneId, Notice, Opening, Outcome, PassWhy, Seen, Takeover,
    Time, Whom, WorkerId,
};
use std::collections::VecDeque;
use std::time::Duration;

/// A child that has not executed COMMAND by then no longer keeps others from being forked.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// The last connections have so long.
const CLOSING: Duration = Duration::from_secs(1);
/// Who comes last in a turn.
const CLIENTS: u8 = 5;
/// More turns than that without sleep are a loop that spins: every worker may need one for its fork.
const TURNS_AT_ONCE: usize = 200;

impl World {
    /// Turns of the loop until it may sleep. Something may be due at once again, but not for ever.
    pub fn turn(&mut self) {
        for _ in 0..TURNS_AT_ONCE {
            self.one_turn();
            let due = self.cluster.deadline().is_some_and(|d| d.0 <= self.now);
            let fork = !self.later.is_empty() && self.way_is_free() <= self.now;
            if self.judge.finished.is_some() || !(due || fork) {
                break;
            }
        }
        self.end_turn();
    }

    /// One turn: what has happened, one fork, the timers, the clients. The timers come that late
    /// because after a pause what has happened comes before what should have.
    fn one_turn(&mut self) {
        let mut batch = std::mem::take(&mut self.inbox);
        match self.faults.shuffled {
            true => self.rng.shuffle(&mut batch),
            false => batch.sort_by_key(|mail| order(&mail.event)),
        }
        let client = |m: &Mail| order(&m.event) == CLIENTS;
        let (clients, news): (Vec<Mail>, Vec<Mail>) = batch.into_iter().partition(client);
        for mail in news {
            self.deliver(mail);
        }
        self.forked = false;
        if !self.crowded()
            && let Some(worker) = self.later.pop_front()
        {
            let event = self.spawn(worker);
            self.settle(event, None);
        }
        if let Some((at, why)) = self.cluster.deadline()
            && at <= self.now
        {
            self.cover.hit(why_name(&why));
        }
        self.settle(Event::Tick, None);
        for mail in clients {
            self.deliver(mail);
        }
    }

    /// Has this turn had its fork, or is a child on its way to exec?
    fn crowded(&self) -> bool {
        self.forked || self.way_is_free() > self.now
    }

    /// One child at a time is on its way to exec; but not for long is it waited for.
    pub fn way_is_free(&self) -> Time {
        let living = self.judge.living.iter().map(|w| &self.judge.jobs[w]);
        let on_its_way = living.filter(|j| j.on_its_way);
        let free = on_its_way.map(|j| j.spawned + ON_ITS_WAY).max();
        free.unwrap_or(Time(0))
    }

    /// One piece of news, as the shell comes to know it.
    fn deliver(&mut self, mail: Mail) {
        match &mail.event {
            // Said above: there is one in every turn.
            Event::Tick => {}
            Event::TakeoverRefused { worker, .. }
            | Event::Execed { worker }
            | Event::ExecFailed { worker, .. } => self.hear_report(*worker),
            Event::Exited { worker, .. } => {
                // What a child says on its way to exec is heard before its end, or a command that
                // does not exist would be one that crashes, and be tried again.
                for _ in 0..3 {
                    self.hear_report(*worker);
                }
                self.settle(mail.event, mail.about);
            }
            Event::StrayReaped => {
                if let Some(serial) = mail.about {
                    self.gone(serial);
                }
                self.settle(mail.event, None);
            }
            Event::BindAsked { worker, ask, .. } => {
                if self.still_waits(*ask) {
                    self.release_closed(*worker);
                    self.settle(mail.event, None);
                }
            }
            Event::ListenAsked { ask, lane, .. } => {
                let ours = self.judge.lanes.get(lane).is_some_and(|l| l.open);
                match ours {
                    true if self.still_waits(*ask) => self.settle(mail.event, None),
                    true => {}
                    // A socket that we have closed is none of ours: the kernel does what it is told.
                    false => self.listening(*ask),
                }
            }
            _ => self.settle(mail.event, None),
        }
    }

    /// A caller that has ended is mostly not told of.
    fn still_waits(&mut self, ask: Ask) -> bool {
        let serial = self.asks.get(&ask);
        let lives = serial.is_some_and(|s| self.procs.get(s).is_some_and(|p| p.lives()));
        lives || self.rng.one_in(4)
    }

    /// The next thing that a child says on its way to exec, unless it was heard already.
    fn hear_report(&mut self, worker: WorkerId) {
        let Some(job) = self.judge.jobs.get_mut(&worker) else {
            return;
        };
        let Some(event) = job.reports.pop_front() else {
            return;
        };
        job.on_its_way &= matches!(event, Event::TakeoverRefused { .. });
        self.settle(event, None);
    }

    /// Core is told, and whatever follows from it at once is done; outcomes come in their order.
    pub fn settle(&mut self, event: Event, mut zombie: Option<Serial>) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            self.cover.hit(event_name(&event));
            self.say("event", || format!("{event:?}"));
            if self.judge.finished.is_some() {
                self.too_late(event);
                continue;
            }
            self.remember(&event);
            if let Event::LaneAlone { lane } = event {
                self.shared_from_now_on(lane);
            }
            self.judge.told(&event, self.now, &mut self.cover);
            let before: Vec<WorkerId> = self.judge.ready_workers().collect();
            let mut out = Vec::new();
            self.cluster.handle(event, self.now, &mut out);
            queue.extend(self.perform(out));
            self.capacity_is_kept(&before);
            // A leader is a zombie until the actions that follow from its end are done.
            if let Some(serial) = zombie.take() {
                let worker = self.procs[&serial].worker;
                self.group_was_told(worker, serial);
                if let Some(job) = self.judge.jobs.get_mut(&worker) {
                    (job.leader, job.on_its_way) = (None, false);
                }
                self.gone(serial);
            }
        }
        self.all_settled();
    }

    /// The master is leaving: nothing is done any more, and who asks for the end hears of it.
    fn too_late(&mut self, event: Event) {
        let asker = crate::closing::asks(&event);
        let mut out = Vec::new();
        self.cluster.handle(event, self.now, &mut out);
        match (asker, out.as_slice()) {
            (None, []) => {}
            (Some(asker), [Action::Answer { asker: to, outcome }]) => {
                self.cover.mark(Mark::AskedTooLate);
                assert_eq!(asker, *to);
                match outcome {
                    Outcome::Ended { code, .. } => assert_eq!(Some(*code), self.judge.finished),
                    Outcome::NothingToBackOut => {}
                    Outcome::NotResized { hitch, .. }
                    | Outcome::NotShutDown { hitch }
                    | Outcome::NotStarted { hitch, .. }
                    | Outcome::NotReloaded { hitch, .. }
                    | Outcome::NotRestarted { hitch, .. } => {
                        assert!(matches!(hitch, Hitch::Stopping))
                    }
                    other => assert!(matches!(other, Outcome::Nobody { .. }), "{other:?}"),
                }
            }
            (_, done) => panic!("{done:?} after the master has left"),
        }
    }

    /// Performs what `begin` asks for.
    pub fn act(&mut self, out: Vec<Action>) {
        for event in self.perform(out) {
            self.settle(event, None);
        }
    }

    fn perform(&mut self, out: Vec<Action>) -> VecDeque<Event> {
        let mut outcomes = VecDeque::new();
        for action in out {
            assert!(
                self.judge.finished.is_none(),
                "{action:?} after the master has left"
            );
            self.cover.hit(action_name(&action));
            self.say("action", || match &action {
                Action::Note(n) => format!("{:?} {}: {n}", n.level(), n.event()),
                other => format!("{other:?}"),
            });
            outcomes.extend(self.perform_one(action));
        }
        outcomes
    }

    fn perform_one(&mut self, action: Action) -> Option<Event> {
        self.net.changed |= matches!(
            action,
            Action::OpenLane { .. }
                | Action::Steer { .. }
                | Action::RetireLane { .. }
                | Action::FlushLane { .. }
                | Action::CloseLane { .. }
                | Action::Listen { .. }
                | Action::LookForServers { .. }
        );
        match action {
            Action::Spawn {
                worker,
                slot,
                program,
                reader,
            } => {
                self.judge
                    .spawned(worker, slot, reader, self.now, &mut self.cover);
                self.judge.runs(worker, program);
                if self.crowded() {
                    self.later.push_back(worker);
                    return None;
                }
                Some(self.spawn(worker))
            }
            Action::Signal {
                worker,
                signal,
                whom,
            } => {
                self.kill(worker, signal, whom);
                None
            }
            Action::Dismiss { worker, signal } => {
                let drains = self.judge.policy.drain == Drain::Connections;
                let drained = drains && self.judge.jobs[&worker].drain.is_some();
                let early = drained && self.gets_more(worker) && self.may_lose(worker).is_none();
                assert!(
                    !early,
                    "I3: {worker:?} is asked to stop as it is, and not held up"
                );
                self.kill(worker, signal, Whom::Leader);
                None
            }
            Action::DismissAtRest { worker, signal } => {
                // (Where core does not know that nobody comes it is held up for nothing.)
                let drains = self.judge.policy.drain == Drain::Connections;
                assert!(drains, "{worker:?} is held up");
                // Or it does not stop at once.
                let slow = !self.healed && self.rng.one_in(4);
                let done = !slow && self.load(worker).owed == 0;
                match done {
                    true => self.kill(worker, signal, Whom::Leader),
                    false => self.cover.mark(Mark::NotAtRest),
                }
                let took = self.rng.upto(self.faults.census_takes);
                Some(Event::Dismissed { worker, done, took })
            }
            Action::Lend { ask, lane } => {
                let asker = self.asks.get(&ask).and_then(|s| self.procs.get(s));
                let worker = asker.map(|p| p.worker);
                self.judge.lent(ask, lane, worker);
                self.bind_done(ask, Ok(Some(lane)));
                None
            }
            Action::Bound { ask } => {
                self.bound(ask);
                None
            }
            Action::Pass { ask } => {
                self.pass(ask);
                None
            }
            Action::Refuse { ask, errno } => {
                self.judge.answered(ask);
                self.bind_done(ask, Err(errno));
                None
            }
            Action::Listen { ask, lane } => self.make_listen(ask, lane),
            Action::CheckHeld { worker } => Some(self.seen(worker, self.held(worker))),
            Action::LookAt { worker } => Some(self.seen(worker, self.look(worker))),
            Action::Probe {
                worker,
                lane,
                within,
            } => {
                self.probe(worker, lane, within);
                None
            }
            Action::Check { check, of, within } => self.check(check, &of, within),
            Action::CallOff { check } => self.judge.called_off(check),
            Action::LookForServers { lanes } => Some(self.servers(lanes)),
            Action::OpenLane {
                lane,
                port,
                of,
                what,
            } => Some(match what {
                Opening::Given(given) => self.open_lane(lane, port, of, given.addr, true),
                Opening::Learnt { addr, .. } | Opening::Found { addr } => {
                    self.open_lane(lane, port, of, addr.into(), false)
                }
                Opening::Beside { first } => self.open_beside(lane, port, of, first),
                Opening::Adopted {
                    addr, ask, beside, ..
                } => {
                    let lane = (lane, port, of);
                    self.adopt(lane, addr.into(), ask, beside)
                }
            }),
            Action::Steer { port, table } => {
                self.judge.promote(self.now, &mut self.cover);
                let of = |l: &LaneId| {
                    let lane = &self.judge.lanes[l];
                    lane.port == port && lane.open
                };
                let to_none = table.is_empty();
                assert!(table.lanes().iter().all(of), "I2: {table:?}");
                assert!(
                    !to_none || self.judge.is_owned(port) || self.judge.asks(),
                    "I2: nobody is let in at {port:?}"
                );
                if to_none {
                    self.cover.mark(Mark::NobodyLetIn);
                }
                self.dealt_anew(port, &table);
                self.net.tables.insert(port, table);
                None
            }
            Action::ShareLane { lane } => {
                assert!(self.judge.lanes[&lane].shared, "{lane:?} is not for all");
                None
            }
            Action::RefuseNew => {
                assert!(self.judge.stopping(), "nobody is let in, and it serves");
                self.net.refusing = true;
                None
            }
            Action::Inherit { lane, heirs } => {
                self.inherit(lane, heirs);
                None
            }
            Action::NewGeneration { generation } => {
                assert_eq!(generation, self.judge.newest);
                if let Some(kind) = self.broken.take() {
                    self.code.insert(generation, kind);
                }
                None
            }
            Action::Weigh { workers } => Some(self.weigh(&workers)),
            Action::TakeCensus { workers, lanes } => Some(self.census(&workers, &lanes)),
            Action::LookHung { workers, spread } => Some(self.look_hung(&workers, spread)),
            Action::CloseQuiet {
                worker,
                silent,
                late,
            } => {
                let drain = self.judge.jobs[&worker].drain;
                let drain = drain.unwrap_or_else(|| panic!("{worker:?} stays"));
                let half = self.judge.policy.drain_timeout / 2;
                assert_eq!(late, self.now - drain >= half, "of {half:?}");
                if late {
                    self.hold_back(worker);
                }
                assert_eq!(silent, self.judge.policy.drain_quiet);
                Some(self.close_quiet(worker, silent))
            }
            Action::CloseRest { worker, left } => {
                let job = self.judge.jobs.get_mut(&worker).expect("nobody's rest");
                job.rests += 1;
                let late = job
                    .drain
                    .is_some_and(|t| self.now - t >= job.drain_most.saturating_sub(CLOSING));
                assert!(late || self.judge.stopping(), "{worker:?} has more time");
                assert!(left <= CLOSING, "{left:?} is left");
                Some(self.close_rest(worker, left))
            }
            Action::RetireLane { lane } => {
                match self.judge.lanes[&lane].owner {
                    Some(owner) => self.retire_own(lane, owner),
                    None => self.retire(lane),
                }
                None
            }
            Action::FlushLane { lane } => {
                self.flush(lane);
                None
            }
            Action::CloseLane { lane } => {
                let lane = self.judge.lanes.get_mut(&lane).expect("no such lane");
                assert!(std::mem::replace(&mut lane.open, false), "closed twice");
                lane.quit = true;
                None
            }
            Action::ForgetTree { worker } => {
                let job = self.judge.jobs.get_mut(&worker).expect("nobody to forget");
                assert!(job.exit_told && !std::mem::replace(&mut job.forgotten, true));
                None
            }
            Action::SweepStrays { signal } => Some(self.sweep(signal)),
            Action::Answer { asker, outcome } => {
                self.judge
                    .replied(asker, &outcome, self.now, &mut self.cover);
                self.answers.push((asker, outcome));
                None
            }
            Action::Note(notice) => {
                self.note(&notice);
                None
            }
            Action::Finish(code) => {
                let limit = self.stop_limit();
                self.judge.finish(code, self.now, limit);
                self.inspect(code);
                None
            }
        }
    }

    fn note(&mut self, notice: &Notice) {
        if let Notice::BindPassed {
            why: PassWhy::Full, ..
        } = notice
        {
            self.cover.mark(Mark::LanesFull);
        }
        if let Notice::Stopping {
            limit: Limit::Budget { .. },
            ..
        } = notice
        {
            self.cover.mark(Mark::BudgetCut);
        }
        self.cover.hit(notice_name(notice));
        if let Notice::StillThere { .. } = notice {
            self.cover.mark(Mark::KilledAgain);
        }
        self.judge.said(notice, self.now, &mut self.cover);
        // Every sentence must be sayable; one in so many is enough to know.
        if self.judge.handled % 16 == 0 {
            assert!(!notice.to_string().is_empty());
            let (_, _, _) = (notice.fields(), notice.who(), notice.level());
        }
    }

    fn spawn(&mut self, worker: WorkerId) -> Event {
        self.forked = true;
        if !self.cluster.wants(worker) {
            // The stop, or the resize, came between the wish and its turn.
            self.cover.mark(Mark::ForkCancelled);
            return Event::SpawnFailed { worker, errno: 125 };
        }
        let plan = self.next_plan(worker);
        if self.rng.percent(self.faults.spawn_fails) {
            return Event::SpawnFailed { worker, errno: 11 };
        }
        let refused = matches!(plan.fate, Fate::Refused(_));
        self.fork(MASTER, None, worker, plan);
        let serial = Serial(self.next_serial);
        let (pid, now) = (self.procs[&serial].pid, self.now);
        if let Some(job) = self.judge.jobs.get_mut(&worker) {
            job.watched = self.policy.takeover != Takeover::Off && !refused;
            (job.leader, job.group) = (Some(serial), Some(serial));
            (job.spawned, job.on_its_way) = (now, true);
        }
        Event::Spawned { worker, pid }
    }

    fn kill(&mut self, worker: WorkerId, signal: i32, whom: Whom) {
        let asked = self.judge.jobs[&worker].stop;
        if signal == SIGABRT && self.judge.jobs[&worker].untouched {
            self.called_hung(worker);
        }
        self.judge
            .signalled(worker, signal, whom, self.now, &mut self.cover);
        if asked.is_none() && self.judge.jobs[&worker].stop.is_some() {
            self.asked_to_stop(worker);
        }
        let passed_on = whom == Whom::Group && signal == self.policy.stop_signal;
        if asked.is_none() && self.judge.jobs[&worker].stop.is_some() || passed_on {
            let now = self.now;
            let theirs = self.procs.iter_mut().filter(|(_, p)| p.worker == worker);
            for (serial, p) in theirs {
                let leads = self.judge.jobs[&worker].leader == Some(*serial);
                if (whom == Whom::Group || leads) && !p.fails {
                    p.told.get_or_insert(now);
                }
            }
        }
        let leader = self.leader(worker).and_then(|s| self.procs.get_mut(&s));
        if let (Happens::Relay { .. }, Some(p)) = (self.judge.happens, leader) {
            // What it makes of that is the operator's wish.
            p.told = None;
        }
        let group = self.judge.jobs[&worker].group.expect("it was forked");
        match (whom, self.leader(worker)) {
            (Whom::Leader, leader) => self.signal(leader.expect("the judge has looked"), signal),
            (Whom::Group, Some(leader)) => self.signal_group(leader, signal),
            // Nobody says that the number is still its group's but a child of ours in it.
            (Whom::Group, None) => {
                let ours = |p: &Process| p.group == group && p.parent == MASTER;
                if self.procs.values().any(ours) {
                    self.cover.mark(Mark::RestKilled);
                    self.signal_group(group, signal);
                }
            }
        }
    }

    fn seen(&mut self, worker: WorkerId, what: Seen) -> Event {
        self.cover.hit(seen_name(&what));
        Event::Seen { worker, what }
    }

    /// Every child of the master that leads no worker, zombies included: so /proc has them.
    fn sweep(&mut self, signal: Option<i32>) -> Event {
        assert!(self.judge.stopping(), "swept while serving");
        let leaders: Vec<Serial> = self.judge.jobs.values().filter_map(|j| j.leader).collect();
        let strays = self.procs.iter().filter(|(_, p)| p.parent == MASTER);
        let strays: Vec<Serial> = strays.map(|(s, _)| *s).collect();
        if self.faults.nameless && signal == Some(SIGKILL) {
            // kill(-1) finds them all, whoever their parents are.
            let all: Vec<Serial> = self.procs.keys().copied().collect();
            for serial in all {
                self.signal(serial, SIGKILL);
            }
        }
        let mut left = Vec::new();
        let before = self.swept.replace(strays.len());
        // The end waits on as long as their number falls.
        self.fell += u32::from(before.is_some_and(|n| strays.len() < n));
        for serial in strays {
            if leaders.contains(&serial) {
                continue;
            }
            let p = &self.procs[&serial];
            left.push(p.pid);
            // Members of a worker's group have had it with their group.
            let group = Some(p.group);
            let known = |j: &Job| j.group == group && !j.gone_told && !j.forgotten;
            let had_it = self.asked.contains(&serial) || self.judge.jobs.values().any(known);
            match signal {
                Some(signal) if signal == SIGKILL || !had_it => {
                    self.asked.insert(serial);
                    self.signal(serial, signal);
                }
                Some(_) | None => {}
            }
        }
        // What has just ended is reaped in the next turn.
        let calm = self.faults.chaos.is_zero();
        let mut zombies = left.is_empty() && !calm && self.rng.one_in(8);
        // Where wait(2) alone tells: one of them may be the worker whose end is being told.
        let ended = |s: &Serial| self.procs[s].zombie.is_some();
        zombies |= self.faults.nameless && leaders.iter().any(ended);
        if zombies {
            self.news(Event::StrayReaped);
        }
        // Wait(2) alone cannot tell them from a worker that is stuck.
        match (self.faults.nameless, leaders.is_empty(), left.is_empty()) {
            (true, true, false) => Event::StraysUnnamed,
            (true, false, false) => Event::Strays {
                left: Vec::new(),
                zombies,
            },
            (false, _, _) | (_, _, true) => Event::Strays { left, zombies },
        }
    }
}

/// The shell reads its sources in this order.
fn order(event: &Event) -> u8 {
    match event {
        Event::TakeoverRefused { .. } | Event::Execed { .. } | Event::ExecFailed { .. } => 0,
        Event::BindAsked { .. }
        | Event::ListenAsked { .. }
        | Event::LaneDied { .. }
        | Event::LaneLeft { .. }
        | Event::TreeGone { .. } => 1,
        Event::Exited { .. } | Event::StrayReaped => 2,
        Event::Signal(_) | Event::Said { .. } | Event::Probed { .. } | Event::Checked { .. } => 3,
        Event::Tick => 4,
        Event::Stop { .. }
        | Event::Resize { .. }
        | Event::Reload { .. }
        | Event::BackOut { .. }
        | Event::Start(_)
        | Event::Restart(_)
        | Event::Rotate { .. }
        | Event::Exit { .. }
        | Event::StopWithin { .. }
        | Event::Shutdown(_)
        | Event::SignalWorkers { .. }
        | Event::AskerGone { .. } => CLIENTS,
        // Outcomes: told at once.
        Event::Spawned { .. }
        | Event::IsThere { .. }
        | Event::SpawnFailed { .. }
        | Event::Listens { .. }
        | Event::Seen { .. }
        | Event::Served { .. }
        | Event::Waiting { .. }
        | Event::LaneOpened { .. }
        | Event::LaneFailed { .. }
        | Event::LaneAlone { .. }
        | Event::AdoptFailed { .. }
        | Event::Census { .. }
        | Event::Weighed { .. }
        | Event::Counted { .. }
        | Event::Closed { .. }
        | Event::Dismissed { .. }
        | Event::Strays { .. }
        | Event::StraysUnnamed => 0,
    }
}
