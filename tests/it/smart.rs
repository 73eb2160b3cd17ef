//! SMART Backend Services: a client that shows who it is by its keys, and what its token allows.

use base64::Engine as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::{Client, Reply, TestServer, patient};

/// An EC key of this test alone, P-384, with its public half.
struct Key {
    pem: String,
    jwk: Value,
}

fn key(kid: &str) -> Key {
    use p384::elliptic_curve::Generate;
    use p384::elliptic_curve::sec1::ToSec1Point;
    use p384::pkcs8::EncodePrivateKey;
    let secret = p384::SecretKey::generate();
    let point = secret.public_key().to_sec1_point(false);
    let coded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let jwk =
        json!({"kty": "EC", "crv": "P-384", "kid": kid, "alg": "ES384", "x": coded(point.x().unwrap()), "y": coded(point.y().unwrap()), "key_ops": ["verify"]});
    Key { pem: secret.to_pkcs8_pem(p384::pkcs8::LineEnding::LF).unwrap().to_string(), jwk }
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

struct Setting {
    server: TestServer,
    key: Key,
    client_id: String,
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

impl Setting {
    fn new(sim_type: &str, smart: Value) -> Self {
        let server = TestServer::start();
        server.client().put("/api/sims/a__b", &json!({"type": sim_type, "settings": {"auth": "smart-backend", "smart": smart}})).expect(201);
        let key = key("k1");
        let mut private = key.jwk.clone();
        (private["kid"], private["key_ops"]) = (json!("k1"), json!(["sign"]));
        let keys = json!({"keys": [private, key.jwk]}).to_string();
        let client_id = Self::registered(&server, &[("jwks", &keys)]);
        Self { server, key, client_id }
    }

    fn registered(server: &TestServer, pairs: &[(&str, &str)]) -> String {
        let reply = server.client().send("POST", "/sim/a__b/auth/register", &[FORM], form(pairs).as_bytes()).expect(200);
        assert!(reply.header("content-type").starts_with("text/plain"));
        reply.text().to_owned()
    }

    fn token_url(&self) -> String {
        format!("{}/sim/a__b/auth/token", self.server.url())
    }

    fn claims(&self) -> Value {
        json!({"iss": self.client_id, "sub": self.client_id, "aud": self.token_url(), "exp": now() + 300, "jti": format!("{:?}", std::time::Instant::now())})
    }

    fn signed(&self, claims: &Value, header: Header) -> String {
        encode(&header, claims, &EncodingKey::from_ec_pem(self.key.pem.as_bytes()).unwrap()).unwrap()
    }

    fn assertion(&self, claims: &Value) -> String {
        self.signed(claims, Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES384) })
    }

    fn ask(&self, assertion: &str, scope: &str) -> Reply {
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
            ("scope", scope),
        ];
        self.server.client().send("POST", "/sim/a__b/auth/token", &[FORM], form(&pairs).as_bytes())
    }

    fn token(&self, scope: &str) -> String {
        let granted = self.ask(&self.assertion(&self.claims()), scope).expect(200).json();
        assert_eq!((&granted["token_type"], &granted["scope"], &granted["client_id"]), (&json!("bearer"), &json!(scope), &json!(self.client_id)));
        granted["access_token"].as_str().unwrap().to_owned()
    }

    fn fhir(&self, token: &str, method: &str, path: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.server.fhir("a__b").send(
            method,
            path,
            &[("authorization", &format!("Bearer {token}")), ("content-type", "application/fhir+json")],
            body.as_bytes(),
        )
    }
}

