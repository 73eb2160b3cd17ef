//! Where writes become true: [`Sim::exchange`] plans an exchange under the simulator's lock and commits it as one event
//! folder by one rename.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::bodies::Body;
use super::dispose;
use super::faults::Counts;
use super::feed::Feed;
use super::held::Keeping;
use super::lifecycle::Flusher;
use super::log::RequestLog;
use super::order::InOrder;
use super::past::Past;
use super::profile::Profile;
use super::reindex::{Progress, Shown};
use super::snapshot::{Snapshot, Store, uid};
use super::storage_failure;
use super::usage::Usage;
use crate::clock::{Clock, EventId};
use crate::fhir::{Failure, Kind, ResourceId, VersionId};
use crate::query::Keys;
use crate::simdb::event::{DATE, RECORD, java_date};
use crate::simdb::event_index::{EventIndex, Row};
use crate::simdb::journal::{Journal, Ticket};
use crate::simdb::layout::file_name;
use crate::simdb::scan::Damage;
use crate::simdb::write::{File, event_folder};
use crate::simdb::{EventRecord, SimDir, SimId, StoredResource};
use crate::version::{Change, Made, Operation, Place, Version};

/// An open simulator.
pub struct Sim {
    pub(super) store: Arc<Store>,
    pub(super) profile: ArcSwap<Profile>,
    pub(super) published: ArcSwap<Snapshot>,
    /// Held while an exchange is planned and committed.
    pub(super) writer: Mutex<()>,
    /// The last event id given out.
    pub(super) last_id: AtomicU64,
    pub(super) clock: Clock,
    pub(super) journal: Arc<Journal>,
    pub(super) flusher: Flusher,
    pub(super) damages: Vec<Damage>,
    /// Whether what is stored has to be indexed for other search parameters.
    pub(super) stale_params: AtomicBool,
    /// Held by whoever does it.
    pub(super) following: Mutex<()>,
    /// How far that is.
    pub(super) progress: Shown,
    /// Whether the writer's lock is held for long, by a Bundle.
    pub(super) heavy: AtomicBool,
    /// Set under the writer's lock when the simulator is deleted or reset: nothing is written any more.
    pub(super) closed: AtomicBool,
    /// The last event of which the list of simulators knows.
    pub(super) saved: Mutex<EventId>,
    /// Set when its directory is another's: reads are not recorded any more either.
    pub(super) gone: AtomicBool,
    /// Which events are on their way.
    pub(super) order: InOrder,
    /// Reads and searches.
    pub log: RequestLog,
    /// What happened, by what.
    pub events: EventIndex,
    /// Who is told of it.
    pub feed: Feed,
    /// What it was used for.
    pub usage: Usage,
    /// It as it was.
    pub(super) past: Past,
    /// When it was last looked whether something is to be forgotten.
    pub(super) retained_ms: AtomicI64,
    /// Who writes it out, and who removes some of it.
    pub(super) keeping: Arc<Keeping>,
    /// How often its faults could have befallen a request.
    pub faults: Counts,
}

/// The event an exchange will be, and where it is filed.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Its id; its instant is `meta.lastUpdated` of what it stores.
    pub event: EventId,
    /// Its operation.
    pub operation: Operation,
}

/// A version that an exchange wants to store.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// The resource's type.
    pub type_name: &'static str,
    /// Its id.
    pub id: ResourceId,
    /// The version's number.
    pub version: VersionId,
    /// What is done.
    pub change: Change,
    /// The resource as it will be served; none for a deletion.
    pub body: Option<Body>,
    /// What it is found by.
    pub keys: Arc<Keys>,
    /// Its last modification in milliseconds since 1970, where that is not the event's instant.
    pub modified_ms: Option<i64>,
    /// Its place among all versions, where that is not its file's.
    pub made: Option<Made>,
    /// Whether the history of the resource begins anew with this version.
    pub rewrites: Rewrites,
}

/// What becomes of the versions that a resource had before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rewrites {
    /// They stay.
    #[default]
    Nothing,
    /// They count no more: this version and those after it in the exchange are the history. Their files stay in the folders
    /// of these events.
    History(Vec<(Operation, EventId)>),
    /// The same, and their files are removed.
    Purge(Vec<(Operation, EventId)>),
}

