//! What a simulator was made to be: `sim.json`.

use serde::{Deserialize, Serialize};

use crate::fhir::{Failure, FhirVersion, Kind};

/// The content of `sim.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The kind of simulator; decides its mounts.
    #[serde(rename = "type")]
    pub sim_type: String,
    /// `STU3`, `R4`, `R4B` or `R5`.
    pub fhir_version: String,
    /// When it was made.
    pub created: String,
    /// What can be changed.
    #[serde(default)]
    pub settings: Settings,
}

impl Profile {
    /// The FHIR version.
    #[must_use]
    pub fn version(&self) -> FhirVersion {
        self.fhir_version.parse().unwrap_or_default()
    }
}

/// The one kind of simulator there is so far: a FHIR endpoint under `/fhir`.
pub const FHIR_TYPE: &str = "fhir";

/// Proves the name of a kind of simulator.
///
/// # Errors
/// There is no such kind.
pub fn known_type(name: &str) -> Result<&'static str, Failure> {
    if name == FHIR_TYPE {
        return Ok(FHIR_TYPE);
    }
    Err(Failure::new(Kind::BadValue, format!("unknown simulator type '{}'; use 'fhir'", crate::fhir::id::clip(name))))
}

/// What can be changed of a simulator while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Which exchanges become event folders.
    pub record: Record,
}

/// Which exchanges become event folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// Those that write or try to; reads are in the request log only.
    #[default]
    Writes,
    /// Reads and searches too.
    All,
}
