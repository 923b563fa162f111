//! The table of routes: what can be asked over HTTP. Dispatch, what a 404 and a 405 say, and the check of
//! the manual page all read it.

use super::http::{MAX_BODY, Method};
use serde::{Deserialize, Serialize};

/// One of them. A HEAD is answered where a GET is that only looks.
#[derive(Debug)]
pub struct Route {
    pub method: Verb,
    /// Does its path begin with that of --ecv?
    pub of_ecv: bool,
    pub path: &'static str,
    pub who: Who,
    /// One line.
    pub help: &'static str,
    pub what: What,
}

/// What a route is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
}

/// Who may ask over TCP; on the control socket all is allowed to whoever may connect to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A probe: it knows no key, and calls us what it likes.
    Anybody,
    /// Who has the key.
    Key,
    /// Whom --ecv-control allows it.
    Control,
}

/// Which one, for those who do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// In rotation or not, for a load balancer.
    Ecv,
    Disable,
    Enable,
    /// Does the master work?
    Live,
    /// Do its workers?
    Ready,
    /// What there is to be counted and measured.
    Metrics,
    /// The page for browsers: the same for all clusters,
    Page,
    /// how it looks,
    PageStyle,
    /// and what it does.
    PageScript,
    Status,
    Workers,
    /// What they are made of.
    Deps,
    Events,
    /// The files that workers' output is in,
    Logs,
    /// and one of them: its name stands behind the path.
    LogFile,
    /// Any verb, as cluster-service has it.
    Cli,
    Help,
    Restart,
    /// A message to all workers, as proteus-cluster has it,
    Send,
    /// and one answer from each.
    SyncSend,
}

/// The path of --ecv unless it says otherwise.
pub const ECV: &str = "/ecv";

/// The name of a file stands behind it.
pub const LOG_FILES: &str = "/logs/";

/// Longest body where none is of any use.
pub const SMALL_BODY: usize = 4096;

const fn get(path: &'static str, who: Who, what: What, help: &'static str) -> Route {
    Route {
        method: Verb::Get,
        of_ecv: false,
        path,
        who,
        help,
        what,
    }
}

const fn post(path: &'static str, who: Who, what: What, help: &'static str) -> Route {
    Route {
        method: Verb::Post,
        ..get(path, who, what, help)
    }
}

const fn ecv(route: Route) -> Route {
    Route {
        of_ecv: true,
        ..route
    }
}

const TAKE_OUT: &str = "take it out of rotation";
const PUT_BACK: &str = "put it back";

/// All of them, in the order of the manual. Those of --ecv come first: its path may be any.
pub static ROUTES: [Route; 23] = [
    ecv(get("", Who::Anybody, What::Ecv, "in rotation or not")),
    ecv(post("/disable", Who::Control, What::Disable, TAKE_OUT)),
    ecv(post("/enable", Who::Control, What::Enable, PUT_BACK)),
    post("/disable", Who::Control, What::Disable, TAKE_OUT),
    post("/enable", Who::Control, What::Enable, PUT_BACK),
    get("/live", Who::Anybody, What::Live, "does the master work?"),
    get("/ready", Who::Anybody, What::Ready, "do its workers?"),
    get(
        "/metrics",
        Who::Anybody,
        What::Metrics,
        "all figures, for Prometheus",
    ),
    get(
        "/",
        Who::Anybody,
        What::Page,
        "the cluster at a glance, for a browser",
    ),
    get("/page.css", Who::Anybody, What::PageStyle, "how that looks"),
    get("/page.js", Who::Anybody, What::PageScript, "what it does"),
    get("/status", Who::Key, What::Status, "the cluster, as JSON"),
    get("/workers", Who::Key, What::Workers, "its workers, as JSON"),
    get(
        "/deps",
        Who::Key,
        What::Deps,
        "what its workers are made of",
    ),
    get("/events", Who::Key, What::Events, "its events as they come"),
    get("/logs", Who::Key, What::Logs, "the files of --log-dir"),
    get(LOG_FILES, Who::Key, What::LogFile, "one of them"),
    post("/cli", Who::Key, What::Cli, "any verb"),
    get("/help", Who::Key, What::Help, "the verbs"),
    post("/restart", Who::Key, What::Restart, "reload"),
    get("/restart", Who::Key, What::Restart, "reload"),
    post("/send", Who::Key, What::Send, "a message to all workers"),
    post(
        "/sync_send",
        Who::Key,
        What::SyncSend,
        "and a reply of each",
    ),
];

