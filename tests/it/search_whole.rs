//! Every kind of condition on one small world, recent and committed: chains, `_has`, includes, quantities, composites, value
//! sets, hierarchies, full text, `_filter`, lists, compartments, contained resources.

use serde_json::{Value, json};

use crate::support::{Client, TestServer};

/// The world, one resource a line.
const WORLD: &str = r##"
{"resourceType": "Organization", "id": "o1", "name": "Mercy Hospital", "identifier": [{"system": "urn:o", "value": "O1"}]}
{"resourceType": "Organization", "id": "o2", "name": "Ward", "partOf": {"reference": "Organization/o1"}}
{"resourceType": "Patient", "id": "p1", "name": [{"family": "Müller", "given": ["Ann"]}], "gender": "female", "birthDate": "1980-05-01", "managingOrganization": {"reference": "Organization/o1"}, "identifier": [{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}, "system": "urn:p", "value": "1"}], "text": {"status": "generated", "div": "<div>severe chronic pain in the left knee</div>"}}
{"resourceType": "Patient", "id": "p2", "name": [{"family": "Jones", "given": ["Bob"]}], "gender": "male", "birthDate": "1990", "managingOrganization": {"reference": "Organization/o2"}, "generalPractitioner": [{"reference": "#gp"}], "contained": [{"resourceType": "Practitioner", "id": "gp", "name": [{"family": "House"}]}]}
{"resourceType": "Observation", "id": "b1", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7", "display": "Body 29463-7"}], "text": "text 29463-7"}, "subject": {"reference": "Patient/p1"}, "valueQuantity": {"value": 70, "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}, "effectiveDateTime": "2020-01-01", "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}]}
{"resourceType": "Observation", "id": "b2", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7", "display": "Body 29463-7"}], "text": "text 29463-7"}, "subject": {"reference": "Patient/p2"}, "valueQuantity": {"value": 71000, "unit": "g", "system": "http://unitsofmeasure.org", "code": "g"}, "effectiveDateTime": "2020-02"}
{"resourceType": "Observation", "id": "b3", "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6", "display": "Body 8480-6"}], "text": "text 8480-6"}, "subject": {"reference": "Patient/p2"}, "valueQuantity": {"value": 120, "unit": "mm[Hg]", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}, "component": [{"code": {"coding": [{"system": "http://loinc.org", "code": "c1"}]}, "valueQuantity": {"value": 5, "code": "mg", "system": "http://unitsofmeasure.org"}}, {"code": {"coding": [{"system": "http://loinc.org", "code": "c2"}]}, "valueQuantity": {"value": 9, "code": "mg", "system": "http://unitsofmeasure.org"}}]}
{"resourceType": "Group", "id": "g1", "type": "person", "actual": true, "member": [{"entity": {"reference": "Patient/p1"}}]}
{"resourceType": "List", "id": "l1", "status": "current", "mode": "working", "entry": [{"item": {"reference": "Patient/p2"}}]}
{"resourceType": "Location", "id": "loc", "position": {"latitude": 42.256, "longitude": -83.694}}
{"resourceType": "Location", "id": "loc2", "partOf": {"reference": "Location/loc"}}
{"resourceType": "Location", "id": "loc3", "partOf": {"reference": "Location/loc2"}}
{"resourceType": "Encounter", "id": "e1", "status": "finished", "class": {"code": "AMB"}, "location": [{"location": {"reference": "Location/loc3"}}], "subject": {"reference": "Patient/p1"}}
{"resourceType": "CodeSystem", "id": "cs", "url": "http://x/cs", "status": "active", "content": "complete", "concept": [{"code": "a", "concept": [{"code": "b", "concept": [{"code": "c"}]}]}, {"code": "z"}]}
{"resourceType": "ValueSet", "id": "vs", "url": "http://x/vs", "status": "active", "compose": {"include": [{"system": "http://x/cs", "filter": [{"property": "concept", "op": "is-a", "value": "b"}]}], "exclude": [{"system": "http://x/cs", "concept": [{"code": "c"}]}]}}
{"resourceType": "Condition", "id": "c-a", "subject": {"reference": "Patient/p1"}, "code": {"coding": [{"system": "http://x/cs", "code": "a"}]}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}
{"resourceType": "Condition", "id": "c-b", "subject": {"reference": "Patient/p1"}, "code": {"coding": [{"system": "http://x/cs", "code": "b"}]}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}
{"resourceType": "Condition", "id": "c-c", "subject": {"reference": "Patient/p1"}, "code": {"coding": [{"system": "http://x/cs", "code": "c"}]}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}
{"resourceType": "Condition", "id": "c-z", "subject": {"reference": "Patient/p1"}, "code": {"coding": [{"system": "http://x/cs", "code": "z"}]}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}
{"resourceType": "Questionnaire", "id": "q1", "url": "http://x/q", "version": "1", "status": "active", "title": "Quest"}
{"resourceType": "QuestionnaireResponse", "id": "qr1", "status": "completed", "questionnaire": "http://x/q|1"}
{"resourceType": "QuestionnaireResponse", "id": "qr2", "status": "completed", "questionnaire": "http://x/q|2"}
"##;

