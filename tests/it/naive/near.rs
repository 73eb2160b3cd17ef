//! Positions within a distance, on a sphere.

use super::table::Found;

const EARTH_KM: f64 = 6371.0;

pub fn matches(found: &Found, wanted: &str) -> bool {
    let (distance, limit) = distances(found, wanted);
    distance <= limit
}

/// Whether the distance is so close to the limit that another radius of the earth decides otherwise.
pub fn is_close_call(found: &Found, wanted: &str) -> bool {
    let (distance, limit) = distances(found, wanted);
    (distance - limit).abs() < limit * 0.02
}

/// How far it is, and how far it may be, in kilometres.
fn distances(found: &Found, wanted: &str) -> (f64, f64) {
    let parts: Vec<&str> = wanted.split('|').collect();
    let number = |n: usize| parts[n].parse::<f64>().unwrap();
    let limit = number(2) * if parts[3] == "m" { 0.001 } else { 1.0 };
    let there = |name: &str| found.value[name].to_string().parse::<f64>().unwrap();
    (haversine((number(0), number(1)), (there("latitude"), there("longitude"))), limit)
}

fn haversine(a: (f64, f64), b: (f64, f64)) -> f64 {
    let half_sine = |x: f64, y: f64| ((x - y).to_radians() / 2.0).sin().powi(2);
    let h = half_sine(a.0, b.0) + a.0.to_radians().cos() * b.0.to_radians().cos() * half_sine(a.1, b.1);
    2.0 * EARTH_KM * h.sqrt().min(1.0).asin()
}
