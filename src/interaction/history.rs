//! Instance history, <https://hl7.org/fhir/R4/http.html#history>, newest first.

use serde_json::{Value, json};

use super::{Done, Env, Reply, Subject, not_found, status};
use crate::fhir::id::clip;
use crate::fhir::raw::quote;
use crate::fhir::{Failure, Kind, ResourceId, instant};
use crate::search::Cursor;
use crate::search::parse::{DEFAULT_COUNT, MAX_COUNT};
use crate::sim::Snapshot;
use crate::version::{Change, Version};

struct Wanted {
    count: usize,
    since_ms: Option<i64>,
    cursor: Option<Cursor>,
}

/// The versions of a resource, deletions too.
///
/// # Errors
/// It never was; a parameter that cannot be read.
pub fn perform(type_name: &'static str, id: &ResourceId, parameters: &[(String, String)], snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let wanted = parse(parameters)?;
    let mut versions = snapshot.versions(type_name, id);
    if versions.is_empty() {
        return Err(not_found(type_name, id));
    }
    // Within a Bundle, that is the event it becomes.
    let cursor = wanted.cursor.unwrap_or(Cursor { as_of: env.stamp.event, offset: 0, after: None });
    versions.retain(|v| v.event <= cursor.as_of && wanted.since_ms.is_none_or(|since| v.event.millis() >= since));
    let page: Vec<&Version> = versions.iter().skip(cursor.offset).take(wanted.count).collect();
    let url = |offset: usize| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in parameters.iter().filter(|(n, _)| n == "_since") {
            query.append_pair(name, value);
        }
        query.append_pair("_count", &wanted.count.to_string());
        query.append_pair("_cursor", &Cursor { offset, after: None, ..cursor }.to_string());
        format!("{}/{type_name}/{id}/_history?{}", env.base, query.finish())
    };
    let mut links = vec![json!({"relation": "self", "url": url(cursor.offset)})];
    if wanted.count > 0 && cursor.offset.saturating_add(wanted.count) < versions.len() {
        links.push(json!({"relation": "next", "url": url(cursor.offset + wanted.count)}));
    }
    let entries = page.into_iter().map(|v| entry(type_name, id, v, snapshot, env)).collect::<Result<Vec<_>, _>>()?;
    let head = json!({"resourceType": "Bundle", "id": ResourceId::random().as_str(), "meta": {"lastUpdated": crate::clock::instant(env.now_ms)},
        "type": "history", "total": versions.len(), "link": Value::Array(links)});
    let mut text = head.to_string();
    if !entries.is_empty() {
        text.pop();
        text.push_str(&format!(",\"entry\":[{}]}}", entries.join(",")));
    }
    Ok(Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) })
}

fn entry(type_name: &'static str, id: &ResourceId, version: &Version, snapshot: &Snapshot, env: &Env<'_>) -> Result<String, Failure> {
    let subject = Subject { type_name, id: id.clone(), version: version.id, event: version.event };
    let url = if version.change == Change::Create { type_name.to_owned() } else { format!("{type_name}/{id}") };
    let (resource, code) = if version.is_deletion() {
        (String::new(), 204)
    } else {
        let body = snapshot.body(type_name, version)?;
        let text = std::str::from_utf8(&body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        (format!(",\"resource\":{text}"), if version.id.0 == 1 { 201 } else { 200 })
    };
    Ok(format!(
        "{{\"fullUrl\":{}{resource},\"request\":{{\"method\":\"{}\",\"url\":{}}},\"response\":{{\"status\":{},\"etag\":{},\"lastModified\":\"{}\"}}}}",
        quote(&format!("{}/{type_name}/{id}", env.base)),
        version.change.method(),
        quote(&url),
        quote(&status::line(code)),
        quote(&subject.etag()),
        version.event.instant(),
    ))
}

fn parse(parameters: &[(String, String)]) -> Result<Wanted, Failure> {
    let mut wanted = Wanted { count: DEFAULT_COUNT, since_ms: None, cursor: None };
    for (name, value) in parameters {
        let bad = |expected: &str| Failure::new(Kind::BadValue, format!("{name} '{}' is not {expected}", clip(value)));
        match name.as_str() {
            "_count" => wanted.count = value.parse::<usize>().map_err(|_| bad("a number from 0 on"))?.min(MAX_COUNT),
            "_since" => {
                wanted.since_ms =
                    Some(instant::parse(&value.replace(' ', "+")).ok_or_else(|| bad("an instant such as 2026-02-28T10:30:00Z"))?.low.div_euclid(1_000));
            }
            "_cursor" => wanted.cursor = Some(value.parse()?),
            "_format" | "_pretty" => {}
            _ => return Err(Failure::new(Kind::NotSupported, format!("history parameter '{}' is not supported; known: _count, _since", clip(name)))),
        }
    }
    Ok(wanted)
}
