//! Imports of bulk data, and submissions.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::{Client, Reply, TestServer};

/// The head of a request.
pub fn head_of(stream: &mut impl Read) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Serves files, each as it is, until the test is over.
pub fn files(of: Vec<(&'static str, u16, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head_of(&mut stream);
            let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
            let found = of.iter().find(|(name, ..)| *name == path);
            let (status, body) = found.map_or((404, Vec::new()), |(_, status, body)| (*status, body.clone()));
            // One says whether a header came along.
            let body = if path == "/secret.ndjson" && !head.to_lowercase().contains("x-key: abc") { Vec::new() } else { body };
            let (length, place) = if path == "/broken.ndjson" { (body.len() + 100, "") } else { (body.len(), "location: /patients.ndjson\r\n") };
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{place}connection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    url
}

/// What the event folders of a simulator say, in order.
pub fn events(server: &TestServer, sim: &str) -> Vec<Value> {
    let listed = |folder: std::path::PathBuf| std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    let mut all: Vec<std::path::PathBuf> = listed(server.simdb().join(sim).join("fhir")).into_iter().flat_map(listed).collect();
    all.sort_by_key(|folder| folder.file_name().unwrap().to_owned());
    all.iter().map(|folder| serde_json::from_slice(&std::fs::read(folder.join("event.json")).unwrap()).unwrap()).collect()
}

pub fn lines(all: &[Value]) -> Vec<u8> {
    all.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

pub fn patients(range: std::ops::Range<usize>) -> Vec<u8> {
    lines(
        &range
            .map(|n| json!({"resourceType": "Patient", "id": format!("p{n}"), "birthDate": "1980-01-01", "name": [{"family": format!("F{n}")}]}))
            .collect::<Vec<_>>(),
    )
}

pub fn import(fhir: &Client, manifest: &Value) -> Reply {
    fhir.send("POST", "/$import", &[("content-type", "application/json"), ("prefer", "respond-async")], manifest.to_string().as_bytes())
}

/// Waits for a job; returns its manifest.
pub fn done(server: &TestServer, begun: Reply) -> Value {
    let status = begun.expect(202).header("content-location").strip_prefix(server.url()).unwrap().to_owned();
    loop {
        let reply = server.client().get(&status);
        if reply.status != 202 {
            return reply.expect(200).json();
        }
        std::thread::yield_now();
    }
}

/// The diagnostics of all outcomes that a manifest lists.
pub fn said(server: &TestServer, manifest: &Value) -> Vec<String> {
    let mut said = Vec::new();
    for error in manifest["error"].as_array().unwrap() {
        assert_eq!(error["type"], "OperationOutcome");
        let text = server.client().get(error["url"].as_str().unwrap().strip_prefix(server.url()).unwrap()).expect(200).text().to_owned();
        assert_eq!(text.lines().count() as u64, error["count"].as_u64().unwrap());
        for line in text.lines() {
            let outcome: Value = serde_json::from_str(line).unwrap();
            assert_eq!(outcome["resourceType"], "OperationOutcome");
            said.push(outcome["issue"][0]["diagnostics"].as_str().unwrap().to_owned());
        }
    }
    said
}

#[test]
fn what_was_exported_is_imported_elsewhere() {
    let server = TestServer::start();
    let from = server.fhir("a__b");
    from.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &patients(0..450)).expect(202);
    while from.get("/Patient?_summary=count").json()["total"] != 450 {
        std::thread::yield_now();
    }
    let observations: Vec<Value> =
        (0..20).map(|n| json!({"resourceType": "Observation", "id": format!("o{n}"), "status": "final", "code": {"text": "c"}, "subject": {"reference": format!("Patient/p{n}")}})).collect();
    done(&server, from.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &lines(&observations)));
    let exported = done(&server, from.send("GET", "/$export", &[("accept", "application/fhir+json"), ("prefer", "respond-async")], b""));
    let to = server.fhir("c__d");
    let manifest = done(&server, import(&to, &exported));
    assert_eq!(manifest["error"], json!([]));
    let counts: Vec<(&str, u64)> = manifest["output"].as_array().unwrap().iter().map(|o| (o["type"].as_str().unwrap(), o["count"].as_u64().unwrap())).collect();
    assert_eq!(counts, [("Observation", 20), ("Patient", 450)]);
    assert_eq!(manifest["output"][0]["inputUrl"], exported["output"][0]["url"]);
    assert_eq!(to.ids("/Observation?subject:Patient.family=F7"), ["o7"]);
    assert_eq!(to.get("/Patient/p449").json()["name"][0]["family"], "F449");
    // What was sent, and what became of it: one event for the request, then one for each batch of lines.
    let all = events(&server, "c__d");
    let kinds: Vec<&str> = all.iter().map(|e| e["interaction"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["$import", "batch", "batch", "batch", "batch"]);
    assert_eq!(all[0]["response"]["status"], 202);
    let id = all[0]["response"]["headers"]["content-location"].as_str().unwrap().rsplit('/').next().unwrap();
    assert!(all[1..].iter().all(|e| e["request"]["headers"]["x-fhirsim-job"] == id));
    assert_eq!(server.client().get("/api/sims/c__d/events?interaction=$import").expect(200).json()["events"].as_array().unwrap().len(), 1);
    let listed = server.client().get("/api/sims/c__d/exports").json();
    assert_eq!((&listed["exports"][0]["task"], &listed["exports"][0]["resources"]), (&json!("import"), &json!(470)));
}

#[test]
fn what_is_wrong_with_a_line_is_said_and_the_rest_is_stored() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    server.client().put("/api/sims/a__b", &json!({"settings": {"validation": "strict"}})).expect(201);
    let mixed = [
        r#"{"resourceType":"Patient","id":"good"}"#,
        "",
        r#"{"resourceType":"Patient","id":"bad","gender":"blue"}"#,
        r#"{"resourceType":"Pateint"}"#,
        r#"{"resourceType":"Patient""#,
        r#"{"resourceType":"Observation","id":"o"}"#,
        r#"{"resourceType":"Patient","id":"no id"}"#,
        r#"{"resourceType":"Patient","name":[{"family":"New"}]}"#,
        "[1]",
    ]
    .join("\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&patients(0..3)).unwrap();
    let url = files(vec![
        ("/mixed.ndjson", 200, mixed.into_bytes()),
        ("/packed.ndjson.gz", 200, packed.finish().unwrap()),
        ("/broken.ndjson", 200, patients(10..12)),
        ("/moved.ndjson", 302, Vec::new()),
        ("/patients.ndjson", 200, patients(20..21)),
    ]);
    let input = |name: &str| json!({"type": "Patient", "url": format!("{url}/{name}")});
    let inputs: Vec<Value> = ["mixed.ndjson", "packed.ndjson.gz", "broken.ndjson", "moved.ndjson", "none.ndjson"].iter().map(|name| input(name)).collect();
    let manifest = done(&server, import(&fhir, &json!({"inputFormat": "application/fhir+ndjson", "inputSource": "http://x", "input": inputs})));
    let said = said(&server, &manifest);
    let expected = [
        ("line 3: ", "blue"),
        ("line 4: ", "did you mean 'Patient'?"),
        ("line 5: ", "malformed JSON"),
        ("line 6: ", "the manifest says that the file has Patient"),
        ("line 7: ", "no id"),
        ("line 9: ", "this is an array"),
        ("", "broke off"),
        ("", "302"),
        ("", "404"),
    ];
    for (line, text) in expected {
        assert!(said.iter().any(|s| s.starts_with(line) && s.contains(text)), "{line}{text}: {said:#?}");
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    assert_eq!(manifest["output"].as_array().unwrap().iter().map(|o| o["count"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3, 2, 0, 0]);
    assert_eq!(fhir.get("/Patient?_summary=count").json()["total"], 7);
    assert_eq!(fhir.get("/Patient?family=new&_summary=count").json()["total"], 1, "without an id it gets one");
    fhir.get("/Patient/bad").expect(404);
    // Parameters say the same.
    let part = |name: &str, value: &str| json!({"name": name, "valueString": value});
    let parameters = json!({"resourceType": "Parameters", "parameter": [{"name": "inputFormat", "valueCode": "application/fhir+ndjson"},
        {"name": "input", "part": [part("type", "Patient"), {"name": "url", "valueUri": format!("{url}/patients.ndjson")}]}]});
    let manifest = done(&server, fhir.post("/$import", &parameters));
    assert_eq!((&manifest["output"][0]["count"], &manifest["error"]), (&json!(1), &json!([])));
    fhir.get("/Patient/p20").expect(200);
}

#[test]
fn an_import_that_cannot_be_is_refused_at_once() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let input = |url: &str| json!({"input": [{"type": "Patient", "url": url}]});
    for (manifest, status, expected) in [
        (json!({}), 400, "neither 'input' nor 'output'"),
        (json!({"input": [{"type": "Patient"}]}), 400, "no url"),
        (json!({"input": [{"type": "Pateint", "url": "http://127.0.0.1:1/"}]}), 400, "did you mean 'Patient'?"),
        (json!({"inputFormat": "text/csv", "input": []}), 400, "inputFormat"),
        (input("http://far.example/x"), 403, "--allow-outbound far.example"),
        (input("https://far.example/x"), 403, "--allow-outbound far.example"),
        (input("file:///etc/passwd"), 400, "begins with http://"),
        (json!({"input": []}), 400, "lists no files"),
        (input("http://127.0.0.1:99999/x"), 400, "begins with http://"),
        (input(&format!("{}/api/sims", server.url())), 400, "no endpoint"),
    ] {
        let refused = import(&fhir, &manifest).expect(status).refusal();
        assert!(refused.contains(expected), "{manifest}: {refused}");
    }
    fhir.send("POST", "/$import", &[("content-type", "application/json")], b"{").expect(400).refusal();
    fhir.send("POST", "/$import", &[("content-type", "text/csv")], b"a,b").expect(415).refusal();
    fhir.send("POST", "/$import", &[], b"").expect(400).refusal();
    fhir.get("/$import").expect(405);
    // Each is kept, as what was sent and why it was refused.
    let all = events(&server, "a__b");
    assert_eq!(all.len(), 14);
    assert!(all.iter().all(|e| e["interaction"] == "$import" && e["response"]["status"].as_u64().unwrap() >= 400));
    server.client().post("/api/sims/a__b/snapshots", &json!({"name": "s"}));
    assert!(fhir.get("/metadata").text().contains("\"import\""));
}

pub fn parameters(id: &str, more: &[(&str, Value)]) -> Value {
    let mut all =
        vec![json!({"name": "submitter", "valueIdentifier": {"system": "http://s", "value": "me"}}), json!({"name": "submissionId", "valueString": id})];
    for (name, value) in more {
        all.push(match value {
            Value::Array(parts) => json!({"name": name, "part": parts}),
            text if *name == "submissionStatus" => json!({"name": name, "valueCoding": {"system": "http://hl7.org/fhir/event-status", "code": text}}),
            text => json!({"name": name, "valueUrl": text}),
        });
    }
    json!({"resourceType": "Parameters", "parameter": all})
}

/// Puts its own URL in place of `URL` in what another sends.
pub fn relay(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = format!("http://{}", listener.local_addr().unwrap());
    let shown = own.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head_of(&mut stream);
            let mut there = std::net::TcpStream::connect(to.trim_start_matches("http://")).unwrap();
            there.write_all(head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            there.read_to_end(&mut answer).unwrap();
            let text = String::from_utf8(answer).unwrap();
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            let body = body.replace("URL", &shown);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    own
}

#[test]
fn tokens_decide_who_may_import_and_submit() {
    let server = TestServer::start();
    let api = server.client();
    api.put("/api/sims/a__b", &json!({"settings": {"auth": "smart-backend"}})).expect(201);
    api.put("/api/sims/b__b", &json!({"type": "bulk", "settings": {"auth": "smart-backend"}})).expect(201);
    let minted = |sim: &str, scope: &str| {
        let reply = api.post(&format!("/api/sims/{sim}/token"), &json!({"scope": scope})).expect(200).json();
        format!("Bearer {}", reply["access_token"].as_str().unwrap())
    };
    let url = files(vec![("/p", 200, patients(0..1))]);
    let send = |sim: &str, token: &str, operation: &str, body: &Value| {
        api.send(
            "POST",
            &format!("/sim/{sim}/fhir/{operation}"),
            &[("content-type", "application/fhir+json"), ("authorization", token)],
            body.to_string().as_bytes(),
        )
    };
    let manifest = json!({"input": [{"type": "Patient", "url": format!("{url}/p")}]});
    server.fhir("a__b").post("/$import", &manifest).expect(401);
    assert!(send("a__b", &minted("a__b", "system/*.rs"), "$import", &manifest).expect(403).refusal().contains("system/Patient.c"));
    send("a__b", &minted("a__b", "system/Patient.cu"), "$import", &manifest).expect(202);
    // What may be anything needs everything.
    let untyped = json!({"input": [{"url": format!("{url}/p")}]});
    send("a__b", &minted("a__b", "system/Patient.cu"), "$import", &untyped).expect(403);
    let completed = parameters("s", &[("submissionStatus", json!("completed"))]);
    // What is stopped is deleted: who may not delete may not submit.
    assert!(send("a__b", &minted("a__b", "system/*.cu"), "$bulk-submit", &completed).expect(403).refusal().contains("system/*.d"));
    assert!(send("b__b", &minted("b__b", "system/*.rs"), "$bulk-submit", &completed).expect(403).refusal().contains("system/bulk-submit"));
    let submits = minted("b__b", "system/bulk-submit");
    send("b__b", &submits, "$bulk-submit", &completed).expect(200);
    send("b__b", &submits, "$bulk-submit-status", &parameters("s", &[])).expect(202);
    api.send("GET", "/sim/b__b/fhir/Patient", &[("authorization", &submits)], b"").expect(403);
}

#[test]
fn an_import_that_is_cut_off_says_so() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    let begun = fhir.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &patients(0..2_000)).expect(202);
    let status = begun.header("content-location").strip_prefix(server.url()).unwrap().to_owned();
    while fhir.get("/Patient?_summary=count").json()["total"] == 0 {
        std::thread::yield_now();
    }
    server.kill();
    server.restart();
    let there = server.fhir("a__b").get("/Patient?_summary=count").json()["total"].as_u64().unwrap();
    assert!(there > 0 && there.is_multiple_of(200), "{there}: a batch is there or is not");
    let reply = server.client().get(&status);
    match reply.status {
        200 => assert_eq!(there, 2_000),
        _ => assert!(reply.expect(500).refusal().contains("begin it anew")),
    }
    // What ended by itself is ended by hand, too.
    server.client().delete(&status).expect(202);
    server.client().get(&status).expect(404);
}

/// Serves the same to everyone, over TLS; returns its URL and the certificate to trust.
fn secure(body: Vec<u8>) -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = std::sync::Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            head_of(&mut stream);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&body);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (url, made.cert.pem())
}

