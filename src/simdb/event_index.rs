//! What happened, by what: a small row for every event folder, so that a list of events with filters reads the folders of
//! one page only.
//!
//! Derived from the folders, like the index of resources, and kept beside it: `events.idx`. A row has the event's
//! id, its operation, its status, and the hash of everything else that can be asked for ([`Fact`]); what the hashes find is
//! proved on the record. Rows that are not in the file yet are in memory; after a stop that was not clean the file is compared
//! with the folders, once somebody asks.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::event::EventRecord;
use super::layout::SimDir;
use super::scan;
use super::write::replace_file;
use crate::clock::EventId;
use crate::version::Operation;

/// What can be asked for besides operation, status and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The interaction, `create`.
    Interaction,
    /// A resource type: the URL's, or of what was stored.
    Type,
    /// A resource: the URL's, or one that was stored; `Patient/123`, or the id alone.
    Resource,
    /// The client's address.
    Client,
    /// The client's own id of the request: `X-Request-Id`, or the trace id of `traceparent`.
    Trace,
}

/// Calls `found` with every fact of an exchange.
pub fn facts(record: &EventRecord, found: &mut dyn FnMut(Fact, &str)) {
    found(Fact::Interaction, &record.interaction);
    found(Fact::Client, &record.client);
    if let Some(type_name) = &record.resource_type {
        found(Fact::Type, type_name);
    }
    if let Some((type_name, id)) = instance_of(&record.request.url) {
        found(Fact::Resource, &format!("{type_name}/{id}"));
        found(Fact::Resource, id);
    }
    let header = |name: &str| record.request.headers.get(name).and_then(serde_json::Value::as_str);
    if let Some(id) = header("x-request-id") {
        found(Fact::Trace, id);
    }
    if let Some(id) = header("traceparent").and_then(|t| t.split('-').nth(1)) {
        found(Fact::Trace, id);
    }
    for resource in &record.resources {
        found(Fact::Type, &resource.type_name);
        found(Fact::Resource, &format!("{}/{}", resource.type_name, resource.id));
        found(Fact::Resource, &resource.id);
    }
}

/// `Patient` and `123` of `/sim/lab__one/fhir/Patient/123/_history/2?_pretty=true`.
fn instance_of(url: &str) -> Option<(&str, &str)> {
    let path = url.split('?').next()?.split_once("/fhir/")?.1;
    let (type_name, rest) = path.split_once('/')?;
    let id = rest.split('/').next()?;
    let named = type_name.starts_with(|c: char| c.is_ascii_uppercase()) && !id.is_empty() && !id.starts_with(['_', '$']);
    named.then_some((type_name, id))
}

fn hash(fact: Fact, value: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[fact as u8]);
    hasher.update(value.as_bytes());
    hasher.finalize()
}

/// An event as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The event.
    pub event: EventId,
    /// Where it is filed.
    pub operation: Operation,
    status: u16,
    facts: Vec<u32>,
}

impl Row {
    /// The row of an exchange.
    #[must_use]
    pub fn of(record: &EventRecord, event: EventId, operation: Operation) -> Self {
        let mut facts = Vec::new();
        self::facts(record, &mut |fact, value| facts.push(hash(fact, value)));
        facts.sort_unstable();
        facts.dedup();
        Self { event, operation, status: record.response.status, facts }
    }
}

/// Which events are meant. What is empty asks for nothing; of several values one must hold, of several facts each.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Where they are filed.
    pub operations: Vec<Operation>,
    /// Lowest and highest status.
    pub statuses: Vec<(u16, u16)>,
    /// What they are about.
    pub facts: Vec<(Fact, Vec<String>)>,
}

impl Filter {
    /// Whether an event may be meant: hashes can be equal by chance.
    #[must_use]
    pub fn admits(&self, row: &Row) -> bool {
        self.hashed().admits(row.operation, row.status, &row.facts)
    }

    /// Whether an exchange is meant.
    #[must_use]
    pub fn holds(&self, operation: Operation, record: &EventRecord) -> bool {
        let mut left: Vec<bool> = vec![false; self.facts.len()];
        facts(record, &mut |fact, value| {
            for (holds, (wanted, values)) in left.iter_mut().zip(&self.facts) {
                *holds |= *wanted == fact && values.iter().any(|v| v == value);
            }
        });
        self.fits(operation, record.response.status) && left.iter().all(|holds| *holds)
    }

