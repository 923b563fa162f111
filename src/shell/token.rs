//! What the poll calls its sources: what each is about, and its serial, in one number. A serial is never
//! used again, so that late news of one that has gone is news of nobody.

use mio::Token;

/// What a token is about; the rest of it is a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Signals,
    Report,
    Takeover,
    Lane,
    Files,
    Watch,
    Served,
    Notify,
    Ipc,
    Newline,
    Stderr,
    OurStderr,
    Door,
    Client,
    Caller,
    Probe,
    Check,
    Job,
    Idle,
    Orphan,
}

const KINDS: [Kind; 20] = [
    Kind::Signals,
    Kind::Report,
    Kind::Takeover,
    Kind::Lane,
    Kind::Files,
    Kind::Watch,
    Kind::Served,
    Kind::Notify,
    Kind::Ipc,
    Kind::Newline,
    Kind::Stderr,
    Kind::OurStderr,
    Kind::Door,
    Kind::Client,
    Kind::Caller,
    Kind::Probe,
    Kind::Check,
    Kind::Job,
    Kind::Idle,
    Kind::Orphan,
];

pub(super) fn token(kind: Kind, serial: u64) -> Token {
    Token(usize::try_from(serial << 8).unwrap_or(0) | kind as usize)
}

pub(super) fn untoken(t: Token) -> Option<(Kind, u64)> {
    let kind = KINDS.get(t.0 & 0xff)?;
    Some((*kind, (t.0 >> 8) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_kind_and_serial() {
        for kind in KINDS {
            for serial in [0, 1, 1 << 40] {
                assert_eq!(untoken(token(kind, serial)), Some((kind, serial)));
            }
        }
        assert_eq!(untoken(Token(200)), None);
    }
}
