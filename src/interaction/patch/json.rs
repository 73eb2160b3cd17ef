//! JSON Patch, RFC 6902, and JSON Merge Patch, RFC 7396.

#![expect(clippy::wildcard_enum_match_arm, reason = "the library's reasons that are not said in other words are said in its own")]

use json_patch::jsonptr::{Pointer, PointerBuf};
use json_patch::{AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation};
use serde_json::{Map, Value};

use super::MAX_OPERATIONS;
use crate::fhir::decimal;
use crate::fhir::id::clip;
use crate::fhir::json::MAX_DEPTH;
use crate::fhir::{Failure, Kind};

/// Most values that one patch copies.
const MAX_COPIED: usize = 100_000;

/// One operation.
pub type Step = PatchOperation;

/// Reads the operations.
///
/// # Errors
/// What is missing or wrong, in which of them.
pub fn read(patch: &Value) -> Result<Vec<Step>, Failure> {
    let Value::Array(operations) = patch else {
        let message = "a JSON Patch is an array of operations, such as [{\"op\":\"replace\",\"path\":\"/active\",\"value\":false}]";
        return Err(Failure::new(Kind::Invalid, message));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Failure::new(Kind::TooCostly, format!("the patch has {} operations; at most {MAX_OPERATIONS} are accepted", operations.len())));
    }
    operations.iter().enumerate().map(|(at, operation)| step(operation).map_err(|message| bad(at, &message))).collect()
}

fn bad(at: usize, message: &str) -> Failure {
    Failure::new(Kind::Invalid, format!("operation {at} of the patch: {message}"))
}

fn step(operation: &Value) -> Result<Step, String> {
    let pointer = |name: &str| match operation.get(name) {
        Some(Value::String(text)) => PointerBuf::parse(text.as_str()).map_err(|e| format!("{name} '{}' is not a JSON pointer: {e}", clip(text))),
        Some(_) => Err(format!("{name} must be a string")),
        None => Err(format!("{name} is missing")),
    };
    let value = || operation.get("value").cloned().ok_or_else(|| "value is missing".to_owned());
    let path = pointer("path");
    match operation.get("op").and_then(Value::as_str) {
        Some("add") => Ok(PatchOperation::Add(AddOperation { path: path?, value: value()? })),
        Some("remove") => Ok(PatchOperation::Remove(RemoveOperation { path: path? })),
        Some("replace") => Ok(PatchOperation::Replace(ReplaceOperation { path: path?, value: value()? })),
        Some("move") => Ok(PatchOperation::Move(MoveOperation { from: pointer("from")?, path: path? })),
        Some("copy") => Ok(PatchOperation::Copy(CopyOperation { from: pointer("from")?, path: path? })),
        Some("test") => Ok(PatchOperation::Test(TestOperation { path: path?, value: value()? })),
        Some(other) => Err(format!("op '{}' is not add, remove, replace, move, copy or test", clip(other))),
        None => Err("op is missing; it is add, remove, replace, move, copy or test".to_owned()),
    }
}

/// Applies the operations in turn; what is changed when one fails is not to be used.
///
/// # Errors
/// [`Kind::Unprocessable`]: one cannot be carried out, or a `test` does not hold.
pub fn apply(steps: &[Step], resource: &mut Value) -> Result<(), Failure> {
    let mut copied = 0;
    for (at, step) in steps.iter().enumerate() {
        let failed = |message: String| Failure::new(Kind::Unprocessable, format!("operation {at} of the patch, {}: {message}", clip(&step.to_string())));
        if let PatchOperation::Test(test) = step {
            let found = resource.pointer(test.path.as_str()).ok_or_else(|| failed(format!("there is nothing at '{}'", clip(test.path.as_str()))))?;
            if !same(found, &test.value) {
                return Err(failed(format!("the value there is {}", clip(&found.to_string()))));
            }
            continue;
        }
        copied += limited(step, resource).map_err(failed)?;
        if copied > MAX_COPIED {
            return Err(Failure::new(Kind::TooCostly, format!("the patch copies more than {MAX_COPIED} values")));
        }
        carry_out(step, resource).map_err(|kind| failed(reason(&kind, step)))?;
    }
    // FHIR knows no empty arrays and objects, and null only in arrays: what the patch leaves so goes. Not before the end:
    // something may be added.
    let mut touched: Vec<String> = steps.iter().flat_map(touches).flatten().collect();
    touched.sort_unstable();
    touched.dedup();
    if let Some(members) = resource.as_object_mut() {
        for name in touched {
            prune_member(members, &name);
        }
    }
    Ok(())
}

