//! What differs between two answers, but for what no two servers have in common: `meta.versionId`, `meta.lastUpdated`, URLs and times of
//! Bundles that were made for the answer, texts of outcomes.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::parts;
use crate::fhir::id::clip;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// An element, or a resource.
    Plain,
    /// `meta` of a resource.
    Meta,
    /// A Bundle that was made for the answer,
    Made,
    /// one of its entries,
    Entry,
    /// and what became of that.
    Response,
    /// An OperationOutcome,
    Outcome,
    /// and one of its issues.
    Issue,
    /// The CapabilityStatement that is the answer.
    Statement,
}

impl Is {
    /// What an object is that says which resource it is.
    fn resource(object: &Map<String, Value>, is_answer: bool) -> Option<Self> {
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        Some(match object.get("resourceType")?.as_str()? {
            "OperationOutcome" => Self::Outcome,
            "Bundle" if is_answer || matches!(kind, "searchset" | "history" | "batch-response" | "transaction-response") => Self::Made,
            "CapabilityStatement" if is_answer => Self::Statement,
            _ => Self::Plain,
        })
    }

    /// What is in a member of it.
    fn within(self, is_resource: bool, name: &str) -> Self {
        match (self, name) {
            (Self::Made, "entry") => Self::Entry,
            (Self::Entry, "response") => Self::Response,
            (Self::Outcome, "issue") => Self::Issue,
            _ if is_resource && name == "meta" => Self::Meta,
            _ => Self::Plain,
        }
    }

    /// Whether a member is each server's own.
    fn is_own(self, name: &str) -> bool {
        match self {
            Self::Plain => false,
            Self::Meta => matches!(name, "versionId" | "lastUpdated"),
            Self::Made => matches!(name, "id" | "meta" | "link"),
            Self::Entry => matches!(name, "fullUrl" | "link"),
            Self::Response => matches!(name, "location" | "etag" | "lastModified"),
            Self::Outcome => matches!(name, "id" | "meta" | "text"),
            Self::Issue => matches!(name, "details" | "diagnostics" | "location"),
            Self::Statement => matches!(name, "date" | "implementation" | "software"),
        }
    }
}

/// Adds in what `now` differs from `before`.
pub fn compare(before: &Value, now: &Value, found: &mut Vec<String>) {
    values(before, now, Is::Plain, "", found);
}

fn values(before: &Value, now: &Value, is: Is, at: &str, found: &mut Vec<String>) {
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), |v| clip(&v.to_string()));
    match (before, now) {
        (Value::Object(a), Value::Object(b)) => {
            let resource = Is::resource(a, at.is_empty());
            let is = resource.unwrap_or(is);
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names.into_iter().filter(|name| !is.is_own(name)) {
                let here = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match (a.get(name), b.get(name)) {
                    (Some(x), Some(y)) => values(x, y, is.within(resource.is_some(), name), &here, found),
                    // It may have nothing but what is each server's own.
                    (Some(Value::Object(only)), None) | (None, Some(Value::Object(only)))
                        if only.keys().all(|key| is.within(resource.is_some(), name).is_own(key)) => {}
                    (x, y) => found.push(format!("{here} is {} instead of {}", shown(y), shown(x))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(n, (x, y))| values(x, y, is, &format!("{at}[{n}]"), found));
        }
        _ if before == now => {}
        // The same place, each of its own endpoint.
        (Value::String(a), Value::String(b)) if a.starts_with("http") && b.starts_with("http") && below(a).is_some() && below(a) == below(b) => {}
        _ => found.push(format!("{at} is {} instead of {}", shown(Some(now)), shown(Some(before)))),
    }
}

fn below(url: &str) -> Option<&str> {
    parts(url).map(|(_, below)| below)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::compare;

    fn differs(before: &Value, now: &Value) -> String {
        let mut found = Vec::new();
        compare(before, now, &mut found);
        found.join("; ")
    }

    #[test]
    fn what_is_clinical_is_compared_wherever_it_is() {
        let observation =
            |text: &str| json!({"resourceType": "Observation", "id": "o", "meta": {"versionId": text}, "code": {"text": text}, "text": {"div": text}});
        let role = |place: &str| json!({"resourceType": "PractitionerRole", "location": [{"reference": place}], "link": [place], "details": place});
        let entry = |resource: Value| json!({"resourceType": "Bundle", "type": "searchset", "id": resource["id"], "entry": [{"fullUrl": resource["id"], "resource": resource}]});
        let (a, b) = (observation("a"), observation("b"));
        assert_eq!(differs(&a, &b), r#"code.text is "b" instead of "a"; text.div is "b" instead of "a""#);
        assert_eq!(differs(&entry(a), &entry(b)), r#"entry[0].resource.code.text is "b" instead of "a"; entry[0].resource.text.div is "b" instead of "a""#);
        assert_eq!(differs(&role("x"), &role("y")).matches("instead of").count(), 3);
        assert_eq!(differs(&json!({"resourceType": "Patient", "meta": {"versionId": "1"}}), &json!({"resourceType": "Patient"})), "");
    }

    #[test]
    fn what_is_each_servers_own_is_not() {
        let outcome = |text: &str| json!({"resourceType": "OperationOutcome", "text": {"div": text}, "issue": [{"code": "invalid", "diagnostics": text, "details": {"text": text}}]});
        let answer = |text: &str| {
            json!({"resourceType": "Bundle", "type": "batch-response", "id": text, "link": [{"url": text}], "entry": [
                {"fullUrl": text, "response": {"status": "400", "location": text, "etag": text, "lastModified": text, "outcome": outcome(text)}}]})
        };
        assert_eq!(differs(&answer("a"), &answer("b")), "");
        assert_eq!(
            differs(&outcome("a"), &json!({"resourceType": "OperationOutcome", "issue": [{"code": "value"}]})),
            r#"issue[0].code is "value" instead of "invalid""#
        );
    }
}
