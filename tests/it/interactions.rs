//! Create, read, vread, update, delete, history, and their headers.

use base64::Engine as _;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::io::Read;

use crate::support::{TestServer, patient};

#[test]
fn a_resource_lives_from_create_to_delete_and_its_history_stays() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let created = fhir.post("/Patient", &json!({"resourceType": "Patient", "active": true})).expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("etag"), "W/\"1\"");
    assert_eq!(created.header("location"), format!("{}/Patient/{id}/_history/1", fhir.base));
    assert!(created.header("last-modified").ends_with("GMT"));
    let event = created.header("x-fhirsim-event").to_owned();
    assert!(server.simdb().join("a__b/fhir/POST").join(&event).is_dir());

    let read = fhir.get(&format!("/Patient/{id}")).expect(200);
    assert_eq!(read.bytes, created.bytes);
    assert_eq!(read.header("content-type"), "application/fhir+json; charset=utf-8");

    fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "active": false})).expect(200);
    assert_eq!(fhir.get(&format!("/Patient/{id}")).json()["meta"]["versionId"], "2");
    assert_eq!(fhir.get(&format!("/Patient/{id}/_history/1")).json()["active"], true);

    let gone = fhir.delete(&format!("/Patient/{id}")).expect(204);
    assert!(gone.bytes.is_empty());
    assert!(fhir.get(&format!("/Patient/{id}")).expect(410).refusal().starts_with("410 deleted deleted: Patient/"));
    fhir.delete(&format!("/Patient/{id}")).expect(204);
    fhir.get(&format!("/Patient/{id}/_history/3")).expect(410);
    fhir.get(&format!("/Patient/{id}/_history/4")).expect(404);
    fhir.get(&format!("/Patient/{id}/_history/1")).expect(200);

    let history = fhir.get(&format!("/Patient/{id}/_history")).expect(200).json();
    let methods: Vec<&str> = history["entry"].as_array().unwrap().iter().map(|e| e["request"]["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["DELETE", "PUT", "POST"]);
    assert_eq!(history["total"], 3);
    assert_eq!(history["entry"][0].get("resource"), None);
    assert_eq!(history["entry"][2]["response"]["status"], "201 Created");

    // A new version after the deletion goes on counting.
    let again = fhir.put(&format!("/Patient/{id}"), &patient(&id, "Again")).expect(201);
    assert_eq!(again.header("etag"), "W/\"4\"");
}

#[test]
fn history_pages_and_since() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for n in 0..5 {
        fhir.put("/Patient/p", &patient("p", &format!("V{n}")));
    }
    let first = fhir.get("/Patient/p/_history?_count=2").json();
    // A version written between two pages shows on neither.
    fhir.put("/Patient/p", &patient("p", "late"));
    let mut seen: Vec<String> = Vec::new();
    let mut page = first;
    loop {
        seen.extend(page["entry"].as_array().unwrap().iter().map(|e| e["resource"]["meta"]["versionId"].as_str().unwrap().to_owned()));
        let Some(next) = crate::support::link(&page, "next").map(|url| url.strip_prefix(&fhir.base).unwrap().to_owned()) else { break };
        page = fhir.get(&next).expect(200).json();
    }
    assert_eq!(seen, ["5", "4", "3", "2", "1"]);
    assert_eq!(fhir.get("/Patient/p/_history?_since=2999-01-01").json()["total"], 0);
    assert_eq!(fhir.get("/Patient/p/_history?_since=2020-01-01T00:00:00%2B01:00").json()["total"], 6);
    fhir.get("/Patient/p/_history?_since=x").expect(400);
    fhir.get("/Patient/nobody/_history").expect(404);
}

#[test]
fn bytes_are_stored_as_they_came() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let body = "{ \"x-unknown\": [ 1.00, 1e3, 123456789012345678901234567890 ],\n\t\"resourceType\" : \"Observation\" , \"valueQuantity\":{\"value\": 0.10},\"text\":\"\\u00fc/\\/\" }";
    fhir.send("PUT", "/Observation/o", &[], body.replace("\"x-unknown\"", "\"id\":\"o\",\"x-unknown\"").as_bytes()).expect(201);
    let stored = fhir.get("/Observation/o").text().to_owned();
    for part in ["[ 1.00, 1e3, 123456789012345678901234567890 ],\n\t", "{\"value\": 0.10}", "\"\\u00fc/\\/\""] {
        assert!(stored.contains(part), "{stored}");
    }
    let pretty = fhir.get("/Observation/o?_pretty=true").text().to_owned();
    assert!(pretty.contains("\n    1e3,\n"), "{pretty}");
}

