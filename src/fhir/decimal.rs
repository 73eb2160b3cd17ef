//! Decimals compared as decimals: a text key that sorts as the number does, and the interval a search value stands for.

use bigdecimal::num_bigint::Sign;
use bigdecimal::{BigDecimal, Zero};
use std::str::FromStr;

/// Exponents are held in this range; numbers beyond it sort as the nearest inside.
const EXPONENT_BIAS: i64 = 1 << 19;

/// Beyond this, a decimal exponent is cut.
pub const MAX_EXPONENT: i64 = 4_000;

/// Reads a FHIR decimal or integer.
#[must_use]
pub fn parse(text: &str) -> Option<BigDecimal> {
    let plain = text.strip_prefix('-').unwrap_or(text);
    let shape = plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if text.len() > 1_000 || !shape || plain.ends_with('.') || !plain.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    // A huge exponent would make every later addition allocate that many digits: such numbers count as the nearest that
    // does not.
    if let Some((mantissa, exponent)) = text.split_once(['e', 'E'])
        && exponent.trim_start_matches(['+', '-', '0']).len() > 3
    {
        let sign = if exponent.starts_with('-') { "-" } else { "" };
        return BigDecimal::from_str(&format!("{mantissa}e{sign}4000")).ok();
    }
    BigDecimal::from_str(text).ok()
}

/// A text that sorts among other keys as `value` among numbers; equal for equal numbers, `1.0` and `1.00` alike.
#[must_use]
pub fn sort_key(value: &BigDecimal) -> String {
    if value.is_zero() {
        return "o".to_owned();
    }
    let (digits, scale) = value.normalized().into_bigint_and_exponent();
    let negative = digits.sign() == Sign::Minus;
    let digits = digits.magnitude().to_string();
    let exponent = i64::try_from(digits.len()).unwrap_or(i64::MAX).saturating_sub(scale).clamp(1 - EXPONENT_BIAS, EXPONENT_BIAS - 1);
    if negative {
        let mirrored: String = digits.bytes().map(|d| char::from(b'0' + (b'9' - d))).collect();
        format!("n{:05x}{mirrored}~", EXPONENT_BIAS - exponent)
    } else {
        format!("p{:05x}{digits}", exponent + EXPONENT_BIAS)
    }
}

/// The interval `low <= x < high` that a search value stands for by its precision: `100` is 99.5 to 100.5,
/// <https://hl7.org/fhir/R4/search.html#number>. A single digit with an exponent is read as the specification's example
/// does: `1e2` is 95 to 105.
#[must_use]
pub fn implicit_range(text: &str, value: &BigDecimal) -> (BigDecimal, BigDecimal) {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().unwrap_or(0).clamp(-MAX_EXPONENT, MAX_EXPONENT)),
        None => (text, 0),
    };
    let decimals = mantissa.split_once('.').map_or(0, |(_, d)| i64::try_from(d.len()).unwrap_or(0));
    let single = mantissa.bytes().filter(u8::is_ascii_digit).count() == 1 && mantissa.len() != text.len();
    let half = BigDecimal::new(5.into(), decimals - exponent + if single { 2 } else { 1 });
    (value - &half, value + &half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_numbers() {
        let sorted =
            ["-1e10", "-100", "-99.5", "-2", "-1.05", "-1", "-0.5", "-0.05", "0", "0.001", "0.05", "0.5", "1", "1.05", "1.5", "2", "10", "99", "100", "1e10"];
        let keys: Vec<String> = sorted.iter().filter_map(|s| parse(s)).map(|d| sort_key(&d)).collect();
        assert_eq!(keys.len(), sorted.len());
        for (pair, names) in keys.windows(2).zip(sorted.windows(2)) {
            assert!(pair[0] < pair[1], "{names:?} {pair:?}");
        }
    }

    #[test]
    fn equal_numbers_have_equal_keys() {
        for (a, b) in [("1.0", "1.00"), ("1e3", "1000"), ("0.0", "0"), ("-0", "0")] {
            assert_eq!(parse(a).map(|d| sort_key(&d)), parse(b).map(|d| sort_key(&d)));
        }
    }

    #[test]
    fn precision_gives_the_interval() {
        let range = |text: &str| parse(text).map(|v| implicit_range(text, &v)).map(|(l, h)| (l.normalized().to_string(), h.normalized().to_string()));
        let pair = |l: &str, h: &str| Some((l.to_owned(), h.to_owned()));
        assert_eq!(range("100"), pair("99.5", "100.5"));
        assert_eq!(range("100.00"), pair("99.995", "100.005"));
        assert_eq!(range("1e2"), pair("95", "105"));
        assert_eq!(range("1.00e2"), pair("99.5", "100.5"));
    }

    #[test]
    fn refuses_what_is_no_number() {
        for bad in ["", "x", "1.2.3", "--1", ".5", "1.", "NaN", "1,5", "1 "] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
