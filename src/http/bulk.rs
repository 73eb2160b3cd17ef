//! Bulk data, <https://hl7.org/fhir/uv/bulkdata/>: exports, imports and submissions are begun, asked after, fetched, ended.

mod ask;
mod fetch;
mod file;
mod group;
mod import;
mod record;
mod status;
mod submit;
mod withdraw;

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::{Method, header};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use self::ask::{Asked, Wanted};
use self::import::Gate;
pub(super) use self::record::kept;
pub(super) use self::withdraw::go_on;
use super::context::SimContext;
use super::negotiate::Format;
use super::policy::{self, Bearer, Need};
use super::respond::Answer;
use super::smart::note;
use super::{App, routes};
use crate::fhir::{Failure, Kind, ResourceId, outcome};
use crate::sim::bulk::{Job, Phase, State, Task, export};
use crate::sim::profile::{BULK_TYPE, Ig};
use crate::sim::{Auth, Sim};
use crate::simdb::SimId;

type Result<T> = std::result::Result<T, Failure>;

/// What a segment of the URL tells an export to be like: base64url of JSON, as the reference server for bulk data has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Knobs {
    /// What shall go wrong.
    pub err: String,
    /// Most lines of a file.
    pub page: Option<usize>,
    /// Seconds until an export is complete.
    pub dur: Option<u32>,
    /// Minutes that a token is good for.
    pub tlt: Option<u32>,
    /// How often each resource is exported.
    pub m: Option<u32>,
    /// How many in a hundred are told to be deleted.
    pub del: Option<u32>,
    /// Most files that one manifest lists.
    pub opp: Option<usize>,
}

impl Knobs {
    /// Those of a segment, if it is one.
    #[must_use]
    pub fn of(segment: &str) -> Option<Self> {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(segment.trim_end_matches('=')).ok()?;
        let value: Value = serde_json::from_slice(&bytes).ok().filter(Value::is_object)?;
        // Numbers come as text, too.
        let number = |name: &str| value.get(name).and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()));
        let small = |name: &str| number(name).and_then(|n| u32::try_from(n).ok());
        let some = |name: &str| number(name).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let err = value.get("err").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { err, page: some("page"), dur: small("dur"), tlt: small("tlt"), m: small("m"), del: small("del"), opp: some("opp") })
    }
}

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    System,
    Patient,
    Group(ResourceId),
}

/// What a path below the endpoint begins or asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Export(Level),
    Import,
    Submit,
    SubmitStatus,
}

impl Operation {
    /// That of a path, if it has one.
    #[must_use]
    pub fn of(tail: &str) -> Option<Self> {
        let tail = percent_encoding::percent_decode_str(tail.trim_end_matches('/')).decode_utf8().ok()?;
        match &*tail {
            "$export" => return Some(Self::Export(Level::System)),
            "$import" => return Some(Self::Import),
            "$bulk-submit" => return Some(Self::Submit),
            "$bulk-submit-status" => return Some(Self::SubmitStatus),
            _ => {}
        }
        match tail.strip_suffix("/$export")? {
            "Patient" => Some(Self::Export(Level::Patient)),
            group => Some(Self::Export(Level::Group(group.strip_prefix("Group/")?.parse().ok()?))),
        }
    }

    /// The type that its URL names.
    #[must_use]
    pub fn type_name(&self) -> Option<&'static str> {
        match self {
            Self::Export(Level::Patient) => Some("Patient"),
            Self::Export(Level::Group(_)) => Some("Group"),
            Self::Export(Level::System) | Self::Import | Self::Submit | Self::SubmitStatus => None,
        }
    }

    /// As events call it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Export(_) => "$export",
            Self::Import => "$import",
            Self::Submit => "$bulk-submit",
            Self::SubmitStatus => "$bulk-submit-status",
        }
    }

    /// Whether it changes what there is, or is to: then it is kept as an event.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self, Self::Import | Self::Submit)
    }
}

