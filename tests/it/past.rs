//! A simulator as it was, and what changed between two moments.

use serde_json::{Value, json};

use crate::support::{Client, TestServer};

fn put(fhir: &Client, family: &str) -> String {
    // In a millisecond of its own: a history that is rewritten tells its moments no closer.
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 3 {}
    let patient = json!({"resourceType": "Patient", "id": "p", "name": [{"family": family}], "managingOrganization": {"reference": "Organization/o"}});
    fhir.put("/Patient/p", &patient).header("x-fhirsim-event").to_owned()
}

/// Events by name: what happened one after the other.
fn fill(fhir: &Client) -> Vec<String> {
    let event = |reply: crate::support::Reply| reply.header("x-fhirsim-event").to_owned();
    vec![
        event(fhir.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o", "name": "Ward"})).expect(201)),
        put(fhir, "One"),
        put(fhir, "Two"),
        event(fhir.put("/Organization/o", &json!({"resourceType": "Organization", "id": "o", "name": "Clinic"})).expect(200)),
        event({
            let begun = std::time::Instant::now();
            while begun.elapsed().as_millis() < 3 {}
            fhir.delete("/Patient/p").expect(204)
        }),
        put(fhir, "Three"),
    ]
}

#[test]
fn a_simulator_is_seen_as_it_was() {
    let mut server = TestServer::start();
    let events = fill(&server.fhir("a__b"));
    let instant = server.client().get(&format!("/api/sims/a__b/events/{}", events[2])).json()["instant"].as_str().unwrap().to_owned();
    for when in ["recent", "committed", "killed", "rewritten"] {
        let family = |moment: &str| {
            let reply = server.fhir(&format!("a__b@{moment}")).get("/Patient/p");
            if reply.status == 200 { reply.json()["name"][0]["family"].as_str().unwrap().to_owned() } else { reply.status.to_string() }
        };
        let shown: Vec<String> = events.iter().map(|e| family(e)).collect();
        assert_eq!(shown, ["404", "One", "Two", "Two", "410", "Three"], "{when}");
        assert_eq!((family(&instant), family("2001-01-01"), family("2001")), ("Two".to_owned(), "404".to_owned(), "404".to_owned()), "{when}");
        for (at, query, expected) in [
            (0, "Patient", vec![]),
            (1, "Patient?family=one", vec!["p"]),
            (2, "Patient?family=one", vec![]),
            (2, "Patient?family=two&organization.name=ward", vec!["p"]),
            (3, "Patient?family=two&organization.name=ward", vec![]),
            (3, "Organization?_has:Patient:organization:family=two", vec!["o"]),
            (4, "Organization?_has:Patient:organization:family=two", vec![]),
            (4, "Patient", vec![]),
            (5, "Patient?family=three", vec!["p"]),
        ] {
            let past = server.fhir(&format!("a__b@{}", events[at]));
            assert_eq!(past.ids(&format!("/{query}")), expected, "{when}: {at} {query}");
            // Asked again, and as the links say.
            let bundle = past.get(&format!("/{query}")).json();
            let own = bundle["link"][0]["url"].as_str().unwrap();
            assert!(own.starts_with(past.base()), "{own}");
            assert_eq!(bundle["total"], expected.len(), "{when}: {at} {query}");
        }
        let history = |at: usize, path: &str| server.fhir(&format!("a__b@{}", events[at])).get(path).json()["total"].as_u64();
        assert_eq!((history(1, "/Patient/p/_history"), history(5, "/Patient/p/_history")), (Some(1), Some(4)), "{when}");
        if when != "rewritten" {
            assert_eq!((history(2, "/_history"), history(5, "/_history")), (Some(3), Some(6)), "{when}");
        }
        let included = server.fhir(&format!("a__b@{}", events[2])).get("/Patient?_include=Patient:organization").json();
        assert_eq!(included["entry"][1]["resource"]["name"], "Ward", "{when}");
        server.fhir(&format!("a__b@{}", events[2])).get("/Patient/p/_history/4").expect(404);
        server.fhir(&format!("a__b@{}", events[2])).get("/Patient/p/$everything").expect(200);
        match when {
            "recent" => drop(server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200)),
            "committed" => {
                server.kill();
                server.restart();
            }
            _ => {
                let meta = json!({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "t"}]}}]});
                server.fhir("a__b").post("/Patient/p/$meta-add", &meta).expect(200);
            }
        }
    }
}

