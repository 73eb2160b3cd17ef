//! The tables of a FHIR version, compiled for one walk: for each kind of object its members by the names JSON has for them.
//!
//! [`Definitions`] finds elements by path and takes a member for a form of a choice by trial. Validation asks for every
//! member of every resource, and for what is *not* there; so choices are spelled out here (`valueQuantity`), required
//! members listed, and types turned into what to do with a value.

use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::super::definitions::{Codes, Definitions, Element, FhirVersion, TypeDef, TypeKind};
use super::primitive::Primitive;

/// The kinds of objects of a FHIR version.
pub struct Schema {
    pub definitions: &'static Definitions,
    shapes: Vec<Shape>,
    types: FxHashMap<&'static str, ShapeId>,
}

/// Which shape of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeId(usize);

/// What an object has to look like: a type, or an element that has elements of its own.
pub struct Shape {
    pub type_name: &'static str,
    /// Empty for a type itself.
    pub path: &'static str,
    pub role: Role,
    members: FxHashMap<String, Member>,
    pub required: Vec<Required>,
}

/// What else holds of an object than what its members say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Resource,
    Extension,
    Reference,
    /// The id and extensions of a primitive's value.
    Sibling,
    /// Element definitions, whose ids are unique among themselves: a differential repeats those of its snapshot.
    ElementList,
    Other,
}

/// A member that an object may have.
pub struct Member {
    /// The element's name, without the type of a choice.
    pub name: &'static str,
    pub is_choice: bool,
    pub repeats: bool,
    pub holds: Holds,
    pub binding: Option<Binding>,
}

/// What a member's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Primitive(Primitive),
    Object(ShapeId),
    /// A resource, of a type that it names itself.
    Resource,
}

/// A value set that codes must be of.
#[derive(Clone, Copy)]
pub struct Binding {
    pub name: &'static str,
    pub codes: &'static Codes,
}

/// An element that must be there.
pub struct Required {
    /// As the specification writes it: `value[x]`.
    pub name: &'static str,
    /// The members any of which is enough.
    pub keys: Vec<String>,
}

impl Schema {
    /// The schema of a version, compiled at the first call.
    pub fn of(definitions: &'static Definitions) -> &'static Self {
        static COMPILED: [OnceLock<Schema>; FhirVersion::ALL.len()] = [const { OnceLock::new() }; FhirVersion::ALL.len()];
        COMPILED[definitions.version() as usize].get_or_init(|| Compiler::new(definitions).compile())
    }

    /// The shape of a type.
    pub fn shape_of(&self, type_name: &str) -> Option<&Shape> {
        self.types.get(type_name).map(|id| self.shape(*id))
    }

    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0]
    }

    #[cfg(test)]
    pub fn shapes(&self) -> impl Iterator<Item = &Shape> {
        self.shapes.iter()
    }
}

impl Shape {
    /// The member `key`, or the one whose extensions `_key` holds.
    pub fn member(&self, key: &str) -> Option<&Member> {
        self.members.get(key)
    }

    /// The names of all members.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The forms of the choice that `key` begins like: `value` for `valueFoo` or `value`.
    pub fn choice(&self, key: &str) -> Option<(&'static str, Vec<&str>)> {
        let begins = |name: &str| key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_uppercase()));
        let name = self.members.values().filter(|m| m.is_choice && begins(m.name)).map(|m| m.name).max_by_key(|name| name.len())?;
        let mut forms: Vec<&str> = self.members.iter().filter(|(_, m)| m.is_choice && m.name == name).map(|(key, _)| key.as_str()).collect();
        forms.sort_unstable();
        Some((name, forms))
    }

    /// `Patient` or `Patient.contact`.
    pub fn title(&self) -> String {
        if self.path.is_empty() { self.type_name.to_owned() } else { format!("{}.{}", self.type_name, self.path) }
    }
}

/// Where a shape comes from: a type's name and a path in it.
type Origin = (&'static str, &'static str);

struct Compiler {
    definitions: &'static Definitions,
    ids: FxHashMap<Origin, ShapeId>,
    /// Shapes with an id, in the order of their ids.
    origins: Vec<Origin>,
}

