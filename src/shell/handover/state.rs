//! What a handover carries, as it is written down: two lines of JSON, of which the first says what is needed to
//! read the second.

use super::super::census::Census;
use super::super::cgroups::Cgroups;
use super::super::channel::Stderr;
use super::super::clients::{ClientId, Clients};
use super::super::events::Events;
use super::super::gatekeeper::Gatekeeper;
use super::super::hooks::Hooks;
use super::super::idle::Idling;
use super::super::jobs::Jobs;
use super::super::launch::Programs;
use super::super::log::Log;
use super::super::messages::Messages;
use super::super::metrics::Metrics;
use super::super::names::Claim;
use super::super::orphans::Orphans;
use super::super::ours::Ours;
use super::super::output::Output;
use super::super::pidfile::{PidDir, PidFile};
use super::super::procs::Procs;
use super::super::relays::Relays;
use super::super::reload::Recipes;
use super::super::requests::Waiting;
use super::super::rights::Rights;
use super::super::served::Served;
use super::super::sockets::Sockets;
use super::super::speech::Speech;
use super::super::store::Store;
use super::super::supervisor::Supervisor;
use super::super::watch::Was;
use super::super::{Shell, carry};
use crate::core::carry::kept_set;
use crate::core::{Asker, Cluster, Time, WorkerId};
use crate::sys::carried;
use crate::sys::lifeline::Lifeline;
use crate::sys::oom::Kills;
use crate::sys::{guise, process};
use crate::wire::ages::Ages;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// What is written now.
#[cfg(not(feature = "next-state"))]
pub const VERSION: u32 = 1;
/// The one after it, as a build of tomorrow may have it: for the tests.
#[cfg(feature = "next-state")]
pub const VERSION: u32 = 2;
/// The oldest that can be read, and by which it can be read what is written.
pub const OLDEST: u32 = 1;
/// What a state begins with.
const MAGIC: &str = "minicluster state";
/// No state is longer: a thousand workers take a few megabytes.
pub const LONGEST: u64 = 256 << 20;

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    magic: String,
    /// Of what follows,
    pub version: u32,
    /// and whoever reads it has to know this one at least.
    needs: u32,
    /// Who wrote it, and goes on as who reads it. (Who is only asked is somebody else.)
    pub pid: i32,
    /// What that one may, as a set of capabilities.
    #[serde(default)]
    pub may: u64,
    /// The descriptors in it.
    pub fds: Vec<RawFd>,
    /// That of the executable before, to which the way back leads; `None`: there is none.
    pub back: Option<RawFd>,
    /// What is under way.
    pub order: Order,
}

/// A handover, as who takes over has to know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Who waits for it.
    pub asker: Option<Asker>,
    /// Who or what has asked, in words.
    pub why: String,
    /// From which executable,
    #[serde(with = "crate::core::carry::paths")]
    pub from: PathBuf,
    /// and of which version,
    pub was: String,
    /// to which.
    #[serde(with = "crate::core::carry::paths")]
    pub to: PathBuf,
    /// When all stood still for it.
    pub at: Time,
}

impl Header {
    /// Of that order.
    pub fn new(order: Order, back: Option<RawFd>) -> Header {
        Header {
            magic: MAGIC.into(),
            version: VERSION,
            needs: OLDEST,
            pid: process::id(),
            may: guise::effective(),
            fds: Vec::new(),
            back,
            order,
        }
    }

    /// Understands the first line. An error is a whole sentence.
    fn parse(line: &str) -> Result<Header, String> {
        let header: Header =
            serde_json::from_str(line).map_err(|e| format!("that is no state of a master: {e}"))?;
        if header.magic != MAGIC {
            return Err("that is no state of a master".into());
        }
        if header.needs > VERSION {
            return Err(format!(
                "its state is version {}, which takes one that reads {}, and this one reads {OLDEST} to {VERSION}",
                header.version, header.needs
            ));
        }
        if header.version < OLDEST {
            return Err(format!(
                "its state is version {}, and this one reads {OLDEST} and later",
                header.version
            ));
        }
        Ok(header)
    }
}

/// What is not kept in that form.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// How what --watch names was when it was looked at last.
    pub watched: Vec<Was>,
    /// When it was to be looked at again.
    pub look: Option<Time>,
    /// Had we a terminal when we were started?
    pub had_terminal: bool,
    /// Something that a build of tomorrow has: for the tests.
    #[cfg(feature = "next-state")]
    pub tomorrow: BTreeMap<String, u64>,
}

