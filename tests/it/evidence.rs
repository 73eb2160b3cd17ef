//! Evidence bundles: chosen events as one file to hand on.

use std::collections::BTreeMap;
use std::io::Read;

use ed25519_dalek::pkcs8::DecodePublicKey;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Client, TestServer, patient};

fn unzip(client: &Client, path: &str) -> BTreeMap<String, Vec<u8>> {
    let reply = client.get(path).expect(200);
    assert_eq!(reply.header("content-type"), "application/zip");
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(reply.bytes)).unwrap();
    let mut files = BTreeMap::new();
    for n in 0..zip.len() {
        let mut file = zip.by_index(n).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        files.insert(file.name().unwrap().into_owned(), bytes);
    }
    files
}

#[test]
fn evidence_is_what_lies_on_the_disk_and_can_be_verified() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p", &patient("p", "<script>alert(1)</script>")).expect(201);
    fhir.post("/Pateint", &json!({"resourceType": "Pateint"})).expect(404);
    fhir.post("/Patient", &json!({"resourceType": "Patient", "active": "maybe", "name": "</pre>"})).expect(201);
    api.post("/api/sims/a__b/markers", &json!({"name": "m"})).expect(201);
    fhir.delete("/Patient/p").expect(204);

    let files = unzip(&api, "/api/sims/a__b/evidence?until=marker:m&sign=true&title=Run%20%3Cb%3E1%3C/b%3E");
    let manifest = String::from_utf8(files["manifest.sha256"].clone()).unwrap();
    let mut listed = 0;
    for line in manifest.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        assert_eq!(digest, base16ct::lower::encode_string(&Sha256::digest(&files[name])), "{name}");
        listed += 1;
        if let Some(path) = name.strip_prefix("events/") {
            assert_eq!(files[name], std::fs::read(server.simdb().join("a__b/fhir").join(path)).unwrap(), "{name}");
        }
    }
    assert_eq!(listed + 3, files.len(), "all is listed but the manifest, its signature and the key");
    assert_eq!(manifest.lines().filter(|line| line.ends_with("/event.json")).count(), 3);
    let about: Value = serde_json::from_slice(&files["about.json"]).unwrap();
    assert_eq!((about["events"].as_u64(), about["sim"].as_str(), about["title"].as_str()), (Some(3), Some("a__b"), Some("Run <b>1</b>")));

    let pem = api.get("/api/signing-key").expect(200);
    assert_eq!(pem.text().as_bytes(), files["signing-key.pem"]);
    let key = VerifyingKey::from_public_key_pem(pem.text()).unwrap();
    let signature = Signature::from_slice(&files["manifest.sha256.sig"]).unwrap();
    key.verify(manifest.as_bytes(), &signature).unwrap();
    assert!(key.verify(manifest.replace('a', "b").as_bytes(), &signature).is_err());
    let secret = std::fs::metadata(server.simdb().join(".signing-key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o777, 0o600);

    let page = String::from_utf8(files["index.html"].clone()).unwrap();
    assert!(page.contains("Run &lt;b&gt;1&lt;") && page.contains("unknown resource type"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<b>1") && page.matches("</pre>").count() == page.matches("<pre").count());
}

#[test]
fn evidence_is_of_the_events_that_are_chosen() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let refused = fhir.put("/Patient/q", &patient("r", "B")).expect(400).header("x-fhirsim-event").to_owned();
    let deleted = fhir.delete("/Patient/p").expect(204).header("x-fhirsim-event").to_owned();
    let of = |query: &str| -> Vec<String> {
        let files = unzip(&api, &format!("/api/sims/a__b/evidence?{query}"));
        assert!(!files.contains_key("manifest.sha256.sig"));
        files.keys().filter_map(|name| name.strip_suffix("/event.json")?.rsplit('/').next().map(str::to_owned)).collect()
    };
    assert_eq!(of("status=4xx"), [refused.as_str()]);
    assert_eq!(of(&format!("events={deleted},{refused},{deleted}")), [deleted.as_str(), &refused]);
    assert_eq!(of("request=name.family='A'").len(), 1);
    assert_eq!(of("").len(), 3);
    assert!(of("type=Observation").is_empty());
    // What it is built on is evidence too.
    api.post("/api/sims", &json!({"id": "a__c", "from": "a__b"})).expect(201);
    assert_eq!(unzip(&api, "/api/sims/a__c/evidence").keys().filter(|name| name.ends_with("/event.json")).count(), 3);
    for bad in ["status=4xx&events=x", "events=../../x", "sign=yes", "wait=1s", "limit=5", "sttus=4xx", "before=2026_01_01_00_00_00_000"] {
        assert!(!api.get(&format!("/api/sims/a__b/evidence?{bad}")).expect(400).refusal().is_empty(), "{bad}");
    }
    api.get("/api/sims/a__b/evidence?events=2026_01_01_00_00_00_000").expect(404).refusal();
    api.get("/api/sims/no__one/evidence").expect(404).refusal();
}
