//! Parts of resources: `_summary` and `_elements`, <https://hl7.org/fhir/R4/search.html#summary>. What is kept stays byte
//! for byte as it was.

use super::id::clip;
use super::raw;
use super::{Definitions, Failure, FhirVersion, Kind};

/// The system of the tag that says a resource is not whole.
const OBSERVATION_VALUE: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
/// The same in STU3.
const OBSERVATION_VALUE_STU3: &str = "http://hl7.org/fhir/v3/ObservationValue";

/// What of a resource is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subset {
    /// All of it.
    #[default]
    All,
    /// What the definitions mark as summary.
    Summary,
    /// The narrative, and what must be there.
    Text,
    /// All but the narrative.
    Data,
    /// These elements, and what must be there.
    Elements(Vec<String>),
}

impl Subset {
    /// What `_summary` asks for; `count` is no part of a resource.
    #[must_use]
    pub fn of_summary(value: &str) -> Option<Self> {
        match value {
            "true" => Some(Self::Summary),
            "text" => Some(Self::Text),
            "data" => Some(Self::Data),
            "false" => Some(Self::All),
            _ => None,
        }
    }

    /// What the parameters of a read of one of `types` ask for; the first counts.
    ///
    /// # Errors
    /// `_summary` has a value that a read does not have; under `strict`, what would be passed over.
    pub fn of_read(parameters: &[(String, String)], types: &[&'static str], strict: bool, definitions: &Definitions) -> Result<Self, Failure> {
        let mut subset = Self::All;
        for (name, value) in parameters.iter().filter(|(name, _)| matches!(name.as_str(), "_summary" | "_elements")) {
            match name.as_str() {
                _ if strict && value.is_empty() => return Err(Failure::new(Kind::BadValue, format!("{name} has no value"))),
                _ if strict && subset != Self::All => {
                    return Err(Failure::new(Kind::NotSupported, format!("{name} '{}': _summary or _elements is given before", clip(value))));
                }
                _ if subset != Self::All => {}
                "_summary" => {
                    let bad =
                        || Failure::new(Kind::BadValue, format!("_summary '{}' is not true, text, data or false, which is what it may be here", clip(value)));
                    subset = Self::of_summary(value).ok_or_else(bad)?;
                }
                _ => {
                    let (known, unknown): (Vec<_>, Vec<_>) = Self::names(value).into_iter().partition(|name| is_element(name, types, definitions));
                    if let Some(name) = unknown.first().filter(|_| strict) {
                        return Err(no_element(name, types));
                    }
                    // Of what names nothing, all is shown.
                    if !known.is_empty() {
                        subset = Self::Elements(known);
                    }
                }
            }
        }
        Ok(subset)
    }

    /// The names that `_elements` has; a choice may be called `value[x]`, as the specification does.
    #[must_use]
    pub fn names(value: &str) -> Vec<String> {
        value.split(',').map(|name| name.trim().trim_end_matches("[x]")).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// Whether something is left out.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        *self != Self::All
    }

    /// The part of a resource of `type_name`, marked as one.
    #[must_use]
    pub fn of(&self, body: &str, type_name: &str, definitions: &Definitions) -> String {
        let Some(def) = definitions.type_def(type_name).filter(|_| self.is_partial()) else { return body.to_owned() };
        let mut kept = Vec::new();
        let mut meta = None;
        for member in raw::members(body, 0) {
            let key = raw::string(&body[member.key.clone()]);
            if key == "meta" {
                meta = Some(member.value.clone());
                continue;
            }
            let element = def.of_member("", &key);
            let mandatory = element.is_some_and(|e| e.min > 0);
            let keep = match self {
                Self::All => true,
                Self::Summary => element.is_some_and(|e| e.in_summary),
                Self::Text => key == "text" || mandatory,
                Self::Data => key != "text",
                Self::Elements(names) => mandatory || names.iter().any(|n| names_element(n, type_name, &key, element.map(|e| e.path))),
            };
            if key == "resourceType" || key == "id" || keep {
                let value = &body[member.value.clone()];
                let value = match (self, element) {
                    (Self::Summary, Some(element)) => summary(value, type_name, element.path, element.types, definitions),
                    _ => value.to_owned(),
                };
                kept.push(format!("{}:{value}", &body[member.key]));
            }
        }
        let at = kept.iter().take_while(|m| m.starts_with("\"resourceType\"") || m.starts_with("\"id\"")).count();
        kept.insert(at, format!("\"meta\":{}", tagged(meta.map_or("{}", |span| &body[span]), definitions.version())));
        format!("{{{}}}", kept.join(","))
    }
}

/// Whether a name that `_elements` has is of an element of one of the types.
#[must_use]
pub fn is_element(name: &str, types: &[&'static str], definitions: &Definitions) -> bool {
    let (of, element) = name.split_once('.').map_or((None, name), |(of, element)| (Some(of), element));
    let mut of_type = types.iter().filter(|t| of.is_none_or(|of| of == **t));
    matches!(name, "id" | "meta") || of_type.any(|t| definitions.type_def(t).is_some_and(|def| def.top_level(element)))
}

/// The report of a name that is of none.
#[must_use]
pub fn no_element(name: &str, types: &[&str]) -> Failure {
    Failure::new(Kind::NotSupported, format!("_elements: '{}' is no element of {}", clip(name), clip(&types.join(", "))))
}

fn names_element(name: &str, type_name: &str, key: &str, path: Option<&str>) -> bool {
    let (of, element) = name.split_once('.').map_or((None, name), |(of, element)| (Some(of), element));
    let key = key.strip_prefix('_').unwrap_or(key);
    of.is_none_or(|of| of == type_name) && (element == key || path.is_some_and(|p| p.trim_end_matches("[x]") == element))
}

/// What of an element's value belongs to a summary.
fn summary(value: &str, base: &str, path: &str, types: &str, definitions: &Definitions) -> String {
    if value.starts_with('[') {
        let items: Vec<String> = raw::elements(value, 0).into_iter().map(|span| summary(&value[span], base, path, types, definitions)).collect();
        return format!("[{}]", items.join(","));
    }
    if !value.starts_with('{') {
        return value.to_owned();
    }
    // Elements of the resource's own are summaries in part; values of data types by their type's definition.
    let (base, path) = match types {
        "BackboneElement" | "Element" => (base, path),
        _ if types.starts_with('#') => (base, &types[1..]),
        _ if types.contains('|') => return value.to_owned(),
        other => (other, ""),
    };
    let Some(def) = definitions.type_def(base) else { return value.to_owned() };
    let mut kept = Vec::new();
    let mut extension = None;
    for member in raw::members(value, 0) {
        let key = raw::string(&value[member.key.clone()]);
        let inner = &value[member.value.clone()];
        match def.of_member(path, &key) {
            Some(element) if element.in_summary || element.min > 0 => {
                kept.push(format!("{}:{}", &value[member.key], summary(inner, base, element.path, element.types, definitions)));
            }
            Some(_) if key == "extension" => extension = Some(format!("{}:{inner}", &value[member.key])),
            Some(_) => {}
            // What the definitions do not know is not theirs to leave out.
            None => kept.push(format!("{}:{inner}", &value[member.key])),
        }
    }
    // An element that has nothing else says by its extension why.
    kept.extend(extension.filter(|_| kept.is_empty()));
    format!("{{{}}}", kept.join(","))
}

/// `meta` with the tag SUBSETTED.
fn tagged(meta: &str, version: FhirVersion) -> String {
    let system = if version == FhirVersion::Stu3 { OBSERVATION_VALUE_STU3 } else { OBSERVATION_VALUE };
    let tag = format!("{{\"system\":\"{system}\",\"code\":\"SUBSETTED\"}}");
    if let Some(tags) = raw::member(meta, 0, "tag") {
        let text = &meta[tags.clone()];
        // What is no list of tags is not one after this either.
        if !text.starts_with('[') {
            return raw::apply(meta, vec![(tags, format!("[{tag}]"))]);
        }
        if text.contains("\"SUBSETTED\"") {
            return meta.to_owned();
        }
        let inner = text[1..text.len() - 1].trim();
        let all = if inner.is_empty() { format!("[{tag}]") } else { format!("[{inner},{tag}]") };
        return raw::apply(meta, vec![(tags, all)]);
    }
    let meta = meta.trim();
    let inner = meta[1..meta.len() - 1].trim();
    if inner.is_empty() { format!("{{\"tag\":[{tag}]}}") } else { format!("{{{inner},\"tag\":[{tag}]}}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENT: &str = r#"{"resourceType":"Patient","id":"1","meta":{"versionId":"2"},"text":{"status":"generated","div":"<div>x</div>"},"name":[{"family":"A","period":{"start":"2000"}}],"contact":[{"gender":"male"}],"deceasedBoolean":false,"maritalStatus":{"text":"m"},"link":[{"other":{"reference":"Patient/2"},"type":"refer"}]}"#;

    fn of(subset: &Subset) -> String {
        subset
            .of(PATIENT, "Patient", Definitions::of(FhirVersion::R4))
            .replace(",\"tag\":[{\"system\":\"http://terminology.hl7.org/CodeSystem/v3-ObservationValue\",\"code\":\"SUBSETTED\"}]", ",T")
    }

    #[test]
    fn parts_are_what_they_should_be() {
        insta::assert_snapshot!(of(&Subset::Summary), @r#"{"resourceType":"Patient","id":"1","meta":{"versionId":"2",T},"name":[{"family":"A","period":{"start":"2000"}}],"deceasedBoolean":false,"link":[{"other":{"reference":"Patient/2"},"type":"refer"}]}"#);
        insta::assert_snapshot!(of(&Subset::Text), @r#"{"resourceType":"Patient","id":"1","meta":{"versionId":"2",T},"text":{"status":"generated","div":"<div>x</div>"}}"#);
        insta::assert_snapshot!(of(&Subset::Elements(vec!["name".into(), "deceased".into(), "Observation.contact".into()])), @r#"{"resourceType":"Patient","id":"1","meta":{"versionId":"2",T},"name":[{"family":"A","period":{"start":"2000"}}],"deceasedBoolean":false}"#);
        assert_eq!(of(&Subset::All), PATIENT);
        assert!(!of(&Subset::Data).contains("div"));
    }
}
