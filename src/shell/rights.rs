//! Whom the workers run as, what they may use, and the files with their environment: looked up and
//! checked before anything is bound, since all of it is an operator's slip to be told at once.

use super::Shell;
use crate::core::codes::{EX_CONFIG, EX_NOPERM, EX_OSERR, Failure};
use crate::core::words::reason;
use crate::core::{Balance, SlotNr};
use crate::settings::{
    MAX_ENV_FILE, NOFILE, Principal, Rlimit, Settings, Variable, env_file, limit_text,
};
use crate::sys::guise::{self, Guise, Worn};
use crate::sys::spawn::Ids;
use crate::sys::user::{self, Account};
use crate::sys::{cpus, process, procfs};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Ports below that are for the privileged, unless the kernel says otherwise.
const PRIVILEGED_BELOW: u16 = 1024;

/// What was found.
#[derive(Clone, Serialize, Deserialize)]
pub struct Rights {
    /// Whom they run as, if not as us.
    pub ids: Option<Ids>,
    /// The user of --user, where the database has it.
    account: Option<Account>,
    /// Of --env-file, in order.
    variables: Vec<Variable>,
    /// Limits but that of open files.
    pub limits: Vec<(u8, u64, u64)>,
    /// That of open files, if one was asked for.
    pub nofile: Option<(u64, u64)>,
    /// The CPUs that we may use, if each worker is to have one of them.
    cpus: Vec<usize>,
    /// To be worn around looks into workers, where we may not look as ourselves.
    look: Option<Guise>,
    /// To be worn to signal them, likewise.
    kill: Option<Guise>,
}

/// How a file is opened.
type Open = dyn Fn(&Path) -> io::Result<File>;

impl Rights {
    /// The same as the shell's, before there is one.
    pub(super) fn to_kill(&self) -> Option<Worn> {
        self.kill.map(|g| g.wear())
    }

    /// Are workers somebody else than we are?
    pub fn are_anothers(&self) -> bool {
        let uid = self.ids.as_ref().and_then(|ids| ids.uid);
        uid.is_some_and(|uid| uid != process::euid())
    }

    /// Looks all of it up. At the start a file may be a pipe that somebody fills; later nobody is waited for.
    pub fn find(settings: &Settings, open: &Open) -> Result<Rights, Failure> {
        let mut variables = Vec::new();
        for path in &settings.env_files {
            variables.extend(read_env_file(path, open)?);
        }
        for limit in &settings.rlimits {
            check_limit(limit)?;
        }
        let limits = settings.rlimits.iter();
        let (files, others): (Vec<_>, Vec<_>) = limits
            .map(|l| (l.resource, l.soft, l.hard))
            .partition(|(resource, ..)| *resource == NOFILE);
        let (ids, account) = whom(settings)?;
        let guise = ids.as_ref().map(guise_of);
        Ok(Rights {
            look: guise.filter(|_| !guise::may_look()),
            kill: guise.filter(|_| !guise::capable(guise::KILL)),
            ids,
            account,
            variables,
            cpus: allowed_cpus(settings)?,
            limits: others,
            nofile: files.first().map(|(_, soft, hard)| (*soft, *hard)),
        })
    }

    /// That for the worker of a slot.
    pub fn cpu(&self, slot: SlotNr) -> Option<usize> {
        let nth = usize::from(slot.0).checked_rem(self.cpus.len())?;
        self.cpus.get(nth).copied()
    }

    /// Without any.
    pub fn unpin(&mut self) {
        self.cpus.clear();
    }

    /// With these on, files are looked at as the workers will see them.
    pub fn eyes(&self) -> Option<Worn> {
        let ids = self.ids.as_ref()?;
        Some(guise_of(ids).wear_with(ids.groups.as_deref()))
    }

    /// The ids of whoever may look into workers, worn as long as that lives; nothing, if we may as we are.
    pub fn to_look(&self) -> Option<Worn> {
        self.look.map(|g| g.wear())
    }

