//! Retention: what lies further back than a simulator is to remember is removed from the disk.
//!
//! A horizon is an event. Of what happened up to it, the state right after it stays, and nothing else: current versions, and
//! what was current then; superseded versions go, and the exchanges of all of it. So every moment since the horizon can still be
//! looked at, exactly, and none before. What a base holds stays as it is: others may need it.
//!
//! What is to be done is written down first (`retention.json`), then taken out of the index, then off the disk; a server that
//! ends in between does it when the simulator is opened again. Histories that were rewritten ([`super::Rewrites`]) stay
//! whole: their events mask what was before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use super::commit::Sim;
use super::dispose::place;
use super::profile::Retention;
use super::registry::Registry;
use super::storage_failure;
use crate::clock::{EventId, duration};
use crate::fhir::{Failure, Kind};
use crate::index::Trimmed;
use crate::simdb::event::RECORD;
use crate::simdb::event_index::Filter;
use crate::simdb::write::replace_file;
use crate::simdb::{EventRecord, SimId, StoredResource, scan};
use crate::version::{Operation, Version};

/// How often it is looked whether something is to go.
const EVERY_MS: i64 = 60_000;
/// One in so many of what is allowed must be too much before something goes by itself: passes are not for single events.
const SHARE: u64 = 10;
/// How long files stay for readers who still look at the picture before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What goes, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Going {
    /// The last event that is forgotten; none if nothing goes.
    pub horizon: Option<String>,
    /// Event folders that go whole.
    pub events: usize,
    /// Event folders that keep what they stored, and lose the exchange.
    pub exchanges: usize,
    /// Superseded versions.
    pub versions: usize,
}

/// What is to be done, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    horizon: String,
    folders: Vec<Folder>,
}

/// A version in an event: type, id, number.
type Named = (String, String, u64);

/// What becomes of an event folder.
#[derive(Debug, Serialize, Deserialize)]
struct Folder {
    /// `PUT/2026_…`.
    at: String,
    /// The versions in it that go: an event may have made several of one resource.
    strip: BTreeSet<Named>,
    /// Whether nothing is left.
    whole: bool,
}

impl Folder {
    fn place(&self) -> (Operation, EventId) {
        place(&self.at).unwrap_or((Operation::Get, EventId::ZERO))
    }

    fn event(&self) -> EventId {
        self.place().1
    }
}

impl Retention {
    /// Whether everything is kept.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.age.is_none() && self.events.is_none() && self.bytes.is_none()
    }

    /// Proves what somebody asked for.
    ///
    /// # Errors
    /// An age that is no duration.
    pub fn proven(&self) -> Result<(), Failure> {
        match self.age.as_deref().filter(|age| duration(age).is_none()) {
            Some(age) => {
                let message = format!("retention.age '{}' is no duration such as 12h or 7d", crate::fhir::id::clip(age));
                Err(Failure::new(Kind::BadValue, message))
            }
            None => Ok(()),
        }
    }
}

impl Registry {
    /// Removes what lies further back than the simulator's retention allows; with `dry` only says what would go.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`]; the disk's refusal, and then what was begun is ended when the simulator is opened again.
    pub fn retain(&self, id: &SimId, dry: bool) -> Result<Going, Failure> {
        loop {
            self.get(id)?;
            let done = self.gated(id, |slot| {
                let Some(sim) = slot.open.load_full() else { return Ok(None) };
                let failed = |e: io::Error| storage_failure(&format!("what simulator {id} is to forget cannot be removed"), &e);
                let going = sim.forget(self.boot(), dry, |horizon| {
                    let profile = super::Profile { horizon: Some(horizon.to_string()), ..self.read_profile(id)? };
                    replace_file(&sim.dir().sim_json(), &serde_json::to_vec_pretty(&profile)?)?;
                    sim.adopt(profile);
                    Ok(())
                });
                going.map(Some).map_err(failed)
            })?;
            // Closed in between: once more.
            if let Some(going) = done {
                return Ok(going);
            }
        }
    }

