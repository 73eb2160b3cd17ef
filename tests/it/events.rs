//! What an event folder holds.

use serde_json::{Value, json};

use crate::support::{TestServer, events, only_event, patient};

fn record(folder: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("event.json")).unwrap()).unwrap()
}

#[test]
fn a_create_is_recorded_byte_for_byte() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let body = b"{ \"resourceType\" : \"Patient\" }";
    let reply = fhir.send("POST", "/Patient?x=1", &[("authorization", "Bearer secret-token"), ("cookie", "c=secret"), ("x-own", "shown")], body).expect(201);
    let folder = only_event(&server.simdb(), "a__b", "POST");
    assert_eq!(folder.file_name().unwrap().to_str().unwrap(), reply.header("x-fhirsim-event"));
    assert_eq!(std::fs::read(folder.join("request_body.json")).unwrap(), body);
    assert_eq!(std::fs::read(folder.join("Patient1.json")).unwrap(), reply.bytes);
    assert!(!folder.join("response_body.json").exists(), "the same bytes are not kept twice");
    assert_eq!(std::fs::read(folder.join("date.ser")).unwrap().len(), 46);
    let text = std::fs::read_to_string(folder.join("event.json")).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let record = record(&folder);
    assert_eq!(record["interaction"], "create");
    assert_eq!(record["sequence"], 1);
    assert_eq!(record["request"]["method"], "POST");
    assert_eq!(record["request"]["url"], "/sim/a__b/fhir/Patient?x=1");
    assert_eq!(record["request"]["headers"]["x-own"], "shown");
    assert_eq!(record["request"]["headers"]["authorization"], "[redacted]");
    assert_eq!(record["response"]["status"], 201);
    assert_eq!(record["response"]["body"], "Patient1.json");
    assert_eq!(record["response"]["headers"]["etag"], "W/\"1\"");
    let id = reply.json()["id"].clone();
    assert_eq!(
        record["resources"],
        json!([{"file": "Patient1.json", "type": "Patient", "id": id, "versionId": 1, "change": "create", "bytes": reply.bytes.len()}])
    );
    assert_eq!(record["instant"], reply.json()["meta"]["lastUpdated"]);
}

#[test]
fn refused_writes_are_events_too() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.send("POST", "/Patient", &[], b"{\"resourceType\":").expect(400);
    let folder = only_event(&server.simdb(), "a__b", "POST");
    assert_eq!(std::fs::read(folder.join("request_body.json")).unwrap(), b"{\"resourceType\":");
    assert!(folder.join("response_body.json").exists());
    let record = record(&folder);
    assert_eq!((record["response"]["status"].clone(), record["resources"].clone(), record["interaction"].clone()), (json!(400), json!([]), json!("unknown")));
    fhir.delete("/Patient/a_b").expect(400);
    only_event(&server.simdb(), "a__b", "DELETE");
    let refused = fhir.send("PATCH", "/Patient/1", &[], b"[]").expect(415).refusal();
    assert!(refused.contains("application/json-patch+json"), "{refused}");
    only_event(&server.simdb(), "a__b", "PATCH");
}

#[test]
fn an_update_never_overwrites_an_older_file() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for n in 0..3 {
        fhir.put("/Patient/p", &patient("p", &format!("V{n}")));
    }
    let folders = events(&server.simdb(), "a__b", "PUT");
    let families: Vec<String> = folders
        .iter()
        .map(|f| serde_json::from_slice::<Value>(&std::fs::read(f.join("Patient1.json")).unwrap()).unwrap()["name"][0]["family"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(families, ["V0", "V1", "V2"]);
}

#[test]
fn reads_are_logged_and_become_folders_when_the_simulator_says_so() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let logged = fhir.get("/Patient/p").expect(200).header("x-fhirsim-event").to_owned();
    assert!(logged.starts_with("log-"), "{logged}");
    let log = api.get("/api/sims/a__b/log").json();
    assert_eq!(log["entries"][0]["id"], logged);
    assert!(events(&server.simdb(), "a__b", "GET").is_empty());

    api.send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"record":"all"}}"#).expect(200);
    let event = fhir.get("/Patient?family=a").expect(200).header("x-fhirsim-event").to_owned();
    let folder = server.simdb().join("a__b/fhir/GET").join(&event);
    // Written off the request's path: waited for.
    let recorded = |at_least: usize| {
        let found = api.get(&format!("/api/sims/a__b/events?interaction=search-type&atLeast={at_least}&wait=60s")).expect(200);
        assert_eq!(found.json()["events"].as_array().unwrap().len(), at_least, "{}", found.text());
    };
    recorded(1);
    assert_eq!(record(&folder)["interaction"], "search-type");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let event = fhir.send("POST", "/Patient/_search", &form, b"family=a").expect(200).header("x-fhirsim-event").to_owned();
    recorded(2);
    assert_eq!(std::fs::read(server.simdb().join("a__b/fhir/GET").join(&event).join("request_body.form")).unwrap(), b"family=a");
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(folder.join("response_body.json")).unwrap()).unwrap()["total"], 1);
}

