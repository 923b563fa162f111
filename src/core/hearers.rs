//! Who hears the later answers of delegates (`notification`). Rules:
//!
//! 1. Each worker that asks has one set for each delegate and name of an answer: pids, or all workers. When it
//!    asks again, those it names then are in it, too.
//! 2. Who is to hear is put down when it is asked for, and hears from the first answer, or error, on. So what
//!    there is no room for is refused while there is somebody who is told.
//! 3. There is a limit to the pids of a set, to those of all sets, to the sets, and to the bytes of their names.
//! 4. A set ends with the worker that has asked; a pid leaves when its worker has gone. Pids behind those of
//!    workers, and pids that never were anybody's, are nobody's business until a set is full: then it is looked
//!    whose they are, not too often, and those that are nobody's leave.

use super::delegation::{MAX_ASKS, To};
use super::ids::{Time, WorkerId};
use super::words::bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many pids are told in `targets`, and are in one set.
pub const MAX_TARGETS: usize = 1024;
/// So many are in all of them.
pub const MAX_PIDS: usize = 64 * 1024;
/// So many bytes have the names of delegates and answers together: one as long as a message fits.
pub const MAX_NAMES: usize = 1024 * 1024;
/// No more often is it looked whose the pids of a full set are.
const LOOKS_EACH: Duration = Duration::from_secs(10);

/// What is heard: delegate, expect, and the one who asked.
pub(super) type Subject = (String, String, WorkerId);

/// How far one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Since {
    /// It is to hear.
    Asked,
    /// It hears.
    Answered,
}

/// Who hears of one subject.
#[derive(Default, Serialize, Deserialize)]
struct Set {
    all: Option<Since>,
    pids: BTreeMap<i32, Since>,
}

impl Set {
    fn is_empty(&self) -> bool {
        self.all.is_none() && self.pids.is_empty()
    }

    fn now(&self) -> Option<To> {
        if self.all == Some(Since::Answered) {
            return Some(To::All);
        }
        let hears = |(pid, since): (&i32, &Since)| (*since == Since::Answered).then_some(*pid);
        let pids: BTreeSet<i32> = self.pids.iter().filter_map(hears).collect();
        (!pids.is_empty()).then_some(To::Pids(pids))
    }

    /// Those of them that are not in it. Where all hear nobody is named.
    fn lacks<'a>(&self, to: &'a To) -> impl Iterator<Item = i32> + use<'a, '_> {
        let named = match to {
            To::Pids(pids) if self.all != Some(Since::Answered) => Some(pids),
            To::Pids(_) | To::All => None,
        };
        let all = named.into_iter().flatten().copied();
        all.filter(|pid| !self.pids.contains_key(pid))
    }

    fn begin(&mut self, to: &To) {
        match to {
            To::All => {
                self.all = Some(Since::Answered);
                self.pids = BTreeMap::new();
            }
            // (Some have left meanwhile.)
            To::Pids(pids) => {
                for pid in pids {
                    if let Some(since) = self.pids.get_mut(pid) {
                        *since = Since::Answered;
                    }
                }
            }
        }
    }
}

/// All sets.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Hearers {
    #[serde(with = "crate::core::carry::pairs")]
    sets: BTreeMap<Subject, Set>,
    /// When it was looked whose pids are whose.
    looked: Option<Time>,
}

impl Hearers {
    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// These are to hear; or why there is no room for them.
    pub fn ask(&mut self, subject: Subject, to: &To) -> Result<(), String> {
        if matches!(to, To::Pids(pids) if pids.is_empty()) {
            return Ok(());
        }
        self.room(&subject, to)?;
        let set = self.sets.entry(subject).or_default();
        let new: Vec<i32> = set.lacks(to).collect();
        set.pids.extend(new.into_iter().map(|p| (p, Since::Asked)));
        if *to == To::All {
            set.all.get_or_insert(Since::Asked);
        }
        Ok(())
    }

