//! Searching a snapshot.

use std::sync::Arc;

use chrono::DateTime;
use serde_json::Value;

use super::bodies::Body;
use super::snapshot::{Snapshot, Stored};
use crate::fhir::{Failure, Kind};
use crate::index::{Budget, Find, Hit, Position, SortBy, SortKey};
use crate::query::text::score_of;
use crate::query::{Query, Text, TextField};
use crate::search::compile::{OrderBy, contained_matches};
use crate::search::extract::keys_of;
use crate::search::parse::Contained;
use crate::search::path::Node;
use crate::search::{Compiled, Lookup, Search};
use crate::version::Version;

/// Up to how many matches are read one by one for the values of a parameter; of more, the index is asked value by value.
const FEW: usize = 256;

/// A page of a search.
#[derive(Debug, Default)]
pub struct Page {
    /// How many match in all.
    pub total: usize,
    /// The matches on this page.
    pub hits: Vec<Match>,
    /// The place of the last in the order, for the next page.
    pub last: Option<String>,
}

/// A match.
#[derive(Debug)]
pub struct Match {
    /// The resource.
    pub stored: Stored,
    /// How well its text matches, in millionths.
    pub score: Option<u64>,
    /// The resources inside it that match.
    pub inside: Vec<Value>,
    /// Whether it matches by itself, and not only by what is inside.
    pub by_itself: bool,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct From<'a> {
    /// How many matches to pass over.
    pub offset: usize,
    /// The place in the order after which to begin: then nothing needs to be passed over.
    pub after: Option<&'a str>,
}

impl Snapshot {
    /// What one search may cost.
    #[must_use]
    pub fn budget(&self) -> Budget {
        Budget::new(self.store.search_steps.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// The matches of `search`, `count` of them from `from` on, in its order; `now_ms` is what approximate dates are
    /// measured from.
    ///
    /// # Errors
    /// A value that cannot be read; an index or a file that cannot be read; more work than `budget` allows.
    pub fn search(&self, search: &Search, from: From<'_>, count: usize, now_ms: i64, budget: &Budget) -> Result<Page, Failure> {
        let compiled = self.compile(search, now_ms, budget)?;
        let sort: Vec<SortKey> = compiled.sort.iter().map(|o| SortKey { by: sort_by(&o.by, compiled.text.as_ref()), descending: o.descending }).collect();
        let bad_cursor = || Failure::new(Kind::BadValue, "_cursor is not one this server made for this search; follow the links of a search result");
        if search.contained_alone && compiled.contained.is_some() {
            return self.contained(search, &compiled, &sort, from.offset, count, budget);
        }
        let after = from.after.map(|text| Position::from_text(text, sort.len()).ok_or_else(bad_cursor)).transpose()?;
        let offset = if after.is_some() { 0 } else { from.offset };
        let body = |type_name: &'static str, version: &Version| self.body_for(type_name, version, budget);
        let find = Find { query: &compiled.query, sort: &sort, offset, after: after.as_ref(), count, body: &body, budget };
        let found = self.view.find(&find).map_err(|e| unreadable(&e)).and_then(|found| within(budget, found))?;
        let hits = found.hits.into_iter().map(|hit| self.matched(self.stored(&hit)?, search, &compiled));
        Ok(Page { total: found.total, hits: hits.collect::<Result<_, Failure>>()?, last: found.last.map(|p| p.to_text()) })
    }

    /// A page of the resources inside others, each for itself; which and how many they are, only the others' content tells.
    fn contained(&self, search: &Search, compiled: &Compiled, sort: &[SortKey], offset: usize, count: usize, budget: &Budget) -> Result<Page, Failure> {
        let body = |type_name: &'static str, version: &Version| self.body_for(type_name, version, budget);
        let find = Find { query: &compiled.query, sort, offset: 0, after: None, count: usize::MAX, body: &body, budget };
        let found = self.view.find(&find).map_err(|e| unreadable(&e)).and_then(|found| within(budget, found))?;
        let mut all = Vec::new();
        for hit in &found.hits {
            if !budget.spend(200) {
                break;
            }
            let whole = self.matched(self.stored(hit)?, search, compiled)?;
            let (stored, score) = (whole.stored, whole.score);
            let of = |inside, by_itself| Match { stored: stored.clone(), score, inside, by_itself };
            all.extend(whole.by_itself.then(|| of(Vec::new(), true)));
            all.extend(whole.inside.into_iter().map(|inner| of(vec![inner], false)));
        }
        let total = within(budget, all.len())?;
        Ok(Page { total, hits: all.into_iter().skip(offset).take(count).collect(), last: None })
    }

    /// Makes a search ready for the index.
    ///
    /// # Errors
    /// As [`Snapshot::search`].
    pub fn compile(&self, search: &Search, now_ms: i64, budget: &Budget) -> Result<Compiled, Failure> {
        let now = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
        Compiled::new(search, self.origin(), now, &Looking { snapshot: self, budget })
    }

    /// A resource that a search has to look at. One that cannot be read is noted: it neither matches nor does it not.
    pub(super) fn body_for(&self, type_name: &str, version: &Version, budget: &Budget) -> Option<Body> {
        self.body(type_name, version).inspect_err(|_| budget.miss()).ok()
    }

    /// What a search may look up in this snapshot.
    #[must_use]
    pub fn looking<'a>(&'a self, budget: &'a Budget) -> impl Lookup + 'a {
        Looking { snapshot: self, budget }
    }

    /// The first `count` resources that `query` wants, and how many there are.
    ///
    /// # Errors
    /// The index or a file cannot be read; more work than `budget` allows.
    pub fn matching(&self, query: &Query, count: usize, budget: &Budget) -> Result<(usize, Vec<Stored>), Failure> {
        let body = |type_name: &'static str, version: &Version| self.body_for(type_name, version, budget);
        let find = Find { query, sort: &[], offset: 0, after: None, count, body: &body, budget };
        let found = self.view.find(&find).map_err(|e| unreadable(&e)).and_then(|found| within(budget, found))?;
        Ok((found.total, found.hits.iter().map(|hit| self.stored(hit)).collect::<Result<_, _>>()?))
    }

    fn stored(&self, hit: &Hit) -> Result<Stored, Failure> {
        Ok(Stored { type_name: hit.type_name, version: hit.version, body: self.body(hit.type_name, &hit.version)? })
    }

    fn matched(&self, stored: Stored, search: &Search, compiled: &Compiled) -> Result<Match, Failure> {
        let score = compiled.text.as_ref().map(|(field, text)| score_of(&stored.body, *field, text));
        let Some(plain) = &compiled.contained else { return Ok(Match { stored, score, inside: Vec::new(), by_itself: true }) };
        let value: Value = serde_json::from_slice(&stored.body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        let inside = contained_matches(&value, plain, &self.origin()).cloned().collect();
        let by_itself = search.contained == Contained::Both && {
            let id = value.get("id").and_then(Value::as_str).unwrap_or_default().parse()?;
            let entry = self.entry_of(stored.type_name, &id, stored.version, &value);
            plain.matches(&entry.keys, &|| Some(stored.body.clone()))
        };
        Ok(Match { stored, score, inside, by_itself })
    }
}

/// Looks up in a snapshot what a search leads to.
struct Looking<'a> {
    snapshot: &'a Snapshot,
    budget: &'a Budget,
}

impl Looking<'_> {
    fn body(&self, type_name: &'static str, version: &Version) -> Option<Body> {
        self.snapshot.body_for(type_name, version, self.budget)
    }
}

impl Lookup for Looking<'_> {
    fn uids(&self, query: &Query) -> Result<Vec<Box<str>>, Failure> {
        let found = self.snapshot.view.uids(query, &|t, v| self.body(t, v), self.budget).map_err(|e| unreadable(&e))?;
        within(self.budget, found)
    }

