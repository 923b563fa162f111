//! Requests: understood or refused the same however they are cut, and whatever becomes of them, an answer
//! is one answer.

use crate::mutate::cut;
use crate::prng::Prng;
use minicluster::settings::EcvControl;
use minicluster::wire::dialogue::{Dialogue, Turn};
use minicluster::wire::door::{Door, House, enter};
use minicluster::wire::http::response::{Response, Way};
use minicluster::wire::http::{
    Guess, MAX_BODY, MAX_BUFFER, MAX_HEAD, MAX_PARAMETERS, Parser, Progress, Request, guess, range,
};
use minicluster::wire::key::{Key, Secret};
use minicluster::wire::{cli_answer, health, routes, sse};

/// What there is to say of one input.
pub fn check(input: &[u8], chance: &mut Prng) {
    first_line(input, chance);
    let mut rest = input;
    // Requests that follow each other.
    loop {
        let whole = Parser::default().parse(rest);
        assert_eq!(in_pieces(rest, chance), settled(&whole), "cut into pieces");
        match whole {
            Progress::Request(request) => {
                assert!(request.used > 0 && request.used <= rest.len());
                rest = &rest[request.used..];
                understood(&request, chance);
            }
            Progress::Refused(refusal) => {
                assert!(refusal.why.len() < 200 && refusal.status.0 >= 400);
                let answer = Response::error(refusal.status, &refusal.why, chance.one_in(2));
                one_answer(&answer, Way::last(Some(0)));
                break;
            }
            Progress::More | Progress::Continue100 => {
                assert!(rest.len() < MAX_BUFFER);
                break;
            }
        }
    }
    let at_once = turns(&[input]);
    assert_eq!(turns(&cut(input, chance)), at_once, "a dialogue in pieces");
    let _ = health::parse(input);
    let _ = Key::parse(input);
}

/// What becomes of a connection. That somebody is told to go on depends on how the bytes come.
fn turns(pieces: &[&[u8]]) -> Vec<String> {
    let key = Key::parse(b"0123456789abcdef").unwrap();
    let house = House {
        key: Some(&key),
        names: &[],
        ecv: routes::ECV,
        ecv_control: EcvControl::Key,
    };
    let (mut dialogue, mut all) = (Dialogue::default(), Vec::new());
    for piece in pieces {
        dialogue.hear(piece);
        loop {
            match dialogue.turn(Door::Tcp, &house, None) {
                Turn::Wait => break,
                Turn::Continue => {}
                Turn::Asked {
                    route,
                    request,
                    way,
                } => {
                    assert!(request.body.len() <= route.most_body());
                    all.push(format!("{route:?} {request:?} {way:?}"));
                }
                Turn::Answer { answer, way } => {
                    one_answer(&answer, way);
                    all.push(format!("{answer:?} {way:?}"));
                }
            }
        }
        assert!(dialogue.room() > 0);
    }
    all
}

/// What it comes to; that somebody waits is no end.
fn settled(progress: &Progress) -> Progress {
    match progress {
        Progress::Continue100 => Progress::More,
        other => other.clone(),
    }
}

fn in_pieces(input: &[u8], chance: &mut Prng) -> Progress {
    let (mut parser, mut buffer) = (Parser::default(), Vec::new());
    let mut told = 0;
    for piece in cut(input, chance) {
        buffer.extend_from_slice(piece);
        match parser.parse(&buffer) {
            Progress::More => {}
            Progress::Continue100 => {
                told += 1;
                assert!(parser.head().is_some_and(|h| h.has_body));
            }
            done => return done,
        }
        // Asked again, it says nothing new.
        if chance.one_in(8) {
            assert_eq!(parser.parse(&buffer), Progress::More);
        }
        assert!(told <= 1);
        assert!(parser.head().is_some() || buffer.len() < MAX_HEAD);
    }
    Progress::More
}

fn understood(request: &Request, chance: &mut Prng) {
    let Request { head, body, .. } = request;
    assert!(body.len() <= MAX_BODY && head.query.len() <= MAX_PARAMETERS);
    assert!(!head.path.chars().any(char::is_control));
    assert!(
        !head
            .query
            .iter()
            .any(|(n, v)| n == "accessKey" || n.contains('\0') || v.contains('\0'))
    );
    let length = chance.below(100);
    match range::parse(head.range.as_deref(), length) {
        range::Part::Bytes(first, last) => assert!(first <= last && last < length),
        range::Part::All | range::Part::None => {}
    }
    let _ = sse::last_seen(head.last_event_id.as_deref());
    let _ = cli_answer::line(head, body);
    let key = Key::parse(b"0123456789abcdef").unwrap();
    let house = House {
        key: (!chance.one_in(4)).then_some(&key),
        names: &["web-1".to_string()],
        ecv: routes::ECV,
        ecv_control: chance.pick(&[EcvControl::Off, EcvControl::Key, EcvControl::Open]),
    };
    match enter(Door::Tcp, head, &house) {
        Err(answer) => one_answer(&answer, Way::of(head, None)),
        Ok(route) => {
            let keyed = head.key == Some(Secret::new("0123456789abcdef")) && house.key.is_some();
            let free = route.who == routes::Who::Anybody;
            let open = route.who == routes::Who::Control && house.ecv_control == EcvControl::Open;
            assert!(keyed || free || open, "{route:?} is let in");
        }
    }
}

/// One head, as long a body as it says, and nothing in it that the client has put there as a line.
fn one_answer(answer: &Response, way: Way) {
    let bytes = answer.encode(way);
    assert!(bytes.len() < 4096);
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    assert!(head.starts_with("HTTP/1.1 "));
    let mut length = None;
    for line in head.split("\r\n").skip(1) {
        assert!(!line.contains(['\r', '\n', '\0']));
        let (name, value) = line.split_once(": ").unwrap();
        assert!(!name.to_ascii_lowercase().starts_with("access-control"));
        if name == "Content-Length" {
            length = value.parse().ok();
        }
    }
    let sent = bytes.len() - end - 4;
    assert_eq!(sent, if way.bodiless { 0 } else { length.unwrap() });
}

/// What the first bytes are taken for stays so.
fn first_line(input: &[u8], chance: &mut Prng) {
    let whole = guess(input);
    let at = chance.range(0, input.len() as u64) as usize;
    let before = guess(&input[..at]);
    assert!(
        before == Guess::More || before == whole,
        "at {at}: {before:?}, then {whole:?}"
    );
}
