//! URI parameters, <https://hl7.org/fhir/R4/search.html#uri>: the whole URI, case and all.

use serde_json::Value;

use super::super::params::Param;
use super::super::path::Node;
use super::unescape;
use crate::query::{KeysBuilder, Query};

/// Adds the key of a value; returns whether it was a URI.
pub fn index(param: &Param, node: &Node<'_>, keys: &mut KeysBuilder) -> usize {
    let Value::String(text) = node.value else { return 0 };
    keys.term(&[&param.name, "\u{1f}l", text]);
    1
}

/// The query of one search value.
#[must_use]
pub fn query(param: &Param, value: &str) -> Query {
    Query::term(&param.key('l', &unescape(value)))
}
