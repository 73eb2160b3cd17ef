//! The event folders of a simulator as they are now, for what takes long to read them all: a snapshot, a reset or a deletion
//! moves the directories away meanwhile, but an open directory stays what it is, and is not emptied while it is held, for ten minutes at most.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLockReadGuard;

use super::commit::Sim;
use crate::clock::EventId;
use crate::simdb::SimDir;

/// How many are held; what was thrown away is removed when none is.
pub(super) type Holders = Arc<AtomicUsize>;

/// The directories of a simulator, held.
pub struct Held<'s> {
    /// Those that it builds on, each with the last event in it, the lowest first.
    layers: Vec<(EventId, SimDir)>,
    own: SimDir,
    _open: Vec<File>,
    _holder: Holder,
    _kept: RwLockReadGuard<'s, ()>,
}

struct Holder(Holders);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Sim {
    /// Holds its directories; retention waits for the end of that, too.
    ///
    /// # Errors
    /// The file system's.
    pub fn hold(&self) -> io::Result<Held<'_>> {
        let kept = self.exports.read();
        self.store.holders.fetch_add(1, Ordering::SeqCst);
        let holder = Holder(self.store.holders.clone());
        let mut open = Vec::new();
        let mut hold = |dir: &SimDir| {
            let file = File::open(dir.root())?;
            let held = SimDir::opened(&file);
            open.push(file);
            io::Result::Ok(held)
        };
        let layers = self.store.layers.iter().map(|layer| Ok((layer.last, hold(&layer.dir)?))).collect::<io::Result<_>>()?;
        let own = hold(&self.store.dir)?;
        Ok(Held { layers, own, _open: open, _holder: holder, _kept: kept })
    }
}

impl Held<'_> {
    /// The directory that holds an event.
    #[must_use]
    pub fn dir_of(&self, event: EventId) -> &SimDir {
        self.layers.iter().find(|(last, _)| event <= *last).map_or(&self.own, |(_, dir)| dir)
    }

    /// The directory of what it does not build on.
    #[must_use]
    pub fn own(&self) -> &SimDir {
        &self.own
    }
}
