//! The table's rows.

use fhirsim::fhir::FhirVersion::{self, R4, R4b, R5, Stu3};

use super::{Composite, Kind, Parameter, Shape};

const fn row(type_name: &'static str, name: &'static str, kind: Kind, elements: &'static [(&'static str, Shape)]) -> Parameter {
    Parameter { versions: (Stu3, R5), type_name, name, kind, elements }
}

impl Parameter {
    const fn since(self, version: FhirVersion) -> Self {
        Self { versions: (version, self.versions.1), ..self }
    }

    const fn until(self, version: FhirVersion) -> Self {
        Self { versions: (self.versions.0, version), ..self }
    }
}

const GENDER: &str = "http://hl7.org/fhir/administrative-gender";
const OBSERVATION_STATUS: &str = "http://hl7.org/fhir/observation-status";
const PUBLICATION_STATUS: &str = "http://hl7.org/fhir/publication-status";

const EFFECTIVE: &[(&str, Shape)] =
    &[("effectiveDateTime", Shape::DateTime), ("effectivePeriod", Shape::Period), ("effectiveInstant", Shape::DateTime), ("effectiveTiming", Shape::Timing)];

/// The parameters, but for composite ones. Those of `meta` are Patient's here; they are the same for every type.
pub const PARAMETERS: &[Parameter] = &[
    row("Resource", "_id", Kind::Token, &[("id", Shape::Text)]),
    row("Resource", "_lastUpdated", Kind::Date, &[("meta.lastUpdated", Shape::DateTime)]),
    row("Patient", "_id", Kind::Token, &[("id", Shape::Text)]),
    row("Patient", "_tag", Kind::Token, &[("meta.tag", Shape::Coding)]),
    row("Patient", "_security", Kind::Token, &[("meta.security", Shape::Coding)]),
    row("Patient", "_profile", Kind::Uri, &[("meta.profile", Shape::Text)]).until(R4b),
    row("Patient", "_profile", Kind::Reference, &[("meta.profile", Shape::Canonical)]).since(R5),
    row("Patient", "_source", Kind::Uri, &[("meta.source", Shape::Text)]).since(R4),
    row("Patient", "name", Kind::String, &[("name", Shape::HumanName)]),
    row("Patient", "family", Kind::String, &[("name.family", Shape::Text)]),
    row("Patient", "given", Kind::String, &[("name.given", Shape::Text)]),
    row("Patient", "address", Kind::String, &[("address", Shape::Address)]),
    row("Patient", "address-city", Kind::String, &[("address.city", Shape::Text)]),
    row("Patient", "birthdate", Kind::Date, &[("birthDate", Shape::DateTime)]),
    row("Patient", "death-date", Kind::Date, &[("deceasedDateTime", Shape::DateTime)]),
    row("Patient", "gender", Kind::Token, &[("gender", Shape::Code(GENDER))]),
    row("Patient", "active", Kind::Token, &[("active", Shape::Boolean)]),
    // `Patient.deceased.exists()` alone, which is true of a death that is denied.
    row("Patient", "deceased", Kind::Token, &[("", Shape::DeceasedOrNot)]).until(Stu3),
    row("Patient", "deceased", Kind::Token, &[("", Shape::Deceased)]).since(R4),
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
    row("Observation", "value-string", Kind::String, &[("valueString", Shape::Text)]).until(Stu3),
    row("Observation", "value-string", Kind::String, &[("valueString", Shape::Text), ("valueCodeableConcept.text", Shape::Text)]).since(R4).until(R4b),
    // A string is no markdown, although it is written alike.
    row("Observation", "value-markdown", Kind::String, &[("valueCodeableConcept.text", Shape::Text)]).since(R5),
    row("Observation", "value-concept", Kind::Token, &[("valueCodeableConcept", Shape::Concept)]),
    row("Observation", "value-date", Kind::Date, &[("valueDateTime", Shape::DateTime), ("valuePeriod", Shape::Period)]),
    row("Observation", "date", Kind::Date, EFFECTIVE),
    row("Observation", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("Observation", "patient", Kind::Reference, &[("subject", Shape::Reference)]).until(Stu3),
    row("Observation", "patient", Kind::Reference, &[("subject", Shape::ToPatient)]).since(R4),
    row("Observation", "context", Kind::Reference, &[("context", Shape::Reference)]).until(Stu3),
    row("Observation", "encounter", Kind::Reference, &[("context", Shape::Reference)]).until(Stu3),
    row("Observation", "encounter", Kind::Reference, &[("encounter", Shape::Reference)]).since(R4),
    row("Observation", "performer", Kind::Reference, &[("performer", Shape::Reference)]),
    row("RiskAssessment", "probability", Kind::Number, &[("prediction.probabilityDecimal", Shape::Decimal), ("prediction.probabilityRange", Shape::Range)])
        .until(R4b),
    row("RiskAssessment", "probability", Kind::Number, &[("prediction.probabilityDecimal", Shape::Decimal)]).since(R5),
    // `occurrencePeriod` is not looked at.
    row("RiskAssessment", "date", Kind::Date, &[("occurrenceDateTime", Shape::DateTime)]),
    row("RiskAssessment", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("ChargeItem", "factor-override", Kind::Number, &[("factorOverride", Shape::Decimal)]).until(R4b),
    row("ChargeItem", "factor-override", Kind::Number, &[("totalPriceComponent.factor", Shape::Decimal)]).since(R5),
    // Money is a kind of Quantity in STU3.
    row("ChargeItem", "price-override", Kind::Quantity, &[("priceOverride", Shape::Quantity)]).until(Stu3),
    row("ChargeItem", "price-override", Kind::Quantity, &[("priceOverride", Shape::Money)]).since(R4).until(R4b),
    row("ChargeItem", "price-override", Kind::Quantity, &[("totalPriceComponent.amount", Shape::Money)]).since(R5),
    row("ValueSet", "url", Kind::Uri, &[("url", Shape::Text)]),
    row("ValueSet", "version", Kind::Token, &[("version", Shape::Text)]),
    row("ValueSet", "name", Kind::String, &[("name", Shape::Text)]),
    row("ValueSet", "title", Kind::String, &[("title", Shape::Text)]),
    row("ValueSet", "date", Kind::Date, &[("date", Shape::DateTime)]),
    row("ValueSet", "status", Kind::Token, &[("status", Shape::Code(PUBLICATION_STATUS))]),
    row("ValueSet", "reference", Kind::Uri, &[("compose.include.system", Shape::Text)]),
    row("Questionnaire", "url", Kind::Uri, &[("url", Shape::Text)]),
    row("Questionnaire", "version", Kind::Token, &[("version", Shape::Text)]),
    row("Questionnaire", "title", Kind::String, &[("title", Shape::Text)]),
    row("QuestionnaireResponse", "questionnaire", Kind::Reference, &[("questionnaire", Shape::Reference)]).until(Stu3),
    row("QuestionnaireResponse", "questionnaire", Kind::Reference, &[("questionnaire", Shape::Canonical)]).since(R4),
    row("QuestionnaireResponse", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("Organization", "name", Kind::String, &[("name", Shape::Text), ("alias", Shape::Text)]),
    row("Organization", "identifier", Kind::Token, &[("identifier", Shape::Identifier)]),
    row("Organization", "partof", Kind::Reference, &[("partOf", Shape::Reference)]),
    row("Practitioner", "name", Kind::String, &[("name", Shape::HumanName)]),
    row("Group", "_id", Kind::Token, &[("id", Shape::Text)]),
    row("Group", "member", Kind::Reference, &[("member.entity", Shape::Reference)]),
    row("Group", "identifier", Kind::Token, &[("identifier", Shape::Identifier)]),
    row("Encounter", "subject", Kind::Reference, &[("subject", Shape::Reference)]),
    row("Encounter", "patient", Kind::Reference, &[("subject", Shape::Reference)]).until(Stu3),
    row("Encounter", "patient", Kind::Reference, &[("subject", Shape::ToPatient)]).since(R4),
    row("Encounter", "date", Kind::Date, &[("period", Shape::Period)]).until(R4b),
    row("Encounter", "date", Kind::Date, &[("actualPeriod", Shape::Period)]).since(R5),
    row("Encounter", "date-start", Kind::Date, &[("actualPeriod.start", Shape::DateTime)]).since(R5),
    row("Encounter", "end-date", Kind::Date, &[("actualPeriod.end", Shape::DateTime)]).since(R5),
    row("Encounter", "service-provider", Kind::Reference, &[("serviceProvider", Shape::Reference)]),
    row("Encounter", "location", Kind::Reference, &[("location.location", Shape::Reference)]),
    row("Encounter", "location-period", Kind::Date, &[("location.period", Shape::Period)]).until(R4b),
    row("Location", "name", Kind::String, &[("name", Shape::Text), ("alias", Shape::Text)]),
    row("Location", "partof", Kind::Reference, &[("partOf", Shape::Reference)]),
    row("Location", "near", Kind::Near, &[("position", Shape::Position)]).since(R4),
    row("List", "item", Kind::Reference, &[("entry.item", Shape::Reference)]),
    row("List", "code", Kind::Token, &[("code", Shape::Concept)]),
];

/// The composite parameters.
pub const COMPOSITES: &[Composite] = &[
    Composite {
        since: Stu3,
        type_name: "Observation",
        name: "code-value-quantity",
        contexts: &[""],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Quantity, "valueQuantity", Shape::Quantity)],
    },
    Composite {
        since: Stu3,
        type_name: "Observation",
        name: "code-value-concept",
        contexts: &[""],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Token, "valueCodeableConcept", Shape::Concept)],
    },
    Composite {
        since: Stu3,
        type_name: "Observation",
        name: "component-code-value-quantity",
        contexts: &["component"],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Quantity, "valueQuantity", Shape::Quantity)],
    },
    Composite {
        since: Stu3,
        type_name: "Observation",
        name: "combo-code-value-quantity",
        contexts: &["", "component"],
        parts: [(Kind::Token, "code", Shape::Concept), (Kind::Quantity, "valueQuantity", Shape::Quantity)],
    },
    Composite {
        since: R5,
        type_name: "Encounter",
        name: "location-period",
        contexts: &["location"],
        parts: [(Kind::Reference, "location", Shape::Reference), (Kind::Date, "period", Shape::Period)],
    },
];
