//! What restricted scopes and odd requests must not get at, in searches, exports and imports.

use serde_json::{Value, json};

use crate::importing::events;
use crate::support::{Client, Reply, TestServer, patient};

const ASYNC: (&str, &str) = ("prefer", "respond-async");

/// A simulator that asks for tokens, once what is there is there.
fn locked(server: &TestServer) {
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"auth":"smart-backend"}}"#).expect(200);
}

fn token(server: &TestServer, scope: &str) -> String {
    let reply = server.client().post("/api/sims/a__b/token", &json!({"scope": scope})).expect(200).json();
    format!("Bearer {}", reply["access_token"].as_str().unwrap())
}

fn get(fhir: &Client, token: &str, path: &str) -> Reply {
    fhir.send("GET", path, &[("authorization", token)], b"")
}

fn observation(fhir: &Client, id: &str, category: &str) -> Reply {
    let category = json!([{"coding": [{"system": "http://c", "code": category}]}]);
    fhir.put(&format!("/Observation/{id}"), &json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "category": category}))
}

#[test]
fn a_scope_whose_parameter_is_gone_allows_nothing() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let own = json!({"resourceType": "SearchParameter", "id": "mycat", "url": "http://x/mycat", "name": "mycat", "status": "active", "description": "x",
        "code": "mycat", "base": ["Observation"], "type": "token", "expression": "Observation.category"});
    fhir.put("/SearchParameter/mycat", &own).expect(201);
    observation(&fhir, "lab", "lab").expect(201);
    observation(&fhir, "vital", "vital").expect(201);
    locked(&server);
    let (restricted, all) = (token(&server, "system/Observation.rs?mycat=lab"), token(&server, "system/*.cruds"));
    assert_eq!(get(&fhir, &restricted, "/Observation").expect(200).json()["total"], 1);
    fhir.send("DELETE", "/SearchParameter/mycat", &[("authorization", &all)], b"").expect(204);
    for path in ["/Observation", "/Observation/lab", "/Observation/vital"] {
        let refused = get(&fhir, &restricted, path).expect(403).refusal();
        assert!(refused.contains("mycat"), "{refused}");
    }
}

#[test]
fn a_restricted_scope_does_not_look_back() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let event = observation(&fhir, "o", "lab").expect(201).header("x-fhirsim-event").to_owned();
    observation(&fhir, "o", "vital").expect(200);
    locked(&server);
    let (restricted, whole) = (token(&server, "system/Observation.rs?category=lab"), token(&server, "system/Observation.rs"));
    let past = server.fhir(&format!("a__b@{event}"));
    assert_eq!(get(&fhir, &restricted, "/Observation").expect(200).json()["total"], 0);
    get(&past, &restricted, "/Observation").expect(403);
    assert_eq!(get(&past, &whole, "/Observation?category=lab").expect(200).json()["total"], 1);
}

#[test]
fn a_file_of_bundles_needs_the_scope_for_bundles() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Bundle/b", &json!({"resourceType": "Bundle", "id": "b", "type": "collection"})).expect(201);
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    fhir.delete("/Patient/p").expect(204);
    locked(&server);
    let (all, some) = (token(&server, "system/*.rs"), token(&server, "system/Patient.rs"));
    let begun = fhir.send("GET", "/$export?_since=2020-01-01T00:00:00Z", &[ASYNC, ("authorization", &all)], b"").expect(202);
    let status = begun.header("content-location").strip_prefix(server.url()).unwrap().to_owned();
    let api = server.client();
    let manifest = loop {
        let reply = get(&api, &all, &status);
        if reply.status != 202 {
            break reply.expect(200).json();
        }
        std::thread::yield_now();
    };
    let file = |list: &str| manifest[list][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
    assert_eq!((&manifest["output"][0]["type"], &manifest["deleted"][0]["type"]), (&json!("Bundle"), &json!("Bundle")));
    get(&api, &all, &file("output")).expect(200);
    get(&api, &some, &file("output")).expect(403);
    get(&api, &some, &file("deleted")).expect(200);
}

