//! Referential integrity, where the setting asks for it: what is stored refers to nothing that is not there, and what others
//! refer to is not deleted. And the cascade, which deletes those others, too.
//!
//! Logical references, those within the resource and those to elsewhere are exempt,
//! <https://hl7.org/fhir/R4/http.html#delete>.

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::delete::MAX_DELETED;
use super::search;
use crate::fhir::id::clip;
use crate::fhir::reference::Reference;
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::query::Query;
use crate::search::extract::{references, refers_term};
use crate::sim::{Integrity, NewVersion, Snapshot, Stored, Versioning};

/// Most referrers that a refusal names.
const MAX_NAMED: usize = 5;
/// Most referrers that are looked at besides those of the same exchange; where there are more, some surely refer to what is there now.
const MAX_REFERRERS: usize = 1_000;

/// Refuses changes after which a reference leads to nothing; says which of them is to blame.
///
/// # Errors
/// [`Kind::Conflict`]: a deletion; [`Kind::Unprocessable`]: a reference that dangles.
pub(super) fn check(changes: &[NewVersion], snapshot: &Snapshot) -> Result<(), (usize, Failure)> {
    if snapshot.settings().referential_integrity == Integrity::Off {
        return Ok(());
    }
    // Of a resource that is written several times, or whose history is, the last counts.
    let last: FxHashMap<(&str, &ResourceId), usize> = changes.iter().enumerate().map(|(at, change)| ((change.type_name, &change.id), at)).collect();
    let mut made: FxHashSet<String> = FxHashSet::default();
    let mut gone: FxHashSet<String> = FxHashSet::default();
    for change in changes {
        let uid = format!("{}/{}", change.type_name, change.id);
        if change.body.is_some() {
            gone.remove(&uid);
            made.insert(uid);
        } else {
            made.remove(&uid);
            gone.insert(uid);
        }
    }
    for (at, change) in changes.iter().enumerate().filter(|(at, change)| last.get(&(change.type_name, &change.id)) == Some(at)) {
        let failed = |failure| (at, failure);
        match &change.body {
            Some(body) => refers_to_something(change.type_name, body, &made, &gone, changes, snapshot).map_err(failed)?,
            None => is_referred_to_by_nobody(change, &made, &gone, snapshot).map_err(failed)?,
        }
    }
    Ok(())
}

