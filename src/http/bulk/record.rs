//! What begins something is kept as an event, like a write.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, web};
use serde_json::Value;

use crate::http::respond::Answer;
use crate::http::routes::text;
use crate::http::serve::{method_name, recorded_headers, shown_url};
use crate::sim::{Draft, Sim};
use crate::simdb::EventRecord;
use crate::simdb::event::{RequestRecord, ResponseRecord};
use crate::version::Operation;

/// Keeps a request and its answer; returns the event's id.
pub async fn kept(sim: &Arc<Sim>, request: &HttpRequest, name: &'static str, body: Bytes, answer: &Answer, who: Option<Value>, started: Instant) -> String {
    let headers = answer.headers.iter().map(|(n, v)| ((*n).to_owned(), Value::from(v.as_str()))).collect();
    let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let record = EventRecord {
        interaction: name.to_owned(),
        client: request.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default(),
        request: RequestRecord {
            method: method_name(request.method()).to_owned(),
            url: shown_url(request),
            headers: recorded_headers(request),
            ..RequestRecord::default()
        },
        authorization: who,
        response: ResponseRecord { status: answer.status, duration_us: took, headers, body: None },
        ..EventRecord::default()
    };
    // Lines are resources to be stored, and no order with secrets in it.
    let is_lines = text(request, header::CONTENT_TYPE).is_some_and(|t| t.contains("ndjson"));
    let (body_file, body) = if is_lines { ("request_body.ndjson", body) } else { ("request_body.json", redacted(body)) };
    let (there, answered) = (sim.clone(), answer.body.clone());
    let kept = web::block(move || {
        there.exchange(Operation::Post, |_, _| {
            let draft = Draft {
                record,
                request_body: (!body.is_empty()).then_some((body_file, &body[..])),
                response_body: answered.clone().map(|body| ("response_body.json", body)),
                changes: Vec::new(),
            };
            (Some(draft), ())
        })
    });
    let failed = |why: String| {
        tracing::error!(sim = %sim.id(), why, "a request could not be recorded");
        String::new()
    };
    match kept.await {
        Ok(Ok(((), event, ticket))) => {
            sim.durable(ticket).await;
            event.map(|event| event.to_string()).unwrap_or_default()
        }
        Ok(Err(failure)) => failed(failure.diagnostics),
        Err(error) => failed(error.to_string()),
    }
}

/// Parameters whose values are secrets.
const SECRET: [&str; 2] = ["fileRequestHeader", "fileEncryptionKey"];

/// The body without what shall be sent along when files are fetched, and without keys: those are secrets. Where it cannot be told
/// where they stand, nothing of it is kept.
pub fn redacted(body: Bytes) -> Bytes {
    let text = String::from_utf8_lossy(&body);
    let names_some = SECRET.iter().any(|name| text.contains(name));
    // A name may be spelled by escapes; without them nothing has to be read.
    if !names_some && !text.contains("\\u") {
        return body;
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else {
        return if names_some { Bytes::from_static(b"[redacted: it names secrets and is no JSON]") } else { body };
    };
    if hide(&mut value) || names_some { value.to_string().into() } else { body }
}

/// Hides the secrets in a value; whether there are any.
fn hide(value: &mut Value) -> bool {
    match value {
        Value::Object(members) if members.get("name").and_then(Value::as_str).is_some_and(|name| SECRET.contains(&name)) => {
            hidden(value);
            true
        }
        Value::Object(members) => members.values_mut().map(hide).fold(false, |any, one| any | one),
        Value::Array(items) => items.iter_mut().map(hide).fold(false, |any, one| any | one),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Takes every value out of a parameter but names, and the name of a header.
fn hidden(value: &mut Value) {
    match value {
        Value::String(_) | Value::Bool(_) | Value::Number(_) => *value = "[redacted]".into(),
        Value::Array(items) => items.iter_mut().for_each(hidden),
        Value::Object(members) if members.get("name").is_some_and(|name| name == "headerName") => {}
        Value::Object(members) => members.iter_mut().filter(|(key, _)| *key != "name").for_each(|(_, value)| hidden(value)),
        Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use actix_web::web::Bytes;

    use super::redacted;

    #[test]
    fn secrets_do_not_stay_whatever_form_they_have() {
        for body in ["[]", "5", "null", "\"x\"", "{}", "not json", r#"{"parameter":[{"name":"x","valueString":"y"}]}"#] {
            assert_eq!(redacted(Bytes::copy_from_slice(body.as_bytes())), body, "nothing secret, nothing changed");
        }
        for body in [
            r#"{"parameter":[{"name":"fileRequestHeader","part":[{"name":"headerName","valueString":"X"},{"name":"headerValue","valueString":"hush"}]}]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","part":[{"name":"headerValue","part":[{"name":"y","valueString":"hush"}]}]}]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}]}"#,
            r#"{"parameter":{"name":"fileRequestHeader","valueString":"hush"}}"#,
            r#"{"parameter":[{"name":"file\u0052equestHeader","valueString":"hush"}]}"#,
            r#"{"parameter":[{"name":"fileEncryptionKey","part":[{"name":"value","valueString":"hush"}]}]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}],"parameter":[]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}"#,
            "\u{feff}{\"parameter\":[{\"name\":\"fileRequestHeader\",\"valueString\":\"hush\"}]}",
            "<Parameters><parameter><name value='fileRequestHeader'/><valueString value='hush'/></parameter></Parameters>",
        ] {
            let kept = redacted(Bytes::copy_from_slice(body.as_bytes()));
            let kept = std::str::from_utf8(&kept).unwrap_or_default();
            assert!(!kept.contains("hush") && kept.contains("redacted") != kept.ends_with("[]}"), "{kept}");
        }
    }
}
