//! The directory of simulators: where things lie, how an event folder comes to be, how it is found again.
//!
//! Knows files and JSON, not search: `index` is derived from what lies here.

pub mod event;
pub mod event_index;
pub mod journal;
pub mod layout;
pub mod scan;
pub mod write;

pub use event::{EventRecord, StoredResource};
pub use layout::{BaseId, SimDir, SimId};
