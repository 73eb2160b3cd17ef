//! `_filter`: conditions with `and`, `or`, `not`, parentheses and paths.
//!
//! <https://hl7.org/fhir/R4/search_filter.html>

use serde_json::Value;

use super::table::{Found, Kind};
use super::{Resources, one, reference, string, token};

pub fn matches(resources: &Resources, resource: &Value, text: &str) -> bool {
    let mut parse = Parse { rest: text };
    let filter = parse.filter();
    assert!(parse.rest.trim().is_empty(), "{text}: {}", parse.rest);
    filter.holds(resources, resource)
}

enum Filter {
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Compare { path: Vec<Step>, operator: String, value: String },
}

/// A parameter; of a reference, perhaps with what has to hold of the resource it leads to.
struct Step {
    name: String,
    condition: Option<Filter>,
}

impl Filter {
    fn holds(&self, resources: &Resources, resource: &Value) -> bool {
        match self {
            Self::And(a, b) => a.holds(resources, resource) && b.holds(resources, resource),
            Self::Or(a, b) => a.holds(resources, resource) || b.holds(resources, resource),
            Self::Not(inner) => !inner.holds(resources, resource),
            // Whether there is anything at the end of the path.
            Self::Compare { path, operator, value } if operator == "pr" => reaches(resources, resource, path, &|_, _| true) == (value == "true"),
            Self::Compare { path, operator, value } => reaches(resources, resource, path, &|found, kind| compare(found, kind, operator, value)),
        }
    }
}

/// Whether a value at the end of the path is as wanted.
fn reaches(resources: &Resources, resource: &Value, path: &[Step], wanted: &dyn Fn(&Found, Kind) -> bool) -> bool {
    let (step, rest) = path.split_first().unwrap();
    let Some(next) = rest.first() else {
        let kind = resources.table.parameter(super::type_of(resource), &step.name).unwrap().kind;
        return resources.table.found(resource, &step.name).iter().any(|found| wanted(found, kind));
    };
    let meets = |target: &&Value| resources.can_have(target, &next.name) && step.condition.as_ref().is_none_or(|c| c.holds(resources, target));
    resources.targets(resource, &step.name).into_iter().filter(meets).any(|target| reaches(resources, target, rest, wanted))
}

/// Compares one value of the set; `ne` asks for one that is unequal, so both `eq` and `ne` may hold of a set.
fn compare(found: &Found, kind: Kind, operator: &str, value: &str) -> bool {
    let equal = match (kind, operator) {
        (Kind::Date | Kind::Number | Kind::Quantity, _) => return one(found, kind, None, &format!("{operator}{value}")),
        (Kind::String, _) => return string::texts(found).iter().any(|text| compare_text(&string::plain(text), operator, &string::plain(value))),
        (Kind::Token, _) => return token::pairs(found).iter().any(|pair| token::is(pair, value) == (operator != "ne")),
        (Kind::Reference, _) => reference::matches(found, None, value),
        (Kind::Uri, _) => found.value == value,
        (Kind::Near, _) => panic!("the model lacks {operator} of {kind:?}"),
    };
    equal == (operator != "ne")
}

fn compare_text(there: &str, operator: &str, wanted: &str) -> bool {
    match operator {
        "eq" => there == wanted,
        "ne" => there != wanted,
        "co" => there.contains(wanted),
        "sw" => there.starts_with(wanted),
        "ew" => there.ends_with(wanted),
        other => panic!("the model lacks {other} of a string"),
    }
}

struct Parse<'t> {
    rest: &'t str,
}

impl Parse<'_> {
    /// From left to right: neither `and` nor `or` binds more.
    fn filter(&mut self) -> Filter {
        let mut left = self.part();
        loop {
            if self.takes("and ") {
                left = Filter::And(Box::new(left), Box::new(self.part()));
            } else if self.takes("or ") {
                left = Filter::Or(Box::new(left), Box::new(self.part()));
            } else {
                return left;
            }
        }
    }

    fn part(&mut self) -> Filter {
        if self.takes("not ") || self.rest.trim_start().starts_with("not(") && self.takes("not") {
            return Filter::Not(Box::new(self.part()));
        }
        if self.takes("(") {
            let inner = self.filter();
            assert!(self.takes(")"), "{}", self.rest);
            return inner;
        }
        let path = self.path();
        let operator = self.until(|c| c == ' ');
        Filter::Compare { path, operator, value: self.value() }
    }

    fn path(&mut self) -> Vec<Step> {
        let mut path = Vec::new();
        loop {
            let name = self.until(|c| " .[".contains(c));
            let condition = self.takes("[").then(|| self.filter());
            assert!(condition.is_none() || self.takes("]"), "{}", self.rest);
            path.push(Step { name, condition });
            if !self.takes(".") {
                return path;
            }
        }
    }

    fn value(&mut self) -> String {
        if !self.takes("\"") {
            return self.until(|c| " )]".contains(c));
        }
        let mut escaped = false;
        let ends = |c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        };
        let end = self.rest.find(ends).unwrap();
        let text = serde_json::from_str(&format!("\"{}\"", &self.rest[..end])).unwrap();
        self.rest = &self.rest[end + 1..];
        text
    }

    fn until(&mut self, ends: impl Fn(char) -> bool) -> String {
        let text = self.rest.trim_start();
        let (taken, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        self.rest = rest;
        taken.to_owned()
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}
