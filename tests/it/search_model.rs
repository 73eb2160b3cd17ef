//! Random searches on simulators and on the plain matcher of [`crate::naive`]: with everything recent, everything flushed, and mixed.
//!
//! `NAIVE_SEED` tries other data and other searches than the usual ones; `NAIVE_QUERIES` sets how many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

mod report;
mod world;

use crate::naive::ask::{Asking, Case};
use crate::naive::features::{FEATURES, Feature};
use crate::naive::generate::resources;
use crate::naive::rng::Rng;
use crate::naive::{Resources, id_of};
use world::{World, worlds};

/// Searches of one run.
const QUERIES: usize = 10_000;

/// A search and what it tries.
#[derive(Clone, Debug)]
pub struct Query {
    type_name: &'static str,
    cases: Vec<Case>,
    tries: Vec<Feature>,
    sort: Option<&'static str>,
}

impl Query {
    fn parameters(&self) -> Vec<(String, String)> {
        self.cases.iter().map(|case| (case.key.clone(), case.value.clone())).collect()
    }

    /// The same with one parameter only, or with one of its values.
    fn parts(&self) -> Vec<Self> {
        let one = |case: Case, tried: Feature| Self { type_name: self.type_name, cases: vec![case], tries: vec![tried], sort: None };
        let cases = self.cases.iter().zip(&self.tries);
        let values = cases.clone().flat_map(|(case, tried)| {
            let each = crate::naive::split(&case.value, ',').into_iter().map(|value| Case { value, ..case.clone() });
            each.map(|case| one(case, *tried)).collect::<Vec<_>>()
        });
        values.chain(cases.map(|(case, tried)| one(case.clone(), *tried))).collect()
    }

    fn text(&self) -> String {
        let parameters: Vec<String> = self.parameters().iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}?{}{}", self.type_name, parameters.join("&"), self.sort.map(|s| format!("&_sort={s}")).unwrap_or_default())
    }
}

/// A search that tries the feature, and perhaps others besides.
fn query(asking: &mut Asking, feature: Feature, on: &[Feature]) -> Query {
    let first = std::iter::repeat_with(|| asking.case(feature, None)).take(1000).flatten().next();
    let first = first.unwrap_or_else(|| panic!("no case of {feature:?} comes about"));
    let mut made = Query { type_name: first.type_name, cases: vec![first], tries: vec![feature], sort: None };
    let more = *asking.rng.pick(&[0, 0, 0, 0, 0, 1, 1, 2]);
    for _ in 0..more {
        let other = *asking.rng.pick(on);
        if let Some(case) = asking.case(other, Some(made.type_name)) {
            made.cases.push(case);
            made.tries.push(other);
        }
    }
    if asking.rng.chance(10) {
        let sorts: &[&str] = &["_id", "-_id", "_lastUpdated", "-_lastUpdated", "gender,_id", "birthdate,-_id"];
        let known = if made.type_name == "Patient" { sorts } else { &sorts[..4] };
        made.sort = Some(*asking.rng.pick(known));
    }
    made
}

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
    fn count(&mut self, query: &Query, expected: usize, of: usize) {
        let tally = self.tallies.entry(query.tries[0]).or_default();
        tally.searches += 1;
        tally.telling += usize::from(expected > 0 && expected < of);
        tally.empty += usize::from(expected == 0);
        self.sorted += usize::from(query.sort.is_some() && expected > 1);
        self.several += usize::from(query.cases.len() > 1 && expected > 0);
    }

    /// Fails if too little was tried to prove anything.
    fn assert_that_they_tell(&self, queries: usize) {
        for feature in FEATURES {
            let tally = &self.tallies[feature];
            let enough = queries / FEATURES.len() * 9 / 10;
            assert!(tally.searches >= enough && tally.telling * 5 >= tally.searches && tally.empty * 50 >= tally.searches, "{feature:?}: {tally:?}");
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
        self.resources.of_type(query.type_name).filter(|resource| self.resources.meets(resource, &parameters)).collect()
    }

    fn check(&self, query: &Query, paged: bool) {
        let expected = self.expected(query);
        let of = self.resources.of_type(query.type_name).count();
        let count = if paged { 7 } else { 1000 };
        {
            let mut findings = self.findings.lock().unwrap();
            findings.count(query, expected.len(), of);
            findings.paged += usize::from(paged && expected.len() > count);
        }
        for world in self.worlds {
            if let Some(difference) = self.difference(world, query, &expected, count) {
                self.keep(world, query, difference);
            }
        }
    }

    /// What the server answers otherwise than the model: ids, their order, and the total.
    fn difference(&self, world: &World, query: &Query, expected: &[&Value], count: usize) -> Option<String> {
        let mut expected = expected.to_vec();
        world.order(&mut expected, query.sort);
        let wanted: Vec<&str> = expected.iter().map(|r| id_of(r)).collect();
        let answer = match world.search(query, count) {
            Ok(answer) => answer,
            Err(refusal) => return Some(refusal),
        };
        if answer.ids == wanted && answer.total == wanted.len() as u64 {
            return None;
        }
        let (there, here): (BTreeSet<&str>, BTreeSet<&str>) = (answer.ids.iter().map(String::as_str).collect(), wanted.iter().copied().collect());
        if there == here {
            return Some(format!("order or total ({}):\n  expected {wanted:?}\n  got      {:?}", answer.total, answer.ids));
        }
        let shown = |ids: &BTreeSet<&str>, others: &BTreeSet<&str>| {
            let only: Vec<&Value> = ids.difference(others).filter_map(|id| self.resources.get(query.type_name, id)).collect();
            report::shown(&only, query)
        };
        Some(format!("expected only:{}\n got only:{}", shown(&here, &there), shown(&there, &here)))
    }

    /// Keeps the smallest part of the search that differs, once for each kind.
    fn keep(&self, world: &World, query: &Query, difference: String) {
        let smaller = query.parts().into_iter().find_map(|part| self.difference(world, &part, &self.expected(&part), 1000).map(|d| (part, d)));
        let (query, difference) = smaller.unwrap_or_else(|| (query.clone(), difference));
        let keys: Vec<String> = query.cases.iter().map(|case| case.key.clone()).collect();
        let kind = (query.tries[0], format!("{} {} {}", world.name, query.type_name, keys.join(" ")));
        let text = format!("{}, {:?}: {}\n {difference}", world.name, query.tries, query.text());
        self.findings.lock().unwrap().differences.entry(kind).or_insert(text);
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn searches_agree_with_the_plain_matcher() {
    let seed = setting("NAIVE_SEED").unwrap_or(1);
    let count = setting("NAIVE_QUERIES").map_or(QUERIES, |n| usize::try_from(n).unwrap());
    let mut rng = Rng::new(seed);
    let all = resources(&mut rng);
    let worlds = worlds(&all, &mut rng);
    let resources = Resources::of(&all);
    let trial = Trial { resources: &resources, worlds: &worlds, findings: Mutex::default() };
    let on = FEATURES;
    let mut asking = Asking { rng, resources: &resources, on };
    let queries: Vec<Query> = (0..count).map(|n| query(&mut asking, on[n % on.len()], on)).collect();
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
    assert!(findings.differences.is_empty(), "seed {seed}: {}", report::summary(&findings.differences));
    findings.assert_that_they_tell(count);
}
