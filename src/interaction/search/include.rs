//! What comes along with the matches of a page.

use std::collections::HashSet;

use serde_json::Value;

use crate::fhir::reference::Reference;
use crate::fhir::{Failure, raw};
use crate::index::Budget;
use crate::query::Query;
use crate::search::Search;
use crate::search::include::Include;
use crate::search::param::reference::text_of;
use crate::search::path::Node;
use crate::sim::find::within;
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
    let mut edge: Vec<Stored> = page.hits.iter().map(|hit| hit.stored.clone()).collect();
    collected.seen.extend(edge.iter().map(key));
    for round in 0..MAX_ROUNDS {
        let before = collected.found.len();
        for include in search.includes.iter().filter(|i| round == 0 && !i.reverse) {
            page.hits.iter().flat_map(|hit| &hit.inside).try_for_each(|resource| collected.inside(include, resource))?;
        }
        for include in search.includes.iter().filter(|i| round == 0 || i.iterate) {
            if include.reverse { collected.backward(include, &edge)? } else { collected.forward(include, &edge)? }
        }
        if before == collected.found.len() || !search.includes.iter().any(|i| i.iterate) {
            break;
        }
        edge = collected.found[before..].to_vec();
        collected.cut |= round + 1 == MAX_ROUNDS;
    }
    let note = collected.cut.then(|| {
        format!("not all that is to be included is here: at most {MAX_INCLUDED} resources come along with a page, over at most {MAX_ROUNDS} steps; ask for smaller pages by _count")
    });
    Ok((collected.found, note))
}

/// What tells two included resources apart.
fn key(stored: &Stored) -> String {
    format!("{}/{}/{}", stored.type_name, member(stored, "id"), stored.version.id)
}

/// The text of a member of a stored resource.
fn member(stored: &Stored, name: &str) -> String {
    let text = std::str::from_utf8(&stored.body).unwrap_or_default();
    raw::member(text, 0, name).map(|span| raw::string(&text[span]).into_owned()).unwrap_or_default()
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
        let key = key(&stored);
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
    fn forward(&mut self, include: &Include, from: &[Stored]) -> Result<(), Failure> {
        let params = self.snapshot.params();
        for stored in from {
            for param in include.params(stored.type_name, params) {
                if self.cut {
                    return Ok(());
                }
                self.budget.spend(50);
                within(self.budget, ())?;
                let texts = |found: &[Node<'_>], _| found.iter().filter_map(text_of).map(str::to_owned).collect::<Vec<_>>();
                for text in param.in_stored(&stored.body, self.snapshot.definitions(), texts).unwrap_or_default() {
                    if let Some(stored) = self.resolve(&text, include.target, param.is_canonical())? {
                        self.add(stored);
                    }
                }
            }
        }
        Ok(())
    }

    /// What a match inside another resource refers to.
    fn inside(&mut self, include: &Include, resource: &Value) -> Result<(), Failure> {
        let params = self.snapshot.params();
        let named = resource.get("resourceType").and_then(Value::as_str);
        let Some(type_name) = named.and_then(|name| self.snapshot.definitions().find_resource_type(name)) else { return Ok(()) };
        for param in include.params(type_name, params) {
            self.budget.spend(50);
            let texts = |found: &[Node<'_>]| found.iter().filter_map(text_of).map(str::to_owned).collect::<Vec<_>>();
            for text in param.with_values(resource, type_name, texts) {
                if let Some(stored) = self.resolve(&text, include.target, param.is_canonical())? {
                    self.add(stored);
                }
            }
        }
        within(self.budget, ())
    }

    /// The resource that a reference means, if it is here.
    fn resolve(&self, text: &str, target: Option<&str>, canonical: bool) -> Result<Option<Stored>, Failure> {
        self.budget.spend(200);
        let origin = self.snapshot.origin();
        let own = origin.local_part(text);
        let (here, is_url) = match Reference::parse(own.unwrap_or(text), self.snapshot.definitions()) {
            // A canonical URL may look like one of a resource here.
            Reference::Local { type_name, id, version } => (self.instance(type_name, id, version, target)?, own.is_some()),
            Reference::Other(_) => (None, true),
            Reference::Contained(_) | Reference::Conditional { .. } => (None, false),
        };
        if here.is_none() && is_url && canonical { self.by_url(text, target) } else { Ok(here) }
    }

    fn instance(&self, type_name: &str, id: &str, version: Option<&str>, target: Option<&str>) -> Result<Option<Stored>, Failure> {
        let snapshot = self.snapshot;
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

    fn by_url(&self, url: &str, target: Option<&str>) -> Result<Option<Stored>, Failure> {
        let snapshot = self.snapshot;
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

    /// What refers to `to`.
    fn backward(&mut self, include: &Include, to: &[Stored]) -> Result<(), Failure> {
        let params = self.snapshot.params();
        let mut uids: Vec<(&'static str, Box<str>)> = Vec::new();
        let mut urls: Vec<Box<str>> = Vec::new();
        for stored in to.iter().filter(|s| include.target.is_none_or(|target| target == s.type_name)) {
            let type_name = stored.type_name;
            uids.push((type_name, format!("{type_name}/{}", member(stored, "id")).into()));
            if params.of(type_name).get("url").is_some() {
                let (url, version) = (member(stored, "url"), member(stored, "version"));
                urls.extend([format!("{url}|{version}").into(), url.into()]);
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
