//! `_filter`, <https://hl7.org/fhir/R4/search_filter.html>: from its text to a condition.
//!
//! `and` and `or` bind alike and from left to right; `not` takes parentheses; `[...]` in a path filters what a reference
//! leads to.

use super::condition::{Condition, Reader};
use crate::fhir::definitions::ParamType;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};

/// Most parentheses and brackets in one another.
const MAX_DEPTH: usize = 32;
/// Most comparisons of one filter.
const MAX_COMPARISONS: usize = 500;

/// How a parameter compares in a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Contains.
    Co,
    /// Starts with.
    Sw,
    /// Ends with.
    Ew,
    /// Greater.
    Gt,
    /// Less.
    Lt,
    /// Greater or equal.
    Ge,
    /// Less or equal.
    Le,
    /// About.
    Ap,
    /// Starts after.
    Sa,
    /// Ends before.
    Eb,
    /// Present.
    Pr,
    /// Overlaps.
    Po,
    /// Subsumes.
    Ss,
    /// Is subsumed by.
    Sb,
    /// In a value set.
    In,
    /// Not in a value set.
    Ni,
    /// Refers to.
    Re,
}

impl Relation {
    /// All of them, as they are written.
    pub const ALL: [(&'static str, Self); 19] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("co", Self::Co),
        ("sw", Self::Sw),
        ("ew", Self::Ew),
        ("gt", Self::Gt),
        ("lt", Self::Lt),
        ("ge", Self::Ge),
        ("le", Self::Le),
        ("ap", Self::Ap),
        ("sa", Self::Sa),
        ("eb", Self::Eb),
        ("pr", Self::Pr),
        ("po", Self::Po),
        ("ss", Self::Ss),
        ("sb", Self::Sb),
        ("in", Self::In),
        ("ni", Self::Ni),
        ("re", Self::Re),
    ];

    /// As it is written.
    #[must_use]
    pub fn code(self) -> &'static str {
        Self::ALL.iter().find(|(_, r)| *r == self).map_or("", |(code, _)| code)
    }

    /// Whether parameters of `kind` can stand in it.
    #[must_use]
    pub fn applies_to(self, kind: ParamType) -> bool {
        use ParamType::{Date, Number, Quantity, Reference, String, Token, Uri};
        match self {
            Self::Pr => kind != ParamType::Composite,
            Self::Eq | Self::Ne => kind != ParamType::Special,
            Self::Co => matches!(kind, String | Token | Uri | Date),
            Self::Sw | Self::Ew => matches!(kind, String | Token | Uri),
            Self::Gt | Self::Lt | Self::Ge | Self::Le => matches!(kind, Date | Number | Quantity | String),
            Self::Ap | Self::Sa | Self::Eb => matches!(kind, Date | Number | Quantity),
            Self::Po => kind == Date,
            Self::Ss | Self::Sb | Self::In | Self::Ni => kind == Token,
            Self::Re => kind == Reference,
        }
    }
}

/// Reads a filter.
///
/// # Errors
/// What is wrong, at which character.
pub fn read(reader: &Reader<'_>, text: &str) -> Result<Condition, Failure> {
    let mut parser = Parser { text, at: 0, depth: 0, comparisons: 0 };
    let condition = parser.expression(reader)?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.bad("expected 'and', 'or' or the end"));
    }
    Ok(condition)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    comparisons: usize,
}

