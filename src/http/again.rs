//! Recorded requests for other tools: a shell, an `.http` file, a HAR archive.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::clock::EventId;
use crate::simdb::EventRecord;

/// Longest body that is shown, or repeated in a command.
const REPEATED_BYTES: u64 = 1 << 20;

/// Headers that the other tool sends by itself, or that are not true of the body as it is kept, unpacked.
fn is_theirs(name: &str) -> bool {
    matches!(name, "host" | "content-length" | "content-encoding" | "connection" | "accept-encoding" | "user-agent" | "transfer-encoding")
}

fn headers(record: &EventRecord) -> impl Iterator<Item = (&str, &str)> {
    let all = record.request.headers.iter().filter(|(name, _)| !is_theirs(name));
    all.map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
}

/// A body as text, if it is one of reasonable length.
pub fn text_of(folder: &Path, file: Option<&String>) -> Option<String> {
    let path = folder.join(file?);
    fs::metadata(&path).ok().filter(|found| found.len() <= REPEATED_BYTES)?;
    String::from_utf8(fs::read(path).ok()?).ok()
}

/// Where a file lies, from wherever one looks.
fn whole_path(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    std::path::absolute(&path).unwrap_or(path).display().to_string()
}

/// A body for a HAR archive: its text, which is base64 with that as its encoding if it is none; and how long it is.
fn content_of(folder: &Path, file: Option<&String>) -> (Option<(String, bool)>, u64) {
    let length = file.and_then(|file| fs::metadata(folder.join(file)).ok()).map_or(0, |found| found.len());
    let bytes = file.filter(|_| length <= REPEATED_BYTES).and_then(|file| fs::read(folder.join(file)).ok());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_or_else(|e| (STANDARD.encode(e.as_bytes()), true), |text| (text, false));
    (bytes.map(text), length)
}

/// The request for a shell.
#[must_use]
pub fn curl(origin: &str, record: &EventRecord, folder: &Path) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    // What is a word to the shell needs no quotes; of an imported event it may be anything.
    let method = Some(&record.request.method).filter(|m| m.bytes().all(|b| b.is_ascii_alphanumeric())).cloned();
    let method = method.unwrap_or_else(|| quoted(&record.request.method));
    // Braces and brackets of a URL mean themselves; a HEAD has no body to wait for.
    let asks = if method == "HEAD" { "-I".to_owned() } else { format!("-X {method}") };
    let mut out = format!("curl -g {asks} {}", quoted(&format!("{origin}{}", record.request.url)));
    for (name, value) in headers(record) {
        // One that is empty would be taken out.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        out.push_str(&format!(" \\\n  -H {}", quoted(&header)));
    }
    if record.request.body.is_some() && !record.request.headers.contains_key("content-type") {
        // Else it would be called a form.
        out.push_str(" \\\n  -H 'content-type:'");
    }
    // No argument holds a NUL.
    let text = text_of(folder, record.request.body.as_ref()).filter(|text| !text.contains('\0'));
    match (&record.request.body, text) {
        // Not as `--data-binary`: a body that begins with @ would be the name of a file.
        (Some(_), Some(body)) => out.push_str(&format!(" \\\n  --data-raw {}", quoted(&body))),
        (Some(file), None) => out.push_str(&format!(" \\\n  --data-binary {}", quoted(&format!("@{}", whole_path(folder, file))))),
        (None, _) => {}
    }
    out.push('\n');
    out
}

/// The request as editors read it, <https://www.jetbrains.com/help/idea/exploring-http-syntax.html>.
#[must_use]
pub fn http(origin: &str, record: &EventRecord, folder: &Path) -> String {
    let mut out = format!("### {} {}\n{} {origin}{}\n", record.event, record.interaction, record.request.method, record.request.url);
    for (name, value) in headers(record) {
        out.push_str(&format!("{name}: {value}\n"));
    }
    match (&record.request.body, text_of(folder, record.request.body.as_ref())) {
        (Some(_), Some(body)) => out.push_str(&format!("\n{body}\n")),
        (Some(file), None) => out.push_str(&format!("\n< {}\n", whole_path(folder, file))),
        (None, _) => {}
    }
    out.push('\n');
    out
}

/// Exchanges as browsers' tools read them, <http://www.softwareishard.com/blog/har-12-spec/>; `_next` is the last of them, if
/// there are more: names with a `_` are everyone's own.
#[must_use]
pub fn har(entries: &[Value], next: Option<EventId>) -> Value {
    let mut log = json!({"version": "1.2", "creator": {"name": "fhirsim", "version": env!("CARGO_PKG_VERSION")}, "entries": entries});
    if let Some(next) = next {
        log["_next"] = next.to_string().into();
    }
    json!({"log": log})
}

/// How long the bodies in an exchange of a HAR archive are together.
#[must_use]
pub fn texts_of(entry: &Value) -> usize {
    let length = |text: &Value| text.as_str().map_or(0, str::len);
    length(&entry["request"]["postData"]["text"]) + length(&entry["response"]["content"]["text"])
}

/// One exchange of a HAR archive.
#[must_use]
pub fn har_entry(origin: &str, record: &EventRecord, folder: &Path) -> Value {
    let listed = |all: &Map<String, Value>| all.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>();
    let media = |all: &Map<String, Value>| all.get("content-type").cloned().unwrap_or_else(|| "".into());
    let url = format!("{origin}{}", record.request.url);
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query: Vec<Value> = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| json!({"name": name, "value": value})).collect();
    let (asked, _) = content_of(folder, record.request.body.as_ref());
    let (answered, size) = content_of(folder, record.response.body.as_ref());
    #[expect(clippy::cast_precision_loss, reason = "milliseconds for people")]
    let took = record.response.duration_us as f64 / 1_000.0;
    let mut request = json!({"method": record.request.method, "url": url, "httpVersion": "HTTP/1.1", "cookies": [], "headers": listed(&record.request.headers),
        "queryString": query, "headersSize": -1, "bodySize": record.request.body_bytes});
    if let Some((text, is_coded)) = asked {
        request["postData"] = json!({"mimeType": media(&record.request.headers), "text": text});
        if is_coded {
            // Of what is posted the format does not know it.
            request["postData"]["_encoding"] = "base64".into();
        }
    }
    let (text, is_coded) = answered.unwrap_or_default();
    let mut content = json!({"size": size, "mimeType": media(&record.response.headers), "text": text});
    if is_coded {
        content["encoding"] = "base64".into();
    }
    json!({"startedDateTime": record.instant, "time": took, "request": request, "cache": {}, "timings": {"send": 0, "wait": took, "receive": 0},
        "response": {"status": record.response.status, "statusText": "", "httpVersion": "HTTP/1.1", "cookies": [], "headers": listed(&record.response.headers),
            "content": content, "redirectURL": "", "headersSize": -1, "bodySize": size},
        "comment": format!("{} {}", record.event, record.interaction)})
}
