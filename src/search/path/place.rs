//! Where in a resource a value is: values are borrowed from it, so the place in memory tells.

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

impl Place {
    /// Where in `resource` the value `wanted` is, if it was borrowed from there.
    #[must_use]
    pub fn of(resource: &Value, wanted: &Value) -> Option<Self> {
        let mut place = Self::default();
        place.find(resource, wanted).then_some(place)
    }

    fn find(&mut self, here: &Value, wanted: &Value) -> bool {
        if std::ptr::eq(here, wanted) {
            return true;
        }
        match here {
            Value::Array(items) => items.iter().enumerate().any(|(n, item)| self.try_step(Step::Index(n), item, wanted)),
            Value::Object(members) => members.iter().any(|(key, value)| self.try_step(Step::Key(key.clone()), value, wanted)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    fn try_step(&mut self, step: Step, value: &Value, wanted: &Value) -> bool {
        // A value that holds nothing and is not it need not be entered.
        if !(std::ptr::eq(value, wanted) || value.is_array() || value.is_object()) {
            return false;
        }
        self.0.push(step);
        let found = self.find(value, wanted);
        if !found {
            self.0.pop();
        }
        found
    }

    /// The value at this place.
    pub fn get_mut<'v>(&self, resource: &'v mut Value) -> Option<&'v mut Value> {
        self.0.iter().try_fold(resource, |here, step| match step {
            Step::Key(key) => here.get_mut(key),
            Step::Index(n) => here.get_mut(*n),
        })
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

/// `.name[0].given[1]`: what follows the name of the type in FHIRPath.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, ".{key}"),
            Step::Index(n) => write!(f, "[{n}]"),
        })
    }
}
