//! Search by the letter of the specification, once more: what strangers found.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, ids};

const UCUM: &str = "http://unitsofmeasure.org";

fn quantity(fhir: &Client, id: &str, value: &str, code: &str) {
    let text = format!(
        r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{"text":"x"}},"valueQuantity":{{"value":{value},"unit":"{code}","system":"{UCUM}","code":"{code}"}}}}"#
    );
    fhir.send("PUT", &format!("/Observation/{id}"), &[], text.as_bytes()).expect(201);
}

/// The outcome in a Bundle.
fn outcome(bundle: &Value) -> String {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().filter(|e| e["search"]["mode"] == "outcome").map(|e| e["resource"]["issue"].to_string()).collect()
}

fn strict(fhir: &Client, path: &str) -> u16 {
    fhir.send("GET", path, &[("prefer", "handling=strict")], b"").status
}

#[test]
fn amounts_that_are_equal_are_neither_more_nor_less() {
    let server = TestServer::start();
    let pairs = [
        ("60", "/min", "1", "/s"),
        ("98.6", "[degF]", "37", "Cel"),
        ("60", "mL/h", "1", "mL/min"),
        ("36", "km/h", "10", "m/s"),
        ("24", "g/d", "1", "g/h"),
        ("7", "/wk", "1", "/d"),
        ("90", "mg/h", "1.5", "mg/min"),
        ("212", "[degF]", "100", "Cel"),
        ("32", "[degF]", "0", "Cel"),
    ];
    for (n, (value, code, same, other)) in pairs.into_iter().enumerate() {
        let fhir = server.fhir(&format!("a__{n}"));
        quantity(&fhir, "o", value, code);
        let other = other.replace('/', "%2F").replace('[', "%5B").replace(']', "%5D");
        for (prefix, finds) in [("", 1), ("eq", 1), ("ge", 1), ("le", 1), ("gt", 0), ("lt", 0), ("sa", 0), ("eb", 0), ("ne", 0), ("ap", 1)] {
            let found = fhir.get(&format!("/Observation?value-quantity={prefix}{same}%7C{UCUM}%7C{other}")).expect(200).json();
            assert_eq!(found["total"], finds, "{value} {code} {prefix} {same} {other}");
        }
    }
}

#[test]
fn codes_of_whole_systems_have_those_systems() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let attachment = json!({"contentType": "text/xml; charset=utf-8"});
    fhir.put("/DocumentReference/d", &json!({"resourceType": "DocumentReference", "id": "d", "status": "current", "content": [{"attachment": attachment}]}))
        .expect(201);
    assert_eq!(fhir.ids("/DocumentReference?contenttype=urn:ietf:bcp:13%7Ctext/xml;%20charset%3Dutf-8"), ["d"]);
    assert_eq!(fhir.ids("/DocumentReference?contenttype:not=urn:ietf:bcp:13%7Ctext/xml;%20charset%3Dutf-8"), [""; 0]);
    server.client().put("/api/sims/r__5", &json!({"fhirVersion": "R5"})).expect(201);
    let r5 = server.fhir("r__5");
    r5.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "language": "de-CH"})).expect(201);
    assert_eq!(r5.ids("/Patient?_language=urn:ietf:bcp:47%7Cde-CH"), ["p"]);
    assert_eq!(r5.ids("/Patient?_language=urn:ietf:bcp:13%7Cde-CH"), [""; 0]);
}

#[test]
fn an_id_that_means_two_is_refused_by_name() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let observation = |id: &str, subject: &str| {
        let of = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}});
        fhir.put(&format!("/Observation/{id}"), &of).expect(201);
    };
    observation("o1", "Patient/p1");
    observation("o3", "Patient/p3");
    assert_eq!(fhir.ids("/Observation?subject=p1"), ["o1"]);
    observation("o2", "Group/p1");
    let refused = fhir.get("/Observation?subject=p1").expect(400).refusal();
    assert!(refused.contains("Group/p1 or Patient/p1"), "{refused}");
    assert_eq!(fhir.ids("/Observation?subject=Patient/p1"), ["o1"]);
    assert_eq!(fhir.ids("/Observation?subject:Group=p1"), ["o2"]);
    assert_eq!(fhir.ids("/Observation?patient=p1"), ["o1"]);
    assert_eq!(fhir.ids("/Observation?subject=p3"), ["o3"]);
    assert!(fhir.get("/Observation?_filter=subject%20eq%20p1").expect(400).refusal().contains("Group/p1 or Patient/p1"));
    // Ids that may be of any type are looked up for each; what that costs is counted.
    let ids = (0..1_000).map(|n| format!("x{n}")).collect::<Vec<_>>().join(",");
    let form = (0..20).map(|_| format!("target={ids}")).collect::<Vec<_>>().join("&");
    let reply = fhir.send("POST", "/Provenance/_search", &[("content-type", "application/x-www-form-urlencoded")], form.as_bytes());
    assert!(reply.expect(403).refusal().contains("--max-search-steps"));
}

