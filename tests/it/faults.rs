//! Faults that a simulator is told to have.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, TestServer};

fn set(server: &TestServer, rules: &Value) {
    let reply = server.client().put("/api/sims/a__b/faults", rules);
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn fill(fhir: &Client) {
    for n in 0..3 {
        fhir.put(&format!("/Patient/{n}"), &json!({"resourceType": "Patient", "id": n.to_string()})).expect(201);
    }
    fhir.put("/Patient/0", &json!({"resourceType": "Patient", "id": "0", "active": true})).expect(200);
}

fn preset(name: &str) -> Value {
    json!([{"preset": name}])
}

#[test]
fn answers_are_as_the_rules_say() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for (name, status, header, value) in [
        ("unavailable", 503, "retry-after", "2"),
        ("too-many-requests", 429, "retry-after", "2"),
        ("internal-error", 500, "content-type", "application/fhir+json; charset=utf-8"),
        ("html", 502, "content-type", "text/html"),
        ("wrong-content-type", 200, "content-type", "text/plain"),
        ("stale-etag", 200, "etag", "W/\"1\""),
        ("no-etag", 200, "etag", ""),
        ("version-conflict", 412, "etag", ""),
        ("expired-token", 401, "www-authenticate", "Bearer error=\"invalid_token\", error_description=\"the token has expired\""),
    ] {
        set(&server, &preset(name));
        let reply = fhir.get("/Patient/0").expect(status);
        assert_eq!(reply.header(header), value, "{name}");
        assert!(!reply.header("x-fhirsim-event").is_empty(), "{name}");
        if status >= 400 && name != "html" {
            assert_eq!(reply.json()["resourceType"], "OperationOutcome", "{name}");
        }
    }
    set(&server, &preset("malformed"));
    let broken = fhir.get("/Patient/0").expect(200);
    assert!(serde_json::from_slice::<Value>(&broken.bytes).is_err());
    set(&server, &preset("stale-read"));
    assert_eq!(fhir.get("/Patient/0").json()["meta"]["versionId"], "1");
    assert_eq!(fhir.get("/Patient?active=true").json()["total"], 0);
    let page = |name: &str| {
        set(&server, &preset(name));
        fhir.get("/Patient?_count=2&_sort=_id").expect(200).json()
    };
    let entries = |page: &Value| page["entry"].as_array().unwrap().iter().map(|e| e["resource"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(entries(&page("duplicate-entry")), ["0", "1", "1"]);
    assert_eq!(entries(&page("missing-entry")), ["0"]);
    assert_eq!(page("wrong-total")["total"], 4);
    let next = page("broken-next")["link"].as_array().unwrap().iter().find(|l| l["relation"] == "next").unwrap()["url"].as_str().unwrap().to_owned();
    server.client().send("DELETE", "/api/sims/a__b/faults", &[], b"").expect(200);
    fhir.get(next.split("/fhir").nth(1).unwrap()).expect(400);
    fhir.get("/Patient/0").expect(200);
}

#[test]
fn rules_befall_the_requests_they_name_and_say_so() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    set(
        &server,
        &json!([
            {"name": "second create", "match": {"interaction": ["create"], "nth": 2}, "preset": "unavailable"},
            {"match": {"type": ["Observation"], "method": ["GET"]}, "effect": {"status": 418, "code": "business-rule", "text": "no tea", "performed": true}},
            {"name": "asked", "match": {"header": {"name": "x-fault", "value": "1"}}, "preset": "failed-answer"},
            {"name": "of the count", "match": {"parameter": {"name": "_count", "value": "7"}}, "preset": "wrong-total"}
        ]),
    );
    let create = || fhir.post("/Patient", &json!({"resourceType": "Patient"})).status;
    assert_eq!([create(), create(), create()], [201, 503, 201]);
    assert_eq!(fhir.get("/Patient?_count=0").json()["total"], 5, "nothing came of the second");
    let refused = fhir.get("/Observation/x").expect(418).json();
    assert_eq!((&refused["issue"][0]["code"], &refused["issue"][0]["diagnostics"]), (&json!("business-rule"), &json!("no tea")));
    assert_eq!(fhir.get("/Patient?_count=7").json()["total"], 6);
    let body = br#"{"resourceType":"Patient","id":"asked"}"#;
    fhir.send("PUT", "/Patient/asked", &[("x-fault", "1")], body).expect(500);
    fhir.get("/Patient/asked").expect(200);
    // The events say which rule it was, and what was answered.
    let events = server.client().get("/api/sims/a__b/events?limit=4&order=desc").expect(200).json()["events"].clone();
    let shown: Vec<String> =
        events.as_array().unwrap().iter().map(|e| format!("{} {} {}", e["interaction"].as_str().unwrap(), e["response"]["status"], e["fault"])).collect();
    assert_eq!(shown, ["update 500 \"asked\"", "create 201 null", "create 503 \"second create\"", "create 201 null"]);
    let log = server.client().get("/api/sims/a__b/log?limit=10").json()["entries"].clone();
    let faulted: Vec<&Value> = log.as_array().unwrap().iter().filter_map(|e| e.get("fault")).collect();
    assert_eq!(faulted, [&json!("of the count"), &json!("rule-1")]);
    // The same rules set again count anew.
    let third = json!([{"match": {"interaction": ["vread"], "nth": 2}, "preset": "internal-error"}]);
    let vread = || fhir.get("/Patient/0/_history/1").status;
    for _ in 0..2 {
        set(&server, &third);
        assert_eq!([vread(), vread(), vread()], [200, 500, 200]);
    }
    let lost = json!([{"preset": "lost-answer", "match": {"interaction": ["delete"]}}]);
    set(&server, &lost);
    assert!(fhir.try_send("DELETE", "/Patient/2", &[], b"").is_err());
    assert_eq!(server.client().get("/api/sims/a__b/events?status=0").json()["events"][0]["interaction"], "delete");
    set(&server, &json!([{"effect": {"status": 204, "performed": true}}]));
    assert_eq!(fhir.get("/Patient/0").expect(204).text(), "");
    set(
        &server,
        &json!([{"match": {"type": ["Observation"], "method": ["GET"]}, "effect": {"status": 418}}, {"preset": "slow", "match": {"type": ["Basic"]}},
        {"preset": "slow", "match": {"type": ["Group"]}}, {"preset": "slow", "match": {"type": ["List"]}}]),
    );
    // They are a setting, and stay.
    server.stop();
    server.restart();
    let fhir = server.fhir("a__b");
    fhir.get("/Observation/x").expect(418);
    assert_eq!(server.client().get("/api/sims/a__b/faults").json()["faults"].as_array().unwrap().len(), 4);
    for (rules, said) in [
        (json!([{"name": "a", "preset": "slow"}, {"name": "a", "preset": "drop"}]), "fault 1: another is called 'a', too"),
        (json!([{"preset": "quick"}]), "fault 0: preset 'quick' is none of slow, timeout"),
        (json!([{"preset": "slow", "match": {"method": ["FETCH"]}}]), "method 'FETCH' is none of GET, HEAD"),
        (json!([{"preset": "slow", "match": {"header": {"name": " "}}}]), "has a name"),
        (json!([{"match": {"interaction": ["read"]}}]), "fault 0: it has no effect; give one, or a preset"),
        (json!([{"preset": "slow", "effect": {"status": 500}}]), "a rule has one of them"),
        (json!([{"effect": {"status": 99}}]), "status 99 is not one from 200 to 599"),
        (json!([{"effect": {"delayMs": 999_999_999}}]), "are more than 300000 together"),
        (json!([{"preset": "slow", "match": {"every": 0}}]), "are from 1 on"),
        (json!([{"preset": "slow", "match": {"probability": 2}}]), "probability is not between 0 and 1"),
        (json!([{"preset": "slow", "match": {"colour": "red"}}]), "unknown field `colour`"),
        (json!([{"preset": "slow", "match": {"interaction": ["read", "serach-type"]}}]), "did you mean 'search-type'?"),
        (json!([{"preset": "slow", "match": {"type": ["Pateint"]}}]), "'Pateint' is a resource type of no version of FHIR"),
        (json!([{"effect": {"contentType": "a\r\nx: y"}}]), "printable characters"),
    ] {
        let refused = server.client().put("/api/sims/a__b/faults", &rules).expect(400).refusal();
        assert!(refused.contains(said), "{rules}: {refused}");
    }
}

/// What comes over the wire, until it ends.
fn raw(server: &TestServer, request: &str) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let host = server.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (all, None),
            Ok(n) => all.extend(&buffer[..n]),
            Err(e) => return (all, Some(e.kind())),
        }
    }
}

