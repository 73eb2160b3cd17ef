//! FHIR itself: what a resource, an id, an instant, a reference and a definition are. Knows no simulator and no HTTP.

pub mod decimal;
pub mod definitions;
pub mod failure;
pub mod id;
pub mod instant;
pub mod json;
pub mod outcome;
pub mod raw;
pub mod reference;
pub mod resource;
pub mod subset;
pub mod validate;
pub mod xml;

pub use definitions::{Definitions, FhirVersion};
pub use failure::{Failure, Kind};
pub use id::{ResourceId, VersionId};
pub use resource::Resource;
