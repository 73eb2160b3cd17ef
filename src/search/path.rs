//! The part of FHIRPath that the definitions' search expressions use, compiled against their element tables.
//!
//! Paths, `|`, `as`/`ofType`/`is`, `where(...)`, `resolve() is Type`, `extension(url)`, `exists`, `first`, `[n]`, `=`, `!=`
//! and `and`: all expressions of STU3 to R5 are made of these. Evaluation borrows from the resource and knows the FHIR
//! type of every value it yields.

pub mod library;
pub mod limits;
mod parser;
pub mod place;

use std::cell::Cell;
use std::fmt;

use serde_json::{Map, Value};

use crate::fhir::Definitions;
use parser::Parser;

/// A compiled expression.
#[derive(Debug)]
pub struct Path {
    root: Expr,
    definitions: &'static Definitions,
    /// The types that its values can have.
    pub types: Vec<Ty>,
    /// The members of a resource that it looks at; none if it may look at any.
    pub members: Option<Vec<String>>,
    /// Where a name stands that is of no element, if there is one.
    pub nowhere: Option<usize>,
}

/// A value and the FHIR type it has by its element's definition.
#[derive(Clone, Copy, Debug)]
pub struct Node<'v> {
    /// The JSON; null of a primitive that has only an id or extensions.
    pub value: &'v Value,
    /// Id and extensions of a primitive: JSON has them in a member of their own, <https://hl7.org/fhir/R4/json.html#primitive>.
    pub sibling: Option<&'v Value>,
    /// Its type.
    pub ty: Ty,
    /// The value set whose codes it has, if it is a code with a required binding.
    pub codes: Option<&'static str>,
}

impl<'v> Node<'v> {
    /// A value of a type.
    #[must_use]
    pub fn new(value: &'v Value, ty: Ty) -> Self {
        Self { value, sibling: None, ty, codes: None }
    }

    /// What has its elements: the value, of a primitive the sibling.
    fn elements(&self) -> Option<&'v Map<String, Value>> {
        self.value.as_object().or_else(|| self.sibling?.as_object())
    }
}

/// A FHIR type, or the unnamed type of an element with children: then `path` is the element's path in `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ty {
    /// Type name.
    pub base: &'static str,
    /// Element path, empty for a named type.
    pub path: &'static str,
}

impl Ty {
    /// The type of that name.
    #[must_use]
    pub fn named(base: &'static str) -> Self {
        Self { base, path: "" }
    }

    /// What people call it: the name of the type, or the path of the element.
    #[must_use]
    pub fn name(&self) -> &'static str {
        if self.path.is_empty() { self.base } else { self.path }
    }
}

