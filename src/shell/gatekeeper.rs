//! Who is let in, beside whoever may connect to the control socket: the ports and the key that lead in, by
//! what names we are known there, and what is said of those who are refused.

use super::Shell;
use super::clients::ClientId;
use super::doors::Gate;
use super::token::{Kind, token};
use crate::core::codes::{EX_NOPERM, EX_USAGE, Failure, of_port};
use crate::core::fields::Value;
use crate::core::words::{count, reason};
use crate::core::{Level, Time};
use crate::settings::{Control, EcvControl, Settings};
use crate::sys::{clock, process};
use crate::wire::command;
use crate::wire::door::House;
use crate::wire::http::Status;
use crate::wire::key::{Key, Secret};
use crate::wire::routes;
use mio::Interest;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// Those who are refused are told of in the log so often at most, and how many there were.
const SAY_REFUSED: Duration = Duration::from_secs(10);

/// Who may do what over HTTP and over TCP, and what is said of us there.
#[derive(Serialize, Deserialize)]
pub struct Gatekeeper {
    key: Option<Key>,
    names: Vec<String>,
    pub(super) hostname: String,
    ecv: String,
    control: EcvControl,
    pub(super) down: u16,
    /// Since when we run: seconds since 1970.
    pub(super) since: u64,
    /// When streams are told next that they live, if there are any.
    pub(super) beat: Option<Time>,
    /// Requests that were refused, and those who were turned away at the control socket.
    refused: Seldom,
    turned_away: Seldom,
}

/// What can be provoked from outside is said seldom, and then how often it was.
#[derive(Default, Serialize, Deserialize)]
struct Seldom {
    said: Option<Time>,
    since: u64,
}

impl Seldom {
    /// Is it to be said? With what is to be added of those of which nothing was said.
    fn says(&mut self, now: Time) -> Option<String> {
        if self.said.is_some_and(|at| now - at < SAY_REFUSED) {
            self.since += 1;
            return None;
        }
        self.said = Some(now);
        Some(match std::mem::take(&mut self.since) {
            0 => String::new(),
            n => {
                let them = count(usize::try_from(n).unwrap_or(usize::MAX), "other");
                format!("; so were {them} since the last of these lines")
            }
        })
    }
}

impl Gatekeeper {
    /// As it was asked for.
    pub fn of(s: &Settings) -> Result<Gatekeeper, Failure> {
        routes::check_ecv(&s.ecv).map_err(|why| (EX_USAGE, format!("--ecv {}: {why}", s.ecv)))?;
        let key = s
            .key_file
            .as_deref()
            .map(super::keyfile::read)
            .transpose()?;
        let hostname = process::hostname();
        let monitor = s.monitor_name.clone();
        let names = [hostname.clone()].into_iter().chain(monitor);
        Ok(Gatekeeper {
            key,
            names: names.filter(|n| !n.is_empty()).collect(),
            hostname,
            ecv: s.ecv.clone(),
            control: s.ecv_control,
            down: s.ecv_down_status,
            since: clock::wall().0,
            beat: None,
            refused: Seldom::default(),
            turned_away: Seldom::default(),
        })
    }

    pub(super) fn house(&self) -> House<'_> {
        House {
            key: self.key.as_ref(),
            names: &self.names,
            ecv: &self.ecv,
            ecv_control: self.control,
        }
    }

    /// When streams have to be told that they live.
    pub fn deadline(&self) -> Option<Time> {
        self.beat
    }
}

impl Shell {
    /// The ports of --monitor, before anything is started.
    pub(super) fn open_monitor(&mut self) -> Result<(), Failure> {
        let s = self.settings();
        let monitor = s.monitor.map(|at| (at, Gate::Monitor, "--monitor"));
        let control = match s.control {
            Control::Port(at) => Some((at, Gate::Port, "-C")),
            Control::Named | Control::Path(_) | Control::Off => None,
        };
        let ports = [monitor, control].into_iter().flatten();
        for (at, gate, option) in ports {
            let opened = self.clients.doors.open_port(at, gate);
            let opened = opened.and_then(|l| {
                let token = token(Kind::Door, 0);
                let at = l.local_addr()?;
                self.poll
                    .registry()
                    .register(l, token, Interest::READABLE)?;
                Ok(at)
            });
            match opened {
                Ok(at) => {
                    let url = match gate {
                        Gate::Monitor => format!("http://{at}"),
                        Gate::Port | Gate::Socket => format!("tcp://{at}"),
                    };
                    let fields = vec![("addr", Value::Text(at.to_string()))];
                    let message = format!("{option} listens on {url}");
                    let line = self.log.own(Level::Info, "door-open", fields, message);
                    self.publish(line);
                }
                Err(e) => {
                    let code = of_port(crate::sys::errno_of(&e));
                    return Err((code, port_error(option, at, &e)));
                }
            }
        }
        Ok(())
    }

    /// Over TCP the first line is the key.
    pub(super) fn hear_key(&mut self, id: ClientId, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let said = text
            .trim()
            .strip_prefix("key ")
            .map(|k| Secret::new(k.trim()));
        let text = match (&self.house.key, said) {
            (Some(key), Some(said)) if key.is(&said) => return self.clients.unlock(id),
            (_, Some(_)) => "that is not the key of this cluster: its --key-file has another\n",
            (_, None) => "the first line has to be: key, a blank, and the key of --key-file\n",
        };
        self.say_refused_request(id, Status::UNAUTHORIZED);
        let text = command::encode_answer(EX_NOPERM, text);
        self.clients.answer(id, &text, true);
        self.hang_up(id);
    }

    /// In the log, and not more often than it can be read.
    pub(super) fn say_refused_request(&mut self, id: ClientId, status: Status) {
        let now = self.now();
        let Some(others) = self.house.refused.says(now) else {
            return;
        };
        let peer = self.clients.ends(id).1;
        let who = peer.map_or("the control socket".into(), |p: SocketAddr| p.to_string());
        let why = match status {
            Status::UNAUTHORIZED => "no key, or a wrong one",
            _ => "not allowed there, or by a foreign name",
        };
        let message = format!("refused a request from {who}: {why}{others}");
        let fields = vec![
            ("peer", Value::Text(who)),
            ("status", Value::Number(status.0.to_string())),
        ];
        let line = self
            .log
            .own(Level::Warn, "request-refused", fields, message);
        self.publish(line);
    }

    /// Those who came by the socket and are neither root nor us.
    pub(super) fn say_turned_away(&mut self) {
        for by in self.clients.doors.turned_away() {
            let now = self.now();
            let Some(others) = self.house.turned_away.says(now) else {
                continue;
            };
            let message = format!(
                "refused a client of the control socket, {by}: it belongs to uid {}{others}",
                process::euid()
            );
            self.say_for_client(Level::Warn, "client-refused", Vec::new(), message, by);
        }
    }
}

fn port_error(option: &str, at: SocketAddr, e: &std::io::Error) -> String {
    let holder = crate::sys::procnet::holder_of(at.port());
    let held = match (e.kind(), holder) {
        (std::io::ErrorKind::AddrInUse, Some(holder)) => format!(": held by {holder}"),
        (_, _) => String::new(),
    };
    format!("{option} {at}: {}{held}", reason(e))
}
