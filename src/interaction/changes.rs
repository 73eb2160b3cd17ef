//! What changed in a simulator between two moments: resources created, updated, with the patch, and deleted.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::patch::diff::diff;
use crate::clock::EventId;
use crate::fhir::{Failure, Kind, ResourceId};
use crate::index::Span;
use crate::sim::Snapshot;
use crate::version::Version;

/// Most versions between the two moments.
const MAX_VERSIONS: usize = 50_000;

/// What changed after the event `from` up to the event `to`: of `most` resources, by name, those after `after`.
///
/// # Errors
/// Too many versions were made in between; a file cannot be read.
pub fn between(snapshot: &Snapshot, from: EventId, to: EventId, after: Option<&str>, most: usize) -> Result<Value, Failure> {
    let begin = EventId::from_u64(from.to_u64().saturating_add(1));
    let mut changed: BTreeMap<String, (&'static str, ResourceId)> = BTreeMap::new();
    if begin <= to {
        let span = Span { events: begin..=to, type_name: None, ascending: true };
        let (total, versions) = snapshot.past(&span, 0, MAX_VERSIONS);
        if total > MAX_VERSIONS {
            let message =
                format!("{total} versions were made between the two moments, and at most {MAX_VERSIONS} are compared; choose moments closer together");
            return Err(Failure::new(Kind::TooCostly, message));
        }
        changed.extend(versions.into_iter().map(|(type_name, id, _)| (format!("{type_name}/{id}"), (type_name, id))));
    }
    let total = changed.len();
    let mut shown = Vec::new();
    let mut last = None;
    for (uid, (type_name, id)) in changed {
        if after.is_some_and(|after| *uid <= *after) {
            continue;
        }
        if shown.len() == most {
            return Ok(json!({"total": total, "changes": shown, "next": last}));
        }
        shown.push(one(type_name, &id, from, to, snapshot)?);
        last = Some(uid);
    }
    Ok(json!({"total": total, "changes": shown, "next": null}))
}

/// What became of one resource.
fn one(type_name: &'static str, id: &ResourceId, from: EventId, to: EventId, snapshot: &Snapshot) -> Result<Value, Failure> {
    let versions = snapshot.versions(type_name, id);
    let at = |event: EventId| versions.iter().find(|v| v.was_there(event));
    let (before, then) = (at(from), at(to));
    let there = |version: Option<&Version>| version.filter(|v| !v.is_deletion()).copied();
    let number = |version: Option<Version>| version.map(|v| v.id.to_string());
    let mut shown = json!({"resource": format!("{type_name}/{id}")});
    let change = match (there(before), there(then)) {
        (None, Some(_)) => "created",
        (Some(_), None) => "deleted",
        // It came and went in between.
        (None, None) => "none",
        (Some(before), Some(then)) => {
            shown["patch"] = patch(type_name, &before, &then, snapshot)?;
            "updated"
        }
    };
    shown["change"] = change.into();
    shown["from"] = number(there(before)).into();
    shown["to"] = number(there(then)).into();
    Ok(shown)
}

/// The FHIRPath Patch from one version to another; null where none can say it.
fn patch(type_name: &'static str, before: &Version, then: &Version, snapshot: &Snapshot) -> Result<Value, Failure> {
    let content = |version| {
        let body = snapshot.body(type_name, version)?;
        serde_json::from_slice::<Value>(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))
    };
    // An element that the definitions do not have cannot be named.
    let Ok(operations) = diff(&content(before)?, &content(then)?, type_name, snapshot.definitions()) else { return Ok(Value::Null) };
    let mut patch = json!({"resourceType": "Parameters"});
    if !operations.is_empty() {
        patch["parameter"] = operations.into();
    }
    Ok(patch)
}
