//! Searches, made from the values that are there, so that they hit and miss about as often.

use serde_json::Value;

use super::Resources;
use super::features::Feature;
use super::rng::Rng;
use super::table::{Found, Kind, Parameter, at};

mod filter;
mod include;
mod values;
mod whole;
mod words;

/// One parameter of a search on a type.
#[derive(Clone, Debug)]
pub struct Case {
    pub type_name: &'static str,
    pub key: String,
    pub value: String,
}

/// References to follow: type, parameter, type that is meant.
const CHAINS: &[(&str, &str, &str)] = &[
    ("Observation", "subject:Patient", "Patient"),
    ("Observation", "subject:Group", "Group"),
    ("Observation", "patient", "Patient"),
    ("Observation", "performer:Practitioner", "Practitioner"),
    ("Observation", "performer:Organization", "Organization"),
    ("Observation", "encounter:Encounter", "Encounter"),
    ("Encounter", "subject:Patient", "Patient"),
    ("Encounter", "service-provider", "Organization"),
    ("RiskAssessment", "subject:Patient", "Patient"),
    ("QuestionnaireResponse", "subject:Patient", "Patient"),
    ("Patient", "general-practitioner:Practitioner", "Practitioner"),
    ("Patient", "organization", "Organization"),
    ("Patient", "link:Patient", "Patient"),
    ("Organization", "partof", "Organization"),
    ("Encounter", "location", "Location"),
    ("Location", "partof", "Location"),
    ("Group", "member:Patient", "Patient"),
    ("List", "item:Patient", "Patient"),
    ("QuestionnaireResponse", "questionnaire", "Questionnaire"),
];

/// What may stand at the end of a chain, as far as it is switched on.
const INNER: &[Feature] = &[
    Feature::TokenText,
    Feature::TokenOfType,
    Feature::QuantityNumber,
    Feature::QuantityUcum,
    Feature::ReferenceType,
    Feature::ReferenceIdentifier,
    Feature::Composite,
    Feature::Or,
    Feature::Escape,
    Feature::StringBegin,
    Feature::StringExact,
    Feature::StringContains,
    Feature::Token,
    Feature::TokenNot,
    Feature::DateEquality,
    Feature::DateOrder,
    Feature::NumberEquality,
    Feature::NumberOrder,
    Feature::Uri,
    Feature::Reference,
    Feature::Missing,
];

/// Reverse references: type, type that refers to it, by which parameter.
const REVERSE: &[(&str, &str, &str)] = &[
    ("Patient", "Observation", "patient"),
    ("Patient", "Observation", "subject"),
    ("Patient", "Encounter", "subject"),
    ("Patient", "Group", "member"),
    ("Patient", "Patient", "link"),
    ("Patient", "RiskAssessment", "subject"),
    ("Group", "Observation", "subject"),
    ("Encounter", "Observation", "encounter"),
    ("Organization", "Patient", "organization"),
    ("Organization", "Encounter", "service-provider"),
    ("Organization", "Organization", "partof"),
    ("Practitioner", "Patient", "general-practitioner"),
    ("Practitioner", "Observation", "performer"),
    ("Location", "Encounter", "location"),
    ("Patient", "List", "item"),
];

/// The one that refers by URL.
const REVERSE_CANONICAL: (&str, &str, &str) = ("Questionnaire", "QuestionnaireResponse", "questionnaire");

/// Makes cases.
pub struct Asking<'a> {
    pub rng: Rng,
    pub resources: &'a Resources,
    pub on: &'a [Feature],
}

