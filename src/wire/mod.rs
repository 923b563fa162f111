//! Bytes and values: pure, with hard limits. Nothing here reads, writes or asks the time.

pub mod command;
pub mod json;
pub mod logfmt;
pub mod report;
