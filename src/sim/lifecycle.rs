//! A simulator is opened, kept flushed, and closed.
//!
//! Opening replays the events that the index lacks. A clean stop leaves `tail.json`, which names them, so that a simulator
//! of many events opens without listing its directories.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::UNIX_EPOCH;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::base::Base;
use super::commit::Sim;
use super::dispose;
use super::order::InOrder;
use super::past::Past;
use super::profile::{Profile, Settings};
use super::registry::Shared;
use super::slot::Slot;
use super::snapshot::{Snapshot, Store};
use crate::clock::{Clock, EventId};
use crate::fhir::{Definitions, VersionId, instant};
use crate::index::{Committed, Entry, Payload, View};
use crate::simdb::event_index::EventIndex;
use crate::simdb::scan::{self, Damage};
use crate::simdb::write::{prepare, replace_file};
use crate::simdb::{EventRecord, SimDir, SimId};
use crate::version::{Made, Operation, Place, Version};

/// Recent versions that make a flush worth while.
pub const FLUSH_AT: usize = 1_000;
/// Recent versions that are flushed even if the last flush was just now: fewer and greater flushes cost fewer merges.
const FLUSH_NOW_AT: usize = 4_000;
/// How long after a flush the next one waits for more to come together.
const FLUSH_EVERY_MS: i64 = 3_000;
/// Recent versions beyond which writers wait for the flush.
const WAIT_AT: usize = 10_000;
/// Recent versions that a simulator at rest may keep: about what can be replayed in the time of a first request.
const REST_AT: usize = 64;
/// How long a simulator must have been at rest.
const REST_MS: i64 = 3_000;

/// What a clean stop knows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tail {
    /// The last event in the index.
    index_event: String,
    last_event: String,
    /// The last id given out, to a recorded read perhaps.
    last_id: String,
    sequence: u64,
    counts: BTreeMap<String, u64>,
    /// Events after that, oldest first: `POST/2026_...`.
    events: Vec<String>,
    /// Modification times of the operations' directories, in nanoseconds: another means that somebody was there.
    directories: BTreeMap<String, u64>,
    /// How long the event index is, if it has all events.
    #[serde(default)]
    event_index: Option<u64>,
}

/// What the list of simulators shows of one that is not open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Events, reads aside.
    pub events: u64,
    /// The last of them.
    pub last_event: Option<String>,
    /// Current resources by type.
    pub counts: BTreeMap<String, u64>,
}

/// Keeps one simulator flushed.
pub(super) struct Flusher {
    me: Weak<Sim>,
    queue: Sender<Weak<Sim>>,
    queued: AtomicBool,
    last_write_ms: AtomicI64,
    last_flush_ms: AtomicI64,
    clock: Clock,
    gate: Mutex<()>,
    flushed: Condvar,
    /// Held by the one flush that goes on, and by whoever must not meet one.
    pub(super) running: Mutex<()>,
    /// Whether the last flush failed.
    failed: AtomicBool,
}

impl Flusher {
    /// Whether a writer would have to wait for a flush.
    pub(super) fn must_wait(snapshot: &Snapshot) -> bool {
        snapshot.view.recent.len() >= WAIT_AT
    }

    /// Waits while the index has too much to catch up; `false` if it cannot, because the disk refuses.
    pub(super) fn wait(&self, published: &ArcSwap<Snapshot>, closed: &AtomicBool) -> bool {
        if !Self::must_wait(&published.load()) {
            return true;
        }
        let mut gate = self.gate.lock();
        while Self::must_wait(&published.load()) && !closed.load(Ordering::Relaxed) {
            self.ask();
            let told = !self.flushed.wait_for(&mut gate, std::time::Duration::from_millis(200)).timed_out();
            if told && self.failed.load(Ordering::Relaxed) && Self::must_wait(&published.load()) {
                return false;
            }
        }
        true
    }

    /// Tells that a write left this many recent versions.
    pub(super) fn wrote(&self, recent: usize) {
        let now_ms = self.clock.now_ms();
        self.last_write_ms.store(now_ms, Ordering::Relaxed);
        let rested = now_ms - self.last_flush_ms.load(Ordering::Relaxed) >= FLUSH_EVERY_MS;
        if recent >= FLUSH_NOW_AT || (recent >= FLUSH_AT && rested) {
            self.ask();
        }
    }

    /// Tells that what was asked for is being done: whoever asks from now on asks for more.
    pub(super) fn taken_up(&self) {
        self.queued.store(false, Ordering::Release);
    }

