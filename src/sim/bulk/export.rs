//! Exports of bulk data, <https://hl7.org/fhir/uv/bulkdata/export.html>: what a simulator holds at one moment, as NDJSON files.
//!
//! An export is of a snapshot, so writes that come meanwhile are not in it. What it shall be lies beside it (`order.json`): one that a stop
//! has cut off is made again, of the same moment.

mod blocks;
mod provenance;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashSet, FxHasher};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::bodies::Body;
use super::super::held::Kept;
use super::{Job, Jobs, Output, State, Work};
use crate::clock::EventId;
use crate::fhir::reference::Reference;
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, outcome, raw};
use crate::index::{Budget, Find, Found, Hit, Position, Span};
use crate::query::Query;
use crate::search::condition::Condition;
use crate::search::extract::type_term;
use crate::search::{Scope, Search};
use crate::sim::priority;
use crate::sim::registry::Registry;
use crate::sim::snapshot::Snapshot;
use crate::sim::{Sim, storage_failure};
use crate::simdb::write::replace_file;
use crate::version::Version;

/// Most files of an export.
pub const MAX_FILES: usize = 1_500;
/// Resources that are looked up at once.
const BATCH: usize = 50_000;
/// How long writers may be kept waiting; events further ahead of the clock were made before it was set back.
const SOON_MS: i64 = 5;
/// How long it works without letting others come in between.
const BREATH: Duration = Duration::from_micros(500);
/// Deleted resources of a type that are looked for.
const MAX_DELETED: usize = 1_000_000;
/// What an export shall be, beside it.
const ORDER: &str = "order.json";

/// Whose resources are exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Whose {
    /// All there are.
    #[default]
    Anyones,
    /// Those that belong to patients.
    Patients,
    /// Those that belong to these patients.
    Of(Vec<String>),
}

/// Which Provenance comes along, <http://hl7.org/fhir/uv/bulkdata/ValueSet/include-associated-data>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Associated {
    /// Of each resource the latest.
    LatestProvenanceResources,
    /// All that is about what is exported.
    RelevantProvenanceResources,
}

/// A type, and parameters of a search of it.
pub type OfType = (String, Vec<(String, String)>);

/// What shall be exported.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Order {
    /// The last event that counts.
    pub event: String,
    /// The types.
    pub types: Vec<String>,
    /// The types of which is told what was deleted: those, and where none were named, such as have nothing left.
    pub gone: Vec<String>,
    /// Whose resources.
    pub whose: Whose,
    /// The group whose members they are: no other is exported with them.
    pub group: Option<String>,
    /// Only what was modified after this, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only what was modified up to this.
    pub until_ms: Option<i64>,
    /// Of a type only what one of its searches finds.
    pub filters: Vec<OfType>,
    /// Of a type only what this search finds, too: what the token allows.
    pub restrictions: BTreeMap<String, Vec<(String, String)>>,
    /// Elements to keep, each of a type or of all.
    pub elements: Vec<(Option<String>, String)>,
    /// Most lines of a file.
    pub page: usize,
    /// The type by whose resources the files are organized.
    pub organized_by: Option<String>,
    /// Which Provenance comes along with the rest.
    pub associated: Option<Associated>,
    /// What was passed over, for the list of errors.
    pub notes: Vec<String>,
    /// Whether some files shall fail.
    pub some_fail: bool,
    /// How often each resource is exported, under different ids.
    pub times: usize,
    /// How many in a hundred are told to be deleted, where that is told at all.
    pub deleted_percent: u64,
}

/// Begins an export of a simulator as it is now.
///
/// # Errors
/// There are too many; the disk refuses.
pub fn begin(jobs: &Arc<Jobs>, registry: &Arc<Registry>, sim: &Arc<Sim>, mut order: Order, state: State) -> Result<Arc<Job>, Failure> {
    let kept = Kept::begin(sim);
    let (snapshot, time) = settled(sim);
    order.event = snapshot.last_event().to_string();
    let state = State { transaction_time: crate::clock::instant(time), types: order.types.clone(), organized_by: order.organized_by.clone(), ..state };
    let bytes = serde_json::to_vec_pretty(&order).map_err(|e| Failure::new(Kind::Internal, e.to_string()))?;
    let (registry_there, sim_there) = (registry.clone(), sim.clone());
    let work: Work = Box::new(move |job| made(&registry_there, &sim_there, &kept, || Ok(snapshot), &order, job));
    jobs.begin(registry, sim, state, Some((ORDER, bytes)), Some(work))
}

