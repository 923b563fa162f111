//! What all kinds of files are made from: the words that start the cluster there, what had to be left
//! out or changed, and how long things take.

use super::quote::comment;
use super::{Facts, Kind};
use crate::core::{Drain, Policy};
use crate::options::{self, Opt, Rivals};
use crate::settings::{Control, Listen, Orphans, Said, Settings};
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

/// Where images have us, and what is served.
pub const BINARY: &str = "/usr/local/bin/minicluster";
pub const APP: &str = "/app";
/// Where in a pod files are written that were to be beside what is served: a directory over that would hide it.
const WRITTEN: &str = "/var/lib/minicluster";
/// Where variables go that are not to be seen.
const ETC: &str = "/etc/minicluster";
/// In a pod, unless it was said: until all have heard that no client is to come any more.
const POD_DELAY: &str = "5s";
/// A port for probes, if none was said.
const POD_MONITOR: u16 = 9099;

/// All of it.
pub struct Plan {
    pub kind: Kind,
    pub name: String,
    pub binary: String,
    /// Where it is started.
    pub here: String,
    /// Options, each with its value.
    pub options: Vec<Vec<String>>,
    /// COMMAND.
    pub command: Vec<String>,
    /// Sentences about what was left out or changed.
    pub notes: Vec<String>,
    /// Names of variables whose values are not told, and the file that is to have them.
    pub env: Vec<String>,
    pub env_file: String,
    /// As they are there.
    pub settings: Settings,
    pub policy: Policy,
    /// Directories in which we write.
    pub written: Vec<String>,
}

impl Plan {
    /// Makes it.
    pub fn of(kind: Kind, settings: &Settings, facts: &Facts) -> Result<Plan, String> {
        let name = match &settings.name {
            Some(name) => name.clone(),
            None => settings.implied_name(),
        };
        let contained = kind.contained();
        let here = match contained {
            true => APP.to_string(),
            false => facts.here.clone(),
        };
        let mut plan = Plan {
            kind,
            env_file: format!("{ETC}/{name}.env"),
            name,
            binary: match contained {
                true => BINARY.into(),
                false => facts.binary.clone(),
            },
            here,
            options: Vec::new(),
            command: Vec::new(),
            notes: Vec::new(),
            env: Vec::new(),
            settings: settings.clone(),
            policy: settings.policy(1, 0, Vec::new()),
            written: Vec::new(),
        };
        plan.take_options(settings)?;
        plan.take_command(settings, facts)?;
        plan.fit()?;
        plan.policy = plan.settings.policy(1, 0, Vec::new());
        plan.budget();
        plan.written = plan.directories();
        // What was left out may have been what the rest needs.
        plan.settings.check()?;
        for word in plan.options.iter().flatten().chain(&plan.command) {
            if word.contains('\0') {
                return Err("a word holds a NUL".into());
            }
        }
        if [&plan.here, &plan.binary]
            .iter()
            .any(|p| p.contains(char::is_control))
        {
            return Err(
                "the working directory, or where we are, has a name that no such file can hold"
                    .into(),
            );
        }
        Ok(plan)
    }

    /// What was left out or changed, as comments.
    pub fn notes_text(&self) -> String {
        let line = |note: &String| format!("# {}\n", comment(note));
        self.notes.iter().map(line).collect()
    }

    /// Where values of --env are to be, as a comment.
    pub fn env_text(&self) -> String {
        if self.env.is_empty() {
            return String::new();
        }
        let name = |n: &String| format!("{}=..", comment(n));
        let names: Vec<String> = self.env.iter().map(name).collect();
        format!(
            "# Values of --env are not told here, where all can read them. Make {} (root's,\n# mode 0600), a line each: {}\n",
            self.env_file,
            names.join(" ")
        )
    }

