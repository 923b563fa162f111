//! What is a change, on real files.

use super::*;
use std::os::unix::fs::symlink;

/// A directory of its own.
fn place(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("mc-watch-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    dir
}

fn watching(paths: &[&Path]) -> Watch {
    let s = Settings {
        watch: paths.iter().map(|p| p.to_path_buf()).collect(),
        log_file: Some(LogTo::File(paths[0].join("our.log"))),
        pid_dir: Some(paths[0].join("pids")),
        ..Settings::default()
    };
    Watch::open(&s).map_err(|(_, why)| why).unwrap().unwrap()
}

/// What has changed by now; nothing also where nothing was heard.
fn news(w: &mut Watch) -> usize {
    match w.hear() {
        (true, false) => {
            w.ask().unwrap();
            w.changed().len()
        }
        (false, false) => 0,
        (_, true) => panic!("more than a few events"),
    }
}

#[test]
fn a_file_is_written_replaced_and_waited_for() {
    let dir = place("file");
    let file = dir.join("app.conf");
    let mut w = watching(&[&file]);
    assert_eq!(news(&mut w), 0);
    fs::write(&file, "1").unwrap();
    assert_eq!(news(&mut w), 1);
    fs::write(&file, "22").unwrap();
    assert_eq!(news(&mut w), 1);
    fs::write(dir.join("new"), "33").unwrap();
    assert_eq!(news(&mut w), 0);
    fs::rename(dir.join("new"), &file).unwrap();
    assert_eq!(news(&mut w), 1);
    // Of the one that is there now, too.
    fs::write(&file, "4444").unwrap();
    assert_eq!(news(&mut w), 1);
    // One that has gone is waited for.
    fs::remove_file(&file).unwrap();
    assert_eq!(news(&mut w), 0);
    fs::write(&file, "5").unwrap();
    assert_eq!(news(&mut w), 1);
    // What is away for a while and comes back is the same.
    fs::rename(&file, dir.join("away")).unwrap();
    fs::rename(dir.join("away"), &file).unwrap();
    assert_eq!(news(&mut w), 0);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_else_happens_in_its_directory_is_no_news() {
    let dir = place("beside");
    let file = dir.join("app.conf");
    fs::write(&file, "1").unwrap();
    let mut w = watching(&[&file]);
    fs::write(dir.join("other"), "1").unwrap();
    fs::remove_file(dir.join("other")).unwrap();
    fs::read(&file).unwrap();
    assert_eq!(w.hear(), (false, false));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_link_that_is_switched_is_a_change_even_one_behind_it() {
    let dir = place("link");
    for release in ["1", "2"] {
        fs::create_dir(dir.join(release)).unwrap();
        fs::write(dir.join(release).join("app.conf"), release).unwrap();
    }
    let switch = |to: &str, link: &str| {
        symlink(to, dir.join("new")).unwrap();
        fs::rename(dir.join("new"), dir.join(link)).unwrap();
    };
    switch("1", "current");
    switch("1", "..data");
    symlink("..data/app.conf", dir.join("app.conf")).unwrap();
    let (current, conf) = (dir.join("current"), dir.join("app.conf"));
    let mut w = watching(&[&current, &conf]);
    switch("2", "current");
    assert_eq!(news(&mut w), 1);
    // As Kubernetes does with a ConfigMap.
    switch("2", "..data");
    assert_eq!(news(&mut w), 1);
    assert_eq!(news(&mut w), 0);
    // What is in the directory, and the file, that they lead to now.
    fs::write(dir.join("2").join("more"), "1").unwrap();
    assert_eq!(news(&mut w), 1);
    fs::write(dir.join("1").join("more"), "1").unwrap();
    assert_eq!(news(&mut w), 0);
    fs::write(dir.join("2").join("app.conf"), "more").unwrap();
    assert_eq!(news(&mut w), 2);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn of_a_directory_what_is_directly_in_it_and_is_not_ours() {
    let dir = place("dir");
    fs::create_dir(dir.join("sub")).unwrap();
    fs::create_dir(dir.join("pids")).unwrap();
    let mut w = watching(&[&dir]);
    fs::write(dir.join("a"), "1").unwrap();
    assert_eq!(news(&mut w), 1);
    fs::write(dir.join("sub").join("a"), "1").unwrap();
    assert_eq!(news(&mut w), 0);
    // An editor's.
    fs::write(dir.join(".a.swp"), "1").unwrap();
    fs::remove_file(dir.join(".a.swp")).unwrap();
    assert_eq!(news(&mut w), 0);
    // Ours, and sockets.
    fs::write(dir.join("our.log"), "1").unwrap();
    assert_eq!(w.hear(), (false, false));
    let socket = std::os::unix::net::UnixListener::bind(dir.join("x.sock")).unwrap();
    assert_eq!(news(&mut w), 0);
    drop(socket);
    fs::remove_file(dir.join("a")).unwrap();
    assert_eq!(news(&mut w), 1);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_directory_above_that_is_exchanged_is_found_again() {
    let dir = place("above");
    let file = dir.join("a").join("b").join("app.conf");
    let make = |top: &str, text: &str| {
        fs::create_dir_all(dir.join(top).join("b")).unwrap();
        fs::write(dir.join(top).join("b").join("app.conf"), text).unwrap();
    };
    make("a", "1");
    let mut w = watching(&[&file]);
    fs::remove_dir_all(dir.join("a")).unwrap();
    assert_eq!(news(&mut w), 0);
    make("a", "2");
    assert_eq!(news(&mut w), 1);
    fs::write(&file, "33").unwrap();
    assert_eq!(news(&mut w), 1);
    // Its own directory gets another one's place.
    make("new", "444");
    fs::rename(dir.join("a").join("b"), dir.join("old")).unwrap();
    assert_eq!(news(&mut w), 0);
    fs::rename(dir.join("new").join("b"), dir.join("a").join("b")).unwrap();
    assert_eq!(news(&mut w), 1);
    fs::write(&file, "5").unwrap();
    assert_eq!(news(&mut w), 1);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let dir = place("refused");
    fs::write(dir.join("file"), "1").unwrap();
    let open = |path: &str| {
        let s = Settings {
            watch: vec![dir.join(path)],
            pid_file: Some(dir.join("master.pid")),
            ..Settings::default()
        };
        Watch::open(&s).err()
    };
    assert_eq!(open("waited-for"), None);
    let (code, why) = open("missing/app.conf").unwrap();
    assert_eq!(code, EX_CONFIG);
    assert!(
        why.contains("missing/app.conf: No such file or directory: "),
        "{why}"
    );
    let (code, why) = open("file/app.conf").unwrap();
    assert_eq!(code, EX_CONFIG);
    assert!(why.contains("file/app.conf: Not a directory: "), "{why}");
    let (code, why) = open("master.pid").unwrap();
    assert_eq!(code, EX_USAGE);
    assert!(why.contains("by the master itself"), "{why}");
    fs::remove_dir_all(dir).unwrap();
}
