//! Elements of every data type, from small pools.

use serde_json::{Map, Value, json};

use super::codes::{BODY, PARTS};
use super::{COUNTS, STRANGERS};
use crate::naive::date::interval;
use crate::naive::quantity::UCUM;
use crate::naive::rng::Rng;

pub const NAMES: &[&str] = &["Müller", "Mueller", "MULLER", "muller-Lüdenscheid", "Élan", "élan vital", "O,Neill", "Dan|e", "Ann$a", "Anna", "anne", "Bo\\b"];
pub const PLACES: &[&str] = &["Genève", "Geneva", "GENT", "Århus", "Main Street 1", "12345", "BE"];
pub const DATES: &[&str] = &[
    "2020",
    "2019",
    "1950",
    "2020-05",
    "2020-06",
    "1950-03",
    "2020-05-01",
    "2020-05-31",
    "2019-12-31",
    "2020-02-29",
    "2020-05-01T10:00:00Z",
    "2020-05-01T12:00:00+02:00",
    "2020-05-01T23:30:00-05:00",
    "2020-05-02T04:30:00.250Z",
    "2021-01-01T00:00:00.5Z",
    "2020-12-31T23:59:59Z",
];
const NUMBERS: &[&str] = &["0", "0.5", "0.50", "0.549", "0.45", "1", "1.00", "-2", "-0.1", "1e-3", "10", "99.5", "100", "100.4", "110", "0.00001"];
const UNITS: &[&str] = &["g", "mg", "kg", "mol/L", "mmol/L", "umol/L", "s", "min", "h", "mm[Hg]"];
pub const LOINC: &str = "http://loinc.org";
const SNOMED: &str = "http://snomed.info/sct";
const CODES: &[(&str, &str, &str)] = &[
    (LOINC, "8867-4", "Heart rate"),
    (LOINC, "8310-5", "Body température"),
    (SNOMED, "8867-4", "heartbeat"),
    ("", "8867-4", ""),
    (LOINC, "a$b", "BODY height"),
    (SNOMED, "a", "Other, unknown"),
    (SNOMED, "A", ""),
];
const TYPES: &[(&str, &str)] = &[("http://t/v2", "MR"), ("http://t/v2", "SS"), ("http://t/other", "MR")];
const VALUES: &[&str] = &["N-1", "n-1", "N,2", "N|3", "4$4", "5"];
const SYSTEMS: &[&str] = &["http://h/mrn", "http://h/other", "urn:oid:1.2.3"];
/// None of what is stored: a canonical reference by which something is found that is no profile would be wrong content.
const PROFILES: &[&str] = &[
    "http://acme.org/fhir/StructureDefinition/1",
    "http://acme.org/fhir/StructureDefinition/2",
    "http://acme.org/fhir/StructureDefinition",
    "http://acme.org/Fhir/x/y",
    "urn:oid:1.2.3.4",
];
pub const URLS: &[&str] =
    &["http://acme.org/fhir/ValueSet/1", "http://acme.org/fhir/ValueSet/2", "http://acme.org/fhir/ValueSet", "http://acme.org/Fhir/x", "urn:oid:1.2.3"];

/// An element that is often missing.
pub fn maybe(rng: &mut Rng, percent: usize, make: impl FnOnce(&mut Rng) -> Value) -> Option<Value> {
    rng.chance(percent).then(|| make(rng))
}

/// None, one or two of something.
pub fn several(rng: &mut Rng, make: impl Fn(&mut Rng) -> Value) -> Option<Value> {
    let count = *rng.pick(&[0, 1, 1, 1, 2]);
    (count > 0).then(|| (0..count).map(|_| make(rng)).collect())
}

pub fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

pub fn text(rng: &mut Rng, pool: &[&str]) -> Value {
    (*rng.pick(pool)).into()
}

pub fn day(rng: &mut Rng) -> Value {
    loop {
        let date = *rng.pick(DATES);
        if date.len() <= 10 {
            return date.into();
        }
    }
}

pub fn decimal(rng: &mut Rng) -> Value {
    let text = *rng.pick(NUMBERS);
    serde_json::from_str(text).unwrap()
}

/// Open at either end, but not at both.
pub fn period(rng: &mut Rng) -> Value {
    let (a, b) = (*rng.pick(DATES), *rng.pick(DATES));
    let (start, end) = if interval(a).0 <= interval(b).0 { (a, b) } else { (b, a) };
    match rng.below(4) {
        0 => json!({"start": start}),
        1 => json!({"end": end}),
        _ => json!({"start": start, "end": end}),
    }
}

