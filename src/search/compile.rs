//! From a typed search to the tree and the order that the index executes.

use std::cell::RefCell;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::condition::Condition;
use super::extract::{self, Origin, type_term};
use super::filter::Relation;
use super::param::{self, Env};
use super::params::Param;
use super::parse::{Contained, Modifier, Search};
use super::{membership, terminology};
use crate::fhir::Failure;
use crate::fhir::definitions::ParamType;
use crate::query::{Query, Text, TextField};

/// What a search asks of the simulator while it is compiled: chains, lists and value sets lead to other resources.
pub trait Lookup {
    /// `Type/id` of the resources that match.
    ///
    /// # Errors
    /// The index cannot be read, or the search is too costly.
    fn uids(&self, query: &Query) -> Result<Vec<Box<str>>, Failure>;

    /// What follows `prefix` in the terms of the resources that match, each once.
    ///
    /// # Errors
    /// As [`Lookup::uids`].
    fn terms(&self, query: &Query, prefix: &str) -> Result<Vec<Box<str>>, Failure>;

    /// Whether some resource matches.
    ///
    /// # Errors
    /// As [`Lookup::uids`].
    fn is_there(&self, query: &Query) -> Result<bool, Failure>;

    /// The resources that match, at most so many.
    ///
    /// # Errors
    /// As [`Lookup::uids`]; a resource cannot be read.
    fn resources(&self, query: &Query, most: usize) -> Result<Vec<Value>, Failure>;
}

/// What the index is asked.
#[derive(Debug)]
pub struct Compiled {
    /// Which resources.
    pub query: Query,
    /// In which order.
    pub sort: Vec<Order>,
    /// What makes the score.
    pub text: Option<(TextField, Arc<Text>)>,
    /// What decides for resources inside the ones that `query` finds, where those are wanted.
    pub contained: Option<Query>,
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
    /// How well it matches the text searched for.
    Score,
    /// Columns of numbers, one a type.
    Columns(Vec<Box<str>>),
    /// Terms with one of these prefixes.
    Terms(Vec<Box<str>>),
}

impl Compiled {
    /// Compiles `search`; `now` is what approximate dates are measured from.
    ///
    /// # Errors
    /// A value that its parameter's type cannot read; a chain that is too costly.
    pub fn new(search: &Search, origin: Origin<'_>, now: DateTime<Utc>, lookup: &dyn Lookup) -> Result<Self, Failure> {
        let compiler = Compiler::new(Env { origin, now, lookup });
        let plain = Compiler::of_types(&search.types, &|t| search.conditions.iter().map(|(_, c)| compiler.condition(c, t)).collect())?;
        let text = search.conditions.iter().find_map(|(_, c)| if let Condition::Text(field, text) = c { Some((*field, text.clone())) } else { None });
        let mut sort: Vec<Order> = search.sort.iter().map(|s| Order { by: order_by(search, &s.code, &compiler.env), descending: s.descending }).collect();
        if sort.is_empty() && text.is_some() {
            sort.push(Order { by: OrderBy::Score, descending: true });
        }
        if search.contained == Contained::False {
            return Ok(Self { query: plain, sort, text, contained: None });
        }
        let inside = inside(&search.types, plain.clone(), &compiler.env);
        let query = if search.contained == Contained::Both { Query::or(vec![plain.clone(), inside]) } else { inside };
        Ok(Self { query, sort, text, contained: Some(plain) })
    }
}

/// Texts before or behind another, character by character as they are compared: without case and accents.
fn ordered(param: &Param, relation: Relation, value: &str) -> Query {
    let all = param.key('s', "");
    let this = param.key('s', &crate::query::text::normalise(value));
    // What comes next is the text with one more character, the least there is.
    let next = format!("{this}\0");
    let (from, to) = match relation {
        Relation::Lt => (all.into(), Some(this.into())),
        Relation::Le => (all.into(), Some(next.into())),
        Relation::Ge => (this.into(), Query::end_of(&all)),
        _ => (next.into(), Query::end_of(&all)),
    };
    Query::TermRange { from, to }
}

/// Resources that contain one that `query` wants.
fn inside(types: &[&'static str], query: Query, env: &Env<'_>) -> Query {
    let narrowing = Query::or(types.iter().map(|t| Query::term(&extract::contains_term(t))).collect());
    let origin = env.origin.owned();
    let check = env.on_resource(move |resource, _| contained_matches(resource, &query, &origin.borrow()).next().is_some());
    Query::Verify(Box::new(narrowing), check)
}

/// The resources inside `resource` that `query` wants.
pub fn contained_matches<'v>(resource: &'v Value, query: &'v Query, origin: &'v Origin<'v>) -> impl Iterator<Item = &'v Value> + 'v {
    let all = resource.get("contained").and_then(Value::as_array).into_iter().flatten();
    all.filter(move |inner| wants(query, inner, resource.get("contained"), origin))
}

