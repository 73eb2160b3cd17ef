//! Number parameters, <https://hl7.org/fhir/R4/search.html#number>: exact decimals, indexed as text that sorts as they do.

use bigdecimal::BigDecimal;
use serde_json::Value;

use super::super::params::Param;
use super::super::path::Node;
use super::{Prefix, bad_value, paired, unescape};
use crate::fhir::decimal;
use crate::fhir::{Failure, FhirVersion};
use crate::query::{KeysBuilder, Query};

/// Below every number's key, and above.
const LEAST: &str = "";
const GREATEST: &str = "~";

/// The numbers and ranges among `found`, as pairs of bounds.
fn intervals(found: &[Node<'_>]) -> Vec<(Option<BigDecimal>, Option<BigDecimal>)> {
    let number = |value: Option<&Value>| match value {
        Some(Value::Number(n)) => decimal::parse(&n.to_string()),
        _ => None,
    };
    let bound = |node: &Node<'_>, side: &str| number(node.value.get(side).and_then(|q| q.get("value")));
    found
        .iter()
        .filter_map(|node| match node.value {
            Value::Number(_) => number(Some(node.value)).map(|n| (Some(n.clone()), Some(n))),
            Value::Object(_) if node.ty.base == "Range" => Some((bound(node, "low"), bound(node, "high"))),
            _ => None,
        })
        .collect()
}

/// Adds the keys of the values; returns how many there were.
pub fn index(param: &Param, found: &[Node<'_>], keys: &mut KeysBuilder) -> usize {
    let intervals = intervals(found);
    for (low, high) in &intervals {
        keys.term(&[&param.name, "\u{1f}a", &low.as_ref().map_or(LEAST.to_owned(), decimal::sort_key)]);
        keys.term(&[&param.name, "\u{1f}b", &high.as_ref().map_or(GREATEST.to_owned(), decimal::sort_key)]);
    }
    if intervals.len() > 1 {
        keys.term(&[&param.name, "\u{1f}#"]);
    }
    // A number beyond what can be compared is there all the same.
    intervals.len().max(found.iter().filter(|n| n.value.is_number()).count())
}

/// The query of one search value.
///
/// # Errors
/// The value is no number.
pub fn query(param: &'static Param, value: &str, version: FhirVersion) -> Result<Query, Failure> {
    let (prefix, text) = Prefix::split(value);
    let text = unescape(text);
    let number = decimal::parse(&text).ok_or_else(|| bad_value(param, value, "a number such as 100, 5.40 or gt1e-3"))?;
    let (low, high) = decimal::implicit_range(&text, &number);
    let key = decimal::sort_key(&number);
    Ok(match prefix {
        Prefix::Eq => within(param, low, high, version),
        Prefix::Ne => Query::or(vec![below(param, 'a', &decimal::sort_key(&low)), at_least(param, 'b', &decimal::sort_key(&high))]),
        Prefix::Gt => above(param, 'b', &key),
        Prefix::Lt => below(param, 'a', &key),
        Prefix::Ge => at_least(param, 'b', &key),
        Prefix::Le => at_most(param, 'a', &key),
        Prefix::Sa => above(param, 'a', &key),
        Prefix::Eb => below(param, 'b', &key),
        Prefix::Ap => {
            let tenth = number.abs() / BigDecimal::from(10);
            overlapping(param, low.min(&number - &tenth), high.max(&number + &tenth), version)
        }
    })
}

fn within(param: &'static Param, low: BigDecimal, high: BigDecimal, version: FhirVersion) -> Query {
    let conditions = vec![at_least(param, 'a', &decimal::sort_key(&low)), below(param, 'b', &decimal::sort_key(&high))];
    paired(param, conditions, check(param, version, move |l, h| l.as_ref().is_some_and(|l| *l >= low) && h.as_ref().is_some_and(|h| *h < high)))
}

fn overlapping(param: &'static Param, low: BigDecimal, high: BigDecimal, version: FhirVersion) -> Query {
    let conditions = vec![at_most(param, 'a', &decimal::sort_key(&high)), at_least(param, 'b', &decimal::sort_key(&low))];
    paired(param, conditions, check(param, version, move |l, h| l.as_ref().is_none_or(|l| *l <= high) && h.as_ref().is_none_or(|h| *h >= low)))
}

/// An exact check: one interval of the stored resource fulfils both conditions.
fn check<F>(param: &'static Param, version: FhirVersion, test: F) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static
where
    F: Fn(&Option<BigDecimal>, &Option<BigDecimal>) -> bool + Send + Sync + 'static,
{
    super::super::compile::on_values(param, version, move |found| intervals(found).iter().any(|(l, h)| test(l, h)))
}

fn range(param: &Param, side: char, from: &str, to: &str) -> Query {
    Query::TermRange { from: param.key(side, from).into(), to: Some(param.key(side, to).into()) }
}

fn below(param: &Param, side: char, key: &str) -> Query {
    range(param, side, LEAST, key)
}

fn at_most(param: &Param, side: char, key: &str) -> Query {
    range(param, side, LEAST, &format!("{key}\u{0}"))
}

fn at_least(param: &Param, side: char, key: &str) -> Query {
    // `~~` is beyond the key of an open end.
    range(param, side, key, "~~")
}

fn above(param: &Param, side: char, key: &str) -> Query {
    range(param, side, &format!("{key}\u{0}"), "~~")
}
