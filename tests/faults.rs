//! The faults of the manual are those of the tests, in the same order, with the same events; and each has a story
//! that is there.
#![cfg(test)] // a test that cannot go on has failed: see clippy.toml
#![allow(clippy::string_slice)]

#[path = "e2e/faults_table.rs"]
mod faults_table;

use faults_table::FAULTS;
use std::fs;
use std::path::Path;

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Names, and the events in parentheses.
fn in_manual() -> Vec<(String, Vec<String>)> {
    let page = text("man/minicluster.7");
    let section = page.split(".Sh FAULTS\n").nth(1).unwrap();
    let section = section.split(".Sh ").next().unwrap();
    let items = section.split("\n.It ").skip(1);
    let one = |item: &str| {
        let name = item.lines().next().unwrap().replace("\\-", "-");
        let said = item.lines().filter_map(|l| l.strip_prefix(".Pq Cm "));
        let said = said.flat_map(|l| l.split([' ', ',', '.', ':']));
        let said = said.filter(|w| !w.is_empty()).map(String::from);
        (name, said.collect())
    };
    items.map(one).collect()
}

#[test]
fn the_manual_has_every_fault_and_what_is_said_of_it() {
    let strings = |all: &[&str]| all.iter().map(|s| s.to_string()).collect();
    let of_tests: Vec<(String, Vec<String>)> = FAULTS
        .iter()
        .map(|f| (f.name.to_string(), strings(f.says)))
        .collect();
    assert_eq!(in_manual(), of_tests);
    let events = text("man/minicluster.1");
    for event in FAULTS.iter().flat_map(|f| f.says) {
        let known = events.lines().filter(|l| l.starts_with(".Cm "));
        let mut words = known.flat_map(|l| l.split([' ', ',']));
        assert!(words.any(|w| w == *event), "{event} is no event");
    }
}

#[test]
fn every_fault_is_injected_by_a_story_that_looks_for_what_is_said() {
    for f in FAULTS {
        let (file, story) = f.story.split_once("::").unwrap();
        let source = text(&format!("tests/e2e/{file}.rs"));
        let (before, _) = source
            .split_once(&format!("\nfn {story}() {{"))
            .unwrap_or_else(|| panic!("{}: there is no story {}", f.name, f.story));
        let head = before.lines().rev().take_while(|l| l.starts_with("#["));
        assert!(
            head.into_iter().any(|l| l == "#[test]"),
            "{} is none",
            f.story
        );
        for event in f.says {
            let looked = source.contains(&format!("\"{event}\""))
                || source.contains(&format!("\\\"{event}\\\""));
            assert!(looked, "{} does not look for {event}", f.story);
        }
        assert!(!f.how.is_empty() && !f.promise.is_empty());
    }
}
