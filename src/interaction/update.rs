//! Update, <https://hl7.org/fhir/R4/http.html#update>, also conditional; of an id that is not there, it creates.

use super::whom::{Whom, the_one};
use super::{Conditions, Content, Done, Env, Reply, create};
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind, ResourceId, VersionId};
use crate::sim::{ClientIds, Snapshot, Versioning};
use crate::version::{Change, Version};

/// Stores a version of a resource under the id that the client names, or under that of the resource its condition finds.
///
/// # Errors
/// Type or id of the content differ from what the URL says, several resources match, or a precondition does not hold.
pub fn perform(whom: &Whom, content: &Content, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    content.resource.expect_type(content.type_name)?;
    match subject(whom, content, snapshot, env)? {
        Some(id) => put(&id, content, conditions, snapshot, env),
        None => as_new(ResourceId::random(), content, conditions, snapshot, env),
    }
}

/// The id under which an update will store; none if it will create under an id of ours.
///
/// # Errors
/// As [`perform`].
pub(super) fn subject(whom: &Whom, content: &Content, snapshot: &Snapshot, env: &Env<'_>) -> Result<Option<ResourceId>, Failure> {
    let type_name = content.type_name;
    let sent = content.resource.id();
    let refuse = |message: String| Err(Failure::new(Kind::Invalid, message).at(format!("{type_name}.id")));
    let query = match (whom, sent) {
        (Whom::Id(id), None) => return refuse(format!("{type_name}.id is missing; an update carries the id of its URL, \"id\":\"{id}\"")),
        (Whom::Id(id), Some(sent)) if sent != id.as_str() => {
            return refuse(format!("{type_name}.id is '{}', but the URL says '{id}'; they must agree", clip(sent)));
        }
        (Whom::Id(id), Some(_)) => return Ok(Some(id.clone())),
        (Whom::Where(query), _) => query,
    };
    match (the_one(type_name, query, "conditional update", snapshot, env)?, sent) {
        (Some((id, _)), Some(sent)) if sent != id.as_str() => {
            refuse(format!("{type_name}.id is '{}', but the condition matches {type_name}/{id}; leave the id out, or send that one", clip(sent)))
        }
        (Some((id, _)), _) => Ok(Some(id)),
        // Before R4 what matches nothing is created, whatever its id.
        (None, Some(sent)) if snapshot.version() > FhirVersion::Stu3 => {
            let id: ResourceId = sent.parse().map_err(|f: Failure| f.at(format!("{type_name}.id")))?;
            if snapshot.latest(type_name, &id).is_some_and(|v| !v.is_deletion()) {
                let message = format!("{type_name}/{id} exists, but does not match '{}'; send what it matches, or update it by its id", clip(query));
                return Err(Failure::new(Kind::Conflict, message).at(format!("{type_name}.id")));
            }
            Ok(Some(id))
        }
        (None, _) => Ok(None),
    }
}

/// Stores the next version of a resource, the first if there is none.
///
/// # Errors
/// A precondition does not hold; the client may not choose this id.
pub(super) fn put(id: &ResourceId, content: &Content, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let type_name = content.type_name;
    let current = snapshot.latest(type_name, id);
    require(&format!("{type_name}/{id}"), current.as_ref(), conditions, snapshot)?;
    if current.is_none() {
        may_choose(type_name, id, snapshot)?;
    }
    let version = current.map_or(VersionId(1), |v| v.id.next());
    let mut reply = create::store(content, id.clone(), version, Change::Update, snapshot, env)?;
    if current.is_none_or(|v| v.is_deletion()) {
        reply.done = Done::Created;
    }
    Ok(reply)
}

/// Creates what a conditional update did not find.
///
/// # Errors
/// A precondition does not hold.
pub(super) fn as_new(id: ResourceId, content: &Content, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    conditions.require_match(&format!("{} that the condition matches", content.type_name), None)?;
    create::as_new(content, id, snapshot, env)
}

/// What must hold before the next version of a resource is stored.
///
/// # Errors
/// It does not.
pub(super) fn require(uid: &str, current: Option<&Version>, conditions: &Conditions, snapshot: &Snapshot) -> Result<(), Failure> {
    if let Some(version) = current.filter(|v| !v.is_deletion())
        && snapshot.settings().versioning == Versioning::VersionedUpdate
        && conditions.if_match.is_empty()
    {
        let message = format!("If-Match is missing: this simulator takes updates of a version only; read {uid} and send If-Match: W/\"{}\"", version.id);
        return Err(Failure::new(Kind::PreconditionRequired, message).at("http.If-Match"));
    }
    conditions.require_match(uid, current)?;
    conditions.require_none_match(uid, current)
}

/// Whether the client may create under this id.
///
/// # Errors
/// The settings say that it may not.
pub(super) fn may_choose(type_name: &str, id: &ResourceId, snapshot: &Snapshot) -> Result<(), Failure> {
    let settings = snapshot.settings();
    if !settings.update_create || settings.client_ids == ClientIds::Off {
        let message = if settings.update_create {
            format!(
                "there is no {type_name}/{id}, and this simulator lets no client choose an id (its setting clientIds is 'off'); leave the id out of an update by a condition, or POST it to /{type_name}"
            )
        } else {
            format!(
                "there is no {type_name}/{id}, and this simulator does not let an update create (its setting updateCreate is false); POST it to /{type_name}"
            )
        };
        return Err(Failure { allow: Some("GET, HEAD, DELETE"), ..Failure::new(Kind::MethodNotAllowed, message) });
    }
    if settings.client_ids == ClientIds::NonNumeric && id.as_str().bytes().all(|b| b.is_ascii_digit()) {
        let message = format!("{type_name}.id '{id}' is a number, which this simulator leaves to itself; choose an id with a letter, or POST to /{type_name}");
        return Err(Failure::new(Kind::Invalid, message).at(format!("{type_name}.id")));
    }
    Ok(())
}
