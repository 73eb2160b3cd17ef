//! Who is cared for, by whom, and where.

use serde_json::{Map, Value, json};

use super::datatypes::{DATES, NAMES, PLACES, address, concept, contact, day, human_name, identifier, maybe, meta, object, reference, several, text};
use super::narrative::narrative;
use crate::naive::rng::Rng;

pub fn practitioner(rng: &mut Rng) -> Map<String, Value> {
    object([("name", several(rng, human_name))])
}

pub fn patient(rng: &mut Rng) -> Map<String, Value> {
    let mut made = object([
        ("meta", maybe(rng, 50, meta)),
        ("text", maybe(rng, 60, narrative)),
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

pub fn organization(rng: &mut Rng) -> Map<String, Value> {
    object([
        ("identifier", several(rng, identifier)),
        ("name", maybe(rng, 80, |r| text(r, NAMES))),
        ("alias", several(rng, |r| text(r, NAMES))),
        ("partOf", maybe(rng, 60, |r| reference(r, &["Organization"]))),
    ])
}

pub fn location(rng: &mut Rng) -> Map<String, Value> {
    let place = |r: &mut Rng| {
        let (latitude, longitude) = *r.pick(&[("46.20", "6.14"), ("46.5", "6.63"), ("-33.87", "151.21"), ("0.0", "179.95"), ("0", "-179.95"), ("89.9", "10")]);
        let number = |text| serde_json::from_str::<Value>(text).unwrap();
        json!({"longitude": number(longitude), "latitude": number(latitude)})
    };
    object([
        ("name", maybe(rng, 80, |r| text(r, NAMES))),
        ("alias", several(rng, |r| text(r, PLACES))),
        ("position", maybe(rng, 80, place)),
        ("partOf", maybe(rng, 60, |r| reference(r, &["Location"]))),
    ])
}

pub fn group(rng: &mut Rng) -> Map<String, Value> {
    let member = |r: &mut Rng| json!({"entity": reference(r, &["Patient", "Patient", "Practitioner"])});
    object([("identifier", several(rng, identifier)), ("type", Some("person".into())), ("actual", Some(true.into())), ("member", several(rng, member))])
}