#[test]
fn what_is_not_understood_does_not_widen_an_export() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let ask = |parameter: Value| {
        let body = json!({"resourceType": "Parameters", "parameter": parameter}).to_string();
        fhir.send("POST", "/Patient/$export", &[ASYNC, ("content-type", "application/fhir+json")], body.as_bytes())
    };
    for parameter in [
        json!({"name": "_type", "valueString": "Patient"}),
        json!([{"name": "_type", "valueCodeableConcept": {"text": "Patient"}}]),
        json!([{"name": "_type"}]),
        json!([{"name": "_type", "resource": {"resourceType": "Patient"}}]),
        json!([{"name": "patient", "valueReference": {}}]),
        json!([{"name": "patient", "valueReference": {"identifier": {"value": "x"}}}]),
    ] {
        let refused = ask(parameter.clone()).expect(400).refusal();
        assert!(refused.contains("Parameters.parameter") || refused.contains("parameter '"), "{parameter}: {refused}");
    }
    ask(json!([{"name": "_type", "valueString": "Patient"}, {"name": "patient", "valueReference": {"reference": "Patient/p"}}])).expect(202);
    // Several lines of Prefer are one list.
    let lines = [ASYNC, ("prefer", "handling=lenient")];
    for lines in [[lines[0], lines[1]], [lines[1], lines[0]]] {
        fhir.send("GET", "/$export?_unheard=1", &lines, b"").expect(202);
    }
}

#[test]
fn bodies_that_are_no_objects_are_refused_and_kept() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let bodies = ["[]", "5", "\"x\"", "true", "null"];
    for path in ["/$import", "/$bulk-submit", "/$bulk-submit-status", "/$export"] {
        for body in bodies {
            let reply = fhir.send("POST", path, &[ASYNC, ("content-type", "application/json")], body.as_bytes());
            assert!((400..500).contains(&reply.status), "{path} {body}: {}", reply.status);
            assert!(!reply.refusal().is_empty());
        }
    }
    let kept = events(&server, "a__b").into_iter().filter(|e| e["interaction"] == "$import").count();
    assert_eq!(kept, bodies.len());
}

#[test]
fn secrets_sent_to_the_wrong_place_are_not_kept() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let reply = fhir.send("POST", "/token", &form, b"grant_type=client_credentials&client_assertion=hush&scope=x");
    assert!(reply.status >= 400, "{}", reply.status);
    let folder = crate::support::only_event(&server.simdb(), "a__b", "POST");
    let kept = std::fs::read_to_string(folder.join("request_body.form")).unwrap();
    assert_eq!(kept, "grant_type=client_credentials&client_assertion=[redacted]&scope=x");
    for body in [&b"x=1&client%5Fassertion=hush"[..], b"x=\xe9&client_secret=hush", b"\n client_secret=hush", b"{}&client_secret=hush"] {
        fhir.send("POST", "/Patient", &form, body);
    }
    // What only looks like a form is kept as it came.
    let table = "id,url\n1,https://x/?a=1&client_secret=s\n";
    let event = fhir.send("POST", "/Binary", &[("content-type", "text/csv")], table.as_bytes()).expect(201).header("x-fhirsim-event").to_owned();
    let files: Vec<_> = std::fs::read_dir(server.simdb().join("a__b/fhir/POST").join(event)).unwrap().map(|f| f.unwrap().path()).collect();
    let request = files.iter().find(|f| f.file_name().unwrap().to_string_lossy().starts_with("request_body")).unwrap();
    assert_eq!(std::fs::read_to_string(request).unwrap(), table);
    let key = json!([{"name": "headerName", "valueString": "X-Key"}, {"name": "headerValue", "valueString": "hush"}]);
    let import = json!({"resourceType": "Parameters", "parameter": [{"name": "fileRequestHeader", "part": key}]}).to_string();
    for body in [format!("\u{feff}{import}"), import[..import.len() - 2].to_owned(), import.clone()] {
        let reply = fhir.send("POST", "/$import", &[ASYNC, ("content-type", "application/json")], body.as_bytes());
        assert!(reply.status >= 400, "{}", reply.text());
        for path in ["/Patient/$bulk-submit", "/$bulk-sumbit"] {
            let reply = fhir.send("POST", path, &[("content-type", "application/json")], body.as_bytes());
            assert!(reply.status >= 400, "{}", reply.text());
        }
    }
    for folder in crate::support::events(&server.simdb(), "a__b", "POST") {
        for file in std::fs::read_dir(folder).unwrap() {
            let text = String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned();
            assert!(!text.contains("hush"), "{text}");
        }
    }
}

