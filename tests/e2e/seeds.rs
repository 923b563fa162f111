//! Those who come from the clusters of Node: what they knew, as their READMEs show it, typed and asked here.
//! Each begins with the file of options that stands for its defaults (contrib/).

use crate::client::{all_answer, get, v4};
use crate::console::Typist;
use crate::harness::{Rig, sigkill};
use crate::house::{KEY, Reply, connect, exchange, key_file, request};
use crate::place::{Said, free_port, run};
use minicluster::options::config;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tinyjson::JsonValue;

fn file(of: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib")).join(format!("{of}.conf"))
}

/// A cluster with the defaults of that one, on ports of this run.
struct Guest {
    rig: Rig,
    port: u16,
    monitor: SocketAddr,
}

impl Guest {
    /// With the key, if it has a monitor.
    fn of(seed: &str, more: &str, command: &str) -> Guest {
        let (port, monitor) = (free_port(), free_port());
        let config = file(seed).display().to_string();
        let door = match fs::read_to_string(file(seed))
            .unwrap()
            .contains("\nmonitor ")
        {
            true => format!("--monitor {monitor} --key-file key"),
            false => String::new(),
        };
        let words = format!("-n 2 -p {port} {door} --config {config} {more} -- {command}");
        let mut rig = Rig::dressed(words, |_, dir| {
            key_file(dir, 0o600, KEY);
        });
        rig.wait("all-ready", |_| true);
        let monitor = v4(monitor);
        Guest { rig, port, monitor }
    }

    /// A verb where it is found by its name.
    fn types(&self, words: &str) -> Said {
        let mut cmd = self.rig.command();
        cmd.args(words.split_whitespace());
        run(cmd, self.rig.deadline())
    }

    /// Over HTTP, with the key as cluster-service has it.
    fn asks(&self, line: &str, body: &str) -> Reply {
        let mark = if line.contains('?') { '&' } else { '?' };
        let line = format!("{line}{mark}accessKey={KEY}");
        exchange(connect(self.monitor), &request(&line, "", body))
    }

    /// On the control socket, without.
    fn inside(&self, line: &str, body: &str) -> Reply {
        let stream = UnixStream::connect(self.rig.socket()).unwrap();
        stream.set_read_timeout(crate::house::PATIENCE).unwrap();
        exchange(stream, &request(line, "", body))
    }
}

fn text(v: &JsonValue) -> String {
    v.get::<String>().unwrap().clone()
}

fn list(v: &JsonValue) -> Vec<JsonValue> {
    v.get::<Vec<_>>().unwrap().clone()
}

#[test]
fn the_defaults_of_each_are_a_file_of_options() {
    for seed in [
        "cluster2",
        "proteus-cluster",
        "cluster-master",
        "cluster-service",
        "recluster",
    ] {
        let g = Guest::of(seed, "", "./threaded");
        all_answer(&g.rig, v4(g.port), "/", 2);
        // What holds is what stands there, but for what this test has to choose.
        let (entries, _) = config::parse(seed, &fs::read(file(seed)).unwrap());
        let typed = ["workers", "port", "monitor", "key-file", "canary"];
        let there = entries.iter().map(|e| e.opt.long.to_string());
        let there: BTreeSet<String> = there.filter(|n| !typed.contains(&n.as_str())).collect();
        let said: JsonValue = g.types("options --json").out.parse().unwrap();
        let all = list(&said["options"]);
        let filed = all.iter().filter(|o| text(&o["from"]) == "config");
        let filed: BTreeSet<String> = filed.map(|o| text(&o["option"])).collect();
        assert_eq!(filed, there, "{seed}");
        assert!(filed.len() > 3, "{seed}: {filed:?}");
        // Whoever was killed is replaced, and all of it stops when it is told to.
        let out = g.types("pids").out;
        let pid = out.split_whitespace().nth(1).unwrap().parse().unwrap();
        let mut g = g;
        g.rig.replace(pid);
        g.rig.signal(Signal::SIGTERM);
        g.rig.finish(0, &["died"]);
    }
}
