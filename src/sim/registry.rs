//! All simulators of one directory: found at start by name alone, opened when first used, closed when long unused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde_json::{Map, Value};

use super::base::Bases;
use super::bodies::Bodies;
use super::commit::Sim;
use super::feed::{Feed, Happening};
use super::held::Holders;
use super::lifecycle::summary_file;
use super::priority;
use super::profile::{FHIR_TYPE, Profile, Settings, known_type};
use super::reindex::Progress;
use super::sessions::Sessions;
use super::slot::Slot;
use super::templates::Templates;
use crate::clock::{Clock, instant};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::simdb::journal::{Durability, Journal};
use crate::simdb::write::replace_file;
use crate::simdb::{SimDir, SimId};

/// Simulators kept open; an open index takes up to some tens of memory maps, of which the system gives 65,530.
const MAX_OPEN: usize = 1_000;
/// Memory for stored resources that were read.
const BODY_CACHE_BYTES: u64 = 128 << 20;
/// Threads that move recent writes into the indexes, for all simulators together.
const FLUSH_THREADS: usize = 2;
/// What one search may cost where nothing else is said: steps of roughly a tenth of a microsecond.
pub const SEARCH_STEPS: u64 = 50_000_000;
/// How often what is at rest is looked after.
const MAINTENANCE_EVERY: Duration = Duration::from_secs(1);

/// What all simulators of a directory share.
pub(super) struct Shared {
    pub(super) root: PathBuf,
    pub(super) clock: Clock,
    pub(super) journal: Arc<Journal>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) flushes: Sender<Weak<Sim>>,
    pub(super) serial: AtomicU64,
    pub(super) boot: String,
    /// What one search may cost.
    pub(super) search_steps: Arc<AtomicU64>,
    /// How many read what may be thrown away meanwhile.
    pub(super) holders: Holders,
    /// What simulators build on, as far as it is open.
    pub(super) bases: Bases,
    /// Held by who makes something that builds on a base, and alone by who removes those that nothing needs.
    pub(super) collecting: RwLock<()>,
}

/// The simulators of one directory.
pub struct Registry {
    pub(super) shared: Arc<Shared>,
    pub(super) sims: RwLock<BTreeMap<String, Arc<Slot>>>,
    flush_queue: Arc<Mutex<Receiver<Weak<Sim>>>>,
    sessions: Sessions,
    pub(super) templates: Templates,
    /// Set when all are closed: none is opened any more.
    stopping: AtomicBool,
    /// Held as long as this server owns the directory.
    _lock: File,
}

/// What a new simulator shall be; absent is the default, or stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// FHIR version.
    pub fhir_version: Option<FhirVersion>,
    /// Kind of simulator.
    pub sim_type: Option<String>,
    /// Settings by their names; what is not named stays as it is.
    pub settings: Map<String, Value>,
}

/// A simulator as the list shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its name.
    pub id: String,
    /// The session's part of the name.
    pub session: String,
    /// The rest of the name.
    pub name: String,
    /// What it was made to be.
    #[serde(flatten)]
    pub profile: Profile,
    /// Events, reads aside.
    pub event_count: u64,
    /// The last of them.
    pub last_event: Option<String>,
    /// Current resources by type.
    pub counts: BTreeMap<String, u64>,
    /// When it is deleted with its session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// How far the indexing for new search parameters is, while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reindexing: Option<Progress>,
}

