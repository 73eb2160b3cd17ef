//! Simulators in an instant: snapshots, resets to them, clones.
//!
//! A snapshot seals what is there: the simulator's directory becomes a base, `.bases/<id>`, by one rename, and an empty
//! directory that names the base takes its place. A clone is another such directory, so it costs the same however much the base
//! holds. Bases lie on one another, are never written again, and go when neither a simulator nor a snapshot needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::base::{MAX_DEPTH, sync};
use super::commit::Sim;
use super::lifecycle::Saved;
use super::profile::Profile;
use super::registry::{Registry, Wanted, exchange, read_profile};
use super::slot::Slot;
use crate::clock::instant;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::simdb::layout::bases;
use crate::simdb::write::replace_file;
use crate::simdb::{BaseId, SimDir, SimId};

/// Most snapshots of a simulator.
const MAX_SNAPSHOTS: usize = 1_000;
/// The file that tells, in a directory on its way to become a base, which one, so that the next start ends it.
const SEALING: &str = "sealing.txt";
/// The files of a simulator that stay with it when what it holds is sealed.
const STAYS: [&str; 2] = ["markers.json", SNAPSHOTS];
const SNAPSHOTS: &str = "snapshots.json";

/// A named state of a simulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotInfo {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// When it was made.
    pub created: String,
    /// The last event in it.
    pub last_event: Option<String>,
    /// How many events are in it, reads aside.
    pub events: u64,
    /// Current resources by type.
    pub counts: BTreeMap<String, u64>,
    base: BaseId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    horizon: Option<String>,
}

/// What is known of the snapshots of a simulator, by name.
type Snapshots = BTreeMap<String, SnapshotInfo>;

/// What cannot be read is not nothing: bases that only snapshots need would be removed.
fn read_snapshots(dir: &SimDir) -> io::Result<Snapshots> {
    match fs::read(dir.root().join(SNAPSHOTS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Snapshots::default()),
        Err(e) => Err(e),
        Ok(bytes) => {
            let said = |e| io::Error::new(io::ErrorKind::InvalidData, format!("{SNAPSHOTS}: {e}; mend it or, to forget the snapshots, remove it"));
            serde_json::from_slice(&bytes).map_err(said)
        }
    }
}

fn write_snapshots(dir: &Path, all: &Snapshots) -> io::Result<()> {
    replace_file(&dir.join(SNAPSHOTS), &serde_json::to_vec_pretty(all)?)
}

impl Registry {
    /// Gives the state of a simulator a name; a snapshot of that name is replaced.
    ///
    /// # Errors
    /// The name is malformed, there are too many, the disk refuses; then the simulator is as it was.
    pub fn take_snapshot(&self, id: &SimId, name: &str) -> Result<SnapshotInfo, Failure> {
        proven(name)?;
        let collecting = self.shared.collecting.read();
        let made = self.gated(id, |slot| {
            let dir = self.dir(id);
            let mut all = self.snapshots_of(id)?;
            if all.len() >= MAX_SNAPSHOTS && !all.contains_key(name) {
                return Err(Failure::new(Kind::TooCostly, format!("there are {MAX_SNAPSHOTS} snapshots, which is the most; DELETE those that are done with")));
            }
            let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be sealed"), &e);
            let (base, saved) = self.seal(slot)?;
            let (created, horizon) = (instant(self.clock().now_ms()), self.read_profile(id).map_err(failed)?.horizon);
            let made = SnapshotInfo { name: name.to_owned(), created, last_event: saved.last_event, events: saved.events, counts: saved.counts, base, horizon };
            all.insert(name.to_owned(), made.clone());
            write_snapshots(dir.root(), &all).and_then(|()| self.shared.journal.barrier()).map_err(failed)?;
            Ok(made)
        });
        drop(collecting);
        // One of the same name may have been the last to need its base.
        made.inspect(|_| self.collect())
    }

