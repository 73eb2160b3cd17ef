//! `$import`: resources are fetched, line by line, and stored, a batch of lines in one event. There is no standard for it; this takes what is in
//! use: a manifest of files as SMART's and others' servers take it (JSON or Parameters), the manifest of an export, or the lines themselves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, web};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ask::{Asked, posted, value_of};
use super::{Result, bad, state};
use crate::fhir::id::clip;
use crate::fhir::raw::quote;
use crate::fhir::{Failure, Kind, Resource, ResourceId};
use crate::http::exchange::{Call, exchange};
use crate::http::negotiate::{Format, Prefer};
use crate::http::policy::{Bearer, Need};
use crate::http::respond::Answer;
use crate::http::serve::{method_name, recorded_headers, shown_url};
use crate::http::{App, outbound};
use crate::interaction::{Content, Interaction, Return};
use crate::sim::bulk::export::MAX_FILES;
use crate::sim::bulk::{Job, Output, State, Task, Work};
use crate::sim::{Draft, Sim, storage_failure, templates};
use crate::simdb::EventRecord;
use crate::simdb::event::{RequestRecord, ResponseRecord};
use crate::version::Operation;

/// Most lines that are stored at once, in one event.
const BATCH: usize = 200;
/// Most bytes of lines that are stored at once, unless one line has more.
const BATCH_BYTES: usize = 2 << 20;
/// Most bytes of a file.
const MAX_BYTES: u64 = 16 << 30;
/// Most bytes of a manifest.
const MAX_MANIFEST_BYTES: u64 = 8 << 20;
/// Most manifests that lead to one another.
const MAX_LINKS: usize = 100;
/// How often a batch is tried again because its simulator was sealed or emptied under it.
const MAX_AGAIN: usize = 3;
/// Where an import lists what it stored.
pub const STORED: &str = "stored.txt";

/// Keeps work from beginning, as long as it is there.
pub type Gate = std::sync::mpsc::Sender<()>;

/// A file that is read.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The type of its resources; none if it may be any.
    pub type_name: Option<&'static str>,
    /// Where it lies; empty if it came with the request.
    pub url: String,
    /// What came with the request.
    pub body: Option<Bytes>,
}

/// How files are fetched.
#[derive(Clone, Debug, Default)]
pub struct Fetch {
    /// Headers that are sent along.
    pub headers: Vec<(String, String)>,
}

/// Begins an import.
///
/// # Errors
/// The manifest cannot be read; the token does not allow it; a file lies where this server may not go.
pub fn begin(asked: &Asked, bearer: Option<&Bearer>, sim: &Arc<Sim>, app: &Data<App>) -> Result<(Arc<Job>, Gate)> {
    proven(asked, sim)?;
    let inputs = inputs(asked, sim)?;
    for input in &inputs {
        if let Some(bearer) = bearer {
            bearer.may(&[Need(input.type_name, 'c'), Need(input.type_name, 'u')])?;
        }
        if input.body.is_none() {
            outbound::fetchable(&input.url, app).map_err(|f| f.at("input.url"))?;
        }
    }
    let (sim_there, app_there, runtime) = (sim.clone(), app.clone(), tokio::runtime::Handle::current());
    let (gate, recorded) = std::sync::mpsc::channel::<()>();
    let work: Work = Box::new(move |job| {
        // What began it is recorded first: this ends when the other side is gone.
        let _ = recorded.recv();
        Import::of(job, sim_there, &app_there, runtime, Fetch::default()).all(&inputs)
    });
    let job = app.jobs.begin(&app.registry, sim, state(sim, Task::Import, asked.url.clone(), bearer), None, Some(work))?;
    Ok((job, gate))
}