#[derive(Debug)]
enum Expr {
    /// The value the expression is applied to.
    Input,
    /// The resource as a whole.
    Resource,
    Literal(Value),
    Get(Box<Expr>, Vec<Edge>),
    OfType(Box<Expr>, &'static str),
    Is(Box<Expr>, &'static str),
    Where(Box<Expr>, Box<Expr>),
    Nth(Box<Expr>, usize),
    Extension(Box<Expr>, String),
    Exists(Box<Expr>),
    /// References whose target is of a type; the reference itself stands for what it resolves to.
    Resolve(Box<Expr>),
    Union(Vec<Expr>),
    Equal(Box<Expr>, Box<Expr>, bool),
    And(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// Adds the members of the input that this looks at; `false` if it may look at any.
    fn members(&self, found: &mut Vec<String>) -> bool {
        match self {
            Self::Input | Self::Resource => false,
            Self::Literal(_) => true,
            Self::Get(inner, edges) if matches!(**inner, Self::Input) => {
                found.extend(edges.iter().flat_map(|e| [Some(e.key.clone()), e.sibling.clone()]).flatten());
                true
            }
            Self::Extension(inner, _) if matches!(**inner, Self::Input) => {
                found.push("extension".to_owned());
                true
            }
            // A reference may lead to what is contained.
            Self::Is(inner, _) => {
                found.push("contained".to_owned());
                inner.members(found)
            }
            Self::Where(inner, condition) => {
                found.push("contained".to_owned());
                !condition.mentions_resource() && inner.members(found)
            }
            Self::Get(inner, _) | Self::OfType(inner, _) | Self::Nth(inner, _) | Self::Extension(inner, _) | Self::Exists(inner) | Self::Resolve(inner) => {
                inner.members(found)
            }
            Self::Union(parts) => parts.iter().all(|p| p.members(found)),
            Self::Equal(left, right, _) | Self::And(left, right) => left.members(found) && right.members(found),
        }
    }

    /// Literals are compared here, and never yielded.
    fn yields_literals(&self) -> bool {
        match self {
            Self::Literal(_) => true,
            Self::Union(parts) => parts.iter().any(Self::yields_literals),
            _ => false,
        }
    }

    fn mentions_resource(&self) -> bool {
        match self {
            Self::Resource => true,
            Self::Input | Self::Literal(_) => false,
            Self::Get(inner, _)
            | Self::OfType(inner, _)
            | Self::Is(inner, _)
            | Self::Nth(inner, _)
            | Self::Extension(inner, _)
            | Self::Exists(inner)
            | Self::Resolve(inner) => inner.mentions_resource(),
            Self::Union(parts) => parts.iter().any(Self::mentions_resource),
            Self::Where(left, right) | Self::Equal(left, right, _) | Self::And(left, right) => left.mentions_resource() || right.mentions_resource(),
        }
    }
}

/// A member to follow, from values of one type to another.
#[derive(Debug, Clone)]
struct Edge {
    from: Ty,
    key: String,
    /// The member with ids and extensions, if `to` is primitive.
    sibling: Option<String>,
    to: Ty,
    codes: Option<&'static str>,
}

/// Why an expression cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPath {
    /// Byte offset in the expression.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at position {}", self.reason, self.at)
    }
}

impl Path {
    /// Compiles `expression` for resources of `type_name`.
    ///
    /// # Errors
    /// The expression is malformed, or uses what this subset lacks.
    pub fn compile(expression: &str, type_name: &'static str, definitions: &'static Definitions) -> Result<Self, BadPath> {
        Self::compile_below(expression, type_name, &[Ty::named(type_name)], definitions)
    }

    /// Compiles `expression` for values of the types `input` in resources of `type_name`.
    ///
    /// # Errors
    /// As [`Path::compile`].
    pub fn compile_below(expression: &str, type_name: &'static str, input: &[Ty], definitions: &'static Definitions) -> Result<Self, BadPath> {
        let mut parser = Parser { text: expression, at: 0, definitions, root: Ty::named(type_name), nowhere: None };
        let (root, mut types) = parser.expression(input)?;
        parser.space();
        if parser.at < expression.len() {
            return Err(parser.error("unexpected text"));
        }
        if root.yields_literals() {
            return Err(BadPath { at: 0, reason: "a literal is no element".to_owned() });
        }
        types.sort_unstable_by_key(|t| (t.base, t.path));
        types.dedup();
        let mut members = Vec::new();
        let members = root.members(&mut members).then_some(members);
        Ok(Self { root, definitions, types, members, nowhere: parser.nowhere })
    }

    /// A path to nothing.
    #[must_use]
    pub fn nothing(definitions: &'static Definitions) -> Self {
        Self { root: Expr::Union(Vec::new()), definitions, types: Vec::new(), members: None, nowhere: None }
    }

    /// The values in `resource`, which is of the type the path was compiled for.
    pub fn evaluate<'v>(&self, resource: &'v Value, type_name: &'static str, found: &mut Vec<Node<'v>>) {
        let input = Node::new(resource, Ty::named(type_name));
        self.evaluate_below(input, input, found);
    }

