//! What was written since the last flush, in memory.
//!
//! Persistent structures: cloning is O(1), so each write publishes a new picture and readers keep theirs. Versions come in
//! chunks. A full chunk gets an inverted index of its own when a search first looks at it, so that a write costs none and a
//! search of a few thousand recent versions looks at hardly more than the last chunk one by one.

use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Entry;
use crate::query::Query;

/// Versions of a full chunk.
const CHUNK: usize = 64;

/// The versions written since the last flush.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    full: imbl::Vector<Arc<Chunk>>,
    last: imbl::Vector<Arc<Entry>>,
    latest: imbl::HashMap<Arc<str>, Arc<Entry>>,
    /// Where the history of a resource begins that was rewritten: what was pushed before counts no more.
    rewritten: imbl::HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Chunk {
    entries: Vec<Arc<Entry>>,
    /// Positions by the hash of a term.
    by_term: OnceLock<FxHashMap<u64, SmallVec<[u16; 4]>>>,
}

impl Recent {
    /// Number of versions held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK + self.last.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.last.is_empty()
    }

    /// Adds a version; later ones of the same resource replace it as the latest.
    pub fn push(&mut self, entry: Arc<Entry>) {
        if entry.rewrites {
            self.rewritten.insert(entry.uid.clone(), self.len());
        }
        self.latest.insert(entry.uid.clone(), entry.clone());
        self.last.push_back(entry);
        if self.last.len() == CHUNK {
            let entries = std::mem::take(&mut self.last).into_iter().collect();
            self.full.push_back(Arc::new(Chunk { entries, by_term: OnceLock::new() }));
        }
    }

    /// The latest version of a resource, a deletion too.
    #[must_use]
    pub fn latest(&self, uid: &str) -> Option<&Arc<Entry>> {
        self.latest.get(uid)
    }

    /// All that was pushed, in order.
    #[must_use]
    pub fn pushed(&self) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.full.iter().flat_map(|chunk| chunk.entries.iter()).chain(self.last.iter())
    }

    /// Every version held, in the order of writing, but for those that a rewritten history has left behind.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let counts = |at: usize, entry: &Entry| self.rewritten.is_empty() || self.rewritten.get(&*entry.uid).is_none_or(|begins| at >= *begins);
        self.pushed().enumerate().filter(move |(at, entry)| counts(*at, entry)).map(|(_, entry)| entry)
    }

    /// The resources whose history was rewritten.
    pub fn rewritten(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rewritten.keys()
    }

    /// Whether the history of a resource was rewritten: then what is here is all of it.
    #[must_use]
    pub fn is_rewritten(&self, uid: &str) -> bool {
        self.rewritten.contains_key(uid)
    }

    /// Latest versions, deletions too: what a flush must make current.
    pub fn latest_versions(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.versions().filter(|e| self.is_latest(e))
    }

    /// Calls `found` for every resource, as it is now, that `query` may want; what has none of the terms that it cannot do
    /// without is left out.
    pub fn candidates(&self, query: &Query, found: &mut dyn FnMut(&Arc<Entry>)) {
        let mut current = |entry: &Arc<Entry>| {
            if !entry.version.is_deletion() && self.is_latest(entry) {
                found(entry);
            }
        };
        let needed = query.needed_terms();
        for chunk in &self.full {
            match &needed {
                Some(hashes) => chunk.positions(hashes).into_iter().for_each(|at| current(&chunk.entries[usize::from(at)])),
                None => chunk.entries.iter().for_each(&mut current),
            }
        }
        self.last.iter().for_each(current);
    }

    fn is_latest(&self, entry: &Arc<Entry>) -> bool {
        self.latest.get(&*entry.uid).is_some_and(|latest| Arc::ptr_eq(latest, entry))
    }
}

impl Chunk {
    /// The entries that have one of the terms, each once.
    fn positions(&self, hashes: &[u64]) -> Vec<u16> {
        let by_term = self.by_term.get_or_init(|| {
            let mut map: FxHashMap<u64, SmallVec<[u16; 4]>> = FxHashMap::default();
            for (at, entry) in (0..).zip(&self.entries) {
                for hash in entry.keys.term_hashes() {
                    map.entry(*hash).or_default().push(at);
                }
            }
            map
        });
        let mut found: Vec<u16> = hashes.iter().filter_map(|h| by_term.get(h)).flatten().copied().collect();
        if hashes.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        found
    }
}
