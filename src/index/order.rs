//! The order of matches: by values across segments and recent writes, by ranks within a segment.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tantivy::DocSet;
use tantivy::columnar::Column;

use super::committed::Segment;
use super::flat::with_prefix;
use super::schema::Fields;
use super::text::Scores;
use crate::clock::EventId;
use crate::query::text::score_of;
use crate::query::{Keys, Text, TextField};
use crate::version::{Made, Version};

/// The ranks of a document by the keys of the order; less is first.
pub type Ranks = smallvec::SmallVec<[u64; 2]>;

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
    /// The score by a condition on words.
    Score(TextField, Arc<Text>),
}

/// A value to order by; ascending order is its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

/// The place of one match in the order: comparable across segments and recent writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its values by the keys of the order.
    pub(super) values: Vec<Option<Value>>,
    /// Where it is in time.
    #[serde(with = "time")]
    pub(super) time: Time,
}

/// What orders versions: the place among all, and the event that wrote the file.
pub type Time = (Made, EventId);

mod time {
    use super::{EventId, Made, Time};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        (time.0.event.to_u64(), time.0.number, time.1.to_u64()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let (made, number, event) = <(u64, u32, u64)>::deserialize(deserializer)?;
        Ok((Made { event: EventId::from_u64(made), number }, EventId::from_u64(event)))
    }
}

impl Position {
    /// As text for a link.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_vec(self).map(|json| URL_SAFE_NO_PAD.encode(json)).unwrap_or_default()
    }

    /// From the text of a link, for an order of so many keys.
    #[must_use]
    pub fn from_text(text: &str, keys: usize) -> Option<Self> {
        let found: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (found.values.len() == keys).then_some(found)
    }

    /// Where it would be in a segment.
    pub(super) fn ranks(&self, order: &[Order]) -> Ranks {
        order.iter().zip(&self.values).map(|(order, value)| order.rank_of(value.as_ref())).collect()
    }
}

/// Where a version is in time.
pub fn place_in_time(version: &Version) -> Time {
    (version.made, version.event)
}

