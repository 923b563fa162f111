//! One file of workers' output: appended to, moved away when it is too long, and never waited for. What
//! cannot be written is lost, and counted; the next lines are tried again, but not at once.

use super::dir::{Dir, Opened};
use crate::core::Time;
use crate::core::words::reason;
use crate::wire::output;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

/// After an error nothing is tried for that long: each try may take its time.
const AGAIN: Duration = Duration::from_secs(1);
/// After a rotation that failed the next one is not tried for that long.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// How long a file may be, and how many old ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// 0 is any length.
    pub size: u64,
    /// 0: it is emptied, not moved away.
    pub keep: u16,
}

/// What there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// Lines are lost from now on.
    Fails { file: String, why: String },
    /// So many were, and it is written again.
    Lost { file: String, lines: u64 },
    /// It stays as it is, too long.
    NotRotated { file: String, why: String },
}

/// Lines that were lost in a row.
#[derive(Debug, Serialize, Deserialize)]
struct Trouble {
    lines: u64,
    why: String,
    /// Before that nothing is tried.
    again: Time,
}

/// One of them.
#[derive(Serialize, Deserialize)]
pub struct OutFile {
    name: String,
    #[serde(with = "crate::shell::carry")]
    file: Option<File>,
    size: u64,
    /// Does it end within a line, because there was no room for the rest?
    torn: bool,
    trouble: Option<Trouble>,
    lost_ever: u64,
    /// Is there somebody who writes there?
    wanted: bool,
    /// Before that it is not rotated.
    rotate: Time,
}

impl OutFile {
    /// One of that name. It is opened by what is first written.
    pub fn new(name: String) -> OutFile {
        OutFile {
            name,
            file: None,
            size: 0,
            torn: false,
            trouble: None,
            lost_ever: 0,
            wanted: false,
            rotate: Time(0),
        }
    }

