//! A [`Query`] executed on one segment: the cheapest clause drives, the others are asked for each of its documents.

use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::postings::SegmentPostings;
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet, TERMINATED};

use super::committed::Segment;
use crate::query::{Check, Query};

/// Reads the stored resource that a document of the segment stands for.
pub type Body<'a> = dyn Fn(u32) -> Option<Arc<[u8]>> + 'a;

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
    fn new(documents: u32) -> Self {
        Self(vec![0; documents as usize / 64 + 1])
    }

    fn insert(&mut self, doc: u32) {
        self.0[doc as usize / 64] |= 1 << (doc % 64);
    }

    fn has(&self, doc: u32) -> bool {
        self.0[doc as usize / 64] >> (doc % 64) & 1 == 1
    }
}

impl Node {
    /// Makes `query` ready for `segment`.
    pub fn compile(query: &Query, segment: &Segment, field: Field) -> tantivy::Result<Self> {
        let all = |parts: &[Query]| parts.iter().map(|p| Self::compile(p, segment, field)).collect::<tantivy::Result<Vec<_>>>();
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
            Query::TermRange { from, to } => Self::term_range(segment, field, from, to.as_deref(), |_| true)?,
            Query::TermContains { prefix, part } => {
                let beyond = Query::prefix(prefix);
                let to = if let Query::TermRange { to, .. } = &beyond { to.as_deref() } else { None };
                Self::term_range(segment, field, prefix, to, |term| contains(&term[prefix.len().min(term.len())..], part.as_bytes()))?
            }
            Query::Column { column, from, to } => match segment.column(column) {
                Some(column) if column.min_value() <= *to && column.max_value() >= *from => Self::Column { column, from: *from, to: *to },
                _ => Self::None,
            },
            Query::And(parts) => {
                let parts = all(parts)?;
                if parts.iter().any(|p| matches!(p, Self::None)) { Self::None } else { Self::And(parts) }
            }
            Query::Or(parts) => Self::Or(all(parts)?),
            Query::Not(part) => Self::Not(Box::new(Self::compile(part, segment, field)?)),
            Query::Verify(part, check) => Self::Verify(Box::new(Self::compile(part, segment, field)?), check.clone()),
        })
    }

    fn term_range(segment: &Segment, field: Field, from: &str, to: Option<&str>, wanted: impl Fn(&[u8]) -> bool) -> tantivy::Result<Self> {
        let inverted = segment.reader.inverted_index(field)?;
        let mut range = inverted.terms().range().ge(from);
        if let Some(to) = to {
            range = range.lt(to);
        }
        let mut terms = range.into_stream()?;
        let mut first: Option<SegmentPostings> = None;
        let mut bits: Option<Bits> = None;
        while terms.advance() {
            if !wanted(terms.key()) {
                continue;
            }
            let mut postings = inverted.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
            // One term is the common case and needs no set.
            if first.is_none() && bits.is_none() {
                first = Some(postings);
                continue;
            }
            let set = bits.get_or_insert_with(|| Bits::new(segment.reader.max_doc()));
            for mut one in first.take().into_iter().chain(std::iter::once_with(|| std::mem::replace(&mut postings, SegmentPostings::empty()))) {
                drain(&mut one, set);
            }
        }
        Ok(match (first, bits) {
            (Some(postings), _) => Self::Postings(postings),
            (None, Some(bits)) => Self::Bits(bits),
            (None, None) => Self::None,
        })
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
    fn has(&mut self, doc: u32, body: &Body<'_>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Postings(postings) => (if postings.doc() < doc { postings.seek(doc) } else { postings.doc() }) == doc,
            Self::Bits(bits) => bits.has(doc),
            Self::Column { column, from, to } => column.values_for_doc(doc).any(|v| *from <= v && v <= *to),
            Self::And(parts) => parts.iter_mut().all(|p| p.has(doc, body)),
            Self::Or(parts) => parts.iter_mut().any(|p| p.has(doc, body)),
            Self::Not(part) => !part.has(doc, body),
            Self::Verify(part, check) => part.has(doc, body) && body(doc).is_some_and(|bytes| (check.0)(&bytes)),
        }
    }

    /// Calls `found` for every wanted document, in ascending order.
    pub fn for_each(mut self, documents: u32, body: &Body<'_>, found: &mut dyn FnMut(u32)) {
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
                while doc != TERMINATED {
                    if self.has(doc, body) {
                        found(doc);
                    }
                    doc = postings.advance();
                }
            }
            Some(mut other) => {
                if let Some(bits) = other.enumerate(documents, body) {
                    bits.each(&mut |doc| {
                        if self.has(doc, body) {
                            found(doc);
                        }
                    });
                } else {
                    (0..documents).filter(|doc| other.has(*doc, body) && self.has(*doc, body)).for_each(found);
                }
            }
            None => (0..documents).filter(|doc| self.has(*doc, body)).for_each(found),
        }
    }

    /// The documents it names by itself, if it can.
    fn enumerate(&mut self, documents: u32, body: &Body<'_>) -> Option<Bits> {
        self.size()?;
        let mut set = Bits::new(documents);
        match std::mem::replace(self, Self::None) {
            Self::Bits(bits) => return Some(bits),
            Self::Or(parts) => {
                for part in parts {
                    part.for_each(documents, body, &mut |doc| set.insert(doc));
                }
            }
            other => other.for_each(documents, body, &mut |doc| set.insert(doc)),
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

fn drain(postings: &mut SegmentPostings, set: &mut Bits) {
    let mut doc = postings.doc();
    while doc != TERMINATED {
        set.insert(doc);
        doc = postings.advance();
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|w| w == part)
}
