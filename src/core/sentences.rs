//! The sentence of each notice: verb, subject, cause, and what happens next; both numbers of a
//! comparison.

use super::codes;
use super::crash::leaving_with;
use super::lanes::MAX_LANES;
use super::notice::{Hindrance, LeftoverStage, Limit, Next, Notice, PassWhy};
use super::outcome::Hitch;
use super::phrases::{
    addrs, all_workers, asked_by, last_lines, not_recycled, pids, refusal, remedy, tie,
};
use super::policy::MAX_WORKERS;
use super::words::{count, errno_text, human, no_room, signal_name};
use std::fmt;

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::LaneOpen {
                addr,
                learnt_from: None,
            } => write!(f, "port open: {addr}"),
            Notice::LaneOpen {
                addr,
                learnt_from: Some(who),
            } => {
                write!(
                    f,
                    "port learnt from {who}: {addr}, shared by all workers from now on"
                )
            }
            Notice::LaneBusy {
                addr,
                errno,
                holder,
                who,
            } => {
                write!(f, "cannot open {addr}")?;
                if let Some(who) = who {
                    write!(f, ", asked for by {who}")?;
                }
                write!(f, ": {}", errno_text(*errno))?;
                match (holder, remedy(*errno, addr)) {
                    (Some(h), _) => write!(f, "; held by {h}"),
                    (None, Some(r)) => write!(f, "; {r}"),
                    (None, None) => Ok(()),
                }
            }
            Notice::LaneQuits { addr, who } => write!(
                f,
                "{who} listens on {addr} by itself: closing our own socket there, or its share of the clients would hang; the server's SO_REUSEPORT balances from now on"
            ),
            Notice::Forked { who, reason, .. } => write!(f, "forked {who} ({reason})"),
            Notice::SpawnFailed { who, errno } => {
                write!(
                    f,
                    "cannot fork for {who}: {}; the slot retries",
                    errno_text(*errno)
                )
            }
            Notice::ExecFailed { who, step, errno } => {
                write!(f, "cannot start {who}: {step}: {}", errno_text(*errno))?;
                match codes::remedy(step, *errno) {
                    Some(r) => write!(f, "; {r}"),
                    None => Ok(()),
                }
            }
            Notice::Listening { who, addr, after } => {
                write!(f, "{who} listens on {addr} after {}", human(*after))
            }
            Notice::Said { who, word } => write!(f, "{who} says: {}", word.name()),
            Notice::Hangs { who, how, then } => {
                let then = human(*then);
                write!(f, "{who} {how}: sending SIGABRT, and SIGKILL {then} later")
            }
            Notice::LetGo { who } => {
                write!(
                    f,
                    "{who} listened and let go again (a port probe?); still waiting for it"
                )
            }
            Notice::Ready { who, after } => write!(f, "{who} ready after {}", human(*after)),
            Notice::AllReady { ready, lanes } => match lanes.as_slice() {
                [] => write!(f, "{} ready", all_workers(*ready)),
                some => write!(f, "{} ready on {}", all_workers(*ready), addrs(some)),
            },
            Notice::PartlyReady {
                ready,
                wanted,
                limit,
            } => write!(
                f,
                "only {ready}/{wanted} workers are ready after {} (--start-timeout); the other slots go on trying",
                human(*limit)
            ),
            Notice::Unserved { addr } => write!(
                f,
                "nobody takes the connections of {addr}: no worker listens there, nor waits on the socket passed for it, so its clients hang; give only addresses that COMMAND serves"
            ),
            Notice::NotReady {
                who,
                after,
                limit,
                hint,
            } => {
                write!(
                    f,
                    "{who} not ready after {} (limit {}), killing; the slot retries",
                    human(*after),
                    human(*limit)
                )?;
                match hint {
                    Some(h) => write!(f, "; {h}"),
                    None => Ok(()),
                }
            }
            Notice::Died {
                who,
                cause,
                exit,
                lived,
                was_ready,
                next,
                ..
            } => {
                write!(f, "{who} ended: {cause} ({exit}) after {}", human(*lived))?;
                if !was_ready {
                    write!(f, ", never ready")?;
                }
                match next {
                    Next::Respawn(d) if d.is_zero() => write!(f, "; slot respawns now")?,
                    Next::Respawn(d) => write!(f, "; slot respawns in {}", human(*d))?,
                    Next::TakenBack => f.write_str("; the one before it has its place again")?,
                    Next::HeldBack { wait, limit } => write!(
                        f,
                        "; slot is held back for {} (--restarts-per-minute {limit})",
                        human(*wait)
                    )?,
                    Next::Finished => write!(f, "; slot is finished (--respawn-on)")?,
                    Next::GivenUp { limit } => {
                        write!(f, "; slot is given up (--max-forks {limit})")?
                    }
                    Next::Replaced | Next::Nothing => {}
                }
                Ok(())
            }
            Notice::LeftRunning { who } => write!(
                f,
                "{who} exited 0 but left processes behind: does COMMAND put itself into the background? Run it in the foreground; what it left is ended when the cluster stops"
            ),
            Notice::Recycling { who, why } => write!(f, "recycling {who}: {why}"),
            Notice::NotRecycled { who, hitch, again } => not_recycled(f, *who, hitch, *again),
            Notice::Respawning {
                slot,
                delay,
                failures,
            } => write!(
                f,
                "slot {slot} respawns in {} (failures in a row: {failures})",
                human(*delay)
            ),
            Notice::CrashLoop {
                slot,
                respawns,
                limit,
                wait,
                ready,
                wanted,
            } => {
                write!(
                    f,
                    "crash loop: {respawns} respawns within a minute (limit {limit}, --restarts-per-minute): "
                )?;
                match wait {
                    Some(wait) => write!(
                        f,
                        "slot {slot} waits, next try in {}; the cluster goes on with {ready}/{wanted} workers ready",
                        human(*wait)
                    ),
                    None => write!(
                        f,
                        "slot {slot} would be one more; giving up (--on-crash-loop exit)"
                    ),
                }
            }
            Notice::ForksSpent {
                slot,
                forks,
                limit,
                exit,
                ready,
                wanted,
            } => {
                write!(
                    f,
                    "{forks} workers were forked (limit {limit}, --max-forks): "
                )?;
                match exit {
                    false => write!(
                        f,
                        "slot {slot} stays empty, as any other that fails from now on, until a reload or a resize; the cluster goes on with {ready}/{wanted} workers ready"
                    ),
                    true => write!(
                        f,
                        "slot {slot} would need one more; giving up (--on-crash-loop exit)"
                    ),
                }
            }
            Notice::GivenUp { slot, limit } => {
                write!(f, "slot {slot} is given up (--max-forks {limit})")
            }
            Notice::NoneLeft { end: Some(end) } => f.write_str(&leaving_with(*end)),
            Notice::NoneLeft { end: None } => {
                f.write_str("no slot has a worker, nor will any have one (--max-forks), giving up")
            }
            Notice::TooSlowToStop { who, after, limit } => write!(
                f,
                "{who} not gone {} after its stop signal (limit {limit}), killing its process group",
                human(*after)
            ),
            Notice::StillThere { who, since } => write!(
                f,
                "{who} still there {} after SIGKILL (stuck in the kernel?), killing again",
                human(*since)
            ),
            Notice::Forgotten { who, limit } => write!(
                f,
                "more than {limit} dead workers have left processes behind: forgetting those of {who}; a later bind(2) or listen(2) by one of them fails with ENOSYS"
            ),
            Notice::Stopping {
                why,
                by,
                workers,
                drain,
                limit,
            } => {
                write!(f, "stopping: {why}{}; ", asked_by(by))?;
                let them = count(*workers, "worker");
                let time = human(limit.time());
                match workers {
                    0 => return write!(f, "there is no worker to wait for"),
                    _ if !drain.is_zero() => {
                        let drain = human(*drain);
                        write!(f, "{them}, drained for up to {drain}, then asked to stop")?;
                        if let Limit::Timeout(_) = limit {
                            write!(f, " and killed {time} later")?;
                        }
                    }
                    _ if limit.time().is_zero() => write!(f, "{them} killed if not gone at once")?,
                    1 => write!(f, "{them} has {time} before it is killed")?,
                    _ => write!(f, "{them} have {time} before they are killed")?,
                }
                match limit {
                    Limit::Timeout(_) => Ok(()),
                    Limit::Budget { budget, .. } => {
                        write!(
                            f,
                            ", all has to be over in {} (--stop-budget)",
                            human(*budget)
                        )
                    }
                }
            }
            Notice::HardStop { why, by, workers } => {
                write!(
                    f,
                    "hard stop: {why}{}; killing {}",
                    asked_by(by),
                    count(*workers, "worker")
                )
            }
            Notice::NeverReady {
                limit, hint, last, ..
            } => {
                write!(
                    f,
                    "no worker was ready within {} (--start-timeout), giving up",
                    human(*limit)
                )?;
                if let Some(h) = hint {
                    write!(f, "; {h}")?;
                }
                last_lines(f, last)
            }
            Notice::CannotRun { code } => {
                write!(f, "COMMAND cannot be executed, giving up (exit {code})")
            }
            Notice::Leftovers { pids: list, stage } => {
                let them = match list.len() {
                    // They cannot be counted either.
                    0 => "what workers left behind".to_string(),
                    1 => "1 process that workers left behind".to_string(),
                    n => format!("{n} processes that workers left behind"),
                };
                match stage {
                    LeftoverStage::Asked => write!(f, "waiting for {them}")?,
                    LeftoverStage::Overdue(Limit::Timeout(time)) => write!(
                        f,
                        "{them} not gone {} after the stop signal, killing",
                        human(*time)
                    )?,
                    LeftoverStage::Overdue(Limit::Budget { time, budget }) => write!(
                        f,
                        "{them} not gone {} after the stop signal, of the {} that all of it may take (--stop-budget), killing",
                        human(*time),
                        human(*budget)
                    )?,
                    LeftoverStage::Killed => write!(f, "killing {them}")?,
                }
                match list.is_empty() {
                    true => Ok(()),
                    false => write!(f, ": {}", pids(list)),
                }
            }
            Notice::Stuck { pids: list, budget } => {
                match list.is_empty() {
                    true => {
                        f.write_str("cannot end all that workers left behind, not even by SIGKILL")?
                    }
                    false => f.write_str("cannot end these processes, not even by SIGKILL")?,
                }
                if let Some(budget) = budget {
                    write!(f, ", within {} (--stop-budget)", human(*budget))?;
                }
                match list.is_empty() {
                    true => f.write_str("; leaving without it"),
                    false => write!(f, ": {}; leaving without them", pids(list)),
                }
            }
            Notice::Stopped { code } => write!(f, "stopped (exit {code})"),
            Notice::Resizing { from, to, why, by } => write!(
                f,
                "resizing from {from} to {}: {why}{}",
                count(usize::from(*to), "worker"),
                asked_by(by)
            ),
            Notice::Resized { workers } => {
                write!(f, "resized: {}", count(usize::from(*workers), "worker"))
            }
            Notice::Reloading {
                generation,
                workers,
                why,
                by,
            } => write!(
                f,
                "reloading {} to generation {generation}: {why}{}",
                count(*workers, "worker"),
                asked_by(by)
            ),
            Notice::Reloaded {
                generation,
                took,
                back: false,
            } => write!(
                f,
                "reloaded: generation {generation} serves, after {}",
                human(*took)
            ),
            Notice::Reloaded {
                generation,
                took,
                back: true,
            } => write!(
                f,
                "taken back: all workers are of generation {generation} again, after {}",
                human(*took)
            ),
            Notice::ReloadRefused { hitch } => {
                write!(f, "reload refused: {hitch}; nothing has changed")
            }
            Notice::ReloadFailed {
                generation,
                hitch: hitch @ (Hitch::Stopping | Hitch::Overtaken { .. }),
                ..
            } => write!(f, "reload to generation {generation} is over: {hitch}"),
            Notice::ReloadFailed {
                generation,
                hitch,
                ready,
                back,
            } => {
                write!(f, "reload to generation {generation} has failed: {hitch}; ")?;
                match (ready, back) {
                    (0, _) => {
                        f.write_str("no worker is ready: the slots go on with what ran before")
                    }
                    (_, true) => f.write_str("workers that had been replaced are taken back"),
                    (_, false) => f.write_str("the old workers go on"),
                }
            }
            Notice::Exchanged {
                generation,
                old,
                drain,
            } => write!(
                f,
                "generation {generation} gets all new connections; {} of before, drained for up to {}",
                count(*old, "worker"),
                human(*drain)
            ),
            Notice::TooManyGenerations {
                generation,
                limit,
                workers,
            } => write!(
                f,
                "asking {} of generation {generation} to stop before they are drained: there are workers of {limit} generations (limit {limit})",
                count(*workers, "worker")
            ),
            Notice::StopDelayed { delay } => {
                write!(f, "serving for {} still (--drain-delay)", human(*delay))
            }
            Notice::Draining { who, cause } => write!(f, "draining {who} ({})", cause.word()),
            Notice::Drained {
                who,
                after,
                closed,
                ended,
                cut,
                limit,
            } => {
                let connections = |n: &u32| count(*n as usize, "connection");
                match cut {
                    0 => write!(f, "drained {who} after {}", human(*after))?,
                    n => write!(
                        f,
                        "{who} still has {} after {} (limit {limit}): asking it to stop, which cuts them off if it does not stop gracefully",
                        connections(n),
                        human(*after)
                    )?,
                }
                if *closed > 0 {
                    write!(f, "; {} ended when quiet", connections(closed))?;
                }
                match ended {
                    0 => Ok(()),
                    n => write!(
                        f,
                        "; {} ended when the time to drain was over, when no answer was seen to be owed: streams without an end, or clients that never pause",
                        connections(n)
                    ),
                }
            }
            Notice::LaneAlone { addr } => write!(
                f,
                "{addr} can have no second socket: old and new workers share its queue during a reload, so each old one is asked to stop when it owes nothing, which is best effort; a connection that it accepts in that moment is lost if it does not stop gracefully"
            ),
            Notice::AtBound { why, workers } => write!(
                f,
                "{why}, but there can be 1 to {MAX_WORKERS} workers and there {} already: ignored",
                match workers {
                    1 => "is 1".to_string(),
                    n => format!("are {n}"),
                }
            ),
            Notice::NoRoom { why, asked, most } => write!(
                f,
                "{why}, but there cannot be {asked} workers: {}: ignored",
                no_room(*most)
            ),
            Notice::Signalled {
                signal,
                whom,
                why,
                by,
            } => {
                let whom = match whom.as_slice() {
                    [one] => one.to_string(),
                    all => count(all.len(), "worker"),
                };
                let (name, by) = (signal_name(*signal), asked_by(by));
                write!(f, "SIG{name} sent to {whom}: {why}{by}")
            }
            Notice::NotSignalled {
                signal,
                target,
                why,
            } => write!(
                f,
                "{why}, but no worker that is meant by '{target}' runs: SIG{} goes to nobody",
                signal_name(*signal)
            ),
            Notice::TakeoverRefused {
                who,
                errno,
                required,
            } => {
                write!(f, "cannot watch the bind(2) of {who}: {}", refusal(*errno))?;
                match required {
                    true => write!(f, "; --takeover require: not running it"),
                    false => write!(
                        f,
                        "; going on without: let COMMAND use the socket passed as fd 3 (LISTEN_FDS), or set SO_REUSEPORT itself on $PORT; --takeover off silences this"
                    ),
                }
            }
            Notice::BindPassed {
                who,
                addr,
                ours,
                picked,
                why,
            } => {
                let ports: Vec<String> = ours.iter().map(|p| p.to_string()).collect();
                write!(f, "{who} binds {addr}, ")?;
                match why {
                    PassWhy::Privileged(least) => {
                        return write!(
                            f,
                            "a port below {least}, which the user that it runs as may not open: left to the kernel, which refuses it; -p {} has us open it",
                            addr.port()
                        );
                    }
                    PassWhy::NotListed => write!(f, "which --takeover does not list")?,
                    PassWhy::NotServed => {
                        write!(f, "which is not served here (-p {})", ports.join(" -p "))?
                    }
                    PassWhy::Full => write!(f, "but {MAX_LANES} ports are learnt already")?,
                    PassWhy::Connects => write!(f, "to connect from there")?,
                }
                if ours.contains(&addr.port()) {
                    return write!(
                        f,
                        ", but which is open here: its bind fails unless it sets SO_REUSEPORT; add {} to the list",
                        addr.port()
                    );
                }
                write!(f, ": left to itself, so only one worker can have it")?;
                match ours.first() {
                    Some(_) if *picked => write!(
                        f,
                        "; if this is the service port: let it bind $PORT, or give -p a number N and say --takeover {}=N",
                        addr.port()
                    ),
                    Some(p) => write!(
                        f,
                        "; if this is the service port: --takeover {}={p}",
                        addr.port()
                    ),
                    None => Ok(()),
                }
            }
            Notice::HandedOnly { who, addr: None } => write!(
                f,
                "{who} failed, and nobody answers its bind(2): a port that COMMAND binds by itself can be had by one worker only; let COMMAND set SO_REUSEPORT, or use -p and the socket passed as fd 3 (LISTEN_FDS)"
            ),
            Notice::HandedOnly {
                who,
                addr: Some(addr),
            } => write!(
                f,
                "{who} failed, and nobody answers its bind(2): one of {addr} fails here, since we have that open; let COMMAND use the socket passed as fd 3 (LISTEN_FDS), or set SO_REUSEPORT itself"
            ),
            Notice::Narrower { who, asked, lane } => write!(
                f,
                "{who} asks for {asked} but is served on {lane}, which more clients can reach; -H {} keeps it there",
                asked.ip()
            ),
            Notice::V4Only { who, asked, lane } => write!(
                f,
                "{who} asks for {asked} and is served on {lane}, IPv4 only; -H :: serves both"
            ),
            Notice::FamilyNeeded { who, asked, lane } => write!(
                f,
                "{who} asks for {asked}, an IPv4 socket, and is given the dual-stack {lane}: what its accept(2) returns are IPv6 addresses, and cut off they mean nothing: client addresses in its logs and access lists are wrong; use -H {} or let it listen on ::",
                asked.ip()
            ),
            Notice::DeviceWider {
                who,
                asked,
                device,
                lane,
            } => write!(
                f,
                "{who} asks for {asked} on the interface {device} alone, but is served on {lane}, on whatever interface; without -p its own choice is kept"
            ),
            Notice::LaneConnects { addr } => write!(
                f,
                "a worker connects from {addr}, which was taken for a port to serve: it is left to that worker; with -p nothing but the ports given is taken over"
            ),
            Notice::Adopted { who, addr, snag } => write!(
                f,
                "{who} serves {addr} by its own socket, because {}: it has a queue of its own there",
                tie(*snag)
            ),
            Notice::Snagged {
                who,
                addr,
                snag,
                why,
            } => {
                write!(
                    f,
                    "cannot take over {addr} from {who}: {}, and ",
                    tie(*snag)
                )?;
                match why {
                    Hindrance::NoTcp => write!(f, "sockets of one path cannot stand side by side")?,
                    Hindrance::Family(lane) => write!(
                        f,
                        "it cannot stand beside ours at {lane}, which is of another family (-H)"
                    )?,
                    Hindrance::Device => write!(
                        f,
                        "it is bound to one interface, which ours is not (without -p its choice is kept)"
                    )?,
                    Hindrance::Alone => {
                        write!(f, "its port can have no socket but the one passed to us")?
                    }
                    Hindrance::TooMany => {
                        write!(f, "this worker has too many such sockets already")?
                    }
                    Hindrance::Step(step, errno) => {
                        write!(f, "{step} says {}", errno_text(*errno))?
                    }
                }
                write!(
                    f,
                    "; its bind fails with EOPNOTSUPP. Let it use the socket passed as fd 3 (LISTEN_FDS), or --takeover off with SO_REUSEPORT set by the server"
                )
            }
        }
    }
}