/// What came of a request that begins something.
enum Begun {
    /// A job, whose status tells how far it is.
    Job(Arc<Job>, &'static str, Vec<Gate>),
    /// Something was taken note of.
    Noted(String, Vec<Gate>),
}

/// Answers a request that begins an export, an import or a submission.
pub async fn kick_off(
    request: &HttpRequest,
    body: Bytes,
    operation: Operation,
    broken: Option<Failure>,
    context: &SimContext,
    app: Data<App>,
    started: Instant,
) -> HttpResponse {
    let version = context.snapshot().version();
    let asked = Asked {
        method: request.method().clone(),
        accept: routes::text(request, header::ACCEPT).unwrap_or_default().to_owned(),
        content_type: routes::text(request, header::CONTENT_TYPE).unwrap_or_default().to_owned(),
        // Several lines are one list, RFC 9110, 5.3.
        prefer: request.headers().get_all("prefer").filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(", ").to_ascii_lowercase(),
        query: request.query_string().to_owned(),
        url: format!("{}{}", context.base, request.uri().path_and_query().map_or("", |p| p.as_str()).split_once("/fhir").map_or("", |(_, rest)| rest)),
        body: body.clone(),
    };
    let bearer = policy::bearer(request, &context.sim, &app);
    let recorded = policy::recorded(&bearer);
    let (sim, knobs, root, there) = (context.sim.clone(), context.knobs.clone().unwrap_or_default(), context.root.clone(), operation.clone());
    let apart = matches!(operation, Operation::Export(_)) && asked.prefers("separate-export-status") && context.sim.profile().settings.bulk.ig == Ig::V4;
    let apps = app.clone();
    let work = move || -> Result<Begun> {
        let bearer = bearer?;
        if let Some(failure) = broken {
            return Err(failure);
        }
        match &there {
            Operation::Export(level) => begin(&asked, level, bearer.as_ref(), &sim, &knobs, &apps).map(|job| Begun::Job(job, "export", Vec::new())),
            Operation::Import => import::begin(&asked, bearer.as_ref(), &sim, &apps).map(|(job, gate)| Begun::Job(job, "import", vec![gate])),
            Operation::Submit => submit::begin(&asked, bearer.as_ref(), &sim, &apps).map(|(text, gates)| Begun::Noted(text, gates)),
            Operation::SubmitStatus => submit::of_status(&asked, bearer.as_ref(), &sim, &apps).map(|job| Begun::Job(job, "submission", Vec::new())),
        }
    };
    let begun = web::block(work).await.unwrap_or_else(|e| Err(Failure::new(Kind::Internal, e.to_string())));
    let said = |status: u16, text: String| {
        let said = outcome::informational("information", "informational", &[text]);
        Answer::of(status, "application/fhir+json; charset=utf-8", said.to_string().into_bytes())
    };
    let mut gates = Vec::new();
    let answer = match begun {
        Ok(Begun::Job(job, what, waits)) => {
            gates = waits;
            let place = format!("{root}/bulk/{}", job.id);
            let answer = said(202, format!("the {what} goes on; GET {place} tells how far it is")).with("content-location", place);
            if apart { answer.with("preference-applied", "respond-async, separate-export-status".to_owned()) } else { answer }
        }
        Ok(Begun::Noted(text, waits)) => {
            gates = waits;
            said(200, text)
        }
        Err(failure) => Answer::refusal(&failure, version, &Format::default()),
    };
    let event = if operation.writes() {
        record::kept(&context.sim, request, operation.name(), body, &answer, recorded, started).await
    } else {
        note(&context.sim, request, operation.name(), &answer, recorded, started)
    };
    for gate in gates {
        // One that was stopped does not wait any more.
        let _ = gate.send(event.parse().ok());
    }
    answer.into_response(Some(&event), None, false)
}

fn bad(message: String) -> Failure {
    Failure::new(Kind::BadValue, message)
}

/// What is known of a job of a simulator that begins now.
fn state(sim: &Sim, task: Task, request: String, bearer: Option<&Bearer>) -> State {
    let profile = sim.profile();
    let now = sim.now_ms();
    State {
        task,
        phase: Phase::Running,
        request,
        transaction_time: crate::clock::instant(now),
        requires_token: profile.settings.auth == Auth::SmartBackend,
        made: profile.created.clone(),
        boot: String::new(),
        client: bearer.map(|bearer| bearer.access.client.clone()),
        restrictions: std::collections::BTreeMap::new(),
        ig: profile.settings.bulk.ig,
        types: Vec::new(),
        organized_by: None,
        partial: None,
        separate: false,
        cancelled: false,
        began_ms: now,
        ready_ms: now,
        expires_ms: now + i64::from(profile.settings.bulk.keep_minutes) * 60_000,
        err: None,
        output: Vec::new(),
        deleted: Vec::new(),
        error: Vec::new(),
        submission: None,
        is_part: false,
        withdraws: Vec::new(),
    }
}

fn begin(asked: &Asked, level: &Level, bearer: Option<&Bearer>, sim: &Arc<Sim>, knobs: &Knobs, app: &Data<App>) -> Result<Arc<Job>> {
    let (profile, snapshot) = (sim.profile(), sim.snapshot());
    let bulk = &profile.settings.bulk;
    asked.headers(profile.sim_type == BULK_TYPE)?;
    if knobs.err == "file_generation_failed" {
        return Err(Failure::new(Kind::Internal, "no file could be made: a fault that this export was told to have"));
    }
    if let Some(bearer) = bearer {
        if let Level::Group(id) = level {
            bearer.may_choose("Group", id, sim)?;
        }
        // Whether there is a patient of that name is not told to everybody.
        if asked.chooses_patients()? {
            bearer.may(&[Need(Some("Patient"), 'r')])?;
        }
    }
    let may_lead = bearer.is_none_or(|bearer| bearer.may(&[Need(None, 's')]).is_ok());
    let Wanted { mut order, partial, searched } = ask::order(asked, level, &snapshot, sim.now_ms(), bulk.ig, may_lead)?;
    if let Some(bearer) = bearer {
        // A group that a search makes tells what the search finds.
        bearer.may(&searched.into_iter().map(|type_name| Need(Some(type_name), 's')).collect::<Vec<_>>())?;
        ask::permitted(bearer, &mut order, asked, snapshot.definitions())?;
    }
    ask::furnish(&mut order, knobs, bulk, &snapshot)?;
    let state = state(sim, Task::Export, asked.url.clone(), bearer);
    let state = State {
        restrictions: order.restrictions.iter().map(|(type_name, pairs)| (type_name.clone(), ask::shown(pairs))).collect(),
        partial: partial.then(|| knobs.opp.unwrap_or(bulk.manifest_files).clamp(1, export::MAX_FILES)),
        separate: asked.prefers("separate-export-status") && bulk.ig == Ig::V4,
        ready_ms: state.began_ms + i64::from(knobs.dur.unwrap_or(bulk.duration_seconds)) * 1_000,
        err: Some(knobs.err.clone()).filter(|err| !err.is_empty()),
        ..state
    };
    export::begin(&app.jobs, &app.registry, sim, order, state)
}

/// As events call what is asked for at a path below `/bulk`.
#[must_use]
pub fn name_of(method: &Method, tail: &str) -> &'static str {
    match (method.as_str(), tail.trim_end_matches('/').contains('/')) {
        ("DELETE", false) => "export-cancel",
        (_, false) => "export-status",
        (_, true) => "export-file",
    }
}

