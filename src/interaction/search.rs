//! Search, <https://hl7.org/fhir/R4/http.html#search>: from a typed search to a Bundle with links.

pub mod explain;
pub mod include;

use form_urlencoded::Serializer;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::definition;
use super::{Done, Env, Reply};
use crate::fhir::raw::{self, quote};
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, ResourceId, outcome};
use crate::index::Budget;
use crate::query::Query;
use crate::search::condition::Condition;
use crate::search::param::{reference, token};
use crate::search::parse::{Contained, Modifier};
use crate::search::{Cursor, Lookup as _, Scope, Search, Total};
use crate::sim::find::{From, Match};
use crate::sim::{Page, Snapshot, Stored};

/// A search as it was asked.
#[derive(Debug)]
pub struct Request {
    /// The type searched; none is all.
    pub type_name: Option<&'static str>,
    /// The resource whose compartment is searched.
    pub compartment: Option<(&'static str, ResourceId)>,
    /// The parameters of URL and body.
    pub parameters: Vec<(String, String)>,
    /// `Prefer: handling=strict`: what is unknown is refused.
    pub strict: bool,
}

impl Request {
    /// What is searched.
    #[must_use]
    pub fn scope(&self) -> Scope<'_> {
        Scope { type_name: self.type_name, compartment: self.compartment.as_ref().map(|(t, id)| (*t, id.as_str())) }
    }
}

/// Searches, and makes the page.
///
/// # Errors
/// A value that cannot be read; with `strict`, a parameter that is unknown.
pub fn perform(request: &Request, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let mut search = Search::parse(&request.parameters, request.scope(), snapshot.params())?;
    if request.strict {
        search = search.strict()?;
    }
    let path = match (&request.compartment, request.type_name) {
        (Some((of, id)), type_name) => format!("{of}/{id}/{}", type_name.unwrap_or("*")),
        (None, Some(type_name)) => type_name.to_owned(),
        (None, None) => String::new(),
    };
    let shown = Shown { path, parameters: search.applied.iter().filter(|(name, _)| name != "_count").cloned().collect() };
    answered(request, &search, &shown, snapshot, env)
}

/// What the links of a page repeat.
#[derive(Debug)]
pub struct Shown {
    /// The path below the endpoint.
    pub path: String,
    /// The parameters, but for `_count`, which is shown as it was executed, cut to the limit, and the cursor.
    pub parameters: Vec<(String, String)>,
}

/// Answers a search that was read.
///
/// # Errors
/// As [`perform`].
pub(super) fn answered(request: &Request, search: &Search, shown: &Shown, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    // Within a Bundle, that is the event it becomes.
    let cursor = search.cursor.clone().unwrap_or(Cursor { as_of: env.stamp.event, offset: 0, after: None });
    if let Some(ignored) = search.ignored.first().filter(|_| search.cursor.is_some()) {
        let message = format!("a page of a search that is no longer understood as it was: {}; search again from the first page", ignored.diagnostics);
        return Err(Failure::new(Kind::BadValue, message));
    }
    if cursor.as_of > env.stamp.event {
        return Err(Failure::new(Kind::BadValue, format!("_cursor '{cursor}' is of an event that is yet to come; follow the links of a search result")));
    }
    let then;
    let snapshot = if cursor.as_of < snapshot.last_event() {
        then = snapshot.as_of(cursor.as_of)?;
        &then
    } else {
        snapshot
    };
    let budget = snapshot.budget();
    let left = search.max_results.map_or(usize::MAX, |most| most.saturating_sub(cursor.offset));
    let from = From { offset: cursor.offset, after: cursor.after.as_deref() };
    let mut page = snapshot.search(search, from, search.count.min(left), env.now_ms, &budget)?;
    page.total = page.total.min(search.max_results.unwrap_or(usize::MAX));
    let text = Answer { request, search, cursor: &cursor, page: &page, shown, snapshot, env, budget: &budget }.bundle()?;
    Ok(Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) })
}

