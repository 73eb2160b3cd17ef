//! What makes writes survive a power loss.
//!
//! With `--durability process` nothing is synced before a write is acknowledged: the page cache outlives the process,
//! and once a second the whole file system is synced in the background. With `--durability disk` each event is also
//! appended to a journal that all simulators share; one `fdatasync` serves every write that waits for it. A journal
//! segment is dropped after the file system was synced, for then the folders themselves are on the disk.
//!
//! Alternative rejected: syncing each folder and file costs ten times one group's `fdatasync`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::layout::{SimDir, SimId};
use super::write::{self, File as EventFile};
use crate::clock::EventId;
use crate::version::Operation;

/// How long a write may be in the page cache alone before the background sync.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Survives the death of the server process.
    #[default]
    Process,
    /// Survives a power loss.
    Disk,
}

/// The journal of one directory of simulators.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    synced: watch::Receiver<u64>,
    durability: Durability,
    worker: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    folder: PathBuf,
    root: File,
}

#[derive(Debug)]
struct State {
    file: Option<Arc<File>>,
    segment: u64,
    /// The oldest segment that is still there.
    first: u64,
    /// Events appended (`Disk`) or written (`Process`) so far.
    appended: u64,
    /// Of these, how many the background sync has covered.
    settled: u64,
    failed: bool,
    stop: bool,
}

/// Where an event stands in the journal; to be waited for before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Ticket(u64);

