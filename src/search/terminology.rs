//! Value sets and code systems, as far as `:in`, `:not-in`, `:above` and `:below` need them: those stored in the simulator,
//! and the specification's own that the definitions hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::Value;

use super::param::Env;
use super::params::Param;
use crate::fhir::definitions::Concepts;
use crate::fhir::id::clip;
use crate::fhir::reference::Reference;
use crate::fhir::{Failure, Kind};
use crate::query::Query;

/// Most value sets in one another.
const MAX_DEPTH: usize = 16;

/// Some codes of some systems.
#[derive(Clone, Debug)]
pub enum Members {
    /// Codes of one system.
    Codes(Box<str>, BTreeSet<Box<str>>),
    /// Every code of a system.
    System(Box<str>),
    /// Any of these.
    Any(Vec<Members>),
    /// What all of these have.
    All(Vec<Members>),
    /// The first without the second.
    Without(Box<Members>, Box<Members>),
}

impl Members {
    /// Whether a code is among them.
    #[must_use]
    pub fn contains(&self, system: &str, code: &str) -> bool {
        match self {
            Self::Codes(of, codes) => **of == *system && codes.contains(code),
            Self::System(of) => **of == *system,
            Self::Any(parts) => parts.iter().any(|p| p.contains(system, code)),
            Self::All(parts) => parts.iter().all(|p| p.contains(system, code)),
            Self::Without(all, but) => all.contains(system, code) && !but.contains(system, code),
        }
    }

    /// Whether [`Members::narrowing`] says all there is to say.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        match self {
            Self::Codes(..) | Self::System(_) => true,
            Self::Any(parts) => parts.iter().all(Self::is_plain),
            Self::All(_) | Self::Without(..) => false,
        }
    }

    /// Resources without which `param` has none of these codes.
    #[must_use]
    pub fn narrowing(&self, param: &Param) -> Query {
        match self {
            Self::Codes(system, codes) => Query::terms_of(&param.key('t', &format!("{system}|")), codes.iter().cloned().collect()),
            Self::System(system) => Query::term(&param.key('y', system)),
            Self::Any(parts) => Query::or(parts.iter().map(|p| p.narrowing(param)).collect()),
            Self::All(parts) => Query::and(parts.iter().map(|p| p.narrowing(param)).collect()),
            Self::Without(all, _) => all.narrowing(param),
        }
    }
}

/// The members of a value set, by its URL, `url|version` or `ValueSet/id`.
///
/// # Errors
/// It, or something it is made of, is not at hand.
pub fn value_set(name: &str, env: &Env<'_>) -> Result<Arc<Members>, Failure> {
    Terminology { env }.value_set(name, 0).map(Arc::new)
}

/// The codes below `code` in its system, or those above it; itself too.
///
/// # Errors
/// The system is not at hand, or has no such code.
pub fn related(system: &str, code: &str, above: bool, env: &Env<'_>) -> Result<BTreeSet<Box<str>>, Failure> {
    let hierarchy = Terminology { env }.code_system(system)?.ok_or_else(|| unknown_system(system))?;
    if !hierarchy.concepts.contains_key(code) {
        return Err(Failure::new(Kind::BadValue, format!("code system '{}' has no code '{}'", clip(system), clip(code))));
    }
    Ok(if above { hierarchy.above(code) } else { hierarchy.below(code) })
}

/// `url` and `url|version` of resources that have them.
#[must_use]
pub fn canonicals(resources: &[Value]) -> Vec<Box<str>> {
    let mut all = Vec::new();
    for resource in resources {
        let text = |name: &str| resource.get(name).and_then(Value::as_str);
        if let Some(url) = text("url") {
            all.push(url.into());
            all.extend(text("version").map(|version| format!("{url}|{version}").into()));
        }
    }
    all
}

fn unknown_system(system: &str) -> Failure {
    Failure::new(
        Kind::BadValue,
        format!(
            "code system '{}' is neither stored in this simulator nor one of the specification's own; store it as a CodeSystem with its concepts",
            clip(system)
        ),
    )
}