/// The Bundle of a page that is the only one.
///
/// # Errors
/// A resource cannot be read.
pub(super) fn whole(
    request: &Request,
    search: &Search,
    page: &Page,
    shown: &Shown,
    snapshot: &Snapshot,
    env: &Env<'_>,
    budget: &Budget,
) -> Result<String, Failure> {
    let cursor = Cursor { as_of: env.stamp.event, offset: 0, after: None };
    let mut search = search.clone();
    search.count = page.total.max(1);
    let search = &search;
    Answer { request, search, cursor: &cursor, page, shown, snapshot, env, budget }.bundle()
}

/// The first `most` resources that a condition in the form of a search matches, and how many do; what is unknown in it is
/// refused, for a condition that is left out would match everything, and so is what no resource can have.
pub(super) fn matching(
    type_name: Option<&'static str>,
    query: &str,
    what: &str,
    most: usize,
    snapshot: &Snapshot,
    env: &Env<'_>,
) -> Result<(usize, Vec<Stored>), Failure> {
    let query = super::target::condition(type_name, query);
    let named = |f: Failure| Failure { diagnostics: format!("{what}: {}", f.diagnostics), ..f };
    super::target::readable(query).map_err(named)?;
    let scope = Scope { type_name, compartment: None };
    let search = Search::parse(&super::target::pairs(query), scope, snapshot.params()).and_then(Search::strict).map_err(named)?;
    if !search.has_conditions() {
        let message = format!("{what} '{}' has no search parameter; a condition must name at least one", crate::fhir::id::clip(query));
        return Err(Failure::new(Kind::BadValue, message));
    }
    // A search reports it; a condition would create because of it.
    if let Some(doubt) = doubts(&search, snapshot).into_iter().next() {
        return Err(named(Failure::new(Kind::BadValue, doubt)));
    }
    let page = snapshot.search(&search, From::default(), most, env.now_ms, &snapshot.budget()).map_err(named)?;
    Ok((page.total, page.hits.into_iter().map(|hit| hit.stored).collect()))
}

/// What is asked for that nothing can be.
fn doubts(search: &Search, snapshot: &Snapshot) -> Vec<String> {
    let plain = search.conditions.iter().filter_map(|(_, condition)| {
        let Condition::Param { code, modifier: Modifier::None | Modifier::Not, values } = condition else { return None };
        Some((code, values))
    });
    let of = |code: &str| search.types.first().filter(|_| search.types.len() == 1).and_then(|t| snapshot.params().of(t).get(code));
    plain.filter_map(|(code, values)| Some((of(code)?, values))).flat_map(|(param, values)| values.iter().filter_map(|v| token::doubt(param, v))).collect()
}

/// The id that a stored resource says it has.
pub(super) fn id_of(stored: &Stored) -> Result<ResourceId, Failure> {
    let text = std::str::from_utf8(&stored.body).unwrap_or_default();
    let id = raw::member(text, 0, "id").map(|span| raw::string(&text[span]).into_owned()).unwrap_or_default();
    id.parse().map_err(|f: Failure| Failure { kind: Kind::Damaged, ..f })
}

/// Makes the Bundle of a page.
struct Answer<'a> {
    request: &'a Request,
    search: &'a Search,
    cursor: &'a Cursor,
    page: &'a Page,
    shown: &'a Shown,
    snapshot: &'a Snapshot,
    env: &'a Env<'a>,
    budget: &'a Budget,
}

