//! Handovers: between two turns the state is written down, as the master does it for the binary that takes over, and
//! what is read goes on in its place. It is the same, to the last bit, or the run fails; and what would not be the
//! same later fails by all else that is looked at.

use crate::cover::Mark;
use crate::world::World;
use minicluster::core::Cluster;

/// Between so many turns there is one.
const TURNS: u64 = 40;

impl World {
    /// Perhaps there is one now.
    pub fn perhaps_hand_over(&mut self) {
        if self.handing.one_in(TURNS) {
            self.hand_over();
        }
    }

    /// There is.
    pub fn hand_over(&mut self) {
        let text = serde_json::to_string(&self.cluster).unwrap();
        let mut read: Cluster = serde_json::from_str(&text).unwrap();
        read.is_carried();
        assert_eq!(
            read.is_sound(),
            Ok(()),
            "what is read does not hold together"
        );
        let (was, is) = (format!("{:#?}", self.cluster), format!("{read:#?}"));
        if was != is {
            let other = was.lines().zip(is.lines()).find(|(a, b)| a != b);
            panic!("what is read is not what was written: {other:?}");
        }
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        self.cluster = read;
        self.cover.mark(Mark::HandedOver);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reloading::{busy, good, reload, serving};
    use crate::stories::{ms, of, secs};
    use minicluster::core::{Canary, Policy};

    const FIRST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/states/1.json");

    /// In the midst of a reload whose first new worker is watched.
    fn under_way() -> World {
        let canary = Canary {
            count: 1,
            watch: secs(2),
            share: 0,
        };
        let mut w = serving(Policy { canary, ..of(4) }, busy(), secs(8));
        reload(&mut w, good());
        w.run(ms(1500));
        w
    }

    /// What the first version has written is read by this one: what is new since has a default. (WRITE_STATE=1
    /// writes it anew, which only the first version should.)
    #[test]
    fn a_state_of_the_first_version_is_read() {
        if std::env::var_os("WRITE_STATE").is_some() {
            let text = serde_json::to_string(&under_way().cluster).unwrap();
            std::fs::write(FIRST, text + "\n").unwrap();
        }
        let text = std::fs::read_to_string(FIRST).unwrap();
        let mut read: Cluster = serde_json::from_str(&text).unwrap();
        read.is_carried();
        assert_eq!(read.is_sound(), Ok(()));
        assert!(read.is_reloading());
        assert_eq!((read.ready_count(), read.generation()), (4, 1));
        // Something that a later one has added is left out.
        let more = text.replacen('{', "{\"of_tomorrow\":[{\"x\":1}],", 1);
        assert!(serde_json::from_str::<Cluster>(&more).is_ok());
    }

    #[test]
    fn a_reload_goes_on_over_a_handover_at_every_moment() {
        for step in 0..40u32 {
            let mut w = under_way();
            w.run(ms(100) * step);
            w.hand_over();
            w.run(secs(20));
            assert_eq!(w.cluster.generation(), 2, "after {step} steps");
            assert_eq!(w.cluster.ready_count(), 4);
        }
    }
}
