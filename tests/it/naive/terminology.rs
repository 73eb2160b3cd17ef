//! Code systems and value sets that are stored as resources: what a code is below, and what a set holds.
//!
//! <https://hl7.org/fhir/R4/valueset.html#composition>, <https://hl7.org/fhir/R4/codesystem.html#subsumption>

use serde_json::Value;

use super::table::{Found, at};
use super::{Resources, split, token, unescape};

/// Whether a coding of the value is in the value set: its URL, perhaps with a version, or `ValueSet/id`.
pub fn is_in(resources: &Resources, found: &Found, value_set: &str) -> bool {
    let set = find(resources, &unescape(value_set));
    token::pairs(found).iter().any(|(system, code)| system.as_ref().is_some_and(|s| holds(resources, set, (s, code))))
}

/// Whether a coding of the value is the code, or one below it.
pub fn is_below(resources: &Resources, found: &Found, wanted: &str) -> bool {
    let (system, code) = coding(wanted);
    token::pairs(found).iter().any(|(s, c)| s.as_ref() == Some(&system) && (*c == code || is_a(resources, &system, c, &code)))
}

/// Whether a coding of the value is the code, or one above it.
pub fn is_above(resources: &Resources, found: &Found, wanted: &str) -> bool {
    let (system, code) = coding(wanted);
    token::pairs(found).iter().any(|(s, c)| s.as_ref() == Some(&system) && (*c == code || is_a(resources, &system, &code, c)))
}

fn coding(wanted: &str) -> (String, String) {
    let parts: Vec<String> = split(wanted, '|').iter().map(|part| unescape(part)).collect();
    let [system, code] = parts.try_into().unwrap();
    (system, code)
}

fn find<'r>(resources: &'r Resources, name: &str) -> &'r Value {
    if let Some(id) = name.strip_prefix("ValueSet/") {
        return resources.get("ValueSet", id).unwrap();
    }
    let (url, version) = name.split_once('|').map_or((name, None), |(u, v)| (u, Some(v)));
    let mut fitting = resources.of_type("ValueSet").filter(|set| set["url"] == *url && version.is_none_or(|v| set["version"] == *v));
    fitting.next().unwrap_or_else(|| panic!("no value set {name}"))
}

type Coding<'c> = (&'c str, &'c str);

fn holds(resources: &Resources, set: &Value, coding: Coding) -> bool {
    let part = |path| at(set, path).into_iter().any(|part| selects(resources, part, coding));
    part("compose.include") && !part("compose.exclude")
}

/// Whether all that one include or exclude says holds.
fn selects(resources: &Resources, part: &Value, (system, code): Coding) -> bool {
    let listed = at(part, "concept");
    let in_system = part["system"]
        .as_str()
        .is_none_or(|s| s == system && if listed.is_empty() { concept(resources, system, code).is_some() } else { listed.iter().any(|c| c["code"] == *code) });
    let filtered = at(part, "filter").into_iter().all(|filter| passes(resources, filter, (system, code)));
    let in_sets = at(part, "valueSet").into_iter().all(|url| holds(resources, find(resources, url.as_str().unwrap()), (system, code)));
    in_system && filtered && in_sets
}

fn passes(resources: &Resources, filter: &Value, (system, code): Coding) -> bool {
    let text = |name: &str| filter[name].as_str().unwrap();
    let (property, wanted) = (text("property"), text("value"));
    let values = properties(resources, system, code, property);
    let among = |list: &str| list.split(',').any(|one| values.contains(&one));
    match text("op") {
        "is-a" => is_a(resources, system, code, wanted),
        "descendent-of" => code != wanted && is_a(resources, system, code, wanted),
        "child-of" => concept(resources, system, wanted).is_some_and(|parent| at(parent, "concept").iter().any(|child| child["code"] == *code)),
        "is-not-a" => !is_a(resources, system, code, wanted),
        "generalizes" => is_a(resources, system, wanted, code),
        "=" => values.contains(&wanted),
        "in" => among(wanted),
        "not-in" => !among(wanted),
        "exists" => values.is_empty() != (wanted == "true"),
        other => panic!("the model lacks the filter {other}"),
    }
}

/// Whether the code is the other one or anywhere inside it.
fn is_a(resources: &Resources, system: &str, code: &str, other: &str) -> bool {
    concept(resources, system, other).is_some_and(|upper| within(upper, code).is_some())
}

fn concept<'r>(resources: &'r Resources, system: &str, code: &str) -> Option<&'r Value> {
    let systems = resources.of_type("CodeSystem").filter(|s| s["url"] == *system);
    systems.flat_map(|s| at(s, "concept")).find_map(|top| within(top, code))
}

/// The concept with the code: this one, or one inside it.
fn within<'r>(concept: &'r Value, code: &str) -> Option<&'r Value> {
    if concept["code"] == *code { Some(concept) } else { at(concept, "concept").into_iter().find_map(|inner| within(inner, code)) }
}

fn properties<'r>(resources: &'r Resources, system: &str, code: &str, name: &str) -> Vec<&'r str> {
    let all = concept(resources, system, code).into_iter().flat_map(|c| at(c, "property"));
    all.filter(|property| property["code"] == *name).filter_map(|property| property["valueCode"].as_str()).collect()
}