    fn fits(&self, operation: Operation, status: u16) -> bool {
        (self.operations.is_empty() || self.operations.contains(&operation))
            && (self.statuses.is_empty() || self.statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)))
    }

    fn hashed(&self) -> Hashed<'_> {
        let facts = self.facts.iter().map(|(fact, values)| values.iter().map(|v| hash(*fact, v)).collect());
        Hashed { filter: self, facts: facts.collect() }
    }
}

struct Hashed<'a> {
    filter: &'a Filter,
    facts: Vec<Vec<u32>>,
}

impl Hashed<'_> {
    fn admits(&self, operation: Operation, status: u16, facts: &[u32]) -> bool {
        self.filter.fits(operation, status) && self.facts.iter().all(|wanted| wanted.iter().any(|hash| facts.contains(hash)))
    }
}

/// Rows in memory, by event. The facts of all lie in one piece: a million events are some 40 MB.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<(EventId, Operation, u16, u16, u32)>,
    facts: Vec<u32>,
}

impl Rows {
    fn push(&mut self, row: &Row) {
        let start = u32::try_from(self.facts.len()).unwrap_or(u32::MAX);
        let length = u16::try_from(row.facts.len()).unwrap_or(u16::MAX);
        self.facts.extend(&row.facts[..usize::from(length)]);
        let new = (row.event, row.operation, row.status, length, start);
        // Reads are recorded off the request's path: one may come a little late.
        let at = if self.rows.last().is_none_or(|last| last.0 < row.event) { self.rows.len() } else { self.rows.partition_point(|r| r.0 < row.event) };
        if self.rows.get(at).is_none_or(|there| there.0 != row.event) {
            self.rows.insert(at, new);
        }
    }

    fn facts(&self, length: u16, start: u32) -> &[u32] {
        self.facts.get(start as usize..).and_then(|f| f.get(..usize::from(length))).unwrap_or_default()
    }

    fn each(&self) -> impl Iterator<Item = Row> {
        self.rows.iter().map(|(event, operation, status, length, start)| Row {
            event: *event,
            operation: *operation,
            status: *status,
            facts: self.facts(*length, *start).to_vec(),
        })
    }
}

/// The event index of a simulator.
#[derive(Debug)]
pub struct EventIndex {
    dir: SimDir,
    boot: u32,
    state: Mutex<State>,
    /// Held by whoever reads or writes the file.
    file: Mutex<()>,
    /// Set when the directory will be another's: what is not known by then is not to be looked for there.
    ended: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// All rows, once somebody asked.
    rows: Option<Rows>,
    /// Those that the file does not have.
    unsaved: Vec<Row>,
    /// Whether the file and `unsaved` are all there are.
    whole: bool,
    /// Whether the folders are being listed: what comes meanwhile is kept.
    listing: bool,
}

/// What the file begins with.
const MAGIC: &[u8; 4] = b"FSE1";

impl EventIndex {
    /// The event index of a directory; `saved` is what [`EventIndex::saved`] said at a clean stop. Reads nothing.
    #[must_use]
    pub fn new(dir: SimDir, boot: &str, saved: Option<u64>) -> Self {
        let whole = saved.is_some_and(|saved| saved == length(&dir));
        let state = State { rows: None, unsaved: Vec::new(), whole, listing: false };
        Self { dir, boot: crc32fast::hash(boot.as_bytes()), state: Mutex::new(state), file: Mutex::new(()), ended: AtomicBool::new(false) }
    }

