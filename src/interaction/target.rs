//! What a URL below the endpoint names. Read the same for requests and for the entries of a Bundle.

use percent_encoding::percent_decode_str;

use super::history::Of;
use super::operation::Level;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind, ResourceId};

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The endpoint itself.
    System,
    /// `/metadata`.
    Metadata,
    /// `/_search`.
    SystemSearch,
    /// `/_history`.
    SystemHistory,
    /// `/Patient`.
    Type(&'static str),
    /// `/Patient/_search`.
    TypeSearch(&'static str),
    /// `/Patient/_history`.
    TypeHistory(&'static str),
    /// `/Patient/123`.
    Instance(&'static str, ResourceId),
    /// `/Patient/123/_history`.
    InstanceHistory(&'static str, ResourceId),
    /// `/Patient/123/_history/4`; the version is text still: one that is no number does not exist.
    Version(&'static str, ResourceId, String),
    /// `/Patient/123/Observation`, or `*` for all types.
    Compartment(&'static str, ResourceId, Option<&'static str>),
    /// `/Patient/123/Observation/_search`.
    CompartmentSearch(&'static str, ResourceId, Option<&'static str>),
    /// `/$name` at any level.
    Operation(Level, String),
}

impl Target {
    /// Reads a path as it stands in the URL, percent-coding undone here and once.
    ///
    /// # Errors
    /// The path names nothing that can exist.
    pub fn parse(path: &str, definitions: &Definitions) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let text = percent_decode_str(part).decode_utf8().map_err(|_| nothing_at(path))?;
            // A slash or a control character within a part can only be a trick; dots alone are ways out of it.
            if text.contains(['/', '\\']) || text.chars().any(char::is_control) || text == "." || text == ".." {
                return Err(nothing_at(path));
            }
            parts.push(text.into_owned());
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if let Some((name, on)) = parts.split_last().and_then(|(last, before)| Some((last.strip_prefix('$')?, before))) {
            let level = match *on {
                [] => Level::System,
                [type_name] => Level::Type(definitions.resource_type(type_name)?),
                [type_name, id] => Level::Instance(definitions.resource_type(type_name)?, id.parse()?),
                [type_name, id, "_history", version] => Level::Version(definitions.resource_type(type_name)?, id.parse()?, version.to_owned()),
                _ => return Err(nothing_at(path)),
            };
            return Ok(Self::Operation(level, name.to_owned()));
        }
        match parts[..] {
            [] => Ok(Self::System),
            ["metadata"] => Ok(Self::Metadata),
            ["_search"] => Ok(Self::SystemSearch),
            ["_history"] => Ok(Self::SystemHistory),
            [type_name, ref rest @ ..] => {
                let type_name = definitions.resource_type(type_name)?;
                match *rest {
                    [] => Ok(Self::Type(type_name)),
                    ["_search"] => Ok(Self::TypeSearch(type_name)),
                    ["_history"] => Ok(Self::TypeHistory(type_name)),
                    [id] => Ok(Self::Instance(type_name, id.parse()?)),
                    [id, "_history"] => Ok(Self::InstanceHistory(type_name, id.parse()?)),
                    [id, "_history", version] => Ok(Self::Version(type_name, id.parse()?, version.to_owned())),
                    [id, "*"] => Ok(Self::Compartment(type_name, id.parse()?, None)),
                    [id, "_search"] | [id, "*", "_search"] => Ok(Self::CompartmentSearch(type_name, id.parse()?, None)),
                    [id, ref inner @ ..] if definitions.compartment_types(type_name).is_some() => match *inner {
                        [member] => Ok(Self::Compartment(type_name, id.parse()?, Some(definitions.resource_type(member)?))),
                        [member, "_search"] => Ok(Self::CompartmentSearch(type_name, id.parse()?, Some(definitions.resource_type(member)?))),
                        _ => Err(nothing_at(path)),
                    },
                    _ => Err(nothing_at(path)),
                }
            }
        }
    }

    /// The history it names.
    #[must_use]
    pub fn history(&self) -> Option<Of> {
        match self {
            Self::SystemHistory => Some(Of::System),
            Self::TypeHistory(type_name) => Some(Of::Type(type_name)),
            Self::InstanceHistory(type_name, id) => Some(Of::Instance(type_name, id.clone())),
            Self::System
            | Self::Metadata
            | Self::SystemSearch
            | Self::Operation(..)
            | Self::Type(_)
            | Self::TypeSearch(_)
            | Self::Instance(..)
            | Self::Version(..)
            | Self::Compartment(..)
            | Self::CompartmentSearch(..) => None,
        }
    }

    /// Refuses the parameters that a read or a write of one resource would pass over.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse_unknown(&self, query: &[(String, String)], is_read: bool, is_create: bool, is_deletion: bool) -> Result<(), Failure> {
        let known: &[&str] = match self {
            Self::Instance(..) | Self::Version(..) if is_read => &["_format", "_pretty", "_summary", "_elements"],
            Self::Instance(..) if !is_deletion => &["_format", "_pretty"],
            Self::Type(_) | Self::System if is_create => &["_format", "_pretty"],
            Self::System
            | Self::Metadata
            | Self::SystemSearch
            | Self::SystemHistory
            | Self::Type(_)
            | Self::TypeSearch(_)
            | Self::TypeHistory(_)
            | Self::Instance(..)
            | Self::InstanceHistory(..)
            | Self::Version(..)
            | Self::Compartment(..)
            | Self::CompartmentSearch(..)
            | Self::Operation(..) => return Ok(()),
        };
        match query.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!("unknown parameter '{}'; known here: {}. Without Prefer: handling=strict it is ignored", clip(name), known.join(", "));
                Err(Failure::new(Kind::NotSupported, message))
            }
        }
    }

    /// The resource type it names.
    #[must_use]
    pub fn type_name(&self) -> Option<&'static str> {
        match self {
            Self::Type(t) | Self::TypeSearch(t) | Self::TypeHistory(t) | Self::Instance(t, _) | Self::InstanceHistory(t, _) | Self::Version(t, ..) => Some(t),
            Self::Compartment(_, _, inner) | Self::CompartmentSearch(_, _, inner) => *inner,
            Self::Operation(level, _) => level.type_name(),
            Self::System | Self::Metadata | Self::SystemSearch | Self::SystemHistory => None,
        }
    }
}

