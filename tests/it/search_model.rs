//! Random searches on simulators and on the plain matcher of [`crate::naive`]: with everything recent, everything flushed, and mixed.
//!
//! `NAIVE_SEED` tries other data and other searches than the usual ones; `NAIVE_QUERIES` sets how many. `NAIVE_SHOW` prints what
//! came of each feature, and `NAIVE_ALL` tries also what the server is known to answer otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fhirsim::fhir::FhirVersion;
use serde_json::Value;

mod query;
mod report;
mod world;

use crate::naive::ask::Asking;
use crate::naive::features::{Feature, features};
use crate::naive::generate::resources;
use crate::naive::rng::Rng;
use crate::naive::{Resources, compartment, id_of, include};
use query::{Query, query};
use world::{Answer, World, worlds};

/// Searches of one run; other versions than R4 differ in little but names of elements.
const QUERIES: usize = 10_000;
const QUERIES_OF_OTHERS: usize = 1_500;

/// What came of the searches that try a feature.
#[derive(Debug, Default)]
struct Tally {
    searches: usize,
    /// Those that some, but not all resources of the type meet: one for everything proves as little as one for nothing.
    telling: usize,
    empty: usize,
}

/// What was asked, and where the server and the model differ.
#[derive(Default)]
struct Findings {
    tallies: BTreeMap<Feature, Tally>,
    paged: usize,
    sorted: usize,
    several: usize,
    /// The first difference of each kind.
    differences: BTreeMap<(Feature, String), String>,
}

impl Findings {
    /// Counts what a search finds, or brings along, of all that it could.
    fn count(&mut self, query: &Query, found: usize, of: usize, matches: usize) {
        let tally = self.tallies.entry(query.feature).or_default();
        tally.searches += 1;
        tally.telling += usize::from(found > 0 && found < of);
        tally.empty += usize::from(found == 0);
        self.sorted += usize::from(query.sort.is_some() && matches > 1);
        self.several += usize::from(query.cases.len() > 1 && matches > 0);
    }

    /// Fails if too little was tried to prove anything.
    fn assert_that_they_tell(&self, on: &[Feature], queries: usize) {
        for feature in on {
            let tally = &self.tallies[feature];
            let enough = queries / on.len() * 9 / 10;
            // Of a few dozen searches, by chance none may be empty.
            let both_ways = tally.searches < 100 || tally.empty * 50 >= tally.searches;
            assert!(tally.searches >= enough && tally.telling * 5 >= tally.searches && both_ways, "{feature:?}: {tally:?}");
        }
        let telling: usize = self.tallies.values().map(|tally| tally.telling).sum();
        assert!(telling * 2 > queries, "only {telling} searches find some, but not all");
        assert!(self.paged * 50 > queries && self.sorted * 50 > queries && self.several * 50 > queries, "{} {} {}", self.paged, self.sorted, self.several);
    }
}

/// The content, the simulators that hold it, and what the searches of them show.
struct Trial<'t> {
    resources: &'t Resources,
    worlds: &'t [World],
    findings: Mutex<Findings>,
}