/// What makes an export that was begun, once more.
///
/// # Errors
/// It cannot be: some of it was handed out already, or what it shall be cannot be read.
pub(super) fn again(registry: &Arc<Registry>, sim: &Arc<Sim>, job: &Job) -> Result<Work, Failure> {
    let failed = |why: String| Failure::new(Kind::Damaged, why);
    if job.state().partial.is_some() {
        return Err(failed("some of its files may have been fetched already".to_owned()));
    }
    let bytes = fs::read(job.place(ORDER)).map_err(|e| failed(e.to_string()))?;
    let order: Order = serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?;
    let event: EventId = order.event.parse().map_err(|()| failed(format!("'{}' is no event", order.event)))?;
    let (registry, sim, kept) = (registry.clone(), sim.clone(), Kept::begin(sim));
    Ok(Box::new(move |job| {
        job.found(|state| (state.output, state.deleted, state.error) = Default::default());
        made(&registry, &sim, &kept, || sim.as_of(event), &order, job)
    }))
}

fn made(
    registry: &Registry,
    sim: &Sim,
    _kept: &Kept,
    snapshot: impl FnOnce() -> Result<Arc<Snapshot>, Failure>,
    order: &Order,
    job: &Job,
) -> Result<(), Failure> {
    // Those who read and write come first.
    priority::give_way(priority::LAST);
    let snapshot = snapshot()?;
    let seen = order.associated.map(|_| FxHashSet::default());
    Export { registry, sim, snapshot: &snapshot, order, job, part: 0, seen, gone: Vec::new(), breath: Instant::now() }.run()
}

/// A picture whose last event lies in a millisecond that is over, and the last such millisecond: whatever comes later is later by
/// its instant, too, so that the next export since then misses nothing.
fn settled(sim: &Sim) -> (Arc<Snapshot>, i64) {
    // Writers wait for that millisecond: with many of them one would else come in between each time.
    let _guard = sim.writer.lock();
    let snapshot = sim.snapshot();
    let last = snapshot.last_event().millis();
    let is_soon_over = |now: i64| now <= last && last - now < SOON_MS;
    while is_soon_over(sim.now_ms()) {
        std::thread::yield_now();
    }
    let time = last.max(sim.now_ms() - 1);
    // Also if the clock is set back.
    sim.last_id.fetch_max(EventId::first_of(time + 1).to_u64() - 1, Ordering::AcqRel);
    (snapshot, time)
}

/// An export that goes on.
struct Export<'a> {
    registry: &'a Registry,
    sim: &'a Sim,
    snapshot: &'a Snapshot,
    order: &'a Order,
    job: &'a Job,
    /// How many files were begun.
    part: usize,
    /// What was written, where it is asked for what is about that: a hash of `Type/id`.
    seen: Option<FxHashSet<u64>>,
    /// What is told to be deleted, though it is not.
    gone: Vec<String>,
    /// When it last let others come in between.
    breath: Instant,
}

/// A file that is written.
struct Lines {
    name: String,
    place: PathBuf,
    out: BufWriter<File>,
    count: usize,
}

impl Lines {
    fn begin(job: &Job, name: String) -> io::Result<Self> {
        let place = job.place(&name);
        let out = BufWriter::new(File::create(place.with_extension("part"))?);
        Ok(Self { name, place, out, count: 0 })
    }