/// Carries out one operation. What leaves an object is taken out here: the library would put the last member in its place.
fn carry_out(step: &Step, resource: &mut Value) -> Result<(), PatchErrorKind> {
    let by_library = |step: &Step, resource: &mut Value| json_patch::patch_unsafe(resource, std::slice::from_ref(step)).map_err(|e| e.kind);
    match step {
        PatchOperation::Remove(RemoveOperation { path }) => match take(resource, path) {
            Some(_) => Ok(()),
            None => by_library(step, resource),
        },
        PatchOperation::Move(MoveOperation { from, path }) => {
            if from == path && resource.pointer(from.as_str()).is_some() {
                return Ok(());
            }
            if path.starts_with(from) {
                return Err(PatchErrorKind::CannotMoveInsideItself);
            }
            match take(resource, from) {
                Some(value) => by_library(&PatchOperation::Add(AddOperation { path: path.clone(), value }), resource),
                None => by_library(step, resource),
            }
        }
        _ => by_library(step, resource),
    }
}

/// Takes a member out of its object; none if there is none.
fn take(resource: &mut Value, at: &Pointer) -> Option<Value> {
    let (parent, last) = at.split_back()?;
    resource.pointer_mut(parent.as_str())?.as_object_mut()?.shift_remove(&*last.decoded())
}

/// How many values an operation copies; a copy of a copy of a copy is a large thing in few words.
///
/// # Errors
/// What it puts somewhere would be nested deeper than any resource may be.
fn limited(step: &Step, resource: &Value) -> Result<usize, String> {
    let (put, path) = match step {
        PatchOperation::Add(AddOperation { path, value }) | PatchOperation::Replace(ReplaceOperation { path, value }) => (Some(value), path),
        PatchOperation::Copy(CopyOperation { from, path }) | PatchOperation::Move(MoveOperation { from, path }) => (resource.pointer(from.as_str()), path),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(0),
    };
    let (values, depth) = put.map_or((0, 0), extent);
    if path.count() + depth > MAX_DEPTH {
        return Err(format!("the resource would be nested deeper than {MAX_DEPTH} levels"));
    }
    Ok(if matches!(step, PatchOperation::Copy(_)) { values } else { 0 })
}

