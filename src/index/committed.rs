//! What tantivy holds: opening it, looking resources up in it, and moving recent writes into it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tantivy::columnar::Column;
use tantivy::schema::{IndexRecordOption, Value};
use tantivy::tokenizer::{SimpleTokenizer, TextAnalyzer};
use tantivy::{DocAddress, DocSet, Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, SegmentReader, TERMINATED, TantivyDocument, Term};

use super::directory::UnsyncedDirectory;
use super::execute::{Bits, Budget};
use super::flat::{Flat, Flats, with_prefix};
use super::order::Time;
use super::schema::{FORMAT, Fields, IS_VERSION, WORDS};
use super::{Entry, Hit, Recent, hidden};
use crate::clock::EventId;
use crate::fhir::{Definitions, FhirVersion, VersionId};
use crate::version::{Change, Made, Place, Version};

/// Memory a flush may use before it writes a segment.
const WRITER_BYTES: usize = 64 << 20;

/// What a commit says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    /// The format of the index at the time.
    pub format: u32,
    /// The last event that is in the index.
    pub last_event: String,
    /// The number of that event.
    pub sequence: u64,
    /// Current resources by type.
    pub counts: std::collections::BTreeMap<String, u64>,
    /// The search parameters of the simulator's own that it was built with.
    #[serde(default)]
    pub params: String,
    /// The machine's boot: what was not synced may be lost with it.
    pub boot: String,
    /// The name of the file of hidden documents, if it builds on another.
    #[serde(default)]
    pub hidden: String,
    /// The segments of what it builds on, by their ids: of others the numbers of hidden documents would mean others.
    #[serde(default)]
    pub below: Vec<String>,
}

/// A resource of whose versions only some are to stay.
#[derive(Clone, Debug)]
pub struct Trimmed {
    /// `Patient/123`.
    pub uid: Arc<str>,
    /// Its type.
    pub type_name: &'static str,
    /// Those that stay, of what lies in the index itself; what it builds on keeps its own.
    pub keep: Vec<Version>,
}

/// Reads the stored resource of an entry.
pub type BodyOf<'a> = dyn Fn(&Entry) -> Option<Arc<[u8]>> + 'a;

/// An immutable picture of the tantivy index; of a simulator that builds on another's, with the index of that below.
#[derive(Clone)]
pub struct Committed {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    /// None until the first flush: a simulator of a few writes costs no index at all.
    engine: Option<Engine>,
    /// What this index builds on: its segments come first, under the numbers they have there.
    base: Option<Committed>,
    segments: Vec<Arc<Segment>>,
    /// Documents of `base` that count no more: here is a newer version of the resource, or another history.
    hidden: imbl::HashSet<u64>,
    fields: Fields,
    definitions: &'static Definitions,
    payload: Payload,
}

#[derive(Clone)]
struct Engine {
    index: Index,
    reader: IndexReader,
    searcher: Searcher,
}

/// A segment and its columns.
pub(super) struct Segment {
    pub(super) reader: SegmentReader,
    pub(super) event: Column<u64>,
    place: Column<u64>,
    version: Column<u64>,
    type_number: Column<u64>,
    modified: Column<i64>,
    /// Event and number of the place among all versions, where a document of the segment has another than its file's.
    made: Option<(Column<u64>, Column<u64>)>,
    flats: Flats,
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committed").field("payload", &self.inner.payload).finish_non_exhaustive()
    }
}

impl Committed {
    /// Opens the index in `folder`; an empty one if there is none, or none that can be trusted.
    ///
    /// What was not synced is lost when the machine crashes, so an index of another `boot` is trusted only after a
    /// `clean` stop. `base` is what the index builds on.
    ///
    /// # Errors
    /// The file system's, when an index that cannot be trusted cannot be removed either.
    pub fn open(folder: &Path, version: FhirVersion, boot: &str, clean: bool, base: Option<&Self>) -> io::Result<Self> {
        if !folder.join("meta.json").exists() {
            return Self::empty(folder, version, base);
        }
        match Self::open_existing(folder, version, base) {
            Ok(found) if found.payload().format == FORMAT && (clean || found.payload().boot == boot) => Ok(found),
            _ => Self::empty(folder, version, base),
        }
    }

