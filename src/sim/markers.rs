//! Markers: names that a test gives to moments, so that it can ask for what happened since.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::commit::Sim;
use super::feed::Happening;
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::simdb::SimDir;
use crate::simdb::write::replace_file;

/// Most markers of a simulator.
const MAX_MARKERS: usize = 1_000;

/// A moment with a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marker {
    /// Its name.
    pub name: String,
    /// The moment, as an event id that no event has: what came before is less, what came after greater.
    pub event: String,
    /// The same as an instant.
    pub instant: String,
}

impl Sim {
    /// Gives the name to this moment; a marker of that name moves here.
    ///
    /// # Errors
    /// The name is malformed, there are too many, or the disk refuses.
    pub fn mark(&self, name: &str) -> Result<Marker, Failure> {
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !name.starts_with(['.', '-']);
        if !is_name {
            return Err(Failure::new(
                Kind::BadValue,
                format!("'{}' is no name of a marker; it has 1-64 of A-Z a-z 0-9 . _ - and begins with none of . and -", clip(name)),
            ));
        }
        // Under the writer's lock: an exchange is wholly before it or wholly after.
        let _guard = self.writer.lock();
        self.refuse_if_over()?;
        let mut all = read(&self.store.dir);
        if all.len() >= MAX_MARKERS && !all.contains_key(name) {
            return Err(Failure::new(Kind::TooCostly, format!("there are {MAX_MARKERS} markers, which is the most; DELETE those that are done with")));
        }
        let event = self.next_event();
        all.insert(name.to_owned(), event.to_string());
        write(&self.store.dir, &all)?;
        self.feed.tell(|| Happening::Marker(name.to_owned(), event));
        Ok(Marker { name: name.to_owned(), event: event.to_string(), instant: event.instant() })
    }

    /// The markers, oldest first.
    #[must_use]
    pub fn markers(&self) -> Vec<Marker> {
        let mut all: Vec<(EventId, String)> = read(&self.store.dir).into_iter().filter_map(|(name, event)| Some((event.parse().ok()?, name))).collect();
        all.sort_unstable();
        all.into_iter().map(|(event, name)| Marker { name, event: event.to_string(), instant: event.instant() }).collect()
    }

    /// The moment of a marker.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn marker(&self, name: &str) -> Result<EventId, Failure> {
        let found = read(&self.store.dir).get(name).and_then(|event| event.parse().ok());
        found.ok_or_else(|| {
            let known: Vec<String> = self.markers().into_iter().map(|m| m.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { clip(&known.join(", ")) };
            Failure::new(Kind::NotFound, format!("there is no marker '{}'; set: {known}. POST /api/sims/{}/markers sets one", clip(name), self.id()))
        })
    }

    /// Takes the name from its moment.
    ///
    /// # Errors
    /// There is none of that name, or the disk refuses.
    pub fn unmark(&self, name: &str) -> Result<(), Failure> {
        self.marker(name)?;
        let _guard = self.writer.lock();
        self.refuse_if_over()?;
        let mut all = read(&self.store.dir);
        all.remove(name);
        write(&self.store.dir, &all)
    }
}

fn file(dir: &SimDir) -> PathBuf {
    dir.root().join("markers.json")
}

fn read(dir: &SimDir) -> BTreeMap<String, String> {
    fs::read(file(dir)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write(dir: &SimDir, all: &BTreeMap<String, String>) -> Result<(), Failure> {
    let written = serde_json::to_vec_pretty(all).map_err(io::Error::from).and_then(|json| replace_file(&file(dir), &json));
    written.map_err(|e| super::storage_failure("markers.json cannot be written", &e))
}
