//! Events asked for by what they are about, waited for, and streamed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, TestServer, patient};

/// The events that a query finds, as `interaction status`.
fn found(server: &TestServer, query: &str) -> Vec<String> {
    let page = server.client().get(&format!("/api/sims/a__b/events?{query}")).expect(200).json();
    shown(&page)
}

fn shown(page: &Value) -> Vec<String> {
    let one = |e: &Value| format!("{} {}", e["interaction"].as_str().unwrap(), e["response"]["status"]);
    page["events"].as_array().unwrap().iter().map(one).collect()
}

fn fill(fhir: &Client) -> String {
    let created = fhir.send("POST", "/Patient", &[("x-request-id", "trace-1")], patient("x", "House").to_string().as_bytes()).expect(201);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "name": [{"family": "Cuddy"}]})).expect(201);
    let traced = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")];
    fhir.send("PUT", "/Patient/p", &traced, br#"{"resourceType":"Patient","id":"p","name":[{"family":"Wilson"}],"birthDate":"1970"}"#).expect(200);
    fhir.send("POST", "/Observation", &[], b"{").expect(400);
    fhir.delete("/Patient/p").expect(204);
    let entry = |n: u8| json!({"resource": {"resourceType": "Group", "id": format!("g{n}"), "type": "person", "actual": true}, "request": {"method": "PUT", "url": format!("Group/g{n}")}});
    fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry(1), entry(2)]})).expect(200);
    let xml = br#"<Patient xmlns="http://hl7.org/fhir"><name><family value="Foreman"/></name></Patient>"#;
    fhir.send("POST", "/Patient", &[("content-type", "application/fhir+xml"), ("accept", "application/fhir+xml")], xml).expect(201);
    created.header("x-fhirsim-event").to_owned()
}

#[test]
fn events_are_found_by_what_they_are_about() {
    let mut server = TestServer::start();
    let first = fill(&server.fhir("a__b"));
    for when in ["made", "killed", "index deleted", "stopped"] {
        for (query, expected) in [
            ("order=asc", vec!["create 201", "update 201", "update 200", "unknown 400", "delete 204", "transaction 200", "create 201"]),
            ("limit=2", vec!["create 201", "transaction 200"]),
            ("operation=PUT,delete", vec!["delete 204", "update 200", "update 201"]),
            ("interaction=create", vec!["create 201", "create 201"]),
            ("interaction=create,update&type=Patient&status=201&order=asc", vec!["create 201", "update 201", "create 201"]),
            ("type=Group", vec!["transaction 200"]),
            ("type=Observation", vec!["unknown 400"]),
            ("resource=Patient/p", vec!["delete 204", "update 200", "update 201"]),
            ("resource=g2", vec!["transaction 200"]),
            ("resource=Patient/g2", vec![]),
            ("status=4xx", vec!["unknown 400"]),
            ("status=204,4xx", vec!["delete 204", "unknown 400"]),
            ("client=127.0.0.1&limit=1", vec!["create 201"]),
            ("client=127.0.0.2", vec![]),
            ("trace=trace-1", vec!["create 201"]),
            ("trace=4bf92f3577b34da6a3ce929d0e0e4736", vec!["update 200"]),
            (&format!("since={first}&order=asc&limit=1"), vec!["update 201"]),
            (&format!("until={first}"), vec!["create 201"]),
            (&format!("before={first}"), vec![]),
            ("since=2999-01-01", vec![]),
            ("until=2001", vec![]),
            ("since=2001-01-01T00:00:00Z&until=2999&limit=1&order=asc", vec!["create 201"]),
            ("request=Patient.name.family%20%3D%20'Wilson'", vec!["update 200"]),
            ("request=name.family&response=name.where(family='Foreman').exists()", vec!["create 201"]),
            ("request=birthDate", vec!["update 200"]),
            ("response=issue.severity%20%3D%20'error'", vec!["unknown 400"]),
            ("request=entry.resource.ofType(Group).actual", vec!["transaction 200"]),
        ] {
            assert_eq!(found(&server, query), expected, "{when}: {query}");
        }
        let shown = server.client().get("/api/sims/a__b/events?limit=1").json()["events"][0].clone();
        let folder = server.simdb().join("a__b").join(shown["folder"].as_str().unwrap());
        assert!(folder.join("event.json").exists(), "{folder:?}");
        match when {
            "made" => server.kill(),
            "killed" => {
                server.kill();
                std::fs::remove_dir_all(server.simdb().join("a__b/simindex")).unwrap();
            }
            _ => server.stop(),
        }
        server.restart();
    }
    for (query, said) in [
        ("operation=GOT", "operation 'GOT' is not one of POST, PUT, PATCH, DELETE, TRANSACTION, BATCH, GET"),
        ("status=4x", "neither a status such as 404 nor a class such as 4xx"),
        ("since=yesterday", "'yesterday' is not an event's id such as"),
        ("since=marker:none", "there is no marker 'none'; set: none"),
        ("order=up", "order 'up' is not desc, newest first, or asc"),
        ("request=name.where(", "request 'name.where(' is not a FHIRPath that can be evaluated"),
        ("wait=soon", "wait 'soon' is no duration such as 500ms, 30s or 2m"),
        ("colour=red", "unknown field `colour`"),
    ] {
        let reply = server.client().get(&format!("/api/sims/a__b/events?{query}"));
        assert!((400..=404).contains(&reply.status) && reply.refusal().contains(said), "{query}: {}", reply.text());
    }
}

