//! The list itself, in the order of help, in three groups: looking, doing, and what is about us.

use super::{Verb, What, checks, orders};
use crate::settings::Before;

const fn verb(name: &'static str, what: What, words: &'static str, help: &'static str) -> Verb {
    Verb {
        name,
        words,
        takes: 0,
        waits: false,
        help,
        what,
        proposes: "",
        before: None,
        objects: false,
        data: false,
        typed: false,
        check: checks::nothing,
        order: orders::looks,
    }
}

impl Verb {
    /// So many words may follow.
    const fn takes(mut self, most: usize) -> Verb {
        self.takes = most;
        self
    }

    /// Its answer is waited for.
    const fn waits(mut self) -> Verb {
        self.waits = true;
        self
    }

    /// These words stand first behind it, mostly.
    const fn proposes(mut self, words: &'static str) -> Verb {
        self.proposes = words;
        self
    }

    /// A COMMAND follows.
    const fn command(mut self, before: Before) -> Verb {
        self.before = Some(before);
        self.objects = true;
        self.takes = usize::MAX;
        self.waits = true;
        self.order = orders::answers;
        self
    }

    /// Its answer is data.
    const fn data(mut self) -> Verb {
        self.data = true;
        self
    }

    /// It is for who types.
    const fn typed(mut self) -> Verb {
        self.typed = true;
        self
    }

    /// An object of options may stand at its end.
    const fn objects(mut self) -> Verb {
        self.objects = true;
        self
    }

    /// What its words have to be.
    const fn checked(mut self, check: super::Check) -> Verb {
        self.check = check;
        self
    }

    /// What a signal that stands for it is an order for.
    const fn order(mut self, order: super::Ordered) -> Verb {
        self.order = order;
        self
    }
}

