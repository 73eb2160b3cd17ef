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
        (vec![("sim.json", Regular, own), (event, Regular, b"{}"), (event, Regular, b"{}")], "twice"),
    ] {
        let refused = import(&server, "a__b", &packed(&entries)).refusal();
        assert!(refused.contains(said), "{said}: {refused}");
        server.client().get("/api/sims/a__b").expect(404);
    }
    // Names that would be read into memory whole, whatever their length.
    let long = packed(&[("sim.json", Regular, own), ("././@LongLink", tar::EntryType::GNULongName, b"fhir/x"), (event, Regular, b"{}")]);
    assert!(import(&server, "a__b", &long).refusal().contains("which is no plain file"));
    let good = packed(&[("sim.json", Regular, own)]);
    let tar = zstd::decode_all(&good[..]).unwrap();
    let again = |tar: &[u8]| zstd::encode_all(tar, 1).unwrap();
    let short = again(&tar[..tar.len() - 1024]);
    let longer = again(&[&tar[..], b"more"].concat());
    for broken in [&b"not zstd"[..], b"", &good[..good.len() / 2], &short, &longer, &[&good[..], b"more"].concat()] {
        assert!((400..500).contains(&import(&server, "a__b", broken).status));
    }
    assert_eq!(std::fs::read_dir(server.simdb().join(".new")).map_or(0, Iterator::count), 0, "nothing is left");
    import(&server, "a__b", &good).expect(201);
    assert_eq!(server.fhir("a__b").get("/Patient").expect(200).json()["total"], 0);
}

/// The body of an answer in pieces.
fn unchunked(mut sent: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(line) = sent.windows(2).position(|w| w == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&sent[..line]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&sent[line + 2..line + 2 + length]);
        sent = &sent[line + 4 + length..];
    }
    whole
}

