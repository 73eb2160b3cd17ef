//! All URLs of the server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_cors::Cors;
use actix_web::dev::ServerHandle;
use actix_web::http::header;
use actix_web::middleware::Compress;
use actix_web::{App as ActixApp, HttpServer, web};

use super::{
    App, Options, Pages, access, api, archive, bulk, events, evidence, explain, faults, metrics, pages, resend, respond, serve, sessions, smart, stream,
    templates, usage,
};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::sim::Registry;

/// Headers that a script in a browser may read.
const EXPOSED: [&str; 11] = [
    "ETag",
    "Location",
    "Last-Modified",
    "Content-Location",
    "X-Fhirsim-Event",
    "X-Request-Id",
    "X-Progress",
    "Retry-After",
    "Expires",
    "Preference-Applied",
    "X-Export-Status",
];

/// Most bytes of a body that is not for a FHIR endpoint.
pub(super) const MANAGEMENT_BYTES: usize = 1 << 20;

/// What the framework cannot read is refused in this server's own words.
fn refusals(config: &mut web::ServiceConfig) {
    fn refuse(what: &str, error: &dyn std::fmt::Display) -> actix_web::Error {
        let failure = Failure::new(Kind::BadValue, format!("{what}: {error}"));
        let answer = respond::failure(&failure, FhirVersion::default());
        actix_web::error::InternalError::from_response(failure, answer).into()
    }
    config
        .app_data(web::QueryConfig::default().error_handler(|e, _| refuse("the query cannot be read", &e)))
        .app_data(web::PathConfig::default().error_handler(|e, _| refuse("the path cannot be read", &e)))
        .app_data(web::FormConfig::default().error_handler(|e, _| refuse("the form cannot be read", &e)));
}

/// Every URL.
pub fn configure(config: &mut web::ServiceConfig) {
    let cors = Cors::default().allow_any_origin().send_wildcard().allow_any_method().allow_any_header().expose_headers(EXPOSED).max_age(3_600);
    config
        .service(web::scope("/sim").wrap(cors).wrap(Compress::default()).default_service(web::to(serve::serve)))
        .configure(management)
        .route("/health", web::get().to(metrics::health))
        .route("/metrics", web::get().to(metrics::metrics))
        .service(
            web::scope("")
                .wrap(actix_web::middleware::from_fn(access::guard))
                .route("/", web::get().to(pages::index))
                .route("/", web::post().to(pages::create))
                .route("/style.css", web::get().to(pages::style))
                .route("/live.js", web::get().to(pages::script))
                .route("/sims/{id}", web::get().to(pages::sim))
                .route("/sims/{id}", web::post().to(pages::press))
                .route("/sims/{id}/events/{event}", web::get().to(pages::event))
                .route("/sims/{id}/events/{event}", web::post().to(pages::send_again))
                .route("/sims/{id}/resources", web::get().to(pages::browse::types))
                .route("/sims/{id}/resources/{type}", web::get().to(pages::browse::search))
                .route("/sims/{id}/resources/{type}/{resource}", web::get().to(pages::browse::resource))
                .route("/sims/{id}/usage", web::get().to(pages::used::usage))
                .default_service(web::to(pages::nothing_here)),
        );
}

