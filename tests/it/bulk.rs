//! Exports of bulk data.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{Reply, TestServer, patient};

const ASYNC: [(&str, &str); 2] = [("accept", "application/fhir+json"), ("prefer", "respond-async")];

fn world(server: &TestServer) {
    let fhir = server.fhir("a__b");
    for n in 0..5 {
        fhir.put(
            &format!("/Patient/p{n}"),
            &json!({"resourceType": "Patient", "id": format!("p{n}"), "gender": if n % 2 == 0 { "male" } else { "female" }, "name": [{"family": "F"}]}),
        )
        .expect(201);
        let observation = json!({"resourceType": "Observation", "id": format!("o{n}"), "status": "final", "code": {"text": "c"}, "subject": {"reference": format!("Patient/p{n}")}});
        fhir.put(&format!("/Observation/o{n}"), &observation).expect(201);
    }
    fhir.put("/Observation/alone", &json!({"resourceType": "Observation", "id": "alone", "status": "final", "code": {"text": "c"}})).expect(201);
    fhir.put("/Organization/x", &json!({"resourceType": "Organization", "id": "x", "name": "x"})).expect(201);
    let member = |id: &str, inactive: bool| json!({"entity": {"reference": format!("Patient/{id}")}, "inactive": inactive});
    let group = json!({"resourceType": "Group", "id": "g", "type": "person", "actual": true, "name": "g", "quantity": 2, "member": [member("p0", false), member("p1", false), member("p4", true)]});
    fhir.put("/Group/g", &group).expect(201);
}

fn path_of(server: &TestServer, reply: &Reply) -> String {
    let place = reply.header("content-location").to_owned();
    place.strip_prefix(server.url()).unwrap_or_else(|| panic!("{place} is absolute")).to_owned()
}

/// Waits for an export; returns its manifest.
fn manifest(server: &TestServer, begun: Reply) -> Value {
    let status = path_of(server, &begun.expect(202));
    loop {
        let reply = server.client().get(&status);
        if reply.status == 202 {
            assert!(reply.header("x-progress").ends_with("% complete") && reply.header("retry-after").parse::<u32>().is_ok());
            std::thread::yield_now();
            continue;
        }
        assert!(!reply.header("expires").is_empty());
        return reply.expect(200).json();
    }
}

/// `Type/id` of all that is in the files of a list.
fn contents(server: &TestServer, manifest: &Value, list: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for output in manifest[list].as_array().unwrap() {
        let path = output["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
        let reply = server.client().get(&path).expect(200);
        assert_eq!(reply.header("content-type"), "application/fhir+ndjson");
        let lines: Vec<Value> = reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len() as u64, output["count"].as_u64().unwrap());
        for line in lines {
            assert_eq!(line["resourceType"], output["type"]);
            let name = if list == "deleted" {
                line["entry"][0]["request"]["url"].as_str().unwrap().to_owned()
            } else {
                format!("{}/{}", output["type"].as_str().unwrap(), line["id"].as_str().unwrap_or("-"))
            };
            assert!(found.insert(name.clone()) || list == "error", "{name} twice");
        }
    }
    found
}

fn exported(server: &TestServer, path: &str) -> BTreeSet<String> {
    let begun = server.fhir("a__b").send("GET", path, &ASYNC, b"");
    let manifest = manifest(server, begun);
    contents(server, &manifest, "output")
}

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_level_exports_what_belongs_to_it() {
    let server = TestServer::start();
    world(&server);
    let all = exported(&server, "/$export");
    assert_eq!(all.len(), 13);
    let of_patients = exported(&server, "/Patient/$export");
    assert_eq!(of_patients.len(), 11, "patients, what is about them, and the group that has them: {of_patients:?}");
    assert!(!of_patients.contains("Observation/alone") && !of_patients.contains("Organization/x"));
    let of_group = exported(&server, "/Group/g/$export?_type=Patient,Observation");
    assert_eq!(of_group, names(&["Patient/p0", "Patient/p1", "Observation/o0", "Observation/o1"]));
    assert_eq!(exported(&server, "/$export?_type=Organization&_type=Group"), names(&["Organization/x", "Group/g"]));
    assert_eq!(exported(&server, "/$export?_type=Basic"), BTreeSet::new());
    assert_eq!(
        exported(&server, "/$export?_type=Patient&_typeFilter=Patient%3Fgender%3Dmale%26_id%3Dp0%252Cp1&_typeFilter=Patient%3F_id%3Dp3"),
        names(&["Patient/p0", "Patient/p3"])
    );
    server.fhir("a__b").send("GET", "/Group/none/$export", &ASYNC, b"").expect(404).refusal();

    let parameters = json!({"resourceType": "Parameters", "parameter": [
        {"name": "_type", "valueString": "Patient,Observation"}, {"name": "patient", "valueReference": {"reference": "Patient/p2"}}, {"name": "_elements", "valueString": "Patient.gender"}]});
    let begun = server.fhir("a__b").send(
        "POST",
        "/Patient/$export",
        &[ASYNC[0], ASYNC[1], ("content-type", "application/fhir+json")],
        parameters.to_string().as_bytes(),
    );
    let manifest = manifest(&server, begun);
    assert_eq!(contents(&server, &manifest, "output"), names(&["Patient/p2", "Observation/o2"]));
    assert!(manifest["request"].as_str().unwrap().ends_with("/sim/a__b/fhir/Patient/$export") && manifest["requiresAccessToken"] == false);
    let of = |type_name: &str| {
        let output = manifest["output"].as_array().unwrap().iter().find(|o| o["type"] == type_name).unwrap();
        server.client().get(output["url"].as_str().unwrap().strip_prefix(server.url()).unwrap()).json()
    };
    let patient = of("Patient");
    assert!(patient["gender"] == "male" && patient.get("name").is_none() && patient["meta"]["tag"][0]["code"] == "SUBSETTED", "{patient}");
    assert!(of("Observation")["subject"].is_object(), "elements of Patient only");
}

