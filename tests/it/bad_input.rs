//! Bad input: each is an OperationOutcome that names the cause, and nothing is stored but the event.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{TestServer, patient};

#[test]
fn bodies_that_cannot_be_stored() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let deep = format!("{{\"resourceType\":\"Patient\",\"extension\":{}{}}}", "[".repeat(120), "]".repeat(120));
    let cases: [(&str, &str, &str); 15] = [
        ("POST", "/Patient", "{\"resourceType\":\"Patient\",\n  \"active\":tru}"),
        ("POST", "/Patient", "[1]"),
        ("POST", "/Patient", "{}"),
        ("POST", "/Patient", "{\"resourceType\":\"Pateint\"}"),
        ("POST", "/Patient", "{\"resourceType\":\"Observation\"}"),
        ("POST", "/Patient", "{\"resourceType\":\"Patient\",\"resourceType\":\"Patient\"}"),
        ("POST", "/Patient", &deep),
        ("POST", "/Patient", "  "),
        ("POST", "/Nonsense", "{\"resourceType\":\"Patient\"}"),
        ("PUT", "/Patient/1", "{\"resourceType\":\"Patient\",\"id\":\"2\"}"),
        ("PUT", "/Patient/1", "{\"resourceType\":\"Patient\"}"),
        ("PUT", "/Patient/a_b", "{\"resourceType\":\"Patient\",\"id\":\"a_b\"}"),
        ("PUT", "/Patient", "{\"resourceType\":\"Patient\"}"),
        ("POST", "", "{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[{\"request\":{\"method\":\"POST\",\"url\":\"Patient\"}}]}"),
        (
            "POST",
            "",
            "{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[{\"request\":{\"method\":\"BREW\",\"url\":\"Patient\"},\"resource\":{\"resourceType\":\"Patient\"}}]}",
        ),
    ];
    let said: Vec<String> = cases.iter().map(|(method, path, body)| fhir.send(method, path, &[], body.as_bytes()).refusal()).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    400 structure malformed-body: malformed JSON: expected ident at line 2 column 15
    400 structure malformed-body: a FHIR resource is a JSON object, but this is an array
    400 invalid invalid-content [resourceType]: resourceType is missing; it names the type, for example "resourceType":"Patient"
    400 invalid invalid-content [resourceType]: unknown resource type 'Pateint' in FHIR R4; did you mean 'Patient'?
    400 invalid invalid-content [resourceType]: the URL says Patient, but resourceType is 'Observation'; send it to /Observation
    400 structure malformed-body: malformed JSON: duplicate key "resourceType" at line 1 column 51
    400 structure malformed-body: malformed JSON: nested deeper than 100 levels at line 1 column 138
    400 structure malformed-body: the body is empty; a FHIR resource in JSON was expected
    404 not-supported unknown-resource-type: unknown resource type 'Nonsense' in FHIR R4
    400 invalid invalid-content [Patient.id]: Patient.id is '2', but the URL says '1'; they must agree
    400 invalid invalid-content [Patient.id]: Patient.id is missing; an update carries the id of its URL, "id":"1"
    400 value bad-value: id 'a_b' holds '_'; an id is 1-64 of A-Z a-z 0-9 - .
    405 not-supported method-not-allowed: PUT is not allowed here; allowed: GET, HEAD, POST; to update, patch or delete, name the resource, [type]/[id], or a condition, [type]?identifier=…
    400 invalid invalid-content [Bundle.entry[0]]: Bundle.entry[0]: resource is missing; POST needs one
    400 not-supported not-supported [Bundle.entry[0].request.method]: Bundle.entry[0]: request.method 'BREW' is not supported in a Bundle of FHIR R4; use GET, HEAD, POST, PUT, PATCH or DELETE
    "#);
    assert_eq!(fhir.get("/Patient").json()["total"], 0);
    let events = server.client().get("/api/sims/a__b").json()["eventCount"].as_u64();
    assert_eq!(events, Some(cases.len() as u64), "each is an event");
}

