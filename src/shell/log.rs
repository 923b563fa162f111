//! Our own log: on our stderr, in a file, or to syslogd; and what workers write, where it passes
//! through us. In the foreground that goes on to our stderr, wherever the log is: it belongs where
//! they would have written without us. A daemon has no stderr of its own: what its workers write goes
//! where the log goes, and, as long as the caller of -d waits, both go to the caller's stderr, too.

use super::output::Output;
use super::sink::{self, LogFile, Sink, Syslog};
use super::stream::Stream;
use super::voice::Voice;
use super::{Kind, Shell, token};
use crate::core::codes::{EX_CANTCREAT, EX_USAGE, FAILED, Failure};
use crate::core::fields::Value;
use crate::core::words::reason;
use crate::core::{Level, Notice};
use crate::settings::{LogFormat, LogTo, Settings};
use crate::sys::clock;
use crate::wire::logfmt::Line;
use mio::Interest;
use mio::unix::SourceFd;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// Where lines go.
#[derive(Serialize, Deserialize)]
pub struct Log {
    #[serde(with = "crate::shell::carry")]
    stream: Stream,
    sink: Sink,
    /// Lines that the sink did not take since that was last said,
    lost: u64,
    /// and ever.
    lost_ever: u64,
    /// What was said of that, and not told to those who follow the events yet.
    #[serde(skip)]
    untold: Vec<Line>,
    format: Option<LogFormat>,
    level: Level,
    /// Are we one, or about to be?
    daemon: bool,
    /// Does the caller of -d still wait?
    awaited: bool,
    /// What the cluster is called; syslogd has it as the tag of what workers write.
    name: String,
}

/// What a worker's stdout is.
pub enum Stdout<'a> {
    /// Ours.
    Inherited,
    /// The log file.
    File(BorrowedFd<'a>),
    /// The pipe that its stderr is.
    Piped,
}

impl Log {
    /// How loud from now on.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// On a copy of our stderr.
    pub fn new(format: Option<LogFormat>, level: Level) -> Log {
        Log {
            stream: Stream::stderr(),
            sink: Sink::Stderr,
            lost: 0,
            lost_ever: 0,
            untold: Vec::new(),
            format,
            level,
            daemon: false,
            awaited: false,
            name: String::new(),
        }
    }

    /// Where --log-file says.
    pub fn open(s: &Settings) -> Result<Log, Failure> {
        let mut log = Log::new(s.log_format, s.log_level);
        if s.daemon {
            sink::set_last_resort(match &s.log_file {
                Some(LogTo::File(path)) => Some(path),
                Some(LogTo::Stderr | LogTo::Syslog) | None => None,
            });
        }
        let cannot = |what: &str, e: &std::io::Error| {
            (EX_CANTCREAT, format!("--log-file {what}: {}", reason(e)))
        };
        match &s.log_file {
            None if s.daemon => match Syslog::open() {
                Ok(syslog) => log.direct(Sink::Syslog(syslog), true),
                Err(e) => {
                    log.direct(Sink::Nowhere, true);
                    let why = reason(&e);
                    let (theirs, both) = match s.log_dir.is_some() || s.silent {
                        true => ("", "it"),
                        false => (", and what its workers write is lost", "both"),
                    };
                    let message = format!(
                        "there is no syslog (/dev/log: {why}): from the moment that it is ready the daemon has no log{theirs}; --log-file FILE keeps {both}"
                    );
                    log.say(Level::Warn, "no-log", message);
                }
            },
            None | Some(LogTo::Stderr) => {}
            Some(LogTo::Syslog) => {
                let syslog = Syslog::open().map_err(|e| cannot("syslog: /dev/log", &e))?;
                log.direct(Sink::Syslog(syslog), s.daemon);
            }
            Some(LogTo::File(path)) => {
                let shown = path.display().to_string();
                let file = LogFile::open(path, s.daemon).map_err(|e| cannot(&shown, &e))?;
                if s.daemon && file.is_callers() {
                    let why = "is the caller's, and -d lets go of it: name a file of its own";
                    return Err((EX_USAGE, format!("--log-file {shown} {why}")));
                }
                log.direct(Sink::File(file), s.daemon);
            }
        }
        Ok(log)
    }

    /// From here on it goes there.
    pub fn direct(&mut self, sink: Sink, daemon: bool) {
        self.sink = sink;
        (self.daemon, self.awaited) = (daemon, daemon);
    }

    /// What the cluster is called.
    pub fn set_name(&mut self, name: &str) {
        self.name = name.to_string();
    }

    /// What core has to say, as a line of this moment.
    pub fn line_of(&self, notice: &Notice) -> Line {
        let at = clock::wall();
        Line::of(notice, at, clock::local_offset(at.0))
    }

