//! Rules of search that are easily missed.

use serde_json::{Value, json};

use crate::support::{Client, TestServer};

/// The ids of what a search finds, sorted, without what is included.
fn matches(fhir: &Client, query: &str) -> Vec<String> {
    let mut found = fhir.ids(&format!("/{query}"));
    found.sort();
    found
}

#[test]
fn a_canonical_may_look_like_a_resource_here() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let url = format!("{}/Questionnaire/canon", fhir.base());
    fhir.put("/Questionnaire/q", &json!({"resourceType": "Questionnaire", "id": "q", "url": url, "version": "1", "title": "T", "status": "active"}))
        .expect(201);
    for (id, questionnaire) in [("r0", url.clone()), ("r1", format!("{url}|1"))] {
        let response = json!({"resourceType": "QuestionnaireResponse", "id": id, "status": "completed", "questionnaire": questionnaire});
        fhir.put(&format!("/QuestionnaireResponse/{id}"), &response).expect(201);
    }
    let both = ["r0", "r1"];
    assert_eq!(matches(&fhir, "QuestionnaireResponse?questionnaire.title=T"), both);
    assert_eq!(matches(&fhir, &format!("QuestionnaireResponse?questionnaire={url}")), both);
    assert_eq!(matches(&fhir, &format!("QuestionnaireResponse?questionnaire={url}%7C1")), ["r1"]);
    assert_eq!(matches(&fhir, &format!("QuestionnaireResponse?questionnaire:below={url}")), both);
    assert_eq!(matches(&fhir, "Questionnaire?_has:QuestionnaireResponse:questionnaire:status=completed"), ["q"]);
    let included = fhir.get("/QuestionnaireResponse?_include=QuestionnaireResponse:questionnaire").json();
    assert_eq!(included["entry"][2]["resource"]["id"], "q", "{included}");
    let included = fhir.get("/Questionnaire?_revinclude=QuestionnaireResponse:questionnaire").json();
    assert_eq!(included["entry"].as_array().unwrap().len(), 3, "{included}");
    // Of a resource that is here, its id counts, too.
    fhir.put("/Questionnaire/canon", &json!({"resourceType": "Questionnaire", "id": "canon", "title": "By id", "status": "active"})).expect(201);
    assert_eq!(matches(&fhir, "QuestionnaireResponse?questionnaire.title=By"), ["r0"]);

    let set = format!("{}/ValueSet/mine", fhir.base());
    let compose = json!({"include": [{"system": "http://x", "concept": [{"code": "a"}]}]});
    fhir.put("/ValueSet/vs", &json!({"resourceType": "ValueSet", "id": "vs", "url": set, "status": "active", "compose": compose})).expect(201);
    coded(&fhir, "o", "http://x", "a");
    assert_eq!(matches(&fhir, &format!("Observation?code:in={set}")), ["o"]);
}

fn coded(fhir: &Client, id: &str, system: &str, code: &str) {
    let observation = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"coding": [{"system": system, "code": code}]}});
    fhir.put(&format!("/Observation/{id}"), &observation).expect(201);
}

fn value_set(fhir: &Client, id: &str, include: &Value) {
    let set = json!({"resourceType": "ValueSet", "id": id, "url": format!("http://vs/{id}"), "status": "active", "compose": {"include": [include]}});
    fhir.put(&format!("/ValueSet/{id}"), &set).expect(201);
}

#[test]
fn a_value_set_means_the_version_and_the_codes_that_it_says() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, version, concepts) in
        [("c1", "1", json!([{"code": "OLD"}])), ("c2", "2", json!([{"code": "A", "concept": [{"code": "A1", "concept": [{"code": "A11"}]}]}]))]
    {
        let system = json!({"resourceType": "CodeSystem", "id": id, "url": "http://cs", "version": version, "status": "active", "content": "complete", "concept": concepts});
        fhir.put(&format!("/CodeSystem/{id}"), &system).expect(201);
    }
    for code in ["OLD", "A", "A1", "A11", "ZZ"] {
        coded(&fhir, &code.to_lowercase(), "http://cs", code);
    }
    value_set(&fhir, "future", &json!({"system": "http://cs", "version": "3"}));
    value_set(&fhir, "elsewhere", &json!({"system": "http://unheard", "version": "3"}));
    value_set(&fhir, "old", &json!({"system": "http://cs", "version": "1"}));
    value_set(&fhir, "new", &json!({"system": "http://cs"}));
    value_set(&fhir, "parent", &json!({"system": "http://cs", "filter": [{"property": "parent", "op": "=", "value": "A"}]}));
    value_set(&fhir, "child", &json!({"system": "http://cs", "filter": [{"property": "child", "op": "=", "value": "A11"}]}));
    value_set(&fhir, "none", &json!({"system": "http://cs", "filter": [{"property": "concept", "op": "is-a", "value": "ZZ"}]}));
    let is_in = |set: &str| matches(&fhir, &format!("Observation?code:in=http://vs/{set}"));
    assert_eq!(is_in("old"), ["old"]);
    assert_eq!(is_in("new"), ["a", "a1", "a11"]);
    assert_eq!(is_in("parent"), ["a1"]);
    assert_eq!(is_in("child"), ["a1"]);
    assert!(is_in("elsewhere").is_empty());
    let refused = fhir.get("/Observation?code:in=http://vs/future").expect(400).refusal();
    assert!(refused.contains("http://cs|3"), "{refused}");
    let refused = fhir.get("/Observation?code:in=http://vs/none").expect(400).refusal();
    assert!(refused.contains("'ZZ'") && refused.contains("http://vs/none"), "{refused}");
}

