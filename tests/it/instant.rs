//! Snapshots, resets to them, clones: in an instant, whatever the simulator holds.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, TestServer};

fn put(fhir: &Client, id: &str, family: &str) {
    let status = fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "name": [{"family": family}]})).status;
    assert!(status < 300, "{status}");
}

fn api(server: &TestServer, path: &str, body: &Value) -> Value {
    let reply = server.client().post(path, body);
    assert!(reply.status < 300, "{}", reply.text());
    reply.json()
}

/// `id family version` of every Patient, and how many versions the simulator has.
fn state(fhir: &Client) -> (Vec<String>, u64) {
    let bundle = fhir.get("/Patient?_sort=_id&_count=1000").expect(200).json();
    let one = |e: &Value| {
        let r = &e["resource"];
        format!("{} {} {}", r["id"].as_str().unwrap(), r["name"][0]["family"].as_str().unwrap(), r["meta"]["versionId"].as_str().unwrap())
    };
    let shown = bundle["entry"].as_array().into_iter().flatten().map(one).collect();
    (shown, fhir.get("/_history?_count=0").expect(200).json()["total"].as_u64().unwrap())
}

fn bases(server: &TestServer) -> usize {
    std::fs::read_dir(server.simdb().join(".bases")).map_or(0, Iterator::count)
}

fn told(state: (Vec<String>, u64)) -> String {
    format!("{}; {}", state.0.join(", "), state.1)
}

#[test]
fn a_clone_begins_as_the_other_and_goes_its_own_way() {
    let mut server = TestServer::start();
    let source = server.fhir("a__source");
    for (id, family) in [("1", "One"), ("2", "Two"), ("3", "Three")] {
        put(&source, id, family);
    }
    put(&source, "1", "Uno");
    source.delete("/Patient/3").expect(204);
    api(&server, "/api/sims/a__source/snapshots", &json!({"name": "start"}));
    put(&source, "2", "Dos");
    api(&server, "/api/sims", &json!({"id": "a__old", "from": "a__source@start"}));
    api(&server, "/api/sims", &json!({"id": "a__new", "from": "a__source", "settings": {"clientIds": "any"}}));
    let of = |server: &TestServer, sim: &str| told(state(&server.fhir(sim)));
    assert_eq!(of(&server, "a__source"), "1 Uno 2, 2 Dos 2; 6");
    assert_eq!(of(&server, "a__new"), "1 Uno 2, 2 Dos 2; 6");
    assert_eq!(of(&server, "a__old"), "1 Uno 2, 2 Two 1; 5");
    // Each goes its own way.
    let (old, new) = (server.fhir("a__old"), server.fhir("a__new"));
    put(&old, "1", "Eins");
    old.delete("/Patient/2").expect(204);
    put(&old, "3", "Drei");
    put(&new, "4", "Quattro");
    assert_eq!(old.get("/Patient/3/_history").json()["total"], 3, "its history goes on");
    for when in ["recent", "reindexed", "killed", "stopped", "indexes deleted"] {
        assert_eq!(of(&server, "a__source"), "1 Uno 2, 2 Dos 2; 6", "{when}");
        assert_eq!(of(&server, "a__new"), "1 Uno 2, 2 Dos 2, 4 Quattro 1; 7", "{when}");
        assert_eq!(of(&server, "a__old"), "1 Eins 3, 3 Drei 3; 8", "{when}");
        let old = server.fhir("a__old");
        assert_eq!(
            (old.ids("/Patient?family=uno"), old.ids("/Patient?family=eins"), old.ids("/Patient?family=two")),
            (vec![], vec!["1".to_owned()], vec![]),
            "{when}"
        );
        assert_eq!(old.get("/Patient/1/_history/1").expect(200).json()["name"][0]["family"], "One", "{when}");
        assert_eq!(old.get("/Patient/1/_history/3").expect(200).json()["name"][0]["family"], "Eins", "{when}");
        old.get("/Patient/2").expect(410);
        match when {
            "recent" => ["a__source", "a__new", "a__old"].iter().for_each(|sim| drop(api(&server, &format!("/api/sims/{sim}/reindex"), &json!({})))),
            "reindexed" => server.kill(),
            "killed" => server.stop(),
            _ => {
                server.kill();
                let inside = std::fs::read_dir(server.simdb().join(".bases")).unwrap().map(|e| e.unwrap().path());
                let sims = ["a__source", "a__new", "a__old"].map(|sim| server.simdb().join(sim));
                for dir in inside.chain(sims) {
                    let _ = std::fs::remove_dir_all(dir.join("simindex"));
                    let _ = std::fs::remove_file(dir.join("events.idx"));
                }
            }
        }
        if when != "recent" {
            server.restart();
        }
    }
    // What is inherited is said.
    let events = server.client().get("/api/sims/a__old/events?order=asc").expect(200).json();
    let shown: Vec<(bool, bool)> = events["events"].as_array().unwrap().iter().map(|e| (e["inherited"] == true, e["folder"].is_null())).collect();
    assert_eq!(shown, [[(true, true); 5].as_slice(), [(false, false); 3].as_slice()].concat());
    let first = events["events"][0]["event"].as_str().unwrap();
    assert_eq!(server.client().get(&format!("/api/sims/a__old/events/{first}?include=bodies")).expect(200).json()["sim"], "a__source");
    assert_eq!(server.fhir(&format!("a__old@{first}")).ids("/Patient"), ["1"]);
}

