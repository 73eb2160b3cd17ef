//! `/api/sims/{id}/explain` and `/api/sims/{id}/indexed`: why a resource matches a search, and what it is found by.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Query};
use serde::Deserialize;

use super::App;
use super::api::{Result, answer};
use super::respond::Answer;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind, ResourceId};
use crate::interaction::Target;
use crate::interaction::search::{Request, explain as why};
use crate::interaction::target::{pairs, readable};
use crate::search::Search;
use crate::sim::Snapshot;

/// What is to be explained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// `Patient?name=joh`.
    query: Option<String>,
    /// `Patient/123`.
    resource: Option<String>,
}

/// `GET /api/sims/{id}/explain?query=…&resource=…`.
pub async fn explain(app: Data<App>, id: Path<String>, asked: Query<Asked>) -> HttpResponse {
    answer(move || {
        let id = id.parse()?;
        app.registry.read(&id, |sim| explained(&app, &sim.snapshot(), &asked))
    })
    .await
}

fn explained(app: &App, snapshot: &Snapshot, asked: &Asked) -> Result<Answer> {
    let missing = |name: &str| Failure::new(Kind::BadValue, format!("{name} is missing; ask …/explain?query=Patient?name=joh&resource=Patient/123"));
    let (query, resource) = (asked.query.as_deref().ok_or_else(|| missing("query"))?, asked.resource.as_deref().ok_or_else(|| missing("resource"))?);
    let (type_name, resource) = instance(resource, snapshot.definitions())?;
    let request = request(query, type_name, snapshot.definitions())?;
    let search = Search::parse(&request.parameters, request.scope(), snapshot.params())?;
    let explained = why::of_resource(&search, type_name, &resource, snapshot, app.registry.clock().now_ms())?;
    Ok(Answer::json(200, &explained))
}

/// `GET /api/sims/{id}/indexed/{type}/{resource}`.
pub async fn indexed(app: Data<App>, path: Path<(String, String, String)>) -> HttpResponse {
    answer(move || {
        let (id, type_name, resource) = path.into_inner();
        app.registry.read(&id.parse()?, |sim| {
            let snapshot = sim.snapshot();
            let type_name = snapshot.definitions().resource_type(&type_name)?;
            Ok(Answer::json(200, &why::indexed(type_name, &resource.parse()?, &snapshot)?))
        })
    })
    .await
}

fn instance(text: &str, definitions: &Definitions) -> Result<(&'static str, ResourceId)> {
    match Target::parse(text, definitions)? {
        Target::Instance(type_name, id) => Ok((type_name, id)),
        _ => Err(Failure::new(Kind::BadValue, format!("resource '{}' is not of the form Patient/123", clip(text)))),
    }
}

/// A search as its URL says it; without a path it is one of resources of `type_name`.
fn request(query: &str, type_name: &'static str, definitions: &Definitions) -> Result<Request> {
    let (path, parameters) = match query.split_once('?') {
        Some((path, parameters)) => (path, parameters),
        None if query.contains('=') => ("", query),
        None => (query, ""),
    };
    readable(parameters)?;
    let search = |type_name, compartment| Request { type_name, compartment, parameters: pairs(parameters), strict: false };
    match Target::parse(path, definitions)? {
        Target::System | Target::SystemSearch if path.is_empty() => {
            let system = pairs(parameters).iter().any(|(name, _)| name == "_type");
            Ok(search((!system).then_some(type_name), None))
        }
        Target::Type(type_name) | Target::TypeSearch(type_name) => Ok(search(Some(type_name), None)),
        Target::Compartment(of, id, type_name) | Target::CompartmentSearch(of, id, type_name) => Ok(search(type_name, Some((of, id)))),
        _ => Err(Failure::new(Kind::BadValue, format!("query '{}' is not a search such as Patient?name=joh", clip(query)))),
    }
}
