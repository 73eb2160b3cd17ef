//! `/api/sims/{id}/events`: what happened, filtered; waiting for what is to happen; markers; the live stream.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::api::{MAX_PAGE, PAGE, Result, answer};
use super::respond::Answer;
use super::stream::Listening;
use super::{App, again, context, respond};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, instant, xml};
use crate::interaction::changes;
use crate::search::path::library::Expression;
use crate::search::path::limits;
use crate::sim::Sim;
use crate::simdb::event::{RECORD, known_interaction};
use crate::simdb::event_index::{Fact, Filter, Row};
use crate::simdb::{EventRecord, SimId, scan};
use crate::version::Operation;

/// Most events that FHIRPath is evaluated on for one page.
const EXAMINED: usize = 1_000;
/// Largest body that FHIRPath is evaluated on.
const MAX_BYTES: u64 = 16 << 20;
/// How many lists and streams evaluate FHIRPath at once: each takes a thread that others wait for, so they take turns.
pub(super) static EVALUATING: Semaphore = Semaphore::const_new(8);
/// Most of them and of all others that do, which take no turns and are refused beyond it.
const MAX_EVALUATIONS: usize = 64;
static FILTERED: Semaphore = Semaphore::const_new(MAX_EVALUATIONS);
/// Longest that FHIRPath may take for a page; then it is a shorter one.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Most times that so many are looked at for a request that waits.
const MAX_PAGES: usize = 100;
/// Longest that a request may wait.
const MAX_WAIT: Duration = Duration::from_mins(5);
/// How many bytes of bodies make a HAR archive end before all that is asked for is in it.
const HAR_BYTES: usize = 64 << 20;

/// What is asked of a list of events.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Asked {
    operation: Option<String>,
    interaction: Option<String>,
    #[serde(rename = "type")]
    type_name: Option<String>,
    resource: Option<String>,
    status: Option<String>,
    client: Option<String>,
    trace: Option<String>,
    /// Events after this one.
    pub(super) since: Option<String>,
    /// Events up to this one.
    until: Option<String>,
    /// Events before this one.
    pub(super) before: Option<String>,
    pub(super) order: Option<String>,
    limit: Option<usize>,
    /// FHIRPath that must hold of the request's resource.
    request: Option<String>,
    /// The same of the response's.
    response: Option<String>,
    pub(super) wait: Option<String>,
    at_least: Option<usize>,
}

/// The same, understood.
#[derive(Clone)]
pub(super) struct Wanted {
    pub filter: Filter,
    /// First and last event.
    pub span: (EventId, EventId),
    pub newest_first: bool,
    pub limit: usize,
    /// What must hold of the request's resource, and of the response's.
    pub request: Option<Expression>,
    pub response: Option<Expression>,
    pub version: FhirVersion,
}

pub(super) fn bad(message: String) -> Failure {
    Failure::new(Kind::BadValue, message)
}