fn refers_to_something(
    type_name: &'static str,
    body: &[u8],
    made: &FxHashSet<String>,
    gone: &FxHashSet<String>,
    changes: &[NewVersion],
    snapshot: &Snapshot,
) -> Result<(), Failure> {
    let value: Value = serde_json::from_slice(body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    let (origin, definitions) = (snapshot.origin(), snapshot.definitions());
    let contained: Vec<&str> = value.get("contained").and_then(Value::as_array).into_iter().flatten().filter_map(|c| c.get("id")?.as_str()).collect();
    let has_versions = snapshot.settings().versioning != Versioning::NoVersion;
    let is_there = |type_name: &str, id: &str, version: Option<&str>| {
        let (Some(type_name), Ok(id)) = (definitions.find_resource_type(type_name), id.parse::<ResourceId>()) else { return false };
        let uid = format!("{type_name}/{id}");
        let Some(version) = version.filter(|_| has_versions) else {
            return made.contains(&uid) || !gone.contains(&uid) && snapshot.latest(type_name, &id).is_some_and(|v| !v.is_deletion());
        };
        let Ok(version) = version.parse::<VersionId>() else { return false };
        let versions = snapshot.versions(type_name, &id);
        // One that was purged was there.
        let was_there = || versions.first().is_some_and(|latest| (1..latest.id.0).contains(&version.0));
        changes.iter().any(|c| c.type_name == type_name && c.id == id && c.version == version && c.body.is_some())
            || versions.iter().find(|v| v.id == version).map_or_else(was_there, |v| !v.is_deletion())
    };
    let mut dangling = None;
    references(&value, type_name, &mut |text| match Reference::parse(origin.local_part(text).unwrap_or(text), definitions) {
        Reference::Local { type_name, id, version } if !is_there(type_name, id, version) => _ = dangling.get_or_insert(text),
        // The resources within a Parameters have contained ones of their own; a bare # is the container.
        Reference::Contained(name) if type_name != "Parameters" && !name.is_empty() && !contained.contains(&name) => _ = dangling.get_or_insert(text),
        Reference::Local { .. } | Reference::Contained(_) | Reference::Conditional { .. } | Reference::Other(_) => {}
    });
    let Some(text) = dangling else { return Ok(()) };
    let way_out = if text.starts_with('#') { "add it to 'contained', with that id" } else { "store it first, or both in one transaction" };
    let message = format!("there is no {}, which is referred to; {way_out} (setting referentialIntegrity)", clip(text));
    Err(Failure::new(Kind::Unprocessable, message).at(format!("{type_name}.descendants().where(reference = '{}')", clip(text))))
}

fn is_referred_to_by_nobody(change: &NewVersion, made: &FxHashSet<String>, gone: &FxHashSet<String>, snapshot: &Snapshot) -> Result<(), Failure> {
    // What is gone is not deleted by what changes its history.
    if snapshot.latest(change.type_name, &change.id).is_none_or(|latest| latest.is_deletion()) {
        return Ok(());
    }
    let uid = format!("{}/{}", change.type_name, change.id);
    let most = MAX_REFERRERS + made.len() + gone.len();
    let (total, found) = snapshot.matching(&Query::term(&refers_term(&uid)), most, &snapshot.budget())?;
    let mut named = Vec::new();
    for stored in &found {
        let other = format!("{}/{}", stored.type_name, search::id_of(stored)?);
        // What is written in the same exchange is checked by itself.
        let stays = other != uid && !made.contains(&other) && !gone.contains(&other);
        if stays && needs_the_current_one(stored, &uid, snapshot)? {
            named.push(other);
        }
        if named.len() > MAX_NAMED {
            break;
        }
    }
    if named.is_empty() && total <= found.len() {
        return Ok(());
    }
    let more = if named.len() > MAX_NAMED || named.is_empty() { " and others" } else { "" };
    named.truncate(MAX_NAMED);
    let message = format!(
        "{uid} cannot be deleted: {}{more} refer to it; delete or change these first, or all together with _cascade=delete (setting referentialIntegrity)",
        named.join(", ")
    );
    Err(Failure::new(Kind::Conflict, message))
}

/// Whether a resource refers to another as it is now: versions stay when it is deleted.
fn needs_the_current_one(stored: &Stored, uid: &str, snapshot: &Snapshot) -> Result<bool, Failure> {
    let value: Value = serde_json::from_slice(&stored.body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    let has_versions = snapshot.settings().versioning != Versioning::NoVersion;
    let (origin, definitions) = (snapshot.origin(), snapshot.definitions());
    let mut needs = false;
    references(&value, stored.type_name, &mut |text| {
        if let Reference::Local { type_name, id, version } = Reference::parse(origin.local_part(text).unwrap_or(text), definitions) {
            needs |= (version.is_none() || !has_versions) && uid.split_once('/') == Some((type_name, id));
        }
    });
    Ok(needs)
}

/// Adds to `changes`, which are deletions, those of all that refers to what is deleted, and to that again.
///
/// # Errors
/// They are too many.
pub(super) fn cascade(changes: &mut Vec<NewVersion>, snapshot: &Snapshot) -> Result<(), Failure> {
    let mut gone: FxHashSet<String> = changes.iter().map(|c| format!("{}/{}", c.type_name, c.id)).collect();
    let mut at = 0;
    while let Some(change) = changes.get(at) {
        let uid = format!("{}/{}", change.type_name, change.id);
        at += 1;
        let (_, found) = snapshot.matching(&Query::term(&refers_term(&uid)), MAX_DELETED + 1, &snapshot.budget())?;
        for stored in &found {
            let id = search::id_of(stored)?;
            if gone.insert(format!("{}/{id}", stored.type_name)) {
                changes.push(NewVersion::deletion(stored.type_name, id, stored.version.id.next()));
            }
        }
        if changes.len() > MAX_DELETED {
            let message = format!("the cascade would delete more than {MAX_DELETED} resources; delete some of them first");
            return Err(Failure::new(Kind::TooCostly, message));
        }
    }
    Ok(())
}
