//! References: to a resource here, to one elsewhere, by identifier, and canonical.

use super::table::{Found, Shape};
use super::token;

pub fn matches(found: &Found, modifier: Option<&str>, wanted: &str) -> bool {
    match modifier {
        Some("identifier") => found.value.get("identifier").is_some_and(|value| token::matches(&Found { value, shape: Shape::Identifier }, None, wanted)),
        Some(type_name) => local(found).is_some_and(|target| target == (type_name, wanted)),
        None if found.shape == Shape::Canonical => canonical(found.value.as_str().unwrap(), &super::unescape(wanted)),
        None => points_at(found, wanted),
    }
}

/// An id alone means a resource of any type here; a URL of another server means just that.
fn points_at(found: &Found, wanted: &str) -> bool {
    match (local(found), split(wanted)) {
        (Some(target), Some(pair)) => target == pair,
        (Some((_, id)), None) => id == wanted,
        (None, _) => found.value["reference"] == *wanted,
    }
}

/// A value without a version means all versions; one with a version means that one.
fn canonical(there: &str, wanted: &str) -> bool {
    there == wanted || there.split_once('|').is_some_and(|(url, _)| url == wanted)
}

/// Type and id, if it is a reference to a resource here.
pub fn local<'r>(found: &Found<'r>) -> Option<(&'r str, &'r str)> {
    split(found.value.get("reference")?.as_str()?)
}

fn split(reference: &str) -> Option<(&str, &str)> {
    let relative = reference.strip_prefix(super::BASE).map_or(reference, |rest| rest.trim_start_matches('/'));
    if relative.contains(':') { None } else { relative.split_once('/') }
}
