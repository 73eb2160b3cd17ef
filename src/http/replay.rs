//! Recorded requests are sent again, in order, and what comes is compared with what came.
//!
//! A resource that gets another id is called by that one from then on. Compared are status, some headers and content, if that is JSON; what no two
//! servers have in common is not: ids of resources made, `meta.versionId`, `meta.lastUpdated`, URLs of the server, texts of outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use super::outbound;
use crate::fhir::raw::quote;

/// Headers of a recorded request that say what is asked for.
const REPEATED: [&str; 7] = ["content-type", "accept", "prefer", "if-match", "if-none-match", "if-modified-since", "if-none-exist"];
/// Headers of an answer that are compared: what kind of content it is, and whether there is a version, a place.
const COMPARED: [&str; 4] = ["content-type", "etag", "location", "last-modified"];
/// Most differences that are shown of an exchange.
const SHOWN: usize = 3;
/// Most bytes of an answer that are read.
const MOST_BYTES: u64 = 64 << 20;
/// Longest that an answer may take.
const LONGEST: Duration = Duration::from_mins(5);

/// A replay that goes on.
#[derive(Debug)]
pub struct Replay {
    agent: Agent,
    base: String,
    headers: Vec<(String, String)>,
    /// `Patient/old` to `Patient/new`.
    ids: BTreeMap<String, String>,
    /// The links of pages, as they were and as they are: each server counts on from a place of its own.
    links: BTreeMap<String, String>,
}

/// What came of a request that was sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The status that was answered; none if it was not sent.
    pub status: Option<u16>,
    /// The event that it became, if where it went says so.
    pub event: Option<String>,
    /// In what the answer differs from the recorded one.
    pub differences: Vec<String>,
}

impl Replay {
    /// One to the endpoint at `base`, with these headers besides the recorded ones.
    #[must_use]
    pub fn to(base: &str, headers: Vec<(String, String)>) -> Self {
        let agent = outbound::agent(outbound::configured().timeout_global(Some(LONGEST)).build());
        Self { agent, base: base.trim_end_matches('/').to_owned(), headers, ids: BTreeMap::new(), links: BTreeMap::new() }
    }

    /// Sends a recorded request again: an event as the API shows it, with its bodies, and the body of the request as it was sent.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn again(&mut self, event: &Value, body: Vec<u8>) -> Result<Sent, String> {
        let (request, response) = (&event["request"], &event["response"]);
        let below = below(request["url"].as_str().unwrap_or_default()).unwrap_or_default();
        if !below.is_empty() && !below.starts_with(['/', '?']) {
            // Of an imported event it may be anything: it must not become part of the host.
            return Ok(Sent { differences: vec!["not sent: its URL is none of an endpoint".to_owned()], ..Sent::default() });
        }
        let url = self.links.get(below).cloned().unwrap_or_else(|| format!("{}{}", self.base, self.renamed(below)));
        // What is no text names no resources.
        let body = String::from_utf8(body).map_or_else(std::string::FromUtf8Error::into_bytes, |text| self.renamed(&text).into_bytes());
        let mut sent = ureq::http::Request::builder().method(request["method"].as_str().unwrap_or("GET")).uri(&url);
        for name in REPEATED {
            if let Some(value) = request["headers"][name].as_str() {
                sent = sent.header(name, self.renamed(value));
            }
        }
        for (name, value) in &self.headers {
            sent = sent.header(name, value);
        }
        let sent = sent.body(body).map_err(|e| format!("{url}: {e}"))?;
        let mut answer = self.agent.run(sent).map_err(|e| format!("{url}: {e}"))?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (location, became) = (header("location"), header("x-fhirsim-event"));
        let headers: Vec<(&str, Option<String>)> = COMPARED.iter().map(|name| (*name, header(name))).collect();
        let text = answer.body_mut().with_config().limit(MOST_BYTES).read_to_string().unwrap_or_default();
        self.learn(response["headers"]["location"].as_str(), location.as_deref());
        let mut differences = Vec::new();
        if response["status"].as_u64() != Some(status.into()) {
            differences.push(format!("status {} instead of {}", status, response["status"]));
        }
        differences.extend(headers.iter().filter_map(|(name, now)| header_differs(name, response["headers"][*name].as_str(), now.as_deref())));
        let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
        match (response["text"].as_str().and_then(parsed), parsed(&text)) {
            (Some(before), Some(mut now)) => {
                self.learn_entries(&before, &now);
                self.learn_links(&before, &now);
                let before = parsed(&self.renamed(&before.to_string())).unwrap_or(before);
                // What is found in no order that was asked for may come in another.
                if before["type"] == "searchset" && !below.contains("_sort") {
                    align(&before, &mut now);
                }
                compare(&before, &now, "", &mut differences);
            }
            (Some(_), None) => differences.push(format!("the content is {} instead of JSON", if text.is_empty() { "empty" } else { "none" })),
            (None, _) => {}
        }
        differences.truncate(SHOWN);
        Ok(Sent { status: Some(status), event: became, differences })
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