/// All of it: of each field of the shell the reference that is written, and what is read.
macro_rules! state {
    ($($(#[$meta:meta])* $field:ident: $type:ty,)*) => {
        /// As it is written.
        #[derive(Serialize)]
        struct Written<'a> {
            $($field: &'a $type,)*
            extra: Extra,
        }

        /// As it is read.
        #[derive(Deserialize)]
        pub struct State {
            $($(#[$meta])* pub $field: $type,)*
            #[serde(default)]
            pub extra: Extra,
        }

        impl Shell {
            fn written(&self) -> Written<'_> {
                Written {
                    $($field: &self.$field,)*
                    extra: self.extra(),
                }
            }
        }
    };
}

state! {
    cluster: Cluster,
    log: Log,
    events: Events,
    sockets: Sockets,
    procs: Procs,
    stderrs: BTreeMap<WorkerId, Stderr>,
    output: Option<Output>,
    speech: BTreeMap<WorkerId, Speech>,
    messages: Messages,
    next_ask: u64,
    clients: Clients,
    claim: Claim,
    pid_file: Option<PidFile>,
    pid_dir: Option<PidDir>,
    recipes: Recipes,
    programs: Programs,
    census: Census,
    ages: Ages,
    served: Served,
    metrics: Metrics,
    idling: Idling,
    ours: Ours,
    jobs: Jobs,
    hooks: Hooks,
    relays: Relays,
    oom: Kills,
    cgroups: Cgroups,
    orphans: Orphans,
    store: Store,
    lifeline: Lifeline,
    rights: Rights,
    nofile: Option<(u64, u64)>,
    inherited: u64,
    #[serde(default)]
    not_ours: BTreeSet<RawFd>,
    #[serde(deserialize_with = "kept_set")]
    said: BTreeSet<&'static str>,
    asked: BTreeSet<i32>,
    told_all: Option<i32>,
    born_with: BTreeSet<i32>,
    holders_named: BTreeSet<SocketAddr>,
    house: Gatekeeper,
    served_last: ClientId,
    waiting: Waiting,
    supervisor: Supervisor,
}

impl Shell {
    /// Written down; its descriptors are in the header. An error is a whole sentence.
    pub(super) fn state_of(&self, mut header: Header) -> Result<(Header, String), String> {
        carried::begin();
        carry::begin();
        let state = serde_json::to_string(&self.written());
        let state = state.map_err(|e| format!("its state cannot be written down: {e}"))?;
        header.fds = carried::list();
        header.fds.extend(&self.not_ours);
        let first = serde_json::to_string(&header);
        let first = first.map_err(|e| format!("its state cannot be written down: {e}"))?;
        Ok((header, format!("{first}\n{state}\n")))
    }

    fn extra(&self) -> Extra {
        Extra {
            watched: self
                .watch
                .as_ref()
                .map(super::super::watch::Watch::was)
                .unwrap_or_default(),
            look: self
                .watch
                .as_ref()
                .and_then(super::super::watch::Watch::due),
            had_terminal: self.signals.had_terminal(),
            #[cfg(feature = "next-state")]
            tomorrow: BTreeMap::from([("news".into(), 1)]),
        }
    }
}

/// The first line alone.
pub fn header(text: &str) -> Option<Header> {
    Header::parse(text.split('\n').next()?).ok()
}

/// Reads it, and takes its descriptors. An error is a whole sentence; then nothing was given up, and the
/// descriptors are open, if the header could be read.
pub fn read(text: &str) -> (Option<Header>, Result<Box<State>, String>) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let header = match Header::parse(first) {
        Ok(header) => header,
        Err(why) => return (None, Err(why)),
    };
    carried::set_taking(true);
    carried::may_take(&header.fds);
    carry::begin();
    let state = serde_json::from_str::<State>(rest);
    let state = state.map_err(|e| format!("its state cannot be read: {e}"));
    carry::begin();
    let state = state.map(|mut s| {
        s.cluster.is_carried();
        s.not_ours.iter().for_each(|n| carried::leave(*n));
        s
    });
    (Some(header), state.map(Box::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: u32, needs: u32) -> String {
        let order = Order {
            asker: None,
            why: "asked by a test".into(),
            from: "/usr/bin/old".into(),
            was: "0.1.0".into(),
            to: "/usr/bin/new".into(),
            at: Time(1),
        };
        let mut header = Header::new(order, Some(9));
        (header.version, header.needs) = (version, needs);
        serde_json::to_string(&header).unwrap()
    }

    #[test]
    fn a_state_says_who_can_read_it() {
        let of = |version, needs| Header::parse(&line(version, needs)).map(drop);
        assert_eq!(of(VERSION, OLDEST), Ok(()));
        // A newer one that an older one can read.
        assert_eq!(of(VERSION + 7, OLDEST), Ok(()));
        let e = of(VERSION + 7, VERSION + 1).unwrap_err();
        assert!(
            e.contains("is version 8, which takes one that reads 2, and this one reads 1 to 1"),
            "{e}"
        );
        let e = of(OLDEST - 1, OLDEST - 1).unwrap_err();
        assert!(
            e.contains("is version 0, and this one reads 1 and later"),
            "{e}"
        );
    }

    #[test]
    fn what_is_no_state_is_refused_before_anything_is_taken() {
        for text in ["", "\n", "{}", "not json\n{}", "{\"magic\":\"other\"}\n"] {
            let (header, state) = read(text);
            assert!(header.is_none() && state.is_err(), "{text}");
        }
        let more = line(VERSION, OLDEST).replace("{\"magic\"", "{\"tomorrow\":[1],\"magic\"");
        assert!(Header::parse(&more).is_ok(), "a field that nobody knows");
        let (header, state) = read(&format!("{}\n{{\"cluster\":7}}\n", line(VERSION, OLDEST)));
        assert!(header.is_some());
        assert!(state.is_err_and(|e| e.starts_with("its state cannot be read: ")));
        carried::set_taking(false);
    }
}