impl Asked {
    fn named(&mut self) -> [(&'static str, &mut Option<String>); 11] {
        [
            ("operation", &mut self.operation),
            ("interaction", &mut self.interaction),
            ("type", &mut self.type_name),
            ("resource", &mut self.resource),
            ("status", &mut self.status),
            ("client", &mut self.client),
            ("trace", &mut self.trace),
            ("since", &mut self.since),
            ("until", &mut self.until),
            ("request", &mut self.request),
            ("response", &mut self.response),
        ]
    }

    /// What a form asks for: a field that is left empty asks for nothing, and the newest come first.
    pub(super) fn of_form(mut self, limit: usize) -> Self {
        self.named().into_iter().for_each(|(_, value)| *value = value.take().filter(|v| !v.trim().is_empty()));
        Self { order: None, wait: None, limit: Some(limit), ..self }
    }

    /// What is asked for, page by page to its end.
    pub(super) fn in_pages(self) -> Result<Self> {
        match (&self.before, self.limit) {
            (Some(_), _) => Err(bad("before is for pages of a list; until says where to end".to_owned())),
            (None, Some(_)) => Err(bad("limit is for pages of a list; since and until say which events are meant".to_owned())),
            (None, None) => Ok(Self { limit: Some(MAX_PAGE), ..self }),
        }
    }

    /// What is asked for, as it stands in a URL.
    pub(super) fn filters(&self) -> Vec<(&'static str, String)> {
        self.clone().named().into_iter().filter_map(|(name, value)| Some((name, value.take()?))).collect()
    }

    pub(super) fn wanted(&self, sim: &Sim) -> Result<Wanted> {
        let list = |text: &Option<String>| text.as_deref().unwrap_or_default().split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let interactions = list(&self.interaction).iter().map(|name| known_interaction(name).map(str::to_owned).map_err(bad)).collect::<Result<_>>()?;
        let facts = [
            (Fact::Interaction, interactions),
            (Fact::Type, list(&self.type_name)),
            (Fact::Resource, list(&self.resource)),
            (Fact::Client, list(&self.client)),
            (Fact::Trace, list(&self.trace)),
        ];
        let facts = facts.into_iter().filter(|(_, values)| !values.is_empty()).collect();
        let operations = list(&self.operation).iter().map(|name| operation(name)).collect::<Result<_>>()?;
        let statuses = list(&self.status).iter().map(|text| statuses(text)).collect::<Result<_>>()?;
        let newest_first = match self.order.as_deref() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => return Err(bad(format!("order '{}' is not desc, newest first, or asc", clip(other)))),
        };
        let from = self.since.as_deref().map_or(Ok(EventId::ZERO), |text| since(text, sim))?;
        let mut to = self.until.as_deref().map_or(Ok(EventId::from_u64(u64::MAX)), |text| until(text, sim))?;
        if let Some(before) = &self.before {
            to = to.min(EventId::from_u64(event_id(before)?.to_u64().saturating_sub(1)));
        }
        let version = sim.profile().version();
        let expression = |text: &Option<String>, name: &str| {
            let compiled = text.as_deref().map(|text| Expression::compile(text, "", Definitions::of(version)));
            compiled
                .transpose()
                .map_err(|e| bad(format!("{name} '{}' is not a FHIRPath that can be evaluated: {e}", clip(text.as_deref().unwrap_or_default()))))
        };
        Ok(Wanted {
            filter: Filter { operations, statuses, facts },
            span: (from, to),
            newest_first,
            limit: self.limit.unwrap_or(PAGE).min(MAX_PAGE),
            request: expression(&self.request, "request")?,
            response: expression(&self.response, "response")?,
            version,
        })
    }

    /// How long to wait, and for how many.
    fn wait(&self) -> Result<Option<(Duration, usize)>> {
        let (at_least, limit) = (self.at_least.unwrap_or(1).max(1), self.limit.unwrap_or(PAGE).min(MAX_PAGE));
        if self.wait.is_some() && at_least > limit {
            return Err(bad(format!("atLeast {at_least} is more than the limit of a page, {limit}")));
        }
        let Some(text) = self.wait.as_deref() else { return Ok(None) };
        let wait = duration(text)?;
        if wait > MAX_WAIT {
            return Err(bad(format!("wait '{}' is longer than {} minutes; ask again when it is over", clip(text), MAX_WAIT.as_secs() / 60)));
        }
        Ok(Some((wait, at_least)))
    }
}

fn operation(name: &str) -> Result<Operation> {
    let found = Operation::ALL.into_iter().find(|o| o.directory().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let known: Vec<&str> = Operation::ALL.iter().map(|o| o.directory()).collect();
        bad(format!("operation '{}' is not one of {}", clip(name), known.join(", ")))
    })
}

