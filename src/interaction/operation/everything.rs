//! `$everything` of a Patient, <https://hl7.org/fhir/R4/patient-operation-everything.html>, of all Patients, and of an
//! Encounter: what belongs to the compartment, and what that refers to.

use super::{Call, Level};
use crate::fhir::id::clip;
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, instant};
use crate::interaction::search::{self, Request};
use crate::interaction::{Conditions, Env, Reply, read};
use crate::search::Search;
use crate::search::condition::Condition;
use crate::search::include::Include;
use crate::search::parse::MAX_COUNT;
use crate::sim::Snapshot;

/// Answers with pages of a searchset.
///
/// # Errors
/// There is no such resource; a parameter that cannot be read.
pub fn perform(call: &Call, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let type_name = call.level.type_name().unwrap_or("Patient");
    let mut parameters = vec![("_include".to_owned(), "*".to_owned())];
    for (name, value) in &call.parameters {
        match name.as_str() {
            "_since" => parameters.push(("_lastUpdated".to_owned(), format!("ge{}", date(name, value)?))),
            "_typeFilter" => {
                let message = "_typeFilter of $everything is not supported; use _type, or search the compartment, [type]/[id]/*?…";
                return Err(Failure::new(Kind::NotSupported, message));
            }
            "start" | "end" => {}
            _ => match parameters.iter_mut().find(|(n, _)| n == name) {
                // A list, or one by one.
                Some((_, values)) => values.extend([",", value]),
                None => parameters.push((name.clone(), value.clone())),
            },
        }
    }
    if call.get("_count").is_none() {
        parameters.push(("_count".to_owned(), MAX_COUNT.to_string()));
    }
    let compartment = match &call.level {
        Level::Instance(_, id) => {
            let version = snapshot.latest(type_name, id).ok_or_else(|| crate::interaction::not_found(type_name, id))?;
            read::of_version(type_name, id, &version, &Conditions::default(), &Subset::All, snapshot)?;
            Some((type_name, id.clone()))
        }
        Level::System | Level::Type(_) | Level::Version(..) => None,
    };
    let path = match &compartment {
        Some((_, id)) => format!("{type_name}/{id}/$everything"),
        None => format!("{type_name}/$everything"),
    };
    let everyone = compartment.is_none();
    let request = Request { type_name: None, compartment, parameters, strict: true };
    let mut search = Search::parse(&request.parameters, request.scope(), snapshot.params())?.strict()?;
    if call.get("_type").is_some() {
        let members = snapshot.definitions().compartment_types(type_name);
        if !search.types.iter().any(|t| *t == type_name || members.is_some_and(|m| m.contains_key(t))) {
            let message = format!(
                "_type '{}' names no type of the {type_name} compartment; what others refer to comes with them: name those that refer to it, too",
                clip(&search.types.join(","))
            );
            return Err(Failure::new(Kind::BadValue, message));
        }
        let only = |t: &&'static str| Include { reverse: false, iterate: false, source: None, code: None, target: Some(t) };
        search.includes = search.types.iter().map(only).collect();
    }
    if everyone {
        let members = snapshot.definitions().compartment_types(type_name);
        search.types.retain(|t| *t == type_name || members.is_some_and(|m| m.contains_key(t)));
        search.conditions.push((String::new(), Condition::Compartments(type_name)));
    }
    if let Some(care) = care_dates(call)? {
        search.conditions.push((String::new(), care));
    }
    // The links repeat what was asked of the operation, not of the search that it makes.
    let links = call.parameters.iter().filter(|(name, _)| !matches!(name.as_str(), "_count" | "_cursor" | "_format" | "_pretty")).cloned().collect();
    search::answered(&request, &search, &search::Shown { path, parameters: links }, snapshot, env)
}

/// The time of care that is asked for.
fn care_dates(call: &Call) -> Result<Option<Condition>, Failure> {
    let read = |name: &str| call.get(name).map(|value| date(name, value)).transpose();
    let (start, end) = (read("start")?, read("end")?);
    Ok((start.is_some() || end.is_some()).then_some(Condition::CareDate { start, end }))
}

/// The value of a parameter that is a date.
fn date(name: &str, value: &str) -> Result<String, Failure> {
    let bad = || Failure::new(Kind::BadValue, format!("{name} '{}' is not a date such as 2020, 2020-02 or 2020-02-28", clip(value)));
    instant::parse(value).map(|_| value.to_owned()).ok_or_else(bad)
}