fn refused(reply: Reply) -> String {
    let value = reply.expect(400).json();
    assert!(value["error_description"].as_str().is_some_and(|d| !d.is_empty()), "{value}");
    value["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_client_finds_registers_and_gets_a_token() {
    let s = Setting::new("fhir", json!({}));
    let configuration = s.server.fhir("a__b").get("/.well-known/smart-configuration").expect(200).json();
    assert_eq!(configuration["token_endpoint"], s.token_url());
    assert!(configuration["token_endpoint_auth_signing_alg_values_supported"].as_array().unwrap().contains(&json!("RS384")));
    assert!(configuration["scopes_supported"].as_array().unwrap().contains(&json!("system/Patient.rs")));
    assert_eq!(s.server.fhir("a__b").get("/.well-known/jwks.json").expect(200).json()["keys"][0]["kty"], "OKP");
    let token = s.token("system/*.cruds");
    s.fhir(&token, "PUT", "/Patient/p", &patient("p", "A")).expect(201);
    s.fhir(&token, "GET", "/Patient/p", &Value::Null).expect(200);
    // What stands open.
    let security = s.server.fhir("a__b").get("/metadata").expect(200).json()["rest"][0]["security"].clone();
    assert_eq!(security["extension"][0]["extension"][0]["valueUri"], s.token_url());
    // Its claims are in the record, and nothing that makes it good.
    let event = s.server.client().get("/api/sims/a__b/events").json()["events"][0].clone();
    assert_eq!(event["authorization"]["claims"]["scope"], "system/*.cruds");
    assert!(!event.to_string().contains(token.rsplit('.').next().unwrap()));
    // Without one, or with another's.
    let missing = s.server.fhir("a__b").get("/Patient/p").expect(401);
    assert!(missing.header("www-authenticate").starts_with("Bearer") && missing.refusal().contains("access token"));
    let write = s.server.fhir("a__b").put("/Patient/q", &patient("q", "A")).expect(401).header("x-fhirsim-event").to_owned();
    assert!(s.server.client().get(&format!("/api/sims/a__b/events/{write}")).json()["authorization"]["refused"].as_str().unwrap().contains("missing"));
    s.fhir("nonsense", "GET", "/Patient/p", &Value::Null).expect(401);
    s.server.client().put("/api/sims/a__c", &json!({"settings": {"auth": "smart-backend"}})).expect(201);
    let of_another =
        s.server.client().post("/api/sims/a__c/token", &json!({"scope": "system/*.rs"})).expect(200).json()["access_token"].as_str().unwrap().to_owned();
    assert!(s.fhir(&of_another, "GET", "/Patient/p", &Value::Null).expect(401).refusal().contains("a__c"));
    let minted = s.server.client().post("/api/sims/a__b/token", &json!({"scope": "system/Patient.r", "minutes": 0})).expect(200).json();
    assert!(s.fhir(minted["access_token"].as_str().unwrap(), "GET", "/Patient/p", &Value::Null).expect(401).refusal().contains("expired"));
}

#[test]
fn a_token_allows_what_its_scopes_say_and_no_more() {
    let s = Setting::new("fhir", json!({}));
    let all = s.token("system/*.cruds");
    s.fhir(&all, "PUT", "/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true, "gender": "male"})).expect(201);
    s.fhir(&all, "PUT", "/Patient/q", &json!({"resourceType": "Patient", "id": "q", "active": true, "gender": "female"})).expect(201);
    s.fhir(&all, "PUT", "/Observation/o", &json!({"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/p"}})).expect(201);
    let sent = |url: &str| if url.contains('$') { "Parameters" } else { "Patient" };
    let bundle = |method: &str, url: &str| json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": method, "url": url}, "resource": {"resourceType": sent(url)}}]});
    let cases = [
        ("system/Patient.rs", "GET", "/Patient/p", Value::Null, 200),
        ("system/Patient.read", "GET", "/Patient/p/_history", Value::Null, 200),
        ("system/Patient.r", "GET", "/Patient", Value::Null, 403),
        ("system/Patient.s", "GET", "/Patient", Value::Null, 200),
        ("system/Patient.s", "GET", "/Patient/p", Value::Null, 403),
        ("system/Patient.rs", "GET", "/Observation/o", Value::Null, 403),
        ("system/Patient.rs", "GET", "/Patient?_revinclude=Observation:subject", Value::Null, 403),
        ("system/Patient.rs", "GET", "/_history", Value::Null, 403),
        ("system/Patient.rs", "GET", "?_type=Patient", Value::Null, 403),
        ("system/*.rs", "GET", "/Patient/p/$everything", Value::Null, 200),
        ("system/Patient.rs", "GET", "/Patient/p/$everything", Value::Null, 403),
        ("system/Patient.rs", "PUT", "/Patient/p", patient("p", "A"), 403),
        ("system/Patient.u", "PUT", "/Patient/p", patient("p", "A"), 200),
        ("system/Patient.u", "DELETE", "/Patient/p", Value::Null, 403),
        ("system/Patient.c", "POST", "/Patient", patient("x", "A"), 201),
        ("system/Observation.c", "POST", "/Patient", patient("x", "A"), 403),
        ("system/Patient.c", "POST", "", bundle("POST", "Patient"), 200),
        ("system/Patient.c", "POST", "", bundle("DELETE", "Patient/p"), 403),
        ("system/Patient.c", "POST", "", bundle("GET", "Observation"), 403),
        ("system/Patient.s", "POST", "", bundle("GET", "Patient/p/$everything"), 403),
        ("system/Patient.s", "POST", "", bundle("GET", "Patient/p/_history"), 403),
        ("system/Patient.s", "POST", "", bundle("GET", "Patient?_revincl%75de=*"), 403),
        ("system/Patient.c", "POST", "", bundle("POST", "Patient/p/$purge"), 403),
        ("system/Patient.c", "POST", "", bundle("POST", "Patient/p/$meta-add"), 403),
        ("system/Patient.d", "DELETE", "/Patient/p?_cascade=delete", Value::Null, 403),
        ("system/Patient.rs", "GET", "/Patient?_has:Observation:subject:_id=o", Value::Null, 403),
        ("system/Patient.cruds", "PUT", "/Patient?_has:Observation:subject:_id=o", patient("x", "A"), 403),
        ("system/Patient.cruds", "PUT", "/Patient??_has:Observation:subject:_id=o", patient("x", "A"), 403),
        ("system/Patient.cruds", "PUT", "/Patient?Patient?_has:Observation:subject:_id=o", patient("x", "A"), 403),
        ("system/Patient.cruds", "DELETE", "/Patient??_has:Observation:subject:_id=o", Value::Null, 403),
        ("system/Patient.rs", "GET", "/Patient?general-practitioner.name=x", Value::Null, 403),
        ("system/Patient.rs", "GET", "/Patient?_filter=gender%20eq%20male", Value::Null, 403),
        ("system/Patient.rs", "GET", "/Patient?_contained=true", Value::Null, 403),
        (
            "system/Observation.c",
            "POST",
            "",
            json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"request": {"method": "POST", "url": "Observation"}, "resource": {"resourceType": "Observation", "subject": {"reference": "Patient?gender=male"}}}]}),
            403,
        ),
        (
            "system/Patient.u",
            "PATCH",
            "/Patient/p",
            json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Patient.active"}]}]}),
            403,
        ),
        ("system/Patient.rs?gender=male", "GET", "/Patient/p/_history/1", Value::Null, 403),
        ("system/Patient.rs?gender=male", "GET", "/Patient/q", Value::Null, 403),
        ("system/Patient.rs?gender=male", "GET", "/Patient/q/_history", Value::Null, 403),
    ];
    for (scope, method, path, body, status) in cases {
        let reply = s.fhir(&s.token(scope), method, path, &body);
        assert_eq!(reply.status, status, "{scope}: {method} {path}: {}", reply.text());
        if status == 403 {
            assert!(reply.refusal().contains("the token allows"), "{}", reply.text());
        }
    }
    for bad in [
        "system/Patient.rs?gendr=male",
        "system/Patient.rs?_count=1",
        "system/Patient.rs?gender=male&_include=Patient:link",
        "system/Patient.rs?birthdate=never",
        "system/*.rs?_id=p",
        "system/Patient.rs?",
        "system/Patient.rs?general-practitioner.name=x",
    ] {
        assert_eq!(refused(s.ask(&s.assertion(&s.claims()), bad)), "invalid_scope", "{bad}");
    }
    // If-None-Exist is a search, and may be answered with what it finds.
    let create = s.token("system/Patient.c");
    s.server
        .fhir("a__b")
        .send("POST", "/Patient", &[("authorization", &format!("Bearer {create}")), ("if-none-exist", "gender=male")], b"{\"resourceType\":\"Patient\"}")
        .expect(403);
    let males = s.token("system/Patient.rs?gender=male");
    s.fhir(&all, "PUT", "/Patient/p", &json!({"resourceType": "Patient", "id": "p", "gender": "male"})).expect(200);
    s.fhir(&males, "GET", "/Patient/p", &Value::Null).expect(200);
    let found = s.fhir(&males, "GET", "/Patient?_id=p,q", &Value::Null).expect(200).json();
    assert_eq!((&found["total"], &found["entry"][0]["resource"]["id"]), (&json!(1), &json!("p")));
}

