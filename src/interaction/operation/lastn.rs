//! `$lastn` of Observation, <https://hl7.org/fhir/R4/observation-operation-lastn.html>: of those that a search finds, the last
//! `max` of each code.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::Call;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, instant};
use crate::interaction::search::{self, Request};
use crate::interaction::{Done, Env, Reply};
use crate::search::Search;
use crate::sim::find::{From, Match};
use crate::sim::{Page, Snapshot};

/// Most Observations that are looked through.
const MAX_LOOKED_AT: usize = 10_000;

/// Answers with a searchset, code by code, the newest first.
///
/// # Errors
/// Neither a patient nor a subject is named; a parameter that cannot be read.
pub fn perform(call: &Call, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let max = match call.get("max").map(|text| (text, text.parse::<usize>())) {
        None => 1,
        Some((_, Ok(max))) if max > 0 => max,
        Some((text, _)) => return Err(Failure::new(Kind::BadValue, format!("max '{}' is not a number from 1 on", clip(text)))),
    };
    if !call.parameters.iter().any(|(name, _)| name.split([':', '.']).next().is_some_and(|n| matches!(n, "patient" | "subject"))) {
        return Err(Failure::new(Kind::Invalid, "$lastn needs to know whose Observations: add patient=… or subject=…"));
    }
    if let Some((name, value)) = call.parameters.iter().find(|(n, v)| matches!(n.as_str(), "_count" | "_sort") || n == "_summary" && v == "count") {
        let message = format!(
            "{name}={} is not supported by $lastn, which answers with all it finds, kind by kind, the newest first; max says how many of each",
            clip(value)
        );
        return Err(Failure::new(Kind::NotSupported, message));
    }
    let mut parameters: Vec<(String, String)> = call.parameters.iter().filter(|(n, _)| n != "max").cloned().collect();
    parameters.push(("_sort".to_owned(), "-date".to_owned()));
    let request = Request { type_name: Some("Observation"), compartment: None, parameters, strict: true };
    let search = Search::parse(&request.parameters, request.scope(), snapshot.params())?.strict()?;
    let budget = snapshot.budget();
    let page = snapshot.search(&search, From::default(), MAX_LOOKED_AT, env.now_ms, &budget)?;
    if page.total > MAX_LOOKED_AT {
        let message = format!("$lastn would have to look through {} Observations; at most {MAX_LOOKED_AT} are, add code, category or date", page.total);
        return Err(Failure::new(Kind::TooCostly, message));
    }
    let hits = last_of_each(page.hits, max);
    let page = Page { total: hits.len(), hits, last: None };
    let shown = search::Shown { path: "Observation/$lastn".to_owned(), parameters: call.parameters.clone() };
    let text = search::whole(&request, &search, &page, &shown, snapshot, env, &budget)?;
    Ok(Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) })
}

/// The first `max` of each kind, and those that are of the same time as the last of these; the hits are in order of time.
fn last_of_each(hits: Vec<Match>, max: usize) -> Vec<Match> {
    let read = |hit: Match| serde_json::from_slice::<Value>(&hit.stored.body).ok().map(|observation| (hit, codes(&observation), when(&observation)));
    let all: Vec<(Match, Vec<String>, Option<i64>)> = hits.into_iter().filter_map(read).collect();
    // Each kind is called by the first Observation of it: what shares a code is one kind, and so is what it connects.
    let mut kinds: Vec<usize> = (0..all.len()).collect();
    let mut of_code: HashMap<&str, usize> = HashMap::new();
    for (at, (_, codes, _)) in all.iter().enumerate() {
        for code in codes {
            let other = *of_code.entry(code).or_insert(at);
            let (a, b) = (first(&mut kinds, at), first(&mut kinds, other));
            kinds[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for (at, (hit, _, when)) in all.into_iter().enumerate() {
        let group = groups.entry(first(&mut kinds, at)).or_default();
        if group.hits.len() < max || (when.is_some() && group.last == when) {
            group.hits.push(hit);
            group.last = when;
        }
    }
    groups.into_values().flat_map(|g| g.hits).collect()
}

/// What a kind is called by.
fn first(kinds: &mut [usize], mut at: usize) -> usize {
    while kinds[at] != at {
        kinds[at] = kinds[kinds[at]];
        at = kinds[at];
    }
    at
}

/// Observations of one kind.
#[derive(Default)]
struct Group {
    hits: Vec<Match>,
    last: Option<i64>,
}

/// `system|code` of each coding; the text where there is none.
fn codes(observation: &Value) -> Vec<String> {
    let code = &observation["code"];
    let text = |v: &Value, name: &str| v.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    // A coding without a code says nothing that another could share.
    let coded = code.get("coding").and_then(Value::as_array).into_iter().flatten().filter(|c| c.get("code").is_some());
    let codings: Vec<String> = coded.map(|c| format!("{}|{}", text(c, "system"), text(c, "code"))).collect();
    if codings.is_empty() { vec![text(code, "text")] } else { codings }
}

/// When it was, as far as the order goes by it.
fn when(observation: &Value) -> Option<i64> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let effective = ["effectiveDateTime", "effectiveInstant"].iter().find_map(|name| text(&observation[*name]));
    let effective = effective.or_else(|| text(&observation["effectivePeriod"]["start"]))?;
    instant::parse(&effective).map(|i| i.low)
}
