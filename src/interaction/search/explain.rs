//! Why a resource matches a search, or does not: how each parameter was read, the values it was compared with, and the
//! decision.

#![expect(clippy::wildcard_enum_match_arm, reason = "what is not explained in words of its own is shown as it is")]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::fhir::definitions::ParamType;
use crate::fhir::instant;
use crate::fhir::{Failure, ResourceId, outcome};
use crate::index::Budget;
use crate::query::text::{without_markup, words};
use crate::query::{Keys, Query, Text, TextField};
use crate::search::compile::Compiler;
use crate::search::condition::Condition;
use crate::search::extract;
use crate::search::param::{self, Prefix};
use crate::search::params::Param;
use crate::search::parse::{Contained, Modifier};
use crate::search::path::Node;
use crate::search::path::place::Places;
use crate::search::{Lookup, Search};
use crate::sim::find::within;
use crate::sim::{Page, Snapshot, Stored};

/// A parameter's part in the decision on one resource.
#[derive(Debug)]
pub struct Explained {
    /// `name=joh`.
    pub parameter: String,
    /// How it was read.
    pub meaning: String,
    /// The values it was compared with: path, value, whether this value fulfils it.
    pub values: Vec<(String, Value, bool)>,
    /// The decision.
    pub matches: bool,
}

/// The OperationOutcome that explains a page.
///
/// # Errors
/// A resource cannot be read; more work than the budget allows.
pub fn of_page(search: &Search, page: &Page, snapshot: &Snapshot, now_ms: i64, budget: &Budget) -> Result<Value, Failure> {
    let mut messages = Vec::new();
    let lookup = snapshot.looking(budget);
    let compiler = Compiler::new(param_env(snapshot, now_ms, &lookup));
    for (shown, condition) in named_conditions(search) {
        let mut any = Vec::new();
        for type_name in &search.types {
            any.push(Query::and(vec![Query::term(&extract::type_term(type_name)), compiler.condition(condition, type_name)?]));
        }
        let (alone, _) = snapshot.matching(&Query::or(any), 0, budget)?;
        let meaning = search.types.first().map(|t| meaning(condition, t, snapshot)).unwrap_or_default();
        messages.push(format!("{shown}: {meaning}; by itself it matches {alone}"));
    }
    for hit in &page.hits {
        let id = super::id_of(&hit.stored)?;
        let Some((inside, _, explained)) = of_stored(search, &hit.stored, &id, snapshot, &compiler, budget)? else { continue };
        for explained in explained {
            messages.push(format!("{}/{id}{inside}: {}", hit.stored.type_name, explained.sentence()));
        }
    }
    Ok(outcome::informational("information", "informational", &messages))
}

/// Explains a search for one resource, which need not match.
///
/// # Errors
/// The resource is not here; a value that cannot be read.
pub fn of_resource(search: &Search, type_name: &'static str, id: &ResourceId, snapshot: &Snapshot, now_ms: i64) -> Result<Value, Failure> {
    let budget = snapshot.budget();
    let lookup = snapshot.looking(&budget);
    let compiler = Compiler::new(param_env(snapshot, now_ms, &lookup));
    let stored = stored(type_name, id, snapshot)?;
    let none_inside = || (String::new(), "", Vec::new());
    let (inside, found_type, explained) = of_stored(search, &stored, id, snapshot, &compiler, &budget)?.unwrap_or_else(none_inside);
    let is_type = search.types.contains(&found_type);
    let parameters: Vec<Value> = explained.iter().map(Explained::to_json).collect();
    let types = match found_type {
        _ if is_type => String::new(),
        "" => format!("the search is for {} inside other resources, and none is in this one", search.types.join(", ")),
        _ => format!("the search is for {}, not {type_name}", search.types.join(", ")),
    };
    let ignored: Vec<&str> = search.ignored.iter().map(|f| f.diagnostics.as_str()).collect();
    Ok(json!({
        "resource": format!("{type_name}/{id}{inside}"),
        "matches": is_type && explained.iter().all(|e| e.matches),
        "reason": types,
        "parameters": parameters,
        "ignored": ignored,
    }))
}

