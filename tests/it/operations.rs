//! Operations.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, link};

/// Type and id of the entries, in order; what is included has a plus.
fn found(bundle: &Value) -> String {
    let shown = |e: &Value| {
        let plus = if e["search"]["mode"] == "include" { "+" } else { "" };
        format!("{plus}{}/{}", e["resource"]["resourceType"].as_str().unwrap(), e["resource"]["id"].as_str().unwrap())
    };
    let mut all: Vec<String> = bundle["entry"].as_array().into_iter().flatten().map(shown).collect();
    all.sort();
    all.join(" ")
}

fn put(fhir: &Client, resource: &str) {
    let resource: Value = serde_json::from_str(resource).unwrap();
    let path = format!("/{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    fhir.put(&path, &resource).expect(201);
}

fn fill(fhir: &Client) {
    for resource in [
        r#"{"resourceType":"Organization","id":"org","name":"Ward"}"#,
        r#"{"resourceType":"Medication","id":"med"}"#,
        r#"{"resourceType":"Patient","id":"a","managingOrganization":{"reference":"Organization/org"},"meta":{"tag":[{"system":"s","code":"t1"}],"profile":["http://x/p"]}}"#,
        r#"{"resourceType":"Patient","id":"b","meta":{"tag":[{"code":"t2"}]}}"#,
        r#"{"resourceType":"Encounter","id":"e","status":"finished","subject":{"reference":"Patient/a"},"period":{"start":"2020-01-01","end":"2020-01-03"}}"#,
        r#"{"resourceType":"Observation","id":"o1","status":"final","subject":{"reference":"Patient/a"},"encounter":{"reference":"Encounter/e"},"effectiveDateTime":"2020-01-02","code":{"coding":[{"system":"l","code":"1"}]}}"#,
        r#"{"resourceType":"Observation","id":"o2","status":"final","subject":{"reference":"Patient/a"},"effectiveDateTime":"2021-05-05","code":{"coding":[{"system":"l","code":"1"},{"system":"m","code":"x"}]}}"#,
        r#"{"resourceType":"Observation","id":"o3","status":"final","subject":{"reference":"Patient/a"},"effectiveDateTime":"2021-05-04","code":{"coding":[{"system":"m","code":"x"}]}}"#,
        r#"{"resourceType":"Observation","id":"o4","status":"final","subject":{"reference":"Patient/b"},"effectiveDateTime":"2021-05-04","code":{"text":"weight"}}"#,
        r#"{"resourceType":"MedicationRequest","id":"m","status":"active","intent":"order","subject":{"reference":"Patient/a"},"medicationReference":{"reference":"Medication/med"}}"#,
    ] {
        put(fhir, resource);
    }
}

#[test]
fn everything_is_the_compartment_and_what_it_refers_to() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for when in ["recent", "committed"] {
        let ask = |path: &str| found(&fhir.get(path).expect(200).json());
        let all = "+Medication/med +Organization/org Encounter/e MedicationRequest/m Observation/o1 Observation/o2 Observation/o3 Patient/a";
        assert_eq!(ask("/Patient/a/$everything"), all, "{when}");
        assert_eq!(ask("/Encounter/e/$everything"), "+Patient/a Encounter/e Observation/o1", "{when}");
        assert_eq!(ask("/Patient/a/$everything?_type=Observation,Encounter"), "Encounter/e Observation/o1 Observation/o2 Observation/o3", "{when}");
        // The Patient and the request tell of no care at that time, and of none at another.
        let early = ask("/Patient/a/$everything?start=2020-01-01&end=2020-12-31");
        assert_eq!(early, "+Medication/med +Organization/org Encounter/e MedicationRequest/m Observation/o1 Patient/a", "{when}");
        let everyone = ask("/Patient/$everything?_type=Patient,Observation");
        assert_eq!(everyone, "Observation/o1 Observation/o2 Observation/o3 Observation/o4 Patient/a Patient/b", "{when}");
        assert_eq!(ask("/Patient/a/$everything?_type=Patient,Organization"), "+Organization/org Patient/a", "{when}");
        let nothing = fhir.get("/Patient/a/$everything?_type=Organization").expect(400).refusal();
        assert!(nothing.contains("_type 'Organization' names no type of the Patient compartment"), "{nothing}");
        let posted = json!({"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Encounter"}]});
        assert_eq!(found(&fhir.post("/Patient/a/$everything", &posted).expect(200).json()), "Encounter/e", "{when}");
        let mut page = fhir.get("/Patient/a/$everything?_count=2&_type=Observation").expect(200).json();
        assert_eq!(page["total"], 3);
        let next = link(&page, "next").unwrap().to_owned();
        assert!(next.contains("/Patient/a/$everything?_type=Observation"), "{next}");
        page = fhir.get(next.split("/fhir").nth(1).unwrap()).expect(200).json();
        assert_eq!(found(&page), "Observation/o1", "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
    let since = fhir.get("/Patient/a/$everything?_since=2999-01-01T00:00:00Z").expect(200).json();
    assert_eq!(since["total"], 0);
    fhir.get("/Patient/none/$everything").expect(404);
    fhir.delete("/Patient/b").expect(204);
    fhir.get("/Patient/b/$everything").expect(410);
    assert!(fhir.get("/Patient/a/$everything?start=soon").expect(400).refusal().contains("start 'soon' is not a date"));
    assert!(fhir.get("/Patient/a/$everything?_since=x").expect(400).refusal().contains("_since 'x' is not a date"));
    assert!(fhir.get("/Patient/a/$everything?since=2020").expect(400).refusal().contains("parameter 'since' of $everything is not supported"));
    assert!(fhir.get("/Group/a/$everything").expect(400).refusal().contains("it is at Patient/$everything, Patient/[id]/$everything"));
    let inside = json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": "GET", "url": "Patient/a/$everything?_type=Encounter"}}]});
    assert_eq!(found(&fhir.post("", &inside).json()["entry"][0]["resource"]), "Encounter/e");
}

