//! Compartments: all that has to do with a patient, an encounter or a practitioner.

use serde_json::Value;

use super::{Resources, reference};

/// By which parameters resources are in a compartment: <https://hl7.org/fhir/R4/compartmentdefinition-patient.html> and others.
/// Whether a patient is in the own compartment is left out: the definitions differ from what the text says.
pub const COMPARTMENTS: &[(&str, &str, &[&str])] = &[
    ("Patient", "Observation", &["subject", "performer"]),
    ("Patient", "Encounter", &["patient"]),
    ("Patient", "RiskAssessment", &["subject"]),
    ("Patient", "QuestionnaireResponse", &["subject"]),
    ("Patient", "Group", &["member"]),
    ("Encounter", "Observation", &["encounter"]),
    ("Practitioner", "Observation", &["performer"]),
    ("Practitioner", "Patient", &["general-practitioner"]),
    ("Practitioner", "Group", &["member"]),
];

/// Whether the resource is in the compartment of this type and id.
pub fn holds(resources: &Resources, (type_name, id): (&str, &str), resource: &Value) -> bool {
    let of = COMPARTMENTS.iter().find(|(t, member, _)| *t == type_name && *member == super::type_of(resource)).unwrap();
    let found = of.2.iter().flat_map(|name| resources.table.found(resource, name));
    found.into_iter().any(|f| reference::local(&f) == Some((type_name, id)))
}
