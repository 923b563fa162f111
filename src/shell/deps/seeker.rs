//! Who is looked at: what is known of a process before it is looked for the packages that it uses.

use super::objects::Prefix;
use std::path::{Path, PathBuf};

/// For whom packages are looked for.
pub struct Seeker<'a> {
    pub prefix: &'a Prefix,
    /// Its executable.
    pub exe: &'a Path,
    /// The first word that it was executed with, if that is a path.
    pub first: Option<PathBuf>,
    /// Where it is, and its script, as they are called there.
    pub bases: Vec<PathBuf>,
}
