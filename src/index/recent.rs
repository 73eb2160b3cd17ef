//! What was written since the last flush, in memory.
//!
//! Persistent structures: cloning is O(1), so each write publishes a new picture and readers keep theirs. The search scans
//! the versions; a few thousand cost some tens of microseconds, and it spares every write an inverted index of its own.

use std::sync::Arc;

use super::Entry;

/// The versions written since the last flush.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    versions: imbl::Vector<Arc<Entry>>,
    latest: imbl::HashMap<Arc<str>, Arc<Entry>>,
}

impl Recent {
    /// Number of versions held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// Adds a version; later ones of the same resource replace it as the latest.
    pub fn push(&mut self, entry: Arc<Entry>) {
        self.latest.insert(entry.uid.clone(), entry.clone());
        self.versions.push_back(entry);
    }

    /// The latest version of a resource, a deletion too.
    #[must_use]
    pub fn latest(&self, uid: &str) -> Option<&Arc<Entry>> {
        self.latest.get(uid)
    }

    /// Every version held, in the order of writing.
    #[must_use]
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.versions.iter()
    }

    /// Resources as they are now, without the deleted ones.
    pub fn current(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.versions.iter().filter(|e| !e.version.is_deletion() && self.is_latest(e))
    }

    /// Latest versions, deletions too: what a flush must make current.
    pub fn latest_versions(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.versions.iter().filter(|e| self.is_latest(e))
    }

    pub(super) fn is_latest(&self, entry: &Arc<Entry>) -> bool {
        self.latest.get(&*entry.uid).is_some_and(|latest| Arc::ptr_eq(latest, entry))
    }
}