/// Proves that something may be stored here, by POST.
pub fn proven(asked: &Asked, sim: &Sim) -> Result<()> {
    if asked.method != actix_web::http::Method::POST {
        return Err(Failure { allow: Some("POST"), ..Failure::new(Kind::MethodNotAllowed, format!("{} is not allowed here; POST is", asked.method)) });
    }
    if sim.id().session() == templates::SESSION {
        return Err(Failure::new(Kind::Forbidden, "this simulator is a template, which can be read and not changed"));
    }
    Ok(())
}

/// The files that a request names.
fn inputs(asked: &Asked, sim: &Sim) -> Result<Vec<Input>> {
    let essence = asked.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if asked.body.iter().all(u8::is_ascii_whitespace) {
        return Err(bad("the body is empty; $import takes a manifest, {\"inputFormat\":\"application/fhir+ndjson\",\"input\":[{\"type\":\"Patient\",\"url\":\"http://…\"}]}, or the lines as application/fhir+ndjson".to_owned()));
    }
    if matches!(essence.as_str(), "application/fhir+ndjson" | "application/ndjson" | "application/x-ndjson") {
        return Ok(vec![Input { body: Some(asked.body.clone()), ..Input::default() }]);
    }
    if !essence.is_empty() && !essence.ends_with("json") {
        let message =
            format!("Content-Type '{}' is not understood here; send application/json, application/fhir+json or application/fhir+ndjson", clip(&essence));
        return Err(Failure::new(Kind::UnsupportedMediaType, message));
    }
    let value: Value = serde_json::from_slice(&asked.body).map_err(|e| Failure::new(Kind::Malformed, format!("the body is no JSON: {e}")))?;
    let manifest = if value["resourceType"] == "Parameters" { of_parameters(&posted(&asked.body, "$import")?) } else { value };
    let format = manifest["inputFormat"].as_str().unwrap_or("application/fhir+ndjson");
    if !matches!(format, "application/fhir+ndjson" | "application/ndjson" | "application/x-ndjson" | "ndjson") {
        return Err(bad(format!("inputFormat '{}' is not application/fhir+ndjson", clip(format))).at("inputFormat"));
    }
    listed(&manifest, sim)
}

/// The files of a manifest: of an import (`input`) or of an export (`output`).
pub fn listed(manifest: &Value, sim: &Sim) -> Result<Vec<Input>> {
    let name = if manifest.get("input").is_some() { "input" } else { "output" };
    let all = manifest[name].as_array().ok_or_else(|| bad("the manifest has neither 'input' nor 'output', the list of files".to_owned()))?;
    if all.len() > MAX_FILES {
        return Err(Failure::new(Kind::TooCostly, format!("the manifest lists {} files; at most {MAX_FILES} are accepted", all.len())));
    }
    let definitions = crate::fhir::Definitions::of(sim.profile().version());
    let one = |(n, item): (usize, &Value)| {
        let at = |member: &str| format!("{name}[{n}].{member}");
        let url = item["url"].as_str().filter(|url| !url.is_empty()).ok_or_else(|| bad("a file has no url".to_owned()).at(at("url")))?;
        let type_name =
            item["type"].as_str().map(|t| definitions.resource_type(t)).transpose().map_err(|f| Failure { kind: Kind::BadValue, ..f }.at(at("type")))?;
        Ok(Input { type_name, url: url.to_owned(), body: None })
    };
    all.iter().enumerate().map(one).collect()
}

/// What Parameters say, as a manifest: `inputFormat`, and `input` with its parts.
fn of_parameters(parameters: &Value) -> Value {
    let named = |all: &Value, name: &str| -> Vec<Value> { all.as_array().into_iter().flatten().filter(|p| p["name"] == name).cloned().collect() };
    let part = |input: &Value, name: &str| named(&input["part"], name).first().and_then(value_of).cloned().unwrap_or(Value::Null);
    let all = &parameters["parameter"];
    let input: Vec<Value> = named(all, "input").iter().map(|input| json!({"type": part(input, "type"), "url": part(input, "url")})).collect();
    json!({"inputFormat": named(all, "inputFormat").first().and_then(value_of), "input": input})
}

