//! Work that goes on after its request was answered, <https://hl7.org/fhir/R4/async.html>: exports of bulk data, imports, submissions.
//!
//! A job has a directory, `.bulk/<simulator>/<job>`, with `job.json` and its files. A file appears under its name when it is whole. An export
//! that a stop has cut off is made again, of the moment that it was of ([`export`]); an import has failed then, and says so.

mod cohort;
pub mod export;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::profile::Ig;
use super::registry::Registry;
use super::{Sim, storage_failure};
use crate::fhir::{Failure, Kind};
use crate::simdb::SimId;
use crate::simdb::write::replace_file;

/// Most jobs of a client of a simulator that are kept, parts of submissions aside.
const MAX_JOBS: usize = 100;
/// The same of all its clients together.
const MAX_ALL: usize = 1_000;
/// Most manifests of a submission, with those that take others back.
pub const MAX_PARTS: usize = 1_000;
/// The directory of all jobs.
pub(super) const FOLDER: &str = ".bulk";

/// What a job does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// It writes files of what there is.
    #[default]
    Export,
    /// It stores what files have.
    Import,
    /// It stands for the imports that belong together.
    Submission,
}

/// A file of a job, or what became of a file that it read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The type of its resources; empty if there are several.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its name; empty if there is none.
    pub file: String,
    /// How many lines it has.
    pub count: usize,
    /// The URL that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Of outcomes: how many of each severity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub severities: BTreeMap<String, usize>,
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
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct State {
    /// What it does.
    #[serde(default)]
    pub task: Task,
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
    /// The guide that its answers follow.
    #[serde(default)]
    pub ig: Ig,
    /// The types of what is exported: who fetches a file of several must be allowed all of them.
    #[serde(default)]
    pub types: Vec<String>,
    /// The type of which each resource has a block of its own.
    #[serde(default)]
    pub organized_by: Option<String>,
    /// How many files a manifest lists, if the client takes several manifests, and takes them early.
    #[serde(default)]
    pub partial: Option<usize>,
    /// Whether the status of a request for the status is told apart from that of the job.
    #[serde(default)]
    pub separate: bool,
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
    /// What was submitted, if it stands for that.
    #[serde(default)]
    pub submission: Option<Submission>,
    /// Whether it is part of a submission.
    #[serde(default)]
    pub is_part: bool,
    /// The jobs whose work it takes back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdraws: Vec<String>,
}

/// What one who submits calls a whole: manifests, one after another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// Who submits: `system|value`.
    pub submitter: String,
    /// What they call it.
    pub id: String,
    /// Whether there is more to come.
    pub status: Submitted,
    /// The manifests, in the order they came.
    pub manifests: Vec<Manifest>,
}

/// How far a submission is, <http://hl7.org/fhir/event-status>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submitted {
    /// There may be more.
    InProgress,
    /// That was all.
    Completed,
    /// It was all wrong.
    Stopped,
}

/// A manifest that was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Where it lies.
    pub url: String,
    /// The job that reads it.
    pub job: String,
    /// Whether what it brought was taken back.
    pub withdrawn: bool,
    /// Whether the job is the one that takes that back.
    #[serde(default)]
    pub takes_back: bool,
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
    /// Whether it shall do no more, and stay.
    stopped: AtomicBool,
    /// Whether a fault that happens once has happened.
    pub once: AtomicBool,
    /// The minute in which it was asked after, and how often.
    asked: Mutex<(i64, u32)>,
}

impl Job {
    fn new(id: String, folder: PathBuf, state: State) -> Self {
        let zero = || AtomicUsize::new(0);
        let flag = || AtomicBool::new(false);
        Self { id, folder, state: Mutex::new(state), done: zero(), total: zero(), cancelled: flag(), stopped: flag(), once: flag(), asked: Mutex::default() }
    }

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

    /// There is so much more to do.
    pub fn expect(&self, more: usize) {
        self.total.fetch_add(more, Ordering::Relaxed);
    }

    /// So much more is done.
    pub fn did(&self, more: usize) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    /// Whether it shall do no more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.stopped.load(Ordering::Acquire)
    }

    /// Lets it do no more; what it has done stays.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Where a file of that name lies, or would.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where a file of it lies, if there is one of that name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<(PathBuf, Output)> {
        let state = self.state.lock();
        let found = state.output.iter().chain(&state.deleted).chain(&state.error).find(|output| !name.is_empty() && output.file == name)?;
        Some((self.folder.join(&found.file), found.clone()))
    }

    /// Takes note of what was done; it is on the disk when the job is.
    pub fn found(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
    }

    /// Takes note of it on the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state.lock();
        change(&mut state);
        replace_file(&self.folder.join("job.json"), &serde_json::to_vec_pretty(&*state)?)
    }

    /// Whether it was asked after more often than `most` times in this minute; how many seconds of it are left then. 0 is no limit.
    #[must_use]
    pub fn is_asked_too_often(&self, most: u32, now_ms: i64) -> Option<i64> {
        let minute = now_ms.div_euclid(60_000);
        let mut asked = self.asked.lock();
        if asked.0 != minute {
            *asked = (minute, 0);
        }
        asked.1 = asked.1.saturating_add(1);
        (most > 0 && asked.1 > most).then(|| 60 - now_ms.rem_euclid(60_000) / 1_000)
    }
}