#[test]
fn what_moves_or_removes_a_simulator_does_not_break_its_archive() {
    use base64::Engine as _;
    use std::io::{Read as _, Write as _};
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    // More than fits between the server and a client that does not read, and does not get smaller.
    for n in 0..300 {
        let bytes: Vec<u8> = (0..3_000).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
        let data = base64::engine::general_purpose::STANDARD.encode(&bytes);
        fhir.put(&format!("/Binary/{n}"), &json!({"resourceType": "Binary", "id": n.to_string(), "contentType": "x/y", "data": data})).expect(201);
    }
    let api = server.client();
    let meanwhile: [&dyn Fn(); 4] = [
        &|| drop(api.post("/api/sims/a__b/snapshots", &json!({"name": "s"})).expect(201)),
        &|| drop(api.post("/api/sims/a__b/reset", &json!({"snapshot": "s"})).expect(200)),
        &|| drop(api.post("/api/sims/a__b/reset", &json!({})).expect(200)),
        &|| drop(api.delete("/api/sims/a__b")),
    ];
    let mut whole = Vec::new();
    for (n, happens) in meanwhile.into_iter().enumerate() {
        if n == 3 {
            api.post("/api/sims/a__b/reset", &json!({"snapshot": "s"})).expect(200);
        }
        let mut stream = std::net::TcpStream::connect(server.url().trim_start_matches("http://")).unwrap();
        write!(stream, "GET /api/sims/a__b/archive HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut bytes = vec![0; 4_096];
        let read = stream.read(&mut bytes).unwrap();
        bytes.truncate(read);
        happens();
        stream.read_to_end(&mut bytes).unwrap();
        let begins = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        whole = unchunked(&bytes[begins..]);
        let made = import(&server, &format!("c__{n}"), &whole).expect(201).json();
        assert_eq!(made["events"], 300, "{n}");
        if n == 2 {
            api.post("/api/sims/a__b/reset", &json!({"snapshot": "s"})).expect(200);
        }
    }
    // One that ends in the middle of a file is the client's fault.
    let refused = import(&server, "d__e", &whole[..whole.len() / 2]).expect(400).refusal();
    assert!(refused.contains("the archive cannot be read"), "{refused}");
    api.get("/api/sims/d__e").expect(404);
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

/// An archive with one event, changed.
fn changed(server: &TestServer, change: impl Fn(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let archive = server.client().get("/api/sims/a__source/archive").expect(200).bytes;
    let mut tar = tar::Archive::new(zstd::Decoder::new(&archive[..]).unwrap());
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.push((path, bytes));
    }
    change(&mut files);
    let entries: Vec<(&str, tar::EntryType, &[u8])> = files.iter().map(|(path, bytes)| (path.as_str(), tar::EntryType::Regular, &bytes[..])).collect();
    packed(&entries)
}

#[test]
fn events_that_no_export_has_written_make_nothing() {
    let server = TestServer::start();
    put(&server.fhir("a__source"), "1", "One");
    let edit = |files: &mut Vec<(String, Vec<u8>)>, change: &dyn Fn(&mut Value)| {
        let (_, bytes) = files.iter_mut().find(|(path, _)| path.ends_with("event.json")).unwrap();
        let mut record: Value = serde_json::from_slice(bytes).unwrap();
        change(&mut record);
        *bytes = record.to_string().into_bytes();
    };
    let renamed = |files: &mut Vec<(String, Vec<u8>)>, event: &str| {
        for (path, _) in files.iter_mut().filter(|(path, _)| path.starts_with("fhir/")) {
            let name = path.rsplit('/').next().unwrap().to_owned();
            *path = format!("fhir/PUT/{event}/{name}");
        }
        edit(files, &|record| record["event"] = json!(event));
    };
    let folder =
        |files: &Vec<(String, Vec<u8>)>| files.iter().find(|(path, _)| path.ends_with("event.json")).unwrap().0.trim_end_matches("/event.json").to_owned();
    let bad: [(&str, Vec<u8>); 6] = [
        ("does not name", changed(&server, |files| files.push((format!("{}/zero.bin", folder(files)), vec![0; 1 << 20])))),
        ("twice", changed(&server, |files| files.push((format!("{}/event.json", folder(files)), b"{}".to_vec())))),
        ("is called '2025_01_01_00_00_00_000'", changed(&server, |files| edit(files, &|record| record["event"] = json!("2025_01_01_00_00_00_000")))),
        ("ahead of this server's clock", changed(&server, |files| renamed(files, "9999_12_31_23_59_59_999_999"))),
        ("a number greater", changed(&server, |files| edit(files, &|record| record["sequence"] = json!(u64::MAX)))),
        ("a number greater", changed(&server, |files| edit(files, &|record| record["resources"][0]["versionId"] = json!(u64::MAX)))),
    ];
    for (why, archive) in bad {
        let refused = import(&server, "a__bad", &archive).expect(400).refusal();
        assert!(refused.contains(why) && refused.contains("nothing was made"), "{why}: {refused}");
        server.client().get("/api/sims/a__bad").expect(404);
    }
    // Some hours ahead, it goes on from there, and can be looked back to.
    let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 5 * 3_600;
    let instant = chrono::DateTime::from_timestamp(ahead.cast_signed(), 0).unwrap().format("%Y_%m_%d_%H_%M_%S_000").to_string();
    import(&server, "a__ahead", &changed(&server, |files| renamed(files, &instant))).expect(201);
    let fhir = server.fhir("a__ahead");
    let event = fhir.put("/Patient/2", &json!({"resourceType": "Patient", "id": "2"})).expect(201).header("x-fhirsim-event").to_owned();
    assert!(event > instant);
    assert_eq!(server.fhir(&format!("a__ahead@{event}")).get("/Patient").expect(200).json()["total"], 2);
    assert_eq!(server.fhir(&format!("a__ahead@{instant}")).get("/Patient").expect(200).json()["total"], 1);
}
