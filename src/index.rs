//! The index of one simulator: what was committed to tantivy and what was written since, searched as one.
//!
//! Everything here is derived from the event folders and can be thrown away. It stores keys that `search` made and finds
//! them again; what they mean it does not know.

mod committed;
mod directory;
mod execute;
mod find;
mod flat;
mod hidden;
mod order;
mod past;
mod recent;
mod schema;
mod text;

use std::sync::Arc;

pub use committed::{Committed, Payload, Trimmed};
pub use execute::Budget;
pub use find::{Find, Found, ReadBody};
pub use order::{Position, SortBy, SortKey};
pub use past::Span;
pub use recent::Recent;

use crate::query::Keys;
use crate::version::Version;

/// One version of one resource.
#[derive(Clone, Debug)]
pub struct Entry {
    /// `Patient/123`.
    pub uid: Arc<str>,
    /// Its type.
    pub type_name: &'static str,
    /// Where and what it is.
    pub version: Version,
    /// What it is found by; empty for a deletion.
    pub keys: Arc<Keys>,
    /// Whether the version was there before, and only its keys are new.
    pub again: bool,
    /// Whether the history of the resource begins anew with this version: what was known of it before counts no more.
    pub rewrites: bool,
}

/// A version of a resource; whose it is, the stored resource tells.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The resource's type.
    pub type_name: &'static str,
    /// The version.
    pub version: Version,
}

/// An immutable picture of the index.
#[derive(Clone, Debug)]
pub struct View {
    /// What tantivy holds.
    pub committed: Committed,
    /// What was written since.
    pub recent: Recent,
    /// Documents of `committed` whose resource has a newer version in `recent`, or whose history was rewritten there.
    masked: imbl::HashSet<u64>,
}