/// An import that goes on.
pub struct Import<'a> {
    job: &'a Job,
    sim: Arc<Sim>,
    app: &'a App,
    runtime: tokio::runtime::Handle,
    fetch: Fetch,
}

/// What a resource is, as far as that must be known before it is stored.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "resourceType", default)]
    resource_type: Option<String>,
    #[serde(default)]
    id: Option<String>,
}

/// What became of a file.
struct Account {
    /// The number of the line.
    line: usize,
    stored: usize,
    /// Outcomes of what was not.
    errors: BufWriter<File>,
    refused: usize,
    /// What was stored, to be taken back.
    list: Option<BufWriter<File>>,
}

impl Account {
    fn refuse(&mut self, line: usize, issues: &[Value]) -> io::Result<()> {
        self.refused += 1;
        let said = |issue: &Value| {
            let mut issue = issue.clone();
            for text in ["/diagnostics", "/details/text"] {
                if let Some(Value::String(text)) = issue.pointer_mut(text) {
                    *text = format!("line {line}: {text}");
                }
            }
            issue
        };
        let issues: Vec<Value> = issues.iter().map(said).collect();
        writeln!(self.errors, "{}", json!({"resourceType": "OperationOutcome", "issue": issues}))
    }
}

/// A line that is to be stored.
struct Line {
    number: usize,
    text: String,
    method: &'static str,
    url: String,
}

impl<'a> Import<'a> {
    pub fn of(job: &'a Job, sim: Arc<Sim>, app: &'a App, runtime: tokio::runtime::Handle, fetch: Fetch) -> Self {
        Self { job, sim, app, runtime, fetch }
    }

