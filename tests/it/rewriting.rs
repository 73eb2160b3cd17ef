//! What changes the history of a resource: meta operations, purges, and Bundles of type history.

use serde_json::{Value, json};

use crate::support::{Client, TestServer, events, link, patient};

fn history(fhir: &Client, id: &str) -> Vec<String> {
    let bundle = fhir.get(&format!("/Patient/{id}/_history?_count=100")).expect(200).json();
    let shown = |e: &Value| {
        let family = e["resource"]["name"][0]["family"].as_str().unwrap_or("-");
        let meta = &e["resource"]["meta"];
        assert!(meta.is_null() || e["response"]["lastModified"] == meta["lastUpdated"], "{e}");
        format!("{} {family} {}", e["response"]["etag"].as_str().unwrap().trim_start_matches("W/").trim_matches('"'), e["request"]["method"].as_str().unwrap())
    };
    bundle["entry"].as_array().into_iter().flatten().map(shown).collect()
}

/// Runs checks with everything recent, after an indexing of all, and after a restart.
fn three_times(server: &mut TestServer, check: impl Fn(&TestServer, &str)) {
    check(server, "recent");
    server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
    check(server, "committed");
    server.kill();
    server.restart();
    check(server, "restarted");
}

#[test]
fn meta_is_changed_without_making_a_version() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    for family in ["One", "Two", "Three"] {
        fhir.put("/Patient/p", &patient("p", family));
    }
    let before = fhir.get("/Patient/p").json();
    let meta = |meta: Value| json!({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]});
    for (malformed, said) in [(json!({"tag": "x"}), "valueMeta.tag"), (json!({}), "valueMeta is an empty object"), (json!({"tags": []}), "valueMeta.tags")] {
        let refused = fhir.post("/Patient/p/$meta-add", &meta(malformed)).expect(400).refusal();
        assert!(refused.contains(said), "{refused}");
    }
    let added = fhir
        .post("/Patient/p/$meta-add", &meta(json!({"tag": [{"system": "s", "code": "new", "display": "New"}], "profile": ["http://x/p"]})))
        .expect(200)
        .json();
    assert_eq!(added["parameter"][0]["valueMeta"]["tag"][0]["display"], "New");
    fhir.post("/Patient/p/$meta-add", &meta(json!({"tag": [{"system": "s", "code": "new"}, {"code": "more"}]}))).expect(200);
    fhir.post("/Patient/p/_history/2/$meta-add", &meta(json!({"security": [{"code": "R"}]}))).expect(200);
    fhir.post("/Patient/p/$meta-delete", &meta(json!({"tag": [{"code": "more"}], "profile": ["http://x/none"]}))).expect(200);
    three_times(&mut server, |server, when| {
        let fhir = server.fhir("a__b");
        let now = fhir.get("/Patient/p").expect(200);
        assert_eq!(now.header("etag"), "W/\"3\"", "{when}");
        let now = now.json();
        assert_eq!(now["meta"]["lastUpdated"], before["meta"]["lastUpdated"], "{when}");
        assert_eq!(now["meta"]["tag"], json!([{"system": "s", "code": "new", "display": "New"}]), "{when}");
        assert_eq!(history(&fhir, "p"), ["3 Three PUT", "2 Two PUT", "1 One PUT"], "{when}");
        assert_eq!(fhir.get("/Patient/p/_history/2").json()["meta"]["security"][0]["code"], "R", "{when}");
        assert_eq!((fhir.ids("/Patient?_tag=s|new"), fhir.ids("/Patient?_tag=more"), fhir.ids("/Patient?_security=R")), (vec!["p".to_owned()], vec![], vec![]));
        assert_eq!(fhir.get("/Patient/_history").json()["total"], 3, "{when}");
        assert_eq!(fhir.get("/Patient").json()["total"], 1, "{when}");
    });
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "Four")).expect(200);
    assert_eq!(history(&fhir, "p")[0], "4 Four PUT");
    fhir.post("/Patient/none/$meta-add", &meta(json!({}))).expect(404);
    fhir.post("/Patient/p/_history/9/$meta-add", &meta(json!({}))).expect(404);
    assert!(fhir.post("/Patient/p/$meta-add", &json!({"resourceType": "Parameters"})).expect(400).refusal().contains("a parameter 'meta' and its valueMeta"));
    assert_eq!(fhir.get("/Patient/p/$meta-add").expect(405).header("allow"), "POST");
}

