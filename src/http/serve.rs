//! `/sim/...`: the way of a FHIR request.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use serde_json::Map;

use super::context::{Mount, SimContext};
use super::decode::{Parts, Read};
use super::exchange::{Call, Outcome, exchange, name_of};
use super::faults;
use super::negotiate::{self, Accept, Format, Sent};
use super::respond::Answer;
use super::{App, access, body, bulk, policy, routes, secrets, smart};
use crate::clock::EventId;
use crate::fhir::definitions::ParamType;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::interaction::operation::Definition;
use crate::interaction::search::Request;
use crate::interaction::target::{pairs, readable};
use crate::interaction::{Interaction, Target};
use crate::search::params::TypeParams;
use crate::search::parse::MAX_PARAMETERS;
use crate::sim::faults::Looked;
use crate::sim::templates;
use crate::sim::{Record, Sim};
use crate::simdb::journal::Ticket;
use crate::version::Operation;

/// How often a request is tried again because its simulator was sealed or emptied under it.
const MAX_AGAIN: usize = 3;
/// A body up to this size is worked on where it arrived.
const INLINE_BYTES: usize = 128 << 10;

/// Answers a request for a simulator.
pub async fn serve(request: HttpRequest, payload: Payload, app: Data<App>) -> HttpResponse {
    let started = Instant::now();
    let context = match SimContext::of(&request, &app).await {
        Ok(context) => context,
        Err(failure) => {
            tracing::info!(url = secrets::url(&request, true), failure = failure.diagnostics, "refused");
            return access::refusal(&failure);
        }
    };
    let body = body::read(&request, payload, app.options.max_body_bytes, app.options.read_timeout).await;
    let (body, broken) = match body {
        Ok(bytes) => (bytes, None),
        Err(partial) => (partial.bytes, Some(partial.failure)),
    };
    if let Some(aside) = Aside::of(&context) {
        return aside.answered(&request, body, broken, &context, app, started).await;
    }
    let parsed = if body.len() > INLINE_BYTES { read_aside(&request, context.snapshot().version(), body.clone()).await } else { None };
    let call = call(&request, &context, &app, body, parsed, broken, started);
    let (method, name, request_id) = (call.method, call.name(), request_id(&request));
    let is_head = *request.method() == Method::HEAD;
    let call = Arc::new(call);
    let mut sim = context.sim.clone();
    let port = request.peer_addr().map_or(0, |peer| peer.port());
    let mut outcome = run(&app, &sim, &call, port).await;
    let mut left = MAX_AGAIN;
    // It was sealed, emptied or deleted meanwhile, and nothing came of the request: the next of its name takes it.
    while left > 0 && is_in_vain(&outcome, &sim) {
        match again(&app, &sim).await {
            Ok(next) => {
                sim = next;
                outcome = run(&app, &sim, &call, port).await;
                left -= 1;
            }
            Err(failure) => {
                outcome.answer = Answer::refusal(&failure, context.snapshot().version(), &call.format);
                left = 0;
            }
        }
    }
    let Outcome { mut answer, event, ticket } = outcome;
    if !sim.durable(ticket).await {
        let failure = Failure::new(Kind::Internal, "the write could not be made durable; whether it is stored is not known");
        answer = Answer::refusal(&failure, context.snapshot().version(), &Format::default());
    }
    let took = started.elapsed();
    app.metrics.request(name, answer.status, took);
    tracing::info!(
        sim = context.sim.id().as_str(),
        method,
        interaction = name,
        status = answer.status,
        us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        event = event.as_deref().unwrap_or(""),
        "{}",
        secrets::url(&request, true)
    );
    let Some(fault) = &call.fault else { return answer.into_response(event.as_deref(), request_id, is_head) };
    let response = answer.clone().into_response(event.as_deref(), request_id, is_head);
    faults::sent(&request, answer, response, fault, app.stopping.clone()).await
}

/// What is no interaction with resources: tokens, and what begins, tells of and hands out bulk data.
enum Aside {
    Auth,
    Bulk,
    Begins(bulk::Operation),
}

impl Aside {
    fn of(context: &SimContext) -> Option<Self> {
        match context.mount {
            Mount::Auth => Some(Self::Auth),
            Mount::Fhir if context.tail.starts_with(".well-known/") => Some(Self::Auth),
            Mount::Bulk => Some(Self::Bulk),
            Mount::Fhir => bulk::Operation::of(&context.tail).filter(|_| context.at.is_none()).map(Self::Begins),
        }
    }

