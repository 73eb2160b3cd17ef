//! Dates as FHIR writes them, read as intervals: `2020` is the whole of that year.
//!
//! The rules are those of <https://hl7.org/fhir/R4/search.html#date>. Bounds are microseconds since 1970 in UTC; a date
//! without a zone is taken as UTC.

use chrono::{Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

/// A half-open interval of microseconds since 1970: `low <= t < high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// First microsecond inside.
    pub low: i64,
    /// First microsecond beyond.
    pub high: i64,
}

/// The bound of an interval that is open at its beginning.
pub const BEGINNING: i64 = i64::MIN;
/// The bound of an interval that is open at its end.
pub const END: i64 = i64::MAX;

/// Reads a `date`, `dateTime` or `instant` of any precision; `None` if it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Interval> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year: i32 = digits(parts.next()?, 4)?;
    let month = parts.next().map(|m| digits::<u32>(m, 2));
    let day = parts.next().map(|d| digits::<u32>(d, 2));
    if parts.next().is_some() || year == 0 {
        return None;
    }
    let (first, last) = match (month, day) {
        (None, _) => (NaiveDate::from_ymd_opt(year, 1, 1)?, NaiveDate::from_ymd_opt(year + 1, 1, 1)?),
        (Some(month), None) => {
            let first = NaiveDate::from_ymd_opt(year, month?, 1)?;
            (first, first.checked_add_months(Months::new(1))?)
        }
        (Some(month), Some(day)) => {
            let first = NaiveDate::from_ymd_opt(year, month?, day?)?;
            (first, first.checked_add_days(Days::new(1))?)
        }
    };
    match time {
        None => Some(Interval { low: micros(first.and_time(NaiveTime::MIN)), high: micros(last.and_time(NaiveTime::MIN)) }),
        Some(time) => {
            day??;
            time_of_day(first, time)
        }
    }
}

fn time_of_day(date: NaiveDate, text: &str) -> Option<Interval> {
    let (clock, zone) = match text.find(['Z', '+', '-']) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let offset_minutes = match zone {
        "" | "Z" => 0,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let (hours, minutes): (i64, i64) = (digits(hours, 2)?, digits(minutes, 2)?);
            if hours > 14 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if zone.starts_with('-') { -1 } else { 1 }
        }
    };
    let (whole, fraction) = match clock.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (clock, None),
    };
    let mut parts = whole.split(':');
    let (hour, minute): (u32, u32) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map(|s| digits::<u32>(s, 2));
    if parts.next().is_some() || (second.is_none() && fraction.is_some()) {
        return None;
    }
    let (second, precision) = match second {
        None => (0, 60_000_000),
        Some(second) => (second?, 1_000_000),
    };
    // A leap second is legal in FHIR and unknown to the calendar: it is the end of its minute, and not of the next.
    let leap = second == 60;
    let start = date.and_hms_opt(hour, minute, if leap { 59 } else { second })?;
    let mut low = micros(start.checked_sub_signed(TimeDelta::minutes(offset_minutes))?);
    if leap {
        return Some(Interval { low: low + 999_999, high: low + 1_000_000 });
    }
    let mut width = precision;
    if let Some(fraction) = fraction {
        if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let kept = &fraction[..fraction.len().min(6)];
        width = 10_i64.pow(6 - u32::try_from(kept.len()).ok()?);
        low += kept.parse::<i64>().ok()? * width;
    }
    Some(Interval { low, high: low + width })
}

fn digits<T: std::str::FromStr>(text: &str, width: usize) -> Option<T> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn micros(t: NaiveDateTime) -> i64 {
    t.and_utc().timestamp_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(text: &str) -> Option<i64> {
        parse(text).map(|i| i.high - i.low)
    }

    #[test]
    fn precision_is_the_length_of_the_interval() {
        const DAY: i64 = 86_400_000_000;
        assert_eq!(length("2020"), Some(366 * DAY));
        assert_eq!(length("2021-02"), Some(28 * DAY));
        assert_eq!(length("2021-02-03"), Some(DAY));
        assert_eq!(length("2021-02-03T04:05"), Some(60_000_000));
        assert_eq!(length("2021-02-03T04:05:06Z"), Some(1_000_000));
        assert_eq!(length("2021-02-03T04:05:06.7Z"), Some(100_000));
        assert_eq!(length("2021-02-03T04:05:06.123456789+02:00"), Some(1));
        assert_eq!(length("2016-12-31T23:59:60Z"), Some(1));
        assert!(parse("2016-12-31T23:59:60Z").zip(parse("2016")).is_some_and(|(leap, year)| leap.high <= year.high));
    }

    #[test]
    fn zones_shift() {
        assert_eq!(parse("2021-02-03T04:05:06+02:00"), parse("2021-02-03T02:05:06Z"));
        assert_eq!(parse("2021-02-03T04:05:06-00:30"), parse("2021-02-03T04:35:06Z"));
    }

    #[test]
    fn refuses_what_is_no_date() {
        for bad in [
            "",
            "x",
            "20",
            "2021-2",
            "2021-02-30",
            "2021-13",
            "2021-02T10:00",
            "2021-02-03T",
            "2021-02-03T4:05",
            "2021-02-03T24:00",
            "2021-02-03T04:05:06.",
            "2021-02-03T04:05+99:00",
            "0000",
            "2021-02-03T04:05:06ZZ",
            "２０２１",
            "2021-",
            "2021-02-03T04.5Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
