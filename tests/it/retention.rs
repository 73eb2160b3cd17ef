//! What a simulator forgets, and what it does not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, TestServer, patient};

/// Everything that can be asked of a simulator, with what it answers, links and their hosts aside.
fn all_answers(fhir: &Client, api: &Client, sim: &str) -> BTreeMap<String, String> {
    let mut asked: Vec<String> =
        ["/_history?_count=1000", "/Patient/_history?_count=1000", "/Patient?_count=1000&_sort=_id", "/Observation?subject=Patient/p1&_count=1000"]
            .map(str::to_owned)
            .into();
    for n in 0..6 {
        asked.push(format!("/Patient/p{n}"));
        asked.push(format!("/Patient/p{n}/_history?_count=1000"));
        asked.extend((1..8).map(|v| format!("/Patient/p{n}/_history/{v}")));
        asked.push(format!("/Patient?family=F{n}&_count=100"));
    }
    let mut answers = BTreeMap::new();
    for path in asked {
        let reply = fhir.get(&path);
        let mut value = reply.json();
        if value["resourceType"] == "Bundle" {
            value["id"] = Value::Null;
            value["link"] = Value::Null;
            value["meta"] = Value::Null;
        }
        answers.insert(path, format!("{} {value}", reply.status).replace(api.base(), ""));
    }
    let events = api.get(&format!("/api/sims/{sim}/events?limit=1000")).json();
    let names: Vec<&str> = events["events"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    answers.insert("events".to_owned(), names.join(" "));
    answers.insert("counts".to_owned(), api.get(&format!("/api/sims/{sim}")).json()["counts"].to_string());
    answers.insert("eventCount".to_owned(), api.get(&format!("/api/sims/{sim}")).json()["eventCount"].to_string());
    answers
}

fn retain(api: &Client, sim: &str, retention: Value) -> Value {
    api.patch(&format!("/api/sims/{sim}"), &json!({"settings": {"retention": retention}})).expect(200);
    let next = api.get(&format!("/api/sims/{sim}/retention")).expect(200).json()["next"].clone();
    let done = api.post(&format!("/api/sims/{sim}/retention"), &json!({})).expect(200).json();
    assert_eq!(next, done, "what is said is done");
    done
}

/// Stops the server, deletes all that is derived, and starts it again.
fn from_the_folders(server: &mut TestServer, sim: &str) {
    server.stop();
    let dir = server.simdb().join(sim);
    std::fs::remove_dir_all(dir.join("simindex")).unwrap();
    let _ = std::fs::remove_file(dir.join("events.idx"));
    server.restart();
}

#[test]
fn what_is_further_back_goes_and_what_is_current_stays() {
    let mut server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    let event = |reply: crate::support::Reply| reply.header("x-fhirsim-event").to_owned();
    let first = event(fhir.put("/Patient/p1", &patient("p1", "F1")).expect(201));
    event(fhir.put("/Patient/p1", &patient("p1", "F2")).expect(200));
    let refused = event(fhir.post("/Patient", &json!({"resourceType": "Pateint"})).expect(400));
    let alone = event(fhir.put("/Patient/p2", &patient("p2", "F3")).expect(201));
    event(fhir.put("/Patient/p3", &patient("p3", "F3")).expect(201));
    let deleted = event(fhir.delete("/Patient/p3").expect(204));
    let horizon = event(fhir.put("/Patient/p1", &patient("p1", "F4")).expect(200));
    let after = event(fhir.put("/Patient/p1", &patient("p1", "F5")).expect(200));
    event(fhir.put("/Patient/p4", &patient("p4", "F5")).expect(201));
    let folder = |operation: &str, event: &str| server.simdb().join("a__b/fhir").join(operation).join(event);
    let body = std::fs::read(folder("PUT", &alone).join("Patient1.json")).unwrap();
    let past = |moment: &str, path: &str| server.client().get(&format!("/sim/a__b@{moment}/fhir{path}"));
    let then = past(&horizon, "/Patient?_sort=_id&_elements=name").expect(200).json()["entry"].clone();

    assert_eq!(retain(&api, "a__b", json!({"events": 100}))["horizon"], Value::Null, "nothing is too much");
    let done = retain(&api, "a__b", json!({"events": 2}));
    assert_eq!(done, json!({"horizon": horizon, "events": 4, "exchanges": 3, "versions": 3}));
    for (operation, event, there) in
        [("PUT", &first, false), ("POST", &refused, false), ("PUT", &alone, true), ("DELETE", &deleted, true), ("PUT", &horizon, true), ("PUT", &after, true)]
    {
        assert_eq!(folder(operation, event).exists(), there, "{event}");
    }
    // The resource stays as it was, the exchange is gone, and that is said.
    assert_eq!(std::fs::read(folder("PUT", &alone).join("Patient1.json")).unwrap(), body);
    assert!(!folder("PUT", &alone).join("request_body.json").exists() && folder("PUT", &after).join("request_body.json").exists());
    assert_eq!(api.get(&format!("/api/sims/a__b/events/{alone}")).json()["stripped"], true);
    assert!(api.get(&format!("/sims/a__b/events/{alone}")).text().contains("were removed by retention"));

    fhir.get("/Patient/p3").expect(410);
    fhir.get("/Patient/p3/_history/1").expect(404);
    let versions = |path: &str| -> Vec<String> {
        let entries = fhir.get(path).expect(200).json()["entry"].clone();
        entries.as_array().unwrap().iter().map(|e| e["response"]["etag"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(versions("/Patient/p1/_history"), ["W/\"4\"", "W/\"3\""]);
    assert_eq!(fhir.get("/_history").json()["total"], 5);
    fhir.get("/Patient/p1/_history/2").expect(404);
    // Every moment since can be looked at as before, and none before.
    assert_eq!(past(&horizon, "/Patient?_sort=_id&_elements=name").expect(200).json()["entry"], then);
    assert_eq!(past(&horizon, "/Patient/p1").json()["name"][0]["family"], "F4");
    for moment in [&first, &deleted] {
        assert!(past(moment, "/Patient/p1").expect(410).refusal().contains("remembers nothing from before"));
        assert!(api.get(&format!("/api/sims/a__b/diff?from={moment}")).expect(410).refusal().contains("retention"));
    }
    assert!(api.get("/sims/a__b").text().contains(&format!("nothing from before {horizon}")));
    let answers = all_answers(&fhir, &api, "a__b");
    // Later ones go on from there.
    from_the_folders(&mut server, "a__b");
    let (fhir, api) = (server.fhir("a__b"), server.client());
    assert_eq!(all_answers(&fhir, &api, "a__b"), answers);
    fhir.put("/Patient/p2", &patient("p2", "F6")).expect(200);
    fhir.put("/Patient/p5", &patient("p5", "F6")).expect(201);
    let done = retain(&api, "a__b", json!({"events": 1}));
    assert_eq!(done["versions"], 2, "{done}");
    assert!(!server.simdb().join("a__b/fhir/PUT").join(&alone).exists(), "what was current at the horizon before is not any more");
    assert_eq!(fhir.get("/Patient/p2").json()["meta"]["versionId"], "2");
    for bad in [json!({"age": "soon"}), json!({"evnts": 1}), json!({"events": -1}), json!(5)] {
        api.patch("/api/sims/a__b", &json!({"settings": {"retention": bad}})).expect(400).refusal();
    }
    api.patch("/api/sims/a__b", &json!({"settings": {"retention": {}}})).expect(200);
    assert_eq!(api.post("/api/sims/a__b/retention", &json!({})).json()["horizon"], Value::Null);
}

#[test]
fn age_and_bytes_count_too_and_recorded_reads_go() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    api.put("/api/sims/a__b", &json!({"settings": {"record": "all"}})).expect(201);
    for n in 0..20 {
        fhir.put("/Patient/p1", &patient("p1", &format!("F{n}")));
        fhir.get("/Patient/p1").expect(200);
    }
    api.get("/api/sims/a__b/events?operation=GET&atLeast=20&wait=60s").expect(200);
    fhir.put("/Patient/p2", &patient("p2", "F")).expect(201);
    assert_eq!(retain(&api, "a__b", json!({"age": "1h"}))["horizon"], Value::Null);
    let done = retain(&api, "a__b", json!({"bytes": 20_000}));
    assert!(done["events"].as_u64().unwrap() > 10 && done["versions"].as_u64().unwrap() > 5, "{done}");
    let size: u64 = walkdir::WalkDir::new(server.simdb().join("a__b/fhir"))
        .into_iter()
        .filter_map(|e| e.unwrap().metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len())
        .sum();
    assert!(size < 25_000, "{size}");
    retain(&api, "a__b", json!({"age": "0ms"}));
    assert_eq!(fhir.get("/Patient/p1/_history").json()["total"], 1);
    assert_eq!(fhir.get("/Patient/p1").json()["name"][0]["family"], "F19");
}

#[test]
fn snapshots_and_clones_keep_what_they_need() {
    let mut server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    for n in 0..4 {
        fhir.put("/Patient/p1", &patient("p1", &format!("F{n}")));
    }
    api.post("/api/sims/a__b/snapshots", &json!({"name": "s"})).expect(201);
    api.post("/api/sims", &json!({"id": "a__clone", "from": "a__b@s"})).expect(201);
    let before = all_answers(&server.fhir("a__clone"), &api, "a__clone");
    for n in 4..8 {
        fhir.put("/Patient/p1", &patient("p1", &format!("F{n}"))).expect(200);
    }
    let done = retain(&api, "a__b", json!({"age": "0ms"}));
    assert_eq!(done["versions"], 2, "what the base holds stays, and so does the last event: {done}");
    assert_eq!(all_answers(&server.fhir("a__clone"), &api, "a__clone"), before);
    // A clone of what has forgotten has forgotten it too; a reset to what was before has not.
    api.post("/api/sims", &json!({"id": "a__late", "from": "a__b"})).expect(201);
    let horizon = api.get("/api/sims/a__late").json()["horizon"].as_str().unwrap().to_owned();
    assert_eq!(api.get("/api/sims/a__b").json()["horizon"], horizon.as_str());
    assert_eq!(server.fhir("a__late").get("/Patient/p1/_history").json()["total"], 6);
    server.client().get("/sim/a__late@2001-01-01T00:00:00Z/fhir/Patient").expect(410);
    let answers = all_answers(&server.fhir("a__late"), &api, "a__late");
    from_the_folders(&mut server, "a__late");
    let api = server.client();
    assert_eq!(all_answers(&server.fhir("a__late"), &api, "a__late"), answers);
    api.post("/api/sims/a__b/reset", &json!({"snapshot": "s"})).expect(200);
    assert!(api.get("/api/sims/a__b").json().get("horizon").is_none());
    assert_eq!(server.fhir("a__b").get("/Patient/p1/_history").json()["total"], 4);
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn whatever_happened_the_folders_tell_the_same_as_the_index() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let mut server = TestServer::start();
        let api = server.client();
        api.put("/api/sims/a__b", &json!({"settings": {"historyModifications": true}})).expect(201);
        for round in 0..4 {
            let (fhir, api) = (server.fhir("a__b"), server.client());
            for _ in 0..40 {
                let id = format!("p{}", dice.roll(6));
                match dice.roll(12) {
                    0 => drop(fhir.delete(&format!("/Patient/{id}"))),
                    1 => drop(fhir.post(
                        &format!("/Patient/{id}/$meta-add"),
                        &json!({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": format!("t{}", dice.roll(9))}]}}]}),
                    )),
                    2 => drop(fhir.post(&format!("/Patient/{id}/$purge"), &json!({"resourceType": "Parameters"}))),
                    3 => drop(fhir.post("/Patient", &json!({"resourceType": "Pateint"}))),
                    4 => {
                        let entries: Vec<Value> = (0..6)
                            .map(|_| {
                                let id = format!("p{}", dice.roll(6));
                                json!({"resource": patient(&id, "FB"), "request": {"method": "PUT", "url": format!("Patient/{id}")}})
                            })
                            .collect();
                        drop(fhir.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": entries})));
                    }
                    5 => {
                        let entry = json!({"resource": patient(&id, "FR"), "request": {"method": "PUT", "url": format!("Patient/{id}/_history/1")}, "response": {"status": "200", "lastModified": "2020-01-01T00:00:00Z"}});
                        drop(fhir.post("", &json!({"resourceType": "Bundle", "type": "history", "entry": [entry]})));
                    }
                    6 => drop(fhir.put(
                        &format!("/Observation/o{}", dice.roll(3)),
                        &json!({"resourceType": "Observation", "id": format!("o{}", 0), "subject": {"reference": "Patient/p1"}}),
                    )),
                    7 if dice.roll(4) == 0 => drop(api.post("/api/sims/a__b/snapshots", &json!({"name": format!("s{round}")})).expect(201)),
                    8 if dice.roll(3) == 0 => drop(api.post("/api/sims/a__b/reindex", &json!({})).expect(200)),
                    _ => drop(fhir.put(&format!("/Patient/{id}"), &patient(&id, &format!("F{}", dice.roll(6))))),
                }
            }
            let latest = |fhir: &Client| (0..6).map(|n| fhir.get(&format!("/Patient/p{n}"))).map(|r| format!("{} {}", r.status, r.text())).collect::<Vec<_>>();
            let (current, found) = (latest(&fhir), fhir.get("/Patient?_sort=_id&_count=100").json()["entry"].clone());
            let keep = 5 + dice.roll(30);
            retain(&api, "a__b", json!({"events": keep}));
            assert_eq!(latest(&fhir), current, "seed {seed} round {round}: what is current stays");
            assert_eq!(fhir.get("/Patient?_sort=_id&_count=100").json()["entry"], found);
            let answers = all_answers(&fhir, &api, "a__b");
            assert!(!answers.values().any(|a| a.starts_with("500")), "{answers:?}");
            from_the_folders(&mut server, "a__b");
            let rebuilt = all_answers(&server.fhir("a__b"), &server.client(), "a__b");
            for (path, answer) in &answers {
                assert_eq!(rebuilt.get(path), Some(answer), "seed {seed} round {round}: {path}");
            }
        }
    }
}

#[test]
fn a_server_that_is_killed_while_it_forgets_has_forgotten_or_not() {
    let mut server = TestServer::start();
    let mut dice = Dice(7);
    for round in 0..8 {
        let (fhir, api) = (server.fhir("a__b"), server.client());
        for n in 0..40 {
            let id = format!("p{}", dice.roll(6));
            fhir.put(&format!("/Patient/{id}"), &patient(&id, &format!("F{n}")));
        }
        api.patch("/api/sims/a__b", &json!({"settings": {"retention": {"events": 10}}})).expect(200);
        let latest = |fhir: &Client| (0..6).map(|n| fhir.get(&format!("/Patient/p{n}")).text().to_owned()).collect::<Vec<_>>();
        let current = latest(&fhir);
        let url = server.url().to_owned();
        let forgetting = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let _ = agent.post(format!("{url}/api/sims/a__b/retention")).send(&b""[..]);
        });
        // At another moment each time, by what is on the disk: before, while folders go, after.
        let folders = || std::fs::read_dir(server.simdb().join("a__b/fhir/PUT")).unwrap().count();
        let (there, wanted) = (folders(), dice.roll(30) as usize);
        while !forgetting.is_finished() && folders() + wanted > there {
            std::hint::spin_loop();
        }
        server.kill();
        forgetting.join().unwrap();
        // Half of the time without what was derived, too.
        if round % 2 == 0 {
            std::fs::remove_dir_all(server.simdb().join("a__b/simindex")).unwrap();
            let _ = std::fs::remove_file(server.simdb().join("a__b/events.idx"));
        }
        server.restart();
        let (fhir, api) = (server.fhir("a__b"), server.client());
        assert_eq!(latest(&fhir), current, "round {round}");
        let answers = all_answers(&fhir, &api, "a__b");
        assert!(!answers.values().any(|a| a.starts_with("500")), "{answers:?}");
        assert!(!server.simdb().join("a__b/retention.json").exists());
        from_the_folders(&mut server, "a__b");
        assert_eq!(all_answers(&server.fhir("a__b"), &server.client(), "a__b"), answers, "round {round}");
    }
}

#[test]
fn nothing_is_lost_while_others_write() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p0", &patient("p0", "F")).expect(201);
    api.patch("/api/sims/a__b", &json!({"settings": {"retention": {"events": 20}}})).expect(200);
    let (done, passes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writes = |w: usize| {
            let (fhir, passes) = (server.fhir("a__b"), &passes);
            move || {
                let mut n = 0;
                while n < 100 || passes.load(Ordering::Relaxed) < 3 {
                    let status = fhir.put(&format!("/Patient/w{w}"), &patient(&format!("w{w}"), &format!("F{n}"))).status;
                    assert!(status == 200 || status == 201, "{status}");
                    assert_eq!(fhir.get(&format!("/Patient/w{w}")).expect(200).json()["name"][0]["family"], format!("F{n}"));
                    let history = fhir.get(&format!("/Patient/w{w}/_history")).expect(200).json();
                    n += 1;
                    assert_eq!(history["entry"][0]["resource"]["meta"]["versionId"], n.to_string());
                }
            }
        };
        let writers: Vec<_> = (0..4).map(|w| scope.spawn(writes(w))).collect();
        let forgets = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let went = !api.post("/api/sims/a__b/retention", &json!({})).expect(200).json()["horizon"].is_null();
                passes.fetch_add(u64::from(went), Ordering::Relaxed);
            }
        });
        let written: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        forgets.join().unwrap();
        for one in written {
            one.unwrap();
        }
    });
    assert_eq!(fhir.get("/Patient").json()["total"], 5);
}

#[test]
fn of_two_versions_in_one_event_the_current_one_stays() {
    let mut server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    let entry = |family: &str| json!({"resource": patient("p1", family), "request": {"method": "PUT", "url": "Patient/p1"}});
    let answer = fhir.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": [entry("F1"), entry("F2")]})).expect(200).json();
    assert_eq!(answer["entry"][1]["response"]["etag"], "W/\"2\"", "both are stored, in one event: {answer}");
    fhir.put("/Patient/p2", &patient("p2", "F")).expect(201);
    let done = retain(&api, "a__b", json!({"age": "0ms"}));
    assert_eq!((&done["versions"], &done["events"]), (&json!(1), &json!(0)));
    let holds = |fhir: &Client| {
        assert_eq!(fhir.get("/Patient/p1").expect(200).json()["name"][0]["family"], "F2");
        assert_eq!(fhir.get("/Patient/p1/_history").expect(200).json()["total"], 1);
        fhir.get("/Patient/p1/_history/1").expect(404);
    };
    holds(&fhir);
    from_the_folders(&mut server, "a__b");
    holds(&server.fhir("a__b"));
}
