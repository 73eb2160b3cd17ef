//! One exchange: an interaction is performed, answered, and recorded, in one place, so that the record and the behaviour
//! cannot drift apart. Nothing here is async; a panic inside an interaction is a recorded 500.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::Bytes;
use base64::Engine as _;
use serde_json::{Map, Value};

use super::faults;
use super::negotiate::{Accept, Format, Prefer};
use super::respond::{Answer, http_date};
use super::secrets;
use crate::clock::EventId;
use crate::fhir::subset::Subset;
use crate::fhir::validate::Issue;
use crate::fhir::{Failure, FhirVersion, Kind, outcome};
use crate::interaction::{self, Done, Env, Interaction, Reply, Return, status};
use crate::sim::faults::Fault;
use crate::sim::feed::Happening;
use crate::sim::log::Waiting;
use crate::sim::profile::Profile;
use crate::sim::usage::Seen;
use crate::sim::{Draft, NewVersion, Record, Sim, Snapshot, Stamp};
use crate::simdb::EventRecord;
use crate::simdb::event::{INTERACTIONS, RequestRecord, ResponseRecord};
use crate::simdb::journal::Ticket;
use crate::version::{Change, Operation};

/// A request whose meaning is decided: it can go to any thread.
pub struct Call {
    /// What is asked, or why that cannot be told.
    pub asked: Result<Interaction, Failure>,
    /// The operation its event is filed under; `Get` writes none.
    pub operation: Operation,
    /// How to answer.
    pub format: Format,
    /// What the client prefers.
    pub prefer: Prefer,
    /// The endpoint's URL.
    pub base: String,
    /// HTTP method.
    pub method: &'static str,
    /// Path and query as they came.
    pub url: String,
    /// The headers, redacted; made only where they are recorded.
    pub headers: Map<String, Value>,
    /// The body as it came.
    pub body: Bytes,
    /// What of it is left out of the record.
    pub secrets: secrets::Kind,
    /// The name of the body's file in an event folder.
    pub body_file: &'static str,
    /// The type the URL names.
    pub type_name: Option<&'static str>,
    /// A Binary may be answered raw, unless this says not.
    pub accept: Accept,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// When the request arrived.
    pub started: Instant,
    /// The last event that is looked at, if that is not the last there is.
    pub at: Option<EventId>,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Who asked, for the record.
    pub authorization: Option<Value>,
}

/// What came of a call.
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// The id of its event or log entry.
    pub event: Option<String>,
    /// What must be waited for.
    pub ticket: Ticket,
}

impl Outcome {
    /// An answer of no account, from a simulator that is over.
    fn in_vain(answer: Answer) -> Self {
        Self { answer, event: None, ticket: Ticket::default() }
    }
}

/// The name, as events have it, of what is asked for.
#[must_use]
pub fn name_of(asked: &Result<Interaction, Failure>) -> &'static str {
    let name = asked.as_ref().map_or("unknown", Interaction::name);
    debug_assert!(INTERACTIONS.contains(&name), "{name} is missing in INTERACTIONS: events could not be asked for by it");
    name
}