impl<'a> Asking<'a> {
    /// A case of the feature; of this type, if one is given. None where the dice fell badly.
    pub fn case(&mut self, feature: Feature, wanted: Option<&str>) -> Option<Case> {
        use Feature as F;
        match feature {
            F::Or => self.list(wanted),
            F::Escape => self.one_of(&[F::StringBegin, F::StringExact, F::Token], wanted).filter(|c| c.value.contains('\\')),
            F::Composite | F::CompositeOfCode | F::CompositeOfReference => self.composite(feature, wanted),
            F::Chain => self.chain(wanted, &self.inner()),
            F::ChainAnyType => self.chain_of_any_type(wanted),
            F::ChainTwo => self.chain(wanted, &[F::Chain]),
            F::Has => self.has(wanted, REVERSE, &self.inner()),
            F::HasNested => self.has(wanted, REVERSE, &[F::Has]),
            F::HasCanonical => self.has(wanted, &[REVERSE_CANONICAL], &[F::Reference, F::Missing]),
            F::ChainCanonical => self.chain_of_canonical(wanted),
            F::ChainHas => self.chain(wanted, &[F::Has]),
            F::Id => Some(self.ids(wanted)),
            F::LastUpdated => Some(self.last_updated(wanted)),
            F::List => Some(self.list_of_resources(wanted)),
            F::In => self.member(wanted),
            F::Text | F::TextByNumber | F::Content => self.words(feature, wanted),
            F::Filter | F::FilterUnequal | F::FilterLogic | F::FilterChain | F::FilterChainNothing => self.filter(feature, wanted),
            // These say nothing of a single resource.
            F::Compartment | F::Include | F::IncludeIterate | F::RevInclude | F::RevIncludeCanonical => None,
            _ => self.plain(feature, wanted),
        }
    }

    fn inner(&self) -> Vec<Feature> {
        INNER.iter().copied().filter(|feature| self.on.contains(feature)).collect()
    }

    /// A case of one of these features.
    fn one_of(&mut self, features: &[Feature], wanted: Option<&str>) -> Option<Case> {
        let feature = *self.rng.pick(features);
        self.case(feature, wanted)
    }

    /// A parameter of the resource itself.
    fn plain(&mut self, feature: Feature, wanted: Option<&str>) -> Option<Case> {
        let fitting: Vec<&'static Parameter> = self.resources.table.parameters().filter(|p| p.type_name != "Resource" && values::fits(p, feature)).collect();
        let of_type: Vec<&'static Parameter> = fitting.iter().copied().filter(|p| wanted.is_none_or(|t| t == p.type_name)).collect();
        if of_type.is_empty() {
            return None;
        }
        let parameter = *self.rng.pick(&of_type);
        let (type_name, name) = (parameter.type_name, parameter.name);
        if matches!(feature, Feature::Missing | Feature::MissingCode | Feature::MissingQuantity) {
            return Some(Case { type_name, key: format!("{name}:missing"), value: self.rng.pick(&["true", "false"]).to_string() });
        }
        // Now and then a value of another parameter, which mostly misses; but a type must be one that is allowed there.
        let typed = matches!(feature, Feature::ReferenceType | Feature::ReferenceAbove | Feature::ReferenceBelow);
        let source = if !typed && self.rng.chance(12) { *self.rng.pick(&fitting) } else { parameter };
        let sample = self.sample(source)?;
        let (modifier, value) = values::value(self, feature, &sample)?;
        Some(Case { type_name, key: format!("{name}{modifier}"), value })
    }

