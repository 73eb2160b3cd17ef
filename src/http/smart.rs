//! SMART Backend Services of a simulator: its configuration, registration of clients, tokens.

mod fetch;
mod used;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::{Method, header};
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use base64::Engine as _;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::used::Used;
use super::api::{Result, answer};
use super::context::SimContext;
use super::negotiate::Format;
use super::respond::Answer;
use super::serve::method_name;
use super::{App, faults, policy, routes, secrets};
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind};
use crate::interaction::target::pairs;
use crate::sim::faults::Fault;
use crate::sim::log::Waiting;
use crate::sim::profile::BULK_TYPE;
use crate::sim::usage::Seen;
use crate::sim::{Profile, Sim};
use crate::simdb::SimId;
use crate::smart::{self, ASSERTION_TYPE, Access, Expected, Refused, Registration, Scope};

/// Longest that an assertion is good for, in seconds; the specification has five minutes.
const LONGEST: i64 = 24 * 60 * 60;

/// The keys of a simulator.
#[derive(Debug)]
pub struct Keys {
    /// PEM.
    pub secret: String,
    /// PEM.
    pub public: String,
    /// The public one as others read it, RFC 8037.
    jwk: Value,
}

/// Most simulators whose keys are remembered.
const MAX_KEYS: usize = 10_000;

/// The keys of simulators that were asked for, each with when it was made.
pub type Known = Mutex<HashMap<(SimId, String), Arc<Keys>>>;

impl Keys {
    /// Those of a simulator, as it was made.
    pub fn of(sim: &Sim, app: &App) -> Result<Arc<Self>> {
        let made = (sim.id().clone(), sim.profile().created.clone());
        if let Some(keys) = app.keys.lock().get(&made) {
            return Ok(keys.clone());
        }
        let key = app.registry.signing_key()?.of_sim(&made.0, &made.1);
        let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key.public_bytes());
        let kid = &base16ct::lower::encode_string(&Sha256::digest(key.public_bytes()))[..16];
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": "sig", "alg": "EdDSA"});
        let keys = Arc::new(Self { secret: key.secret()?, public: key.public()?, jwk });
        let mut known = app.keys.lock();
        if known.len() >= MAX_KEYS {
            known.clear();
        }
        known.insert(made, keys.clone());
        Ok(keys)
    }
}

/// As events call what is asked for at a path.
#[must_use]
pub fn name_of(tail: &str) -> &'static str {
    match tail.trim_end_matches('/') {
        "register" => "register",
        "token" => "token",
        tail if tail.starts_with(".well-known/") => "smart-configuration",
        _ => "unknown",
    }
}

