//! Searches with `_filter`.

use fhirsim::fhir::FhirVersion;

use super::{Asking, Case, values};
use crate::naive::features::Feature;
use crate::naive::table::{Found, Kind, Parameter};
use crate::naive::{number, reference, string, token};

/// Types that have parameters of many kinds.
const TYPES: &[&str] = &["Patient", "Patient", "Observation", "Observation", "Encounter", "Organization", "ValueSet", "RiskAssessment"];
/// References to one type: type, parameter, type that is meant.
const PATHS: &[(&str, &str, &str)] = &[
    ("Observation", "patient", "Patient"),
    ("Observation", "encounter", "Encounter"),
    ("Encounter", "service-provider", "Organization"),
    ("Encounter", "location", "Location"),
    ("Encounter", "patient", "Patient"),
    ("Patient", "organization", "Organization"),
    ("Organization", "partof", "Organization"),
];

impl Asking<'_> {
    pub fn filter(&mut self, feature: Feature, wanted: Option<&str>) -> Option<Case> {
        let (type_name, value) = match feature {
            Feature::FilterChain => self.path(wanted)?,
            Feature::FilterChainNothing => {
                self.path(wanted).filter(|(_, path)| path.ends_with("pr true")).map(|(t, p)| (t, p.replace("pr true", "pr false")))?
            }
            _ => {
                let type_name = *TYPES.iter().find(|t| wanted == Some(**t)).or_else(|| wanted.is_none().then(|| self.rng.pick(TYPES)))?;
                (type_name, self.of_one(feature, type_name)?)
            }
        };
        Some(Case { type_name, key: "_filter".to_owned(), value })
    }

    /// What looks at one resource only.
    fn of_one(&mut self, feature: Feature, type_name: &str) -> Option<String> {
        match feature {
            Feature::FilterLogic => self.logic(type_name),
            // Whether a reference to elsewhere is one to a Patient is open.
            Feature::FilterUnequal => {
                let equal = self.comparison(type_name).filter(|c| c.contains(" eq ") && !c.starts_with("patient "))?;
                Some(equal.replacen(" eq ", " ne ", 1))
            }
            _ => self.comparison(type_name),
        }
    }

    fn logic(&mut self, type_name: &str) -> Option<String> {
        let (a, b, c) = (self.comparison(type_name)?, self.comparison(type_name)?, self.comparison(type_name)?);
        Some(match self.rng.below(9) {
            0 => format!("{a} and {b}"),
            1 => format!("{a} or {b}"),
            2 => format!("not ({a})"),
            3 => format!("{a} or {b} and {c}"),
            4 => format!("{a} and {b} or {c}"),
            5 => format!("{a} and ({b} or {c})"),
            6 => format!("not ({a} or {b}) and {c}"),
            7 => format!("{c} or not ({a} and {b})"),
            _ => format!("(({a}) or ({b})) and not ({c})"),
        })
    }

    /// `a.b eq c` and `a[d eq e].b eq c`, also twice.
    fn path(&mut self, wanted: Option<&str>) -> Option<(&'static str, String)> {
        // In STU3 `patient` leads to groups, too.
        let one_type = |name: &str| name != "patient" || self.resources.table.0 != FhirVersion::Stu3;
        let fitting: Vec<_> = PATHS.iter().filter(|(t, name, _)| one_type(name) && wanted.is_none_or(|w| w == *t)).collect();
        let (type_name, name, target) = if fitting.is_empty() { return None } else { **self.rng.pick(&fitting) };
        let condition = if self.rng.chance(40) { format!("[{}]", self.comparison(target)?) } else { String::new() };
        let rest = if self.rng.chance(20) { self.path(Some(target))?.1 } else { self.comparison(target)?.replace("pr false", "pr true") };
        Some((type_name, format!("{name}{condition}.{rest}")))
    }

    fn comparison(&mut self, type_name: &str) -> Option<String> {
        let fitting: Vec<&'static Parameter> = self.resources.table.parameters().filter(|p| p.type_name == type_name && p.kind != Kind::Near).collect();
        let parameter = *self.rng.pick(&fitting);
        if values::fits(parameter, Feature::Missing) && self.rng.chance(15) {
            return Some(format!("{} pr {}", parameter.name, self.rng.chance(60)));
        }
        let found = self.sample(parameter)?;
        let (operator, value) = match parameter.kind {
            Kind::String => self.text(&string::texts(&found))?,
            Kind::Token => self.token(&token::pairs(&found))?,
            Kind::Uri => ("eq".to_owned(), found.value.as_str()?.to_owned()),
            Kind::Reference => {
                let (type_name, id) = reference::local(&found)?;
                (self.rng.pick(&["eq", "re"]).to_string(), format!("{type_name}/{id}"))
            }
            Kind::Date => self.ordered(Feature::DateOrder, &found)?,
            Kind::Number => self.ordered(Feature::NumberOrder, &found)?,
            Kind::Quantity => self.ordered(Feature::QuantityNumber, &found)?,
            Kind::Near => return None,
        };
        Some(format!("{} {operator} {value}", parameter.name))
    }

    /// An operator instead of a prefix; sometimes one that does not ask for an order. `ne` is asked for by itself.
    fn ordered(&mut self, feature: Feature, found: &Found) -> Option<(String, String)> {
        let (_, prefixed) = values::value(self, feature, found)?;
        let (prefix, value) = number::prefixed(&prefixed);
        let operator = if prefix == "ne" || self.rng.chance(30) { "eq" } else { prefix };
        Some((operator.to_owned(), value.to_owned()))
    }

    /// Quoted as in JSON, so that nothing in it means more than itself.
    fn text(&mut self, texts: &[&str]) -> Option<(String, String)> {
        let text = if texts.is_empty() { return None } else { *self.rng.pick(texts) };
        let chars: Vec<char> = text.chars().collect();
        let at = 1 + self.rng.below(chars.len());
        let (operator, part) = match self.rng.below(5) {
            0 | 1 => ("co", &chars[self.rng.below(at)..at]),
            2 => ("sw", &chars[..at]),
            3 => ("ew", &chars[at - 1..]),
            _ => ("eq", &chars[..]),
        };
        let part: String = part.iter().collect();
        let part = if self.rng.chance(30) { part.to_uppercase() } else { part };
        Some((operator.to_owned(), serde_json::to_string(part.trim()).unwrap())).filter(|(_, part)| part != "\"\"")
    }

    /// Only codes without separators: how a token inside a filter escapes them is open.
    fn token(&mut self, pairs: &[token::Pair]) -> Option<(String, String)> {
        let (system, code) = if pairs.is_empty() { return None } else { self.rng.pick(pairs).clone() };
        let value = match system {
            Some(system) if self.rng.chance(50) => format!("{system}|{code}"),
            _ => code.clone(),
        };
        let value = if self.rng.chance(20) { format!("\"{value}\"") } else { value };
        let plain = code.chars().all(|c| c.is_alphanumeric() || c == '-');
        plain.then(|| ("eq".to_owned(), value))
    }
}
