//! The whole FHIRPath language, by a library, for search parameters of a simulator's own that the subset cannot read.
//!
//! Expressions are refused that are too large, nest too deep, or call a function that is not known here; what the rest may
//! cost `limits` tells. What goes wrong in an evaluation means that there is no value.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use octofhir_fhir_model::provider::{ChoiceTypeInfo, ElementInfo, FhirVersion as ModelVersion, ModelProvider, TypeInfo};
use octofhir_fhir_model::{Result as ModelResult, ServerProvider};
use octofhir_fhirpath::ast::operator::BinaryOperator;
use octofhir_fhirpath::core::node::FhirNode;
use octofhir_fhirpath::core::trace::NoOpTraceProvider;
use octofhir_fhirpath::{Collection, CompiledPlan, EvaluationContext, ExpressionNode, FhirPathEngine, FhirPathValue};
use serde_json::{Number, Value, json};

use super::limits::{self, run};
use super::{BadPath, Ty};
use crate::fhir::id::clip;
use crate::fhir::{Definitions, FhirVersion};

/// Longest expression in bytes.
const LONGEST: usize = 4_000;
/// Most parentheses: some of the library's steps go down by recursion.
const MAX_PARENTHESES: usize = 100;
/// Most steps of an expression: evaluation goes down by recursion.
const MAX_STEPS: usize = 200;
/// Most times that an expression joins texts: each may double what there is.
const MAX_JOINED: usize = 8;
/// Most functions with a condition in one another: each may look at all values again.
const MAX_NESTED: usize = 4;
/// The functions that may be called.
const KNOWN: &[&str] = &[
    "where",
    "all",
    "exists",
    "empty",
    "not",
    "first",
    "last",
    "tail",
    "skip",
    "take",
    "single",
    "count",
    "distinct",
    "isDistinct",
    "allTrue",
    "anyTrue",
    "allFalse",
    "anyFalse",
    "ofType",
    "as",
    "is",
    "resolve",
    "extension",
    "hasValue",
    "getValue",
    "iif",
    "select",
    "union",
    "intersect",
    "exclude",
    "subsetOf",
    "supersetOf",
    "startsWith",
    "endsWith",
    "contains",
    "indexOf",
    "substring",
    "length",
    "lower",
    "upper",
    "trim",
    "matches",
    "split",
    "join",
    "toString",
    "toInteger",
    "toDecimal",
    "toBoolean",
    "toDate",
    "toDateTime",
    "toTime",
    "toQuantity",
    "convertsToString",
    "convertsToInteger",
    "convertsToDecimal",
    "convertsToBoolean",
    "convertsToDate",
    "convertsToDateTime",
    "convertsToTime",
    "abs",
    "ceiling",
    "floor",
    "round",
    "truncate",
    "descendants",
    "children",
    "combine",
    "type",
];
/// The types of the language's own, <http://hl7.org/fhirpath/#literals>.
const SYSTEM: [&str; 9] = ["Any", "Boolean", "String", "Integer", "Decimal", "Date", "DateTime", "Time", "Quantity"];
/// The variables that there are, <https://hl7.org/fhir/R4/fhirpath.html#variables>.
const VARIABLES: &[&str] = &["this", "index", "total", "context", "resource", "ucum", "sct", "loinc"];

