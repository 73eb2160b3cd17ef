//! A simulator in process, and three of them with the same content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use fhirsim::clock::Clock;
use fhirsim::fhir::{FhirVersion, Resource};
use fhirsim::interaction::{Conditions, Content, Env, Interaction, Return, Whom, delete, perform, search};
use fhirsim::sim::registry::Wanted;
use fhirsim::sim::{Draft, Registry, Sim, Stamp};
use fhirsim::simdb::journal::Durability;
use fhirsim::simdb::{EventRecord, SimId};
use fhirsim::version::Operation;
use serde_json::Value;

use super::Query;
use crate::naive::generate::{COUNTS, STRANGERS, predecessor, resource};
use crate::naive::include::Key;
use crate::naive::rng::Rng;
use crate::naive::{BASE, id_of, key_of, type_of};

/// Ten years after most of the dates.
const NOW_MS: i64 = 1_900_000_000_000;
/// When what does not say when it is written is written, at first: before everything else.
const BEFORE_MS: i64 = 1_600_000_000_000;

/// A simulator, and when each of its resources was last written.
pub struct World {
    pub name: &'static str,
    version: FhirVersion,
    registry: Arc<Registry>,
    id: SimId,
    clock: Arc<AtomicI64>,
    written: BTreeMap<Key, usize>,
    writes: usize,
    _dir: tempfile::TempDir,
}

/// What a search answers.
pub struct Answer {
    pub ids: Vec<String>,
    pub total: u64,
    /// What came along, in order, of all pages.
    pub included: Vec<Key>,
}

impl World {
    fn new(name: &'static str, version: FhirVersion) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(BEFORE_MS));
        let ticking = clock.clone();
        let (registry, _) = Registry::open(dir.path(), Durability::Process, Clock::from_fn(move || ticking.fetch_add(1, Ordering::Relaxed))).unwrap();
        let id: SimId = "a__b".parse().unwrap();
        registry.create(&id, &Wanted { fhir_version: Some(version), ..Wanted::default() }).unwrap();
        Self { name, version, registry, id, clock, written: BTreeMap::new(), writes: 0, _dir: dir }
    }

    fn sim(&self) -> Arc<Sim> {
        self.registry.get(&self.id).unwrap()
    }

    fn flush(&self) {
        self.registry.flush(&self.id).unwrap();
    }

    fn write(&self, interaction: &Interaction) {
        let written = self.sim().exchange(interaction.operation(), |snapshot, stamp| {
            let env = Env { base: BASE, stamp, now_ms: NOW_MS, created: "", returns: Return::Unsaid, strict: false };
            let mut reply = perform(interaction, snapshot, &env).unwrap();
            let changes = std::mem::take(&mut reply.changes);
            (Some(Draft { record: EventRecord::default(), request_body: None, response_body: None, changes }), reply)
        });
        drop(written.unwrap());
    }

    fn put(&mut self, content: &Value) {
        if let Some(when) = content["meta"]["lastUpdated"].as_str() {
            self.clock.store(chrono::DateTime::parse_from_rfc3339(when).unwrap().timestamp_millis(), Ordering::Relaxed);
        }
        let text = content.to_string();
        let resource = Resource::parse(text.as_bytes(), self.version).unwrap();
        let content_of = Content { type_name: static_name(type_of(content)), resource, text, disorder: Vec::new() };
        self.write(&Interaction::Update(Whom::Id(id_of(content).parse().unwrap()), content_of, Conditions::default()));
        self.writes += 1;
        self.written.insert(key_of(content), self.writes);
    }

    fn delete(&self, content: &Value) {
        self.write(&Interaction::Delete(delete::Request {
            which: delete::Which::Instance(static_name(type_of(content)), id_of(content).parse().unwrap()),
            conditions: Conditions::default(),
            cascade: false,
        }));
    }

    /// One page, or what refuses it.
    fn page(&self, query: &Query, parameters: Vec<(String, String)>) -> Result<Value, String> {
        let compartment = query.compartment.as_ref().map(|(type_name, id)| (*type_name, id.parse().unwrap()));
        let request = Interaction::Search(search::Request { type_name: Some(query.type_name), compartment, parameters, strict: true });
        let snapshot = self.sim().snapshot();
        let stamp = Stamp { event: snapshot.last_event(), operation: Operation::Get };
        let env = Env { base: BASE, stamp, now_ms: NOW_MS, created: "", returns: Return::Unsaid, strict: false };
        let reply = perform(&request, &snapshot, &env).map_err(|failure| format!("refused: {failure:?}"))?;
        Ok(serde_json::from_slice(&reply.body.unwrap()).unwrap())
    }

