//! A rollout under way and the queues of the ports, as `status` tells them.

use super::json::quote;
use super::metrics::Queue;
use super::workers::list;
use crate::core::progress::Progress;
use crate::core::words::{self, human};

/// A line for people; nothing, if there is none.
pub fn text(rollout: Option<Progress>) -> String {
    let Some(p) = rollout else {
        return String::new();
    };
    format!(
        "rollout to generation {}: {}, {} of {} new workers ready, {} left, {}\n",
        p.to,
        p.stage.word(),
        p.new,
        p.of,
        words::count(p.old, "old worker"),
        human(p.took)
    )
}

/// The same as an object.
pub fn object(rollout: Option<Progress>) -> String {
    let Some(p) = rollout else {
        return "null".into();
    };
    format!(
        "{{\"to\":{},\"stage\":{},\"took\":{:.3},\"new\":{},\"of\":{},\"old\":{}}}",
        p.to,
        quote(p.stage.word()),
        p.took.as_secs_f64(),
        p.new,
        p.of,
        p.old
    )
}

/// Who waits at which port; `slot` where the queue is that slot's alone.
pub fn queues(all: &[Queue]) -> String {
    list(all.iter().map(|q| {
        let slot = q.slot.map_or("null".into(), |s| s.to_string());
        format!(
            "{{\"port\":{},\"slot\":{slot},\"queued\":{},\"limit\":{}}}",
            quote(&q.port),
            q.length,
            q.limit
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::SlotNr;
    use crate::core::progress::Stage;
    use std::time::Duration;

    #[test]
    fn one_under_way_is_a_line_and_an_object() {
        let p = Some(Progress {
            stage: Stage::Replacing,
            to: 8,
            took: Duration::from_millis(1200),
            new: 2,
            of: 4,
            old: 3,
        });
        assert_eq!(
            text(p),
            "rollout to generation 8: replacing, 2 of 4 new workers ready, 3 old workers left, 1.2s\n"
        );
        assert_eq!(
            object(p),
            "{\"to\":8,\"stage\":\"replacing\",\"took\":1.200,\"new\":2,\"of\":4,\"old\":3}"
        );
        assert_eq!((text(None), object(None)), ("".into(), "null".into()));
    }

    #[test]
    fn queues_are_those_of_ports_or_of_slots() {
        let queue = |slot: Option<u16>| Queue {
            port: "0.0.0.0:80".into(),
            slot: slot.map(SlotNr),
            length: 3,
            limit: 4096,
        };
        assert_eq!(
            queues(&[queue(None), queue(Some(1))]),
            "[{\"port\":\"0.0.0.0:80\",\"slot\":null,\"queued\":3,\"limit\":4096},\
             {\"port\":\"0.0.0.0:80\",\"slot\":1,\"queued\":3,\"limit\":4096}]"
        );
        assert_eq!(queues(&[]), "[]");
    }
}
