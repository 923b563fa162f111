//! The table is whole, and what is told of it is.

use super::*;
use crate::wire::json;

fn report(what: Mechanism, state: State) -> Report {
    let mut r = Report {
        takeover: true,
        ..Report::default()
    };
    r.is(what, state);
    for row in &ROWS {
        r.is(row.what, State::Ok(String::new()));
    }
    r
}

#[test]
fn each_mechanism_has_one_row_and_one_name() {
    for (n, row) in ROWS.iter().enumerate() {
        // In the order of the variants: so there is one of each.
        assert_eq!(row.what as usize, n, "{}", row.name);
        assert!(ROWS.iter().skip(n + 1).all(|r| r.name != row.name));
        assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    }
    assert_eq!(ROWS.len(), Mechanism::Cgroup as usize + 1);
}

#[test]
fn what_is_refused_is_told_with_what_is_lost_and_what_to_add_and_nothing_else_is() {
    for row in &ROWS {
        for state in [
            State::Refused(1),
            State::Refused(38),
            State::Kills(31),
            State::Hangs,
        ] {
            let r = report(row.what, state);
            let text = r.text();
            assert_eq!(text.matches("  refused  ").count(), 1, "{text}");
            assert!(
                text.contains(&format!("    lost: {}\n", row.lost)),
                "{text}"
            );
            let add = text
                .lines()
                .find_map(|l| l.strip_prefix("    add: "))
                .unwrap();
            assert!(add.len() > 20, "{add}");
            let v = json::parse(&r.json()).unwrap();
            let rows: &Vec<tinyjson::JsonValue> = v["mechanisms"].get().unwrap();
            let refused: Vec<&String> = rows
                .iter()
                .filter(|m| m["state"].get::<String>().unwrap() == "refused")
                .map(|m| m["name"].get().unwrap())
                .collect();
            assert_eq!(refused, [row.name]);
        }
    }
}

#[test]
fn the_verdict_names_what_is_in_the_way() {
    let r = report(M::Getfd, State::Refused(1));
    let text = r.text();
    let said = text.lines().last().unwrap();
    assert!(
        said.starts_with("verdict: it would start; takeover yes; reload without loss yes; gentle drain no (pidfd-getfd)"),
        "{said}"
    );
    let said = report(M::Hold, State::Refused(1)).text();
    assert!(said.contains("gentle drain no (hold-requests)"), "{said}");
    assert!(said.contains("--cap-add NET_ADMIN"), "{said}");
    let mut r = report(M::Notify, State::Refused(16));
    r.problems.push((71, "takeover".into()));
    r.problems.push((75, "later".into()));
    assert_eq!(r.code(), 71);
    assert!(
        r.text()
            .contains("it would not start (exit 71); takeover no (seccomp-notify)")
    );
    let v = json::parse(&r.json()).unwrap();
    assert_eq!(v["verdict"]["takeover"].get::<bool>(), Some(&false));
    assert_eq!(v["code"].get::<f64>(), Some(&71.0));
}

#[test]
fn the_remedy_hangs_on_who_has_taken_it_away() {
    let told = |what, errno, around: Around| {
        let mut r = report(what, State::Refused(errno));
        r.around = around;
        r.text()
    };
    let with = |ptrace, yama| Around {
        ptrace,
        yama,
        ..Around::default()
    };
    assert!(told(M::Getfd, 1, with(false, None)).contains("--cap-add SYS_PTRACE"));
    assert!(
        told(M::Getfd, 1, with(false, Some(2))).contains("kernel.yama.ptrace_scope=1 (it is 2)")
    );
    assert!(!told(M::Getfd, 1, with(true, None)).contains("--cap-add SYS_PTRACE"));
    assert!(told(M::Notify, 16, with(true, None)).contains("outer supervisor"));
    assert!(told(M::Notify, 22, with(true, None)).contains("gVisor"));
    let small = Around {
        optmem: Some(20480),
        ..Around::default()
    };
    assert!(told(M::Steering, 12, small).contains("optmem_max=131072 (it is 20480)"));
    assert!(told(M::Ids, 1, with(false, None)).contains("--cap-add SETUID --cap-add SETGID"));
}