    fn room(&self, subject: &Subject, to: &To) -> Result<(), String> {
        let none = Set::default();
        let set = self.sets.get(subject);
        let new = set.unwrap_or(&none).lacks(to).count();
        let here = new + set.map_or(0, |s| s.pids.len());
        if here > MAX_TARGETS {
            return Err(format!(
                "its notifications would go to {here} pids (limit {MAX_TARGETS})"
            ));
        }
        let all = new + self.sets.values().map(|s| s.pids.len()).sum::<usize>();
        if all > MAX_PIDS {
            return Err(format!(
                "all notifications together would go to {all} pids (limit {MAX_PIDS})"
            ));
        }
        let sets = self.sets.len();
        if set.is_none() && sets >= MAX_ASKS {
            return Err(format!("{sets} notifications are kept (limit {MAX_ASKS})"));
        }
        let size = |s: &Subject| s.0.len() + s.1.len();
        let names = self.sets.keys().map(size).sum::<usize>() + size(subject);
        match set.is_none() && names > MAX_NAMES {
            true => Err(format!(
                "the names of all notifications would have {names} bytes (limit {})",
                bytes(MAX_NAMES as u64)
            )),
            false => Ok(()),
        }
    }

    /// There was an answer, or an error: from here on they hear.
    pub fn begin(&mut self, subject: &Subject, to: &To) {
        if let Some(set) = self.sets.get_mut(subject) {
            set.begin(to);
        }
    }

