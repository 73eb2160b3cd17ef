//! Random interactions on a simulator and on a naive model: with everything recent, everything flushed, and mixed.

use std::collections::BTreeMap;
use std::sync::Arc;

use fhirsim::clock::Clock;
use fhirsim::fhir::{FhirVersion, Resource, ResourceId};
use fhirsim::interaction::{Conditions, Content, Env, Interaction, Return, Whom, delete, perform, search};
use fhirsim::sim::registry::Wanted;
use fhirsim::sim::{Draft, Registry, Sim};
use fhirsim::simdb::journal::Durability;
use fhirsim::simdb::{EventRecord, SimId};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, Traits),
    Delete(u8),
    Flush,
    Search(Asked, u8),
}

/// What distinguishes patients here.
#[derive(Clone, Debug)]
struct Traits {
    family: &'static str,
    gender: Option<&'static str>,
    birth: Option<&'static str>,
}

/// Searches whose answer a plain reading of the definition gives.
#[derive(Clone, Debug)]
enum Asked {
    Family(&'static str),
    NotGender(&'static str),
    MissingBirth(bool),
    Birth(&'static str, &'static str),
    Both(&'static str, &'static str),
}

const FAMILIES: [&str; 6] = ["Abel", "abelson", "Ábel", "Berg", "Bergmann", "Cook"];
const GENDERS: [&str; 3] = ["male", "female", "other"];
const DATES: [&str; 7] = ["1980", "1980-05", "1980-05-01", "1980-05-31", "1980-06", "1981-01-01", "1979-12-31"];
const PREFIXES: [&str; 8] = ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"];

fn step() -> impl Strategy<Value = Step> {
    let content =
        (prop::sample::select(&FAMILIES[..]), prop::option::of(prop::sample::select(&GENDERS[..])), prop::option::of(prop::sample::select(&DATES[..])))
            .prop_map(|(family, gender, birth)| Traits { family, gender, birth });
    let asked = prop_oneof![
        prop::sample::select(vec!["a", "abel", "berg", "bergm", "zz"]).prop_map(Asked::Family),
        prop::sample::select(&GENDERS[..]).prop_map(Asked::NotGender),
        any::<bool>().prop_map(Asked::MissingBirth),
        (prop::sample::select(&PREFIXES[..]), prop::sample::select(&DATES[..])).prop_map(|(p, d)| Asked::Birth(p, d)),
        (prop::sample::select(vec!["abel", "b"]), prop::sample::select(&GENDERS[..])).prop_map(|(f, g)| Asked::Both(f, g)),
    ];
    prop_oneof![6 => (0..12_u8, content).prop_map(|(id, c)| Step::Put(id, c)), 2 => (0..12_u8).prop_map(Step::Delete), 1 => Just(Step::Flush), 4 => (asked, 1..6_u8).prop_map(|(a, n)| Step::Search(a, n))]
}

/// The days a partial date covers, as text that compares as the days do.
fn days(date: &str) -> (String, String) {
    match date.len() {
        4 => (format!("{date}-01-01"), format!("{date}-12-31")),
        7 => (format!("{date}-01"), format!("{date}-{}", if date.ends_with("06") { 30 } else { 31 })),
        _ => (date.to_owned(), date.to_owned()),
    }
}

fn matches(asked: &Asked, c: &Traits) -> bool {
    let plain = |s: &str| s.to_lowercase().replace('á', "a");
    match asked {
        Asked::Family(prefix) => plain(c.family).starts_with(prefix),
        Asked::NotGender(gender) => c.gender != Some(gender),
        Asked::MissingBirth(missing) => c.birth.is_none() == *missing,
        Asked::Both(prefix, gender) => plain(c.family).starts_with(prefix) && c.gender == Some(gender),
        Asked::Birth(prefix, date) => c.birth.is_some_and(|birth| {
            let ((low, high), (from, to)) = (days(birth), days(date));
            let within = from <= low && high <= to;
            match *prefix {
                "eq" => within,
                "ne" => !within,
                "gt" => high > to,
                "lt" => low < from,
                "ge" => high > to || within,
                "le" => low < from || within,
                "sa" => low > to,
                _ => high < from,
            }
        }),
    }
}

fn parameters(asked: &Asked) -> Vec<(String, String)> {
    let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    match asked {
        Asked::Family(prefix) => vec![pair("family", prefix)],
        Asked::NotGender(gender) => vec![pair("gender:not", gender)],
        Asked::MissingBirth(missing) => vec![pair("birthdate:missing", &missing.to_string())],
        Asked::Birth(prefix, date) => vec![pair("birthdate", &format!("{prefix}{date}"))],
        Asked::Both(prefix, gender) => vec![pair("family", prefix), pair("gender", gender)],
    }
}

struct World {
    registry: Arc<Registry>,
    id: SimId,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tick = std::sync::atomic::AtomicI64::new(1_700_000_000_000);
        // Some events share a millisecond, some do not.
        let clock = Clock::from_fn(move || tick.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / 3);
        let (registry, _) = Registry::open(dir.path(), Durability::Process, clock).unwrap();
        let id: SimId = "a__b".parse().unwrap();
        registry.create(&id, &Wanted::default()).unwrap();
        Self { registry, id, _dir: dir }
    }

    fn sim(&self) -> Arc<Sim> {
        self.registry.get(&self.id).unwrap()
    }

    fn write(&self, interaction: &Interaction) {
        let (outcome, ..) = self
            .sim()
            .exchange(interaction.operation(), |snapshot, stamp| {
                let env = Env { base: "http://h/fhir", stamp, now_ms: 0, created: "", returns: Return::Unsaid, strict: false };
                let mut reply = perform(interaction, snapshot, &env).unwrap();
                let changes = std::mem::take(&mut reply.changes);
                (Some(Draft { record: EventRecord::default(), request_body: None, response_body: None, changes }), reply)
            })
            .unwrap();
        drop(outcome);
    }

    /// The ids that a search finds, following the pages.
    fn search(&self, asked: &Asked, count: u8) -> Vec<String> {
        let mut found = Vec::new();
        let mut pairs = parameters(asked);
        pairs.push(("_count".to_owned(), count.to_string()));
        loop {
            let request = Interaction::Search(search::Request { type_name: Some("Patient"), compartment: None, parameters: pairs.clone(), strict: true });
            let snapshot = self.sim().snapshot();
            let stamp = fhirsim::sim::Stamp { event: snapshot.last_event(), operation: fhirsim::version::Operation::Get };
            let env = Env { base: "http://h/fhir", stamp, now_ms: 0, created: "", returns: Return::Unsaid, strict: false };
            let reply = perform(&request, &snapshot, &env).unwrap();
            let bundle: Value = serde_json::from_slice(&reply.body.unwrap()).unwrap();
            found.extend(crate::support::ids(&bundle));
            assert!(bundle["total"].as_u64().unwrap() as usize >= found.len());
            match crate::support::link(&bundle, "next") {
                Some(url) => pairs = form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes()).into_owned().collect(),
                None => return found,
            }
        }
    }
}

