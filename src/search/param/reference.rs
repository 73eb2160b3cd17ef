//! Reference parameters, <https://hl7.org/fhir/R4/search.html#reference>.

use serde_json::Value;

use super::super::extract::Origin;
use super::super::params::Param;
use super::super::path::Node;
use super::{bad_value, unescape};
use crate::fhir::Failure;
use crate::fhir::reference::Reference;
use crate::query::{KeysBuilder, Query};

/// Adds the keys of a value; returns whether it was a reference.
pub fn index(param: &Param, node: &Node<'_>, origin: &Origin<'_>, keys: &mut KeysBuilder) -> usize {
    let text = |name: &str| node.value.get(name).and_then(Value::as_str);
    let found = match node.value {
        Value::String(text) => Some(text.as_str()),
        Value::Object(_) if node.ty.base == "CodeableReference" => node.value.get("reference").and_then(|r| r.get("reference")).and_then(Value::as_str),
        Value::Object(_) => text("reference"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    };
    if let Some(found) = found {
        add(param, found, origin, keys);
        return 1;
    }
    if let (Some(type_name), Some(id)) = (text("resourceType"), text("id")) {
        add(param, &format!("{type_name}/{id}"), origin, keys);
        return 1;
    }
    // A logical reference is a value, though not one that this parameter's plain form finds.
    usize::from(node.value.get("identifier").is_some())
}

fn add(param: &Param, text: &str, origin: &Origin<'_>, keys: &mut KeysBuilder) {
    let text = origin.local_part(text).unwrap_or(text);
    match Reference::parse(text, origin.definitions()) {
        Reference::Local { type_name, id, .. } => {
            keys.term(&[&param.name, "\u{1f}r", type_name, "/", id]);
            keys.term(&[&param.name, "\u{1f}i", id]);
        }
        Reference::Contained(_) | Reference::Conditional { .. } => {}
        Reference::Other(url) => {
            keys.term(&[&param.name, "\u{1f}u", url]);
            if let Some((canonical, _)) = url.split_once('|') {
                keys.term(&[&param.name, "\u{1f}u", canonical]);
            }
        }
    }
}

/// The query of one search value: `Type/id`, `id`, or an absolute URL.
#[must_use]
pub fn query(param: &Param, value: &str, origin: &Origin<'_>) -> Query {
    let value = unescape(value);
    let text = origin.local_part(&value).unwrap_or(&value);
    match Reference::parse(text, origin.definitions()) {
        Reference::Local { type_name, id, .. } => Query::term(&param.key('r', &format!("{type_name}/{id}"))),
        Reference::Contained(_) | Reference::Conditional { .. } => Query::None,
        Reference::Other(text) => Query::or(vec![Query::term(&param.key('i', text)), Query::term(&param.key('u', text))]),
    }
}

/// `:Type`: the id of a resource of that type.
///
/// # Errors
/// The value names another type.
pub fn query_of_type(param: &Param, value: &str, type_name: &str, origin: &Origin<'_>) -> Result<Query, Failure> {
    let text = unescape(value);
    match Reference::parse(origin.local_part(&text).unwrap_or(&text), origin.definitions()) {
        Reference::Local { type_name: named, .. } if named != type_name => Err(bad_value(param, value, &format!("a reference to a {type_name}"))),
        Reference::Local { id, .. } => Ok(Query::term(&param.key('r', &format!("{type_name}/{id}")))),
        _ => Ok(Query::term(&param.key('r', &format!("{type_name}/{text}")))),
    }
}