fn fill(fhir: &Client) {
    for line in WORLD.lines().filter(|l| !l.is_empty()) {
        let resource: Value = serde_json::from_str(line).unwrap();
        let path = format!("/{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
        fhir.put(&path, &resource).expect(201);
    }
}

/// Type and id of matches, with a plus before what is included; sorted. A refusal begins with `!`.
fn found(fhir: &Client, query: &str) -> String {
    let reply = fhir.get(&format!("/{query}"));
    if reply.status != 200 {
        return format!("! {}", reply.refusal());
    }
    let bundle = reply.json();
    let mut names = Vec::new();
    for entry in bundle["entry"].as_array().into_iter().flatten() {
        let plus = if entry["search"]["mode"] == "include" { "+" } else { "" };
        assert_ne!(entry["search"]["mode"], "outcome", "{query}: {entry}");
        names.push(format!("{plus}{}/{}", entry["resource"]["resourceType"].as_str().unwrap(), entry["resource"]["id"].as_str().unwrap()));
    }
    if bundle["total"].is_number() {
        assert_eq!(bundle["total"], json!(names.iter().filter(|n| !n.starts_with('+')).count()), "{query}");
    }
    names.sort();
    names.join(" ")
}

/// What is asked, and what is found.
const ASKED: &[(&str, &str)] = &[
    ("Observation?value-quantity=70|http://unitsofmeasure.org|kg", "Observation/b1"),
    ("Observation?value-quantity=71|http://unitsofmeasure.org|kg", "Observation/b2"),
    ("Observation?value-quantity=gt69|http://unitsofmeasure.org|kg", "Observation/b1 Observation/b2"),
    ("Observation?value-quantity=70||kg", "Observation/b1"),
    ("Observation?value-quantity=120", "Observation/b3"),
    ("Observation?value-quantity=ap118||mm%5BHg%5D", "Observation/b3"),
    ("Observation?code-value-quantity=http://loinc.org|29463-7$gt70500|http://unitsofmeasure.org|g", "Observation/b2"),
    ("Observation?component-code-value-quantity=c1$5", "Observation/b3"),
    ("Observation?component-code-value-quantity=c1$9", ""),
    ("Observation?combo-code-value-quantity=c2$9", "Observation/b3"),
    ("Observation?subject:Patient.name=mul", "Observation/b1"),
    ("Observation?subject.organization.name=mercy", "Observation/b1"),
    ("Observation?patient.organization.partof.name=mercy", "Observation/b2 Observation/b3"),
    ("Observation?patient._has:Group:member:_id=g1", "Observation/b1"),
    ("Patient?_has:Group:member:_id=g1", "Patient/p1"),
    ("Patient?_has:Observation:patient:code=8480-6", "Patient/p2"),
    ("Patient?_has:Observation:patient:_has:X:y:z=1", "! _has: _has:X:y:z: unknown resource type 'X' in FHIR R4"),
    ("Patient?general-practitioner.family=house", "Patient/p2"),
    ("Patient?general-practitioner:Practitioner.name=hou", "Patient/p2"),
    ("Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|1", "Patient/p1"),
    ("Observation?code:text=body%208", "Observation/b3"),
    ("Observation?code:text=text", "Observation/b1 Observation/b2 Observation/b3"),
    ("Observation?_include=Observation:subject&code=29463-7", "+Patient/p1 +Patient/p2 Observation/b1 Observation/b2"),
    (
        "Observation?_include=Observation:subject&_include:iterate=Patient:organization&_include:iterate=Organization:partof&code=8480-6",
        "+Organization/o1 +Organization/o2 +Patient/p2 Observation/b3",
    ),
    ("Patient?_revinclude=Observation:patient&_id=p2", "+Observation/b2 +Observation/b3 Patient/p2"),
    ("Patient?_revinclude=*&_id=p1", "+Condition/c-a +Condition/c-b +Condition/c-c +Condition/c-z +Encounter/e1 +Group/g1 +Observation/b1 Patient/p1"),
    ("QuestionnaireResponse?_include=*", "+Questionnaire/q1 QuestionnaireResponse/qr1 QuestionnaireResponse/qr2"),
    ("QuestionnaireResponse?questionnaire.title=quest", "QuestionnaireResponse/qr1"),
    ("QuestionnaireResponse?questionnaire=http://x/q", "QuestionnaireResponse/qr1 QuestionnaireResponse/qr2"),
    ("QuestionnaireResponse?questionnaire=http://x/q|2", "QuestionnaireResponse/qr2"),
    ("QuestionnaireResponse?questionnaire:below=http://x/q", "QuestionnaireResponse/qr1 QuestionnaireResponse/qr2"),
    ("Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=qr1", "Questionnaire/q1"),
    ("Patient?_text=chronic%20AND%20knee", "Patient/p1"),
    ("Patient?_content=%22left%20knee%22", "Patient/p1"),
    ("Patient?_content=ann%20OR%20bob", "Patient/p1 Patient/p2"),
    ("Patient?_filter=name%20co%20%22one%22%20or%20birthdate%20gt%201979-01-01%20and%20gender%20eq%20female", "Patient/p1"),
    ("Patient?_filter=not%20%28gender%20eq%20female%29", "Patient/p2"),
    ("Observation?_filter=subject.name%20sw%20%22jo%22", "Observation/b2 Observation/b3"),
    ("Patient?_filter=gender%20xx%201", "! _filter 'gender xx 1': expected one of eq ne co sw ew gt"),
    ("Patient?_list=l1", "Patient/p2"),
    ("Condition?_list=$current-problems", "Condition/c-a Condition/c-b Condition/c-c Condition/c-z"),
    ("Condition?code:in=http://x/vs", "Condition/c-b"),
    ("Condition?code:not-in=http://x/vs", "Condition/c-a Condition/c-c Condition/c-z"),
    ("Condition?code:below=http://x/cs|b", "Condition/c-b Condition/c-c"),
    ("Condition?code:above=http://x/cs|c", "Condition/c-a Condition/c-b Condition/c-c"),
    ("Condition?code:in=http://nope", "! value set 'http://nope' is neither stored in this simula"),
    ("Condition?code:in=ValueSet/vs", "Condition/c-b"),
    ("Condition?clinical-status:in=http://hl7.org/fhir/ValueSet/condition-clinical", "Condition/c-a Condition/c-b Condition/c-c Condition/c-z"),
    (
        "Condition?clinical-status:below=http://terminology.hl7.org/CodeSystem/condition-clinical|active",
        "Condition/c-a Condition/c-b Condition/c-c Condition/c-z",
    ),
    ("Location?near=42.256|-83.694|11.2|km", "Location/loc"),
    ("Location?near=42.4|-83.694|10|km", ""),
    ("Location?near=42.4|-83.694|10|%5Bmi_i%5D", "Location/loc"),
    ("Encounter?location:below=Location/loc", "Encounter/e1"),
    ("Location?_id:missing=true", ""),
    ("Patient/p1/Observation?code=29463-7", "Observation/b1"),
    ("Patient/p1/*", "Condition/c-a Condition/c-b Condition/c-c Condition/c-z Encounter/e1 Group/g1 Observation/b1 Patient/p1"),
    ("Practitioner?_contained=true&family=house", "Patient/p2"),
    ("Practitioner?_contained=true&_containedType=contained&family=house", "Practitioner/gp"),
    ("Patient?_query=foo", "! _query 'foo' is not supported: this server has no named"),
    ("Patient?name:exactly=x", "! modifier 'exactly' is not supported for the string param"),
    ("Observation?date:exact=2020", "! modifier 'exact' is not supported for the date parameter"),
    ("SearchParameter?url=http://hl7.org/fhir/SearchParameter/individual-birthdate", "SearchParameter/individual-birthdate"),
    ("?_type=Patient,Observation&_id=p1", "Patient/p1"),
    ("Patient?organization:identifier=urn:o|O1", ""),
    ("Patient?gender:not=male", "Patient/p1"),
    ("Patient?name:contains=ON", "Patient/p2"),
    ("Patient?deceased:missing=true", ""),
    ("Patient?identifier=urn:p|", "Patient/p1"),
    ("ValueSet?url:below=http://x", "ValueSet/vs"),
    ("ValueSet?url:above=http://x/vs/1", "ValueSet/vs"),
    ("ValueSet?url:below=urn:x", "! search parameter 'url': 'urn:x' is not a URL: only URLs"),
    ("Observation?subject:Practitioner.name=x", "! 'subject' cannot refer to a Practitioner; it refers to D"),
    ("Patient?organization.name:missing=false", "Patient/p1 Patient/p2"),
    ("Patient?link:missing=true&_total=none", "Patient/p1 Patient/p2"),
];

#[test]
fn hostile_searches_are_answered() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let form = |query: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        fhir.send("POST", "/Patient/_search", &headers, query.as_bytes())
    };
    for (query, expected) in [
        (format!("_filter={}", vec!["_id eq p1"; 400].join(" and ")), 200),
        (format!("_filter={}", vec!["_id eq p1"; 100_000].join(" and ")), 403),
        (format!("_filter={}_id eq p1", "_id eq p1 and _id eq p2 or ".repeat(200)), 400),
        (format!("_filter={}", "(".repeat(100_000)), 400),
        (format!("_content={}", "(".repeat(100_000)), 400),
        (format!("_content={}", "-".repeat(100_000)), 400),
        (format!("_sort={}", vec!["x"; 100_000].join(",")), 403),
        (format!("_elements={}", vec!["x"; 100_000].join(",")), 403),
        (format!("identifier={}", vec!["x"; 2_000].join(",")), 403),
        (format!("{}name=x", "link.".repeat(100)), 403),
        ("_has:Observation:patient:value-quantity=1e999999999".to_owned(), 200),
        ("_has:Observation:patient:value-quantity=1e-99999999999".to_owned(), 200),
        ("_has:Observation:patient:value-quantity=ap-9e99999999".to_owned(), 200),
        ("_has:Observation:patient:value-quantity=1|http://unitsofmeasure.org|10*999999999".to_owned(), 200),
        ("_has:Observation:patient:date=ap9999-12-31T23:59:60Z".to_owned(), 200),
        ("birthdate=eb0001".to_owned(), 200),
        ("birthdate=ap9999".to_owned(), 200),
        ("name:contains=%20".to_owned(), 200),
        ("_list:not=l1".to_owned(), 400),
        ("_sort:desc=name".to_owned(), 400),
    ] {
        let shown: String = query.chars().take(80).collect();
        let reply = form(&query);
        assert_eq!(reply.status, expected, "{shown}: {}", reply.text().chars().take(300).collect::<String>());
    }
    let huge = json!({"resourceType": "Observation", "id": "huge", "status": "final", "code": {"text": "x"},
        "valueQuantity": {"value": 1, "system": "http://unitsofmeasure.org", "code": "10*999999999"}});
    fhir.put("/Observation/huge", &huge).expect(201);
}

