//! Keys of clients that are at a URL.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;

use crate::fhir::id::clip;
use crate::http::{App, outbound};
use crate::smart::Refused;

/// Most bytes of the keys that a URL answers with.
const KEYS_BYTES: u64 = 1 << 20;
/// Most fetches of keys at once,
const MAX_FETCHES: usize = 16;
/// and of those from one URL.
const MAX_FETCHES_OF_ONE: usize = 2;
/// Most URLs that could not be had that are remembered,
const MAX_REMEMBERED: usize = 1_000;
/// and for how long.
const REMEMBERED: Duration = Duration::from_secs(5);

/// Keys that are fetched just now, and where they could not be had lately.
static FETCHES: Mutex<BTreeMap<String, Fetch>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Fetch {
    going: usize,
    failed: Option<(Instant, Refused)>,
}

/// One of the fetches that go on: each holds a thread as long as the other does not answer.
struct Fetching<'u>(&'u str);

impl<'u> Fetching<'u> {
    /// Begins one, unless too many go on, or the same has just failed.
    fn begin(url: &'u str) -> std::result::Result<Self, Refused> {
        let mut all = FETCHES.lock();
        all.retain(|_, fetch| fetch.going > 0 || fetch.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < REMEMBERED));
        if let Some((_, refused)) = all.get(url).and_then(|fetch| fetch.failed.clone()) {
            return Err(refused);
        }
        let going: usize = all.values().map(|fetch| fetch.going).sum();
        if all.len() >= MAX_REMEMBERED {
            let oldest = all.iter().filter(|(_, fetch)| fetch.going == 0).min_by_key(|(_, fetch)| fetch.failed.as_ref().map(|(at, _)| *at));
            let oldest = oldest.map(|(url, _)| url.clone());
            oldest.map(|url| all.remove(&url));
        }
        if going >= MAX_FETCHES || all.get(url).is_some_and(|fetch| fetch.going >= MAX_FETCHES_OF_ONE) {
            return Err(Refused::new("invalid_grant", format!("the keys at '{}' cannot be had: too many are being fetched; try again in a moment", clip(url))));
        }
        all.entry(url.to_owned()).or_default().going += 1;
        Ok(Self(url))
    }
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        if let Some(fetch) = FETCHES.lock().get_mut(self.0) {
            fetch.going -= 1;
        }
    }
}

/// The keys at a URL, if the server may go there.
pub(super) fn keys(url: &str, app: &App) -> std::result::Result<Value, Refused> {
    let refused = |why: &dyn std::fmt::Display| Refused::new("invalid_grant", format!("the keys at '{}' cannot be had: {why}", clip(url)));
    outbound::permitted(url, app).map_err(|f| refused(&f.diagnostics))?;
    let _going = Fetching::begin(url)?;
    asked_for(url, &refused).inspect_err(|refused| {
        if let Some(fetch) = FETCHES.lock().get_mut(url) {
            fetch.failed = Some((Instant::now(), refused.clone()));
        }
    })
}

fn asked_for(url: &str, refused: &dyn Fn(&dyn std::fmt::Display) -> Refused) -> std::result::Result<Value, Refused> {
    let agent = outbound::agent(outbound::configured().timeout_global(Some(Duration::from_secs(5))).build());
    let mut answer = agent.get(url).header("accept", "application/json").call().map_err(|e| refused(&e))?;
    if answer.status() != 200 {
        return Err(refused(&format!("the answer has status {}", answer.status().as_u16())));
    }
    let text = answer.body_mut().with_config().limit(KEYS_BYTES).read_to_string().map_err(|e| refused(&e))?;
    serde_json::from_str(&text).map_err(|e| refused(&e))
}