/// Whether `query` wants a resource that is inside another, and may refer to the others there: what is contained is resolved in
/// its container, <https://hl7.org/fhir/R4/references.html#contained>.
fn wants(query: &Query, inner: &Value, others: Option<&Value>, origin: &Origin<'_>) -> bool {
    let type_name = inner.get("resourceType").and_then(Value::as_str).and_then(|name| origin.definitions().find_resource_type(name));
    type_name.is_some_and(|type_name| {
        let keys = extract::extract_contained(inner, type_name, origin);
        query.matches(&keys, &|| {
            let mut alone = inner.clone();
            if let (Some(others), Some(members)) = (others, alone.as_object_mut()) {
                members.insert("contained".to_owned(), others.clone());
            }
            serde_json::to_vec(&alone).ok().map(Arc::from)
        })
    })
}

/// Compiles the conditions of one search.
pub struct Compiler<'a> {
    env: Env<'a>,
    /// What the chains led to, by the place of their condition: it is the same for all the types it is compiled for.
    reached: RefCell<FxHashMap<usize, Arc<Reached>>>,
}

/// Where a chain led.
struct Reached {
    /// What is asked of the resources there.
    inner: Query,
    /// `Type/id`.
    uids: Vec<Box<str>>,
    /// Canonical URLs with and without their version.
    urls: Vec<Box<str>>,
}

impl<'a> Compiler<'a> {
    /// For one search.
    #[must_use]
    pub fn new(env: Env<'a>) -> Self {
        Self { env, reached: RefCell::default() }
    }

    /// Resources of these types that fulfil what `conditions` makes for each.
    fn of_types(types: &[&'static str], conditions: &dyn Fn(&'static str) -> Result<Vec<Query>, Failure>) -> Result<Query, Failure> {
        let mut all = Vec::with_capacity(types.len());
        for type_name in types {
            let mut conditions = conditions(type_name)?;
            // Keys begin with their type: a condition that names some terms needs no other word of it.
            if !conditions.iter().any(names_terms) {
                conditions.push(Query::term(&type_term(type_name)));
            }
            all.push(Query::and(conditions));
        }
        Ok(Query::or(all))
    }

    /// The tree of a condition on resources of `type_name`.
    ///
    /// # Errors
    /// As [`Compiled::new`].
    pub fn condition(&self, condition: &Condition, type_name: &'static str) -> Result<Query, Failure> {
        let params = self.env.origin.params.of(type_name);
        let each = |parts: &[Condition]| parts.iter().map(|c| self.condition(c, type_name)).collect::<Result<Vec<_>, _>>();
        match condition {
            Condition::Param { code, modifier, values } => match params.get(code) {
                Some(param) => self.values(param, *modifier, values),
                None => Ok(Query::None),
            },
            Condition::Relation { code, relation, value } => match params.get(code) {
                Some(param) if relation.applies_to(param.kind) => self.relation(param, *relation, value),
                _ => Ok(Query::None),
            },
            Condition::Chain { code, targets, then } => match params.get(code).filter(|p| p.kind == ParamType::Reference) {
                Some(param) => self.chain(param, condition, targets, then),
                None => Ok(Query::None),
            },
            Condition::Has { source, code, then } => self.has(condition, source, code, then, type_name),
            Condition::List(lists) => membership::lists(lists, type_name, self),
            Condition::In(holders) => membership::holders(holders, type_name, &self.env),
            Condition::Text(field, text) => Ok(Query::and(vec![Query::term(&type_term(type_name)), Query::Text(*field, text.clone())])),
            Condition::Compartment(of, id) => self.compartment(of, id, type_name),
            Condition::Compartments(of) => Ok(self.compartments(of, type_name)),
            Condition::CareDate { start, end } => self.care_date(start.as_deref(), end.as_deref(), type_name),
            Condition::All(parts) => each(parts).map(Query::and),
            Condition::Any(parts) => each(parts).map(Query::or),
            // What is not the case must not hold for other types either.
            Condition::Not(part) => Ok(Query::and(vec![Query::term(&type_term(type_name)), Query::negate(self.condition(part, type_name)?)])),
        }
    }

