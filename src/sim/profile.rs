//! What a simulator was made to be: `sim.json`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::faults::{self, Rule};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::simdb::BaseId;

/// The content of `sim.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// The kind of simulator; decides its mounts.
    #[serde(rename = "type")]
    pub sim_type: String,
    /// `STU3`, `R4`, `R4B` or `R5`.
    pub fhir_version: String,
    /// When it was made.
    pub created: String,
    /// What it builds on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<BaseId>,
    /// The last event of what retention has removed: no moment before can be looked at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub horizon: Option<String>,
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

/// A FHIR endpoint under `/fhir`.
pub const FHIR_TYPE: &str = "fhir";
/// The same, which grants no scope to write: as the reference server for bulk data.
pub const BULK_TYPE: &str = "bulk";

/// Proves the name of a kind of simulator.
///
/// # Errors
/// There is no such kind.
pub fn known_type(name: &str) -> Result<&'static str, Failure> {
    let known = [FHIR_TYPE, BULK_TYPE].into_iter().find(|known| *known == name);
    known.ok_or_else(|| Failure::new(Kind::BadValue, format!("unknown simulator type '{}'; use 'fhir' or 'bulk'", crate::fhir::id::clip(name))))
}

/// What can be changed of a simulator while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Which exchanges become event folders.
    pub record: Record,
    /// Whether what clients prove themselves by is left out of what is recorded.
    pub redact: bool,
    /// What becomes of content that is not as the specification has it.
    pub validation: Validation,
    /// What of versions clients see and must say.
    pub versioning: Versioning,
    /// Whether an update of an unknown id creates.
    pub update_create: bool,
    /// Which ids clients may choose when an update creates.
    pub client_ids: ClientIds,
    /// How many resources a conditional delete may delete.
    pub conditional_delete: ConditionalDelete,
    /// Whether references must lead to something.
    pub referential_integrity: Integrity,
    /// Whether a Bundle of type history, posted, changes histories.
    pub history_modifications: bool,
    /// Who may use the endpoint.
    pub auth: Auth,
    /// Tokens of SMART, where those are asked for.
    #[serde(skip_serializing_if = "is_default")]
    pub smart: Smart,
    /// Exports of bulk data.
    #[serde(skip_serializing_if = "is_default")]
    pub bulk: Bulk,
    /// How far back it remembers.
    #[serde(skip_serializing_if = "Retention::is_none")]
    pub retention: Retention,
    /// What goes wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Rule>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Who may use an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Whoever knows its URL.
    #[default]
    Off,
    /// Who has a token of SMART Backend Services.
    SmartBackend,
}

/// How tokens of SMART are given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Smart {
    /// How long a token is good for at most, in minutes.
    pub token_minutes: u32,
    /// Whether an assertion must have `jti` and `iat` and end within five minutes, as the specification says.
    pub strict: bool,
}

/// How exports of bulk data are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bulk {
    /// Most lines of a file.
    pub page: usize,
    /// Seconds that an export takes at least.
    pub duration_seconds: u32,
    /// Minutes that it is kept.
    pub keep_minutes: u32,
    /// Which version of the guide is followed.
    pub ig: Ig,
    /// How often in a minute it may be asked how far it is; 0 is no limit.
    pub polls_per_minute: u32,
    /// Most files that one manifest lists, where the client takes several.
    pub manifest_files: usize,
}

/// A version of the guide for bulk data, <https://hl7.org/fhir/uv/bulkdata/history.html>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ig {
    /// STU 2.
    #[serde(rename = "2.0")]
    V2,
    /// STU 3.
    #[default]
    #[serde(rename = "3.0")]
    V3,
    /// STU 4, which is a draft.
    #[serde(rename = "4.0")]
    V4,
}

impl Bulk {
    /// Proves what somebody asked for.
    ///
    /// # Errors
    /// No lines, or more time than a year.
    pub fn proven(&self) -> Result<(), Failure> {
        const YEAR: u32 = 366 * 24 * 60;
        if self.page == 0 || self.manifest_files == 0 || self.keep_minutes > YEAR || self.duration_seconds > YEAR * 60 {
            return Err(Failure::new(Kind::BadValue, "bulk: page and manifestFiles are at least 1, keepMinutes and durationSeconds are a year at most"));
        }
        Ok(())
    }
}

impl Default for Bulk {
    fn default() -> Self {
        Self { page: 10_000, duration_seconds: 0, keep_minutes: 60, ig: Ig::default(), polls_per_minute: 0, manifest_files: 100 }
    }
}

impl Default for Smart {
    fn default() -> Self {
        Self { token_minutes: 15, strict: false }
    }
}

/// How far back a simulator remembers; of several limits the nearest counts. What is not said keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// Events this old or younger: `7d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<String>,
    /// So many events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// So many bytes of event folders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl Settings {
    /// These with what `wish`, an object, says instead.
    ///
    /// # Errors
    /// It says something that is no setting.
    pub fn with(&self, wish: &Map<String, Value>) -> Result<Self, Failure> {
        let mut all = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(all) = &mut all {
            all.extend(wish.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let settings: Self = serde_json::from_value(all).map_err(|e| Failure::new(Kind::BadValue, format!("settings cannot be read: {e}")))?;
        faults::proven(&settings.faults)?;
        settings.retention.proven()?;
        settings.bulk.proven()?;
        Ok(settings)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            record: Record::default(),
            redact: true,
            validation: Validation::default(),
            versioning: Versioning::default(),
            update_create: true,
            client_ids: ClientIds::default(),
            conditional_delete: ConditionalDelete::default(),
            referential_integrity: Integrity::default(),
            history_modifications: false,
            auth: Auth::default(),
            smart: Smart::default(),
            bulk: Bulk::default(),
            retention: Retention::default(),
            faults: Vec::new(),
        }
    }
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
    /// Only those that change something; the others are in the request log.
    Changes,
}

/// What becomes of content whose structure is not as the specification has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validation {
    /// It is stored, and nobody looks.
    #[default]
    Off,
    /// It is stored, and what is wrong is said.
    Warn,
    /// It is refused.
    Strict,
}

/// The codes of <http://hl7.org/fhir/versioning-policy>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Versioning {
    /// Clients see no versions.
    NoVersion,
    /// Versions, ETags and history.
    #[default]
    Versioned,
    /// The same, and an update must say by `If-Match` which version it is of.
    VersionedUpdate,
}

impl Versioning {
    /// Its code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoVersion => "no-version",
            Self::Versioned => "versioned",
            Self::VersionedUpdate => "versioned-update",
        }
    }
}

/// Which ids clients may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientIds {
    /// Any.
    #[default]
    Any,
    /// Those that are not a number.
    NonNumeric,
    /// None.
    Off,
}

/// Whether references must lead to something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// They need not.
    #[default]
    Off,
    /// They must.
    On,
}

/// The codes of <http://hl7.org/fhir/conditional-delete-status>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionalDelete {
    /// Only what matches one resource deletes it.
    #[default]
    Single,
    /// All that match are deleted.
    Multiple,
}

impl ConditionalDelete {
    /// Its code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Multiple => "multiple",
        }
    }
}