    /// The same on a thread of its own.
    pub(super) fn retain_in_background(self: &Arc<Self>, id: SimId) {
        let me = self.clone();
        let forgets = move || match me.retain(&id, false) {
            Ok(going) => {
                tracing::info!(sim = %id, events = going.events, versions = going.versions, horizon = going.horizon, "forgot what is further back than retention");
            }
            Err(failure) => tracing::error!(sim = %id, failure = failure.diagnostics, "what is further back than retention could not be removed"),
        };
        if let Err(error) = std::thread::Builder::new().name("retention".into()).spawn(forgets) {
            tracing::warn!(%error, "retention is tried again in a minute");
        }
    }
}

impl Sim {
    /// The last event that it has forgotten the way to: moments before cannot be looked at.
    #[must_use]
    pub fn horizon(&self) -> EventId {
        self.profile().horizon.as_deref().and_then(|event| event.parse().ok()).unwrap_or(EventId::ZERO)
    }

    /// Whether it is time to look whether something is to go by itself.
    pub(super) fn is_retention_due(&self) -> bool {
        let (profile, now) = (self.profile(), self.clock.now_ms());
        if profile.settings.retention.is_none() || now - self.retained_ms.load(Ordering::Relaxed) < EVERY_MS {
            return false;
        }
        self.retained_ms.store(now, Ordering::Relaxed);
        self.wanted_horizon(&profile.settings.retention, true).is_ok_and(|wanted| wanted > self.horizon())
    }

    /// How far back its retention has it remember; for what goes by itself, only if that is worth while.
    fn wanted_horizon(&self, retention: &Retention, by_itself: bool) -> io::Result<EventId> {
        let mut wanted = EventId::ZERO;
        let before = |event: EventId| EventId::from_u64(event.to_u64().saturating_sub(1));
        if let Some(age) = retention.age.as_deref().and_then(duration) {
            let oldest = self.clock.now_ms().saturating_sub(i64::try_from(age).unwrap_or(i64::MAX));
            wanted = wanted.max(before(EventId::first_of(oldest)));
        }
        let slack = |most: u64| if by_itself { most / SHARE } else { 0 };
        if let Some(most) = retention.events {
            let at = usize::try_from(most).unwrap_or(usize::MAX);
            let newest = self.own_events(true, at.saturating_add(1).saturating_add(usize::try_from(slack(most)).unwrap_or(0)))?;
            let is_much = newest.len() as u64 > most.saturating_add(slack(most));
            wanted = wanted.max(newest.get(at).filter(|_| is_much).map_or(EventId::ZERO, |(event, _)| *event));
        }
        if let Some(most) = retention.bytes {
            let (mut sum, mut over) = (0_u64, None);
            for (event, operation) in self.own_events(true, usize::MAX)? {
                sum = sum.saturating_add(size_of(&self.dir().event(operation, event)));
                if sum > most {
                    over = over.or(Some(event));
                }
                if sum > most.saturating_add(slack(most)) {
                    wanted = wanted.max(over.unwrap_or(event));
                    break;
                }
            }
        }
        Ok(wanted)
    }

    fn own_events(&self, newest_first: bool, most: usize) -> io::Result<Vec<(EventId, Operation)>> {
        self.events.find(&Filter::default(), (EventId::ZERO, EventId::from_u64(u64::MAX)), newest_first, most)
    }

