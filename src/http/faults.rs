//! Faults as a client sees them: what is done to an answer, and to the connection.

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::dev::Extensions;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use actix_web::rt::net::TcpStream;
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::App;
use super::api::{Result, answer};
use super::negotiate::Format;
use super::respond::Answer;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, xml};
use crate::sim::bodies::Body;
use crate::sim::faults::{Connection, Effect, Fault, PRESETS, Page, Rule, Tag};
use crate::sim::registry::Wanted;
use crate::simdb::SimId;

/// Longest that a connection stalls.
const MAX_STALL: Duration = Duration::from_mins(5);
/// How often a slow body goes on.
const TICK: Duration = Duration::from_millis(100);

/// The connection of a request, kept for faults that end it.
struct Socket(OwnedFd);

/// Keeps a connection at hand.
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<TcpStream>()
        && let Ok(socket) = stream.as_fd().try_clone_to_owned()
    {
        extensions.insert(Socket(socket));
    }
}

/// Whether what is asked for is not done at all.
#[must_use]
pub fn prevents(fault: Option<&Fault>) -> bool {
    fault.is_some_and(|f| !f.effect.performed && (f.effect.status.is_some() || ends(&f.effect)))
}

/// The status that something with this fault is answered with; 0 is none.
#[must_use]
pub fn status_of(fault: &Fault, status: u16) -> u16 {
    if ends(&fault.effect) { 0 } else { fault.effect.status.unwrap_or(status) }
}

/// Whether nothing is answered.
#[must_use]
pub fn ends(effect: &Effect) -> bool {
    matches!(effect.connection, Some(Connection::Drop | Connection::Reset))
}

/// The answer to what is not done.
#[must_use]
pub fn instead(effect: &Effect, version: FhirVersion, format: &Format) -> Answer {
    // Of a connection that ends nothing is answered.
    befallen(Answer::default(), effect, version, format)
}

fn refusal(effect: &Effect, version: FhirVersion, format: &Format) -> Answer {
    let status = effect.status.unwrap_or(500);
    let text = effect.text.clone().unwrap_or_else(|| format!("a fault that this simulator was told to have, with status {status}"));
    let mut refused = Answer { status, ..Answer::default() };
    if matches!(status, 204 | 304) {
        // Those have none.
    } else if effect.content_type.is_some() {
        refused.body = Some(text.into_bytes().into());
    } else {
        let code = effect.code.as_deref().unwrap_or("exception");
        let outcome =
            json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "details": {"text": text}, "diagnostics": text}]});
        let body: Body = outcome.to_string().into_bytes().into();
        let plain = refused.clone();
        refused = refused.with_resource(&body, version, format).unwrap_or(plain);
    }
    if status == 401 {
        refused = refused.with("www-authenticate", "Bearer error=\"invalid_token\", error_description=\"the token has expired\"");
    }
    match effect.retry_after {
        Some(seconds) => refused.with("retry-after", seconds.to_string()),
        None => refused,
    }
}

/// An answer as the fault leaves it.
#[must_use]
pub fn befallen(answer: Answer, effect: &Effect, version: FhirVersion, format: &Format) -> Answer {
    let mut answer = if effect.status.is_some() { refusal(effect, version, format) } else { answer };
    if let Some(tag) = effect.etag {
        let stale = |etag: &str| {
            let number = etag.trim_start_matches("W/").trim_matches('"').parse::<u64>().ok()?;
            Some(format!("W/\"{}\"", number.saturating_sub(1)))
        };
        answer.headers.retain_mut(|(name, value)| {
            if *name != "etag" {
                return true;
            }
            match tag {
                Tag::Missing => false,
                Tag::Stale => stale(value).map(|new| *value = new).is_some(),
            }
        });
    }
    if let (Some(page), Some(body)) = (effect.bundle, &answer.body) {
        answer.body = paged(body, page, version, format).or(answer.body);
    }
    if let Some(content_type) = &effect.content_type {
        answer.headers.retain(|(name, _)| *name != "content-type");
        answer.headers.push(("content-type", content_type.clone()));
    }
    if let (true, Some(body)) = (effect.malformed, &answer.body) {
        // Of the same length, and no JSON and no XML any more.
        let mut broken = body.to_vec();
        let half = broken.len() / 2;
        broken[half..].fill(b' ');
        answer.body = Some(broken.into());
    }
    answer
}

