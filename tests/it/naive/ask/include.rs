//! Searches with `_include` and `_revinclude`.

use fhirsim::fhir::FhirVersion;

use super::{Asking, CHAINS, REVERSE, REVERSE_CANONICAL};
use crate::naive::features::Feature;

/// A parameter of the search.
type Pair = (String, String);

impl Asking<'_> {
    /// A type, and what is to come along with its resources.
    pub fn includes(&mut self, feature: Feature) -> (&'static str, Vec<Pair>) {
        if feature == Feature::RevIncludeCanonical {
            let (type_name, source, name) = REVERSE_CANONICAL;
            return (type_name, vec![("_revinclude".to_owned(), format!("{source}:{name}"))]);
        }
        let again = if self.resources.table.0 == FhirVersion::Stu3 { ":recurse" } else { ":iterate" };
        let (type_name, mut pairs, mut reached) = if feature == Feature::RevInclude { self.backward("", None) } else { self.forward("", None) };
        if feature == Feature::IncludeIterate {
            if self.rng.chance(30) {
                pairs[0].0.push_str(again);
            }
            for _ in 0..=self.rng.below(2) {
                let (_, more, next) = if self.rng.chance(70) { self.forward(again, Some(reached)) } else { self.backward(again, Some(reached)) };
                pairs.extend(more);
                reached = next;
            }
        } else if self.rng.chance(40) {
            let (_, more, _) = if self.rng.chance(50) { self.forward("", Some(type_name)) } else { self.backward("", Some(type_name)) };
            pairs.extend(more);
        }
        (type_name, pairs)
    }

    /// From a type, to what it refers to; nothing more where nothing is referred to.
    fn forward(&mut self, modifier: &str, from: Option<&str>) -> (&'static str, Vec<Pair>, &'static str) {
        let fitting: Vec<_> = CHAINS.iter().filter(|(t, ..)| from.is_none_or(|f| f == *t)).collect();
        let Some((type_name, head, target)) = (!fitting.is_empty()).then(|| **self.rng.pick(&fitting)) else {
            return ("Patient", Vec::new(), "Patient");
        };
        let name = head.split(':').next().unwrap();
        let value = match self.rng.below(8) {
            0 => format!("{type_name}:*"),
            1 => "*".to_owned(),
            2 | 3 => format!("{type_name}:{name}:{target}"),
            _ => format!("{type_name}:{name}"),
        };
        (type_name, vec![(format!("_include{modifier}"), value)], target)
    }

    /// From a type, to what refers to it.
    fn backward(&mut self, modifier: &str, from: Option<&str>) -> (&'static str, Vec<Pair>, &'static str) {
        let fitting: Vec<_> = REVERSE.iter().filter(|(t, ..)| from.is_none_or(|f| f == *t)).collect();
        let Some((type_name, source, name)) = (!fitting.is_empty()).then(|| **self.rng.pick(&fitting)) else {
            return ("Patient", Vec::new(), "Patient");
        };
        let target = if self.rng.chance(25) { format!(":{type_name}") } else { String::new() };
        (type_name, vec![(format!("_revinclude{modifier}"), format!("{source}:{name}{target}"))], source)
    }
}