    /// Removes what is to go, or only says what would.
    fn forget(&self, boot: &str, dry: bool, adopt: impl FnOnce(EventId) -> io::Result<()>) -> io::Result<Going> {
        let _running = self.flusher.running.lock();
        // Who writes all of it out must not have it taken away, and who is to forget must not be waited for that long.
        let alone = self.keeping.forgetting.try_write();
        if self.is_closed() || (alone.is_none() || self.keeping.kept.load(Ordering::Acquire) > 0) && !dry {
            return Ok(Going::default());
        }
        if !dry {
            self.finish_forgetting(boot)?;
        }
        self.flush_now(boot)?;
        let last = self.snapshot().view.committed.last_event();
        // The last event stays, so that what comes next is known to come after it.
        let limit = EventId::from_u64(last.min(self.settled()).to_u64().saturating_sub(1));
        let horizon = self.wanted_horizon(&self.profile().settings.retention, false)?.min(limit);
        // An event that there is: the ids between have no names.
        let there = self.events.find(&Filter::default(), (EventId::ZERO, horizon), true, 1)?;
        let horizon = there.first().map_or(EventId::ZERO, |(event, _)| *event);
        if horizon <= self.horizon().max(self.below()) {
            return Ok(Going::default());
        }
        let work = self.plan(horizon)?;
        if work.folders.is_empty() {
            return Ok(Going::default());
        }
        let going = Going {
            horizon: Some(horizon.to_string()),
            events: work.folders.iter().filter(|f| f.whole).count(),
            exchanges: work.folders.iter().filter(|f| !f.whole).count(),
            versions: work.folders.iter().map(|f| f.strip.len()).sum(),
        };
        if !dry {
            replace_file(&self.work_file(), &serde_json::to_vec(&work)?)?;
            self.journal.barrier()?;
            adopt(horizon)?;
            self.carry_out(&work)?;
        }
        Ok(going)
    }

    /// The last event of what it builds on.
    fn below(&self) -> EventId {
        self.store.layers.last().map_or(EventId::ZERO, |layer| layer.last)
    }

    fn work_file(&self) -> PathBuf {
        self.dir().root().join("retention.json")
    }

    /// What goes when nothing before `horizon` needs to be known.
    fn plan(&self, horizon: EventId) -> io::Result<Work> {
        let (snapshot, below) = (self.snapshot(), self.below());
        let mut records: BTreeMap<(EventId, Operation), EventRecord> = BTreeMap::new();
        let mut strips: BTreeMap<(EventId, Operation), BTreeSet<Named>> = BTreeMap::new();
        let mut seen: FxHashSet<(String, String)> = FxHashSet::default();
        // What was superseded since the last horizon was so by what happened since.
        let since = EventId::from_u64(self.horizon().max(below).to_u64() + 1);
        for (event, operation) in self.events.find(&Filter::default(), (since, horizon), false, usize::MAX)? {
            let Ok(record) = scan::record(self.dir(), operation, event) else { continue };
            for resource in record.resources.iter().filter(|r| !r.purged) {
                let (Some(type_name), Ok(id)) = (snapshot.definitions().find_resource_type(&resource.type_name), resource.id.parse()) else { continue };
                if !seen.insert((resource.type_name.clone(), resource.id.clone())) {
                    continue;
                }
                let then = snapshot.versions(type_name, &id).into_iter().filter(|v| v.event <= horizon && v.event > below);
                for version in then.skip(1) {
                    strips.entry((version.event, version.place.operation)).or_default().insert((resource.type_name.clone(), resource.id.clone(), version.id.0));
                }
            }
            records.insert((event, operation), record);
        }
        let mut folders = Vec::new();
        for at in strips.keys().chain(records.keys()).copied().collect::<BTreeSet<_>>() {
            let read = || scan::record(self.dir(), at.1, at.0).ok();
            let Some(record) = records.remove(&at).or_else(read) else { continue };
            let mut strip = strips.remove(&at).unwrap_or_default();
            // What begins a history anew masks what was before, and the newest of it is among what stays.
            strip.retain(|(type_name, id, _)| !record.resources.iter().any(|r| r.rewrites.is_some() && r.type_name == *type_name && r.id == *id));
            let whole = record.resources.iter().all(|r| r.rewrites.is_none() && (r.purged || strip.contains(&name_of(r))));
            folders.push(Folder { at: format!("{}/{}", at.1.directory(), at.0), strip, whole });
        }
        Ok(Work { horizon: horizon.to_string(), folders })
    }

