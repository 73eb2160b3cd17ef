//! What is done and found.

use serde_json::{Map, Value, json};

use super::datatypes::{DATES, NAMES, concept, decimal, maybe, object, period, quantity, reference, several, text, timing};
use crate::naive::rng::Rng;

const STATUSES: &[&str] = &["final", "amended", "preliminary"];

pub fn encounter(rng: &mut Rng) -> Map<String, Value> {
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

fn component(rng: &mut Rng) -> Value {
    object([("code", Some(concept(rng))), ("valueQuantity", maybe(rng, 80, quantity))]).into()
}

pub fn observation(rng: &mut Rng) -> Map<String, Value> {
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

pub fn risk(rng: &mut Rng) -> Map<String, Value> {
    let prediction = |r: &mut Rng| match r.below(6) {
        0 => json!({"probabilityRange": {"low": {"value": decimal(r)}}}),
        1 => json!({"probabilityRange": {"high": {"value": decimal(r)}}}),
        2 => json!({"probabilityRange": {"low": {"value": -5}, "high": {"value": decimal(r)}}}),
        _ => json!({"probabilityDecimal": decimal(r)}),
    };
    let occurrence = if rng.chance(75) { ("occurrenceDateTime", maybe(rng, 80, |r| text(r, DATES))) } else { ("occurrencePeriod", Some(period(rng))) };
    object([("status", Some("final".into())), ("subject", Some(reference(rng, &["Patient", "Group"]))), occurrence, ("prediction", several(rng, prediction))])
}

pub fn charge(rng: &mut Rng) -> Map<String, Value> {
    let price = |r: &mut Rng| json!({"value": decimal(r), "currency": r.pick(&["EUR", "CHF"])});
    object([("status", Some("billed".into())), ("factorOverride", maybe(rng, 80, decimal)), ("priceOverride", maybe(rng, 80, price))])
}

pub fn list(rng: &mut Rng) -> Map<String, Value> {
    let types = &["Patient", "Patient", "Patient", "Observation", "Organization", "Encounter"];
    let entries: Value = (0..rng.below(12)).map(|_| json!({"item": reference(rng, types)})).collect();
    object([("status", Some("current".into())), ("mode", Some("working".into())), ("code", maybe(rng, 50, concept)), ("entry", Some(entries))])
}
