//! What operations are given, in the URL or as Parameters, <https://hl7.org/fhir/R4/operations.html#executing>: which parameters
//! there are, of what type, and how often. What would be passed over is refused before anything is done.

use serde_json::{Map, Value};

use super::{Definition, Level, Name};
use crate::fhir::definitions::{TypeDef, TypeKind};
use crate::fhir::id::clip;
use crate::fhir::json::kind_of;
use crate::fhir::{Definitions, Failure, Kind, Resource, validate};

/// A parameter that an operation has.
struct Parameter {
    name: &'static str,
    takes: Takes,
    repeats: bool,
}

/// What a parameter is given as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// `valueString`, or what else JSON has as a string.
    Text,
    /// A date, with or without a time; many a client has only strings.
    Date,
    /// An integer; many a client has only strings.
    Number,
    /// Any primitive: what searches are made of.
    Primitive,
    /// `valueMeta`.
    Meta,
    /// `resource`.
    Resource,
    /// Any value.
    Value,
}

impl Takes {
    /// Whether it may be a value of a type, as the names of members spell types.
    fn fits(self, type_name: &str, is_primitive: bool) -> bool {
        match self {
            Self::Text => matches!(type_name, "String" | "Code" | "Uri" | "Url" | "Canonical" | "Id" | "Markdown" | "Oid" | "Uuid"),
            Self::Date => matches!(type_name, "Date" | "DateTime" | "Instant" | "String"),
            Self::Number => matches!(type_name, "Integer" | "PositiveInt" | "UnsignedInt" | "Integer64" | "String"),
            Self::Primitive => is_primitive,
            Self::Meta => type_name == "Meta",
            Self::Resource => false,
            Self::Value => true,
        }
    }

    /// The member that it is to be given by.
    fn member(self) -> &'static str {
        match self {
            Self::Text | Self::Primitive | Self::Value => "valueString",
            Self::Date => "valueDateTime",
            Self::Number => "valueInteger",
            Self::Meta => "valueMeta",
            Self::Resource => "resource",
        }
    }
}

const fn once(name: &'static str, takes: Takes) -> Parameter {
    Parameter { name, takes, repeats: false }
}

const fn often(name: &'static str, takes: Takes) -> Parameter {
    Parameter { name, takes, repeats: true }
}

const EVERYTHING: [Parameter; 9] = [
    often("_type", Takes::Text),
    once("_since", Takes::Date),
    often("_typeFilter", Takes::Text),
    once("start", Takes::Date),
    once("end", Takes::Date),
    once("_count", Takes::Number),
    once("_cursor", Takes::Text),
    often("_elements", Takes::Text),
    once("_summary", Takes::Text),
];
const LASTN: [Parameter; 1] = [once("max", Takes::Number)];
const META: [Parameter; 1] = [often("meta", Takes::Meta)];
const VALIDATE: [Parameter; 4] =
    [once("mode", Takes::Text), once("profile", Takes::Text), often("usageContext", Takes::Value), once("resource", Takes::Resource)];
const DIFF: [Parameter; 2] = [once("from", Takes::Primitive), once("to", Takes::Primitive)];
const CONVERT: [Parameter; 1] = [once("input", Takes::Resource)];
/// Of a search.
const SEARCH: Parameter = often("", Takes::Primitive);

/// The parameters of an operation.
fn of(name: Name) -> &'static [Parameter] {
    match name {
        Name::Everything => &EVERYTHING,
        Name::Lastn => &LASTN,
        Name::Meta | Name::Purge => &[],
        Name::MetaAdd | Name::MetaDelete => &META,
        Name::Validate => &VALIDATE,
        Name::Diff => &DIFF,
        Name::Convert => &CONVERT,
    }
}

fn find(definition: &Definition, name: &str) -> Result<&'static Parameter, Failure> {
    let all = of(definition.name);
    if let Some(found) = all.iter().find(|p| p.name == name) {
        return Ok(found);
    }
    if definition.name == Name::Lastn {
        return Ok(&SEARCH);
    }
    let known = all.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("known: {known}") };
    Err(Failure::new(Kind::NotSupported, format!("parameter '{}' of {} is not supported; {known}", clip(name), definition.code)))
}