impl Answer<'_> {
    fn bundle(&self) -> Result<String, Failure> {
        let (search, page, env) = (self.search, self.page, self.env);
        let defined = definition::searched(self.request.type_name, search, page.total, self.snapshot.params());
        let total = page.total.max(defined.len());
        let links = Links { shown: self.shown, search, cursor: self.cursor, page, env };
        let mut out = String::with_capacity(1_024 + page.hits.iter().map(|h| h.stored.body.len() + 150).sum::<usize>());
        out.push_str("{\"resourceType\":\"Bundle\",\"id\":\"");
        out.push_str(ResourceId::random().as_str());
        out.push_str("\",\"meta\":{\"lastUpdated\":\"");
        out.push_str(&crate::clock::instant(env.now_ms));
        out.push_str("\"},\"type\":\"searchset\"");
        // A page without entries is asked for because of its total.
        if search.total != Total::None || search.count == 0 {
            out.push_str(&format!(",\"total\":{total}"));
        }
        out.push_str(",\"link\":[");
        out.push_str(&links.all());
        out.push(']');
        let mut entries = Vec::with_capacity(page.hits.len() + 1);
        for hit in &page.hits {
            self.matched(hit, &mut entries)?;
        }
        for (id, resource) in defined {
            entries.push(entry(&format!("{}/SearchParameter/{id}", env.base), &resource.to_string(), "match", None));
        }
        let mut notes: Vec<String> = search.ignored.iter().map(|f| f.diagnostics.clone()).collect();
        notes.extend(doubts(search, self.snapshot));
        notes.extend(self.versioned(search)?);
        if search.contained != Contained::False && !search.sort.is_empty() {
            notes.push("_sort: what is inside another resource comes where that one comes, by its own values".to_owned());
        }
        if !search.includes.is_empty() {
            let (included, note) = include::included(search, page, self.snapshot, self.budget)?;
            notes.extend(note);
            for stored in &included {
                let id = id_of(stored)?;
                let body = self.part(text_of(&stored.body)?, stored.type_name, true);
                entries.push(entry(&format!("{}/{}/{id}", env.base, stored.type_name), &body, "include", None));
            }
        }
        if !notes.is_empty() {
            let outcome = outcome::informational("warning", "not-supported", &notes);
            entries.push(json!({"resource": outcome, "search": {"mode": "outcome"}}).to_string());
        }
        if search.explain {
            let outcome = explain::of_page(search, page, self.snapshot, env.now_ms, self.budget)?;
            entries.push(json!({"resource": outcome, "search": {"mode": "outcome"}}).to_string());
        }
        if !entries.is_empty() {
            out.push_str(",\"entry\":[");
            out.push_str(&entries.join(","));
            out.push(']');
        }
        out.push('}');
        Ok(out)
    }

    /// What was followed as it is now, though some of the references name a version:
    /// <https://hl7.org/fhir/R4/search.html#versions>.
    fn versioned(&self, search: &Search) -> Result<Vec<String>, Failure> {
        let mut plain = search.clone();
        plain.conditions.retain(|(_, condition)| !matches!(condition, Condition::Chain { .. } | Condition::Has { .. }));
        let (mut others, mut known) = (None, FxHashMap::default());
        let looking = self.snapshot.looking(self.budget);
        let mut notes = Vec::new();
        for (name, condition) in &search.conditions {
            let mut follows = Vec::new();
            condition.follows(&search.types, &mut follows);
            for (at, (of, code)) in follows.into_iter().enumerate() {
                let Some(param) = self.snapshot.params().of(of).get(code) else { continue };
                let query = reference::versioned(param);
                let is_there = match known.get(&(of, code)) {
                    Some(known) => *known,
                    None => looking.is_there(&query)?,
                };
                known.insert((of, code), is_there);
                if !is_there {
                    continue;
                }
                // From where the search begins, only what all else leaves counts.
                let is_first = at < search.types.len() && matches!(condition, Condition::Chain { .. });
                if is_first && others.is_none() {
                    others = Some(self.snapshot.compile(&plain, self.env.now_ms, self.budget)?.query);
                }
                let narrow = others.clone().filter(|_| is_first).into_iter();
                if looking.is_there(&Query::and(narrow.chain([query]).collect()))? {
                    notes.push(format!("'{name}' was asked of the current version of what is referred to, though references of {of} by '{code}' name another"));
                    break;
                }
            }
        }
        Ok(notes)
    }

    fn matched(&self, hit: &Match, entries: &mut Vec<String>) -> Result<(), Failure> {
        let stored = &hit.stored;
        let id = id_of(stored)?;
        let url = format!("{}/{}/{id}", self.env.base, stored.type_name);
        let score = hit.score.or_else(|| self.search.score.then_some(1_000_000));
        if hit.by_itself || !self.search.contained_alone {
            entries.push(entry(&url, &self.part(text_of(&stored.body)?, stored.type_name, false), "match", score));
        }
        if self.search.contained_alone {
            for inner in &hit.inside {
                let name = inner.get("id").and_then(Value::as_str).unwrap_or_default();
                let type_name = inner.get("resourceType").and_then(Value::as_str).unwrap_or_default();
                entries.push(entry(&format!("{url}#{name}"), &self.part(&inner.to_string(), type_name, false), "match", score));
            }
        }
        Ok(())
    }

    /// What of a resource is wanted.
    fn part<'b>(&self, body: &'b str, type_name: &str, included: bool) -> std::borrow::Cow<'b, str> {
        let whole = match &self.search.subset {
            Subset::All => true,
            // Element names without a type are those of the matches; a type of which none is named is whole.
            Subset::Elements(names) => !names.iter().any(|name| name.split_once('.').map_or(!included, |(of, _)| of == type_name)),
            Subset::Summary | Subset::Text | Subset::Data => false,
        };
        if whole { body.into() } else { self.search.subset.of(body, type_name, self.snapshot.definitions()).into() }
    }
}