impl Call {
    /// The interaction's name, for logs and records.
    #[must_use]
    pub fn name(&self) -> &'static str {
        name_of(&self.asked)
    }

    /// What a read looks at.
    fn seen(&self, sim: &Sim) -> Result<Arc<Snapshot>, Failure> {
        match (self.at, &self.asked) {
            (None, _) => Ok(sim.snapshot()),
            (Some(event), Ok(Interaction::Search(_) | Interaction::Operation(_))) => sim.as_of(event),
            (Some(event), _) => Ok(Arc::new(sim.snapshot().looking_back(event))),
        }
    }

    fn performed(&self, snapshot: &Snapshot, stamp: Stamp, now_ms: i64, created: &str) -> Result<Reply, Failure> {
        let interaction = self.asked.as_ref().map_err(Clone::clone)?;
        let env = Env { base: &self.base, stamp, now_ms, created, returns: self.prefer.returns, strict: self.prefer.strict };
        catch_unwind(AssertUnwindSafe(|| interaction::perform(interaction, snapshot, &env))).unwrap_or_else(|panic| {
            let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            tracing::error!(url = self.url, what, "an interaction panicked");
            Err(Failure::new(Kind::Internal, "this server made a mistake; nothing was stored, and the request is kept in the event"))
        })
    }

    /// Performs it, unless a fault prevents that, and makes the answer as the fault leaves it.
    fn answered(&self, perform: impl FnOnce() -> Result<Reply, Failure>, version: FhirVersion) -> (Answer, Vec<NewVersion>, Vec<Issue>) {
        if let Some(fault) = self.fault.as_ref().filter(|_| faults::prevents(self.fault.as_ref())) {
            return (faults::instead(&fault.effect, version, &self.format), Vec::new(), Vec::new());
        }
        let performed = perform();
        let issues = performed.as_ref().map_or_else(|_| Vec::new(), |reply| reply.issues.clone());
        let (answer, changes) = render(self, performed, version);
        let answer = match &self.fault {
            Some(fault) if faults::ends(&fault.effect) => Answer { status: 0, ..answer },
            Some(fault) => faults::befallen(answer, &fault.effect, version, &self.format),
            None => answer,
        };
        (answer, changes, issues)
    }

    fn record(&self, answer: &Answer) -> EventRecord {
        let headers = answer.headers.iter().map(|(n, v)| ((*n).to_owned(), Value::from(v.as_str()))).collect();
        EventRecord {
            interaction: self.name().to_owned(),
            resource_type: self.type_name.map(str::to_owned),
            client: self.client.map(|c| c.to_string()).unwrap_or_default(),
            request: RequestRecord { method: self.method.to_owned(), url: self.url.clone(), headers: self.headers.clone(), body: None, body_bytes: 0 },
            fault: self.fault.as_ref().map(|f| f.rule.clone()),
            authorization: self.authorization.clone(),
            response: ResponseRecord { status: answer.status, duration_us: self.elapsed_us(), headers, body: None },
            ..EventRecord::default()
        }
    }

    /// The name of the answer's file in an event folder.
    fn answer_file(&self) -> &'static str {
        if self.format.media_type.is_xml() { "response_body.xml" } else { "response_body.json" }
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Performs, answers and records a call.
#[must_use]
pub fn exchange(sim: &Arc<Sim>, call: &Call) -> Outcome {
    let outcome = if call.operation == Operation::Get { read(sim, call) } else { write(sim, call) };
    // What came of nothing is tried again, or was never there.
    if outcome.event.is_some() {
        let parameters = if let Ok(Interaction::Search(search)) = &call.asked { &search.parameters[..] } else { &[] };
        let status = outcome.answer.status;
        let (type_name, took_us, at_ms) = (call.type_name.unwrap_or_default(), call.elapsed_us(), sim.now_ms());
        sim.usage.saw(&Seen { type_name, interaction: call.name(), parameters, status, took_us, at_ms });
    }
    outcome
}

/// What a Bundle does, entry by entry, is use too.
fn used(sim: &Sim, call: &Call, changes: &[NewVersion]) {
    if !matches!(call.operation, Operation::Batch | Operation::Transaction) {
        return;
    }
    for change in changes {
        let interaction = match change.change {
            Change::Create => "create",
            Change::Update => "update",
            Change::Patch => "patch",
            Change::Delete => "delete",
            Change::Purge => continue,
        };
        sim.usage.did(change.type_name, interaction);
    }
}

/// Where only changes are recorded, a conditional create that finds its resource is a read, and waits for no other write.
fn found(sim: &Sim, call: &Call, profile: &Profile) -> Option<Outcome> {
    let is_conditional = matches!(&call.asked, Ok(Interaction::Create(_, conditions)) if conditions.if_none_exist.is_some());
    if !is_conditional || profile.settings.record != Record::Changes {
        return None;
    }
    let snapshot = sim.snapshot();
    let stamp = Stamp { event: snapshot.last_event(), operation: call.operation };
    let (answer, changes, _) = call.answered(|| call.performed(&snapshot, stamp, sim.now_ms(), &profile.created), snapshot.version());
    changes.is_empty().then(|| unrecorded(sim, call, answer))
}

