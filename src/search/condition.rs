//! What a search asks of a resource, its values still text; and how a parameter's name is read as such a condition.

use std::sync::Arc;

use super::filter;
use super::param::{split_unescaped, token};
use super::params::{Param, Params};
use super::parse::{MAX_VALUES, Modifier, no_value};
use crate::fhir::definitions::{ParamType, nearest};
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::query::{Text, TextField};

/// Most steps of one chain.
pub const MAX_STEPS: usize = 32;

/// One condition.
#[derive(Clone, Debug)]
pub enum Condition {
    /// A search parameter has one of these values.
    Param {
        /// Its name.
        code: String,
        /// How it compares.
        modifier: Modifier,
        /// Alternatives; escapes not yet undone.
        values: Vec<String>,
    },
    /// A search parameter stands in a relation that only `_filter` knows.
    Relation {
        /// Its name.
        code: String,
        /// The relation.
        relation: filter::Relation,
        /// The value, without escapes.
        value: String,
    },
    /// `subject:Patient.name`: what a reference refers to fulfils a condition.
    Chain {
        /// The reference's parameter.
        code: String,
        /// The types that are followed.
        targets: Vec<&'static str>,
        /// The condition.
        then: Box<Condition>,
    },
    /// `_has:Observation:patient:code`: something that refers here fulfils a condition.
    Has {
        /// Its type.
        source: &'static str,
        /// Its reference's parameter.
        code: String,
        /// The condition.
        then: Box<Condition>,
    },
    /// `_list`: one of these Lists, or functional lists such as `$current-problems`.
    List(Vec<String>),
    /// `_in`: a member of one of these Groups, Lists or CareTeams.
    In(Vec<String>),
    /// `_text`, `_content`.
    Text(TextField, Arc<Text>),
    /// The resource belongs to the compartment of another.
    Compartment(&'static str, String),
    /// The resource belongs to the compartment of some resource of this type.
    Compartments(&'static str),
    /// The date of care that the resource tells, if it tells one, is in this time.
    CareDate {
        /// Not before.
        start: Option<String>,
        /// Not after.
        end: Option<String>,
    },
    /// All of them.
    All(Vec<Condition>),
    /// Any of them.
    Any(Vec<Condition>),
    /// Not it.
    Not(Box<Condition>),
}

impl Condition {
    /// The references that it follows from resources of `types`, each with the type that holds it.
    pub fn follows<'c>(&'c self, types: &[&'static str], found: &mut Vec<(&'static str, &'c str)>) {
        match self {
            Self::Chain { code, targets, then } => {
                found.extend(types.iter().map(|of| (*of, code.as_str())));
                then.follows(targets, found);
            }
            Self::Has { source, code, then } => {
                found.push((*source, code));
                then.follows(&[*source], found);
            }
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.follows(types, found)),
            Self::Not(part) => part.follows(types, found),
            Self::Param { .. }
            | Self::Relation { .. }
            | Self::List(_)
            | Self::In(_)
            | Self::Text(..)
            | Self::Compartment(..)
            | Self::Compartments(_)
            | Self::CareDate { .. } => {}
        }
    }
}

/// A condition; or, inside, why the parameter is left out.
pub type Read = Result<Result<Condition, Failure>, Failure>;

/// Reads the parameters of a search of `types`.
pub struct Reader<'a> {
    /// The simulator's parameters.
    pub params: &'a Params,
    /// The types searched.
    pub types: &'a [&'static str],
    /// Whether it is enough if one of them has a parameter: at the end of a chain. Else all must.
    pub any: bool,
    /// How many steps of a chain led here.
    pub depth: usize,
}

/// Whether a parameter is one of those that no definition tells how to evaluate.
#[must_use]
pub fn is_special(name: &str, version: FhirVersion) -> bool {
    matches!(name, "_filter" | "_text" | "_content" | "_list" | "_query") || name == "_in" && version == FhirVersion::R5
}

