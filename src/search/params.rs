//! The search parameters of a resource type, compiled when the type is first used, and those a simulator adds to them.

use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;
use serde_json::Value;

use super::custom::suits;
use super::path::library::Expression;
use super::path::{BadPath, Node, Path};
use crate::fhir::definitions::{ParamType, SearchParam};
use crate::fhir::{Definitions, FhirVersion, raw};

/// A search parameter of one resource type.
#[derive(Debug)]
pub struct Param {
    /// The name used in a URL.
    pub code: Box<str>,
    /// How it compares.
    pub kind: ParamType,
    /// For references: the types that can be meant; empty if any.
    pub targets: Vec<&'static str>,
    /// Its canonical URL.
    pub url: Box<str>,
    /// `Patient/birthdate`: what its keys begin with.
    pub name: Box<str>,
    /// Its expression.
    pub expression: Box<str>,
    /// Where its values are.
    pub path: Path,
    /// Where its values are, if the subset of the language that [`Path`] has cannot say it.
    pub whole: Option<Expression>,
    /// For composites: what the parts of a value are compared with, below each value of `path`.
    pub components: Vec<Arc<Param>>,
    /// Whether the parts have keys of their own: those of the specification's composites are found by the parameters that they name.
    pub has_part_keys: bool,
    /// The only modifiers and comparators that it has; of the specification's, and where a definition names none, all that fit.
    pub only: Only,
}

/// What a definition says can be asked; nothing is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// `exact`, or `type` for the names of types.
    pub modifiers: Vec<Box<str>>,
    /// `gt`.
    pub comparators: Vec<Box<str>>,
}

impl Only {
    /// Whether a modifier may be used. R4 spells one of them in its own way.
    #[must_use]
    pub fn has_modifier(&self, name: &str) -> bool {
        self.modifiers.is_empty() || self.modifiers.iter().any(|m| **m == *name || (name == "of-type" && **m == *"ofType"))
    }

    /// Whether a comparator may be used; to be equal always may.
    #[must_use]
    pub fn has_comparator(&self, name: &str) -> bool {
        name == "eq" || self.comparators.is_empty() || self.comparators.iter().any(|c| **c == *name)
    }
}

impl Param {
    /// The parameter that `def` makes for resources of `type_name`.
    ///
    /// # Errors
    /// Its expression cannot be compiled.
    pub fn of(def: &SearchParam, type_name: &'static str, definitions: &'static Definitions) -> Result<Self, BadPath> {
        let path = Path::compile(def.expression, type_name, definitions)?;
        let name: Box<str> = format!("{type_name}/{}", def.code).into();
        let mut components = Vec::new();
        for (number, (id, expression)) in def.components.iter().enumerate() {
            // STU3 names some components by the type and the code of a parameter that has another id.
            let by_code = || id.split_once('-').and_then(|(of, code)| definitions.search_params(of).find(|p| p.code == code));
            let Some(part) = definitions.search_param(id).or_else(by_code) else { return Err(BadPath { at: 0, reason: format!("unknown component '{id}'") }) };
            components.push(Arc::new(Self {
                code: part.code.into(),
                kind: part.kind,
                targets: part.targets.clone(),
                url: part.url().into(),
                name: format!("{name}${number}").into(),
                expression: (*expression).into(),
                path: Path::compile_below(expression, type_name, &path.types, definitions)?,
                whole: None,
                components: Vec::new(),
                has_part_keys: false,
                only: Only::default(),
            }));
        }
        let (code, url, expression) = (def.code.into(), def.url().into(), def.expression.into());
        Ok(Self {
            code,
            kind: def.kind,
            targets: def.targets.clone(),
            url,
            name,
            expression,
            path,
            whole: None,
            components,
            has_part_keys: false,
            only: Only::default(),
        })
    }

