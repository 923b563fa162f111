//! The sentence of each notice: verb, subject, cause, and what happens next; both numbers of a
//! comparison.

use super::codes;
use super::crash::leaving_with;
use super::notice::Notice;
use super::outcome::Hitch;
use super::phrases::{
    addrs, all_workers, asked_by, drained, healthy, last_lines, leftovers, not_recycled, passed,
    pids, refusal, remedy, stopping, tie, unhealthy,
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
                tries,
                limit,
            } => write!(
                f,
                "only {ready}/{wanted} workers are ready after {} (--start-timeout); the other slots {}",
                human(*limit),
                match tries {
                    true => "go on trying",
                    false => "stay empty",
                }
            ),
            Notice::Unserved { addr } => write!(
                f,
                "nobody takes the connections of {addr}: no worker listens there, nor waits on the socket passed for it, so its clients hang; give only addresses that COMMAND serves"
            ),
            Notice::NotReady {
                who,
                after,
                limit,
                retries,
                hint,
            } => {
                write!(
                    f,
                    "{who} not ready after {} (limit {}), killing",
                    human(*after),
                    human(*limit)
                )?;
                if *retries {
                    f.write_str("; the slot retries")?;
                }
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
                write!(f, "{next}")
            }
            Notice::LeftRunning { who } => write!(
                f,
                "{who} exited 0 but left processes behind: does COMMAND put itself into the background? Run it in the foreground; what it left is ended when the cluster stops"
            ),
            Notice::Recycling { who, why, failures } => {
                write!(f, "recycling {who}: {why}")?;
                match failures {
                    Some(n) => write!(f, " (failures in a row: {n})"),
                    None => Ok(()),
                }
            }
            Notice::NotRecycled { who, hitch, again } => not_recycled(f, *who, hitch, *again),
            Notice::RecyclesLater {
                who,
                wait: Some(wait),
                failures,
            } => write!(
                f,
                "{who} wants to be replaced as soon as it is ready, which is a failure: so in {} (failures in a row: {failures})",
                human(*wait)
            ),
            Notice::RecyclesLater {
                who, wait: None, ..
            } => write!(
                f,
                "{who} wants to be replaced as soon as it is ready: it goes on, until a reload or a resize (--max-forks)"
            ),
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
                keeps,
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
                    false if *keeps => write!(
                        f,
                        "slot {slot} keeps its worker, which wants to be replaced as soon as it is ready, and one that fails from now on stays empty, until a reload or a resize; the cluster goes on with {ready}/{wanted} workers ready"
                    ),
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
            } => stopping(f, why, by, workers, drain, limit),
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
            Notice::Leftovers { pids: list, stage } => leftovers(f, list, stage),
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
            Notice::Disabled { why, by } => {
                write!(f, "out of rotation, serving on: {why}{}", asked_by(by))
            }
            Notice::Enabled { why, by } => {
                write!(f, "in rotation again: {why}{}", asked_by(by))
            }
            Notice::Unhealthy { ready, quorum, why } => unhealthy(f, *ready, *quorum, why),
            Notice::Healthy { ready, quorum, was } => healthy(f, *ready, *quorum, was),
            Notice::Wavers {
                check,
                why,
                row,
                needed,
            } => match why {
                Some(why) => write!(
                    f,
                    "{check}: {why}; {row} in a row, at {needed} the cluster is unhealthy"
                ),
                None => write!(
                    f,
                    "{check}: all is well; {row} in a row, at {needed} it counts"
                ),
            },
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
                let how = match matches!(hitch, Hitch::CalledOff { .. }) {
                    true => "is called off",
                    false => "has failed",
                };
                write!(f, "reload to generation {generation} {how}: {hitch}; ")?;
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
                "asking {} of generation {generation} to stop without draining: there are workers of {limit} generations (limit {limit})",
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
            } => drained(f, who, after, [closed, ended, cut], limit),
            Notice::LaneAlone { addr } => write!(
                f,
                "{addr} can have no second socket: old and new workers share its queue during a reload, so each old one is asked to stop when it owes nothing; one that is never at rest is asked at --drain-timeout"
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
            } => passed(f, who, addr, ours, picked, why),
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
                    "cannot take over {addr} from {who}: {}, and {why}; its bind fails with EOPNOTSUPP. Let it use the socket passed as fd 3 (LISTEN_FDS), or --takeover off with SO_REUSEPORT set by the server",
                    tie(*snag)
                )
            }
        }
    }
}
