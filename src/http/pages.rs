//! The pages for people. Every value is escaped by tera; the one script sets text only, and they work without it.

pub mod browse;
pub mod used;

use std::fs;

use actix_web::web::{Data, Form, Path, Query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tera::{Context, Tera};

use super::access::Who;
use super::events::{self, Asked};
use super::respond::Answer;
use super::show::{self, Links, Mark};
use super::{App, again, context, faults, resend, routes};
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, xml};
use crate::interaction::status;
use crate::sim::faults::{PRESETS, Rule};
use crate::sim::registry::Wanted;
use crate::sim::{LogEntry, Settings, Sim};
use crate::simdb::{EventRecord, SimId, StoredResource};

/// Events on a simulator's page, simulators on the first page.
const SHOWN: usize = 50;
/// Stored resources that an event's page names.
const SHOWN_RESOURCES: usize = 20;
/// Most bytes of a file that a page shows.
const SHOWN_BYTES: usize = 200_000;
/// How pages look.
pub(super) const STYLE: &str = include_str!("../../templates/style.css");
/// What a page may do: show itself, with a script of this server.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The templates.
pub struct Pages(Tera);

impl Pages {
    /// Reads the templates, which are part of the binary.
    ///
    /// # Errors
    /// A template is malformed.
    pub fn new() -> Result<Self, String> {
        let mut tera = Tera::default();
        let templates = vec![
            ("base.html", include_str!("../../templates/base.html")),
            ("index.html", include_str!("../../templates/index.html")),
            ("sim.html", include_str!("../../templates/sim.html")),
            ("types.html", include_str!("../../templates/types.html")),
            ("search.html", include_str!("../../templates/search.html")),
            ("resource.html", include_str!("../../templates/resource.html")),
            ("usage.html", include_str!("../../templates/usage.html")),
            ("event.html", include_str!("../../templates/event.html")),
            ("evidence.html", include_str!("../../templates/evidence.html")),
            ("failure.html", include_str!("../../templates/failure.html")),
        ];
        tera.add_raw_templates(templates).map_err(|e| e.to_string())?;
        Ok(Self(tera))
    }

    /// The text of a page.
    pub(super) fn text(&self, name: &str, values: Value) -> Result<String, String> {
        let mut context = Context::new();
        if let Value::Object(members) = plain(values) {
            for (key, value) in members {
                context.insert(key, &value);
            }
        }
        self.0.render(name, &context).map_err(|e| e.to_string())
    }

    fn render(&self, status: u16, name: &str, values: Value) -> Answer {
        match self.text(name, values) {
            Ok(html) => Answer::of(status, "text/html; charset=utf-8", html.into_bytes())
                .with("content-security-policy", POLICY)
                .with("x-content-type-options", "nosniff")
                .with("referrer-policy", "same-origin"),
            Err(error) => {
                tracing::error!(%error, name, "a page could not be made");
                Answer::of(500, "text/plain", b"this page could not be made".to_vec())
            }
        }
    }
}

/// Numbers as text: under arbitrary precision a number is a map to whoever does not know it.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(n) => Value::String(n.to_string()),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Object(members) => Value::Object(members.into_iter().map(|(k, v)| (k, plain(v))).collect()),
        other => other,
    }
}

async fn page<F>(app: Data<App>, work: F) -> HttpResponse
where
    F: FnOnce(&App) -> Result<Answer, Failure> + Send + 'static,
{
    let made = web::block(move || work(&app).unwrap_or_else(|failure| refusal(&app, &failure)));
    made.await.unwrap_or_else(|e| Answer::of(500, "text/plain", e.to_string().into_bytes())).into_response(None, None, false)
}

pub(super) fn refusal(app: &App, failure: &Failure) -> Answer {
    app.pages.render(status::of_failure(failure.kind), "failure.html", json!({"message": failure.diagnostics}))
}

/// Which part of the list.
#[derive(Debug, Deserialize)]
pub struct Part {
    after: Option<String>,
    session: Option<String>,
}