    /// Reads and stores all files. What cannot be read is said like what cannot be stored.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn all(&mut self, inputs: &[Input]) -> Result<()> {
        self.job.expect(inputs.len());
        let failed = |e: io::Error| storage_failure("what became of the import cannot be written", &e);
        for (number, input) in (1..).zip(inputs) {
            if self.job.is_over() {
                break;
            }
            self.file(number, input).map_err(failed)?;
            self.job.did(1);
        }
        Ok(())
    }

    fn file(&mut self, number: usize, input: &Input) -> io::Result<()> {
        let name = format!("{number}.OperationOutcome.ndjson");
        let place = self.job.place(&name);
        // Where it is there, it is kept: an import that is part of a submission may be taken back.
        let list = self.job.place(STORED).exists().then(|| File::options().append(true).open(self.job.place(STORED)).map(BufWriter::new)).transpose()?;
        let mut account = Account { line: 0, stored: 0, errors: BufWriter::new(File::create(place.with_extension("part"))?), refused: 0, list };
        if let Err(failure) = self.lines(input, &mut account)? {
            let line = account.line;
            account.refuse(line, &issues_of(&failure))?;
        }
        account.errors.flush()?;
        if let Some(list) = &mut account.list {
            list.flush()?;
        }
        let input_url = Some(input.url.clone()).filter(|url| !url.is_empty());
        let type_name = input.type_name.unwrap_or_default().to_owned();
        let stored = Output { type_name, count: account.stored, input: input_url.clone(), ..Output::default() };
        let refused = Output {
            type_name: "OperationOutcome".to_owned(),
            file: name,
            count: account.refused,
            input: input_url,
            severities: BTreeMap::from([("error".to_owned(), account.refused)]),
            ..Output::default()
        };
        if account.refused > 0 {
            std::fs::rename(place.with_extension("part"), place)?;
        } else {
            std::fs::remove_file(place.with_extension("part"))?;
        }
        self.job.save(|state| {
            state.output.push(stored);
            if account.refused > 0 {
                state.error.push(refused);
            }
        })
    }

    /// Reads the lines of a file and stores them. The inner failure is that of reading.
    fn lines(&mut self, input: &Input, account: &mut Account) -> io::Result<Result<()>> {
        let mut reader = match opened(input, &self.fetch, self.app) {
            Ok(reader) => reader,
            Err(failure) => return Ok(Err(failure)),
        };
        let most = self.app.options.max_body_bytes;
        let mut waiting: Vec<Line> = Vec::new();
        let mut bytes = 0;
        loop {
            let mut text = Vec::new();
            let read = (&mut reader).take(most as u64 + 1).read_until(b'\n', &mut text);
            let unreadable = match read {
                Ok(0) => break,
                Ok(n) if n > most => Some(Failure::new(Kind::TooLarge, format!("it has more than {most} bytes; the rest of the file was not read"))),
                Ok(_) => None,
                Err(e) => Some(Failure::new(Kind::Malformed, format!("the file broke off: {e}"))),
            };
            account.line += 1;
            if let Some(failure) = unreadable {
                self.store(&std::mem::take(&mut waiting), account)?;
                return Ok(Err(failure));
            }
            match line(account.line, text, input, &self.sim) {
                Ok(None) => {}
                Ok(Some(line)) => {
                    bytes += line.text.len();
                    waiting.push(line);
                }
                Err(failure) => account.refuse(account.line, &issues_of(&failure))?,
            }
            if waiting.len() >= BATCH || bytes >= BATCH_BYTES {
                self.store(&std::mem::take(&mut waiting), account)?;
                bytes = 0;
            }
            if self.job.is_over() {
                return Ok(Ok(()));
            }
        }
        self.store(&waiting, account)?;
        Ok(Ok(()))
    }

    /// Stores lines as one batch.
    fn store(&mut self, lines: &[Line], account: &mut Account) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let entries: Vec<String> =
            lines.iter().map(|line| format!(r#"{{"resource":{},"request":{{"method":"{}","url":{}}}}}"#, line.text, line.method, quote(&line.url))).collect();
        let answered = self.exchanged(&format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{}]}}"#, entries.join(",")));
        let answer: Value = answered.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        for (n, line) in lines.iter().enumerate() {
            let response = &answer["entry"][n]["response"];
            let is_stored = response["status"].as_str().is_some_and(|status| status.starts_with('2'));
            if is_stored {
                account.stored += 1;
                if let Some(list) = &mut account.list {
                    writeln!(list, "{}", response["location"].as_str().unwrap_or_default())?;
                }
                continue;
            }
            // Either the entry was refused, or all of the batch.
            let outcome = if response.is_null() { &answer } else { &response["outcome"] };
            let issues = outcome["issue"].as_array().cloned().unwrap_or_else(|| issues_of(&Failure::new(Kind::Internal, "it was not stored")));
            account.refuse(line.number, &issues)?;
        }
        Ok(())
    }

    /// What a Bundle of type batch is answered with.
    pub fn exchanged(&mut self, bundle: &str) -> Answer {
        let mut answer = Answer::default();
        for _ in 0..=MAX_AGAIN {
            let outcome = exchange(&self.sim, &self.call(bundle));
            answer = outcome.answer;
            if outcome.event.is_some() {
                if !self.runtime.block_on(self.sim.durable(outcome.ticket)) {
                    let failure = Failure::new(Kind::Internal, "the write could not be made durable; whether it is stored is not known");
                    return Answer::refusal(&failure, self.sim.profile().version(), &Format::default());
                }
                return answer;
            }
            // Sealed meanwhile, it goes on in the next of the name.
            match self.app.registry.get(self.sim.id()) {
                Ok(next) if self.sim.is_over() && next.profile().created == self.sim.profile().created => self.sim = next,
                Ok(_) | Err(_) => return answer,
            }
        }
        answer
    }

    fn call(&self, bundle: &str) -> Call {
        let version = self.sim.profile().version();
        let asked =
            Resource::parse(bundle.as_bytes(), version).map(|resource| Interaction::Batch(Content { type_name: "Bundle", resource, text: bundle.to_owned() }));
        let headers = Map::from_iter([("content-type".to_owned(), "application/fhir+json".into()), ("x-fhirsim-job".to_owned(), self.job.id.as_str().into())]);
        Call {
            asked,
            operation: Operation::Batch,
            format: Format::default(),
            prefer: Prefer { returns: Return::Minimal, ..Prefer::default() },
            base: String::new(),
            method: "POST",
            url: format!("/sim/{}/fhir", self.sim.id()),
            headers,
            body: Bytes::copy_from_slice(bundle.as_bytes()),
            body_file: "request_body.json",
            type_name: None,
            accept: None,
            client: None,
            started: Instant::now(),
            at: None,
            fault: None,
            authorization: None,
        }
    }
}

