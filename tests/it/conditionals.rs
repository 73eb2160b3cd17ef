//! Conditional update, patch and delete: none, one or many matches, with and without an id.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::support::{Client, TestServer, events};

fn patient(identifier: &str, family: &str) -> Value {
    json!({"resourceType": "Patient", "identifier": [{"system": "urn:mrn", "value": identifier}], "name": [{"family": family}]})
}

fn with_id(mut resource: Value, id: &str) -> Value {
    resource["id"] = id.into();
    resource
}

fn versions(fhir: &Client, id: &str) -> u64 {
    fhir.get(&format!("/Patient/{id}/_history")).expect(200).json()["total"].as_u64().unwrap()
}

#[test]
fn a_conditional_update_updates_one_creates_none_and_refuses_many() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    // Raw and unescaped, as some clients send it.
    let url = "/Patient?identifier=urn:mrn|1";
    let made = fhir.put(url, &patient("1", "First")).expect(201);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert!(made.header("location").ends_with(&format!("/Patient/{id}/_history/1")));
    let again = fhir.put("/Patient?identifier=urn%3Amrn%7C1", &patient("1", "Second")).expect(200);
    assert_eq!((again.header("etag"), again.json()["id"].as_str().unwrap()), ("W/\"2\"", &*id));
    fhir.put(url, &with_id(patient("1", "Third"), &id)).expect(200);
    let refused = fhir.put(url, &with_id(patient("1", "Other"), "other")).expect(400).refusal();
    assert!(refused.contains(&format!("Patient.id is 'other', but the condition matches Patient/{id}")), "{refused}");
    assert_eq!(versions(&fhir, &id), 3);
    fhir.send("PUT", url, &[("if-match", "W/\"2\"")], patient("1", "Stale").to_string().as_bytes()).expect(412);
    fhir.send("PUT", url, &[("if-match", "W/\"3\"")], patient("1", "Fresh").to_string().as_bytes()).expect(200);
    fhir.send("PUT", "/Patient?identifier=urn:mrn|none", &[("if-match", "W/\"1\"")], patient("none", "None").to_string().as_bytes()).expect(412);
    fhir.put("/Patient/twin", &with_id(patient("1", "Twin"), "twin")).expect(201);
    let refused = fhir.put(url, &patient("1", "Both")).expect(412).refusal();
    assert!(refused.contains("multiple-matches: conditional update: 2 resources of type Patient match 'identifier=urn:mrn|1'"), "{refused}");
    let unknown = fhir.put("/Patient?identifer=urn:mrn|1", &patient("1", "X")).expect(400).refusal();
    assert!(unknown.contains("did you mean 'identifier'?"), "{unknown}");
    fhir.put("/Patient?_format=json", &patient("1", "X")).expect(400);
    assert_eq!(fhir.get("/Patient").json()["total"], 2);
}