#[test]
fn a_simulator_is_reset_to_a_snapshot() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    put(&fhir, "1", "One");
    api(&server, "/api/sims/a__b/snapshots", &json!({"name": "one"}));
    put(&fhir, "2", "Two");
    let two = api(&server, "/api/sims/a__b/snapshots", &json!({"name": "two"}));
    assert_eq!((&two["name"], &two["events"], &two["counts"], two.get("base")), (&json!("two"), &json!(2), &json!({"Patient": 2}), None));
    put(&fhir, "1", "Changed");
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"updateCreate":false}}"#).expect(200);
    for (snapshot, expected) in [("two", "1 One 1, 2 Two 1; 2"), ("one", "1 One 1; 1"), ("two", "1 One 1, 2 Two 1; 2")] {
        let shown = api(&server, "/api/sims/a__b/reset", &json!({"snapshot": snapshot}));
        assert_eq!(told(state(&fhir)), expected);
        assert_eq!((&shown["settings"]["updateCreate"], &shown["counts"]["Patient"]), (&json!(false), &json!(state(&fhir).0.len())), "the settings stay");
        // Nothing comes of the last one.
        fhir.post("/Patient", &json!({"resourceType": "Patient"})).expect(201);
    }
    api(&server, "/api/sims/a__b/reset", &json!({}));
    assert_eq!(told(state(&fhir)), "; 0");
    let names: Vec<Value> = server.client().get("/api/sims/a__b/snapshots").json()["snapshots"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
    assert_eq!(names, ["one", "two"]);
    api(&server, "/api/sims/a__b/reset", &json!({"snapshot": "two"}));
    assert_eq!(told(state(&fhir)), "1 One 1, 2 Two 1; 2");
    // To a snapshot of another, too.
    server.client().put("/api/sims/a__other", &json!({})).expect(201);
    api(&server, "/api/sims/a__other/reset", &json!({"snapshot": "a__b@one"}));
    assert_eq!(told(state(&server.fhir("a__other"))), "1 One 1; 1");
    server.client().delete("/api/sims/a__other").expect(204);
    server.client().put("/api/sims/a__five", &json!({"fhirVersion": "R5"})).expect(201);
    assert!(server.client().post("/api/sims/a__five/reset", &json!({"snapshot": "a__b@one"})).expect(409).refusal().contains("has FHIR version R5"));
    // A snapshot of what did not change costs nothing more, and what nobody needs goes.
    let before = bases(&server);
    api(&server, "/api/sims/a__b/snapshots", &json!({"name": "same"}));
    assert_eq!(bases(&server), before);
    for name in ["one", "two", "same"] {
        server.client().delete(&format!("/api/sims/a__b/snapshots/{name}")).expect(204);
    }
    assert_eq!(told(state(&fhir)), "1 One 1, 2 Two 1; 2", "it builds on them still");
    api(&server, "/api/sims/a__b/reset", &json!({}));
    assert_eq!(bases(&server), 0);
    for (path, body, status, said) in [
        ("/api/sims/a__b/reset", json!({"snapshot": "none"}), 404, "simulator a__b has no snapshot 'none'; it has: none"),
        ("/api/sims/a__b/snapshots", json!({"name": "../x"}), 400, "is no name of a snapshot"),
        ("/api/sims", json!({"id": "a__c", "from": "a__none"}), 404, "unknown simulator 'a__none'"),
        ("/api/sims", json!({"id": "a__b", "from": "a__b"}), 409, "exists already"),
        ("/api/sims", json!({"id": "a__c", "from": "a__b", "fhirVersion": "R5"}), 409, "a clone of it cannot have R5"),
    ] {
        assert!(server.client().post(path, &body).expect(status).refusal().contains(said), "{path} {body}");
    }
}

