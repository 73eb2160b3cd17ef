//! `fhirsim replay`: recorded requests are sent again, in order, and what comes is compared with what came.
//!
//! A resource that gets another id is called by that one from then on. Compared are status and content, if that is JSON; what no two
//! servers have in common is not: ids of resources made, `meta.versionId`, `meta.lastUpdated`, URLs of the server, texts of outcomes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use ureq::Agent;

use super::Remote;
use super::sims::path;
use crate::clock::EventId;
use crate::fhir::raw::quote;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The simulator whose events are sent again: <session>__<name>
    sim: String,
    /// Where to: the URL of a FHIR endpoint, or the name of a simulator of this server
    to: String,
    /// Only events of which this holds, such as since=marker:start or type=Patient; may be repeated
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// A header to send, such as 'Authorization: Bearer …', which is not recorded; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// With the pauses that there were, instead of as fast as it goes
    #[arg(long)]
    timed: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Headers of a recorded request that say what is asked for.
const REPEATED: [&str; 7] = ["content-type", "accept", "prefer", "if-match", "if-none-match", "if-modified-since", "if-none-exist"];
/// Most differences that are shown of an exchange.
const SHOWN: usize = 3;

pub fn run(args: &ReplayArgs) -> Result<(), String> {
    let client = args.remote.client();
    let base = if args.to.contains("://") {
        args.to.trim_end_matches('/').to_owned()
    } else {
        format!("{}/sim/{}/fhir", args.remote.server.trim_end_matches('/'), args.to)
    };
    let headers: Vec<(&str, &str)> = args
        .headers
        .iter()
        .map(|h| h.split_once(':').map(|(n, v)| (n.trim(), v.trim())).ok_or_else(|| format!("--header {h}: write name: value")))
        .collect::<Result<_, _>>()?;
    let mut replay = Replay { agent: Agent::config_builder().http_status_as_error(false).build().into(), base, headers, ids: BTreeMap::new() };
    let (mut count, mut different, mut since) = (0, 0, None::<String>);
    // What is sent may come to be events of the same simulator, which are not to be sent again.
    let newest = client.expect("GET", &format!("{}/events?limit=1", path(&args.sim)), None)?["events"][0]["event"].as_str().map(str::to_owned);
    let until = newest.filter(|_| !args.filters.iter().any(|f| f.starts_with("until=")));
    let mut begun: Option<(Instant, i64)> = None;
    loop {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("order", "asc").append_pair("limit", "100");
        for filter in args.filters.iter().filter(|f| since.is_none() || !f.starts_with("since=")) {
            let (name, value) = filter.split_once('=').ok_or_else(|| format!("--filter {filter}: write name=value"))?;
            query.append_pair(name, value);
        }
        query.extend_pairs(since.iter().map(|since| ("since", since)));
        query.extend_pairs(until.iter().map(|until| ("until", until)));
        let page = client.expect("GET", &format!("{}/events?{}", path(&args.sim), query.finish()), None)?;
        for listed in page["events"].as_array().into_iter().flatten() {
            let name = listed["event"].as_str().unwrap_or_default();
            let event = client.expect("GET", &format!("{}/events/{name}?include=bodies", path(&args.sim)), None)?;
            if args.timed {
                let at = name.parse::<EventId>().map_or(0, EventId::millis);
                let (started, first) = *begun.get_or_insert((Instant::now(), at));
                let due = Duration::from_millis(u64::try_from(at - first).unwrap_or(0));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
            count += 1;
            let differences = replay.again(&event)?;
            different += usize::from(!differences.is_empty());
            let said = if differences.is_empty() { "same".to_owned() } else { format!("different: {}", differences.join("; ")) };
            super::say(&format!(
                "{name} {} {}: {said}",
                event["request"]["method"].as_str().unwrap_or_default(),
                event["request"]["url"].as_str().unwrap_or_default()
            ));
        }
        match page["next"].as_str() {
            Some(next) => since = Some(next.to_owned()),
            None => break,
        }
    }
    super::say(&format!("{count} sent again to {}, {different} answered differently", replay.base));
    if different == 0 { Ok(()) } else { Err(format!("{different} of {count} exchanges differ")) }
}

struct Replay<'a> {
    agent: Agent,
    base: String,
    headers: Vec<(&'a str, &'a str)>,
    /// `Patient/old` to `Patient/new`.
    ids: BTreeMap<String, String>,
}