/// The tables as the library wants them. Element with children: type name `Observation.component`.
#[derive(Debug)]
struct Tables(&'static Definitions);

/// The library turns what is named `Quantity` into a value of its own and loses the comparator and digits on the way.
/// Under another name it stays the JSON that it is; `derived` says that it is a Quantity all the same.
const QUANTITY: &str = "FhirQuantity";

fn info(name: &str) -> TypeInfo {
    let name = if name == "Quantity" { QUANTITY } else { name };
    TypeInfo { type_name: name.to_owned(), singleton: Some(true), is_empty: Some(false), namespace: Some("FHIR".to_owned()), name: Some(name.to_owned()) }
}

impl Tables {
    /// `DateTime` and `datetime` are `dateTime` too: the library asks for the suffix of `valueDateTime`.
    fn type_named(&self, name: &str) -> Option<&'static str> {
        let name = name.strip_prefix("FHIR.").unwrap_or(name);
        if let Some(t) = self.0.type_def(name) {
            return Some(t.name);
        }
        let lower = format!("{}{}", name.get(..1)?.to_lowercase(), name.get(1..)?);
        if let Some(t) = self.0.type_def(&lower) {
            return Some(t.name);
        }
        match name {
            "datetime" => Some("dateTime"),
            QUANTITY => Some("Quantity"),
            _ => None,
        }
    }

    /// The type name an element's table entry gives.
    fn element(&self, parent: &str, property: &str) -> Option<String> {
        let (base, path) = parent.split_once('.').unwrap_or((parent, ""));
        let base = self.type_named(base)?;
        let full = if path.is_empty() { property.to_owned() } else { format!("{path}.{property}") };
        let mut def = self.0.type_def(base)?;
        let element = loop {
            if let Some(e) = def.element(&full) {
                break e;
            }
            def = self.0.type_def(def.base)?;
        };
        Some(match element.types {
            t if t.starts_with('#') => format!("{base}.{}", &t[1..]),
            "BackboneElement" | "Element" => format!("{base}.{}", element.path),
            t => t.to_owned(),
        })
    }

    fn derived(&self, derived: &str, base: &str) -> bool {
        let derived = derived.strip_prefix("FHIR.").unwrap_or(derived);
        let base = base.strip_prefix("FHIR.").unwrap_or(base);
        let base = if base == QUANTITY { "Quantity" } else { base };
        if derived == base {
            return true;
        }
        if derived.contains('.') {
            return matches!(base, "BackboneElement" | "Element");
        }
        self.type_named(derived).is_some_and(|d| self.0.is_a(d, base))
    }
}

#[async_trait]
impl ModelProvider for Tables {
    async fn get_type(&self, name: &str) -> ModelResult<Option<TypeInfo>> {
        Ok(self.type_named(name).map(info))
    }

    async fn get_element_type(&self, parent: &TypeInfo, property: &str) -> ModelResult<Option<TypeInfo>> {
        Ok(self.element(parent.name.as_deref().unwrap_or(&parent.type_name), property).map(|t| info(&t)))
    }

    fn of_type(&self, ty: &TypeInfo, target: &str) -> Option<TypeInfo> {
        let name = ty.name.as_deref().unwrap_or(&ty.type_name);
        (ty.namespace.as_deref() == Some("FHIR") && self.derived(name, target)).then(|| ty.clone())
    }

    fn get_element_names(&self, _: &TypeInfo) -> Vec<String> {
        Vec::new()
    }
    async fn get_children_type(&self, _: &TypeInfo) -> ModelResult<Option<TypeInfo>> {
        Ok(None)
    }
    async fn get_elements(&self, _: &str) -> ModelResult<Vec<ElementInfo>> {
        Ok(Vec::new())
    }
    async fn get_resource_types(&self) -> ModelResult<Vec<String>> {
        Ok(self.0.resource_types().iter().map(|t| (*t).to_owned()).collect())
    }
    async fn get_complex_types(&self) -> ModelResult<Vec<String>> {
        Ok(Vec::new())
    }
    async fn get_primitive_types(&self) -> ModelResult<Vec<String>> {
        Ok(Vec::new())
    }
    async fn get_fhir_version(&self) -> ModelResult<ModelVersion> {
        Ok(match self.0.version() {
            FhirVersion::Stu3 => ModelVersion::Custom { version: "3.0.2".to_owned() },
            FhirVersion::R4 => ModelVersion::R4,
            FhirVersion::R4b => ModelVersion::R4B,
            FhirVersion::R5 => ModelVersion::R5,
        })
    }
    fn is_type_derived_from(&self, derived: &str, base: &str) -> bool {
        self.derived(derived, base)
    }
    async fn get_choice_types(&self, parent: &str, property: &str) -> ModelResult<Option<Vec<ChoiceTypeInfo>>> {
        let (base, path) = parent.split_once('.').unwrap_or((parent, ""));
        let full = if path.is_empty() { format!("{property}[x]") } else { format!("{path}.{property}[x]") };
        let choice = self.0.type_def(base).and_then(|d| d.element(&full));
        Ok(choice.map(|c| {
            let one = |t: &str| ChoiceTypeInfo { suffix: format!("{}{}", t[..1].to_uppercase(), &t[1..]), type_name: t.to_owned() };
            c.types.split('|').map(one).collect()
        }))
    }
}

