//! What a FHIR version defines: types, elements, required codes, search parameters, compartments.
//!
//! The tables are made by `scripts/definitions.py`, which also says their format. They are part of the binary; the ones
//! of a version are read at its first use, in about two milliseconds.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::id::clip;
use super::{Failure, Kind};

/// A FHIR version that a simulator can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum FhirVersion {
    /// 3.0.2.
    Stu3,
    /// 4.0.1.
    #[default]
    R4,
    /// 4.3.0.
    R4b,
    /// 5.0.0.
    R5,
}

impl FhirVersion {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::Stu3, Self::R4, Self::R4b, Self::R5];

    /// The name people use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stu3 => "STU3",
            Self::R4 => "R4",
            Self::R4b => "R4B",
            Self::R5 => "R5",
        }
    }

    /// The number in `CapabilityStatement.fhirVersion`.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Stu3 => "3.0.2",
            Self::R4 => "4.0.1",
            Self::R4b => "4.3.0",
            Self::R5 => "5.0.0",
        }
    }

    /// The value of the `fhirVersion` MIME parameter, <https://hl7.org/fhir/R4/http.html#version-parameter>.
    #[must_use]
    pub fn mime_parameter(self) -> &'static str {
        &self.number()[..3]
    }

    fn tables(self) -> (&'static str, &'static str) {
        match self {
            Self::Stu3 => (include_str!("definitions/stu3.elements.tsv"), include_str!("definitions/stu3.search.tsv")),
            Self::R4 => (include_str!("definitions/r4.elements.tsv"), include_str!("definitions/r4.search.tsv")),
            Self::R4b => (include_str!("definitions/r4b.elements.tsv"), include_str!("definitions/r4b.search.tsv")),
            Self::R5 => (include_str!("definitions/r5.elements.tsv"), include_str!("definitions/r5.search.tsv")),
        }
    }
}

impl FromStr for FhirVersion {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let known = |v: &Self| v.name().eq_ignore_ascii_case(text) || v.number() == text || v.mime_parameter() == text;
        let found = Self::ALL.into_iter().find(known).or((text.eq_ignore_ascii_case("R3") || text == "3.0.1").then_some(Self::Stu3));
        found.ok_or_else(|| Failure::new(Kind::BadValue, format!("unknown FHIR version '{}'; use STU3, R4, R4B or R5", clip(text))))
    }
}

impl fmt::Display for FhirVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// A resource type.
    Resource,
    /// A data type with elements.
    Complex,
    /// A data type that is one value.
    Primitive,
}

/// A type of a FHIR version.
#[derive(Debug)]
pub struct TypeDef {
    /// Its name.
    pub name: &'static str,
    /// The type it specialises; empty for the roots.
    pub base: &'static str,
    /// What it is.
    pub kind: TypeKind,
    /// Whether no instance of it exists.
    pub is_abstract: bool,
    /// Its elements by path without the type's name, in the specification's order.
    pub elements: Vec<Element>,
    by_path: FxHashMap<&'static str, usize>,
}

impl TypeDef {
    /// Whether it has the element `name`; of a choice, its name with or without a type.
    #[must_use]
    pub fn top_level(&self, name: &str) -> bool {
        self.of_member("", name).is_some()
    }

    /// The element that the JSON member `key` below `path` belongs to: `valueQuantity` to `value[x]`.
    #[must_use]
    pub fn of_member(&self, path: &str, key: &str) -> Option<&Element> {
        let name = key.strip_prefix('_').unwrap_or(key);
        let full = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if let Some(found) = self.element(&full).or_else(|| self.element(&format!("{full}[x]"))) {
            return Some(found);
        }
        let mut capitals = full.char_indices().filter(|(at, c)| *at > path.len() + 1 && c.is_ascii_uppercase()).map(|(at, _)| at);
        capitals.find_map(|at| self.element(&format!("{}[x]", &full[..at])))
    }

