//! `/api/sims/{id}/archive`: a simulator as a file, out and in, as a stream either way.

use std::io::{self, Read, Write};
use std::time::Duration;

use actix_web::web::{Bytes, Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::{App, context, respond};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::sim::storage_failure;
use crate::simdb::SimId;

/// Pieces that wait between the disk and the network.
const WAITING: usize = 16;
/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// What is written goes out.
pub(super) struct Out {
    to: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Out {
    /// Whether nobody takes it any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.to.is_closed()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        // Nobody takes it: the client has gone.
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if piece.is_empty() { Ok(()) } else { self.to.blocking_send(Ok(piece.into())).map_err(gone) }
    }
}

/// What comes in is read.
pub(super) struct In {
    from: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for In {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.from.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.piece = piece?,
            }
        }
        let length = into.len().min(self.piece.len());
        into[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// `GET /api/sims/{id}/archive`.
pub async fn export(app: Data<App>, id: Path<String>) -> HttpResponse {
    let begun = web::block(move || {
        let id: SimId = id.parse()?;
        let failed = |e: io::Error| storage_failure(&format!("simulator {id} cannot be written out"), &e);
        Ok((format!("{id}.tar.zst"), app.registry.read(&id, |sim| sim.export().map_err(failed))?))
    });
    match begun.await {
        Ok(Ok((name, export))) => streamed("application/zstd", &name, move |out| export.write(out).map(drop)),
        Ok(Err(failure)) => respond::failure(&failure, FhirVersion::default()),
        Err(error) => respond::failure(&Failure::new(Kind::Internal, error.to_string()), FhirVersion::default()),
    }
}

/// Answers with a file that is made while it is sent.
pub(super) fn streamed<F>(content_type: &'static str, name: &str, work: F) -> HttpResponse
where
    F: FnOnce(&mut Out) -> io::Result<()> + Send + 'static,
{
    let disposition = format!("attachment; filename=\"{name}\"");
    let (to, from) = channel(WAITING);
    let name = name.to_owned();
    actix_web::rt::task::spawn_blocking(move || {
        let mut out = Out { to: to.clone(), piece: Vec::new() };
        if let Err(error) = work(&mut out).and_then(|()| out.flush()) {
            // What has gone out is cut short, so that nobody takes it for whole.
            tracing::warn!(name, %error, "a file was not sent to its end");
            let _ = to.blocking_send(Err(error));
        }
    });
    let pieces = futures_util::stream::unfold(from, |mut from| async { from.recv().await.map(|piece| (piece, from)) });
    HttpResponse::Ok().content_type(content_type).insert_header(("content-disposition", disposition)).streaming(pieces)
}

/// `PUT /api/sims/{id}/archive`: a new simulator of what the body holds.
pub async fn import(request: HttpRequest, app: Data<App>, id: Path<String>, body: Payload) -> HttpResponse {
    let origin = context::origin(&request, &app.options);
    received(app.options.read_timeout, body, move |archive| {
        let id: SimId = id.parse()?;
        let counted = app.registry.import(&id, archive)?;
        Ok(json!({"id": id.as_str(), "base": format!("{origin}/sim/{id}/fhir"), "events": counted.events, "bytes": counted.bytes}))
    })
    .await
}

/// Answers with what `work` makes of a body, which is read while it comes.
pub(super) async fn received<F>(patience: Duration, mut body: Payload, work: F) -> HttpResponse
where
    F: FnOnce(In) -> Result<Value, Failure> + Send + 'static,
{
    let (to, from) = channel(WAITING);
    let importing = web::block(move || work(In { from, piece: Bytes::new() }));
    let sending = async move {
        loop {
            let piece = match timeout(patience, body.next()).await {
                Ok(None) => break,
                Ok(Some(piece)) => piece.map_err(|e| io::Error::new(io::ErrorKind::UnexpectedEof, e.to_string())),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {} s", patience.as_secs()))),
            };
            // Refused already: the rest is not wanted.
            let is_last = piece.is_err();
            if to.send(piece).await.is_err() || is_last {
                break;
            }
        }
    };
    match futures_util::join!(importing, sending).0 {
        Ok(Ok(made)) => HttpResponse::Created().json(made),
        Ok(Err(failure)) => respond::failure(&failure, FhirVersion::default()),
        Err(error) => respond::failure(&Failure::new(Kind::Internal, error.to_string()), FhirVersion::default()),
    }
}
