//! Token parameters, <https://hl7.org/fhir/R4/search.html#token>. Codes are compared as they are written.

use serde_json::Value;

use super::super::extract::Origin;
use super::super::params::Param;
use super::super::path::Node;
use super::{split_unescaped, unescape};
use crate::query::{KeysBuilder, Query};

/// Adds the keys of a value; returns how many values it was.
pub fn index(param: &Param, node: &Node<'_>, origin: &Origin<'_>, keys: &mut KeysBuilder) -> usize {
    match node.value {
        Value::Bool(flag) => {
            add_code(param, if *flag { "true" } else { "false" }, keys);
            1
        }
        Value::Number(number) => {
            add_code(param, &number.to_string(), keys);
            1
        }
        Value::String(code) => {
            add_code(param, code, keys);
            let systems = node.codes.and_then(|name| origin.definitions().codes(name)).into_iter().flatten();
            for (system, _) in systems.filter(|(_, codes)| codes.contains(&code.as_str())) {
                add(param, Some(system), Some(code), keys);
            }
            1
        }
        Value::Object(object) => {
            let text = |name: &str| object.get(name).and_then(Value::as_str);
            match node.ty.base {
                "CodeableConcept" => {
                    let codings = object.get("coding").and_then(Value::as_array).into_iter().flatten();
                    codings.filter(|c| c.is_object()).map(|value| index_pair(param, value, "code", keys)).sum()
                }
                "CodeableReference" => match object.get("concept") {
                    Some(value) => index(param, &Node { value, ty: super::super::path::Ty { base: "CodeableConcept", path: "" }, codes: None }, origin, keys),
                    None => 0,
                },
                "Coding" => index_pair(param, node.value, "code", keys),
                _ if text("value").is_some() || text("system").is_some() => index_pair(param, node.value, "value", keys),
                _ => 0,
            }
        }
        Value::Null | Value::Array(_) => 0,
    }
}

/// A Coding, an Identifier or a ContactPoint.
fn index_pair(param: &Param, value: &Value, code: &str, keys: &mut KeysBuilder) -> usize {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let (system, code) = (text("system"), text(code));
    if let Some(code) = code {
        keys.term(&[&param.name, "\u{1f}c", code]);
    }
    add(param, system, code, keys);
    usize::from(system.is_some() || code.is_some())
}

/// Adds the keys of a code without a system.
pub fn add_code(param: &Param, code: &str, keys: &mut KeysBuilder) {
    keys.term(&[&param.name, "\u{1f}c", code]);
    keys.term(&[&param.name, "\u{1f}t|", code]);
}

fn add(param: &Param, system: Option<&str>, code: Option<&str>, keys: &mut KeysBuilder) {
    if let Some(system) = system {
        keys.term(&[&param.name, "\u{1f}y", system]);
    }
    if let Some(code) = code {
        keys.term(&[&param.name, "\u{1f}t", system.unwrap_or(""), "|", code]);
    }
}

/// The query of one search value: `code`, `system|code`, `|code`, `system|`.
#[must_use]
pub fn query(param: &Param, value: &str) -> Query {
    let parts = split_unescaped(value, '|');
    match parts[..] {
        [code] => Query::term(&param.key('c', &unescape(code))),
        [system, ""] => Query::term(&param.key('y', &unescape(system))),
        // A further bar belongs to the code: clients send `system|a|b` without escaping it.
        _ => {
            let system = unescape(parts[0]);
            let code = unescape(&value[parts[0].len() + 1..]);
            Query::term(&param.key('t', &format!("{system}|{code}")))
        }
    }
}