/// `404` or `4xx`.
fn statuses(text: &str) -> Result<(u16, u16)> {
    let class = text.to_ascii_lowercase();
    let range = match class.strip_suffix("xx").and_then(|c| c.parse::<u16>().ok()) {
        Some(class @ 1..=5) => Some((class * 100, class * 100 + 99)),
        _ => class.parse().ok().filter(|status| *status == 0 || (100..600).contains(status)).map(|status| (status, status)),
    };
    range.ok_or_else(|| bad(format!("status '{}' is neither a status such as 404 nor a class such as 4xx", clip(text))))
}

/// `30s`, `500ms`, `2m`.
fn duration(text: &str) -> Result<Duration> {
    let found = crate::clock::duration(text).map(Duration::from_millis);
    found.ok_or_else(|| bad(format!("wait '{}' is no duration such as 500ms, 30s or 2m", clip(text))))
}

/// The first event after what `text` names.
fn since(text: &str, sim: &Sim) -> Result<EventId> {
    moment(text, sim).map(|(event, is_instant)| if is_instant { event } else { EventId::from_u64(event.to_u64().saturating_add(1)) })
}

/// The last event up to what `text` names.
pub(super) fn until(text: &str, sim: &Sim) -> Result<EventId> {
    // A plus that a client forgot to encode arrives as a blank.
    let text = &text.replace(' ', "+");
    match instant::parse(text).filter(|_| text.parse::<EventId>().is_err()) {
        Some(interval) => Ok(EventId::from_u64(EventId::first_of(interval.high.div_euclid(1_000)).to_u64().saturating_sub(1))),
        None => moment(text, sim).map(|(event, _)| event),
    }
}

/// Where the moment that `text` names begins.
pub(super) fn begins(text: &str, sim: &Sim) -> Result<EventId> {
    moment(text, sim).map(|(event, _)| event)
}

/// The event or the marker that `text` names, or the first event of an instant.
fn moment(text: &str, sim: &Sim) -> Result<(EventId, bool)> {
    if let Some(name) = text.strip_prefix("marker:") {
        return Ok((sim.marker(name)?, false));
    }
    if let Ok(event) = text.parse() {
        return Ok((event, false));
    }
    let interval = instant::parse(&text.replace(' ', "+"));
    let hint = "an event's id such as 2026_11_21_20_41_07_123, an instant such as 2026-11-21T20:41:07Z, or marker:<name>";
    let interval = interval.ok_or_else(|| bad(format!("'{}' is not {hint}", clip(text))))?;
    Ok((EventId::first_of(interval.low.div_euclid(1_000)), true))
}

/// A page of events.
pub(super) struct Events {
    /// What they are, with their operation and the folder below the simulator's.
    pub shown: Vec<Value>,
    /// Where the next page begins, if there is one.
    pub next: Option<EventId>,
}

impl Wanted {
    /// The page, and where the next one begins.
    pub(super) fn page(&self, sim: &Sim) -> Result<Events> {
        let picky = self.request.is_some() || self.response.is_some();
        let many = |_| Failure::new(Kind::TooMany, format!("{MAX_EVALUATIONS} lists of events are being filtered by FHIRPath; try again when they are done"));
        let _one = if picky { Some(FILTERED.try_acquire().map_err(many)?) } else { None };
        let most = if picky { EXAMINED } else { self.limit };
        let unreadable = |e| crate::sim::storage_failure("the events cannot be listed", &e);
        // Oldest first, one goes on after the last: what is on its way must not come before it.
        let span = (self.span.0, if self.newest_first { self.span.1 } else { self.span.1.min(sim.settled()) });
        let candidates = sim.find_events(&self.filter, span, self.newest_first, most).map_err(unreadable)?;
        let (begun, mut shown) = (Instant::now(), Vec::new());
        let mut last = None;
        let full = candidates.len() == most;
        for (event, operation) in candidates {
            if shown.len() == self.limit || last.is_some() && begun.elapsed() > MAX_TIME {
                return Ok(Events { shown, next: last });
            }
            last = Some(event);
            // One that is damaged, or was removed meanwhile, is not there.
            let Ok(record) = scan::record(sim.dir_of(event), operation, event) else { continue };
            if self.filter.holds(operation, &record) && self.agrees(sim, operation, event, &record) {
                let mut value = listed(&record, operation);
                if sim.is_inherited(event) {
                    value["inherited"] = true.into();
                    value["folder"] = Value::Null;
                }
                shown.push(value);
            }
        }
        Ok(Events { shown, next: last.filter(|_| full && self.limit > 0) })
    }

