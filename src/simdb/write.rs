//! An event folder comes to be: staged beside, filled, renamed into place whole.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use super::layout::SimDir;
use crate::clock::EventId;
use crate::version::Operation;

/// A file of an event folder.
#[derive(Debug)]
pub struct File<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// Makes the directories that event folders need.
///
/// # Errors
/// The file system's.
pub fn prepare(dir: &SimDir) -> io::Result<()> {
    fs::create_dir_all(dir.events())?;
    fs::create_dir_all(dir.staging())
}

/// Writes the folder of an event; it appears with all `files` or not at all.
///
/// # Errors
/// The file system's, for example that it is full; nothing of the event is left then.
pub fn event_folder(dir: &SimDir, operation: Operation, event: EventId, files: &[File<'_>]) -> io::Result<PathBuf> {
    let name = event.to_string();
    let staged = dir.staging().join(&name);
    let place = dir.operation(operation).join(&name);
    fill(&staged, files).and_then(|()| settle(&staged, &place)).inspect_err(|_| {
        // What could not be finished is no event; the sweep at the next open takes what cannot be removed now.
        let _ = fs::remove_dir_all(&staged);
    })?;
    Ok(place)
}

fn fill(staged: &PathBuf, files: &[File<'_>]) -> io::Result<()> {
    // Not with its parents: a simulator that was deleted meanwhile must not come back.
    fs::create_dir(staged)?;
    for file in files {
        fs::File::create_new(staged.join(file.name))?.write_all(file.bytes)?;
    }
    Ok(())
}

fn settle(staged: &PathBuf, place: &PathBuf) -> io::Result<()> {
    match fs::rename(staged, place) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // The first event of its operation.
            if let Some(parent) = place.parent() {
                match fs::create_dir(parent) {
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    other => other?,
                }
            }
            fs::rename(staged, place)
        }
        other => other,
    }
}

/// Replaces a file by one with other content, whole or not at all.
///
/// # Errors
/// The file system's.
pub fn replace_file(path: &PathBuf, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}
