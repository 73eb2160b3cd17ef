//! The FHIR interactions: each a pure plan over a [`Snapshot`]. Nothing here reads a disk, a socket or a clock.
//!
//! [`perform`] returns the reply and the changes it wants; [`crate::sim::Sim::exchange`] makes them true.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod bundle;
pub mod capabilities;
pub mod changes;
pub mod conditions;
pub mod create;
pub mod definition;
pub mod delete;
pub mod history;
mod integrity;
pub mod operation;
pub mod patch;
pub mod read;
mod rewrite;
pub mod search;
pub mod status;
mod structure;
pub mod target;
pub mod update;
pub mod vread;
pub mod whom;

use serde_json::Value;

use crate::fhir::subset::Subset;
use crate::fhir::validate::Issue;
use crate::fhir::{Failure, Resource, ResourceId, VersionId, outcome};
use crate::sim::bodies::Body;
use crate::sim::{NewVersion, Snapshot, Stamp, Versioning};
use crate::version::{Operation, Version};

pub use conditions::Conditions;
pub use patch::Patch;
pub use target::Target;
pub use whom::Whom;

/// What a client asks for.
#[derive(Debug)]
pub enum Interaction {
    /// Read a resource.
    Read(&'static str, ResourceId, Conditions, Subset),
    /// Read a version of it.
    Vread(&'static str, ResourceId, VersionId, Conditions, Subset),
    /// The versions of a resource, of a type or of all.
    History(history::Request),
    /// Search a type, or all.
    Search(search::Request),
    /// What the endpoint can do.
    Capabilities,
    /// Store a new resource under an id of ours.
    Create(Content, Conditions),
    /// Store a version of a resource under the client's id, or of the one that a condition finds.
    Update(Whom, Content, Conditions),
    /// Change part of a resource.
    Patch(&'static str, Whom, Patch, Conditions),
    /// Delete a resource, or what a search finds.
    Delete(delete::Request),
    /// An operation.
    Operation(operation::Call),
    /// A Bundle of independent requests.
    Batch(Content),
    /// A Bundle that happens as a whole.
    Transaction(Content),
    /// A Bundle of versions that are to be there.
    Restore(Content),
}

/// A resource that came with the request.
#[derive(Debug)]
pub struct Content {
    /// The type the URL names.
    pub type_name: &'static str,
    /// Parsed.
    pub resource: Resource,
    /// As it came.
    pub text: String,
    /// Elements whose order is not that of the definitions, where it came as XML.
    pub disorder: Vec<Issue>,
}

impl Interaction {
    /// The name, as <http://hl7.org/fhir/restful-interaction> has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read(..) => "read",
            Self::Vread(..) => "vread",
            Self::History(request) => match request.of {
                history::Of::Instance(..) => "history-instance",
                history::Of::Type(_) => "history-type",
                history::Of::System => "history-system",
            },
            Self::Search(request) if request.compartment.is_some() => "search-compartment",
            Self::Search(request) if request.type_name.is_none() => "search-system",
            Self::Search(_) => "search-type",
            Self::Capabilities => "capabilities",
            Self::Create(..) => "create",
            Self::Update(..) => "update",
            Self::Patch(..) => "patch",
            Self::Delete(_) => "delete",
            Self::Operation(call) => call.definition.code,
            Self::Batch(_) => "batch",
            Self::Transaction(_) => "transaction",
            Self::Restore(_) => "history-restore",
        }
    }

    /// The operation its event is filed under.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Read(..) | Self::Vread(..) | Self::History(_) | Self::Search(_) | Self::Capabilities => Operation::Get,
            Self::Create(..) | Self::Restore(_) => Operation::Post,
            Self::Update(..) => Operation::Put,
            Self::Patch(..) => Operation::Patch,
            Self::Delete(_) => Operation::Delete,
            Self::Operation(call) => call.filed_under(),
            Self::Batch(_) => Operation::Batch,
            Self::Transaction(_) => Operation::Transaction,
        }
    }
}

/// What an interaction needs to know besides the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// Absolute URL of the endpoint, without a slash at the end.
    pub base: &'a str,
    /// The event this is, if it writes; its instant is that of what it stores.
    pub stamp: Stamp,
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// When the simulator was made, as a FHIR instant.
    pub created: &'a str,
    /// What entries of a Bundle's response carry.
    pub returns: Return,
    /// Whether the client wants refused what would be passed over.
    pub strict: bool,
}

/// What the answer to a write carries, <https://hl7.org/fhir/R4/http.html#return>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Return {
    /// Nothing said.
    #[default]
    Unsaid,
    /// The resource.
    Representation,
    /// Nothing.
    Minimal,
    /// What happened.
    Outcome,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Reply {
    /// In one word.
    pub done: Done,
    /// The resource the reply is about or consists of.
    pub body: Option<Body>,
    /// The version it is about, for `ETag`, `Last-Modified` and `Location`.
    pub subject: Option<Subject>,
    /// What is to be stored.
    pub changes: Vec<NewVersion>,
    /// What a person should know; shown in an OperationOutcome.
    pub notes: Vec<String>,
    /// What is wrong with the content, where it is stored all the same.
    pub issues: Vec<Issue>,
}

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It is as asked, and nothing was made.
    Ok,
    /// A resource came to be.
    Created,
    /// A resource is no more.
    Deleted,
    /// The client has it already.
    NotModified,
}

