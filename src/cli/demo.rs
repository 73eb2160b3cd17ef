//! The simulator of `--demo`: a small, clinically plausible data set of our own making, in `testkits/demo`.

use serde_json::{Value, json};

use super::client::{Client, reason};
use crate::fhir::Kind;
use crate::sim::Registry;
use crate::sim::profile::BULK_TYPE;
use crate::sim::registry::Wanted;
use crate::simdb::SimId;

/// The name of the demo simulator.
pub const DEMO: &str = "default__demo";

/// The name of the simulator for bulk data.
const BULK: &str = "default__bulk";

/// Its data, in the order of loading: who and where first, for the patients' Bundles refer to them.
const BUNDLES: [&str; 7] = [
    include_str!("../../testkits/demo/0-practice.json"),
    include_str!("../../testkits/demo/1-amara-okafor.json"),
    include_str!("../../testkits/demo/2-jonas-lindqvist.json"),
    include_str!("../../testkits/demo/3-mei-tanaka.json"),
    include_str!("../../testkits/demo/4-tomas-novak.json"),
    include_str!("../../testkits/demo/5-lucia-ferreira.json"),
    include_str!("../../testkits/demo/6-noah-williams.json"),
];

/// Makes the demo simulator unless it is there; returns whether it was made.
pub fn make(registry: &Registry, server: &str, token: Option<String>) -> Result<bool, String> {
    let id: SimId = DEMO.parse().map_err(|f: crate::fhir::Failure| f.diagnostics)?;
    let client = Client::new(server, token);
    make_bulk(registry, &client)?;
    match registry.create(&id, &Wanted::default()) {
        Err(f) if f.kind == Kind::Conflict => return Ok(false),
        other => other.map_err(|f| f.diagnostics)?,
    }
    for bundle in BUNDLES {
        match client.call("POST", &format!("/sim/{DEMO}/fhir"), Some(bundle.as_bytes()))? {
            (200, _) => {}
            (status, outcome) => return Err(format!("the demo data were refused, {status}: {}", reason(&outcome))),
        }
    }
    Ok(true)
}

/// Patients of the simulator for bulk data.
const PATIENTS: usize = 60;

/// Makes the simulator for bulk data unless it is there: more patients, in groups, behind SMART.
fn make_bulk(registry: &Registry, client: &Client) -> Result<(), String> {
    let id: SimId = BULK.parse().map_err(|f: crate::fhir::Failure| f.diagnostics)?;
    match registry.create(&id, &Wanted { sim_type: Some(BULK_TYPE.to_owned()), ..Wanted::default() }) {
        Err(f) if f.kind == Kind::Conflict => return Ok(()),
        other => other.map_err(|f| f.diagnostics)?,
    }
    let entry = |resource: Value| {
        let url = format!("{}/{}", resource["resourceType"].as_str().unwrap_or_default(), resource["id"].as_str().unwrap_or_default());
        json!({"resource": resource, "request": {"method": "PUT", "url": url}})
    };
    let mut entries: Vec<Value> = (0..PATIENTS).flat_map(|n| of_patient(n).into_iter().map(entry)).collect();
    // Two groups of different sizes.
    for (group, name) in ["Clinic North", "Clinic South"].into_iter().enumerate() {
        let members: Vec<Value> =
            (0..PATIENTS).filter(|n| (n % 3 == 0) == (group == 0)).map(|n| json!({"entity": {"reference": format!("Patient/bulk-{n}")}})).collect();
        entries.push(entry(json!({"resourceType": "Group", "id": format!("clinic-{}", group + 1), "type": "person", "actual": true, "name": name,
            "quantity": members.len(), "member": members})));
    }
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    match client.call("POST", &format!("/sim/{BULK}/fhir"), Some(bundle.to_string().as_bytes()))? {
        (200, _) => {}
        (status, outcome) => return Err(format!("the data for bulk export were refused, {status}: {}", reason(&outcome))),
    }
    // What is loaded stays behind tokens from here on.
    let settings = [("auth".to_owned(), json!("smart-backend"))].into_iter().collect();
    registry.change(&id, &Wanted { settings, ..Wanted::default() }).map_err(|f| f.diagnostics)
}

/// A patient of our own making, with two conditions and a smoking status.
fn of_patient(n: usize) -> Vec<Value> {
    let pick = |from: &[&'static str]| from[n % from.len()];
    let coded = |system: &str, code: &str, text: &str| json!({"coding": [{"system": system, "code": code, "display": text}], "text": text});
    let snomed = |(code, text): (&str, &str)| coded("http://snomed.info/sct", code, text);
    let problems =
        [("38341003", "Hypertension"), ("44054006", "Type 2 diabetes"), ("195967001", "Asthma"), ("84757009", "Epilepsy"), ("35489007", "Depression")];
    let smoking = [("266919005", "Never smoked tobacco"), ("8517006", "Former smoker"), ("449868002", "Smokes tobacco daily")];
    let marital = [("M", "Married"), ("S", "Never Married"), ("W", "Widowed"), ("D", "Divorced")][n % 4];
    let (id, subject) = (format!("bulk-{n}"), json!({"reference": format!("Patient/bulk-{n}")}));
    let condition = |k: usize| {
        json!({"resourceType": "Condition", "id": format!("{id}-c{k}"), "subject": subject, "code": snomed(problems[(n + k * 2) % problems.len()]),
            "clinicalStatus": coded("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active"), "onsetDateTime": format!("20{:02}-0{}-11", 10 + n % 14, 1 + k)})
    };
    vec![
        json!({"resourceType": "Patient", "id": id, "identifier": [{"system": "http://fhirsim.example/bulk", "value": format!("B-{:04}", n + 1)}],
            "name": [{"family": pick(&["Abara", "Bianchi", "Castillo", "Dvorak", "Ekström", "Fofana", "Grant"]), "given": [pick(&["Ada", "Ben", "Chloe", "Dario", "Eli"])]}],
            "gender": pick(&["female", "male"]), "birthDate": format!("{}-{:02}-{:02}", 1936 + n, 1 + n % 12, 1 + n % 28),
            "maritalStatus": coded("http://terminology.hl7.org/CodeSystem/v3-MaritalStatus", marital.0, marital.1)}),
        condition(0),
        condition(1),
        json!({"resourceType": "Observation", "id": format!("bulk-{n}-smoking"), "status": "final", "subject": {"reference": format!("Patient/bulk-{n}")},
            "category": [coded("http://terminology.hl7.org/CodeSystem/observation-category", "social-history", "Social History")], "code": coded("http://loinc.org", "72166-2", "Tobacco smoking status"), "effectiveDateTime": format!("2026-0{}-15", 1 + n % 9), "valueCodeableConcept": snomed(smoking[n % 3])}),
    ]
}

/// What to try first.
pub fn what_to_try(base: &str, made: bool) -> String {
    let fhir = format!("{base}/sim/{DEMO}/fhir");
    let what = if made { "made" } else { "there already" };
    format!(
        "demo simulator {DEMO} is {what}. Try:
  curl '{fhir}/Patient?family=okafor&_pretty=true'
  curl '{fhir}/Observation?code=http://loinc.org|8867-4&_sort=-date&_count=3&_pretty=true'
  curl -H 'Content-Type: application/fhir+json' -d '{{\"resourceType\":\"Patient\",\"name\":[{{\"family\":\"Me\"}}]}}' {fhir}/Patient
  open {base}/ in a browser to see what came in"
    )
}
