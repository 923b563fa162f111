//! Answers to `status` and `why`: a snapshot of core and readings of /proc as text and as JSON.

use super::json::quote;
use super::metrics::Queue;
use super::progress;
use super::traffic::Traffic;
use super::workers::list;
use crate::core::death::Death;
use crate::core::notice::{Cause, Next};
use crate::core::status::{SlotView, Snapshot};
use crate::core::words::{human, signal_name};
use crate::core::{Exit, Ground, Oom, Phase, Standing, Time};
use crate::verbs::Shown;
use std::time::Duration;

/// What the shell adds to a snapshot.
pub struct Master<'a> {
    /// The cluster's name.
    pub name: &'a str,
    /// The master's pid.
    pub pid: u32,
    /// The time of the snapshot.
    pub now: Time,
    /// Resident bytes and CPU milliseconds of each slot's worker.
    pub usage: Vec<Option<(u64, u64)>>,
    /// What each slot's worker has said last of its state.
    pub says: Vec<Option<String>>,
    /// Of the connections of each.
    pub traffic: Vec<Traffic>,
    /// Who waits at which port.
    pub queues: Vec<Queue>,
    /// Resident bytes and CPU milliseconds of the master itself.
    pub own: Option<(u64, u64)>,
    /// What the workers run,
    pub command: Vec<String>,
    /// and what a rollback would return to.
    pub previous: Option<Vec<String>>,
}

impl Master<'_> {
    fn says(&self, nth: usize) -> Option<&str> {
        self.says.get(nth)?.as_deref()
    }

    fn traffic(&self, nth: usize) -> Traffic {
        self.traffic.get(nth).copied().unwrap_or_default()
    }

    fn usage(&self, nth: usize) -> Option<(u64, u64)> {
        *self.usage.get(nth)?
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::Stopping { .. } => "stopping",
        Phase::Done(_) => "stopped",
    }
}

/// `cluster`: the first line of that.
pub fn cluster_text(s: &Snapshot, m: &Master<'_>) -> String {
    let ports: Vec<String> = s.lanes.iter().map(|a| format!("{} ", a.url())).collect();
    let disabled = match s.rotation.state {
        Standing::Disabled => "disabled ",
        Standing::Available => "",
        Standing::Warning => match s.rotation.why {
            Ground::Discontent { .. } => "unhealthy ",
            // The numbers say it.
            Ground::Well
            | Ground::Starting { .. }
            | Ground::TooFew { .. }
            | Ground::Unchecked { .. }
            | Ground::Stopping
            | Ground::Asked { .. } => "",
        },
    };
    let stopping = match s.phase {
        Phase::Serving => "",
        Phase::Stopping { .. } | Phase::Done(_) => "stopping ",
    };
    format!(
        "{} pid {} up {} {stopping}{disabled}{}/{} ready generation {} {}takeover {}\n",
        m.name,
        m.pid,
        human(s.up),
        s.ready,
        s.wanted,
        s.generation,
        ports.concat(),
        s.takeover
    )
}

/// `status` for people.
pub fn status_text(s: &Snapshot, m: &Master<'_>) -> String {
    let mut text = cluster_text(s, m);
    let mut rows = vec![
        [
            "SLOT", "PID", "STATE", "AGE", "RESTARTS", "RSS", "CPU", "OPEN", "QUEUE", "LAST",
        ]
        .map(String::from),
    ];
    let one = |(nth, v)| row(v, m.usage(nth), m.traffic(nth));
    rows.extend(s.slots.iter().enumerate().map(one));
    let word = |(nth, v)| said(v, m.says(nth));
    let under = s.slots.iter().enumerate().map(word);
    text.push_str(&under_rows(&table(&rows), under));
    text.push_str(&progress::text(s.rollout));
    text
}

