//! `/api/sims/{id}/evidence`: chosen events as one file to hand on: their folders, a page that shows them offline, the SHA-256
//! of every file and, on request, a signature.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::api::{Result, answer};
use super::archive::{Out, streamed};
use super::events::{Asked, bad, event_id, files};
use super::respond::Answer;
use super::{App, context, pages, respond};
use crate::clock::{EventId, instant};
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::interaction::target::pairs;
use crate::sim::held::Held;
use crate::sim::signing::Key;
use crate::sim::{Sim, storage_failure};
use crate::simdb::scan;
use crate::version::Operation;

/// Most events of a bundle.
const MAX_EVENTS: usize = 10_000;
/// Bytes of bodies that the page itself shows; of the rest it names the files.
const SHOWN_BYTES: usize = 16 << 20;

/// What goes into a bundle.
struct Chosen {
    sim: Arc<Sim>,
    events: Vec<(EventId, Operation)>,
    held: Held,
    /// What the bundle says of itself.
    about: Value,
    key: Option<Key>,
}

/// `GET /api/sims/{id}/evidence`: the events that the filters of the list leave, or those named by `events`.
pub async fn evidence(request: HttpRequest, app: Data<App>, id: Path<String>) -> HttpResponse {
    let (origin, query) = (context::origin(&request, &app.options), request.query_string().to_owned());
    let (to_choose, chosen_of) = (app.clone(), id.into_inner());
    match web::block(move || choose(&to_choose, &chosen_of, &query, &origin)).await {
        Ok(Ok(chosen)) => {
            let name = format!("{}-evidence.zip", chosen.sim.id());
            streamed("application/zip", &name, move |out| write(&app, &chosen, out))
        }
        Ok(Err(failure)) => respond::failure(&failure, FhirVersion::default()),
        Err(error) => respond::failure(&Failure::new(Kind::Internal, error.to_string()), FhirVersion::default()),
    }
}

/// `GET /api/signing-key`: what verifies the signature.
pub async fn signing_key(app: Data<App>) -> HttpResponse {
    answer(move || Ok(Answer::of(200, "application/x-pem-file", app.registry.signing_key()?.public()?.into_bytes()))).await
}

fn choose(app: &App, id: &str, query: &str, origin: &str) -> Result<Chosen> {
    app.registry.read(&id.parse()?, |sim| chosen(app, sim, query, origin))
}

fn chosen(app: &App, sim: &Arc<Sim>, query: &str, origin: &str) -> Result<Chosen> {
    let held = sim.hold().map_err(|e| storage_failure("the events cannot be read", &e))?;
    let (mut named, mut title, mut sign, mut filters) = (None, None, false, form_urlencoded::Serializer::new(String::new()));
    for (name, value) in pairs(query) {
        match name.as_str() {
            "events" => named = Some(value),
            "title" => title = Some(value),
            "sign" if value == "true" || value == "false" => sign = value == "true",
            "sign" => return Err(bad(format!("sign '{}' is not true or false", clip(&value)))),
            "limit" | "order" | "wait" | "atLeast" => return Err(bad(format!("{name} is for lists; a bundle holds all that is asked for, oldest first"))),
            _ => drop(filters.append_pair(&name, &value)),
        }
    }
    let filters = filters.finish();
    let events = match named {
        Some(_) if !filters.is_empty() => return Err(bad("name the events or filter them: either, not both".to_owned())),
        Some(list) => {
            let named: BTreeSet<(EventId, Operation)> = list.split(',').map(|event| found(sim, event)).collect::<Result<_>>()?;
            named.into_iter().collect()
        }
        None => filtered(sim, &filters)?,
    };
    let profile = sim.profile();
    let about = json!({
        "title": title, "sim": sim.id().as_str(), "base": format!("{origin}/sim/{}/fhir", sim.id()), "fhirVersion": profile.fhir_version,
        "settings": profile.settings, "asked": query, "events": events.len(), "made": instant(sim.now_ms()), "madeBy": format!("fhirsim {}", env!("CARGO_PKG_VERSION")),
    });
    Ok(Chosen { key: if sign { Some(app.registry.signing_key()?) } else { None }, sim: sim.clone(), events, held, about })
}

