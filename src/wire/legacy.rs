//! What a master writes down of its workers while they run, for the one after it, if they are to live on when
//! it dies (--orphans keep): a text of lines, each a word for what it is about and its values. A process is
//! named by its pid and by when it was started, so that another one with its number is not taken for it.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The first line: what it is, and of which kind.
const HEAD: &str = "minicluster-workers 1";
/// A longer record is none.
pub const MAX_BYTES: u64 = 1 << 20;
/// No master comes as far as that.
const MAX_GENERATION: u32 = u32::MAX / 2;
/// So many lines of each kind count.
const MAX_LINES: usize = 8192;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Since the machine was started the numbers mean something.
    pub boot: String,
    /// The pid of who has written it.
    pub master: i32,
    /// Directory and words of what was run.
    pub command: Vec<Vec<u8>>,
    /// Sockets that clients come to.
    pub lanes: Vec<LaneLine>,
    /// Processes.
    pub workers: Vec<WorkerLine>,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneLine {
    /// Its inode.
    pub inode: u64,
    /// Was it given (-p, -l)? Else learnt.
    pub given: bool,
    /// Its address, as messages have it.
    pub addr: String,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLine {
    /// Its first process, which leads its group,
    pub pid: i32,
    /// and when that was started, in ticks since the machine was.
    pub started: u64,
    /// Where it works.
    pub slot: u16,
    /// Of which code.
    pub generation: u32,
    /// Does it serve, in that slot?
    pub serves: bool,
}

impl Record {
    /// As it is written.
    pub fn text(&self) -> String {
        let words = self.command.iter().map(|w| escaped(w));
        let command: Vec<String> = std::iter::once("command".to_string())
            .chain(words)
            .collect();
        let mut text = format!(
            "{HEAD}\nboot {}\nmaster {}\n",
            escaped(self.boot.as_bytes()),
            self.master,
        );
        for l in &self.lanes {
            let how = if l.given { "given" } else { "learnt" };
            let addr = escaped(l.addr.as_bytes());
            let _ = writeln!(text, "lane {} {how} {addr}", l.inode);
        }
        for w in &self.workers {
            let how = if w.serves { "serves" } else { "beside" };
            let _ = writeln!(
                text,
                "worker {} {} {} {} {how}",
                w.pid, w.started, w.slot, w.generation
            );
        }
        // At the end: it may be as long as it likes, and would hide nobody.
        let _ = writeln!(text, "{}", command.join(" "));
        text
    }

    /// `None`: it is none, or one of another version. Lines that are none are left out: a later version
    /// may have more to say.
    pub fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut all = Record::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["boot", boot] => all.boot = String::from_utf8(unescaped(boot)?).ok()?,
                ["master", pid] => all.master = pid.parse().ok()?,
                ["command", words @ ..] => {
                    all.command = words.iter().map(|w| unescaped(w)).collect::<Option<_>>()?;
                }
                ["lane", inode, how @ ("given" | "learnt"), addr]
                    if all.lanes.len() < MAX_LINES =>
                {
                    all.lanes.push(LaneLine {
                        inode: inode.parse().ok()?,
                        given: *how == "given",
                        addr: String::from_utf8(unescaped(addr)?).ok()?,
                    });
                }
                [
                    "worker",
                    pid,
                    started,
                    slot,
                    generation,
                    how @ ("serves" | "beside"),
                ] if all.workers.len() < MAX_LINES => {
                    let pid: i32 = pid.parse().ok()?;
                    all.workers.push(WorkerLine {
                        // (Of 0, 1 and less kill(2) has its own idea.)
                        pid: Some(pid).filter(|p| *p > 1)?,
                        started: started.parse().ok()?,
                        slot: slot.parse().ok()?,
                        // Others are to come after it.
                        generation: generation.parse().ok().filter(|g| *g <= MAX_GENERATION)?,
                        serves: *how == "serves",
                    });
                }
                _ => {}
            }
        }
        Some(all)
    }
}

/// Without blanks, and never empty.
fn escaped(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "%".to_string();
    }
    let mut text = String::new();
    for b in bytes {
        match b.is_ascii_graphic() && *b != b'%' {
            true => text.push(char::from(*b)),
            false => drop(write!(text, "%{b:02x}")),
        }
    }
    text
}

fn unescaped(word: &str) -> Option<Vec<u8>> {
    match word {
        "" => return None,
        "%" => return Some(Vec::new()),
        _ => {}
    }
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(b) = rest.next() {
        let byte = match b {
            b'%' => {
                let digit = |d: Option<u8>| char::from(d?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b => b,
        };
        bytes.push(byte);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            boot: "0a0b-1".to_string(),
            master: 77,
            command: vec![
                b"/srv/my app".to_vec(),
                b"./x".to_vec(),
                b"".to_vec(),
                b"100%\n\xff".to_vec(),
            ],
            lanes: vec![
                LaneLine {
                    inode: 5,
                    given: true,
                    addr: "0.0.0.0:3000".to_string(),
                },
                LaneLine {
                    inode: 6,
                    given: false,
                    addr: "unix:/run/a b".to_string(),
                },
            ],
            workers: vec![WorkerLine {
                pid: 4711,
                started: 99,
                slot: 3,
                generation: 2,
                serves: true,
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = record();
        assert_eq!(Record::parse(&all.text()), Some(all));
        let none = Record::default();
        assert_eq!(
            Record::parse(&none.text()).unwrap().workers,
            Vec::<WorkerLine>::new()
        );
    }

    #[test]
    fn what_is_no_record_is_none_and_what_a_later_one_has_more_does_not_matter() {
        for bad in [
            "",
            "minicluster-workers 2\n",
            "minicluster-workers 1\nworker x 1 1 1 serves\n",
            "minicluster-workers 1\nworker 1 1 1 1 serves\n",
            "minicluster-workers 1\nworker -1 1 1 1 serves\n",
            "minicluster-workers 1\nworker 5 1 70000 1 serves\n",
            "minicluster-workers 1\nworker 5 1 1 4294967295 serves\n",
            "minicluster-workers 1\nlane 1 given %4\n",
            "minicluster-workers 1\ncommand %zz\n",
            "minicluster-workers 1\ncommand \n",
        ] {
            assert_eq!(Record::parse(bad), None, "{bad}");
        }
        let more = format!("{}moon full\nworker 1 2\n", record().text());
        assert_eq!(Record::parse(&more), Some(record()));
    }
}
