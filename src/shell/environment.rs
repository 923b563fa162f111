//! The environment of a worker.

use super::handed;
use super::names::{CONTROL, control_of};
use super::rights::Rights;
use super::sockets::Sockets;
use crate::core::{Reader, SlotNr};
use crate::settings::{Control, Settings, expand};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

/// What it is made of.
pub struct Surroundings<'a> {
    /// What the operator said.
    pub settings: &'a Settings,
    /// Whose they are.
    pub rights: &'a Rights,
    /// What they are handed.
    pub sockets: &'a Sockets,
    /// Of the cluster.
    pub name: &'a str,
    /// The control socket, or the port in its place, if there is one.
    pub control: Option<OsString>,
    /// How many there are.
    pub workers: usize,
}

/// Is there a master to speak to, and where?
#[derive(Clone, Copy)]
pub enum Mastered<'a> {
    /// By the name of its notification socket, and on the number of Node's channel.
    By {
        notify: &'a str,
        channel: Option<i32>,
    },
    /// There is none.
    Not,
}

impl Surroundings<'_> {
    /// What it says of the cluster to programs that are no workers.
    pub fn of_the_cluster(&self, generation: u32) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<(String, Vec<u8>)> = Vec::new();
        let mut set = |k: &str, v: String| all.push((k.into(), v.into_bytes()));
        set("MINICLUSTER_NAME", self.name.to_string());
        set("MINICLUSTER_GENERATION", generation.to_string());
        set("MINICLUSTER_WORKERS", self.workers.to_string());
        if let Some(addr) = self.sockets.given().first() {
            set("PORT", addr.port().to_string());
            set("HOST", addr.ip().to_string());
        }
        if let Some(at) = &self.control {
            all.push((CONTROL.into(), at.as_bytes().to_vec()));
        }
        all
    }

    /// The words of COMMAND.
    pub fn argv(&self, command: &[OsString], slot: SlotNr) -> Vec<CString> {
        let word = |w: &OsString| CString::new(expand(w.as_bytes(), slot.0));
        // Words of a command line cannot hold NUL.
        command.iter().filter_map(|w| word(w).ok()).collect()
    }

    /// Ours without what was meant for us, then the worker's own, then what the operator says: by
    /// files, then by word.
    pub fn environment(&self, slot: SlotNr, reader: Reader, master: Mastered<'_>) -> Vec<CString> {
        let mut own: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut set = |k: &str, v: String| drop(own.insert(k.into(), v.into_bytes()));
        set("WORKER_ID", slot.to_string());
        set("NODE_APP_INSTANCE", slot.to_string());
        set("MINICLUSTER_NAME", self.name.to_string());
        set("MINICLUSTER_GENERATION", reader.generation.to_string());
        set("MINICLUSTER_WORKERS", self.workers.to_string());
        if let Mastered::By { notify, channel } = master {
            if !notify.is_empty() {
                set("NOTIFY_SOCKET", notify.to_string());
            }
            if let Some(limit) = self.settings.watchdog {
                // Without WATCHDOG_PID it is meant for whoever serves, behind a wrapper or not.
                set("WATCHDOG_USEC", limit.as_micros().to_string());
            }
            if let Some(number) = channel {
                set("NODE_CHANNEL_FD", number.to_string());
                set("NODE_CHANNEL_SERIALIZATION_MODE", "json".to_string());
            }
            // Their clients look whether it is their parent that speaks to them.
            set("EINHORN_MASTER_PID", std::process::id().to_string());
            set("EINHORN_CHILD_INDEX", slot.to_string());
        }
        if let Some(addr) = self.sockets.given().first() {
            set("PORT", addr.port().to_string());
            set("HOST", addr.ip().to_string());
        }
        let mut all = |vars: Vec<(String, String)>| {
            own.extend(
                vars.into_iter()
                    .map(|(k, v)| (k.into_bytes(), v.into_bytes())),
            );
        };
        all(handed::variables(
            &self.sockets.handed(reader),
            reader.generation,
        ));
        if let Some(at) = &self.control {
            let is_port = matches!(control_of(at), Some(Control::Port(_)));
            own.insert(CONTROL.into(), at.as_bytes().to_vec());
            if !is_port {
                own.insert("EINHORN_SOCK_PATH".into(), at.as_bytes().to_vec());
            }
        }
        for (k, v) in self.rights.variables() {
            own.insert(k.into_bytes(), expand(&v, slot.0));
        }
        for (k, v) in &self.settings.env {
            own.insert(k.clone().into_bytes(), expand(v.as_bytes(), slot.0));
        }
        let passed_on = |k: &[u8]| {
            !self.settings.clear_env && !is_masters_own(k, master) && !own.contains_key(k)
        };
        let inherited = std::env::vars_os()
            .filter(|(k, _)| passed_on(k.as_bytes()))
            .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()));
        inherited
            .chain(own.iter().map(|(k, v)| (k.clone(), v.clone())))
            .filter_map(|(k, v)| CString::new([k, b"=".to_vec(), v].concat()).ok())
            .collect()
    }
}

/// That of a program of the operator's: ours without what was meant for us, then its own.
pub fn of_program(own: &[(String, Vec<u8>)]) -> Vec<CString> {
    let by = Mastered::By {
        notify: "",
        channel: None,
    };
    let is_own = |k: &[u8]| own.iter().any(|(name, _)| name.as_bytes() == k);
    let inherited = std::env::vars_os()
        .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
        .filter(|(k, _)| !is_masters_own(k, by) && !is_own(k));
    let own = own.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.clone()));
    inherited
        .chain(own)
        .filter_map(|(k, v)| CString::new([k, b"=".to_vec(), v].concat()).ok())
        .collect()
}

/// By it a Node process takes itself for a worker of Node's own cluster, and has it listen in its place.
const NODE_UNIQUE_ID: &[u8] = b"NODE_UNIQUE_ID";

/// Variables that speak to us, not to our workers.
fn is_masters_own(key: &[u8], master: Mastered<'_>) -> bool {
    // Of those that speak to a process, some speak to what takes its place.
    const OF_THE_PLACE: [&[u8]; 6] = [
        b"NOTIFY_SOCKET",
        b"WATCHDOG_PID",
        b"WATCHDOG_USEC",
        b"NODE_CHANNEL_FD",
        b"NODE_CHANNEL_SERIALIZATION_MODE",
        NODE_UNIQUE_ID,
    ];
    if matches!(master, Mastered::Not) && OF_THE_PLACE.contains(&key) {
        return false;
    }
    const EXACT: [&[u8]; 11] = [
        b"LISTEN_PID",
        b"LISTEN_FDS",
        b"LISTEN_FDNAMES",
        b"LISTEN_PIDFDID",
        b"NOTIFY_SOCKET",
        b"WATCHDOG_PID",
        b"WATCHDOG_USEC",
        b"WEB_CONCURRENCY",
        b"NODE_CHANNEL_FD",
        b"NODE_CHANNEL_SERIALIZATION_MODE",
        NODE_UNIQUE_ID,
    ];
    EXACT.contains(&key)
        || [&b"MINICLUSTER_"[..], b"EINHORN_", b"SERVER_STARTER_"]
            .iter()
            .any(|p| key.starts_with(p))
}
