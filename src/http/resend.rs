//! `POST /api/sims/{id}/replay`: the server sends recorded requests again, to another simulator or to where it may.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::access::Who;
use super::api::Result;
use super::archive::{Out, streamed};
use super::events::{self, Asked, Wanted, bad};
use super::replay::{Replay, Sent};
use super::{App, Options, outbound, respond};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::simdb::SimId;

/// Most replays at once: each holds a thread as long as it takes.
const MOST: usize = 16;
/// How often one that waits looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(100);
static GOING: AtomicUsize = AtomicUsize::new(0);

/// One of the replays that go on.
struct Going;

impl Going {
    fn begin() -> Option<Self> {
        let counted = GOING.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MOST).then_some(n + 1));
        counted.is_ok().then_some(Self)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        GOING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What shall be sent again, and where to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// A simulator of this server, or the URL of an endpoint.
    to: String,
    /// Which events, as the list of events has it.
    #[serde(default)]
    filter: String,
    /// Headers to send besides the recorded ones.
    #[serde(default)]
    headers: Map<String, Value>,
    /// With the pauses that there were.
    #[serde(default)]
    timed: bool,
}

/// The endpoint of a simulator as this server reaches itself.
fn own(id: &SimId, options: &Options) -> String {
    let mut addr = options.addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{addr}/sim/{id}/fhir")
}

/// Where to, if the server may go there.
///
/// # Errors
/// It may not; there is no such simulator.
fn place(to: &str, who: &Who, app: &App) -> Result<String> {
    if !to.contains("://") {
        let id: SimId = to.parse()?;
        who.may_use(&id, app)?;
        app.registry.summary(&id)?;
        return Ok(own(&id, &app.options));
    }
    outbound::fetchable(to, app)?;
    Ok(to.to_owned())
}

/// `POST /api/sims/{id}/replay`: answers with a line of JSON for each exchange, as it is done, and one for all.
pub async fn replay(who: Who, app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    let there = app.clone();
    let begun = web::block(move || begin(&there, &id, &who, &body)).await;
    match begun {
        Ok(Ok((id, wanted, replay, timed))) => {
            let name = format!("{id}-replay.ndjson");
            let Some(going) = Going::begin() else {
                let failure = Failure::new(Kind::TooCostly, format!("{MOST} replays go on, which is the most; wait for one of them to end"));
                return respond::failure(&failure, FhirVersion::default());
            };
            streamed("application/x-ndjson", &name, move |out| {
                let _going = going;
                run(&app, &id, wanted, replay, timed, out)
            })
        }
        Ok(Err(failure)) => respond::failure(&failure, FhirVersion::default()),
        Err(error) => respond::failure(&Failure::new(Kind::Internal, error.to_string()), FhirVersion::default()),
    }
}

fn begin(app: &App, id: &str, who: &Who, body: &Bytes) -> Result<(SimId, Wanted, Replay, bool)> {
    let hint = "send {\"to\":\"lab__two\",\"filter\":\"since=marker:start\",\"headers\":{},\"timed\":false}, all but to optional";
    let order: Order = serde_json::from_slice(body).map_err(|e| bad(format!("the body cannot be read: {e}; {hint}")))?;
    let base = place(&order.to, who, app)?;
    let headers = order.headers.iter().map(|(name, value)| {
        let value = value.as_str().ok_or_else(|| bad(format!("the header '{}' is no text", clip(name))))?;
        Ok((name.clone(), value.to_owned()))
    });
    let headers = headers.collect::<Result<_>>()?;
    let id: SimId = id.parse()?;
    let sim = app.registry.get(&id)?;
    let asked: Query<Asked> = Query::from_query(&order.filter).map_err(|e| bad(format!("filter cannot be read: {e}")))?;
    let mut wanted = asked.into_inner().in_pages()?.wanted(&sim)?;
    wanted.newest_first = false;
    // What is sent may come to be events of the same simulator, which are not to be sent again.
    wanted.span.1 = wanted.span.1.min(sim.next_event()).min(sim.settled());
    Ok((id, wanted, Replay::to(&base, headers, sim.snapshot().version()), order.timed))
}

fn run(app: &App, id: &SimId, mut wanted: Wanted, mut replay: Replay, timed: bool, out: &mut Out) -> io::Result<()> {
    let failed = |f: Failure| io::Error::other(f.diagnostics);
    let (mut sent, mut different) = (0, 0);
    let mut begun: Option<(Instant, i64)> = None;
    loop {
        let page = app.registry.read(id, |sim| wanted.page(sim)).map_err(failed)?;
        for listed in &page.shown {
            let name = listed["event"].as_str().unwrap_or_default();
            let (event, body) = app.registry.read(id, |sim| events::with_bodies(sim, name)).map_err(failed)?;
            if timed {
                let at = name.parse::<EventId>().map_or(0, EventId::millis);
                let (started, first) = *begun.get_or_insert((Instant::now(), at));
                let due = Duration::from_millis(u64::try_from(at - first).unwrap_or(0));
                while started.elapsed() < due && !out.is_unwanted() && !*app.stopping.borrow() {
                    std::thread::sleep(due.saturating_sub(started.elapsed()).min(TICK));
                }
            }
            if out.is_unwanted() || *app.stopping.borrow() {
                return Ok(());
            }
            let done = match replay.again(&event, body) {
                Ok(done) => done,
                Err(error) => {
                    writeln!(out, "{}", json!({"error": error, "sent": sent, "different": different}))?;
                    return out.flush();
                }
            };
            sent += 1;
            different += u64::from(!done.differences.is_empty());
            writeln!(out, "{}", line(name, &event, &done))?;
            out.flush()?;
        }
        match page.next {
            Some(last) => wanted.span.0 = EventId::from_u64(last.to_u64() + 1),
            None => break,
        }
    }
    writeln!(out, "{}", json!({"sent": sent, "different": different}))?;
    out.flush()
}

fn line(name: &str, event: &Value, done: &Sent) -> Value {
    json!({"event": name, "method": event["request"]["method"], "url": event["request"]["url"], "status": done.status, "became": done.event, "differences": done.differences})
}

/// Sends one event again to its own simulator; returns the event that it became, if it became one.
///
/// # Errors
/// There is no such event; it cannot be sent.
pub(super) fn once(app: &App, id: &SimId, event: &str, token: Option<String>) -> Result<Option<String>> {
    // Who may press the button may use the endpoint; credentials that were recorded are redacted.
    let headers = token.map(|token| ("authorization".to_owned(), token)).into_iter().collect();
    let version = app.registry.get(id)?.snapshot().version();
    let mut replay = Replay::to(&own(id, &app.options), headers, version);
    let (event, body) = app.registry.read(id, |sim| events::with_bodies(sim, event))?;
    let sent = replay.again(&event, body).map_err(|e| Failure::new(Kind::Internal, e))?;
    match (sent.status, sent.differences.first()) {
        (None, Some(why)) => Err(Failure::new(Kind::Unprocessable, why.clone())),
        _ => Ok(sent.event.filter(|event| !event.starts_with("log-"))),
    }
}