/// Every value that a resource is found by.
///
/// # Errors
/// The resource is not here.
pub fn indexed(type_name: &'static str, id: &ResourceId, snapshot: &Snapshot) -> Result<Value, Failure> {
    let stored = stored(type_name, id, snapshot)?;
    let resource = parsed(&stored)?;
    let keys = keys_of(&stored, &resource, id, snapshot);
    let places = Places::of(&resource);
    let mut parameters = Vec::new();
    for param in &snapshot.params().of(type_name).list {
        let prefix = format!("{}\u{1f}", param.name);
        let own = |name: &str| name.strip_prefix(&*param.name).filter(|side| side.len() == 1).map(str::to_owned);
        let terms: Vec<String> = keys.terms_with(&prefix).filter(|t| !t.starts_with(['!', '#'])).map(readable).collect();
        let columns: Vec<Value> = keys.columns().filter_map(|(name, v)| Some(json!({"bound": bound(&own(name)?), "value": column(param, v)}))).collect();
        if terms.is_empty() && columns.is_empty() {
            continue;
        }
        let shown = |n: &Node<'_>| json!({"path": path_of(&places, n, type_name), "type": n.ty.base, "value": n.value});
        let values: Vec<Value> = param.with_values(&resource, type_name, |found| found.iter().map(shown).collect());
        parameters.push(json!({"name": param.code, "type": param.kind.code(), "values": values, "terms": terms, "bounds": columns}));
    }
    Ok(json!({"resource": format!("{type_name}/{id}"), "version": stored.version.id.to_string(), "parameters": parameters}))
}

fn stored(type_name: &'static str, id: &ResourceId, snapshot: &Snapshot) -> Result<Stored, Failure> {
    let found = snapshot.latest(type_name, id).filter(|v| !v.is_deletion());
    let version = found.ok_or_else(|| crate::interaction::not_found(type_name, id))?;
    Ok(Stored { type_name, version, body: snapshot.body(type_name, &version)? })
}

fn parsed(stored: &Stored) -> Result<Value, Failure> {
    serde_json::from_slice(&stored.body).map_err(|e| Failure::new(crate::fhir::Kind::Damaged, e.to_string()))
}

fn keys_of(stored: &Stored, resource: &Value, id: &ResourceId, snapshot: &Snapshot) -> Keys {
    extract::extract(resource, stored.type_name, id, stored.version.modified_ms, &snapshot.origin())
}

fn param_env<'a>(snapshot: &'a Snapshot, now_ms: i64, lookup: &'a dyn Lookup) -> param::Env<'a> {
    param::Env { origin: snapshot.origin(), now: chrono::DateTime::from_timestamp_millis(now_ms).unwrap_or_default(), lookup }
}

/// The conditions with the parameters as they came.
fn named_conditions(search: &Search) -> impl Iterator<Item = (String, &Condition)> {
    search.conditions.iter().map(|(name, condition)| {
        let value = search.applied.iter().find(|(n, v)| n == name && (!is_repeated(search, name) || says(condition, v))).map(|(_, v)| v.as_str());
        let shown = if name.is_empty() { "compartment".to_owned() } else { format!("{name}={}", value.unwrap_or_default()) };
        (shown, condition)
    })
}

fn is_repeated(search: &Search, name: &str) -> bool {
    search.applied.iter().filter(|(n, _)| n == name).count() > 1
}

fn says(condition: &Condition, value: &str) -> bool {
    match condition {
        Condition::Param { values, .. } => values.join(",") == value,
        Condition::Chain { then, .. } | Condition::Has { then, .. } => says(then, value),
        _ => true,
    }
}

/// What is explained of a stored resource: it, or a resource inside it, where those are searched.
struct Subject<'v> {
    /// Nothing, or `#med`.
    inside: String,
    resource: &'v Value,
    type_name: &'static str,
    keys: Keys,
    body: Arc<[u8]>,
}

/// What the search may find of a stored resource.
fn subjects<'v>(search: &Search, stored: &Stored, resource: &'v Value, id: &ResourceId, snapshot: &Snapshot) -> Vec<Subject<'v>> {
    let mut found = Vec::new();
    if search.contained != Contained::True {
        let keys = keys_of(stored, resource, id, snapshot);
        found.push(Subject { inside: String::new(), resource, type_name: stored.type_name, keys, body: stored.body.clone() });
    }
    let all = resource.get("contained").and_then(Value::as_array).into_iter().flatten().filter(|_| search.contained != Contained::False);
    for inner in all {
        let type_name = inner.get("resourceType").and_then(Value::as_str).and_then(|name| snapshot.definitions().find_resource_type(name));
        let Some(type_name) = type_name.filter(|t| search.types.contains(t)) else { continue };
        let inside = format!("#{}", inner.get("id").and_then(Value::as_str).unwrap_or_default());
        let keys = extract::extract_contained(inner, type_name, &snapshot.origin());
        found.push(Subject { inside, resource: inner, type_name, keys, body: inner.to_string().into_bytes().into() });
    }
    found
}

