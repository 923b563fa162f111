//! The file of --key-file: read once, and only if nobody else can have read it.

use crate::core::codes::{EX_CONFIG, EX_NOPERM, Failure};
use crate::core::words::reason;
use crate::sys::{fds, process};
use crate::wire::key::{Key, MAX_KEY};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The key in it.
pub fn read(path: &Path) -> Result<Key, Failure> {
    let bytes = content(path)?;
    let shown = path.display();
    Key::parse(&bytes).map_err(|why| (EX_CONFIG, format!("--key-file {shown}: {why}")))
}

/// What is in it, as far as it can be the key.
fn content(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let cannot = |e: std::io::Error| (EX_CONFIG, format!("--key-file {shown}: {}", reason(&e)));
    let file = fds::open_regular(path).map_err(cannot)?;
    let what = file.metadata().map_err(cannot)?;
    let (mode, owner) = (what.mode() & 0o7777, what.uid());
    if mode & 0o077 != 0 {
        let why = format!(
            "--key-file {shown}: mode {mode:04o} lets others have it: chmod 600, and make a new key, since somebody may have read this one"
        );
        return Err((EX_NOPERM, why));
    }
    if owner != 0 && owner != process::euid() {
        let why = format!(
            "--key-file {shown}: it belongs to uid {owner}, who could put another key there"
        );
        return Err((EX_NOPERM, why));
    }
    let mut bytes = Vec::new();
    let most = MAX_KEY as u64 + 2;
    file.take(most).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}
