//! Did a worker do anything for those who wait for it, between two looks at what the kernel tells?
//! What cannot be told is never taken for "nothing": a busy worker must not be called hung.
//!
//! In a queue of its own: who came first is accepted first. So it has taken nobody if all that waited at
//! the first look wait still at the second; one that is gone was accepted, or has given up, which
//! cannot be told apart. In whose queue one waits the kernel does not tell: it is worked out from the
//! table that was in force when it came, where that says. Of those that it does not say of (dealt out
//! at random or by CPU, come while the table changed) it is counted how many there are at most in the
//! queues of others: when the rest of those that wait still are as many as waited for this worker, they
//! are the same.
//!
//! On connections that it has: nothing was read or written on any of them, none came, none went.
//!
//! One that its client has reset is not gone as long as its server has the descriptor.
//!
//! In a queue that it shares, both: all wait still, and it has done nothing on connections that it has.

use super::sock_diag::{Conn, state};
use super::unix_diag::UnixConn;
use crate::core::{LaneId, Wait, Waits};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Who waits to be accepted, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// By what no other connection has: in which lane, if that is known.
    pub waiting: BTreeMap<u64, Option<LaneId>>,
    /// How many the kernel says there are in each lane; looked at before the others.
    pub lengths: BTreeMap<LaneId, u32>,
}

/// Waits it to be accepted?
pub fn waits(conn: &Conn) -> bool {
    conn.inode == 0 && matches!(conn.state, state::ESTABLISHED | state::CLOSE_WAIT)
}

impl Queues {
    fn length(&self, lanes: &[LaneId]) -> u32 {
        let all = lanes.iter().filter_map(|l| self.lengths.get(l));
        all.fold(0, |all, n| all.saturating_add(*n))
    }

    /// Waits somebody in these?
    pub fn any(&self, lanes: &[LaneId]) -> bool {
        self.length(lanes) > 0
    }

    /// So it was: what has the worker done since that has these lanes?
    pub fn since(&self, then: &Queues, lanes: &[LaneId]) -> Wait {
        let (before, now) = (then.length(lanes), self.length(lanes));
        if before == 0 || now < before {
            return Wait::Moves;
        }
        let is_its = |lane: &&Option<LaneId>| lane.is_some_and(|l| lanes.contains(&l));
        let known = then.waiting.values().filter(is_its).count();
        let left =
            |(id, lane): (&u64, &Option<LaneId>)| is_its(&lane) && !self.waiting.contains_key(id);
        if then.waiting.iter().any(left) {
            return Wait::Moves;
        }
        let stands = Wait::Stands(Waits::Queue(now));
        let unknown = then.waiting.iter().filter(|(_, lane)| lane.is_none());
        let unknown: Vec<u64> = unknown.map(|(id, _)| *id).collect();
        let still = unknown.iter().filter(|id| self.waiting.contains_key(id));
        let still = still.count();
        match (known, unknown.len()) {
            // Those that there were have given up before they were seen.
            (0, 0) => return Wait::Moves,
            (1.., all) if all == still => return stands,
            _ => {}
        }
        let wanted = usize::try_from(before).unwrap_or(usize::MAX);
        let wanted = wanted.saturating_sub(known);
        let others = self.lengths.iter().filter(|(l, _)| !lanes.contains(l));
        let others: usize = others
            .map(|(_, n)| usize::try_from(*n).unwrap_or(usize::MAX))
            .fold(0, usize::saturating_add);
        match still.saturating_sub(others) {
            _ if still < wanted => Wait::Moves,
            // (What it has none of it cannot have left there.)
            its if its >= wanted && its + known > 0 => stands,
            _ => Wait::Unknown,
        }
    }
}

/// How far a server is with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The socket.
    pub inode: u64,
    /// Bytes that have come and that it has not read;
    pub unread: u32,
    /// what it has read,
    read: u64,
    /// and written.
    written: u64,
}

