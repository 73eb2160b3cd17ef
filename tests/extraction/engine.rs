//! The independent FHIRPath library over this server's own tables.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use fhirsim::fhir::{Definitions, FhirVersion};
use octofhir_fhir_model::provider::{ChoiceTypeInfo, ElementInfo, FhirVersion as ModelVersion, ModelProvider, TypeInfo};
use octofhir_fhir_model::{Result as ModelResult, ServerProvider};
use octofhir_fhirpath::core::node::FhirNode;
use octofhir_fhirpath::core::trace::NoOpTraceProvider;
use octofhir_fhirpath::{Collection, CompiledPlan, EvaluationContext, FhirPathEngine, FhirPathValue};
use serde_json::{Number, Value, json};

/// The tables as the library wants them. Element with children: type name `Observation.component`.
#[derive(Debug)]
pub struct Tables(pub &'static Definitions);

/// The library turns what is named `Quantity` into a value of its own and loses the comparator and digits on the way.
/// Under another name it stays the JSON that it is; `derived` says that it is a Quantity all the same.
const QUANTITY: &str = "FhirQuantity";

fn info(name: &str) -> TypeInfo {
    let name = if name == "Quantity" { QUANTITY } else { name };
    TypeInfo { type_name: name.to_owned(), singleton: Some(true), is_empty: Some(false), namespace: Some("FHIR".to_owned()), name: Some(name.to_owned()) }
}

impl Tables {
    /// `DateTime` and `datetime` are `dateTime` too: the library asks for the suffix of `valueDateTime`.
    pub fn type_named(&self, name: &str) -> Option<&'static str> {
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
pub struct Stubs(pub &'static Definitions);

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

/// A value and its FHIR type (`Quantity`, `dateTime`, `Observation.component`, `System.Boolean` ...).
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub value: Value,
    pub ty: String,
}

/// The engine of one FHIR version.
pub struct Engine {
    evaluator: FhirPathEngine,
    tables: Arc<Tables>,
    server: Arc<dyn ServerProvider>,
    element_types: Arc<papaya::HashMap<String, Option<Arc<TypeInfo>>>>,
}

impl Engine {
    pub fn new(version: FhirVersion) -> Self {
        let definitions = Definitions::of(version);
        let tables = Arc::new(Tables(definitions));
        let registry = Arc::new(octofhir_fhirpath::create_function_registry());
        let engine = run(FhirPathEngine::new(registry, tables.clone())).unwrap().with_trace_provider(Arc::new(NoOpTraceProvider::new()));
        Self { evaluator: engine, tables, server: Arc::new(Stubs(definitions)), element_types: Arc::default() }
    }

    pub fn compile(&self, expression: &str, type_name: &str) -> Arc<CompiledPlan> {
        self.evaluator.compile_plan(&rooted(expression, type_name)).unwrap()
    }

    /// The context of one resource, for all expressions on it.
    pub fn context(&self, resource: &Value) -> EvaluationContext {
        let name = resource.get("resourceType").and_then(Value::as_str).unwrap_or("Resource");
        let root = FhirPathValue::Resource(FhirNode::from_json(resource), Arc::new(info(name)), None);
        EvaluationContext::new_with_server_and_element_type_cache(
            Collection::single(root),
            self.tables.clone(),
            None,
            None,
            Some(Arc::new(NoOpTraceProvider::new())),
            Some(self.server.clone()),
            self.element_types.clone(),
        )
    }

    pub fn evaluate(&self, plan: &CompiledPlan, context: &EvaluationContext) -> Result<Vec<Found>, String> {
        let result = run(self.evaluator.evaluate_plan(plan, &context.nest())).map_err(|e| e.to_string())?;
        Ok(result.value.iter().filter(|v| !matches!(v, FhirPathValue::Empty)).map(|v| self.found(v)).collect())
    }

    fn found(&self, value: &FhirPathValue) -> Found {
        let ty = value.type_info();
        let name = ty.name.as_deref().unwrap_or(&ty.type_name);
        let ty = match (ty.namespace.as_deref(), value) {
            (_, FhirPathValue::Resource(node, _, _)) if node.get("resourceType").is_some() => node["resourceType"].as_str().unwrap_or_default().to_owned(),
            (Some("FHIR"), _) => self.tables.type_named(name).map_or_else(|| name.to_owned(), str::to_owned),
            (namespace, _) => format!("{}.{name}", namespace.unwrap_or("?")),
        };
        let value = match value {
            FhirPathValue::Decimal(d, _, _) => d.to_string().parse::<Number>().map_or(Value::Null, Value::Number),
            other => other.to_json_value(),
        };
        Found { value, ty }
    }
}

/// Polls to the end on this thread: nothing in it waits for anything.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