impl<'t> Parser<'t> {
    fn bad(&self, expected: &str) -> Failure {
        let at = self.text[..self.at].chars().count() + 1;
        Failure::new(Kind::BadValue, format!("_filter '{}': {expected} at character {at}", clip(self.text)))
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.space();
        let found = self.rest().strip_prefix(word).is_some_and(|after| after.starts_with([' ', '(', '\t']));
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn nested(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.bad(&format!("more than {MAX_DEPTH} parentheses in one another"))) } else { Ok(()) }
    }

    fn expression(&mut self, reader: &Reader<'_>) -> Result<Condition, Failure> {
        let mut left = self.one(reader)?;
        let mut changes = 0;
        loop {
            // A run of the same word is one condition, so that only changes go deeper.
            let and = self.keyword("and");
            if !and && !self.keyword("or") {
                return Ok(left);
            }
            let next = self.one(reader)?;
            match &mut left {
                Condition::All(parts) if and && changes > 0 => parts.push(next),
                Condition::Any(parts) if !and && changes > 0 => parts.push(next),
                _ => {
                    changes += 1;
                    if changes > MAX_DEPTH {
                        return Err(self.bad(&format!("more than {MAX_DEPTH} changes between 'and' and 'or'; use parentheses before what comes")));
                    }
                    left = if and { Condition::All(vec![left, next]) } else { Condition::Any(vec![left, next]) };
                }
            }
        }
    }

    fn one(&mut self, reader: &Reader<'_>) -> Result<Condition, Failure> {
        let negated = self.keyword("not");
        if self.eat("(") {
            self.nested()?;
            let inner = self.expression(reader)?;
            if !self.eat(")") {
                return Err(self.bad("expected ')'"));
            }
            self.depth -= 1;
            return Ok(if negated { Condition::Not(Box::new(inner)) } else { inner });
        }
        if negated {
            return Err(self.bad("expected '(' after 'not'"));
        }
        let mut condition = self.comparison(reader)?;
        // Nothing is there also where the path leads nowhere.
        if matches!(condition, Condition::Chain { .. }) && asks_for_nothing(&mut condition) {
            return Ok(Condition::Not(Box::new(condition)));
        }
        Ok(condition)
    }

    /// A path, a relation, a value.
    fn comparison(&mut self, reader: &Reader<'_>) -> Result<Condition, Failure> {
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            return Err(Failure::new(Kind::TooCostly, format!("_filter has more than {MAX_COMPARISONS} comparisons")));
        }
        self.space();
        let length = self.rest().find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':'))).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.bad("expected a search parameter"));
        }
        let name = &self.rest()[..length];
        let start = self.at;
        self.at += length;
        self.asked(name, start, reader)
    }

    /// What is asked of a parameter, whose name begins at `start`.
    fn asked(&mut self, name: &str, start: usize, reader: &Reader<'_>) -> Result<Condition, Failure> {
        if let Some(rest) = name.strip_prefix("_has:") {
            self.nested()?;
            let condition = reader.has(rest, &mut |there, rest| self.asked(rest, start, there).map(Ok))?;
            self.depth -= 1;
            return condition;
        }
        // R5's examples say `subject.id`.
        let name = if name == "id" && reader.with(name).is_none() { "_id" } else { name };
        let filtered = self.rest().starts_with('[');
        if filtered || self.rest().starts_with('.') {
            return self.path(name, filtered, reader);
        }
        let Some(params) = reader.with(name) else { return Err(reader.unknown(name)) };
        self.space();
        let found = Relation::ALL.into_iter().find(|(code, _)| self.rest().strip_prefix(code).is_some_and(|after| after.starts_with([' ', '\t', '"'])));
        let Some((code, relation)) = found else {
            let known: Vec<&str> = Relation::ALL.iter().map(|(code, _)| *code).collect();
            return Err(self.bad(&format!("expected one of {}", known.join(" "))));
        };
        if !params.iter().any(|p| relation.applies_to(p.kind)) {
            self.at = start;
            return Err(self.bad(&format!("'{code}' does not apply to the {} parameter '{name}'", params[0].kind.code())));
        }
        self.at += code.len();
        let value = self.value()?;
        if relation == Relation::Pr && !matches!(value.as_str(), "true" | "false") {
            return Err(self.bad("'pr' takes true or false; expected one before"));
        }
        let value = in_full(params[0].kind, value);
        Ok(Condition::Relation { code: name.to_owned(), relation, value })
    }

    /// `reference.rest`, or `reference[filter].rest`.
    fn path(&mut self, name: &str, filtered: bool, reader: &Reader<'_>) -> Result<Condition, Failure> {
        let (code, targets) = reader.targets(name)??;
        self.nested()?;
        let there = Reader { params: reader.params, types: &targets, any: true, depth: reader.depth + 1 };
        let then = self.rest_of_path(filtered, &there)?;
        self.depth -= 1;
        Ok(Condition::Chain { code, targets, then: Box::new(then) })
    }

    fn rest_of_path(&mut self, filtered: bool, there: &Reader<'_>) -> Result<Condition, Failure> {
        let mut conditions = Vec::new();
        if filtered {
            self.at += 1;
            self.nested()?;
            conditions.push(self.expression(there)?);
            self.depth -= 1;
            if !self.eat("]") {
                return Err(self.bad("expected ']'"));
            }
        }
        if !self.rest().starts_with('.') {
            return Err(self.bad("expected '.'"));
        }
        self.at += 1;
        conditions.push(self.comparison(there)?);
        Ok(Condition::All(conditions))
    }

    fn value(&mut self) -> Result<String, Failure> {
        self.space();
        if self.rest().starts_with('"') {
            let mut escaped = false;
            let end = self.rest().char_indices().skip(1).find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                ends
            });
            let Some((end, _)) = end else { return Err(self.bad("a text without its closing quotation mark begins")) };
            // A text as JSON has it.
            let Ok(text) = serde_json::from_str(&self.rest()[..=end]) else {
                return Err(self.bad("a text that is no JSON string, such as \"a \\\"b\\\" \\u00e9\", begins"));
            };
            self.at += end + 1;
            return Ok(text);
        }
        let length = self.rest().find([' ', ')', ']', '\t']).unwrap_or(self.rest().len());
        if length == 0 {
            return Err(self.bad("expected a value"));
        }
        let value = self.rest()[..length].to_owned();
        self.at += length;
        Ok(value)
    }
}

/// The code systems that have a name in a filter, <https://hl7.org/fhir/R4/search_filter.html>.
const NAMED: [(&str, &str); 4] = [
    ("loinc", "http://loinc.org"),
    ("snomed", "http://snomed.info/sct"),
    ("rxnorm", "http://www.nlm.nih.gov/research/umls/rxnorm"),
    ("ucum", "http://unitsofmeasure.org"),
];

/// A value with the system that its name stands for.
fn in_full(kind: ParamType, value: String) -> String {
    let place = match kind {
        ParamType::Token => 0,
        ParamType::Quantity => 1,
        _ => return value,
    };
    let mut parts: Vec<&str> = value.split('|').collect();
    let system = parts.get(place).filter(|_| parts.len() > place + 1).and_then(|part| NAMED.iter().find(|(name, _)| name == part));
    match system {
        Some((_, system)) => {
            parts[place] = system;
            parts.join("|")
        }
        None => value,
    }
}

/// Whether the path asks that nothing be at its end, `pr false`; then it asks for something from now on.
fn asks_for_nothing(condition: &mut Condition) -> bool {
    match condition {
        Condition::Chain { then, .. } => asks_for_nothing(then),
        Condition::All(parts) => parts.last_mut().is_some_and(asks_for_nothing),
        Condition::Relation { relation: Relation::Pr, value, .. } if value == "false" => {
            "true".clone_into(value);
            true
        }
        _ => false,
    }
}
