//! The edge: HTTP becomes an interaction, and its reply HTTP again. actix lives only here.
//!
//! The way of a request: [`routes`] → `context` (which simulator) → `negotiate` and `decode` (what) → `exchange` (plan,
//! record, commit) → `respond`.

mod access;
mod again;
mod api;
mod archive;
mod body;
mod bulk;
mod context;
mod decode;
mod events;
mod evidence;
mod exchange;
mod explain;
mod faults;
mod lane;
mod metrics;
mod negotiate;
mod outbound;
mod pages;
mod policy;
mod readers;
pub mod replay;
mod resend;
mod respond;
pub mod routes;
mod secrets;
mod serve;
mod sessions;
mod show;
mod smart;
mod stream;
mod templates;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use crate::sim::Registry;

pub use pages::Pages;
pub use routes::{Server, start};

/// What the server was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub addr: std::net::SocketAddr,
    /// What its URLs begin with, if not what the request says.
    pub public_url: Option<String>,
    /// Whether an unknown simulator is made on first use.
    pub auto_create: bool,
    /// What `/api` and the pages ask for.
    pub admin_token: Option<String>,
    /// Hosts beyond this machine that the server itself may send to.
    pub allow_outbound: Vec<String>,
    /// Most bytes of a body.
    pub max_body_bytes: usize,
    /// How long a client may take to send a body.
    pub read_timeout: Duration,
    /// Threads that serve; 0 is one a core.
    pub workers: usize,
}

/// What every handler shares.
pub struct App {
    /// The simulators.
    pub registry: Arc<Registry>,
    /// What the server was told.
    pub options: Options,
    pages: Pages,
    metrics: metrics::Metrics,
    lane: lane::Lane,
    readers: readers::Readers,
    /// The keys of simulators that were asked for.
    keys: smart::Known,
    /// Exports.
    jobs: Arc<crate::sim::bulk::Jobs>,
    /// Assertions that were used.
    used: smart::Used,
    /// Turns true when the server ends: who waits for events must not keep it.
    stopping: tokio::sync::watch::Receiver<bool>,
}
