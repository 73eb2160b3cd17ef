//! History of a resource, a type and the whole simulator, <https://hl7.org/fhir/R4/http.html#history>, newest first unless
//! asked for otherwise.

use serde_json::{Value, json};

use super::vread::refuse_without_versions;
use super::{Done, Env, Reply, Subject, not_found, status};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::instant::Interval;
use crate::fhir::raw::quote;
use crate::fhir::reference::Reference;
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, FhirVersion, Kind, ResourceId, instant};
use crate::index::Span;
use crate::search::param::Prefix;
use crate::search::parse::{DEFAULT_COUNT, MAX_COUNT};
use crate::search::{Cursor, membership};
use crate::sim::Snapshot;
use crate::version::{Change, Version};

/// Most versions that are looked through for those that were current at a time, or are on a list.
const MAX_LOOKED_AT: usize = 100_000;

/// A history as it was asked for.
#[derive(Debug)]
pub struct Request {
    /// Of what.
    pub of: Of,
    /// The parameters of the URL.
    pub parameters: Vec<(String, String)>,
}

/// Whose history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// Of everything.
    System,
    /// Of a type.
    Type(&'static str),
    /// Of a resource.
    Instance(&'static str, ResourceId),
}

/// A version and whose it is.
type Past = (&'static str, ResourceId, Version);

/// What the parameters ask for.
struct Wanted<'a> {
    count: usize,
    since: EventId,
    at: Option<Interval>,
    list: Option<&'a str>,
    ascending: bool,
    subset: Subset,
    cursor: Option<Cursor>,
}

/// Versions, deletions too.
///
/// # Errors
/// The resource never was; a parameter that cannot be read; the simulator shows no versions.
pub fn perform(request: &Request, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    refuse_without_versions(snapshot)?;
    let wanted = parse(request, snapshot, env)?;
    // Within a Bundle, that is the event it becomes.
    let cursor = wanted.cursor.clone().unwrap_or(Cursor { as_of: env.stamp.event, offset: 0, after: None });
    let (total, page) = page(&request.of, &wanted, &cursor, snapshot, env)?;
    let links = links(request, &wanted, &cursor, total, env);
    let entries = page.iter().map(|past| entry(past, &wanted.subset, snapshot, env)).collect::<Result<Vec<_>, _>>()?;
    let head = json!({"resourceType": "Bundle", "id": ResourceId::random().as_str(), "meta": {"lastUpdated": crate::clock::instant(env.now_ms)},
        "type": "history", "total": total, "link": links});
    let mut text = head.to_string();
    if !entries.is_empty() {
        text.pop();
        text.push_str(&format!(",\"entry\":[{}]}}", entries.join(",")));
    }
    Ok(Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) })
}

/// How many versions are wanted in all, and those of the page.
fn page(of: &Of, wanted: &Wanted<'_>, cursor: &Cursor, snapshot: &Snapshot, env: &Env<'_>) -> Result<(usize, Vec<Past>), Failure> {
    let type_name = match of {
        Of::System => None,
        Of::Type(type_name) | Of::Instance(type_name, _) => Some(*type_name),
    };
    let everything = Span { events: EventId::ZERO..=cursor.as_of, type_name, ascending: true };
    let mut versions: Vec<Past> = match (of, wanted.list) {
        (Of::Instance(type_name, id), _) => {
            let all = snapshot.versions(type_name, id);
            if all.is_empty() {
                return Err(not_found(type_name, id));
            }
            let listed = wanted.list.map(|list| on_list(list, snapshot, cursor.as_of, env)).transpose()?;
            let wanted = listed.is_none_or(|on| on.contains(&(*type_name, id.clone())));
            all.into_iter().rev().filter(|_| wanted).map(|v| (*type_name, id.clone(), v)).collect()
        }
        (_, Some(list)) => {
            let on = on_list(list, snapshot, cursor.as_of, env)?.into_iter().filter(|(t, _)| type_name.is_none_or(|name| name == *t));
            on.flat_map(|(t, id)| snapshot.versions(t, &id).into_iter().map(move |v| (t, id.clone(), v)).collect::<Vec<_>>()).collect()
        }
        (_, None) if wanted.at.is_some() => {
            let (total, all) = snapshot.past(&everything, 0, MAX_LOOKED_AT);
            if total > MAX_LOOKED_AT {
                let message = format!("_at: more than {MAX_LOOKED_AT} versions would have to be looked through; ask for a type or a resource");
                return Err(Failure::new(Kind::TooCostly, message));
            }
            all
        }
        // What the index can say by itself.
        (_, None) => {
            let span = Span { events: wanted.since..=cursor.as_of, ascending: wanted.ascending, ..everything };
            return Ok(snapshot.past(&span, cursor.offset, wanted.count));
        }
    };
    versions.retain(|(_, _, v)| v.was_there(cursor.as_of));
    versions.sort_by_key(|(_, _, v)| (v.made, v.event));
    if let Some(at) = wanted.at {
        versions = current_at(versions, at);
    }
    versions.retain(|(_, _, v)| v.modified_ms >= wanted.since.millis());
    if !wanted.ascending {
        versions.reverse();
    }
    let total = versions.len();
    Ok((total, versions.into_iter().skip(cursor.offset).take(wanted.count).collect()))
}

