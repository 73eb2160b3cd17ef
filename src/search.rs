//! FHIR search: from text to a [`crate::query::Query`], and from a resource to the keys it is found by.
//!
//! [`parse`] (text to a typed search of [`condition`]s, by the simulator's parameters) → [`compile`] (to a tree over keys;
//! chains, lists and value sets are looked up on the way). A parameter type's rules, its modifiers' too, live in one file
//! under `param/`: how values become keys, and how a search value becomes a query on them.

pub mod compile;
pub mod condition;
pub mod custom;
pub mod extract;
pub mod filter;
pub mod include;
pub mod membership;
pub mod param;
pub mod params;
pub mod parse;
pub mod path;
mod terminology;

pub use compile::{Compiled, Lookup};
pub use extract::extract;
pub use parse::{Cursor, Scope, Search, Total};