/// What is below `/api`.
fn management(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/api")
            .wrap(actix_web::middleware::from_fn(access::guard))
            .route("/openapi.json", web::get().to(api::openapi))
            .route("/signing-key", web::get().to(evidence::signing_key))
            .route("/templates", web::get().to(templates::list))
            .service(
                web::resource("/templates/{name}")
                    .get(templates::show)
                    .put(templates::put)
                    .delete(templates::delete)
                    .default_service(web::to(api::not_allowed)),
            )
            .route("/sessions", web::get().to(sessions::list))
            .service(
                web::resource("/sessions/{session}").get(sessions::show).put(sessions::put).delete(sessions::delete).default_service(web::to(api::not_allowed)),
            )
            .service(web::resource("/sims").get(api::list).post(api::create).default_service(web::to(api::not_allowed)))
            .service(web::resource("/sims/{id}").get(api::show).put(api::put).patch(api::change).delete(api::delete).default_service(web::to(api::not_allowed)))
            .route("/sims/{id}/reset", web::post().to(api::reset))
            .service(web::resource("/sims/{id}/snapshots").get(api::snapshots).post(api::take_snapshot).default_service(web::to(api::not_allowed)))
            .route("/sims/{id}/snapshots/{name}", web::delete().to(api::delete_snapshot))
            .service(web::resource("/sims/{id}/faults").get(faults::list).put(faults::put).delete(faults::clear).default_service(web::to(api::not_allowed)))
            .route("/sims/{id}/reindex", web::post().to(api::reindex))
            .route("/sims/{id}/events", web::get().to(events::events))
            .route("/sims/{id}/events/{event}", web::get().to(events::event))
            .route("/sims/{id}/events/{event}/files/{file}", web::get().to(events::event_file))
            .service(web::resource("/sims/{id}/archive").get(archive::export).put(archive::import).default_service(web::to(api::not_allowed)))
            .service(web::resource("/sims/{id}/retention").get(api::retention).post(api::retain).default_service(web::to(api::not_allowed)))
            .route("/sims/{id}/exports", web::get().to(bulk::list))
            .route("/sims/{id}/token", web::post().to(smart::mint))
            .route("/sims/{id}/replay", web::post().to(resend::replay))
            .route("/sims/{id}/coverage", web::get().to(usage::coverage))
            .route("/sims/{id}/traffic", web::get().to(usage::traffic))
            .route("/sims/{id}/evidence", web::get().to(evidence::evidence))
            .route("/sims/{id}/har", web::get().to(events::har))
            .route("/sims/{id}/diff", web::get().to(events::diff))
            .route("/sims/{id}/stream", web::get().to(stream::stream))
            .service(web::resource("/sims/{id}/markers").get(events::markers).post(events::mark).default_service(web::to(api::not_allowed)))
            .route("/sims/{id}/markers/{name}", web::delete().to(events::unmark))
            .route("/sims/{id}/log", web::get().to(api::log))
            .route("/sims/{id}/explain", web::get().to(explain::explain))
            .route("/sims/{id}/indexed/{type}/{resource}", web::get().to(explain::indexed))
            .default_service(web::to(api::nothing_here)),
    );
}

/// A server that listens.
pub struct Server {
    /// Where it listens, with the port the system gave.
    pub addr: SocketAddr,
    /// Ends it.
    pub handle: ServerHandle,
    /// To be told first: requests that wait for events then answer, and streams end.
    pub stopping: tokio::sync::watch::Sender<bool>,
    /// Runs it; to be awaited or spawned.
    pub running: actix_web::dev::Server,
}

/// Listens and makes ready to serve.
///
/// # Errors
/// The address cannot be had.
pub fn start(registry: Arc<Registry>, options: Options) -> io::Result<Server> {
    let listener = TcpListener::bind(options.addr)?;
    let addr = listener.local_addr()?;
    let pages = Pages::new().map_err(io::Error::other)?;
    let metrics = metrics::Metrics::new(registry.clone());
    let (stopping, is_stopping) = tokio::sync::watch::channel(false);
    let (workers, read_timeout) = (options.workers, options.read_timeout);
    let used = super::smart::Used::open(registry.root())?;
    let state = web::Data::new(App {
        registry,
        options: Options { addr, ..options },
        pages,
        metrics,
        lane: super::lane::Lane::new()?,
        readers: super::readers::Readers::new(),
        keys: super::smart::Known::default(),
        jobs: Arc::default(),
        used,
        stopping: is_stopping,
    });

    let (app, runtime) = (state.clone(), tokio::runtime::Handle::try_current().map_err(io::Error::other)?);
    std::thread::Builder::new().name("bulk".into()).spawn(move || super::bulk::go_on(&app, &runtime))?;
    let mut server = HttpServer::new(move || {
        ActixApp::new().app_data(state.clone()).app_data(web::PayloadConfig::new(MANAGEMENT_BYTES)).configure(refusals).configure(configure)
    })
    .on_connect(faults::on_connect)
    .keep_alive(std::time::Duration::from_secs(75))
    .client_request_timeout(read_timeout)
    .shutdown_timeout(10)
    .disable_signals();
    if workers > 0 {
        server = server.workers(workers);
    }
    let running = server.listen(listener)?.run();
    Ok(Server { addr, handle: running.handle(), stopping, running })
}

/// The value of a header, if it is text.
pub(super) fn text(request: &actix_web::HttpRequest, name: impl header::AsHeaderName) -> Option<&str> {
    request.headers().get(name).and_then(|v| v.to_str().ok())
}
