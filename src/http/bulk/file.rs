//! Files, sent whole or in part.

use std::io::{Read, Seek, SeekFrom};

use actix_web::body::SizedStream;
use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::fhir::{Failure, Kind};
use crate::http::{respond, routes};
use crate::sim::bulk::Output;

/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;

/// Sends a file, or the part of it that is asked for; `noted` takes note of the status, and gives the id.
pub async fn send(request: &HttpRequest, path: std::path::PathBuf, output: &Output, noted: &dyn Fn(u16) -> String) -> HttpResponse {
    let opened = web::block(move || std::fs::File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)))).await;
    let (length, mut file) = match opened.map_err(|e| e.to_string()).and_then(|o| o.map_err(|e| e.to_string())) {
        Ok(opened) => opened,
        Err(error) => {
            return respond::failure(&Failure::new(Kind::Damaged, format!("the file cannot be read: {error}")), crate::fhir::FhirVersion::default());
        }
    };
    // There is no version of a file that a client could compare with, RFC 9110, 13.1.5.
    let asked = routes::text(request, header::RANGE).filter(|_| !request.headers().contains_key(header::IF_RANGE));
    let range = asked.map_or(Part::Whole, |r| part(r, length));
    let mut response = HttpResponse::Ok();
    response.content_type("application/fhir+ndjson").insert_header(("accept-ranges", "bytes")).append_header(("vary", "Accept-Encoding"));
    let status = match range {
        Part::Whole => StatusCode::OK,
        Part::Of(..) => StatusCode::PARTIAL_CONTENT,
        Part::Nothing => StatusCode::RANGE_NOT_SATISFIABLE,
    };
    let event = noted(status.as_u16());
    response.status(status).insert_header(("x-fhirsim-event", event.as_str()));
    response.insert_header(("content-disposition", format!("attachment; filename=\"{}\"", output.file)));
    let (from, to) = match range {
        Part::Whole => (0, length),
        Part::Of(from, to) => {
            // A part of what is compressed would be a part of something else.
            response.insert_header(("content-range", format!("bytes {from}-{}/{length}", to - 1))).insert_header(("content-encoding", "identity"));
            (from, to)
        }
        Part::Nothing => {
            let range = ("content-range", format!("bytes */{length}"));
            return HttpResponse::build(status).insert_header(range).insert_header(("x-fhirsim-event", event)).finish();
        }
    };
    if let Err(error) = file.seek(SeekFrom::Start(from)) {
        return respond::failure(&Failure::new(Kind::Damaged, error.to_string()), crate::fhir::FhirVersion::default());
    }
    let pieces = futures_util::stream::unfold((file, to - from), |(mut file, left)| async move {
        if left == 0 {
            return None;
        }
        let read = web::block(move || {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            file.read_exact(&mut piece).map(|()| (piece, file))
        });
        match read.await {
            Ok(Ok((piece, file))) => {
                let rest = left - piece.len() as u64;
                Some((Ok(Bytes::from(piece)), (file, rest)))
            }
            Ok(Err(error)) => Some((Err(actix_web::error::ErrorInternalServerError(error)), (std::fs::File::open("/dev/null").ok()?, 0))),
            Err(error) => Some((Err(actix_web::error::ErrorInternalServerError(error)), (std::fs::File::open("/dev/null").ok()?, 0))),
        }
    });
    response.body(SizedStream::new(to - from, Box::pin(pieces)))
}

/// What a `Range` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// It is no range of bytes, or of several: all of it.
    Whole,
    /// From a byte to before another.
    Of(u64, u64),
    /// There is no such part.
    Nothing,
}

fn part(range: &str, length: u64) -> Part {
    let ends = || -> Option<(u64, u64)> {
        let (from, to) = range.strip_prefix("bytes=").filter(|r| !r.contains(','))?.split_once('-')?;
        Some(match (from.trim(), to.trim()) {
            ("", last) => (length.saturating_sub(last.parse().ok()?), length),
            (from, "") => (from.parse().ok()?, length),
            (from, to) => (from.parse().ok()?, to.parse::<u64>().ok()?.saturating_add(1).min(length)),
        })
    };
    match ends() {
        None => Part::Whole,
        Some((from, to)) if from < to => Part::Of(from, to),
        Some(_) => Part::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parts_of_a_file() {
        for (range, expected) in [
            ("bytes=0-9", Part::Of(0, 10)),
            ("bytes=90-", Part::Of(90, 100)),
            ("bytes=-10", Part::Of(90, 100)),
            ("bytes=95-200", Part::Of(95, 100)),
            ("bytes=100-", Part::Nothing),
            ("bytes=5-2", Part::Nothing),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes=x-y", Part::Whole),
        ] {
            assert_eq!(part(range, 100), expected, "{range}");
        }
    }
}
