//! Search parameters of a simulator's own.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, ids};

fn parameter(expression: &str) -> Value {
    json!({"resourceType": "SearchParameter", "id": "eye", "url": "http://x/SearchParameter/eye", "name": "eye", "status": "active",
        "description": "eyes", "code": "eye", "base": ["Patient"], "type": "token", "expression": expression})
}

fn patients(fhir: &Client, count: usize) {
    let entries: Vec<Value> = (0..count)
        .map(|n| {
            let colour = if n % 2 == 0 { "blue" } else { "brown" };
            json!({"request": {"method": "PUT", "url": format!("Patient/{n}")}, "resource": {"resourceType": "Patient", "id": n.to_string(),
                "extension": [{"url": "http://x/eye", "valueCode": colour}]}})
        })
        .collect();
    fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
}

/// The total of a search, or none if the parameter is unknown.
fn total(fhir: &Client, query: &str) -> Option<u64> {
    let reply = fhir.send("GET", &format!("/{query}"), &[("prefer", "handling=strict")], b"");
    (reply.status == 200).then(|| reply.json()["total"].as_u64().unwrap())
}

/// Waits for the indexing to end.
fn wait(server: &TestServer) {
    let begun = std::time::Instant::now();
    while server.client().get("/api/sims/a__b").json().get("reindexing").is_some() {
        assert!(begun.elapsed().as_secs() < 120, "the indexing does not end");
    }
}

#[test]
fn a_parameter_comes_and_goes() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    patients(&fhir, 20);
    assert_eq!(total(&fhir, "Patient?eye=blue"), None);
    fhir.put("/SearchParameter/eye", &parameter("Patient.extension('http://x/eye').value")).expect(201);
    // Few resources are indexed before the answer.
    assert_eq!(total(&fhir, "Patient?eye=blue"), Some(10));
    assert_eq!(total(&fhir, "Patient?eye:missing=true"), Some(0));
    assert_eq!(total(&fhir, "Patient?_sort=-eye&_count=0"), Some(20));
    patients(&fhir, 30);
    assert_eq!(total(&fhir, "Patient?eye=blue"), Some(15));
    let statement = fhir.get("/metadata").json();
    let of_patient = statement["rest"][0]["resource"].as_array().unwrap().iter().find(|r| r["type"] == "Patient").unwrap();
    let own = of_patient["searchParam"].as_array().unwrap().iter().find(|p| p["name"] == "eye").unwrap();
    assert_eq!((&own["definition"], &own["type"]), (&json!("http://x/SearchParameter/eye"), &json!("token")));
    // History is not changed by it.
    assert_eq!(fhir.get("/Patient/3/_history").json()["total"], 2);
    assert_eq!(fhir.get("/Patient/25/_history").json()["total"], 1);
    fhir.delete("/SearchParameter/eye").expect(204);
    assert_eq!(total(&fhir, "Patient?eye=blue"), None);
    fhir.put("/SearchParameter/eye", &json!({"resourceType": "SearchParameter", "id": "eye", "status": "draft"})).expect(201);
    assert_eq!(total(&fhir, "Patient?eye=blue"), None);
}

#[test]
fn many_resources_are_indexed_in_the_background_and_after_a_kill() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    patients(&fhir, 3_000);
    server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    fhir.put("/SearchParameter/eye", &parameter("Patient.extension('http://x/eye').value")).expect(201);
    // Killed at whatever point it is.
    server.kill();
    server.restart();
    let fhir = server.fhir("a__b");
    wait(&server);
    assert_eq!(total(&fhir, "Patient?eye=blue"), Some(1_500));
    // Written anew, each under its one version; a clean stop keeps what was indexed.
    assert_eq!(fhir.get("/Patient/7/_history").json()["total"], 1);
    server.stop();
    server.restart();
    let fhir = server.fhir("a__b");
    wait(&server);
    assert_eq!(total(&fhir, "Patient?eye=brown"), Some(1_500));
    assert_eq!(total(&fhir, "Patient?eye=brown&_id=7"), Some(1));
    // Another expression: gone at once, back when all is done.
    fhir.put("/SearchParameter/eye", &parameter("Patient.extension('http://x/other').value")).expect(200);
    wait(&server);
    assert_eq!(total(&fhir, "Patient?eye=brown"), Some(0));
    fhir.delete("/SearchParameter/eye").expect(204);
    wait(&server);
    assert_eq!(total(&fhir, "Patient?eye=brown"), None);
    assert_eq!(total(&fhir, "Patient"), Some(3_000));
}

