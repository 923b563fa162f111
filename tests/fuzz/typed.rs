//! What an operator types or writes into files.

use crate::prng::Prng;
use minicluster::cli;
use minicluster::options::config as file_of_options;
use minicluster::settings;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

fn no_file(_: &str) -> Result<Vec<u8>, String> {
    Err("there is none".into())
}

/// Whatever is typed is understood, or there is a sentence about it.
pub fn argv(input: &[u8], _: &mut Prng) {
    // (No argument holds a NUL.)
    let words: Vec<OsString> = input
        .split(|b| matches!(b, b'\0' | b'\n'))
        .take(64)
        .map(|w| OsString::from_vec(w.to_vec()))
        .collect();
    if let Err(wrong) = cli::parse(&words, &no_file) {
        assert!(!wrong.message.is_empty() && matches!(wrong.code, 64 | 78));
    }
}

/// A file of options, and one of variables.
pub fn files(input: &[u8], _: &mut Prng) {
    let lines = input.split(|b| *b == b'\n').count();
    let (entries, wrong) = file_of_options::parse("f", input);
    assert!(entries.len() <= lines);
    if let Some(why) = wrong {
        assert!(why.starts_with("f:") && !why.contains('\n'), "{why}");
    }
    match settings::env_file(input) {
        Ok(all) => assert!(all.len() <= lines),
        Err((line, why)) => assert!(line <= lines && !why.is_empty()),
    }
}