/// All of them.
pub static VERBS: [Verb; 43] = [
    verb(
        "status",
        What::Status,
        "[watch]",
        "the cluster, its ports and its workers; watch: again each second",
    )
    .takes(1)
    .proposes("watch")
    .checked(checks::status)
    .data(),
    verb(
        "workers",
        What::Workers,
        "[simple|details]",
        "slot, pid and state of each worker; or all that is known of it",
    )
    .data()
    .takes(1)
    .proposes("simple details")
    .checked(checks::workers),
    verb(
        "why",
        What::Why,
        "[SLOT]",
        "the last deaths: reason, status, age, last stderr lines, what followed",
    )
    .data()
    .takes(1),
    verb(
        "info",
        What::Info,
        "",
        "workers, memory, time and connections of all together",
    )
    .data(),
    verb("size", What::Size, "", "how many workers there are to be").data(),
    verb("pids", What::Select("pid"), "", "the workers' pids").data(),
    verb("ages", What::Select("age"), "", "their ages").data(),
    verb("states", What::Select("state"), "", "their states").data(),
    verb(
        "select",
        What::Select(""),
        "FIELD",
        "one field of each worker, as workers details has them",
    )
    .data()
    .takes(1)
    .proposes("pid slot generation state age rss cpu restarts open queue silent oldest served received sent timeouts status command")
    .checked(checks::select),
    verb(
        "connections",
        What::Connections,
        "",
        "how many connections each worker has; and who waits",
    )
    .data(),
    verb(
        "health",
        What::Health,
        "",
        "OK, or WARNING and why: are as many ready as --ready-quorum wants?",
    ),
    verb(
        "ecv",
        What::Ecv,
        "",
        "AVAILABLE, WARNING or DISABLED, since when and why; exit 1 if not the first",
    )
    .data(),
    verb(
        "deps",
        What::Deps,
        "[SLOT]",
        "what the workers are made of: executable, shared objects, packages; what was replaced",
    )
    .data()
    .takes(1),
    verb("options", What::Options, "", "the options that hold").data(),
    verb("cluster", What::Cluster, "", "the first line of status").data(),
    verb("repl", What::Repl, "", "the consoles that are open").data(),
    verb("sock", What::Sock, "", "the path of the control socket"),
    verb(
        "events",
        What::Events,
        "[follow|off]",
        "what has happened; follow: and what happens from now on",
    )
    .typed()
    .takes(1)
    .proposes("follow off")
    .checked(checks::events),
    verb(
        "logs",
        What::Logs,
        "[SLOT] [lines N] [follow|off]",
        "what the workers have written last, with --log-dir; follow: and what they write",
    )
    .takes(4)
    .proposes("lines follow off")
    .checked(checks::logs),
    verb(
        "disable",
        What::Disable,
        "[REASON..]",
        "out of rotation: ecv says DISABLED, all else goes on",
    )
    .takes(usize::MAX)
    .checked(checks::rotate)
    .order(orders::disable),
    verb("enable", What::Enable, "[REASON..]", "in rotation again")
        .takes(usize::MAX)
        .checked(checks::rotate)
        .order(orders::enable),
    verb(
        "resize",
        What::Resize,
        "N|+K|-K",
        "so many workers; returns when they are ready",
    )
    .takes(1)
    .waits()
    .proposes("+1 -1")
    .checked(checks::resize)
    .order(orders::resize),
    verb(
        "reload",
        What::Reload,
        "",
        "replace all workers, new before old; returns when it is over",
    )
    .waits()
    .order(orders::reload),
    verb(
        "handover",
        What::Handover,
        "[BINARY] [timeout T]",
        "replace the master by the binary now on disk: same pid, same workers",
    )
    .takes(3)
    .waits()
    .checked(checks::handover)
    .order(orders::handover),
    verb(
        "upgrade",
        What::Upgrade,
        "[all|SLOT|PID] [cwd D] [watch T] [timeout T] [--] COMMAND..",
        "reload to that; taken back if it is broken",
    )
    .command(Before::Upgrade),
    verb(
        "rollback",
        What::Rollback,
        "",
        "back to the command before; of an upgrade under way: at once",
    )
    .waits()
    .order(orders::answers),
    verb(
        "start",
        What::Start,
        "[count N] [cwd D] [timeout T] [--] COMMAND..",
        "more workers, which run another command",
    )
    .command(Before::Start),
    verb(
        "replace",
        What::Replace,
        "cwd D [option --NAME=VALUE].. [--] COMMAND..",
        "be exactly what a start of that would be; what --replace says",
    )
    .command(Before::Replace),
    verb(
        "restart",
        What::Restart,
        "[all|SLOT|PID] [timeout T]",
        "replace workers, new before old: all (reload), or that one",
    )
    .takes(3)
    .waits()
    .proposes("all")
    .objects()
    .checked(checks::restart)
    .order(orders::restart),
    verb(
        "signal",
        What::Signal,
        "SIG [all|SLOT|PID]",
        "send a signal to the workers' first processes",
    )
    .takes(2)
    .proposes("HUP INT QUIT USR1 USR2 WINCH TERM KILL")
    .checked(checks::signal)
    .order(orders::signal),
    verb(
        "send",
        What::Send,
        "JSON [all|SLOT|PID]",
        "a message to the workers that have a channel",
    )
    .takes(2)
    .checked(checks::send)
    .order(orders::answers),
    verb(
        "sync-send",
        What::SyncSend,
        "JSON [timeout T]",
        "the same to all, and what each says to it, as a list",
    )
    .takes(3)
    .waits()
    .data()
    .checked(checks::sync_send)
    .order(orders::answers),
    verb(
        "stop",
        What::Stop,
        "",
        "stop gracefully; returns when the master has gone",
    )
    .waits()
    .order(orders::stop),
    verb(
        "shutdown",
        What::Shutdown,
        "[all|SLOT|PID] [timeout T]",
        "stop; or end one worker gracefully, and its slot: one fewer",
    )
    .takes(3)
    .waits()
    .proposes("all")
    .objects()
    .checked(checks::restart)
    .order(orders::shutdown),
    verb(
        "kill",
        What::Kill,
        "",
        "stop at once, by SIGKILL; the master exits 1",
    )
    .waits()
    .order(orders::kill),
    verb(
        "exit",
        What::Exit,
        "now",
        "stop at once, by SIGKILL; the master exits 0",
    )
    .takes(1)
    .waits()
    .proposes("now")
    .checked(checks::exit)
    .order(orders::answers),
    verb(
        "test",
        What::Test,
        "[cwd D] [timeout T] [--] SCRIPT [ARG..]",
        "run a script with PORT, HOST, .. set; what comes of it is the answer",
    )
    .command(Before::Test),
    verb(
        "reopen",
        What::Reopen,
        "",
        "reopen the log files, after they were renamed",
    )
    .order(orders::reopen),
    verb(
        "debug",
        What::Debug,
        "TEXT..",
        "say that in the log, and to all who follow the events",
    )
    .takes(usize::MAX)
    .checked(checks::debug),
    verb(
        "emit",
        What::Emit,
        "NAME [JSON]",
        "an event of that name, for all who follow the events",
    )
    .takes(2)
    .checked(checks::emit),
    verb(
        "console",
        What::Console,
        "",
        "type verbs, one a line; .exit or the end of the input leaves",
    )
    .typed(),
    verb(
        "version",
        What::Version,
        "",
        "version of the running master",
    ),
    verb("help", What::Help, "[VERB]", "this list, or one line of it")
        .takes(1)
        .data(),
];
