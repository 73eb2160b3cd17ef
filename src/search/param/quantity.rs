//! Quantity parameters, <https://hl7.org/fhir/R4/search.html#quantity>: a number and its unit.
//!
//! An amount is indexed under each name its unit goes by: none, for a search by the number alone; `=unit` in UCUM's base
//! units, where amounts in comparable units meet; `system|code` where the code is not UCUM's; `|code` and `|unit`.

use std::sync::Arc;

use bigdecimal::BigDecimal;
use serde_json::Value;

use super::super::params::Param;
use super::super::path::Node;
use super::number::{number_of, wanted};
use super::numeric::{self, Amount};
use super::{Env, bad_value, split_unescaped, unescape};
use crate::fhir::{Failure, decimal};
use crate::query::{KeysBuilder, Query};

/// The code system of UCUM.
const UCUM: &str = "http://unitsofmeasure.org";
/// The code system of currencies.
const CURRENCIES: &str = "urn:iso:std:iso:4217";

/// An amount and what its unit is called.
struct Quantity {
    amount: Amount,
    system: Option<String>,
    code: Option<String>,
    unit: Option<String>,
}

/// The names of a unit that an amount is indexed under, with the amount in it.
fn names(quantity: &Quantity) -> Vec<(String, Amount)> {
    let mut all = vec![(String::new(), quantity.amount.clone())];
    if let Some(code) = &quantity.code {
        match quantity.system.as_deref() {
            Some(UCUM) => match Scale::of(code) {
                Some(scale) => all.push((format!("={}", scale.unit), quantity.amount.converted(&|n| scale.base(n)))),
                None => all.push((format!("{UCUM}|{code}"), quantity.amount.clone())),
            },
            Some(system) => all.push((format!("{system}|{code}"), quantity.amount.clone())),
            None => {}
        }
        all.push((format!("|{code}"), quantity.amount.clone()));
    }
    if let Some(unit) = quantity.unit.as_ref().filter(|u| Some(*u) != quantity.code.as_ref()) {
        all.push((format!("|{unit}"), quantity.amount.clone()));
    }
    all
}

/// How a UCUM unit relates to base units.
struct Scale {
    unit: String,
    factor: BigDecimal,
    offset: BigDecimal,
    /// Whether that is not exactly so: a minute is no decimal fraction of a second's inverse.
    is_rounded: bool,
}

/// As many digits as the library gives where there would be no end of them.
const ENDLESS: u64 = 27;
/// As many digits of an amount count after a conversion with such a number.
const CERTAIN: u64 = 24;

impl Scale {
    fn of(code: &str) -> Option<Self> {
        let found = octofhir_ucum::get_canonical_units(code).ok()?;
        let number = |n: octofhir_ucum::Number| {
            let (digits, exponent) = n.to_integer_and_exponent();
            // A unit such as 10*999999999 would make every sum that many digits long.
            (i64::from(exponent).abs() <= decimal::MAX_EXPONENT).then(|| BigDecimal::new(digits.into(), -i64::from(exponent)))
        };
        let (factor, offset) = (number(found.factor)?, number(found.offset)?);
        let is_rounded = factor.digits() >= ENDLESS || offset.digits() >= ENDLESS;
        Some(Self { unit: found.unit, factor, offset, is_rounded })
    }

    fn base(&self, number: &BigDecimal) -> BigDecimal {
        let base = number * &self.factor + &self.offset;
        if self.is_rounded { base.with_prec(CERTAIN) } else { base }
    }
}

