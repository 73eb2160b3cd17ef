//! Search parameters of a simulator's own come and go: what is stored is indexed anew for them, in the background. Or all of it, when asked.
//!
//! New parameters are extracted from every write at once, and from what is there already piece by piece; they can be
//! searched by when all of it is done. Each piece pushes the resources' current versions once more, with their new keys,
//! over what the index holds. What a commit was indexed under, its payload tells: after a crash the work is done again.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use super::commit::Sim;
use super::lifecycle::Flusher;
use super::registry::Registry;
use super::snapshot::{Snapshot, Stored};
use crate::fhir::{Failure, Kind};
use crate::index::{Budget, Entry};
use crate::query::Query;
use crate::search::custom::{self, Known, OfType};
use crate::search::extract::type_term;
use crate::search::params::Params;
use crate::simdb::{SimDir, SimId};

/// Resources that are indexed anew between two looks at the lock.
const PIECE: usize = 256;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The parameters that come or go, such as `Patient/eye-colour`.
    pub parameters: Vec<String>,
    /// Resources done.
    pub done: usize,
    /// Resources in all.
    pub total: usize,
}

/// The progress that others may look at.
pub(super) type Shown = Mutex<Option<Progress>>;

/// The search parameters that are stored in a simulator.
pub(super) struct Own {
    pub(super) params: Vec<OfType>,
    /// The resources that make them, with their versions.
    pub(super) fingerprint: String,
}

impl Snapshot {
    /// What a SearchParameter that is to be stored under an id makes.
    ///
    /// # Errors
    /// It is active and cannot be searched by: what is wrong, and in which element.
    pub fn params_of(&self, resource: &Value, id: &str) -> Result<Vec<OfType>, Failure> {
        let parts = if custom::is_composite(resource) { self.parts_of(resource) } else { Vec::new() };
        let made = custom::read(resource, self.definitions(), &parts)?;
        let Some((_, first)) = made.first() else { return Ok(made) };
        // Two of one name: the second would be dead.
        for other in self.active(Query::term(&format!("SearchParameter/code\u{1f}c{}", first.code))) {
            let (names, other) = (custom::names(&other, self.definitions()), other["id"].as_str().unwrap_or_default());
            if other != id && made.iter().any(|(_, new)| names.iter().any(|name| **name == *new.name)) {
                let message = format!(
                    "SearchParameter.code '{}' is that of SearchParameter/{other}, which is active for the same types; choose another code, or delete or retire SearchParameter/{other}",
                    first.code
                );
                return Err(Failure::new(Kind::Unprocessable, message).at("SearchParameter.code"));
            }
        }
        Ok(made)
    }

    /// Those of its own that a composite is made of.
    fn parts_of(&self, composite: &Value) -> Vec<Known> {
        let urls: Vec<&str> = custom::parts(composite).collect();
        let url = self.params.of("SearchParameter").get("url");
        let by_url = urls.iter().filter_map(|part| Some(Query::term(&url?.key('l', part)))).collect();
        let by_id = urls.iter().filter_map(|part| {
            let id = part.rsplit_once('/').filter(|(before, _)| before.ends_with("SearchParameter"))?.1.parse().ok()?;
            let version = self.latest("SearchParameter", &id).filter(|v| !v.is_deletion())?;
            serde_json::from_slice(&self.body("SearchParameter", &version).ok()?).ok()
        });
        self.active(Query::or(by_url)).into_iter().chain(by_id).filter_map(|value| Known::of(&value, self.definitions())).collect()
    }

    /// The SearchParameters that are active, of those that are `wanted`.
    fn active(&self, wanted: Query) -> Vec<Value> {
        let found = self.matching(&Query::and(vec![wanted, active()]), MAX_OWN, &Budget::new(u64::MAX)).unwrap_or_default().1;
        found.iter().filter_map(|stored| serde_json::from_slice(&stored.body).ok()).collect()
    }