/// `/`.
pub async fn index(request: HttpRequest, who: Who, app: Data<App>, part: Query<Part>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    page(app, move |app| {
        let session = who.listed(part.session.clone().filter(|s| !s.is_empty()), app)?;
        let (sims, total) = app.registry.list(session.as_deref(), &|session| who.sees(session, app), part.after.as_deref(), SHOWN);
        let next = (sims.len() == SHOWN).then(|| sims.last().map(|s| s.id.clone())).flatten();
        let shown: Vec<Value> = sims
            .iter()
            .map(|s| {
                json!({"id": s.id, "session": s.session, "base": format!("{origin}/sim/{}/fhir", s.id), "version": s.profile.fhir_version, "expires": s.expires,
                    "events": s.event_count, "resources": s.counts.values().sum::<u64>()})
            })
            .collect();
        let versions: Vec<&str> = FhirVersion::ALL.iter().map(|v| v.name()).collect();
        Ok(app.pages.render(
            200,
            "index.html",
            json!({"sims": shown, "total": total, "next": next, "session": session, "versions": versions, "templates": app.registry.templates()?}),
        ))
    })
    .await
}

/// The form on the first page.
#[derive(Debug, Deserialize)]
pub struct NewSim {
    session: String,
    name: String,
    version: String,
    template: Option<String>,
}

/// `POST /`: makes a simulator.
pub async fn create(who: Who, app: Data<App>, form: Form<NewSim>) -> HttpResponse {
    page(app, move |app| {
        let id: SimId = format!("{}__{}", form.session.trim(), form.name.trim()).parse()?;
        who.may_use(&id, app)?;
        match form.template.as_deref().filter(|name| !name.is_empty()) {
            // It is of the version that it is of.
            Some(template) => app.registry.create_from_template(&id, template, &Wanted::default())?,
            None => app.registry.create(&id, &Wanted { fhir_version: Some(form.version.parse()?), ..Wanted::default() })?,
        }
        Ok(Answer { status: 303, ..Answer::default() }.with("location", format!("/sims/{id}")))
    })
    .await
}

/// `/sims/{id}`.
pub async fn sim(request: HttpRequest, app: Data<App>, id: Path<String>, asked: Query<Asked>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    page(app, move |app| {
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        let summary = app.registry.summary(&id)?;
        let asked = asked.into_inner().of_form(SHOWN);
        let page = app.registry.read(&id, |sim| asked.wanted(sim)?.page(sim))?;
        let counts: Vec<Value> = summary.counts.iter().map(|(t, n)| json!({"type": t, "count": n})).collect();
        let next = page.next.map(|e| e.to_string());
        let filters = asked.filters();
        let snapshots: Vec<Value> =
            app.registry.snapshots(&id)?.iter().map(|s| json!({"name": s.name, "created": s.created, "events": s.events})).collect();
        let presets: Vec<Value> = PRESETS.iter().map(|(name, effect)| json!({"name": name, "effect": effect})).collect();
        let values = json!({"id": summary.id, "base": format!("{origin}/sim/{id}/fhir"), "version": summary.profile.fhir_version, "created": summary.profile.created, "expires": summary.expires, "horizon": summary.profile.horizon, "forgets": !summary.profile.settings.retention.is_none(),
            "directory": sim.dir().root().display().to_string(), "event_count": summary.event_count, "counts": counts,
            "events": page.shown.iter().map(|e| row(e, id.as_str())).collect::<Vec<_>>(), "log": sim.log.newest(10).iter().map(|l| read(l, id.as_str())).collect::<Vec<_>>(), "next": next,
            "older": query(filters.iter().cloned().chain(next.clone().map(|next| ("before", next)))),
            "query": query(filters.iter().cloned()),
            // Only of a page that shows the newest.
            "stream": asked.before.is_none().then(|| format!("/api/sims/{id}/stream?{}", query(filters.iter().filter(|(name, _)| *name != "since").cloned()))),
            "filtered": !filters.is_empty(), "more_asked": filters.iter().any(|(name, _)| matches!(*name, "operation" | "client" | "trace" | "until" | "response")), "asked": form(filters),
            "settings": changed(&summary.profile.settings), "rules": crate::fhir::raw::pretty(&json!(summary.profile.settings.faults).to_string()), "faults": summary.profile.settings.faults.iter().map(|f| json!(f).to_string()).collect::<Vec<_>>(),
            "snapshots": snapshots, "presets": presets, "exports": super::bulk::listed(&sim, app)});
        Ok(app.pages.render(200, "sim.html", values))
    })
    .await
}

