//! Search parameters of a simulator's own: SearchParameter resources that are stored in it and active,
//! <https://hl7.org/fhir/R4/searchparameter.html>.

use std::sync::Arc;

use serde_json::Value;

use super::condition::is_special;
use super::params::{Only, Param, TypeParams};
use super::parse::{RESULT, RESULT_R5};
use super::path::library::{Expression, excess};
use super::path::{Path, Ty};
use crate::fhir::definitions::ParamType;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind};

/// A parameter and the type it is for.
pub type OfType = (&'static str, Arc<Param>);

/// What a SearchParameter of a simulator's own makes: its id, its URL, and how it compares.
#[derive(Debug)]
pub struct Known {
    id: String,
    url: String,
    /// One of the parameters, since all that it makes are alike in what a composite wants of them; none of a composite.
    part: Option<Arc<Param>>,
}

impl Known {
    /// What `resource`, which is active, makes, if it makes anything.
    #[must_use]
    pub fn of(resource: &Value, definitions: &'static Definitions) -> Option<Self> {
        let text = |name: &str| resource.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, url) = (text("id"), text("url"));
        if is_composite(resource) {
            return Some(Self { id, url, part: None });
        }
        let made = read(resource, definitions, &[]).unwrap_or_default();
        made.into_iter().next().map(|(_, part)| Self { id, url, part: Some(part) })
    }
}

/// Whether a SearchParameter makes composites, which are made of other parameters.
#[must_use]
pub fn is_composite(resource: &Value) -> bool {
    resource.get("type").and_then(Value::as_str) == Some(ParamType::Composite.code())
}

/// The URLs of the definitions that a composite is made of.
pub fn parts(resource: &Value) -> impl Iterator<Item = &str> {
    let components = resource.get("component").and_then(Value::as_array).into_iter().flatten();
    components.filter_map(|component| definition(component).split('|').next())
}

/// What a component is defined by: a canonical, or a reference before R4.
fn definition(component: &Value) -> &str {
    let definition = component.get("definition").map(|d| d.get("reference").unwrap_or(d));
    definition.and_then(Value::as_str).unwrap_or_default()
}

/// Whether a SearchParameter that is active makes nothing for it restates one of the specification's.
fn is_theirs(resource: &Value, definitions: &Definitions) -> bool {
    let url = resource.get("url").and_then(Value::as_str).unwrap_or_default();
    url.strip_prefix("http://hl7.org/fhir/SearchParameter/").is_some_and(|name| definitions.search_param(name).is_some())
}

/// The names of the parameters that a SearchParameter makes where it is active, each with the type, such as `Patient/eye-colour`.
#[must_use]
pub fn names(resource: &Value, definitions: &'static Definitions) -> Vec<String> {
    let code = resource.get("code").and_then(Value::as_str).unwrap_or_default();
    let types = if is_theirs(resource, definitions) { Vec::new() } else { types(resource, definitions).unwrap_or_default() };
    types.into_iter().filter(|of| TypeParams::of(definitions.version(), of).get(code).is_none()).map(|of| format!("{of}/{code}")).collect()
}