#[test]
fn lastn_gives_the_newest_of_each_code() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let ask = |query: &str| fhir.get(&format!("/Observation/$lastn?{query}"));
    // o1 and o3 share no code, but both share one with o2.
    assert_eq!(found(&ask("patient=Patient/a").expect(200).json()), "Observation/o2");
    assert_eq!(found(&ask("subject=Patient/a&max=2").expect(200).json()), "Observation/o2 Observation/o3");
    assert_eq!(found(&ask("patient=b").expect(200).json()), "Observation/o4");
    assert_eq!(found(&ask("patient=a,b&code=m|x").expect(200).json()), "Observation/o2");
    assert!(ask("code=1").expect(400).refusal().contains("add patient=… or subject=…"));
    assert!(ask("patient=a&max=0").expect(400).refusal().contains("max '0' is not a number from 1 on"));
    ask("patient=a&cod=1").expect(400);
    assert!(ask("patient=a&_count=1").expect(400).refusal().contains("_count=1 is not supported by $lastn"));
    ask("patient=a&max=1&max=2").expect(400);
    // Two kinds become one by what connects them, though that is the oldest.
    for (id, codes, when) in [("new-a", vec!["a"], "2020-03"), ("mid-b", vec!["b"], "2020-02"), ("old-ab", vec!["a", "b"], "2020-01")] {
        let coding: Value = codes.iter().map(|c| json!({"system": "s", "code": c})).collect();
        let one = json!({"resourceType": "Observation", "id": id, "status": "final", "subject": {"reference": "Patient/joined"}, "effectiveDateTime": when, "code": {"coding": coding}});
        fhir.put(&format!("/Observation/{id}"), &one).expect(201);
    }
    assert_eq!(found(&ask("patient=joined").expect(200).json()), "Observation/new-a");
    // Codings without a code have nothing in common.
    for (id, code) in [("apart-1", "1"), ("apart-2", "2")] {
        let one = json!({"resourceType": "Observation", "id": id, "status": "final", "subject": {"reference": "Patient/apart"},
            "code": {"coding": [{"system": "s", "code": code}, {"display": id}]}});
        fhir.put(&format!("/Observation/{id}"), &one).expect(201);
    }
    assert_eq!(found(&ask("patient=apart").expect(200).json()), "Observation/apart-1 Observation/apart-2");
}

#[test]
fn meta_is_of_a_resource_a_version_a_type_or_all() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let ask = |path: &str| fhir.get(path).expect(200).json()["parameter"][0]["valueMeta"].clone();
    for _ in 0..2 {
        assert_eq!(ask("/Patient/a/$meta")["tag"], json!([{"system": "s", "code": "t1"}]));
        assert_eq!(ask("/Patient/a/_history/1/$meta")["versionId"], "1");
        assert_eq!(ask("/Patient/$meta"), json!({"profile": ["http://x/p"], "tag": [{"system": "s", "code": "t1"}, {"code": "t2"}]}));
        assert_eq!(fhir.get("/Observation/$meta").expect(200).json(), json!({"resourceType": "Parameters"}));
        assert_eq!(ask("/$meta")["tag"].as_array().unwrap().len(), 2);
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
    fhir.get("/Patient/none/$meta").expect(404);
    fhir.get("/Patient/a/_history/9/$meta").expect(404);
}

