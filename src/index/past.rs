//! Versions by the event that made them: the history of a type and of the whole simulator.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tantivy::DocAddress;

use super::committed::packed;
use super::{Entry, View};
use crate::clock::EventId;
use crate::version::{Change, Made, Version};

/// Which versions.
#[derive(Clone, Debug)]
pub struct Span {
    /// Those that one of these events made first.
    pub events: RangeInclusive<EventId>,
    /// Those of resources of this type; none is all.
    pub type_name: Option<&'static str>,
    /// The oldest first.
    pub ascending: bool,
}

/// A version, in few bytes: its place among all, and where more is known of it.
type Moment = (Made, At);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Committed(u32, u32),
    Recent(usize),
}

impl View {
    /// How many versions there are in a span, and `count` of them in order, after `offset`; each with the uid of its resource.
    #[must_use]
    pub fn past(&self, span: &Span, offset: usize, count: usize) -> (usize, Vec<(Arc<str>, Version)>) {
        let mut found: Vec<Moment> = Vec::new();
        let type_number = span.type_name.and_then(|name| self.committed.type_number(name));
        let (from, to) = (span.events.start().to_u64(), span.events.end().to_u64());
        for (number, segment) in (0..).zip(self.committed.segments()) {
            segment.versions_between(from..=to, type_number, &mut |doc, made| {
                if !self.masked.contains(&packed(DocAddress::new(number, doc))) {
                    found.push((made, At::Committed(number, doc)));
                }
            });
        }
        let recent: Vec<_> = self.recent.versions().collect();
        let counts = |e: &Entry| !e.again && e.version.change != Change::Purge && span.events.contains(&e.version.made.event);
        for (n, entry) in recent.iter().enumerate().filter(|(_, e)| counts(e)) {
            if span.type_name.is_none_or(|name| name == entry.type_name) {
                found.push((entry.version.made, At::Recent(n)));
            }
        }
        found.sort_unstable();
        // Versions restored may have a place that others have.
        let event_of = |at: At| match at {
            At::Recent(n) => recent[n].version.event,
            At::Committed(segment, doc) => self.committed.segments()[segment as usize].time(doc).1,
        };
        for shared in found.chunk_by_mut(|a, b| a.0 == b.0).filter(|shared| shared.len() > 1) {
            shared.sort_by_key(|(_, at)| event_of(*at));
        }
        // A flush that failed after its commit was done again: the same version may be there twice.
        found.dedup_by(|a, b| a.0 == b.0 && event_of(a.1) == event_of(b.1));
        let total = found.len();
        if !span.ascending {
            found.reverse();
        }
        let page = found.into_iter().skip(offset).take(count).filter_map(|(_, at)| match at {
            At::Recent(n) => Some((recent[n].uid.clone(), recent[n].version)),
            At::Committed(segment, doc) => {
                let address = DocAddress::new(segment, doc);
                Some((self.committed.stored_uid(address)?, self.committed.hit(address).version))
            }
        });
        (total, page.collect())
    }
}