#[test]
fn what_a_chain_followed_as_it_is_now_is_said() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let patient = |name: &str| json!({"resourceType": "Patient", "id": "p", "name": [{"family": name}]});
    fhir.put("/Patient/p", &patient("Old")).expect(201);
    fhir.put("/Patient/p", &patient("New")).expect(200);
    for (id, reference) in [("v", "Patient/p/_history/1"), ("w", "Patient/p")] {
        let of = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": id}, "subject": {"reference": reference}});
        fhir.put(&format!("/Observation/{id}"), &of).expect(201);
    }
    let found = fhir.get("/Observation?subject:Patient.name=New&_id=v").json();
    assert!(found["total"] == 1 && outcome(&found).contains("'subject:Patient.name' was asked of the current version"), "{found}");
    let found = fhir.get("/Observation?subject:Patient.name=New&_id=w").json();
    assert!(found["total"] == 1 && outcome(&found).is_empty(), "{found}");
    let report = json!({"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": {"text": "x"}, "result": [{"reference": "Observation/v"}]});
    fhir.put("/DiagnosticReport/r", &report).expect(201);
    for (search, total) in [
        ("DiagnosticReport?result.subject:Patient.name=new", 1),
        ("Patient?_has:Observation:subject:status=final", 1),
        ("Observation?subject:Patient.name=old", 0),
        ("Observation?_filter=subject.name eq old", 0),
    ] {
        let found = fhir.get(&format!("/{}", search.replace(' ', "%20"))).expect(200).json();
        assert!(found["total"] == total && outcome(&found).contains("asked of the current version"), "{search}: {found}");
    }
    assert_eq!(outcome(&fhir.get("/DiagnosticReport?result:Observation.status=final").json()), "");
}

#[test]
fn elements_are_of_what_comes_along_too() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "gender": "male", "name": [{"family": "F"}]})).expect(201);
    let of =
        json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, "valueString": "v", "subject": {"reference": "Patient/p"}});
    fhir.put("/Observation/o", &of).expect(201);
    let path = "/Observation?_include=Observation:subject&_elements=Patient.name,Observation.code";
    let found = fhir.get(path).expect(200).json();
    let (observation, patient) = (&found["entry"][0]["resource"], &found["entry"][1]["resource"]);
    assert!(observation["valueString"].is_null() && observation["code"]["text"] == "x", "{observation}");
    assert!(patient["gender"].is_null() && patient["name"][0]["family"] == "F" && patient["meta"]["tag"][0]["code"] == "SUBSETTED", "{patient}");
    assert_eq!((outcome(&found), strict(&fhir, path)), (String::new(), 200));
    // Of a type that none is named of, all is there.
    let found = fhir.get("/Observation?_include=Observation:subject&_elements=Patient.name").expect(200).json();
    assert_eq!(found["entry"][0]["resource"]["valueString"], "v");
    for unknown in ["Patient.nothing,code", "Nothing.name,code"] {
        assert_eq!(strict(&fhir, &format!("/Observation?_include=Observation:subject&_elements={unknown}")), 400, "{unknown}");
    }
    assert_eq!(strict(&fhir, "/Observation?_elements=Patient.name,code"), 400, "no patient comes");
}

