//! Recorded requests sent again.

use std::process::Command;

use serde_json::json;

use crate::support::{TestServer, patient};

fn replay(server: &TestServer, arguments: &[&str]) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_fhirsim")).arg("replay").args(arguments).args(["--server", server.url()]).output().unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
}

#[test]
fn what_was_recorded_is_answered_alike_by_another() {
    let server = TestServer::start();
    for sim in ["a__one", "a__two", "a__three"] {
        server.client().put(&format!("/api/sims/{sim}"), &json!({"settings": {"record": "all"}})).expect(201);
    }
    let fhir = server.fhir("a__one");
    let made = fhir.post("/Patient", &patient("x", "House")).expect(201).json()["id"].as_str().unwrap().to_owned();
    fhir.put(
        &format!("/Patient/{made}"),
        &json!({"resourceType": "Patient", "id": made, "active": true, "link": [{"other": {"reference": format!("Patient/{made}")}, "type": "seealso"}]}),
    )
    .expect(200);
    let entry = json!({"fullUrl": "urn:uuid:51111111-1111-4111-8111-111111111111", "resource": {"resourceType": "Organization", "name": "o"}, "request": {"method": "POST", "url": "Organization"}});
    let done = fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})).expect(200).json();
    let organization = done["entry"][0]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    fhir.send("DELETE", &format!("/{organization}"), &[], b"").expect(204);
    fhir.post("/Patient", &json!({"resourceType": "Pateint"})).expect(400);
    let last = fhir.get("/Patient?active=true").expect(200).header("x-fhirsim-event").to_owned();
    server.client().get(&format!("/api/sims/a__one/events?resource={last}&wait=1ms")).expect(200);
    let listed = || server.client().get("/api/sims/a__one/events?operation=GET&wait=30s").json()["events"].as_array().unwrap().len();
    assert_eq!(listed(), 1);
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(same, "{said}");
    assert!(said.contains("6 sent again to") && said.contains(", 0 answered differently"), "{said}");
    assert_eq!(server.fhir("a__two").get("/Patient?active=true").json()["total"], 1);
    // Another that differs is told apart.
    server.client().put("/api/sims/a__three/faults", &json!([{"match": {"interaction": ["search-type"]}, "preset": "wrong-total"}])).expect(200);
    let (same, said) = replay(&server, &["a__one", &format!("{}/sim/a__three/fhir", server.url())]);
    assert!(!same && said.contains("different: total is 2 instead of 1") && said.contains("1 of 6 exchanges differ"), "{said}");
    let (_, said) = replay(&server, &["a__one", "a__three", "--filter", "interaction=delete"]);
    assert!(said.lines().any(|line| line.starts_with("1 sent again to")), "{said}");
    // An answer without what there was is another one.
    server.client().put("/api/sims/a__three/faults", &json!([{"match": {"interaction": ["search-type"]}, "preset": "malformed"}])).expect(200);
    let (same, said) = replay(&server, &["a__one", "a__three", "--filter", "interaction=search-type"]);
    assert!(!same && said.contains("the content is none instead of a resource"), "{said}");
}

#[test]
fn a_simulator_is_sent_again_to_itself_once() {
    let server = TestServer::start();
    // What is below the endpoint begins after the second `fhir`.
    let fhir = server.fhir("fhir__fhirs");
    // More than fit on a page of the list.
    for n in 0..120 {
        fhir.put(&format!("/Patient/{}", n % 3), &json!({"resourceType": "Patient", "id": (n % 3).to_string()}));
    }
    let (_, said) = replay(&server, &["fhir__fhirs", "fhir__fhirs"]);
    assert!(said.lines().any(|line| line.starts_with("120 sent again to")), "{said}");
    assert_eq!(fhir.get("/_history?_count=0").expect(200).json()["total"], 240);
}

