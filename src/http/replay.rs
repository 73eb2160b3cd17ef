//! Recorded requests are sent again, in order, and what comes is compared with what came.
//!
//! A resource that gets another id is called by that one from then on, and so is the endpoint. Compared are status, some headers and content, if that
//! is JSON or XML.

mod compare;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use self::compare::compare;
use super::outbound;
use crate::fhir::{FhirVersion, xml};

/// Headers of a recorded request that are of its connection, or of its body as it was packed.
const OF_CONNECTION: [&str; 10] =
    ["host", "connection", "content-length", "content-encoding", "transfer-encoding", "accept-encoding", "expect", "te", "upgrade", "keep-alive"];
/// Headers of an answer that are compared: what kind of content it is, and whether there is a version, a place.
const COMPARED: [&str; 4] = ["content-type", "etag", "location", "last-modified"];
/// An id of so many characters is no word of another meaning.
const LONG: usize = 20;
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
    /// By the id that it had and its type, the id that a resource has.
    ids: HashMap<String, BTreeMap<String, String>>,
    /// The links of pages, as they were and as they are: each server counts on from a place of its own.
    links: BTreeMap<String, String>,
    version: FhirVersion,
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
    /// One to the endpoint at `base`, of what a simulator of this FHIR version has recorded, with these headers besides the recorded ones.
    #[must_use]
    pub fn to(base: &str, headers: Vec<(String, String)>, version: FhirVersion) -> Self {
        let agent = outbound::agent(outbound::configured().timeout_global(Some(LONGEST)).build());
        Self { agent, base: base.trim_end_matches('/').to_owned(), headers, ids: HashMap::new(), links: BTreeMap::new(), version }
    }

    /// Sends a recorded request again: an event as the API shows it, with its bodies, and the body of the request as it was sent.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn again(&mut self, event: &Value, body: Vec<u8>) -> Result<Sent, String> {
        let (request, response) = (&event["request"], &event["response"]);
        let unsent = |why: &str| Ok(Sent { differences: vec![format!("not sent: {why}")], ..Sent::default() });
        let url = request["url"].as_str().and_then(parts).filter(|(_, below)| below.is_empty() || below.starts_with(['/', '?']));
        // Of an imported event it may be anything: it must not become part of the host.
        let Some((sim, below)) = url else { return unsent("its URL is none of an endpoint") };
        if sim.contains('@') {
            return unsent("it was about a moment of the past, which is not there now");
        }
        let renamed = |text: &str| self.renamed(text, sim);
        let url = self.links.get(below).cloned().unwrap_or_else(|| format!("{}{}", self.base, renamed(below)));
        // What is no text names no resources.
        let body = String::from_utf8(body).map_or_else(std::string::FromUtf8Error::into_bytes, |text| renamed(&text).into_bytes());
        let mut sent = ureq::http::Request::builder().method(request["method"].as_str().unwrap_or("GET")).uri(&url);
        let own = |name: &str| self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let recorded = request["headers"].as_object().into_iter().flatten().filter_map(|(name, value)| Some((name, value.as_str()?)));
        for (name, value) in recorded.filter(|(name, value)| !OF_CONNECTION.contains(&name.as_str()) && *value != "[redacted]" && !own(name)) {
            sent = sent.header(name, renamed(value));
        }
        for (name, value) in &self.headers {
            sent = sent.header(name, value);
        }
        let sent = sent.body(body).map_err(|e| format!("{url}: {e}"))?;
        let answered = match self.agent.run(sent) {
            Ok(answer) => Answered::read(answer),
            Err(error) if is_nobody(&error) => return Err(format!("{url}: {error}")),
            Err(error) => Err(error.to_string()),
        };
        let answered = match answered {
            Ok(answered) => answered,
            // So it was recorded, too: a connection that ended.
            Err(_) if response["status"] == 0 => return Ok(Sent::default()),
            Err(why) => return Ok(Sent { differences: vec![format!("no answer: {why}")], ..Sent::default() }),
        };
        let differences = self.differences(response, &answered, sim, below);
        Ok(Sent { status: Some(answered.status), event: answered.event, differences })
    }

    /// In what an answer differs from the recorded one.
    fn differences(&mut self, response: &Value, answered: &Answered, sim: &str, below: &str) -> Vec<String> {
        let header = |name: &str| answered.headers.iter().find(|(n, _)| *n == name).and_then(|(_, value)| value.as_deref());
        self.learn(response["headers"]["location"].as_str(), header("location"));
        let mut differences = Vec::new();
        if response["status"].as_u64() != Some(answered.status.into()) {
            differences.push(format!("status {} instead of {}", answered.status, response["status"]));
        }
        differences.extend(COMPARED.iter().filter_map(|name| header_differs(name, response["headers"][*name].as_str(), header(name))));
        let version = self.version;
        let parsed = |text: &str| {
            let converted = if text.trim_start().starts_with('<') { Some(xml::from_xml(text.as_bytes(), version).ok()?) } else { None };
            serde_json::from_str::<Value>(converted.as_deref().unwrap_or(text)).ok()
        };
        match (response["text"].as_str().and_then(parsed), parsed(&answered.text)) {
            (Some(before), Some(mut now)) => {
                self.learn_entries(&before, &now);
                self.learn_links(&before, &now);
                let before = serde_json::from_str(&self.renamed(&before.to_string(), sim)).unwrap_or(before);
                // What is found in no order that was asked for may come in another.
                if before["type"] == "searchset" && !below.contains("_sort") {
                    align(&before, &mut now);
                }
                compare(&before, &now, &mut differences);
            }
            (Some(_), None) => differences.push(format!("the content is {} instead of a resource", if answered.text.is_empty() { "empty" } else { "none" })),
            (None, _) => {}
        }
        differences.truncate(SHOWN);
        differences
    }

    /// The text with the resources, and the endpoint of `sim`, called as they are there: in one pass, however many they are.
    fn renamed(&self, text: &str, sim: &str) -> String {
        let text = self.moved(text, sim);
        let is_of_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        let (mut out, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some(at) = rest.find(is_of_id) {
            let (before, run) = rest.split_at(at);
            let (word, after) = run.split_at(run.find(|c| !is_of_id(c)).unwrap_or(run.len()));
            out.push_str(before);
            let new = self.ids.get(word).and_then(|known| {
                let type_name = out.strip_suffix('/').map(|before| before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default());
                let is_meant = out.ends_with("_id=") || (out.ends_with('"') && after.starts_with('"'))
                    // A word of another meaning is no longer than that.
                    || (out.ends_with('=') && word.len() >= LONG);
                match type_name {
                    Some(type_name) => known.get(type_name),
                    None => known.values().next().filter(|_| is_meant),
                }
            });
            out.push_str(new.map_or(word, String::as_str));
            rest = after;
        }
        out + rest
    }

    /// The text with absolute URLs of the endpoint of `sim` leading to where this goes.
    fn moved(&self, text: &str, sim: &str) -> String {
        let path = format!("/sim/{sim}/fhir");
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some(at) = rest.find(&path) {
            let (before, after) = (&rest[..at], &rest[at + path.len()..]);
            let scheme = before.rfind("http").filter(|from| before[*from..].split_once("://").is_some_and(|(_, host)| is_host(host)));
            match scheme.filter(|_| !after.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
                Some(from) => out.extend([&before[..from], &self.base]),
                None => out.extend([before, &path]),
            }
            rest = after;
        }
        out + rest
    }

    /// Takes note of the resource that two locations mean.
    fn learn(&mut self, before: Option<&str>, now: Option<&str>) {
        if let (Some((type_name, before)), Some((_, now))) = (before.and_then(resource_of), now.and_then(resource_of))
            && before != now
        {
            self.ids.entry(before).or_default().insert(type_name, now);
        }
    }

    fn learn_links(&mut self, before: &Value, now: &Value) {
        let links = |bundle: &Value| bundle["link"].as_array().cloned().unwrap_or_default();
        let now = links(now);
        for link in links(before) {
            let same = now.iter().find(|other| other["relation"] == link["relation"]);
            let before = link["url"].as_str().and_then(parts).map(|(_, below)| below);
            if let (Some(before), Some(now)) = (before, same.and_then(|same| same["url"].as_str()))
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

/// An answer, read.
struct Answered {
    status: u16,
    event: Option<String>,
    headers: Vec<(&'static str, Option<String>)>,
    text: String,
}

impl Answered {
    fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Self, String> {
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, event) = (answer.status().as_u16(), header("x-fhirsim-event"));
        let headers = COMPARED.iter().map(|name| (*name, header(name))).collect();
        let bytes = answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(|e| e.to_string())?;
        Ok(Self { status, event, headers, text: String::from_utf8(bytes).unwrap_or_default() })
    }
}

/// Whether nobody is there to answer: then the others need not be sent. A connection that ends is another thing.
fn is_nobody(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    match error {
        ureq::Error::Io(error) => !matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof),
        ureq::Error::Protocol(_) => false,
        ureq::Error::Timeout(during) => matches!(during, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        _ => true,
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

/// The simulator in `/sim/<name>/fhir/...`, with or without a host before it, and what follows the endpoint; a name may have `fhir` in it, and
/// knobs of an export may stand between.
fn parts(url: &str) -> Option<(&str, &str)> {
    let path = url.find("/sim/").map(|at| &url[at + 5..])?;
    let (sim, rest) = path.split_once('/')?;
    let is_fhir = |rest: &str| rest.strip_prefix("fhir").is_some_and(|below| below.is_empty() || below.starts_with(['/', '?']));
    let rest = if is_fhir(rest) { rest } else { rest.split_once('/')?.1 };
    Some((sim, rest.strip_prefix("fhir")?))
}

/// Type and id of `http://x/fhir/Patient/123/_history/1`.
fn resource_of(location: &str) -> Option<(String, String)> {
    let path = location.split("/_history/").next()?;
    let mut parts = path.rsplit('/');
    let (id, type_name) = (parts.next()?, parts.next()?);
    Some((type_name.to_owned(), id.to_owned()))
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