/// What comes of a call that changed nothing and is in the request log only.
fn unrecorded(sim: &Sim, call: &Call, answer: Answer) -> Outcome {
    if sim.is_over() {
        return Outcome::in_vain(answer);
    }
    let number = log(sim, call, &answer, None);
    Outcome { answer, event: Some(format!("log-{number}")), ticket: Ticket::default() }
}

fn write(sim: &Sim, call: &Call) -> Outcome {
    let profile = sim.profile();
    if let Some(outcome) = found(sim, call, &profile) {
        return outcome;
    }
    let sent = call.secrets.redacted(&call.body);
    let outcome = sim.exchange(call.operation, |snapshot, stamp| {
        let perform = || call.performed(snapshot, stamp, stamp.event.millis(), &profile.created);
        let (answer, changes, issues) = call.answered(perform, snapshot.version());
        used(sim, call, &changes);
        let is_kept = !changes.is_empty() || profile.settings.record != Record::Changes;
        let draft = is_kept.then(|| Draft {
            record: EventRecord { issues: issues_of(&issues), ..call.record(&answer) },
            request_body: (!sent.is_empty()).then_some((call.body_file, &sent[..])),
            response_body: answer.body.clone().map(|body| (call.answer_file(), body)),
            changes,
        });
        (draft, answer)
    });
    match outcome {
        Ok((answer, Some(event), ticket)) => Outcome { answer, event: Some(event.to_string()), ticket },
        Ok((answer, None, _)) => unrecorded(sim, call, answer),
        Err(failure) => {
            if !sim.is_over() {
                tracing::error!(sim = %sim.id(), url = call.url, failure = failure.diagnostics, "nothing was stored");
            }
            Outcome::in_vain(Answer::refusal(&failure, profile.version(), &call.format))
        }
    }
}

fn read(sim: &Arc<Sim>, call: &Call) -> Outcome {
    let profile = sim.profile();
    let perform = || {
        let snapshot = call.seen(sim)?;
        let stamp = Stamp { event: snapshot.last_event(), operation: Operation::Get };
        call.performed(&snapshot, stamp, sim.now_ms(), &profile.created)
    };
    let (answer, ..) = call.answered(perform, profile.version());
    if sim.is_over() {
        return Outcome::in_vain(answer);
    }
    let event = (profile.settings.record == Record::All).then(|| sim.next_read());
    let number = log(sim, call, &answer, event);
    let id = match event {
        Some(event) => {
            record_read(sim, event, call, &answer);
            event.to_string()
        }
        None => format!("log-{number}"),
    };
    Outcome { answer, event: Some(id), ticket: Ticket::default() }
}

/// Notes in the request log what changed nothing, and tells of it; the number of the entry.
fn log(sim: &Sim, call: &Call, answer: &Answer, event: Option<EventId>) -> u64 {
    let entry = Waiting {
        event,
        number: 0,
        at_ms: sim.now_ms(),
        interaction: call.name(),
        method: call.method,
        url: call.url.as_str().into(),
        status: answer.status,
        duration_us: call.elapsed_us(),
        client: call.client,
        fault: call.fault.as_ref().map(|f| f.rule.as_str().into()),
        why: answer.why().map(Into::into),
        authorization: call.authorization.clone().map(Box::new),
    };
    // One that is recorded is told of when its folder is there.
    sim.log.push(entry, |entry| {
        if event.is_none() {
            sim.feed.tell(|| Happening::Read(Box::new(entry.shown())));
        }
    })
}

/// Writes the folder of a read off the request's path.
fn record_read(sim: &Arc<Sim>, event: EventId, call: &Call, answer: &Answer) {
    let (sim, record, asked, secrets, file) = (sim.clone(), call.record(answer), call.body.clone(), call.secrets, call.body_file);
    // To HEAD, what there would be is not sent.
    let (answered, answer_file) = (answer.body.clone().filter(|_| call.method != "HEAD"), call.answer_file());
    actix_web::rt::task::spawn_blocking(move || {
        let asked = secrets.redacted(&asked);
        let asked = (!asked.is_empty()).then_some((file, &asked[..]));
        if let Err(error) = sim.record_read(event, record, asked, answered.as_deref().map(|body| (answer_file, body))) {
            tracing::error!(sim = %sim.id(), %event, %error, "a read could not be recorded");
        }
    });
}

