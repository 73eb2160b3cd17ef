//! References between the entries of a transaction, rewritten to the ids that their targets get.

use rustc_hash::FxHashMap;

use super::super::Content;
use crate::fhir::id::clip;
use crate::fhir::reference::Reference;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, Resource, raw};

/// What references shall say instead.
pub struct Renames {
    definitions: &'static Definitions,
    /// By `fullUrl`.
    full: FxHashMap<String, String>,
    /// By the `Type/id` that a RESTful `fullUrl` ends in: relative references are relative to it.
    relative: FxHashMap<String, String>,
}

/// Elements that may hold a `urn:` of another entry besides `reference`: those of type uri, url, oid and uuid that a
/// choice names so. Canonicals are left alone.
const URI_CHOICES: [&str; 4] = ["valueUri", "valueUrl", "valueOid", "valueUuid"];

impl Renames {
    pub fn new(definitions: &'static Definitions) -> Self {
        Self { definitions, full: FxHashMap::default(), relative: FxHashMap::default() }
    }

    /// Entries with `full_url` are about the resource `uid`.
    pub fn add(&mut self, full_url: &str, uid: &str) -> Result<(), Failure> {
        let relative = match Reference::parse(full_url, self.definitions) {
            Reference::Local { .. } => Some(full_url.to_owned()),
            _ if full_url.starts_with("urn:") => None,
            Reference::Contained(_) | Reference::Conditional { .. } | Reference::Other(_) => {
                let mut parts = full_url.rsplit('/');
                let (id, type_name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                self.definitions.resource_type(type_name).is_ok().then(|| format!("{type_name}/{id}"))
            }
        };
        if let Some(relative) = relative {
            self.relative.insert(relative, uid.to_owned());
        }
        match self.full.insert(full_url.to_owned(), uid.to_owned()) {
            Some(other) if other != uid => {
                Err(Failure::new(Kind::Invalid, format!("fullUrl '{}' is that of another entry too; each entry needs its own", clip(full_url)))
                    .at("Bundle.entry.fullUrl"))
            }
            _ => Ok(()),
        }
    }

    /// Rewrites the references of a resource, the conditional ones by what `find` finds.
    pub fn rewrite(
        &self,
        content: &mut Content,
        version: FhirVersion,
        mut find: impl FnMut(&'static str, &str) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let mut failed = None;
        let edits = raw::string_edits(&content.text, &mut |key, text| {
            if key != "reference" {
                return (URI_CHOICES.contains(&key) && text.starts_with("urn:")).then(|| self.full.get(text).cloned()).flatten();
            }
            if let Some(uid) = self.full.get(text).or_else(|| self.relative.get(text)) {
                return Some(uid.clone());
            }
            match Reference::parse(text, self.definitions) {
                Reference::Conditional { type_name, query } => {
                    let type_name = self.definitions.resource_type(type_name).ok()?;
                    find(type_name, query).map_err(|f| failed = Some(f)).ok()
                }
                Reference::Local { .. } | Reference::Contained(_) | Reference::Other(_) => None,
            }
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        if !edits.is_empty() {
            content.text = raw::apply(&content.text, edits);
            content.resource = Resource::parse(content.text.as_bytes(), version)?;
        }
        Ok(())
    }
}
