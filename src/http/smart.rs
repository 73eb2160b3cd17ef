//! SMART Backend Services of a simulator: its configuration, registration of clients, tokens.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::{Method, header};
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::{Result, answer};
use super::context::SimContext;
use super::negotiate::Format;
use super::respond::Answer;
use super::serve::{method_name, shown_url};
use super::{App, outbound, policy, routes};
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind};
use crate::interaction::target::pairs;
use crate::sim::log::Waiting;
use crate::sim::profile::BULK_TYPE;
use crate::sim::usage::Seen;
use crate::sim::{Profile, Sim};
use crate::simdb::SimId;
use crate::simdb::write::replace_file;
use crate::smart::{self, ASSERTION_TYPE, Access, Expected, Refused, Registration, Scope};

/// Most bytes of the keys that a URL answers with.
const KEYS_BYTES: u64 = 1 << 20;
/// Most assertions that are remembered as used.
const MAX_USED: usize = 100_000;

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

/// Which assertions were used, by simulator and `jti`, each until it ends, in seconds since 1970; a file remembers them over a
/// restart.
#[derive(Debug)]
pub struct Used {
    all: Mutex<HashMap<(SimId, String), i64>>,
    file: PathBuf,
}

impl Used {
    /// Those that `root` remembers.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(root: &std::path::Path) -> std::io::Result<Self> {
        let file = root.join(".assertions");
        let bytes = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let text = String::from_utf8_lossy(&bytes);
        // What was cut off when it was written was not answered.
        let all = text.lines().filter_map(|line| serde_json::from_str::<(String, String, i64)>(line).ok());
        let all = all.filter_map(|(sim, jti, ends)| Some(((sim.parse().ok()?, jti), ends))).collect();
        let used = Self { all: Mutex::new(all), file };
        if !text.is_empty() && !text.ends_with('\n') {
            used.keep(used.all.lock().iter(), true)?;
        }
        Ok(used)
    }

    /// Adds a line, or writes all anew.
    fn keep<'a>(&self, these: impl Iterator<Item = (&'a (SimId, String), &'a i64)>, anew: bool) -> std::io::Result<()> {
        let mut lines = these.map(|((sim, jti), ends)| json!([sim.as_str(), jti, ends]).to_string()).collect::<Vec<_>>().join("\n");
        if !lines.is_empty() {
            lines.push('\n');
        }
        if anew {
            return replace_file(&self.file, lines.as_bytes());
        }
        std::fs::File::options().create(true).append(true).open(&self.file)?.write_all(lines.as_bytes())
    }

    /// Takes note of one.
    fn first(&self, sim: &SimId, jti: &str, ends: i64, now: i64) -> std::result::Result<(), Refused> {
        let failed = |e: std::io::Error| Refused::new("server_error", format!("the assertion cannot be noted: {e}"));
        let mut used = self.all.lock();
        if used.len() >= MAX_USED {
            used.retain(|_, ends| *ends >= now);
            self.keep(used.iter(), true).map_err(failed)?;
        }
        if used.get(&(sim.clone(), jti.to_owned())).is_some_and(|ends| *ends >= now) {
            return Err(Refused::new(
                "invalid_grant",
                format!("the jti '{}' was used before; each assertion is good once", clip(jti.split_once(' ').map_or(jti, |(_, jti)| jti))),
            ));
        }
        if used.len() >= MAX_USED {
            return Err(Refused::new("invalid_grant", "more assertions are in use than this server remembers; try again in a minute"));
        }
        let this = (sim.clone(), jti.to_owned());
        self.keep(std::iter::once((&this, &ends)), false).map_err(failed)?;
        used.insert(this, ends);
        Ok(())
    }
}