#[test]
fn what_is_left_out_of_a_resource_leaves_it_well_formed() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let text = r#"{"resourceType":"Observation","id":"o","meta":{"tag":{"system":"a"}},"status":"final","_status":{"extension":[{"url":"u","valueCode":"x"}]},
        "code":{"extension":[{"url":"u","valueCode":"unknown"}]},"component":[{"code":{"text":"]}"}}]}"#;
    fhir.send("PUT", "/Observation/o", &[("content-type", "application/fhir+json")], text.as_bytes()).expect(201);
    let summary = fhir.get("/Observation/o?_summary=true").json();
    assert_eq!(summary["code"]["extension"][0]["valueCode"], "unknown");
    assert_eq!(summary["meta"]["tag"][0]["code"], "SUBSETTED");
    assert_eq!(fhir.get("/Observation?_elements=component").json()["entry"][0]["resource"]["component"][0]["code"]["text"], "]}");
    assert_eq!(fhir.get("/Observation?_summary=count&_count=10").json().get("entry"), None);
}

#[test]
fn long_texts_are_searched_to_their_end() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, end) in [("1", "Zebra"), ("2", "lion")] {
        let text = format!("{} ÿ {end}", "Lorem ipsum dolor. ".repeat(400));
        fhir.put(&format!("/ValueSet/{id}"), &json!({"resourceType": "ValueSet", "id": id, "status": "active", "title": text})).expect(201);
    }
    for when in ["recent", "committed"] {
        assert_eq!(found(&fhir, "ValueSet?title:contains=zebra"), "ValueSet/1", "{when}");
        assert_eq!(found(&fhir, "ValueSet?_filter=title%20ew%20%22y%20lion%22"), "ValueSet/2", "{when}");
        assert_eq!(found(&fhir, "ValueSet?title:contains=ipsum"), "ValueSet/1 ValueSet/2", "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

#[test]
fn a_search_has_a_budget() {
    let server = TestServer::with(&["--auto-create", "--max-search-steps", "300"]);
    let fhir = server.fhir("a__b");
    fill(&fhir);
    server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    fhir.get("/Patient?gender=male").expect(200);
    let refused = fhir.get("/Observation?subject:Patient.name=jo&subject:Patient.organization.name=w&_include=*").expect(403);
    assert!(refused.refusal().contains("takes more than 300 steps"), "{}", refused.refusal());
    assert_eq!(refused.json()["issue"][0]["code"], "too-costly");
}

/// What a condition looks through counts by its length, as what it reads from the disk does.
#[test]
fn long_texts_and_lists_cost_what_they_are_long() {
    let server = TestServer::with(&["--auto-create", "--max-search-steps", "100000"]);
    let fhir = server.fhir("a__b");
    let patient = |id: &str, names: Vec<Value>| json!({"resourceType": "Patient", "id": id, "name": names});
    fhir.put("/Patient/long", &patient("long", vec![json!({"family": "abc ".repeat(50_000)})])).expect(201);
    fhir.put(
        "/Organization/many",
        &json!({"resourceType": "Organization", "id": "many", "name": "x", "alias": (0..20_000).map(|n| format!("alias{n}")).collect::<Vec<_>>()}),
    )
    .expect(201);
    let values = |n: usize| (0..n).map(|n| format!("zq{n}")).collect::<Vec<_>>().join(",");
    for when in ["recent", "committed"] {
        for path in ["/Patient?family:contains=", "/Organization?name:contains="] {
            assert_eq!(fhir.get(&format!("{path}{}", values(1))).expect(200).json()["total"], 0, "{when} {path}");
            let refused = fhir.get(&format!("{path}{}", values(50))).expect(403).refusal();
            assert!(refused.contains("takes more than 100000 steps"), "{when} {path}: {refused}");
        }
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

#[test]
fn every_kind_of_condition() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for when in ["recent", "committed"] {
        for (query, expected) in ASKED {
            let found = found(&fhir, query);
            match expected.strip_prefix('!') {
                Some(start) => assert!(found.starts_with(&format!("!{start}")) || found.contains(start.trim()), "{when}: {query}: {found}"),
                None => assert_eq!(found, *expected, "{when}: {query}"),
            }
        }
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

/// What a search says it left out.
fn left_out(fhir: &Client, query: &str) -> String {
    let bundle = fhir.get(&format!("/{query}")).expect(200).json();
    let outcomes = bundle["entry"].as_array().into_iter().flatten().filter(|e| e["search"]["mode"] == "outcome");
    let issues = outcomes.flat_map(|e| e["resource"]["issue"].as_array().cloned().unwrap_or_default());
    issues.map(|i| i["diagnostics"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("; ")
}

#[test]
fn what_is_left_out_is_said() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for (query, said) in [
        ("Patient?_type=Patient", "_type 'Patient' was left out: the URL names the type; without it, _type chooses among all"),
        ("Patient?_pretty=maybe", "_pretty 'maybe' is not true or false"),
        ("Patient?_count=1&_count=2", "_count '2' was left out: _count is given more than once, and the first counts"),
        ("Patient?_sort=name&_sort=birthdate", "_sort 'birthdate' was left out: _sort is given more than once, and the first counts"),
        ("Patient?_summary=", "search parameter '_summary' has no value; give it one, or leave it out"),
        ("?_type=", "search parameter '_type' has no value; give it one, or leave it out"),
        ("Patient?_sort=,", "search parameter '_sort' has no value; give it one, or leave it out"),
        ("Patient?_format=json&_format=xml", "_format 'xml' was left out: _format is given more than once, and the first counts"),
        ("Patient?_containedType=contained", "_containedType 'contained' was left out: it is about contained matches; ask for them by _contained=true or both"),
        ("Patient?_summary=data&_elements=name", "_elements 'name' was left out: of _summary and _elements the first counts"),
        ("Patient?_has=x", "_has 'x' was left out: write _has:[type]:[reference]:[parameter]=[value], such as _has:Observation:patient:code=1234-5"),
        ("Patient?_contained=both&_containedType=contained", ""),
        ("Patient?_include=Patient:organization&_include=Patient:link&_pretty=true&_count=1", ""),
    ] {
        assert_eq!(left_out(&fhir, query), said, "{query}");
        let strict = fhir.send("GET", &format!("/{query}"), &[("prefer", "handling=strict")], b"");
        assert_eq!(strict.status, if said.is_empty() { 200 } else { 400 }, "{query}");
    }
    assert_eq!(fhir.ids("/Patient?_count=1&_count=2").len(), 1);
    // What cannot be read as it came is refused, not repaired.
    for (query, said) in [
        ("name=50%", "the percent sign at position 7 is not followed by two hexadecimal digits; write %25"),
        ("name=%zz", "the percent sign at position 5"),
        ("name=%ff", "'name=%ff' in the query is not UTF-8"),
        ("_cursor=2999_01_01_00_00_00_000.0", "is of an event that is yet to come"),
    ] {
        assert!(fhir.get(&format!("/Patient?{query}")).expect(400).refusal().contains(said), "{query}");
    }
    assert!(
        fhir.send("POST", "/Patient/_search", &[("content-type", "application/x-www-form-urlencoded")], b"name=%ff").expect(400).refusal().contains("UTF-8")
    );
    // A read has nowhere to say it but under strict.
    let id = fhir.ids("/Patient?_count=1").remove(0);
    let strict = |path: &str| fhir.send("GET", &format!("/Patient/{id}{path}"), &[("prefer", "handling=strict")], b"");
    assert!(strict("?name=x").expect(400).refusal().contains("unknown parameter 'name'; known here: _format, _pretty, _summary, _elements"));
    strict("?_elements=name&_pretty=true").expect(200);
    fhir.get(&format!("/Patient/{id}?name=x")).expect(200);
    let refused = fhir.get("/?_type=NamingSystem,Group&value:exact=a").expect(400).refusal();
    assert!(refused.contains("modifier 'exact' is not supported for the token parameter 'value'"), "{refused}");
    server.client().put("/api/sims/a__old", &json!({"fhirVersion": "STU3"})).expect(201);
    let said = left_out(&server.fhir("a__old"), "Location?near-distance=5");
    assert_eq!(said, "near-distance '5' was left out: it is the distance of 'near', which is not there");
}

/// Every text begins with nothing: such a value would find, and a conditional delete would delete, whatever is there.
#[test]
fn a_text_of_lone_accents_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "name": [{"family": "House"}]})).expect(201);
    for value in ["%CC%88", "House,%CC%88"] {
        for query in [format!("family={value}"), format!("family:contains={value}"), format!("_has:Patient:link:family={value}")] {
            let refused = fhir.get(&format!("/Patient?{query}")).expect(400).refusal();
            assert!(refused.contains("only blanks or accents"), "{query}: {refused}");
            fhir.send("DELETE", &format!("/Patient?{query}"), &[], b"").expect(400);
        }
    }
    fhir.get("/Patient?_filter=family%20sw%20%22%20%22").expect(400);
    fhir.get("/Patient/p").expect(200);
}

#[test]
fn contained_resources_are_counted_each_for_itself() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let doctor = |id: &str, family: &str| json!({"resourceType": "Practitioner", "id": id, "name": [{"family": family}]});
    let patient = json!({"resourceType": "Patient", "id": "p", "contained": [doctor("a", "House"), doctor("b", "House"), doctor("c", "Wilson")]});
    fhir.put("/Patient/p", &patient).expect(201);
    fhir.put("/Practitioner/d", &doctor("d", "House")).expect(201);
    let by_type = |more: &str| fhir.get(&format!("/Practitioner?family=house&_containedType=contained{more}")).expect(200).json();
    for when in ["recent", "committed"] {
        assert_eq!((by_type("&_contained=true")["total"].clone(), by_type("&_contained=both")["total"].clone()), (json!(2), json!(3)), "{when}");
        assert_eq!(by_type("&_contained=both&_summary=count")["total"], 3, "{when}");
        let mut seen = Vec::new();
        let mut page = by_type("&_contained=both&_count=1");
        loop {
            seen.push(page["entry"][0]["fullUrl"].as_str().unwrap().split("/fhir/").nth(1).unwrap().to_owned());
            assert_eq!((page["total"].clone(), page["entry"].as_array().unwrap().len()), (json!(3), 1), "{when}");
            let Some(next) = crate::support::link(&page, "next") else { break };
            page = fhir.get(next.split("/fhir").nth(1).unwrap()).expect(200).json();
        }
        seen.sort();
        assert_eq!(seen, ["Patient/p#a", "Patient/p#b", "Practitioner/d"], "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

#[test]
fn explaining_shows_what_refers_here_and_which_words_decide() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let why = |query: &str| {
        let path = format!("/api/sims/a__b/explain?resource=Patient/p2&query={}", query.replace('&', "%26").replace('=', "%3D"));
        server.client().get(&path).expect(200).json()["parameters"][0].clone()
    };
    let has = why("Patient?_has:Observation:patient:code=8480-6");
    assert_eq!(has["matches"], true);
    let mut shown: Vec<String> = has["values"].as_array().unwrap().iter().map(|v| format!("{} {}", v["path"].as_str().unwrap(), v["matches"])).collect();
    shown.sort();
    assert_eq!(shown, ["Observation/b2 false", "Observation/b3 true"]);
    let content = why("Patient?_content=bob");
    assert_eq!(content["values"][0], json!({"path": "Patient.name[0].given[0]", "value": "Bob", "matches": true}));
}

/// What is less than five is not five.
#[test]
fn comparators_of_stored_quantities_exclude_their_number() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, comparator) in [("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")] {
        let value = json!({"value": 5, "comparator": comparator, "system": "http://unitsofmeasure.org", "code": "mg"});
        fhir.put(
            &format!("/Observation/{id}"),
            &json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "valueQuantity": value}),
        )
        .expect(201);
    }
    for unit in ["", "|http://unitsofmeasure.org|mg"] {
        for (query, expected) in [("ge5", "ge gt le"), ("gt5", "ge gt"), ("le5", "ge le lt"), ("lt5", "le lt"), ("sa5", "gt"), ("eb5", "lt"), ("5", "")] {
            assert_eq!(fhir.ids(&format!("/Observation?value-quantity={query}{unit}&_sort=_id")).join(" "), expected, "{query}{unit}");
        }
    }
    assert_eq!(fhir.ids("/Observation?value-quantity=ge0.005|http://unitsofmeasure.org|g&_sort=_id"), ["ge", "gt", "le"]);
}

