//! Searching both indexes as one: matches, their order, a page of them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use tantivy::DocAddress;

use super::committed::{Segment, packed};
use super::execute::{Bits, Budget, Context, Node};
use super::order::{Order, Position, Ranks, SortKey, Time, compare, place_in_time, value_of};
use super::{Entry, Hit, Recent, View};
use crate::clock::EventId;
use crate::fhir::raw;
use crate::query::Query;
use crate::version::{Change, Version};

/// What is looked for.
pub struct Find<'a> {
    /// Which resources.
    pub query: &'a Query,
    /// In which order; what is equal is ordered by event, the newest first, and within an event by the file's number.
    pub sort: &'a [SortKey],
    /// How many to pass over.
    pub offset: usize,
    /// Pass over what comes up to here in the order, too.
    pub after: Option<&'a Position>,
    /// How many to return.
    pub count: usize,
    /// Reads a stored resource, for the checks that terms cannot decide.
    pub body: &'a ReadBody<'a>,
    /// What it may cost; once that is spent, what is found is not all.
    pub budget: &'a Budget,
}

/// Reads a version of a resource of a type.
pub type ReadBody<'a> = dyn Fn(&'static str, &Version) -> Option<Arc<[u8]>> + 'a;

/// A page of matches.
#[derive(Debug, Default)]
pub struct Found {
    /// How many match in all.
    pub total: usize,
    /// The page.
    pub hits: Vec<Hit>,
    /// The place of its last hit in the order.
    pub last: Option<Position>,
}

struct Candidate {
    position: Position,
    hit: Hit,
}

impl View {
    /// An empty picture over `committed`.
    #[must_use]
    pub fn new(committed: super::Committed) -> Self {
        let masked = committed.hidden().clone();
        Self { committed, recent: Recent::default(), masked }
    }

    /// Takes in one more version; returns whether the resource was there, and not deleted, before.
    pub fn push(&mut self, entry: Arc<Entry>) -> bool {
        if entry.rewrites {
            self.masked.extend(self.committed.version_documents(&entry.uid));
        }
        let existed = match self.recent.latest(&entry.uid) {
            Some(before) => !before.version.is_deletion(),
            // The first version of a resource follows nothing: nothing needs to be looked up.
            None if entry.version.id.0 == 1 && !entry.again && !entry.rewrites => false,
            None => match self.committed.current(&entry.uid) {
                Some((document, _)) => {
                    self.masked.insert(document);
                    true
                }
                None => false,
            },
        };
        self.recent.push(entry);
        existed
    }

    /// The same after a flush that moved the first `flushed` recent versions into `committed`.
    #[must_use]
    pub fn flushed(&self, committed: super::Committed, flushed: usize) -> Self {
        let mut next = Self::new(committed);
        next.catch_up(self, flushed);
        next
    }

    /// Adds the recent versions of `newer` from the `known`th on.
    pub fn catch_up(&mut self, newer: &Self, known: usize) {
        for entry in newer.recent.pushed().skip(known) {
            self.push(entry.clone());
        }
    }

    /// The latest version of a resource; it may be a deletion.
    #[must_use]
    pub fn latest(&self, uid: &str) -> Option<Hit> {
        if let Some(entry) = self.recent.latest(uid) {
            return (entry.version.change != Change::Purge).then(|| hit_of(entry));
        }
        if let Some((_, hit)) = self.committed.current(uid) {
            return Some(hit);
        }
        let version = self.committed.versions(uid).into_iter().next()?;
        Some(Hit { type_name: "", version })
    }

    /// Every version of a resource, newest first.
    #[must_use]
    pub fn versions(&self, uid: &str) -> Vec<Version> {
        let mut found: Vec<Version> = if self.recent.latest(uid).is_some() {
            self.recent.versions().filter(|e| *e.uid == *uid && !e.again && e.version.change != Change::Purge).map(|e| e.version).collect()
        } else {
            Vec::new()
        };
        found.reverse();
        if !self.recent.is_rewritten(uid) {
            found.extend(self.committed.versions(uid));
        }
        found
    }

    /// The resources that were changed after `event`, each once, with the version they had then; `None` if there are more
    /// than `most` changes.
    #[must_use]
    pub fn changed_after(&self, event: EventId, most: usize) -> Option<Vec<(Arc<str>, Option<Version>)>> {
        let mut then: HashMap<Arc<str>, Option<Version>> = HashMap::new();
        let mut changes = 0;
        // Oldest first: the last version at or before the event stays.
        for entry in self.recent.versions().filter(|e| !e.again) {
            if entry.version.was_there(event) {
                then.insert(entry.uid.clone(), Some(entry.version));
            }
            changes += usize::from(entry.version.event > event);
        }
        let mut changed: Vec<Arc<str>> = self.recent.pushed().filter(|e| e.version.event > event).map(|e| e.uid.clone()).collect();
        let committed = self.committed.changed_after(event, most);
        changes += committed.len();
        changed.extend(committed);
        if changes > most {
            return None;
        }
        changed.sort_unstable();
        changed.dedup();
        let committed_then = |uid: &Arc<str>| if self.recent.is_rewritten(uid) { Vec::new() } else { self.committed.versions(uid) };
        let version_then = |uid: &Arc<str>| then.get(uid).copied().flatten().or_else(|| committed_then(uid).into_iter().find(|v| v.was_there(event)));
        Some(changed.into_iter().map(|uid| (uid.clone(), version_then(&uid))).collect())
    }

