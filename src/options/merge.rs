//! What was typed and what the file of --config says, made one: what is typed wins.

use super::config::{self, Entry};
use super::{Opt, Rivals, Scope, all, name_of};
use crate::settings::{Said, Settings};

/// Reads a file, at most one byte more than a file of options may have. An error says why not.
pub type Read<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// What is wrong, in a whole sentence, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was typed.
    Typed(String),
    /// It is in the file.
    Filed(String),
}

/// Both of them.
pub struct Both<'a> {
    /// What was typed.
    pub typed: &'a [Said],
    /// The name of the file.
    pub file: &'a str,
    /// What it says.
    pub entries: &'a [Entry],
    /// Is a cluster started? To a verb the file says which cluster is meant, and nothing else.
    pub start: bool,
}

/// What the file says, for who starts a cluster. An error names file and line.
pub fn read_file(file: &str, read: Read<'_>) -> Result<Vec<Entry>, String> {
    match read_some(file, read) {
        (entries, None) => check_file(file, &entries).map(|()| entries),
        (_, Some(wrong)) => Err(wrong),
    }
}

/// What can be understood of the file, and what is wrong with it. Enough for a verb: somebody who is just
/// writing the file, or has removed it, must be able to stop what runs.
pub fn read_some(file: &str, read: Read<'_>) -> (Vec<Entry>, Option<String>) {
    match read(file) {
        Ok(bytes) => config::parse(file, &bytes),
        Err(e) => (Vec::new(), Some(format!("--config {file}: {e}"))),
    }
}

/// Do rivals about this exclude each other? Who starts a cluster gives it name, socket and file.
pub fn exclude(about: Rivals, start: bool) -> bool {
    match about {
        Rivals::None => false,
        Rivals::Loudness => true,
        Rivals::Which => !start,
    }
}

impl Both<'_> {
    /// Everything that they say.
    pub fn settings(&self) -> Result<Settings, Fault> {
        let mut s = Settings::default();
        for o in all() {
            self.apply(o, &mut s)?;
        }
        s.sources.typed = self.typed.to_vec();
        let said = |e: &Entry| (e.opt.long, e.value.clone());
        s.sources.filed = self.entries.iter().map(said).collect();
        Ok(s)
    }

    /// What they say of one option.
    pub fn apply(&self, o: &Opt, s: &mut Settings) -> Result<(), Fault> {
        let typed = || self.typed.iter().filter(|(long, _)| *long == o.long);
        let times = typed().count();
        if times > 1 && !o.many {
            let why = format!("--{} is given {times} times", o.long);
            return Err(Fault::Typed(why));
        }
        for e in self.entries.iter().filter(|e| std::ptr::eq(e.opt, o)) {
            if !self.start && o.scope != Scope::Both {
                continue;
            }
            // A line that is replaced is right or wrong all the same.
            let mut nobody = Settings::default();
            let whose = match self.replaced(o) {
                true => &mut nobody,
                false => &mut *s,
            };
            (o.apply)(whose, &e.value)
                .map_err(|why| Fault::Filed(config::misfit(self.file, e, &why)))?;
        }
        for (_, v) in typed() {
            (o.apply)(s, v).map_err(|e| match o.arg {
                "" => Fault::Typed(e),
                _ => Fault::Typed(format!("{}: {e}", name_of(o))),
            })?;
        }
        Ok(())
    }

    /// Does what was typed stand in place of the file's lines of this option?
    fn replaced(&self, o: &Opt) -> bool {
        let typed = |o: &Opt| self.typed.iter().any(|(long, _)| *long == o.long);
        let rivals = exclude(o.rivals, self.start);
        (typed(o) && !o.keyed) || rivals && all().any(|x| x.rivals == o.rivals && typed(x))
    }
}

/// What entries may not stand in a file, or not together.
fn check_file(file: &str, entries: &[Entry]) -> Result<(), String> {
    if let Some(e) = entries.iter().find(|e| e.opt.scope == Scope::Client) {
        let why = "it belongs to a verb, not to starting a cluster";
        return Err(config::misfit(file, e, why));
    }
    let mut loud = entries.iter().filter(|e| e.opt.rivals == Rivals::Loudness);
    match (loud.next(), loud.next()) {
        (Some(one), Some(two)) => {
            let (line, name) = (one.line, one.opt.long);
            let why = format!("it and {name} in line {line} exclude each other");
            Err(config::misfit(file, two, &why))
        }
        _ => Ok(()),
    }
}
