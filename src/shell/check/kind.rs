//! Is COMMAND a file that this kernel can execute? Its beginning tells, without executing it.

use crate::core::codes::{CANNOT_EXECUTE, Failure};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const ELF: &[u8] = b"\x7fELF";
/// As far as e_machine.
const HEAD: usize = 20;
/// Machines that run programs of another one as well: x86-64 of i386, AArch64 of ARM.
const ALSO: [(u16, u16); 2] = [(62, 3), (183, 40)];
/// What else is registered, and may be executed by an interpreter.
const MISC: &str = "/proc/sys/fs/binfmt_misc";

/// Why it cannot be executed: a problem; or what is to be said where an interpreter may be registered for it.
pub(super) fn doubt(program: &CString) -> Option<Result<String, Failure>> {
    let path = Path::new(OsStr::from_bytes(program.as_bytes()));
    // One that may be executed and not read is not looked at.
    let what = what_is_wrong(&head(path)?, &head(Path::new("/proc/self/exe"))?)?;
    let shown = path.display();
    let more = fs::read_dir(MISC).into_iter().flatten().flatten();
    let mut more = more.filter(|e| e.file_name() != "register" && e.file_name() != "status");
    Some(match more.next() {
        Some(_) => Ok(format!(
            "{shown}: {what}: it can be executed only if an interpreter for it is registered ({MISC})"
        )),
        None => Err((
            CANNOT_EXECUTE,
            format!("{shown}: {what}: exec: Exec format error"),
        )),
    })
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)
        .ok()
        .filter(|f| f.metadata().is_ok_and(|m| m.is_file()))?;
    file.take(HEAD as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Class, byte order and machine of an ELF file.
fn machine(head: &[u8]) -> Option<u16> {
    let bytes: [u8; 2] = head.get(18..20)?.try_into().ok()?;
    let little = *head.get(5)? == 1;
    head.starts_with(ELF).then(|| match little {
        true => u16::from_le_bytes(bytes),
        false => u16::from_be_bytes(bytes),
    })
}

fn what_is_wrong(theirs: &[u8], ours: &[u8]) -> Option<String> {
    if theirs.starts_with(b"#!") {
        return None;
    }
    match (machine(theirs), machine(ours)?) {
        (None, _) => Some("neither a program (ELF) nor a script (#!)".into()),
        (Some(n), us) if n == us || ALSO.contains(&(us, n)) => None,
        (Some(n), us) => Some(format!(
            "a program for another machine (e_machine {n}, and this one is {us})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        head.extend(machine.to_le_bytes());
        head
    }

    #[test]
    fn scripts_and_programs_of_this_machine_can_be_executed_and_nothing_else() {
        let ours = elf(62);
        for fine in [elf(62), elf(3), b"#!/bin/sh\n".to_vec()] {
            assert_eq!(what_is_wrong(&fine, &ours), None);
        }
        for (bad, why) in [
            (
                elf(183),
                "another machine (e_machine 183, and this one is 62)",
            ),
            (b"garbage".to_vec(), "neither a program"),
            (Vec::new(), "neither a program"),
            (elf(62)[..19].to_vec(), "neither a program"),
        ] {
            let said = what_is_wrong(&bad, &ours).unwrap();
            assert!(said.contains(why), "{said}");
        }
        assert_eq!(doubt(&c"/proc/self/exe".to_owned()), None);
    }
}