#[test]
fn what_a_contained_match_refers_to_comes_along() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o", "name": "O"})).expect(201);
    let medication = json!({"resourceType": "Medication", "id": "med", "status": "active", "manufacturer": {"reference": "Organization/o"}});
    let request = json!({"resourceType": "MedicationRequest", "id": "m", "status": "active", "intent": "order", "contained": [medication],
        "medicationReference": {"reference": "#med"}, "subject": {"display": "x"}});
    fhir.put("/MedicationRequest/m", &request).expect(201);
    for how in ["", "&_containedType=contained"] {
        let found = fhir.get(&format!("/Medication?_contained=true{how}&_include=Medication:manufacturer")).expect(200).json();
        let included: Vec<&Value> = found["entry"].as_array().unwrap().iter().filter(|e| e["search"]["mode"] == "include").collect();
        assert!(included.len() == 1 && included[0]["resource"]["id"] == "o", "{found}");
    }
}

#[test]
fn members_are_those_of_now() {
    let server = TestServer::start();
    server.client().put("/api/sims/r__5", &json!({"fhirVersion": "R5"})).expect(201);
    let fhir = server.fhir("r__5");
    for n in 0..4 {
        fhir.put(&format!("/Patient/p{n}"), &json!({"resourceType": "Patient", "id": format!("p{n}")})).expect(201);
    }
    let of = |n: usize, name: &str, period: Value| json!({"entity": {"reference": format!("Patient/p{n}")}, "member": {"reference": format!("Patient/p{n}")}, name: period});
    let times = [json!({}), json!({"end": "2001-01-01"}), json!({"start": "2999-01-01"}), json!({"start": "2001", "end": "2999"})];
    let all = |name: &str| (0..).zip(&times).map(|(n, period)| of(n, name, period.clone())).collect::<Vec<_>>();
    fhir.put("/Group/g", &json!({"resourceType": "Group", "id": "g", "type": "person", "membership": "enumerated", "member": all("period")})).expect(201);
    fhir.put("/CareTeam/c", &json!({"resourceType": "CareTeam", "id": "c", "participant": all("coveragePeriod")})).expect(201);
    assert_eq!(fhir.ids("/Patient?_in=Group/g&_sort=_id"), ["p0", "p3"]);
    assert_eq!(fhir.ids("/Patient?_in=CareTeam/c&_sort=_id"), ["p0", "p3"]);
}

#[test]
fn abstract_codes_are_no_members() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let contains = json!([{"system": "http://cs", "code": "group", "abstract": true, "contains": [{"system": "http://cs", "code": "leaf"}]}]);
    fhir.put(
        "/ValueSet/v",
        &json!({"resourceType": "ValueSet", "id": "v", "url": "http://vs", "status": "active", "expansion": {"timestamp": "2024", "contains": contains}}),
    )
    .expect(201);
    for code in ["group", "leaf"] {
        let of = json!({"resourceType": "Observation", "id": code, "status": "final", "code": {"coding": [{"system": "http://cs", "code": code}]}});
        fhir.put(&format!("/Observation/{code}"), &of).expect(201);
    }
    assert_eq!(fhir.ids("/Observation?code:in=http://vs"), ["leaf"]);
    assert_eq!(fhir.ids("/Observation?code:not-in=http://vs"), ["group"]);
}

#[test]
fn filters_have_what_the_specification_shows() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, given) in [("p", "Peter"), ("q", "Paul")] {
        fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "name": [{"given": [given]}]})).expect(201);
        let code = if id == "p" { "12907-2" } else { "8867-4" };
        let observation = json!({"resourceType": "Observation", "id": id, "status": "final", "subject": {"reference": format!("Patient/{id}")},
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {"value": 160, "system": "http://unitsofmeasure.org", "code": "mmol/L"}});
        fhir.put(&format!("/Observation/{id}"), &observation).expect(201);
    }
    for (of, filter, expected) in [
        ("Patient", "given eq peter and _has:Observation:patient:code eq http://loinc.org|12907-2", vec!["p"]),
        ("Patient", "_has:Observation:patient:code eq loinc|8867-4 or given eq nobody", vec!["q"]),
        ("Patient", "_has:Observation:patient:value-quantity gt 200", vec![]),
        ("Patient", "not (_has:Observation:subject:subject.given sw Pe)", vec!["q"]),
        ("Observation", "code eq loinc|12907-2", vec!["p"]),
        ("Observation", "code eq snomed|12907-2", vec![]),
        ("Observation", "value-quantity eq 160|ucum|mmol/L and subject.id eq p", vec!["p"]),
        ("Observation", "code-value-quantity eq http://loinc.org|12907-2$ge150|http://unitsofmeasure.org|mmol/L", vec!["p"]),
    ] {
        let encoded: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
        assert_eq!(fhir.ids(&format!("/{of}?_filter={encoded}")), expected, "{filter}");
    }
    // Texts have an order, and times include others.
    for (id, family, born) in [("r", "Adams", "1980"), ("s", "Queen", "1980-05"), ("t", "Q", "1980-05-05"), ("u", "Zoë", "1981")] {
        fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "birthDate": born, "name": [{"family": family}]})).expect(201);
    }
    for when in ["recent", "committed"] {
        for (filter, expected) in [
            ("family lt \"Q\"", vec!["r"]),
            ("family le q", vec!["r", "t"]),
            ("family gt Q", vec!["s", "u"]),
            ("family ge q and family lt zoe", vec!["s", "t"]),
            ("birthdate co 1980-05-05", vec!["r", "s", "t"]),
            ("birthdate co 1980-05", vec!["r", "s"]),
            ("birthdate co 1980-06-01", vec!["r"]),
        ] {
            let encoded: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
            assert_eq!(fhir.ids(&format!("/Patient?_sort=_id&_filter={encoded}")), expected, "{filter}, {when}");
        }
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
    assert!(fhir.get("/Patient?_filter=_has:Observation:patient:nope+eq+x").expect(400).refusal().contains("'nope' for Observation"));
}

