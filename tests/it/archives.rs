//! A simulator as one file, out and in.

use serde_json::{Value, json};

use crate::support::{Client, Reply, TestServer};

fn put(fhir: &Client, id: &str, family: &str) {
    assert!(fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "name": [{"family": family}]})).status < 300);
}

fn import(server: &TestServer, sim: &str, bytes: &[u8]) -> Reply {
    server.client().send("PUT", &format!("/api/sims/{sim}/archive"), &[("content-type", "application/zstd")], bytes)
}

/// What there is to see of a simulator, but for what is of its name.
fn seen(server: &TestServer, sim: &str) -> Vec<String> {
    let fhir = server.fhir(sim);
    let mut all: Vec<String> = ["/Patient?_sort=_id", "/_history", "/Patient?family=two"]
        .iter()
        .map(|path| {
            let bundle = fhir.get(path).expect(200).json();
            let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
            format!(
                "{} {:?}",
                bundle["total"],
                entries.iter().map(|e| (e["resource"].to_string(), e["request"].to_string(), e["response"].to_string())).collect::<Vec<_>>()
            )
        })
        .collect();
    let events = server.client().get(&format!("/api/sims/{sim}/events?order=asc")).expect(200).json();
    all.push(events["events"].as_array().unwrap().iter().map(|e| format!("{} {}", e["event"], e["response"]["status"])).collect());
    all.push(server.client().get(&format!("/api/sims/{sim}/markers")).json().to_string());
    all.push(server.client().get(&format!("/api/sims/{sim}")).json()["settings"].to_string());
    all
}

#[test]
fn a_simulator_goes_out_and_comes_in_as_it_was() {
    let server = TestServer::start();
    let fhir = server.fhir("a__source");
    put(&fhir, "1", "One");
    put(&fhir, "2", "Two");
    fhir.send("POST", "/Patient", &[], b"{").expect(400);
    server
        .client()
        .post("/api/sims", &json!({"id": "a__clone", "from": "a__source", "settings": {"updateCreate": true, "versioning": "versioned"}}))
        .expect(201);
    let clone = server.fhir("a__clone");
    put(&clone, "1", "Changed");
    clone.delete("/Patient/2").expect(204);
    put(&clone, "3", "Two");
    server.client().post("/api/sims/a__clone/markers", &json!({"name": "m"})).expect(201);
    let archive = server.client().get("/api/sims/a__clone/archive").expect(200);
    assert_eq!(archive.header("content-disposition"), "attachment; filename=\"a__clone.tar.zst\"");
    let mut other = TestServer::start();
    let made = import(&other, "b__new", &archive.bytes).expect(201).json();
    assert_eq!((&made["events"], made["base"].as_str().unwrap().ends_with("/sim/b__new/fhir")), (&json!(6), true));
    assert_eq!(seen(&other, "b__new"), seen(&server, "a__clone"));
    other.kill();
    other.restart();
    assert_eq!(seen(&other, "b__new"), seen(&server, "a__clone"));
    // It goes on, and out again.
    put(&other.fhir("b__new"), "4", "Four");
    let again = other.client().get("/api/sims/b__new/archive").expect(200);
    import(&server, "a__back", &again.bytes).expect(201);
    assert_eq!(seen(&server, "a__back"), seen(&other, "b__new"));
    assert!(import(&server, "a__back", &again.bytes).expect(409).refusal().contains("exists already"));
    server.client().get("/api/sims/a__none/archive").expect(404);
}