#[test]
fn expressions_may_use_the_whole_language() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, given, birth) in [("1", "Ann", "1980-02-03"), ("2", "Bo", "1990"), ("3", "Cy", "2001-01-01")] {
        let patient = json!({"resourceType": "Patient", "id": id, "name": [{"given": [given], "family": "Fox"}], "birthDate": birth,
            "link": [{"other": {"reference": format!("Patient/{id}")}, "type": "seealso"}], "multipleBirthInteger": id.parse::<u8>().unwrap()});
        fhir.put(&format!("/Patient/{id}"), &patient).expect(201);
    }
    for (code, kind, expression, query, expected) in [
        ("initial", "string", "Patient.name.given.first().substring(0, 1)", "initial=b", "2"),
        ("full", "string", "Patient.name.select(given.first() & ' ' & family)", "full:exact=Cy%20Fox", "3"),
        ("old", "token", "Patient.birthDate < @1985-01-01", "old=true", "1"),
        ("short", "token", "Patient.name.given.where(length() <= 2).exists() or Patient.active", "short=true", "2 3"),
        ("nth", "number", "Patient.multipleBirth.ofType(integer) * 10", "nth=gt15", "2 3"),
        ("twin", "reference", "Patient.link.other.where(resolve() is Patient or resolve() is Group)", "twin=Patient/2", "2"),
    ] {
        let parameter = json!({"resourceType": "SearchParameter", "id": code, "url": format!("http://x/SearchParameter/{code}"), "name": code, "status": "active",
            "description": code, "code": code, "base": ["Patient"], "type": kind, "expression": expression});
        fhir.put(&format!("/SearchParameter/{code}"), &parameter).expect(201);
        let mut found = fhir.ids(&format!("/Patient?{query}"));
        found.sort();
        assert_eq!(found.join(" "), expected, "{expression}");
    }
    // The server must not go down with an expression.
    for expression in [
        "Patient.name.repeat($this)".to_owned(),
        "'a'".to_owned() + &".replace('a','aaaaaaaaaa')".repeat(9),
        "'a'".to_owned() + &".select($this & $this)".repeat(33),
        "Patient.name".to_owned() + &".where(given.where(period.where(start.where(id.where(length() > 1)))))".repeat(3),
        "(".repeat(5_000),
        format!("1 '{}m'", "(".repeat(1_500)),
        "Patient.name or".to_owned(),
        "Patient.name.given = 'unfinished".to_owned(),
        "%server.read('Patient/1')".to_owned(),
    ] {
        let mut broken = parameter("Patient.gender");
        broken["expression"] = expression.clone().into();
        let reply = fhir.put("/SearchParameter/eye", &broken);
        assert_eq!(reply.status, 422, "{expression}: {}", reply.text());
        assert!(reply.refusal().contains("at position"), "{}", reply.refusal());
    }
}