/// Compares two places.
pub fn compare(a: &Position, b: &Position, sort: &[SortKey]) -> Ordering {
    for ((left, right), key) in a.values.iter().zip(&b.values).zip(sort) {
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
    // Newest first.
    b.time.cmp(&a.time)
}

/// What a recent write is ordered by.
pub fn value_of(keys: &Keys, event: EventId, key: &SortKey, body: &dyn Fn() -> Option<Arc<[u8]>>) -> Option<Value> {
    let pick = |values: &mut dyn Iterator<Item = Value>| if key.descending { values.max() } else { values.min() };
    match &key.by {
        SortBy::Event => Some(number(event.to_u64())),
        SortBy::Columns(names) => pick(&mut keys.columns().filter(|(name, _)| names.iter().any(|n| **n == **name)).map(|(_, v)| Value::Number(v))),
        SortBy::Terms(prefixes) => {
            let texts = prefixes.iter().flat_map(|p| keys.terms_with(p));
            pick(&mut texts.map(|t| Value::Text(t.to_owned())))
        }
        SortBy::Score(field, text) => body().map(|bytes| number(score_of(&bytes, *field, text))),
    }
}

fn number(value: u64) -> Value {
    Value::Number(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A sort key made ready for one segment: ranks compare within the segment, values across.
pub enum Order {
    /// By the last change: the event that made it first, in the first of these columns that has one.
    Event(Vec<Column<u64>>, bool),
    /// By the least number of a document, or its greatest.
    Columns(Vec<Column<i64>>, bool),
    /// By the term that counts of each document.
    Terms(TermRanks, bool),
    /// By score.
    Score(Scores, bool),
}

/// What documents without a value have.
const LAST: u64 = u64::MAX;

impl Order {
    /// Makes `key` ready for `segment`.
    pub fn open(segment: &Segment, key: &SortKey, fields: &Fields) -> Self {
        let descending = key.descending;
        match &key.by {
            SortBy::Event => Self::Event(segment.made_columns(), descending),
            SortBy::Columns(names) => Self::Columns(names.iter().filter_map(|n| segment.column(n)).collect(), descending),
            SortBy::Terms(prefixes) => Self::Terms(TermRanks::read(segment, prefixes, descending, fields).unwrap_or_default(), descending),
            SortBy::Score(field, text) => Self::Score(Scores::open(*field, text, segment, fields), descending),
        }
    }

    fn turned(&self, rank: u64) -> u64 {
        let (Self::Event(_, descending) | Self::Columns(_, descending) | Self::Terms(_, descending) | Self::Score(_, descending)) = self;
        let rank = rank.min(LAST - 1);
        if *descending { LAST - 1 - rank } else { rank }
    }

    /// Ascending rank within the segment; what has none is last. Documents are asked for in ascending order.
    pub fn rank(&mut self, doc: u32) -> u64 {
        let rank = match self {
            Self::Event(columns, _) => columns.iter().find_map(|column| column.first(doc)),
            Self::Columns(columns, descending) => number_of(columns, doc, *descending).map(|v| v.cast_unsigned() ^ (1 << 63)),
            // Even numbers are those of terms; what is not among them has its place between.
            Self::Terms(ranks, _) => ranks.of.get(&doc).map(|rank| u64::from(*rank) * 2 + 2),
            Self::Score(scores, _) => Some(scores.of(doc)),
        };
        rank.map_or(LAST, |rank| self.turned(rank))
    }

    /// The rank that a value would have.
    fn rank_of(&self, value: Option<&Value>) -> u64 {
        let rank = match (self, value) {
            (_, None) => return LAST,
            (Self::Event(..) | Self::Score(..), Some(Value::Number(n))) => n.cast_unsigned(),
            (Self::Columns(..), Some(Value::Number(n))) => n.cast_unsigned() ^ (1 << 63),
            (Self::Terms(ranks, _), Some(Value::Text(text))) => match ranks.texts.binary_search_by(|t| (**t).cmp(text.as_bytes())) {
                Ok(at) => at as u64 * 2 + 2,
                Err(at) => at as u64 * 2 + 1,
            },
            // Not a position of this order.
            (Self::Terms(..), Some(Value::Number(_))) | (_, Some(Value::Text(_))) => 0,
        };
        self.turned(rank)
    }

    /// The value of a document that has this rank.
    pub fn value(&self, rank: u64, doc: u32) -> Option<Value> {
        if rank == LAST {
            return None;
        }
        // Turning twice gives what was turned.
        let rank = self.turned(rank);
        match self {
            Self::Event(..) | Self::Score(..) => Some(number(rank)),
            Self::Columns(columns, descending) => number_of(columns, doc, *descending).map(Value::Number),
            Self::Terms(ranks, _) => {
                let text = ranks.texts.get(usize::try_from(rank / 2).ok()?.checked_sub(1)?)?;
                Some(Value::Text(String::from_utf8_lossy(text).into_owned()))
            }
        }
    }
}

fn number_of(columns: &[Column<i64>], doc: u32, descending: bool) -> Option<i64> {
    let values = columns.iter().flat_map(|c| c.values_for_doc(doc));
    if descending { values.max() } else { values.min() }
}

/// For each document the term that counts: its least, or its greatest.
#[derive(Default)]
pub struct TermRanks {
    /// What follows the prefix in the terms, sorted, each once.
    texts: Vec<Box<[u8]>>,
    /// Positions in `texts` by document.
    of: HashMap<u32, u32, rustc_hash::FxBuildHasher>,
}

impl TermRanks {
    fn read(segment: &Segment, prefixes: &[Box<str>], descending: bool, fields: &Fields) -> tantivy::Result<Self> {
        let inverted = segment.reader.inverted_index(fields.terms)?;
        // Each term with where its text stands and where its documents are.
        let mut terms = Vec::new();
        for prefix in prefixes {
            let mut found = with_prefix(inverted.terms(), prefix)?;
            while found.advance() {
                terms.push((Box::<[u8]>::from(&found.key()[prefix.len()..]), found.value().clone()));
            }
        }
        terms.sort_by(|a, b| a.0.cmp(&b.0));
        let mut all = Self::default();
        for (text, info) in terms {
            if all.texts.last() != Some(&text) {
                all.texts.push(text);
            }
            let rank = u32::try_from(all.texts.len() - 1).unwrap_or(u32::MAX);
            let mut postings = inverted.read_postings_from_terminfo(&info, tantivy::schema::IndexRecordOption::Basic)?;
            let mut doc = postings.doc();
            while doc != tantivy::TERMINATED {
                // Terms come in ascending order: a document's first is its least, its last the greatest.
                let slot = all.of.entry(doc).or_insert(rank);
                if descending {
                    *slot = rank;
                }
                doc = postings.advance();
            }
        }
        Ok(all)
    }
}
