//! The rules of the house that a machine can hold us to: who may import whom, where unsafe and
//! clocks may be, that the tables of options, verbs, routes and metrics are in the manual and in every
//! completion, that files open with a paragraph and stay small enough to be one idea.
#![cfg(test)] // a test that cannot go on has failed: see clippy.toml
#![allow(clippy::string_slice)]

#[path = "tidy/lists.rs"]
mod lists;

use minicluster::options;
use minicluster::verbs::VERBS;
use minicluster::wire::metrics::FAMILIES;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines after which a file is probably two ideas.
const MAX_LINES: usize = 650;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(dir), &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no files in {dir}");
    paths
        .into_iter()
        .map(|p| {
            let name = p.strip_prefix(root()).unwrap().display().to_string();
            (name, fs::read_to_string(p).unwrap())
        })
        .collect()
}

/// The text without comments, strings and unit tests: what the rules are about.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]").next().unwrap();
    body.lines()
        .map(|l| l.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Rooms that a file's imports and paths name.
fn rooms_used(code: &str) -> BTreeSet<String> {
    code.match_indices("crate::")
        .map(|(at, m)| {
            let rest = &code[at + m.len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            rest[..end].to_string()
        })
        .filter(|room| !room.is_empty())
        .collect()
}

#[test]
fn imports_flow_downwards_only() {
    // Room, and what it may use beside itself.
    let allowed: [(&str, &[&str]); 12] = [
        ("src/core/", &["core"]),
        ("src/page/", &["page"]),
        ("src/sys/", &["sys"]),
        ("src/wire/", &["wire", "core", "settings", "verbs"]),
        ("src/settings/", &["core", "settings"]),
        ("src/verbs/", &["settings", "verbs"]),
        ("src/options/", &["core", "options", "settings", "verbs"]),
        ("src/completions/", &["options", "verbs"]),
        (
            "src/cli/",
            &[
                "core",
                "options",
                "settings",
                "verbs",
                "completions",
                "units",
            ],
        ),
        (
            "src/units/",
            &["core", "options", "settings", "units", "wire"],
        ),
        (
            "src/shell/",
            &[
                "shell", "core", "wire", "sys", "settings", "options", "verbs", "units", "page",
            ],
        ),
        ("src/lib.rs", &[]),
    ];
    for (name, text) in rust_files("src") {
        // Unit tests may try a thing with what it is for.
        if name == "src/main.rs" || name.ends_with("/tests.rs") {
            continue;
        }
        let (_, may) = allowed
            .iter()
            .find(|(room, _)| name.starts_with(room))
            .unwrap_or_else(|| panic!("{name} is in no room"));
        for used in rooms_used(&code(&text)) {
            assert!(may.contains(&used.as_str()), "{name} uses crate::{used}");
        }
    }
}

#[test]
fn core_and_wire_are_pure() {
    let banned = [
        "std::fs",
        "std::env",
        "std::process",
        "std::os",
        "std::time::Instant",
        "SystemTime",
        "Instant::",
        "libc::",
        "nix::",
        "mio::",
        "TcpListener",
        "UnixStream",
        "println!",
        "unsafe",
    ];
    for dir in ["src/core", "src/wire", "src/units"] {
        for (name, text) in rust_files(dir) {
            for word in banned {
                assert!(!code(&text).contains(word), "{name} has {word}");
            }
        }
    }
}

#[test]
fn unsafe_and_clocks_are_in_sys_and_nobody_sleeps() {
    for (name, text) in rust_files("src") {
        if name.ends_with("/tests.rs") {
            continue;
        }
        let code = code(&text);
        for word in ["thread::sleep", "thread::spawn", ".unwrap()"] {
            assert!(!code.contains(word), "{name} has {word}");
        }
        if name.starts_with("src/sys/") {
            continue;
        }
        for word in [
            "unsafe {",
            "unsafe fn",
            "allow(unsafe_code)",
            "Instant::now",
            "SystemTime::now",
        ] {
            assert!(!code.contains(word), "{name} has {word}");
        }
    }
}

/// What clippy does not know of, and panics at what the kernel or a client says.
#[test]
fn nothing_is_used_that_panics_where_one_does_not_see_it() {
    let banned = [
        // Dropped, where the file cannot be unlocked; sys::flock.
        "Flock<",
        "Flock::lock",
        // A width or precision that is a value may be more than a format can have, 65,535.
        "$}",
        "$?}",
        ".*}",
    ];
    for (name, text) in rust_files("src") {
        let code = code(&text);
        let used: Vec<_> = banned.iter().filter(|b| code.contains(**b)).collect();
        assert!(used.is_empty(), "{name} uses {used:?}");
    }
}

#[test]
fn files_open_with_a_paragraph_and_stay_one_idea() {
    for dir in ["src", "tests"] {
        for (name, text) in rust_files(dir) {
            assert!(text.starts_with("//!"), "{name} does not say what it is");
            let lines = text.lines().count();
            assert!(
                lines <= MAX_LINES,
                "{name}: {lines} lines (limit {MAX_LINES})"
            );
        }
    }
}

#[test]
fn the_manual_has_every_option_and_verb_and_no_other() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let mut in_page = BTreeSet::new();
    for line in page.lines().filter(|l| l.starts_with(".It Fl ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let long = words.iter().find_map(|w| w.strip_prefix('-')).unwrap();
        let short = words[2].strip_prefix('-').map_or(words[2], |_| "");
        in_page.insert((short.to_string(), long.to_string()));
    }
    let in_table: BTreeSet<(String, String)> = options::all()
        .map(|o| (o.short.to_string(), o.long.to_string()))
        .collect();
    assert_eq!(in_page, in_table);
    for o in options::all().filter(|o| o.default.starts_with(|c: char| c.is_ascii_digit())) {
        let at = page.find(&format!("Fl -{} ", o.long)).unwrap();
        let entry = &page[at..];
        let end = entry[1..].find(".It Fl ").map_or(entry.len(), |e| e + 1);
        let said = entry[..end].contains(o.default);
        assert!(
            said,
            "the manual does not give {} as the default of --{}",
            o.default, o.long
        );
    }
    let verbs = page.split(".Sh VERBS").nth(1).unwrap();
    let verbs = verbs.split(".Sh ").next().unwrap();
    let in_page: BTreeSet<&str> = verbs
        .lines()
        .filter_map(|l| l.strip_prefix(".It Cm "))
        // Some are told of together.
        .flat_map(|l| l.split(" , "))
        .map(|l| l.split_whitespace().next().unwrap())
        .collect();
    let in_table: BTreeSet<&str> = VERBS.iter().map(|v| v.name).collect();
    assert_eq!(in_page, in_table);
}

#[test]
fn the_page_on_the_lifecycle_names_what_there_is() {
    let page = fs::read_to_string(root().join("man/minicluster.7")).unwrap();
    let words: Vec<&str> = page.split_whitespace().collect();
    let pairs: Vec<(&str, &str)> = words.windows(2).map(|w| (w[0], w[1])).collect();
    let flags = pairs.iter().filter(|(m, _)| *m == "Fl" || *m == ".Fl");
    let named: BTreeSet<&str> = flags.filter_map(|(_, f)| f.strip_prefix('-')).collect();
    let all: BTreeSet<&str> = options::all().map(|o| o.long).collect();
    assert!(named.is_subset(&all), "{:?}", named.difference(&all));
    assert!(named.contains("drain-timeout"));
    // `Fl -drain-timeout Pq 10s` is a default.
    for four in words.windows(4).filter(|w| w[0].ends_with("Fl")) {
        let exact = |o: &&options::Opt| o.default.starts_with(|c: char| c.is_ascii_digit());
        let option = options::all().find(|o| four[1].strip_prefix('-') == Some(o.long));
        let option = option.filter(exact);
        let said = matches!(four[2], "Pq" | ".Pq").then_some(four[3]);
        if let (Some(o), Some(said)) = (option, said.filter(|s| s.starts_with(char::is_numeric))) {
            assert_eq!(said, o.default, "of --{}", o.long);
        }
    }
    let others = page.lines().filter_map(|l| l.strip_prefix(".Sx "));
    for section in others.map(|l| l.trim_end_matches([' ', '.', ',', ':', ';'])) {
        assert!(page.contains(&format!(".Sh {section}\n")), "no {section}");
    }
}

/// Verbs are marked Ic there, events Em, routes Cm and Pa; options are looked at above.
#[test]
fn what_others_come_to_is_there() {
    let page = fs::read_to_string(root().join("man/minicluster.7")).unwrap();
    let section = page.split(".Sh COMING FROM\n").nth(1).unwrap();
    let section = section.split(".Sh ").next().unwrap();
    let words: Vec<&str> = section.split_whitespace().collect();
    let marked = |mark: &str| -> BTreeSet<&str> {
        let pairs = words.windows(2);
        let hits = pairs.filter(|p| p[0].trim_start_matches('.') == mark);
        hits.map(|p| p[1]).collect()
    };
    // Programs that are typed.
    let mut verbs: BTreeSet<&str> = ["minicluster", "nc", "curl", "node"].into();
    verbs.extend(VERBS.iter().map(|v| v.name));
    let named = marked("Ic");
    assert!(named.is_subset(&verbs), "{:?}", named.difference(&verbs));
    assert!(named.len() > 20);
    let manual = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let events = events_in(&manual);
    let events: BTreeSet<&str> = events.iter().map(String::as_str).collect();
    let named = marked("Em");
    assert!(named.is_subset(&events), "{:?}", named.difference(&events));
    assert!(named.len() > 8);
    let routes = minicluster::wire::routes::ROUTES.iter();
    let routes = routes.map(|r| {
        let method = format!("{:?}", r.method).to_uppercase();
        (method, r.full_path(minicluster::wire::routes::ECV))
    });
    let routes: BTreeSet<(String, String)> = routes.collect();
    let asked = words.windows(3).filter(|w| w[1] == "Pa");
    let asked = asked.map(|w| (w[0].to_string(), w[2].to_string()));
    let asked: BTreeSet<(String, String)> = asked.collect();
    assert!(asked.is_subset(&routes), "{:?}", asked.difference(&routes));
    assert!(asked.len() > 8);
}

/// A story shows what it does: it is typed, called or asked for somewhere.
#[test]
fn every_verb_has_a_story() {
    let stories: String = rust_files("tests/e2e").into_iter().map(|f| f.1).collect();
    for verb in &VERBS {
        let name = verb.name;
        let there = ["\"", "cmd=", "--json "].iter().any(|before| {
            let ends = ["\"", " ", "("].iter();
            let mut forms = ends.map(|after| format!("{before}{name}{after}"));
            forms.any(|form| stories.contains(&form))
        });
        assert!(there, "no story has {name}");
    }
}

/// Both what holds and what is there to be uncommented; and each is named in the manual.
#[test]
fn the_files_for_those_who_come_from_elsewhere_are_right() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let files = fs::read_dir(root().join("contrib")).unwrap().flatten();
    let files = files.filter(|f| f.path().extension().is_some_and(|e| e == "conf"));
    // That one is nginx's.
    let files = files.filter(|f| f.file_name() != "nginx.conf");
    let mut seen = 0;
    for file in files {
        let name = file.file_name().into_string().unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        for line in text.lines() {
            assert!(line.len() <= 120, "{name}: {line}");
            // `#option value`; a sentence has a blank behind the mark.
            let bare = line.strip_prefix('#').filter(|l| !l.starts_with(' '));
            let (entries, wrong) = options::config::parse(&name, bare.unwrap_or(line).as_bytes());
            assert_eq!(wrong, None, "{line}");
            for entry in entries {
                let mut settings = minicluster::settings::Settings::default();
                let fits = (entry.opt.apply)(&mut settings, &entry.value);
                assert_eq!(fits, Ok(()), "{name}: {line}");
            }
        }
        assert!(page.contains(&name), "{name} is not in the manual");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

/// CONTRIB=write writes them anew.
#[test]
fn the_files_that_start_a_cluster_are_what_is_printed_for_the_line_in_the_manual() {
    use minicluster::cli::{Invocation, parse};
    use minicluster::units::{Facts, Kind, print};
    let line = "-n 4 -p 3000 --name app --user USER -- ./server";
    let facts = Facts {
        here: "/srv/app".into(),
        binary: "/usr/local/bin/minicluster".into(),
        program: None,
    };
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    assert!(page.contains(&format!(
        ".Ql {}",
        line.replace("USER -- ./server", "app -- ./server :")
    )));
    for kind in Kind::ALL {
        // In an empty image nobody has a name.
        let (name, user) = match kind {
            Kind::Systemd => ("minicluster.service", "app"),
            Kind::Init => ("minicluster.init", "app"),
            Kind::Containerfile => ("Containerfile", "65532"),
            Kind::K8s => ("k8s.yaml", "65532"),
        };
        let line = line.replace("USER", user);
        let option = format!("--print-unit={}", kind.word());
        let args = [option.as_str()].into_iter().chain(line.split(' '));
        let args: Vec<_> = args.map(Into::into).collect();
        let Ok(Invocation::PrintUnit(kind, settings)) = parse(&args, &|_| Ok(Vec::new())) else {
            panic!("{args:?}");
        };
        let text = print(kind, &settings, &facts).unwrap();
        let path = root().join("contrib").join(name);
        if std::env::var("CONTRIB").is_ok_and(|v| v == "write") {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), text, "{name}");
        assert!(page.contains(&format!("share/minicluster/{name}")));
    }
}

#[test]
fn the_manual_names_the_options_that_a_reload_does_not_take() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let list = page
        .split("and cannot be changed while it runs:")
        .nth(1)
        .unwrap();
    let list = list
        .split("Of these the value of the start is kept")
        .next()
        .unwrap();
    let words = list.split_whitespace();
    let in_page: BTreeSet<&str> = words.filter_map(|w| w.strip_prefix('-')).collect();
    let lasting = options::all().filter(|o| o.lasting);
    assert_eq!(in_page, lasting.map(|o| o.long).collect());
}

#[test]
fn the_manual_has_every_event_and_no_other() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let in_page = events_in(&page);
    let notices = fs::read_to_string(root().join("src/core/kinds.rs")).unwrap();
    let names = notices.split("pub fn event(&self)").nth(1).unwrap();
    let names = names.split("pub fn who(&self)").next().unwrap();
    let mut in_code: BTreeSet<String> = quoted(names).collect();
    // Those of the shell's own stand behind a level, on that line or the next.
    for (_, text) in rust_files("src/shell") {
        for level in ["Error", "Warn", "Info", "Debug"] {
            for call in code(&text).split(&format!("Level::{level},")).skip(1) {
                let next = call.trim_start();
                if next.starts_with('"') {
                    in_code.extend(quoted(next).next().filter(|w| is_a_name(w)));
                }
            }
        }
    }
    in_code.insert("lane-silenced".into()); // its level depends
    in_code.insert("missed".into()); // for one who follows, not in the log
    assert_eq!(in_page, in_code);
}