/// Answers what is below `/auth`, and below `/fhir/.well-known`.
pub async fn serve(request: &HttpRequest, body: Bytes, context: &SimContext, app: Data<App>, started: Instant) -> HttpResponse {
    let (asked, method) = (context.tail.trim_end_matches('/').to_owned(), request.method().clone());
    let is_form = routes::text(request, header::CONTENT_TYPE)
        .and_then(|t| t.split(';').next())
        .is_some_and(|t| t.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let (sim, root, life) = (context.sim.clone(), context.root.clone(), context.knobs.as_ref().and_then(|k| k.tlt));
    let who = (asked == "token").then(|| claims_in(&body)).flatten();
    let work = move || {
        let form = Form { pairs: pairs(std::str::from_utf8(&body).unwrap_or_default()), is_form };
        match (method.as_str(), asked.as_str()) {
            ("GET" | "HEAD", ".well-known/smart-configuration") => ("smart-configuration", Answer::json(200, &configuration(&root, &sim.profile()))),
            ("GET" | "HEAD", ".well-known/jwks.json") => {
                ("smart-configuration", Keys::of(&sim, &app).map_or_else(|f| server_error(&f), |keys| Answer::json(200, &json!({"keys": [&keys.jwk]}))))
            }
            ("POST", "register") => ("register", register(&form, &sim, &app).unwrap_or_else(|r| refusal(&r))),
            ("POST", "token") => ("token", token(&form, &root, life, &sim, &app).unwrap_or_else(|r| refusal(&r))),
            (_, "register" | "token") => {
                ("unknown", Answer { status: 405, ..refusal(&Refused::new("invalid_request", "POST a form here")) }.with("allow", "POST"))
            }
            _ => {
                let known = "GET …/fhir/.well-known/smart-configuration, …/fhir/.well-known/jwks.json, POST …/auth/register, …/auth/token";
                (
                    "unknown",
                    Answer::refusal(
                        &Failure::new(Kind::NotFound, format!("nothing is at '{}'; there are {known}", clip(&asked))),
                        FhirVersion::default(),
                        &Format::default(),
                    ),
                )
            }
        }
    };
    let (name, answer) = web::block(work).await.unwrap_or_else(|e| ("unknown", server_error(&Failure::new(Kind::Internal, e.to_string()))));
    let event = note(&context.sim, request, name, &answer, who, started);
    answer.with("cache-control", "no-store").with("pragma", "no-cache").into_response(Some(&event), None, *request.method() == Method::HEAD)
}

/// What the assertion in a form says of itself, proven or not, without what makes it good.
fn claims_in(form: &[u8]) -> Option<Value> {
    let pairs = pairs(std::str::from_utf8(form).ok()?);
    let claims = smart::payload(&pairs.iter().find(|(name, _)| name == "client_assertion")?.1)?;
    let shown = |value: &Value| value.as_str().map_or_else(|| value.clone(), |text| clip(text).into());
    let named = claims.as_object()?.iter().filter(|(name, _)| ["iss", "sub", "aud", "exp", "iat", "jti"].contains(&name.as_str()));
    let claims: serde_json::Map<String, Value> = named.map(|(name, value)| (name.clone(), shown(value))).collect();
    Some(json!({"assertion": claims}))
}

/// Takes note of what is no interaction with resources, in the request log; returns the id there.
pub(super) fn note(sim: &Sim, request: &HttpRequest, interaction: &'static str, answer: &Answer, who: Option<Value>, started: Instant) -> String {
    let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let at_ms = sim.now_ms();
    let fault = request.extensions().get::<Fault>().cloned();
    let status = fault.as_ref().map_or(answer.status, |fault| faults::status_of(fault, answer.status));
    sim.usage.saw(&Seen { type_name: "", interaction, parameters: &[], status, took_us, at_ms });
    let url = secrets::url(request, sim.profile().settings.redact).into();
    let entry = Waiting {
        event: None,
        number: 0,
        at_ms,
        interaction,
        method: method_name(request.method()),
        url,
        status,
        duration_us: took_us,
        client: request.peer_addr().map(|a| a.ip()),
        why: answer.why().map(Into::into),
        authorization: who.map(Box::new),
        fault: fault.map(|fault| fault.rule.into()),
    };
    let number = sim.log.push(entry, |entry| sim.feed.tell(|| crate::sim::feed::Happening::Read(Box::new(entry.shown()))));
    format!("log-{number}")
}

fn server_error(failure: &Failure) -> Answer {
    Answer { status: 500, ..refusal(&Refused::new("server_error", failure.diagnostics.clone())) }
}

/// As RFC 6749 has it.
fn refusal(refused: &Refused) -> Answer {
    let status = if refused.error == "invalid_client" { 401 } else { 400 };
    Answer::json(status, &json!({"error": refused.error, "error_description": refused.description}))
}

fn configuration(root: &str, profile: &Profile) -> Value {
    let mut scopes = vec!["system/*.rs".to_owned(), "system/*.read".to_owned()];
    if profile.sim_type != BULK_TYPE {
        scopes.extend(["system/*.cruds".to_owned(), "system/*.write".to_owned()]);
    }
    scopes.extend(Definitions::of(profile.version()).resource_types().iter().map(|t| format!("system/{t}.rs")));
    json!({
        "token_endpoint": format!("{root}/auth/token"),
        "registration_endpoint": format!("{root}/auth/register"),
        "jwks_uri": format!("{root}/fhir/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384", "RS256", "RS512", "ES256", "PS256", "PS384", "PS512"],
        "scopes_supported": scopes,
        "capabilities": ["permission-v2", "permission-v1", "client-confidential-asymmetric"],
    })
}

/// What was posted.
struct Form {
    pairs: Vec<(String, String)>,
    is_form: bool,
}

impl Form {
    fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    fn proven(&self) -> std::result::Result<(), Refused> {
        if self.is_form { Ok(()) } else { Err(Refused::new("invalid_request", "send a form: Content-Type: application/x-www-form-urlencoded")) }
    }
}

/// `POST …/auth/register`: answers with the `client_id`.
fn register(form: &Form, sim: &Sim, app: &App) -> std::result::Result<Answer, Refused> {
    form.proven()?;
    let invalid = |why: &str| Refused::new("invalid_request", why);
    let (keys, url) = (form.get("jwks"), form.get("jwks_url"));
    if keys.is_empty() == url.is_empty() {
        return Err(invalid("send either jwks, the keys as JSON, or jwks_url"));
    }
    let jwks = if keys.is_empty() { None } else { Some(serde_json::from_str(keys).map_err(|e| invalid(&format!("jwks is no JSON: {e}")))?) };
    let minutes = match form.get("dur") {
        "" => None,
        text => Some(text.parse().map_err(|_| invalid(&format!("dur '{}' is no number of minutes", clip(text))))?),
    };
    let registration = Registration {
        jwks,
        jwks_url: (!url.is_empty()).then(|| url.to_owned()),
        minutes,
        err: Some(form.get("err").to_owned()).filter(|err| !err.is_empty()),
        iat: Some(sim.now_ms().div_euclid(1_000)),
    };
    let keys = Keys::of(sim, app).map_err(|f| Refused::new("server_error", f.diagnostics))?;
    Ok(Answer::of(200, "text/plain; charset=utf-8", smart::register(&registration, &keys.secret)?.into_bytes()))
}

/// `POST …/auth/token`.
fn token(form: &Form, root: &str, life: Option<u32>, sim: &Sim, app: &App) -> std::result::Result<Answer, Refused> {
    form.proven()?;
    match form.get("grant_type") {
        "client_credentials" => {}
        // Not as RFC 6749 has it, but as the reference server for bulk data answers.
        "" => return Err(Refused::new("invalid_grant", "grant_type is missing; send client_credentials")),
        other => return Err(Refused::new("unsupported_grant_type", format!("grant_type '{}' is not client_credentials", clip(other)))),
    }
    if form.get("client_assertion_type") != ASSERTION_TYPE {
        return Err(Refused::new("invalid_request", format!("client_assertion_type '{}' is not {ASSERTION_TYPE}", clip(form.get("client_assertion_type")))));
    }
    let assertion = form.get("client_assertion");
    let registration = smart::claimed(assertion)?;
    match registration.err.as_deref() {
        Some("token_invalid_token") => return Err(Refused::new("invalid_client", "the client is invalid: it registered to be told so")),
        Some("token_expired_registration_token") => {
            return Err(Refused::new("invalid_grant", "the registration has expired: the client registered to be told so"));
        }
        Some("token_invalid_scope") => return Err(Refused::new("invalid_scope", "the scope is invalid: the client registered to be told so")),
        Some("invalid_jti") => return Err(Refused::new("invalid_grant", "the jti is invalid: the client registered to be told so")),
        _ => {}
    }
    let profile = sim.profile();
    let now = sim.now_ms().div_euclid(1_000);
    let keys = match &registration.jwks {
        Some(keys) => keys.clone(),
        None => fetch::keys(registration.jwks_url.as_deref().unwrap_or_default(), app)?,
    };
    let token_url = format!("{root}/auth/token");
    // RFC 7521, 4.2.
    if ![String::new(), client_of(assertion)].iter().any(|id| id == form.get("client_id")) {
        return Err(Refused::new("invalid_request", "the client_id of the form is not the sub of the client_assertion; leave it out, or send that"));
    }
    let client = smart::prove(assertion, registration, &keys, Expected { token_url: &token_url, strict: profile.settings.smart.strict, now })?;
    let definitions = Definitions::of(profile.version());
    let scopes = Scope::parse_all(form.get("scope"), definitions, profile.sim_type != BULK_TYPE).map_err(|why| Refused::new("invalid_scope", why))?;
    policy::provable(&scopes, sim).map_err(|f| Refused::new("invalid_scope", f.diagnostics))?;
    let id = base16ct::lower::encode_string(&Sha256::digest(&client.id))[..16].to_owned();
    if client.expires > now.saturating_add(LONGEST) {
        let end = crate::clock::instant(client.expires.saturating_mul(1_000));
        return Err(Refused::new("invalid_grant", format!("the client_assertion is good until {end}, and may be for a day at most; five minutes are usual")));
    }
    if let Some(jti) = &client.jti {
        app.used.first(sim.id(), &format!("{id} {jti}"), client.expires.saturating_add(60), now)?;
    }
    let minutes = client.registration.minutes.or(life).unwrap_or(u32::MAX).min(profile.settings.smart.token_minutes);
    let lasts = (client.expires - now).min(i64::from(minutes) * 60).max(1);
    let access = Access {
        sim: sim.id().to_string(),
        made: profile.created.clone(),
        client: id,
        // As RFC 6749 writes it, 3.3.
        scope: form.get("scope").split_ascii_whitespace().collect::<Vec<_>>().join(" "),
        iat: now,
        exp: now + lasts,
        err: client.registration.err.clone(),
    };
    granted(&access, &client.id, lasts, sim, app)
}

/// The client that an assertion says it is of.
fn client_of(assertion: &str) -> String {
    smart::payload(assertion).and_then(|claims| claims["sub"].as_str().map(str::to_owned)).unwrap_or_default()
}

fn granted(access: &Access, client_id: &str, lasts: i64, sim: &Sim, app: &App) -> std::result::Result<Answer, Refused> {
    let failed = |why: String| Refused::new("server_error", why);
    let token = Keys::of(sim, app).map_err(|f| failed(f.diagnostics)).and_then(|keys| access.sign(&keys.secret).map_err(failed))?;
    Ok(Answer::json(200, &json!({"token_type": "bearer", "scope": access.scope, "client_id": client_id, "expires_in": lasts, "access_token": token})))
}

/// What a token that the management API makes shall allow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Minting {
    scope: String,
    #[serde(default)]
    minutes: Option<u32>,
}

/// `POST /api/sims/{id}/token`: a token for tests, without keys and assertions.
pub async fn mint(app: Data<App>, id: Path<String>, body: Bytes) -> HttpResponse {
    answer(move || {
        let bad = |why: String| Failure::new(Kind::BadValue, why);
        let asked: Minting =
            serde_json::from_slice(&body).map_err(|e| bad(format!("the body cannot be read: {e}; send {{\"scope\":\"system/*.rs\",\"minutes\":15}}")))?;
        let sim = app.registry.get(&id.parse()?)?;
        let profile = sim.profile();
        let scopes = Scope::parse_all(&asked.scope, Definitions::of(profile.version()), true).map_err(bad)?;
        policy::provable(&scopes, &sim)?;
        let now = sim.now_ms().div_euclid(1_000);
        let lasts = i64::from(asked.minutes.unwrap_or(profile.settings.smart.token_minutes)) * 60;
        let access = Access {
            sim: sim.id().to_string(),
            made: profile.created.clone(),
            client: "management".to_owned(),
            scope: asked.scope,
            iat: now,
            exp: now + lasts,
            err: None,
        };
        granted(&access, "management", lasts, &sim, &app).map_err(|r| Failure::new(Kind::Internal, r.description))
    })
    .await
}
