//! `/api`: management of simulators, and their events, for programs. Described by `openapi.json`.

use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::Who;
use super::respond::Answer;
use super::{App, context, respond};
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::sim::Summary;
use crate::sim::instant::SnapshotInfo;
use crate::sim::registry::Wanted;
use crate::simdb::{SimDir, SimId};

/// Simulators or events on a page of a list.
pub(super) const PAGE: usize = 100;
/// Most of them.
pub(super) const MAX_PAGE: usize = 1_000;

/// What a handler makes.
pub(super) type Result<T> = std::result::Result<T, Failure>;

/// Answers with what `work` makes, off the serving thread: all of it reads the disk.
pub(super) async fn answer<F>(work: F) -> HttpResponse
where
    F: FnOnce() -> Result<Answer> + Send + 'static,
{
    match web::block(work).await {
        Ok(Ok(answer)) => answer.into_response(None, None, false),
        Ok(Err(failure)) => respond::failure(&failure, FhirVersion::default()),
        Err(error) => respond::failure(&Failure::new(Kind::Internal, error.to_string()), FhirVersion::default()),
    }
}

/// `GET /api/openapi.json`.
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(include_str!("openapi.json"))
}

/// What is asked of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    session: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/sims`.
pub async fn list(request: HttpRequest, who: Who, app: Data<App>, listing: Query<Listing>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let most = listing.limit.unwrap_or(PAGE).min(MAX_PAGE);
        let session = who.listed(listing.session.clone(), &app)?;
        let (page, total) = app.registry.list(session.as_deref(), &|session| who.sees(session, &app), listing.after.as_deref(), most);
        let next = (page.len() == most && most > 0).then(|| page.last().map(|s| s.id.clone())).flatten();
        let sims: Vec<Value> = page.iter().map(|s| shown(s, &origin, &app)).collect();
        Ok(Answer::json(200, &json!({"total": total, "sims": sims, "next": next})))
    })
    .await
}

fn shown(summary: &Summary, origin: &str, app: &App) -> Value {
    let id: Option<SimId> = summary.id.parse().ok();
    let mut value = serde_json::to_value(summary).unwrap_or_default();
    if let (Value::Object(members), Some(id)) = (&mut value, id) {
        members.insert("base".into(), format!("{origin}/sim/{id}/fhir").into());
        members.insert("directory".into(), SimDir::new(app.registry.root(), &id).root().display().to_string().into());
        if let Some(sim) = app.registry.get_if_open(&id)
            && !sim.damages().is_empty()
        {
            let damaged = sim.damages().iter().map(|d| json!({"event": d.folder, "reason": d.reason}));
            members.insert("damagedEvents".into(), damaged.collect());
        }
    }
    value
}

/// A simulator, and perhaps a snapshot of it: `lab__one@loaded`.
pub(super) fn named(text: &str) -> Result<(SimId, Option<&str>)> {
    let (id, snapshot) = text.split_once('@').map_or((text, None), |(id, snapshot)| (id, Some(snapshot)));
    Ok((id.parse()?, snapshot))
}

/// What a request says a simulator shall be.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Wish {
    id: Option<String>,
    fhir_version: Option<String>,
    #[serde(rename = "type")]
    sim_type: Option<String>,
    settings: Map<String, Value>,
    /// `lab__one` or `lab__one@snapshot`: what a new one begins as.
    from: Option<String>,
    /// The template that it begins as, instead.
    template: Option<String>,
}

