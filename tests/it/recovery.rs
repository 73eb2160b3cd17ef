//! Faults: kill -9, lost indexes, damaged files, a disk that refuses, racing clients.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Client, TestServer, events, patient};

/// Everything that a client can see of some resources.
fn seen(fhir: &Client) -> Vec<String> {
    let mut all = Vec::new();
    let mut path = "/Patient?_sort=_id&_count=1000".to_owned();
    loop {
        let page = fhir.get(&path).expect(200).json();
        for entry in page["entry"].as_array().into_iter().flatten() {
            let id = entry["resource"]["id"].as_str().unwrap();
            all.push(fhir.get(&format!("/Patient/{id}")).expect(200).text().to_owned());
            let mut history = fhir.get(&format!("/Patient/{id}/_history?_count=100")).expect(200).json();
            for volatile in ["id", "meta", "link"] {
                history.as_object_mut().unwrap().remove(volatile);
            }
            all.push(history.to_string());
        }
        match crate::support::link(&page, "next") {
            Some(url) => url.strip_prefix(&fhir.base).unwrap().clone_into(&mut path),
            None => break,
        }
    }
    for query in ["name=f1", "_sort=-name&_count=5", "birthdate=ge1990&_sort=birthdate,_id", "active:missing=true", "gender:not=male", "_lastUpdated=gt2000"] {
        let page = fhir.get(&format!("/Patient?{query}")).expect(200).json();
        all.push(format!("{query}: {} {:?}", page["total"], crate::support::ids(&page)));
    }
    // Links carry the port, which each server has anew.
    all.into_iter().map(|text| text.replace(&fhir.base, "")).collect()
}

fn fill(fhir: &Client, count: usize) {
    let entries: Vec<Value> = (0..count)
        .map(|n| {
            let id = format!("p{n}");
            json!({"request": {"method": "PUT", "url": format!("Patient/{id}")}, "resource": {"resourceType": "Patient", "id": id, "gender": if n % 2 == 0 { "male" } else { "female" },
                "name": [{"family": format!("F{}", n % 10)}], "birthDate": format!("19{:02}-0{}-01", 50 + n % 50, 1 + n % 9)}})
        })
        .collect();
    for chunk in entries.chunks(500) {
        fhir.post("", &json!({"resourceType": "Bundle", "type": "batch", "entry": chunk})).expect(200);
    }
    for n in 0..count / 20 {
        fhir.put(&format!("/Patient/p{n}"), &json!({"resourceType": "Patient", "id": format!("p{n}"), "active": true, "name": [{"family": "Changed"}]}))
            .expect(200);
        fhir.delete(&format!("/Patient/p{}", count - 1 - n)).expect(204);
    }
}

#[test]
fn a_rebuilt_index_answers_as_the_old_one_did() {
    let mut server = TestServer::start();
    fill(&server.fhir("a__b"), 1_200);
    let before = seen(&server.fhir("a__b"));
    assert!(before.len() > 2_000);
    server.stop();
    server.restart();
    assert_eq!(seen(&server.fhir("a__b")), before, "after a clean stop");
    server.kill();
    server.restart();
    assert_eq!(seen(&server.fhir("a__b")), before, "after a kill");
    server.stop();
    std::fs::remove_dir_all(server.simdb().join("a__b/simindex")).unwrap();
    server.restart();
    assert_eq!(seen(&server.fhir("a__b")), before, "without an index");
    server.client().send("POST", "/api/sims/a__b/reindex", &[], b"").expect(200);
    assert_eq!(seen(&server.fhir("a__b")), before, "reindexed by the server");
}

#[test]
fn counts_and_settings_survive_a_restart() {
    let mut server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"fhirVersion": "R5", "settings": {"record": "all"}})).expect(201);
    server.fhir("a__b").put("/Patient/p", &patient("p", "A")).expect(201);
    for stop in [TestServer::stop, TestServer::kill] {
        stop(&mut server);
        server.restart();
        let shown = server.client().get("/api/sims/a__b").expect(200).json();
        assert_eq!(
            (shown["fhirVersion"].clone(), shown["settings"]["record"].clone(), shown["counts"].clone(), shown["eventCount"].clone()),
            (json!("R5"), json!("all"), json!({"Patient": 1}), json!(1))
        );
        // The list opens nothing and still knows.
        server.stop();
        server.restart();
        assert_eq!(server.client().get("/api/sims").json()["sims"][0]["counts"], json!({"Patient": 1}));
    }
}

