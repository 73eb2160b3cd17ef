//! Exports of bulk data, <https://hl7.org/fhir/uv/bulkdata/export.html>: what a simulator holds at one moment, as NDJSON files.
//!
//! A job has a directory, `.bulk/<simulator>/<job>`, with `job.json` and its files. It is of a snapshot, so writes that come meanwhile
//! are not in it. A file appears under its name when it is whole; a job that a stop has cut off has failed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::registry::Registry;
use super::snapshot::Snapshot;
use super::{Sim, storage_failure};
use crate::clock::EventId;
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, ResourceId};
use crate::index::{Budget, Find, Found, Hit, Position, Span};
use crate::query::Query;
use crate::search::condition::Condition;
use crate::search::extract::type_term;
use crate::search::{Scope, Search};
use crate::simdb::SimId;
use crate::simdb::write::replace_file;
use crate::version::Version;

/// Most jobs of a simulator that are kept.
const MAX_JOBS: usize = 100;
/// Most files of an export.
const MAX_FILES: usize = 1_500;
/// Resources that are looked up at once.
const BATCH: usize = 50_000;
/// How long writers may be kept waiting; events further ahead of the clock were made before it was set back.
const SOON_MS: i64 = 5;
/// How much exports give way: a nice value.
const NICE: i32 = 10;
/// The directory of all jobs.
pub(super) const FOLDER: &str = ".bulk";
/// Deleted resources of a type that are looked for.
const MAX_DELETED: usize = 1_000_000;

/// Whose resources are exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// All there are.
    #[default]
    Anyones,
    /// Those that belong to patients.
    Patients,
    /// Those that belong to these patients.
    Of(Vec<ResourceId>),
}

/// What shall be exported.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The types.
    pub types: Vec<&'static str>,
    /// The types of which is told what was deleted: those, and where none were named, such as have nothing left.
    pub gone: Vec<&'static str>,
    /// Whose resources.
    pub whose: Whose,
    /// Only what was modified after this, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only what was modified up to this.
    pub until_ms: Option<i64>,
    /// Of a type only what one of its searches finds.
    pub filters: Vec<(&'static str, Vec<(String, String)>)>,
    /// Of a type only what this search finds, too: what the token allows.
    pub restrictions: BTreeMap<&'static str, Vec<(String, String)>>,
    /// Elements to keep, each of a type or of all.
    pub elements: Vec<(Option<String>, String)>,
    /// Most lines of a file.
    pub page: usize,
    /// What was passed over, for the list of errors.
    pub notes: Vec<String>,
    /// Whether some files shall fail.
    pub some_fail: bool,
}

/// A file of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The type of its resources.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its name.
    pub file: String,
    /// How many lines it has.
    pub count: usize,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "phase", content = "why")]
pub enum Phase {
    /// It goes on.
    Running,
    /// All files are there.
    Complete,
    /// There will be none.
    Failed(String),
}

/// What is known of a job, as `job.json` has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// How far it is.
    pub phase: Phase,
    /// The URL that began it.
    pub request: String,
    /// The moment it is of.
    pub transaction_time: String,
    /// Whether its files ask for a token.
    pub requires_token: bool,
    /// When the simulator was made: of another of its name it is none.
    pub made: String,
    /// The machine's boot: what was not synced may be lost with it.
    pub boot: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: i64,
    /// Before this it is not shown complete, whatever it is.
    pub ready_ms: i64,
    /// When it is forgotten.
    pub expires_ms: i64,
    /// Who began it, if it was asked: nobody else is told of it.
    #[serde(default)]
    pub client: Option<String>,
    /// By type, the search that it was restricted to.
    #[serde(default)]
    pub restrictions: BTreeMap<String, String>,
    /// Whether it was ended.
    #[serde(default)]
    pub cancelled: bool,
    /// What shall go wrong when it is asked for.
    pub err: Option<String>,
    /// Its files.
    pub output: Vec<Output>,
    /// Files of what was deleted.
    pub deleted: Vec<Output>,
    /// Files of OperationOutcomes.
    pub error: Vec<Output>,
}

