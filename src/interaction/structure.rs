//! What the setting `validation` makes of content whose structure is not as the specification has it.

use serde_json::{Map, Value};

use crate::fhir::validate::{Issue, Severity, validate};
use crate::fhir::{Failure, Kind};
use crate::interaction::Content;
use crate::sim::{Snapshot, Validation};

/// What is wrong with a resource, and with the order of the XML that it came in, and is to be said where it may be stored all
/// the same.
///
/// # Errors
/// [`Kind::Unprocessable`]: it may not.
pub(super) fn check(resource: &Value, disorder: &[Issue], snapshot: &Snapshot) -> Result<Vec<Issue>, Failure> {
    let validation = snapshot.settings().validation;
    if validation == Validation::Off {
        return Ok(Vec::new());
    }
    let mut issues = validate(resource, snapshot.definitions());
    issues.extend_from_slice(disorder);
    let is_refused = validation == Validation::Strict && issues.iter().any(|issue| issue.severity == Severity::Error);
    if !is_refused {
        return Ok(issues);
    }
    let message = issues.iter().map(|i| format!("{}: {}", i.expression, i.message)).collect::<Vec<_>>().join("; ");
    Err(Failure { issues, ..Failure::new(Kind::Unprocessable, message) })
}

/// The same of a Bundle of requests, but for the resources that its entries hold: those are looked at one by one.
///
/// # Errors
/// As [`check`].
pub(super) fn check_bundle(bundle: &Content, snapshot: &Snapshot) -> Result<Vec<Issue>, Failure> {
    let Some(members) = bundle.resource.value().as_object().filter(|_| snapshot.settings().validation != Validation::Off) else { return Ok(Vec::new()) };
    let without_resource = |entry: &Value| match entry.as_object() {
        Some(entry) if entry.len() > 1 => Value::Object(entry.iter().filter(|(key, _)| *key != "resource").map(|(k, v)| (k.clone(), v.clone())).collect()),
        _ => entry.clone(),
    };
    let bare: Map<String, Value> = members
        .iter()
        .map(|(key, value)| match value.as_array().filter(|_| key == "entry") {
            Some(entries) => (key.clone(), entries.iter().map(without_resource).collect()),
            None => (key.clone(), value.clone()),
        })
        .collect();
    let disorder: Vec<Issue> = bundle.disorder.iter().filter(|issue| in_entry(issue).is_none()).cloned().collect();
    check(&Value::Object(bare), &disorder, snapshot)
}

/// The entry of a Bundle in whose resource an issue is, and the place within that.
pub(super) fn in_entry(issue: &Issue) -> Option<(usize, &str)> {
    let (at, rest) = issue.expression.strip_prefix("Bundle.entry[")?.split_once("].resource.")?;
    Some((at.parse().ok()?, rest))
}
