//! Two clusters on two machines behind a load balancer, HAProxy or nginx as contrib/ has them configured: one is
//! taken out, exchanged or stopped and started anew, and put back, then the other. Under load no request fails.
//! `make test-servers`; what was seen is told with `--nocapture`.
//!
//! The machines are network namespaces, each with a cable to that of the balancer. All of it happens in a pid and a
//! mount namespace besides, with directories of its own in place of /run and /etc/nginx: when the first process
//! there has ended nothing can be left, whatever has happened.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::Rig;
use crate::load::{LOST, Load, Tally};
use crate::place::LOOK;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const CONTRIB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib");

/// Set where the machines are.
const INSIDE: &str = "E2E_MACHINES";

/// The machine of the balancer and two others. Its address on the cable to a is 10.9.1.1, on that to b 10.9.2.1.
const MACHINES: &str = "
    mount -t tmpfs none /run && mount -t tmpfs none /etc/nginx && mkdir /run/netns /etc/nginx/drain &&
    ip link set lo up &&
    cable() {
        ip netns add $1 && ip link add to-$1 type veth peer name eth0 netns $1 &&
        ip addr add 10.9.$2.1/24 dev to-$1 && ip link set to-$1 up &&
        ip -n $1 link set lo up && ip -n $1 addr add 10.9.$2.2/24 dev eth0 && ip -n $1 link set eth0 up
    } &&
    cable a 1 && cable b 2 && \"$@\"; exit $?";

/// Tells this story, which is the test of that name, where the machines are: by running these tests once more, with
/// nothing but that one.
fn on_machines(name: &str, story: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return story();
    }
    assert!(birth::root(), "this story takes root: run it as root");
    let mut cmd = Command::new("unshare");
    cmd.args(["-nmpf", "--kill-child", "--mount-proc", "sh", "-c"])
        .args([MACHINES, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .env("TMPDIR", "/run");
    let done = cmd.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    let well = done.status.success() && said.contains("1 passed");
    assert!(well, "on the machines:\n{said}");
    for line in said.lines().filter(|l| l.contains(" requests, ")) {
        println!("{line}");
    }
}

/// What is to be typed on each machine, as the file says it, but for the server.
fn line_of(file: &str) -> String {
    let text = std::fs::read_to_string(format!("{CONTRIB}/{file}")).unwrap();
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("#     "));
    let line = lines.find_map(|l| l.strip_prefix("minicluster -n "));
    let line = line.unwrap().strip_suffix("-- ./server").unwrap();
    format!("-n {line} -- ./threaded")
}

/// A cluster on its machine.
struct Cluster {
    machine: &'static str,
    line: String,
    rig: Rig,
}

impl Cluster {
    fn start(machine: &'static str, line: &str) -> Cluster {
        let mut rig = Rig::by(["ip", "netns", "exec", machine], line);
        // For each round it has to go through.
        rig.patient(Duration::from_secs(60));
        rig.up();
        Cluster {
            machine,
            line: line.into(),
            rig,
        }
    }

    /// How many requests its workers have had.
    fn requests(&self) -> usize {
        self.rig.tales("request").len()
    }

    fn type_in(&self, words: &str) {
        let said = self.rig.verb(words);
        assert_eq!(said.code, 0, "{words}: {said:?}");
    }

    /// As long as it is taken out nobody comes.
    fn has_had(&self, requests: usize) {
        assert_eq!(self.requests(), requests, "{} is taken out", self.machine);
    }

    /// Exchanged for another one, which is returned; taken out, it has had so many requests before.
    fn exchange(self, how: Exchange, had: Option<usize>) -> Cluster {
        match how {
            Exchange::Upgrade => {
                let before = self.rig.status().pids();
                self.type_in("upgrade ./threaded --keepalive");
                let after = self.rig.status().pids();
                assert!(after.iter().all(|p| !before.contains(p)), "{after:?}");
            }
            Exchange::Restart => self.type_in("stop"),
            Exchange::Reboot => self.rig.signal(Signal::SIGTERM),
        }
        if let Some(requests) = had {
            self.has_had(requests);
        }
        match how {
            Exchange::Upgrade => self,
            // Nothing of it is left.
            Exchange::Restart | Exchange::Reboot => {
                self.rig.finish(0, &[]);
                Cluster::start(self.machine, &self.line)
            }
        }
    }
}

/// How a cluster is exchanged for another one.
#[derive(Clone, Copy, PartialEq)]
enum Exchange {
    /// Its workers, by another program.
    Upgrade,
    /// All of it is stopped, and started anew: another version of minicluster, another kernel.
    Restart,
    /// The same, by who has told nobody.
    Reboot,
}

/// HAProxy or nginx, with the file that contrib/ has for it.
struct Balancer {
    process: Child,
    takes_out: fn(&Cluster),
    puts_back: fn(&Cluster),
}

impl Balancer {
    fn haproxy() -> Balancer {
        let file = format!("{CONTRIB}/haproxy.cfg");
        well(Command::new("haproxy").args(["-c", "-f", &file]));
        Balancer {
            process: started(Command::new("haproxy").args(["-db", "-f", &file])),
            takes_out: |c| {
                c.type_in("disable new release");
                // What was on its way there has come, and is answered.
                haproxy_says(c, |state, sessions| state == "NOLB" && sessions == "0");
            },
            puts_back: |c| {
                c.type_in("enable");
                haproxy_says(c, |state, _| state == "UP");
            },
        }
    }

