//! The SearchParameter resources of the parameters that a simulator has: what the `definition`s of its
//! CapabilityStatement lead to, with the modifiers, comparators and chains that work.

use serde_json::{Map, Value, json};

use crate::fhir::FhirVersion;
use crate::fhir::definitions::{ParamType, SearchParam};
use crate::search::Search;
use crate::search::condition::Condition;
use crate::search::param::Prefix;
use crate::search::params::{Param, Params, is_supported};
use crate::search::parse::Modifier;

/// The SearchParameter with an id of the specification's.
#[must_use]
pub fn by_id(id: &str, params: &Params) -> Option<Value> {
    let definitions = params.definitions();
    let defined = definitions.search_param(id).filter(|def| is_supported(def)).map(|def| resource(def, params));
    defined.or_else(|| SPECIAL.iter().find(|special| special.1 == id).and_then(|(code, ..)| special_resource(code, params.version)))
}

/// The parameters that no expression evaluates and that the specification defines: code, id, and the first version that does.
const SPECIAL: [(&str, &str, FhirVersion); 7] = [
    ("_text", "DomainResource-text", FhirVersion::Stu3),
    ("_content", "Resource-content", FhirVersion::Stu3),
    ("_filter", "Resource-filter", FhirVersion::R4b),
    ("_has", "Resource-has", FhirVersion::R4b),
    ("_list", "Resource-list", FhirVersion::R4b),
    ("_type", "Resource-type", FhirVersion::R4b),
    ("_in", "Resource-in", FhirVersion::R5),
];

/// The URL of the definition of such a parameter, if the version has one, and its type.
#[must_use]
pub fn special(code: &str, version: FhirVersion) -> (Option<String>, &'static str) {
    let id = SPECIAL.iter().find(|(known, _, since)| *known == code && *since <= version).map(|(_, id, _)| *id);
    let kind = match code {
        "_in" => "reference",
        _ if version >= FhirVersion::R5 => "special",
        "_filter" | "_type" if id.is_some() => "token",
        _ => "string",
    };
    (id.map(|id| format!("http://hl7.org/fhir/SearchParameter/{id}")), kind)
}

fn special_resource(code: &str, version: FhirVersion) -> Option<Value> {
    let (url, kind) = special(code, version);
    let url = url?;
    let id = url.rsplit('/').next()?;
    Some(json!({"resourceType": "SearchParameter", "id": id, "url": url, "version": version.number(), "name": code, "status": "active",
        "description": format!("The parameter '{code}', as this simulator has it; docs/search.md says how"), "code": code,
        "base": [id.split('-').next()], "type": kind}))
}

/// What a search of SearchParameters by `url` finds among the specification's, where none is stored: id and resource.
#[must_use]
pub fn searched(type_name: Option<&'static str>, search: &Search, total: usize, params: &Params) -> Vec<(String, Value)> {
    let [(_, Condition::Param { code, modifier: Modifier::None, values })] = &search.conditions[..] else { return Vec::new() };
    if type_name != Some("SearchParameter") || code != "url" || total > 0 || search.cursor.is_some() {
        return Vec::new();
    }
    let ids = values.iter().filter_map(|url| url.strip_prefix("http://hl7.org/fhir/SearchParameter/"));
    ids.filter_map(|id| Some((id.to_owned(), by_id(id, params)?))).collect()
}

fn resource(def: &SearchParam, params: &Params) -> Value {
    let definitions = params.definitions();
    let version = params.version;
    let bases: Vec<&str> = def.bases.clone();
    let type_name = definitions.resource_types().iter().find(|t| bases.iter().any(|b| definitions.is_a(t, b)));
    let own = type_name.and_then(|t| params.of(t).get(def.code));
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| _ = out.insert(key.to_owned(), value);
    put("resourceType", "SearchParameter".into());
    put("id", def.id.into());
    put("url", def.url().into());
    put("version", version.number().into());
    put("name", def.code.into());
    put("status", "active".into());
    put("description", format!("The {} parameter '{}' of {}, as this simulator has it", def.kind.code(), def.code, bases.join(", ")).into());
    put("code", def.code.into());
    put("base", json!(bases));
    put("type", if def.kind == ParamType::Special && version == FhirVersion::Stu3 { "token".into() } else { def.kind.code().into() });
    if !def.expression.is_empty() {
        put("expression", def.expression.into());
    }
    if !def.targets.is_empty() {
        put("target", json!(def.targets));
    }
    if version != FhirVersion::Stu3 {
        put("multipleOr", true.into());
        put("multipleAnd", true.into());
    }
    if matches!(def.kind, ParamType::Number | ParamType::Date | ParamType::Quantity) {
        put("comparator", Prefix::ALL.iter().map(|(code, _)| *code).collect());
    }
    let modifiers = own.map(|p| modifiers(p, version)).unwrap_or_default();
    if !modifiers.is_empty() {
        put("modifier", json!(modifiers));
    }
    if let Some(own) = own.filter(|p| p.kind == ParamType::Reference) {
        let chains = chains(own, params);
        if !chains.is_empty() {
            put("chain", json!(chains));
        }
    }
    if !def.components.is_empty() {
        let url = |id: &str| format!("http://hl7.org/fhir/SearchParameter/{id}");
        let definition = |id: &str| if version == FhirVersion::Stu3 { json!({"reference": url(id)}) } else { json!(url(id)) };
        put("component", def.components.iter().map(|(id, expression)| json!({"definition": definition(id), "expression": expression})).collect());
    }
    Value::Object(out)
}

/// The codes of the modifiers; `type` stands for the names of types.
fn modifiers(param: &Param, version: FhirVersion) -> Vec<&'static str> {
    let mut known: Vec<&'static str> = Modifier::of(param, version).into_iter().map(|(code, _)| code).collect();
    // The code system of the older versions writes it in one word.
    if version < FhirVersion::R5 {
        known = known.into_iter().map(|code| if code == "of-type" { "ofType" } else { code }).collect();
    }
    if param.kind == ParamType::Reference {
        known.push("type");
    }
    known
}

/// The parameters by which what it refers to can be searched; of references to anything, those that all types have.
fn chains(param: &Param, params: &Params) -> Vec<String> {
    let mut found: Vec<String> = if param.targets.is_empty() || param.targets.contains(&"Resource") {
        params.of("Basic").list.iter().filter(|p| p.code.starts_with('_')).map(|p| p.code.to_string()).collect()
    } else {
        param.target_types(params.definitions()).iter().flat_map(|t| params.of(t).list.iter().map(|p| p.code.to_string())).collect()
    };
    found.sort_unstable();
    found.dedup();
    found
}
