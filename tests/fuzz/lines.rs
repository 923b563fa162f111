//! What comes in lines: the output of workers, what programs of the operator say, and what the kernel lists.

use crate::mutate::cut;
use crate::prng::Prng;
use minicluster::wire::logs::{harmless, last, signed};
use minicluster::wire::sock_diag::{Info, parse as tcp};
use minicluster::wire::unix_diag::parse as unix;
use minicluster::wire::{output as out, relayed as said, syslog as sys};

/// Not a byte is lost or changes its place, however it comes; the only one that is added is the end of a line that
/// was too long.
pub fn output(input: &[u8], chance: &mut Prng) {
    let all = |pieces: &[&[u8]]| {
        let mut lines = out::Lines::default();
        let mut whole: Vec<u8> = pieces.iter().flat_map(|p| lines.push(p)).collect();
        whole.extend(lines.end());
        whole
    };
    let whole = all(&[input]);
    assert_eq!(all(&cut(input, chance)), whole);
    let longest = whole.split(|b| *b == b'\n').map(<[u8]>::len).max();
    assert!(longest.unwrap_or(0) <= out::MAX_LINE);
    let without =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().copied().filter(|b| *b != b'\n').collect() };
    assert_eq!(without(&whole), without(input));
    assert!(whole.is_empty() || whole.ends_with(b"\n"));
    let lines = out::count(&whole);
    // Each is found again as whose it is.
    let marked = out::signed(&whole, 3, 4711);
    for line in last(&marked, true, usize::MAX) {
        let line = signed(line);
        assert_eq!((line.slot, line.pid), (Some(3), Some(4711)));
    }
    let most = chance.below(20) as usize;
    let some = last(&whole, true, most);
    assert_eq!(some.len() as u64, lines.min(most as u64));
    let _ = (signed(input), last(input, false, most));
    // For a terminal, and for syslogd.
    let text = String::from_utf8_lossy(input);
    let safe = harmless(&text);
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r' | '\u{1b}');
    assert!(!safe.contains(steers), "{safe:?}");
    assert!(
        sys::pieces(&text)
            .iter()
            .all(|p| p.len() <= 3 * sys::MAX_TEXT)
    );
}

/// What is passed on is what was said.
pub fn relayed(input: &[u8], _: &mut Prng) {
    for line in input.split(|b| *b == b'\n') {
        if let Ok(heard) = said::said(line) {
            assert!(String::from_utf8_lossy(line).contains(&heard.msg));
        }
        if let Ok(answer) = said::answer(line) {
            assert!(answer.text.starts_with('{') && answer.text.ends_with('}'));
            let mut fields = answer.fields();
            let first = fields("type");
            assert_eq!(fields("type"), first);
        }
        let _ = said::work(1, 2, &String::from_utf8_lossy(line));
    }
}

/// However long the kernel, or whoever says he is it, says that a part is.
pub fn diag(input: &[u8], _: &mut Prng) {
    let (seq, list) = input.split_at(input.len().min(4));
    let seq = seq.iter().fold(0, |sum, b| sum << 8 | u32::from(*b));
    let of_tcp = tcp(list, seq).map(|p| p.items.len());
    let of_unix = unix(list, seq).map(|p| p.items.len());
    for items in [of_tcp, of_unix].into_iter().flatten() {
        // Each has a header at least.
        assert!(items <= list.len() / 16);
    }
    let _ = Info::parse(input);
}
