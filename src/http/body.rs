//! Reading a body: decompressed, bounded in size and time.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Decompress;
use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;

use crate::fhir::{Failure, Kind};

/// A body that could not be read whole, and what there was of it.
pub struct Partial {
    /// Why.
    pub failure: Failure,
    /// What had arrived.
    pub bytes: Bytes,
}

/// Reads the body.
pub async fn read(request: &HttpRequest, payload: Payload, max_bytes: usize, timeout: Duration) -> Result<Bytes, Partial> {
    let announced = request.headers().get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced == Some(0) || (announced.is_none() && !request.headers().contains_key("transfer-encoding")) {
        return Ok(Bytes::new());
    }
    if announced.is_some_and(|n| n > max_bytes) {
        return Err(Partial { failure: too_large(max_bytes), bytes: Bytes::new() });
    }
    let coding = request.headers().get("content-encoding").and_then(|v| v.to_str().ok()).unwrap_or("identity").trim();
    if !["identity", "gzip", "deflate"].iter().any(|known| coding.eq_ignore_ascii_case(known)) {
        let message = format!("Content-Encoding '{}' is not supported; send gzip, deflate or nothing", crate::fhir::id::clip(coding));
        return Err(Partial { failure: Failure::new(Kind::UnsupportedMediaType, message).at("http.Content-Encoding"), bytes: Bytes::new() });
    }
    let mut stream = Decompress::from_headers(payload, request.headers());
    let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0).min(1 << 20));
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        match tokio::time::timeout_at(deadline, stream.next()).await {
            Err(_) => {
                let message = format!("the body did not arrive within {} s; {} bytes did", timeout.as_secs(), bytes.len());
                return Err(Partial { failure: Failure::new(Kind::Timeout, message), bytes: bytes.freeze() });
            }
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(_))) => {
                let packed = if coding.eq_ignore_ascii_case("identity") { String::new() } else { format!(", or is not {coding} as Content-Encoding says") };
                let message = format!("the body broke off after {} bytes{packed}", bytes.len());
                return Err(Partial { failure: Failure::new(Kind::Malformed, message), bytes: bytes.freeze() });
            }
            Ok(Some(Ok(chunk))) => {
                if bytes.len() + chunk.len() > max_bytes {
                    return Err(Partial { failure: too_large(max_bytes), bytes: Bytes::new() });
                }
                bytes.extend_from_slice(&chunk);
            }
        }
    }
}

fn too_large(max_bytes: usize) -> Failure {
    Failure::new(
        Kind::TooLarge,
        format!("the body is over the limit of {max_bytes} bytes; send less at a time, or start the server with a greater --max-body-bytes"),
    )
}
