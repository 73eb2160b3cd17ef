//! SMART Backend Services, <https://hl7.org/fhir/smart-app-launch/backend-services.html>: clients, their signed assertions, access
//! tokens, scopes. What is decided here knows no HTTP and no simulator; a library does the cryptography.
//!
//! A client is its `client_id`: a JWT that carries its keys, or their URL. Whoever made it, it is decoded and not verified, as the
//! reference server for bulk data does; what is verified is that the assertion is signed by one of those keys.

pub mod scope;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fhir::id::clip;

pub use scope::{SUBMITS, Scope, Verdict, allows};

/// The one type of assertion there is, RFC 7523.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How far a client's clock may be off, in seconds.
const SKEW_S: u64 = 60;
/// The longest that an assertion may be good for, in seconds, by the clock of whoever checks it strictly.
const LONGEST_S: i64 = 300;
/// Most keys of a client, and most of one name: each is tried.
const MAX_KEYS: usize = 100;
const SAME_NAME: usize = 4;
/// Longest assertion, with the `client_id` that carries the keys in it, twice.
const MAX_ASSERTION: usize = 256 << 10;
/// How an assertion may be signed.
const ALGORITHMS: [Algorithm; 8] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512, Algorithm::ES256, Algorithm::ES384];

/// A refusal as OAuth has it, RFC 6749: the code, and for people why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// `invalid_request` and so on.
    pub error: &'static str,
    /// Why.
    pub description: String,
}

impl Refused {
    /// One.
    pub fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { error, description: description.into() }
    }
}

/// What a `client_id` carries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Registration {
    /// Its keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Value>,
    /// Where they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Minutes that its tokens are good for.
    #[serde(rename = "accessTokensExpireIn", skip_serializing_if = "Option::is_none")]
    pub minutes: Option<u32>,
    /// What shall go wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err: Option<String>,
    /// When it was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
}

/// The claims of an assertion.
#[derive(Clone, Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    #[serde(deserialize_with = "seconds")]
    exp: i64,
    #[serde(default, deserialize_with = "maybe_seconds")]
    iat: Option<i64>,
    #[serde(default, deserialize_with = "maybe_seconds")]
    nbf: Option<i64>,
    #[serde(default)]
    jti: Option<String>,
}

/// A NumericDate, which may have a fraction, RFC 7519.
fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    use serde::de::Error as _;
    maybe_seconds(from)?.ok_or_else(|| D::Error::custom("a time is missing"))
}

fn maybe_seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    use serde::de::Error as _;
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Number(number) => {
            let whole = number.as_i64().or_else(|| number.to_string().split(['.', 'e', 'E']).next().and_then(|whole| whole.parse().ok()));
            whole.filter(|s| s.unsigned_abs() < 1 << 40).map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no time in seconds")))
        }
        other => Err(D::Error::custom(format!("{other} is no time in seconds"))),
    }
}

/// A client that has shown who it is.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it registered as.
    pub registration: Registration,
    /// Its `client_id`.
    pub id: String,
    /// When its assertion ends, in seconds since 1970.
    pub expires: i64,
    /// The id of its assertion, which is good once.
    pub jti: Option<String>,
}

/// What an assertion must be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The URL of the token endpoint.
    pub token_url: &'a str,
    /// Whether `jti` and `iat` must be there, and the assertion be good for five minutes at most.
    pub strict: bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// The payload of a JWT, decoded and not verified.
#[must_use]
pub fn payload(jwt: &str) -> Option<Value> {
    part(jwt, 1)
}