#[test]
fn conditional_reads_and_updates() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let made = fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let with = |name: &str, value: &str| fhir.send("GET", "/Patient/p", &[(name, value)], b"").status;
    assert_eq!(with("if-none-match", "W/\"1\""), 304);
    assert_eq!(with("if-none-match", "W/\"7\", W/\"1\""), 304);
    assert_eq!(with("if-none-match", "W/\"2\""), 200);
    assert_eq!(with("if-modified-since", made.header("last-modified")), 304);
    assert_eq!(with("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT"), 200);
    let update = |tag: &str| fhir.send("PUT", "/Patient/p", &[("if-match", tag)], patient("p", "B").to_string().as_bytes());
    update("W/\"2\"").expect(412);
    assert!(update("W/\"").expect(400).refusal().contains("[http.If-Match]"));
    update("W/\"1\"").expect(200);
    fhir.send("PUT", "/Patient/none", &[("if-match", "W/\"1\"")], patient("none", "B").to_string().as_bytes()).expect(412);
    fhir.send("PUT", "/Patient/p", &[("if-none-match", "*")], patient("p", "B").to_string().as_bytes()).expect(412);
    fhir.send("PUT", "/Patient/fresh", &[("if-none-match", "*")], patient("fresh", "B").to_string().as_bytes()).expect(201);
    fhir.send("PUT", "/Patient/p", &[("if-match", "W/\"9\", W/\"2\"")], patient("p", "C").to_string().as_bytes()).expect(200);
    fhir.send("DELETE", "/Patient/p", &[("if-match", "W/\"1\"")], b"").expect(412);
    fhir.send("DELETE", "/Patient/p", &[("if-match", "\"3\"")], b"").expect(204);
}

#[test]
fn a_head_is_a_get_without_a_body() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let (get, head) = (fhir.get("/Patient/p"), fhir.send("HEAD", "/Patient/p", &[], b""));
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    assert_eq!(head.header("etag"), get.header("etag"));
    assert_eq!(head.header("content-length"), get.bytes.len().to_string());
    assert_eq!(fhir.send("HEAD", "/Patient/none", &[], b"").status, 404);
}

#[test]
fn prefer_decides_what_comes_back() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let create = |prefer: &str| fhir.send("POST", "/Patient", &[("prefer", prefer)], br#"{"resourceType":"Patient"}"#);
    let minimal = create("return=minimal").expect(201);
    assert!(minimal.bytes.is_empty() && !minimal.header("location").is_empty());
    assert_eq!(create("return=OperationOutcome").expect(201).json()["resourceType"], "OperationOutcome");
    assert_eq!(create("return=representation").expect(201).json()["resourceType"], "Patient");
    assert_eq!(create("return=everything").expect(201).json()["resourceType"], "Patient", "what is not understood is ignored, RFC 7240");
    assert!(create("return=everything; handling=strict").expect(400).refusal().contains("use return=representation, minimal or OperationOutcome"));
    assert!(create("RETURN=minimal, return=representation").expect(201).bytes.is_empty(), "the first counts");
    fhir.put("/Patient/p", &patient("p", "A"));
    assert_eq!(fhir.send("DELETE", "/Patient/p", &[("prefer", "return=OperationOutcome")], b"").expect(200).json()["resourceType"], "OperationOutcome");
}

#[test]
fn media_types_are_negotiated() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let accept = |value: &str| fhir.send("GET", "/Patient/p", &[("accept", value)], b"");
    for (value, expected) in [
        ("application/fhir+json", "application/fhir+json; charset=utf-8"),
        ("application/json", "application/json; charset=utf-8"),
        ("text/json;charset=utf-8", "text/json; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/fhir+json; charset=utf-8"),
        ("application/xml;q=0.4, application/json;q=0.5", "application/json; charset=utf-8"),
        ("application/xml, application/json;q=0.5", "application/xml; charset=utf-8"),
        ("application/fhir+json; fhirVersion=4.0", "application/fhir+json; fhirVersion=4.0"),
        ("application/fhir+json; fhirVersion=5.0, application/fhir+json; fhirVersion=4.0; q=0.5", "application/fhir+json; fhirVersion=4.0"),
    ] {
        assert_eq!(accept(value).expect(200).header("content-type"), expected, "{value}");
    }
    assert!(accept("application/fhir+turtle").expect(406).refusal().contains("use application/fhir+json or application/fhir+xml"));
    assert!(accept("application/fhir+json; fhirVersion=5.0").expect(406).refusal().contains("FHIR R4"));
    fhir.get("/Patient/p?_format=json").expect(200);
    fhir.get("/Patient/p?_format=application/fhir+json").expect(200);
    fhir.get("/Patient/p?_format=ttl").expect(406);
    for (sent, status) in [
        ("application/json", 201),
        ("text/json", 201),
        ("application/fhir+json; charset=UTF-8", 201),
        ("application/fhir+json; fhirVersion=4.0", 201),
        ("application/fhir+json; fhirVersion=3.0", 406),
        ("application/fhir+xml", 400),
        ("application/fhir+turtle", 415),
        ("application/json; charset=latin1", 415),
        ("text/plain", 415),
    ] {
        fhir.send("POST", "/Patient", &[("content-type", sent)], br#"{"resourceType":"Patient"}"#).expect(status);
    }
}

