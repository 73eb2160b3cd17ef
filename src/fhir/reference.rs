//! Literal references, <https://hl7.org/fhir/R4/references.html#literal>.

use super::{Definitions, ResourceId};

/// What a `Reference.reference` or a URI that means a resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// `Patient/123` or `Patient/123/_history/4`, on this very server.
    Local {
        /// The resource type.
        type_name: &'a str,
        /// The logical id.
        id: &'a str,
        /// The version, if one is named.
        version: Option<&'a str>,
    },
    /// `#name`: a resource contained in the same one.
    Contained(&'a str),
    /// `Patient?identifier=...`: to be looked up by search, legal in transactions only.
    Conditional {
        /// The resource type.
        type_name: &'a str,
        /// The search.
        query: &'a str,
    },
    /// Anything else: an absolute URL, a URN, a canonical.
    Other(&'a str),
}

impl<'a> Reference<'a> {
    /// Reads a reference; `definitions` tell which names are resource types.
    #[must_use]
    pub fn parse(text: &'a str, definitions: &Definitions) -> Self {
        if let Some(name) = text.strip_prefix('#') {
            return Self::Contained(name);
        }
        let is_type = |name: &str| definitions.find_resource_type(name).is_some();
        if let Some((type_name, query)) = text.split_once('?')
            && is_type(type_name)
        {
            return Self::Conditional { type_name, query };
        }
        let mut parts = text.split('/');
        if let (Some(type_name), Some(id)) = (parts.next(), parts.next())
            && is_type(type_name)
            && id.parse::<ResourceId>().is_ok()
        {
            match (parts.next(), parts.next(), parts.next()) {
                (None, _, _) => return Self::Local { type_name, id, version: None },
                (Some("_history"), Some(version), None) => return Self::Local { type_name, id, version: Some(version) },
                _ => {}
            }
        }
        Self::Other(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FhirVersion;
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let d = Definitions::of(FhirVersion::R4);
        let local = |id, version| Reference::Local { type_name: "Patient", id, version };
        assert_eq!(Reference::parse("Patient/1", d), local("1", None));
        assert_eq!(Reference::parse("Patient/1/_history/2", d), local("1", Some("2")));
        assert_eq!(Reference::parse("#p", d), Reference::Contained("p"));
        assert_eq!(Reference::parse("Patient?identifier=a|b", d), Reference::Conditional { type_name: "Patient", query: "identifier=a|b" });
        for other in ["http://a/Patient/1", "urn:uuid:1", "Pateint/1", "Patient/", "Patient/1/2", "Patient/a_b", "?x=1"] {
            assert_eq!(Reference::parse(other, d), Reference::Other(other));
        }
    }
}
