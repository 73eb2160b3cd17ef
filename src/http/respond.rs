//! Replies and refusals as HTTP responses.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::web::Bytes;

use super::negotiate::Format;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, outcome, raw, xml};
use crate::interaction::status;
use crate::sim::bodies::Body;

/// A response before it is actix's: what is recorded and what is sent are the same.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Option<Body>,
}

impl Answer {
    /// The answer to a refusal.
    #[must_use]
    pub fn refusal(failure: &Failure, version: FhirVersion, format: &Format) -> Self {
        let mut answer = Self { status: status::of_failure(failure.kind), ..Self::default() };
        if let Some(allow) = failure.allow {
            answer.headers.push(("allow", allow.to_owned()));
        }
        if failure.kind == Kind::TooMany {
            answer.headers.push(("retry-after", failure.retry_after_s.unwrap_or(1).to_string()));
        }
        // Who has shown none is not told of an error, RFC 6750, 3.1.
        if failure.kind == Kind::NoToken {
            answer.headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        if failure.kind == Kind::Unauthorized {
            answer.headers.push(("www-authenticate", "Bearer error=\"invalid_token\"".to_owned()));
        }
        if failure.kind == Kind::OutOfScope {
            answer.headers.push(("www-authenticate", "Bearer error=\"insufficient_scope\"".to_owned()));
        }
        let body: Body = outcome::of_failure(failure, version).to_string().into_bytes().into();
        // What a client sent and a refusal quotes may be more than XML can say.
        answer.clone().with_resource(&body, version, format).unwrap_or_else(|_| answer.with_json(body, version, &Format::default()))
    }

    /// The same with a resource, which is JSON, in the format that is asked for.
    ///
    /// # Errors
    /// [`crate::fhir::Kind::NotAcceptable`]: it holds what XML cannot say.
    pub fn with_resource(mut self, body: &Body, version: FhirVersion, format: &Format) -> Result<Self, Failure> {
        if !format.media_type.is_xml() {
            return Ok(self.with_json(body.clone(), version, format));
        }
        let json = std::str::from_utf8(body).unwrap_or_default();
        let text = xml::to_xml(json, Definitions::of(version))?;
        self.headers.push(("content-type", content_type(version, format)));
        self.body = Some(if format.pretty { xml::pretty(&text) } else { text }.into_bytes().into());
        Ok(self)
    }

    /// The same with a body of FHIR JSON.
    fn with_json(mut self, body: Body, version: FhirVersion, format: &Format) -> Self {
        self.headers.push(("content-type", content_type(version, format)));
        self.body = Some(if format.pretty { pretty(&body) } else { body });
        self
    }

    /// An answer of plain JSON.
    #[must_use]
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::of(status, "application/json", value.to_string().into_bytes())
    }

    /// An answer of any media type.
    #[must_use]
    pub fn of(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: Some(body.into()) }
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Why something was refused, as the answer says.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        /// No reason is as long.
        const MOST: usize = 1_000;
        let text = std::str::from_utf8(self.body.as_deref().filter(|_| self.status >= 400)?).ok()?;
        let said = if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
            let said = [&value["issue"][0]["diagnostics"], &value["error_description"]];
            said.into_iter().find_map(|said| said.as_str().map(str::to_owned))?
        } else {
            let coded = [("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&apos;", "'"), ("&amp;", "&")];
            let said = text.split_once("<diagnostics value=\"")?.1.split('"').next()?;
            coded.iter().fold(said.to_owned(), |said, (coded, plain)| said.replace(coded, plain))
        };
        Some(said.chars().take(MOST).collect())
    }

    /// As actix sends it; `event` is where the exchange is to be found.
    #[must_use]
    pub fn into_response(self, event: Option<&str>, request_id: Option<HeaderValue>, is_head: bool) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.insert_header((HeaderName::from_static(name), value));
            }
        }
        // The same resource may be had in other formats, RFC 9110, 12.5.5.
        response.append_header((header::VARY, "Accept"));
        if let Some(Ok(event)) = event.map(HeaderValue::from_str) {
            response.insert_header((HeaderName::from_static("x-fhirsim-event"), event));
        }
        if let Some(id) = request_id {
            response.insert_header((HeaderName::from_static("x-request-id"), id));
        }
        match self.body {
            // actix leaves the body of a HEAD's response out and its length in.
            Some(body) if is_head => response.no_chunking(body.len() as u64).body(Bytes::from_owner(body)),
            Some(body) => response.body(Bytes::from_owner(body)),
            None => response.finish(),
        }
    }
}

fn content_type(version: FhirVersion, format: &Format) -> String {
    let name = format.media_type.name();
    if format.names_version { format!("{name}; fhirVersion={}", version.mime_parameter()) } else { format!("{name}; charset=utf-8") }
}

fn pretty(body: &Body) -> Body {
    match std::str::from_utf8(body) {
        Ok(text) => (raw::pretty(text) + "\n").into_bytes().into(),
        Err(_) => body.clone(),
    }
}

/// The refusal of a request that is for no simulator.
#[must_use]
pub fn failure(failure: &Failure, version: FhirVersion) -> HttpResponse {
    let mut response = Answer::refusal(failure, version, &Format::default()).into_response(None, None, false);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Milliseconds since 1970 as HTTP writes an instant.
#[must_use]
pub fn http_date(ms: i64) -> String {
    let seconds = u64::try_from(ms / 1_000).unwrap_or(0);
    header::HttpDate::from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).to_string()
}