/// What a job has to do.
pub type Work = Box<dyn FnOnce(&Job) -> Result<(), Failure> + Send>;

/// The jobs of a server.
#[derive(Debug, Default)]
pub struct Jobs {
    known: Mutex<BTreeMap<(SimId, String), Arc<Job>>>,
    /// Held by the export that is worked on: exports are not to keep each other, and all others, waiting.
    exports: Mutex<()>,
    /// The same of the imports of each simulator: they wait for others' servers.
    imports: Mutex<BTreeMap<SimId, Arc<Mutex<()>>>>,
}

impl Jobs {
    /// Begins a job of a simulator. `keeps` is a file that it is to have from the beginning.
    ///
    /// # Errors
    /// There are too many; the disk refuses.
    pub fn begin(
        self: &Arc<Self>,
        registry: &Registry,
        sim: &Sim,
        state: State,
        keeps: Option<(&str, Vec<u8>)>,
        work: Option<Work>,
    ) -> Result<Arc<Job>, Failure> {
        let folder = registry.root().join(FOLDER).join(sim.id().as_str());
        let there = self.sweep(registry, sim, &folder);
        let theirs: Vec<i64> = there.iter().filter(|(client, _)| *client == state.client).map(|(_, expires_ms)| *expires_ms).collect();
        if (theirs.len() >= MAX_JOBS || there.len() >= MAX_ALL) && !state.is_part {
            let (whose, most) = if theirs.len() >= MAX_JOBS { ("client", MAX_JOBS) } else { ("simulator", MAX_ALL) };
            let ends = theirs.into_iter().min().or_else(|| there.iter().map(|(_, expires_ms)| *expires_ms).min());
            let when = ends.map(crate::clock::instant).unwrap_or_default();
            let message = format!(
                "this {whose} has {most} exports and imports, which is the most; DELETE the status of those that are done with, or wait: the first ends at {when}"
            );
            let seconds = ends.map_or(1, |ends| (ends - sim.now_ms()).div_euclid(1_000).max(1));
            return Err(Failure { retry_after_s: u64::try_from(seconds).ok(), ..Failure::new(Kind::TooMany, message) });
        }
        let id = uuid::Uuid::new_v4().to_string();
        let failed = |e: io::Error| storage_failure("the job cannot be begun", &e);
        let folder = folder.join(&id);
        fs::create_dir_all(&folder).map_err(failed)?;
        if let Some((name, bytes)) = keeps {
            replace_file(&folder.join(name), &bytes).map_err(failed)?;
        }
        let job = Arc::new(Job::new(id.clone(), folder, State { boot: registry.boot().to_owned(), ..state }));
        job.save(|_| ()).map_err(failed)?;
        self.known.lock().insert((sim.id().clone(), id), job.clone());
        if let Some(work) = work {
            self.run(sim.id(), job.clone(), work).map_err(failed)?;
        }
        Ok(job)
    }

    /// Works on a job in a thread of its own.
    fn run(self: &Arc<Self>, sim: &SimId, job: Arc<Job>, work: Work) -> io::Result<()> {
        let (jobs, own) = (self.clone(), self.imports.lock().entry(sim.clone()).or_default().clone());
        let runs = move || {
            let lane = if job.state.lock().task == Task::Export { &jobs.exports } else { &*own };
            let alone = lane.lock();
            let done = if job.is_over() { Ok(()) } else { work(&job) };
            drop(alone);
            let mut is_cancelled = false;
            let saved = job.save(|state| {
                is_cancelled = state.cancelled;
                state.phase = done.map_or_else(|failure| Phase::Failed(failure.diagnostics), |()| Phase::Complete);
            });
            if is_cancelled {
                let _ = fs::remove_dir_all(&job.folder);
            } else if let Err(error) = saved {
                tracing::error!(job = job.id, %error, "the state of a job cannot be written");
            }
        };
        std::thread::Builder::new().name("bulk".into()).spawn(runs).map(|_| ())
    }

    /// The job of that id, if the simulator has one.
    #[must_use]
    pub fn find(self: &Arc<Self>, registry: &Arc<Registry>, sim: &Arc<Sim>, id: &str) -> Option<Arc<Job>> {
        // Only what is an id becomes part of a path.
        let id = id.parse::<uuid::Uuid>().ok()?.to_string();
        let key = (sim.id().clone(), id.clone());
        let mut known = self.known.lock();
        let job = if let Some(job) = known.get(&key) {
            job.clone()
        } else {
            let folder = registry.root().join(FOLDER).join(sim.id().as_str()).join(&id);
            let state: State = serde_json::from_slice(&fs::read(folder.join("job.json")).ok()?).ok()?;
            if state.cancelled {
                return None;
            }
            let job = Arc::new(Job::new(id, folder, state));
            known.insert(key, job.clone());
            self.take_up(registry, sim, &job);
            job
        };
        drop(known);
        let state = job.state();
        (state.made == sim.profile().created && state.expires_ms > sim.now_ms() && !job.cancelled.load(Ordering::Acquire)).then_some(job)
    }