    /// Something of the shell's own.
    pub fn own(
        &self,
        level: Level,
        event: impl Into<Cow<'static, str>>,
        fields: Vec<(&'static str, Value)>,
        message: String,
    ) -> Line {
        let at = clock::wall();
        Line {
            at,
            offset: clock::local_offset(at.0),
            level,
            event: event.into(),
            fields,
            message,
        }
    }

    /// Would something of that level be written?
    pub fn hears(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Writes it, if it is loud enough.
    pub fn write(&mut self, line: &Line) {
        if line.level <= self.level {
            self.emit(line);
        }
    }

    /// Says something of the shell's own, in the log alone.
    pub fn say(&mut self, level: Level, event: &'static str, message: String) {
        let line = self.own(level, event, Vec::new(), message);
        self.write(&line);
    }

    fn emit(&mut self, line: &Line) {
        self.flush();
        if self.awaited || matches!(self.sink, Sink::Stderr) {
            let default = match self.stream.is_terminal() {
                true => LogFormat::Text,
                false => LogFormat::Logfmt,
            };
            let text = line.render(self.format.unwrap_or(default));
            self.stream.line(text.as_bytes());
        }
        if !matches!(self.sink, Sink::Stderr | Sink::Nowhere) {
            let taken = self.say_lost() && self.sink.put(line.level, &self.rendered(line));
            self.lose(!taken);
        }
    }

    fn lose(&mut self, lost: bool) {
        self.lost += u64::from(lost);
        self.lost_ever += u64::from(lost);
    }

    /// How many lines were lost, wherever they should have gone.
    pub fn lost_ever(&self) -> u64 {
        self.lost_ever.saturating_add(self.stream.lost_ever())
    }

    /// As the sink has it.
    fn rendered(&self, line: &Line) -> String {
        match (&self.sink, self.format) {
            (Sink::Syslog(_), None | Some(LogFormat::Text)) => line.bare(),
            (_, format) => line.render(format.unwrap_or(LogFormat::Logfmt)),
        }
    }

    /// Says how many lines the sink did not take, if it takes that. False: it does not.
    fn say_lost(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let line = self.of_lost(self.lost, "they could not be written, or were not read");
        let taken = self.sink.put(line.level, &self.rendered(&line));
        if taken {
            self.lost = 0;
            self.untold.push(line);
        }
        taken
    }

    fn of_lost(&self, n: u64, why: &str) -> Line {
        let fields = vec![("count", Value::Number(n.to_string()))];
        let message = format!("{n} log lines were lost: {why}");
        self.own(Level::Warn, "log-lost", fields, message)
    }

    /// What it has said of itself since the last time.
    pub fn take_untold(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.untold)
    }

    /// The descriptor of our stderr, for the poll.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.stream.fd()
    }

    /// Is it a terminal?
    pub fn is_terminal(&self) -> bool {
        self.stream.is_terminal()
    }

