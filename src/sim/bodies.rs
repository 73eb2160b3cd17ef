//! Stored resources as bytes: a bounded cache over the files.

use std::fs;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::fhir::{Failure, Kind};
use crate::simdb::SimDir;
use crate::version::Version;

/// A stored resource, byte for byte.
pub type Body = Arc<[u8]>;

/// What one cached body may weigh at most.
const MAX_CACHED_BYTES: usize = 1 << 20;

/// The bodies of all simulators.
#[derive(Debug)]
pub struct Bodies {
    cache: Cache<Key, Body, Weight>,
}

/// Serial number of the open simulator, event, file number.
type Key = (u64, u64, u32);

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, Body> for Weight {
    fn weight(&self, _: &Key, body: &Body) -> u64 {
        body.len() as u64 + 100
    }
}

impl Bodies {
    /// A cache of at most `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / 2_048).unwrap_or(1_024);
        Self { cache: Cache::with_weighter(items, bytes, Weight) }
    }

    /// Reads a version of a resource of the simulator with this `serial`.
    ///
    /// # Errors
    /// [`Kind::Damaged`]: the file is missing or has another length than was written.
    pub fn read(&self, serial: u64, dir: &SimDir, type_name: &str, version: &Version) -> Result<Body, Failure> {
        let key = (serial, version.event.to_u64(), version.place.number);
        if let Some(body) = self.cache.get(&key) {
            return Ok(body);
        }
        let path = dir.resource(version.event, version.place, type_name);
        let shown = format!("{}/{}/{}{}.json", version.place.operation.directory(), version.event, type_name, version.place.number);
        let body: Body = fs::read(&path).map_err(|e| Failure::new(Kind::Damaged, format!("event file {shown} cannot be read: {e}")))?.into();
        if body.len() as u64 != u64::from(version.place.bytes) {
            let message = format!("event file {shown} is damaged: it has {} bytes, {} were written", body.len(), version.place.bytes);
            return Err(Failure::new(Kind::Damaged, message));
        }
        self.put(key, &body);
        Ok(body)
    }

    /// Keeps a body that was just written.
    pub fn keep(&self, serial: u64, version: &Version, body: &Body) {
        self.put((serial, version.event.to_u64(), version.place.number), body);
    }

    fn put(&self, key: Key, body: &Body) {
        if body.len() <= MAX_CACHED_BYTES {
            self.cache.insert(key, body.clone());
        }
    }
}