#[test]
fn pages_of_events_lead_on_both_ways() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let ids: Vec<String> = (0..25).map(|_| fhir.post("/Patient", &patient("x", "x")).expect(201).header("x-fhirsim-event").to_owned()).collect();
    for (order, cursor) in [("asc", "since"), ("desc", "before")] {
        let mut seen = Vec::new();
        let mut next = String::new();
        loop {
            let page = server.client().get(&format!("/api/sims/a__b/events?order={order}&limit=10{next}")).expect(200).json();
            seen.extend(page["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap().to_owned()));
            match page["next"].as_str() {
                Some(last) => next = format!("&{cursor}={last}"),
                None => break,
            }
        }
        if order == "desc" {
            seen.reverse();
        }
        assert_eq!(seen, ids, "{order}");
    }
    let bodies = server.client().get(&format!("/api/sims/a__b/events/{}?include=bodies", ids[0])).expect(200).json();
    assert_eq!(bodies["request"]["text"].as_str().unwrap(), patient("x", "x").to_string());
    assert_eq!(bodies["response"]["text"], bodies["resources"][0]["text"]);
}

/// No sleeping: the request is answered when what it waits for happens.
#[test]
fn a_request_waits_for_what_is_to_happen() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.post("/Patient", &patient("x", "before")).expect(201);
    let marker = server.client().post("/api/sims/a__b/markers", &json!({"name": "start"})).expect(201).json();
    assert_eq!(found(&server, "since=marker:start"), Vec::<String>::new());
    let client = server.client();
    std::thread::scope(|scope| {
        let waits =
            scope.spawn(|| client.get("/api/sims/a__b/events?since=marker:start&type=Patient&request=name.family%3D'wanted'&wait=60s").expect(200).json());
        let two = scope.spawn(|| client.get("/api/sims/a__b/events?since=marker:start&type=Observation&wait=1m&atLeast=2").expect(200).json());
        fhir.post("/Patient", &patient("x", "other")).expect(201);
        fhir.post("/Patient", &patient("x", "wanted")).expect(201);
        let waited = waits.join().unwrap();
        assert_eq!(waited["events"].as_array().unwrap().len(), 1, "{waited}");
        assert_eq!(waited.get("timedOut"), None);
        for _ in 0..2 {
            fhir.post("/Observation", &json!({"resourceType": "Observation", "status": "final"})).expect(201);
        }
        assert_eq!(shown(&two.join().unwrap()), ["create 201", "create 201"]);
    });
    let begun = Instant::now();
    let waited = client.get("/api/sims/a__b/events?since=marker:start&type=Group&wait=50ms").expect(200).json();
    assert_eq!((&waited["timedOut"], waited["events"].as_array().unwrap().len()), (&json!(true), 0));
    assert!(begun.elapsed() >= Duration::from_millis(50));
    // A marker is a moment between two events, and goes with its name.
    assert_eq!(client.get("/api/sims/a__b/markers").json()["markers"], json!([marker]));
    assert_eq!(found(&server, "until=marker:start"), ["create 201"]);
    client.delete("/api/sims/a__b/markers/start").expect(204);
    client.delete("/api/sims/a__b/markers/start").expect(404);
    assert!(client.post("/api/sims/a__b/markers", &json!({"name": "../x"})).expect(400).refusal().contains("is no name of a marker"));
}

