//! `POST /send`, `POST /sync_send` and `/restart`, answered as proteus-cluster does it: with its words
//! where it has some, else with those of the verb that was asked.

use super::http::Status;
use super::http::response::{JSON, Response};
use crate::core::codes::EX_USAGE;

const OK: &str = "OK";
const NOT_READ: &str = "request body parse failure.";

/// What has come of `send` and of a reload: exit code, and what was said.
pub fn done(exit: u8, said: &str) -> Response {
    match exit {
        0 => Response::text(Status::OK, OK),
        _ => failed(said),
    }
}

/// What the workers have answered: a list.
pub fn gathered(exit: u8, said: &str) -> Response {
    match exit {
        0 => Response::new(Status::OK, JSON, said.trim_end()),
        _ => failed(said),
    }
}

/// The body is no message.
pub fn not_read() -> Response {
    Response::text(Status::BAD_REQUEST, NOT_READ)
}

/// Was it because of what was asked? (All that is looked at is the message.)
pub fn is_not_read(exit: u8) -> bool {
    exit == EX_USAGE
}

fn failed(said: &str) -> Response {
    Response::text(Status::FAILED, said.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_proteus_cluster() {
        assert_eq!(done(0, "told 2 workers\n").body, b"OK");
        let r = done(1, "not reloaded: the cluster stops\n");
        assert_eq!(
            (r.status, &r.body[..]),
            (Status::FAILED, &b"not reloaded: the cluster stops"[..])
        );
        let r = gathered(0, "[\"a\",12345678901234567890]\n");
        assert_eq!((r.status, r.content_type), (Status::OK, JSON));
        assert_eq!(r.body, b"[\"a\",12345678901234567890]");
        assert_eq!(gathered(1, "worker timeout.\n").body, b"worker timeout.");
        assert_eq!(not_read().body, b"request body parse failure.");
        assert!(is_not_read(64) && !is_not_read(1));
    }
}
