//! One simulator at one moment: everything a reader needs, and nothing that changes under it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::Value;

use super::base::{Base, Layer};
use super::bodies::{Bodies, Body};
use super::commit::{NewVersion, Rewrites, Stamp};
use super::held::Holders;
use super::profile::Settings;
use crate::clock::EventId;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, ResourceId};
use crate::index::{Entry, Span, View};
use crate::search::extract;
use crate::search::extract::Origin;
use crate::search::params::Params;
use crate::simdb::{SimDir, SimId};
use crate::version::Version;

/// Most versions that may have been made since a moment that is looked back to.
const MAX_CHANGED: usize = 50_000;

/// What stays the same for all snapshots of an open simulator.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) sim: SimId,
    pub(super) dir: SimDir,
    /// The directories that it builds on, the lowest first.
    pub(super) layers: Vec<Layer>,
    /// What holds them.
    pub(super) base: Option<Arc<Base>>,
    pub(super) version: FhirVersion,
    /// `/sim/lab__one/fhir/`.
    pub(super) own_path: String,
    /// What one search may cost.
    pub(super) search_steps: Arc<AtomicU64>,
    pub(super) holders: Holders,
    pub(super) bodies: Arc<Bodies>,
    /// Tells open simulators apart in the cache of bodies.
    pub(super) serial: u64,
}

impl Store {
    /// The directory that holds an event.
    pub(super) fn dir_of(&self, event: EventId) -> &SimDir {
        self.layers.iter().find(|layer| event <= layer.last).map_or(&self.dir, |layer| &layer.dir)
    }
}

/// An immutable picture of one simulator.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) store: Arc<Store>,
    pub(super) settings: Arc<Settings>,
    pub(super) view: View,
    /// What can be searched by.
    pub(super) params: Params,
    /// What writes are indexed for: parameters that cannot be searched by yet, too.
    pub(super) indexing: Params,
    /// What the parameters of its own were that all of it is indexed for.
    pub(super) indexed_with: Arc<str>,
    pub(super) counts: imbl::OrdMap<&'static str, u64>,
    /// The last event that wrote or tried to.
    pub(super) last: EventId,
    /// How many of these there were.
    pub(super) sequence: u64,
    /// The last event that is looked at, where that is not the last there is: versions made since do not show.
    pub(super) until: Option<EventId>,
    /// Bodies of a transaction that is being planned: not on the disk yet.
    pub(super) pending: imbl::HashMap<u32, Body>,
    pub(super) planned: EventId,
}

/// A version of a resource and its content.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its type.
    pub type_name: &'static str,
    /// The version.
    pub version: Version,
    /// The resource, byte for byte as stored.
    pub body: Body,
}

impl Snapshot {
    pub(super) fn new(store: Arc<Store>, settings: Settings, view: View, last: EventId, sequence: u64, counts: imbl::OrdMap<&'static str, u64>) -> Self {
        let params = Params::new(store.version);
        let (indexing, indexed_with) = (params.clone(), Arc::from(""));
        let settings = Arc::new(settings);
        Self {
            store,
            settings,
            view,
            params,
            indexing,
            indexed_with,
            counts,
            last,
            sequence,
            until: None,
            pending: imbl::HashMap::default(),
            planned: EventId::ZERO,
        }
    }

    /// The simulator it is of.
    #[must_use]
    pub fn sim(&self) -> &SimId {
        &self.store.sim
    }

    /// What the simulator is told to do.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The FHIR version.
    #[must_use]
    pub fn version(&self) -> FhirVersion {
        self.store.version
    }

