//! The answer to `deps --json`.

use super::super::fields::null;
use super::super::json::quote;
use super::super::workers::list;
use super::packages::Package;
use super::{Answer, File, Group, Made, Member, Object, Source, Used, within};

/// All of it, one value.
pub fn answer(a: &Answer) -> String {
    let (groups, missing) = within(&a.groups, group);
    let (sources, more) = within(&a.sources, source);
    let within = a.left_out_within();
    format!(
        "{{\"groups\":[{}],\"packages\":[{}],\"gone\":{},\"unseen\":{},\"left_out\":{}}}\n",
        groups.join(","),
        sources.join(","),
        list(a.gone.iter().map(|m| format!("{{{}}}", member(m)))),
        list(a.unseen.iter().map(|(m, why)| {
            let (who, why) = (member(m), quote(why));
            format!("{{{who},\"reason\":{why}}}")
        })),
        [a.left_out, missing, more, within]
            .into_iter()
            .fold(0, usize::saturating_add)
    )
}

fn member(m: &Member) -> String {
    format!("\"slot\":{},\"pid\":{}", m.slot, m.pid)
}

fn group(g: &Group) -> String {
    let Made {
        generation,
        executable,
        script,
        cwd,
        other_root,
        objects,
        objects_left_out,
        packages,
    } = &g.made;
    let mut slots: Vec<u16> = g.members.iter().map(|m| m.slot).collect();
    slots.dedup();
    let used = |u: &Used| {
        let (path, changed) = (quote(&u.path), u.changed);
        format!("{{\"path\":{path},\"changed\":{changed}}}")
    };
    format!(
        "{{\"generation\":{generation},\"slots\":{},\"pids\":{},\"stale\":{},\"executable\":{},\"script\":{},\
         \"cwd\":{},\"other_root\":{other_root},\"objects\":{},\"objects_left_out\":{objects_left_out},\"packages\":{}}}",
        list(slots.iter().map(u16::to_string)),
        list(g.members.iter().map(|m| m.pid.to_string())),
        !g.made.stale().is_empty(),
        file(executable),
        script.as_ref().map_or_else(|| "null".into(), file),
        null(cwd.as_deref(), quote),
        list(objects.iter().map(object)),
        list(packages.iter().map(used)),
    )
}

fn file(f: &File) -> String {
    format!(
        "{{\"path\":{},\"state\":\"{}\",\"build_id\":{},\"inode\":{},\"size\":{},\"mtime\":{}}}",
        quote(&f.path),
        f.state.word(),
        null(f.build_id.as_deref(), quote),
        f.inode,
        f.size,
        f.mtime
    )
}

fn object(o: &Object) -> String {
    format!(
        "{{\"path\":{},\"state\":\"{}\",\"build_id\":{}}}",
        quote(&o.path),
        o.state.word(),
        null(o.build_id.as_deref(), quote)
    )
}

/// As who reads lists of them has it: `name@version`.
fn package(p: &Package) -> String {
    match p.version.as_str() {
        "" => quote(&p.name),
        version => quote(&format!("{}@{version}", p.name)),
    }
}

fn source(s: &Source) -> String {
    let (all, left_out, why) = match &s.list {
        Ok(found) => (list(found.all.iter().map(package)), found.left_out, None),
        Err(why) => ("null".into(), 0, Some(why.as_str())),
    };
    format!(
        "{{\"kind\":\"{}\",\"path\":{},\"size\":{},\"mtime\":{},\"packages\":{all},\"left_out\":{left_out},\"error\":{}}}",
        s.kind,
        quote(&s.path),
        s.size,
        s.mtime,
        null(why, quote)
    )
}
