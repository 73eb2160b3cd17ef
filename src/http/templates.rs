//! `/api/templates`: named states that simulators begin as.

use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Who;
use super::api::{Result, answer, named, shown_snapshot};
use super::archive::received;
use super::respond::Answer;
use super::{App, respond, routes};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::sim::instant::SnapshotInfo;
use crate::sim::templates::SESSION;

/// What a template shall be made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    from: String,
}

fn shown(name: &str, snapshot: &SnapshotInfo) -> Value {
    let mut value = shown_snapshot(snapshot);
    value["name"] = name.into();
    value
}

/// `GET /api/templates`: their names.
pub async fn list(app: Data<App>) -> HttpResponse {
    answer(move || Ok(Answer::json(200, &json!({"templates": app.registry.templates()?})))).await
}

/// `GET /api/templates/{name}`: what is in one.
pub async fn show(app: Data<App>, name: Path<String>) -> HttpResponse {
    answer(move || Ok(Answer::json(200, &shown(&name, &app.registry.template(&name)?.1)))).await
}

/// `PUT /api/templates/{name}`: of the archive in the body, or of a simulator that JSON names.
pub async fn put(request: HttpRequest, who: Who, app: Data<App>, name: Path<String>, body: Payload) -> HttpResponse {
    if let Err(failure) = who.may(SESSION, app.registry.sessions()) {
        return respond::failure(&failure, FhirVersion::default());
    }
    let is_json =
        routes::text(&request, actix_web::http::header::CONTENT_TYPE).is_some_and(|t| t.split(';').next().unwrap_or_default().trim().ends_with("json"));
    if is_json {
        let Ok(Ok(body)) = body.to_bytes_limited(routes::MANAGEMENT_BYTES).await else {
            return respond::failure(&Failure::new(Kind::TooLarge, "the body cannot be read, or is too large"), FhirVersion::default());
        };
        return answer(move || {
            let bad = |e| {
                Failure::new(Kind::BadValue, format!("the body cannot be read: {e}; send {{\"from\":\"lab__one@loaded\"}}, or an archive as application/zstd"))
            };
            let asked: Asked = serde_json::from_slice(&body).map_err(bad)?;
            let (from, snapshot) = named(&asked.from)?;
            who.may_use(&from, &app)?;
            Ok(Answer::json(201, &shown(&name, &app.registry.make_template(&name, &from, snapshot)?)))
        })
        .await;
    }
    received(app.options.read_timeout, body, move |archive| -> Result<Value> { Ok(shown(&name, &app.registry.upload_template(&name, archive)?)) }).await
}

/// `DELETE /api/templates/{name}`.
pub async fn delete(who: Who, app: Data<App>, name: Path<String>) -> HttpResponse {
    answer(move || {
        who.may(SESSION, app.registry.sessions())?;
        app.registry.delete_template(&name)?;
        Ok(Answer { status: 204, ..Answer::default() })
    })
    .await
}