impl Reader<'_> {
    fn version(&self) -> FhirVersion {
        self.params.version
    }

    /// Reads the parameters of what a reference leads to.
    #[must_use]
    pub fn there<'b>(&'b self, types: &'b [&'static str]) -> Reader<'b> {
        Reader { params: self.params, types, any: true, depth: self.depth + 1 }
    }

    /// The condition that the parameter `name` with `value` makes.
    ///
    /// # Errors
    /// The search must be refused.
    pub fn read(&self, name: &str, value: &str) -> Read {
        if self.depth > MAX_STEPS {
            return Err(Failure::new(Kind::TooCostly, format!("more than {MAX_STEPS} steps in one chain")));
        }
        if let Some(rest) = name.strip_prefix("_has:") {
            return self.has(rest, &mut |there, rest| there.read(rest, value));
        }
        if let Some((special, modifier)) = name.split_once(':')
            && is_special(special, self.version())
        {
            let message = format!("modifier '{}' is not supported for '{special}'; known here: none", clip(modifier));
            return Err(Failure::new(Kind::NotSupported, message));
        }
        if value.is_empty() {
            return Ok(Err(no_value(name)));
        }
        match name {
            "_has" => {
                let message = format!(
                    "_has '{}' was left out: write _has:[type]:[reference]:[parameter]=[value], such as _has:Observation:patient:code=1234-5",
                    clip(value)
                );
                return Ok(Err(Failure::new(Kind::NotSupported, message)));
            }
            "_filter" => return filter::read(self, value).map(Ok),
            "_text" | "_content" => return text(name, value).map(Ok),
            "_list" => return some(name, value).map(|lists| lists.map(Condition::List)),
            "_in" if self.version() == FhirVersion::R5 => return some(name, value).map(|holders| holders.map(Condition::In)),
            "_query" => {
                let message = format!("_query '{}' is not supported: this server has no named queries; use search parameters or _filter", clip(value));
                return Err(Failure::new(Kind::NotSupported, message));
            }
            _ => {}
        }
        if let Some((head, rest)) = name.split_once('.') {
            return self.chain(head, rest, value);
        }
        self.plain(name, value)
    }

    fn plain(&self, name: &str, value: &str) -> Read {
        let (code, modifier) = match name.split_once(':') {
            Some((code, modifier)) => (code, Some(modifier)),
            None => (name, None),
        };
        let Some(params) = self.with(code) else { return Ok(Err(self.unknown(code))) };
        let modifier = match modifier {
            None => Modifier::None,
            Some(text) => self.modifier(&params, text)?,
        };
        if modifier == Modifier::Missing && !matches!(value, "true" | "false") {
            return Err(Failure::new(Kind::BadValue, format!("'{name}' must be true or false, but is '{}'", clip(value))));
        }
        let values = match some(name, value)? {
            Ok(values) => values,
            Err(none) => return Ok(Err(none)),
        };
        if matches!(modifier, Modifier::None | Modifier::Not)
            && let Some(expected) = values.iter().find_map(|value| token::misread(&params, value))
        {
            return Err(expected);
        }
        Ok(Ok(Condition::Param { code: code.to_owned(), modifier, values }))
    }

    /// The parameter `code` of the types searched, if they have it.
    #[must_use]
    pub fn with(&self, code: &str) -> Option<Vec<&Arc<Param>>> {
        let found: Vec<&Arc<Param>> = self.types.iter().filter_map(|t| self.params.of(t).get(code)).collect();
        let enough = if self.any { !found.is_empty() } else { found.len() == self.types.len() };
        enough.then_some(found)
    }

    fn modifier(&self, params: &[&Arc<Param>], text: &str) -> Result<Modifier, Failure> {
        let version = self.version();
        let known = |param: &Arc<Param>| Modifier::of(param, version).into_iter().find(|(name, _)| *name == text).map(|(_, modifier)| modifier);
        // At the end of a chain it is enough if one of the types has it; the others have no match.
        if let Some(modifier) = params.iter().find_map(|p| known(p)).filter(|_| self.any || params.iter().all(|p| known(p).is_some())) {
            return Ok(modifier);
        }
        if let Some(type_name) = self.params.definitions().find_resource_type(text)
            && params.iter().any(|p| p.kind == ParamType::Reference && p.can_target(type_name) && p.only.has_modifier("type"))
        {
            return Ok(Modifier::Type(type_name));
        }
        let param = params.iter().find(|p| known(p).is_none()).unwrap_or(&params[0]);
        let names: Vec<&str> = Modifier::of(param, version).iter().map(|(name, _)| *name).collect();
        let more = if param.kind == ParamType::Reference && param.only.has_modifier("type") { ", or the name of a type it can refer to" } else { "" };
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(Failure::new(
            Kind::NotSupported,
            format!("modifier '{}' is not supported for the {} parameter '{}'; known here: {known}{more}", clip(text), param.kind.code(), param.code),
        ))
    }

    /// `head` is a reference with or without a type, `rest` the parameter of what it refers to.
    fn chain(&self, head: &str, rest: &str, value: &str) -> Read {
        let (code, targets) = match self.targets(head)? {
            Ok(found) => found,
            Err(ignored) => return Ok(Err(ignored)),
        };
        let then = self.there(&targets).read(rest, value).map_err(|f| in_chain(head, f))?;
        let step = rest.split([':', '.']).next().unwrap_or_default();
        let leads_on = |t: &&'static str| step.starts_with("_has") || is_special(step, self.version()) || self.params.of(t).get(step).is_some();
        let targets: Vec<&'static str> = targets.iter().copied().filter(leads_on).collect();
        Ok(then.map(|then| Condition::Chain { code, targets, then: Box::new(then) }).map_err(|f| in_chain(head, f)))
    }

    /// The parameter of a reference and the types that it leads to.
    ///
    /// # Errors
    /// It is no reference, or cannot refer to the type named.
    pub fn targets(&self, head: &str) -> Result<Result<(String, Vec<&'static str>), Failure>, Failure> {
        let (code, type_name) = match head.split_once(':') {
            Some((code, type_name)) => (code, Some(type_name)),
            None => (head, None),
        };
        let Some(params) = self.with(code) else { return Ok(Err(self.unknown(code))) };
        if let Some(param) = params.iter().find(|_| params.iter().all(|p| p.kind != ParamType::Reference)) {
            let message = format!("'{}' is a {} parameter: only references can be followed by a chain", param.code, param.kind.code());
            return Err(Failure::new(Kind::BadValue, message));
        }
        let definitions = self.params.definitions();
        let references = params.iter().filter(|p| p.kind == ParamType::Reference);
        let mut targets: Vec<&'static str> = references.flat_map(|p| p.target_types(definitions)).collect();
        targets.sort_unstable();
        targets.dedup();
        if let Some(name) = type_name {
            let bad = |f: Failure| {
                let diagnostics = format!("'{}': {}; '{code}' refers to {}", clip(head), f.diagnostics, targets.join(", "));
                Failure { kind: Kind::BadValue, diagnostics, ..f }
            };
            let wanted = definitions.resource_type(name).map_err(bad)?;
            if !targets.contains(&wanted) {
                let message = format!("'{code}' cannot refer to a {wanted}; it refers to {}", targets.join(", "));
                return Err(Failure::new(Kind::BadValue, message));
            }
            targets = vec![wanted];
        }
        Ok(Ok((code.to_owned(), targets)))
    }

    /// `Observation:patient:code`.
    /// What `_has:` is followed by; `then` reads what is asked of those that refer.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn has(&self, text: &str, then: &mut dyn FnMut(&Reader<'_>, &str) -> Read) -> Read {
        let mut parts = text.splitn(3, ':');
        let (Some(type_name), Some(code), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            let message = format!("'_has:{}' must be _has:[type]:[reference]:[parameter], such as _has:Observation:patient:code", clip(text));
            return Err(Failure::new(Kind::BadValue, message));
        };
        let bad = |f: Failure| Failure { kind: Kind::BadValue, ..in_chain(&format!("_has:{}", clip(text)), f) };
        let source = self.params.definitions().resource_type(type_name).map_err(bad)?;
        let types = [source];
        let there = self.there(&types);
        let Some(&param) = there.with(code).as_deref().and_then(<[_]>::first) else { return Ok(Err(in_chain("_has", there.unknown(code)))) };
        if param.kind != ParamType::Reference || !self.types.iter().any(|t| param.can_target(t)) {
            let message = format!("_has: '{source}.{code}' does not refer to {}", clip(&self.types.join(", ")));
            return Err(Failure::new(Kind::BadValue, message));
        }
        Ok(then(&there, rest).map_err(|f| in_chain("_has", f))?.map_err(|f| in_chain("_has", f)).map(|then| Condition::Has {
            source,
            code: code.to_owned(),
            then: Box::new(then),
        }))
    }

    /// Why a parameter is unknown.
    #[must_use]
    pub fn unknown(&self, code: &str) -> Failure {
        let of = match self.types[..] {
            [one] => format!(" for {one}"),
            _ => " for all the types searched".to_owned(),
        };
        let definitions = self.params.definitions();
        let defined = self.types.iter().any(|t| definitions.search_params(t).any(|p| p.code == code));
        if defined && self.types.len() == 1 {
            return Failure::new(Kind::NotSupported, format!("search parameter '{}'{of} is not supported by this server", clip(code)));
        }
        let mut known: Vec<&Arc<Param>> = self.types.first().map(|t| self.params.of(t).list.iter().collect()).unwrap_or_default();
        known.retain(|p| self.with(&p.code).is_some());
        let mut message = format!("unknown search parameter '{}'{of}", clip(code));
        if let Some(near) = nearest(code, known.iter().map(|p| &*p.code)) {
            message.push_str(&format!("; did you mean '{near}'?"));
        } else {
            let names: Vec<&str> = known.iter().map(|p| &*p.code).collect();
            message.push_str(&format!("; known: {}", names.join(", ")));
        }
        Failure::new(Kind::NotSupported, message)
    }
}

