//! What to add where something is refused: the exact flag, capability or setting, by who has taken it away.

use super::{Mechanism, State};
use crate::core::errno::{EACCES, EADDRINUSE, EBUSY, EEXIST, ENOMEM, EPERM};
use Mechanism as M;

/// What a remedy hangs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Have we CAP_SYS_PTRACE?
    pub ptrace: bool,
    /// Was no_new_privs set before us?
    pub no_new_privs: bool,
    /// kernel.yama.ptrace_scope
    pub yama: Option<u8>,
    /// net.core.optmem_max
    pub optmem: Option<u64>,
    /// net.ipv4.ip_unprivileged_port_start
    pub ports_from: Option<u16>,
    /// So many descriptors are needed.
    pub files: u64,
}

/// In the words of those who run containers and units.
fn capability(name: &str) -> String {
    format!(
        "docker run --cap-add {name}; Kubernetes: securityContext.capabilities.add [\"{name}\"]; systemd: AmbientCapabilities=CAP_{name}, and CapabilityBoundingSet= that has it"
    )
}

/// A system call that a profile has to let pass.
fn call(name: &str) -> String {
    format!(
        "let {name} pass: docker run --security-opt seccomp=PROFILE.json (or unconfined); Kubernetes: securityContext.seccompProfile of type Localhost (or Unconfined); systemd: SystemCallFilter= that has it"
    )
}

fn ptrace(name: &str, around: &Around) -> String {
    match (around.ptrace, around.yama) {
        (false, Some(scope @ 2..)) => format!(
            "sysctl kernel.yama.ptrace_scope=1 (it is {scope}); or {}",
            capability("SYS_PTRACE")
        ),
        (true, Some(scope @ 3..)) => {
            format!("sysctl kernel.yama.ptrace_scope=2 or less, after a boot (it is {scope})")
        }
        (true, _) => format!(
            "CAP_SYS_PTRACE is here, so a profile forbids it; {}",
            call(name)
        ),
        (false, _) => format!(
            "{} (container profiles let {name} pass with it); or {}",
            capability("SYS_PTRACE"),
            call(name)
        ),
    }
}