fn query<'n>(pairs: impl Iterator<Item = (&'n str, String)>) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The fields of the form, as they were filled in.
fn form(filters: Vec<(&'static str, String)>) -> Value {
    let mut fields = json!({"interaction": "", "type": "", "resource": "", "status": "", "since": "", "request": "", "operation": "", "client": "", "trace": "", "until": "", "response": ""});
    for (name, value) in filters {
        fields[name] = value.into();
    }
    fields
}

/// An event as a row of the list.
fn row(e: &Value, sim: &str) -> Value {
    let stored = e["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let resources: Vec<String> = stored.iter().take(3).map(|r| format!("{}/{}", text(&r["type"]), text(&r["id"]))).collect();
    json!({"id": e["event"], "instant": e["instant"], "interaction": e["interaction"], "method": e["request"]["method"],
        "url": e["request"]["url"].as_str().map(|url| below(url, sim)), "status": e["response"]["status"], "good": e["response"]["status"].as_u64().is_some_and(is_good), "resources": resources,
        "more": stored.len().saturating_sub(3), "fault": e["fault"]})
}

/// A read as a row of the list.
fn read(l: &LogEntry, sim: &str) -> Value {
    json!({"instant": l.instant, "status": l.status, "good": is_good(l.status.into()), "interaction": l.interaction, "why": l.why, "method": l.method, "url": below(&l.url, sim)})
}

/// A URL without what all of a simulator's begin with.
fn below<'u>(url: &'u str, sim: &str) -> &'u str {
    let below = url.strip_prefix("/sim/").and_then(|rest| rest.strip_prefix(sim)?.strip_prefix("/fhir"));
    below.map_or(url, |below| if below.is_empty() { "/" } else { below })
}

fn is_good(status: u64) -> bool {
    (100..400).contains(&status)
}

/// The settings that are not as they are made.
fn changed(settings: &Settings) -> Vec<Value> {
    let (all, plain) = (json!(settings), json!(Settings::default()));
    let differs = |(name, value): (&String, &Value)| (name != "faults" && plain[name] != *value).then(|| json!({"name": name, "value": value}));
    all.as_object().into_iter().flatten().filter_map(differs).collect()
}

/// A button of a simulator's page.
#[derive(Debug, Deserialize)]
pub struct Pressed {
    r#do: String,
    snapshot: Option<String>,
    fault: Option<String>,
    rules: Option<String>,
}

/// Rules as somebody wrote them.
fn rules(text: &str) -> Result<Vec<Rule>, Failure> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let hint = "write a list such as [{\"match\":{\"interaction\":[\"read\"]},\"preset\":\"unavailable\"}]; docs/faults.md has all that there is";
    serde_json::from_str(text).map_err(|e| Failure::new(Kind::BadValue, format!("the rules cannot be read: {e}; {hint}")))
}

