//! The client's side: finds the running cluster, sends the words, prints the answer. What goes over the
//! connection is in `talk`, somebody who types in `console`.

mod console;
mod custom;
mod talk;
mod watch;

use super::keyfile;
use super::names::{self, CONTROL, Running};
use super::orphans::living;
use super::pidfile::{self, Found};
use super::sink;
use crate::core::Target;
use crate::core::codes::{EX_NOPERM, EX_TEMPFAIL, EX_USAGE, FAILED, Failure, NOT_RUNNING};
use crate::core::words::{count, reason};
use crate::options::config::MAX_BYTES;
use crate::settings::{self, Before, Control, Settings, whom_within};
use crate::sys::signal::Blocked;
use crate::sys::{fds, pidfd, process, procfs, unix};
use crate::verbs::{self, What};
use crate::wire::command::spelled_out;
use crate::wire::key::Key;
use crate::wire::logs::harmless;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use talk::{PATIENCE, ask, connect, connect_port};

/// How long a master may take to vanish after its last word.
const VANISH: Duration = Duration::from_secs(5);

/// Does it; returns the exit code.
pub fn run(s: &Settings, mut words: Vec<String>) -> Result<u8, Failure> {
    let word = words.first().map(String::as_str).unwrap_or_default();
    let Some(verb) = verbs::find(word) else {
        return custom::unknown(s, words);
    };
    let what = verb.what;
    if s.no_wait {
        words.insert(1, verbs::NO_WAIT.into());
    }
    words = spelled_out(words).map_err(|e| (EX_USAGE, e))?;
    if let Some(before) = verb.before {
        make_absolute(&mut words, before);
    }
    let rest: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    if let Err(why) = verb.check(&rest) {
        return custom::misfit(s, words, why);
    }
    if what == What::Help {
        return custom::help(s, words);
    }
    let stream = match find(s)? {
        Way::Process(found) => return by_signal(s, what, &found),
        way @ (Way::Socket(_) | Way::Port(_)) => way.connect(s)?,
    };
    if what == What::Status && words.iter().any(|w| w == "watch") {
        drop(stream);
        let flag = s.json.then(|| "--json".to_string());
        let words: Vec<String> = ["status".to_string()].into_iter().chain(flag).collect();
        return watch::run(&words, || find(s)?.connect(s));
    }
    if what == What::Console {
        return console::run(stream);
    }
    if s.json {
        words.insert(1, "--json".into());
    }
    if matches!(what, What::Events | What::Logs) && words.iter().any(|w| w == "follow") {
        return talk::follow(stream, &words);
    }
    let master = unix::peer(stream.as_fd())
        .and_then(|(pid, _)| pidfd::open(pid))
        .ok();
    let waits = verb.waits && !s.no_wait;
    let ends = waits && ends_it(what, &words);
    if !waits {
        // What only looks is answered at once by a master that is well.
        let _ = stream.set_read_timeout(Some(PATIENCE));
    }
    let (code, text) = match ask(stream, &words) {
        Ok(answer) => answer,
        // It may have been at its very end: then somebody else has stopped it, and that is that.
        Err((FAILED, _)) if ends && has_gone(master.as_ref()) => {
            return print(gone(s.json));
        }
        Err(e) => return Err(e),
    };
    // It was not even tried: no end is to be waited for.
    let refused = matches!(code, EX_USAGE | EX_NOPERM | EX_TEMPFAIL);
    if ends && !refused {
        return end(code, &text, master, s.json);
    }
    match code {
        0 if what == What::Logs => print_harmless(&text),
        0 => print(&text),
        // It was tried, and what came of it is the answer.
        FAILED if s.json && (waits || matches!(what, What::Reopen | What::Send | What::Deps)) => {
            print(&text).map(|_| code)
        }
        // These were asked how it is, and have said so.
        FAILED if matches!(what, What::Health | What::Ecv) => print(&text).map(|_| code),
        // All has been said before.
        _ if text.is_empty() => Ok(code),
        _ => Err((code, text.trim_end().to_string())),
    }
}