    /// A page with so many events, if there are as many: of one that waits for some, what is further back counts as well.
    fn enough(&self, sim: &Sim, at_least: usize) -> Result<Events> {
        let begun = Instant::now();
        let mut page = self.page(sim)?;
        for _ in 0..MAX_PAGES {
            let (Some(last), true) = (page.next, page.shown.len() < at_least && begun.elapsed() < MAX_TIME) else { break };
            let (from, to) = self.span;
            let span = if self.newest_first { (from, EventId::from_u64(last.to_u64().saturating_sub(1))) } else { (EventId::from_u64(last.to_u64() + 1), to) };
            let more = Self { span, limit: self.limit - page.shown.len(), ..self.clone() }.page(sim)?;
            page.shown.extend(more.shown);
            page.next = more.next;
        }
        Ok(page)
    }

    /// Whether FHIRPath holds of the resources of an exchange.
    fn agrees(&self, sim: &Sim, operation: Operation, event: EventId, record: &EventRecord) -> bool {
        let holds = |expression: &Option<Expression>, file: Option<&String>| {
            let Some(expression) = expression else { return true };
            let Some(file) = file else { return false };
            let path = sim.dir_of(event).event(operation, event).join(file);
            if fs::metadata(&path).map_or(true, |m| m.len() > MAX_BYTES) {
                return false;
            }
            // To read it takes more than it is long, too.
            let _turn = limits::FILTERS.take();
            let Some(resource) = resource(&path, self.version) else { return false };
            let type_name = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default();
            let found = expression.evaluate(&resource, type_name).unwrap_or_default();
            // What is there holds, unless it is the word false.
            found.iter().any(|(value, _)| *value != Value::Bool(false))
        };
        holds(&self.request, record.request.body.as_ref()) && holds(&self.response, record.response.body.as_ref())
    }

    /// Whether something that happens now is wanted.
    pub(super) fn wants(&self, sim: &Sim, row: &Row, record: &EventRecord) -> bool {
        (self.span.0..=self.span.1).contains(&row.event) && self.filter.holds(row.operation, record) && self.agrees(sim, row.operation, row.event, record)
    }
}

/// A body as a resource.
fn resource(file: &PathBuf, version: FhirVersion) -> Option<Value> {
    let bytes = fs::read(file).ok()?;
    if file.extension().is_some_and(|e| e == "xml") {
        let converted = xml::from_xml(&bytes, version).ok()?;
        return serde_json::from_str(&converted).ok();
    }
    serde_json::from_slice(&bytes).ok()
}

/// An event as a list shows it.
pub(super) fn listed(record: &EventRecord, operation: Operation) -> Value {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    value["operation"] = operation.directory().into();
    value["folder"] = format!("fhir/{}/{}", operation.directory(), record.event).into();
    value
}

/// The events before and after one, if there are any.
pub(super) fn neighbours(sim: &Sim, event: EventId) -> (Option<EventId>, Option<EventId>) {
    let one = |span, newest_first| sim.find_events(&Filter::default(), span, newest_first, 1).ok().and_then(|found| found.first().map(|(event, _)| *event));
    let before = one((EventId::ZERO, EventId::from_u64(event.to_u64().saturating_sub(1))), true);
    let after = one((EventId::from_u64(event.to_u64().saturating_add(1)), EventId::from_u64(u64::MAX)), false);
    (before, after)
}

/// `GET /api/sims/{id}/events`.
pub async fn events(app: Data<App>, id: Path<String>, asked: Query<Asked>) -> HttpResponse {
    match listed_when_there(app, id.into_inner(), asked.into_inner()).await {
        Ok(answer) => answer.into_response(None, None, false),
        Err(failure) => respond::failure(&failure, FhirVersion::default()),
    }
}

