//! What is known of a version of a resource: its number, the event that made it, the file it lies in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::EventId;
use crate::fhir::VersionId;

/// Where a version of a resource lies and how it came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version's number.
    pub id: VersionId,
    /// The event that made it.
    pub event: EventId,
    /// The file that holds it.
    pub place: Place,
    /// What was done.
    pub change: Change,
    /// Its last modification, in milliseconds since 1970: the event's instant, but for what a rewritten history holds.
    pub modified_ms: i64,
    /// Its place among all versions: that of its file, but for what a rewritten history holds.
    pub made: Made,
}

/// The place of a version among all: the event that made it first, and the number of its file there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    /// The event.
    pub event: EventId,
    /// The number of the file.
    pub number: u32,
}

impl Made {
    /// Of a version that a rewritten history holds, and that was in none before: where its last modification places it. What is
    /// ahead of the event that rewrites comes with that.
    #[must_use]
    pub fn by_time(modified_ms: i64, event: EventId, number: u32) -> Self {
        let is_earlier = modified_ms < event.millis();
        Self { event: if is_earlier { EventId::first_of(modified_ms) } else { event }, number }
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.event, self.number)
    }
}

impl FromStr for Made {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (event, number) = text.split_once('/').ok_or(())?;
        Ok(Self { event: event.parse()?, number: number.parse().map_err(drop)? })
    }
}

impl Version {
    /// Whether this version has no content.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        matches!(self.change, Change::Delete | Change::Purge)
    }

    /// Whether the resource had this version right after an event. A history that was rewritten later counts as if it had
    /// always been so.
    #[must_use]
    pub fn was_there(&self, event: EventId) -> bool {
        self.made.event <= event
    }

    /// Its last modification as FHIR writes it.
    #[must_use]
    pub fn modified(&self) -> String {
        crate::clock::instant(self.modified_ms)
    }
}

/// The operation an event folder is filed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Create, and everything else that is posted to a type or an instance.
    Post,
    /// Update.
    Put,
    /// Patch.
    Patch,
    /// Delete.
    Delete,
    /// A transaction Bundle.
    Transaction,
    /// A batch Bundle.
    Batch,
    /// Reads and searches, where the simulator records them.
    Get,
}

impl Operation {
    /// All of them; the position is the code in [`Place`].
    pub const ALL: [Self; 7] = [Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Transaction, Self::Batch, Self::Get];

    /// The name of its directory.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Transaction => "TRANSACTION",
            Self::Batch => "BATCH",
            Self::Get => "GET",
        }
    }
}

/// Where in the simulator's directory a stored resource lies, in 64 bits for the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The operation whose directory holds the event.
    pub operation: Operation,
    /// The number in the file's name, `Patient<number>.json`; 0 where nothing was stored (a deletion).
    pub number: u32,
    /// The file's length in bytes: another length is damage.
    pub bytes: u32,
}

impl Place {
    /// The number for the index.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        let operation = Operation::ALL.iter().position(|o| *o == self.operation).unwrap_or(0) as u64;
        operation << 56 | u64::from(self.number & 0xff_ffff) << 32 | u64::from(self.bytes)
    }

    /// Reads the index's number.
    #[must_use]
    pub fn from_u64(raw: u64) -> Self {
        let operation = Operation::ALL[(raw >> 56) as usize % Operation::ALL.len()];
        Self { operation, number: (raw >> 32 & 0xff_ffff) as u32, bytes: (raw & 0xffff_ffff) as u32 }
    }
}

/// What an exchange did to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The first version, by POST.
    Create,
    /// A version by PUT.
    Update,
    /// A version by PATCH.
    Patch,
    /// A deletion.
    Delete,
    /// Nothing is left, not even that there was something.
    Purge,
}

impl Change {
    /// The code in the index.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            Self::Create => 0,
            Self::Update => 1,
            Self::Patch => 2,
            Self::Delete => 3,
            Self::Purge => 4,
        }
    }

    /// Reads the code in the index.
    #[must_use]
    pub fn from_code(code: u64) -> Self {
        match code {
            0 => Self::Create,
            1 => Self::Update,
            2 => Self::Patch,
            3 => Self::Delete,
            _ => Self::Purge,
        }
    }

    /// The HTTP method of a history entry.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete | Self::Purge => "DELETE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_the_index() {
        for (operation, number, bytes) in [(Operation::Post, 1, 0), (Operation::Get, 0xff_ffff, u32::MAX), (Operation::Batch, 77, 1)] {
            let place = Place { operation, number, bytes };
            assert_eq!(Place::from_u64(place.to_u64()), place);
        }
    }
}