/// Answers what is below `/bulk`: the status of a job, its files, its end.
pub async fn serve(request: &HttpRequest, context: &SimContext, app: Data<App>, started: Instant) -> HttpResponse {
    let version = context.snapshot().version();
    let (id, name) = context.tail.trim_end_matches('/').split_once('/').map_or((context.tail.trim_end_matches('/'), None), |(id, file)| (id, Some(file)));
    let there = (context.sim.clone(), id.to_owned());
    let jobs = app.clone();
    let job = web::block(move || jobs.jobs.find(&jobs.registry, &there.0, &there.1)).await.ok().flatten();
    // What its manifest says stays so, whatever the setting is by now.
    let bearer = match job.as_ref().map(|job| job.state().requires_token) {
        None => policy::bearer(request, &context.sim, &app),
        Some(true) => policy::proven(request, &context.sim, &app).map(Some),
        Some(false) => Ok(None),
    };
    let missing = || {
        let message =
            format!("simulator {} has no export or import '{}'; it was never begun, was ended or has expired", context.sim.id(), crate::fhir::id::clip(id));
        Failure::new(Kind::NotFound, message)
    };
    let who = policy::recorded(&bearer);
    // Another's is none.
    let theirs = |job: &Arc<Job>, bearer: &Option<Bearer>| bearer.as_ref().is_none_or(|bearer| job.state().client.as_ref() == Some(&bearer.access.client));
    let found = bearer.and_then(|bearer| job.filter(|job| theirs(job, &bearer)).ok_or_else(missing).map(|job| (job, bearer)));
    let interaction = name_of(request.method(), &context.tail);
    let answered = match (found, name, request.method().as_str()) {
        (Err(failure), ..) => Err(failure),
        (Ok((job, _)), None, "DELETE") => {
            submit::end(&job, &context.sim, &app);
            Ok(Answer { status: 202, ..Answer::default() })
        }
        (Ok((job, _)), None, "GET" | "HEAD") => {
            let asked = status::Asked { root: &context.root, query: request.query_string(), version };
            Ok(status::of(&job, &asked, &context.sim, &app))
        }
        (Ok((job, bearer)), Some(name), "GET" | "HEAD") => match status::file(&job, name, bearer.as_ref()) {
            Ok((path, output)) => {
                let noted = |status| note(&context.sim, request, interaction, &Answer { status, ..Answer::default() }, who.clone(), started);
                return file::send(request, path, &output, &noted).await;
            }
            Err(failure) => Err(failure),
        },
        (Ok(_), ..) => {
            let message = "an export or import can be asked after, fetched and ended";
            Err(Failure { allow: Some("GET, HEAD, DELETE"), ..Failure::new(Kind::MethodNotAllowed, message) })
        }
    };
    let answer = answered.unwrap_or_else(|failure| Answer::refusal(&failure, version, &Format::default()));
    let event = note(&context.sim, request, interaction, &answer, who, started);
    answer.into_response(Some(&event), None, *request.method() == Method::HEAD)
}

