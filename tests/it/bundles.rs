//! Batch and transaction.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, events, only_event, patient};

fn entry(method: &str, url: &str, resource: Value) -> Value {
    json!({"resource": resource, "request": {"method": method, "url": url}})
}

fn bundle(kind: &str, entries: Vec<Value>) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

fn statuses(answer: &Value) -> Vec<String> {
    answer["entry"].as_array().unwrap().iter().map(|e| e["response"]["status"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn references_between_entries_are_rewritten_whatever_their_order() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let observation = json!({"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}, "focus": [{"reference": "http://old.example/fhir/Patient/2"}, {"reference": "Patient/2"}],
        "performer": [{"reference": "urn:oid:1.2"}, {"reference": "urn:uuid:unknown"}], "valueString": "urn:uuid:1"});
    let mut patient_entry = entry("POST", "Patient", json!({"resourceType": "Patient", "id": "2", "link": [{"other": {"reference": "urn:uuid:1"}}]}));
    patient_entry["fullUrl"] = "http://old.example/fhir/Patient/2".into();
    let mut first = entry("POST", "Patient", json!({"resourceType": "Patient"}));
    first["fullUrl"] = "urn:uuid:1".into();
    let mut third = entry("PUT", "Practitioner/doc", json!({"resourceType": "Practitioner", "id": "doc"}));
    third["fullUrl"] = "urn:oid:1.2".into();
    let answer = fhir.post("", &bundle("transaction", vec![entry("POST", "Observation", observation), patient_entry, first, third])).expect(200).json();
    assert_eq!(answer["type"], "transaction-response");
    assert_eq!(statuses(&answer), ["201 Created"; 4]);
    let uid = |n: usize| answer["entry"][n]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    let stored = fhir.get(&format!("/{}", uid(0))).json();
    assert_eq!(stored["subject"]["reference"], uid(2));
    assert_eq!(stored["focus"][0]["reference"], uid(1));
    assert_eq!(stored["focus"][1]["reference"], uid(1));
    assert_eq!(stored["performer"][0]["reference"], "Practitioner/doc");
    assert_eq!(stored["performer"][1]["reference"], "urn:uuid:unknown");
    assert_eq!(stored["valueString"], "urn:uuid:1", "text is no reference");
    assert_eq!(fhir.get(&format!("/{}", uid(1))).json()["link"][0]["other"]["reference"], uid(2));
    assert_eq!(fhir.ids(&format!("/Observation?subject={}", uid(2))).len(), 1);

    let folder = only_event(&server.simdb(), "a__b", "TRANSACTION");
    let mut files: Vec<String> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(
        files,
        ["Observation1.json", "Patient2.json", "Patient3.json", "Practitioner4.json", "date.ser", "event.json", "request_body.json", "response_body.json"]
    );
}

#[test]
fn links_of_narrative_and_markdown_are_rewritten_and_canonicals_stay() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let urn = "urn:uuid:00000000-0000-4000-8000-000000000001";
    let questionnaire = json!({"resourceType": "Questionnaire", "status": "draft", "description": format!("see [her]({urn}), [it]({urn} \"title\") and {urn}"), "title": format!("[x]({urn})"),
        "derivedFrom": [urn], "text": {"status": "generated", "div": format!("<div><a href=\"{urn}\">x</a><img src='{urn}'/> {urn}</div>")}});
    let mut person = entry("POST", "Patient", json!({"resourceType": "Patient"}));
    person["fullUrl"] = urn.into();
    let answer = fhir.post("", &bundle("transaction", vec![entry("POST", "Questionnaire", questionnaire), person])).expect(200).json();
    let uid = |n: usize| answer["entry"][n]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    let (stored, patient) = (fhir.get(&format!("/{}", uid(0))).json(), uid(1));
    assert_eq!(stored["description"], format!("see [her]({patient}), [it]({patient} \"title\") and {urn}"));
    assert_eq!(stored["title"], format!("[x]({urn})"), "a string is no Markdown");
    assert_eq!(stored["derivedFrom"], json!([urn]));
    assert_eq!(stored["text"]["div"], format!("<div><a href=\"{patient}\">x</a><img src='{patient}'/> {urn}</div>"));
}

#[test]
fn a_failing_transaction_stores_nothing_but_the_event() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "Old")).expect(201);
    let mut stale = entry("PUT", "Patient/p", patient("p", "New"));
    stale["request"]["ifMatch"] = "W/\"9\"".into();
    let refused =
        fhir.post("/", &bundle("transaction", vec![entry("POST", "Patient", patient("x", "Rolled")), entry("DELETE", "Patient/p", Value::Null), stale]));
    let said = refused.refusal();
    assert!(said.starts_with("400 invalid invalid-content [Bundle.entry[2]]: Bundle.entry[2]: Patient/p is written by another entry too"), "{said}");
    let mut stale = entry("PUT", "Patient/p", patient("p", "New"));
    stale["request"]["ifMatch"] = "W/\"9\"".into();
    let refused = fhir.post("/", &bundle("transaction", vec![entry("POST", "Patient", patient("x", "Rolled")), stale]));
    assert!(refused.expect(412).refusal().contains("Bundle.entry[1]: If-Match does not hold: Patient/p is at version 1"));
    assert_eq!(fhir.get("/Patient").json()["total"], 1);
    for folder in events(&server.simdb(), "a__b", "TRANSACTION") {
        let record: Value = serde_json::from_slice(&std::fs::read(folder.join("event.json")).unwrap()).unwrap();
        assert_eq!(record["resources"], json!([]));
    }
}

#[test]
fn entries_take_effect_in_the_order_of_the_specification() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/gone", &patient("gone", "Gone")).expect(201);
    let answer = fhir
        .post(
            "",
            &bundle(
                "transaction",
                vec![
                    json!({"request": {"method": "GET", "url": "Patient?family=fresh"}}),
                    json!({"request": {"method": "GET", "url": "Patient/put"}}),
                    entry("PUT", "Patient/put", patient("put", "Put")),
                    entry("POST", "Patient", json!({"resourceType": "Patient", "name": [{"family": "Fresh"}]})),
                    json!({"request": {"method": "DELETE", "url": "Patient/gone"}}),
                    json!({"request": {"method": "DELETE", "url": "Patient/never"}}),
                ],
            ),
        )
        .expect(200)
        .json();
    assert_eq!(statuses(&answer), ["200 OK", "200 OK", "201 Created", "201 Created", "204 No Content", "204 No Content"]);
    assert_eq!(answer["entry"][0]["resource"]["total"], 1, "a search sees what the transaction made");
    assert_eq!(answer["entry"][1]["resource"]["name"][0]["family"], "Put");
    fhir.get("/Patient/gone").expect(410);
}