    fn learn_links(&mut self, before: &Value, now: &Value) {
        let links = |bundle: &Value| bundle["link"].as_array().cloned().unwrap_or_default();
        let now = links(now);
        for link in links(before) {
            let same = now.iter().find(|other| other["relation"] == link["relation"]);
            if let (Some(before), Some(now)) = (link["url"].as_str().and_then(below), same.and_then(|same| same["url"].as_str()))
                && now.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with(['/', '?']))
            {
                self.links.insert(before.to_owned(), now.to_owned());
            }
        }
    }

    fn learn_entries(&mut self, before: &Value, now: &Value) {
        let entries = |bundle: &Value| bundle["entry"].as_array().cloned().unwrap_or_default();
        for (before, now) in entries(before).iter().zip(&entries(now)) {
            self.learn(before["response"]["location"].as_str(), now["response"]["location"].as_str());
        }
    }
}

/// What follows the endpoint in `/sim/<name>/fhir/...`, with or without a host before it; a name may have `fhir` in it.
fn below(url: &str) -> Option<&str> {
    let path = url.find("/sim/").map(|at| &url[at + 5..])?;
    path.split_once('/')?.1.strip_prefix("fhir")
}

/// `Patient/123` of `http://x/fhir/Patient/123/_history/1`.
fn resource_of(location: &str) -> Option<String> {
    let path = location.split("/_history/").next()?;
    let mut parts = path.rsplit('/');
    let (id, type_name) = (parts.next()?, parts.next()?);
    Some(format!("{type_name}/{id}"))
}

/// In what a header differs: of a media type its name counts, of what is each server's own whether it is there.
fn header_differs(name: &str, before: Option<&str>, now: Option<&str>) -> Option<String> {
    let essence = |value: &str| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (before, now) {
        (Some(before), Some(now)) if name == "content-type" && essence(before) != essence(now) => {
            Some(format!("{name} is {} instead of {}", essence(now), essence(before)))
        }
        (Some(_), None) => Some(format!("{name} is missing")),
        (None, Some(now)) if name != "content-type" => Some(format!("{name} is {} instead of nothing", crate::fhir::id::clip(now))),
        _ => None,
    }
}

/// Puts the entries of a Bundle in the order that those of another have, as far as they are of the same resources.
fn align(before: &Value, now: &mut Value) {
    let uid = |entry: &Value| format!("{}/{}", entry["resource"]["resourceType"], entry["resource"]["id"]);
    let order: BTreeMap<String, usize> = before["entry"].as_array().into_iter().flatten().enumerate().map(|(n, entry)| (uid(entry), n)).collect();
    if let Some(entries) = now.get_mut("entry").and_then(Value::as_array_mut) {
        entries.sort_by_key(|entry| order.get(&uid(entry)).copied().unwrap_or(usize::MAX));
    }
}

/// What no two servers have in common.
fn is_own(at: &str, name: &str) -> bool {
    match name {
        "versionId" | "lastUpdated" => at.ends_with("meta"),
        "fullUrl" | "link" | "location" | "etag" | "lastModified" | "diagnostics" | "details" | "text" => {
            at.is_empty() || at.contains("entry") || at.contains("issue")
        }
        _ => false,
    }
}

fn compare(before: &Value, now: &Value, at: &str, found: &mut Vec<String>) {
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), |v| crate::fhir::id::clip(&v.to_string()));
    match (before, now) {
        (Value::Object(a), Value::Object(b)) => {
            // One that was made for the answer, and that within it.
            let kind = a.get("type").and_then(Value::as_str).unwrap_or_default();
            let is_made = matches!(kind, "searchset" | "history" | "batch-response" | "transaction-response");
            let own_bundle = a.get("resourceType").is_some_and(|t| t == "Bundle") && (at.is_empty() || is_made);
            let is_statement = at.is_empty() && a.get("resourceType").is_some_and(|t| t == "CapabilityStatement");
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let is_about_server = is_statement && matches!(name.as_str(), "date" | "implementation" | "software");
                if is_own(at, name) && name != "id" || matches!(name.as_str(), "id" | "meta") && own_bundle || is_about_server {
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
        // The same place, each of its own endpoint.
        (Value::String(a), Value::String(b)) if a.starts_with("http") && b.starts_with("http") && below(a).is_some() && below(a) == below(b) => {}
        _ => found.push(format!("{at} is {} instead of {}", shown(Some(now)), shown(Some(before)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_differ_by_what_they_are_for() {
        for (name, before, now, differs) in [
            ("content-type", Some("application/fhir+json; charset=utf-8"), Some("application/fhir+json"), false),
            ("content-type", Some("application/fhir+json"), Some("text/html"), true),
            ("etag", Some("W/\"1\""), Some("W/\"7\""), false),
            ("etag", Some("W/\"1\""), None, true),
            ("location", None, Some("http://x"), true),
            ("content-type", None, Some("text/html"), false),
        ] {
            assert_eq!(header_differs(name, before, now).is_some(), differs, "{name} {before:?} {now:?}");
        }
    }

    #[test]
    fn entries_are_compared_in_one_order() {
        let bundle = |ids: &[&str]| json!({"type": "searchset", "entry": ids.iter().map(|id| json!({"resource": {"resourceType": "Patient", "id": id}})).collect::<Vec<_>>()});
        let mut now = bundle(&["c", "x", "a", "b"]);
        align(&bundle(&["a", "b", "c", "y"]), &mut now);
        assert_eq!(now, bundle(&["a", "b", "c", "x"]));
    }
}