/// What was acknowledged is in the simulator; what a clone has, it has whole; nothing crosses over.
#[test]
fn simulators_are_sealed_cloned_and_reset_while_others_write() {
    let server = TestServer::start();
    server.fhir("a__b").get("/metadata").expect(200);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|w| {
                let (fhir, stop) = (server.fhir("a__b"), &stop);
                scope.spawn(move || {
                    let mut stored = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let id = format!("w{w}-{}", stored.len());
                        // A pair that is stored together or not at all.
                        let entry = |half: &str| json!({"request": {"method": "PUT", "url": format!("Patient/{id}{half}")}, "resource": {"resourceType": "Patient", "id": format!("{id}{half}"), "name": [{"family": id}]}});
                        fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry("a"), entry("b")]})).expect(200);
                        fhir.get(&format!("/Patient/{id}a")).expect(200);
                        stored.push(id);
                    }
                    stored
                })
            })
            .collect();
        for n in 0..12 {
            api(&server, "/api/sims/a__b/snapshots", &json!({"name": format!("s{n}")}));
            api(&server, "/api/sims", &json!({"id": format!("a__clone{n}"), "from": "a__b"}));
        }
        stop.store(true, Ordering::Relaxed);
        let stored: BTreeSet<String> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        assert!(!stored.is_empty());
        let ids = |sim: &str| {
            let fhir = server.fhir(sim);
            let mut found = BTreeSet::new();
            let mut path = "/Patient?_count=1000&_elements=id".to_owned();
            loop {
                let page = fhir.get(&path).expect(200).json();
                found.extend(crate::support::ids(&page));
                let next = page["link"].as_array().unwrap().iter().find(|l| l["relation"] == "next");
                let Some(next) = next else { return found };
                next["url"].as_str().unwrap().split("/fhir").nth(1).unwrap().clone_into(&mut path);
            }
        };
        let all: BTreeSet<String> = stored.iter().flat_map(|id| [format!("{id}a"), format!("{id}b")]).collect();
        assert_eq!(ids("a__b"), all);
        let mut before = BTreeSet::new();
        for n in 0..12 {
            let cloned = ids(&format!("a__clone{n}"));
            assert!(cloned.is_superset(&before) && all.is_superset(&cloned), "each has what the one before had");
            assert!(cloned.iter().filter(|id| id.ends_with('a')).all(|id| cloned.contains(&format!("{}b", id.trim_end_matches('a')))), "whole");
            before = cloned;
        }
    });
}

/// `kill -9` at any point of a snapshot leaves the old or the new state, and all that was acknowledged.
#[test]
fn a_kill_during_a_snapshot_loses_nothing() {
    let mut server = TestServer::start();
    for round in 0..8 {
        let fhir = server.fhir("a__b");
        put(&fhir, &format!("r{round}"), "x");
        let url = server.url().to_owned();
        let asked = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            for n in 0..50 {
                let sent = agent.post(format!("{url}/api/sims/a__b/snapshots")).send(format!("{{\"name\":\"s{round}-{}\"}}", n % 3));
                if sent.is_err() {
                    return;
                }
            }
        });
        // At another point each time, by what the client has got done.
        for n in 0..=round * 3 {
            put(&fhir, &format!("r{round}-{n}"), "y");
        }
        server.kill();
        asked.join().unwrap();
        server.restart();
        let fhir = server.fhir("a__b");
        fhir.get(&format!("/Patient/r{round}")).expect(200);
        for n in 0..=round * 3 {
            fhir.get(&format!("/Patient/r{round}-{n}")).expect(200);
        }
        let expected: u64 = (0..=round).map(|r| 2 + r * 3).sum();
        assert_eq!(fhir.get("/Patient?_count=0").json()["total"], expected);
    }
}