#[test]
fn gzip_goes_in_and_out() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(patient("z", &"long ".repeat(500)).to_string().as_bytes(), flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    fhir.send("PUT", "/Patient/z", &[("content-encoding", "gzip")], &packed).expect(201);
    let reply = fhir.send("GET", "/Patient/z", &[("accept-encoding", "gzip")], b"").expect(200);
    assert_eq!(reply.header("content-encoding"), "gzip");
    let mut text = String::new();
    GzDecoder::new(&reply.bytes[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, fhir.get("/Patient/z").text());
    assert!(fhir.send("PUT", "/Patient/z", &[("content-encoding", "br")], &packed).expect(415).refusal().contains("[http.Content-Encoding]"));
    assert!(fhir.send("PUT", "/Patient/z", &[("content-encoding", "gzip")], b"{}").expect(400).refusal().contains("is not gzip"));
}

#[test]
fn a_binary_goes_in_and_out_raw() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let content = b"%PDF-1.7 \x00\xff";
    let made = fhir.send("POST", "/Binary", &[("content-type", "application/pdf")], content).expect(201);
    let stored = made.json();
    assert_eq!(
        (stored["contentType"].as_str().unwrap(), stored["data"].as_str().unwrap()),
        ("application/pdf", base64::engine::general_purpose::STANDARD.encode(content).as_str())
    );
    let path = format!("/Binary/{}", stored["id"].as_str().unwrap());
    let raw = fhir.send("GET", &path, &[("accept", "application/pdf")], b"").expect(200);
    assert_eq!((raw.bytes.as_slice(), raw.header("content-type"), raw.header("content-security-policy")), (&content[..], "application/pdf", "sandbox"));
    assert_eq!(fhir.get(&path).bytes, content, "nothing said: as it is");
    assert_eq!(fhir.send("GET", &path, &[("accept", "application/fhir+json")], b"").json(), stored);
    fhir.send("PUT", "/Binary/b", &[("content-type", "text/plain; charset=utf-8")], b"hi").expect(201);
    assert_eq!(fhir.get("/Binary/b").header("content-type"), "text/plain; charset=utf-8");
    for (accept, query, is_raw) in [
        ("text/plain;q=0", "", false),
        ("text/*;q=0, */*", "", false),
        ("application/fhir+json, text/plain;q=0.1", "", false),
        ("application/fhir+json;q=0.1, Text/Plain", "", true),
        ("application/pdf", "", true),
        ("text/plain", "?_format=json", false),
    ] {
        let reply = fhir.send("GET", &format!("/Binary/b{query}"), &[("accept", accept)], b"").expect(200);
        assert_eq!(reply.bytes == b"hi", is_raw, "{accept} {query}: {}", reply.text());
    }
}

#[test]
fn a_part_of_a_binary_is_fhir() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.send("PUT", "/Binary/b", &[("content-type", "image/png")], b"png").expect(201);
    for path in ["/Binary/b?_summary=true", "/Binary/b?_elements=contentType", "/Binary/b/_history/1?_elements=contentType"] {
        let part = fhir.send("GET", path, &[("accept", "image/png")], b"").expect(200).json();
        assert_eq!((&part["contentType"], &part["data"], &part["meta"]["tag"][0]["code"]), (&json!("image/png"), &Value::Null, &json!("SUBSETTED")), "{path}");
    }
    assert_eq!(fhir.get("/Binary/b?_summary=false").bytes, b"png");
    for path in ["/Binary/b?_summary=true&_elements=contentType", "/Binary/b?_elements=", "/Binary/_history?_summary=true&_summary=data"] {
        fhir.send("GET", path, &[("prefer", "handling=strict")], b"").expect(400);
    }
}

