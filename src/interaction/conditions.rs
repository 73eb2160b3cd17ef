//! Preconditions, in headers or in the entries of a Bundle, <https://hl7.org/fhir/R4/http.html#concurrency>.

use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, VersionId};
use crate::version::Version;

/// What must hold for an interaction to go on.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// `If-Match`: the current version must be one of these.
    pub if_match: Vec<Tag>,
    /// `If-None-Match`: the client has this version.
    pub if_none_match: Vec<Tag>,
    /// `If-Modified-Since`: the client has what was current then, in milliseconds since 1970.
    pub if_modified_since_ms: Option<i64>,
    /// `If-None-Exist`: a search, without the question mark.
    pub if_none_exist: Option<String>,
}

/// An entity tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `*`.
    Any,
    /// A version.
    Version(VersionId),
    /// A tag this server never gave out: it matches nothing.
    Foreign,
}

impl Tag {
    /// Reads `W/"3"`, `"3"`, `3` or `*`.
    ///
    /// # Errors
    /// The text is no entity tag; `header` is named.
    pub fn parse(text: &str, header: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text == "*" {
            return Ok(Self::Any);
        }
        let opaque = text.strip_prefix("W/").or_else(|| text.strip_prefix("w/")).unwrap_or(text);
        let inner = match opaque.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"'),
            None => Some(opaque),
        };
        match inner {
            Some(tag) if !tag.is_empty() && !tag.contains(['"', ' ', ',']) => Ok(tag.parse().map_or(Self::Foreign, Self::Version)),
            _ => Err(Failure::new(Kind::BadValue, format!("{header} '{}' is not an entity tag; send one as ETag shows it, for example W/\"3\"", clip(text)))
                .at(format!("http.{header}"))),
        }
    }

    fn matches(&self, version: Option<&Version>) -> bool {
        match self {
            Self::Any => version.is_some_and(|v| !v.is_deletion()),
            Self::Version(wanted) => version.is_some_and(|v| v.id == *wanted && !v.is_deletion()),
            Self::Foreign => false,
        }
    }
}

impl Conditions {
    /// Refuses unless `current` is the version that `If-Match` asks for.
    ///
    /// # Errors
    /// [`Kind::PreconditionFailed`].
    pub fn require_match(&self, uid: &str, current: Option<&Version>) -> Result<(), Failure> {
        if self.if_match.is_empty() || self.if_match.iter().any(|tag| tag.matches(current)) {
            return Ok(());
        }
        let is = match current {
            Some(v) if !v.is_deletion() => format!("{uid} is at version {}; read it again and send If-Match: W/\"{}\"", v.id, v.id),
            Some(_) => format!("{uid} is deleted"),
            None => format!("there is no {uid}; leave If-Match out where there may be none"),
        };
        Err(Failure::new(Kind::PreconditionFailed, format!("If-Match does not hold: {is}")).at("http.If-Match"))
    }

    /// Refuses if `current` is a version that `If-None-Match` names; `*` is any, which makes an update a create.
    ///
    /// # Errors
    /// [`Kind::PreconditionFailed`].
    pub fn require_none_match(&self, uid: &str, current: Option<&Version>) -> Result<(), Failure> {
        match current {
            Some(version) if self.if_none_match.iter().any(|tag| tag.matches(Some(version))) => {
                let message = format!("If-None-Match does not hold: {uid} exists, at version {}", version.id);
                Err(Failure::new(Kind::PreconditionFailed, message).at("http.If-None-Match"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the client has `current` already. `If-Modified-Since` counts only without `If-None-Match`.
    #[must_use]
    pub fn client_has(&self, current: &Version) -> bool {
        if !self.if_none_match.is_empty() {
            return self.if_none_match.iter().any(|tag| tag.matches(Some(current)));
        }
        // HTTP dates have whole seconds.
        self.if_modified_since_ms.is_some_and(|since| current.modified_ms / 1_000 <= since / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read() {
        for (text, expected) in [
            ("W/\"3\"", Tag::Version(VersionId(3))),
            ("\"3\"", Tag::Version(VersionId(3))),
            (" 3 ", Tag::Version(VersionId(3))),
            ("*", Tag::Any),
            ("\"abc\"", Tag::Foreign),
        ] {
            assert_eq!(Tag::parse(text, "If-Match").ok(), Some(expected), "{text}");
        }
        for bad in ["", "W/", "\"3", "W/\"\"", "a b", "\"1\",\"2\""] {
            assert!(Tag::parse(bad, "If-Match").is_err(), "{bad}");
        }
    }
}
