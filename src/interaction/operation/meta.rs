//! `$meta`, `$meta-add`, `$meta-delete`, <https://hl7.org/fhir/R4/resource-operation-meta.html>: profiles, tags and security
//! labels of a resource, of a version, of a type, of everything; added and taken away without making a version.

use serde_json::{Map, Value, json};

use super::{Call, Level};
use crate::fhir::definitions::ParamType;
use crate::fhir::id::clip;
use crate::fhir::json::kind_of;
use crate::fhir::subset::Subset;
use crate::fhir::validate::{self, Severity};
use crate::fhir::{Failure, FhirVersion, Kind, raw};
use crate::interaction::rewrite::{self, Rewritten};
use crate::interaction::{Conditions, Done, Reply, read, vread};
use crate::query::Query;
use crate::search::Lookup;
use crate::search::extract::type_term;
use crate::sim::{Rewrites, Snapshot};

/// Answers with Parameters that return a Meta.
///
/// # Errors
/// The resource or the version is not there.
pub fn perform(call: &Call, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let none = Conditions::default();
    let stored = match &call.level {
        Level::System => return Ok(answer(&used(None, snapshot)?)),
        Level::Type(type_name) => return Ok(answer(&used(Some(type_name), snapshot)?)),
        Level::Instance(type_name, id) => {
            let version = snapshot.latest(type_name, id).ok_or_else(|| crate::interaction::not_found(type_name, id))?;
            read::of_version(type_name, id, &version, &none, &Subset::All, snapshot)?
        }
        Level::Version(type_name, id, version) => vread::perform(type_name, id, version.parse()?, &none, &Subset::All, snapshot)?,
    };
    let resource: Value =
        stored.body.map(|b| serde_json::from_slice(&b)).transpose().map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?.unwrap_or_default();
    Ok(answer(resource.get("meta").unwrap_or(&json!({}))))
}