    /// The element at `path`, `contact.name` for example. A primitive has id and extension, which no table lists.
    #[must_use]
    pub fn element(&self, path: &str) -> Option<&Element> {
        if self.kind == TypeKind::Primitive {
            return OF_PRIMITIVES.iter().find(|e| e.path == path);
        }
        self.by_path.get(path).map(|i| &self.elements[*i])
    }
}

static OF_PRIMITIVES: [Element; 2] = [
    Element { path: "id", min: 0, max: Some(1), in_summary: false, types: "string", codes: None },
    Element { path: "extension", min: 0, max: None, in_summary: false, types: "Extension", codes: None },
];

/// An element of a type.
#[derive(Debug)]
pub struct Element {
    /// Path without the type's name; a choice ends in `[x]`.
    pub path: &'static str,
    /// Least number of occurrences.
    pub min: u8,
    /// Greatest number; `None` is unbounded.
    pub max: Option<u8>,
    /// Whether it belongs to summaries.
    pub in_summary: bool,
    /// Type names joined by `|`; `#path` is a reference to another element of the same type.
    pub types: &'static str,
    /// Name of the value set it is bound to as required, where that can be enumerated.
    pub codes: Option<&'static str>,
}

/// How a search parameter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamType {
    /// Numbers.
    Number,
    /// Dates and periods.
    Date,
    /// Text.
    String,
    /// Codes and identifiers.
    Token,
    /// References.
    Reference,
    /// Several values at once.
    Composite,
    /// Measured quantities.
    Quantity,
    /// URIs.
    Uri,
    /// Defined by its own text.
    Special,
}

impl ParamType {
    /// The code of <http://hl7.org/fhir/search-param-type>.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Date => "date",
            Self::String => "string",
            Self::Token => "token",
            Self::Reference => "reference",
            Self::Composite => "composite",
            Self::Quantity => "quantity",
            Self::Uri => "uri",
            Self::Special => "special",
        }
    }

    /// The type with a code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        use ParamType::{Composite, Date, Number, Quantity, Reference, Special, String, Token, Uri};
        [Number, Date, String, Token, Reference, Composite, Quantity, Uri, Special].into_iter().find(|t| t.code() == code)
    }
}

/// A search parameter of a FHIR version.
#[derive(Debug)]
pub struct SearchParam {
    /// The name used in a URL.
    pub code: &'static str,
    /// How it compares.
    pub kind: ParamType,
    /// The types it is defined for.
    pub bases: Vec<&'static str>,
    /// The last part of its canonical URL.
    pub id: &'static str,
    /// For references: the types that can be meant; empty if any.
    pub targets: Vec<&'static str>,
    /// FHIRPath of the values.
    pub expression: &'static str,
    /// For composites: id of the component's parameter and the FHIRPath of its values.
    pub components: Vec<(&'static str, &'static str)>,
}

impl SearchParam {
    /// Its canonical URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://hl7.org/fhir/SearchParameter/{}", self.id)
    }
}

/// Codes of a system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concepts {
    /// All of them.
    All,
    /// Some.
    These(Vec<&'static str>),
}

/// The specification's small value sets and code systems.
#[derive(Debug, Default)]
struct Terminology {
    /// Code and parent; a code with several parents comes several times.
    code_systems: FxHashMap<&'static str, Vec<(&'static str, &'static str)>>,
    value_sets: FxHashMap<&'static str, Vec<(&'static str, Concepts)>>,
}

