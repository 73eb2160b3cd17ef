//! Which elements a search parameter looks at, for the parameters that the model knows.

use fhirsim::fhir::FhirVersion;
use serde_json::Value;

use super::reference;

mod rows;

use rows::{COMPOSITES, PARAMETERS};

/// The type of a search parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    Token,
    Date,
    Number,
    Quantity,
    Uri,
    Reference,
    Near,
}

/// What an element looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string, a uri, an id.
    Text,
    HumanName,
    Address,
    /// A code whose system is the one of its required binding.
    Code(&'static str),
    Boolean,
    Coding,
    Concept,
    Identifier,
    Contact,
    /// A contact point, if it is an email address.
    Email,
    /// `deceased[x]`: there, and not false.
    Deceased,
    /// `deceased[x]`: there, even if false.
    DeceasedOrNot,
    DateTime,
    Period,
    Timing,
    Decimal,
    Range,
    Quantity,
    Money,
    Reference,
    /// A reference, if it is to a Patient.
    ToPatient,
    Canonical,
    Position,
}

/// A search parameter and the elements it looks at, from a version to a version. What every type has is `Resource`'s.
pub struct Parameter {
    /// The first and the last one.
    pub versions: (FhirVersion, FhirVersion),
    pub type_name: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub elements: &'static [(&'static str, Shape)],
}

/// A composite parameter: in each of the contexts (`""` is the resource), both parts have to match together.
pub struct Composite {
    pub since: FhirVersion,
    pub type_name: &'static str,
    pub name: &'static str,
    pub contexts: &'static [&'static str],
    pub parts: [(Kind, &'static str, Shape); 2],
}

/// A value that a parameter looks at.
#[derive(Clone, Copy, Debug)]
pub struct Found<'r> {
    pub value: &'r Value,
    pub shape: Shape,
}

/// The parameters of a version.
#[derive(Clone, Copy, Debug)]
pub struct Table(pub FhirVersion);

impl Table {
    /// The parameters, but for composite ones.
    pub fn parameters(self) -> impl Iterator<Item = &'static Parameter> {
        PARAMETERS.iter().filter(move |p| p.versions.0 <= self.0 && self.0 <= p.versions.1)
    }

    pub fn composites(self) -> impl Iterator<Item = &'static Composite> {
        COMPOSITES.iter().filter(move |c| c.since <= self.0)
    }

    pub fn parameter(self, type_name: &str, name: &str) -> Option<&'static Parameter> {
        self.parameters().find(|p| [type_name, "Resource"].contains(&p.type_name) && p.name == name)
    }

    pub fn composite(self, type_name: &str, name: &str) -> Option<&'static Composite> {
        self.composites().find(|c| c.type_name == type_name && c.name == name)
    }

    /// The values of a parameter of a resource.
    pub fn found<'r>(self, resource: &'r Value, name: &str) -> Vec<Found<'r>> {
        let type_name = super::type_of(resource);
        let parameter = self.parameter(type_name, name).unwrap_or_else(|| panic!("the model lacks {name} of {type_name} in {:?}", self.0));
        let all = parameter.elements.iter().flat_map(|(path, shape)| at(resource, path).into_iter().map(|value| Found { value, shape: *shape }));
        all.filter(counts).collect()
    }
}

/// Whether the condition in the parameter's definition lets the value through.
fn counts(found: &Found) -> bool {
    match found.shape {
        Shape::Email => found.value["system"] == "email",
        Shape::ToPatient => reference::local(found).is_some_and(|(type_name, _)| type_name == "Patient"),
        _ => true,
    }
}

/// The elements at a path of names, every one of those that repeat.
pub fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut here = vec![value];
    for name in path.split('.').filter(|name| !name.is_empty()) {
        here = here.into_iter().filter_map(|v| v.get(name)).flat_map(items).collect();
    }
    here
}

fn items(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |all| all.iter().collect())
}
