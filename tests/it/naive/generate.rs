//! Resources from small pools, so that searches hit and miss about as often.

use chrono::{DateTime, SecondsFormat};
use fhirsim::fhir::FhirVersion;
use serde_json::{Map, Value, json};

use super::rng::Rng;

mod clinical;
pub mod codes;
mod datatypes;
mod definitions;
mod narrative;
mod people;
mod versions;

use datatypes::object;

/// How many there are of each type; ids are `r0`, `r1`, and so on in every type, so that a type in a reference counts. The code
/// system is none of them: there is one, always the same.
pub const COUNTS: &[(&str, usize)] = &[
    ("Practitioner", 8),
    ("Organization", 14),
    ("Location", 16),
    ("Patient", 60),
    ("Group", 12),
    ("Encounter", 30),
    ("Observation", 90),
    ("RiskAssessment", 26),
    ("ChargeItem", 20),
    ("ValueSet", 22),
    ("Questionnaire", 8),
    ("QuestionnaireResponse", 16),
    ("List", 10),
    ("CodeSystem", 0),
];

/// The numbers of resources that are referred to, but not there: never, or no more.
pub const STRANGERS: [usize; 6] = [90, 91, 92, 93, 94, 95];

/// When the first resource is written, a whole second, and how long after it the next one is.
const FIRST_MS: i64 = 1_700_000_000_000;
const BETWEEN_MS: i64 = 7 * 60_000;

/// All resources, in the order in which they are stored: what refers and what is referred to are mixed. Each says when it is written.
pub fn resources(rng: &mut Rng, version: FhirVersion) -> Vec<Value> {
    let numbered = COUNTS.iter().flat_map(|(type_name, count)| (0..*count).map(move |n| (*type_name, n)));
    let mut all: Vec<Value> = numbered.map(|(t, n)| resource(rng, version, t, n)).chain(codes::fixed(version)).collect();
    for n in (1..all.len()).rev() {
        all.swap(n, rng.below(n + 1));
    }
    for (n, one) in all.iter_mut().enumerate() {
        let when = DateTime::from_timestamp_millis(FIRST_MS + BETWEEN_MS * i64::try_from(n).unwrap()).unwrap();
        one["meta"]["lastUpdated"] = when.to_rfc3339_opts(SecondsFormat::Millis, true).into();
    }
    all
}

/// A resource of this type with random content.
pub fn resource(rng: &mut Rng, version: FhirVersion, type_name: &str, n: usize) -> Value {
    let mut content = content(rng, type_name);
    versions::adapt(&mut content, type_name, version);
    let mut whole = object([("resourceType", Some(type_name.into())), ("id", Some(format!("r{n}").into()))]);
    whole.extend(content);
    whole.into()
}

/// What was where the resource is, before it: the same type and id, other content.
pub fn predecessor(rng: &mut Rng, version: FhirVersion, resource: &Value) -> Value {
    let (type_name, id) = (super::type_of(resource), super::id_of(resource));
    match id[1..].parse() {
        Ok(number) => self::resource(rng, version, type_name, number),
        Err(_) => json!({"resourceType": type_name, "id": id, "url": resource["url"], "status": "draft", "content": "not-present"}),
    }
}

fn content(rng: &mut Rng, type_name: &str) -> Map<String, Value> {
    match type_name {
        "Practitioner" => people::practitioner(rng),
        "Organization" => people::organization(rng),
        "Location" => people::location(rng),
        "Patient" => people::patient(rng),
        "Group" => people::group(rng),
        "Encounter" => clinical::encounter(rng),
        "Observation" => clinical::observation(rng),
        "RiskAssessment" => clinical::risk(rng),
        "ChargeItem" => clinical::charge(rng),
        "List" => clinical::list(rng),
        "ValueSet" => definitions::value_set(rng),
        "Questionnaire" => definitions::questionnaire(rng),
        "QuestionnaireResponse" => definitions::response(rng),
        other => panic!("{other} has no generator"),
    }
}