async fn listed_when_there(app: Data<App>, id: String, asked: Asked) -> Result<Answer> {
    let id: SimId = id.parse()?;
    let wait = asked.wait()?;
    let mut listening = if wait.is_some() { Some(Listening::begin(&app, &id)?) } else { None };
    let (longest, at_least) = wait.unwrap_or_default();
    let deadline = Instant::now() + longest;
    let is_picky = asked.request.is_some() || asked.response.is_some();
    let asked = Arc::new(asked);
    loop {
        let (registry, of, asked) = (app.registry.clone(), id.clone(), asked.clone());
        let work = move || registry.read(&of, |sim| asked.wanted(sim)?.enough(sim, if longest.is_zero() { 0 } else { at_least }));
        let one = if is_picky { EVALUATING.acquire().await.ok() } else { None };
        let page = web::block(work).await.map_err(|e| Failure::new(Kind::Internal, e.to_string()))??;
        drop(one);
        let value = |page: Events| json!({"events": page.shown, "next": page.next.map(|e| e.to_string())});
        let Some(listening) = &mut listening else { return Ok(Answer::json(200, &value(page))) };
        if page.shown.len() >= at_least {
            return Ok(Answer::json(200, &value(page)));
        }
        match timeout_at(deadline, listening.news()).await {
            Ok(true) => {}
            // Deleted; perhaps there is another of the name now.
            Ok(false) if !listening.is_stopping() => *listening = Listening::begin(&app, &id)?,
            Ok(false) | Err(_) => {
                let mut value = value(page);
                value["timedOut"] = true.into();
                return Ok(Answer::json(200, &value));
            }
        }
    }
}

/// How an event is to be shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Showing {
    /// `bodies`: the bodies, too.
    include: Option<String>,
    /// `curl`, `http`, `har`: the request for other tools.
    r#as: Option<String>,
}

/// `GET /api/sims/{id}/events/{event}`: the record, and the names of the files.
pub async fn event(request: HttpRequest, app: Data<App>, path: Path<(String, String)>, showing: Query<Showing>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let (id, event) = path.into_inner();
        app.registry.read(&id.parse()?, |sim| one(sim, &event, &showing, &origin))
    })
    .await
}

fn one(sim: &Sim, event: &str, showing: &Showing, origin: &str) -> Result<Answer> {
    let (folder, record) = folder(sim, event)?;
    let text = |text: String| Ok(Answer::of(200, "text/plain; charset=utf-8", text.into_bytes()).with("x-content-type-options", "nosniff"));
    match showing.r#as.as_deref() {
        None => {}
        Some("curl") => return text(again::curl(origin, &record, &folder)),
        Some("http") => return text(again::http(origin, &record, &folder)),
        Some("har") => return Ok(Answer::json(200, &again::har(&[again::har_entry(origin, &record, &folder)], None))),
        Some(other) => return Err(bad(format!("as '{}' is not curl, http or har", clip(other)))),
    }
    let mut value = shown(&record, &folder, sim.is_inherited(event_id(event)?))?;
    match showing.include.as_deref() {
        None => {}
        Some("bodies") => add_bodies(&mut value, &record, &folder),
        Some(other) => return Err(bad(format!("include '{}' is not bodies", clip(other)))),
    }
    Ok(Answer::json(200, &value))
}

fn shown(record: &EventRecord, folder: &PathBuf, is_inherited: bool) -> Result<Value> {
    let mut value = serde_json::to_value(record).unwrap_or_default();
    // As the list has it.
    let operation = folder.parent().and_then(|parent| parent.file_name()).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    value["folder"] = if is_inherited { Value::Null } else { format!("fhir/{operation}/{}", record.event).into() };
    value["operation"] = operation.into();
    if is_inherited {
        value["inherited"] = true.into();
    }
    value["path"] = std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string().into();
    value["files"] = files(folder)?.into();
    Ok(value)
}

