//! End-to-end tests: the built binary, real children, real sockets, real servers, signals and
//! terminals. Each test is a story an operator could tell, named by the sentence of the manual
//! that it proves.
//!
//! The rules, kept by `harness`: wait for what the master logs, under one deadline for the whole
//! test, never for a time; every story ends with the exit code, with no warning that it did not
//! expect, with no descriptor leaked and with no process left; ports are of this run alone.
//!
//! `heavy` (a JVM, Go, Ruby, thousands of processes) runs by `make test-servers` only.

#![cfg(test)] // a test that cannot go on has failed: see clippy.toml
#![allow(clippy::string_slice)]

mod birth;
mod browser;
mod cgroups;
mod client;
mod harness;
mod house;
mod load;
mod log;
mod pests;
mod pings;
mod place;
#[path = "../sim/prng.rs"]
#[allow(dead_code, clippy::unreachable)]
mod prng;
mod proc;

mod answers;
mod balance;
mod bare;
mod broken;
mod canary;
mod check;
mod completions;
mod console;
mod contract;
mod control;
mod counting;
mod crashes;
mod daemon;
mod death;
mod delegates;
mod deps;
mod doors;
mod drain;
mod ecv;
mod empty_root;
mod environments;
mod exchange;
mod fallbacks;
mod faults;
mod faults_handover;
mod faults_heavy;
mod faults_table;
mod faults_time;
mod files;
mod following;
mod handover;
mod heavy;
mod hooks;
mod hostile;
mod http;
mod hung;
mod idle;
mod logbook;
mod logs;
mod messages;
mod metrics;
mod odd;
mod orders;
mod orphans;
mod others;
mod own;
mod page;
mod portions;
mod privileges;
mod programs;
mod readiness;
mod recycle;
mod reload;
mod resize;
mod respawn;
mod rights;
mod robust;
mod rolling;
mod rotation;
mod secrets;
mod seeds;
mod seeds_cluster2;
mod seeds_masters;
mod seeds_proteus;
mod seeds_recluster;
mod seeds_service;
mod seeds_service_npm;
mod seeds_table;
mod seen;
mod serving;
mod shutdown;
mod single;
mod soak;
mod sockets;
mod speech;
mod start;
mod stopping;
mod store;
mod strangers;
mod supervisor;
mod takeover;
mod terminal;
mod units;
mod upgrade;
mod waiting;
mod watch;