fn quantities(found: &[Node<'_>]) -> Vec<Quantity> {
    found.iter().filter_map(quantity).collect()
}

fn quantity(node: &Node<'_>) -> Option<Quantity> {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let of = |amount: Amount, q: &Value| Quantity { amount, system: text(q, "system"), code: text(q, "code"), unit: text(q, "unit") };
    let value = node.value;
    match node.ty.base {
        "Range" => {
            let (low, high) = (value.get("low"), value.get("high"));
            let bound = |side: Option<&Value>| side.and_then(|q| q.get("value")).and_then(number_of);
            Some(of(Amount::Between(bound(low), bound(high)), low.or(high)?))
        }
        "SampledData" => sampled(value),
        _ => {
            let number = number_of(value.get("value")?)?;
            let amount = match value.get("comparator").and_then(Value::as_str) {
                // Short of the number by less than any two numbers differ that people write.
                Some("<") => Amount::Between(None, Some(number - a_trifle())),
                Some(">") => Amount::Between(Some(number + a_trifle()), None),
                Some("<=") => Amount::Between(None, Some(number)),
                Some(">=") => Amount::Between(Some(number), None),
                _ => Amount::Exact(number),
            };
            if let Some(currency) = text(value, "currency") {
                return Some(Quantity { amount, system: Some(CURRENCIES.to_owned()), code: Some(currency), unit: None });
            }
            Some(of(amount, value))
        }
    }
}

fn a_trifle() -> BigDecimal {
    BigDecimal::new(1.into(), 60)
}

/// A series of measurements counts with the interval that they span.
fn sampled(value: &Value) -> Option<Quantity> {
    let origin = value.get("origin")?;
    let text = |name: &str| origin.get(name).and_then(Value::as_str).map(str::to_owned);
    let base = origin.get("value").and_then(number_of).unwrap_or_default();
    let factor = value.get("factor").and_then(number_of).unwrap_or_else(|| 1.into());
    let limit = |name: &str| value.get(name).and_then(number_of);
    let (lower, upper) = (limit("lowerLimit"), limit("upperLimit"));
    let raw: Vec<BigDecimal> = value
        .get("data")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| match word {
            "L" => lower.clone(),
            "U" => upper.clone(),
            _ => decimal::parse(word),
        })
        .collect();
    let (low, high) = (raw.iter().min()?, raw.iter().max()?);
    let real = |n: &BigDecimal| n * &factor + &base;
    let (a, b) = (real(low), real(high));
    let amount = Amount::Between(Some(a.clone().min(b.clone())), Some(a.max(b)));
    Some(Quantity { amount, system: text("system"), code: text("code"), unit: text("unit") })
}

/// Adds the keys of the values; returns how many there were.
pub fn index(param: &Param, found: &[Node<'_>], keys: &mut KeysBuilder) -> usize {
    let quantities = quantities(found);
    for (unit, amount) in quantities.iter().flat_map(names) {
        numeric::index(param, &unit, &amount, keys);
    }
    quantities.len()
}

/// The query of one search value: `number`, `number|system|code` or `number||code`.
///
/// # Errors
/// The value has no number, or more parts.
pub fn query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let parts = split_unescaped(value, '|');
    let (number, unit) = match parts[..] {
        [number] => (number, None),
        [number, system, code] => (number, Some((unescape(system), unescape(code)))),
        _ => return Err(bad_value(param, value, "a quantity such as 5.4, 5.4|http://unitsofmeasure.org|mg or 5.4||mg")),
    };
    let mut wanted = wanted(param, value, number)?;
    let unit = match unit {
        None => String::new(),
        Some((system, code)) if code.is_empty() && system.is_empty() => String::new(),
        Some((_, code)) if code.is_empty() => return Err(bad_value(param, value, "a quantity whose system is followed by the code of a unit")),
        Some((system, code)) => match if system == UCUM { Scale::of(&code) } else { None } {
            Some(scale) => {
                wanted = wanted.converted(&|n| scale.base(n));
                format!("={}", scale.unit)
            }
            None => format!("{system}|{code}"),
        },
    };
    let check = env.on_values(param, {
        let (wanted, unit) = (wanted.clone(), unit.clone());
        move |found| quantities(found).iter().flat_map(names).any(|(name, amount)| name == unit && wanted.holds(&amount))
    });
    Ok(numeric::query(param, &unit, &wanted, check))
}
