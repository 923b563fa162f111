//! What a load balancer is told of rotation, byte by byte as cluster2 says it, so that a check that was
//! written for that one works.

use super::http::Status;
use super::http::response::{Response, calendar};
use crate::core::Standing;

/// Where it was asked.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The address that the client came to.
    pub ip: &'a str,
    pub hostname: &'a str,
    /// The first one that is served.
    pub port: u16,
}

/// A moment of the machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// Seconds since 1970,
    pub unix: u64,
    /// to which so many are to be added here.
    pub offset: i32,
    /// What that is called; may be unknown, and empty.
    pub zone: &'a str,
}

/// --ecv-down-status, unless it says otherwise.
pub const DOWN: u16 = 400;
/// What the health check of a server in rotation cannot say.
const WARNING: Status = Status::FAILED;

/// Tells of it. `down`: the status of one that is disabled.
pub fn answer(stands: Standing, place: &Place, now: &Local, since: &Local, down: u16) -> Response {
    let (word, (status, serves)) = (
        stands.word(),
        match stands {
            Standing::Available => (Status::OK, true),
            Standing::Warning => (WARNING, false),
            Standing::Disabled => (Status(down), false),
        },
    );
    let Place { ip, hostname, port } = place;
    let time = date(now);
    let body = format!(
        "status={word}&ServeTraffic={serves}&ip={ip}&hostname={hostname}&port={port}&time={time}"
    );
    dressed(Response::new(status, "text/plain", body), since)
}

/// It was taken out of rotation, or put back.
pub fn done(since: &Local) -> Response {
    dressed(Response::new(Status::NO_CONTENT, "text/plain", ""), since)
}

fn dressed(answer: Response, since: &Local) -> Response {
    let answer = answer.with("X-Powered-By", "minicluster");
    let mut answer = answer.with("since", date(since)).closing();
    answer.cache = "no-cache";
    answer
}

/// As JavaScript's `Date.toString()` has it:
/// `Sun Nov 22 2026 08:15:19 GMT+0000 (Coordinated Universal Time)`.
pub fn date(at: &Local) -> String {
    let local = at.unix.saturating_add_signed(i64::from(at.offset));
    let (week, month, day, year) = calendar(local / 86_400);
    let (h, m, s) = (local / 3600 % 24, local / 60 % 60, local % 60);
    let minutes = at.offset.unsigned_abs() / 60;
    let sign = if at.offset < 0 { '-' } else { '+' };
    let zone = format!("GMT{sign}{:02}{:02}", minutes / 60, minutes % 60);
    let name = match at.zone {
        "" | "UTC" | "UCT" | "Universal" | "Zulu" if at.offset == 0 => "Coordinated Universal Time",
        "" => &zone,
        name => name,
    };
    format!("{week} {month} {day:02} {year:04} {h:02}:{m:02}:{s:02} {zone} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::response::Way;

    const NOW: u64 = 1_795_335_319;

    fn utc(unix: u64) -> Local<'static> {
        Local {
            unix,
            offset: 0,
            zone: "UTC",
        }
    }

    #[test]
    fn dates_are_those_of_javascript() {
        for (unix, offset, zone, want) in [
            (
                NOW,
                0,
                "",
                "Sun Nov 22 2026 08:15:19 GMT+0000 (Coordinated Universal Time)",
            ),
            (
                NOW,
                0,
                "UTC",
                "Sun Nov 22 2026 08:15:19 GMT+0000 (Coordinated Universal Time)",
            ),
            (NOW, 0, "GMT", "Sun Nov 22 2026 08:15:19 GMT+0000 (GMT)"),
            (
                NOW,
                7200,
                "CEST",
                "Sun Nov 22 2026 10:15:19 GMT+0200 (CEST)",
            ),
            (
                NOW,
                7200,
                "",
                "Sun Nov 22 2026 10:15:19 GMT+0200 (GMT+0200)",
            ),
            (
                NOW,
                -34_200,
                "",
                "Sat Nov 21 2026 22:45:19 GMT-0930 (GMT-0930)",
            ),
            (
                NOW,
                20_700,
                "",
                "Sun Nov 22 2026 14:00:19 GMT+0545 (GMT+0545)",
            ),
            (0, -3600, "", "Thu Jan 01 1970 00:00:00 GMT-0100 (GMT-0100)"),
        ] {
            let at = Local { unix, offset, zone };
            assert_eq!(date(&at), want);
        }
    }

    #[test]
    fn an_answer_is_that_of_cluster2() {
        let place = Place {
            ip: "::ffff:127.0.0.1",
            hostname: "web-1",
            port: 3000,
        };
        for (rotation, down, status, said) in [
            (
                Standing::Available,
                400,
                "200 OK",
                "AVAILABLE&ServeTraffic=true",
            ),
            (
                Standing::Warning,
                400,
                "500 Internal Server Error",
                "WARNING&ServeTraffic=false",
            ),
            (
                Standing::Disabled,
                400,
                "400 Bad Request",
                "DISABLED&ServeTraffic=false",
            ),
            (
                Standing::Disabled,
                404,
                "404 Not Found",
                "DISABLED&ServeTraffic=false",
            ),
            (
                Standing::Disabled,
                599,
                "599 Status",
                "DISABLED&ServeTraffic=false",
            ),
        ] {
            let answer = answer(rotation, &place, &utc(NOW), &utc(NOW - 60), down);
            let body = format!(
                "status={said}&ip=::ffff:127.0.0.1&hostname=web-1&port=3000&time=Sun Nov 22 2026 \
                 08:15:19 GMT+0000 (Coordinated Universal Time)"
            );
            let n = body.len();
            let want = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {n}\r\n\
                 Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n\
                 X-Powered-By: minicluster\r\n\
                 since: Sun Nov 22 2026 08:14:19 GMT+0000 (Coordinated Universal Time)\r\n\
                 Connection: close\r\n\r\n{body}"
            );
            let got = answer.encode(Way::last(None));
            assert_eq!(String::from_utf8(got).unwrap(), want);
        }
    }

    #[test]
    fn a_change_is_answered_without_content() {
        let got = done(&utc(NOW)).encode(Way::last(None));
        let want = "HTTP/1.1 204 No Content\r\nCache-Control: no-cache\r\n\
             X-Content-Type-Options: nosniff\r\nX-Powered-By: minicluster\r\n\
             since: Sun Nov 22 2026 08:15:19 GMT+0000 (Coordinated Universal Time)\r\n\
             Connection: close\r\n\r\n";
        assert_eq!(String::from_utf8(got).unwrap(), want);
    }
}
