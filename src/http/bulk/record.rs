//! What begins something is kept as an event, like a write.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpRequest, web};
use serde_json::Value;

use crate::http::faults;
use crate::http::negotiate::Format;
use crate::http::respond::Answer;
use crate::http::routes::text;
use crate::http::secrets;
use crate::http::serve::method_name;
use crate::sim::faults::Fault;
use crate::sim::{Draft, Sim};
use crate::simdb::EventRecord;
use crate::simdb::event::{RequestRecord, ResponseRecord};
use crate::version::Operation;

/// Keeps a request and its answer; returns the event's id.
pub async fn kept(sim: &Arc<Sim>, request: &HttpRequest, name: &'static str, body: Bytes, answer: &Answer, who: Option<Value>, started: Instant) -> String {
    // As it goes out.
    let fault = request.extensions().get::<Fault>().cloned();
    let answer = &match &fault {
        Some(fault) if faults::ends(&fault.effect) => Answer::default(),
        Some(fault) if !faults::prevents(Some(fault)) => faults::befallen(answer.clone(), &fault.effect, sim.snapshot().version(), &Format::default()),
        Some(_) | None => answer.clone(),
    };
    let headers = answer.headers.iter().map(|(n, v)| ((*n).to_owned(), Value::from(v.as_str()))).collect();
    let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let redact = sim.profile().settings.redact;
    let record = EventRecord {
        interaction: name.to_owned(),
        client: request.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default(),
        request: RequestRecord {
            method: method_name(request.method()).to_owned(),
            url: secrets::url(request, redact),
            headers: secrets::headers(request, redact),
            ..RequestRecord::default()
        },
        authorization: who,
        fault: fault.map(|fault| fault.rule),
        response: ResponseRecord { status: answer.status, duration_us: took, headers, body: None },
        ..EventRecord::default()
    };
    // Lines that are imported are resources to be stored, and no order with secrets in it.
    let is_lines = text(request, header::CONTENT_TYPE).is_some_and(|t| t.contains("ndjson"));
    let is_data = is_lines && name == "$import" && answer.status < 400;
    let body_file = if is_lines { "request_body.ndjson" } else { "request_body.json" };
    let body = if redact && !is_data { secrets::order(body) } else { body };
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