/// What a line says to store; none if it is blank.
fn line(number: usize, text: Vec<u8>, input: &Input, sim: &Sim) -> Result<Option<Line>> {
    let text = String::from_utf8(text).map_err(|_| Failure::new(Kind::Malformed, "it is not UTF-8"))?;
    // Some systems begin a file with a byte order mark.
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(None);
    }
    let head: Head = serde_json::from_str(text).map_err(|e| Failure::new(Kind::Malformed, format!("it is no JSON object: {e}")))?;
    let definitions = crate::fhir::Definitions::of(sim.profile().version());
    let type_name = definitions.resource_type(head.resource_type.as_deref().unwrap_or_default())?;
    if let Some(expected) = input.type_name.filter(|expected| *expected != type_name) {
        return Err(Failure::new(Kind::Invalid, format!("resourceType is {type_name}, but the manifest says that the file has {expected}")).at("resourceType"));
    }
    let (method, url) = match head.id {
        Some(id) => {
            let id: ResourceId = id.parse().map_err(|f: Failure| f.at(format!("{type_name}.id")))?;
            ("PUT", format!("{type_name}/{id}"))
        }
        None => ("POST", type_name.to_owned()),
    };
    Ok(Some(Line { number, text: text.to_owned(), method, url }))
}

fn issues_of(failure: &Failure) -> Vec<Value> {
    let outcome = crate::fhir::outcome::of_failure(failure, crate::fhir::FhirVersion::default());
    outcome["issue"].as_array().cloned().unwrap_or_default()
}

fn agent() -> ureq::Agent {
    let config = outbound::configured()
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_mins(5)))
        .timeout_recv_body(Some(Duration::from_hours(1)))
        .build();
    outbound::agent(config)
}

fn fetched(url: &str, accept: &str, fetch: &Fetch, app: &App) -> Result<ureq::Body> {
    outbound::fetchable(url, app)?;
    let failed = |why: &dyn std::fmt::Display| Failure::new(Kind::Unprocessable, format!("'{}' cannot be fetched: {why}", clip(url)));
    let mut request = agent().get(url).header("accept", accept);
    for (name, value) in &fetch.headers {
        request = request.header(name, value);
    }
    let answer = request.call().map_err(|e| failed(&e))?;
    if answer.status() != 200 {
        return Err(failed(&format!("it answers with status {}", answer.status().as_u16())));
    }
    Ok(answer.into_body())
}

/// The lines of a file, unpacked if it is packed.
fn opened(input: &Input, fetch: &Fetch, app: &App) -> Result<Box<dyn BufRead>> {
    let raw: Box<dyn Read> = match &input.body {
        Some(body) => Box::new(io::Cursor::new(body.clone())),
        None => Box::new(fetched(&input.url, "application/fhir+ndjson", fetch, app)?.into_reader()),
    };
    let mut reader = BufReader::new(raw.take(MAX_BYTES));
    let is_packed = reader.fill_buf().map_err(|e| Failure::new(Kind::Malformed, e.to_string()))?.starts_with(&[0x1f, 0x8b]);
    if is_packed { Ok(Box::new(BufReader::new(MultiGzDecoder::new(reader).take(MAX_BYTES)))) } else { Ok(Box::new(reader)) }
}