fn text_of(body: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))
}

fn entry(full_url: &str, body: &str, mode: &str, score: Option<u64>) -> String {
    let score = score.map(|s| format!(",\"score\":{}.{:06}", s / 1_000_000, s % 1_000_000)).unwrap_or_default();
    format!("{{\"fullUrl\":{},\"resource\":{body},\"search\":{{\"mode\":\"{mode}\"{score}}}}}", quote(full_url))
}

/// The links of a page. They repeat what was executed and say as of which event, so that a page neither skips nor repeats
/// while others write.
struct Links<'a> {
    shown: &'a Shown,
    search: &'a Search,
    cursor: &'a Cursor,
    page: &'a Page,
    env: &'a Env<'a>,
}

impl Links<'_> {
    fn all(&self) -> String {
        let count = self.search.count;
        let here = self.cursor.offset;
        let total = self.page.total;
        let mut links = vec![("self", self.url((here > 0).then(|| (here, self.cursor.after.clone()))))];
        if count > 0 {
            links.push(("first", self.url(Some((0, None)))));
            if here > 0 {
                links.push(("previous", self.url(Some((here.saturating_sub(count), None)))));
            }
            if here.saturating_add(count) < total {
                links.push(("next", self.url(Some((here + count, self.page.last.clone())))));
            }
            // Pages are counted from where this one began.
            let ahead = total.saturating_sub(1).saturating_sub(here % count) / count * count;
            links.push(("last", self.url(Some((if total > here % count { here % count + ahead } else { 0 }, None)))));
        }
        let shown: Vec<String> = links.into_iter().map(|(relation, url)| format!("{{\"relation\":\"{relation}\",\"url\":{}}}", quote(&url))).collect();
        shown.join(",")
    }

    fn url(&self, from: Option<(usize, Option<String>)>) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in &self.shown.parameters {
            query.append_pair(name, value);
        }
        query.append_pair("_count", &self.search.count.to_string());
        if let Some((offset, after)) = from {
            query.append_pair("_cursor", &Cursor { as_of: self.cursor.as_of, offset, after }.to_string());
        }
        let slash = if self.shown.path.is_empty() { "" } else { "/" };
        format!("{}{slash}{}?{}", self.env.base, self.shown.path, query.finish())
    }
}