fn events_in(page: &str) -> BTreeSet<String> {
    let events = page.split(".Sh EVENTS").nth(1).unwrap();
    let events = events.split(".Sh ").next().unwrap();
    let list = events.split(".Bl ").nth(1).unwrap();
    list.lines()
        .filter_map(|l| l.strip_prefix(".Cm "))
        .flat_map(|l| l.split([' ', ',']).map(String::from).collect::<Vec<_>>())
        .filter(|w| is_a_name(w))
        .collect()
}

fn is_a_name(word: &str) -> bool {
    word.contains(|c: char| c.is_ascii_lowercase())
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What stands between quotes.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('"').skip(1).step_by(2).map(String::from)
}

#[test]
fn the_manual_has_every_route_and_no_other() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let http = page.split(".Sh HTTP\n").nth(1).unwrap();
    let http = http.split(".Sh ").next().unwrap();
    let items = http.lines().filter_map(|l| l.strip_prefix(".It Cm "));
    let in_page: BTreeSet<String> = items.map(|l| l.replace(" Pa ", " ")).collect();
    let routes = minicluster::wire::routes::ROUTES.iter();
    let in_table = routes.map(|r| {
        let method = format!("{:?}", r.method).to_uppercase();
        format!("{method} {}", r.full_path(minicluster::wire::routes::ECV))
    });
    assert_eq!(in_page, in_table.collect());
}