/// `GET /api/sims/{id}/exports`: those that this server knows, newest first; imports and submissions, too.
pub async fn list(app: Data<App>, id: web::Path<String>) -> HttpResponse {
    super::api::answer(move || {
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        Ok(Answer::json(200, &json!({"exports": listed(&sim, &app)})))
    })
    .await
}

/// The jobs of a simulator, as lists show them.
pub(super) fn listed(sim: &Arc<Sim>, app: &App) -> Vec<Value> {
    let one = |job: &Arc<Job>| {
        let state = job.state();
        let (phase, why) = match &state.phase {
            Phase::Running => ("running", None),
            Phase::Complete => ("complete", None),
            Phase::Failed(why) => ("failed", Some(why.clone())),
        };
        let lines: usize = state.output.iter().map(|o| o.count).sum();
        json!({"id": job.id, "task": state.task, "phase": phase, "why": why, "percent": if state.phase == Phase::Complete { 100 } else { job.percent() },
            "request": state.request, "began": crate::clock::instant(state.began_ms), "expires": crate::clock::instant(state.expires_ms),
            "transactionTime": state.transaction_time, "files": state.output.len(), "resources": lines})
    };
    app.jobs.of(&app.registry, sim).iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_a_segment_of_the_url() {
        use base64::Engine as _;
        let coded = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let knobs = Knobs::of(&coded(r#"{"err":"","page":10000,"dur":10,"tlt":15,"m":1,"stu":4,"del":0}"#));
        assert_eq!(knobs, Some(Knobs { page: Some(10_000), dur: Some(10), tlt: Some(15), m: Some(1), del: Some(0), ..Knobs::default() }));
        assert_eq!(Knobs::of(&coded(r#"{"page":"5"}"#)).and_then(|k| k.page), Some(5));
        for bad in ["fhir", "nothing", "", &coded("[]"), &coded("{"), "***"] {
            assert_eq!(Knobs::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_name_what_is_begun() {
        for (path, expected) in [
            ("$export", Some(Operation::Export(Level::System))),
            ("%24export", Some(Operation::Export(Level::System))),
            ("Patient/$export/", Some(Operation::Export(Level::Patient))),
            ("$import", Some(Operation::Import)),
            ("$bulk-submit-status", Some(Operation::SubmitStatus)),
            ("Observation/$export", None),
            ("Group/$export", None),
            ("Patient/$import", None),
        ] {
            assert_eq!(Operation::of(path), expected, "{path}");
        }
    }
}