#[test]
fn conditional_creates_in_a_transaction_keep_to_one() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    // As CamCOPS sends it: raw, unescaped, no fullUrl, no id.
    let conditional = || {
        let mut e =
            entry("POST", "Patient", json!({"resourceType": "Patient", "identifier": [{"system": "https://h/fhir_patient_id_system/1003", "value": "10003"}]}));
        e["request"]["ifNoneExist"] = "identifier=https://h/fhir_patient_id_system/1003|10003".into();
        e
    };
    let first = fhir.post("/", &bundle("transaction", vec![conditional(), conditional()])).expect(200).json();
    assert_eq!(statuses(&first), ["201 Created", "200 OK"]);
    assert_eq!(first["entry"][0]["response"]["location"], first["entry"][1]["response"]["location"]);
    let second = fhir.post("", &bundle("transaction", vec![conditional()])).expect(200).json();
    assert_eq!(statuses(&second), ["200 OK"]);
    assert_eq!(second["entry"][0]["response"]["location"], first["entry"][0]["response"]["location"]);
    assert_eq!(second["entry"][0]["response"]["etag"], "W/\"1\"");
    assert!(second["entry"][0]["response"]["lastModified"].as_str().unwrap().ends_with('Z'));
    assert_eq!(fhir.get("/Patient").json()["total"], 1);
    fhir.put(
        "/Patient/twin",
        &json!({"resourceType": "Patient", "id": "twin", "identifier": [{"system": "https://h/fhir_patient_id_system/1003", "value": "10003"}]}),
    )
    .expect(201);
    let refused = fhir.post("", &bundle("transaction", vec![conditional()])).expect(412).refusal();
    assert!(refused.contains("multiple-matches") && refused.contains("2 resources of type Patient match"), "{refused}");
}

#[test]
fn conditional_references_see_all_that_the_transaction_makes() {
    let server = TestServer::start();
    let organization = |name: &str| entry("PUT", "Organization/o", json!({"resourceType": "Organization", "id": "o", "name": name}));
    let patient = |at: &str| entry("PUT", "Patient/p", json!({"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": at}}));
    let observation = |query: &str| entry("POST", "Observation", json!({"resourceType": "Observation", "subject": {"reference": format!("Patient?{query}")}}));
    let subject = |fhir: &Client, answer: &Value, at: usize| {
        let location = answer["entry"][at]["response"]["location"].as_str().unwrap();
        fhir.get(&format!("/{location}")).json()["subject"]["reference"].clone()
    };
    for query in ["organization.name=Acme", "organization:Organization.name=Acme", "_filter=organization.name eq Acme"] {
        let fhir = server.fhir(&format!("a__{}", query.len()));
        let all = vec![observation(query), patient("Organization/o"), organization("Acme")];
        let answer = fhir.post("", &bundle("transaction", all)).expect(200).json();
        assert_eq!(subject(&fhir, &answer, 0), "Patient/p", "{query}");
        // What is there no longer is not found, and what comes is.
        let renaming = |name: &str| bundle("transaction", vec![organization("New"), observation(&query.replace("Acme", name))]);
        assert!(fhir.post("", &renaming("Acme")).expect(412).refusal().contains("Bundle.entry[1]: conditional reference"), "{query}");
        assert_eq!(subject(&fhir, &fhir.post("", &renaming("New")).expect(200).json(), 1), "Patient/p", "{query}");
    }
    // What is above and below changes, too.
    let fhir = server.fhir("a__below");
    let place = |id: &str, part_of: Value| entry("PUT", &format!("Location/{id}"), json!({"resourceType": "Location", "id": id, "partOf": part_of}));
    let encounter = |id: &str, at: &str| json!({"resourceType": "Encounter", "id": id, "location": [{"location": {"reference": format!("Location/{at}")}}]});
    let top = json!({"reference": "Location/top"});
    fhir.put("/Location/top", &json!({"resourceType": "Location", "id": "top"})).expect(201);
    fhir.put("/Location/one", &json!({"resourceType": "Location", "id": "one", "partOf": top})).expect(201);
    fhir.put("/Location/two", &json!({"resourceType": "Location", "id": "two"})).expect(201);
    fhir.put("/Encounter/one", &encounter("one", "one")).expect(201);
    fhir.put("/Encounter/two", &encounter("two", "two")).expect(201);
    let of_encounter =
        entry("PUT", "Observation/o", json!({"resourceType": "Observation", "id": "o", "encounter": {"reference": "Encounter?location:below=Location/top"}}));
    fhir.post("", &bundle("transaction", vec![of_encounter, place("one", json!({"display": "none"})), place("two", top)])).expect(200);
    assert_eq!(fhir.get("/Observation/o").json()["encounter"]["reference"], "Encounter/two");
    // One that hangs on another.
    let fhir = server.fhir("a__hangs");
    let hanging = || vec![observation("organization=Organization/o"), patient("Organization?name=Acme"), organization("Acme")];
    let answer = fhir.post("", &bundle("transaction", hanging())).expect(200).json();
    assert_eq!(subject(&fhir, &answer, 0), "Patient/p");
    assert_eq!(fhir.get("/Patient/p").json()["managingOrganization"]["reference"], "Organization/o");
    // What one is resolved to makes another ambiguous.
    let fhir = server.fhir("a__many");
    let mut two = hanging();
    two[1] = patient("Organization/o");
    two.push(entry("PUT", "Patient/q", json!({"resourceType": "Patient", "id": "q", "managingOrganization": {"reference": "Organization?name=Acme"}})));
    assert!(fhir.post("", &bundle("transaction", two)).expect(412).refusal().contains("matches 2 resources"));
    assert_eq!(fhir.get("/Patient").json()["total"], 0);
    // A row of them, up to a limit that is said.
    let row = |length: usize| {
        let one = |n: usize| {
            let next = if n + 2 < length {
                json!({"reference": format!("Organization?partof.name:exact=N{:02}", n + 2)})
            } else {
                json!({"reference": format!("Organization?name:exact=N{:02}", n + 1)})
            };
            let part_of = if n + 1 < length { next } else { json!({"display": "none"}) };
            entry(
                "PUT",
                &format!("Organization/o{n}"),
                json!({"resourceType": "Organization", "id": format!("o{n}"), "name": format!("N{n:02}"), "partOf": part_of}),
            )
        };
        bundle("transaction", (0..length).map(one).collect())
    };
    let fhir = server.fhir("a__row");
    fhir.post("", &row(15)).expect(200);
    assert_eq!(fhir.get("/Organization/o0").json()["partOf"]["reference"], "Organization/o1");
    assert!(server.fhir("a__rows").post("", &row(40)).expect(403).refusal().contains("hang on one another in at most 16 steps"));
    // None that hangs on itself.
    let circular =
        |id: &str, on: &str| entry("PUT", &format!("Observation/{id}"), json!({"resourceType": "Observation", "id": id, "hasMember": [{"reference": on}]}));
    let two = vec![circular("a", "Observation?has-member=Observation/a"), circular("b", "Observation?has-member=Observation/b")];
    assert!(fhir.post("", &bundle("transaction", two)).expect(412).refusal().contains("matches no resource"));
}