#[test]
fn the_manual_has_every_metric_and_no_other() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let section = page.split(".Sh METRICS\n").nth(1).unwrap();
    let section = section.split(".Sh ").next().unwrap();
    let items = section.lines().filter_map(|l| l.strip_prefix(".It Cm "));
    let in_page: Vec<String> = items.map(|l| l.replace(" Ar ", " ")).collect();
    let in_table = FAMILIES.iter().map(|f| {
        let words: Vec<&str> = [f.name].iter().chain(f.labels).copied().collect();
        words.join(" ")
    });
    let in_table: Vec<String> = in_table.collect();
    assert_eq!(in_page, in_table);
}

/// What rings somebody's bell at night has to exist.
#[test]
fn the_alerts_are_about_metrics_that_there_are() {
    let text = fs::read_to_string(root().join("contrib/alerts.yml")).unwrap();
    let rules = text.lines().filter(|l| !l.trim_start().starts_with('#'));
    let rules: Vec<&str> = rules.collect();
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let joined = rules.join("\n");
    let words = joined.split(|c| !of_a_name(c));
    let prefixes = ["minicluster_", "process_"];
    let named: BTreeSet<&str> = words
        .filter(|w| prefixes.iter().any(|p| w.starts_with(p)))
        .collect();
    let all: BTreeSet<&str> = FAMILIES.iter().map(|f| f.name).collect();
    assert!(named.is_subset(&all), "{:?}", named.difference(&all));
    assert!(named.len() > 8);
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    for file in ["prometheus.yml", "alerts.yml"] {
        assert!(page.contains(&format!("share/minicluster/{file}")));
    }
}

