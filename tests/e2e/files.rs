//! Files that a cluster reads and leaves: options in a file, pid files, the log.

use crate::client::{all_answer, v4};
use crate::harness::{Rig, Words};
use crate::place::{Place, Said, free_port, run};
use std::time::{Duration, Instant};

/// Types this where no cluster is.
fn alone(place: &Place, words: impl Words) -> Said {
    let mut cmd = place.command();
    cmd.args(words.words());
    run(cmd, Instant::now() + Duration::from_secs(30))
}

/// Types this where a rig's cluster is, without -C.
fn typed(rig: &Rig, words: impl Words) -> Said {
    let mut cmd = rig.command();
    cmd.args(words.words());
    run(cmd, rig.deadline())
}

#[test]
fn options_in_a_file_start_a_cluster_and_find_it() {
    let port = free_port();
    let text = format!("# the shop\nworkers 3\nport = {port}\nname shop\nenv A=file\nenv B=file\n");
    let words = "--config app.conf --env B=typed -n 2 -- ./threaded --env";
    let mut rig = Rig::dressed(words, |_, dir| {
        std::fs::write(dir.join("app.conf"), text).unwrap();
    });
    rig.up();
    let said = typed(&rig, "--config app.conf status --json");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("\"name\":\"shop\""), "{said:?}");
    all_answer(&rig, v4(port), "/", 2);
    let told = crate::client::get(v4(port), "/env").unwrap();
    assert_eq!(
        (told.env("A"), told.env("B")),
        (Some("file"), Some("typed"))
    );
    rig.end(&[]);
}

#[test]
fn what_is_wrong_in_a_file_of_options_is_told_with_its_line() {
    let place = Place::new();
    std::fs::write(place.dir.join("app.conf"), "port 80\n\nwokers 4\n").unwrap();
    let said = alone(&place, "--config app.conf -- ./threaded");
    let want = "minicluster: app.conf:3: unknown option 'wokers'; did you mean workers?\n";
    assert_eq!((said.code, said.err.as_str()), (78, want));
    let said = alone(&place, "--config none.conf status");
    let want = "minicluster: --config none.conf: No such file or directory\n";
    assert_eq!((said.code, said.err.as_str()), (78, want));
    let said = alone(&place, "--config /dev/zero -- ./threaded");
    assert_eq!(said.code, 78);
    assert!(said.err.contains("longer than 1048576 bytes"), "{said:?}");
}