#[test]
fn searches_that_cannot_be_understood() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let many: String = (0..600).map(|n| format!("name=x{n}&")).collect();
    let said: Vec<String> = [
        "/Patient?birthdate=x",
        "/Patient?birthdate=gt2020-13",
        "/Patient?_count=-1",
        "/Patient?_count=ten",
        "/Patient?_total=maybe",
        "/Patient?family:exactly=x",
        "/Patient?gender:exact=male",
        "/Patient?family:missing=perhaps",
        "/Observation?subject:Medication=1",
        "/RiskAssessment?probability=high",
        "/Patient?_cursor=x",
        "/?_type=Patient,Nonsense",
        "/Patient/1/_history?_count=x",
        "/Patient/$everthing",
        "/Patient/_history?_sort=name",
        "/nonsense",
        "/Patient/1/2/3",
    ]
    .into_iter()
    .chain([format!("/Patient?{many}").as_str()])
    .map(|path| fhir.get(path).refusal())
    .collect();
    insta::assert_snapshot!(said.join("\n"), @"
    400 value bad-value: search parameter 'birthdate': 'x' is not a date such as 2020, 2020-02, 2020-02-28 or ge2020-02-28T10:30:00Z
    400 value bad-value: search parameter 'birthdate': 'gt2020-13' is not a date such as 2020, 2020-02, 2020-02-28 or ge2020-02-28T10:30:00Z
    400 value bad-value: _count '-1' is not a number from 0 on
    400 value bad-value: _count 'ten' is not a number from 0 on
    400 value bad-value: _total 'maybe' is not none, estimate or accurate
    400 not-supported not-supported: modifier 'exactly' is not supported for the string parameter 'family'; known here: missing, exact, contains
    400 not-supported not-supported: modifier 'exact' is not supported for the token parameter 'gender'; known here: missing, text, not, above, below, in, not-in
    400 value bad-value: 'family:missing' must be true or false, but is 'perhaps'
    400 not-supported not-supported: modifier 'Medication' is not supported for the reference parameter 'subject'; known here: missing, identifier, above, below, or the name of a type it can refer to
    400 value bad-value: search parameter 'probability': 'high' is not a number such as 100, 5.40 or gt1e-3
    400 value bad-value: _cursor 'x' is not one this server made; follow the links of a search result
    400 value bad-value: _type: unknown resource type 'Nonsense' in FHIR R4
    400 value bad-value: _count 'x' is not a number from 0 on
    400 not-supported not-supported: operation $everthing is not supported by this server; did you mean '$everything'?
    400 value bad-value: _sort 'name' is not _lastUpdated, -_lastUpdated or none
    404 not-supported unknown-resource-type: unknown resource type 'nonsense' in FHIR R4
    404 not-found not-found: nothing is at 'Patient/1/2/3'; paths are [type], [type]/[id], [type]/[id]/_history, [type]/[id]/_history/[version], [type]/[id]/[type], [type]/_search, metadata
    403 too-costly too-costly: 600 parameters in the URL; at most 500 are accepted
    ");
}

#[test]
fn an_unknown_parameter_is_reported_or_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let lenient = fhir.get("/Patient?famly=x").expect(200).json();
    assert_eq!(lenient["total"], 1);
    let outcome = &lenient["entry"][1];
    assert_eq!(outcome["search"]["mode"], "outcome");
    assert_eq!(outcome["resource"]["issue"][0]["diagnostics"], "unknown search parameter 'famly' for Patient; did you mean 'family'?");
    assert!(!lenient["link"][0]["url"].as_str().unwrap().contains("famly"), "the self link shows what was executed");
    let strict = fhir.send("GET", "/Patient?famly=x", &[("prefer", "handling=strict")], b"").expect(400).refusal();
    assert!(strict.contains("did you mean 'family'?"), "{strict}");
    // A condition that left a parameter out would match everything.
    fhir.send("POST", "/Patient", &[("if-none-exist", "famly=x")], br#"{"resourceType":"Patient"}"#).expect(400);
    fhir.send("POST", "/Patient", &[("if-none-exist", "_count=1")], br#"{"resourceType":"Patient"}"#).expect(400);
}

#[test]
fn headers_that_cannot_be_read_are_not_passed_over() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let body = patient("p", "B").to_string();
    for (name, value) in [("If-Match", "W/\"ü\""), ("If-Match", "W/\"1\", ü"), ("If-None-Match", "\"ü\""), ("If-Modified-Since", "März")] {
        for (method, body) in [("PUT", body.as_bytes()), ("DELETE", b"".as_slice()), ("GET", b"".as_slice())] {
            let refused = fhir.send(method, "/Patient/p", &[(name, value)], body).expect(400).refusal();
            assert!(refused.contains(&format!("[http.{name}]: {name} has characters that are not ASCII; send one readable header")), "{refused}");
        }
    }
    for (method, path) in [("PUT", "/Patient/p"), ("PATCH", "/Patient/p"), ("POST", "/Patient/$validate"), ("POST", "/Patient/_search"), ("POST", "/Binary")] {
        let refused = fhir.send(method, path, &[("content-type", "application/fhir+json; x=ü")], body.as_bytes()).expect(415).refusal();
        assert!(refused.contains("[http.Content-Type]: Content-Type 'application/fhir+json; x=ü' is not supported here"), "{refused}");
    }
    let refused = fhir.send("PUT", "/Patient/p", &[("accept", "application/fhir+xml; x=ü")], body.as_bytes()).expect(406).refusal();
    assert!(refused.contains("[http.Accept]: Accept 'application/fhir+xml; x=ü' asks for a format that is not supported"), "{refused}");
    assert_eq!(fhir.get("/Patient/p").expect(200).json()["meta"]["versionId"], "1", "none of them went ahead");
}

