//! A simulator as it was: pictures of past moments, kept for the next who asks.

use std::sync::Arc;

use parking_lot::Mutex;

use super::commit::Sim;
use super::snapshot::Snapshot;
use crate::clock::EventId;
use crate::fhir::Failure;

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
