//! The door: understands the command line, runs, and turns every end into an exit code.

use minicluster::cli::{self, Invocation};
use minicluster::core::codes::EX_SOFTWARE;
use minicluster::shell;
use minicluster::sys::{process, signal::Blocked};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A supervisor that unwinds half-way would be worse than one that goes: the kernel ends the
    // workers with it, and whoever supervises us starts again.
    std::panic::set_hook(Box::new(|info| {
        say(&format!("internal error, please report it: {info}"));
        process::exit_now(EX_SOFTWARE)
    }));
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let ended = match cli::parse(&args, &shell::client::read_options) {
        Ok(Invocation::Start(settings)) => shell::start::run(*settings),
        Ok(Invocation::Control(settings, words)) => shell::client::run(&settings, words),
        Ok(Invocation::Print(text)) => shell::client::print(&text),
        Err(wrong) => Err((wrong.code, wrong.message)),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((code, message)) => {
            say(&message);
            ExitCode::from(code)
        }
    }
}

/// On stderr. By now our handlers may stand: in the background of a terminal with `stty tostop` the
/// write would raise a signal that we handle, and be restarted, for ever.
fn say(message: &str) {
    let _blocked = Blocked::all();
    let _ = writeln!(std::io::stderr(), "minicluster: {message}");
}
