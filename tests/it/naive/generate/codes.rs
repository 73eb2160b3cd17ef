//! A code system with a hierarchy, and value sets of it: always the same ones, stored with the random resources.

use fhirsim::fhir::FhirVersion;
use serde_json::{Value, json};

/// The code system of parts of the body.
pub const BODY: &str = "http://acme.org/fhir/CodeSystem/body";
/// Its codes with their displays, as far as content has them; `wing` is none of them.
pub const PARTS: &[(&str, &str)] =
    &[("limb", "Limb"), ("arm", "Arm"), ("hand", "Hand"), ("finger", "Finger"), ("foot", "Foot"), ("head", "Head"), ("eye", "Eye"), ("wing", "")];

/// The value sets: ids, which are also the ends of their URLs. The last one needs a filter that only R5 has.
const VALUE_SETS: &[&str] = &[
    "limbs",
    "below-limb",
    "listed",
    "outer",
    "listed-outer",
    "nested",
    "not-head",
    "above-hand",
    "all-but",
    "two-filters",
    "two-sets",
    "with-property",
    "limb-children",
];

/// The value sets of a version.
pub fn value_sets(version: FhirVersion) -> &'static [&'static str] {
    let left_out = usize::from(version < FhirVersion::R5);
    &VALUE_SETS[..VALUE_SETS.len() - left_out]
}

/// The URL of a value set.
pub fn url(value_set: &str) -> String {
    format!("http://acme.org/fhir/ValueSet/body/{value_set}")
}

/// The code system and the value sets.
pub fn fixed(version: FhirVersion) -> Vec<Value> {
    value_sets(version).iter().map(|id| value_set(id)).chain([code_system()]).collect()
}

fn code_system() -> Value {
    let hand = part("hand", "outer", &[part("finger", "outer", &[])]);
    let leg = part("leg", "outer", &[json!({"code": "foot", "display": "Foot"})]);
    let limb = part("limb", "outer", &[part("arm", "outer", &[hand]), leg]);
    let head = part("head", "inner", &[part("eye", "outer", &[]), part("brain", "inner", &[])]);
    json!({
        "resourceType": "CodeSystem", "id": "body", "url": BODY, "status": "active", "content": "complete", "hierarchyMeaning": "is-a",
        "property": [{"code": "kind", "type": "code"}],
        "concept": [{"code": "body", "display": "Body", "concept": [limb, head]}],
    })
}

fn part(code: &str, kind: &str, inside: &[Value]) -> Value {
    let mut concept = json!({"code": code, "display": code, "property": [{"code": "kind", "valueCode": kind}]});
    if !inside.is_empty() {
        concept["concept"] = inside.into();
    }
    concept
}

fn value_set(id: &str) -> Value {
    let mut compose = json!({"include": included(id)});
    let excluded = excluded(id);
    if !excluded.is_empty() {
        compose["exclude"] = excluded.into();
    }
    json!({"resourceType": "ValueSet", "id": id, "url": url(id), "version": "1.0", "status": "active", "compose": compose})
}

fn included(id: &str) -> Vec<Value> {
    let pulse = json!({"system": "http://loinc.org", "concept": [{"code": "8867-4"}]});
    match id {
        "limbs" => vec![filtered("concept", "is-a", "limb")],
        "below-limb" => vec![filtered("concept", "descendent-of", "limb")],
        "listed" => vec![json!({"system": BODY, "concept": [{"code": "hand"}, {"code": "eye"}, {"code": "foot"}]}), pulse],
        "outer" => vec![filtered("kind", "=", "outer")],
        // A system and a value set in one: what is in both.
        "listed-outer" => vec![json!({"system": BODY, "filter": filtered("kind", "=", "outer")["filter"], "valueSet": [url("listed")]})],
        "nested" => vec![json!({"valueSet": [url("limbs")]}), pulse],
        "not-head" => vec![filtered("concept", "is-not-a", "head")],
        "above-hand" => vec![filtered("concept", "generalizes", "hand")],
        "all-but" => vec![json!({"system": BODY})],
        "two-filters" => {
            let both = json!([{"property": "concept", "op": "is-a", "value": "limb"}, {"property": "kind", "op": "in", "value": "outer,inner"}]);
            vec![json!({"system": BODY, "filter": both})]
        }
        "two-sets" => vec![json!({"valueSet": [url("limbs"), url("listed")]})],
        "with-property" => vec![filtered("kind", "exists", "true")],
        "limb-children" => vec![filtered("concept", "child-of", "limb")],
        other => panic!("{other} is no value set"),
    }
}

fn excluded(id: &str) -> Vec<Value> {
    match id {
        "nested" => vec![json!({"system": BODY, "concept": [{"code": "hand"}]})],
        "all-but" => vec![filtered("concept", "is-a", "arm"), json!({"valueSet": [url("listed-outer")]})],
        "with-property" => vec![filtered("kind", "not-in", "outer,other")],
        _ => Vec::new(),
    }
}

fn filtered(property: &str, op: &str, value: &str) -> Value {
    json!({"system": BODY, "filter": [{"property": property, "op": op, "value": value}]})
}
