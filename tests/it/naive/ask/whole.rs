//! What is asked of a resource as a whole: its id, when it was written, and where it belongs.

use super::{Asking, Case};
use crate::naive::compartment::COMPARTMENTS;
use crate::naive::generate::{COUNTS, STRANGERS};

/// The type and id of a compartment.
pub type Compartment = (&'static str, String);

impl Asking<'_> {
    pub fn ids(&mut self, wanted: Option<&str>) -> Case {
        let (type_name, count) = self.some_type(wanted);
        let ids: Vec<String> = (0..=self.rng.below(5)).map(|_| format!("r{}", self.rng.below(count + 3))).collect();
        Case { type_name, key: "_id".to_owned(), value: ids.join(",") }
    }

    /// To the day, the hour, the minute or the second of a change.
    pub fn last_updated(&mut self, wanted: Option<&str>) -> Case {
        let (type_name, _) = self.some_type(wanted);
        let written: Vec<&str> = self.resources.of_type(type_name).filter_map(|r| r["meta"]["lastUpdated"].as_str()).collect();
        let when = *self.rng.pick(&written);
        let (to, zone) = *self.rng.pick(&[("2023-11-14T22:13:20".len(), "Z"), ("2023-11-14T22:13".len(), "Z"), ("2023-11-14T22:13".len(), ""), (10, "")]);
        let prefix = *self.rng.pick(&["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"]);
        Case { type_name, key: "_lastUpdated".to_owned(), value: format!("{prefix}{}{zone}", &when[..to]) }
    }

    pub fn list_of_resources(&mut self, wanted: Option<&str>) -> Case {
        let types = ["Patient", "Patient", "Observation", "Organization", "Encounter"];
        let any = *self.rng.pick(&types);
        let (type_name, _) = self.some_type(wanted.or(Some(any)));
        let lists = self.resources.of_type("List").count();
        Case { type_name, key: "_list".to_owned(), value: format!("r{}", self.rng.below(lists)) }
    }

    /// What a Group or a List holds.
    pub fn member(&mut self, wanted: Option<&str>) -> Option<Case> {
        let (holder, type_name) = *self.rng.pick(&[("Group", "Patient"), ("Group", "Practitioner"), ("List", "Patient"), ("List", "Encounter")]);
        let value = format!("{holder}/r{}", self.rng.below(10));
        wanted.is_none_or(|w| w == type_name).then(|| Case { type_name, key: "_in".to_owned(), value })
    }

    /// A type, and a compartment that its resources can be in.
    pub fn compartment(&mut self) -> (&'static str, Compartment) {
        let (of, type_name, _) = *self.rng.pick(COMPARTMENTS);
        let (_, count) = self.some_type(Some(of));
        let number = if self.rng.chance(10) { *self.rng.pick(&STRANGERS) } else { self.rng.below(count.min(14)) };
        (type_name, (of, format!("r{number}")))
    }

    /// A type, and how many there are of it.
    fn some_type(&mut self, wanted: Option<&str>) -> (&'static str, usize) {
        let fitting: Vec<_> = COUNTS.iter().filter(|(t, count)| *count > 0 && wanted.is_none_or(|w| w == *t)).collect();
        **self.rng.pick(&fitting)
    }
}
