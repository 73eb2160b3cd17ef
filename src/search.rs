//! FHIR search: from text to a [`crate::query::Query`], and from a resource to the keys it is found by.
//!
//! `parse` (text to a typed search, by the FHIR version's definitions) → [`compile`] (to a tree over keys). A parameter
//! type's rules live in one file under `param/`: how values become keys, and how a search value becomes a query on them.

pub mod compile;
pub mod extract;
pub mod param;
pub mod params;
pub mod parse;
pub mod path;

pub use compile::Compiled;
pub use extract::extract;
pub use parse::{Cursor, Search, Total};
