//! Search over HTTP: forms of values, modifiers, order, pages.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, ids, link};

/// Patients and observations that differ in what is searched.
fn fill(fhir: &Client) {
    for (id, family, given, gender, birth) in [
        ("a", "Müller", "Anna", "female", Some("1980-05-01")),
        ("b", "Mueller", "Bob", "male", Some("1980-05")),
        ("c", "muller-Lüdenscheid", "Carl", "male", Some("1980")),
        ("d", "O,Neill", "Dan|e", "other", None),
    ] {
        let mut patient = json!({"resourceType": "Patient", "id": id, "gender": gender, "name": [{"family": family, "given": [given]}],
            "identifier": [{"system": "http://h/mrn", "value": format!("N-{id}")}, {"value": format!("bare-{id}")}]});
        if let Some(birth) = birth {
            patient["birthDate"] = birth.into();
        }
        fhir.put(&format!("/Patient/{id}"), &patient).expect(201);
    }
    for (id, subject, code, value) in
        [("o1", "Patient/a", "8867-4", 1), ("o2", "Patient/b", "8867-4", 2), ("o3", "http://other.example/fhir/Patient/a", "8310-5", 3)]
    {
        fhir.put(
            &format!("/Observation/{id}"),
            &json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
                "subject": {"reference": subject}, "effectiveDateTime": format!("2024-01-0{value}T12:00:00Z")}),
        )
        .expect(201);
    }
}

fn sorted(mut ids: Vec<String>) -> String {
    ids.sort();
    ids.join(" ")
}

#[test]
fn values_match_as_the_specification_says() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let own = fhir.base.clone();
    for (query, expected) in [
        // token, all four forms
        ("Patient?identifier=N-a", "a"),
        ("Patient?identifier=http://h/mrn|N-a", "a"),
        ("Patient?identifier=http://h/mrn|", "a b c d"),
        ("Patient?identifier=|bare-b", "b"),
        ("Patient?identifier=|N-a", ""),
        ("Patient?identifier=n-a", ""),
        ("Patient?identifier=http://h/other|N-a", ""),
        ("Patient?gender=male", "b c"),
        ("Patient?gender=http://hl7.org/fhir/administrative-gender|male", "b c"),
        ("Patient?gender=male,other", "b c d"),
        ("Patient?gender:not=male", "a d"),
        // string
        ("Patient?family=muller", "a c"),
        ("Patient?family=M%C3%9CLL", "a c"),
        ("Patient?family:exact=M%C3%BCller", "a"),
        ("Patient?family:exact=muller", ""),
        ("Patient?family:contains=ULLER", "a c"),
        ("Patient?family:contains=denscheid", "c"),
        ("Patient?family=O%5C,N", "d"),
        ("Patient?given=dan%5C%7Ce", "d"),
        ("Patient?family=muller&given=anna", "a"),
        ("Patient?name=anna,bob", "a b"),
        // date, partial on both sides
        ("Patient?birthdate=1980-05-01", "a"),
        ("Patient?birthdate=1980-05", "a b"),
        ("Patient?birthdate=1980", "a b c"),
        ("Patient?birthdate=ne1980-05", "c"),
        ("Patient?birthdate=gt1980-05-01", "b c"),
        ("Patient?birthdate=ge1980-05-01", "a b c"),
        ("Patient?birthdate=lt1980-05-01", "c"),
        ("Patient?birthdate=sa1980-04", "a b"),
        ("Patient?birthdate=eb1980-06", "a b"),
        ("Patient?birthdate=ap1980", "a b c"),
        ("Patient?birthdate=ge1980-01&birthdate=le1980-05-31", "a b c"),
        ("Patient?birthdate:missing=true", "d"),
        ("Patient?birthdate:missing=false", "a b c"),
        // reference
        ("Observation?subject=Patient/a", "o1"),
        ("Observation?subject=a", "o1"),
        ("Observation?subject:Patient=a", "o1"),
        ("Observation?patient=b", "o2"),
        ("Observation?subject=http://other.example/fhir/Patient/a", "o3"),
        (&format!("Observation?subject={own}/Patient/a"), "o1"),
        // id and the rest
        ("Patient?_id=a,b,zzz", "a b"),
        ("Patient?_lastUpdated=gt2000", "a b c d"),
        ("Patient?_lastUpdated=lt2000", ""),
        ("Observation?code=8867-4&date=ge2024-01-02", "o2"),
        ("Observation?date=2024-01-03T13:00:00%2B01:00", "o3"),
        ("Observation?date=2024-01-03T13:00:00+01:00", "o3"),
        ("?_id=a&_type=Patient,Observation", "a"),
        ("?_id=a,o1", "a o1"),
    ] {
        assert_eq!(sorted(fhir.ids(&format!("/{query}"))), expected, "{query}");
    }
}