impl Trial<'_> {
    fn expected(&self, query: &Query) -> Vec<&Value> {
        let parameters = query.parameters();
        let within = |resource: &Value| query.compartment.as_ref().is_none_or(|(t, id)| compartment::holds(self.resources, (t, id), resource));
        self.resources.of_type(query.type_name).filter(|resource| within(resource) && self.resources.meets(resource, &parameters)).collect()
    }

    fn check(&self, query: &Query, paged: bool) {
        let expected = self.expected(query);
        // What comes along depends on the page.
        let count = if paged && query.includes.is_empty() { 7 } else { 1000 };
        self.count(query, &expected, count);
        for world in self.worlds {
            if let Some(difference) = self.difference(world, query, &expected, count) {
                self.keep(world, query, difference);
            }
        }
    }

    fn count(&self, query: &Query, expected: &[&Value], count: usize) {
        let (found, of) = if query.includes.is_empty() {
            (expected.len(), self.resources.of_type(query.type_name).count())
        } else {
            (include::included(self.resources, expected, &query.includes).len(), self.resources.all().count() - expected.len())
        };
        let mut findings = self.findings.lock().unwrap();
        findings.count(query, found, of, expected.len());
        findings.paged += usize::from(expected.len() > count);
    }

    /// What the server answers otherwise than the model: ids, their order, the total, and what comes along.
    fn difference(&self, world: &World, query: &Query, expected: &[&Value], count: usize) -> Option<String> {
        let mut expected = expected.to_vec();
        world.order(&mut expected, query.sort);
        let wanted: Vec<&str> = expected.iter().map(|r| id_of(r)).collect();
        let answer = match world.search(query, count) {
            Ok(answer) => answer,
            Err(refusal) if self.is_ambiguous(&refusal) => return None,
            Err(refusal) => return Some(refusal),
        };
        if answer.ids == wanted && answer.total == wanted.len() as u64 {
            return self.other_company(query, &expected, answer);
        }
        let (there, here): (BTreeSet<&str>, BTreeSet<&str>) = (answer.ids.iter().map(String::as_str).collect(), wanted.iter().copied().collect());
        if there == here {
            return Some(format!("order or total ({}):\n  expected {wanted:?}\n  got      {:?}", answer.total, answer.ids));
        }
        let shown = |ids: &BTreeSet<&str>, others: &BTreeSet<&str>| {
            let only: Vec<&Value> = ids.difference(others).filter_map(|id| self.resources.get(query.type_name, id)).collect();
            report::shown(self.resources.table, &only, query)
        };
        Some(format!("expected only:{}\n got only:{}", shown(&here, &there), shown(&there, &here)))
    }

    /// Whether a search was refused because it asked for an id without its type, and there are references to it of several.
    fn is_ambiguous(&self, refusal: &str) -> bool {
        let named = refusal.split("of several types here; say which, ").nth(1).and_then(|rest| rest.split('"').next());
        let is_there = |reference: &str| {
            let ends = [format!("{reference}\""), format!("{reference}/_history/")];
            self.resources.all().any(|resource| ends.iter().any(|end| resource.to_string().contains(end)))
        };
        named.is_some_and(|named| named.contains(" or ") && named.split(" or ").all(is_there))
    }

    /// What comes along otherwise than in the model: nothing comes twice, and nothing that is a match.
    fn other_company(&self, query: &Query, expected: &[&Value], mut answer: Answer) -> Option<String> {
        answer.included.sort();
        let wanted: Vec<_> = include::included(self.resources, expected, &query.includes).into_iter().collect();
        let only = |a: &[include::Key], b: &[include::Key]| a.iter().filter(|key| !b.contains(key)).map(|(t, id)| format!(" {t}/{id}")).collect::<String>();
        let (missing, more) = (only(&wanted, &answer.included), only(&answer.included, &wanted));
        (answer.included != wanted).then(|| format!("of {} matches, missing:{missing}\n more:{more}", expected.len()))
    }

    /// Keeps the smallest part of the search that differs, once for each kind.
    fn keep(&self, world: &World, query: &Query, difference: String) {
        let smaller = query.parts().into_iter().find_map(|part| self.difference(world, &part, &self.expected(&part), 1000).map(|d| (part, d)));
        let (query, difference) = smaller.unwrap_or_else(|| (query.clone(), difference));
        let keys: Vec<&str> = query.cases.iter().map(|(_, case)| case.key.as_str()).chain(query.includes.iter().map(|(_, value)| value.as_str())).collect();
        let kind = (query.feature, format!("{} {} {}", world.name, query.type_name, keys.join(" ")));
        let text = format!("{}, {:?}: {}\n {difference}", world.name, query.feature, query.text());
        self.findings.lock().unwrap().differences.entry(kind).or_insert(text);
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn searches_agree_with_the_plain_matcher() {
    searches_agree(FhirVersion::R4, QUERIES);
}

#[test]
fn searches_of_stu3_agree_with_the_plain_matcher() {
    searches_agree(FhirVersion::Stu3, QUERIES_OF_OTHERS);
}

#[test]
fn searches_of_r5_agree_with_the_plain_matcher() {
    searches_agree(FhirVersion::R5, QUERIES_OF_OTHERS);
}

fn searches_agree(version: FhirVersion, usual: usize) {
    let seed = setting("NAIVE_SEED").unwrap_or(1);
    let count = setting("NAIVE_QUERIES").map_or(usual, |n| usize::try_from(n).unwrap());
    let mut rng = Rng::new(seed);
    let all = resources(&mut rng, version);
    let worlds = worlds(&all, version, &mut rng);
    let resources = Resources::of(&all, version);
    let trial = Trial { resources: &resources, worlds: &worlds, findings: Mutex::default() };
    let on = features(version);
    let mut asking = Asking { rng, resources: &resources, on: &on };
    let queries: Vec<Query> = (0..count).map(|n| query(&mut asking, on[n % on.len()])).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((n, query)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, queries.get(n)?))) {
                    // Of every feature, some.
                    trial.check(query, (n / on.len()).is_multiple_of(10));
                }
            });
        }
    });
    let findings = trial.findings.into_inner().unwrap();
    if std::env::var_os("NAIVE_SHOW").is_some() {
        for (feature, tally) in &findings.tallies {
            println!("{version:?} {feature:?}: {tally:?}");
        }
    }
    assert!(findings.differences.is_empty(), "{version:?}, seed {seed}: {}", report::summary(&findings.differences));
    findings.assert_that_they_tell(&on, count);
}