#[test]
fn a_group_that_a_search_restricts_is_called_custom() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let filter = json!({"url": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter",
        "valueExpression": {"language": "application/x-fhir-query", "expression": "Patient?gender=female"}});
    let group = |extensions: &[&Value]| json!({"resourceType": "Group", "type": "person", "actual": false, "modifierExtension": extensions});
    let made = fhir.post("/Group", &group(&[&filter])).expect(201).json();
    assert!(made["id"].as_str().unwrap().starts_with("custom-"), "{made}");
    let entry = json!({"resource": group(&[&filter]), "request": {"method": "POST", "url": "Group"}});
    let done = fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})).expect(200).json();
    assert!(done["entry"][0]["response"]["location"].as_str().unwrap().contains("Group/custom-"), "{done}");
    let plain = fhir.post("/Group", &json!({"resourceType": "Group", "type": "person", "actual": true})).expect(201).json();
    assert!(!plain["id"].as_str().unwrap().starts_with("custom-"), "{plain}");
}

#[test]
fn restricted_scopes_are_told_of_nothing_else() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    observation(&fhir, "lab", "lab").expect(201);
    observation(&fhir, "vital", "vital").expect(201);
    fhir.put("/List/l", &json!({"resourceType": "List", "id": "l", "status": "current", "mode": "working", "entry": [{"item": {"reference": "Patient/p"}}]}))
        .expect(201);
    fhir.put("/Organization/top", &json!({"resourceType": "Organization", "id": "top"})).expect(201);
    fhir.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o", "partOf": {"reference": "Organization/top"}})).expect(201);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": "Organization/o"}})).expect(201);
    let event = observation(&fhir, "was", "lab").expect(201).header("x-fhirsim-event").to_owned();
    observation(&fhir, "was", "vital").expect(200);
    locked(&server);
    // Tokens are of whole seconds: one that is made in the second of a write might have seen it before.
    let made = server.client().post("/api/sims/a__b/token", &json!({"scope": "system/Observation.rs?category=lab"})).expect(200).json();
    let restricted = format!("Bearer {}", made["access_token"].as_str().unwrap());
    let patients = token(&server, "system/Patient.rs");
    let explained = get(&fhir, &restricted, "/Observation?status=final&_explain=true").expect(403).refusal();
    assert!(explained.contains("_explain"), "{explained}");
    get(&fhir, &token(&server, "system/Observation.rs"), "/Observation?status=final&_explain=true").expect(200);
    for path in [
        "/Patient/_history?_list=l",
        "/Patient?_list=l",
        "/Patient?organization:below=Organization/top",
        "/Patient?gender:in=http://hl7.org/fhir/ValueSet/administrative-gender",
    ] {
        get(&fhir, &patients, path).expect(403);
    }
    assert_eq!(get(&fhir, &token(&server, "system/*.rs"), "/Patient?organization:below=Organization/top").expect(200).json()["total"], 1);
    // A page of what was before the token. Only its second is known.
    let began = std::time::Instant::now();
    let refused = loop {
        let later = token(&server, "system/Observation.rs?category=lab");
        let reply = get(&fhir, &later, &format!("/Observation?_count=10&_cursor={event}.0"));
        if reply.status == 403 || began.elapsed().as_secs() > 10 {
            break reply;
        }
        std::thread::yield_now();
    };
    assert!(refused.expect(403).refusal().contains("before the token"));
    // Whichever of several counts.
    let later = token(&server, "system/Observation.rs?category=lab");
    let newest = server.client().get("/api/sims/a__b/events?limit=1").json()["events"][0]["event"].as_str().unwrap().to_owned();
    get(&fhir, &later, &format!("/Observation?_count=10&_cursor={newest}.0&_cursor={event}.0")).expect(403);
    let page = get(&fhir, &restricted, "/Observation?_count=1").expect(200).json();
    assert_eq!(page["total"], 1);
}

