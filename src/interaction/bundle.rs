//! Batch and transaction, <https://hl7.org/fhir/R4/http.html#transaction>.
//!
//! Every entry is an interaction like any other, planned against a working snapshot that holds what the entries before it
//! made. So a transaction needs no machinery of its own for what it sees of itself: it is a fold.

mod entry;
mod links;
mod references;
pub mod restore;

use rustc_hash::{FxHashMap, FxHashSet};

use super::target::{condition, pairs};
use super::{
    Conditions, Content, Done, Env, Interaction, Patch, Reply, Return, Target, Whom, check_parameters, create, delete, integrity, patch, perform, plan, search,
    status, structure, update,
};
use crate::fhir::id::clip;
use crate::fhir::raw::quote;
use crate::fhir::subset::Subset;
use crate::fhir::validate::Issue;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, ResourceId, VersionId, outcome};
use crate::search::param::split_unescaped;
use crate::sim::bodies::Body;
use crate::sim::{NewVersion, Snapshot, Versioning};

use entry::{Entry, Method};
use references::{Renamed, Renames};

/// Most entries of a Bundle.
pub const MAX_ENTRIES: usize = 10_000;

/// The order in which entries take effect, <https://hl7.org/fhir/R4/http.html#trules>.
const ORDER: [&[Method]; 4] = [&[Method::Delete], &[Method::Post], &[Method::Put, Method::Patch], &[Method::Get]];

/// What the entries of a Bundle ask for, as far as it can be read: what cannot is refused when its turn comes.
#[must_use]
pub fn interactions(content: &Content, version: FhirVersion) -> Vec<Interaction> {
    let raw = entry::split(content).unwrap_or_default();
    raw.iter().filter_map(|raw| Entry::read(raw, version).and_then(|mut entry| entry.interaction(false, Definitions::of(version))).ok()).collect()
}

