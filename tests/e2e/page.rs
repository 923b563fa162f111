//! The monitor page as it is sent: to whom, and with which precautions. What a browser makes of it is in `seen`.

use crate::birth;
use crate::client::v4;
use crate::harness::Rig;
use crate::house::{KEY, PATIENCE, connect, exchange, house, request};
use crate::place::free_port;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, sockopt};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

#[test]
fn a_browser_gets_the_page_and_who_asks_for_json_the_status() {
    let h = house(2, "");
    let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";
    for headers in [browser, "Host: evil.example\r\n", ""] {
        let page = h.raw("GET /", headers, "");
        assert_eq!(page.status, 200, "{page:?}");
        assert_eq!(
            page.header("Content-Type"),
            Some("text/html; charset=utf-8")
        );
        assert!(page.body.starts_with("<!doctype html>"), "{page:?}");
        // It would not have to try to know that there is a key.
        assert!(page.body.contains("<body data-lock=\"key\">"), "{page:?}");
    }
    let json = "Accept: application/json\r\n";
    assert_eq!(h.raw("GET /", json, "").status, 401);
    let both = format!("{json}Authorization: Bearer {KEY}\r\n");
    let status = h.raw("GET /", &both, "").json();
    assert_eq!(status["ready"].get::<f64>(), Some(&2.0));
    assert!(status["rollout"].is_null());
    assert_eq!(status["command"][0].get::<String>().unwrap(), "./threaded");
    assert!(*status["rss"].get::<f64>().unwrap() > 100_000.0);
    let queue = &status["queues"][0];
    assert_eq!(queue["queued"].get::<f64>(), Some(&0.0));
    assert!(queue["slot"].is_null(), "all share it");
    // On the control socket everything is open.
    let page = h.inside("GET /", "");
    assert!(page.body.contains("<body data-lock=\"open\">"), "{page:?}");
    h.rig.end(&["request-refused"]);
}

#[test]
fn a_browser_is_told_to_take_nothing_from_elsewhere() {
    let h = house(1, "");
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
    ] {
        let r = h.asks(&format!("GET {path}"));
        assert_eq!(r.status, 200, "{path}");
        assert_eq!(r.header("Content-Type"), Some(kind));
        assert_eq!(r.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(r.header("X-Frame-Options"), Some("DENY"));
        assert_eq!(r.header("Referrer-Policy"), Some("no-referrer"));
        let policy = r.header("Content-Security-Policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let length: usize = r.header("Content-Length").unwrap().parse().unwrap();
        assert_eq!(r.body.len(), length, "{path}");
        let head = h.asks(&format!("HEAD {path}"));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(h.asks(&format!("POST {path}")).status, 405);
    }
    h.rig.end(&[]);
}

#[test]
fn without_a_key_file_the_page_knows_that_there_is_no_key() {
    let monitor = free_port();
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} --monitor {monitor} -- ./threaded"));
    rig.up();
    let page = exchange(connect(v4(monitor)), &request("GET /", "", ""));
    assert!(page.body.contains("<body data-lock=\"shut\">"), "{page:?}");
    rig.end(&[]);
}

#[test]
fn a_rollout_under_way_is_told_with_how_far_it_is() {
    // The first new one is watched until the story says otherwise.
    let h = house(2, "--canary 1:60s");
    let reload = h.rig.meanwhile("reload");
    h.rig
        .wait_status("the canary is ready", |s| !s.beside.is_empty());
    h.rig.until("it is watched", || {
        let r = h.opens("GET /status", "").json();
        let r = &r["rollout"];
        r["stage"].get::<String>().map(String::as_str) == Some("canary")
            && r["new"].get::<f64>() == Some(&1.0)
    });
    let r = h.opens("GET /status", "").json();
    let r = &r["rollout"];
    let number = |name: &str| *r[name].get::<f64>().unwrap();
    assert_eq!(
        [number("to"), number("of"), number("old")],
        [2.0, 2.0, 2.0],
        "{r:?}"
    );
    let said = h.rig.verb("status").out;
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with(
            "rollout to generation 2: canary, 1 of 2 new workers ready, 2 old workers left"
        ),
        "{said}"
    );
    h.rig.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(reload.join().unwrap().code, 1);
    h.rig.finish(0, &["reload-failed"]);
}

#[test]
fn who_reads_too_slowly_is_hung_up_on_and_is_told_nothing_in_the_middle_of_an_answer() {
    let h = house(1, "");
    let stream = narrow(h.monitor);
    let one = "GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
    (&stream).write_all(one.repeat(60).as_bytes()).unwrap();
    h.rig.until("it is hung up on", || {
        let clients = h.asks("GET /metrics").body;
        // (Who asks is one itself.)
        clients.contains("minicluster_clients{door=\"monitor\"} 1\n")
    });
    let mut got = Vec::new();
    // What was sent is there; behind it the connection was reset or ended.
    let _ = (&stream).read_to_end(&mut got);
    let got = String::from_utf8_lossy(&got);
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{}", got.len());
    let whole = h.asks("GET /page.js").body;
    for answer in got.split("HTTP/1.1 ").skip(1) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        assert!(head.starts_with("200 OK"), "{head}");
        assert!(whole.starts_with(body), "something else is in between");
    }
    h.rig.end(&[]);
}

/// A connection that takes little at a time.
fn narrow(to: SocketAddr) -> TcpStream {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    socket::setsockopt(&fd, sockopt::RcvBuf, &20_000).unwrap();
    birth::connect(&fd, to).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(PATIENCE).unwrap();
    stream
}