/// The parameters that a SearchParameter makes, each with the type it is for; none if it is not active, or the
/// specification has it already. A composite may be made of the specification's parameters and of `own`.
///
/// # Errors
/// It is active and cannot be searched by: what is wrong, and in which element.
pub fn read(resource: &Value, definitions: &'static Definitions, own: &[Known]) -> Result<Vec<OfType>, Failure> {
    let text = |name: &str| resource.get(name).and_then(Value::as_str);
    let bad = |element: &str, message: String| Failure::new(Kind::Unprocessable, message).at(format!("SearchParameter.{element}"));
    if text("status") != Some("active") {
        return Ok(Vec::new());
    }
    // Without a URL of its own, it is known by where it lies.
    let url = text("url").map_or_else(|| format!("SearchParameter/{}", text("id").unwrap_or_default()), str::to_owned);
    if is_theirs(resource, definitions) {
        return Ok(Vec::new());
    }
    let Some(expression) = text("expression").filter(|e| !e.trim().is_empty()) else {
        let message = "SearchParameter.expression is missing: an active parameter is found by it; without it, give the status 'draft'";
        return Err(bad("expression", message.to_owned()));
    };
    if let Some(excess) = excess(expression) {
        return Err(bad("expression", format!("SearchParameter.expression {excess}")));
    }
    if let Some(hint) = choice(expression, definitions) {
        return Err(bad("expression", format!("SearchParameter.expression '{}': {hint}", clip(expression))));
    }
    let code = code(text("code"), definitions.version())?;
    let kind = text("type").unwrap_or_default();
    let kind = match ParamType::from_code(kind) {
        Some(ParamType::Special) | None => {
            let known = "number, date, string, token, reference, composite, quantity or uri";
            return Err(bad("type", format!("SearchParameter.type is '{}'; an active parameter with an expression is {known}", clip(kind))));
        }
        Some(kind) => kind,
    };
    let strings = |name: &str| resource.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let types = types(resource, definitions)?;
    let targets: Vec<&'static str> = strings("target").filter_map(|t| definitions.find_resource_type(t)).collect();
    let only = Only { modifiers: strings("modifier").map(Box::from).collect(), comparators: strings("comparator").map(Box::from).collect() };
    let mut made = Vec::with_capacity(types.len());
    for type_name in types {
        // The specification's own, which others of the same name restate or profile, stay as they are.
        if TypeParams::of(definitions.version(), type_name).get(code).is_some() {
            continue;
        }
        let name: Box<str> = format!("{type_name}/{code}").into();
        let (path, whole) = if let Ok(path) = Path::compile(expression, type_name, definitions) {
            (path, None)
        } else {
            // The subset has no word for it: the whole language may.
            let whole = Expression::compile(expression, type_name, definitions)
                .map_err(|e| bad("expression", format!("SearchParameter.expression '{}': {e}", clip(expression))))?;
            (Path::nothing(definitions), Some(whole))
        };
        let components = if kind == ParamType::Composite { components(resource, type_name, &name, &path, definitions, own)? } else { Vec::new() };
        made.push((
            type_name,
            Arc::new(Param {
                code: code.into(),
                kind,
                targets: targets.clone(),
                url: url.as_str().into(),
                name,
                expression: expression.into(),
                path,
                whole,
                components,
                has_part_keys: true,
                only: only.clone(),
            }),
        ));
    }
    can_find(&made, kind, expression, definitions)?;
    Ok(made)
}

/// Proves that one of the parameters that an expression makes, if it makes any, can find something.
fn can_find(made: &[(&str, Arc<Param>)], kind: ParamType, expression: &str, definitions: &Definitions) -> Result<(), Failure> {
    let bad = |element: &str, message: String| Err(Failure::new(Kind::Unprocessable, message).at(format!("SearchParameter.{element}")));
    if made.is_empty() {
        return Ok(());
    }
    let nowhere = made.iter().find_map(|(_, param)| param.path.nowhere.filter(|_| param.whole.is_none()));
    if nowhere.is_some() || made.iter().all(|(_, param)| param.whole.is_none() && param.path.is_empty()) {
        let types: Vec<&str> = made.iter().map(|(t, _)| *t).collect();
        let place = nowhere.map(|at| format!(" at position {at}")).unwrap_or_default();
        let message =
            format!("SearchParameter.expression '{}' names no element of {}{place}; see the type's elements", clip(expression), clip(&types.join(", ")));
        return bad("expression", message);
    }
    if !made.iter().any(|(_, param)| suits(param, definitions)) {
        let mut found: Vec<&str> = made.iter().flat_map(|(_, param)| param.path.types.iter().map(Ty::name)).collect();
        found.sort_unstable();
        found.dedup();
        let message = format!(
            "SearchParameter.type is '{}', whose values are of type {}; SearchParameter.expression '{}' gives {}",
            kind.code(),
            value_types(kind).join(", "),
            clip(expression),
            clip(&found.join(", "))
        );
        return bad("type", message);
    }
    Ok(())
}

