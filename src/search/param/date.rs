//! Date parameters, <https://hl7.org/fhir/R4/search.html#date>: intervals compared with intervals.

use std::sync::Arc;

use serde_json::Value;

use super::super::params::Param;
use super::super::path::Node;
use super::{Env, Prefix, bad_value, paired, prefixed, unescape};
use crate::fhir::Failure;
use crate::fhir::instant::{self, BEGINNING, END, Interval};
use crate::query::{KeysBuilder, Query};

/// The intervals that `found` stand for.
fn intervals(found: &[Node<'_>]) -> Vec<Interval> {
    let mut all = Vec::new();
    for node in found {
        match node.value {
            Value::String(text) => all.extend(instant::parse(text)),
            Value::Object(_) if node.ty.base == "Timing" => timing(node.value, &mut all),
            Value::Object(_) => all.extend(period(node.value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {}
        }
    }
    all
}

/// A Period; an absent bound is open.
fn period(value: &Value) -> Option<Interval> {
    let bound = |name: &str| value.get(name).and_then(Value::as_str).map(instant::parse);
    let (start, end) = (bound("start"), bound("end"));
    match (start, end) {
        (None, None) => None,
        (start, end) => {
            let low = start.map_or(Some(BEGINNING), |s| s.map(|s| s.low))?;
            let high = end.map_or(Some(END), |e| e.map(|e| e.high))?;
            // A period that ends before it starts is indexed by what both dates cover.
            Some(Interval { low: low.min(high), high: high.max(low) })
        }
    }
}

/// Whether a moment, in microseconds, is in a Period; what is none tells nothing against it.
#[must_use]
pub fn is_within(value: &Value, moment: i64) -> bool {
    period(value).is_none_or(|p| p.low <= moment && moment < p.high)
}

/// A Timing: its events, else the bounds of its repetition.
fn timing(value: &Value, all: &mut Vec<Interval>) {
    let events = value.get("event").and_then(Value::as_array).into_iter().flatten();
    let before = all.len();
    all.extend(events.filter_map(Value::as_str).filter_map(instant::parse));
    if all.len() == before {
        all.extend(value.get("repeat").and_then(|r| r.get("boundsPeriod")).and_then(period));
    }
}

/// Adds the keys of the values; returns how many there were.
pub fn index(param: &Param, found: &[Node<'_>], keys: &mut KeysBuilder) -> usize {
    let intervals = intervals(found);
    for interval in &intervals {
        add(param, *interval, keys);
    }
    if intervals.len() > 1 {
        keys.term(&[&param.name, "\u{1f}#"]);
    }
    intervals.len()
}

/// Adds the keys of one interval.
pub fn add(param: &Param, interval: Interval, keys: &mut KeysBuilder) {
    keys.column(&param.column('<'), interval.low);
    keys.column(&param.column('>'), interval.high);
}

/// The query of one search value.
///
/// # Errors
/// The value is no date.
pub fn query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let (prefix, text) = prefixed(param, value)?;
    // A plus that a client forgot to encode arrives as a blank.
    let text = unescape(text).replace(' ', "+");
    let wanted = instant::parse(&text).ok_or_else(|| bad_value(param, value, "a date such as 2020, 2020-02, 2020-02-28 or ge2020-02-28T10:30:00Z"))?;
    let low = |from, to| Query::Column { column: param.column('<').into(), from, to };
    let high = |from, to| Query::Column { column: param.column('>').into(), from, to };
    let equal = || within(param, wanted, env);
    Ok(match prefix {
        Prefix::Eq => equal(),
        Prefix::Ne => Query::or(vec![low(BEGINNING, wanted.low - 1), high(wanted.high + 1, END)]),
        Prefix::Gt => high(wanted.high + 1, END),
        Prefix::Lt => low(BEGINNING, wanted.low - 1),
        Prefix::Ge => Query::or(vec![high(wanted.high + 1, END), equal()]),
        Prefix::Le => Query::or(vec![low(BEGINNING, wanted.low - 1), equal()]),
        Prefix::Sa => low(wanted.high, END),
        Prefix::Eb => high(BEGINNING, wanted.low),
        Prefix::Ap => {
            let tenth = (env.now.timestamp_micros() - wanted.low).abs() / 10;
            overlapping(param, Interval { low: wanted.low - tenth, high: wanted.high + tenth }, env)
        }
    })
}

/// The query for values that have an instant in common with a search value.
///
/// # Errors
/// The value is no date.
pub fn overlaps(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let wanted = instant::parse(value).ok_or_else(|| bad_value(param, value, "a date such as 2020-02"))?;
    Ok(overlapping(param, wanted, env))
}

/// The value includes a stated one.
///
/// # Errors
/// The value is no date.
pub fn includes(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let stated = instant::parse(value).ok_or_else(|| bad_value(param, value, "a date such as 2020-02"))?;
    let conditions = vec![
        Query::Column { column: param.column('<').into(), from: BEGINNING, to: stated.low },
        Query::Column { column: param.column('>').into(), from: stated.high, to: END },
    ];
    Ok(paired(param, conditions, env.on_values(param, move |found| intervals(found).iter().any(|v| v.low <= stated.low && stated.high <= v.high))))
}

fn within(param: &Arc<Param>, wanted: Interval, env: &Env<'_>) -> Query {
    let conditions = vec![
        Query::Column { column: param.column('<').into(), from: wanted.low, to: END },
        Query::Column { column: param.column('>').into(), from: BEGINNING, to: wanted.high },
    ];
    paired(param, conditions, env.on_values(param, move |found| intervals(found).iter().any(|v| wanted.low <= v.low && v.high <= wanted.high)))
}

fn overlapping(param: &Arc<Param>, wanted: Interval, env: &Env<'_>) -> Query {
    let conditions = vec![
        Query::Column { column: param.column('<').into(), from: BEGINNING, to: wanted.high - 1 },
        Query::Column { column: param.column('>').into(), from: wanted.low + 1, to: END },
    ];
    paired(param, conditions, env.on_values(param, move |found| intervals(found).iter().any(|v| v.low < wanted.high && wanted.low < v.high)))
}