    /// The search parameters that are stored in it and active.
    pub(super) fn own_params(&self) -> Own {
        let (_, found) = self.matching(&active(), MAX_OWN, &Budget::new(u64::MAX)).unwrap_or_default();
        let mut own: Vec<(String, Vec<OfType>)> = Vec::new();
        let read = found.iter().filter_map(|Stored { version, body, .. }| Some((version, serde_json::from_slice::<Value>(body).ok()?)));
        let (composite, plain): (Vec<_>, Vec<_>) = read.partition(|(_, value)| custom::is_composite(value));
        let known: Vec<Known> = plain.iter().filter_map(|(_, value)| Known::of(value, self.definitions())).collect();
        for (version, value) in plain.iter().chain(&composite) {
            // What was stored was valid; what is not any more, after an update of this server, is left out.
            let params = custom::read(value, self.definitions(), &known).unwrap_or_default();
            if !params.is_empty() {
                let id = value.get("id").and_then(Value::as_str).unwrap_or_default();
                // The mark tells an index apart that was made when the parts of composites had no keys.
                let mark = if custom::is_composite(value) { "+parts" } else { "" };
                own.push((format!("{id}@{}@{}{mark}", version.id, version.event), params));
            }
        }
        own.sort_by(|a, b| a.0.cmp(&b.0));
        let fingerprint = own.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
        Own { params: own.into_iter().flat_map(|(_, params)| params).collect(), fingerprint }
    }

    /// Makes its parameters the ones that the index has been built with.
    pub(super) fn adopt(&mut self, own: Own) {
        self.params = Params::with(self.store.version, own.params);
        self.indexing = self.params.clone();
        self.indexed_with = own.fingerprint.into();
    }
}

/// The SearchParameters that are active.
fn active() -> Query {
    Query::and(vec![Query::term(&type_term("SearchParameter")), Query::term("SearchParameter/status\u{1f}cactive")])
}

/// Most parameters of its own that a simulator has.
const MAX_OWN: usize = 10_000;

impl Snapshot {
    /// Indexes for the parameters that are stored now, if these are few resources; else says that it is to be done in the
    /// background.
    pub(super) fn follow_params(&mut self) -> bool {
        if self.indexed_with.is_empty() && self.counts.get("SearchParameter").copied().unwrap_or(0) == 0 {
            return false;
        }
        let own = self.own_params();
        if *own.fingerprint == *self.indexed_with {
            return false;
        }
        let wanted = self.announce(&own);
        let few = self.matching(&wanted, 0, &Budget::new(u64::MAX)).is_ok_and(|(total, _)| total <= PIECE);
        let Some(uids) = self.concerned(&wanted).ok().filter(|_| few) else { return true };
        for entry in self.anew(&uids) {
            self.push(entry);
        }
        self.adopt(own);
        false
    }

    /// From now on every write is indexed for the parameters to come; what goes or changes can no longer be searched by.
    /// Returns which resources are concerned.
    fn announce(&mut self, own: &Own) -> Query {
        let next = Params::with(self.store.version, own.params.clone());
        let mut types: Vec<&'static str> = own.params.iter().map(|(t, _)| *t).chain(self.params.own().map(|(t, _)| t)).collect();
        types.sort_unstable();
        types.dedup();
        self.params = self.params.shared_with(&next);
        self.indexing = next;
        Query::or(types.iter().map(|t| Query::term(&type_term(t))).collect())
    }

    fn concerned(&self, wanted: &Query) -> io::Result<Vec<Box<str>>> {
        self.view.uids(wanted, &|t, v| self.body(t, v).ok(), &Budget::new(u64::MAX))
    }

