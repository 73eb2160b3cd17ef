//! Required bindings: codes that must be of a value set, <https://hl7.org/fhir/R4/terminologies.html#required>. It is enumerated, or all
//! of a system whose codes a grammar or a standard knows.

use serde_json::Value;

use super::super::definitions::{ANY_CODE, nearest};
use super::super::id::clip;
use super::report::Finding;
use super::schema::Binding;

/// So many codes are listed where all are; of more, half as many and dots.
const MAX_LISTED: usize = 12;

impl Binding {
    /// Judges an element of type code.
    pub fn check_code(self, code: &str) -> Option<Finding> {
        if self.codes.iter().any(|(system, codes)| has(system, codes, code)) {
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
        let is_member = |(system, code): &(Option<&str>, &str)| self.codes.iter().any(|(s, codes)| *system == Some(*s) && has(s, codes, code));
        let (system, code) = pairs.first()?;
        if pairs.iter().any(is_member) {
            return None;
        }
        let shown = system.map_or_else(|| format!("'{}' without a system", clip(code)), |s| format!("'{}|{}'", clip(s), clip(code)));
        let hint = match self.codes.iter().find(|(system, codes)| has(system, codes, code)) {
            Some((system, _)) => format!("the system of '{}' is {system}", clip(code)),
            None => self.accepted(code),
        };
        Some(Finding::error("code-invalid", format!("{shown} is not in the required value set {}; {hint}", self.name)))
    }

    /// What would be accepted: the nearest code, or some.
    fn accepted(self, code: &str) -> String {
        if let Some((system, _)) = self.codes.iter().find(|(_, codes)| codes.contains(&ANY_CODE)) {
            return like(system);
        }
        let all = || self.codes.iter().flat_map(|(_, codes)| codes.iter().copied());
        if let Some(near) = nearest(code, all()) {
            return format!("did you mean '{near}'?");
        }
        let many = all().count() > MAX_LISTED;
        let listed: Vec<&str> = all().take(if many { MAX_LISTED / 2 } else { MAX_LISTED }).collect();
        format!("accepted are {}{}", listed.join(", "), if many { ", ..." } else { "" })
    }
}

/// Whether a code is among those of a system.
fn has(system: &str, codes: &[&str], code: &str) -> bool {
    if codes.contains(&ANY_CODE) && is_of(system, code) {
        return true;
    }
    code != ANY_CODE && codes.contains(&code)
}

/// The codes of BCP 13, media types.
const MEDIA_TYPES: &str = "urn:ietf:bcp:13";
/// The codes of BCP 47, tags of languages.
const LANGUAGES: &str = "urn:ietf:bcp:47";
/// The codes of ISO 4217.
const CURRENCIES: &str = "urn:iso:std:iso:4217";

/// Whether a code is one of a system whose codes nobody lists.
fn is_of(system: &str, code: &str) -> bool {
    match system {
        // A range, as an Accept header has it, is none. Parameters are nobody's business: the specification's own examples have odd ones.
        MEDIA_TYPES => {
            let name = code.split(';').next().unwrap_or_default().trim_end();
            mediatype::MediaType::parse(name).is_ok_and(|media| media.ty != "*" && media.subty != "*")
        }
        LANGUAGES => oxilangtag::LanguageTag::parse(code).is_ok(),
        CURRENCIES => iso_currency::Currency::from_code(code).is_some(),
        _ => true,
    }
}

/// What the codes of such a system look like.
fn like(system: &str) -> String {
    match system {
        MEDIA_TYPES => "a media type is written like application/fhir+json".to_owned(),
        LANGUAGES => "a language is written like de or en-US (BCP 47)".to_owned(),
        CURRENCIES => "a currency is one of ISO 4217, such as EUR".to_owned(),
        other => format!("accepted are the codes of {other}"),
    }
}
