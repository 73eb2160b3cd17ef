//! A simulator as one file, `.tar.zst`: what it was made to be, its markers, and every event folder, those of what it builds on
//! too. Indexes are not in it; they are made anew.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tar::{Archive, Builder, EntryType, Header};

use super::commit::Sim;
use super::held::Held;
use super::profile::{Profile, known_type};
use super::registry::Registry;
use crate::clock::{EventId, instant};
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::simdb::EventRecord;
use crate::simdb::SimId;
use crate::simdb::event::{DATE, RECORD, is_file_name};
use crate::simdb::event_index::Filter;
use crate::version::Operation;

/// Most bytes that an archive may unpack to.
const MAX_BYTES: u64 = 16 << 30;
/// Most files in an archive.
const MAX_FILES: u64 = 20_000_000;
/// How far ahead of the clock an event may be, in milliseconds.
const LATEST_MS: i64 = 24 * 60 * 60 * 1_000;
/// The greatest number of an event or a version: all that JSON readers can count to.
const MAX_NUMBER: u64 = (1 << 53) - 1;
/// The greatest file that is no event's.
const MAX_OWN: u64 = 16 << 20;
/// Most bytes after the last file: some programs fill up with zeros.
const MAX_END: usize = 1 << 20;
/// How hard to compress; the default of the format.
const LEVEL: i32 = 3;

/// What was written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Event folders.
    pub events: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// What is written out: a simulator as it was when that began.
pub struct Export {
    id: SimId,
    profile: Profile,
    markers: Option<Vec<u8>>,
    events: Vec<(EventId, Operation)>,
    held: Held,
}

impl Sim {
    /// Begins to write the simulator out as it is now. If it is over by now, what is begun is of no account.
    ///
    /// # Errors
    /// The file system's.
    pub fn export(self: &Arc<Self>) -> io::Result<Export> {
        let held = self.hold()?;
        let upto = self.next_event().min(self.settled());
        Ok(Export {
            id: self.id().clone(),
            profile: Profile { base: None, ..(*self.profile()).clone() },
            markers: fs::read(held.own().root().join("markers.json")).ok(),
            events: self.find_events(&Filter::default(), (EventId::ZERO, upto), false, usize::MAX)?,
            held,
        })
    }
}

impl Export {
    /// Writes it.
    ///
    /// # Errors
    /// The file system's, or `out`'s.
    pub fn write(self, out: impl Write) -> io::Result<Counted> {
        let mut tar = Builder::new(zstd::Encoder::new(out, LEVEL)?);
        append(&mut tar, "simid.txt", self.id.as_str().as_bytes())?;
        append(&mut tar, "sim.json", &serde_json::to_vec_pretty(&self.profile)?)?;
        if let Some(markers) = &self.markers {
            append(&mut tar, "markers.json", markers)?;
        }
        let mut counted = Counted::default();
        for (event, operation) in self.events {
            let folder = self.held.dir_of(event).event(operation, event);
            let mut names: Vec<String> = fs::read_dir(&folder)?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
            names.sort_unstable();
            for name in names {
                let bytes = fs::read(folder.join(&name))?;
                append(&mut tar, &format!("fhir/{}/{event}/{name}", operation.directory()), &bytes)?;
                counted.bytes += bytes.len() as u64;
            }
            counted.events += 1;
        }
        tar.into_inner()?.finish()?.flush()?;
        Ok(counted)
    }
}

fn append(tar: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(EntryType::Regular);
    tar.append_data(&mut header, path, bytes)
}

impl Registry {
    /// Makes a simulator of what [`Sim::export`] has written.
    ///
    /// # Errors
    /// [`Kind::Conflict`]: there is one of this name; the archive is none, or holds what no archive of ours holds: nothing is left of it then.
    pub fn import(&self, id: &SimId, from: impl Read) -> Result<Counted, Failure> {
        Self::refuse_taken(id, &self.sims.read())?;
        let failed = |e: io::Error| super::storage_failure(&format!("simulator {id} cannot be made"), &e);
        let empty = Profile {
            sim_type: super::profile::FHIR_TYPE.to_owned(),
            fhir_version: FhirVersion::default().name().to_owned(),
            created: instant(self.clock().now_ms()),
            base: None,
            horizon: None,
            settings: super::Settings::default(),
        };
        let staged = self.stage(id, &empty).map_err(failed)?;
        let unpacked = unpack(from, &staged, self.clock().now_ms().saturating_add(LATEST_MS)).and_then(|counted| self.place(id, &staged).map(|()| counted));
        if unpacked.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        unpacked
    }
}