    /// The snapshots of a simulator, by name.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`].
    pub fn snapshots(&self, id: &SimId) -> Result<Vec<SnapshotInfo>, Failure> {
        self.summary(id)?;
        Ok(self.snapshots_of(id)?.into_values().collect())
    }

    /// Forgets a snapshot. What was cloned from it stays.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete_snapshot(&self, id: &SimId, name: &str) -> Result<(), Failure> {
        self.gated(id, |_| {
            let dir = self.dir(id);
            let mut all = self.snapshots_of(id)?;
            all.remove(name).ok_or_else(|| no_snapshot(id, name, &all))?;
            let written = write_snapshots(dir.root(), &all).and_then(|()| self.shared.journal.barrier());
            written.map_err(|e| super::storage_failure("snapshots.json cannot be written", &e))
        })
        .inspect(|()| self.collect())
    }

    /// Makes a simulator that begins as another is now, or as a snapshot of it; with settings of its own where `wanted` names some.
    ///
    /// # Errors
    /// [`Kind::Conflict`]: there is one of this name; there is no such simulator or snapshot; it is of another FHIR version.
    pub fn clone_sim(&self, id: &SimId, from: &SimId, snapshot: Option<&str>, wanted: &Wanted) -> Result<(), Failure> {
        Self::refuse_taken(id, &self.sims.read())?;
        // What it will build on must not be collected before it is there.
        let _collecting = self.shared.collecting.read();
        let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be made"), &e);
        let (profile, saved) = self.gated(from, |slot| {
            let profile = self.read_profile(from).map_err(failed)?;
            let (horizon, base, saved) = if let Some(name) = snapshot {
                self.snapshot_of(from, name)?
            } else {
                let (base, saved) = self.seal(slot)?;
                (profile.horizon.clone(), base, saved)
            };
            Ok((Profile { base: Some(base), horizon, ..profile }, saved))
        })?;
        if let Some(version) = wanted.fhir_version.filter(|v| *v != profile.version()) {
            let message = format!("simulator '{from}' has FHIR version {}; a clone of it cannot have {version}", profile.fhir_version);
            return Err(Failure::new(Kind::Conflict, message));
        }
        let profile = Profile { settings: profile.settings.with(&wanted.settings)?, created: instant(self.clock().now_ms()), ..profile };
        let staged = self.stage_on(id, &profile, &saved, &[]).map_err(failed)?;
        self.place(id, &staged)
    }

    /// Makes a simulator what a snapshot, of it or of another, is; its settings stay.
    ///
    /// # Errors
    /// There is no such snapshot, or it is of another FHIR version; the disk's refusal, and then it is as it was.
    pub fn reset_to(&self, id: &SimId, of: &SimId, name: &str) -> Result<(), Failure> {
        let collecting = self.shared.collecting.read();
        self.gated(id, |slot| {
            let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be reset"), &e);
            self.summary(of)?;
            let (horizon, base, saved) = self.snapshot_of(of, name)?;
            let (own, other) = (self.read_profile(id).map_err(failed)?, self.read_profile(of).map_err(failed)?);
            if own.version() != other.version() {
                let message = format!("simulator {id} has FHIR version {}, and {of}@{name} has {}", own.fhir_version, other.fhir_version);
                return Err(Failure::new(Kind::Conflict, message));
            }
            let profile = Profile { base: Some(base), horizon, ..own };
            let staged = self.stage_on(id, &profile, &saved, &[SNAPSHOTS]).map_err(failed)?;
            self.exchange_directory(slot, &staged).map_err(failed)
        })?;
        drop(collecting);
        self.collect();
        Ok(())
    }

    fn dir(&self, id: &SimId) -> SimDir {
        SimDir::new(&self.shared.root, id)
    }

    fn snapshots_of(&self, id: &SimId) -> Result<Snapshots, Failure> {
        read_snapshots(&self.dir(id)).map_err(|e| super::storage_failure(&format!("the snapshots of simulator {id} cannot be read"), &e))
    }

    /// The horizon, the base and the counts of a snapshot.
    fn snapshot_of(&self, id: &SimId, name: &str) -> Result<(Option<String>, BaseId, Saved), Failure> {
        let all = self.snapshots_of(id)?;
        let found = all.get(name).cloned().ok_or_else(|| no_snapshot(id, name, &all))?;
        Ok((found.horizon, found.base, Saved { events: found.events, last_event: found.last_event, counts: found.counts }))
    }

    /// The base that holds all of a simulator, whose gate is held: the one it builds on, if nothing was added, else a new one.
    fn seal(&self, slot: &Slot) -> Result<(BaseId, Saved), Failure> {
        let id = &slot.id;
        let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be sealed"), &e);
        let profile = self.read_profile(id).map_err(failed)?;
        let sim = if let Some(sim) = slot.open.load_full() {
            sim
        } else {
            let sim = Sim::open(&self.shared, id, profile.clone(), slot).map_err(failed)?;
            slot.open.store(Some(sim.clone()));
            sim
        };
        if let Some(base) = &profile.base
            && sim.is_as_its_base()
        {
            return Ok((base.clone(), sim.saved()));
        }
        if sim.depth() >= MAX_DEPTH {
            let message = format!(
                "{MAX_DEPTH} snapshots lie on one another, which is the most; GET /api/sims/{id}/archive and PUT that to another name: there it lies on none"
            );
            return Err(Failure::new(Kind::TooCostly, message));
        }
        self.seal_away(slot, &sim, profile).map_err(failed)
    }

    /// Makes the directory of a simulator a base, and an empty one that names it take its place.
    fn seal_away(&self, slot: &Slot, sim: &Arc<Sim>, profile: Profile) -> io::Result<(BaseId, Saved)> {
        let (id, dir) = (&slot.id, self.dir(&slot.id));
        let base = BaseId::random();
        // What is shown of it until its successor is there.
        sim.save();
        slot.open.store(None);
        sim.seal(&self.shared.boot).inspect_err(|_| {
            // Two writers must never be: this one goes on, unless it has ended.
            if !sim.is_over() {
                slot.open.store(Some(sim.clone()));
            }
        })?;
        let saved = sim.saved();
        let staged = self.stage_on(id, &Profile { base: Some(base.clone()), ..profile }, &saved, &STAYS)?;
        // Recovery goes by events: what happened before the seal must be on the disk, or in the folders that are moved.
        self.shared.journal.barrier()?;
        fs::create_dir_all(bases(&self.shared.root))?;
        fs::write(dir.root().join(SEALING), base.to_string())?;
        let sealed = SimDir::of_base(&self.shared.root, &base);
        exchange(&staged, dir.root()).inspect_err(|_| drop(fs::remove_file(dir.root().join(SEALING))))?;
        // If this is the last thing that happens, the next start does the rest.
        fs::rename(&staged, sealed.root())?;
        // Until both are on the disk, the next start must be able to tell.
        self.shared.journal.barrier()?;
        fs::remove_file(sealed.root().join(SEALING))?;
        let (shared, made) = (self.shared.clone(), base.clone());
        std::thread::Builder::new().name("seal".into()).spawn(move || sync(&shared, &made))?;
        Ok((base, saved))
    }

    /// Makes the directory of a simulator that builds on something, with what stays of the one it replaces.
    fn stage_on(&self, id: &SimId, profile: &Profile, saved: &Saved, stays: &[&str]) -> io::Result<PathBuf> {
        let staged = self.stage(id, profile)?;
        fs::write(staged.join("summary.json"), serde_json::to_vec(saved)?)?;
        for name in stays {
            match fs::copy(self.dir(id).root().join(name), staged.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(staged)
    }

    /// Copies the names of a simulator's snapshots into the directory that is to take the place of its.
    pub(super) fn keep_snapshots(&self, id: &SimId, staged: &Path) -> io::Result<()> {
        let all = read_snapshots(&self.dir(id))?;
        if all.is_empty() { Ok(()) } else { write_snapshots(staged, &all) }
    }

    /// Ends what a stop has left half done; called before anything is opened. Returns what it did.
    pub(super) fn recover_sealing(root: &Path) -> io::Result<Vec<String>> {
        let mut done = Vec::new();
        for folder in [root.join(".new"), bases(root)] {
            let found = match fs::read_dir(&folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in found {
                let path = entry?.path();
                let Ok(named) = fs::read_to_string(path.join(SEALING)) else { continue };
                let base = BaseId::try_from(named.trim().to_owned()).map_err(io::Error::other)?;
                let id = fs::read_to_string(path.join("simid.txt")).unwrap_or_default();
                // What is not in its place yet is on the way there: the simulator names it already.
                let place = SimDir::of_base(root, &base);
                if path != place.root() {
                    fs::create_dir_all(bases(root))?;
                    fs::rename(&path, place.root())?;
                }
                fs::remove_file(place.root().join(SEALING))?;
                done.push(format!("a snapshot of {} is complete now", id.trim()));
            }
        }
        Ok(done)
    }

    /// Removes the bases that nothing needs any more.
    fn collect(&self) {
        let _alone = self.shared.collecting.write();
        if let Err(error) = self.unneeded().and_then(|unneeded| unneeded.iter().try_for_each(|base| self.throw_away(base))) {
            tracing::warn!(%error, "unneeded bases could not be removed; the next snapshot, reset or deletion tries again");
        }
    }

    /// Where they are.
    fn unneeded(&self) -> io::Result<Vec<PathBuf>> {
        let all = match fs::read_dir(bases(&self.shared.root)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let all: BTreeSet<BaseId> = all.filter_map(|entry| BaseId::try_from(entry.ok()?.file_name().into_string().ok()?).ok()).collect();
        if all.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<SimId> = self.sims.read().values().map(|slot| slot.id.clone()).collect();
        let mut needed = BTreeSet::new();
        for id in ids {
            let dir = self.dir(&id);
            let mut next: Vec<BaseId> = read_snapshots(&dir)?.into_values().map(|s| s.base).collect();
            match read_profile(&dir) {
                Ok(profile) => next.extend(profile.base),
                // Deleted meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            while let Some(base) = next.pop() {
                if needed.insert(base.clone()) {
                    next.extend(read_profile(&SimDir::of_base(&self.shared.root, &base))?.base);
                }
            }
        }
        Ok(all.difference(&needed).map(|base| SimDir::of_base(&self.shared.root, base).root().to_owned()).collect())
    }

    /// Whether a simulator, or a snapshot of it, builds on something.
    pub(super) fn needs_bases(&self, id: &SimId) -> bool {
        self.read_profile(id).is_ok_and(|profile| profile.base.is_some()) || read_snapshots(&self.dir(id)).is_ok_and(|all| !all.is_empty())
    }

    /// Removes what a deleted or emptied simulator was the last to need.
    pub(super) fn collect_after(&self, built_on_something: bool) {
        if built_on_something {
            self.collect();
        }
    }
}

/// Proves a snapshot's name.
fn proven(name: &str) -> Result<(), Failure> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with(['.', '-']) {
        return Ok(());
    }
    Err(Failure::new(Kind::BadValue, format!("'{}' is no name of a snapshot; it has 1-64 of A-Z a-z 0-9 . _ - and begins with none of . and -", clip(name))))
}

fn no_snapshot(id: &SimId, name: &str, all: &Snapshots) -> Failure {
    let known: Vec<&str> = all.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { clip(&known.join(", ")) };
    let message = format!("simulator {id} has no snapshot '{}'; it has: {known}. POST /api/sims/{id}/snapshots takes one", clip(name));
    Failure::new(Kind::NotFound, message)
}
