//! A simulator: its snapshot, the one place where writes become true, and the registry of all simulators.

pub mod archive;
pub mod base;
pub mod bodies;
pub mod bulk;
pub mod commit;
mod dispose;
pub mod faults;
pub mod feed;
pub mod find;
pub mod held;
pub mod instant;
pub mod lifecycle;
pub mod log;
pub mod markers;
mod order;
mod past;
pub mod priority;
pub mod profile;
pub mod registry;
pub mod reindex;
pub mod retention;
pub mod sessions;
pub mod signing;
mod slot;
pub mod snapshot;
pub mod templates;
pub mod usage;

pub use commit::{Draft, NewVersion, Rewrites, Sim, Stamp};
pub use find::Page;
pub use log::LogEntry;
pub use profile::{Auth, ClientIds, ConditionalDelete, Integrity, Profile, Record, Settings, Validation, Versioning};
pub use registry::{Registry, Summary};
pub use snapshot::{Snapshot, Stored};

use crate::fhir::{Failure, Kind};

/// A refusal of the disk as a failure.
#[must_use]
pub fn storage_failure(what: &str, error: &std::io::Error) -> Failure {
    let full = matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let kind = if full { Kind::Storage } else { Kind::Internal };
    Failure::new(kind, format!("{what}: {error}; nothing was stored"))
}
