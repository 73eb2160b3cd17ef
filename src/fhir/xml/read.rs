//! From XML to JSON: elements become members, repeated ones arrays; values what the definitions say they are in JSON.

use rustc_hash::FxHashMap;

use super::super::Failure;
use super::super::id::clip;
use super::super::json::MAX_DEPTH;
use super::super::raw::quote;
use super::malformed;
use super::shape::{Form, Member, ShapeId, Shapes};
use super::tree::Element;

/// The JSON of a resource.
///
/// # Errors
/// It cannot be said in JSON; it is nested too deeply.
pub fn resource(root: &Element<'_>, text: &str, shapes: &'static Shapes) -> Result<String, Failure> {
    let mut out = String::with_capacity(text.len());
    Reader { text, shapes }.resource(root, 1, &mut out)?;
    Ok(out)
}

struct Reader<'x> {
    text: &'x str,
    shapes: &'static Shapes,
}

/// All that belongs to one member of an object.
struct Slot<'e, 'x> {
    name: &'x str,
    member: Option<Member>,
    values: Vec<Given<'e, 'x>>,
}

/// One value of a member, as it came.
#[derive(Clone, Copy)]
enum Given<'e, 'x> {
    Attribute(&'e str),
    Element(&'e Element<'x>),
}

/// One value of a member as JSON: itself, and its `_` sibling.
#[derive(Default)]
struct Value {
    own: Option<String>,
    sibling: Option<String>,
}

impl<'x> Reader<'x> {
    fn wrong(&self, element: &Element<'_>, what: impl std::fmt::Display) -> Failure {
        malformed(self.text, element.at, what)
    }

    fn resource(&self, element: &Element<'x>, depth: usize, out: &mut String) -> Result<(), Failure> {
        if element.value.is_some() || !element.attributes.is_empty() {
            let name = clip(element.name);
            return Err(self.wrong(element, format_args!("the resource '{name}' has an attribute, but a resource's id and all else are elements in it")));
        }
        if let Some(second) = element.children.iter().find(|c| c.name == "resourceType") {
            return Err(self.wrong(second, "'resourceType' is the name of the element itself in XML"));
        }
        out.push_str("{\"resourceType\":");
        out.push_str(&quote(element.name));
        self.members(element, self.shapes.resource(element.name), depth, true, out)
    }

    fn object(&self, element: &Element<'x>, shape: ShapeId, depth: usize) -> Result<String, Failure> {
        let mut out = String::from("{");
        self.members(element, shape, depth, false, &mut out)?;
        Ok(out)
    }

    /// The members of an object that is begun already, and its end.
    fn members(&self, element: &Element<'x>, shape: ShapeId, depth: usize, mut has_members: bool, out: &mut String) -> Result<(), Failure> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(element, format_args!("nested deeper than {MAX_DEPTH} levels, counted as in JSON")));
        }
        let (slots, places) = self.slots(element, shape);
        for slot in &slots {
            let is_array = slot.member.is_some_and(|m| m.repeats) || slot.values.len() > 1;
            let depth = depth + 1 + usize::from(is_array);
            let values = slot.values.iter().map(|given| self.value(*given, slot.member.map(|m| m.form), depth)).collect::<Result<Vec<_>, _>>()?;
            let has_sibling = values.iter().any(|v| v.sibling.is_some());
            // A value that is only an extension has no member of its own.
            if !has_sibling || values.iter().any(|v| v.own.is_some()) {
                push(&mut has_members, slot.name, "", is_array, values.iter().map(|v| v.own.as_deref()), out);
            }
            if has_sibling {
                if places.contains_key(&*format!("_{}", slot.name)) {
                    return Err(self.wrong(element, format_args!("the element '_{}' cannot be told from what '{0}' has beside its value", clip(slot.name))));
                }
                push(&mut has_members, slot.name, "_", is_array, values.iter().map(|v| v.sibling.as_deref()), out);
            }
        }
        out.push('}');
        Ok(())
    }

