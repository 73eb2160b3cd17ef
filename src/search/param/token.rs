//! Token parameters, <https://hl7.org/fhir/R4/search.html#token>. Codes are compared as they are written.

use std::sync::Arc;

use serde_json::Value;

use super::super::extract::Origin;
use super::super::params::Param;
use super::super::parse::Modifier;
use super::super::path::{Node, Ty};
use super::super::terminology::{self, Members};
use super::{Env, bad_value, split_unescaped, string, unescape};
use crate::fhir::Failure;
use crate::fhir::definitions::{ANY_CODE, ParamType};
use crate::fhir::id::clip;
use crate::query::text::{Text, normalise, words};
use crate::query::{Check, KeysBuilder, Query};

/// What a value holds, piece by piece.
enum Piece<'a> {
    /// A system, a code, or both.
    Pair(Option<&'a str>, Option<&'a str>),
    /// A code that has no system but the ones its element is bound to.
    Code(&'a str),
    /// Text for people.
    Text(&'a str),
    /// An identifier with one coding of its type.
    Typed(&'a Value, &'a str),
}

/// Adds the keys of a value; returns how many values it was.
pub fn index(param: &Param, node: &Node<'_>, origin: &Origin<'_>, keys: &mut KeysBuilder) -> usize {
    let mut count = 0;
    each(node, &mut |piece| match piece {
        Piece::Pair(system, code) => {
            count += usize::from(system.is_some() || code.is_some());
            if let Some(code) = code {
                keys.term(&[&param.name, "\u{1f}c", code]);
            }
            add(param, system, code, keys);
        }
        Piece::Code(code) => {
            count += 1;
            add_code(param, code, keys);
            if is_text(&node.ty) {
                keys.term(&[&param.name, "\u{1f}C", &code.to_lowercase()]);
            }
            for system in systems(node, code, origin) {
                add(param, Some(system), Some(code), keys);
            }
        }
        // Text for people is no code, but the element is there.
        Piece::Text(text) => {
            count += 1;
            keys.term(&[&param.name, "\u{1f}T", &normalise(text)]);
        }
        Piece::Typed(coding, value) => {
            let text = |name: &str| coding.get(name).and_then(Value::as_str).unwrap_or_default();
            keys.term(&[&param.name, "\u{1f}o", text("system"), "|", text("code"), "|", value]);
        }
    });
    count
}

/// Calls `found` with every piece of a value.
fn each<'v>(node: &Node<'v>, found: &mut dyn FnMut(Piece<'v>)) {
    match node.value {
        Value::Bool(flag) => found(Piece::Code(if *flag { "true" } else { "false" })),
        // Numbers are kept as they were written.
        Value::Number(number) => found(Piece::Code(number.as_str())),
        Value::String(code) => found(Piece::Code(code)),
        Value::Object(object) => {
            let text = |name: &str| object.get(name).and_then(Value::as_str);
            match node.ty.base {
                "CodeableConcept" => {
                    let codings = object.get("coding").and_then(Value::as_array).into_iter().flatten();
                    codings.for_each(|value| each(&Node::new(value, Ty::named("Coding")), found));
                    if let Some(text) = text("text") {
                        found(Piece::Text(text));
                    }
                }
                "CodeableReference" => {
                    if let Some(value) = object.get("concept") {
                        each(&Node::new(value, Ty::named("CodeableConcept")), found);
                    }
                }
                "Coding" => {
                    found(Piece::Pair(text("system"), text("code")));
                    if let Some(text) = text("display") {
                        found(Piece::Text(text));
                    }
                }
                _ if text("value").is_some() || text("system").is_some() => {
                    found(Piece::Pair(text("system"), text("value")));
                    if let (Some(kind), Some(value)) = (object.get("type"), text("value")) {
                        let codings = kind.get("coding").and_then(Value::as_array).into_iter().flatten();
                        codings.for_each(|coding| found(Piece::Typed(coding, value)));
                        kind.get("text").and_then(Value::as_str).into_iter().for_each(|t| found(Piece::Text(t)));
                    }
                }
                _ => {}
            }
        }
        Value::Null | Value::Array(_) => {}
    }
}

/// Whether values of a type are strings, whose case does not count though they are tokens.
fn is_text(ty: &Ty) -> bool {
    ty.base == "string"
}

/// The systems that a bare code can belong to by the binding of its element.
fn systems<'d>(node: &Node<'_>, code: &str, origin: &Origin<'_>) -> impl Iterator<Item = &'d str> {
    let groups = node.codes.and_then(|name| origin.definitions().codes(name)).into_iter().flatten();
    groups.filter(move |(_, codes)| codes.contains(&code) || codes.contains(&ANY_CODE)).map(|(system, _)| *system)
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

/// Adds the keys of an identifier that stands for a resource, under the parameter's name and `:identifier`.
pub fn index_identifier(param: &Param, identifier: &Value, keys: &mut KeysBuilder) {
    let text = |name: &str| identifier.get(name).and_then(Value::as_str);
    let name = &param.name;
    if let Some(value) = text("value") {
        keys.term(&[name, ":identifier\u{1f}c", value]);
        keys.term(&[name, ":identifier\u{1f}t", text("system").unwrap_or(""), "|", value]);
    }
    if let Some(system) = text("system") {
        keys.term(&[name, ":identifier\u{1f}y", system]);
    }
}

/// The query of one search value: `code`, `system|code`, `|code`, `system|`.
#[must_use]
pub fn query(param: &Param, value: &str) -> Query {
    let literal = query_named(&param.name, value);
    if !param.path.types.iter().any(is_text) {
        return literal;
    }
    match split_unescaped(value, '|')[..] {
        [code] | ["", code] => Query::or(vec![literal, Query::term(&param.key('C', &unescape(code).to_lowercase()))]),
        _ => literal,
    }
}

/// The same for keys under `name`.
#[must_use]
pub fn query_named(name: &str, value: &str) -> Query {
    let parts = split_unescaped(value, '|');
    let term = |class: char, text: &str| Query::term(&format!("{name}\u{1f}{class}{text}"));
    match parts[..] {
        [code] => term('c', &unescape(code)),
        [system, ""] => term('y', &unescape(system)),
        // A further bar belongs to the code: clients send `system|a|b` without escaping it.
        _ => {
            let system = unescape(parts[0]);
            let code = unescape(&value[parts[0].len() + 1..]);
            term('t', &format!("{system}|{code}"))
        }
    }
}

/// Why a value cannot be meant for any of `params`: it is a bar alone.
#[must_use]
pub fn misread(params: &[&Arc<Param>], value: &str) -> Option<Failure> {
    let param = params.iter().find(|_| params.iter().all(|p| p.kind == ParamType::Token)).filter(|_| value.trim() == "|")?;
    Some(bad_value(param, value, "code, system|code, |code or system|; whether there is a value at all is asked by :missing"))
}

/// Why a value finds nothing whatever is stored, if all that the parameter finds is a boolean: it is no error, for a code that nobody
/// has is none, <https://hl7.org/fhir/R4/search.html#errors>.
#[must_use]
pub fn doubt(param: &Param, value: &str) -> Option<String> {
    let is_flag = param.whole.is_none() && !param.path.is_empty() && param.path.types.iter().all(|t| *t == Ty::named("boolean"));
    let is_one = matches!(split_unescaped(value, '|')[..], ["true" | "false"] | ["", "true" | "false"]);
    (is_flag && !is_one).then(|| format!("search parameter '{}' is true or false; nothing is '{}'", param.code, clip(value)))
}

/// The query of one search value with a modifier.
///
/// # Errors
/// The value does not fit the modifier, or what it names is not there.
pub fn modified(param: &Arc<Param>, modifier: Modifier, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    match modifier {
        Modifier::Text => Ok(text(param, value)),
        Modifier::TextAdvanced => text_advanced(param, value, env),
        Modifier::CodeText => Ok(code_text(param, value, env)),
        Modifier::OfType => match split_unescaped(value, '|')[..] {
            [system, code, number] if !number.is_empty() && !code.is_empty() => {
                let typed = format!("{}|{}|{}", unescape(system), unescape(code), unescape(number));
                Ok(Query::term(&param.key('o', &typed)))
            }
            _ => Err(bad_value(param, value, "system|code|value, such as http://terminology.hl7.org/CodeSystem/v2-0203|MR|446053")),
        },
        Modifier::In | Modifier::NotIn => Ok(among(param, &terminology::value_set(&unescape(value), env)?, env)),
        Modifier::Below if is_media_type(param) && !value.contains('|') => Ok(media_types(param, &unescape(value))),
        Modifier::Above | Modifier::Below => match split_unescaped(value, '|')[..] {
            [system, code] if !system.is_empty() && !code.is_empty() => {
                let (system, code) = (unescape(system), unescape(code));
                let codes = terminology::related(&system, &code, modifier == Modifier::Above, env)?;
                Ok(among(param, &Arc::new(Members::Codes(system.into(), codes)), env))
            }
            _ => Err(bad_value(param, value, "system|code: without its system, a code has no place in a hierarchy")),
        },
        _ => Ok(query(param, value)),
    }
}

/// Whether the values are media types.
fn is_media_type(param: &Param) -> bool {
    [".contentType", "CapabilityStatement.format", ".patchFormat"].iter().any(|end| param.expression.ends_with(end))
}

/// A media type with whatever parameters, or all of a kind, <https://hl7.org/fhir/R4/search.html#mimetype>.
fn media_types(param: &Param, wanted: &str) -> Query {
    let longer =
        [";", " ", "/"].iter().filter(|more| **more != "/" || !wanted.contains('/')).map(|more| Query::prefix(&param.key('c', &format!("{wanted}{more}"))));
    Query::or(std::iter::once(Query::term(&param.key('c', wanted))).chain(longer).collect())
}

/// `:text`: the text for people begins so.
#[must_use]
pub fn text(param: &Param, value: &str) -> Query {
    Query::prefix(&param.key('T', &normalise(&unescape(value))))
}

/// `:text-advanced`: the text for people fulfils a condition on its words.
///
/// # Errors
/// The condition cannot be read.
pub fn text_advanced(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let condition = string::condition(param, value)?;
    let narrowing = match &condition {
        Text::Word(word) => Query::TermContains { prefix: param.key('T', "").into(), part: word.as_str().into(), at_end: false },
        _ => Query::prefix(&param.key('T', "")),
    };
    let (origin, name) = (env.origin.owned(), param.key('T', ""));
    let parameter = param.clone();
    let check = env.on_values(param, move |found| {
        let keys = super::super::extract::keys_of(&parameter, found, &origin.borrow());
        let strings: Vec<Vec<String>> = keys.terms_with(&name).map(words).collect();
        strings.into_iter().any(|s| condition.matches(&[s]))
    });
    Ok(Query::Verify(Box::new(narrowing), check))
}

/// `:code-text`: the code begins so, upper and lower case alike.
#[must_use]
pub fn code_text(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Query {
    let wanted = unescape(value).to_lowercase();
    let (origin, name) = (env.origin.owned(), param.key('c', ""));
    let parameter = param.clone();
    let check = env.on_values(param, move |found| {
        let keys = super::super::extract::keys_of(&parameter, found, &origin.borrow());
        keys.terms_with(&name).any(|code| code.to_lowercase().starts_with(&wanted))
    });
    Query::Verify(Box::new(Query::prefix(&param.key('c', ""))), check)
}

/// One of the codes is another than `value`, which is written as a search would.
#[must_use]
pub fn unequal(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Check {
    let parts: Vec<String> = split_unescaped(value, '|').iter().map(|part| unescape(part)).collect();
    let origin = env.origin.owned();
    env.on_values(param, move |found| {
        let origin = origin.borrow();
        let is = |system: Option<&str>, code: Option<&str>| match &parts[..] {
            [wanted] => code == Some(wanted),
            [wanted, none] if none.is_empty() => system == Some(wanted),
            [wanted, rest @ ..] => system.unwrap_or("") == wanted && code == Some(rest.join("|").as_str()),
            [] => false,
        };
        found.iter().any(|node| {
            let mut another = false;
            each(node, &mut |piece| match piece {
                Piece::Pair(system, code) if system.is_some() || code.is_some() => another |= !is(system, code),
                Piece::Code(code) if is_text(&node.ty) => another |= parts.last().is_none_or(|wanted| wanted.to_lowercase() != code.to_lowercase()),
                Piece::Code(code) => {
                    let mut systems = systems(node, code, &origin);
                    another |= !is(None, Some(code)) && !systems.any(|system| is(Some(system), Some(code)));
                }
                Piece::Pair(..) | Piece::Text(_) | Piece::Typed(..) => {}
            });
            another
        })
    })
}

/// One of the codes is among `members`.
fn among(param: &Arc<Param>, members: &Arc<Members>, env: &Env<'_>) -> Query {
    let narrowing = members.narrowing(param);
    if members.is_plain() {
        return narrowing;
    }
    let (origin, members) = (env.origin.owned(), members.clone());
    let check = env.on_values(param, move |found| {
        let origin = origin.borrow();
        found.iter().any(|node| {
            let mut is_member = false;
            each(node, &mut |piece| match piece {
                Piece::Pair(Some(system), Some(code)) => is_member |= members.contains(system, code),
                Piece::Code(code) => {
                    let mut systems = systems(node, code, &origin);
                    is_member |= systems.any(|system| members.contains(system, code));
                }
                Piece::Pair(..) | Piece::Text(_) | Piece::Typed(..) => {}
            });
            is_member
        })
    });
    Query::Verify(Box::new(narrowing), check)
}