#[test]
fn what_a_conditional_update_with_an_id_creates_depends_on_the_version() {
    let server = TestServer::start();
    for (version, kept) in [("STU3", false), ("R4", true), ("R4B", true), ("R5", true)] {
        let sim = format!("a__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        let made = fhir.put("/Patient?identifier=urn:mrn|9", &with_id(patient("9", "New"), "chosen")).expect(201).json();
        assert_eq!(made["id"] == "chosen", kept, "{version}");
        if kept {
            let taken = fhir.put("/Patient?identifier=urn:mrn|10", &with_id(patient("10", "Other"), "chosen")).expect(409).refusal();
            assert!(taken.contains("Patient/chosen exists, but does not match"), "{taken}");
            fhir.delete("/Patient/chosen").expect(204);
            let back = fhir.put("/Patient?identifier=urn:mrn|10", &with_id(patient("10", "Back"), "chosen")).expect(201).json();
            assert_eq!(back["meta"]["versionId"], "3", "{version}");
        }
    }
}

#[test]
fn a_conditional_delete_deletes_one_or_as_many_as_it_may() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for n in 0..5 {
        fhir.put(&format!("/Patient/p{n}"), &with_id(patient(&n.to_string(), if n < 3 { "Many" } else { "Few" }), &format!("p{n}"))).expect(201);
    }
    fhir.delete("/Patient?identifier=urn:mrn|none").expect(204);
    fhir.delete("/Patient?identifier=urn:mrn|4").expect(204);
    fhir.get("/Patient/p4").expect(410);
    let refused = fhir.delete("/Patient?family=many").expect(412).refusal();
    assert!(refused.contains("3 resources match 'family=many', and this simulator deletes one at a time"), "{refused}");
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"conditionalDelete":"multiple"}}"#).expect(200);
    let said = fhir.send("DELETE", "/Patient?family=many&_count=2", &[("prefer", "return=OperationOutcome")], b"").expect(200).json();
    assert_eq!(said["issue"][0]["diagnostics"], "2 of 3 resources that match are deleted; their history is kept");
    assert_eq!(fhir.get("/Patient").json()["total"], 2);
    fhir.delete("/Patient?family=many&_count=x").expect(400);
    // Of all types, too; and it is one event.
    fhir.put("/Observation/o", &json!({"resourceType": "Observation", "id": "o"})).expect(201);
    let event = fhir.delete("/?_lastUpdated=gt2000").expect(204).header("x-fhirsim-event").to_owned();
    assert_eq!(fhir.get("/?_type=Patient,Observation").json()["total"], 0);
    let record = std::fs::read(server.simdb().join("a__b/fhir/DELETE").join(event).join("event.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&record).unwrap()["resources"].as_array().unwrap().len(), 3);
    fhir.delete("/Patient").expect(405);
    fhir.delete("/Patient?_count=3").expect(400);
}

#[test]
fn racing_conditional_updates_make_one_resource() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let fhir = &fhir;
                scope.spawn(move || fhir.put("/Patient?identifier=urn:mrn|race", &patient("race", &format!("N{n}"))).status)
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1, "{statuses:?}");
    let found = fhir.ids("/Patient?identifier=urn:mrn|race");
    assert_eq!(found.len(), 1);
    assert_eq!(versions(&fhir, &found[0]), 16);
}

#[test]
fn settings_say_which_ids_and_versions_clients_may_choose() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let set = |settings: Value| _ = server.client().send("PATCH", "/api/sims/a__b", &[], json!({"settings": settings}).to_string().as_bytes()).expect(200);
    fhir.get("/metadata").expect(200);
    set(json!({"updateCreate": false}));
    let refused = fhir.put("/Patient/p", &with_id(patient("1", "A"), "p")).expect(405);
    assert!(refused.header("allow").contains("GET") && refused.refusal().contains("does not let an update create (its setting updateCreate is false)"));
    set(json!({"updateCreate": true, "clientIds": "off"}));
    assert!(fhir.put("/Patient/p", &with_id(patient("1", "A"), "p")).expect(405).refusal().contains("its setting clientIds is 'off'"));
    let resource = |fhir: &Client| fhir.get("/metadata").json()["rest"][0]["resource"][0].clone();
    assert_eq!(resource(&fhir)["updateCreate"], false);
    set(json!({"updateCreate": true, "clientIds": "non-numeric"}));
    assert!(fhir.put("/Patient/12", &with_id(patient("1", "A"), "12")).expect(400).refusal().contains("'12' is a number"));
    fhir.put("/Patient/p12", &with_id(patient("1", "A"), "p12")).expect(201);
    set(json!({"clientIds": "off"}));
    fhir.put("/Patient/q", &with_id(patient("1", "A"), "q")).expect(405);
    fhir.put("/Patient/p12", &with_id(patient("1", "B"), "p12")).expect(200);

    set(json!({"versioning": "versioned-update"}));
    assert_eq!(resource(&fhir)["versioning"], "versioned-update");
    let refused = fhir.put("/Patient/p12", &with_id(patient("1", "C"), "p12")).expect(428).refusal();
    assert!(refused.contains("send If-Match: W/\"2\""), "{refused}");
    let text = with_id(patient("1", "C"), "p12").to_string();
    fhir.send("PUT", "/Patient/p12", &[("if-match", "W/\"2\"")], text.as_bytes()).expect(200);
    fhir.send("PATCH", "/Patient/p12", &[("content-type", "application/merge-patch+json")], b"{\"active\":true}").expect(428);

    set(json!({"versioning": "no-version"}));
    let read = fhir.get("/Patient/p12").expect(200);
    assert!(read.json()["meta"]["versionId"].is_string(), "what is stored stays");
    assert_eq!(read.header("etag"), "");
    let put = fhir.put("/Patient/p12", &with_id(patient("1", "D"), "p12")).expect(200);
    assert_eq!(put.json()["meta"].get("versionId"), None);
    assert!(put.header("location").ends_with("/Patient/p12"));
    assert!(fhir.get("/Patient/p12/_history").expect(404).refusal().contains("shows no versions"));
    fhir.get("/Patient/p12/_history/1").expect(404);
    let interactions = resource(&fhir)["interaction"].to_string();
    assert!(!interactions.contains("vread") && !interactions.contains("history"), "{interactions}");
    for bad in [json!({"versioning": "maybe"}), json!({"versionin": 1}), json!({"updateCreate": "yes"})] {
        server.client().send("PATCH", "/api/sims/a__b", &[], json!({"settings": bad}).to_string().as_bytes()).expect(400);
    }
}