/// Answers what is below `/auth`, and below `/fhir/.well-known`.
pub async fn serve(request: &HttpRequest, body: Bytes, context: &SimContext, app: Data<App>, started: Instant) -> HttpResponse {
    let (asked, method) = (context.tail.trim_end_matches('/').to_owned(), request.method().clone());
    let is_form = routes::text(request, header::CONTENT_TYPE)
        .and_then(|t| t.split(';').next())
        .is_some_and(|t| t.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let (sim, root, life) = (context.sim.clone(), context.root.clone(), context.knobs.as_ref().and_then(|k| k.tlt));
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
    let event = note(&context.sim, request, name, "", &answer, started);
    answer.with("cache-control", "no-store").into_response(Some(&event), None, *request.method() == Method::HEAD)
}

/// Takes note of what is no interaction with resources, in the request log; returns the id there.
pub(super) fn note(sim: &Sim, request: &HttpRequest, interaction: &'static str, type_name: &'static str, answer: &Answer, started: Instant) -> String {
    let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let at_ms = sim.now_ms();
    sim.usage.saw(&Seen { type_name, interaction, parameters: &[], status: answer.status, took_us, at_ms });
    let url = shown_url(request).into();
    let entry = Waiting {
        event: None,
        number: 0,
        at_ms,
        interaction,
        method: method_name(request.method()),
        url,
        status: answer.status,
        duration_us: took_us,
        client: request.peer_addr().map(|a| a.ip()),
        fault: None,
    };
    let number = sim.log.push(entry, |entry| sim.feed.tell(|| crate::sim::feed::Happening::Read(entry.shown())));
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
        None => fetched(registration.jwks_url.as_deref().unwrap_or_default(), app)?,
    };
    let token_url = format!("{root}/auth/token");
    let client = smart::prove(assertion, registration, &keys, Expected { token_url: &token_url, strict: profile.settings.smart.strict, now })?;
    let definitions = Definitions::of(profile.version());
    let scopes = Scope::parse_all(form.get("scope"), definitions, profile.sim_type != BULK_TYPE).map_err(|why| Refused::new("invalid_scope", why))?;
    policy::provable(&scopes, sim).map_err(|f| Refused::new("invalid_scope", f.diagnostics))?;
    let id = base16ct::lower::encode_string(&Sha256::digest(&client.id))[..16].to_owned();
    if let Some(jti) = &client.jti {
        app.used.first(sim.id(), &format!("{id} {jti}"), client.expires.saturating_add(60), now)?;
    }
    let minutes = client.registration.minutes.or(life).unwrap_or(u32::MAX).min(profile.settings.smart.token_minutes);
    let lasts = (client.expires - now).min(i64::from(minutes) * 60).max(1);
    let access = Access {
        sim: sim.id().to_string(),
        made: profile.created.clone(),
        client: id,
        scope: form.get("scope").to_owned(),
        iat: now,
        exp: now + lasts,
        err: client.registration.err.clone(),
    };
    granted(&access, &client.id, lasts, sim, app)
}

fn granted(access: &Access, client_id: &str, lasts: i64, sim: &Sim, app: &App) -> std::result::Result<Answer, Refused> {
    let failed = |why: String| Refused::new("server_error", why);
    let token = Keys::of(sim, app).map_err(|f| failed(f.diagnostics)).and_then(|keys| access.sign(&keys.secret).map_err(failed))?;
    Ok(Answer::json(200, &json!({"token_type": "bearer", "scope": access.scope, "client_id": client_id, "expires_in": lasts, "access_token": token})))
}

/// The keys at a URL, if the server may go there.
fn fetched(url: &str, app: &App) -> std::result::Result<Value, Refused> {
    let refused = |why: &dyn std::fmt::Display| Refused::new("invalid_grant", format!("the keys at '{}' cannot be had: {why}", clip(url)));
    outbound::permitted(url, app).map_err(|f| refused(&f.diagnostics))?;
    let agent = outbound::agent(outbound::configured().timeout_global(Some(std::time::Duration::from_secs(5))).build());
    let mut answer = agent.get(url).header("accept", "application/json").call().map_err(|e| refused(&e))?;
    if answer.status() != 200 {
        return Err(refused(&format!("the answer has status {}", answer.status().as_u16())));
    }
    let text = answer.body_mut().with_config().limit(KEYS_BYTES).read_to_string().map_err(|e| refused(&e))?;
    serde_json::from_str(&text).map_err(|e| refused(&e))
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
