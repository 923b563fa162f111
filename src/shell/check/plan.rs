//! What a start would do, line by line, for whoever reads it before.

use super::Found;
use crate::core::words::{count, human};
use crate::core::{Addr, Policy, ReadyRule};
use crate::settings::{Control, LogTo, Settings};
use crate::shell::ahead;
use crate::shell::names::Prospect;
use crate::sys::{cpus, process};
use crate::wire::check::{Mechanism, Report};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How long those who stop things wait, if they are not told otherwise, and where that is said.
const PATIENCE: [(&str, &str, Duration); 2] = [
    (
        "KUBERNETES_SERVICE_HOST",
        "Kubernetes: terminationGracePeriodSeconds",
        Duration::from_secs(30),
    ),
    (
        "INVOCATION_ID",
        "systemd: TimeoutStopSec=",
        Duration::from_secs(90),
    ),
];
/// Of docker stop, where we are PID 1.
const DOCKER: (&str, Duration) = ("docker stop -t", Duration::from_secs(10));

/// Of a cluster.
pub(super) fn cluster(s: &Settings, found: &Found, prospect: &Prospect, r: &mut Report) {
    program(s, found, r);
    let n = found.workers;
    let why = match (s.workers, ahead::web_concurrency()) {
        (None, _) => format!(
            "one for each of the {} that may be used",
            count(cpus::usable(), "CPU")
        ),
        (Some(n), Ok(Some(web))) if n == web && !typed(s, "workers") => "WEB_CONCURRENCY".into(),
        (Some(_), _) => "-n".into(),
    };
    let most = found.room.as_ref().map_or(n, |room| room.most());
    r.plan.push((
        "workers",
        format!("{n} ({why}); open files have room for {most}"),
    ));
    r.plan.extend(orphans(found).map(|how| ("orphans", how)));
    sockets(s, found, r);
    let runs = match (&prospect.runs, s.replace) {
        (Some(pid), true) => {
            format!("; it runs, pid {pid}: --replace exchanges its workers for these")
        }
        (Some(pid), false) => format!("; {} runs already, pid {pid}", base(s)),
        (None, _) => String::new(),
    };
    r.plan.push(("name", format!("{}{runs}", prospect.name)));
    let control = match (&s.control, &prospect.socket) {
        (Control::Off, _) => "none (-C off)".into(),
        (Control::Port(at), _) => format!("tcp://{at}"),
        (_, Some(path)) => path.display().to_string(),
        (_, None) => "none: there is no runtime directory".into(),
    };
    r.plan.push(("control", control));
    let within = match s.ready_timeout.is_zero() {
        true => String::new(),
        false => format!(" within {}", human(s.ready_timeout)),
    };
    r.plan
        .push(("ready", format!("{}{within}", ready(s.ready))));
    stop(s, r);
    let log = match (&s.log_file, s.daemon) {
        (Some(LogTo::File(path)), _) => path.display().to_string(),
        (Some(LogTo::Syslog), _) | (None, true) => "syslog".into(),
        (Some(LogTo::Stderr) | None, _) => "stderr".into(),
    };
    r.plan.push(("log", log));
    for (what, path) in [
        ("pid file", &s.pid_file),
        ("pid files", &s.pid_dir),
        ("output", &s.log_dir),
    ] {
        let path = path.as_ref().map(|p| (what, p.display().to_string()));
        r.plan.extend(path);
    }
    if let Some(at) = s.monitor {
        r.plan.push(("monitor", format!("http://{at}")));
    }
}

/// What becomes of workers that another master has left.
fn orphans(found: &Found) -> Option<String> {
    let o = &found.orphans;
    let who = format!("{} of the last master", count(o.workers, "worker"));
    (o.workers > 0).then(|| match &o.why_not {
        None => format!("{who}, pid {}, would be adopted", o.master),
        Some(why) => format!("{who}, pid {}, would be stopped first: {why}", o.master),
    })
}

/// Of --single.
pub(super) fn single(s: &Settings, found: &Found, r: &mut Report) {
    program(s, found, r);
    r.plan
        .push(("workers", "none: --single executes it in our place".into()));
    sockets(s, found, r);
}

fn typed(s: &Settings, long: &str) -> bool {
    let said = s.sources.typed.iter().chain(&s.sources.filed);
    said.into_iter().any(|(l, _)| *l == long)
}

fn base(s: &Settings) -> String {
    s.name.clone().unwrap_or_else(|| s.implied_name())
}