#[test]
fn a_posted_search_joins_url_and_form() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let found = fhir.send("POST", "/Patient/_search?gender=male", &form, b"birthdate=1980-05").expect(200).json();
    assert_eq!(ids(&found), ["b"]);
    assert!(link(&found, "self").unwrap().contains("gender=male&birthdate=1980-05"));
    fhir.send("POST", "/_search", &form, b"_id=a").expect(200);
    fhir.send("POST", "/Patient/_search", &[("content-type", "text/plain")], b"x").expect(415);
    assert!(!server.simdb().join("a__b/fhir/POST").exists(), "a search is no write");
}

#[test]
fn order_is_by_any_parameter_and_missing_values_come_last() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    for (query, expected) in [
        ("Patient?_sort=birthdate,_id", "c a b d".to_owned()),
        ("Patient?_sort=-_id", "d c b a".to_owned()),
        ("Patient?_sort=given", "a b c d".to_owned()),
        ("Patient?_sort=-given", "d c b a".to_owned()),
        ("Patient?_sort=gender,-given", "a c b d".to_owned()),
        ("Observation?_sort=-date", "o3 o2 o1".to_owned()),
        ("Observation?_sort=subject,_id", "o1 o2 o3".to_owned()),
        ("Patient?_sort=_lastUpdated", "a b c d".to_owned()),
        ("Patient", "d c b a".to_owned()),
    ] {
        assert_eq!(fhir.ids(&format!("/{query}")).join(" "), expected, "{query}");
    }
}

#[test]
fn totals_and_counts() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    assert_eq!(fhir.get("/Patient?_total=none").json().get("total"), None);
    assert_eq!(fhir.get("/Patient?_total=accurate&_count=1").json()["total"], 4);
    let counted = fhir.get("/Patient?_count=0").json();
    assert_eq!((counted["total"].clone(), counted.get("entry")), (json!(4), None));
    assert_eq!(fhir.get("/Patient?_summary=count").json().get("entry"), None);
    let cut = fhir.get("/Patient?_count=5000").json();
    assert!(link(&cut, "self").unwrap().contains("_count=1000"), "shown as it was executed");
}

fn walk(fhir: &Client, first: &Value, relation: &str) -> Vec<Vec<String>> {
    let mut pages = vec![ids(first)];
    let mut next = link(first, relation).map(str::to_owned);
    while let Some(url) = next {
        let page = fhir.get(url.strip_prefix(&fhir.base).unwrap()).expect(200).json();
        pages.push(ids(&page));
        next = link(&page, relation).map(str::to_owned);
    }
    pages
}

#[test]
fn pages_neither_skip_nor_repeat_while_others_write() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for n in 0..50 {
        fhir.put(
            &format!("/Patient/p{n:02}"),
            &json!({"resourceType": "Patient", "id": format!("p{n:02}"), "active": true, "name": [{"family": format!("F{}", n % 7)}]}),
        )
        .expect(201);
    }
    for sort in ["", "&_sort=family", "&_sort=-_lastUpdated", "&_sort=_id"] {
        let first = fhir.get(&format!("/Patient?active=true&_count=7{sort}")).json();
        assert_eq!(first["total"], 50);
        // Others change, delete and add what is still to come and what was seen.
        for n in [3, 10, 30, 44] {
            fhir.put(&format!("/Patient/p{n:02}"), &json!({"resourceType": "Patient", "id": format!("p{n:02}"), "active": false, "name": [{"family": "Zzz"}]}))
                .expect(200);
        }
        fhir.delete("/Patient/p20").expect(204);
        fhir.put("/Patient/new", &json!({"resourceType": "Patient", "id": "new", "active": true})).expect(201);
        let pages = walk(&fhir, &first, "next");
        let all: Vec<String> = pages.concat();
        let mut distinct = all.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((pages.len(), all.len(), distinct.len()), (8, 50, 50), "{sort}");
        assert!(distinct.contains(&"p20".to_owned()) && !distinct.contains(&"new".to_owned()));
        let last = fhir.get(link(&first, "last").unwrap().strip_prefix(&fhir.base).unwrap()).json();
        let mut back = walk(&fhir, &last, "previous");
        back.reverse();
        assert_eq!(back, pages, "backwards as forwards");
        // As it was, for the next round.
        fhir.delete("/Patient/new").expect(204);
        for n in [3, 10, 20, 30, 44] {
            assert!(
                fhir.put(
                    &format!("/Patient/p{n:02}"),
                    &json!({"resourceType": "Patient", "id": format!("p{n:02}"), "active": true, "name": [{"family": format!("F{}", n % 7)}]})
                )
                .status
                    < 300
            );
        }
    }
}