impl Terminology {
    fn read(table: &'static str) -> Self {
        let mut all = Self::default();
        for line in table.lines() {
            let mut fields = line.split('\t');
            let (kind, url, words) = (fields.next(), fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            match kind {
                Some("Y") => _ = all.code_systems.insert(url, words.split(' ').map(|w| w.split_once('>').unwrap_or((w, ""))).collect()),
                Some("W") => {
                    let groups = words.split(';').filter_map(|group| group.split_once(' '));
                    let concepts = |codes: &'static str| if codes == "*" { Concepts::All } else { Concepts::These(codes.split(' ').collect()) };
                    all.value_sets.insert(url, groups.map(|(system, codes)| (system, concepts(codes))).collect());
                }
                _ => {}
            }
        }
        all
    }
}

/// The systems and codes of a value set; [`ANY_CODE`] among them stands for all of the system, which nobody lists.
pub type Codes = Vec<(&'static str, Vec<&'static str>)>;

/// Stands for all codes of a system.
pub const ANY_CODE: &str = "*";

/// The tables of one FHIR version.
#[derive(Debug)]
pub struct Definitions {
    version: FhirVersion,
    types: FxHashMap<&'static str, TypeDef>,
    resource_types: Vec<&'static str>,
    codes: FxHashMap<&'static str, Codes>,
    search: Vec<SearchParam>,
    by_id: FxHashMap<&'static str, usize>,
    terminology: OnceLock<Terminology>,
    compartments: FxHashMap<&'static str, FxHashMap<&'static str, Vec<&'static str>>>,
}

impl Definitions {
    /// The tables of `version`, read at the first call.
    #[must_use]
    pub fn of(version: FhirVersion) -> &'static Self {
        static READ: [OnceLock<Definitions>; 4] = [const { OnceLock::new() }; 4];
        READ[version as usize].get_or_init(|| Self::read(version))
    }

    /// The FHIR version these are of.
    #[must_use]
    pub fn version(&self) -> FhirVersion {
        self.version
    }