    fn add(&mut self, line: &str) -> io::Result<()> {
        self.count += 1;
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Makes it appear; none if it is empty.
    fn end(mut self, type_name: &str) -> io::Result<Option<Output>> {
        self.out.flush()?;
        if self.count == 0 {
            fs::remove_file(self.place.with_extension("part"))?;
            return Ok(None);
        }
        fs::rename(self.place.with_extension("part"), &self.place)?;
        Ok(Some(Output { type_name: type_name.to_owned(), file: self.name, count: self.count, ..Output::default() }))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err calls")]
fn failed(error: io::Error) -> Failure {
    storage_failure("the export cannot be written", &error)
}

/// What was to be exported is not there any more.
fn incomplete(type_name: &str) -> Failure {
    Failure::new(Kind::Damaged, format!("a {type_name} was purged or the simulator reset meanwhile; begin it anew"))
}

/// `Type/id` of a stored resource.
fn uid_of(type_name: &str, text: &str) -> String {
    let id = raw::member(text, 0, "id").map(|span| raw::string(&text[span]).into_owned()).unwrap_or_default();
    format!("{type_name}/{id}")
}

fn hash(uid: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(uid.as_bytes());
    hasher.finish()
}

impl Export<'_> {
    fn run(mut self) -> Result<(), Failure> {
        // What is said of all of it is known first: a manifest that is handed out early has it.
        if !self.order.notes.is_empty() {
            let error = self.outcomes("errors", &self.order.notes)?;
            self.job.found(|state| state.error.push(error));
        }
        let mut queries = Vec::new();
        for type_name in &self.order.types {
            let type_name = self.snapshot.definitions().resource_type(type_name)?;
            let query = self.query(type_name)?;
            let (found, _) = self.hits(&query, None, 0)?;
            self.job.expect(found.total * self.order.times.max(1));
            queries.push((type_name, query));
        }
        let mut errors = Vec::new();
        match self.order.organized_by.as_deref() {
            Some(type_name) => self.organized(self.snapshot.definitions().resource_type(type_name)?, &queries, &mut errors)?,
            None => {
                for (type_name, query) in &queries {
                    self.by_type(type_name, query, &mut errors)?;
                }
            }
        }
        if let Some(which) = self.order.associated {
            self.provenance(which)?;
        }
        let deleted = self.deleted().map_err(failed)?;
        let error = if errors.is_empty() { None } else { Some(self.outcomes("failures", &errors)?) };
        self.job.found(|state| {
            state.deleted = deleted;
            state.error.extend(error);
        });
        Ok(())
    }

    /// A file of the next number.
    fn next_file(&mut self, of: &str) -> Result<Lines, Failure> {
        self.part += 1;
        if self.part > MAX_FILES {
            let message = format!("it has more than {MAX_FILES} files; ask for fewer types, or let files be longer: the setting bulk.page");
            return Err(Failure::new(Kind::TooLarge, message));
        }
        Lines::begin(self.job, format!("{}.{of}.ndjson", self.part)).map_err(failed)
    }

    /// Makes a file appear, unless it is to fail.
    fn finish(&mut self, file: Lines, type_name: &str, errors: &mut Vec<String>) -> Result<(), Failure> {
        if self.order.some_fail && !self.part.is_multiple_of(3) {
            let what = if type_name.is_empty() { "several types" } else { type_name };
            errors.push(format!("a file of {what} could not be made: a fault that this export was told to have"));
            return fs::remove_file(file.place.with_extension("part")).map_err(failed);
        }
        let output = file.end(type_name).map_err(failed)?;
        self.job.found(|state| state.output.extend(output));
        Ok(())
    }

    fn is_on(&self) -> Result<(), Failure> {
        if self.job.is_over() { Err(Failure::new(Kind::Conflict, "it was cancelled")) } else { Ok(()) }
    }

    /// Files of one type each.
    fn by_type(&mut self, type_name: &'static str, query: &Query, errors: &mut Vec<String>) -> Result<(), Failure> {
        let page = self.order.page.max(1);
        for copy in 0..self.order.times.max(1) {
            let mut after = None;
            let mut waiting: Vec<Hit> = Vec::new();
            // So many at a time: what is held in memory does not grow with what is exported.
            loop {
                let (found, wanted) = self.hits(query, after.as_ref(), BATCH)?;
                waiting.extend(wanted);
                after = found.last;
                let is_end = found.hits.len() < BATCH;
                while waiting.len() >= page || is_end && !waiting.is_empty() {
                    let hits: Vec<Hit> = waiting.drain(..waiting.len().min(page)).collect();
                    let mut file = self.next_file(type_name)?;
                    for hit in &hits {
                        if let Some(line) = self.resource(type_name, hit, copy)? {
                            file.add(&line).map_err(failed)?;
                        }
                    }
                    self.finish(file, type_name, errors)?;
                }
                if is_end {
                    break;
                }
            }
        }
        Ok(())
    }

    fn compiled(&self, parameters: &[(String, String)], more: Option<Condition>, type_name: &'static str) -> Result<Query, Failure> {
        let scope = Scope { type_name: Some(type_name), compartment: None };
        let mut search = Search::parse(parameters, scope, self.snapshot.params())?.strict()?;
        search.conditions.extend(more.map(|condition| (String::new(), condition)));
        Ok(self.snapshot.compile(&search, self.sim.now_ms(), &Budget::new(u64::MAX))?.query)
    }

    /// Which resources of a type are wanted.
    fn query(&self, type_name: &'static str) -> Result<Query, Failure> {
        let mut all = self.wanted(type_name)?;
        match (&self.order.whose, &self.order.group) {
            (Whose::Anyones, _) => {}
            (Whose::Patients, _) => all.push(self.compiled(&[], Some(Condition::Compartments("Patient")), type_name)?),
            // Others that a member is in name those who are in them, too.
            (Whose::Of(_), Some(group)) if type_name == "Group" => all.push(Query::terms_of("Group/_id\u{1f}c", vec![group.as_str().into()])),
            (Whose::Of(ids), _) => all.push(self.snapshot.of_patients(ids, type_name)),
        }
        Ok(Query::and(all))
    }

    /// Which resources of a type are wanted, whosever they are.
    fn wanted(&self, type_name: &'static str) -> Result<Vec<Query>, Failure> {
        let mut all = vec![Query::term(&type_term(type_name))];
        let filters: Vec<_> = self.order.filters.iter().filter(|(of_type, _)| of_type == type_name).collect();
        if !filters.is_empty() {
            all.push(Query::or(filters.into_iter().map(|(_, pairs)| self.compiled(pairs, None, type_name)).collect::<Result<_, _>>()?));
        }
        if let Some(restriction) = self.order.restrictions.get(type_name) {
            all.push(self.compiled(restriction, None, type_name)?);
        }
        Ok(all)
    }

    fn found(&self, query: &Query, after: Option<&Position>, count: usize) -> Result<Found, Failure> {
        let budget = Budget::new(u64::MAX);
        let body = |type_name: &'static str, version: &Version| self.body(type_name, version).inspect_err(|_| budget.miss()).ok();
        let find = Find { query, sort: &[], offset: 0, after, count, body: &body, budget: &budget };
        let found = self.snapshot.view.find(&find).map_err(|e| storage_failure("the index cannot be read", &e))?;
        if budget.has_missed() { Err(incomplete("resource")) } else { Ok(found) }
    }

    fn is_wanted(&self, hit: &Hit) -> bool {
        let (since, until) = (self.order.since_ms.unwrap_or(i64::MIN), self.order.until_ms.unwrap_or(i64::MAX));
        hit.version.modified_ms > since && hit.version.modified_ms <= until
    }

    /// Some of them, after a place in the index's order: all that are found there, and those that are of the time that is wanted.
    fn hits(&self, query: &Query, after: Option<&Position>, count: usize) -> Result<(Found, Vec<Hit>), Failure> {
        let found = self.found(query, after, count)?;
        let wanted = found.hits.iter().filter(|hit| self.is_wanted(hit)).cloned().collect();
        Ok((found, wanted))
    }

    /// A resource in one line; none if it is told to be deleted.
    fn resource(&mut self, type_name: &'static str, hit: &Hit, copy: usize) -> Result<Option<String>, Failure> {
        self.is_on()?;
        self.job.did(1);
        if self.breath.elapsed() > BREATH {
            std::thread::yield_now();
            self.breath = Instant::now();
        }
        let text = self.text(type_name, &hit.version)?;
        let percent = if self.order.since_ms.is_some() { self.order.deleted_percent } else { 0 };
        if percent > 0 || self.seen.is_some() {
            let uid = uid_of(type_name, &text);
            let hash = hash(&uid);
            if hash % 100 < percent {
                self.gone.push(format!("{uid}{}", suffix(copy)));
                return Ok(None);
            }
            if let Some(seen) = &mut self.seen {
                seen.insert(hash);
            }
        }
        let line = self.line(type_name, text)?;
        Ok(Some(if copy == 0 { line } else { self.renamed(&line, copy) }))
    }

    /// A resource as it is stored.
    fn text(&self, type_name: &'static str, version: &Version) -> Result<String, Failure> {
        let bytes = self.snapshot.read(type_name, version).or_else(|_| self.successor()?.read(type_name, version));
        // What is not there any more would be missing in what is called whole.
        String::from_utf8(bytes.map_err(|_| incomplete(type_name))?).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))
    }

