//! `$meta`, <https://hl7.org/fhir/R4/resource-operation-meta.html>: profiles, tags and security labels of a resource, of a
//! version, of a type, of everything.

use serde_json::{Map, Value, json};

use super::{Call, Level};
use crate::fhir::definitions::ParamType;
use crate::fhir::{Failure, Kind};
use crate::interaction::{Conditions, Done, Reply, read, vread};
use crate::query::Query;
use crate::search::Lookup;
use crate::search::extract::type_term;
use crate::sim::Snapshot;

/// Answers with Parameters that return a Meta.
///
/// # Errors
/// The resource or the version is not there.
pub fn perform(call: &Call, snapshot: &Snapshot) -> Result<Reply, Failure> {
    call.refuse_unknown(&[])?;
    let none = Conditions::default();
    let stored = match &call.level {
        Level::System => return Ok(answer(&used(None, snapshot)?)),
        Level::Type(type_name) => return Ok(answer(&used(Some(type_name), snapshot)?)),
        Level::Instance(type_name, id) => {
            let version = snapshot.latest(type_name, id).ok_or_else(|| crate::interaction::not_found(type_name, id))?;
            read::of_version(type_name, id, &version, &none, snapshot)?
        }
        Level::Version(type_name, id, version) => vread::perform(type_name, id, version.parse()?, &none, snapshot)?,
    };
    let resource: Value = stored.body.map(|b| serde_json::from_slice(&b)).transpose().map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?.unwrap_or_default();
    Ok(answer(resource.get("meta").unwrap_or(&json!({}))))
}

/// Parameters that return a Meta.
#[must_use]
pub fn answer(meta: &Value) -> Reply {
    let text = json!({"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": meta}]}).to_string();
    Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) }
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
            let classes: &[char] = match param.kind {
                ParamType::Token => &['t'],
                ParamType::Uri => &['l'],
                _ => &['u'],
            };
            for class in classes {
                found.extend(lookup.terms(&query, &param.key(*class, ""))?);
            }
        }
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() {
            let shown = |term: &Box<str>| if member == "profile" { json!(term) } else { coding(term) };
            meta.insert(member.to_owned(), found.iter().map(shown).collect());
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