/// Unpacks an archive into the directory of a simulator that is still to be put into its place.
fn unpack(from: impl Read, staged: &Path, latest_ms: i64) -> Result<Counted, Failure> {
    let broken =
        |e: &dyn std::fmt::Display| Failure::new(Kind::Malformed, format!("the archive cannot be read: {e}; it is a .tar.zst that an export has made"));
    let decoder = zstd::Decoder::new(from).map_err(|e| broken(&e))?;
    let mut archive = Archive::new(decoder.take(MAX_BYTES));
    let (mut counted, mut files, mut folder, mut described) = (Counted::default(), 0, PathBuf::new(), false);
    // As they stand: long names, which an export needs none of, would be read into memory.
    for entry in archive.entries().map_err(|e| broken(&e))?.raw(true) {
        let mut entry = entry.map_err(|e| broken(&e))?;
        let path = entry.path().map_err(|e| broken(&e))?.into_owned();
        let shown = clip(&path.display().to_string());
        let refused = |why: &str| Failure::new(Kind::Invalid, format!("the archive holds '{shown}', {why}; nothing was made"));
        if entry.header().entry_type() != EntryType::Regular {
            return Err(refused("which is no plain file"));
        }
        files += 1;
        counted.bytes = counted.bytes.saturating_add(entry.size());
        if files > MAX_FILES || counted.bytes > MAX_BYTES {
            return Err(Failure::new(Kind::TooLarge, format!("the archive unpacks to more than {MAX_FILES} files or {MAX_BYTES} bytes")));
        }
        let place = place(&path).ok_or_else(|| refused("which no simulator has"))?;
        let own = |entry: &mut dyn Read| {
            let mut bytes = Vec::new();
            entry.take(MAX_OWN).read_to_end(&mut bytes).map(|_| bytes).map_err(|e| broken(&e))
        };
        let written = match place {
            Place::Id => continue,
            Place::Profile => {
                described = true;
                let profile = proven(&own(&mut entry)?)?;
                let text = serde_json::to_vec_pretty(&profile).unwrap_or_default();
                fs::write(staged.join("sim.json"), text).and_then(|()| fs::write(staged.join("sim_type.txt"), &profile.sim_type))
            }
            Place::Markers => {
                let bytes = own(&mut entry)?;
                serde_json::from_slice::<Value>(&bytes).map_err(|_| refused("which is no JSON"))?;
                fs::write(staged.join("markers.json"), bytes)
            }
            Place::Event(operation, event, name) => {
                let here = staged.join("fhir").join(operation.directory()).join(event.to_string());
                if folder != here {
                    proven_event(&folder, latest_ms)?;
                    counted.events += 1;
                    fs::create_dir_all(&here).map_err(|e| super::storage_failure("the archive cannot be unpacked", &e))?;
                    folder = here;
                }
                match File::create_new(folder.join(name)) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(refused("twice")),
                    made => made.and_then(|mut file| io::copy(&mut entry, &mut file)).map(drop),
                }
            }
        };
        // What the system did not refuse is the archive's fault.
        let failed = |e: io::Error| if e.raw_os_error().is_some() { super::storage_failure(&format!("'{shown}' cannot be unpacked"), &e) } else { broken(&e) };
        written.map_err(failed)?;
    }
    proven_event(&folder, latest_ms)?;
    proven_end(archive.into_inner()).map_err(|e| broken(&e))?;
    if described {
        Ok(counted)
    } else {
        Err(Failure::new(Kind::Invalid, "the archive has no sim.json: it is none of a simulator, or was cut short; nothing was made"))
    }
}