/// A version that a reply is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its type.
    pub type_name: &'static str,
    /// Its id.
    pub id: ResourceId,
    /// The version, if the simulator shows versions.
    pub version: Option<VersionId>,
    /// Its last modification, in milliseconds since 1970.
    pub modified_ms: i64,
}

impl Subject {
    /// What a reply says of a stored version.
    #[must_use]
    pub fn of(type_name: &'static str, id: ResourceId, version: &Version, snapshot: &Snapshot) -> Self {
        let shown = snapshot.settings().versioning != Versioning::NoVersion;
        Self { type_name, id, version: shown.then_some(version.id), modified_ms: version.modified_ms }
    }

    /// `W/"3"`.
    #[must_use]
    pub fn etag(&self) -> Option<String> {
        self.version.map(|version| format!("W/\"{version}\""))
    }

    /// `Patient/123/_history/3`.
    #[must_use]
    pub fn location(&self) -> String {
        let version = self.version.map(|version| format!("/_history/{version}")).unwrap_or_default();
        format!("{}/{}{version}", self.type_name, self.id)
    }
}

impl Reply {
    fn new(done: Done) -> Self {
        Self { done, body: None, subject: None, changes: Vec::new(), notes: Vec::new(), issues: Vec::new() }
    }

    /// What happened, as an OperationOutcome.
    #[must_use]
    pub fn outcome(&self) -> Value {
        let mut outcome = outcome::informational("information", "informational", &self.said());
        if let Value::Array(all) = &mut outcome["issue"] {
            let found = outcome::of_issues(&self.issues, None);
            all.extend(found["issue"].as_array().into_iter().flatten().cloned());
        }
        outcome
    }

    /// What happened, for a person.
    fn said(&self) -> Vec<String> {
        if !self.notes.is_empty() {
            return self.notes.clone();
        }
        let word = match self.done {
            Done::Created => "created",
            Done::Deleted => "deleted",
            Done::Ok if self.changes.is_empty() => "nothing was changed",
            Done::Ok => "stored",
            Done::NotModified => "not modified",
        };
        vec![word.to_owned()]
    }
}

/// Plans an interaction; with references that lead to something, where the simulator asks for that.
///
/// # Errors
/// Why it is refused; nothing is to be stored then.
pub fn perform(interaction: &Interaction, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let reply = plan(interaction, snapshot, env)?;
    // Bundles have looked at it themselves, entry by entry or as a whole.
    if !matches!(interaction, Interaction::Batch(_) | Interaction::Transaction(_)) {
        integrity::check(&reply.changes, snapshot).map_err(|(_, failure)| failure)?;
        check_parameters(&reply.changes, snapshot).map_err(|(_, failure)| failure)?;
    }
    Ok(reply)
}

/// Refuses search parameters that cannot be searched by; says which change is to blame.
///
/// # Errors
/// As [`Snapshot::params_of`].
fn check_parameters(changes: &[NewVersion], snapshot: &Snapshot) -> Result<(), (usize, Failure)> {
    for (at, change) in changes.iter().enumerate().filter(|(_, change)| change.type_name == "SearchParameter") {
        let resource: Option<Value> = change.body.as_ref().and_then(|body| serde_json::from_slice(body).ok());
        if let Some(resource) = resource {
            snapshot.params_of(&resource, change.id.as_str()).map_err(|failure| (at, failure))?;
        }
    }
    Ok(())
}

/// Plans an interaction whose references may still come to lead to something.
fn plan(interaction: &Interaction, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    match interaction {
        Interaction::Read(type_name, id, conditions, subset) => read::perform(type_name, id, conditions, subset, snapshot),
        Interaction::Vread(type_name, id, version, conditions, subset) => vread::perform(type_name, id, *version, conditions, subset, snapshot),
        Interaction::History(request) => history::perform(request, snapshot, env),
        Interaction::Search(request) => search::perform(request, snapshot, env),
        Interaction::Capabilities => Ok(capabilities::perform(snapshot, env)),
        Interaction::Create(content, conditions) => create::perform(content, conditions, snapshot, env),
        Interaction::Update(whom, content, conditions) => update::perform(whom, content, conditions, snapshot, env),
        Interaction::Patch(type_name, whom, patch, conditions) => patch::perform(type_name, whom, patch, conditions, snapshot, env),
        Interaction::Delete(request) => delete::perform(request, snapshot, env),
        Interaction::Operation(call) => operation::perform(call, snapshot, env),
        Interaction::Batch(content) => bundle::batch(content, snapshot, env),
        Interaction::Restore(content) => bundle::restore::perform(content, snapshot, env),
        Interaction::Transaction(content) => bundle::transaction(content, snapshot, env),
    }
}

/// The refusal of a resource that never was.
fn not_found(type_name: &str, id: &ResourceId) -> Failure {
    Failure::new(crate::fhir::Kind::NotFound, format!("there is no {type_name}/{id} in this simulator"))
}
