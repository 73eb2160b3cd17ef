//! Templates: named states that simulators begin as, on this server.
//!
//! A template is a simulator of the session `templates` with a snapshot, `template`; what begins as one is a clone of that
//! snapshot, whatever is written to the simulator later. They are uploaded, made of another simulator, or lie as archives,
//! `<name>.tar.zst`, in a directory, from which each is taken in when it is first asked for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use parking_lot::Mutex;

use super::instant::SnapshotInfo;
use super::registry::{Registry, Wanted};
use super::storage_failure;
use crate::fhir::definitions::nearest;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::simdb::SimId;

/// The session that templates are simulators of.
pub const SESSION: &str = "templates";
/// The snapshot that is the template.
const SNAPSHOT: &str = "template";
/// How archives end.
const ENDING: &str = ".tar.zst";

/// The directory of archives.
#[derive(Debug, Default)]
pub(super) struct Templates {
    dir: Mutex<Option<PathBuf>>,
    /// Held while a template is made.
    making: Mutex<()>,
}

impl Registry {
    /// Takes templates from the archives of a directory, too.
    pub fn take_templates_from(&self, dir: PathBuf) {
        *self.templates.dir.lock() = Some(dir);
    }

    /// The names of all templates, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn templates(&self) -> Result<Vec<String>, Failure> {
        let (made, _) = self.list(Some(SESSION), &|_| true, None, usize::MAX);
        let mut names: Vec<String> = made.into_iter().map(|summary| summary.name).collect();
        let dir = self.templates.dir.lock().clone();
        if let Some(dir) = &dir {
            match fs::read_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                listed => {
                    let listed = listed.map_err(|e| storage_failure(&format!("the templates in {} cannot be listed", dir.display()), &e))?;
                    let archives = listed.filter_map(|entry| entry.ok().filter(|e| e.path().is_file())?.file_name().into_string().ok());
                    names.extend(archives.filter_map(|file| file.strip_suffix(ENDING).filter(|name| sim(name).is_ok()).map(str::to_owned)));
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// A template that is there: its simulator, and its snapshot.
    ///
    /// # Errors
    /// There is none of that name; its archive cannot be taken in.
    pub fn template(&self, name: &str) -> Result<(SimId, SnapshotInfo), Failure> {
        let id = sim(name)?;
        let _alone = self.templates.making.lock();
        let dir = self.templates.dir.lock().clone();
        if let Err(failure) = self.summary(&id) {
            let archive = dir.as_ref().map(|dir| dir.join(format!("{name}{ENDING}"))).filter(|file| file.is_file());
            let Some(archive) = archive.filter(|_| failure.kind == Kind::UnknownSimulator) else {
                return Err(self.no_template(name));
            };
            let from = File::open(&archive).map_err(|e| storage_failure(&format!("{} cannot be read", archive.display()), &e))?;
            self.import(&id, from)?;
            tracing::info!(template = name, archive = %archive.display(), "a template is taken in");
        }
        // What ended before it had its snapshot gets it now.
        let known = self.snapshots(&id)?.into_iter().find(|snapshot| snapshot.name == SNAPSHOT);
        Ok((id.clone(), known.map_or_else(|| self.take_snapshot(&id, SNAPSHOT), Ok)?))
    }

    /// Makes a template of an archive.
    ///
    /// # Errors
    /// [`Kind::Conflict`]: there is one of this name; the archive is none.
    pub fn upload_template(&self, name: &str, archive: impl Read) -> Result<SnapshotInfo, Failure> {
        let id = sim(name)?;
        // Not under the lock: the archive comes as slowly as the network does.
        self.import(&id, archive)?;
        self.template(name).map(|(_, snapshot)| snapshot)
    }

    /// Makes a template of a simulator as it is now, or of a snapshot of it.
    ///
    /// # Errors
    /// [`Kind::Conflict`]: there is one of this name; there is no such simulator or snapshot.
    pub fn make_template(&self, name: &str, from: &SimId, snapshot: Option<&str>) -> Result<SnapshotInfo, Failure> {
        self.clone_sim(&sim(name)?, from, snapshot, &Wanted::default())?;
        self.template(name).map(|(_, snapshot)| snapshot)
    }

    /// Forgets a template; what began as it stays. If it came from a directory it is taken in anew when it is asked for.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn delete_template(&self, name: &str) -> Result<(), Failure> {
        let id = sim(name)?;
        let _alone = self.templates.making.lock();
        self.delete(&id)
    }

    /// Makes a simulator that begins as a template.
    ///
    /// # Errors
    /// As [`Registry::template`] and [`Registry::clone_sim`].
    pub fn create_from_template(&self, id: &SimId, name: &str, wanted: &Wanted) -> Result<(), Failure> {
        Self::refuse_taken(id, &self.sims.read())?;
        let (template, _) = self.template(name)?;
        self.clone_sim(id, &template, Some(SNAPSHOT), wanted)
    }

    fn no_template(&self, name: &str) -> Failure {
        let names = self.templates().unwrap_or_default();
        let near = nearest(name, names.iter().map(String::as_str)).map(|near| format!("; did you mean '{near}'?"));
        let known = near.unwrap_or_else(|| if names.is_empty() { "; there are none".to_owned() } else { format!("; there are {}", names.join(", ")) });
        Failure::new(Kind::NotFound, format!("unknown template '{}'{known}", clip(name)))
    }
}

/// The simulator that a template is.
fn sim(name: &str) -> Result<SimId, Failure> {
    format!("{SESSION}__{name}").parse().map_err(|_| {
        let rule = "1-64 of A-Z a-z 0-9 . _ -, beginning and ending with a letter or digit, without a double underscore";
        Failure::new(Kind::BadValue, format!("'{}' is not the name of a template: {rule}", clip(name)))
    })
}
