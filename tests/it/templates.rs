//! Templates: named states that simulators begin as.

use serde_json::json;

use crate::support::{TestServer, patient};

#[test]
fn simulators_begin_as_a_template_that_nothing_changes() {
    let server = TestServer::start();
    let api = server.client();
    let lab = server.fhir("lab__one");
    lab.put("/Patient/p", &patient("p", "First")).expect(201);
    api.post("/api/sims/lab__one/snapshots", &json!({"name": "loaded"})).expect(201);
    lab.put("/Patient/p", &patient("p", "Second")).expect(200);

    let made = api.put("/api/templates/base", &json!({"from": "lab__one@loaded"})).expect(201).json();
    assert_eq!((&made["name"], &made["counts"]["Patient"], &made["events"]), (&json!("base"), &json!(1), &json!(1)));
    assert!(made.get("base").is_none());
    api.put("/api/templates/base", &json!({"from": "lab__one"})).expect(409).refusal();
    // It cannot be written to, and none comes to be by being asked for.
    let refused = server.fhir("templates__base").put("/Patient/p", &patient("p", "Third")).expect(405);
    assert!(refused.refusal().contains("is a template"));
    server.fhir("templates__base").post("", &json!({"resourceType": "Bundle", "type": "batch"})).expect(405);
    server.fhir("templates__mine").get("/metadata").expect(404);
    for n in 0..3 {
        api.post("/api/sims", &json!({"id": format!("case__n{n}"), "template": "base", "settings": {"record": "all"}})).expect(201);
        let fhir = server.fhir(&format!("case__n{n}"));
        assert_eq!(fhir.get("/Patient").json()["total"], 1);
        assert_eq!(fhir.get("/Patient/p").json()["name"][0]["family"], "First");
        fhir.delete("/Patient/p").expect(204);
    }
    assert!(api.get("/").text().contains("<option>base</option>"));
    assert_eq!(api.get("/api/templates").json()["templates"], json!(["base"]));
    let form = b"session=lab&name=paged&version=R5&template=base";
    assert!(api.send("POST", "/", &[("content-type", "application/x-www-form-urlencoded")], form).status < 400);
    server.fhir("lab__paged").get("/Patient/p").expect(200);

    api.delete("/api/templates/base").expect(204);
    server.fhir("case__n0").get("/Patient/p/_history/1").expect(200);
    let gone = api.post("/api/sims", &json!({"id": "case__late", "template": "base"})).expect(404).refusal();
    assert!(gone.contains("unknown template 'base'; there are none"), "{gone}");
    for (name, body) in [("base", json!({"from": "no__one"})), ("base", json!({"from": "lab__one@nothing"}))] {
        api.put(&format!("/api/templates/{name}"), &body).expect(404).refusal();
    }
    api.put("/api/templates/a__b", &json!({"from": "lab__one"})).expect(400).refusal();
    api.put("/api/templates/base", &json!({"form": "lab__one"})).expect(400).refusal();
    api.post("/api/sims", &json!({"id": "x__y", "template": "base", "from": "lab__one"})).expect(400).refusal();
    assert_eq!(api.get("/api/templates").json()["templates"], json!([]), "nothing is left of what was refused");
}

#[test]
fn templates_come_from_archives_too() {
    let folder = tempfile::tempdir().unwrap();
    let archive = {
        let server = TestServer::start();
        server.fhir("lab__one").put("/Patient/p", &patient("p", "First")).expect(201);
        server.client().get("/api/sims/lab__one/archive").expect(200).bytes
    };
    std::fs::write(folder.path().join("kit.tar.zst"), &archive).unwrap();
    std::fs::write(folder.path().join("broken.tar.zst"), &archive[..archive.len() / 2]).unwrap();
    std::fs::write(folder.path().join("a__b.tar.zst"), &archive).unwrap();
    let server = TestServer::with(&["--templates", folder.path().to_str().unwrap(), "--admin-token", "s3cret"]);
    let api = server.client();
    let ask = |token: &str, method: &str, path: &str, body: &[u8]| {
        let content_type = if body.starts_with(b"{") { "application/json" } else { "application/zstd" };
        api.send(method, path, &[("authorization", &format!("Bearer {token}")), ("content-type", content_type)], body)
    };
    let red = "red-red-red-red-red";
    ask("s3cret", "PUT", "/api/sessions/red", br#"{"token":"red-red-red-red-red"}"#).expect(200);

    // Eight at once, and it is taken in once; whoever may make a simulator may begin it so.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let create = |n: usize| move || ask(red, "POST", "/api/sims", format!(r#"{{"id":"red__n{n}","template":"kit"}}"#).as_bytes()).status;
        let all: Vec<_> = (0..8).map(|n| scope.spawn(create(n))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses, [201; 8]);
    server.fhir("red__n7").get("/Patient/p").expect(200);
    ask(red, "PUT", "/api/templates/own", &archive).expect(403).refusal();
    ask(red, "DELETE", "/api/templates/kit", b"").expect(403).refusal();
    ask(red, "GET", "/api/sims/templates__kit", b"").expect(403);
    ask(red, "POST", "/api/sims", br#"{"id":"red__b","template":"broken"}"#).expect(400).refusal();
    let near = ask(red, "POST", "/api/sims", br#"{"id":"red__b","template":"kti"}"#).expect(404).refusal();
    assert!(near.contains("did you mean 'kit'?"), "{near}");

    assert_eq!(ask("s3cret", "PUT", "/api/templates/own", &archive).expect(201).json()["counts"]["Patient"], 1);
    assert_eq!(ask(red, "GET", "/api/templates", b"").json()["templates"], json!(["broken", "kit", "own"]));
    ask("s3cret", "DELETE", "/api/templates/kit", b"").expect(204);
    assert_eq!(ask(red, "GET", "/api/templates/kit", b"").json()["counts"]["Patient"], 1, "it is taken in anew");
}
