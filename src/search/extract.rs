//! From a resource to the keys it is found by.

use serde_json::Value;

use super::param;
use super::params::{Param, Params};
use super::path::{Node, Ty};
use crate::fhir::definitions::ParamType;
use crate::fhir::reference::Reference;
use crate::fhir::{Definitions, FhirVersion, ResourceId};
use crate::query::{Keys, KeysBuilder};

/// What the keys of a resource depend on besides its content.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The simulator's FHIR version.
    pub version: FhirVersion,
    /// `/sim/lab__one/fhir/`: an absolute reference with this path means a resource of the same simulator.
    pub own_path: &'a str,
    /// The simulator's search parameters.
    pub params: &'a Params,
}

/// An [`Origin`] to keep.
#[derive(Clone, Debug)]
pub struct OwnedOrigin {
    own_path: String,
    params: Params,
}

impl OwnedOrigin {
    /// For use.
    #[must_use]
    pub fn borrow(&self) -> Origin<'_> {
        Origin { version: self.params.version, own_path: &self.own_path, params: &self.params }
    }
}

impl Origin<'_> {
    /// The tables of the version.
    #[must_use]
    pub fn definitions(&self) -> &'static Definitions {
        Definitions::of(self.version)
    }

    /// To keep.
    #[must_use]
    pub fn owned(&self) -> OwnedOrigin {
        OwnedOrigin { own_path: self.own_path.to_owned(), params: self.params.clone() }
    }

    /// `Patient/1` for an absolute URL into this very simulator.
    #[must_use]
    pub fn local_part<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (host, rest) = url.split_once(self.own_path)?;
        (host.starts_with("http://") || host.starts_with("https://")).then_some(rest)
    }
}

/// The term all resources of a type have.
#[must_use]
pub fn type_term(type_name: &str) -> String {
    format!("_type\u{1f}{type_name}")
}

/// The term all resources have that contain one of a type.
#[must_use]
pub fn contains_term(type_name: &str) -> String {
    format!("_contains\u{1f}{type_name}")
}

/// The term that all resources have which refer to `uid`, `Patient/123`, in whatever element.
#[must_use]
pub fn refers_term(uid: &str) -> String {
    format!("_refers\u{1f}{uid}")
}

/// Calls `found` with every literal reference in a resource. What a Bundle holds is not the simulator's.
pub fn references<'v>(resource: &'v Value, type_name: &str, found: &mut dyn FnMut(&'v str)) {
    if type_name != "Bundle" {
        references_in(resource, found);
    }
}

fn references_in<'v>(value: &'v Value, found: &mut dyn FnMut(&'v str)) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| match value {
            Value::String(text) if key == "reference" => found(text),
            _ => references_in(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references_in(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The keys of a resource of type `type_name` with the id and the instant (milliseconds) it is stored with.
#[must_use]
pub fn extract(resource: &Value, type_name: &'static str, id: &ResourceId, last_updated_ms: i64, origin: &Origin<'_>) -> Keys {
    let mut keys = KeysBuilder::default();
    keys.term(&[&type_term(type_name)]);
    for contained in resource.get("contained").and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = contained.get("resourceType").and_then(Value::as_str) {
            keys.term(&[&contains_term(name)]);
        }
    }
    references(resource, type_name, &mut |text| {
        if let Reference::Local { type_name, id, .. } = Reference::parse(origin.local_part(text).unwrap_or(text), origin.definitions()) {
            keys.term(&[&refers_term(""), type_name, "/", id]);
        }
    });
    for param in &origin.params.of(type_name).list {
        match &*param.code {
            // What is stored differs from what was sent in these two.
            "_id" => {
                param::token::add_code(param, id.as_str(), &mut keys);
                mark_present(&param.name, &mut keys);
                continue;
            }
            "_lastUpdated" => {
                let low = last_updated_ms.saturating_mul(1_000);
                param::date::add(param, crate::fhir::instant::Interval { low, high: low + 1_000 }, &mut keys);
                mark_present(&param.name, &mut keys);
                continue;
            }
            // Decided by their components' parameters and a check.
            _ if param.kind == ParamType::Composite && !param.has_part_keys => continue,
            _ if param.kind == ParamType::Composite => {
                parts(param, resource, type_name, origin, &mut keys);
                continue;
            }
            _ => {}
        }
        param.with_values(resource, type_name, |found| add(param, found, origin, &mut keys));
    }
    keys.build()
}

/// The keys of a resource that is not stored by itself: a contained one.
#[must_use]
pub fn extract_contained(resource: &Value, type_name: &'static str, origin: &Origin<'_>) -> Keys {
    let mut keys = KeysBuilder::default();
    keys.term(&[&type_term(type_name)]);
    for param in &origin.params.of(type_name).list {
        if param.kind != ParamType::Composite {
            param.with_values(resource, type_name, |found| add(param, found, origin, &mut keys));
        } else if param.has_part_keys {
            parts(param, resource, type_name, origin, &mut keys);
        }
    }
    keys.build()
}

/// The keys of some values of a parameter.
#[must_use]
pub fn keys_of(param: &Param, found: &[Node<'_>], origin: &Origin<'_>) -> Keys {
    let mut keys = KeysBuilder::default();
    add(param, found, origin, &mut keys);
    keys.build()
}

/// Adds the keys of all parts of a composite, whatever element they are of.
fn parts(param: &Param, resource: &Value, type_name: &'static str, origin: &Origin<'_>, keys: &mut KeysBuilder) {
    let root = Node::new(resource, Ty::named(type_name));
    param.with_values(resource, type_name, |elements| {
        for component in &param.components {
            let mut found = Vec::new();
            for element in elements {
                component.path.evaluate_below(*element, root, &mut found);
            }
            add(component, &found, origin, keys);
        }
    });
}

/// The keys of each element that a composite parameter is about.
#[must_use]
pub fn elements(param: &Param, resource: &Value, type_name: &'static str, origin: &Origin<'_>) -> Vec<Keys> {
    let root = Node::new(resource, Ty::named(type_name));
    let keys_of_one = |element: Node<'_>| {
        let mut keys = KeysBuilder::default();
        for component in &param.components {
            let mut found = Vec::new();
            component.path.evaluate_below(element, root, &mut found);
            add(component, &found, origin, &mut keys);
        }
        keys.build()
    };
    param.with_values(resource, type_name, |elements| elements.iter().copied().map(keys_of_one).collect())
}

fn add(param: &Param, found: &[Node<'_>], origin: &Origin<'_>, keys: &mut KeysBuilder) {
    if found.is_empty() {
        return;
    }
    let added: usize = match param.kind {
        ParamType::Token => found.iter().map(|n| param::token::index(param, n, origin, keys)).sum(),
        ParamType::String => found.iter().map(|n| param::string::index(param, n, keys)).sum(),
        ParamType::Reference => found.iter().map(|n| param::reference::index(param, n, origin, keys)).sum(),
        ParamType::Uri => found.iter().map(|n| param::uri::index(param, n, keys)).sum(),
        ParamType::Date => param::date::index(param, found, keys),
        ParamType::Number => param::number::index(param, found, keys),
        ParamType::Quantity => param::quantity::index(param, found, keys),
        ParamType::Special => param::near::index(param, found, keys),
        ParamType::Composite => 0,
    };
    if added > 0 {
        mark_present(&param.name, keys);
    }
}

/// The key that `:missing` asks for.
fn mark_present(name: &str, keys: &mut KeysBuilder) {
    keys.term(&[name, "\u{1f}!"]);
}