fn put(id: &str, c: &Traits) -> Interaction {
    let mut patient = json!({"resourceType": "Patient", "id": id, "name": [{"family": c.family}]});
    if let Some(gender) = c.gender {
        patient["gender"] = gender.into();
    }
    if let Some(birth) = c.birth {
        patient["birthDate"] = birth.into();
    }
    let text = patient.to_string();
    let resource = Resource::parse(text.as_bytes(), FhirVersion::R4).unwrap();
    Interaction::Update(Whom::Id(id.parse().unwrap()), Content { type_name: "Patient", resource, text, disorder: Vec::new() }, Conditions::default())
}

/// Runs the steps; `flush_at` says after which writes everything is flushed besides.
fn run(steps: &[Step], flush_at: impl Fn(usize) -> bool) {
    let world = World::new();
    // Order of the last write decides the order of an answer: the newest first.
    let mut model: BTreeMap<String, (usize, Traits)> = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        match step {
            Step::Put(id, content) => {
                let id = format!("p{id}");
                world.write(&put(&id, content));
                model.insert(id, (n, content.clone()));
            }
            Step::Delete(id) => {
                let id: ResourceId = format!("p{id}").parse().unwrap();
                world.write(&Interaction::Delete(delete::Request {
                    which: delete::Which::Instance("Patient", id.clone()),
                    conditions: Conditions::default(),
                    cascade: false,
                }));
                model.remove(id.as_str());
            }
            Step::Flush => world.registry.flush(&world.id).unwrap(),
            Step::Search(asked, count) => {
                let mut expected: Vec<(usize, String)> = model.iter().filter(|(_, (_, c))| matches(asked, c)).map(|(id, (n, _))| (*n, id.clone())).collect();
                expected.sort_by(|a, b| b.cmp(a));
                let expected: Vec<String> = expected.into_iter().map(|(_, id)| id).collect();
                assert_eq!(world.search(asked, *count), expected, "{asked:?}");
            }
        }
        if flush_at(n) {
            world.registry.flush(&world.id).unwrap();
        }
    }
    let counted: u64 = world.sim().snapshot().counts().map(|(_, n)| n).sum();
    assert_eq!(counted as usize, model.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_model_agrees_with_everything_recent(steps in prop::collection::vec(step(), 1..250)) {
        let steps: Vec<Step> = steps.into_iter().filter(|s| !matches!(s, Step::Flush)).collect();
        run(&steps, |_| false);
    }

    #[test]
    fn the_model_agrees_with_some_flushed(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps, |_| false);
    }

    #[test]
    fn the_model_agrees_with_everything_flushed(steps in prop::collection::vec(step(), 1..25)) {
        run(&steps, |_| true);
    }
}