/// A live stream: its messages as (event, id, data).
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: &TestServer, query: &str, headers: &str) -> Self {
        let host = server.url().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&host).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        write!(stream, "GET /api/sims/a__b/stream?{query} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the stream has headers");
        }
        Self(reader)
    }

    fn next(&mut self) -> Option<(String, String, Value)> {
        let (mut event, mut id) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut event),
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("data", text)) => return Some((event, id, serde_json::from_str(text).unwrap())),
                _ => {}
            }
        }
    }
}

#[test]
fn a_stream_tells_what_happens_and_resumes() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.post("/Patient", &patient("x", "before")).expect(201);
    let mut all = Stream::open(&server, "", "");
    let mut updates = Stream::open(&server, "interaction=update&request=Patient.active", "");
    fhir.post("/Patient", &patient("x", "a")).expect(201);
    fhir.get("/Patient?name=a").expect(200);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    server.client().post("/api/sims/a__b/markers", &json!({"name": "m"})).expect(201);
    let last = fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true})).expect(200).header("x-fhirsim-event").to_owned();
    let (event, first, data) = all.next().unwrap();
    assert_eq!((event.as_str(), &data["interaction"], &data["operation"]), ("event", &json!("create"), &json!("POST")));
    let (event, id, data) = all.next().unwrap();
    assert_eq!((event.as_str(), id.as_str(), &data["interaction"]), ("read", "", &json!("search-type")));
    assert_eq!(all.next().unwrap().2["response"]["status"], 201);
    let (event, _, data) = all.next().unwrap();
    assert_eq!((event.as_str(), &data["name"]), ("marker", &json!("m")));
    assert_eq!(all.next().unwrap().1, last);
    assert_eq!(updates.next().unwrap().0, "marker", "markers and resets are for all");
    assert_eq!(updates.next().unwrap().1, last);
    // Resumed: what came since, and then what comes.
    drop(all);
    let mut resumed = Stream::open(&server, "", &format!("last-event-id: {first}\r\n"));
    assert_eq!(resumed.next().unwrap().2["interaction"], "update");
    let second = resumed.next().unwrap();
    assert_eq!(second.1, last, "{second:?}");
    let mut counted = Stream::open(&server, "since=2001", "");
    let everything: Vec<String> = (0..4).map(|_| counted.next().unwrap().2["interaction"].as_str().unwrap().to_owned()).collect();
    assert_eq!(everything, ["create", "create", "update", "update"]);
    server.client().post("/api/sims/a__b/reset", &json!({})).expect(200);
    assert_eq!(resumed.next().unwrap().0, "reset");
    assert_eq!(fhir.post("/Patient", &patient("x", "after")).expect(201).header("x-fhirsim-event"), resumed.next().unwrap().1);
    // With all recorded, reads are events.
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"record":"all"}}"#).expect(200);
    let read = fhir.get("/Patient?name=a").expect(200).header("x-fhirsim-event").to_owned();
    let (event, id, data) = resumed.next().unwrap();
    assert_eq!((event.as_str(), id, &data["operation"]), ("event", read.clone(), &json!("GET")));
    let listed = server.client().get("/api/sims/a__b/events?operation=GET&wait=30s").expect(200).json();
    assert_eq!(listed["events"][0]["event"], json!(read));
    // The server's end is the stream's; it is not waited for.
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
    while resumed.next().is_some() {}
    assert!(server.client().try_send("GET", "/health", &[], b"").is_err());
}

