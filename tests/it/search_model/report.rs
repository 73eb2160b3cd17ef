//! What a person needs to see of a difference.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Query;
use crate::naive::features::Feature;
use crate::naive::id_of;
use crate::naive::table::Table;

/// How many differences of each feature are shown, and how many resources of each.
const DIFFERENCES: usize = 6;
const RESOURCES: usize = 3;

/// All kinds of differences, by feature.
pub fn summary(differences: &BTreeMap<(Feature, String), String>) -> String {
    let mut kinds: BTreeMap<Feature, usize> = BTreeMap::new();
    let mut shown = Vec::new();
    for ((feature, _), text) in differences {
        let count = kinds.entry(*feature).or_default();
        *count += 1;
        shown.extend((*count <= DIFFERENCES).then_some(text.as_str()));
    }
    format!("{} kinds of differences {kinds:?}\n\n{}\n", differences.len(), shown.join("\n\n"))
}

/// Ids and the elements that the parameters look at.
pub fn shown(table: Table, resources: &[&Value], query: &Query) -> String {
    let lines = resources.iter().take(RESOURCES).map(|resource| format!("\n  {} {}", id_of(resource), Value::from(relevant(table, resource, query))));
    let left_out = resources.len().saturating_sub(RESOURCES);
    format!("{}{}", lines.collect::<String>(), if left_out > 0 { format!("\n  and {left_out} more") } else { String::new() })
}

fn relevant(table: Table, resource: &Value, query: &Query) -> Map<String, Value> {
    let names: Vec<&str> = query.cases.iter().flat_map(|(_, case)| elements(table, query.type_name, &case.key)).collect();
    let members = resource.as_object().unwrap().iter().filter(|(name, _)| names.contains(&name.as_str()));
    members.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The names of the elements at the top of the resource; none for `_has`, which looks at others.
fn elements(table: Table, type_name: &str, key: &str) -> Vec<&'static str> {
    let name = key.split([':', '.']).next().unwrap();
    if table.composite(type_name, name).is_some() {
        return vec!["code", "valueQuantity", "valueCodeableConcept", "component", "location"];
    }
    let parameter = table.parameter(type_name, name);
    parameter
        .into_iter()
        .flat_map(|p| p.elements)
        .filter_map(|(path, _)| path.split('.').next())
        .chain(["deceasedBoolean", "deceasedDateTime"].into_iter().filter(|_| name == "deceased"))
        .collect()
}
