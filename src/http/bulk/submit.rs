//! `$bulk-submit` and `$bulk-submit-status`, <https://hl7.org/fhir/uv/bulkdata/> from version 4 on: manifests are announced one after another,
//! and each is an import of its own.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use actix_web::web::Data;
use serde_json::{Value, json};

use super::ask::{Asked, posted, value_of};
use super::fetch::{self, Fetch};
use super::import::{Gate, Import, outcomes, proven};
use super::{Result, bad, state, status, withdraw};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, outcome};
use crate::http::policy::{Bearer, Need};
use crate::http::respond::{Answer, http_date};
use crate::http::{App, outbound};
use crate::sim::bulk::{Job, MAX_PARTS, Manifest, Output, Phase, State, Submission, Submitted, Task, Work};
use crate::sim::profile::Ig;
use crate::sim::{Sim, storage_failure};
use crate::smart::SUBMITS;

/// How long a submission that is not complete is kept when nothing is heard of it: a week.
const SILENCE_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// Held while a submission is looked up and changed.
static ALONE: Mutex<()> = Mutex::new(());

/// What a request says.
struct Said {
    submitter: String,
    id: String,
    status: Option<Submitted>,
    manifest: Option<String>,
    replaces: Option<String>,
    fetch: Fetch,
}

impl Said {
    fn of(asked: &Asked, operation: &str) -> Result<Self> {
        let parameters = posted(&asked.body, operation)?;
        let all: Vec<&Value> = parameters["parameter"].as_array().into_iter().flatten().collect();
        let one = |name: &str| all.iter().find(|p| p["name"] == name).and_then(|p| value_of(p));
        let text = |name: &str| one(name).and_then(Value::as_str).map(str::to_owned).filter(|text| !text.is_empty());
        let at = |name: &str| format!("Parameters.parameter.where(name = '{name}')");
        let missing = |name: &str, what: &str| bad(format!("the parameter '{name}' is missing: {what}")).at(at(name));
        let submitter = one("submitter").filter(|s| s["value"].is_string()).ok_or_else(|| missing("submitter", "an Identifier with system and value"))?;
        let submitter = format!("{}|{}", submitter["system"].as_str().unwrap_or_default(), submitter["value"].as_str().unwrap_or_default());
        let status = match one("submissionStatus").map(|s| s["code"].as_str().or(s.as_str()).unwrap_or_default()) {
            None => None,
            Some("in-progress") => Some(Submitted::InProgress),
            // The words of earlier drafts, too.
            Some("completed" | "complete") => Some(Submitted::Completed),
            Some("stopped" | "aborted") => Some(Submitted::Stopped),
            Some(other) => {
                let message = format!("submissionStatus '{}' is none of in-progress, completed and stopped, as a Coding", clip(other));
                return Err(bad(message).at(at("submissionStatus")));
            }
        };
        for name in ["oauthMetadataUrl", "fileEncryptionKey"] {
            if all.iter().any(|p| p["name"] == name) {
                let message = format!("{name} is not supported: files are fetched as they are, with the headers of fileRequestHeader");
                return Err(Failure::new(Kind::NotSupported, message).at(at(name)));
            }
        }
        if let Some(format) = text("outputFormat").filter(|f| !f.split(';').next().unwrap_or_default().trim().ends_with("ndjson")) {
            return Err(bad(format!("outputFormat '{}' is not application/fhir+ndjson", clip(&format))).at(at("outputFormat")));
        }
        let part = |of: &Value, name: &str| {
            let found = of["part"].as_array().into_iter().flatten().find(|p| p["name"] == name);
            found.and_then(value_of).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let headers: Vec<(String, String)> =
            all.iter().filter(|p| p["name"] == "fileRequestHeader").map(|p| (part(p, "headerName"), part(p, "headerValue"))).collect();
        let fetch = Fetch::with(headers).map_err(|f| f.at(at("fileRequestHeader")))?;
        let manifest = text("manifestUrl");
        if manifest.is_some() && text("fhirBaseUrl").is_none() {
            return Err(missing("fhirBaseUrl", "where there is a manifestUrl, it says what relative references are relative to"));
        }
        Ok(Self {
            submitter,
            id: text("submissionId").ok_or_else(|| missing("submissionId", "what the submitter calls it"))?,
            status,
            manifest,
            replaces: text("replacesManifestUrl"),
            fetch,
        })
    }
}

/// Proves that the token is one of a client that submits, or may write everything: what is stopped is deleted.
fn may_submit(bearer: Option<&Bearer>) -> Result<()> {
    match bearer {
        Some(bearer) if !bearer.access.scope.split_ascii_whitespace().any(|scope| scope == SUBMITS) => bearer
            .may(&[Need(None, 'c'), Need(None, 'u'), Need(None, 'd')])
            .map_err(|f| Failure { diagnostics: format!("{}, or {SUBMITS}", f.diagnostics), ..f }),
        Some(_) | None => Ok(()),
    }
}

/// The submission of that name, if there is one.
fn known(said: &Said, bearer: Option<&Bearer>, sim: &Arc<Sim>, app: &App) -> Option<Arc<Job>> {
    let client = bearer.map(|bearer| bearer.access.client.clone());
    let is_it = |job: &Arc<Job>| {
        let state = job.state();
        state.client == client && state.submission.is_some_and(|s| s.submitter == said.submitter && s.id == said.id)
    };
    app.jobs.of(&app.registry, sim).into_iter().find(is_it)
}

/// `$bulk-submit`: takes note of what is announced.
///
/// # Errors
/// It contradicts what was announced before; it cannot be understood.
pub fn begin(asked: &Asked, bearer: Option<&Bearer>, sim: &Arc<Sim>, app: &Data<App>) -> Result<(String, Vec<Gate>)> {
    proven(asked, sim)?;
    may_submit(bearer)?;
    let said = Said::of(asked, "$bulk-submit")?;
    if said.status.is_none() && said.manifest.is_none() && said.replaces.is_none() {
        return Err(bad("neither submissionStatus nor manifestUrl is given; one of them must be".to_owned()).at("Parameters.parameter"));
    }
    if let Some(url) = &said.manifest {
        outbound::fetchable(url, app).map_err(|f| f.at("Parameters.parameter.where(name = 'manifestUrl')"))?;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let known = known(&said, bearer, sim, app);
    let new = || Submission { submitter: said.submitter.clone(), id: said.id.clone(), status: Submitted::InProgress, manifests: Vec::new() };
    let mut submission = known.as_ref().and_then(|job| job.state().submission).unwrap_or_else(new);
    if known.is_none() && said.status == Some(Submitted::Stopped) {
        let message = format!("'{}' has submitted nothing as '{}', or that has expired; there is nothing to stop", clip(&said.submitter), clip(&said.id));
        return Err(Failure::new(Kind::NotFound, message).at("Parameters.parameter.where(name = 'submissionId')"));
    }
    let withdrawn = said.withdrawn(&mut submission)?;
    // All is in order: from here on something is done.
    let whole = State { submission: Some(submission.clone()), ..state(sim, Task::Submission, asked.url.clone(), bearer) };
    let job = known.map_or_else(|| app.jobs.begin(&app.registry, sim, whole, None, None), Ok)?;
    // One that goes on is kept as long as something is heard of it.
    let keep = i64::from(sim.profile().settings.bulk.keep_minutes) * 60_000;
    let is_going_on = said.status.is_none_or(|status| status == Submitted::InProgress);
    let expires_ms = sim.now_ms() + if is_going_on { keep.max(SILENCE_MS) } else { keep };
    for manifest in &submission.manifests {
        if let Some(part) = app.jobs.find(&app.registry, sim, &manifest.job) {
            part.save(|state| state.expires_ms = expires_ms).map_err(|e| storage_failure("the submission cannot be taken note of", &e))?;
        }
    }
    let part = |state: State| State { is_part: true, expires_ms, ..state };
    let mut gates = Vec::new();
    if let Some((url, _)) = withdrawn.first() {
        // Nobody stops this one.
        let jobs: Vec<String> = withdrawn.iter().map(|(_, job)| job.clone()).collect();
        let (work, gate) = withdraw::gated(jobs.clone(), sim, app);
        let state = part(State { withdraws: jobs.clone(), ..state(sim, Task::Import, url.clone(), bearer) });
        let child = app.jobs.begin(&app.registry, sim, state, None, Some(work))?;
        submission.manifests.push(Manifest { url: url.clone(), job: child.id.clone(), withdrawn: true, takes_back: true });
        gates.push(gate);
        // It waits for those, and they shall do no more.
        jobs.iter().filter_map(|id| app.jobs.find(&app.registry, sim, id)).for_each(|job| job.stop());
    }
    if let Some(url) = said.manifest.as_ref().filter(|_| said.status != Some(Submitted::Stopped)) {
        let (gate, recorded) = std::sync::mpsc::channel();
        let work = of_manifest(url.clone(), said.fetch, recorded, sim, app);
        let child = app.jobs.begin(&app.registry, sim, part(state(sim, Task::Import, url.clone(), bearer)), None, Some(work))?;
        submission.manifests.push(Manifest { url: url.clone(), job: child.id.clone(), withdrawn: false, takes_back: false });
        gates.push(gate);
    }
    submission.status = said.status.unwrap_or(Submitted::InProgress);
    let text = match submission.status {
        Submitted::InProgress => "the submission goes on; submissionStatus completed ends it, and $bulk-submit-status tells what became of it",
        Submitted::Completed => "the submission is complete; $bulk-submit-status tells what became of it",
        Submitted::Stopped => "the submission is stopped, and what it has stored is being deleted; $bulk-submit-status tells what became of it",
    };
    let noted = job.save(|state| (state.submission, state.expires_ms) = (Some(submission), expires_ms));
    noted.map_err(|e| storage_failure("the submission cannot be taken note of", &e))?;
    Ok((text.to_owned(), gates))
}

impl Said {
    /// Marks the manifests that are taken back by this request; returns their URLs and jobs.
    fn withdrawn(&self, submission: &mut Submission) -> Result<Vec<(String, String)>> {
        let at = |name: &str| format!("Parameters.parameter.where(name = '{name}')");
        let is_stopped_again = submission.status == Submitted::Stopped && self.status == Some(Submitted::Stopped);
        if submission.status != Submitted::InProgress && !is_stopped_again {
            let message = format!("the submission '{}' was ended before; what is submitted now needs an id of its own", clip(&self.id));
            return Err(Failure::new(Kind::Conflict, message).at(at("submissionId")));
        }
        if submission.manifests.len() >= MAX_PARTS && self.status != Some(Submitted::Stopped) {
            let message = format!("the submission has {MAX_PARTS} manifests, which is the most; end it, and begin another");
            return Err(Failure::new(Kind::TooMany, message));
        }
        let mut withdrawn = Vec::new();
        if let Some(url) = &self.replaces {
            let message = format!("the manifest '{}' was not submitted before, or was replaced", clip(url));
            let found = submission.manifests.iter_mut().find(|m| m.url == *url && !m.withdrawn);
            let found = found.ok_or_else(|| Failure::new(Kind::Unprocessable, message).at(at("replacesManifestUrl")))?;
            found.withdrawn = true;
            withdrawn.push((found.url.clone(), found.job.clone()));
        }
        if let Some(url) = self.manifest.as_ref().filter(|url| submission.manifests.iter().any(|m| m.url == **url && !m.withdrawn)) {
            let message = format!("the manifest '{}' was submitted before; to send it again, say that it replaces itself by replacesManifestUrl", clip(url));
            return Err(Failure::new(Kind::Conflict, message).at(at("manifestUrl")));
        }
        if self.status == Some(Submitted::Stopped) {
            // All of them: what was to be taken back before may have been cut off.
            for manifest in submission.manifests.iter_mut().filter(|m| !m.takes_back) {
                manifest.withdrawn = true;
                withdrawn.push((manifest.url.clone(), manifest.job.clone()));
            }
        }
        Ok(withdrawn)
    }
}

/// What brings what a manifest lists, and says so.
fn of_manifest(url: String, fetch: Fetch, recorded: Receiver<Option<EventId>>, sim: &Arc<Sim>, app: &Data<App>) -> Work {
    let (sim, app, runtime) = (sim.clone(), app.clone(), tokio::runtime::Handle::current());
    Box::new(move |job| {
        let began = recorded.recv().ok().flatten();
        let (severity, code, text) = match fetch::manifest(&url, &fetch, job, &sim, &app) {
            Ok(inputs) => {
                Import::of(job, sim, &app, runtime, fetch).after(began).all(&inputs)?;
                let state = job.state();
                let count = |all: &[Output]| all.iter().map(|o| o.count).sum::<usize>();
                let (stored, refused) = (count(&state.output), count(&state.error));
                ("information", "informational", format!("{stored} resources of {} files were stored, {refused} lines were not", inputs.len()))
            }
            Err(failure) => ("error", failure.kind.issue_code(), failure.diagnostics),
        };
        let outcome = outcome::informational(severity, code, &[text]);
        let file = "summary.OperationOutcome.ndjson";
        std::fs::write(job.place(file), format!("{outcome}\n")).map_err(|e| storage_failure("what became of the submission cannot be written", &e))?;
        job.found(|state| state.error.insert(0, outcomes(file.to_owned(), severity, 1)));
        Ok(())
    })
}

/// `$bulk-submit-status`: the submission whose status tells what became of it.
///
/// # Errors
/// There is none of that name.
pub fn of_status(asked: &Asked, bearer: Option<&Bearer>, sim: &Arc<Sim>, app: &App) -> Result<Arc<Job>> {
    if asked.method != actix_web::http::Method::POST {
        return Err(Failure { allow: Some("POST"), ..Failure::new(Kind::MethodNotAllowed, format!("{} is not allowed here; POST is", asked.method)) });
    }
    may_submit(bearer)?;
    let said = Said::of(asked, "$bulk-submit-status")?;
    let missing = || Failure::new(Kind::NotFound, format!("'{}' has submitted nothing as '{}'", clip(&said.submitter), clip(&said.id)));
    known(&said, bearer, sim, app).ok_or_else(missing)
}

/// What its ballot calls the manifest, <https://hl7.org/fhir/uv/bulkdata/4.0.0-202609-ballot/en/StructureDefinition-BulkSubmitStatusManifest.html>.
const MANIFEST_TYPE: &str = "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/BulkSubmitStatusManifest";

/// How far a submission is.
pub fn status(job: &Job, state: &State, asked: &status::Asked<'_>, sim: &Sim, app: &App) -> Answer {
    let Some(submission) = &state.submission else { return Answer::default() };
    let Ok(sim) = app.registry.get(sim.id()) else { return Answer::default() };
    let parts: Vec<(&Manifest, Option<Arc<Job>>)> = submission.manifests.iter().map(|m| (m, app.jobs.find(&app.registry, &sim, &m.job))).collect();
    let goes_on = |job: &Option<Arc<Job>>| job.as_ref().is_some_and(|job| job.state().phase == Phase::Running);
    if submission.status == Submitted::InProgress || parts.iter().any(|(_, job)| goes_on(job)) {
        let done = parts.iter().filter(|(_, job)| !goes_on(job)).count();
        let progress = format!("{done} of {} manifests", parts.len());
        return Answer { status: 202, ..Answer::default() }.with("x-progress", progress).with("retry-after", "1".to_owned());
    }
    let mut error = Vec::new();
    for (manifest, part) in parts.iter().filter(|(m, _)| m.takes_back || !m.withdrawn) {
        let Some(part) = part else { continue };
        let there = part.state();
        let url = |file: &str| format!("{}/bulk/{}/{file}", asked.root, part.id);
        for output in &there.error {
            let mut item = status::item(output, &url);
            item["manifestUrl"] = manifest.url.as_str().into();
            error.push(item);
        }
        if let Phase::Failed(why) = &there.phase {
            error.push(failure(job, part, &manifest.url, why, asked.root));
        }
    }
    let mut manifest = json!({"submissionId": submission.id, "transactionTime": crate::clock::instant(sim.now_ms()), "requiresAccessToken": state.requires_token,
        "output": []});
    if sim.profile().settings.bulk.ig == Ig::V4 {
        manifest["manifestType"] = MANIFEST_TYPE.into();
        manifest["outcome"] = error.into();
    } else {
        manifest["error"] = error.into();
    }
    Answer::json(200, &manifest).with("expires", http_date(state.expires_ms))
}

/// What tells that a part has failed, as a file of the submission.
fn failure(job: &Job, part: &Job, manifest: &str, why: &str, root: &str) -> Value {
    let file = format!("{}.OperationOutcome.ndjson", part.id);
    let output = outcomes(file.clone(), "error", 1);
    if job.file(&file).is_none() {
        let outcome = outcome::informational("error", "exception", &[why.to_owned()]);
        let _ = std::fs::write(job.place(&file), format!("{outcome}\n"));
        job.found(|state| state.error.push(output.clone()));
    }
    let mut item = status::item(&output, &|file| format!("{root}/bulk/{}/{file}", job.id));
    item["manifestUrl"] = manifest.into();
    item
}

/// Ends a job; of a submission all its parts.
pub fn end(job: &Job, sim: &Arc<Sim>, app: &App) {
    for manifest in job.state().submission.iter().flat_map(|s| &s.manifests) {
        if let Some(part) = app.jobs.find(&app.registry, sim, &manifest.job) {
            app.jobs.cancel(&app.registry, sim, &part);
        }
    }
    app.jobs.cancel(&app.registry, sim, job);
}