/// JSON keeps the extensions of a primitive beside it; FHIRPath knows of no difference.
#[test]
fn a_parameter_may_look_at_the_extensions_of_a_primitive() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let extension = |value: &str| json!({"extension": [{"url": "http://x/why", "valueCode": value}]});
    let with = json!({"resourceType": "Patient", "id": "with", "birthDate": "1980", "_birthDate": extension("asked"), "name": [{"given": ["A", "B"], "_given": [null, extension("old")]}]});
    let without = json!({"resourceType": "Patient", "id": "without", "_birthDate": extension("unknown"), "name": [{"given": ["A"]}]});
    fhir.put("/Patient/with", &with).expect(201);
    fhir.put("/Patient/without", &without).expect(201);
    for (code, expression, asked, expected) in [
        ("whya", "Patient.birthDate.extension('http://x/why').value", "asked,unknown", "with without"),
        ("whyb", "Patient.birthDate.extension.where(url='http://x/why').value", "asked", "with"),
        ("whyc", "Patient.birthDate.extension.where(url.endsWith('why')).value", "asked", "with"),
        ("whyd", "Patient.name.given.extension.value.ofType(code)", "old", "with"),
        ("whyf", "Patient.name.given.where(extension.exists())", "b,B", "with"),
    ] {
        let mut own = parameter(expression);
        own["code"] = json!(code);
        own["url"] = json!(format!("http://x/{code}"));
        fhir.put("/SearchParameter/eye", &own);
        assert_eq!(fhir.ids(&format!("/Patient?{code}={asked}&_sort=_id")).join(" "), expected, "{expression}");
    }
    // A primitive without a value is no value to be found by.
    assert_eq!(fhir.ids("/Patient?birthdate:missing=true"), ["without"]);
    let explained = server.client().get("/api/sims/a__b/indexed/Patient/with").json().to_string();
    assert!(explained.contains("Patient.name[0].given[1]"), "{explained}");
}

#[test]
fn a_parameter_that_goes_while_it_is_indexed_stays_away() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    patients(&fhir, 2_000);
    fhir.put("/SearchParameter/eye", &parameter("Patient.extension('http://x/eye').value")).expect(201);
    fhir.delete("/SearchParameter/eye").expect(204);
    wait(&server);
    assert_eq!(total(&fhir, "Patient?eye=blue"), None);
    // Two at once: both arrive.
    let mut other = parameter("Patient.extension('http://x/eye').value");
    other["id"] = "iris".into();
    other["code"] = "iris".into();
    other["url"] = "http://x/SearchParameter/iris".into();
    fhir.put("/SearchParameter/eye", &parameter("Patient.extension('http://x/eye').value")).expect(201);
    fhir.put("/SearchParameter/iris", &other).expect(201);
    wait(&server);
    assert_eq!((total(&fhir, "Patient?eye=blue"), total(&fhir, "Patient?iris=brown")), (Some(1_000), Some(1_000)));
    // A name that the specification has keeps the specification's meaning.
    let mut restated = parameter("Patient.extension('http://x/eye').value");
    restated["id"] = "gender".into();
    restated["code"] = "gender".into();
    fhir.put("/SearchParameter/gender", &restated).expect(201);
    wait(&server);
    assert_eq!(total(&fhir, "Patient?gender=blue"), Some(0));
}