    /// Opens it, if it is not.
    fn open(&mut self, dir: &mut Dir) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let opened = append(dir, &self.name)?;
        self.begin(opened);
        Ok(())
    }

    /// Goes on with the file that has the name now. If it cannot be had the old one stays.
    pub fn reopen(&mut self, dir: &Dir) -> io::Result<()> {
        let opened = dir.append(&self.name)?;
        self.begin(opened);
        Ok(())
    }

    /// Whether it is as long as it was, and as whole, is seen now.
    fn begin(&mut self, opened: Opened) {
        let Opened { file, size, torn } = opened;
        (self.file, self.size, self.torn) = (Some(file), size, torn);
    }

    /// The next line is tried, whenever the last one was.
    pub fn try_again(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.again = Time(0);
        }
    }

    /// All lines that were ever lost.
    pub fn lost_ever(&self) -> u64 {
        self.lost_ever
    }

    /// Lines that were lost and of which nothing was said since.
    pub fn lost(&self) -> u64 {
        self.trouble.as_ref().map_or(0, |t| t.lines)
    }

    /// Appends these whole lines.
    pub fn put(
        &mut self,
        dir: &mut Dir,
        lines: &[u8],
        limits: Limits,
        now: Time,
        news: &mut Vec<News>,
    ) {
        let count = output::count(lines);
        if let Some(t) = self.trouble.as_mut().filter(|t| t.again > now) {
            t.lines = t.lines.saturating_add(count);
            self.lost_ever = self.lost_ever.saturating_add(count);
            return;
        }
        if let Err(e) = self.open(dir) {
            return self.fails(dir, count, &e, now, news);
        }
        if let Err(why) = self.make_room(dir, lines.len() as u64, limits, now) {
            let file = dir.shown(&self.name);
            news.push(News::NotRotated { file, why });
        }
        let head = self.head();
        match self.write(&head, lines) {
            Ok(()) => {
                if let Some(t) = self.trouble.take().filter(|t| t.lines > 0) {
                    let (file, lines) = (dir.shown(&self.name), t.lines);
                    news.push(News::Lost { file, lines });
                }
            }
            Err((lost, e)) => self.fails(dir, lost, &e, now, news),
        }
    }

    /// They are lost without a try.
    pub fn lose(&mut self, dir: &Dir, lines: &[u8], why: &str, news: &mut Vec<News>) {
        let count = output::count(lines);
        self.lost_some(dir, count, why.to_string(), Time(0), news);
    }

    /// There will be something to write. If it cannot be opened, that is said by now.
    pub fn ready(&mut self, dir: &mut Dir, now: Time, news: &mut Vec<News>) {
        self.wanted = true;
        if let Err(e) = self.open(dir) {
            self.fails(dir, 0, &e, now, news);
        }
    }

    /// Is it open?
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Can it not be written, although somebody is to?
    pub fn is_in_trouble(&self) -> bool {
        self.wanted && self.trouble.is_some()
    }

    /// Nobody is to write there for now.
    pub fn close(&mut self) {
        (self.file, self.wanted) = (None, false);
    }

    fn lost_some(&mut self, dir: &Dir, lines: u64, why: String, again: Time, news: &mut Vec<News>) {
        self.lost_ever = self.lost_ever.saturating_add(lines);
        match &mut self.trouble {
            Some(t) => {
                t.lines = t.lines.saturating_add(lines);
                t.again = again.max(t.again);
            }
            None => {
                let file = dir.shown(&self.name);
                let said = why.clone();
                news.push(News::Fails { file, why: said });
                self.trouble = Some(Trouble { lines, why, again });
            }
        }
    }

    fn fails(&mut self, dir: &Dir, lines: u64, e: &io::Error, now: Time, news: &mut Vec<News>) {
        let full = [libc::ENOSPC, libc::EDQUOT, libc::EFBIG];
        if !e.raw_os_error().is_some_and(|n| full.contains(&n)) {
            // Perhaps it is only this one: the next try is by its name.
            self.file = None;
        }
        self.lost_some(dir, lines, reason(e), now + AGAIN, news);
    }

    /// What stands before the next lines: the end of one that was torn, and how many are missing there.
    fn head(&self) -> Vec<u8> {
        let torn = if self.torn { "\n" } else { "" };
        match &self.trouble {
            Some(t) if t.lines > 0 => {
                let lines = crate::core::words::count(
                    usize::try_from(t.lines).unwrap_or(usize::MAX),
                    "line",
                );
                format!("{torn}minicluster: {lines} lost here: {}\n", t.why).into()
            }
            Some(_) | None => torn.into(),
        }
    }

    /// Or how many lines were not, and why.
    fn write(&mut self, head: &[u8], lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let Some(file) = &mut self.file else {
            return Err((output::count(lines), io::ErrorKind::NotFound.into()));
        };
        let joined;
        let all = match head.is_empty() {
            true => lines,
            false => {
                joined = [head, lines].concat();
                &joined
            }
        };
        let mut done = 0;
        while let Some(rest) = all.get(done..).filter(|r| !r.is_empty()) {
            let e = match file.write(rest) {
                Ok(n) if n > 0 => {
                    done += n;
                    continue;
                }
                Ok(_) => io::Error::from_raw_os_error(libc::ENOSPC),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            self.size = self.size.saturating_add(done as u64);
            if let Some(last) = done.checked_sub(1).and_then(|n| all.get(n)) {
                self.torn = *last != b'\n';
            }
            let gone = done.saturating_sub(head.len());
            let lost = output::count(lines.get(gone..).unwrap_or_default());
            return Err((lost, e));
        }
        self.size = self.size.saturating_add(done as u64);
        self.torn = false;
        Ok(())
    }

    /// Moves the file away if these bytes would make it too long. An error is a whole reason, and the
    /// file goes on.
    fn make_room(
        &mut self,
        dir: &mut Dir,
        bytes: u64,
        limits: Limits,
        now: Time,
    ) -> Result<(), String> {
        let full = |size: u64| size > 0 && size.saturating_add(bytes) > limits.size;
        if limits.size == 0 || !full(self.size) || now < self.rotate {
            return Ok(());
        }
        // Somebody else may have emptied it.
        if let Some(m) = self.file.as_ref().and_then(|f| f.metadata().ok()) {
            self.size = m.len();
        }
        if !full(self.size) {
            return Ok(());
        }
        let done = match limits.keep {
            0 => self.empty(),
            keep => self.move_away(dir, keep),
        };
        done.map_err(|e| {
            self.rotate = now + ROTATE_AGAIN;
            reason(&e)
        })
    }

    fn empty(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.set_len(0)?;
            (self.size, self.torn) = (0, false);
        }
        Ok(())
    }

    /// FILE is FILE.1, and so on; the last one is nobody's any more. The next one is opened before any is
    /// moved: each try that fails would cost one of the old ones.
    fn move_away(&mut self, dir: &mut Dir, keep: u16) -> io::Result<()> {
        let old = |n: u16| format!("{}.{n}", self.name);
        let next = format!("{}.new", self.name);
        let opened = append(dir, &next)?;
        for n in (1..keep).rev() {
            dir.rename(&old(n), &old(n + 1))?;
        }
        dir.rename(&self.name, &old(1))?;
        dir.rename(&next, &self.name)?;
        self.begin(opened);
        Ok(())
    }
}