    /// The values below `input`, which is a value in `resource`.
    pub fn evaluate_below<'v>(&self, input: Node<'v>, resource: Node<'v>, found: &mut Vec<Node<'v>>) {
        let before = found.len();
        self.elements_below(input, resource, MAX_STEPS, found);
        if found[before..].iter().any(|n| n.value.is_null()) {
            found.retain(|n| !n.value.is_null());
        }
    }

    /// The same with the primitives that have no value, only an id or extensions; it may take so many steps, of which it
    /// returns what is left. None: they did not suffice.
    pub fn elements_below<'v>(&self, input: Node<'v>, resource: Node<'v>, steps: u64, found: &mut Vec<Node<'v>>) -> Option<u64> {
        let context = Context { resource, definitions: self.definitions, left: Cell::new(steps) };
        context.evaluate(&self.root, input, found);
        Some(context.left.get()).filter(|left| *left > 0)
    }

    /// Whether no resource of the type can have a value: every part of the expression is about other types.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }
}

struct Context<'v> {
    resource: Node<'v>,
    definitions: &'static Definitions,
    /// How many steps it may still take.
    left: Cell<u64>,
}

/// Steps that one evaluation may take; an expression that looks at the whole resource for each of many values has none then.
const MAX_STEPS: u64 = 5_000_000;

static TRUE: Value = Value::Bool(true);
static FALSE: Value = Value::Bool(false);

impl<'v> Context<'v> {
    fn evaluate<'e: 'v>(&self, expr: &Expr, input: Node<'v>, found: &mut Vec<Node<'v>>)
    where
        'v: 'e,
    {
        let left = self.left.get();
        if left == 0 {
            return;
        }
        self.left.set(left - 1);
        match expr {
            Expr::Input => found.push(input),
            Expr::Resource => found.push(self.resource),
            // Literals are compared, never yielded: `equal` reads them from the expression.
            Expr::Literal(_) => {}
            Expr::Get(inner, edges) => {
                if matches!(**inner, Expr::Input) {
                    self.follow(input, edges, found);
                } else {
                    for node in self.all(inner, input) {
                        self.follow(node, edges, found);
                    }
                }
            }
            Expr::OfType(inner, name) => found.extend(self.all(inner, input).into_iter().filter(|n| self.is(n, name))),
            Expr::Is(inner, name) => {
                let nodes = self.all(inner, input);
                // Of nothing, nothing is said.
                if !nodes.is_empty() {
                    found.push(boolean(nodes.iter().all(|n| self.is(n, name) || self.refers_to(n, name))));
                }
            }
            Expr::Where(inner, condition) => found.extend(self.all(inner, input).into_iter().filter(|n| self.holds(condition, *n))),
            Expr::Nth(inner, n) => found.extend(self.all(inner, input).into_iter().nth(*n)),
            Expr::Extension(inner, url) => {
                for node in self.all(inner, input) {
                    let extensions = node.elements().and_then(|e| e.get("extension")).and_then(Value::as_array).into_iter().flatten();
                    let wanted = extensions.filter(|e| e.get("url").and_then(Value::as_str) == Some(url));
                    found.extend(wanted.map(|value| Node::new(value, Ty::named("Extension"))));
                }
            }
            Expr::Exists(inner) => found.push(boolean(!self.all(inner, input).is_empty())),
            Expr::Resolve(inner) => self.evaluate(inner, input, found),
            Expr::Union(parts) => parts.iter().for_each(|p| self.evaluate(p, input, found)),
            Expr::Equal(left, right, wanted) => {
                if let Some(equal) = self.equal(left, right, input) {
                    found.push(boolean(equal == *wanted));
                }
            }
            Expr::And(left, right) => found.push(boolean(self.holds(left, input) && self.holds(right, input))),
        }
    }

