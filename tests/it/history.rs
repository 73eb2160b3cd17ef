//! History of a resource, of a type and of the whole simulator.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, link, patient};

fn entries(bundle: &Value) -> Vec<String> {
    let shown = |e: &Value| {
        let url = e["fullUrl"].as_str().unwrap().split("/fhir/").nth(1).unwrap();
        format!("{} {url}{}", e["request"]["method"].as_str().unwrap(), e["response"]["etag"].as_str().unwrap().trim_start_matches("W/"))
    };
    bundle["entry"].as_array().into_iter().flatten().map(shown).collect()
}

/// All pages of a history.
fn walk(fhir: &Client, path: &str, meanwhile: impl Fn()) -> Vec<String> {
    let mut page = fhir.get(path).expect(200).json();
    let mut all = Vec::new();
    loop {
        all.extend(entries(&page));
        meanwhile();
        let Some(next) = link(&page, "next") else { return all };
        page = fhir.get(next.split("/fhir").nth(1).unwrap()).expect(200).json();
    }
}

/// Ends when the clock's millisecond does: what comes next has another instant.
fn next_millisecond() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let before = now();
    while now() == before {
        std::hint::spin_loop();
    }
}

fn fill(fhir: &Client) -> Vec<String> {
    fhir.put("/Patient/a", &patient("a", "One")).expect(201);
    fhir.put("/Patient/b", &patient("b", "One")).expect(201);
    fhir.put("/Observation/o", &json!({"resourceType": "Observation", "id": "o"})).expect(201);
    fhir.put("/Patient/a", &patient("a", "Two")).expect(200);
    fhir.delete("/Patient/b").expect(204);
    next_millisecond();
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": patient("c", "One"), "request": {"method": "PUT", "url": "Patient/c"}}, {"resource": patient("d", "One"), "request": {"method": "PUT", "url": "Patient/d"}}]});
    fhir.post("", &bundle).expect(200);
    [
        "PUT Patient/d\"1\"",
        "PUT Patient/c\"1\"",
        "DELETE Patient/b\"2\"",
        "PUT Patient/a\"2\"",
        "PUT Observation/o\"1\"",
        "PUT Patient/b\"1\"",
        "PUT Patient/a\"1\"",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn histories_hold_every_version_recent_or_committed() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let all = fill(&fhir);
    let patients: Vec<String> = all.iter().filter(|e| e.contains("Patient")).cloned().collect();
    for when in ["recent", "committed"] {
        assert_eq!(walk(&fhir, "/_history", || ()), all, "{when}");
        assert_eq!(walk(&fhir, "/Patient/_history", || ()), patients, "{when}");
        let bundle = fhir.get("/Patient/_history").json();
        assert_eq!((&bundle["total"], &bundle["type"]), (&json!(6), &json!("history")), "{when}");
        let deleted = &bundle["entry"][2];
        assert_eq!(
            (deleted.get("resource"), &deleted["request"]["method"], &deleted["response"]["status"]),
            (None, &json!("DELETE"), &json!("204 No Content"))
        );
        let mut reversed = all.clone();
        reversed.reverse();
        assert_eq!(walk(&fhir, "/_history?_sort=_lastUpdated&_count=2", || ()), reversed, "{when}");
        fhir.get("/Patient/b/_history/2").expect(410);
        assert_eq!(fhir.get("/Patient/_history?_elements=name").json()["entry"][0]["resource"]["meta"]["tag"][0]["code"], "SUBSETTED");
        fhir.get("/Patient/never/_history").expect(404);
        fhir.get("/Nonsense/_history").expect(404);
        for bad in ["_count=x", "_since=yesterday", "_at=x", "_sort=name", "name=x", "_list=none"] {
            assert!(matches!(fhir.get(&format!("/_history?{bad}")).status, 400 | 404), "{bad}");
        }
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
    assert_eq!(fhir.get("/_history?_count=0").json().get("entry"), None);
    let inside =
        fhir.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/_history?_count=1"}}]}));
    assert_eq!(inside.json()["entry"][0]["resource"]["total"], 6);
}

#[test]
fn pages_of_a_history_neither_skip_nor_repeat_while_others_write() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let all = fill(&fhir);
    for path in ["/_history?_count=2", "/_history?_count=3&_sort=-_lastUpdated"] {
        let before = walk(&fhir, path, || ());
        let during = walk(&fhir, path, || _ = fhir.put("/Patient/w", &patient("w", "W")));
        assert_eq!(during, before);
        assert!(before.ends_with(&all));
    }
}

#[test]
fn a_history_may_be_of_a_time_or_of_a_list() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let stamp = |url: &str| fhir.get(url).json()["meta"]["lastUpdated"].as_str().unwrap().to_owned();
    let (second, made) = (stamp("/Patient/a/_history/2"), stamp("/Patient/c"));
    let since = walk(&fhir, &format!("/_history?_since={made}"), || ());
    assert_eq!(since, ["PUT Patient/d\"1\"", "PUT Patient/c\"1\""]);
    for (query, expected) in [
        // Current at some moment from then on: what was deleted before is not.
        (format!("_at=ge{made}"), vec!["PUT Patient/d\"1\"", "PUT Patient/c\"1\"", "PUT Patient/a\"2\""]),
        ("_at=2001".to_owned(), vec![]),
        (
            "_at=ge2001".to_owned(),
            vec!["PUT Patient/d\"1\"", "PUT Patient/c\"1\"", "DELETE Patient/b\"2\"", "PUT Patient/a\"2\"", "PUT Patient/b\"1\"", "PUT Patient/a\"1\""],
        ),
    ] {
        assert_eq!(walk(&fhir, &format!("/Patient/_history?{query}"), || ()), expected, "{query}");
    }
    let then = walk(&fhir, &format!("/Patient/_history?_at={second}"), || ());
    assert!(then.contains(&"PUT Patient/a\"2\"".to_owned()) && !then.contains(&"PUT Patient/a\"1\"".to_owned()), "{then:?}");
    assert_eq!(walk(&fhir, &format!("/Patient/a/_history?_at=ge{made}"), || ()), ["PUT Patient/a\"2\""]);
    fhir.put("/List/l", &json!({"resourceType": "List", "id": "l", "entry": [{"item": {"reference": "Patient/a"}}, {"item": {"reference": "Observation/o"}}]}))
        .expect(201);
    assert_eq!(walk(&fhir, "/_history?_list=l", || ()), ["PUT Patient/a\"2\"", "PUT Observation/o\"1\"", "PUT Patient/a\"1\""]);
    assert_eq!(walk(&fhir, "/Patient/_history?_list=l&_sort=_lastUpdated", || ()), ["PUT Patient/a\"1\"", "PUT Patient/a\"2\""]);
    assert_eq!(walk(&fhir, "/Patient/c/_history?_list=l", || ()), Vec::<String>::new());
    // What is taken off a list while one pages is on it still.
    for (id, list) in [("c", "now"), ("d", "$current-problems")] {
        let problem =
            |status: &str| json!({"resourceType": "Condition", "id": id, "subject": {"display": "x"}, "clinicalStatus": {"coding": [{"code": status}]}});
        fhir.put(&format!("/Condition/{id}"), &problem("active")).expect(201);
        fhir.put(&format!("/Condition/{id}"), &problem("active")).expect(200);
        let listing = |entries: Value| fhir.put("/List/now", &json!({"resourceType": "List", "id": "now", "entry": entries}));
        listing(json!([{"item": {"reference": "Condition/c"}}])).expect(201);
        let after = || {
            fhir.put(&format!("/Condition/{id}"), &problem("resolved")).expect(200);
            listing(json!([{"item": {"reference": "Condition/none"}}])).expect(200);
        };
        let two = [format!("PUT Condition/{id}\"2\""), format!("PUT Condition/{id}\"1\"")];
        assert_eq!(walk(&fhir, &format!("/Condition/_history?_list={list}&_count=1"), after), two, "{list}");
        fhir.send("DELETE", "/List/now", &[], b"").expect(204);
    }
}

