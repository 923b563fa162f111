//! What came of a program of the operator's that somebody had run, and how that is told.

use super::json::quote;
use super::outcome::refusal;
use super::report::last_lines;
use crate::core::Exit;
use crate::core::codes::{FAILED, TIMED_OUT};
use crate::core::words::{bytes, human, signal_name};
use std::time::Duration;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was not executed: the exit code that a shell has for that, and why.
    NotRun(u8, String),
    /// By itself.
    Exited(Exit),
    /// It was killed after that time.
    TooLong(Duration),
    /// It was not begun in that time: others had all the places.
    NotBegun(Duration),
    /// It was killed, or not begun, because the master ends.
    Stopped,
}

/// A program that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// As it was named.
    pub name: String,
    /// How it ended,
    pub end: End,
    /// what it wrote to stdout,
    pub out: String,
    /// how many bytes of that are missing at the end,
    pub cut: u64,
    /// the last lines of its stderr,
    pub last: String,
    /// how long it took,
    pub took: Duration,
    /// and is what it wrote the whole answer, JSON if that is wanted?
    pub whole: bool,
}

/// An answer with an exit code, what belongs on stdout, and what on stderr.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The exit code.
    pub code: u8,
    /// For stdout.
    pub out: String,
    /// For stderr.
    pub err: String,
}

impl End {
    /// As the exit code of whoever asked for it.
    pub fn code(&self) -> u8 {
        /// Shells add the number of the signal.
        const BY_SIGNAL: u8 = 128;
        match self {
            End::NotRun(code, _) => *code,
            End::Exited(Exit::Code(code)) => u8::try_from(*code).unwrap_or(FAILED),
            End::Exited(Exit::Signal(signal)) => {
                BY_SIGNAL.saturating_add(u8::try_from(*signal).unwrap_or(0))
            }
            End::TooLong(_) | End::NotBegun(_) => TIMED_OUT,
            End::Stopped | End::Exited(Exit::Unknown) => FAILED,
        }
    }

    /// What there is to say of it, if anything.
    pub fn why(&self) -> Option<String> {
        match self {
            End::NotRun(_, why) => Some(why.clone()),
            End::Exited(Exit::Code(0)) => None,
            End::Exited(Exit::Code(code)) => Some(format!("exit {code}")),
            End::Exited(Exit::Unknown) => Some("it has ended, nobody tells how".to_string()),
            End::Exited(Exit::Signal(signal)) => {
                Some(format!("killed by SIG{}", signal_name(*signal)))
            }
            End::TooLong(limit) => Some(format!("killed: not done within {}", human(*limit))),
            End::NotBegun(limit) => Some(format!(
                "not begun within {}: as many programs run as may",
                human(*limit)
            )),
            End::Stopped => Some("killed: the cluster stops".into()),
        }
    }
}

impl Ran {
    /// One that never ran.
    pub fn not_begun(name: String, end: End) -> Ran {
        Ran {
            name,
            end,
            out: String::new(),
            cut: 0,
            last: String::new(),
            took: Duration::ZERO,
            whole: false,
        }
    }

    /// It was to be the whole answer, if so.
    pub fn whole_if(self, whole: bool) -> Ran {
        Ran { whole, ..self }
    }

    /// What is missing of what it wrote, in a sentence.
    fn missing(&self) -> Option<String> {
        let all = self.out.len() as u64 + self.cut;
        let (kept, all) = (bytes(self.out.len() as u64), bytes(all));
        (self.cut > 0).then(|| format!("its output is cut: {kept} of {all}"))
    }

    /// It, with a name in front that it has only once.
    pub fn says(&self, why: &str) -> String {
        let named = why.strip_prefix(self.name.as_str());
        match named.is_some_and(|rest| rest.starts_with(": ")) {
            true => why.to_string(),
            false => format!("{}: {why}", self.name),
        }
    }

    /// For the one who asked.
    pub fn reply(&self, json: bool) -> Reply {
        let code = self.end.code();
        if self.whole {
            return self.whole_reply(json);
        }
        if json {
            return Reply {
                code,
                out: self.json(),
                err: String::new(),
            };
        }
        let said: Vec<String> = self.end.why().into_iter().chain(self.missing()).collect();
        let mut err = match said.is_empty() {
            true => String::new(),
            false => format!("{}\n", self.says(&said.join("; "))),
        };
        if code != 0 {
            err.push_str(&last_lines(&self.last));
        }
        Reply {
            code,
            out: self.out.clone(),
            err,
        }
    }