    /// Adds an option.
    pub fn add(&mut self, long: &str, value: &str) {
        let opt = options::all().find(|o| o.long == long);
        let short = opt.map_or("", |o| o.short);
        let words = match (opt.is_some_and(|o| o.arg.is_empty()), short) {
            (true, "") => vec![format!("--{long}")],
            (true, short) => vec![format!("-{short}")],
            // It would look like an option.
            (false, _) if value.is_empty() || value.starts_with('-') => {
                vec![format!("--{long}={value}")]
            }
            (false, "") => vec![format!("--{long}"), value.into()],
            (false, short) => vec![format!("-{short}"), value.into()],
        };
        self.options.push(words);
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// What was said, by whom it counts.
    fn take_options(&mut self, settings: &Settings) -> Result<(), String> {
        let from = &settings.sources;
        let said = match self.kind.contained() {
            true => merged(&from.filed, &from.typed),
            false => from.typed.clone(),
        };
        for (long, value) in &said {
            if let Some(value) = self.there(long, value)? {
                self.add(long, &value);
            }
        }
        if !self.env.is_empty() && !self.kind.contained() {
            let file = self.env_file.clone();
            self.add("env-file", &file);
        }
        if self.kind.contained() && settings.clear_env && !self.env.is_empty() {
            return Err("--clear-env keeps the variables of the container from the workers, and values of --env are secrets that do not belong into an image: --env-file FILE, or no --clear-env".into());
        }
        Ok(())
    }

    /// The value of an option there; `None`: it is left out.
    fn there(&mut self, long: &str, value: &str) -> Result<Option<String>, String> {
        let contained = self.kind.contained();
        match long {
            "print-unit" => return Ok(None),
            "config" if contained => {
                self.note(format!("--config {value}: what it says is typed below; an image does not change, so there is nothing to be read again."));
                return Ok(None);
            }
            "env" => {
                let name = value.split('=').next().unwrap_or_default();
                self.env.push(name.to_string());
                return Ok(None);
            }
            "daemon" => {
                match self.kind {
                    // It is added there.
                    Kind::Init => {}
                    Kind::Systemd => self.note(
                        "-d is left out: systemd waits for the process that it has started itself.",
                    ),
                    Kind::Containerfile | Kind::K8s => {
                        self.note("-d is left out: a container ends with its first process.")
                    }
                }
                return Ok(None);
            }
            "console" => {
                self.note("--console is left out: there is nobody at a terminal; type minicluster console.");
                return Ok(None);
            }
            "replace" => {
                self.note(
                    "--replace is left out: who starts it here makes sure that there is one.",
                );
                return Ok(None);
            }
            "watch" if contained => {
                self.note(format!(
                    "--watch {value} is left out: an image does not change."
                ));
                return Ok(None);
            }
            "orphans" if contained && value == "keep" => {
                self.note("--orphans keep is left out: a container ends with its first process, and nobody is left to adopt.");
                self.settings.orphans = Orphans::Stop;
                return Ok(None);
            }
            "cgroup" if contained && value == "auto" => {
                self.note("--cgroup auto takes a control group that the container may write: without one (as a rule) it is warned at each start, and workers have none of their own.");
            }
            "pid-file" if self.kind == Kind::Init => return Ok(None),
            "control" if self.kind == Kind::K8s && value.starts_with("tcp://") => {
                self.note(format!("-C {value} is left out, since it needs a key, as --key-file has it: the control socket is where verbs find it."));
                self.settings.control = Control::Named;
                return Ok(None);
            }
            "key-file" if self.kind == Kind::K8s => {
                self.note("--key-file is left out: a Secret is a file of root's, or of a group, and a key that a group can read is none. kubectl exec POD -- minicluster VERB needs no key.");
                self.settings.key_file = None;
                return Ok(None);
            }
            "user" | "group" if contained && value.parse::<u32>().is_err() => {
                self.note(format!("--{long} {value}: the image has to know that name (/etc/passwd, /etc/group), which an empty one does not; a number always does."));
            }
            "listen" if value.starts_with("fd:") => {
                return Err(format!(
                    "-l {value}: a descriptor is passed by who starts us; sockets of systemd (a socket unit) are taken without it"
                ));
            }
            _ => {}
        }
        let whole = self.whole(long, value);
        if contained && long == "cwd" && !Path::new(&whole).starts_with(APP) {
            self.note(format!(
                "--cwd {whole} has to be in the image: what is here goes to {APP}."
            ));
        }
        if contained && matches!(long, "env-file" | "key-file") {
            let how = match self.kind {
                Kind::K8s => "a Secret, by subPath:",
                Kind::Containerfile | Kind::Systemd | Kind::Init => "docker run -v",
            };
            self.note(format!("--{long} {whole} is no part of the image, which anybody may read who has it: mount it there ({how}), and let .containerignore (.dockerignore) name it where COPY would take it along."));
        }
        if whole.contains(WRITTEN) && !value.contains(WRITTEN) {
            self.note(format!("--{long} {value} is {whole} here: who writes beside {APP} has to have a volume over it, which would hide what is served."));
        }
        Ok(Some(whole))
    }

    /// Where a file is that we write.
    fn place(&self, path: &str) -> String {
        let at = join(&self.here, path);
        match Path::new(&at).strip_prefix(APP) {
            Ok(below) if self.kind == Kind::K8s => {
                let parts = below.components();
                let plain: PathBuf = parts
                    .filter(|c| matches!(c, Component::Normal(_)))
                    .collect();
                join(WRITTEN, &plain.to_string_lossy())
            }
            Ok(_) | Err(_) => at,
        }
    }

    /// With a whole path, if it is one.
    fn whole(&self, long: &str, value: &str) -> String {
        let path = |p: &str| join(&self.here, p);
        match long {
            "config" | "env-file" | "cwd" | "key-file" | "watch" => path(value),
            "pid-file" | "pid-dir" | "log-dir" => self.place(value),
            "log-file" if value != "-" && value != "syslog" => self.place(value),
            "control" if value != "off" && !value.starts_with("tcp://") => self.place(value),
            "listen" => match value.strip_prefix("unix:") {
                Some(p) if !p.starts_with('@') => format!("unix:{}", self.place(p)),
                Some(_) | None => value.to_string(),
            },
            _ => value.to_string(),
        }
    }

    fn take_command(&mut self, settings: &Settings, facts: &Facts) -> Result<(), String> {
        for word in &settings.command {
            let shown = word.to_string_lossy();
            let word = word
                .to_str()
                .ok_or_else(|| format!("{shown} is not UTF-8, as such a file has to be"))?;
            self.command.push(word.to_string());
        }
        let cwd = settings
            .cwd
            .as_ref()
            .map(|c| c.to_string_lossy().into_owned());
        let cwd = cwd.map_or(self.here.clone(), |c| join(&self.here, &c));
        let contained = self.kind.contained();
        let Some(first) = self.command.first_mut() else {
            return Ok(());
        };
        match (first.contains('/'), contained) {
            // What is here is put where everything is.
            (true, true) => {
                let at = join(&facts.here, first);
                let inside = Path::new(&at).strip_prefix(&facts.here).ok();
                let inside = inside.map(|p| p.to_string_lossy().into_owned());
                *first = match (inside, settings.cwd.is_some()) {
                    (_, true) => join(&cwd, first),
                    (Some(p), false) => join(APP, &p),
                    (None, false) => first.clone(),
                };
            }
            (true, false) => *first = join(&cwd, first),
            (false, true) => {}
            (false, false) => match &facts.program {
                Some(at) => first.clone_from(at),
                None => {
                    let text = format!("{first} is not in PATH here: write where it is.");
                    self.note(text);
                }
            },
        }
        Ok(())
    }

    /// What is needed there and was not said.
    fn fit(&mut self) -> Result<(), String> {
        if !self.kind.contained() && self.settings.name.is_none() {
            let name = self.name.clone();
            self.options.insert(0, vec!["--name".into(), name]);
        }
        if self.kind != Kind::K8s {
            return Ok(());
        }
        let said = |s: &Settings, long: &str| {
            let mut all = s.sources.typed.iter().chain(&s.sources.filed);
            all.any(|(l, _)| *l == long)
        };
        if !said(&self.settings, "drain-delay") && self.policy.drain != Drain::None {
            self.add("drain-delay", POD_DELAY);
            self.settings.drain_delay = std::time::Duration::from_secs(5);
            self.note("--drain-delay 5s is added: a pod that is to go is told so before all who send it clients are.");
        }
        match self.settings.monitor {
            None => {
                let taken: Vec<u16> = self.tcp().iter().map(SocketAddr::port).collect();
                let free = |p: &u16| !taken.contains(p);
                let port = (POD_MONITOR..=u16::MAX).find(free).unwrap_or(POD_MONITOR);
                let at = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
                self.add("monitor", &at.to_string());
                self.settings.monitor = Some(at);
                self.note(format!("--monitor {at} is added: the probes ask there."));
            }
            Some(at) if at.ip().is_loopback() => {
                let any = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), at.port());
                self.options
                    .retain(|words| words.first().is_none_or(|w| w != "--monitor"));
                self.add("monitor", &any.to_string());
                self.settings.monitor = Some(any);
                self.note(format!(
                    "--monitor is {any} here: the probes come from outside of the pod."
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// In a pod the grace period is ours to say, and nothing is cut: else it is the default of PID 1.
    fn budget(&mut self) {
        let said = self.policy.stop_budget.is_some() || self.settings.stop_budget.is_some();
        if self.kind != Kind::K8s || said {
            return;
        }
        let secs = super::times::seconds(self.policy.least_budget());
        self.add("stop-budget", &format!("{secs}s"));
        self.policy.stop_budget = Some(std::time::Duration::from_secs(secs));
        self.note(format!("--stop-budget {secs}s is added: as long as a stop may take, in place of the 9 s that the first process of a container has."));
    }

    /// All addresses of TCP that are given.
    pub fn tcp(&self) -> Vec<SocketAddr> {
        let more = self.settings.listen.iter().filter_map(|l| match l {
            Listen::Open(addr, _) => addr.tcp(),
            Listen::Fd(_) => None,
        });
        self.settings.addresses().into_iter().chain(more).collect()
    }

    /// Is one of them for root, or who may do as root?
    pub fn privileged(&self) -> bool {
        self.tcp().iter().any(|a| (1..1024).contains(&a.port()))
    }

    /// The user of the workers, if they have one of their own.
    pub fn user(&self) -> bool {
        self.settings.user.is_some() || self.settings.group.is_some()
    }

    /// Words by which verbs find it; `None`: they cannot.
    pub fn found_by(&self) -> Option<Vec<String>> {
        match &self.settings.control {
            Control::Named => Some(vec!["--name".into(), self.name.clone()]),
            Control::Path(p) => Some(vec!["-C".into(), self.place(&p.to_string_lossy())]),
            Control::Port(at) => {
                let key = self.settings.key_file.as_ref()?;
                let key = join(&self.here, &key.to_string_lossy());
                let at = format!("tcp://{at}");
                Some(vec!["-C".into(), at, "--key-file".into(), key])
            }
            Control::Off => None,
        }
    }

    /// Is something in a directory that is each service's own, if it has one?
    pub fn uses_tmp(&self) -> bool {
        let words = self.options.iter().flatten().chain(&self.command);
        let mut all = words.chain(&self.written).chain([&self.here, &self.binary]);
        all.any(|w| ["/tmp", "/var/tmp"].iter().any(|tmp| w.contains(tmp)))
    }

    /// Directories in which files of ours are to be.
    fn directories(&self) -> Vec<String> {
        let s = &self.settings;
        let whole = |p: &PathBuf| self.place(&p.to_string_lossy());
        let parent = |p: &PathBuf| Path::new(&whole(p)).parent().map(Path::to_path_buf);
        let log = match &s.log_file {
            Some(crate::settings::LogTo::File(p)) => parent(p),
            _ => None,
        };
        let control = match &s.control {
            Control::Path(p) => parent(p),
            Control::Named | Control::Port(_) | Control::Off => None,
        };
        let sockets = s.listen.iter().filter_map(|l| match l {
            Listen::Open(crate::core::Addr::Unix(p), _)
                if !p.to_string_lossy().starts_with('@') =>
            {
                parent(p)
            }
            Listen::Open(..) | Listen::Fd(_) => None,
        });
        let pid = s.pid_file.as_ref().and_then(parent);
        let own = |dir: &Option<PathBuf>| dir.as_ref().map(|d| PathBuf::from(whole(d)));
        let dirs = [own(&s.log_dir), own(&s.pid_dir), log, control, pid];
        let all = dirs.into_iter().flatten().chain(sockets);
        let mut all: Vec<String> = all.map(|p| p.to_string_lossy().into_owned()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What the file says and what was typed, of which the latter wins.
fn merged(filed: &[Said], typed: &[Said]) -> Vec<Said> {
    let opt = |long: &str| options::all().find(|o| o.long == long);
    let of_typed = |o: &Opt| typed.iter().any(|(l, _)| *l == o.long);
    let rival = |o: &Opt| {
        let loud = |t: &Opt| o.rivals == Rivals::Loudness && t.rivals == o.rivals;
        typed.iter().filter_map(|(l, _)| opt(l)).any(loud)
    };
    let replaced = |o: &Opt| (of_typed(o) && !o.keyed) || rival(o);
    let kept = filed
        .iter()
        .filter(|(l, _)| opt(l).is_some_and(|o| !replaced(o)));
    kept.chain(typed).cloned().collect()
}

/// A path of there, whole, without a dot as a part of it.
pub fn join(dir: &str, path: &str) -> String {
    let parts: PathBuf = Path::new(dir)
        .join(path)
        .components()
        .filter(|c| !matches!(c, Component::CurDir))
        .collect();
    parts.to_string_lossy().into_owned()
}