#[test]
fn what_names_no_element_is_left_out_of_a_read() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let whole = fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "gender": "male", "active": true})).expect(201).json();
    let strict = [("prefer", "handling=strict")];
    for path in ["/Patient/p", "/Patient/p/_history/1", "/Patient/p/_history", "/Patient/_history", "/_history"] {
        let shown = |elements: &str| {
            let reply = fhir.get(&format!("{path}?_elements={elements}")).expect(200).json();
            reply.pointer("/entry/0/resource").cloned().unwrap_or(reply)
        };
        assert_eq!((shown("gender")["gender"].clone(), shown("gender")["active"].clone()), (json!("male"), Value::Null), "{path}");
        assert_eq!((shown("bogus,Patient.gender")["gender"].clone(), shown("bogus,gender")["active"].clone()), (json!("male"), Value::Null), "{path}");
        assert_eq!((shown("bogus"), shown("")), (whole.clone(), whole.clone()), "{path}");
        let refused = fhir.send("GET", &format!("{path}?_elements=gender,bogus"), &strict, b"").expect(400).refusal();
        assert!(refused.contains("_elements: 'bogus' is no element of"), "{refused}");
        fhir.send("GET", &format!("{path}?_elements=gender,Patient.active"), &strict, b"").expect(200);
    }
    assert_eq!(fhir.get("/Patient/p?_elements=Observation.code").expect(200).json(), whole);
    let listed = fhir.get("/Patient?_list=,").expect(200).json();
    assert_eq!(listed["total"], 1, "{listed}");
    assert!(listed.to_string().contains("'_list' has no value"), "{listed}");
}

#[test]
fn request_ids_are_echoed_and_scripts_of_other_sites_may_read() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let reply = fhir.send("GET", "/metadata", &[("x-request-id", "r-1"), ("origin", "https://app.example")], b"").expect(200);
    assert_eq!(reply.header("x-request-id"), "r-1");
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    let preflight = fhir.send(
        "OPTIONS",
        "/Patient",
        &[("origin", "https://app.example"), ("access-control-request-method", "PUT"), ("access-control-request-headers", "content-type")],
        b"",
    );
    assert_eq!(preflight.status, 200);
    assert!(preflight.header("access-control-allow-methods").contains("PUT"));
}

#[test]
fn every_version_has_its_own_endpoint_and_statement() {
    let server = TestServer::start();
    for (version, number, types) in [("STU3", "3.0.2", 117), ("R4", "4.0.1", 146), ("R4B", "4.3.0", 141), ("R5", "5.0.0", 158)] {
        let sim = format!("v__{version}");
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        let statement = fhir.get("/metadata").expect(200).json();
        assert_eq!(statement["fhirVersion"], number);
        let resources = statement["rest"][0]["resource"].as_array().unwrap();
        assert_eq!(resources.len(), types);
        let patient_params = resources.iter().find(|r| r["type"] == "Patient").unwrap()["searchParam"].as_array().unwrap();
        assert!(patient_params.iter().any(|p| p["name"] == "birthdate" && p["type"] == "date"), "{version}");
        for resource in resources {
            let name = resource["type"].as_str().unwrap();
            fhir.put(&format!("/{name}/x"), &json!({"resourceType": name, "id": "x"})).expect(201);
            assert_eq!(fhir.ids(&format!("/{name}?_id=x")), ["x"]);
        }
    }
    server.fhir("v__STU3").get("/MolecularSequence").expect(404);
}

#[test]
fn base_urls_follow_the_proxy() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let location =
        |headers: &[(&str, &str)]| fhir.send("POST", "/Patient", headers, br#"{"resourceType":"Patient"}"#).expect(201).header("location").to_owned();
    assert!(location(&[("x-forwarded-host", "fhir.example"), ("x-forwarded-proto", "https")]).starts_with("https://fhir.example/sim/a__b/fhir/Patient/"));
    assert!(location(&[("forwarded", "host=f.example;proto=https")]).starts_with("https://f.example/sim/"));
    assert!(location(&[("x-forwarded-host", "evil\"><script>")]).starts_with(server.url()));
    let behind = TestServer::with(&["--auto-create", "--public-url", "https://pub.example/base/"]);
    let location = behind.fhir("a__b").post("/Patient", &json!({"resourceType": "Patient"})).header("location").to_owned();
    assert!(location.starts_with("https://pub.example/base/sim/a__b/fhir/Patient/"), "{location}");
    let _: Value = behind.fhir("a__b").get("/metadata").json();
}
