//! References: to a resource here, to one elsewhere, by identifier, and canonical.

use serde_json::Value;

use super::table::{Found, Shape};
use super::{Resources, string, token, unescape};

pub fn matches(found: &Found, modifier: Option<&str>, wanted: &str) -> bool {
    match modifier {
        Some("identifier") => found.value.get("identifier").is_some_and(|value| token::matches(&Found { value, shape: Shape::Identifier }, None, wanted)),
        Some("below") => below(found.value.as_str().unwrap(), &unescape(wanted)),
        Some("text") => found.value["display"].as_str().is_some_and(|text| string::plain(text).starts_with(&string::plain(&unescape(wanted)))),
        Some(type_name) => local(found).is_some_and(|target| target == (type_name, wanted)),
        None if found.shape == Shape::Canonical => canonical(found.value.as_str().unwrap(), &unescape(wanted)),
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

/// Any version that begins so.
fn below(there: &str, wanted: &str) -> bool {
    match (there.split_once('|'), wanted.split_once('|')) {
        (Some((url, version)), Some((wanted_url, beginning))) => url == wanted_url && version.starts_with(beginning),
        (None, Some(_)) => false,
        (_, None) => canonical(there, wanted),
    }
}

/// The resources here that a reference leads to: a canonical one without a version to all versions.
pub fn targets<'r>(resources: &'r Resources, found: &Found) -> Vec<&'r Value> {
    if found.shape != Shape::Canonical {
        return local(found).and_then(|(type_name, id)| resources.get(type_name, id)).into_iter().collect();
    }
    let (url, version) = found.value.as_str().unwrap().split_once('|').map_or((found.value.as_str().unwrap(), None), |(u, v)| (u, Some(v)));
    // Nothing else that is stored is referred to by URL.
    resources.of_type("Questionnaire").filter(|q| q["url"] == *url && version.is_none_or(|v| q["version"] == *v)).collect()
}

/// Type and id, if it is a reference to a resource here.
pub fn local<'r>(found: &Found<'r>) -> Option<(&'r str, &'r str)> {
    split(found.value.get("reference")?.as_str()?)
}

fn split(reference: &str) -> Option<(&str, &str)> {
    let relative = reference.strip_prefix(super::BASE).map_or(reference, |rest| rest.trim_start_matches('/'));
    if relative.contains(':') { None } else { relative.split_once('/') }
}