    fn values(&self, param: &Arc<Param>, modifier: Modifier, values: &[String]) -> Result<Query, Failure> {
        let applies = match modifier {
            Modifier::None => true,
            Modifier::Type(type_name) => param.kind == ParamType::Reference && param.can_target(type_name),
            _ => Modifier::of(param, self.env.origin.version).iter().any(|(_, known)| *known == modifier),
        };
        if !applies {
            return Ok(Query::None);
        }
        let of = |value: &String| match modifier {
            Modifier::None | Modifier::Not => param::value_query(param, value, &self.env),
            _ => param::modified_query(param, modifier, value, &self.env),
        };
        let any = || values.iter().map(of).collect::<Result<Vec<_>, _>>().map(Query::or);
        match modifier {
            Modifier::Missing => {
                let present = Query::term(&param.key('!', ""));
                Ok(if values.first().is_some_and(|v| v == "true") { Query::negate(present) } else { present })
            }
            // Resources without a value are included, <https://hl7.org/fhir/R4/search.html#modifiers>.
            Modifier::Not | Modifier::NotIn => any().map(Query::negate),
            _ => any(),
        }
    }

    fn relation(&self, param: &Arc<Param>, relation: Relation, value: &str) -> Result<Query, Failure> {
        let escaped = escape(value);
        let text = || param::value_query(param, &escaped, &self.env);
        let modified = |modifier| param::modified_query(param, modifier, &escaped, &self.env);
        Ok(match relation {
            Relation::Eq if param.kind == ParamType::String => Query::term(&param.key('s', &crate::query::text::normalise(value))),
            // A token, a unit or a composite is written with its bars.
            Relation::Eq | Relation::Re => param::value_query(param, value, &self.env)?,
            Relation::Ne => self.unequal(param, value)?,
            Relation::Sw if param.kind == ParamType::String => text()?,
            Relation::Sw => Query::prefix(&param.key(class_of(param), value)),
            Relation::Co | Relation::Ew if param.kind == ParamType::String => param::string::part(param, &escaped, relation == Relation::Ew, &self.env)?,
            Relation::Co if param.kind == ParamType::Date => param::date::includes(param, value, &self.env)?,
            Relation::Co | Relation::Ew => {
                Query::TermContains { prefix: param.key(class_of(param), "").into(), part: value.into(), at_end: relation == Relation::Ew }
            }
            Relation::Gt | Relation::Lt | Relation::Ge | Relation::Le if param.kind == ParamType::String => ordered(param, relation, value),
            Relation::Gt | Relation::Lt | Relation::Ge | Relation::Le | Relation::Ap | Relation::Sa | Relation::Eb => {
                param::value_query(param, &format!("{}{value}", relation.code()), &self.env)?
            }
            Relation::Pr if value == "true" => Query::term(&param.key('!', "")),
            Relation::Pr => Query::negate(Query::term(&param.key('!', ""))),
            Relation::Po => param::date::overlaps(param, value, &self.env)?,
            Relation::Ss => param::modified_query(param, Modifier::Below, value, &self.env)?,
            Relation::Sb => param::modified_query(param, Modifier::Above, value, &self.env)?,
            Relation::In => modified(Modifier::In)?,
            Relation::Ni => Query::negate(modified(Modifier::In)?),
        })
    }

    /// `ne`: one of the values is another, <https://hl7.org/fhir/R4/search_filter.html>; so both `eq` and `ne` may hold.
    fn unequal(&self, param: &Arc<Param>, value: &str) -> Result<Query, Failure> {
        let equal = || param::value_query(param, value, &self.env);
        let (origin, parameter) = (self.env.origin.owned(), param.clone());
        let check = match param.kind {
            ParamType::Date | ParamType::Number | ParamType::Quantity => return param::value_query(param, &format!("ne{value}"), &self.env),
            ParamType::Composite | ParamType::Special => return Ok(Query::negate(equal()?)),
            ParamType::String => {
                let (wanted, texts) = (crate::query::text::normalise(value), param.key('s', ""));
                self.env.on_values(param, move |found| extract::keys_of(&parameter, found, &origin.borrow()).terms_with(&texts).any(|text| text != wanted))
            }
            ParamType::Token => param::token::unequal(param, value, &self.env),
            ParamType::Reference | ParamType::Uri => {
                let equal = equal()?;
                self.env.on_values(param, move |found| {
                    let origin = origin.borrow();
                    found.iter().any(|node| !equal.matches_alone(&extract::keys_of(&parameter, std::slice::from_ref(node), &origin)))
                })
            }
        };
        Ok(Query::Verify(Box::new(Query::term(&param.key('!', ""))), check))
    }

