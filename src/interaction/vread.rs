//! Vread, <https://hl7.org/fhir/R4/http.html#vread>.

use super::{Conditions, Reply, not_found, read};
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::sim::{Snapshot, Versioning};

/// A given version of a resource.
///
/// # Errors
/// It never was, or is a deletion.
pub fn perform(
    type_name: &'static str,
    id: &ResourceId,
    wanted: VersionId,
    conditions: &Conditions,
    subset: &Subset,
    snapshot: &Snapshot,
) -> Result<Reply, Failure> {
    refuse_without_versions(snapshot)?;
    let versions = snapshot.versions(type_name, id);
    let newest = versions.first().ok_or_else(|| not_found(type_name, id))?;
    match versions.iter().find(|v| v.id == wanted) {
        Some(version) => read::of_version(type_name, id, version, conditions, subset, snapshot),
        None => Err(Failure::new(Kind::NotFound, format!("{type_name}/{id} has no version {wanted}; the newest is {}", newest.id))),
    }
}

/// Refuses what looks at versions where clients see none.
///
/// # Errors
/// [`Kind::NotFound`], <https://hl7.org/fhir/R4/http.html#vread>.
pub(super) fn refuse_without_versions(snapshot: &Snapshot) -> Result<(), Failure> {
    if snapshot.settings().versioning == Versioning::NoVersion {
        let message = "this simulator shows no versions: its setting 'versioning' is no-version; with versioned it has versions and history";
        return Err(Failure::new(Kind::NotFound, message));
    }
    Ok(())
}