#[test]
fn what_is_wrong_with_an_assertion_is_said_as_the_contract_has_it() {
    let s = Setting::new("bulk", json!({}));
    let good = s.claims();
    let with = |name: &str, value: Value| {
        let mut claims = s.claims();
        claims[name] = value;
        s.assertion(&claims)
    };
    let scope = "system/*.rs";
    assert_eq!(refused(s.ask("nonsense", scope)), "invalid_request");
    assert_eq!(refused(s.ask(&with("sub", json!("nonsense")), scope)), "invalid_request");
    for (name, value) in
        [("aud", json!("http://elsewhere/token")), ("iss", json!("another")), ("exp", json!(now() - 500)), ("exp", Value::Null), ("aud", Value::Null)]
    {
        assert_eq!(refused(s.ask(&with(name, value.clone()), scope)), "invalid_grant", "{name} {value}");
    }
    // The scheme of the audience does not count.
    s.ask(&with("aud", json!(s.token_url().replace("http://", "https://"))), scope).expect(200);
    let header = |kid: Option<&str>, jku: Option<&str>| Header { kid: kid.map(str::to_owned), jku: jku.map(str::to_owned), ..Header::new(Algorithm::ES384) };
    assert_eq!(refused(s.ask(&s.signed(&good, header(None, None)), scope)), "invalid_grant");
    assert_eq!(refused(s.ask(&s.signed(&s.claims(), header(Some("k2"), None)), scope)), "invalid_grant");
    assert_eq!(refused(s.ask(&s.signed(&s.claims(), header(Some("k1"), Some("http://x/jwks"))), scope)), "invalid_grant");
    let other = Setting { key: key("k1"), client_id: s.client_id.clone(), server: TestServer::start() };
    assert_eq!(refused(s.ask(&other.assertion(&s.claims()), scope)), "invalid_grant", "another key of the same name");
    let hmac = encode(
        &Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS384) },
        &s.claims(),
        &EncodingKey::from_secret(s.key.jwk["x"].as_str().unwrap().as_bytes()),
    )
    .unwrap();
    assert_eq!(refused(s.ask(&hmac, scope)), "invalid_grant");
    for (bad, error) in [
        ("", "invalid_scope"),
        ("launch", "invalid_scope"),
        ("user/*.rs", "invalid_scope"),
        ("system/Pateint.rs", "invalid_scope"),
        ("system/Patient.cruds", "invalid_scope"),
        ("system/*.*", "invalid_scope"),
        ("system/Patient.write", "invalid_scope"),
    ] {
        assert_eq!(refused(s.ask(&s.assertion(&s.claims()), bad)), error, "{bad}");
    }
    // Times may have fractions; and one that is to come is not here.
    let mut fractions = s.claims();
    let part = |seconds: i64| -> Value { serde_json::from_str(&format!("{}.25", now() + seconds)).unwrap() };
    (fractions["exp"], fractions["iat"], fractions["nbf"]) = (part(100), part(-1), json!(now() - 1));
    s.ask(&s.assertion(&fractions), scope).expect(200);
    for (name, value) in [("nbf", json!(now() + 500)), ("exp", json!("tomorrow")), ("exp", json!(-1)), ("exp", json!(1e300)), ("iat", json!([]))] {
        assert_eq!(refused(s.ask(&with(name, value.clone()), scope)), "invalid_grant", "{name} {value}");
    }
    let many: Vec<Value> = (0..5).map(|_| s.key.jwk.clone()).collect();
    let client_id = Setting::registered(&s.server, &[("jwks", &json!({"keys": many}).to_string())]);
    let mut of_many = s.claims();
    (of_many["iss"], of_many["sub"]) = (json!(client_id), json!(client_id));
    assert_eq!(refused(s.ask(&s.assertion(&of_many), scope)), "invalid_grant", "each key of the name would be tried");
    assert_eq!(refused(s.ask(&"x".repeat(300_000), scope)), "invalid_request");
    let once = s.assertion(&good);
    s.ask(&once, scope).expect(200);
    assert_eq!(refused(s.ask(&once, scope)), "invalid_grant", "the same jti again");
    let post = |content_type: &str, body: &str| s.server.client().send("POST", "/sim/a__b/auth/token", &[("content-type", content_type)], body.as_bytes());
    assert_eq!(refused(post("application/json", "{}")), "invalid_request");
    assert_eq!(refused(post(FORM.1, "")), "invalid_grant");
    assert_eq!(refused(post(FORM.1, "grant_type=password")), "unsupported_grant_type");
    assert_eq!(refused(post(FORM.1, "grant_type=client_credentials&client_assertion_type=x")), "invalid_request");
    let register = |pairs: &[(&str, &str)]| s.server.client().send("POST", "/sim/a__b/auth/register", &[FORM], form(pairs).as_bytes());
    for bad in [
        &[][..],
        &[("jwks", "{")],
        &[("jwks", "{}")],
        &[("jwks", "{\"keys\":[]}")],
        &[("jwks", "{\"keys\":[{}]}"), ("jwks_url", "http://x")],
        &[("jwks_url", "http://x"), ("dur", "x")],
    ] {
        assert_eq!(refused(register(bad)), "invalid_request", "{bad:?}");
    }
    s.server.client().get("/sim/a__b/auth/token").expect(405);
    s.server.client().get("/sim/a__b/auth/nothing").expect(404).refusal();
}