#[test]
fn all_that_is_given_of_a_meta_is_changed_or_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let metas = |all: &[Value]| {
        let all: Vec<Value> = all.iter().map(|meta| json!({"name": "meta", "valueMeta": meta})).collect();
        json!({"resourceType": "Parameters", "parameter": all})
    };
    let two = metas(&[json!({"tag": [{"code": "a"}, {"code": "a"}], "source": "urn:x:1"}), json!({"tag": [{"code": "b"}], "profile": ["http://x/p"]})]);
    let meta = fhir.post("/Patient/p/$meta-add", &two).expect(200).json()["parameter"][0]["valueMeta"].clone();
    assert_eq!((&meta["tag"], &meta["source"], &meta["profile"]), (&json!([{"code": "a"}, {"code": "b"}]), &json!("urn:x:1"), &json!(["http://x/p"])));
    assert_eq!(fhir.get("/Patient/p").json()["meta"], meta);
    assert_eq!(fhir.ids("/Patient?_source=urn:x:1"), ["p"]);
    let other = fhir.post("/Patient/p/$meta-delete", &metas(&[json!({"source": "urn:x:2"})])).expect(200).json();
    assert_eq!(other["parameter"][0]["valueMeta"], meta);
    let meta = fhir.post("/Patient/p/$meta-delete", &two).expect(200).json()["parameter"][0]["valueMeta"].clone();
    assert_eq!((meta.get("tag"), meta.get("source"), meta.get("profile")), (None, None, None), "{meta}");
    for (name, value) in [("versionId", json!("7")), ("lastUpdated", json!("2020-01-01T00:00:00Z")), ("extension", json!([{"url": "u", "valueString": "x"}]))] {
        let refused = fhir.post("/Patient/p/$meta-add", &metas(&[json!({"tag": [{"code": "c"}]}), json!({name: value})])).expect(400).refusal();
        let said = format!("[Parameters.parameter[1].value]: valueMeta.{name} cannot be given to $meta-add, which takes profile, security, tag and source");
        assert!(refused.contains(&said), "{refused}");
    }
    let tag = metas(&[json!({"tag": [{"code": "c"}]})]).to_string();
    for path in ["/Patient/p/$meta-add", "/Patient/p/$meta-delete", "/Patient/p/$purge"] {
        let body = if path.ends_with("purge") { b"".as_slice() } else { tag.as_bytes() };
        let refused = fhir.send("POST", path, &[("if-match", "W/\"9\"")], body).expect(412).refusal();
        assert!(refused.contains("Patient/p is at version 1"), "{refused}");
    }
    assert_eq!(fhir.get("/Patient/p").json()["meta"].get("tag"), None);
    fhir.send("POST", "/Patient/p/$meta-add", &[("if-match", "W/\"1\"")], tag.as_bytes()).expect(200);
    let odd = json!({"resourceType": "Patient", "id": "odd", "meta": {"tag": "x"}});
    fhir.put("/Patient/odd", &odd).expect(201);
    for operation in ["$meta-add", "$meta-delete"] {
        let refused = fhir.send("POST", &format!("/Patient/odd/{operation}"), &[], tag.as_bytes()).expect(422).refusal();
        assert!(refused.contains("[Patient.meta.tag]: the stored meta.tag is a string instead of an array"), "{refused}");
    }
    fhir.post("/Patient/odd/$meta-add", &metas(&[json!({"profile": ["http://x/p"]})])).expect(200);
    let now = fhir.get("/Patient/odd").json()["meta"].clone();
    assert_eq!((&now["tag"], &now["profile"]), (&json!("x"), &json!(["http://x/p"])));
    let differing = metas(&[json!({"source": "urn:x:1"}), json!({"source": "urn:x:2"})]);
    assert!(fhir.post("/Patient/p/$meta-add", &differing).expect(400).refusal().contains("valueMeta.source is given more than once, and differs"));
    // Tags that have neither system nor code are not all one.
    fhir.put("/Patient/d", &json!({"resourceType": "Patient", "id": "d", "meta": {"tag": [{"display": "x"}, {"display": "y"}]}})).expect(201);
    let meta = fhir.post("/Patient/d/$meta-delete", &metas(&[json!({"tag": [{"display": "x"}]})])).expect(200).json();
    assert_eq!(meta["parameter"][0]["valueMeta"]["tag"], json!([{"display": "y"}]));
    let placed = json!({"profile": ["http://x/p", "http://x/q"], "_profile": [null, {"id": "of-q"}]});
    fhir.put("/Patient/e", &json!({"resourceType": "Patient", "id": "e", "meta": placed})).expect(201);
    let refused = fhir.post("/Patient/e/$meta-delete", &metas(&[json!({"profile": ["http://x/p"]})])).expect(422).refusal();
    assert!(refused.contains("[Patient.meta.profile]: the stored meta._profile has extensions"), "{refused}");
    fhir.post("/Patient/e/$meta-delete", &metas(&[json!({"profile": ["http://x/r"]})])).expect(200);
    server.client().put("/api/sims/a__stu3", &json!({"fhirVersion": "STU3"})).expect(201);
    let fhir = server.fhir("a__stu3");
    fhir.put("/Patient/p", &patient("p", "A")).expect(201);
    let refused = fhir.post("/Patient/p/$meta-add", &metas(&[json!({"source": "urn:x:1"})])).expect(400).refusal();
    assert!(refused.contains("valueMeta.source"), "{refused}");
}