/// The versions, oldest first, that were current at some moment of an interval. Those that were deleted before it are not.
fn current_at(versions: Vec<Past>, at: Interval) -> Vec<Past> {
    let mut ended = std::collections::HashMap::new();
    let mut found = Vec::new();
    for (type_name, id, version) in versions.into_iter().rev() {
        let begins = version.modified_ms.saturating_mul(1_000);
        let ends = ended.insert((type_name, id.clone()), begins);
        let lasts = ends.is_none_or(|ends| ends > at.low);
        if begins < at.high && lasts && (begins >= at.low || !version.is_deletion()) {
            found.push((type_name, id, version));
        }
    }
    found.reverse();
    found
}

/// The resources that a List refers to, or that make a functional one, by the time of the first page.
fn on_list(list: &str, snapshot: &Snapshot, as_of: EventId, env: &Env<'_>) -> Result<Vec<(&'static str, ResourceId)>, Failure> {
    let is_past = as_of < snapshot.last_event();
    if list.starts_with('$') {
        let then = if is_past { Some(snapshot.as_of(as_of)?) } else { None };
        let snapshot = then.as_ref().unwrap_or(snapshot);
        let mut on = Vec::new();
        for type_name in membership::functional_types(list, snapshot.definitions())? {
            let (total, found) = super::search::matching(Some(type_name), &format!("_list={list}"), "_list", MAX_LOOKED_AT, snapshot, env)?;
            if total > MAX_LOOKED_AT {
                return Err(Failure::new(Kind::TooCostly, format!("_list: more than {MAX_LOOKED_AT} resources are on '{}'", clip(list))));
            }
            on.extend(found.iter().map(|stored| Ok((type_name, super::search::id_of(stored)?))).collect::<Result<Vec<_>, Failure>>()?);
        }
        return Ok(on);
    }
    let then = is_past.then(|| snapshot.looking_back(as_of));
    let snapshot = then.as_ref().unwrap_or(snapshot);
    let id: ResourceId = list.strip_prefix("List/").unwrap_or(list).parse()?;
    let version = snapshot.latest("List", &id).filter(|v| !v.is_deletion()).ok_or_else(|| not_found("List", &id))?;
    let body = snapshot.body("List", &version)?;
    let list: Value = serde_json::from_slice(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    let entries = list.get("entry").and_then(Value::as_array).into_iter().flatten();
    let mut on = Vec::new();
    for text in entries.filter_map(|e| e.get("item")?.get("reference")?.as_str()) {
        if let Reference::Local { type_name, id, .. } = Reference::parse(text, snapshot.definitions())
            && let (Some(type_name), Ok(id)) = (snapshot.definitions().find_resource_type(type_name), id.parse())
        {
            on.push((type_name, id));
        }
    }
    on.sort_unstable();
    on.dedup();
    Ok(on)
}

fn links(request: &Request, wanted: &Wanted<'_>, cursor: &Cursor, total: usize, env: &Env<'_>) -> Value {
    let path = match &request.of {
        Of::System => "_history".to_owned(),
        Of::Type(type_name) => format!("{type_name}/_history"),
        Of::Instance(type_name, id) => format!("{type_name}/{id}/_history"),
    };
    let url = |offset: usize| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in request.parameters.iter().filter(|(name, _)| !matches!(name.as_str(), "_count" | "_cursor")) {
            query.append_pair(name, value);
        }
        query.append_pair("_count", &wanted.count.to_string());
        query.append_pair("_cursor", &Cursor { offset, after: None, ..cursor.clone() }.to_string());
        format!("{}/{path}?{}", env.base, query.finish())
    };
    let mut links = vec![json!({"relation": "self", "url": url(cursor.offset)})];
    if wanted.count > 0 && cursor.offset > 0 {
        links.push(json!({"relation": "previous", "url": url(cursor.offset.saturating_sub(wanted.count))}));
    }
    if wanted.count > 0 && cursor.offset.saturating_add(wanted.count) < total {
        links.push(json!({"relation": "next", "url": url(cursor.offset + wanted.count)}));
    }
    Value::Array(links)
}

