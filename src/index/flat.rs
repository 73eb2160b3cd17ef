//! The terms of a segment that begin alike, laid out flat: what is asked of each of them is a single pass over memory, where
//! the dictionary takes ten times as long to walk.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tantivy::SegmentReader;
use tantivy::schema::Field;
use tantivy::termdict::{TermDictionary, TermStreamer};

use crate::query::Query;

/// Between two terms: no byte of UTF-8.
const BREAK: u8 = 0xff;
/// Most bytes that are kept for one segment.
const MAX_BYTES: usize = 16 << 20;

/// The terms that begin with `prefix`, in their order.
pub fn with_prefix<'d>(dictionary: &'d TermDictionary, prefix: &str) -> io::Result<TermStreamer<'d>> {
    let mut range = dictionary.range().ge(prefix.as_bytes());
    if let Query::TermRange { to: Some(to), .. } = Query::prefix(prefix) {
        range = range.lt(to.as_bytes());
    }
    range.into_stream()
}

/// What follows a prefix in the terms of a segment, in their order.
#[derive(Debug)]
pub struct Flat {
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<u32>,
}

impl Flat {
    fn read(reader: &SegmentReader, field: Field, prefix: &str) -> tantivy::Result<Self> {
        let inverted = reader.inverted_index(field)?;
        let mut terms = with_prefix(inverted.terms(), prefix)?;
        let mut flat = Self { bytes: Vec::new(), starts: Vec::new() };
        while terms.advance() {
            flat.starts.push(u32::try_from(flat.bytes.len()).unwrap_or(u32::MAX));
            flat.bytes.extend_from_slice(&terms.key()[prefix.len()..]);
            flat.bytes.push(BREAK);
        }
        Ok(flat)
    }

    /// How many terms there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    fn term(&self, number: usize) -> &[u8] {
        let end = self.starts.get(number + 1).map_or(self.bytes.len(), |next| *next as usize) - 1;
        &self.bytes[self.starts[number] as usize..end]
    }

    /// The terms that contain `part`, or end in it, without their prefix.
    pub fn containing(&self, part: &str, at_end: bool) -> Vec<&[u8]> {
        if at_end {
            let terms = (0..self.len()).map(|term| self.term(term));
            return terms.filter(|t| t.ends_with(part.as_bytes())).collect();
        }
        let mut found = Vec::new();
        let mut last = None;
        if part.is_empty() {
            return (0..self.len()).map(|term| self.term(term)).collect();
        }
        for at in memchr::memmem::find_iter(&self.bytes, part.as_bytes()) {
            let term = self.starts.partition_point(|start| *start as usize <= at) - 1;
            if last != Some(term) {
                found.push(self.term(term));
                last = Some(term);
            }
        }
        found
    }
}

/// The flat terms of one segment, made when first asked for.
#[derive(Default)]
pub struct Flats(Mutex<FxHashMap<Box<str>, Arc<Flat>>>);

impl Flats {
    /// The terms with a prefix.
    pub fn get(&self, reader: &SegmentReader, field: Field, prefix: &str) -> tantivy::Result<Arc<Flat>> {
        if let Some(found) = self.0.lock().get(prefix) {
            return Ok(found.clone());
        }
        let made = Arc::new(Flat::read(reader, field, prefix)?);
        let mut kept = self.0.lock();
        if kept.values().map(|f| f.bytes.len()).sum::<usize>() + made.bytes.len() <= MAX_BYTES {
            kept.insert(prefix.into(), made.clone());
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_term_is_found_once() {
        let terms = ["anna", "banana", "", "nan", "zoë", "banananana"];
        let mut flat = Flat { bytes: Vec::new(), starts: Vec::new() };
        for term in terms {
            flat.starts.push(u32::try_from(flat.bytes.len()).unwrap_or(u32::MAX));
            flat.bytes.extend_from_slice(term.as_bytes());
            flat.bytes.push(BREAK);
        }
        for part in ["an", "a", "nan", "na", "x", "ë", "", "anna"] {
            for at_end in [false, true] {
                let expected: Vec<&[u8]> = terms.iter().filter(|t| if at_end { t.ends_with(part) } else { t.contains(part) }).map(|t| t.as_bytes()).collect();
                assert_eq!(flat.containing(part, at_end), expected, "{part} {at_end}");
            }
        }
    }
}
