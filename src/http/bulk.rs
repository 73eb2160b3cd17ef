//! Bulk data, <https://hl7.org/fhir/uv/bulkdata/export.html>: an export is begun, asked after, fetched, ended.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use actix_web::body::SizedStream;
use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::context::SimContext;
use super::negotiate::Format;
use super::policy::{self, Bearer, Need};
use super::respond::{Answer, http_date};
use super::smart::note;
use super::{App, routes};
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind, ResourceId, instant, outcome};
use crate::interaction::target::pairs;
use crate::sim::bulk::{Job, Order, Output, Phase, State, Whose};
use crate::sim::profile::BULK_TYPE;
use crate::sim::{Auth, Sim, Snapshot};
use crate::simdb::SimId;
use crate::smart::{Verdict, allows};

type Result<T> = std::result::Result<T, Failure>;
/// A type, and a search of it.
type OfType = (&'static str, Vec<(String, String)>);

/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;
/// How long a client is told to wait before it asks again, in seconds.
const AGAIN_S: u64 = 1;

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
        let err = value.get("err").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { err, page: number("page").and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0), dur: small("dur"), tlt: small("tlt") })
    }
}

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    System,
    Patient,
    Group(ResourceId),
}

impl Level {
    /// What a path below the endpoint exports, if it does.
    #[must_use]
    pub fn of(tail: &str) -> Option<Self> {
        let tail = percent_encoding::percent_decode_str(tail.trim_end_matches('/')).decode_utf8().ok()?;
        if tail == "$export" {
            return Some(Self::System);
        }
        match tail.strip_suffix("/$export")? {
            "Patient" => Some(Self::Patient),
            group => Some(Self::Group(group.strip_prefix("Group/")?.parse().ok()?)),
        }
    }
}

/// Answers a request that begins an export.
pub async fn kick_off(request: &HttpRequest, body: Bytes, level: Level, context: &SimContext, app: Data<App>, started: Instant) -> HttpResponse {
    let version = context.snapshot().version();
    let asked = Asked {
        method: request.method().clone(),
        accept: routes::text(request, header::ACCEPT).unwrap_or_default().to_owned(),
        prefer: routes::text(request, "prefer").unwrap_or_default().to_ascii_lowercase(),
        query: request.query_string().to_owned(),
        url: format!("{}{}", context.base, request.uri().path_and_query().map_or("", |p| p.as_str()).split_once("/fhir").map_or("", |(_, rest)| rest)),
        body,
    };
    let bearer = policy::bearer(request, &context.sim, &app);
    let (sim, knobs, root) = (context.sim.clone(), context.knobs.clone().unwrap_or_default(), context.root.clone());
    let work = move || begin(&asked, &level, bearer?.as_ref(), &sim, &knobs, &app).map(|job| (job, root));
    let begun = web::block(work).await.unwrap_or_else(|e| Err(Failure::new(Kind::Internal, e.to_string())));
    let answer = match begun {
        Ok((job, root)) => {
            let place = format!("{root}/bulk/{}", job.id);
            let said = outcome::informational("information", "informational", &[format!("the export has begun; GET {place} tells how far it is")]);
            Answer::of(202, "application/fhir+json; charset=utf-8", said.to_string().into_bytes()).with("content-location", place)
        }
        Err(failure) => Answer::refusal(&failure, version, &Format::default()),
    };
    let event = note(&context.sim, request, "$export", "", &answer, started);
    answer.into_response(Some(&event), None, false)
}

/// A request for an export.
struct Asked {
    method: Method,
    accept: String,
    prefer: String,
    query: String,
    url: String,
    body: Bytes,
}

fn bad(message: String) -> Failure {
    Failure::new(Kind::BadValue, message)
}

