//! Events are told in the order of their ids, though recorded reads are written off the request's path: one waits for those before
//! it that are on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::feed::{Feed, Happening};
use crate::clock::EventId;
use crate::simdb::EventRecord;
use crate::simdb::event_index::Row;

/// Longest that the end of a simulator waits for reads that are being recorded.
const PATIENCE: Duration = Duration::from_secs(2);

/// After so many milliseconds an event is no longer waited for.
const LATE_MS: i64 = 60_000;

/// What is on its way, and what waits for it.
#[derive(Debug, Default)]
pub(super) struct InOrder {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<EventId>,
    waiting: BTreeMap<EventId, (Row, Box<EventRecord>)>,
}

impl InOrder {
    /// Gives out the id of an event that is on its way from now on.
    pub(super) fn begin(&self, next: impl FnOnce() -> EventId) -> EventId {
        let mut state = self.state.lock();
        let event = next();
        state.pending.insert(event);
        event
    }

    /// An event has come to be, or (without a record) will never be: tells what need not wait any more.
    pub(super) fn end(&self, event: EventId, what: Option<(Row, Box<EventRecord>)>, feed: &Feed) {
        let mut state = self.state.lock();
        state.pending.remove(&event);
        // One that is so late has been lost to a fault; nobody is to wait for it for ever.
        state.pending.retain(|late| late.millis() + LATE_MS > event.millis());
        // Who begins to listen now reads the folders up to the first that is on its way; the others are to be told.
        let waits = state.pending.first().is_some_and(|first| *first < event);
        if let Some(what) = what.filter(|_| waits || feed.listeners() > 0 || !state.waiting.is_empty()) {
            state.waiting.insert(event, what);
        }
        let first = state.pending.first().copied();
        while let Some(next) = state.waiting.first_entry().filter(|next| first.is_none_or(|first| *next.key() < first)) {
            let (row, record) = next.remove();
            feed.tell(|| Happening::Event(row, record));
        }
        if state.pending.is_empty() {
            self.settled.notify_all();
        }
    }

    /// All events up to this one have come to be.
    pub(super) fn upto(&self) -> EventId {
        let first = self.state.lock().pending.first().copied();
        EventId::from_u64(first.map_or(u64::MAX, |first| first.to_u64() - 1))
    }

    /// Waits until nothing is on its way.
    pub(super) fn wait(&self) {
        let mut state = self.state.lock();
        let _ = self.settled.wait_while_for(&mut state, |state| !state.pending.is_empty(), PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Operation;

    #[test]
    fn what_waits_for_one_before_it_is_told_though_nobody_listened_yet() {
        let (order, feed) = (InOrder::default(), Feed::default());
        let [first, second] = [5, 6].map(|number| order.begin(|| EventId::from_u64(number)));
        let what = |event| {
            let record = EventRecord::default();
            Some((Row::of(&record, event, Operation::Put), Box::new(record)))
        };
        order.end(second, what(second), &feed);
        assert_eq!(order.upto(), EventId::from_u64(4));
        let mut heard = feed.wait();
        order.end(first, what(first), &feed);
        feed.tell(|| Happening::Reset);
        let next = || heard.blocking_recv().ok().and_then(|told| if let Happening::Event(row, _) = &told.what { Some(row.event) } else { None });
        assert_eq!(std::iter::from_fn(next).collect::<Vec<_>>(), [first, second]);
    }
}