/// Opens a file to append to it; the directory is made anew if it has gone.
fn append(dir: &mut Dir, name: &str) -> io::Result<Opened> {
    match dir.append(name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            dir.reopen()?;
            dir.append(name)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::super::dir::tests::place;
    use super::*;
    use std::fs;
    use std::path::Path;

    const BIG: Limits = Limits { size: 0, keep: 3 };

    fn text(at: &Path) -> String {
        fs::read_to_string(at).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn a_file_that_is_full_is_moved_away_and_so_many_are_kept() {
        for (keep, want) in [
            (0, &["6 seven\n"][..]),
            (1, &["6 seven\n", "5 seven\n"]),
            (3, &["6 seven\n", "5 seven\n", "4 seven\n", "3 seven\n"]),
        ] {
            let at = place("rotate");
            let mut dir = Dir::open(&at).unwrap();
            let mut file = OutFile::new("a.log".into());
            let (limits, mut news) = (Limits { size: 10, keep }, Vec::new());
            for n in 0..7 {
                let line = format!("{n} seven\n");
                file.put(&mut dir, line.as_bytes(), limits, Time(0), &mut news);
            }
            assert!(news.is_empty(), "{news:?}");
            for (n, text_of) in want.iter().enumerate() {
                let name = if n == 0 {
                    "a.log".into()
                } else {
                    format!("a.log.{n}")
                };
                assert_eq!(text(&at.join(name)), *text_of, "{keep} {n}");
            }
            assert_eq!(fs::read_dir(&at).unwrap().count(), want.len());
            // Emptied by somebody else, it is not full.
            fs::write(at.join("a.log"), "").unwrap();
            file.put(&mut dir, b"x\n", limits, Time(0), &mut news);
            assert_eq!(text(&at.join("a.log")), "x\n");
            fs::remove_dir_all(at).unwrap();
        }
    }

    #[test]
    fn one_that_was_renamed_is_written_until_it_is_reopened() {
        let at = place("reopen");
        let mut dir = Dir::open(&at).unwrap();
        let mut file = OutFile::new("a.log".into());
        let mut news = Vec::new();
        let mut put = |file: &mut OutFile, dir: &mut Dir, line: &str| {
            file.put(dir, line.as_bytes(), BIG, Time(0), &mut news);
        };
        put(&mut file, &mut dir, "one\n");
        fs::rename(at.join("a.log"), at.join("old")).unwrap();
        put(&mut file, &mut dir, "two\n");
        file.reopen(&dir).unwrap();
        put(&mut file, &mut dir, "three\n");
        assert_eq!(text(&at.join("old")), "one\ntwo\n");
        assert_eq!(text(&at.join("a.log")), "three\n");
        // A line that somebody, or we ourselves before we were killed, have not ended, does not go on.
        for (there, want) in [
            ("torn", "torn\nfour\n"),
            ("whole\n", "whole\nfour\n"),
            ("", "four\n"),
        ] {
            fs::write(at.join("a.log"), there).unwrap();
            let mut anew = OutFile::new("a.log".into());
            put(&mut anew, &mut dir, "four\n");
            assert_eq!(text(&at.join("a.log")), want);
            fs::write(at.join("a.log"), there).unwrap();
            file.reopen(&dir).unwrap();
            put(&mut file, &mut dir, "four\n");
            assert_eq!(text(&at.join("a.log")), want);
        }
        // A directory that has gone is made anew.
        fs::remove_dir_all(&at).unwrap();
        let mut file = OutFile::new("b.log".into());
        put(&mut file, &mut dir, "four\n");
        assert_eq!(text(&at.join("b.log")), "four\n");
        assert!(news.is_empty(), "{news:?}");
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_of_when_it_works_again() {
        let at = place("lost");
        let mut dir = Dir::open(&at).unwrap();
        fs::create_dir(at.join("a.log")).unwrap();
        let mut file = OutFile::new("a.log".into());
        let mut news = Vec::new();
        let second = |n: u64| Time(n * 1_000_000_000);
        file.put(&mut dir, b"one\ntwo\n", BIG, second(1), &mut news);
        file.put(&mut dir, b"three\n", BIG, second(1), &mut news);
        let shown = at.join("a.log").display().to_string();
        let [News::Fails { file: of, why }] = &news[..] else {
            panic!("{news:?}")
        };
        assert_eq!((of, why.as_str()), (&shown, "Is a directory"));
        news.clear();
        fs::remove_dir(at.join("a.log")).unwrap();
        // Not before its time.
        file.put(&mut dir, b"four\n", BIG, second(1), &mut news);
        assert_eq!((file.lost(), file.lost_ever(), news.len()), (4, 4, 0));
        file.put(&mut dir, b"five\n", BIG, second(3), &mut news);
        let lost = News::Lost {
            file: shown,
            lines: 4,
        };
        assert_eq!(news, [lost]);
        let want = "minicluster: 4 lines lost here: Is a directory\nfive\n";
        assert_eq!(text(&at.join("a.log")), want);
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_rotation_that_fails_is_said_once_and_the_file_goes_on() {
        let at = place("stuck");
        let mut dir = Dir::open(&at).unwrap();
        fs::create_dir_all(at.join("a.log.1/x")).unwrap();
        let mut file = OutFile::new("a.log".into());
        let (limits, mut news) = (Limits { size: 5, keep: 1 }, Vec::new());
        for _ in 0..3 {
            file.put(&mut dir, b"line\n", limits, Time(0), &mut news);
        }
        assert!(matches!(&news[..], [News::NotRotated { .. }]), "{news:?}");
        assert_eq!(text(&at.join("a.log")), "line\n".repeat(3));
        fs::remove_dir_all(at).unwrap();
    }
}
