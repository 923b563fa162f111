//! Files by which others start this very cluster: a unit of systemd, a script of init, a Containerfile,
//! what Kubernetes takes. Pure: what was typed, and a few facts, become text. Rules:
//!
//! 1. What is typed holds there, too, word for word; what cannot be so there is left out or changed, and
//!    the file says that and why. What would be something else altogether is refused.
//! 2. Times come from `core::budget`: whoever kills us in the end has to know how long we may take.
//! 3. Values of --env are somebody's secrets, and these files are read by many: their names are told, and
//!    where to put the values.
//! 4. Paths are whole: nobody starts us where we were typed.

mod container;
mod init;
mod k8s;
mod plan;
mod quote;
mod systemd;
mod times;

use crate::settings::Settings;

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A service of systemd.
    Systemd,
    /// A script as the LSB has it.
    Init,
    /// For an image.
    Containerfile,
    /// A Deployment and, if it serves ports, a Service.
    K8s,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Systemd, Kind::Init, Kind::Containerfile, Kind::K8s];

    /// As it is typed.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Systemd => "systemd",
            Kind::Init => "init",
            Kind::Containerfile => "containerfile",
            Kind::K8s => "k8s",
        }
    }

    /// The one of that name.
    pub fn named(word: &str) -> Result<Kind, String> {
        let known = Kind::ALL.into_iter().find(|k| k.word() == word);
        known.ok_or_else(|| {
            format!("--print-unit: '{word}' is none of systemd, init, containerfile, k8s")
        })
    }

    /// Does -d mean something there?
    pub fn daemonizes(self) -> bool {
        match self {
            Kind::Init => true,
            Kind::Systemd | Kind::Containerfile | Kind::K8s => false,
        }
    }

    /// Is it for an image, where nothing of this machine is?
    fn contained(self) -> bool {
        match self {
            Kind::Systemd | Kind::Init => false,
            Kind::Containerfile | Kind::K8s => true,
        }
    }
}

/// What is here.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The working directory.
    pub here: String,
    /// Our own program.
    pub binary: String,
    /// Where PATH has COMMAND, if it is a bare name and there.
    pub program: Option<String>,
}

/// The file. An error is a sentence.
pub fn print(kind: Kind, settings: &Settings, facts: &Facts) -> Result<String, String> {
    let plan = plan::Plan::of(kind, settings, facts)?;
    let (text, limit) = match kind {
        Kind::Systemd => {
            systemd::refuse(&plan)?;
            (systemd::unit(&plan), UNIT_LINE)
        }
        Kind::Init => (init::script(&plan), usize::MAX),
        Kind::Containerfile => {
            container::refuse(&plan)?;
            (container::file(&plan), DOCKER_LINE)
        }
        Kind::K8s => {
            k8s::refuse(&plan)?;
            (k8s::manifest(&plan), usize::MAX)
        }
    };
    // With the lines that a backslash joins.
    let joined = text.replace("\\\n", "");
    match joined.lines().map(str::len).max() {
        Some(len) if len > limit => Err(format!(
            "the command line is too long for such a file: {len} bytes in a line (limit {limit}); put it into a script, or options into --config FILE"
        )),
        Some(_) | None => Ok(text),
    }
}

/// The longest line of a unit (LONG_LINE_MAX of systemd), with room for its end.
const UNIT_LINE: usize = (1 << 20) - 2;
/// And of a Containerfile, as Docker's builder reads it.
const DOCKER_LINE: usize = 65_534;

#[cfg(test)]
mod tests;
