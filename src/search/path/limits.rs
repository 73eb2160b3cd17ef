//! What an evaluation by the library may cost, which sets no limits of its own: every function is wrapped, and takes what it
//! looks at and what it yields from what may be looked at in all. That depends on nothing but the expression and the
//! resource; the clock is the last resort.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use octofhir_fhirpath::core::FP0054;
use octofhir_fhirpath::core::node::FhirNode;
use octofhir_fhirpath::evaluator::function_registry::{
    EmptyPropagation, FunctionEvaluatorWrapper, FunctionMetadata, LazyFunctionEvaluator, NullPropagationStrategy, ProviderPureFunctionEvaluator,
    PureFunctionEvaluator,
};
use octofhir_fhirpath::evaluator::lambda_hoisting::hoist_into;
use octofhir_fhirpath::evaluator::{
    AsyncNodeEvaluator, EvaluationResult, OperationEvaluator, OperatorMetadata, OperatorRegistry, create_standard_operator_registry,
};
use octofhir_fhirpath::{Collection, EvaluationContext, ExpressionNode, FhirPathError, FhirPathValue, FunctionRegistry, Result};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;

/// Most values that one evaluation may look at or yield, each function for itself; a text counts more, the longer it is.
const MAX_VALUES: usize = 500_000;
/// Bytes of text that count as much as a value.
const BYTES: usize = 64;
/// Longest that one evaluation may take.
const MAX_TIME: Duration = Duration::from_secs(5);

/// How many evaluations go on at once: each may hold many times what the resource is long.
#[derive(Debug)]
pub struct Turns {
    per_two_cores: usize,
    taken: Mutex<usize>,
    given_back: Condvar,
}

/// Those of filters of events, of which a client may have many at once: they leave half of the machine to others.
pub static FILTERS: Turns = Turns::new(1);
/// Those of search parameters.
static PARAMETERS: Turns = Turns::new(4);

impl Turns {
    const fn new(per_two_cores: usize) -> Self {
        Self { per_two_cores, taken: Mutex::new(0), given_back: Condvar::new() }
    }

    /// Waits for one.
    #[must_use]
    pub fn take(&'static self) -> Turn {
        let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = (most * self.per_two_cores).div_ceil(2);
        let mut taken = self.taken.lock();
        while *taken >= most {
            self.given_back.wait(&mut taken);
        }
        *taken += 1;
        Turn(self)
    }
}

/// One of them, as long as it is held.
#[derive(Debug)]
pub struct Turn(&'static Turns);

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.given_back.notify_one();
    }
}

/// Waits for the turn of a search parameter, whose resource must not have too many values.
///
/// # Errors
/// It has.
pub(super) fn begin(resource: &Value) -> Result<Turn> {
    let (mut count, mut left) = (0, vec![resource]);
    while let Some(value) = left.pop() {
        match value {
            Value::Object(members) => left.extend(members.values()),
            Value::Array(items) => left.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        count += 1;
        if count > MAX_VALUES {
            return Err(too_much(&format!("looks at more than {MAX_VALUES} values")));
        }
    }
    Ok(PARAMETERS.take())
}

/// What is left of it to the evaluation on this thread.
#[derive(Clone, Copy)]
struct Left {
    until: Instant,
    values: usize,
}

thread_local! {
    static LEFT: Cell<Option<Left>> = const { Cell::new(None) };
}

fn too_much(what: &str) -> FhirPathError {
    FhirPathError::evaluation_error(FP0054, format!("the expression {what}"))
}

/// Takes from what is left.
///
/// # Errors
/// There is not so much left.
pub(super) fn spend(values: usize) -> Result<()> {
    let Some(left) = LEFT.get() else { return Ok(()) };
    if Instant::now() > left.until {
        return Err(too_much("takes too long"));
    }
    let values = left.values.checked_sub(values).ok_or_else(|| too_much(&format!("looks at more than {MAX_VALUES} values")))?;
    LEFT.set(Some(Left { values, ..left }));
    Ok(())
}

fn weight(values: &Collection) -> usize {
    let of = |value: &FhirPathValue| match value {
        FhirPathValue::String(text, ..) => 1 + text.len() / BYTES,
        FhirPathValue::Collection(inner) => 1 + inner.len(),
        _ => 1,
    };
    values.iter().map(of).sum()
}

/// Polls an evaluation to the end on this thread, within the limits: nothing in it waits for anything, but now and then it
/// lets others go first. Without `unconstrained` the budget of the task around would count, and once that is spent the
/// library would wait for ever.
///
/// # Errors
/// It takes too long.
pub(super) fn run<F: Future>(future: F) -> Result<F::Output> {
    let until = Instant::now() + MAX_TIME;
    LEFT.set(Some(Left { until, values: MAX_VALUES }));
    let mut future = pin!(tokio::task::unconstrained(future));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
        if Instant::now() > until {
            return Err(too_much("takes too long"));
        }
    }
}