#[test]
fn only_what_changes_something_becomes_a_folder_when_the_simulator_says_so() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    api.put("/api/sims/a__b", &json!({"settings": {"record": "changes"}})).expect(201);
    let create = || fhir.send("POST", "/Patient", &[("if-none-exist", "family=A")], patient("", "A").to_string().replace("\"id\":\"\",", "").as_bytes());
    let made = create().expect(201);
    let found = create().expect(200);
    assert_eq!(found.header("location"), made.header("location"));
    let refused = fhir.send("POST", "/Patient", &[], b"{\"resourceType\":").expect(400);
    let nothing = fhir.delete("/Patient/none").expect(204);
    let entries = api.get("/api/sims/a__b/log").json()["entries"].clone();
    for (entry, reply, status) in [(0, &nothing, 204), (1, &refused, 400), (2, &found, 200)] {
        assert_eq!((&entries[entry]["id"], &entries[entry]["status"]), (&json!(reply.header("x-fhirsim-event")), &json!(status)));
    }
    assert_eq!(entries[2]["interaction"], "create");
    let folder = only_event(&server.simdb(), "a__b", "POST");
    assert!(folder.ends_with(made.header("x-fhirsim-event")), "{folder:?}");
    assert!(events(&server.simdb(), "a__b", "DELETE").is_empty());
    // What did not become one leaves no gap.
    fhir.put("/Patient/p", &patient("p", "B")).expect(201);
    let listed = api.get("/api/sims/a__b/events").json();
    assert_eq!((&listed["events"][0]["sequence"], &listed["events"][1]["sequence"]), (&json!(2), &json!(1)));
}

#[test]
fn two_events_never_share_a_folder() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.get("/metadata").expect(200);
    let names: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..40)
                        .map(|_| fhir.post("/Patient", &json!({"resourceType": "Patient"})).expect(201).header("x-fhirsim-event").to_owned())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|c| c.join().unwrap()).collect()
    });
    let folders = events(&server.simdb(), "a__b", "POST");
    assert_eq!(folders.len(), 320);
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 320);
    let sequences: Vec<u64> = folders.iter().map(|f| record(f)["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=320).collect::<Vec<_>>(), "names sort as they happened");
}

#[test]
fn the_api_and_the_pages_show_events() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    let hostile = "<script>alert(1)</script>";
    let event = fhir.put("/Patient/p", &patient("p", hostile)).expect(201).header("x-fhirsim-event").to_owned();
    let list = api.get("/api/sims/a__b/events").expect(200).json();
    assert_eq!(list["events"][0]["event"], event);
    let one = api.get(&format!("/api/sims/a__b/events/{event}")).expect(200).json();
    assert_eq!(one["files"], json!(["Patient1.json", "date.ser", "event.json", "request_body.json"]));
    assert!(api.get(&format!("/api/sims/a__b/events/{event}/files/Patient1.json")).expect(200).text().contains(hostile));
    for trick in ["..%2fevent.json", "%2e%2e%2f%2e%2e%2fsim.json", "nope"] {
        api.get(&format!("/api/sims/a__b/events/{event}/files/{trick}")).expect(404);
    }
    api.get("/api/sims/a__b/events/x").expect(400);
    let misspelled = api.get("/api/sims/a__b/events?interaction=create,updaet").expect(400).refusal();
    assert_eq!(api.get("/api/sims/a__b/events?interaction=Update").expect(200).json()["events"][0]["event"], event);
    assert!(misspelled.contains("'updaet' is none of") && misspelled.contains("did you mean 'update'?"), "{misspelled}");
    for page in ["/".to_owned(), "/sims/a__b".to_owned(), format!("/sims/a__b/events/{event}")] {
        let page = api.get(&page).expect(200);
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        let scripts = page.text().matches("<script").count();
        assert_eq!(scripts, page.text().matches("<script src=\"/live.js\" defer></script>").count(), "{}", page.text());
    }
    assert!(api.get(&format!("/sims/a__b/events/{event}")).text().contains("&lt;script&gt;alert(1)"));
    api.get("/live.js").expect(200);
    api.get("/nowhere").expect(404);
    api.get("/sims/none__here").expect(404);
}