impl Route {
    /// Its path, where --ecv is that.
    pub fn full_path(&self, ecv: &str) -> String {
        match self.of_ecv {
            // Of a path that is all of it the routes below are those below the root.
            true if self.path.is_empty() => ecv.to_string(),
            true => format!("{}{}", ecv.trim_end_matches('/'), self.path),
            false => self.path.to_string(),
        }
    }

    /// How long a body it may come with. Most have no use for any; what clients send all the same, an
    /// empty object or a form, is read over.
    pub fn most_body(&self) -> usize {
        match self.what {
            What::Cli | What::Send | What::SyncSend => MAX_BODY,
            What::Ecv | What::Disable | What::Enable | What::Live | What::Ready | What::Metrics => {
                SMALL_BODY
            }
            What::Page | What::PageStyle | What::PageScript => SMALL_BODY,
            What::Status | What::Workers | What::Events => SMALL_BODY,
            What::Help | What::Deps | What::Logs | What::LogFile => SMALL_BODY,
            What::Restart => SMALL_BODY,
        }
    }

    /// What is asked for where JSON is wanted: the page tells nothing of the cluster, and may be had by anybody;
    /// what it shows is the status.
    pub fn as_json(&'static self) -> &'static Route {
        let status = || ROUTES.iter().find(|r| r.what == What::Status);
        match self.what {
            What::Page => status().unwrap_or(self),
            _ => self,
        }
    }

    /// Is it of the page?
    fn is_page(&self) -> bool {
        matches!(self.what, What::Page | What::PageStyle | What::PageScript)
    }

    fn is_at(&self, path: &str, ecv: &str) -> bool {
        let below = match self.of_ecv {
            true if self.path.is_empty() => return path == ecv,
            true => path.strip_prefix(ecv.trim_end_matches('/')),
            false => Some(path),
        };
        match self.what {
            What::LogFile => below.is_some_and(|p| p.starts_with(self.path)),
            _ => below == Some(self.path),
        }
    }

    fn takes(&self, method: Method) -> bool {
        match (self.method, method) {
            // Who only wants to see whether something is there is not to reload all workers.
            (Verb::Get, Method::Head) => self.what != What::Restart,
            (Verb::Get, Method::Get) | (Verb::Post, Method::Post) => true,
            (Verb::Get, Method::Post | Method::Other) => false,
            (Verb::Post, Method::Get | Method::Head | Method::Other) => false,
        }
    }
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Nothing has that path.
    Path,
    /// It can be asked with these, and not with that.
    Method { allow: String },
}

/// The route of a request, where --ecv is that.
pub fn find(method: Method, path: &str, ecv: &str) -> Result<&'static Route, Missed> {
    let there = || ROUTES.iter().filter(|r| r.is_at(path, ecv));
    if let Some(route) = there().find(|r| r.takes(method)) {
        return Ok(route);
    }
    let all = [
        (Method::Get, "GET"),
        (Method::Head, "HEAD"),
        (Method::Post, "POST"),
    ];
    let can = all.iter().filter(|(m, _)| there().any(|r| r.takes(*m)));
    let allow: Vec<&str> = can.map(|(_, name)| *name).collect();
    match allow.is_empty() {
        true => Err(Missed::Path),
        false => Err(Missed::Method {
            allow: allow.join(", "),
        }),
    }
}

/// The paths that anybody may look at, as far as they tell something.
pub fn free(ecv: &str) -> String {
    let free = ROUTES
        .iter()
        .filter(|r| r.who == Who::Anybody && !r.is_page());
    let paths: Vec<String> = free.map(|r| r.full_path(ecv)).collect();
    paths.join(", ")
}

/// Longest path of --ecv.
pub const MAX_ECV: usize = 256;

