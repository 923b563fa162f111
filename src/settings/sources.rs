//! Where settings come from, as text: so that the file can be read again while the cluster runs, and
//! what was typed wins again.

use std::path::PathBuf;

/// One option as it was said: its long name, and its value; empty if it has none.
pub type Said = (&'static str, String);

/// What was said, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// What was typed.
    pub typed: Vec<Said>,
    /// What the file of --config says, as far as it counts.
    pub filed: Vec<Said>,
    /// The directory of the start, which relative paths are of. Filled in by the shell.
    pub here: PathBuf,
}

impl Sources {
    /// The file of --config, as it was typed.
    pub fn config(&self) -> Option<&str> {
        let typed = self.typed.iter().find(|(long, _)| *long == "config");
        typed.map(|(_, file)| file.as_str())
    }
}
