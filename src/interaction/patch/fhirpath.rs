//! FHIRPath Patch, <https://hl7.org/fhir/R4/fhirpatch.html>: operations in a Parameters resource, on elements that FHIRPath
//! names. The paths are those of [`Path`]: an engine that makes values of its own could not say where they are.

use serde_json::{Map, Value};

use super::MAX_OPERATIONS;
use super::element::{self, Content};
use crate::fhir::definitions::Element;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind, Resource};
use crate::search::path::place::{Place, Places, Step as Down};
use crate::search::path::{Path, Ty, library};

/// One operation, and which it is.
#[derive(Debug)]
pub struct Step {
    at: usize,
    path: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Add { name: String, value: Given },
    Insert { index: usize, value: Given },
    Delete,
    Replace { value: Given },
    Move { source: usize, destination: usize },
}

/// A value as the Parameters give it.
#[derive(Clone, Debug)]
enum Given {
    /// `value[x]`: the type as the name spells it, value and sibling.
    Typed(String, Content),
    /// The parts of an element that has no type of its own.
    Parts(Vec<(String, Given)>),
}

/// Reads the operations.
///
/// # Errors
/// What is missing or wrong, in which of them.
pub fn read(parameters: &Resource) -> Result<Vec<Step>, Failure> {
    if parameters.type_name() != "Parameters" {
        let message = format!("a FHIRPath Patch is a Parameters resource, but resourceType is '{}'", parameters.type_name());
        return Err(Failure::new(Kind::Invalid, message).at("resourceType"));
    }
    let all = parameters.value().get("parameter").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if all.len() > MAX_OPERATIONS {
        return Err(Failure::new(Kind::TooCostly, format!("the patch has {} operations; at most {MAX_OPERATIONS} are accepted", all.len())));
    }
    let steps: Result<Vec<Step>, Failure> = all.iter().enumerate().map(|(at, parameter)| step(at, parameter)).collect();
    let steps = steps?;
    if steps.is_empty() {
        return Err(Failure::new(Kind::Invalid, "the Parameters have no parameter 'operation'").at("Parameters.parameter"));
    }
    Ok(steps)
}

fn step(at: usize, parameter: &Value) -> Result<Step, Failure> {
    let bad = |message: String| Failure::new(Kind::Invalid, format!("operation {at} of the patch: {message}")).at(format!("Parameters.parameter[{at}]"));
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
    if name != "operation" {
        return Err(bad(format!("the parameter's name is '{}'; each is named operation", clip(name))));
    }
    let parts = parameter.get("part").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let part = |name: &str| parts.iter().find(|p| p.get("name").and_then(Value::as_str) == Some(name));
    let text = |name: &str| {
        let found = part(name).and_then(|p| p.as_object()?.iter().find(|(key, _)| key.starts_with("value"))?.1.as_str());
        found.map(str::to_owned).ok_or_else(|| bad(format!("part '{name}' with a string is missing")))
    };
    let number = |name: &str| {
        let found = part(name).and_then(|p| p.get("valueInteger").or_else(|| p.get("valueUnsignedInt")).or_else(|| p.get("valuePositiveInt"))?.as_u64());
        found.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| bad(format!("part '{name}' with an integer from 0 on is missing")))
    };
    let value = || part("value").and_then(given).ok_or_else(|| bad("part 'value' with a value or parts is missing".to_owned()));
    let kind = text("type")?;
    let action = match kind.as_str() {
        "add" => Action::Add { name: text("name")?, value: value()? },
        "insert" => Action::Insert { index: number("index")?, value: value()? },
        "delete" => Action::Delete,
        "replace" => Action::Replace { value: value()? },
        "move" => Action::Move { source: number("source")?, destination: number("destination")? },
        other => return Err(bad(format!("type '{}' is not add, insert, delete, replace or move", clip(other)))),
    };
    let path = text("path")?;
    if let Some(excess) = library::excess(&path) {
        return Err(bad(format!("the path '{}' {excess}", clip(&path))));
    }
    Ok(Step { at, path, action })
}