#[test]
fn a_chain_leads_into_the_composition_of_a_document() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let composition = json!({"resourceType": "Composition", "id": "1", "status": "final", "title": "Discharge", "date": "2020"});
    let document =
        json!({"resourceType": "Bundle", "id": "d", "type": "document", "entry": [{"fullUrl": "http://x/fhir/Composition/1", "resource": composition}]});
    fhir.put("/Bundle/d", &document).expect(201);
    for when in ["recent", "committed"] {
        assert_eq!(fhir.ids("/Bundle?composition.title=Dis"), ["d"], "{when}");
        assert_eq!(fhir.ids("/Bundle?composition.title=Adm"), Vec::<String>::new(), "{when}");
        assert_eq!(fhir.ids("/Bundle?composition.date=2020&composition.status=final"), ["d"], "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

/// A term holds the beginning of a long text only.
#[test]
fn a_long_text_is_compared_whole() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let long = "q".repeat(2_000);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "name": [{"family": format!("{long}A")}]})).expect(201);
    let ask = |family: &str| {
        let reply = fhir.send("POST", "/Patient/_search", &[("content-type", "application/x-www-form-urlencoded")], format!("family={family}").as_bytes());
        reply.expect(200).json()["total"].as_u64().unwrap()
    };
    for when in ["recent", "committed"] {
        assert_eq!((ask(&long[..1_000]), ask(&format!("{long}a")), ask(&format!("{}b", &long[..1_000])), ask(&format!("{long}b"))), (1, 1, 0, 0), "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

#[test]
fn contained_matches_are_explained_as_they_are_found() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let code = json!({"coding": [{"code": "asp"}]});
    let request = json!({"resourceType": "MedicationRequest", "id": "m1", "status": "active", "intent": "order", "subject": {"reference": "Patient/p"},
        "contained": [{"resourceType": "Medication", "id": "other", "code": {"coding": [{"code": "x"}]}}, {"resourceType": "Medication", "id": "med", "code": code}]});
    fhir.put("/MedicationRequest/m1", &request).expect(201);
    fhir.put("/Medication/real", &json!({"resourceType": "Medication", "id": "real", "code": code})).expect(201);
    let explain = |query: &str, resource: &str| {
        let query = query.replace('?', "%3F").replace('=', "%3D").replace('&', "%26");
        let said = server.client().get(&format!("/api/sims/a__b/explain?query={query}&resource={resource}")).expect(200).json();
        (said["resource"].as_str().unwrap().to_owned(), said["matches"].as_bool().unwrap())
    };
    for (contained, inside, itself) in [("true", true, false), ("both", true, true), ("false", false, true)] {
        let query = format!("Medication?code=asp&_contained={contained}");
        let found = fhir.ids(&format!("/{query}"));
        assert_eq!((found.contains(&"m1".to_owned()), found.contains(&"real".to_owned())), (inside, itself), "{contained}");
        assert_eq!(explain(&query, "MedicationRequest/m1").1, inside, "{contained}");
        assert_eq!(explain(&query, "Medication/real").1, itself, "{contained}");
    }
    assert_eq!(explain("Medication?code=asp&_contained=true", "MedicationRequest/m1").0, "MedicationRequest/m1#med");
    let page = fhir.get("/Medication?code=asp&_contained=true&_explain=true").expect(200).text().to_owned();
    assert!(page.contains("MedicationRequest/m1#med: code=asp matches"), "{page}");
}

#[test]
fn what_is_asked_beside_a_search_does_not_change_what_it_finds() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let url = "http://hl7.org/fhir/SearchParameter/individual-gender";
    for more in ["", "&_count=0", "&_summary=count", "&_elements=url"] {
        assert_eq!(fhir.get(&format!("/SearchParameter?url={url}{more}")).json()["total"], 1, "{more}");
    }
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "multipleBirthInteger": 2, "active": true})).expect(201);
    let shown = fhir.get("/Patient?_elements=multipleBirth[x]").expect(200).json()["entry"][0]["resource"].clone();
    assert_eq!((&shown["multipleBirthInteger"], shown.get("active")), (&json!(2), None));
    let read = fhir.get("/Patient/p?_elements=multipleBirth[x]").expect(200).json();
    assert_eq!((&read["multipleBirthInteger"], read.get("active")), (&json!(2), None));
    // The link of a page means the search that it was made for.
    let parameter = json!({"resourceType": "SearchParameter", "id": "on", "url": "http://x/on", "name": "on", "status": "active", "description": "on", "code": "on",
        "base": ["Patient"], "type": "token", "expression": "Patient.active"});
    fhir.put("/SearchParameter/on", &parameter).expect(201);
    fhir.put("/Patient/q", &json!({"resourceType": "Patient", "id": "q", "active": true})).expect(201);
    let page = fhir.get("/Patient?on=true&_count=1").expect(200).json();
    let next =
        page["link"].as_array().unwrap().iter().find(|l| l["relation"] == "next").unwrap()["url"].as_str().unwrap().split("/fhir").nth(1).unwrap().to_owned();
    fhir.get(&next).expect(200);
    // What was left out is in no link; what a client adds to each is no surprise.
    for (asked, executed, added) in [
        ("_elements=active,nope", "_elements=active&", ""),
        ("_sort=-active,nope", "_sort=-active&", ""),
        ("_elements=nope&active=true", "?active=true&", ""),
        ("_format=json", "_format=json&", "&_format=json"),
    ] {
        let page = fhir.get(&format!("/Patient?{asked}&_count=1")).expect(200).json();
        let next = crate::support::link(&page, "next").unwrap().split("/fhir").nth(1).unwrap().to_owned();
        assert!(next.contains(executed) && !next.contains("nope"), "{next}");
        let second = fhir.get(&format!("{next}{added}")).expect(200).json();
        assert_ne!(second["entry"][0]["resource"]["id"], page["entry"][0]["resource"]["id"], "{asked}");
        assert_eq!(crate::support::link(&second, "next"), None);
    }
    fhir.delete("/SearchParameter/on").expect(204);
    assert!(fhir.get(&next).expect(400).refusal().contains("search again from the first page"));
}

