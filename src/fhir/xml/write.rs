//! From JSON to XML: members become elements in the specification's order; what is unknown comes after them.

use std::borrow::Cow;

use super::super::id::clip;
use super::super::raw;
use super::super::{Failure, Kind};
use super::node::{Members, Node};
use super::shape::{Form, Member, ShapeId, Shapes};
use super::{FHIR_NAMESPACE, characters, narrative};

/// The document of a resource.
///
/// # Errors
/// As [`super::to_xml`].
pub fn resource(json: &str, shapes: &'static Shapes) -> Result<String, Failure> {
    let json = json.strip_prefix('\u{feff}').unwrap_or(json);
    let Ok((type_name, members)) = Node::read(json).into_resource() else {
        return Err(Failure::new(Kind::Invalid, "a FHIR resource is a JSON object with the member resourceType").at("resourceType"));
    };
    let mut writer = Writer { shapes, out: String::with_capacity(json.len() * 3 / 2 + 100) };
    writer.out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    writer.resource(&type_name, members, Some(FHIR_NAMESPACE)).map_err(|unsayable| unsayable.failure(&type_name))?;
    Ok(writer.out)
}

/// What cannot be said in XML.
struct Unsayable {
    /// The elements that lead to it, the innermost first.
    path: Vec<String>,
    reason: String,
}

impl Unsayable {
    fn new(reason: impl Into<String>) -> Self {
        Self { path: Vec::new(), reason: reason.into() }
    }

    fn within(mut self, name: &str) -> Self {
        self.path.push(name.to_owned());
        self
    }

    fn failure(self, type_name: &str) -> Failure {
        let path: Vec<&str> = std::iter::once(type_name).chain(self.path.iter().rev().map(String::as_str)).collect();
        let path = path.join(".");
        Failure::new(Kind::NotAcceptable, format!("{path} cannot be said in XML: {}; ask for JSON", self.reason)).at(path)
    }
}

/// What becomes an element or an attribute: a member, its `_` sibling, or both.
struct Entry<'j> {
    order: u32,
    name: Cow<'j, str>,
    member: Option<Member>,
    value: Option<Node<'j>>,
    sibling: Option<Node<'j>>,
}

impl<'j> Entry<'j> {
    fn of(key: Cow<'j, str>, node: Node<'j>, shape: ShapeId, shapes: &Shapes) -> Self {
        let is_sibling = key.len() > 1 && key.starts_with('_') && node.is_beside();
        let name = match key {
            Cow::Borrowed(key) if is_sibling => Cow::Borrowed(&key[1..]),
            Cow::Owned(key) if is_sibling => Cow::Owned(key[1..].to_owned()),
            key => key,
        };
        let member = shapes.member(shape, &name);
        let (value, sibling) = if is_sibling { (None, Some(node)) } else { (Some(node), None) };
        Self { order: member.map_or(u32::MAX, |m| m.order), name, member, value, sibling }
    }

    /// Its value, if it is said by an attribute: those are strings, and have nothing beside them.
    fn attribute(&self) -> Option<&'j str> {
        match (&self.value, &self.sibling) {
            (Some(Node::Scalar(text)), None) if text.starts_with('"') && self.member.is_some_and(|m| m.is_attribute) => Some(text),
            _ => None,
        }
    }
}

/// The members of an object in the order of their elements.
fn entries<'j>(members: Members<'j>, shape: ShapeId, shapes: &Shapes) -> Vec<Entry<'j>> {
    let mut entries: Vec<Entry<'j>> = members.into_iter().map(|(key, node)| Entry::of(key, node, shape, shapes)).collect();
    entries.sort_unstable_by(|a, b| (a.order, &a.name, a.value.is_none()).cmp(&(b.order, &b.name, b.value.is_none())));
    // A value and its sibling are neighbours now, and one element; an object has its own id and extensions.
    entries.dedup_by(|next, entry| {
        let is_pair = next.value.is_none() && next.name == entry.name && entry.value.as_ref().is_some_and(Node::is_scalar);
        if is_pair {
            entry.sibling = next.sibling.take();
        }
        is_pair
    });
    entries
}

struct Writer {
    shapes: &'static Shapes,
    out: String,
}

impl Writer {
    fn resource(&mut self, type_name: &str, members: Members<'_>, namespace: Option<&str>) -> Result<(), Unsayable> {
        if !characters::is_name(type_name) {
            return Err(Unsayable::new("its resourceType is no name of XML"));
        }
        self.out.extend(["<", type_name]);
        if let Some(namespace) = namespace {
            self.out.extend([" xmlns=\"", namespace, "\""]);
        }
        let mut entries = entries(members, self.shapes.resource(type_name), self.shapes);
        entries.retain(|e| e.name != "resourceType");
        self.content(type_name, entries, None)
    }

