//! minicluster runs N copies of any server program on one port, keeps them alive and stops them
//! cleanly, from outside the data path.
//!
//! The rooms, and who may enter which (`tests/tidy.rs` holds them to it):
//!
//! - `core` decides. Pure: it is told what happened and when, and says what to do.
//! - `wire` turns bytes into values and back. Pure.
//! - `shell` does: the only loop on poll, and all I/O.
//! - `sys` is the kernel, typed; the only room that may say `unsafe`.
//! - `units` writes files for whoever starts us: systemd, init, containers. Pure.
//! - `cli`, `options`, `settings`, `verbs`, `completions`: what is typed, from one table each of
//!   options and verbs.
#![deny(unsafe_code)]

pub mod cli;
pub mod completions;
pub mod core;
pub mod options;
pub mod page;
pub mod settings;
pub mod shell;
pub mod sys;
pub mod units;
pub mod verbs;
pub mod wire;