    /// What is not whole is none.
    fn whole_reply(&self, json: bool) -> Reply {
        let why: Vec<String> = self.end.why().into_iter().chain(self.missing()).collect();
        if why.is_empty() {
            return Reply {
                code: 0,
                out: self.out.clone(),
                err: String::new(),
            };
        }
        let code = match self.end.code() {
            0 => FAILED,
            code => code,
        };
        let text = format!("{}\n{}", self.says(&why.join("; ")), last_lines(&self.last));
        let (out, err) = match json {
            true => (refusal(&text, true), String::new()),
            false => (String::new(), text),
        };
        Reply { code, out, err }
    }

    fn json(&self) -> String {
        let exit = match &self.end {
            End::Exited(Exit::Code(code)) => code.to_string(),
            End::Exited(Exit::Signal(_) | Exit::Unknown)
            | End::NotRun(..)
            | End::TooLong(_)
            | End::NotBegun(_)
            | End::Stopped => "null".into(),
        };
        let error = self
            .end
            .why()
            .map_or_else(|| "null".into(), |why| quote(&why));
        format!(
            "{{\"name\":{},\"exit\":{exit},\"error\":{error},\"took\":{}.{:03},\"stdout\":{},\"cut\":{},\"stderr\":{}}}\n",
            quote(&self.name),
            self.took.as_secs(),
            self.took.subsec_millis(),
            quote(&self.out),
            self.cut,
            quote(&self.last)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(end: End) -> Ran {
        Ran {
            name: "flush".into(),
            end,
            out: "12 keys\n".into(),
            cut: 0,
            last: "no \u{7}cache".into(),
            took: Duration::from_millis(1234),
            whole: false,
        }
    }

    #[test]
    fn what_it_wrote_is_the_answer_and_its_status_the_exit_code() {
        let limit = Duration::from_secs(60);
        let last = "    | no ?cache\n";
        for (end, code, err) in [
            (End::Exited(Exit::Code(0)), 0, String::new()),
            (
                End::Exited(Exit::Code(3)),
                3,
                format!("flush: exit 3\n{last}"),
            ),
            (
                End::Exited(Exit::Signal(11)),
                139,
                format!("flush: killed by SIGSEGV\n{last}"),
            ),
            (
                End::TooLong(limit),
                124,
                format!("flush: killed: not done within 1m\n{last}"),
            ),
            (
                End::Stopped,
                1,
                format!("flush: killed: the cluster stops\n{last}"),
            ),
            (
                End::NotRun(127, "./x: not found".into()),
                127,
                format!("flush: ./x: not found\n{last}"),
            ),
        ] {
            let reply = ran(end).reply(false);
            assert_eq!((reply.code, reply.err), (code, err));
            assert_eq!(reply.out, "12 keys\n");
        }
        let why = "flush: not found in PATH";
        assert_eq!(ran(End::NotRun(127, why.into())).says(why), why);
    }

    #[test]
    fn a_whole_answer_is_passed_on_as_it_is_and_a_part_of_one_is_none() {
        let json = |text: &str| super::super::json::parse(text.trim_end()).unwrap();
        let well = ran(End::Exited(Exit::Code(0))).whole_if(true);
        for wants_json in [true, false] {
            let reply = well.reply(wants_json);
            assert_eq!((reply.code, reply.out.as_str()), (0, "12 keys\n"));
            assert_eq!(reply.err, "");
        }
        let cut = Ran { cut: 1, ..well };
        let late = ran(End::TooLong(Duration::from_secs(30))).whole_if(true);
        for (it, code, why) in [(cut, 1, "its output is cut"), (late, 124, "within 30s")] {
            let reply = it.reply(false);
            assert_eq!((reply.code, reply.out.as_str()), (code, ""));
            assert!(reply.err.contains(why), "{}", reply.err);
            let reply = it.reply(true);
            let error = json(&reply.out)["error"].get::<String>().unwrap().clone();
            assert_eq!((reply.code, reply.err.as_str()), (code, ""));
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_missing_is_said_even_if_all_went_well() {
        let cut = Ran {
            cut: 2048,
            ..ran(End::Exited(Exit::Code(0)))
        };
        let reply = cut.reply(false);
        assert_eq!(reply.code, 0);
        assert!(
            reply.err.starts_with("flush: its output is cut: "),
            "{}",
            reply.err
        );
        let json = super::super::json::parse(cut.reply(true).out.trim_end()).unwrap();
        assert_eq!(json["cut"].get::<f64>(), Some(&2048.0));
        assert_eq!(json["exit"].get::<f64>(), Some(&0.0));
        assert_eq!(json["took"].get::<f64>(), Some(&1.234));
        let json = ran(End::TooLong(Duration::from_secs(1))).reply(true);
        let json = super::super::json::parse(json.out.trim_end()).unwrap();
        assert!(json["exit"].is_null() && json["error"].is_string());
    }
}
