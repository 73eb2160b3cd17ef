//! Whether a resource is built as its FHIR version defines it: names, JSON shapes, cardinalities, formats, required codes.
//!
//! What the tables of [`Definitions`] and the rules of <https://hl7.org/fhir/R4/json.html> and
//! <https://hl7.org/fhir/R4/datatypes.html> say is checked; invariants are not, but for the few that give extensions,
//! references and contained resources their shape.
//!
//! # Why not an invariant engine
//!
//! What testers get wrong is mostly structure, and structure can be judged while the client waits: one walk over the value
//! beside a table compiled at first use, almost without allocations for what is right.

mod binding;
mod primitive;
mod report;
mod rules;
mod schema;
mod temporal;
mod walk;
mod xhtml;

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::primitive::Primitive;
use super::Definitions;

/// Why `value` is not of the primitive type `type_name`; nothing is said of other types.
#[must_use]
pub fn unfit(value: &Value, type_name: &str, definitions: &Definitions) -> Option<String> {
    let finding = Primitive::of(type_name)?.check(value, definitions.version())?;
    (finding.severity == Severity::Error).then_some(finding.message)
}

/// After so many issues the rest of the resource is not looked at.
pub const MAX_ISSUES: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The resource is not valid.
    Error,
    /// It is valid, and hardly what was meant.
    Warning,
}

impl Severity {
    /// The code of <http://hl7.org/fhir/issue-severity>.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Something that a resource should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad it is.
    pub severity: Severity,
    /// The code of <http://hl7.org/fhir/issue-type>, one that every FHIR version has.
    pub code: &'static str,
    /// FHIRPath of the element, `Patient.name[0].given[1]` for example; of what is missing, the element that lacks it.
    pub expression: String,
    /// The sentence: lowercase, names the value, says what would be accepted.
    pub message: String,
}

impl Issue {
    /// The same of a resource that is the element `parent` of another: `Bundle.entry[7].resource`.
    pub fn move_into(&mut self, parent: &str) {
        self.expression = match self.expression.split_once('.') {
            Some((_, rest)) => format!("{parent}.{rest}"),
            None => parent.to_owned(),
        };
    }
}

/// What is wrong with the structure of `resource`, in document order, at most [`MAX_ISSUES`].
#[must_use]
pub fn validate(resource: &Value, definitions: &'static Definitions) -> Vec<Issue> {
    walk::Walk::new(definitions).of_root(resource)
}