    fn nginx() -> Balancer {
        // What Debian's own has around the file, but for where things are written.
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places = places.map(|p| format!("{p}_temp_path /run/{p}; "));
        let around = format!(
            "user www-data; worker_processes 2; pid /run/nginx.pid; error_log stderr;\n\
             events {{ worker_connections 768; }}\n\
             http {{ access_log off; {} include {CONTRIB}/nginx.conf; }}\n",
            places.concat()
        );
        std::fs::write("/run/nginx.conf", around).unwrap();
        let nginx = || {
            let mut cmd = Command::new("/usr/sbin/nginx");
            cmd.args(["-c", "/run/nginx.conf", "-e", "stderr"]);
            cmd
        };
        well(nginx().arg("-t"));
        Balancer {
            process: started(nginx().args(["-g", "daemon off;"])),
            takes_out: |c| std::fs::write(drain_file(c), "").unwrap(),
            puts_back: |c| {
                c.type_in("health");
                std::fs::remove_file(drain_file(c)).unwrap();
            },
        }
    }

    /// It has not ended by itself, and does now.
    fn end(mut self) {
        assert_eq!(self.process.try_wait().unwrap(), None);
        kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM).unwrap();
        self.process.wait().unwrap();
    }
}

fn drain_file(c: &Cluster) -> String {
    format!("/etc/nginx/drain/{}", c.machine)
}

fn well(cmd: &mut Command) {
    let done = cmd.output().unwrap();
    assert!(done.status.success(), "{cmd:?}: {done:?}");
}

fn started(cmd: &mut Command) -> Child {
    cmd.spawn().unwrap()
}

/// Waits until HAProxy's page says so of this machine: its state, and how many sessions it has.
fn haproxy_says(c: &Cluster, so: impl Fn(&str, &str) -> bool) {
    let head = format!("app,{},", c.machine);
    c.rig.until("HAProxy has seen it", || {
        let page = get(v4(8404), "/;csv").unwrap().body;
        let row = page.lines().find(|l| l.starts_with(&head)).unwrap();
        let columns: Vec<&str> = row.split(',').collect();
        so(columns[17], columns[4])
    });
}

/// All kinds of clients at once: with a connection for each request and kept ones, with what may be repeated and
/// what may not, and some whose answer is under way at any time.
fn clients() -> Vec<Load> {
    let kinds = [
        "pause=5",
        "pause=5 method=POST",
        "pause=5 mode=keepalive",
        "pause=5 mode=keepalive method=POST",
        "mode=keepalive path=/slow?ms=300",
    ];
    let load = |kind| Load::going(&format!("80 clients=4 {kind}"));
    kinds.map(load).into()
}

/// Each of them has had some answers since: what was on its way has arrived.
fn have_asked(clients: &mut [Load]) {
    for load in clients {
        let before = load.so_far().of("requests");
        let some = |t: &Tally| t.of("requests") >= before + 8;
        load.until("some more have their answer", some);
    }
}

/// One after the other is exchanged, in each of these ways, under load.
fn rolls(name: &str, balancer: fn() -> Balancer, line: &str, ways: &[(Exchange, &str)]) {
    let mut clusters = ["a", "b"].map(|machine| Cluster::start(machine, line));
    let balancer = balancer();
    let give_up = Instant::now() + Duration::from_secs(30);
    while get(v4(80), "/").map_or(0, |a| a.status) != 200 {
        assert!(Instant::now() < give_up, "{name} does not serve");
        std::thread::sleep(LOOK);
    }
    for (how, words) in ways {
        let mut load = clients();
        let began = Instant::now();
        clusters = clusters.map(|c| {
            let taken_out = *how != Exchange::Reboot;
            if taken_out {
                (balancer.takes_out)(&c);
                have_asked(&mut load);
            }
            let had = taken_out.then(|| c.requests());
            let c = c.exchange(*how, had);
            if taken_out {
                (balancer.puts_back)(&c);
            }
            let before = c.requests();
            c.rig.until("it serves again", || c.requests() > before);
            c
        });
        let took = began.elapsed();
        tell(&format!("{name}, {words}"), load, took);
    }
    balancer.end();
    for c in clusters {
        c.rig.end(&[]);
    }
}

/// What the clients have counted; no request has failed, nor had any to be made again.
fn tell(what: &str, load: Vec<Load>, took: Duration) {
    let tallies: Vec<Tally> = load.into_iter().map(|l| l.finish().1).collect();
    let sum = |names: &[&str]| tallies.iter().map(|t| t.sum(names)).sum::<u64>();
    let requests = sum(&["requests"]);
    let failures = sum(&LOST) + sum(&["reused"]);
    let longest = tallies.iter().map(|t| t.of("max_us")).max().unwrap();
    println!(
        "{what}: {requests} requests, {failures} failures, the longest took {} ms; {:.1} s",
        longest / 1000,
        took.as_secs_f64()
    );
    assert_eq!(failures, 0, "{tallies:?}");
}

#[test]
#[ignore = "needs HAProxy: make test-servers"]
fn heavy_haproxy_rolls_over_two_clusters_and_no_request_fails() {
    on_machines(
        "rolling::heavy_haproxy_rolls_over_two_clusters_and_no_request_fails",
        || {
            let ways = [
                (Exchange::Upgrade, "disable, upgrade, enable"),
                (Exchange::Restart, "disable, stop, start"),
                (Exchange::Reboot, "TERM, start"),
            ];
            rolls("HAProxy", Balancer::haproxy, &line_of("haproxy.cfg"), &ways);
        },
    );
}

#[test]
#[ignore = "needs nginx: make test-servers"]
fn heavy_nginx_rolls_over_two_clusters_and_no_request_fails() {
    on_machines(
        "rolling::heavy_nginx_rolls_over_two_clusters_and_no_request_fails",
        || {
            let ways = [
                (Exchange::Upgrade, "drain file, upgrade"),
                (Exchange::Restart, "drain file, stop, start"),
            ];
            rolls("nginx", Balancer::nginx, &line_of("nginx.conf"), &ways);
        },
    );
}
