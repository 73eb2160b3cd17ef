//! The simulator of `--demo`: a small, clinically plausible data set of our own making, in `testkits/demo`.

use super::client::{Client, reason};
use crate::fhir::Kind;
use crate::sim::Registry;
use crate::sim::registry::Wanted;
use crate::simdb::SimId;

/// The name of the demo simulator.
pub const DEMO: &str = "default__demo";

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
    match registry.create(&id, &Wanted::default()) {
        Err(f) if f.kind == Kind::Conflict => return Ok(false),
        other => other.map_err(|f| f.diagnostics)?,
    }
    let client = Client::new(server, token);
    for bundle in BUNDLES {
        match client.call("POST", &format!("/sim/{DEMO}/fhir"), Some(bundle.as_bytes()))? {
            (200, _) => {}
            (status, outcome) => return Err(format!("the demo data were refused, {status}: {}", reason(&outcome))),
        }
    }
    Ok(true)
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
