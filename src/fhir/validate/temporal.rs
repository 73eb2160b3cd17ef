//! Dates and times as they are written in resources: the formats of <https://hl7.org/fhir/R4/datatypes.html#dateTime>, days
//! that the calendar has, and the zone where one must be.
//!
//! [`super::super::instant`] reads more than this: what a client searches for may leave out seconds and zone.

use super::super::FhirVersion;

/// Judges a `date`.
pub fn date(text: &str, version: FhirVersion) -> Result<(), String> {
    calendar(text, version).map(|_| ())
}

/// Judges a `dateTime`.
pub fn date_time(text: &str, version: FhirVersion) -> Result<(), String> {
    let Some((day, rest)) = text.split_once('T') else { return date(text, version) };
    clock_of_day(day, rest, version)
}

/// Judges an `instant`.
pub fn instant(text: &str, version: FhirVersion) -> Result<(), String> {
    let (day, rest) = text.split_once('T').ok_or("an instant has a time and its zone, such as 2015-02-07T13:28:17Z")?;
    clock_of_day(day, rest, version)
}

/// Judges a `time`.
pub fn time(text: &str) -> Result<(), String> {
    if text.ends_with('Z') || text.contains(['+', '-']) {
        return Err("a time has no time zone".to_owned());
    }
    clock(text)
}

#[derive(PartialEq)]
enum Precision {
    Coarse,
    Day,
}

/// Year, month and day, or the first of them.
fn calendar(text: &str, version: FhirVersion) -> Result<Precision, String> {
    // Years before the first were legal in STU3.
    let text = text.strip_prefix('-').filter(|_| version == FhirVersion::Stu3).unwrap_or(text);
    let mut parts = text.split('-');
    let mut next = |width| match parts.next() {
        None => Ok(None),
        Some(part) => digits(part, width).map(Some).ok_or("a date is YYYY, YYYY-MM or YYYY-MM-DD"),
    };
    let (year, month, day) = (next(4)?.unwrap_or(0), next(2)?, next(2)?);
    if parts.next().is_some() {
        return Err("a date is YYYY, YYYY-MM or YYYY-MM-DD".to_owned());
    }
    if year == 0 {
        return Err("there is no year 0000".to_owned());
    }
    let Some(month) = month else { return Ok(Precision::Coarse) };
    if !(1..=12).contains(&month) {
        return Err("months go from 01 to 12".to_owned());
    }
    let Some(day) = day else { return Ok(Precision::Coarse) };
    let last = days_in(year, month);
    if day == 0 || day > last {
        return Err(format!("{year:04}-{month:02} has the days 01 to {last}"));
    }
    Ok(Precision::Day)
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A day, and a clock's time with its zone.
fn clock_of_day(day: &str, rest: &str, version: FhirVersion) -> Result<(), String> {
    if calendar(day, version)? != Precision::Day {
        return Err("a time is of a day: YYYY-MM-DDThh:mm:ss".to_owned());
    }
    let at = rest.find(['Z', '+', '-']).ok_or("a time needs its time zone, Z or one such as +01:00")?;
    let (hours, zone) = rest.split_at(at);
    clock(hours)?;
    zone_offset(zone)
}

/// `hh:mm:ss` with or without a fraction.
fn clock(text: &str) -> Result<(), String> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut parts = whole.split(':').map(|part| digits(part, 2));
    let (Some(Some(hour)), Some(Some(minute)), Some(Some(second)), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("a time is hh:mm:ss, seconds included".to_owned());
    };
    if hour > 23 {
        return Err("hours go from 00 to 23".to_owned());
    }
    // A minute may have a leap second.
    if minute > 59 || second > 60 {
        return Err("minutes and seconds go from 00 to 59".to_owned());
    }
    match fraction {
        Some(fraction) if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) => Err("a fraction of a second is digits".to_owned()),
        _ => Ok(()),
    }
}

fn zone_offset(zone: &str) -> Result<(), String> {
    let offset = || {
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        Some((digits(hours, 2)?, digits(minutes, 2)?))
    };
    match (zone, offset()) {
        ("Z", _) | (_, Some((0..=13, 0..=59) | (14, 0))) => Ok(()),
        _ => Err("a time zone is Z, or from -14:00 to +14:00".to_owned()),
    }
}

fn digits(text: &str, width: usize) -> Option<u32> {
    (text.len() == width && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const R4: FhirVersion = FhirVersion::R4;

    #[test]
    fn accepted() {
        for text in ["2020", "1900-12", "2024-02-29", "2000-02-29", "0001-01-01"] {
            assert_eq!(date(text, R4), Ok(()), "{text}");
            assert_eq!(date_time(text, R4), Ok(()), "{text}");
        }
        for text in ["2015-02-07T13:28:17Z", "2015-02-07T13:28:17.239-05:00", "2016-12-31T23:59:60Z", "2015-02-07T00:00:00+14:00"] {
            assert_eq!(date_time(text, R4), Ok(()), "{text}");
            assert_eq!(instant(text, R4), Ok(()), "{text}");
            assert!(date(text, R4).is_err());
        }
        assert_eq!(time("23:59:00.5"), Ok(()));
        assert_eq!(date("-0044-03-15", FhirVersion::Stu3), Ok(()));
    }

    #[test]
    fn refused() {
        const FORMAT: &str = "a date is YYYY, YYYY-MM or YYYY-MM-DD";
        const ZONE: &str = "a time zone is Z, or from -14:00 to +14:00";
        for (text, expected) in [
            ("2024-02-30", "2024-02 has the days 01 to 29"),
            ("1900-02-29", "1900-02 has the days 01 to 28"),
            ("2021-04-31", "2021-04 has the days 01 to 30"),
            ("2021-01-00", "2021-01 has the days 01 to 31"),
            ("2021-13", "months go from 01 to 12"),
            ("2021-00", "months go from 01 to 12"),
            ("0000", "there is no year 0000"),
            ("2021-1", FORMAT),
            ("2021-01-01-01", FORMAT),
            ("21", FORMAT),
            ("-0044", FORMAT),
            ("\u{ff12}\u{ff10}\u{ff12}\u{ff11}", FORMAT),
            ("2015-02-07T13:28:17", "a time needs its time zone, Z or one such as +01:00"),
            ("2015-02T13:28:17Z", "a time is of a day: YYYY-MM-DDThh:mm:ss"),
            ("2015-02-07T24:00:00Z", "hours go from 00 to 23"),
            ("2015-02-07T13:60:00Z", "minutes and seconds go from 00 to 59"),
            ("2015-02-07T13:28Z", "a time is hh:mm:ss, seconds included"),
            ("2015-02-07TZ", "a time is hh:mm:ss, seconds included"),
            ("2015-02-07T13:28:17.Z", "a fraction of a second is digits"),
            ("2015-02-07T13:28:17+15:00", ZONE),
            ("2015-02-07T13:28:17+14:01", ZONE),
            ("2015-02-07T13:28:17+0100", ZONE),
            ("2015-02-07T13:28:17ZZ", ZONE),
            ("2015-02-07T13:28:17+ü:0", ZONE),
        ] {
            assert_eq!(date_time(text, R4), Err(expected.to_owned()), "{text}");
            assert!(date(text, R4).is_err() && instant(text, R4).is_err(), "{text}");
        }
        assert!(instant("2015-02-07", R4).is_err());
        for bad in ["24:00:00", "10:00", "10:00:00Z", "10:00:00+01:00", "", "1:2:3"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