    /// Ends the start tag that is begun already: attributes, the value if there is one, elements, and the end tag.
    fn content(&mut self, name: &str, entries: Vec<Entry<'_>>, value: Option<&str>) -> Result<(), Unsayable> {
        for entry in &entries {
            if let Some(text) = entry.attribute() {
                self.attribute(&entry.name, text).map_err(|e| e.within(&entry.name))?;
            }
        }
        if let Some(text) = value.filter(|text| *text != "null") {
            self.attribute("value", text)?;
        }
        let tag_end = self.out.len();
        self.out.push('>');
        for entry in entries.into_iter().filter(|e| e.attribute().is_none()) {
            let form = entry.member.map(|m| m.form);
            match (entry.value, entry.sibling) {
                // It is beside no value that could have one.
                (None, alone) if !form.is_some_and(Form::is_primitive) => self.elements(&format!("_{}", entry.name), None, alone, None)?,
                (value, sibling) => self.elements(&entry.name, form, value, sibling)?,
            }
        }
        if self.out.len() == tag_end + 1 {
            self.out.truncate(tag_end);
            self.out.push_str("/>");
        } else {
            self.out.extend(["</", name, ">"]);
        }
        Ok(())
    }

    fn attribute(&mut self, name: &str, text: &str) -> Result<(), Unsayable> {
        self.out.extend([" ", name, "=\""]);
        characters::escape(&raw::string(text), &mut self.out).map_err(|c| Unsayable::new(format!("it holds the character U+{:04X}", u32::from(c))))?;
        self.out.push('"');
        Ok(())
    }

    /// The elements of a member: one, or as many as its array has.
    fn elements(&mut self, name: &str, form: Option<Form>, value: Option<Node<'_>>, sibling: Option<Node<'_>>) -> Result<(), Unsayable> {
        // What has a form has a name of the definitions.
        if form.is_none() && !characters::is_name(name) {
            return Err(Unsayable::new("its name is no name of XML").within(&clip(name)));
        }
        if !matches!((&value, &sibling), (Some(Node::Array(_)), _) | (_, Some(Node::Array(_)))) {
            return self.element(name, form, value, sibling).map_err(|e| e.within(name));
        }
        let of = |node| items(node, form.is_some()).map_err(|e| e.within(name));
        let (values, siblings) = (of(value)?, of(sibling)?);
        if form.is_some() && values.is_empty() && siblings.is_empty() {
            return Err(Unsayable::new("it is an empty array").within(name));
        }
        let (mut values, mut siblings) = (values.into_iter(), siblings.into_iter());
        for at in 0.. {
            let (value, sibling) = (values.next(), siblings.next());
            if value.is_none() && sibling.is_none() {
                break;
            }
            self.element(name, form, value, sibling).map_err(|e| e.within(&format!("{name}[{at}]")))?;
        }
        Ok(())
    }

    fn element(&mut self, name: &str, form: Option<Form>, value: Option<Node<'_>>, sibling: Option<Node<'_>>) -> Result<(), Unsayable> {
        if form == Some(Form::Narrative) {
            return self.narrative(value.as_ref());
        }
        self.out.extend(["<", name]);
        let shape = match form {
            Some(Form::Complex(shape)) => shape,
            Some(Form::Text | Form::Number | Form::SignedNumber | Form::Boolean | Form::Narrative | Form::Resource) | None => self.shapes.unknown(),
        };
        let value = match value {
            Some(node) if form == Some(Form::Resource) => match node.into_resource() {
                Ok((type_name, members)) => {
                    self.out.push('>');
                    self.resource(&type_name, members, None)?;
                    self.out.extend(["</", name, ">"]);
                    return Ok(());
                }
                Err(node) => Some(node),
            },
            value => value,
        };
        match (value, sibling) {
            (Some(Node::Object(members)), _) => self.content(name, entries(members, shape, self.shapes), None),
            (value, Some(Node::Object(beside))) => self.content(name, entries(beside, self.shapes.unknown(), self.shapes), scalar(value.as_ref())),
            (value, _) => self.content(name, Vec::new(), scalar(value.as_ref())),
        }
    }

    fn narrative(&mut self, value: Option<&Node<'_>>) -> Result<(), Unsayable> {
        let text = scalar(value).filter(|text| text.starts_with('"')).ok_or_else(|| Unsayable::new("it is no string"))?;
        // As it stands, whoever reads it would make it another end of a line.
        self.out.push_str(&narrative::embed(&raw::string(text)).map_err(Unsayable::new)?.replace('\r', narrative::CARRIAGE_RETURN));
        Ok(())
    }
}

fn scalar<'j>(node: Option<&Node<'j>>) -> Option<&'j str> {
    match node {
        Some(Node::Scalar(text)) => Some(text),
        Some(Node::Array(_) | Node::Object(_)) | None => None,
    }
}

/// The value, or the values of an array; of an element that nobody knows, of the arrays in it, too.
fn items(node: Option<Node<'_>>, is_known: bool) -> Result<Vec<Node<'_>>, Unsayable> {
    match node {
        Some(Node::Array(items)) if !items.iter().any(|item| matches!(item, Node::Array(_))) => Ok(items),
        Some(Node::Array(_)) if is_known => Err(Unsayable::new("it has an array within an array")),
        Some(node) => {
            let mut flat = Vec::new();
            flatten(node, &mut flat);
            Ok(flat)
        }
        None => Ok(Vec::new()),
    }
}

fn flatten<'j>(node: Node<'j>, flat: &mut Vec<Node<'j>>) {
    match node {
        Node::Array(items) => items.into_iter().for_each(|item| flatten(item, flat)),
        Node::Scalar(_) | Node::Object(_) => flat.push(node),
    }
}
