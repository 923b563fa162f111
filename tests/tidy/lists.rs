//! Lists that stand in two places, and what holds them together.

use crate::{root, rust_files};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

#[test]
fn every_parser_that_is_fuzzed_is_searched_through_too() {
    let names = |text: &str, begin: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|l| l.starts_with(begin));
        lines
            .filter_map(|l| l.split('"').nth(1))
            .map(String::from)
            .collect()
    };
    let tests = fs::read_to_string(root().join("tests/fuzz/main.rs")).unwrap();
    let table = tests.split("\nparsers! {").nth(1).unwrap();
    let parsers = names(table.split("\n}").next().unwrap(), "    ");
    assert!(parsers.len() > 10);
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let mut targets = names(&manifest, "name = ");
    assert!(targets.remove("minicluster-fuzz") && targets.remove("cluster"));
    assert_eq!(targets, parsers);
}

/// What it shows is what is typed there by now, and would be understood.
#[test]
fn the_recording_is_one_of_this_version() {
    let script = fs::read_to_string(root().join("scripts/recording")).unwrap();
    let scenes = script.split("\nSCENES = [\n").nth(1).unwrap();
    let scenes = scenes.split("\n]\n").next().unwrap();
    let typed: Vec<&str> = scenes.lines().filter_map(|l| l.split('"').nth(1)).collect();
    let picture = fs::read_to_string(root().join("scripts/recording.svg")).unwrap();
    let words = picture.split("<desc>").nth(1).unwrap();
    let words = words.split("</desc>").next().unwrap();
    let words = words
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&");
    let shown: Vec<&str> = words.lines().filter_map(|l| l.strip_prefix("$ ")).collect();
    assert_eq!(shown, typed, "make recording");
    let ours = typed.iter().filter_map(|t| t.strip_prefix("minicluster "));
    for line in ours {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let parsed = minicluster::cli::parse(&args, &|f| Err(f.to_string()));
        assert!(parsed.is_ok(), "{line}: {parsed:?}");
    }
    // It says what was counted there.
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let counted = words
        .lines()
        .skip_while(|l| !l.starts_with("$ wc "))
        .nth(1)
        .unwrap();
    assert!(
        readme.contains(&format!("of {counted} requests none was lost")),
        "{counted}"
    );
}

/// Each case of those whose place we take has a verdict, and tests or a reason; and each test of these is in the
/// list. (Whether the cases are theirs: e2e/seeds_table.rs.)
#[test]
fn every_case_of_the_seeds_has_its_verdict_and_every_test_of_them_a_case() {
    let table = fs::read_to_string(root().join("tests/e2e/seeds.md")).unwrap();
    let mut tests = BTreeSet::new();
    for (name, text) in rust_files("tests/e2e") {
        let file = name.rsplit('/').next().unwrap().trim_end_matches(".rs");
        let mut marked = false;
        for line in text.lines() {
            marked |= line == "#[test]";
            if let Some(rest) = line.strip_prefix("fn ").filter(|_| marked) {
                tests.insert(format!("{file}::{}", rest.split('(').next().unwrap()));
                marked = false;
            }
        }
    }
    let mut named = BTreeSet::new();
    let mut cases = 0;
    let rows = table.lines().filter(|l| l.starts_with("| "));
    for row in rows.filter(|r| !r.starts_with("| case | verdict ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, verdict, here] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let ours: Vec<&str> = here.split('`').skip(1).step_by(2).collect();
        let ours: Vec<&str> = ours.into_iter().filter(|w| w.contains("::")).collect();
        let reason = here.split('`').step_by(2).collect::<String>();
        let reason = reason.chars().any(char::is_alphabetic);
        match verdict {
            "as there" => assert!(!ours.is_empty(), "no test: {row}"),
            "otherwise" => assert!(!ours.is_empty() && reason, "no test or no reason: {row}"),
            "not here" => assert!(ours.is_empty() && reason, "no reason, or a test: {row}"),
            _ => panic!("no verdict: {row}"),
        }
        named.extend(ours.into_iter().map(String::from));
        cases += 1;
    }
    assert!(cases > 100, "{cases}");
    let gone: Vec<_> = named.difference(&tests).collect();
    assert!(gone.is_empty(), "no such test: {gone:?}");
    let own = tests.iter().filter(|t| t.starts_with("seeds"));
    let own = own.filter(|t| !t.starts_with("seeds_table::"));
    let left: Vec<_> = own.filter(|t| !named.contains(*t)).collect();
    assert!(left.is_empty(), "in no row of seeds.md: {left:?}");
}

/// A panic takes the service down, so clippy refuses in src what panics: unwrap, expect, an index. It is switched off
/// in one place, where invariants are checked in the builds that tests run.
#[test]
fn what_panics_is_refused_everywhere_but_where_invariants_are_checked() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let refused = [
        "unwrap_used",
        "expect_used",
        "panic",
        "unreachable",
        "todo",
        "indexing_slicing",
        "string_slice",
    ];
    for lint in refused {
        assert!(
            manifest.contains(&format!("\n{lint} = \"deny\"\n")),
            "{lint}"
        );
    }
    let mut off = Vec::new();
    for (name, text) in rust_files("src") {
        let lines = text
            .lines()
            .filter(|l| l.contains("allow(") || l.contains("expect(clippy"));
        let lines = lines.filter(|l| {
            refused
                .iter()
                .any(|lint| l.contains(&format!("clippy::{lint}")))
        });
        off.extend(lines.map(|l| format!("{name}: {}", l.trim())));
    }
    assert_eq!(off, ["src/core/turn.rs: #[allow(clippy::panic)]"]);
}

/// The exchange of machines behind HAProxy and nginx has one run's figures, in README.md and in minicluster(7).
#[test]
fn the_figures_behind_balancers_are_the_same_in_the_manual() {
    let read = |name| fs::read_to_string(root().join(name)).unwrap();
    // What was exchanged how is said in fewer words there; which balancer, and what was counted, is the same.
    let row = |line: &str, between: &str| -> Vec<String> {
        let cells: Vec<&str> = line.split(between).map(str::trim).collect();
        let (what, counts) = cells.split_first().unwrap();
        let balancer = what.split(':').next().unwrap();
        let cells = [balancer].into_iter().chain(counts.iter().copied());
        cells.map(String::from).collect()
    };
    let rows = |text: &str, start: [&str; 2], between: &str| -> Vec<Vec<String>> {
        let lines = text.lines().filter_map(|l| {
            let its = start.iter().any(|s| l.starts_with(s));
            its.then(|| {
                row(
                    l.trim_start_matches(".It ").trim_matches(['|', ' ']),
                    between,
                )
            })
        });
        lines.filter(|cells| cells.len() == 4).collect()
    };
    let there = rows(&read("README.md"), ["| HAProxy: ", "| nginx: "], "|");
    let here = [".It HAProxy: ", ".It nginx: "];
    let here = rows(&read("man/minicluster.7"), here, " Ta ");
    assert_eq!(there.len(), 5, "{there:?}");
    assert_eq!(there, here);
}