/// A job.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: String,
    folder: PathBuf,
    state: Mutex<State>,
    done: AtomicUsize,
    total: AtomicUsize,
    cancelled: AtomicBool,
    /// Whether a fault that happens once has happened.
    pub once: AtomicBool,
}

/// Keeps what an export is of from being forgotten, from its kick-off on.
struct Kept(Arc<Sim>);

impl Kept {
    fn begin(sim: &Arc<Sim>) -> Self {
        // Not while something is being forgotten.
        let _none = sim.exports.read();
        sim.exporting.fetch_add(1, Ordering::AcqRel);
        Self(sim.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.exporting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The jobs of a server.
#[derive(Debug, Default)]
pub struct Jobs {
    known: Mutex<BTreeMap<(SimId, String), Arc<Job>>>,
    /// Held by the one that is worked on: exports are not to keep each other, and all others, waiting.
    lane: Mutex<()>,
}

impl Job {
    /// What is known of it.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// How many of a hundred parts are done.
    #[must_use]
    pub fn percent(&self) -> usize {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        (done * 100).checked_div(total).unwrap_or(0).min(99)
    }

    /// Where a file of it lies, if there is one of that name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<(PathBuf, Output)> {
        let state = self.state.lock();
        let found = state.output.iter().chain(&state.deleted).chain(&state.error).find(|output| output.file == name)?;
        Some((self.folder.join(&found.file), found.clone()))
    }

    fn save(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock();
        change(&mut state);
        replace_file(&self.folder.join("job.json"), &serde_json::to_vec_pretty(&*state)?)
    }
}

impl Jobs {
    /// Begins a job of a simulator as it is now.
    ///
    /// # Errors
    /// There are too many; the disk refuses.
    pub fn begin(self: &Arc<Self>, registry: &Arc<Registry>, sim: &Arc<Sim>, order: Order, state: State) -> Result<Arc<Job>, Failure> {
        let folder = registry.root().join(FOLDER).join(sim.id().as_str());
        self.sweep(sim, &folder);
        let there = fs::read_dir(&folder).map_or(0, Iterator::count);
        if there >= MAX_JOBS {
            return Err(Failure::new(
                Kind::TooCostly,
                format!("there are {MAX_JOBS} exports of this simulator, which is the most; DELETE the status of those that are done with"),
            ));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let failed = |e: io::Error| storage_failure("the export cannot be begun", &e);
        let folder = folder.join(&id);
        fs::create_dir_all(&folder).map_err(failed)?;
        let kept = Kept::begin(sim);
        let snapshot = settled(sim);
        let time = if snapshot.last_event() == EventId::ZERO { crate::clock::instant(sim.now_ms() - 1) } else { snapshot.last_event().instant() };
        let state = State { transaction_time: time, boot: registry.boot().to_owned(), ..state };
        let job = Arc::new(Job {
            id: id.clone(),
            folder,
            state: Mutex::new(state),
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            once: AtomicBool::new(false),
        });
        job.save(|_| ()).map_err(failed)?;
        self.known.lock().insert((sim.id().clone(), id), job.clone());
        let (work, jobs, registry, sim) = (job.clone(), self.clone(), registry.clone(), sim.clone());
        let runs = move || {
            // Those who read and write come first.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            let _kept = kept;
            let _alone = jobs.lane.lock();
            let done = Export { registry: &registry, sim: &sim, snapshot: &snapshot, order: &order, job: &work }.run();
            if work.cancelled.load(Ordering::Acquire) {
                let _ = fs::remove_dir_all(&work.folder);
                return;
            }
            let saved = work.save(|state| match done {
                Ok((output, deleted, error)) => (state.phase, state.output, state.deleted, state.error) = (Phase::Complete, output, deleted, error),
                Err(failure) => state.phase = Phase::Failed(failure.diagnostics),
            });
            if let Err(error) = saved {
                tracing::error!(job = work.id, %error, "the state of an export cannot be written");
            }
        };
        std::thread::Builder::new().name("bulk".into()).spawn(runs).map_err(failed)?;
        Ok(job)
    }

    /// The job of that id, if the simulator has one.
    #[must_use]
    pub fn find(&self, registry: &Registry, sim: &Sim, id: &str) -> Option<Arc<Job>> {
        // Only what is an id becomes part of a path.
        let id = id.parse::<uuid::Uuid>().ok()?.to_string();
        let key = (sim.id().clone(), id.clone());
        let mut known = self.known.lock();
        let job = if let Some(job) = known.get(&key) {
            job.clone()
        } else {
            let folder = registry.root().join(FOLDER).join(sim.id().as_str()).join(&id);
            let mut state: State = serde_json::from_slice(&fs::read(folder.join("job.json")).ok()?).ok()?;
            if state.cancelled {
                return None;
            }
            if state.phase == Phase::Running || state.boot != registry.boot() {
                state.phase = Phase::Failed("the server was stopped while the export went on; begin it anew".to_owned());
            }
            let zero = || AtomicUsize::new(0);
            let (cancelled, once) = (AtomicBool::new(false), AtomicBool::new(false));
            let job = Arc::new(Job { id, folder, state: Mutex::new(state), done: zero(), total: zero(), cancelled, once });
            known.insert(key, job.clone());
            job
        };
        drop(known);
        let state = job.state();
        (state.made == sim.profile().created && state.expires_ms > sim.now_ms() && !job.cancelled.load(Ordering::Acquire)).then_some(job)
    }

    /// Ends a job and frees what it has.
    pub fn cancel(&self, sim: &Sim, job: &Job) {
        job.cancelled.store(true, Ordering::Release);
        // Also for who reads it from the disk before the one that works on it has noticed.
        let _ = job.save(|state| state.cancelled = true);
        self.known.lock().remove(&(sim.id().clone(), job.id.clone()));
        // One that goes on removes its directory itself.
        if job.state().phase != Phase::Running {
            let _ = fs::remove_dir_all(&job.folder);
        }
    }

    /// Removes what has expired, and what is of another simulator of the name.
    fn sweep(&self, sim: &Sim, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let state = fs::read(entry.path().join("job.json")).ok().and_then(|b| serde_json::from_slice::<State>(&b).ok());
            let stays = state.is_some_and(|state| state.made == sim.profile().created && state.expires_ms > sim.now_ms());
            let id = entry.file_name().to_string_lossy().into_owned();
            if !stays {
                self.known.lock().remove(&(sim.id().clone(), id));
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// The jobs of a simulator that this server knows, newest first.
    #[must_use]
    pub fn of(&self, sim: &Sim) -> Vec<Arc<Job>> {
        let known = self.known.lock();
        let mut all: Vec<Arc<Job>> = known.iter().filter(|((of, _), _)| of == sim.id()).map(|(_, job)| job.clone()).collect();
        all.sort_by_key(|job| std::cmp::Reverse(job.state.lock().began_ms));
        all
    }
}

/// A picture whose last event lies in a millisecond that is over: whatever comes later is later by its instant, too, so that the
/// next export since then misses nothing.
fn settled(sim: &Sim) -> Arc<Snapshot> {
    // Writers wait for that millisecond: with many of them one would else come in between each time.
    let _guard = sim.writer.lock();
    let snapshot = sim.snapshot();
    let last = snapshot.last_event().millis();
    let is_soon_over = |now: i64| now <= last && last - now < SOON_MS;
    while is_soon_over(sim.now_ms()) {
        std::thread::yield_now();
    }
    snapshot
}

/// An export that goes on.
struct Export<'a> {
    registry: &'a Registry,
    sim: &'a Sim,
    snapshot: &'a Snapshot,
    order: &'a Order,
    job: &'a Job,
}

type Outputs = (Vec<Output>, Vec<Output>, Vec<Output>);

impl Export<'_> {
    fn run(&self) -> Result<Outputs, Failure> {
        let failed = |e: io::Error| storage_failure("the export cannot be written", &e);
        let mut queries = Vec::new();
        for type_name in &self.order.types {
            let query = self.query(type_name)?;
            let (found, _) = self.hits(&query, None, 0)?;
            self.job.total.fetch_add(found.total, Ordering::Relaxed);
            queries.push((*type_name, query));
        }
        let (mut output, mut errors) = (Vec::new(), self.order.notes.clone());
        let mut part = 0;
        for (type_name, query) in queries {
            let mut after = None;
            let mut waiting: Vec<Hit> = Vec::new();
            // So many at a time: what is held in memory does not grow with what is exported.
            loop {
                let (found, wanted) = self.hits(&query, after.as_ref(), BATCH)?;
                waiting.extend(wanted);
                after = found.last;
                let is_end = found.hits.len() < BATCH;
                while waiting.len() >= self.order.page.max(1) || is_end && !waiting.is_empty() {
                    let page: Vec<Hit> = waiting.drain(..waiting.len().min(self.order.page.max(1))).collect();
                    part += 1;
                    if part > MAX_FILES {
                        return Err(Failure::new(
                            Kind::TooLarge,
                            format!("it has more than {MAX_FILES} files; ask for fewer types, or let files be longer: the setting bulk.page"),
                        ));
                    }
                    if self.order.some_fail && part % 3 != 0 {
                        errors.push(format!("a file of {type_name} could not be made: a fault that this export was told to have"));
                        continue;
                    }
                    output.extend(self.page(type_name, &page, part).map_err(failed)?);
                    if self.job.cancelled.load(Ordering::Acquire) {
                        return Err(Failure::new(Kind::Conflict, "it was cancelled"));
                    }
                }
                if is_end {
                    break;
                }
            }
        }
        let deleted = self.deleted().map_err(failed)?;
        let outcome = |text: &String| {
            json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "processing", "details": {"text": text}, "diagnostics": text}]})
                .to_string()
        };
        let errors: Vec<String> = errors.iter().map(outcome).collect();
        let error =
            if errors.is_empty() { Vec::new() } else { vec![self.write("OperationOutcome", "errors", errors.iter().map(String::as_bytes)).map_err(failed)?] };
        Ok((output, deleted, error))
    }

    /// Which resources of a type are wanted.
    fn query(&self, type_name: &'static str) -> Result<Query, Failure> {
        let budget = Budget::new(u64::MAX);
        let of = |parameters: &[(String, String)], more: Option<Condition>| -> Result<Query, Failure> {
            let scope = Scope { type_name: Some(type_name), compartment: None };
            let mut search = Search::parse(parameters, scope, self.snapshot.params())?.strict()?;
            search.conditions.extend(more.map(|condition| (String::new(), condition)));
            Ok(self.snapshot.compile(&search, self.sim.now_ms(), &budget)?.query)
        };
        let mut all = vec![Query::term(&type_term(type_name))];
        let filters: Vec<_> = self.order.filters.iter().filter(|(of_type, _)| *of_type == type_name).collect();
        if !filters.is_empty() {
            all.push(Query::or(filters.into_iter().map(|(_, pairs)| of(pairs, None)).collect::<Result<_, _>>()?));
        }
        if let Some(restriction) = self.order.restrictions.get(type_name) {
            all.push(of(restriction, None)?);
        }
        match &self.order.whose {
            Whose::Anyones => {}
            Whose::Patients => all.push(of(&[], Some(Condition::Compartments("Patient")))?),
            Whose::Of(ids) => {
                let each = ids.iter().map(|id| of(&[], Some(Condition::Compartment("Patient", id.to_string()))));
                all.push(Query::or(each.collect::<Result<_, _>>()?));
            }
        }
        Ok(Query::and(all))
    }

    /// Some of them, after a place in the index's order: all that are found there, and those that are of the time that is wanted.
    fn hits(&self, query: &Query, after: Option<&Position>, count: usize) -> Result<(Found, Vec<Hit>), Failure> {
        let body = |type_name: &'static str, version: &Version| self.snapshot.body(type_name, version).ok();
        let find = Find { query, sort: &[], offset: 0, after, count, body: &body, budget: &Budget::new(u64::MAX) };
        let found = self.snapshot.view.find(&find).map_err(|e| storage_failure("the index cannot be read", &e))?;
        let (since, until) = (self.order.since_ms.unwrap_or(i64::MIN), self.order.until_ms.unwrap_or(i64::MAX));
        let wanted = found.hits.iter().filter(|hit| hit.version.modified_ms > since && hit.version.modified_ms <= until).cloned().collect();
        Ok((found, wanted))
    }

    /// A file of resources.
    fn page(&self, type_name: &'static str, hits: &[Hit], part: usize) -> io::Result<Option<Output>> {
        let name = format!("{part}.{type_name}.ndjson");
        let place = self.job.folder.join(&name);
        let mut out = BufWriter::new(File::create(place.with_extension("part"))?);
        let mut count = 0;
        for hit in hits {
            if self.job.cancelled.load(Ordering::Acquire) {
                return Ok(None);
            }
            self.job.done.fetch_add(1, Ordering::Relaxed);
            // What is not there any more would be missing in what is called whole.
            let line = self
                .line(type_name, &hit.version)
                .map_err(|_| io::Error::other(format!("a {type_name} was purged or the simulator reset meanwhile; begin it anew")))?;
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
            count += 1;
        }
        out.flush()?;
        // No empty files.
        if count == 0 {
            fs::remove_file(place.with_extension("part"))?;
            return Ok(None);
        }
        fs::rename(place.with_extension("part"), &place)?;
        Ok(Some(Output { type_name: type_name.to_owned(), file: name, count }))
    }

    fn write<'l>(&self, type_name: &str, name: &str, lines: impl Iterator<Item = &'l [u8]>) -> io::Result<Output> {
        let file = format!("{name}.{type_name}.ndjson");
        let (mut bytes, mut count) = (Vec::new(), 0);
        for line in lines {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
            count += 1;
        }
        replace_file(&self.job.folder.join(&file), &bytes)?;
        Ok(Output { type_name: type_name.to_owned(), file, count })
    }

    /// A resource in one line.
    fn line(&self, type_name: &'static str, version: &Version) -> Result<String, Failure> {
        // Sealed meanwhile, its folders lie elsewhere: who has them now knows.
        let bytes = self.snapshot.read(type_name, version).or_else(|_| self.registry.get(self.sim.id())?.snapshot().read(type_name, version))?;
        let text = String::from_utf8(bytes).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
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

    /// What was deleted since, as Bundles that delete it.
    fn deleted(&self) -> io::Result<Vec<Output>> {
        // Whose it was that is gone, nobody can tell of some patients; nor whether a search would have found it.
        let (Some(since), Whose::Anyones | Whose::Patients) = (self.order.since_ms, &self.order.whose) else { return Ok(Vec::new()) };
        let until = EventId::first_of(self.order.until_ms.unwrap_or(i64::MAX).saturating_add(1));
        let (first, last) = (EventId::first_of(since.saturating_add(1)), self.snapshot.last_event().min(until));
        let mut lines = Vec::new();
        let types = self.order.gone.iter().filter(|t| !self.order.restrictions.contains_key(*t) && !self.order.filters.iter().any(|(of, _)| of == *t));
        for type_name in types.filter(|_| first <= last) {
            let span = Span { events: first..=last, type_name: Some(*type_name), ascending: true };
            let (_, versions) = self.snapshot.past(&span, 0, MAX_DELETED);
            for (_, id, version) in versions.into_iter().filter(|(.., v)| v.is_deletion()) {
                if self.snapshot.latest(type_name, &id).is_some_and(|latest| latest.event == version.event) {
                    let entry = json!({"request": {"method": "DELETE", "url": format!("{type_name}/{id}")}});
                    lines.push(json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).to_string());
                }
            }
        }
        if lines.is_empty() { Ok(Vec::new()) } else { Ok(vec![self.write("Bundle", "deleted", lines.iter().map(String::as_bytes))?]) }
    }
}

impl Snapshot {
    /// The content of a version, from the disk, past the cache: what is read once is not to drive out what is read often.
    fn read(&self, type_name: &str, version: &Version) -> Result<Vec<u8>, Failure> {
        let file = self.store.dir_of(version.event).resource(version.event, version.place, type_name);
        fs::read(&file).map_err(|e| Failure::new(Kind::Damaged, format!("{}: {e}", file.display())))
    }
}
