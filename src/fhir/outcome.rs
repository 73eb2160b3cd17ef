//! OperationOutcome: how this server says what happened.

use serde_json::{Value, json};

use super::validate::Issue;
use super::{Failure, FhirVersion, Kind};

/// The code system of the failure ids in `issue.details.coding`.
pub const CODES: &str = "urn:fhirsim:failure";

/// The OperationOutcome of a refusal.
#[must_use]
pub fn of_failure(failure: &Failure, version: FhirVersion) -> Value {
    let code = match (version, failure.kind) {
        (FhirVersion::Stu3, Kind::Deleted) => "not-found",
        (FhirVersion::Stu3, Kind::MultipleMatches) => "duplicate",
        _ => failure.kind.issue_code(),
    };
    if !failure.issues.is_empty() {
        return of_issues(&failure.issues, Some(failure.kind));
    }
    let severity = if matches!(failure.kind, Kind::Internal | Kind::Storage | Kind::Damaged) { "fatal" } else { "error" };
    let mut issue = json!({
        "severity": severity,
        "code": code,
        "details": {"coding": [{"system": CODES, "code": failure.kind.id()}], "text": failure.diagnostics},
        "diagnostics": failure.diagnostics,
    });
    if let (Some(expression), Value::Object(issue)) = (&failure.expression, &mut issue) {
        issue.insert("expression".into(), json!([expression]));
    }
    json!({"resourceType": "OperationOutcome", "issue": [issue]})
}

/// The OperationOutcome of what is wrong with a resource; `kind` is that of the refusal it leads to.
#[must_use]
pub fn of_issues(issues: &[Issue], kind: Option<Kind>) -> Value {
    let shown = |issue: &Issue| {
        let mut details = json!({"text": issue.message});
        if let Some(kind) = kind {
            details["coding"] = json!([{"system": CODES, "code": kind.id()}]);
        }
        json!({"severity": issue.severity.code(), "code": issue.code, "details": details, "diagnostics": issue.message, "expression": [issue.expression]})
    };
    json!({"resourceType": "OperationOutcome", "issue": issues.iter().map(shown).collect::<Value>()})
}

/// An OperationOutcome of messages that refuse nothing.
#[must_use]
pub fn informational(severity: &str, code: &str, messages: &[String]) -> Value {
    let issues: Vec<Value> = messages.iter().map(|m| json!({"severity": severity, "code": code, "details": {"text": m}, "diagnostics": m})).collect();
    json!({"resourceType": "OperationOutcome", "issue": issues})
}