    /// As events and faults call it.
    fn name(&self, method: &Method, tail: &str) -> &'static str {
        match self {
            Self::Auth => smart::name_of(tail),
            Self::Bulk => bulk::name_of(method, tail),
            Self::Begins(operation) => operation.name(),
        }
    }

    /// Answers it, as a fault leaves it.
    async fn answered(
        self,
        request: &HttpRequest,
        body: Bytes,
        broken: Option<Failure>,
        context: &SimContext,
        app: Data<App>,
        started: Instant,
    ) -> HttpResponse {
        let (sim, version, stopping) = (&context.sim, context.snapshot().version(), app.stopping.clone());
        let (rules, name) = (&sim.profile().settings.faults, self.name(request.method(), &context.tail));
        let type_name = if let Self::Begins(operation) = &self { operation.type_name() } else { None };
        let parameters = if rules.is_empty() { Vec::new() } else { pairs(request.query_string()) };
        let header = |name: &str| routes::text(request, name).map(str::to_owned);
        let looked = Looked { interaction: name, method: request.method().as_str(), type_name, parameters: &parameters, header: &header };
        let fault = sim.faults.decide(rules, &looked);
        if let Some(fault) = &fault {
            request.extensions_mut().insert(fault.clone());
        }
        let prevented = fault.as_ref().filter(|_| faults::prevents(fault.as_ref()));
        let response = match (prevented, self) {
            (Some(fault), aside) => {
                let answer = faults::instead(&fault.effect, version, &Format::default());
                let event = match &aside {
                    Self::Begins(operation) if operation.writes() => bulk::kept(sim, request, name, body, &answer, None, started).await,
                    Self::Auth | Self::Bulk | Self::Begins(_) => smart::note(sim, request, name, &answer, None, started),
                };
                answer.into_response(Some(&event), None, *request.method() == Method::HEAD)
            }
            (None, Self::Auth) => smart::serve(request, body, context, app, started).await,
            (None, Self::Bulk) => bulk::serve(request, context, app, started).await,
            (None, Self::Begins(operation)) => bulk::kick_off(request, body, operation, broken, context, app, started).await,
        };
        match fault {
            Some(fault) => faults::applied(request, response, &fault, version, stopping).await,
            None => response,
        }
    }
}

/// Whether nothing came of a request because its simulator was over before it could do what was asked.
fn is_in_vain(outcome: &Outcome, sim: &Sim) -> bool {
    let is_nothing = match &outcome.event {
        None => true,
        Some(event) => event.starts_with("log-") && outcome.answer.status >= 400,
    };
    is_nothing && sim.is_over()
}

/// The simulator of the same name that there is now.
async fn again(app: &Data<App>, sim: &Arc<Sim>) -> Result<Arc<Sim>, Failure> {
    let (app, id) = (app.clone(), sim.id().clone());
    web::block(move || app.registry.get(&id)).await.map_err(|e| Failure::new(Kind::Internal, e.to_string()))?
}

/// Where it is run: short work on the thread it arrived at, the rest where it keeps nobody waiting.
async fn run(app: &App, sim: &Arc<Sim>, call: &Arc<Call>, port: u16) -> Outcome {
    let long = match &call.asked {
        Ok(
            Interaction::Batch(_)
            | Interaction::Transaction(_)
            | Interaction::Restore(_)
            | Interaction::Capabilities
            | Interaction::History(..)
            | Interaction::Operation(_),
        ) => true,
        Ok(Interaction::Search(search)) => call.at.is_some() || !is_selective(search, sim.snapshot().version()),
        Ok(Interaction::Create(..) | Interaction::Update(..) | Interaction::Patch(..) | Interaction::Delete(_)) | Err(_) => {
            call.operation != Operation::Get && (call.body.len() > INLINE_BYTES || sim.is_busy() || app.readers.others(call.started, port))
        }
        Ok(Interaction::Read(..) | Interaction::Vread(..)) => false,
    };
    if !long {
        if call.operation == Operation::Get {
            app.readers.saw(call.started, port);
        }
        return exchange(sim, call);
    }
    let (version, format) = (sim.snapshot().version(), call.format.clone());
    let is_search = call.operation == Operation::Get && matches!(call.asked, Ok(Interaction::Search(_) | Interaction::Operation(_)));
    let (there, asked) = (sim.clone(), call.clone());
    let work = move || exchange(&there, &asked);
    let done = if is_search { app.lane.run(work).await } else { web::block(work).await.map_err(|e| e.to_string()) };
    done.unwrap_or_else(|error| {
        let failure = Failure::new(Kind::Internal, format!("this server made a mistake: {error}"));
        Outcome { answer: Answer::refusal(&failure, version, &format), event: None, ticket: Ticket::default() }
    })
}