#[test]
fn what_is_each_servers_own_is_no_difference() {
    let server = TestServer::start();
    for sim in ["a__one", "a__two"] {
        server.client().put(&format!("/api/sims/{sim}"), &json!({"settings": {"record": "all"}})).expect(201);
    }
    let fhir = server.fhir("a__one");
    fhir.get("/Patient?active=true").expect(200);
    for n in 0..5 {
        fhir.put(&format!("/Patient/{n}"), &patient(&n.to_string(), "House")).expect(201);
    }
    let page = fhir.get("/Patient?_count=2&_sort=_id").expect(200).json();
    let next = crate::support::link(&page, "next").unwrap().split("/fhir").last().unwrap().to_owned();
    assert_eq!(fhir.ids(&next), ["2", "3"]);
    let entry = json!({"request": {"method": "GET", "url": "Patient?_id=1"}});
    fhir.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": [entry]})).expect(200);
    fhir.get("/metadata").expect(200);
    let head = fhir.send("HEAD", "/Patient/1", &[], b"").expect(200).header("x-fhirsim-event").to_owned();
    let found = server.client().get("/api/sims/a__one/events?operation=GET&atLeast=5&wait=60s").expect(200).json();
    assert_eq!(found["events"].as_array().unwrap().len(), 5);
    // What was not sent is not kept as if it had been.
    let folder = server.simdb().join("a__one/fhir/GET").join(head);
    assert!(folder.join("event.json").exists() && !folder.join("response_body.json").exists());
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(same && said.contains("11 sent again to"), "{said}");
}

#[test]
fn bodies_are_sent_again_as_they_were() {
    let server = TestServer::start();
    let fhir = server.fhir("a__one");
    server.client().put("/api/sims/a__two", &json!({})).expect(201);
    let picture: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    let id = fhir.send("POST", "/Binary", &[("content-type", "image/png")], &picture).expect(201).json()["id"].as_str().unwrap().to_owned();
    let long = json!({"resourceType": "Patient", "id": "long", "name": [{"text": "x".repeat(2 << 20)}]});
    fhir.put("/Patient/long", &long).expect(201);
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(same && said.contains("2 sent again"), "{said}");
    let there = server.fhir("a__two");
    let made = there.ids("/Binary?_elements=id").remove(0);
    assert_ne!(made, id);
    assert_eq!(there.get(&format!("/Binary/{made}")).bytes, picture);
    assert_eq!(there.get("/Patient/long").json()["name"], long["name"]);
    // The server, too.
    server.client().put("/api/sims/a__three", &json!({})).expect(201);
    let said = server.client().post("/api/sims/a__one/replay", &json!({"to": "a__three"})).expect(200).text().to_owned();
    assert!(said.contains(r#"{"sent":2,"different":0}"#), "{said}");
    assert_eq!(server.fhir("a__three").get("/Patient/long").json()["name"], long["name"]);
}

#[test]
fn what_was_asked_of_the_past_is_not_sent_to_the_present() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__one"), server.client());
    api.put("/api/sims/a__two", &json!({})).expect(201);
    let first = fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true})).expect(201).header("x-fhirsim-event").to_owned();
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true, "gender": "male"})).expect(200);
    let past = server.fhir(&format!("a__one@{first}"));
    let refused = past.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": false})).expect(405).header("x-fhirsim-event").to_owned();
    // Whatever is wrong with it besides.
    for body in ["{bad", r#"{"resourceType":"Patient"}"#] {
        for method in ["PUT", "PATCH", "POST", "DELETE"] {
            let reply = past.send(method, "/Patient/p2", &[("content-type", "application/fhir+json")], body.as_bytes()).expect(405);
            assert_eq!(reply.header("allow"), "GET, HEAD", "{method} {body}");
        }
    }
    let page = api.send("POST", &format!("/sims/a__one/events/{refused}"), &[], b"");
    assert!(page.status >= 400 && page.text().contains("a moment of the past"), "{}", page.status);
    assert_eq!(fhir.get("/Patient/p").json()["meta"]["versionId"], "2");
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(!same && said.contains("not sent: it was about a moment of the past"), "{said}");
    assert_eq!(server.fhir("a__two").get("/Patient/p").json()["active"], true);
}

