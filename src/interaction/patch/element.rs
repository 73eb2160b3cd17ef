//! Elements of a resource in JSON, edited: a member, or an item of an array, each with the sibling `_name` that holds the
//! id and the extensions of a primitive, <https://hl7.org/fhir/R4/json.html#primitive>.

use serde_json::{Map, Value};

use super::json::prune_member;
use crate::search::path::place::{Place, Step};

/// A value to be stored: what the member holds, and what its sibling holds.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// The value; null where there are only extensions.
    pub value: Value,
    /// Id and extensions of a primitive.
    pub sibling: Option<Value>,
}

/// The sibling of a member.
pub fn sibling(key: &str) -> String {
    format!("_{key}")
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().all(Value::is_null),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Sets a member; another type of a choice takes the place of `instead_of`.
pub fn set(object: &mut Map<String, Value>, key: &str, content: Content, instead_of: Option<&str>) {
    let at = instead_of.and_then(|old| object.iter().position(|(k, _)| k == old));
    if let Some(old) = instead_of.filter(|old| *old != key) {
        object.shift_remove(old);
        object.shift_remove(&sibling(old));
    }
    object.shift_remove(&sibling(key));
    if content.value.is_null() {
        object.shift_remove(key);
    } else {
        match at {
            Some(at) if !object.contains_key(key) => _ = object.shift_insert(at.min(object.len()), key.to_owned(), content.value),
            _ => _ = object.insert(key.to_owned(), content.value),
        }
    }
    if let Some(extra) = content.sibling {
        object.insert(sibling(key), extra);
    }
}

/// Puts an item into the array of a member, which comes to be if it is not there.
pub fn insert(object: &mut Map<String, Value>, key: &str, index: usize, content: Content) {
    let length = length(object, key);
    edit(object, key, |items| {
        items.resize(length, Value::Null);
        items.insert(index.min(length), content.value);
    });
    let extras = sibling(key);
    if content.sibling.is_some() || object.contains_key(&extras) {
        edit(object, &extras, |items| {
            items.resize(length, Value::Null);
            items.insert(index.min(length), content.sibling.unwrap_or_default());
        });
    }
    tidy(object, key);
}

fn edit(object: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let slot = object.entry(key.to_owned()).or_insert(Value::Null);
    let mut items = match slot.take() {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        single @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => vec![single],
    };
    change(&mut items);
    *slot = Value::Array(items);
}

/// Takes an item out of the array of a member.
pub fn take(object: &mut Map<String, Value>, key: &str, index: usize) -> Content {
    let mut out = |key: &str| match object.get_mut(key) {
        Some(Value::Array(items)) if index < items.len() => Some(items.remove(index)),
        _ => None,
    };
    let content = Content { value: out(key).unwrap_or_default(), sibling: out(&sibling(key)).filter(|extra| !extra.is_null()) };
    tidy(object, key);
    content
}

/// Takes away what is beside an item of the array of a member; the item stays, if there is one.
fn take_beside(object: &mut Map<String, Value>, key: &str, index: usize) {
    if let Some(extra) = object.get_mut(&sibling(key)).and_then(|extras| extras.get_mut(index)) {
        extra.take();
    }
    if object.get(key).and_then(|items| items.get(index)).is_none_or(Value::is_null) {
        take(object, key, index);
    } else {
        tidy(object, key);
    }
}

/// Leaves no empty array, and no sibling that holds nothing.
fn tidy(object: &mut Map<String, Value>, key: &str) {
    let extras = sibling(key);
    if object.get(&extras).is_some_and(is_nothing) {
        object.shift_remove(&extras);
    }
    // Of a list that has nothing but extensions, those alone are there.
    if object.get(key).is_some_and(is_nothing) {
        object.shift_remove(key);
    }
}

/// What is beside a primitive, its id and extensions; comes to be if it is not there.
pub fn beside<'v>(resource: &'v mut Value, place: &Place) -> Option<&'v mut Map<String, Value>> {
    let (parent, step) = place.split()?;
    let (holder, key, index) = match (step, parent.split()) {
        (Step::Key(key), _) => (parent, key, None),
        (Step::Index(n), Some((holder, Step::Key(key)))) => (holder, key, Some(*n)),
        (Step::Index(_), _) => return None,
    };
    let slot = holder.get_mut(resource)?.as_object_mut()?.entry(sibling(key)).or_insert(Value::Null);
    let slot = match index {
        None => slot,
        Some(n) => {
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            let items = slot.as_array_mut()?;
            items.resize(items.len().max(n + 1), Value::Null);
            items.get_mut(n)?
        }
    };
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut()
}

/// How many items the array of a member has; items that are only beside it count.
pub fn length(object: &Map<String, Value>, key: &str) -> usize {
    let of = |key: &str| object.get(key).and_then(Value::as_array).map_or(0, Vec::len);
    of(key).max(of(&sibling(key)))
}

/// Removes the element at a place. What holds nothing without it stays where it is: something may be added to it yet.
pub fn remove(resource: &mut Value, place: &Place) {
    let Some((parent, step)) = place.split() else { return };
    match (step, parent.split()) {
        (Step::Key(key), _) => {
            if let Some(Value::Object(object)) = parent.get_mut(resource) {
                object.shift_remove(key);
                object.shift_remove(&sibling(key));
            }
        }
        (Step::Index(n), Some((above, Step::Key(key)))) => {
            if let Some(Value::Object(object)) = above.get_mut(resource) {
                match key.strip_prefix('_') {
                    Some(name) => take_beside(object, name, *n),
                    None => _ = take(object, key, *n),
                }
            }
        }
        (Step::Index(_), _) => {}
    }
}

/// The member of the resource that the element at a place is in.
pub fn member_of(place: &Place) -> Option<String> {
    match place.0.first()? {
        Step::Key(key) => Some(key.trim_start_matches('_').to_owned()),
        Step::Index(_) => None,
    }
}

/// Takes what is empty out of a member of the resource, and its sibling.
pub fn prune(resource: &mut Value, name: &str) {
    if let Value::Object(members) = resource {
        prune_member(members, &sibling(name));
        prune_member(members, name);
    }
}
