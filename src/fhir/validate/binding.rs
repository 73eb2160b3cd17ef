//! Required bindings: codes that must be of an enumerated value set, <https://hl7.org/fhir/R4/terminologies.html#required>.

use serde_json::Value;

use super::super::definitions::nearest;
use super::super::id::clip;
use super::report::Finding;
use super::schema::Binding;

/// So many codes are listed where all are; of more, half as many and dots.
const MAX_LISTED: usize = 12;

impl Binding {
    /// Judges an element of type code.
    pub fn check_code(self, code: &str) -> Option<Finding> {
        if self.codes.iter().any(|(_, codes)| codes.contains(&code)) {
            return None;
        }
        Some(Finding::error("code-invalid", format!("'{}' is not in the required value set {}; {}", clip(code), self.name, self.accepted(code))))
    }

    /// Judges a Coding, or a CodeableConcept: one of its codings has to be of the value set.
    ///
    /// A concept that is only text passes: the versions of the specification disagree on it.
    pub fn check_concept(self, value: &Value) -> Option<Finding> {
        let codings = match value.get("coding") {
            Some(Value::Array(codings)) => codings.as_slice(),
            Some(_) => return None,
            None => std::slice::from_ref(value),
        };
        let pairs: Vec<(Option<&str>, &str)> =
            codings.iter().filter_map(|c| Some((c.get("system").and_then(Value::as_str), c.get("code")?.as_str()?))).collect();
        let is_member = |(system, code): &(Option<&str>, &str)| self.codes.iter().any(|(s, codes)| *system == Some(*s) && codes.contains(code));
        let (system, code) = pairs.first()?;
        if pairs.iter().any(is_member) {
            return None;
        }
        let shown = system.map_or_else(|| format!("'{}' without a system", clip(code)), |s| format!("'{}|{}'", clip(s), clip(code)));
        let hint = match self.codes.iter().find(|(_, codes)| codes.contains(code)) {
            Some((system, _)) => format!("the system of '{}' is {system}", clip(code)),
            None => self.accepted(code),
        };
        Some(Finding::error("code-invalid", format!("{shown} is not in the required value set {}; {hint}", self.name)))
    }

    /// What would be accepted: the nearest code, or some.
    fn accepted(self, code: &str) -> String {
        let all = || self.codes.iter().flat_map(|(_, codes)| codes.iter().copied());
        if let Some(near) = nearest(code, all()) {
            return format!("did you mean '{near}'?");
        }
        let many = all().count() > MAX_LISTED;
        let listed: Vec<&str> = all().take(if many { MAX_LISTED / 2 } else { MAX_LISTED }).collect();
        format!("accepted are {}{}", listed.join(", "), if many { ", ..." } else { "" })
    }
}