#[test]
fn what_cannot_be_asked_is_refused_or_reported() {
    let server = TestServer::start();
    world(&server);
    let fhir = server.fhir("a__b");
    for (path, why) in [
        ("/$export?_type=Pateint", "did you mean 'Patient'"),
        ("/$export?_since=never", "_since"),
        ("/$export?_since=2999-01-01T00:00:00Z", "future"),
        ("/$export?_until=never", "_until"),
        ("/$export?_outputFormat=text/csv", "_outputFormat"),
        ("/$export?patient=p1", "patient"),
        ("/Patient/$export?patient=p1", "patient"),
        ("/$export?includeAssociatedData=x", "includeAssociatedData"),
        ("/$export?bogus=x", "bogus"),
        ("/$export?_typeFilter=Patient", "_typeFilter"),
        ("/$export?_typeFilter=Patient%3Fgendr%3Dx", "did you mean"),
        ("/$export?_typeFilter=Patient%3F_include%3D*", "_include"),
        ("/$export?_typeFilter=Patient%3Fbirthdate%3Dnever", "birthdate"),
        ("/$export?_elements=Patient.nmae", "'Patient.nmae' is no element"),
        ("/$export?_elements=id,Patient.name.family", "'Patient.name.family' is no element"),
    ] {
        let refused = fhir.send("GET", path, &ASYNC, b"").expect(400).refusal();
        assert!(refused.contains(why), "{path}: {refused}");
    }
    fhir.send("GET", "/$export", &[("accept", "text/html"), ASYNC[1]], b"").expect(400).refusal();
    fhir.send("GET", "/$export", &[ASYNC[0], ("prefer", "respond-sync")], b"").expect(400).refusal();
    fhir.send("DELETE", "/$export", &ASYNC, b"").expect(405).refusal();
    fhir.send("HEAD", "/$export", &ASYNC, b"").expect(405);
    fhir.send("GET", "/Patient$export", &ASYNC, b"").expect(404);
    fhir.send("GET", "/%24export", &ASYNC, b"").expect(202);
    for bad in [json!({"keepMinutes": 4_294_967_295_u32}), json!({"page": 0})] {
        server.client().patch("/api/sims/a__b", &json!({"settings": {"bulk": bad}})).expect(400).refusal();
    }
    fhir.send("POST", "/$export", &[ASYNC[0], ASYNC[1], ("content-type", "application/fhir+json")], b"{\"resourceType\":\"Patient\"}").expect(400).refusal();
    let lenient = [ASYNC[0], ("prefer", "respond-async, handling=lenient")];
    let manifest = manifest(&server, fhir.send("GET", "/$export?bogus=x&_type=Pateint,Patient", &lenient, b""));
    assert_eq!((manifest["error"][0]["count"].as_u64(), manifest["error"][0]["type"].as_str()), (Some(2), Some("OperationOutcome")));
    assert_eq!(contents(&server, &manifest, "output").len(), 5);
    // Of no type is not of all.
    assert!(fhir.send("GET", "/$export?_type=Pateint", &lenient, b"").expect(400).refusal().contains("names no resource type"));
    let manifest_of = |query: &str| self::manifest(&server, fhir.send("GET", &format!("/$export?{query}"), &lenient, b""));
    assert_eq!(manifest_of("_elements=Patient.nmae")["error"][0]["count"], 1);
    // The moment is that of the kick-off, not of the last write.
    let before = chrono::Utc::now().timestamp_millis();
    let manifest = manifest_of("_type=Patient");
    let time = chrono::DateTime::parse_from_rfc3339(manifest["transactionTime"].as_str().unwrap()).unwrap().timestamp_millis();
    assert!(time >= before - 1 && time <= chrono::Utc::now().timestamp_millis(), "{time} {before}");
    let file = manifest["output"][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
    let vary: String = server.client().get(&file).headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| format!("{value},")).collect();
    assert!(vary.to_ascii_lowercase().contains("accept-encoding"), "{vary}");
    // A Group whose members cannot be told is there all the same.
    let filter = json!({"url": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter", "valueExpression": {"language": "application/x-fhir-query", "expression": "Nope?x=1"}});
    fhir.put("/Group/odd", &json!({"resourceType": "Group", "id": "odd", "type": "person", "actual": false, "modifierExtension": [filter]})).expect(201);
    fhir.send("GET", "/Group/odd/$export", &ASYNC, b"").expect(400).refusal();
    // The reference server insists on both headers.
    server.client().put("/api/sims/a__bulk", &json!({"type": "bulk"})).expect(201);
    let bulk = server.fhir("a__bulk");
    bulk.send("GET", "/$export", &[ASYNC[0]], b"").expect(400);
    bulk.send("GET", "/$export", &[ASYNC[1], ("accept", "*/*")], b"").expect(400);
    let begun = bulk.send("GET", "/$export", &ASYNC, b"").expect(202);
    assert_eq!(begun.json()["resourceType"], "OperationOutcome");
}

#[test]
fn an_export_is_ended_and_expires() {
    let mut server = TestServer::start();
    world(&server);
    let fhir = server.fhir("a__b");
    let begun = fhir.send("GET", "/$export", &ASYNC, b"").expect(202);
    let status = path_of(&server, &begun);
    let whole = manifest(&server, begun);
    let file = whole["output"][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
    let api = server.client();
    let text = api.get(&file).expect(200).text().to_owned();
    let part = api.send("GET", &file, &[("range", "bytes=3-12")], b"").expect(206);
    assert_eq!((part.text(), part.header("content-range")), (&text[3..13], format!("bytes 3-12/{}", text.len()).as_str()));
    api.send("GET", &file, &[("range", &format!("bytes={}-", text.len()))], b"").expect(416);
    let unparted = api.send("GET", &file, &[("range", "bytes=3-12"), ("if-range", "\"x\"")], b"").expect(200);
    assert_eq!(unparted.text(), text);
    let packed = api.send("GET", &file, &[("accept-encoding", "gzip")], b"").expect(200);
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed.bytes[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, text);
    for bad in [
        "/sim/a__b/bulk/x",
        "/sim/a__b/bulk/../../a__b",
        "/sim/a__b/bulk/3fa85f64-5717-4562-b3fc-2c963f66afa6",
        &format!("{status}/../job.json"),
        &format!("{status}/job.json"),
        &format!("{status}/none"),
    ] {
        api.get(bad).expect(404).refusal();
    }
    assert_eq!(api.get("/api/sims/a__b/exports").json()["exports"][0]["resources"], 13);
    // What was whole is whole after a restart.
    server.kill();
    server.restart();
    let (status_now, file_now) = (status.clone(), file.clone());
    assert_eq!(server.client().get(&status_now).expect(200).json()["output"].as_array().unwrap().len(), whole["output"].as_array().unwrap().len());
    assert_eq!(server.client().get(&file_now).expect(200).text(), text);
    server.client().delete(&status).expect(202);
    server.client().get(&status).expect(404).refusal();
    server.client().get(&file).expect(404).refusal();
    assert_eq!(std::fs::read_dir(server.simdb().join(".bulk/a__b")).unwrap().count(), 0);
    // Of another simulator of the name there is none.
    let begun = server.fhir("a__b").send("GET", "/$export", &ASYNC, b"").expect(202);
    let status = path_of(&server, &begun);
    manifest(&server, begun);
    server.client().delete("/api/sims/a__b").expect(204);
    server.client().put("/api/sims/a__b", &json!({})).expect(201);
    server.client().get(&status).expect(404);
}

#[test]
fn files_hold_what_there_was_at_their_moment() {
    let server = TestServer::start();
    server.fhir("a__b").put("/Patient/seed", &patient("seed", "A")).expect(201);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for w in 0..3 {
            let (fhir, stop) = (server.fhir("a__b"), &stop);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let id = format!("w{w}x{}", n % 40);
                    match n % 7 {
                        6 => drop(fhir.delete(&format!("/Patient/{id}"))),
                        _ => drop(fhir.put(&format!("/Patient/{id}"), &patient(&id, &format!("F{n}")))),
                    }
                    n += 1;
                }
            });
        }
        let mut since = None::<String>;
        for _ in 0..6 {
            let path = since.as_ref().map_or("/$export?_type=Patient".to_owned(), |since| format!("/$export?_type=Patient&_since={since}"));
            let whole = manifest(&server, server.fhir("a__b").send("GET", &path, &ASYNC, b""));
            let time = whole["transactionTime"].as_str().unwrap().to_owned();
            if since.is_none() {
                let found = contents(&server, &whole, "output");
                let then = server.client().get(&format!("/sim/a__b@{time}/fhir/Patient?_count=1000&_elements=id")).expect(200).json();
                let there: BTreeSet<String> =
                    then["entry"].as_array().unwrap().iter().map(|e| format!("Patient/{}", e["resource"]["id"].as_str().unwrap())).collect();
                assert_eq!(found, there, "at {time}");
            }
            since = if since.is_some() { None } else { Some(time) };
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // Changes since: what came, changed and went, and nothing else.
    let whole = manifest(&server, server.fhir("a__b").send("GET", "/$export", &ASYNC, b""));
    let since = whole["transactionTime"].as_str().unwrap();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/new", &patient("new", "A")).expect(201);
    fhir.delete("/Patient/seed").expect(204);
    fhir.put("/Patient/brief", &patient("brief", "A")).expect(201);
    fhir.delete("/Patient/brief").expect(204);
    let changed = manifest(&server, fhir.send("GET", &format!("/$export?_since={since}"), &ASYNC, b""));
    assert_eq!(contents(&server, &changed, "output"), names(&["Patient/new"]));
    assert_eq!(contents(&server, &changed, "deleted"), names(&["Patient/brief", "Patient/seed"]));
    // Of a type of which nothing is left, too; but not of what nobody can tell whose it was.
    fhir.put("/Basic/x", &json!({"resourceType": "Basic", "id": "x", "code": {"text": "c"}})).expect(201);
    fhir.put("/Group/g", &json!({"resourceType": "Group", "id": "g", "member": [{"entity": {"reference": "Patient/new"}}, {"entity": {"reference": "http://elsewhere.example/fhir/Patient/w0x0"}}]})).expect(201);
    fhir.delete("/Basic/x").expect(204);
    let changed = manifest(&server, fhir.send("GET", &format!("/$export?_since={since}"), &ASYNC, b""));
    assert!(contents(&server, &changed, "deleted").contains("Basic/x"));
    let of_group = manifest(&server, fhir.send("GET", &format!("/Group/g/$export?_since={since}&_type=Patient"), &ASYNC, b""));
    assert_eq!((contents(&server, &of_group, "output"), &of_group["deleted"]), (names(&["Patient/new"]), &json!([])));
}

#[test]
fn knobs_and_tokens_are_those_of_the_reference_server() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"type": "bulk", "settings": {}})).expect(201);
    world(&server);
    let with = |knobs: Value| format!("/sim/a__b/{}/fhir", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(knobs.to_string()));
    let api = server.client();
    let paged = manifest(&server, api.send("GET", &format!("{}/Patient/$export?_type=Patient", with(json!({"page": 2, "dur": 0}))), &ASYNC, b""));
    assert_eq!(paged["output"].as_array().unwrap().iter().map(|o| o["count"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(paged["output"][0]["url"].as_str().unwrap().contains("/sim/a__b/ey"), "the segment stays in the URLs");
    assert_eq!(contents(&server, &paged, "output").len(), 5);
    // The rest of the endpoint is there, too.
    api.get(&format!("{}/Patient/p0", with(json!({"page": 2})))).expect(200);
    api.send("GET", &format!("{}/$export", with(json!({"err": "file_generation_failed"}))), &ASYNC, b"").expect(500).refusal();
    let some =
        manifest(&server, api.send("GET", &format!("{}/$export?_type=Patient", with(json!({"err": "some_file_generation_failed", "page": 1}))), &ASYNC, b""));
    assert_eq!((some["output"].as_array().unwrap().len(), some["error"][0]["count"].as_u64()), (1, Some(4)));
    let begun = api.send("GET", &format!("{}/$export", with(json!({"err": "transient_error"}))), &ASYNC, b"").expect(202);
    let first = api.get(&path_of(&server, &begun)).expect(500).json();
    assert_eq!(first["issue"][0]["code"], "transient");
    manifest(&server, begun);
    let gone = manifest(&server, api.send("GET", &format!("{}/$export", with(json!({"err": "file_expired"}))), &ASYNC, b""));
    api.get(gone["output"][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap()).expect(410).refusal();
    let long = api.send("GET", &format!("{}/$export", with(json!({"dur": 600}))), &ASYNC, b"").expect(202);
    api.get(&path_of(&server, &long)).expect(202);

    api.patch("/api/sims/a__b", &json!({"settings": {"auth": "smart-backend"}})).expect(200);
    let minted =
        |scope: &str| format!("Bearer {}", api.post("/api/sims/a__b/token", &json!({"scope": scope})).expect(200).json()["access_token"].as_str().unwrap());
    let (patients, all) = (minted("system/Patient.rs"), minted("system/*.rs"));
    let ask = |token: &str, path: &str| api.send("GET", path, &[ASYNC[0], ASYNC[1], ("authorization", token)], b"");
    api.send("GET", "/sim/a__b/fhir/$export", &ASYNC, b"").expect(401).refusal();
    ask(&patients, "/sim/a__b/fhir/$export?_type=Observation").expect(403).refusal();
    let begun = ask(&all, "/sim/a__b/fhir/$export?_type=Patient,Observation").expect(202);
    let status = path_of(&server, &begun);
    api.get(&status).expect(401);
    let whole = loop {
        let reply = ask(&all, &status);
        if reply.status != 202 {
            break reply.expect(200).json();
        }
    };
    assert_eq!(whole["requiresAccessToken"], true);
    for output in whole["output"].as_array().unwrap() {
        let path = output["url"].as_str().unwrap().strip_prefix(server.url()).unwrap();
        api.get(path).expect(401);
        ask(&all, path).expect(200);
        assert_eq!(ask(&patients, path).status, if output["type"] == "Patient" { 200 } else { 403 });
    }
    // Without names, what the token allows; and of that what it is restricted to.
    let some = minted("system/Patient.rs?gender=male");
    let status = path_of(&server, &ask(&some, "/sim/a__b/fhir/$export").expect(202));
    let whole = loop {
        let reply = ask(&some, &status);
        if reply.status != 202 {
            break reply.expect(200).json();
        }
    };
    assert_eq!((whole["output"].as_array().unwrap().len(), &whole["output"][0]["count"]), (1, &json!(3)));
    // A group that a search makes tells what the search finds.
    let filter = json!({"url": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter",
        "valueExpression": {"language": "application/x-fhir-query", "expression": "Observation?status=final"}});
    let group = json!({"resourceType": "Group", "id": "f", "type": "person", "actual": false, "modifierExtension": [filter]});
    api.send("PUT", "/sim/a__b/fhir/Group/f", &[("authorization", &minted("system/Group.cruds"))], group.to_string().as_bytes()).expect(201);
    let refused = ask(&minted("system/Patient.rs system/Group.rs"), "/sim/a__b/fhir/Group/f/$export?_type=Patient").expect(403).refusal();
    assert!(refused.contains("system/Observation.s"), "{refused}");
    ask(&minted("system/Patient.rs system/Group.rs system/Observation.rs"), "/sim/a__b/fhir/Group/f/$export?_type=Patient").expect(202);
    // The group itself is not handed out: real clients ask for the types that they want alone. A search in a scope has to find it.
    api.send(
        "PUT",
        "/sim/a__b/fhir/Group/h",
        &[("authorization", &minted("system/Group.cruds"))],
        br#"{"resourceType":"Group","id":"h","type":"person","actual":true}"#,
    )
    .expect(201);
    ask(&minted("system/Patient.rs"), "/sim/a__b/fhir/Group/h/$export?_type=Patient").expect(202);
    ask(&minted("system/Patient.rs system/Group.rs?_id=h"), "/sim/a__b/fhir/Group/h/$export?_type=Patient").expect(202);
    let refused = ask(&minted("system/Patient.rs system/Group.rs?_id=f"), "/sim/a__b/fhir/Group/h/$export?_type=Patient").expect(403).refusal();
    assert!(refused.contains("system/Group.r"), "{refused}");
    // Whether there is a patient of that name is not told to everybody.
    let chosen = |id: &str| {
        let body = json!({"resourceType": "Parameters", "parameter": [{"name": "patient", "valueReference": {"reference": format!("Patient/{id}")}}]});
        api.send(
            "POST",
            "/sim/a__b/fhir/Patient/$export",
            &[ASYNC[0], ASYNC[1], ("authorization", &minted("system/Observation.rs"))],
            body.to_string().as_bytes(),
        )
    };
    assert_eq!((chosen("p0").status, chosen("none").status), (403, 403));
}

#[test]
fn a_server_that_is_killed_calls_nothing_whole_that_is_not() {
    let mut server = TestServer::start();
    for round in 0..4 {
        let fhir = server.fhir("a__b");
        let entries: Vec<Value> = (0..400)
            .map(|n| json!({"resource": {"resourceType": "Basic", "id": format!("r{round}x{n}"), "code": {"text": "c"}}, "request": {"method": "PUT", "url": format!("Basic/r{round}x{n}")}}))
            .collect();
        fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
        server.client().patch("/api/sims/a__b", &json!({"settings": {"bulk": {"page": 50}}})).expect(200);
        let begun = fhir.send("GET", "/$export", &ASYNC, b"").expect(202);
        let status = path_of(&server, &begun);
        let folder = server.simdb().join(".bulk/a__b").join(status.rsplit('/').next().unwrap());
        // Another file each time.
        while std::fs::read_dir(&folder).map_or(0, Iterator::count) < 1 + round * 2 && server.client().get(&status).status == 202 {
            std::hint::spin_loop();
        }
        server.kill();
        server.restart();
        // It is made again, of the moment that it was of.
        server.fhir("a__b").put("/Basic/later", &json!({"resourceType": "Basic", "id": "later", "code": {"text": format!("{round}")}}));
        let whole = loop {
            let reply = server.client().get(&status);
            if reply.status != 202 {
                break reply.expect(200).json();
            }
            std::thread::yield_now();
        };
        assert_eq!(contents(&server, &whole, "output").len(), 400 * (round + 1) + usize::from(round > 0));
        assert_eq!(server.client().get("/api/sims/a__b/exports").json()["exports"][0]["phase"], "complete");
        server.client().delete(&status).expect(202);
    }
}

#[test]
fn what_goes_meanwhile_makes_no_short_file() {
    let server = TestServer::start();
    let api = server.client();
    let slow = format!("/sim/a__b/{}/fhir", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"page":1}"#));
    for (sim, many) in [("a__b", 1_200), ("b__b", 100)] {
        let entries: Vec<Value> = (0..many).map(|n| json!({"resource": {"resourceType": "Basic", "id": format!("x{n}"), "code": {"text": "c"}}, "request": {"method": "PUT", "url": format!("Basic/x{n}")}})).collect();
        server.fhir(sim).post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
    }
    // One waits for the other, and meanwhile all that it is of is superseded and to be forgotten.
    let first = api.send("GET", &format!("{slow}/$export"), &ASYNC, b"").expect(202);
    let second = server.fhir("b__b").send("GET", "/$export", &ASYNC, b"").expect(202);
    for n in 0..100 {
        server.fhir("b__b").put(&format!("/Basic/x{n}"), &json!({"resourceType": "Basic", "id": format!("x{n}")})).expect(200);
    }
    api.patch("/api/sims/b__b", &json!({"settings": {"retention": {"events": 1}}})).expect(200);
    api.post("/api/sims/b__b/retention", &json!({})).expect(200);
    let status = path_of(&server, &first);
    api.delete(&status).expect(202);
    api.get(&status).expect(404);
    let whole = manifest(&server, second);
    assert_eq!((contents(&server, &whole, "output").len(), &whole["error"]), (100, &json!([])));
    // What is reset in mid export is not called whole.
    let begun = api.send("GET", &format!("{slow}/$export"), &ASYNC, b"").expect(202);
    let status = path_of(&server, &begun);
    api.post("/api/sims/a__b/reset", &json!({})).expect(200);
    loop {
        let reply = api.get(&status);
        match reply.status {
            202 => std::thread::yield_now(),
            200 => break assert_eq!(contents(&server, &reply.json(), "output").len(), 1_200),
            _ => break assert!(reply.expect(500).refusal().contains("reset meanwhile")),
        }
    }
    api.delete("/api/sims/a__b").expect(204);
    assert!(!server.simdb().join(".bulk/a__b").exists());
}

#[test]
fn output_is_organized_by_a_type() {
    let server = TestServer::start();
    world(&server);
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p0", &json!({"resourceType": "Patient", "id": "p0", "managingOrganization": {"reference": "Organization/x"}})).expect(200);
    let blocks = |path: &str| {
        let whole = manifest(&server, fhir.send("GET", path, &ASYNC, b""));
        assert!(whole["output"].as_array().unwrap().iter().all(|o| o.get("type").is_none()), "{whole}");
        let mut blocks: Vec<Vec<String>> = Vec::new();
        for output in whole["output"].as_array().unwrap() {
            let text = server.client().get(output["url"].as_str().unwrap().strip_prefix(server.url()).unwrap()).expect(200).text().to_owned();
            assert_eq!(text.lines().count() as u64, output["count"].as_u64().unwrap());
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                if line["resourceType"] == "Parameters" {
                    assert_eq!(line["parameter"][0]["name"], "header");
                    blocks.push(vec![line["parameter"][0]["valueReference"]["reference"].as_str().unwrap().to_owned()]);
                } else {
                    blocks.last_mut().expect("a header comes first").push(format!(
                        "{}/{}",
                        line["resourceType"].as_str().unwrap(),
                        line["id"].as_str().unwrap()
                    ));
                }
            }
        }
        blocks.sort();
        (blocks, whole["outputOrganizedBy"].clone())
    };
    let (found, by) = blocks("/Patient/$export?organizeOutputBy=Patient&_type=Patient,Observation");
    assert_eq!(by, "Patient");
    let expected: Vec<Vec<String>> = (0..5).map(|n| vec![format!("Patient/p{n}"), format!("Patient/p{n}"), format!("Observation/o{n}")]).collect();
    assert_eq!(found, expected);
    // Of other types, what refers to it; of what is not exported, the header alone leads to what is.
    assert_eq!(blocks("/$export?organizeOutputBy=Organization").0, [["Organization/x", "Organization/x", "Patient/p0"]]);
    assert_eq!(blocks("/Patient/$export?organizeOutputBy=Organization&_type=Patient").0, [["Organization/x", "Patient/p0"]]);
    // Of some patients, the blocks are theirs alone, whoever else what belongs to them is about.
    let both = json!({"resourceType": "Observation", "id": "both", "status": "final", "code": {"text": "c"}, "subject": {"reference": "Patient/p3"}, "performer": [{"reference": "Patient/p0"}]});
    fhir.put("/Observation/both", &both).expect(201);
    let of_group = blocks("/Group/g/$export?organizeOutputBy=Patient&_type=Observation").0;
    assert_eq!(of_group.iter().map(|block| block[0].as_str()).collect::<Vec<_>>(), ["Patient/p0", "Patient/p1"]);
    fhir.delete("/Observation/both").expect(204);
    // A block is never split, and files end where blocks end.
    server.client().patch("/api/sims/a__b", &json!({"settings": {"bulk": {"page": 4}}})).expect(200);
    let whole = manifest(&server, fhir.send("GET", "/Patient/$export?organizeOutputBy=Patient&_type=Patient,Observation", &ASYNC, b""));
    assert_eq!(whole["output"].as_array().unwrap().iter().map(|o| o["count"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 6, 3]);
    let failing = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"err":"some_file_generation_failed","page":4}"#);
    let some =
        server.client().send("GET", &format!("/sim/a__b/{failing}/fhir/Patient/$export?organizeOutputBy=Patient&_type=Patient,Observation"), &ASYNC, b"");
    let some = manifest(&server, some);
    assert_eq!((some["output"].as_array().unwrap().len(), some["error"][0]["count"].as_u64()), (1, Some(2)));
    let refused = fhir.send("GET", "/$export?organizeOutputBy=Pateint", &ASYNC, b"").expect(400).refusal();
    assert!(refused.contains("did you mean 'Patient'?"), "{refused}");
}

#[test]
fn manifests_come_in_parts_that_do_not_change() {
    let server = TestServer::start();
    let api = server.client();
    api.put("/api/sims/a__b", &json!({"settings": {"bulk": {"page": 1, "manifestFiles": 3}}})).expect(201);
    let entries: Vec<Value> = (0..40).map(|n| json!({"resource": {"resourceType": "Basic", "id": format!("x{n}"), "code": {"text": "c"}}, "request": {"method": "PUT", "url": format!("Basic/x{n}")}})).collect();
    let fhir = server.fhir("a__b");
    fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": entries})).expect(200);
    fhir.put("/Basic/gone", &json!({"resourceType": "Basic", "id": "gone", "code": {"text": "c"}})).expect(201);
    fhir.delete("/Basic/gone").expect(204);
    let begun = fhir.send("GET", "/$export?allowPartialManifests=true&_since=2020-01-01T00:00:00Z", &ASYNC, b"").expect(202);
    let status = path_of(&server, &begun);
    let mut early = None::<Value>;
    let first = loop {
        let reply = api.get(&status);
        if reply.status == 200 {
            break reply.json();
        }
        assert_eq!(reply.status, 202);
        if !reply.text().is_empty() {
            early = Some(reply.json());
        }
    };
    if let Some(early) = early {
        assert_eq!(early["output"], first["output"], "what was shown once stays");
    }
    let (mut found, mut pages, mut now) = (BTreeSet::new(), 0, first.clone());
    loop {
        pages += 1;
        assert!(now["output"].as_array().unwrap().len() <= 3);
        found.extend(contents(&server, &now, "output"));
        for same in ["transactionTime", "request", "error"] {
            assert_eq!(now[same], first[same]);
        }
        let Some(next) = now["link"].as_array().map(|links| links[0].clone()) else { break };
        assert_eq!(next["relation"], "next");
        assert_eq!(now["deleted"], json!([]), "deletions come last");
        now = api.get(next["url"].as_str().unwrap().strip_prefix(server.url()).unwrap()).expect(200).json();
    }
    assert_eq!((found.len(), pages), (40, 14));
    assert_eq!(contents(&server, &now, "deleted"), names(&["Basic/gone"]));
    api.get(&format!("{status}?page=15")).expect(404).refusal();
    api.get(&format!("{status}?page=x")).expect(404).refusal();
}

#[test]
fn provenance_comes_along_where_it_is_asked_for() {
    let server = TestServer::start();
    world(&server);
    let fhir = server.fhir("a__b");
    let provenance = |id: &str, of: &[&str], recorded: &str| {
        let targets: Vec<Value> = of.iter().map(|uid| json!({"reference": uid})).collect();
        fhir.put(
            &format!("/Provenance/{id}"),
            &json!({"resourceType": "Provenance", "id": id, "target": targets, "recorded": recorded, "agent": [{"who": {"display": "x"}}]}),
        )
        .expect(201);
    };
    provenance("first", &["Patient/p0", "Observation/o1"], "2020-01-01T00:00:00Z");
    provenance("second", &["Patient/p0"], "2021-01-01T00:00:00+02:00");
    provenance("other", &["Organization/x"], "2022-01-01T00:00:00Z");
    let with = |path: &str| exported(&server, path).into_iter().filter(|uid| uid.starts_with("Provenance/")).collect::<BTreeSet<_>>();
    assert_eq!(with("/$export?_type=Patient&includeAssociatedData=RelevantProvenanceResources"), names(&["Provenance/first", "Provenance/second"]));
    assert_eq!(with("/$export?_type=Patient&includeAssociatedData=LatestProvenanceResources"), names(&["Provenance/second"]));
    assert_eq!(with("/$export?_type=Patient,Observation&includeAssociatedData=LatestProvenanceResources"), names(&["Provenance/first", "Provenance/second"]));
    assert_eq!(with("/$export?includeAssociatedData=RelevantProvenanceResources").len(), 3);
    assert_eq!(with("/$export?_type=Patient"), names(&[]));
    // Whosever the Provenance is: of a patient's observation, too.
    assert_eq!(with("/Patient/$export?_type=Observation&includeAssociatedData=RelevantProvenanceResources"), names(&["Provenance/first"]));
    assert_eq!(with("/Group/g/$export?_type=Observation&includeAssociatedData=LatestProvenanceResources"), names(&["Provenance/first"]));
    let refused = fhir.send("GET", "/$export?includeAssociatedData=_mine", &ASYNC, b"").expect(400).refusal();
    assert!(refused.contains("_mine") && refused.contains("LatestProvenanceResources"), "{refused}");
}

#[test]
fn groups_may_be_nested_and_filtered() {
    let server = TestServer::start();
    world(&server);
    let fhir = server.fhir("a__b");
    let member = |reference: &str| json!({"entity": {"reference": reference}});
    let filter = |query: &str| json!({"url": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter", "valueExpression": {"language": "application/x-fhir-query", "expression": query}});
    let group = |id: &str, members: Vec<Value>, filters: Vec<Value>| {
        let group = json!({"resourceType": "Group", "id": id, "type": "person", "actual": false, "name": id, "member": members, "modifierExtension": filters});
        fhir.put(&format!("/Group/{id}"), &group).expect(201);
    };
    let patients = |id: &str| exported(&server, &format!("/Group/{id}/$export?_type=Patient"));
    group("outer", vec![member("Group/g"), member("Patient/p2"), member("Group/outer")], vec![]);
    assert_eq!(patients("outer"), names(&["Patient/p0", "Patient/p1", "Patient/p2"]));
    // Without members a filter is of all patients; several must hold.
    group("male", vec![], vec![filter("Patient?gender=male")]);
    assert_eq!(patients("male"), names(&["Patient/p0", "Patient/p2", "Patient/p4"]));
    group("some", vec![], vec![filter("Patient?gender=male"), filter("Observation?_id=o0,o1,o4")]);
    assert_eq!(patients("some"), names(&["Patient/p0", "Patient/p4"]));
    assert_eq!(exported(&server, "/Group/some/$export?_type=Observation"), names(&["Observation/o0", "Observation/o4"]));
    group("both", vec![member("Group/outer")], vec![filter("Patient?gender=male")]);
    assert_eq!(patients("both"), names(&["Patient/p0", "Patient/p2"]));
    // Who is linked to a member is none, nor is another group that a member is in what this one has.
    fhir.put("/Patient/p3", &json!({"resourceType": "Patient", "id": "p3", "link": [{"other": {"reference": "Patient/p0"}, "type": "seealso"}]})).expect(200);
    assert_eq!(patients("outer"), names(&["Patient/p0", "Patient/p1", "Patient/p2"]));
    assert_eq!(exported(&server, "/Group/outer/$export?_type=Group"), names(&["Group/outer"]));
    let past = json!({"entity": {"reference": "Patient/p3"}, "period": {"end": "2020-01-01"}});
    group("former", vec![past, member("Patient/p1")], vec![]);
    assert_eq!(patients("former"), names(&["Patient/p1"]));
    for (id, bad, status, said) in [
        ("b1", filter("Patient?gendr=male"), 400, "did you mean 'gender'?"),
        ("b2", filter("Organization?name=x"), 400, "belongs to no patient"),
        ("b3", filter("nonsense"), 400, "is no search"),
        (
            "b4",
            json!({"url": "http://hl7.org/fhir/uv/bulkdata/StructureDefinition/member-filter", "valueExpression": {"language": "text/cql", "expression": "x"}}),
            400,
            "application/x-fhir-query is",
        ),
    ] {
        group(id, vec![], vec![bad]);
        let refused = fhir.send("GET", &format!("/Group/{id}/$export"), &ASYNC, b"").expect(status).refusal();
        assert!(refused.contains(said), "{id}: {refused}");
    }
    let characteristic = json!({"resourceType": "Group", "id": "c", "type": "person", "actual": false, "characteristic": [{"code": {"text": "x"}, "valueBoolean": true, "exclude": false}]});
    fhir.put("/Group/c", &characteristic).expect(201);
    assert!(fhir.send("GET", "/Group/c/$export", &ASYNC, b"").expect(422).refusal().contains("member-filter"));
}

#[test]
fn versions_of_the_guide_differ() {
    let server = TestServer::start();
    world(&server);
    let (fhir, api) = (server.fhir("a__b"), server.client());
    let follow = |ig: &str| drop(api.patch("/api/sims/a__b", &json!({"settings": {"bulk": {"ig": ig}}})).expect(200));
    follow("2.0");
    for parameter in ["_until=2030-01-01T00:00:00Z", "organizeOutputBy=Patient", "allowPartialManifests=true"] {
        assert!(fhir.send("GET", &format!("/$export?{parameter}"), &ASYNC, b"").expect(400).refusal().contains("version 3.0"), "{parameter}");
    }
    let lenient = fhir.send("GET", "/$export?organizeOutputBy=Patient", &[ASYNC[0], ("prefer", "respond-async, handling=lenient")], b"");
    let whole = manifest(&server, lenient);
    assert_eq!((whole.get("outputOrganizedBy"), whole["error"][0]["count"].as_u64()), (None, Some(1)));
    follow("4.0");
    let refused = fhir.send("GET", "/$export", &ASYNC, b"").expect(405);
    assert_eq!(refused.header("allow"), "POST");
    assert!(fhir.send("POST", "/$export?_type=Patient,Observation", &ASYNC, b"").expect(400).refusal().contains("repeats"));
    let whole = manifest(&server, fhir.send("POST", "/$export?_type=Patient&_type=Observation", &ASYNC, b""));
    assert_eq!(
        (whole.get("request"), whole.get("error"), &whole["outcome"], &whole["outputFormat"]),
        (None, None, &json!([]), &json!("application/fhir+ndjson"))
    );
    assert_eq!(contents(&server, &whole, "output").len(), 11);
    // The status of the request for a status, and that of the job.
    let apart = fhir.send("POST", "/$export", &[ASYNC[0], ("prefer", "respond-async,separate-export-status")], b"").expect(202);
    assert_eq!(apart.header("preference-applied"), "respond-async, separate-export-status");
    let status = path_of(&server, &apart);
    loop {
        let reply = api.get(&status).expect(200);
        match reply.header("x-export-status") {
            "202 Accepted" => std::thread::yield_now(),
            other => break assert_eq!((other, reply.json()["output"].is_array()), ("200 OK", true)),
        }
    }
    assert!(api.patch("/api/sims/a__b", &json!({"settings": {"bulk": {"ig": "5.0"}}})).expect(400).refusal().contains("5.0"));
}

#[test]
fn knobs_multiply_and_delete_and_polls_are_counted() {
    let server = TestServer::start();
    world(&server);
    let api = server.client();
    let with = |knobs: Value| format!("/sim/a__b/{}/fhir", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(knobs.to_string()));
    let whole = manifest(&server, api.send("GET", &format!("{}/Patient/$export?_type=Patient,Observation", with(json!({"m": 3}))), &ASYNC, b""));
    let found = contents(&server, &whole, "output");
    assert_eq!(found.len(), 30);
    assert!(found.contains("Patient/p0-2") && found.contains("Observation/o4-1"));
    let file = whole["output"].as_array().unwrap().iter().find(|o| o["type"] == "Observation" && o["url"].as_str().unwrap().contains("/2.")).unwrap();
    let text = api.get(file["url"].as_str().unwrap().strip_prefix(server.url()).unwrap()).expect(200).text().to_owned();
    let copy: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let number = copy["id"].as_str().unwrap().trim_start_matches('o').to_owned();
    assert_eq!(copy["subject"]["reference"], format!("Patient/p{number}"), "a copy refers to a copy");
    let all = manifest(&server, api.send("GET", &format!("{}/$export?_since=2020-01-01T00:00:00Z", with(json!({"del": 100}))), &ASYNC, b""));
    assert_eq!((&all["output"], contents(&server, &all, "deleted").len()), (&json!([]), 13));
    let some = manifest(&server, api.send("GET", &format!("{}/$export?_since=2020-01-01T00:00:00Z", with(json!({"del": 40}))), &ASYNC, b""));
    let (out, gone) = (contents(&server, &some, "output"), contents(&server, &some, "deleted"));
    assert!(out.is_disjoint(&gone) && out.len() + gone.len() == 13 && !gone.is_empty() && !out.is_empty(), "{gone:?}");

    api.patch("/api/sims/a__b", &json!({"settings": {"bulk": {"pollsPerMinute": 2, "durationSeconds": 600}}})).expect(200);
    let status = path_of(&server, &server.fhir("a__b").send("GET", "/$export", &ASYNC, b"").expect(202));
    // A minute may end in between: of six, two minutes let four through.
    let answers: Vec<Reply> = (0..6).map(|_| api.get(&status)).collect();
    let refused = answers.iter().find(|reply| reply.status == 429).expect("more than two polls in a minute");
    assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().unwrap()), "{}", refused.header("retry-after"));
    assert!(refused.refusal().contains("pollsPerMinute"));

    // Too many files are refused before anything is written.
    api.patch("/api/sims/a__b", &json!({"settings": {"bulk": {"page": 1}}})).expect(200);
    let refused = api.send("GET", &format!("{}/$export", with(json!({"m": 100, "page": 1}))), &ASYNC, b"");
    assert_eq!(refused.status, 202, "1,300 files are no more than there may be");
    server.fhir("a__b").post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": (0..10).map(|n| json!({"resource": {"resourceType": "Basic", "code": {"text": format!("{n}")}}, "request": {"method": "POST", "url": "Basic"}})).collect::<Vec<_>>()})).expect(200);
    assert!(api.send("GET", &format!("{}/$export", with(json!({"m": 100, "page": 1}))), &ASYNC, b"").expect(413).refusal().contains("2300 files"));
}

#[test]
fn faults_befall_exports_and_tokens_too() {
    let server = TestServer::start();
    world(&server);
    let (api, fhir) = (server.client(), server.fhir("a__b"));
    let faults = |rules: Value| api.put("/api/sims/a__b/faults", &rules).expect(200);
    faults(json!([{"match": {"interaction": ["$export"], "type": ["Patient"]}, "preset": "unavailable"}]));
    let reply = fhir.send("GET", "/Patient/$export", &ASYNC, b"").expect(503);
    assert_eq!(reply.header("retry-after"), "2");
    let entry = api.get("/api/sims/a__b/log").json()["entries"][0].clone();
    assert_eq!((&entry["fault"], &entry["status"], &entry["id"]), (&json!("unavailable-0"), &json!(503), &json!(reply.header("x-fhirsim-event"))));
    let status = path_of(&server, &fhir.send("GET", "/$export", &ASYNC, b"").expect(202));
    faults(
        json!([{"match": {"interaction": ["export-status"], "nth": 1}, "preset": "too-many-requests"}, {"match": {"interaction": ["token"]}, "preset": "html"},
        {"match": {"interaction": ["export-file"]}, "preset": "malformed"}, {"match": {"interaction": ["smart-configuration"]}, "preset": "drop"}]),
    );
    api.get(&status).expect(429);
    let manifest = loop {
        let reply = api.get(&status);
        if reply.status != 202 {
            break reply.expect(200).json();
        }
    };
    let file = manifest["output"][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
    let broken = api.get(&file).expect(200);
    assert!(broken.text().ends_with("  ") && !broken.header("x-fhirsim-event").is_empty() && broken.header("content-type") == "application/fhir+ndjson");
    let reply = api.send("POST", "/sim/a__b/auth/token", &[("content-type", "application/x-www-form-urlencoded")], b"").expect(502);
    assert_eq!(reply.header("content-type"), "text/html");
    assert!(fhir.try_send("GET", "/.well-known/smart-configuration", &[], b"").is_err());
    faults(json!([]));
    assert!(!api.get(&file).expect(200).text().ends_with("  "));
}

#[test]
fn exports_are_asked_for_in_many_ways() {
    let server = TestServer::start();
    world(&server);
    let (api, fhir) = (server.client(), server.fhir("a__b"));
    // A plus as it stands; filters that lead elsewhere; a patient by a URL of this server.
    assert_eq!(exported(&server, "/$export?_outputFormat=application/fhir+ndjson&_type=Organization"), names(&["Organization/x"]));
    let chained = exported(&server, "/$export?_type=Observation&_typeFilter=Observation%3Fpatient.gender%3Dfemale");
    assert_eq!(chained, names(&["Observation/o1", "Observation/o3"]));
    assert_eq!(exported(&server, "/$export?_type=Patient&_typeFilter=Patient%3F_has:Observation:patient:_id%3Do2"), names(&["Patient/p2"]));
    fhir.send("GET", "/$export?_typeFilter=Patient%3F_include%3Dx", &ASYNC, b"").expect(400);
    let of = json!({"resourceType": "Parameters", "parameter": [{"name": "patient", "valueReference": {"reference": format!("{}/Patient/p1", fhir.base())}}]});
    let begun =
        fhir.send("POST", "/Patient/$export?_type=Patient", &[ASYNC[0], ASYNC[1], ("content-type", "application/fhir+json")], of.to_string().as_bytes());
    let made = manifest(&server, begun);
    assert_eq!(contents(&server, &made, "output"), names(&["Patient/p1"]));
    // What does not belong to patients.
    let refused = fhir.send("GET", "/Patient/$export?_type=Organization", &ASYNC, b"").expect(400).refusal();
    assert!(refused.contains("Organization does not belong to patients"), "{refused}");
    let begun = fhir.send("GET", "/Patient/$export?_type=Organization,Patient", &ASYNC, b"");
    let made = manifest(&server, begun);
    assert_eq!((made["output"].as_array().unwrap().len(), made["error"].as_array().unwrap().len()), (1, 1), "{made}");
    // Parts of files.
    let file = made["output"][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
    let newest = || api.get("/api/sims/a__b/log").json()["entries"][0].clone();
    let length = api.get(&file).expect(200).bytes.len();
    for (range, status) in [(format!("bytes={length}-"), 416), ("bytes=0-3".to_owned(), 206)] {
        let reply = api.send("GET", &file, &[("range", &range)], b"").expect(status);
        assert_eq!((&newest()["id"], &newest()["status"]), (&json!(reply.header("x-fhirsim-event")), &json!(status)));
    }
    // What its manifest says stays so.
    assert_eq!(made["requiresAccessToken"], false);
    api.send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"auth":"smart-backend"}}"#).expect(200);
    api.get(&file).expect(200);
    let token = api.post("/api/sims/a__b/token", &json!({"scope": "system/*.rs"})).json()["access_token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let status = path_of(&server, &fhir.send("GET", "/$export?_type=Patient", &[ASYNC[0], ASYNC[1], ("authorization", &bearer)], b"").expect(202));
    api.send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"auth":"off"}}"#).expect(200);
    api.get(&status).expect(401);
    assert!([200, 202].contains(&api.send("GET", &status, &[("authorization", &bearer)], b"").status));
}

#[test]
fn exports_that_nobody_ends_are_limited_by_client() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let begin = || fhir.send("GET", "/$export", &ASYNC, b"");
    for _ in 0..100 {
        begin().expect(202);
    }
    let refused = begin().expect(429);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 60 && refused.refusal().contains("this client has 100"), "{:?}", refused.headers);
}

