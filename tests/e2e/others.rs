//! Other people's servers, as they come and as one types them: started three times on one port, shared, one of them
//! killed and replaced; then reloaded, and stopped, under clients of all kinds, with the default of --drain and with
//! `--drain server`. With the default nothing is ever lost. What `--drain server` gives depends on the server, and is
//! in contrib/servers.md: the stories hold that against what they see. `make servers-table` writes it anew.

use crate::client::{all_answer, v4};
use crate::harness::Rig;
use crate::load::{LOST, LOST_WITHIN, Load, Tally};
use crate::pings::Pings;
use crate::place::{SERVERS, free_port};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

const COPIES: usize = 3;
/// Clients that never rest are waited for so long, which is 10 s by default: less, so that it takes less.
const OPTIONS: &str = "--drain-timeout 3s";
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/servers.md");
/// With that set to `write` the page is written, not read.
const WRITE: &str = "SERVERS_TABLE";
/// What npm has installed: no Debian packages.
const RUNTIMES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/runtimes/node_modules/.bin"
);

/// One of them.
struct Server {
    name: &'static str,
    /// Where it comes from.
    package: &'static str,
    /// The command, as it is typed in the directory of the application.
    command: &'static [&'static str],
    options: &'static str,
    /// It uses the socket that it is passed (LISTEN_FDS), and binds none.
    adopts: bool,
    /// Is there something to be built of the application?
    builds: &'static [&'static str],
    redis: bool,
    /// What the log may say of it.
    allowed: &'static [&'static str],
}

const PORT: &str = "3000";

fn server(name: &'static str, package: &'static str, command: &'static [&'static str]) -> Server {
    Server {
        name,
        package,
        command,
        options: "",
        adopts: false,
        builds: &[],
        redis: false,
        allowed: &[],
    }
}

impl Server {
    /// The command as it is typed in a shell.
    fn typed(&self) -> String {
        let quoted = |w: &&str| match w.is_empty() || w.contains(' ') {
            true => format!("'{w}'"),
            false => w.to_string(),
        };
        let words: Vec<String> = self.command.iter().map(quoted).collect();
        words.join(" ")
    }

    fn start(&self, port: u16, options: &str) -> Rig {
        let mut words: Vec<String> = format!("-n {COPIES} -p {port} --cwd app {OPTIONS}")
            .split(' ')
            .chain(options.split_whitespace())
            .chain(self.options.split_whitespace())
            .chain(["--"])
            .map(String::from)
            .collect();
        let number = port.to_string();
        words.extend(self.command.iter().map(|w| w.replace(PORT, &number)));
        let mut rig = Rig::dressed(words, |cmd, dir| {
            let path = std::env::var("PATH").unwrap();
            cmd.env("PATH", format!("{RUNTIMES}:{path}"))
                .env("DENO_DIR", dir.join("deno"))
                .env("DENO_NO_UPDATE_CHECK", "1");
            self.prepare(&dir.join("app"), &number);
        });
        rig.wait("all-ready", |_| true);
        rig
    }

    /// The application, in a directory of its own: some of them write beside it.
    fn prepare(&self, app: &Path, port: &str) {
        let copy = Command::new("cp")
            .args(["-r", &format!("{SERVERS}/heavy")])
            .arg(app)
            .status();
        assert!(copy.unwrap().success());
        // What nginx needs to know is in its file.
        let conf = std::fs::read_to_string(app.join("nginx.conf")).unwrap();
        std::fs::write(app.join("nginx.conf"), conf.replace(PORT, port)).unwrap();
        std::fs::write(app.join("slow"), [b'.'; 5500]).unwrap();
        if let [program, words @ ..] = self.builds {
            let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
            let mut cmd = Command::new(program);
            let done = cmd.current_dir(app).env("GOCACHE", cache).args(words);
            let done = done.output().unwrap();
            assert!(done.status.success(), "{program}: {done:?}");
        }
    }

    fn all_answer(&self, rig: &Rig, port: u16) {
        match self.redis {
            true => crate::pings::all_answer(rig, v4(port), COPIES),
            false => drop(all_answer(rig, v4(port), "/", COPIES)),
        }
    }

    /// Reloaded and stopped under load, so drained.
    fn lives(&self, drain: &str) -> [Seen; 2] {
        let port = free_port();
        let mut rig = self.start(port, &format!("--drain {drain}"));
        self.all_answer(&rig, port);
        let victim = rig.status().pids()[0];
        rig.replace(victim);
        self.all_answer(&rig, port);

        let clients = Clients::going(self, port);
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{}: {said:?}", self.name);
        let reload = clients.finish(&LOST);
        self.all_answer(&rig, port);

        let clients = Clients::going(self, port);
        let said = rig.verb("stop");
        assert_eq!(said.code, 0, "{}: {said:?}", self.name);
        // Who comes when nobody listens any more has not been lost by anybody.
        let stop = clients.finish(&LOST_WITHIN);
        rig.finish(0, &[&["died"], self.allowed].concat());
        [reload, stop]
    }

