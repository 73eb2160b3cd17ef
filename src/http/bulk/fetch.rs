//! Files and manifests are fetched: each by a thread of its own, so that one who gives up need not wait for somebody else's server.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use super::import::{Input, listed};
use super::{Result, bad};
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::http::{App, outbound};
use crate::sim::Sim;
use crate::sim::bulk::Job;

/// Most bytes of a file.
const MAX_BYTES: u64 = 16 << 30;
/// Most bytes of a manifest.
const MAX_MANIFEST_BYTES: u64 = 8 << 20;
/// Most manifests that lead to one another.
const MAX_LINKS: usize = 100;
/// What a line takes besides its text.
const LINE_BYTES: usize = 32;
/// Bytes that are handed on at once.
const PIECE: usize = 1 << 20;
/// Most threads that read: one whose server is silent is left alone until that says something, or its time is over.
const MAX_READERS: usize = 64;
/// How often one who waits looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(50);
static READERS: AtomicUsize = AtomicUsize::new(0);
/// Headers that say how a message is sent, and not what is asked for.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How files are fetched.
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// Headers that are sent along.
    headers: Vec<(String, String)>,
}

impl Fetch {
    /// With these headers.
    ///
    /// # Errors
    /// One is no header, or one that says how the message itself is sent.
    pub fn with(headers: Vec<(String, String)>) -> Result<Self> {
        for (name, value) in &headers {
            let is_header = ureq::http::HeaderName::from_bytes(name.as_bytes()).is_ok() && ureq::http::HeaderValue::from_str(value).is_ok();
            if !is_header || FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
                return Err(bad(format!("'{}' and its value are no header that can be sent along", clip(name))));
            }
        }
        Ok(Self { headers })
    }

    fn fetched(&self, url: &str, accept: &str, app: &App) -> Result<ureq::Body> {
        outbound::fetchable(url, app)?;
        let failed = |why: &dyn std::fmt::Display| Failure::new(Kind::Unprocessable, format!("'{}' cannot be fetched: {why}", clip(url)));
        let config = outbound::configured()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_mins(1)))
            .timeout_recv_body(Some(Duration::from_hours(1)))
            .build();
        let mut request = outbound::agent(config).get(url).header("accept", accept);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.call().map_err(|e| failed(&e))?;
        if answer.status() != 200 {
            return Err(failed(&format!("it answers with status {}", answer.status().as_u16())));
        }
        Ok(answer.into_body())
    }

    /// The files that a manifest lists, and those that it leads to.
    fn manifest(&self, url: &str, sim: &Sim, app: &App) -> Result<Vec<Input>> {
        let mut inputs = Vec::new();
        let mut next = Some(url.to_owned());
        for _ in 0..MAX_LINKS {
            let Some(url) = next.take() else { return Ok(inputs) };
            let failed = |why: &dyn std::fmt::Display| Failure::new(Kind::Unprocessable, format!("the manifest at '{}' cannot be read: {why}", clip(&url)));
            let mut body = self.fetched(&url, "application/json", app)?;
            let text = body.with_config().limit(MAX_MANIFEST_BYTES).read_to_string().map_err(|e| failed(&e))?;
            let value: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
            inputs.extend(listed(&value, sim).map_err(|f| failed(&f.diagnostics))?);
            next = leads_to(&value);
        }
        Err(Failure::new(Kind::TooCostly, format!("the manifest at '{}' leads to more than {MAX_LINKS} others", clip(url))))
    }
}

/// The manifest that one leads to.
pub fn leads_to(manifest: &Value) -> Option<String> {
    let link = manifest["link"].as_array()?.iter().find(|link| link["relation"] == "next")?;
    link["url"].as_str().map(str::to_owned)
}

/// One of the threads that read.
struct Reader;

impl Reader {
    fn begin() -> Result<Self> {
        let counted = READERS.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MAX_READERS).then_some(n + 1));
        let message = || Failure::new(Kind::TooMany, format!("{MAX_READERS} files are being fetched, which is the most; some servers do not answer"));
        counted.map(|_| Self).map_err(|_| message())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs `read` in a thread of its own and hands on what it sends, as long as the job goes on; what it has left to say is its own result.
fn aside<T: Send + 'static>(read: impl FnOnce(&SyncSender<T>) + Send + 'static) -> Result<Receiver<T>> {
    let reader = Reader::begin()?;
    let (sender, receiver) = sync_channel(1);
    let reads = move || {
        let _reader = reader;
        read(&sender);
    };
    let begun = std::thread::Builder::new().name("fetch".into()).spawn(reads);
    begun.map(|_| receiver).map_err(|e| Failure::new(Kind::Internal, e.to_string()))
}

/// What comes next; none if nothing will, or the job is over.
fn next<T>(receiver: &Receiver<T>, job: &Job) -> Option<T> {
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(item) => return Some(item),
            Err(RecvTimeoutError::Timeout) if !job.is_over() => {}
            Err(_) => return None,
        }
    }
}

/// The files that a manifest at a URL lists, and those that it leads to; none if the job is over.
///
/// # Errors
/// One cannot be fetched, or is no manifest.
pub fn manifest(url: &str, fetch: &Fetch, job: &Job, sim: &std::sync::Arc<Sim>, app: &Data<App>) -> Result<Vec<Input>> {
    let (fetch, url, sim, app) = (fetch.clone(), url.to_owned(), sim.clone(), app.clone());
    let receiver = aside(move |sender| _ = sender.send(fetch.manifest(&url, &sim, &app)))?;
    next(&receiver, job).unwrap_or_else(|| Ok(Vec::new()))
}