impl NewVersion {
    /// A version with content.
    #[must_use]
    pub fn content(type_name: &'static str, id: ResourceId, version: VersionId, change: Change, body: Body, keys: Keys) -> Self {
        Self { type_name, id, version, change, body: Some(body), keys: Arc::new(keys), modified_ms: None, made: None, rewrites: Rewrites::Nothing }
    }

    /// A deletion.
    #[must_use]
    pub fn deletion(type_name: &'static str, id: ResourceId, version: VersionId) -> Self {
        let change = Change::Delete;
        Self { type_name, id, version, change, body: None, keys: Arc::default(), modified_ms: None, made: None, rewrites: Rewrites::Nothing }
    }

    /// What it is as the `number`th of an exchange.
    pub(super) fn version_of(&self, stamp: Stamp, number: u32) -> Version {
        let (event, bytes) = (stamp.event, self.body.as_ref().map_or(0, |b| u32::try_from(b.len()).unwrap_or(u32::MAX)));
        let modified_ms = self.modified_ms.unwrap_or(event.millis());
        let made = self.made.unwrap_or_else(|| Made::by_time(modified_ms, event, number));
        Version { id: self.version, event, place: Place { operation: stamp.operation, number, bytes }, change: self.change, modified_ms, made }
    }

    pub(super) fn uid(&self) -> Arc<str> {
        uid(self.type_name, &self.id).into()
    }
}

/// An exchange ready to be committed.
pub struct Draft<'a> {
    /// What `event.json` says; event, sequence, instant, simulator and resources are filled in by the commit.
    pub record: EventRecord,
    /// The request's body, under a file name.
    pub request_body: Option<(&'static str, &'a [u8])>,
    /// The response's body, under a file name.
    pub response_body: Option<(&'static str, Body)>,
    /// What is stored.
    pub changes: Vec<NewVersion>,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("id", &self.store.sim).finish_non_exhaustive()
    }
}

impl Sim {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SimId {
        &self.store.sim
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &SimDir {
        &self.store.dir
    }

    /// What it was made to be.
    #[must_use]
    pub fn profile(&self) -> Arc<Profile> {
        self.profile.load_full()
    }

    /// Event folders that cannot be used.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// It as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// How far the indexing for new search parameters is, if it goes on.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let stale = self.stale_params.load(Ordering::Acquire);
        self.progress.lock().clone().or_else(|| stale.then(Progress::default))
    }

    /// Takes on another profile: exchanges that begin from now on go by its settings.
    pub(super) fn adopt(&self, profile: Profile) {
        let settings = Arc::new(profile.settings.clone());
        if settings.faults != self.profile().settings.faults {
            self.faults.clear();
        }
        self.profile.store(Arc::new(profile));
        self.publish(|snapshot| snapshot.settings = settings);
    }