#[test]
fn versions_of_one_instant_keep_their_order_when_a_history_is_rewritten() {
    let server = TestServer::start();
    server.client().put("/api/sims/a__b", &json!({"settings": {"historyModifications": true}})).expect(201);
    let fhir = server.fhir("a__b");
    // One event has one instant.
    let version = |family: &str, number: Option<u32>, at: &str| {
        let mut resource = patient("p", family);
        resource["meta"] = json!({"lastUpdated": at});
        if let Some(number) = number {
            resource["meta"]["versionId"] = number.to_string().into();
        }
        json!({"resource": resource, "request": {"method": "PUT", "url": "Patient/p"}})
    };
    let restore = |entries: Vec<Value>| fhir.post("", &json!({"resourceType": "Bundle", "type": "history", "entry": entries}));
    let at = "2020-01-01T00:00:00Z";
    restore(vec![version("C", Some(3), at), version("A", Some(1), at), version("B", Some(2), at)]).expect(200);
    assert_eq!(history(&fhir, "p"), ["3 C PUT", "2 B PUT", "1 A PUT"]);
    restore(vec![version("b", Some(2), at)]).expect(200);
    assert_eq!(history(&fhir, "p"), ["3 C PUT", "2 b PUT", "1 A PUT"]);
    restore(vec![version("Z", None, "2019-01-01T00:00:00Z")]).expect(200);
    assert_eq!(history(&fhir, "p"), ["4 C PUT", "3 b PUT", "2 A PUT", "1 Z PUT"]);
    assert!(restore(vec![version("X", Some(9), at), version("Y", None, at)]).expect(400).refusal().contains("the same versionId or the same lastUpdated"));
    for number in [None, Some(9)] {
        assert!(restore(vec![version("One", number, at)]).expect(400).refusal().contains("several versions of 2020-01-01"));
    }
    restore(vec![version("Y", None, "2019-01-01T00:00:00Z")]).expect(200);
    assert_eq!(history(&fhir, "p"), ["4 C PUT", "3 b PUT", "2 A PUT", "1 Y PUT"]);
}

