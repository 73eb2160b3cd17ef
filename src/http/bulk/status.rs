//! How far a job is, and what it has made: manifests, <https://hl7.org/fhir/uv/bulkdata/export.html#bulk-data-status-request>.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Result, ask, submit};
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind, outcome};
use crate::http::App;
use crate::http::negotiate::Format;
use crate::http::policy::Bearer;
use crate::http::respond::{Answer, http_date};
use crate::interaction::status;
use crate::interaction::target::pairs;
use crate::sim::Sim;
use crate::sim::bulk::{Job, Output, Phase, State, Task};
use crate::sim::profile::Ig;
use crate::smart::{Verdict, allows};

/// How long a client is told to wait before it asks again, in seconds.
const AGAIN_S: u64 = 1;

/// A request for the status.
pub struct Asked<'a> {
    /// The URL of the simulator.
    pub root: &'a str,
    /// The query.
    pub query: &'a str,
    /// The FHIR version.
    pub version: FhirVersion,
}

/// Answers it.
pub fn of(job: &Job, asked: &Asked<'_>, sim: &Sim, app: &App) -> Answer {
    let state = job.state();
    let most = sim.profile().settings.bulk.polls_per_minute;
    if let Some(left) = job.is_asked_too_often(most, sim.now_ms()) {
        let message = format!("the status was asked for more than {most} times in a minute (setting bulk.pollsPerMinute); Retry-After says when to ask again");
        let mut refusal = Answer::refusal(&Failure::new(Kind::TooMany, message), asked.version, &Format::default());
        refusal.headers.retain(|(name, _)| *name != "retry-after");
        return refusal.with("retry-after", left.max(1).to_string());
    }
    if state.err.as_deref() == Some("transient_error") && !job.once.swap(true, Ordering::AcqRel) {
        let text = "a fault that this export was told to have, once; ask again";
        let outcome = outcome::informational("error", "transient", &[text.to_owned()]);
        return Answer::of(500, "application/fhir+json; charset=utf-8", outcome.to_string().into_bytes()).with("retry-after", AGAIN_S.to_string());
    }
    let answer = if state.task == Task::Submission { submit::status(job, &state, asked, sim, app) } else { of_files(job, &state, asked, sim.now_ms()) };
    // What this request came to is one thing, what the job came to another.
    if state.separate { Answer { status: 200, ..answer.clone() }.with("x-export-status", status::line(answer.status)) } else { answer }
}

fn of_files(job: &Job, state: &State, asked: &Asked<'_>, now_ms: i64) -> Answer {
    let page = match pairs(asked.query).into_iter().find(|(name, _)| name == "page") {
        None => 1,
        Some((_, text)) => text.parse().unwrap_or(0),
    };
    let missing = || {
        let message = format!("the manifests of this export have no page '{}'; follow their links", clip(asked.query));
        Answer::refusal(&Failure::new(Kind::NotFound, message), asked.version, &Format::default())
    };
    match &state.phase {
        Phase::Failed(why) => {
            let what = if state.task == Task::Import { "import" } else { "export" };
            Answer::refusal(&Failure::new(Kind::Internal, format!("the {what} has failed: {why}")), asked.version, &Format::default())
        }
        Phase::Complete if now_ms >= state.ready_ms => {
            let Some(listed) = Listed::of(state, page, true) else { return missing() };
            Answer::json(200, &listed.manifest(job, state, asked.root)).with("expires", http_date(state.expires_ms))
        }
        Phase::Complete | Phase::Running => {
            // What is to fail is not known yet, and would change what was shown.
            let is_early = state.partial.is_some() && state.err.as_deref() != Some("some_file_generation_failed");
            let listed = Some(()).filter(|()| is_early).and_then(|()| Listed::of(state, page, false)).map(|listed| listed.manifest(job, state, asked.root));
            let answer = listed.map_or_else(Answer::default, |manifest| Answer::json(202, &manifest));
            going(Answer { status: 202, ..answer }, job, state, now_ms)
        }
    }
}

/// An answer that it goes on.
pub fn going(answer: Answer, job: &Job, state: &State, now_ms: i64) -> Answer {
    // One that is told to last is as far as its time.
    let (spent, lasts) = (now_ms - state.began_ms, state.ready_ms - state.began_ms);
    let by_time = usize::try_from((spent * 100).checked_div(lasts).unwrap_or(99).clamp(0, 99)).unwrap_or_default();
    let percent = if state.phase == Phase::Complete { by_time } else { job.percent().min(by_time) };
    answer.with("x-progress", format!("{percent}% complete")).with("retry-after", AGAIN_S.to_string())
}

