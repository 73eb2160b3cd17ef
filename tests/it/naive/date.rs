//! Dates: intervals on both sides, in microseconds, the end not included.

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime};

use super::table::{Found, Shape, at};

type Interval = (i64, i64);

pub fn matches(found: &Found, wanted: &str) -> bool {
    let (prefix, text) = super::number::prefixed(wanted);
    let asked = interval(text);
    intervals(found).into_iter().any(|there| compare(prefix, there, asked))
}

fn compare(prefix: &str, (low, high): Interval, (from, to): Interval) -> bool {
    let within = from <= low && high <= to;
    match prefix {
        "eq" => within,
        "ne" => !within,
        "gt" => high > to,
        "lt" => low < from,
        "ge" => high > to || within,
        "le" => low < from || within,
        "sa" => low >= to,
        "eb" => high <= from,
        // How far it reaches is the server's choice. The model asks it only where any choice gives the same answer.
        "ap" => low < to && from < high,
        other => panic!("{other} is no prefix"),
    }
}

/// The intervals of a value: every event of a Timing has its own.
fn intervals(found: &Found) -> Vec<Interval> {
    let value = found.value;
    match found.shape {
        Shape::Period => vec![period(value)],
        Shape::Timing => {
            let events = at(value, "event").into_iter().map(|event| interval(event.as_str().unwrap()));
            events.chain(at(value, "repeat.boundsPeriod").into_iter().map(period)).collect()
        }
        _ => vec![interval(value.as_str().unwrap())],
    }
}

fn period(value: &serde_json::Value) -> Interval {
    let end = |name: &str| value.get(name).and_then(|v| v.as_str()).map(interval);
    (end("start").map_or(i64::MIN, |i| i.0), end("end").map_or(i64::MAX, |i| i.1))
}

/// What a date, partial or not, covers.
pub fn interval(text: &str) -> Interval {
    match text.split_once('T') {
        Some((day, time)) => moment(day, time),
        None => days(text),
    }
}

fn days(text: &str) -> Interval {
    let padded = format!("{text}{}", &"0000-01-01"[text.len()..]);
    let first: NaiveDate = padded.parse().unwrap();
    let after = match text.len() {
        4 => first.checked_add_months(Months::new(12)),
        7 => first.checked_add_months(Months::new(1)),
        _ => first.checked_add_days(Days::new(1)),
    };
    let micros = |day: NaiveDate| day.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_micros();
    (micros(first), micros(after.unwrap()))
}

/// To the minute, the second or a fraction of it; without a zone it is UTC.
fn moment(day: &str, time: &str) -> Interval {
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let (full, width) = match clock.len() {
        5 => (format!("{clock}:00"), 60_000_000),
        8 => (clock.to_owned(), 1_000_000),
        longer => (clock.to_owned(), 10_i64.pow(6 - u32::try_from(longer - 9).unwrap())),
    };
    let low = if zone.is_empty() || zone == "Z" {
        NaiveDateTime::parse_from_str(&format!("{day}T{full}"), "%Y-%m-%dT%H:%M:%S%.f").unwrap().and_utc().timestamp_micros()
    } else {
        DateTime::parse_from_rfc3339(&format!("{day}T{full}{zone}")).unwrap().timestamp_micros()
    };
    (low, low + width)
}