fn begin(asked: &Asked, level: &Level, bearer: Option<&Bearer>, sim: &Arc<Sim>, knobs: &Knobs, app: &Data<App>) -> Result<Arc<Job>> {
    let (profile, snapshot) = (sim.profile(), sim.snapshot());
    asked.headers(profile.sim_type == BULK_TYPE)?;
    if knobs.err == "file_generation_failed" {
        return Err(Failure::new(Kind::Internal, "no file could be made: a fault that this export was told to have"));
    }
    let mut order = order(asked, level, &snapshot, sim.now_ms())?;
    if let Some(bearer) = bearer {
        if let Level::Group(_) = level {
            bearer.may(&[Need(Some("Group"), 'r')])?;
        }
        permitted(bearer, &mut order, asked)?;
    }
    order.page = knobs.page.unwrap_or(profile.settings.bulk.page);
    order.some_fail = knobs.err == "some_file_generation_failed";
    let now = sim.now_ms();
    let lasts = |seconds: u32| i64::from(seconds) * 1_000;
    let state = State {
        phase: Phase::Running,
        request: asked.url.clone(),
        transaction_time: String::new(),
        requires_token: profile.settings.auth == Auth::SmartBackend,
        made: profile.created.clone(),
        boot: String::new(),
        client: bearer.map(|bearer| bearer.access.client.clone()),
        restrictions: order.restrictions.iter().map(|(type_name, pairs)| ((*type_name).to_owned(), shown(pairs))).collect(),
        cancelled: false,
        began_ms: now,
        ready_ms: now + lasts(knobs.dur.unwrap_or(profile.settings.bulk.duration_seconds)),
        expires_ms: now + lasts(profile.settings.bulk.keep_minutes) * 60,
        err: Some(knobs.err.clone()).filter(|err| !err.is_empty()),
        output: Vec::new(),
        deleted: Vec::new(),
        error: Vec::new(),
    };
    app.jobs.begin(&app.registry, sim, order, state)
}

impl Asked {
    /// What the headers must say; the reference server insists on all of it.
    fn headers(&self, insists: bool) -> Result<()> {
        let accepts = |name: &str| self.accept.split(',').any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(name));
        if !(accepts("application/fhir+json") || !insists && (self.accept.is_empty() || accepts("application/json") || accepts("*/*"))) {
            return Err(
                bad(format!("Accept '{}' is not application/fhir+json, which is what an export is answered with", clip(&self.accept))).at("http.Accept")
            );
        }
        let is_async = self.prefer.split([',', ';']).any(|part| part.trim() == "respond-async");
        if !is_async && (insists || !self.prefer.trim().is_empty() && self.prefer.contains("respond-")) {
            return Err(bad("an export is asynchronous; send Prefer: respond-async".to_owned()).at("http.Prefer"));
        }
        Ok(())
    }

    fn is_lenient(&self) -> bool {
        self.prefer.split([',', ';']).any(|part| part.trim() == "handling=lenient")
    }

    /// The parameters, of the URL or of the Parameters resource that was posted.
    fn parameters(&self) -> Result<Vec<(String, String)>> {
        if self.method == Method::GET {
            return Ok(pairs(&self.query));
        }
        if self.method != Method::POST {
            return Err(Failure {
                allow: Some("GET, POST"),
                ..Failure::new(Kind::MethodNotAllowed, format!("{} is not allowed here; GET or POST begins an export", self.method))
            });
        }
        let mut found = pairs(&self.query);
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(found);
        }
        let value: Value = serde_json::from_slice(&self.body).map_err(|e| Failure::new(Kind::Malformed, format!("the body is no JSON: {e}")))?;
        if value["resourceType"] != "Parameters" {
            return Err(bad("the body of a $export is a Parameters resource, or there is none".to_owned()));
        }
        for parameter in value["parameter"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let given = parameter.as_object().into_iter().flatten().find(|(key, _)| key.starts_with("value")).map(|(_, value)| value);
            let text = match given {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Object(reference)) => reference.get("reference").and_then(Value::as_str).unwrap_or_default().to_owned(),
                Some(other) => other.to_string(),
                None => String::new(),
            };
            found.push((name.to_owned(), text));
        }
        Ok(found)
    }
}