#[test]
fn a_purge_leaves_the_current_version_and_no_trace_of_others() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    for family in ["Secret", "Hidden", "Open"] {
        fhir.put("/Patient/p", &patient("p", family));
    }
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": patient("q", "Covert"), "request": {"method": "PUT", "url": "Patient/q"}},
        {"resource": patient("r", "Other"), "request": {"method": "PUT", "url": "Patient/r"}}]});
    fhir.post("", &bundle).expect(200);
    fhir.delete("/Patient/q").expect(204);
    let meta = json!({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "t"}]}}]});
    fhir.post("/Patient/p/$meta-add", &meta).expect(200);
    let said = fhir.post("/Patient/p/$purge", &json!({"resourceType": "Parameters"})).expect(200).json();
    assert_eq!(said["issue"][0]["diagnostics"], "2 superseded versions of Patient/p are removed; version 3 stays");
    let said = fhir.send("POST", "/Patient/q/$expunge", &[], b"").expect(200).json();
    assert_eq!(said["issue"][0]["diagnostics"], "Patient/q was deleted: all 2 versions are removed");
    three_times(&mut server, |server, when| {
        let fhir = server.fhir("a__b");
        assert_eq!(history(&fhir, "p"), ["3 Open PUT"], "{when}");
        fhir.get("/Patient/p/_history/1").expect(404);
        fhir.get("/Patient/q").expect(404);
        fhir.get("/Patient/q/_history").expect(404);
        assert_eq!(fhir.get("/Patient/r").expect(200).json()["name"][0]["family"], "Other");
        assert_eq!(fhir.get("/Patient").json()["total"], 2, "{when}");
        assert_eq!(fhir.get("/_history").json()["total"], 2, "{when}");
        assert_eq!(server.client().get("/api/sims/a__b").json().get("damagedEvents"), None, "{when}");
        for operation in ["PUT", "TRANSACTION", "POST", "DELETE"] {
            for folder in events(&server.simdb(), "a__b", operation) {
                for file in std::fs::read_dir(folder).unwrap() {
                    let path = file.unwrap().path();
                    let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                    assert!(!["Secret", "Hidden", "Covert"].iter().any(|word| text.contains(word)), "{when}: {}", path.display());
                }
            }
        }
    });
    let fhir = server.fhir("a__b");
    assert_eq!(fhir.put("/Patient/q", &patient("q", "Again")).expect(201).header("etag"), "W/\"1\"");
    fhir.send("POST", "/Patient/none/$purge", &[], b"").expect(404);
    let definition =
        fhir.get("/metadata").json()["rest"][0]["operation"].as_array().unwrap().iter().find(|o| o["name"] == "purge").unwrap()["definition"].clone();
    let definition = fhir.get(&format!("/{}", definition.as_str().unwrap().split("/fhir/").nth(1).unwrap())).expect(200).json();
    assert_eq!((&definition["resourceType"], &definition["code"], &definition["affectsState"]), (&json!("OperationDefinition"), &json!("purge"), &json!(true)));
}