fn in_chain(head: &str, failure: Failure) -> Failure {
    // Of a long chain, the end says enough.
    if failure.diagnostics.len() > 400 {
        return failure;
    }
    Failure { diagnostics: format!("{}: {}", clip(head), failure.diagnostics), ..failure }
}

/// The values that commas separate.
fn alternatives(name: &str, value: &str) -> Result<Vec<String>, Failure> {
    let values: Vec<String> = split_unescaped(value, ',').into_iter().filter(|v| !v.trim().is_empty()).map(str::to_owned).collect();
    if values.len() > MAX_VALUES {
        let message = format!("search parameter '{}' has {} values; at most {MAX_VALUES} are accepted", clip(name), values.len());
        return Err(Failure::new(Kind::TooCostly, message));
    }
    Ok(values)
}

/// The same, of which there must be one.
fn some(name: &str, value: &str) -> Result<Result<Vec<String>, Failure>, Failure> {
    alternatives(name, value).map(|values| if values.is_empty() { Err(no_value(name)) } else { Ok(values) })
}

/// The same where commas within quotation marks separate nothing.
fn outside_quotes(name: &str, value: &str) -> Result<Vec<String>, Failure> {
    let mut all: Vec<String> = Vec::new();
    for part in split_unescaped(value, ',') {
        // One that is open goes on.
        match all.last_mut().filter(|last| last.matches('"').count() % 2 == 1) {
            Some(last) => last.push_str(&format!(",{part}")),
            None => all.push(part.to_owned()),
        }
    }
    all.retain(|one| !one.trim().is_empty());
    if all.len() > MAX_VALUES {
        return Err(Failure::new(Kind::TooCostly, format!("'{name}' has {} values; at most {MAX_VALUES} are accepted", all.len())));
    }
    Ok(all)
}

fn text(name: &str, value: &str) -> Result<Condition, Failure> {
    let field = if name == "_text" { TextField::Narrative } else { TextField::Content };
    let parse = |one: &str| {
        let bad = |reason| Failure::new(Kind::BadValue, format!("'{name}': '{}' is not a condition on words: {reason}", clip(value)));
        Text::parse(one).map_err(bad)
    };
    // A comma is an OR here, too, but for one within quotation marks.
    let mut any: Vec<Text> = outside_quotes(name, value)?.iter().map(|one| parse(one)).collect::<Result<_, _>>()?;
    if any.is_empty() {
        any.push(parse(value)?);
    }
    let text = if any.len() == 1 { any.remove(0) } else { Text::Or(any) };
    Ok(Condition::Text(field, Arc::new(text)))
}
