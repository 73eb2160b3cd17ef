//! Search values, made from a value that some resource has.

use serde_json::Value;

use super::Asking;
use crate::naive::features::Feature;
use crate::naive::generate::codes;
use crate::naive::quantity::{CURRENCY, UCUM};
use crate::naive::rng::Rng;
use crate::naive::table::{Found, Kind, Parameter, Shape, at};
use crate::naive::{BASE, near, reference, string, token};

/// A modifier with its colon, or nothing, and a value.
type Asked = (String, String);

/// Whether the feature can be asked for of the parameter.
pub fn fits(parameter: &Parameter, feature: Feature) -> bool {
    use Feature as F;
    let shaped = |shapes: &[Shape]| parameter.elements.iter().all(|(_, shape)| shapes.contains(shape));
    match feature {
        F::StringBegin | F::StringExact | F::StringContains | F::StringText => parameter.kind == Kind::String,
        F::Token | F::TokenNot => parameter.kind == Kind::Token,
        F::TokenText => shaped(&[Shape::Concept, Shape::Coding, Shape::Identifier]),
        F::TokenIn | F::TokenNotIn | F::TokenAbove | F::TokenBelow | F::TokenCodeText => shaped(&[Shape::Concept, Shape::Coding]),
        F::TokenOfType => shaped(&[Shape::Identifier]),
        F::DateEquality | F::DateOrder | F::DateApproximate => parameter.kind == Kind::Date,
        F::NumberEquality | F::NumberOrder | F::NumberApproximate => parameter.kind == Kind::Number,
        F::QuantityNumber | F::MissingQuantity => parameter.kind == Kind::Quantity,
        F::QuantityUnit | F::QuantityUcum => shaped(&[Shape::Quantity]),
        F::QuantityMoney => shaped(&[Shape::Money]),
        F::Uri | F::UriBelow | F::UriAbove | F::UriContains | F::UriContainsAnyCase => parameter.kind == Kind::Uri,
        F::Reference | F::ReferenceType => shaped(&[Shape::Reference, Shape::ToPatient]),
        F::ReferenceIdentifier | F::ReferenceText => shaped(&[Shape::Reference]),
        F::ReferenceAbove | F::ReferenceBelow => ["organization", "service-provider", "location"].contains(&parameter.name),
        F::Canonical => shaped(&[Shape::Canonical]),
        // The other canonical references here have no version.
        F::CanonicalBelow => parameter.name == "questionnaire" && shaped(&[Shape::Canonical]),
        // Whether a death that is not recorded, a position or a reference whose type nobody knows is a value is open.
        F::Missing => {
            let open = [Shape::Deceased, Shape::DeceasedOrNot, Shape::ToPatient, Shape::Concept];
            !matches!(parameter.kind, Kind::Quantity | Kind::Near) && !shaped(&open)
        }
        F::MissingCode => parameter.elements.iter().any(|(_, shape)| *shape == Shape::Concept),
        F::Near => parameter.kind == Kind::Near,
        _ => false,
    }
}