impl Mark {
    /// `None`: the kernel does not tell (before Linux 4.1).
    pub fn of(conn: &Conn) -> Option<Mark> {
        let info = conn.info?;
        // The news that the client has closed is nothing to read.
        let end = u32::from(conn.state == state::CLOSE_WAIT);
        Some(Mark {
            inode: conn.inode,
            unread: conn.rqueue.saturating_sub(end),
            read: info.bytes_received?.saturating_sub(conn.rqueue.into()),
            written: info.bytes_acked?.saturating_add(conn.wqueue.into()),
        })
    }

    /// Of a unix socket, whose history the kernel does not tell: that what waits on it has changed is all
    /// that can be seen. With a name that no connection of TCP has.
    pub fn of_unix(conn: &UnixConn) -> (u64, Mark) {
        let mark = Mark {
            inode: conn.inode,
            unread: 0,
            read: conn.rqueue.into(),
            written: conn.wqueue.into(),
        };
        (conn.inode | 1 << 63, mark)
    }

    /// Of a connection that its client has reset: the server has not touched it, and has it still.
    pub fn reset(self) -> Mark {
        Mark { unread: 0, ..self }
    }

    /// Has it done nothing since?
    pub fn stands(&self, then: &Mark) -> bool {
        (self.read, self.written) == (then.read, then.written)
    }
}

/// The connections that a worker has, by what no other connection has.
pub type Held = BTreeMap<u64, Mark>;

/// Was nothing done on any of them, and did none come or go?
fn same(now: &Held, then: &Held) -> bool {
    let stands = |(id, mark): (&u64, &Mark)| then.get(id).is_some_and(|t| mark.stands(t));
    now.len() == then.len() && now.iter().all(stands)
}

/// So it was: what has the worker done since?
pub fn since(now: &Held, then: &Held) -> Wait {
    // (What has come since then has not waited as long.)
    let waits = |id: &u64| then.get(id).is_some_and(|t| t.unread > 0);
    let most = now
        .iter()
        .filter(|(id, _)| waits(id))
        .map(|(_, m)| m.unread);
    match most.max() {
        Some(most) if most > 0 && same(now, then) => Wait::Stands(Waits::Bytes(most)),
        Some(_) | None => Wait::Moves,
    }
}

/// What a worker has, of which it shares the queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharer {
    /// Who waits in all queues.
    pub queues: Rc<Queues>,
    /// What it has accepted.
    pub held: Held,
}

impl Sharer {
    /// So it was: what has the worker done since, and those with whom it shares these lanes?
    pub fn since(&self, then: &Sharer, lanes: &[LaneId]) -> Wait {
        match since(&self.held, &then.held) {
            stands @ Wait::Stands(_) => return stands,
            Wait::Moves | Wait::Unknown if !same(&self.held, &then.held) => return Wait::Moves,
            Wait::Moves | Wait::Unknown => {}
        }
        match self.queues.since(&then.queues, lanes) {
            Wait::Stands(_) => Wait::Stands(Waits::Shared(self.queues.length(lanes))),
            wait @ (Wait::Moves | Wait::Unknown) => wait,
        }
    }
}