/// `resolve()` asks this for `Type/id` (what precedes and follows the first slash). Answers a stub that has the type:
/// enough for `resolve() is Patient`, as a search parameter may not look into other resources anyway.
#[derive(Debug)]
struct Stubs(&'static Definitions);

#[async_trait]
impl ServerProvider for Stubs {
    async fn read(&self, before: &str, after: &str) -> ModelResult<Option<Value>> {
        let reference = format!("{before}/{after}");
        let path = reference.split_once("/_history/").map_or(reference.as_str(), |(p, _)| p);
        let mut parts = path.rsplit('/');
        let id = parts.next().unwrap_or_default();
        let name = parts.next().and_then(|name| self.0.find_resource_type(name));
        Ok(name.map(|name| json!({"resourceType": name, "id": id})))
    }
    // what `%server` offers to an expression: nothing
    async fn create(&self, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn update(&self, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn delete(&self, _: &Value) -> ModelResult<bool> {
        Ok(false)
    }
    async fn search(&self, _: bool, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn patch(&self, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn capabilities(&self, _: Option<&str>) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn validate(&self, _: &Value, _: &str, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn transform(&self, _: &Value, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn everything(&self, _: &str, _: &str, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    async fn apply(&self, _: &Value, _: &str, _: &Value) -> ModelResult<Option<Value>> {
        Ok(None)
    }
    fn base_url(&self) -> &'static str {
        ""
    }
}

/// `Resource.id` means `Patient.id` on a Patient; the library compares the name with `resourceType` only.
fn rooted(expression: &str, type_name: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut quote = None;
    let mut rest = expression;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        if quote.is_none()
            && !before.is_alphanumeric()
            && !matches!(before, '_' | '.' | '%' | '$')
            && let Some(name) = ["Resource", "DomainResource"].into_iter().find(|n| rest.strip_prefix(n).is_some_and(|r| r.starts_with('.')))
        {
            out.push_str(type_name);
            rest = &rest[name.len()..];
            before = 'e';
            continue;
        }
        match quote {
            Some(q) if c == q && before != '\\' => quote = None,
            None if matches!(c, '\'' | '`' | '"') => quote = Some(c),
            _ => {}
        }
        out.push(c);
        before = c;
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// What evaluates the expressions of one FHIR version.
struct Engine {
    evaluator: FhirPathEngine,
    tables: Arc<Tables>,
    server: Arc<dyn ServerProvider>,
    element_types: Arc<papaya::HashMap<String, Option<Arc<TypeInfo>>>>,
}

impl Engine {
    fn of(definitions: &'static Definitions) -> Option<&'static Self> {
        static ALL: [OnceLock<Option<Engine>>; 4] = [const { OnceLock::new() }; 4];
        let made = ALL[definitions.version() as usize].get_or_init(|| {
            let tables = Arc::new(Tables(definitions));
            let registry = Arc::new(limits::functions(KNOWN));
            let evaluator = run(FhirPathEngine::new_with_registries(Arc::new(limits::operators()), registry, tables.clone()))
                .ok()?
                .ok()?
                .with_trace_provider(Arc::new(NoOpTraceProvider::new()));
            Some(Self { evaluator, tables, server: Arc::new(Stubs(definitions)), element_types: Arc::default() })
        });
        made.as_ref()
    }
}

/// What an expression has too much of to be compiled and evaluated safely, if it has: "has more than ...".
#[must_use]
pub fn excess(expression: &str) -> Option<String> {
    let steps = |what: &str| expression.matches(what).count() > MAX_STEPS;
    let deep = expression.matches('(').count() > MAX_PARENTHESES || expression.matches(['.', '[']).count() > MAX_STEPS || steps(" and ");
    (expression.len() > LONGEST || deep).then(|| {
        format!("has more than {LONGEST} bytes, {MAX_PARENTHESES} parentheses or {MAX_STEPS} steps; what is beyond begins at position {LONGEST} or before")
    })
}

/// A compiled expression of the whole language.
#[derive(Clone)]
pub struct Expression {
    plan: Arc<CompiledPlan>,
    engine: &'static Engine,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expression")
    }
}

impl Expression {
    /// Compiles an expression for resources of a type.
    ///
    /// # Errors
    /// It is malformed, or could take any time or memory.
    pub fn compile(expression: &str, type_name: &str, definitions: &'static Definitions) -> Result<Self, BadPath> {
        let bad = |at: usize, reason: String| BadPath { at, reason };
        let made = Self::unlimited(expression, type_name, definitions)?;
        let mut found = Costs::default();
        found.add(made.plan.ast(), 0);
        let place = |name: &str| expression.find(&format!("{name}(")).unwrap_or(0);
        if let Some(name) = found.functions.iter().find(|n| !KNOWN.contains(&n.as_str()) || !made.engine.evaluator.get_function_registry().has_function(n)) {
            return Err(bad(place(name), format!("function '{name}' is not supported")));
        }
        if let Some(name) = found.variables.iter().find(|name| !VARIABLES.contains(&name.trim_start_matches(['$', '%']))) {
            let known = VARIABLES[3..].join(", %");
            return Err(bad(expression.find(name.as_str()).unwrap_or(0), format!("variable '{}' is not defined; there are %{known}", clip(name))));
        }
        let is_type = |name: &String| SYSTEM.contains(&name.as_str()) || made.engine.tables.type_named(name).is_some();
        if let Some(name) = found.types.iter().find(|name| !is_type(name)) {
            return Err(bad(expression.find(name.as_str()).unwrap_or(0), format!("there is no type '{}'", clip(name))));
        }
        if found.joined > MAX_JOINED || found.nested > MAX_NESTED {
            return Err(bad(0, format!("more than {MAX_JOINED} times '&' or '+', or more than {MAX_NESTED} conditions in one another")));
        }
        Ok(made)
    }

    /// The same for an expression that is known to be harmless.
    ///
    /// # Errors
    /// It is malformed.
    pub fn unlimited(expression: &str, type_name: &str, definitions: &'static Definitions) -> Result<Self, BadPath> {
        let Some(engine) = Engine::of(definitions) else { return Err(BadPath { at: 0, reason: "it cannot be read".to_owned() }) };
        let compiled = catch_unwind(AssertUnwindSafe(|| engine.evaluator.compile_plan(&rooted(expression, type_name))));
        if let Ok(Ok(plan)) = compiled {
            return Ok(Self { plan, engine });
        }
        // The fast parser knows no places; the other one does.
        let diagnostics = octofhir_fhirpath::parse_with_analysis(expression).diagnostics;
        let located = diagnostics.into_iter().find_map(|d| d.location.map(|l| (l.offset, d.message)));
        let (at, reason) = located.unwrap_or_else(|| (0, "it cannot be read".to_owned()));
        Err(BadPath { at, reason })
    }

    /// The values in a resource with their types; those that the language computes have the FHIR type of their kind.
    ///
    /// # Errors
    /// The evaluation fails; as a search parameter, the resource has no value then.
    pub fn evaluate(&self, resource: &Value, type_name: &str) -> Result<Vec<(Value, Ty)>, String> {
        let engine = self.engine;
        let _turn = limits::begin(resource).map_err(|e| e.to_string())?;
        let root = FhirPathValue::Resource(FhirNode::from_json(resource), Arc::new(info(type_name)), None);
        let context = EvaluationContext::new_with_server_and_element_type_cache(
            Collection::single(root),
            engine.tables.clone(),
            None,
            None,
            Some(Arc::new(NoOpTraceProvider::new())),
            Some(engine.server.clone()),
            engine.element_types.clone(),
        );
        // Arithmetic at the edges of numbers panics inside.
        let result = catch_unwind(AssertUnwindSafe(|| run(engine.evaluator.evaluate_plan(&self.plan, &context.nest()))));
        let result = result.map_err(|_| "out of range".to_owned())?.and_then(|result| result).map_err(|e| e.to_string())?;
        Ok(result.value.iter().filter(|v| !matches!(v, FhirPathValue::Empty)).map(|v| engine.tables.found(v)).collect())
    }
}

impl Tables {
    fn found(&self, value: &FhirPathValue) -> (Value, Ty) {
        let ty = value.type_info();
        let name = ty.name.as_deref().unwrap_or(&ty.type_name);
        let named = |name: &str| self.type_named(name).map(Ty::named);
        let found = match value {
            FhirPathValue::Resource(node, _, _) if node.get("resourceType").is_some() => named(node["resourceType"].as_str().unwrap_or_default()),
            _ => match name.split_once('.') {
                // An element with children.
                Some((base, path)) => self.0.type_def(base).and_then(|d| Some(Ty { base: d.name, path: d.element(path)?.path })),
                None => named(name).or_else(|| named(&name.to_lowercase())),
            },
        };
        let json = match value {
            // The library's own way goes through binary numbers.
            FhirPathValue::Decimal(d, _, _) => d.to_string().parse::<Number>().map_or(Value::Null, Value::Number),
            other => other.to_json_value(),
        };
        (json, found.unwrap_or(Ty::named("string")))
    }
}

/// What an expression could cost.
#[derive(Default)]
struct Costs {
    functions: Vec<String>,
    variables: Vec<String>,
    types: Vec<String>,
    joined: usize,
    nested: usize,
}

impl Costs {
    fn add(&mut self, node: &ExpressionNode, depth: usize) {
        use ExpressionNode as E;
        self.nested = self.nested.max(depth);
        match node {
            E::FunctionCall(f) => {
                self.functions.push(f.name.clone());
                f.arguments.iter().for_each(|a| self.add(a, depth + 1));
            }
            E::MethodCall(m) => {
                self.functions.push(m.method.clone());
                if let ("ofType" | "as" | "is", [E::Identifier(name)]) = (m.method.as_str(), &m.arguments[..]) {
                    self.types.push(name.name.clone());
                }
                self.add(&m.object, depth);
                m.arguments.iter().for_each(|a| self.add(a, depth + 1));
            }
            E::BinaryOperation(n) => {
                self.joined += usize::from(matches!(n.operator, BinaryOperator::Concatenate | BinaryOperator::Add));
                self.add(&n.left, depth);
                self.add(&n.right, depth);
            }
            E::Union(n) => {
                self.add(&n.left, depth);
                self.add(&n.right, depth);
            }
            E::IndexAccess(n) => {
                self.add(&n.object, depth);
                self.add(&n.index, depth);
            }
            E::Filter(n) => {
                self.add(&n.base, depth);
                self.add(&n.condition, depth + 1);
            }
            E::UnaryOperation(n) => self.add(&n.operand, depth),
            E::PropertyAccess(n) => self.add(&n.object, depth),
            E::Lambda(n) => self.add(&n.body, depth + 1),
            E::Collection(n) => n.elements.iter().for_each(|n| self.add(n, depth)),
            E::Parenthesized(n) => self.add(n, depth),
            E::TypeCast(n) => self.add(&n.expression, depth),
            E::TypeCheck(n) => self.add(&n.expression, depth),
            E::Path(n) => self.add(&n.base, depth),
            E::Variable(v) => self.variables.push(v.name.clone()),
            E::Literal(_) | E::Identifier(_) | E::TypeInfo(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(expression: &str, resource: &Value) -> Result<Vec<Value>, String> {
        let made = Expression::compile(expression, "Patient", Definitions::of(FhirVersion::R4)).map_err(|bad| bad.to_string())?;
        made.evaluate(resource, "Patient").map(|found| found.into_iter().map(|(value, _)| value).collect())
    }

    #[test]
    fn functions_do_within_the_limits_what_the_language_says() {
        let patient = json!({"resourceType": "Patient", "active": true, "name": [{"family": "A", "given": ["B", "C"]}, {"family": "D"}]});
        for (expression, expected) in [
            ("Patient.name.select(given | family)", json!(["B", "C", "A", "D"])),
            ("Patient.name.select($index)", json!([0, 1])),
            ("Patient.name.where($index = 1).family", json!(["D"])),
            ("Patient.name.where(given.exists($this = 'C')).family", json!(["A"])),
            ("Patient.name.where(family).family", json!([])),
            ("Patient.name.all(family.exists())", json!([true])),
            ("Patient.name.all(given.exists())", json!([false])),
            ("Patient.name.exists(family = 'X')", json!([false])),
            ("Patient.photo.exists()", json!([false])),
            ("Patient.name.given.join('-')", json!(["B-C"])),
            ("Patient.name.family.combine(Patient.name.family).count()", json!([4])),
            ("Patient.name.family.intersect('A' | 'Z')", json!(["A"])),
            ("Patient.descendants().ofType(string).count()", json!([4])),
            ("Patient.name.select(%resource.descendants().count())", json!([7, 7])),
            ("Patient.photo.all(url.exists())", json!([true])),
            ("Patient.name.where(false).all(false)", json!([true])),
            ("%context.active", json!([true])),
            ("Patient.name.given.first() | 'b'", json!(["B", "b"])),
            ("Patient.active.ofType(boolean)", json!([true])),
            ("Patient.name.given ~ ('C' | 'B')", json!([true])),
            ("Patient.name.first().given.first() & '-' & Patient.name.last().family", json!(["B-D"])),
        ] {
            assert_eq!(evaluated(expression, &patient), Ok(expected.as_array().unwrap().clone()), "{expression}");
        }
        assert_eq!(
            evaluated("%nosuch.name", &patient).unwrap_err(),
            "variable 'nosuch' is not defined; there are %context, %resource, %ucum, %sct, %loinc at position 1"
        );
        assert_eq!(evaluated("Patient.name.ofType(Foo)", &patient).unwrap_err(), "there is no type 'Foo' at position 20");
        assert!(evaluated("%factory.Extension('u', 'v')", &patient).is_err());
    }

    /// What multiplies is refused while it does, with little memory; that it ends at all is what this tests.
    #[test]
    fn what_multiplies_is_refused_before_it_is_there() {
        let contacts: Vec<Value> = (0..3_000).map(|n| json!({"name": {"family": format!("x{n}"), "given": ["y", "z"]}})).collect();
        let patient = json!({"resourceType": "Patient", "contact": contacts});
        for expression in [
            "Patient.descendants().select(%resource.descendants().select(%resource.descendants())).ofType(string)",
            "descendants().select(%resource.descendants().select(%resource.descendants())).count()>5",
            "Patient.contact.select(%resource.contact).select(%resource.contact).count()",
            "Patient.contact.where(iif($this.exists(), %resource).contact.name.given.exists()).count()",
            "Patient.contact.name.given.intersect(%resource.contact.name.given).count()",
            "Patient.descendants().subsetOf(%resource.descendants())",
            "Patient.contact.name.family.join(%resource.contact.name.family.join(%resource.contact.name.family.join('')))",
            "Patient.contact.select(%resource.contact.name.family.join('')).count()",
            "Patient.descendants() ~ %resource.descendants()",
            "Patient.contact.select(%resource.contact.select(%resource.contact.select(%resource.contact.select(%resource.contact))))",
            "Patient.contact.select(%resource.contact.combine(%resource.contact)).exists()",
        ] {
            let failed = evaluated(expression, &patient).unwrap_err();
            assert!(failed.contains("looks at more than 500000 values") || failed.contains("takes too long"), "{expression}: {failed}");
        }
        let mut deep = json!({"url": "u", "valueString": "v"});
        for _ in 0..100 {
            deep = json!({"url": "u", "extension": [deep]});
        }
        let patient = json!({"resourceType": "Patient", "extension": [deep]});
        let failed = evaluated("Patient.descendants().descendants().descendants().descendants().descendants().count()", &patient).unwrap_err();
        assert!(failed.contains("looks at more than"), "{failed}");
        assert_eq!(evaluated("Patient.descendants().count()", &patient), Ok(vec![json!(203)]));
    }
}
