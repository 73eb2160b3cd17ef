//! The event folders of a simulator as they are now: a snapshot, a reset or a deletion moves the directories away while they are read.
//!
//! What is short is read again then, from the one that has taken its place. For what takes long they are held: an open directory
//! stays what it is, and is not emptied while it is held, for ten minutes at most.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::commit::Sim;
use super::registry::Registry;
use crate::clock::EventId;
use crate::fhir::{Failure, Kind};
use crate::simdb::{SimDir, SimId};

/// How many are held; what was thrown away is removed when none is.
pub(super) type Holders = Arc<AtomicUsize>;

/// How often what moves away is read again.
const MOST_READS: usize = 32;

/// The directories of a simulator, held.
pub struct Held {
    /// Those that it builds on, each with the last event in it, the lowest first.
    layers: Vec<(EventId, SimDir)>,
    own: SimDir,
    _open: Vec<File>,
    _holder: Holder,
    _kept: Kept,
}

struct Holder(Holders);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Who writes a simulator out, and who removes some of it; also when it is opened anew meanwhile.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Held by who removes some of it, for as long as that takes.
    pub(super) forgetting: RwLock<()>,
    /// How many write it out: what they are of is not removed.
    pub(super) kept: AtomicUsize,
}

/// Keeps what somebody writes out from being forgotten, from the beginning of that on.
pub(super) struct Kept(Arc<Sim>);

impl Kept {
    pub(super) fn begin(sim: &Arc<Sim>) -> Self {
        // Not while something is being forgotten.
        let _none = sim.keeping.forgetting.read();
        sim.keeping.kept.fetch_add(1, Ordering::AcqRel);
        Self(sim.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.keeping.kept.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Sim {
    /// Holds its directories; retention waits for the end of that, too. If it is over by now, they are another's.
    ///
    /// # Errors
    /// The file system's.
    pub fn hold(self: &Arc<Self>) -> io::Result<Held> {
        let kept = Kept::begin(self);
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

impl Registry {
    /// What `read` finds in the simulator of that name. If it was sealed, emptied or deleted meanwhile, what was found, or was
    /// missing, is of no account: it is read from the one that has taken its place.
    ///
    /// # Errors
    /// There is none; those of `read`.
    pub fn read<T>(&self, id: &SimId, read: impl Fn(&Arc<Sim>) -> Result<T, Failure>) -> Result<T, Failure> {
        for _ in 0..MOST_READS {
            let sim = self.get(id)?;
            let found = read(&sim);
            if !sim.is_over() {
                return found;
            }
        }
        let message = format!("simulator {id} was sealed or emptied {MOST_READS} times while this was read; send it again when that is over");
        Err(Failure::new(Kind::TooMany, message))
    }
}

impl Held {
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