#[test]
fn methods_that_are_not_allowed_say_which_are() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (method, path, allow) in [
        ("DELETE", "/Patient", "GET, HEAD, POST"),
        ("POST", "/Patient/1", "GET, HEAD, PUT, PATCH, DELETE"),
        ("PUT", "", "GET, HEAD, POST"),
        ("POST", "/metadata", "GET, HEAD"),
        ("PUT", "/Patient/1/_history/1", "GET, HEAD"),
    ] {
        let reply = fhir.send(method, path, &[], br#"{"resourceType":"Patient"}"#).expect(405);
        assert_eq!(reply.header("allow"), allow);
        assert!(reply.refusal().contains(allow));
    }
}

#[test]
fn paths_with_tricks_lead_nowhere() {
    let server = TestServer::start();
    let (fhir, server_client) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    for path in [
        "/%2e%2e/%2e%2e/sim.json",
        "/Patient/%2e%2e",
        "/Patient/p%00",
        "/Patient%2fp",
        "/Patient/..%2f..%2fsim.json",
        "/Patient/p/_history/%2e%2e",
        "/Patient/%ff",
    ] {
        let reply = fhir.get(path);
        assert!(reply.status == 404 || reply.status == 400, "{path}: {}", reply.status);
        assert_eq!(reply.json()["resourceType"], "OperationOutcome");
    }
    server_client.get("/sim/%2e%2e/fhir/Patient").expect(400);
    server_client.get("/sim/a__b/other").expect(404);
}

#[test]
fn a_body_over_the_limit_is_an_answered_event() {
    let server = TestServer::with(&["--auto-create", "--max-body-bytes", "1000"]);
    let fhir = server.fhir("a__b");
    let refused = fhir.put("/Patient/p", &patient("p", &"x".repeat(2_000))).expect(413);
    assert!(refused.refusal().contains("over the limit of 1000 bytes"));
    assert!(server.simdb().join("a__b/fhir/PUT").join(refused.header("x-fhirsim-event")).is_dir());
    // Packed small, but not small.
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(patient("p", &"x".repeat(100_000)).to_string().as_bytes(), flate2::Compression::best()).read_to_end(&mut packed).unwrap();
    assert!(packed.len() < 1_000);
    fhir.send("PUT", "/Patient/p", &[("content-encoding", "gzip")], &packed).expect(413);
}

fn raw(server: &TestServer, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.url().strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn a_slow_client_is_told_and_a_vanished_one_forgotten() {
    let server = TestServer::with(&["--auto-create", "--read-timeout-s", "1"]);
    let fhir = server.fhir("a__b");
    let head = "POST /sim/a__b/fhir/Patient HTTP/1.1\r\nhost: x\r\ncontent-type: application/fhir+json\r\ncontent-length: 100\r\n\r\n{\"resource";
    drop(raw(&server, head));
    let mut slow = raw(&server, head);
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("did not arrive within 1 s; 10 bytes did"), "{answer}");
    assert_eq!(fhir.get("/Patient").expect(200).json()["total"], 0);
}

#[test]
fn nonsense_on_the_wire_hurts_nobody() {
    let server = TestServer::start();
    for request in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9\r\n\r\n",
        "POST /sim/a__b/fhir HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        "GET /sim/a__b/fhir/Patient?%zz=%z HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "GET /sim/a__b/fhir/metadata HTTP/1.1\r\nhost: x\r\naccept: ;;;,,,\r\nprefer: ===\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = raw(&server, request);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.fhir("a__b").get("/metadata").expect(200);
}