#[test]
fn the_limits_in_the_manual_are_those_in_the_code() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let limits = page.split(".Sh LIMITS").nth(1).unwrap();
    let limits = limits.split(".Sh ").next().unwrap();
    for (number, what) in [
        (usize::from(minicluster::settings::MAX_WORKERS), "workers"),
        (minicluster::settings::MAX_PORTS, "ports"),
        (minicluster::core::MAX_REMNANTS, "dead workers"),
        (minicluster::wire::http::MAX_HEADERS, "headers,"),
    ] {
        let entry = format!(".It {number}\n{what}");
        assert!(limits.contains(&entry), "{entry} is not in LIMITS");
    }
    use minicluster::wire::{http, key, routes};
    let size = |n: usize| match n % (1024 * 1024) {
        0 => format!("{} MiB", n / 1024 / 1024),
        _ => format!("{} KiB", n / 1024),
    };
    for said in [
        format!(".It {}\nare the longest head", size(http::MAX_HEAD)),
        format!("{} of them its target", size(http::MAX_TARGET)),
        format!("{} parameters", http::MAX_PARAMETERS),
        format!(".It {}\nis the longest body", size(http::MAX_BODY)),
        format!("else {};", size(routes::SMALL_BODY)),
        format!("{} more may be sizes", size(http::MAX_FRAMING)),
    ] {
        assert!(limits.contains(&said), "{said} is not in LIMITS");
    }
    let said = format!("{} to {} visible characters", key::MIN_KEY, key::MAX_KEY);
    assert!(page.contains(&said), "{said} is not in the manual");
}

