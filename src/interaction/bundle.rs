//! Batch and transaction, <https://hl7.org/fhir/R4/http.html#transaction>.
//!
//! Every entry is an interaction like any other, planned against a working snapshot that holds what the entries before it
//! made. So a transaction needs no machinery of its own for what it sees of itself: it is a fold.

mod entry;
mod references;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Conditions, Content, Done, Env, Interaction, Reply, Target, create, perform, search, status};
use crate::fhir::raw::quote;
use crate::fhir::subset::Subset;
use crate::fhir::{Failure, Kind, ResourceId, outcome};
use crate::sim::bodies::Body;
use crate::sim::{NewVersion, Snapshot};

use entry::{Entry, Method};
use references::Renames;

/// Most entries of a Bundle.
pub const MAX_ENTRIES: usize = 10_000;

/// The order in which entries take effect, <https://hl7.org/fhir/R4/http.html#trules>.
const ORDER: [Method; 4] = [Method::Delete, Method::Post, Method::Put, Method::Get];

/// Independent requests: one may fail and the others not.
///
/// # Errors
/// The Bundle itself is broken.
pub fn batch(content: &Content, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let raw = entry::split(content)?;
    let mut entries: Vec<Result<Entry, Failure>> = raw.iter().map(|raw| Entry::read(raw, snapshot.version())).collect();
    let mut plan = Plan::new(snapshot, env, entries.len());
    for method in ORDER {
        for (at, entry) in entries.iter_mut().enumerate() {
            match entry {
                Ok(entry) if entry.method == method => {
                    let reply = entry.interaction(None).and_then(|interaction| plan.perform(&interaction));
                    plan.answer(at, method, reply);
                }
                Err(failure) if method == Method::Get => plan.answer(at, method, Err(failure.clone())),
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(plan.finish("batch-response"))
}

/// All or nothing.
///
/// # Errors
/// An entry failed: the failure names it, and nothing is stored.
pub fn transaction(content: &Content, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let raw = entry::split(content)?;
    let named = |at: usize| move |f: Failure| f.within(&format!("Bundle.entry[{at}]"));
    let mut entries = Vec::with_capacity(raw.len());
    for (at, raw) in raw.iter().enumerate() {
        entries.push(Entry::read(raw, snapshot.version()).map_err(named(at))?);
    }
    refuse_twice_written(&entries)?;
    let mut plan = Plan::new(snapshot, env, entries.len());
    plan.each(&mut entries, Method::Delete)?;
    // Conditions are evaluated on what the deletions leave.
    let mut identities = identities(&entries, &plan.working, env)?;
    rewrite(&mut entries, &identities, &plan.working, env)?;
    for (at, entry) in entries.iter_mut().enumerate().filter(|(_, e)| e.method == Method::Post) {
        let reply = match identities[at].take() {
            Some(Identity::Existing(reply)) => Ok(*reply),
            Some(Identity::Same(type_name, id)) => plan.perform(&Interaction::Read(type_name, id, Conditions::default(), Subset::All)),
            Some(Identity::New(_, id)) => entry.interaction(Some(id)).and_then(|i| plan.perform_new(&i)),
            Some(Identity::Known(..)) | None => entry.interaction(None).and_then(|i| plan.perform(&i)),
        };
        plan.answer(at, Method::Post, Ok(reply.map_err(named(at))?));
    }
    plan.each(&mut entries, Method::Put)?;
    plan.each(&mut entries, Method::Get)?;
    Ok(plan.finish("transaction-response"))
}

/// Which resource an entry is about, known before it happens so that references to it can be rewritten.
enum Identity {
    /// A new one under this id.
    New(&'static str, ResourceId),
    /// The one that an entry before creates by the same condition.
    Same(&'static str, ResourceId),
    /// The one the URL names.
    Known(&'static str, ResourceId),
    /// The one that `ifNoneExist` found; nothing is to be done.
    Existing(Box<Reply>),
}

impl Identity {
    fn uid(&self) -> String {
        match self {
            Self::New(type_name, id) | Self::Same(type_name, id) | Self::Known(type_name, id) => format!("{type_name}/{id}"),
            Self::Existing(reply) => reply.subject.as_ref().map(|s| format!("{}/{}", s.type_name, s.id)).unwrap_or_default(),
        }
    }
}

/// The identities that URLs name must not overlap.
fn refuse_twice_written(entries: &[Entry]) -> Result<(), Failure> {
    let mut written = FxHashSet::default();
    for (at, entry) in entries.iter().enumerate() {
        if let (Method::Put | Method::Delete, Target::Instance(type_name, id)) = (entry.method, &entry.target)
            && !written.insert((*type_name, id.as_str()))
        {
            let message = format!("{type_name}/{id} is written by another entry too; a transaction may write a resource once");
            return Err(Failure::new(Kind::Invalid, message).within(&format!("Bundle.entry[{at}]")));
        }
    }
    Ok(())
}

fn identities(entries: &[Entry], snapshot: &Snapshot, env: &Env<'_>) -> Result<Vec<Option<Identity>>, Failure> {
    // Two entries with one condition mean one resource.
    let mut conditional: FxHashMap<(&str, &str), (&'static str, ResourceId)> = FxHashMap::default();
    let mut all = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        all.push(match (entry.method, &entry.target, &entry.conditions.if_none_exist) {
            (Method::Post, Target::Type(type_name), None) => Some(Identity::New(type_name, ResourceId::random())),
            (Method::Post, Target::Type(type_name), Some(query)) => {
                let existing = create::existing(type_name, query, snapshot, env).map_err(|f| f.within(&format!("Bundle.entry[{at}]")))?;
                Some(match (existing, conditional.get(&(*type_name, query.as_str()))) {
                    (Some(reply), _) => Identity::Existing(Box::new(reply)),
                    (None, Some((type_name, id))) => Identity::Same(type_name, id.clone()),
                    (None, None) => {
                        let id = ResourceId::random();
                        conditional.insert((type_name, query), (type_name, id.clone()));
                        Identity::New(type_name, id)
                    }
                })
            }
            (Method::Put | Method::Delete, Target::Instance(type_name, id), _) => Some(Identity::Known(type_name, id.clone())),
            (Method::Post | Method::Put | Method::Delete | Method::Get, ..) => None,
        });
    }
    Ok(all)
}

/// Rewrites references to the entries' identities, and conditional ones to what they mean.
fn rewrite(entries: &mut [Entry], identities: &[Option<Identity>], snapshot: &Snapshot, env: &Env<'_>) -> Result<(), Failure> {
    let named = |at: usize| move |f: Failure| f.within(&format!("Bundle.entry[{at}]"));
    let mut renames = Renames::new(snapshot.definitions());
    for (at, (entry, identity)) in entries.iter().zip(identities).enumerate() {
        if let (Some(full_url), Some(identity)) = (&entry.full_url, identity) {
            renames.add(full_url, &identity.uid()).map_err(named(at))?;
        }
    }
    // One condition is looked up once, however many references repeat it.
    let mut found: FxHashMap<String, Result<String, Failure>> = FxHashMap::default();
    for (at, entry) in entries.iter_mut().enumerate() {
        if let Some(content) = &mut entry.content {
            let find = |type_name: &'static str, query: &str| {
                found.entry(format!("{type_name}?{query}")).or_insert_with(|| find_one(type_name, query, snapshot, env)).clone()
            };
            renames.rewrite(content, entry.full_url.as_deref(), snapshot.version(), find).map_err(named(at))?;
        }
    }
    Ok(())
}

/// The one resource that a conditional reference means.
fn find_one(type_name: &'static str, query: &str, snapshot: &Snapshot, env: &Env<'_>) -> Result<String, Failure> {
    let (total, found) = search::matching(type_name, query, "conditional reference", 2, snapshot, env)?;
    let shown = crate::fhir::id::clip(query);
    match &found[..] {
        [one] => Ok(format!("{type_name}/{}", search::id_of(one)?)),
        [] => {
            Err(Failure::new(Kind::PreconditionFailed, format!("conditional reference '{type_name}?{shown}' matches no resource; it must match exactly one")))
        }
        _ => Err(Failure::new(
            Kind::MultipleMatches,
            format!("conditional reference '{type_name}?{shown}' matches {total} resources; it must match exactly one"),
        )),
    }
}

/// The entries' effects so far.
struct Plan<'a> {
    working: Snapshot,
    env: &'a Env<'a>,
    changes: Vec<NewVersion>,
    answers: Vec<String>,
}

impl<'a> Plan<'a> {
    fn new(snapshot: &Snapshot, env: &'a Env<'a>, entries: usize) -> Self {
        Self { working: snapshot.clone(), env, changes: Vec::new(), answers: vec![String::new(); entries] }
    }

    /// Performs every entry of a method; the first failure ends it.
    fn each(&mut self, entries: &mut [Entry], method: Method) -> Result<(), Failure> {
        for (at, entry) in entries.iter_mut().enumerate().filter(|(_, e)| e.method == method) {
            let reply = entry.interaction(None).and_then(|i| self.perform(&i)).map_err(|f| f.within(&format!("Bundle.entry[{at}]")))?;
            self.answer(at, method, Ok(reply));
        }
        Ok(())
    }

    fn perform(&mut self, interaction: &Interaction) -> Result<Reply, Failure> {
        let reply = perform(interaction, &self.working, self.env)?;
        Ok(self.take(reply))
    }

    /// A create whose id was chosen before.
    fn perform_new(&mut self, interaction: &Interaction) -> Result<Reply, Failure> {
        let Interaction::Update(id, content, _) = interaction else { return self.perform(interaction) };
        content.resource.expect_type(content.type_name)?;
        let reply = create::as_new(content, id.clone(), &self.working, self.env)?;
        Ok(self.take(reply))
    }

    /// Makes what a reply wants part of the working snapshot.
    fn take(&mut self, mut reply: Reply) -> Reply {
        for change in std::mem::take(&mut reply.changes) {
            let number = u32::try_from(self.changes.len() + 1).unwrap_or(u32::MAX);
            self.working.plan(&change, self.env.stamp, number);
            self.changes.push(change);
        }
        reply
    }

    fn answer(&mut self, at: usize, method: Method, reply: Result<Reply, Failure>) {
        self.answers[at] = match reply {
            Ok(reply) => success(&reply, method == Method::Get, self.env),
            Err(failure) => refusal(&failure, &self.working),
        };
    }

    fn finish(self, kind: &str) -> Reply {
        let mut text = format!("{{\"resourceType\":\"Bundle\",\"id\":\"{}\",\"type\":\"{kind}\"", ResourceId::random());
        if !self.answers.is_empty() {
            text.push_str(",\"entry\":[");
            text.push_str(&self.answers.join(","));
            text.push(']');
        }
        text.push('}');
        let body: Body = text.into_bytes().into();
        Reply { body: Some(body), changes: self.changes, ..Reply::new(Done::Ok) }
    }
}

fn success(reply: &Reply, is_read: bool, env: &Env<'_>) -> String {
    let mut parts = Vec::new();
    // What was read is the answer; what was written is repeated only when asked for.
    let shown = reply.body.as_ref().filter(|_| is_read || env.representation);
    if let Some(subject) = &reply.subject
        && reply.done != Done::Deleted
    {
        parts.push(format!("\"fullUrl\":{}", quote(&format!("{}/{}/{}", env.base, subject.type_name, subject.id))));
    }
    if let Some(text) = shown.and_then(|b| std::str::from_utf8(b).ok()) {
        parts.push(format!("\"resource\":{text}"));
    }
    let mut response = vec![format!("\"status\":{}", quote(&status::line(status::of_success(reply.done, false))))];
    if let Some(subject) = &reply.subject {
        if reply.done != Done::Deleted {
            response.push(format!("\"location\":{}", quote(&subject.location())));
        }
        response.push(format!("\"etag\":{}", quote(&subject.etag())));
        response.push(format!("\"lastModified\":\"{}\"", subject.event.instant()));
    }
    parts.push(format!("\"response\":{{{}}}", response.join(",")));
    format!("{{{}}}", parts.join(","))
}

fn refusal(failure: &Failure, snapshot: &Snapshot) -> String {
    let outcome = outcome::of_failure(failure, snapshot.version());
    format!("{{\"response\":{{\"status\":{},\"outcome\":{outcome}}}}}", quote(&status::line(status::of_failure(failure.kind))))
}
