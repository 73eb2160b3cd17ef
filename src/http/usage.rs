//! `/api/sims/{id}/coverage` and `/api/sims/{id}/traffic`: what a simulator was used for, held against what it can do.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path};
use serde_json::{Value, json};

use super::App;
use super::api::{Result, answer};
use super::respond::Answer;
use crate::clock::instant;
use crate::fhir::Failure;
use crate::interaction::{Env, Return, capabilities};
use crate::sim::usage::{Counted, Sight};
use crate::sim::{Sim, Stamp};
use crate::version::Operation;

/// `GET /api/sims/{id}/coverage`.
pub async fn coverage(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || Ok(Answer::json(200, &covered(&*app.registry.get(&id.parse()?)?)?))).await
}

/// `GET /api/sims/{id}/traffic`.
pub async fn traffic(app: Data<App>, id: Path<String>) -> HttpResponse {
    answer(move || Ok(Answer::json(200, &busy(&app.registry.get(&id.parse()?)?.usage.sight())))).await
}

/// What the CapabilityStatement says that it can do, with how often it was done.
pub(super) fn covered(sim: &Sim) -> Result<Value> {
    let (snapshot, profile) = (sim.snapshot(), sim.profile());
    let stamp = Stamp { event: snapshot.last_event(), operation: Operation::Get };
    let env = Env { base: "", stamp, now_ms: sim.now_ms(), created: &profile.created, returns: Return::Unsaid, strict: false };
    let body = capabilities::perform(&snapshot, &env).body.unwrap_or_default();
    let statement: Value = serde_json::from_slice(&body).map_err(|e| Failure::new(crate::fhir::Kind::Internal, e.to_string()))?;
    let (rest, sight) = (&statement["rest"][0], sim.usage.sight());
    let mut tally = Tally::default();
    let of_all: Vec<&str> = names(&rest["searchParam"], "name");
    let operations = names(&rest["operation"], "name");
    let system: Vec<&str> = ["capabilities"].into_iter().chain(names(&rest["interaction"], "code")).chain(operations.iter().copied()).collect();
    let whole = json!({"interactions": tally.interactions(&sight, "", &system, &operations), "parameters": tally.parameters(&sight, "", &of_all, &[])});
    let mut types = Vec::new();
    let mut untouched = Vec::new();
    for resource in rest["resource"].as_array().into_iter().flatten() {
        let name = resource["type"].as_str().unwrap_or_default();
        let can: Vec<&str> = names(&resource["interaction"], "code").into_iter().chain(names(&resource["operation"], "name")).collect();
        let interactions = tally.interactions(&sight, name, &can, &operations);
        let parameters = tally.parameters(&sight, name, &names(&resource["searchParam"], "name"), &of_all);
        if sight.interactions.keys().any(|(t, _)| *t == name) || sight.parameters.keys().any(|(t, _)| *t == name) {
            types.push(json!({"type": name, "interactions": interactions, "parameters": parameters}));
        } else {
            untouched.push(name);
        }
    }
    Ok(json!({
        "interactions": {"exercised": tally.interactions.0, "of": tally.interactions.1},
        "parameters": {"exercised": tally.parameters.0, "of": tally.parameters.1},
        "system": whole, "types": types, "untouched": untouched, "others": tally.others,
    }))
}

fn names<'v>(list: &'v Value, member: &str) -> Vec<&'v str> {
    list.as_array().into_iter().flatten().filter_map(|one| one[member].as_str()).collect()
}

/// Whether an interaction is what the CapabilityStatement has under `code`: operations have no dollar sign there, and a search
/// within a compartment is one of a type.
fn is(name: &str, code: &str) -> bool {
    name == code || name.strip_prefix('$') == Some(code) || (name == "search-compartment" && code == "search-type")
}

/// How much of what can be done was done.
#[derive(Default)]
struct Tally {
    interactions: (usize, usize),
    parameters: (usize, usize),
    /// What was sent and is not in the CapabilityStatement.
    others: Vec<Value>,
}

impl Tally {
    /// `whole` are the operations that are listed for the server as a whole, of whatever type they are asked.
    fn interactions(&mut self, sight: &Sight, type_name: &str, can: &[&str], whole: &[&str]) -> Vec<Value> {
        let is_whole = |name: &str| name.strip_prefix('$').is_some_and(|code| whole.contains(&code));
        let is_here = |t: &str, name: &str| t == type_name || (type_name.is_empty() && is_whole(name));
        let seen: Vec<(&str, Counted)> =
            sight.interactions.iter().filter(|((t, name), _)| is_here(t, name)).map(|((_, name), counted)| (*name, *counted)).collect();
        let found = |code: &str| {
            let of_it = seen.iter().filter(|(name, _)| is(name, code));
            of_it.fold(Counted::default(), |sum, (_, one)| Counted { done: sum.done + one.done, refused: sum.refused + one.refused })
        };
        self.interactions.1 += can.len();
        self.interactions.0 += can.iter().filter(|code| found(code).done > 0).count();
        for (name, counted) in seen.iter().filter(|(name, _)| !is_whole(name) && !can.iter().any(|code| is(name, code))) {
            self.others.push(json!({"type": type_name, "interaction": name, "done": counted.done, "refused": counted.refused}));
        }
        can.iter().map(|code| json!({"code": code, "done": found(code).done, "refused": found(code).refused})).collect()
    }

    fn parameters(&mut self, sight: &Sight, type_name: &str, can: &[&str], of_all: &[&str]) -> Value {
        let seen = || sight.parameters.iter().filter(|((t, _), _)| *t == type_name).map(|((_, code), count)| (&**code, *count));
        let done: Vec<Value> = seen().filter(|(code, _)| can.contains(code)).map(|(code, count)| json!({"name": code, "done": count})).collect();
        self.parameters.1 += can.len();
        self.parameters.0 += done.len();
        for (code, count) in seen().filter(|(code, _)| !can.contains(code) && !of_all.contains(code) && !code.starts_with('_')) {
            self.others.push(json!({"type": type_name, "parameter": code, "done": count}));
        }
        let missing: Vec<&&str> = can.iter().filter(|code| !seen().any(|(name, _)| name == **code)).collect();
        json!({"exercised": done, "missing": missing})
    }
}

/// How many requests came, how they were answered, and how fast.
pub(super) fn busy(sight: &Sight) -> Value {
    let minute = |m: &crate::sim::usage::Minute| {
        let requests: u64 = m.classes.iter().sum();
        json!({"minute": instant(m.minute * 60_000), "requests": requests, "none": m.classes[0], "2xx": m.classes[2], "3xx": m.classes[3], "4xx": m.classes[4],
            "5xx": m.classes[5], "meanUs": m.total_us.checked_div(requests).unwrap_or(0), "slowestUs": m.slowest_us})
    };
    let all: u64 = sight.durations.iter().sum();
    let most = |percent: u64| {
        let mut left = (all * percent).div_ceil(100);
        let class = sight.durations.iter().position(|count| {
            left = left.saturating_sub(*count);
            left == 0
        });
        class.filter(|n| all > 0 && n + 1 < sight.durations.len()).map(|n| 1_u64 << n)
    };
    let durations: Vec<Value> =
        sight.durations.iter().enumerate().filter(|(_, count)| **count > 0).map(|(n, count)| json!({"upToUs": 1_u64 << n, "requests": count})).collect();
    json!({"requests": all, "halfWithinUs": most(50), "percent99WithinUs": most(99), "durations": durations, "minutes": sight.minutes.iter().map(minute).collect::<Vec<_>>()})
}