#[test]
fn numbers_compare_as_decimals() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (id, probability) in [("x", "0.5"), ("y", "0.50"), ("z", "0.549"), ("w", "1e-3"), ("n", "-2")] {
        let body = format!("{{\"resourceType\":\"RiskAssessment\",\"id\":\"{id}\",\"prediction\":[{{\"probabilityDecimal\":{probability}}}]}}");
        fhir.send("PUT", &format!("/RiskAssessment/{id}"), &[], body.as_bytes()).expect(201);
    }
    let range =
        r#"{"resourceType":"RiskAssessment","id":"r","prediction":[{"probabilityRange":{"low":{"value":2},"high":{"value":4}}},{"probabilityDecimal":9}]}"#;
    fhir.send("PUT", "/RiskAssessment/r", &[], range.as_bytes()).expect(201);
    for (value, expected) in [
        ("0.5", "x y z"),
        ("0.50", "x y"),
        ("0.500", "x y"),
        ("gt0.5", "r z"),
        ("ge0.50", "r x y z"),
        ("lt0", "n"),
        ("0.001", "w"),
        ("1e-3", "w"),
        ("ne0.5", "n r w"),
        ("-2", "n"),
        ("3", ""),
        ("ap3", "r"),
        ("ap6", ""),
        ("9", "r"),
        ("sa3", "r"),
        ("eb0.1", "n w"),
    ] {
        assert_eq!(sorted(fhir.ids(&format!("/RiskAssessment?probability={value}"))), expected, "{value}");
    }
}

#[test]
fn several_intervals_are_not_mixed() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    // Neither of the two lies in 2015, though one begins before its end and the other ends after its beginning.
    let events = json!({"resourceType": "ServiceRequest", "id": "s", "occurrenceTiming": {"event": ["2010-01-01", "2020-01-01"]}});
    fhir.put("/ServiceRequest/s", &events).expect(201);
    for (value, expected) in [("2015", ""), ("2010", "s"), ("ap2010", "s"), ("ge2015", "s"), ("le2015", "s"), ("ne2010", "s"), ("sa2021", "")] {
        assert_eq!(fhir.ids(&format!("/ServiceRequest?occurrence={value}")).join(" "), expected, "{value}");
    }
    fhir.put("/Encounter/open", &json!({"resourceType": "Encounter", "id": "open", "period": {"start": "2020-02-02"}})).expect(201);
    for (value, expected) in [("gt2999", "open"), ("lt2020", ""), ("2020", ""), ("ge2020", "open")] {
        assert_eq!(fhir.ids(&format!("/Encounter?date={value}")).join(" "), expected, "{value}");
    }
}

#[test]
fn an_unknown_order_is_reported_and_links_keep_the_format() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fill(&fhir);
    let page = fhir.send("GET", "/Patient?_sort=nmae&_count=1&_format=json", &[("accept", "text/html")], b"").expect(200).json();
    assert!(page["entry"][1]["resource"]["issue"][0]["diagnostics"].as_str().unwrap().starts_with("_sort: unknown search parameter 'nmae'"));
    let next = link(&page, "next").unwrap().strip_prefix(&fhir.base).unwrap().to_owned();
    assert!(!next.contains("nmae"));
    fhir.send("GET", &next, &[("accept", "text/html")], b"").expect(200);
    fhir.send("GET", "/Patient?_sort=nmae", &[("prefer", "handling=strict")], b"").expect(400);
}

#[test]
fn odd_values_are_found_by_what_they_are() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Observation/leap", &json!({"resourceType": "Observation", "id": "leap", "effectiveDateTime": "2016-12-31T23:59:60Z"})).expect(201);
    assert_eq!(fhir.ids("/Observation?date=2016"), ["leap"]);
    assert_eq!(fhir.ids("/Observation?date=ne2016").len(), 0);
    fhir.send("PUT", "/RiskAssessment/big", &[], br#"{"resourceType":"RiskAssessment","id":"big","prediction":[{"probabilityDecimal":1e999999999}]}"#)
        .expect(201);
    assert_eq!(fhir.ids("/RiskAssessment?probability=gt1000"), ["big"]);
    assert_eq!(fhir.ids("/RiskAssessment?probability:missing=false"), ["big"]);
    fhir.put("/Patient/s", &json!({"resourceType": "Patient", "id": "s", "name": [{"family": "Stra\u{df}e", "given": ["\u{d8}re"]}]})).expect(201);
    assert_eq!(fhir.ids("/Patient?family=STRASSE&given=ore"), ["s"]);
}