fn add_bodies(value: &mut Value, record: &EventRecord, folder: &std::path::Path) {
    value["request"]["text"] = body_text(folder, record.request.body.as_ref());
    value["response"]["text"] = body_text(folder, record.response.body.as_ref());
    let resources = record.resources.iter().map(|r| body_text(folder, r.file.as_ref()));
    resources.enumerate().for_each(|(n, text)| value["resources"][n]["text"] = text);
}

/// An event with its bodies, and that of the request as it was sent.
pub(super) fn with_bodies(sim: &Sim, event: &str) -> Result<(Value, Vec<u8>)> {
    let (folder, record) = folder(sim, event)?;
    let mut value = shown(&record, &folder, false)?;
    add_bodies(&mut value, &record, &folder);
    let sent = record.request.body.as_ref().map_or(Ok(Vec::new()), |file| fs::read(folder.join(file)));
    Ok((value, sent.map_err(|e| crate::sim::storage_failure("the body of the event cannot be read", &e))?))
}

/// A body as text; null if there is none, or it is no text, or long.
fn body_text(folder: &std::path::Path, file: Option<&String>) -> Value {
    again::text_of(folder, file).map_or(Value::Null, Value::from)
}

/// The names of the files of an event folder.
pub(super) fn files(folder: &PathBuf) -> Result<Vec<String>> {
    let listed = fs::read_dir(folder).map_err(|e| crate::sim::storage_failure("the event cannot be read", &e))?;
    let mut names: Vec<String> = listed.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// The folder of an event and its record.
pub(super) fn folder(sim: &Sim, event: &str) -> Result<(PathBuf, EventRecord)> {
    let event = event_id(event)?;
    let dir = sim.dir_of(event);
    let operation = scan::find(dir, event).ok_or_else(|| Failure::new(Kind::NotFound, format!("simulator {} has no event {event}", sim.id())))?;
    let record = scan::record(dir, operation, event).map_err(|d| Failure::new(Kind::Damaged, format!("event {}: {}", d.folder, d.reason)))?;
    Ok((dir.event(operation, event), record))
}

/// `GET /api/sims/{id}/events/{event}/files/{file}`: a file as it lies there.
pub async fn event_file(app: Data<App>, path: Path<(String, String, String)>) -> HttpResponse {
    answer(move || {
        let (id, event, file) = path.into_inner();
        app.registry.read(&id.parse()?, |sim| {
            let (folder, _) = folder(sim, &event)?;
            // Only a name that the folder lists is a name: no path is made of the client's text.
            let name = files(&folder)?.into_iter().find(|name| *name == file);
            let name = name.ok_or_else(|| Failure::new(Kind::NotFound, format!("event {event} has no file '{}'", clip(&file))))?;
            let bytes = fs::read(folder.join(&name)).map_err(|e| crate::sim::storage_failure("the file cannot be read", &e))?;
            let content_type = if name == RECORD || name.ends_with(".json") { "application/json" } else { "application/octet-stream" };
            Ok(Answer::of(200, content_type, bytes).with("x-content-type-options", "nosniff"))
        })
    })
    .await
}

/// `GET /api/sims/{id}/har`: the events that are asked for, oldest first, as a HAR archive.
pub async fn har(request: HttpRequest, app: Data<App>, id: Path<String>, asked: Query<Asked>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        if asked.wait.is_some() {
            return Err(bad("an archive is of what happened; wait for events by the list".to_owned()));
        }
        app.registry.read(&id.parse()?, |sim| archived(sim, &asked, &origin))
    })
    .await
}

