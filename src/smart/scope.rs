//! Scopes of SMART, <https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html>: of backend services, those of a system.

use crate::fhir::Definitions;
use crate::fhir::id::clip;

/// The scope of a client that submits, <https://hl7.org/fhir/uv/bulkdata/>: it allows nothing else.
pub const SUBMITS: &str = "system/bulk-submit";

/// What may be done, as letters: create, read, update, delete, search.
const LETTERS: [char; 5] = ['c', 'r', 'u', 'd', 's'];

/// A scope that was asked for and can be granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The type; none is all.
    resource: Option<&'static str>,
    /// A bit for each of `LETTERS`.
    may: u8,
    /// The search that resources must match, `category=laboratory`.
    restriction: Option<String>,
    /// As it was asked for.
    text: String,
}

/// Whether something may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may not.
    No,
    /// It may.
    Yes,
    /// It may, with resources that match this search.
    Matching(String),
}

fn bits(letters: &str) -> u8 {
    LETTERS.iter().enumerate().filter(|(_, letter)| letters.contains(**letter)).map(|(n, _)| 1 << n).sum()
}

impl Scope {
    /// Reads one; `writes` tells whether those that write can be granted.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn parse(text: &str, definitions: &'static Definitions, writes: bool) -> Result<Self, String> {
        let shown = clip(text);
        let (context, rest) = text.split_once('/').ok_or_else(|| format!("scope '{shown}' is not of the form system/Patient.rs"))?;
        if context != "system" {
            return Err(format!("scope '{shown}' is of a {}; a backend service can have scopes of the system only: system/…", clip(context)));
        }
        let (rest, restriction) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query.to_owned())));
        let (name, letters) =
            rest.rsplit_once('.').ok_or_else(|| format!("scope '{shown}' does not say what may be done: .rs, or .read as version 1 has it"))?;
        let unknown = || format!("scope '{shown}' names '{}', which is no resource type", clip(name));
        let resource = if name == "*" { None } else { Some(definitions.find_resource_type(name).ok_or_else(unknown)?) };
        let may = match letters {
            "read" => bits("rs"),
            "write" => bits("cud"),
            "*" => bits("cruds"),
            // In this order, each once.
            _ if !letters.is_empty() && LETTERS.iter().filter(|l| letters.contains(**l)).eq(letters.chars().collect::<Vec<_>>().iter()) => bits(letters),
            _ => return Err(format!("scope '{shown}' ends with '{}', which is none of read, write, * or letters of cruds in that order", clip(letters))),
        };
        if !writes && may & bits("cud") != 0 {
            return Err(format!("scope '{shown}' would allow to write, which this simulator grants nobody; ask for .rs or .read"));
        }
        if restriction.is_some() && may & bits("cud") != 0 {
            return Err(format!("scope '{shown}' restricts writing by a search, which this server cannot tell beforehand; restrict .rs"));
        }
        Ok(Self { resource, may, restriction, text: text.to_owned() })
    }

    /// The type and the search that it is restricted to.
    #[must_use]
    pub fn restriction(&self) -> Option<(Option<&'static str>, &str)> {
        self.restriction.as_deref().map(|search| (self.resource, search))
    }

    /// Reads all that are asked for, separated by blanks.
    ///
    /// # Errors
    /// There is none, or one that cannot be granted.
    pub fn parse_all(text: &str, definitions: &'static Definitions, writes: bool) -> Result<Vec<Self>, String> {
        let read = text.split_ascii_whitespace().filter(|one| *one != SUBMITS).map(|one| Self::parse(one, definitions, writes));
        let scopes: Vec<Self> = read.collect::<Result<_, _>>()?;
        if text.trim().is_empty() {
            return Err("the scope is empty; ask for system/*.rs, or less".to_owned());
        }
        for (n, scope) in scopes.iter().enumerate() {
            let same = scopes[..n].iter().filter(|other| other.resource == scope.resource).filter_map(|other| other.restriction.as_deref());
            let joins = |other: &str| scope.restriction.as_deref().is_none_or(|own| joined(other, own).is_some());
            if !same.into_iter().all(joins) {
                let message =
                    "restricts a type that another does, by another parameter; of each type one search, or several values of one parameter can be granted";
                return Err(format!("scope '{}' {message}", clip(&scope.text)));
            }
        }
        Ok(scopes)
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The search that finds what either finds: the same, or one parameter with the values of both.
fn joined(one: &str, other: &str) -> Option<String> {
    if one == other {
        return Some(one.to_owned());
    }
    let plain = |search: &str| !search.contains('&') && search.split_once('=').is_some_and(|(name, value)| !name.contains([':', '%']) && !value.is_empty());
    let (name, value) = other.split_once('=')?;
    let is_same = plain(one) && plain(other) && one.split_once('=').is_some_and(|(first, _)| first == name);
    is_same.then(|| format!("{one},{value}"))
}

/// Whether `scopes` allow what `letter` stands for with a type; none is all types.
#[must_use]
pub fn allows(scopes: &[Scope], type_name: Option<&str>, letter: char) -> Verdict {
    let bit = bits(letter.encode_utf8(&mut [0; 4]));
    let fits = |s: &&Scope| s.may & bit != 0 && (s.resource.is_none() || (type_name.is_some() && s.resource == type_name));
    let mut restricted = None;
    for scope in scopes.iter().filter(fits) {
        match &scope.restriction {
            None => return Verdict::Yes,
            Some(search) => restricted = Some(restricted.and_then(|before: String| joined(&before, search)).unwrap_or_else(|| search.clone())),
        }
    }
    restricted.map_or(Verdict::No, Verdict::Matching)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::FhirVersion;

    fn parse(text: &str, writes: bool) -> Result<Vec<Scope>, String> {
        Scope::parse_all(text, Definitions::of(FhirVersion::R4), writes)
    }

    #[test]
    fn scopes_of_both_versions_allow_what_they_say() {
        let cases = [
            ("system/*.read", Some("Patient"), 'r', Verdict::Yes),
            ("system/*.read", None, 's', Verdict::Yes),
            ("system/Patient.rs", Some("Patient"), 's', Verdict::Yes),
            ("system/Patient.rs", Some("Observation"), 's', Verdict::No),
            ("system/Patient.rs", None, 's', Verdict::No),
            ("system/Patient.r", Some("Patient"), 's', Verdict::No),
            ("system/Patient.write", Some("Patient"), 'd', Verdict::Yes),
            ("system/Patient.write", Some("Patient"), 'r', Verdict::No),
            ("system/*.*", Some("Patient"), 'u', Verdict::Yes),
            ("system/Observation.rs?category=lab", Some("Observation"), 's', Verdict::Matching("category=lab".to_owned())),
            ("system/Observation.rs?category=lab system/*.rs", Some("Observation"), 's', Verdict::Yes),
            ("system/Observation.rs?category=a system/Observation.r?category=b", Some("Observation"), 'r', Verdict::Matching("category=a,b".to_owned())),
            ("system/Observation.rs?category=a system/Observation.r?category=b", Some("Observation"), 's', Verdict::Matching("category=a".to_owned())),
        ];
        for (text, type_name, letter, verdict) in cases {
            assert_eq!(parse(text, true).map(|scopes| allows(&scopes, type_name, letter)), Ok(verdict), "{text} {letter}");
        }
    }

    #[test]
    fn what_cannot_be_granted_is_refused_with_why() {
        for (text, writes, why) in [
            ("", true, "empty"),
            ("launch", true, "not of the form"),
            ("user/Patient.rs", true, "backend service"),
            ("system/Pateint.rs", true, "no resource type"),
            ("system/Patient", true, "does not say"),
            ("system/Patient.sr", true, "in that order"),
            ("system/Patient.rr", true, "in that order"),
            ("system/Patient.x", true, "none of read"),
            ("system/Patient.cruds", false, "write"),
            ("system/Patient.write", false, "write"),
            ("system/*.*", false, "write"),
            ("system/Patient.cu?active=true", true, "restricts writing"),
            ("system/Patient.r?a=1 system/Patient.r?b=2", true, "by another parameter"),
            ("system/Patient.r?a:not=1 system/Patient.r?a:not=2", true, "by another parameter"),
            ("system/Patient.r?a=1&c=1 system/Patient.r?a=2", true, "by another parameter"),
        ] {
            let refused = parse(text, writes).err().unwrap_or_default();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