    /// The name, proven to be a resource type that instances exist of.
    ///
    /// # Errors
    /// [`Kind::UnknownType`], with the nearest name.
    pub fn resource_type(&self, name: &str) -> Result<&'static str, Failure> {
        match self.types.get(name) {
            Some(t) if t.kind == TypeKind::Resource && !t.is_abstract => Ok(t.name),
            Some(t) if t.kind == TypeKind::Resource => {
                Err(Failure::new(Kind::UnknownType, format!("resource type '{name}' is abstract in FHIR {}", self.version)))
            }
            _ => {
                let mut message = format!("unknown resource type '{}' in FHIR {}", clip(name), self.version);
                if let Some(near) = nearest(name, self.resource_types.iter().copied()) {
                    message.push_str(&format!("; did you mean '{near}'?"));
                }
                Err(Failure::new(Kind::UnknownType, message))
            }
        }
    }

    /// The same without a word of explanation, for texts that may well be something else.
    #[must_use]
    pub fn find_resource_type(&self, name: &str) -> Option<&'static str> {
        self.types.get(name).filter(|t| t.kind == TypeKind::Resource && !t.is_abstract).map(|t| t.name)
    }

    /// All resource types that instances exist of, sorted.
    #[must_use]
    pub fn resource_types(&self) -> &[&'static str] {
        &self.resource_types
    }

    /// All types, in no order.
    pub fn types(&self) -> impl Iterator<Item = &TypeDef> {
        self.types.values()
    }

    /// A type by its name.
    #[must_use]
    pub fn type_def(&self, name: &str) -> Option<&TypeDef> {
        self.types.get(name)
    }

    /// Whether a type is one value.
    #[must_use]
    pub fn is_primitive(&self, name: &str) -> bool {
        self.types.get(name).is_some_and(|t| t.kind == TypeKind::Primitive)
    }

    /// Whether `name` is `ancestor` or specialises it.
    #[must_use]
    pub fn is_a(&self, name: &str, ancestor: &str) -> bool {
        let mut here = name;
        loop {
            if here == ancestor {
                return true;
            }
            match self.types.get(here) {
                Some(t) if !t.base.is_empty() => here = t.base,
                _ => return false,
            }
        }
    }

    /// The systems and codes of a value set that [`Element::codes`] names.
    #[must_use]
    pub fn codes(&self, name: &str) -> Option<&Codes> {
        self.codes.get(name)
    }

    fn terminology(&self) -> &Terminology {
        self.terminology.get_or_init(|| {
            Terminology::read(match self.version {
                FhirVersion::Stu3 => include_str!("definitions/stu3.terminology.tsv"),
                FhirVersion::R4 => include_str!("definitions/r4.terminology.tsv"),
                FhirVersion::R4b => include_str!("definitions/r4b.terminology.tsv"),
                FhirVersion::R5 => include_str!("definitions/r5.terminology.tsv"),
            })
        })
    }

    /// The systems and codes of one of the specification's value sets, if it is small and without filters.
    #[must_use]
    pub fn value_set(&self, url: &str) -> Option<&[(&'static str, Concepts)]> {
        self.terminology().value_sets.get(url).map(Vec::as_slice)
    }

    /// The codes of one of the specification's code systems and their parents, if it is small.
    #[must_use]
    pub fn code_system(&self, url: &str) -> Option<&[(&'static str, &'static str)]> {
        self.terminology().code_systems.get(url).map(Vec::as_slice)
    }

    /// The search parameters defined for resources of type `type_name`, its ancestors' included.
    pub fn search_params<'a>(&'a self, type_name: &'a str) -> impl Iterator<Item = &'a SearchParam> {
        self.search.iter().filter(move |p| p.bases.iter().any(|b| *b == type_name || (matches!(*b, "Resource" | "DomainResource") && self.is_a(type_name, b))))
    }

    /// The search parameter whose canonical URL ends in `id`.
    #[must_use]
    pub fn search_param(&self, id: &str) -> Option<&SearchParam> {
        self.by_id.get(id).map(|i| &self.search[*i])
    }

    /// The types that have a compartment, and the parameters by which others belong to it.
    #[must_use]
    pub fn compartment_types(&self, compartment: &str) -> Option<&FxHashMap<&'static str, Vec<&'static str>>> {
        self.compartments.get(compartment)
    }

    /// The parameters by which resources of `type_name` belong to a compartment.
    #[must_use]
    pub fn compartment(&self, compartment: &str, type_name: &str) -> Option<&[&'static str]> {
        self.compartments.get(compartment)?.get(type_name).map(Vec::as_slice)
    }

    fn read(version: FhirVersion) -> Self {
        let (elements, search) = version.tables();
        let mut all = Self {
            version,
            types: FxHashMap::default(),
            resource_types: Vec::new(),
            codes: FxHashMap::default(),
            search: Vec::new(),
            by_id: FxHashMap::default(),
            terminology: OnceLock::new(),
            compartments: FxHashMap::default(),
        };
        all.read_elements(elements);
        all.read_search(search);
        all.resource_types = all.types.values().filter(|t| t.kind == TypeKind::Resource && !t.is_abstract).map(|t| t.name).collect();
        all.resource_types.sort_unstable();
        all
    }

    fn read_elements(&mut self, table: &'static str) {
        let mut current = "";
        for line in table.lines() {
            let mut fields = line.split('\t');
            let mut next = || fields.next().unwrap_or_default();
            match next() {
                "T" => {
                    let (name, base, kind) = (next(), next(), next());
                    let is_abstract = kind.starts_with('!');
                    let kind = match kind.trim_start_matches('!') {
                        "resource" => TypeKind::Resource,
                        "complex" => TypeKind::Complex,
                        _ => TypeKind::Primitive,
                    };
                    current = name;
                    self.types.insert(name, TypeDef { name, base, kind, is_abstract, elements: Vec::new(), by_path: FxHashMap::default() });
                }
                "E" => {
                    let (path, cardinality, types, codes) = (next(), next(), next(), next());
                    let min = cardinality.bytes().next().map_or(0, |b| b - b'0');
                    let max = cardinality.get(1..).and_then(|m| m.trim_end_matches(['s', 'm']).parse().ok());
                    let in_summary = cardinality.contains('s');
                    if let Some(t) = self.types.get_mut(current) {
                        // Some tables call the ids of elements those of resources, and they may have any characters but blanks.
                        let is_of_element = path.ends_with(".id") || (path == "id" && t.kind == TypeKind::Complex);
                        let types = if is_of_element && types == "id" { "string" } else { types };
                        t.by_path.insert(path, t.elements.len());
                        t.elements.push(Element { path, min, max, in_summary, types, codes: (!codes.is_empty()).then_some(codes) });
                    }
                }
                "V" => {
                    let (name, groups) = (next(), next());
                    let groups = groups.split(';').map(|group| {
                        let mut words = group.split(' ');
                        (words.next().unwrap_or_default(), words.collect())
                    });
                    self.codes.insert(name, groups.collect());
                }
                _ => {}
            }
        }
    }

    fn read_search(&mut self, table: &'static str) {
        fn list(text: &'static str) -> Vec<&'static str> {
            text.split(',').filter(|s| !s.is_empty()).collect()
        }
        for line in table.lines() {
            let mut fields = line.split('\t');
            let mut next = || fields.next().unwrap_or_default();
            match next() {
                "S" => {
                    let (code, kind, bases, id, targets, expression, components) = (next(), next(), next(), next(), next(), next(), next());
                    // STU3 calls it a token; its values are coordinates there too.
                    let kind = if code == "near" { Some(ParamType::Special) } else { ParamType::from_code(kind) };
                    if let Some(kind) = kind {
                        self.by_id.insert(id, self.search.len());
                        let components = list(components).into_iter().filter_map(|c| c.split_once('=')).collect();
                        self.search.push(SearchParam { code, kind, bases: list(bases), id, targets: list(targets), expression, components });
                    }
                }
                "C" => {
                    let (compartment, type_name, params) = (next(), next(), next());
                    self.compartments.entry(compartment).or_default().insert(type_name, list(params));
                }
                _ => {}
            }
        }
    }
}

/// The candidate most like `name`, if one is like enough to suggest.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let short: String = name.chars().take(100).collect();
    let scored = candidates.map(|c| (strsim::damerau_levenshtein(&short.to_lowercase(), &c.to_lowercase()), c));
    scored.min_by_key(|(distance, c)| (*distance, c.len())).filter(|(distance, c)| *distance <= 1 + c.len().min(short.len()) / 4).map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_whole() {
        let facts: Vec<String> = FhirVersion::ALL
            .iter()
            .map(|v| {
                let d = Definitions::of(*v);
                let elements: usize = d.types.values().map(|t| t.elements.len()).sum();
                format!(
                    "{v} {} types, {} resources, {elements} elements, {} value sets, {} parameters",
                    d.types.len(),
                    d.resource_types.len(),
                    d.codes.len(),
                    d.search.len()
                )
            })
            .collect();
        insta::assert_snapshot!(facts.join("\n"), @r"
        STU3 172 types, 117 resources, 5485 elements, 200 value sets, 1212 parameters
        R4 209 types, 146 resources, 7406 elements, 223 value sets, 1381 parameters
        R4B 206 types, 141 resources, 7519 elements, 230 value sets, 1415 parameters
        R5 231 types, 158 resources, 9261 elements, 256 value sets, 1226 parameters
        ");
    }

    #[test]
    fn suggestions_are_near() {
        let d = Definitions::of(FhirVersion::R4);
        assert_eq!(nearest("patients", d.resource_types().iter().copied()), Some("Patient"));
        assert_eq!(nearest("zzzzzzzzzzzzz", d.resource_types().iter().copied()), None);
        assert!(d.is_a("Patient", "DomainResource") && d.is_a("Patient", "Resource") && !d.is_a("Bundle", "DomainResource"));
        assert!(d.search_params("Patient").any(|p| p.code == "family") && d.search_params("Patient").any(|p| p.code == "_id"));
    }
}
