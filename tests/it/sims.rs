//! Management of simulators, and who may do it.

use serde_json::{Value, json};

use crate::support::{TestServer, patient};

#[test]
fn a_simulator_is_made_listed_changed_reset_and_deleted() {
    let server = TestServer::with(&[]);
    let api = server.client();
    let made = api.put("/api/sims/lab__one", &json!({"fhirVersion": "R5", "type": "fhir", "settings": {"record": "all"}})).expect(201).json();
    assert_eq!((made["session"].clone(), made["name"].clone(), made["fhirVersion"].clone()), (json!("lab"), json!("one"), json!("R5")));
    assert_eq!(made["base"], format!("{}/sim/lab__one/fhir", server.url()));
    assert_eq!(made["settings"]["record"], "all");
    api.send("PUT", "/api/sims/lab__one", &[], b"").expect(200);
    assert_eq!(api.get("/api/sims/lab__one").json()["settings"]["record"], "all", "what is not said stays");
    api.put("/api/sims/lab__one", &json!({"fhirVersion": "R4"})).expect(409);
    api.post("/api/sims", &json!({"id": "lab__one"})).expect(409);
    assert!(api.post("/api/sims", &json!({"id": "LAB__one"})).expect(409).refusal().contains("only in case"));
    api.post("/api/sims", &json!({"id": "other__one"})).expect(201);
    for bad in [
        json!({}),
        json!({"id": "x"}),
        json!({"id": "a__b", "colour": "red"}),
        json!({"id": "a__b", "fhirVersion": "R6"}),
        json!({"id": "a__b", "type": "soap"}),
        json!({"id": "a__b", "settings": {"rec": 1}}),
    ] {
        api.post("/api/sims", &bad).expect(400);
    }
    let dir = server.simdb().join("lab__one");
    assert_eq!(std::fs::read_to_string(dir.join("simid.txt")).unwrap(), "lab__one");
    assert_eq!(std::fs::read_to_string(dir.join("sim_type.txt")).unwrap(), "fhir");

    let fhir = server.fhir("lab__one");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let shown = api.get("/api/sims/lab__one").expect(200).json();
    assert_eq!((shown["eventCount"].clone(), shown["counts"].clone()), (json!(1), json!({"Patient": 1})));
    assert_eq!(shown["directory"], dir.display().to_string());
    let ids =
        |query: &str| -> Vec<Value> { api.get(&format!("/api/sims{query}")).json()["sims"].as_array().unwrap().iter().map(|s| s["id"].clone()).collect() };
    assert_eq!(ids(""), ["lab__one", "other__one"]);
    assert_eq!(ids("?session=other"), ["other__one"]);
    assert_eq!(ids("?limit=1"), ["lab__one"]);
    assert_eq!(ids("?limit=1&after=lab__one"), ["other__one"]);

    api.send("POST", "/api/sims/lab__one/reset", &[], b"").expect(200);
    fhir.get("/Patient/p").expect(404);
    assert_eq!(api.get("/api/sims/lab__one").json()["fhirVersion"], "R5");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    api.delete("/api/sims/lab__one").expect(204);
    assert!(!dir.exists());
    assert!(fhir.get("/Patient/p").expect(404).refusal().contains(&format!("curl -X PUT {}/api/sims/lab__one", server.url())));
    api.delete("/api/sims/lab__one").expect(404);
}