    /// Does what is to be done with a job that an earlier process began.
    fn take_up(self: &Arc<Self>, registry: &Arc<Registry>, sim: &Arc<Sim>, job: &Arc<Job>) {
        let state = job.state();
        let is_of_this = state.made == sim.profile().created && state.expires_ms > sim.now_ms();
        let failed = match (&state.phase, state.task) {
            (Phase::Running, Task::Export) if is_of_this => match export::again(registry, sim, job).map(|work| self.run(sim.id(), job.clone(), work)) {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("the server was stopped while it went on, and cannot go on with it: {error}")),
                Err(why) => Some(format!("the server was stopped while it went on, and cannot make it again: {}", why.diagnostics)),
            },
            // Whoever has begun it goes on with it.
            (Phase::Running, Task::Import) if !state.withdraws.is_empty() => None,
            (Phase::Running, Task::Import | Task::Export) => {
                Some("the server was stopped while it went on; what was stored until then stays stored; begin it anew".to_owned())
            }
            (Phase::Complete, Task::Export) if state.boot != registry.boot() => Some("the machine was started anew since; begin it anew".to_owned()),
            (Phase::Running, Task::Submission) | (Phase::Complete | Phase::Failed(_), _) => None,
        };
        if let Some(why) = failed {
            job.found(|state| state.phase = Phase::Failed(why));
        }
    }

    /// Goes on with what a stop of the server has cut off: with exports by itself, with what else `work` knows how to.
    pub fn go_on(self: &Arc<Self>, registry: &Arc<Registry>, work: impl Fn(&Arc<Sim>, &Arc<Job>) -> Option<Work>) {
        let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().collect::<Vec<_>>();
        for of in entries(&registry.root().join(FOLDER)) {
            let Ok(id) = of.file_name().to_string_lossy().parse::<SimId>() else { continue };
            for job in entries(&of.path()) {
                let state = fs::read(job.path().join("job.json")).ok().and_then(|b| serde_json::from_slice::<State>(&b).ok());
                let goes_on = |state: &State| state.task == Task::Export || !state.withdraws.is_empty();
                let is_cut_off = state.is_some_and(|state| state.phase == Phase::Running && !state.cancelled && goes_on(&state));
                let Some(sim) = registry.get(&id).ok().filter(|_| is_cut_off) else { continue };
                let name = job.file_name().to_string_lossy().into_owned();
                tracing::info!(sim = %id, job = name, "goes on with what a stop has cut off");
                let Some(job) = self.find(registry, &sim, &name) else { continue };
                if let Some(work) = work(&sim, &job)
                    && let Err(error) = self.run(sim.id(), job, work)
                {
                    tracing::error!(sim = %id, job = name, %error, "cannot go on");
                }
            }
        }
    }

    /// Ends a job and frees what it has.
    pub fn cancel(&self, registry: &Registry, sim: &Sim, job: &Job) {
        let mut goes_on = false;
        // Whoever works on it ends under the same lock: after the disk says so, or it would be taken up as cut off, and one of the two removes it.
        let saved = job.save(|state| {
            state.cancelled = true;
            job.cancelled.store(true, Ordering::Release);
            goes_on = state.phase == Phase::Running && state.task != Task::Submission;
        });
        if let Err(error) = saved {
            tracing::warn!(job = job.id, %error, "that a job was ended cannot be written");
        }
        self.known.lock().remove(&(sim.id().clone(), job.id.clone()));
        // One that goes on removes its directory itself.
        if !goes_on {
            let _ = registry.throw_away(&job.folder);
        }
    }

    /// Removes what has expired, and what is of another simulator of the name; how many there are then that are part of nothing.
    fn sweep(&self, registry: &Registry, sim: &Sim, folder: &Path) -> Vec<(Option<String>, i64)> {
        let mut there = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let state = fs::read(entry.path().join("job.json")).ok().and_then(|b| serde_json::from_slice::<State>(&b).ok());
            let stays = state.as_ref().is_some_and(|state| state.made == sim.profile().created && state.expires_ms > sim.now_ms());
            let id = entry.file_name().to_string_lossy().into_owned();
            there.extend(state.filter(|state| stays && !state.is_part).map(|state| (state.client, state.expires_ms)));
            if !stays {
                self.known.lock().remove(&(sim.id().clone(), id));
                let _ = registry.throw_away(&entry.path());
            }
        }
        there
    }

    /// The jobs of a simulator, newest first.
    #[must_use]
    pub fn of(self: &Arc<Self>, registry: &Arc<Registry>, sim: &Arc<Sim>) -> Vec<Arc<Job>> {
        let folder = registry.root().join(FOLDER).join(sim.id().as_str());
        let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut all: Vec<Arc<Job>> = names.filter_map(|id| self.find(registry, sim, &id)).collect();
        all.sort_by_key(|job| std::cmp::Reverse(job.state.lock().began_ms));
        all
    }
}