/// A start with --replace: if it runs already it is made exactly this, and that is the answer; `None`:
/// it does not run.
pub fn replace(s: &Settings) -> Result<Option<u8>, Failure> {
    let name = s.name.clone().unwrap_or_else(|| s.implied_name());
    let named = || names::running().into_iter().find(|r| r.name == name);
    let way = match (&s.control, named()) {
        (Control::Port(at), _) => Way::Port(*at),
        (Control::Path(path), _) => Way::Socket(path.clone()),
        (_, None) => return Ok(None),
        (_, Some(Running { pid, control, .. })) => Way::to(control).ok_or_else(|| {
            let why =
                format!("{name} runs, pid {pid}, without a control socket: it cannot be told");
            (FAILED, why)
        })?,
    };
    let stream = match way.connect(s) {
        Ok(stream) => stream,
        Err((NOT_RUNNING, _)) => return Ok(None),
        Err(e) => return Err(e),
    };
    let here = procfs::working_directory().unwrap_or_default();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut words: Vec<String> = vec!["replace".into(), "cwd".into(), text(&here)];
    for (long, value) in &s.sources.typed {
        words.extend(["option".into(), format!("--{long}={value}")]);
    }
    words.push(settings::END.into());
    for word in &s.command {
        let shown = word.to_string_lossy();
        let not_text = || {
            (
                EX_USAGE,
                format!("{shown} is not UTF-8: the master is sent text"),
            )
        };
        words.push(word.to_str().ok_or_else(not_text)?.to_string());
    }
    let (code, text) = ask(stream, &words)?;
    match code {
        0 => print(&text).map(Some),
        _ => Err((code, text.trim_end().to_string())),
    }
}

/// COMMAND and its directory are where they are for whoever types them; and it is told apart from here
/// on.
fn make_absolute(words: &mut Vec<String>, before: Before) {
    let here = procfs::working_directory().unwrap_or_default();
    let mut at = 1 + settings::begins(words.get(1..).unwrap_or_default(), before);
    let said = words.iter().take(at).any(|w| w == "cwd");
    if before == Before::Test && !said && at < words.len() {
        let here = here.to_string_lossy().into_owned();
        words.splice(1..1, ["cwd".to_string(), here]);
        at += 2;
    }
    let whole = |word: &str| {
        let path: PathBuf = here.join(word).components().collect();
        path.to_string_lossy().into_owned()
    };
    if let Some(command) = words.get_mut(at).filter(|w| w.contains('/')) {
        *command = whole(command);
    }
    let mut ours = words.iter_mut().take(at);
    if ours.any(|w| w == "cwd")
        && let Some(dir) = ours.next()
    {
        *dir = whole(dir);
    }
    if words.get(at - 1).is_none_or(|w| w != settings::END) {
        words.insert(at, settings::END.into());
    }
}

/// Has it gone, or does it go in a moment?
fn has_gone(master: Option<&OwnedFd>) -> bool {
    master.is_some_and(|m| pidfd::wait_gone(m.as_fd(), VANISH))
}

/// Is the end of the master what it asks for?
fn ends_it(what: What, words: &[String]) -> bool {
    let ours = |w: &&str| !w.starts_with("--");
    let rest: Vec<&str> = words
        .iter()
        .skip(1)
        .map(String::as_str)
        .filter(ours)
        .collect();
    match what {
        What::Stop | What::Kill | What::Exit => true,
        What::Shutdown => matches!(whom_within(&rest), Ok((Target::All, _))),
        _ => false,
    }
}

fn gone(json: bool) -> &'static str {
    match json {
        true => "{\"code\":null,\"left\":[]}\n",
        false => "the master has gone\n",
    }
}