    /// The same picture with the given resources as they were once: what `instead` holds masks what is there now.
    #[must_use]
    pub fn overlaid(&self, instead: Vec<Arc<Entry>>, hidden: &[Arc<str>]) -> Self {
        let mut next = Self::new(self.committed.clone());
        next.masked = self.masked.clone();
        for uid in hidden {
            if let Some((document, _)) = self.committed.current(uid) {
                next.masked.insert(document);
            }
        }
        let hidden: rustc_hash::FxHashSet<&str> = hidden.iter().map(|uid| &**uid).collect();
        for entry in self.recent.pushed().filter(|e| !hidden.contains(&*e.uid)) {
            next.push(entry.clone());
        }
        for entry in instead {
            next.push(entry);
        }
        next
    }

    /// Searches.
    ///
    /// # Errors
    /// Tantivy's, if the index cannot be read.
    pub fn find(&self, find: &Find<'_>) -> std::io::Result<Found> {
        let wanted = find.offset.saturating_add(find.count);
        let mut all = Found::default();
        let mut candidates = Vec::new();
        for (number, segment) in (0..).zip(self.committed.segments()) {
            let (total, best) = self.search_segment(number, segment, find, wanted).map_err(std::io::Error::other)?;
            all.total += total;
            candidates.extend(best);
        }
        self.recent_matches(find.query, find.body, find.budget, &mut |entry| {
            let body = || (find.body)(entry.type_name, &entry.version);
            all.total += 1;
            if wanted > 0 {
                let values = find.sort.iter().map(|k| value_of(&entry.keys, entry.version.made.event, k, &body)).collect();
                let position = Position { values, time: place_in_time(&entry.version) };
                if find.after.is_none_or(|after| compare(after, &position, find.sort).is_lt()) {
                    candidates.push(Candidate { position, hit: hit_of(entry) });
                }
            }
        });
        candidates.sort_by(|a, b| compare(&a.position, &b.position, find.sort));
        let page: Vec<Candidate> = candidates.into_iter().skip(find.offset).take(find.count).collect();
        all.last = page.last().map(|c| c.position.clone());
        all.hits = page.into_iter().map(|c| c.hit).collect();
        Ok(all)
    }

    /// `Type/id` of every match, each once.
    ///
    /// # Errors
    /// As [`View::find`].
    pub fn uids(&self, query: &Query, body: &ReadBody<'_>, budget: &Budget) -> std::io::Result<Vec<Box<str>>> {
        let mut found = Vec::new();
        for (number, segment) in (0..).zip(self.committed.segments()) {
            let mut documents = Vec::new();
            self.matches(number, segment, query, body, budget, &mut |doc| documents.push(doc)).map_err(std::io::Error::other)?;
            budget.spend(documents.len() as u64);
            match self.few_uids(number, &documents, body) {
                Some(few) => found.extend(few),
                None => found.extend(segment.uids(&documents).map_err(std::io::Error::other)?),
            }
        }
        self.recent_matches(query, body, budget, &mut |entry| found.push((*entry.uid).into()));
        Ok(found)
    }

    /// `Type/id` of documents if they are few: reading them, from memory mostly, is cheaper than a look into the dictionary.
    fn few_uids(&self, segment: u32, documents: &[u32], body: &ReadBody<'_>) -> Option<Vec<Box<str>>> {
        let uid = |doc: &u32| {
            let hit = self.committed.hit(DocAddress::new(segment, *doc));
            let bytes = body(hit.type_name, &hit.version)?;
            let text = std::str::from_utf8(&bytes).ok()?;
            let id = raw::member(text, 0, "id").map(|span| raw::string(&text[span]))?;
            Some(format!("{}/{id}", hit.type_name).into())
        };
        if documents.len() > FEW { None } else { documents.iter().map(uid).collect() }
    }

    /// What follows `prefix` in the terms of the matches, each once.
    ///
    /// # Errors
    /// As [`View::find`].
    pub fn terms(&self, query: &Query, prefix: &str, body: &ReadBody<'_>, budget: &Budget) -> std::io::Result<Vec<Box<str>>> {
        let mut found: rustc_hash::FxHashSet<Box<str>> = rustc_hash::FxHashSet::default();
        for (number, segment) in (0..).zip(self.committed.segments()) {
            let mut bits = Bits::new(segment.reader.max_doc());
            let mut any = false;
            self.matches(number, segment, query, body, budget, &mut |doc| {
                bits.insert(doc);
                any = true;
            })
            .map_err(std::io::Error::other)?;
            if any {
                segment.terms_of(&bits, prefix, self.committed.fields().terms, budget, &mut found).map_err(std::io::Error::other)?;
            }
        }
        self.recent_matches(query, body, budget, &mut |entry| found.extend(entry.keys.terms_with(prefix).map(Box::from)));
        Ok(found.into_iter().collect())
    }