#[test]
fn conditions_in_bundles_lead_to_one_resource_each() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let entry = |method: &str, url: &str, resource: Value| json!({"resource": resource, "request": {"method": method, "url": url}});
    let bundle = |kind: &str, entries: Vec<Value>| json!({"resourceType": "Bundle", "type": kind, "entry": entries});
    fhir.put("/Patient/old", &with_id(patient("old", "Old"), "old")).expect(201);
    fhir.put("/Patient/gone", &with_id(patient("gone", "Gone"), "gone")).expect(201);
    let patch = json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [{"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"}, {"name": "name", "valueString": "active"}, {"name": "value", "valueBoolean": true}]}]});
    let mut new = entry("PUT", "Patient?identifier=urn:mrn|new", patient("new", "New"));
    new["fullUrl"] = "urn:uuid:00000000-0000-4000-8000-000000000001".into();
    let observation = json!({"resourceType": "Observation", "subject": {"reference": "urn:uuid:00000000-0000-4000-8000-000000000001"}});
    let sent = bundle(
        "transaction",
        vec![
            entry("POST", "Observation", observation),
            new.clone(),
            entry("PATCH", "Patient?identifier=urn:mrn|old", patch.clone()),
            json!({"request": {"method": "DELETE", "url": "Patient?identifier=urn:mrn|gone"}}),
        ],
    );
    let answer = fhir.post("", &sent).expect(200).json();
    let statuses: Vec<&str> = answer["entry"].as_array().unwrap().iter().map(|e| e["response"]["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["201 Created", "201 Created", "200 OK", "204 No Content"]);
    let made = fhir.ids("/Patient?identifier=urn:mrn|new").remove(0);
    assert_eq!(fhir.ids(&format!("/Observation?subject=Patient/{made}")).len(), 1, "references to what a condition creates are rewritten");
    assert_eq!(fhir.get("/Patient/old").json()["active"], true);
    fhir.get("/Patient/gone").expect(410);

    for (entries, at) in [
        // By a condition and by its id.
        (vec![entry("PUT", "Patient?identifier=urn:mrn|old", patient("old", "A")), entry("PUT", "Patient/old", with_id(patient("old", "B"), "old"))], 1),
        (vec![new.clone(), entry("PUT", "Patient?identifier=urn:mrn|new", patient("new", "B"))], 1),
        (vec![entry("PUT", "Patient?identifier=urn:mrn|x", patient("x", "A")), entry("PUT", "Patient?identifier=urn:mrn|x", patient("x", "B"))], 1),
        (vec![json!({"request": {"method": "DELETE", "url": "Patient?identifier=urn:mrn|old"}}), entry("PATCH", "Patient/old", patch.clone())], 1),
        (vec![entry("PATCH", "Patient?identifier=urn:mrn|nobody", patch.clone())], 0),
        (vec![entry("PATCH", "Patient/old", json!({"resourceType": "Patient"}))], 0),
    ] {
        let reply = fhir.post("", &bundle("transaction", entries.clone()));
        assert!((400..500).contains(&reply.status), "{}", reply.text());
        assert!(reply.refusal().contains(&format!("Bundle.entry[{at}]")), "{}", reply.refusal());
    }
    assert_eq!(versions(&fhir, "old"), 2, "nothing of what failed is stored");
    let batch = fhir.post("", &bundle("batch", vec![entry("PATCH", "Patient/none", patch.clone()), entry("PATCH", "Patient/old", patch)])).expect(200).json();
    assert_eq!(
        (&batch["entry"][0]["response"]["status"], &batch["entry"][1]["response"]["status"]),
        (&json!("404 Not Found"), &json!("422 Unprocessable Entity"))
    );
    assert_eq!(events(&server.simdb(), "a__b", "BATCH").len(), 1);

    server.client().put("/api/sims/a__old", &json!({"fhirVersion": "STU3"})).expect(201);
    let refused = server.fhir("a__old").post("", &bundle("transaction", vec![entry("PATCH", "Patient/1", json!({"resourceType": "Parameters"}))])).refusal();
    assert!(refused.contains("request.method 'PATCH' is not supported in a Bundle of FHIR STU3"), "{refused}");
}

#[test]
fn prefer_says_what_the_entries_of_an_answer_carry() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let bundle =
        json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": patient("1", "A"), "request": {"method": "POST", "url": "Patient"}}]});
    let asked = |prefer: &str| fhir.send("POST", "", &[("prefer", prefer)], bundle.to_string().as_bytes()).expect(200).json()["entry"][0].clone();
    assert!(asked("return=representation")["resource"].is_object());
    assert_eq!(asked("return=OperationOutcome")["response"]["outcome"]["issue"][0]["diagnostics"], "created");
    let minimal = asked("return=minimal");
    assert!(minimal.get("resource").is_none() && minimal["response"].get("outcome").is_none());
}