    /// An empty index in `folder`, dropping what is there.
    ///
    /// # Errors
    /// The file system's.
    fn empty(folder: &Path, version: FhirVersion, base: Option<&Self>) -> io::Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
            fs::create_dir(folder)?;
        }
        let definitions = Definitions::of(version);
        let payload = base.map(|base| base.payload().clone()).unwrap_or_default();
        let (segments, hidden) = base.map(|base| (base.inner.segments.clone(), base.inner.hidden.clone())).unwrap_or_default();
        let (folder, base) = (folder.to_owned(), base.cloned());
        let inner = Inner { folder, engine: None, base, segments, hidden, fields: Fields::new(), definitions, payload };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn open_existing(folder: &Path, version: FhirVersion, base: Option<&Self>) -> tantivy::Result<Self> {
        let index = Index::open(UnsyncedDirectory::open(folder)?)?;
        let payload: Payload = index.load_metas()?.payload.and_then(|p| serde_json::from_str(&p).ok()).unwrap_or_default();
        if payload.below != base.map(Self::segment_ids).unwrap_or_default() {
            return Err(tantivy::TantivyError::InternalError("what the index builds on was indexed anew".to_owned()));
        }
        let hidden = if base.is_some() { hidden::read(folder, &payload.hidden)? } else { imbl::HashSet::default() };
        Self::picture(folder, &Engine::new(index)?, base, hidden, Definitions::of(version), payload)
    }

    fn picture(
        folder: &Path,
        engine: &Engine,
        base: Option<&Self>,
        hidden: imbl::HashSet<u64>,
        definitions: &'static Definitions,
        payload: Payload,
    ) -> tantivy::Result<Self> {
        engine.reader.reload()?;
        let engine = Engine { searcher: engine.reader.searcher(), ..engine.clone() };
        let mut segments = base.map(|base| base.inner.segments.clone()).unwrap_or_default();
        for reader in engine.searcher.segment_readers() {
            segments.push(Arc::new(Segment::open(reader)?));
        }
        let (folder, base) = (folder.to_owned(), base.cloned());
        let inner = Inner { folder, engine: Some(engine), base, segments, hidden, fields: Fields::new(), definitions, payload };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Documents that count no more from the beginning.
    pub(super) fn hidden(&self) -> &imbl::HashSet<u64> {
        &self.inner.hidden
    }

    /// Which segments it has, those below included.
    fn segment_ids(&self) -> Vec<String> {
        self.inner.segments.iter().map(|segment| segment.reader.segment_id().uuid_string()).collect()
    }

    /// How many segments are those of what this builds on.
    fn below(&self) -> usize {
        self.inner.base.as_ref().map_or(0, |base| base.inner.segments.len())
    }

    /// What the last commit said.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.inner.payload
    }

    /// The last event in the index.
    #[must_use]
    pub fn last_event(&self) -> EventId {
        self.inner.payload.last_event.parse().unwrap_or_default()
    }

    pub(super) fn segments(&self) -> &[Arc<Segment>] {
        &self.inner.segments
    }

    pub(super) fn fields(&self) -> &Fields {
        &self.inner.fields
    }

    /// The current version of a resource and the document that says so.
    pub(super) fn current(&self, uid: &str) -> Option<(u64, Hit)> {
        let address = self.find(self.inner.fields.uid, uid).next()?;
        let hit = self.hit(address);
        Some((packed(address), hit))
    }

    /// The documents that tell of versions of a resource.
    pub(super) fn version_documents(&self, uid: &str) -> impl Iterator<Item = u64> {
        self.find(self.inner.fields.version_uid, uid).map(packed)
    }

    /// Every version of a resource, newest first.
    #[must_use]
    pub fn versions(&self, uid: &str) -> Vec<Version> {
        let mut found: Vec<Version> = self.find(self.inner.fields.version_uid, uid).map(|a| self.hit(a).version).collect();
        found.sort_unstable_by_key(|v| std::cmp::Reverse((v.event, v.place.number)));
        // A flush that failed after its commit was done again.
        found.dedup_by_key(|v| (v.event, v.place.number));
        found
    }

    /// The resources that have a version made after `event`, in no order, some several times; of more than `most` versions
    /// any `most` and one.
    pub(super) fn changed_after(&self, event: EventId, most: usize) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        let Some(first) = event.to_u64().checked_add(1) else { return found };
        for (number, segment) in (0..).zip(&self.inner.segments) {
            if segment.event.max_value() < first {
                continue;
            }
            let mut documents = Vec::new();
            segment.event.get_docids_for_value_range(first..=u64::MAX, 0..segment.reader.max_doc(), &mut documents);
            documents.retain(|doc| segment.version.first(*doc).unwrap_or(0) & IS_VERSION != 0);
            documents.truncate((most + 1).saturating_sub(found.len()));
            found.extend(documents.into_iter().filter_map(|doc| self.stored_uid(DocAddress::new(number, doc))));
        }
        found
    }

    /// The uid of a version document, from tantivy's store.
    pub(super) fn stored_uid(&self, address: DocAddress) -> Option<Arc<str>> {
        let below = u32::try_from(self.below()).unwrap_or(u32::MAX);
        let Some(number) = address.segment_ord.checked_sub(below) else { return self.inner.base.as_ref()?.stored_uid(address) };
        let document: TantivyDocument = self.inner.engine.as_ref()?.searcher.doc(DocAddress::new(number, address.doc_id)).ok()?;
        document.get_first(self.inner.fields.version_uid).and_then(|v| v.as_str().map(Arc::from))
    }

    /// The number by which documents name a type.
    pub(super) fn type_number(&self, name: &str) -> Option<u64> {
        self.inner.definitions.resource_types().binary_search(&name).ok().map(|n| n as u64)
    }

    fn find<'a>(&'a self, field: tantivy::schema::Field, uid: &str) -> impl Iterator<Item = DocAddress> + 'a {
        let term = Term::from_field_text(field, uid);
        let all = (0..).zip(&self.inner.segments);
        let found = all.flat_map(move |(number, segment)| postings(&segment.reader, &term).map(move |doc| DocAddress::new(number, doc)));
        found.filter(|address| self.inner.hidden.is_empty() || !self.inner.hidden.contains(&packed(*address)))
    }

    pub(super) fn hit(&self, address: DocAddress) -> Hit {
        let segment = &self.inner.segments[address.segment_ord as usize];
        let of = |column: &Column<u64>| column.first(address.doc_id).unwrap_or(0);
        let version = of(&segment.version);
        let (event, place) = (EventId::from_u64(of(&segment.event)), Place::from_u64(of(&segment.place)));
        let type_number = usize::try_from(of(&segment.type_number)).unwrap_or(usize::MAX);
        Hit {
            type_name: self.inner.definitions.resource_types().get(type_number).copied().unwrap_or(""),
            version: Version {
                id: VersionId(version >> 4),
                change: Change::from_code(version & 7),
                event,
                place,
                modified_ms: segment.modified.first(address.doc_id).unwrap_or_else(|| event.millis()),
                made: segment.made(address.doc_id),
            },
        }
    }

    /// A picture with everything in `recent` committed; on the disk it is there for the next open, too. `body` reads a
    /// stored resource.
    ///
    /// # Errors
    /// Tantivy's, for example a full disk; the index is as before then.
    pub fn flush(&self, recent: &Recent, payload: Payload, body: &BodyOf<'_>) -> io::Result<Self> {
        self.try_flush(recent, &[], payload, body).map_err(io::Error::other)
    }

    /// A picture without the versions that do not stay; on the disk it is there for the next open, too.
    ///
    /// # Errors
    /// As [`Committed::flush`].
    pub fn trim(&self, trimmed: &[Trimmed]) -> io::Result<Self> {
        self.try_flush(&Recent::default(), trimmed, self.payload().clone(), &|_| None).map_err(io::Error::other)
    }

    fn try_flush(&self, recent: &Recent, trimmed: &[Trimmed], payload: Payload, body: &BodyOf<'_>) -> tantivy::Result<Self> {
        let inner = &*self.inner;
        let types = inner.definitions.resource_types();
        let number = |name: &str| types.binary_search(&name).map_or(u64::MAX, |n| n as u64);
        let engine = match &inner.engine {
            Some(engine) => engine.clone(),
            None => Engine::create(&inner.folder, &inner.fields)?,
        };
        let mut writer: IndexWriter = engine.index.writer_with_num_threads(1, WRITER_BYTES)?;
        // All deletions come before the first document: with documents between them, the first was seen to get lost.
        for entry in recent.latest_versions() {
            writer.delete_term(Term::from_field_text(inner.fields.uid, &entry.uid));
        }
        for uid in recent.rewritten() {
            writer.delete_term(Term::from_field_text(inner.fields.version_uid, uid));
        }
        for of in trimmed {
            writer.delete_term(Term::from_field_text(inner.fields.version_uid, &of.uid));
        }
        for of in trimmed {
            for version in &of.keep {
                let entry = Entry { uid: of.uid.clone(), type_name: of.type_name, version: *version, keys: Arc::default(), again: false, rewrites: false };
                writer.add_document(inner.fields.version_of(&entry, number(of.type_name)))?;
            }
        }
        for entry in recent.latest_versions() {
            if !entry.version.is_deletion() {
                writer.add_document(inner.fields.current(entry, number(entry.type_name), body(entry).as_deref()))?;
            }
        }
        for entry in recent.versions().filter(|e| !e.again && e.version.change != Change::Purge) {
            writer.add_document(inner.fields.version_of(entry, number(entry.type_name)))?;
        }
        let name = uuid::Uuid::new_v4().to_string();
        let mut hidden = inner.hidden.clone();
        if let Some(base) = &inner.base {
            let hide = |field, uid: &Arc<str>| base.find(field, uid).map(packed).collect::<Vec<_>>();
            recent.latest_versions().for_each(|entry| hidden.extend(hide(inner.fields.uid, &entry.uid)));
            recent.rewritten().for_each(|uid| hidden.extend(hide(inner.fields.version_uid, uid)));
            hidden::write(&inner.folder, &name, &hidden)?;
        }
        let below = inner.base.as_ref().map(Self::segment_ids).unwrap_or_default();
        let payload = Payload { format: FORMAT, hidden: name, below, ..payload };
        let text = serde_json::to_string(&payload).map_err(|e| tantivy::TantivyError::InternalError(e.to_string()))?;
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&text);
        prepared.commit()?;
        // Merges that the commit has begun end before the picture is taken, so that it holds the fewest segments.
        writer.wait_merging_threads()?;
        if inner.base.is_some() {
            hidden::sweep(&inner.folder, &payload.hidden);
        }
        Self::picture(&inner.folder, &engine, inner.base.as_ref(), hidden, inner.definitions, payload)
    }
}

