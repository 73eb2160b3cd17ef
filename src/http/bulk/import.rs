//! `$import`: resources are fetched, line by line, and stored, a batch of lines in one event. There is no standard for it; this takes what is in
//! use: a manifest of files as SMART's and others' servers take it (JSON or Parameters), the manifest of an export, or the lines themselves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::{Bytes, Data};
use serde_json::{Map, Value, json};

use super::ask::{Asked, posted, value_of};
use super::fetch::{self, Fetch, Line, Lines, leads_to};
use super::{Result, bad, state};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::raw::quote;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, Resource, ResourceId, outcome};
use crate::http::exchange::{Call, exchange};
use crate::http::negotiate::{Accept, Format, Prefer};
use crate::http::policy::{Bearer, Need};
use crate::http::respond::Answer;
use crate::http::{App, outbound, secrets};
use crate::interaction::{Content, Interaction, Return};
use crate::sim::bulk::export::MAX_FILES;
use crate::sim::bulk::{Job, Output, Task, Work};
use crate::sim::{Sim, storage_failure, templates};
use crate::simdb::event_index::Filter;
use crate::version::Operation;

/// Most lines that are stored at once, in one event.
const BATCH: usize = 200;
/// Most bytes of lines that are stored at once, unless one line has more.
const BATCH_BYTES: usize = 2 << 20;
/// How often a batch is tried again because its simulator was sealed under it.
const MAX_AGAIN: usize = 3;
/// What tells in an event whose work it is.
pub const JOB_HEADER: &str = "x-fhirsim-job";

/// Keeps work from beginning, as long as it is there.
pub type Gate = std::sync::mpsc::Sender<Option<EventId>>;

/// A file that is read.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The type of its resources; none if it may be any.
    pub type_name: Option<&'static str>,
    /// Where it lies; empty if it came with the request.
    pub url: String,
    /// What came with the request.
    pub body: Option<Bytes>,
    /// Whether its lines are Bundles that tell what is to be deleted.
    pub deletes: bool,
    /// Whether its blocks begin with headers.
    pub has_headers: bool,
}

/// Begins an import.
///
/// # Errors
/// The manifest cannot be read; the token does not allow it; a file lies where this server may not go.
pub fn begin(asked: &Asked, bearer: Option<&Bearer>, sim: &Arc<Sim>, app: &Data<App>) -> Result<(Arc<Job>, Gate)> {
    proven(asked, sim)?;
    let (inputs, next) = inputs(asked, sim)?;
    for input in &inputs {
        if let Some(bearer) = bearer {
            bearer.may(&needs(input))?;
        }
        if input.body.is_none() {
            outbound::fetchable(&input.url, app).map_err(|f| f.at("input.url"))?;
        }
    }
    if let (Some(bearer), Some(_)) = (bearer, &next) {
        // What other manifests list is not known yet.
        bearer.may(&[Need(None, 'c'), Need(None, 'u'), Need(None, 'd')])?;
    }
    let (sim_there, app_there, runtime) = (sim.clone(), app.clone(), tokio::runtime::Handle::current());
    let (gate, recorded) = std::sync::mpsc::channel();
    let work: Work = Box::new(move |job| {
        // What began it is recorded first; nothing comes if whoever sent it is gone.
        let began = recorded.recv().ok().flatten();
        let mut inputs = inputs;
        if let Some(url) = &next {
            inputs.extend(fetch::manifest(url, &Fetch::default(), job, &sim_there, &app_there)?);
        }
        Import::of(job, sim_there, &app_there, runtime, Fetch::default()).after(began).all(&inputs)
    });
    let job = app.jobs.begin(&app.registry, sim, state(sim, Task::Import, asked.url.clone(), bearer), None, Some(work))?;
    Ok((job, gate))
}

