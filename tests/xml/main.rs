//! The examples of the specification in XML and back: every resource of the four versions comes back as it was, and is written
//! the same again.
//!
//! `FHIRSIM_PACKAGES` names the folder of the packages, which `scripts/spec_examples.py --packages` fetches; `.ci/run` does.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use fhirsim::fhir::{Definitions, FhirVersion, json, raw, xml};
use flate2::read::GzDecoder;

/// Examples that do not come back as they were: version, file, and why that is right.
const KNOWN: &[(FhirVersion, &str, &str)] =
    &[(FhirVersion::Stu3, "ig-r4.json", "it is of R4, and an array of one value that STU3 does not know comes back as the value")];

/// The JSON texts of a package that are resources.
fn resources(package: &Path) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(package).unwrap()));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        if !name.ends_with(".json") || entry.read_to_string(&mut text).is_err() {
            continue;
        }
        if json::parse(text.as_bytes()).is_ok_and(|value| value["resourceType"].is_string()) {
            found.push((name, text));
        }
    }
    found.sort_unstable();
    found
}

/// The text without white space and with the keys of each object sorted; every number and literal as it stands.
fn plain(text: &str) -> String {
    match text.as_bytes().first() {
        Some(b'{') => {
            let members = raw::members(text, 0).map(|m| (raw::string(&text[m.key]), plain(&text[m.value])));
            let sorted: Vec<String> = members.collect::<BTreeMap<_, _>>().into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", sorted.join(","))
        }
        Some(b'[') => format!("[{}]", raw::elements(text, 0).into_iter().map(|span| plain(&text[span])).collect::<Vec<_>>().join(",")),
        Some(b'"') => raw::quote(&raw::string(text)),
        _ => text.to_owned(),
    }
}

/// What is wrong with the way to XML and back.
fn difference(text: &str, version: FhirVersion) -> Option<String> {
    let definitions = Definitions::of(version);
    let text = text.trim_start_matches('\u{feff}').trim();
    let there = match xml::to_xml(text, definitions) {
        Ok(there) => there,
        Err(failure) => return Some(failure.to_string()),
    };
    let back = match xml::read(there.as_bytes(), version) {
        Ok((back, disorder)) if disorder.is_empty() => back,
        Ok((_, disorder)) => return Some(format!("not in order: {disorder:?}")),
        Err(failure) => return Some(failure.to_string()),
    };
    let (expected, found) = (plain(text), plain(&back));
    if expected != found {
        let at = expected.bytes().zip(found.bytes()).take_while(|(a, b)| a == b).count();
        let part = |s: &str| String::from_utf8_lossy(&s.as_bytes()[at.saturating_sub(60)..s.len().min(at + 60)]).into_owned();
        return Some(format!("not the same back: {} became {}", part(&expected), part(&found)));
    }
    match xml::to_xml(&back, definitions) {
        Ok(again) if again == there => None,
        Ok(_) => Some("not the same XML again".to_owned()),
        Err(failure) => Some(failure.to_string()),
    }
}

#[test]
#[ignore = "needs the packages of the specification; .ci/run fetches them"]
fn examples_come_back_as_they_were() {
    let folder = std::env::var("FHIRSIM_PACKAGES").unwrap();
    for (version, package, expected) in [
        (FhirVersion::Stu3, "hl7.fhir.r3.examples-3.0.2.tgz", 8_287),
        (FhirVersion::R4, "hl7.fhir.r4.examples-4.0.1.tgz", 5_306),
        (FhirVersion::R4b, "hl7.fhir.r4b.examples-4.3.0.tgz", 2_840),
        (FhirVersion::R5, "hl7.fhir.r5.examples-5.0.0.tgz", 2_822),
    ] {
        let examples = resources(&Path::new(&folder).join(package));
        let mut differences: BTreeMap<&str, String> = examples.iter().filter_map(|(name, text)| Some((name.as_str(), difference(text, version)?))).collect();
        for (_, name, reason) in KNOWN.iter().filter(|k| k.0 == version) {
            assert!(differences.remove(name).is_some(), "{version} {name} comes back as it was, though {reason}");
        }
        assert!(differences.is_empty(), "{version}: {} of {}: {differences:#?}", differences.len(), examples.len());
        assert_eq!(examples.len(), expected, "{version}");
    }
}
