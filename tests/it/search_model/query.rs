//! A search, and how one comes about.

use crate::naive::ask::{Asking, Case};
use crate::naive::features::Feature;
use crate::naive::{split, words};

/// A search and what it tries.
#[derive(Clone, Debug)]
pub struct Query {
    pub feature: Feature,
    pub type_name: &'static str,
    pub compartment: Option<(&'static str, String)>,
    pub cases: Vec<(Feature, Case)>,
    pub includes: Vec<(String, String)>,
    pub sort: Option<&'static str>,
}

impl Query {
    fn of(feature: Feature, type_name: &'static str) -> Self {
        Self { feature, type_name, compartment: None, cases: Vec::new(), includes: Vec::new(), sort: None }
    }

    /// What a match has to meet.
    pub fn parameters(&self) -> Vec<(String, String)> {
        self.cases.iter().map(|(_, case)| (case.key.clone(), case.value.clone())).collect()
    }

    /// The same with one parameter only, or with one of its values; or with one thing that comes along.
    pub fn parts(&self) -> Vec<Self> {
        let one = |case: Case, feature: Feature| Self { cases: vec![(feature, case)], sort: self.sort_of_words(), ..Self::of(feature, self.type_name) };
        let values = self.cases.iter().flat_map(|(feature, case)| {
            let each = pieces(case).into_iter().map(|value| Case { value, ..case.clone() });
            each.map(|case| one(case, *feature)).collect::<Vec<_>>()
        });
        let cases = self.cases.iter().map(|(feature, case)| one(case.clone(), *feature));
        let compartment = self.compartment.iter().map(|_| Self { cases: Vec::new(), includes: Vec::new(), sort: None, ..self.clone() });
        let includes = self.includes.iter().map(|include| Self { includes: vec![include.clone()], ..self.clone() });
        values.chain(cases).chain(compartment).chain(includes).collect()
    }

    pub fn text(&self) -> String {
        let parameters: Vec<String> = self.parameters().iter().chain(&self.includes).map(|(key, value)| format!("{key}={value}")).collect();
        let compartment = self.compartment.as_ref().map(|(type_name, id)| format!("{type_name}/{id}/")).unwrap_or_default();
        format!("{compartment}{}?{}{}", self.type_name, parameters.join("&"), self.sort.map(|s| format!("&_sort={s}")).unwrap_or_default())
    }

    /// The best match of words comes first, and which that is is the server's choice.
    fn sort_of_words(&self) -> Option<&'static str> {
        self.cases.iter().any(|(_, case)| ["_text", "_content"].contains(&case.key.as_str())).then_some("_id")
    }
}

/// What a value is made of.
fn pieces(case: &Case) -> Vec<String> {
    match case.key.as_str() {
        "_text" | "_content" => words::tokens(&case.value).into_iter().filter(|token| !["AND", "OR", "NOT", "(", ")"].contains(&token.as_str())).collect(),
        "_filter" => {
            let parts = case.value.split(" and ").flat_map(|part| part.split(" or "));
            parts.map(|part| part.trim_start_matches("not").trim_matches([' ', '(', ')']).to_owned()).filter(|part| part.contains(' ')).collect()
        }
        _ => split(&case.value, ','),
    }
}

/// A search that tries the feature, and perhaps others besides.
pub fn query(asking: &mut Asking, feature: Feature) -> Query {
    let mut made = begin(asking, feature);
    let more = *asking.rng.pick(&[0, 0, 0, 0, 0, 1, 1, 2]);
    for _ in 0..more {
        let other = *asking.rng.pick(asking.on);
        made.cases.extend(asking.case(other, Some(made.type_name)).map(|case| (other, case)));
    }
    if asking.rng.chance(10) {
        let sorts: &[&str] = &["_id", "-_id", "_lastUpdated", "-_lastUpdated", "gender,_id", "birthdate,-_id"];
        let known = if made.type_name == "Patient" { sorts } else { &sorts[..4] };
        made.sort = Some(*asking.rng.pick(known));
    }
    made.sort = made.sort.or_else(|| made.sort_of_words());
    made
}

/// What the feature needs, and no more.
fn begin(asking: &mut Asking, feature: Feature) -> Query {
    use Feature as F;
    match feature {
        F::Compartment => {
            let (type_name, compartment) = asking.compartment();
            Query { compartment: Some(compartment), ..Query::of(feature, type_name) }
        }
        F::Include | F::IncludeIterate | F::RevInclude | F::RevIncludeCanonical => {
            let (type_name, includes) = asking.includes(feature);
            // What all resources of a type bring tells less than what a few do.
            let few = asking.ids(Some(type_name));
            Query { includes, cases: vec![(F::Id, few)], ..Query::of(feature, type_name) }
        }
        _ => {
            let first = std::iter::repeat_with(|| asking.case(feature, None)).take(1000).flatten().next();
            let first = first.unwrap_or_else(|| panic!("no case of {feature:?} comes about"));
            Query { cases: vec![(feature, first.clone())], ..Query::of(feature, first.type_name) }
        }
    }
}
