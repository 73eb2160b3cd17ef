//! What numbers and quantities share: amounts, indexed as text that sorts as they do, and their comparison with a search
//! value, <https://hl7.org/fhir/R4/search.html#prefix>.
//!
//! A key is the class, the unit, a blank line and the number; so that one range of terms decides unit and number at once.

use bigdecimal::BigDecimal;

use super::super::params::Param;
use super::Prefix;
use crate::fhir::decimal::sort_key;
use crate::query::{Check, KeysBuilder, Query};

/// Beyond every number's key.
const BEYOND: &str = "~~";
/// Between unit and number.
const BREAK: &str = "\u{1e}";

/// A number, or the bounds of an interval of them; an absent bound is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Exactly this.
    Exact(BigDecimal),
    /// From, to.
    Between(Option<BigDecimal>, Option<BigDecimal>),
}

impl Amount {
    /// The same in another unit: times `factor` and plus `offset`.
    #[must_use]
    pub fn converted(&self, convert: &dyn Fn(&BigDecimal) -> BigDecimal) -> Self {
        match self {
            Self::Exact(n) => Self::Exact(convert(n)),
            Self::Between(low, high) => Self::Between(low.as_ref().map(convert), high.as_ref().map(convert)),
        }
    }
}

/// Adds the keys of an amount in a unit.
pub fn index(param: &Param, unit: &str, amount: &Amount, keys: &mut KeysBuilder) {
    match amount {
        Amount::Exact(n) => keys.term(&[&param.name, "\u{1f}e", unit, BREAK, &sort_key(n)]),
        Amount::Between(low, high) => {
            keys.term(&[&param.name, "\u{1f}a", unit, BREAK, &low.as_ref().map_or(String::new(), sort_key)]);
            keys.term(&[&param.name, "\u{1f}b", unit, BREAK, &high.as_ref().map_or("~".to_owned(), sort_key)]);
        }
    }
}

/// A search value: a number with its implicit precision.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// How it compares.
    pub prefix: Prefix,
    /// The number.
    pub number: BigDecimal,
    /// First number that its precision includes.
    pub low: BigDecimal,
    /// First number beyond.
    pub high: BigDecimal,
}

impl Wanted {
    /// The same in another unit.
    #[must_use]
    pub fn converted(&self, convert: &dyn Fn(&BigDecimal) -> BigDecimal) -> Self {
        Self { prefix: self.prefix, number: convert(&self.number), low: convert(&self.low), high: convert(&self.high) }
    }

    /// The interval that `ap` accepts: a tenth to both sides, and at least what the precision includes.
    fn about(&self) -> (BigDecimal, BigDecimal) {
        let tenth = self.number.abs() / BigDecimal::from(10);
        (self.low.clone().min(&self.number - &tenth), self.high.clone().max(&self.number + &tenth))
    }

    /// Whether an amount fulfils it.
    #[must_use]
    pub fn holds(&self, amount: &Amount) -> bool {
        let (low, high) = match amount {
            Amount::Exact(n) => (Some(n), Some(n)),
            Amount::Between(low, high) => (low.as_ref(), high.as_ref()),
        };
        let x = &self.number;
        let within = || low.is_some_and(|l| *l >= self.low) && high.is_some_and(|h| *h < self.high);
        match self.prefix {
            Prefix::Eq => within(),
            Prefix::Ne => !within(),
            Prefix::Gt => high.is_none_or(|h| h > x),
            Prefix::Lt => low.is_none_or(|l| l < x),
            Prefix::Ge => high.is_none_or(|h| h >= x),
            Prefix::Le => low.is_none_or(|l| l <= x),
            Prefix::Sa => low.is_some_and(|l| l > x),
            Prefix::Eb => high.is_some_and(|h| h < x),
            Prefix::Ap => {
                let (from, to) = self.about();
                low.is_none_or(|l| *l <= to) && high.is_none_or(|h| *h >= from)
            }
        }
    }
}

/// The query for amounts in `unit`; `check` decides for the values of a stored resource whether one of them fulfils it
/// with both its bounds.
#[must_use]
pub fn query(param: &Param, unit: &str, wanted: &Wanted, check: Check) -> Query {
    let keys = Keys { param, unit };
    let x = sort_key(&wanted.number);
    let several = |conditions: Vec<Query>| Query::Verify(Box::new(Query::and(conditions)), check);
    match wanted.prefix {
        Prefix::Eq => {
            let (low, high) = (sort_key(&wanted.low), sort_key(&wanted.high));
            Query::or(vec![keys.between('e', &low, &high), several(vec![keys.at_least('a', &low), keys.below('b', &high)])])
        }
        Prefix::Ne => {
            let (low, high) = (sort_key(&wanted.low), sort_key(&wanted.high));
            Query::or(vec![keys.below('e', &low), keys.at_least('e', &high), keys.below('a', &low), keys.at_least('b', &high)])
        }
        Prefix::Gt => either('b', |class| keys.above(class, &x)),
        Prefix::Lt => either('a', |class| keys.below(class, &x)),
        Prefix::Ge => either('b', |class| keys.at_least(class, &x)),
        Prefix::Le => either('a', |class| keys.at_most(class, &x)),
        Prefix::Sa => Query::or(vec![keys.above('e', &x), keys.above('a', &x)]),
        Prefix::Eb => Query::or(vec![keys.below('e', &x), keys.below('b', &x)]),
        Prefix::Ap => {
            let (from, to) = wanted.about();
            let (from, to) = (sort_key(&from), sort_key(&to));
            let exact = keys.between('e', &from, &format!("{to}\u{0}"));
            Query::or(vec![exact, several(vec![keys.at_most('a', &to), keys.at_least('b', &from)])])
        }
    }
}

/// A range of exact amounts, or of the bound `class` of an interval.
fn either(class: char, range: impl Fn(char) -> Query) -> Query {
    Query::or(vec![range('e'), range(class)])
}

/// Ranges of the keys of one parameter and unit.
struct Keys<'a> {
    param: &'a Param,
    unit: &'a str,
}

impl Keys<'_> {
    fn between(&self, class: char, from: &str, to: &str) -> Query {
        let key = |number: &str| self.param.key(class, &format!("{}{BREAK}{number}", self.unit)).into();
        Query::TermRange { from: key(from), to: Some(key(to)) }
    }

    fn below(&self, class: char, key: &str) -> Query {
        self.between(class, "", key)
    }

    fn at_most(&self, class: char, key: &str) -> Query {
        self.between(class, "", &format!("{key}\u{0}"))
    }

    fn at_least(&self, class: char, key: &str) -> Query {
        self.between(class, key, BEYOND)
    }

    fn above(&self, class: char, key: &str) -> Query {
        self.between(class, &format!("{key}\u{0}"), BEYOND)
    }
}