    /// Reads no file and no folder from now on, but what is known is still found.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        // Whoever compares gives up.
        drop(self.file.lock());
    }

    fn refuse_if_ended(&self) -> io::Result<()> {
        if self.ended.load(Ordering::Acquire) { Err(io::Error::other("the simulator was closed, reset or deleted meanwhile")) } else { Ok(()) }
    }

    /// Takes an event in.
    pub fn push(&self, row: Row) {
        let mut state = self.state.lock();
        if let Some(rows) = &mut state.rows {
            rows.push(&row);
        }
        // Else the folders are listed anyway.
        if state.whole || state.listing {
            state.unsaved.push(row);
        }
    }

    /// The first `most` events that may be meant, in a span of events both ends of which are in it.
    ///
    /// # Errors
    /// The file system's.
    pub fn find(&self, filter: &Filter, (from, to): (EventId, EventId), newest_first: bool, most: usize) -> io::Result<Vec<(EventId, Operation)>> {
        self.load()?;
        let state = self.state.lock();
        let Some(all) = &state.rows else { return Ok(Vec::new()) };
        let span = all.rows.partition_point(|r| r.0 < from)..all.rows.partition_point(|r| r.0 <= to);
        let hashed = filter.hashed();
        let meant = |row: &&(EventId, Operation, u16, u16, u32)| hashed.admits(row.1, row.2, all.facts(row.3, row.4));
        let within = all.rows.get(span).unwrap_or_default().iter();
        let named = |row: &(EventId, Operation, u16, u16, u32)| (row.0, row.1);
        Ok(if newest_first { within.rev().filter(meant).take(most).map(named).collect() } else { within.filter(meant).take(most).map(named).collect() })
    }

    /// The length of the file, if that has all there are: with this length it can be trusted after a clean stop.
    #[must_use]
    pub fn saved(&self) -> Option<u64> {
        let _file = self.file.lock();
        let state = self.state.lock();
        (state.whole && state.unsaved.is_empty()).then(|| length(&self.dir))
    }

    /// Makes it whole by comparing it with the folders, if it is not.
    ///
    /// # Errors
    /// The file system's.
    pub fn complete(&self) -> io::Result<()> {
        let whole = self.state.lock().whole;
        if whole { Ok(()) } else { self.load() }
    }

    /// Writes what the file does not have.
    ///
    /// # Errors
    /// The file system's; it is tried again the next time.
    pub fn save(&self) -> io::Result<()> {
        let _file = self.file.lock();
        let unsaved = {
            let mut state = self.state.lock();
            if !state.whole || state.unsaved.is_empty() {
                return Ok(());
            }
            std::mem::take(&mut state.unsaved)
        };
        let appended = self.append(&unsaved);
        if appended.is_err() {
            // What the file has now is not known.
            let mut state = self.state.lock();
            state.whole = false;
            state.unsaved.clear();
        }
        appended
    }

    /// Forgets events whose folders are gone.
    ///
    /// # Errors
    /// The file system's; then it is compared with the folders when it is asked next.
    pub fn forget(&self, gone: &FxHashSet<EventId>) -> io::Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        self.load()?;
        let _file = self.file.lock();
        let mut bytes = self.head().to_vec();
        {
            let mut state = self.state.lock();
            if let Some(rows) = &mut state.rows {
                rows.rows.retain(|row| !gone.contains(&row.0));
                rows.each().for_each(|row| encode(&row, &mut bytes));
            }
            state.unsaved.clear();
        }
        replace_file(&self.dir.event_index(), &bytes).inspect_err(|_| {
            let mut state = self.state.lock();
            (state.rows, state.whole) = (None, false);
        })
    }

    fn head(&self) -> [u8; 8] {
        let mut head = [0; 8];
        head[..4].copy_from_slice(MAGIC);
        head[4..].copy_from_slice(&self.boot.to_le_bytes());
        head
    }

    fn append(&self, rows: &[Row]) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.dir.event_index())?;
        let mut bytes = if file.metadata()?.len() == 0 { self.head().to_vec() } else { Vec::new() };
        for row in rows {
            encode(row, &mut bytes);
        }
        file.write_all(&bytes)
    }

    /// Reads all rows into memory, unless they are there.
    fn load(&self) -> io::Result<()> {
        let _file = self.file.lock();
        let whole = {
            let mut state = self.state.lock();
            if state.rows.is_some() {
                return Ok(());
            }
            self.refuse_if_ended()?;
            state.listing = !state.whole;
            state.whole
        };
        let stored = self.stored(whole)?;
        let mut rows = Rows::default();
        if whole {
            decode(stored, |row| rows.push(row))?;
        } else {
            self.compare(stored, &mut rows).inspect_err(|_| {
                let mut state = self.state.lock();
                (state.listing, state.unsaved) = (false, Vec::new());
            })?;
            let mut bytes = self.head().to_vec();
            rows.each().for_each(|row| encode(&row, &mut bytes));
            replace_file(&self.dir.event_index(), &bytes)?;
        }
        let mut state = self.state.lock();
        let known: FxHashSet<EventId> = if whole { FxHashSet::default() } else { rows.rows.iter().map(|r| r.0).collect() };
        state.unsaved.retain(|row| !known.contains(&row.event));
        state.unsaved.iter().for_each(|row| rows.push(row));
        (state.rows, state.whole, state.listing) = (Some(rows), true, false);
        Ok(())
    }

    /// The rows in the file, as far as it can be trusted.
    fn stored(&self, whole: bool) -> io::Result<Box<dyn io::Read>> {
        let mut file = match File::open(self.dir.event_index()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Box::new(io::empty())),
            other => other?,
        };
        let mut head = [0; 8];
        let has_head = file.read_exact(&mut head).is_ok();
        // What another boot of the machine left may not have reached the disk.
        Ok(if has_head && (whole || head == self.head()) { Box::new(file) } else { Box::new(io::empty()) })
    }

    /// The rows of the folders that there are: the file's, or made of the record.
    fn compare(&self, stored: impl io::Read, rows: &mut Rows) -> io::Result<()> {
        let mut known: FxHashMap<EventId, Row> = FxHashMap::default();
        decode(stored, |row| drop(known.insert(row.event, row.clone())))?;
        for (event, operation) in scan::events_after(&self.dir, EventId::ZERO)? {
            self.refuse_if_ended()?;
            let found = match known.remove(&event).filter(|row| row.operation == operation) {
                Some(row) => Some(row),
                None => scan::record(&self.dir, operation, event).ok().map(|record| Row::of(&record, event, operation)),
            };
            if let Some(row) = found {
                rows.push(&row);
            }
        }
        Ok(())
    }
}