fn order(asked: &Asked, level: &Level, snapshot: &Snapshot, now_ms: i64) -> Result<Order> {
    let definitions = snapshot.definitions();
    let mut order = Order::default();
    let (mut types, mut chosen) = (Vec::new(), None::<Vec<ResourceId>>);
    for (name, value) in asked.parameters()? {
        match name.as_str() {
            "_outputFormat" | "outputFormat" if matches!(value.as_str(), "application/fhir+ndjson" | "application/ndjson" | "ndjson") => {}
            "_outputFormat" | "outputFormat" => return Err(bad(format!("_outputFormat '{}' is not application/fhir+ndjson", clip(&value)))),
            "_since" => order.since_ms = Some(moment("_since", &value, now_ms)?),
            "_until" => order.until_ms = Some(moment("_until", &value, i64::MAX)?),
            "_type" => {
                for one in value.split(',').filter(|one| !one.trim().is_empty()) {
                    match definitions.resource_type(one.trim()) {
                        Ok(type_name) => types.push(type_name),
                        Err(failure) if asked.is_lenient() => order.notes.push(format!("_type: {}", failure.diagnostics)),
                        Err(failure) => return Err(bad(format!("_type: {}", failure.diagnostics))),
                    }
                }
            }
            "_elements" => {
                for one in value.split(',').map(str::trim).filter(|one| !one.is_empty()) {
                    let (of, name) = one.split_once('.').map_or((None, one), |(of, name)| (Some(of.to_owned()), name));
                    order.elements.push((of, name.to_owned()));
                }
            }
            "_typeFilter" => {
                for (type_name, pairs) in filters(&value, definitions)? {
                    policy::condition(&pairs, type_name, snapshot, now_ms).map_err(|f| bad(format!("_typeFilter of {type_name}: {}", f.diagnostics)))?;
                    order.filters.push((type_name, pairs));
                }
            }
            "patient" if asked.method != Method::POST || *level == Level::System => {
                return Err(bad("patient chooses among patients: it is for POST, and for Patient/$export or Group/[id]/$export".to_owned()));
            }
            "patient" => {
                let of = chosen.get_or_insert_default();
                for one in value.split(',') {
                    let id = one.trim().strip_prefix("Patient/").unwrap_or(one.trim());
                    let id: ResourceId = id.parse().map_err(|_| bad(format!("patient '{}' is no reference such as Patient/123", clip(one))))?;
                    if snapshot.latest("Patient", &id).is_none_or(|v| v.is_deletion()) {
                        return Err(bad(format!("patient: there is no Patient/{id} in this simulator")));
                    }
                    of.push(id);
                }
            }
            "_format" | "_pretty" => {}
            other => {
                let message = format!("parameter '{}' is not supported by this export", clip(other));
                if asked.is_lenient() {
                    order.notes.push(message);
                } else {
                    return Err(bad(format!("{message}; with Prefer: handling=lenient it is passed over and reported")));
                }
            }
        }
    }
    order.whose = whose(level, chosen, snapshot)?;
    let members = definitions.compartment_types("Patient");
    let belongs = |t: &&'static str| *level == Level::System || *t == "Patient" || members.is_some_and(|members| members.contains_key(*t));
    order.gone = if types.is_empty() { definitions.resource_types().to_vec() } else { types.clone() };
    order.gone.retain(belongs);
    order.types = those(types, &order.filters, snapshot);
    order.types.retain(belongs);
    Ok(order)
}

/// Whose resources are exported.
fn whose(level: &Level, chosen: Option<Vec<ResourceId>>, snapshot: &Snapshot) -> Result<Whose> {
    let Level::Group(id) = level else {
        let all = if *level == Level::System { Whose::Anyones } else { Whose::Patients };
        return Ok(chosen.map_or(all, Whose::Of));
    };
    let members = members(id, snapshot)?;
    if let Some(stranger) = chosen.iter().flatten().find(|id| !members.contains(id)) {
        return Err(bad(format!("patient: Patient/{stranger} is no member of Group/{id}")));
    }
    Ok(Whose::Of(chosen.unwrap_or(members)))
}