/// What helps.
pub(super) fn remedy(what: Mechanism, state: &State, around: &Around) -> String {
    let errno = match state {
        State::Refused(errno) => *errno,
        State::Ok(_)
        | State::Fails(_)
        | State::Kills(_)
        | State::Hangs
        | State::Untried
        | State::NotNeeded => 0,
    };
    match what {
        M::Notify => notify(errno),
        M::Privileges if around.no_new_privs => "docker run without --security-opt no-new-privileges; Kubernetes: allowPrivilegeEscalation: true; systemd: NoNewPrivileges=no, which DynamicUser= and others imply otherwise".into(),
        M::Privileges => format!("{}; or --takeover off", capability("SYS_ADMIN")),
        M::Memory => ptrace("process_vm_readv", around),
        M::Pidfd => match errno {
            EPERM | EACCES => call("pidfd_open and pidfd_send_signal"),
            _ => format!("Linux 5.3; or {}", call("pidfd_open and pidfd_send_signal")),
        },
        M::Getfd => match errno {
            EPERM | EACCES => ptrace("pidfd_getfd", around),
            _ => format!("Linux 5.6; or {}", call("pidfd_getfd")),
        },
        M::Hold => match errno {
            EPERM => format!(
                "{} (Linux of mid 2026 and later asks for it); or --drain server, if the server stops gracefully",
                capability("NET_ADMIN")
            ),
            _ => call("setsockopt(SO_ATTACH_FILTER)"),
        },
        M::Proc => "mount -t proc proc /proc in that root; unshare --mount-proc; in a container: do not mask /proc; systemd: no ProtectProc=, ProcSubset=all".into(),
        M::Look => format!(
            "mount /proc without hidepid= (mount -o remount,hidepid=0 /proc; systemd: ProtectProc=default); or {}",
            capability("SYS_PTRACE")
        ),
        M::SockDiag | M::SockNews => format!(
            "systemd: RestrictAddressFamilies= that has AF_NETLINK; a kernel with inet_diag (modprobe tcp_diag); or {}",
            call("socket(AF_NETLINK)")
        ),
        M::SharePort => format!("Linux 3.9; or {}", call("setsockopt(SO_REUSEPORT)")),
        M::Steering => match errno {
            0 | ENOMEM => format!(
                "sysctl net.core.optmem_max=131072{}",
                around.optmem.map_or(String::new(), |n| format!(" (it is {n})"))
            ),
            _ => format!("Linux 4.5; or {}", call("setsockopt(SO_ATTACH_REUSEPORT_CBPF)")),
        },
        M::Subreaper => format!(
            "{}; or run it as PID 1 of its container (docker run without --init)",
            call("prctl(PR_SET_CHILD_SUBREAPER)")
        ),
        M::DeathSignal => call("prctl(PR_SET_PDEATHSIG)"),
        M::Abstract => format!(
            "{}; systemd: RestrictAddressFamilies= that has AF_UNIX; no Landlock or AppArmor rule against abstract unix sockets",
            call("socket(AF_UNIX)")
        ),
        M::Ids => "docker run --cap-add SETUID --cap-add SETGID; Kubernetes: securityContext.capabilities.add [\"SETUID\",\"SETGID\"]; systemd: AmbientCapabilities=CAP_SETUID CAP_SETGID; in a user namespace that has the number (/proc/self/uid_map); or leave --user and --group out".into(),
        M::Nice => format!(
            "{}; or systemd: LimitNICE=, a shell: ulimit -e",
            capability("SYS_NICE")
        ),
        M::Limits => format!(
            "{}; or docker run --ulimit NAME=N; systemd: LimitNOFILE= and its like",
            capability("SYS_RESOURCE")
        ),
        M::Affinity => format!(
            "a cpuset that has the CPU (docker run --cpuset-cpus; systemd: AllowedCPUs=); or {}",
            call("sched_setaffinity")
        ),
        M::Directory if matches!(state, State::Fails(why) if why.contains("No such file")) => {
            "make it (mkdir -p), or mount what has it; or another --cwd".into()
        }
        M::Directory => {
            "chmod +x the directories on the way there, for the user that workers run as; or another --cwd".into()
        }
        M::Ports => ports(errno, around),
        M::Files => format!(
            "docker run --ulimit nofile={n}:{n}; systemd: LimitNOFILE={n}; a shell: ulimit -Hn {n}; or fewer -n",
            n = around.files
        ),
        M::Runtime => "systemd: RuntimeDirectory=minicluster; docker run --tmpfs /run; others: RUNTIME_DIRECTORY=DIR or XDG_RUNTIME_DIR=DIR that can be written; or -C PATH, or -C off".into(),
        M::Syslog => "--log-file FILE; or docker run -v /dev/log:/dev/log; systemd: no PrivateDevices= without BindPaths=/dev/log".into(),
        M::Cgroup => "systemd: Delegate=yes; docker run --cgroupns private with /sys/fs/cgroup mounted rw; Linux 5.14 with cgroup v2; or leave --cgroup out".into(),
    }
}

fn notify(errno: i32) -> String {
    match errno {
        EBUSY => "an outer supervisor has such a filter already (another minicluster, a sandbox, WSL): start outside of it; where that is a minicluster: --takeover off for the outer one".into(),
        EACCES => format!(
            "{}; or {}",
            call("prctl(PR_SET_NO_NEW_PRIVS)"),
            capability("SYS_ADMIN")
        ),
        EPERM => call("seccomp"),
        // Killed, or it hangs.
        0 => format!("--takeover off; or {}", call("seccomp")),
        _ => format!(
            "Linux 5.9 with user notification, which sandboxes such as gVisor lack; or {}",
            call("seccomp")
        ),
    }
}

fn ports(errno: i32, around: &Around) -> String {
    match errno {
        EADDRINUSE => "end whoever has it, or take another -p".into(),
        EEXIST => "move away what is there, or take another path".into(),
        EPERM | EACCES => format!(
            "{}; or sysctl net.ipv4.ip_unprivileged_port_start=0{} (docker run --sysctl; Kubernetes: securityContext.sysctls); or a port above",
            capability("NET_BIND_SERVICE"),
            around
                .ports_from
                .map_or(String::new(), |n| format!(" (it is {n})"))
        ),
        _ => "an address that is here (ip addr), or -H 0.0.0.0; of -l unix:PATH, a directory that is there and can be written".into(),
    }
}
