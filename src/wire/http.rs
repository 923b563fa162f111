//! HTTP/1, the side of the server, without a socket: bytes that came make a request (`Parser`), an answer
//! makes bytes (`response`). What is not understood beyond doubt is refused: a reader in front of us that
//! takes a doubtful request for another one is how requests are smuggled.
//!
//! 1. A request is refused as early as it can be, and the same however its bytes come in pieces.
//! 2. Whoever is not let in has no place for a body: `Parser::look` shows the head as soon as it is whole,
//!    and the door is asked before anything of the body is waited for (`dialogue`).
//! 3. A key is never shown: it is taken out of the header and the query (`key::Secret`).

mod chunked;
mod head;
mod line;
mod parser;
pub mod range;
pub mod response;
pub mod status;
mod target;
#[cfg(test)]
mod tests;

pub use head::{Head, Method, Version};
pub use line::{Guess, guess};
pub use parser::{Parser, Progress, Refusal, Request};
pub use status::Status;

/// Longest head: the request line and the headers.
pub const MAX_HEAD: usize = 16 * 1024;
/// Longest target: path and query as they are sent.
pub const MAX_TARGET: usize = 8 * 1024;
/// Most headers.
pub const MAX_HEADERS: usize = 64;
/// Most parameters of a query.
pub const MAX_PARAMETERS: usize = 64;
/// Longest body.
pub const MAX_BODY: usize = 1024 * 1024;
/// Of a body that comes in chunks: most bytes that are not the body's own.
pub const MAX_FRAMING: usize = 64 * 1024;
/// After so many bytes every request is understood or refused.
pub const MAX_BUFFER: usize = MAX_HEAD + MAX_BODY + MAX_FRAMING;

/// What is sent to a client that waits for it before it sends the body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
