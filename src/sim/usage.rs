//! What a simulator was used for since this server runs: which interactions, types and parameters, how it was answered and how
//! fast. In memory; it belongs to the name, as the feed does, and begins anew when the simulator is reset.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use parking_lot::Mutex;

/// Minutes that are kept.
pub const MINUTES: usize = 60;
/// Names of parameters that are kept: clients choose them.
const MAX_PARAMETERS: usize = 5_000;
/// The longest of them.
const MAX_NAME: usize = 64;
/// Classes of durations: the `n`th is up to 2^n microseconds.
pub const DURATIONS: usize = 26;

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The type that it was about; empty if of none.
    pub type_name: &'static str,
    /// The interaction, as events have it.
    pub interaction: &'static str,
    /// The parameters of a search.
    pub parameters: &'a [(String, String)],
    /// The HTTP status; 0 where nothing was answered.
    pub status: u16,
    /// How long it took.
    pub took_us: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// How often something was done, and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How often.
    pub done: u64,
    /// How often it was refused.
    pub refused: u64,
}

/// What was answered in a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    pub minute: i64,
    /// Answers by the first digit of their status; the first is of those that nothing was answered to.
    pub classes: [u64; 6],
    /// The durations in all.
    pub total_us: u64,
    /// The longest.
    pub slowest_us: u64,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    /// By type and interaction.
    pub interactions: BTreeMap<(&'static str, &'static str), Counted>,
    /// By type and parameter, without modifiers and chains.
    pub parameters: BTreeMap<(&'static str, Box<str>), u64>,
    /// Oldest first; minutes in which nothing happened are missing.
    pub minutes: VecDeque<Minute>,
    /// How many took how long.
    pub durations: [u64; DURATIONS],
}

/// The use of a simulator, while it goes on.
#[derive(Clone, Debug, Default)]
pub struct Usage(Arc<Mutex<Sight>>);

impl Usage {
    /// Takes note of a request.
    pub fn saw(&self, seen: &Seen<'_>) {
        let mut sight = self.0.lock();
        let counted = sight.interactions.entry((seen.type_name, seen.interaction)).or_default();
        let is_good = (100..400).contains(&seen.status);
        *if is_good { &mut counted.done } else { &mut counted.refused } += 1;
        if is_good {
            for (name, _) in seen.parameters {
                sight.parameter(seen.type_name, name);
            }
        }
        sight.time(seen);
    }

    /// Takes note of what a Bundle has done: an interaction with a resource of a type.
    pub fn did(&self, type_name: &'static str, interaction: &'static str) {
        self.0.lock().interactions.entry((type_name, interaction)).or_default().done += 1;
    }

    /// All that was seen.
    #[must_use]
    pub fn sight(&self) -> Sight {
        self.0.lock().clone()
    }

    /// Begins anew.
    pub(super) fn clear(&self) {
        *self.0.lock() = Sight::default();
    }
}

impl Sight {
    fn parameter(&mut self, type_name: &'static str, name: &str) {
        let code = name.split([':', '.']).next().unwrap_or_default();
        if code.is_empty() || code.len() > MAX_NAME {
            return;
        }
        let is_full = self.parameters.len() >= MAX_PARAMETERS;
        match self.parameters.entry((type_name, code.into())) {
            Entry::Occupied(mut count) => *count.get_mut() += 1,
            Entry::Vacant(place) if !is_full => drop(place.insert(1)),
            Entry::Vacant(_) => {}
        }
    }

    fn time(&mut self, seen: &Seen<'_>) {
        let minute = seen.at_ms.div_euclid(60_000);
        // A clock that goes back is still in the last minute.
        if self.minutes.back().is_none_or(|last| last.minute < minute) {
            self.minutes.push_back(Minute { minute, ..Minute::default() });
            if self.minutes.len() > MINUTES {
                self.minutes.pop_front();
            }
        }
        if let Some(last) = self.minutes.back_mut() {
            last.classes[usize::from(seen.status / 100).min(5)] += 1;
            last.total_us = last.total_us.saturating_add(seen.took_us);
            last.slowest_us = last.slowest_us.max(seen.took_us);
        }
        let class = usize::try_from(u64::BITS - seen.took_us.saturating_sub(1).leading_zeros()).unwrap_or(usize::MAX);
        self.durations[class.min(DURATIONS - 1)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: u16, took_us: u64, at_ms: i64) -> Seen<'static> {
        Seen { type_name: "Patient", interaction: "read", parameters: &[], status, took_us, at_ms }
    }

    #[test]
    fn requests_are_counted_by_minute_class_and_duration() {
        let usage = Usage::default();
        for (status, took_us, at_ms) in [(200, 1, 0), (404, 2, 59_999), (0, 3, 60_000), (500, 1 << 40, 30_000), (201, 1_024, 61_000), (200, 1_025, 61_000)] {
            usage.saw(&seen(status, took_us, at_ms));
        }
        let sight = usage.sight();
        assert_eq!(sight.interactions[&("Patient", "read")], Counted { done: 3, refused: 3 });
        assert_eq!(sight.minutes.iter().map(|m| m.classes).collect::<Vec<_>>(), [[0, 0, 1, 0, 1, 0], [1, 0, 2, 0, 0, 1]]);
        let at = |n: usize| sight.durations[n];
        assert_eq!((at(0), at(1), at(2), at(10), at(11), at(DURATIONS - 1)), (1, 1, 1, 1, 1, 1));
        for minute in 0..100 {
            usage.saw(&seen(200, 1, minute * 60_000));
        }
        assert_eq!(usage.sight().minutes.len(), MINUTES);
    }

    #[test]
    fn names_that_clients_choose_are_bounded() {
        let usage = Usage::default();
        let parameters: Vec<(String, String)> = (0..10_000).map(|n| (format!("p{n}:exact"), String::new())).collect();
        usage.saw(&Seen { parameters: &parameters, ..seen(200, 1, 0) });
        usage.saw(&Seen { parameters: &[("x".repeat(1_000), String::new()), ("p1.name".to_owned(), String::new())], ..seen(200, 1, 0) });
        let sight = usage.sight();
        assert_eq!((sight.parameters.len(), sight.parameters[&("Patient", "p1".into())]), (MAX_PARAMETERS, 2));
    }
}
