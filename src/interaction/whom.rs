//! Which resource a write is about: the one that its URL names, or the one that its condition finds,
//! <https://hl7.org/fhir/R4/http.html#cond-update>.

use super::{Env, search};
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, ResourceId};
use crate::sim::{Snapshot, Stored};

/// The resource that a write is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The one with this id.
    Id(ResourceId),
    /// The one that this search finds.
    Where(String),
}

/// The one resource that a condition finds, or none; `what` says whose condition it is.
///
/// # Errors
/// [`Kind::MultipleMatches`]: several match; a condition that cannot be read.
pub(super) fn the_one(type_name: &'static str, query: &str, what: &str, snapshot: &Snapshot, env: &Env<'_>) -> Result<Option<(ResourceId, Stored)>, Failure> {
    let (total, mut found) = search::matching(Some(type_name), query, what, 2, snapshot, env)?;
    if total > 1 {
        let message = format!("{what}: {total} resources of type {type_name} match '{}'; it must match at most one", clip(query));
        return Err(Failure::new(Kind::MultipleMatches, message));
    }
    found.pop().map(|stored| Ok((search::id_of(&stored)?, stored))).transpose()
}