/// A page of a Bundle with something wrong in it; none if it is no page.
fn paged(body: &[u8], page: Page, version: FhirVersion, format: &Format) -> Option<Body> {
    let text = std::str::from_utf8(body).ok()?;
    let is_xml = format.media_type.is_xml();
    let json = if is_xml { xml::from_xml(body, version).ok()? } else { text.to_owned() };
    let mut bundle: Value = serde_json::from_str(&json).ok()?;
    if !matches!(bundle["type"].as_str(), Some("searchset" | "history")) {
        return None;
    }
    let broken = |base: &str| format!("{}?_cursor=lost", base.split('?').next().unwrap_or_default());
    match page {
        Page::DuplicateEntry => {
            let entries = bundle["entry"].as_array_mut()?;
            entries.push(entries.last()?.clone());
        }
        Page::MissingEntry => drop(bundle["entry"].as_array_mut()?.pop()?),
        Page::BrokenNext => {
            let links = bundle["link"].as_array_mut()?;
            let base = links.first()?["url"].as_str()?.to_owned();
            links.retain(|l| l["relation"] != "next");
            links.push(json!({"relation": "next", "url": broken(&base)}));
        }
        Page::WrongTotal => bundle["total"] = (bundle["total"].as_u64()? + 1).into(),
    }
    let changed = bundle.to_string();
    let shown = if is_xml { xml::to_xml(&changed, Definitions::of(version)).ok()? } else { changed };
    Some(shown.into_bytes().into())
}

/// What was answered apart from interactions, as the fault has it sent: files are long, so bodies are changed while they go out.
pub async fn applied(request: &HttpRequest, response: HttpResponse, fault: &Fault, version: FhirVersion, mut stopping: watch::Receiver<bool>) -> HttpResponse {
    let effect = &fault.effect;
    if ends(effect) {
        return sent(request, Answer::default(), response, fault, stopping).await;
    }
    if fault.delay_ms > 0 {
        wait(Duration::from_millis(fault.delay_ms), &mut stopping).await;
    }
    if prevents(Some(fault)) {
        return response;
    }
    if effect.status.is_some() {
        let event = response.headers().get("x-fhirsim-event").and_then(|v| v.to_str().ok()).map(str::to_owned);
        return instead(effect, version, &Format::default()).into_response(event.as_deref(), None, false);
    }
    let (mut head, body) = response.into_parts();
    if let Some(Ok(content_type)) = effect.content_type.as_deref().map(HeaderValue::from_str) {
        head.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    if effect.etag.is_some() {
        head.headers_mut().remove(ETAG);
    }
    let BodySize::Sized(length) = body.size() else { return head.set_body(body) };
    let cut = Cut { body, length, gone: 0, left: Bytes::new(), effect: effect.clone(), stopping };
    let mut response = HttpResponse::build(head.status());
    for (name, value) in head.headers() {
        response.append_header((HeaderName::clone(name), HeaderValue::clone(value)));
    }
    response.no_chunking(length).streaming(futures_util::stream::unfold(Some(cut), |cut| async { cut?.next().await }))
}

/// A body that goes out as a fault has it.
struct Cut {
    body: BoxBody,
    length: u64,
    /// How many bytes have gone out.
    gone: u64,
    /// What was taken from the body and has not gone out.
    left: Bytes,
    effect: Effect,
    stopping: watch::Receiver<bool>,
}

type Piece = std::result::Result<Bytes, std::io::Error>;

impl Cut {
    async fn next(mut self) -> Option<(Piece, Option<Self>)> {
        let lost = || std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "a fault that this simulator was told to have");
        let half = self.length / 2;
        let ends = matches!(self.effect.connection, Some(Connection::Truncate | Connection::Stall));
        if ends && self.gone >= half {
            // What there is goes out while this waits.
            wait(if self.effect.connection == Some(Connection::Stall) { MAX_STALL } else { TICK }, &mut self.stopping).await;
            return Some((Err(lost()), None));
        }
        if self.left.is_empty() {
            match std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_next(cx)).await? {
                Ok(bytes) => self.left = bytes,
                Err(_) => return Some((Err(lost()), None)),
            }
        }
        let mut most = self.left.len();
        if let Some(rate) = self.effect.bytes_per_second {
            most = most.min(usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1));
            if self.gone > 0 {
                wait(TICK, &mut self.stopping).await;
            }
        }
        let to_half = usize::try_from(half.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        if ends {
            most = most.min(to_half);
        }
        let mut piece = self.left.split_to(most);
        if self.effect.malformed && to_half < piece.len() {
            // Of the same length, and no JSON any more.
            let mut broken = piece.to_vec();
            broken[to_half..].fill(b' ');
            piece = broken.into();
        }
        self.gone += piece.len() as u64;
        Some((Ok(piece), Some(self)))
    }
}