#[test]
fn the_outcome_of_an_entry_says_what_happened() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let put = |id: &str| json!({"resource": with_id(patient(id, "A"), id), "request": {"method": "PUT", "url": format!("Patient/{id}")}});
    let patch = json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": [{"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"}, {"name": "name", "valueString": "gender"}, {"name": "value", "valueCode": "other"}]}]});
    for kind in ["transaction", "batch"] {
        for id in ["updated", "patched", "found"] {
            fhir.put(&format!("/Patient/{id}"), &with_id(patient(id, "Old"), id));
        }
        let bundle = json!({"resourceType": "Bundle", "type": kind, "entry": [
            put("updated"),
            {"resource": patch, "request": {"method": "PATCH", "url": "Patient/patched"}},
            {"resource": patient("found", "B"), "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn:mrn|found"}},
            {"request": {"method": "DELETE", "url": "Patient/never"}},
            put(&format!("new-{kind}"))]});
        let answer = fhir.send("POST", "", &[("prefer", "return=OperationOutcome")], bundle.to_string().as_bytes()).expect(200).json();
        let said = |entry: &Value| entry["response"]["outcome"]["issue"][0]["diagnostics"].as_str().unwrap().to_owned();
        let all: Vec<String> = answer["entry"].as_array().unwrap().iter().map(said).collect();
        assert_eq!(all, ["stored", "stored", "nothing was changed", "there was no Patient/never; nothing was deleted", "created"], "{kind}");
        fhir.send("PATCH", "/Patient/patched", &[("content-type", "application/json-patch+json")], br#"[{"op":"remove","path":"/gender"}]"#).expect(200);
    }
}

