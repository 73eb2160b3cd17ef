//! Events found again on disk, for replay after a stop and for rebuilding the index.

use std::fs;
use std::io;
use std::path::Path;

use super::event::{EventRecord, RECORD};
use super::layout::SimDir;
use crate::clock::EventId;
use crate::version::Operation;

/// Why an event folder cannot be used: it was cut short by a crash of the machine, or edited.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Damage {
    /// The event folder, relative to the simulator's `fhir` directory.
    pub folder: String,
    /// What is wrong, for a person.
    pub reason: String,
}

/// The events after `after`, oldest first.
///
/// # Errors
/// The file system's.
pub fn events_after(dir: &SimDir, after: EventId) -> io::Result<Vec<(EventId, Operation)>> {
    let mut found = Vec::new();
    for operation in Operation::ALL {
        let names = match fs::read_dir(dir.operation(operation)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in names {
            if let Some(Ok(id)) = entry?.file_name().to_str().map(str::parse::<EventId>)
                && id > after
            {
                found.push((id, operation));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The operation under which `event` is filed, if it exists.
#[must_use]
pub fn find(dir: &SimDir, event: EventId) -> Option<Operation> {
    Operation::ALL.into_iter().find(|operation| dir.event(*operation, event).is_dir())
}

/// Reads the record of an event and proves that the files it names are whole.
///
/// # Errors
/// What is damaged.
pub fn record(dir: &SimDir, operation: Operation, event: EventId) -> Result<EventRecord, Damage> {
    let folder = dir.event(operation, event);
    let damage = |reason: String| Damage { folder: format!("{}/{event}", operation.directory()), reason };
    let bytes = fs::read(folder.join(RECORD)).map_err(|e| damage(format!("{RECORD}: {e}")))?;
    let record: EventRecord = serde_json::from_slice(&bytes).map_err(|e| damage(format!("{RECORD}: {e}")))?;
    for resource in &record.resources {
        if let Some(file) = &resource.file {
            whole(&folder.join(file), u64::from(resource.bytes)).map_err(|reason| damage(format!("{file}: {reason}")))?;
        }
    }
    if let Some(file) = &record.request.body {
        whole(&folder.join(file), record.request.body_bytes).map_err(|reason| damage(format!("{file}: {reason}")))?;
    }
    Ok(record)
}

fn whole(path: &Path, expected: u64) -> Result<(), String> {
    let found = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if found == expected { Ok(()) } else { Err(format!("has {found} bytes, {expected} were written")) }
}

/// Removes what was staged when the last server ended; returns how much that was.
///
/// # Errors
/// The file system's.
pub fn sweep(dir: &SimDir) -> io::Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(dir.staging())? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
        swept += 1;
    }
    Ok(swept)
}
