//! A [`Query`] executed on one segment: the cheapest clause drives, the others are asked for each of its documents.

use std::cell::Cell;
use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::postings::SegmentPostings;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, TERMINATED};

use super::committed::Segment;
use super::schema::Fields;
use crate::query::{Check, Query};

/// What looking at a document, or at one more place where a term occurs, costs.
const DOCUMENT: u64 = 1;
/// What looking up a term costs.
const TERM: u64 = 10;
/// What reading a stored resource and checking it costs,
const CHECK: u64 = 200;
/// and one step more for so many of its bytes.
const CHECKED_BYTES: u64 = 10;
/// After how many steps, as a power of two, others may come in between: about a millisecond.
const BREATH: u32 = 15;

/// What a search may still cost, in steps of roughly a tenth of a microsecond.
///
/// Steps are counted and not timed: the same search on the same data is always accepted or always refused.
#[derive(Debug)]
pub struct Budget {
    left: Cell<u64>,
    most: u64,
    missed: Cell<bool>,
}

impl Budget {
    /// A budget of `most` steps.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { left: Cell::new(most), most, missed: Cell::new(false) }
    }

    /// Takes steps off it; `false` if they are more than is left. What was found until then is not all.
    pub fn spend(&self, steps: u64) -> bool {
        let left = self.left.get();
        let rest = left.saturating_sub(steps);
        self.left.set(rest);
        // Who asks for much lets in those who ask for little.
        if (self.most - left) >> BREATH != (self.most - rest) >> BREATH {
            std::thread::yield_now();
        }
        left > steps
    }

    /// Takes off it what reading and checking a stored resource costs; `false` as [`Budget::spend`].
    pub fn spend_check(&self, body: &[u8]) -> bool {
        self.spend(CHECK + body.len() as u64 / CHECKED_BYTES)
    }

    /// Whether all of it is spent.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// Notes that a stored resource that had to be looked at could not be read: what is found is not all.
    pub fn miss(&self) {
        self.missed.set(true);
    }

    /// Whether one could not be read.
    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.missed.get()
    }

    /// How much it was.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }
}

/// What a document is decided with.
pub struct Context<'a> {
    /// Reads the stored resource that a document of the segment stands for.
    pub body: &'a dyn Fn(u32) -> Option<Arc<[u8]>>,
    /// What it may cost.
    pub budget: &'a Budget,
    /// What one document costs.
    pub weight: u64,
}

impl Context<'_> {
    fn passes(&self, doc: u32, check: &Check) -> bool {
        !self.budget.is_spent() && (self.body)(doc).is_some_and(|bytes| self.budget.spend_check(&bytes) && (check.0)(&bytes))
    }
}

/// A query made ready for one segment. Documents are asked for in ascending order.
#[expect(clippy::large_enum_variant, reason = "a query has few nodes, and each is made where it is used")]
pub enum Node {
    All,
    None,
    Postings(SegmentPostings),
    Bits(Bits),
    Column { column: Column<i64>, from: i64, to: i64 },
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Verify(Box<Node>, Check),
}

/// A set of documents, one bit each.
pub struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn new(documents: u32) -> Self {
        Self(vec![0; documents as usize / 64 + 1])
    }

    pub(super) fn insert(&mut self, doc: u32) {
        self.0[doc as usize / 64] |= 1 << (doc % 64);
    }

    pub(super) fn has(&self, doc: u32) -> bool {
        self.0[doc as usize / 64] >> (doc % 64) & 1 == 1
    }
}

