//! Composite parameters, <https://hl7.org/fhir/R4/search.html#composite>: `code$value`, both of the same element.
//!
//! The components' own parameters narrow the search down; whether one element has all of the values, a check of the stored
//! resource decides, by giving each element keys of its own.

use std::sync::Arc;

use super::super::extract;
use super::super::params::Param;
use super::{Env, bad_value, split_unescaped, value_query};
use crate::fhir::Failure;
use crate::query::Query;

/// What one element must have: to be asked of the keys that [`extract::elements`] makes.
///
/// # Errors
/// As [`query`].
pub fn element(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let parts = parts(param, value)?;
    param.components.iter().zip(parts).map(|(component, part)| value_query(component, part, env)).collect::<Result<_, _>>().map(Query::and)
}

fn parts<'v>(param: &Param, value: &'v str) -> Result<Vec<&'v str>, Failure> {
    let parts = split_unescaped(value, '$');
    if parts.len() == param.components.len() && !parts.iter().any(|part| part.is_empty()) {
        return Ok(parts);
    }
    let names: Vec<&str> = param.components.iter().map(|c| &*c.code).collect();
    Err(bad_value(param, value, &format!("{} values joined by '$', for {}", names.len(), names.join(" and "))))
}

/// The query of one search value.
///
/// # Errors
/// A part is missing, or its type cannot read it.
pub fn query(param: &Arc<Param>, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let own = env.origin.params.of(param.name.split('/').next().unwrap_or_default());
    let mut narrowing = Vec::new();
    for (component, part) in param.components.iter().zip(parts(param, value)?) {
        if param.has_part_keys {
            // A check would look for the part in the resource, and not in the element.
            narrowing.push(value_query(component, part, env)?.widened());
        } else if let Some(whole) = own.get(&component.code) {
            narrowing.push(value_query(whole, part, env)?);
        }
    }
    let condition = element(param, value, env)?;
    let (origin, parameter) = (env.origin.owned(), param.clone());
    let check = env.on_resource(move |resource, type_name| {
        extract::elements(&parameter, resource, type_name, &origin.borrow()).iter().any(|keys| condition.matches_alone(keys))
    });
    Ok(Query::Verify(Box::new(Query::and(narrowing)), check))
}
