//! From a typed search to the tree and the order that the index executes.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::extract::{Origin, type_term};
use super::param;
use super::params::{Param, TypeParams};
use super::parse::{Filter, Modifier, Search};
use super::path::Node;
use crate::fhir::definitions::ParamType;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::query::Query;

/// What the index is asked.
#[derive(Debug)]
pub struct Compiled {
    /// Which resources.
    pub query: Query,
    /// In which order.
    pub sort: Vec<Order>,
}

/// One key of the order, in terms of keys.
#[derive(Clone, Debug)]
pub struct Order {
    /// By what.
    pub by: OrderBy,
    /// Greatest first.
    pub descending: bool,
}

/// What an order goes by.
#[derive(Clone, Debug)]
pub enum OrderBy {
    /// The instant of the last change.
    LastUpdated,
    /// Columns of numbers, one a type.
    Columns(Vec<Box<str>>),
    /// Terms with one of these prefixes.
    Terms(Vec<Box<str>>),
}

impl Compiled {
    /// Compiles `search`; `now` is what approximate dates are measured from.
    ///
    /// # Errors
    /// A value that its parameter's type cannot read.
    pub fn new(search: &Search, origin: &Origin<'_>, now: DateTime<Utc>) -> Result<Self, Failure> {
        let mut types = Vec::with_capacity(search.types.len());
        for type_name in &search.types {
            let params = TypeParams::of(search.version, type_name);
            let mut conditions = Vec::with_capacity(search.filters.len() + 1);
            for filter in &search.filters {
                if let Some(param) = params.get(&filter.code) {
                    conditions.push(condition(param, filter, origin, now)?);
                }
            }
            // Keys begin with their type: a condition that names some terms needs no other word of it.
            if !conditions.iter().any(names_terms) {
                conditions.push(Query::term(&type_term(type_name)));
            }
            types.push(Query::and(conditions));
        }
        let sort = search.sort.iter().map(|s| Order { by: order_by(search, &s.code), descending: s.descending }).collect();
        Ok(Self { query: Query::or(types), sort })
    }
}

fn names_terms(query: &Query) -> bool {
    match query {
        Query::Term(_) | Query::TermRange { .. } | Query::TermContains { .. } => true,
        Query::Or(parts) => parts.iter().all(names_terms),
        Query::And(parts) => parts.iter().any(names_terms),
        Query::Verify(part, _) => names_terms(part),
        Query::All | Query::None | Query::Column { .. } | Query::Not(_) => false,
    }
}

fn condition(param: &'static Param, filter: &Filter, origin: &Origin<'_>, now: DateTime<Utc>) -> Result<Query, Failure> {
    let present = || Query::term(&param.key('!', ""));
    if filter.modifier == Modifier::Missing {
        let missing = filter.values.first().is_some_and(|v| v == "true");
        return Ok(if missing { Query::negate(present()) } else { present() });
    }
    let alternatives = filter.values.iter().map(|value| one(param, filter.modifier, value, origin, now)).collect::<Result<Vec<_>, _>>()?;
    let any = Query::or(alternatives);
    // `:not` includes resources without a value, <https://hl7.org/fhir/R4/search.html#modifiers>.
    Ok(if filter.modifier == Modifier::Not { Query::negate(any) } else { any })
}

fn one(param: &'static Param, modifier: Modifier, value: &str, origin: &Origin<'_>, now: DateTime<Utc>) -> Result<Query, Failure> {
    match (param.def.kind, modifier) {
        (ParamType::Token, _) => Ok(param::token::query(param, value)),
        (ParamType::String, Modifier::Exact) => Ok(param::string::exact(param, value)),
        (ParamType::String, Modifier::Contains) => Ok(param::string::contains(param, value)),
        (ParamType::String, _) => Ok(param::string::query(param, value)),
        (ParamType::Reference, Modifier::Type(type_name)) => param::reference::query_of_type(param, value, type_name, origin),
        (ParamType::Reference, _) => Ok(param::reference::query(param, value, origin)),
        (ParamType::Uri, _) => Ok(param::uri::query(param, value)),
        (ParamType::Date, _) => param::date::query(param, value, origin.version, now),
        (ParamType::Number, _) => param::number::query(param, value, origin.version),
        (ParamType::Composite | ParamType::Quantity | ParamType::Special, _) => Err(Failure::new(
            Kind::NotSupported,
            format!("search parameter '{}' of type {} is not supported by this server", param.def.code, param.def.kind.code()),
        )),
    }
}

fn order_by(search: &Search, code: &str) -> OrderBy {
    if code == "_lastUpdated" {
        return OrderBy::LastUpdated;
    }
    let params: Vec<&Param> = search.types.iter().filter_map(|t| TypeParams::of(search.version, t).get(code)).collect();
    let class = match params.first().map(|p| p.def.kind) {
        Some(ParamType::Date) => return OrderBy::Columns(params.iter().map(|p| p.column('<').into()).collect()),
        Some(ParamType::String) => 's',
        Some(ParamType::Number) => 'a',
        Some(ParamType::Reference) => 'r',
        Some(ParamType::Uri) => 'l',
        Some(ParamType::Token | ParamType::Composite | ParamType::Quantity | ParamType::Special) | None => 'c',
    };
    OrderBy::Terms(params.iter().map(|p| p.key(class, "").into()).collect())
}

/// An exact check: `test` on the values that `param` has in a stored resource.
pub fn on_values<F>(param: &'static Param, version: FhirVersion, test: F) -> impl Fn(&[u8]) -> bool + Send + Sync + 'static
where
    F: Fn(&[Node<'_>]) -> bool + Send + Sync + 'static,
{
    move |bytes| {
        let Ok(resource) = serde_json::from_slice::<Value>(bytes) else { return false };
        let Some(name) = resource.get("resourceType").and_then(Value::as_str) else { return false };
        let Some(type_name) = crate::fhir::Definitions::of(version).find_resource_type(name) else { return false };
        let mut found = Vec::new();
        param.path.evaluate(&resource, type_name, &mut found);
        test(&found)
    }
}