/// How FHIRPath says what an expression calls by its name in JSON, such as `valueQuantity`: no element is called so.
fn choice(expression: &str, definitions: &Definitions) -> Option<String> {
    let code = code_of(expression);
    let names = code.split(|c: char| !c.is_ascii_alphanumeric());
    let of = |name: &str| {
        let (at, _) = name.char_indices().find(|(_, c)| c.is_ascii_uppercase()).filter(|(at, _)| *at > 0)?;
        let mut ends = name.char_indices().filter(|(n, c)| *n >= at && c.is_ascii_uppercase()).map(|(n, _)| name.split_at(n));
        let last = |path: &'static str| path.trim_end_matches("[x]").rsplit('.').next();
        let elements = || definitions.types().flat_map(|def| def.elements.iter());
        if elements().any(|e| !e.path.ends_with("[x]") && last(e.path) == Some(name)) {
            return None;
        }
        ends.find_map(|(element, ty)| {
            let plain = format!("{}{}", ty[..1].to_ascii_lowercase(), &ty[1..]);
            let known = definitions.type_def(ty).or_else(|| definitions.type_def(&plain))?;
            let is_one = elements().any(|e| e.path.ends_with("[x]") && last(e.path) == Some(element));
            is_one.then(|| format!("'{name}' is its name in JSON: in FHIRPath it is {element}.ofType({})", known.name))
        })
    };
    names.into_iter().find_map(of)
}