    pub(super) fn ask(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let _ = self.queue.send(self.me.clone());
        }
    }
}

/// How a base was sealed.
pub(super) struct Sealed {
    /// Whether all of it was on the disk afterwards.
    pub(super) synced: bool,
}

/// What a directory holds, read and ready to be searched.
pub(super) struct Opened {
    pub(super) store: Arc<Store>,
    pub(super) snapshot: Snapshot,
    pub(super) events: EventIndex,
    pub(super) damages: Vec<Damage>,
    /// The last event id given out, to a recorded read perhaps.
    pub(super) last_id: EventId,
}

impl Opened {
    /// Opens the directory of a simulator, or of what a snapshot sealed of one: that is left as it is.
    pub(super) fn open(shared: &Arc<Shared>, id: &SimId, dir: SimDir, profile: &Profile, base: Option<Arc<Base>>, sealed: Option<&Sealed>) -> io::Result<Self> {
        let version = profile.version();
        let tail = Tail::read(&dir);
        let clean = sealed.map_or(tail.is_some(), |sealed| sealed.synced && tail.is_some());
        let committed = Committed::open(&dir.index(), version, &shared.boot, clean, base.as_ref().map(|b| &b.committed))?;
        if sealed.is_none() {
            let _ = fs::remove_file(dir.tail());
        }
        let store = Arc::new(Store {
            sim: id.clone(),
            version,
            own_path: format!("/sim/{id}/fhir/"),
            search_steps: shared.search_steps.clone(),
            holders: shared.holders.clone(),
            bodies: shared.bodies.clone(),
            serial: shared.serial.fetch_add(1, Ordering::Relaxed),
            dir,
            layers: base.as_ref().map(|b| b.layers.clone()).unwrap_or_default(),
            base,
        });
        let tail = tail.filter(|t| t.index_event == committed.payload().last_event);
        let last_id = tail.as_ref().and_then(|t| t.last_id.parse().ok()).unwrap_or(EventId::ZERO);
        // Of a directory without events there is nothing to compare.
        let indexed = tail.as_ref().map_or_else(|| directories(&store.dir).is_empty().then_some(0), |t| t.event_index);
        let events = EventIndex::new(store.dir.clone(), &shared.boot, indexed);
        let (snapshot, damages, listed) = replay(&store, profile.settings.clone(), committed, tail, &shared.boot)?;
        let below = store.layers.last().map_or(EventId::ZERO, |layer| layer.last);
        let last_id = snapshot.last.max(last_id).max(listed).max(below);
        Ok(Self { store, snapshot, events, damages, last_id })
    }
}

impl Sim {
    /// Opens the simulator in its directory.
    pub(super) fn open(shared: &Arc<Shared>, id: &SimId, profile: Profile, slot: &Slot) -> io::Result<Arc<Self>> {
        let dir = SimDir::new(&shared.root, id);
        prepare(&dir)?;
        let swept = scan::sweep(&dir)?;
        if swept > 0 {
            tracing::warn!(sim = %id, swept, "removed what was being written when the last server ended; it was never acknowledged");
        }
        let base = profile.base.as_ref().map(|base| Base::open(shared, base)).transpose()?;
        let Opened { store, mut snapshot, events, damages, last_id } = Opened::open(shared, id, dir, &profile, base, None)?;
        let mut damages = known_damages(&store.dir, damages);
        for damage in &damages {
            tracing::error!(sim = %id, event = damage.folder, reason = damage.reason, "event set aside: it is not what was written");
        }
        damages.extend(store.base.iter().flat_map(|base| base.damages.iter().cloned()));
        let stale = snapshot.follow_params();
        let sim = Arc::new_cyclic(|me| Self {
            store,
            profile: ArcSwap::from_pointee(profile),
            published: ArcSwap::from_pointee(snapshot),
            writer: Mutex::new(()),
            last_id: AtomicU64::new(last_id.to_u64()),
            clock: shared.clock.clone(),
            journal: shared.journal.clone(),
            flusher: Flusher {
                me: me.clone(),
                queue: shared.flushes.clone(),
                queued: AtomicBool::new(false),
                last_write_ms: AtomicI64::new(shared.clock.now_ms()),
                last_flush_ms: AtomicI64::new(0),
                clock: shared.clock.clone(),
                gate: Mutex::new(()),
                flushed: Condvar::new(),
                running: Mutex::new(()),
                failed: AtomicBool::new(false),
            },
            damages,
            stale_params: AtomicBool::new(stale),
            following: Mutex::new(()),
            progress: super::reindex::Shown::default(),
            heavy: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            saved: Mutex::new(EventId::ZERO),
            gone: AtomicBool::new(false),
            order: InOrder::default(),
            log: slot.log.clone(),
            events,
            feed: slot.feed.clone(),
            usage: slot.usage.clone(),
            past: Past::default(),
            // Not at once: who opens it to look is not to find less.
            retained_ms: AtomicI64::new(shared.clock.now_ms()),
            keeping: slot.keeping.clone(),
            faults: slot.faults.clone(),
        });
        if sim.finish_forgetting(&shared.boot)? {
            tracing::warn!(sim = %id, "removed the rest of what was to be forgotten when the last server ended");
        }
        if stale {
            sim.flusher.ask();
        }
        Ok(sim)
    }

