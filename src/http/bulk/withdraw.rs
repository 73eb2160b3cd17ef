//! What imports have done is taken back: what is still as they left it becomes what it was before, and what was not there is deleted.
//! What that is, the event folders tell, so it is known after a crash, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actix_web::web::Data;
use serde_json::{Value, json};

use super::Result;
use super::import::{Gate, Import, JOB_HEADER};
use crate::clock::EventId;
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::http::App;
use crate::interaction::bundle::MAX_ENTRIES;
use crate::sim::bulk::{Job, Phase, Work};
use crate::sim::{Sim, Snapshot, Versioning, storage_failure};
use crate::simdb::event_index::Filter;
use crate::simdb::scan;
use crate::version::{Operation, Version};

/// Resources that are taken back at once, in one event.
const BATCH: usize = 200;

/// `Type/id` and what an import has left of it.
type Left = BTreeMap<String, Trace>;

/// What an import has left of a resource.
#[derive(Clone, Copy)]
struct Trace {
    type_name: &'static str,
    /// Its last version, by the import.
    last: Version,
    /// The one before the import, with content.
    before: Option<Version>,
}

/// What takes back what these jobs have done. What cannot be taken back is told by the job's outcomes.
pub fn work(
    jobs: Vec<String>,
    gate: Option<std::sync::mpsc::Receiver<Option<EventId>>>,
    sim: &Arc<Sim>,
    app: &Data<App>,
    runtime: &tokio::runtime::Handle,
) -> Work {
    let (sim, app, runtime) = (sim.clone(), app.clone(), runtime.clone());
    Box::new(move |job| {
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        // It may have been sealed while this waited.
        let now = app.registry.get(sim.id()).ok().filter(|now| now.profile().created == sim.profile().created);
        let sim = now.unwrap_or(sim);
        let mut left = stored(&jobs, &sim, &app)?;
        let mut import = Import::of(job, sim, &app, runtime, super::fetch::Fetch::default());
        job.expect(left.len());
        let mut why = String::new();
        let mut round = 0;
        loop {
            let before = left.len();
            // What refers to one another goes together, or what refers to what is to go goes first, and that in the next round.
            let (kind, size) = if round == 1 && before <= MAX_ENTRIES { ("transaction", before.max(1)) } else { ("batch", BATCH) };
            for piece in left.clone().into_iter().collect::<Vec<_>>().chunks(size) {
                why = taken_back(&mut import, piece, kind, &mut left).unwrap_or(why);
            }
            job.did(before - left.len());
            round += 1;
            if left.is_empty() || left.len() == before && round > 2 {
                break;
            }
        }
        import.tell(left.keys().map(|uid| format!("{uid} was changed and cannot be taken back: {why}")))
    })
}

/// Whose versions are looked through when it is asked what was there before.
struct Authors {
    /// The imports that are taken back now.
    theirs: BTreeSet<String>,
    /// Those that were taken back before, and what took them back.
    passed_over: BTreeSet<String>,
    /// When the first of them began, in milliseconds since 1970.
    began_ms: i64,
}

impl Authors {
    fn of(jobs: &[String], sim: &Arc<Sim>, app: &App) -> Self {
        let all = app.jobs.of(&app.registry, sim);
        let theirs: BTreeSet<String> = jobs.iter().cloned().collect();
        let mut passed_over = BTreeSet::new();
        for job in &all {
            let state = job.state();
            if !state.withdraws.is_empty() {
                passed_over.insert(job.id.clone());
            }
            let withdrawn = state.submission.iter().flat_map(|s| &s.manifests).filter(|m| m.withdrawn).map(|m| m.job.clone());
            passed_over.extend(withdrawn.chain(state.withdraws).filter(|job| !theirs.contains(job)));
        }
        let known = |id: &String| theirs.contains(id) || passed_over.contains(id);
        let began_ms = all.iter().filter(|job| known(&job.id)).map(|job| job.state().began_ms).min().unwrap_or(i64::MAX);
        Self { theirs, passed_over, began_ms }
    }
}

