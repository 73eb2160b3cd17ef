//! `$diff`: the FHIRPath Patch that makes one version of a resource another.

use serde_json::{Value, json};

use super::{Call, Level};
use crate::fhir::{Failure, Kind, VersionId};
use crate::interaction::patch::diff::diff;
use crate::interaction::{Conditions, Done, Reply, not_found, vread};
use crate::sim::Snapshot;

/// Answers with Parameters.
///
/// # Errors
/// A version is not there; an element that a patch cannot name.
pub fn perform(call: &Call, snapshot: &Snapshot) -> Result<Reply, Failure> {
    call.refuse_unknown(&["from", "to"])?;
    let Level::Instance(type_name, id) = &call.level else {
        return Err(Failure::new(Kind::NotSupported, "$diff is of a resource: [type]/[id]/$diff?from=1&to=2"));
    };
    let newest = snapshot.versions(type_name, id).first().map(|v| v.id).ok_or_else(|| not_found(type_name, id))?;
    let to: VersionId = call.get("to").map_or(Ok(newest), str::parse)?;
    let from: VersionId = call.get("from").map_or(Ok(VersionId(to.0.saturating_sub(1))), str::parse)?;
    let content = |version| {
        let body = vread::perform(type_name, id, version, &Conditions::default(), snapshot)?.body.unwrap_or_default();
        serde_json::from_slice::<Value>(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))
    };
    let mut patch = json!({"resourceType": "Parameters"});
    let operations = diff(&content(from)?, &content(to)?, type_name, snapshot.definitions())?;
    if !operations.is_empty() {
        patch["parameter"] = operations.into();
    }
    Ok(Reply { body: Some(patch.to_string().into_bytes().into()), ..Reply::new(Done::Ok) })
}