fn nothing_at(path: &str) -> Failure {
    let message = format!(
        "nothing is at '{}'; paths are [type], [type]/[id], [type]/[id]/_history, [type]/[id]/_history/[version], [type]/[id]/[type], [type]/_search, metadata",
        clip(path)
    );
    Failure::new(Kind::NotFound, message)
}

/// Whether a query string or a form can be read without changing it: percent signs that begin nothing and bytes that are
/// no UTF-8 would have to be guessed at.
///
/// # Errors
/// Which pair cannot be read.
pub fn readable(query: &str) -> Result<(), Failure> {
    if !query.contains('%') {
        return Ok(());
    }
    let is_hex = |text: Option<&str>| text.is_some_and(|t| t.bytes().all(|b| b.is_ascii_hexdigit()));
    for pair in query.split('&') {
        let lone = pair.match_indices('%').find(|(at, _)| !is_hex(pair.get(at + 1..at + 3)));
        if let Some((at, _)) = lone {
            let message = format!(
                "'{}' in the query: the percent sign at position {at} is not followed by two hexadecimal digits; write %25 for a percent sign",
                clip(pair)
            );
            return Err(Failure::new(Kind::BadValue, message));
        }
        if percent_encoding::percent_decode_str(pair).decode_utf8().is_err() {
            return Err(Failure::new(Kind::BadValue, format!("'{}' in the query is not UTF-8 when its percent-coding is undone", clip(pair))));
        }
    }
    Ok(())
}

/// A condition without the `?` or `[type]?` that it may begin with.
#[must_use]
pub fn condition<'a>(type_name: Option<&str>, query: &'a str) -> &'a str {
    let query = query.strip_prefix('?').unwrap_or(query);
    type_name.and_then(|name| query.strip_prefix(name)?.strip_prefix('?')).unwrap_or(query)
}

/// The pairs of a query string or a form, percent-coding undone.
#[must_use]
pub fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::FhirVersion;

    #[test]
    fn tricks_name_nothing() {
        let d = Definitions::of(FhirVersion::R4);
        let kind = |path: &str| Target::parse(path, d).map_err(|f| f.kind);
        assert_eq!(kind(""), Ok(Target::System));
        assert_eq!(kind("Patient/"), Ok(Target::Type("Patient")));
        assert_eq!(kind("Pat%69ent"), Ok(Target::Type("Patient")));
        assert_eq!(kind("Patient/1/_history/x").map(|t| matches!(t, Target::Version(..))), Ok(true));
        for path in
            ["%2e%2e", "Patient/%2e%2e", "Patient/..", "Patient/a%2fb", "Patient/a%00", "Patient/%ff", "Group/1/2", "Patient/1/_history/2/3", "Patient/a%5cb"]
        {
            assert_eq!(kind(path), Err(Kind::NotFound), "{path}");
        }
        assert_eq!(kind("Nope/1"), Err(Kind::UnknownType));
        assert_eq!(kind("Patient/a_b"), Err(Kind::BadValue));
    }
}