#[test]
fn assertions_are_held_to_the_standards_they_are_made_of() {
    use base64::Engine as _;
    let s = Setting::new("fhir", json!({}));
    let said = |reply: Reply| reply.expect(400).json()["error_description"].as_str().unwrap().to_owned();
    let base64 = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    // RFC 7515: what an extension asks for cannot be passed over.
    let message = format!("{}.{}", base64(&json!({"alg": "ES384", "kid": "k1", "crit": ["x"], "x": 1})), base64(&s.claims()));
    let key = EncodingKey::from_ec_pem(s.key.pem.as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES384).unwrap();
    assert!(said(s.ask(&format!("{message}.{signature}"), "system/*.rs")).contains("crit"));
    // RFC 7517 and 7518: keys say what they are for, and have a length.
    let mut of_other = s.key.jwk.clone();
    of_other["alg"] = "ES256".into();
    let short = json!({"kty": "RSA", "kid": "k1", "e": "AQAB", "n": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([0xff; 128])});
    for (key, why) in [(of_other, "is for ES384"), (short, "has 1024 bits")] {
        let client_id = Setting::registered(&s.server, &[("jwks", &json!({"keys": [key]}).to_string())]);
        let mut claims = s.claims();
        (claims["iss"], claims["sub"]) = (json!(client_id), json!(client_id));
        let refused = said(s.ask(&s.assertion(&claims), "system/*.rs"));
        assert!(refused.contains(why), "{refused}");
    }
    // RFC 7521: the form's client is the assertion's.
    let ask = |client_id: &str, scope: &str| {
        let assertion = s.assertion(&s.claims());
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
            ("scope", scope),
            ("client_id", client_id),
        ];
        s.server.client().send("POST", "/sim/a__b/auth/token", &[FORM], form(&pairs).as_bytes())
    };
    assert!(said(ask("another", "system/*.rs")).contains("client_id"));
    // RFC 6749: one blank between scopes.
    assert_eq!(ask(&s.client_id, "  system/Patient.rs \t system/Observation.rs ").expect(200).json()["scope"], "system/Patient.rs system/Observation.rs");
    // RFC 6750: what is not enough is said to be so.
    let token = s.token("system/Patient.rs");
    assert_eq!(s.fhir(&token, "GET", "/Observation", &Value::Null).expect(403).header("www-authenticate"), "Bearer error=\"insufficient_scope\"");
    // Several values of one parameter are one restriction.
    let all = s.token("system/*.cruds");
    for (id, status) in [("a", "final"), ("b", "amended"), ("c", "preliminary")] {
        s.fhir(&all, "PUT", &format!("/Observation/{id}"), &json!({"resourceType": "Observation", "id": id, "status": status})).expect(201);
    }
    let two = s.token("system/Observation.rs?status=final system/Observation.rs?status=amended");
    assert_eq!(s.fhir(&two, "GET", "/Observation?_sort=_id", &Value::Null).json()["total"], 2);
    s.fhir(&two, "GET", "/Observation/b", &Value::Null).expect(200);
    s.fhir(&two, "GET", "/Observation/c", &Value::Null).expect(403);
}