/// What is wrong with the content, for the record.
fn issues_of(issues: &[Issue]) -> Vec<Value> {
    if issues.is_empty() {
        return Vec::new();
    }
    let mut outcome = outcome::of_issues(issues, None);
    outcome["issue"].as_array_mut().map(std::mem::take).unwrap_or_default()
}

fn render(call: &Call, performed: Result<Reply, Failure>, version: FhirVersion) -> (Answer, Vec<NewVersion>) {
    // What cannot be answered is not stored either.
    let answered = performed.and_then(|reply| success(call, reply, version));
    answered.unwrap_or_else(|failure| (Answer::refusal(&failure, version, &call.format), Vec::new()))
}

fn success(call: &Call, mut reply: Reply, version: FhirVersion) -> Result<(Answer, Vec<NewVersion>), Failure> {
    let mut headers = Vec::new();
    if let Some(subject) = &reply.subject {
        headers.extend(subject.etag().map(|etag| ("etag", etag)));
        headers.push(("last-modified", http_date(subject.modified_ms)));
        // Of a resource that was stored or, by `If-None-Exist`, found.
        if matches!(call.operation, Operation::Post | Operation::Put | Operation::Patch) {
            headers.push(("location", format!("{}/{}", call.base, subject.location())));
        }
    }
    let body = body_of(call, &reply, version);
    let changes = std::mem::take(&mut reply.changes);
    let status = status::of_success(reply.done, body.is_some());
    let answer = Answer { status, headers, body: None };
    let answer = match body {
        Some(Shown::Resource(body)) => answer.with_resource(&body, version, &call.format)?,
        Some(Shown::Raw(content_type, bytes)) => raw_answer(answer, content_type, bytes),
        None => answer,
    };
    Ok((answer, changes))
}

enum Shown {
    Resource(crate::sim::bodies::Body),
    Raw(String, Vec<u8>),
}

fn body_of(call: &Call, reply: &Reply, version: FhirVersion) -> Option<Shown> {
    let said = || Some(Shown::Resource(reply.outcome().to_string().into_bytes().into()));
    if reply.done == Done::NotModified {
        return None;
    }
    match call.operation {
        Operation::Get => reply.body.clone().map(|body| native(call, &body, version).unwrap_or(Shown::Resource(body))),
        Operation::Transaction | Operation::Batch => reply.body.clone().map(Shown::Resource),
        Operation::Delete => match call.prefer.returns {
            Return::Unsaid | Return::Minimal => None,
            Return::Representation | Return::Outcome => said(),
        },
        Operation::Post | Operation::Put | Operation::Patch => match call.prefer.returns {
            Return::Minimal => None,
            Return::Outcome => said(),
            Return::Unsaid | Return::Representation => reply.body.clone().map(Shown::Resource),
        },
    }
}

/// A Binary's own content, unless the client asks for FHIR, <https://hl7.org/fhir/R4/binary.html#rest>.
fn native(call: &Call, body: &[u8], version: FhirVersion) -> Option<Shown> {
    // A part of it is FHIR: nothing raw says that it is a part.
    if call.type_name != Some("Binary") || !matches!(call.asked, Ok(Interaction::Read(.., Subset::All) | Interaction::Vread(.., Subset::All))) {
        return None;
    }
    let value: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let content_type = text("contentType").filter(|t| !t.is_empty() && !t.chars().any(|c| c.is_control() || !c.is_ascii()))?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !call.accept.prefers(essence, &call.format) {
        return None;
    }
    let data = text(if version == FhirVersion::Stu3 { "content" } else { "data" }).unwrap_or_default();
    let compact: String = data.split_ascii_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact).ok()?;
    Some(Shown::Raw(content_type.to_owned(), bytes))
}

/// What a client stored is shown as such and never runs: a Binary may be a page with a script.
fn raw_answer(mut answer: Answer, content_type: String, bytes: Vec<u8>) -> Answer {
    answer.headers.push(("content-type", content_type));
    answer.headers.push(("content-security-policy", "sandbox".to_owned()));
    answer.headers.push(("x-content-type-options", "nosniff".to_owned()));
    answer.body = Some(bytes.into());
    answer
}