#[test]
fn the_past_is_not_written_nor_the_future_read() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let first = put(&fhir, "One");
    let past = server.fhir(&format!("a__b@{first}"));
    for refused in [
        past.post("/Patient", &json!({"resourceType": "Patient"})),
        past.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})),
        past.delete("/Patient/p"),
    ] {
        assert_eq!(refused.header("allow"), "GET, HEAD");
        assert!(refused.expect(405).refusal().contains("leave out '@' and what follows it to write now"));
    }
    past.send("POST", "/Patient/_search", &[("content-type", "application/x-www-form-urlencoded")], b"family=one").expect(200);
    assert_eq!(fhir.get("/Patient/p").json()["meta"]["versionId"], "1");
    for (moment, said) in [
        ("2999-01-01", "lies in the future"),
        ("yesterday", "'yesterday' is not an event's id"),
        ("marker:x", "there is no marker 'x'"),
        ("", "is not an event's id"),
    ] {
        let reply = server.fhir(&format!("a__b@{moment}")).get("/Patient/p");
        assert!((400..=404).contains(&reply.status) && reply.refusal().contains(said), "{moment}: {}", reply.text());
    }
    // Of a day that is not over, what there is so far.
    let today = server.client().get(&format!("/api/sims/a__b/events/{first}")).json()["instant"].as_str().unwrap()[..10].to_owned();
    assert_eq!(server.fhir(&format!("a__b@{today}")).get("/Patient/p").expect(200).json()["name"][0]["family"], "One");
    server.client().post("/api/sims/a__b/markers", &json!({"name": "now"})).expect(201);
    put(&fhir, "Two");
    assert_eq!(server.fhir("a__b@marker:now").get("/Patient/p").json()["name"][0]["family"], "One");
}

/// A page while others write, and a past search, are the same whatever is made meanwhile.
#[test]
fn a_page_of_the_past_leads_on_in_the_past() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for n in 0..30 {
        fhir.put(&format!("/Patient/{n}"), &json!({"resourceType": "Patient", "id": n.to_string(), "active": true})).expect(201);
    }
    let last = fhir.get("/Patient?_count=0").expect(200);
    drop(last);
    server.client().post("/api/sims/a__b/markers", &json!({"name": "full"})).expect(201);
    let mut next = Some(format!("{}/sim/a__b@marker:full/fhir/Patient?active=true&_count=7&_sort=_id", server.url()));
    let mut seen = Vec::new();
    while let Some(url) = next {
        let path = url.split_once("/sim/").unwrap().1;
        let (sim, rest) = path.split_once("/fhir").unwrap();
        let page = server.fhir(sim).get(rest).expect(200).json();
        seen.extend(crate::support::ids(&page));
        next = page["link"].as_array().unwrap().iter().find(|l| l["relation"] == "next").map(|l| l["url"].as_str().unwrap().to_owned());
        let n = seen.len() % 30;
        fhir.delete(&format!("/Patient/{n}")).expect(204);
        fhir.post("/Patient", &json!({"resourceType": "Patient", "active": true})).expect(201);
    }
    let mut all: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    all.sort();
    assert_eq!(seen, all);
}

#[test]
fn two_moments_are_compared() {
    let server = TestServer::start();
    let events = fill(&server.fhir("a__b"));
    let diff = |query: &str| server.client().get(&format!("/api/sims/a__b/diff?{query}")).expect(200).json();
    let shown = |value: &Value| {
        let one = |c: &Value| format!("{} {}", c["resource"].as_str().unwrap(), c["change"].as_str().unwrap());
        value["changes"].as_array().unwrap().iter().map(one).collect::<Vec<_>>()
    };
    assert_eq!(shown(&diff("")), ["Organization/o created", "Patient/p created"]);
    let later = diff(&format!("from={}&to={}", events[1], events[3]));
    assert_eq!(shown(&later), ["Organization/o updated", "Patient/p updated"]);
    let patch = &later["changes"][1]["patch"]["parameter"][0]["part"];
    assert!(patch.to_string().contains("Patient.name[0].family"), "{patch}");
    assert_eq!((&later["changes"][1]["from"], &later["changes"][1]["to"]), (&json!("1"), &json!("2")));
    assert_eq!(shown(&diff(&format!("from={}&to={}", events[2], events[4]))), ["Organization/o updated", "Patient/p deleted"]);
    assert_eq!(shown(&diff(&format!("from={}&to={}", events[0], events[4]))), ["Organization/o updated", "Patient/p none"]);
    assert_eq!(shown(&diff(&format!("from={}", events[5]))), Vec::<String>::new());
    let page = diff("limit=1");
    assert_eq!((shown(&page), &page["next"], &page["total"]), (vec!["Organization/o created".to_owned()], &json!("Organization/o"), &json!(2)));
    assert_eq!(shown(&diff("limit=1&after=Organization/o")), ["Patient/p created"]);
    // Nothing has happened since a moment that is now.
    server.client().post("/api/sims/a__b/markers", &json!({"name": "now"})).expect(201);
    assert_eq!(diff("from=marker:now")["changes"], json!([]));
    assert!(server.client().get(&format!("/api/sims/a__b/diff?from={}&to={}", events[2], events[1])).expect(400).refusal().contains("is after to"));
}