/// The functions of `names` that the library has, each within the limits.
pub(super) fn functions(names: &[&str]) -> FunctionRegistry {
    let theirs = octofhir_fhirpath::create_function_registry();
    let mut ours = FunctionRegistry::new();
    for found in names.iter().filter_map(|name| theirs.get_function_wrapper(name)) {
        match found.clone() {
            FunctionEvaluatorWrapper::Pure(inner) => ours.register_pure_function(Arc::new(Counted(inner))),
            FunctionEvaluatorWrapper::ProviderPure(inner) => ours.register_provider_pure_function(Arc::new(Counted(inner))),
            FunctionEvaluatorWrapper::Lazy(inner) => ours.register_lazy_function(Arc::new(Lazy::of(inner))),
            // None of those that are named.
            FunctionEvaluatorWrapper::Standard(_) => {}
        }
    }
    ours
}

/// The operators of the library, each within the limits.
pub(super) fn operators() -> OperatorRegistry {
    let theirs = create_standard_operator_registry();
    let mut ours = OperatorRegistry::new();
    for operator in theirs.list_binary_operators() {
        if let Some(inner) = theirs.get_binary_operator(operator) {
            ours.register_binary_operator(*operator, Arc::new(Counted(inner.clone())));
        }
    }
    for operator in theirs.list_unary_operators() {
        if let Some(inner) = theirs.get_unary_operator(operator) {
            ours.register_unary_operator(*operator, inner.clone());
        }
    }
    ours
}

/// A function or an operator that looks at its input and its arguments.
struct Counted<T: ?Sized>(Arc<T>);

/// What it costs to call a function.
fn called(name: &str, input: &Collection, arguments: &[Collection]) -> Result<()> {
    let (own, others) = (weight(input), arguments.iter().map(weight).sum::<usize>());
    spend(match name {
        // Each is compared with each.
        "intersect" | "exclude" | "subsetOf" | "supersetOf" => own.saturating_mul(others.max(1)),
        // So often the separator is in it.
        "join" => own.saturating_add(input.len().saturating_mul(others)),
        _ => own.saturating_add(others),
    })
}

fn yielded(result: EvaluationResult) -> Result<EvaluationResult> {
    spend(weight(&result.value)).map(|()| result)
}

#[async_trait]
impl PureFunctionEvaluator for Counted<dyn PureFunctionEvaluator> {
    fn prepare(&self, arguments: &[Collection]) -> Option<Arc<dyn PureFunctionEvaluator>> {
        self.0.prepare(arguments).map(|prepared| Arc::new(Counted(prepared)) as Arc<dyn PureFunctionEvaluator>)
    }

    fn supports_sync(&self) -> bool {
        self.0.supports_sync()
    }

    fn evaluate_sync(&self, input: Collection, arguments: Vec<Collection>) -> Result<EvaluationResult> {
        called(&self.0.metadata().name, &input, &arguments)?;
        yielded(self.0.evaluate_sync(input, arguments)?)
    }

    fn evaluate_sync_borrowed(&self, input: Collection, arguments: &[Collection]) -> Result<EvaluationResult> {
        called(&self.0.metadata().name, &input, arguments)?;
        yielded(self.0.evaluate_sync_borrowed(input, arguments)?)
    }

    async fn evaluate(&self, input: Collection, arguments: Vec<Collection>) -> Result<EvaluationResult> {
        called(&self.0.metadata().name, &input, &arguments)?;
        yielded(self.0.evaluate(input, arguments).await?)
    }

    fn metadata(&self) -> &FunctionMetadata {
        self.0.metadata()
    }
}

#[async_trait]
impl ProviderPureFunctionEvaluator for Counted<dyn ProviderPureFunctionEvaluator> {
    async fn evaluate(&self, input: Collection, arguments: Vec<Collection>, context: &EvaluationContext) -> Result<EvaluationResult> {
        called(&self.0.metadata().name, &input, &arguments)?;
        yielded(self.0.evaluate(input, arguments, context).await?)
    }

    fn metadata(&self) -> &FunctionMetadata {
        self.0.metadata()
    }
}

/// How many values are below one.
fn below(value: &FhirPathValue) -> usize {
    let FhirPathValue::Resource(root, ..) = value else { return 0 };
    let (mut count, mut left) = (0, vec![root]);
    while let Some(node) = left.pop().filter(|_| count <= MAX_VALUES) {
        match node {
            FhirNode::Object(_) => left.extend(node.entries().map(|(_, child)| child)),
            FhirNode::Array(items) => left.extend(items.iter()),
            _ => {}
        }
        count += 1;
    }
    count
}

