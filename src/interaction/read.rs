//! Read, <https://hl7.org/fhir/R4/http.html#read>.

use super::{Conditions, Done, Reply, Subject, not_found};
use crate::fhir::{Failure, Kind, ResourceId};
use crate::sim::Snapshot;
use crate::version::Version;

/// The current version of a resource.
///
/// # Errors
/// It never was, or was deleted.
pub fn perform(type_name: &'static str, id: &ResourceId, conditions: &Conditions, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let version = snapshot.latest(type_name, id).ok_or_else(|| not_found(type_name, id))?;
    of_version(type_name, id, &version, conditions, snapshot)
}

/// One version of a resource.
///
/// # Errors
/// The version is a deletion, or its file is damaged.
pub fn of_version(type_name: &'static str, id: &ResourceId, version: &Version, conditions: &Conditions, snapshot: &Snapshot) -> Result<Reply, Failure> {
    if version.is_deletion() {
        let message =
            format!("{type_name}/{id} was deleted at {} (version {}); its history is at {type_name}/{id}/_history", version.event.instant(), version.id);
        return Err(Failure::new(Kind::Deleted, message));
    }
    let subject = Some(Subject { type_name, id: id.clone(), version: version.id, event: version.event });
    if conditions.client_has(version) {
        return Ok(Reply { subject, ..Reply::new(Done::NotModified) });
    }
    Ok(Reply { body: Some(snapshot.body(type_name, version)?), subject, ..Reply::new(Done::Ok) })
}
