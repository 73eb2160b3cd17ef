//! A resource: JSON that has proven its `resourceType`.

use serde_json::Value;

use super::id::clip;
use super::json::kind_of;
use super::{Definitions, Failure, FhirVersion, Kind, json};

/// A parsed resource of a type that its FHIR version defines.
#[derive(Clone, Debug)]
pub struct Resource {
    value: Value,
    type_name: &'static str,
}

impl Resource {
    /// Reads a resource.
    ///
    /// # Errors
    /// Malformed JSON; no object; `resourceType` missing, unknown or abstract; `id` or `meta` of the wrong shape.
    pub fn parse(body: &[u8], version: FhirVersion) -> Result<Self, Failure> {
        Self::from_value(json::parse(body)?, version)
    }

    /// Takes a parsed value for a resource.
    ///
    /// # Errors
    /// As [`Resource::parse`], but for the JSON.
    pub fn from_value(value: Value, version: FhirVersion) -> Result<Self, Failure> {
        let Value::Object(members) = &value else {
            return Err(Failure::new(Kind::Malformed, format!("a FHIR resource is a JSON object, but this is {}", kind_of(&value))));
        };
        let type_name = match members.get("resourceType") {
            Some(Value::String(name)) => Definitions::of(version).resource_type(name).map_err(|f| Failure { kind: Kind::Invalid, ..f }.at("resourceType"))?,
            Some(other) => return Err(Failure::new(Kind::Invalid, format!("resourceType must be a string, but is {}", kind_of(other))).at("resourceType")),
            None => {
                return Err(
                    Failure::new(Kind::Invalid, "resourceType is missing; it names the type, for example \"resourceType\":\"Patient\"").at("resourceType")
                );
            }
        };
        match members.get("id") {
            None | Some(Value::String(_)) => {}
            Some(other) => {
                return Err(Failure::new(Kind::Invalid, format!("{type_name}.id must be a string, but is {}", kind_of(other))).at(format!("{type_name}.id")));
            }
        }
        match members.get("meta") {
            None | Some(Value::Object(_)) => {}
            Some(other) => {
                return Err(
                    Failure::new(Kind::Invalid, format!("{type_name}.meta must be an object, but is {}", kind_of(other))).at(format!("{type_name}.meta"))
                );
            }
        }
        Ok(Self { value, type_name })
    }

    /// The name of its type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// The object.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The `id` it came with, as text.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.value.get("id").and_then(Value::as_str)
    }

    /// Requires the type to be `expected`, the one the URL names.
    ///
    /// # Errors
    /// It is another.
    pub fn expect_type(&self, expected: &str) -> Result<(), Failure> {
        if self.type_name == expected {
            return Ok(());
        }
        let message = format!("the URL says {expected}, but resourceType is '{}'; send it to /{}", clip(self.type_name), self.type_name);
        Err(Failure::new(Kind::Invalid, message).at("resourceType"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_cause() {
        for (body, expected) in [
            ("[]", "a FHIR resource is a JSON object, but this is an array"),
            ("{}", "resourceType is missing; it names the type, for example \"resourceType\":\"Patient\""),
            (r#"{"resourceType":1}"#, "resourceType must be a string, but is a number"),
            (r#"{"resourceType":"Pateint"}"#, "unknown resource type 'Pateint' in FHIR R4; did you mean 'Patient'?"),
            (r#"{"resourceType":"DomainResource"}"#, "resource type 'DomainResource' is abstract in FHIR R4"),
            (r#"{"resourceType":"Patient","meta":[]}"#, "Patient.meta must be an object, but is an array"),
            (r#"{"resourceType":"Patient","id":7}"#, "Patient.id must be a string, but is a number"),
        ] {
            let found = Resource::parse(body.as_bytes(), FhirVersion::R4).err().map(|f| f.diagnostics);
            assert_eq!(found.as_deref(), Some(expected));
        }
    }
}