#[test]
fn what_a_condition_deletes_is_deleted_by_no_other_entry() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"conditionalDelete": "multiple"}})).expect(201);
    let fhir = server.fhir("a__b");
    let known = json!({"resourceType": "Patient", "id": "a", "identifier": [{"value": "k"}]});
    fhir.put("/Patient/a", &known).expect(201);
    let delete = |url: &str| json!({"request": {"method": "DELETE", "url": url}});
    for (first, second) in [("Patient/a", "Patient?identifier=k"), ("Patient?identifier=k", "Patient/a"), ("Patient?identifier=k", "Patient?_id=a")] {
        let refused = fhir.post("", &bundle("transaction", vec![delete(first), delete(second)])).expect(400).refusal();
        assert!(refused.contains("Bundle.entry[1]: Patient/a is written by another entry too"), "{refused}");
    }
    fhir.get("/Patient/a").expect(200);
    // One is deleted for what it refers to, and by itself.
    let cascade = vec![delete("Patient/a?_cascade=delete"), delete("Observation?subject=Patient/a")];
    fhir.put("/Observation/o", &json!({"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/a"}})).expect(201);
    fhir.post("", &bundle("transaction", cascade)).expect(200);
    fhir.get("/Patient/a").expect(410);
    // Brought back, it is new, in its history too.
    fhir.put("/Patient/a", &known).expect(201);
    let history = fhir.get("/Patient/a/_history").json();
    assert_eq!(
        history["entry"].as_array().unwrap().iter().map(|e| e["response"]["status"].as_str().unwrap()).collect::<Vec<_>>(),
        ["201 Created", "204 No Content", "201 Created"]
    );
    let purge = json!({"request": {"method": "POST", "url": "Patient/a/$purge"}});
    assert_eq!(statuses(&fhir.post("", &bundle("batch", vec![purge])).expect(200).json()), ["200 OK"]);
}

#[test]
fn references_to_versions_of_what_a_transaction_deletes_stay() {
    let server = TestServer::start();
    for integrity in ["off", "on"] {
        let sim = format!("a__{integrity}");
        let made = json!({"settings": {"referentialIntegrity": integrity}});
        server.client().put(&format!("/api/sims/{sim}"), &made).expect(201);
        let fhir = server.fhir(&sim);
        fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
        let deletion = json!({"fullUrl": format!("{}/Patient/p", fhir.base()), "request": {"method": "DELETE", "url": "Patient/p"}});
        let observation = json!({"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/p/_history/1"}});
        fhir.post("", &bundle("transaction", vec![deletion, entry("PUT", "Observation/o", observation)])).expect(200);
        assert_eq!(fhir.get("/Observation/o").json()["subject"]["reference"], "Patient/p/_history/1");
    }
}

#[test]
fn conditional_references_must_match_exactly_one() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Practitioner/d", &json!({"resourceType": "Practitioner", "id": "d", "identifier": [{"system": "s", "value": "1"}]})).expect(201);
    let observation = |query: &str| {
        bundle(
            "transaction",
            vec![entry("POST", "Observation", json!({"resourceType": "Observation", "performer": [{"reference": format!("Practitioner?{query}")}]}))],
        )
    };
    let answer = fhir.post("", &observation("identifier=s|1")).expect(200).json();
    let location = answer["entry"][0]["response"]["location"].as_str().unwrap();
    assert_eq!(fhir.get(&format!("/{location}")).json()["performer"][0]["reference"], "Practitioner/d");
    let none = fhir.post("", &observation("identifier=s|2")).expect(412).refusal();
    assert!(none.contains("Bundle.entry[0]: conditional reference 'Practitioner?identifier=s|2' matches no resource"), "{none}");
    let unknown = fhir.post("", &observation("identifer=s|1")).expect(400).refusal();
    assert!(unknown.contains("did you mean 'identifier'?"), "{unknown}");
    let mut misspelled = observation("identifier=s|1");
    misspelled["entry"][0]["resource"]["performer"][0]["reference"] = "Practitoner?identifier=s|1".into();
    let misspelled = fhir.post("", &misspelled).expect(400).refusal();
    assert!(misspelled.contains("Bundle.entry[0]") && misspelled.contains("did you mean 'Practitioner'?"), "{misspelled}");
}

#[test]
fn the_entries_of_a_batch_are_independent() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let answer = fhir
        .post(
            "",
            &bundle(
                "batch",
                vec![
                    json!({"request": {"method": "GET", "url": "Patient/none"}}),
                    entry("POST", "Patient", patient("x", "Stored")),
                    entry("POST", "Patient", json!({"resourceType": "Nonsense"})),
                    json!({"request": {"method": "PATCH", "url": "Patient/1"}}),
                    json!({"request": {"method": "GET", "url": "Patient?family=stored"}}),
                    json!({"fullUrl": "urn:uuid:1"}),
                ],
            ),
        )
        .expect(200)
        .json();
    assert_eq!(answer["type"], "batch-response");
    assert_eq!(statuses(&answer), ["404 Not Found", "201 Created", "400 Bad Request", "400 Bad Request", "200 OK", "400 Bad Request"]);
    assert_eq!(answer["entry"][2]["response"]["outcome"]["issue"][0]["expression"][0], "Bundle.entry[2].resource.resourceType");
    assert_eq!(answer["entry"][4]["resource"]["total"], 1);
    assert_eq!(events(&server.simdb(), "a__b", "BATCH").len(), 1);
}

