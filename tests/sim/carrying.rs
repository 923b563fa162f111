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
