//! Bytes and values: pure, with hard limits. Nothing here reads, writes or asks the time.

pub mod command;
pub mod debt;
pub mod einhorn;
pub mod health;
pub mod json;
pub mod logfmt;
pub mod moment;
pub mod node_ipc;
pub mod notify;
pub mod outcome;
pub mod ports_filter;
pub mod ran;
pub mod raw;
pub mod relayed;
pub mod report;
pub mod sent;
pub mod sock_diag;
pub mod steering;
pub mod stream;
pub mod syslog;
pub mod talk;
pub mod unix_diag;
pub mod untouched;
pub mod views;
pub mod workers;
