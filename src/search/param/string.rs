//! String parameters, <https://hl7.org/fhir/R4/search.html#string>: the beginning matches, case and accents aside.

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::super::params::Param;
use super::super::path::Node;
use super::unescape;
use crate::query::{KeysBuilder, Query};

/// The members of HumanName and Address that are searched.
const PARTS: [&str; 12] = ["text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country", "name"];

/// Adds the keys of a value; returns how many strings it was.
pub fn index(param: &Param, node: &Node<'_>, keys: &mut KeysBuilder) -> usize {
    match node.value {
        Value::String(text) => {
            keys.term(&[&param.name, "\u{1f}s", &normalise(text)]);
            keys.term(&[&param.name, "\u{1f}x", text]);
            1
        }
        Value::Array(items) => items.iter().map(|value| index(param, &Node { value, ..*node }, keys)).sum(),
        Value::Object(object) => PARTS.iter().filter_map(|part| object.get(*part)).map(|value| index(param, &Node { value, ..*node }, keys)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// The text without case and accents, white space as single blanks.
#[must_use]
pub fn normalise(text: &str) -> String {
    if text.is_ascii() && !text.bytes().any(|b| b.is_ascii_control()) && !text.contains("  ") {
        return text.trim().to_ascii_lowercase();
    }
    let plain: String = text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).fold(String::new(), fold);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Adds a letter; those that Unicode does not take apart as people type them without their mark.
fn fold(mut text: String, c: char) -> String {
    match c {
        'ß' => text.push_str("ss"),
        'æ' => text.push_str("ae"),
        'œ' => text.push_str("oe"),
        'þ' => text.push_str("th"),
        'ø' => text.push('o'),
        'ł' => text.push('l'),
        'đ' | 'ð' => text.push('d'),
        'ı' => text.push('i'),
        'ς' => text.push('σ'),
        other => text.push(other),
    }
    text
}

/// The query of one search value.
#[must_use]
pub fn query(param: &Param, value: &str) -> Query {
    Query::prefix(&param.key('s', &normalise(&unescape(value))))
}

/// `:exact`: the whole value, case and accents counted.
#[must_use]
pub fn exact(param: &Param, value: &str) -> Query {
    Query::term(&param.key('x', &unescape(value)))
}

/// `:contains`: anywhere in the value.
#[must_use]
pub fn contains(param: &Param, value: &str) -> Query {
    Query::TermContains { prefix: param.key('s', "").into(), part: normalise(&unescape(value)).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_do_not_count() {
        for (text, expected) in [
            ("Müller", "muller"),
            ("ÉCOLE  x", "ecole x"),
            (" Ann ", "ann"),
            ("Ⅳ", "iv"),
            ("Straße ØRE", "strasse ore"),
            ("ΟΔΟΣ", "οδοσ"),
            ("οδος", "οδοσ"),
            ("李", "李"),
        ] {
            assert_eq!(normalise(text), expected);
        }
    }
}
