//! Who waits for what happens in a simulator, and `/api/sims/{id}/stream`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::api::{MAX_PAGE, Result};
use super::events::{Asked, EVALUATING, Wanted, bad, listed};
use super::{App, respond, routes};
use crate::clock::EventId;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::sim::feed::{Happening, Told};
use crate::simdb::SimId;
use crate::simdb::event_index::Filter;

/// Most requests that wait and streams, all simulators together.
const MAX_LISTENERS: usize = 2_000;
/// How often a stream without news says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Somebody who listens to a simulator.
pub(super) struct Listening {
    app: Data<App>,
    receiver: Receiver<Arc<Told>>,
    stopping: tokio::sync::watch::Receiver<bool>,
}

/// How many listen.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

impl Listening {
    /// Somebody who waits for something.
    pub(super) fn begin(app: &Data<App>, id: &SimId) -> Result<Self> {
        Self::to(app, app.registry.feed(id)?.wait())
    }

    fn to(app: &Data<App>, receiver: Receiver<Arc<Told>>) -> Result<Self> {
        if LISTENERS.fetch_add(1, Ordering::Relaxed) >= MAX_LISTENERS {
            LISTENERS.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::new(Kind::TooCostly, format!("{MAX_LISTENERS} requests wait or stream already, which is the most; end some")));
        }
        Ok(Self { app: app.clone(), receiver, stopping: app.stopping.clone() })
    }

    /// Waits until something happens that is more than a read in the log; `false` if nothing will, for the server or the
    /// simulator ends.
    pub(super) async fn news(&mut self) -> bool {
        loop {
            match self.next().await {
                Next::Happened(told) if matches!(told.what, Happening::Read(_)) => {}
                Next::Happened(_) | Next::Missed(_) => return true,
                Next::End => return false,
            }
        }
    }

    /// Whether the server ends.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    async fn next(&mut self) -> Next {
        if self.is_stopping() {
            return Next::End;
        }
        tokio::select! {
            received = self.receiver.recv() => match received {
                Ok(told) => Next::Happened(told),
                Err(RecvError::Lagged(missed)) => Next::Missed(missed),
                Err(RecvError::Closed) => Next::End,
            },
            _ = self.stopping.changed() => Next::End,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Next {
    Happened(Arc<Told>),
    Missed(u64),
    End,
}

/// `GET /api/sims/{id}/stream`: Server-Sent Events, <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
pub async fn stream(request: HttpRequest, app: Data<App>, id: Path<String>, asked: Query<Asked>) -> HttpResponse {
    let mut asked = asked.into_inner();
    if let Some(last) = routes::text(&request, "last-event-id") {
        asked.since = Some(last.to_owned());
    }
    let begun = async {
        if asked.wait.is_some() || asked.before.is_some() || asked.order.is_some() {
            return Err(bad("a stream knows no wait, before and order: it goes on from 'since', oldest first".to_owned()));
        }
        let id: SimId = id.parse()?;
        let listening = Listening::to(&app, app.registry.feed(&id)?.stream())?;
        let resumes = asked.since.is_some();
        let (registry, of) = (app.registry.clone(), id.clone());
        let work = move || registry.get(&of).and_then(|sim| Ok((asked.wanted(&sim)?, sim.next_event())));
        let (wanted, now) = web::block(work).await.map_err(|e| Failure::new(Kind::Internal, e.to_string()))??;
        let wanted = Arc::new(Wanted { newest_first: false, limit: MAX_PAGE, ..wanted });
        let from = if resumes { wanted.span.0 } else { now };
        Ok(Stream { listening, id, wanted, ready: VecDeque::new(), behind: resumes.then_some(from), seen: from })
    };
    match begun.await {
        Err(failure) => respond::failure(&failure, FhirVersion::default()),
        Ok(stream) => HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header(("cache-control", "no-store"))
            .insert_header(("x-accel-buffering", "no"))
            .streaming(futures_util::stream::unfold(stream, |mut stream| async {
                let chunk = stream.chunk().await?;
                Some((std::result::Result::<Bytes, actix_web::Error>::Ok(chunk), stream))
            })),
    }
}

/// A live stream.
struct Stream {
    listening: Listening,
    id: SimId,
    wanted: Arc<Wanted>,
    /// What is to be sent before anything else.
    ready: VecDeque<Arc<str>>,
    /// From which event on the folders are to be read, because what happened then was not told here.
    behind: Option<EventId>,
    /// Events before this one were sent, as far as they were read from the folders.
    seen: EventId,
}

impl Stream {
    /// What is to be sent next; none at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Some(Bytes::copy_from_slice(chunk.as_bytes()));
            }
            if self.behind.is_some() {
                self.catch_up().await?;
                continue;
            }
            let Ok(next) = timeout(HEARTBEAT, self.listening.next()).await else { return Some(Bytes::from_static(b": still here\n\n")) };
            match next {
                Next::End => return None,
                Next::Missed(missed) => {
                    let said = json!({"missed": missed, "resumesAfter": EventId::from_u64(self.seen.to_u64().saturating_sub(1)).to_string()});
                    self.ready.push_back(message("lagged", None, &said.to_string()).into());
                    self.behind = Some(self.seen);
                }
                Next::Happened(told) => self.take(&told).await?,
            }
        }
    }

    /// Takes in what happened.
    async fn take(&mut self, told: &Arc<Told>) -> Option<()> {
        match &told.what {
            Happening::Event(row, _) if row.event < self.seen || row.event > self.wanted.span.1 || !self.wanted.filter.admits(row) => {}
            Happening::Event(row, record) => {
                if self.wanted.request.is_some() || self.wanted.response.is_some() {
                    let (registry, id, wanted, told) = (self.listening.app.registry.clone(), self.id.clone(), self.wanted.clone(), told.clone());
                    let _one = EVALUATING.acquire().await.ok()?;
                    let wants = web::block(move || match &told.what {
                        Happening::Event(row, record) => registry.read(&id, |sim| Ok(wanted.wants(sim, row, record))),
                        _ => Ok(false),
                    });
                    // What could not be looked at is not passed over: who listens comes again from the last event on.
                    if !wants.await.ok()?.ok()? {
                        return Some(());
                    }
                } else if !self.wanted.filter.holds(row.operation, record) {
                    return Some(());
                }
                // Made once, however many listen.
                let text = told.text(|| message("event", Some(row.event), &listed(record, row.operation).to_string()));
                self.seen = self.seen.max(EventId::from_u64(row.event.to_u64() + 1));
                self.ready.push_back(text);
            }
            Happening::Read(entry) => {
                if self.wanted.is_unfiltered() {
                    self.ready.push_back(told.text(|| message("read", None, &json!(entry).to_string())));
                }
            }
            Happening::Marker(name, event) => {
                let said = || json!({"name": name, "event": event.to_string(), "instant": event.instant()}).to_string();
                self.ready.push_back(told.text(|| message("marker", Some(*event), &said())));
            }
            Happening::Reset => self.ready.push_back(told.text(|| message("reset", None, "{}"))),
        }
        Some(())
    }

    /// Reads from the folders what was not told here.
    async fn catch_up(&mut self) -> Option<()> {
        let from = self.behind.take()?;
        let (registry, id, wanted) = (self.listening.app.registry.clone(), self.id.clone(), self.wanted.clone());
        let read = web::block(move || {
            let wanted = Wanted { span: (from.max(wanted.span.0), wanted.span.1), ..(*wanted).clone() };
            registry.read(&id, |sim| wanted.page(sim))
        });
        let page = read.await.ok()?.ok()?;
        for shown in &page.shown {
            let event = shown["event"].as_str().and_then(|e| e.parse::<EventId>().ok());
            if let Some(event) = event {
                self.seen = self.seen.max(EventId::from_u64(event.to_u64() + 1));
            }
            self.ready.push_back(message("event", event, &shown.to_string()).into());
        }
        self.behind = page.next.map(|last| EventId::from_u64(last.to_u64() + 1));
        Some(())
    }
}

impl Wanted {
    /// Whether nothing is asked of an event but its time.
    fn is_unfiltered(&self) -> bool {
        let Filter { operations, statuses, facts } = &self.filter;
        operations.is_empty() && statuses.is_empty() && facts.is_empty() && self.request.is_none() && self.response.is_none()
    }
}

/// A message of a stream; JSON has no line breaks.
fn message(kind: &str, id: Option<EventId>, data: &str) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {kind}\n{id}data: {data}\n\n")
}
