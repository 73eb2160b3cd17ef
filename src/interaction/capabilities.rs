//! Capabilities, <https://hl7.org/fhir/R4/http.html#capabilities>: made from what is really supported.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use super::operation::{self, Definition};
use super::{Done, Env, Reply, definition};
use crate::fhir::FhirVersion;
use crate::fhir::definitions::ParamType;
use crate::search::params::{Param, Params};
use crate::search::parse::Modifier;
use crate::sim::{Auth, ClientIds, Settings, Snapshot, Versioning};

/// The interactions every type has.
const TYPE_INTERACTIONS: [&str; 9] = ["read", "vread", "update", "patch", "delete", "history-instance", "history-type", "create", "search-type"];
/// The interactions of the whole system.
const SYSTEM_INTERACTIONS: [&str; 4] = ["transaction", "batch", "search-system", "history-system"];
/// The media types of patches.
const PATCH_FORMATS: [&str; 4] = ["application/json-patch+json", "application/merge-patch+json", "application/fhir+json", "application/fhir+xml"];

/// The CapabilityStatement of the simulator.
#[must_use]
pub fn perform(snapshot: &Snapshot, env: &Env<'_>) -> Reply {
    let version = snapshot.version();
    let types = snapshot.definitions().resource_types();
    let reverse = reverse_includes(snapshot.params());
    let mut rest = json!({
        "mode": "server",
        "documentation": "A simulator of fhirsim. Content is accepted leniently; every write is kept as an event folder.",
        "security": {"cors": true},
        "resource": types.iter().map(|t| resource(t, snapshot, reverse.get(t), env.base)).collect::<Vec<_>>(),
        "interaction": codes(&SYSTEM_INTERACTIONS, snapshot.settings()),
    });
    if snapshot.settings().auth == Auth::SmartBackend {
        rest["security"] = smart(env.base, version);
    }
    if let Value::Object(rest) = &mut rest {
        // Before R4 operations are listed for the whole server only.
        let whole = |d: &&Definition| d.types.is_empty() || version == FhirVersion::Stu3;
        let mut operations: Vec<Value> = operation::ALL.iter().filter(whole).map(|d| d.listed(version, env.base)).collect();
        operations.extend(["export", "bulk-submit", "bulk-submit-status"].map(|name| bulk(name, name, version)));
        let own = format!("{}/OperationDefinition/{}", env.base, operation::IMPORT);
        operations.push(json!({"name": "import", "definition": if version == FhirVersion::Stu3 { json!({"reference": own}) } else { json!(own) }}));
        rest.insert("operation".into(), operations.into());
        rest.insert("searchParam".into(), common(snapshot.params(), env.base));
    }
    let mut statement = json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": env.created,
        "kind": "instance",
        "software": {"name": "fhirsim", "version": env!("CARGO_PKG_VERSION")},
        "implementation": {"description": format!("simulator {}", snapshot.sim()), "url": env.base},
        "fhirVersion": version.number(),
        "format": ["application/fhir+json", "application/fhir+xml", "json", "xml"],
        "patchFormat": PATCH_FORMATS,
        "rest": [rest],
    });
    if version != FhirVersion::Stu3 {
        statement["instantiates"] = json!([format!("{BULK}/CapabilityStatement/bulk-data")]);
    }
    if version == FhirVersion::Stu3
        && let Value::Object(statement) = &mut statement
    {
        // Required there, gone since.
        statement.insert("acceptUnknown".into(), "both".into());
    }
    Reply { body: Some(statement.to_string().into_bytes().into()), ..Reply::new(Done::Ok) }
}

/// The guide of bulk data.
const BULK: &str = "http://hl7.org/fhir/uv/bulkdata";

fn bulk(name: &str, definition: &str, version: FhirVersion) -> Value {
    let url = format!("{BULK}/OperationDefinition/{definition}");
    json!({"name": name, "definition": if version == FhirVersion::Stu3 { json!({"reference": url}) } else { json!(url) }})
}

/// How to get a token, <https://hl7.org/fhir/smart-app-launch/1.0.0/conformance/>.
fn smart(base: &str, version: FhirVersion) -> Value {
    let root = base.strip_suffix("/fhir").unwrap_or(base);
    let uri = |name: &str| json!({"url": name, "valueUri": format!("{root}/auth/{name}")});
    let system = if version == FhirVersion::Stu3 {
        "http://hl7.org/fhir/restful-security-service"
    } else {
        "http://terminology.hl7.org/CodeSystem/restful-security-service"
    };
    json!({
        "extension": [{"url": "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris", "extension": [uri("token"), uri("register")]}],
        "cors": true,
        "service": [{"coding": [{"system": system, "code": "SMART-on-FHIR"}], "text": "SMART Backend Services"}],
    })
}

/// The interactions that there are with these settings.
fn codes(names: &[&str], settings: &Settings) -> Value {
    let looks_back = |code: &str| code == "vread" || code.starts_with("history");
    let there = names.iter().filter(|code| settings.versioning != Versioning::NoVersion || !looks_back(code));
    there.map(|code| json!({"code": code})).collect()
}