    fn chain(&self, param: &Arc<Param>, condition: &Condition, targets: &[&'static str], then: &Condition) -> Result<Query, Failure> {
        let reached = self.once(condition, || {
            let inner = Self::of_types(targets, &|t| self.condition(then, t).map(|q| vec![q]))?;
            let urls = if param.is_canonical() { terminology::canonicals(&self.env.lookup.resources(&inner, MAX_CANONICALS)?) } else { Vec::new() };
            Ok(Reached { uids: self.env.lookup.uids(&inner)?, urls, inner })
        })?;
        let stored = Query::terms_of(&param.key('r', ""), reached.uids.clone());
        let canonical = Query::terms_of(&param.key('u', ""), reached.urls.clone());
        let mut any = vec![stored, canonical, self.contained_chain(param, &reached.inner)];
        if param.path.types.iter().any(|t| t.path.is_empty() && self.env.origin.definitions().is_a(t.base, "Resource")) {
            any.push(self.held_chain(param, &reached.inner));
        }
        Ok(Query::or(any))
    }

    /// A parameter whose value is a resource, the Composition of a document, leads into that.
    fn held_chain(&self, param: &Arc<Param>, inner: &Query) -> Query {
        let (origin, inner) = (self.env.origin.owned(), inner.clone());
        let check = self.env.on_values(param, move |found| {
            let origin = origin.borrow();
            found.iter().any(|node| wants(&inner, node.value, None, &origin))
        });
        Query::Verify(Box::new(Query::term(&param.key('!', ""))), check)
    }

    /// Chains lead into contained resources, too, <https://hl7.org/fhir/R4/search.html#contained>.
    fn contained_chain(&self, param: &Arc<Param>, inner: &Query) -> Query {
        let (origin, inner, parameter) = (self.env.origin.owned(), inner.clone(), param.clone());
        let check = self.env.on_resource(move |resource, type_name| {
            let names: Vec<String> = parameter.with_values(resource, type_name, |found| {
                found.iter().filter_map(param::reference::text_of).filter_map(|t| t.strip_prefix('#')).map(str::to_owned).collect()
            });
            let origin = origin.borrow();
            contained_matches(resource, &inner, &origin).any(|r| r.get("id").and_then(Value::as_str).is_some_and(|id| names.iter().any(|n| n == id)))
        });
        Query::Verify(Box::new(Query::term(&param.key('n', ""))), check)
    }

    fn has(&self, condition: &Condition, source: &'static str, code: &str, then: &Condition, type_name: &'static str) -> Result<Query, Failure> {
        let Some(param) = self.env.origin.params.of(source).get(code) else { return Ok(Query::None) };
        let reached = self.once(condition, || {
            let inner = Self::of_types(&[source], &|t| self.condition(then, t).map(|q| vec![q]))?;
            let urls = if param.is_canonical() { self.env.lookup.terms(&inner, &param.key('u', ""))? } else { Vec::new() };
            Ok(Reached { uids: self.env.lookup.terms(&inner, &param.key('r', ""))?, urls, inner })
        })?;
        let ids = reached.uids.iter().filter_map(|uid| uid.strip_prefix(type_name)?.strip_prefix('/')).map(Into::into).collect();
        let (versioned, bare): (Vec<&str>, Vec<&str>) = reached.urls.iter().map(|url| &**url).partition(|url| url.contains('|'));
        let mut any = vec![ids_of(type_name, ids), Query::terms_of(&format!("{type_name}/url\u{1f}l"), bare.into_iter().map(Into::into).collect())];
        // A canonical with a version means that version.
        any.extend(versioned.into_iter().filter_map(|url| url.split_once('|')).map(|(url, version)| {
            Query::and(vec![Query::term(&format!("{type_name}/url\u{1f}l{url}")), Query::term(&format!("{type_name}/version\u{1f}c{version}"))])
        }));
        Ok(Query::or(any))
    }

    fn once(&self, condition: &Condition, make: impl FnOnce() -> Result<Reached, Failure>) -> Result<Arc<Reached>, Failure> {
        let place = std::ptr::from_ref(condition) as usize;
        if let Some(found) = self.reached.borrow().get(&place) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        self.reached.borrow_mut().insert(place, made.clone());
        Ok(made)
    }

    fn compartment(&self, of: &'static str, id: &str, type_name: &'static str) -> Result<Query, Failure> {
        let Some(codes) = self.env.origin.definitions().compartment(of, type_name) else { return Ok(Query::None) };
        let params = self.env.origin.params.of(type_name);
        let mut any = Vec::new();
        for code in codes {
            if *code == "{def}" {
                any.push(ids_of(type_name, vec![id.into()]));
            } else if let Some(param) = params.get(code) {
                any.push(param::value_query(param, &format!("{of}/{id}"), &self.env)?);
            }
        }
        if of == type_name {
            any.push(ids_of(type_name, vec![id.into()]));
        }
        Ok(Query::or(any))
    }

    fn compartments(&self, of: &'static str, type_name: &'static str) -> Query {
        let params = self.env.origin.params.of(type_name);
        let codes = self.env.origin.definitions().compartment(of, type_name).unwrap_or_default();
        let belongs = codes.iter().filter_map(|code| params.get(code)).map(|param| Query::prefix(&param.key('r', &format!("{of}/"))));
        let itself = (of == type_name).then(|| Query::term(&type_term(type_name)));
        Query::or(belongs.chain(itself).collect())
    }

    /// The time of care is what the first of these parameters is about that the type has.
    fn care_date(&self, start: Option<&str>, end: Option<&str>, type_name: &'static str) -> Result<Query, Failure> {
        let params = self.env.origin.params.of(type_name);
        let Some(param) = CARE_DATES.iter().find_map(|code| params.get(code)).filter(|p| p.kind == ParamType::Date) else { return Ok(Query::All) };
        let side = |prefix: &str, date: Option<&str>| date.map(|date| param::value_query(param, &format!("{prefix}{date}"), &self.env)).transpose();
        let within = [side("ge", start)?, side("le", end)?].into_iter().flatten().collect();
        Ok(Query::or(vec![Query::negate(Query::term(&param.key('!', ""))), Query::and(within)]))
    }

    /// The environment.
    #[must_use]
    pub fn env(&self) -> &Env<'a> {
        &self.env
    }
}

