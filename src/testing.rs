//! For tests in Rust: a server of its own on a free port, in a temporary directory, with simulators whose events can be waited
//! for.
//!
//! ```
//! use std::time::Duration;
//!
//! let server = fhirsim::testing::Server::start()?;
//! let sim = server.simulator("lab__one")?;
//! let start = sim.now();
//! // The system under test would do this.
//! ureq::put(format!("{}/Patient/p", sim.base())).content_type("application/fhir+json").send(r#"{"resourceType":"Patient","id":"p"}"#)?;
//! let event = sim.wait_for(start, Duration::from_secs(30), |e| e.interaction == "update" && e.response.status == 201);
//! assert_eq!(event.map(|e| e.resources[0].id.clone()).as_deref(), Some("p"));
//! # Ok::<(), fhirsim::testing::Problem>(())
//! ```

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Map;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::clock::{Clock, EventId};
use crate::fhir::FhirVersion;
use crate::http::{self, Options};
use crate::sim::feed::Told;
use crate::sim::registry::Wanted;
use crate::sim::{Registry, Sim, storage_failure};
use crate::simdb::event_index::Filter;
use crate::simdb::journal::Durability;
use crate::simdb::{EventRecord, SimId, scan};

/// What goes wrong.
pub type Problem = Box<dyn Error + Send + Sync>;

/// A server that ends when it is dropped, and its directory with it.
pub struct Server {
    addr: SocketAddr,
    registry: Arc<Registry>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    dir: TempDir,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a server on a free port of the loopback interface.
    ///
    /// # Errors
    /// The system refuses the directory, the port or the thread.
    pub fn start() -> Result<Self, Problem> {
        let dir = tempfile::tempdir()?;
        let (registry, _) = Registry::open(&dir.path().join("simdb"), Durability::Process, Clock::system())?;
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options {
            addr,
            public_url: None,
            auto_create: true,
            admin_token: None,
            allow_outbound: Vec::new(),
            max_body_bytes: 64 << 20,
            read_timeout: Duration::from_secs(30),
            workers: 2,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = channel();
        let of_thread = registry.clone();
        let thread = std::thread::Builder::new().name("fhirsim".into()).spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let started = http::start(of_thread, options);
                let server = match started {
                    Ok(server) => server,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                let _ = tell.send(Ok(server.addr));
                let running = actix_web::rt::spawn(server.running);
                let _ = stopped.await;
                server.stopping.send_replace(true);
                server.handle.stop(false).await;
                let _ = running.await;
            });
        })?;
        let addr = told.recv().map_err(|_| io::Error::other("the server did not start"))??;
        Ok(Self { addr, registry, stop: Some(stop), thread: Some(thread), dir })
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The directory of simulators, with the event folders.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.registry.root()
    }

    /// An empty simulator of FHIR R4; one of that name that is there is emptied.
    ///
    /// # Errors
    /// The name is malformed, or the disk refuses.
    pub fn simulator(&self, id: &str) -> Result<Simulator<'_>, Problem> {
        self.simulator_of(id, FhirVersion::R4)
    }

    /// The same of another FHIR version.
    ///
    /// # Errors
    /// As [`Server::simulator`].
    pub fn simulator_of(&self, id: &str, version: FhirVersion) -> Result<Simulator<'_>, Problem> {
        let id: SimId = id.parse().map_err(said)?;
        if self.registry.summary(&id).is_ok() {
            self.registry.delete(&id).map_err(said)?;
        }
        self.registry.create(&id, &Wanted { fhir_version: Some(version), sim_type: None, settings: Map::new() }).map_err(said)?;
        Ok(Simulator { server: self, id })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.registry.close();
        tracing::debug!(dir = %self.dir.path().display(), "removed");
    }
}

fn said(failure: crate::fhir::Failure) -> Problem {
    failure.diagnostics.into()
}

/// A simulator of a [`Server`].
#[derive(Debug)]
pub struct Simulator<'s> {
    server: &'s Server,
    id: SimId,
}

impl<'s> Simulator<'s> {
    /// Its endpoint, `http://127.0.0.1:<port>/sim/<id>/fhir`.
    #[must_use]
    pub fn base(&self) -> String {
        format!("{}/sim/{}/fhir", self.server.url(), self.id)
    }

    fn sim(&self) -> Result<Arc<Sim>, Problem> {
        self.server.registry.get(&self.id).map_err(said)
    }

    /// This moment: what happened before has a smaller event id, what happens after a greater one.
    #[must_use]
    pub fn now(&self) -> EventId {
        self.sim().map(|sim| sim.next_event()).unwrap_or_default()
    }

    /// Another simulator that begins as this one is now.
    ///
    /// # Errors
    /// There is one of that name, or the disk refuses.
    pub fn cloned(&self, id: &str) -> Result<Simulator<'s>, Problem> {
        let id: SimId = id.parse().map_err(said)?;
        self.server.registry.clone_sim(&id, &self.id, None, &Wanted::default()).map_err(said)?;
        Ok(Simulator { server: self.server, id })
    }

    /// The events after a moment, oldest first. Reads are events with the setting `record` = `all` only.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn events_since(&self, moment: EventId) -> Result<Vec<EventRecord>, Problem> {
        let from = EventId::from_u64(moment.to_u64().saturating_add(1));
        let all = |sim: &Arc<Sim>| {
            let found = sim.find_events(&Filter::default(), (from, EventId::from_u64(u64::MAX)), false, usize::MAX);
            let found = found.map_err(|e| storage_failure("the events cannot be listed", &e))?;
            Ok(found.into_iter().filter_map(|(event, operation)| scan::record(sim.dir_of(event), operation, event).ok()).collect())
        };
        self.server.registry.read(&self.id, all).map_err(said)
    }

    /// The first event after a moment that is `wanted`, as soon as there is one; none if there is none in time.
    pub fn wait_for(&self, moment: EventId, longest: Duration, wanted: impl Fn(&EventRecord) -> bool) -> Option<EventRecord> {
        let mut news = self.server.registry.feed(&self.id).ok()?.wait();
        let deadline = Instant::now() + longest;
        loop {
            if let Some(found) = self.events_since(moment).ok()?.into_iter().find(&wanted) {
                return Some(found);
            }
            if !await_news(&mut news, deadline) {
                return None;
            }
        }
    }
}

/// Waits until something happens; `false` if nothing did in time.
fn await_news(news: &mut Receiver<Arc<Told>>, deadline: Instant) -> bool {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return false };
    runtime.block_on(async {
        let left = deadline.saturating_duration_since(Instant::now());
        // To have missed some is news, too.
        matches!(tokio::time::timeout(left, news.recv()).await, Ok(Ok(_) | Err(RecvError::Lagged(_))))
    })
}