fn given(part: &Value) -> Option<Given> {
    let members = part.as_object()?;
    if let Some(parts) = part.get("part").and_then(Value::as_array) {
        return parts.iter().map(|p| Some((p.get("name")?.as_str()?.to_owned(), given(p)?))).collect::<Option<Vec<_>>>().map(Given::Parts);
    }
    if let Some(resource) = part.get("resource") {
        return Some(Given::Typed("Resource".to_owned(), Content { value: resource.clone(), sibling: None }));
    }
    let key = members.keys().find_map(|key| key.strip_prefix("value").or_else(|| key.strip_prefix("_value")))?;
    let value = members.get(&format!("value{key}")).cloned().unwrap_or_default();
    Some(Given::Typed(key.to_owned(), Content { value, sibling: members.get(&format!("_value{key}")).cloned() }))
}

/// Applies the operations in turn; what is changed when one fails is not to be used.
///
/// # Errors
/// [`Kind::Unprocessable`]: one cannot be carried out.
pub fn apply(steps: &[Step], resource: &mut Value, type_name: &'static str, definitions: &'static Definitions) -> Result<(), Failure> {
    for step in steps {
        let mut target = Target { resource, type_name, definitions };
        target.act(&step.path, &step.action).map_err(|message| {
            let message = format!("operation {} of the patch, on {}: {message}", step.at, clip(&step.path));
            Failure::new(Kind::Unprocessable, message).at(format!("Parameters.parameter[{}]", step.at))
        })?;
    }
    Ok(())
}

/// The resource that is being patched.
struct Target<'a> {
    resource: &'a mut Value,
    type_name: &'static str,
    definitions: &'static Definitions,
}

/// An element that a path has found.
struct Found {
    place: Place,
    ty: Ty,
}

