//! What proteus-cluster tested of itself (test/cluster.js), told again; seeds.md has the list. As there the
//! workers end after each answer, so that every case is one of those who come after them, too.

use crate::seeds::Guest;
use nix::sys::signal::Signal;

const PING: &str = r#"{"cmd":"ping"}"#;

/// Two workers that answer once.
fn guest() -> Guest {
    Guest::of("proteus-cluster", "", "node channel.js once 0")
}

/// All have ended so often, and are there again.
fn are_back(g: &Guest, times: usize) {
    g.rig.wait_many("died", 2 * times);
    g.rig.wait_many("ready", 2 + 2 * times);
}

/// That they go is the story.
fn ends(g: Guest) {
    g.rig.signal(Signal::SIGTERM);
    g.rig.finish(0, &["died"]);
}

/// Its `send message from master` and `send message by http`: both hear it, and what they say is heard.
#[test]
fn proteus_send_message_from_master_and_by_http() {
    let mut g = guest();
    let heard = |g: &mut Guest| {
        let bye = |e: &crate::log::Event| e.text("message").contains("\"msg\":\"bye\"");
        let first = g.rig.wait("message", bye);
        let second = g
            .rig
            .wait("message", |e| bye(e) && e.slot() != first.slot());
        assert_eq!(first.slot() + second.slot(), 1);
    };
    assert_eq!(g.rig.verb(["send", PING]).code, 0);
    heard(&mut g);
    are_back(&g, 1);
    let r = g.inside("POST /send", PING);
    assert_eq!((r.status, r.body.as_str()), (200, "OK"));
    heard(&mut g);
    are_back(&g, 2);
    ends(g);
}

/// Its `sync_send`: one answer of each, in a list, again and again.
#[test]
fn proteus_sync_send() {
    let g = guest();
    for times in 1..=3 {
        let r = g.asks("POST /sync_send", PING);
        assert_eq!((r.status, r.body.as_str()), (200, r#"["bye","bye"]"#));
        are_back(&g, times);
    }
    ends(g);
}

/// Its `sync_send timeout` and `server too busy`: a second one that asks for the same has to wait for the first.
#[test]
fn proteus_sync_send_timeout_and_too_busy() {
    // Of these none says anything to that.
    let g = Guest::of("proteus-cluster", "", "node channel.js proteus");
    let r = g.asks("POST /sync_send", r#"{"cmd":"say","n":1,"timeout":10}"#);
    assert_eq!((r.status, r.body.as_str()), (500, "worker timeout."));
    let first = g
        .rig
        .meanwhile(["sync-send", r#"{"cmd":"say","n":2}"#, "timeout", "1m"]);
    let both_have = || {
        g.rig
            .tales("heard")
            .iter()
            .filter(|t| t.1 == Some(2))
            .count()
            == 2
    };
    g.rig.until("the first is under way", both_have);
    let r = g.asks("POST /sync_send", r#"{"cmd":"say","n":3}"#);
    assert_eq!((r.status, r.body.as_str()), (500, "server too busy."));
    // What asks for something else does not wait.
    let r = g.asks("POST /sync_send", PING);
    assert_eq!((r.status, r.body.as_str()), (200, r#"["pong 0","pong 1"]"#));
    g.rig.signal(Signal::SIGTERM);
    // Of one that ends before it has answered there is nothing in the list.
    let said = first.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (0, "[\"\",\"\"]\n"));
    g.rig.finish(0, &[]);
}
