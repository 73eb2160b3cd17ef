//! `/health`, and `/metrics` as Prometheus reads them.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpResponse, Responder};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry as Metered;

use super::App;
use super::serve::class_of;
use crate::sim::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    interaction: &'static str,
    status: &'static str,
}

/// What is measured.
pub struct Metrics {
    metered: Mutex<Metered>,
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
    simulators: Gauge,
    open: Gauge,
    registry: Arc<Registry>,
}

impl Metrics {
    pub fn new(registry: Arc<Registry>) -> Self {
        let mut metered = Metered::with_prefix("fhirsim");
        let requests = Family::default();
        let seconds = Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.000_05, 4.0, 9))) as fn() -> Histogram);
        let (simulators, open) = (Gauge::default(), Gauge::default());
        metered.register("requests", "Requests answered", requests.clone());
        metered.register("request_seconds", "Time from a request's arrival to its answer", seconds.clone());
        metered.register("simulators", "Simulators there are", simulators.clone());
        metered.register("simulators_open", "Simulators whose index is open", open.clone());
        Self { metered: Mutex::new(metered), requests, seconds, simulators, open, registry }
    }

    /// Counts a request.
    pub fn request(&self, interaction: &'static str, status: u16, took: Duration) {
        let labels = Labels { interaction, status: class_of(status) };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// `/metrics`.
pub async fn metrics(app: Data<App>) -> impl Responder {
    let metrics = &app.metrics;
    metrics.simulators.set(i64::try_from(metrics.registry.len()).unwrap_or(i64::MAX));
    metrics.open.set(i64::try_from(metrics.registry.open_count()).unwrap_or(i64::MAX));
    let mut text = String::new();
    match encode(&mut text, &metrics.metered.lock()) {
        Ok(()) => HttpResponse::Ok().content_type("application/openmetrics-text; version=1.0.0; charset=utf-8").body(text),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

/// `/health`: the server answers and its directory can be written.
pub async fn health(app: Data<App>) -> impl Responder {
    let writable = rustix::fs::access(app.registry.root(), rustix::fs::Access::WRITE_OK).is_ok();
    let body = serde_json::json!({"status": if writable { "ok" } else { "failing" }, "simulators": app.registry.len(), "version": env!("CARGO_PKG_VERSION")});
    if writable { HttpResponse::Ok().json(body) } else { HttpResponse::ServiceUnavailable().json(body) }
}
