//! --single: COMMAND in our own place, with the sockets and surroundings that a worker would have, and
//! no master. What a supervisor has for us (NOTIFY_SOCKET, stdin, ignored signals) is COMMAND's then.

use super::environment::{Mastered, Surroundings};
use super::rights::Rights;
use super::sockets::{Place, Sockets};
use crate::core::codes::{self, EX_OSERR, Failure};
use crate::core::words::{errno_text, reason};
use crate::core::{Given, LaneId, Of, PortId, Reader, Seat, SlotNr, remedy_of_port};
use crate::settings::Settings;
use crate::sys::spawn::{self, Plan, Watch};
use crate::sys::{errno_of, process, procnet};
use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Nobody but it is there.
const ALONE: Reader = Reader {
    generation: 1,
    seat: Seat(0),
};

/// Opens what was given and executes COMMAND. Comes back only if a socket cannot be had.
pub fn run(
    settings: &Settings,
    rights: &Rights,
    program: &CString,
    cwd: &Path,
    given: &[Given],
) -> Failure {
    let mut sockets = Sockets::of(settings);
    for (n, one) in (1..).zip(given) {
        let at = Place {
            lane: LaneId(n),
            port: PortId(n),
            of: Of::All,
        };
        if let Err(e) = sockets.open_given(at, one) {
            return cannot_open(one, &e);
        }
    }
    // Nobody will be there to keep them.
    sockets.leave_files();
    let around = Surroundings {
        settings,
        rights,
        sockets: &sockets,
        name: &settings
            .name
            .clone()
            .unwrap_or_else(|| settings.implied_name()),
        control: None,
        workers: 1,
    };
    let env = around.environment(SlotNr(0), ALONE, Mastered::Not);
    let dir = CString::new(cwd.as_os_str().as_bytes()).unwrap_or_default();
    let handed = sockets.handed(ALONE);
    let plan = Plan {
        program,
        argv: &around.argv(&settings.command, SlotNr(0)),
        env: &env,
        cwd: Some(&dir),
        stay: rights.ids.is_some() && settings.cwd.is_none(),
        cgroup: None,
        ids: rights.ids.as_ref(),
        umask: settings.umask,
        nice: settings.nice,
        cpu: rights.cpu(SlotNr(0)),
        limits: &rights.limits,
        stdin: None,
        stdout: None,
        stderr: None,
        pass: handed.iter().map(|h| h.fd).collect(),
        extra: Vec::new(),
        nofile: rights.nofile,
        watch: Watch::No,
        watch_unix: false,
        keep: &[],
        hollow: &[],
        mortal: false,
        life: None,
        report: None,
    };
    spawn::exec_here(&plan, cannot_run)
}

pub(super) fn cannot_open(given: &Given, e: &std::io::Error) -> Failure {
    let errno = errno_of(e);
    let port = given.addr.port().filter(|_| errno == libc::EADDRINUSE);
    let holder = port.and_then(procnet::holder_of);
    let holder = holder.map_or(String::new(), |h| format!("; held by {h}"));
    let remedy = remedy_of_port(errno, &given.addr);
    let remedy = remedy.map_or(String::new(), |r| format!("; {r}"));
    let message = format!("cannot open {}: {}{holder}{remedy}", given.addr, reason(e));
    (codes::of_port(errno), message)
}

/// The same sentence, and the same code, as a master would have for it.
fn cannot_run(step: &'static str, errno: i32) -> ! {
    let remedy = codes::remedy(step, errno);
    let remedy = remedy.map_or(String::new(), |r| format!("; {r}"));
    let why = errno_text(errno);
    let _ = writeln!(
        std::io::stderr(),
        "minicluster: cannot start COMMAND: {step}: {why}{remedy}"
    );
    process::exit_now(codes::of_step(step, errno).unwrap_or(EX_OSERR))
}