/// An expression with blanks in place of what is quoted and of comments.
fn code_of(expression: &str) -> String {
    let mut code = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '\'' | '"' | '`' => {
                let mut is_escaped = false;
                let end = rest[1..].find(|next| {
                    let ends = next == c && !is_escaped;
                    is_escaped = next == '\\' && !is_escaped;
                    ends
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            other => {
                code.push(other);
                rest = &rest[other.len_utf8()..];
                continue;
            }
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

/// The types whose values a parameter of this type finds, <https://hl7.org/fhir/R5/search.html#table>, and `string` where a text
/// is read as a date or a reference; empty for those that find texts of many types.
fn value_types(kind: ParamType) -> &'static [&'static str] {
    match kind {
        ParamType::Number => &["integer", "positiveInt", "unsignedInt", "integer64", "decimal", "Range", "Duration"],
        ParamType::Date => &["date", "dateTime", "instant", "Period", "Timing", "string"],
        ParamType::Quantity => &["Quantity", "SimpleQuantity", "MoneyQuantity", "Age", "Count", "Distance", "Duration", "Money", "Range", "SampledData"],
        ParamType::Reference => &["Reference", "CodeableReference", "canonical", "uri", "url", "string"],
        ParamType::Token | ParamType::String | ParamType::Composite | ParamType::Uri | ParamType::Special => &[],
    }
}

/// Whether values of the parameter's expression can be of a type that the parameter finds; `true` where that is not known. A
/// resource within a Bundle is referred to by being there.
pub(super) fn suits(param: &Param, definitions: &Definitions) -> bool {
    let (suitable, types) = (value_types(param.kind), &param.path.types);
    let suits = |name: &str| suitable.contains(&name) || name == "Extension" || (param.kind == ParamType::Reference && definitions.is_a(name, "Resource"));
    suitable.is_empty() || param.whole.is_some() || types.is_empty() || types.iter().any(|ty| suits(ty.name()))
}

/// What a URL calls the parameter.
fn code(code: Option<&str>, version: FhirVersion) -> Result<&str, Failure> {
    let code = code.unwrap_or_default();
    let bad = |message: String| Err(Failure::new(Kind::Unprocessable, message).at("SearchParameter.code"));
    if code.is_empty() || code.len() > 64 || !code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return bad(format!("SearchParameter.code is '{}'; it is what a URL says, and may have up to 64 letters, digits, - and _", clip(code)));
    }
    if RESULT.contains(&code) || RESULT_R5.contains(&code) || code == "_has" || is_special(code, version) {
        return bad(format!("SearchParameter.code '{code}' is a parameter of every search; choose another, such as 'my{code}'"));
    }
    Ok(code)
}

/// The types that have the parameter.
fn types(resource: &Value, definitions: &'static Definitions) -> Result<Vec<&'static str>, Failure> {
    let bad = |message: String| Failure::new(Kind::Unprocessable, message).at("SearchParameter.base");
    let mut types: Vec<&'static str> = Vec::new();
    for base in resource.get("base").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        match base {
            "Resource" | "DomainResource" => types.extend(definitions.resource_types().iter().filter(|t| definitions.is_a(t, base))),
            _ => types.push(definitions.resource_type(base).map_err(|f| bad(f.diagnostics))?),
        }
    }
    if types.is_empty() {
        return Err(bad("SearchParameter.base is missing; it names the types that have the parameter".to_owned()));
    }
    types.sort_unstable();
    types.dedup();
    Ok(types)
}

fn components(
    resource: &Value,
    type_name: &'static str,
    name: &str,
    path: &Path,
    definitions: &'static Definitions,
    own: &[Known],
) -> Result<Vec<Arc<Param>>, Failure> {
    let bad = |at: &str, message: String| Failure::new(Kind::Unprocessable, format!("SearchParameter.{at}.{message}")).at(format!("SearchParameter.{at}"));
    let mut made = Vec::new();
    for (number, component) in resource.get("component").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let url = definition(component);
        let at = format!("component[{number}]");
        let canonical = url.split('|').next().unwrap_or_default();
        let last = canonical.rsplit('/').next().unwrap_or_default();
        let is_own = |known: &&Known| {
            (!canonical.is_empty() && known.url == canonical) || (canonical.ends_with(&format!("SearchParameter/{}", known.id)) && known.id == last)
        };
        let own = own.iter().find(is_own).map(|known| &known.part);
        // STU3 names some by the type and the code.
        let by_code = || last.split_once('-').and_then(|(of, code)| definitions.search_params(of).find(|p| p.code == code));
        let theirs = definitions.search_param(last).or_else(by_code);
        let (code, kind, targets) = match (own, theirs) {
            (Some(None), _) => return Err(bad(&at, format!("definition '{}' is a composite itself", clip(url)))),
            (Some(Some(part)), _) => (part.code.clone(), part.kind, part.targets.clone()),
            (None, Some(part)) => (part.code.into(), part.kind, part.targets.clone()),
            (None, None) => {
                let what = "neither one of the specification's search parameters nor an active one stored before in this simulator";
                return Err(bad(&at, format!("definition '{}' is {what}; store that first", clip(url))));
            }
        };
        let expression = component.get("expression").and_then(Value::as_str).unwrap_or_default();
        let named = |why: String| bad(&at, format!("expression '{}'{why}", clip(expression)));
        if let Some(hint) = choice(expression, definitions) {
            return Err(named(format!(": {hint}")));
        }
        let below = Path::compile_below(expression, type_name, &path.types, definitions).map_err(|e| named(format!(": {e}")))?;
        let part = Param {
            code,
            kind,
            targets,
            url: url.into(),
            name: format!("{name}${number}").into(),
            expression: expression.into(),
            path: below,
            whole: None,
            components: Vec::new(),
            has_part_keys: false,
            only: Only::default(),
        };
        // A composite of several types has parts that one of them lacks.
        if part.path.is_empty() && !path.is_empty() {
            return Err(named(format!(" names no element of what {name} is of")));
        }
        if !part.path.is_empty() && !suits(&part, definitions) {
            return Err(named(format!(" gives no {}, which is what '{}' compares", value_types(kind).join(", "), clip(url))));
        }
        made.push(Arc::new(part));
    }
    if made.is_empty() { Err(bad("component", "is missing; a composite parameter has components".to_owned())) } else { Ok(made) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_outside_of_quotes_and_comments() {
        for (expression, expected) in [
            ("a.where(use='x\\'valueString').b", "a.where(use= ).b"),
            ("a // valueString\nb /* valueString */ | `valueString`.c", "a  \nb   |  .c"),
            ("a.where(url='valueString", "a.where(url= "),
        ] {
            assert_eq!(code_of(expression), expected);
        }
        let definitions = Definitions::of(FhirVersion::R4);
        assert!(choice("Patient.deceasedBoolean", definitions).is_some() && choice("Patient.name.where(use='valueString')", definitions).is_none());
    }

    #[test]
    fn the_specifications_parameters_are_about_the_types_that_theirs_finds() {
        let mut odd = Vec::new();
        for version in FhirVersion::ALL {
            let definitions = Definitions::of(version);
            for type_name in definitions.resource_types() {
                let params = TypeParams::of(version, type_name);
                odd.extend(params.list.iter().filter(|p| !suits(p, definitions)).map(|p| format!("{version} {}", p.name)));
            }
        }
        assert_eq!(odd, [""; 0]);
    }
}