impl Journal {
    /// Opens the journal of `simdb`, after restoring what the last machine crash left incomplete; returns what it did.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(simdb: &Path, durability: Durability) -> io::Result<(Self, Vec<String>)> {
        let folder = simdb.join(".journal");
        fs::create_dir_all(&folder)?;
        let root = File::open(simdb)?;
        let restored = restore(simdb, &folder)?;
        let old = segments(&folder)?;
        if !old.is_empty() {
            // Folders that look whole may be in the page cache alone.
            rustix::fs::syncfs(&root)?;
        }
        for path in old {
            fs::remove_file(path)?;
        }
        let file = match durability {
            Durability::Disk => Some(Arc::new(File::create(folder.join(segment_name(1)))?)),
            Durability::Process => None,
        };
        if file.is_some() {
            // The segment's own name must survive too.
            File::open(&folder)?.sync_all()?;
            root.sync_all()?;
        }
        let state = State { file, segment: 1, first: 1, appended: 0, settled: 0, failed: false, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), folder, root });
        let (tell, synced) = watch::channel(0);
        let worker = std::thread::Builder::new().name("journal".into()).spawn({
            let shared = shared.clone();
            move || work(&shared, &tell)
        })?;
        Ok((Self { shared, synced, durability, worker: Mutex::new(Some(worker)) }, restored))
    }

    /// Notes that an event was written; with [`Durability::Disk`], appends it.
    ///
    /// # Errors
    /// The file system's, or that an earlier sync failed.
    pub fn append(&self, sim: &SimId, operation: Operation, event: EventId, files: &[EventFile<'_>]) -> io::Result<Ticket> {
        let frame = match self.durability {
            Durability::Process => Vec::new(),
            Durability::Disk => encode(sim, operation, event, files),
        };
        let mut state = self.shared.state.lock();
        if state.failed {
            return Err(io::Error::other("the journal could not be synced; the server must be restarted"));
        }
        if let Some(file) = state.file.clone()
            && let Err(e) = (&*file).write_all(&frame)
        {
            // A half-written frame would hide every later one from recovery: start another segment.
            self.shared.rotate(&mut state).inspect_err(|_| state.failed = true)?;
            return Err(e);
        }
        state.appended += 1;
        // Without the journal nobody waits: the next look at the clock is soon enough, but for the first write after a rest.
        if self.durability == Durability::Disk || state.appended == state.settled + 1 {
            self.shared.wake.notify_one();
        }
        Ok(match self.durability {
            Durability::Process => Ticket(0),
            Durability::Disk => Ticket(state.appended),
        })
    }

    /// Waits until the event of `ticket` survives what the durability promises; `false` if the disk refused.
    pub async fn durable(&self, ticket: Ticket) -> bool {
        if ticket.0 == 0 {
            return true;
        }
        let mut synced = self.synced.clone();
        synced.wait_for(|n| *n >= ticket.0).await.is_ok_and(|n| *n != u64::MAX)
    }

    /// Makes all that was done so far durable and forgets it: after this, recovery knows nothing of what was before. For
    /// what happens to a simulator as a whole, which is in no frame: that it is made, emptied, deleted.
    ///
    /// # Errors
    /// The file system's.
    pub fn barrier(&self) -> io::Result<()> {
        if self.durability == Durability::Process {
            return Ok(());
        }
        let mut state = self.shared.state.lock();
        let old = state.segment;
        self.shared.rotate(&mut state)?;
        rustix::fs::syncfs(&self.shared.root)?;
        self.shared.drop_old(&mut state, old);
        Ok(())
    }

    /// Syncs what is left and ends the background thread.
    pub fn close(&self) {
        self.shared.state.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(worker) = self.worker.lock().take() {
            let _ = worker.join();
            let _ = rustix::fs::syncfs(&self.shared.root);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Goes on in a new segment. What is in the old one is synced first, for those who wait for it watch the new one.
    fn rotate(&self, state: &mut State) -> io::Result<()> {
        if let Some(old) = &state.file {
            rustix::fs::fdatasync(&**old)?;
        }
        let next = state.segment + 1;
        state.file = Some(Arc::new(File::create(self.folder.join(segment_name(next)))?));
        state.segment = next;
        Ok(())
    }

    /// Removes the segments before the current one.
    fn drop_old(&self, state: &mut State, upto: u64) {
        for segment in state.first..=upto {
            let _ = fs::remove_file(self.folder.join(segment_name(segment)));
        }
        state.first = state.first.max(upto + 1);
    }
}

/// The background thread: group commit, and once a second the file system's sync.
fn work(shared: &Shared, tell: &watch::Sender<u64>) {
    let mut synced = 0;
    let mut last_settle = Instant::now();
    let mut state = shared.state.lock();
    loop {
        let file = state.file.clone();
        if let Some(file) = file
            && state.appended > synced
        {
            let upto = state.appended;
            parking_lot::MutexGuard::unlocked(&mut state, || {
                let outcome = rustix::fs::fdatasync(&*file);
                synced = if outcome.is_ok() { upto } else { u64::MAX };
                let _ = tell.send(synced);
            });
            state.failed |= synced == u64::MAX;
        }
        let stop = state.stop;
        if state.appended > state.settled && (stop || last_settle.elapsed() >= SYNC_EVERY) {
            settle(shared, &mut state, synced);
            last_settle = Instant::now();
        }
        // At a stop one attempt is made: a disk that refuses must not keep the server from ending.
        if state.failed || (stop && (state.file.is_none() || state.appended == synced)) {
            return;
        }
        if state.file.is_none() || state.appended == synced {
            let wait = if state.appended > state.settled { SYNC_EVERY.saturating_sub(last_settle.elapsed()) } else { Duration::from_mins(1) };
            shared.wake.wait_for(&mut state, wait.max(Duration::from_millis(1)));
        }
    }
}

/// Syncs the file system, after which the journal so far is not needed any more.
fn settle(shared: &Shared, state: &mut parking_lot::MutexGuard<'_, State>, synced: u64) {
    let upto = state.appended;
    let old = state.segment;
    if state.file.is_some() {
        if synced < upto {
            return;
        }
        if shared.rotate(state).is_err() {
            return;
        }
    }
    let journalled = state.file.is_some();
    let done = parking_lot::MutexGuard::unlocked(state, || rustix::fs::syncfs(&shared.root).is_ok());
    if done && journalled {
        shared.drop_old(state, old);
    }
    if done {
        state.settled = upto;
    }
}

fn segment_name(n: u64) -> String {
    format!("{n:012}.log")
}

fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    found.sort_unstable();
    Ok(found)
}

fn encode(sim: &SimId, operation: Operation, event: EventId, files: &[EventFile<'_>]) -> Vec<u8> {
    let mut out = vec![0; 8];
    let chunk = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    chunk(&mut out, sim.as_str().as_bytes());
    chunk(&mut out, operation.directory().as_bytes());
    chunk(&mut out, event.to_string().as_bytes());
    for file in files {
        chunk(&mut out, file.name.as_bytes());
        chunk(&mut out, file.bytes);
    }
    let length = u32::try_from(out.len() - 8).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32fast::hash(&out[8..]).to_le_bytes();
    out[..4].copy_from_slice(&length);
    out[4..8].copy_from_slice(&sum);
    out
}

/// Makes whole every event folder that the journal knows better than the disk does.
fn restore(simdb: &Path, folder: &Path) -> io::Result<Vec<String>> {
    let mut restored = Vec::new();
    for path in segments(folder)? {
        let mut bytes = Vec::new();
        File::open(&path)?.read_to_end(&mut bytes)?;
        let mut rest = &bytes[..];
        while let Some((frame, after)) = next_frame(rest) {
            rest = after;
            match restore_event(simdb, frame) {
                Ok(what) => restored.extend(what),
                // One event that cannot be restored must not keep all simulators from being served.
                Err(error) => restored.push(format!("an event that could NOT be restored: {error}")),
            }
        }
    }
    Ok(restored)
}

fn next_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (length, sum) = (number(0)? as usize, number(4)?);
    let frame = bytes.get(8..8 + length)?;
    (crc32fast::hash(frame) == sum).then(|| (frame, &bytes[8 + length..]))
}

fn restore_event(simdb: &Path, mut frame: &[u8]) -> io::Result<Option<String>> {
    let mut chunk = || {
        let length = u32::from_le_bytes(frame.get(..4)?.try_into().ok()?) as usize;
        let bytes = frame.get(4..4 + length)?;
        frame = &frame[4 + length..];
        Some(bytes)
    };
    let mut text = || chunk().and_then(|b| std::str::from_utf8(b).ok());
    let (sim, operation, event) = (text(), text(), text());
    let sim = sim.and_then(|s| s.parse::<SimId>().ok());
    let operation = operation.and_then(|o| Operation::ALL.into_iter().find(|known| known.directory() == o));
    let event = event.and_then(|e| e.parse::<EventId>().ok());
    let (Some(sim), Some(operation), Some(event)) = (sim, operation, event) else { return Ok(None) };
    let mut files = Vec::new();
    while let (Some(name), Some(bytes)) = (chunk(), chunk()) {
        let name = std::str::from_utf8(name).map_err(io::Error::other)?;
        files.push(EventFile { name, bytes });
    }
    let dir = SimDir::new(simdb, &sim);
    // A simulator that was deleted since stays deleted.
    if !dir.sim_json().exists() {
        return Ok(None);
    }
    let place = dir.event(operation, event);
    let whole = files.iter().all(|f| fs::metadata(place.join(f.name)).is_ok_and(|m| m.len() == f.bytes.len() as u64));
    if whole {
        return Ok(None);
    }
    write::prepare(&dir)?;
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    let staged = dir.staging().join(event.to_string());
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    write::event_folder(&dir, operation, event, &files)?;
    Ok(Some(format!("{sim}/{}/{event}", operation.directory())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_folder_comes_back() -> Result<(), Box<dyn std::error::Error>> {
        let temp = tempfile::tempdir()?;
        let sim: SimId = "a__b".parse()?;
        let dir = SimDir::new(temp.path(), &sim);
        write::prepare(&dir)?;
        fs::write(dir.sim_json(), "{}")?;
        let event = EventId::ZERO.next(1_000_000);
        let files = [EventFile { name: "event.json", bytes: b"{}" }, EventFile { name: "Patient1.json", bytes: b"hello" }];
        let folder = write::event_folder(&dir, Operation::Post, event, &files)?;
        let frame = encode(&sim, Operation::Post, event, &files);
        let journal = temp.path().join(".journal");
        fs::create_dir_all(&journal)?;
        // A second frame was cut short by the crash.
        fs::write(journal.join(segment_name(1)), [&frame[..], &frame[..frame.len() - 3]].concat())?;
        fs::write(folder.join("Patient1.json"), "")?;
        let (_journal, restored) = Journal::open(temp.path(), Durability::Process)?;
        assert_eq!(restored, [format!("a__b/POST/{event}")]);
        assert_eq!(fs::read_to_string(folder.join("Patient1.json"))?, "hello");
        assert_eq!(segments(&journal)?.len(), 0);
        Ok(())
    }

    #[tokio::test]
    async fn groups_are_acknowledged() -> Result<(), Box<dyn std::error::Error>> {
        let temp = tempfile::tempdir()?;
        let sim: SimId = "a__b".parse()?;
        let (journal, _) = Journal::open(temp.path(), Durability::Disk)?;
        let mut last = Ticket::default();
        for n in 1..20 {
            last = journal.append(&sim, Operation::Put, EventId::ZERO.next(n), &[])?;
        }
        assert!(journal.durable(last).await);
        Ok(())
    }
}
