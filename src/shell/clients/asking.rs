//! Those of the clients that speak HTTP: what they ask, one request after the other, and what they are
//! answered.

use super::super::doors::Gate;
use super::one::Http;
use super::{ClientId, Clients, FIRST_LINE, LINGER, NEXT_REQUEST};
use crate::core::Time;
use crate::wire::dialogue::Turn;
use crate::wire::door::{Door, House};
use crate::wire::http::response::Way;
use crate::wire::routes::What;

impl Clients {
    fn http(&self, id: ClientId) -> Option<&Http> {
        self.map.get(&id)?.http.as_deref()
    }

    fn http_mut(&mut self, id: ClientId) -> Option<&mut Http> {
        self.map.get_mut(&id)?.http.as_deref_mut()
    }

    /// Where it came in; one that has gone has no rights.
    pub fn door(&self, id: ClientId) -> Door {
        match self.map.get(&id).map(|c| c.gate) {
            Some(Gate::Socket) => Door::Control,
            Some(Gate::Monitor | Gate::Port) | None => Door::Tcp,
        }
    }

    /// The next step of one that speaks HTTP.
    pub fn turn(&mut self, id: ClientId, house: &House<'_>, at: u64) -> Turn {
        let door = self.door(id);
        let Some(c) = self.map.get_mut(&id) else {
            return Turn::Wait;
        };
        match &mut c.http {
            Some(http) => http.dialogue.turn(door, house, Some(at)),
            None => Turn::Wait,
        }
    }

    /// What it has said already is to be looked at.
    pub fn look_again(&mut self, id: ClientId) {
        if let Some(http) = self.http_mut(id) {
            http.due = true;
        }
    }

    /// Is the answer that it waits for JSON?
    pub fn as_json(&mut self, id: ClientId, json: bool) {
        if let Some(http) = self.http_mut(id) {
            http.json = json;
        }
    }

    /// The same, told.
    pub fn is_json(&self, id: ClientId) -> bool {
        self.http(id).is_some_and(|h| h.json)
    }

    /// That is what it has asked.
    pub fn asked(&mut self, id: ClientId, what: What, way: Way) {
        if let Some(http) = self.http_mut(id) {
            http.asked = Some((what, way));
        }
    }

    /// What it has asked, if it speaks HTTP: to be answered once.
    pub fn take_asked(&mut self, id: ClientId) -> Option<(What, Way)> {
        self.http_mut(id)?.asked.take()
    }

    /// Does it speak HTTP?
    pub fn speaks_http(&self, id: ClientId) -> bool {
        self.http(id).is_some()
    }

    /// Has a request of it begun that is not whole, and is nothing else on its way to it? (What were said then would
    /// stand in the middle of that.)
    pub fn is_asking(&self, id: ClientId) -> bool {
        let Some(c) = self.map.get(&id) else {
            return false;
        };
        let has_all = c.output.is_empty() && c.body.is_none();
        has_all && c.http.as_ref().is_some_and(|h| !h.dialogue.is_idle())
    }

    /// An answer over HTTP, and whether another request may follow. False: it is gone.
    pub fn answer_http(&mut self, id: ClientId, bytes: &[u8], goes_on: bool, now: Time) -> bool {
        let Some(c) = self.map.get_mut(&id) else {
            return false;
        };
        if c.output.is_empty() {
            c.first = bytes.len();
        }
        c.output.extend_from_slice(bytes);
        let asks = c.http.as_ref().is_some_and(|h| !h.dialogue.is_idle());
        c.say_by = match (goes_on, asks) {
            (true, false) => now + NEXT_REQUEST,
            // It has begun the next one, perhaps long ago.
            (true, true) => now + FIRST_LINE,
            (false, _) => now + LINGER,
        };
        c.speaks(now);
        if let Some(http) = c.http.as_mut().filter(|_| !goes_on) {
            http.dialogue.end();
        }
        c.last |= !goes_on;
        self.push(id)
    }

    /// What it has asked has no end but that of the connection: it asks nothing more.
    pub fn streams(&mut self, id: ClientId) {
        if let Some(http) = self.http_mut(id) {
            http.dialogue.end();
        }
    }
}