/// Asks for the value, for something close to it, or for something that it should not be taken for.
pub fn value(asking: &mut Asking, feature: Feature, found: &Found) -> Option<Asked> {
    use Feature as F;
    let rng = &mut asking.rng;
    let bare = |value: String| Some((String::new(), value));
    match feature {
        F::StringBegin => bare(beginning(rng, found)?),
        F::StringExact => Some((":exact".to_owned(), exact(rng, found)?)),
        F::StringContains => Some((":contains".to_owned(), inside(rng, found)?)),
        F::StringText => Some((":text".to_owned(), word(rng, found)?)),
        F::Token => bare(token_value(rng, found)?),
        F::TokenNot => Some((":not".to_owned(), token_value(rng, found)?)),
        F::TokenText => Some((":text".to_owned(), token_text(rng, found)?)),
        F::TokenOfType => Some((":of-type".to_owned(), of_type(found.value)?)),
        F::TokenIn => Some((":in".to_owned(), value_set(asking))),
        F::TokenNotIn => Some((":not-in".to_owned(), value_set(asking))),
        F::TokenAbove => Some((":above".to_owned(), part_of_body(rng))),
        F::TokenBelow => Some((":below".to_owned(), part_of_body(rng))),
        F::TokenCodeText => Some((":code-text".to_owned(), code_beginning(rng, found)?)),
        F::DateEquality => bare(prefixed(rng, &["", "eq", "ne"], date)),
        F::DateOrder => bare(prefixed(rng, &["gt", "lt", "ge", "le", "sa", "eb"], date)),
        F::DateApproximate => bare(rng.pick(&["ap1950", "ap1950-03", "ap1900"]).to_string()),
        F::NumberEquality => bare(prefixed(rng, &["", "eq", "ne"], number)),
        F::NumberOrder => bare(prefixed(rng, &["gt", "lt", "ge", "le", "sa", "eb"], number)),
        F::NumberApproximate => bare(prefixed(rng, &["ap"], number)),
        F::QuantityNumber | F::QuantityUnit | F::QuantityUcum | F::QuantityMoney => bare(quantity(rng, feature, found)?),
        F::Uri => Some((String::new(), escape(found.value.as_str()?))),
        F::UriBelow => Some((":below".to_owned(), above(rng, found.value.as_str()?)?)),
        F::UriAbove => Some((":above".to_owned(), below(rng, found.value.as_str()?)?)),
        F::UriContains => Some((":contains".to_owned(), uri_part(rng, found.value.as_str()?))).filter(|(_, part)| !part.contains(BOTH_CASES)),
        F::UriContainsAnyCase => Some((":contains".to_owned(), uri_part(rng, found.value.as_str()?).to_uppercase())),
        F::Reference => bare(to(rng, found)?),
        F::ReferenceType => reference::local(found).map(|(type_name, id)| (format!(":{type_name}"), id.to_owned())),
        F::ReferenceIdentifier => by_identifier(rng, found),
        F::ReferenceText => Some((":text".to_owned(), display_beginning(rng, found)?)),
        F::ReferenceAbove => Some((":above".to_owned(), to(rng, found)?)),
        F::ReferenceBelow => Some((":below".to_owned(), whole(asking, found)?)),
        F::CanonicalBelow => Some((":below".to_owned(), canonical(rng, found.value.as_str()?))),
        F::Canonical => bare(canonical(rng, found.value.as_str()?)),
        F::Near => around(asking, found).map(|value| (String::new(), value)),
        _ => None,
    }
}