    /// The same, which may be looked at often.
    fn body(&self, type_name: &'static str, version: &Version) -> Result<Body, Failure> {
        self.snapshot.body(type_name, version).or_else(|_| self.successor()?.body(type_name, version))
    }

    /// Who has the folders now: of a simulator that was sealed meanwhile they lie elsewhere.
    fn successor(&self) -> Result<Arc<Snapshot>, Failure> {
        Ok(self.registry.get(self.sim.id())?.snapshot())
    }

    /// What is wanted of a resource, in one line.
    fn line(&self, type_name: &'static str, text: String) -> Result<String, Failure> {
        let names: Vec<String> =
            self.order.elements.iter().filter(|(of, _)| of.as_deref().is_none_or(|of| of == type_name)).map(|(_, name)| name.clone()).collect();
        // Of elements of other types only, all of this one is wanted.
        let text = if names.is_empty() { text } else { Subset::Elements(names).of(&text, type_name, self.snapshot.definitions()) };
        if !text.contains(['\n', '\r']) {
            return Ok(text);
        }
        // Every digit and the order of members survive.
        let value: Value = serde_json::from_str(&text).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        Ok(value.to_string())
    }

    /// A resource under the id of a copy, which refers to copies of what is exported with it.
    fn renamed(&self, line: &str, copy: usize) -> String {
        let definitions = self.snapshot.definitions();
        let edits = raw::string_edits(line, &mut |path, text| match path {
            [key] if key == "id" => Some(format!("{text}{}", suffix(copy))),
            [.., key] if key == "reference" => match Reference::parse(text, definitions) {
                Reference::Local { type_name, id, .. } if self.order.types.iter().any(|t| t == type_name) => Some(format!("{type_name}/{id}{}", suffix(copy))),
                Reference::Local { .. } | Reference::Contained(_) | Reference::Conditional { .. } | Reference::Other(_) => None,
            },
            _ => None,
        });
        raw::apply(line, edits)
    }

