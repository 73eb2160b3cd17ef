//! Names and paths. No path is built from a client's text without a type of this module that proved it.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::version::{Operation, Place};

/// The name of a simulator: `<session>__<name>`.
///
/// Both parts are 1-64 of `A-Z a-z 0-9 . _ -`, begin and end with a letter or digit and hold no double underscore, so
/// that no two pairs make the same id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SimId {
    text: Box<str>,
    split: usize,
}

impl SimId {
    /// The id as it stands in URLs and on disk.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The session.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.text[..self.split]
    }

    /// The name within the session.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.split + 2..]
    }

    /// The id without case: two simulators whose keys are equal may not both exist.
    #[must_use]
    pub fn key(&self) -> String {
        self.text.to_ascii_lowercase()
    }
}

impl FromStr for SimId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let refuse = |why: &str| {
            let rule = "a simulator is named <session>__<name>, for example lab__one; both parts are 1-64 of A-Z a-z 0-9 . _ -, begin and end with a letter or digit and hold no double underscore";
            Failure::new(Kind::BadValue, format!("'{}' is not the name of a simulator: {why}; {rule}", clip(text)))
        };
        let (session, name) = text.split_once("__").ok_or_else(|| refuse("it has no double underscore"))?;
        for (what, part) in [("session", session), ("name", name)] {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            let ends = part.bytes().next().zip(part.bytes().last());
            match ends {
                None => return Err(refuse(&format!("its {what} is empty"))),
                Some(_) if part.len() > 64 => return Err(refuse(&format!("its {what} has more than 64 characters"))),
                Some(_) if !part.bytes().all(legal) => return Err(refuse(&format!("its {what} holds another character"))),
                Some(_) if part.contains("__") => return Err(refuse("it has more than one double underscore")),
                Some((first, last)) if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() => {
                    return Err(refuse(&format!("its {what} begins or ends with a sign")));
                }
                Some(_) => {}
            }
        }
        Ok(Self { text: text.into(), split: session.len() })
    }
}

impl fmt::Display for SimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// The name of a base: what a snapshot sealed, for simulators to build on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseId(uuid::Uuid);

impl BaseId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<BaseId> for String {
    fn from(id: BaseId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for BaseId {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// The directory of one simulator.
#[derive(Clone, Debug)]
pub struct SimDir {
    root: PathBuf,
}

impl SimDir {
    /// The directory of `sim` under `simdb`.
    #[must_use]
    pub fn new(simdb: &Path, sim: &SimId) -> Self {
        Self { root: simdb.join(sim.as_str()) }
    }

    /// The directory of a base under `simdb`: it was that of a simulator.
    #[must_use]
    pub fn of_base(simdb: &Path, base: &BaseId) -> Self {
        Self { root: bases(simdb).join(base.to_string()) }
    }

    /// A directory that is open, wherever it is moved to; as long as it is.
    #[must_use]
    pub fn opened(directory: &File) -> Self {
        Self { root: PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())) }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Settings, FHIR version, creation: `sim.json`.
    #[must_use]
    pub fn sim_json(&self) -> PathBuf {
        self.root.join("sim.json")
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.root.join("fhir")
    }

    /// The index; derived, may be deleted while no server holds the directory.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("simindex")
    }

    /// The event index; derived, may be deleted while no server holds the directory.
    #[must_use]
    pub fn event_index(&self) -> PathBuf {
        self.root.join("events.idx")
    }

    /// What a clean stop knew of the events that the index does not have yet.
    #[must_use]
    pub fn tail(&self) -> PathBuf {
        self.index().join("tail.json")
    }

    /// Event folders that are being written.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Where events of `operation` lie.
    #[must_use]
    pub fn operation(&self, operation: Operation) -> PathBuf {
        self.root.join("fhir").join(operation.directory())
    }

    /// The folder of an event.
    #[must_use]
    pub fn event(&self, operation: Operation, event: EventId) -> PathBuf {
        self.operation(operation).join(event.to_string())
    }

    /// The file of a stored resource.
    #[must_use]
    pub fn resource(&self, event: EventId, place: Place, type_name: &str) -> PathBuf {
        self.event(place.operation, event).join(file_name(type_name, place.number))
    }
}

/// Where the bases lie.
#[must_use]
pub fn bases(simdb: &Path) -> PathBuf {
    simdb.join(".bases")
}

/// The name of the `number`th resource file of an event, from 1.
#[must_use]
pub fn file_name(type_name: &str, number: u32) -> String {
    format!("{type_name}{number}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sim_ids_follow_the_rule() {
        for good in ["a__b", "lab-1__x.y_z", "A__b", &format!("{}__{}", "s".repeat(64), "n".repeat(64)), "a.._b__c"] {
            let id = good.parse::<SimId>().ok();
            assert_eq!(id.map(|id| format!("{}__{}", id.session(), id.name())).as_deref(), Some(good));
        }
        for bad in [
            "",
            "a",
            "a_b",
            "__b",
            "a__",
            "a___b",
            "a__b__c",
            "a__b/",
            "a__../b",
            "..__b",
            "-a__b",
            "a__b-",
            "ä__b",
            "a__b\0",
            &format!("{}__n", "s".repeat(65)),
        ] {
            assert!(bad.parse::<SimId>().is_err(), "{bad:?}");
        }
    }
}