    fn recent_matches(&self, query: &Query, body: &ReadBody<'_>, budget: &Budget, found: &mut dyn FnMut(&Arc<Entry>)) {
        let (weight, scans) = (RECENT + query.weight(), query.scans());
        self.recent.candidates(query, &mut |entry| {
            let checked = || body(entry.type_name, &entry.version).filter(|bytes| budget.spend_check(bytes));
            let scanned = scans * (entry.keys.term_count() as u64 / SCANNED_TERMS);
            if budget.spend(weight + scanned) && query.matches(&entry.keys, &checked) {
                found(entry);
            }
        });
    }

    /// Calls `found` for the current documents of a segment that match, in ascending order.
    fn matches(&self, number: u32, segment: &Segment, query: &Query, body: &ReadBody<'_>, budget: &Budget, found: &mut dyn FnMut(u32)) -> tantivy::Result<()> {
        let node = Node::compile(query, segment, self.committed.fields(), budget)?;
        if matches!(node, Node::None) {
            return Ok(());
        }
        let alive = segment.reader.alive_bitset();
        let body = |doc: u32| {
            let hit = self.committed.hit(DocAddress::new(number, doc));
            body(hit.type_name, &hit.version)
        };
        node.for_each(segment.reader.max_doc(), &Context { body: &body, budget, weight: query.weight().div_ceil(4) }, &mut |doc| {
            if !alive.is_some_and(|alive| alive.is_deleted(doc)) && !self.masked.contains(&packed(DocAddress::new(number, doc))) {
                found(doc);
            }
        });
        Ok(())
    }

    /// The number of matches in a segment and the first `wanted` of them.
    fn search_segment(&self, number: u32, segment: &Segment, find: &Find<'_>, wanted: usize) -> tantivy::Result<(usize, Vec<Candidate>)> {
        let fields = self.committed.fields();
        let mut total = 0;
        let mut best = Best { wanted, kept: Vec::new() };
        let mut order: Option<(Vec<Order>, Option<Place>)> = None;
        self.matches(number, segment, find.query, find.body, find.budget, &mut |doc| {
            total += 1;
            if wanted == 0 {
                return;
            }
            // Made at the first match: for a sort by terms it reads many postings.
            let (order, after) = order.get_or_insert_with(|| {
                let order: Vec<Order> = find.sort.iter().map(|k| Order::open(segment, k, fields)).collect();
                let after = find.after.map(|after| (after.ranks(&order), Reverse(after.time)));
                (order, after)
            });
            let ranks: Ranks = order.iter_mut().map(|o| o.rank(doc)).collect();
            let time = segment.time(doc);
            if after.as_ref().is_none_or(|(last, last_time)| (&ranks, Reverse(time)) > (last, *last_time)) {
                best.push(ranks, time, doc);
            }
        })?;
        let order = order.map(|(order, _)| order).unwrap_or_default();
        let candidates = best.into_documents().into_iter().map(|(ranks, doc)| {
            let hit = self.committed.hit(DocAddress::new(number, doc));
            let values = order.iter().zip(ranks).map(|(o, rank)| o.value(rank, doc)).collect();
            Candidate { position: Position { values, time: place_in_time(&hit.version) }, hit }
        });
        Ok((total, candidates.collect()))
    }
}

/// Up to how many documents are few.
const FEW: usize = 16;

/// A place in the order of a segment.
type Place = (Ranks, Reverse<Time>);

/// What looking at a recent write costs, in the budget's steps.
const RECENT: u64 = 4;
/// How many terms of a recent resource are looked through in a step.
const SCANNED_TERMS: u64 = 4;

fn hit_of(entry: &Arc<Entry>) -> Hit {
    Hit { type_name: entry.type_name, version: entry.version }
}

/// Ranks by the keys, then event and file number, then the document.
type Ranking = (Ranks, Reverse<Time>, u32);

/// Keeps the first `wanted` documents by rank, in a buffer twice that size.
struct Best {
    wanted: usize,
    kept: Vec<Ranking>,
}

impl Best {
    fn push(&mut self, ranks: Ranks, time: Time, doc: u32) {
        // Newest first.
        self.kept.push((ranks, Reverse(time), doc));
        if self.kept.len() >= self.wanted.saturating_mul(2).max(64) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.kept.len() > self.wanted {
            if self.wanted > 0 {
                self.kept.select_nth_unstable(self.wanted - 1);
            }
            self.kept.truncate(self.wanted);
        }
    }

    fn into_documents(mut self) -> Vec<(Ranks, u32)> {
        self.cut();
        self.kept.into_iter().map(|(ranks, _, doc)| (ranks, doc)).collect()
    }
}
