//! Submissions of bulk data: what is announced, replaced and taken back.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use crate::importing::{done, events, files, head_of, parameters, patients, relay, said};
use crate::support::{Client, Reply, TestServer, patient};

#[test]
fn manifests_are_submitted_replaced_and_taken_back() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let url = files(vec![
        ("/one.ndjson", 200, patients(0..3)),
        ("/two.ndjson", 200, [patients(3..5), b"{\"resourceType\":\"Patient\",\"id\":\"!\"}\n".to_vec()].concat()),
        ("/secret.ndjson", 200, patients(5..6)),
        (
            "/m1",
            200,
            br#"{"transactionTime":"2026-01-01T00:00:00Z","output":[{"type":"Patient","url":"URL/one.ndjson"}],"link":[{"relation":"next","url":"URL/m2"}]}"#
                .to_vec(),
        ),
        ("/m2", 200, br#"{"output":[{"type":"Patient","url":"URL/two.ndjson"}]}"#.to_vec()),
        ("/m3", 200, br#"{"output":[{"type":"Patient","url":"URL/secret.ndjson"}]}"#.to_vec()),
        ("/broken", 200, b"no manifest".to_vec()),
    ]);
    // The files know where they lie only now.
    let proxy = relay(url);
    let at = |name: &str| json!(format!("{proxy}/{name}"));
    let base = ("fhirBaseUrl", json!("http://sender.example/fhir"));
    let submit = |id: &str, more: &[(&str, Value)]| fhir.post("/$bulk-submit", &parameters(id, more));
    let status = |id: &str| fhir.post("/$bulk-submit-status", &parameters(id, &[]));
    for (more, expected) in [
        (vec![], "neither submissionStatus nor manifestUrl"),
        (vec![("manifestUrl", at("m1"))], "fhirBaseUrl"),
        (vec![("submissionStatus", json!("done"))], "none of in-progress"),
        (vec![("oauthMetadataUrl", json!("http://x")), ("submissionStatus", json!("completed"))], "not supported"),
        (vec![("manifestUrl", json!("http://far.example/m")), base.clone()], "--allow-outbound"),
    ] {
        let refused = submit("s", &more);
        assert!(refused.status >= 400 && refused.refusal().contains(expected), "{more:?}: {}", refused.refusal());
    }
    status("s").expect(404).refusal();
    submit("s", &[("manifestUrl", at("m1")), base.clone()]).expect(200);
    submit("s", &[("manifestUrl", at("m1")), base.clone()]).expect(409).refusal();
    let place = status("s").expect(202).header("content-location").to_owned();
    // It goes on until it is said to be complete.
    server.client().get(place.strip_prefix(server.url()).unwrap()).expect(202);
    let key = json!([{"name": "headerName", "valueString": "X-Key"}, {"name": "headerValue", "valueString": "abc"}]);
    submit("s", &[("manifestUrl", at("m3")), base.clone(), ("fileRequestHeader", key), ("submissionStatus", json!("completed"))]).expect(200);
    let whole = done(&server, status("s"));
    assert_eq!(whole["submissionId"], "s");
    assert!(whole.get("request").is_none() && whole["output"] == json!([]));
    let texts = said(&server, &whole);
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[0].contains("5 resources of 2 files were stored, 1 lines were not") && texts[1].starts_with("line 3: "), "{texts:?}");
    assert!(texts[2].contains("1 resources of 1 files"), "the header was sent along: {texts:?}");
    assert_eq!((&whole["error"][0]["manifestUrl"], &whole["error"][1]["countSeverity"]), (&at("m1"), &json!([{"code": "error", "count": 1}])));
    assert_eq!(fhir.get("/Patient?_summary=count").json()["total"], 6);
    assert!(submit("s", &[("submissionStatus", json!("stopped"))]).expect(409).refusal().contains("ended before"));
    // One that is replaced takes back what it brought, but not what others changed since.
    submit("t", &[("manifestUrl", at("m2")), base.clone()]).expect(200);
    while fhir.get("/Patient/p3").json()["meta"]["versionId"] != "2" || fhir.get("/Patient/p4").json()["meta"]["versionId"] != "2" {
        std::thread::yield_now();
    }
    fhir.put("/Patient/p4", &json!({"resourceType": "Patient", "id": "p4", "active": true})).expect(200);
    assert!(
        submit("t", &[("replacesManifestUrl", at("none")), ("manifestUrl", at("m3")), base.clone()]).expect(422).refusal().contains("was not submitted before")
    );
    submit("t", &[("replacesManifestUrl", at("m2")), ("manifestUrl", at("broken")), base.clone(), ("submissionStatus", json!("completed"))]).expect(200);
    let whole = done(&server, status("t"));
    assert!(said(&server, &whole)[0].contains("cannot be read"), "{whole}");
    let given_back = fhir.get("/Patient/p3").expect(200).json();
    assert_eq!((&given_back["meta"]["versionId"], &given_back["name"][0]["family"]), (&json!("2"), &json!("F3")), "it was there before, and alike");
    assert_eq!(fhir.get("/Patient/p4").json()["active"], true);
    // One that is stopped leaves nothing.
    submit("u", &[("manifestUrl", at("m1")), base]).expect(200);
    submit("u", &[("submissionStatus", json!("stopped"))]).expect(200);
    done(&server, status("u"));
    assert_eq!(fhir.get("/Patient/p0").expect(200).json()["name"][0]["family"], "F0");
    let recorded: Vec<Value> = events(&server, "a__b").into_iter().filter(|e| e["interaction"] == "$bulk-submit").collect();
    assert_eq!(recorded.len(), 14);
}

