//! Delete, <https://hl7.org/fhir/R4/http.html#delete>. Deleting what is not there succeeds and changes nothing.

use super::{Conditions, Done, Reply};
use crate::fhir::{Failure, ResourceId};
use crate::sim::{NewVersion, Snapshot};

/// Deletes a resource; its history stays.
///
/// # Errors
/// `If-Match` does not hold.
pub fn perform(type_name: &'static str, id: &ResourceId, conditions: &Conditions, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let current = snapshot.latest(type_name, id);
    conditions.require_match(&format!("{type_name}/{id}"), current.as_ref())?;
    let mut reply = Reply::new(Done::Deleted);
    match current {
        None => reply.notes.push(format!("there was no {type_name}/{id}; nothing was deleted")),
        Some(v) if v.is_deletion() => {
            reply.notes.push(format!("{type_name}/{id} was deleted already, at {}", v.event.instant()));
        }
        Some(v) => {
            reply.notes.push(format!("{type_name}/{id} is deleted; its history is kept"));
            reply.changes.push(NewVersion::deletion(type_name, id.clone(), v.id.next()));
        }
    }
    Ok(reply)
}