#[test]
fn a_bundle_of_type_history_inserts_and_replaces_versions() {
    let mut server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "Now")).expect(201);
    let version = |family: &str, when: &str| {
        let mut resource = patient("p", family);
        resource["meta"] = json!({"lastUpdated": when});
        json!({"resource": resource, "request": {"method": "PUT", "url": "Patient/p"}, "response": {"status": "200"}})
    };
    let numbered_as = |number: &str| {
        let mut version = version("X", "2010-01-01T00:00:00Z");
        version["resource"]["meta"]["versionId"] = number.into();
        version
    };
    let bundle = |entries: Vec<Value>| json!({"resourceType": "Bundle", "type": "history", "entry": entries});
    let gone = json!({"request": {"method": "DELETE", "url": "Patient/p"}, "response": {"status": "204", "lastModified": "2011-01-01T00:00:00Z"}});
    let sent = bundle(vec![version("Newer", "2012-01-01T00:00:00Z"), version("Old", "2010-01-01T00:00:00Z"), gone.clone()]);
    assert!(fhir.post("", &sent).expect(403).refusal().contains("its setting 'historyModifications' is false"));
    server.client().send("PATCH", "/api/sims/a__b", &[], br#"{"settings":{"historyModifications":true}}"#).expect(200);
    let done = fhir.post("/", &sent).expect(200);
    assert_eq!(done.text(), "");
    let mut other = version("X", "2010-01-01T00:00:00Z");
    other["resource"]["id"] = "x".into();
    for (entries, said) in [
        (vec![other.clone()], "request.url is 'Patient/p', but the resource is Patient/x"),
        (
            vec![version("A", "2010-01-01T00:00:00Z"), json!({"resource": patient("x", "X"), "response": {"lastModified": "2010-01-01T00:00:00Z"}})],
            "Bundle.entry[1]: Patient/x is another resource than Patient/p",
        ),
        (vec![json!({"resource": patient("p", "X")})], "meta.lastUpdated or response.lastModified is missing; an instant is needed"),
        (vec![version("X", "1969-12-31T23:59:59Z")], "'1969-12-31T23:59:59Z' is before 1970"),
        (vec![version("X", "2999-01-01T00:00:00Z")], "meta.lastUpdated lies in the future"),
        (vec![version("X", "2010-01-01T00:00:00Z"), version("Y", "2010-01-01T00:00:00Z")], "Bundle.entry[1]: another entry of the Bundle has the same"),
        (vec![numbered_as("1700000000123456789")], "versionId '1700000000123456789' is not a number from 1 to 1000000000000000"),
        (vec![numbered_as("abc")], "versionId 'abc' is not a number"),
        (vec![version("X", "yesterday")], "is 'yesterday', which is no instant"),
        (vec![json!({"response": {"lastModified": "2010-01-01T00:00:00Z"}})], "neither request.url nor the resource says"),
        (vec![version("X", "2010-01-01T00:00:00Z"); 101], "at most 100 are accepted"),
    ] {
        let refused = fhir.post("", &bundle(entries)).refusal();
        assert!(refused.contains(said), "{refused}");
    }
    three_times(&mut server, |server, when| {
        let fhir = server.fhir("a__b");
        assert_eq!(history(&fhir, "p"), ["4 Now PUT", "3 Newer PUT", "2 - DELETE", "1 Old PUT"], "{when}");
        assert_eq!(fhir.get("/Patient/p/_history/1").json()["meta"]["lastUpdated"], "2010-01-01T00:00:00.000Z", "{when}");
        fhir.get("/Patient/p/_history/2").expect(410);
        assert_eq!(fhir.get("/Patient/p/_history?_since=2011-06-01").json()["total"], 2, "{when}");
        assert_eq!(fhir.get("/Patient/p/_history?_at=2011-03").json()["total"], 0, "{when}");
        assert_eq!(fhir.get("/Patient/p/_history?_at=2012-03").json()["total"], 1, "{when}");
    });
    // Replaced by its number, and by its instant.
    let fhir = server.fhir("a__b");
    let mut numbered = version("Replaced", "2010-01-01T00:00:00Z");
    numbered["resource"]["meta"]["versionId"] = "1".into();
    fhir.post("", &bundle(vec![numbered, version("Newest", "2012-01-01T00:00:00Z")])).expect(200);
    assert_eq!(history(&fhir, "p"), ["4 Now PUT", "3 Newest PUT", "2 - DELETE", "1 Replaced PUT"]);
    // One that is not there yet may come whole; and the newest is current.
    let of_q = |family: &str, when: &str| {
        let mut new = version(family, when);
        new["resource"]["id"] = "q".into();
        new["request"]["url"] = "Patient/q".into();
        new
    };
    fhir.post("", &bundle(vec![of_q("Q", "2001-01-01T00:00:00Z")])).expect(200);
    assert_eq!(history(&fhir, "q"), ["1 Q PUT"]);
    fhir.post("", &bundle(vec![of_q("Newest", "2003-01-01T00:00:00Z"), of_q("Newer", "2002-01-01T00:00:00Z")])).expect(200);
    assert_eq!(history(&fhir, "q"), ["3 Newest PUT", "2 Newer PUT", "1 Q PUT"]);
    assert_eq!((fhir.ids("/Patient?family=newest"), fhir.ids("/Patient?family:exact=Newer")), (vec!["q".to_owned()], Vec::new()));
    assert_eq!(fhir.ids("/Patient?_lastUpdated=2003"), ["q"]);
}

#[test]
fn a_history_bundle_brings_no_version_that_a_write_would_be_refused_for() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let settings = json!({"fhirVersion": "R4", "settings": {"historyModifications": true, "validation": "strict"}});
    server.client().put("/api/sims/a__b", &settings).expect(201);
    let version = |gender: &str| {
        let meta = json!({"versionId": "1", "lastUpdated": "2020-01-01T00:00:00Z"});
        json!({"resourceType": "Bundle", "type": "history", "entry": [{"request": {"method": "PUT", "url": "Patient/h"},
            "resource": {"resourceType": "Patient", "id": "h", "meta": meta, "gender": gender}}]})
    };
    let refused = fhir.post("", &version("blue")).expect(422).refusal();
    assert!(refused.contains("gender") && refused.contains("Bundle.entry[0]"), "{refused}");
    fhir.get("/Patient/h").expect(404);
    fhir.post("", &version("female")).expect(200);
}

