//! The place of a simulator among the others: what belongs to its name, whether it is open or not.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::commit::Sim;
use super::faults::Counts;
use super::feed::Feed;
use super::held::Keeping;
use super::log::RequestLog;
use super::usage::Usage;
use crate::simdb::SimId;

/// How long a stop waits for what is being done with a simulator.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long it waits for a read that is being recorded.
const RECORD_WITHIN: Duration = Duration::from_millis(100);

/// The place of a simulator.
pub struct Slot {
    pub(super) id: SimId,
    pub(super) open: ArcSwapOption<Sim>,
    /// Held while the simulator is opened, closed or deleted.
    pub(super) gate: Mutex<()>,
    /// When it was last asked for.
    pub(super) used_ms: AtomicI64,
    pub(super) feed: Feed,
    pub(super) usage: Usage,
    pub(super) log: RequestLog,
    pub(super) faults: Counts,
    pub(super) keeping: Arc<Keeping>,
}

impl Slot {
    /// One that is not open.
    pub(super) fn new(id: SimId) -> Self {
        Self {
            id,
            open: ArcSwapOption::empty(),
            gate: Mutex::new(()),
            used_ms: AtomicI64::new(0),
            feed: Feed::default(),
            usage: Usage::default(),
            log: RequestLog::default(),
            faults: Counts::default(),
            keeping: Arc::default(),
        }
    }

    /// Closes the simulator at the end of the server.
    pub(super) fn close(&self) {
        // Not while another directory is put into the place of its, unless that takes for ever.
        let gate = self.gate.try_lock_for(CLOSE_WITHIN);
        if let Some(sim) = self.open.swap(None)
            && sim.end_writes()
            && gate.is_some()
        {
            // A flush that goes on is not waited for: the next open sees that the tail is older than the index.
            let _running = sim.flusher.running.try_lock_for(RECORD_WITHIN);
            sim.leave_tail();
        }
    }

    /// Closes the simulator unless a request holds it: then it stays open, for two writers must never be.
    pub(super) fn close_if_unused(&self) {
        let _gate = self.gate.lock();
        if let Some(sim) = self.open.swap(None) {
            if Arc::strong_count(&sim) == 1 {
                sim.end_writes();
                sim.undisturbed(|| sim.leave_tail());
                self.log.forget();
            } else {
                self.open.store(Some(sim));
            }
        }
    }
}