    /// A file of OperationOutcomes.
    fn outcomes(&self, name: &str, texts: &[String]) -> Result<Output, Failure> {
        let outcome = |text: &String| outcome::informational("error", "processing", std::slice::from_ref(text)).to_string();
        let lines: Vec<String> = texts.iter().map(outcome).collect();
        let output = self.write("OperationOutcome", name, &lines).map_err(failed)?;
        Ok(Output { severities: BTreeMap::from([("error".to_owned(), lines.len())]), ..output })
    }

    fn write(&self, type_name: &str, name: &str, lines: &[String]) -> io::Result<Output> {
        let file = format!("{name}.{type_name}.ndjson");
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        replace_file(&self.job.place(&file), &bytes)?;
        Ok(Output { type_name: type_name.to_owned(), file, count: lines.len(), ..Output::default() })
    }

    /// What was deleted since, as Bundles that delete it.
    fn deleted(&self) -> io::Result<Vec<Output>> {
        let delete = |url: &str| {
            let entry = json!({"request": {"method": "DELETE", "url": url}});
            json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).to_string()
        };
        // What is in several blocks is deleted once.
        let gone: std::collections::BTreeSet<&String> = self.gone.iter().collect();
        let mut lines: Vec<String> = gone.into_iter().map(|uid| delete(uid)).collect();
        // Whose it was that is gone, nobody can tell of some patients; nor whether a search would have found it.
        if let (Some(since), Whose::Anyones | Whose::Patients) = (self.order.since_ms, &self.order.whose) {
            // The last that is not after it.
            let until = EventId::from_u64(EventId::first_of(self.order.until_ms.unwrap_or(i64::MAX).saturating_add(1)).to_u64().saturating_sub(1));
            let (first, last) = (EventId::first_of(since.saturating_add(1)), self.snapshot.last_event().min(until));
            let is_told = |t: &&String| !self.order.restrictions.contains_key(*t) && !self.order.filters.iter().any(|(of, _)| of == *t);
            let types = self.order.gone.iter().filter(is_told).filter_map(|t| self.snapshot.definitions().find_resource_type(t));
            for type_name in types.filter(|_| first <= last) {
                let span = Span { events: first..=last, type_name: Some(type_name), ascending: true };
                let (_, versions) = self.snapshot.past(&span, 0, MAX_DELETED);
                for (_, id, version) in versions.into_iter().filter(|(.., v)| v.is_deletion()) {
                    if self.snapshot.latest(type_name, &id).is_some_and(|latest| latest.event == version.event) {
                        lines.push(delete(&format!("{type_name}/{id}")));
                    }
                }
            }
        }
        if lines.is_empty() { Ok(Vec::new()) } else { Ok(vec![self.write("Bundle", "deleted", &lines)?]) }
    }
}

/// What an id ends in that a copy has: nothing, of what is no copy.
fn suffix(copy: usize) -> String {
    if copy == 0 { String::new() } else { format!("-{copy}") }
}

impl Snapshot {
    /// The content of a version, from the disk, past the cache: what is read once is not to drive out what is read often.
    fn read(&self, type_name: &str, version: &Version) -> Result<Vec<u8>, Failure> {
        let file = self.store.dir_of(version.event).resource(version.event, version.place, type_name);
        fs::read(&file).map_err(|e| Failure::new(Kind::Damaged, format!("{}: {e}", file.display())))
    }
}