#[test]
fn references_lead_to_something_where_the_setting_says_so() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let observation = |id: &str, subject: Value| json!({"resourceType": "Observation", "id": id, "subject": subject});
    fhir.put("/Observation/free", &observation("free", json!({"reference": "Patient/none"}))).expect(201);
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"referentialIntegrity":"on"}}"#).expect(200);
    let refused = fhir.put("/Observation/o", &observation("o", json!({"reference": "Patient/none"}))).expect(422).refusal();
    assert!(refused.contains("there is no Patient/none, which is referred to"), "{refused}");
    for exempt in [
        json!({"identifier": {"value": "1"}}),
        json!({"reference": "http://else.where/fhir/Patient/1"}),
        json!({"reference": "#"}),
        json!({"reference": "Observation/o"}),
    ] {
        let status = fhir.put("/Observation/o", &observation("o", exempt.clone())).status;
        assert!(status == 200 || status == 201, "{exempt}");
    }
    fhir.put("/Patient/p", &with_id(patient("p", "P"), "p")).expect(201);
    for dangling in ["#p", "Patient/p/_history/2"] {
        let refused = fhir.put("/Observation/o", &observation("o", json!({"reference": dangling}))).expect(422).refusal();
        assert!(refused.contains(&format!("there is no {dangling}, which")), "{refused}");
    }
    let mut own = observation("o", json!({"reference": "#p"}));
    own["contained"] = json!([{"resourceType": "Patient", "id": "p"}]);
    fhir.put("/Observation/o", &own).expect(200);
    fhir.put("/Observation/o", &observation("o", json!({"reference": "Patient/p/_history/1"}))).expect(200);
    fhir.put("/Observation/o", &observation("o", json!({"reference": format!("{}/Patient/p", server.fhir("a__b").base())}))).expect(200);
    fhir.put("/Provenance/v", &json!({"resourceType": "Provenance", "id": "v", "extension": [{"url": "u", "valueReference": {"reference": "Observation/o"}}]}))
        .expect(201);
    let bundle = |entries: Vec<Value>| json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    let delete = |url: &str| json!({"request": {"method": "DELETE", "url": url}});
    let put = |resource: Value| {
        let url = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        json!({"resource": resource, "request": {"method": "PUT", "url": url}})
    };
    for when in ["recent", "committed"] {
        let refused = fhir.delete("/Patient/p").expect(409).refusal();
        assert!(refused.contains("Patient/p cannot be deleted: Observation/o refer to it"), "{when}: {refused}");
        // By an extension, which is no search parameter.
        assert!(fhir.delete("/Observation/o").expect(409).refusal().contains("Provenance/v"), "{when}");
        let refused = fhir.post("", &bundle(vec![put(with_id(patient("q", "Q"), "q")), delete("Patient/p")])).expect(409).refusal();
        assert!(refused.contains("Bundle.entry[1]: Patient/p cannot be deleted"), "{when}: {refused}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
    // Together, and in whatever order, it is well.
    let circle = vec![
        put(json!({"resourceType": "Encounter", "id": "e", "subject": {"reference": "Patient/r"}})),
        put(json!({"resourceType": "Patient", "id": "r", "link": [{"other": {"reference": "Patient/s"}}]})),
        put(json!({"resourceType": "Patient", "id": "s", "link": [{"other": {"reference": "Patient/r"}}]})),
    ];
    fhir.post("", &bundle(circle)).expect(200);
    let refused = fhir.post(
        "",
        &bundle(vec![put(observation("x", json!({"reference": "Patient/p"}))), delete("Observation/o"), delete("Provenance/v"), delete("Patient/p")]),
    );
    assert!(refused.refusal().contains("Bundle.entry[0]: there is no Patient/p"), "{}", refused.refusal());
    fhir.post("", &bundle(vec![delete("Encounter/e"), delete("Patient/r"), delete("Patient/s")])).expect(200);
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [delete("Patient/p"), put(with_id(patient("t", "T"), "t"))]});
    let answer = fhir.post("", &batch).expect(200).json();
    assert_eq!((&answer["entry"][0]["response"]["status"], &answer["entry"][1]["response"]["status"]), (&json!("409 Conflict"), &json!("201 Created")));
    fhir.delete("/Patient/p?_cascade=maybe").expect(400);
    let said = fhir.send("DELETE", "/Patient/p?_cascade=delete", &[("prefer", "return=OperationOutcome")], b"").expect(200).text().to_owned();
    assert!(said.contains("2 resources that refer to it, directly or by others, are deleted, too"), "{said}");
    assert_eq!(fhir.get("/?_type=Provenance,Observation").json()["total"], 1, "the one that dangled before is left");
    fhir.delete("/Patient?family=t&_cascade=delete").expect(204);
}

