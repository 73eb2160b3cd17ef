//! Where in a resource a value is: values are borrowed from it, so the place in memory tells.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To a member of an object.
    Key(String),
    /// To an item of an array.
    Index(usize),
}

/// The steps from a resource to a value in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub Vec<Step>);

/// The places of all values of a resource: as many steps as it has values, however many are asked for.
pub struct Places(HashMap<*const Value, (*const Value, Step)>, *const Value);

impl Places {
    /// How many values the resource has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Walks through `resource`.
    #[must_use]
    pub fn of(resource: &Value) -> Self {
        let mut above = HashMap::new();
        let mut open = vec![resource];
        while let Some(here) = open.pop() {
            let mut below = |step: Step, value| {
                above.insert(std::ptr::from_ref(value), (std::ptr::from_ref(here), step));
                open.push(value);
            };
            match here {
                Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| below(Step::Index(n), item)),
                Value::Object(members) => members.iter().for_each(|(key, value)| below(Step::Key(key.clone()), value)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Self(above, resource)
    }

    /// Where `wanted` is, if it was borrowed from the resource.
    #[must_use]
    pub fn find(&self, wanted: &Value) -> Option<Place> {
        let mut here = std::ptr::from_ref(wanted);
        let mut steps = Vec::new();
        while here != self.1 {
            let (above, step) = self.0.get(&here)?;
            steps.push(step.clone());
            here = *above;
        }
        steps.reverse();
        Some(Place(steps))
    }
}

impl Place {
    /// The value at this place.
    pub fn get_mut<'v>(&self, resource: &'v mut Value) -> Option<&'v mut Value> {
        self.0.iter().try_fold(resource, |here, step| match step {
            Step::Key(key) => here.get_mut(key),
            Step::Index(n) => here.get_mut(*n),
        })
    }

    /// Of the id and extensions of a primitive, the place of the primitive: `birthDate` of `_birthDate`.
    #[must_use]
    pub fn of_primitive(mut self) -> Self {
        if let Some(Step::Key(key)) = self.0.iter_mut().rev().find(|s| matches!(s, Step::Key(_)))
            && key.starts_with('_')
        {
            key.remove(0);
        }
        self
    }

    /// The place one step up, and that step; none of the resource itself.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &Step)> {
        let (last, before) = self.0.split_last()?;
        Some((Self(before.to_vec()), last))
    }

    /// The place one step down.
    #[must_use]
    pub fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// `.name[0].given[1]`: what follows the name of the type in FHIRPath, which knows no `_given`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, ".{}", key.trim_start_matches('_')),
            Step::Index(n) => write!(f, "[{n}]"),
        })
    }
}
