//! FHIRPath Patch, <https://hl7.org/fhir/R4/fhirpatch.html>: operations in a Parameters resource, on elements that FHIRPath
//! names. The paths are those of [`Path`]: an engine that makes values of its own could not say where they are.

use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::MAX_OPERATIONS;
use super::element::{self, Content};
use crate::fhir::definitions::Element;
use crate::fhir::id::clip;
use crate::fhir::json::kind_of;
use crate::fhir::validate;
use crate::fhir::{Definitions, Failure, Kind, Resource};
use crate::search::path::place::{Place, Places, Step as Down};
use crate::search::path::{Node, Path, Ty, library};

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
    let all = match parameters.value().get("parameter") {
        None => &[],
        Some(Value::Array(all)) => all.as_slice(),
        Some(other) => {
            let message = format!("Parameters.parameter must be an array of operations, but is {}; put [ and ] around it", kind_of(other));
            return Err(Failure::new(Kind::Invalid, message).at("Parameters.parameter"));
        }
    };
    if all.len() > MAX_OPERATIONS {
        return Err(Failure::new(Kind::TooCostly, format!("the patch has {} operations; at most {MAX_OPERATIONS} are accepted", all.len())));
    }
    steps(all)
}

/// Reads operations, however many.
///
/// # Errors
/// As [`read`].
pub fn steps(operations: &[Value]) -> Result<Vec<Step>, Failure> {
    operations.iter().enumerate().map(|(at, parameter)| step(at, parameter)).collect()
}

/// What an operation has.
const PARTS: [&str; 7] = ["type", "path", "name", "value", "index", "source", "destination"];

fn step(at: usize, parameter: &Value) -> Result<Step, Failure> {
    let bad = |message: String| Failure::new(Kind::Invalid, format!("operation {at} of the patch: {message}")).at(format!("Parameters.parameter[{at}]"));
    let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
    if name != "operation" {
        return Err(bad(format!("the parameter's name is '{}'; each is named operation", clip(name))));
    }
    let parts = parameter.get("part").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (at, part) in parts.iter().enumerate() {
        let name = part.get("name").and_then(Value::as_str).unwrap_or_default();
        if !PARTS.contains(&name) {
            return Err(bad(format!("part '{}' is none of {}", clip(name), PARTS.join(", "))));
        }
        if parts[..at].iter().any(|p| p.get("name") == part.get("name")) {
            return Err(bad(format!("part '{name}' is given twice")));
        }
    }
    let part = |name: &str| parts.iter().find(|p| p.get("name").and_then(Value::as_str) == Some(name));
    let text = |name: &str| {
        let found = part(name).and_then(|p| p.as_object()?.iter().find(|(key, _)| key.starts_with("value"))?.1.as_str());
        found.map(str::to_owned).ok_or_else(|| bad(format!("part '{name}' with a string is missing")))
    };
    let number = |name: &str| {
        let found = part(name).and_then(|p| p.get("valueInteger").or_else(|| p.get("valueUnsignedInt")).or_else(|| p.get("valuePositiveInt"))?.as_u64());
        found.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| bad(format!("part '{name}' with an integer from 0 on is missing")))
    };
    let value = || part("value").and_then(given).ok_or_else(|| bad("part 'value' with one value, or parts, is missing".to_owned()));
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
    // One of them, and no more.
    let said = members.keys().filter(|key| key.starts_with("value") || matches!(key.as_str(), "part" | "resource")).count();
    if said > 1 {
        return None;
    }
    if let Some(parts) = part.get("part").and_then(Value::as_array).filter(|parts| !parts.is_empty()) {
        return parts.iter().map(|p| Some((p.get("name")?.as_str()?.to_owned(), given(p)?))).collect::<Option<Vec<_>>>().map(Given::Parts);
    }
    if let Some(resource) = part.get("resource") {
        return Some(Given::Typed("Resource".to_owned(), Content { value: resource.clone(), sibling: None }));
    }
    let key = members.keys().find_map(|key| key.strip_prefix("value").or_else(|| key.strip_prefix("_value")))?;
    let value = members.get(&format!("value{key}")).cloned().unwrap_or_default();
    if value.is_null() && !members.get(&format!("_value{key}")).is_some_and(Value::is_object) {
        return None;
    }
    Some(Given::Typed(key.to_owned(), Content { value, sibling: members.get(&format!("_value{key}")).cloned() }))
}

/// Most values that the operations of one patch go through: about a second's work.
const MAX_VALUES: u64 = 10_000_000;

/// Why an operation cannot be carried out.
enum Problem {
    Unfit(String),
    TooCostly,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::Unfit(message)
    }
}

impl From<&str> for Problem {
    fn from(message: &str) -> Self {
        Self::Unfit(message.to_owned())
    }
}

