//! Whether a server owes something on a connection, as far as the kernel's books show it.
//!
//! To close a connection on which nothing is owed is what servers do at any time, and clients reckon
//! with it. To close one on which something is owed loses a request, or half an answer.

use super::sock_diag::{Conn, Info, state};

/// What a server owes on a connection, as far as that can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debt {
    /// No byte has come yet; the first request may be on its way.
    Fresh,
    /// Something came that was not read, or was written and has not arrived, or the last word was the
    /// client's.
    Owed,
    /// Both spoke in the same tick of the kernel's clock: whose word was the last it cannot tell.
    Unclear,
    /// The last word was the server's, and all of it has arrived.
    Settled,
}

/// What is owed on it.
pub fn debt(c: &Conn) -> Debt {
    // The news that the client has closed is nothing that waits for an answer by itself.
    let end = u32::from(c.state == state::CLOSE_WAIT);
    judge(
        c.state,
        c.rqueue.saturating_sub(end),
        c.wqueue,
        c.info.as_ref(),
    )
}

/// The same for one that has to end: what was sent and has not arrived is no debt of the server's, the
/// kernel delivers it whatever the server does next. (A client that asks again soon has often not
/// acknowledged the last answer yet.)
pub fn debt_at_last(c: &Conn) -> Debt {
    let info = c.info.map(sent);
    let end = u32::from(c.state == state::CLOSE_WAIT);
    let waits = info.map_or(c.wqueue, |i| i.notsent.unwrap_or(c.wqueue));
    judge(c.state, c.rqueue.saturating_sub(end), waits, info.as_ref())
}

/// As if all that was sent had arrived.
pub fn sent(info: Info) -> Info {
    Info { unacked: 0, ..info }
}

/// The same from what one asks a socket itself: bytes unread (its end is none), and unacknowledged.
pub fn judge(state: u8, unread: u32, unacknowledged: u32, info: Option<&Info>) -> Debt {
    use state::{CLOSE_WAIT, ESTABLISHED, SYN_RECV};
    match state {
        ESTABLISHED | CLOSE_WAIT => {}
        // Established in all but name: the ACK is missing.
        SYN_RECV if unread == 0 => return Debt::Fresh,
        SYN_RECV => return Debt::Owed,
        // The server has said its last word itself; the rest is the kernel's.
        _ => return Debt::Settled,
    }
    let on_its_way = |i: &Info| i.unacked > 0 || i.notsent.is_some_and(|n| n > 0);
    if unread > 0 || unacknowledged > 0 || info.is_some_and(on_its_way) {
        return Debt::Owed;
    }
    let Some(info) = info else {
        return Debt::Unclear;
    };
    if !info.has_come() && state == ESTABLISHED {
        return Debt::Fresh;
    }
    // Before it has sent anything the age of that is the connection's.
    if !info.was_sent() {
        return Debt::Owed;
    }
    if !info.has_come() {
        return Debt::Settled;
    }
    match (info.last_sent_ms, info.last_recv_ms) {
        // Both are counted in the same ticks, of up to 10 ms, from the same moment.
        (sent, came) if sent == came => Debt::Unclear,
        (sent, came) if sent < came => Debt::Settled,
        _ => Debt::Owed,
    }
}

