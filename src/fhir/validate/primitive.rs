//! Primitive types: which JSON they are and how their text is written, <https://hl7.org/fhir/R4/datatypes.html#primitive>.

use serde_json::Value;

use super::super::FhirVersion;
use super::super::id::clip;
use super::super::json::kind_of;
use super::report::Finding;
use super::{temporal, xhtml};

/// Most characters of a string.
const MAX_CHARACTERS: usize = 1024 * 1024;

/// A primitive type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primitive {
    Boolean,
    Integer,
    Integer64,
    UnsignedInt,
    PositiveInt,
    Decimal,
    String,
    Markdown,
    Uri,
    Url,
    Canonical,
    Oid,
    Uuid,
    Id,
    Code,
    Base64Binary,
    Date,
    DateTime,
    Instant,
    Time,
    Xhtml,
    /// `Element.id`: no type of its own, and not quite any other.
    ElementId,
    /// `Extension.url`: a uri that is not absent and has no extensions.
    ExtensionUrl,
}

/// The names of those that definitions name.
const NAMES: &[(Primitive, &str)] = &[
    (Primitive::Boolean, "boolean"),
    (Primitive::Integer, "integer"),
    (Primitive::Integer64, "integer64"),
    (Primitive::UnsignedInt, "unsignedInt"),
    (Primitive::PositiveInt, "positiveInt"),
    (Primitive::Decimal, "decimal"),
    (Primitive::String, "string"),
    (Primitive::Markdown, "markdown"),
    (Primitive::Uri, "uri"),
    (Primitive::Url, "url"),
    (Primitive::Canonical, "canonical"),
    (Primitive::Oid, "oid"),
    (Primitive::Uuid, "uuid"),
    (Primitive::Id, "id"),
    (Primitive::Code, "code"),
    (Primitive::Base64Binary, "base64Binary"),
    (Primitive::Date, "date"),
    (Primitive::DateTime, "dateTime"),
    (Primitive::Instant, "instant"),
    (Primitive::Time, "time"),
    (Primitive::Xhtml, "xhtml"),
];

impl Primitive {
    /// The type that a definition names.
    pub fn of(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, n)| *n == name).map(|(primitive, _)| *primitive)
    }

    fn name(self) -> &'static str {
        match self {
            Self::ElementId => "element id",
            Self::ExtensionUrl => "uri",
            _ => NAMES.iter().find(|(primitive, _)| *primitive == self).map_or("", |(_, name)| name),
        }
    }

    /// Whether it is an attribute in XML, and so has no extensions.
    pub fn is_attribute(self) -> bool {
        matches!(self, Self::ElementId | Self::ExtensionUrl)
    }

    /// The JSON type of its values, <https://hl7.org/fhir/R4/json.html#primitive>.
    fn json(self) -> &'static str {
        match self {
            Self::Boolean => "a boolean",
            Self::Integer | Self::UnsignedInt | Self::PositiveInt | Self::Decimal => "a number",
            // Of an integer64 too: many a parser makes a JSON number a double, which has fewer digits.
            _ => "a string",
        }
    }

    /// Judges a value.
    pub fn check(self, value: &Value, version: FhirVersion) -> Option<Finding> {
        let problem = match value {
            Value::Bool(_) if self == Self::Boolean => return None,
            Value::Number(number) if self.json() == "a number" => self.number(number.as_str(), version),
            Value::String(text) if self.json() == "a string" => {
                if text.is_empty() {
                    return Some(Finding::error("value", "is an empty string; leave out what has no value"));
                }
                if let Some(finding) = self.blank(text) {
                    return Some(finding);
                }
                self.text(text, version)
            }
            other => {
                let message = format!("{} is {}, but a value of type {} is {} in JSON", shown(other), kind_of(other), self.name(), self.json());
                return Some(Finding::error("structure", message));
            }
        };
        problem.map(|reason| Finding::error("value", format!("{} is no {}: {reason}", shown(value), self.name())))
    }

    /// A text that XML tools would trim to nothing.
    fn blank(self, text: &str) -> Option<Finding> {
        let is_text = matches!(self, Self::String | Self::Markdown);
        let blank = is_text && text.chars().all(is_space);
        blank.then(|| Finding::warning("value", "is white space only; a string should have something to read"))
    }

    /// Why a number is not of the type.
    fn number(self, digits: &str, version: FhirVersion) -> Option<String> {
        let range = match self {
            Self::Decimal if version == FhirVersion::Stu3 && digits.contains(['e', 'E']) => return Some("exponents came with R4".to_owned()),
            Self::UnsignedInt => 0..=i64::from(i32::MAX),
            Self::PositiveInt => 1..=i64::from(i32::MAX),
            Self::Integer => i64::from(i32::MIN)..=i64::from(i32::MAX),
            _ => return None,
        };
        whole(digits, &range)
    }

    /// Why a text, not empty, is not of the type.
    fn text(self, text: &str, version: FhirVersion) -> Option<String> {
        match self {
            Self::String | Self::Markdown => string(text),
            Self::Uri | Self::Url | Self::Canonical | Self::ExtensionUrl | Self::ElementId => spaced(text),
            Self::Oid => oid(text),
            Self::Uuid => uuid(text),
            Self::Id => id(text),
            Self::Code => code(text),
            Self::Base64Binary => base64(text),
            Self::Date => temporal::date(text, version).err(),
            Self::DateTime => temporal::date_time(text, version).err(),
            Self::Instant => temporal::instant(text, version).err(),
            Self::Time => temporal::time(text).err(),
            Self::Xhtml => xhtml::check(text).err(),
            Self::Integer64 => whole(text, &(i64::MIN..=i64::MAX)),
            Self::Boolean | Self::Integer | Self::UnsignedInt | Self::PositiveInt | Self::Decimal => None,
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", clip(text)),
        Value::Number(number) => clip(number.as_str()),
        Value::Bool(_) | Value::Null => value.to_string(),
        Value::Array(_) | Value::Object(_) => "this".to_owned(),
    }
}