fn entry((type_name, id, version): &Past, subset: &Subset, snapshot: &Snapshot, env: &Env<'_>) -> Result<String, Failure> {
    let subject = Subject::of(type_name, id.clone(), version, snapshot);
    let url = if version.change == Change::Create { (*type_name).to_owned() } else { format!("{type_name}/{id}") };
    let (resource, code) = if version.is_deletion() {
        (String::new(), 204)
    } else {
        let body = snapshot.body(type_name, version)?;
        let text = std::str::from_utf8(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        let text = if subset.is_partial() { subset.of(text, type_name, snapshot.definitions()).into() } else { std::borrow::Cow::from(text) };
        (format!(",\"resource\":{text}"), if is_new(type_name, id, version, snapshot) { 201 } else { 200 })
    };
    let mut parts = vec![format!("\"fullUrl\":{}{resource}", quote(&format!("{}/{type_name}/{id}", env.base)))];
    parts.push(format!("\"request\":{{\"method\":\"{}\",\"url\":{}}}", method(version.change, snapshot.version()), quote(&url)));
    // STU3 has responses in answers to Bundles only. A deletion has no other place for its number and its time.
    if snapshot.version() != FhirVersion::Stu3 || version.is_deletion() {
        let etag = quote(&subject.etag().unwrap_or_default());
        parts.push(format!("\"response\":{{\"status\":{},\"etag\":{etag},\"lastModified\":\"{}\"}}", quote(&status::line(code)), version.modified()));
    }
    Ok(format!("{{{}}}", parts.join(",")))
}

/// The method that a history shows. STU3 has no code for PATCH, <https://hl7.org/fhir/STU3/valueset-http-verb.html>, and R5
/// forbids it here, <https://hl7.org/fhir/R5/bundle.html#invs>.
fn method(change: Change, version: FhirVersion) -> &'static str {
    match (change, version) {
        (Change::Patch, FhirVersion::Stu3 | FhirVersion::R5) => Change::Update.method(),
        (change, _) => change.method(),
    }
}

/// Whether a version was answered with 201: there was none before, or a deletion, <https://hl7.org/fhir/R4/http.html#update>.
fn is_new(type_name: &'static str, id: &ResourceId, version: &Version, snapshot: &Snapshot) -> bool {
    let before = || snapshot.versions(type_name, id).into_iter().find(|v| v.id < version.id);
    version.id.0 == 1 || before().is_some_and(|v| v.is_deletion())
}