#[test]
fn bundles_that_are_not_requests_are_told_where_to_go() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for kind in ["collection", "document", "searchset", "nonsense"] {
        let refused = fhir.post("", &bundle(kind, vec![])).expect(400).refusal();
        assert!(refused.contains("[Bundle.type]") && refused.contains("POST it to /Bundle"), "{refused}");
    }
    fhir.post("", &patient("p", "P")).expect(400);
    fhir.post("/Bundle", &bundle("collection", vec![])).expect(201);
    assert_eq!(fhir.post("", &bundle("transaction", vec![])).expect(200).json()["type"], "transaction-response");
    let many = bundle("transaction", vec![json!({"request": {"method": "GET", "url": "Patient/1"}}); 10_001]);
    assert!(fhir.post("", &many).refusal().contains("at most 10000"));
}

#[test]
fn a_representation_is_shown_when_asked_for() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let body = bundle("transaction", vec![entry("PUT", "Patient/p", patient("p", "P"))]).to_string();
    let answer = fhir.send("POST", "", &[("prefer", "return=representation")], body.as_bytes()).expect(200).json();
    assert_eq!(answer["entry"][0]["resource"]["id"], "p");
    let answer = fhir.send("POST", "", &[], body.as_bytes()).expect(200).json();
    assert_eq!(answer["entry"][0].get("resource"), None);
}

#[test]
fn conditions_see_what_the_deletions_of_the_same_transaction_leave() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let named = |id: &str| json!({"resourceType": "Patient", "id": id, "identifier": [{"system": "s", "value": "DD"}]});
    fhir.put("/Patient/dd", &named("dd")).expect(201);
    let mut create = entry("POST", "Patient", named("x"));
    create["request"]["ifNoneExist"] = "identifier=s|DD".into();
    let delete = json!({"request": {"method": "DELETE", "url": "Patient/dd"}});
    let answer = fhir.post("", &bundle("transaction", vec![create, delete.clone()])).expect(200).json();
    assert_eq!(statuses(&answer), ["201 Created", "204 No Content"]);
    assert_eq!(fhir.get("/Patient?identifier=s|DD").json()["total"], 1);
    fhir.put("/Patient/dd", &patient("dd", "D")).expect(201);
    let reference = entry("POST", "Observation", json!({"resourceType": "Observation", "subject": {"reference": "Patient?family=D"}}));
    fhir.post("", &bundle("transaction", vec![delete, reference])).expect(412);
}

#[test]
fn one_condition_twice_means_one_resource_even_if_it_does_not_match_itself() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let conditional = |url: &str| {
        let mut e = entry("POST", "Patient", json!({"resourceType": "Patient"}));
        e["fullUrl"] = url.into();
        e["request"]["ifNoneExist"] = "identifier=s|none".into();
        e
    };
    let observation = entry("POST", "Observation", json!({"resourceType": "Observation", "subject": {"reference": "urn:uuid:B"}}));
    let answer = fhir.post("", &bundle("transaction", vec![conditional("urn:uuid:a"), conditional("urn:uuid:b"), observation])).expect(200).json();
    assert_eq!(statuses(&answer), ["201 Created", "200 OK", "201 Created"]);
    assert_eq!(fhir.get("/Patient").json()["total"], 1);
    let patient = answer["entry"][0]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap();
    assert_eq!(fhir.ids(&format!("/Observation?subject={patient}")).len(), 1, "a UUID's digits have no case");
}

#[test]
fn links_are_rewritten_where_they_are_links() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let url = "http://ex.org/fhir/Patient/1";
    let div = format!(
        "<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href = \"{url}\">a</a><a href='Patient/1'>b</a><a href=\"{url}/_history/9\">c</a><p>href=\"{url}\"</p><a title=\"{url}\">d</a></div>"
    );
    let note = format!("<{url}> [x][1] `[c]({url})`\n\n[1]: {url} \"t\"\n\n<a href=\"{url}\">y</a>");
    let basic =
        json!({"resourceType": "Observation", "status": "final", "code": {"text": "c"}, "text": {"status": "generated", "div": div}, "note": [{"text": note}]});
    let mut entries = vec![entry("POST", "Patient", json!({"resourceType": "Patient"})), entry("POST", "Observation", basic)];
    entries[0]["fullUrl"] = url.into();
    entries[1]["fullUrl"] = "http://ex.org/fhir/Observation/2".into();
    let answer = fhir.post("", &bundle("transaction", entries)).expect(200).json();
    let made = |at: usize| answer["entry"][at]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    let (uid, stored) = (made(0), fhir.get(&format!("/{}", made(1))).json());
    assert_eq!(
        stored["text"]["div"],
        format!(
            "<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href = \"{uid}\">a</a><a href='{uid}'>b</a><a href=\"{uid}/_history/1\">c</a><p>href=\"{url}\"</p><a title=\"{url}\">d</a></div>"
        )
    );
    assert_eq!(stored["note"][0]["text"], format!("[{uid}]({uid}) [x][1] `[c]({url})`\n\n[1]: {uid} \"t\"\n\n<a href=\"{uid}\">y</a>"));
}

