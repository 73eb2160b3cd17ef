//! Which simulator a request is for: decoded from the URL, per request, with no state outside the request.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, web};

use super::bulk::Knobs;
use super::events::{begins, until};
use super::{App, Options, access, routes};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::sim::registry::Wanted;
use crate::sim::templates;
use crate::sim::{Sim, Snapshot};
use crate::simdb::SimId;

/// The simulator, and how the client addresses it.
#[derive(Debug)]
pub struct SimContext {
    /// The simulator.
    pub sim: Arc<Sim>,
    /// `http://127.0.0.1:8080/sim/lab__one/fhir`.
    pub base: String,
    /// What is asked for below the simulator.
    pub mount: Mount,
    /// What a segment of the URL tells exports and tokens to be like.
    pub knobs: Option<Knobs>,
    /// What `base` is without `/fhir`.
    pub root: String,
    /// The path below that, as it came.
    pub tail: String,
    /// The last event that is looked at, if the URL names a moment: `/sim/lab__one@2026-11-26T10:00:00Z/fhir`.
    pub at: Option<EventId>,
}

/// What there is below a simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mount {
    /// The FHIR endpoint.
    Fhir,
    /// Registration of clients, and tokens.
    Auth,
    /// Exports: their status and files.
    Bulk,
}

impl Mount {
    fn of(segment: &str) -> Option<Self> {
        match segment {
            "fhir" => Some(Self::Fhir),
            "auth" => Some(Self::Auth),
            "bulk" => Some(Self::Bulk),
            _ => None,
        }
    }
}

impl SimContext {
    /// Finds the simulator that `/sim/<id>/fhir/...` names, opening or (if told so) making it.
    ///
    /// # Errors
    /// The name is malformed or unknown, or nothing is mounted there.
    pub async fn of(request: &HttpRequest, app: &web::Data<App>) -> Result<Self, Failure> {
        let path = request.uri().path().strip_prefix("/sim/").unwrap_or_default();
        let (name, rest) = path.split_once('/').unwrap_or((path, ""));
        let decoded = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let (decoded, moment) = match decoded.split_once('@') {
            Some((id, moment)) => (id, Some(moment)),
            None => (&*decoded, None),
        };
        let id: SimId = decoded.parse()?;
        let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
        // What an export shall be like may stand before all else: `/sim/lab__one/eyJkdXIiOjEwfQ/fhir`.
        let knobs = if Mount::of(first).is_none() { Knobs::of(first) } else { None };
        let (mount, tail) = if knobs.is_some() { after.split_once('/').unwrap_or((after, "")) } else { (first, after) };
        let origin = origin(request, &app.options);
        let Some(mount) = Mount::of(mount) else {
            return Err(Failure::new(Kind::NotFound, format!("simulator {id} has nothing at '/{}'; its FHIR endpoint is {origin}/sim/{id}/fhir", clip(mount))));
        };
        access::may_call(request, &id, app, false)?;
        let sim = if let Some(sim) = app.registry.get_if_open(&id) {
            sim
        } else {
            let may_make = access::may_call(request, &id, app, true);
            open(app.clone(), id.clone(), may_make).await.map_err(|f| say_how(f, &id, &origin))?
        };
        let at = moment.map(|moment| until(moment, &sim)).transpose()?;
        // Of a second or a day that is not over yet, what there is so far.
        let now = EventId::from_u64(EventId::first_of(sim.now_ms() + 1).to_u64() - 1);
        // What was imported may be ahead of the clock, and so is what comes after it.
        let now = now.max(sim.snapshot().last_event());
        let at = at.map(|event| if moment.is_some_and(|m| begins(m, &sim).is_ok_and(|begin| begin <= now)) { event.min(now) } else { event });
        if let (Some(event), Some(moment)) = (at, moment)
            && event > now
        {
            return Err(Failure::new(
                Kind::BadValue,
                format!("'{}' lies in the future; simulator {id} can be seen as it was, not as it will be", clip(moment)),
            ));
        }
        if let (Some(event), Some(moment)) = (at, moment) {
            refuse_forgotten(event, moment, &sim)?;
        }
        let root = if knobs.is_some() { format!("{origin}/sim/{name}/{first}") } else { format!("{origin}/sim/{name}") };
        Ok(Self { sim, mount, knobs, base: format!("{root}/fhir"), root, tail: tail.to_owned(), at })
    }

    /// The simulator as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.sim.snapshot()
    }
}

/// Refuses a moment of which retention has left nothing to look at.
pub(super) fn refuse_forgotten(event: EventId, moment: &str, sim: &Sim) -> Result<(), Failure> {
    if event >= sim.horizon() {
        return Ok(());
    }
    let message = format!(
        "'{}' lies before {}, and simulator {} remembers nothing from before that: its setting retention says so",
        clip(moment),
        sim.horizon().instant(),
        sim.id()
    );
    Err(Failure::new(Kind::Deleted, message))
}

/// Opening reads the disk, so it leaves the thread that serves others.
async fn open(app: web::Data<App>, id: SimId, may_make: Result<(), Failure>) -> Result<Arc<Sim>, Failure> {
    let opened = web::block(move || match app.registry.get(&id) {
        // A template comes from an archive, or is made on purpose.
        Err(f) if f.kind == Kind::UnknownSimulator && app.options.auto_create && id.session() != templates::SESSION => {
            may_make?;
            match app.registry.create(&id, &Wanted::default()) {
                // Another request was first.
                Err(f) if f.kind == Kind::Conflict => app.registry.get(&id),
                Err(f) => Err(f),
                Ok(()) => app.registry.get(&id),
            }
        }
        other => other,
    });
    opened.await.unwrap_or_else(|e| Err(Failure::new(Kind::Internal, e.to_string())))
}

fn say_how(failure: Failure, id: &SimId, origin: &str) -> Failure {
    if failure.kind != Kind::UnknownSimulator {
        return failure;
    }
    let message = format!("{}; to create it: curl -X PUT {origin}/api/sims/{id}", failure.diagnostics);
    Failure { diagnostics: message, ..failure }
}

/// `http://host:port` as the client sees this server.
#[must_use]
pub fn origin(request: &HttpRequest, options: &Options) -> String {
    if let Some(url) = &options.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let forwarded = [header::FORWARDED.as_str(), "x-forwarded-host", "x-forwarded-proto"];
    if forwarded.iter().any(|name| request.headers().contains_key(*name)) {
        let info = request.connection_info();
        let prefix = routes::text(request, "x-forwarded-prefix").unwrap_or_default().trim_end_matches('/');
        if is_host(info.host()) && matches!(info.scheme(), "http" | "https") {
            return format!("{}://{}{}", info.scheme(), info.host(), if prefix.starts_with('/') { prefix } else { "" });
        }
    }
    match routes::text(request, header::HOST) {
        Some(host) if is_host(host) => format!("http://{host}"),
        _ => format!("http://{}", options.addr),
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.len() < 300 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']' | b'_'))
}
