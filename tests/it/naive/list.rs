//! `_list` and `_in`: what a List or a Group holds.

use serde_json::Value;

use super::Resources;

pub fn holds(resources: &Resources, (type_name, id): (&str, &str), resource: &Value) -> bool {
    let name = if type_name == "Group" { "member" } else { "item" };
    resources.get(type_name, id).is_some_and(|holder| resources.points_at(holder, name, resource))
}