#[test]
fn uris_and_narrative_links_are_rewritten_and_other_bases_left_alone() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let with = |url: &str, mut e: Value| {
        e["fullUrl"] = url.into();
        e
    };
    let document = json!({"resourceType": "DocumentReference", "content": [{"attachment": {"url": "urn:uuid:1", "title": "urn:uuid:1"}}],
        "meta": {"source": "urn:uuid:1", "profile": ["urn:uuid:1"]}, "identifier": [{"value": "urn:uuid:1"}],
        "text": {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href=\"urn:uuid:1\">b</a><img src='urn:uuid:1'/>urn:uuid:1</div>"}});
    let refers = |reference: &str| json!({"resourceType": "Observation", "subject": {"reference": reference}});
    let entries = vec![
        with("urn:uuid:1", entry("POST", "Binary", json!({"resourceType": "Binary", "contentType": "text/plain"}))),
        entry("POST", "DocumentReference", document),
        with("http://one.example/fhir/Patient/abc", entry("POST", "Patient", json!({"resourceType": "Patient"}))),
        with("http://two.example/fhir/Observation/o", entry("POST", "Observation", refers("Patient/abc"))),
        with("http://one.example/fhir/Observation/o", entry("POST", "Observation", refers("Patient/abc"))),
        entry("POST", "Observation", refers("http://one.example/fhir/Patient/abc/_history/7")),
    ];
    let answer = fhir.post("", &bundle("transaction", entries)).expect(200).json();
    let uid = |n: usize| answer["entry"][n]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    let stored = fhir.get(&format!("/{}", uid(1))).json();
    let binary = uid(0);
    assert_eq!((stored["content"][0]["attachment"]["url"].clone(), stored["meta"]["source"].clone()), (json!(binary), json!(binary)));
    assert_eq!(
        (stored["content"][0]["attachment"]["title"].clone(), stored["identifier"][0]["value"].clone(), stored["meta"]["profile"][0].clone()),
        (json!("urn:uuid:1"), json!("urn:uuid:1"), json!("urn:uuid:1"))
    );
    let div = stored["text"]["div"].as_str().unwrap();
    assert!(div.contains(&format!("href=\"{binary}\"")) && div.contains(&format!("src='{binary}'")) && div.contains("/>urn:uuid:1</div>"), "{div}");
    let subject = |n: usize| fhir.get(&format!("/{}", uid(n))).json()["subject"]["reference"].clone();
    assert_eq!((subject(3), subject(4), subject(5)), (json!("Patient/abc"), json!(uid(2)), json!(format!("{}/_history/1", uid(2)))));
}

#[test]
fn a_history_or_page_asked_for_inside_a_transaction_holds_what_it_made() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let get = |url: &str| json!({"request": {"method": "GET", "url": url}});
    let answer = fhir
        .post(
            "",
            &bundle(
                "transaction",
                vec![
                    entry("PUT", "Patient/n", patient("n", "N")),
                    entry("PUT", "Patient/m", patient("m", "N")),
                    get("Patient/n/_history"),
                    get("Patient?family=n&_count=1"),
                ],
            ),
        )
        .expect(200)
        .json();
    assert_eq!(answer["entry"][2]["resource"]["total"], 1);
    let page = &answer["entry"][3]["resource"];
    assert_eq!(page["total"], 2);
    let next = fhir.get(crate::support::link(page, "next").unwrap().strip_prefix(&fhir.base).unwrap()).expect(200).json();
    assert_ne!(next["entry"][0]["resource"]["id"], page["entry"][0]["resource"]["id"]);
}

/// A JSON Patch in a Binary refers to what the transaction makes, too; a Binary that is stored is nobody's to change.
#[test]
fn references_within_a_json_patch_are_rewritten() {
    use base64::Engine as _;
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    let urn = "urn:uuid:51111111-1111-4111-8111-111111111111";
    let binary = |patch: Value| {
        let data = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
        json!({"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data})
    };
    let mut organization = entry("POST", "Organization", json!({"resourceType": "Organization", "name": "o"}));
    organization["fullUrl"] = urn.into();
    for patch in [
        json!([{"op": "add", "path": "/managingOrganization", "value": {"reference": urn}}]),
        json!([{"op": "add", "path": "/managingOrganization", "value": {}}, {"op": "add", "path": "/managingOrganization/reference", "value": urn}]),
    ] {
        let sent = bundle(
            "transaction",
            vec![entry("PATCH", "Patient/p", binary(patch.clone())), organization.clone(), entry("POST", "Binary", binary(patch.clone()))],
        );
        let answer = fhir.post("", &sent).expect(200).json();
        let made = answer["entry"][1]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
        assert_eq!(fhir.get("/Patient/p").json()["managingOrganization"]["reference"], json!(made), "{patch}");
        let stored = answer["entry"][2]["response"]["location"].as_str().unwrap().to_owned();
        let stored = fhir.send("GET", &format!("/{stored}"), &[("accept", "application/fhir+json")], b"").expect(200).json();
        assert_eq!(stored["data"], binary(patch)["data"], "what is stored is as it came");
    }
    // By what each element is: an Identifier's value is text, an Attachment's url is one.
    let typed = json!([
        {"op": "add", "path": "/identifier", "value": [{"system": urn, "value": urn}]},
        {"op": "add", "path": "/identifier/-", "value": {"value": urn}},
        {"op": "replace", "path": "/identifier/0/value", "value": urn},
        {"op": "add", "path": "/photo", "value": [{"title": urn, "url": urn}]},
        {"op": "add", "path": "/photo/-", "value": {"url": "x"}},
        {"op": "replace", "path": "/photo/1/url", "value": urn}
    ]);
    let merge = json!({"resourceType": "Binary", "contentType": "application/merge-patch+json",
        "data": base64::engine::general_purpose::STANDARD.encode(json!({"managingOrganization": {"reference": urn}, "language": urn}).to_string())});
    let sent = bundle("transaction", vec![entry("PATCH", "Patient/p", binary(typed)), organization.clone()]);
    let answer = fhir.post("", &sent).expect(200).json();
    let made = |answer: &Value| json!(answer["entry"][1]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap());
    let stored = fhir.get("/Patient/p").json();
    assert_eq!(stored["identifier"], json!([{"system": made(&answer), "value": urn}, {"value": urn}]));
    assert_eq!(stored["photo"], json!([{"title": urn, "url": made(&answer)}, {"url": made(&answer)}]));
    let answer = fhir.post("", &bundle("transaction", vec![entry("PATCH", "Patient/p", merge), organization.clone()])).expect(200).json();
    let stored = fhir.get("/Patient/p").json();
    assert_eq!((&stored["managingOrganization"]["reference"], &stored["language"]), (&made(&answer), &json!(urn)));
    let unknown = json!([{"op": "replace", "path": "/managingOrganization/reference", "value": "Organization?name=zz"}]);
    fhir.post("", &bundle("transaction", vec![entry("PATCH", "Patient/p", binary(unknown))])).expect(412);
}

#[test]
fn operations_in_a_bundle_are_answered_and_strict_reaches_the_entries() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let asked = bundle("batch", vec![entry("POST", "Patient/$validate", json!({"resourceType": "Patient", "gender": "zz"}))]);
    let answer = fhir.post("", &asked).expect(200).json();
    assert_eq!(answer["entry"][0]["resource"]["issue"][0]["expression"], json!(["Patient.gender"]), "{answer}");
    let strict = |sent: &Value| fhir.send("POST", "", &[("prefer", "handling=strict")], sent.to_string().as_bytes());
    let bogus = bundle("transaction", vec![entry("PUT", "Patient/50?bogus=1", json!({"resourceType": "Patient", "id": "50"}))]);
    assert!(strict(&bogus).expect(400).refusal().contains("Bundle.entry[0]: unknown parameter 'bogus'"));
    fhir.post("", &bogus).expect(200);
    let search = bundle("batch", vec![json!({"request": {"method": "GET", "url": "Patient?bogus=1"}})]);
    assert_eq!(statuses(&strict(&search).expect(200).json()), ["400 Bad Request"]);
    assert_eq!(statuses(&fhir.post("", &search).expect(200).json()), ["200 OK"]);
}

/// A Bundle says a `fullUrl` once for a version (bdl-7).
#[test]
fn answers_of_one_resource_have_its_url_once() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/b", &json!({"resourceType": "Patient", "id": "b"})).expect(201);
    let get = || json!({"request": {"method": "GET", "url": "Patient/b"}});
    let full_urls = |answer: &Value| answer["entry"].as_array().unwrap().iter().map(|e| e["fullUrl"].is_string()).collect::<Vec<_>>();
    for kind in ["batch", "transaction"] {
        let answer = fhir.post("", &bundle(kind, vec![get(), get()])).expect(200).json();
        assert_eq!(full_urls(&answer), [true, false], "{kind}");
        assert_eq!((&answer["entry"][0]["resource"]["id"], &answer["entry"][1]["resource"]["id"]), (&json!("b"), &json!("b")), "{kind}");
        let put = entry("PUT", "Patient/b", json!({"resourceType": "Patient", "id": "b", "active": kind == "batch"}));
        let answer = fhir.post("", &bundle(kind, vec![put, get()])).expect(200).json();
        assert_eq!(full_urls(&answer), [true, true], "{kind}: one has no version");
    }
}