/// The types that are exported: those that are asked for, else all of which there is something.
fn those(asked: Vec<&'static str>, filters: &[OfType], snapshot: &Snapshot) -> Vec<&'static str> {
    let mut types = asked;
    if types.is_empty() {
        types = snapshot.counts().map(|(there, _)| there).collect();
        types.extend(filters.iter().map(|(t, _)| *t));
    }
    types.sort_unstable();
    types.dedup();
    types
}

/// The patients of a group.
fn members(id: &ResourceId, snapshot: &Snapshot) -> Result<Vec<ResourceId>> {
    let missing = || Failure::new(Kind::NotFound, format!("there is no Group/{id} in this simulator"));
    let version = snapshot.latest("Group", id).filter(|v| !v.is_deletion()).ok_or_else(missing)?;
    let group: Value = serde_json::from_slice(&snapshot.body("Group", &version)?).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
    let active = group["member"].as_array().into_iter().flatten().filter(|m| m["inactive"] != Value::Bool(true));
    // Of this simulator; what is elsewhere may have the same ids.
    let own = format!("/sim/{}/fhir/", snapshot.sim());
    let within = |reference: &str| match reference.split_once(&own) {
        Some((_, within)) => Some(within.to_owned()),
        None => (!reference.contains(':')).then(|| reference.to_owned()),
    };
    let ids = active.filter_map(|m| within(m["entity"]["reference"].as_str()?)?.strip_prefix("Patient/").map(str::to_owned));
    Ok(ids.filter_map(|id| id.split('/').next()?.parse().ok()).collect())
}

/// An instant, not in the future.
fn moment(name: &str, text: &str, latest_ms: i64) -> Result<i64> {
    // A plus that a client forgot to encode arrives as a blank.
    let found = instant::parse(&text.replace(' ', "+")).map(|interval| interval.low.div_euclid(1_000));
    let ms = found.ok_or_else(|| bad(format!("{name} '{}' is no instant such as 2026-11-26T10:00:00Z", clip(text))))?;
    if ms > latest_ms {
        return Err(bad(format!("{name} '{}' lies in the future", clip(text))));
    }
    Ok(ms)
}

/// `Patient?active=true,Observation?status=final`; a comma within a search is coded twice, as %2C.
fn filters(text: &str, definitions: &'static Definitions) -> Result<Vec<OfType>> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = part.split_once('?').is_some_and(|(name, _)| definitions.find_resource_type(name.trim()).is_some());
        match parts.last_mut().filter(|_| !begins) {
            Some(last) => last.push_str(&format!(",{part}")),
            None => parts.push(part.to_owned()),
        }
    }
    let one = |part: String| {
        let (name, query) = part.split_once('?').ok_or_else(|| bad(format!("_typeFilter '{}' is not a search such as Patient?active=true", clip(&part))))?;
        let type_name = definitions.resource_type(name.trim()).map_err(|f| bad(format!("_typeFilter: {}", f.diagnostics)))?;
        Ok((type_name, pairs(query)))
    };
    parts.into_iter().map(one).collect()
}