#[test]
fn operations_are_listed_and_others_refused_in_words() {
    let server = TestServer::start();
    for version in ["STU3", "R4", "R4B", "R5"] {
        let sim = format!("a__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        let statement = fhir.get("/metadata").json();
        let validated = fhir.post("/CapabilityStatement/$validate", &statement).expect(200);
        assert!(!validated.text().contains(r#""severity":"error""#), "{version}: {}", validated.refusal());
        let rest = statement["rest"][0].clone();
        let patient = rest["resource"].as_array().unwrap().iter().find(|r| r["type"] == "Patient").unwrap().clone();
        if version == "STU3" {
            assert!(rest["operation"].as_array().unwrap().iter().any(|o| o["name"] == "everything" && o["definition"]["reference"].is_string()));
            assert_eq!(patient.get("operation"), None);
        } else {
            assert_eq!(patient["operation"][0], json!({"name": "everything", "definition": "http://hl7.org/fhir/OperationDefinition/Patient-everything"}));
        }
    }
    let fhir = server.fhir("a__r4");
    assert!(fhir.get("/Patient/1/$graph").expect(400).refusal().contains("does not walk GraphDefinitions"));
    assert!(fhir.get("/Patient/1/$everthing").expect(400).refusal().contains("did you mean '$everything'?"));
    fhir.put("/Patient/1/$everything", &json!({"resourceType": "Patient"})).expect(405);
}

#[test]
fn a_diff_is_the_patch_that_makes_one_version_the_other() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let mut rng = crate::naive::rng::Rng::new(7);
    let plain = |resource: &Value| {
        let mut resource = resource.clone();
        let meta = resource["meta"].as_object_mut().unwrap();
        meta.remove("versionId");
        meta.remove("lastUpdated");
        resource
    };
    let patient = |rng: &mut crate::naive::rng::Rng| {
        let mut made = crate::naive::generate::resource(rng, fhirsim::fhir::FhirVersion::R4, "Patient", 1);
        made["_birthDate"] = json!({"extension": [{"url": "u", "valueString": "e"}]});
        made["contact"] = json!([{"name": {"text": "x"}, "telecom": [{"value": "1"}]}, {"gender": "male"}]);
        made["contained"] = json!([{"resourceType": "Group", "id": "g"}]);
        // Of a random member some go.
        for key in ["_birthDate", "contact", "contained", "name", "identifier"] {
            if rng.chance(40) {
                made.as_object_mut().unwrap().remove(key);
            }
        }
        made
    };
    fhir.put("/Patient/r1", &patient(&mut rng)).expect(201);
    let mut telling = 0;
    for _ in 0..150 {
        let before = fhir.get("/Patient/r1").json();
        let wanted = plain(&fhir.put("/Patient/r1", &patient(&mut rng)).expect(200).json());
        let patch = fhir.get("/Patient/r1/$diff").expect(200).json();
        if plain(&before) == wanted {
            assert_eq!(patch.get("parameter"), None);
            continue;
        }
        fhir.put("/Patient/r1", &before).expect(200);
        let patched = fhir.send("PATCH", "/Patient/r1", &[], patch.to_string().as_bytes());
        assert_eq!(patched.status, 200, "{}\n{patch}\n{before}\n{wanted}", patched.text());
        let patched = plain(&patched.json());
        let differs: Vec<&String> =
            wanted.as_object().unwrap().keys().chain(patched.as_object().unwrap().keys()).filter(|k| wanted[*k] != patched[*k]).collect();
        assert!(differs.is_empty(), "{differs:?}\n{patch}\n{before}\n{wanted}\n{patched}");
        telling += 1;
    }
    assert!(telling > 100);
    let explicit = fhir.get("/Patient/r1/$diff?from=2&to=1").expect(200).json();
    assert_eq!(explicit["resourceType"], "Parameters");
    fhir.get("/Patient/r1/$diff?from=9999").expect(404);
    assert!(fhir.get("/Patient/r1/$diff?to=1").expect(404).refusal().contains("there is no version of Patient/r1 before 1; name another by from"));
    fhir.put("/Patient/u", &json!({"resourceType": "Patient", "id": "u"})).expect(201);
    assert!(fhir.get("/Patient/u/$diff").expect(404).refusal().contains("Patient/u has only one version; there is none to compare it with"));
    fhir.put("/Patient/u", &json!({"resourceType": "Patient", "id": "u", "unknown": 1})).expect(200);
    assert!(fhir.get("/Patient/u/$diff").expect(422).refusal().contains("has 'unknown', which the definitions do not know"));
}

#[test]
fn a_difference_that_no_patch_makes_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (n, (from, to)) in [
        (json!({"valueString": "a"}), json!({"valueString": "a", "valueInteger": 1})),
        (json!({"valueAddress": {"city": "x"}}), json!({})),
        (json!({"code": [{"text": "x"}]}), json!({"code": [{"text": "y"}, {"text": "z"}]})),
        (json!({"valueString": "a"}), json!({"valueString": ""})),
    ]
    .iter()
    .enumerate()
    {
        for content in [from, to] {
            let mut resource = json!({"resourceType": "Observation", "id": format!("o{n}"), "status": "final"});
            resource.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
            fhir.put(&format!("/Observation/o{n}"), &resource);
        }
        let refused = fhir.get(&format!("/Observation/o{n}/$diff")).expect(422).refusal();
        assert!(refused.contains("$validate") || refused.contains("element"), "{n}: {refused}");
    }
}

#[test]
fn what_is_converted_may_be_sent_as_the_parameter_input() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let sent = json!({"resourceType": "Parameters", "parameter": [{"name": "input", "resource": crate::support::patient("p", "A")}]});
    let xml = fhir.send("POST", "/$convert", &[("content-type", "application/fhir+json"), ("accept", "application/fhir+xml")], sent.to_string().as_bytes());
    assert!(xml.expect(200).text().contains("<Patient "));
    let other = json!({"resourceType": "Parameters", "parameter": [{"name": "other", "resource": crate::support::patient("p", "A")}]});
    assert_eq!(fhir.post("/$convert", &other).expect(200).json(), other);
}