/// Sends an answer as the fault has it sent.
pub async fn sent(request: &HttpRequest, answer: Answer, response: HttpResponse, fault: &Fault, mut stopping: watch::Receiver<bool>) -> HttpResponse {
    if fault.delay_ms > 0 {
        wait(Duration::from_millis(fault.delay_ms), &mut stopping).await;
    }
    let effect = &fault.effect;
    if let Some(end @ (Connection::Drop | Connection::Reset)) = effect.connection {
        if let Some(Socket(socket)) = request.conn_data::<Socket>() {
            let _ = match end {
                // To be connected to nothing resets what it is connected to.
                Connection::Reset => rustix::net::connect_unspec(socket),
                Connection::Drop | Connection::Truncate | Connection::Stall => rustix::net::shutdown(socket, rustix::net::Shutdown::Both),
            };
        }
        // It goes nowhere.
        return HttpResponse::build(StatusCode::BAD_GATEWAY).force_close().finish();
    }
    let body = answer.body.unwrap_or_default();
    let half = body.len() / 2;
    let whole = Bytes::from_owner(body);
    let pieces = match (effect.connection, effect.bytes_per_second) {
        (Some(Connection::Truncate | Connection::Stall), _) => vec![whole.slice(..half)],
        (_, Some(rate)) => {
            let piece = usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1);
            (0..whole.len()).step_by(piece).map(|at| whole.slice(at..whole.len().min(at + piece))).collect()
        }
        _ => return response,
    };
    let ends = effect.connection;
    let mut cut = HttpResponse::build(response.status());
    for (name, value) in response.headers() {
        cut.insert_header((HeaderName::clone(name), HeaderValue::clone(value)));
    }
    let state = (pieces.into_iter(), stopping, true);
    cut.no_chunking(whole.len() as u64).streaming(futures_util::stream::unfold(state, move |(mut pieces, mut stopping, is_first)| async move {
        let lost = || Piece::Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "a fault that this simulator was told to have"));
        if let Some(piece) = pieces.next() {
            if !is_first {
                wait(TICK, &mut stopping).await;
            }
            return Some((Piece::Ok(piece), (pieces, stopping, false)));
        }
        match ends {
            Some(Connection::Stall) => wait(MAX_STALL, &mut stopping).await,
            // What there is goes out while this waits.
            Some(Connection::Truncate | Connection::Drop | Connection::Reset) => wait(TICK, &mut stopping).await,
            None => return None,
        }
        Some((lost(), (pieces, stopping, false)))
    }))
}

/// Waits, but not for the end of the server.
async fn wait(time: Duration, stopping: &mut watch::Receiver<bool>) {
    let _ = tokio::time::timeout(time, stopping.wait_for(|stops| *stops)).await;
}

/// `GET /api/sims/{id}/faults`: the rules, and the presets that there are.
pub async fn list(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || {
        let sim = app.registry.get(&id.parse()?)?;
        let presets: Vec<Value> = PRESETS.iter().map(|(name, what)| json!({"name": name, "effect": what})).collect();
        Ok(Answer::json(200, &json!({"faults": sim.profile().settings.faults, "presets": presets})))
    })
    .await
}

/// `PUT /api/sims/{id}/faults`: these rules and no others.
pub async fn put(app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    answer(move || {
        let bad = |e| {
            Failure::new(
                Kind::BadValue,
                format!(
                    "the body cannot be read: {e}; send rules such as [{{\"match\":{{\"interaction\":[\"read\"],\"every\":3}},\"preset\":\"unavailable\"}}]"
                ),
            )
        };
        let rules: Vec<Rule> = serde_json::from_slice(&body).map_err(bad)?;
        change(&app, &id.parse()?, &rules)
    })
    .await
}

/// `DELETE /api/sims/{id}/faults`: none.
pub async fn clear(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || change(&app, &id.parse()?, &[])).await
}

pub(super) fn change(app: &App, id: &SimId, rules: &[Rule]) -> Result<Answer> {
    let settings = [("faults".to_owned(), json!(rules))].into_iter().collect();
    app.registry.change(id, &Wanted { settings, ..Wanted::default() })?;
    // They count from now, also if they are the ones that there were.
    app.registry.get(id)?.faults.clear();
    Ok(Answer::json(200, &json!({"faults": rules})))
}