/// Where there is no socket, a signal does for some of the verbs.
fn by_signal(s: &Settings, what: What, master: &Found) -> Result<u8, Failure> {
    let pid = master.pid;
    let signal = match what {
        What::Stop => libc::SIGTERM,
        What::Kill => libc::SIGQUIT,
        // HUP may mean a terminal that is gone.
        What::Reload => libc::SIGUSR2,
        // That it runs is what an init script asks.
        What::Status => {
            return print(&match s.json {
                true => format!("{{\"pid\":{pid},\"control\":null}}\n"),
                false => format!(
                    "pid {pid} runs, without a control socket that can be found from here\n"
                ),
            });
        }
        _ => {
            let why = format!("pid {pid} has no control socket that can be found from here");
            return Err((
                FAILED,
                format!("{why}: only status, stop, kill and reload work without one"),
            ));
        }
    };
    let process = master.process.as_fd();
    match pidfd::send_signal(process, signal) {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) && what == What::Reload => {
            return Err((
                NOT_RUNNING,
                format!("not running: pid {pid} has just ended"),
            ));
        }
        // It has ended meanwhile: that is what was asked for.
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
        Err(e) => {
            let why = reason(&e);
            return Err((EX_NOPERM, format!("cannot signal pid {pid}: {why}")));
        }
    }
    if what == What::Reload {
        return print(match s.json {
            true => "{\"reloading\":true}\n",
            false => "reloading; without a control socket what comes of it is in the log alone\n",
        });
    }
    match (s.no_wait, s.json) {
        (true, true) => return print("{\"stopping\":true}\n"),
        (true, false) => return print("stopping\n"),
        (false, _) => {}
    }
    while !pidfd::wait_gone(process, Duration::MAX) {}
    print(gone(s.json))
}

/// After the master's last word: it must really be gone, so that `stop && start` works.
fn end(code: u8, text: &str, master: Option<OwnedFd>, json: bool) -> Result<u8, Failure> {
    if master.is_some() && !has_gone(master.as_ref()) {
        return Err((
            FAILED,
            "it said that it stopped, but it is still there".into(),
        ));
    }
    match code {
        0 => print(text),
        _ if json => print(text).map(|_| FAILED),
        _ => Err((
            FAILED,
            format!("{} (the master exits {code})", text.trim_end()),
        )),
    }
}

/// The file of --config, as far as one can be long.
pub fn read_options(path: &Path) -> Result<Vec<u8>, String> {
    options_of(File::open(path))
}

/// The same while workers wait for us: nobody is waited for.
pub fn read_options_again(path: &Path) -> Result<Vec<u8>, String> {
    options_of(fds::open_regular(path))
}

fn options_of(file: io::Result<File>) -> Result<Vec<u8>, String> {
    let most = MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    file.and_then(|f| f.take(most).read_to_end(&mut bytes))
        .map_err(|e| reason(&e))?;
    Ok(bytes)
}

/// A bug of ours: on stderr, and where a daemon's log goes.
pub fn last_words(message: &str) {
    complain(message);
    sink::last_resort(message);
}

/// On stderr. By now our handlers may stand: in the background of a terminal with `stty tostop` the
/// write would raise a signal that we handle, and be restarted, for ever.
pub fn complain(message: &str) {
    let _blocked = Blocked::all();
    let _ = writeln!(std::io::stderr(), "minicluster: {message}");
}

/// On stdout. A reader that has gone is no error of ours (`minicluster --help | head -1`); a disk
/// that is full is one.
pub fn print(text: &str) -> Result<u8, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err((FAILED, format!("cannot write to stdout: {}", reason(&e))))
        }
        Ok(()) | Err(_) => Ok(0),
    }
}

/// The same of what somebody else may have put there; a terminal is not driven by it.
fn print_harmless(text: &str) -> Result<u8, Failure> {
    match fds::is_terminal(process::STDOUT) {
        true => print(&harmless(text)),
        false => print(text),
    }
}

/// How a master is reached.
enum Way {
    Socket(PathBuf),
    Port(SocketAddr),
    Process(Found),
}

