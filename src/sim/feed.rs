//! What happens in a simulator, told as it happens: to requests that wait for an event, and to live streams.
//!
//! The feed belongs to the name, not to the open simulator: it goes on when that is closed and opened again, or emptied.

use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;

use super::log::LogEntry;
use crate::clock::EventId;
use crate::simdb::EventRecord;
use crate::simdb::event_index::Row;

/// Happenings that a listener may be behind; a slower one is told that it missed some.
const KEPT: usize = 1_024;

/// Something that happened.
#[derive(Debug)]
pub enum Happening {
    /// An event folder came to be.
    Event(Row, Box<EventRecord>),
    /// A read or a search that is in the request log only.
    Read(LogEntry),
    /// A marker was set.
    Marker(String, EventId),
    /// The simulator was emptied, or became what a snapshot was.
    Reset,
}

/// The same for those who listen.
#[derive(Debug)]
pub struct Told {
    /// What happened.
    pub what: Happening,
    text: OnceLock<Arc<str>>,
}

impl Told {
    /// What a stream says of it, which `make` makes for the first that asks.
    pub fn text(&self, make: impl FnOnce() -> String) -> Arc<str> {
        self.text.get_or_init(|| make().into()).clone()
    }
}

/// The live feed of a simulator.
#[derive(Clone, Debug)]
pub struct Feed(broadcast::Sender<Arc<Told>>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Feed {
    /// Tells what happened; `what` is made only if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> Happening) {
        if self.0.receiver_count() > 0 {
            // Those who left in between need not be told.
            let _ = self.0.send(Arc::new(Told { what: what(), text: OnceLock::new() }));
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        self.0.subscribe()
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }
}