/// A code system's concepts.
#[derive(Default)]
struct Hierarchy {
    concepts: FxHashMap<Box<str>, Concept>,
    /// The names that its properties of the standard's meaning have here.
    named: Vec<(String, &'static str)>,
}

/// The properties that make a hierarchy, <https://hl7.org/fhir/R4/codesystem-concept-properties.html>.
const PROPERTIES: [&str; 2] = ["parent", "child"];

#[derive(Default)]
struct Concept {
    parents: BTreeSet<Box<str>>,
    children: BTreeSet<Box<str>>,
    properties: Vec<(String, String)>,
}

impl Hierarchy {
    fn below(&self, code: &str) -> BTreeSet<Box<str>> {
        self.closure(code, |c| &c.children)
    }

    fn above(&self, code: &str) -> BTreeSet<Box<str>> {
        self.closure(code, |c| &c.parents)
    }

    fn closure(&self, code: &str, next: impl Fn(&Concept) -> &BTreeSet<Box<str>>) -> BTreeSet<Box<str>> {
        let mut all: FxHashSet<Box<str>> = FxHashSet::default();
        let mut todo: Vec<Box<str>> = vec![code.into()];
        while let Some(code) = todo.pop() {
            if let Some(concept) = self.concepts.get(&code) {
                todo.extend(next(concept).iter().filter(|c| !all.contains(*c)).cloned());
            }
            all.insert(code);
        }
        all.into_iter().collect()
    }

    fn add(&mut self, concept: &Value, parent: Option<&str>, depth: usize) {
        let Some(code) = concept.get("code").and_then(Value::as_str) else { return };
        if depth > 100 {
            return;
        }
        let list = |name: &str| concept.get(name).and_then(Value::as_array).into_iter().flatten();
        let mut parents: Vec<Box<str>> = parent.map(Into::into).into_iter().collect();
        let mut properties = Vec::new();
        for property in list("property") {
            let Some(name) = property.get("code").and_then(Value::as_str) else { continue };
            let Some((_, value)) = property.as_object().and_then(|o| o.iter().find(|(key, _)| key.starts_with("value"))) else { continue };
            let text = value.as_str().map_or_else(|| value.get("code").and_then(Value::as_str).map_or(value.to_string(), str::to_owned), str::to_owned);
            match self.named.iter().find(|(own, _)| own == name).map_or(name, |(_, meaning)| meaning) {
                "parent" | "subsumedBy" => parents.push(text.as_str().into()),
                "child" => self.link(code, &text),
                _ => {}
            }
            properties.push((name.to_owned(), text));
        }
        for parent in &parents {
            self.link(parent, code);
        }
        self.concepts.entry(code.into()).or_default().properties = properties;
        list("concept").for_each(|child| self.add(child, Some(code), depth + 1));
    }

    fn link(&mut self, parent: &str, child: &str) {
        self.concepts.entry(child.into()).or_default().parents.insert(parent.into());
        self.concepts.entry(parent.into()).or_default().children.insert(child.into());
    }
}

/// A version as it is compared: `1.10` is greater than `1.9`, and a word less than a number.
fn version_key(version: &str) -> Vec<(Option<u64>, String)> {
    version.split(['.', '-']).map(|part| (part.parse().ok(), part.to_owned())).collect()
}

struct Terminology<'a> {
    env: &'a Env<'a>,
}

