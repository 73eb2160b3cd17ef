//! Quantities: a number, with a unit or without; with a UCUM unit, in any comparable one.

use bigdecimal::BigDecimal;

use super::number::{Asked, decimal};
use super::table::{Found, Shape};
use super::{split, unescape};

pub const UCUM: &str = "http://unitsofmeasure.org";
pub const CURRENCY: &str = "urn:iso:std:iso:4217";

/// The UCUM units that convert here: code, what it measures, how many of the first one of its group.
const UNITS: &[(&str, &str, &str)] = &[
    ("g", "mass", "1"),
    ("mg", "mass", "0.001"),
    ("kg", "mass", "1000"),
    ("mol/L", "concentration", "1"),
    ("mmol/L", "concentration", "0.001"),
    ("umol/L", "concentration", "0.000001"),
    ("s", "time", "1"),
    ("min", "time", "60"),
    ("h", "time", "3600"),
];

pub fn matches(found: &Found, wanted: &str) -> bool {
    let parts: Vec<String> = split(wanted, '|').iter().map(|part| unescape(part)).collect();
    let asked = Asked::parse(&parts[0]);
    let value = decimal(&found.value["value"]);
    let (system, code, unit) = units(found);
    match &parts[1..] {
        [] => asked.equals_or_so(&value),
        [none, any] if none.is_empty() => (code == Some(any.as_str()) || unit == Some(any.as_str())) && asked.equals_or_so(&value),
        [s, c] if system == Some(s.as_str()) => match (code, s.as_str()) {
            (Some(there), UCUM) if there != c => convertible(there, c).is_some_and(|(own, other)| asked.times(&other).equals_or_so(&(value * own))),
            (there, _) => there == Some(c.as_str()) && asked.equals_or_so(&value),
        },
        _ => false,
    }
}

/// System, code and unit; the currency of Money is a code.
fn units<'r>(found: &Found<'r>) -> (Option<&'r str>, Option<&'r str>, Option<&'r str>) {
    let text = |name: &str| found.value.get(name).and_then(|v| v.as_str());
    match found.shape {
        Shape::Money => (text("currency").map(|_| CURRENCY), text("currency"), None),
        _ => (text("system"), text("code"), text("unit")),
    }
}

/// The factors of two units that measure the same.
fn convertible(there: &str, wanted: &str) -> Option<(BigDecimal, BigDecimal)> {
    let unit = |code: &str| UNITS.iter().find(|(c, ..)| *c == code);
    let ((_, measured, own), (_, asked, other)) = (unit(there)?, unit(wanted)?);
    (measured == asked).then(|| (own.parse().unwrap(), other.parse().unwrap()))
}