/// What a stop left of what was being made or removed, all of it moved out of the way.
fn left_over(root: &Path) -> io::Result<Vec<PathBuf>> {
    let trash = root.join(".trash");
    if root.join(".new").exists() {
        fs::create_dir_all(&trash)?;
        fs::rename(root.join(".new"), trash.join(uuid::Uuid::new_v4().to_string()))?;
    }
    match fs::read_dir(&trash) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// How often it is looked whether somebody still reads what was thrown away.
const HELD_FOR: Duration = Duration::from_millis(100);
/// How often at most, ten minutes in all: who does not read on must not keep the disk full.
const HELD_TIMES: usize = 6_000;

/// Removes directories that nobody uses any more in a thread of its own: that may take long. What a stop leaves of them the next start removes.
fn remove_behind(directories: Vec<PathBuf>, holders: Holders) {
    if directories.is_empty() {
        return;
    }
    let remove = move || {
        priority::give_way(priority::LAST);
        for directory in directories {
            for _ in 0..HELD_TIMES {
                if holders.load(Ordering::SeqCst) == 0 {
                    break;
                }
                std::thread::sleep(HELD_FOR);
            }
            if let Err(error) = fs::remove_dir_all(&directory) {
                tracing::warn!(%error, "what was deleted stays in .trash until the next start");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("trash".into()).spawn(remove) {
        tracing::warn!(%error, "what was deleted stays in .trash until the next start");
    }
}

impl Registry {
    /// Takes possession of the directory of simulators and finds what is in it; returns what recovery did, too.
    ///
    /// # Errors
    /// Another server holds the directory, or the file system refuses.
    pub fn open(root: &Path, durability: Durability, clock: Clock) -> io::Result<(Arc<Self>, Vec<String>)> {
        fs::create_dir_all(root)?;
        let lock = lock(root)?;
        let mut recovered = Self::recover_sealing(root)?;
        let (journal, restored) = Journal::open(root, durability)?;
        recovered.extend(restored);
        remove_behind(left_over(root)?, Holders::default());
        let (flushes, queue) = channel();
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            clock,
            journal: Arc::new(journal),
            bodies: Arc::new(Bodies::new(BODY_CACHE_BYTES)),
            flushes,
            serial: AtomicU64::new(0),
            search_steps: Arc::new(AtomicU64::new(SEARCH_STEPS)),
            holders: Holders::default(),
            bases: Bases::default(),
            collecting: RwLock::new(()),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        });
        let mut sims = BTreeMap::new();
        for entry in fs::read_dir(root)? {
            let name = entry?.file_name();
            if let Some(Ok(id)) = name.to_str().map(str::parse::<SimId>) {
                sims.insert(id.key(), Arc::new(Slot::new(id)));
            }
        }
        let (flush_queue, sessions) = (Arc::new(Mutex::new(queue)), Sessions::open(root)?);
        let registry = Arc::new(Self {
            shared,
            sims: RwLock::new(sims),
            flush_queue,
            sessions,
            templates: Templates::default(),
            stopping: AtomicBool::new(false),
            _lock: lock,
        });
        registry.start_threads()?;
        Ok((registry, recovered))
    }

    fn start_threads(self: &Arc<Self>) -> io::Result<()> {
        for n in 0..FLUSH_THREADS {
            let queue = self.flush_queue.clone();
            let shared = Arc::downgrade(&self.shared);
            std::thread::Builder::new().name(format!("flush-{n}")).spawn(move || flush_all(&queue, &shared))?;
        }
        let me = Arc::downgrade(self);
        std::thread::Builder::new().name("maintenance".into()).spawn(move || {
            while let Some(registry) = me.upgrade() {
                registry.maintain();
                drop(registry);
                std::thread::sleep(MAINTENANCE_EVERY);
            }
        })?;
        Ok(())
    }

    /// Sets what one search may cost, in steps of roughly a tenth of a microsecond.
    pub fn limit_searches(&self, steps: u64) {
        self.shared.search_steps.store(steps.max(1), Ordering::Relaxed);
    }

    /// What sessions were told.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn boot(&self) -> &str {
        &self.shared.boot
    }

    /// The directory of simulators.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The clock that events go by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Number of simulators.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sims.read().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sims.read().is_empty()
    }

    /// Number of simulators that are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.sims.read().values().filter(|s| s.open.load().is_some()).count()
    }

    /// The simulator of that name, opened if it is not.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`]; the disk's refusal.
    pub fn get(&self, id: &SimId) -> Result<Arc<Sim>, Failure> {
        loop {
            let slot = self.slot(id)?;
            slot.used_ms.store(self.shared.clock.now_ms(), Ordering::Relaxed);
            if let Some(sim) = slot.open.load_full() {
                return Ok(sim);
            }
            let _gate = slot.gate.lock();
            if let Some(sim) = slot.open.load_full() {
                return Ok(sim);
            }
            // Deleted, and perhaps made again, while this waited: then another slot counts.
            if !self.is_current(&slot) {
                continue;
            }
            self.refuse_if_stopping()?;
            let started = std::time::Instant::now();
            let opened = self.read_profile(id).and_then(|profile| Sim::open(&self.shared, id, profile, &slot));
            let sim = opened.map_err(|e| super::storage_failure(&format!("simulator {id} cannot be opened"), &e))?;
            tracing::debug!(sim = %id, took_us = started.elapsed().as_micros(), "opened");
            slot.open.store(Some(sim.clone()));
            return Ok(sim);
        }
    }

    /// The simulator of that name if it is open.
    #[must_use]
    pub fn get_if_open(&self, id: &SimId) -> Option<Arc<Sim>> {
        let slot = self.slot(id).ok()?;
        slot.used_ms.store(self.shared.clock.now_ms(), Ordering::Relaxed);
        slot.open.load_full()
    }

    fn refuse_if_stopping(&self) -> Result<(), Failure> {
        if self.stopping.load(Ordering::Acquire) { Err(Failure::new(Kind::Internal, "the server stops")) } else { Ok(()) }
    }

    fn is_current(&self, slot: &Arc<Slot>) -> bool {
        self.sims.read().get(&slot.id.key()).is_some_and(|current| Arc::ptr_eq(current, slot))
    }

    /// Runs `work` on the slot of a simulator that nobody opens, closes or deletes meanwhile.
    pub(super) fn gated<T>(&self, id: &SimId, work: impl FnOnce(&Slot) -> Result<T, Failure>) -> Result<T, Failure> {
        loop {
            let slot = self.slot(id)?;
            let _gate = slot.gate.lock();
            if self.is_current(&slot) {
                self.refuse_if_stopping()?;
                return work(&slot);
            }
        }
    }

    fn slot(&self, id: &SimId) -> Result<Arc<Slot>, Failure> {
        let found = self.sims.read().get(&id.key()).cloned();
        match found {
            Some(slot) if slot.id == *id => Ok(slot),
            // Not unknown: one of this name cannot be made either.
            Some(slot) => Err(Failure::new(Kind::NotFound, format!("unknown simulator '{id}'; there is '{}', and names count case", slot.id))),
            None => Err(Failure::new(Kind::UnknownSimulator, format!("unknown simulator '{id}'"))),
        }
    }

    /// Makes a simulator.
    ///
    /// # Errors
    /// [`Kind::Conflict`]: there is one of this name, or of one that differs only in case.
    pub fn create(&self, id: &SimId, wanted: &Wanted) -> Result<(), Failure> {
        let profile = Profile {
            sim_type: known_type(wanted.sim_type.as_deref().unwrap_or(FHIR_TYPE))?.to_owned(),
            fhir_version: wanted.fhir_version.unwrap_or_default().name().to_owned(),
            created: instant(self.shared.clock.now_ms()),
            base: None,
            horizon: None,
            settings: Settings::default().with(&wanted.settings)?,
        };
        Self::refuse_taken(id, &self.sims.read())?;
        let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be made"), &e);
        // Requests for other simulators must not wait for this one's directory: it is made before the lock is taken.
        let staged = self.stage(id, &profile).map_err(failed)?;
        self.place(id, &staged)
    }

    /// Puts the directory of a new simulator into its place.
    pub(super) fn place(&self, id: &SimId, staged: &Path) -> Result<(), Failure> {
        let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be made"), &e);
        let mut sims = self.sims.write();
        let placed = self
            .sessions
            .refuse_ending(id.session())
            .and_then(|()| Self::refuse_taken(id, &sims))
            .and_then(|()| fs::rename(staged, self.shared.root.join(id.as_str())).map_err(failed));
        if let Err(failure) = placed {
            drop(sims);
            let _ = fs::remove_dir_all(staged);
            return Err(failure);
        }
        sims.insert(id.key(), Arc::new(Slot::new(id.clone())));
        drop(sims);
        self.shared.journal.barrier().map_err(failed)
    }

    pub(super) fn refuse_taken(id: &SimId, sims: &BTreeMap<String, Arc<Slot>>) -> Result<(), Failure> {
        let Some(slot) = sims.get(&id.key()) else { return Ok(()) };
        let message = if slot.id == *id {
            format!("simulator '{id}' exists already; PUT /api/sims/{id} accepts that, DELETE /api/sims/{id} removes it")
        } else {
            format!("simulator '{}' exists already, whose name differs from '{id}' only in case; choose another name", slot.id)
        };
        Err(Failure::new(Kind::Conflict, message))
    }

    /// Makes the directory of a simulator, to be renamed into its place whole.
    pub(super) fn stage(&self, id: &SimId, profile: &Profile) -> io::Result<PathBuf> {
        let staged = self.shared.root.join(".new").join(format!("{id}-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(staged.join("fhir"))?;
        fs::create_dir(staged.join("simindex"))?;
        fs::create_dir(staged.join("staging"))?;
        fs::write(staged.join("simid.txt"), id.as_str())?;
        fs::write(staged.join("sim_type.txt"), &profile.sim_type)?;
        fs::write(staged.join("sim.json"), serde_json::to_vec_pretty(profile)?)?;
        Ok(staged)
    }

    pub(super) fn read_profile(&self, id: &SimId) -> io::Result<Profile> {
        read_profile(&SimDir::new(&self.shared.root, id))
    }

    /// Changes settings. FHIR version and type stay what they were made.
    ///
    /// # Errors
    /// [`Kind::Conflict`] when they shall change; [`Kind::UnknownSimulator`]; the disk's refusal.
    pub fn change(&self, id: &SimId, wanted: &Wanted) -> Result<(), Failure> {
        self.get(id)?;
        self.gated(id, |slot| self.change_gated(slot, wanted))
    }

    /// Changes the settings of a simulator whose gate is held: nobody puts another directory in the place of its.
    fn change_gated(&self, slot: &Slot, wanted: &Wanted) -> Result<(), Failure> {
        let id = &slot.id;
        let unreadable = |e| super::storage_failure(&format!("simulator {id} cannot be read"), &e);
        let before = self.read_profile(id).map_err(unreadable)?;
        let mut profile = before.clone();
        if let Some(version) = wanted.fhir_version.filter(|v| *v != profile.version()) {
            let message = format!("simulator '{id}' has FHIR version {}, which cannot be changed to {version}; delete it first", profile.fhir_version);
            return Err(Failure::new(Kind::Conflict, message));
        }
        if let Some(sim_type) = wanted.sim_type.as_ref().filter(|t| **t != profile.sim_type) {
            known_type(sim_type)?;
            return Err(Failure::new(Kind::Conflict, format!("simulator '{id}' is of type {}, which cannot be changed; delete it first", profile.sim_type)));
        }
        profile.settings = profile.settings.with(&wanted.settings)?;
        if profile != before {
            let json = serde_json::to_vec_pretty(&profile).map_err(|e| super::storage_failure("sim.json", &e.into()))?;
            let file = SimDir::new(&self.shared.root, id).sim_json();
            replace_file(&file, &json).map_err(|e| super::storage_failure("sim.json cannot be written", &e))?;
            if let Some(sim) = slot.open.load_full() {
                sim.adopt(profile);
            }
        }
        Ok(())
    }

    /// Removes a simulator and all its events.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`]; the disk's refusal.
    pub fn delete(&self, id: &SimId) -> Result<(), Failure> {
        let built = self.needs_bases(id);
        self.gated(id, |slot| {
            self.discard(slot).map_err(|e| super::storage_failure(&format!("simulator {id} cannot be removed"), &e))?;
            self.sims.write().remove(&id.key());
            let _ = self.throw_away(&self.shared.root.join(super::bulk::FOLDER).join(id.as_str()));
            self.shared.journal.barrier().map_err(|e| super::storage_failure("the disk cannot be synced", &e))
        })?;
        self.collect_after(built);
        Ok(())
    }

    /// Empties a simulator: the same name and settings, no event.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`]; the disk's refusal, and then it is as it was.
    pub fn reset(&self, id: &SimId) -> Result<(), Failure> {
        let built = self.needs_bases(id);
        // While the one directory takes the place of the other, nobody may take what they need for unneeded.
        let collecting = self.shared.collecting.read();
        self.gated(id, |slot| {
            let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be reset"), &e);
            let profile = Profile { base: None, horizon: None, ..self.read_profile(id).map_err(failed)? };
            let staged = self.stage(id, &profile).map_err(failed)?;
            // The snapshots stay: it can be reset to one the next time.
            self.keep_snapshots(id, &staged).and_then(|()| self.exchange_directory(slot, &staged)).map_err(failed)
        })?;
        drop(collecting);
        self.collect_after(built);
        Ok(())
    }

    /// Puts another directory in the place of a simulator's, whose gate is held; what was there goes.
    pub(super) fn exchange_directory(&self, slot: &Slot, staged: &Path) -> io::Result<()> {
        if let Some(sim) = slot.open.swap(None) {
            sim.end_writes();
            sim.undisturbed(|| ());
        }
        // Recovery goes by names: nothing of what was is to be restored into what will be.
        self.shared.journal.barrier()?;
        exchange(staged, &self.shared.root.join(slot.id.as_str()))?;
        // Under its old name what was there is what a start removes; under this one too.
        self.throw_away(staged)?;
        slot.usage.clear();
        slot.log.forget();
        slot.faults.clear();
        slot.feed.tell(|| Happening::Reset);
        self.shared.journal.barrier()
    }

    /// The live feed of a simulator.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`].
    pub fn feed(&self, id: &SimId) -> Result<Feed, Failure> {
        Ok(self.slot(id)?.feed.clone())
    }

    /// Moves a simulator's recent writes into its index now, which else happens in the background.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`]; the disk's refusal.
    pub fn flush(&self, id: &SimId) -> Result<(), Failure> {
        self.get(id)?.flush(&self.shared.boot).map_err(|e| super::storage_failure("the index cannot be written", &e))
    }

    /// Moves a directory out of the way at once, and removes it behind.
    pub(super) fn throw_away(&self, directory: &Path) -> io::Result<()> {
        let trash = self.shared.root.join(".trash").join(uuid::Uuid::new_v4().to_string());
        fs::create_dir_all(self.shared.root.join(".trash"))?;
        fs::rename(directory, &trash)?;
        remove_behind(vec![trash], self.shared.holders.clone());
        Ok(())
    }

    /// Ends an open simulator and throws its directory away; the slot's gate is held.
    pub(super) fn discard(&self, slot: &Slot) -> io::Result<()> {
        if let Some(sim) = slot.open.swap(None) {
            sim.end_writes();
            sim.undisturbed(|| ());
        }
        self.throw_away(&self.shared.root.join(slot.id.as_str()))
    }

    /// A page of the list, by name, after the name `after`; of one session if given. Opens no simulator.
    #[must_use]
    pub fn list(&self, session: Option<&str>, sees: &dyn Fn(&str) -> bool, after: Option<&str>, most: usize) -> (Vec<Summary>, usize) {
        let is_asked = |s: &&Arc<Slot>| session.is_none_or(|session| s.id.session().eq_ignore_ascii_case(session));
        let slots: Vec<Arc<Slot>> = self.sims.read().values().filter(is_asked).filter(|s| sees(s.id.session())).cloned().collect();
        let total = slots.len();
        let from = after.map(str::to_ascii_lowercase);
        let rest = slots.into_iter().filter(|s| from.as_ref().is_none_or(|from| s.id.key() > *from));
        (rest.filter_map(|slot| self.summary_of(&slot)).take(most).collect(), total)
    }

    /// One simulator as the list shows it.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`].
    pub fn summary(&self, id: &SimId) -> Result<Summary, Failure> {
        let slot = self.slot(id)?;
        self.summary_of(&slot).ok_or_else(|| Failure::new(Kind::Damaged, format!("simulator '{id}' has no readable sim.json")))
    }

    fn summary_of(&self, slot: &Slot) -> Option<Summary> {
        let (profile, saved) = if let Some(sim) = slot.open.load_full() {
            ((*sim.profile()).clone(), sim.saved())
        } else {
            let saved = fs::read(summary_file(&SimDir::new(&self.shared.root, &slot.id)));
            (self.read_profile(&slot.id).ok()?, saved.ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default())
        };
        let id = &slot.id;
        Some(Summary {
            id: id.to_string(),
            session: id.session().to_owned(),
            name: id.name().to_owned(),
            profile,
            event_count: saved.events,
            last_event: saved.last_event,
            counts: saved.counts,
            expires: self.sessions.get(id.session()).expires,
            reindexing: slot.open.load().as_ref().and_then(|sim| sim.progress()),
        })
    }

    /// Flushes what is at rest and closes what is long unused.
    fn maintain(self: &Arc<Self>) {
        self.end_sessions();
        let mut open: Vec<Arc<Slot>> = self.sims.read().values().filter(|s| s.open.load().is_some()).cloned().collect();
        for slot in &open {
            if let Some(sim) = slot.open.load_full() {
                sim.look_after();
                if sim.is_retention_due() {
                    self.retain_in_background(slot.id.clone());
                }
            }
        }
        if open.len() > MAX_OPEN {
            open.sort_by_key(|s| s.used_ms.load(Ordering::Relaxed));
            for slot in &open[..open.len() - MAX_OPEN] {
                slot.close_if_unused();
            }
        }
    }

    /// Closes every simulator; recent writes are replayed by the next server, not flushed by this one.
    pub fn close(&self) {
        self.stopping.store(true, Ordering::Release);
        // Not under the lock: who holds a gate may wait for that.
        let slots: Vec<Arc<Slot>> = self.sims.read().values().cloned().collect();
        for slot in slots {
            slot.close();
        }
        self.shared.journal.close();
    }
}

fn flush_all(queue: &Mutex<Receiver<Weak<Sim>>>, shared: &Weak<Shared>) {
    // Those who ask come first, of other simulators above all; tantivy's own threads inherit both. Where writes outrun it, they
    // wait for it, and then it has the processor.
    priority::give_way(priority::BEHIND);
    priority::keep_to_half();
    loop {
        let next = queue.lock().recv_timeout(MAINTENANCE_EVERY);
        let Some(shared) = shared.upgrade() else { return };
        if let Ok(Some(sim)) = next.map(|weak| weak.upgrade())
            && let Err(error) = sim.follow_params(&shared.boot).and_then(|()| sim.flush(&shared.boot))
            && !sim.closed.load(Ordering::Relaxed)
        {
            tracing::error!(sim = %sim.id(), %error, "the index could not be written; writes stay in memory and in their folders");
        }
    }
}

/// Puts one directory in the place of another, at no moment of which there is none; but for file systems that cannot.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        // Not every file system can.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            let mut aside = one.as_os_str().to_owned();
            aside.push(".aside");
            fs::rename(other, &aside)?;
            fs::rename(one, other).inspect_err(|_| drop(fs::rename(&aside, other)))?;
            fs::rename(&aside, one)
        }
        done => done.map_err(io::Error::from),
    }
}

/// What a directory says of itself.
pub(super) fn read_profile(dir: &SimDir) -> io::Result<Profile> {
    let bytes = fs::read(dir.sim_json())?;
    serde_json::from_slice(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("sim.json: {e}")))
}

fn lock(root: &Path) -> io::Result<File> {
    let path = root.join(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{} is held by another server", root.display()))),
    }
}