#[test]
fn connections_end_as_the_rules_say() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let read = "GET /sim/a__b/fhir/Patient/0";
    set(&server, &preset("drop"));
    assert_eq!(raw(&server, read), (Vec::new(), None));
    set(&server, &preset("reset"));
    assert_eq!(raw(&server, read), (Vec::new(), Some(std::io::ErrorKind::ConnectionReset)));
    // Nothing done, and done.
    raw(&server, "DELETE /sim/a__b/fhir/Patient/1");
    set(&server, &preset("lost-answer"));
    assert_eq!(raw(&server, "DELETE /sim/a__b/fhir/Patient/2").0, b"");
    set(&server, &json!([]));
    fhir.get("/Patient/1").expect(200);
    fhir.get("/Patient/2").expect(410);
    let lost = server.client().get("/api/sims/a__b/events?operation=DELETE").json()["events"].clone();
    assert_eq!((&lost[0]["fault"], &lost[1]["fault"]), (&json!("lost-answer-0"), &json!("reset-0")));
    set(&server, &preset("truncated"));
    let (got, _) = raw(&server, read);
    let text = String::from_utf8(got).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length: usize = head.to_ascii_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ").map(str::to_owned)).unwrap().parse().unwrap();
    assert_eq!(body.len(), length / 2, "{text}");
    // Slow, but whole.
    set(&server, &json!([{"effect": {"bytesPerSecond": 400}}]));
    let begun = Instant::now();
    assert_eq!(fhir.get("/Patient/0").expect(200).json()["id"], "0");
    assert!(begun.elapsed() >= Duration::from_millis(200));
    set(&server, &json!([{"effect": {"delayMs": 120}}]));
    let begun = Instant::now();
    fhir.get("/Patient/0").expect(200);
    assert!(begun.elapsed() >= Duration::from_millis(120));
    // One that stalls ends with the server.
    set(&server, &preset("stall"));
    let host = server.url().trim_start_matches("http://").to_owned();
    let mut stalled = TcpStream::connect(&host).unwrap();
    write!(stalled, "{read} HTTP/1.1\r\nhost: {host}\r\n\r\n").unwrap();
    let mut some = [0; 64];
    assert!(stalled.read(&mut some).unwrap() > 0);
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_fault_has_an_effect_or_does_not_befall() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    for effect in
        [json!({"retryAfter": 5}), json!({"performed": true}), json!({"text": "x"}), json!({"code": "bogus"}), json!({"status": 500, "code": "bogus code!"})]
    {
        let refused = api.put("/api/sims/a__b/faults", &json!([{"effect": effect}])).expect(400).refusal();
        assert!(refused.contains("the effect has to have") || refused.contains("issue-type"), "{refused}");
    }
    api.put("/api/sims/a__b/faults", &json!([{"match": {"interaction": ["create"]}, "preset": "missing-entry"}])).expect(400);
    set(&server, &json!([{"match": {"interaction": ["$everything"]}, "preset": "wrong-total"}]));
    let everything = fhir.get("/Patient/p/$everything").expect(200).json();
    assert_eq!(everything["total"], everything["entry"].as_array().unwrap().len() + 1);
    set(&server, &json!([{"match": {"nth": 1}, "preset": "duplicate-entry"}, {"match": {"nth": 1}, "preset": "stale-read"}]));
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true})).expect(200);
    let stale = fhir.get("/Patient/p").expect(200);
    assert_eq!(stale.json()["meta"]["versionId"], "1");
    assert_eq!(fhir.get("/Patient").json()["entry"].as_array().unwrap().len(), 2);
    let log = api.get("/api/sims/a__b/log").json();
    assert_eq!((&log["entries"][0]["fault"], &log["entries"][1]["fault"]), (&json!("duplicate-entry-0"), &json!("stale-read-1")));
    let put = api.get("/api/sims/a__b/events?limit=1").json()["events"][0].clone();
    assert_eq!((&put["interaction"], &put["fault"]), (&json!("update"), &Value::Null));
}