/// `POST /sims/{id}`: what a button of the page does.
pub async fn press(app: Data<App>, id: Path<String>, form: Form<Pressed>) -> HttpResponse {
    page(app, move |app| {
        let id: SimId = id.parse()?;
        let snapshot = form.snapshot.as_deref().unwrap_or_default();
        match form.r#do.as_str() {
            "snapshot" => app.registry.take_snapshot(&id, snapshot).map(drop)?,
            "reset" => app.registry.reset_to(&id, &id, snapshot)?,
            "forget" => app.registry.delete_snapshot(&id, snapshot)?,
            "rules" => faults::change(app, &id, &rules(form.rules.as_deref().unwrap_or_default())?).map(drop)?,
            "fault" => faults::change(app, &id, &[Rule { preset: form.fault.clone(), ..Rule::default() }]).map(drop)?,
            "mend" => faults::change(app, &id, &[]).map(drop)?,
            other => return Err(Failure::new(Kind::BadValue, format!("'{}' is no button of this page", crate::fhir::id::clip(other)))),
        }
        Ok(Answer { status: 303, ..Answer::default() }.with("location", format!("/sims/{id}")))
    })
    .await
}

/// `/sims/{id}/events/{event}`.
pub async fn event(request: HttpRequest, app: Data<App>, path: Path<(String, String)>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    page(app, move |app| {
        let (id, event) = path.into_inner();
        let values = app.registry.read(&id.parse()?, |sim| shown(sim, &event, &origin))?;
        Ok(app.pages.render(200, "event.html", values))
    })
    .await
}

fn shown(sim: &Sim, event: &str, origin: &str) -> Result<Value, Failure> {
    let (folder, record) = events::folder(sim, event)?;
    let version = sim.profile().version();
    let bytes_of = |name: &str| fs::metadata(folder.join(name)).map_or(0, |m| m.len());
    let files: Vec<Value> = events::files(&folder)?.iter().map(|name| json!({"name": name, "bytes": bytes_of(name)})).collect();
    let (before, after) = events::neighbours(sim, record.event.parse().unwrap_or_default());
    let mut values = exchange(&record, &folder, usize::MAX);
    let links = Links { sim: sim.id().as_str(), definitions: Definitions::of(version) };
    let marks: Vec<Mark> = values["issues"].as_array().into_iter().flatten().filter_map(mark).collect();
    let coloured = |file: Option<&String>, text: &Value, marks: &[Mark]| file.zip(text.as_str()).and_then(|(file, text)| show::body(file, text, marks, links));
    values["request_shown"] = json!(coloured(record.request.body.as_ref(), &values["request_body"], &marks));
    values["response_shown"] = json!(coloured(record.response.body.as_ref(), &values["response_body"], &[]));
    let as_json = |text: &str| if text.trim_start().starts_with('<') { xml::from_xml(text.as_bytes(), version).ok() } else { Some(text.to_owned()) };
    let sent: Option<Value> = values["request_body"].as_str().and_then(as_json).and_then(|text: String| serde_json::from_str(&text).ok());
    values["narrative"] = json!(sent.as_ref().and_then(narrative));
    values["sim"] = sim.id().as_str().into();
    values["folder"] = folder.display().to_string().into();
    values["files"] = files.into();
    values["curl"] = again::curl(origin, &record, &folder).into();
    (values["before"], values["after"]) = (json!(before.map(|e| e.to_string())), json!(after.map(|e| e.to_string())));
    Ok(values)
}

/// What an issue says, to be shown at the element that it names.
fn mark(issue: &Value) -> Option<Mark> {
    let text = |name: &str| issue[name].as_str().map(str::to_owned);
    Some(Mark { at: text("at")?, text: text("text").or_else(|| text("severity"))? })
}

/// `POST /sims/{id}/events/{event}`: sends it again, and shows what it became.
pub async fn send_again(request: HttpRequest, app: Data<App>, path: Path<(String, String)>) -> HttpResponse {
    let token = routes::text(&request, actix_web::http::header::AUTHORIZATION).map(str::to_owned);
    page(app, move |app| {
        let (id, event) = path.into_inner();
        let id: SimId = id.parse()?;
        let to = match resend::once(app, &id, &event, token)? {
            Some(became) => format!("/sims/{id}/events/{became}"),
            None => format!("/sims/{id}"),
        };
        Ok(Answer { status: 303, ..Answer::default() }.with("location", to))
    })
    .await
}