#[test]
fn a_history_passes_over_no_parameter_that_is_given_twice() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let all = fill(&fhir);
    let patients: Vec<String> = all.iter().filter(|e| e.contains("Patient")).cloned().collect();
    for twice in
        ["_count=1&_count=2", "_since=2020&_since=2021", "_sort=_lastUpdated&_sort=-_lastUpdated", "_summary=true&_summary=text", "_elements=name&_elements=id"]
    {
        let name = twice.split('=').next().unwrap();
        for path in ["/_history", "/Patient/_history", "/Patient/a/_history"] {
            let refused = fhir.get(&format!("{path}?{twice}")).expect(400).refusal();
            assert!(refused.contains(&format!("{name} is given twice")), "{refused}");
        }
    }
    // A beginning and an end are one time.
    for between in ["_at=ge2001&_at=le2999", "_at=lt2999&_at=gt2001"] {
        let mut expected = patients.clone();
        expected.sort();
        let mut found = walk(&fhir, &format!("/Patient/_history?{between}&_count=2"), || ());
        found.sort();
        assert_eq!(found, expected, "{between}");
    }
    assert_eq!(walk(&fhir, "/Patient/_history?_at=ge2001&_at=lt2002", || ()), Vec::<String>::new());
    for bad in ["_at=2020&_at=2021", "_at=ge2020&_at=ge2021", "_at=ge2021&_at=lt2020", "_at=ge2020&_at=le2021&_at=le2022"] {
        assert!(fhir.get(&format!("/_history?{bad}")).expect(400).refusal().contains("_at is given "), "{bad}");
    }
}

#[test]
fn histories_are_as_their_version_has_them() {
    let server = TestServer::start();
    for (version, method) in [("STU3", "PUT"), ("R4", "PATCH"), ("R5", "PUT")] {
        let sim = format!("v__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
        fhir.send("PATCH", "/Patient/p", &[("content-type", "application/json-patch+json")], br#"[{"op":"add","path":"/active","value":true}]"#).expect(200);
        let patched = fhir.get("/Patient/p/_history").json()["entry"][0].clone();
        assert_eq!((&patched["request"]["method"], patched.get("response").is_some()), (&json!(method), version != "STU3"), "{version}");
        let active = |id: &str, status: &str| json!({"resourceType": "Condition", "id": id, "subject": {"display": "x"}, "clinicalStatus": if version == "STU3" { json!(status) } else { json!({"coding": [{"code": status}]}) }});
        fhir.put("/Condition/a", &active("a", "active")).expect(201);
        fhir.put("/Condition/b", &active("b", "resolved")).expect(201);
        let listed = fhir.get("/_history?_list=$current-problems").expect(200).json();
        assert_eq!((&listed["total"], &listed["entry"][0]["resource"]["id"]), (&json!(1), &json!("a")));
        assert_eq!(fhir.get("/Condition/b/_history?_list=$current-problems").expect(200).json()["total"], 0);
        fhir.get("/_history?_list=$nothing").expect(400);
        server.client().send("PATCH", &format!("/api/sims/{sim}"), &[], br#"{"settings":{"versioning":"no-version"}}"#).expect(200);
        for path in ["/Patient/p/_history", "/Patient/p/_history/1", "/Patient/_history", "/_history"] {
            assert!(fhir.get(path).expect(404).refusal().contains("shows no versions"), "{path}");
        }
    }
}
