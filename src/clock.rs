//! Instants of the server and the ids of events, which are instants made unique.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Datelike, SecondsFormat, TimeZone, Timelike, Utc};

/// Where the time comes from; tests inject their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(|| Utc::now().timestamp_millis()))
    }

    /// A clock that asks `now_ms`, milliseconds since 1970.
    pub fn from_fn(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The id of an event: its millisecond and, where a millisecond holds several, a number.
///
/// Written `2026_11_21_20_41_07_123` or `2026_11_21_20_41_07_123_001` (UTC); ids sort by name as by value, strictly
/// increase within a simulator, and serve as the simulator's sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId(u64);

/// Bits of an [`EventId`] below the millisecond.
const SUFFIX_BITS: u32 = 16;
/// The last suffix that sorts by name.
const LAST_SUFFIX: u64 = 999;

impl EventId {
    /// Before every event.
    pub const ZERO: Self = Self(0);

    /// The id an event at `now_ms` gets when `self` was the last one given out.
    #[must_use]
    pub fn next(self, now_ms: i64) -> Self {
        let now = Self(u64::try_from(now_ms).unwrap_or(0) << SUFFIX_BITS);
        if now > self {
            return now;
        }
        // The clock stands still or went back: count within the last millisecond, then run ahead of the clock.
        if self.0 & 0xffff < LAST_SUFFIX { Self(self.0 + 1) } else { Self(((self.0 >> SUFFIX_BITS) + 1) << SUFFIX_BITS) }
    }

    /// The first id that an event of this millisecond may have.
    #[must_use]
    pub fn first_of(ms: i64) -> Self {
        Self(u64::try_from(ms).unwrap_or(0).min(u64::MAX >> SUFFIX_BITS) << SUFFIX_BITS)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        i64::try_from(self.0 >> SUFFIX_BITS).unwrap_or(i64::MAX)
    }

    /// The number as the index stores it.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        self.0
    }

    /// The id the index stored.
    #[must_use]
    pub fn from_u64(raw: u64) -> Self {
        Self(raw)
    }

    /// The instant as FHIR writes it, with milliseconds, in UTC.
    #[must_use]
    pub fn instant(self) -> String {
        instant(self.millis())
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = at(self.millis());
        write!(f, "{:04}_{:02}_{:02}_{:02}_{:02}_{:02}_{:03}", t.year(), t.month(), t.day(), t.hour(), t.minute(), t.second(), t.nanosecond() / 1_000_000)?;
        match self.0 & 0xffff {
            0 => Ok(()),
            suffix => write!(f, "_{suffix:03}"),
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        const WIDTHS: [usize; 8] = [4, 2, 2, 2, 2, 2, 3, 3];
        let mut parts = [0u32; 8];
        let mut count = 0;
        for part in text.split('_') {
            // Of a moment between two events the suffix may have five digits.
            if count == 8 || (part.len() != WIDTHS[count] && !(count == 7 && part.len() == 5)) || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(());
            }
            parts[count] = part.parse().map_err(drop)?;
            count += 1;
        }
        if count < 7 {
            return Err(());
        }
        let [year, month, day, hour, minute, second, milli, suffix] = parts;
        let whole = Utc.with_ymd_and_hms(i32::try_from(year).map_err(drop)?, month, day, hour, minute, second).single().ok_or(())?;
        let ms = u64::try_from(whole.timestamp_millis()).map_err(drop)? + u64::from(milli);
        Ok(Self(ms << SUFFIX_BITS | u64::from(suffix)))
    }
}

/// Milliseconds since 1970 as a FHIR instant in UTC, three digits after the second.
#[must_use]
pub fn instant(ms: i64) -> String {
    at(ms).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Milliseconds of a duration such as `500ms`, `30s`, `2m`, `8h` or `7d`.
#[must_use]
pub fn duration(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[split..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(unit)
}

fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_as_ids_and_read_back() {
        let mut ids = vec![EventId::ZERO.next(1_490_183_877_324)];
        for step in [0, 0, 1, 0, -5, 7] {
            let last = *ids.last().unwrap_or(&EventId::ZERO);
            ids.push(last.next(last.millis() + step));
        }
        assert_eq!(ids[0].to_string(), "2017_03_22_11_57_57_324");
        assert_eq!(ids[1].to_string(), "2017_03_22_11_57_57_324_001");
        for pair in ids.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_string() < pair[1].to_string(), "{pair:?}");
        }
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn a_thousand_in_one_millisecond_stay_in_order() {
        let mut last = EventId::ZERO.next(1_000);
        for _ in 0..2_500 {
            let next = last.next(1_000);
            assert!(next > last && next.to_string() > last.to_string());
            last = next;
        }
    }

    #[test]
    fn refuses_what_is_no_event_name() {
        for bad in ["", "2017", "2017_03_22_11_57_57_32", "2017_13_22_11_57_57_324", "2017_03_22_11_57_57_324_1", "../../x"] {
            assert_eq!(bad.parse::<EventId>(), Err(()), "{bad}");
        }
    }
}