fn parse<'a>(request: &'a Request, snapshot: &Snapshot, env: &Env<'_>) -> Result<Wanted<'a>, Failure> {
    let (parameters, definitions) = (&request.parameters, snapshot.definitions());
    refuse_twice(parameters)?;
    let types = match &request.of {
        Of::System => definitions.resource_types(),
        Of::Type(type_name) | Of::Instance(type_name, _) => std::slice::from_ref(type_name),
    };
    let subset = Subset::of_read(parameters, types, env.strict, definitions)?;
    let mut wanted = Wanted { count: DEFAULT_COUNT, since: EventId::ZERO, at: at(parameters, env)?, list: None, ascending: false, subset, cursor: None };
    for (name, value) in parameters {
        let bad = |expected: &str| Failure::new(Kind::BadValue, format!("{name} '{}' is not {expected}", clip(value)));
        let date = |expected: &str| instant::parse(&value.replace(' ', "+")).ok_or_else(|| bad(expected));
        match name.as_str() {
            "_count" => wanted.count = value.parse::<usize>().map_err(|_| bad("a number from 0 on"))?.min(MAX_COUNT),
            "_since" => wanted.since = EventId::first_of(date("an instant such as 2026-02-28T10:30:00Z")?.low.div_euclid(1_000)),
            "_list" => wanted.list = Some(value),
            "_sort" => {
                wanted.ascending = match value.as_str() {
                    "_lastUpdated" => true,
                    "-_lastUpdated" | "none" => false,
                    _ => return Err(bad("_lastUpdated, -_lastUpdated or none")),
                }
            }
            "_cursor" => wanted.cursor = Some(value.parse()?),
            "_at" | "_format" | "_pretty" | "_elements" | "_summary" => {}
            _ => {
                let known = "_count, _since, _at, _list, _sort, _elements, _summary";
                return Err(Failure::new(Kind::NotSupported, format!("history parameter '{}' is not supported; known: {known}", clip(name))));
            }
        }
    }
    Ok(wanted)
}

/// Refuses a parameter that is given twice, where one of them would be passed over.
fn refuse_twice(parameters: &[(String, String)]) -> Result<(), Failure> {
    let counted = parameters.iter().enumerate().filter(|(_, (name, _))| !matches!(name.as_str(), "_at" | "_format" | "_pretty"));
    for (at, (name, value)) in counted {
        if let Some((_, before)) = parameters[..at].iter().find(|(other, _)| other == name) {
            let message = format!("{} is given twice, as '{}' and as '{}'; a history takes one", clip(name), clip(before), clip(value));
            return Err(Failure::new(Kind::BadValue, message));
        }
    }
    Ok(())
}

/// The time that `_at` asks for; two of them bound it from both sides.
fn at(parameters: &[(String, String)], env: &Env<'_>) -> Result<Option<Interval>, Failure> {
    let mut given = Vec::new();
    for (_, value) in parameters.iter().filter(|(name, _)| name == "_at") {
        let bad = || Failure::new(Kind::BadValue, format!("_at '{}' is not a date or an instant such as 2026-02 or 2026-02-28T10:30:00Z", clip(value)));
        given.push((Prefix::split(value).0, moment(value, env).ok_or_else(bad)?));
    }
    match given[..] {
        [] => Ok(None),
        [(_, one)] => Ok(Some(one)),
        [(Prefix::Ge | Prefix::Gt | Prefix::Sa, from), (Prefix::Le | Prefix::Lt | Prefix::Eb, to)]
        | [(Prefix::Le | Prefix::Lt | Prefix::Eb, to), (Prefix::Ge | Prefix::Gt | Prefix::Sa, from)]
            if from.low < to.high =>
        {
            Ok(Some(Interval { low: from.low, high: to.high }))
        }
        _ => {
            let message =
                format!("_at is given {} times; it may be one time, or a beginning and a later end, such as _at=ge2026-02&_at=lt2026-03", given.len());
            Err(Failure::new(Kind::BadValue, message))
        }
    }
}

/// `_at`: a date with its precision; prefixes open it to one side.
fn moment(value: &str, env: &Env<'_>) -> Option<Interval> {
    let (prefix, text) = Prefix::split(value);
    let at = instant::parse(&text.replace(' ', "+"))?;
    let now = env.now_ms.saturating_mul(1_000).saturating_add(1_000);
    Some(match prefix {
        Prefix::Eq | Prefix::Ap => at,
        Prefix::Ge => Interval { high: now.max(at.high), ..at },
        Prefix::Gt | Prefix::Sa => Interval { low: at.high, high: now.max(at.high) },
        Prefix::Le => Interval { low: instant::BEGINNING, ..at },
        Prefix::Lt | Prefix::Eb => Interval { low: instant::BEGINNING, high: at.low },
        Prefix::Ne => return None,
    })
}