/// What a page shows of an exchange, with no more than `most` bytes of its bodies.
pub(super) fn exchange(record: &EventRecord, folder: &std::path::Path, most: usize) -> Value {
    let body = |file: Option<&String>| file.and_then(|file| Some((file.clone(), readable(&folder.join(file), most)?)));
    let (asked, answered) = (body(record.request.body.as_ref()), body(record.response.body.as_ref()));
    let shown =
        |body: &Option<(String, String)>| body.as_ref().map(|(name, text)| if name.ends_with(".json") { crate::fhir::raw::pretty(text) } else { text.clone() });
    let headers = |all: &Map<String, Value>| all.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>();
    let stored = |r: &StoredResource| json!({"uid": format!("{}/{}", r.type_name, r.id), "version": r.version_id, "change": r.change, "file": r.file});
    let resources: Vec<Value> = record.resources.iter().take(SHOWN_RESOURCES).map(stored).collect();
    json!({"id": record.event, "instant": record.instant, "interaction": record.interaction, "method": record.request.method, "url": record.request.url,
        "status": record.response.status, "good": is_good(record.response.status.into()), "duration": record.response.duration_us, "client": record.client,
        "resources": resources, "more": record.resources.len().saturating_sub(SHOWN_RESOURCES),
        "fault": record.fault, "authorization": record.authorization, "stripped": record.stripped, "issues": issues(record, answered.as_ref().map(|(_, text)| text.as_str())),
        "request_headers": headers(&record.request.headers), "response_headers": headers(&record.response.headers),
        "request_body": shown(&asked), "response_body": shown(&answered)})
}

/// The narrative of a resource, for a frame in which nothing runs and nothing is loaded.
fn narrative(resource: &Value) -> Option<String> {
    resource["text"]["div"].as_str().filter(|div| !div.is_empty() && div.len() <= SHOWN_BYTES).map(str::to_owned)
}

/// The beginning of a file as text; none if it is no text, or none is to be shown.
fn readable(path: &std::path::Path, most: usize) -> Option<String> {
    let bytes = fs::read(path).ok().filter(|_| most > 0)?;
    if bytes.len() <= SHOWN_BYTES {
        return String::from_utf8(bytes).ok();
    }
    let start = String::from_utf8_lossy(&bytes[..SHOWN_BYTES]);
    Some(format!("{start}\n… cut here; the file has the rest"))
}

/// What is wrong with what was sent: as the answer says, or as the record does.
fn issues(record: &EventRecord, answer: Option<&str>) -> Vec<Value> {
    let outcome: Value = answer.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let said = outcome["issue"].as_array().filter(|_| outcome["resourceType"] == "OperationOutcome").map_or(record.issues.as_slice(), Vec::as_slice);
    let one = |issue: &Value| {
        let at = issue["expression"].get(0).or_else(|| issue["location"].get(0)).cloned();
        let text = issue.get("diagnostics").or_else(|| issue["details"].get("text")).cloned();
        json!({"severity": issue["severity"], "bad": matches!(issue["severity"].as_str(), Some("error" | "fatal")), "at": at, "text": text})
    };
    said.iter().take(SHOWN).map(one).collect()
}

/// The script of the pages: it shows what happens as it happens.
pub async fn script() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/javascript; charset=utf-8")
        .insert_header(("cache-control", "max-age=3600"))
        .body(include_str!("../../templates/live.js"))
}

/// The style of all pages.
pub async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").insert_header(("cache-control", "max-age=3600")).body(STYLE)
}

/// Everything else.
pub async fn nothing_here(request: HttpRequest, app: Data<App>) -> HttpResponse {
    let message =
        format!("nothing is at {}; FHIR endpoints are at /sim/<session>__<name>/fhir, the list of simulators at /", crate::fhir::id::clip(request.path()));
    refusal(&app, &Failure::new(Kind::NotFound, message)).into_response(None, None, false)
}
