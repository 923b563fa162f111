//! What workers are made of is read from files that may be anything.

use crate::prng::Prng;
use minicluster::wire::deps::elf::{self, HEAD, Part};
use minicluster::wire::deps::packages::{List, MAX_BYTES, MAX_PACKAGES, Package};
use minicluster::wire::deps::question::Question;
use minicluster::wire::deps::{golang as go, maps as mappings, packages as lists};

/// As a reader goes about it: a part that is not there is empty.
fn part(file: &[u8], p: Part) -> &[u8] {
    let rest = usize::try_from(p.at).ok().and_then(|at| file.get(at..));
    let rest = rest.unwrap_or_default();
    let len = usize::try_from(p.len).unwrap_or(usize::MAX);
    rest.get(..len).unwrap_or(rest)
}

/// Whatever the numbers in it are, no more is asked for than may be, and an id is one.
pub fn elf(input: &[u8], _: &mut Prng) {
    let Some(head) = elf::head(input.get(..HEAD).unwrap_or(input)) else {
        return;
    };
    assert!(head.segments().len <= elf::MAX_TABLE && head.sections().len <= elf::MAX_TABLE);
    for notes in head.notes(part(input, head.segments())) {
        assert!(notes.part.len <= elf::MAX_NOTES);
        if let Some(id) = head.build_id(notes, part(input, notes.part)) {
            assert!((2..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
    let table = part(input, head.sections());
    if let Some(names) = head.names(table) {
        assert!(names.len <= elf::MAX_TABLE);
        let section = head.section(table, part(input, names), go::SECTION);
        if let Some(section) = section {
            go::modules(part(input, section));
        }
    }
}

/// A mapping is of a path, and its addresses lead nowhere else.
pub fn maps(input: &[u8], _: &mut Prng) {
    for line in input.split(|b| *b == b'\n') {
        if let Some(m) = mappings::line(line) {
            assert!(m.path.starts_with(b"/") && m.inode > 0);
            assert!(!m.range.contains(['/', '.']));
        }
    }
}

fn are_plain(list: &List) {
    assert!(list.all.len() <= MAX_PACKAGES);
    let bytes: usize = list
        .all
        .iter()
        .map(|p| p.name.len() + p.version.len())
        .sum();
    assert!(bytes <= MAX_BYTES);
    list.all.iter().for_each(is_plain);
}

/// Nothing gets out that is no name and no version.
fn is_plain(p: &Package) {
    for text in [&p.name, &p.version] {
        assert!(
            text.bytes().all(|b| b.is_ascii_graphic() && b != b':'),
            "{text}"
        );
    }
    assert!(!p.version.contains('/') && !p.name.contains("//") && !p.name.contains(".."));
}

/// Whichever list a file is taken for.
pub fn packages(input: &[u8], _: &mut Prng) {
    let text = String::from_utf8_lossy(input);
    let parsers = [
        lists::package_lock,
        lists::composer_lock,
        lists::pipfile_lock,
        lists::toml_lock,
        lists::gemfile_lock,
    ];
    for list in parsers.iter().filter_map(|parse| parse(&text)) {
        are_plain(&list);
    }
    are_plain(&lists::requirements(&text));
    lists::package_json(&text).iter().for_each(is_plain);
    let files = text.lines().filter_map(lists::dist_info);
    files.for_each(|p| is_plain(&p));
    if let Some(q) = Question::decode(&text) {
        assert_eq!(Question::decode(&q.encode()), Some(q));
    }
}

/// The section alone.
pub fn golang(input: &[u8], _: &mut Prng) {
    if let Some(list) = go::modules(input) {
        are_plain(&list);
    }
}
