//! The verbs about rotation: taking the cluster out of it and putting it back, and how it stands. Core
//! decides; here are the words.

use super::Shell;
use super::clients::ClientId;
use super::requests::Answer;
use crate::core::codes::FAILED;
use crate::core::{By, Event, Ground, Standing};
use crate::wire::rotation;

impl Shell {
    /// A client takes it out, or puts it back.
    pub(super) fn rotate_for(
        &mut self,
        id: ClientId,
        enable: bool,
        words: &[&str],
        json: bool,
    ) -> Answer {
        let why = match words {
            [] => "asked by a client".to_string(),
            // It is shown by probes and on terminals, as one line.
            some => some.join(" ").replace(char::is_control, "?"),
        };
        let before = self.cluster.rotation().why;
        self.rotate(enable, why, Some(self.clients.by(id)));
        let stopping = self.cluster.health() == Ground::Stopping;
        (0, rotation::rotated(enable, &before, stopping, json))
    }

    /// Whoever it is: what asks next hears how it stands then.
    pub(super) fn rotate(&mut self, enable: bool, why: String, by: Option<By>) {
        self.queue.push_back(Event::Rotate { enable, why, by });
    }

    /// Do the workers do?
    pub(super) fn health(&self, json: bool) -> Answer {
        let ground = self.cluster.health();
        let code = match ground {
            Ground::Well => 0,
            Ground::Starting { .. }
            | Ground::TooFew { .. }
            | Ground::Unchecked { .. }
            | Ground::Discontent { .. }
            | Ground::Stopping
            | Ground::Asked { .. } => FAILED,
        };
        (code, rotation::health(&ground, json))
    }

    /// May clients be sent here?
    pub(super) fn ecv(&self, json: bool) -> Answer {
        let r = self.cluster.rotation();
        let code = match r.state {
            Standing::Available => 0,
            Standing::Warning | Standing::Disabled => FAILED,
        };
        (code, rotation::ecv(&r, self.now(), json))
    }
}