fn submit(fhir: &Client, id: &str, more: &[(&str, Value)]) -> Reply {
    fhir.post("/$bulk-submit", &parameters(id, more))
}

fn status(fhir: &Client, id: &str) -> Reply {
    fhir.post("/$bulk-submit-status", &parameters(id, &[]))
}

fn base() -> (&'static str, Value) {
    ("fhirBaseUrl", json!("http://sender.example/fhir"))
}

fn count(fhir: &Client, type_name: &str) -> u64 {
    fhir.get(&format!("/{type_name}?_summary=count")).json()["total"].as_u64().unwrap()
}

/// A server whose manifests list one file each, `/slow`, of which it holds back the rest until it is told to send it.
fn slow(first: Vec<u8>, rest: Vec<u8>) -> (String, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (go, waits) = channel();
    let own = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            answer(stream, &own, &first, &rest, &waits);
        }
    });
    (url, go)
}

fn answer(mut stream: TcpStream, own: &str, first: &[u8], rest: &[u8], waits: &Receiver<()>) {
    let head = head_of(&mut stream);
    let manifest = json!({"output": [{"type": "Patient", "url": format!("{own}/slow")}]}).to_string();
    if !head.starts_with("GET /slow") {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{manifest}", manifest.len());
        return;
    }
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", first.len() + rest.len());
    let _ = stream.write_all(first);
    let _ = waits.recv();
    let _ = stream.write_all(rest);
}

/// Many of them, so that the first are stored before the last are sent.
fn many(range: std::ops::Range<usize>) -> Vec<u8> {
    let filler = "x".repeat(12_000);
    range.map(|n| format!("{}\n", json!({"resourceType": "Patient", "id": format!("m{n}"), "text": {"div": filler}}))).collect::<String>().into_bytes()
}