/// The files that a manifest lists, and those it leads to.
///
/// # Errors
/// One cannot be fetched, or is no manifest.
pub fn manifest(url: &str, fetch: &Fetch, sim: &Sim, app: &App) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    let mut next = Some(url.to_owned());
    for _ in 0..MAX_LINKS {
        let Some(url) = next.take() else { return Ok(inputs) };
        let failed = |why: &dyn std::fmt::Display| Failure::new(Kind::Unprocessable, format!("the manifest at '{}' cannot be read: {why}", clip(&url)));
        let text = fetched(&url, "application/json", fetch, app)?.with_config().limit(MAX_MANIFEST_BYTES).read_to_string().map_err(|e| failed(&e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
        inputs.extend(listed(&value, sim).map_err(|f| failed(&f.diagnostics))?);
        let link = value["link"].as_array().into_iter().flatten().find(|link| link["relation"] == "next");
        next = link.and_then(|link| link["url"].as_str()).map(str::to_owned);
    }
    Err(Failure::new(Kind::TooCostly, format!("the manifest at '{}' leads to more than {MAX_LINKS} others", clip(url))))
}

/// Keeps a request that begins something as an event, like a write; returns its id.
pub async fn recorded(sim: &Arc<Sim>, request: &HttpRequest, name: &'static str, body: Bytes, answer: &Answer, who: Option<Value>, started: Instant) -> String {
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
    let content_type = crate::http::routes::text(request, actix_web::http::header::CONTENT_TYPE).unwrap_or_default().to_owned();
    let body_file = if content_type.contains("ndjson") { "request_body.ndjson" } else { "request_body.json" };
    let (there, answered) = (sim.clone(), answer.body.clone());
    let kept = web::block(move || {
        there.exchange(Operation::Post, |_, _| {
            let draft = Draft {
                record,
                request_body: (!body.is_empty()).then_some((body_file, &body[..])),
                response_body: answered.clone().map(|body| ("response_body.json", body)),
                changes: Vec::new(),
            };
            (draft, ())
        })
    });
    match kept.await {
        Ok(Ok(((), event, ticket))) => {
            sim.durable(ticket).await;
            event.to_string()
        }
        Ok(Err(failure)) => {
            tracing::error!(sim = %sim.id(), failure = failure.diagnostics, "a request could not be recorded");
            String::new()
        }
        Err(error) => {
            tracing::error!(sim = %sim.id(), %error, "a request could not be recorded");
            String::new()
        }
    }
}

/// Takes back what an import has stored: what is still as it left it is deleted.
pub fn withdraw(import: &mut Import<'_>, stored: &str) {
    let urls: Vec<&str> = stored.lines().filter(|line| !line.is_empty()).collect();
    for piece in urls.chunks(BATCH) {
        let entry = |location: &&str| {
            let (uid, version) = location.split_once("/_history/")?;
            Some(json!({"request": {"method": "DELETE", "url": uid, "ifMatch": format!("W/\"{version}\"")}}))
        };
        let entries: Vec<Value> = piece.iter().filter_map(entry).collect();
        // Each resource once: the last version that was stored of it counts.
        let mut by_url: BTreeMap<String, Value> = BTreeMap::new();
        for entry in entries {
            by_url.insert(entry["request"]["url"].as_str().unwrap_or_default().to_owned(), entry);
        }
        let bundle = json!({"resourceType": "Bundle", "type": "batch", "entry": by_url.into_values().collect::<Vec<_>>()});
        import.exchanged(&bundle.to_string());
    }
}

/// What is known of an import that a submission begins.
pub fn part_of(sim: &Sim, request: String, bearer: Option<&Bearer>, kept: &State) -> State {
    State { expires_ms: kept.expires_ms, ..state(sim, Task::Import, request, bearer) }
}