#[test]
fn parameters_that_would_be_passed_over_are_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for path in ["/Patient/a/$everything", "/Patient/a/$meta", "/Observation/$lastn", "/Patient/a/$diff", "/Patient/a/$purge", "/Patient/a/$meta-add"] {
        let refused = fhir.post(path, &crate::support::patient("a", "A")).expect(400).refusal();
        assert!(refused.contains("[resourceType]: $") && refused.contains("takes Parameters, but resourceType is 'Patient'"), "{path}: {refused}");
        let one = json!({"resourceType": "Parameters", "parameter": {"name": "_type", "valueString": "Observation"}});
        let refused = fhir.post(path, &one).expect(400).refusal();
        assert!(refused.contains("[Parameters.parameter]: Parameters.parameter must be an array, but is an object"), "{path}: {refused}");
    }
    let ask = |entry: Value| fhir.post("/Patient/a/$everything", &json!({"resourceType": "Parameters", "parameter": [entry]})).expect(400).refusal();
    for (entry, said) in [
        (json!({"valueString": "Observation"}), "[Parameters.parameter[0].name]: Parameters.parameter[0].name is missing"),
        (json!("x"), "[Parameters.parameter[0]]: Parameters.parameter[0] must be an object, but is a string"),
        (json!({"name": "_type"}), "Parameters.parameter[0] ('_type') has no value; give it as valueString"),
        (json!({"name": "_type", "valueString": "Patient", "valueCode": "Patient"}), "has several values, valueString, valueCode; give one"),
        (json!({"name": "_type", "valueCoding": {"code": "Patient"}}), "('_type') cannot be given as valueCoding; give it as valueString"),
        (json!({"name": "_type", "valuePatient": "Patient"}), "cannot be given as valuePatient"),
        (json!({"name": "_type", "valueString": ["Patient"]}), "('_type') has a valueString that cannot be"),
        (json!({"name": "_count", "valueBoolean": true}), "('_count') cannot be given as valueBoolean; give it as valueInteger"),
        (json!({"name": "_type", "resource": {"resourceType": "Patient"}}), "cannot be given as resource"),
        (json!({"name": "other", "part": []}), "[Parameters.parameter[0].name]: parameter 'other' of $everything is not supported; known: _type"),
    ] {
        let refused = ask(entry);
        assert!(refused.contains(said), "{said}: {refused}");
    }
    let coded = json!({"resourceType": "Parameters", "parameter": [{"name": "_type", "valueCode": "Encounter"}, {"name": "_type", "valueCode": "Patient"}]});
    assert_eq!(found(&fhir.post("/Patient/a/$everything", &coded).expect(200).json()), "Encounter/e Patient/a");
    let within = json!({"resourceType": "Bundle", "type": "batch", "entry": [{"resource": crate::support::patient("a", "A"), "request": {"method": "POST", "url": "Patient/a/$purge"}}]});
    assert_eq!(fhir.post("", &within).expect(200).json()["entry"][0]["response"]["status"], "400 Bad Request");
    // A resource may itself be Parameters.
    let itself = json!({"resourceType": "Parameters", "parameter": [{"name": "x", "valueCoding": {"code": "y"}}]});
    assert!(fhir.post("/Parameters/$validate", &itself).expect(200).text().contains("no problem found"));
    assert_eq!(fhir.post("/$convert", &itself).expect(200).json(), itself);
}