#[test]
fn files_come_over_tls_from_whom_the_system_trusts() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let (url, certificate) = secure(patients(0..2));
    let (stranger, _) = secure(patients(0..2));
    server.trust(&certificate);
    let manifest = done(&server, import(&fhir, &json!({"input": [{"type": "Patient", "url": format!("{url}/p")}]})));
    assert_eq!((&manifest["output"][0]["count"], &manifest["error"]), (&json!(2), &json!([])));
    let manifest = done(&server, import(&fhir, &json!({"input": [{"type": "Patient", "url": format!("{stranger}/p")}]})));
    let said = said(&server, &manifest);
    assert!(said[0].contains("cannot be fetched") && said[0].to_lowercase().contains("cert"), "{said:?}");
}

#[test]
fn one_bad_line_is_its_own_fault_alone() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let deep = format!("{{\"resourceType\":\"Basic\",\"id\":\"deep\",\"x\":{}1{}}}", "[".repeat(97), "]".repeat(97));
    for bad in [r#"{"resourceType":"Patient","id":"d","active":true,"active":false}"#, r#"{"resourceType":"Patient","id":"s","x":"\ud800"}"#, &deep] {
        let body = [patients(0..75), bad.as_bytes().to_vec(), b"\n".to_vec(), patients(75..150)].concat();
        let manifest = done(&server, fhir.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &body));
        assert_eq!(manifest["output"][0]["count"], 150, "{bad}");
        let said = said(&server, &manifest);
        assert!(said.len() == 1 && said[0].starts_with("line 76: "), "{bad}: {said:?}");
    }
    let long = TestServer::with(&["--auto-create", "--max-body-bytes", "100"]);
    let exactly = |n: usize| {
        let line = |filler: usize| json!({"resourceType": "Patient", "id": format!("p{n}"), "x": "y".repeat(filler)}).to_string();
        line(n - line(0).len())
    };
    let (fits, longer) = (exactly(100), exactly(101));
    assert_eq!((fits.len(), longer.len()), (100, 101));
    let url = files(vec![("/p", 200, format!("{fits}\n{longer}\n{{\"resourceType\":\"Patient\",\"id\":\"last\"}}").into_bytes())]);
    let manifest = done(&long, import(&long.fhir("a__b"), &json!({"input": [{"url": format!("{url}/p")}]})));
    assert_eq!(manifest["output"][0]["count"], 2);
    long.fhir("a__b").get("/Patient/last").expect(200);
}

