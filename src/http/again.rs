//! Recorded requests for other tools: a shell, an `.http` file, a HAR archive.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::simdb::EventRecord;

/// Longest body that is repeated in a command.
const REPEATED_BYTES: usize = 1 << 20;

/// Headers that the other tool sends by itself.
fn is_theirs(name: &str) -> bool {
    matches!(name, "host" | "content-length" | "connection" | "accept-encoding" | "user-agent" | "transfer-encoding")
}

fn headers(record: &EventRecord) -> impl Iterator<Item = (&str, &str)> {
    let all = record.request.headers.iter().filter(|(name, _)| !is_theirs(name));
    all.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
}

/// A body as text, if it is one of reasonable length.
pub fn text_of(folder: &Path, file: Option<&String>) -> Option<String> {
    let bytes = fs::read(folder.join(file?)).ok().filter(|bytes| bytes.len() <= REPEATED_BYTES)?;
    String::from_utf8(bytes).ok()
}

/// The request for a shell.
#[must_use]
pub fn curl(origin: &str, record: &EventRecord, body: Option<&str>) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    // What is a word to the shell needs no quotes; of an imported event it may be anything.
    let method = Some(&record.request.method).filter(|m| m.bytes().all(|b| b.is_ascii_alphanumeric())).cloned();
    let method = method.unwrap_or_else(|| quoted(&record.request.method));
    let mut out = format!("curl -X {method} {}", quoted(&format!("{origin}{}", record.request.url)));
    for (name, value) in headers(record) {
        out.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
    }
    if let Some(body) = body {
        out.push_str(&format!(" \\\n  --data-binary {}", quoted(body)));
    }
    out.push('\n');
    out
}

/// The request as editors read it, <https://www.jetbrains.com/help/idea/exploring-http-syntax.html>.
#[must_use]
pub fn http(origin: &str, record: &EventRecord, body: Option<&str>) -> String {
    let mut out = format!("### {} {}\n{} {origin}{}\n", record.event, record.interaction, record.request.method, record.request.url);
    for (name, value) in headers(record) {
        out.push_str(&format!("{name}: {value}\n"));
    }
    if let Some(body) = body {
        out.push_str(&format!("\n{body}\n"));
    }
    out.push('\n');
    out
}

/// Exchanges as browsers' tools read them, <http://www.softwareishard.com/blog/har-12-spec/>.
#[must_use]
pub fn har(entries: &[Value]) -> Value {
    json!({"log": {"version": "1.2", "creator": {"name": "fhirsim", "version": env!("CARGO_PKG_VERSION")}, "entries": entries}})
}

/// One exchange of a HAR archive.
#[must_use]
pub fn har_entry(origin: &str, record: &EventRecord, folder: &Path) -> Value {
    let listed = |all: &Map<String, Value>| all.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>();
    let media = |all: &Map<String, Value>| all.get("content-type").cloned().unwrap_or_else(|| "".into());
    let url = format!("{origin}{}", record.request.url);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query: Vec<Value> = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| json!({"name": name, "value": value})).collect();
    let asked = text_of(folder, record.request.body.as_ref());
    let answered = text_of(folder, record.response.body.as_ref());
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let took = record.response.duration_us as f64 / 1_000.0;
    let mut request = json!({"method": record.request.method, "url": url, "httpVersion": "HTTP/1.1", "cookies": [], "headers": listed(&record.request.headers),
        "queryString": query, "headersSize": -1, "bodySize": record.request.body_bytes});
    if let Some(text) = asked {
        request["postData"] = json!({"mimeType": media(&record.request.headers), "text": text});
    }
    let size = answered.as_ref().map_or(0, String::len);
    let content = json!({"size": size, "mimeType": media(&record.response.headers), "text": answered.unwrap_or_default()});
    json!({"startedDateTime": record.instant, "time": took, "request": request, "cache": {}, "timings": {"send": 0, "wait": took, "receive": 0},
        "response": {"status": record.response.status, "statusText": "", "httpVersion": "HTTP/1.1", "cookies": [], "headers": listed(&record.response.headers),
            "content": content, "redirectURL": "", "headersSize": -1, "bodySize": size},
        "comment": format!("{} {}", record.event, record.interaction)})
}