/// What is asked of a clone and of one that was filled by itself.
const QUERIES: &[&str] = &[
    "Patient?_sort=_id",
    "Patient?family=f3&_sort=-birthdate,_id",
    "Patient?family=f3,f5&active=true&_sort=_id",
    "Patient?birthdate=gt1950&birthdate=lt1970&_sort=birthdate,_id",
    "Patient?organization.name=o2&_sort=_id",
    "Organization?_has:Patient:organization:family=f1&_sort=_id",
    "Patient?_text=word3&_sort=_id",
    "Patient?_text=round1&_sort=_id",
    "Patient?eye=blue&_sort=_id",
    "Patient?eye:missing=true&_sort=_id",
    "Patient?family:missing=false&_sort=family,_id&_count=50",
    "Patient?family:contains=3&_sort=_id",
    "Patient?_id=5,25,299&_sort=_id",
];

/// A clone answers as a simulator would that was filled by itself, whatever lies in the base, in the index and in memory.
#[test]
fn a_clone_answers_as_one_filled_by_itself() {
    let server = TestServer::start();
    let patient = |n: usize, round: usize| {
        json!({"request": {"method": "PUT", "url": format!("Patient/{n}")}, "resource": {"resourceType": "Patient", "id": n.to_string(), "active": (n + round).is_multiple_of(2),
            "name": [{"family": format!("f{}", (n + round) % 7)}], "birthDate": format!("19{:02}-01-01", (n * 3 + round) % 90),
            "text": {"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">word{} round{round}</div>", n % 5)},
            "extension": [{"url": "http://x/eye", "valueCode": if (n + round).is_multiple_of(3) { "blue" } else { "brown" }}],
            "managingOrganization": {"reference": format!("Organization/{}", (n + round) % 4)}}})
    };
    let fill = |fhir: &Client, from: usize, to: usize, round: usize| {
        let entries: Vec<Value> = (from..to).map(|n| patient(n, round)).collect();
        fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
    };
    let organizations = |fhir: &Client| {
        for n in 0..4 {
            fhir.put(&format!("/Organization/{n}"), &json!({"resourceType": "Organization", "id": n.to_string(), "name": format!("o{n}")}));
        }
    };
    let parameter = json!({"resourceType": "SearchParameter", "id": "eye", "url": "http://x/eye", "name": "eye", "status": "active", "description": "eye", "code": "eye",
        "base": ["Patient"], "type": "token", "expression": "Patient.extension('http://x/eye').value"});
    // By itself: everything in the end state, with the same number of versions.
    let alone = server.fhir("a__alone");
    organizations(&alone);
    (0..4).for_each(|round| fill(&alone, 0, 300 - round * 60, round));
    (0..20).for_each(|n| drop(alone.delete(&format!("/Patient/{n}")).expect(204)));
    alone.put("/SearchParameter/eye", &parameter).expect(201);
    // In layers.
    let first = server.fhir("a__first");
    organizations(&first);
    fill(&first, 0, 300, 0);
    fill(&first, 0, 240, 1);
    api(&server, "/api/sims", &json!({"id": "a__second", "from": "a__first"}));
    let second = server.fhir("a__second");
    second.put("/SearchParameter/eye", &parameter).expect(201);
    fill(&second, 0, 180, 2);
    api(&server, "/api/sims", &json!({"id": "a__third", "from": "a__second"}));
    let third = server.fhir("a__third");
    fill(&third, 0, 120, 3);
    (0..20).for_each(|n| drop(third.delete(&format!("/Patient/{n}")).expect(204)));
    let wait = |sim: &str| while server.client().get(&format!("/api/sims/{sim}")).json().get("reindexing").is_some() {};
    for when in ["recent", "committed", "opened again"] {
        wait("a__alone");
        wait("a__third");
        for query in QUERIES {
            let expected = alone.get(&format!("/{query}")).expect(200).json();
            let found = third.get(&format!("/{query}")).expect(200).json();
            assert_eq!(found["total"], expected["total"], "{when}: {query}");
            assert_eq!(crate::support::ids(&found), crate::support::ids(&expected), "{when}: {query}");
        }
        for n in [0, 19, 20, 100, 150, 200, 299] {
            let numbers = |fhir: &Client| fhir.get(&format!("/Patient/{n}/_history")).expect(200).json()["total"].clone();
            assert_eq!(numbers(&third), numbers(&alone), "{when}: {n}");
        }
        let lastly = |fhir: &Client| fhir.get("/Patient/_history?_count=0").expect(200).json()["total"].clone();
        assert_eq!(lastly(&third), lastly(&alone), "{when}");
        match when {
            "recent" => drop(api(&server, "/api/sims/a__third/reindex", &json!({}))),
            _ => drop(api(&server, "/api/sims/a__third/snapshots", &json!({"name": "s"}))),
        }
    }
}

/// Whatever others do meanwhile, and whenever the server is killed, a reset leaves the simulator and its snapshots.
#[test]
fn a_reset_never_loses_the_simulator_or_its_snapshots() {
    let mut server = TestServer::start();
    for sim in ["a__a", "a__b"] {
        put(&server.fhir(sim), "1", "One");
        api(&server, &format!("/api/sims/{sim}/snapshots"), &json!({"name": "keep"}));
    }
    std::thread::scope(|scope| {
        let other = server.client();
        let of_other = server.fhir("a__b");
        scope.spawn(move || {
            for n in 0..60 {
                put(&of_other, "1", &n.to_string());
                other.post("/api/sims/a__b/snapshots", &json!({"name": "s"})).expect(201);
                other.post("/api/sims/a__b/reset", &json!({})).expect(200);
            }
        });
        let reader = server.client();
        scope.spawn(move || {
            for _ in 0..200 {
                reader.get("/api/sims/a__a").expect(200);
                assert_eq!(reader.get("/api/sims/a__a/snapshots").expect(200).json()["snapshots"][0]["name"], "keep");
            }
        });
        for _ in 0..150 {
            api(&server, "/api/sims/a__a/reset", &json!({}));
        }
    });
    for round in 0..10 {
        let url = server.url().to_owned();
        let resets = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let mut n = 0;
            while agent.post(format!("{url}/api/sims/a__a/reset")).send(if n % 2 == 0 { "" } else { r#"{"snapshot":"keep"}"# }).is_ok() {
                n += 1;
            }
        });
        for _ in 0..=round * 4 {
            server.client().get("/api/sims/a__a").expect(200);
        }
        server.kill();
        resets.join().unwrap();
        server.restart();
        let held = server.fhir("a__a").get("/Patient?_count=0").expect(200).json()["total"].as_u64().unwrap();
        assert!(held <= 1, "the one state or the other");
        api(&server, "/api/sims/a__a/reset", &json!({"snapshot": "keep"}));
        assert_eq!(told(state(&server.fhir("a__a"))), "1 One 1; 1");
    }
}