    /// Moves the recent writes into the index; called by the flushing threads.
    pub(super) fn flush(&self, boot: &str) -> io::Result<()> {
        let _running = self.flusher.running.lock();
        self.flusher.taken_up();
        if self.is_closed() { Ok(()) } else { self.flush_now(boot) }
    }

    /// Ends all writing and leaves nothing that the index does not have: for a directory that will never be written again.
    pub(super) fn seal(&self, boot: &str) -> io::Result<()> {
        self.undisturbed(|| self.finish_forgetting(boot))?;
        // Most of it while others still write.
        self.flush(boot)?;
        self.events.complete()?;
        self.close_to_writes();
        // Reads that were answered are recorded here still.
        self.order.wait();
        let _running = self.flusher.running.lock();
        self.gone.store(true, Ordering::Release);
        self.flush_now(boot)?;
        self.leave_tail();
        Ok(())
    }

    /// Publishes a picture with another index, which has the first `flushed` recent versions.
    fn adopt_committed(&self, committed: Committed, flushed: usize) {
        // What was written meanwhile is looked up in the new index outside the lock, all but the last of it.
        let meanwhile = self.snapshot();
        let mut view = meanwhile.view.flushed(committed, flushed);
        let _guard = self.writer.lock();
        let now = self.snapshot();
        view.catch_up(&now.view, meanwhile.view.recent.len());
        self.published.store(Arc::new(Snapshot { view, ..(*now).clone() }));
    }

    /// Publishes a picture with another index of the same events.
    pub(super) fn replace_committed(&self, committed: Committed) {
        self.adopt_committed(committed, 0);
    }

    /// The flush itself; nothing else is to be going on.
    pub(super) fn flush_now(&self, boot: &str) -> io::Result<()> {
        self.flusher.last_flush_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        let before = self.snapshot();
        if before.view.recent.is_empty() {
            return Ok(());
        }
        let flushed = before.view.recent.len();
        let committed = before.view.committed.flush(&before.view.recent, before.payload(boot), &|entry| before.body_of(entry)).inspect_err(|_| {
            self.flusher.failed.store(true, Ordering::Relaxed);
            self.flusher.flushed.notify_all();
        })?;
        self.flusher.failed.store(false, Ordering::Relaxed);
        self.adopt_committed(committed, flushed);
        self.flusher.flushed.notify_all();
        self.save();
        self.events.complete()?;
        Ok(())
    }

    /// Looks after the simulator now and then: saves its counts, and asks for a flush if it is at rest with more to replay
    /// than a first request should wait for.
    pub(super) fn look_after(&self) {
        // What has ended has a successor in its directory, perhaps: nothing of this one is to be written there.
        let Some(_running) = self.flusher.running.try_lock() else { return };
        if self.is_closed() {
            return;
        }
        self.save();
        self.save_events();
        let at_rest = self.clock.now_ms() - self.flusher.last_write_ms.load(Ordering::Relaxed) > REST_MS;
        if at_rest && self.snapshot().view.recent.len() > REST_AT {
            self.flusher.ask();
        }
    }

    /// Saves the rows of the event index.
    fn save_events(&self) {
        if let Err(error) = self.events.save() {
            tracing::warn!(sim = %self.store.sim, %error, "the event index could not be written; it will be made anew from the folders");
        }
    }

    /// Saves what the list of simulators shows.
    pub(super) fn save(&self) {
        let mut saved_upto = self.saved.lock();
        let snapshot = self.snapshot();
        if *saved_upto == snapshot.last {
            return;
        }
        *saved_upto = snapshot.last;
        if let Ok(json) = serde_json::to_vec(&self.saved()) {
            // Shown, never relied on.
            let _ = replace_file(&summary_file(&self.store.dir), &json);
        }
    }

