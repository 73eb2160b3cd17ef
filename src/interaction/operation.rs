//! Operations, <https://hl7.org/fhir/R4/operations.html>: one table of them, one file each.

pub mod diff;
pub mod everything;
pub mod lastn;
pub mod meta;
mod parameters;
pub mod purge;
pub mod validate;

use serde_json::{Value, json};

use super::{Conditions, Content, Done, Env, Reply};
use crate::fhir::definitions::nearest;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, ResourceId};
use crate::sim::Snapshot;
use crate::version::Operation;

/// What an operation is invoked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// The whole simulator.
    System,
    /// A type.
    Type(&'static str),
    /// A resource.
    Instance(&'static str, ResourceId),
    /// A version of a resource; it is text still.
    Version(&'static str, ResourceId, String),
}

impl Level {
    /// The resource type it names.
    #[must_use]
    pub fn type_name(&self) -> Option<&'static str> {
        match self {
            Self::System => None,
            Self::Type(type_name) | Self::Instance(type_name, _) | Self::Version(type_name, ..) => Some(type_name),
        }
    }

    fn code(&self) -> char {
        match self {
            Self::System => 's',
            Self::Type(_) => 't',
            Self::Instance(..) => 'i',
            Self::Version(..) => 'v',
        }
    }
}

/// The id of the OperationDefinition of `$import`.
pub const IMPORT: &str = "fhirsim-import";

/// An operation that this server has.
#[derive(Debug)]
pub struct Definition {
    /// What it does.
    pub name: Name,
    /// With its dollar sign.
    pub code: &'static str,
    /// Where it may be invoked: `s`ystem, `t`ype, `i`nstance, `v`ersion.
    levels: &'static str,
    /// The types it is for; none is all.
    pub types: &'static [&'static str],
    /// Whether it changes something: then it is POSTed and becomes an event.
    pub affects_state: bool,
    /// Its canonical URL.
    url: &'static str,
}

/// What operations there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Everything about a patient or an encounter.
    Everything,
    /// The last observations of each kind.
    Lastn,
    /// Profiles, tags and security labels.
    Meta,
    /// Some more of them.
    MetaAdd,
    /// Some fewer of them.
    MetaDelete,
    /// Superseded versions are removed.
    Purge,
    /// What is wrong with a resource.
    Validate,
    /// What changed between two versions.
    Diff,
    /// A resource in another format.
    Convert,
}

/// All of them.
pub const ALL: [Definition; 11] = [
    operation(Name::Everything, "$everything", "ti", &["Patient"], false, "http://hl7.org/fhir/OperationDefinition/Patient-everything"),
    operation(Name::Everything, "$everything", "i", &["Encounter"], false, "http://hl7.org/fhir/OperationDefinition/Encounter-everything"),
    operation(Name::Lastn, "$lastn", "t", &["Observation"], false, "http://hl7.org/fhir/OperationDefinition/Observation-lastn"),
    operation(Name::Meta, "$meta", "stiv", &[], false, "http://hl7.org/fhir/OperationDefinition/Resource-meta"),
    operation(Name::MetaAdd, "$meta-add", "iv", &[], true, "http://hl7.org/fhir/OperationDefinition/Resource-meta-add"),
    operation(Name::MetaDelete, "$meta-delete", "iv", &[], true, "http://hl7.org/fhir/OperationDefinition/Resource-meta-delete"),
    operation(Name::Validate, "$validate", "ti", &[], false, "http://hl7.org/fhir/OperationDefinition/Resource-validate"),
    operation(Name::Diff, "$diff", "i", &[], false, "OperationDefinition/fhirsim-diff"),
    operation(Name::Convert, "$convert", "s", &[], false, "http://hl7.org/fhir/OperationDefinition/Resource-convert"),
    operation(Name::Purge, "$purge", "i", &[], true, "OperationDefinition/fhirsim-purge"),
    operation(Name::Purge, "$expunge", "i", &[], true, "OperationDefinition/fhirsim-purge"),
];

const fn operation(name: Name, code: &'static str, levels: &'static str, types: &'static [&'static str], affects_state: bool, url: &'static str) -> Definition {
    Definition { name, code, levels, types, affects_state, url }
}