/// Reads a large body off the serving thread, if it is a resource.
async fn read_aside(request: &HttpRequest, version: FhirVersion, body: Bytes) -> Option<Result<Read, Failure>> {
    let sent = negotiate::sent(request, version).ok().filter(|sent| matches!(sent, Sent::Json | Sent::Xml))?;
    web::block(move || Read::of(&body, &sent, version)).await.ok()
}

/// Up to how many values of a parameter are few.
const FEW_VALUES: usize = 32;

/// Whether a search surely looks at few resources: one value of a parameter that tells them apart, and no order of its own.
fn is_selective(search: &Request, version: FhirVersion) -> bool {
    let Some(type_name) = search.type_name else { return false };
    let params = TypeParams::of(version, type_name);
    let tells_apart = |name: &str, value: &str| match params.get(name).map(|p| p.kind) {
        Some(ParamType::Token) => name == "_id" || value.contains('|') || value.len() > 12,
        Some(ParamType::Reference | ParamType::String) => value.len() > 2,
        Some(_) => false,
        // A chain or the like: what it ends in may be anything, but an identifier or a reference tells resources apart.
        None if name.contains(":not") || name.contains(":above") || name.contains(":below") || name.contains(":in") => false,
        None => name.contains(['.', ':']) && (value.contains(['|', '/']) || name.ends_with("_id")),
    };
    let costs = |name: &str, value: &str| {
        matches!(name, "_sort" | "_cursor" | "_filter" | "_explain" | "_content" | "_text" | "_contained")
            || value == "*"
            || value.matches(',').count() >= FEW_VALUES
    };
    let mut parameters = search.parameters.iter();
    parameters.any(|(n, v)| v.matches(',').count() < FEW_VALUES && tells_apart(n, v))
        && !search.parameters.iter().any(|(n, v)| costs(n, v))
        && search.parameters.len() < 16
}

fn call(
    request: &HttpRequest,
    context: &SimContext,
    app: &App,
    body: Bytes,
    parsed: Option<Result<Read, Failure>>,
    broken: Option<Failure>,
    started: Instant,
) -> Call {
    let snapshot = context.snapshot();
    let version = snapshot.version();
    let query_text = request.query_string();
    let query = if query_text.is_empty() { Vec::new() } else { pairs(query_text) };
    let target = Target::parse(&context.tail, snapshot.definitions());
    let type_name = target.as_ref().ok().and_then(Target::type_name);
    // A search that is posted may say in its form how it wants to be answered.
    let asked_for = match negotiate::sent(request, version) {
        Ok(Sent::Form) => query.iter().cloned().chain(pairs(std::str::from_utf8(&body).unwrap_or_default())).collect(),
        Ok(Sent::Json | Sent::Xml | Sent::Other(_)) | Err(_) => query.clone(),
    };
    let format = negotiate::format(request, &asked_for, version, type_name == Some("Binary"));
    // `_format` is said instead.
    let is_raw = type_name == Some("Binary") && !asked_for.iter().any(|(name, _)| name == "_format");
    let prefer = negotiate::prefer(request);
    let filed = filed_under(request.method(), target.as_ref().ok());
    let (format_or_default, prefer_or_default) = (format.clone().unwrap_or_default(), prefer.clone().unwrap_or_default());
    let broken = broken.or_else(|| readable(query_text).err());
    let profile = context.sim.profile();
    let parameters = if profile.settings.faults.is_empty() { Vec::new() } else { asked_for.clone() };
    let asked = match (broken, format, prefer, target) {
        (Some(failure), ..) | (None, Err(failure), ..) | (None, Ok(_), Err(failure), _) | (None, Ok(_), Ok(_), Err(failure)) => Err(failure),
        (None, Ok(_), Ok(_), Ok(_)) if query.len() > MAX_PARAMETERS => {
            Err(Failure::new(Kind::TooCostly, format!("{} parameters in the URL; at most {MAX_PARAMETERS} are accepted", query.len())))
        }
        (None, Ok(_), Ok(prefer), Ok(target)) => Parts { request, target, query, body: &body, parsed, version, prefer }.interaction(),
    };
    // Whatever is wrong with it besides.
    let is_write = asked.as_ref().map_or(filed, Interaction::operation) != Operation::Get;
    let asked = if context.at.is_some() && is_write { Err(past_is_past()) } else { asked };
    let is_template = context.sim.id().session() == templates::SESSION;
    let asked = asked.and_then(|asked| if is_template && asked.operation() != Operation::Get { Err(template_stays()) } else { Ok(asked) });
    let bearer = policy::bearer(request, &context.sim, app);
    let authorization = policy::recorded(&bearer);
    let asked = match (asked, bearer) {
        // What there is to find out about who may do what stands open.
        (Ok(Interaction::Capabilities), _) => Ok(Interaction::Capabilities),
        (_, Err(refused)) => Err(refused),
        (Ok(asked), Ok(Some(bearer))) => bearer.allowed(asked, context.at.is_some(), &context.sim),
        (asked, Ok(_)) => asked,
    };
    let operation = asked.as_ref().map_or(filed, Interaction::operation);
    let redact = profile.settings.redact;
    let recorded = operation != Operation::Get || profile.settings.record == Record::All;
    let looked = Looked {
        interaction: name_of(&asked),
        method: request.method().as_str(),
        type_name,
        parameters: &parameters,
        header: &|name| routes::text(request, name).map(str::to_owned),
    };
    let fault = context.sim.faults.decide(&profile.settings.faults, &looked);
    let before = || EventId::from_u64(snapshot.last_event().to_u64().saturating_sub(1));
    let at = context.at.or_else(|| fault.as_ref().is_some_and(|f| f.effect.stale).then(before));
    Call {
        operation,
        format: format_or_default,
        prefer: prefer_or_default,
        base: context.base.clone(),
        method: method_name(request.method()),
        url: secrets::url(request, redact),
        headers: if recorded { secrets::headers(request, redact) } else { Map::new() },
        body_file: body_file(routes::text(request, header::CONTENT_TYPE)),
        secrets: if redact && recorded { kind_of(request, version, &asked) } else { secrets::Kind::Plain },
        body,
        type_name,
        accept: if is_raw { Accept::of(request) } else { Accept::default() },
        client: request.peer_addr().map(|a| a.ip()),
        started,
        asked,
        at,
        fault,
        authorization,
    }
}