    /// Where no bind(2) is answered it serves all the same.
    fn serves_what_it_is_passed(&self) {
        let port = free_port();
        let rig = self.start(port, "--takeover off");
        self.all_answer(&rig, port);
        rig.end(self.allowed);
    }

    /// The whole story.
    fn tried(&self) {
        if self.package.starts_with("npm") && !installed(self.command[0]).exists() {
            println!(
                "{}: left out, {} cannot be had here",
                self.name, self.package
            );
            return;
        }
        if self.adopts {
            self.serves_what_it_is_passed();
        }
        let [reload, stop] = self.lives("connections");
        assert_eq!([reload, stop].map(|s| s.lost()), [0, 0], "{}", self.name);
        let mut own = [Seen::default(); 2];
        let (head, mut row) = (
            format!("| {} | {} |", self.name, self.package),
            String::new(),
        );
        let tries = match writes() {
            true => WRITTEN_AFTER,
            false => TRIES,
        };
        for _ in 0..tries {
            let [more_reload, more_stop] = self.lives("server");
            own = [own[0].and(more_reload), own[1].and(more_stop)];
            row = self.row(&head, own);
            if !writes() && row_of(&page(), &head) == row {
                break;
            }
        }
        let counts = [
            ("the default", "reload", reload),
            ("the default", "stop", stop),
            ("`server`", "reload", own[0]),
            ("`server`", "stop", own[1]),
        ];
        let counts = counts.map(|(drain, what, seen)| {
            let head = format!("| {} | {drain} | {what} |", self.name);
            let row = format!("{head} {}", seen.row());
            println!("{row}");
            (head, row)
        });
        hold_against_the_page(&head, &row, &counts);
    }

    /// What the page has to say.
    fn row(&self, head: &str, own: [Seen; 2]) -> String {
        let by = match self.adopts {
            true => "LISTEN_FDS",
            false => "takeover",
        };
        let [reload, stop] = own.map(|s| match s.lost() {
            0 => "nothing lost",
            _ => "requests lost",
        });
        format!("{head} `{}` | {by} | {reload} | {stop} |", self.typed())
    }
}

/// A server that loses requests may be lucky, on a machine that is so busy that all is answered by then: so often it
/// is tried whether it does what the page says,
const TRIES: usize = 6;
/// and always so often before that is written.
const WRITTEN_AFTER: usize = 3;

fn installed(program: &str) -> PathBuf {
    Path::new(RUNTIMES).join(program)
}

fn writes() -> bool {
    std::env::var(WRITE).is_ok_and(|v| v == "write")
}

fn page() -> String {
    std::fs::read_to_string(PAGE).unwrap()
}

/// The row that begins so.
fn row_of(page: &str, head: &str) -> String {
    let row = page.lines().find(|l| l.starts_with(head));
    let row = row.unwrap_or_else(|| panic!("contrib/servers.md has no row {head}"));
    row.to_string()
}

/// The page has the row of this server; counts, each behind its head, are written and not compared.
fn hold_against_the_page(head: &str, row: &str, counts: &[(String, String)]) {
    static PAGES: Mutex<()> = Mutex::new(());
    let _one_at_a_time = PAGES.lock();
    if writes() {
        let mut page = page();
        let rows = counts.iter().map(|(h, r)| (h.as_str(), r.as_str()));
        for (head, row) in rows.chain([(head, row)]) {
            page = page.replace(&row_of(&page, head), row);
        }
        std::fs::write(PAGE, page).unwrap();
    }
    let page = page();
    let advice = "contrib/servers.md; `make servers-table` writes it";
    assert_eq!(row_of(&page, head), row, "{advice}");
    for (head, _) in counts {
        row_of(&page, head);
    }
}

/// What clients of one kind have counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Answered or lost.
    pub requests: u64,
    pub lost: u64,
    /// Made again on another connection.
    pub again: u64,
}

impl Counted {
    fn of(loads: Vec<Load>, lost: &[&str]) -> Counted {
        let tallies: Vec<Tally> = loads.into_iter().map(|l| l.finish().1).collect();
        let sum = |names: &[&str]| tallies.iter().map(|t| t.sum(names)).sum::<u64>();
        Counted {
            requests: sum(&["fresh_ok", "reused_ok"]) + sum(lost),
            lost: sum(lost),
            again: sum(&["reused"]),
        }
    }
}

/// And those of both kinds: with a connection for each request, with kept ones.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    each: Counted,
    kept: Counted,
}

impl Seen {
    /// Both together.
    fn and(self, other: Seen) -> Seen {
        let sum = |a: Counted, b: Counted| Counted {
            requests: a.requests + b.requests,
            lost: a.lost + b.lost,
            again: a.again + b.again,
        };
        Seen {
            each: sum(self.each, other.each),
            kept: sum(self.kept, other.kept),
        }
    }

