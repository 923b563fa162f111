//! The answer, in JSON and for people.

use super::packages::List;
use super::*;
use crate::wire::json::parse;

fn file(path: &str, state: State) -> File {
    File {
        path: path.into(),
        state,
        inode: 7,
        size: 2048,
        mtime: 1_795_305_214,
        build_id: Some("ab01".into()),
    }
}

fn made(generation: u32, state: State) -> Made {
    Made {
        generation,
        executable: file("/srv/server", state),
        script: None,
        cwd: Some("/srv".into()),
        other_root: false,
        objects: vec![Object {
            path: "/usr/lib/libssl.so.3".into(),
            state,
            build_id: None,
        }],
        objects_left_out: 0,
        packages: vec![Used {
            path: "/srv/Cargo.lock".into(),
            changed: false,
        }],
    }
}

fn member(slot: u16, pid: i32) -> Member {
    Member { slot, pid }
}

fn answer() -> Answer {
    let mut list = List::default();
    list.add("@s/a", "1.0");
    list.add("b", "");
    let source = |path: &str, list| Source {
        kind: "rust",
        path: path.into(),
        size: 10,
        mtime: 0,
        list,
    };
    Answer {
        groups: vec![
            Group {
                made: made(1, State::Replaced),
                members: vec![member(3, 30)],
            },
            Group {
                made: made(2, State::Present),
                members: vec![member(0, 10), member(1, 11), member(2, 12)],
            },
        ],
        sources: vec![
            source("/srv/Cargo.lock", Ok(list)),
            source("/srv/a\nb", Err("it is \u{1b}[2J no".into())),
        ],
        gone: vec![member(5, 50)],
        unseen: vec![(member(6, 60), "Permission denied".into())],
        left_out: 2,
    }
}

#[test]
fn for_people_what_a_restart_would_change_comes_first() {
    let want = "not what is on disk now, where a restart looks:
  slot 3 generation 1: /srv/server replaced
  slot 3 generation 1: /usr/lib/libssl.so.3 replaced

slot 3 generation 1: pid 30
  executable /srv/server (replaced) 2.0K of 2026-11-21 23:53:34Z build id ab01
  in         /srv
  packages   /srv/Cargo.lock
  objects    1 shared object
    /usr/lib/libssl.so.3 (replaced)

slots 0-2 generation 2: pid 10 11 12
  executable /srv/server 2.0K of 2026-11-21 23:53:34Z build id ab01
  in         /srv
  packages   /srv/Cargo.lock
  objects    1 shared object
    /usr/lib/libssl.so.3

rust /srv/Cargo.lock, 10B of 1970-01-01 00:00:00Z: 2 packages
    @s/a 1.0
    b

rust /srv/a?b, 10B of 1970-01-01 00:00:00Z: it is ?[2J no

slot 6 pid 60 cannot be looked at: Permission denied
slot 5 pid 50 has gone meanwhile
2 more are left out: ask for one slot
";
    assert_eq!(text::answer(&answer()), want);
    assert_eq!(text::answer(&Answer::default()), "there is no worker now\n");
}

#[test]
fn the_same_in_json() {
    let v = parse(json::answer(&answer()).trim_end()).unwrap();
    let first = &v["groups"][0];
    assert_eq!(first["slots"][0].get::<f64>(), Some(&3.0));
    assert_eq!(first["stale"].get::<bool>(), Some(&true));
    let text = |v: &tinyjson::JsonValue| v.get::<String>().unwrap().clone();
    assert_eq!(text(&first["executable"]["state"]), "replaced");
    assert_eq!(text(&first["executable"]["build_id"]), "ab01");
    assert!(first["script"].is_null() && first["objects"][0]["build_id"].is_null());
    let second = &v["groups"][1];
    assert_eq!(second["stale"].get::<bool>(), Some(&false));
    assert_eq!(second["pids"][2].get::<f64>(), Some(&12.0));
    let source = &v["packages"][0];
    assert_eq!(text(&source["packages"][0]), "@s/a@1.0");
    assert_eq!(text(&source["packages"][1]), "b");
    assert!(v["packages"][1]["packages"].is_null());
    assert_eq!(text(&v["unseen"][0]["reason"]), "Permission denied");
    assert_eq!(v["left_out"].get::<f64>(), Some(&2.0));
    // What is left out of a group or a place is in the number of all.
    let mut a = answer();
    a.groups[0].made.objects_left_out = 40;
    a.sources[0].list.as_mut().unwrap().leave_out();
    let v = parse(json::answer(&a).trim_end()).unwrap();
    assert_eq!(v["packages"][0]["left_out"].get::<f64>(), Some(&1.0));
    assert_eq!(v["left_out"].get::<f64>(), Some(&43.0));
    assert!(parse(json::answer(&Answer::default()).trim_end()).is_ok());
}

#[test]
fn what_is_too_long_is_left_out_and_counted() {
    let mut a = answer();
    let group = a.groups[0].clone();
    a.groups = vec![group; 10_000];
    let text = json::answer(&a);
    assert!(text.len() < MAX_ANSWER, "{}", text.len());
    let v = parse(text.trim_end()).unwrap();
    let told = v["groups"].get::<Vec<_>>().unwrap().len();
    assert_eq!(v["left_out"].get::<f64>(), Some(&((10_002 - told) as f64)));
    let text = text::answer(&a);
    assert!(text.len() < MAX_ANSWER && text.contains("more are left out"));
}
