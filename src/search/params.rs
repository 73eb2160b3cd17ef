//! The search parameters of a resource type, compiled when the type is first used.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::path::Path;
use crate::fhir::definitions::{ParamType, SearchParam};
use crate::fhir::{Definitions, FhirVersion};

/// A search parameter of one resource type.
#[derive(Debug)]
pub struct Param {
    /// Its definition.
    pub def: &'static SearchParam,
    /// `Patient/birthdate`: what its keys begin with.
    pub name: Box<str>,
    /// Where its values are.
    pub path: Path,
}

impl Param {
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
}

/// The search parameters of one resource type.
#[derive(Debug)]
pub struct TypeParams {
    /// The type.
    pub type_name: &'static str,
    /// Its parameters, by name.
    pub list: Vec<Param>,
}

impl TypeParams {
    /// The parameters of `type_name`, which is a resource type of `version`.
    #[must_use]
    pub fn of(version: FhirVersion, type_name: &str) -> &'static Self {
        type Table = FxHashMap<&'static str, OnceLock<TypeParams>>;
        static TABLES: [OnceLock<Table>; 4] = [const { OnceLock::new() }; 4];
        static NONE: TypeParams = TypeParams { type_name: "", list: Vec::new() };
        let definitions = Definitions::of(version);
        let table = TABLES[version as usize].get_or_init(|| definitions.resource_types().iter().map(|t| (*t, OnceLock::new())).collect());
        let Some((type_name, slot)) = table.get_key_value(type_name) else { return &NONE };
        slot.get_or_init(|| {
            let mut list: Vec<Param> = definitions
                .search_params(type_name)
                .filter(|def| is_supported(def.kind))
                .filter_map(|def| {
                    let path = Path::compile(def.expression, type_name, definitions).ok()?;
                    Some(Param { def, name: format!("{type_name}/{}", def.code).into(), path })
                })
                .collect();
            list.sort_by_key(|p| p.def.code);
            Self { type_name, list }
        })
    }

    /// The parameter named `code`.
    #[must_use]
    pub fn get(&self, code: &str) -> Option<&Param> {
        self.list.binary_search_by_key(&code, |p| p.def.code).ok().map(|i| &self.list[i])
    }
}

/// Whether parameters of this kind can be searched by.
#[must_use]
pub fn is_supported(kind: ParamType) -> bool {
    match kind {
        ParamType::Number | ParamType::Date | ParamType::String | ParamType::Token | ParamType::Reference | ParamType::Uri => true,
        ParamType::Composite | ParamType::Quantity | ParamType::Special => false,
    }
}
