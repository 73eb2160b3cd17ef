//! The setting `validation` and `$validate`.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, only_event};

fn server(validation: &str) -> (TestServer, Client) {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"validation": validation}})).expect(201);
    let fhir = server.fhir("a__b");
    (server, fhir)
}

/// What CamCOPS sends, and more that is wrong.
fn wrong() -> Value {
    json!({"resourceType": "Observation", "statu": "final", "status": "finished", "code": {}, "note": [{"authorString": "a", "authorReference": {"reference": "Patient/1"}, "text": ""}],
        "effectiveDateTime": "2024-02-30", "valueQuantity": {"value": "1"}})
}

fn issues(outcome: &Value) -> Vec<String> {
    let shown = |i: &Value| format!("{} {} {}", i["severity"].as_str().unwrap(), i["code"].as_str().unwrap(), i["expression"][0].as_str().unwrap_or("-"));
    outcome["issue"].as_array().unwrap().iter().map(shown).collect()
}

const FOUND: [&str; 7] = [
    "error structure Observation.statu",
    "error code-invalid Observation.status",
    "error structure Observation.code",
    "error structure Observation.note[0].author",
    "error value Observation.note[0].text",
    "error value Observation.effective",
    "error structure Observation.value.value",
];

fn sorted<T: Into<String>>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut all: Vec<String> = all.into_iter().map(Into::into).collect();
    all.sort();
    all
}

#[test]
fn by_default_anything_that_has_a_type_is_stored() {
    let (server, fhir) = server("off");
    let made = fhir.post("/Observation", &wrong()).expect(201).json();
    assert_eq!(made["statu"], "final");
    let record: Value = serde_json::from_slice(&std::fs::read(only_event(&server.simdb(), "a__b", "POST").join("event.json")).unwrap()).unwrap();
    assert_eq!(record.get("issues"), None);
}

#[test]
fn with_warn_it_is_stored_and_what_is_wrong_is_said() {
    let (server, fhir) = server("warn");
    let said = fhir.send("POST", "/Observation", &[("prefer", "return=OperationOutcome")], wrong().to_string().as_bytes()).expect(201).json();
    assert_eq!(issues(&said)[0], "information informational -");
    assert_eq!(sorted(issues(&said)[1..].to_vec()), sorted(FOUND));
    let record: Value = serde_json::from_slice(&std::fs::read(only_event(&server.simdb(), "a__b", "POST").join("event.json")).unwrap()).unwrap();
    assert_eq!(record["issues"].as_array().unwrap().len(), FOUND.len());
    let bundle =
        json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": wrong(), "request": {"method": "POST", "url": "Observation"}}]});
    let answer = fhir.post("", &bundle).expect(200).json();
    assert_eq!(answer["entry"][0]["response"]["outcome"]["issue"].as_array().unwrap().len(), FOUND.len() + 1);
    let record: Value = serde_json::from_slice(&std::fs::read(only_event(&server.simdb(), "a__b", "TRANSACTION").join("event.json")).unwrap()).unwrap();
    assert!(record["issues"].to_string().contains("Bundle.entry[0].resource.statu"));
}

#[test]
fn with_strict_it_is_refused_with_all_that_is_wrong() {
    let (_server, fhir) = server("strict");
    let refused = fhir.post("/Observation", &wrong()).expect(422).json();
    assert_eq!(sorted(issues(&refused)), sorted(FOUND));
    assert_eq!(refused["issue"][0]["details"]["coding"][0]["code"], "unprocessable");
    let right = json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}});
    fhir.put("/Observation/o", &right).expect(201);
    let patch = br#"[{"op":"remove","path":"/status"}]"#;
    let refused = fhir.send("PATCH", "/Observation/o", &[("content-type", "application/json-patch+json")], patch).expect(422).json();
    assert_eq!(issues(&refused), ["error required Observation"]);
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": right, "request": {"method": "POST", "url": "Observation"}}, {"resource": wrong(), "request": {"method": "POST", "url": "Observation"}}]});
    let refused = fhir.post("", &bundle).expect(422).json();
    assert!(issues(&refused).contains(&"error value Bundle.entry[1].resource.effective".to_owned()), "{refused}");
    assert_eq!(fhir.get("/Observation").json()["total"], 1);
}

