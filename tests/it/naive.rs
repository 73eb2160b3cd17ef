//! A plain matcher of R4 searches, to hold the server against: it reads every resource and decides element by element.
//!
//! It is written from <https://hl7.org/fhir/R4/search.html> and `docs/fhir.md` and knows nothing of the server's own search: its
//! elements come from the hand-written [`table`], not from FHIRPath.

use std::collections::BTreeMap;

use serde_json::Value;

pub mod ask;
pub mod composite;
pub mod date;
pub mod features;
pub mod generate;
pub mod near;
pub mod number;
pub mod quantity;
pub mod reference;
pub mod rng;
pub mod string;
pub mod table;
pub mod token;
pub mod uri;

use table::{Found, Kind};

/// Where the resources live; absolute URLs that begin with it are local.
pub const BASE: &str = "http://h/sim/a__b/fhir";

/// All current resources, by type and id.
pub struct Resources(BTreeMap<(String, String), Value>);

impl Resources {
    pub fn of(all: &[Value]) -> Self {
        Self(all.iter().map(|r| ((type_of(r).to_owned(), id_of(r).to_owned()), r.clone())).collect())
    }

    pub fn get(&self, type_name: &str, id: &str) -> Option<&Value> {
        self.0.get(&(type_name.to_owned(), id.to_owned()))
    }

    pub fn of_type<'r>(&'r self, type_name: &str) -> impl Iterator<Item = &'r Value> + use<'r> {
        let wanted = type_name.to_owned();
        self.0.range((wanted.clone(), String::new())..).take_while(move |((t, _), _)| *t == wanted).map(|(_, r)| r)
    }

    /// Whether the resource meets all parameters.
    pub fn meets(&self, resource: &Value, parameters: &[(String, String)]) -> bool {
        parameters.iter().all(|(key, value)| self.matches(resource, key, value))
    }

    /// Whether the resource meets one parameter, as it stands in a URL after decoding.
    fn matches(&self, resource: &Value, key: &str, value: &str) -> bool {
        if let Some(reverse) = key.strip_prefix("_has:") {
            return self.is_pointed_at(resource, reverse, value);
        }
        match key.split_once('.') {
            Some((head, rest)) => self.chain(resource, head, rest, value),
            None => plain(resource, key, value),
        }
    }

    /// `subject:Patient` + `name`: some resource that the reference leads to meets the rest.
    fn chain(&self, resource: &Value, head: &str, rest: &str, value: &str) -> bool {
        let (name, wanted) = head.split_once(':').map_or((head, None), |(n, t)| (n, Some(t)));
        table::found(resource, name)
            .iter()
            .filter_map(reference::local)
            .any(|(type_name, id)| wanted.is_none_or(|w| w == type_name) && self.get(type_name, id).is_some_and(|target| self.matches(target, rest, value)))
    }

    /// `Observation:patient:code`: some resource of that type points here and meets the rest.
    fn is_pointed_at(&self, resource: &Value, reverse: &str, value: &str) -> bool {
        let mut parts = reverse.splitn(3, ':');
        let (source, name, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let here = (type_of(resource), id_of(resource));
        self.of_type(source)
            .any(|other| table::found(other, name).iter().filter_map(reference::local).any(|target| target == here) && self.matches(other, rest, value))
    }
}

pub fn type_of(resource: &Value) -> &str {
    resource["resourceType"].as_str().unwrap()
}

pub fn id_of(resource: &Value) -> &str {
    resource["id"].as_str().unwrap()
}

/// A parameter of the resource itself, with a modifier or without.
fn plain(resource: &Value, key: &str, value: &str) -> bool {
    let (name, modifier) = key.split_once(':').map_or((key, None), |(n, m)| (n, Some(m)));
    if let Some(composite) = table::composite(type_of(resource), name) {
        return split(value, ',').iter().any(|v| composite::matches(resource, composite, v));
    }
    let parameter = table::parameter(type_of(resource), name);
    let found = table::found(resource, name);
    match modifier {
        Some("missing") => found.is_empty() == (value == "true"),
        // Of a list after `:not`, no value may be there; without any value, none is.
        Some("not") => !any(&found, parameter.kind, None, value),
        other => any(&found, parameter.kind, other, value),
    }
}

fn any(found: &[Found], kind: Kind, modifier: Option<&str>, value: &str) -> bool {
    split(value, ',').iter().any(|wanted| found.iter().any(|f| one(f, kind, modifier, wanted)))
}

/// One value of the resource and one of the search, still with its escapes.
pub fn one(found: &Found, kind: Kind, modifier: Option<&str>, wanted: &str) -> bool {
    match kind {
        Kind::String => string::matches(found, modifier, &unescape(wanted)),
        Kind::Token => token::matches(found, modifier, wanted),
        Kind::Date => date::matches(found, wanted),
        Kind::Number => number::matches(found, wanted),
        Kind::Quantity => quantity::matches(found, wanted),
        Kind::Uri => uri::matches(found, modifier, &unescape(wanted)),
        Kind::Reference => reference::matches(found, modifier, wanted),
        Kind::Near => near::matches(found, wanted),
    }
}

/// The parts between separators that no backslash precedes; the parts keep their escapes.
pub fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            parts.push(String::new());
        } else {
            parts.last_mut().unwrap().push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts
}

/// Without the backslashes that take a separator's meaning away.
pub fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(if c == '\\' { rest.next().unwrap_or('\\') } else { c });
    }
    plain
}