#[test]
fn what_is_replaced_is_taken_back_even_if_the_replacement_is_replaced() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let (url, go) = slow(many(0..400), many(400..500));
    let quick = relay(files(vec![
        ("/b", 200, br#"{"output":[{"type":"Patient","url":"URL/b.ndjson"}]}"#.to_vec()),
        ("/b.ndjson", 200, patients(0..5)),
        ("/c", 200, br#"{"output":[{"type":"Patient","url":"URL/c.ndjson"}]}"#.to_vec()),
        ("/c.ndjson", 200, patients(5..8)),
    ]));
    let (a, b, c) = (json!(format!("{url}/a")), json!(format!("{quick}/b")), json!(format!("{quick}/c")));
    submit(&fhir, "s", &[("manifestUrl", a.clone()), base()]).expect(200);
    while count(&fhir, "Patient") == 0 {
        std::thread::yield_now();
    }
    submit(&fhir, "s", &[("manifestUrl", b.clone()), ("replacesManifestUrl", a), base()]).expect(200);
    submit(&fhir, "s", &[("manifestUrl", c), ("replacesManifestUrl", b), base(), ("submissionStatus", json!("completed"))]).expect(200);
    drop(go);
    let whole = done(&server, status(&fhir, "s"));
    assert_eq!(count(&fhir, "Patient"), 3, "{:?}", said(&server, &whole));
    assert!(fhir.get("/Patient/p5").status == 200 && fhir.get("/Patient/p0").status != 200);
}

/// A server that was killed while it read the manifest of submission `s`, and started again; where the manifest lies.
fn cut_off() -> (TestServer, String) {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    let (url, go) = slow(many(0..400), Vec::new());
    submit(&fhir, "s", &[("manifestUrl", json!(format!("{url}/m"))), base()]).expect(200);
    while count(&fhir, "Patient") == 0 {
        std::thread::yield_now();
    }
    server.kill();
    drop(go);
    server.restart();
    (server, url)
}

#[test]
fn what_is_stopped_is_taken_back_after_a_crash_too() {
    let (mut server, _) = cut_off();
    let fhir = server.fhir("a__b");
    assert!(count(&fhir, "Patient") > 0);
    submit(&fhir, "s", &[("submissionStatus", json!("stopped"))]).expect(200);
    done(&server, status(&fhir, "s"));
    assert_eq!(count(&fhir, "Patient"), 0);
    // A crash while it is taken back: the next start goes on.
    let quick = relay(files(vec![("/m", 200, br#"{"output":[{"type":"Patient","url":"URL/p"}]}"#.to_vec()), ("/p", 200, patients(0..3_000))]));
    submit(&fhir, "t", &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
    while count(&fhir, "Patient") < 3_000 {
        std::thread::yield_now();
    }
    submit(&fhir, "t", &[("submissionStatus", json!("stopped"))]).expect(200);
    while count(&fhir, "Patient") == 3_000 {
        std::thread::yield_now();
    }
    server.kill();
    server.restart();
    let fhir = server.fhir("a__b");
    let whole = done(&server, status(&fhir, "t"));
    assert_eq!(count(&fhir, "Patient"), 0, "{:?}", said(&server, &whole));
    // Said again, it is done again.
    submit(&fhir, "t", &[("submissionStatus", json!("stopped"))]).expect(200);
    done(&server, status(&fhir, "t"));
}

#[test]
fn the_ballot_calls_what_is_told_outcome() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (ig, name, other) in [("4.0", "outcome", "error"), ("3.0", "error", "outcome")] {
        server.client().put("/api/sims/a__b", &json!({"settings": {"bulk": {"ig": ig}}}));
        let quick = relay(files(vec![("/m", 200, br#"{"output":[{"url":"URL/p"}]}"#.to_vec()), ("/p", 200, patients(0..1))]));
        submit(&fhir, ig, &[("manifestUrl", json!(format!("{quick}/m"))), base(), ("submissionStatus", json!("completed"))]).expect(200);
        let whole = done(&server, status(&fhir, ig));
        assert!(whole[name].as_array().is_some_and(|all| !all.is_empty()) && whole.get(other).is_none(), "{whole}");
        assert_eq!(whole.get("manifestType").is_some(), ig == "4.0");
    }
}

#[test]
fn what_was_there_before_is_given_back() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, family) in [("p0", "Mine"), ("gone", "Mine"), ("back", "Mine")] {
        fhir.put(&format!("/Patient/{id}"), &patient(id, family)).expect(201);
    }
    let deletions: Vec<u8> = ["gone", "never"]
        .iter()
        .flat_map(|id| {
            format!(
                "{}\n",
                json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"request": {"method": "DELETE", "url": format!("Patient/{id}")}}]})
            )
            .into_bytes()
        })
        .collect();
    let manifest = br#"{"output":[{"url":"URL/p"}],"deleted":[{"type":"Bundle","url":"URL/d"}]}"#;
    let quick = relay(files(vec![("/m", 200, manifest.to_vec()), ("/p", 200, patients(0..2)), ("/d", 200, deletions)]));
    submit(&fhir, "s", &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
    while fhir.get("/Patient/gone").status != 410 || fhir.get("/Patient/p1").status != 200 {
        std::thread::yield_now();
    }
    submit(&fhir, "s", &[("submissionStatus", json!("stopped"))]).expect(200);
    let whole = done(&server, status(&fhir, "s"));
    for id in ["p0", "gone", "back"] {
        let family = fhir.get(&format!("/Patient/{id}")).expect(200).json()["name"][0]["family"].clone();
        assert_eq!(family, "Mine", "{id}: {:?}", said(&server, &whole));
    }
    fhir.get("/Patient/p1").expect(410);
    fhir.get("/Patient/never").expect(404);
}

#[test]
fn what_was_taken_back_is_not_given_back() {
    let server = TestServer::start();
    let send = |fhir: &Client, id: &str, family: &str| {
        let line = format!("{}\n", patient("p", family)).into_bytes();
        let quick = relay(files(vec![("/m", 200, br#"{"output":[{"url":"URL/p"}]}"#.to_vec()), ("/p", 200, line)]));
        submit(fhir, id, &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
        while fhir.get("/Patient/p").json()["name"][0]["family"] != family {
            std::thread::yield_now();
        }
    };
    let stop = |fhir: &Client, id: &str| {
        submit(fhir, id, &[("submissionStatus", json!("stopped"))]).expect(200);
        done(&server, status(fhir, id));
    };
    // In whatever order two that follow one another are stopped, what was before both comes back.
    for (sim, before, order) in
        [("a__one", None, ["s", "t"]), ("a__two", Some("Mine"), ["s", "t"]), ("a__three", Some("Mine"), ["t", "s"]), ("a__four", None, ["t", "s"])]
    {
        let fhir = server.fhir(sim);
        if let Some(family) = before {
            fhir.put("/Patient/p", &patient("p", family)).expect(201);
        }
        send(&fhir, "s", "A");
        send(&fhir, "t", "B");
        for id in order {
            stop(&fhir, id);
        }
        let left = fhir.get("/Patient/p");
        assert_eq!((left.status == 410, before.is_none()), (before.is_none(), left.status == 410), "{sim}");
        if let Some(family) = before {
            assert_eq!(left.json()["name"][0]["family"], family, "{sim}");
        }
        // Stopped again, nothing changes.
        let versions = || fhir.get("/Patient/p/_history").json()["total"].clone();
        let count = versions();
        stop(&fhir, "s");
        stop(&fhir, "t");
        assert_eq!(versions(), count, "{sim}");
        // What somebody else has put on top stays.
        fhir.put("/Patient/p", &patient("p", "Theirs"));
        stop(&fhir, "s");
        assert_eq!(fhir.get("/Patient/p").json()["name"][0]["family"], "Theirs", "{sim}");
    }
}

#[test]
fn what_refers_to_one_another_is_taken_back_whatever_the_settings() {
    let server = TestServer::start();
    for (sim, settings) in [("a__b", json!({"referentialIntegrity": "on"})), ("c__d", json!({"versioning": "no-version"}))] {
        server.client().put(&format!("/api/sims/{sim}"), &json!({"settings": settings})).expect(201);
        let fhir = server.fhir(sim);
        let observation = |n: usize| json!({"resourceType": "Procedure", "id": format!("z{n}"), "status": "completed", "subject": {"reference": "Patient/p0"}});
        let lines: Vec<u8> = (0..3).flat_map(|n| format!("{}\n", observation(n)).into_bytes()).collect();
        let quick =
            relay(files(vec![("/m", 200, br#"{"output":[{"url":"URL/p"},{"url":"URL/o"}]}"#.to_vec()), ("/p", 200, patients(0..1)), ("/o", 200, lines)]));
        submit(&fhir, "s", &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
        while count(&fhir, "Procedure") < 3 {
            std::thread::yield_now();
        }
        submit(&fhir, "s", &[("submissionStatus", json!("stopped"))]).expect(200);
        let whole = done(&server, status(&fhir, "s"));
        assert_eq!((count(&fhir, "Patient"), count(&fhir, "Procedure")), (0, 0), "{sim}: {:?}", said(&server, &whole));
    }
    // What cannot be taken back is told.
    let fhir = server.fhir("a__b");
    let quick = relay(files(vec![("/m", 200, br#"{"output":[{"url":"URL/p"}]}"#.to_vec()), ("/p", 200, patients(0..1))]));
    submit(&fhir, "t", &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
    while count(&fhir, "Patient") == 0 {
        std::thread::yield_now();
    }
    fhir.put("/Procedure/mine", &json!({"resourceType": "Procedure", "id": "mine", "status": "completed", "subject": {"reference": "Patient/p0"}})).expect(201);
    submit(&fhir, "t", &[("submissionStatus", json!("stopped"))]).expect(200);
    let texts = said(&server, &done(&server, status(&fhir, "t")));
    assert!(texts.len() == 1 && texts[0].contains("Patient/p0 was changed and cannot be taken back") && texts[0].contains("Procedure/mine"), "{texts:?}");
}

#[test]
fn a_manifest_that_a_crash_has_cut_off_is_told_of() {
    let (server, url) = cut_off();
    let fhir = server.fhir("a__b");
    submit(&fhir, "s", &[("submissionStatus", json!("completed"))]).expect(200);
    let whole = done(&server, status(&fhir, "s"));
    let texts = said(&server, &whole);
    assert!(texts.len() == 1 && texts[0].contains("begin it anew"), "{texts:?}");
    assert_eq!(whole["error"][0]["manifestUrl"], format!("{url}/m"));
    // Jobs of before are listed without being asked for; secrets that were to be sent along are not kept.
    assert!(server.client().get("/api/sims/a__b/exports").json()["exports"].as_array().unwrap().len() >= 2);
    let secret = json!([{"name": "headerName", "valueString": "Authorization"}, {"name": "headerValue", "valueString": "Bearer hush"}]);
    submit(&fhir, "t", &[("manifestUrl", json!(format!("{url}/m"))), base(), ("fileRequestHeader", secret), ("submissionStatus", json!("completed"))])
        .expect(200);
    let kept: String = std::fs::read_dir(server.simdb().join("a__b/fhir/POST"))
        .unwrap()
        .map(|event| std::fs::read_to_string(event.unwrap().path().join("request_body.json")).unwrap_or_default())
        .collect();
    assert!(kept.contains("[redacted]") && !kept.contains("hush"));
    let framed = json!([{"name": "headerName", "valueString": "Content-Length"}, {"name": "headerValue", "valueString": "5"}]);
    submit(&fhir, "u", &[("manifestUrl", json!(format!("{url}/m"))), base(), ("fileRequestHeader", framed)]).expect(400).refusal();
    status(&fhir, "u").expect(404);
}

#[test]
fn what_waits_while_the_simulator_is_sealed_is_taken_back() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let quick = relay(files(vec![("/m", 200, br#"{"output":[{"url":"URL/p"}]}"#.to_vec()), ("/p", 200, patients(0..5))]));
    submit(&fhir, "s", &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
    while count(&fhir, "Patient") < 5 {
        std::thread::yield_now();
    }
    // Another import holds it up.
    let (url, go) = slow(many(0..200), Vec::new());
    let import = json!({"input": [{"type": "Patient", "url": format!("{url}/slow")}]});
    let other = fhir.send("POST", "/$import", &[("content-type", "application/json")], import.to_string().as_bytes()).expect(202);
    while count(&fhir, "Patient") == 5 {
        std::thread::yield_now();
    }
    submit(&fhir, "s", &[("submissionStatus", json!("stopped"))]).expect(200);
    server.client().post("/api/sims/a__b/snapshots", &json!({"name": "x"}));
    drop(go);
    done(&server, other);
    done(&server, status(&fhir, "s"));
    assert_eq!((0..5).filter(|n| fhir.get(&format!("/Patient/p{n}")).status == 200).count(), 0);
    submit(&fhir, "nothing", &[("submissionStatus", json!("stopped"))]).expect(404).refusal();
    // A chain goes together, however long it is.
    server.client().patch("/api/sims/a__b", &json!({"settings": {"referentialIntegrity": "on"}})).expect(200);
    let chain: String = (0..300)
        .map(|n| {
            let part_of = if n == 0 { json!(null) } else { json!({"reference": format!("Organization/c{}", n - 1)}) };
            let mut organization = json!({"resourceType": "Organization", "id": format!("c{n}"), "partOf": part_of});
            organization.as_object_mut().unwrap().retain(|_, v| !v.is_null());
            format!("{organization}\n")
        })
        .collect();
    let quick = relay(files(vec![("/m", 200, br#"{"output":[{"url":"URL/p"}]}"#.to_vec()), ("/p", 200, chain.into_bytes())]));
    submit(&fhir, "t", &[("manifestUrl", json!(format!("{quick}/m"))), base()]).expect(200);
    while count(&fhir, "Organization") < 300 {
        std::thread::yield_now();
    }
    let before = events(&server, "a__b").len();
    submit(&fhir, "t", &[("submissionStatus", json!("stopped"))]).expect(200);
    done(&server, status(&fhir, "t"));
    assert_eq!(count(&fhir, "Organization"), 0);
    assert!(events(&server, "a__b").len() < before + 6);
}