#[test]
fn canonicals_have_no_fragment_and_properties_a_meaning() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, questionnaire) in [("a", "http://q|2#frag"), ("b", "http://q#frag"), ("c", "http://q|3")] {
        let response = json!({"resourceType": "QuestionnaireResponse", "id": id, "status": "completed", "questionnaire": questionnaire});
        fhir.put(&format!("/QuestionnaireResponse/{id}"), &response).expect(201);
    }
    assert_eq!(fhir.ids("/QuestionnaireResponse?questionnaire=http://q&_sort=_id"), ["a", "b", "c"]);
    assert_eq!(fhir.ids("/QuestionnaireResponse?questionnaire=http://q%7C2"), ["a"]);
    let system = json!({"resourceType": "CodeSystem", "id": "cs", "url": "http://cs", "status": "active", "content": "complete",
        "property": [{"code": "broader", "uri": "http://hl7.org/fhir/concept-properties#parent", "type": "code"}],
        "concept": [{"code": "a"}, {"code": "b", "property": [{"code": "broader", "valueCode": "a"}]}]});
    fhir.put("/CodeSystem/cs", &system).expect(201);
    fhir.put(
        "/Observation/o",
        &json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"coding": [{"system": "http://cs", "code": "b"}]}}),
    )
    .expect(201);
    assert_eq!(fhir.ids("/Observation?code:below=http://cs%7Ca"), ["o"]);
}