impl Terminology<'_> {
    /// The stored resource of a type with a canonical URL; of several, the greatest version.
    fn stored(&self, type_name: &str, name: &str) -> Result<Option<Value>, Failure> {
        let (url, version) = name.split_once('|').map_or((name, None), |(url, version)| (url, Some(version)));
        let mut query = Query::term(&format!("{type_name}/url\u{1f}l{url}"));
        if let Some(version) = version {
            query = Query::and(vec![query, Query::term(&format!("{type_name}/version\u{1f}c{version}"))]);
        }
        let version = |value: &Value| version_key(value.get("version").and_then(Value::as_str).unwrap_or_default());
        Ok(self.env.lookup.resources(&query, 100)?.into_iter().max_by_key(version))
    }

    fn by_id(&self, type_name: &str, id: &str) -> Result<Option<Value>, Failure> {
        Ok(self.env.lookup.resources(&super::compile::ids_of(type_name, vec![id.into()]), 1)?.into_iter().next())
    }

    fn value_set(&self, name: &str, depth: usize) -> Result<Members, Failure> {
        if depth > MAX_DEPTH {
            return Err(Failure::new(Kind::BadValue, format!("value set '{}' includes value sets more than {MAX_DEPTH} deep, perhaps itself", clip(name))));
        }
        let definitions = self.env.origin.definitions();
        let found = match Reference::parse(self.env.origin.local_part(name).unwrap_or(name), definitions) {
            Reference::Local { type_name: "ValueSet", id, .. } => {
                self.by_id("ValueSet", id).transpose().or_else(|| self.stored("ValueSet", name).transpose()).transpose()?
            }
            _ => self.stored("ValueSet", name)?,
        };
        if let Some(found) = found {
            return self.composed(name, &found, depth);
        }
        let url = name.split('|').next().unwrap_or_default();
        if let Some(own) = definitions.value_set(url) {
            let mut any = Vec::new();
            for (system, codes) in own {
                any.push(match codes {
                    Concepts::All => self.system(system, system)?,
                    Concepts::These(codes) => Members::Codes((*system).into(), codes.iter().map(|c| Box::from(*c)).collect()),
                });
            }
            return Ok(Members::Any(any));
        }
        let message = format!(
            "value set '{}' is neither stored in this simulator nor one of the specification's own that it knows; store it as a ValueSet with this url",
            clip(name)
        );
        Err(Failure::new(Kind::BadValue, message))
    }

    fn composed(&self, name: &str, value_set: &Value, depth: usize) -> Result<Members, Failure> {
        let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(compose) = value_set.get("compose") else {
            let Some(expansion) = value_set.get("expansion") else {
                return Err(Failure::new(Kind::BadValue, format!("value set '{}' has neither compose nor expansion", clip(name))));
            };
            let mut systems = BTreeMap::new();
            expanded(&list(expansion, "contains"), &mut systems, 0);
            return Ok(Members::Any(systems.into_iter().map(|(system, codes)| Members::Codes(system, codes)).collect()));
        };
        let parts = |key: &str| list(compose, key).iter().map(|part| self.part(name, part, depth)).collect::<Result<Vec<_>, Failure>>();
        let included = Members::Any(parts("include")?);
        let excluded = parts("exclude")?;
        Ok(if excluded.is_empty() { included } else { Members::Without(Box::new(included), Box::new(Members::Any(excluded))) })
    }

    /// One `include` or `exclude`.
    fn part(&self, name: &str, part: &Value, depth: usize) -> Result<Members, Failure> {
        let list = |key: &str| part.get(key).and_then(Value::as_array).into_iter().flatten();
        let mut all = Vec::new();
        for other in list("valueSet").filter_map(Value::as_str) {
            all.push(self.value_set(other, depth + 1)?);
        }
        if let Some(system) = part.get("system").and_then(Value::as_str) {
            // Its codes are those of the version that is meant; values are compared by their system.
            let defined = part.get("version").and_then(Value::as_str).map_or(system.to_owned(), |version| format!("{system}|{version}"));
            let filters: Vec<&Value> = list("filter").collect();
            let concepts: BTreeSet<Box<str>> = list("concept").filter_map(|c| c.get("code")?.as_str()).map(Into::into).collect();
            if !concepts.is_empty() {
                all.push(Members::Codes(system.into(), concepts));
            } else if filters.is_empty() {
                all.push(self.system(system, &defined)?);
            }
            if !filters.is_empty() {
                let hierarchy = self.code_system(&defined)?.ok_or_else(|| unknown_system(&defined))?;
                for filter in filters {
                    all.push(Members::Codes(system.into(), filtered(name, &hierarchy, filter)?));
                }
            }
        }
        Ok(match all.len() {
            0 => Members::Any(Vec::new()),
            1 => all.remove(0),
            _ => Members::All(all),
        })
    }

    /// All codes of a system, defined by the code system of this URL: those it is known to have, or whatever is said to be of it.
    fn system(&self, system: &str, defined: &str) -> Result<Members, Failure> {
        Ok(match self.code_system(defined)? {
            Some(hierarchy) if !hierarchy.concepts.is_empty() => Members::Codes(system.into(), hierarchy.concepts.into_keys().collect()),
            // Of another version of what is stored, nothing is known.
            None if defined != system && self.stored("CodeSystem", system)?.is_some() => return Err(unknown_system(defined)),
            _ => Members::System(system.into()),
        })
    }

    fn code_system(&self, system: &str) -> Result<Option<Hierarchy>, Failure> {
        let mut hierarchy = Hierarchy::default();
        if let Some(stored) = self.stored("CodeSystem", system)? {
            let content = stored.get("content").and_then(Value::as_str);
            for property in stored.get("property").and_then(Value::as_array).into_iter().flatten() {
                let text = |name: &str| property.get(name).and_then(Value::as_str);
                let meaning = text("uri").and_then(|uri| uri.strip_prefix("http://hl7.org/fhir/concept-properties#"));
                if let (Some(code), Some(meaning)) = (text("code"), PROPERTIES.into_iter().find(|known| Some(*known) == meaning)) {
                    hierarchy.named.push((code.to_owned(), meaning));
                }
            }
            for concept in stored.get("concept").and_then(Value::as_array).into_iter().flatten() {
                hierarchy.add(concept, None, 0);
            }
            // Of a fragment, nobody knows what else there is.
            return Ok((content.is_none_or(|c| c == "complete") || !hierarchy.concepts.is_empty()).then_some(hierarchy));
        }
        let Some(own) = self.env.origin.definitions().code_system(system.split('|').next().unwrap_or_default()) else { return Ok(None) };
        for (code, parent) in own {
            hierarchy.concepts.entry((*code).into()).or_default();
            if !parent.is_empty() {
                hierarchy.link(parent, code);
            }
        }
        Ok(Some(hierarchy))
    }
}

