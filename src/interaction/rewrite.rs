//! A history rewritten: all versions of a resource as they shall be from now on, in one event. What they were before stays
//! in the folders of older events, unless it is purged.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::EventId;
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::search::extract;
use crate::sim::bodies::Body;
use crate::sim::{NewVersion, Rewrites, Snapshot};
use crate::version::{Change, Made, Operation, Version};

/// A version as it shall be.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// Its number.
    pub version: VersionId,
    /// What was done then.
    pub change: Change,
    /// Its last modification, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Its place among all versions, where it had one before.
    pub made: Option<Made>,
    /// Its content; none of a deletion.
    pub body: Option<Body>,
}

impl Rewritten {
    /// A version as it is.
    ///
    /// # Errors
    /// Its file is damaged.
    pub fn of(type_name: &'static str, version: &Version, snapshot: &Snapshot) -> Result<Self, Failure> {
        let body = if version.is_deletion() { None } else { Some(snapshot.body(type_name, version)?) };
        Ok(Self { version: version.id, change: version.change, modified_ms: version.modified_ms, made: Some(version.made), body })
    }
}

/// The changes that make `history`, oldest first, the history of a resource.
///
/// # Errors
/// The newest version is no resource.
pub fn changes(
    type_name: &'static str,
    id: &ResourceId,
    history: Vec<Rewritten>,
    rewrites: impl FnOnce(Vec<(Operation, EventId)>) -> Rewrites,
    snapshot: &Snapshot,
) -> Result<Vec<NewVersion>, Failure> {
    let mut before: Vec<(Operation, EventId)> = snapshot.versions(type_name, id).iter().map(|v| (v.place.operation, v.event)).collect();
    before.dedup();
    let newest = history.len().saturating_sub(1);
    let mut changes = Vec::with_capacity(history.len());
    for (n, version) in history.into_iter().enumerate() {
        // Only the newest is searched for.
        let keys = match version.body.as_ref().filter(|_| n == newest) {
            Some(body) => {
                let value: Value = serde_json::from_slice(body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
                Arc::new(extract(&value, type_name, id, version.modified_ms, &snapshot.origin()))
            }
            None => Arc::default(),
        };
        changes.push(NewVersion {
            type_name,
            id: id.clone(),
            version: version.version,
            change: version.change,
            body: version.body,
            keys,
            modified_ms: Some(version.modified_ms),
            made: version.made,
            rewrites: Rewrites::Nothing,
        });
    }
    if let Some(first) = changes.first_mut() {
        first.rewrites = rewrites(before);
    }
    Ok(changes)
}
