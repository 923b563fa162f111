//! A service unit of systemd. Type=notify, whose reload is our verb: it waits, and a reload that was
//! rolled back is a `systemctl reload` that has failed. (Type=notify-reload sends a signal and takes any
//! end for a good one, and systemd knows it from 253 on only.)

use super::plan::Plan;
use super::quote::{comment, joined, systemd as quote, systemd_path, systemd_paths, systemd_text};
use super::times;
use crate::core::Addr;
use crate::core::codes::{CANNOT_EXECUTE, EX_CONFIG, EX_NOPERM, EX_USAGE, NOT_FOUND};
use crate::settings::{Listen, Orphans};

/// Time and again the same comes of these: somebody has to change something first.
const LASTING: [u8; 5] = [EX_USAGE, EX_NOPERM, EX_CONFIG, CANNOT_EXECUTE, NOT_FOUND];

/// The unit.
pub fn unit(p: &Plan) -> String {
    let mut text = format!(
        "# {0}.service, by minicluster --print-unit systemd. Where it goes, and how it begins:\n\
         #   /etc/systemd/system/{0}.service\n\
         #   systemctl daemon-reload && systemctl enable --now {0}\n",
        p.name
    );
    text.push_str(&p.notes_text());
    text.push_str(&p.env_text());
    let what = p.command.join(" ");
    text.push_str(&format!(
        "\n[Unit]\nDescription={}: a minicluster of {}\nDocumentation=man:minicluster(1) man:minicluster(7)\n",
        p.name,
        systemd_text(&comment(&what.chars().take(100).collect::<String>()))
    ));
    // An address of ours has to be there; any address is there always.
    let online = p
        .tcp()
        .iter()
        .any(|a| !a.ip().is_unspecified() && !a.ip().is_loopback());
    text.push_str(match online {
        true => "Wants=network-online.target\nAfter=network-online.target\n",
        false => "After=network.target\n",
    });
    text.push_str("\n[Service]\n");
    text.push_str(&service(p));
    text.push_str(&rights(p));
    text.push_str(&hardening(p));
    text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    text
}

fn line(words: &[String]) -> String {
    joined(words, quote)
}

fn service(p: &Plan) -> String {
    let mut text = String::from(
        "# The master says when all workers are ready, when it reloads, and when it stops.\n\
         Type=notify\nNotifyAccess=main\n",
    );
    text.push_str(&format!("WorkingDirectory={}\n", systemd_path(&p.here)));
    text.push_str(&format!("ExecStart={}", program(p)));
    for words in &p.options {
        text.push_str(&format!(" \\\n    {}", line(words)));
    }
    text.push_str(&format!(" \\\n    -- {}\n", line(&p.command)));
    text.push_str(&match p.found_by() {
        Some(words) => format!(
            "# It waits, and fails if the new workers are no good and the old ones stay. (From systemd 253 on\n\
             # Type=notify-reload without ExecReload= would do, too, but takes any end of a reload for a good one.)\n\
             ExecReload={} {} reload\n",
            program(p),
            line(&words)
        ),
        None => "# Without a control socket a signal has to do: what came of it is in the log.\n\
                 ExecReload=kill -USR2 $MAINPID\n"
            .into(),
    });
    text.push_str(match p.settings.orphans {
        Orphans::Stop => "# TERM to the master alone: it drains its workers. What is left at the end is killed.\nKillMode=mixed\n",
        Orphans::Keep => "# TERM to the master alone: it drains its workers. Whom it leaves when it crashes is not touched, but is\n# the next start's (--orphans keep).\nKillMode=process\n",
    });
    if p.settings.cgroup {
        text.push_str("# Each worker has a control group of its own, below that of the service (--cgroup auto).\nDelegate=yes\n");
    }
    text.push_str(&match times::start(&p.policy) {
        Some(secs) => format!(
            "# --start-timeout, and the time to stop what there is by then. While it starts, reloads or stops the\n\
             # master asks for more where its own limits are longer, never without end (EXTEND_TIMEOUT_USEC).\n\
             TimeoutStartSec={secs}\n"
        ),
        None => "# --start-timeout is 0.\nTimeoutStartSec=infinity\n".into(),
    });
    let why = match p.policy.stop_budget {
        Some(_) => "# --stop-budget, and a moment.",
        None => {
            "# --drain-delay, --drain-timeout, --stop-timeout, the last connections, the last SIGKILL, and a moment."
        }
    };
    text.push_str(&format!(
        "{why}\nTimeoutStopSec={}\n",
        times::stop(&p.policy)
    ));
    let store = stored(p).map_or(String::new(), |n| {
        format!(
            "# Its listening sockets, should they be kept over a crash of the master.\nFileDescriptorStoreMax={n}\n"
        )
    });
    let codes: Vec<String> = LASTING.iter().map(u8::to_string).collect();
    text.push_str(&format!(
        "Restart=on-failure\nRestartSec=1\n\
         # Usage, permission, configuration, no such COMMAND: the next try would end as this one.\n\
         RestartPreventExitStatus={}\n\
         # The master is killed and started again if its loop does not turn for so long.\n\
         WatchdogSec=30\n\
         # A worker that the kernel kills for want of memory is replaced: that is no end of the service.\n\
         OOMPolicy=continue\n\
         # Workers have the first, which is what programs with select(2) take; the master takes the second.\n\
         LimitNOFILE=1024:524288\n\
         {store}\
         # The control socket. It is kept when this one stops: others are found there, too.\n\
         RuntimeDirectory=minicluster\nRuntimeDirectoryMode=0700\nRuntimeDirectoryPreserve=yes\n",
        codes.join(" "),
    ));
    text
}