impl Engine {
    fn create(folder: &Path, fields: &Fields) -> tantivy::Result<Self> {
        // Not with its parents: a simulator that was deleted meanwhile must not come back.
        if !folder.exists() {
            fs::create_dir(folder)?;
        }
        Self::new(Index::create(UnsyncedDirectory::open(folder)?, fields.schema.clone(), IndexSettings::default())?)
    }

    fn new(index: Index) -> tantivy::Result<Self> {
        index.tokenizers().register(WORDS, TextAnalyzer::from(SimpleTokenizer::default()));
        let reader: IndexReader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let searcher = reader.searcher();
        Ok(Self { index, reader, searcher })
    }
}

impl Segment {
    fn open(reader: &SegmentReader) -> tantivy::Result<Self> {
        let fast = reader.fast_fields();
        Ok(Self {
            event: fast.u64("event")?,
            place: fast.u64("place")?,
            version: fast.u64("version")?,
            type_number: fast.u64("type_number")?,
            modified: fast.i64("modified")?,
            made: Some((fast.u64("made")?, fast.u64("made_number")?)).filter(|(event, _)| event.values.num_vals() > 0),
            reader: reader.clone(),
            flats: Flats::default(),
        })
    }

    /// Its place among all versions.
    fn made(&self, doc: u32) -> Made {
        self.time(doc).0
    }