impl Way {
    fn to(control: Option<Control>) -> Option<Way> {
        match control? {
            Control::Path(path) => Some(Way::Socket(path)),
            Control::Port(at) => Some(Way::Port(at)),
            Control::Named | Control::Off => None,
        }
    }

    fn connect(&self, s: &Settings) -> Result<UnixStream, Failure> {
        match self {
            Way::Socket(path) => connect(path),
            Way::Port(at) => connect_port(*at, &key_of(*at, s)?),
            Way::Process(master) => {
                let pid = master.pid;
                let why = format!("pid {pid} has no control socket that can be found from here");
                Err((NOT_RUNNING, why))
            }
        }
    }
}

/// --pid-file, else -C, else --name, else $MINICLUSTER_CONTROL, else the only one.
fn find(s: &Settings) -> Result<Way, Failure> {
    match &s.pid_file {
        Some(file) => {
            let found = pidfile::find(file)?;
            let pid = found.pid.to_string();
            let ours = names::running().into_iter().find(|r| r.pid == pid);
            let way = ours.and_then(|r| Way::to(r.control));
            Ok(match way {
                // Whoever may read the file may signal it, without a key.
                Some(Way::Port(_)) if s.key_file.is_none() => Way::Process(found),
                Some(way) => way,
                None => Way::Process(found),
            })
        }
        None => find_door(s),
    }
}

/// The key that opens a port.
fn key_of(at: SocketAddr, s: &Settings) -> Result<Key, Failure> {
    match &s.key_file {
        Some(file) => keyfile::read(file),
        None => Err((
            EX_USAGE,
            format!(
                "it listens on tcp://{at}, where a verb needs the key: --key-file FILE in front of it"
            ),
        )),
    }
}

fn find_door(s: &Settings) -> Result<Way, Failure> {
    match &s.control {
        Control::Path(p) => return Ok(Way::Socket(p.clone())),
        Control::Port(at) => return Ok(Way::Port(*at)),
        Control::Off => return Err((EX_USAGE, "-C off: there is nothing to speak to".into())),
        Control::Named => {}
    }
    let said = std::env::var_os(CONTROL).filter(|_| s.name.is_none());
    if let Some(way) = said.and_then(|word| Way::to(names::control_of(&word))) {
        return Ok(way);
    }
    let all = names::running();
    let matching: Vec<&Running> = all
        .iter()
        .filter(|r| s.name.as_ref().is_none_or(|n| *n == r.name))
        .collect();
    match (matching.as_slice(), &s.name) {
        ([one], _) => Way::to(one.control.clone()).ok_or_else(|| {
            let (name, pid) = (&one.name, &one.pid);
            let why = format!("{name} runs, pid {pid}, without a control socket");
            (FAILED, format!("{why}; end it: kill {pid}"))
        }),
        ([], Some(name)) => Err((
            NOT_RUNNING,
            format!("{name} is not running{}{}", others(&all), orphans(name)),
        )),
        ([], None) => Err((NOT_RUNNING, "no cluster of yours is running".into())),
        (several, _) => {
            let list: Vec<String> = several
                .iter()
                .map(|r| {
                    let way = match r.control {
                        Some(Control::Port(at)) => format!(", tcp://{at}, with --key-file"),
                        Some(_) => String::new(),
                        None => ", no control socket".into(),
                    };
                    format!("\n  --name {}  (pid {}{way})", r.name, r.pid)
                })
                .collect();
            Err((
                EX_USAGE,
                format!("several clusters are running, say which:{}", list.concat()),
            ))
        }
    }
}

/// Workers of that name that no verb reaches: their master has died.
fn orphans(name: &str) -> String {
    match names::records(name).iter().map(|p| living(p)).sum() {
        0 => String::new(),
        n => format!(
            "; {} of its last master {} on (--orphans keep): start it again, which adopts them, and then stop it",
            count(n, "worker"),
            if n == 1 { "lives" } else { "live" }
        ),
    }
}

fn others(all: &[Running]) -> String {
    let names: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; running are: {}", names.join(" ")),
    }
}