/// Lanes there can be at most, with those of a generation that goes; none, where each worker has its own.
fn stored(p: &Plan) -> Option<usize> {
    let unix = |l: &&Listen| matches!(l, Listen::Open(Addr::Unix(_), _));
    let ports = p.tcp().len() + p.settings.listen.iter().filter(unix).count();
    (!p.settings.balance().spreads()).then_some(4 * ports.max(1))
}

fn rights(p: &Plan) -> String {
    if p.user() {
        return "\n# The master is root's and has its workers run as --user says: it opens ports for them, and keeps\n\
                # its control socket, log and pid files out of their reach. So there is no User= here.\n"
            .into();
    }
    let port = match p.privileged() {
        true => "#AmbientCapabilities=CAP_NET_BIND_SERVICE\n",
        false => "",
    };
    format!(
        "\n# As it is, master and workers are root's. Better: --user NAME in ExecStart= for the workers, or all as\n\
         # somebody else (then RuntimeDirectory= has to be one of its own, as minicluster-{}):\n\
         #User=nobody\n#Group=nogroup\n{port}",
        p.name
    )
}

fn hardening(p: &Plan) -> String {
    let mut text = String::from(
        "\n# What keeps takeover (the answering of the workers' bind(2)) and all else working. setuid programs\n\
         # and file capabilities do nothing in workers with the first.\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=full\n",
    );
    for dir in p.written.iter().filter(|d| read_only(d)) {
        let dir = systemd_paths(dir).unwrap_or_default();
        text.push_str(&format!("ReadWritePaths=-{dir}\n"));
    }
    if !p.settings.cgroup {
        text.push_str("ProtectControlGroups=yes\n");
    }
    text.push_str(match p.uses_tmp() {
        true => "# PrivateTmp=yes would hide what is said of /tmp here.\n",
        false => "PrivateTmp=yes\n",
    });
    text.push_str(
        "ProtectClock=yes\nProtectHostname=yes\nProtectKernelLogs=yes\n\
         ProtectKernelModules=yes\nProtectKernelTunables=yes\nRestrictSUIDSGID=yes\nLockPersonality=yes\n\
         # The last two are needed: what connections owe is asked by netlink, and the control socket is a unix one.\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX\n\
         # Each of these can be added if the workers bear it, with what is said:\n\
         #  MemoryDenyWriteExecute=yes     not for what compiles while it runs (Node, JVM, LuaJIT, PHP with JIT)\n\
         #  SystemCallArchitectures=native not for workers of another architecture\n\
         #  RestrictNamespaces=yes         not for workers that make containers, or run a browser\n\
         #  ProtectHome=, ProtectSystem=strict  with ReadWritePaths= for all that is written\n\
         #  SystemCallFilter=@system-service seccomp pidfd_getfd  without the last two the workers end by SIGSYS, all of them\n\
         #  CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL CAP_NET_BIND_SERVICE CAP_SYS_PTRACE CAP_CHOWN\n\
         #                 CAP_DAC_OVERRIDE CAP_NET_ADMIN CAP_SYS_RESOURCE CAP_SYS_NICE  what the master as root may need\n\
         #  ProtectProc=invisible          for a master as root; for another one with --user it hides the workers\n\
         # And these break it: PrivateNetwork= (nobody comes in), SocketBindDeny= (of its ports), PrivateUsers= with\n\
         # --user (no such user), RestrictAddressFamilies= without those above.\n",
    );
    text
}

/// What cannot be said there.
pub fn refuse(p: &Plan) -> Result<(), String> {
    // It is the first word of its own command line, too, where a $ is a variable.
    let odd = |c: char| "$'\"\\".contains(c);
    if p.binary.contains(odd) || systemd_paths(&p.binary).is_none() {
        return Err(format!(
            "{} is no name of a program for ExecStart= of a unit, which takes none of $ ' \" \\: put it elsewhere",
            comment(&p.binary)
        ));
    }
    let mut written = p.written.iter().filter(|d| read_only(d));
    match written.find(|d| systemd_paths(d).is_none()) {
        Some(dir) => Err(format!(
            "{} cannot be written to under ProtectSystem=: ReadWritePaths= of a unit takes no \\ and no control character; give it another name",
            comment(dir)
        )),
        None => Ok(()),
    }
}

/// Us. What it cannot be has been refused.
fn program(p: &Plan) -> String {
    systemd_paths(&p.binary).unwrap_or_default()
}

/// By ProtectSystem=full.
fn read_only(dir: &str) -> bool {
    ["/usr", "/boot", "/efi", "/etc"]
        .iter()
        .any(|top| dir == *top || dir.strip_prefix(top).is_some_and(|r| r.starts_with('/')))
}
