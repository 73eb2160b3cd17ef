//! What a purge removes: the files of superseded versions, and the bodies of the exchanges that brought them.
//!
//! The purge is an event itself, committed before anything is removed. Its record names the folders; removing is done again
//! when the event is replayed, so that a server that ended in between has lost nothing but time.

use std::fs;
use std::io;

use crate::clock::EventId;
use crate::simdb::event::{EventRecord, RECORD};
use crate::simdb::write::replace_file;
use crate::simdb::{SimDir, scan};
use crate::version::{Change, Operation};

/// Removes what the purge in an event supersedes.
pub(super) fn of_event(dir: &SimDir, operation: Operation, event: EventId) -> io::Result<()> {
    let record = scan::record(dir, operation, event).map_err(|d| io::Error::other(d.reason))?;
    superseded(dir, &record)
}

/// Removes what the purges that `record` tells of supersede.
pub(super) fn superseded(dir: &SimDir, record: &EventRecord) -> io::Result<()> {
    for resource in record.resources.iter().filter(|r| r.purges) {
        let mut folders: Vec<String> = resource.rewrites.clone().unwrap_or_default();
        let mut seen = Vec::new();
        while let Some(folder) = folders.pop() {
            let Some((operation, event)) = place(&folder).filter(|(_, event)| event.to_string() != record.event) else { continue };
            if !seen.contains(&folder) {
                seen.push(folder);
                // What was rewritten before has left files behind in older folders.
                folders.extend(strip(dir, operation, event, &resource.type_name, &resource.id)?);
            }
        }
    }
    Ok(())
}

/// Where a folder such as `PUT/2026_…` lies.
pub(super) fn place(folder: &str) -> Option<(Operation, EventId)> {
    let (operation, event) = folder.split_once('/')?;
    Some((Operation::ALL.into_iter().find(|o| o.directory() == operation)?, event.parse().ok()?))
}

/// Removes a resource from an event's folder; returns the folders that its history was in before, if the event rewrote it.
fn strip(dir: &SimDir, operation: Operation, event: EventId, type_name: &str, id: &str) -> io::Result<Vec<String>> {
    let folder = dir.event(operation, event);
    let bytes = match fs::read(folder.join(RECORD)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut record: EventRecord = serde_json::from_slice(&bytes)?;
    let mut gone = Vec::new();
    let mut before = Vec::new();
    for resource in record.resources.iter_mut().filter(|r| r.type_name == type_name && r.id == id) {
        gone.extend(resource.file.take());
        before.extend(resource.rewrites.take().unwrap_or_default());
        (resource.bytes, resource.purged) = (0, resource.change != Change::Purge);
    }
    // The bodies of the exchange hold what was purged, too.
    gone.extend(record.request.body.take());
    gone.extend(record.response.body.take());
    record.request.body_bytes = 0;
    replace_file(&folder.join(RECORD), &serde_json::to_vec_pretty(&record)?)?;
    for file in gone {
        match fs::remove_file(folder.join(file)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(before)
}