impl Wish {
    fn read(body: &Bytes) -> Result<Self> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if body.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Failure::new(Kind::BadValue, "the body must be a JSON object, or be left out"));
        }
        let hint = "known: fhirVersion (STU3, R4, R4B, R5), type (fhir, bulk), settings (docs/operating.md lists them), from (a simulator, or simulator@snapshot), template";
        serde_json::from_slice(body).map_err(|e| Failure::new(Kind::BadValue, format!("the body cannot be read: {e}; {hint}")))
    }

    /// Makes a simulator so.
    fn make(&self, who: &Who, app: &App, id: &SimId) -> Result<()> {
        who.may_use(id, app)?;
        let wanted = self.wanted()?;
        match (self.from.as_deref(), self.template.as_deref()) {
            (None, None) => app.registry.create(id, &wanted),
            (None, Some(template)) => app.registry.create_from_template(id, template, &wanted),
            (Some(from), None) => {
                let (from, snapshot) = named(from)?;
                who.may_use(&from, app)?;
                app.registry.clone_sim(id, &from, snapshot, &wanted)
            }
            (Some(_), Some(_)) => Err(Failure::new(Kind::BadValue, "a simulator begins as another, by from, or as a template: either, not both")),
        }
    }

    fn wanted(&self) -> Result<Wanted> {
        Ok(Wanted { fhir_version: self.fhir_version.as_deref().map(str::parse).transpose()?, sim_type: self.sim_type.clone(), settings: self.settings.clone() })
    }
}

/// `POST /api/sims`.
pub async fn create(request: HttpRequest, who: Who, app: Data<App>, body: Bytes) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let wish = Wish::read(&body)?;
        let id = wish.id.as_deref().ok_or_else(|| Failure::new(Kind::BadValue, "id is missing; send {\"id\":\"lab__one\"}"))?.parse()?;
        wish.make(&who, &app, &id)?;
        Ok(Answer::json(201, &shown(&app.registry.summary(&id)?, &origin, &app)).with("location", format!("{origin}/api/sims/{id}")))
    })
    .await
}

/// `PUT /api/sims/{id}`: made if it is not there, with the settings given either way.
pub async fn put(request: HttpRequest, who: Who, app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let id: SimId = id.parse()?;
        let wish = Wish::read(&body)?;
        if wish.id.as_deref().is_some_and(|named| named != id.as_str()) {
            return Err(Failure::new(Kind::Invalid, format!("the URL names '{id}', the body another simulator")));
        }
        let wanted = wish.wanted()?;
        let status = match wish.make(&who, &app, &id) {
            Ok(()) => 201,
            Err(f) if f.kind == Kind::Conflict && app.registry.summary(&id).is_ok() => {
                app.registry.change(&id, &wanted)?;
                200
            }
            Err(f) => return Err(f),
        };
        Ok(Answer::json(status, &shown(&app.registry.summary(&id)?, &origin, &app)))
    })
    .await
}

/// `PATCH /api/sims/{id}`: settings.
pub async fn change(request: HttpRequest, app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let id: SimId = id.parse()?;
        app.registry.change(&id, &Wish::read(&body)?.wanted()?)?;
        Ok(Answer::json(200, &shown(&app.registry.summary(&id)?, &origin, &app)))
    })
    .await
}

/// `GET /api/sims/{id}`.
pub async fn show(request: HttpRequest, app: Data<App>, id: Path<String>) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let id: SimId = id.parse()?;
        // Opened, so that what is shown is exact.
        app.registry.get(&id)?;
        Ok(Answer::json(200, &shown(&app.registry.summary(&id)?, &origin, &app)))
    })
    .await
}

/// `DELETE /api/sims/{id}`.
pub async fn delete(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || {
        app.registry.delete(&id.parse()?)?;
        Ok(Answer { status: 204, ..Answer::default() })
    })
    .await
}

/// What a simulator shall be reset to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    snapshot: Option<String>,
}

/// `POST /api/sims/{id}/reset`: to nothing, to a snapshot, or to `other__one@snapshot`.
pub async fn reset(request: HttpRequest, who: Who, app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    answer(move || {
        let id: SimId = id.parse()?;
        let reset = if body.iter().all(u8::is_ascii_whitespace) { Ok(Reset::default()) } else { serde_json::from_slice(&body) };
        let bad = |e| Failure::new(Kind::BadValue, format!("the body cannot be read: {e}; send {{\"snapshot\":\"name\"}}, or nothing to empty the simulator"));
        match reset.map_err(bad)?.snapshot {
            Some(name) => match name.split_once('@') {
                Some((of, name)) => {
                    let of = of.parse()?;
                    who.may_use(&of, &app)?;
                    app.registry.reset_to(&id, &of, name)?;
                }
                None => app.registry.reset_to(&id, &id, &name)?,
            },
            None => app.registry.reset(&id)?,
        }
        Ok(Answer::json(200, &shown(&app.registry.summary(&id)?, &origin, &app)))
    })
    .await
}