/// With a backslash before what separates.
pub fn escape(text: &str) -> String {
    text.chars().flat_map(|c| if ",|$\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

fn words(rng: &mut Rng, found: &Found) -> Option<String> {
    let texts = string::texts(found);
    if texts.is_empty() { None } else { Some((*rng.pick(&texts)).to_owned()) }
}

/// Now in capitals, now without accents.
fn disguised(rng: &mut Rng, text: &str) -> String {
    match rng.below(4) {
        0 => text.to_uppercase(),
        1 => string::plain(text),
        2 => text.to_lowercase(),
        _ => text.to_owned(),
    }
}

/// Some characters of the text, from this one on; whether white space around a value counts is left to servers.
fn cut(rng: &mut Rng, text: &str, from: usize) -> String {
    let rest: Vec<char> = text.chars().skip(from).collect();
    let length = 1 + rng.below(rest.len().max(1));
    rest.into_iter().take(length).collect::<String>().trim().to_owned()
}

fn beginning(rng: &mut Rng, found: &Found) -> Option<String> {
    let text = words(rng, found)?;
    // Sometimes not the beginning.
    let from = if rng.chance(15) { rng.below(2) } else { 0 };
    let part = cut(rng, &text, from);
    (!part.is_empty()).then(|| escape(&disguised(rng, &part)))
}

fn inside(rng: &mut Rng, found: &Found) -> Option<String> {
    let text = words(rng, found)?;
    let from = rng.below(text.chars().count());
    let part = cut(rng, &text, from);
    (!part.is_empty()).then(|| escape(&disguised(rng, &part)))
}

fn exact(rng: &mut Rng, found: &Found) -> Option<String> {
    let text = words(rng, found)?;
    Some(escape(&if rng.chance(30) { disguised(rng, &text) } else { text }))
}

/// In all four forms where the value has them.
fn token_value(rng: &mut Rng, found: &Found) -> Option<String> {
    let pairs = token::pairs(found);
    if pairs.is_empty() {
        return None;
    }
    let (system, code) = rng.pick(&pairs).clone();
    let code = escape(&if rng.chance(8) { code.to_uppercase() } else { code });
    let codings = matches!(found.shape, Shape::Coding | Shape::Concept | Shape::Identifier);
    Some(match (system, rng.below(5)) {
        (Some(system), 0) => format!("{}|", escape(&system)),
        (Some(system), 1 | 2) => format!("{}|{code}", escape(&system)),
        (_, 3) if codings => format!("|{code}"),
        _ => code,
    })
}

fn token_text(rng: &mut Rng, found: &Found) -> Option<String> {
    let texts = token::texts(found);
    if texts.is_empty() {
        return None;
    }
    let text = rng.pick(&texts).to_string();
    let part = cut(rng, &text, 0);
    let upper = rng.chance(50);
    Some(escape(&if upper { part.to_uppercase() } else { part }))
}

fn of_type(identifier: &Value) -> Option<String> {
    let coding = *at(identifier, "type.coding").first()?;
    let parts = [&coding["system"], &coding["code"], &identifier["value"]];
    Some(parts.map(|part| escape(part.as_str().unwrap())).join("|"))
}

/// One word of the text.
fn word(rng: &mut Rng, found: &Found) -> Option<String> {
    let words = string::words(&words(rng, found)?);
    let word = rng.pick(&words).clone();
    Some(if rng.chance(50) { word.to_uppercase() } else { word })
}

/// By URL, by URL and version, or by id.
fn value_set(asking: &mut Asking) -> String {
    let id = *asking.rng.pick(codes::value_sets(asking.resources.table.0));
    match asking.rng.below(4) {
        0 => format!("ValueSet/{id}"),
        1 => format!("{}|1.0", codes::url(id)),
        _ => codes::url(id),
    }
}

fn part_of_body(rng: &mut Rng) -> String {
    format!("{}|{}", codes::BODY, rng.pick(&["body", "limb", "limb", "arm", "leg", "hand", "finger", "foot", "head", "eye", "brain"]))
}

fn code_beginning(rng: &mut Rng, found: &Found) -> Option<String> {
    let pairs = token::pairs(found);
    let code = (!pairs.is_empty()).then(|| rng.pick(&pairs).1.clone())?;
    let part = cut(rng, &code, 0);
    Some(escape(&disguised(rng, &part)))
}

fn display_beginning(rng: &mut Rng, found: &Found) -> Option<String> {
    let part = cut(rng, found.value["display"].as_str()?, 0);
    (!part.is_empty()).then(|| escape(&disguised(rng, &part)))
}

/// The letters that the URLs here have in both cases.
const BOTH_CASES: [char; 6] = ['c', 'C', 'f', 'F', 's', 'S'];

fn uri_part(rng: &mut Rng, url: &str) -> String {
    let from = rng.below(url.len());
    escape(&cut(rng, url, from))
}

fn prefixed(rng: &mut Rng, prefixes: &[&str], value: impl Fn(&mut Rng) -> String) -> String {
    format!("{}{}", rng.pick(prefixes), value(rng))
}

fn date(rng: &mut Rng) -> String {
    const ASKED: &[&str] = &[
        "2020",
        "2019",
        "1950",
        "2021",
        "2020-05",
        "2020-06",
        "2020-12",
        "1950-03",
        "2020-05-01",
        "2020-05-31",
        "2019-12-31",
        "2020-02-29",
        "2021-01-01",
        "2020-05-02",
        "2020-05-01T10:00",
        "2020-05-01T10:00:00",
        "2020-05-01T10:00:00Z",
        "2020-05-01T12:00:00+02:00",
        "2020-05-02T04:30Z",
        "2020-05-02T04:30:00.250Z",
        "2020-05-02T00:00:00-04:30",
        "2021-01-01T00:00:00.5Z",
        "2020-12-31T23:59:59Z",
        "2021-01-01T00:59+01:00",
        "2020-05-01T10:00:00.125Z",
        "1900",
    ];
    rng.pick(ASKED).to_string()
}

fn number(rng: &mut Rng) -> String {
    const ASKED: &[&str] = &[
        "0", "0.0", "0.5", "0.50", "0.500", "0.45", "0.55", "0.549", "1", "1.00", "1.0", "-2", "-2.0", "-0.1", "-1", "1e-3", "0.001", "10", "1e1", "1e2",
        "99.5", "100", "100.0", "100.4", "110", "109", "91", "0.0000", "0.00001", "1.0e2", "0.95", "1.1",
    ];
    rng.pick(ASKED).to_string()
}

fn quantity(rng: &mut Rng, feature: Feature, found: &Found) -> Option<String> {
    const ORDER: &[&str] = &["", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];
    let near = if rng.chance(50) { found.value["value"].to_string() } else { number(rng) };
    let asked = |rng: &mut Rng, near: &str| format!("{}{near}", rng.pick(ORDER));
    let text = |name: &str| found.value[name].as_str().map(escape);
    match feature {
        Feature::QuantityNumber => Some(asked(rng, &near)),
        Feature::QuantityUnit => {
            let unit = if rng.chance(50) { text("code") } else { text("unit") };
            Some(format!("{}||{}", asked(rng, &near), unit?))
        }
        Feature::QuantityMoney => {
            let system = if rng.chance(50) { CURRENCY } else { "" };
            Some(format!("{}|{system}|{}", asked(rng, &near), text("currency")?))
        }
        _ => ucum(rng, found.value),
    }
}

/// Often the same amount in another unit.
fn ucum(rng: &mut Rng, value: &Value) -> Option<String> {
    const ORDER: &[&str] = &["", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"];
    const SAME: &[(&str, &str)] = &[
        ("g", "1"),
        ("mg", "1000"),
        ("kg", "1e-3"),
        ("mol/L", "1"),
        ("mmol/L", "1000"),
        ("umol/L", "1e6"),
        ("h", "1"),
        ("min", "60"),
        ("s", "3600"),
        ("mmol/L", "10"),
        ("mg", "500"),
        ("mg", "1.00"),
        ("g", "0.1"),
        ("s", "60"),
        ("min", "0.5"),
    ];
    let system = value["system"].as_str()?;
    let prefix = *rng.pick(ORDER);
    if system != UCUM || rng.chance(40) {
        let code = escape(value["code"].as_str()?);
        return Some(format!("{prefix}{}|{system}|{code}", value["value"]));
    }
    let (code, amount) = *rng.pick(SAME);
    Some(format!("{prefix}{amount}|{system}|{code}"))
}

/// Something that contains the URL, or the URL itself. Only URLs contain others: a URN has no segments.
fn above(rng: &mut Rng, url: &str) -> Option<String> {
    if !url.starts_with("http") {
        return None;
    }
    let ends: Vec<usize> = url.match_indices('/').map(|(n, _)| n).filter(|n| *n > "http://".len()).collect();
    if ends.is_empty() || rng.chance(20) {
        return Some(url.to_owned());
    }
    Some(url[..*rng.pick(&ends)].to_owned())
}

fn below(rng: &mut Rng, url: &str) -> Option<String> {
    url.starts_with("http").then(|| format!("{url}{}", rng.pick(&["", "/1", "/_history/5"])))
}

fn to(rng: &mut Rng, found: &Found) -> Option<String> {
    let Some((type_name, id)) = reference::local(found) else {
        return found.value["reference"].as_str().filter(|_| found.shape == Shape::Reference).map(escape);
    };
    Some(match rng.below(4) {
        0 => id.to_owned(),
        1 => format!("{BASE}/{type_name}/{id}"),
        _ => format!("{type_name}/{id}"),
    })
}

/// What is referred to, or what that is a part of.
fn whole(asking: &mut Asking, found: &Found) -> Option<String> {
    let resources = asking.resources;
    let upper = reference::targets(resources, found).first().map(|target| resources.table.found(target, "partof")).unwrap_or_default();
    if upper.is_empty() || asking.rng.chance(30) {
        return to(&mut asking.rng, found);
    }
    to(&mut asking.rng, &upper[0])
}

fn by_identifier(rng: &mut Rng, found: &Found) -> Option<Asked> {
    let value = found.value.get("identifier")?;
    Some((":identifier".to_owned(), token_value(rng, &Found { value, shape: Shape::Identifier })?))
}

fn canonical(rng: &mut Rng, there: &str) -> String {
    let url = there.split('|').next().unwrap();
    format!("{url}{}", rng.pick(&["", "|1.0", "|2", "|1", "|1.1"]))
}

/// Around a position or north or south of it, but never so that the shape of the earth decides.
fn around(asking: &mut Asking, place: &Found) -> Option<String> {
    let distance = *asking.rng.pick(&["1|km", "12|km", "45|km", "60|km", "60000|m", "900|m", "9000|km", "17000|km"]);
    let shift = *asking.rng.pick(&[1.0, 1.0, 0.9, 0.2]);
    let latitude = place.value["latitude"].to_string().parse::<f64>().unwrap() * shift;
    let text = format!("{latitude:.3}|{}|{distance}", place.value["longitude"]);
    let places = asking.resources.of_type("Location").flat_map(|location| asking.resources.table.found(location, "near"));
    let close_call = places.into_iter().any(|other| near::is_close_call(&other, &text));
    (!close_call).then_some(text)
}
