//! Searching both indexes as one: matches, their order, a page of them.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::{DocAddress, DocSet};

use super::committed::{Segment, packed};
use super::execute::Node;
use super::{Entry, Hit, Recent, View};
use crate::clock::EventId;
use crate::query::{Keys, Query};
use crate::version::Version;

/// What is looked for.
pub struct Find<'a> {
    /// Which resources.
    pub query: &'a Query,
    /// In which order; what is equal is ordered by event, the newest first, and within an event by the file's number.
    pub sort: &'a [SortKey],
    /// How many to pass over.
    pub offset: usize,
    /// How many to return.
    pub count: usize,
    /// Reads a stored resource, for the checks that terms cannot decide.
    pub body: &'a ReadBody<'a>,
}

/// Reads a version of a resource of a type.
pub type ReadBody<'a> = dyn Fn(&'static str, &Version) -> Option<Arc<[u8]>> + 'a;

/// One key of the order.
#[derive(Clone, Debug)]
pub struct SortKey {
    /// By what.
    pub by: SortBy,
    /// Greatest first.
    pub descending: bool,
}

/// What an order goes by. A resource with several values counts with its least, in descending order its greatest;
/// resources without one come last either way.
#[derive(Clone, Debug)]
pub enum SortBy {
    /// The event that made the current version.
    Event,
    /// A column of numbers; of several columns (one a type) the one a resource has.
    Columns(Vec<Box<str>>),
    /// The terms that begin with one of these prefixes, by the text after it.
    Terms(Vec<Box<str>>),
}

/// A page of matches.
#[derive(Debug, Default)]
pub struct Found {
    /// How many match in all.
    pub total: usize,
    /// The page.
    pub hits: Vec<Hit>,
}

/// A value to order by; ascending order is its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Text(Vec<u8>),
}

/// The keys of one match: comparable across segments and recent writes.
type Position = (Vec<Option<Value>>, (EventId, u32));

struct Candidate {
    position: Position,
    hit: Hit,
}

impl View {
    /// An empty picture over `committed`.
    #[must_use]
    pub fn new(committed: super::Committed) -> Self {
        Self { committed, recent: Recent::default(), masked: imbl::HashSet::default() }
    }

