//! The door: understands the command line, runs, and turns every end into an exit code.

use minicluster::cli::{self, Invocation};
use minicluster::core::codes::EX_SOFTWARE;
use minicluster::shell::{self, client::complain, client::last_words, takes_over};
use minicluster::sys::process;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A supervisor that unwinds half-way would be worse than one that goes: the kernel ends the
    // workers with it, and whoever supervises us starts again.
    std::panic::set_hook(Box::new(|info| {
        last_words(&format!("internal error, please report it: {info}"));
        process::exit_now(EX_SOFTWARE)
    }));
    let mut args = std::env::args_os();
    // Not a word of a command line: nobody types it by mistake, and no table has to know of it.
    if args.next().is_some_and(|name| name == shell::deps::NAME) {
        return ExitCode::from(shell::deps::run());
    }
    // Nor this one.
    if let Some(state) = takes_over::asked() {
        takes_over::ask(state);
    }
    // We are here in place of another one, in whose process.
    if let Some((state, refused)) = takes_over::passed() {
        return done(takes_over::resume(state, refused));
    }
    let args: Vec<OsString> = args.collect();
    let ended = match cli::parse(&args, &|file| shell::client::read_options(file.as_ref())) {
        Ok(Invocation::Start(settings)) => shell::start::run(*settings),
        Ok(Invocation::PrintUnit(kind, s)) => shell::printed::run(kind, &s),
        Ok(Invocation::Check(settings)) => shell::check::run(*settings),
        Ok(Invocation::Control(settings, words)) => shell::client::run(&settings, words),
        Ok(Invocation::Print(text)) => shell::client::print(&text),
        Err(wrong) => Err((wrong.code, wrong.message)),
    };
    done(ended)
}

fn done(ended: Result<u8, (u8, String)>) -> ExitCode {
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((code, message)) => {
            complain(&message);
            ExitCode::from(code)
        }
    }
}
