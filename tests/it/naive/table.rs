//! Which elements a search parameter of R4 looks at, for the parameters that the model knows.

use serde_json::Value;

use super::reference;

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

/// A search parameter and the elements it looks at.
pub struct Parameter {
    pub type_name: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub elements: &'static [(&'static str, Shape)],
}

/// A composite parameter: in each of the contexts (`""` is the resource), both parts have to match together.
pub struct Composite {
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

const fn row(type_name: &'static str, name: &'static str, kind: Kind, elements: &'static [(&'static str, Shape)]) -> Parameter {
    Parameter { type_name, name, kind, elements }
}

const GENDER: &str = "http://hl7.org/fhir/administrative-gender";
const OBSERVATION_STATUS: &str = "http://hl7.org/fhir/observation-status";
const PUBLICATION_STATUS: &str = "http://hl7.org/fhir/publication-status";

const EFFECTIVE: &[(&str, Shape)] =
    &[("effectiveDateTime", Shape::DateTime), ("effectivePeriod", Shape::Period), ("effectiveInstant", Shape::DateTime), ("effectiveTiming", Shape::Timing)];

/// The parameters, but for composite ones. `_id` and those of `meta` are Patient's here; they are the same for every type.
pub const PARAMETERS: &[Parameter] = &[
    row("Patient", "_id", Kind::Token, &[("id", Shape::Text)]),
    row("Patient", "_tag", Kind::Token, &[("meta.tag", Shape::Coding)]),
    row("Patient", "_security", Kind::Token, &[("meta.security", Shape::Coding)]),
    row("Patient", "_profile", Kind::Uri, &[("meta.profile", Shape::Text)]),
    row("Patient", "_source", Kind::Uri, &[("meta.source", Shape::Text)]),
    row("Patient", "name", Kind::String, &[("name", Shape::HumanName)]),
    row("Patient", "family", Kind::String, &[("name.family", Shape::Text)]),
    row("Patient", "given", Kind::String, &[("name.given", Shape::Text)]),
    row("Patient", "address", Kind::String, &[("address", Shape::Address)]),
    row("Patient", "address-city", Kind::String, &[("address.city", Shape::Text)]),
    row("Patient", "birthdate", Kind::Date, &[("birthDate", Shape::DateTime)]),
    row("Patient", "death-date", Kind::Date, &[("deceasedDateTime", Shape::DateTime)]),
    row("Patient", "gender", Kind::Token, &[("gender", Shape::Code(GENDER))]),
    row("Patient", "active", Kind::Token, &[("active", Shape::Boolean)]),
    row("Patient", "deceased", Kind::Token, &[("", Shape::Deceased)]),
    row("Patient", "identifier", Kind::Token, &[("identifier", Shape::Identifier)]),
    row("Patient", "telecom", Kind::Token, &[("telecom", Shape::Contact)]),
    row("Patient", "email", Kind::Token, &[("telecom", Shape::Email)]),
    row("Patient", "language", Kind::Token, &[("communication.language", Shape::Concept)]),
    row("Patient", "general-practitioner", Kind::Reference, &[("generalPractitioner", Shape::Reference)]),
    row("Patient", "organization", Kind::Reference, &[("managingOrganization", Shape::Reference)]),
    row("Patient", "link", Kind::Reference, &[("link.other", Shape::Reference)]),
    row("Observation", "code", Kind::Token, &[("code", Shape::Concept)]),
    row("Observation", "combo-code", Kind::Token, &[("code", Shape::Concept), ("component.code", Shape::Concept)]),
    row("Observation", "component-code", Kind::Token, &[("component.code", Shape::Concept)]),
    row("Observation", "category", Kind::Token, &[("category", Shape::Concept)]),
    row("Observation", "status", Kind::Token, &[("status", Shape::Code(OBSERVATION_STATUS))]),
    row("Observation", "value-quantity", Kind::Quantity, &[("valueQuantity", Shape::Quantity)]),
    row("Observation", "combo-value-quantity", Kind::Quantity, &[("valueQuantity", Shape::Quantity), ("component.valueQuantity", Shape::Quantity)]),
    row("Observation", "value-string", Kind::String, &[("valueString", Shape::Text), ("valueCodeableConcept.text", Shape::Text)]),
    row("Observation", "value-concept", Kind::Token, &[("valueCodeableConcept", Shape::Concept)]),
    row("Observation", "value-date", Kind::Date, &[("valueDateTime", Shape::DateTime), ("valuePeriod", Shape::Period)]),
    row("Observation", "date", Kind::Date, EFFECTIVE),
    row("Observation", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("Observation", "patient", Kind::Reference, &[("subject", Shape::ToPatient)]),
    row("Observation", "encounter", Kind::Reference, &[("encounter", Shape::Reference)]),
    row("Observation", "performer", Kind::Reference, &[("performer", Shape::Reference)]),
    row("RiskAssessment", "probability", Kind::Number, &[("prediction.probabilityDecimal", Shape::Decimal), ("prediction.probabilityRange", Shape::Range)]),
    // `occurrencePeriod` is not looked at in R4.
    row("RiskAssessment", "date", Kind::Date, &[("occurrenceDateTime", Shape::DateTime)]),
    row("RiskAssessment", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("ChargeItem", "factor-override", Kind::Number, &[("factorOverride", Shape::Decimal)]),
    row("ChargeItem", "price-override", Kind::Quantity, &[("priceOverride", Shape::Money)]),
    row("ValueSet", "url", Kind::Uri, &[("url", Shape::Text)]),
    row("ValueSet", "version", Kind::Token, &[("version", Shape::Text)]),
    row("ValueSet", "name", Kind::String, &[("name", Shape::Text)]),
    row("ValueSet", "title", Kind::String, &[("title", Shape::Text)]),
    row("ValueSet", "date", Kind::Date, &[("date", Shape::DateTime)]),
    row("ValueSet", "status", Kind::Token, &[("status", Shape::Code(PUBLICATION_STATUS))]),
    row("ValueSet", "reference", Kind::Uri, &[("compose.include.system", Shape::Text)]),
    row("Questionnaire", "url", Kind::Uri, &[("url", Shape::Text)]),
    row("Questionnaire", "title", Kind::String, &[("title", Shape::Text)]),
    row("QuestionnaireResponse", "questionnaire", Kind::Reference, &[("questionnaire", Shape::Canonical)]),
    row("QuestionnaireResponse", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("Organization", "name", Kind::String, &[("name", Shape::Text), ("alias", Shape::Text)]),
    row("Organization", "identifier", Kind::Token, &[("identifier", Shape::Identifier)]),
    row("Organization", "partof", Kind::Reference, &[("partOf", Shape::Reference)]),
    row("Practitioner", "name", Kind::String, &[("name", Shape::HumanName)]),
    row("Group", "_id", Kind::Token, &[("id", Shape::Text)]),
    row("Group", "member", Kind::Reference, &[("member.entity", Shape::Reference)]),
    row("Group", "identifier", Kind::Token, &[("identifier", Shape::Identifier)]),
    row("Encounter", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("Encounter", "date", Kind::Date, &[("period", Shape::Period)]),
    row("Encounter", "service-provider", Kind::Reference, &[("serviceProvider", Shape::Reference)]),
    row("Encounter", "location-period", Kind::Date, &[("location.period", Shape::Period)]),
    row("Location", "name", Kind::String, &[("name", Shape::Text), ("alias", Shape::Text)]),
    row("Location", "near", Kind::Near, &[("position", Shape::Position)]),
];

/// The composite parameters of Observation.
pub const COMPOSITES: &[Composite] = &[
    Composite {
        name: "code-value-quantity",
        contexts: &[""],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Quantity, "valueQuantity", Shape::Quantity)],
    },
    Composite {
        name: "code-value-concept",
        contexts: &[""],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Token, "valueCodeableConcept", Shape::Concept)],
    },
    Composite {
        name: "component-code-value-quantity",
        contexts: &["component"],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Quantity, "valueQuantity", Shape::Quantity)],
    },
    Composite {
        name: "combo-code-value-quantity",
        contexts: &["", "component"],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Quantity, "valueQuantity", Shape::Quantity)],
    },
];

pub fn parameter(type_name: &str, name: &str) -> &'static Parameter {
    PARAMETERS.iter().find(|p| p.type_name == type_name && p.name == name).unwrap_or_else(|| panic!("the model lacks {name} of {type_name}"))
}

pub fn composite(type_name: &str, name: &str) -> Option<&'static Composite> {
    COMPOSITES.iter().find(|c| type_name == "Observation" && c.name == name)
}

/// The values of a parameter of a resource.
pub fn found<'r>(resource: &'r Value, name: &str) -> Vec<Found<'r>> {
    let parameter = parameter(super::type_of(resource), name);
    let all = parameter.elements.iter().flat_map(|(path, shape)| at(resource, path).into_iter().map(|value| Found { value, shape: *shape }));
    all.filter(counts).collect()
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