/// The codes that a filter of a value set lets through.
fn filtered(name: &str, hierarchy: &Hierarchy, filter: &Value) -> Result<BTreeSet<Box<str>>, Failure> {
    let text = |key: &str| filter.get(key).and_then(Value::as_str).unwrap_or_default();
    let (property, op, value) = (text("property"), text("op"), text("value"));
    let has = |code: &str, concept: &Concept, wanted: &dyn Fn(&str) -> bool| match property {
        "code" | "concept" => wanted(code),
        // Said by nesting, by this property or by the other.
        "parent" => concept.parents.iter().any(|c| wanted(c)),
        "child" => concept.children.iter().any(|c| wanted(c)),
        _ => concept.properties.iter().any(|(p, v)| p == property && wanted(v)),
    };
    if matches!(op, "is-a" | "descendent-of" | "child-of" | "is-not-a" | "generalizes") && !hierarchy.concepts.contains_key(value) {
        let message = format!("value set '{}': the filter '{}' is about the code '{}', which its code system does not have", clip(name), op, clip(value));
        return Err(Failure::new(Kind::BadValue, message));
    }
    let all = || hierarchy.concepts.iter();
    let codes = |test: &dyn Fn(&str, &Concept) -> bool| all().filter(|(code, c)| test(code, c)).map(|(code, _)| code.clone()).collect();
    let words: Vec<&str> = value.split(',').map(str::trim).collect();
    Ok(match op {
        "is-a" => hierarchy.below(value),
        "descendent-of" => hierarchy.below(value).into_iter().filter(|c| **c != *value).collect(),
        "child-of" => hierarchy.concepts.get(value).map(|c| c.children.clone()).unwrap_or_default(),
        "is-not-a" => {
            let below = hierarchy.below(value);
            codes(&|code, _| !below.contains(code))
        }
        "generalizes" => hierarchy.above(value),
        "=" => codes(&|code, c| has(code, c, &|v| v == value)),
        "in" => codes(&|code, c| has(code, c, &|v| words.contains(&v))),
        "not-in" => codes(&|code, c| !has(code, c, &|v| words.contains(&v))),
        "exists" => codes(&|code, c| has(code, c, &|_| true) == (value == "true")),
        other => {
            let known = "is-a, descendent-of, child-of, is-not-a, generalizes, =, in, not-in, exists";
            let message = format!("value set '{}': the filter '{}' is not supported; known are {known}", clip(name), clip(other));
            return Err(Failure::new(Kind::NotSupported, message));
        }
    })
}

fn expanded(contains: &[Value], systems: &mut BTreeMap<Box<str>, BTreeSet<Box<str>>>, depth: usize) {
    for entry in contains {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        // What is abstract is there to be walked by, and no value.
        let is_value = entry.get("abstract") != Some(&Value::Bool(true));
        if let (Some(system), Some(code), true) = (text("system"), text("code"), is_value) {
            systems.entry(system.into()).or_default().insert(code.into());
        }
        if let Some(inner) = entry.get("contains").and_then(Value::as_array).filter(|_| depth < 100) {
            expanded(inner, systems, depth + 1);
        }
    }
}