impl Node {
    /// Makes `query` ready for `segment`.
    pub fn compile(query: &Query, segment: &Segment, fields: &Fields, budget: &Budget) -> tantivy::Result<Self> {
        let field = fields.terms;
        let all = |parts: &[Query]| parts.iter().map(|p| Self::compile(p, segment, fields, budget)).collect::<tantivy::Result<Vec<_>>>();
        budget.spend(TERM);
        Ok(match query {
            Query::All => Self::All,
            Query::None => Self::None,
            Query::Term(term) => {
                let inverted = segment.reader.inverted_index(field)?;
                match inverted.terms().get(term.as_bytes())? {
                    Some(info) => Self::Postings(inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?),
                    None => Self::None,
                }
            }
            Query::TermRange { from, to } => Self::term_range(segment, field, from, to.as_deref(), budget)?,
            Query::TermContains { prefix, part, at_end } => Self::containing(segment, field, prefix, part, *at_end, budget)?,
            Query::TermsOf { prefix, rest } => Self::terms_of(segment, field, prefix, rest, budget)?,
            Query::Text(field, text) => super::text::node(*field, text, segment, fields, budget)?,
            Query::Column { column, from, to } => match segment.column(column) {
                Some(column) if column.min_value() <= *to && column.max_value() >= *from => Self::Column { column, from: *from, to: *to },
                _ => Self::None,
            },
            Query::And(parts) => {
                let parts = all(parts)?;
                if parts.iter().any(|p| matches!(p, Self::None)) { Self::None } else { Self::And(parts) }
            }
            Query::Or(parts) => {
                let mut parts = all(parts)?;
                parts.retain(|p| !matches!(p, Self::None));
                match parts.len() {
                    0 => Self::None,
                    1 => parts.remove(0),
                    _ => Self::Or(parts),
                }
            }
            Query::Not(part) => Self::Not(Box::new(Self::compile(part, segment, fields, budget)?)),
            Query::Verify(part, check) => match Self::compile(part, segment, fields, budget)? {
                Self::None => Self::None,
                part => Self::Verify(Box::new(part), check.clone()),
            },
        })
    }

    /// The documents that have a term which is `prefix` and something that contains `part`.
    fn containing(segment: &Segment, field: Field, prefix: &str, part: &str, at_end: bool, budget: &Budget) -> tantivy::Result<Self> {
        let inverted = segment.reader.inverted_index(field)?;
        let flat = segment.flat(field, prefix)?;
        let mut union = Union::default();
        budget.spend(flat.len() as u64 * DOCUMENT);
        for rest in flat.containing(part, at_end) {
            if !budget.spend(TERM) {
                break;
            }
            if let Some(info) = inverted.terms().get([prefix.as_bytes(), rest].concat())? {
                union.add(inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?, segment, budget);
            }
        }
        Ok(union.into_node())
    }

    /// The documents that have a term which is `prefix` and one of `rest`.
    fn terms_of(segment: &Segment, field: Field, prefix: &str, rest: &[Box<str>], budget: &Budget) -> tantivy::Result<Self> {
        let inverted = segment.reader.inverted_index(field)?;
        let mut union = Union::default();
        let mut term = prefix.as_bytes().to_vec();
        for rest in rest {
            if !budget.spend(TERM) {
                break;
            }
            term.truncate(prefix.len());
            term.extend_from_slice(rest.as_bytes());
            if let Some(info) = inverted.terms().get(&term)? {
                union.add(inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?, segment, budget);
            }
        }
        Ok(union.into_node())
    }

    pub(super) fn term_range(segment: &Segment, field: Field, from: &str, to: Option<&str>, budget: &Budget) -> tantivy::Result<Self> {
        let inverted = segment.reader.inverted_index(field)?;
        let mut range = inverted.terms().range().ge(from);
        if let Some(to) = to {
            range = range.lt(to);
        }
        let mut terms = range.into_stream()?;
        let mut union = Union::default();
        while terms.advance() && budget.spend(DOCUMENT) {
            union.add(inverted.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?, segment, budget);
        }
        Ok(union.into_node())
    }

    /// An upper bound of the documents it could name by itself; `None` if it must be asked document by document.
    fn size(&self) -> Option<u32> {
        match self {
            Self::None => Some(0),
            Self::Postings(postings) => Some(postings.doc_freq()),
            Self::Bits(bits) => Some(bits.0.iter().map(|w| w.count_ones()).sum()),
            Self::And(parts) => parts.iter().filter_map(Node::size).min(),
            Self::Or(parts) => parts.iter().try_fold(0_u32, |sum, p| Some(sum.saturating_add(p.size()?))),
            Self::Verify(part, _) => part.size(),
            Self::All | Self::Column { .. } | Self::Not(_) => None,
        }
    }