/// Adds to what a resource or a version has, or takes away from it; the version stays the one it is.
///
/// # Errors
/// There is no such version, or not the one that `If-Match` asks for; no meta is given, or one that cannot be changed so.
pub fn change(call: &Call, adds: bool, snapshot: &Snapshot) -> Result<Reply, Failure> {
    let (type_name, id, wanted) = match &call.level {
        Level::Instance(type_name, id) => (*type_name, id, None),
        Level::Version(type_name, id, version) => (*type_name, id, Some(version.parse()?)),
        Level::System | Level::Type(_) => return Err(Failure::new(Kind::NotSupported, "meta is that of a resource: [type]/[id]/$meta-add")),
    };
    let given = given(call)?;
    // Says what is missing, or deleted.
    let none = Conditions::default();
    match wanted {
        Some(version) => vread::perform(type_name, id, version, &none, &Subset::All, snapshot)?,
        None => read::perform(type_name, id, &none, &Subset::All, snapshot)?,
    };
    for (at, meta) in given.iter().enumerate() {
        well_formed(meta, type_name, snapshot)
            .and_then(|()| changeable(call, meta, snapshot))
            .map_err(|f| f.at(format!("Parameters.parameter[{at}].value")))?;
    }
    if adds {
        one_source(&given)?;
    }
    let versions = snapshot.versions(type_name, id);
    let current = versions.iter().find(|v| wanted.is_none_or(|wanted| v.id == wanted));
    call.conditions.require_match(&format!("{type_name}/{id}"), current)?;
    let changed = current.map(|v| v.id);
    let mut meta = json!({});
    let mut history = Vec::with_capacity(versions.len());
    for version in versions.iter().rev() {
        let mut rewritten = Rewritten::of(type_name, version, snapshot)?;
        if let Some(body) = rewritten.body.as_ref().filter(|_| Some(version.id) == changed) {
            let text = std::str::from_utf8(body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
            let (text, now) = with_meta(text, type_name, &given, adds)?;
            (meta, rewritten.body) = (now, Some(text.into_bytes().into()));
        }
        history.push(rewritten);
    }
    let changes = rewrite::changes(type_name, id, history, Rewrites::History, snapshot)?;
    Ok(Reply { changes, ..answer(&meta) })
}

/// Each Meta that was sent.
fn given(call: &Call) -> Result<Vec<&Value>, Failure> {
    let all: Vec<&Value> = call.sent("meta", "valueMeta").collect();
    if all.is_empty() {
        let message = format!("{} needs Parameters with a parameter 'meta' and its valueMeta", call.definition.code);
        return Err(Failure::new(Kind::Invalid, message).at("Parameters.parameter"));
    }
    Ok(all)
}

/// Refuses a Meta whose tags, labels or profiles would be passed over, or stored malformed.
fn well_formed(meta: &Value, type_name: &str, snapshot: &Snapshot) -> Result<(), Failure> {
    let found = validate::validate(&json!({"resourceType": type_name, "meta": meta}), snapshot.definitions());
    let of_meta = format!("{type_name}.meta");
    let wrong = found.into_iter().find(|i| i.severity == Severity::Error && i.expression.starts_with(&of_meta));
    wrong.map_or(Ok(()), |wrong| {
        let message = format!("valueMeta{} {}", &wrong.expression[of_meta.len()..], wrong.message);
        Err(Failure::new(Kind::Invalid, message))
    })
}

/// Refuses two sources: there is one.
fn one_source(given: &[&Value]) -> Result<(), Failure> {
    let mut sources = given.iter().filter_map(|m| m.get("source"));
    let first = sources.next();
    if sources.any(|other| Some(other) != first) {
        let message = "valueMeta.source is given more than once, and differs; a meta has one source";
        return Err(Failure::new(Kind::BadValue, message).at("Parameters.parameter.value.source"));
    }
    Ok(())
}

/// The lists of a Meta that can be added to and taken away from.
const LISTS: [&str; 3] = ["profile", "security", "tag"];

/// Refuses what a Meta has besides: the server sets it, or nothing says what to do with it.
fn changeable(call: &Call, meta: &Value, snapshot: &Snapshot) -> Result<(), Failure> {
    let has_source = snapshot.version() > FhirVersion::Stu3;
    let fits = |name: &str| LISTS.contains(&name) || has_source && name == "source";
    let Some(name) = meta.as_object().and_then(|members| members.keys().find(|name| !fits(name))) else { return Ok(()) };
    let known = if has_source { "profile, security, tag and source" } else { "profile, security and tag" };
    Err(Failure::new(Kind::Invalid, format!("valueMeta.{} cannot be given to {}, which takes {known}; leave it out", clip(name), call.definition.code)))
}

/// What makes two tags, labels or profiles one.
fn same(a: &Value, b: &Value) -> bool {
    let part = |v: &Value, name: &str| v.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let named = |v: &Value| (part(v, "system"), part(v, "code"));
    // What has neither system nor code is named by nothing that another could share.
    if named(a) == (String::new(), String::new()) { a == b } else { named(a) == named(b) }
}

/// A resource with another meta, and that meta; all else stays byte for byte.
fn with_meta(text: &str, type_name: &str, given: &[&Value], adds: bool) -> Result<(String, Value), Failure> {
    let span = raw::member(text, 0, "meta").ok_or_else(|| Failure::new(Kind::Damaged, "the stored resource has no meta"))?;
    let mut meta: Map<String, Value> = serde_json::from_str(&text[span.clone()]).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    for name in LISTS {
        let wanted: Vec<&Value> = given.iter().filter_map(|m| m.get(name)?.as_array()).flatten().collect();
        if !wanted.is_empty() {
            change_list(&mut meta, name, &wanted, adds).map_err(|f| f.at(format!("{type_name}.meta.{name}")))?;
        }
    }
    for source in given.iter().filter_map(|m| m.get("source")) {
        if adds {
            meta.insert("source".to_owned(), source.clone());
        } else if meta.get("source") == Some(source) {
            meta.shift_remove("source");
        }
    }
    let meta = Value::Object(meta);
    let text = raw::apply(text, vec![(span, raw::write(&meta, &[text]))]);
    Ok((text, meta))
}

/// Adds to a list of a meta, or takes away from it.
///
/// # Errors
/// What is stored there is no list: nothing was made sure of when it was stored, and it must not be lost.
fn change_list(meta: &mut Map<String, Value>, name: &str, wanted: &[&Value], adds: bool) -> Result<(), Failure> {
    let mut there = match meta.get(name) {
        None => Vec::new(),
        Some(Value::Array(there)) => there.clone(),
        Some(other) => {
            let message = format!("the stored meta.{name} is {} instead of an array; update the resource first", kind_of(other));
            return Err(Failure::new(Kind::Unprocessable, message));
        }
    };
    let places = format!("_{name}");
    if !adds && meta.contains_key(&places) && there.iter().any(|t| wanted.iter().any(|w| same(t, w))) {
        let message = format!("the stored meta.{places} has extensions by their places in meta.{name}, which would move; update the resource instead");
        return Err(Failure::new(Kind::Unprocessable, message));
    }
    for w in wanted {
        if !adds {
            there.retain(|t| !same(t, w));
        } else if !there.iter().any(|t| same(t, w)) {
            there.push((*w).clone());
        }
    }
    if there.is_empty() {
        meta.shift_remove(name);
    } else {
        meta.insert(name.to_owned(), there.into());
    }
    Ok(())
}

/// Parameters that return a Meta. One that has nothing cannot be written in JSON, which has no empty objects: then there is none.
#[must_use]
pub fn answer(meta: &Value) -> Reply {
    let mut parameters = json!({"resourceType": "Parameters"});
    if meta.as_object().is_some_and(|members| !members.is_empty()) {
        parameters["parameter"] = json!([{"name": "return", "valueMeta": meta}]);
    }
    Reply { body: Some(parameters.to_string().into_bytes().into()), ..Reply::new(Done::Ok) }
}

/// All that resources of a type, or of all, have: what the index holds of it.
fn used(type_name: Option<&'static str>, snapshot: &Snapshot) -> Result<Value, Failure> {
    let budget = snapshot.budget();
    let lookup = snapshot.looking(&budget);
    let types = type_name.map_or_else(|| snapshot.counts().map(|(t, _)| t).collect(), |t| vec![t]);
    let mut meta = Map::new();
    for (code, member) in [("_profile", "profile"), ("_security", "security"), ("_tag", "tag")] {
        let mut found = Vec::new();
        for type_name in &types {
            let Some(param) = snapshot.params().of(type_name).get(code) else { continue };
            let query = Query::and(vec![Query::term(&type_term(type_name)), Query::term(&param.key('!', ""))]);
            // A profile is a uri up to R4B and a reference since.
            let class = match (member, param.kind) {
                ("profile", ParamType::Uri) => 'l',
                ("profile", _) => 'u',
                _ => 't',
            };
            found.extend(lookup.terms(&query, &param.key(class, ""))?);
        }
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() {
            let shown = |term: &str| if member == "profile" { json!(term) } else { coding(term) };
            meta.insert(member.to_owned(), found.iter().map(|term| shown(term)).collect());
        }
    }
    Ok(Value::Object(meta))
}

/// `system|code` as a Coding.
fn coding(term: &str) -> Value {
    match term.rsplit_once('|') {
        Some(("", code)) => json!({"code": code}),
        Some((system, code)) => json!({"system": system, "code": code}),
        None => json!({"code": term}),
    }
}
