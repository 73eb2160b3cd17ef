//! The parameter types: one file each, with how values are indexed and how a search value is compiled.
//!
//! The keys of a parameter begin with its name and a letter for the class of key:
//!
//! | class | key |
//! |---|---|
//! | `!` | the parameter has a value |
//! | `#` | it has several intervals, so that both bounds of one must be checked exactly |
//! | `c` `t` `y` | token: code; `system\|code`; system |
//! | `T` `o` | token, reference: text for people, normalised; identifier as `type system\|type code\|value` |
//! | `s` `x` `~` | string: normalised; exact; one is too long for a term |
//! | `r` `i` `v` | reference: `Type/id`; id; `Type/id/_history/version` |
//! | `u` `k` | reference: absolute URL or canonical as it stands; canonical without its version |
//! | `n` | reference: it has one to a contained resource |
//! | `l` | uri |
//! | `e` `a` `b` | number, quantity: unit and exact amount, low bound, high bound as sortable text |
//! | columns `<` `>` | date: low and high bound in microseconds |
//! | column `^` | position: latitude |
//!
//! What terms cannot decide is checked on the stored resource: [`Env::on_values`].

pub mod composite;
pub mod date;
pub mod near;
pub mod number;
pub mod numeric;
pub mod quantity;
pub mod reference;
pub mod string;
pub mod token;
pub mod uri;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::fhir::definitions::ParamType;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind};
use crate::query::{Check, Query};

use super::compile::Lookup;
use super::extract::Origin;
use super::params::Param;
use super::parse::Modifier;
use super::path::Node;

/// What a search value is compiled with.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The simulator's version, path and parameters.
    pub origin: Origin<'a>,
    /// What approximate dates are measured from.
    pub now: DateTime<Utc>,
    /// What the simulator holds.
    pub lookup: &'a dyn Lookup,
}

impl Env<'_> {
    /// An exact check: `test` on the values that `param` has in a stored resource.
    pub fn on_values<F>(&self, param: &Arc<Param>, test: F) -> Check
    where
        F: Fn(&[Node<'_>]) -> bool + Send + Sync + 'static,
    {
        let (param, definitions) = (param.clone(), self.origin.definitions());
        Check(Arc::new(move |bytes| param.in_stored(bytes, definitions, |found, _| test(found)).unwrap_or(false)))
    }

    /// An exact check: `test` on a stored resource and its type.
    pub fn on_resource<F>(&self, test: F) -> Check
    where
        F: Fn(&Value, &'static str) -> bool + Send + Sync + 'static,
    {
        let definitions: &'static Definitions = self.origin.definitions();
        Check(Arc::new(move |bytes| {
            let Ok(resource) = serde_json::from_slice::<Value>(bytes) else { return false };
            let type_name = resource.get("resourceType").and_then(Value::as_str).and_then(|name| definitions.find_resource_type(name));
            type_name.is_some_and(|type_name| test(&resource, type_name))
        }))
    }
}

/// Takes the prefix off a search value, if the parameter compares so.
///
/// # Errors
/// Its definition names other comparators.
pub fn prefixed<'v>(param: &Param, value: &'v str) -> Result<(Prefix, &'v str), Failure> {
    let (prefix, rest) = Prefix::split(value);
    let code = Prefix::ALL.iter().find(|(_, p)| *p == prefix).map_or("eq", |(code, _)| code);
    if param.only.has_comparator(code) {
        return Ok((prefix, rest));
    }
    let message = format!("search parameter '{}': its definition has the comparators {}, and not '{code}'", param.code, param.only.comparators.join(", "));
    Err(Failure::new(Kind::NotSupported, message))
}

/// The query of one search value of `param`, by its type.
///
/// # Errors
/// The type cannot read the value.
pub fn value_query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    match param.kind {
        ParamType::Token => Ok(token::query(param, value)),
        ParamType::String => string::query(param, value, env),
        ParamType::Reference => reference::clear_query(param, value, env),
        ParamType::Uri => Ok(uri::query(param, value)),
        ParamType::Date => date::query(param, value, env),
        ParamType::Number => number::query(param, value, env),
        ParamType::Quantity => quantity::query(param, value, env),
        ParamType::Composite => composite::query(param, value, env),
        ParamType::Special => near::query(param, value, env),
    }
}

/// The query of one search value of `param` with a modifier, by its type.
///
/// # Errors
/// The type cannot read the value.
pub fn modified_query(param: &Arc<Param>, modifier: Modifier, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    match param.kind {
        ParamType::Token => token::modified(param, modifier, value, env),
        ParamType::String => string::modified(param, modifier, value, env),
        ParamType::Reference => reference::modified(param, modifier, value, env),
        ParamType::Uri => uri::modified(param, modifier, value, env),
        ParamType::Date | ParamType::Number | ParamType::Quantity | ParamType::Composite | ParamType::Special => value_query(param, value, env),
    }
}

/// How a search value compares, <https://hl7.org/fhir/R4/search.html#prefix>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// The value lies within the search value's interval.
    Eq,
    /// It does not.
    Ne,
    /// Some of it is beyond the interval.
    Gt,
    /// Some of it is before the interval.
    Lt,
    /// `Gt` or `Eq`.
    Ge,
    /// `Lt` or `Eq`.
    Le,
    /// All of it is beyond the interval.
    Sa,
    /// All of it is before the interval.
    Eb,
    /// It overlaps the interval widened by a tenth.
    Ap,
}

impl Prefix {
    /// All nine, with their spelling.
    pub const ALL: [(&'static str, Self); 9] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("gt", Self::Gt),
        ("lt", Self::Lt),
        ("ge", Self::Ge),
        ("le", Self::Le),
        ("sa", Self::Sa),
        ("eb", Self::Eb),
        ("ap", Self::Ap),
    ];

    /// Takes the prefix off a search value; without one it is `Eq`.
    #[must_use]
    pub fn split(text: &str) -> (Self, &str) {
        for (spelling, prefix) in Self::ALL {
            if let Some(rest) = text.strip_prefix(spelling) {
                return (prefix, rest);
            }
        }
        (Self::Eq, text)
    }
}

/// A search value that its type cannot read.
#[must_use]
pub fn bad_value(param: &Param, value: &str, expected: &str) -> Failure {
    Failure::new(Kind::BadValue, format!("search parameter '{}': '{}' is not {expected}", param.code, clip(value)))
}

/// Splits at each `separator` that no backslash escapes; the parts keep their escapes.
#[must_use]
pub fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Undoes `\,` `\|` `\$` `\\`, <https://hl7.org/fhir/R4/search.html#escaping>; another backslash stands for itself.
#[must_use]
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next) if c == '\\' && matches!(next, ',' | '|' | '$' | '\\') => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

/// Two conditions on the bounds of one interval: exact by themselves for a resource with a single interval, to be checked
/// on the resource where there are several.
#[must_use]
pub fn paired(param: &Param, conditions: Vec<Query>, check: Check) -> Query {
    let both = Query::and(conditions);
    let several = Query::term(&param.key('#', ""));
    let checked = Query::Verify(Box::new(Query::and(vec![both.clone(), several.clone()])), check);
    Query::or(vec![Query::and(vec![both, Query::negate(several)]), checked])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_after_splitting() {
        let parts: Vec<String> = split_unescaped(r"a\,b,c\\,d\x", ',').into_iter().map(unescape).collect();
        assert_eq!(parts, ["a,b", r"c\", r"d\x"]);
        assert_eq!(split_unescaped("", ','), [""]);
    }
}
