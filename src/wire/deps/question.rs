//! What the master asks the process that looks: lines, of which the first says how it is to be answered
//! and by when, and each other one names a worker.

/// Longest question: a line for each of as many workers as there can be, and of those that go.
pub const MAX_QUESTION: u64 = 1024 * 1024;

/// A worker to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker {
    pub slot: u16,
    /// Its first process, a child of the master's.
    pub pid: i32,
    pub generation: u32,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Is the answer to be JSON?
    pub json: bool,
    pub workers: Vec<Worker>,
}

impl Question {
    /// As it is written.
    pub fn encode(&self) -> String {
        let mut text = String::from(if self.json { "json\n" } else { "text\n" });
        for w in &self.workers {
            text.push_str(&format!("{} {} {}\n", w.slot, w.pid, w.generation));
        }
        text
    }

    /// As it is read. `None`: it is none.
    pub fn decode(text: &str) -> Option<Question> {
        let mut lines = text.lines();
        let json = match lines.next()? {
            "json" => true,
            "text" => false,
            _ => return None,
        };
        let worker = |line: &str| {
            let mut words = line.split(' ');
            let one = Worker {
                slot: words.next()?.parse().ok()?,
                pid: words.next()?.parse().ok().filter(|pid| *pid > 0)?,
                generation: words.next()?.parse().ok()?,
            };
            words.next().is_none().then_some(one)
        };
        let workers = lines.map(worker).collect::<Option<_>>()?;
        Some(Question { json, workers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_the_way() {
        let worker = |slot, pid| Worker {
            slot,
            pid,
            generation: 7,
        };
        for json in [true, false] {
            let workers = vec![worker(0, 4711), worker(1023, 1)];
            let q = Question { json, workers };
            assert_eq!(Question::decode(&q.encode()), Some(q));
        }
        for none in [
            "",
            "yaml\n",
            "json\n1",
            "json\n1 2 3 4\n",
            "json\n1 -2 3\n",
            "json\n\n",
        ] {
            assert_eq!(Question::decode(none), None, "{none}");
        }
        let most = usize::from(crate::settings::MAX_WORKERS) * 8;
        let q = Question {
            json: true,
            workers: vec![worker(1023, i32::MAX); most],
        };
        assert!(q.encode().len() as u64 <= MAX_QUESTION);
    }
}