#[test]
fn what_cannot_be_searched_by_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (member, value, expected) in [
        ("expression", json!("Patient.name.where("), "position"),
        ("expression", json!("Patient.nmae.family"), "names no element of Patient at position 8"),
        ("expression", json!("Patient.name.family | Patient.foo"), "names no element of Patient at position 30"),
        ("expression", json!("Patient.name.where(foo = 'x').family"), "names no element of Patient at position 19"),
        ("type", json!("date"), "SearchParameter.expression 'Patient.gender' gives code"),
        ("expression", json!("Patient.deceased.ofType(Quantity)"), "names no element of Patient"),
        ("code", json!("_text"), "SearchParameter.code '_text' is a parameter of every search"),
        ("code", json!("a:b"), "SearchParameter.code is 'a:b'"),
        ("code", json!("_count"), "SearchParameter.code '_count' is a parameter of every search"),
        ("base", json!(["Pateint"]), "did you mean 'Patient'?"),
        ("type", json!("special"), "SearchParameter.type is 'special'"),
        ("expression", json!("Patient.deceasedDateTime"), "'deceasedDateTime' is its name in JSON: in FHIRPath it is deceased.ofType(dateTime)"),
        ("expression", json!("Patient.extension('http://x/e').valueCodeableConcept"), "in FHIRPath it is value.ofType(CodeableConcept)"),
        ("expression", json!("Patient.gender | Patient.deceasedBoolean"), "in FHIRPath it is deceased.ofType(boolean)"),
        ("expression", Value::Null, "SearchParameter.expression is missing"),
    ] {
        let mut broken = parameter("Patient.gender");
        broken[member] = value;
        let reply = fhir.put("/SearchParameter/eye", &broken).expect(422);
        assert!(reply.refusal().contains(expected), "{}", reply.refusal());
        assert_eq!(reply.json()["issue"][0]["expression"], json!([format!("SearchParameter.{member}")]));
        let validated = fhir.post("/SearchParameter/$validate", &broken).expect(200).json().to_string();
        assert!(validated.contains(expected), "{validated}");
    }
    fhir.get("/SearchParameter/eye").expect(404);
    // The specification's own may be stored, and change nothing.
    let mut own = fhir.get("/SearchParameter/Patient-active").json();
    assert_eq!((&own["code"], &own["url"]), (&json!("active"), &json!("http://hl7.org/fhir/SearchParameter/Patient-active")));
    own["description"] = "mine".into();
    fhir.put("/SearchParameter/Patient-active", &own).expect(201);
    assert_eq!(fhir.get("/SearchParameter/Patient-active").json()["description"], "mine");
    assert_eq!(ids(&fhir.get("/SearchParameter?url=http://hl7.org/fhir/SearchParameter/Patient-link").json()), ["Patient-link"]);
}