impl Counted<dyn OperationEvaluator> {
    fn called(&self, left: &Collection, right: &Collection) -> Result<()> {
        let (left, right) = (weight(left), weight(right));
        // Each is compared with each, in any order.
        let compares = matches!(self.0.metadata().name.as_str(), "~" | "!~");
        spend(if compares { left.saturating_mul(right.max(1)) } else { left.saturating_add(right) })
    }
}

#[async_trait]
impl OperationEvaluator for Counted<dyn OperationEvaluator> {
    fn supports_sync(&self) -> bool {
        self.0.supports_sync()
    }

    fn evaluate_sync(&self, input: Collection, context: &EvaluationContext, left: Collection, right: Collection) -> Result<EvaluationResult> {
        self.called(&left, &right)?;
        yielded(self.0.evaluate_sync(input, context, left, right)?)
    }

    async fn evaluate(&self, input: Collection, context: &EvaluationContext, left: Collection, right: Collection) -> Result<EvaluationResult> {
        self.called(&left, &right)?;
        yielded(self.0.evaluate(input, context, left, right).await?)
    }

    fn metadata(&self) -> &OperatorMetadata {
        self.0.metadata()
    }
}

/// What is done with what an argument comes to for each value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Nothing, or what the library does with it.
    Else,
    Where,
    Select,
    Exists,
    All,
}

/// A function that evaluates its arguments itself; some do that for each value, <http://hl7.org/fhirpath/#functions>.
struct Lazy {
    does: Does,
    inner: Arc<dyn LazyFunctionEvaluator>,
    metadata: FunctionMetadata,
}

impl Lazy {
    fn of(inner: Arc<dyn LazyFunctionEvaluator>) -> Self {
        let mut metadata = inner.metadata().clone();
        let does = match metadata.name.as_str() {
            "where" => Does::Where,
            "select" => Does::Select,
            "exists" => Does::Exists,
            "all" => Does::All,
            _ => Does::Else,
        };
        // All of none hold.
        if does == Does::All {
            (metadata.empty_propagation, metadata.null_propagation) = (EmptyPropagation::NoPropagation, NullPropagationStrategy::None);
        }
        Self { does, inner, metadata }
    }

    async fn as_the_library(
        &self,
        input: Collection,
        context: &EvaluationContext,
        arguments: &[ExpressionNode],
        evaluator: AsyncNodeEvaluator<'_>,
    ) -> Result<EvaluationResult> {
        // Of what has much below it that is much; it is told before it is there.
        if self.metadata.name == "descendants" {
            input.iter().try_for_each(|value| spend(below(value)))?;
        }
        spend(weight(&input))?;
        yielded(self.inner.evaluate_borrowed(input, context, arguments, evaluator).await?)
    }
}

#[async_trait]
impl LazyFunctionEvaluator for Lazy {
    fn prepare_no_args(&self) -> Option<Arc<dyn PureFunctionEvaluator>> {
        self.inner.prepare_no_args().map(|prepared| Arc::new(Counted(prepared)) as Arc<dyn PureFunctionEvaluator>)
    }

    async fn evaluate(
        &self,
        input: Collection,
        context: &EvaluationContext,
        arguments: Vec<ExpressionNode>,
        evaluator: AsyncNodeEvaluator<'_>,
    ) -> Result<EvaluationResult> {
        self.evaluate_borrowed(input, context, &arguments, evaluator).await
    }

    async fn evaluate_borrowed(
        &self,
        input: Collection,
        context: &EvaluationContext,
        arguments: &[ExpressionNode],
        evaluator: AsyncNodeEvaluator<'_>,
    ) -> Result<EvaluationResult> {
        let ([argument], true) = (arguments, self.does != Does::Else) else { return self.as_the_library(input, context, arguments, evaluator).await };
        let outer = hoist_into(context, arguments, input.len(), &evaluator).await?;
        let mut found = Vec::new();
        for (index, value) in input.iter().enumerate() {
            let inner = outer.create_child_context(Collection::single(value.clone()));
            inner.set_this(value.clone());
            inner.set_index(index);
            let result = evaluator.evaluate(argument, &inner).await?.value;
            spend(1 + weight(&result))?;
            let holds = !result.is_empty() && result.iter().all(|value| matches!(value, FhirPathValue::Boolean(true, ..)));
            match self.does {
                Does::Where if holds => found.push(value.clone()),
                Does::Select => found.extend(result),
                Does::Exists if holds => return Ok(boolean(true)),
                Does::All if !holds => return Ok(boolean(false)),
                Does::Where | Does::Exists | Does::All | Does::Else => {}
            }
        }
        Ok(match self.does {
            Does::Where | Does::Select | Does::Else => EvaluationResult { value: found.into() },
            Does::Exists => boolean(false),
            Does::All => boolean(true),
        })
    }

    fn metadata(&self) -> &FunctionMetadata {
        &self.metadata
    }
}

fn boolean(value: bool) -> EvaluationResult {
    EvaluationResult { value: Collection::single(FhirPathValue::boolean(value)) }
}