    /// The lowest port that may be learnt. Who may not bind one does not get it by us.
    pub fn learn_from(&self) -> u16 {
        match self.ids.as_ref().and_then(|ids| ids.uid) {
            None | Some(0) => 1,
            Some(_) => procfs::unprivileged_port_start().unwrap_or(PRIVILEGED_BELOW),
        }
    }

    /// What a login as that user would have in the environment, then what the files have.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        let login = self.account.iter().flat_map(|a| {
            let shell = match a.shell.is_empty() {
                true => b"/bin/sh",
                false => a.shell.as_bytes(),
            };
            [
                ("HOME", a.home.as_bytes()),
                ("USER", a.name.as_bytes()),
                ("LOGNAME", a.name.as_bytes()),
                ("SHELL", shell),
            ]
        });
        let login = login.map(|(k, v)| (k.to_string(), v.to_vec()));
        login.chain(self.variables.iter().cloned())
    }
}

impl Shell {
    /// The workers' ids, as long as what is returned lives; nothing, if we may look without. Around a
    /// look alone: nothing may be forked, opened for good or waited for meanwhile.
    pub(super) fn to_look(&self) -> Option<Worn> {
        self.rights.to_look()
    }

    /// The same around a signal to them.
    pub(super) fn to_kill(&self) -> Option<Worn> {
        self.rights.to_kill()
    }
}

fn guise_of(ids: &Ids) -> Guise {
    Guise {
        uid: ids.uid.unwrap_or_else(process::euid),
        gid: ids.gid.unwrap_or_else(process::egid),
    }
}

/// The CPUs that we may use, if it matters.
fn allowed_cpus(settings: &Settings) -> Result<Vec<usize>, Failure> {
    // By CPU is dealt to those that run there.
    let pinned = settings.cpu_affinity || settings.balance == Some(Balance::Cpu);
    if !pinned {
        return Ok(Vec::new());
    }
    cpus::allowed().map_err(|e| {
        let why = reason(&e);
        let message = format!("--cpu-affinity: cannot tell which CPUs may be used: {why}");
        (EX_OSERR, message)
    })
}

/// --user and --group, as numbers that we may become. No ids: they are what we are.
fn whom(settings: &Settings) -> Result<(Option<Ids>, Option<Account>), Failure> {
    let gid = settings.group.as_ref();
    let gid = gid.map(|g| group_number("--group", g)).transpose()?;
    let Some(asked) = &settings.user else {
        return match gid {
            Some(gid) if !guise::are_ours(process::euid(), gid) => {
                may_change(settings, false, true)?;
                let gid = Some(gid);
                let ids = Ids {
                    gid,
                    ..Ids::default()
                };
                Ok((Some(ids), None))
            }
            Some(_) | None => Ok((None, None)),
        };
    };
    let (uid, account) = user_number("--user", asked)?;
    let primary = gid.or(account.as_ref().map(|a| a.gid)).ok_or_else(|| {
        let why = format!("--user {uid}: the user database has no such number, so its group is not known: give that by --group");
        (EX_CONFIG, why)
    })?;
    let us = guise::are_ours(uid, process::egid());
    if guise::are_ours(uid, primary) || us && gid.is_none() && !guise::capable(guise::SETGID) {
        return Ok((None, account));
    }
    may_change(settings, !us, true)?;
    let groups = match &account {
        Some(a) => user::groups_of(&a.name, primary).map_err(|e| {
            (
                EX_CONFIG,
                format!("--user {asked}: its groups: {}", reason(&e)),
            )
        })?,
        None => vec![primary],
    };
    let ids = Ids {
        uid: Some(uid),
        gid: Some(primary),
        groups: Some(groups),
    };
    Ok((Some(ids), account))
}