#[test]
fn recorded_reads_markers_and_damage_are_where_they_belong() {
    let mut server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"record": "all"}})).expect(201);
    let fhir = server.fhir("a__b");
    put(&fhir, "1", "One");
    put(&fhir, "2", "Two");
    let reads: Vec<String> = (0..3).map(|_| fhir.get("/Patient/1").expect(200).header("x-fhirsim-event").to_owned()).collect();
    api(&server, "/api/sims/a__b/snapshots", &json!({"name": "s"}));
    let all = |sim: &str| server.client().get(&format!("/api/sims/{sim}/events")).expect(200).json()["events"].as_array().unwrap().len();
    assert_eq!(all("a__b"), 5);
    server.client().get(&format!("/api/sims/a__b/events/{}", reads[2])).expect(200);
    api(&server, "/api/sims", &json!({"id": "a__c", "from": "a__b@s"}));
    assert_eq!(all("a__c"), 5);
    // A reset forgets what was marked, a snapshot does not.
    api(&server, "/api/sims/a__b/markers", &json!({"name": "m"}));
    put(&fhir, "3", "Three");
    api(&server, "/api/sims/a__b/snapshots", &json!({"name": "t"}));
    let markers = || server.client().get("/api/sims/a__b/markers").json()["markers"].as_array().unwrap().len();
    assert_eq!(markers(), 1);
    api(&server, "/api/sims/a__b/reset", &json!({"snapshot": "s"}));
    assert_eq!(markers(), 0);
    // What is damaged in a base is said by all that build on it.
    server.stop();
    let base = std::fs::read_dir(server.simdb().join(".bases")).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("fhir/GET").exists()).unwrap();
    let folder = std::fs::read_dir(base.join("fhir/PUT")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    std::fs::write(folder.join("Patient1.json"), "{").unwrap();
    std::fs::remove_dir_all(base.join("simindex")).unwrap();
    server.restart();
    for sim in ["a__b", "a__c"] {
        server.fhir(sim).get("/Patient/1").expect(200);
        server.fhir(sim).get("/Patient/2").expect(404);
        let shown = server.client().get(&format!("/api/sims/{sim}")).json();
        assert!(shown["damagedEvents"][0]["reason"].as_str().unwrap().contains("Patient1.json"), "{shown}");
    }
}

