//! The fields of a tantivy document.
//!
//! Each resource has one *current* document with all its keys, and each of its versions one small *version* document, so
//! that reading a version, history and looking back in time need no scan.

use std::collections::BTreeMap;

use tantivy::TantivyDocument;
use tantivy::schema::{FAST, Field, IndexRecordOption, JsonObjectOptions, OwnedValue, STORED, Schema, TextFieldIndexing, TextOptions};

use super::Entry;
use crate::query::text::{self, TextField};

/// Raised whenever what is stored or how keys are made changes: an index of another number is built anew.
pub const FORMAT: u32 = 8;
/// The name of the tokenizer that parts words as [`crate::query::text::words`] does.
pub const WORDS: &str = "words";
/// The bit of the `version` column that tells a version document from a current one.
pub const IS_VERSION: u64 = 8;

#[derive(Clone, Debug)]
pub struct Fields {
    pub schema: Schema,
    /// `Patient/123` of a current document; a column, too.
    pub uid: Field,
    /// `Patient/123` of a version document; stored.
    pub version_uid: Field,
    pub terms: Field,
    /// The words of the narrative.
    pub narrative: Field,
    /// The words of every string.
    pub content: Field,
    pub columns: Field,
    pub event: Field,
    pub place: Field,
    /// Version number, and below it [`IS_VERSION`] and three bits of the change.
    pub version: Field,
    /// Position of the type among the FHIR version's resource types.
    pub type_number: Field,
    /// The last modification in milliseconds since 1970, where it is not the event's instant.
    pub modified: Field,
    /// Where its place among all versions is another than its file's: the event, and the number.
    pub made: Field,
    pub made_number: Field,
}

impl Fields {
    pub fn new() -> Self {
        let raw = TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
        let keyword = TextOptions::default().set_indexing_options(raw);
        let words = TextFieldIndexing::default().set_tokenizer(WORDS).set_index_option(IndexRecordOption::WithFreqsAndPositions).set_fieldnorms(false);
        let words = TextOptions::default().set_indexing_options(words);
        let mut schema = Schema::builder();
        Self {
            uid: schema.add_text_field("uid", keyword.clone().set_fast("raw")),
            narrative: schema.add_text_field("narrative", words.clone()),
            content: schema.add_text_field("content", words),
            version_uid: schema.add_text_field("version_uid", keyword.clone() | STORED),
            terms: schema.add_text_field("terms", keyword),
            columns: schema.add_json_field("columns", JsonObjectOptions::default().set_fast("raw")),
            event: schema.add_u64_field("event", FAST),
            place: schema.add_u64_field("place", FAST),
            version: schema.add_u64_field("version", FAST),
            type_number: schema.add_u64_field("type_number", FAST),
            modified: schema.add_i64_field("modified", FAST),
            made: schema.add_u64_field("made", FAST),
            made_number: schema.add_u64_field("made_number", FAST),
            schema: schema.build(),
        }
    }

    fn base(&self, entry: &Entry, type_number: u64, kind: u64) -> TantivyDocument {
        let mut doc = TantivyDocument::with_capacity(256);
        doc.add_u64(self.event, entry.version.event.to_u64());
        doc.add_u64(self.place, entry.version.place.to_u64());
        doc.add_u64(self.version, entry.version.id.0 << 4 | kind | entry.version.change.code());
        doc.add_u64(self.type_number, type_number);
        if entry.version.modified_ms != entry.version.event.millis() {
            doc.add_i64(self.modified, entry.version.modified_ms);
        }
        let made = entry.version.made;
        if (made.event, made.number) != (entry.version.event, entry.version.place.number) {
            doc.add_u64(self.made, made.event.to_u64());
            doc.add_u64(self.made_number, u64::from(made.number));
        }
        doc
    }

    /// The field that holds the words of `field`.
    pub fn text(&self, field: TextField) -> Field {
        match field {
            TextField::Narrative => self.narrative,
            TextField::Content => self.content,
        }
    }

    /// The document of a current resource, whose stored form is `body`.
    pub fn current(&self, entry: &Entry, type_number: u64, body: Option<&[u8]>) -> TantivyDocument {
        let mut doc = self.base(entry, type_number, 0);
        doc.add_text(self.uid, &entry.uid);
        for term in entry.keys.terms() {
            doc.add_text(self.terms, term);
        }
        let mut columns: BTreeMap<String, Vec<OwnedValue>> = BTreeMap::new();
        for (name, value) in entry.keys.columns() {
            columns.entry(name.to_owned()).or_default().push(OwnedValue::I64(value));
        }
        if !columns.is_empty() {
            doc.add_object(self.columns, columns.into_iter().map(|(k, v)| (k, OwnedValue::Array(v))).collect());
        }
        if let Some(resource) = body.and_then(|b| serde_json::from_slice::<serde_json::Value>(b).ok()) {
            for field in [TextField::Narrative, TextField::Content] {
                text::strings_of(&resource, field, &mut |string| {
                    let words = text::line(string);
                    if !words.is_empty() {
                        doc.add_text(self.text(field), words);
                    }
                });
            }
        }
        doc
    }

    /// The document of a version.
    pub fn version_of(&self, entry: &Entry, type_number: u64) -> TantivyDocument {
        let mut doc = self.base(entry, type_number, IS_VERSION);
        doc.add_text(self.version_uid, &entry.uid);
        doc
    }
}