/// What a file needs to be allowed.
fn needs(input: &Input) -> Vec<Need> {
    if input.deletes { vec![Need(None, 'd')] } else { vec![Need(input.type_name, 'c'), Need(input.type_name, 'u')] }
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

/// The files that a request names, and the manifest that it leads to.
fn inputs(asked: &Asked, sim: &Sim) -> Result<(Vec<Input>, Option<String>)> {
    let essence = asked.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if asked.body.iter().all(u8::is_ascii_whitespace) {
        return Err(bad("the body is empty; $import takes a manifest, {\"inputFormat\":\"application/fhir+ndjson\",\"input\":[{\"type\":\"Patient\",\"url\":\"http://…\"}]}, or the lines as application/fhir+ndjson".to_owned()));
    }
    if matches!(essence.as_str(), "application/fhir+ndjson" | "application/ndjson" | "application/x-ndjson") {
        return Ok((vec![Input { body: Some(asked.body.clone()), ..Input::default() }], None));
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
    let (inputs, next) = (listed(&manifest, sim)?, leads_to(&manifest));
    if inputs.is_empty() && next.is_none() {
        return Err(bad("the manifest lists no files".to_owned()));
    }
    Ok((inputs, next))
}

/// The files of a manifest: of an import (`input`), or of an export (`output`, `deleted`).
pub fn listed(manifest: &Value, sim: &Sim) -> Result<Vec<Input>> {
    let name = if manifest.get("input").is_some() { "input" } else { "output" };
    let all = manifest[name].as_array().ok_or_else(|| bad("the manifest has neither 'input' nor 'output', the list of files".to_owned()))?;
    let deleted = manifest["deleted"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.len() + deleted.len() > MAX_FILES {
        let message = format!("the manifest lists {} files; at most {MAX_FILES} are accepted", all.len() + deleted.len());
        return Err(Failure::new(Kind::TooLarge, message));
    }
    let definitions = Definitions::of(sim.profile().version());
    let has_headers = manifest["outputOrganizedBy"].is_string();
    let one = |name: &str, n: usize, item: &Value, deletes: bool| {
        let at = |member: &str| format!("{name}[{n}].{member}");
        let url = item["url"].as_str().filter(|url| !url.is_empty()).ok_or_else(|| bad("a file has no url".to_owned()).at(at("url")))?;
        let named = item["type"].as_str().filter(|_| !deletes).map(|t| definitions.resource_type(t)).transpose();
        let type_name = named.map_err(|f| Failure { kind: Kind::BadValue, ..f }.at(at("type")))?;
        Ok(Input { type_name, url: url.to_owned(), body: None, deletes, has_headers })
    };
    let stored = all.iter().enumerate().map(|(n, item)| one(name, n, item, false));
    stored.chain(deleted.iter().enumerate().map(|(n, item)| one("deleted", n, item, true))).collect()
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
    app: &'a Data<App>,
    runtime: tokio::runtime::Handle,
    fetch: Fetch,
    /// The last event that it has made.
    last: Option<EventId>,
    /// Whether what it has stored is gone.
    is_emptied: bool,
}

/// What became of a file.
struct Account {
    /// The number of the line.
    line: usize,
    stored: usize,
    /// Outcomes of what was not.
    errors: BufWriter<File>,
    refused: usize,
}

impl Account {
    /// Takes note of why a line, or the file, is not stored.
    fn refuse(&mut self, line: Option<usize>, issues: &[Value]) -> io::Result<()> {
        self.refused += 1;
        let said = |issue: &Value| {
            let mut issue = issue.clone();
            for text in ["/diagnostics", "/details/text"] {
                if let (Some(Value::String(text)), Some(line)) = (issue.pointer_mut(text), line) {
                    *text = format!("line {line}: {text}");
                }
            }
            issue
        };
        let issues: Vec<Value> = issues.iter().map(said).collect();
        writeln!(self.errors, "{}", json!({"resourceType": "OperationOutcome", "issue": issues}))
    }
}

/// An entry that a line asks for.
struct Entry {
    line: usize,
    /// The resource; none if it is to be deleted.
    text: Option<String>,
    method: &'static str,
    url: String,
}

impl Entry {
    fn shown(&self) -> String {
        let resource = self.text.as_ref().map(|text| format!("\"resource\":{text},")).unwrap_or_default();
        format!(r#"{{{resource}"request":{{"method":"{}","url":{}}}}}"#, self.method, quote(&self.url))
    }
}

impl<'a> Import<'a> {
    pub fn of(job: &'a Job, sim: Arc<Sim>, app: &'a Data<App>, runtime: tokio::runtime::Handle, fetch: Fetch) -> Self {
        Self { job, sim, app, runtime, fetch, last: None, is_emptied: false }
    }

    /// The same, begun by that event: without it, the simulator is another.
    pub fn after(self, event: Option<EventId>) -> Self {
        Self { last: event, ..self }
    }

    /// The simulator.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }

    /// Reads and stores all files. What cannot be read is said like what cannot be stored.
    ///
    /// # Errors
    /// The disk refuses; the simulator was emptied meanwhile.
    pub fn all(&mut self, inputs: &[Input]) -> Result<()> {
        self.job.expect(inputs.len());
        let failed = |e: io::Error| storage_failure("what became of the import cannot be written", &e);
        for (number, input) in (1..).zip(inputs) {
            if self.job.is_over() {
                break;
            }
            let name = format!("{number}.OperationOutcome.ndjson");
            let place = self.job.place(&name);
            let errors = BufWriter::new(File::create(place.with_extension("part")).map_err(failed)?);
            let mut account = Account { line: 0, stored: 0, errors, refused: 0 };
            let read = self.lines(input, &mut account).map_err(failed)?;
            account.errors.flush().map_err(failed)?;
            self.noted(input, name, &account).map_err(failed)?;
            read?;
            self.job.did(1);
        }
        Ok(())
    }

    /// Takes note of what became of a file.
    fn noted(&self, input: &Input, file: String, account: &Account) -> io::Result<()> {
        let url = Some(input.url.clone()).filter(|url| !url.is_empty());
        let type_name = if input.deletes { "Bundle" } else { input.type_name.unwrap_or_default() };
        let stored = Output { type_name: type_name.to_owned(), count: account.stored, input: url.clone(), ..Output::default() };
        let place = self.job.place(&file);
        if account.refused > 0 {
            std::fs::rename(place.with_extension("part"), place)?;
        } else {
            std::fs::remove_file(place.with_extension("part"))?;
        }
        let refused = Output { input: url, ..outcomes(file, "error", account.refused) };
        self.job.save(|state| {
            state.output.push(stored);
            state.error.extend(Some(refused).filter(|refused| refused.count > 0));
        })
    }

    /// Says something in a file of outcomes of its own, if there is something to say.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn tell(&self, texts: impl Iterator<Item = String>) -> Result<()> {
        let lines: Vec<String> = texts.map(|text| outcome::informational("error", "processing", &[text]).to_string() + "\n").collect();
        if lines.is_empty() {
            return Ok(());
        }
        let file = "withdrawal.OperationOutcome.ndjson".to_owned();
        std::fs::write(self.job.place(&file), lines.concat()).map_err(|e| storage_failure("what became of the job cannot be written", &e))?;
        self.job.found(|state| state.error.push(outcomes(file, "error", lines.len())));
        Ok(())
    }

    /// Reads the lines of a file and stores them. The inner failure ends the import.
    fn lines(&mut self, input: &Input, account: &mut Account) -> io::Result<Result<()>> {
        let lines = match Lines::of(input, &self.fetch, self.app) {
            Ok(lines) => lines,
            Err(failure) => return account.refuse(None, &issues_of(&failure)).map(Ok),
        };
        let mut waiting: Vec<Entry> = Vec::new();
        while let Some(piece) = lines.next(self.job) {
            let piece = match piece {
                Ok(piece) => piece,
                Err(failure) => {
                    account.refuse(None, &issues_of(&failure))?;
                    break;
                }
            };
            for line in piece {
                account.line += 1;
                match self.entries(account.line, line, input) {
                    Ok(entries) => waiting.extend(entries),
                    Err(failure) => account.refuse(Some(account.line), &issues_of(&failure))?,
                }
                let bytes: usize = waiting.iter().map(|entry| entry.text.as_ref().map_or(0, String::len)).sum();
                if (waiting.len() >= BATCH || bytes >= BATCH_BYTES)
                    && let Err(failure) = self.store(&std::mem::take(&mut waiting), account)?
                {
                    return Ok(Err(failure));
                }
                if self.job.is_over() {
                    return Ok(Ok(()));
                }
            }
        }
        self.store(&waiting, account)
    }

    /// What a line asks for; nothing if it is blank.
    fn entries(&self, number: usize, line: Line, input: &Input) -> Result<Vec<Entry>> {
        let Line::Text(text) = line else {
            let most = self.app.options.max_body_bytes;
            return Err(Failure::new(Kind::TooLarge, format!("it has more than {most} bytes; start the server with a greater --max-body-bytes")));
        };
        let text = String::from_utf8(text).map_err(|_| Failure::new(Kind::Malformed, "it is not UTF-8"))?;
        // Some systems begin a file with a byte order mark.
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let version = self.sim.profile().version();
        let resource = Resource::parse(text.as_bytes(), version)?;
        let type_name = resource.type_name();
        if input.has_headers && type_name == "Parameters" && resource.value()["parameter"][0]["name"] == "header" {
            return Ok(Vec::new());
        }
        if input.deletes {
            return deletions(number, &resource, version);
        }
        if let Some(expected) = input.type_name.filter(|expected| *expected != type_name) {
            return Err(
                Failure::new(Kind::Invalid, format!("resourceType is {type_name}, but the manifest says that the file has {expected}")).at("resourceType")
            );
        }
        let (method, url) = match resource.id() {
            Some(id) => {
                let id: ResourceId = id.parse().map_err(|f: Failure| f.at(format!("{type_name}.id")))?;
                ("PUT", format!("{type_name}/{id}"))
            }
            None => ("POST", type_name.to_owned()),
        };
        Ok(vec![Entry { line: number, text: Some(text.to_owned()), method, url }])
    }

    /// Does what lines ask for as one batch. The inner failure ends the import.
    fn store(&mut self, entries: &[Entry], account: &mut Account) -> io::Result<Result<()>> {
        if entries.is_empty() {
            return Ok(Ok(()));
        }
        let all: Vec<String> = entries.iter().map(Entry::shown).collect();
        let answered = self.exchanged(&format!(r#"{{"resourceType":"Bundle","type":"batch","entry":[{}]}}"#, all.join(",")));
        let answer: Value = answered.body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
        if self.is_emptied {
            return Ok(Err(Failure::new(Kind::Conflict, "the simulator was reset meanwhile, and what was stored until then is gone with it; begin it anew")));
        }
        // What one of them has made of the whole is its own fault alone.
        if answer["entry"].is_null() && entries.len() > 1 {
            for entry in entries {
                if let Err(failure) = self.store(std::slice::from_ref(entry), account)? {
                    return Ok(Err(failure));
                }
            }
            return Ok(Ok(()));
        }
        for (n, entry) in entries.iter().enumerate() {
            let response = &answer["entry"][n]["response"];
            if response["status"].as_str().is_some_and(|status| status.starts_with('2')) {
                account.stored += 1;
                continue;
            }
            let outcome = if response.is_null() { &answer } else { &response["outcome"] };
            let issues = outcome["issue"].as_array().cloned().unwrap_or_else(|| issues_of(&Failure::new(Kind::Internal, "it was not stored")));
            account.refuse(Some(entry.line), &issues)?;
        }
        Ok(Ok(()))
    }

    /// What a Bundle is answered with.
    pub fn exchanged(&mut self, bundle: &str) -> Answer {
        let mut answer = Answer::default();
        for _ in 0..=MAX_AGAIN {
            let outcome = exchange(&self.sim, &self.call(bundle));
            answer = outcome.answer;
            if let Some(event) = outcome.event {
                self.last = event.parse().ok();
                if !self.runtime.block_on(self.sim.durable(outcome.ticket)) {
                    let failure = Failure::new(Kind::Internal, "the write could not be made durable; whether it is stored is not known");
                    return Answer::refusal(&failure, self.sim.profile().version(), &Format::default());
                }
                return answer;
            }
            // Sealed meanwhile, it goes on in the next of the name; emptied, it does not.
            match self.app.registry.get(self.sim.id()) {
                Ok(next) if self.sim.is_over() && next.profile().created == self.sim.profile().created => self.sim = next,
                Ok(_) | Err(_) => return answer,
            }
            if !self.has_last() {
                self.is_emptied = true;
                return answer;
            }
        }
        answer
    }

    /// Whether the simulator still has what was stored last.
    fn has_last(&self) -> bool {
        let Some(last) = self.last else { return true };
        let filter = Filter { operations: vec![Operation::Post, Operation::Batch, Operation::Transaction], ..Filter::default() };
        self.sim.find_events(&filter, (last, last), false, 1).is_ok_and(|found| !found.is_empty())
    }

    fn call(&self, bundle: &str) -> Call {
        let version = self.sim.profile().version();
        let asked = Resource::parse(bundle.as_bytes(), version).map(|resource| {
            let is_whole = resource.value()["type"] == "transaction";
            let content = Content { type_name: "Bundle", resource, text: bundle.to_owned(), disorder: Vec::new() };
            if is_whole { Interaction::Transaction(content) } else { Interaction::Batch(content) }
        });
        let operation = asked.as_ref().map_or(Operation::Batch, Interaction::operation);
        let headers = Map::from_iter([("content-type".to_owned(), "application/fhir+json".into()), (JOB_HEADER.to_owned(), self.job.id.as_str().into())]);
        Call {
            asked,
            operation,
            format: Format::default(),
            prefer: Prefer { returns: Return::Minimal, ..Prefer::default() },
            base: String::new(),
            method: "POST",
            url: format!("/sim/{}/fhir", self.sim.id()),
            headers,
            body: Bytes::copy_from_slice(bundle.as_bytes()),
            body_file: "request_body.json",
            secrets: secrets::Kind::Plain,
            type_name: None,
            accept: Accept::default(),
            client: None,
            started: Instant::now(),
            at: None,
            fault: None,
            authorization: None,
        }
    }
}

/// What a Bundle that tells of deletions asks for.
fn deletions(line: usize, bundle: &Resource, version: FhirVersion) -> Result<Vec<Entry>> {
    let entries = bundle.value()["entry"].as_array().filter(|_| bundle.type_name() == "Bundle");
    let entries = entries.ok_or_else(|| Failure::new(Kind::Invalid, "it is no Bundle whose entries delete something"))?;
    let one = |entry: &Value| {
        let (method, url) = (entry["request"]["method"].as_str().unwrap_or_default(), entry["request"]["url"].as_str().unwrap_or_default());
        let named = url.split_once('/').filter(|_| method == "DELETE");
        let (type_name, id) = named.ok_or_else(|| Failure::new(Kind::Invalid, format!("'{} {}' deletes no resource", clip(method), clip(url))))?;
        let type_name = Definitions::of(version).resource_type(type_name)?;
        let id: ResourceId = id.parse()?;
        Ok(Entry { line, text: None, method: "DELETE", url: format!("{type_name}/{id}") })
    };
    entries.iter().map(one).collect()
}

fn issues_of(failure: &Failure) -> Vec<Value> {
    outcome::of_failure(failure, FhirVersion::default())["issue"].as_array().cloned().unwrap_or_default()
}

/// A file of so many outcomes.
pub fn outcomes(file: String, severity: &str, count: usize) -> Output {
    Output { type_name: "OperationOutcome".to_owned(), file, count, severities: BTreeMap::from([(severity.to_owned(), count)]), ..Output::default() }
}
