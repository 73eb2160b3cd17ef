//! A plain matcher of searches, to hold the server against: it reads every resource and decides element by element.
//!
//! It is written from <https://hl7.org/fhir/R4/search.html>, the same page of STU3 and R5, and `docs/search.md`, and knows nothing
//! of the server's own search: its elements come from the hand-written [`table`], not from FHIRPath.

use std::collections::BTreeMap;

use fhirsim::fhir::FhirVersion;
use serde_json::Value;

pub mod ask;
pub mod compartment;
pub mod composite;
pub mod date;
pub mod features;
pub mod filter;
pub mod generate;
pub mod hierarchy;
pub mod include;
pub mod list;
pub mod near;
pub mod number;
pub mod quantity;
pub mod reference;
pub mod rng;
pub mod string;
pub mod table;
pub mod terminology;
pub mod token;
pub mod uri;
pub mod words;

use table::{Found, Kind, Table};

/// Where the resources live; absolute URLs that begin with it are local.
pub const BASE: &str = "http://h/sim/a__b/fhir";

/// All current resources, by type and id, and the parameters of their version.
pub struct Resources {
    all: BTreeMap<(String, String), Value>,
    pub table: Table,
}

impl Resources {
    pub fn of(all: &[Value], version: FhirVersion) -> Self {
        Self { all: all.iter().map(|r| (key_of(r), r.clone())).collect(), table: Table(version) }
    }

    pub fn get(&self, type_name: &str, id: &str) -> Option<&Value> {
        self.all.get(&(type_name.to_owned(), id.to_owned()))
    }

    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.all.values()
    }

    pub fn of_type<'r>(&'r self, type_name: &str) -> impl Iterator<Item = &'r Value> + use<'r> {
        let wanted = type_name.to_owned();
        self.all.range((wanted.clone(), String::new())..).take_while(move |((t, _), _)| *t == wanted).map(|(_, r)| r)
    }

    /// Whether the resource meets all parameters.
    pub fn meets(&self, resource: &Value, parameters: &[(String, String)]) -> bool {
        parameters.iter().all(|(key, value)| self.matches(resource, key, value))
    }

    /// Whether the resource meets one parameter, as it stands in a URL after decoding.
    fn matches(&self, resource: &Value, key: &str, value: &str) -> bool {
        match key {
            "_filter" => return filter::matches(self, resource, value),
            "_text" | "_content" => return words::matches(resource, key, value),
            "_list" => return list::holds(self, ("List", value), resource),
            "_in" => return list::holds(self, value.split_once('/').unwrap(), resource),
            _ => {}
        }
        if let Some(reverse) = key.strip_prefix("_has:") {
            return self.is_pointed_at(resource, reverse, value);
        }
        match key.split_once('.') {
            Some((head, rest)) => self.chain(resource, head, rest, value),
            None => self.plain(resource, key, value),
        }
    }

    /// `subject:Patient` + `name`: some resource that the reference leads to, and that can have the rest, meets it.
    fn chain(&self, resource: &Value, head: &str, rest: &str, value: &str) -> bool {
        let (name, wanted) = head.split_once(':').map_or((head, None), |(n, t)| (n, Some(t)));
        let of_wanted = |target: &&Value| wanted.map_or_else(|| self.can_have(target, rest), |w| w == type_of(target));
        self.targets(resource, name).into_iter().filter(of_wanted).any(|target| self.matches(target, rest, value))
    }

    /// Whether the name is a parameter of such resources.
    pub fn can_have(&self, resource: &Value, key: &str) -> bool {
        let name = key.split([':', '.']).next().unwrap();
        let type_name = type_of(resource);
        name == "_has" || self.table.parameter(type_name, name).is_some() || self.table.composite(type_name, name).is_some()
    }

    /// The resources that a reference parameter leads to.
    pub fn targets(&self, resource: &Value, name: &str) -> Vec<&Value> {
        self.table.found(resource, name).iter().flat_map(|found| reference::targets(self, found)).collect()
    }

    /// `Observation:patient:code`: some resource of that type points here and meets the rest.
    fn is_pointed_at(&self, resource: &Value, reverse: &str, value: &str) -> bool {
        let mut parts = reverse.splitn(3, ':');
        let (source, name, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        self.of_type(source).any(|other| self.points_at(other, name, resource) && self.matches(other, rest, value))
    }

    /// Whether this reference parameter of a resource leads to another one.
    pub fn points_at(&self, resource: &Value, name: &str, target: &Value) -> bool {
        self.targets(resource, name).into_iter().any(|found| key_of(found) == key_of(target))
    }

    /// A parameter of the resource itself, with a modifier or without.
    fn plain(&self, resource: &Value, key: &str, value: &str) -> bool {
        let (name, modifier) = key.split_once(':').map_or((key, None), |(n, m)| (n, Some(m)));
        if let Some(composite) = self.table.composite(type_of(resource), name) {
            return split(value, ',').iter().any(|v| composite::matches(resource, composite, v));
        }
        let found = self.table.found(resource, name);
        let kind = self.table.parameter(type_of(resource), name).unwrap().kind;
        match modifier {
            Some("missing") => found.is_empty() == (value == "true"),
            // Of a list after `:not`, no value may be there; without any value, none is.
            Some("not") => !self.any(&found, kind, None, value),
            Some("not-in") => !self.any(&found, kind, Some("in"), value),
            other => self.any(&found, kind, other, value),
        }
    }

    fn any(&self, found: &[Found], kind: Kind, modifier: Option<&str>, value: &str) -> bool {
        split(value, ',').iter().any(|wanted| found.iter().any(|f| self.one(f, kind, modifier, wanted)))
    }

    /// One value of the resource and one of the search, which may mean something that other resources say.
    fn one(&self, found: &Found, kind: Kind, modifier: Option<&str>, wanted: &str) -> bool {
        match (kind, modifier) {
            (Kind::Token, Some("in")) => terminology::is_in(self, found, wanted),
            (Kind::Token, Some("below")) => terminology::is_below(self, found, wanted),
            (Kind::Token, Some("above")) => terminology::is_above(self, found, wanted),
            (Kind::Reference, Some("below")) if found.shape != table::Shape::Canonical => hierarchy::is_below(self, found, wanted),
            (Kind::Reference, Some("above")) => hierarchy::is_above(self, found, wanted),
            _ => one(found, kind, modifier, wanted),
        }
    }
}

/// Type and id.
pub fn key_of(resource: &Value) -> (String, String) {
    (type_of(resource).to_owned(), id_of(resource).to_owned())
}

pub fn type_of(resource: &Value) -> &str {
    resource["resourceType"].as_str().unwrap()
}

pub fn id_of(resource: &Value) -> &str {
    resource["id"].as_str().unwrap()
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
