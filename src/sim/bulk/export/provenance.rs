//! The Provenance of what was exported.

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::{Associated, BATCH, Export, failed, hash};
use crate::fhir::reference::Reference;
use crate::fhir::{Failure, Kind};
use crate::index::Hit;
use crate::query::Query;
use crate::search::extract::references;

impl Export<'_> {
    /// The Provenance of what was exported.
    pub(super) fn provenance(&mut self, which: Associated) -> Result<(), Failure> {
        // Whosever it is: it is about what is exported.
        let query = Query::and(self.wanted("Provenance")?);
        let seen = self.seen.take().unwrap_or_default();
        // By what it is about, the latest one: when it was recorded, and which it is.
        let mut latest: FxHashMap<u64, (String, Hit)> = FxHashMap::default();
        let mut chosen: Vec<Hit> = Vec::new();
        let mut after = None;
        loop {
            let (found, wanted) = self.hits(&query, after.as_ref(), BATCH)?;
            for hit in wanted {
                let value: Value = serde_json::from_str(&self.text("Provenance", &hit.version)?).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
                let about: Vec<u64> = self.targets(&value).into_iter().filter(|uid| seen.contains(uid)).collect();
                let recorded = value["recorded"].as_str().unwrap_or_default().to_owned();
                match which {
                    Associated::RelevantProvenanceResources if !about.is_empty() => chosen.push(hit),
                    Associated::RelevantProvenanceResources => {}
                    Associated::LatestProvenanceResources => {
                        for uid in about {
                            let is_later = latest.get(&uid).is_none_or(|(other, _)| moment(other) < moment(&recorded));
                            if is_later {
                                latest.insert(uid, (recorded.clone(), hit.clone()));
                            }
                        }
                    }
                }
            }
            if found.hits.len() < BATCH {
                break;
            }
            after = found.last;
        }
        chosen.extend(latest.into_values().map(|(_, hit)| hit));
        chosen.sort_by_key(|hit| (hit.version.event, hit.version.place.number));
        chosen.dedup_by_key(|hit| (hit.version.event, hit.version.place.number));
        let copies = self.order.times.max(1);
        self.job.expect(chosen.len() * copies);
        for copy in 0..copies {
            for hits in chosen.chunks(self.order.page.max(1)) {
                let mut file = self.next_file("Provenance")?;
                for hit in hits {
                    if let Some(line) = self.resource("Provenance", hit, copy)? {
                        file.add(&line).map_err(failed)?;
                    }
                }
                let output = file.end("Provenance").map_err(failed)?;
                self.job.found(|state| state.output.extend(output));
            }
        }
        Ok(())
    }

    /// What a Provenance is about.
    fn targets(&self, provenance: &Value) -> Vec<u64> {
        let mut found = Vec::new();
        let (origin, definitions) = (self.snapshot.origin(), self.snapshot.definitions());
        references(&provenance["target"], "Provenance", &mut |text| {
            if let Reference::Local { type_name, id, .. } = Reference::parse(origin.local_part(text).unwrap_or(text), definitions) {
                found.push(hash(&format!("{type_name}/{id}")));
            }
        });
        found
    }
}

/// An instant as it compares.
fn moment(text: &str) -> i64 {
    crate::fhir::instant::parse(text).map_or(i64::MIN, |interval| interval.low)
}