#[test]
fn values_are_found_as_json_has_them() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"fhirVersion": "R5"})).expect(201);
    let fhir = server.fhir("a__b");
    let own = |code: &str, kind: &str, base: &str, expression: &str| {
        json!({"resourceType": "SearchParameter", "id": code, "url": format!("http://x/{code}"), "name": code, "status": "active", "description": code,
            "code": code, "base": [base], "type": kind, "expression": expression})
    };
    for parameter in [
        own("size", "number", "DocumentReference", "DocumentReference.content.attachment.size"),
        own("other", "reference", "Patient", "Patient.link.other.reference"),
    ] {
        fhir.put(&format!("/SearchParameter/{}", parameter["id"].as_str().unwrap()), &parameter).expect(201);
    }
    // A 64-bit integer is a string in JSON.
    fhir.put(
        "/DocumentReference/d",
        &json!({"resourceType": "DocumentReference", "id": "d", "status": "current", "content": [{"attachment": {"size": "9007199254740993"}}]}),
    )
    .expect(201);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "link": [{"other": {"reference": "Patient/q"}, "type": "seealso"}]})).expect(201);
    // Whether somebody died is not known by an extension in place of the answer.
    let unknown = json!({"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]});
    fhir.put("/Patient/u", &json!({"resourceType": "Patient", "id": "u", "_deceasedBoolean": unknown})).expect(201);
    fhir.put("/Patient/d", &json!({"resourceType": "Patient", "id": "d", "deceasedBoolean": true})).expect(201);
    for when in ["recent", "committed"] {
        assert_eq!(fhir.ids("/DocumentReference?size=9007199254740993"), ["d"], "{when}");
        assert_eq!(fhir.get("/DocumentReference?size=9007199254740992").json()["total"], 0, "{when}");
        assert_eq!(fhir.ids("/DocumentReference?size=gt1&size:missing=false"), ["d"], "{when}");
        assert_eq!(fhir.ids("/Patient?other=Patient/q"), ["p"], "{when}");
        assert_eq!(fhir.ids("/Patient?deceased=true"), ["d"], "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}

#[test]
fn a_composite_may_be_made_of_parameters_of_ones_own() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let own = |id: &str, more: Value| {
        let mut made = json!({"resourceType": "SearchParameter", "id": id, "url": format!("http://x/{id}"), "name": id, "status": "active",
            "description": id, "code": id, "base": ["Patient"]});
        made.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        made
    };
    let component = |url: &str, expression: &str| json!({"definition": url, "expression": expression});
    let kind_of_number = own(
        "kind-of-number",
        json!({"type": "composite", "expression": "Patient.telecom", "component": [
            component("http://x/kind", "system"), component("http://x/number|1.0", "value")]}),
    );
    let refused = fhir.put("/SearchParameter/kind-of-number", &kind_of_number).expect(422);
    assert!(refused.refusal().contains("component[0].definition 'http://x/kind'") && refused.refusal().contains("store that first"), "{}", refused.refusal());
    fhir.put("/SearchParameter/kind", &own("kind", json!({"type": "token", "expression": "Patient.telecom.system"}))).expect(201);
    fhir.put("/SearchParameter/number", &own("number", json!({"type": "string", "expression": "Patient.telecom.value"}))).expect(201);
    fhir.put("/SearchParameter/kind-of-number", &kind_of_number).expect(201);
    let telecom = json!([{"system": "phone", "value": "Alpha"}, {"system": "email", "value": "beta"}]);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "telecom": telecom})).expect(201);
    for when in ["recent", "committed"] {
        assert_eq!(fhir.ids("/Patient?kind-of-number=phone$alph"), ["p"], "{when}");
        assert_eq!(total(&fhir, "Patient?kind-of-number=email$alph"), Some(0), "{when}");
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
    for (part, at, said) in [
        (component("http://x/kind", "foo"), "expression", "names no element"),
        (component("http://x/kind", "valueString"), "expression", "value.ofType(string)"),
        (component("http://hl7.org/fhir/SearchParameter/Patient-birthdate", "period.use"), "expression", "names no element"),
        (component("http://hl7.org/fhir/SearchParameter/individual-birthdate", "rank"), "expression", "gives no date"),
        (component("http://x/kind-of-number", "system"), "definition", "is a composite itself"),
    ] {
        let mut broken = kind_of_number.clone();
        (broken["id"], broken["url"], broken["code"]) = (json!("broken"), json!("http://x/broken"), json!("broken"));
        broken["component"][0] = part;
        let refused = fhir.put("/SearchParameter/broken", &broken).expect(422);
        assert!(refused.refusal().contains(&format!("component[0].{at} ")) && refused.refusal().contains(said), "{}", refused.refusal());
    }
    // A component that compares otherwise makes another composite.
    fhir.put("/SearchParameter/number", &own("number", json!({"type": "token", "expression": "Patient.telecom.value"}))).expect(200);
    wait(&server);
    assert_eq!(total(&fhir, "Patient?kind-of-number=phone$alph"), Some(0));
    assert_eq!(fhir.ids("/Patient?kind-of-number=phone$Alpha"), ["p"]);
}

#[test]
fn stu3_names_the_parts_of_a_composite_by_references() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"fhirVersion": "STU3"})).expect(201);
    let fhir = server.fhir("a__b");
    let own = |id: &str, kind: &str, expression: &str, component: Value| {
        json!({"resourceType": "SearchParameter", "id": id, "url": format!("http://x/{id}"), "name": id, "status": "active", "description": id, "code": id,
            "base": ["Observation"], "type": kind, "expression": expression, "component": component})
    };
    fhir.put("/SearchParameter/c", &own("c", "token", "Observation.component.code", json!([]))).expect(201);
    let part = |reference: &str, expression: &str| json!({"definition": {"reference": reference}, "expression": expression});
    let absolute = format!("{}/SearchParameter/c", fhir.base());
    for (n, reference) in ["SearchParameter/c", "http://x/c", &absolute, "http://hl7.org/fhir/SearchParameter/Observation-code"].iter().enumerate() {
        let id = format!("k{n}");
        let parts = json!([part(reference, "code"), part("SearchParameter/Observation-value-quantity", "value.as(Quantity)")]);
        fhir.put(&format!("/SearchParameter/{id}"), &own(&id, "composite", "Observation.component", parts)).expect(201);
        let observation = json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "t"},
            "component": [{"code": {"coding": [{"system": "s", "code": "a"}]}, "valueQuantity": {"value": 1}}]});
        fhir.put("/Observation/o", &observation);
        assert_eq!(fhir.ids(&format!("/Observation?{id}=s|a$1")), ["o"], "{reference}");
    }
}

