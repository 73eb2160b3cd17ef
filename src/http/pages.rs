//! The pages for people. Every value is escaped by tera; there is no script.

use std::fs;

use actix_web::web::{Data, Form, Path, Query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};
use tera::{Context, Tera};

use super::respond::Answer;
use super::{App, context, events};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::interaction::status;
use crate::sim::registry::Wanted;
use crate::simdb::SimId;

/// Events on a simulator's page, simulators on the first page.
const SHOWN: usize = 50;
/// Stored resources that an event's page names.
const SHOWN_RESOURCES: usize = 20;
/// Most bytes of a file that a page shows.
const SHOWN_BYTES: usize = 200_000;
/// What a page may do: nothing but show itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

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
            ("event.html", include_str!("../../templates/event.html")),
            ("failure.html", include_str!("../../templates/failure.html")),
        ];
        tera.add_raw_templates(templates).map_err(|e| e.to_string())?;
        Ok(Self(tera))
    }

    fn render(&self, status: u16, name: &str, values: Value) -> Answer {
        let mut context = Context::new();
        if let Value::Object(members) = plain(values) {
            for (key, value) in members {
                context.insert(key, &value);
            }
        }
        match self.0.render(name, &context) {
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

fn refusal(app: &App, failure: &Failure) -> Answer {
    app.pages.render(status::of_failure(failure.kind), "failure.html", json!({"message": failure.diagnostics}))
}

/// Which part of the list.
#[derive(Debug, Deserialize)]
pub struct Part {
    after: Option<String>,
    session: Option<String>,
}

/// `/`.
pub async fn index(request: HttpRequest, app: Data<App>, part: Query<Part>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    page(app, move |app| {
        let (sims, total) = app.registry.list(part.session.as_deref(), part.after.as_deref(), SHOWN);
        let next = (sims.len() == SHOWN).then(|| sims.last().map(|s| s.id.clone())).flatten();
        let shown: Vec<Value> = sims
            .iter()
            .map(|s| {
                json!({"id": s.id, "session": s.session, "base": format!("{origin}/sim/{}/fhir", s.id), "version": s.profile.fhir_version,
                    "events": s.event_count, "resources": s.counts.values().sum::<u64>()})
            })
            .collect();
        let versions: Vec<&str> = FhirVersion::ALL.iter().map(|v| v.name()).collect();
        Ok(app.pages.render(200, "index.html", json!({"sims": shown, "total": total, "next": next, "session": part.session, "versions": versions})))
    })
    .await
}

/// The form on the first page.
#[derive(Debug, Deserialize)]
pub struct NewSim {
    session: String,
    name: String,
    version: String,
}

/// `POST /`: makes a simulator.
pub async fn create(app: Data<App>, form: Form<NewSim>) -> HttpResponse {
    page(app, move |app| {
        let id: SimId = format!("{}__{}", form.session.trim(), form.name.trim()).parse()?;
        app.registry.create(&id, &Wanted { fhir_version: Some(form.version.parse()?), ..Wanted::default() })?;
        Ok(Answer { status: 303, ..Answer::default() }.with("location", format!("/sims/{id}")))
    })
    .await
}

/// Which events.
#[derive(Debug, Deserialize)]
pub struct Before {
    before: Option<String>,
}

/// `/sims/{id}`.
pub async fn sim(request: HttpRequest, app: Data<App>, id: Path<String>, before: Query<Before>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    page(app, move |app| {
        let id: SimId = id.parse()?;
        let sim = app.registry.get(&id)?;
        let summary = app.registry.summary(&id)?;
        let page = events::newest(&sim, before.before.clone(), SHOWN)?;
        let shown: Vec<Value> = page
            .shown
            .iter()
            .map(|e| {
                let stored = e["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                let resources: Vec<String> = stored.iter().take(3).map(|r| format!("{}/{}", text(&r["type"]), text(&r["id"]))).collect();
                json!({"id": e["event"], "instant": e["instant"], "interaction": e["interaction"], "method": e["request"]["method"], "url": e["request"]["url"],
                    "status": e["response"]["status"], "good": e["response"]["status"].as_u64() < Some(400), "resources": resources,
                    "more": stored.len().saturating_sub(3)})
            })
            .collect();
        let next = page.next.map(|e| e.to_string());
        let counts: Vec<Value> = summary.counts.iter().map(|(t, n)| json!({"type": t, "count": n})).collect();
        let log = sim.log.newest(10);
        Ok(app.pages.render(
            200,
            "sim.html",
            json!({"id": summary.id, "base": format!("{origin}/sim/{id}/fhir"), "version": summary.profile.fhir_version, "created": summary.profile.created,
                "directory": sim.dir().root().display().to_string(), "event_count": summary.event_count, "counts": counts, "events": shown, "next": next, "log": log}),
        ))
    })
    .await
}

/// `/sims/{id}/events/{event}`.
pub async fn event(app: Data<App>, path: Path<(String, String)>) -> HttpResponse {
    page(app, move |app| {
        let (id, event) = path.into_inner();
        let (folder, record) = events::folder(app, &id, &event)?;
        let mut shown = Vec::new();
        for name in events::files(&folder)? {
            let bytes = fs::read(folder.join(&name)).map_err(|e| crate::sim::storage_failure("the event cannot be read", &e))?;
            let cut = bytes.len() > SHOWN_BYTES;
            let text = std::str::from_utf8(&bytes[..bytes.len().min(SHOWN_BYTES)]).ok().map(str::to_owned);
            let text = text.map(|t| if cut || !name.ends_with(".json") { t } else { crate::fhir::raw::pretty(&t) });
            shown.push(json!({"name": name, "bytes": bytes.len(), "text": text, "cut": cut}));
        }
        let resources: Vec<Value> = record.resources.iter().take(SHOWN_RESOURCES).map(|r| json!({"uid": format!("{}/{}", r.type_name, r.id), "version": r.version_id, "change": r.change, "file": r.file})).collect();
        Ok(app.pages.render(
            200,
            "event.html",
            json!({"sim": id, "id": record.event, "instant": record.instant, "interaction": record.interaction, "method": record.request.method, "url": record.request.url,
                "status": record.response.status, "good": record.response.status < 400, "duration": record.response.duration_us, "client": record.client,
                "folder": folder.display().to_string(), "files": shown, "resources": resources, "more": record.resources.len().saturating_sub(SHOWN_RESOURCES)}),
        ))
    })
    .await
}

/// The style of all pages.
pub async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").insert_header(("cache-control", "max-age=3600")).body(include_str!("../../templates/style.css"))
}

/// Everything else.
pub async fn nothing_here(request: HttpRequest, app: Data<App>) -> HttpResponse {
    let message =
        format!("nothing is at {}; FHIR endpoints are at /sim/<session>__<name>/fhir, the list of simulators at /", crate::fhir::id::clip(request.path()));
    refusal(&app, &Failure::new(Kind::NotFound, message)).into_response(None, None, false)
}
