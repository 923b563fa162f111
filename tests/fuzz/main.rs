//! Every parser of `wire`, fed with what it should not be fed with. Inputs are the corpus, as it is, and
//! then mutations of it, each made from a seed of its own: the same seed is the same input, on every
//! machine. `FUZZ=1000000 cargo test --test fuzz` makes so many of each; `FUZZ_SEED` is the first seed.
//! An input that fails is printed with its seed and kept in target/fuzz, from where it belongs into the
//! corpus, together with what mends it.
#![cfg(test)] // a test that cannot go on has failed: see clippy.toml

mod deps;
mod http;
mod mutate;
#[path = "../sim/prng.rs"]
#[allow(dead_code, clippy::unreachable)]
mod prng;
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

#[test]
fn requests_of_http() {
    fuzz("http", http::check);
}

#[test]
fn values_of_json() {
    fuzz("json", words::json);
}

#[test]
fn lines_that_are_typed() {
    fuzz("command", words::command);
}

#[test]
fn channels_of_node() {
    fuzz("ipc", words::ipc);
}

#[test]
fn datagrams_of_sd_notify() {
    fuzz("datagram", words::datagram);
}

#[test]
fn acknowledgements_of_einhorn() {
    fuzz("einhorn", words::einhorn);
}

#[test]
fn files_in_elf() {
    fuzz("elf", deps::elf);
}

#[test]
fn lists_of_mappings() {
    fuzz("maps", deps::maps);
}

#[test]
fn records_of_workers() {
    fuzz("legacy", words::legacy);
}

#[test]
fn lists_of_packages() {
    fuzz("packages", deps::packages);
}

#[test]
fn modules_of_go() {
    fuzz("golang", deps::golang);
}

#[test]
fn a_seed_is_an_input() {
    let corpus = Corpus::read("http");
    let of = |seed| corpus.mutated(&mut Prng::new(seed));
    assert_eq!(of(7), of(7));
    let all: std::collections::BTreeSet<Vec<u8>> = (0..200).map(of).collect();
    assert!(all.len() > 150, "only {} of 200 differ", all.len());
}