#[test]
fn what_builds_on_a_base_is_right_when_that_is_indexed_anew() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    for id in ["1", "2", "3"] {
        put(&fhir, id, "First");
    }
    api(&server, "/api/sims/a__b/reindex", &json!({}));
    // Another order of documents than one that comes of all events at once.
    put(&fhir, "1", "Second");
    api(&server, "/api/sims/a__b/snapshots", &json!({"name": "s"}));
    put(&fhir, "2", "Third");
    api(&server, "/api/sims/a__b/reindex", &json!({}));
    let before = told(state(&fhir));
    assert_eq!(before, "1 Second 2, 2 Third 2, 3 First 1; 5");
    server.kill();
    for base in std::fs::read_dir(server.simdb().join(".bases")).unwrap() {
        std::fs::remove_dir_all(base.unwrap().path().join("simindex")).unwrap();
    }
    server.restart();
    let fhir = server.fhir("a__b");
    assert_eq!(told(state(&fhir)), before);
    assert_eq!(
        (fhir.ids("/Patient?family=first"), fhir.ids("/Patient?family=second"), fhir.ids("/Patient?family=third")),
        (vec!["3".to_owned()], vec!["1".to_owned()], vec!["2".to_owned()])
    );
}

#[test]
fn refused_writes_and_recorded_reads_at_the_end_count() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"record": "all"}})).expect(201);
    let fhir = server.fhir("a__b");
    put(&fhir, "1", "One");
    // In the index now; what comes after brings nothing to index.
    api(&server, "/api/sims/a__b/reindex", &json!({}));
    fhir.send("POST", "/Patient", &[], b"{").expect(400);
    let made = api(&server, "/api/sims/a__b/snapshots", &json!({"name": "s"}));
    assert_eq!(made["events"], 2);
    let again = api(&server, "/api/sims/a__b/snapshots", &json!({"name": "t"}));
    assert_eq!((&again["events"], &again["lastEvent"], bases(&server)), (&json!(2), &made["lastEvent"], 1), "nothing was added: no other base");
    put(&fhir, "2", "Two");
    let events = || server.client().get("/api/sims/a__b/events?order=asc").expect(200).json()["events"].clone();
    let sequences: Vec<u64> = events().as_array().unwrap().iter().map(|e| e["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [1, 2, 3]);
    let read = fhir.get("/Patient/1").expect(200).header("x-fhirsim-event").to_owned();
    // Its folder is written after the answer.
    server.client().get("/api/sims/a__b/events?interaction=read&wait=60s").expect(200);
    server.client().get(&format!("/api/sims/a__b/events/{read}")).expect(200);
    let archive = server.client().get("/api/sims/a__b/archive").expect(200);
    let made = server.client().send("PUT", "/api/sims/a__c/archive", &[("content-type", "application/zstd")], &archive.bytes).expect(201).json();
    assert_eq!(made["events"], 4, "{read} too");
}

#[test]
fn snapshots_that_cannot_be_read_are_not_taken_for_none() {
    let server = TestServer::start();
    let (fhir, file) = (server.fhir("a__b"), server.simdb().join("a__b/snapshots.json"));
    put(&fhir, "1", "One");
    api(&server, "/api/sims/a__b/snapshots", &json!({"name": "s"}));
    put(&fhir, "1", "Two");
    api(&server, "/api/sims/a__b/reset", &json!({}));
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, b"").unwrap();
    // Another that has bases goes, and what nothing needs with it.
    put(&server.fhir("a__other"), "1", "One");
    api(&server, "/api/sims/a__other/snapshots", &json!({"name": "s"}));
    server.client().delete("/api/sims/a__other").expect(204);
    let refused = server.client().post("/api/sims/a__b/snapshots", &json!({"name": "t"}));
    assert!(refused.status >= 500 && refused.refusal().contains("snapshots.json"), "{}", refused.text());
    std::fs::write(&file, whole).unwrap();
    api(&server, "/api/sims/a__b/reset", &json!({"snapshot": "s"}));
    assert_eq!(told(state(&fhir)), "1 One 1; 1");
}