    /// What belongs together, in the order of the first of each name, and where each name is.
    fn slots<'e>(&self, element: &'e Element<'x>, shape: ShapeId) -> (Vec<Slot<'e, 'x>>, FxHashMap<&'x str, usize>) {
        let mut slots: Vec<Slot<'e, 'x>> = Vec::new();
        let mut places: FxHashMap<&'x str, usize> = FxHashMap::default();
        let attributes = element.attributes.iter().map(|(name, value)| (*name, Given::Attribute(value)));
        let children = element.children.iter().map(|child| (child.name, Given::Element(child)));
        for (name, given) in attributes.chain(children) {
            let place = *places.entry(name).or_insert(slots.len());
            match slots.get_mut(place) {
                Some(slot) => slot.values.push(given),
                None => slots.push(Slot { name, member: self.shapes.member(shape, name), values: vec![given] }),
            }
        }
        (slots, places)
    }

    fn value(&self, given: Given<'_, 'x>, form: Option<Form>, depth: usize) -> Result<Value, Failure> {
        let element = match given {
            Given::Attribute(text) => return Ok(Value { own: Some(quote(text)), sibling: None }),
            Given::Element(element) => element,
        };
        if let Some(narrative) = &element.narrative {
            return Ok(Value { own: Some(quote(narrative)), sibling: None });
        }
        if form == Some(Form::Narrative) {
            return Err(self.wrong(element, "a narrative is XHTML, without the attribute 'value'"));
        }
        let is_bare = element.attributes.is_empty() && element.children.is_empty();
        if let Some(text) = &element.value {
            let sibling = if is_bare { None } else { Some(self.object(element, self.shapes.unknown(), depth)?) };
            return Ok(Value { own: Some(literal(text, form)), sibling });
        }
        match form {
            None | Some(Form::Text | Form::Number | Form::SignedNumber | Form::Boolean) if is_bare => Ok(Value::default()),
            Some(Form::Text | Form::Number | Form::SignedNumber | Form::Boolean) => {
                Ok(Value { own: None, sibling: Some(self.object(element, self.shapes.unknown(), depth)?) })
            }
            None | Some(Form::Narrative) => Ok(Value { own: Some(self.object(element, self.shapes.unknown(), depth)?), sibling: None }),
            Some(Form::Complex(shape)) => Ok(Value { own: Some(self.object(element, shape, depth)?), sibling: None }),
            Some(Form::Resource) => Ok(Value { own: Some(self.nested(element, depth)?), sibling: None }),
        }
    }

    /// What is where a resource should be. Names of resource types, and of nothing else, begin in upper case.
    fn nested(&self, element: &Element<'x>, depth: usize) -> Result<String, Failure> {
        let is_resource = |child: &Element<'_>| child.value.is_none() && child.name.starts_with(|c: char| c.is_ascii_uppercase());
        match element.children.as_slice() {
            [only] if is_resource(only) && element.attributes.is_empty() => {
                let mut out = String::new();
                self.resource(only, depth, &mut out)?;
                Ok(out)
            }
            _ => self.object(element, self.shapes.unknown(), depth),
        }
    }
}

/// Appends a member.
fn push<'a>(has_members: &mut bool, name: &str, prefix: &str, is_array: bool, values: impl Iterator<Item = Option<&'a str>>, out: &mut String) {
    if *has_members {
        out.push(',');
    }
    *has_members = true;
    // A name of XML has nothing that JSON would escape.
    out.extend(["\"", prefix, name, "\":"]);
    if is_array {
        out.push('[');
    }
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(value.unwrap_or("null"));
    }
    if is_array {
        out.push(']');
    }
}

/// A value in JSON.
fn literal(text: &str, form: Option<Form>) -> String {
    let is_literal = match form {
        Some(Form::Number | Form::SignedNumber) => is_number(text),
        // Of what nobody knows, these two words are booleans far more often than strings.
        Some(Form::Boolean) | None => matches!(text, "true" | "false"),
        Some(Form::Text | Form::Narrative | Form::Complex(_) | Form::Resource) => false,
    };
    // A plus that its type allows is of no consequence. Any other stays, so that it can be found.
    let is_signed = |digits: &&str| form == Some(Form::SignedNumber) && digits.starts_with(|c: char| matches!(c, '1'..='9')) && is_number(digits);
    let plain = text.strip_prefix('+').filter(is_signed);
    if is_literal { text.to_owned() } else { plain.map_or_else(|| quote(text), str::to_owned) }
}

/// Whether it is a number as JSON writes one.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}