fn whole(digits: &str, range: &std::ops::RangeInclusive<i64>) -> Option<String> {
    let plain = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    let is_whole = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !plain.starts_with('0'));
    if !is_whole {
        return Some("a whole number has no fraction, exponent or leading zeros".to_owned());
    }
    let inside = digits.parse().is_ok_and(|n| range.contains(&n));
    (!inside).then(|| format!("it goes from {} to {}", range.start(), range.end()))
}

fn string(text: &str) -> Option<String> {
    if let Some(c) = text.chars().find(|c| *c < ' ' && !matches!(c, '\t' | '\r' | '\n')) {
        return Some(format!("it has the control character U+{:04X}", u32::from(c)));
    }
    (text.len() > MAX_CHARACTERS && text.chars().count() > MAX_CHARACTERS).then(|| format!("it has over {MAX_CHARACTERS} characters"))
}

/// White space is what XML takes for it: a no-break space is a character like others.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn spaced(text: &str) -> Option<String> {
    text.contains(is_space).then(|| "it has white space".to_owned())
}

fn oid(text: &str) -> Option<String> {
    let is_arc = |arc: &str| !arc.is_empty() && arc.bytes().all(|b| b.is_ascii_digit()) && (arc == "0" || !arc.starts_with('0'));
    let arcs = text.strip_prefix("urn:oid:").filter(|arcs| arcs.starts_with(['0', '1', '2']) && arcs.contains('.'));
    let good = arcs.is_some_and(|arcs| arcs.split('.').all(is_arc));
    (!good).then(|| "an OID is written like urn:oid:1.2.3".to_owned())
}

fn uuid(text: &str) -> Option<String> {
    let is_digit = |(at, b): (usize, u8)| match at {
        8 | 13 | 18 | 23 => b == b'-',
        _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
    };
    let good = text.strip_prefix("urn:uuid:").is_some_and(|digits| digits.len() == 36 && digits.bytes().enumerate().all(is_digit));
    (!good).then(|| "a UUID is written like urn:uuid:c757873d-ec9a-4326-a141-556f43239520, in lower case".to_owned())
}

fn id(text: &str) -> Option<String> {
    let good = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    (!good).then(|| "an id is 1-64 of A-Z a-z 0-9 - .".to_owned())
}

fn code(text: &str) -> Option<String> {
    if let Some(space) = text.chars().find(|c| matches!(c, '\t'..='\r')) {
        return Some(format!("it has the white space U+{:04X}; within a code there may be single blanks only", u32::from(space)));
    }
    let is_wrong = text.starts_with(' ') || text.ends_with(' ') || text.contains("  ");
    is_wrong.then(|| "it has white space at its beginning or end, or twice in a row".to_owned())
}

