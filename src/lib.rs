//! minicluster runs N copies of any server program on one port, keeps them alive and stops them
//! cleanly, from outside the data path.
//!
//! This library is there for the program and its tests, and is no interface: all of it may change with any version.
//! What may be relied on is in the manual, minicluster(1) and minicluster(7).
//!
//! The rooms, and who may enter which (`tests/tidy.rs` holds them to it):
//!
//! - `core` decides. Pure: it is told what happened and when, and says what to do.
//! - `wire` turns bytes into values and back. Pure.
//! - `shell` does: the only loop on poll, and all I/O.
//! - `sys` is the kernel, typed; the only room that may say `unsafe`.
//! - `page` is what the monitor shows in a browser. Pure.
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