#[test]
fn parts_of_every_type_are_found_in_their_element() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let own = |id: &str, kind: &str, expression: &str| {
        json!({"resourceType": "SearchParameter", "id": id, "url": format!("http://x/{id}"), "name": id, "status": "active", "description": id, "code": id,
            "base": ["Observation"], "type": kind, "expression": expression})
    };
    let component = "Observation.component";
    fhir.put("/SearchParameter/cc", &own("cc", "token", "Observation.component.code")).expect(201);
    for (part, kind, expression) in [
        ("vd", "date", "value.ofType(dateTime)"),
        ("vp", "date", "value.ofType(Period)"),
        ("vs", "string", "value.ofType(string)"),
        ("vq", "quantity", "value.ofType(Quantity)"),
        ("vr", "number", "value.ofType(Range)"),
    ] {
        fhir.put(&format!("/SearchParameter/{part}"), &own(part, kind, &format!("{component}.{expression}"))).expect(201);
        let mut composite = own(&format!("c{part}"), "composite", component);
        composite["component"] =
            json!([{"definition": "http://x/cc", "expression": "code"}, {"definition": format!("http://x/{part}"), "expression": expression}]);
        fhir.put(&format!("/SearchParameter/c{part}"), &composite).expect(201);
    }
    let long = "x".repeat(300);
    let coded = |code: &str, name: &str, value: Value| json!({"code": {"coding": [{"code": code}]}, name: value});
    let components = json!([
        coded("a", "valueDateTime", json!("2020-05-05")),
        coded("b", "valueDateTime", json!("2021-06")),
        coded("a", "valuePeriod", json!({"start": "2010-01", "end": "2010-03"})),
        coded("b", "valuePeriod", json!({"start": "2012-01", "end": "2012-03"})),
        coded("a", "valueString", json!(long)),
        coded("b", "valueQuantity", json!({"value": 5, "comparator": "<"})),
        coded("a", "valueQuantity", json!({"value": 9})),
        coded("a", "valueRange", json!({"low": {"value": 5}, "high": {"value": 10}})),
    ]);
    fhir.put("/Observation/o", &json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "t"}, "component": components}))
        .expect(201);
    let with = [
        "cvd=a$2020".to_owned(),
        "cvd=b$2021".to_owned(),
        "cvd=a$ap2020-05-05".to_owned(),
        "cvd=b$ge2021".to_owned(),
        "cvp=a$2010".to_owned(),
        "cvp=b$ap2012-02".to_owned(),
        format!("cvs=a${long}"),
        "cvq=b$ap3".to_owned(),
        "cvq=a$9".to_owned(),
        "cvr=a$ap8".to_owned(),
    ];
    let without = ["cvd=a$2021", "cvd=b$2020", "cvp=a$2012", "cvs=b$x", "cvq=b$9", "cvq=a$ap3", "cvr=b$ap8", "cvd=c$2020"];
    for when in ["recent", "committed"] {
        for query in &with {
            assert_eq!(fhir.ids(&format!("/Observation?{query}")), ["o"], "{when} {query}");
        }
        for query in without {
            assert_eq!(total(&fhir, &format!("Observation?{query}")), Some(0), "{when} {query}");
        }
        server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    }
}