    fn lost(&self) -> u64 {
        self.each.lost + self.kept.lost
    }

    fn row(&self) -> String {
        let Seen { each, kept } = self;
        format!(
            "{} | {} | {} | {} | {} |",
            each.requests, each.lost, kept.requests, kept.lost, kept.again
        )
    }
}

/// Those who ask while something happens. Some ask for what takes a while, and again at once: what loses a request that
/// is under way loses some of these, whenever it happens.
enum Clients {
    Http { each: Vec<Load>, kept: Vec<Load> },
    Redis { each: Pings, kept: Pings },
}

impl Clients {
    fn going(server: &Server, port: u16) -> Clients {
        if server.redis {
            return Clients::Redis {
                each: Pings::going(v4(port), false),
                kept: Pings::going(v4(port), true),
            };
        }
        let load = |words: &str| Load::going(&format!("{port} {words}"));
        Clients::Http {
            each: vec![
                load("mode=fresh clients=4 pause=5"),
                load("mode=fresh clients=3 path=/slow"),
            ],
            kept: vec![
                load("mode=keepalive clients=4 pause=5"),
                load("mode=keepalive clients=3 path=/slow"),
            ],
        }
    }

    fn finish(self, lost: &[&str]) -> Seen {
        match self {
            Clients::Http { each, kept } => Seen {
                each: Counted::of(each, lost),
                kept: Counted::of(kept, lost),
            },
            Clients::Redis { each, kept } => Seen {
                each: each.finish(lost.contains(&"refused")),
                kept: kept.finish(lost.contains(&"refused")),
            },
        }
    }
}

#[test]
#[ignore = "needs gunicorn: make test-servers"]
fn heavy_other_gunicorn() {
    let command = &["gunicorn", "--threads", "4", "app:app"];
    Server {
        adopts: true,
        ..server("gunicorn", "Debian gunicorn", command)
    }
    .tried();
}

#[test]
#[ignore = "needs uvicorn: make test-servers"]
fn heavy_other_uvicorn() {
    let command = &["uvicorn", "--host", "0.0.0.0", "--port", PORT, "asgi:app"];
    Server {
        allowed: &["lane-nonblocking"],
        ..server("uvicorn", "Debian uvicorn", command)
    }
    .tried();
}

#[test]
#[ignore = "needs Puma: make test-servers"]
fn heavy_other_puma() {
    Server {
        adopts: true,
        // Of some hundred one was still there 10 s after its TERM, nobody knows why.
        allowed: &["killed"],
        ..server("Puma", "Debian puma", &["puma", "-p", PORT])
    }
    .tried();
}

#[test]
#[ignore = "needs PHP: make test-servers"]
fn heavy_other_php() {
    let command = &["php", "-S", "0.0.0.0:3000", "index.php"];
    server("PHP, `-S`", "Debian php-cli", command).tried();
}

#[test]
#[ignore = "needs nginx: make test-servers"]
fn heavy_other_nginx() {
    let own = "daemon off; pid nginx.{slot};";
    let command: &[&str] = &["nginx", "-p", ".", "-c", "nginx.conf", "-g"];
    let command: Vec<&str> = command.iter().copied().chain([own]).collect();
    Server {
        // TERM is not graceful there.
        options: "--stop-signal QUIT",
        ..server("nginx", "Debian nginx-light", command.leak())
    }
    .tried();
}

#[test]
#[ignore = "needs Go: make test-servers"]
fn heavy_other_go() {
    Server {
        builds: &["go", "build", "-o", "server", "server.go"],
        ..server("Go, net/http", "Debian golang-go", &["./server"])
    }
    .tried();
}

#[test]
#[ignore = "needs a JDK: make test-servers"]
fn heavy_other_java() {
    let command = &["java", "-Xmx64m", "Server"];
    Server {
        builds: &["javac", "Server.java"],
        allowed: &["lane-nonblocking"],
        ..server("Java, HttpServer", "Debian default-jdk-headless", command)
    }
    .tried();
}

#[test]
#[ignore = "takes its time: make test-servers"]
fn heavy_other_node() {
    server("Node, http", "Debian nodejs", &["node", "server.js"]).tried();
}

#[test]
#[ignore = "needs Deno: make test-servers"]
fn heavy_other_deno() {
    let command = &["deno", "serve", "--port", PORT, "-A", "fetch.js"];
    server("Deno, serve", "npm deno", command).tried();
}

#[test]
#[ignore = "needs Bun: make test-servers"]
fn heavy_other_bun() {
    server("Bun, serve", "npm bun", &["bun", "fetch.js"]).tried();
}

#[test]
#[ignore = "needs Redis: make test-servers"]
fn heavy_other_redis() {
    let command = &["redis-server", "--port", PORT, "--save", ""];
    Server {
        redis: true,
        allowed: &["lane-nonblocking"],
        ..server("Redis", "Debian redis-server", command)
    }
    .tried();
}