/// The number of a user, for that option.
pub fn user_number(option: &str, asked: &Principal) -> Result<(u32, Option<Account>), Failure> {
    match asked {
        Principal::Number(n) => Ok((*n, user::by_uid(*n))),
        Principal::Named(name) => match user::by_name(name) {
            Ok(Some(account)) => Ok((account.uid, Some(account))),
            Ok(None) => Err(unknown(option, name, "user", "/etc/passwd")),
            Err(e) => Err((EX_CONFIG, format!("{option} {name}: {}", reason(&e)))),
        },
    }
}

/// The number of a group, for that option.
pub fn group_number(option: &str, asked: &Principal) -> Result<u32, Failure> {
    match asked {
        Principal::Number(n) => Ok(*n),
        Principal::Named(name) => match user::group(name) {
            Ok(Some(gid)) => Ok(gid),
            Ok(None) => Err(unknown(option, name, "group", "/etc/group")),
            Err(e) => Err((EX_CONFIG, format!("{option} {name}: {}", reason(&e)))),
        },
    }
}

fn unknown(option: &str, name: &str, what: &str, file: &str) -> Failure {
    let place = match cfg!(target_feature = "crt-static") {
        true => format!("in {file}, which is all that a static binary asks"),
        false => "on this machine".to_string(),
    };
    let message = format!("{option} {name}: there is no such {what} {place}; a number would do");
    (EX_CONFIG, message)
}

fn may_change(settings: &Settings, user: bool, group: bool) -> Result<(), Failure> {
    let lacking = [
        ("CAP_SETUID", user && !guise::capable(guise::SETUID)),
        ("CAP_SETGID", group && !guise::capable(guise::SETGID)),
    ];
    let lacking: Vec<&str> = lacking
        .iter()
        .filter(|(_, l)| *l)
        .map(|(c, _)| *c)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let option = match (&settings.user, &settings.group) {
        (Some(u), _) => format!("--user {u}"),
        (None, Some(g)) => format!("--group {g}"),
        (None, None) => String::new(),
    };
    let message = format!(
        "{option}: uid {} without {} cannot run workers as somebody else; start as root, or leave it out: workers run as whoever starts them",
        process::euid(),
        lacking.join(" and ")
    );
    Err((EX_NOPERM, message))
}

/// What cannot be set is told now. (What the kernel refuses for other reasons, the first worker tells.)
fn check_limit(limit: &Rlimit) -> Result<(), Failure> {
    let name = limit.name();
    let ours = process::rlimit(limit.resource).map_or(u64::MAX, |(_, hard)| hard);
    if limit.hard > ours && !guise::capable(guise::SYS_RESOURCE) {
        let message = format!(
            "--rlimit {name}: the hard limit {} is above ours, {}; to raise it takes CAP_SYS_RESOURCE",
            limit_text(limit.hard),
            limit_text(ours)
        );
        return Err((EX_NOPERM, message));
    }
    let most = procfs::most_open_files().filter(|_| limit.resource == NOFILE);
    match most {
        Some(most) if limit.hard > most => {
            let message = format!(
                "--rlimit {name}: the hard limit {} is above the kernel's own, {most} (fs.nr_open)",
                limit_text(limit.hard)
            );
            Err((EX_NOPERM, message))
        }
        Some(_) | None => Ok(()),
    }
}

fn read_env_file(path: &Path, open: &Open) -> Result<Vec<Variable>, Failure> {
    let shown = path.display();
    let fail = |why: String| (EX_CONFIG, format!("--env-file {shown}: {why}"));
    let mut text = Vec::new();
    let limit = MAX_ENV_FILE as u64 + 1;
    open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut text))
        .map_err(|e| fail(reason(&e)))?;
    if text.len() > MAX_ENV_FILE {
        return Err(fail(format!("longer than {} KiB", MAX_ENV_FILE >> 10)));
    }
    env_file(&text).map_err(|(line, why)| (EX_CONFIG, format!("{shown}:{line}: {why}")))
}