/// Proves that what follows the entries is the mark of the end, blocks of zeros of which the first is read, and nothing else.
fn proven_end(mut rest: impl Read) -> io::Result<()> {
    let (mut piece, mut length) = ([0; 4096], 0);
    loop {
        let read = rest.read(&mut piece)?;
        if read == 0 {
            break;
        }
        length += read;
        if length > MAX_END || piece[..read].iter().any(|byte| *byte != 0) {
            return Err(io::Error::other("something follows its end"));
        }
    }
    if length > 0 { Ok(()) } else { Err(io::Error::other("it was cut short")) }
}

/// Proves the folder of an event, if there is one: it is called as its record says, holds nothing that the record does not name, and has no
/// number from which one cannot count on. What is damaged otherwise is set aside when the simulator is opened.
fn proven_event(folder: &Path, latest_ms: i64) -> Result<(), Failure> {
    let (Some(name), Ok(bytes)) = (folder.file_name().map(|name| name.to_string_lossy().into_owned()), fs::read(folder.join(RECORD))) else { return Ok(()) };
    let refused = |why: String| Err(Failure::new(Kind::Invalid, format!("the archive's event {name} {why}; nothing was made")));
    let Ok(record) = serde_json::from_slice::<EventRecord>(&bytes) else { return Ok(()) };
    if record.event != name {
        return refused(format!("is called '{}' in its {RECORD}", clip(&record.event)));
    }
    if record.event.parse::<EventId>().is_ok_and(|event| event.millis() > latest_ms) {
        return refused("is more than a day ahead of this server's clock".to_owned());
    }
    if record.sequence > MAX_NUMBER || record.resources.iter().any(|resource| resource.version_id > MAX_NUMBER) {
        return refused(format!("has a number greater than {MAX_NUMBER}"));
    }
    let named = |file: &str| {
        let of_record = [&record.request.body, &record.response.body].into_iter().flatten().any(|body| body == file);
        file == RECORD || file == DATE || of_record || record.resources.iter().any(|resource| resource.file.as_deref() == Some(file))
    };
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    match files.into_iter().find(|file| !named(file)) {
        Some(file) => refused(format!("holds '{}', which its {RECORD} does not name", clip(&file))),
        None => Ok(()),
    }
}

/// Where a file of an archive belongs.
enum Place {
    Id,
    Profile,
    Markers,
    Event(Operation, EventId, String),
}

/// The place of a path, if it is one that an export writes: no path is made of the archive's text.
fn place(path: &Path) -> Option<Place> {
    let parts: Vec<&str> = path.components().map(|c| if let Component::Normal(part) = c { part.to_str() } else { None }).collect::<Option<_>>()?;
    match parts[..] {
        ["simid.txt"] => Some(Place::Id),
        ["sim.json"] => Some(Place::Profile),
        ["markers.json"] => Some(Place::Markers),
        ["fhir", operation, event, name] => {
            let operation = Operation::ALL.into_iter().find(|o| o.directory() == operation)?;
            Some(Place::Event(operation, event.parse().ok()?, name.to_owned())).filter(|_| is_file_name(name))
        }
        _ => None,
    }
}

/// Proves what an archive says the simulator was made to be.
fn proven(bytes: &[u8]) -> Result<Profile, Failure> {
    let bad = |e: &dyn std::fmt::Display| Failure::new(Kind::Invalid, format!("the sim.json of the archive cannot be used: {e}; nothing was made"));
    let profile: Profile = serde_json::from_slice(bytes).map_err(|e| bad(&e))?;
    known_type(&profile.sim_type).map_err(|f| bad(&f))?;
    profile.fhir_version.parse::<FhirVersion>().map_err(|f| bad(&f))?;
    super::faults::proven(&profile.settings.faults).map_err(|f| bad(&f))?;
    profile.settings.retention.proven().map_err(|f| bad(&f))?;
    profile.settings.bulk.proven().map_err(|f| bad(&f))?;
    if profile.base.is_some() { Err(bad(&"it builds on what is not in the archive")) } else { Ok(profile) }
}
