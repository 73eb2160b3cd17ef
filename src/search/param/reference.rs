//! Reference parameters, <https://hl7.org/fhir/R4/search.html#reference>.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::super::extract::Origin;
use super::super::params::{Param, TypeParams};
use super::super::parse::Modifier;
use super::super::path::Node;
use super::{Env, bad_value, token, unescape};
use crate::fhir::reference::Reference;
use crate::fhir::{Failure, FhirVersion, Kind, ResourceId};
use crate::query::text::normalise;
use crate::query::{KeysBuilder, Query};

/// Most steps up or down a hierarchy.
const MAX_STEPS: usize = 64;

/// The reference that a value is or holds, as text.
#[must_use]
pub fn text_of<'v>(node: &Node<'v>) -> Option<&'v str> {
    let text = |value: &'v Value| value.get("reference").and_then(Value::as_str);
    match node.value {
        Value::String(text) => Some(text),
        Value::Object(_) if node.ty.base == "CodeableReference" => node.value.get("reference").and_then(text),
        Value::Object(_) => text(node.value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => None,
    }
}

/// Adds the keys of a value; returns whether it was a reference.
pub fn index(param: &Param, node: &Node<'_>, origin: &Origin<'_>, keys: &mut KeysBuilder) -> usize {
    let reference = if node.ty.base == "CodeableReference" { node.value.get("reference").unwrap_or(&Value::Null) } else { node.value };
    if let Some(identifier) = reference.get("identifier").filter(|i| i.is_object()) {
        token::index_identifier(param, identifier, keys);
    }
    if origin.version == FhirVersion::R5
        && let Some(display) = reference.get("display").and_then(Value::as_str)
    {
        keys.term(&[&param.name, "\u{1f}T", &normalise(display)]);
    }
    if let Some(found) = text_of(node) {
        add(param, found, origin, keys);
        return 1;
    }
    let text = |name: &str| node.value.get(name).and_then(Value::as_str);
    if let (Some(type_name), Some(id)) = (text("resourceType"), text("id")) {
        add(param, &format!("{type_name}/{id}"), origin, keys);
        return 1;
    }
    // A logical reference is a value, though not one that this parameter's plain form finds.
    usize::from(reference.get("identifier").is_some())
}

fn add(param: &Param, text: &str, origin: &Origin<'_>, keys: &mut KeysBuilder) {
    let own = origin.local_part(text);
    match Reference::parse(own.unwrap_or(text), origin.definitions()) {
        Reference::Local { type_name, id, version } => {
            keys.term(&[&param.name, "\u{1f}r", type_name, "/", id]);
            keys.term(&[&param.name, "\u{1f}i", id]);
            if let Some(version) = version {
                keys.term(&[&param.name, "\u{1f}v"]);
                keys.term(&[&param.name, "\u{1f}v", type_name, "/", id, "/_history/", version]);
            }
            // A canonical URL may look like one of a resource here.
            if own.is_some() && param.is_canonical() {
                add_url(param, text, keys);
            }
        }
        Reference::Contained(_) => keys.term(&[&param.name, "\u{1f}n"]),
        Reference::Conditional { .. } => {}
        Reference::Other(_) => add_url(param, text, keys),
    }
}

fn add_url(param: &Param, url: &str, keys: &mut KeysBuilder) {
    keys.term(&[&param.name, "\u{1f}u", url]);
    // A fragment is part of neither the URL nor the version of a canonical, <https://hl7.org/fhir/R4/references.html#canonical>.
    let whole = url.split_once('#').map(|(whole, _)| whole).filter(|whole| param.is_canonical() && !whole.is_empty());
    if let Some(whole) = whole {
        keys.term(&[&param.name, "\u{1f}u", whole]);
    }
    if let Some((canonical, _)) = whole.unwrap_or(url).split_once('|') {
        keys.term(&[&param.name, "\u{1f}k", canonical]);
    }
}

/// References that name a version.
#[must_use]
pub fn versioned(param: &Param) -> Query {
    Query::term(&param.key('v', ""))
}

/// The query of one search value, which must not mean resources of several types: <https://hl7.org/fhir/R4/search.html#reference>.
///
/// # Errors
/// It is an id that references to several types have.
pub fn clear_query(param: &Param, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let id = unescape(value);
    let types = param.target_types(env.origin.definitions());
    if types.len() > 1 && id.parse::<ResourceId>().is_ok() {
        let mut meant = Vec::new();
        for type_name in types {
            if meant.len() < 3 && env.lookup.is_there(&Query::term(&param.key('r', &format!("{type_name}/{id}"))))? {
                meant.push(format!("{type_name}/{id}"));
            }
        }
        if meant.len() > 1 {
            let message = format!("search parameter '{}': '{id}' is the id of resources of several types here; say which, {}", param.code, meant.join(" or "));
            return Err(Failure::new(Kind::BadValue, message));
        }
    }
    Ok(query(param, value, &env.origin))
}

