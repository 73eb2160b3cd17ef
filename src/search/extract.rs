//! From a resource to the keys it is found by.

use serde_json::Value;

use super::param;
use super::params::TypeParams;
use super::path::Node;
use crate::fhir::definitions::ParamType;
use crate::fhir::{Definitions, FhirVersion, ResourceId};
use crate::query::{Keys, KeysBuilder};

/// What the keys of a resource depend on besides its content.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The simulator's FHIR version.
    pub version: FhirVersion,
    /// `/sim/lab__one/fhir/`: an absolute reference with this path means a resource of the same simulator.
    pub own_path: &'a str,
}

impl Origin<'_> {
    /// The tables of the version.
    #[must_use]
    pub fn definitions(&self) -> &'static Definitions {
        Definitions::of(self.version)
    }

    /// `Patient/1` for an absolute URL into this very simulator.
    #[must_use]
    pub fn local_part<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (host, rest) = url.split_once(self.own_path)?;
        (host.starts_with("http://") || host.starts_with("https://")).then_some(rest)
    }
}

/// The term all resources of a type have.
#[must_use]
pub fn type_term(type_name: &str) -> String {
    format!("_type\u{1f}{type_name}")
}

/// The keys of a resource of type `type_name` with the id and the instant (milliseconds) it is stored with.
#[must_use]
pub fn extract(resource: &Value, type_name: &'static str, id: &ResourceId, last_updated_ms: i64, origin: &Origin<'_>) -> Keys {
    let mut keys = KeysBuilder::default();
    keys.term(&[&type_term(type_name)]);
    let mut found = Vec::new();
    for param in &TypeParams::of(origin.version, type_name).list {
        match param.def.code {
            // What is stored differs from what was sent in these two.
            "_id" => {
                param::token::add_code(param, id.as_str(), &mut keys);
                mark_present(&param.name, &mut keys);
                continue;
            }
            "_lastUpdated" => {
                let low = last_updated_ms.saturating_mul(1_000);
                param::date::add(param, crate::fhir::instant::Interval { low, high: low + 1_000 }, &mut keys);
                mark_present(&param.name, &mut keys);
                continue;
            }
            _ => {}
        }
        found.clear();
        param.path.evaluate(resource, type_name, &mut found);
        if !found.is_empty() {
            add(param, &found, origin, &mut keys);
        }
    }
    keys.build()
}

fn add(param: &super::params::Param, found: &[Node<'_>], origin: &Origin<'_>, keys: &mut KeysBuilder) {
    let added: usize = match param.def.kind {
        ParamType::Token => found.iter().map(|n| param::token::index(param, n, origin, keys)).sum(),
        ParamType::String => found.iter().map(|n| param::string::index(param, n, keys)).sum(),
        ParamType::Reference => found.iter().map(|n| param::reference::index(param, n, origin, keys)).sum(),
        ParamType::Uri => found.iter().map(|n| param::uri::index(param, n, keys)).sum(),
        ParamType::Date => param::date::index(param, found, keys),
        ParamType::Number => param::number::index(param, found, keys),
        ParamType::Composite | ParamType::Quantity | ParamType::Special => 0,
    };
    if added > 0 {
        mark_present(&param.name, keys);
    }
}

/// The key that `:missing` asks for.
fn mark_present(name: &str, keys: &mut KeysBuilder) {
    keys.term(&[name, "\u{1f}!"]);
}
