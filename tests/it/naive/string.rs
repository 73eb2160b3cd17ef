//! Strings: the beginning, without case and accents.

use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::table::{Found, Shape};

pub fn matches(found: &Found, modifier: Option<&str>, wanted: &str) -> bool {
    texts(found).iter().any(|text| match modifier {
        None => plain(text).starts_with(&plain(wanted)),
        Some("exact") => *text == wanted,
        Some("contains") => plain(text).contains(&plain(wanted)),
        Some("text") => words(text).contains(&plain(wanted)),
        Some(other) => panic!("the model lacks :{other} of a string"),
    })
}

/// What of a value is searched.
pub fn texts<'r>(found: &Found<'r>) -> Vec<&'r str> {
    let parts: &[&str] = match found.shape {
        Shape::HumanName => &["text", "family", "given", "prefix", "suffix"],
        Shape::Address => &["text", "line", "city", "district", "state", "postalCode", "country"],
        _ => return found.value.as_str().into_iter().collect(),
    };
    parts.iter().flat_map(|part| super::table::at(found.value, part)).filter_map(Value::as_str).collect()
}

/// The words of a text, plain.
pub fn words(text: &str) -> Vec<String> {
    plain(text).split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Lower case, without marks.
pub fn plain(text: &str) -> String {
    text.nfd().filter(|c| !is_combining_mark(*c)).collect::<String>().to_lowercase()
}