/// How many values there are in a value, and how deep it is.
fn extent(value: &Value) -> (usize, usize) {
    let inner = |values: &mut dyn Iterator<Item = &Value>| values.map(extent).fold((1, 1), |(count, depth), (more, deep)| (count + more, depth.max(deep + 1)));
    match value {
        Value::Array(items) => inner(&mut items.iter()),
        Value::Object(members) => inner(&mut members.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (1, 0),
    }
}

fn reason(kind: &PatchErrorKind, step: &Step) -> String {
    match kind {
        PatchErrorKind::InvalidPointer => format!("there is nothing at '{}'", clip(step.path().as_str())),
        PatchErrorKind::InvalidFromPointer => "there is nothing to take from".to_owned(),
        PatchErrorKind::CannotMoveInsideItself => "an element cannot be moved into itself".to_owned(),
        _ => kind.to_string(),
    }
}

/// The members of the resource in which an operation may leave something empty.
fn touches(step: &Step) -> [Option<String>; 2] {
    let first = |pointer: &Pointer| pointer.first().map(|token| token.decoded().into_owned());
    match step {
        PatchOperation::Remove(RemoveOperation { path })
        | PatchOperation::Add(AddOperation { path, .. })
        | PatchOperation::Replace(ReplaceOperation { path, .. }) => [first(path), None],
        PatchOperation::Move(MoveOperation { from, path }) | PatchOperation::Copy(CopyOperation { from, path }) => [first(from), first(path)],
        PatchOperation::Test(_) => [None, None],
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Takes what is empty out of a member, and the member if nothing is left of it.
pub(super) fn prune_member(members: &mut Map<String, Value>, name: &str) {
    if let Some(value) = members.get_mut(name) {
        prune(value, name.starts_with('_'));
        if value.is_null() || is_empty(value) {
            members.shift_remove(name);
        }
    }
    close_gaps(members, name.trim_start_matches('_'));
}

/// Takes the places out of an array where neither it nor the array of ids and extensions beside it has something: null only keeps the
/// place of what is beside it.
fn close_gaps(members: &mut Map<String, Value>, name: &str) {
    let beside = format!("_{name}");
    let items = |members: &Map<String, Value>, name: &str| members.get(name).and_then(Value::as_array).cloned();
    let Some(values) = items(members, name).filter(|values| values.iter().any(Value::is_null)) else { return };
    let extras = items(members, &beside).unwrap_or_default();
    let has_extra = |n: usize| extras.get(n).is_some_and(|extra| !extra.is_null());
    let stays: Vec<usize> = (0..values.len().max(extras.len())).filter(|n| values.get(*n).is_some_and(|v| !v.is_null()) || has_extra(*n)).collect();
    for (name, all) in [(name, &values), (beside.as_str(), &extras)] {
        let kept: Vec<Value> = stays.iter().map(|n| all.get(*n).cloned().unwrap_or_default()).collect();
        if kept.iter().all(Value::is_null) {
            members.shift_remove(name);
        } else {
            members.insert(name.to_owned(), kept.into());
        }
    }
}

/// Takes what is empty out of a value. `beside` the values of an array null keeps the place.
fn prune(value: &mut Value, beside: bool) {
    match value {
        Value::Object(members) => {
            let names: Vec<String> = members.keys().cloned().collect();
            for name in &names {
                prune_member(members, name);
            }
        }
        Value::Array(items) => {
            for item in &mut *items {
                prune(item, false);
            }
            if beside {
                items.iter_mut().filter(|item| is_empty(item)).for_each(|item| *item = Value::Null);
                if items.iter().all(Value::is_null) {
                    items.clear();
                }
            } else {
                items.retain(|item| !is_empty(item));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// JSON Merge Patch, RFC 7396. Members keep their places, and what the patch leaves empty goes.
pub fn merge(object: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (key, change) in changes {
        let mut value = change.clone();
        if let Value::Object(inner) = change {
            let mut merged = object.get_mut(key).and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
            merge(&mut merged, inner);
            value = Value::Object(merged);
        }
        if value.is_null() {
            object.shift_remove(key);
        } else {
            object.insert(key.clone(), value);
            prune_member(object, key);
        }
    }
}

/// Whether two values are equal, numbers as numbers: 1.0 is 1.00.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (decimal::parse(a.as_str()), decimal::parse(b.as_str())) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other))),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(resource: Value, patch: &Value) -> Result<Value, String> {
        let mut resource = resource;
        read(patch).and_then(|steps| apply(&steps, &mut resource)).map(|()| resource).map_err(|f| f.diagnostics)
    }

    #[test]
    fn what_becomes_empty_goes_and_numbers_compare_as_numbers() {
        let resource = || json!({"a": [{"b": [1, 2]}], "n": serde_json::from_str::<Value>("1.00").unwrap_or_default()});
        assert_eq!(patched(resource(), &json!([{"op": "remove", "path": "/a/0/b/0"}])), Ok(json!({"a": [{"b": [2]}], "n": resource()["n"]})));
        let both = json!([{"op": "remove", "path": "/a/0/b/0"}, {"op": "remove", "path": "/a/0/b/0"}]);
        assert_eq!(patched(resource(), &both), Ok(json!({"n": resource()["n"]})));
        let refilled = json!([{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/a/-", "value": 7}, {"op": "test", "path": "/n", "value": 1.0}]);
        assert_eq!(patched(resource(), &refilled), Ok(json!({"a": [7], "n": resource()["n"]})));
    }

    #[test]
    fn null_stays_only_beside_something() {
        let resource = json!({"given": ["a", null, "c", null], "_given": [null, {"id": "x"}, null, {"id": "y"}]});
        let removed = |paths: &[&str]| {
            let patch: Vec<Value> = paths.iter().map(|path| json!({"op": "remove", "path": path})).collect();
            patched(resource.clone(), &patch.into()).unwrap_or_default()
        };
        assert_eq!(removed(&["/_given/1/id"]), json!({"given": ["a", "c", null], "_given": [null, null, {"id": "y"}]}));
        assert_eq!(removed(&["/_given/1/id", "/_given/3/id"]), json!({"given": ["a", "c"]}));
        assert_eq!(removed(&["/given/0", "/given/1", "/_given/0", "/_given/1"]), json!({"_given": [{"id": "x"}, {"id": "y"}]}));
        let mut object = json!({"given": ["a"]});
        if let Value::Object(members) = &mut object {
            merge(members, json!({"given": [null], "other": ["b", null]}).as_object().unwrap_or(&Map::new()));
        }
        assert_eq!(object, json!({"other": ["b"]}));
    }

    #[test]
    fn members_keep_their_places() {
        let resource = || json!({"a": 1, "b": {"x": 1, "y": 2, "z": 3}, "c": 3, "d": 4});
        for (patch, expected) in [
            (json!([{"op": "remove", "path": "/a"}]), r#"{"b":{"x":1,"y":2,"z":3},"c":3,"d":4}"#),
            (json!([{"op": "remove", "path": "/b/x"}]), r#"{"a":1,"b":{"y":2,"z":3},"c":3,"d":4}"#),
            (json!([{"op": "move", "from": "/a", "path": "/a"}]), r#"{"a":1,"b":{"x":1,"y":2,"z":3},"c":3,"d":4}"#),
            (json!([{"op": "move", "from": "/a", "path": "/b/w"}]), r#"{"b":{"x":1,"y":2,"z":3,"w":1},"c":3,"d":4}"#),
            (json!([{"op": "move", "from": "/b", "path": "/bb"}]), r#"{"a":1,"c":3,"d":4,"bb":{"x":1,"y":2,"z":3}}"#),
            (json!([{"op": "add", "path": "/a", "value": null}, {"op": "replace", "path": "/b/x", "value": {}}]), r#"{"b":{"y":2,"z":3},"c":3,"d":4}"#),
            (json!([{"op": "add", "path": "/e", "value": []}, {"op": "add", "path": "/e/-", "value": null}]), r#"{"a":1,"b":{"x":1,"y":2,"z":3},"c":3,"d":4}"#),
        ] {
            assert_eq!(patched(resource(), &patch).map(|v| v.to_string()).as_deref(), Ok(expected), "{patch}");
        }
        let mut merged = resource();
        let changes = json!({"a": null, "b": {"x": null, "y": 5}, "e": {"f": {"g": null}}, "c": []});
        merge(merged.as_object_mut().unwrap_or(&mut Map::new()), changes.as_object().unwrap_or(&Map::new()));
        assert_eq!(merged.to_string(), r#"{"b":{"y":5,"z":3},"d":4}"#);
    }

    #[test]
    fn refusals_name_the_operation() {
        for (patch, expected) in [
            (json!({}), "a JSON Patch is an array"),
            (json!([{"path": "/a"}]), "operation 0 of the patch: op is missing"),
            (json!([{"op": "swap", "path": "/a"}]), "operation 0 of the patch: op 'swap' is not"),
            (json!([{"op": "add", "path": "/a"}]), "operation 0 of the patch: value is missing"),
            (json!([{"op": "add", "path": "a", "value": 1}]), "operation 0 of the patch: path 'a' is not a JSON pointer"),
            (json!([{"op": "remove", "path": "/b"}]), "there is nothing at '/b'"),
            (json!([{"op": "test", "path": "/a", "value": 2}]), "the value there is 1"),
            (json!([{"op": "move", "from": "/z", "path": "/y"}]), "there is nothing to take from"),
        ] {
            let said = patched(json!({"a": 1}), &patch).err().unwrap_or_default();
            assert!(said.contains(expected), "{said}");
        }
    }
}
