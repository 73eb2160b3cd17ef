//! What comes along with the matches of a page.

use std::collections::HashSet;

use serde_json::Value;

use crate::fhir::Failure;
use crate::fhir::reference::Reference;
use crate::index::Budget;
use crate::query::Query;
use crate::search::Search;
use crate::search::include::Include;
use crate::search::param::reference::text_of;
use crate::sim::{Page, Snapshot, Stored};

/// Most resources that come along with a page.
const MAX_INCLUDED: usize = 1_000;
/// Most times that `:iterate` goes on.
const MAX_ROUNDS: usize = 16;

/// The resources that come along, each once, and a word where there would have been more.
///
/// # Errors
/// The index or a file cannot be read; more work than the budget allows.
pub fn included(search: &Search, page: &Page, snapshot: &Snapshot, budget: &Budget) -> Result<(Vec<Stored>, Option<String>), Failure> {
    let mut collected = Collected { snapshot, budget, seen: HashSet::new(), found: Vec::new(), cut: false };
    let mut edge: Vec<Value> = Vec::new();
    for hit in &page.hits {
        let value: Value = serde_json::from_slice(&hit.stored.body).unwrap_or_default();
        collected.seen.insert(key(&hit.stored, &value));
        edge.push(value);
    }
    for round in 0..MAX_ROUNDS {
        let before = collected.found.len();
        for include in search.includes.iter().filter(|i| round == 0 || i.iterate) {
            if include.reverse { collected.backward(include, &edge)? } else { collected.forward(include, &edge)? }
        }
        edge = collected.found[before..].iter().map(|s| serde_json::from_slice(&s.body).unwrap_or_default()).collect();
        if edge.is_empty() {
            break;
        }
        collected.cut |= round + 1 == MAX_ROUNDS && search.includes.iter().any(|i| i.iterate);
    }
    let note = collected.cut.then(|| {
        format!("not all that is to be included is here: at most {MAX_INCLUDED} resources come along with a page, over at most {MAX_ROUNDS} steps; ask for smaller pages by _count")
    });
    Ok((collected.found, note))
}

/// What tells two included resources apart.
fn key(stored: &Stored, value: &Value) -> String {
    format!("{}/{}/{}", stored.type_name, value.get("id").and_then(Value::as_str).unwrap_or_default(), stored.version.id)
}

struct Collected<'a> {
    snapshot: &'a Snapshot,
    budget: &'a Budget,
    seen: HashSet<String>,
    found: Vec<Stored>,
    cut: bool,
}

impl Collected<'_> {
    fn add(&mut self, stored: Stored) {
        let value: Value = serde_json::from_slice(&stored.body).unwrap_or_default();
        let key = key(&stored, &value);
        if self.seen.contains(&key) {
            return;
        }
        if self.found.len() >= MAX_INCLUDED {
            self.cut = true;
            return;
        }
        self.seen.insert(key);
        self.found.push(stored);
    }

    /// What `from` refer to.
    fn forward(&mut self, include: &Include, from: &[Value]) -> Result<(), Failure> {
        let params = self.snapshot.params();
        for resource in from {
            let Some(type_name) = type_of(resource, self.snapshot) else { continue };
            for param in include.params(type_name, params) {
                let mut found = Vec::new();
                param.values(resource, type_name, &mut found);
                for node in &found {
                    if let Some(stored) = text_of(node).map(|text| self.resolve(text, include.target, param.is_canonical())).transpose()?.flatten() {
                        self.add(stored);
                    }
                }
            }
        }
        Ok(())
    }

    /// The resource that a reference means, if it is here.
    fn resolve(&self, text: &str, target: Option<&str>, canonical: bool) -> Result<Option<Stored>, Failure> {
        let snapshot = self.snapshot;
        let origin = snapshot.origin();
        match Reference::parse(origin.local_part(text).unwrap_or(text), snapshot.definitions()) {
            Reference::Local { type_name, id, version } => {
                let type_name = snapshot.definitions().resource_type(type_name)?;
                if target.is_some_and(|t| t != type_name) {
                    return Ok(None);
                }
                let id = id.parse()?;
                let found = match version {
                    Some(version) => snapshot.versions(type_name, &id).into_iter().find(|v| v.id.to_string() == version),
                    None => snapshot.latest(type_name, &id),
                };
                let Some(version) = found.filter(|v| !v.is_deletion()) else { return Ok(None) };
                Ok(Some(Stored { type_name, version, body: snapshot.body(type_name, &version)? }))
            }
            Reference::Other(url) if canonical => {
                let (url, version) = url.split_once('|').map_or((url, None), |(url, version)| (url, Some(version)));
                let types = snapshot.definitions().resource_types().iter().filter(|t| target.is_none_or(|target| target == **t));
                let with_url = types.filter(|t| snapshot.params().of(t).get("url").is_some());
                let by_url = |t: &&str| {
                    let named = Query::term(&format!("{t}/url\u{1f}l{url}"));
                    version.map_or(named.clone(), |v| Query::and(vec![named, Query::term(&format!("{t}/version\u{1f}c{v}"))]))
                };
                let query = Query::or(with_url.map(by_url).collect());
                Ok(snapshot.matching(&query, 1, self.budget)?.1.into_iter().next())
            }
            Reference::Other(_) | Reference::Contained(_) | Reference::Conditional { .. } => Ok(None),
        }
    }

    /// What refers to `to`.
    fn backward(&mut self, include: &Include, to: &[Value]) -> Result<(), Failure> {
        let params = self.snapshot.params();
        let mut uids: Vec<(&'static str, Box<str>)> = Vec::new();
        let mut urls: Vec<Box<str>> = Vec::new();
        for resource in to {
            let Some(type_name) = type_of(resource, self.snapshot).filter(|t| include.target.is_none_or(|target| target == *t)) else { continue };
            let text = |name: &str| resource.get(name).and_then(Value::as_str);
            uids.extend(text("id").map(|id| (type_name, format!("{type_name}/{id}").into())));
            if let Some(url) = text("url") {
                urls.push(url.into());
                urls.extend(text("version").map(|v| format!("{url}|{v}").into()));
            }
        }
        let all = self.snapshot.definitions().resource_types();
        let sources = all.iter().filter(|t| include.source.is_none_or(|s| s == **t));
        let mut any = Vec::new();
        for source in sources {
            for param in include.params(source, params) {
                let meant = uids.iter().filter(|(t, _)| param.can_target(t)).map(|(_, uid)| uid.clone()).collect();
                any.push(Query::terms_of(&param.key('r', ""), meant));
                if param.is_canonical() {
                    any.push(Query::terms_of(&param.key('u', ""), urls.clone()));
                }
            }
        }
        let room = MAX_INCLUDED + 1 - self.found.len().min(MAX_INCLUDED);
        let (total, found) = self.snapshot.matching(&Query::or(any), room + to.len(), self.budget)?;
        self.cut |= total > room + to.len();
        for stored in found {
            self.add(stored);
        }
        Ok(())
    }
}

fn type_of(resource: &Value, snapshot: &Snapshot) -> Option<&'static str> {
    resource.get("resourceType").and_then(Value::as_str).and_then(|name| snapshot.definitions().find_resource_type(name))
}