/// What one manifest lists.
struct Listed<'s> {
    output: &'s [Output],
    deleted: &'s [Output],
    /// The number of the next one.
    next: Option<usize>,
}

impl<'s> Listed<'s> {
    /// The manifest of that number, counted from 1. What was listed once stays so: while files are still made, only what is full is shown.
    fn of(state: &'s State, page: usize, whole: bool) -> Option<Self> {
        let all = &state.output[..];
        let Some(most) = state.partial.map(|most| most.max(1)) else {
            return (page == 1).then_some(Self { output: all, deleted: &state.deleted, next: None });
        };
        let (from, to) = (page.checked_sub(1)?.checked_mul(most)?, page.checked_mul(most)?);
        let is_there = if whole { from < all.len() || page == 1 } else { to <= all.len() };
        let is_next = if whole { to < all.len() } else { to.saturating_add(most) <= all.len() };
        let deleted = if whole && !is_next { &state.deleted[..] } else { &[] };
        is_there.then(|| Self { output: &all[from..to.min(all.len())], deleted, next: is_next.then_some(page + 1) })
    }

    fn manifest(&self, job: &Job, state: &State, root: &str) -> Value {
        let url = |file: &str| format!("{root}/bulk/{}/{file}", job.id);
        let shown = |all: &[Output]| -> Value { all.iter().map(|o| item(o, &url)).collect() };
        let mut manifest = json!({
            "transactionTime": state.transaction_time, "request": state.request, "requiresAccessToken": state.requires_token,
            "output": shown(self.output), "deleted": shown(self.deleted), "error": shown(&state.error),
        });
        let Value::Object(members) = &mut manifest else { return manifest };
        if state.task == Task::Import {
            members.remove("deleted");
        }
        if let Some(by) = &state.organized_by {
            members.insert("outputOrganizedBy".to_owned(), by.as_str().into());
        }
        if state.ig == Ig::V4 && state.task == Task::Export {
            members.remove("request");
            members.insert("outputFormat".to_owned(), "application/fhir+ndjson".into());
            let error = members.remove("error").unwrap_or_default();
            members.insert("outcome".to_owned(), error);
        }
        if let Some(next) = self.next {
            members.insert("link".to_owned(), json!([{"relation": "next", "url": format!("{root}/bulk/{}?page={next}", job.id)}]));
        }
        manifest
    }
}

/// A file, or what became of one that was read.
pub fn item(output: &Output, url: &dyn Fn(&str) -> String) -> Value {
    let mut item = json!({});
    let mut put = |name: &str, value: String| item[name] = value.into();
    if !output.type_name.is_empty() {
        put("type", output.type_name.clone());
    }
    if !output.file.is_empty() {
        put("url", url(&output.file));
    }
    if let Some(input) = &output.input {
        put("inputUrl", input.clone());
    }
    item["count"] = output.count.into();
    if !output.severities.is_empty() {
        item["countSeverity"] = output.severities.iter().map(|(code, count)| json!({"code": code, "count": count})).collect();
    }
    item
}

/// A file of a job, if whoever asks may have it.
///
/// # Errors
/// There is none; the token does not allow it.
pub fn file(job: &Job, name: &str, bearer: Option<&Bearer>) -> Result<(PathBuf, Output)> {
    let state = job.state();
    if state.err.as_deref() == Some("file_expired") {
        return Err(Failure::new(Kind::Deleted, "the file has expired: a fault that this export was told to have"));
    }
    let missing = || Failure::new(Kind::NotFound, format!("there is no file '{}'; the status lists them", clip(name)));
    let is_shown = state.phase == Phase::Complete || state.phase == Phase::Running && (state.partial.is_some() || state.task == Task::Submission);
    let (path, output) = job.file(name).filter(|_| is_shown).ok_or_else(missing)?;
    let types = match output.type_name.as_str() {
        // What errors and deletions tell is of no type that a token names.
        _ if !state.output.iter().any(|of| of.file == name) => Vec::new(),
        "" => state.types.clone(),
        one => vec![one.to_owned()],
    };
    let Some(bearer) = bearer else { return Ok((path, output)) };
    let is_allowed = |type_name: &&String| match allows(&bearer.scopes, Some(type_name), 'r') {
        Verdict::Yes => true,
        // The file holds what one search found, and no more.
        Verdict::Matching(search) => state.restrictions.get(*type_name) == Some(&ask::shown(&pairs(&search))),
        Verdict::No => false,
    };
    match types.iter().find(|type_name| !is_allowed(type_name)) {
        None => Ok((path, output)),
        Some(lacking) => Err(Failure::new(Kind::OutOfScope, format!("the token allows '{}', and this needs system/{lacking}.r", bearer.access.scope))),
    }
}