    /// What the list of simulators shows.
    pub(super) fn saved(&self) -> Saved {
        let snapshot = self.snapshot();
        let last_event = (snapshot.sequence > 0).then(|| snapshot.last.to_string());
        Saved { events: snapshot.sequence, last_event, counts: snapshot.counts().map(|(t, n)| (t.to_owned(), n)).collect() }
    }

    /// How many bases it builds on.
    pub(super) fn depth(&self) -> usize {
        self.store.layers.len()
    }

    /// Whether nothing was added to what it builds on, reads neither.
    pub(super) fn is_as_its_base(&self) -> bool {
        let sequence = self.store.base.as_ref().map(|base| base.sequence);
        sequence == Some(self.snapshot().sequence) && directories(&self.store.dir).is_empty()
    }

    /// Ends all writing: exchanges that wait are refused, and none begins any more. Returns whether this call did it.
    pub(super) fn end_writes(&self) -> bool {
        self.gone.store(true, Ordering::Release);
        self.close_to_writes()
    }

    fn close_to_writes(&self) -> bool {
        let is_first = {
            let _guard = self.writer.lock();
            !self.closed.swap(true, Ordering::AcqRel)
        };
        self.events.end();
        is_first
    }

    /// Runs `work` while no flush and no recording of a read is going on.
    pub(super) fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _running = self.flusher.running.lock();
        work()
    }

    /// Leaves for the next open what this one knows, after [`Sim::end_writes`]; flushes nothing.
    pub(super) fn leave_tail(&self) {
        self.save();
        self.save_events();
        let last_id = EventId::from_u64(self.last_id.load(Ordering::Relaxed));
        if let Err(error) = Tail::of(&self.snapshot(), last_id, self.events.saved()).write(&self.store.dir) {
            tracing::warn!(sim = %self.store.sim, %error, "the next open will list the event folders");
        }
    }
}

/// Where [`Saved`] lies.
pub(super) fn summary_file(dir: &SimDir) -> std::path::PathBuf {
    dir.root().join("summary.json")
}

impl Snapshot {
    pub(super) fn payload(&self, boot: &str) -> Payload {
        Payload {
            format: 0,
            last_event: self.last.to_string(),
            sequence: self.sequence,
            counts: self.counts().map(|(t, n)| (t.to_owned(), n)).collect(),
            params: self.indexed_with.to_string(),
            boot: boot.to_owned(),
            hidden: String::new(),
            below: Vec::new(),
        }
    }
}

impl Tail {
    fn read(dir: &SimDir) -> Option<Self> {
        let tail: Self = serde_json::from_slice(&fs::read(dir.tail()).ok()?).ok()?;
        (directories(dir) == tail.directories).then_some(tail)
    }

    fn of(snapshot: &Snapshot, last_id: EventId, event_index: Option<u64>) -> Self {
        let mut events: Vec<String> = Vec::new();
        for entry in snapshot.view.recent.pushed().filter(|e| !e.again) {
            let name = format!("{}/{}", entry.version.place.operation.directory(), entry.version.event);
            if events.last() != Some(&name) {
                events.push(name);
            }
        }
        Self {
            index_event: snapshot.view.committed.payload().last_event.clone(),
            last_event: snapshot.last.to_string(),
            last_id: last_id.to_string(),
            sequence: snapshot.sequence,
            counts: snapshot.counts().map(|(t, n)| (t.to_owned(), n)).collect(),
            events,
            directories: directories(&snapshot.store.dir),
            event_index,
        }
    }

    fn write(&self, dir: &SimDir) -> io::Result<()> {
        if !dir.index().exists() {
            fs::create_dir(dir.index())?;
        }
        replace_file(&dir.tail(), &serde_json::to_vec(self)?)
    }

    fn events(&self) -> Vec<(EventId, Operation)> {
        let read = |name: &String| {
            let (operation, event) = name.split_once('/')?;
            Some((event.parse().ok()?, Operation::ALL.into_iter().find(|o| o.directory() == operation)?))
        };
        self.events.iter().filter_map(read).collect()
    }
}

