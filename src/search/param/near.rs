//! `Location.near`, <https://hl7.org/fhir/R4/location.html#positional>: `latitude|longitude|distance|units`.
//!
//! STU3 separates latitude and longitude by a colon and gives the distance as `near-distance`, a quantity.

use std::sync::Arc;

use serde_json::Value;

use super::super::params::Param;
use super::super::path::Node;
use super::{Env, bad_value, split_unescaped, unescape};
use crate::fhir::{Failure, FhirVersion};
use crate::query::{KeysBuilder, Query};

/// The distance where none is given, in kilometres: the choice is the server's.
pub const DEFAULT_KM: f64 = 50.0;
/// The Earth's mean radius in kilometres.
const EARTH_KM: f64 = 6_371.008_8;
/// Columns hold ten-millionths of a degree: about a centimetre.
const PER_DEGREE: f64 = 1e7;

#[expect(clippy::cast_possible_truncation, reason = "at most 3.6e9")]
fn column_value(degrees: f64) -> i64 {
    (degrees.clamp(-360.0, 360.0) * PER_DEGREE).round() as i64
}

fn positions(found: &[Node<'_>]) -> Vec<(f64, f64)> {
    let degrees = |node: &Node<'_>, name: &str| node.value.get(name).and_then(Value::as_f64);
    found.iter().filter_map(|n| Some((degrees(n, "latitude")?, degrees(n, "longitude")?))).collect()
}

/// Adds the keys of the values; returns how many there were.
pub fn index(param: &Param, found: &[Node<'_>], keys: &mut KeysBuilder) -> usize {
    let positions = positions(found);
    for (latitude, _) in &positions {
        keys.column(&param.column('^'), column_value(*latitude));
    }
    positions.len()
}

/// The query of one search value.
///
/// # Errors
/// The value is no position with a distance.
pub fn query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    // STU3's distance, which is another parameter, has been put behind.
    let is_stu3 = env.origin.version == FhirVersion::Stu3;
    let bad = || {
        let expected = if is_stu3 { "a position such as 42.25:-83.69, with near-distance such as 11.2||km" } else { "a position such as 42.25|-83.69|11.2|km" };
        bad_value(param, value, expected)
    };
    let parts: Vec<String> = split_unescaped(value, '|').into_iter().flat_map(|part| part.split(':')).map(unescape).collect();
    let number = |text: &String| text.parse::<f64>().ok().filter(|n| n.is_finite());
    let (latitude, longitude, distance) = match &parts[..] {
        [latitude, longitude] => (number(latitude), number(longitude), Some(DEFAULT_KM)),
        // Without a distance, its unit means nothing.
        [latitude, longitude, none, ..] if none.is_empty() && parts.len() <= 4 => (number(latitude), number(longitude), Some(DEFAULT_KM)),
        [latitude, longitude, distance] => (number(latitude), number(longitude), number(distance)),
        [latitude, longitude, distance, unit] => (number(latitude), number(longitude), number(distance).and_then(|d| kilometres(d, unit))),
        _ => return Err(bad()),
    };
    let (latitude, longitude, distance) = (latitude.ok_or_else(bad)?, longitude.ok_or_else(bad)?, distance.ok_or_else(bad)?);
    if latitude.abs() > 90.0 || longitude.abs() > 180.0 || distance < 0.0 {
        return Err(bad());
    }
    let span = distance / EARTH_KM * 180.0 / std::f64::consts::PI;
    let belt = Query::Column { column: param.column('^').into(), from: column_value(latitude - span) - 1, to: column_value(latitude + span) + 1 };
    let check = env.on_values(param, move |found| positions(found).iter().any(|(lat, lon)| apart(*lat, *lon, latitude, longitude) <= distance));
    Ok(Query::Verify(Box::new(belt), check))
}

/// A distance in kilometres; without a unit it is one.
fn kilometres(distance: f64, unit: &str) -> Option<f64> {
    if unit.is_empty() {
        return Some(distance);
    }
    let metres = octofhir_ucum::get_canonical_units(unit).ok().filter(|u| u.unit == "m")?;
    Some(distance * metres.factor.to_f64() / 1_000.0)
}

/// The distance of two places along the surface, in kilometres.
fn apart(lat_a: f64, lon_a: f64, lat_b: f64, lon_b: f64) -> f64 {
    let (phi_a, phi_b) = (lat_a.to_radians(), lat_b.to_radians());
    let sin2 = |x: f64| (x / 2.0).sin().powi(2);
    let h = sin2(phi_b - phi_a) + phi_a.cos() * phi_b.cos() * sin2((lon_b - lon_a).to_radians());
    2.0 * EARTH_KM * h.sqrt().min(1.0).asin()
}