impl Target<'_> {
    fn act(&mut self, path: &str, action: &Action) -> Result<(), String> {
        match action {
            Action::Add { name, value } => {
                let found = self.one(path)?;
                self.add(&found, name, value)
            }
            Action::Insert { index, value } => self.insert(path, *index, value),
            Action::Delete => match &self.find(path)?[..] {
                [] => Ok(()),
                [one] if one.place.0.is_empty() => Err("a patch does not delete the resource itself; DELETE it".to_owned()),
                [one] => {
                    element::remove(self.resource, &one.place);
                    Ok(())
                }
                several => Err(format!("the path leads to {} elements; delete takes one", several.len())),
            },
            Action::Replace { value } => {
                let found = self.one(path)?;
                self.replace(&found, value)
            }
            Action::Move { source, destination } => self.mov(path, *source, *destination),
        }
    }

    fn find(&self, path: &str) -> Result<Vec<Found>, String> {
        let compiled = Path::compile(path, self.type_name, self.definitions).map_err(|e| e.to_string())?;
        let mut nodes = Vec::new();
        compiled.evaluate(self.resource, self.type_name, &mut nodes);
        if nodes.is_empty() {
            return self.without_value(path);
        }
        let places = Places::of(self.resource);
        let place = |value| places.find(value).ok_or_else(|| "the path makes a value instead of leading to an element".to_owned());
        nodes.iter().map(|node| Ok(Found { place: place(node.value)?, ty: node.ty })).collect()
    }

    /// A primitive that has no value, only an id or extensions: it is where its sibling is.
    fn without_value(&self, path: &str) -> Result<Vec<Found>, String> {
        let Some((above, name)) = path.rsplit_once('.').filter(|(_, name)| name.bytes().all(|b| b.is_ascii_alphanumeric())) else { return Ok(Vec::new()) };
        let compiled = Path::compile(above, self.type_name, self.definitions).map_err(|e| e.to_string())?;
        let mut parents = Vec::new();
        compiled.evaluate(self.resource, self.type_name, &mut parents);
        let places = Places::of(self.resource);
        let found = parents.iter().filter_map(|parent| {
            let element = self.element(parent.ty, name).ok()?;
            let key = present(parent.value.as_object()?, element, name)?;
            Some(Found { place: places.find(parent.value)?.then(Down::Key(key)), ty: Ty::named("Element") })
        });
        Ok(found.collect())
    }

    fn one(&self, path: &str) -> Result<Found, String> {
        let mut found = self.find(path)?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err("the path leads to nothing".to_owned()),
            n => Err(format!("the path leads to {n} elements; it must lead to one")),
        }
    }

    fn object(&mut self, place: &Place) -> Result<&mut Map<String, Value>, String> {
        place.get_mut(self.resource).and_then(Value::as_object_mut).ok_or_else(|| "the path leads to a primitive, which has no elements".to_owned())
    }

    /// The element `name` of elements of type `ty`; primitives have extensions.
    fn element(&self, ty: Ty, name: &str) -> Result<&'static Element, String> {
        let def = self.definitions.type_def(ty.base).ok_or_else(|| format!("{} has no elements", ty.base))?;
        let nearest = || {
            let names = def.elements.iter().filter_map(|e| e.path.strip_prefix(ty.path).map(|p| p.trim_start_matches('.'))).filter(|p| !p.contains('.'));
            let near = crate::fhir::definitions::nearest(name, names.map(|p| p.trim_end_matches("[x]")));
            near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default()
        };
        def.of_member(ty.path, name).ok_or_else(|| format!("'{}' is no element there{}", clip(name), nearest()))
    }

    fn add(&mut self, found: &Found, name: &str, value: &Given) -> Result<(), String> {
        let element = self.element(found.ty, name)?;
        let (key, content) = self.content(found.ty, element, name, value)?;
        let object = self.object(&found.place)?;
        if element.max != Some(1) {
            let length = object.get(&key).and_then(Value::as_array).map_or(0, Vec::len);
            element::insert(object, &key, length, content);
            return Ok(());
        }
        if let Some(there) = present(object, element, &key) {
            return Err(format!("'{there}' is there already and does not repeat; replace it"));
        }
        element::set(object, &key, content, None);
        Ok(())
    }

    fn insert(&mut self, path: &str, index: usize, value: &Given) -> Result<(), String> {
        let found = self.find(path)?;
        if found.is_empty() {
            // There is no list yet: it is the last name of the path.
            let (above, name) = path.rsplit_once('.').ok_or("the path leads to nothing")?;
            if index > 0 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(format!("there is no list, so index {index} is beyond its end"));
            }
            let parent = self.one(above)?;
            return self.add(&parent, name, value);
        }
        let (holder, key) = list(&found)?;
        if index > found.len() {
            return Err(format!("index {index} is beyond the end: the list has {} elements", found.len()));
        }
        let (parent, element) = self.definition(&holder, &key)?;
        let (_, content) = self.content(parent, element, &key, value)?;
        element::insert(self.object(&holder)?, &key, index, content);
        Ok(())
    }

    fn replace(&mut self, found: &Found, value: &Given) -> Result<(), String> {
        let Some((parent, step)) = found.place.split() else { return Err("a patch does not replace the resource itself; PUT it".to_owned()) };
        let (holder, key, index) = match (step, parent.split()) {
            (Down::Key(key), _) => (parent.clone(), key.clone(), None),
            (Down::Index(n), Some((holder, Down::Key(key)))) => (holder, key.clone(), Some(*n)),
            (Down::Index(_), _) => return Err("the path leads into a list of lists".to_owned()),
        };
        let (ty, element) = self.definition(&holder, &key)?;
        let (new_key, content) = self.content(ty, element, &key, value)?;
        let object = self.object(&holder)?;
        match index {
            Some(n) => {
                element::take(object, &key, n);
                element::insert(object, &key, n, content);
            }
            None => element::set(object, &new_key, content, Some(&key)),
        }
        Ok(())
    }

    fn mov(&mut self, path: &str, source: usize, destination: usize) -> Result<(), String> {
        let found = self.find(path)?;
        let (holder, key) = list(&found)?;
        for (what, index) in [("source", source), ("destination", destination)] {
            if index >= found.len() {
                return Err(format!("{what} {index} is beyond the end: the list has {} elements", found.len()));
            }
        }
        let object = self.object(&holder)?;
        let moved = element::take(object, &key, source);
        element::insert(object, &key, destination, moved);
        Ok(())
    }

    /// The type of what is at a place, and the element that its member `key` is.
    fn definition(&self, holder: &Place, key: &str) -> Result<(Ty, &'static Element), String> {
        let mut ty = Ty::named(self.type_name);
        let mut here = &*self.resource;
        for step in &holder.0 {
            match step {
                Down::Key(key) => {
                    here = &here[key.as_str()];
                    ty = self.inner(ty, self.element(ty, key)?, key, here);
                }
                Down::Index(n) => {
                    here = &here[*n];
                    ty = self.resource_type(ty, here);
                }
            }
        }
        Ok((ty, self.element(ty, key)?))
    }

    /// The type of the member `key`, an `element` of something of type `ty`.
    fn inner(&self, ty: Ty, element: &'static Element, key: &str, value: &Value) -> Ty {
        let found = match element.types {
            "BackboneElement" | "Element" => Ty { base: ty.base, path: element.path },
            types => match types.strip_prefix('#') {
                Some(path) => Ty { base: ty.base, path },
                None => Ty::named(chosen(element, key).unwrap_or(types)),
            },
        };
        self.resource_type(found, value)
    }

    /// A resource inside a resource has the type it says it has.
    fn resource_type(&self, ty: Ty, value: &Value) -> Ty {
        let named = value.get("resourceType").and_then(Value::as_str).and_then(|name| self.definitions.find_resource_type(name));
        named.filter(|_| ty.base == "Resource").map_or(ty, Ty::named)
    }

    /// The key and what it shall hold, for an `element` of something of type `ty`.
    fn content(&self, ty: Ty, element: &'static Element, name: &str, value: &Given) -> Result<(String, Content), String> {
        match value {
            Given::Typed(type_name, content) => {
                let base = element.path.rsplit('.').next().unwrap_or_default();
                let Some(stem) = base.strip_suffix("[x]") else { return Ok((base.to_owned(), content.clone())) };
                let allowed: Vec<&str> = element.types.split('|').collect();
                if !allowed.iter().any(|t| t.eq_ignore_ascii_case(type_name)) && element.types != "*" {
                    return Err(format!("'{stem}' cannot be a {}; it is one of {}", clip(type_name), allowed.join(", ")));
                }
                Ok((format!("{stem}{type_name}"), content.clone()))
            }
            Given::Parts(parts) => {
                let inner = self.inner(ty, element, name, &Value::Null);
                let mut object = Map::new();
                for (name, part) in parts {
                    let def = self.element(inner, name)?;
                    let (key, content) = self.content(inner, def, name, part)?;
                    if def.max == Some(1) {
                        if present(&object, def, &key).is_some() {
                            return Err(format!("'{}' is given twice and does not repeat", clip(name)));
                        }
                        element::set(&mut object, &key, content, None);
                    } else {
                        let length = object.get(&key).and_then(Value::as_array).map_or(0, Vec::len);
                        element::insert(&mut object, &key, length, content);
                    }
                }
                Ok((element.path.rsplit('.').next().unwrap_or_default().to_owned(), Content { value: Value::Object(object), sibling: None }))
            }
        }
    }
}

