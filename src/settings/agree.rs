//! What has to agree although each value alone is fine.

use super::{Control, Listen, LogTo, MAX_PORTS, MAX_WATCHED, Orphans, Settings};
use crate::core::words::human;
use crate::core::{ReadyRule, share_clients};
use std::net::SocketAddr;
use std::time::Duration;

impl Settings {
    /// Does all of it?
    pub fn check(&self) -> Result<(), String> {
        if self.ports.is_empty() && !self.hosts.is_empty() {
            return Err("-H says where -p listens, but there is no -p".into());
        }
        let n = self.ports.len() * self.hosts.len().max(1) + self.listen.len();
        if n > MAX_PORTS {
            return Err(format!("{n} addresses to listen on (limit {MAX_PORTS})"));
        }
        for (n, one) in self.listen.iter().enumerate() {
            let same = |l: &Listen| l.to_string() == one.to_string();
            if self.listen.iter().take(n).any(same) {
                return Err(format!("{one} is given twice"));
            }
        }
        let all = self.tcp_addresses();
        for (n, a) in all.iter().enumerate() {
            for b in all.iter().skip(n + 1).filter(|_| a.port() != 0) {
                match (a == b, share_clients(*a, *b)) {
                    (true, _) => return Err(format!("{a} is given twice")),
                    (_, true) => return Err(format!("{a} and {b}: one of them covers the other")),
                    (false, false) => {}
                }
            }
        }
        self.check_doors(&all)?;
        if self.watch.len() > MAX_WATCHED {
            let n = self.watch.len();
            return Err(format!("{n} paths to watch (limit {MAX_WATCHED})"));
        }
        if self.daemon && self.log_file == Some(LogTo::Stderr) {
            return Err(
                "-d lets go of stderr, so the log cannot go there: --log-file FILE, or syslog"
                    .into(),
            );
        }
        self.check_logs()?;
        if self.daemon && self.console {
            return Err(
                "-d lets go of the terminal, so there is no --console: type minicluster console"
                    .into(),
            );
        }
        self.check_orphans()?;
        self.check_tcp()?;
        self.check_recycling()?;
        self.workers.map_or(Ok(()), |n| self.check_workers(n))?;
        self.check_times()
    }

    /// Who writes to a pipe that nobody reads any more ends of that.
    fn check_orphans(&self) -> Result<(), String> {
        let syslog = self.log_file == Some(LogTo::Syslog) || self.daemon && self.log_file.is_none();
        let by = match (self.orphans, &self.log_dir) {
            (Orphans::Stop, _) => return Ok(()),
            (Orphans::Keep, Some(_)) => "--log-dir",
            (Orphans::Keep, None) if syslog => "a log that is syslog's",
            (Orphans::Keep, None) => return Ok(()),
        };
        Err(format!(
            "--orphans keep does not go with {by}: workers write to the master, and would end of that (SIGPIPE) when it has died; --log-file FILE keeps what they write without it"
        ))
    }

    /// What the files of --log-dir are like is said of none. (A file of options may say how long they are for
    /// whoever has some.)
    fn check_logs(&self) -> Result<(), String> {
        if self.log_dir.is_some() {
            return Ok(());
        }
        let mut typed = self.sources.typed.iter().map(|(long, _)| *long);
        let one = typed.find(|long| ["log-max-size", "log-keep"].contains(long));
        match one.or(self.log_merge.then_some("log-merge")) {
            Some(long) => Err(format!(
                "--{long} says how the files of --log-dir are, but there is none"
            )),
            None => Ok(()),
        }
    }

    /// Can there be a port of TCP? Without any address they may be learnt.
    fn is_unix_alone(&self) -> bool {
        let unix = |l: &Listen| matches!(l, Listen::Open(addr, _) if addr.tcp().is_none());
        self.ports.is_empty() && !self.listen.is_empty() && self.listen.iter().all(unix)
    }