fn directories(dir: &SimDir) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for operation in Operation::ALL {
        let modified = fs::metadata(dir.operation(operation)).and_then(|m| m.modified());
        if let Some(since) = modified.ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()) {
            found.insert(operation.directory().to_owned(), u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    found
}

/// What was found damaged now and at earlier opens, as far as it is still there; remembered for the next.
fn known_damages(dir: &SimDir, found: Vec<Damage>) -> Vec<Damage> {
    let file = dir.root().join("damaged.json");
    let mut all: Vec<Damage> = fs::read(&file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    all.retain(|d| dir.events().join(&d.folder).exists() && !found.iter().any(|f| f.folder == d.folder));
    if !found.is_empty() {
        all.extend(found);
        if let Ok(json) = serde_json::to_vec(&all) {
            let _ = replace_file(&file, &json);
        }
    }
    all
}

/// Brings the index's picture up to the last event on disk.
fn replay(store: &Arc<Store>, settings: Settings, committed: Committed, tail: Option<Tail>, boot: &str) -> io::Result<(Snapshot, Vec<Damage>, EventId)> {
    let definitions = Definitions::of(store.version);
    let payload = committed.payload().clone();
    let named = |counts: &BTreeMap<String, u64>| counts.iter().filter_map(|(t, n)| Some((definitions.resource_type(t).ok()?, *n))).collect();
    // Events without resources at the end of what lies below are in no index.
    let (last_below, below) = store.base.as_ref().map_or((EventId::ZERO, 0), |base| (base.last, base.sequence));
    let (last, sequence) = (committed.last_event().max(last_below), payload.sequence.max(below));
    let mut snapshot = Snapshot::new(store.clone(), settings, View::new(committed), last, sequence, named(&payload.counts));
    snapshot.indexed_with = payload.params.as_str().into();
    let own = snapshot.own_params();
    if own.fingerprint == payload.params {
        snapshot.adopt(own);
    } else {
        // Whatever the replay leads to, it is to be indexed for.
        snapshot.indexed_with = "?".into();
    }
    let events = match &tail {
        Some(tail) => tail.events(),
        None => scan::events_after(&store.dir, last)?,
    };
    let listed = events.last().map_or(EventId::ZERO, |(event, _)| *event);
    let mut damages = Vec::new();
    for (event, operation) in events {
        match scan::record(&store.dir, operation, event).and_then(|record| replay_event(&mut snapshot, event, operation, &record).map(|()| record)) {
            Ok(record) => snapshot.sequence = snapshot.sequence.max(record.sequence),
            Err(damage) => damages.push(damage),
        }
        if operation != Operation::Get {
            snapshot.last = event;
        }
        if snapshot.view.recent.len() >= WAIT_AT / 2 {
            let committed = snapshot.view.committed.flush(&snapshot.view.recent, snapshot.payload(boot), &|entry| snapshot.body_of(entry))?;
            snapshot.view = View::new(committed);
        }
    }
    if let Some(tail) = tail {
        snapshot.last = tail.last_event.parse().unwrap_or(snapshot.last);
        snapshot.sequence = tail.sequence;
        snapshot.counts = named(&tail.counts);
    }
    Ok((snapshot, damages, listed))
}

/// All of an event's resources, or none if one is damaged.
fn replay_event(snapshot: &mut Snapshot, event: EventId, operation: Operation, record: &EventRecord) -> Result<(), Damage> {
    let damage = |reason: String| Damage { folder: format!("{}/{event}", operation.directory()), reason };
    let mut entries = Vec::with_capacity(record.resources.len());
    for (number, stored) in (1..).zip(&record.resources) {
        let type_name = snapshot.definitions().resource_type(&stored.type_name).map_err(|f| damage(f.diagnostics))?;
        let id = stored.id.parse().map_err(|f: crate::fhir::Failure| damage(f.diagnostics))?;
        let place = Place { operation, number, bytes: stored.bytes };
        if stored.purged {
            continue;
        }
        let modified = stored.last_updated.as_deref().and_then(instant::parse).map(|i| i.low.div_euclid(1_000));
        let modified_ms = modified.unwrap_or(event.millis());
        let made = stored.made.as_deref().and_then(|made| made.parse().ok()).unwrap_or_else(|| Made::by_time(modified_ms, event, number));
        let version = Version { id: VersionId(stored.version_id), event, place, change: stored.change, modified_ms, made };
        let value = match &stored.file {
            None => Value::Null,
            Some(file) => {
                let bytes = fs::read(snapshot.store.dir.resource(event, place, type_name)).map_err(|e| damage(format!("{file}: {e}")))?;
                serde_json::from_slice(&bytes).map_err(|e| damage(format!("{file}: {e}")))?
            }
        };
        let entry = Entry { rewrites: stored.rewrites.is_some(), ..snapshot.entry_of(type_name, &id, version, &value) };
        entries.push(Arc::new(entry));
    }
    for entry in entries {
        snapshot.push(entry);
    }
    // What a purge was about to remove when the last server ended.
    dispose::superseded(&snapshot.store.dir, record).map_err(|e| damage(e.to_string()))
}
