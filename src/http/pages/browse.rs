//! What a simulator holds: its types, searches with a form, and a resource with its history, its differences and what it is
//! connected with.

use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::show::{self, Links, Neighbour};
use super::super::{App, context};
use super::{SHOWN_BYTES, narrative, page, query};
use crate::fhir::definitions::ParamType;
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::interaction::patch::diff::diff;
use crate::interaction::search::{self, Request, explain};
use crate::interaction::target::{pairs, readable};
use crate::interaction::{Env, Return};
use crate::search::Search;
use crate::search::parse::Modifier;
use crate::sim::{Sim, Snapshot, Stamp};
use crate::simdb::SimId;
use crate::version::{Operation, Version};

/// Matches on a page.
const COUNT: &str = "20";
/// Rows of the form.
const ROWS: usize = 3;
/// Versions that a history shows.
const VERSIONS: usize = 100;
/// Resources at a side of a graph.
const NEIGHBOURS: usize = 20;

/// `/sims/{id}/resources`: the types, with how many there are of each.
pub async fn types(app: Data<App>, id: Path<String>) -> HttpResponse {
    page(app, move |app| {
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        let snapshot = sim.snapshot();
        let counts: Vec<Value> = snapshot.counts().map(|(t, n)| json!({"type": t, "count": n})).collect();
        let others: Vec<&str> = snapshot.definitions().resource_types().iter().copied().filter(|t| !snapshot.counts().any(|(there, _)| there == *t)).collect();
        Ok(app.pages.render(200, "types.html", json!({"id": id.as_str(), "counts": counts, "others": others})))
    })
    .await
}

/// Does a search as an endpoint would, and returns its Bundle.
fn searched(type_name: &'static str, parameters: Vec<(String, String)>, sim: &Sim, base: &str) -> Result<Value, Failure> {
    let (snapshot, profile) = (sim.snapshot(), sim.profile());
    let stamp = Stamp { event: snapshot.last_event(), operation: Operation::Get };
    let env = Env { base, stamp, now_ms: sim.now_ms(), created: &profile.created, returns: Return::Unsaid, strict: false };
    let request = Request { type_name: Some(type_name), compartment: None, parameters, strict: false };
    let body = search::perform(&request, &snapshot, &env)?.body.unwrap_or_default();
    serde_json::from_slice(&body).map_err(|e| Failure::new(Kind::Internal, e.to_string()))
}