/// Parameters as a query.
fn shown(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Leaves of an order what the token allows: what was asked for by name must be allowed, of all types those that are.
fn permitted(bearer: &Bearer, order: &mut Order, asked: &Asked) -> Result<()> {
    let named = asked.parameters()?.iter().any(|(name, _)| name == "_type");
    let mut types = Vec::new();
    for type_name in &order.types {
        match allows(&bearer.scopes, Some(type_name), 'r') {
            Verdict::Yes => types.push(*type_name),
            Verdict::Matching(search) => {
                order.restrictions.insert(type_name, pairs(&search));
                types.push(*type_name);
            }
            Verdict::No if named => bearer.may(&[Need(Some(type_name), 'r')])?,
            Verdict::No => {}
        }
    }
    if types.is_empty() && !order.types.is_empty() {
        bearer.may(&[Need(None, 'r')])?;
    }
    order.gone.retain(|type_name| allows(&bearer.scopes, Some(type_name), 'r') == Verdict::Yes);
    order.types = types;
    Ok(())
}

/// Answers what is below `/bulk`: the status of an export, its files, its end.
pub async fn serve(request: &HttpRequest, context: &SimContext, app: Data<App>, started: Instant) -> HttpResponse {
    let version = context.snapshot().version();
    let (id, file) = context.tail.trim_end_matches('/').split_once('/').map_or((context.tail.trim_end_matches('/'), None), |(id, file)| (id, Some(file)));
    let bearer = policy::bearer(request, &context.sim, &app);
    let there = (context.sim.clone(), id.to_owned());
    let jobs = app.clone();
    let job = web::block(move || jobs.jobs.find(&jobs.registry, &there.0, &there.1)).await.ok().flatten();
    let missing =
        || Failure::new(Kind::NotFound, format!("simulator {} has no export '{}'; it was never begun, was ended or has expired", context.sim.id(), clip(id)));
    // Another's is none.
    let theirs = |job: &Arc<Job>, bearer: &Option<Bearer>| bearer.as_ref().is_none_or(|bearer| job.state().client.as_ref() == Some(&bearer.access.client));
    let found = bearer.and_then(|bearer| job.filter(|job| theirs(job, &bearer)).ok_or_else(missing).map(|job| (job, bearer)));
    let name = match (request.method().as_str(), file) {
        ("DELETE", None) => "export-cancel",
        (_, None) => "export-status",
        (_, Some(_)) => "export-file",
    };
    let answered = match (found, file, request.method().as_str()) {
        (Err(failure), ..) => Err(failure),
        (Ok((job, _)), None, "DELETE") => {
            app.jobs.cancel(&context.sim, &job);
            Ok(Answer { status: 202, ..Answer::default() })
        }
        (Ok((job, _)), None, "GET" | "HEAD") => Ok(status(&job, context, version)),
        (Ok((job, bearer)), Some(file), "GET" | "HEAD") => match found_file(&job, file, bearer.as_ref()) {
            Ok((path, output)) => {
                let answer = Answer { status: 200, ..Answer::default() };
                let event = note(&context.sim, request, name, "", &answer, started);
                return send(request, path, &output, &event).await;
            }
            Err(failure) => Err(failure),
        },
        (Ok(_), ..) => {
            Err(Failure { allow: Some("GET, HEAD, DELETE"), ..Failure::new(Kind::MethodNotAllowed, "an export can be asked after, fetched and ended") })
        }
    };
    let answer = answered.unwrap_or_else(|failure| Answer::refusal(&failure, version, &Format::default()));
    let event = note(&context.sim, request, name, "", &answer, started);
    answer.into_response(Some(&event), None, *request.method() == Method::HEAD)
}

fn status(job: &Job, context: &SimContext, version: crate::fhir::FhirVersion) -> Answer {
    let state = job.state();
    let now = context.sim.now_ms();
    if state.err.as_deref() == Some("transient_error") && !job.once.swap(true, Ordering::AcqRel) {
        let text = "a fault that this export was told to have, once; ask again";
        let outcome =
            json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "transient", "details": {"text": text}, "diagnostics": text}]});
        return Answer::of(500, "application/fhir+json; charset=utf-8", outcome.to_string().into_bytes()).with("retry-after", AGAIN_S.to_string());
    }
    match state.phase {
        Phase::Failed(why) => Answer::refusal(&Failure::new(Kind::Internal, format!("the export has failed: {why}")), version, &Format::default()),
        Phase::Complete if now >= state.ready_ms => {
            let shown = |all: &[Output]| -> Value {
                all.iter().map(|o| json!({"type": o.type_name, "url": format!("{}/bulk/{}/{}", context.root, job.id, o.file), "count": o.count})).collect()
            };
            let manifest = json!({
                "transactionTime": state.transaction_time, "request": state.request, "requiresAccessToken": state.requires_token,
                "output": shown(&state.output), "deleted": shown(&state.deleted), "error": shown(&state.error),
            });
            Answer::json(200, &manifest).with("expires", http_date(state.expires_ms))
        }
        Phase::Complete | Phase::Running => {
            // One that is told to last is as far as its time.
            let (spent, lasts) = (now - state.began_ms, state.ready_ms - state.began_ms);
            let by_time = usize::try_from((spent * 100).checked_div(lasts).unwrap_or(99).clamp(0, 99)).unwrap_or_default();
            let percent = if state.phase == Phase::Complete { by_time } else { job.percent().min(by_time) };
            Answer { status: 202, ..Answer::default() }.with("x-progress", format!("{percent}% complete")).with("retry-after", AGAIN_S.to_string())
        }
    }
}