/// A line of a file.
pub enum Line {
    /// As it is, without its end.
    Text(Vec<u8>),
    /// It has more bytes than a resource may have.
    TooLong,
}

/// The lines of a file, piece by piece; the last piece may be why there are no more.
pub struct Lines {
    receiver: Receiver<Result<Vec<Line>>>,
}

impl Lines {
    /// Those of a file.
    ///
    /// # Errors
    /// Too many are being fetched.
    pub fn of(input: &Input, fetch: &Fetch, app: &Data<App>) -> Result<Self> {
        let (input, fetch, app) = (input.clone(), fetch.clone(), app.clone());
        let read = move |sender: &SyncSender<Result<Vec<Line>>>| {
            let longest = app.options.max_body_bytes;
            if let Err(failure) = opened(&input, &fetch, &app).and_then(|reader| read(reader, longest, sender)) {
                let _ = sender.send(Err(failure));
            }
        };
        Ok(Self { receiver: aside(read)? })
    }

    /// The next ones; none at the end, or if the job is over.
    pub fn next(&self, job: &Job) -> Option<Result<Vec<Line>>> {
        next(&self.receiver, job)
    }
}

/// A file, unpacked if it is packed.
fn opened(input: &Input, fetch: &Fetch, app: &App) -> Result<Box<dyn BufRead>> {
    let raw: Box<dyn Read> = match &input.body {
        Some(body) => Box::new(io::Cursor::new(Bytes::clone(body))),
        None => Box::new(fetch.fetched(&input.url, "application/fhir+ndjson", app)?.into_reader()),
    };
    let mut reader = BufReader::new(raw.take(MAX_BYTES));
    let is_packed = reader.fill_buf().map_err(|e| broken(&e))?.starts_with(&[0x1f, 0x8b]);
    if is_packed { Ok(Box::new(BufReader::new(MultiGzDecoder::new(reader).take(MAX_BYTES)))) } else { Ok(Box::new(reader)) }
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Kind::Malformed, format!("the file broke off: {error}"))
}

/// Hands on all lines; ends early if nobody wants them.
fn read(mut reader: Box<dyn BufRead>, longest: usize, sender: &SyncSender<Result<Vec<Line>>>) -> Result<()> {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    loop {
        let line = match one(&mut reader, longest) {
            Ok(Some(line)) => line,
            Ok(None) => {
                let _ = sender.send(Ok(piece));
                return Ok(());
            }
            Err(error) => {
                let _ = sender.send(Ok(piece));
                return Err(broken(&error));
            }
        };
        // A blank line takes memory, too.
        bytes += LINE_BYTES + if let Line::Text(text) = &line { text.len() } else { 0 };
        piece.push(line);
        if bytes >= PIECE {
            if sender.send(Ok(std::mem::take(&mut piece))).is_err() {
                return Ok(());
            }
            bytes = 0;
        }
    }
}

/// One line; of one that is too long no more is kept than tells so.
fn one(reader: &mut Box<dyn BufRead>, longest: usize) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    // It may end with a carriage return, too.
    let read = reader.by_ref().take(longest as u64 + 2).read_until(b'\n', &mut text)?;
    if read == 0 {
        return Ok(None);
    }
    let is_whole = text.last() == Some(&b'\n') || read < longest + 2;
    let end = text.iter().rev().take_while(|b| matches!(b, b'\r' | b'\n')).count().min(2);
    text.truncate(text.len() - end);
    if is_whole {
        return Ok(Some(if text.len() <= longest { Line::Text(text) } else { Line::TooLong }));
    }
    loop {
        let there = reader.fill_buf()?;
        let (used, is_end) = match there.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (there.len(), there.is_empty()),
        };
        reader.consume(used);
        if is_end {
            return Ok(Some(Line::TooLong));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end() {
        let read = |text: &str, longest: usize| {
            let mut reader: Box<dyn BufRead> = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
            let mut found = Vec::new();
            while let Ok(Some(line)) = one(&mut reader, longest) {
                found.push(match line {
                    Line::Text(text) => String::from_utf8(text).unwrap_or_default(),
                    Line::TooLong => "!".to_owned(),
                });
            }
            found.join("|")
        };
        assert_eq!(read("ab\n\ncd", 9), "ab||cd");
        assert_eq!(read("abc\nabcd\nab\n", 3), "abc|!|ab");
        assert_eq!(read("abcd", 3), "!");
        assert_eq!(read("abc\r\nabcd\r\nabcde\r\nab", 3), "abc|!|!|ab");
        assert_eq!(read("", 3), "");
    }

    #[test]
    fn headers_that_frame_a_message_are_not_sent_along() {
        let with = |name: &str, value: &str| Fetch::with(vec![(name.to_owned(), value.to_owned())]).is_ok();
        assert!(with("Authorization", "Bearer x") && with("X-Key", "1"));
        assert!(!with("Content-Length", "5") && !with("HOST", "x") && !with("", "x") && !with("a b", "x") && !with("x", "a\r\nb: c"));
    }
}