    /// Where a document is in time.
    #[inline]
    pub(super) fn time(&self, doc: u32) -> Time {
        let event = EventId::from_u64(self.event.first(doc).unwrap_or(0));
        let moved = self.made.as_ref().and_then(|(made, number)| Some((made.first(doc)?, number.first(doc)?)));
        let made = match moved {
            Some((made, number)) => Made { event: EventId::from_u64(made), number: u32::try_from(number).unwrap_or(u32::MAX) },
            None => Made { event, number: Place::from_u64(self.place.first(doc).unwrap_or(0)).number },
        };
        (made, event)
    }

    /// The columns of the event that made a document first: the first that has one counts.
    pub(super) fn made_columns(&self) -> Vec<Column<u64>> {
        self.made.iter().map(|(made, _)| made).chain([&self.event]).cloned().collect()
    }

    /// Calls `found` with every version that these events made first, of resources of a type, and its place among all.
    pub(super) fn versions_between(&self, events: std::ops::RangeInclusive<u64>, type_number: Option<u64>, found: &mut dyn FnMut(u32, Made)) {
        let (mut documents, all) = (Vec::new(), 0..self.reader.max_doc());
        if self.event.max_value() >= *events.start() && self.event.min_value() <= *events.end() {
            self.event.get_docids_for_value_range(events.clone(), all.clone(), &mut documents);
        }
        if let Some((made, _)) = &self.made {
            documents.retain(|doc| made.first(*doc).is_none());
            let mut moved = Vec::new();
            made.get_docids_for_value_range(events, all, &mut moved);
            documents.append(&mut moved);
        }
        let alive = self.reader.alive_bitset();
        for doc in documents {
            let is_version = self.version.first(doc).unwrap_or(0) & IS_VERSION != 0 && alive.is_none_or(|alive| alive.is_alive(doc));
            if is_version && type_number.is_none_or(|number| self.type_number.first(doc) == Some(number)) {
                found(doc, self.made(doc));
            }
        }
    }