    fn terms(&self, query: &Query, prefix: &str) -> Result<Vec<Box<str>>, Failure> {
        if let Some(param) = prefix.split_once('\u{1f}').and_then(|(name, _)| name.split_once('/')).and_then(|(t, c)| self.snapshot.params.of(t).get(c)) {
            let (total, few) = self.snapshot.matching(query, FEW, self.budget)?;
            if total <= FEW {
                self.budget.spend(200 * total as u64);
                let mut found: Vec<Box<str>> = Vec::new();
                for stored in few {
                    let origin = self.snapshot.origin();
                    let terms = |nodes: &[Node<'_>], _| keys_of(param, nodes, &origin).terms_with(prefix).map(Box::from).collect::<Vec<_>>();
                    found.extend(param.in_stored(&stored.body, origin.definitions(), terms).unwrap_or_default());
                }
                found.sort_unstable();
                found.dedup();
                return within(self.budget, found);
            }
        }
        let found = self.snapshot.view.terms(query, prefix, &|t, v| self.body(t, v), self.budget).map_err(|e| unreadable(&e))?;
        within(self.budget, found)
    }

    fn is_there(&self, query: &Query) -> Result<bool, Failure> {
        // Looking a term up costs, also where there is none.
        self.budget.spend(50);
        let (total, _) = self.snapshot.matching(query, 0, self.budget)?;
        within(self.budget, total > 0)
    }

    fn resources(&self, query: &Query, most: usize) -> Result<Vec<Value>, Failure> {
        let (_, found) = self.snapshot.matching(query, most, self.budget)?;
        self.budget.spend(200 * found.len() as u64);
        let parse = |s: &Stored| serde_json::from_slice(&s.body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()));
        within(self.budget, found.iter().map(parse).collect::<Result<_, _>>()?)
    }
}

/// What was found, if the budget lasted.
///
/// # Errors
/// It did not.
pub fn within<T>(budget: &Budget, found: T) -> Result<T, Failure> {
    if budget.has_missed() {
        return Err(Failure::new(Kind::Damaged, "a stored resource that the search has to look at cannot be read, so what it finds would not be all"));
    }
    if !budget.is_spent() {
        return Ok(found);
    }
    let message = format!(
        "the search takes more than {} steps; narrow it down by a parameter that fewer resources match, with fewer values or shorter chains, or raise --max-search-steps",
        budget.most()
    );
    Err(Failure::new(Kind::TooCostly, message))
}

fn unreadable(error: &std::io::Error) -> Failure {
    Failure::new(Kind::Internal, format!("the index cannot be read: {error}"))
}

fn sort_by(by: &OrderBy, text: Option<&(TextField, Arc<Text>)>) -> SortBy {
    match (by, text) {
        (OrderBy::Score, Some((field, text))) => SortBy::Score(*field, text.clone()),
        // Without words to match, all are alike.
        (OrderBy::Score, None) => SortBy::Columns(Vec::new()),
        (OrderBy::LastUpdated, _) => SortBy::Event,
        (OrderBy::Columns(names), _) => SortBy::Columns(names.clone()),
        (OrderBy::Terms(prefixes), _) => SortBy::Terms(prefixes.clone()),
    }
}
