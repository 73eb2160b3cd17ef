//! What a primitive's value has beside itself, its id and extensions, <https://hl7.org/fhir/R4/json.html#primitive>.

use serde_json::Value;

use super::super::report::Finding;
use super::super::schema::Member;
use super::{Object, Walk, empty_array};
use crate::fhir::json::kind_of;

impl<'r> Walk<'r> {
    /// The extensions and ids of a primitive's values: `_given` beside `given`.
    pub(super) fn siblings(&mut self, member: &'static Member, key: &str, value: &'r Value, object: &'r Object) {
        let values = object.get(&key[1..]);
        match value {
            Value::Array(_) if !member.repeats => {
                self.report.add(Finding::error("structure", format!("'{key}' is one object here, as its element is at most one, but this is an array")));
            }
            Value::Array(items) if items.is_empty() => self.report.add(empty_array()),
            Value::Array(items) => {
                let values = values.and_then(Value::as_array).map(Vec::as_slice);
                if let Some(values) = values.filter(|v| v.len() != items.len()) {
                    let message = format!("'{key}' has {} entries beside {} values; null stands for what an entry lacks", items.len(), values.len());
                    self.report.add(Finding::error("structure", message));
                }
                for (index, item) in items.iter().enumerate() {
                    if self.report.is_full() {
                        return;
                    }
                    let before = self.report.enter_item(index);
                    self.sibling(item, values.and_then(|v| v.get(index)), values.is_some());
                    self.report.back(before);
                }
            }
            other if member.repeats => {
                self.report.add(Finding::error("structure", format!("'{key}' repeats and is an array in JSON, but this is {}", kind_of(other))));
            }
            Value::Null => self.report.add(Finding::error("structure", format!("'{key}' is null; leave out what has no value"))),
            one => self.sibling(one, values, false),
        }
    }

    /// One of them; `has_values` where its null fills a place.
    fn sibling(&mut self, item: &'r Value, value: Option<&Value>, has_values: bool) {
        let has_value = value.is_some_and(|v| !v.is_null());
        match item {
            // Two nulls are reported where the value is.
            Value::Null if has_value || (has_values && value.is_some()) => {}
            Value::Null => self.report.add(Finding::error("structure", "has neither value nor extension")),
            Value::Object(object) => {
                if !has_value && !object.is_empty() && !object.contains_key("extension") {
                    self.report.add(Finding::error("invariant", "has neither value nor extension"));
                }
                if let Some(shape) = self.schema.shape_of("Element") {
                    self.object(shape, object);
                }
            }
            other => self.report.add(Finding::error("structure", format!("id and extensions of a primitive are an object, but this is {}", kind_of(other)))),
        }
    }
}