/// What a worker has said of itself, below its row.
pub(super) fn said(v: &SlotView, says: Option<&str>) -> String {
    let well = v.well.map(|d| format!("well {} ago", human(d)));
    let says = says.map(|text| format!("says: {text}"));
    let adopted = v
        .adopted
        .then(|| "adopted: another master has left it".to_string());
    let all: Vec<String> = adopted.into_iter().chain(well).chain(says).collect();
    match all.is_empty() {
        true => String::new(),
        false => format!("    | {}\n", all.join(", ")),
    }
}

/// A table with a head, and below each row what belongs to it.
pub(super) fn under_rows(table: &str, mut under: impl Iterator<Item = String>) -> String {
    let mut lines = table.lines();
    let mut text: String = lines
        .next()
        .map(|head| format!("{head}\n"))
        .into_iter()
        .collect();
    for line in lines {
        text.push_str(line);
        text.push('\n');
        text.push_str(&under.next().unwrap_or_default());
    }
    text
}

/// The same as members of an object.
pub(super) fn said_json(v: &SlotView, says: Option<&str>) -> String {
    let well = v.well.map(|d| format!("{:.3}", d.as_secs_f64()));
    let null = || "null".to_string();
    format!(
        "\"adopted\":{},\"watchdog\":{},\"status\":{}",
        v.adopted,
        well.unwrap_or_else(null),
        says.map_or_else(null, quote)
    )
}

/// Columns as wide as they need to be.
pub(super) fn table<R: AsRef<[String]>>(rows: &[R]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        let row = row.as_ref();
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |r: &R| {
        let cells: Vec<String> = r
            .as_ref()
            .iter()
            .zip(&widths)
            // (A width in a format may not be longer than 65,535, and a command may.)
            .map(|(c, w)| format!("{c}{}", " ".repeat(w.saturating_sub(c.chars().count()))))
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(v: &SlotView, usage: Option<(u64, u64)>, traffic: Traffic) -> [String; 10] {
    let dash = || "-".to_string();
    let age = match v.state {
        "waiting" => format!("in {}", human(v.age)),
        _ if v.pid.is_none() => dash(),
        _ => human(v.age),
    };
    [
        v.slot.to_string(),
        v.pid.map_or_else(dash, |p| p.to_string()),
        v.state.to_string(),
        age,
        match v.current {
            true => v.restarts.to_string(),
            false => dash(),
        },
        usage.map_or_else(dash, |(rss, _)| size(rss)),
        usage.map_or_else(dash, |(_, ms)| human(Duration::from_millis(ms))),
        traffic.seen.map_or_else(dash, |s| s.open.to_string()),
        traffic.queue.map_or_else(dash, |n| n.to_string()),
        v.last.map_or_else(dash, |(c, e)| format!("{c} ({e})")),
    ]
}

/// The same where it may be less than a kilobyte.
pub(super) fn amount(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        more => size(more),
    }
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..=1_048_575 => format!("{}K", bytes / 1024),
        1_048_576..=1_073_741_823 => format!("{:.1}M", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1}G", bytes as f64 / 1_073_741_824.0),
    }
}

/// `status --json`
pub fn status_json(s: &Snapshot, m: &Master<'_>) -> String {
    let of = |used: Option<(u64, u64)>| {
        let object = |(n, limit)| format!("{{\"count\":{n},\"limit\":{limit}}}");
        used.map_or("null".into(), object)
    };
    let ports: Vec<String> = s.lanes.iter().map(|a| quote(&a.to_string())).collect();
    let words = |all: &[String]| list(all.iter().map(|w| quote(w)));
    let slots: Vec<String> = s
        .slots
        .iter()
        .enumerate()
        .map(|(nth, v)| slot_json(v, m.usage(nth), m.traffic(nth), m.says(nth)))
        .collect();
    format!(
        "{{\"name\":{},\"pid\":{},\"version\":{},\"phase\":{},\"up\":{:.3},\"ready\":{},\"wanted\":{},\"generation\":{},\"rotation\":{},\"rollout\":{},\"ports\":[{}],\"queues\":{},\"takeover\":{},\"respawns\":{},\"forks\":{},\"command\":{},\"previous\":{},\"rss\":{},\"cpu\":{},\"slots\":[{}]}}\n",
        quote(m.name),
        m.pid,
        quote(env!("CARGO_PKG_VERSION")),
        quote(phase_word(s.phase)),
        s.up.as_secs_f64(),
        s.ready,
        s.wanted,
        s.generation,
        super::rotation::object(&s.rotation, m.now),
        progress::object(s.rollout),
        ports.join(","),
        progress::queues(&m.queues),
        quote(s.takeover),
        of(s.used.respawns.map(|(n, limit)| (n as u64, limit.into()))),
        of(s.used.forks),
        words(&m.command),
        or_null(m.previous.as_deref().map(words)),
        or_null(m.own.map(|(rss, _)| rss.to_string())),
        or_null(m.own.map(|(_, ms)| seconds(ms))),
        slots.join(",")
    )
}

