//! Read, <https://hl7.org/fhir/R4/http.html#read>.

use super::operation::Definition;
use super::{Conditions, Done, Reply, Subject, definition, not_found};
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, ResourceId};
use crate::sim::{Snapshot, Versioning};
use crate::version::Version;

/// The current version of a resource.
///
/// # Errors
/// It never was, or was deleted.
pub fn perform(type_name: &'static str, id: &ResourceId, conditions: &Conditions, subset: &Subset, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let Some(version) = snapshot.latest(type_name, id) else {
        // The parameters and operations that the CapabilityStatement names can be read, too.
        let defined = match type_name {
            "SearchParameter" => definition::by_id(id.as_str(), snapshot.params()),
            "OperationDefinition" => Definition::resource(id.as_str(), snapshot.version()),
            _ => None,
        };
        let defined = defined.ok_or_else(|| not_found(type_name, id))?;
        return Ok(Reply { body: Some(defined.to_string().into_bytes().into()), ..Reply::new(Done::Ok) });
    };
    of_version(type_name, id, &version, conditions, subset, snapshot)
}

/// One version of a resource.
///
/// # Errors
/// The version is a deletion, or its file is damaged.
pub fn of_version(
    type_name: &'static str,
    id: &ResourceId,
    version: &Version,
    conditions: &Conditions,
    subset: &Subset,
    snapshot: &Snapshot,
) -> Result<Reply, Failure> {
    if version.is_deletion() {
        let history = match snapshot.settings().versioning {
            Versioning::NoVersion => String::new(),
            Versioning::Versioned | Versioning::VersionedUpdate => format!(" (version {}); its history is at {type_name}/{id}/_history", version.id),
        };
        let message = format!("{type_name}/{id} was deleted at {}{history}", version.modified());
        return Err(Failure::new(Kind::Deleted, message));
    }
    let subject = Some(Subject::of(type_name, id.clone(), version, snapshot));
    if conditions.client_has(version) {
        return Ok(Reply { subject, ..Reply::new(Done::NotModified) });
    }
    let mut body = snapshot.body(type_name, version)?;
    if subset.is_partial() {
        let text = std::str::from_utf8(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        body = subset.of(text, type_name, snapshot.definitions()).into_bytes().into();
    }
    Ok(Reply { body: Some(body), subject, ..Reply::new(Done::Ok) })
}
