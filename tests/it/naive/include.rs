//! `_include` and `_revinclude`: what comes along with the matches.

use std::collections::BTreeSet;

use serde_json::Value;

use super::table::{Kind, Parameter};
use super::{Resources, key_of, reference, type_of};

/// How far from a match something that comes along may be.
const STEPS: usize = 16;

/// Type and id.
pub type Key = (String, String);

/// What comes along, without the matches themselves.
pub fn included(resources: &Resources, matches: &[&Value], includes: &[(String, String)]) -> BTreeSet<Key> {
    let mut known: BTreeSet<Key> = matches.iter().map(|r| key_of(r)).collect();
    let mut all = BTreeSet::new();
    let mut fresh = matches.to_vec();
    for step in 0..STEPS {
        let asked = includes.iter().filter(|(key, _)| step == 0 || key.contains(':'));
        let along: Vec<&Value> = asked.flat_map(|(key, value)| fresh.iter().flat_map(|r| brought(resources, r, key, value)).collect::<Vec<_>>()).collect();
        fresh = along.into_iter().filter(|r| known.insert(key_of(r))).collect();
        all.extend(fresh.iter().map(|r| key_of(r)));
    }
    all
}

/// What one resource brings by one parameter of the search.
fn brought<'r>(resources: &'r Resources, from: &Value, key: &str, value: &str) -> Vec<&'r Value> {
    let mut parts = value.split(':');
    let (source, name, target) = (parts.next().unwrap(), parts.next().unwrap_or("*"), parts.next());
    if !key.starts_with("_include") {
        assert!(name != "*", "the model lacks {key}={value}");
        let to_here = |other: &&Value| target.is_none_or(|t| t == type_of(from)) && resources.points_at(other, name, from);
        return resources.of_type(source).filter(to_here).collect();
    }
    if source != "*" && source != type_of(from) {
        return Vec::new();
    }
    let references = resources.table.parameters().filter(|p| p.type_name == type_of(from) && p.kind == Kind::Reference);
    let asked = references.filter(|p| name == "*" || p.name == name);
    asked.flat_map(|p| one_each(resources, from, p)).filter(|r| target.is_none_or(|t| t == type_of(r))).collect()
}

/// Of a reference to several versions, the newest change.
fn one_each<'r>(resources: &'r Resources, from: &Value, parameter: &Parameter) -> Vec<&'r Value> {
    let found = resources.table.found(from, parameter.name);
    found.iter().filter_map(|f| reference::targets(resources, f).into_iter().max_by_key(|r| r["meta"]["lastUpdated"].as_str())).collect()
}
