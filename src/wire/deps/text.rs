//! The answer to `deps` for people: first what is not what is on disk any more, then who is made of what.

use super::super::logfmt::civil;
use super::{Answer, File, Group, Member, Object, Source, State, within};
use crate::core::words::{bytes, count};

/// All of it.
pub fn answer(a: &Answer) -> String {
    if a.groups.is_empty() && a.gone.is_empty() && a.unseen.is_empty() && a.left_out == 0 {
        return super::super::workers::nobody();
    }
    let mut text = stale(&a.groups);
    let (groups, missing) = within(&a.groups, group);
    let (sources, more) = within(&a.sources, source);
    text.push_str(&groups.join("\n"));
    for part in sources {
        text.push('\n');
        text.push_str(&part);
    }
    let mut rest = String::new();
    for (member, why) in &a.unseen {
        rest.push_str(&format!(
            "{} cannot be looked at: {}\n",
            named(member),
            shown(why)
        ));
    }
    for member in &a.gone {
        rest.push_str(&format!("{} has gone meanwhile\n", named(member)));
    }
    let left_out = a.left_out.saturating_add(missing).saturating_add(more);
    if left_out > 0 {
        rest.push_str(&format!("{left_out} more are left out: ask for one slot\n"));
    }
    if !rest.is_empty() && !text.is_empty() {
        text.push('\n');
    }
    text + &rest
}

fn named(m: &Member) -> String {
    format!("slot {} pid {}", m.slot, m.pid)
}

/// On one line, and nothing that moves a cursor.
fn shown(text: &str) -> String {
    let safe = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(safe).collect()
}

fn what_became(state: State) -> &'static str {
    match state {
        State::Present => "",
        State::Replaced => "replaced",
        State::Deleted => "deleted",
        State::Changed => "changed since",
    }
}

/// What a restart would not find as it is here. (In place of what was deleted it may find nothing.)
fn stale(groups: &[Group]) -> String {
    let mut text = String::new();
    let one = |g: &Group| {
        let (who, all) = (who(g), g.made.stale());
        let line = |(path, state): &(&str, State)| {
            format!("  {who}: {} {}\n", shown(path), what_became(*state))
        };
        all.iter().map(line).collect::<String>()
    };
    let (parts, _) = within(groups, one);
    for part in parts {
        text.push_str(&part);
    }
    match text.is_empty() {
        true => text,
        false => format!("not what is on disk now, where a restart looks:\n{text}\n"),
    }
}

/// `0 1 4-7`
fn ranges(members: &[Member]) -> String {
    let mut slots: Vec<u16> = members.iter().map(|m| m.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    let mut all: Vec<(u16, u16)> = Vec::new();
    for n in slots {
        match all.last_mut() {
            Some((_, to)) if to.checked_add(1) == Some(n) => *to = n,
            _ => all.push((n, n)),
        }
    }
    let one = |(from, to): &(u16, u16)| match to - from {
        0 => from.to_string(),
        1 => format!("{from} {to}"),
        _ => format!("{from}-{to}"),
    };
    let parts: Vec<String> = all.iter().map(one).collect();
    parts.join(" ")
}

fn who(g: &Group) -> String {
    let slots = ranges(&g.members);
    let word = if slots.contains([' ', '-']) {
        "slots"
    } else {
        "slot"
    };
    format!("{word} {slots} generation {}", g.made.generation)
}

fn id(build_id: Option<&str>) -> String {
    build_id.map_or(String::new(), |id| format!(" build id {id}"))
}

fn became(state: State) -> String {
    match state {
        State::Present => String::new(),
        stale @ (State::Replaced | State::Deleted | State::Changed) => {
            format!(" ({})", what_became(stale))
        }
    }
}

fn file(f: &File) -> String {
    format!(
        "{}{} {} of {}{}",
        shown(&f.path),
        became(f.state),
        bytes(f.size),
        day(f.mtime),
        id(f.build_id.as_deref())
    )
}

/// `2026-11-29 12:00:01Z`
fn day(unix: i64) -> String {
    let Ok(secs) = u64::try_from(unix) else {
        return "before 1970".into();
    };
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Later than that no file is.
    let (year, month, day) = civil(days.min(2_900_000));
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

fn group(g: &Group) -> String {
    let made = &g.made;
    let pids: Vec<String> = g.members.iter().map(|m| m.pid.to_string()).collect();
    let mut text = format!("{}: pid {}\n", who(g), pids.join(" "));
    let mut line = |name: &str, what: &str| text.push_str(&format!("  {name:<10} {what}\n"));
    line("executable", &file(&made.executable));
    if let Some(script) = &made.script {
        line("script", &file(script));
    }
    if let Some(cwd) = &made.cwd {
        line("in", &shown(cwd));
    }
    if made.other_root {
        line(
            "root",
            "another one than the master's, or mounts of its own",
        );
    }
    for used in &made.packages {
        let changed = if used.changed { " (changed since)" } else { "" };
        line("packages", &format!("{}{changed}", shown(&used.path)));
    }
    line("objects", &count(made.objects.len(), "shared object"));
    let object = |o: &Object| {
        let (path, state) = (shown(&o.path), became(o.state));
        format!("    {path}{state}{}\n", id(o.build_id.as_deref()))
    };
    text.extend(made.objects.iter().map(object));
    if made.objects_left_out > 0 {
        text.push_str(&format!("    and {} more\n", made.objects_left_out));
    }
    text
}

fn source(s: &Source) -> String {
    let (path, size, of) = (shown(&s.path), bytes(s.size), day(s.mtime));
    let list = match &s.list {
        Err(why) => return format!("{} {path}, {size} of {of}: {}\n", s.kind, shown(why)),
        Ok(list) => list,
    };
    let n = list.all.len();
    let mut text = format!(
        "{} {path}, {size} of {of}: {}\n",
        s.kind,
        count(n, "package")
    );
    for p in &list.all {
        text.push_str(&format!("    {} {}\n", p.name, p.version));
    }
    if list.left_out > 0 {
        text.push_str(&format!("    and {} more\n", list.left_out));
    }
    text.replace(" \n", "\n")
}