#[test]
fn long_files_go_out_as_faults_have_them() {
    let server = TestServer::start();
    let (api, fhir) = (server.client(), server.fhir("a__b"));
    let data = "A".repeat(1 << 20);
    for n in 0..3 {
        fhir.put(&format!("/Binary/b{n}"), &json!({"resourceType": "Binary", "id": format!("b{n}"), "contentType": "x/y", "data": data})).expect(201);
    }
    let made = manifest(&server, fhir.send("GET", "/$export?_type=Binary", &ASYNC, b""));
    let file = made["output"][0]["url"].as_str().unwrap().strip_prefix(server.url()).unwrap().to_owned();
    let whole = api.get(&file).expect(200).bytes;
    let faults = |effect: Value| api.put("/api/sims/a__b/faults", &json!([{"match": {"interaction": ["export-file"]}, "effect": effect}])).expect(200);
    faults(json!({"malformed": true}));
    let broken = api.get(&file).expect(200).bytes;
    assert_eq!((broken.len(), &broken[..whole.len() / 2]), (whole.len(), &whole[..whole.len() / 2]));
    assert!(broken[whole.len() / 2..].iter().all(|b| *b == b' '));
    faults(json!({"bytesPerSecond": 1 << 30, "contentType": "text/plain"}));
    let slow = api.get(&file).expect(200);
    assert_eq!((slow.header("content-type"), slow.bytes == whole), ("text/plain", true));
    faults(json!({"etag": "stale"}));
    assert_eq!(api.get(&file).expect(200).bytes, whole);
    faults(json!({"connection": "truncate"}));
    assert!(api.try_send("GET", &file, &[], b"").is_err());
    faults(json!({"status": 500, "performed": true}));
    let failed = api.get(&file).expect(500);
    assert!(failed.text().contains("with status 500") && !failed.header("x-fhirsim-event").is_empty());
    // What is imported is an event, as it went out.
    let rule = |effect: Value| api.put("/api/sims/a__b/faults", &json!([{"match": {"interaction": ["$import"]}, "effect": effect}])).expect(200);
    let lines = || fhir.try_send("POST", "/$import", &[("content-type", "application/fhir+ndjson")], b"{\"resourceType\":\"Patient\",\"id\":\"p\"}\n");
    let newest = || api.get("/api/sims/a__b/events?interaction=$import&limit=1").json()["events"][0].clone();
    for (effect, status) in
        [(json!({"status": 503}), 503), (json!({"status": 500, "performed": true}), 500), (json!({"connection": "drop", "performed": true}), 0)]
    {
        rule(effect.clone());
        let reply = lines();
        let event = newest();
        assert_eq!((&event["response"]["status"], &event["fault"]), (&json!(status), &json!("rule-0")), "{effect}");
        match reply {
            Ok(reply) => {
                assert_eq!((reply.status, reply.header("x-fhirsim-event"), reply.header("content-location")), (status, event["event"].as_str().unwrap(), ""));
            }
            Err(_) => assert_eq!(status, 0),
        }
    }
}