#[test]
fn validate_tells_and_stores_nothing() {
    let (server, fhir) = server("off");
    let told = |path: &str, body: &Value| fhir.post(path, body).expect(200).json();
    assert_eq!(sorted(issues(&told("/Observation/$validate", &wrong()))), sorted(FOUND));
    let within = json!({"resourceType": "Parameters", "parameter": [{"name": "mode", "valueCode": "create"}, {"name": "resource", "resource": wrong()}]});
    assert_eq!(sorted(issues(&told("/Observation/$validate", &within))), sorted(FOUND));
    let right = json!({"resourceType": "Patient", "id": "p", "active": true});
    let clean = told("/Patient/$validate", &right);
    assert!(clean["issue"].as_array().unwrap().len() == 1 && clean["issue"][0]["severity"] == "information", "{clean}");
    assert_eq!(issues(&told("/Group/$validate", &right))[0], "error invalid resourceType");
    assert!(told("/Patient/$validate?profile=http://x/p", &right).to_string().contains("profile 'http://x/p' was not looked at"));
    fhir.put("/Patient/p", &right).expect(201);
    assert_eq!(fhir.get("/Patient/p/$validate").expect(200).json()["issue"][0]["severity"], "information");
    assert_eq!(issues(&told("/Patient/q/$validate?mode=update", &right))[0], "error value Patient.id");
    assert!(fhir.get("/Patient/p/$validate?mode=delete").expect(200).text().contains("may be deleted"));
    fhir.get("/Patient/none/$validate?mode=delete").expect(404);
    assert!(fhir.get("/Patient/$validate").expect(400).refusal().contains("$validate needs a resource"));
    assert!(fhir.post("/Patient/$validate?mode=guess", &right).expect(400).refusal().contains("mode 'guess'"));
    assert!(crate::support::events(&server.simdb(), "a__b", "POST").is_empty(), "what is not stored is no event");
}