#[test]
fn positions_are_read_as_they_may_be_written() {
    let server = TestServer::start();
    let place = |fhir: &Client| {
        fhir.put("/Location/l", &json!({"resourceType": "Location", "id": "l", "position": {"longitude": 0.0, "latitude": 0.0}})).expect(201);
    };
    let fhir = server.fhir("a__b");
    place(&fhir);
    assert_eq!(fhir.ids("/Location?near=0%7C0%7C%7Ckm"), ["l"]);
    assert_eq!(fhir.get("/Location?near=0%7C0%7Cx%7Ckm").status, 400);
    server.client().put("/api/sims/s__3", &json!({"fhirVersion": "STU3"})).expect(201);
    let stu3 = server.fhir("s__3");
    place(&stu3);
    assert_eq!(stu3.ids("/Location?near=0:0&near-distance=5%7C%7Ckm"), ["l"]);
    assert!(stu3.get("/Location?near=0:0&near-distance=gt5%7C%7Ckm").expect(400).refusal().contains("near-distance 'gt5"));
    let far = json!({"resourceType": "Location", "id": "far", "position": {"longitude": 3.0, "latitude": 3.0}});
    stu3.put("/Location/far", &far).expect(201);
    assert_eq!(stu3.ids("/Location?near=0:0,3:3&near-distance=5%7C%7Ckm").len(), 2);
    assert_eq!(stu3.ids("/Location?near=9:9,0:0,&near-distance=5%7C%7Ckm"), ["l"]);
    let twice = stu3.get("/Location?near=0:0&near-distance=5%7C%7Ckm&near-distance=900%7C%7Ckm").expect(200).json();
    assert!(twice.to_string().contains("near-distance '900||km' was left out"), "{twice}");
    assert_eq!(twice["total"], 1);
    assert!(stu3.get("/Location?near=0:0&near-distance=5%7C%7Ckm,900%7C%7Ckm").expect(400).refusal().contains("is no distance to be within"));
    // At the end of a chain, too.
    stu3.put("/Encounter/e", &json!({"resourceType": "Encounter", "id": "e", "location": [{"location": {"reference": "Location/far"}}]})).expect(201);
    let chained = |near: &str, distance: &str| stu3.ids(&format!("/Encounter?location.near={near}&location.near-distance={distance}%7C%7Ckm"));
    assert_eq!((chained("3:3", "5"), chained("3:2", "200"), chained("3:2", "5").len()), (vec!["e".to_owned()], vec!["e".to_owned()], 0));
    let mut placed = far.clone();
    placed["managingOrganization"] = json!({"reference": "Organization/o"});
    stu3.put("/Location/far", &placed).expect(200);
    stu3.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o"})).expect(201);
    let has = |distance: &str| {
        let place = "_has:Location:organization:near";
        stu3.ids(&format!("/Organization?{place}=3:2&{place}-distance={distance}%7C%7Ckm"))
    };
    assert_eq!((has("200"), has("5").len()), (vec!["o".to_owned()], 0));
    let said = stu3.get("/Encounter?location.near-distance=5%7C%7Ckm").expect(200).text().to_owned();
    assert!(said.contains("it is the distance of 'location.near', which is not there"), "{said}");
    assert!(stu3.get("/Location?near=x").expect(400).refusal().contains("42.25:-83.69"));
}

#[test]
fn what_is_empty_is_said() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "name": [{"family": "Able"}]})).expect(201);
    for path in ["/Patient?family=a,", "/Patient?family=a,,b", "/Patient?_sort=birthdate,", "/Patient?_elements=,name", "/?_type=Patient,"] {
        let found = fhir.get(path).expect(200).json();
        assert!(ids(&found).contains(&"p".to_owned()) && outcome(&found).contains("nothing between two commas"), "{path} {found}");
        assert!(!found["link"][0]["url"].as_str().unwrap().contains("%2C&"), "{found}");
        assert_eq!(strict(&fhir, path), 400, "{path}");
    }
    assert_eq!(strict(&fhir, "/Patient?family=a%5C,"), 200, "an escaped comma is text");
    for path in ["/Observation?component-code-value-quantity=$5", "/Observation?component-code-value-quantity=k$"] {
        fhir.get(path).expect(400);
    }
    let counted = fhir.get("/Patient?_count=0&_total=none").expect(200).json();
    assert_eq!((&counted["total"], &counted["entry"]), (&json!(1), &Value::Null));
}

#[test]
fn own_parameters_are_what_their_definitions_say() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let own = |id: &str, code: &str, base: &str, more: Value| {
        let mut of = json!({"resourceType": "SearchParameter", "id": id, "url": format!("http://x/{id}"), "name": "n", "description": "d", "status": "active",
            "code": code, "base": [base], "type": "string", "expression": "Patient.name.family"});
        of.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fhir.put(&format!("/SearchParameter/{id}"), &of)
    };
    own("a", "fam", "Patient", json!({"modifier": ["exact"]})).expect(201);
    own("b", "born", "Patient", json!({"type": "date", "expression": "Patient.birthDate", "comparator": ["gt", "lt"]})).expect(201);
    own("c", "lang", "Resource", json!({"type": "token", "expression": "Resource.language"})).expect(201);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "language": "de", "birthDate": "1980-01-01", "name": [{"family": "Able"}]}))
        .expect(201);
    assert_eq!((fhir.ids("/Patient?fam=ab"), fhir.ids("/Patient?fam:exact=Able")), (vec!["p".to_owned()], vec!["p".to_owned()]));
    let refused = fhir.get("/Patient?fam:contains=a").expect(400).refusal();
    assert!(refused.contains("known here: exact"), "{refused}");
    assert_eq!((fhir.ids("/Patient?born=1980-01-01"), fhir.ids("/Patient?born=gt1979")), (vec!["p".to_owned()], vec!["p".to_owned()]));
    assert!(fhir.get("/Patient?born=sa1979").expect(400).refusal().contains("comparators gt, lt"));
    let statement = fhir.get("/metadata").json();
    let of_all = statement["rest"][0]["searchParam"].as_array().unwrap();
    assert!(of_all.iter().any(|p| p["name"] == "lang" && p["definition"] == "http://x/c"), "{of_all:?}");
    assert_eq!(fhir.ids("/?lang=de"), ["p"]);
    // Two of one name.
    let refused = own("d", "fam", "Patient", json!({})).expect(422).refusal();
    assert!(refused.contains("SearchParameter/a"), "{refused}");
    own("a", "fam", "Patient", json!({"expression": "Patient.name.given"})).expect(200);
    own("d", "fam", "Patient", json!({"status": "draft"})).expect(201);
    own("d", "fam", "Observation", json!({"expression": "Observation.code.text"})).expect(200);
    fhir.delete("/SearchParameter/a").expect(204);
    own("e", "fam", "Patient", json!({})).expect(201);
}