/// The name of a snapshot.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Naming {
    name: String,
}

/// `POST /api/sims/{id}/snapshots`: gives the state a name.
pub async fn take_snapshot(app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    answer(move || {
        let bad = |e| Failure::new(Kind::BadValue, format!("the body cannot be read: {e}; send {{\"name\":\"loaded\"}}"));
        let naming: Naming = serde_json::from_slice(&body).map_err(bad)?;
        Ok(Answer::json(201, &shown_snapshot(&app.registry.take_snapshot(&id.parse()?, &naming.name)?)))
    })
    .await
}

/// `GET /api/sims/{id}/snapshots`.
pub async fn snapshots(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || {
        let all: Vec<Value> = app.registry.snapshots(&id.parse()?)?.iter().map(shown_snapshot).collect();
        Ok(Answer::json(200, &json!({"snapshots": all})))
    })
    .await
}

/// `DELETE /api/sims/{id}/snapshots/{name}`.
pub async fn delete_snapshot(app: Data<App>, path: Path<(String, String)>) -> HttpResponse {
    answer(move || {
        let (id, name) = path.into_inner();
        app.registry.delete_snapshot(&id.parse()?, &name)?;
        Ok(Answer { status: 204, ..Answer::default() })
    })
    .await
}

/// Without the name of the base, which is nobody's concern.
pub(super) fn shown_snapshot(snapshot: &SnapshotInfo) -> Value {
    let mut value = serde_json::to_value(snapshot).unwrap_or_default();
    value.as_object_mut().and_then(|members| members.shift_remove("base"));
    value
}

/// `GET /api/sims/{id}/retention`: what would be removed now.
pub async fn retention(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || {
        let id = id.parse()?;
        let sim = app.registry.get(&id)?;
        let horizon = sim.profile().horizon.clone();
        Ok(Answer::json(200, &json!({"retention": sim.profile().settings.retention, "horizon": horizon, "next": app.registry.retain(&id, true)?})))
    })
    .await
}

/// `POST /api/sims/{id}/retention`: removes it now; the answer says what was removed.
pub async fn retain(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || Ok(Answer::json(200, &json!(app.registry.retain(&id.parse()?, false)?)))).await
}

/// `POST /api/sims/{id}/reindex`.
pub async fn reindex(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || {
        let events = app.registry.reindex(&id.parse()?)?;
        Ok(Answer::json(200, &json!({"events": events})))
    })
    .await
}

/// `GET /api/sims/{id}/log`: reads and searches, newest first.
pub async fn log(app: Data<App>, id: Path<String>, listing: Query<Listing>) -> HttpResponse {
    answer(move || {
        let sim = app.registry.get(&id.parse()?)?;
        Ok(Answer::json(200, &json!({"entries": sim.log.newest(listing.limit.unwrap_or(PAGE).min(MAX_PAGE))})))
    })
    .await
}

/// A method that the URL does not have.
pub async fn not_allowed(request: HttpRequest) -> HttpResponse {
    let message = format!("{} is not allowed here; GET /api/openapi.json describes what is", request.method());
    respond::failure(&Failure::new(Kind::MethodNotAllowed, message), FhirVersion::default())
}

/// Everything else below `/api`.
pub async fn nothing_here(request: HttpRequest) -> HttpResponse {
    let message = format!("{} {} is not part of the API; GET /api/openapi.json describes it", request.method(), clip(request.path()));
    respond::failure(&Failure::new(Kind::NotFound, message), FhirVersion::default())
}