#[test]
fn a_damaged_event_is_reported_and_the_rest_served() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    for id in ["one", "two", "three"] {
        fhir.put(&format!("/Patient/{id}"), &patient(id, "A")).expect(201);
    }
    server.kill();
    let folders = events(&server.simdb(), "a__b", "PUT");
    let victim = folders[1].join("Patient1.json");
    let text = std::fs::read(&victim).unwrap();
    std::fs::write(&victim, &text[..text.len() / 2]).unwrap();
    server.restart();
    let fhir = server.fhir("a__b");
    fhir.get("/Patient/one").expect(200);
    fhir.get("/Patient/three").expect(200);
    fhir.get("/Patient/two").expect(404);
    let shown = server.client().get("/api/sims/a__b").json();
    let damaged = shown["damagedEvents"][0].clone();
    assert!(damaged["event"].as_str().unwrap().starts_with("PUT/"), "{shown}");
    assert!(damaged["reason"].as_str().unwrap().starts_with("Patient1.json: has "), "{shown}");
}

#[test]
fn a_file_damaged_under_the_index_is_named_when_it_is_read() {
    let mut server = TestServer::start();
    fill(&server.fhir("a__b"), 40);
    server.stop();
    let folder = events(&server.simdb(), "a__b", "PUT").remove(0);
    std::fs::write(folder.join("Patient1.json"), "{").unwrap();
    server.restart();
    let fhir = server.fhir("a__b");
    // Replayed at the start, so the version before the damaged one is the current one.
    fhir.get("/Patient/p0").expect(200);
    assert_eq!(server.client().get("/api/sims/a__b").json()["damagedEvents"].as_array().unwrap().len(), 1);
    fhir.put("/Patient/p39", &patient("p39", "goes on")).expect(201);
}

#[test]
fn a_disk_that_refuses_stores_nothing_and_the_server_lives_on() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "Before")).expect(201);
    let staging = server.simdb().join("a__b/staging");
    std::fs::remove_dir(&staging).unwrap();
    std::fs::write(&staging, "in the way").unwrap();
    let refused = fhir.put("/Patient/p", &patient("p", "Lost")).expect(500);
    assert!(refused.refusal().contains("nothing was stored"));
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"request": {"method": "POST", "url": "Patient"}, "resource": patient("x", "Lost")}]});
    fhir.post("", &bundle).expect(500);
    assert_eq!(fhir.get("/Patient/p").json()["name"][0]["family"], "Before");
    assert_eq!(fhir.get("/Patient?family=Lost").json()["total"], 0);
    std::fs::remove_file(&staging).unwrap();
    std::fs::create_dir(&staging).unwrap();
    let stored = fhir.put("/Patient/p", &patient("p", "After")).expect(200);
    assert_eq!(stored.header("etag"), "W/\"2\"");
}

#[test]
fn racing_conditional_creates_make_one_resource() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for round in 0..10 {
        let condition = format!("identifier=http://s|{round}");
        let body = json!({"resourceType": "Patient", "identifier": [{"system": "http://s", "value": round.to_string()}]}).to_string();
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..16).map(|_| scope.spawn(|| fhir.send("POST", "/Patient", &[("if-none-exist", &condition)], body.as_bytes()).status)).collect();
            clients.into_iter().map(|c| c.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|s| *s == 201 || *s == 200));
    }
}

#[test]
fn racing_updates_lose_nothing() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let count = |n: u64| json!({"resourceType": "Basic", "id": "c", "extension": [{"url": "n", "valueInteger": n}]});
    fhir.put("/Basic/c", &count(0)).expect(201);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut done = 0;
                while done < 5 {
                    let now = fhir.get("/Basic/c").expect(200);
                    let n = now.json()["extension"][0]["valueInteger"].as_u64().unwrap();
                    match fhir.send("PUT", "/Basic/c", &[("if-match", now.header("etag"))], count(n + 1).to_string().as_bytes()).status {
                        200 => done += 1,
                        412 => {}
                        other => panic!("{other}"),
                    }
                }
            });
        }
    });
    let now = fhir.get("/Basic/c").json();
    assert_eq!((now["extension"][0]["valueInteger"].clone(), now["meta"]["versionId"].clone()), (json!(80), json!("81")));
}

/// Counts the writers that are at work, so that a test whose writers ended ends too.
struct AtWork<'a>(&'a AtomicUsize);

