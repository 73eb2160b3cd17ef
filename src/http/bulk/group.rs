//! The patients of a Group: members, those of groups in it, and what the Bulk Cohort profile calls a filter,
//! <https://hl7.org/fhir/uv/bulkdata/StructureDefinition-bulk-cohort-group.html>.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Result, bad};
use crate::fhir::id::clip;
use crate::fhir::reference::Reference;
use crate::fhir::{Failure, Kind, ResourceId};
use crate::http::policy;
use crate::interaction::create::MEMBER_FILTER;
use crate::interaction::target::pairs;
use crate::search::param::date;
use crate::sim::Snapshot;

/// Most groups in one another.
const MAX_GROUPS: usize = 1_000;

/// Who belongs to a group, as it is now.
#[derive(Debug, Default)]
pub struct Members {
    /// The ids of the patients.
    pub patients: BTreeSet<String>,
    /// The types that filters search.
    pub searched: BTreeSet<&'static str>,
}

/// Who belongs to a group.
///
/// # Errors
/// There is no such group; its filter cannot be searched by; it does not say who its members are.
pub fn members(id: &ResourceId, snapshot: &Snapshot, now_ms: i64) -> Result<Members> {
    let mut searched = BTreeSet::new();
    let patients = of(id, snapshot, now_ms, &mut BTreeSet::new(), &mut searched)?;
    Ok(Members { patients, searched })
}

fn of(id: &ResourceId, snapshot: &Snapshot, now_ms: i64, seen: &mut BTreeSet<String>, searched: &mut BTreeSet<&'static str>) -> Result<BTreeSet<String>> {
    let missing = || Failure::new(Kind::NotFound, format!("there is no Group/{id} in this simulator"));
    let version = snapshot.latest("Group", id).filter(|v| !v.is_deletion()).ok_or_else(missing)?;
    let group: Value = serde_json::from_slice(&snapshot.body("Group", &version)?).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    // Groups may be in one another, in a circle too.
    if !seen.insert(id.to_string()) {
        return Ok(BTreeSet::new());
    }
    if seen.len() > MAX_GROUPS {
        return Err(Failure::new(Kind::TooCostly, format!("Group/{id} is one of more than {MAX_GROUPS} groups in one another")));
    }
    let all = group["member"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = BTreeSet::new();
    for member in all.iter().filter(|m| is_active(m, now_ms)) {
        let text = member["entity"]["reference"].as_str().unwrap_or_default();
        let origin = snapshot.origin();
        // Of this simulator; what is elsewhere may have the same ids.
        let own = if text.contains(':') { origin.local_part(text) } else { Some(text) };
        let Some(Reference::Local { type_name, id, .. }) = own.map(|text| Reference::parse(text, snapshot.definitions())) else { continue };
        match type_name {
            "Patient" => _ = found.insert(id.to_owned()),
            "Group" => found.extend(of(&id.parse()?, snapshot, now_ms, seen, searched)?),
            _ => {}
        }
    }
    let filters: Vec<&Value> =
        group["modifierExtension"].as_array().into_iter().flatten().filter(|e| e["url"] == MEMBER_FILTER).map(|e| &e["valueExpression"]).collect();
    if filters.is_empty() && all.is_empty() && group["characteristic"].as_array().is_some_and(|c| !c.is_empty()) {
        let message = format!(
            "Group/{id} has characteristics and no members: who they are is said by the modifier extension {MEMBER_FILTER}, a search such as Patient?gender=female"
        );
        return Err(Failure::new(Kind::Unprocessable, message).at("Group.modifierExtension"));
    }
    let mut filtered = None::<BTreeSet<String>>;
    for filter in filters {
        let these = by(filter, snapshot, now_ms, searched)?;
        filtered = Some(match filtered {
            Some(those) => those.intersection(&these).cloned().collect(),
            None => these,
        });
    }
    // Without members, a filter is of all patients.
    Ok(match filtered {
        Some(filtered) if all.is_empty() => filtered,
        Some(filtered) => found.intersection(&filtered).cloned().collect(),
        None => found,
    })
}

fn is_active(member: &Value, now_ms: i64) -> bool {
    member["inactive"] != Value::Bool(true) && date::is_within(&member["period"], now_ms.saturating_mul(1_000))
}

/// The patients that a filter finds.
fn by(filter: &Value, snapshot: &Snapshot, now_ms: i64, searched: &mut BTreeSet<&'static str>) -> Result<BTreeSet<String>> {
    let at = |failure: Failure| failure.at("Group.modifierExtension.value");
    let language = filter["language"].as_str().unwrap_or_default();
    if language != "application/x-fhir-query" {
        let message = format!("the language '{}' of a member filter is not supported; application/x-fhir-query is", clip(language));
        return Err(at(Failure::new(Kind::NotSupported, message)));
    }
    let expression = filter["expression"].as_str().unwrap_or_default();
    let unreadable = || at(bad(format!("the member filter '{}' is no search such as Condition?code=…", clip(expression))));
    let (name, query) = expression.split_once('?').ok_or_else(unreadable)?;
    let type_name = snapshot.definitions().find_resource_type(name.trim_start_matches('/')).ok_or_else(unreadable)?;
    if type_name != "Patient" && snapshot.definitions().compartment("Patient", type_name).is_none() {
        return Err(at(bad(format!("the member filter is of {type_name}, which belongs to no patient"))));
    }
    let parameters = pairs(query);
    policy::condition(&parameters, type_name, snapshot, now_ms).map_err(|f| at(bad(format!("the member filter '{}': {}", clip(expression), f.diagnostics))))?;
    searched.insert(type_name);
    snapshot.patients_by(type_name, &parameters, now_ms)
}