/// Independent requests: one may fail and the others not.
///
/// # Errors
/// The Bundle itself is broken.
pub fn batch(content: &Content, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let raw = entry::split(content)?;
    let issues = structure::check_bundle(content, snapshot)?;
    let mut entries: Vec<Result<Entry, Failure>> = raw.iter().map(|raw| Entry::read(raw, snapshot.version())).collect();
    let mut plan = Plan::new(snapshot, env, entries.len());
    for methods in ORDER {
        for (at, entry) in entries.iter_mut().enumerate() {
            match entry {
                Ok(entry) if methods.contains(&entry.method) => {
                    let known = if env.strict { entry.refuse_unknown() } else { Ok(()) };
                    let reply = known.and_then(|()| entry.interaction(env.strict, snapshot.definitions())).and_then(|interaction| plan.perform(&interaction));
                    plan.answer(at, entry.is_answered(), reply.map(|reply| entry.shown(reply)).map_err(|f| entry.blamed(f)));
                }
                Err(failure) if methods.contains(&Method::Get) => plan.answer(at, true, Err(failure.clone())),
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(said_too(plan.finish("batch-response"), issues))
}

/// All or nothing.
///
/// # Errors
/// An entry failed: the failure names it, and nothing is stored.
pub fn transaction(content: &Content, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let raw = entry::split(content)?;
    let issues = structure::check_bundle(content, snapshot)?;
    let mut entries = Vec::with_capacity(raw.len());
    for (at, raw) in raw.iter().enumerate() {
        entries.push(Entry::read(raw, snapshot.version()).map_err(|f| f.within(&named(at)))?);
    }
    refuse_twice_written(&mut entries, snapshot, env)?;
    let mut plan = Plan::new(snapshot, env, entries.len());
    plan.each(&mut entries, ORDER[0], &mut [])?;
    // Conditions are evaluated on what the deletions leave.
    let mut identities = identities(&entries, &plan.working, env)?;
    let asked = rewrite(&mut entries, &identities, &plan.working)?;
    // References are resolved last: they may be to what the entries make.
    if !asked.is_empty() {
        resolve(&mut entries, &asked, &identities, &plan)?;
    }
    plan.each(&mut entries, ORDER[1], &mut identities)?;
    plan.each(&mut entries, ORDER[2], &mut identities)?;
    refuse_created(&entries, &plan, snapshot)?;
    plan.each(&mut entries, ORDER[3], &mut identities)?;
    // Only now is everything there that the entries may refer to.
    let blamed = |(change, failure): (usize, Failure)| failure.within(&named(plan.made_by[change]));
    integrity::check(&plan.changes, snapshot).map_err(blamed)?;
    check_parameters(&plan.changes, &plan.working).map_err(blamed)?;
    Ok(said_too(plan.finish("transaction-response"), issues))
}

/// The reply with what is wrong with the Bundle itself.
fn said_too(mut reply: Reply, mut issues: Vec<Issue>) -> Reply {
    issues.append(&mut reply.issues);
    Reply { issues, ..reply }
}

fn named(at: usize) -> String {
    format!("Bundle.entry[{at}]")
}

/// Refuses if the condition of an update or a patch matches what another entry has created, or, where it created, what another
/// has written: an identity would be written twice.
fn refuse_created(entries: &[Entry], plan: &Plan<'_>, before: &Snapshot) -> Result<(), Failure> {
    let is_new = |c: &NewVersion| before.latest(c.type_name, &c.id).is_none_or(|v| v.is_deletion());
    let written = plan.changes.iter().zip(&plan.made_by).filter(|(change, _)| change.body.is_some());
    let written: FxHashMap<(&str, &ResourceId), (usize, bool)> = written.map(|(c, by)| ((c.type_name, &c.id), (*by, is_new(c)))).collect();
    let creating: FxHashSet<usize> = written.values().filter(|(_, is_new)| *is_new).map(|(by, _)| *by).collect();
    for (at, entry) in entries.iter().enumerate().filter(|_| !creating.is_empty()) {
        let (Method::Put | Method::Patch, Target::Type(type_name)) = (entry.method, &entry.target) else { continue };
        // It matched one at most before: whatever else it matches, an entry has written.
        let found = search::matching(Some(type_name), &entry.query, "the condition", entries.len() + 1, &plan.working, plan.env);
        for stored in found.map_err(|f| f.within(&named(at)))?.1 {
            let is_refused = |(by, is_new): &(usize, bool)| *by != at && (*is_new || creating.contains(&at));
            if written.get(&(*type_name, &search::id_of(&stored)?)).is_some_and(is_refused) {
                return Err(same_condition(type_name, &entry.query).at("request.url").within(&named(at)));
            }
        }
    }
    Ok(())
}

/// Which resource an entry is about, known before it happens so that references to it can be rewritten.
#[derive(Clone)]
enum Identity {
    /// A new one under this id.
    New(&'static str, ResourceId),
    /// The one that an entry before creates by the same condition.
    Same(&'static str, ResourceId),
    /// The one that the URL names or its condition finds.
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

    /// What references to it shall say.
    fn renamed(&self, method: Method, snapshot: &Snapshot) -> Renamed {
        let versions = match self {
            Self::Existing(reply) => reply.subject.as_ref().and_then(|s| s.version).map(|there| (there, there)),
            Self::New(type_name, id) | Self::Same(type_name, id) | Self::Known(type_name, id) => {
                let before = snapshot.latest(type_name, id).map_or(VersionId(0), |v| v.id);
                // A deletion makes none to refer to: what a reference names it keeps.
                let before = if method == Method::Delete { VersionId(u64::MAX) } else { before };
                (snapshot.settings().versioning != Versioning::NoVersion).then_some((before, VersionId(before.0.saturating_add(1))))
            }
        };
        Renamed { uid: self.uid(), versions }
    }
}

/// The identities that URLs name, and that conditional deletions find, must not overlap; the others are compared when they
/// are known.
fn refuse_twice_written(entries: &mut [Entry], snapshot: &Snapshot, env: &Env<'_>) -> Result<(), Failure> {
    let mut written: FxHashSet<(&'static str, ResourceId)> = FxHashSet::default();
    for (at, entry) in entries.iter_mut().enumerate() {
        let subjects = match (entry.method, &entry.target) {
            (Method::Put | Method::Patch | Method::Delete, Target::Instance(type_name, id)) => vec![(*type_name, id.clone())],
            (Method::Delete, Target::Type(_)) => match entry.interaction(env.strict, snapshot.definitions()) {
                Ok(Interaction::Delete(request)) => delete::subjects(&request, snapshot, env).map_err(|f| entry.blamed(f).within(&named(at)))?,
                // It is refused when its turn comes.
                Ok(_) | Err(_) => Vec::new(),
            },
            _ => Vec::new(),
        };
        for subject in subjects {
            if !written.insert(subject.clone()) {
                return Err(twice_written(subject.0, &subject.1).within(&named(at)));
            }
        }
    }
    Ok(())
}

fn twice_written(type_name: &str, id: &ResourceId) -> Failure {
    Failure::new(Kind::Invalid, format!("{type_name}/{id} is written by another entry too; a transaction may write a resource once"))
}

fn same_condition(type_name: &str, query: &str) -> Failure {
    Failure::new(Kind::Invalid, format!("another entry writes what {type_name}?{} matches, too; a transaction may write a resource once", clip(query)))
}

/// What the entries mean, before any but the deletions has happened.
struct Identifying<'a> {
    snapshot: &'a Snapshot,
    env: &'a Env<'a>,
    /// Two entries with one condition mean one resource, however it is written.
    conditional: FxHashMap<String, (Method, ResourceId)>,
}

/// A condition as all ways to write it: escaped or not, in any order of its parameters and of their values.
fn spelled(type_name: &str, query: &str) -> String {
    let mut parameters = pairs(condition(Some(type_name), query));
    // How the answer is written is no condition.
    parameters.retain(|(name, _)| !matches!(name.as_str(), "_format" | "_pretty"));
    for (_, value) in &mut parameters {
        let mut any = split_unescaped(value, ',');
        any.sort_unstable();
        *value = any.join(",");
    }
    parameters.sort_unstable();
    parameters.dedup();
    format!("{type_name}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish())
}

fn identities(entries: &[Entry], snapshot: &Snapshot, env: &Env<'_>) -> Result<Vec<Option<Identity>>, Failure> {
    let mut identifying = Identifying { snapshot, env, conditional: FxHashMap::default() };
    entries.iter().enumerate().map(|(at, entry)| identifying.identity(entry).map_err(|f| entry.blamed(f).within(&named(at)))).collect()
}

impl Identifying<'_> {
    fn identity(&mut self, entry: &Entry) -> Result<Option<Identity>, Failure> {
        let whom = match (&entry.target, &entry.query) {
            (Target::Instance(_, id), _) => Whom::Id(id.clone()),
            (Target::Type(_), query) => Whom::Where(query.clone()),
            _ => return Ok(None),
        };
        let Some(type_name) = entry.target.type_name() else { return Ok(None) };
        Ok(match (entry.method, whom, &entry.conditions.if_none_exist) {
            (Method::Post, Whom::Where(_), Some(query)) => Some(self.created_unless(type_name, query)?),
            (Method::Post, Whom::Where(_), None) => Some(Identity::New(type_name, entry.content.as_ref().map_or_else(ResourceId::random, create::new_id))),
            (Method::Put, whom, _) => Some(self.updated(type_name, &whom, entry)?),
            (Method::Patch, whom, _) => Some(Identity::Known(type_name, patch::subject(type_name, &whom, self.snapshot, self.env)?)),
            (Method::Delete, Whom::Id(id), _) => Some(Identity::Known(type_name, id)),
            (Method::Post | Method::Delete | Method::Get, ..) => None,
        })
    }

    fn created_unless(&mut self, type_name: &'static str, query: &str) -> Result<Identity, Failure> {
        if let Some(reply) = create::existing(type_name, query, self.snapshot, self.env)? {
            return Ok(Identity::Existing(Box::new(reply)));
        }
        let condition = spelled(type_name, query);
        match self.conditional.get(&condition) {
            Some((Method::Post, id)) => return Ok(Identity::Same(type_name, id.clone())),
            Some(_) => return Err(same_condition(type_name, query).at("request.ifNoneExist")),
            None => {}
        }
        let id = ResourceId::random();
        self.conditional.insert(condition, (Method::Post, id.clone()));
        Ok(Identity::New(type_name, id))
    }

    fn updated(&mut self, type_name: &'static str, whom: &Whom, entry: &Entry) -> Result<Identity, Failure> {
        let content = entry.content.as_ref().ok_or_else(|| Failure::new(Kind::Invalid, "resource is missing"))?;
        content.resource.expect_type(type_name)?;
        if let Some(id) = update::subject(whom, content, self.snapshot, self.env)? {
            return Ok(Identity::Known(type_name, id));
        }
        let id = ResourceId::random();
        match self.conditional.insert(spelled(type_name, &entry.query), (Method::Put, id.clone())) {
            Some(_) => Err(same_condition(type_name, &entry.query).at("request.url")),
            None => Ok(Identity::New(type_name, id)),
        }
    }
}

/// Most times that conditional references are looked up anew because others have been resolved.
const MAX_ROUNDS: usize = 16;

/// What the conditional references of a transaction need to know.
#[derive(Default)]
struct Asked {
    /// The types that they are to.
    types: FxHashSet<&'static str>,
    /// The types that hold one.
    holders: FxHashSet<&'static str>,
    /// Whether a condition leads to what other types hold.
    leads_on: bool,
}

impl Asked {
    fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    fn is_about(&self, type_name: &str) -> bool {
        self.leads_on || self.types.contains(type_name)
    }

    /// Whether what one finds may hang on what another is resolved to.
    fn hangs_together(&self) -> bool {
        self.holders.iter().any(|holder| self.is_about(holder))
    }
}

/// Whether a condition is about more than the resources it is to find.
fn leads_on(query: &str) -> bool {
    let leads = |name: &str| {
        let (code, modifier) = name.split_once(':').unwrap_or((name, ""));
        name.contains('.') || matches!(code, "_has" | "_filter" | "_list" | "_in") || matches!(modifier, "in" | "not-in" | "below" | "above")
    };
    pairs(condition(None, query)).iter().any(|(name, _)| leads(name))
}

/// Rewrites references to the entries' identities; what the conditional ones, which stay, ask for.
fn rewrite(entries: &mut [Entry], identities: &[Option<Identity>], snapshot: &Snapshot) -> Result<Asked, Failure> {
    let mut renames = Renames::new(snapshot.definitions());
    for (at, (entry, identity)) in entries.iter().zip(identities).enumerate() {
        if let (Some(full_url), Some(identity)) = (&entry.full_url, identity) {
            renames.add(full_url, &identity.renamed(entry.method, snapshot)).map_err(|f| f.within(&named(at)))?;
        }
    }
    let mut asked = Asked::default();
    each_content(entries, &renames, snapshot.version(), |holder, type_name, query| {
        asked.types.insert(type_name);
        asked.holders.extend(holder);
        asked.leads_on |= leads_on(query);
        Ok(None)
    })?;
    Ok(asked)
}

/// Rewrites conditional references to what they mean after all that the entries do. Where that hangs on what others of them
/// mean, it goes in rounds, and what was found before must be found still.
fn resolve(entries: &mut [Entry], asked: &Asked, identities: &[Option<Identity>], plan: &Plan<'_>) -> Result<(), Failure> {
    let mut all: FxHashMap<(&'static str, String), String> = FxHashMap::default();
    let (hangs_together, mut rounds) = (asked.hangs_together(), 0);
    // Whether what matches nothing may do so later.
    let mut is_patient = hangs_together;
    loop {
        let after = plan.foreseen(entries, asked, identities);
        for ((type_name, query), uid) in &all {
            let now = find_one(type_name, query, &after, plan.env)?;
            if now != *uid {
                let message = format!("conditional reference '{type_name}?{}' matches {uid} or {now}, as others of the Bundle are resolved", clip(query));
                return Err(Failure::new(Kind::PreconditionFailed, message));
            }
        }
        // One condition is looked up once, however many references repeat it.
        let mut found: FxHashMap<(&'static str, String), Result<String, Failure>> = FxHashMap::default();
        let mut is_left = false;
        each_content(entries, &Renames::new(after.definitions()), after.version(), |_, type_name, query| {
            let one = found.entry((type_name, query.to_owned())).or_insert_with(|| find_one(type_name, query, &after, plan.env));
            is_left |= one.is_err();
            match one {
                Err(_) if is_patient => Ok(None),
                Err(failure) if rounds >= MAX_ROUNDS => Err(Failure {
                    kind: Kind::TooCostly,
                    diagnostics: format!("{}; conditional references hang on one another in at most {MAX_ROUNDS} steps", failure.diagnostics),
                    ..failure.clone()
                }),
                one => one.clone().map(Some),
            }
        })?;
        let before = all.len();
        all.extend(found.into_iter().filter_map(|(condition, one)| Some((condition, one.ok()?))));
        rounds += 1;
        if !hangs_together || all.len() == before && !is_left {
            return Ok(());
        }
        is_patient = all.len() > before && rounds < MAX_ROUNDS;
    }
}

fn each_content(
    entries: &mut [Entry],
    renames: &Renames,
    version: FhirVersion,
    mut find: impl FnMut(Option<&'static str>, &'static str, &str) -> Result<Option<String>, Failure>,
) -> Result<(), Failure> {
    for (at, entry) in entries.iter_mut().enumerate() {
        let patched = entry.target.type_name().filter(|_| entry.method == Method::Patch);
        if let Some(content) = &mut entry.content {
            let holder = entry.target.type_name();
            renames
                .rewrite(content, entry.full_url.as_deref(), patched, version, |type_name, query| find(holder, type_name, query))
                .map_err(|f| f.within(&named(at)))?;
        }
    }
    Ok(())
}

/// The one resource that a conditional reference means.
fn find_one(type_name: &'static str, query: &str, snapshot: &Snapshot, env: &Env<'_>) -> Result<String, Failure> {
    let (total, found) = search::matching(Some(type_name), query, "conditional reference", 2, snapshot, env)?;
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
    /// The resources that a transaction has written.
    written: FxHashSet<(&'static str, ResourceId)>,
    /// The entry that made each change.
    made_by: Vec<usize>,
    answers: Vec<String>,
    /// What is wrong with what the entries store.
    issues: Vec<Issue>,
    /// Each `fullUrl` that was said, with the version that was shown there.
    full_urls: FxHashSet<(String, Option<VersionId>)>,
}

impl<'a> Plan<'a> {
    fn new(snapshot: &Snapshot, env: &'a Env<'a>, entries: usize) -> Self {
        Self {
            working: snapshot.clone(),
            env,
            changes: Vec::new(),
            written: FxHashSet::default(),
            made_by: Vec::new(),
            answers: vec![String::new(); entries],
            issues: Vec::new(),
            full_urls: FxHashSet::default(),
        }
    }

    /// Performs every entry of some methods; the first failure ends it.
    fn each(&mut self, entries: &mut [Entry], methods: &[Method], identities: &mut [Option<Identity>]) -> Result<(), Failure> {
        for (at, entry) in entries.iter_mut().enumerate().filter(|(_, e)| methods.contains(&e.method)) {
            let known = self.changes.len();
            if self.env.strict {
                entry.refuse_unknown().map_err(|f| f.within(&named(at)))?;
            }
            let reply = match identities.get_mut(at).and_then(Option::take) {
                Some(identity) => self.act(entry, identity),
                None => entry.interaction(self.env.strict, self.working.definitions()).and_then(|i| self.planned(&i)),
            };
            // Conditions may lead to what another entry writes, too.
            let reply =
                reply.map_err(|f| entry.blamed(f)).and_then(|reply| self.refuse_written_again(known).map(|()| reply)).map_err(|f| f.within(&named(at)))?;
            self.made_by.resize(self.changes.len(), at);
            self.answer(at, entry.is_answered(), Ok(entry.shown(reply)));
        }
        Ok(())
    }

    /// What there will be of what is asked for when all entries have been performed, as far as it can be told: what fails does so later.
    fn foreseen(&self, entries: &mut [Entry], asked: &Asked, identities: &[Option<Identity>]) -> Snapshot {
        let mut ahead = Plan::new(&self.working, self.env, 0);
        for methods in [ORDER[1], ORDER[2]] {
            for (entry, identity) in entries.iter_mut().zip(identities) {
                let is_of = entry.target.type_name().is_some_and(|t| asked.is_about(t));
                if let (true, true, Some(identity)) = (is_of, methods.contains(&entry.method), identity.clone()) {
                    let _ = ahead.act(entry, identity);
                }
            }
        }
        ahead.working
    }

    /// Performs an entry of which is known which resource it is about.
    fn act(&mut self, entry: &mut Entry, identity: Identity) -> Result<Reply, Failure> {
        let conditions = &entry.conditions;
        let content = entry.content.as_ref().ok_or_else(|| Failure::new(Kind::Invalid, "resource is missing"));
        let (snapshot, env) = (&self.working, self.env);
        let reply = match (identity, entry.method) {
            (Identity::Existing(reply), _) => *reply,
            (Identity::Same(type_name, id), _) => perform(&Interaction::Read(type_name, id, Conditions::default(), Subset::All), snapshot, env)?,
            (Identity::New(_, id), Method::Put) => update::as_new(id, content?, conditions, snapshot, env)?,
            (Identity::New(_, id), _) => {
                let content = content?;
                content.resource.expect_type(content.type_name)?;
                create::as_new(content, id, snapshot, env)?
            }
            (Identity::Known(type_name, id), Method::Patch) => {
                let patch = Patch::of_entry(content?)?;
                patch::perform(type_name, &Whom::Id(id), &patch, conditions, snapshot, env)?
            }
            (Identity::Known(_, id), _) => update::put(&id, content?, conditions, snapshot, env)?,
        };
        Ok(self.take(reply))
    }

    /// Performs an entry that stands by itself.
    fn perform(&mut self, interaction: &Interaction) -> Result<Reply, Failure> {
        let reply = perform(interaction, &self.working, self.env)?;
        Ok(self.take(reply))
    }

    /// Performs an entry of a transaction.
    fn planned(&mut self, interaction: &Interaction) -> Result<Reply, Failure> {
        let reply = plan(interaction, &self.working, self.env)?;
        Ok(self.take(reply))
    }

    /// Refuses if a change from the `known`th on is of a resource that one before is of.
    fn refuse_written_again(&mut self, known: usize) -> Result<(), Failure> {
        let mut last = None;
        for new in &self.changes[known..] {
            // A history that one entry rewrites has many versions of one resource.
            let now = Some((new.type_name, &new.id));
            if last != now && !self.written.insert((new.type_name, new.id.clone())) {
                return Err(twice_written(new.type_name, &new.id));
            }
            last = now;
        }
        Ok(())
    }

    /// Makes what a reply wants part of the working snapshot.
    fn take(&mut self, mut reply: Reply) -> Reply {
        // Without its changes it would say that there are none.
        reply.notes = reply.said();
        for change in std::mem::take(&mut reply.changes) {
            let number = u32::try_from(self.changes.len() + 1).unwrap_or(u32::MAX);
            self.working.plan(&change, self.env.stamp, number);
            self.changes.push(change);
        }
        reply
    }

    /// Where what an entry is about lies. Of one version that is said once, as a Bundle must, <https://hl7.org/fhir/R4/bundle.html#invs>.
    fn full_url(&mut self, reply: &Reply, is_read: bool) -> Option<String> {
        let subject = reply.subject.as_ref().filter(|_| reply.done != Done::Deleted)?;
        let url = format!("{}/{}/{}", self.env.base, subject.type_name, subject.id);
        let version = if shown(reply, is_read, self.env).is_some() { subject.version } else { None };
        self.full_urls.insert((url.clone(), version)).then_some(url)
    }

    fn answer(&mut self, at: usize, is_read: bool, reply: Result<Reply, Failure>) {
        self.answers[at] = match reply {
            Ok(mut reply) => {
                for issue in &mut reply.issues {
                    issue.move_into(&format!("{}.resource", named(at)));
                }
                self.issues.extend_from_slice(&reply.issues);
                let full_url = self.full_url(&reply, is_read);
                success(&reply, is_read, full_url.as_deref(), self.env)
            }
            Err(failure) => refusal(&failure.moved_into(&named(at)), &self.working),
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
        Reply { body: Some(body), changes: self.changes, issues: self.issues, ..Reply::new(Done::Ok) }
    }
}

/// What was read is the answer; what was written is repeated only when asked for.
fn shown<'r>(reply: &'r Reply, is_read: bool, env: &Env<'_>) -> Option<&'r Body> {
    reply.body.as_ref().filter(|_| is_read || env.returns == Return::Representation)
}

fn success(reply: &Reply, is_read: bool, full_url: Option<&str>, env: &Env<'_>) -> String {
    let mut parts = Vec::new();
    parts.extend(full_url.map(|url| format!("\"fullUrl\":{}", quote(url))));
    if let Some(text) = shown(reply, is_read, env).and_then(|b| std::str::from_utf8(b).ok()) {
        parts.push(format!("\"resource\":{text}"));
    }
    let mut response = vec![format!("\"status\":{}", quote(&status::line(status::of_success(reply.done, false))))];
    if let Some(subject) = &reply.subject {
        if reply.done != Done::Deleted {
            response.push(format!("\"location\":{}", quote(&subject.location())));
        }
        response.extend(subject.etag().map(|etag| format!("\"etag\":{}", quote(&etag))));
        response.push(format!("\"lastModified\":\"{}\"", crate::clock::instant(subject.modified_ms)));
    }
    if (env.returns == Return::Outcome || !reply.issues.is_empty()) && !is_read {
        response.push(format!("\"outcome\":{}", reply.outcome()));
    }
    parts.push(format!("\"response\":{{{}}}", response.join(",")));
    format!("{{{}}}", parts.join(","))
}

fn refusal(failure: &Failure, snapshot: &Snapshot) -> String {
    let outcome = outcome::of_failure(failure, snapshot.version());
    format!("{{\"response\":{{\"status\":{},\"outcome\":{outcome}}}}}", quote(&status::line(status::of_failure(failure.kind))))
}
