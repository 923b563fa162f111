//! --print-unit: the file that would start this very cluster, from what was typed and what is here.
//! Nothing is started, and nothing is looked at but where things are.

use super::{client, lookup};
use crate::core::codes::{EX_OSERR, EX_USAGE, Failure};
use crate::core::words::reason;
use crate::settings::Settings;
use crate::sys::procfs;
use crate::units::{self, Facts, Kind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Prints it; returns the exit code.
pub fn run(kind: Kind, settings: &Settings) -> Result<u8, Failure> {
    let os = |what: &str, e: &std::io::Error| (EX_OSERR, format!("{what}: {}", reason(e)));
    let here = procfs::working_directory();
    let here = here.map_err(|e| os("cannot tell the working directory", &e))?;
    let binary = std::env::current_exe();
    let binary = binary.map_err(|e| os("cannot tell where our own program is", &e))?;
    let bare = |w: &&std::ffi::OsString| !w.as_encoded_bytes().contains(&b'/');
    let command = settings.command.first().filter(bare);
    let found = command.and_then(|w| lookup::find(w, std::env::var_os("PATH"), &here).ok());
    let text = |p: &Path| match p.to_str() {
        Some(text) => Ok(text.to_string()),
        None => {
            let (kind, shown) = (kind.word(), p.to_string_lossy());
            Err((
                EX_USAGE,
                format!("--print-unit {kind}: {shown} is not UTF-8, as such a file has to be"),
            ))
        }
    };
    let facts = Facts {
        here: text(&here)?,
        binary: text(&binary)?,
        program: found
            .map(|p| text(&here.join(OsStr::from_bytes(p.as_bytes()))))
            .transpose()?,
    };
    let file = units::print(kind, settings, &facts).map_err(|why| {
        let kind = kind.word();
        (EX_USAGE, format!("--print-unit {kind}: {why}"))
    })?;
    client::print(&file)
}
