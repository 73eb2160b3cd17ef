//! The structural validator on the examples of the specification: what it finds in all of them, of the four versions, are
//! faults that they have.
//!
//! `FHIRSIM_PACKAGES` names the folder of the packages, which `scripts/spec_examples.py --packages` fetches; `.ci/run` does.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path as FilePath;

use fhirsim::fhir::validate::{Issue, Severity, validate};
use fhirsim::fhir::{Definitions, FhirVersion};
use flate2::read::GzDecoder;
use serde_json::Value;

/// The faults that examples have: version, class of message, in how many places and files, and why it is one.
const KNOWN: &[(FhirVersion, &str, (usize, usize), &str)] = &[
    (FhirVersion::Stu3, "code-invalid: '_' is not in the required value set mimetypes", (9, 2), FORMATS),
    (FhirVersion::Stu3, "code-invalid: '_' without a system is not in the required value set action-type", (6, 4), SYSTEM),
    (FhirVersion::Stu3, "code-invalid: '_' without a system is not in the required value set request-intent", (1, 1), SYSTEM),
    (FhirVersion::Stu3, "required: ImplementationGuide requires name, which is missing", (2, 2), GUIDES),
    (FhirVersion::Stu3, "required: ImplementationGuide requires status, which is missing", (2, 2), GUIDES),
    (FhirVersion::Stu3, "structure: unknown element '_' in ImplementationGuide", (3, 1), "packageId, license and manifest came with R4"),
    (FhirVersion::Stu3, "required: Questionnaire.item requires linkId, which is missing", (57, 1), LINKS),
    (FhirVersion::Stu3, "required: SearchParameter requires base, which is missing", (12, 12), BASES),
    (FhirVersion::Stu3, "required: StructureDefinition requires type, which is missing", (3, 3), "the logical models Definition, Event and Request have none"),
    (FhirVersion::Stu3, "value: '_' is no uri: it has white space", (1, 1), "a sentence, as example of Identifier.system"),
    (FhirVersion::R4, "invariant: '_' is no contained resource", (2, 1), CONTAINED),
    (FhirVersion::R4, "required: ImplementationGuide requires name, which is missing", (2, 2), GUIDES),
    (FhirVersion::R4, "required: ImplementationGuide requires status, which is missing", (2, 2), GUIDES),
    (FhirVersion::R4, "required: Questionnaire.item requires linkId, which is missing", (32, 1), LINKS),
    (FhirVersion::R4, "required: SearchParameter requires base, which is missing", (10, 10), BASES),
    (FhirVersion::R4, "value: '_' is no id: an id is 1-64 of A-Z a-z 0-9 - .", (1, 1), LONG_ID),
    (FhirVersion::R4b, "invariant: '_' is no contained resource", (2, 1), CONTAINED),
    (FhirVersion::R4b, "required: CodeSystem requires status, which is missing", (2, 2), STATUS),
    (FhirVersion::R4b, "required: ValueSet requires status, which is missing", (2, 2), STATUS),
    (FhirVersion::R4b, "required: SearchParameter requires base, which is missing", (10, 10), BASES),
    (FhirVersion::R4b, "value: '_' is no id: an id is 1-64 of A-Z a-z 0-9 - .", (1, 1), LONG_ID),
    (FhirVersion::R5, "invariant: '_' is no contained resource", (2, 1), CONTAINED),
    (FhirVersion::R5, "invariant: has an id and nothing else", (1, 1), "Medication-med0301 has an identifier with nothing but an id"),
];
const SYSTEM: &str = "a code without a system is of no value set";
const FORMATS: &str = "PDF, HL7v2 and DICOM services, which are no media types; corrected in R4";
const GUIDES: &str = "files of the publisher that list the packages of a guide, and no whole ImplementationGuide";
const LINKS: &str = "Questionnaire-qs1 has items without linkId";
const BASES: &str = "parameters for extensions, published without their base";
const STATUS: &str = "published without a status, alone and in a Bundle";
const LONG_ID: &str = "an id of 67 characters";
const CONTAINED: &str = "PlanDefinition-example-cardiology-os contains neither the value set nor the prescription that it refers to";

/// A message without what is particular: what is quoted, and the advice.
fn class(issue: &Issue) -> String {
    let message = issue.message.split("; ").next().unwrap();
    let parts = message.split('\'').enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "_" });
    let warning = if issue.severity == Severity::Warning { "warning " } else { "" };
    format!("{warning}{}: {}", issue.code, parts.collect::<Vec<_>>().join("'"))
}

#[derive(Default)]
struct Tally {
    resources: usize,
    /// Class, and the places: file and expression.
    found: BTreeMap<String, Vec<(String, String)>>,
}

fn judge(version: FhirVersion, package: &FilePath) -> Tally {
    let definitions = Definitions::of(version);
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(package).unwrap()));
    let mut tally = Tally::default();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let file = entry.path().unwrap().to_string_lossy().into_owned();
        let Ok(value) = serde_json::from_reader::<_, Value>(entry) else { continue };
        if value["resourceType"].is_null() {
            continue;
        }
        tally.resources += 1;
        for issue in validate(&value, definitions) {
            tally.found.entry(class(&issue)).or_default().push((file.clone(), issue.expression));
        }
    }
    tally
}

#[test]
#[ignore = "needs the packages of the specification; .ci/run fetches them"]
fn examples_have_no_faults_but_those_they_have() {
    let folder = std::env::var("FHIRSIM_PACKAGES").unwrap();
    for (version, package, resources) in [
        (FhirVersion::Stu3, "hl7.fhir.r3.examples-3.0.2.tgz", 8_268),
        (FhirVersion::R4, "hl7.fhir.r4.examples-4.0.1.tgz", 5_306),
        (FhirVersion::R4b, "hl7.fhir.r4b.examples-4.3.0.tgz", 2_840),
        (FhirVersion::R5, "hl7.fhir.r5.examples-5.0.0.tgz", 2_822),
    ] {
        let tally = judge(version, &FilePath::new(&folder).join(package));
        let found: BTreeMap<&str, (usize, usize)> = tally.found.iter().map(|(class, places)| (class.as_str(), (places.len(), files(places)))).collect();
        let known: BTreeMap<&str, (usize, usize)> = KNOWN.iter().filter(|k| k.0 == version).map(|k| (k.1, k.2)).collect();
        let unknown: Vec<_> = tally.found.iter().filter(|(class, _)| !known.contains_key(class.as_str())).collect();
        assert_eq!(found, known, "{version}: {unknown:#?}");
        assert_eq!(tally.resources, resources, "{version}");
    }
}

fn files(places: &[(String, String)]) -> usize {
    places.iter().map(|(file, _)| file).collect::<BTreeSet<_>>().len()
}
