//! Composite parameters: both parts in the same place.

use serde_json::Value;

use super::table::{Composite, Found, at};
use super::{one, split};

pub fn matches(resource: &Value, composite: &Composite, wanted: &str) -> bool {
    let wanted = split(wanted, '$');
    assert_eq!(wanted.len(), 2, "{wanted:?}");
    composite.contexts.iter().flat_map(|context| at(resource, context)).any(|place| {
        composite
            .parts
            .iter()
            .zip(&wanted)
            .all(|((kind, path, shape), text)| at(place, path).into_iter().any(|value| one(&Found { value, shape: *shape }, *kind, None, text)))
    })
}