/// Applies the operations in turn; what is changed when one fails is not to be used.
///
/// # Errors
/// [`Kind::Unprocessable`]: one cannot be carried out.
pub fn apply(steps: &[Step], resource: &mut Value, type_name: &'static str, definitions: &'static Definitions) -> Result<(), Failure> {
    let (left, mut removed) = (Cell::new(MAX_VALUES), BTreeSet::new());
    for step in steps {
        let mut target = Target { resource, left: &left, removed: &mut removed, type_name, definitions };
        target.act(&step.path, &step.action).map_err(|problem| {
            let (kind, message) = match problem {
                Problem::Unfit(message) => (Kind::Unprocessable, message),
                Problem::TooCostly => (Kind::TooCostly, "so many operations on so large a resource take too long; send fewer, or PUT the resource".to_owned()),
            };
            let message = format!("operation {} of the patch, on {}: {message}", step.at, clip(&step.path));
            Failure::new(kind, message).at(format!("Parameters.parameter[{}]", step.at))
        })?;
    }
    // What the patch leaves empty goes. Not before the end: something may be added, and places count.
    for name in removed {
        element::prune(resource, &name);
    }
    Ok(())
}

/// The resource that is being patched.
struct Target<'a> {
    resource: &'a mut Value,
    /// How many values the operations that are left may go through.
    left: &'a Cell<u64>,
    /// The members in which something was removed.
    removed: &'a mut BTreeSet<String>,
    type_name: &'static str,
    definitions: &'static Definitions,
}

/// An element that a path has found.
struct Found {
    place: Place,
    ty: Ty,
}