#[test]
fn media_types_are_below_what_begins_them() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, media_type) in [("d1", "text/xml"), ("d2", "text/xml; charset=UTF-8"), ("d3", "text/xml-external"), ("d4", "image/png")] {
        let content = json!([{"attachment": {"contentType": media_type, "url": "http://x"}}]);
        fhir.put(&format!("/DocumentReference/{id}"), &json!({"resourceType": "DocumentReference", "id": id, "status": "current", "content": content}))
            .expect(201);
    }
    assert_eq!(matches(&fhir, "DocumentReference?contenttype:below=text/xml"), ["d1", "d2"]);
    assert_eq!(matches(&fhir, "DocumentReference?contenttype:below=text"), ["d1", "d2", "d3"]);
    assert_eq!(matches(&fhir, "DocumentReference?contenttype=text/xml"), ["d1"]);
}

#[test]
fn a_string_that_is_a_token_has_no_case() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/ValueSet/v", &json!({"resourceType": "ValueSet", "id": "v", "url": "http://v", "version": "Va1", "status": "active"})).expect(201);
    coded(&fhir, "o", "http://x", "A");
    for (query, found) in [
        ("ValueSet?version=va1", true),
        ("ValueSet?version=Va1", true),
        ("ValueSet?version:not=vA1", false),
        ("ValueSet?version=va", false),
        ("ValueSet?_filter=version ne \"VA1\"", false),
        ("ValueSet?url=http://v%7CVa1", true),
        ("ValueSet?url=http://v%7C2", false),
        ("Observation?code=a", false),
        ("Observation?_filter=code eq \"\\u0041\"", true),
    ] {
        assert_eq!(matches(&fhir, &query.replace(' ', "%20").replace('"', "%22").replace('\\', "%5C")).len(), usize::from(found), "{query}");
    }
    let refused = fhir.get("/Observation?_filter=code%20eq%20%22%5Cx%22").expect(400).refusal();
    assert!(refused.contains("JSON string"), "{refused}");
}

#[test]
fn a_comma_in_a_condition_on_words_is_an_or() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Basic/b", &json!({"resourceType": "Basic", "id": "b", "code": {"text": "severe, chronic"}})).expect(201);
    for (query, found) in [
        ("zzz,chronic", true),
        ("zzz,yyy", false),
        ("%22severe, chronic%22", true),
        ("%22chronic, severe%22", false),
        ("%22chronic, severe%22,severe", true),
        ("zzz,%22severe, chronic%22", true),
        ("zzz%5C,chronic", false),
    ] {
        assert_eq!(matches(&fhir, &format!("Basic?_content={}", query.replace(' ', "%20"))).len(), usize::from(found), "{query}");
    }
}

