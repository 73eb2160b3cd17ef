//! Number parameters, <https://hl7.org/fhir/R4/search.html#number>.

use std::sync::Arc;

use bigdecimal::BigDecimal;
use serde_json::Value;

use super::super::params::Param;
use super::super::path::Node;
use super::numeric::{self, Amount, Wanted};
use super::{Env, bad_value, prefixed, unescape};
use crate::fhir::Failure;
use crate::fhir::decimal;
use crate::query::{KeysBuilder, Query};

/// The numbers and ranges among `found`.
fn amounts(found: &[Node<'_>]) -> Vec<Amount> {
    found.iter().filter_map(amount).collect()
}

fn amount(node: &Node<'_>) -> Option<Amount> {
    let bound = |side: &str| node.value.get(side).and_then(|q| q.get("value")).and_then(number_of);
    match node.value {
        Value::Number(_) => number_of(node.value).map(Amount::Exact),
        // JSON has it as a string, <https://hl7.org/fhir/R5/json.html#primitive>.
        Value::String(text) if node.ty.base == "integer64" => decimal::parse(text).map(Amount::Exact),
        // STU3 has the length of an Encounter so.
        Value::Object(duration) if node.ty.base == "Duration" => duration.get("value").and_then(number_of).map(Amount::Exact),
        Value::Object(_) if node.ty.base == "Range" => Some(Amount::Between(bound("low"), bound("high"))),
        _ => None,
    }
}

/// The number that a JSON number is.
#[must_use]
pub fn number_of(value: &Value) -> Option<BigDecimal> {
    match value {
        Value::Number(n) => decimal::parse(&n.to_string()),
        _ => None,
    }
}

/// Adds the keys of the values; returns how many there were.
pub fn index(param: &Param, found: &[Node<'_>], keys: &mut KeysBuilder) -> usize {
    let amounts = amounts(found);
    for amount in &amounts {
        numeric::index(param, "", amount, keys);
    }
    // A number beyond what can be compared is there all the same.
    amounts.len().max(found.iter().filter(|n| n.value.is_number()).count())
}

/// Reads a number with its prefix.
///
/// # Errors
/// It is none.
pub fn wanted(param: &Param, value: &str, text: &str) -> Result<Wanted, Failure> {
    let (prefix, text) = prefixed(param, text)?;
    let text = unescape(text);
    let number = decimal::parse(&text).ok_or_else(|| bad_value(param, value, "a number such as 100, 5.40 or gt1e-3"))?;
    let (low, high) = decimal::implicit_range(&text, &number);
    Ok(Wanted { prefix, number, low, high })
}

/// The query of one search value.
///
/// # Errors
/// The value is no number.
pub fn query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let wanted = wanted(param, value, value)?;
    let check = env.on_values(param, {
        let wanted = wanted.clone();
        move |found| amounts(found).iter().any(|a| wanted.holds(a))
    });
    Ok(numeric::query(param, "", &wanted, check))
}
