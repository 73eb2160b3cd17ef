//! What holds of some objects beyond their members: extensions, references, elements without content.

use rustc_hash::FxHashSet;
use serde_json::{Map, Value};

use super::super::definitions::nearest;
use super::super::id::clip;
use super::report::Finding;

/// Among so many contained resources one of a like id is looked for.
const MAX_SUGGESTED: usize = 100;

type Object = Map<String, Value>;

/// What has been seen of the resource that the walk is in.
#[derive(Default)]
pub struct Scope<'r> {
    /// Ids of elements; those of a resource and of what it contains are apart.
    pub element_ids: FxHashSet<&'r str>,
    /// Ids of the resources that are contained in it, or in the resource that contains it.
    pub contained: FxHashSet<&'r str>,
    /// Those of them that the walk has been in.
    pub contained_so_far: FxHashSet<&'r str>,
}

impl<'r> Scope<'r> {
    /// The scope of a resource that is not contained.
    pub fn of(resource: &'r Object) -> Self {
        let contained = resource.get("contained").and_then(Value::as_array).into_iter().flatten();
        Self { contained: contained.filter_map(|c| c.get("id")?.as_str()).collect(), ..Self::default() }
    }

    /// Judges a reference or canonical for whether what it means is contained.
    pub fn check_local(&self, text: &str) -> Option<Finding> {
        // `#` alone is the resource that contains this one.
        let id = text.strip_prefix('#').filter(|id| !id.is_empty() && !self.contained.contains(id))?;
        // What cannot be an id is not suggested: it may be as long as the resource.
        let mut known: Vec<&str> = self.contained.iter().copied().filter(|id| id.len() <= 64).take(MAX_SUGGESTED).collect();
        known.sort_unstable();
        let hint = match nearest(id, known.iter().copied()) {
            _ if self.contained.is_empty() => "there is no contained resource".to_owned(),
            Some(near) => format!("did you mean '#{near}'?"),
            None => format!("contained are '{}'", clip(&known.join("', '"))),
        };
        Some(Finding::error("invariant", format!("'#{}' is no contained resource; {hint}", clip(id))))
    }
}

/// Rule ext-1, <https://hl7.org/fhir/R4/extensibility.html#Extension>: a value or extensions, and not both.
pub fn extension(object: &Object) -> Option<Finding> {
    let value = object.keys().find(|key| key.strip_prefix('_').unwrap_or(key).starts_with("value"));
    match (value, object.contains_key("extension")) {
        (Some(value), true) => {
            Some(Finding::error("invariant", format!("an extension has a value or extensions, but this has both {} and extension", clip(value))))
        }
        (None, false) => Some(Finding::error("invariant", "an extension has a value or extensions, but this has neither")),
        _ => None,
    }
}

/// Rule ref-2, <https://hl7.org/fhir/R4/references.html#Reference>: something by which to find what is meant.
pub fn reference(object: &Object) -> Option<Finding> {
    const MEANS: [&str; 6] = ["reference", "_reference", "identifier", "display", "_display", "extension"];
    let is_one = MEANS.iter().any(|key| object.contains_key(*key));
    (!is_one).then(|| Finding::error("invariant", "a Reference has a reference, an identifier, a display or an extension, but this has none of them"))
}

/// Rule ele-1, <https://hl7.org/fhir/R4/element.html#Element>: an id alone is no content.
pub fn content(object: &Object) -> Option<Finding> {
    (object.len() == 1 && object.contains_key("id")).then(|| Finding::error("invariant", "has an id and nothing else; an element has a value or children"))
}