    fn all(&self, expr: &Expr, input: Node<'v>) -> Vec<Node<'v>> {
        let mut found = Vec::new();
        self.evaluate(expr, input, &mut found);
        found
    }

    fn holds(&self, condition: &Expr, input: Node<'v>) -> bool {
        matches!(condition, Expr::Literal(Value::Bool(true))) || matches!(self.all(condition, input)[..], [Node { value: Value::Bool(true), .. }])
    }

    /// `None` where FHIRPath says empty: a side has no value, a primitive with extensions alone neither.
    fn equal(&self, left: &Expr, right: &Expr, input: Node<'v>) -> Option<bool> {
        let values = |of| {
            let mut all = self.all(of, input);
            all.retain(|node| !node.value.is_null());
            all
        };
        let left = values(left);
        match right {
            Expr::Literal(literal) => (!left.is_empty()).then(|| left.len() == 1 && left[0].value == literal),
            other => {
                let right = values(other);
                (!left.is_empty() && !right.is_empty()).then(|| left.len() == right.len() && left.iter().zip(&right).all(|(l, r)| l.value == r.value))
            }
        }
    }

    fn follow(&self, node: Node<'v>, edges: &[Edge], found: &mut Vec<Node<'v>>) {
        let Some(members) = node.elements() else { return };
        // Of a resource within another, what all resources have.
        let is_any = |ty: Ty| ty == Ty::named("Resource") && self.is(&node, "Resource");
        let before = found.len();
        for edge in edges.iter().filter(|e| e.from == node.ty || is_any(e.from)) {
            let value = members.get(&edge.key).unwrap_or(&Value::Null);
            let siblings = edge.sibling.as_ref().and_then(|key| members.get(key));
            match (value, siblings) {
                (Value::Array(_), _) | (Value::Null, Some(Value::Array(_))) => {
                    let items = |list: Option<&'v Value>| list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                    let (values, siblings) = (items(Some(value)), items(siblings));
                    let pairs = (0..values.len().max(siblings.len())).map(|n| (values.get(n).unwrap_or(&Value::Null), siblings.get(n)));
                    pairs.for_each(|(value, sibling)| self.found(value, sibling, edge, found));
                }
                (value, sibling) => self.found(value, sibling, edge, found),
            }
        }
        self.left.set(self.left.get().saturating_sub((found.len() - before) as u64));
    }

    fn found(&self, value: &'v Value, sibling: Option<&'v Value>, edge: &Edge, found: &mut Vec<Node<'v>>) {
        let sibling = sibling.filter(|s| s.is_object());
        if !value.is_null() || sibling.is_some() {
            found.push(self.typed(Node { value, sibling, ty: edge.to, codes: edge.codes }));
        }
    }

    /// A resource inside a resource has the type it says it has.
    fn typed(&self, node: Node<'v>) -> Node<'v> {
        if node.ty.base != "Resource" {
            return node;
        }
        let name = node.value.get("resourceType").and_then(Value::as_str).and_then(|name| self.definitions.find_resource_type(name));
        Node { ty: Ty::named(name.unwrap_or("Resource")), ..node }
    }

    fn is(&self, node: &Node<'v>, name: &str) -> bool {
        node.ty.path.is_empty() && self.definitions.is_a(node.ty.base, name)
    }

    /// Whether `node` is a reference to a resource of type `name`.
    fn refers_to(&self, node: &Node<'v>, name: &str) -> bool {
        let text = match node.value {
            Value::String(text) => text,
            Value::Object(reference) => {
                if reference.get("type").and_then(Value::as_str) == Some(name) {
                    return true;
                }
                match reference.get("reference") {
                    Some(Value::String(text)) => text,
                    _ => return false,
                }
            }
            _ => return false,
        };
        if let Some(id) = text.strip_prefix('#') {
            let mut contained = self.resource.value.get("contained").and_then(Value::as_array).into_iter().flatten();
            let target = contained.find(|c| c.get("id").and_then(Value::as_str) == Some(id));
            return target.and_then(|t| t.get("resourceType")).and_then(Value::as_str) == Some(name);
        }
        let path = text.split_once("/_history/").map_or(text.as_str(), |(path, _)| path);
        let mut parts = path.rsplit('/');
        parts.next().is_some() && parts.next() == Some(name)
    }
}

fn boolean<'v>(value: bool) -> Node<'v> {
    Node::new(if value { &TRUE } else { &FALSE }, Ty::named("boolean"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::FhirVersion;

    fn values(expression: &str, resource: &str) -> Vec<String> {
        let d = Definitions::of(FhirVersion::R4);
        let resource: Value = serde_json::from_str(resource).unwrap_or_default();
        let type_name = d.resource_type(resource["resourceType"].as_str().unwrap_or_default()).unwrap_or("");
        match Path::compile(expression, type_name, d) {
            Err(e) => vec![e.to_string()],
            Ok(path) => {
                let mut found = Vec::new();
                path.evaluate(&resource, type_name, &mut found);
                found.iter().map(|n| format!("{}:{}", n.ty.base, n.value)).collect()
            }
        }
    }

    const PATIENT: &str = r##"{"resourceType":"Patient","name":[{"family":"A","given":["B","C"]},{"family":"D"}],"deceasedBoolean":true,
        "telecom":[{"system":"phone","value":"1"},{"system":"email","value":"2"}],"managingOrganization":{"reference":"#o"},
        "generalPractitioner":[{"reference":"Practitioner/1"},{"reference":"http://x/Organization/2/_history/1"}],
        "contained":[{"resourceType":"Organization","id":"o","name":"O"}],"extension":[{"url":"u","valueString":"e"}]}"##;

    #[test]
    fn expressions_yield_typed_values() {
        for (expression, expected) in [
            ("Patient.name.family", vec!["string:\"A\"", "string:\"D\""]),
            ("Patient.name[1].family | Practitioner.name", vec!["string:\"D\""]),
            ("Patient.name.given.first()", vec!["string:\"B\""]),
            ("Patient.telecom.where(system='email').value", vec!["string:\"2\""]),
            ("Patient.deceased.exists() and Patient.deceased != false", vec!["boolean:true"]),
            ("(Patient.deceased as dateTime)", vec![]),
            ("Patient.deceased.as(Boolean)", vec!["boolean:true"]),
            ("Patient.generalPractitioner.where(resolve() is Practitioner).reference", vec!["string:\"Practitioner/1\""]),
            ("Patient.generalPractitioner.where(resolve() is Organization).reference", vec!["string:\"http://x/Organization/2/_history/1\""]),
            ("Patient.managingOrganization.where(resolve() is Organization).reference", vec!["string:\"#o\""]),
            ("Patient.extension('u').value", vec!["string:\"e\""]),
            ("Patient.contained.name", vec!["string:\"O\""]),
            ("Practitioner.name", vec![]),
            ("Patient.nope(", vec!["function 'nope' is not supported at position 8"]),
            ("Patient.name.", vec!["expected a name at position 13"]),
        ] {
            assert_eq!(values(expression, PATIENT), expected, "{expression}");
        }
    }

    #[test]
    fn every_expression_of_every_version_compiles() {
        let mut compiled = 0;
        let mut empty = Vec::new();
        for version in FhirVersion::ALL {
            let d = Definitions::of(version);
            for type_name in d.resource_types() {
                for param in d.search_params(type_name).filter(|p| !p.expression.is_empty()) {
                    match Path::compile(param.expression, type_name, d) {
                        Ok(path) => {
                            compiled += 1;
                            if path.is_empty() {
                                empty.push(format!("{version} {type_name}.{}: {}", param.code, param.expression));
                            }
                        }
                        Err(e) => panic!("{version} {type_name}.{}: {} {e}", param.code, param.expression),
                    }
                }
            }
        }
        assert!(compiled > 8_000, "{compiled}");
        // Expressions that the specification itself got wrong: they name other types, or none that the element has.
        let names: Vec<&str> = empty.iter().filter_map(|e| e.split(':').next()).collect();
        assert_eq!(names, ["R5 CareTeam.date", "R5 EvidenceVariable.topic", "R5 Observation.component-value-canonical", "R5 Observation.value-canonical"]);
    }
}