fn found_file(job: &Job, name: &str, bearer: Option<&Bearer>) -> Result<(std::path::PathBuf, Output)> {
    let state = job.state();
    if state.err.as_deref() == Some("file_expired") {
        return Err(Failure::new(Kind::Deleted, "the file has expired: a fault that this export was told to have"));
    }
    let missing = || Failure::new(Kind::NotFound, format!("the export has no file '{}'; its status lists them", clip(name)));
    let (path, output) = job.file(name).filter(|_| state.phase == Phase::Complete).ok_or_else(missing)?;
    // What errors and deletions tell is of no type that a token names.
    if let Some(bearer) = bearer.filter(|_| !matches!(output.type_name.as_str(), "OperationOutcome" | "Bundle")) {
        let allowed = match allows(&bearer.scopes, Some(&output.type_name), 'r') {
            Verdict::Yes => true,
            // The file holds what one search found, and no more.
            Verdict::Matching(search) => state.restrictions.get(&output.type_name) == Some(&shown(&pairs(&search))),
            Verdict::No => false,
        };
        if !allowed {
            return Err(Failure::new(Kind::Forbidden, format!("the token allows '{}', and this needs system/{}.r", bearer.access.scope, output.type_name)));
        }
    }
    Ok((path, output))
}

/// Sends a file, or the part of it that is asked for.
async fn send(request: &HttpRequest, path: std::path::PathBuf, output: &Output, event: &str) -> HttpResponse {
    let opened = web::block(move || std::fs::File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)))).await;
    let (length, mut file) = match opened.map_err(|e| e.to_string()).and_then(|o| o.map_err(|e| e.to_string())) {
        Ok(opened) => opened,
        Err(error) => {
            return super::respond::failure(&Failure::new(Kind::Damaged, format!("the file cannot be read: {error}")), crate::fhir::FhirVersion::default());
        }
    };
    let range = routes::text(request, header::RANGE).map_or(Part::Whole, |r| part(r, length));
    let mut response = HttpResponse::Ok();
    response.content_type("application/fhir+ndjson").insert_header(("accept-ranges", "bytes")).insert_header(("x-fhirsim-event", event));
    response.insert_header(("content-disposition", format!("attachment; filename=\"{}\"", output.file)));
    let (from, to) = match range {
        Part::Whole => (0, length),
        Part::Of(from, to) => {
            // A part of what is compressed would be a part of something else.
            response
                .status(StatusCode::PARTIAL_CONTENT)
                .insert_header(("content-range", format!("bytes {from}-{}/{length}", to - 1)))
                .insert_header(("content-encoding", "identity"));
            (from, to)
        }
        Part::Nothing => {
            return HttpResponse::build(StatusCode::RANGE_NOT_SATISFIABLE).insert_header(("content-range", format!("bytes */{length}"))).finish();
        }
    };
    if let Err(error) = file.seek(SeekFrom::Start(from)) {
        return super::respond::failure(&Failure::new(Kind::Damaged, error.to_string()), crate::fhir::FhirVersion::default());
    }
    let pieces = futures_util::stream::unfold((file, to - from), |(mut file, left)| async move {
        if left == 0 {
            return None;
        }
        let read = web::block(move || {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            file.read_exact(&mut piece).map(|()| (piece, file))
        });
        match read.await {
            Ok(Ok((piece, file))) => {
                let rest = left - piece.len() as u64;
                Some((Ok(Bytes::from(piece)), (file, rest)))
            }
            Ok(Err(error)) => Some((Err(actix_web::error::ErrorInternalServerError(error)), (std::fs::File::open("/dev/null").ok()?, 0))),
            Err(error) => Some((Err(actix_web::error::ErrorInternalServerError(error)), (std::fs::File::open("/dev/null").ok()?, 0))),
        }
    });
    response.body(SizedStream::new(to - from, Box::pin(pieces)))
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// It is no range of bytes, or of several: all of it.
    Whole,
    /// From a byte to before another.
    Of(u64, u64),
    /// There is no such part.
    Nothing,
}

