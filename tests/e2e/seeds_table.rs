//! The list of the seeds' cases, seeds.md, held to what is in their packages. (That each test it names is there,
//! and each of these tests is named, is looked at by tests/tidy.rs.)

use crate::place::packages;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// By `PACKAGE VERSION: FILE`, the names in the first column.
fn listed() -> BTreeMap<String, BTreeSet<String>> {
    let text = include_str!("seeds.md");
    let sections = text.split("\n## ").skip(1);
    let rows = |body: &str| {
        let rows = body.lines().filter_map(|l| l.strip_prefix("| "));
        let names = rows.filter_map(|r| r.split(" | ").next());
        names.skip(1).map(String::from).collect()
    };
    sections
        .map(|s| {
            let (head, body) = s.split_once('\n').unwrap();
            (head.to_string(), rows(body))
        })
        .collect()
}

/// The names that a file of tests gives its cases: what stands in quotes behind this call.
fn cases(text: &str, call: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (at, _) in text.match_indices(call) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '.') {
            continue;
        }
        let rest = text[at + call.len()..].trim_start();
        let Some(quote) = rest.chars().next().filter(|c| "'\"".contains(*c)) else {
            continue;
        };
        let name = rest[1..].split(quote).next().unwrap();
        // What a file is in a worker of mocha's own.
        if name != "WORKER" {
            all.insert(name.to_string());
        }
    }
    all
}

#[test]
#[ignore = "needs recluster, cluster-service: make test-servers"]
fn heavy_no_case_of_the_packages_is_missing_and_none_is_made_up() {
    let listed = listed();
    let mut seen = 0;
    for (package, call) in [("cluster-service", "it("), ("recluster", "runTest(")] {
        let dir = packages().join(package);
        let about = fs::read_to_string(dir.join("package.json")).unwrap();
        let about: tinyjson::JsonValue = about.parse().unwrap();
        let version = about["version"].get::<String>().unwrap();
        let mut there = BTreeSet::new();
        for file in fs::read_dir(dir.join("test")).unwrap().flatten() {
            let name = file.file_name().into_string().unwrap();
            if !name.ends_with(".js") {
                continue;
            }
            let cases = cases(&fs::read_to_string(file.path()).unwrap(), call);
            let head = format!("{package} {version}: test/{name}");
            assert_eq!(listed.get(&head), Some(&cases), "{head}");
            seen += cases.len();
            there.insert(head);
        }
        let named = listed
            .keys()
            .filter(|k| k.starts_with(&format!("{package} ")));
        let named = named.filter(|k| k.contains(": test/")).cloned();
        assert_eq!(named.collect::<BTreeSet<_>>(), there);
    }
    assert!(seen > 70, "{seen}");
    // Of one that has no tests there are none to list.
    assert!(!packages().join("cluster-master/test").exists());
}