    /// Whether `doc` is wanted; must be asked with ascending documents.
    fn has(&mut self, doc: u32, context: &Context<'_>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Postings(postings) => (if postings.doc() < doc { postings.seek(doc) } else { postings.doc() }) == doc,
            Self::Bits(bits) => bits.has(doc),
            Self::Column { column, from, to } => column.values_for_doc(doc).any(|v| *from <= v && v <= *to),
            Self::And(parts) => parts.iter_mut().all(|p| p.has(doc, context)),
            Self::Or(parts) => parts.iter_mut().any(|p| p.has(doc, context)),
            Self::Not(part) => !part.has(doc, context),
            Self::Verify(part, check) => part.has(doc, context) && context.passes(doc, check),
        }
    }

    /// Calls `found` for every wanted document, in ascending order.
    pub fn for_each(mut self, documents: u32, context: &Context<'_>, found: &mut dyn FnMut(u32)) {
        // What is to be checked is found first.
        if let Self::Verify(part, check) = self {
            if part.size().is_some() {
                part.for_each(documents, context, &mut |doc| {
                    if context.passes(doc, &check) {
                        found(doc);
                    }
                });
                return;
            }
            self = Self::Verify(part, check);
        }
        let driver = match &mut self {
            // The driver is taken out of the conjunction: its documents need not be asked for it again.
            Self::And(parts) => {
                let cheapest = (0..parts.len()).filter_map(|i| parts[i].size().map(|n| (n, i))).min();
                cheapest.map(|(_, i)| std::mem::replace(&mut parts[i], Self::All))
            }
            Self::Postings(_) | Self::Bits(_) | Self::Or(_) | Self::None => Some(std::mem::replace(&mut self, Self::All)),
            Self::All | Self::Column { .. } | Self::Not(_) | Self::Verify(..) => None,
        };
        match driver {
            Some(Self::None) => {}
            Some(Self::Postings(mut postings)) => {
                let mut doc = postings.doc();
                while doc != TERMINATED && context.budget.spend(context.weight) {
                    if self.has(doc, context) {
                        found(doc);
                    }
                    doc = postings.advance();
                }
            }
            Some(mut other) => {
                if let Some(bits) = other.enumerate(documents, context) {
                    bits.each(&mut |doc| {
                        if context.budget.spend(context.weight) && self.has(doc, context) {
                            found(doc);
                        }
                    });
                } else {
                    (0..documents)
                        .take_while(|_| context.budget.spend(context.weight))
                        .filter(|doc| other.has(*doc, context) && self.has(*doc, context))
                        .for_each(found);
                }
            }
            None => (0..documents).take_while(|_| context.budget.spend(context.weight)).filter(|doc| self.has(*doc, context)).for_each(found),
        }
    }

    /// The documents it names by itself, if it can.
    fn enumerate(&mut self, documents: u32, context: &Context<'_>) -> Option<Bits> {
        self.size()?;
        let mut set = Bits::new(documents);
        match std::mem::replace(self, Self::None) {
            Self::Bits(bits) => return Some(bits),
            Self::Or(parts) => {
                for part in parts {
                    part.for_each(documents, context, &mut |doc| set.insert(doc));
                }
            }
            other => other.for_each(documents, context, &mut |doc| set.insert(doc)),
        }
        Some(set)
    }
}

impl Bits {
    fn each(&self, found: &mut dyn FnMut(u32)) {
        for (word, base) in self.0.iter().zip((0_u32..).step_by(64)) {
            let mut rest = *word;
            while rest != 0 {
                found(base + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
    }
}

/// The documents of several terms. One term is the common case and needs no set.
#[derive(Default)]
pub(super) struct Union {
    first: Option<SegmentPostings>,
    bits: Option<Bits>,
}

impl Union {
    pub(super) fn add(&mut self, mut postings: SegmentPostings, segment: &Segment, budget: &Budget) {
        if self.first.is_none() && self.bits.is_none() {
            self.first = Some(postings);
            return;
        }
        let set = self.bits.get_or_insert_with(|| Bits::new(segment.reader.max_doc()));
        if let Some(mut first) = self.first.take() {
            drain(&mut first, set, budget);
        }
        drain(&mut postings, set, budget);
    }

    pub(super) fn into_node(self) -> Node {
        match (self.first, self.bits) {
            (Some(postings), _) => Node::Postings(postings),
            (None, Some(bits)) => Node::Bits(bits),
            (None, None) => Node::None,
        }
    }
}

fn drain(postings: &mut SegmentPostings, set: &mut Bits, budget: &Budget) {
    let mut doc = postings.doc();
    while doc != TERMINATED && budget.spend(DOCUMENT) {
        set.insert(doc);
        doc = postings.advance();
    }
}