impl<'a> AtWork<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Rounds of `kill -9` with writers at work.
fn kill_rounds(arguments: &[&str], rounds: usize) {
    let mut server = TestServer::with(arguments);
    let acknowledged: Mutex<BTreeMap<String, (u64, String)>> = Mutex::default();
    for round in 0..rounds {
        let (stop, working) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let fhir = server.fhir("a__b");
                let (acknowledged, stop) = (&acknowledged, &stop);
                let at_work = AtWork::begin(&working);
                scope.spawn(move || {
                    let _at_work = at_work;
                    for n in 0.. {
                        let id = format!("w{writer}-{}", n % 5);
                        let family = format!("R{round}N{n}");
                        let reply = match n % 3 {
                            0 => fhir.try_send("PUT", &format!("/Patient/{id}"), &[], patient(&id, &family).to_string().as_bytes()),
                            _ => fhir.try_send("POST", "", &[], json!({"resourceType": "Bundle", "type": "transaction", "entry": [
                                {"request": {"method": "PUT", "url": format!("Patient/{id}")}, "resource": patient(&id, &family)},
                                {"request": {"method": "PUT", "url": format!("Basic/{id}")}, "resource": {"resourceType": "Basic", "id": id, "code": {"text": family}}}]}).to_string().as_bytes()),
                        };
                        let Ok(reply) = reply else { return };
                        assert!(reply.status < 300, "{}", reply.text());
                        let value = reply.json();
                        let etag = if n % 3 == 0 { reply.header("etag").to_owned() } else { value["entry"][0]["response"]["etag"].as_str().unwrap().to_owned() };
                        let version = etag.trim_matches(['W', '/', '"']).parse().unwrap();
                        acknowledged.lock().unwrap().insert(id, (version, family));
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            // A moment that the number of answers decides, not the clock.
            let enough = 40 + round * 7;
            while acknowledged.lock().unwrap().values().map(|(v, _)| *v).sum::<u64>() < (enough * (round + 1)) as u64 {
                assert!(working.load(Ordering::SeqCst) > 0, "the writers ended");
                std::thread::yield_now();
            }
            server.kill();
            stop.store(true, Ordering::Relaxed);
        });
        server.restart();
        check(&server, &acknowledged.lock().unwrap());
    }
}

fn check(server: &TestServer, acknowledged: &BTreeMap<String, (u64, String)>) {
    let fhir = server.fhir("a__b");
    for (id, (version, family)) in acknowledged {
        let now = fhir.get(&format!("/Patient/{id}")).expect(200).json();
        let found: u64 = now["meta"]["versionId"].as_str().unwrap().parse().unwrap();
        // One more version may have been stored whose answer the kill cut off.
        assert!(found == *version || found == version + 1, "{id} is at {found}, {version} was acknowledged");
        assert_eq!(fhir.get(&format!("/Patient/{id}/_history/{version}")).expect(200).json()["name"][0]["family"], json!(family));
        let shown = now["name"][0]["family"].as_str().unwrap();
        assert_eq!(fhir.ids(&format!("/Patient?family:exact={shown}&_id={id}")), [id.as_str()]);
        let history = fhir.get(&format!("/Patient/{id}/_history?_count=1000")).json();
        let versions: Vec<u64> =
            history["entry"].as_array().unwrap().iter().map(|e| e["resource"]["meta"]["versionId"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(versions, (1..=found).rev().collect::<Vec<_>>(), "gapless");
    }
    assert_eq!(std::fs::read_dir(server.simdb().join("a__b/staging")).unwrap().count(), 0, "no half folder");
    let total = fhir.get("/Patient?_count=0").json()["total"].as_u64().unwrap();
    assert!(total as usize >= acknowledged.len());
    assert_eq!(server.client().get("/api/sims/a__b").json().get("damagedEvents"), None);
}

#[test]
fn no_acknowledged_write_is_lost_by_kill_9() {
    kill_rounds(&["--auto-create"], 20);
}

#[test]
fn no_acknowledged_write_is_lost_with_the_journal() {
    kill_rounds(&["--auto-create", "--durability", "disk"], 3);
}

#[test]
fn the_journal_restores_what_the_disk_lost() {
    let mut server = TestServer::with(&["--auto-create", "--durability", "disk"]);
    let fhir = server.fhir("a__b");
    let mut kept = None;
    for n in 0..200 {
        fhir.put("/Patient/p", &patient("p", &format!("N{n}")));
        // The journal as it is right after the acknowledgement, before the folder may be trusted.
        let journal: Vec<_> = std::fs::read_dir(server.simdb().join(".journal")).unwrap().map(|e| e.unwrap().path()).collect();
        let folder = events(&server.simdb(), "a__b", "PUT").pop().unwrap();
        let held = journal.iter().find_map(|path| {
            let bytes = std::fs::read(path).ok()?;
            let name = folder.file_name()?.to_str()?.to_owned();
            String::from_utf8_lossy(&bytes).contains(&name).then(|| (path.file_name().unwrap().to_owned(), bytes))
        });
        if let Some(held) = held {
            kept = Some((held, folder));
            break;
        }
    }
    let ((segment, bytes), folder) = kept.expect("an event is in the journal until the file system was synced");
    server.kill();
    // What a power cut may leave of a folder that was never synced.
    std::fs::write(folder.join("Patient1.json"), "").unwrap();
    std::fs::remove_file(folder.join("event.json")).unwrap();
    std::fs::write(server.simdb().join(".journal").join(segment), bytes).unwrap();
    let _ = std::fs::remove_dir_all(server.simdb().join("a__b/simindex"));
    server.restart();
    let now = server.fhir("a__b").get("/Patient/p").expect(200);
    assert_eq!(now.bytes, std::fs::read(folder.join("Patient1.json")).unwrap());
    assert!(now.text().contains("\"family\":\"N"));
    assert!(std::fs::metadata(folder.join("event.json")).unwrap().len() > 0);
    assert_eq!(server.client().get("/api/sims/a__b").json().get("damagedEvents"), None);
}

#[test]
fn a_directory_has_one_server() {
    let server = TestServer::start();
    let second =
        std::process::Command::new(env!("CARGO_BIN_EXE_fhirsim")).args(["serve", "--addr", "127.0.0.1:0", "--simdb"]).arg(server.simdb()).output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("held by another server"));
    let offline = std::process::Command::new(env!("CARGO_BIN_EXE_fhirsim")).args(["reindex", "a__b", "--simdb"]).arg(server.simdb()).output().unwrap();
    assert!(String::from_utf8_lossy(&offline.stderr).contains("held by another server"));
}

#[test]
fn emptied_and_deleted_simulators_stay_so_whatever_the_journal_holds() {
    let mut server = TestServer::with(&["--auto-create", "--durability", "disk"]);
    for (sim, end) in [("a__reset", ("POST", "/api/sims/a__reset/reset")), ("a__again", ("DELETE", "/api/sims/a__again"))] {
        server.fhir(sim).put("/Patient/p", &patient("p", "Old")).expect(201);
        assert!(server.client().send(end.0, end.1, &[], b"").status < 300);
        server.fhir(sim).put("/Patient/q", &patient("q", "New")).expect(201);
    }
    server.kill();
    server.restart();
    for sim in ["a__reset", "a__again"] {
        server.fhir(sim).get("/Patient/p").expect(404);
        server.fhir(sim).get("/Patient/q").expect(200);
    }
}

#[test]
fn simulators_can_be_emptied_reindexed_and_deleted_under_load() {
    let server = TestServer::start();
    let api = server.client();
    let (stop, working) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let fhir = server.fhir("a__b");
            let stop = &stop;
            let at_work = AtWork::begin(&working);
            scope.spawn(move || {
                let _at_work = at_work;
                for n in 0.. {
                    let id = format!("w{writer}-{n}");
                    let status = fhir.put(&format!("/Patient/{id}"), &patient(&id, "F")).status;
                    // Refused, because the simulator went away just then.
                    assert!(matches!(status, 201 | 404), "{status}");
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for round in 0..12 {
            let status = match round % 3 {
                0 => api.send("POST", "/api/sims/a__b/reset", &[], b"").status,
                1 => api.send("POST", "/api/sims/a__b/reindex", &[], b"").status,
                _ => api.delete("/api/sims/a__b").status,
            };
            assert!(matches!(status, 200 | 204 | 404), "{status}");
            while server.fhir("a__b").get("/Patient?_count=0").json()["total"].as_u64().is_none_or(|n| n < 20) {
                assert!(working.load(Ordering::SeqCst) > 0, "the writers ended");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let fhir = server.fhir("a__b");
    let total = fhir.get("/Patient?_count=0").json()["total"].as_u64().unwrap();
    assert_eq!(events(&server.simdb(), "a__b", "PUT").len() as u64, total, "what is there is what was acknowledged since");
    api.send("POST", "/api/sims/a__b/reindex", &[], b"").expect(200);
    assert_eq!(fhir.get("/Patient?_count=0").json()["total"].as_u64(), Some(total));
}

#[test]
fn a_load_keeps_what_is_good_and_says_what_is_not() {
    let server = TestServer::start();
    server.fhir("a__b").get("/metadata").expect(200);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("lines.ndjson"),
        "{\"resourceType\":\"Patient\",\"id\":\"n1\"}\n\n{broken\n{\"resourceType\":\"Patient\"}\n{\"resourceType\":\"Nope\"}\n",
    )
    .unwrap();
    std::fs::write(folder.path().join("bom.json"), "\u{feff}{\"resourceType\":\"Patient\",\"id\":\"bom\"}").unwrap();
    let collection = json!({"resourceType": "Bundle", "type": "collection", "entry": [
        {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Observation", "subject": {"reference": "urn:uuid:2"}}},
        {"fullUrl": "urn:uuid:2", "resource": {"resourceType": "Patient"}}]});
    std::fs::write(folder.path().join("collection.json"), collection.to_string()).unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_fhirsim")).args(["load", "a__b", "--server", server.url()]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(!out.status.success());
    assert!(text.contains("5 resources stored from 3 files"), "{text}");
    assert!(text.contains("lines.ndjson line 3: malformed JSON") && text.contains("lines.ndjson line 5: 400 Bad Request: request.url 'Nope'"), "{text}");
    let fhir = server.fhir("a__b");
    fhir.get("/Patient/bom").expect(200);
    assert!(fhir.get("/Observation").json()["entry"][0]["resource"]["subject"]["reference"].as_str().unwrap().starts_with("Patient/"));
}

#[test]
fn a_transaction_that_is_killed_happened_wholly_or_not_at_all() {
    const ENTRIES: usize = 1_000;
    let mut server = TestServer::start();
    let bundle = |round: usize| {
        let entry = |n: usize| {
            let id = format!("r{round}-{n}");
            json!({"request": {"method": "PUT", "url": format!("Patient/{id}")}, "resource": {"resourceType": "Patient", "id": id, "identifier": [{"system": "urn:round", "value": round.to_string()}]}})
        };
        json!({"resourceType": "Bundle", "type": "transaction", "entry": (0..ENTRIES).map(entry).collect::<Value>()}).to_string()
    };
    // How long one takes says in which moments to kill.
    let began = std::time::Instant::now();
    server.fhir("a__b").send("POST", "", &[], bundle(0).as_bytes()).expect(200);
    let whole = began.elapsed();
    let mut rng = crate::naive::rng::Rng::new(3);
    let (mut acknowledged, mut lost) = (0, 0);
    for round in 1..=20 {
        let (fhir, sent) = (server.fhir("a__b"), bundle(round));
        let moment = whole * u32::try_from(rng.below(130)).unwrap() / 100;
        let answered = std::thread::scope(|scope| {
            let began = std::time::Instant::now();
            let answer = scope.spawn(move || fhir.try_send("POST", "", &[], sent.as_bytes()).is_ok_and(|reply| reply.status == 200));
            while began.elapsed() < moment && !answer.is_finished() {
                std::hint::spin_loop();
            }
            server.kill();
            answer.join().unwrap()
        });
        server.restart();
        let there = server.fhir("a__b").get(&format!("/Patient?identifier=urn:round|{round}&_summary=count")).expect(200).json()["total"].as_u64().unwrap();
        assert!(there == 0 || there == ENTRIES as u64, "round {round}: {there} of {ENTRIES}");
        assert!(!answered || there > 0, "round {round} was acknowledged");
        acknowledged += usize::from(answered);
        lost += usize::from(there == 0);
        assert_eq!(server.client().get("/api/sims/a__b").json().get("damagedEvents"), None, "round {round}");
    }
    assert!(acknowledged < 20 && lost > 0, "{acknowledged} acknowledged, {lost} not there: none was killed in the middle");
}

#[test]
fn what_a_stop_left_of_deletions_is_removed_behind() {
    let mut server = TestServer::start();
    server.fhir("a__b").put("/Patient/p", &patient("p", "A")).expect(201);
    server.kill();
    for left in [".trash/x/fhir/PUT", ".new/a__c/fhir/PUT"] {
        std::fs::create_dir_all(server.simdb().join(left)).unwrap();
        std::fs::write(server.simdb().join(left).join("file"), "x").unwrap();
    }
    server.restart();
    server.fhir("a__b").get("/Patient/p").expect(200);
    assert!(!server.simdb().join(".new/a__c").exists());
    let left = || std::fs::read_dir(server.simdb().join(".trash")).unwrap().count();
    while left() > 0 {
        std::thread::yield_now();
    }
}