/// What imports have left that nobody has changed since.
fn stored(jobs: &[String], sim: &Arc<Sim>, app: &App) -> Result<Left> {
    let authors = Authors::of(jobs, sim, app);
    if authors.began_ms == i64::MAX {
        return Ok(Left::new());
    }
    let snapshot = sim.snapshot();
    let filter = Filter { operations: vec![Operation::Batch, Operation::Transaction], ..Filter::default() };
    let failed = |e: std::io::Error| storage_failure("the events of an import cannot be read", &e);
    let events = sim.find_events(&filter, (EventId::first_of(authors.began_ms), snapshot.last_event()), false, usize::MAX).map_err(failed)?;
    let mut theirs: BTreeMap<String, BTreeSet<VersionId>> = BTreeMap::new();
    let mut passed_over: BTreeMap<String, BTreeSet<VersionId>> = BTreeMap::new();
    for (event, operation) in events {
        let record = scan::record(sim.dir_of(event), operation, event).map_err(|e| Failure::new(Kind::Damaged, e.reason))?;
        let Some(job) = record.request.headers.get(JOB_HEADER).and_then(Value::as_str).filter(|_| record.client.is_empty()) else { continue };
        let of = match (authors.theirs.contains(job), authors.passed_over.contains(job)) {
            (true, _) => &mut theirs,
            (false, true) => &mut passed_over,
            (false, false) => continue,
        };
        for resource in &record.resources {
            of.entry(format!("{}/{}", resource.type_name, resource.id)).or_default().insert(VersionId(resource.version_id));
        }
    }
    let traced = theirs.into_iter().filter_map(|(uid, theirs)| {
        let (type_name, id) = uid.split_once('/')?;
        let type_name = snapshot.definitions().find_resource_type(type_name)?;
        let versions = snapshot.versions(type_name, &id.parse::<ResourceId>().ok()?);
        let is_passed_over = |version: &Version| passed_over.get(&uid).is_some_and(|those| those.contains(&version.id));
        // What counts must be theirs: else somebody has changed it since.
        versions.iter().find(|version| !is_passed_over(version)).filter(|version| theirs.contains(&version.id))?;
        let last = *versions.first()?;
        let before = versions.iter().find(|version| !theirs.contains(&version.id) && !is_passed_over(version)).copied().filter(|before| !before.is_deletion());
        let trace = Trace { type_name, last, before };
        (!trace.is_back(&snapshot)).then_some((uid, trace))
    });
    Ok(traced.collect())
}

impl Trace {
    /// Whether it is as it was before already.
    fn is_back(&self, snapshot: &Snapshot) -> bool {
        let content = |version: &Version| {
            let mut value: Value = serde_json::from_slice(&snapshot.body(self.type_name, version).ok()?).ok()?;
            for own in ["versionId", "lastUpdated"] {
                value.get_mut("meta").and_then(Value::as_object_mut).map(|meta| meta.remove(own));
            }
            Some(value)
        };
        match &self.before {
            None => self.last.is_deletion(),
            Some(before) => !self.last.is_deletion() && content(&self.last).is_some_and(|last| Some(last) == content(before)),
        }
    }
}

/// Takes resources back together; what was changed meanwhile is no longer left. Returns why one was not taken back.
fn taken_back(import: &mut Import<'_>, these: &[(String, Trace)], kind: &str, left: &mut Left) -> Option<String> {
    let has_versions = import.sim().profile().settings.versioning != Versioning::NoVersion;
    let snapshot = import.sim().snapshot();
    let mut why = None;
    let (mut uids, mut entries) = (Vec::with_capacity(these.len()), Vec::with_capacity(these.len()));
    for (uid, trace) in these {
        let mut entry = json!({"request": {"method": "DELETE", "url": uid}});
        if let Some(before) = trace.before {
            let body = match snapshot.body(trace.type_name, &before) {
                Ok(body) => body,
                Err(failure) => {
                    why = Some(failure.diagnostics);
                    continue;
                }
            };
            entry["request"]["method"] = "PUT".into();
            entry["resource"] = serde_json::from_slice(&body).unwrap_or_default();
        }
        if trace.last.is_deletion() {
            // Unless somebody has made it again.
            entry["request"]["ifNoneMatch"] = "*".into();
        } else if has_versions {
            entry["request"]["ifMatch"] = format!("W/\"{}\"", trace.last.id).into();
        }
        entries.push(entry);
        uids.push(uid);
    }
    let bundle = json!({"resourceType": "Bundle", "type": kind, "entry": entries});
    let answer = import.exchanged(&bundle.to_string());
    let body: Value = answer.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    let said = |outcome: &Value| outcome["issue"][0]["diagnostics"].as_str().unwrap_or("it was refused").to_owned();
    let Some(entries) = body["entry"].as_array() else { return Some(said(&body)) };
    for (uid, entry) in uids.into_iter().zip(entries) {
        let status = entry["response"]["status"].as_str().unwrap_or_default();
        if status.starts_with('2') || status.starts_with("412") || status.starts_with("404") || status.starts_with("410") {
            left.remove(uid);
        } else {
            why = Some(said(&entry["response"]["outcome"]));
        }
    }
    why
}

/// Goes on with what a stop of the server has cut off.
pub fn go_on(app: &Data<App>, runtime: &tokio::runtime::Handle) {
    app.jobs.go_on(&app.registry, |sim, job: &Arc<Job>| {
        let state = job.state();
        let is_cut_off = state.phase == Phase::Running && !state.withdraws.is_empty();
        is_cut_off.then(|| work(state.withdraws, None, sim, app, runtime))
    });
}

/// What is to be begun, and what keeps it from beginning.
pub fn gated(jobs: Vec<String>, sim: &Arc<Sim>, app: &Data<App>) -> (Work, Gate) {
    let (gate, recorded) = std::sync::mpsc::channel();
    (work(jobs, Some(recorded), sim, app, &tokio::runtime::Handle::current()), gate)
}