/// Connections on which something waits to be read, and did already, untouched, at the look before.
pub fn suspects(now: &Held, before: &Held) -> BTreeSet<u64> {
    let waits = |(id, mark): &(&u64, &Mark)| {
        let then = before.get(id);
        mark.unread > 0 && then.is_some_and(|t| t.unread > 0 && mark.stands(t))
    };
    now.iter().filter(waits).map(|(id, _)| *id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sock_diag::Info;

    const A: LaneId = LaneId(1);
    const B: LaneId = LaneId(2);

    /// Who waits, with the lane, if known; and how long the queues of A and B are.
    fn queues(waiting: &[(u64, Option<LaneId>)], a: u32, b: u32) -> Queues {
        Queues {
            waiting: waiting.iter().copied().collect(),
            lengths: [(A, a), (B, b)].into(),
        }
    }

    fn stands(n: u32) -> Wait {
        Wait::Stands(Waits::Queue(n))
    }

    #[test]
    fn a_queue_that_is_as_long_as_before_has_moved_if_another_one_waits_in_it() {
        let a = Some(A);
        let then = queues(&[(1, a), (2, a)], 2, 0);
        for (now, what) in [
            (queues(&[(1, a), (2, a)], 2, 0), stands(2)),
            (queues(&[(1, a), (2, a), (3, a)], 3, 9), stands(3)),
            // One was taken, and another one has come.
            (queues(&[(2, a), (3, a)], 2, 0), Wait::Moves),
            (queues(&[(2, a), (3, a), (4, a)], 3, 0), Wait::Moves),
            (queues(&[(2, a)], 1, 0), Wait::Moves),
            (queues(&[], 0, 0), Wait::Moves),
            // Who has given up but is counted still was taken.
            (queues(&[(1, a), (2, a)], 1, 0), Wait::Moves),
        ] {
            assert_eq!(now.since(&then, &[A]), what, "{now:?}");
        }
        // What others take does not count.
        let then = queues(&[(1, a), (2, Some(B))], 1, 1);
        let now = queues(&[(1, a), (3, Some(B))], 1, 1);
        assert_eq!(now.since(&then, &[A]), stands(1));
        assert_eq!(now.since(&then, &[B]), Wait::Moves);
        // Nobody is known to wait.
        let reset = queues(&[], 1, 0);
        assert_eq!(reset.since(&reset, &[A]), Wait::Moves);
    }

    #[test]
    fn where_it_is_not_known_who_waits_for_whom_it_is_counted() {
        let some = |ids: &[u64], a, b| {
            let all: Vec<(u64, Option<LaneId>)> = ids.iter().map(|id| (*id, None)).collect();
            queues(&all, a, b)
        };
        let then = some(&[1, 2, 3], 2, 1);
        for (now, what) in [
            // The others have taken theirs: 1 and 2 are those of A.
            (some(&[1, 2, 4], 2, 0), stands(2)),
            (some(&[1, 2, 4], 3, 0), stands(3)),
            // Two wait still, one of which may be that of B.
            (some(&[1, 2, 4], 2, 1), Wait::Unknown),
            (some(&[1, 2, 3], 2, 1), stands(2)),
            // One waits still: A has taken one at least.
            (some(&[1, 4, 5], 3, 0), Wait::Moves),
        ] {
            assert_eq!(now.since(&then, &[A]), what, "{now:?}");
        }
        // Some are known: the rest as far as they do not go.
        let mixed = queues(&[(1, Some(A)), (2, None)], 1, 1);
        let now = queues(&[(1, Some(A)), (2, None)], 1, 1);
        assert_eq!(now.since(&mixed, &[A]), stands(1));
        let now = queues(&[(1, Some(A)), (3, Some(B))], 1, 1);
        assert_eq!(now.since(&mixed, &[A]), stands(1));
        // Its one connection was taken, or that of B was: nothing says which.
        let then = queues(&[(1, None), (2, None)], 1, 1);
        let now = queues(&[(1, None), (3, None)], 1, 1);
        assert_eq!(now.since(&then, &[A]), Wait::Unknown);
    }

    fn conn(state: u8, rqueue: u32, received: u64, written: u64) -> Conn {
        let info = Info {
            bytes_received: Some(received),
            bytes_acked: Some(written),
            ..Info::default()
        };
        Conn {
            local: "127.0.0.1:80".parse().unwrap(),
            peer: "127.0.0.1:9".parse().unwrap(),
            state,
            inode: 5,
            cookie: 1,
            rqueue,
            wqueue: 0,
            info: Some(info),
        }
    }

    #[test]
    fn in_a_queue_that_is_shared_one_hangs_that_does_nothing_else_either() {
        let all = [A];
        let sharer = |waiting: &[u64], held: &[(u64, u32, u64)]| {
            let its = waiting.iter().map(|id| (*id, Some(A))).collect::<Vec<_>>();
            let mark = |(id, unread, read): &(u64, u32, u64)| {
                let c = conn(state::ESTABLISHED, *unread, read + u64::from(*unread), 0);
                (*id, Mark::of(&c).unwrap())
            };
            Sharer {
                queues: Rc::new(queues(&its, u32::try_from(waiting.len()).unwrap(), 0)),
                held: held.iter().map(mark).collect(),
            }
        };
        let then = sharer(&[1, 2], &[(7, 0, 10)]);
        for (now, what) in [
            (
                sharer(&[1, 2], &[(7, 0, 10)]),
                Wait::Stands(Waits::Shared(2)),
            ),
            (
                sharer(&[1, 2, 3], &[(7, 5, 10)]),
                Wait::Stands(Waits::Shared(3)),
            ),
            // One has taken somebody.
            (sharer(&[2, 3], &[(7, 0, 10)]), Wait::Moves),
            // It is at work on what it has, has accepted, or has ended one.
            (sharer(&[1, 2], &[(7, 0, 15)]), Wait::Moves),
            (sharer(&[1, 2], &[(7, 0, 10), (8, 0, 0)]), Wait::Moves),
            (sharer(&[1, 2], &[]), Wait::Moves),
        ] {
            assert_eq!(now.since(&then, &all), what, "{now:?}");
        }
        // What has come to it waits, whatever its siblings take.
        let then = sharer(&[1], &[(7, 5, 10)]);
        let now = sharer(&[3], &[(7, 5, 10)]);
        assert_eq!(now.since(&then, &all), Wait::Stands(Waits::Bytes(5)));
        // It shares no queue: nothing else is to be seen of it.
        assert_eq!(
            sharer(&[1], &[]).since(&sharer(&[1], &[]), &[B]),
            Wait::Moves
        );
    }

    #[test]
    fn as_many_bytes_as_before_have_been_read_if_more_have_come() {
        let mark = |rqueue, received, written| {
            Mark::of(&conn(state::ESTABLISHED, rqueue, received, written)).unwrap()
        };
        let held = |marks: &[(u64, Mark)]| -> Held { marks.iter().copied().collect() };
        let then = held(&[(1, mark(10, 10, 0)), (2, mark(0, 50, 90))]);
        let idle = (2, mark(0, 50, 90));
        let bytes = |n| Wait::Stands(Waits::Bytes(n));
        for (now, what) in [
            (held(&[(1, mark(10, 10, 0)), idle]), bytes(10)),
            (held(&[(1, mark(15, 15, 0)), idle]), bytes(15)),
            (held(&[(1, mark(10, 15, 0)), idle]), Wait::Moves),
            // It is at work on another one, or has taken one, or ended one.
            (
                held(&[(1, mark(10, 10, 0)), (2, mark(0, 50, 99))]),
                Wait::Moves,
            ),
            (
                held(&[(1, mark(10, 10, 0)), (2, mark(0, 60, 90))]),
                Wait::Moves,
            ),
            (
                held(&[(1, mark(10, 10, 0)), idle, (3, mark(0, 0, 0))]),
                Wait::Moves,
            ),
            (held(&[(1, mark(10, 10, 0))]), Wait::Moves),
        ] {
            assert_eq!(since(&now, &then), what, "{now:?}");
        }
        // Idle ones have nothing to read, nor has one whose client has closed.
        let idle = held(&[(2, mark(0, 50, 90))]);
        assert_eq!(since(&idle, &idle), Wait::Moves);
        let closed = Mark::of(&conn(state::CLOSE_WAIT, 1, 1, 0)).unwrap();
        assert_eq!(closed.unread, 0);
        assert_eq!(
            suspects(&held(&[(1, closed)]), &held(&[(1, closed)])),
            [].into()
        );
        assert_eq!(suspects(&then, &then), [1].into());
        assert_eq!(suspects(&held(&[(1, mark(10, 12, 0))]), &then), [].into());
        assert_eq!(
            Mark::of(&Conn {
                info: None,
                ..conn(1, 0, 0, 0)
            }),
            None
        );
    }
}