/// What is explained: `#med` of a resource inside, its type, and condition by condition.
type OfSubject = (String, &'static str, Vec<Explained>);

/// How each condition is decided for a stored resource, or for the resource inside it that is found, and which that is.
fn of_stored(
    search: &Search,
    stored: &Stored,
    id: &ResourceId,
    snapshot: &Snapshot,
    compiler: &Compiler<'_>,
    budget: &Budget,
) -> Result<Option<OfSubject>, Failure> {
    let resource = parsed(stored)?;
    let mut shown: Option<OfSubject> = None;
    for subject in subjects(search, stored, &resource, id, snapshot) {
        let mut all = Vec::new();
        for (parameter, condition) in named_conditions(search) {
            // Each condition goes through the whole resource.
            budget.spend_check(&stored.body);
            within(budget, ())?;
            let query = compiler.condition(condition, subject.type_name)?;
            let matches = query.matches(&subject.keys, &|| Some(subject.body.clone()));
            let values = values_of(condition, subject.resource, subject.type_name, snapshot, compiler)?;
            all.push(Explained { parameter, meaning: meaning(condition, subject.type_name, snapshot), values, matches });
        }
        let found = all.iter().all(|e| e.matches);
        if found || shown.is_none() {
            shown = Some((subject.inside, subject.type_name, all));
        }
        if found {
            break;
        }
    }
    Ok(shown)
}

/// The values that a condition is about, each with whether it alone would do.
fn values_of(
    condition: &Condition,
    resource: &Value,
    type_name: &'static str,
    snapshot: &Snapshot,
    compiler: &Compiler<'_>,
) -> Result<Vec<(String, Value, bool)>, Failure> {
    let instead = |code: &String, modifier, values: &Vec<String>| Some(Condition::Param { code: code.clone(), modifier, values: values.clone() });
    let (code, other) = match condition {
        // What is negated, or asked to be missing, is shown as it is.
        Condition::Param { code, modifier: Modifier::Not | Modifier::Missing, values } => (code, instead(code, Modifier::None, values)),
        Condition::Param { code, modifier: Modifier::NotIn, values } => (code, instead(code, Modifier::In, values)),
        Condition::Param { code, .. } | Condition::Relation { code, .. } | Condition::Chain { code, .. } => (code, None),
        Condition::All(parts) | Condition::Any(parts) => {
            let all = parts.iter().map(|p| values_of(p, resource, type_name, snapshot, compiler)).collect::<Result<Vec<_>, _>>()?;
            return Ok(all.concat());
        }
        Condition::Not(part) => return values_of(part, resource, type_name, snapshot, compiler),
        Condition::Has { source, code, then } => return referrers(source, code, then, resource, type_name, snapshot, compiler),
        Condition::Text(field, text) => return Ok(texts(*field, text, resource, type_name)),
        Condition::List(_) | Condition::In(_) | Condition::Compartment(..) | Condition::Compartments(_) | Condition::CareDate { .. } => return Ok(Vec::new()),
    };
    let Some(param) = snapshot.params().of(type_name).get(code) else { return Ok(Vec::new()) };
    let missing = matches!(condition, Condition::Param { modifier: Modifier::Missing, .. });
    let query = match other.as_ref().unwrap_or(condition) {
        _ if missing => Query::All,
        Condition::Param { values, .. } if param.kind == ParamType::Composite => {
            Query::or(values.iter().map(|v| param::composite::element(param, v, compiler.env())).collect::<Result<_, _>>()?)
        }
        other => compiler.condition(other, type_name)?,
    };
    let origin = snapshot.origin();
    let elements = if param.kind == ParamType::Composite { extract::elements(param, resource, type_name, &origin) } else { Vec::new() };
    let holds = |at: usize, node: &Node<'_>| match elements.get(at) {
        Some(keys) => query.matches_alone(keys),
        None => query.matches_alone(&extract::keys_of(param, std::slice::from_ref(node), &origin)),
    };
    let places = Places::of(resource);
    let one = |(at, node): (usize, &Node<'_>)| (path_of(&places, node, type_name), node.value.clone(), holds(at, node));
    Ok(param.with_values(resource, type_name, |found| found.iter().enumerate().map(one).collect()))
}

/// Most resources or strings that are shown of those that a condition looks at.
const MAX_SHOWN: usize = 50;

/// The resources that refer here by the parameter of a `_has`, each with whether it fulfils the rest.
fn referrers(
    source: &'static str,
    code: &str,
    then: &Condition,
    resource: &Value,
    type_name: &'static str,
    snapshot: &Snapshot,
    compiler: &Compiler<'_>,
) -> Result<Vec<(String, Value, bool)>, Failure> {
    let Some(param) = snapshot.params().of(source).get(code) else { return Ok(Vec::new()) };
    let here = format!("{type_name}/{}", resource.get("id").and_then(Value::as_str).unwrap_or_default());
    let (_, found) = snapshot.matching(&param::value_query(param, &here, compiler.env())?, MAX_SHOWN, &snapshot.budget())?;
    let inner = compiler.condition(then, source)?;
    found
        .iter()
        .map(|stored| {
            let (id, value) = (super::id_of(stored)?, parsed(stored)?);
            let holds = inner.matches(&keys_of(stored, &value, &id, snapshot), &|| Some(stored.body.clone()));
            Ok((format!("{source}/{id}"), here.clone().into(), holds))
        })
        .collect()
}

/// The strings that a condition on words looks at, each with whether it alone would do.
fn texts(field: TextField, text: &Text, resource: &Value, type_name: &str) -> Vec<(String, Value, bool)> {
    let div = format!("{type_name}.text.div");
    let mut found = Vec::new();
    strings(resource, &mut type_name.to_owned(), &mut |path, value| {
        let words = if path == div { words(&without_markup(value)) } else { words(value) };
        let counts = match field {
            TextField::Narrative => path == div,
            TextField::Content => !path.ends_with(".resourceType"),
        };
        if counts {
            found.push((path.to_owned(), Value::from(value), text.matches(&[words])));
        }
    });
    // Those that decide come first: of a long resource not all are shown.
    found.sort_by_key(|(_, _, holds)| !holds);
    found.truncate(MAX_SHOWN);
    found
}

fn strings(here: &Value, path: &mut String, found: &mut dyn FnMut(&str, &str)) {
    let length = path.len();
    let mut inner = |step: String, value: &Value| {
        path.push_str(&step);
        strings(value, path, found);
        path.truncate(length);
    };
    match here {
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| inner(format!("[{n}]"), item)),
        Value::Object(members) => members.iter().for_each(|(key, value)| inner(format!(".{key}"), value)),
        Value::String(text) => found(path, text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Explained {
    fn sentence(&self) -> String {
        let verdict = if self.matches { "matches" } else { "does not match" };
        let values: Vec<String> =
            self.values.iter().map(|(path, value, holds)| format!("{path} = {value}{}", if *holds { " (yes)" } else { " (no)" })).collect();
        let values = if values.is_empty() { String::new() } else { format!(", compared with {}", values.join(", ")) };
        format!("{} {verdict}{values}", self.parameter)
    }

    fn to_json(&self) -> Value {
        let values: Vec<Value> = self.values.iter().map(|(path, value, matches)| json!({"path": path, "value": value, "matches": matches})).collect();
        json!({"parameter": self.parameter, "meaning": self.meaning, "values": values, "matches": self.matches})
    }
}

/// A condition in words.
fn meaning(condition: &Condition, type_name: &'static str, snapshot: &Snapshot) -> String {
    let param = |code: &str| snapshot.params().of(type_name).get(code).cloned();
    match condition {
        Condition::Param { code, modifier, values } => match param(code) {
            Some(param) => {
                let each: Vec<String> = values.iter().map(|v| value_meaning(&param, *modifier, v)).collect();
                format!("{} parameter, {}", param.kind.code(), each.join(" or "))
            }
            None => format!("{type_name} has no parameter '{code}'"),
        },
        Condition::Relation { code, relation, value } => format!("'{code}' {} '{value}'", relation.code()),
        Condition::Chain { code, targets, then } => {
            let inner = targets.first().map(|t| meaning(then, t, snapshot)).unwrap_or_default();
            format!("'{code}' refers to a {} for which holds: {inner}", targets.join(" or "))
        }
        Condition::Has { source, code, then } => format!("a {source} refers to it by '{code}' for which holds: {}", meaning(then, source, snapshot)),
        Condition::List(lists) => format!("is on the list {}", lists.join(" or ")),
        Condition::In(holders) => format!("is a member of {}", holders.join(" or ")),
        Condition::Text(field, text) => format!("the words of its {field:?} fulfil {text:?}").to_lowercase(),
        Condition::Compartment(of, id) => format!("belongs to the compartment of {of}/{id}"),
        Condition::Compartments(of) => format!("belongs to the compartment of a {of}"),
        Condition::CareDate { start, end } => format!("tells of care from {start:?} to {end:?}, or of no time"),
        Condition::All(parts) => parts.iter().map(|p| meaning(p, type_name, snapshot)).collect::<Vec<_>>().join(" and "),
        Condition::Any(parts) => parts.iter().map(|p| meaning(p, type_name, snapshot)).collect::<Vec<_>>().join(" or "),
        Condition::Not(part) => format!("not: {}", meaning(part, type_name, snapshot)),
    }
}

fn value_meaning(param: &Param, modifier: Modifier, value: &str) -> String {
    let plain = param::unescape(value);
    match (modifier, param.kind) {
        (Modifier::Missing, _) => format!("has {} value", if value == "true" { "no" } else { "a" }),
        (Modifier::Exact, _) => format!("is exactly '{plain}', case and accents counted"),
        (Modifier::Contains, _) => format!("contains '{plain}'"),
        (Modifier::Text, ParamType::Token | ParamType::Reference) => format!("has a text for people that begins with '{plain}'"),
        (Modifier::Text | Modifier::TextAdvanced, _) => format!("has words that fulfil '{plain}'"),
        (Modifier::CodeText, _) => format!("has a code that begins with '{plain}'"),
        (Modifier::Not, _) => format!("has no code '{plain}', or none at all"),
        (Modifier::Above, _) => format!("is '{plain}' or above it"),
        (Modifier::Below, _) => format!("is '{plain}' or below it"),
        (Modifier::In, _) => format!("is in the value set '{plain}'"),
        (Modifier::NotIn, _) => format!("is not in the value set '{plain}'"),
        (Modifier::OfType, _) => format!("is an identifier of this type and value: '{plain}'"),
        (Modifier::Identifier, _) => format!("refers by the identifier '{plain}'"),
        (Modifier::Type(name), _) => format!("refers to {name}/{plain}"),
        (Modifier::None, ParamType::String) => format!("begins with '{}', case and accents aside", crate::query::text::normalise(&plain)),
        (Modifier::None, ParamType::Date) => date_meaning(value),
        (Modifier::None, ParamType::Number | ParamType::Quantity) => number_meaning(value),
        (Modifier::None, _) => format!("is '{plain}'"),
    }
}

fn date_meaning(value: &str) -> String {
    let (prefix, text) = Prefix::split(value);
    let shown = |micros: i64| crate::clock::instant(micros / 1_000);
    match instant::parse(&text.replace(' ', "+")) {
        Some(i) => format!("{} the interval from {} to before {}", relation(prefix), shown(i.low), shown(i.high)),
        None => format!("'{value}'"),
    }
}

fn number_meaning(value: &str) -> String {
    let (prefix, text) = Prefix::split(value);
    let (number, unit) = text.split_once('|').map_or((text, ""), |(n, u)| (n, u));
    let Some(parsed) = crate::fhir::decimal::parse(number) else { return format!("'{value}'") };
    let (low, high) = crate::fhir::decimal::implicit_range(number, &parsed);
    let unit = if unit.is_empty() { "in any unit".to_owned() } else { format!("in units comparable to '{unit}'") };
    match prefix {
        Prefix::Eq | Prefix::Ne | Prefix::Ap => format!("{} the interval from {} to before {} {unit}", relation(prefix), low.normalized(), high.normalized()),
        _ => format!("{} {number} {unit}", relation(prefix)),
    }
}

fn relation(prefix: Prefix) -> &'static str {
    match prefix {
        Prefix::Eq => "lies within",
        Prefix::Ne => "does not lie within",
        Prefix::Gt => "is in part beyond",
        Prefix::Lt => "is in part before",
        Prefix::Ge => "is within or in part beyond",
        Prefix::Le => "is within or in part before",
        Prefix::Sa => "begins after",
        Prefix::Eb => "ends before",
        Prefix::Ap => "is about",
    }
}

/// Where in the resource a value is.
fn path_of(places: &Places, node: &Node<'_>, type_name: &str) -> String {
    places.find(node.value).map(|place| format!("{type_name}{place}")).unwrap_or_default()
}

/// A term without the bytes that part it.
fn readable(term: &str) -> String {
    let (class, rest) = term.split_at(term.chars().next().map_or(0, char::len_utf8));
    format!("{class} {}", rest.replace('\u{1e}', " "))
}

fn bound(side: &str) -> &'static str {
    match side {
        "<" => "from",
        ">" => "before",
        _ => "latitude",
    }
}

fn column(param: &Param, value: i64) -> Value {
    match param.kind {
        ParamType::Date if value == instant::BEGINNING || value == instant::END => "open".into(),
        ParamType::Date => crate::clock::instant(value / 1_000).into(),
        _ => value.into(),
    }
}