/// The query of one search value: `Type/id`, `id`, or an absolute URL.
#[must_use]
pub fn query(param: &Param, value: &str, origin: &Origin<'_>) -> Query {
    let value = unescape(value);
    let own = origin.local_part(&value);
    let by_url = |classes: &[char]| classes.iter().map(|class| Query::term(&param.key(*class, &value))).collect::<Vec<_>>();
    let here = match Reference::parse(own.unwrap_or(&value), origin.definitions()) {
        Reference::Local { type_name, id, version: None } => Query::term(&param.key('r', &format!("{type_name}/{id}"))),
        Reference::Local { type_name, id, version: Some(version) } => Query::term(&param.key('v', &format!("{type_name}/{id}/_history/{version}"))),
        Reference::Contained(_) | Reference::Conditional { .. } => return Query::None,
        Reference::Other(_) => return Query::or(by_url(&['i', 'u', 'k'])),
    };
    if own.is_some() && param.is_canonical() { Query::or([vec![here], by_url(&['u', 'k'])].concat()) } else { here }
}

/// The query of one search value with a modifier.
///
/// # Errors
/// The value does not fit the modifier.
pub fn modified(param: &Arc<Param>, modifier: Modifier, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    match modifier {
        Modifier::Type(type_name) => of_type(param, value, type_name, &env.origin),
        Modifier::Identifier => Ok(token::query_named(&format!("{}:identifier", param.name), value)),
        // Of a reference, the text for people is its display for both.
        Modifier::Text | Modifier::CodeText => Ok(token::text(param, value)),
        Modifier::TextAdvanced => token::text_advanced(param, value, env),
        Modifier::Above | Modifier::Below => {
            let (above, text) = (modifier == Modifier::Above, unescape(value));
            // Some are of either kind: then what is asked for says which.
            let is_local = matches!(Reference::parse(env.origin.local_part(&text).unwrap_or(&text), env.origin.definitions()), Reference::Local { .. });
            if param.is_canonical() && !(is_local && param.is_literal()) { canonical(param, above, value) } else { hierarchy(param, above, value, env) }
        }
        _ => Ok(query(param, value, &env.origin)),
    }
}

/// `:Type`: the id of a resource of that type.
fn of_type(param: &Param, value: &str, type_name: &str, origin: &Origin<'_>) -> Result<Query, Failure> {
    let text = unescape(value);
    match Reference::parse(origin.local_part(&text).unwrap_or(&text), origin.definitions()) {
        Reference::Local { type_name: named, .. } if named != type_name => Err(bad_value(param, value, &format!("a reference to a {type_name}"))),
        Reference::Local { id, .. } => Ok(Query::term(&param.key('r', &format!("{type_name}/{id}")))),
        _ => Ok(Query::term(&param.key('r', &format!("{type_name}/{text}")))),
    }
}

/// `:below` of a canonical: any version that begins so.
fn canonical(param: &Param, above: bool, value: &str) -> Result<Query, Failure> {
    let text = unescape(value);
    if above {
        return Err(bad_value(param, value, "searched by :above: a canonical has versions below it, nothing above"));
    }
    let longer = if text.contains('|') { format!("{text}.") } else { format!("{text}|") };
    Ok(Query::or(vec![Query::term(&param.key('u', &text)), Query::prefix(&param.key('u', &longer))]))
}

/// The parameter by which resources of a type are part of others of their type, if they are.
fn part_of(params: &TypeParams) -> Option<&Arc<Param>> {
    ["partof", "part-of"].iter().find_map(|code| params.get(code)).filter(|p| p.targets.contains(&params.type_name))
}

/// Whether something can be above what the parameter refers to, and something below it.
#[must_use]
pub fn hierarchies(param: &Param, version: FhirVersion) -> (bool, bool) {
    let anything = param.targets.is_empty() || param.targets.contains(&"Resource");
    let nested = (!param.is_canonical() || param.is_literal()) && (anything || param.targets.iter().any(|t| part_of(TypeParams::of(version, t)).is_some()));
    // A canonical has its versions below it.
    (nested, nested || param.is_canonical())
}

/// `:below` and `:above` of a resource that is part of another of its type: Locations, Organizations and the like.
fn hierarchy(param: &Arc<Param>, above: bool, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let text = unescape(value);
    let found = Reference::parse(env.origin.local_part(&text).unwrap_or(&text), env.origin.definitions());
    let (type_name, id) = match (found, &param.targets[..]) {
        (Reference::Local { type_name, id, .. }, _) => (env.origin.definitions().resource_type(type_name)?, id.to_owned()),
        (_, [only]) => (*only, text.clone()),
        _ => return Err(bad_value(param, value, "a reference with its type, such as Location/1")),
    };
    let Some(part_of) = part_of(env.origin.params.of(type_name)) else {
        return Err(Failure::new(Kind::NotSupported, format!("'{}': a {type_name} is not part of another; :above and :below do not apply", param.code)));
    };
    let mut edge: Vec<Box<str>> = vec![format!("{type_name}/{id}").into()];
    let mut all: BTreeSet<Box<str>> = edge.iter().cloned().collect();
    for _ in 0..MAX_STEPS {
        let next = if above {
            let these =
                Query::terms_of(&format!("{type_name}/_id\u{1f}c"), edge.iter().filter_map(|uid| uid.split_once('/')).map(|(_, id)| id.into()).collect());
            env.lookup.terms(&these, &part_of.key('r', ""))?
        } else {
            env.lookup.uids(&Query::terms_of(&part_of.key('r', ""), edge))?
        };
        edge = next.into_iter().filter(|uid| all.insert(uid.clone())).collect();
        if edge.is_empty() {
            break;
        }
    }
    Ok(Query::terms_of(&param.key('r', ""), all.into_iter().collect()))
}
