//! In and out of rotation: what a load balancer, or the script that asks for it, is told.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::house::house;
use crate::place::free_port;
use nix::sys::signal::Signal;
use tinyjson::JsonValue;

fn state(rig: &Rig) -> (i32, String) {
    let said = rig.verb("ecv --json");
    let json: JsonValue = said.out.parse().unwrap();
    (said.code, json["state"].get::<String>().unwrap().clone())
}

#[test]
fn a_cluster_that_is_taken_out_serves_on_and_stays_out_over_deaths_and_a_reload() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --graceful"));
    rig.up();
    assert_eq!(state(&rig), (0, "AVAILABLE".into()));
    let said = rig.verb("disable a new disk");
    assert_eq!((said.code, said.out.as_str()), (0, "disabled\n"));
    let event = rig.wait("disabled", |_| true);
    assert_eq!(event.text("reason"), "a new disk");
    assert!(event.number("by_pid") > 0.0);
    // Twice is once, and the first reason stays.
    let said = rig.verb("disable").out;
    assert!(
        said.starts_with("disabled already: a new disk, pid "),
        "{said}"
    );
    assert!(rig.verb("ecv").out.contains(": a new disk, pid "));
    assert!(get(v4(port), "/").is_ok());
    let old = rig.status().pids()[0];
    rig.replace(old);
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(state(&rig), (1, "DISABLED".into()));
    let said = rig.verb("status");
    assert!(said.out.contains(" disabled 2/2 ready "), "{said:?}");
    // The workers do; that nobody is to come is no fault of theirs.
    assert_eq!(rig.verb("health").out, "OK\n");
    assert_eq!(rig.verb("enable").out, "enabled\n");
    rig.wait("enabled", |e| e.text("reason") == "asked by a client");
    assert_eq!(state(&rig), (0, "AVAILABLE".into()));
    let json: JsonValue = rig.verb("status --json").out.parse().unwrap();
    let word = json["rotation"]["state"].get::<String>().unwrap();
    assert_eq!(word, "AVAILABLE");
    rig.end(&["died"]);
}

#[test]
fn with_fewer_ready_than_the_quorum_it_is_unhealthy_until_there_are_as_many() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --ready-quorum 2 -- ./threaded --graceful");
    let mut rig = Rig::start(words);
    rig.up();
    assert_eq!(rig.verb("resize 1").code, 0);
    let event = rig.wait("unhealthy", |_| true);
    assert_eq!((event.number("ready"), event.number("quorum")), (1.0, 2.0));
    let said = rig.verb("health");
    let why = "WARNING: 1 ready of 2 (--ready-quorum)";
    assert_eq!((said.code, said.out.trim()), (1, why));
    let said = rig.verb("health --json");
    assert_eq!(said.code, 1);
    let json: JsonValue = said.out.parse().unwrap();
    assert_eq!(json["health"].get::<String>().unwrap(), "WARNING");
    assert_eq!(state(&rig), (1, "WARNING".into()));
    assert_eq!(rig.verb("resize 2").code, 0);
    rig.wait("healthy", |_| true);
    assert_eq!(rig.verb("health").out, "OK\n");
    rig.end(&["unhealthy"]);
}

#[test]
fn a_signal_can_take_it_out_and_in_a_stop_it_is_not_available_while_it_serves_still() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --drain-delay 60s --on-signal USR1=disable --on-signal USR2=enable -- ./threaded --graceful"
    );
    let mut rig = Rig::start(words);
    rig.up();
    rig.signal(Signal::SIGUSR1);
    let event = rig.wait("disabled", |_| true);
    assert_eq!(event.text("reason"), "SIGUSR1 received");
    assert_eq!(state(&rig), (1, "DISABLED".into()));
    rig.signal(Signal::SIGUSR2);
    rig.wait("enabled", |_| true);
    rig.signal(Signal::SIGTERM);
    rig.wait("stop-delayed", |_| true);
    assert_eq!(state(&rig), (1, "WARNING".into()));
    assert!(get(v4(port), "/").is_ok());
    assert!(rig.verb("health").out.contains("the cluster stops"));
    rig.signal(Signal::SIGQUIT);
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn over_http_a_reason_can_be_given_and_it_is_one_line_wherever_it_is_shown() {
    let mut h = house(1, "");
    assert_eq!(
        h.opens("POST /disable?reason=new%20disk%0a%1b[2J", "")
            .status,
        204
    );
    let ready = h.asks("GET /ready");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("new disk??[2J"), "{ready:?}");
    assert_eq!(h.opens("POST /enable?reason=it%20is%20in", "").status, 204);
    let event = h.rig.wait("enabled", |_| true);
    assert_eq!(event.text("reason"), "it is in");
    assert_eq!(h.opens("POST /disable?reason=", "").status, 204);
    assert!(h.rig.verb("ecv").out.contains("asked by a client"));
    h.rig.end(&[]);
}

#[test]
fn a_delay_that_the_budget_cuts_is_said_at_the_start_and_a_stop_says_what_becomes_of_enable() {
    let port = free_port();
    let words =
        format!("-n 1 -p {port} --drain-delay 90s --stop-budget 60s -- ./threaded --graceful");
    let mut rig = Rig::start(words);
    let said = rig.wait("drain-delay-cut", |_| true).msg;
    assert!(
        said.starts_with("--drain-delay 1m30s will be cut to 19.8s"),
        "{said}"
    );
    rig.up();
    rig.signal(Signal::SIGTERM);
    rig.wait("stop-delayed", |_| true);
    let enabled = rig.verb("enable").out;
    assert_eq!(enabled, "enabled; the cluster stops all the same\n");
    rig.signal(Signal::SIGQUIT);
    rig.finish(1, &["hard-stop", "drain-delay-cut"]);
}

#[test]
fn a_quorum_that_cannot_be_is_refused() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --ready-quorum 3 -- ./threaded");
    let rig = Rig::start(words);
    rig.wait_line("--ready-quorum 3 is more than the number of workers, 2");
    rig.finish(64, &[]);
}
