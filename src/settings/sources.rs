//! Where settings come from, as text: so that the file can be read again while the cluster runs, and
//! what was typed wins again.

use crate::core::carry::keep;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;

/// One option as it was said: its long name, and its value; empty if it has none.
pub type Said = (&'static str, String);

/// What was said, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// What was typed.
    #[serde(deserialize_with = "kept_said")]
    pub typed: Vec<Said>,
    /// What the file of --config says, as far as it counts.
    #[serde(deserialize_with = "kept_said")]
    pub filed: Vec<Said>,
    /// The directory of the start, which relative paths are of. Filled in by the shell.
    #[serde(with = "crate::core::carry::paths")]
    pub here: PathBuf,
}

/// Those that another build has written down.
fn kept_said<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Said>, D::Error> {
    let all = Vec::<(String, String)>::deserialize(from)?;
    Ok(all.into_iter().map(|(long, v)| (keep(long), v)).collect())
}

impl Sources {
    /// The file of --config, as it was typed.
    pub fn config(&self) -> Option<&str> {
        let typed = self.typed.iter().find(|(long, _)| *long == "config");
        typed.map(|(_, file)| file.as_str())
    }
}