#[test]
fn a_value_that_cannot_be_meant_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (query, expected) in
        [("Patient?identifier=%7C", "'identifier'"), ("Condition?asserter:below=Patient/1", "'below' is not supported for the reference parameter 'asserter'")]
    {
        let reply = fhir.get(&format!("/{query}")).expect(400);
        assert!(reply.refusal().contains(expected), "{query}: {}", reply.refusal());
    }
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true})).expect(201);
    for query in ["Patient?active=true", "Patient?active:not=false", "Patient?active=%7Ctrue", "Patient?active:missing=false"] {
        assert_eq!(fhir.ids(&format!("/{query}")), ["p"], "{query}");
    }
    // No code that nobody has is an error; it is said.
    for query in ["Patient?active=bogus", "Patient?deceased:not=no", "Patient?active=s%7Ctrue"] {
        let said = fhir.get(&format!("/{query}")).expect(200).json();
        let note = said["entry"].as_array().unwrap().last().unwrap();
        assert_eq!(note["search"]["mode"], "outcome", "{query}");
        assert!(note.to_string().contains("is true or false; nothing is '"), "{query}: {note}");
    }
    let modifiers = |id: &str| fhir.get(&format!("/SearchParameter/{id}")).expect(200).json()["modifier"].to_string();
    assert!(modifiers("Location-partof").contains("\"below\""));
    assert!(!modifiers("Condition-asserter").contains("\"below\""));
}

