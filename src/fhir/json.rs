//! Strict reading of JSON: what `serde_json` would let pass silently is refused with its place.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::id::clip;
use super::{Failure, Kind};

/// Deepest nesting of objects and arrays accepted.
pub const MAX_DEPTH: usize = 100;

/// What `serde_json` names a number by when it keeps every digit; a body that holds it would be misread.
const NUMBER_TOKEN: &str = "$serde_json::private::Number";

/// What kind of JSON a value is.
#[must_use]
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Reads one JSON value.
///
/// # Errors
/// [`Kind::Malformed`] with line and column: not JSON, a key twice in one object, nested over [`MAX_DEPTH`].
pub fn parse(bytes: &[u8]) -> Result<Value, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::new(Kind::Malformed, "the body is empty; a FHIR resource in JSON was expected"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let (line, column) = place(bytes, e.valid_up_to());
        Failure::new(Kind::Malformed, format!("the body is not UTF-8 at line {line} column {column}"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains("$serde_json::private") {
        return Err(Failure::new(Kind::Malformed, format!("a key named '{NUMBER_TOKEN}' is not accepted")));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Seed { depth: 0 }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|e| Failure::new(Kind::Malformed, if text.trim_start().starts_with('<') { looks_like_xml() } else { format!("malformed JSON: {e}") }))
}

fn looks_like_xml() -> String {
    "malformed JSON: it begins with '<' and looks like XML, which is sent with Content-Type application/fhir+xml".to_owned()
}

/// Line and column, from 1, of a byte offset.
fn place(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = &bytes[..offset];
    let line = before.split(|b| *b == b'\n').count();
    let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    (line, column)
}

#[derive(Clone, Copy)]
struct Seed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == NUMBER_TOKEN {
                // Only a number can say this: `parse` refused bodies that hold the token.
                let digits = map.next_value::<String>()?;
                return digits.parse::<Number>().map(Value::Number).map_err(A::Error::custom);
            }
            let value = map.next_value_seed(inner)?;
            if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key \"{}\"", clip(&key))));
            }
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).err().map(|f| f.diagnostics).unwrap_or_default()
    }

    #[test]
    fn keeps_digits_and_order() {
        let text = r#"{"b":1.00,"a":[-0.0,12345678901234567890123,1e3,true,null],"c":{"x":"\u00fc"}}"#;
        let value = parse(text.as_bytes()).unwrap_or_default();
        assert_eq!(value.to_string(), r#"{"b":1.00,"a":[-0.0,12345678901234567890123,1e+3,true,null],"c":{"x":"ü"}}"#);
    }

    #[test]
    fn names_the_place() {
        assert_eq!(error("{\"a\":1,\n \"a\":2}"), "malformed JSON: duplicate key \"a\" at line 2 column 7");
        for xml in ["<Patient xmlns=\"http://hl7.org/fhir\"/>", "\u{feff}\n <a/>"] {
            assert_eq!(error(xml), "malformed JSON: it begins with '<' and looks like XML, which is sent with Content-Type application/fhir+xml");
        }
        assert_eq!(error("{\"a\":}"), "malformed JSON: expected value at line 1 column 6");
        assert!(error("{} x").contains("trailing characters"));
        assert!(error("").contains("empty"));
        assert!(error(r#"{"$serde_json::private::Number":"1"}"#).contains("not accepted"));
        assert!(parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse(nested(100).as_bytes()).is_ok());
        assert!(error(&nested(101)).contains("nested deeper than 100"));
        assert!(error(&nested(100_000)).contains("nested deeper than 100"));
    }
}
