//! Numbers: exact decimals; the search value stands for a range where its precision counts.

use bigdecimal::BigDecimal;
use serde_json::Value;

use super::table::{Found, Shape};

/// A prefix, a number, and the range that its precision leaves: from `low` to below `high`.
pub struct Asked<'t> {
    prefix: &'t str,
    exact: BigDecimal,
    low: BigDecimal,
    high: BigDecimal,
}

pub fn matches(found: &Found, wanted: &str) -> bool {
    let asked = Asked::parse(wanted);
    match found.shape {
        Shape::Range => {
            let bound = |name: &str| found.value.get(name).and_then(|b| b.get("value")).map(decimal);
            asked.compare(bound("low").as_ref(), bound("high").as_ref())
        }
        _ => asked.equals_or_so(&decimal(found.value)),
    }
}

/// The prefix, `eq` if there is none, and the rest.
pub fn prefixed(text: &str) -> (&str, &str) {
    if text.starts_with(|c: char| c.is_ascii_lowercase()) { text.split_at(2) } else { ("eq", text) }
}

pub fn decimal(value: &Value) -> BigDecimal {
    value.to_string().parse().unwrap()
}

impl<'t> Asked<'t> {
    pub fn parse(wanted: &'t str) -> Self {
        let (prefix, text) = prefixed(wanted);
        let exact: BigDecimal = text.parse().unwrap();
        let half = BigDecimal::new(5.into(), digits_after_point(text) + 1);
        Self { prefix, low: &exact - &half, high: &exact + &half, exact }
    }

    /// The same in a unit that is smaller by this factor.
    pub fn times(&self, factor: &BigDecimal) -> Self {
        Self { prefix: self.prefix, exact: &self.exact * factor, low: &self.low * factor, high: &self.high * factor }
    }

    pub fn equals_or_so(&self, value: &BigDecimal) -> bool {
        self.compare(Some(value), Some(value))
    }

    /// Compares with all numbers from `from` to `to`, both included; one that is missing has no end there.
    pub fn compare(&self, from: Option<&BigDecimal>, to: Option<&BigDecimal>) -> bool {
        let within = from.is_some_and(|f| *f >= self.low) && to.is_some_and(|t| *t < self.high);
        match self.prefix {
            "eq" => within,
            "ne" => !within,
            "gt" => to.is_none_or(|t| *t > self.exact),
            "ge" => to.is_none_or(|t| *t >= self.exact),
            "lt" => from.is_none_or(|f| *f < self.exact),
            "le" => from.is_none_or(|f| *f <= self.exact),
            "sa" => from.is_some_and(|f| *f > self.exact),
            "eb" => to.is_some_and(|t| *t < self.exact),
            "ap" => self.overlaps(from, to),
            other => panic!("{other} is no prefix"),
        }
    }

    /// Within a tenth or within what the precision leaves, whichever is wider; how far `ap` reaches is the server's choice, and the
    /// ends are included here.
    fn overlaps(&self, from: Option<&BigDecimal>, to: Option<&BigDecimal>) -> bool {
        let tenth = self.exact.abs() / BigDecimal::from(10);
        let low = (&self.exact - &tenth).min(self.low.clone());
        let high = (&self.exact + &tenth).max(self.high.clone());
        from.is_none_or(|f| *f <= high) && to.is_none_or(|t| *t >= low)
    }
}

/// How many digits after the point count; negative where an exponent moves it.
fn digits_after_point(text: &str) -> i64 {
    let (mantissa, exponent) = text.split_once('e').map_or((text, None), |(m, e)| (m, Some(e.parse::<i64>().unwrap())));
    let digits = mantissa.split_once('.').map_or(0, |(_, d)| i64::try_from(d.len()).unwrap());
    match exponent {
        // `1e2` means 95 to 105.
        Some(e) if mantissa.trim_start_matches('-').len() == 1 => 1 - e,
        Some(e) => digits - e,
        None => digits,
    }
}