impl Compiler {
    fn new(definitions: &'static Definitions) -> Self {
        Self { definitions, ids: FxHashMap::default(), origins: Vec::new() }
    }

    /// Begins with the resource types and compiles what they lead to.
    fn compile(mut self) -> Schema {
        for name in self.definitions.resource_types() {
            self.id_of((name, ""));
        }
        self.id_of(("Element", ""));
        let mut shapes = Vec::new();
        while let Some(origin) = self.origins.get(shapes.len()).copied() {
            let shape = self.shape(origin);
            shapes.push(shape);
        }
        let types = self.ids.iter().filter(|((_, path), _)| path.is_empty()).map(|((name, _), id)| (*name, *id)).collect();
        Schema { definitions: self.definitions, shapes, types }
    }

    fn id_of(&mut self, origin: Origin) -> ShapeId {
        *self.ids.entry(origin).or_insert_with(|| {
            self.origins.push(origin);
            ShapeId(self.origins.len() - 1)
        })
    }

    fn shape(&mut self, (type_name, path): Origin) -> Shape {
        let def = self.definitions.type_def(type_name);
        let role = match type_name {
            "Extension" => Role::Extension,
            "Reference" => Role::Reference,
            "Element" => Role::Sibling,
            "StructureDefinition" if matches!(path, "snapshot" | "differential") => Role::ElementList,
            _ if path.is_empty() && def.is_some_and(|d| d.kind == TypeKind::Resource) => Role::Resource,
            _ => Role::Other,
        };
        let mut shape = Shape { type_name, path, role, members: FxHashMap::default(), required: Vec::new() };
        for (name, element) in def.into_iter().flat_map(|def| children(def, path)) {
            self.add(&mut shape, name, element);
        }
        shape
    }

    fn add(&mut self, shape: &mut Shape, name: &'static str, element: &'static Element) {
        let stem = name.strip_suffix("[x]");
        let mut keys = Vec::new();
        for ty in element.types.split('|') {
            let key = stem.map_or_else(|| name.to_owned(), |stem| format!("{stem}{}", capitalised(ty)));
            let holds = self.holds(shape, name, element, ty);
            let binding = element.codes.and_then(|name| Some(Binding { name, codes: self.definitions.codes(name)? }));
            let member = Member { name: stem.unwrap_or(name), is_choice: stem.is_some(), repeats: element.max != Some(1), holds, binding };
            if matches!(holds, Holds::Primitive(p) if !p.is_attribute()) {
                keys.push(format!("_{key}"));
            }
            keys.push(key.clone());
            shape.members.insert(key, member);
        }
        if element.min > 0 {
            shape.required.push(Required { name, keys });
        }
    }

    fn holds(&mut self, shape: &Shape, name: &str, element: &'static Element, ty: &'static str) -> Holds {
        if let Some(path) = ty.strip_prefix('#') {
            return Holds::Object(self.id_of((shape.type_name, path)));
        }
        match (ty, name, shape.role) {
            // The tables of some versions call ids strings and those of others ids of elements what may be longer.
            (_, "id", Role::Resource) => return Holds::Primitive(Primitive::Id),
            (_, "id", _) => return Holds::Primitive(Primitive::ElementId),
            (_, "url", Role::Extension) => return Holds::Primitive(Primitive::ExtensionUrl),
            ("BackboneElement" | "Element", ..) => return Holds::Object(self.id_of((shape.type_name, element.path))),
            _ => {}
        }
        match (Primitive::of(ty), self.definitions.type_def(ty)) {
            (Some(primitive), _) => Holds::Primitive(primitive),
            (None, Some(def)) if def.kind == TypeKind::Resource => Holds::Resource,
            (None, _) => Holds::Object(self.id_of((ty, ""))),
        }
    }
}

/// The elements of a type directly below `path`, with their own names.
fn children<'p>(def: &'static TypeDef, path: &'p str) -> impl Iterator<Item = (&'static str, &'static Element)> + 'p {
    def.elements.iter().filter_map(move |element| {
        let (parent, name) = element.path.rsplit_once('.').unwrap_or(("", element.path));
        (parent == path).then_some((name, element))
    })
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}
