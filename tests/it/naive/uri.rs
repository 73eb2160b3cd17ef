//! URIs: equal, or one above the other, by whole segments.

use super::string;
use super::table::Found;

pub fn matches(found: &Found, modifier: Option<&str>, wanted: &str) -> bool {
    let there = found.value.as_str().unwrap();
    match modifier {
        None => there == wanted,
        Some("below") => contains(wanted, there),
        Some("above") => contains(there, wanted),
        Some("contains") => string::plain(there).contains(&string::plain(wanted)),
        Some(other) => panic!("the model lacks :{other} of a uri"),
    }
}

fn contains(upper: &str, lower: &str) -> bool {
    lower == upper || lower.starts_with(&format!("{}/", upper.trim_end_matches('/')))
}