/// Of every reference parameter of a version, what its definition declares works and nothing else does.
#[test]
fn hierarchies_are_declared_where_they_are() {
    let server = TestServer::start();
    for version in ["STU3", "R4", "R4B", "R5"] {
        let sim = format!("h__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        let statement = fhir.get("/metadata").expect(200).json();
        let mut looked_at = 0;
        for resource in statement["rest"][0]["resource"].as_array().unwrap() {
            let type_name = resource["type"].as_str().unwrap();
            for param in resource["searchParam"].as_array().into_iter().flatten().filter(|p| p["type"] == "reference").step_by(9) {
                let (name, url) = (param["name"].as_str().unwrap(), param["definition"].as_str().unwrap());
                let found = fhir.get(&format!("/SearchParameter?url={url}")).json();
                let Some(definition) = found["entry"].as_array().map(|e| e[0]["resource"].clone()) else { continue };
                let declared = |modifier: &str| definition["modifier"].as_array().is_some_and(|all| all.iter().any(|m| m == modifier));
                let works = |modifier: &str| {
                    ["Organization/1", "Location/1", "Encounter/1", "http://x.org/a|1"]
                        .iter()
                        .any(|value| fhir.get(&format!("/{type_name}?{name}:{modifier}={value}")).status == 200)
                };
                for modifier in ["above", "below"] {
                    // A shared definition may be of a type that has it while another has not.
                    if definition["base"].as_array().is_some_and(|b| b.len() == 1) {
                        assert_eq!(declared(modifier), works(modifier), "{version} {type_name}.{name}:{modifier} {definition}");
                        looked_at += 1;
                    }
                }
            }
        }
        assert!(looked_at > 20, "{version}: {looked_at}");
    }
    // What may be either is followed as what it is asked for.
    let fhir = server.fhir("h__stu3");
    fhir.put("/Organization/o1", &json!({"resourceType": "Organization", "id": "o1"})).expect(201);
    fhir.put("/Organization/o2", &json!({"resourceType": "Organization", "id": "o2", "partOf": {"reference": "Organization/o1"}})).expect(201);
    let agent = json!([{"whoReference": {"reference": "Organization/o2"}}]);
    fhir.put("/Provenance/p", &json!({"resourceType": "Provenance", "id": "p", "target": [{"reference": "Organization/o1"}], "agent": agent})).expect(201);
    assert_eq!(fhir.ids("/Provenance?agent:below=Organization/o1"), ["p"]);
    assert_eq!(fhir.ids("/Provenance?agent:above=Organization/o2"), ["p"]);
    fhir.put("/Encounter/e", &json!({"resourceType": "Encounter", "id": "e", "status": "finished", "length": {"value": 5, "unit": "min"}})).expect(201);
    assert_eq!(fhir.ids("/Encounter?length=gt4"), ["e"]);
}