fn or_null(text: Option<String>) -> String {
    text.unwrap_or_else(|| "null".into())
}

fn seconds(ms: u64) -> String {
    format!("{:.3}", ms as f64 / 1000.0)
}

fn slot_json(
    v: &SlotView,
    usage: Option<(u64, u64)>,
    traffic: Traffic,
    says: Option<&str>,
) -> String {
    // Seconds: of an empty slot until its next worker, else since its worker was asked for.
    let (age, due) = match v.pid {
        Some(_) => (Some(format!("{:.3}", v.age.as_secs_f64())), None),
        None if matches!(v.state, "finished" | "given-up") => (None, None),
        None => (None, Some(format!("{:.3}", v.age.as_secs_f64()))),
    };
    format!(
        "{{\"slot\":{},\"current\":{},\"pid\":{},\"generation\":{},\"state\":{},\"age\":{},\"due\":{},\"restarts\":{},\"rss\":{},\"cpu\":{},\"open\":{},\"queue\":{},\"served\":{},{},\"last\":{}}}",
        v.slot,
        v.current,
        or_null(v.pid.map(|p| p.to_string())),
        v.generation,
        quote(v.state),
        or_null(age),
        or_null(due),
        v.restarts,
        or_null(usage.map(|(rss, _)| rss.to_string())),
        or_null(usage.map(|(_, ms)| seconds(ms))),
        or_null(traffic.seen.map(|s| s.open.to_string())),
        or_null(traffic.queue.map(|n| n.to_string())),
        or_null(traffic.tally.map(|t| t.served.to_string())),
        said_json(v, says),
        or_null(
            v.last
                .map(|(c, e)| { format!("{{\"reason\":{},{}}}", quote(c.word()), exit_json(e)) })
        ),
    )
}

fn exit_json(e: Exit) -> String {
    match e {
        Exit::Code(c) => format!("\"code\":{c}"),
        Exit::Signal(n) => format!("\"signal\":{}", quote(&format!("SIG{}", signal_name(n)))),
        Exit::Unknown => "\"code\":null".to_string(),
    }
}

/// `why` for people: how all stands, then the deaths, newest last.
pub fn why_text(standing: &[String], deaths: &[Death], m: &Master<'_>) -> String {
    let mut text: String = standing.iter().map(|l| format!("{l}\n")).collect();
    if deaths.is_empty() {
        text.push_str("no worker has ended\n");
    }
    for d in deaths {
        let ready = match d.ready_for {
            Some(r) => format!("ready for {}", human(r)),
            None => "never ready".into(),
        };
        let next = match d.next {
            Next::Respawn(delay) if delay.is_zero() => "respawned at once".to_string(),
            Next::Respawn(delay) => format!("respawn after {}", human(delay)),
            Next::HeldBack { wait, limit } => format!(
                "held back for {} by --restarts-per-minute {limit}",
                human(wait)
            ),
            Next::Finished => "its slot is finished (--respawn-on)".into(),
            Next::GivenUp { limit } => format!("its slot is given up by --max-forks {limit}"),
            Next::Replaced => "another one has its place".into(),
            Next::TakenBack => "the one before it has its place again".into(),
            Next::Nothing => "not respawned".into(),
        };
        text.push_str(&format!(
            "{} ago  {}: {} ({}), lived {}, {ready}; {next}\n",
            human(m.now - d.at),
            d.who,
            d.cause,
            d.exit,
            human(d.lived)
        ));
        text.push_str(&last_lines(&d.last));
    }
    text
}