pub fn timing(rng: &mut Rng) -> Value {
    if rng.chance(50) {
        json!({"repeat": {"boundsPeriod": period(rng)}})
    } else {
        json!({"event": several(rng, |r| text(r, DATES)).unwrap_or(json!(["2020"]))})
    }
}

pub fn coding(rng: &mut Rng) -> Value {
    if rng.chance(40) {
        let (code, display) = *rng.pick(PARTS);
        return object([("system", Some(BODY.into())), ("code", Some(code.into())), ("display", (!display.is_empty()).then(|| display.into()))]).into();
    }
    let (system, code, display) = *rng.pick(CODES);
    let given = |text: &str| (!text.is_empty()).then(|| text.into());
    object([("system", given(system)), ("code", Some(code.into())), ("display", given(display))]).into()
}

pub fn concept(rng: &mut Rng) -> Value {
    if rng.chance(8) {
        return json!({"text": "Heart only as text"});
    }
    let codings: Value = (0..=rng.below(2)).map(|_| coding(rng)).collect();
    object([("coding", Some(codings)), ("text", maybe(rng, 30, |r| text(r, NAMES)))]).into()
}

pub fn identifier(rng: &mut Rng) -> Value {
    let kind = maybe(rng, 60, |r| {
        let (system, code) = *r.pick(TYPES);
        object([("coding", Some(json!([{"system": system, "code": code}]))), ("text", maybe(r, 50, |r| text(r, NAMES)))]).into()
    });
    object([("type", kind), ("system", maybe(rng, 75, |r| text(r, SYSTEMS))), ("value", Some(text(rng, VALUES)))]).into()
}

/// To a resource here, sometimes one that is not there; now and then elsewhere, or by identifier only.
pub fn reference(rng: &mut Rng, types: &[&str]) -> Value {
    let type_name = *rng.pick(types);
    let count = COUNTS.iter().find(|(t, _)| *t == type_name).unwrap().1;
    let number = if rng.chance(8) { *rng.pick(&STRANGERS) } else { rng.below(count.min(14)) };
    let relative = format!("{type_name}/r{number}");
    match rng.below(14) {
        0 => json!({"identifier": identifier(rng)}),
        1 => json!({"reference": format!("http://other.example/fhir/{relative}")}),
        2 => json!({"reference": relative, "identifier": identifier(rng)}),
        3 | 4 => json!({"reference": relative, "display": rng.pick(NAMES)}),
        _ => json!({"reference": relative}),
    }
}

pub fn human_name(rng: &mut Rng) -> Value {
    let words = |r: &mut Rng| text(r, NAMES);
    object([
        ("text", maybe(rng, 15, words)),
        ("family", maybe(rng, 75, words)),
        ("given", several(rng, words)),
        ("prefix", maybe(rng, 10, |_| json!(["Élite", "Dr."]))),
        ("suffix", Some(json!(["MüD"]))),
    ])
    .into()
}

pub fn address(rng: &mut Rng) -> Value {
    let words = |r: &mut Rng| text(r, PLACES);
    object([
        ("text", maybe(rng, 10, words)),
        ("line", several(rng, words)),
        ("city", Some(words(rng))),
        ("district", maybe(rng, 20, words)),
        ("state", maybe(rng, 20, words)),
        ("postalCode", maybe(rng, 20, words)),
        ("country", maybe(rng, 40, words)),
    ])
    .into()
}

pub fn contact(rng: &mut Rng) -> Value {
    json!({"system": rng.pick(&["phone", "email"]), "value": rng.pick(&["555-1", "a@b.c", "A@b.c"])})
}

pub fn meta(rng: &mut Rng) -> Value {
    object([
        ("source", maybe(rng, 60, |r| text(r, URLS))),
        ("profile", several(rng, |r| text(r, PROFILES))),
        ("security", several(rng, coding)),
        ("tag", several(rng, coding)),
    ])
    .into()
}

pub fn quantity(rng: &mut Rng) -> Value {
    let unit = *rng.pick(UNITS);
    let value = decimal(rng);
    match rng.below(8) {
        0 => json!({"value": value}),
        1 => json!({"value": value, "unit": unit}),
        2 => json!({"value": value, "unit": "pieces", "system": "http://h/units", "code": unit}),
        _ => json!({"value": value, "unit": unit, "system": UCUM, "code": unit}),
    }
}