#[test]
fn own_parameters_of_one_name_are_told_by_the_id_that_they_get() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let own = |expression: &str| {
        json!({"resourceType": "SearchParameter", "url": "http://x/shoe", "name": "n", "description": "d", "status": "active", "code": "shoe", "base": ["Patient"],
            "type": "string", "expression": expression})
    };
    // An update by its condition is not in its own way.
    fhir.put("/SearchParameter?url=http://x/shoe", &own("Patient.name.family")).expect(201);
    fhir.put("/SearchParameter?url=http://x/shoe", &own("Patient.name.family")).expect(200);
    let id = fhir.ids("/SearchParameter?url=http://x/shoe").remove(0);
    // A create gets another id than the one it sends.
    let mut posted = own("Patient.name.given");
    posted["id"] = id.clone().into();
    assert!(fhir.post("/SearchParameter", &posted).expect(422).refusal().contains(&format!("SearchParameter/{id}")));
    fhir.delete(&format!("/SearchParameter/{id}")).expect(204);
    // Two within one Bundle.
    let entry = |expression: &str| json!({"resource": own(expression), "request": {"method": "POST", "url": "SearchParameter"}});
    let mut bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry("Patient.name.family"), entry("Patient.name.given")]});
    assert!(fhir.post("", &bundle).expect(422).refusal().contains("Bundle.entry["));
    bundle["type"] = "batch".into();
    let answer = fhir.post("", &bundle).expect(200).json();
    let status = |n: usize| answer["entry"][n]["response"]["status"].as_str().unwrap_or_default()[..3].to_owned();
    assert_eq!((status(0), status(1)), ("201".to_owned(), "422".to_owned()));
    // Whatever the order in a transaction, what there is after it counts.
    for first in [0, 1] {
        let fhir = server.fhir(&format!("a__order{first}"));
        let put = |id: &str, more: Value| {
            let mut made = own("Patient.name.family");
            made["id"] = id.into();
            made["url"] = format!("http://x/{id}").into();
            made.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"resource": made, "request": {"method": "PUT", "url": format!("SearchParameter/{id}")}})
        };
        let composite = json!({"code": "both", "type": "composite", "expression": "Patient",
            "component": [{"definition": "http://x/part", "expression": "name.family"}, {"definition": "http://x/part", "expression": "name.given"}]});
        let transaction = |mut entries: Vec<Value>| {
            entries.rotate_left(first);
            fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
        };
        transaction(vec![put("old", json!({})), put("other", json!({"code": "other"}))]);
        transaction(vec![put("old", json!({"status": "retired"})), put("new", json!({}))]);
        transaction(vec![put("part", json!({"code": "part"})), put("both", composite)]);
    }
}

#[test]
fn references_have_a_code_text_in_r5() {
    let server = TestServer::start();
    server.client().put("/api/sims/r__5", &json!({"fhirVersion": "R5"})).expect(201);
    let fhir = server.fhir("r__5");
    let of = json!({"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p", "display": "Jon Doe"}, "clinicalStatus": {"text": "x"}});
    fhir.put("/Condition/c", &of).expect(201);
    assert_eq!((fhir.ids("/Condition?subject:code-text=jon"), fhir.ids("/Condition?subject:code-text=doe")), (vec!["c".to_owned()], vec![]));
    server.fhir("a__b").get("/Condition?subject:code-text=jon").expect(400);
}
