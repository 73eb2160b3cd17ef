//! What content is defined by, and what points at definitions.

use serde_json::{Map, Value, json};

use super::datatypes::{DATES, NAMES, URLS, maybe, object, reference, several, text};
use crate::naive::rng::Rng;

const QUESTIONNAIRES: &[&str] = &["http://acme.org/fhir/Questionnaire/1", "http://acme.org/fhir/Questionnaire/2"];

pub fn value_set(rng: &mut Rng) -> Map<String, Value> {
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

pub fn questionnaire(rng: &mut Rng) -> Map<String, Value> {
    object([
        ("url", maybe(rng, 80, |r| text(r, QUESTIONNAIRES))),
        ("version", maybe(rng, 70, |r| text(r, &["1.0", "1.1", "2"]))),
        ("title", maybe(rng, 80, |r| text(r, NAMES))),
    ])
}

pub fn response(rng: &mut Rng) -> Map<String, Value> {
    let canonical = |r: &mut Rng| format!("{}{}", r.pick(QUESTIONNAIRES), r.pick(&["", "|1.0", "|1.1", "|2"])).into();
    object([("status", Some("completed".into())), ("questionnaire", maybe(rng, 85, canonical)), ("subject", maybe(rng, 80, |r| reference(r, &["Patient"])))])
}