/// A misspelled `_cascade` would delete something else than what was meant.
#[test]
fn a_deletion_refuses_parameters_it_does_not_know() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    let refused = fhir.delete("/Patient/p?_cascad=delete").expect(400).refusal();
    assert!(refused.contains("unknown parameter '_cascad'; the deletion of one resource has _cascade, _format and _pretty"), "{refused}");
    let entry = json!({"request": {"method": "DELETE", "url": "Patient/p?_cascad=delete"}});
    fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]})).expect(400);
    fhir.get("/Patient/p").expect(200);
    fhir.delete("/Patient/p?_cascade=delete&_pretty=true&_format=json").expect(204);
    fhir.get("/Patient/p").expect(410);
}

#[test]
fn a_reference_to_a_version_asks_for_that_version() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"referentialIntegrity": "on"}})).expect(201);
    let fhir = server.fhir("a__b");
    let observation = |id: &str, subject: Value| json!({"resourceType": "Observation", "id": id, "subject": subject});
    // A version that was purged was there, and one of what is deleted is.
    fhir.put("/Patient/old", &with_id(patient("old", "A"), "old")).expect(201);
    fhir.put("/Patient/old", &with_id(patient("old", "B"), "old")).expect(200);
    fhir.put("/Observation/of-old", &observation("of-old", json!({"reference": "Patient/old/_history/1"}))).expect(201);
    fhir.post("/Patient/old/$purge", &json!({"resourceType": "Parameters"})).expect(200);
    let mut changed = observation("of-old", json!({"reference": "Patient/old/_history/1"}));
    changed["status"] = "final".into();
    fhir.put("/Observation/of-old", &changed).expect(200);
    fhir.delete("/Patient/old").expect(204);
    changed["status"] = "amended".into();
    changed["subject"]["reference"] = "Patient/old/_history/2".into();
    fhir.put("/Observation/of-old", &changed).expect(200);
    fhir.post("/Patient/old/$purge", &json!({"resourceType": "Parameters"})).expect(200);
    changed["subject"]["reference"] = "Patient/old".into();
    fhir.put("/Observation/of-old", &changed).expect(422);
    fhir.delete("/Observation/of-old").expect(204);
}

#[test]
fn what_a_history_holds_is_no_change_to_what_there_is() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"referentialIntegrity": "on", "historyModifications": true}})).expect(201);
    let fhir = server.fhir("a__b");
    let meta = json!({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "x"}]}}]});
    let observation = |subject: Value| json!({"resourceType": "Observation", "id": "o", "status": "final", "subject": subject});
    let referring = || observation(json!({"reference": "Patient/p"}));
    // It was deleted once, and is there.
    fhir.put("/Patient/p", &with_id(patient("p", "A"), "p")).expect(201);
    fhir.delete("/Patient/p").expect(204);
    fhir.put("/Patient/p", &with_id(patient("p", "B"), "p")).expect(201);
    fhir.put("/Observation/o", &referring()).expect(201);
    fhir.post("/Patient/p/$meta-add", &meta).expect(200);
    fhir.post("/Patient/p/$meta-delete", &meta).expect(200);
    let mut old = with_id(patient("p", "Old"), "p");
    old["meta"] = json!({"versionId": "1", "lastUpdated": "2020-01-01T00:00:00Z"});
    let of_old = json!({"resource": old, "request": {"method": "PUT", "url": "Patient/p"}});
    fhir.post("", &json!({"resourceType": "Bundle", "type": "history", "entry": [of_old]})).expect(200);
    // It referred once to what is gone.
    fhir.put("/Observation/o", &observation(json!({"display": "none"}))).expect(200);
    fhir.delete("/Patient/p").expect(204);
    fhir.post("/Observation/o/$meta-add", &meta).expect(200);
    // What becomes current counts.
    let mut newest = referring();
    newest["meta"] = json!({"lastUpdated": chrono::Utc::now().to_rfc3339()});
    let of_newest = json!({"resource": newest, "request": {"method": "PUT", "url": "Observation/o"}});
    let refused = fhir.post("", &json!({"resourceType": "Bundle", "type": "history", "entry": [of_newest]})).expect(422).refusal();
    assert!(refused.contains("there is no Patient/p"), "{refused}");
}