/// The parameters of the URL, and those of the Parameters resource `sent` that are single values, as text.
///
/// # Errors
/// One is unknown, malformed, of another type, or given more than once where once is meant.
pub fn read(
    definition: &Definition,
    level: &Level,
    url: Vec<(String, String)>,
    sent: Option<&Resource>,
    definitions: &Definitions,
) -> Result<Vec<(String, String)>, Failure> {
    let mut seen: Vec<String> = Vec::new();
    for (name, _) in url.iter().filter(|(name, _)| !matches!(name.as_str(), "_format" | "_pretty")) {
        let parameter = find(definition, name)?;
        if matches!(parameter.takes, Takes::Meta | Takes::Resource) {
            let message =
                format!("parameter '{name}' of {} is no text; send it in a body of type Parameters, as {}", definition.code, parameter.takes.member());
            return Err(Failure::new(Kind::BadValue, message));
        }
        is_first(definition, parameter, name, &mut seen)?;
    }
    let mut texts = url;
    let entries = match sent {
        Some(sent) if !is_itself(definition, level, sent) => entries(definition, sent)?,
        Some(_) | None => &[],
    };
    for (at, entry) in entries.iter().enumerate() {
        let place = format!("Parameters.parameter[{at}]");
        let wrong = |message: String| Failure::new(Kind::Invalid, format!("{place} {message}")).at(place.as_str());
        let members = entry.as_object().ok_or_else(|| wrong(format!("must be an object, but is {}", kind_of(entry))))?;
        let name = members.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| {
            let message = format!("{place}.name is missing or no text; each parameter has a name and a value");
            Failure::new(Kind::Invalid, message).at(format!("{place}.name"))
        })?;
        let parameter = find(definition, name).map_err(|f| f.at(format!("{place}.name")))?;
        is_first(definition, parameter, name, &mut seen).map_err(|f| f.at(place.as_str()))?;
        if let Some(text) = value(members, parameter.takes, definitions).map_err(|why| wrong(format!("('{}') {why}", clip(name))))? {
            texts.push((name.to_owned(), text));
        }
    }
    Ok(texts)
}

/// Whether what is sent is what the operation is about, and not what holds its parameters.
fn is_itself(definition: &Definition, level: &Level, sent: &Resource) -> bool {
    match definition.name {
        Name::Validate => sent.type_name() != "Parameters" || level.type_name() == Some("Parameters"),
        Name::Convert => {
            let entries = sent.value().get("parameter").and_then(Value::as_array);
            sent.type_name() != "Parameters" || !entries.is_some_and(|all| all.iter().any(|p| p.get("name").is_some_and(|n| n == "input")))
        }
        Name::Everything | Name::Lastn | Name::Meta | Name::MetaAdd | Name::MetaDelete | Name::Purge | Name::Diff => false,
    }
}

fn entries<'s>(definition: &Definition, sent: &'s Resource) -> Result<&'s [Value], Failure> {
    if sent.type_name() != "Parameters" {
        let message = format!("{} takes Parameters, but resourceType is '{}'; send Parameters, or no body at all", definition.code, sent.type_name());
        return Err(Failure::new(Kind::Invalid, message).at("resourceType"));
    }
    match sent.value().get("parameter") {
        None => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(other) => {
            let message = format!("Parameters.parameter must be an array, but is {}; put [ and ] around it", kind_of(other));
            Err(Failure::new(Kind::Invalid, message).at("Parameters.parameter"))
        }
    }
}

fn is_first(definition: &Definition, parameter: &Parameter, name: &str, seen: &mut Vec<String>) -> Result<(), Failure> {
    if !parameter.repeats && seen.iter().any(|s| s == name) {
        return Err(Failure::new(Kind::BadValue, format!("parameter '{}' of {} is given more than once; send it once", clip(name), definition.code)));
    }
    seen.push(name.to_owned());
    Ok(())
}

/// The text of the one value that a parameter has; none if it is an object.
fn value(members: &Map<String, Value>, takes: Takes, definitions: &Definitions) -> Result<Option<String>, String> {
    let is_value = |key: &str| key.starts_with("value") || matches!(key, "resource" | "part");
    let given: Vec<(&String, &Value)> = members.iter().filter(|(key, _)| is_value(key)).collect();
    let (key, value) = match given[..] {
        [] => return Err(format!("has no value; give it as {}", takes.member())),
        [one] => one,
        _ => {
            let names = given.iter().map(|(key, _)| clip(key)).take(5).collect::<Vec<_>>().join(", ");
            return Err(format!("has several values, {names}; give one, as {}", takes.member()));
        }
    };
    let other = || format!("cannot be given as {}; give it as {}", clip(key), takes.member());
    if key == "resource" {
        return if takes == Takes::Resource && value.is_object() { Ok(None) } else { Err(other()) };
    }
    let spelled = key.strip_prefix("value").unwrap_or_default();
    let def = type_spelled(spelled, definitions).ok_or_else(other)?;
    let is_primitive = def.kind == TypeKind::Primitive;
    if !takes.fits(spelled, is_primitive) {
        return Err(other());
    }
    if is_primitive {
        return validate::unfit(value, def.name, definitions).map_or_else(|| Ok(text(value)), |why| Err(format!("has a {key} that cannot be: {why}")));
    }
    if value.is_object() { Ok(None) } else { Err(format!("has a {key} that is {}; it is an object", kind_of(value))) }
}

/// The data type that the name of a member spells with a capital letter.
fn type_spelled<'d>(spelled: &str, definitions: &'d Definitions) -> Option<&'d TypeDef> {
    let first = spelled.chars().next().filter(char::is_ascii_uppercase)?;
    let primitive = format!("{}{}", first.to_ascii_lowercase(), &spelled[1..]);
    let def = definitions.type_def(&primitive).or_else(|| definitions.type_def(spelled))?;
    (def.kind != TypeKind::Resource && !def.is_abstract).then_some(def)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
