//! Clients of Redis that ask whether it is there, with a connection for each question or with kept ones, and count.

use crate::harness::Rig;
use crate::others::Counted;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const CLIENTS: usize = 4;
/// An answer that does not come by then is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// From an answer to the next question.
const PAUSE: Duration = Duration::from_millis(5);

/// Some of them.
pub struct Pings {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Told>>,
}

/// What one has counted.
#[derive(Default)]
struct Told {
    answered: u64,
    /// The connection was made, and the first question on it not answered; or half an answer came.
    lost: u64,
    /// No connection was made.
    refused: u64,
    again: u64,
}

impl Pings {
    /// Starts them; returns when each has had an answer.
    pub fn going(to: SocketAddr, kept: bool) -> Pings {
        let over = Arc::new(AtomicBool::new(false));
        let greeted = Arc::new(AtomicUsize::new(0));
        let client = || {
            let (over, greeted) = (over.clone(), greeted.clone());
            std::thread::spawn(move || asks(to, kept, &over, &greeted))
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
        while greeted.load(Ordering::Relaxed) < CLIENTS {
            let ended = clients.iter().any(JoinHandle::is_finished);
            assert!(
                !ended,
                "a client of Redis has ended before its first answer"
            );
            std::thread::sleep(PAUSE);
        }
        Pings { over, clients }
    }

    /// Ends them; does a connection that is not made count as lost?
    pub fn finish(self, refused: bool) -> Counted {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Counted::default();
        for client in self.clients {
            let told = client.join().unwrap();
            let lost = told.lost + if refused { told.refused } else { 0 };
            all.lost += lost;
            all.requests += told.answered + lost;
            all.again += told.again;
        }
        all
    }
}

/// One of them, until it is over.
fn asks(to: SocketAddr, kept: bool, over: &AtomicBool, greeted: &AtomicUsize) -> Told {
    let mut told = Told::default();
    let mut open: Option<TcpStream> = None;
    while !over.load(Ordering::Relaxed) {
        let again = open.is_some();
        let stream = match open.take() {
            Some(stream) => Ok(stream),
            None => TcpStream::connect_timeout(&to, PATIENCE),
        };
        let Ok(mut stream) = stream else {
            told.refused += 1;
            std::thread::sleep(PAUSE);
            continue;
        };
        match ask(&mut stream) {
            Outcome::Answered => {
                if told.answered == 0 {
                    greeted.fetch_add(1, Ordering::Relaxed);
                }
                told.answered += 1;
                open = kept.then_some(stream);
            }
            // On a connection that was kept: it is asked again on a new one.
            Outcome::Nothing if again => {
                told.again += 1;
                continue;
            }
            Outcome::Nothing | Outcome::Half => told.lost += 1,
        }
        std::thread::sleep(PAUSE);
    }
    told
}

enum Outcome {
    Answered,
    /// Not a byte, and the connection has ended.
    Nothing,
    /// Something else than the answer, a part of it, or nothing for too long.
    Half,
}

fn ask(stream: &mut TcpStream) -> Outcome {
    const ANSWER: &[u8] = b"+PONG\r\n";
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    if stream.write_all(b"PING\r\n").is_err() {
        return Outcome::Nothing;
    }
    let mut got = Vec::new();
    while got.len() < ANSWER.len() {
        let mut bytes = [0; 16];
        match stream.read(&mut bytes) {
            Ok(0) if got.is_empty() => return Outcome::Nothing,
            Ok(0) => return Outcome::Half,
            Ok(n) => got.extend_from_slice(&bytes[..n]),
            Err(e) if e.kind() == ErrorKind::ConnectionReset && got.is_empty() => {
                return Outcome::Nothing;
            }
            Err(_) => return Outcome::Half,
        }
    }
    match got == ANSWER {
        true => Outcome::Answered,
        false => Outcome::Half,
    }
}

/// Asks for their pids until that many have answered. Some connections are open at once, so that whoever is idle gets
/// the next one.
pub fn all_answer(rig: &Rig, to: SocketAddr, processes: usize) {
    let mut pids = BTreeSet::new();
    rig.until(&format!("{processes} of Redis answer"), || {
        let mut open: Vec<TcpStream> = (0..processes * 2)
            .map(|_| TcpStream::connect_timeout(&to, PATIENCE).unwrap())
            .collect();
        for stream in &mut open {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(b"INFO server\r\nQUIT\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let pid = text.lines().find_map(|l| l.strip_prefix("process_id:"));
            pids.insert(pid.unwrap().parse::<i32>().unwrap());
        }
        assert!(pids.len() <= processes, "{pids:?}");
        pids.len() == processes
    });
}