    /// Ends what a stop has left half done.
    pub(super) fn finish_forgetting(&self, boot: &str) -> io::Result<bool> {
        let work: Work = match fs::read(self.work_file()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => serde_json::from_slice(&other?)?,
        };
        if self.profile().horizon.as_ref() != Some(&work.horizon) {
            // It had not begun.
            return fs::remove_file(self.work_file()).map(|()| false);
        }
        // What the index lacked was read from the folders again: it is there to be taken out only now.
        self.flush_now(boot)?;
        self.carry_out(&work)?;
        Ok(true)
    }

    /// Does what was written down; no flush is to be going on.
    fn carry_out(&self, work: &Work) -> io::Result<()> {
        let before = self.trim(work)?;
        self.past.clear();
        // Who reads a picture that still has it may go on for a while.
        let began = std::time::Instant::now();
        while Arc::strong_count(&before) > 1 && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(before);
        for folder in &work.folders {
            self.remove(folder)?;
        }
        let gone: FxHashSet<EventId> = work.folders.iter().filter(|f| f.whole).map(Folder::event).collect();
        self.events.forget(&gone)?;
        fs::remove_file(self.work_file())
    }

    /// Takes the versions that go out of the index; returns the picture that had them.
    fn trim(&self, work: &Work) -> io::Result<Arc<super::Snapshot>> {
        let (before, below) = (self.snapshot(), self.below());
        let mut gone: BTreeMap<(&str, &str), BTreeSet<(EventId, u64)>> = BTreeMap::new();
        for folder in &work.folders {
            for (type_name, id, version) in &folder.strip {
                gone.entry((type_name, id)).or_default().insert((folder.event(), *version));
            }
        }
        let mut trimmed = Vec::new();
        for ((type_name, id), versions) in gone {
            let Some(type_name) = before.definitions().find_resource_type(type_name) else { continue };
            let uid = super::snapshot::uid(type_name, &id.parse().map_err(|f: Failure| io::Error::other(f.diagnostics))?);
            // A history that was rewritten since has none of them anyway.
            if before.view.recent.is_rewritten(&uid) {
                continue;
            }
            let stays = |v: &Version| v.event > below && !versions.contains(&(v.event, v.id.0));
            let keep = before.view.committed.versions(&uid).into_iter().filter(stays).collect();
            trimmed.push(Trimmed { uid: uid.into(), type_name, keep });
        }
        if !trimmed.is_empty() {
            self.replace_committed(before.view.committed.trim(&trimmed)?);
        }
        Ok(before)
    }

    /// Removes an event folder, or what of it goes.
    fn remove(&self, folder: &Folder) -> io::Result<()> {
        let (operation, event) = folder.place();
        let place = self.dir().event(operation, event);
        if folder.whole {
            // Out of sight at once; what is left of it there is swept away at the next start.
            let aside = self.dir().staging().join(format!("forgotten-{event}"));
            return match fs::rename(&place, &aside) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.and_then(|()| fs::remove_dir_all(&aside)),
            };
        }
        let mut record: EventRecord = match fs::read(place.join(RECORD)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => serde_json::from_slice(&other?)?,
        };
        let mut files = Vec::new();
        for resource in record.resources.iter_mut().filter(|r| r.rewrites.is_none() && folder.strip.contains(&name_of(r))) {
            files.extend(resource.file.take());
            (resource.bytes, resource.purged) = (0, true);
        }
        files.extend([record.request.body.take(), record.response.body.take()].into_iter().flatten());
        record.request.body_bytes = 0;
        record.stripped = true;
        // A response may be the resource itself, which stays.
        files.retain(|file| !record.resources.iter().any(|r| r.file.as_ref() == Some(file)));
        replace_file(&place.join(RECORD), &serde_json::to_vec_pretty(&record)?)?;
        for file in files {
            match fs::remove_file(place.join(file)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

/// By what a stored version is known in an event.
fn name_of(stored: &StoredResource) -> Named {
    (stored.type_name.clone(), stored.id.clone(), stored.version_id)
}

/// The bytes of an event folder.
fn size_of(folder: &PathBuf) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|m| m.len()).sum()
}
