//! What follows the verb logs.

use super::number;

/// Lines of each file, unless somebody says otherwise; and at most.
pub const LOG_LINES: usize = 20;
pub const MAX_LOG_LINES: usize = 1000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogsAsked {
    /// Of this slot alone.
    pub slot: Option<u16>,
    /// So many of the last lines, if that is said.
    pub lines: Option<usize>,
    /// And what comes from now on? `Some(false)`: not any more.
    pub follow: Option<bool>,
}

/// `[SLOT] [lines N] [follow|off]`
pub fn logs(words: &[&str]) -> Result<LogsAsked, String> {
    let mut asked = LogsAsked {
        slot: None,
        lines: None,
        follow: None,
    };
    let mut rest = words;
    if let [first, more @ ..] = rest {
        let digits = first.strip_prefix("slot:").unwrap_or(first);
        if digits.starts_with(|c: char| c.is_ascii_digit()) {
            let bad = |_| format!("'{first}' is no slot");
            asked.slot = Some(digits.parse().map_err(bad)?);
            rest = more;
        }
    }
    if let ["lines", more @ ..] = rest {
        let [n, more @ ..] = more else {
            return Err(format!("how many lines? write lines {LOG_LINES}"));
        };
        asked.lines = Some(number(n, 1, MAX_LOG_LINES).map_err(|e| format!("lines: {e}"))?);
        rest = more;
    }
    match rest {
        [] => {}
        ["follow"] => asked.follow = Some(true),
        ["off"] if words.len() == 1 => asked.follow = Some(false),
        ["off", ..] => return Err("off stands alone: logs off".into()),
        [word, ..] => {
            return Err(format!(
                "'{word}' is neither a slot nor lines N, follow or off, in that order"
            ));
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_logs() {
        for (words, slot, lines, follow) in [
            (&[][..], None, None, None),
            (&["2"], Some(2), None, None),
            (&["slot:2", "follow"], Some(2), None, Some(true)),
            (&["lines", "7"], None, Some(7), None),
            (&["0", "lines", "7", "follow"], Some(0), Some(7), Some(true)),
            (&["off"], None, None, Some(false)),
        ] {
            let want = LogsAsked {
                slot,
                lines,
                follow,
            };
            assert_eq!(logs(words), Ok(want), "{words:?}");
        }
        for (words, why) in [
            (&["lines"][..], "how many lines?"),
            (&["lines", "0"], "1 to 1000"),
            (&["lines", "1001"], "1 to 1000"),
            (&["99999"], "is no slot"),
            (&["1x"], "is no slot"),
            (&["follow", "2"], "in that order"),
            (&["1", "off"], "stands alone"),
            (&["tail"], "neither a slot"),
        ] {
            let e = logs(words).unwrap_err();
            assert!(e.contains(why), "{words:?}: {e}");
        }
    }
}