/// `/sims/{id}/resources/{type}?…`: a search; `p` and `v` are the form's, `explain` names a resource, the rest is the search.
pub async fn search(request: HttpRequest, app: Data<App>, path: Path<(String, String)>) -> HttpResponse {
    let (origin, asked) = (context::origin(&request, &app.options), request.query_string().to_owned());
    page(app, move |app| {
        let (id, type_name) = path.into_inner();
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        let snapshot = sim.snapshot();
        let type_name = snapshot.definitions().resource_type(&type_name)?;
        readable(&asked)?;
        let asked = Asked::of(pairs(&asked));
        let shown: Vec<(String, String)> = asked.search.iter().filter(|(name, _)| name != "_cursor").cloned().collect();
        let mut parameters = asked.search.clone();
        if !parameters.iter().any(|(name, _)| name == "_count") {
            parameters.push(("_count".to_owned(), COUNT.to_owned()));
        }
        let base = format!("{origin}/sim/{id}/fhir");
        let found = searched(type_name, parameters, &sim, &base);
        let (bundle, refused) = match found {
            Ok(bundle) => (bundle, None),
            Err(failure) => (Value::Null, Some(failure.diagnostics)),
        };
        let explained = asked.explain.as_deref().map(|resource| explained(resource, type_name, &shown, &snapshot, sim.now_ms())).transpose()?;
        let link = |relation: &str| {
            bundle["link"].as_array().into_iter().flatten().find(|l| l["relation"] == relation).and_then(|l| l["url"].as_str()).map(str::to_owned)
        };
        let next = link("next").and_then(|url| url.split_once('?').map(|(_, query)| query.to_owned()));
        let mut rows: Vec<Value> = shown.iter().map(|(name, value)| json!({"p": name, "v": value})).collect();
        rows.resize((rows.len() + 1).max(ROWS), json!({"p": "", "v": ""}));
        let repeated = query(shown.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let values = json!({"id": id.as_str(), "type": type_name, "rows": rows, "params": offered(&snapshot, type_name), "refused": refused,
            "executed": link("self"), "total": bundle["total"], "hits": hits(&bundle), "said": said(&bundle), "next": next, "repeated": repeated,
            "explained": explained, "of": asked.explain});
        Ok(app.pages.render(200, "search.html", values))
    })
    .await
}

/// What a page of searches is asked.
struct Asked {
    search: Vec<(String, String)>,
    explain: Option<String>,
}

impl Asked {
    fn of(pairs: Vec<(String, String)>) -> Self {
        let mut asked = Self { search: Vec::new(), explain: None };
        let mut name: Option<String> = None;
        for (key, value) in pairs {
            match key.as_str() {
                "p" => name = Some(value.trim().to_owned()).filter(|name| !name.is_empty()),
                // A row that is left empty asks for nothing.
                "v" => asked.search.extend(name.take().filter(|_| !value.is_empty()).map(|name| (name, value))),
                "explain" => asked.explain = Some(value),
                _ => asked.search.push((key, value)),
            }
        }
        asked
    }
}

/// The parameters that the CapabilityStatement lists for a type, with their modifiers.
fn offered(snapshot: &Snapshot, type_name: &str) -> Vec<Value> {
    let mut offered = Vec::new();
    for param in &snapshot.params().of(type_name).list {
        offered.push(json!({"name": &*param.code, "text": param.kind.code()}));
        let modifiers = Modifier::of(param, snapshot.version());
        offered.extend(modifiers.into_iter().map(|(code, _)| json!({"name": format!("{}:{code}", param.code), "text": param.kind.code()})));
        if param.kind == ParamType::Reference {
            offered.push(json!({"name": format!("{}.", param.code), "text": "chain"}));
        }
    }
    let results = ["_sort", "_include", "_revinclude", "_count", "_has", "_filter", "_text", "_content", "_list"];
    offered.extend(results.into_iter().map(|name| json!({"name": name, "text": "of the search"})));
    offered
}

/// The resources of a page, each with a line that tells it from others.
fn hits(bundle: &Value) -> Vec<Value> {
    let entries = bundle["entry"].as_array().into_iter().flatten().filter(|e| e["search"]["mode"] != "outcome");
    let one = |entry: &Value| {
        let resource = &entry["resource"];
        let uid = format!("{}/{}", resource["resourceType"].as_str().unwrap_or_default(), resource["id"].as_str().unwrap_or_default());
        json!({"uid": uid, "version": resource["meta"]["versionId"], "updated": resource["meta"]["lastUpdated"], "mode": entry["search"]["mode"], "about": about(resource)})
    };
    entries.map(one).collect()
}

/// A few words about a resource: its first texts.
fn about(resource: &Value) -> String {
    fn collect(value: &Value, words: &mut Vec<String>) {
        match value {
            Value::String(text) if words.len() < 8 => words.push(text.chars().take(60).collect()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
            Value::Object(members) => {
                let shown = members
                    .iter()
                    .filter(|(name, _)| !matches!(name.as_str(), "resourceType" | "id" | "meta" | "text" | "contained" | "extension" | "system" | "use"));
                shown.for_each(|(_, member)| collect(member, words));
            }
            _ => {}
        }
    }
    let mut words = Vec::new();
    collect(resource, &mut words);
    words.join(" · ")
}

/// What the search was answered besides resources.
fn said(bundle: &Value) -> Vec<Value> {
    let entries = bundle["entry"].as_array().into_iter().flatten().filter(|e| e["search"]["mode"] == "outcome");
    entries.flat_map(|e| e["resource"]["issue"].as_array().into_iter().flatten()).map(|i| i["diagnostics"].clone()).collect()
}

fn explained(resource: &str, type_name: &'static str, parameters: &[(String, String)], snapshot: &Snapshot, now_ms: i64) -> Result<Value, Failure> {
    let id = resource.split_once('/').map_or(resource, |(_, id)| id).parse()?;
    let request = Request { type_name: Some(type_name), compartment: None, parameters: parameters.to_vec(), strict: false };
    let search = Search::parse(parameters, request.scope(), snapshot.params())?;
    explain::of_resource(&search, type_name, &id, snapshot, now_ms)
}

/// Which version of a resource to show.
#[derive(Debug, Deserialize)]
pub struct Showing {
    version: Option<String>,
}

/// `/sims/{id}/resources/{type}/{resource}`: one resource.
pub async fn resource(request: HttpRequest, app: Data<App>, path: Path<(String, String, String)>, showing: Query<Showing>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    page(app, move |app| {
        let (id, type_name, resource) = path.into_inner();
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        let snapshot = sim.snapshot();
        let (type_name, resource): (_, ResourceId) = (snapshot.definitions().resource_type(&type_name)?, resource.parse()?);
        let versions = snapshot.versions(type_name, &resource);
        let no = |what: String| Failure::new(Kind::NotFound, format!("simulator {id} has no {what}"));
        let newest = versions.first().ok_or_else(|| no(format!("{type_name}/{resource}")))?;
        let wanted: VersionId = showing.version.as_deref().map_or(Ok(newest.id), str::parse)?;
        let at = versions.iter().position(|v| v.id == wanted).ok_or_else(|| no(format!("version {wanted} of {type_name}/{resource}")))?;
        let text = |version: &Version| -> Result<Option<String>, Failure> {
            if version.is_deletion() {
                return Ok(None);
            }
            Ok(Some(String::from_utf8_lossy(&snapshot.body(type_name, version)?).into_owned()))
        };
        let now = text(&versions[at])?;
        let before = versions.get(at + 1).map(text).transpose()?.flatten();
        let parsed = |text: &Option<String>| text.as_deref().and_then(|t| serde_json::from_str::<Value>(t).ok());
        let (value, previous) = (parsed(&now), parsed(&before));
        let links = Links { sim: id.as_str(), definitions: snapshot.definitions() };
        let changes = value.as_ref().zip(previous.as_ref()).and_then(|(to, from)| diff(from, to, type_name, snapshot.definitions()).ok());
        let uid = format!("{type_name}/{resource}");
        let out_of = value.as_ref().map(|v| references(v, links)).unwrap_or_default();
        let (into, all) = if newest.is_deletion() { (Vec::new(), 0) } else { referrers(type_name, &resource, &sim, &format!("{origin}/sim/{id}/fhir"), links)? };
        let values = json!({"id": id.as_str(), "uid": uid, "type": type_name, "version": wanted.to_string(), "is_newest": at == 0, "gone": now.is_none(),
            "body": now.as_deref().filter(|t| t.len() <= SHOWN_BYTES).and_then(|t| show::json(t, &[], links)),
            "beginning": now.as_deref().filter(|t| t.len() > SHOWN_BYTES).map(|t| t.chars().take(SHOWN_BYTES).collect::<String>()), "narrative": value.as_ref().and_then(narrative),
            "history": versions.iter().take(VERSIONS).map(timeline).collect::<Vec<_>>(), "more": versions.len().saturating_sub(VERSIONS),
            "changes": changes.map(|all| all.iter().map(said_of).collect::<Vec<_>>()), "before": versions.get(at + 1).map(|v| v.id.to_string()),
            "graph": show::graph(&uid, &into, &out_of), "into": listed(&into), "into_more": all - into.len(), "out_of": listed(&out_of)});
        Ok(app.pages.render(200, "resource.html", values))
    })
    .await
}

/// A version as a row of the history.
fn timeline(version: &Version) -> Value {
    json!({"version": version.id.to_string(), "when": crate::clock::instant(version.modified_ms), "change": version.change, "event": version.event.to_string(),
        "gone": version.is_deletion()})
}

/// An operation of a FHIRPath Patch in a line.
fn said_of(operation: &Value) -> Value {
    let parts = operation["part"].as_array().map(Vec::as_slice).unwrap_or_default();
    let part = |name: &str| parts.iter().find(|p| p["name"] == name);
    let text = |name: &str| {
        part(name)
            .and_then(|p| p.as_object()?.iter().find(|(key, _)| key.starts_with("value")).map(|(_, v)| v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
    };
    let value = part("value").map(|p| p.as_object().into_iter().flatten().find(|(key, _)| *key != "name").map_or_else(String::new, |(_, v)| v.to_string()));
    let path = match text("name") {
        Some(name) => format!("{}.{name}", text("path").unwrap_or_default()),
        None => text("path").unwrap_or_default(),
    };
    json!({"kind": text("type"), "path": path, "value": value.or_else(|| text("index"))})
}

/// What a resource refers to.
fn references(value: &Value, links: Links<'_>) -> Vec<Neighbour> {
    fn walk<'v>(value: &'v Value, by: &mut Vec<&'v str>, links: Links<'_>, found: &mut Vec<Neighbour>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, by, links, found)),
            Value::Object(members) => {
                if let Some(to) = members.get("reference").and_then(Value::as_str).filter(|_| found.len() < NEIGHBOURS) {
                    let neighbour = Neighbour { uid: to.to_owned(), by: by.join("."), link: links.of(to) };
                    if !found.contains(&neighbour) {
                        found.push(neighbour);
                    }
                }
                for (name, member) in members {
                    by.push(name);
                    walk(member, by, links, found);
                    by.pop();
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, &mut Vec::new(), links, &mut found);
    found
}

/// What refers to a resource, the first of them, and how many a search brings along.
fn referrers(type_name: &'static str, id: &ResourceId, sim: &Sim, base: &str, links: Links<'_>) -> Result<(Vec<Neighbour>, usize), Failure> {
    let parameters = [("_id", id.as_str()), ("_revinclude", "*")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let bundle = searched(type_name, parameters.into(), sim, base)?;
    let uid = format!("{type_name}/{id}");
    let included = bundle["entry"].as_array().into_iter().flatten().filter(|e| e["search"]["mode"] == "include");
    let one = |entry: &Value| {
        let resource = &entry["resource"];
        let from = format!("{}/{}", resource["resourceType"].as_str()?, resource["id"].as_str()?);
        let is_it = |n: &&Neighbour| n.uid == uid || n.uid.starts_with(&format!("{uid}/")) || n.uid.ends_with(&format!("/{uid}"));
        let by = references(resource, links).iter().find(is_it).map(|n| n.by.clone()).unwrap_or_default();
        Some(Neighbour { link: links.of(&from), uid: from, by })
    };
    let all: Vec<&Value> = included.collect();
    Ok((all.iter().filter_map(|entry| one(entry)).take(NEIGHBOURS).collect(), all.len()))
}

fn listed(neighbours: &[Neighbour]) -> Vec<Value> {
    neighbours.iter().map(|n| json!({"uid": n.uid, "by": n.by, "link": n.link})).collect()
}