/// May --ecv be that?
pub fn check_ecv(path: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"?#%\\\"".contains(&b);
    if !path.starts_with('/') {
        return Err("a path begins with a slash".into());
    }
    if path.len() > MAX_ECV {
        let n = path.len();
        return Err(format!("a path of {n} bytes (limit {MAX_ECV})"));
    }
    if !path.bytes().all(plain) {
        return Err("a path is of visible ASCII characters but ? # % \\ and \"".into());
    }
    // The root is the page, which is not what a load balancer has to see.
    let mut others = ROUTES.iter().filter(|r| !r.of_ecv && r.path != "/");
    match others.find(|r| r.path == path) {
        Some(other) => Err(format!(
            "{path} is a path of another answer of ours ({})",
            other.help
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_find_their_routes() {
        use Method::*;
        for (method, path, ecv, want) in [
            (Get, "/ecv", ECV, What::Ecv),
            (Head, "/ecv", ECV, What::Ecv),
            (Post, "/ecv/disable", ECV, What::Disable),
            (Post, "/ecv/enable", ECV, What::Enable),
            (Post, "/disable", ECV, What::Disable),
            (Post, "/enable", ECV, What::Enable),
            (Get, "/health/x", "/health/x", What::Ecv),
            (Post, "/health/x/disable", "/health/x", What::Disable),
            (Get, "/", "/", What::Ecv),
            (Post, "/disable", "/", What::Disable),
            (Get, "/a/", "/a/", What::Ecv),
            (Post, "/a/enable", "/a/", What::Enable),
            (Get, "/", ECV, What::Page),
            (Get, "/live", ECV, What::Live),
            (Head, "/ready", ECV, What::Ready),
            (Get, "/metrics", ECV, What::Metrics),
            (Head, "/metrics", ECV, What::Metrics),
            (Get, "/status", ECV, What::Status),
            (Get, "/workers", ECV, What::Workers),
            (Head, "/deps", ECV, What::Deps),
            (Get, "/events", ECV, What::Events),
            (Get, "/logs", ECV, What::Logs),
            (Head, "/logs/w.0.log", ECV, What::LogFile),
            (Get, "/logs/../m.js", ECV, What::LogFile),
            (Post, "/cli", ECV, What::Cli),
            (Head, "/help", ECV, What::Help),
            (Post, "/restart", ECV, What::Restart),
            (Get, "/restart", ECV, What::Restart),
            (Post, "/send", ECV, What::Send),
            (Post, "/sync_send", ECV, What::SyncSend),
        ] {
            let got = find(method, path, ecv).map(|r| r.what);
            assert_eq!(got, Ok(want), "{method:?} {path}");
        }
    }

    #[test]
    fn what_is_not_there_is_said_to_be_so() {
        use Method::*;
        let method = |allow: &str| Missed::Method {
            allow: allow.into(),
        };
        for (how, path, want) in [
            (Get, "/nothing", Missed::Path),
            (Get, "", Missed::Path),
            (Get, "*", Missed::Path),
            (Other, "/nothing", Missed::Path),
            (Get, "/ecv/", Missed::Path),
            (Get, "//ecv", Missed::Path),
            (Get, "/ECV", Missed::Path),
            (Get, "/live/../status", Missed::Path),
            (Get, "/./status", Missed::Path),
            (Get, "/ecvdisable", Missed::Path),
            (Get, "/cli", method("POST")),
            (Get, "/ecv/disable", method("POST")),
            (Post, "/ecv", method("GET, HEAD")),
            (Other, "/restart", method("GET, POST")),
            (Head, "/restart", method("GET, POST")),
            (Other, "/", method("GET, HEAD")),
        ] {
            assert_eq!(find(how, path, ECV).unwrap_err(), want, "{how:?} {path}");
        }
    }

    #[test]
    fn nothing_that_changes_anything_is_free() {
        for route in &ROUTES {
            let looks = route.method == Verb::Get && route.what != What::Restart;
            assert!(looks || route.who != Who::Anybody, "{route:?}");
            assert!(route.help.len() <= 60 && !route.help.is_empty());
        }
        assert_eq!(free("/up"), "/up, /live, /ready, /metrics");
    }

    #[test]
    fn the_path_of_ecv_may_be_any_that_is_free() {
        for fine in ["/", "/ecv", "/health/x.html", "/a/", "/ecv.php", "/~x"] {
            assert_eq!(check_ecv(fine), Ok(()), "{fine}");
        }
        let long = format!("/{}", "a".repeat(MAX_ECV));
        for bad in [
            "", "ecv", "/a b", "/a?b", "/a#b", "/%20", "/\u{e9}", "/a\n", "/status", "/live",
            "/cli", "/disable", &long,
        ] {
            assert!(check_ecv(bad).is_err(), "{bad}");
        }
        let said = check_ecv("/live").unwrap_err();
        assert_eq!(
            said,
            "/live is a path of another answer of ours (does the master work?)"
        );
    }
}