impl Target<'_> {
    fn act(&mut self, path: &str, action: &Action) -> Result<(), Problem> {
        match action {
            Action::Add { name, value } => {
                let found = self.one(path)?;
                self.add(&found, name, value)
            }
            Action::Insert { index, value } => self.insert(path, *index, value),
            Action::Delete => {
                let mut found = self.find(path)?;
                match (found.pop(), found.len()) {
                    (None, _) => Ok(()),
                    (Some(one), 0) if one.place.0.is_empty() => Err("a patch does not delete the resource itself; DELETE it".into()),
                    (Some(one), 0) => {
                        element::remove(self.resource, &one.place);
                        self.removed.extend(element::member_of(&one.place));
                        Ok(())
                    }
                    (Some(_), others) => Err(format!("the path leads to {} elements; delete takes one", others + 1).into()),
                }
            }
            Action::Replace { value } => {
                let found = self.one(path)?;
                self.replace(&found, value)
            }
            Action::Move { source, destination } => self.mov(path, *source, *destination),
        }
    }

    fn compiled(&self, path: &str) -> Result<Path, Problem> {
        Path::compile(path, self.type_name, self.definitions).map_err(|e| e.to_string().into())
    }

    fn find(&self, path: &str) -> Result<Vec<Found>, Problem> {
        let compiled = self.compiled(path)?;
        let mut nodes = Vec::new();
        let root = Node::new(self.resource, Ty::named(self.type_name));
        let left = compiled.elements_below(root, root, self.left.get(), &mut nodes);
        self.left.set(left.ok_or(Problem::TooCostly)?);
        if nodes.is_empty() {
            self.known(path, &compiled)?;
            return Ok(Vec::new());
        }
        let places = Places::of(self.resource);
        self.left.set(self.left.get().checked_sub(places.count() as u64).ok_or(Problem::TooCostly)?);
        let place = |node: &Node<'_>| match node.sibling {
            Some(sibling) if node.value.is_null() => places.find(sibling).map(Place::of_primitive),
            _ => places.find(node.value),
        };
        let found = |node| Some(Found { place: place(node)?, ty: node.ty });
        nodes.iter().map(found).collect::<Option<_>>().ok_or_else(|| "the path makes a value instead of leading to an element".into())
    }

    /// A path that leads to nothing must at least be made of elements that there are.
    fn known(&self, path: &str, compiled: &Path) -> Result<(), Problem> {
        if !compiled.types.is_empty() {
            return Ok(());
        }
        if let Some((above, name)) = path.rsplit_once('.').filter(|(_, name)| name.bytes().all(|b| b.is_ascii_alphanumeric())) {
            for ty in self.compiled(above)?.types {
                self.element(ty, name)?;
            }
        }
        Err(format!("the path names no element of {}; it begins with '{}.' and goes on by the names of elements", self.type_name, self.type_name).into())
    }

    fn one(&self, path: &str) -> Result<Found, Problem> {
        let mut found = self.find(path)?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err("the path leads to nothing; add puts an element where there is none".into()),
            n => Err(format!("the path leads to {n} elements; it must lead to one").into()),
        }
    }

    /// The elements of what was found: a primitive has them beside it.
    fn elements(&mut self, found: &Found) -> Result<&mut Map<String, Value>, Problem> {
        if self.definitions.is_primitive(found.ty.base) {
            return element::beside(self.resource, &found.place).ok_or_else(|| "the path leads to nothing".into());
        }
        self.object(&found.place)
    }

    fn object(&mut self, place: &Place) -> Result<&mut Map<String, Value>, Problem> {
        place.get_mut(self.resource).and_then(Value::as_object_mut).ok_or_else(|| "the path leads to a primitive, which has no elements".into())
    }

    /// The element `name` of elements of type `ty`; primitives have extensions.
    fn element(&self, ty: Ty, name: &str) -> Result<&'static Element, Problem> {
        let def = self.definitions.type_def(ty.base).ok_or_else(|| Problem::Unfit(format!("{} has no elements", ty.base)))?;
        let nearest = || {
            let names = def.elements.iter().filter_map(|e| e.path.strip_prefix(ty.path).map(|p| p.trim_start_matches('.'))).filter(|p| !p.contains('.'));
            let near = crate::fhir::definitions::nearest(name, names.map(|p| p.trim_end_matches("[x]")));
            near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default()
        };
        let of = if ty.path.is_empty() { ty.base.to_owned() } else { format!("{}.{}", ty.base, ty.path) };
        def.of_member(ty.path, name).ok_or_else(|| format!("'{}' is no element of {of}{}", clip(name), nearest()).into())
    }

    fn add(&mut self, found: &Found, name: &str, value: &Given) -> Result<(), Problem> {
        let element = self.element(found.ty, name)?;
        if let (Given::Typed(given, _), Some(named)) = (value, chosen(element, name))
            && capital(named) != *given
        {
            return Err(format!("'{}' is a {named} and cannot be a {}", clip(name), clip(given)).into());
        }
        let (key, content) = self.content(found.ty, element, name, value)?;
        let object = self.elements(found)?;
        if element.max != Some(1) {
            let length = element::length(object, &key);
            element::insert(object, &key, length, content);
            return Ok(());
        }
        if let Some(there) = present(object, element, &key) {
            return Err(format!("'{there}' is there already and does not repeat; replace it").into());
        }
        element::set(object, &key, content, None);
        Ok(())
    }

    fn insert(&mut self, path: &str, index: usize, value: &Given) -> Result<(), Problem> {
        let found = self.find(path)?;
        if found.is_empty() {
            // There is no list yet: it is the last name of the path.
            let (above, name) = path.rsplit_once('.').ok_or("the path leads to nothing")?;
            if index > 0 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(format!("there is no list, so index {index} is beyond its end").into());
            }
            let parent = self.one(above)?;
            return self.add(&parent, name, value);
        }
        let (holder, key) = list(&found)?;
        if index > found.len() {
            return Err(format!("index {index} is beyond the end: the list has {} elements", found.len()).into());
        }
        let (parent, element) = self.definition(&holder, &key)?;
        let (_, content) = self.content(parent, element, &key, value)?;
        element::insert(self.object(&holder)?, &key, index, content);
        Ok(())
    }

    fn replace(&mut self, found: &Found, value: &Given) -> Result<(), Problem> {
        let Some((parent, step)) = found.place.split() else { return Err("a patch does not replace the resource itself; PUT it".into()) };
        let (holder, key, index) = match (step, parent.split()) {
            (Down::Key(key), _) => (parent.clone(), key.clone(), None),
            (Down::Index(n), Some((holder, Down::Key(key)))) => (holder, key.clone(), Some(*n)),
            (Down::Index(_), _) => return Err("the path leads into a list of lists".into()),
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

    fn mov(&mut self, path: &str, source: usize, destination: usize) -> Result<(), Problem> {
        let found = self.find(path)?;
        let (holder, key) = list(&found)?;
        for (what, index) in [("source", source), ("destination", destination)] {
            if index >= found.len() {
                return Err(format!("{what} {index} is beyond the end: the list has {} elements", found.len()).into());
            }
        }
        let object = self.object(&holder)?;
        let moved = element::take(object, &key, source);
        element::insert(object, &key, destination, moved);
        Ok(())
    }

    /// The type of what is at a place, and the element that its member `key` is.
    fn definition(&self, holder: &Place, key: &str) -> Result<(Ty, &'static Element), Problem> {
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
    fn content(&self, ty: Ty, element: &'static Element, name: &str, value: &Given) -> Result<(String, Content), Problem> {
        match value {
            Given::Typed(type_name, content) => {
                let base = element.path.rsplit('.').next().unwrap_or_default();
                let Some(stem) = base.strip_suffix("[x]") else {
                    fits(element, type_name, &content.value, self.definitions)?;
                    return Ok((base.to_owned(), content.clone()));
                };
                let allowed: Vec<&str> = element.types.split('|').collect();
                let Some(fitting) = allowed.iter().find(|t| capital(t) == *type_name) else {
                    return Err(format!("'{stem}' cannot be a {}; it is one of {}", clip(type_name), allowed.join(", ")).into());
                };
                well_formed(element, fitting, &content.value, self.definitions)?;
                Ok((format!("{stem}{type_name}"), content.clone()))
            }
            Given::Parts(_) if element.types == "Resource" => {
                Err(format!("'{}' is a resource: give it as the resource of the part 'value'", element.path).into())
            }
            Given::Parts(parts) => {
                let last = element.path.rsplit('.').next().unwrap_or_default();
                let key = match (last.strip_suffix("[x]"), chosen(element, name)) {
                    (None, _) => last.to_owned(),
                    (Some(stem), Some(named)) => format!("{stem}{}", capital(named)),
                    (Some(stem), None) => {
                        let types = element.types.replace('|', ", ");
                        return Err(format!(
                            "'{stem}' is one of {types}: a value in parts needs a name that says which, such as {stem}{}",
                            capital(element.types.split('|').next().unwrap_or_default())
                        )
                        .into());
                    }
                };
                let inner = self.inner(ty, element, name, &Value::Null);
                let mut object = Map::new();
                for (name, part) in parts {
                    let def = self.element(inner, name)?;
                    let (key, content) = self.content(inner, def, name, part)?;
                    if def.max == Some(1) {
                        if present(&object, def, &key).is_some() {
                            return Err(format!("'{}' is given twice and does not repeat", clip(name)).into());
                        }
                        element::set(&mut object, &key, content, None);
                    } else {
                        let length = object.get(&key).and_then(Value::as_array).map_or(0, Vec::len);
                        element::insert(&mut object, &key, length, content);
                    }
                }
                Ok((key, Content { value: Value::Object(object), sibling: None }))
            }
        }
    }
}

/// Refuses a value of another type than the element's. Of primitives, the one's JSON may be the other's: many a client has
/// only strings.
fn fits(element: &Element, type_name: &str, value: &Value, definitions: &Definitions) -> Result<(), Problem> {
    match element.types {
        of if definitions.is_primitive(of) => well_formed(element, of, value, definitions),
        "Resource" if type_name == "Resource" && value.get("resourceType").is_some() => Ok(()),
        "Resource" => Err(format!("'{}' is a resource: give it as the resource of the part 'value'", element.path).into()),
        of if matches!(of, "BackboneElement" | "Element") || of.starts_with('#') => {
            Err(format!("'{}' has no type of its own and cannot be a {}: give its elements as parts of the part 'value'", element.path, clip(type_name)).into())
        }
        of if of.eq_ignore_ascii_case(type_name) || definitions.is_a(of, type_name) => well_formed(element, of, value, definitions),
        of => Err(format!("'{}' is a {of} and cannot be a {}", element.path, clip(type_name)).into()),
    }
}

fn well_formed(element: &Element, type_name: &str, value: &Value, definitions: &Definitions) -> Result<(), Problem> {
    if !definitions.is_primitive(type_name) {
        return match value.as_object() {
            None => Err(format!("the value of '{}' is {}, but a {type_name} is an object", element.path, kind_of(value)).into()),
            Some(members) if members.is_empty() => {
                Err(format!("the value of '{}' is an empty object; leave out what has no content, or delete", element.path).into())
            }
            Some(_) => Ok(()),
        };
    }
    let unfit = Some(value).filter(|v| !v.is_null()).and_then(|v| validate::unfit(v, type_name, definitions));
    unfit.map_or(Ok(()), |message| Err(format!("the value of '{}': {message}", element.path).into()))
}

/// A type as it ends the name of a choice's member.
fn capital(type_name: &str) -> String {
    format!("{}{}", type_name[..1].to_ascii_uppercase(), &type_name[1..])
}

/// The type that the key of a choice names.
fn chosen(element: &'static Element, key: &str) -> Option<&'static str> {
    let stem = element.path.rsplit('.').next()?.strip_suffix("[x]")?;
    let suffix = key.trim_start_matches('_').strip_prefix(stem)?;
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
fn list(found: &[Found]) -> Result<(Place, String), Problem> {
    let array = found.first().and_then(|first| first.place.split()).map(|(array, _)| array).ok_or("the path leads to nothing")?;
    let in_order = |(n, one): (usize, &Found)| one.place == array.then(Down::Index(n));
    match array.split() {
        Some((holder, Down::Key(key))) if found.iter().enumerate().all(in_order) => Ok((holder, key.clone())),
        _ => Err("the path must lead to all elements of one list".into()),
    }
}