#[test]
fn the_manual_has_every_exit_code_and_no_other() {
    let page = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let codes = page.split(".Sh EXIT STATUS").nth(1).unwrap();
    let codes = codes.split(".Sh ").next().unwrap();
    let items = codes.lines().filter_map(|l| l.strip_prefix(".It "));
    let in_page: BTreeSet<u8> = items.map(|n| n.parse().unwrap()).collect();
    let in_code = minicluster::core::codes::ALL.into_iter().chain([0]);
    assert_eq!(in_page, in_code.collect());
}

#[test]
fn the_manual_has_every_mechanism_and_no_other_and_each_is_refused_in_a_story() {
    let page = fs::read_to_string(root().join("man/minicluster.7")).unwrap();
    let section = page.split(".Sh ENVIRONMENTS\n").nth(1).unwrap();
    let section = section.split(".Sh ").next().unwrap();
    let in_page: Vec<&str> = section
        .lines()
        .filter_map(|l| l.strip_prefix(".It Cm "))
        .collect();
    let rows = &minicluster::wire::check::ROWS;
    let in_table: Vec<&str> = rows.iter().map(|r| r.name).collect();
    assert_eq!(in_page, in_table);
    let file = |name: &str| fs::read_to_string(root().join("tests/e2e").join(name)).unwrap();
    let stories = file("environments.rs") + &file("check.rs");
    for name in in_table {
        assert!(
            stories.contains(&format!("\"{name}\"")),
            "no story refuses {name}"
        );
    }
    let manual = fs::read_to_string(root().join("man/minicluster.1")).unwrap();
    let events = events_in(&manual);
    let told = section.lines().filter_map(|l| l.strip_prefix(".Pq Cm "));
    let told: BTreeSet<&str> = told
        .map(|l| l.trim_end_matches([' ', '.', ',', ':']))
        .collect();
    assert!(told.len() > 10);
    for event in told {
        assert!(events.contains(event), "{event} is no event");
        assert!(stories.contains(&format!("\"{event}\"")) || NOT_THERE.contains(&event));
    }
}

/// They have stories of their own.
const NOT_THERE: [&str; 4] = [
    "takeover-unreadable",
    "idle-hands-off",
    "steering-coarse",
    "no-log",
];

#[test]
fn the_changelog_has_a_place_for_what_is_new() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.contains("\n## [Unreleased]\n"));
    // That of the manifest is the last one that was released.
    let released = text.lines().find_map(|l| l.strip_prefix("## [0."));
    let (version, date) = released.unwrap().split_once("] - ").unwrap();
    assert_eq!(format!("0.{version}"), env!("CARGO_PKG_VERSION"));
    let digits = |c: char| c.is_ascii_digit();
    let parts: Vec<usize> = date.split('-').map(|p| p.matches(digits).count()).collect();
    assert_eq!(parts, [4, 2, 2], "{date}");
}
