//! Delete, <https://hl7.org/fhir/R4/http.html#delete>, also conditional. Deleting what is not there succeeds and changes
//! nothing.

use super::{Conditions, Done, Env, Reply, integrity, search};
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, ResourceId};
use crate::sim::{ConditionalDelete, NewVersion, Snapshot};

/// Most resources that one conditional delete deletes.
pub const MAX_DELETED: usize = 10_000;

/// What is to be deleted.
#[derive(Debug)]
pub struct Request {
    /// Which.
    pub which: Which,
    /// What must hold.
    pub conditions: Conditions,
    /// Whether what refers to it is deleted, too.
    pub cascade: bool,
}

/// Which resources.
#[derive(Debug)]
pub enum Which {
    /// One.
    Instance(&'static str, ResourceId),
    /// What a search of a type, or of all, finds.
    Matching(Option<&'static str>, String),
}

impl Request {
    /// A deletion as the query of its URL, `_cascade=delete`, says it.
    ///
    /// # Errors
    /// `_cascade` says something else; of one resource, there is a parameter that is not known: a misspelled `_cascade` would
    /// delete something else than what was meant.
    pub fn new(which: Which, conditions: Conditions, query: &str) -> Result<Self, Failure> {
        let pairs = super::target::pairs(query);
        if matches!(which, Which::Instance(..))
            && let Some((name, _)) = pairs.iter().find(|(name, _)| !matches!(name.as_str(), CASCADE | "_format" | "_pretty"))
        {
            let message = format!("unknown parameter '{}'; the deletion of one resource has {CASCADE}, _format and _pretty", clip(name));
            return Err(Failure::new(Kind::NotSupported, message));
        }
        let said = pairs.into_iter().find(|(name, _)| name == CASCADE).map(|(_, value)| value);
        let cascade = match said.as_deref() {
            None | Some("none") => false,
            Some("delete") => true,
            Some(other) => return Err(Failure::new(Kind::BadValue, format!("_cascade '{}' is not delete or none", clip(other)))),
        };
        Ok(Self { which, conditions, cascade })
    }
}

/// The parameter that asks for what refers to a resource to be deleted with it.
const CASCADE: &str = "_cascade";

/// Deletes; the history stays.
///
/// # Errors
/// A precondition does not hold; a condition that cannot be read, or that matches several where only one may be deleted.
pub fn perform(request: &Request, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let mut reply = match &request.which {
        Which::Instance(type_name, id) => instance(type_name, id, &request.conditions, snapshot)?,
        Which::Matching(type_name, query) => matching(*type_name, query, &request.conditions, snapshot, env)?,
    };
    if request.cascade {
        let before = reply.changes.len();
        integrity::cascade(&mut reply.changes, snapshot)?;
        reply.notes.push(format!("{} resources that refer to it, directly or by others, are deleted, too", reply.changes.len() - before));
    }
    Ok(reply)
}

/// The resources that an entry of a transaction deletes, but for those that a cascade does.
///
/// # Errors
/// As [`perform`].
pub(super) fn subjects(request: &Request, snapshot: &Snapshot, env: &Env<'_>) -> Result<Vec<(&'static str, ResourceId)>, Failure> {
    let Which::Matching(type_name, query) = &request.which else { return Ok(Vec::new()) };
    let deleted = matching(*type_name, query, &request.conditions, snapshot, env)?;
    Ok(deleted.changes.into_iter().map(|change| (change.type_name, change.id)).collect())
}

fn instance(type_name: &'static str, id: &ResourceId, conditions: &Conditions, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let current = snapshot.latest(type_name, id);
    conditions.require_match(&format!("{type_name}/{id}"), current.as_ref())?;
    let mut reply = Reply::new(Done::Deleted);
    match current {
        None => reply.notes.push(format!("there was no {type_name}/{id}; nothing was deleted")),
        Some(v) if v.is_deletion() => {
            reply.notes.push(format!("{type_name}/{id} was deleted already, at {}", v.modified()));
        }
        Some(v) => {
            reply.notes.push(format!("{type_name}/{id} is deleted; its history is kept"));
            reply.changes.push(NewVersion::deletion(type_name, id.clone(), v.id.next()));
        }
    }
    Ok(reply)
}

/// One resource, or if the simulator's settings say so all that match, at most `_count` of them.
fn matching(type_name: Option<&'static str>, query: &str, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let limit = limit(query)?;
    let query = &condition(query);
    let (total, found) = search::matching(type_name, query, "conditional delete", limit.unwrap_or(MAX_DELETED).min(MAX_DELETED), snapshot, env)?;
    if total > 1 && snapshot.settings().conditional_delete == ConditionalDelete::Single {
        let message = format!(
            "conditional delete: {total} resources match '{}', and this simulator deletes one at a time; make the condition narrower, or set conditionalDelete to multiple",
            clip(query)
        );
        return Err(Failure::new(Kind::MultipleMatches, message));
    }
    if total > MAX_DELETED && limit.is_none() {
        let message = format!(
            "conditional delete: {total} resources match '{}'; at most {MAX_DELETED} are deleted at once: add _count={MAX_DELETED}, and repeat it",
            clip(query)
        );
        return Err(Failure::new(Kind::TooCostly, message));
    }
    let mut reply = Reply::new(Done::Deleted);
    for stored in &found {
        let id = search::id_of(stored)?;
        conditions.require_match(&format!("{}/{id}", stored.type_name), Some(&stored.version))?;
        reply.changes.push(NewVersion::deletion(stored.type_name, id, stored.version.id.next()));
    }
    reply.notes.push(match found.len() {
        0 => format!("nothing matches '{}'; nothing was deleted", clip(query)),
        1 if total == 1 => format!("{}/{} is deleted; its history is kept", found[0].type_name, search::id_of(&found[0])?),
        n => format!("{n} of {total} resources that match are deleted; their history is kept"),
    });
    Ok(reply)
}

/// The condition without what is none.
fn condition(query: &str) -> String {
    query.split('&').filter(|pair| pair.split('=').next() != Some(CASCADE)).collect::<Vec<_>>().join("&")
}

/// `_count` of a conditional delete.
fn limit(query: &str) -> Result<Option<usize>, Failure> {
    let Some((_, count)) = super::target::pairs(query).into_iter().find(|(name, _)| name == "_count") else { return Ok(None) };
    match count.parse() {
        Ok(limit) if limit > 0 => Ok(Some(limit)),
        _ => Err(Failure::new(Kind::BadValue, format!("_count '{}' of a conditional delete is not a number from 1 on", clip(&count)))),
    }
}