fn program(s: &Settings, found: &Found, r: &mut Report) {
    let words: Vec<_> = s.command.iter().map(|w| w.to_string_lossy()).collect();
    let at = found.program.as_ref().map(|p| {
        let path = Path::new(std::ffi::OsStr::from_bytes(p.as_bytes()));
        format!(" ({})", path.display())
    });
    let line = format!("{}{}", words.join(" "), at.unwrap_or_default());
    r.plan.push(("command", line));
    // (Of one that is not there the trials have been made elsewhere.)
    let there = !r.state(Mechanism::Directory).is_refused();
    if let Some(dir) = found.cwd.as_ref().filter(|_| there) {
        r.plan.push(("directory", dir.display().to_string()));
    }
    let ids = found.rights.as_ref().and_then(|r| r.ids.as_ref());
    let unknown =
        |(_, why): &&(u8, String)| why.starts_with("--user") || why.starts_with("--group");
    let asked = s.user.as_ref().or(s.group.as_ref());
    let asked = asked.filter(|_| r.problems.iter().any(|p| unknown(&p)));
    let user = match ids {
        None if asked.is_some() => {
            let whom = asked.map_or(String::new(), ToString::to_string);
            format!("{whom}, which cannot be had: see the problems")
        }
        Some(ids) => {
            let uid = ids.uid.unwrap_or_else(process::euid);
            let gid = ids.gid.unwrap_or_else(process::egid);
            format!("uid {uid}, gid {gid}")
        }
        None => format!(
            "as we are: uid {}, gid {}",
            process::euid(),
            process::egid()
        ),
    };
    r.plan.push(("user", user));
}

fn sockets(s: &Settings, found: &Found, r: &mut Report) {
    let one = |g: &crate::core::Given| {
        let passed = g
            .passed
            .as_ref()
            .map(|(fd, _)| format!(", passed as fd {fd}"));
        let privileged = match g.addr.port() {
            Some(port) if port < r.around.ports_from.unwrap_or(1024) => ", privileged",
            Some(_) | None => "",
        };
        let shown = match &g.addr {
            Addr::Other(what) => what.clone(),
            Addr::Tcp(_) | Addr::Unix(_) => g.addr.to_string(),
        };
        format!("{shown}{}{privileged}", passed.unwrap_or_default())
    };
    let all: Vec<String> = found.given.iter().map(one).collect();
    let all = match (all.is_empty(), s.single) {
        (true, false) => "none given: what workers bind is learnt".to_string(),
        (true, true) => "none".to_string(),
        (false, _) => all.join("; "),
    };
    r.plan.push(("ports", all));
}

fn ready(rule: ReadyRule) -> &'static str {
    match rule {
        ReadyRule::Answers => "when it answers",
        ReadyRule::Auto => "when it listens, or, if no port is known, has lived for 1s",
        ReadyRule::Started => "when it is started",
        ReadyRule::Listening => "when it listens",
        ReadyRule::Said => "when it says so",
        ReadyRule::Alive(_) => "when it has lived for the time of --ready",
    }
}

/// How long a stop may take, and whether whoever stops us gives it that long.
fn stop(s: &Settings, r: &mut Report) {
    let policy = s.policy(1, 0, Vec::new());
    let most = policy.longest_stop();
    let uncut = Policy {
        stop_budget: None,
        ..policy.clone()
    };
    let whole = uncut.longest_stop();
    let cut = match most < whole {
        true => format!(" (--stop-budget), of {}", human(whole)),
        false => String::new(),
    };
    let draining = policy.drain_time();
    let said = [s.drain_delay, draining, s.stop_timeout];
    let rest = said.into_iter().fold(whole, Duration::saturating_sub);
    r.plan.push((
        "stop",
        format!(
            "at most {}{cut}: --drain-delay {}, draining {}, --stop-timeout {}, {} for the rest",
            human(most),
            human(s.drain_delay),
            human(draining),
            human(s.stop_timeout),
            human(rest)
        ),
    ));
    let there = |(var, who, usual): &(&str, &'static str, Duration)| {
        std::env::var_os(var).is_some().then_some((*who, *usual))
    };
    let docker = (process::id() == 1).then_some(DOCKER);
    let stops = PATIENCE.iter().find_map(there).or(docker);
    r.warnings
        .extend(stops.and_then(|(who, usual)| too_short(most, who, usual)));
}

/// What is to be said where the usual time is too short.
fn too_short(most: Duration, who: &str, usual: Duration) -> Option<String> {
    (most > usual).then(|| {
        format!(
            "a stop may take {}, and who stops us kills after {}, if not told otherwise: {who} {}, or --stop-budget {}",
            human(most),
            human(usual),
            most.as_secs() + 1,
            human(usual.saturating_sub(Duration::from_secs(1)))
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_us_too_early_is_told_by_how_much() {
        let s = |n| Duration::from_secs(n);
        assert_eq!(too_short(s(20), "systemd: TimeoutStopSec=", s(90)), None);
        let said = too_short(s(136), "systemd: TimeoutStopSec=", s(90)).unwrap();
        for part in [
            "2m16s",
            "1m30s",
            "TimeoutStopSec= 137",
            "--stop-budget 1m29s",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