#[test]
fn ids_are_called_as_they_are_there() {
    let server = TestServer::start();
    for sim in ["a__one", "a__two"] {
        server.client().put(&format!("/api/sims/{sim}"), &json!({"settings": {"record": "all"}})).expect(201);
    }
    let fhir = server.fhir("a__one");
    let id = fhir.post("/Patient", &json!({"resourceType": "Patient"})).expect(201).json()["id"].as_str().unwrap().to_owned();
    let absolute =
        json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": format!("{}/Patient/{id}", fhir.base())}});
    fhir.post("/Observation", &absolute).expect(201);
    fhir.get(&format!("/Patient?_id={id}"));
    fhir.get(&format!("/Observation?patient={id}"));
    fhir.send("POST", "/Patient/_search", &[("content-type", "application/x-www-form-urlencoded")], format!("_id={id}").as_bytes()).expect(200);
    fhir.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": format!("Patient?_id={id}")}}]}))
        .expect(200);
    server.client().get("/api/sims/a__one/events?interaction=search-type&atLeast=3&wait=30s").expect(200);
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(same && said.contains("6 sent again"), "{said}");
    let there = server.fhir("a__two");
    let made = there.ids("/Patient").remove(0);
    let reference = there.get("/Observation").json()["entry"][0]["resource"]["subject"]["reference"].clone();
    assert_eq!(reference, format!("{}/Patient/{made}", there.base()));
    // One id that begins as another is another.
    server.client().put("/api/sims/a__three", &json!({})).expect(201);
    let from = server.fhir("a__from");
    from.put("/Patient/p1", &json!({"resourceType": "Patient", "id": "p1", "identifier": [{"value": "X"}]})).expect(201);
    server.client().post("/api/sims/a__from/markers", &json!({"name": "m"})).expect(201);
    from.send("POST", "/Patient", &[("if-none-exist", "identifier=X"), ("content-type", "application/fhir+json")], br#"{"resourceType":"Patient"}"#)
        .expect(200);
    from.put("/Patient/p10", &json!({"resourceType": "Patient", "id": "p10"})).expect(201);
    let (_, said) = replay(&server, &["a__from", "a__three", "--filter", "since=marker:m"]);
    assert!(said.contains("PUT /sim/a__from/fhir/Patient/p10: same"), "{said}");
}

#[test]
fn what_came_with_knobs_goes_where_it_was_meant() {
    let server = TestServer::start();
    let api = server.client();
    api.put("/api/sims/a__two", &json!({})).expect(201);
    let knobs = server.client();
    server.fhir("a__one").put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true})).expect(201);
    knobs.put("/sim/a__one/eyJwYWdlIjo1fQ/fhir/Patient/q", &json!({"resourceType": "Patient", "id": "q"})).expect(201);
    knobs.delete("/sim/a__one/eyJwYWdlIjo1fQ/fhir/Patient?active=true").expect(204);
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(same && said.contains("3 sent again"), "{said}");
    assert_eq!(server.fhir("a__two").ids("/Patient"), ["q"]);
}

#[test]
fn replays_send_what_was_sent_and_go_on() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__one"), server.client());
    api.put("/api/sims/a__two", &json!({})).expect(201);
    for n in 0..4 {
        let headers = [("x-tenant", "a"), ("accept-language", "de"), ("content-type", "application/fhir+json")];
        fhir.send("PUT", &format!("/Patient/p{n}"), &headers, format!(r#"{{"resourceType":"Patient","id":"p{n}"}}"#).as_bytes()).expect(201);
    }
    api.put("/api/sims/a__two/faults", &json!([{"match": {"nth": 2}, "preset": "lost-answer"}])).expect(200);
    let (same, said) = replay(&server, &["a__one", "a__two"]);
    assert!(!same && said.contains("different: no answer") && said.contains("4 sent again") && said.contains("1 of 4"), "{said}");
    let events = api.get("/api/sims/a__two/events?resource=Patient/p3").expect(200).json();
    let record = api.get(&format!("/api/sims/a__two/events/{}", events["events"][0]["event"].as_str().unwrap())).expect(200).json();
    assert_eq!((&record["request"]["headers"]["x-tenant"], &record["request"]["headers"]["accept-language"]), (&json!("a"), &json!("de")));
    // One that was lost is lost again.
    api.put("/api/sims/a__three", &json!({"settings": {"faults": [{"match": {"nth": 2}, "preset": "lost-answer"}]}})).expect(201);
    let (same, said) = replay(&server, &["a__two", "a__three"]);
    assert!(same, "{said}");
    let (same, said) = replay(&server, &["a__one", "none__x"]);
    assert!(!same && said.contains("none__x") && !said.contains("404 instead of"), "{said}");
    // XML is compared, too.
    for (sim, active) in [("a__x", true), ("a__y", false)] {
        api.put(&format!("/api/sims/{sim}"), &json!({"settings": {"record": "all"}})).expect(201);
        server.fhir(sim).put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": active})).expect(201);
    }
    let read = server.fhir("a__x").get("/Patient/p?_format=xml").expect(200).header("x-fhirsim-event").to_owned();
    api.get("/api/sims/a__x/events?interaction=read&wait=30s").expect(200);
    let (same, said) = replay(&server, &["a__x", "a__y", "--filter", "interaction=read"]);
    assert!(!same && said.contains("active is false instead of true") && said.contains(&read), "{said}");
}