#[test]
fn what_an_export_lists_is_imported_whatever_it_is_like() {
    let server = TestServer::start();
    let (from, to) = (server.fhir("a__b"), server.fhir("c__d"));
    done(&server, from.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &patients(0..7)));
    to.put("/Patient/gone", &json!({"resourceType": "Patient", "id": "gone"})).expect(201);
    from.put("/Patient/gone", &json!({"resourceType": "Patient", "id": "gone"})).expect(201);
    from.delete("/Patient/gone").expect(204);
    server.client().patch("/api/sims/a__b", &json!({"settings": {"bulk": {"page": 2, "manifestFiles": 1}}})).expect(200);
    let export =
        |query: &str| done(&server, from.send("GET", &format!("/$export?{query}"), &[("accept", "application/fhir+json"), ("prefer", "respond-async")], b""));
    let paged = export("allowPartialManifests=true&_since=2020-01-01T00:00:00Z");
    assert!(paged["link"].is_array());
    let manifest = done(&server, import(&to, &paged));
    assert_eq!(manifest["error"], json!([]));
    assert_eq!(to.get("/Patient?_summary=count").json()["total"], 7);
    to.get("/Patient/gone").expect(410);
    let organized = export("organizeOutputBy=Patient");
    let manifest = done(&server, import(&server.fhir("e__f"), &organized));
    assert_eq!(manifest["output"].as_array().unwrap().iter().map(|o| o["count"].as_u64().unwrap()).sum::<u64>(), 7);
    assert_eq!(server.fhir("e__f").get("/Parameters?_summary=count").json()["total"], 0);
}