#[test]
fn validate_says_that_profiles_are_not_looked_at() {
    let (_server, fhir) = server("off");
    let said = |query: &str, profiles: Value, gender: &str| {
        let patient = json!({"resourceType": "Patient", "meta": {"profile": profiles}, "gender": gender});
        let outcome = fhir.post(&format!("/Patient/$validate{query}"), &patient).expect(200).json();
        let all = outcome["issue"].as_array().unwrap().clone();
        all.iter()
            .map(|i| format!("{} {} {}", i["severity"].as_str().unwrap(), i["code"].as_str().unwrap(), i["diagnostics"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let one = "information not-supported profile 'http://x/p' was not looked at: this server validates the structure that the specification defines";
    let clean = said("", json!(["http://x/p"]), "male");
    assert!(clean[0] == one && clean[1].starts_with("information informational no problem found") && clean.len() == 2, "{clean:?}");
    let wrong = said("?profile=http://x/p", json!(["http://x/p"]), "mael");
    assert!(wrong[0].starts_with("error code-invalid") && wrong[1] == one && wrong.len() == 2, "{wrong:?}");
    let many: Vec<String> = (1..9).map(|n| format!("http://x/{n}")).collect();
    let many = said("", json!(many), "male");
    assert!(many[0].contains("profiles 'http://x/1', ") && many[0].contains("'http://x/5' and 3 more were not looked at"), "{many:?}");
    let none = fhir.post("/Patient/$validate", &crate::support::patient("p", "A")).expect(200).json();
    assert_eq!(none["issue"].as_array().unwrap().len(), 1, "{none}");
}

#[test]
fn validate_tells_what_a_write_would_be_refused_for() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"updateCreate": false, "referentialIntegrity": "on"}})).expect(201);
    let fhir = server.fhir("a__b");
    let dangling = |id: &str| json!({"resourceType": "Patient", "id": id, "managingOrganization": {"reference": "Organization/none"}});
    let first = |outcome: &Value| (outcome["issue"][0]["code"].clone(), outcome["issue"][0]["expression"].clone(), outcome["issue"][0]["diagnostics"].clone());
    let patient = crate::support::patient("new", "A");
    let refused = fhir.put("/Patient/new", &patient).expect(405).json();
    for path in ["/Patient/new/$validate?mode=update", "/Patient/$validate?mode=update"] {
        let told = fhir.post(path, &patient).expect(200).json();
        assert_eq!(
            (&told["issue"][0]["code"], &told["issue"][0]["diagnostics"]),
            (&refused["issue"][0]["code"], &refused["issue"][0]["diagnostics"]),
            "{path}"
        );
        assert_eq!(told["issue"][0]["severity"], "error");
    }
    for path in ["/Patient/new/$validate", "/Patient/$validate?mode=create", "/Patient/$validate?mode=profile"] {
        assert!(fhir.post(path, &patient).expect(200).text().contains("no problem found"), "{path}");
    }
    let refused = fhir.post("/Patient", &dangling("x")).expect(422).json();
    assert_eq!(first(&fhir.post("/Patient/$validate?mode=create", &dangling("x")).expect(200).json()), first(&refused));
    let there = fhir.post("/Patient", &json!({"resourceType": "Patient"})).expect(201).json();
    let id = there["id"].as_str().unwrap();
    let refused = fhir.put(&format!("/Patient/{id}"), &dangling(id)).expect(422).json();
    assert_eq!(first(&fhir.post(&format!("/Patient/{id}/$validate?mode=update"), &dangling(id)).expect(200).json()), first(&refused));
    // It may refer to itself, and nothing of this is stored.
    let itself = json!({"resourceType": "Patient", "id": id, "link": [{"other": {"reference": format!("Patient/{id}")}, "type": "seealso"}]});
    assert!(fhir.post(&format!("/Patient/{id}/$validate?mode=update"), &itself).expect(200).text().contains("no problem found"));
    assert_eq!(fhir.get("/Patient").expect(200).json()["total"], 1);
}

#[test]
fn a_bundle_of_requests_is_looked_at_itself() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let entry = json!({"fullUrl": "urn:uuid:22222222-2222-4222-8222-222222222222", "resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient", "baz": 1}});
    let bundle = |kind: &str| json!({"resourceType": "Bundle", "type": kind, "foo": true, "entry": [entry]});
    for (validation, status) in [("off", 200), ("warn", 200), ("strict", 422)] {
        server.client().put("/api/sims/a__b", &json!({"settings": {"validation": validation}}));
        for kind in ["transaction", "batch"] {
            let reply = fhir.post("", &bundle(kind)).expect(status);
            let event = server.client().get(&format!("/api/sims/a__b/events/{}", reply.header("x-fhirsim-event"))).json();
            let said = if status == 422 { reply.text().to_owned() } else { event["issues"].to_string() };
            for place in ["Bundle.foo", "Bundle.entry[0].request.baz"] {
                assert_eq!(said.contains(place), validation != "off", "{validation} {kind}: {said}");
            }
        }
    }
    // What is as it should be is taken.
    let good = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient?_count=1"}}]});
    fhir.post("", &good).expect(200);
}

#[test]
fn codes_of_systems_that_are_published_elsewhere_are_known() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"fhirVersion": "R5", "settings": {"validation": "strict"}})).expect(201);
    let fhir = server.fhir("a__b");
    for (code, status) in [("active", 201), ("unknown", 201), ("bogus", 422)] {
        let clinical = json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": code}]});
        let reply =
            fhir.post("/Condition", &json!({"resourceType": "Condition", "clinicalStatus": clinical, "subject": {"reference": "Patient/p"}})).expect(status);
        assert!(status == 201 || reply.refusal().contains("bogus"));
    }
    assert_eq!(fhir.get("/Condition?clinical-status:in=http://hl7.org/fhir/ValueSet/condition-clinical").expect(200).json()["total"], 2);
}
