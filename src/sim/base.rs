//! What simulators build on: the directory that a snapshot sealed, opened once for all of them and never written again.

use std::io;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::lifecycle::{Opened, Sealed};
use super::registry::Shared;
use crate::clock::EventId;
use crate::index::Committed;
use crate::simdb::event_index::EventIndex;
use crate::simdb::scan::Damage;
use crate::simdb::{BaseId, SimDir};

/// Most bases that lie on one another.
pub const MAX_DEPTH: usize = 64;

/// A base that is open.
#[derive(Debug)]
pub struct Base {
    /// This one and those below, the lowest first: each with its last event.
    pub(super) layers: Vec<Layer>,
    /// All of them, indexed.
    pub(super) committed: Committed,
    /// The last event, reads aside.
    pub(super) last: EventId,
    /// How many events there were, reads aside.
    pub(super) sequence: u64,
    /// Event folders that cannot be used, of those below too.
    pub(super) damages: Vec<Damage>,
}

/// One of the directories that a simulator builds on.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its last event: what came later lies above.
    pub last: EventId,
    /// The directory.
    pub dir: SimDir,
    /// What happened, by what.
    pub events: Arc<EventIndex>,
}

/// The bases that are open.
pub(super) type Bases = Mutex<FxHashMap<BaseId, Weak<Base>>>;

/// The file that says that all of a base is on the disk.
const SYNCED: &str = "synced";

impl Base {
    /// The base of that name, opened if nobody has it open.
    pub(super) fn open(shared: &Arc<Shared>, id: &BaseId) -> io::Result<Arc<Self>> {
        // Held while it is opened: another that wants it waits, and opens it no second time.
        let mut open = shared.bases.lock();
        Self::open_locked(shared, id, &mut open, 0)
    }

    fn open_locked(shared: &Arc<Shared>, id: &BaseId, open: &mut FxHashMap<BaseId, Weak<Self>>, depth: usize) -> io::Result<Arc<Self>> {
        if let Some(base) = open.get(id).and_then(Weak::upgrade) {
            return Ok(base);
        }
        let dir = SimDir::of_base(&shared.root, id);
        let profile = super::registry::read_profile(&dir)?;
        let below = match &profile.base {
            Some(_) if depth >= MAX_DEPTH => return Err(io::Error::other(format!("more than {MAX_DEPTH} bases lie on one another"))),
            Some(below) => Some(Self::open_locked(shared, below, open, depth + 1)?),
            None => None,
        };
        let source = std::fs::read_to_string(dir.root().join("simid.txt"))?.trim().parse().map_err(|_| io::Error::other("simid.txt names no simulator"))?;
        let sealed = Sealed { synced: dir.root().join(SYNCED).exists() };
        let Opened { store, snapshot, events, damages, last_id } = Opened::open(shared, &source, dir, &profile, below, Some(&sealed))?;
        let committed = if snapshot.view.recent.is_empty() {
            snapshot.view.committed.clone()
        } else {
            snapshot.view.committed.flush(&snapshot.view.recent, snapshot.payload(&shared.boot), &|entry| snapshot.body_of(entry))?
        };
        let mut layers = store.layers.clone();
        layers.push(Layer { last: last_id, dir: store.dir.clone(), events: Arc::new(events) });
        for damage in &damages {
            tracing::error!(base = %id, event = damage.folder, reason = damage.reason, "event set aside: it is not what was written");
        }
        let damages = store.base.as_ref().map(|below| below.damages.clone()).unwrap_or_default().into_iter().chain(damages).collect();
        let base = Arc::new(Self { layers, committed, last: snapshot.last, sequence: snapshot.sequence, damages });
        open.retain(|_, base| base.strong_count() > 0);
        open.insert(id.clone(), Arc::downgrade(&base));
        Ok(base)
    }
}

/// Makes what lies in a base survive a power loss, and says so in it.
pub(super) fn sync(shared: &Arc<Shared>, id: &BaseId) {
    let synced = std::fs::File::open(&shared.root).and_then(|root| rustix::fs::syncfs(&root).map_err(io::Error::from));
    let said = synced.and_then(|()| std::fs::write(SimDir::of_base(&shared.root, id).root().join(SYNCED), ""));
    if let Err(error) = said {
        tracing::warn!(%id, %error, "the base is indexed anew if the machine stops now");
    }
}