fn archived(sim: &Sim, asked: &Asked, origin: &str) -> Result<Answer> {
    let mut wanted = asked.wanted(sim)?;
    wanted.newest_first = asked.order.as_deref() == Some("desc");
    let entry = |shown: &Value| {
        let (folder, record) = folder(sim, shown["event"].as_str()?).ok()?;
        Some(again::har_entry(origin, &record, &folder))
    };
    let page = wanted.page(sim)?;
    let (mut entries, mut bytes, mut next) = (Vec::new(), 0, page.next);
    for shown in &page.shown {
        if bytes > HAR_BYTES {
            next = entries.len().checked_sub(1).and_then(|last| page.shown[last]["event"].as_str()?.parse().ok());
            break;
        }
        let entry = entry(shown);
        bytes += entry.as_ref().map_or(0, again::texts_of);
        entries.push(entry);
    }
    let entries: Vec<Value> = entries.into_iter().flatten().collect();
    let name = format!("attachment; filename=\"{}.har\"", sim.id());
    Ok(Answer::json(200, &again::har(&entries, next)).with("content-disposition", name))
}

/// Which moments to compare.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/sims/{id}/diff?from=…&to=…`: what changed between two moments; from the beginning, and up to now, unless said.
pub async fn diff(app: Data<App>, id: Path<String>, asked: Query<Compared>) -> HttpResponse {
    answer(move || app.registry.read(&id.parse()?, |sim| compared(sim, &asked))).await
}

fn compared(sim: &Sim, asked: &Compared) -> Result<Answer> {
    let from = asked.from.as_deref().map_or(Ok(EventId::ZERO), |text| until(text, sim))?;
    for moment in [&asked.from, &asked.to].into_iter().flatten() {
        context::refuse_forgotten(until(moment, sim)?, moment, sim)?;
    }
    let snapshot = sim.snapshot();
    // A moment after the last event is one up to which nothing has changed since.
    let to = asked.to.as_deref().map_or(Ok(snapshot.last_event().max(from)), |text| until(text, sim))?;
    if from > to {
        return Err(bad(format!("from, {from}, is after to, {to}")));
    }
    let most = asked.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let mut found = changes::between(&snapshot, from, to, asked.after.as_deref(), most)?;
    (found["from"], found["to"]) = (from.to_string().into(), to.to_string().into());
    Ok(Answer::json(200, &found))
}

/// The name of a marker.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Naming {
    name: String,
}

/// Does `work` on a simulator; on its successor, if it was sealed or reset just then.
fn on_current<T>(app: &App, id: &str, work: impl Fn(&Sim) -> Result<T>) -> Result<T> {
    let id: SimId = id.parse()?;
    loop {
        let sim = app.registry.get(&id)?;
        match work(&sim) {
            Err(_) if sim.is_over() && app.registry.get_if_open(&id).is_none_or(|now| !Arc::ptr_eq(&now, &sim)) => {}
            done => return done,
        }
    }
}

/// `POST /api/sims/{id}/markers`: gives this moment a name.
pub async fn mark(app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    answer(move || {
        let hint = "send {\"name\":\"before-login\"}";
        let naming: Naming = serde_json::from_slice(&body).map_err(|e| bad(format!("the body cannot be read: {e}; {hint}")))?;
        let marker = on_current(&app, &id, |sim| sim.mark(&naming.name))?;
        Ok(Answer::json(201, &json!(marker)))
    })
    .await
}

/// `GET /api/sims/{id}/markers`.
pub async fn markers(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || Ok(Answer::json(200, &json!({"markers": app.registry.read(&id.parse()?, |sim| Ok(sim.markers()))?})))).await
}

/// `DELETE /api/sims/{id}/markers/{name}`.
pub async fn unmark(app: Data<App>, path: Path<(String, String)>) -> HttpResponse {
    answer(move || {
        let (id, name) = path.into_inner();
        on_current(&app, &id, |sim| sim.unmark(&name))?;
        Ok(Answer { status: 204, ..Answer::default() })
    })
    .await
}

pub(super) fn event_id(text: &str) -> Result<EventId> {
    text.parse().map_err(|()| bad(format!("'{}' is not the id of an event, such as 2026_11_21_20_41_07_123", clip(text))))
}