/// The parameters that tell when care took place, the most telling first.
const CARE_DATES: [&str; 12] = [
    "date",
    "period",
    "onset-date",
    "effective-time",
    "effective",
    "whenhandedover",
    "authoredon",
    "authored",
    "occurrence",
    "issued",
    "recorded-date",
    "created",
];

/// Most resources whose canonical URLs a chain follows.
const MAX_CANONICALS: usize = 10_000;

/// The resources of a type with one of these ids.
#[must_use]
pub fn ids_of(type_name: &str, ids: Vec<Box<str>>) -> Query {
    Query::terms_of(&format!("{type_name}/_id\u{1f}c"), ids)
}

fn class_of(param: &Param) -> char {
    if param.kind == ParamType::Uri { 'l' } else { 'c' }
}

/// A value as a search would write it.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '$' | '|') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn names_terms(query: &Query) -> bool {
    match query {
        Query::Term(_) | Query::TermRange { .. } | Query::TermContains { .. } | Query::TermsOf { .. } => true,
        Query::Or(parts) => parts.iter().all(names_terms),
        Query::And(parts) => parts.iter().any(names_terms),
        Query::Verify(part, _) => names_terms(part),
        Query::All | Query::None | Query::Column { .. } | Query::Not(_) | Query::Text(..) => false,
    }
}

fn order_by(search: &Search, code: &str, env: &Env<'_>) -> OrderBy {
    match code {
        "_lastUpdated" => return OrderBy::LastUpdated,
        "_score" => return OrderBy::Score,
        _ => {}
    }
    let params: Vec<&Arc<Param>> = search.types.iter().filter_map(|t| env.origin.params.of(t).get(code)).collect();
    let prefixes = |class: char| OrderBy::Terms(params.iter().map(|p| p.key(class, "").into()).collect());
    match params.first().map(|p| p.kind) {
        Some(ParamType::Date) => OrderBy::Columns(params.iter().map(|p| p.column('<').into()).collect()),
        Some(ParamType::String) => prefixes('s'),
        // The number alone, whatever its unit; of a range, of what is compared, where it begins.
        Some(ParamType::Number | ParamType::Quantity) => {
            OrderBy::Terms(['e', 'a'].iter().flat_map(|class| params.iter().map(|p| p.key(*class, "\u{1e}").into())).collect())
        }
        Some(ParamType::Reference) => prefixes('r'),
        Some(ParamType::Uri) => prefixes('l'),
        Some(ParamType::Token | ParamType::Composite | ParamType::Special) | None => prefixes('c'),
    }
}
