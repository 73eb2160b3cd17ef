//! FHIR XML, <https://hl7.org/fhir/R4/xml.html>: resources are stored as JSON, and this turns them into XML and back.
//!
//! What is JSON's order of keys and XML's order of elements, an array or a repetition, a number or a text, is decided by
//! the definitions; digits, and the narrative, are copied as they stand.
//!
//! # What the definitions do not know
//!
//! Content is accepted leniently, so both directions have an answer for it, and lose nothing that has a value:
//!
//! - Unknown members become elements after the known ones of their object, in the order of their names: a scalar in the
//!   attribute `value`, an object with elements of its own, an array as repetitions. Back in JSON an unknown element is an
//!   array if it is repeated; its value is a boolean if it reads `true` or `false`, and else a string: codes of digits are
//!   common, unknown numbers are not, and nothing tells them apart.
//! - A scalar where an object belongs, and the reverse, are written as what they are. The attribute `value` decides when
//!   they are read: an element that has it is a scalar, and what else it holds goes into its `_` sibling. So an object
//!   where a scalar belongs comes back as that sibling.
//! - A value that is no literal of its element's type (`value="about 5"` of a decimal) is read as a string.
//! - Several values where one belongs are repeated, and read as an array. One value in an array where none belongs comes
//!   back without the array, and one without an array where there should be one with it; arrays in arrays come back flat.
//! - `null` is an element without anything, and is read as `null` unless the element is of an object's type: then as `{}`.
//!   Empty arrays have no element.
//! - Resources of unknown types are read and written as if they had the elements that all resources have.
//!
//! What XML has no way to say is refused rather than left out: control characters, names that are no XML names, a
//! narrative that is not well-formed. JSON remains to get such a resource.
//!
//! # What XML may say
//!
//! No document type, and so no entities but the five predefined and character references; comments and processing
//! instructions are dropped; [`super::json::MAX_DEPTH`] limits nesting. A `div` that is not in the namespace of XHTML is
//! taken as it is, and gets the namespace when it is written.

mod characters;
mod layout;
mod narrative;
mod node;
mod order;
mod read;
mod shape;
#[cfg(test)]
mod tests;
mod tokens;
mod tree;
mod write;

pub use self::layout::{Piece, pieces, pretty};
use super::validate::Issue;
use super::{Definitions, Failure, FhirVersion, Kind};

/// The namespace of FHIR's elements.
pub const FHIR_NAMESPACE: &str = "http://hl7.org/fhir";
/// The namespace of narratives.
const XHTML_NAMESPACE: &str = "http://www.w3.org/1999/xhtml";
/// The namespace of attributes that speak about schemas; they say nothing about the content.
const SCHEMA_INSTANCE_NAMESPACE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// The resource in XML; `json` is a stored resource, so it is well-formed.
///
/// # Errors
/// [`Kind::NotAcceptable`], naming the element: something in it cannot be said in XML. [`Kind::Invalid`]: it is no resource.
pub fn to_xml(json: &str, definitions: &'static Definitions) -> Result<String, Failure> {
    write::resource(json, shape::Shapes::of(definitions))
}

/// The resource in JSON.
///
/// # Errors
/// [`Kind::Malformed`] with line and column: not well-formed, not in FHIR's namespace, or nested too deeply; a document
/// type; an attribute that FHIR does not have.
pub fn from_xml(bytes: &[u8], version: FhirVersion) -> Result<String, Failure> {
    read(bytes, version).map(|(json, _)| json)
}

/// The resource in JSON, and the elements whose order is not that of the definitions: JSON has none, so they are taken all the same.
///
/// # Errors
/// As [`from_xml`].
pub fn read(bytes: &[u8], version: FhirVersion) -> Result<(String, Vec<Issue>), Failure> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        malformed(&before, before.len(), "the body is not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = tree::parse(text)?;
    let shapes = shape::Shapes::of(Definitions::of(version));
    Ok((read::resource(&root, text, shapes)?, order::disorder(&root, shapes)))
}

/// The refusal of what stands at `offset` of `text`.
fn malformed(text: &str, offset: usize, what: impl std::fmt::Display) -> Failure {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.split('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    Failure::new(Kind::Malformed, format!("malformed XML: {what} at line {line} column {column}"))
}
