//! The walk over a resource: each object beside its shape, each value beside its type.

mod siblings;
mod unknown;

use serde_json::{Map, Value};

use super::super::id::clip;
use super::super::json::MAX_DEPTH;
use super::super::{Definitions, FhirVersion};
use super::primitive::Primitive;
use super::report::{Finding, Report, step};
use super::rules::{self, Scope};
use super::schema::{Holds, Member, Role, Schema, Shape};
use super::{Issue, Severity};
use crate::fhir::json::kind_of;

type Object = Map<String, Value>;

/// A walk over the resource `'r`.
pub struct Walk<'r> {
    schema: &'static Schema,
    version: FhirVersion,
    report: Report,
    scope: Scope<'r>,
    depth: usize,
}

/// Where a resource is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    /// In an entry of a Bundle or a parameter.
    Entry,
    Contained,
}

impl<'r> Walk<'r> {
    pub fn new(definitions: &'static Definitions) -> Self {
        Self { schema: Schema::of(definitions), version: definitions.version(), report: Report::default(), scope: Scope::default(), depth: 0 }
    }

    /// Walks over a whole resource.
    pub fn of_root(mut self, value: &'r Value) -> Vec<Issue> {
        self.resource(value, Place::Root);
        self.report.into_issues()
    }

    fn resource(&mut self, value: &'r Value, place: Place) {
        let Value::Object(object) = value else {
            return self.report.add(Finding::error("structure", format!("a resource is a JSON object, but this is {}", kind_of(value))));
        };
        let shape = match self.type_of(object) {
            Ok(shape) => shape,
            Err(finding) if place == Place::Root => return self.report.add_at("resourceType", finding),
            Err(finding) => return self.report.add(finding),
        };
        match place {
            Place::Root => {
                self.scope = Scope::of(object);
                let before = self.report.enter(shape.type_name);
                self.object(shape, object);
                self.report.back(before);
            }
            Place::Entry => {
                let outer = std::mem::replace(&mut self.scope, Scope::of(object));
                self.object(shape, object);
                self.scope = outer;
            }
            Place::Contained => self.with_own_ids(|walk| walk.object(shape, object)),
        }
    }

    /// Walks where ids of elements are apart from those outside.
    fn with_own_ids(&mut self, walk: impl FnOnce(&mut Self)) {
        let outer = std::mem::take(&mut self.scope.element_ids);
        walk(self);
        self.scope.element_ids = outer;
    }

