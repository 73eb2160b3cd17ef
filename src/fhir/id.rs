//! The ids of a resource and of its versions.

use std::fmt;
use std::str::FromStr;

use super::{Failure, Kind};

/// A logical id: 1-64 of `A-Z a-z 0-9 - .`, <https://hl7.org/fhir/R4/datatypes.html#id>.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId(Box<str>);

impl ResourceId {
    /// A new id that no other resource has: a random UUID.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().hyphenated().to_string().into())
    }

    /// The same with something before it, which must be of letters, digits, hyphens and dots, 28 at most.
    #[must_use]
    pub fn random_after(prefix: &'static str) -> Self {
        Self(format!("{prefix}{}", Self::random().0).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if text.is_empty() {
            return Err(Failure::new(Kind::BadValue, "the id is empty; an id is 1-64 of A-Z a-z 0-9 - ."));
        }
        if let Some(c) = text.chars().find(|c| !c.is_ascii() || !legal(*c as u8)) {
            return Err(Failure::new(Kind::BadValue, format!("id '{}' holds {c:?}; an id is 1-64 of A-Z a-z 0-9 - .", clip(text))));
        }
        if text.len() > 64 {
            return Err(Failure::new(Kind::BadValue, format!("id '{}' has {} characters; an id has at most 64", clip(text), text.len())));
        }
        // A path made of dots alone is legal as an id, and a trap for every proxy and browser on the way.
        if text.bytes().all(|b| b == b'.') && text.len() <= 2 {
            return Err(Failure::new(Kind::BadValue, format!("id '{text}' cannot be addressed by a URL; choose another")));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A version of a resource: 1 for the first, gapless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VersionId(pub u64);

impl VersionId {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for VersionId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        match text.parse() {
            Ok(n) if text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0') => Ok(Self(n)),
            _ => Err(Failure::new(Kind::NotFound, format!("no version '{}': versions are numbers from 1 on", clip(text)))),
        }
    }
}

/// At most the first 80 characters of what a client sent, for use in a message.
#[must_use]
pub fn clip(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_as_the_specification_says() {
        for good in ["1", "a-B.9", &"x".repeat(64), "..."] {
            assert!(good.parse::<ResourceId>().is_ok(), "{good}");
        }
        for bad in ["", "a_b", "a/b", "ü", &"x".repeat(65), "..", ".", "a b", "a\0"] {
            assert!(bad.parse::<ResourceId>().is_err(), "{bad:?}");
        }
    }
}