/// Sets it however its scope ends, so that nobody goes on for ever.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What reads event folders meets them moved away by a snapshot again and again, and always finds all that was acknowledged.
#[test]
fn what_reads_events_misses_none_while_they_are_moved() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    put(&fhir, "0", "Needle");
    let (known, newest, done) = (AtomicUsize::new(1), Mutex::new("0".to_owned()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for reader in 0..3 {
            let (server, api, fhir, known, newest, done) = (&server, server.client(), server.fhir("a__b"), &known, &newest, &done);
            let read = move |round: usize| {
                let (least, event) = (known.load(Ordering::Acquire), newest.lock().unwrap().clone());
                let of = |what: &str, count: usize| assert!(count >= least, "{what}: {count} of {least}");
                let length = |path: &str, pointer: &str| api.get(path).expect(200).json().pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
                match (round + reader) % 8 {
                    0 => of("list", length("/api/sims/a__b/events?limit=1000", "/events")),
                    1 => of("HAR", length("/api/sims/a__b/har?limit=1000", "/log/entries")),
                    2 => of("search", fhir.get("/Patient?family:contains=eedl&_summary=count").expect(200).json()["total"].as_u64().unwrap() as usize),
                    3 => of("history", length("/sim/a__b/fhir/_history?_count=1000", "/entry")),
                    4 => {
                        let bytes = api.get("/api/sims/a__b/evidence").expect(200).bytes;
                        let zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
                        of("evidence", zip.file_names().filter(|name| name.as_ref().is_ok_and(|name| name.ends_with("/event.json"))).count());
                    }
                    5 => {
                        let archive = api.get("/api/sims/a__b/archive").expect(200).bytes;
                        let copy = format!("/api/sims/copy__{reader}-{round}/archive");
                        let made = server.client().send("PUT", &copy, &[("content-type", "application/zstd")], &archive).expect(201).json();
                        of("archive", made["events"].as_u64().unwrap() as usize);
                    }
                    _ if event == "0" => {}
                    6 => assert_eq!(api.get(&format!("/api/sims/a__b/events/{event}/files/event.json")).expect(200).json()["event"], event.as_str()),
                    _ => assert!(api.get(&format!("/sims/a__b/events/{event}")).expect(200).text().contains("Needle")),
                }
            };
            scope.spawn(move || (0..usize::MAX).take_while(|_| !done.load(Ordering::Relaxed)).for_each(read));
        }
        let _done = Done(&done);
        for round in 0..30 {
            for n in 0..10 {
                let id = format!("{round}-{n}");
                let stored = fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "name": [{"family": "Needle"}]})).expect(201);
                stored.header("x-fhirsim-event").clone_into(&mut newest.lock().unwrap());
                known.fetch_add(1, Ordering::Release);
            }
            api(&server, "/api/sims/a__b/snapshots", &json!({"name": format!("s{round}")}));
        }
    });
}