#[test]
fn parameters_that_no_expression_evaluates_have_definitions_too() {
    let server = TestServer::start();
    for (version, defined) in [("STU3", 2), ("R4", 2), ("R4B", 6), ("R5", 7)] {
        let sim = format!("a__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        let metadata = fhir.get("/metadata").expect(200).json();
        let special = ["_text", "_content", "_filter", "_has", "_list", "_type", "_in"];
        let of_all = metadata["rest"][0]["searchParam"].as_array().unwrap().iter();
        let found: Vec<&Value> = of_all.filter(|p| special.contains(&p["name"].as_str().unwrap()) && !p["definition"].is_null()).collect();
        assert_eq!(found.len(), defined, "{version}");
        for param in found {
            let url = param["definition"].as_str().unwrap();
            let definition = fhir.get(&format!("/SearchParameter?url={url}")).expect(200).json()["entry"][0]["resource"].clone();
            assert_eq!((&definition["code"], &definition["type"]), (&param["name"], &param["type"]), "{version} {url}");
            fhir.get(&format!("/SearchParameter/{}", url.rsplit('/').next().unwrap())).expect(200);
        }
    }
}

#[test]
fn what_is_contained_leads_to_what_is_contained_beside_it() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let contained = |name: &str| {
        json!([{"resourceType": "Patient", "id": "pat", "name": [{"family": "Con"}], "managingOrganization": {"reference": "#org"}},
            {"resourceType": "Organization", "id": "org", "name": name, "partOf": {"reference": "#top"}}, {"resourceType": "Organization", "id": "top", "name": "Top"}])
    };
    for (id, name) in [("a", "Inner"), ("b", "Other")] {
        let observation = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"}, "subject": {"reference": "#pat"}, "contained": contained(name)});
        fhir.put(&format!("/Observation/{id}"), &observation).expect(201);
    }
    for when in ["recent", "committed"] {
        assert_eq!(fhir.ids("/Observation?subject:Patient.organization.name=inner"), ["a"], "{when}");
        assert_eq!(fhir.ids("/Observation?subject:Patient.organization.partof.name=top&_sort=_id"), ["a", "b"], "{when}");
        assert_eq!(fhir.ids("/Observation?_filter=subject:Patient.organization.name+eq+%22Other%22"), ["b"], "{when}");
        assert_eq!(fhir.ids("/Patient?_contained=true&organization.name=inner"), ["a"], "{when}");
        assert_eq!(fhir.get("/Observation?subject:Patient.organization.name=nobody").json()["total"], 0, "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

#[test]
fn an_own_composite_finds_what_is_contained() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let part =
        |definition: &str, expression: &str| json!({"definition": format!("http://hl7.org/fhir/SearchParameter/{definition}"), "expression": expression});
    let composite = json!({"resourceType": "SearchParameter", "id": "mc", "url": "http://x/mc", "name": "mc", "status": "active", "description": "x", "code": "mc",
        "base": ["Observation"], "type": "composite", "expression": "Observation.component",
        "component": [part("Observation-component-code", "code"), part("Observation-component-value-quantity", "value.ofType(Quantity)")]});
    fhir.put("/SearchParameter/mc", &composite).expect(201);
    let component = json!([{"code": {"coding": [{"system": "http://x", "code": "k"}]}, "valueQuantity": {"value": 1}}]);
    let inner = json!({"resourceType": "Observation", "id": "i", "status": "final", "code": {"text": "c"}, "component": component});
    let report =
        json!({"resourceType": "DiagnosticReport", "id": "d", "status": "final", "code": {"text": "r"}, "contained": [inner], "result": [{"reference": "#i"}]});
    fhir.put("/DiagnosticReport/d", &report).expect(201);
    assert_eq!(matches(&fhir, "Observation?_contained=true&mc=k$1"), ["d"]);
    assert!(matches(&fhir, "Observation?_contained=true&mc=k$2").is_empty());
    // What is returned by itself is cut down as others are.
    let alone = fhir.get("/Observation?_contained=true&_containedType=contained&code:text=c&_elements=status").json();
    let resource = &alone["entry"][0]["resource"];
    assert_eq!((&resource["status"], &resource["component"]), (&json!("final"), &Value::Null), "{alone}");
}

#[test]
fn what_does_not_go_together_is_said_and_so_is_what_is_of_another_version() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": "Organization/o"}})).expect(201);
    fhir.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o"})).expect(201);
    let query = "/Patient?_summary=text&_include=Patient:organization";
    let reply = fhir.get(query).expect(200).json();
    let modes: Vec<&Value> = reply["entry"].as_array().unwrap().iter().map(|e| &e["search"]["mode"]).collect();
    assert_eq!(modes, ["match", "outcome"]);
    assert!(!reply["link"][0]["url"].as_str().unwrap().contains("_include"), "{reply}");
    let refused = fhir.send("GET", query, &[("prefer", "handling=strict")], b"").expect(400).refusal();
    assert!(refused.contains("_summary=text"), "{refused}");

    server.client().put("/api/sims/a__three", &json!({"fhirVersion": "STU3"})).expect(201);
    let stu3 = server.fhir("a__three");
    for (fhir, known, unknown) in [(&fhir, "iterate", "recurse"), (&stu3, "recurse", "iterate")] {
        fhir.get(&format!("/Patient?_include:{known}=Patient:organization")).expect(200);
        let refused = fhir.get(&format!("/Patient?_include:{unknown}=Patient:organization")).expect(400).refusal();
        assert!(refused.contains(known) && refused.contains(unknown), "{refused}");
    }
    for (query, named) in [("Patient?_has:Foo:subject:code=1", "_has:Foo"), ("Observation?subject:Foo.name=x", "'subject:Foo'")] {
        let refused = fhir.get(&format!("/{query}")).expect(400).refusal();
        assert!(refused.contains(named), "{refused}");
    }
}

#[test]
fn ranges_have_their_place_in_an_order() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let values = [
        ("none", Value::Null),
        ("five", json!({"value": 5})),
        ("over", json!({"value": 3, "comparator": ">="})),
        ("under", json!({"value": 4, "comparator": "<"})),
    ];
    for (id, value) in values {
        let mut observation = json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"text": "c"}});
        if !value.is_null() {
            observation["valueQuantity"] = value;
        }
        fhir.put(&format!("/Observation/{id}"), &observation).expect(201);
    }
    for when in ["recent", "committed"] {
        assert_eq!(fhir.ids("/Observation?_sort=value-quantity"), ["under", "over", "five", "none"], "{when}");
        assert_eq!(fhir.ids("/Observation?_sort=-value-quantity"), ["five", "over", "under", "none"], "{when}");
        assert_eq!(fhir.ids("/Observation?_sort=value-quantity&_count=4"), ["under", "over", "five", "none"], "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}
