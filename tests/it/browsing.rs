//! The pages of what a simulator holds and of what it was used for, and the same for programs.

use serde_json::{Value, json};

use crate::support::{TestServer, patient};

fn world(server: &TestServer) {
    let fhir = server.fhir("a__b");
    let div = "<div xmlns=\"http://www.w3.org/1999/xhtml\"><b>House</b></div>";
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "text": {"status": "generated", "div": div}, "name": [{"family": "House"}]}))
        .expect(201);
    fhir.put(
        "/Patient/p",
        &json!({"resourceType": "Patient", "id": "p", "active": true, "name": [{"family": "Cuddy"}], "managingOrganization": {"reference": "Organization/o"}}),
    )
    .expect(200);
    fhir.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o", "name": "<b>o</b>"})).expect(201);
    let observation = json!({"resourceType": "Observation", "id": "s", "status": "final", "code": {"text": "c"}, "subject": {"reference": "Patient/p"}});
    fhir.put("/Observation/s", &observation).expect(201);
    fhir.put("/Patient/gone", &patient("gone", "G")).expect(201);
    fhir.delete("/Patient/gone").expect(204);
}

#[test]
fn resources_can_be_found_and_explained() {
    let server = TestServer::start();
    world(&server);
    let pages = server.client();
    let page = |path: &str| pages.get(&format!("/sims/a__b/resources{path}")).expect(200).text().to_owned();
    assert!(page("").contains("<a href=\"/sims/a__b/resources/Observation\">Observation</a>"));
    let hits = |path: &str| page(path).matches("<tr><td><a href=\"/sims/a__b/resources/").count();
    assert_eq!([hits("/Patient"), hits("/Patient?family=cud"), hits("/Patient?p=family&v=cuddy&p=&v="), hits("/Patient?p=family:exact&v=cuddy")], [1, 1, 1, 0]);
    assert_eq!(hits("/Observation?_include=Observation:subject"), 2);
    let form = page("/Patient?p=family&v=cud");
    assert!(form.contains("<option value=\"family:exact\">string</option>") && form.contains("value=\"cud\""), "{form}");
    assert!(form.contains("/sim/a__b/fhir/Patient?family=cud"), "what was executed is shown: {form}");
    assert!(page("/Patient?p=famly&v=x").contains("did you mean"));
    assert!(page("/Patient?birthdate=never").contains("class=\"bad\""));
    let why = page("/Patient?family=House&explain=Patient/p");
    assert!(why.contains("Why Patient/p does not match") && why.contains("Patient.name[0].family"), "{why}");
    let hostile = page("/Patient?p=%22%3E%3Cscript%3E&v=%22%3E%3Cscript%3E");
    assert!(!hostile.contains("<script>"), "{hostile}");
    for (path, status) in
        [("/Pateint", 404), ("/Patient?explain=Patient/none", 404), ("/Patient/none", 404), ("/Patient/p?version=9", 404), ("/Patient/p?version=x", 404)]
    {
        pages.get(&format!("/sims/a__b/resources{path}")).expect(status);
    }
    // Page by page, and nothing twice.
    let entries: Vec<Value> = (0..45).map(|n| json!({"resource": {"resourceType": "Basic", "id": format!("b{n}"), "code": {"text": "c"}}, "request": {"method": "PUT", "url": format!("Basic/b{n}")}})).collect();
    server.fhir("a__b").post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
    let mut seen = std::collections::BTreeSet::new();
    let (mut next, mut steps) = ("/Basic?_sort=_id".to_owned(), 0);
    loop {
        let shown = page(&next);
        steps += 1;
        seen.extend(shown.split("<tr><td><a href=\"/sims/a__b/resources/Basic/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
        let Some((before, _)) = shown.split_once("\" rel=\"next\"") else { break };
        let link = before.rsplit("href=\"").next().unwrap().replace("&amp;", "&").replace("&#x2F;", "/");
        next = link.replace("/sims/a__b/resources", "");
    }
    assert_eq!((seen.len(), steps), (45, 3));
}

#[test]
fn a_resource_is_shown_with_its_past_and_its_neighbours() {
    let server = TestServer::start();
    world(&server);
    let pages = server.client();
    let page = |path: &str| pages.get(&format!("/sims/a__b/resources{path}")).expect(200).text().to_owned();
    let shown = page("/Patient/p");
    for part in [
        "<h1>Patient/p</h1>",
        "<a href=\"/sims/a__b/resources/Organization/o\">&quot;Organization/o&quot;</a>",
        "href=\"/sims/a__b/resources/Observation/s\"",
        "What version 2 changed of version 1",
        "<code>Patient.name[0].family</code>: <code>&quot;Cuddy&quot;</code>",
        "<svg class=\"graph\"",
        "1 resources refer to Patient/p, which refers to 1",
    ] {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    assert_eq!(shown.matches("/sims/a__b/resources/Patient/p?version=").count(), 2);
    let first = page("/Patient/p?version=1");
    assert!(first.contains("which is not the newest") && first.contains("<iframe sandbox=\"\" srcdoc=\"&lt;div") && !first.contains("<b>House"), "{first}");
    let gone = page("/Patient/gone");
    assert!(gone.contains("This version is a deletion") && gone.contains("delete"), "{gone}");
}

#[test]
fn an_event_page_shows_what_is_wrong_where_it_is_and_sends_again() {
    let server = TestServer::start();
    let api = server.client();
    api.put("/api/sims/a__b", &json!({"settings": {"validation": "strict"}})).expect(201);
    let bad = json!({"resourceType": "Patient", "birthDate": "2024-02-30", "name": [{"family": "A"}, {"famly": "B"}]});
    let refused = server.fhir("a__b").post("/Patient", &bad).expect(422).header("x-fhirsim-event").to_owned();
    let page = api.get(&format!("/sims/a__b/events/{refused}")).expect(200).text().to_owned();
    let marked: Vec<&str> = page.split("<mark>").skip(1).map(|rest| rest.split("</mark>").next().unwrap()).collect();
    assert!(marked.len() == 2 && marked[0].contains("2024-02-30") && marked[1].contains("famly"), "{marked:?}");
    let xml = "<Patient xmlns=\"http://hl7.org/fhir\"><id value=\"x\"/><name><family value=\"&lt;b>\"/></name></Patient>";
    let event = server.fhir("a__b").send("PUT", "/Patient/x", &[("content-type", "application/fhir+xml"), ("accept", "application/fhir+xml")], xml.as_bytes());
    let page = api.get(&format!("/sims/a__b/events/{}", event.expect(201).header("x-fhirsim-event"))).expect(200);
    assert!(page.text().contains("<span class=\"k\">&lt;family value=&quot;&amp;lt;b&gt;"), "{}", page.text());

    // What is nested without end is shown in no time, and does not fill the memory.
    let deep = "[".repeat(150_000);
    let deep = server.fhir("a__b").send("POST", "/Patient", &[("content-type", "application/fhir+json")], deep.as_bytes()).expect(400);
    assert!(api.get(&format!("/sims/a__b/events/{}", deep.header("x-fhirsim-event"))).expect(200).bytes.len() < 64 << 20);
    let deep = "<a>".repeat(50_000);
    let deep = server.fhir("a__b").send("POST", "/Patient", &[("content-type", "application/fhir+xml")], deep.as_bytes()).expect(400);
    assert!(api.get(&format!("/sims/a__b/events/{}", deep.header("x-fhirsim-event"))).expect(200).bytes.len() < 64 << 20);

    let count = || api.get("/api/sims/a__b").json()["eventCount"].as_u64().unwrap();
    let before = count();
    api.patch("/api/sims/a__b", &json!({"settings": {"validation": "off"}})).expect(200);
    let again = api.send("POST", &format!("/sims/a__b/events/{refused}"), &[("content-type", "application/x-www-form-urlencoded")], b"").expect(200);
    assert!(again.text().contains("create <span class=\"good\">201</span>"), "the page of the new event: {}", again.text());
    assert_eq!(count(), before + 1);
    api.send("POST", "/sims/a__b/events/2026_01_01_00_00_00_000", &[("content-type", "application/x-www-form-urlencoded")], b"").expect(404);
}

#[test]
fn rules_of_faults_can_be_edited() {
    let server = TestServer::start();
    server.fhir("a__b").get("/Patient").expect(200);
    let pages = server.client();
    let set = |rules: &str| {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("do", "rules").append_pair("rules", rules).finish();
        pages.send("POST", "/sims/a__b", &[("content-type", "application/x-www-form-urlencoded")], form.as_bytes())
    };
    let page = set(r#"[{"name":"<i>","match":{"interaction":["read"]},"preset":"unavailable"}]"#).expect(200);
    assert!(page.text().contains("&quot;preset&quot;: &quot;unavailable&quot;") && !page.text().contains("<i>"), "{}", page.text());
    server.fhir("a__b").get("/Patient/x").expect(503);
    assert!(set("[{").expect(400).text().contains("the rules cannot be read"));
    set("[{\"preset\":\"unavailabel\"}]").expect(400);
    server.fhir("a__b").get("/Patient/x").expect(503);
    set(" ").expect(200);
    server.fhir("a__b").get("/Patient/x").expect(404);
}

#[test]
fn coverage_says_what_was_exercised_and_what_was_not() {
    let server = TestServer::start();
    world(&server);
    let (fhir, api) = (server.fhir("a__b"), server.client());
    fhir.get("/Patient?family:exact=A&general-practitioner.name=x&bogus=1").expect(200);
    fhir.get("/Patient/p/Observation").expect(200);
    fhir.get("/Patient/nobody").expect(404);
    fhir.get("/metadata").expect(200);
    fhir.get("/Patient/p/$everything").expect(200);
    fhir.get("/Patient/p/$meta").expect(200);
    let entry = json!({"resource": {"resourceType": "Basic", "code": {"text": "c"}}, "request": {"method": "POST", "url": "Basic"}});
    fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})).expect(200);
    let coverage = api.get("/api/sims/a__b/coverage").expect(200).json();
    let of = |type_name: &str| coverage["types"].as_array().unwrap().iter().find(|t| t["type"] == type_name).cloned().unwrap_or_default();
    let count = |of: &Value, code: &str| {
        let one = of["interactions"].as_array().unwrap().iter().find(|i| i["code"] == code).unwrap_or_else(|| panic!("{code}: {of}"));
        (one["done"].as_u64().unwrap(), one["refused"].as_u64().unwrap())
    };
    let patient = of("Patient");
    assert_eq!(
        [count(&patient, "update"), count(&patient, "read"), count(&patient, "search-type"), count(&patient, "vread")],
        [(3, 0), (0, 1), (1, 0), (0, 0)]
    );
    assert_eq!([count(&patient, "everything"), count(&patient, "delete")], [(1, 0), (1, 0)]);
    assert_eq!(count(&of("Observation"), "search-type"), (1, 0));
    assert_eq!(count(&of("Basic"), "create"), (1, 0));
    assert_eq!(
        [count(&coverage["system"], "capabilities"), count(&coverage["system"], "transaction"), count(&coverage["system"], "meta")],
        [(1, 0), (1, 0), (1, 0)]
    );
    let exercised: Vec<&str> = patient["parameters"]["exercised"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(exercised, ["family", "general-practitioner"]);
    assert!(patient["parameters"]["missing"].as_array().unwrap().contains(&json!("birthdate")));
    assert_eq!(coverage["others"], json!([{"type": "Patient", "parameter": "bogus", "done": 1}]));
    assert!(coverage["untouched"].as_array().unwrap().contains(&json!("Account")));
    assert_eq!(coverage["parameters"]["exercised"], 2);
    let traffic = api.get("/api/sims/a__b/traffic").expect(200).json();
    let sum = |class: &str| traffic["minutes"].as_array().unwrap().iter().map(|m| m[class].as_u64().unwrap()).sum::<u64>();
    assert_eq!((traffic["requests"].as_u64().unwrap(), sum("2xx"), sum("4xx"), sum("5xx")), (13, 12, 1, 0));
    let page = api.get("/sims/a__b/usage").expect(200);
    assert!(page.text().contains("13 requests") && page.text().contains("<svg class=\"bars\""), "{}", page.text());
    // A snapshot changes nothing of it, a reset begins anew.
    api.post("/api/sims/a__b/snapshots", &json!({"name": "s"})).expect(201);
    fhir.get("/Patient/p").expect(200);
    assert_eq!(api.get("/api/sims/a__b/traffic").json()["requests"], 14);
    api.post("/api/sims/a__b/reset", &json!({})).expect(200);
    assert_eq!(api.get("/api/sims/a__b/traffic").json()["requests"], 0);
}

#[test]
fn the_server_sends_again_where_it_may() {
    let server = TestServer::start();
    let api = server.client();
    let fhir = server.fhir("a__one");
    for n in 0..3 {
        fhir.post("/Patient", &patient("x", &format!("N{n}"))).expect(201);
    }
    fhir.post("/Patient", &json!({"resourceType": "Pateint"})).expect(400);
    api.put("/api/sims/a__two", &json!({})).expect(201);
    let lines = |body: Value| -> Vec<Value> {
        let reply = api.post("/api/sims/a__one/replay", &body).expect(200);
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let sent = lines(json!({"to": "a__two"}));
    assert_eq!(sent.last().unwrap(), &json!({"sent": 4, "different": 0}));
    assert_eq!(sent.iter().filter_map(|line| line["status"].as_u64()).collect::<Vec<_>>(), [201, 201, 201, 400]);
    assert!(sent[0]["became"].as_str().unwrap().starts_with("20") && sent[0]["differences"] == json!([]));
    assert_eq!(server.fhir("a__two").get("/Patient").json()["total"], 3);
    // To itself, by URL, once.
    let own = format!("{}/sim/a__one/fhir", server.url());
    assert_eq!(lines(json!({"to": own, "filter": "status=2xx"})).last().unwrap()["sent"], 3);
    assert_eq!(fhir.get("/Patient").json()["total"], 6);
    api.put("/api/sims/a__two/faults", &json!([{"preset": "unavailable"}])).expect(200);
    let different = lines(json!({"to": "a__two", "filter": "status=4xx"}));
    assert!(different[0]["differences"][0].as_str().unwrap().contains("status 503 instead of 400"), "{different:?}");
    assert_eq!(lines(json!({"to": "http://127.0.0.1:1/fhir"}))[0]["sent"], 0, "nobody answers there");

    for (to, status) in [
        ("http://example.org/fhir", 403),
        ("http://169.254.169.254/latest", 403),
        ("http://127.0.0.1.example.org/fhir", 403),
        ("http://user@127.0.0.1/fhir", 400),
        ("http://127.0.0.1@example.org/fhir", 400),
        ("http://127.0.0.1#@example.org/fhir", 200),
        ("file:///etc/passwd", 400),
        ("https://example.org/fhir", 403),
        ("http:///x", 400),
        ("a__none", 404),
        ("nonsense", 400),
    ] {
        let reply = api.post("/api/sims/a__one/replay", &json!({"to": to}));
        assert_eq!(reply.status, status, "{to}: {}", reply.text());
    }
    for bad in [json!({}), json!({"to": "a__two", "headers": {"x": 1}}), json!({"to": "a__two", "filter": "sttus=1"}), json!({"to": "a__two", "wait": "1s"})] {
        api.post("/api/sims/a__one/replay", &bad).expect(400).refusal();
    }
    let allowed = TestServer::with(&["--allow-outbound", "nowhere.invalid, other.invalid:81", "--auto-create"]);
    allowed.fhir("a__one").post("/Patient", &patient("x", "A")).expect(201);
    let post = |to: &str| allowed.client().post("/api/sims/a__one/replay", &json!({"to": to}));
    assert!(post("http://nowhere.invalid:9/fhir").expect(200).text().contains("\"error\""));
    assert!(post("http://other.invalid:81/fhir").expect(200).text().contains("\"error\""));
    post("http://other.invalid/fhir").expect(403);
}

#[test]
fn a_replay_goes_nowhere_else_and_holds_nobody() {
    let server = TestServer::start();
    let api = server.client();
    server.fhir("a__b").post("/Patient", &patient("x", "A")).expect(201);
    // An imported event may have any URL: no part of it becomes the host.
    server.fhir("a__b").get("/metadata").expect(200);
    let archive = api.get("/api/sims/a__b/archive").expect(200).bytes;
    let mut out = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(zstd::Decoder::new(&archive[..]).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if path.ends_with("event.json") {
            bytes = String::from_utf8(bytes).unwrap().replace("/sim/a__b/fhir/Patient", "/sim/a__b/fhir@127.0.0.1:1/Patient").into_bytes();
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        out.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    let evil = zstd::encode_all(&out.into_inner().unwrap()[..], 1).unwrap();
    api.send("PUT", "/api/sims/a__evil/archive", &[("content-type", "application/zstd")], &evil).expect(201);
    let said = api.post("/api/sims/a__evil/replay", &json!({"to": "http://127.0.0.1:9"})).expect(200);
    assert!(said.text().contains("its URL is none of an endpoint") && !said.text().contains("\"error\""), "{}", said.text());
    // The rest of this server is no endpoint: a replay cannot begin another.
    for path in ["/api/sims/a__b/replay", "", "/", "/sims/a__b"] {
        api.post("/api/sims/a__b/replay", &json!({"to": format!("{}{path}", server.url())})).expect(400).refusal();
    }
    // The button carries on what the page was asked with.
    api.put("/api/sessions/a", &json!({"token": "aaaa-aaaa-aaaa-aaaa", "protects": "all"})).expect(200);
    let own = ("authorization", "Bearer aaaa-aaaa-aaaa-aaaa");
    let event = api.send("GET", "/api/sims/a__b/events", &[own], b"").json()["events"][0]["event"].as_str().unwrap().to_owned();
    let again = api.send("POST", &format!("/sims/a__b/events/{event}"), &[own, ("content-type", "application/x-www-form-urlencoded")], b"");
    assert_eq!(again.status, 401, "the client follows to the page without the token");
    assert_eq!(api.send("GET", "/api/sims/a__b", &[own], b"").json()["eventCount"], 2);
}

#[test]
fn what_is_large_is_shown_in_part() {
    let server = TestServer::start();
    let (fhir, pages) = (server.fhir("a__b"), server.client());
    let names: Vec<Value> = (0..100_000).map(|n| json!({"family": format!("F{n}")})).collect();
    fhir.put("/Patient/many", &json!({"resourceType": "Patient", "id": "many", "name": names})).expect(201);
    // Long names within long names: no path is built at each of what is in them.
    let long = "k".repeat(50_000);
    let mut deep = json!((0..20_000).map(|n| (format!("m{n}"), json!(1))).collect::<serde_json::Map<String, Value>>());
    for _ in 0..40 {
        deep = json!({ long.as_str(): deep });
    }
    fhir.put("/Patient/deep", &json!({"resourceType": "Patient", "id": "deep", "x": deep})).expect(201);
    for id in ["many", "deep"] {
        let page = pages.get(&format!("/sims/a__b/resources/Patient/{id}")).expect(200);
        assert!(page.text().contains("this is its beginning") && page.bytes.len() < 1 << 20, "{id}: {}", page.bytes.len());
    }
}