    /// Takes in one more version; returns whether the resource was there, and not deleted, before.
    pub fn push(&mut self, entry: Arc<Entry>) -> bool {
        let existed = match self.recent.latest(&entry.uid) {
            Some(before) => !before.version.is_deletion(),
            // The first version of a resource follows nothing: nothing needs to be looked up.
            None if entry.version.id.0 == 1 => false,
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
        for entry in newer.recent.versions().skip(known) {
            self.push(entry.clone());
        }
    }

    /// The latest version of a resource; it may be a deletion.
    #[must_use]
    pub fn latest(&self, uid: &str) -> Option<Hit> {
        if let Some(entry) = self.recent.latest(uid) {
            return Some(hit_of(entry));
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
        let mut found: Vec<Version> =
            if self.recent.latest(uid).is_some() { self.recent.versions().rev().filter(|e| *e.uid == *uid).map(|e| e.version).collect() } else { Vec::new() };
        found.extend(self.committed.versions(uid));
        found
    }

    /// The resources that were changed after `event`, each once, with the version they had then; `None` if there are more
    /// than `most` changes.
    #[must_use]
    pub fn changed_after(&self, event: EventId, most: usize) -> Option<Vec<(Arc<str>, Option<Version>)>> {
        let mut then: HashMap<Arc<str>, Option<Version>> = HashMap::new();
        let mut changes = 0;
        // Oldest first: the last version at or before the event stays.
        for entry in self.recent.versions() {
            if entry.version.event <= event {
                then.insert(entry.uid.clone(), Some(entry.version));
            } else {
                changes += 1;
            }
        }
        let mut changed: Vec<Arc<str>> = self.recent.versions().filter(|e| e.version.event > event).map(|e| e.uid.clone()).collect();
        let committed = self.committed.changed_after(event, most);
        changes += committed.len();
        changed.extend(committed);
        if changes > most {
            return None;
        }
        changed.sort_unstable();
        changed.dedup();
        let version_then = |uid: &Arc<str>| then.get(uid).copied().flatten().or_else(|| self.committed.versions(uid).into_iter().find(|v| v.event <= event));
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
        for entry in self.recent.versions().filter(|e| !hidden.contains(&*e.uid)) {
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
        self.recent.candidates(find.query, &mut |entry| {
            let body = || (find.body)(entry.type_name, &entry.version);
            if !find.query.matches(&entry.keys, &body) {
                return;
            }
            all.total += 1;
            if wanted > 0 {
                let values = find.sort.iter().map(|k| value_of(&entry.keys, entry.version.event, k)).collect();
                candidates.push(Candidate { position: (values, place_in_time(&entry.version)), hit: hit_of(entry) });
            }
        });
        candidates.sort_by(|a, b| compare(&a.position, &b.position, find.sort));
        all.hits = candidates.into_iter().skip(find.offset).take(find.count).map(|c| c.hit).collect();
        Ok(all)
    }

    /// The number of matches in a segment and the first `wanted` of them.
    fn search_segment(&self, number: u32, segment: &Segment, find: &Find<'_>, wanted: usize) -> tantivy::Result<(usize, Vec<Candidate>)> {
        let node = Node::compile(find.query, segment, self.committed.terms_field())?;
        if matches!(node, Node::None) {
            return Ok((0, Vec::new()));
        }
        let alive = segment.reader.alive_bitset();
        let body = |doc: u32| {
            let hit = self.committed.hit(DocAddress::new(number, doc));
            (find.body)(hit.type_name, &hit.version)
        };
        let mut total = 0;
        let mut best = Best { wanted, kept: Vec::new() };
        let mut order: Option<Vec<Order>> = None;
        node.for_each(segment.reader.max_doc(), &body, &mut |doc| {
            if alive.is_some_and(|alive| alive.is_deleted(doc)) || self.masked.contains(&packed(DocAddress::new(number, doc))) {
                return;
            }
            total += 1;
            if wanted > 0 {
                // Made at the first match: for a sort by terms it reads many postings.
                let order = order.get_or_insert_with(|| find.sort.iter().map(|k| Order::open(segment, k, self.committed.terms_field())).collect());
                best.push(order.iter().map(|o| o.rank(doc)).collect(), segment.time(doc), doc);
            }
        });
        let candidates = best.into_documents().into_iter().map(|doc| {
            let hit = self.committed.hit(DocAddress::new(number, doc));
            let values = order.iter().flatten().map(|o| o.value(doc, segment, self.committed.terms_field())).collect();
            Candidate { position: (values, place_in_time(&hit.version)), hit }
        });
        Ok((total, candidates.collect()))
    }
}

fn hit_of(entry: &Arc<Entry>) -> Hit {
    Hit { type_name: entry.type_name, version: entry.version }
}

/// What orders two versions: the event, and within one the number of the file.
fn place_in_time(version: &Version) -> (EventId, u32) {
    (version.event, version.place.number)
}

fn compare(a: &Position, b: &Position, sort: &[SortKey]) -> Ordering {
    for ((left, right), key) in a.0.iter().zip(&b.0).zip(sort) {
        let order = match (left, right) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(left), Some(right)) if key.descending => right.cmp(left),
            (Some(left), Some(right)) => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    b.1.cmp(&a.1)
}

/// What a recent write is ordered by.
fn value_of(keys: &Keys, event: EventId, key: &SortKey) -> Option<Value> {
    let pick = |values: &mut dyn Iterator<Item = Value>| if key.descending { values.max() } else { values.min() };
    match &key.by {
        SortBy::Event => Some(Value::Number(i64::try_from(event.to_u64()).unwrap_or(i64::MAX))),
        SortBy::Columns(names) => pick(&mut keys.columns().filter(|(name, _)| names.iter().any(|n| **n == **name)).map(|(_, v)| Value::Number(v))),
        SortBy::Terms(prefixes) => {
            let texts = prefixes.iter().flat_map(|p| keys.terms_from(p).map_while(move |t| t.strip_prefix(&**p)));
            pick(&mut texts.map(|t| Value::Text(t.as_bytes().to_vec())))
        }
    }
}

/// A sort key made ready for one segment: ranks compare within the segment, values across.
enum Order {
    Event(Column<u64>, bool),
    Columns(Vec<Column<i64>>, bool),
    /// The term that counts, by document.
    Terms(HashMap<u32, Ranked>, bool),
}

/// The term a document is ordered by.
#[derive(Clone, Copy)]
struct Ranked {
    rank: u64,
    ordinal: u64,
    /// Length of the prefix that the value leaves out.
    prefix: usize,
}

impl Order {
    fn open(segment: &Segment, key: &SortKey, field: tantivy::schema::Field) -> Self {
        match &key.by {
            SortBy::Event => Self::Event(segment.event.clone(), key.descending),
            SortBy::Columns(names) => Self::Columns(names.iter().filter_map(|n| segment.column(n)).collect(), key.descending),
            SortBy::Terms(prefixes) => Self::Terms(term_ordinals(segment, prefixes, key.descending, field).unwrap_or_default(), key.descending),
        }
    }

    /// Ascending rank within the segment; what has none is last.
    fn rank(&self, doc: u32) -> u64 {
        // One below the maximum: the maximum means that there is no value.
        let turn = |rank: u64, descending: bool| if descending { (u64::MAX - 1) - rank.min(u64::MAX - 1) } else { rank.min(u64::MAX - 1) };
        match self {
            Self::Event(column, descending) => column.first(doc).map_or(u64::MAX, |v| turn(v, *descending)),
            Self::Columns(columns, descending) => number_of(columns, doc, *descending).map_or(u64::MAX, |v| turn(v.cast_unsigned() ^ (1 << 63), *descending)),
            Self::Terms(ordinals, descending) => ordinals.get(&doc).map_or(u64::MAX, |r| turn(r.rank, *descending)),
        }
    }

    fn value(&self, doc: u32, segment: &Segment, field: tantivy::schema::Field) -> Option<Value> {
        match self {
            Self::Event(column, _) => column.first(doc).map(|v| Value::Number(i64::try_from(v).unwrap_or(i64::MAX))),
            Self::Columns(columns, descending) => number_of(columns, doc, *descending).map(Value::Number),
            Self::Terms(ordinals, _) => {
                let Ranked { ordinal, prefix, .. } = ordinals.get(&doc)?;
                let mut term = Vec::new();
                segment.reader.inverted_index(field).ok()?.terms().ord_to_term(*ordinal, &mut term).ok()?;
                Some(Value::Text(term.split_off((*prefix).min(term.len()))))
            }
        }
    }
}

fn number_of(columns: &[Column<i64>], doc: u32, descending: bool) -> Option<i64> {
    let values = columns.iter().flat_map(|c| c.values_for_doc(doc));
    if descending { values.max() } else { values.min() }
}

/// For each document its least term (greatest, if descending) with one of `prefixes`.
fn term_ordinals(segment: &Segment, prefixes: &[Box<str>], descending: bool, field: tantivy::schema::Field) -> tantivy::Result<HashMap<u32, Ranked>> {
    let inverted = segment.reader.inverted_index(field)?;
    let mut found: HashMap<u32, Ranked> = HashMap::new();
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for prefix in prefixes {
        let Query::TermRange { to, .. } = Query::prefix(prefix) else { continue };
        let mut range = inverted.terms().range().ge(prefix.as_bytes());
        if let Some(to) = to {
            range = range.lt(to.as_bytes());
        }
        let mut terms = range.into_stream()?;
        while terms.advance() {
            let ordinal = terms.term_ord();
            let mut rank = ordinal;
            if prefixes.len() > 1 {
                // Ordinals of different prefixes do not compare: they are replaced by the order of the texts below.
                rank = texts.len() as u64;
                texts.push(terms.key()[prefix.len()..].to_vec());
            }
            let ranked = Ranked { rank, ordinal, prefix: prefix.len() };
            let mut postings = inverted.read_postings_from_terminfo(terms.value(), tantivy::schema::IndexRecordOption::Basic)?;
            let mut doc = postings.doc();
            while doc != tantivy::TERMINATED {
                // A document's terms come in ascending order: the first is the least, the last the greatest.
                let slot = found.entry(doc).or_insert(ranked);
                if descending {
                    *slot = ranked;
                }
                doc = postings.advance();
            }
        }
    }
    if prefixes.len() > 1 {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by(|a, b| texts[*a].cmp(&texts[*b]));
        let mut ranks = vec![0; texts.len()];
        let mut rank = 0;
        for (n, text) in order.iter().enumerate() {
            if n > 0 && texts[order[n - 1]] != texts[*text] {
                rank += 1;
            }
            ranks[*text] = rank;
        }
        for ranked in found.values_mut() {
            ranked.rank = ranks[usize::try_from(ranked.rank).unwrap_or(0)];
        }
    }
    Ok(found)
}

/// Ranks by the keys, then event and file number, then the document.
type Ranking = (smallvec::SmallVec<[u64; 2]>, Reverse<(u64, u32)>, u32);

/// Keeps the first `wanted` documents by rank, in a buffer twice that size.
struct Best {
    wanted: usize,
    kept: Vec<Ranking>,
}

impl Best {
    fn push(&mut self, ranks: smallvec::SmallVec<[u64; 2]>, time: (u64, u32), doc: u32) {
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

    fn into_documents(mut self) -> Vec<u32> {
        self.cut();
        self.kept.into_iter().map(|(_, _, doc)| doc).collect()
    }
}