    /// Who hears what that delegate says, of everything or only of what is called so.
    pub fn of<'a>(
        &'a self,
        delegate: &'a str,
        called: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, To)> {
        let fits = move |s: &&Subject| s.0 == delegate && called.is_none_or(|c| c == s.1);
        let all = self.sets.iter().filter(move |(s, _)| fits(s));
        all.filter_map(|(s, set)| Some((s.1.as_str(), set.now()?)))
    }

    /// If there is no room for these in the set: the pids in it of which it should be looked whose they are.
    pub fn look_at(&mut self, subject: &Subject, to: &To, now: Time) -> Vec<i32> {
        let rests = self.looked.is_some_and(|at| now - at < LOOKS_EACH);
        if rests || self.room(subject, to).is_ok() {
            return Vec::new();
        }
        let Some(set) = self.sets.get(subject) else {
            return Vec::new();
        };
        self.looked = Some(now);
        set.pids.keys().copied().collect()
    }

    /// Those are nobody's.
    pub fn forget(&mut self, subject: &Subject, pids: &[i32]) {
        let Some(set) = self.sets.get_mut(subject) else {
            return;
        };
        for pid in pids {
            set.pids.remove(pid);
        }
        if set.is_empty() {
            self.sets.remove(subject);
        }
    }

    /// A worker has gone, whose pid that was.
    pub fn gone(&mut self, worker: WorkerId, pid: Option<i32>) {
        self.sets.retain(|(_, _, of), set| {
            if let Some(pid) = pid {
                set.pids.remove(&pid);
            }
            *of != worker && !set.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(pids: impl IntoIterator<Item = i32>) -> To {
        To::Pids(pids.into_iter().collect())
    }

    fn subject(name: &str, of: u64) -> Subject {
        ("x".into(), name.into(), WorkerId(of))
    }

    fn pids(h: &Hearers) -> usize {
        h.sets.values().map(|s| s.pids.len()).sum()
    }

    /// They are to hear, and then they do.
    fn hear(h: &mut Hearers, s: &Subject, them: &To) -> Result<(), String> {
        h.ask(s.clone(), them)?;
        h.begin(s, them);
        Ok(())
    }

    fn now(h: &Hearers) -> Vec<(&str, To)> {
        h.of("x", None).collect()
    }

    #[test]
    fn who_is_to_hear_hears_from_the_answer_on() {
        let mut h = Hearers::default();
        let s = subject("a", 1);
        h.ask(s.clone(), &to([11, 12])).unwrap();
        assert_eq!(now(&h), []);
        h.begin(&s, &to([11]));
        assert_eq!(now(&h), [("a", to([11]))]);
        h.ask(s.clone(), &To::All).unwrap();
        assert_eq!(now(&h), [("a", to([11]))]);
        h.begin(&s, &To::All);
        // Where all hear nobody is kept by name.
        hear(&mut h, &s, &to([13])).unwrap();
        assert_eq!((now(&h), pids(&h)), (vec![("a", To::All)], 0));
        assert_eq!(h.of("y", None).count() + h.of("x", Some("b")).count(), 0);
        h.gone(WorkerId(1), None);
        assert!(h.is_empty());
    }

    #[test]
    fn a_set_that_is_asked_for_again_and_again_has_a_limit() {
        let mut h = Hearers::default();
        let s = subject("a", 1);
        // Half of it hears already, the other half is asked for.
        hear(&mut h, &s, &to(0..512)).unwrap();
        h.ask(s.clone(), &to(512..1024)).unwrap();
        assert_eq!(h.ask(s.clone(), &to(0..1024)), Ok(()), "nobody is new");
        let why = h.ask(s.clone(), &to([7, 2000, 2001])).unwrap_err();
        assert_eq!(why, "its notifications would go to 1026 pids (limit 1024)");
        assert_eq!(pids(&h), MAX_TARGETS);
        // A worker goes, and there is room for another one.
        h.gone(WorkerId(9), Some(600));
        assert_eq!(h.ask(s.clone(), &to([2000])), Ok(()));
        assert_eq!(pids(&h), MAX_TARGETS);
    }

    #[test]
    fn all_sets_together_have_limits() {
        let mut h = Hearers::default();
        let full = (MAX_PIDS / MAX_TARGETS) as u64;
        for n in 0..full {
            hear(&mut h, &subject("a", n), &to(0..1024)).unwrap();
        }
        let why = h.ask(subject("a", full), &to([1])).unwrap_err();
        assert!(why.contains("65537 pids (limit 65536)"), "{why}");
        assert_eq!((pids(&h), h.sets.len() as u64), (MAX_PIDS, full));
        for n in full..MAX_ASKS as u64 {
            hear(&mut h, &subject("a", n), &To::All).unwrap();
        }
        let why = h.ask(subject("a", 5000), &To::All).unwrap_err();
        assert_eq!(why, "1024 notifications are kept (limit 1024)");
        // Those that there are may ask again.
        assert_eq!(hear(&mut h, &subject("a", 0), &To::All), Ok(()));
        let mut h = Hearers::default();
        let long = "y".repeat(MAX_NAMES - 1);
        assert_eq!(h.ask(subject(&long, 1), &To::All), Ok(()));
        assert_eq!(h.ask(subject(&long, 1), &To::All), Ok(()));
        let why = h.ask(subject("a", 1), &To::All).unwrap_err();
        assert!(why.contains("1048578 bytes (limit 1.0M)"), "{why}");
    }

    #[test]
    fn in_a_full_set_it_is_looked_whose_they_are_and_not_too_often() {
        let mut h = Hearers::default();
        let (s, more) = (subject("a", 1), to([2000]));
        hear(&mut h, &s, &to(0..1023)).unwrap();
        assert!(h.look_at(&s, &more, Time(0)).is_empty(), "it fits");
        hear(&mut h, &s, &more).unwrap();
        let more = to([2001]);
        let look = h.look_at(&s, &more, Time(0));
        assert_eq!(look.len(), 1024);
        assert!(h.look_at(&s, &more, Time(1)).is_empty(), "just now");
        h.forget(&s, look.get(..1000).unwrap());
        hear(&mut h, &s, &more).unwrap();
        assert_eq!(pids(&h), 25);
        // The last ones leave, and nothing is kept; whoever hears later what it has asked for is not there.
        let rest: Vec<i32> = (1000..3000).collect();
        h.forget(&s, &rest);
        h.begin(&s, &more);
        assert!(h.is_empty());
        hear(&mut h, &s, &to(0..1024)).unwrap();
        let later = Time(0) + LOOKS_EACH;
        assert_eq!(h.look_at(&s, &more, later).len(), 1024);
    }

    #[test]
    fn what_is_for_nobody_is_not_kept() {
        let mut h = Hearers::default();
        hear(&mut h, &subject("a", 1), &to([])).unwrap();
        assert!(h.is_empty());
        hear(&mut h, &subject("a", 1), &to([11])).unwrap();
        hear(&mut h, &subject("b", 1), &To::All).unwrap();
        h.gone(WorkerId(2), Some(11));
        assert_eq!(now(&h), [("b", To::All)]);
    }
}