#[test]
fn tokens_last_as_long_as_the_least_says_and_errors_come_as_ordered() {
    let s = Setting::new("fhir", json!({"tokenMinutes": 5}));
    let lasts = |s: &Setting, claims: &Value| s.ask(&s.assertion(claims), "system/*.rs").expect(200).json()["expires_in"].as_i64().unwrap();
    let mut claims = s.claims();
    claims["exp"] = json!(now() + 3_000);
    assert_eq!(lasts(&s, &claims), 300);
    claims["exp"] = json!(now() + 100);
    claims["jti"] = json!("other");
    assert!((60..=100).contains(&lasts(&s, &claims)));
    let keys = json!({"keys": [s.key.jwk]}).to_string();
    let as_registered = |pairs: &[(&str, &str)]| {
        let client_id = Setting::registered(&s.server, pairs);
        let mut one = s.claims();
        (one["iss"], one["sub"], one["exp"]) = (json!(client_id), json!(client_id), json!(now() + 3_000));
        s.ask(&s.assertion(&one), "system/*.rs")
    };
    assert_eq!(as_registered(&[("jwks", &keys), ("dur", "2")]).expect(200).json()["expires_in"], 120);
    assert_eq!(as_registered(&[("jwks", &keys), ("err", "token_invalid_token")]).expect(401).json()["error"], "invalid_client");
    for (err, error) in [("token_expired_registration_token", "invalid_grant"), ("token_invalid_scope", "invalid_scope"), ("invalid_jti", "invalid_grant")] {
        assert_eq!(refused(as_registered(&[("jwks", &keys), ("err", err)])), error);
    }
    for err in ["request_invalid_token", "request_expired_token"] {
        let granted = as_registered(&[("jwks", &keys), ("err", err)]).expect(200).json();
        s.fhir(granted["access_token"].as_str().unwrap(), "GET", "/Patient", &Value::Null).expect(401).refusal();
    }
    s.server.client().patch("/api/sims/a__b", &json!({"settings": {"smart": {"strict": true}}})).expect(200);
    let mut without = s.claims();
    without.as_object_mut().unwrap().remove("jti");
    assert_eq!(refused(s.ask(&s.assertion(&without), "system/*.rs")), "invalid_grant");
    assert_eq!(refused(s.ask(&s.assertion(&s.claims()), "system/*.rs")), "invalid_grant", "no iat");
    let mut whole = s.claims();
    whole["iat"] = json!(now());
    s.ask(&s.assertion(&whole), "system/*.rs").expect(200);
}

