//! Create, <https://hl7.org/fhir/R4/http.html#create>, also conditional.

use super::whom::the_one;
use super::{Conditions, Content, Done, Env, Reply, Subject, structure};
use crate::fhir::{Failure, ResourceId, VersionId, raw};
use crate::search::extract;
use crate::sim::{NewVersion, Snapshot, Versioning};
use crate::version::Change;

/// Stores a resource under a new id.
///
/// # Errors
/// The content is of another type, or `If-None-Exist` matches several.
pub fn perform(content: &Content, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    content.resource.expect_type(content.type_name)?;
    if let Some(query) = &conditions.if_none_exist
        && let Some(existing) = existing(content.type_name, query, snapshot, env)?
    {
        return Ok(existing);
    }
    as_new(content, new_id(content), snapshot, env)
}

/// The extension that restricts a group to those whose resources a search finds.
pub const MEMBER_FILTER: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter";

/// The id of a new resource: of a group that a search restricts, one that says so, as the reference server for bulk data has it.
pub(super) fn new_id(content: &Content) -> ResourceId {
    let extensions = content.resource.value()["modifierExtension"].as_array().filter(|_| content.type_name == "Group");
    let is_custom = extensions.is_some_and(|all| all.iter().any(|extension| extension["url"] == MEMBER_FILTER));
    if is_custom { ResourceId::random_after("custom-") } else { ResourceId::random() }
}

/// Stores the first version of a resource under `id`.
///
/// # Errors
/// It defines a search parameter that cannot be searched by.
pub fn as_new(content: &Content, id: ResourceId, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let mut reply = store(content, id, VersionId(1), Change::Create, snapshot, env)?;
    reply.done = Done::Created;
    if let Some(sent) = content.resource.id() {
        reply.notes.push(format!(
            "the id '{}' that was sent is not used: create assigns a new one; to choose the id, PUT {}/[id]",
            crate::fhir::id::clip(sent),
            content.type_name
        ));
    }
    Ok(reply)
}

/// Stores a version.
///
/// # Errors
/// Its structure is refused.
pub(super) fn store(content: &Content, id: ResourceId, version: VersionId, change: Change, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let type_name = content.type_name;
    let issues = structure::check(content.resource.value(), &content.disorder, snapshot)?;
    let shown = (snapshot.settings().versioning != Versioning::NoVersion).then_some(version);
    let text = raw::with_identity(&content.text, id.as_str(), shown.map(|v| v.to_string()).as_deref(), &env.stamp.event.instant());
    let body: crate::sim::bodies::Body = text.into_bytes().into();
    let subject = Subject { type_name, id: id.clone(), version: shown, modified_ms: env.stamp.event.millis() };
    let keys = extract(content.resource.value(), type_name, &id, env.stamp.event.millis(), &snapshot.origin());
    let new = NewVersion::content(type_name, id, version, change, body.clone(), keys);
    Ok(Reply { body: Some(body), subject: Some(subject), changes: vec![new], issues, ..Reply::new(Done::Ok) })
}

/// What `If-None-Exist` finds: nothing, or the one resource that makes the create unnecessary.
pub(super) fn existing(type_name: &'static str, query: &str, snapshot: &Snapshot, env: &Env<'_>) -> Result<Option<Reply>, Failure> {
    let found = the_one(type_name, query, "If-None-Exist", snapshot, env).map_err(|f| f.at("http.If-None-Exist"))?;
    Ok(found.map(|(id, hit)| {
        let subject = Subject::of(type_name, id, &hit.version, snapshot);
        Reply { body: Some(hit.body), subject: Some(subject), ..Reply::new(Done::Ok) }
    }))
}