/// What a worker wrote, for a terminal that must not be told anything by it.
pub(super) fn last_lines(last: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\t' { '?' } else { c };
    let line = |l: &str| format!("    | {}\n", l.chars().map(safe).collect::<String>());
    last.lines().map(line).collect()
}

/// `why --json`
pub fn why_json(deaths: &[Death], m: &Master<'_>) -> String {
    let items: Vec<String> = deaths
        .iter()
        .map(|d| {
            let pid = d.who.pid.map_or("null".into(), |p| p.to_string());
            let ready = d
                .ready_for
                .map_or("null".into(), |r| format!("{:.3}", r.as_secs_f64()));
            let (next, respawn) = match d.next {
                Next::Respawn(delay) => ("respawn", Some(delay)),
                Next::HeldBack { wait, .. } => ("held-back", Some(wait)),
                Next::Finished => ("finished", None),
                Next::GivenUp { .. } => ("given-up", None),
                Next::Replaced => ("replaced", None),
                Next::TakenBack => ("taken-back", None),
                Next::Nothing => ("none", None),
            };
            let respawn = respawn.map_or("null".into(), |d| format!("{:.3}", d.as_secs_f64()));
            let guess = d.cause == Cause::Oom(Oom::Probably);
            format!(
                "{{\"slot\":{},\"pid\":{pid},\"ago\":{:.3},\"reason\":{},{},\"lived\":{:.3},\"ready\":{ready},\"respawn\":{respawn},\"next\":\"{next}\",\"guess\":{guess},\"stderr\":{}}}",
                d.who.slot,
                (m.now - d.at).as_secs_f64(),
                quote(d.cause.word()),
                exit_json(d.exit),
                d.lived.as_secs_f64(),
                quote(&d.last)
            )
        })
        .collect();
    format!("[{}]\n", items.join(","))
}