fn found(sim: &Sim, event: &str) -> Result<(EventId, Operation)> {
    let id = event_id(event.trim())?;
    let operation = scan::find(sim.dir_of(id), id);
    Ok((id, operation.ok_or_else(|| Failure::new(Kind::NotFound, format!("simulator {} has no event {id}", sim.id())))?))
}

fn filtered(sim: &Sim, filters: &str) -> Result<Vec<(EventId, Operation)>> {
    let asked: Query<Asked> = Query::from_query(filters).map_err(|e| bad(format!("the query cannot be read: {e}")))?;
    let mut wanted = asked.into_inner().in_pages()?.wanted(sim)?;
    wanted.newest_first = false;
    let mut events = Vec::new();
    loop {
        let page = wanted.page(sim)?;
        for shown in &page.shown {
            events.push(found(sim, shown["event"].as_str().unwrap_or_default())?);
        }
        if events.len() > MAX_EVENTS {
            let message = format!("more than {MAX_EVENTS} events; narrow them down by since, until or another filter");
            return Err(Failure::new(Kind::TooCostly, message));
        }
        match page.next {
            Some(last) => wanted.span.0 = EventId::from_u64(last.to_u64() + 1),
            None => return Ok(events),
        }
    }
}

/// A zip on its way out, and the digests of what is in it.
struct Bundle<W: Write> {
    zip: ZipWriter<StreamWriter<W>>,
    manifest: String,
}

impl<W: Write> Bundle<W> {
    /// Puts a file in.
    fn add(&mut self, path: &str, bytes: &[u8], made_ms: i64) -> io::Result<()> {
        self.manifest.push_str(&format!("{}  {path}\n", base16ct::lower::encode_string(&Sha256::digest(bytes))));
        self.put(path, bytes, made_ms)
    }

    fn put(&mut self, path: &str, bytes: &[u8], made_ms: i64) -> io::Result<()> {
        let made = chrono::DateTime::from_timestamp_millis(made_ms).unwrap_or_default().naive_utc();
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(0o644);
        self.zip.start_file(path, options.last_modified_time(DateTime::try_from(made).unwrap_or_default()))?;
        self.zip.write_all(bytes)
    }
}

fn write(app: &App, chosen: &Chosen, out: &mut Out) -> io::Result<()> {
    let now = chosen.sim.now_ms();
    let mut bundle = Bundle { zip: ZipWriter::new_stream(out), manifest: String::new() };
    let mut shown = Vec::new();
    let mut left = SHOWN_BYTES;
    for (event, operation) in &chosen.events {
        let dir = chosen.held.dir_of(*event);
        let folder: PathBuf = dir.event(*operation, *event);
        let place = format!("events/{}/{event}", operation.directory());
        for name in files(&folder).map_err(|f| io::Error::other(f.diagnostics))? {
            bundle.add(&format!("{place}/{name}"), &fs::read(folder.join(&name))?, event.millis())?;
        }
        let record = scan::record(dir, *operation, *event).map_err(|d| io::Error::other(d.reason))?;
        let mut view = pages::exchange(&record, &folder, left);
        left = left.saturating_sub(["request_body", "response_body"].iter().map(|name| view[name].as_str().map_or(0, str::len)).sum());
        view["place"] = place.into();
        shown.push(view);
    }
    let heading = chosen.about["title"].as_str().unwrap_or_else(|| chosen.sim.id().as_str());
    let values = json!({"about": chosen.about, "heading": heading, "settings": chosen.about["settings"].to_string(), "events": shown, "signed": chosen.key.is_some(), "style": pages::STYLE});
    bundle.add("index.html", app.pages.text("evidence.html", values).map_err(io::Error::other)?.as_bytes(), now)?;
    bundle.add("about.json", &serde_json::to_vec_pretty(&chosen.about)?, now)?;
    let manifest = std::mem::take(&mut bundle.manifest);
    bundle.put("manifest.sha256", manifest.as_bytes(), now)?;
    if let Some(key) = &chosen.key {
        bundle.put("manifest.sha256.sig", &key.sign(manifest.as_bytes()), now)?;
        bundle.put("signing-key.pem", key.public().map_err(|f| io::Error::other(f.diagnostics))?.as_bytes(), now)?;
    }
    bundle.zip.finish()?.into_inner().flush()
}
