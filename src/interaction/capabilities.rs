//! Capabilities, <https://hl7.org/fhir/R4/http.html#capabilities>: made from what is really supported.

use serde_json::{Map, Value, json};

use super::{Done, Env, Reply};
use crate::fhir::FhirVersion;
use crate::search::params::TypeParams;
use crate::sim::Snapshot;

/// The interactions every type has.
const TYPE_INTERACTIONS: [&str; 7] = ["read", "vread", "update", "delete", "history-instance", "create", "search-type"];
/// The interactions of the whole system.
const SYSTEM_INTERACTIONS: [&str; 3] = ["transaction", "batch", "search-system"];

/// The CapabilityStatement of the simulator.
#[must_use]
pub fn perform(snapshot: &Snapshot, env: &Env<'_>) -> Reply {
    let version = snapshot.version();
    let types = snapshot.definitions().resource_types();
    let mut rest = json!({
        "mode": "server",
        "documentation": "A simulator of fhirsim. Content is accepted leniently; every write is kept as an event folder.",
        "security": {"cors": true},
        "resource": types.iter().map(|t| resource(t, version)).collect::<Vec<_>>(),
        "interaction": codes(&SYSTEM_INTERACTIONS),
    });
    if let Value::Object(rest) = &mut rest {
        rest.insert("searchParam".into(), common(version));
    }
    let mut statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": env.created,
        "kind": "instance",
        "software": {"name": "fhirsim", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": format!("simulator {}", snapshot.sim()), "url": env.base},
        "fhirVersion": version.number(),
        "format": ["application/fhir+json", "json"],
        "rest": [rest],
    });
    if version == FhirVersion::Stu3
        && let Value::Object(statement) = &mut statement
    {
        // Required there, gone since.
        statement.insert("acceptUnknown".into(), "both".into());
    }
    Reply { body: Some(statement.to_string().into_bytes().into()), ..Reply::new(Done::Ok) }
}

fn codes(names: &[&str]) -> Value {
    names.iter().map(|code| json!({"code": code})).collect()
}

fn resource(type_name: &'static str, version: FhirVersion) -> Value {
    let mut resource = Map::new();
    resource.insert("type".into(), type_name.into());
    if version != FhirVersion::Stu3 {
        resource.insert("profile".into(), format!("http://hl7.org/fhir/StructureDefinition/{type_name}").into());
    }
    resource.insert("interaction".into(), codes(&TYPE_INTERACTIONS));
    resource.insert("versioning".into(), "versioned".into());
    resource.insert("readHistory".into(), true.into());
    resource.insert("updateCreate".into(), true.into());
    resource.insert("conditionalCreate".into(), true.into());
    resource.insert("conditionalRead".into(), "full-support".into());
    resource.insert("conditionalUpdate".into(), false.into());
    resource.insert("conditionalDelete".into(), "not-supported".into());
    resource.insert("searchParam".into(), TypeParams::of(version, type_name).list.iter().map(param).collect());
    Value::Object(resource)
}

fn param(param: &crate::search::params::Param) -> Value {
    json!({"name": param.def.code, "definition": param.def.url(), "type": param.def.kind.code()})
}

/// The parameters that all types have.
fn common(version: FhirVersion) -> Value {
    TypeParams::of(version, "Basic").list.iter().filter(|p| p.def.bases.contains(&"Resource")).map(param).collect()
}