/// What the body of a request is, for the record.
fn kind_of(request: &HttpRequest, version: FhirVersion, asked: &Result<Interaction, Failure>) -> secrets::Kind {
    match (negotiate::sent(request, version), asked) {
        (Ok(Sent::Form), _) => secrets::Kind::Form,
        (_, Ok(Interaction::Batch(_) | Interaction::Transaction(_))) => secrets::Kind::Bundle,
        // What was meant for another place may hold secrets, too.
        (_, Err(_)) => secrets::Kind::Order,
        (_, Ok(_)) => secrets::Kind::Plain,
    }
}

/// The refusal of a write to a simulator as it was.
fn past_is_past() -> Failure {
    let message = "the URL names a moment of the past, which can be read, searched and not changed; leave out '@' and what follows it to write now";
    Failure { allow: Some("GET, HEAD"), ..Failure::new(Kind::MethodNotAllowed, message) }
}

/// The refusal of a write to a template.
fn template_stays() -> Failure {
    let message =
        "this simulator is a template, which can be read and not changed; make one that begins as it: POST /api/sims {\"id\":\"lab__one\",\"template\":\"…\"}";
    Failure { allow: Some("GET, HEAD"), ..Failure::new(Kind::MethodNotAllowed, message) }
}

/// Where a refused request is filed.
fn filed_under(method: &Method, target: Option<&Target>) -> Operation {
    match (method.as_str(), target) {
        ("POST", Some(Target::TypeSearch(_) | Target::SystemSearch | Target::CompartmentSearch(..))) => Operation::Get,
        ("POST", Some(Target::Operation(level, name))) if Definition::find(name, level).is_ok_and(|d| !d.affects_state) => Operation::Get,
        ("POST", _) => Operation::Post,
        ("PUT", _) => Operation::Put,
        ("PATCH", _) => Operation::Patch,
        ("DELETE", _) => Operation::Delete,
        _ => Operation::Get,
    }
}

pub(super) fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

fn body_file(content_type: Option<&str>) -> &'static str {
    let essence = content_type.and_then(|t| t.split(';').next()).unwrap_or("json").trim();
    match essence {
        e if e.ends_with("json") => "request_body.json",
        e if e.ends_with("xml") => "request_body.xml",
        "application/x-www-form-urlencoded" => "request_body.form",
        "text/plain" => "request_body.txt",
        "application/pdf" => "request_body.pdf",
        _ => "request_body.bin",
    }
}

/// The client's own id of the request, to be echoed.
fn request_id(request: &HttpRequest) -> Option<HeaderValue> {
    request.headers().get("x-request-id").filter(|v| v.len() <= 200).cloned()
}

/// Statuses that the metrics know by class.
#[must_use]
pub fn class_of(status: u16) -> &'static str {
    match StatusCode::from_u16(status) {
        Ok(s) if s.is_success() => "2xx",
        Ok(s) if s.is_redirection() => "3xx",
        Ok(s) if s.is_client_error() => "4xx",
        _ => "5xx",
    }
}