/// A check instead of a decoding: attachments are long, and their bytes are not needed.
fn base64(text: &str) -> Option<String> {
    let (mut digits, mut padding) = (0_usize, 0_usize);
    for c in text.chars().filter(|c| !c.is_ascii_whitespace()) {
        match c {
            '=' => padding += 1,
            _ if padding > 0 => return Some("it goes on after the padding '='".to_owned()),
            'A'..='Z' | 'a'..='z' | '0'..='9' | '+' | '/' => digits += 1,
            _ => return Some(format!("{c:?} is not of its alphabet A-Z a-z 0-9 + /")),
        }
    }
    let good = padding <= 2 && (digits + padding).is_multiple_of(4) && (digits > 0 || padding == 0);
    (!good).then(|| format!("{digits} digits and {padding} '=' are no whole groups of four"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(primitive: Primitive, value: &Value) -> String {
        primitive.check(value, FhirVersion::R4).map(|f| f.message).unwrap_or_default()
    }

    #[test]
    fn accepted() {
        for (name, values) in [
            ("boolean", vec![json!(true), json!(false)]),
            ("integer", vec![json!(0), json!(-2_147_483_648_i64), json!(2_147_483_647)]),
            ("integer64", vec![json!("9223372036854775807"), json!("-1")]),
            ("unsignedInt", vec![json!(0)]),
            ("positiveInt", vec![json!(1)]),
            ("decimal", vec![json!(1.5), json!(-0.0), json!(7)]),
            ("string", vec![json!("a\tb\r\nc"), json!("ü ")]),
            ("uri", vec![json!("urn:x"), json!("#"), json!("ä/b?c")]),
            ("oid", vec![json!("urn:oid:1.2.840.0")]),
            ("uuid", vec![json!("urn:uuid:c757873d-ec9a-4326-a141-556f43239520")]),
            ("id", vec![json!("a-B.9")]),
            ("code", vec![json!("a"), json!("a b c"), json!("a\u{a0}")]),
            ("base64Binary", vec![json!("QUJD"), json!("QQ =="), json!("QUI=\n")]),
        ] {
            let primitive = Primitive::of(name).unwrap();
            for value in &values {
                assert_eq!(why(primitive, value), "", "{name} {value}");
            }
        }
    }

    #[test]
    fn refused() {
        for (name, value, expected) in [
            ("boolean", json!(1), "1 is a number, but a value of type boolean is a boolean in JSON"),
            ("integer", json!(2_147_483_648_i64), "2147483648 is no integer: it goes from -2147483648 to 2147483647"),
            ("integer", json!(1.5), "1.5 is no integer: a whole number has no fraction, exponent or leading zeros"),
            ("integer64", json!(1), "1 is a number, but a value of type integer64 is a string in JSON"),
            ("integer64", json!("9223372036854775808"), "'9223372036854775808' is no integer64: it goes from -9223372036854775808 to 9223372036854775807"),
            ("unsignedInt", json!(-1), "-1 is no unsignedInt: it goes from 0 to 2147483647"),
            ("positiveInt", json!(0), "0 is no positiveInt: it goes from 1 to 2147483647"),
            ("decimal", json!("1.5"), "'1.5' is a string, but a value of type decimal is a number in JSON"),
            ("string", json!("a\u{7}"), "'a\u{7}' is no string: it has the control character U+0007"),
            ("string", json!(" \n"), "is white space only; a string should have something to read"),
            ("markdown", json!(""), "is an empty string; leave out what has no value"),
            ("uri", json!("a b"), "'a b' is no uri: it has white space"),
            ("canonical", json!(" a"), "' a' is no canonical: it has white space"),
            ("url", json!("a\n"), "'a\n' is no url: it has white space"),
            ("oid", json!("1.2.3"), "'1.2.3' is no oid: an OID is written like urn:oid:1.2.3"),
            ("oid", json!("urn:oid:1.02"), "'urn:oid:1.02' is no oid: an OID is written like urn:oid:1.2.3"),
            (
                "uuid",
                json!("urn:uuid:C757873D-ec9a-4326-a141-556f43239520"),
                "'urn:uuid:C757873D-ec9a-4326-a141-556f43239520' is no uuid: a UUID is written like urn:uuid:c757873d-ec9a-4326-a141-556f43239520, in lower case",
            ),
            ("id", json!("a_b"), "'a_b' is no id: an id is 1-64 of A-Z a-z 0-9 - ."),
            ("code", json!(" a"), "' a' is no code: it has white space at its beginning or end, or twice in a row"),
            ("code", json!("a  b"), "'a  b' is no code: it has white space at its beginning or end, or twice in a row"),
            ("code", json!("a "), "'a ' is no code: it has white space at its beginning or end, or twice in a row"),
            ("code", json!("a\tb"), "'a\tb' is no code: it has the white space U+0009; within a code there may be single blanks only"),
            ("code", json!("a\n"), "'a\n' is no code: it has the white space U+000A; within a code there may be single blanks only"),
            ("base64Binary", json!("QUJ"), "'QUJ' is no base64Binary: 3 digits and 0 '=' are no whole groups of four"),
            ("base64Binary", json!("QU-D"), "'QU-D' is no base64Binary: '-' is not of its alphabet A-Z a-z 0-9 + /"),
            ("base64Binary", json!("QQ==QQ=="), "'QQ==QQ==' is no base64Binary: it goes on after the padding '='"),
            ("instant", json!("2015-02-07"), "'2015-02-07' is no instant: an instant has a time and its zone, such as 2015-02-07T13:28:17Z"),
        ] {
            assert_eq!(why(Primitive::of(name).unwrap(), &value), expected);
        }
        assert_eq!(why(Primitive::String, &json!("x".repeat(MAX_CHARACTERS))), "");
        assert!(why(Primitive::String, &json!("x".repeat(MAX_CHARACTERS + 1))).ends_with("it has over 1048576 characters"));
    }

    #[test]
    fn base64_is_what_decodes() {
        use base64::Engine as _;
        let engine =
            base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
        // All texts of up to five of some characters.
        let alphabet = ['A', '/', '=', '-', 'z'];
        for n in 0..5_usize.pow(5) * 5 {
            let (length, mut rest) = (n / 5_usize.pow(5) + 1, n % 5_usize.pow(5));
            let text: String = std::iter::repeat_with(|| (alphabet[rest % 5], rest /= 5).0).take(length).collect();
            assert_eq!(base64(&text).is_none(), engine.decode(&text).is_ok(), "{text}");
        }
    }
}