/// The length of the file; none is as long as an empty one.
fn length(dir: &SimDir) -> u64 {
    fs::metadata(dir.event_index()).map_or(0, |m| m.len())
}

fn encode(row: &Row, out: &mut Vec<u8>) {
    let operation = Operation::ALL.iter().position(|o| *o == row.operation).unwrap_or(0);
    let length = u16::try_from(row.facts.len()).unwrap_or(u16::MAX);
    out.extend(row.event.to_u64().to_le_bytes());
    out.push(u8::try_from(operation).unwrap_or(0));
    out.extend(row.status.to_le_bytes());
    out.extend(length.to_le_bytes());
    row.facts.iter().take(usize::from(length)).for_each(|fact| out.extend(fact.to_le_bytes()));
}

/// Calls `found` with the rows of a file, up to the first that is not whole. A piece at a time: memory that is used once
/// costs more than reading it.
fn decode(mut file: impl io::Read, mut found: impl FnMut(&Row)) -> io::Result<()> {
    let mut row = Row { event: EventId::ZERO, operation: Operation::Get, status: 0, facts: Vec::new() };
    let mut piece = Vec::new();
    while file.by_ref().take(PIECE).read_to_end(&mut piece)? > 0 {
        let mut rest = &piece[..];
        while let Some(after) = decode_one(rest, &mut row) {
            found(&row);
            rest = after;
        }
        piece.drain(..piece.len() - rest.len());
    }
    Ok(())
}

/// Bytes of the file that are read at once.
const PIECE: u64 = 1 << 20;