#[test]
fn keys_are_fetched_from_where_it_is_allowed() {
    let s = Setting::new("fhir", json!({}));
    // The simulator itself holds the keys: a Binary that is served as it is.
    let open: Client = s.server.fhir("keys__one");
    let data = base64::engine::general_purpose::STANDARD.encode(json!({"keys": [s.key.jwk]}).to_string());
    open.put("/Binary/jwks", &json!({"resourceType": "Binary", "id": "jwks", "contentType": "application/json", "data": data})).expect(201);
    let url = format!("{}/sim/keys__one/fhir/Binary/jwks", s.server.url());
    let at = |url: &str, jku: Option<&str>| {
        let client_id = Setting::registered(&s.server, &[("jwks_url", url)]);
        let mut claims = s.claims();
        (claims["iss"], claims["sub"]) = (json!(client_id), json!(client_id));
        let header = Header { kid: Some("k1".to_owned()), jku: jku.map(str::to_owned), ..Header::new(Algorithm::ES384) };
        s.ask(&s.signed(&claims, header), "system/*.rs")
    };
    at(&url, None).expect(200);
    at(&url, Some(&url)).expect(200);
    assert_eq!(refused(at(&url, Some("http://127.0.0.1/other"))), "invalid_grant");
    for (bad, why) in [
        ("http://example.org/jwks", "--allow-outbound"),
        ("https://example.org/jwks", "--allow-outbound"),
        ("file:///etc/passwd", "http://"),
        ("http://127.0.0.1:1/jwks", "cannot be had"),
    ] {
        let reply = at(bad, None).expect(400).json();
        assert!(reply["error"] == "invalid_grant" && reply["error_description"].as_str().unwrap().contains(why), "{bad}: {reply}");
    }
    assert_eq!(refused(at(&format!("{}/sim/keys__one/fhir/metadata", s.server.url()), None)), "invalid_grant", "that is no JWKS");
}