#[test]
fn what_is_printed_is_the_request() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let api = server.client();
    api.put("/api/sims/a__b", &json!({"settings": {"record": "all"}})).expect(201);
    let as_what = |event: &str, what: &str| api.get(&format!("/api/sims/a__b/events/{event}?as={what}")).expect(200);
    // A content of any bytes.
    let bytes = b"\x89PNG\xff\xfe";
    let reply = fhir.send("POST", "/Binary", &[("content-type", "image/png"), ("x-empty", "")], bytes).expect(201);
    let (event, id) = (reply.header("x-fhirsim-event").to_owned(), reply.json()["id"].as_str().unwrap().to_owned());
    let curl = as_what(&event, "curl").text().to_owned();
    let file = curl.split("--data-binary '@").nth(1).unwrap().split('\'').next().unwrap();
    assert!(std::path::Path::new(file).is_absolute() && std::fs::read(file).unwrap() == bytes, "{curl}");
    assert!(curl.contains("-H 'x-empty;'"), "{curl}");
    let har = as_what(&event, "har").json();
    let posted = &har["log"]["entries"][0]["request"]["postData"];
    assert_eq!((&posted["text"], &posted["_encoding"]), (&json!("iVBOR//+"), &json!("base64")), "{posted}");
    let nul = fhir.send("POST", "/Binary", &[("content-type", "text/plain")], b"\0\x01binary").expect(201).header("x-fhirsim-event").to_owned();
    assert!(as_what(&nul, "curl").text().contains("--data-binary '@"));
    let read = fhir.send("GET", &format!("/Binary/{id}"), &[("accept", "image/png")], b"").expect(200).header("x-fhirsim-event").to_owned();
    api.get("/api/sims/a__b/events?interaction=read&wait=30s").expect(200);
    let content = as_what(&read, "har").json()["log"]["entries"][0]["response"]["content"].clone();
    assert_eq!((&content["size"], &content["encoding"]), (&json!(6), &json!("base64")));
    // Without a Content-Type it is taken as FHIR JSON: curl must not call it a form.
    let raw = b"POST /sim/a__b/fhir/Patient HTTP/1.1\r\nHost: x\r\nContent-Length: 26\r\nConnection: close\r\n\r\n{\"resourceType\":\"Patient\"}";
    let mut stream = std::net::TcpStream::connect(server.url().strip_prefix("http://").unwrap()).unwrap();
    std::io::Write::write_all(&mut stream, raw).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    let event = answer.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("x-fhirsim-event: ").map(str::to_owned)).unwrap();
    assert!(as_what(&event, "curl").text().contains("-H 'content-type:'"), "{answer}");
}

#[test]
fn a_snapshot_ends_neither_the_log_nor_the_counts_of_faults() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    api.put("/api/sims/a__b/faults", &json!([{"match": {"interaction": ["read"], "nth": 3}, "preset": "unavailable"}]));
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    api.put("/api/sims/a__b/faults", &json!([{"match": {"interaction": ["read"], "nth": 3}, "preset": "unavailable"}])).expect(200);
    let ids: Vec<String> = (0..2).map(|_| fhir.get("/Patient/p").expect(200).header("x-fhirsim-event").to_owned()).collect();
    api.post("/api/sims", &json!({"id": "a__clone", "from": "a__b"})).expect(201);
    let third = fhir.get("/Patient/p").expect(503).header("x-fhirsim-event").to_owned();
    let logged = api.get("/api/sims/a__b/log").json()["entries"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(logged, [third, ids[1].clone(), ids[0].clone()]);
    // What a clone inherits says so wherever it is shown.
    let listed = api.get("/api/sims/a__clone/events?order=asc&limit=1").json()["events"][0].clone();
    let one = api.get(&format!("/api/sims/a__clone/events/{}", listed["event"].as_str().unwrap())).json();
    for name in ["inherited", "operation", "folder"] {
        assert_eq!(one[name], listed[name], "{name}");
    }
    assert_eq!(one["inherited"], true);
    api.post("/api/sims/a__b/reset", &json!({})).expect(200);
    assert_eq!(api.get("/api/sims/a__b/log").json()["entries"], json!([]));
}