fn resource(type_name: &'static str, snapshot: &Snapshot, reverse: Option<&Vec<String>>, base: &str) -> Value {
    let (params, settings) = (snapshot.params(), snapshot.settings());
    let version = params.version;
    let mut resource = Map::new();
    let mut put = |name: &str, value: Value| _ = resource.insert(name.to_owned(), value);
    put("type", type_name.into());
    if version != FhirVersion::Stu3 {
        put("profile", format!("http://hl7.org/fhir/StructureDefinition/{type_name}").into());
    }
    put("interaction", codes(&TYPE_INTERACTIONS, settings));
    put("versioning", settings.versioning.code().into());
    put("readHistory", (settings.versioning != Versioning::NoVersion).into());
    put("updateCreate", (settings.update_create && settings.client_ids != ClientIds::Off).into());
    put("conditionalCreate", true.into());
    put("conditionalRead", "full-support".into());
    put("conditionalUpdate", true.into());
    if version == FhirVersion::R5 {
        put("conditionalPatch", true.into());
    }
    put("conditionalDelete", settings.conditional_delete.code().into());
    resource.insert("searchParam".into(), params.of(type_name).list.iter().map(|p| param(p, version, base)).collect());
    let mut operations: Vec<Value> = operation::ALL.iter().filter(|d| d.is_of(type_name)).map(|d| d.listed(version, base)).collect();
    // Testers of bulk data look for one name or the other.
    match type_name {
        "Patient" => operations.extend(["patient-export", "export"].map(|name| bulk(name, "patient-export", version))),
        "Group" => operations.extend(["group-export", "export"].map(|name| bulk(name, "group-export", version))),
        _ => {}
    }
    if version != FhirVersion::Stu3 && !operations.is_empty() {
        resource.insert("operation".into(), operations.into());
    }
    resource.insert("searchInclude".into(), json!(includes(type_name, params)));
    // FHIR knows no empty arrays.
    if let Some(reverse) = reverse.filter(|all| !all.is_empty()) {
        resource.insert("searchRevInclude".into(), json!(reverse));
    }
    Value::Object(resource)
}

fn param(param: &Param, version: FhirVersion, base: &str) -> Value {
    // STU3 has no type for what is special.
    let kind = if version == FhirVersion::Stu3 && param.kind == ParamType::Special { "token" } else { param.kind.code() };
    // One of the simulator's own may have no URL but the one it lies at.
    let definition = if param.url.starts_with("SearchParameter/") { format!("{base}/{}", param.url) } else { param.url.to_string() };
    let mut shown = json!({"name": param.code, "definition": definition, "type": kind});
    let modifiers = Modifier::of(param, version).into_iter().map(|(code, _)| format!(":{code}")).collect::<Vec<_>>().join(" ");
    let documentation = match param.kind {
        ParamType::Special => format!("latitude|longitude|distance|units; without a distance {} km", crate::search::param::near::DEFAULT_KM),
        ParamType::Composite => format!("{}, joined by $", param.components.iter().map(|c| &*c.code).collect::<Vec<_>>().join(" and ")),
        ParamType::Reference => format!("modifiers {modifiers} and the names of types; chains and _has"),
        ParamType::Number | ParamType::Date | ParamType::Quantity => format!("modifiers {modifiers}; prefixes eq ne gt lt ge le sa eb ap"),
        ParamType::String | ParamType::Token | ParamType::Uri => format!("modifiers {modifiers}"),
    };
    shown["documentation"] = documentation.into();
    shown
}

/// The parameters that all types have, and those of every search.
fn common(params: &Params, base: &str) -> Value {
    let definitions = params.definitions();
    let of_all = |p: &&Arc<Param>| definitions.search_params("Basic").any(|d| d.code == &*p.code && d.bases.contains(&"Resource"));
    let is_of = |p: &Param, t: &&str| params.of(t).get(&p.code).is_some_and(|other| other.url == p.url);
    let own_of_all = |p: &&Arc<Param>| params.own().any(|(_, own)| Arc::ptr_eq(own, p)) && definitions.resource_types().iter().all(|t| is_of(p, t));
    let mut all: Vec<Value> = params.of("Basic").list.iter().filter(|p| of_all(p) || own_of_all(p)).map(|p| param(p, params.version, base)).collect();
    let mut special = vec![
        ("_text", "words of the narrative: AND OR NOT ( ) \"phrase\" prefix*"),
        ("_content", "words of any string: AND OR NOT ( ) \"phrase\" prefix*"),
        ("_filter", "parameters, paths, _has, all relations, and, or, not, parentheses"),
        ("_list", "the id of a List, or $current-problems, $current-medications, $current-allergies, $current-drug-allergies"),
        ("_has", "_has:[type]:[reference]:[parameter], nested and chained"),
        ("_type", "types of a search of the whole system or a compartment"),
    ];
    if params.version == FhirVersion::R5 {
        special.push(("_in", "a reference to a Group, List or CareTeam"));
    }
    all.extend(special.into_iter().map(|(name, text)| {
        let (definition, kind) = definition::special(name, params.version);
        let mut shown = json!({"name": name, "type": kind, "documentation": text});
        if let Some(definition) = definition {
            shown["definition"] = definition.into();
        }
        shown
    }));
    Value::Array(all)
}

/// What `_include` takes for resources of a type.
fn includes(type_name: &str, params: &Params) -> Vec<String> {
    let references = params.of(type_name).list.iter().filter(|p| p.kind == ParamType::Reference);
    let mut all = vec!["*".to_owned(), format!("{type_name}:*")];
    all.extend(references.map(|p| format!("{type_name}:{}", p.code)));
    all
}

/// What `_revinclude` takes for each type.
fn reverse_includes(params: &Params) -> FxHashMap<&'static str, Vec<String>> {
    let definitions = params.definitions();
    let mut all: FxHashMap<&'static str, Vec<String>> = FxHashMap::default();
    for source in definitions.resource_types() {
        for param in params.of(source).list.iter().filter(|p| p.kind == ParamType::Reference) {
            // What can refer to anything is said once, by its absence.
            for target in param.targets.iter().filter_map(|t| definitions.find_resource_type(t)) {
                all.entry(target).or_default().push(format!("{source}:{}", param.code));
            }
        }
    }
    all
}
