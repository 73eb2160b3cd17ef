//! Searches of `_text` and `_content`.

use super::{Asking, Case};
use crate::naive::features::Feature;

/// What stands in narratives: words, phrases (some of which nobody says so), beginnings.
const NARRATIVE: &[&str] =
    &["broken", "ARM", "elbow", "Élbow", "pain", "asthma", "smoker", "nothing", "pa", "\"broken arm\"", "\"the arm\"", "\"arm broken\"", "pain*", "sm*"];
/// Whose character is written by its number.
const BY_NUMBER: &[&str] = &["cafe", "CAFÉ", "caf*", "\"a cafe\"", "\"cafe smoker\"", "\"cafe asthma\""];
/// What stands in other strings, too.
const ANYWHERE: &[&str] = &[
    "Muller",
    "müller",
    "elan",
    "\"Élan vital\"",
    "\"vital elan\"",
    "anna",
    "ann*",
    "geneve",
    "gen*",
    "\"main street\"",
    "heart",
    "hea*",
    "pain",
    "\"heart rate\"",
    "female",
    "final",
    "seealso",
    "phone",
    "snomed",
    "practitioner",
    "acme",
    "r1*",
    "\"MAIN street 1\"",
    "2020*",
    "\"8867 4\"",
];

impl Asking<'_> {
    /// Narratives are what Patients have.
    pub fn words(&mut self, feature: Feature, wanted: Option<&str>) -> Option<Case> {
        let (key, pool, types): (_, _, &[&'static str]) = match feature {
            Feature::Text => ("_text", NARRATIVE, &["Patient"]),
            Feature::TextByNumber => ("_text", BY_NUMBER, &["Patient"]),
            _ => ("_content", ANYWHERE, &["Patient", "Patient", "Observation", "Organization", "Location"]),
        };
        let type_name = *types.iter().find(|t| wanted == Some(**t)).or_else(|| wanted.is_none().then(|| self.rng.pick(types)))?;
        Some(Case { type_name, key: key.to_owned(), value: self.combined(pool) })
    }

    fn combined(&mut self, pool: &[&str]) -> String {
        let [a, b, c] = [(); 3].map(|()| *self.rng.pick(pool));
        match self.rng.below(9) {
            0 => format!("{a} AND {b}"),
            1 => format!("{a} OR {b}"),
            2 => format!("NOT {a}"),
            3 => format!("{a} AND NOT {b}"),
            4 => format!("({a} OR {b}) AND {c}"),
            5 => format!("{a} OR ({b} AND NOT {c})"),
            _ => a.to_owned(),
        }
    }
}