    /// `Patient/123` of documents, each once, in no order.
    pub(super) fn uids(&self, documents: &[u32]) -> tantivy::Result<Vec<Box<str>>> {
        let Some(column) = self.reader.fast_fields().str("uid")? else { return Ok(Vec::new()) };
        let mut ordinals: Vec<u64> = documents.iter().filter_map(|doc| column.ords().first(*doc)).collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        let mut found = Vec::with_capacity(ordinals.len());
        column.dictionary().sorted_ords_to_term_cb(&ordinals, |uid| found.push(String::from_utf8_lossy(uid).into()))?;
        Ok(found)
    }

    /// What follows `prefix` in the terms that begin with it.
    pub(super) fn flat(&self, field: tantivy::schema::Field, prefix: &str) -> tantivy::Result<Arc<Flat>> {
        self.flats.get(&self.reader, field, prefix)
    }

    /// Adds to `found` what follows `prefix` in the terms that the documents `among` have.
    pub(super) fn terms_of(
        &self,
        among: &Bits,
        prefix: &str,
        field: tantivy::schema::Field,
        budget: &Budget,
        found: &mut rustc_hash::FxHashSet<Box<str>>,
    ) -> tantivy::Result<()> {
        let inverted = self.reader.inverted_index(field)?;
        let mut terms = with_prefix(inverted.terms(), prefix)?;
        while terms.advance() && budget.spend(10) {
            let mut postings = inverted.read_postings_from_terminfo(terms.value(), IndexRecordOption::Basic)?;
            let mut doc = postings.doc();
            while doc != TERMINATED && !among.has(doc) && budget.spend(1) {
                doc = postings.advance();
            }
            if doc != TERMINATED {
                found.insert(String::from_utf8_lossy(&terms.key()[prefix.len()..]).into());
            }
        }
        Ok(())
    }

    /// The column `name` of numbers, if a document of this segment has a value in it.
    pub(super) fn column(&self, name: &str) -> Option<Column<i64>> {
        self.reader.fast_fields().column_opt(&format!("columns.{name}")).ok().flatten()
    }
}

/// The living documents that have `term`.
fn postings(reader: &SegmentReader, term: &Term) -> impl Iterator<Item = u32> + use<> {
    let found = reader.inverted_index(term.field()).ok().and_then(|inverted| inverted.read_postings(term, IndexRecordOption::Basic).ok().flatten());
    let alive = reader.alive_bitset().cloned();
    let mut found = found;
    std::iter::from_fn(move || {
        let postings = found.as_mut()?;
        loop {
            let doc = postings.doc();
            if doc == TERMINATED {
                return None;
            }
            postings.advance();
            if alive.as_ref().is_none_or(|alive| alive.is_alive(doc)) {
                return Some(doc);
            }
        }
    })
}

/// A document's address in one number.
pub(super) fn packed(address: DocAddress) -> u64 {
    u64::from(address.segment_ord) << 32 | u64::from(address.doc_id)
}