#[test]
fn an_unknown_simulator_is_made_on_first_use_only_if_told_so() {
    let server = TestServer::with(&[]);
    server.fhir("a__b").get("/metadata").expect(404);
    let server = TestServer::start();
    server.fhir("a__b").get("/metadata").expect(200);
    let other_case = server.fhir("A__b").get("/metadata").expect(404).refusal();
    assert!(other_case.contains("there is 'a__b'") && !other_case.contains("curl"), "{other_case}");
    for bad in ["ab", "a__", "__b", "a__b__c", "a__%2e%2e", "a_b", "..", "a__b%00"] {
        let reply = server.client().get(&format!("/sim/{bad}/fhir/metadata"));
        assert!((400..=404).contains(&reply.status), "{bad}: {}", reply.status);
    }
    assert_eq!(std::fs::read_dir(server.simdb()).unwrap().filter(|e| !e.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count(), 1);
}

#[test]
fn other_sites_and_foreign_names_are_refused() {
    let server = TestServer::start();
    let api = server.client();
    let with = |headers: &[(&str, &str)]| api.send("GET", "/api/sims", headers, b"").status;
    let own = server.url().to_owned();
    assert_eq!(with(&[]), 200);
    assert_eq!(with(&[("origin", &own)]), 200);
    assert_eq!(with(&[("origin", "https://evil.example")]), 403);
    assert_eq!(with(&[("origin", "null")]), 403);
    assert_eq!(with(&[("host", "evil.example")]), 403);
    assert_eq!(api.send("GET", "/", &[("host", "evil.example")], b"").status, 403);
    assert_eq!(
        api.send("POST", "/", &[("origin", "https://evil.example"), ("content-type", "application/x-www-form-urlencoded")], b"session=a&name=b&version=R4")
            .status,
        403
    );
    assert_eq!(api.send("GET", "/api/sims", &[("origin", &own)], b"").header("access-control-allow-origin"), "");
}

#[test]
fn an_admin_token_guards_the_api_and_the_pages() {
    let server = TestServer::with(&["--admin-token", "s3cret", "--auto-create"]);
    let api = server.client();
    let refused = api.get("/api/sims").expect(401);
    assert!(refused.header("www-authenticate").contains("Basic"));
    api.get("/").expect(401);
    api.send("GET", "/api/sims", &[("authorization", "Bearer wrong!")], b"").expect(401);
    api.send("GET", "/api/sims", &[("authorization", "Bearer s3cret")], b"").expect(200);
    // As a browser sends a password.
    api.send("GET", "/", &[("authorization", "Basic eDpzM2NyZXQ=")], b"").expect(200);
    server.fhir("a__b").get("/metadata").expect(200);
}

#[test]
fn the_form_on_the_first_page_makes_a_simulator() {
    let server = TestServer::with(&[]);
    let api = server.client();
    let form = |body: &str| api.send("POST", "/", &[("content-type", "application/x-www-form-urlencoded")], body.as_bytes());
    assert!(form("session=lab&name=two&version=R4B").status < 400);
    assert_eq!(api.get("/api/sims/lab__two").json()["fhirVersion"], "R4B");
    assert!(form("session=lab&name=%3Cscript%3E&version=R4").expect(400).text().contains("&lt;script&gt;"));
}

#[test]
fn the_server_tells_how_it_is() {
    let server = TestServer::start();
    let api = server.client();
    server.fhir("a__b").get("/metadata").expect(200);
    assert_eq!(api.get("/health").expect(200).json()["status"], "ok");
    let metrics = api.get("/metrics").expect(200).text().to_owned();
    assert!(metrics.contains("fhirsim_requests_total{interaction=\"capabilities\",status=\"2xx\"} 1"), "{metrics}");
    let openapi = api.get("/api/openapi.json").expect(200).json();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3."));
    for path in [
        "/api/sims",
        "/api/sims/{id}",
        "/api/sims/{id}/reset",
        "/api/sims/{id}/reindex",
        "/api/sims/{id}/events",
        "/api/sims/{id}/events/{event}",
        "/api/sims/{id}/events/{event}/files/{file}",
        "/api/sims/{id}/log",
    ] {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    for bad in ["/api/sims?limit=-1", "/api/sims?bogus=1", "/api/sims/a__b/events?limit=x"] {
        api.get(bad).expect(400).refusal();
    }
    api.send("PUT", "/api/sims", &[], b"{}").expect(405).refusal();
    api.send("PUT", "/api/sims/c__d", &[], b"[]").expect(400).refusal();
    assert!(api.get("/api/nonsense").expect(404).refusal().contains("/api/openapi.json"));
}

#[test]
fn two_simulators_with_the_same_ids_never_meet() {
    let server = TestServer::start();
    let sims = ["one__sim", "two__sim"];
    std::thread::scope(|scope| {
        for sim in sims {
            for client in 0..3 {
                let fhir = server.fhir(sim);
                scope.spawn(move || {
                    for n in 0..60 {
                        let id = format!("p{}", (n + client) % 10);
                        let status = fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "name": [{"family": sim}]})).status;
                        assert!(status == 200 || status == 201);
                        let read = fhir.get(&format!("/Patient/{id}"));
                        assert_eq!(read.json()["name"][0]["family"], sim);
                        let page = fhir.get("/Patient?_count=3").json();
                        for text in [page.to_string(), fhir.get(&format!("/Patient/{id}/_history")).text().to_owned()] {
                            let other = if sim == "one__sim" { "two__sim" } else { "one__sim" };
                            assert!(!text.contains(other), "{text}");
                        }
                    }
                });
            }
        }
    });
    for sim in sims {
        assert_eq!(server.client().get(&format!("/api/sims/{sim}")).json()["eventCount"], 180);
    }
}