    /// The whole answer, by pages of this size.
    pub fn search(&self, query: &Query, count: usize) -> Result<Answer, String> {
        let mut parameters = query.parameters();
        parameters.extend(query.includes.iter().cloned());
        parameters.extend(query.sort.map(|sort| ("_sort".to_owned(), sort.to_owned())));
        parameters.push(("_count".to_owned(), count.to_string()));
        let mut all: Option<Answer> = None;
        loop {
            let page = self.page(query, parameters)?;
            let total = page["total"].as_u64().unwrap();
            let answer = all.get_or_insert(Answer { ids: Vec::new(), total, included: Vec::new() });
            let found = crate::support::ids(&page);
            assert!(found.len() <= count && total == answer.total, "{page}");
            answer.ids.extend(found);
            answer.included.extend(included(&page));
            match crate::support::link(&page, "next") {
                Some(url) => parameters = form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect(),
                None => return Ok(all.unwrap()),
            }
        }
    }

    /// The order of an answer: the newest first, or as asked.
    pub fn order(&self, ids: &mut [&Value], sort: Option<&str>) {
        let when = |r: &Value| self.written[&key_of(r)];
        let missing_last = |r: &Value, name: &str| (r[name].as_str().is_none(), r[name].as_str().unwrap_or("").to_owned());
        match sort {
            None | Some("-_lastUpdated") => ids.sort_by_key(|r| std::cmp::Reverse(when(r))),
            Some("_lastUpdated") => ids.sort_by_key(|r| when(r)),
            Some("_id") => ids.sort_by_key(|r| id_of(r).to_owned()),
            Some("-_id") => ids.sort_by_key(|r| std::cmp::Reverse(id_of(r).to_owned())),
            Some("gender,_id") => ids.sort_by_key(|r| (missing_last(r, "gender"), id_of(r).to_owned())),
            Some("birthdate,-_id") => ids.sort_by_key(|r| {
                let start = r["birthDate"].as_str().map(|date| crate::naive::date::interval(date).0);
                (start.is_none(), start, std::cmp::Reverse(id_of(r).to_owned()))
            }),
            Some(other) => panic!("the model cannot sort by {other}"),
        }
    }
}

/// The type's name as the server's own table would hold it.
fn static_name(type_name: &str) -> &'static str {
    COUNTS.iter().find(|(known, _)| *known == type_name).unwrap().0
}

/// What came along with a page.
fn included(page: &Value) -> Vec<Key> {
    let entries = page["entry"].as_array().into_iter().flatten();
    entries.filter(|entry| entry["search"]["mode"] == "include").map(|entry| key_of(&entry["resource"])).collect()
}

/// Three simulators with the same content.
pub fn worlds(all: &[Value], version: FhirVersion, rng: &mut Rng) -> [World; 3] {
    let [mut recent, mut flushed, mut mixed] = ["recent", "flushed", "mixed"].map(|name| World::new(name, version));
    for content in all {
        recent.put(content);
        flushed.put(content);
    }
    flushed.flush();
    let numbered = COUNTS.iter().filter(|(_, count)| *count > 0).flat_map(|(t, _)| STRANGERS.map(|n| (*t, n)));
    let strangers: Vec<Value> = numbered.map(|(t, n)| resource(rng, version, t, n)).collect();
    // What some of them were before, and what is deleted later, go to the disk first.
    for (n, content) in all.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
        mixed.put(&predecessor(rng, version, content));
        if let Some(stranger) = strangers.get(n / 3) {
            mixed.put(stranger);
        }
    }
    mixed.flush();
    for (n, content) in all.iter().enumerate() {
        mixed.put(content);
        if n == all.len() / 2 {
            mixed.flush();
        }
    }
    for stranger in &strangers {
        mixed.put(stranger);
        mixed.delete(stranger);
    }
    [recent, flushed, mixed]
}