fn tag(fhir: &Client, path: &str) {
    let meta = json!({"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"system": "http://t", "code": "x"}]}}]});
    fhir.post(&format!("{path}/$meta-add"), &meta).expect(200);
}

/// `id/version` of the entries of a Bundle.
fn shown(bundle: &Value) -> String {
    let one = |e: &Value| {
        let location = e["response"]["location"].as_str().or(e["request"]["url"].as_str()).unwrap_or_default().to_owned();
        e["resource"]["id"].as_str().map_or(location, |id| format!("{id}/{}", e["resource"]["meta"]["versionId"].as_str().unwrap()))
    };
    bundle["entry"].as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join(" ")
}

/// All pages, as [`shown`]; after the first one, `meanwhile` happens.
fn walk(fhir: &Client, path: &str, meanwhile: impl FnOnce()) -> String {
    let mut page = fhir.get(path).expect(200).json();
    let (mut all, total) = (vec![shown(&page)], page["total"].clone());
    meanwhile();
    while let Some(next) = link(&page, "next") {
        page = fhir.get(next.strip_prefix(fhir.base()).unwrap()).expect(200).json();
        assert_eq!(page["total"], total, "{path}");
        all.push(shown(&page));
    }
    all.join(" ")
}

/// What rewrites a history (meta operations, a purge, a history Bundle) leaves each version in its place among all.
#[test]
fn a_rewritten_history_stays_in_its_place() {
    let mut server = TestServer::start();
    for flushed in [false, true] {
        let sim = format!("a__{flushed}");
        let fhir = server.fhir(&sim);
        let put = |id: &str| drop(fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "active": true})));
        let again = |id: &str| drop(fhir.put(&format!("/Patient/{id}"), &json!({"resourceType": "Patient", "id": id, "active": false})).expect(200));
        // Some of one event, so that the number in it counts.
        let entry = |id: &str| json!({"resource": {"resourceType": "Patient", "id": id}, "request": {"method": "PUT", "url": format!("Patient/{id}")}});
        put("a");
        fhir.post("", &json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry("b"), entry("c"), entry("d")]})).expect(200);
        put("e");
        again("c");
        let settle = || {
            if flushed {
                server.client().post(&format!("/api/sims/{sim}/reindex"), &json!({})).expect(200);
            }
        };
        settle();
        let then = server.client().get(&format!("/api/sims/{sim}/events?limit=1")).json()["events"][0]["event"].as_str().unwrap().to_owned();
        let paths = [
            "/_history?_count=2",
            "/Patient/_history?_count=1",
            "/_history?_count=2&_sort=_lastUpdated",
            "/Patient?_count=2",
            "/Patient?_count=1&_sort=-_lastUpdated",
            "/Patient?_count=2&_sort=_lastUpdated",
        ];
        let before: Vec<String> = paths.iter().map(|path| walk(&fhir, path, || ())).collect();
        for (n, path) in paths.iter().enumerate() {
            let rewrites: [&dyn Fn(); 3] = [&|| tag(&fhir, "/Patient/c"), &|| tag(&fhir, "/Patient/a"), &|| tag(&fhir, "/Patient/e")];
            assert_eq!(
                walk(&fhir, path, || {
                    rewrites[n % 3]();
                    settle();
                }),
                before[n],
                "{path} {flushed}"
            );
        }
        tag(&fhir, "/Patient/b");
        tag(&fhir, "/Patient/d");
        settle();
        for (path, before) in paths.iter().zip(&before) {
            assert_eq!(&walk(&fhir, path, || ()), before, "{path} {flushed}");
        }
        // Whoever follows the changes is told of no version again.
        let since = instant_after(&fhir);
        assert_eq!(shown(&fhir.get(&format!("/_history?_since={since}")).json()), "", "{flushed}");
        let past = server.fhir(&format!("{sim}@{then}"));
        assert_eq!(shown(&past.get("/_history").expect(200).json()), "c/2 e/1 d/1 c/1 b/1 a/1", "{flushed}");
        assert_eq!(shown(&past.get("/Patient").expect(200).json()), "c/2 e/1 d/1 b/1 a/1", "{flushed}");
        // A purge takes the superseded version, and moves nothing.
        assert_eq!(
            walk(&fhir, "/Patient?_count=2&_sort=_lastUpdated", || drop(fhir.post("/Patient/c/$purge", &json!({"resourceType": "Parameters"})).expect(200))),
            before[5]
        );
        settle();
        assert_eq!(shown(&fhir.get("/_history").json()), "c/2 e/1 d/1 b/1 a/1", "{flushed}");
    }
    let before = shown(&server.fhir("a__true").get("/_history").json()) + &shown(&server.fhir("a__false").get("/_history").json());
    for rebuilt in [false, true] {
        server.kill();
        if rebuilt {
            for sim in ["a__true", "a__false"] {
                std::fs::remove_dir_all(server.simdb().join(sim).join("simindex")).unwrap();
            }
        }
        server.restart();
        let after = shown(&server.fhir("a__true").get("/_history").json()) + &shown(&server.fhir("a__false").get("/_history").json());
        assert_eq!(after, before, "{rebuilt}");
    }
}