    /// What the kernel tells of connections of TCP alone.
    fn check_tcp(&self) -> Result<(), String> {
        if !self.is_unix_alone() {
            return Ok(());
        }
        let own_page = self.ecv_monitor.as_ref().is_some_and(|p| p.at.is_none());
        for (asked, option, why) in [
            (
                self.idle_timeout.is_some(),
                "--idle-timeout",
                "the kernel tells no idle times of unix sockets",
            ),
            (
                self.count_connections,
                "--count-connections",
                "the kernel does not tell of the ends of unix sockets",
            ),
            (
                own_page,
                "--ecv-monitor with a path alone",
                "it asks the first port that the cluster serves; http://ADDRESS:PORT/PATH asks elsewhere",
            ),
        ] {
            if asked {
                return Err(format!("{option} needs a port of TCP: {why}"));
            }
        }
        Ok(())
    }

    /// Those over TCP are nobody else's, and one that lets verbs in has a key.
    fn check_doors(&self, served: &[SocketAddr]) -> Result<(), String> {
        let port = match self.control {
            Control::Port(at) => Some(("-C", at)),
            Control::Named | Control::Path(_) | Control::Off => None,
        };
        if port.is_some() && self.key_file.is_none() {
            return Err(
                "-C tcp:// needs --key-file: whoever reaches the port could stop the cluster"
                    .into(),
            );
        }
        let monitor = self.monitor.map(|at| ("--monitor", at));
        for (option, at) in [monitor, port].into_iter().flatten() {
            if let Some(app) = served.iter().find(|a| a.port() == at.port()) {
                return Err(format!(
                    "{option} {at} has the port of {app}, which the workers serve: they cannot be the same"
                ));
            }
        }
        let doors: Vec<_> = [monitor, port].into_iter().flatten().collect();
        self.check_ecv(&doors)?;
        match (monitor, port) {
            (Some((_, a)), Some((_, b))) if a.port() == b.port() => {
                Err(format!("--monitor {a} and -C tcp://{b} have the same port"))
            }
            (_, _) => Ok(()),
        }
    }

    /// Can there be that many workers at all?
    pub fn check_workers(&self, workers: u16) -> Result<(), String> {
        if self.ready_quorum > workers {
            return Err(format!(
                "--ready-quorum {} is more than the number of workers, {workers}: the cluster could never be in rotation; {workers} or fewer",
                self.ready_quorum
            ));
        }
        match self.max_forks {
            0 => Ok(()),
            n if n >= u64::from(workers) => Ok(()),
            n => Err(format!(
                "--max-forks {n} is less than the number of workers, {workers}: there could not be as many; {workers} or more, or 0 for any number"
            )),
        }
    }