    /// Whether it finds the same as another of its name.
    fn is_like(&self, other: &Self) -> bool {
        let said = |p: &Self| (p.expression.clone(), p.kind, p.url.clone(), p.targets.clone(), p.only.clone());
        let alike = |(a, b): (&Arc<Self>, &Arc<Self>)| a.is_like(b);
        said(self) == said(other) && self.components.len() == other.components.len() && self.components.iter().zip(&other.components).all(alike)
    }

    /// The key of this parameter with `class` (what kind of key) and `text`.
    #[must_use]
    pub fn key(&self, class: char, text: &str) -> String {
        format!("{}\u{1f}{class}{text}", self.name)
    }

    /// The column of this parameter for the bound `side`.
    #[must_use]
    pub fn column(&self, side: char) -> String {
        format!("{}{side}", self.name)
    }

    /// The types a reference may have, by `definitions`; all of them if it does not say.
    #[must_use]
    pub fn target_types(&self, definitions: &'static Definitions) -> Vec<&'static str> {
        if self.targets.is_empty() || self.targets.contains(&"Resource") {
            return definitions.resource_types().to_vec();
        }
        self.targets.iter().filter_map(|t| definitions.find_resource_type(t)).collect()
    }

    /// Whether it can refer to resources of `type_name`.
    #[must_use]
    pub fn can_target(&self, type_name: &str) -> bool {
        self.targets.is_empty() || self.targets.contains(&type_name) || self.targets.contains(&"Resource")
    }

    /// Whether its values are canonical URLs, and not references to resources by their id.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        self.path.types.iter().any(|t| matches!(t.base, "canonical" | "uri"))
    }

    /// Whether some of its values are references to resources by their id.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.path.types.iter().any(|t| matches!(t.base, "Reference" | "CodeableReference"))
    }

    /// Calls `look` with the values in a stored resource and its type; of the resource, no more is read than that takes.
    pub fn in_stored<T>(&self, body: &[u8], definitions: &'static Definitions, look: impl FnOnce(&[Node<'_>], &'static str) -> T) -> Option<T> {
        let text = std::str::from_utf8(body).ok()?;
        let parsed: Value = match &self.path.members {
            None => serde_json::from_str(text).ok()?,
            Some(members) => {
                let mut some = serde_json::Map::new();
                for member in raw::members(text, 0) {
                    let key = raw::string(&text[member.key.clone()]);
                    if key == "resourceType" || members.iter().any(|m| **m == *key) {
                        some.insert(key.into_owned(), serde_json::from_str(&text[member.value]).ok()?);
                    }
                }
                Value::Object(some)
            }
        };
        let type_name = parsed.get("resourceType").and_then(Value::as_str).and_then(|name| definitions.find_resource_type(name))?;
        Some(self.with_values(&parsed, type_name, |found| look(found, type_name)))
    }

    /// Calls `look` with the values in `resource`, which is of the type this is a parameter of.
    pub fn with_values<T>(&self, resource: &Value, type_name: &'static str, look: impl FnOnce(&[Node<'_>]) -> T) -> T {
        let Some(whole) = &self.whole else {
            let mut found = Vec::new();
            self.path.evaluate(resource, type_name, &mut found);
            return look(&found);
        };
        // What cannot be evaluated has no value.
        let made = whole.evaluate(resource, type_name).unwrap_or_default();
        let found: Vec<Node<'_>> = made.iter().map(|(value, ty)| Node::new(value, *ty)).collect();
        look(&found)
    }
}

/// The search parameters of one resource type.
#[derive(Debug, Default)]
pub struct TypeParams {
    /// The type.
    pub type_name: &'static str,
    /// Its parameters, by name.
    pub list: Vec<Arc<Param>>,
}