#[test]
fn many_that_refer_to_one_go_with_it() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"referentialIntegrity": "on"}})).expect(201);
    let fhir = server.fhir("a__b");
    let entry = |resource: Value| json!({"request": {"method": "PUT", "url": format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap())}, "resource": resource});
    let mut entries = vec![entry(json!({"resourceType": "Patient", "id": "hub"}))];
    entries.extend((0..1_200).map(|n| entry(json!({"resourceType": "Basic", "id": format!("b{n}"), "subject": {"reference": "Patient/hub"}}))));
    fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
    fhir.delete("/Patient/hub").expect(409).refusal();
    fhir.delete("/Patient/hub?_cascade=delete").expect(204);
    assert_eq!(fhir.get("/Basic?_summary=count").json()["total"], 0);
}

#[test]
fn a_condition_that_is_not_one_readable_header_creates_nothing() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.get("/metadata").expect(200);
    let create = |conditions: &[&[u8]]| {
        let mut request =
            b"POST /sim/a__b/fhir/Patient HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/fhir+json\r\nContent-Length: 26\r\n".to_vec();
        for condition in conditions {
            request.extend([b"If-None-Exist: ", *condition, b"\r\n"].concat());
        }
        request.extend(b"\r\n{\"resourceType\":\"Patient\"}");
        let mut stream = std::net::TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (conditions, why) in [
        (&[&b"identifier=M\xfcller"[..]][..], "If-None-Exist is not UTF-8; percent-code what is not ASCII"),
        (&[&b"identifier=1"[..], &b"identifier=2"[..]][..], "If-None-Exist is sent more than once; send one"),
        (&[&b"identifier="[..]][..], "has no value; give it one, or leave it out"),
    ] {
        let answer = create(conditions);
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(why), "{answer}");
    }
    assert_eq!(fhir.ids("/Patient").len(), 0);
    let stale = [("if-match", "W/\"1\"")];
    let refused = fhir.send("PUT", "/Patient?identifier=nobody", &stale, br#"{"resourceType":"Patient"}"#).expect(412).refusal();
    assert!(refused.contains("there is no Patient that the condition matches; leave If-Match out where there may be none"), "{refused}");
}

#[test]
fn a_condition_with_a_value_that_its_parameter_cannot_have_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let create = |query: &str| fhir.send("POST", "/Patient", &[("if-none-exist", query)], br#"{"resourceType":"Patient"}"#);
    let update = |query: &str| fhir.put(&format!("/Patient?{query}"), &json!({"resourceType": "Patient"}));
    let entry = |query: &str| {
        let entry = json!({"resource": {"resourceType": "Patient"}, "request": {"method": "POST", "url": "Patient", "ifNoneExist": query}});
        fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}))
    };
    let delete = |query: &str| fhir.delete(&format!("/Patient?{query}"));
    for query in ["active=maybe", "active=true,maybe", "active:not=maybe", "active=urn:x|true"] {
        for reply in [create(query), update(query), entry(query), delete(query)] {
            let refused = reply.expect(400).refusal();
            assert!(refused.contains("search parameter 'active' is true or false; nothing is "), "{query}: {refused}");
        }
    }
    assert_eq!(fhir.ids("/Patient").len(), 0);
    create("active=false").expect(201);
    update("active=true").expect(201);
    // A search reports it and finds nothing.
    assert_eq!(fhir.get("/Patient?active=maybe").expect(200).json()["total"], 0);
}
