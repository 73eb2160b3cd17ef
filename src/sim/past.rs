//! What happened in a simulator, in what it builds on too, and the simulator as it was: pictures of past moments, kept for the next who asks.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::commit::Sim;
use super::snapshot::Snapshot;
use crate::clock::EventId;
use crate::fhir::Failure;
use crate::simdb::SimDir;
use crate::simdb::event_index::{EventIndex, Filter};
use crate::version::Operation;

/// Pictures kept; each holds what changed since, up to some ten thousand resources.
const KEPT: usize = 4;

/// The pictures that were made last, each with the event it was made after.
#[derive(Debug, Default)]
pub(super) struct Past(Mutex<Vec<(EventId, Arc<Snapshot>)>>);

impl Past {
    /// Forgets them.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

impl Sim {
    /// The first `most` events that may be meant, in a span of events both ends of which are in it; those of what it builds on,
    /// too.
    ///
    /// # Errors
    /// The file system's.
    pub fn find_events(&self, filter: &Filter, span: (EventId, EventId), newest_first: bool, most: usize) -> io::Result<Vec<(EventId, Operation)>> {
        // What lies above is later than all below.
        let below = self.store.layers.iter().map(|layer| &*layer.events);
        let mut layers: Vec<&EventIndex> = below.chain([&self.events]).collect();
        if newest_first {
            layers.reverse();
        }
        let mut found = Vec::new();
        for events in layers {
            if found.len() < most {
                found.extend(events.find(filter, span, newest_first, most - found.len())?);
            }
        }
        Ok(found)
    }

    /// The directory that holds an event: its own, or one that it builds on.
    #[must_use]
    pub fn dir_of(&self, event: EventId) -> &SimDir {
        self.store.dir_of(event)
    }

    /// Whether an event happened in what it builds on.
    #[must_use]
    pub fn is_inherited(&self, event: EventId) -> bool {
        self.store.layers.last().is_some_and(|layer| event <= layer.last)
    }

    /// It as it was right after `event`, ready to be searched.
    ///
    /// # Errors
    /// Too much changed since, or a file cannot be read.
    pub fn as_of(&self, event: EventId) -> Result<Arc<Snapshot>, Failure> {
        let now = self.snapshot();
        let is_of_now = |made: EventId, then: &Snapshot| made == now.last_event() && then.indexed_with == now.indexed_with;
        let known = self.past.0.lock().iter().find(|(made, then)| then.is_of(event) && is_of_now(*made, then)).map(|(_, then)| then.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        let then = Arc::new(now.as_of(event)?);
        let mut kept = self.past.0.lock();
        kept.retain(|(_, other)| !other.is_of(event));
        kept.truncate(KEPT - 1);
        kept.insert(0, (now.last_event(), then.clone()));
        Ok(then)
    }
}