#[test]
fn an_assertion_is_good_once_over_a_restart_too() {
    let mut s = Setting::new("fhir", json!({}));
    let once = |s: &Setting| {
        let mut claims = s.claims();
        claims["jti"] = json!("once");
        s.ask(&s.assertion(&claims), "system/*.rs")
    };
    once(&s).expect(200);
    s.server.kill();
    // A line that the kill has cut off.
    let file = s.server.simdb().join(".assertions");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, [text.as_bytes(), b"[\"a__b\",\"x\xc3"].concat()).unwrap();
    s.server.restart();
    assert_eq!(refused(once(&s)), "invalid_grant");
    s.token("system/*.rs");
    s.server.stop();
    s.server.restart();
    assert_eq!(refused(once(&s)), "invalid_grant");
    // A key that is not for signatures is none.
    let mut other = s.key.jwk.clone();
    other["use"] = json!("enc");
    let pairs = form(&[("jwks", &json!({"keys": [other]}).to_string())]);
    refused(s.server.client().send("POST", "/sim/a__b/auth/register", &[FORM], pairs.as_bytes()));
}

#[test]
fn every_simulator_has_a_key_of_its_own() {
    let mut server = TestServer::start();
    let key = |server: &TestServer, sim: &str| server.fhir(sim).get("/.well-known/jwks.json").expect(200).json()["keys"][0].clone();
    let (one, two) = (key(&server, "a__one"), key(&server, "a__two"));
    assert!(one["x"] != two["x"] && one["kid"] != two["kid"]);
    server.client().post("/api/sims/a__one/reset", &json!({})).expect(200);
    server.kill();
    server.restart();
    assert_eq!((key(&server, "a__one"), key(&server, "a__two")), (one.clone(), two));
    // Another of the name is another.
    server.client().delete("/api/sims/a__one").expect(204);
    server.client().put("/api/sims/a__one", &json!({})).expect(201);
    assert!(key(&server, "a__one")["x"] != one["x"]);
}

#[test]
fn why_a_token_was_refused_is_in_the_log() {
    let s = Setting::new("fhir", json!({}));
    let mut claims = s.claims();
    claims["aud"] = json!("http://else.example/token");
    refused(s.ask(&s.assertion(&claims), "system/*.rs"));
    let newest = || s.server.client().get("/api/sims/a__b/log").expect(200).json()["entries"][0].clone();
    let entry = newest();
    assert_eq!((&entry["interaction"], &entry["status"]), (&json!("token"), &json!(400)));
    assert!(entry["why"].as_str().unwrap().contains("aud") && entry["authorization"]["assertion"]["aud"] == "http://else.example/token", "{entry}");
    assert!(!entry.to_string().contains(s.assertion(&claims).rsplit('.').next().unwrap()));
    let fhir = s.server.fhir("a__b");
    let reply = fhir.send("GET", "/$export", &[("authorization", "Bearer x.y.z")], b"").expect(401);
    assert!(reply.header("www-authenticate").contains("invalid_token"));
    assert!(newest()["authorization"]["refused"].as_str().unwrap().contains("not one of this simulator"), "{}", newest());
    // Who shows none has made no mistake with one.
    assert_eq!(fhir.get("/Patient").expect(401).header("www-authenticate"), "Bearer");
    assert!(newest()["why"].as_str().unwrap().contains("missing"));
    let granted = s.ask(&s.assertion(&s.claims()), "system/*.rs").expect(200);
    assert_eq!((granted.header("cache-control"), granted.header("pragma")), ("no-store", "no-cache"));
    let page = s.server.client().get("/sims/a__b").text().to_owned();
    assert!(page.contains("not one of this simulator"), "the page says so, too");
}

#[test]
fn assertions_end_and_silent_servers_hold_nothing_up() {
    let s = Setting::new("fhir", json!({}));
    let mut claims = s.claims();
    claims["exp"] = json!(now() + 10 * 365 * 24 * 3_600);
    let reply = s.ask(&s.assertion(&claims), "system/*.rs").expect(400).json();
    assert!(reply["error_description"].as_str().unwrap().contains("a day at most"), "{reply}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let client_id = Setting::registered(&s.server, &[("jwks_url", &url)]);
    let mut claims = s.claims();
    (claims["iss"], claims["sub"]) = (json!(client_id), json!(client_id));
    let assertion = s.assertion(&claims);
    // Two wait for the keys, and the others do not wait for them.
    std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| s.ask(&assertion, "system/*.rs").expect(400).json()["error_description"].as_str().unwrap().to_owned())).collect();
        let said: Vec<String> = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert_eq!(said.iter().filter(|why| why.contains("too many are being fetched")).count(), 6, "{said:?}");
    });
    // What could not be had just now is not asked for again.
    let began = std::time::Instant::now();
    refused(s.ask(&assertion, "system/*.rs"));
    assert!(began.elapsed().as_secs() < 5);
}