fn packed(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 3).unwrap());
    for (path, kind, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(*kind);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        // As they stand: the library would refuse some of them.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn archives_with_tricks_make_nothing() {
    use tar::EntryType::{Directory, Regular, Symlink};
    let server = TestServer::start();
    let profile = json!({"type": "fhir", "fhirVersion": "R4", "created": "2020-01-01T00:00:00Z"}).to_string();
    let with = |member: &str, value: Value| {
        let mut profile: Value = serde_json::from_str(&profile).unwrap();
        profile[member] = value;
        profile.to_string()
    };
    let (own, version, built) = (profile.as_bytes(), with("fhirVersion", json!("R9")), with("base", json!("11111111-1111-4111-8111-111111111111")));
    let event = "fhir/POST/2026_01_01_00_00_00_000/event.json";
    for (entries, said) in [
        (vec![("../../../tmp/x", Regular, &b"x"[..])], "'../../../tmp/x', which no simulator has"),
        (vec![("/etc/passwd", Regular, b"x")], "which no simulator has"),
        (vec![("fhir/POST/../../x", Regular, b"x")], "which no simulator has"),
        (vec![("fhir/POST/2026_01_01_00_00_00_000/.x", Regular, b"x")], "which no simulator has"),
        (vec![("simindex/meta.json", Regular, b"x")], "which no simulator has"),
        (vec![("sim.json", Regular, own), (event, Symlink, b"")], "which is no plain file"),
        (vec![("fhir", Directory, b"")], "which is no plain file"),
        (vec![(event, Regular, b"{}")], "the archive has no sim.json"),
        (vec![("sim.json", Regular, b"{}")], "the sim.json of the archive cannot be used"),
        (vec![("sim.json", Regular, version.as_bytes())], "unknown FHIR version 'R9'"),
        (vec![("sim.json", Regular, built.as_bytes())], "builds on what is not in the archive"),
        (vec![("sim.json", Regular, own), (event, Regular, b"{}"), (event, Regular, b"{}")], "cannot be unpacked"),
    ] {
        let refused = import(&server, "a__b", &packed(&entries)).refusal();
        assert!(refused.contains(said), "{said}: {refused}");
        server.client().get("/api/sims/a__b").expect(404);
    }
    // Names that would be read into memory whole, whatever their length.
    let long = packed(&[("sim.json", Regular, own), ("././@LongLink", tar::EntryType::GNULongName, b"fhir/x"), (event, Regular, b"{}")]);
    assert!(import(&server, "a__b", &long).refusal().contains("which is no plain file"));
    let good = packed(&[("sim.json", Regular, own)]);
    for broken in [&b"not zstd"[..], b"", &good[..good.len() / 2]] {
        assert!((400..500).contains(&import(&server, "a__b", broken).status));
    }
    assert_eq!(std::fs::read_dir(server.simdb().join(".new")).map_or(0, Iterator::count), 0, "nothing is left");
    import(&server, "a__b", &good).expect(201);
    assert_eq!(server.fhir("a__b").get("/Patient").expect(200).json()["total"], 0);
}

#[test]
fn a_record_cannot_lead_out_of_its_folder() {
    use tar::EntryType::Regular;
    let server = TestServer::start();
    put(&server.fhir("a__victim"), "1", "One");
    let profile = json!({"type": "fhir", "fhirVersion": "R4", "created": "2020-01-01T00:00:00Z"}).to_string();
    let (first, second) = ("2026_01_01_00_00_00_000", "2026_01_01_00_00_00_001");
    let record = |event: &str, body: &str, resources: Value| {
        json!({"event": event, "sequence": 1, "instant": "2026-01-01T00:00:00.000Z", "sim": "x", "interaction": "update", "client": "127.0.0.1",
            "request": {"method": "PUT; id", "url": "/sim/x/fhir/Patient/1", "headers": {}},
            "response": {"status": 200, "durationUs": 1, "headers": {}, "body": body}, "resources": resources})
        .to_string()
    };
    for (sim, lead) in [("b__up", "../../../../a__victim/sim.json"), ("b__absolute", "/etc/hostname")] {
        let purge = json!([{"type": "Patient", "id": "1", "versionId": 1, "change": "purge", "purges": true, "rewrites": [format!("PUT/{first}")]}]);
        let archive = packed(&[
            ("sim.json", Regular, profile.as_bytes()),
            (&format!("fhir/PUT/{first}/event.json"), Regular, record(first, lead, json!([])).as_bytes()),
            (&format!("fhir/POST/{second}/event.json"), Regular, record(second, "response_body.json", purge).as_bytes()),
        ]);
        import(&server, sim, &archive);
        for path in
            [format!("/events/{first}?include=bodies"), format!("/events/{first}?as=curl"), format!("/events/{first}/files/sim.json"), "/events".to_owned()]
        {
            let reply = server.client().get(&format!("/api/sims/{sim}{path}"));
            assert!(!reply.text().contains("settings") && !reply.text().contains("-X PUT; id"), "{path}: {}", reply.text());
        }
        let page = server.client().get(&format!("/sims/{sim}/events/{first}"));
        assert!(!page.text().contains("fhirVersion"), "{}", page.text());
        server.fhir(sim).get("/Patient/1");
        assert!(server.simdb().join("a__victim/sim.json").exists(), "{lead}");
    }
}