#[test]
fn secrets_stay_out_of_records_unless_a_setting_wants_them() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let api = server.client();
    api.send("PUT", "/api/sims/a__b", &[], br#"{"settings":{"record":"all"}}"#).expect(201);
    let order = r#"{ "resourceType": "Parameters", "parameter": [ {"name":"fileRequestHeader","part":[{"name":"headerName","valueString":"Authorization"},{"name":"headerValue","valueString":"hush"}]} ] }"#;
    let batch = format!(
        r#"{{"resourceType":"Bundle","type":"batch","entry":[{{"resource":{order},"request":{{"method":"POST","url":"$bulk-submit"}}}}, {{"request":{{"method":"GET","url":"Patient?access_token=hush"}}}}]}}"#
    );
    let sent: [(&str, &str, &str, &str); 9] = [
        ("POST", "/$bulk-submit", "application/fhir+ndjson", order),
        ("POST", "/$import", "application/x-ndjson-foo", order),
        ("POST", "/", "application/fhir+json", &batch),
        ("POST", "/Patient", "application/x-www-form-urlencoded", "refresh_token=hush&password=hush&code_verifier=hush"),
        ("POST", "/Patient", "application/x-www-form-urlencoded; charset=utf-16", "client_secret=hush"),
        ("POST", "/Patient", "text/plain", "a=b&client_assertion=hush"),
        ("POST", "/token", "application/json", r#"{"client_assertion":"hush","client_secret":"hush"}"#),
        ("POST", "/Patient", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"client_secret\"\r\n\r\nhush\r\n--b--"),
        ("PUT", "/Patient/p?Access%5FToken=hush&client_secret=hush", "application/fhir+json", r#"{"resourceType":"Patient","id":"p"}"#),
    ];
    let headers = ["x-auth-token", "x-access-token", "api-key", "x-forwarded-access-token", "x-amz-security-token", "ocp-apim-subscription-key"];
    let ask = |method: &str, path: &str, kind: &str, body: &str| {
        let mut all: Vec<(&str, &str)> = headers.iter().map(|name| (*name, "hush")).collect();
        all.push(("content-type", kind));
        fhir.send(method, path, &all, body.as_bytes())
    };
    for (method, path, kind, body) in sent {
        ask(method, path, kind, body);
    }
    let of_all = || {
        let listed = api.get("/api/sims/a__b/events?limit=1000").expect(200).json();
        let folders = listed["events"].as_array().unwrap().iter().map(|e| server.simdb().join("a__b").join(e["folder"].as_str().unwrap()));
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
        files
            .filter(|file| !file.ends_with("response_body.json"))
            .map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned())
            .collect::<Vec<_>>()
    };
    let recorded = of_all();
    assert!(recorded.len() > 10);
    assert_eq!(recorded.iter().filter(|text| text.contains("hush")).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(!api.get("/api/sims/a__b/log").text().contains("hush"));
    assert!(recorded.iter().any(|text| *text == batch.replace("hush", "[redacted]")), "all else stays as it was");
    // What only speaks of secrets is none.
    let innocent = r#"{"resourceType":"Pateint",  "n": 1.00, "note":"how to use fileRequestHeader"}"#;
    ask("POST", "/Patient", "application/fhir+json", innocent).expect(400);
    assert!(of_all().iter().any(|text| text == innocent));
    api.send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"redact":false}}"#).expect(200);
    ask("POST", "/Patient", "application/x-www-form-urlencoded", "client_secret=hush");
    let recorded = of_all();
    assert!(
        recorded.iter().any(|text| text == "client_secret=hush")
            && recorded.iter().any(|text| text.contains(r#""x-auth-token":"hush""#) || text.contains(r#""x-auth-token": "hush""#))
    );
}