impl Replay<'_> {
    /// Sends a recorded request again; returns in what the answer differs.
    fn again(&mut self, event: &Value) -> Result<Vec<String>, String> {
        let (request, response) = (&event["request"], &event["response"]);
        let url = request["url"].as_str().unwrap_or_default();
        // `/sim/<name>/fhir/...`, and a name may have `fhir` in it.
        let below = url.strip_prefix("/sim/").and_then(|rest| rest.split_once('/')?.1.strip_prefix("fhir")).unwrap_or_default();
        let url = format!("{}{}", self.base, self.renamed(below));
        if request["text"].is_null() && request["bodyBytes"].as_u64().unwrap_or(0) > 0 {
            return Ok(vec!["not sent: its body is no text, or longer than a MiB".to_owned()]);
        }
        let body = self.renamed(request["text"].as_str().unwrap_or_default());
        let mut sent = ureq::http::Request::builder().method(request["method"].as_str().unwrap_or("GET")).uri(&url);
        for name in REPEATED {
            if let Some(value) = request["headers"][name].as_str() {
                sent = sent.header(name, self.renamed(value));
            }
        }
        for (name, value) in &self.headers {
            sent = sent.header(*name, *value);
        }
        let sent = sent.body(body.into_bytes()).map_err(|e| format!("{url}: {e}"))?;
        let mut answer = self.agent.run(sent).map_err(|e| format!("{url}: {e}"))?;
        let status = u64::from(answer.status().as_u16());
        let location = answer.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let text = answer.body_mut().with_config().limit(u64::MAX).read_to_string().unwrap_or_default();
        self.learn(response["headers"]["location"].as_str(), location.as_deref());
        let mut differences = Vec::new();
        if response["status"].as_u64() != Some(status) {
            differences.push(format!("status {} instead of {}", status, response["status"]));
        }
        let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
        match (response["text"].as_str().and_then(parsed), parsed(&text)) {
            (Some(before), Some(now)) => {
                self.learn_entries(&before, &now);
                let before = parsed(&self.renamed(&before.to_string())).unwrap_or(before);
                compare(&before, &now, "", &mut differences);
            }
            (Some(_), None) => differences.push(format!("the content is {} instead of JSON", if text.is_empty() { "empty" } else { "none" })),
            (None, _) => {}
        }
        differences.truncate(SHOWN);
        Ok(differences)
    }

    /// The text with the resources called as they are there.
    fn renamed(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (old, new)| {
            let (old_id, new_id) = (old.rsplit('/').next().unwrap_or_default(), new.rsplit('/').next().unwrap_or_default());
            text.replace(old.as_str(), new).replace(&quote(old_id), &quote(new_id))
        })
    }

    /// Takes note of the resource that two locations mean.
    fn learn(&mut self, before: Option<&str>, now: Option<&str>) {
        if let (Some(before), Some(now)) = (before.and_then(resource_of), now.and_then(resource_of))
            && before != now
        {
            self.ids.insert(before, now);
        }
    }

    fn learn_entries(&mut self, before: &Value, now: &Value) {
        let entries = |bundle: &Value| bundle["entry"].as_array().cloned().unwrap_or_default();
        for (before, now) in entries(before).iter().zip(&entries(now)) {
            self.learn(before["response"]["location"].as_str(), now["response"]["location"].as_str());
        }
    }
}

/// `Patient/123` of `http://x/fhir/Patient/123/_history/1`.
fn resource_of(location: &str) -> Option<String> {
    let path = location.split("/_history/").next()?;
    let mut parts = path.rsplit('/');
    let (id, type_name) = (parts.next()?, parts.next()?);
    Some(format!("{type_name}/{id}"))
}

/// What no two servers have in common.
fn is_own(at: &str, name: &str) -> bool {
    match name {
        "versionId" | "lastUpdated" => at.ends_with("meta"),
        "fullUrl" | "link" | "location" | "etag" | "lastModified" | "diagnostics" | "details" | "text" => {
            at.is_empty() || at.contains("entry") || at.contains("issue")
        }
        // Of a Bundle that was made for the answer.
        "id" => at.is_empty(),
        _ => false,
    }
}

fn compare(before: &Value, now: &Value, at: &str, found: &mut Vec<String>) {
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), |v| crate::fhir::id::clip(&v.to_string()));
    match (before, now) {
        (Value::Object(a), Value::Object(b)) => {
            let own_bundle = at.is_empty() && a.get("resourceType").is_some_and(|t| t == "Bundle");
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                if is_own(at, name) && (name != "id" || own_bundle) || name == "meta" && own_bundle {
                    continue;
                }
                let here = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match (a.get(name), b.get(name)) {
                    (Some(x), Some(y)) => compare(x, y, &here, found),
                    (x, y) => found.push(format!("{here} is {} instead of {}", shown(y), shown(x))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(n, (x, y))| compare(x, y, &format!("{at}[{n}]"), found));
        }
        _ if before == now => {}
        _ => found.push(format!("{at} is {} instead of {}", shown(Some(now)), shown(Some(before)))),
    }
}
