//! The FHIRPath Patch that makes one version of a resource another.

use serde_json::{Map, Value, json};

use super::element::sibling;
use crate::fhir::definitions::Element;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind};
use crate::search::path::Ty;

/// The operations, as parameters of a Parameters resource.
///
/// # Errors
/// An element that the definitions do not have: a patch cannot name it.
pub fn diff(from: &Value, to: &Value, type_name: &'static str, definitions: &'static Definitions) -> Result<Vec<Value>, Failure> {
    let mut diff = Diff { definitions, operations: Vec::new() };
    diff.object(Ty::named(type_name), type_name, from, to)?;
    Ok(diff.operations)
}

struct Diff {
    definitions: &'static Definitions,
    operations: Vec<Value>,
}

/// A member with its sibling.
type Pair<'v> = (Option<&'v Value>, Option<&'v Value>);

/// What the server sets itself.
const ITS_OWN: [&str; 4] = ["resourceType", "id", "versionId", "lastUpdated"];

impl Diff {
    fn say(&mut self, kind: &str, path: &str, parts: Vec<Value>) {
        let mut all = vec![json!({"name": "type", "valueCode": kind}), json!({"name": "path", "valueString": path})];
        all.extend(parts);
        self.operations.push(json!({"name": "operation", "part": all}));
    }

    /// What comes and changes is said before what goes: an object that is empty in between would be gone.
    fn object(&mut self, ty: Ty, path: &str, from: &Value, to: &Value) -> Result<(), Failure> {
        for key in names(to, ty, path) {
            let element = self.element(ty, key, path)?;
            // Of a choice the version before may have another type.
            let before = if pair(from, key) == (None, None) { choice_in(from, element).unwrap_or_else(|| key.to_owned()) } else { key.to_owned() };
            let (old, new) = (pair(from, &before), pair(to, key));
            if old != new {
                self.element_changed(ty, path, element, (&before, old), (key, new))?;
            }
        }
        for key in names(from, ty, path) {
            let element = self.element(ty, key, path)?;
            if pair(to, key) == (None, None) && choice_in(to, element).is_none() {
                self.element_changed(ty, path, element, (key, pair(from, key)), (key, (None, None)))?;
            }
        }
        Ok(())
    }

    fn element(&self, ty: Ty, key: &str, path: &str) -> Result<&'static Element, Failure> {
        self.definitions.type_def(ty.base).and_then(|def| def.of_member(ty.path, key)).ok_or_else(|| {
            let message = format!("{path} has '{}', which the definitions do not know: a FHIRPath Patch cannot name it", clip(key));
            Failure::new(Kind::Unprocessable, message)
        })
    }

    fn element_changed(&mut self, ty: Ty, path: &str, element: &'static Element, old: (&str, Pair<'_>), new: (&str, Pair<'_>)) -> Result<(), Failure> {
        let name = stem(element);
        let here = format!("{path}.{name}");
        let is_list = |pair: Pair<'_>| pair.0.or(pair.1).is_some_and(Value::is_array);
        if element.max != Some(1) || is_list(old.1) || is_list(new.1) {
            return self.list(ty, path, element, &items(old.1), &items(new.1));
        }
        match (old.1, new.1) {
            ((None, None), now) => {
                let value = self.value(ty, element, new.0, now)?;
                self.say("add", path, vec![json!({"name": "name", "valueString": name}), value]);
            }
            (_, (None, None)) => self.say("delete", &here, Vec::new()),
            ((Some(a), None), (Some(b), None)) if old.0 == new.0 && changes_inside(element, a, b) => {
                self.object(inner(ty, element, new.0), &here, a, b)?;
            }
            (_, now) => {
                let value = self.value(ty, element, new.0, now)?;
                self.say("replace", &here, vec![value]);
            }
        }
        Ok(())
    }

    /// What is alike at both ends stays; in between, items change in their places.
    fn list(&mut self, ty: Ty, path: &str, element: &'static Element, old: &[Pair<'_>], new: &[Pair<'_>]) -> Result<(), Failure> {
        let name = stem(element);
        let here = format!("{path}.{name}");
        let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let rest = old.len().min(new.len()) - start;
        let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
        let (old_end, new_end) = (old.len() - end, new.len() - end);
        for at in start..old_end.min(new_end) {
            let place = format!("{here}[{at}]");
            match (old[at], new[at]) {
                ((Some(a), None), (Some(b), None)) if changes_inside(element, a, b) => {
                    self.object(inner(ty, element, name), &place, a, b)?;
                }
                (_, now) => {
                    let value = self.value(ty, element, name, now)?;
                    self.say("replace", &place, vec![value]);
                }
            }
        }
        for at in (new_end..old_end).rev() {
            self.say("delete", &format!("{here}[{at}]"), Vec::new());
        }
        for (at, item) in new.iter().enumerate().take(new_end).skip(old_end) {
            let value = self.value(ty, element, name, *item)?;
            if end == 0 {
                self.say("add", path, vec![json!({"name": "name", "valueString": name}), value]);
            } else {
                self.say("insert", &here, vec![json!({"name": "index", "valueInteger": at}), value]);
            }
        }
        Ok(())
    }

    /// The part named `value`.
    fn value(&self, ty: Ty, element: &'static Element, key: &str, now: Pair<'_>) -> Result<Value, Failure> {
        let mut part = Map::new();
        part.insert("name".into(), "value".into());
        self.fill(&mut part, ty, element, key, now)?;
        Ok(Value::Object(part))
    }

    fn fill(&self, part: &mut Map<String, Value>, ty: Ty, element: &'static Element, key: &str, (value, extra): Pair<'_>) -> Result<(), Failure> {
        let type_name = type_of(element, key);
        if type_name == "Resource" {
            part.insert("resource".into(), value.cloned().unwrap_or_default());
            return Ok(());
        }
        let parameters = self.definitions.type_def("Parameters").and_then(|p| p.element("parameter.value[x]"));
        let is_typed = parameters.is_some_and(|p| p.types.split('|').any(|t| t == type_name));
        if let (false, Some(Value::Object(members))) = (is_typed, value) {
            let inner = inner(ty, element, key);
            let mut parts = Vec::new();
            let mut done = Vec::new();
            for key in members.keys().map(|key| key.strip_prefix('_').unwrap_or(key)) {
                if done.contains(&key) {
                    continue;
                }
                done.push(key);
                let def = self.element(inner, key, ty.base)?;
                for item in items(pair(value.unwrap_or(&Value::Null), key)) {
                    let mut one = Map::new();
                    one.insert("name".into(), stem(def).into());
                    self.fill(&mut one, inner, def, key, item)?;
                    parts.push(Value::Object(one));
                }
            }
            part.insert("part".into(), parts.into());
            return Ok(());
        }
        // What Parameters have no type for, the narrative's div, goes as a string.
        let shown = if is_typed { format!("{}{}", type_name[..1].to_ascii_uppercase(), &type_name[1..]) } else { "String".to_owned() };
        part.extend(value.map(|v| (format!("value{shown}"), v.clone())));
        part.extend(extra.map(|v| (format!("_value{shown}"), v.clone())));
        Ok(())
    }
}

