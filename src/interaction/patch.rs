//! Patch, <https://hl7.org/fhir/R4/http.html#patch>: JSON Patch, JSON Merge Patch and FHIRPath Patch, also conditional. What
//! comes of it is stored as an update would be.

pub mod diff;
mod element;
pub mod fhirpath;
pub mod json;

use serde_json::{Map, Value};

use super::whom::{Whom, the_one};
use super::{Conditions, Content, Env, Reply, create, not_found, update};
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, Resource, ResourceId, raw};
use crate::sim::Snapshot;
use crate::version::Change;

/// Most operations of one patch.
pub const MAX_OPERATIONS: usize = 1_000;

/// What is to be changed.
#[derive(Debug)]
pub struct Patch {
    edits: Edits,
    /// As it came: numbers in it keep their spelling.
    text: String,
}

#[derive(Debug)]
enum Edits {
    Json(Vec<json::Step>),
    Merge(Map<String, Value>),
    FhirPath(Vec<fhirpath::Step>),
}

impl Patch {
    /// Reads a JSON Patch.
    ///
    /// # Errors
    /// It is none.
    pub fn json(text: &str) -> Result<Self, Failure> {
        not_empty(text, "a JSON Patch, an array of operations,")?;
        let value = crate::fhir::json::parse(text.as_bytes())?;
        Ok(Self { edits: Edits::Json(json::read(&value)?), text: text.to_owned() })
    }

    /// Reads a JSON Merge Patch, RFC 7396.
    ///
    /// # Errors
    /// It is not an object.
    pub fn merge(text: &str) -> Result<Self, Failure> {
        not_empty(text, "a JSON Merge Patch, an object with the members to change,")?;
        let value = crate::fhir::json::parse(text.as_bytes())?;
        let Value::Object(changes) = value else {
            return Err(Failure::new(Kind::Invalid, "a JSON Merge Patch is an object with the members to change; null takes one away"));
        };
        Ok(Self { edits: Edits::Merge(changes), text: text.to_owned() })
    }

    /// Reads a FHIRPath Patch, <https://hl7.org/fhir/R4/fhirpatch.html>.
    ///
    /// # Errors
    /// It is not a Parameters resource with operations.
    pub fn fhirpath(content: &Content) -> Result<Self, Failure> {
        Ok(Self { edits: Edits::FhirPath(fhirpath::read(&content.resource)?), text: content.text.clone() })
    }

    /// The patch of an entry of a Bundle: Parameters, or a Binary with a JSON Patch,
    /// <https://hl7.org/fhir/R4/http.html#jsonpatch-batch>.
    ///
    /// # Errors
    /// It is neither.
    pub fn of_entry(content: &Content) -> Result<Self, Failure> {
        if content.resource.type_name() == "Parameters" {
            return Self::fhirpath(content);
        }
        let value = content.resource.value();
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        if content.resource.type_name() != "Binary" {
            let message = format!("a PATCH entry carries Parameters or a Binary, but resourceType is '{}'", content.resource.type_name());
            return Err(Failure::new(Kind::Invalid, message).at("resource.resourceType"));
        }
        let compact: String = text("data").split_ascii_whitespace().collect();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, compact);
        let patch = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let patch = patch.ok_or_else(|| Failure::new(Kind::Invalid, "Binary.data is not the base64 of a text in UTF-8").at("Binary.data"))?;
        match text("contentType").split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Self::json(&patch),
            "application/merge-patch+json" => Self::merge(&patch),
            other => {
                let message = format!("Binary.contentType is '{}'; a patch is application/json-patch+json or application/merge-patch+json", clip(other));
                Err(Failure::new(Kind::Invalid, message).at("Binary.contentType"))
            }
        }
    }

    /// The resource that comes of a stored one, as text.
    fn applied(&self, body: &str, type_name: &'static str, snapshot: &Snapshot) -> Result<String, Failure> {
        let mut resource: Value = serde_json::from_str(body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        match &self.edits {
            Edits::Json(steps) => json::apply(steps, &mut resource)?,
            Edits::Merge(changes) => resource.as_object_mut().into_iter().for_each(|object| json::merge(object, changes)),
            Edits::FhirPath(steps) => fhirpath::apply(steps, &mut resource, type_name, snapshot.definitions())?,
        }
        Ok(raw::write(&resource, &[body, &self.text]))
    }
}

/// Changes part of a resource.
///
/// # Errors
/// There is none, or several are meant; a precondition does not hold; an operation cannot be carried out.
pub fn perform(type_name: &'static str, whom: &Whom, patch: &Patch, conditions: &Conditions, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let id = subject(type_name, whom, snapshot, env)?;
    let uid = format!("{type_name}/{id}");
    let Some(version) = snapshot.latest(type_name, &id) else { return Err(not_found(type_name, &id)) };
    if version.is_deletion() {
        let message = format!("{uid} was deleted at {}; what is deleted cannot be patched, an update brings it back", version.modified());
        return Err(Failure::new(Kind::Deleted, message));
    }
    update::require(&uid, Some(&version), conditions, snapshot)?;
    let body = snapshot.body(type_name, &version)?;
    let body = std::str::from_utf8(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    let text = patch.applied(body, type_name, snapshot)?;
    let resource = Resource::parse(text.as_bytes(), snapshot.version()).map_err(unprocessable)?;
    if resource.type_name() != type_name {
        return Err(changed("resourceType", type_name, resource.type_name()));
    }
    if resource.id() != Some(id.as_str()) {
        return Err(changed("id", id.as_str(), resource.id().unwrap_or("nothing")));
    }
    let content = Content { type_name, resource, text, disorder: Vec::new() };
    create::store(&content, id, version.id.next(), Change::Patch, snapshot, env)
}

/// The resource that is to be patched.
///
/// # Errors
/// A condition that finds none or several.
pub(super) fn subject(type_name: &'static str, whom: &Whom, snapshot: &Snapshot, env: &Env<'_>) -> Result<ResourceId, Failure> {
    let query = match whom {
        Whom::Id(id) => return Ok(id.clone()),
        Whom::Where(query) => query,
    };
    let found = the_one(type_name, query, "conditional patch", snapshot, env)?;
    found
        .map(|(id, _)| id)
        .ok_or_else(|| Failure::new(Kind::NotFound, format!("conditional patch: no {type_name} matches '{}'; a patch changes what is there", clip(query))))
}

/// Refuses an empty text, which a parser of resources would call an empty resource.
fn not_empty(text: &str, expected: &str) -> Result<(), Failure> {
    if text.trim().is_empty() {
        return Err(Failure::new(Kind::Malformed, format!("the patch is empty; {expected} was expected")));
    }
    Ok(())
}

fn changed(what: &str, from: &str, to: &str) -> Failure {
    let message = format!("the patch changes {what} from '{from}' to '{}'; a patch leaves id and resourceType as they are", clip(to));
    Failure::new(Kind::Unprocessable, message)
}

/// What makes a body malformed makes a patched resource unprocessable.
fn unprocessable(failure: Failure) -> Failure {
    Failure { kind: Kind::Unprocessable, diagnostics: format!("what comes of the patch is no resource: {}", failure.diagnostics), ..failure }
}