/// One of the first two of the three parts of a JWT.
fn part(jwt: &str, which: usize) -> Option<Value> {
    use base64::Engine as _;
    let parts: Vec<&str> = jwt.splitn(4, '.').collect();
    let text = parts.get(which).filter(|_| parts.len() >= 3)?.trim_end_matches('=');
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// The client that an assertion says it is of; nothing is proved yet.
///
/// # Errors
/// It cannot be read.
pub fn claimed(assertion: &str) -> Result<Registration, Refused> {
    if assertion.len() > MAX_ASSERTION {
        return Err(Refused::new("invalid_request", format!("the client_assertion has {} characters; {MAX_ASSERTION} are the most", assertion.len())));
    }
    let unreadable = |what: &str| Refused::new("invalid_request", format!("the client_assertion cannot be read: {what}"));
    let claims = payload(assertion).ok_or_else(|| unreadable("it is no JWT"))?;
    let subject = claims.get("sub").and_then(Value::as_str).ok_or_else(|| unreadable("it has no sub, which is the client_id"))?;
    let registration = payload(subject).ok_or_else(|| {
        Refused::new("invalid_request", "the sub of the client_assertion is no client_id: that is a JWT that carries jwks or jwks_url; register to get one")
    })?;
    let registration: Registration =
        serde_json::from_value(registration).map_err(|e| Refused::new("invalid_request", format!("the client_id cannot be read: {e}")))?;
    if registration.jwks.is_none() && registration.jwks_url.is_none() {
        return Err(Refused::new("invalid_request", "the client_id carries neither jwks nor jwks_url"));
    }
    Ok(registration)
}

/// Proves an assertion by the keys of the client that it says it is of.
///
/// # Errors
/// What is wrong with it.
pub fn prove(assertion: &str, registration: Registration, keys: &Value, expected: Expected<'_>) -> Result<Client, Refused> {
    let grant = |why: String| Refused::new("invalid_grant", why);
    let header = decode_header(assertion).map_err(|e| Refused::new("invalid_request", format!("the header of the client_assertion cannot be read: {e}")))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(grant(format!("the client_assertion is signed by {:?}; sign by RS384 or ES384", header.alg)));
    }
    // RFC 7515, 4.1.11.
    if part(assertion, 0).is_some_and(|header| header.get("crit").is_some()) {
        return Err(grant("the header of the client_assertion has crit; no extension is understood here".to_owned()));
    }
    if let Some(jku) = &header.jku
        && registration.jwks_url.as_ref() != Some(jku)
    {
        return Err(grant(format!("the jku of the client_assertion, '{}', is not the jwks_url that the client registered", clip(jku))));
    }
    let kid = header.kid.as_deref().ok_or_else(|| grant("the header of the client_assertion has no kid".to_owned()))?;
    let candidates = usable(keys)?;
    let of_name: Vec<&Jwk> = candidates.iter().filter(|key| key.common.key_id.as_deref() == Some(kid)).collect();
    if of_name.len() > SAME_NAME {
        return Err(grant(format!("{} of the client's keys have the kid '{}'; at most {SAME_NAME} are tried", of_name.len(), clip(kid))));
    }
    if let Some(bits) = of_name.iter().filter_map(|key| rsa_bits(key)).find(|bits| *bits < MIN_RSA_BITS) {
        return Err(grant(format!("the client's key '{}' has {bits} bits; an RSA key has at least {MIN_RSA_BITS}, RFC 7518, 3.3", clip(kid))));
    }
    let of_name: Vec<&Jwk> = of_name.into_iter().filter(|key| is_of(key, header.alg)).collect();
    if of_name.is_empty() {
        return Err(grant(format!("none of the client's {} keys that verify has the kid '{}' and is for {:?}", candidates.len(), clip(kid), header.alg)));
    }
    let mut validation = Validation::new(header.alg);
    validation.leeway = SKEW_S;
    // Compared below, for the scheme does not count.
    (validation.validate_aud, validation.validate_exp) = (false, false);
    // Whole numbers are asked for by the library, and not by RFC 7519: these are looked at below, too.
    validation.set_required_spec_claims::<&str>(&[]);
    let mut why = "the client_assertion is signed by no key of the client".to_owned();
    for key in of_name {
        let Ok(key) = DecodingKey::from_jwk(key) else { continue };
        match decode::<Value>(assertion, &key, &validation) {
            Ok(found) => return accepted(found.claims, registration, expected),
            Err(error) => why = format!("the client_assertion is not valid: {error}"),
        }
    }
    Err(grant(why))
}

/// Fewest bits of an RSA key.
const MIN_RSA_BITS: usize = 2_048;

fn rsa_bits(key: &Jwk) -> Option<usize> {
    use base64::Engine as _;
    let AlgorithmParameters::RSA(rsa) = &key.algorithm else { return None };
    let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(rsa.n.trim_end_matches('=')).ok()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    Some((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// Whether a key may be used with an algorithm: it may say itself with which, RFC 7517, 4.4.
fn is_of(key: &Jwk, algorithm: Algorithm) -> bool {
    key.common.key_algorithm.is_none_or(|own| own.to_string() == format!("{algorithm:?}"))
}

/// The keys that can verify; a set may hold private ones, and ones for other uses.
fn usable(keys: &Value) -> Result<Vec<Jwk>, Refused> {
    if keys.get("keys").and_then(Value::as_array).is_some_and(|keys| keys.len() > MAX_KEYS) {
        return Err(Refused::new("invalid_grant", format!("the client has more than {MAX_KEYS} keys")));
    }
    let listed = keys.get("keys").and_then(Value::as_array).ok_or_else(|| Refused::new("invalid_grant", "the client's keys are no JWKS: {\"keys\":[…]}"))?;
    let verifies = |key: &Jwk| {
        let is_for_it = key.common.public_key_use.as_ref().is_none_or(|wanted| *wanted == PublicKeyUse::Signature);
        is_for_it && key.common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify))
    };
    Ok(listed.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok()).filter(verifies).collect())
}