#[test]
fn a_condition_of_a_transaction_is_that_however_it_is_written() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    // One condition may not update and create.
    let create = |query: &str| {
        let mut create = entry("POST", "Patient", json!({"resourceType": "Patient"}));
        create["request"]["ifNoneExist"] = query.into();
        create
    };
    let update = entry("PUT", "Patient?identifier=ty", json!({"resourceType": "Patient"}));
    for entries in [vec![update.clone(), create("identifier=ty")], vec![create("identifier=ty"), update]] {
        let refused = fhir.post("", &bundle("transaction", entries)).expect(400).refusal();
        assert!(refused.contains("another entry writes what Patient?identifier=ty matches"), "{refused}");
    }
    // However it is written, and whoever creates what it matches.
    let holder = |value: &str| json!({"resourceType": "Patient", "identifier": [{"system": "urn:x", "value": value}]});
    let update = |url: &str| entry("PUT", url, holder("tz"));
    let mut known = holder("tz");
    known["id"] = "tz".into();
    for entries in [
        vec![update("Patient?identifier=urn:x|tz"), update("Patient?identifier=urn%3Ax%7Ctz")],
        vec![update("Patient?identifier=urn:x|tz&active:missing=true"), update("Patient?active:missing=true&identifier=urn:x|tz")],
        vec![update("Patient?identifier=urn:x|tz"), update("Patient?identifier=tz")],
        vec![entry("PUT", "Patient/tz", known.clone()), update("Patient?identifier=urn:x|tz")],
        vec![update("Patient?identifier=urn:x|tz"), entry("PUT", "Patient/tz", known)],
    ] {
        let refused = fhir.post("", &bundle("transaction", entries)).expect(400).refusal();
        assert!(refused.contains("another entry writes what Patient?"), "{refused}");
        assert_eq!(fhir.ids("/Patient?identifier=urn:x|tz").len(), 0);
    }
    // What is there and comes to match, where the condition creates.
    fhir.put("/Patient/old", &json!({"resourceType": "Patient", "id": "old"})).expect(201);
    let mut old = holder("tz");
    old["id"] = "old".into();
    let becomes = entry("PUT", "Patient/old", old);
    for entries in [vec![becomes.clone(), update("Patient?identifier=urn:x|tz")], vec![update("Patient?identifier=urn:x|tz"), becomes]] {
        let refused = fhir.post("", &bundle("transaction", entries)).expect(400).refusal();
        assert!(refused.contains("another entry writes what Patient?identifier=urn:x|tz matches"), "{refused}");
        assert_eq!(fhir.ids("/Patient?identifier=urn:x|tz").len(), 0);
    }
    let same = ["identifier=urn:x|tx", "?identifier=urn:x|tx", "Patient?identifier=urn%3Ax%7Ctx"].map(|query| {
        let mut one = create(query);
        one["resource"] = holder("tx");
        one
    });
    let answer = fhir.post("", &bundle("transaction", same.to_vec())).expect(200).json();
    assert_eq!(statuses(&answer), ["201 Created", "200 OK", "200 OK"]);
    assert_eq!(fhir.ids("/Patient?identifier=urn:x|tx").len(), 1);
    let any = ["identifier=urn:x|tq,urn:x|tr", "identifier=urn:x|tr,urn:x|tq&_format=json", "_pretty=true&identifier=urn:x|tq,urn:x|tr"].map(|query| {
        let mut one = create(query);
        one["resource"] = holder("tq");
        one
    });
    let answer = fhir.post("", &bundle("transaction", any.to_vec())).expect(200).json();
    assert_eq!(statuses(&answer), ["201 Created", "200 OK", "200 OK"]);
    // Two that may be there side by side: both are known by their own conditions.
    let both = || ["tv", "tw"].map(|value| entry("PUT", &format!("Patient?identifier=urn:x|{value}"), holder(value))).to_vec();
    for status in ["201 Created", "200 OK"] {
        assert_eq!(statuses(&fhir.post("", &bundle("transaction", both())).expect(200).json()), [status; 2]);
    }
    // A condition that cannot be read must not create.
    for query in ["name=%ZZ", "name=%FF", "name=%"] {
        fhir.send("POST", "/Patient", &[("if-none-exist", query)], br#"{"resourceType":"Patient"}"#).expect(400);
        fhir.post("", &bundle("transaction", vec![create(query)])).expect(400);
    }
    let double = [1, 2].map(|n| {
        let mut one = entry("PUT", &format!("Patient/{n}"), json!({"resourceType": "Patient", "id": n.to_string()}));
        one["fullUrl"] = "http://x/fhir/Patient/1".into();
        one
    });
    assert!(
        fhir.post("", &bundle("transaction", double.to_vec())).expect(400).json()["issue"][0]["expression"][0].as_str().unwrap().starts_with("Bundle.entry[1]")
    );
}