    /// Whether it was closed, emptied, sealed or deleted: then there may be another of its name.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_closed()
    }

    /// Refuses what would be written where another has taken its place; to be asked under the writer's lock.
    pub(super) fn refuse_if_over(&self) -> Result<(), Failure> {
        if !self.is_closed() {
            return Ok(());
        }
        let message = format!("simulator {} was closed, reset or deleted during this request; send it again", self.store.sim);
        Err(Failure::new(Kind::UnknownSimulator, message))
    }

    /// Publishes a picture with the same content.
    pub(super) fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        let _guard = self.writer.lock();
        let mut next = (*self.snapshot()).clone();
        change(&mut next);
        self.published.store(Arc::new(next));
    }

    /// Whether it was closed, emptied or deleted.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Milliseconds since 1970, by the clock that events go by.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Whether a write would wait long: one works on a large request, or the index has to catch up.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.heavy.load(Ordering::Relaxed) || Flusher::must_wait(&self.published.load())
    }

    /// The id of an event that happens now; each is given out once.
    pub fn next_event(&self) -> EventId {
        let now = self.clock.now_ms();
        let next = |last| Some(EventId::from_u64(last).next(now).to_u64());
        let last = self.last_id.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).unwrap_or_default();
        EventId::from_u64(last).next(now)
    }

    /// Plans an exchange against the newest snapshot and commits it.
    ///
    /// `plan` is called once, with no other exchange going on. What it returns is written as one event folder; then readers
    /// see its changes; then this returns the event. The response may go out once the ticket is durable. Where it returns no
    /// draft there is no event.
    ///
    /// # Errors
    /// The disk refused: nothing is stored, no reader sees anything, and the plan's response must not be sent.
    pub fn exchange<'a, R>(
        &self,
        operation: Operation,
        plan: impl FnOnce(&Snapshot, Stamp) -> (Option<Draft<'a>>, R),
    ) -> Result<(R, Option<EventId>, Ticket), Failure> {
        if !self.flusher.wait(&self.published, &self.closed) {
            return Err(Failure::new(Kind::Storage, "the index cannot be written, and what is not in it yet is too much; nothing was stored"));
        }
        let guard = self.writer.lock();
        self.refuse_if_over()?;
        let heavy = matches!(operation, Operation::Transaction | Operation::Batch);
        self.heavy.store(heavy, Ordering::Relaxed);
        let outcome = self.exchange_locked(operation, plan);
        self.heavy.store(false, Ordering::Relaxed);
        drop(guard);
        self.flusher.wrote(self.published.load().view.recent.len());
        if self.stale_params.load(Ordering::Acquire) {
            self.flusher.ask();
        }
        outcome
    }

    fn exchange_locked<'a, R>(
        &self,
        operation: Operation,
        plan: impl FnOnce(&Snapshot, Stamp) -> (Option<Draft<'a>>, R),
    ) -> Result<(R, Option<EventId>, Ticket), Failure> {
        let before = self.published.load_full();
        let stamp = Stamp { event: self.order.begin(|| self.next_event()), operation };
        let (draft, response) = plan(&before, stamp);
        let Some(draft) = draft else {
            self.order.end(stamp.event, None, &self.feed);
            return Ok((response, None, Ticket::default()));
        };
        let defines = draft.changes.iter().any(|c| c.type_name == "SearchParameter");
        let purges = draft.changes.iter().any(|c| matches!(c.rewrites, Rewrites::Purge(_)));
        let committed = self.commit(&before, stamp, draft);
        let (mut after, record, ticket) = committed.inspect_err(|_| self.order.end(stamp.event, None, &self.feed))?;
        if purges {
            self.past.clear();
            // The event says so already: what is left over now is removed when the simulator is opened again.
            if let Err(error) = dispose::of_event(&self.store.dir, operation, stamp.event) {
                tracing::error!(sim = %self.store.sim, event = %stamp.event, %error, "what was purged could not be removed yet");
            }
        }
        if defines {
            // What is going on in the background finds out by itself that it is not wanted any more.
            let later = after.follow_params();
            self.stale_params.fetch_or(later || self.following.is_locked(), Ordering::AcqRel);
        }
        self.published.store(Arc::new(after));
        self.took_place(stamp.event, operation, record);
        Ok((response, Some(stamp.event), ticket))
    }

    /// The only way from a plan to the truth.
    fn commit(&self, before: &Snapshot, stamp: Stamp, mut draft: Draft<'_>) -> Result<(Snapshot, EventRecord, Ticket), Failure> {
        let sequence = before.sequence + 1;
        let resources: Vec<StoredResource> = (1..).zip(&draft.changes).map(|(number, new)| stored(new, number)).collect();
        let name_of = |body: &Body| {
            let same = draft.changes.iter().position(|c| c.body.as_ref().is_some_and(|b| Arc::ptr_eq(b, body)));
            same.and_then(|i| resources[i].file.clone())
        };
        let mut response_file = None;
        draft.record.response.body = draft.response_body.as_ref().map(|(name, body)| {
            name_of(body).unwrap_or_else(|| {
                response_file = Some(File { name, bytes: body });
                (*name).to_owned()
            })
        });
        draft.record.request.body = draft.request_body.map(|(name, _)| name.to_owned());
        draft.record.request.body_bytes = draft.request_body.map_or(0, |(_, bytes)| bytes.len() as u64);
        draft.record.event = stamp.event.to_string();
        draft.record.sequence = sequence;
        draft.record.instant = stamp.event.instant();
        draft.record.sim = self.store.sim.to_string();
        draft.record.resources.clone_from(&resources);
        let record = serde_json::to_vec_pretty(&draft.record).map_err(|e| storage_failure("event.json", &e.into()))?;
        let date = java_date(stamp.event.millis());
        let mut files = vec![File { name: RECORD, bytes: &record }];
        files.extend(draft.request_body.map(|(name, bytes)| File { name, bytes }));
        for (resource, new) in resources.iter().zip(&draft.changes) {
            if let (Some(name), Some(bytes)) = (&resource.file, &new.body) {
                files.push(File { name, bytes });
            }
        }
        files.extend(response_file);
        files.push(File { name: DATE, bytes: &date });
        event_folder(&self.store.dir, stamp.operation, stamp.event, &files).map_err(|e| storage_failure("the event cannot be written", &e))?;
        let ticket = self.journal.append(&self.store.sim, stamp.operation, stamp.event, &files).map_err(|e| {
            let _ = std::fs::remove_dir_all(self.store.dir.event(stamp.operation, stamp.event));
            storage_failure("the journal cannot be written", &e)
        })?;
        Ok((self.advanced(before, stamp, sequence, &draft.changes), draft.record, ticket))
    }

    fn advanced(&self, before: &Snapshot, stamp: Stamp, sequence: u64, changes: &[NewVersion]) -> Snapshot {
        let mut after = before.clone();
        after.last = stamp.event;
        after.sequence = sequence;
        for (number, new) in (1..).zip(changes) {
            after.apply(new, stamp, number);
            if let Some(body) = &new.body {
                self.store.bodies.keep(self.store.serial, &new.version_of(stamp, number), body);
            }
        }
        after
    }

    /// Indexes an event and tells of it.
    fn took_place(&self, event: EventId, operation: Operation, record: EventRecord) {
        let row = Row::of(&record, event, operation);
        self.events.push(row.clone());
        self.order.end(event, Some((row, Box::new(record))), &self.feed);
    }

    /// The id of a read that is to be recorded, by [`Sim::record_read`].
    pub fn next_read(&self) -> EventId {
        self.order.begin(|| self.next_event())
    }

    /// The last event up to which all have come to be: recorded reads come a little late.
    #[must_use]
    pub fn settled(&self) -> EventId {
        self.order.upto()
    }

    /// Writes the folder of a read, which changes nothing; called off the request's path.
    ///
    /// # Errors
    /// The file system's.
    pub fn record_read(
        &self,
        event: EventId,
        mut record: EventRecord,
        request_body: Option<(&'static str, &[u8])>,
        body: Option<(&'static str, &[u8])>,
    ) -> std::io::Result<()> {
        record.event = event.to_string();
        record.instant = event.instant();
        record.sim = self.store.sim.to_string();
        record.sequence = self.snapshot().sequence;
        record.request.body = request_body.map(|(name, _)| name.to_owned());
        record.request.body_bytes = request_body.map_or(0, |(_, bytes)| bytes.len() as u64);
        record.response.body = body.map(|(name, _)| name.to_owned());
        let json = serde_json::to_vec_pretty(&record)?;
        let date = java_date(event.millis());
        let mut files = vec![File { name: RECORD, bytes: &json }];
        files.extend(request_body.map(|(name, bytes)| File { name, bytes }));
        files.extend(body.map(|(name, bytes)| File { name, bytes }));
        files.push(File { name: DATE, bytes: &date });
        let written = self.undisturbed(|| {
            // Emptied or deleted meanwhile: its directory is another's now.
            let written =
                if self.gone.load(Ordering::Acquire) { Ok(false) } else { event_folder(&self.store.dir, Operation::Get, event, &files).map(|_| true) };
            // Whoever ends it finds the folder and the row, or neither.
            match written {
                Ok(true) => self.took_place(event, Operation::Get, record),
                Ok(false) | Err(_) => self.order.end(event, None, &self.feed),
            }
            written
        });
        written.map(drop)
    }

    /// Waits until what `ticket` stands for survives what the durability promises; `false` if the disk refused.
    pub async fn durable(&self, ticket: Ticket) -> bool {
        self.journal.durable(ticket).await
    }
}

fn stored(new: &NewVersion, number: u32) -> StoredResource {
    StoredResource {
        file: new.body.as_ref().map(|_| file_name(new.type_name, number)),
        type_name: new.type_name.to_owned(),
        id: new.id.to_string(),
        version_id: new.version.0,
        change: new.change,
        bytes: new.body.as_ref().map_or(0, |b| u32::try_from(b.len()).unwrap_or(u32::MAX)),
        last_updated: new.modified_ms.map(crate::clock::instant),
        made: new.made.map(|made| made.to_string()),
        rewrites: match &new.rewrites {
            Rewrites::Nothing => None,
            Rewrites::History(before) | Rewrites::Purge(before) => {
                Some(before.iter().map(|(operation, event)| format!("{}/{event}", operation.directory())).collect())
            }
        },
        purges: matches!(new.rewrites, Rewrites::Purge(_)),
        purged: false,
    }
}
