//! A Containerfile (or Dockerfile). The static binary needs nothing of an image, so a static server needs
//! none either: FROM scratch. What an interpreter runs is put upon an image that has it.

use super::plan::{APP, BINARY, Plan};
use super::quote::{comment, json};
use super::times;
use crate::core::words::human;
use crate::settings::{Control, PID1_BUDGET};
use std::path::Path;

/// Whoever it is that is not root.
const NOBODY: &str = "65532";

/// What COMMAND is called, and an image that has it.
const IMAGES: [(&str, &str); 12] = [
    ("node", "docker.io/library/node:22-slim"),
    ("nodejs", "docker.io/library/node:22-slim"),
    ("npm", "docker.io/library/node:22-slim"),
    ("bun", "docker.io/oven/bun:1-slim"),
    ("deno", "docker.io/denoland/deno:debian-2.1.4"),
    ("ruby", "docker.io/library/ruby:3.4-slim"),
    ("bundle", "docker.io/library/ruby:3.4-slim"),
    ("php", "docker.io/library/php:8.4-cli"),
    ("perl", "docker.io/library/perl:5.40-slim"),
    ("java", "docker.io/library/eclipse-temurin:21-jre"),
    ("sh", "docker.io/library/debian:12-slim"),
    ("bash", "docker.io/library/debian:12-slim"),
];

/// What is known of COMMAND's image.
fn image(p: &Plan) -> Option<&'static str> {
    let first = p.command.first().map(String::as_str).unwrap_or_default();
    let base = first.rsplit('/').next().unwrap_or(first);
    let known = IMAGES.iter().find(|(name, _)| *name == base);
    match known {
        Some((_, image)) => Some(image),
        None if base.starts_with("python") => Some("docker.io/library/python:3.13-slim"),
        None if first.contains('/') => None,
        // A name without a path is one that its image has.
        None => Some("docker.io/library/debian:12-slim"),
    }
}

/// The file.
pub fn file(p: &Plan) -> String {
    let mut text = String::from(
        "# By minicluster --print-unit containerfile. Beside it there has to be minicluster, the static binary: of\n\
         # its sources, make static, target/static/minicluster.\n",
    );
    text.push_str(&p.notes_text());
    if !p.env.is_empty() {
        let names: Vec<String> = p.env.iter().map(|n| comment(n)).collect();
        text.push_str(&format!(
            "# Values of --env do not belong into an image. Give them to the container (--env-file FILE): {}\n",
            names.join(" ")
        ));
    }
    text.push_str(&stop(p));
    text.push('\n');
    text.push_str(&body(p));
    text.push_str("\nSTOPSIGNAL SIGTERM\n");
    let mut ports: Vec<u16> = p.tcp().iter().map(|a| a.port()).collect();
    ports.extend(p.settings.monitor.map(|a| a.port()));
    ports.retain(|port| *port != 0);
    ports.dedup();
    for port in ports {
        text.push_str(&format!("EXPOSE {port}\n"));
    }
    if let Some(words) = p.found_by() {
        let period = p.policy.start_timeout.map_or(60, times::seconds);
        // By its name only where there is no other way: there is one alone.
        let words = words
            .into_iter()
            .filter(|_| p.settings.control != Control::Named);
        let before = [BINARY.to_string()].into_iter();
        let words: Vec<String> = before.chain(words).chain(["health".into()]).collect();
        text.push_str(&format!(
            "# Is it to have clients? Asked at the control socket, so no port and no curl is needed.\n\
             HEALTHCHECK --interval=10s --timeout=5s --start-period={period}s CMD {}\n",
            list(&words)
        ));
    }
    let mut words = vec![BINARY.to_string()];
    words.extend(p.options.iter().flatten().cloned());
    words.push("--".into());
    words.extend(p.command.iter().cloned());
    text.push_str(&format!("ENTRYPOINT {}\n", list(&words)));
    text
}

fn list(words: &[String]) -> String {
    let all: Vec<String> = words.iter().map(|w| json(w)).collect();
    format!("[{}]", all.join(", "))
}

/// How long who stops it has to wait.
fn stop(p: &Plan) -> String {
    if let Some(budget) = p.policy.stop_budget {
        let secs = times::seconds(budget) + 1;
        return format!(
            "# A stop takes {} at most (--stop-budget): the grace period has to be {secs} s or more (docker run --stop-timeout,\n\
             # podman run --stop-timeout, stop_grace_period: of compose; 10 s if it is not said).\n",
            human(budget)
        );
    }
    let secs = times::seconds(p.policy.least_budget());
    format!(
        "# A stop takes {} at most, since a container is killed after 10 s where nothing else is said; what is said of\n\
         # draining and stopping would take {secs} s. To have it: --stop-budget {secs}s, and docker run --stop-timeout {}.\n",
        human(PID1_BUDGET),
        secs + 1
    )
}

/// What is copied, by its name beside the file.
fn copied(first: &str) -> String {
    match Path::new(first).strip_prefix(APP) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => first.rsplit('/').next().unwrap_or(first).to_string(),
    }
}

/// COPY reads variables, quotes and patterns in names, and builders differ in how they are kept from it.
pub fn refuse(p: &Plan) -> Result<(), String> {
    const READ_INTO: &str = "$\\\"'`*?[]<";
    let first = p.command.first().map(String::as_str).unwrap_or_default();
    let bad = |c: char| c.is_control() || READ_INTO.contains(c);
    match image(p).is_none() && first.contains(bad) {
        true => Err(format!(
            "{}: COPY of a Containerfile reads variables, quotes and patterns in it ({READ_INTO}, control characters): give it another name",
            comment(first)
        )),
        false => Ok(()),
    }
}

/// Who is not root can write where that lets him.
fn given(p: &Plan) -> String {
    let dirs = p.written.iter().filter(|d| *d != "/tmp" && *d != "/");
    let dirs: Vec<String> = dirs.cloned().collect();
    if p.user() || dirs.is_empty() {
        return String::new();
    }
    let how = ["install", "-d", "-o", NOBODY, "-g", NOBODY].map(String::from);
    let words = [how.to_vec(), dirs].concat();
    format!("# What is written to.\nRUN {}\n", list(&words))
}

fn body(p: &Plan) -> String {
    let first = p.command.first().map(String::as_str).unwrap_or_default();
    let owner = match p.user() {
        true => "# The master is root's and has its workers run as --user says.\n",
        false => "USER 65532:65532\n",
    };
    match image(p) {
        Some(image) => format!(
            "FROM {image}\nCOPY --chmod=755 minicluster {BINARY}\nWORKDIR {APP}\n\
             # .containerignore (.dockerignore) says what of it is no part of the image.\nCOPY . {APP}\n{}{owner}",
            given(p)
        ),
        None => {
            let from = copied(first);
            let owner = match p.user() {
                true => owner,
                false => {
                    "# Nobody but root has a place for the control socket in an empty image. To be somebody else: a /tmp\n\
                     # (docker run --tmpfs /tmp) and USER 65532:65532 here; or --user 65532, for the workers alone.\n"
                }
            };
            format!(
                "# If {} is not static, or needs files: FROM an image that has what it needs.\n\
                 FROM scratch\nCOPY --chmod=755 minicluster {BINARY}\nCOPY --chmod=755 {}\nWORKDIR {APP}\n{owner}",
                comment(first),
                list(&[from, first.to_string()])
            )
        }
    }
}