fn accepted(claims: Value, registration: Registration, expected: Expected<'_>) -> Result<Client, Refused> {
    let grant = |why: String| Refused::new("invalid_grant", why);
    let of_url = |url: &str| url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/').to_owned();
    let audience: Vec<String> = match &claims["aud"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(all) => all.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    if !audience.iter().any(|aud| of_url(aud) == of_url(expected.token_url)) {
        return Err(grant(format!("the aud of the client_assertion is '{}', and the token endpoint is {}", clip(&audience.join(" ")), expected.token_url)));
    }
    let claims: Claims = serde_json::from_value(claims).map_err(|e| grant(format!("the claims of the client_assertion cannot be read: {e}")))?;
    let skew = SKEW_S.cast_signed();
    if claims.exp.saturating_add(skew) < expected.now {
        return Err(grant(format!("the client_assertion has expired {} s ago", expected.now - claims.exp)));
    }
    if claims.nbf.is_some_and(|nbf| nbf > expected.now.saturating_add(skew)) {
        return Err(grant("the client_assertion is not good yet: its nbf lies in the future".to_owned()));
    }
    if claims.iss != claims.sub {
        return Err(grant("the iss of the client_assertion is not its sub; both are the client_id".to_owned()));
    }
    if expected.strict {
        if claims.jti.as_deref().is_none_or(str::is_empty) {
            return Err(grant("the client_assertion has no jti".to_owned()));
        }
        if claims.exp - expected.now > LONGEST_S + skew {
            return Err(grant(format!("the client_assertion is good for {} s; five minutes are the most", claims.exp - expected.now)));
        }
        if claims.iat.is_none_or(|iat| iat > expected.now + skew) {
            return Err(grant("the client_assertion has no iat, or one in the future".to_owned()));
        }
    }
    Ok(Client { registration, id: claims.sub, expires: claims.exp, jti: claims.jti })
}

/// The claims of an access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The simulator that it is good for.
    pub sim: String,
    /// When that was made: the token is not good for another of its name.
    pub made: String,
    /// Who has it: the beginning of the SHA-256 of the `client_id`, which itself is long.
    pub client: String,
    /// What it allows.
    pub scope: String,
    /// Seconds since 1970.
    pub iat: i64,
    /// The same.
    pub exp: i64,
    /// What shall go wrong when it is shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub err: Option<String>,
}

impl Access {
    /// The token, signed.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, key_pem: &str) -> Result<String, String> {
        let key = EncodingKey::from_ed_pem(key_pem.as_bytes()).map_err(|e| e.to_string())?;
        encode(&Header::new(Algorithm::EdDSA), self, &key).map_err(|e| e.to_string())
    }

    /// Proves a token that was shown; its end is for the caller to look at.
    ///
    /// # Errors
    /// It is none of this server.
    pub fn prove(token: &str, public_pem: &str) -> Result<Self, String> {
        let key = DecodingKey::from_ed_pem(public_pem.as_bytes()).map_err(|e| e.to_string())?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.set_required_spec_claims::<&str>(&[]);
        decode::<Self>(token, &key, &validation).map(|found| found.claims).map_err(|e| e.to_string())
    }
}

/// A `client_id` for who registers.
///
/// # Errors
/// The key cannot sign; the keys are none.
pub fn register(registration: &Registration, key_pem: &str) -> Result<String, Refused> {
    if let Some(keys) = &registration.jwks
        && usable(keys).map_or(true, |keys| keys.is_empty())
    {
        return Err(Refused::new("invalid_request", "jwks holds no key that can be used: {\"keys\":[{\"kty\":\"RSA\",…}]}"));
    }
    let failed = |e: jsonwebtoken::errors::Error| Refused::new("server_error", e.to_string());
    let key = EncodingKey::from_ed_pem(key_pem.as_bytes()).map_err(failed)?;
    let header = Header { kid: Some("registration-token".to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, registration, &key).map_err(failed)
}

/// What may be shown of a token: its claims, never what makes it good.
#[must_use]
pub fn shown(access: &Access) -> Map<String, Value> {
    match serde_json::to_value(access) {
        Ok(Value::Object(claims)) => claims,
        _ => Map::new(),
    }
}
