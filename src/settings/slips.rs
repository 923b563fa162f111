//! Words that were mistyped: what was most likely meant.

/// The candidate that a mistyped word most likely meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // No slip of ours is as long, and to look at it takes time with its length.
    if word.len() > LONGEST_SLIP {
        return None;
    }
    let starts = |c: &&&str| word.len() >= 3 && c.starts_with(word);
    if let Some(whole) = candidates.iter().find(starts) {
        return Some(whole);
    }
    let by_distance = |c: &&'a str| (distance(word, c), c.len());
    let best = candidates.iter().copied().min_by_key(by_distance)?;
    (distance(word, best) <= 1 + word.len() / 4).then_some(best)
}

/// A word that is longer is nobody's slip.
const LONGEST_SLIP: usize = 64;

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    // Of each beginning of `b` but the empty one.
    let mut row: Vec<usize> = (1..=b.chars().count()).collect();
    let mut whole = row.len();
    for (i, ca) in a.chars().enumerate() {
        let (mut before, mut left) = (i, i + 1);
        for (cb, here) in b.chars().zip(&mut row) {
            let substitute = before + usize::from(ca != cb);
            before = *here;
            left = substitute.min(before + 1).min(left + 1);
            *here = left;
        }
        whole = left;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_finds_its_neighbour() {
        let words = ["--ready", "--respawn", "--backoff", "--backoff-reset"];
        assert_eq!(nearest("--redy", &words), Some("--ready"));
        assert_eq!(nearest("--back", &words), Some("--backoff"));
        assert_eq!(nearest("--zzz", &words), None);
    }
}
