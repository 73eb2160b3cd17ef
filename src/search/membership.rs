//! `_list` and `_in`: resources that a List, a Group or a CareTeam names.

use serde_json::Value;

use super::compile::{Compiler, ids_of};
use super::condition::Condition;
use super::param::{Env, date, unescape};
use super::parse::Modifier;
use crate::fhir::id::clip;
use crate::fhir::reference::Reference;
use crate::fhir::{Definitions, Failure, Kind};
use crate::query::Query;

/// The functional lists, <https://hl7.org/fhir/R4/lifecycle.html#lists>, with the types and the values that make them.
const FUNCTIONAL: [(&str, &[&str], &str, &str); 4] = [
    ("$current-problems", &["Condition"], "clinical-status", "active,recurrence,relapse"),
    ("$current-medications", &["MedicationStatement", "MedicationRequest"], "status", "active,recorded"),
    ("$current-allergies", &["AllergyIntolerance"], "clinical-status", "active"),
    ("$current-drug-allergies", &["AllergyIntolerance"], "clinical-status", "active"),
];

/// `_list`: the resources of `type_name` that are on one of the lists.
///
/// # Errors
/// There is no such list.
pub fn lists(lists: &[String], type_name: &'static str, compiler: &Compiler<'_>) -> Result<Query, Failure> {
    let mut any = Vec::new();
    for list in lists {
        let name = unescape(list);
        if name.starts_with('$') {
            any.push(functional(&name, type_name, compiler)?);
        } else {
            let id = name.strip_prefix("List/").unwrap_or(&name);
            any.push(members("List", id, type_name, compiler.env())?);
        }
    }
    Ok(Query::or(any))
}

/// The types of a functional list.
///
/// # Errors
/// There is no such list.
pub fn functional_types(name: &str, definitions: &'static Definitions) -> Result<Vec<&'static str>, Failure> {
    if !FUNCTIONAL.iter().any(|(known, ..)| *known == name) {
        let known = "$current-problems, $current-medications, $current-allergies, $current-drug-allergies";
        return Err(Failure::new(Kind::NotSupported, format!("_list: there is no functional list '{}'; known are {known}", clip(name))));
    }
    let types = FUNCTIONAL.iter().filter(|(known, ..)| *known == name).flat_map(|(_, types, ..)| types.iter());
    Ok(types.filter_map(|t| definitions.find_resource_type(t)).collect())
}

fn functional(name: &str, type_name: &'static str, compiler: &Compiler<'_>) -> Result<Query, Failure> {
    functional_types(name, compiler.env().origin.definitions())?;
    let Some((_, _, code, values)) = FUNCTIONAL.iter().find(|(known, types, ..)| *known == name && types.contains(&type_name)) else { return Ok(Query::None) };
    let param =
        |code: &str, values: &str| Condition::Param { code: code.to_owned(), modifier: Modifier::None, values: values.split(',').map(str::to_owned).collect() };
    let mut all = vec![param(code, values)];
    if name == "$current-drug-allergies" {
        all.push(param("category", "medication"));
    }
    compiler.condition(&Condition::All(all), type_name)
}

/// `_in`: the resources of `type_name` that belong to one of the groups, lists or care teams.
///
/// # Errors
/// There is no such resource.
pub fn holders(holders: &[String], type_name: &'static str, env: &Env<'_>) -> Result<Query, Failure> {
    let mut any = Vec::new();
    for holder in holders {
        let text = unescape(holder);
        match Reference::parse(env.origin.local_part(&text).unwrap_or(&text), env.origin.definitions()) {
            Reference::Local { type_name: of, id, .. } if matches!(of, "List" | "Group" | "CareTeam") => any.push(members(of, id, type_name, env)?),
            _ => {
                let message = format!("_in: '{}' is not a reference such as Group/1, List/1 or CareTeam/1", clip(&text));
                return Err(Failure::new(Kind::BadValue, message));
            }
        }
    }
    Ok(Query::or(any))
}

/// The resources of `type_name` that a List names, or that are active members of a Group or CareTeam now.
fn members(of: &str, id: &str, type_name: &'static str, env: &Env<'_>) -> Result<Query, Failure> {
    let found = env.lookup.resources(&ids_of(of, vec![id.into()]), 1)?;
    let Some(holder) = found.first() else {
        return Err(Failure::new(Kind::BadValue, format!("there is no {of}/{} in this simulator to search the members of", clip(id))));
    };
    let (items, item, gone, times) = match of {
        "List" => ("entry", "item", "deleted", &[][..]),
        "Group" => ("member", "entity", "inactive", &["period"][..]),
        _ => ("participant", "member", "", &["period", "coveragePeriod"][..]),
    };
    let entries = holder.get(items).and_then(Value::as_array).into_iter().flatten();
    let now = env.now.timestamp_micros();
    let holds = |e: &Value| times.iter().filter_map(|time| e.get(time)).all(|period| date::is_within(period, now));
    let present = entries.filter(|e| e.get(gone).and_then(Value::as_bool) != Some(true) && holds(e));
    let references = present.filter_map(|e| e.get(item)?.get("reference")?.as_str());
    let own = references.filter_map(|text| match Reference::parse(env.origin.local_part(text).unwrap_or(text), env.origin.definitions()) {
        Reference::Local { type_name: named, id, .. } if named == type_name => Some(Box::from(id)),
        _ => None,
    });
    Ok(ids_of(type_name, own.collect()))
}