    /// The resources' current versions with their new keys.
    fn anew(&self, uids: &[Box<str>]) -> Vec<Arc<Entry>> {
        let entry = |uid: &str| {
            let (type_name, id) = uid.split_once('/')?;
            let (type_name, id) = (self.definitions().find_resource_type(type_name)?, id.parse().ok()?);
            let version = self.latest(type_name, &id).filter(|v| !v.is_deletion())?;
            let value: Value = serde_json::from_slice(&self.body(type_name, &version).ok()?).ok()?;
            Some(Arc::new(Entry { again: true, ..self.entry_of(type_name, &id, version, &value) }))
        };
        uids.iter().filter_map(|uid| entry(uid)).collect()
    }
}

impl Sim {
    /// Indexes for the parameters that are stored now, if they are others than before; called by the flushing threads.
    pub(super) fn follow_params(&self, boot: &str) -> io::Result<()> {
        // One at a time; who asks from here on is not overlooked.
        let _alone = self.following.lock();
        self.flusher.taken_up();
        if !self.stale_params.load(Ordering::Acquire) {
            return Ok(());
        }
        // Shown before it is taken on, so that nobody who looks sees neither.
        *self.progress.lock() = Some(Progress::default());
        self.stale_params.store(false, Ordering::Release);
        let done = self.index_for_params(boot);
        if done.is_err() {
            // For the next flush to try again.
            self.stale_params.store(true, Ordering::Release);
        }
        *self.progress.lock() = None;
        if done.is_ok() && self.stale_params.load(Ordering::Acquire) {
            self.flusher.ask();
        }
        done
    }

    fn index_for_params(&self, boot: &str) -> io::Result<()> {
        let own = self.snapshot().own_params();
        if *own.fingerprint == *self.snapshot().indexed_with {
            self.publish(|snapshot| snapshot.adopt(own));
            return Ok(());
        }
        let mut wanted = Query::None;
        self.publish(|snapshot| wanted = snapshot.announce(&own));
        let uids = self.snapshot().concerned(&wanted)?;
        let named = own.params.iter().map(|(_, p)| p.name.to_string()).collect();
        *self.progress.lock() = Some(Progress { parameters: named, done: 0, total: uids.len() });
        for piece in uids.chunks(PIECE) {
            let entries = self.snapshot().anew(piece);
            // What was written meanwhile has its keys already.
            self.publish(|now| {
                for entry in &entries {
                    if now.view.latest(&entry.uid).is_some_and(|hit| hit.version == entry.version) {
                        now.push(entry.clone());
                    }
                }
            });
            if let Some(progress) = self.progress.lock().as_mut() {
                progress.done += piece.len();
            }
            if self.is_closed() {
                break;
            }
            if Flusher::must_wait(&self.snapshot()) {
                self.flush(boot)?;
            }
        }
        if !self.is_closed() {
            self.publish(|snapshot| {
                // Parameters that came or went meanwhile begin anew.
                if snapshot.own_params().fingerprint == own.fingerprint {
                    snapshot.adopt(own);
                } else {
                    self.stale_params.store(true, Ordering::Release);
                }
            });
        }
        self.flush(boot)
    }
}

impl Registry {
    /// Builds the index of a simulator anew from its events; returns how many events there are.
    ///
    /// # Errors
    /// [`Kind::UnknownSimulator`]; the disk's refusal.
    pub fn reindex(&self, id: &SimId) -> Result<u64, Failure> {
        self.gated(id, |slot| {
            if let Some(sim) = slot.open.swap(None) {
                sim.end_writes();
                sim.undisturbed(|| ());
            }
            let dir = SimDir::new(&self.shared.root, id);
            let _ = fs::remove_file(dir.event_index());
            let rebuilt = match fs::remove_dir_all(dir.index()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => self.read_profile(id).and_then(|profile| Sim::open(&self.shared, id, profile, slot)),
            };
            let sim = rebuilt.and_then(|sim| sim.flush(&self.shared.boot).map(|()| sim));
            let sim = sim.map_err(|e| super::storage_failure(&format!("simulator {id} cannot be indexed"), &e))?;
            let events = sim.snapshot().event_count();
            slot.open.store(Some(sim));
            Ok(events)
        })
    }
}
