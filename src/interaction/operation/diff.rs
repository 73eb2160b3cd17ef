//! `$diff`: the FHIRPath Patch that makes one version of a resource another.

use rustc_hash::FxHashSet;
use serde_json::{Value, json};

use super::{Call, Level};
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, VersionId};
use crate::interaction::patch::diff::diff;
use crate::interaction::patch::fhirpath;
use crate::interaction::{Conditions, Done, Reply, not_found, vread};
use crate::sim::Snapshot;

/// Answers with Parameters.
///
/// # Errors
/// A version is not there; an element that a patch cannot name.
pub fn perform(call: &Call, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let Level::Instance(type_name, id) = &call.level else {
        return Err(Failure::new(Kind::NotSupported, "$diff is of a resource: [type]/[id]/$diff?from=1&to=2"));
    };
    let newest = snapshot.versions(type_name, id).first().map(|v| v.id).ok_or_else(|| not_found(type_name, id))?;
    let to: VersionId = call.get("to").map_or(Ok(newest), str::parse)?;
    let from: VersionId = match call.get("from") {
        Some(from) => from.parse()?,
        None if to.0 > 1 => VersionId(to.0 - 1),
        None => return Err(nothing_before(&format!("{type_name}/{id}"), newest)),
    };
    let content = |version| {
        let body = vread::perform(type_name, id, version, &Conditions::default(), &Subset::All, snapshot)?.body.unwrap_or_default();
        serde_json::from_slice::<Value>(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))
    };
    let mut patch = json!({"resourceType": "Parameters"});
    let (from, to) = (content(from)?, content(to)?);
    let operations = diff(&from, &to, type_name, snapshot.definitions())?;
    if !leads(&operations, from, &to, type_name, snapshot) {
        let message =
            "the versions have content that is not as the specification defines it, and no FHIRPath Patch makes one of the other; $validate tells what it is";
        return Err(Failure::new(Kind::Unprocessable, message));
    }
    if !operations.is_empty() {
        patch["parameter"] = operations.into();
    }
    Ok(Reply { body: Some(patch.to_string().into_bytes().into()), ..Reply::new(Done::Ok) })
}

/// The refusal of a difference between the first version and the one before.
fn nothing_before(uid: &str, newest: VersionId) -> Failure {
    let message = if newest == VersionId(1) {
        format!("{uid} has only one version; there is none to compare it with")
    } else {
        format!("there is no version of {uid} before 1; name another by from, the newest is {newest}")
    };
    Failure::new(Kind::NotFound, message)
}

/// Whether the operations make of one content the other.
fn leads(operations: &[Value], mut from: Value, to: &Value, type_name: &'static str, snapshot: &Snapshot) -> bool {
    let done = fhirpath::steps(operations).and_then(|steps| fhirpath::apply(&steps, &mut from, type_name, snapshot.definitions()));
    match done {
        Ok(()) => content_of(&from) == content_of(to),
        // That it leads there is too much to prove.
        Err(failure) => failure.kind == Kind::TooCostly,
    }
}

/// A resource without what the server sets itself.
fn content_of(resource: &Value) -> Value {
    let mut content = resource.clone();
    if let Some(meta) = content.get_mut("meta").and_then(Value::as_object_mut) {
        meta.retain(|name, _| !matches!(name.as_str(), "versionId" | "lastUpdated"));
        let is_empty = meta.is_empty();
        if let Some(members) = content.as_object_mut().filter(|_| is_empty) {
            members.remove("meta");
        }
    }
    tidied(&mut content);
    content
}

/// Takes out lists without a value beside which there are extensions: with or without them it is the same.
fn tidied(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidied),
        Value::Object(members) => {
            let is_empty = |value: &Value| value.as_array().is_some_and(|items| items.iter().all(Value::is_null));
            let idle: FxHashSet<String> = members.keys().filter(|key| is_empty(&members[*key]) && members.contains_key(&format!("_{key}"))).cloned().collect();
            members.retain(|key, _| !idle.contains(key));
            members.values_mut().for_each(tidied);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