#[test]
fn who_gives_up_need_not_wait_for_others() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/p", silent.local_addr().unwrap());
    let begun = import(&fhir, &json!({"input": [{"url": url}]})).expect(202);
    let (held, _) = silent.accept().unwrap();
    server.client().delete(begun.header("content-location").strip_prefix(server.url()).unwrap()).expect(202);
    let manifest = done(&server, fhir.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &patients(0..1)));
    assert_eq!(manifest["output"][0]["count"], 1);
    drop(held);
}

#[test]
fn an_import_into_what_is_emptied_meanwhile_fails() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let begun = fhir.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], &patients(0..20_000)).expect(202);
    let status = begun.header("content-location").strip_prefix(server.url()).unwrap().to_owned();
    while fhir.get("/Patient?_summary=count").json()["total"] == 0 {
        std::thread::yield_now();
    }
    server.client().post("/api/sims/a__b/reset", &json!({}));
    loop {
        let reply = server.client().get(&status);
        match reply.status {
            202 => std::thread::yield_now(),
            404 => break,
            _ => break assert!(reply.expect(500).refusal().contains("was reset meanwhile")),
        }
    }
    // At most what was on its way.
    assert!(fhir.get("/Patient?_summary=count").json()["total"].as_u64().unwrap() <= 200);
}

#[test]
fn lines_that_are_imported_are_kept_as_they_came() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let line = b"{\"resourceType\":\"Parameters\",\"id\":\"p\",\"parameter\":[{\"name\":\"fileRequestHeader\",\"valueString\":\"kept\"}]}\n{}\n";
    let begun = fhir.send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], line).expect(202);
    let folder = server.simdb().join("a__b/fhir/POST").join(begun.header("x-fhirsim-event"));
    done(&server, begun);
    assert_eq!(std::fs::read(folder.join("request_body.ndjson")).unwrap(), line);
    fhir.get("/Parameters/p").expect(200);
}
