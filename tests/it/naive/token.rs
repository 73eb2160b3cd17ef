//! Tokens: `code`, `system|code`, `|code`, `system|`, and text.

use serde_json::Value;

use super::table::{Found, Shape, at};
use super::{split, string, unescape};

pub fn matches(found: &Found, modifier: Option<&str>, wanted: &str) -> bool {
    match modifier {
        None => pairs(found).iter().any(|pair| is(pair, wanted)),
        Some("text") => texts(found).iter().any(|text| string::plain(text).starts_with(&string::plain(&unescape(wanted)))),
        Some("code-text") => pairs(found).iter().any(|(_, code)| string::plain(code).starts_with(&string::plain(&unescape(wanted)))),
        Some("of-type") => of_type(found.value, wanted),
        Some(other) => panic!("the model lacks :{other} of a token"),
    }
}

/// A system, if there is one, and a code.
pub type Pair = (Option<String>, String);

pub fn is((system, code): &Pair, wanted: &str) -> bool {
    let parts: Vec<String> = split(wanted, '|').iter().map(|part| unescape(part)).collect();
    match &parts[..] {
        [any] => code == any,
        [no_system, c] if no_system.is_empty() => system.is_none() && code == c,
        [s, any] if any.is_empty() => system.as_ref() == Some(s),
        [s, c] => system.as_ref() == Some(s) && code == c,
        more => panic!("{more:?} is no token"),
    }
}

/// The systems and codes of a value.
pub fn pairs(found: &Found) -> Vec<Pair> {
    let value = found.value;
    match found.shape {
        Shape::Code(system) => vec![(Some(system.to_owned()), text(value))],
        Shape::Boolean => vec![(None, value.as_bool().unwrap().to_string())],
        Shape::Deceased => {
            let dead = value.get("deceasedDateTime").is_some() || value.get("deceasedBoolean") == Some(&Value::Bool(true));
            vec![(None, dead.to_string())]
        }
        Shape::DeceasedOrNot => {
            let said = value.get("deceasedDateTime").is_some() || value.get("deceasedBoolean").is_some();
            vec![(None, said.to_string())]
        }
        Shape::Coding => pair(value, "code").into_iter().collect(),
        Shape::Concept => at(value, "coding").into_iter().filter_map(|coding| pair(coding, "code")).collect(),
        Shape::Identifier => pair(value, "value").into_iter().collect(),
        Shape::Contact | Shape::Email => vec![(None, text(&value["value"]))],
        _ => vec![(None, text(value))],
    }
}

fn pair(value: &Value, code: &str) -> Option<Pair> {
    Some((value["system"].as_str().map(str::to_owned), value[code].as_str()?.to_owned()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The text that goes with a value.
pub fn texts<'r>(found: &Found<'r>) -> Vec<&'r str> {
    let paths: &[&str] = match found.shape {
        Shape::Concept => &["text", "coding.display"],
        Shape::Coding => &["display"],
        Shape::Identifier => &["type.text"],
        _ => &[],
    };
    paths.iter().flat_map(|path| at(found.value, path)).filter_map(Value::as_str).collect()
}

/// `system|code|value`: the type's coding, and the value.
fn of_type(identifier: &Value, wanted: &str) -> bool {
    let parts: Vec<String> = split(wanted, '|').iter().map(|part| unescape(part)).collect();
    let [system, code, value] = &parts[..] else { panic!("{parts:?} is no typed identifier") };
    identifier["value"] == **value && at(identifier, "type.coding").iter().any(|c| c["system"] == **system && c["code"] == **code)
}
