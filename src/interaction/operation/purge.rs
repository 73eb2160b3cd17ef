//! `$purge`, also `$expunge`: removes the superseded versions of a resource, and the exchanges that brought them, from the disk.
//! The current version stays as it is; of a deleted resource nothing stays.

use super::{Call, Level};
use crate::fhir::{Failure, Kind, VersionId};
use crate::interaction::rewrite::{self, Rewritten};
use crate::interaction::{Done, Env, Reply, not_found};
use crate::sim::{Rewrites, Snapshot};
use crate::version::Change;

/// Answers with an OperationOutcome that says what was removed.
///
/// # Errors
/// There is no such resource, or it is not at the version that `If-Match` asks for.
pub fn perform(call: &Call, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let Level::Instance(type_name, id) = &call.level else {
        return Err(Failure::new(Kind::NotSupported, "a purge is of one resource: [type]/[id]/$purge"));
    };
    let versions = snapshot.versions(type_name, id);
    let current = versions.first().ok_or_else(|| not_found(type_name, id))?;
    call.conditions.require_match(&format!("{type_name}/{id}"), Some(current))?;
    let (kept, said) = if current.is_deletion() {
        let nothing = Rewritten { version: VersionId(0), change: Change::Purge, modified_ms: env.stamp.event.millis(), made: None, body: None };
        (nothing, format!("{type_name}/{id} was deleted: all {} versions are removed", versions.len()))
    } else {
        let said = format!("{} superseded versions of {type_name}/{id} are removed; version {} stays", versions.len() - 1, current.id);
        (Rewritten::of(type_name, current, snapshot)?, said)
    };
    let mut reply = Reply::new(Done::Ok);
    if versions.len() > 1 || current.is_deletion() {
        reply.changes = rewrite::changes(type_name, id, vec![kept], Rewrites::Purge, snapshot)?;
    }
    let outcome = crate::fhir::outcome::informational("information", "informational", std::slice::from_ref(&said));
    reply.notes.push(said);
    reply.body = Some(outcome.to_string().into_bytes().into());
    Ok(reply)
}
