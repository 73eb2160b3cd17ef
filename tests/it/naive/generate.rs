//! Resources from small pools, so that searches hit and miss about as often.

use serde_json::{Map, Value, json};

use super::quantity::UCUM;
use super::rng::Rng;

const NAMES: &[&str] = &["Müller", "Mueller", "MULLER", "muller-Lüdenscheid", "Élan", "élan vital", "O,Neill", "Dan|e", "Ann$a", "Anna", "anne", "Bo\\b"];
const PLACES: &[&str] = &["Genève", "Geneva", "GENT", "Århus", "Main Street 1", "12345", "BE"];
const DATES: &[&str] = &[
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
const LOINC: &str = "http://loinc.org";
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
const URLS: &[&str] =
    &["http://acme.org/fhir/ValueSet/1", "http://acme.org/fhir/ValueSet/2", "http://acme.org/fhir/ValueSet", "http://acme.org/Fhir/x", "urn:oid:1.2.3"];
const QUESTIONNAIRES: &[&str] = &["http://acme.org/fhir/Questionnaire/1", "http://acme.org/fhir/Questionnaire/2"];
const STATUSES: &[&str] = &["final", "amended", "preliminary"];

/// How many there are of each type; ids are `r0`, `r1`, and so on in every type, so that a type in a reference counts.
pub const COUNTS: &[(&str, usize)] = &[
    ("Practitioner", 8),
    ("Organization", 14),
    ("Location", 16),
    ("Patient", 60),
    ("Group", 12),
    ("Encounter", 30),
    ("Observation", 90),
    ("RiskAssessment", 26),
    ("ChargeItem", 20),
    ("ValueSet", 22),
    ("Questionnaire", 8),
    ("QuestionnaireResponse", 16),
];

/// The numbers of resources that are referred to, but not there: never, or no more.
pub const STRANGERS: [usize; 6] = [90, 91, 92, 93, 94, 95];

/// All resources, in the order in which they are stored: what refers and what is referred to are mixed.
pub fn resources(rng: &mut Rng) -> Vec<Value> {
    let mut all: Vec<Value> =
        COUNTS.iter().flat_map(|(type_name, count)| (0..*count).map(move |n| (*type_name, n))).map(|(t, n)| resource(rng, t, n)).collect();
    for n in (1..all.len()).rev() {
        all.swap(n, rng.below(n + 1));
    }
    all
}

/// A resource of this type with random content.
pub fn resource(rng: &mut Rng, type_name: &str, n: usize) -> Value {
    let content = match type_name {
        "Practitioner" => object([("name", several(rng, human_name))]),
        "Organization" => organization(rng),
        "Location" => location(rng),
        "Patient" => patient(rng),
        "Group" => group(rng),
        "Encounter" => encounter(rng),
        "Observation" => observation(rng),
        "RiskAssessment" => risk(rng),
        "ChargeItem" => charge(rng),
        "ValueSet" => value_set(rng),
        "Questionnaire" => object([("url", maybe(rng, 80, |r| text(r, QUESTIONNAIRES))), ("title", maybe(rng, 80, |r| text(r, NAMES)))]),
        "QuestionnaireResponse" => response(rng),
        other => panic!("{other} has no generator"),
    };
    let mut whole = object([("resourceType", Some(type_name.into())), ("id", Some(format!("r{n}").into()))]);
    whole.extend(content);
    whole.into()
}

/// An element that is often missing.
fn maybe(rng: &mut Rng, percent: usize, make: impl FnOnce(&mut Rng) -> Value) -> Option<Value> {
    rng.chance(percent).then(|| make(rng))
}

/// None, one or two of something.
fn several(rng: &mut Rng, make: impl Fn(&mut Rng) -> Value) -> Option<Value> {
    let count = *rng.pick(&[0, 1, 1, 1, 2]);
    (count > 0).then(|| (0..count).map(|_| make(rng)).collect())
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Map<String, Value> {
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn text(rng: &mut Rng, pool: &[&str]) -> Value {
    (*rng.pick(pool)).into()
}

fn day(rng: &mut Rng) -> Value {
    loop {
        let date = *rng.pick(DATES);
        if date.len() <= 10 {
            return date.into();
        }
    }
}

fn decimal(rng: &mut Rng) -> Value {
    let text = *rng.pick(NUMBERS);
    serde_json::from_str(text).unwrap()
}

/// Open at either end, but not at both.
fn period(rng: &mut Rng) -> Value {
    let (a, b) = (*rng.pick(DATES), *rng.pick(DATES));
    let (start, end) = if super::date::interval(a).0 <= super::date::interval(b).0 { (a, b) } else { (b, a) };
    match rng.below(4) {
        0 => json!({"start": start}),
        1 => json!({"end": end}),
        _ => json!({"start": start, "end": end}),
    }
}

fn timing(rng: &mut Rng) -> Value {
    if rng.chance(50) {
        json!({"repeat": {"boundsPeriod": period(rng)}})
    } else {
        json!({"event": several(rng, |r| text(r, DATES)).unwrap_or(json!(["2020"]))})
    }
}

fn coding(rng: &mut Rng) -> Value {
    let (system, code, display) = *rng.pick(CODES);
    let given = |text: &str| (!text.is_empty()).then(|| text.into());
    object([("system", given(system)), ("code", Some(code.into())), ("display", given(display))]).into()
}

fn concept(rng: &mut Rng) -> Value {
    if rng.chance(8) {
        return json!({"text": "Heart only as text"});
    }
    let codings: Value = (0..=rng.below(2)).map(|_| coding(rng)).collect();
    object([("coding", Some(codings)), ("text", maybe(rng, 30, |r| text(r, NAMES)))]).into()
}

fn identifier(rng: &mut Rng) -> Value {
    let kind = maybe(rng, 60, |r| {
        let (system, code) = *r.pick(TYPES);
        object([("coding", Some(json!([{"system": system, "code": code}]))), ("text", maybe(r, 50, |r| text(r, NAMES)))]).into()
    });
    object([("type", kind), ("system", maybe(rng, 75, |r| text(r, SYSTEMS))), ("value", Some(text(rng, VALUES)))]).into()
}

/// To a resource here, sometimes one that is not there; now and then elsewhere, or by identifier only.
fn reference(rng: &mut Rng, types: &[&str]) -> Value {
    let type_name = *rng.pick(types);
    let count = COUNTS.iter().find(|(t, _)| *t == type_name).unwrap().1;
    let number = if rng.chance(8) { *rng.pick(&STRANGERS) } else { rng.below(count.min(14)) };
    let relative = format!("{type_name}/r{number}");
    match rng.below(12) {
        0 => json!({"identifier": identifier(rng)}),
        1 => json!({"reference": format!("http://other.example/fhir/{relative}")}),
        2 => json!({"reference": relative, "identifier": identifier(rng)}),
        _ => json!({"reference": relative}),
    }
}

fn human_name(rng: &mut Rng) -> Value {
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

fn address(rng: &mut Rng) -> Value {
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

fn contact(rng: &mut Rng) -> Value {
    json!({"system": rng.pick(&["phone", "email"]), "value": rng.pick(&["555-1", "a@b.c", "A@b.c"])})
}

fn patient(rng: &mut Rng) -> Map<String, Value> {
    let mut made = object([
        ("meta", maybe(rng, 50, meta)),
        ("identifier", several(rng, identifier)),
        ("active", maybe(rng, 70, |r| r.chance(60).into())),
        ("name", several(rng, human_name)),
        ("telecom", several(rng, contact)),
        ("gender", maybe(rng, 80, |r| text(r, &["male", "female", "other"]))),
        ("birthDate", maybe(rng, 80, day)),
        ("address", several(rng, address)),
        ("communication", several(rng, |r| json!({"language": concept(r)}))),
        ("generalPractitioner", several(rng, |r| reference(r, &["Practitioner", "Organization"]))),
        ("managingOrganization", maybe(rng, 60, |r| reference(r, &["Organization"]))),
        ("link", several(rng, |r| json!({"other": reference(r, &["Patient"]), "type": "seealso"}))),
    ]);
    match rng.below(4) {
        0 => made.extend(object([("deceasedBoolean", Some(rng.chance(50).into()))])),
        1 => made.extend(object([("deceasedDateTime", Some(text(rng, DATES)))])),
        _ => {}
    }
    made
}

fn meta(rng: &mut Rng) -> Value {
    object([
        ("source", maybe(rng, 60, |r| text(r, URLS))),
        ("profile", several(rng, |r| text(r, URLS))),
        ("security", several(rng, coding)),
        ("tag", several(rng, coding)),
    ])
    .into()
}

fn organization(rng: &mut Rng) -> Map<String, Value> {
    object([
        ("identifier", several(rng, identifier)),
        ("name", maybe(rng, 80, |r| text(r, NAMES))),
        ("alias", several(rng, |r| text(r, NAMES))),
        ("partOf", maybe(rng, 60, |r| reference(r, &["Organization"]))),
    ])
}

fn location(rng: &mut Rng) -> Map<String, Value> {
    let place = |r: &mut Rng| {
        let (latitude, longitude) = *r.pick(&[("46.20", "6.14"), ("46.5", "6.63"), ("-33.87", "151.21"), ("0.0", "179.95"), ("0", "-179.95"), ("89.9", "10")]);
        let number = |text| serde_json::from_str::<Value>(text).unwrap();
        json!({"longitude": number(longitude), "latitude": number(latitude)})
    };
    object([("name", maybe(rng, 80, |r| text(r, NAMES))), ("alias", several(rng, |r| text(r, PLACES))), ("position", maybe(rng, 80, place))])
}

fn group(rng: &mut Rng) -> Map<String, Value> {
    let member = |r: &mut Rng| json!({"entity": reference(r, &["Patient", "Patient", "Practitioner"])});
    object([("identifier", several(rng, identifier)), ("type", Some("person".into())), ("actual", Some(true.into())), ("member", several(rng, member))])
}

fn encounter(rng: &mut Rng) -> Map<String, Value> {
    let stay = |r: &mut Rng| object([("location", Some(reference(r, &["Location"]))), ("period", maybe(r, 80, period))]).into();
    object([
        ("status", Some("finished".into())),
        ("class", Some(json!({"code": "AMB"}))),
        ("subject", maybe(rng, 90, |r| reference(r, &["Patient", "Patient", "Group"]))),
        ("period", maybe(rng, 80, period)),
        ("location", several(rng, stay)),
        ("serviceProvider", maybe(rng, 70, |r| reference(r, &["Organization"]))),
    ])
}

fn quantity(rng: &mut Rng) -> Value {
    let unit = *rng.pick(UNITS);
    let value = decimal(rng);
    match rng.below(8) {
        0 => json!({"value": value}),
        1 => json!({"value": value, "unit": unit}),
        2 => json!({"value": value, "unit": "pieces", "system": "http://h/units", "code": unit}),
        _ => json!({"value": value, "unit": unit, "system": UCUM, "code": unit}),
    }
}

fn component(rng: &mut Rng) -> Value {
    object([("code", Some(concept(rng))), ("valueQuantity", maybe(rng, 80, quantity))]).into()
}

fn observation(rng: &mut Rng) -> Map<String, Value> {
    let mut made = object([
        ("status", Some(text(rng, STATUSES))),
        ("category", several(rng, concept)),
        ("code", Some(concept(rng))),
        ("subject", maybe(rng, 90, |r| reference(r, &["Patient", "Patient", "Patient", "Group"]))),
        ("encounter", maybe(rng, 60, |r| reference(r, &["Encounter"]))),
        ("performer", several(rng, |r| reference(r, &["Practitioner", "Organization"]))),
        ("component", several(rng, component)),
    ]);
    let (name, value) = match rng.below(8) {
        0 => ("valueString", text(rng, NAMES)),
        1 | 2 => ("valueCodeableConcept", concept(rng)),
        3 => ("valueDateTime", text(rng, DATES)),
        4 => ("valuePeriod", period(rng)),
        5 => ("valueBoolean", true.into()),
        _ => ("valueQuantity", quantity(rng)),
    };
    made.extend(object([(name, Some(value))]));
    let (name, value) = match rng.below(6) {
        0 => ("effectivePeriod", period(rng)),
        1 => ("effectiveTiming", timing(rng)),
        2 => ("effectiveInstant", "2020-05-01T08:00:00.125-02:00".into()),
        3 => return made,
        _ => ("effectiveDateTime", text(rng, DATES)),
    };
    made.extend(object([(name, Some(value))]));
    made
}

fn risk(rng: &mut Rng) -> Map<String, Value> {
    let prediction = |r: &mut Rng| match r.below(6) {
        0 => json!({"probabilityRange": {"low": {"value": decimal(r)}}}),
        1 => json!({"probabilityRange": {"high": {"value": decimal(r)}}}),
        2 => json!({"probabilityRange": {"low": {"value": -5}, "high": {"value": decimal(r)}}}),
        _ => json!({"probabilityDecimal": decimal(r)}),
    };
    let occurrence = if rng.chance(75) { ("occurrenceDateTime", maybe(rng, 80, |r| text(r, DATES))) } else { ("occurrencePeriod", Some(period(rng))) };
    object([("status", Some("final".into())), ("subject", Some(reference(rng, &["Patient", "Group"]))), occurrence, ("prediction", several(rng, prediction))])
}

fn charge(rng: &mut Rng) -> Map<String, Value> {
    let price = |r: &mut Rng| json!({"value": decimal(r), "currency": r.pick(&["EUR", "CHF"])});
    object([("status", Some("billed".into())), ("factorOverride", maybe(rng, 80, decimal)), ("priceOverride", maybe(rng, 80, price))])
}

fn value_set(rng: &mut Rng) -> Map<String, Value> {
    let include = |r: &mut Rng| object([("system", maybe(r, 80, |r| text(r, URLS)))]).into();
    object([
        ("url", maybe(rng, 85, |r| text(r, URLS))),
        ("version", maybe(rng, 70, |r| text(r, &["1", "1.0", "2020-05"]))),
        ("name", maybe(rng, 70, |r| text(r, NAMES))),
        ("title", maybe(rng, 70, |r| text(r, NAMES))),
        ("status", Some(text(rng, &["draft", "active", "retired"]))),
        ("date", maybe(rng, 80, |r| text(r, DATES))),
        ("compose", several(rng, include).map(|include| json!({"include": include}))),
    ])
}

fn response(rng: &mut Rng) -> Map<String, Value> {
    let canonical = |r: &mut Rng| format!("{}{}", r.pick(QUESTIONNAIRES), r.pick(&["", "|1.0", "|2"])).into();
    object([("status", Some("completed".into())), ("questionnaire", maybe(rng, 85, canonical)), ("subject", maybe(rng, 80, |r| reference(r, &["Patient"])))])
}
