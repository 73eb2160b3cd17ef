//! Update, <https://hl7.org/fhir/R4/http.html#update>; of an id that is not there, it creates.

use super::{Conditions, Content, Done, Env, Reply, create};
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::sim::Snapshot;
use crate::version::Change;

/// Stores a version of a resource under the client's id.
///
/// # Errors
/// Type or id of the content differ from the URL's, or `If-Match` does not hold.
pub fn perform(id: &ResourceId, content: &Content, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let type_name = content.type_name;
    content.resource.expect_type(type_name)?;
    let refuse = |message: String| Err(Failure::new(Kind::Invalid, message).at(format!("{type_name}.id")));
    match content.resource.id() {
        None => return refuse(format!("{type_name}.id is missing; an update carries the id of its URL, \"id\":\"{id}\"")),
        Some(sent) if sent != id.as_str() => return refuse(format!("{type_name}.id is '{}', but the URL says '{id}'; they must agree", clip(sent))),
        Some(_) => {}
    }
    let current = snapshot.latest(type_name, id);
    conditions.require_match(&format!("{type_name}/{id}"), current.as_ref())?;
    conditions.require_none_match(&format!("{type_name}/{id}"), current.as_ref())?;
    let version = current.map_or(VersionId(1), |v| v.id.next());
    let mut reply = create::store(content, id.clone(), version, Change::Update, snapshot, env)?;
    if current.is_none_or(|v| v.is_deletion()) {
        reply.done = Done::Created;
    }
    Ok(reply)
}
