//! The definitions as XML needs them: each object's members by name, with their place in the order and how they are said.

use std::borrow::Cow;
use std::sync::OnceLock;

use rustc_hash::FxHashMap;

use super::super::Definitions;
use super::super::definitions::{TypeDef, TypeKind};

/// How the value of a member is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A primitive that is a string in JSON.
    Text,
    /// A primitive that is a number in JSON.
    Number,
    /// The same, before which XML may have a plus, which JSON does not know.
    SignedNumber,
    /// A primitive that is a boolean in JSON.
    Boolean,
    /// The XHTML of a narrative.
    Narrative,
    /// An object.
    Complex(ShapeId),
    /// An object that names its type itself.
    Resource,
}

impl Form {
    /// Whether it is a value that can have a `_` sibling.
    #[must_use]
    pub fn is_primitive(self) -> bool {
        match self {
            Self::Text | Self::Number | Self::SignedNumber | Self::Boolean => true,
            Self::Narrative | Self::Complex(_) | Self::Resource => false,
        }
    }
}

/// What is known of a member.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its name in an expression: that of a choice is without the type.
    pub name: &'static str,
    /// Its place among the members of its object.
    pub order: u32,
    /// Whether it is an array in JSON.
    pub repeats: bool,
    /// Whether it is an attribute in XML.
    pub is_attribute: bool,
    /// How its value is said.
    pub form: Form,
}

/// Number of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeId(usize);

/// What members an object can have.
#[derive(Debug, Default)]
struct Shape {
    /// Choices are here under each of their names.
    members: FxHashMap<Cow<'static, str>, Member>,
    /// Names of choices without a type, and their place.
    choices: Vec<(&'static str, u32)>,
}

/// The shapes of one FHIR version.
#[derive(Debug, Default)]
pub struct Shapes {
    all: Vec<Shape>,
    types: FxHashMap<&'static str, ShapeId>,
    /// By the type's name in upper case, as it ends the name of a choice.
    forms: FxHashMap<String, Form>,
}

impl Shapes {
    /// The shapes of a FHIR version, made at the first call.
    #[must_use]
    pub fn of(definitions: &'static Definitions) -> &'static Self {
        static MADE: [OnceLock<Shapes>; 4] = [const { OnceLock::new() }; 4];
        MADE[definitions.version() as usize].get_or_init(|| Self::make(definitions))
    }

    /// What resources of a type look like; those of an unknown one have what all have.
    #[must_use]
    pub fn resource(&self, type_name: &str) -> ShapeId {
        self.named(type_name).unwrap_or_else(|| self.named_or_first("DomainResource"))
    }

    /// What an object looks like of which nothing is known, or the `_` sibling of a primitive.
    #[must_use]
    pub fn unknown(&self) -> ShapeId {
        self.named_or_first("BackboneElement")
    }

    /// The member of this name.
    #[must_use]
    pub fn member(&self, shape: ShapeId, name: &str) -> Option<Member> {
        let shape = self.all.get(shape.0)?;
        shape.members.get(name).copied().or_else(|| self.other_choice(shape, name))
    }

    /// A choice with a type that it should not have is still a value of that type.
    fn other_choice(&self, shape: &Shape, name: &str) -> Option<Member> {
        shape.choices.iter().find_map(|(stem, order)| {
            let form = *self.forms.get(name.strip_prefix(stem)?)?;
            Some(Member { name: stem, order: *order, repeats: false, is_attribute: false, form })
        })
    }

    fn named(&self, type_name: &str) -> Option<ShapeId> {
        self.types.get(type_name).copied()
    }

    fn named_or_first(&self, type_name: &str) -> ShapeId {
        self.named(type_name).unwrap_or(ShapeId(0))
    }

    fn make(definitions: &'static Definitions) -> Self {
        let mut made = Self::default();
        for def in definitions.types() {
            let form = match def.kind {
                TypeKind::Primitive => literal(def, definitions),
                TypeKind::Resource => {
                    made.begin_type(def.name);
                    Form::Resource
                }
                TypeKind::Complex => Form::Complex(made.begin_type(def.name)),
            };
            made.forms.insert(capitalised(def.name), form);
        }
        for def in definitions.types() {
            if let Some(id) = made.named(def.name) {
                made.read_type(def, id);
            }
        }
        made
    }

    fn begin_type(&mut self, name: &'static str) -> ShapeId {
        let id = self.begin();
        self.types.insert(name, id);
        id
    }

    fn begin(&mut self) -> ShapeId {
        self.all.push(Shape::default());
        ShapeId(self.all.len() - 1)
    }

    fn read_type(&mut self, def: &'static TypeDef, id: ShapeId) {
        // Every path that has paths below it is an object of its own.
        let mut objects: FxHashMap<&str, ShapeId> = FxHashMap::default();
        objects.insert("", id);
        for element in &def.elements {
            objects.entry(parent(element.path).0).or_insert_with(|| self.begin());
        }
        for (order, element) in (0_u32..).zip(&def.elements) {
            let (object, name) = parent(element.path);
            let Some(shape) = objects.get(object).copied() else { continue };
            let own = element.types.strip_prefix('#').unwrap_or(element.path);
            let is_attribute = match name {
                "id" => def.kind != TypeKind::Resource || !object.is_empty(),
                "url" => def.name == "Extension",
                _ => false,
            };
            let member = |form| Member { name: name.trim_end_matches("[x]"), order, repeats: element.max != Some(1), is_attribute, form };
            if let Some(stem) = name.strip_suffix("[x]") {
                for type_name in element.types.split('|').map(capitalised) {
                    let member = member(self.form(&type_name));
                    self.all[shape.0].members.insert(Cow::Owned(format!("{stem}{type_name}")), member);
                }
                self.all[shape.0].choices.push((stem, order));
            } else {
                let form = objects.get(own).map_or_else(|| self.form(&capitalised(element.types)), |id| Form::Complex(*id));
                self.all[shape.0].members.insert(Cow::Borrowed(name), member(form));
            }
        }
    }

    fn form(&self, type_name: &str) -> Form {
        self.forms.get(type_name).copied().unwrap_or(Form::Text)
    }
}

/// What a primitive type is in JSON.
fn literal(def: &TypeDef, definitions: &Definitions) -> Form {
    // integer64 is none of these: JSON readers would round it, so it is a string.
    if def.name == "xhtml" {
        Form::Narrative
    } else if definitions.is_a(def.name, "boolean") {
        Form::Boolean
    } else if matches!(def.name, "integer" | "positiveInt") {
        Form::SignedNumber
    } else if definitions.is_a(def.name, "decimal") || definitions.is_a(def.name, "integer") {
        Form::Number
    } else {
        Form::Text
    }
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn parent(path: &'static str) -> (&'static str, &'static str) {
    path.rsplit_once('.').unwrap_or(("", path))
}