fn part(range: &str, length: u64) -> Part {
    let ends = || -> Option<(u64, u64)> {
        let (from, to) = range.strip_prefix("bytes=").filter(|r| !r.contains(','))?.split_once('-')?;
        Some(match (from.trim(), to.trim()) {
            ("", last) => (length.saturating_sub(last.parse().ok()?), length),
            (from, "") => (from.parse().ok()?, length),
            (from, to) => (from.parse().ok()?, to.parse::<u64>().ok()?.saturating_add(1).min(length)),
        })
    };
    match ends() {
        None => Part::Whole,
        Some((from, to)) if from < to => Part::Of(from, to),
        Some(_) => Part::Nothing,
    }
}

/// `GET /api/sims/{id}/exports`: those that this server knows, newest first.
pub async fn list(app: Data<App>, id: web::Path<String>) -> HttpResponse {
    super::api::answer(move || {
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        Ok(Answer::json(200, &json!({"exports": listed(&sim, &app)})))
    })
    .await
}

/// The exports of a simulator, as lists show them.
pub(super) fn listed(sim: &Sim, app: &App) -> Vec<Value> {
    let one = |job: &Arc<Job>| {
        let state = job.state();
        let (phase, why) = match &state.phase {
            Phase::Running => ("running", None),
            Phase::Complete => ("complete", None),
            Phase::Failed(why) => ("failed", Some(why.clone())),
        };
        let lines: usize = state.output.iter().map(|o| o.count).sum();
        json!({"id": job.id, "phase": phase, "why": why, "percent": if state.phase == Phase::Complete { 100 } else { job.percent() }, "request": state.request,
            "began": crate::clock::instant(state.began_ms), "expires": crate::clock::instant(state.expires_ms), "transactionTime": state.transaction_time,
            "files": state.output.len(), "resources": lines})
    };
    app.jobs.of(sim).iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::FhirVersion;

    #[test]
    fn knobs_are_a_segment_of_the_url() {
        use base64::Engine as _;
        let coded = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let knobs = Knobs::of(&coded(r#"{"err":"","page":10000,"dur":10,"tlt":15,"m":1,"stu":4,"del":0}"#));
        assert_eq!(knobs, Some(Knobs { err: String::new(), page: Some(10_000), dur: Some(10), tlt: Some(15) }));
        assert_eq!(Knobs::of(&coded(r#"{"page":"5"}"#)).and_then(|k| k.page), Some(5));
        for bad in ["fhir", "nothing", "", &coded("[]"), &coded("{"), "***"] {
            assert_eq!(Knobs::of(bad), None, "{bad}");
        }
    }

    #[test]
    fn filters_are_separated_by_commas_that_begin_a_type() {
        let read = |text: &str| {
            filters(text, Definitions::of(FhirVersion::R4)).map(|all| all.into_iter().map(|(t, p)| format!("{t}:{p:?}")).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            read("Patient?gender=male,Observation?status=final,amended&code=x").ok().as_deref(),
            Some(r#"Patient:[("gender", "male")] Observation:[("status", "final,amended"), ("code", "x")]"#)
        );
        assert_eq!(read("Observation?status=final%2Camended").ok().as_deref(), Some(r#"Observation:[("status", "final,amended")]"#));
        assert!(read("nonsense").is_err() && read("Pateint?x=y").is_err());
    }

    #[test]
    fn ranges_are_parts_of_a_file() {
        for (range, expected) in [
            ("bytes=0-9", Part::Of(0, 10)),
            ("bytes=90-", Part::Of(90, 100)),
            ("bytes=-10", Part::Of(90, 100)),
            ("bytes=95-200", Part::Of(95, 100)),
            ("bytes=100-", Part::Nothing),
            ("bytes=5-2", Part::Nothing),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=x-y", Part::Whole),
        ] {
            assert_eq!(part(range, 100), expected, "{range}");
        }
    }
}