/// Since the last word of either side, or since it was established; 0 where that is not known.
pub fn silent_ms(c: &Conn) -> u32 {
    c.info.map_or(0, |i| i.last_sent_ms.min(i.last_recv_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Debt::{Fresh, Owed, Settled, Unclear};
    use state::*;

    /// Segments with data that came and that were sent, and how long ago the last of each was.
    fn info(came: u32, sent: u32, recv_ms: u32, sent_ms: u32) -> Info {
        Info {
            last_sent_ms: sent_ms,
            last_recv_ms: recv_ms,
            bytes_acked: Some(u64::from(sent) * 100),
            bytes_received: Some(u64::from(came) * 100),
            notsent: Some(0),
            data_segs_in: Some(came),
            data_segs_out: Some(sent),
            ..Info::default()
        }
    }

    fn conn(state: u8, rqueue: u32, wqueue: u32, info: Option<Info>) -> Conn {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Conn {
            local: nobody,
            peer: nobody,
            state,
            inode: 1,
            cookie: 1,
            rqueue,
            wqueue,
            info,
        }
    }

    #[test]
    fn what_is_owed() {
        let answered = info(1, 1, 500, 400);
        let asked = info(2, 1, 300, 400);
        let close = info(1, 1, 500, 500);
        let never = info(0, 0, 500, 500);
        let greeted = info(0, 1, 500, 490);
        let first = info(1, 0, 500, 505);
        // The client's end counts as a byte, and is none.
        let ended = Info {
            bytes_received: Some(1),
            ..never
        };
        let table = [
            (ESTABLISHED, 0, 0, never, Fresh),
            (ESTABLISHED, 0, 0, greeted, Fresh),
            (ESTABLISHED, 0, 9, greeted, Owed),
            (ESTABLISHED, 1, 0, never, Owed),
            (ESTABLISHED, 0, 0, first, Owed),
            (ESTABLISHED, 0, 0, answered, Settled),
            (ESTABLISHED, 1, 0, answered, Owed),
            (ESTABLISHED, 0, 1, answered, Owed),
            (ESTABLISHED, 0, 0, asked, Owed),
            (ESTABLISHED, 0, 0, close, Unclear),
            (ESTABLISHED, 1, 0, close, Owed),
            (ESTABLISHED, 0, 0, info(1, 1, 501, 500), Settled),
            (ESTABLISHED, 0, 0, info(1, 1, 500, 501), Owed),
            (CLOSE_WAIT, 1, 0, answered, Settled),
            (CLOSE_WAIT, 0, 0, answered, Settled),
            (CLOSE_WAIT, 2, 0, answered, Owed),
            (CLOSE_WAIT, 1, 1, answered, Owed),
            (CLOSE_WAIT, 1, 0, asked, Owed),
            (CLOSE_WAIT, 1, 0, first, Owed),
            (CLOSE_WAIT, 1, 0, close, Unclear),
            (CLOSE_WAIT, 1, 0, ended, Owed),
            (
                CLOSE_WAIT,
                1,
                0,
                Info {
                    bytes_received: Some(1),
                    ..greeted
                },
                Settled,
            ),
            (FIN_WAIT1, 5, 7, asked, Settled),
            (FIN_WAIT2, 5, 0, asked, Settled),
            (LAST_ACK, 0, 1, answered, Settled),
            (CLOSING, 0, 1, answered, Settled),
            (TIME_WAIT, 0, 0, never, Settled),
            (CLOSE, 0, 0, never, Settled),
            (SYN_RECV, 0, 0, never, Fresh),
            (SYN_RECV, 1, 0, never, Owed),
        ];
        for (state, rqueue, wqueue, info, want) in table {
            let c = conn(state, rqueue, wqueue, Some(info));
            assert_eq!(debt(&c), want, "{c:?}");
        }
    }

    #[test]
    fn what_is_not_acknowledged_is_owed_whoever_tells() {
        let answered = info(1, 1, 500, 400);
        for not_yet in [
            Info {
                unacked: 1,
                ..answered
            },
            Info {
                notsent: Some(1),
                ..answered
            },
        ] {
            assert_eq!(debt(&conn(ESTABLISHED, 0, 0, Some(not_yet))), Owed);
        }
        let acked = Info {
            notsent: None,
            ..answered
        };
        assert_eq!(debt(&conn(ESTABLISHED, 0, 0, Some(acked))), Settled);
    }

    #[test]
    fn a_kernel_that_tells_nothing_of_it_leaves_it_unclear() {
        for state in [ESTABLISHED, CLOSE_WAIT] {
            assert_eq!(debt(&conn(state, 0, 0, None)), Unclear);
            assert_eq!(debt(&conn(state, 2, 0, None)), Owed);
        }
        // Ages alone do for the rest.
        let ages = |recv, sent| Info {
            last_recv_ms: recv,
            last_sent_ms: sent,
            ..Info::default()
        };
        for (info, want) in [
            (ages(900, 800), Settled),
            (ages(800, 900), Owed),
            (ages(800, 800), Unclear),
        ] {
            assert_eq!(debt(&conn(ESTABLISHED, 0, 0, Some(info))), want);
        }
    }

    #[test]
    fn segments_that_were_counted_once_round_are_not_forgotten() {
        let round = Info {
            data_segs_in: Some(0),
            data_segs_out: Some(0),
            ..info(1, 1, 500, 400)
        };
        assert_eq!(debt(&conn(ESTABLISHED, 0, 0, Some(round))), Settled);
    }

    #[test]
    fn silence_is_since_the_last_word_of_either() {
        let silent = |i| silent_ms(&conn(ESTABLISHED, 0, 0, i));
        assert_eq!(silent(Some(info(1, 1, 500, 400))), 400);
        assert_eq!(silent(Some(info(1, 1, 300, 400))), 300);
        assert_eq!(silent(None), 0);
    }

    #[test]
    fn at_last_what_is_on_its_way_is_no_debt() {
        let on_its_way = Info {
            unacked: 1,
            ..info(2, 2, 500, 400)
        };
        let c = conn(ESTABLISHED, 0, 106, Some(on_its_way));
        assert_eq!((debt(&c), debt_at_last(&c)), (Owed, Settled));
        // Half an answer, or a request that nobody has read, is.
        let half = Info {
            notsent: Some(9),
            ..on_its_way
        };
        assert_eq!(debt_at_last(&conn(ESTABLISHED, 0, 115, Some(half))), Owed);
        assert_eq!(
            debt_at_last(&conn(ESTABLISHED, 5, 0, Some(on_its_way))),
            Owed
        );
        let asked = Info {
            unacked: 1,
            ..info(2, 1, 300, 400)
        };
        assert_eq!(debt_at_last(&conn(ESTABLISHED, 0, 9, Some(asked))), Owed);
    }
}
