//! A script for an init of System V, as the LSB has it: its words, and its exit codes. It needs a shell and
//! us: the pid file is locked by the master, so neither start-stop-daemon nor a guess about pids is needed.

use super::plan::Plan;
use super::quote::{comment, joined, shell as quote};
use crate::settings::Orphans;

const SCRIPT: &str = r#"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# Speaks to the one that runs.
master() {
	"$DAEMON" --pid-file "$PIDFILE" "$@"
}

# 0 it runs, 1 it is dead and has left its pid file, 3 it does not run, 4 nobody knows.
running() {
	master status >/dev/null 2>&1
	case $? in
	0) return 0 ;;
	1) return 1 ;;
	3) return 3 ;;
	*) return 4 ;;
	esac
}

# It returns when all workers are ready.
start() {
	running && {
		echo "$NAME runs already"
		return 0
	}
	cd "$DIR" || return 6
	echo "Starting $NAME"
	@START
	case $? in
	0) return 0 ;;
	77) return 4 ;;
	126 | 127) return 5 ;;
	64 | 78) return 6 ;;
	*) return 1 ;;
	esac
}

# It returns when the master has gone: at most @STOP s later.
stop() {
	running
	case $? in
	0) ;;
	4) return 1 ;;
@DEAD
	esac
	echo "Stopping $NAME"
	master stop >/dev/null || return 1
}

# It returns when the new workers serve, or the old ones do again: then that is told, and it has failed.
reload() {
	running || {
		echo "$NAME does not run" >&2
		return 7
	}
	echo "Reloading $NAME"
	master reload || return 1
}

test -x "$DAEMON" || {
	echo "$DAEMON is not there" >&2
	case $1 in
	stop) exit 0 ;;
	status) exit 3 ;;
	*) exit 5 ;;
	esac
}

case ${1-} in
start) start ;;
stop) stop ;;
restart) stop && start ;;
try-restart | condrestart)
	running || exit 0
	stop && start
	;;
reload | force-reload) reload ;;
status)
	master status
	case $? in
	0) ;;
	1) exit 1 ;;
	3) exit 3 ;;
	*) exit 4 ;;
	esac
	;;
*)
	echo "usage: $0 {start|stop|restart|try-restart|reload|force-reload|status}" >&2
	exit 2
	;;
esac
"#;

/// What a stop does where there is no master.
const GONE: &str = "\t*)
\t\techo \"$NAME does not run\"
\t\treturn 0
\t\t;;";

/// And with --orphans keep, before that.
const KEPT: &str = "\t*)
\t\t# Workers that a master has left when it crashed serve on: the next one has them, and stops them.
\t\tcase $(\"$DAEMON\" --name \"$NAME\" status 2>&1) in
\t\t*'(--orphans keep)'*) start || return 1 ;;
\t\t*)
\t\t\techo \"$NAME does not run\"
\t\t\treturn 0
\t\t\t;;
\t\tesac
\t\t;;";

/// The script.
pub fn script(p: &Plan) -> String {
    let what: String = p.command.join(" ").chars().take(100).collect();
    let mut text = format!(
        "#!/bin/sh\n### BEGIN INIT INFO\n# Provides:          {0}\n\
         # Required-Start:    $remote_fs $network\n# Required-Stop:     $remote_fs $network\n\
         # Should-Start:      $syslog $named\n# Should-Stop:       $syslog\n\
         # Default-Start:     2 3 4 5\n# Default-Stop:      0 1 6\n\
         # Short-Description: {0}, a minicluster\n# Description:       {1}\n### END INIT INFO\n\n\
         # By minicluster --print-unit init. Where it goes: /etc/init.d/{0}, mode 0755; update-rc.d {0} defaults.\n",
        p.name,
        comment(&what)
    );
    text.push_str(&p.notes_text());
    text.push_str(&p.env_text());
    let pid = match &p.settings.pid_file {
        Some(path) => path.to_string_lossy().into_owned(),
        None => format!("/run/{}.pid", p.name),
    };
    let pid = super::plan::join(&p.here, &pid);
    text.push_str(&format!(
        "\nNAME={}\nDAEMON={}\nDIR={}\nPIDFILE={}\n",
        quote(&p.name),
        quote(&p.binary),
        quote(&p.here),
        quote(&pid)
    ));
    let mut start = String::from("\"$DAEMON\" -d --pid-file \"$PIDFILE\"");
    for words in &p.options {
        start.push_str(&format!(" \\\n\t\t{}", line(words)));
    }
    start.push_str(&format!(" \\\n\t\t-- {}", line(&p.command)));
    let stop = super::times::stop(&p.policy).to_string();
    let dead = match p.settings.orphans {
        Orphans::Stop => GONE.to_string(),
        Orphans::Keep => KEPT.to_string(),
    };
    let script = SCRIPT.replace("@STOP", &stop).replace("@DEAD", &dead);
    text.push_str(&script.replace("@START", &start));
    text
}

fn line(words: &[String]) -> String {
    joined(words, quote)
}