/// `help --json`
pub fn help_json(verbs: &[Shown]) -> String {
    let item = |v: &Shown| {
        let runs = v.runs.iter().map(|words| {
            let all: Vec<String> = words.iter().map(|w| quote(w)).collect();
            format!(",\"runs\":[{}]", all.join(","))
        });
        format!(
            "{{\"verb\":{},\"words\":{},\"help\":{}{}}}",
            quote(&v.name),
            quote(&v.words),
            quote(&v.help),
            runs.collect::<String>()
        )
    };
    let all: Vec<String> = verbs.iter().map(item).collect();
    format!("[{}]\n", all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notice::Who;
    use crate::core::{Pid, Rotation, SlotNr, Used};

    #[test]
    fn columns_are_as_wide_as_they_need_to_be_however_wide_that_is() {
        let cell = |s: &str| s.to_string();
        let long = "x".repeat(100_000);
        let rows = [
            [cell("\u{e9}\u{e9}"), cell("b")],
            [long.clone(), cell("d")],
            [cell("e"), cell("")],
        ];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        let [first, second, third] = lines[..] else {
            panic!("{} lines", lines.len());
        };
        assert_eq!(first.chars().count(), 100_003);
        assert!(first.starts_with("\u{e9}\u{e9} ") && first.ends_with("  b"));
        assert_eq!((second, third), (&*format!("{long}  d"), "e"));
    }

    fn snapshot() -> (Snapshot, Master<'static>) {
        let view = |slot, pid, state: &'static str, last: Option<(Cause, Exit)>| SlotView {
            slot: SlotNr(slot),
            current: state != "draining",
            pid,
            program: Default::default(),
            generation: 7,
            state,
            age: Duration::from_millis(1600),
            adopted: false,
            restarts: 2,
            well: pid.map(|_| Duration::from_millis(120)),
            last,
        };
        let died = Some((Cause::Failure, Exit::Signal(9)));
        let s = Snapshot {
            phase: Phase::Serving,
            generation: 7,
            wanted: 2,
            ready: 1,
            rotation: Rotation {
                state: Standing::Available,
                why: Ground::Well,
                since: Time(1),
                checks: Vec::new(),
            },
            rollout: None,
            up: Duration::from_secs(3 * 86_400),
            lanes: vec!["0.0.0.0:3000".parse().unwrap()],
            takeover: "on",
            slots: vec![
                view(0, Some(Pid(41)), "ready", None),
                view(0, Some(Pid(39)), "draining", None),
                view(1, None, "waiting", died),
            ],
            deaths: vec![Death {
                who: Who {
                    slot: SlotNr(1),
                    pid: Some(Pid(40)),
                },
                cause: Cause::Failure,
                exit: Exit::Signal(9),
                at: Time(1),
                lived: Duration::from_secs(5),
                ready_for: None,
                next: Next::Respawn(Duration::from_millis(1600)),
                last: "one\ntwo\u{1b}\n".into(),
                generation: 1,
                hint: None,
                had_slot: true,
            }],
            used: Used {
                respawns: Some((3, 5)),
                forks: None,
            },
            standing: Vec::new(),
        };
        let m = Master {
            name: "web",
            pid: 4711,
            now: Time(2_000_000_001),
            usage: vec![Some((3 << 20, 1250)), None, None],
            says: vec![Some("accepting".into()), None, None],
            traffic: vec![Traffic {
                queue: Some(4),
                ..Traffic::default()
            }],
            queues: Vec::new(),
            own: Some((1 << 20, 20)),
            command: vec!["./server".into(), "a b".into()],
            previous: None,
        };
        (s, m)
    }

    #[test]
    fn status_for_people() {
        let (s, m) = snapshot();
        assert_eq!(
            status_text(&s, &m),
            "web pid 4711 up 3d 1/2 ready generation 7 tcp://0.0.0.0:3000 takeover on\n\
             SLOT  PID  STATE     AGE      RESTARTS  RSS   CPU   OPEN  QUEUE  LAST\n\
             0     41   ready     1.6s     2         3.0M  1.2s  -     4      -\n    | well 120ms ago, says: accepting\n\
             0     39   draining  1.6s     -         -     -     -     -      -\n    | well 120ms ago\n\
             1     -    waiting   in 1.6s  2         -     -     -     -      failure (SIGKILL)\n"
        );
    }

    #[test]
    fn why_for_people() {
        let (s, m) = snapshot();
        assert_eq!(
            why_text(&[], &s.deaths, &m),
            "2s ago  worker 1 pid 40: failure (SIGKILL), lived 5s, never ready; respawn after 1.6s\n    | one\n    | two?\n"
        );
        assert_eq!(why_text(&[], &[], &m), "no worker has ended\n");
        assert_eq!(
            why_text(&["0 forks".into()], &[], &m),
            "0 forks\nno worker has ended\n"
        );
    }

    #[test]
    fn both_are_json_too() {
        let (s, m) = snapshot();
        let help = help_json(&crate::verbs::named(None).unwrap());
        for text in [status_json(&s, &m), why_json(&s.deaths, &m), help] {
            crate::wire::json::parse(text.trim_end()).unwrap();
        }
        let json = status_json(&s, &m);
        for part in [
            "\"due\":1.600",
            "\"command\":[\"./server\",\"a b\"],\"previous\":null,\"rss\":1048576,\"cpu\":0.020,",
            "\"rollout\":null,",
            "\"respawns\":{\"count\":3,\"limit\":5},\"forks\":null",
        ] {
            assert!(json.contains(part), "{json}");
        }
    }
}
