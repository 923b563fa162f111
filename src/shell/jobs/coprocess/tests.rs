//! A program that reads and writes lines, with real ones.

use super::super::child::fork;
use super::*;
use crate::sys::lifeline::Lifeline;
use crate::sys::{fds, wait};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

const SECOND: Time = Time(1_000_000_000);

fn program(script: &str) -> Coprocess {
    let words = ["sh", "-c", script].map(OsString::from).to_vec();
    Coprocess::new("--x".into(), words, SECOND)
}

fn run(one: &mut Coprocess, now: Time) {
    let null = fds::null().unwrap();
    let birth = Birth {
        job: 1,
        words: &one.words,
        cwd: Path::new("/"),
        own: &[("X".to_string(), b"y".to_vec())],
        reads: true,
        merged: false,
        exe: None,
        keep: &[],
        hollow: &[],
    };
    let sh = CString::new("/bin/sh").unwrap();
    // Its end would be the child's.
    let life = Box::leak(Box::new(Lifeline::new().unwrap()));
    let child = fork(&birth, &sh, null.as_fd(), None, life).unwrap();
    one.begins(child, 1, now);
}

/// Its next lines, so many.
fn lines(one: &mut Coprocess, pipe: Pipe, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        one.give();
        let (some, dropped, came) = one.take(pipe);
        assert_eq!(dropped, 0);
        all.extend(some.iter().map(|l| String::from_utf8_lossy(l).into_owned()));
        assert!(came != Came::End || all.len() == count, "{all:?}");
        std::thread::yield_now();
    }
    all
}

fn reaped(one: &Coprocess) {
    let pid = one.pid().unwrap();
    while !crate::sys::procfs::is_zombie(pid) {
        std::thread::yield_now();
    }
    wait::reap(pid).unwrap();
}

#[test]
fn lines_go_in_and_come_out_and_the_end_of_its_stdin_is_its_end() {
    let mut one = program("while read -r l; do echo \"$X:$l\"; echo no >&2; done; echo bye");
    assert_eq!(one.due(), Some(SECOND));
    one.push(b"{\"a\":1}").unwrap();
    run(&mut one, SECOND);
    assert_eq!(
        (one.due(), one.is_run(1), one.is_run(2)),
        (None, true, false)
    );
    one.push(b"two").unwrap();
    assert_eq!(lines(&mut one, Pipe::Stdout, 2), ["y:{\"a\":1}", "y:two"]);
    assert_eq!(lines(&mut one, Pipe::Stderr, 2), ["no", "no"]);
    one.ending = Some((Time(3), Time(5)));
    assert_eq!(one.due(), Some(Time(3)));
    assert!(one.give(), "nothing is left to be said");
    let Run::Since(_, _, child) = &mut one.run else {
        panic!();
    };
    child.hang_up();
    assert_eq!(lines(&mut one, Pipe::Stdout, 1), ["bye"]);
    reaped(&one);
}

#[test]
fn what_it_does_not_read_waits_within_a_limit_and_is_for_the_next_one() {
    let mut one = program("exit 3");
    run(&mut one, SECOND);
    reaped(&one);
    let line = vec![b'x'; 100_000];
    let mut fitted = 0;
    let refused = loop {
        match one.push(&line) {
            Ok(()) => fitted += 1,
            Err(why) => break why,
        }
    };
    assert_eq!(fitted, 10);
    assert!(refused.contains("does not keep up"), "{refused}");
    assert!(one.give(), "nobody reads");
    let first = one.ended(SECOND);
    assert!(first <= Duration::from_millis(100) && first >= Duration::from_millis(79));
    assert_eq!(one.due(), Some(SECOND + first));
    let second = one.ended(SECOND);
    assert!(second > Duration::from_millis(150), "{second:?}");
    one.words[2] = "read -r l; printf %s \"$l\" | wc -c; read -r m; echo \"$m\"".into();
    run(&mut one, SECOND);
    let sizes = lines(&mut one, Pipe::Stdout, 1);
    assert_eq!(sizes[0].trim(), "100000");
    one.signal(libc::SIGKILL);
    reaped(&one);
    // It had lived for a second.
    assert_eq!(one.ended(SECOND + Duration::from_secs(1)), Duration::ZERO);
}
