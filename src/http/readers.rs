//! Who reads just now. A write keeps the thread that it arrived at for as long as the disk takes; where others read, it goes
//! elsewhere, which costs it a twentieth of a millisecond.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// For how long after a read another one is expected, in milliseconds.
const SOON_MS: u64 = 10;

/// The last read there was: its millisecond since the start, and the port that it came from in the lowest 16 bits.
pub struct Readers {
    start: Instant,
    last: AtomicU64,
}

impl Readers {
    /// None yet.
    pub fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    /// Remembers a read.
    pub fn saw(&self, at: Instant, port: u16) {
        self.last.store(self.millis(at) << 16 | u64::from(port), Ordering::Relaxed);
    }

    /// Whether another connection than the one from this port reads.
    pub fn others(&self, at: Instant, port: u16) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last != 0 && last & 0xffff != u64::from(port) && self.millis(at).saturating_sub(last >> 16) <= SOON_MS
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Readers;

    #[test]
    fn a_read_is_another_connections_and_of_just_now() {
        let readers = Readers::new();
        let at = |ms| Instant::now() + Duration::from_secs(1) + Duration::from_millis(ms);
        assert!(!readers.others(at(0), 1), "there was none");
        readers.saw(at(0), 1);
        assert!(!readers.others(at(1), 1), "its own");
        assert!(readers.others(at(1), 2));
        assert!(!readers.others(at(1_000), 2), "long ago");
    }
}