    fn type_of(&self, object: &Object) -> Result<&'static Shape, Finding> {
        match object.get("resourceType") {
            Some(Value::String(name)) => {
                let known = self.schema.definitions.resource_type(name).map_err(|failure| Finding::error("structure", failure.diagnostics))?;
                self.schema.shape_of(known).ok_or_else(|| Finding::error("structure", format!("unknown resource type '{}'", clip(name))))
            }
            Some(other) => Err(Finding::error("structure", format!("resourceType is a string, but this is {}", kind_of(other)))),
            None => Err(Finding::error("required", "resourceType is missing; it names the type, for example \"resourceType\":\"Patient\"")),
        }
    }

    fn object(&mut self, shape: &'static Shape, object: &'r Object) {
        if self.report.is_full() {
            return;
        }
        if self.depth >= MAX_DEPTH {
            return self.report.add(Finding::error("structure", format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if object.is_empty() {
            return self.report.add(Finding::error("structure", "is an empty object; leave out what has no content"));
        }
        self.depth += 1;
        self.whole(shape, object);
        let mut choices: Vec<(&str, &str)> = Vec::new();
        for (key, value) in object {
            // What is unknown is costly: names like it are looked for.
            if self.report.is_full() {
                break;
            }
            match find(shape, key) {
                Some((member, is_sibling)) => {
                    if member.is_choice {
                        self.one_form(member, key, &mut choices);
                    }
                    let before = self.report.enter(member.name);
                    if is_sibling {
                        self.siblings(member, key, value, object);
                    } else {
                        self.member(member, key, value, object);
                    }
                    self.report.back(before);
                }
                None if key == "resourceType" && shape.role == Role::Resource => {}
                None => self.report.add_at(&step(key), unknown::member(shape, key)),
            }
        }
        self.depth -= 1;
    }

    /// What is judged by the object as a whole.
    fn whole(&mut self, shape: &'static Shape, object: &'r Object) {
        for required in &shape.required {
            if !required.keys.iter().any(|key| object.contains_key(key)) {
                self.report.add(Finding::error("required", format!("{} requires {}, which is missing", shape.title(), required.name)));
            }
        }
        let finding = match shape.role {
            Role::Resource => return,
            Role::Extension => rules::extension(object),
            Role::Reference => rules::reference(object),
            Role::Sibling => None,
            Role::ElementList | Role::Other => rules::content(object),
        };
        if let Some(finding) = finding {
            self.report.add(finding);
        }
        if shape.role == Role::Reference
            && let Some(finding) = object.get("reference").and_then(Value::as_str).and_then(|text| self.scope.check_local(text))
        {
            self.report.add_at("reference", finding);
        }
        if let Some(Value::String(id)) = object.get("id")
            && !self.scope.element_ids.insert(id)
        {
            self.report.add_at("id", Finding::error("invariant", format!("the element id '{}' is used twice in the resource", clip(id))));
        }
    }

    /// Of a choice there is one form; `choices` has those seen so far in this object.
    fn one_form(&mut self, member: &Member, key: &'r str, choices: &mut Vec<(&'static str, &'r str)>) {
        let form = key.strip_prefix('_').unwrap_or(key);
        match choices.iter().find(|(name, _)| *name == member.name) {
            None => choices.push((member.name, form)),
            Some((_, first)) if *first == form => {}
            Some((name, first)) => {
                let message = format!("{name}[x] has one type, but both '{first}' and '{form}' are there");
                self.report.add_at(name, Finding::error("structure", message));
            }
        }
    }

    fn member(&mut self, member: &'static Member, key: &str, value: &'r Value, object: &'r Object) {
        match value {
            Value::Array(_) if !member.repeats => {
                self.report.add(Finding::error("structure", format!("'{key}' is at most one here, but this is an array")));
            }
            Value::Array(items) if items.is_empty() => self.report.add(empty_array()),
            Value::Array(items) => {
                let siblings = match member.holds {
                    Holds::Primitive(_) => object.get(&format!("_{key}")).and_then(Value::as_array),
                    Holds::Object(_) | Holds::Resource => None,
                };
                for (index, item) in items.iter().enumerate() {
                    if self.report.is_full() {
                        return;
                    }
                    let before = self.report.enter_item(index);
                    match siblings {
                        Some(siblings) if item.is_null() && siblings.get(index).is_some_and(|s| !s.is_null()) => {}
                        _ => self.value(member, item),
                    }
                    self.report.back(before);
                }
            }
            other => {
                if member.repeats && !other.is_null() {
                    self.report.add(Finding::error("structure", format!("'{key}' repeats and is an array in JSON, but this is {}", kind_of(other))));
                }
                self.value(member, other);
            }
        }
    }

    /// One value of a member.
    fn value(&mut self, member: &'static Member, value: &'r Value) {
        if value.is_null() {
            return self.report.add(Finding::error("structure", "is null; leave out what has no value"));
        }
        match (member.holds, value) {
            (Holds::Primitive(primitive), _) => self.primitive(member, primitive, value),
            (Holds::Resource, _) => self.inner_resource(member, value),
            (Holds::Object(id), Value::Object(object)) => {
                let shape = self.schema.shape(id);
                if shape.role == Role::ElementList {
                    self.with_own_ids(|walk| walk.object(shape, object));
                } else {
                    self.object(shape, object);
                }
                if let Some(finding) = member.binding.and_then(|binding| binding.check_concept(value)) {
                    self.report.add(finding);
                }
            }
            (Holds::Object(id), other) => {
                let title = self.schema.shape(id).title();
                self.report.add(Finding::error("structure", format!("a value of type {title} is an object in JSON, but this is {}", kind_of(other))));
            }
        }
    }

    fn primitive(&mut self, member: &Member, primitive: Primitive, value: &'r Value) {
        let finding = primitive.check(value, self.version);
        let is_wrong = finding.as_ref().is_some_and(|f| f.severity == Severity::Error);
        if let Some(finding) = finding {
            self.report.add(finding);
        }
        let Value::String(text) = value else { return };
        if is_wrong {
            return;
        }
        if let Some(finding) = member.binding.and_then(|binding| binding.check_code(text)) {
            self.report.add(finding);
        }
        if primitive == Primitive::Canonical
            && let Some(finding) = self.scope.check_local(text)
        {
            self.report.add(finding);
        }
    }

    fn inner_resource(&mut self, member: &Member, value: &'r Value) {
        if member.name != "contained" {
            return self.resource(value, Place::Entry);
        }
        if value.get("contained").is_some() {
            self.report.add_at("contained", Finding::error("invariant", "a contained resource contains none itself; all are in the outer one"));
        }
        if let Some(Value::String(id)) = value.get("id")
            && !self.scope.contained_so_far.insert(id)
        {
            self.report.add_at("id", Finding::error("invariant", format!("two contained resources have the id '{}'", clip(id))));
        }
        self.resource(value, Place::Contained);
    }
}

/// The member that `key` means, and whether it is the sibling `_key` of a primitive.
fn find(shape: &'static Shape, key: &str) -> Option<(&'static Member, bool)> {
    match key.strip_prefix('_') {
        None => Some((shape.member(key)?, false)),
        Some(name) => {
            let member = shape.member(name)?;
            matches!(member.holds, Holds::Primitive(p) if !p.is_attribute()).then_some((member, true))
        }
    }
}

fn empty_array() -> Finding {
    Finding::error("structure", "is an empty array; leave out what has no items")
}