#[test]
fn a_purge_that_is_given_something_else_removes_nothing() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for family in ["A", "B"] {
        fhir.put("/Patient/p", &crate::support::patient("p", family));
    }
    fhir.post("/Patient/p/$purge", &crate::support::patient("p", "B")).expect(400);
    assert_eq!(fhir.get("/Patient/p/_history").expect(200).json()["total"], 2);
    let refused = fhir.post("/Patient/p/$purge", &json!({"resourceType": "Parameters", "parameter": [{"name": "all", "valueBoolean": true}]})).expect(400);
    assert!(refused.refusal().contains("parameter 'all' of $purge is not supported; it has none"));
    fhir.get("/Patient/p/_history/1").expect(200);
}

#[test]
fn what_is_meant_once_is_not_given_twice() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for (path, name) in [
        ("/Patient/a/$everything?start=2020&start=2021", "start"),
        ("/Patient/a/$everything?end=2020&end=2021", "end"),
        ("/Patient/a/$everything?_since=2020&_since=2021", "_since"),
        ("/Patient/a/$everything?_count=1&_count=2", "_count"),
        ("/Patient/a/$validate?mode=update&mode=delete", "mode"),
        ("/Patient/a/$diff?from=1&to=1&to=2", "to"),
        ("/Observation/$lastn?patient=a&max=1&max=1", "max"),
    ] {
        let refused = fhir.get(path).expect(400).refusal();
        assert!(refused.contains(&format!("parameter '{name}' of $")) && refused.contains("is given more than once"), "{path}: {refused}");
    }
    let resource = |name: &str| json!({"name": name, "resource": crate::support::patient("p", "A")});
    let twice = |name: &str| json!({"resourceType": "Parameters", "parameter": [resource(name), resource(name)]});
    for (path, name) in [("/Patient/$validate", "resource"), ("/$convert", "input")] {
        let refused = fhir.post(path, &twice(name)).expect(400).refusal();
        assert!(refused.contains(&format!("[Parameters.parameter[1]]: parameter '{name}' of")), "{refused}");
    }
    let posted = json!({"resourceType": "Parameters", "parameter": [{"name": "max", "valuePositiveInt": 2}]});
    assert!(fhir.post("/Observation/$lastn?patient=a&max=1", &posted).expect(400).refusal().contains("'max' of $lastn is given more than once"));
    assert!(fhir.post("/$convert?to=xml", &crate::support::patient("p", "A")).expect(400).refusal().contains("parameter 'to' of $convert is not supported"));
    let more = json!({"resourceType": "Parameters", "parameter": [resource("input"), resource("other")]});
    assert!(fhir.post("/$convert", &more).expect(400).refusal().contains("parameter 'other' of $convert is not supported; known: input"));
    let part = json!({"resourceType": "Parameters", "parameter": [{"name": "input", "part": [resource("x")]}]});
    assert!(fhir.post("/$convert", &part).expect(400).refusal().contains("('input') cannot be given as part; give it as resource"));
}

#[test]
fn a_meta_that_has_nothing_is_valid_in_all_versions() {
    let server = TestServer::start();
    for version in ["STU3", "R4", "R4B", "R5"] {
        let sim = format!("a__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        fhir.put("/Patient/p", &crate::support::patient("p", "A")).expect(201);
        for path in ["/$meta", "/Patient/$meta", "/Patient/p/$meta"] {
            let answer = fhir.get(path).expect(200).json();
            assert_eq!(answer.get("parameter").is_some(), path == "/Patient/p/$meta", "{answer}");
            let said = fhir.post("/Parameters/$validate", &answer).expect(200);
            assert!(said.text().contains("no problem found"), "{version} {path}: {}", said.text());
        }
    }
}