/// The type that the key of a choice names.
fn chosen(element: &'static Element, key: &str) -> Option<&'static str> {
    let stem = element.path.rsplit('.').next()?.strip_suffix("[x]")?;
    let suffix = key.strip_prefix(stem)?;
    element.types.split('|').find(|t| t.eq_ignore_ascii_case(suffix))
}

/// The member that holds the element already; of a choice, whatever its type.
fn present(object: &Map<String, Value>, element: &Element, key: &str) -> Option<String> {
    let there = |key: &str| object.contains_key(key) || object.contains_key(&element::sibling(key));
    let stem = element.path.rsplit('.').next().unwrap_or_default().strip_suffix("[x]");
    let Some(stem) = stem else { return there(key).then(|| key.to_owned()) };
    let capital = |t: &str| format!("{stem}{}{}", t[..1].to_ascii_uppercase(), &t[1..]);
    element.types.split('|').filter(|t| !t.is_empty()).map(capital).find(|key| there(key))
}

/// The object and the member that hold all the elements, as a list.
fn list(found: &[Found]) -> Result<(Place, String), String> {
    let array = found.first().and_then(|first| first.place.split()).map(|(array, _)| array).ok_or("the path leads to nothing")?;
    let in_order = |(n, one): (usize, &Found)| one.place == array.then(Down::Index(n));
    match array.split() {
        Some((holder, Down::Key(key))) if found.iter().enumerate().all(in_order) => Ok((holder, key.clone())),
        _ => Err("the path must lead to all elements of one list".to_owned()),
    }
}