#[test]
fn a_head_entry_says_that_there_is_something() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    for kind in ["batch", "transaction"] {
        let of = |method: &str| json!({"request": {"method": method, "url": "Patient/p"}});
        let answer = fhir.post("", &bundle(kind, vec![of("HEAD"), of("GET")])).expect(200).json();
        let entries = answer["entry"].as_array().unwrap();
        assert_eq!((entries[0].get("resource"), &entries[1]["resource"]["id"]), (None, &json!("p")), "{kind}");
        assert_eq!(entries[0]["response"]["etag"], entries[1]["response"]["etag"]);
    }
}

#[test]
fn what_a_stored_bundle_holds_refers_to_what_is_in_it() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let shared = "urn:uuid:22222222-2222-4222-8222-222222222222";
    let document = json!({"resourceType": "Bundle", "type": "document", "identifier": {"value": "d"}, "timestamp": "2020-01-01T00:00:00Z", "entry": [
        {"fullUrl": "http://a.example/fhir/Composition/1", "resource": {"resourceType": "Composition", "status": "final", "subject": {"reference": "Patient/1"},
            "author": [{"reference": "Patient?identifier=nobody"}]}},
        {"fullUrl": "http://a.example/fhir/Patient/1", "resource": {"resourceType": "Patient", "id": "1"}},
        {"fullUrl": shared, "resource": {"resourceType": "Patient"}}]});
    let entry = |url: &str, resource: &Value| json!({"fullUrl": url, "resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}});
    let entries = json!([
        entry("http://b.example/fhir/Patient/1", &json!({"resourceType": "Patient"})),
        entry(shared, &json!({"resourceType": "Patient"})),
        entry("urn:uuid:33333333-3333-4333-8333-333333333333", &document)
    ]);
    let done = fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200).json();
    let place = done["entry"][2]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    assert_eq!(fhir.get(&format!("/{place}")).json()["entry"], document["entry"]);
}

#[test]
fn a_fhirpath_patch_may_give_a_reference_as_a_text() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put(
        "/Observation/o",
        &json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "c"}, "subject": {"reference": "Patient/x"}}),
    )
    .expect(201);
    let to = "urn:uuid:22222222-2222-4222-8222-222222222222";
    let patch = |reference: &str| {
        let parts = |all: &[(&str, Value)]| {
            let part = |(name, value): &(&str, Value)| {
                if value.is_array() { json!({"name": name, "part": value}) } else { json!({"name": name, "valueString": value}) }
            };
            json!({"name": "operation", "part": all.iter().map(part).collect::<Vec<_>>()})
        };
        let performer = json!([{"name": "reference", "valueString": reference}, {"name": "display", "valueString": "d"}]);
        json!({"resourceType": "Parameters", "parameter": [
            parts(&[("type", json!("replace")), ("path", json!("Observation.subject.reference.first() ")), ("value", json!(reference))]),
            parts(&[("type", json!("add")), ("path", json!("Observation")), ("name", json!("performer")), ("value", performer)]),
            parts(&[("type", json!("replace")), ("path", json!("Observation.code.text")), ("value", json!(reference))])]})
    };
    let send = |reference: &str| {
        let entries = json!([
            {"fullUrl": to, "resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient"}},
            {"resource": patch(reference), "request": {"method": "PATCH", "url": "Observation/o"}}]);
        fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
    };
    let done = send(to).expect(200).json();
    let place = done["entry"][0]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
    let observation = fhir.get("/Observation/o").json();
    assert_eq!((&observation["subject"]["reference"], &observation["performer"][0]["reference"]), (&json!(place), &json!(place)), "{observation}");
    assert_eq!(observation["code"]["text"], to, "a text that is no reference stays");
    send("Patient?identifier=nobody").expect(412).refusal();
}

#[test]
fn references_are_resolved_after_all_else() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let identifier = |value: &str| json!([{"system": "http://s", "value": value}]);
    let entry = |method: &str, url: &str, resource: Value| json!({"resource": resource, "request": {"method": method, "url": url}});
    let observation = |of: &str| json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": format!("Patient?identifier=http://s|{of}")}});
    let patient = |value: &str| json!({"resourceType": "Patient", "identifier": identifier(value)});
    let transaction = |entries: &[Value]| fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}));
    let subject_of = |done: &Value, at: usize| {
        let place = done["entry"][at]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
        (fhir.get(&format!("/{place}")).json()["subject"]["reference"].as_str().unwrap_or_default().to_owned(), place)
    };
    let mut unless = entry("POST", "Patient", patient("b"));
    unless["request"]["ifNoneExist"] = json!("identifier=http://s|b");
    for (value, making) in [("a", entry("POST", "Patient", patient("a"))), ("b", unless), ("c", entry("PUT", "Patient?identifier=http://s|c", patient("c")))] {
        let done = transaction(&[entry("POST", "Observation", observation(value)), making]).expect(200).json();
        let made = done["entry"][1]["response"]["location"].as_str().unwrap().split("/_history").next().unwrap().to_owned();
        assert_eq!(subject_of(&done, 0).0, made, "{value}");
    }
    // One that was there, and another that is made.
    let refused = transaction(&[entry("POST", "Observation", observation("a")), entry("POST", "Patient", patient("a"))]).expect(412).refusal();
    assert!(refused.contains("matches 2 resources"), "{refused}");
    assert_eq!(fhir.get("/Patient?identifier=a").json()["total"], 1);
    // The condition of an update must not match what is created: one identity would be written twice.
    let twice = [entry("POST", "Patient", patient("new")), entry("PUT", "Patient?identifier=http://s|new", patient("new"))];
    let refused = transaction(&twice).expect(400).refusal();
    assert!(refused.contains("Bundle.entry[1]") && fhir.get("/Patient?identifier=new").json()["total"] == 0, "{refused}");
}