/// The names of members, without the underscore of siblings, each once; but for what the server sets itself.
fn names<'v>(object: &'v Value, ty: Ty, path: &str) -> Vec<&'v str> {
    let own = ty.base == "Meta" || path == ty.base;
    let mut names: Vec<&str> = Vec::new();
    for key in object.as_object().into_iter().flatten().map(|(key, _)| key.strip_prefix('_').unwrap_or(key)) {
        if !(names.contains(&key) || own && ITS_OWN.contains(&key)) {
            names.push(key);
        }
    }
    names
}

/// Whether an element is changed part by part; if nothing of it stays, it is another.
fn changes_inside(element: &Element, a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return false };
    element.types != "Resource" && a.keys().any(|key| b.contains_key(key))
}

fn pair<'v>(object: &'v Value, key: &str) -> Pair<'v> {
    (object.get(key), object.get(sibling(key)))
}

/// The items of a list, each with its sibling; something single is a list of one.
fn items<'v>(pair: Pair<'v>) -> Vec<Pair<'v>> {
    fn list(value: Option<&Value>) -> Vec<&Value> {
        match value {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().collect(),
            Some(single) => vec![single],
        }
    }
    let (values, extras): (Vec<&Value>, Vec<&Value>) = (list(pair.0), list(pair.1));
    let there = |list: &[&'v Value], at: usize| list.get(at).copied().filter(|v| !v.is_null());
    (0..values.len().max(extras.len())).map(|at| (there(&values, at), there(&extras, at))).collect()
}

/// The type of what an element holds.
fn inner(ty: Ty, element: &'static Element, key: &str) -> Ty {
    match type_of(element, key) {
        "BackboneElement" | "Element" => Ty { base: ty.base, path: element.path },
        other => other.strip_prefix('#').map_or_else(|| Ty::named(other), |path| Ty { base: ty.base, path }),
    }
}

/// The name that FHIRPath uses.
fn stem(element: &'static Element) -> &'static str {
    element.path.rsplit('.').next().unwrap_or_default().trim_end_matches("[x]")
}

/// The type that a member has.
fn type_of(element: &'static Element, key: &str) -> &'static str {
    let suffix = key.strip_prefix(stem(element)).unwrap_or_default();
    if !element.path.ends_with("[x]") {
        return element.types;
    }
    element.types.split('|').find(|t| t.eq_ignore_ascii_case(suffix)).unwrap_or(element.types)
}

/// The member of an object that is a form of a choice.
fn choice_in(object: &Value, element: &'static Element) -> Option<String> {
    if !element.path.ends_with("[x]") {
        return None;
    }
    let forms = element.types.split('|').map(|t| format!("{}{}{}", stem(element), t[..1].to_ascii_uppercase(), &t[1..]));
    forms.into_iter().find(|key| object.get(key).is_some() || object.get(sibling(key)).is_some())
}
