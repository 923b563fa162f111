//! Every parser of `wire`, fed with what it should not be fed with. Inputs are the corpus, as it is, and
//! then mutations of it, each made from a seed of its own: the same seed is the same input, on every
//! machine. `FUZZ=1000000 cargo test --test fuzz` makes so many of each; `FUZZ_SEED` is the first seed.
//! `make fuzz MINUTES=30` has inputs searched for by what they lead to, too (fuzz/).
//! An input that fails is printed with its seed and kept in target/fuzz, from where it belongs into the
//! corpus, together with what mends it.
#![cfg(any(test, fuzzing))]
#![cfg_attr(fuzzing, no_main, allow(dead_code, unused_imports))]
// A test that cannot go on has failed: see clippy.toml, which does not know that this is only that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod deps;
mod http;
mod lines;
mod mutate;
#[path = "../sim/prng.rs"]
#[allow(dead_code, clippy::unreachable)]
mod prng;
mod typed;
mod words;

use mutate::Corpus;
use prng::Prng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Inputs for each parser unless FUZZ says how many.
const SOME: u64 = 3000;

fn number(variable: &str, or: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
        Err(_) => or,
    }
}

/// Tries the parser with the corpus of that name, and with what becomes of it. `check` panics at what
/// must not be; the chance that it gets is for where it cuts.
fn fuzz(name: &str, check: fn(&[u8], &mut Prng)) {
    let corpus = Corpus::read(name);
    for (file, input) in &corpus.inputs {
        attempt(name, file, input, 0, check);
    }
    let first = number("FUZZ_SEED", 1);
    for seed in first..first + number("FUZZ", SOME) {
        let mut chance = Prng::new(seed);
        let input = corpus.mutated(&mut chance);
        attempt(
            name,
            &format!("FUZZ_SEED={seed} FUZZ=1"),
            &input,
            seed,
            check,
        );
    }
}

fn attempt(name: &str, what: &str, input: &[u8], seed: u64, check: fn(&[u8], &mut Prng)) {
    let mut chance = Prng::new(seed);
    if catch_unwind(AssertUnwindSafe(|| check(input, &mut chance))).is_ok() {
        return;
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    let kept = dir.join(format!("{name}-{seed}"));
    let keep = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&kept, input));
    let shown = input.get(..2000).unwrap_or(input).escape_ascii();
    panic!(
        "{name}: {what} fails, {} bytes, in {} ({keep:?}); keep it in tests/fuzz/corpus/{name}:\n{shown}",
        input.len(),
        kept.display()
    );
}

/// All of them: a test of each, and what one is by its name.
macro_rules! parsers {
    ($($test:ident: $name:literal, $check:path;)*) => {
        $(#[test]
        fn $test() {
            fuzz($name, $check);
        })*

        #[cfg(fuzzing)]
        fn named(name: &str) -> fn(&[u8], &mut Prng) {
            match name {
                $($name => $check,)*
                other => panic!("{other} is none of the parsers in tests/fuzz/main.rs"),
            }
        }
    };
}

parsers! {
    requests_of_http: "http", http::check;
    values_of_json: "json", words::json;
    lines_that_are_typed: "command", words::command;
    channels_of_node: "ipc", words::ipc;
    datagrams_of_sd_notify: "datagram", words::datagram;
    acknowledgements_of_einhorn: "einhorn", words::einhorn;
    files_in_elf: "elf", deps::elf;
    lists_of_mappings: "maps", deps::maps;
    records_of_workers: "legacy", words::legacy;
    lists_of_packages: "packages", deps::packages;
    modules_of_go: "golang", deps::golang;
    output_of_workers: "output", lines::output;
    words_of_programs: "relayed", lines::relayed;
    lists_of_sockets: "diag", lines::diag;
    command_lines: "argv", typed::argv;
    files_of_options_and_variables: "files", typed::files;
}

// The parser is the one that the binary is named after; the chance is drawn from the end of the input, so that
// where it is cut is searched for as well.
#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let end = bytes.len().saturating_sub(8);
    let chance = bytes.get(end..).unwrap_or_default();
    named(env!("CARGO_BIN_NAME"))(bytes, &mut Prng::of(chance));
});

#[test]
fn a_seed_is_an_input() {
    let corpus = Corpus::read("http");
    let of = |seed| corpus.mutated(&mut Prng::new(seed));
    assert_eq!(of(7), of(7));
    let all: std::collections::BTreeSet<Vec<u8>> = (0..200).map(of).collect();
    assert!(all.len() > 150, "only {} of 200 differ", all.len());
}
