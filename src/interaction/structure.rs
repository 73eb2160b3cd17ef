//! What the setting `validation` makes of content whose structure is not as the specification has it.

use serde_json::Value;

use crate::fhir::validate::{Issue, Severity, validate};
use crate::fhir::{Failure, Kind};
use crate::sim::{Snapshot, Validation};

/// What is wrong with a resource and is to be said, where it may be stored all the same.
///
/// # Errors
/// [`Kind::Unprocessable`]: it may not.
pub(super) fn check(resource: &Value, snapshot: &Snapshot) -> Result<Vec<Issue>, Failure> {
    let validation = snapshot.settings().validation;
    if validation == Validation::Off {
        return Ok(Vec::new());
    }
    let issues = validate(resource, snapshot.definitions());
    let is_refused = validation == Validation::Strict && issues.iter().any(|issue| issue.severity == Severity::Error);
    if !is_refused {
        return Ok(issues);
    }
    let message = issues.iter().map(|i| format!("{}: {}", i.expression, i.message)).collect::<Vec<_>>().join("; ");
    Err(Failure { issues, ..Failure::new(Kind::Unprocessable, message) })
}
