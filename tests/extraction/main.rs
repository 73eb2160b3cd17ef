//! The values that this server extracts for its search parameters, compared with those of an independent FHIRPath library, on
//! the examples of the specification: every resource and every parameter of the four versions.
//!
//! `FHIRSIM_PACKAGES` names the folder of the packages, which `scripts/spec_examples.py --packages` fetches; `.ci/run` does.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::Path as FilePath;

use fhirsim::fhir::{Definitions, FhirVersion, decimal, instant};
use fhirsim::search::params::TypeParams;
use fhirsim::search::path::Ty;
use fhirsim::search::path::library::Expression;
use flate2::read::GzDecoder;
use serde_json::Value;

/// Where the two differ: version, parameter, how often, and why what this server finds is right.
const KNOWN: &[(FhirVersion, &str, usize, &str)] = &[
    (FhirVersion::Stu3, "CommunicationRequest/occurrence", 1, CASE),
    (FhirVersion::Stu3, "ConceptMap/source-uri", 2, CASE),
    (FhirVersion::Stu3, "ConceptMap/target-uri", 2, CASE),
    (FhirVersion::Stu3, "DeviceRequest/event-date", 1, CASE),
    (FhirVersion::Stu3, "Goal/start-date", 2, CASE),
    (FhirVersion::Stu3, "Goal/target-date", 1, CASE),
    (FhirVersion::Stu3, "Observation/value-date", 1, CASE),
    (FhirVersion::Stu3, "RiskAssessment/date", 3, CASE),
    (FhirVersion::Stu3, "Immunization/reason", 1, BEGINNING),
    (FhirVersion::Stu3, "ProcedureRequest/performer", 1, BEGINNING),
    (FhirVersion::Stu3, "CodeSystem/version", 1, BEGINNING),
    (FhirVersion::R4, "CodeSystem/version", 1, BEGINNING),
    (FhirVersion::R4, "ServiceRequest/performer", 1, BEGINNING),
    (FhirVersion::R4, "Observation/value-string", 1, "true is no string"),
    (FhirVersion::R4, "QuestionnaireResponse/item-subject", 5, "the library has no function hasExtension"),
    (FhirVersion::R4b, "CodeSystem/version", 1, BEGINNING),
    (FhirVersion::R4b, "ServiceRequest/performer", 1, BEGINNING),
    (FhirVersion::R4b, "Observation/value-string", 1, "true is no string"),
    (FhirVersion::R5, "ServiceRequest/performer", 1, BEGINNING),
    (FhirVersion::R5, "ImagingSelection/patient", 7, "Reference.type says what a reference means, without resolving it"),
];
const CASE: &str = "the definitions of STU3 write the names of primitives in upper case: as(Date)";
const BEGINNING: &str = "the library takes members that begin like the name, such as performerType, for forms of a choice";

/// The resources of a package.
fn resources(package: &FilePath, definitions: &Definitions) -> Vec<(String, Value)> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(package).unwrap()));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let Ok(value) = serde_json::from_reader::<_, Value>(entry) else { continue };
        if value["resourceType"].as_str().is_some_and(|t| definitions.find_resource_type(t).is_some()) {
            found.push((name, value));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// A value as both would write it: numbers by their value, instants by theirs.
fn plain(value: &Value) -> String {
    match value {
        Value::Number(n) => decimal::parse(&n.to_string()).map_or(n.to_string(), |d| d.normalized().to_string()),
        Value::String(text) if text.len() > 10 && text.contains('T') => instant::parse(text).map_or(text.clone(), |i| format!("{i:?}")),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(",")),
        Value::Object(members) => format!("{{{}}}", members.iter().map(|(k, v)| format!("{k}:{}", plain(v))).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) => value.to_string(),
    }
}

fn shown(ty: &Ty) -> String {
    if ty.path.is_empty() { ty.base.to_owned() } else { format!("{}.{}", ty.base, ty.path) }
}

/// Values with their types, each once: a union has no duplicates.
fn set(found: &[(Value, Ty)]) -> BTreeSet<String> {
    found.iter().map(|(value, ty)| format!("{}:{}", shown(ty), plain(value))).collect()
}

#[derive(Default)]
struct Tally {
    resources: usize,
    parameters: usize,
    values: usize,
    /// Parameter, and the resources where it differs.
    differences: BTreeMap<String, Vec<String>>,
}

fn compare(version: FhirVersion, package: &FilePath) -> Tally {
    let definitions = Definitions::of(version);
    let mut plans = HashMap::new();
    let mut tally = Tally::default();
    for (file, resource) in resources(package, definitions) {
        tally.resources += 1;
        let type_name = definitions.find_resource_type(resource["resourceType"].as_str().unwrap()).unwrap();
        for param in &TypeParams::of(version, type_name).list {
            tally.parameters += 1;
            let plan = plans.entry(param.name.clone()).or_insert_with(|| Expression::unlimited(&param.expression, type_name, definitions).unwrap());
            let own = param.with_values(&resource, type_name, |found| found.iter().map(|n| (n.value.clone(), n.ty)).collect::<Vec<_>>());
            tally.values += usize::from(!own.is_empty());
            let difference = match plan.evaluate(&resource, type_name) {
                Err(reason) => format!("{file}: {reason}"),
                Ok(theirs) if set(&own) == set(&theirs) => continue,
                Ok(theirs) => format!("{file}: ours {:?}, theirs {:?}", set(&own), set(&theirs)),
            };
            tally.differences.entry(param.name.to_string()).or_default().push(difference);
        }
    }
    tally
}

#[test]
#[ignore = "needs the packages of the specification; .ci/run fetches them"]
fn extracted_values_are_those_of_an_independent_library() {
    let folder = std::env::var("FHIRSIM_PACKAGES").unwrap();
    for (version, package, expected) in [
        (FhirVersion::Stu3, "hl7.fhir.r3.examples-3.0.2.tgz", (8_268, 152_757, 75_450)),
        (FhirVersion::R4, "hl7.fhir.r4.examples-4.0.1.tgz", (5_306, 136_027, 66_551)),
        (FhirVersion::R4b, "hl7.fhir.r4b.examples-4.3.0.tgz", (2_840, 74_185, 38_421)),
        (FhirVersion::R5, "hl7.fhir.r5.examples-5.0.0.tgz", (2_822, 80_410, 36_656)),
    ] {
        let tally = compare(version, &FilePath::new(&folder).join(package));
        let known: BTreeMap<&str, usize> = KNOWN.iter().filter(|k| k.0 == version).map(|k| (k.1, k.2)).collect();
        let found: BTreeMap<&str, usize> = tally.differences.iter().map(|(name, where_)| (name.as_str(), where_.len())).collect();
        assert_eq!(found, known, "{version}: {:#?}", tally.differences.iter().filter(|(name, _)| !known.contains_key(name.as_str())).collect::<Vec<_>>());
        assert_eq!((tally.resources, tally.parameters, tally.values), expected, "{version}: resources, parameters, parameters with a value");
    }
}