/// One that does not read is told what it missed, and keeps nobody.
#[test]
fn a_listener_that_lags_is_told_so() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.post("/Patient", &patient("x", "before")).expect(201);
    let mut slow = Stream::open(&server, "", "");
    // Each is told with its headers, so that the buffers of the connection are soon full.
    let long = "x".repeat(60_000);
    let send = |_| fhir.send("DELETE", "/Patient/none", &[("x-long", &long)], b"").expect(204).header("x-fhirsim-event").to_owned();
    let sent: Vec<String> = (0..1_500).map(send).collect();
    let mut got = Vec::new();
    let mut lagged = 0;
    while got.len() < sent.len() {
        let (event, id, data) = slow.next().unwrap();
        match event.as_str() {
            "event" => got.push(id),
            "lagged" => lagged += data["missed"].as_u64().unwrap(),
            other => panic!("{other}"),
        }
    }
    assert!(lagged > 0, "it was too slow");
    assert_eq!(got, sent, "each once, in order");
}

/// Recorded reads are written off the request's path, and told in their place all the same.
#[test]
fn with_reads_recorded_a_stream_is_whole_and_in_order() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"record": "all"}})).expect(201);
    let mut stream = Stream::open(&server, "", "");
    let resumable = Stream::open(&server, "", "");
    let sent: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|w| {
                let fhir = server.fhir("a__b");
                scope.spawn(move || {
                    let mut sent = Vec::new();
                    for n in 0..100 {
                        let reply = if (n + w) % 2 == 0 {
                            fhir.put(&format!("/Patient/{w}"), &patient(&w.to_string(), "x"))
                        } else {
                            fhir.get(&format!("/Patient/{w}"))
                        };
                        sent.push(reply.header("x-fhirsim-event").to_owned());
                    }
                    sent
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    let mut expected = sent;
    expected.sort();
    let got: Vec<String> = (0..expected.len()).map(|_| stream.next().unwrap().1).collect();
    assert_eq!(got, expected);
    drop(resumable);
    let mut resumed = Stream::open(&server, "", &format!("last-event-id: {}\r\n", expected[150]));
    let rest: Vec<String> = (151..expected.len()).map(|_| resumed.next().unwrap().1).collect();
    assert_eq!(rest, expected[151..]);
    // What is told live keeps to the span, too.
    let mut bounded = Stream::open(&server, &format!("since=2001&until={}", expected[2]), "");
    (0..3).for_each(|n| assert_eq!(bounded.next().unwrap().1, expected[n]));
    server.fhir("a__b").put("/Patient/late", &patient("late", "x")).expect(201);
    server.client().post("/api/sims/a__b/markers", &json!({"name": "end"})).expect(201);
    assert_eq!(bounded.next().unwrap().0, "marker");
}

#[test]
fn a_wait_looks_as_far_back_as_it_must() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.post("/Patient", &patient("x", "wanted")).expect(201);
    for _ in 0..1_050 {
        fhir.delete("/Patient/none").expect(204);
    }
    let found = server.client().get("/api/sims/a__b/events?wait=60s&request=name.family%3D'wanted'").expect(200).json();
    assert_eq!((found["events"].as_array().unwrap().len(), found.get("timedOut")), (1, None));
    assert!(
        server.client().get("/api/sims/a__b/events?wait=1s&atLeast=3&limit=1").expect(400).refusal().contains("atLeast 3 is more than the limit of a page, 1")
    );
}