    /// What becomes a worker's stderr when it listens; `None`: it stays our pipe.
    pub fn given_back(&self) -> Option<BorrowedFd<'_>> {
        match (&self.sink, self.daemon) {
            (_, false) => self.stream.shared(),
            (Sink::File(file), true) => file.shared(),
            (Sink::Stderr | Sink::Syslog(_) | Sink::Nowhere, true) => None,
        }
    }

    /// What a worker's stdout is from its birth.
    pub fn stdout(&self) -> Stdout<'_> {
        match (self.daemon, self.given_back()) {
            (false, _) => Stdout::Inherited,
            (true, Some(file)) => Stdout::File(file),
            (true, None) => Stdout::Piped,
        }
    }

    /// Does something wait for our stderr?
    fn stuck(&mut self) -> bool {
        self.flush();
        !self.stream.is_free()
    }

    /// May a worker's bytes (at most CHUNK) be taken? If our stderr does not take them, they stay
    /// where they are: the worker feels a full pipe, as it would without us. A daemon's never wait.
    pub fn ready_to_forward(&mut self) -> bool {
        self.daemon || !self.stuck()
    }

    /// Forwards them.
    pub fn forward(&mut self, from: &mut Voice, bytes: &[u8]) {
        match self.daemon {
            true => self.keep(from, bytes),
            false => self.stream.write(bytes),
        }
    }

    /// Takes the last bytes of a worker that has gone: they cannot wait in its pipe. Within a limit.
    pub fn bequest(&mut self, from: &mut Voice, bytes: &[u8]) {
        match self.daemon {
            true => self.keep(from, bytes),
            false => self.stream.bequest(bytes),
        }
    }

    /// A copy of what has its place elsewhere, for the caller of -d as long as that waits.
    pub fn copy(&mut self, bytes: &[u8]) {
        if self.awaited {
            self.flush();
            self.stream.copy(bytes);
        }
    }

    fn keep(&mut self, from: &mut Voice, bytes: &[u8]) {
        self.copy(bytes);
        match &mut self.sink {
            Sink::File(file) => {
                let taken = file.put(bytes);
                self.lose(!taken);
            }
            Sink::Syslog(_) => {
                for line in from.lines.push(bytes) {
                    self.tell(from, &line);
                }
            }
            Sink::Stderr | Sink::Nowhere => {}
        }
    }

    /// Nothing more comes from it: what has no end of line is said now.
    pub fn end_of(&mut self, from: &mut Voice) {
        if let Some(line) = from.lines.end() {
            self.tell(from, &line);
        }
    }

    fn tell(&mut self, from: &Voice, line: &str) {
        if let Sink::Syslog(syslog) = &mut self.sink {
            let text = format!("worker {}: {line}", from.slot);
            let taken = syslog.put(Level::Info, &self.name, from.pid, &text);
            self.lose(!taken);
        }
    }

    /// Writes what waits, as far as it goes without blocking.
    pub fn flush(&mut self) {
        let n = self.stream.flush();
        if n > 0 {
            let line = self.of_lost(n, "stderr was full or not read");
            self.write(&line);
            self.untold.push(line);
        }
    }

    /// The end: what still waits is written, as far as that goes within this time.
    pub fn finish(&mut self, limit: Duration) {
        self.say_lost();
        self.flush();
        self.stream.finish(limit);
    }

    /// Our stderr is nobody's.
    fn let_go(&mut self) {
        self.awaited = false;
        self.stream.close();
    }

    /// Does it go there, so that there is nothing to reopen?
    fn is_on_stderr(&self) -> bool {
        matches!(self.sink, Sink::Stderr)
    }

    /// Goes on with the file, or the syslogd, that is there now. What was done, or why not.
    pub fn reopen(&mut self) -> Result<String, String> {
        self.sink.reopen()
    }
}

/// What came of two of them.
fn both(one: Result<String, String>, two: Result<String, String>) -> Result<String, String> {
    match (one, two) {
        (Ok(a), Ok(b)) => Ok(format!("{a}; {b}")),
        (Err(a), Ok(b)) | (Ok(b), Err(a)) => Err(format!("{a}; {b}")),
        (Err(a), Err(b)) => Err(format!("{a}; {b}")),
    }
}

impl Shell {
    /// Does something wait for a terminal? One can refuse a write although it polls writable
    /// (another writer is in it), and no edge follows: so it is tried again by the clock.
    pub(super) fn log_stalls(&self) -> bool {
        self.log_watched && self.log.is_terminal()
    }

    /// Watches our stderr exactly while something waits for it. Whoever finds that there is room
    /// again (it may be a line of ours that went through) sees to the workers that wait for it: no
    /// other news of it will come.
    pub(super) fn watch_log(&mut self) {
        let stuck = self.log.stuck();
        if stuck == self.log_watched {
            return;
        }
        let Some(fd) = self.log.fd().map(|f| f.as_raw_fd()) else {
            return;
        };
        let mut source = SourceFd(&fd);
        let registry = self.poll.registry();
        let done = match stuck {
            true => registry.register(&mut source, token(Kind::OurStderr, 0), Interest::WRITABLE),
            false => registry.deregister(&mut source),
        };
        self.log_watched = stuck && done.is_ok();
        if !stuck {
            let waiting = self.stderrs.keys().map(|w| (Kind::Stderr, w.0));
            self.ready.extend(waiting);
        }
    }

    /// A daemon has started: nobody listens to its stderr any more.
    pub(super) fn let_go_of_stderr(&mut self) {
        self.log.flush();
        if self.log_watched
            && let Some(fd) = self.log.fd()
        {
            self.deregister(fd);
        }
        self.log_watched = false;
        self.log.let_go();
    }

    /// Goes on with the files that have their names now: a rotation has moved the old ones away. What
    /// came of it, for whoever asks.
    pub(super) fn reopen_logs(&mut self) -> (u8, String) {
        let log = self.log.reopen();
        let done = match self.output.as_mut().map(Output::reopen) {
            None => log,
            Some(output) if self.log.is_on_stderr() => output,
            Some(output) => both(log, output),
        };
        match done {
            Ok(what) => {
                self.say(Level::Info, "reopened", what.clone());
                (0, what)
            }
            Err(why) => {
                self.say(Level::Error, "reopen-failed", why.clone());
                (FAILED, why)
            }
        }
    }
}