    /// The tables of the FHIR version.
    #[must_use]
    pub fn definitions(&self) -> &'static Definitions {
        Definitions::of(self.store.version)
    }

    /// The last event in it.
    #[must_use]
    pub fn last_event(&self) -> EventId {
        self.last
    }

    /// Whether it looks back to right after `event`.
    pub(super) fn is_of(&self, event: EventId) -> bool {
        self.until == Some(event)
    }

    /// How many events there are, reads aside.
    #[must_use]
    pub fn event_count(&self) -> u64 {
        self.sequence
    }

    /// Current resources by type.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counts.iter().filter(|(_, n)| **n > 0).map(|(t, n)| (*t, *n))
    }

    /// What keys depend on besides a resource's content.
    #[must_use]
    pub fn origin(&self) -> Origin<'_> {
        Origin { version: self.store.version, own_path: &self.store.own_path, params: &self.indexing }
    }

    /// The search parameters that can be searched by.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The latest version of a resource; it may be a deletion.
    #[must_use]
    pub fn latest(&self, type_name: &'static str, id: &ResourceId) -> Option<Version> {
        if self.until.is_some() {
            return self.versions(type_name, id).into_iter().next();
        }
        self.view.latest(&uid(type_name, id)).map(|hit| hit.version)
    }

    /// Every version of a resource, newest first.
    #[must_use]
    pub fn versions(&self, type_name: &'static str, id: &ResourceId) -> Vec<Version> {
        let mut versions = self.view.versions(&uid(type_name, id));
        if let Some(until) = self.until {
            versions.retain(|v| v.was_there(until));
        }
        versions
    }

    /// How many versions a span of events holds, and `count` of them in order, after `offset`, each with its resource.
    #[must_use]
    pub fn past(&self, span: &Span, offset: usize, count: usize) -> (usize, Vec<(&'static str, ResourceId, Version)>) {
        let (from, to) = (*span.events.start(), *span.events.end());
        let clipped = Span { events: from..=self.until.map_or(to, |until| until.min(to)), ..span.clone() };
        let (total, page) = self.view.past(&clipped, offset, count);
        let named = |(uid, version): (Arc<str>, Version)| {
            let (type_name, id) = uid.split_once('/')?;
            Some((self.definitions().find_resource_type(type_name)?, id.parse().ok()?, version))
        };
        (total, page.into_iter().filter_map(named).collect())
    }

    /// The content of a version.
    ///
    /// # Errors
    /// [`Kind::Damaged`]: the file is not what was written.
    pub fn body(&self, type_name: &str, version: &Version) -> Result<Body, Failure> {
        if version.event == self.planned
            && let Some(body) = self.pending.get(&version.place.number)
        {
            return Ok(body.clone());
        }
        self.store.bodies.read(self.store.serial, self.store.dir_of(version.event), type_name, version)
    }

    /// The content of an entry of the index, if it can be read.
    pub(super) fn body_of(&self, entry: &Entry) -> Option<Body> {
        self.body(entry.type_name, &entry.version).ok()
    }

    /// The same of which what came after `event` is not looked at: reads and histories are those of then. A search needs
    /// [`Snapshot::as_of`], which costs more.
    #[must_use]
    pub fn looking_back(&self, event: EventId) -> Self {
        Self { until: Some(event), last: event.min(self.last), ..self.clone() }
    }

    /// The simulator as it was right after `event`: what changed since is masked by what it was.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn as_of(&self, event: EventId) -> Result<Self, Failure> {
        if event >= self.last {
            return Ok(self.looking_back(event));
        }
        let changed = self.view.changed_after(event, MAX_CHANGED).ok_or_else(|| {
            let message =
                format!("more than {MAX_CHANGED} versions were made since event {event}, too many for a search to look back over; reads and histories of then are answered, and a search of now");
            Failure::new(Kind::TooCostly, message)
        })?;
        let mut instead = Vec::new();
        for (uid, version) in &changed {
            let Some(version) = version.filter(|v| !v.is_deletion()) else { continue };
            if let Some((type_name, id)) = uid.split_once('/') {
                instead.push(Arc::new(self.entry(self.definitions().resource_type(type_name)?, &id.parse()?, version)?));
            }
        }
        let changed: Vec<Arc<str>> = changed.into_iter().map(|(uid, _)| uid).collect();
        Ok(Self { view: self.view.overlaid(instead, &changed), ..self.looking_back(event) })
    }

    /// The index entry of a stored version.
    fn entry(&self, type_name: &'static str, id: &ResourceId, version: Version) -> Result<Entry, Failure> {
        let body = self.body(type_name, &version)?;
        let value: Value = serde_json::from_slice(&body).map_err(|e| Failure::new(Kind::Damaged, format!("{type_name}/{id}: {e}")))?;
        Ok(self.entry_of(type_name, id, version, &value))
    }

    /// The index entry of a resource.
    pub(super) fn entry_of(&self, type_name: &'static str, id: &ResourceId, version: Version, value: &Value) -> Entry {
        let gone = version.is_deletion();
        let keys = if gone { Arc::default() } else { Arc::new(extract(value, type_name, id, version.modified_ms, &self.origin())) };
        Entry { uid: uid(type_name, id).into(), type_name, version, keys, again: false, rewrites: false }
    }

    /// Takes in a change that is planned and not stored yet.
    pub fn plan(&mut self, new: &NewVersion, stamp: Stamp, number: u32) {
        self.planned = stamp.event;
        if let Some(body) = &new.body {
            self.pending.insert(number, body.clone());
        }
        self.apply(new, stamp, number);
    }

    /// Takes a change in.
    pub(super) fn apply(&mut self, new: &NewVersion, stamp: Stamp, number: u32) {
        let version = new.version_of(stamp, number);
        let (keys, rewrites) = (new.keys.clone(), new.rewrites != Rewrites::Nothing);
        self.push(Arc::new(Entry { uid: new.uid(), type_name: new.type_name, version, keys, again: false, rewrites }));
    }

    /// Takes an entry in and counts it.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        let (type_name, after) = (entry.type_name, !entry.version.is_deletion());
        let before = self.view.push(entry);
        if before != after {
            let count = self.counts.entry(type_name).or_insert(0);
            *count = if after { *count + 1 } else { count.saturating_sub(1) };
        }
    }
}

pub(super) fn uid(type_name: &str, id: &ResourceId) -> String {
    format!("{type_name}/{id}")
}