impl Definition {
    /// The operation `name`, without its dollar sign, at `level`.
    ///
    /// # Errors
    /// [`Kind::NotSupported`]: there is none of this name, or not here.
    pub fn find(name: &str, level: &Level) -> Result<&'static Self, Failure> {
        let code = format!("${name}");
        let fits = |d: &&'static Self| d.levels.contains(level.code()) && (d.types.is_empty() || level.type_name().is_some_and(|t| d.types.contains(&t)));
        let named: Vec<&'static Self> = ALL.iter().filter(|d| d.code == code).collect();
        if let Some(found) = named.iter().copied().find(fits) {
            return Ok(found);
        }
        let message = match named.first() {
            _ if name == "graph" => {
                "operation $graph is not supported: this server does not walk GraphDefinitions; use _include, _revinclude or $everything".into()
            }
            Some(_) => format!("operation {code} is not supported here; it is at {}", named.iter().map(|d| d.places()).collect::<Vec<_>>().join(", ")),
            None => {
                let near = nearest(&code, ALL.iter().map(|d| d.code)).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
                format!("operation {} is not supported by this server{near}", clip(&code))
            }
        };
        Err(Failure::new(Kind::NotSupported, message))
    }

    /// `Patient/[id]/$everything`.
    fn places(&self) -> String {
        let types = if self.types.is_empty() { "[type]".to_owned() } else { self.types.join(" or ") };
        let place = |level| match level {
            's' => self.code.to_owned(),
            't' => format!("{types}/{}", self.code),
            'i' => format!("{types}/[id]/{}", self.code),
            _ => format!("{types}/[id]/_history/[version]/{}", self.code),
        };
        self.levels.chars().map(place).collect::<Vec<_>>().join(", ")
    }

    /// As the CapabilityStatement of a version lists it.
    #[must_use]
    pub fn listed(&self, version: FhirVersion, base: &str) -> Value {
        let url = if self.is_ours() { format!("{base}/{}", self.url) } else { self.url.to_owned() };
        // A reference before R4, a canonical since.
        let definition = if version == FhirVersion::Stu3 { json!({"reference": url}) } else { json!(url) };
        json!({"name": &self.code[1..], "definition": definition})
    }

    /// Whether it is one that the specification does not have.
    fn is_ours(&self) -> bool {
        self.url.starts_with("OperationDefinition/")
    }

    /// The OperationDefinition of one of ours by its id.
    #[must_use]
    pub fn resource(id: &str, version: FhirVersion) -> Option<Value> {
        if id == IMPORT {
            // Begun and answered apart from what is performed at once.
            let effect = if version == FhirVersion::Stu3 { ("idempotent", false) } else { ("affectsState", true) };
            return Some(json!({
                "resourceType": "OperationDefinition", "id": id, "name": "fhirsim_import", "status": "active", "kind": "operation", "code": "import",
                "description": "$import, as docs/bulk-data.md of fhirsim describes it", effect.0: effect.1, "system": true, "type": false, "instance": false,
            }));
        }
        let definition = ALL.iter().find(|d| d.is_ours() && d.url.split('/').nth(1) == Some(id))?;
        let at = |level| definition.levels.contains(level);
        let types = if definition.types.is_empty() { &["Resource"] } else { definition.types };
        // What R4 calls affecting state, STU3 calls not being idempotent.
        let (effect, is_so) = if version == FhirVersion::Stu3 { ("idempotent", !definition.affects_state) } else { ("affectsState", definition.affects_state) };
        Some(json!({
            "resourceType": "OperationDefinition", "id": id, "name": id.replace('-', "_"), "status": "active", "kind": "operation",
            "code": &definition.code[1..], "description": format!("{}, as docs/fhir.md of fhirsim describes it", definition.code),
            effect: is_so, "resource": types, "system": at('s'), "type": at('t'), "instance": at('i'),
        }))
    }

    /// Whether it is listed with a type of its own, and not for the whole server.
    #[must_use]
    pub fn is_of(&self, type_name: &str) -> bool {
        self.types.contains(&type_name)
    }
}

/// An operation that is invoked.
#[derive(Debug)]
pub struct Call {
    /// Which.
    pub definition: &'static Definition,
    /// On what.
    pub level: Level,
    /// Parameters of the URL, and those of a Parameters resource that are single values, as text.
    pub parameters: Vec<(String, String)>,
    /// The resource that was sent.
    pub input: Option<Content>,
    /// What must hold for it to go on.
    pub conditions: Conditions,
}

impl Call {
    /// Takes the single values of a Parameters resource for parameters.
    ///
    /// # Errors
    /// The operation has no such parameter, or not in this form.
    pub fn new(
        definition: &'static Definition,
        level: Level,
        url: Vec<(String, String)>,
        input: Option<Content>,
        conditions: Conditions,
        definitions: &Definitions,
    ) -> Result<Self, Failure> {
        let parameters = parameters::read(definition, &level, url, input.as_ref().map(|c| &c.resource), definitions)?;
        Ok(Self { definition, level, parameters, input, conditions })
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The operation its event is filed under.
    #[must_use]
    pub fn filed_under(&self) -> Operation {
        if self.definition.affects_state { Operation::Post } else { Operation::Get }
    }

    /// What the Parameters that were sent hold under a name, as `member`.
    fn sent<'c>(&'c self, name: &'c str, member: &'c str) -> impl Iterator<Item = &'c Value> {
        let all = self.input.as_ref().and_then(|c| c.resource.value().get("parameter")?.as_array());
        all.into_iter().flatten().filter(move |p| p.get("name").is_some_and(|n| n == name)).filter_map(move |p| p.get(member))
    }
}

/// Performs an operation.
///
/// # Errors
/// Its own.
pub fn perform(call: &Call, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    match call.definition.name {
        Name::Everything => everything::perform(call, snapshot, env),
        Name::Lastn => lastn::perform(call, snapshot, env),
        Name::Meta => meta::perform(call, snapshot),
        Name::MetaAdd => meta::change(call, true, snapshot),
        Name::MetaDelete => meta::change(call, false, snapshot),
        Name::Purge => purge::perform(call, snapshot, env),
        Name::Diff => diff::perform(call, snapshot),
        Name::Convert => convert(call),
        Name::Validate => validate::perform(call, snapshot),
    }
}

/// `$convert`, <https://hl7.org/fhir/R4/resource-operation-convert.html>: the answer is what was sent, in the format that is
/// asked for. The one parameter, `input`, may be sent as such or by itself.
fn convert(call: &Call) -> Result<Reply, Failure> {
    let sent = call.input.as_ref().ok_or_else(|| Failure::new(Kind::Invalid, "$convert needs a resource as its body"))?;
    let input = call.sent("input", "resource").next().filter(|_| sent.type_name == "Parameters");
    let text = input.map_or_else(|| sent.text.clone(), Value::to_string);
    Ok(Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) })
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use crate::simdb::event::INTERACTIONS;

    #[test]
    fn events_can_be_asked_for_by_each() {
        let missing: Vec<&str> = ALL.iter().map(|d| d.code).filter(|code| !INTERACTIONS.contains(code)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