    /// The same of durations alone: each of these is a part of another.
    fn check_times(&self) -> Result<(), String> {
        if self.backoff > Duration::ZERO && self.respawn > self.backoff {
            return Err(format!(
                "--respawn {} is longer than --backoff {}, its upper limit",
                human(self.respawn),
                human(self.backoff)
            ));
        }
        if let Some(quiet) = self.drain_quiet.filter(|q| *q > self.drain_timeout) {
            return Err(format!(
                "--drain-quiet {} is longer than --drain-timeout {}, when everything is closed, quiet or not",
                human(quiet),
                human(self.drain_timeout)
            ));
        }
        if self.ready == ReadyRule::Answers && !self.balance().spreads() {
            return Err("--ready tcp and http:/PATH ask one worker alone, and with --balance shared any could answer: --balance hash (that is the default then), ip or cpu".to_string());
        }
        if let ReadyRule::Alive(d) = self.ready {
            for (name, limit) in [
                ("--ready-timeout", self.ready_timeout),
                ("--start-timeout", self.start_timeout),
            ] {
                if !limit.is_zero() && d >= limit {
                    return Err(format!(
                        "no worker could be alive for {} (--ready): {name} is {}; raise that, or 0 for never",
                        human(d),
                        human(limit)
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_do_not_agree_are_refused() {
        let base = Settings::default();
        assert!(base.check().is_ok());
        let mut s = base.clone();
        s.hosts = vec!["::".parse().unwrap()];
        assert!(s.check().unwrap_err().contains("no -p"));
        let mut s = base.clone();
        s.ports = vec![80, 80];
        assert!(s.check().unwrap_err().contains("twice"));
        let mut s = base.clone();
        s.ports = vec![80];
        s.hosts = vec!["::".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert!(s.check().unwrap_err().contains("covers"));
        s.hosts[0] = "::1".parse().unwrap();
        assert!(s.check().is_ok());
        let mut s = base.clone();
        s.log_merge = true;
        assert!(s.check().unwrap_err().contains("--log-dir"));
        s.log_dir = Some("logs".into());
        assert!(s.check().is_ok());
        for (long, value) in [("log-max-size", "64K"), ("log-keep", "5")] {
            let mut s = base.clone();
            s.sources.filed = vec![(long, value.into())];
            assert!(s.check().is_ok());
            s.sources.typed = vec![(long, value.into())];
            let e = s.check().unwrap_err();
            assert!(e.starts_with(&format!("--{long} says how ")), "{e}");
            s.log_dir = Some("logs".into());
            assert!(s.check().is_ok());
        }
        let mut s = base.clone();
        (s.workers, s.max_forks) = (Some(4), 4);
        assert!(s.check().is_ok());
        s.max_forks = 3;
        let e = s.check().unwrap_err();
        assert!(
            e.starts_with("--max-forks 3 is less than the number of workers, 4"),
            "{e}"
        );
        // That of the CPUs is known later.
        s.workers = None;
        assert!(s.check().is_ok() && s.check_workers(3).is_ok() && s.check_workers(4).is_err());
        let mut s = base.clone();
        s.ready_quorum = 3;
        assert!(s.check().is_ok() && s.check_workers(3).is_ok());
        let e = s.check_workers(2).unwrap_err();
        assert!(e.contains("--ready-quorum 3 is more than the number of workers, 2"));
        let mut s = base;
        s.respawn = Duration::from_secs(60);
        assert!(s.check().unwrap_err().contains("--backoff"));
        let mut s = Settings {
            ready: ReadyRule::Alive(Duration::from_secs(60)),
            ..Settings::default()
        };
        assert!(s.check().unwrap_err().contains("--ready-timeout is 1m"));
        s.ready_timeout = Duration::ZERO;
        assert!(s.check().unwrap_err().contains("--start-timeout is 1m"));
        s.start_timeout = Duration::from_secs(61);
        assert!(s.check().is_ok());
    }

    #[test]
    fn what_is_told_of_tcp_alone_is_not_asked_of_unix_sockets() {
        use crate::options::config;
        let of = |more: &str| {
            let text = format!("listen unix:/tmp/a\n{more}\n");
            let mut s = Settings::default();
            for e in config::parse("f", text.as_bytes()).0 {
                (e.opt.apply)(&mut s, &e.value).unwrap();
            }
            s.check()
        };
        for asks in ["idle-timeout 2s", "count-connections", "ecv-monitor /up"] {
            let e = of(asks).unwrap_err();
            assert!(e.contains("needs a port of TCP: "), "{e}");
            assert_eq!(of(&format!("{asks}\nport 80")), Ok(()));
        }
        for fine in ["idle-timeout off", "ecv-monitor http://127.0.0.1:1/"] {
            assert_eq!(of(fine), Ok(()));
        }
    }

    #[test]
    fn quiet_is_half_of_the_drain_timeout_and_never_longer() {
        let of = |timeout: u64, quiet: Option<u64>| Settings {
            drain_timeout: Duration::from_secs(timeout),
            drain_quiet: quiet.map(Duration::from_secs),
            ..Settings::default()
        };
        let secs = Duration::from_secs;
        for (timeout, quiet, want) in [
            (10, None, secs(5)),
            (1, None, Duration::from_millis(500)),
            (0, None, secs(0)),
            (10, Some(10), secs(10)),
            (10, Some(0), secs(0)),
        ] {
            let s = of(timeout, quiet);
            assert_eq!(s.check(), Ok(()), "{timeout} {quiet:?}");
            assert_eq!(s.policy(4, 1, Vec::new()).drain_quiet, want);
        }
        let e = of(10, Some(11)).check().unwrap_err();
        assert!(
            e.contains("--drain-quiet 11s is longer than --drain-timeout 10s"),
            "{e}"
        );
    }
}
