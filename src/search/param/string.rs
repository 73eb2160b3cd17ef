//! String parameters, <https://hl7.org/fhir/R4/search.html#string>: the beginning matches, case and accents aside.

use std::sync::Arc;

use serde_json::Value;

use super::super::params::Param;
use super::super::parse::Modifier;
use super::super::path::Node;
use super::{Env, bad_value, unescape};
use crate::fhir::Failure;
use crate::query::text::{Text, normalise, words};
use crate::query::{KeysBuilder, MAX_TERM_BYTES, Query};

/// A longer text may not fit into a term.
const LONG: usize = MAX_TERM_BYTES / 4;
/// The members of HumanName and Address that are searched.
const PARTS: [&str; 12] = ["text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country", "name"];

/// Adds the keys of a value; returns how many strings it was.
pub fn index(param: &Param, node: &Node<'_>, keys: &mut KeysBuilder) -> usize {
    match node.value {
        Value::String(text) => {
            keys.term(&[&param.name, "\u{1f}s", &normalise(text)]);
            keys.term(&[&param.name, "\u{1f}x", text]);
            if text.len() > LONG {
                keys.term(&[&param.name, "\u{1f}~"]);
            }
            1
        }
        Value::Array(items) => items.iter().map(|value| index(param, &Node { value, ..*node }, keys)).sum(),
        Value::Object(object) => PARTS.iter().filter_map(|part| object.get(*part)).map(|value| index(param, &Node { value, ..*node }, keys)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The query of one search value.
///
/// # Errors
/// Nothing of the value is left without case and accents.
pub fn query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let wanted = wanted(param, value)?;
    let begins = Query::prefix(&param.key('s', &wanted));
    if wanted.len() <= LONG {
        return Ok(begins);
    }
    // The term may be only the beginning of what is looked for.
    let check = env.on_values(param, move |found| {
        let mut any = false;
        for node in found {
            each(node.value, &mut |text| any |= normalise(text).starts_with(&wanted));
        }
        any
    });
    Ok(Query::Verify(Box::new(begins), check))
}

/// What is looked for: every text begins with nothing, so a value of blanks or of lone accents must not come to that.
///
/// # Errors
/// Nothing of the value is left without case and accents.
fn wanted(param: &Param, value: &str) -> Result<String, Failure> {
    let wanted = normalise(&unescape(value));
    if wanted.is_empty() { Err(bad_value(param, value, "a text: only blanks or accents; say a letter, or use :exact")) } else { Ok(wanted) }
}

/// The query of one search value with a modifier.
///
/// # Errors
/// `:text`: the condition on words cannot be read.
pub fn modified(param: &Arc<Param>, modifier: Modifier, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    match modifier {
        Modifier::Exact => Ok(Query::term(&param.key('x', &unescape(value)))),
        Modifier::Contains => part(param, value, false, env),
        Modifier::Text => {
            let condition = condition(param, value)?;
            let (origin, name) = (env.origin.owned(), param.key('s', ""));
            let parameter = param.clone();
            let check = env.on_values(param, move |found| {
                let keys = super::super::extract::keys_of(&parameter, found, &origin.borrow());
                let strings: Vec<Vec<String>> = keys.terms_with(&name).map(words).collect();
                strings.into_iter().any(|s| condition.matches(&[s]))
            });
            Ok(Query::Verify(Box::new(Query::term(&param.key('!', ""))), check))
        }
        _ => query(param, value, env),
    }
}

/// Anywhere in the value, or at its end.
///
/// # Errors
/// Nothing of the value is left without case and accents.
pub fn part(param: &Arc<Param>, value: &str, at_end: bool, env: &Env<'_>) -> Result<Query, Failure> {
    let wanted = wanted(param, value)?;
    let terms = Query::TermContains { prefix: param.key('s', "").into(), part: wanted.as_str().into(), at_end };
    // Of a long value, the term is only the beginning.
    let check = env.on_values(param, move |found| {
        let mut any = false;
        for node in found {
            each(node.value, &mut |text| {
                let text = normalise(text);
                any |= if at_end { text.ends_with(&wanted) } else { text.contains(&wanted) };
            });
        }
        any
    });
    Ok(Query::or(vec![terms, Query::Verify(Box::new(Query::term(&param.key('~', ""))), check)]))
}

/// Calls `found` with every string of a value.
fn each(value: &Value, found: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|v| each(v, found)),
        Value::Object(object) => PARTS.iter().filter_map(|part| object.get(*part)).for_each(|v| each(v, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A condition on words.
///
/// # Errors
/// It cannot be read.
pub fn condition(param: &Param, value: &str) -> Result<Text, Failure> {
    Text::parse(&unescape(value)).map_err(|reason| bad_value(param, value, &format!("a condition on words: {reason}")))
}