#[test]
fn references_to_versions_stay_so() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    let base = fhir.base().to_owned();
    let link = |to: &str| json!({"resourceType": "Patient", "link": [{"other": {"reference": to}, "type": "refer"}]});
    let bundle = |to: &str| {
        let entries = json!([{"fullUrl": "urn:uuid:51111111-1111-4111-8111-111111111111", "resource": {"resourceType": "Patient", "id": "x"}, "request": {"method": "POST", "url": "Patient"}},
            {"fullUrl": format!("{base}/Patient/p"), "resource": {"resourceType": "Patient", "id": "p"}, "request": {"method": "PUT", "url": "Patient/p"}},
            {"fullUrl": format!("{base}/Patient/temporary"), "resource": link(to), "request": {"method": "POST", "url": "Patient"}}]);
        let done = fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200).json();
        let place = |at: usize| done["entry"][at]["response"]["location"].as_str().unwrap().to_owned();
        let resource = place(2).split("/_history").next().unwrap().to_owned();
        (fhir.get(&format!("/{resource}")).json()["link"][0]["other"]["reference"].as_str().unwrap().to_owned(), place(0), place(1))
    };
    let (made, new, _) = bundle("urn:uuid:51111111-1111-4111-8111-111111111111/_history/7");
    assert_eq!(made, new, "whatever version was named is the one that is made");
    let (made, _, current) = bundle("Patient/p/_history/1");
    assert_eq!((made.as_str(), current.as_str()), ("Patient/p/_history/1", "Patient/p/_history/3"), "one that there was stays");
    let (made, _, current) = bundle("Patient/p/_history/4");
    assert_eq!(made, current, "one that is made is made");
}

#[test]
fn a_refusal_names_the_element_of_the_entry_in_a_batch_as_in_a_transaction() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    server.client().put("/api/sims/a__b", &json!({"settings": {"validation": "strict"}})).expect(201);
    let named = |id: &str| json!({"resourceType": "Patient", "id": id, "name": [{"family": "Same"}]});
    for id in ["p", "q"] {
        fhir.put(&format!("/Patient/{id}"), &named(id)).expect(201);
    }
    let with = |mut entry: Value, name: &str, value: &str| {
        entry["request"][name] = value.into();
        entry
    };
    let patch = json!({"resourceType": "Parameters", "parameter": []});
    for (status, entry, expected) in [
        (400, entry("POST", "Patient", json!({"resourceType": "Nonsense"})), "resource.resourceType"),
        (400, entry("POST", "Patient", json!({"id": "1"})), "resource.resourceType"),
        (400, entry("PUT", "Patient/p", named("q")), "resource.id"),
        (422, entry("PUT", "Patient/p", json!({"resourceType": "Patient", "id": "p", "gender": "blue"})), "resource.gender"),
        (412, with(entry("PUT", "Patient/p", named("p")), "ifMatch", "W/\"7\""), "request.ifMatch"),
        (412, with(entry("PUT", "Patient/p", named("p")), "ifNoneMatch", "*"), "request.ifNoneMatch"),
        (412, with(entry("POST", "Patient", json!({"resourceType": "Patient"})), "ifNoneExist", "family=same"), "request.ifNoneExist"),
        (400, with(entry("PUT", "Patient/p", named("p")), "ifMatch", "a b"), "request.ifMatch"),
        (412, entry("PUT", "Patient?family=same", json!({"resourceType": "Patient"})), "request.url"),
        (400, entry("PUT", "Patient?birthdate=x", json!({"resourceType": "Patient"})), "request.url"),
        (404, entry("PATCH", "Patient?family=nobody", patch.clone()), "request.url"),
        (404, entry("PATCH", "Patient/none", patch), "request.url"),
        (412, json!({"request": {"method": "DELETE", "url": "Patient?family=same"}}), "request.url"),
        (404, json!({"request": {"method": "GET", "url": "Patient/none"}}), "request.url"),
        (400, json!({"request": {"method": "GET", "url": "Patient?birthdate=x"}}), "request.url"),
        (400, json!({"request": {"method": "GET", "url": "Nonsense/1"}}), "request.url"),
    ] {
        let said = |outcome: &Value| outcome["issue"][0]["expression"].clone();
        let expected = json!([format!("Bundle.entry[1].{expected}")]);
        let entries = vec![json!({"request": {"method": "GET", "url": "Patient/p"}}), entry.clone()];
        let refused = fhir.post("", &bundle("transaction", entries.clone())).expect(status).json();
        assert_eq!(said(&refused), expected, "{entry} {refused}");
        let answer = fhir.post("", &bundle("batch", entries)).expect(200).json()["entry"][1]["response"].clone();
        assert_eq!((said(&answer["outcome"]), answer["status"].as_str().unwrap().starts_with(&status.to_string())), (expected, true), "{entry} {answer}");
    }
    // Conditional references are of transactions only.
    let observation = |performer: Value| json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p"}, "performer": performer});
    for (status, reference) in [(412, "Patient?family=same"), (412, "Practitioner?family=nobody"), (400, "Patient?birthdate=x"), (400, "Pateint?family=same")] {
        let sent = observation(json!([{"display": "x"}, {"reference": reference}]));
        let refused = fhir.post("", &bundle("transaction", vec![entry("POST", "Observation", sent)])).expect(status).json();
        assert_eq!(refused["issue"][0]["expression"], json!(["Bundle.entry[0].resource.performer[1].reference"]), "{refused}");
    }
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"versioning":"versioned-update"}}"#).expect(200);
    let refused = fhir.post("", &bundle("transaction", vec![entry("PUT", "Patient/p", named("p"))])).expect(428).json();
    assert_eq!(refused["issue"][0]["expression"], json!(["Bundle.entry[0].request.ifMatch"]), "{refused}");
}
