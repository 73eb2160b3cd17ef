//! `$validate`, <https://hl7.org/fhir/R4/resource-operation-validate.html>: the structure, by the definition tables; profiles
//! and invariants are not looked at, and where profiles are named the answer says so.

use rustc_hash::FxHashSet;
use serde_json::{Value, json};

use super::{Call, Level};
use crate::fhir::id::clip;
use crate::fhir::subset::Subset;
use crate::fhir::validate::{Issue, Severity, validate};
use crate::fhir::{Failure, Kind, ResourceId, VersionId, outcome};
use crate::interaction::{Conditions, Done, Reply, integrity, not_found, read, update};
use crate::query::Keys;
use crate::sim::{NewVersion, Snapshot};
use crate::version::Change;

/// Answers with an OperationOutcome.
///
/// # Errors
/// There is nothing to validate; `mode` is unknown.
pub fn perform(call: &Call, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let mode = call.get("mode").unwrap_or("");
    if !matches!(mode, "" | "create" | "update" | "delete" | "profile") {
        return Err(Failure::new(Kind::BadValue, format!("mode '{}' is not create, update, delete or profile", clip(mode))));
    }
    let Some(type_name) = call.level.type_name() else {
        return Err(Failure::new(Kind::NotSupported, "$validate is of a type or a resource: [type]/$validate"));
    };
    if mode == "delete" {
        return deletion(call, snapshot);
    }
    let resource = resource(call, snapshot)?;
    let mut issues = Vec::new();
    let stated = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default();
    if stated != type_name {
        issues.push(error("invalid", "resourceType", format!("the URL says {type_name}, but resourceType is '{}'", clip(stated))));
    }
    let id = resource.get("id").and_then(Value::as_str);
    if let (Level::Instance(_, expected), "update") = (&call.level, mode)
        && id != Some(expected.as_str())
    {
        issues.push(error("value", &format!("{type_name}.id"), format!("the URL says '{expected}', but id is {}", id.unwrap_or("missing"))));
    }
    issues.extend(validate(&resource, snapshot.definitions()));
    issues.extend(call.input.iter().flat_map(|input| input.disorder.iter().cloned()));
    if stated == type_name {
        issues.extend(refusals(call, mode, type_name, &resource, snapshot).into_iter().map(|refused| {
            let place = refused.expression.unwrap_or_else(|| type_name.to_owned());
            error(refused.kind.issue_code(), &place, refused.diagnostics)
        }));
    }
    let clean = issues.is_empty();
    let mut answer = outcome::of_issues(&issues, None);
    let mut say = |code: &str, text: String| {
        if let Value::Array(all) = &mut answer["issue"] {
            all.push(json!({"severity": "information", "code": code, "details": {"text": text}, "diagnostics": text}));
        }
    };
    if let Some(text) = not_looked_at(call, &resource) {
        say("not-supported", text);
    }
    if clean {
        say(
            "informational",
            "no problem found: names, cardinalities, types, formats and required codes, where the specification lists them or a media type, a currency or a language is meant, are as it has them"
                .to_owned(),
        );
    }
    Ok(answered(&answer))
}

/// What a write of it would be refused for, besides its structure.
fn refusals(call: &Call, mode: &str, type_name: &'static str, resource: &Value, snapshot: &Snapshot) -> Vec<Failure> {
    let sent = resource.get("id").and_then(Value::as_str);
    let mut refused = Vec::new();
    if type_name == "SearchParameter" {
        refused.extend(snapshot.params_of(resource, sent.filter(|_| mode != "create").unwrap_or_default()).err());
    }
    let id = match (mode, &call.level) {
        ("create", _) => Some(ResourceId::random()),
        ("update", Level::Instance(_, id)) => Some(id.clone()),
        ("update", _) => sent.and_then(|id| id.parse().ok()),
        _ => None,
    };
    refused.extend(id.and_then(|id| may_be_written(type_name, id, mode, resource, snapshot).err()));
    refused
}

/// Whether a version of a resource could be stored under an id.
fn may_be_written(type_name: &'static str, id: ResourceId, mode: &str, resource: &Value, snapshot: &Snapshot) -> Result<(), Failure> {
    let current = snapshot.latest(type_name, &id);
    if mode == "update" && current.is_none() {
        update::may_choose(type_name, &id, snapshot)?;
    }
    let version = current.map_or(VersionId(1), |v| v.id.next());
    // What it would be found by does not matter here.
    let planned = NewVersion::content(type_name, id, version, Change::Update, resource.to_string().into_bytes().into(), Keys::default());
    integrity::check(&[planned], snapshot).map_err(|(_, failure)| failure)
}

/// Most profiles that the answer names.
const MAX_NAMED: usize = 5;

/// Says that profiles are not looked at, where the request or the resource names some.
fn not_looked_at(call: &Call, resource: &Value) -> Option<String> {
    let stated = resource.pointer("/meta/profile").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut profiles: Vec<&str> = call.get("profile").into_iter().chain(stated).collect();
    let mut seen = FxHashSet::default();
    profiles.retain(|profile| seen.insert(*profile));
    let named = profiles.iter().take(MAX_NAMED).map(|profile| format!("'{}'", clip(profile))).collect::<Vec<_>>().join(", ");
    let what = match profiles.len() {
        0 => return None,
        1 => format!("profile {named} was"),
        count if count > MAX_NAMED => format!("profiles {named} and {} more were", count - MAX_NAMED),
        _ => format!("profiles {named} were"),
    };
    Some(format!("{what} not looked at: this server validates the structure that the specification defines"))
}

fn answered(outcome: &Value) -> Reply {
    Reply { body: Some(outcome.to_string().into_bytes().into()), ..Reply::new(Done::Ok) }
}

fn error(code: &'static str, expression: &str, message: String) -> Issue {
    Issue { severity: Severity::Error, code, expression: expression.to_owned(), message }
}

/// The resource that was sent, by itself or as a parameter; else the one that is stored.
fn resource(call: &Call, snapshot: &Snapshot) -> Result<Value, Failure> {
    if let Some(input) = &call.input {
        if input.resource.type_name() != "Parameters" || call.level.type_name() == Some("Parameters") {
            return Ok(input.resource.value().clone());
        }
        if let Some(sent) = call.sent("resource", "resource").next() {
            return Ok(sent.clone());
        }
    }
    let Level::Instance(type_name, id) = &call.level else {
        return Err(Failure::new(Kind::Invalid, "$validate needs a resource: as the body, or as the parameter 'resource' of Parameters"));
    };
    let version = snapshot.latest(type_name, id).ok_or_else(|| not_found(type_name, id))?;
    let body = read::of_version(type_name, id, &version, &Conditions::default(), &Subset::All, snapshot)?.body.unwrap_or_default();
    serde_json::from_slice(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))
}

/// Whether the resource could be deleted.
fn deletion(call: &Call, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let Level::Instance(type_name, id) = &call.level else {
        return Err(Failure::new(Kind::Invalid, "mode delete is of a resource: [type]/[id]/$validate?mode=delete"));
    };
    let version = snapshot.latest(type_name, id).filter(|v| !v.is_deletion()).ok_or_else(|| not_found(type_name, id))?;
    let planned = NewVersion::deletion(type_name, id.clone(), version.id.next());
    integrity::check(&[planned], snapshot).map_err(|(_, failure)| failure)?;
    let text = format!("{type_name}/{id}, at version {}, may be deleted", version.id);
    Ok(answered(&outcome::informational("information", "informational", &[text])))
}