/// An instant after all that the simulator has.
fn instant_after(fhir: &Client) -> String {
    let newest = fhir.get("/_history?_count=1").json();
    let at = newest["entry"][0]["resource"]["meta"]["lastUpdated"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    (at + chrono::Duration::milliseconds(1)).format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A restored history is where its instants place it, among what happened here.
#[test]
fn a_restored_history_is_in_its_place() {
    let server = TestServer::start();
    server.client().post("/api/sims", &json!({"id": "a__b", "settings": {"historyModifications": true}})).expect(201);
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/now", &json!({"resourceType": "Patient", "id": "now"})).expect(201);
    let version = |number: &str, year: u32| {
        json!({"resource": {"resourceType": "Patient", "id": "a", "meta": {"versionId": number, "lastUpdated": format!("{year}-01-01T00:00:00Z")}},
        "request": {"method": "PUT", "url": "Patient/a"}, "response": {"status": "200"}})
    };
    fhir.post("", &json!({"resourceType": "Bundle", "type": "history", "entry": [version("1", 2020), version("2", 2021)]})).expect(200);
    fhir.put("/Patient/later", &json!({"resourceType": "Patient", "id": "later"})).expect(201);
    for flushed in [false, true] {
        if flushed {
            server.client().post("/api/sims/a__b/reindex", &json!({})).expect(200);
        }
        let ask = |path: &str| shown(&fhir.get(path).expect(200).json());
        assert_eq!(ask("/Patient?_sort=-_lastUpdated"), "later/1 now/1 a/2");
        assert_eq!(ask("/Patient?_sort=_lastUpdated"), "a/2 now/1 later/1");
        assert_eq!(ask("/_history?_sort=_lastUpdated"), "a/1 a/2 now/1 later/1");
        assert_eq!(ask("/_history"), "later/1 now/1 a/2 a/1");
        assert_eq!(ask("/_history?_since=2025-01-01"), "later/1 now/1");
        assert_eq!(ask("/_history?_at=2020-06-01"), "a/1");
        assert_eq!(walk(&fhir, "/Patient?_count=1", || ()), "later/1 now/1 a/2");
    }
}

#[test]
fn a_history_of_any_version_can_be_brought_to_another_simulator() {
    let server = TestServer::start();
    for version in ["STU3", "R4", "R4B", "R5"] {
        let sims = ["from", "to"].map(|name| format!("{}__{name}", version.to_lowercase()));
        for sim in &sims {
            server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version, "settings": {"historyModifications": true}})).expect(201);
        }
        let [from, to] = sims.map(|sim| server.fhir(&sim));
        from.put("/Patient/p", &patient("p", "One")).expect(201);
        from.send("PATCH", "/Patient/p", &[("content-type", "application/merge-patch+json")], br#"{"active":true}"#).expect(200);
        from.delete("/Patient/p").expect(204);
        from.put("/Patient/p", &patient("p", "Two")).expect(201);
        let mut sent = from.get("/Patient/p/_history").expect(200).json();
        to.post("", &sent).expect(200);
        let mut found = to.get("/Patient/p/_history").expect(200).json();
        for bundle in [&mut sent, &mut found] {
            let entries = bundle["entry"].as_array_mut().unwrap();
            assert_eq!(entries.len(), 4, "{version}");
            for entry in entries {
                entry["fullUrl"] = Value::Null;
                // A patch is not told from an update.
                entry["request"]["method"] = if entry["request"]["method"] == "PATCH" { json!("PUT") } else { entry["request"]["method"].clone() };
            }
        }
        assert_eq!(found["entry"], sent["entry"], "{version}");
    }
}
