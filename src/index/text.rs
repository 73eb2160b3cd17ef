//! Conditions on words, and the scores of documents by them, in one segment.

use tantivy::postings::{Postings, SegmentPostings};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, TERMINATED, Term};

use super::committed::Segment;
use super::execute::{Bits, Budget, Node};
use super::schema::Fields;
use crate::query::text;
use crate::query::{Query, Text, TextField};

/// Makes a condition on words ready for `segment`.
pub fn node(field: TextField, text: &Text, segment: &Segment, fields: &Fields, budget: &Budget) -> tantivy::Result<Node> {
    let all = |parts: &[Text]| parts.iter().map(|p| node(field, p, segment, fields, budget)).collect::<tantivy::Result<Vec<_>>>();
    Ok(match text {
        Text::Word(word) => postings(word, field, segment, fields, IndexRecordOption::Basic)?.map_or(Node::None, Node::Postings),
        Text::Prefix(prefix) => {
            let to = if let Query::TermRange { to, .. } = Query::prefix(prefix) { to } else { None };
            Node::term_range(segment, fields.text(field), prefix, to.as_deref(), budget)?
        }
        Text::Phrase(words) => phrase(words, field, segment, fields, budget)?,
        Text::And(parts) => {
            let parts = all(parts)?;
            if parts.iter().any(|p| matches!(p, Node::None)) { Node::None } else { Node::And(parts) }
        }
        Text::Or(parts) => Node::Or(all(parts)?),
        Text::Not(part) => Node::Not(Box::new(node(field, part, segment, fields, budget)?)),
    })
}

fn postings(word: &str, field: TextField, segment: &Segment, fields: &Fields, option: IndexRecordOption) -> tantivy::Result<Option<SegmentPostings>> {
    let field = fields.text(field);
    Ok(segment.reader.inverted_index(field)?.read_postings(&Term::from_field_text(field, word), option)?)
}

/// The documents in which the words stand side by side.
fn phrase(words: &[String], field: TextField, segment: &Segment, fields: &Fields, budget: &Budget) -> tantivy::Result<Node> {
    let mut all = Vec::with_capacity(words.len());
    for word in words {
        match postings(word, field, segment, fields, IndexRecordOption::WithFreqsAndPositions)? {
            Some(found) => all.push(found),
            None => return Ok(Node::None),
        }
    }
    // The rarest word leads.
    let Some(leader) = (0..all.len()).min_by_key(|i| all[*i].doc_freq()) else { return Ok(Node::None) };
    let mut bits = Bits::new(segment.reader.max_doc());
    let mut positions: Vec<Vec<u32>> = vec![Vec::new(); all.len()];
    let mut doc = all[leader].doc();
    while doc != TERMINATED && budget.spend(4) {
        let together = all.iter_mut().all(|p| (if p.doc() < doc { p.seek(doc) } else { p.doc() }) == doc);
        if together {
            for (postings, places) in all.iter_mut().zip(&mut positions) {
                postings.positions(places);
            }
            let follows = |start: u32| (1_u32..).zip(&positions[1..]).all(|(offset, places)| places.binary_search(&(start + offset)).is_ok());
            if positions[0].iter().any(|start| follows(*start)) {
                bits.insert(doc);
            }
        }
        doc = all[leader].advance();
    }
    Ok(Node::Bits(bits))
}

/// The score of documents, asked for in ascending order.
pub struct Scores(Vec<Option<SegmentPostings>>);

impl Scores {
    /// For the words that `text` wants.
    pub fn open(field: TextField, text: &Text, segment: &Segment, fields: &Fields) -> Self {
        let read = |word: &str| postings(word, field, segment, fields, IndexRecordOption::WithFreqs).ok().flatten();
        Self(text.wanted().into_iter().map(read).collect())
    }

    /// The score of a document.
    pub fn of(&mut self, doc: u32) -> u64 {
        let count = |postings: &mut Option<SegmentPostings>| {
            let Some(postings) = postings else { return 0 };
            let found = if postings.doc() < doc { postings.seek(doc) } else { postings.doc() };
            if found == doc { postings.term_freq() } else { 0 }
        };
        text::score(&self.0.iter_mut().map(count).collect::<Vec<_>>())
    }
}