impl TypeParams {
    /// The parameters that the specification gives `type_name`, which is a resource type of `version`.
    #[must_use]
    pub fn of(version: FhirVersion, type_name: &str) -> &'static Self {
        type Table = FxHashMap<&'static str, OnceLock<TypeParams>>;
        static TABLES: [OnceLock<Table>; 4] = [const { OnceLock::new() }; 4];
        static NONE: TypeParams = TypeParams { type_name: "", list: Vec::new() };
        let definitions = Definitions::of(version);
        let table = TABLES[version as usize].get_or_init(|| definitions.resource_types().iter().map(|t| (*t, OnceLock::new())).collect());
        let Some((type_name, slot)) = table.get_key_value(type_name) else { return &NONE };
        slot.get_or_init(|| {
            let all = definitions.search_params(type_name).filter(|def| is_supported(def));
            let made = all.filter_map(|def| Param::of(def, type_name, definitions).ok());
            // Some definitions name what the type does not have, or what their kind does not compare: they find nothing, and are not had.
            let finds = |p: &Param| !p.path.is_empty() && suits(p, definitions) || p.expression.is_empty();
            let mut list: Vec<Arc<Param>> = made.filter(finds).map(Arc::new).collect();
            list.sort_by(|a, b| a.code.cmp(&b.code));
            Self { type_name, list }
        })
    }

    /// The parameter named `code`.
    #[must_use]
    pub fn get(&self, code: &str) -> Option<&Arc<Param>> {
        self.list.binary_search_by(|p| (*p.code).cmp(code)).ok().map(|i| &self.list[i])
    }
}

/// The search parameters of a simulator.
#[derive(Clone, Debug)]
pub struct Params {
    /// The FHIR version.
    pub version: FhirVersion,
    /// The types that have parameters of the simulator's own: those and the specification's.
    own: Arc<FxHashMap<&'static str, TypeParams>>,
}

impl Params {
    /// Those of the specification.
    #[must_use]
    pub fn new(version: FhirVersion) -> Self {
        Self { version, own: Arc::default() }
    }

    /// Those of the specification and `more`, each with the type it is for; what has the name of another replaces it.
    #[must_use]
    pub fn with(version: FhirVersion, more: Vec<(&'static str, Arc<Param>)>) -> Self {
        let mut own: FxHashMap<&'static str, TypeParams> = FxHashMap::default();
        for (type_name, param) in more {
            let params = own.entry(type_name).or_insert_with(|| TypeParams { type_name, list: TypeParams::of(version, type_name).list.clone() });
            params.list.retain(|p| p.code != param.code);
            params.list.push(param);
            params.list.sort_by(|a, b| a.code.cmp(&b.code));
        }
        Self { version, own: Arc::new(own) }
    }

    /// The parameters of the simulator's own, each with its type.
    pub fn own(&self) -> impl Iterator<Item = (&'static str, &Arc<Param>)> {
        self.own.values().flat_map(|params| params.list.iter().map(|p| (params.type_name, p))).filter(|(type_name, p)| {
            let known = TypeParams::of(self.version, type_name).get(&p.code);
            known.is_none_or(|known| !Arc::ptr_eq(known, p))
        })
    }

    /// Those of the specification and those of its own that `next` has unchanged.
    #[must_use]
    pub fn shared_with(&self, next: &Self) -> Self {
        let same = |type_name: &str, p: &Param| next.of(type_name).get(&p.code).is_some_and(|n| n.is_like(p));
        Self::with(self.version, self.own().filter(|(t, p)| same(t, p)).map(|(t, p)| (t, p.clone())).collect())
    }

    /// The parameters of a type.
    #[must_use]
    pub fn of(&self, type_name: &str) -> &TypeParams {
        self.own.get(type_name).unwrap_or_else(|| TypeParams::of(self.version, type_name))
    }

    /// The tables of the version.
    #[must_use]
    pub fn definitions(&self) -> &'static Definitions {
        Definitions::of(self.version)
    }
}

/// Whether a parameter can be searched by: those of a kind of their own are not all known.
#[must_use]
pub fn is_supported(def: &SearchParam) -> bool {
    match def.kind {
        ParamType::Special => def.code == "near",
        // STU3 gives the distance aside: `near` reads both.
        _ => def.code != "near-distance",
    }
}
