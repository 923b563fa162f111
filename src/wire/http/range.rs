//! Which part of a file a client wants: one range of bytes (RFC 9110, 14). Several are answered with all
//! of it, as if none was asked for, which is allowed and cheap.

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// From the first to the last, both included.
    Bytes(u64, u64),
    /// Nothing of it is there: 416.
    None,
}

/// Understands a `Range` header, for something so long.
pub fn parse(header: Option<&str>, length: u64) -> Part {
    let Some(range) = header.and_then(|h| h.trim().strip_prefix("bytes=")) else {
        return Part::All;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Part::All;
    };
    match (number(first), number(last)) {
        (Given::No, Given::Yes(0)) => Part::None,
        (Given::No, Given::Yes(_)) if length == 0 => Part::None,
        (Given::No, Given::Yes(n)) => Part::Bytes(length.saturating_sub(n), length - 1),
        (Given::Yes(first), Given::Yes(last)) if first > last => Part::All,
        (Given::Yes(first), _) if first >= length && !matches!(number(last), Given::Bad) => {
            Part::None
        }
        (Given::Yes(first), Given::No) => Part::Bytes(first, length - 1),
        (Given::Yes(first), Given::Yes(last)) => Part::Bytes(first, last.min(length - 1)),
        (Given::Bad, _) | (_, Given::Bad) | (Given::No, Given::No) => Part::All,
    }
}

/// What a 206 says of its part, and a 416 of what there is.
pub fn content_range(part: Part, length: u64) -> Option<String> {
    match part {
        Part::All => None,
        Part::Bytes(first, last) => Some(format!("bytes {first}-{last}/{length}")),
        Part::None => Some(format!("bytes */{length}")),
    }
}

enum Given {
    No,
    Yes(u64),
    Bad,
}

fn number(text: &str) -> Given {
    let text = text.trim();
    match text.bytes().all(|b| b.is_ascii_digit()) {
        true if text.is_empty() => Given::No,
        // Beyond any file.
        true => Given::Yes(text.parse().unwrap_or(u64::MAX)),
        false => Given::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood() {
        for (header, length, want) in [
            (None, 10, Part::All),
            (Some("bytes=0-"), 10, Part::Bytes(0, 9)),
            (Some("bytes=0-0"), 10, Part::Bytes(0, 0)),
            (Some("bytes=3-99"), 10, Part::Bytes(3, 9)),
            (Some(" bytes= 3 - 4 "), 10, Part::Bytes(3, 4)),
            (Some("bytes=-4"), 10, Part::Bytes(6, 9)),
            (Some("bytes=-99"), 10, Part::Bytes(0, 9)),
            (Some("bytes=-0"), 10, Part::None),
            (Some("bytes=10-"), 10, Part::None),
            (Some("bytes=10-12"), 10, Part::None),
            (Some("bytes=0-"), 0, Part::None),
            (Some("bytes=-1"), 0, Part::None),
            (Some("bytes=99999999999999999999999-"), 10, Part::None),
            (
                Some("bytes=0-99999999999999999999999"),
                10,
                Part::Bytes(0, 9),
            ),
            // Not valid: as if there was none.
            (Some("bytes=4-3"), 10, Part::All),
            (Some("bytes=-"), 10, Part::All),
            (Some("bytes=0-1,3-4"), 10, Part::All),
            (Some("bytes=99-x"), 10, Part::All),
            (Some("bytes=x-1"), 10, Part::All),
            (Some("bytes=--1"), 10, Part::All),
            (Some("bytes"), 10, Part::All),
            (Some("lines=0-1"), 10, Part::All),
        ] {
            assert_eq!(parse(header, length), want, "{header:?} of {length}");
        }
    }

    #[test]
    fn an_answer_says_which_part_it_is() {
        assert_eq!(content_range(Part::All, 9), None);
        let part = content_range(Part::Bytes(2, 4), 9);
        assert_eq!(part.as_deref(), Some("bytes 2-4/9"));
        assert_eq!(content_range(Part::None, 9).as_deref(), Some("bytes */9"));
    }
}