#[inline]
fn decode_one<'b>(mut bytes: &'b [u8], row: &mut Row) -> Option<&'b [u8]> {
    fn take<'b, const N: usize>(bytes: &mut &'b [u8]) -> Option<&'b [u8; N]> {
        let (first, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(first)
    }
    row.event = EventId::from_u64(u64::from_le_bytes(*take(&mut bytes)?));
    let [operation] = *take(&mut bytes)?;
    row.operation = *Operation::ALL.get(usize::from(operation))?;
    row.status = u16::from_le_bytes(*take(&mut bytes)?);
    let length = usize::from(u16::from_le_bytes(*take(&mut bytes)?));
    let (facts, rest) = bytes.split_at_checked(length * 4)?;
    row.facts.clear();
    row.facts.extend(facts.as_chunks().0.iter().map(|fact| u32::from_le_bytes(*fact)));
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simdb::write::{self, File as EventFile};

    fn record(interaction: &str, status: u16, url: &str) -> EventRecord {
        let mut record = EventRecord { interaction: interaction.to_owned(), client: "127.0.0.1".to_owned(), ..EventRecord::default() };
        record.resource_type = instance_of(url).map(|(t, _)| t.to_owned());
        record.request.url = url.to_owned();
        record.response.status = status;
        record
    }

    fn about(fact: Fact, value: &str) -> Filter {
        Filter { facts: vec![(fact, vec![value.to_owned()])], ..Filter::default() }
    }

    /// What is known is still found, and nothing is looked for where another simulator may be.
    #[test]
    fn what_has_ended_reads_no_folder() -> io::Result<()> {
        let temp = tempfile::tempdir()?;
        let dir = SimDir::new(temp.path(), &"a__b".parse().map_err(|_| io::Error::other("id"))?);
        write::prepare(&dir)?;
        let event = EventId::ZERO.next(1_000);
        let record = record("create", 201, "/sim/a__b/fhir/Patient/1");
        write::event_folder(&dir, Operation::Put, event, &[EventFile { name: "event.json", bytes: &serde_json::to_vec(&record)? }])?;
        let find = |index: &EventIndex| index.find(&Filter::default(), (EventId::ZERO, EventId::from_u64(u64::MAX)), true, 10).map(|found| found.len());
        for saved in [None, Some(0)] {
            let unread = EventIndex::new(dir.clone(), "boot", saved);
            unread.end();
            assert!(find(&unread).is_err(), "{saved:?}");
            assert!(!dir.event_index().exists(), "{saved:?}");
        }
        let read = EventIndex::new(dir, "boot", None);
        assert_eq!(find(&read)?, 1);
        read.end();
        assert_eq!(find(&read)?, 1);
        Ok(())
    }

    /// Rows survive a clean stop; after another, what is missing is read from the folders and what has no folder goes.
    #[test]
    fn the_file_and_the_folders_agree() -> io::Result<()> {
        let temp = tempfile::tempdir()?;
        let dir = SimDir::new(temp.path(), &"a__b".parse().map_err(|_| io::Error::other("id"))?);
        write::prepare(&dir)?;
        let mut last = EventId::ZERO;
        let mut write = |n: u16, index: Option<&EventIndex>| -> io::Result<EventId> {
            last = last.next(1_000 + i64::from(n));
            let record = record(if n.is_multiple_of(2) { "create" } else { "update" }, 200 + n, &format!("/sim/a__b/fhir/Patient/{n}"));
            write::event_folder(&dir, Operation::Put, last, &[EventFile { name: "event.json", bytes: &serde_json::to_vec(&record)? }])?;
            if let Some(index) = index {
                index.push(Row::of(&record, last, Operation::Put));
            }
            Ok(last)
        };
        let all = (EventId::ZERO, EventId::from_u64(u64::MAX));
        let count = |index: &EventIndex, filter: &Filter| index.find(filter, all, true, 100).map(|found| found.len());
        let index = EventIndex::new(dir.clone(), "boot", Some(0));
        let first = write(0, Some(&index))?;
        (1..10).try_for_each(|n| write(n, Some(&index)).map(drop))?;
        index.save()?;
        let tenth = write(10, Some(&index))?;
        assert_eq!(count(&index, &about(Fact::Interaction, "create"))?, 6);
        assert_eq!(count(&index, &about(Fact::Resource, "Patient/7"))?, 1);
        assert_eq!(count(&index, &about(Fact::Resource, "7"))?, 1);
        assert_eq!(count(&index, &about(Fact::Client, "127.0.0.2"))?, 0);
        assert_eq!(count(&index, &Filter { statuses: vec![(205, 206)], ..Filter::default() })?, 2);
        assert_eq!(index.find(&Filter::default(), all, false, 1)?[0].0, first);
        assert_eq!(index.find(&Filter::default(), (tenth, all.1), true, 5)?, [(tenth, Operation::Put)]);
        // The tenth never reached the file, and the first is removed.
        fs::remove_dir_all(dir.event(Operation::Put, first))?;
        let saved = length(&dir);
        for (boot, saved, has_tenth) in [("boot", Some(saved), false), ("boot", Some(saved + 1), true), ("other", None, true)] {
            let index = EventIndex::new(dir.clone(), boot, saved);
            assert_eq!(count(&index, &Filter::default())?, 10, "{boot} {saved:?}");
            assert_eq!(count(&index, &about(Fact::Resource, "10"))? == 1, has_tenth, "{boot} {saved:?}");
        }
        // Torn at the end.
        let bytes = fs::read(dir.event_index())?;
        fs::write(dir.event_index(), &bytes[..bytes.len() - 3])?;
        assert_eq!(count(&EventIndex::new(dir.clone(), "other", None), &Filter::default())?, 10);
        Ok(())
    }
}