    /// A value that some resource has.
    fn sample(&mut self, parameter: &Parameter) -> Option<Found<'a>> {
        let all: Vec<Found> = self.resources.of_type(parameter.type_name).flat_map(|r| self.resources.table.found(r, parameter.name)).collect();
        if all.is_empty() { None } else { Some(*self.rng.pick(&all)) }
    }

    /// Two or three values of one parameter.
    fn list(&mut self, wanted: Option<&str>) -> Option<Case> {
        use Feature as F;
        let features = [F::StringBegin, F::StringExact, F::Token, F::TokenNot, F::DateEquality, F::DateOrder, F::NumberEquality, F::Uri, F::Reference];
        let feature = *self.rng.pick(&features);
        let mut first = self.plain(feature, wanted)?;
        let others: Vec<Case> = (0..60).filter_map(|_| self.plain(feature, Some(first.type_name))).filter(|c| c.key == first.key).collect();
        for other in others.iter().take(1 + self.rng.below(2)) {
            first.value = format!("{},{}", first.value, other.value);
        }
        (!others.is_empty()).then_some(first)
    }

    /// Both parts from one place, mostly.
    fn composite(&mut self, feature: Feature, wanted: Option<&str>) -> Option<Case> {
        let kind = |name: &str| match name {
            "location-period" => Feature::CompositeOfReference,
            name if name.starts_with("code-") => Feature::CompositeOfCode,
            _ => Feature::Composite,
        };
        let composites = self.resources.table.composites().filter(|c| kind(c.name) == feature);
        let fitting: Vec<_> = composites.filter(|c| wanted.is_none_or(|t| t == c.type_name)).collect();
        if fitting.is_empty() {
            return None;
        }
        let composite = *self.rng.pick(&fitting);
        let resources = self.resources;
        let places: Vec<&Value> = resources.of_type(composite.type_name).flat_map(|r| composite.contexts.iter().flat_map(|context| at(r, context))).collect();
        let mut place = *self.rng.pick(&places);
        let mut parts = Vec::new();
        for (kind, path, shape) in composite.parts {
            let value = *at(place, path).first()?;
            let feature = *self.rng.pick(match kind {
                Kind::Token => &[Feature::Token],
                Kind::Reference => &[Feature::Reference],
                Kind::Date => &[Feature::DateEquality, Feature::DateOrder],
                _ => &[Feature::QuantityNumber, Feature::QuantityUcum],
            });
            parts.push(values::value(self, feature, &Found { value, shape })?.1);
            if self.rng.chance(20) {
                place = *self.rng.pick(&places);
            }
        }
        Some(Case { type_name: composite.type_name, key: composite.name.to_owned(), value: parts.join("$") })
    }

    fn chain(&mut self, wanted: Option<&str>, inner: &[Feature]) -> Option<Case> {
        let fitting: Vec<_> = CHAINS.iter().filter(|(t, ..)| wanted.is_none_or(|w| w == *t)).collect();
        if fitting.is_empty() {
            return None;
        }
        let (type_name, head, target) = **self.rng.pick(&fitting);
        let rest = self.one_of(inner, Some(target))?;
        Some(Case { type_name, key: format!("{head}.{}", rest.key), value: rest.value })
    }

    /// To every version of what the URL names.
    fn chain_of_canonical(&mut self, wanted: Option<&str>) -> Option<Case> {
        let type_name = wanted.is_none_or(|t| t == "QuestionnaireResponse").then_some("QuestionnaireResponse")?;
        let rest = self.one_of(&[Feature::StringBegin, Feature::Token, Feature::Uri, Feature::Missing], Some("Questionnaire"))?;
        Some(Case { type_name, key: format!("questionnaire.{}", rest.key), value: rest.value })
    }

    /// `identifier` is what both Patient and Group have.
    fn chain_of_any_type(&mut self, wanted: Option<&str>) -> Option<Case> {
        let target = *self.rng.pick(&["Patient", "Group"]);
        let (modifier, value) = loop {
            let feature = *self.rng.pick(&[Feature::Token, Feature::Missing]);
            if let Some(case) = self.plain(feature, Some(target)).filter(|c| c.key.starts_with("identifier")) {
                break (case.key["identifier".len()..].to_owned(), case.value);
            }
        };
        let type_name = *self.rng.pick(&["Observation", "Encounter"]);
        wanted.is_none_or(|w| w == type_name).then(|| Case { type_name, key: format!("subject.identifier{modifier}"), value })
    }

    fn has(&mut self, wanted: Option<&str>, reverse: &[(&'static str, &str, &str)], inner: &[Feature]) -> Option<Case> {
        let fitting: Vec<_> = reverse.iter().filter(|(t, ..)| wanted.is_none_or(|w| w == *t)).collect();
        if fitting.is_empty() {
            return None;
        }
        let (type_name, source, name) = **self.rng.pick(&fitting);
        let rest = self.one_of(inner, Some(source))?;
        Some(Case { type_name, key: format!("_has:{source}:{name}:{}", rest.key), value: rest.value })
    }
}
