//! JSON Patch, JSON Merge Patch, FHIRPath Patch.

use serde_json::{Value, json};

use crate::support::{Client, Reply, TestServer};

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","active":true,"name":[{"family":"A","given":["B","C"],"_given":[null,{"id":"c"}]},{"family":"D"}],
"birthDate":"1980","_birthDate":{"extension":[{"url":"u","valueString":"e"}]},"deceasedBoolean":false,
"contained":[{"resourceType":"Organization","id":"o","name":"N"}],
"contact":[{"name":{"text":"x"}}],"identifier":[{"system":"s","value":"1"},{"system":"t","value":"2"},{"system":"u","value":"3"}],
"extension":[{"url":"n","valueDecimal":1.50},{"url":"e","valueDecimal":1e3}]}"#;

fn put(fhir: &Client) {
    let reply = fhir.send("PUT", "/Patient/p", &[], PATIENT.as_bytes());
    assert!(reply.status < 300, "{}", reply.text());
}

fn send(fhir: &Client, media: &str, body: &Value) -> Reply {
    fhir.send("PATCH", "/Patient/p", &[("content-type", media)], body.to_string().as_bytes())
}

/// An operation, of which only names and values are said.
fn operation(said: &Value) -> Value {
    let part = |(name, value): (&String, &Value)| {
        let mut part = json!({"name": name});
        match value {
            Value::Object(members) => part.as_object_mut().unwrap().extend(members.clone()),
            Value::Number(_) => part["valueInteger"] = value.clone(),
            Value::Array(_) => part["part"] = value.clone(),
            _ => part["valueString"] = value.clone(),
        }
        part
    };
    json!({"name": "operation", "part": said.as_object().unwrap().iter().map(part).collect::<Value>()})
}

fn fhirpath(operations: &[Value]) -> Value {
    json!({"resourceType": "Parameters", "parameter": operations})
}

#[test]
fn json_patches_change_what_they_name_and_nothing_else() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    put(&fhir);
    let patch = json!([{"op": "test", "path": "/active", "value": true}, {"op": "replace", "path": "/name/0/family", "value": "Z"},
        {"op": "add", "path": "/name/-", "value": {"family": "E"}}, {"op": "remove", "path": "/contact/0/name/text"}, {"op": "move", "from": "/identifier/0", "path": "/identifier/2"},
        {"op": "test", "path": "/extension/0/valueDecimal", "value": 1.5}]);
    let reply = send(&fhir, "application/json-patch+json", &patch).expect(200);
    assert_eq!(reply.header("etag"), "W/\"2\"");
    let reply = fhir.get("/Patient/p");
    let text = reply.text();
    assert!(text.contains("\"valueDecimal\":1.50") && text.contains("\"valueDecimal\":1e3"), "numbers keep their spelling: {text}");
    let patched = fhir.get("/Patient/p").json();
    assert_eq!(patched["name"].as_array().unwrap().iter().map(|n| n["family"].as_str().unwrap()).collect::<Vec<_>>(), ["Z", "D", "E"]);
    assert_eq!(patched.get("contact"), None, "what becomes empty goes");
    assert_eq!(patched["identifier"][2]["value"], "1");
    assert_eq!(fhir.ids("/Patient?family=z"), ["p"]);
    assert_eq!(fhir.get("/Patient/p/_history").json()["entry"][0]["request"]["method"], "PATCH");
    for (patch, status, said) in [
        (json!([{"op": "test", "path": "/active", "value": false}]), 422, "the value there is true"),
        (json!([{"op": "remove", "path": "/nothing"}]), 422, "there is nothing at '/nothing'"),
        (json!([{"op": "replace", "path": "/id", "value": "q"}]), 422, "the patch changes id from 'p' to 'q'"),
        (json!([{"op": "remove", "path": "/id"}]), 422, "the patch changes id from 'p' to 'nothing'"),
        (json!([{"op": "replace", "path": "/resourceType", "value": "Group"}]), 422, "the patch changes resourceType from 'Patient' to 'Group'"),
        (json!([{"op": "replace", "path": "/resourceType", "value": "Nope"}]), 422, "what comes of the patch is no resource"),
        (json!([{"op": "replace", "path": "", "value": 7}]), 422, "what comes of the patch is no resource"),
        (json!({"op": "add"}), 400, "a JSON Patch is an array"),
        (json!([{"op": "add", "path": "/active"}]), 400, "operation 0 of the patch: value is missing"),
    ] {
        let refused = send(&fhir, "application/json-patch+json", &patch).expect(status).refusal();
        assert!(refused.contains(said), "{refused}");
    }
    // Each doubles what is there.
    let doubling: Vec<Value> = (0..1_000).map(|n| json!({"op": "copy", "from": "", "path": format!("/x{n}")})).collect();
    assert!(matches!(send(&fhir, "application/json-patch+json", &json!(doubling)).status, 403 | 422));
    let deep: Vec<Value> = (0..200).map(|n| json!({"op": "add", "path": "/x".repeat(n + 1), "value": {}})).collect();
    send(&fhir, "application/json-patch+json", &json!(deep)).expect(422);
    assert_eq!(fhir.get("/Patient/p").header("etag"), "W/\"2\"");
    fhir.send("PATCH", "/Patient/none", &[("content-type", "application/json-patch+json")], b"[]").expect(404);
    fhir.send("PATCH", "/Patient/p", &[("content-type", "application/xml-patch+xml")], b"<diff/>").expect(415);
    // What is no resource is told what patches are sent as, and a misspelled one is not.
    for (media, patch) in [("application/json", json!({"active": null})), ("application/fhir+json", json!({})), ("application/json", json!([]))] {
        let refused = send(&fhir, media, &patch).expect(415).refusal();
        let known = "a patch is application/json-patch+json, application/merge-patch+json, or Parameters in application/fhir+json";
        assert!(
            refused.contains("[http.Content-Type]") && refused.contains(&format!("'{media}' is not supported here for an ")) && refused.contains(known),
            "{refused}"
        );
    }
    assert!(send(&fhir, "application/json", &json!({"resourceType": "Parameter"})).expect(400).refusal().contains("did you mean 'Parameters'?"));
    assert!(send(&fhir, "application/json", &json!({"resourceType": 1})).expect(400).refusal().contains("resourceType must be a string"));
}

#[test]
fn merge_patches_and_conditional_patches() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    put(&fhir);
    send(&fhir, "application/merge-patch+json", &json!({"active": null, "gender": "male", "birthDate": "1981"})).expect(200);
    let patched = fhir.get("/Patient/p").json();
    assert_eq!((patched.get("active"), &patched["gender"], &patched["birthDate"]), (None, &json!("male"), &json!("1981")));
    send(&fhir, "application/merge-patch+json", &json!({"_birthDate": {"extension": null}, "contact": [{"name": {}}], "maritalStatus": {}})).expect(200);
    let keys = fhir.get("/Patient/p").json().as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys, "resourceType meta id name birthDate deceasedBoolean contained identifier extension gender");
    let conditional =
        |query: &str| fhir.send("PATCH", &format!("/Patient?{query}"), &[("content-type", "application/merge-patch+json")], b"{\"gender\":\"other\"}");
    conditional("identifier=s|1").expect(200);
    assert_eq!(fhir.get("/Patient/p").json()["gender"], "other");
    assert!(conditional("identifier=s|none").expect(404).refusal().contains("no Patient matches 'identifier=s|none'"));
    fhir.put("/Patient/q", &json!({"resourceType": "Patient", "id": "q", "identifier": [{"system": "s", "value": "1"}]})).expect(201);
    assert!(conditional("identifier=s|1").expect(412).refusal().contains("2 resources of type Patient match"));
    fhir.send("PATCH", "/Patient/p", &[("content-type", "application/merge-patch+json"), ("if-match", "W/\"1\"")], b"{}").expect(412);
    fhir.delete("/Patient/p").expect(204);
    fhir.send("PATCH", "/Patient/p", &[("content-type", "application/merge-patch+json")], b"{}").expect(410);
}

/// Operations, the member that is looked at, and what it is then; after `!` the refusal.
const CASES: &[(&str, &str, &str)] = &[
    (r#"[{"type":"add","path":"Patient","name":"gender","value":{"valueCode":"male"}}]"#, "gender", r#""male""#),
    (r#"[{"type":"add","path":"Patient.contact[0]","name":"gender","value":{"valueCode":"male"}}]"#, "contact", r#"[{"name":{"text":"x"},"gender":"male"}]"#),
    (
        r#"[{"type":"add","path":"Patient","name":"contact","value":[{"name":"name","valueHumanName":{"text":"y"}},{"name":"telecom","valueContactPoint":{"value":"1"}},{"name":"telecom","valueContactPoint":{"value":"2"}}]}]"#,
        "contact",
        r#"[{"name":{"text":"x"}},{"name":{"text":"y"},"telecom":[{"value":"1"},{"value":"2"}]}]"#,
    ),
    (r#"[{"type":"replace","path":"Patient.deceased","value":{"valueDateTime":"2020"}}]"#, "deceasedDateTime", r#""2020""#),
    (r#"[{"type":"replace","path":"Patient.deceased","value":{"valueDateTime":"2020"}}]"#, "deceasedBoolean", "null"),
    (r#"[{"type":"replace","path":"Patient.birthDate","value":{"valueDate":"1990"}}]"#, "_birthDate", "null"),
    (r#"[{"type":"delete","path":"Patient.birthDate"}]"#, "_birthDate", "null"),
    (r#"[{"type":"delete","path":"Patient.contact[0].name.text"}]"#, "contact", "null"),
    (r#"[{"type":"delete","path":"Patient.photo"}]"#, "active", "true"),
    (r#"[{"type":"delete","path":"Patient.identifier.where(system='t')"}]"#, "identifier", r#"[{"system":"s","value":"1"},{"system":"u","value":"3"}]"#),
    (
        r#"[{"type":"insert","path":"Patient.identifier","index":1,"value":{"valueIdentifier":{"value":"new"}}}]"#,
        "identifier",
        r#"[{"system":"s","value":"1"},{"value":"new"},{"system":"t","value":"2"},{"system":"u","value":"3"}]"#,
    ),
    (r#"[{"type":"insert","path":"Patient.photo","index":0,"value":{"valueAttachment":{"title":"t"}}}]"#, "photo", r#"[{"title":"t"}]"#),
    (
        r#"[{"type":"move","path":"Patient.identifier","source":2,"destination":0}]"#,
        "identifier",
        r#"[{"system":"u","value":"3"},{"system":"s","value":"1"},{"system":"t","value":"2"}]"#,
    ),
    (r#"[{"type":"delete","path":"Patient.name[0].given[0]"}]"#, "name", r#"[{"family":"A","given":["C"],"_given":[{"id":"c"}]},{"family":"D"}]"#),
    (
        r#"[{"type":"insert","path":"Patient.name[0].given","index":0,"value":{"valueString":"X"}}]"#,
        "name",
        r#"[{"family":"A","given":["X","B","C"],"_given":[null,null,{"id":"c"}]},{"family":"D"}]"#,
    ),
    (
        r#"[{"type":"add","path":"Patient","name":"extension","value":[{"name":"url","valueUri":"z"},{"name":"value","valueBoolean":true}]}]"#,
        "extension",
        r#"[{"url":"n","valueDecimal":1.50},{"url":"e","valueDecimal":1e3},{"url":"z","valueBoolean":true}]"#,
    ),
    (r#"[{"type":"add","path":"Patient","name":"active","value":{"valueBoolean":false}}]"#, "!", "'active' is there already and does not repeat"),
    (r#"[{"type":"add","path":"Patient","name":"deceased","value":{"valueDateTime":"2020"}}]"#, "!", "'deceasedBoolean' is there already"),
    (r#"[{"type":"add","path":"Patient","name":"gendr","value":{"valueCode":"x"}}]"#, "!", "did you mean 'gender'?"),
    (
        r#"[{"type":"replace","path":"Patient.deceased","value":{"valueQuantity":{"value":1}}}]"#,
        "!",
        "'deceased' cannot be a Quantity; it is one of boolean, dateTime",
    ),
    (r#"[{"type":"replace","path":"Patient.photo","value":{"valueAttachment":{}}}]"#, "!", "the path leads to nothing"),
    (r#"[{"type":"replace","path":"Patient.name","value":{"valueHumanName":{}}}]"#, "!", "leads to 2 elements"),
    (r#"[{"type":"delete","path":"Patient.name"}]"#, "!", "the path leads to 2 elements; delete takes one"),
    (r#"[{"type":"delete","path":"Patient"}]"#, "!", "a patch does not delete the resource itself"),
    (r#"[{"type":"move","path":"Patient.identifier","source":3,"destination":0}]"#, "!", "source 3 is beyond the end"),
    (r#"[{"type":"delete","path":"Patient.name.nope("}]"#, "!", "at position"),
    (r#"[{"type":"delete","path":"Patient.name.exists()"}]"#, "!", "makes a value instead of leading to an element"),
    (r#"[{"type":"replace","path":"Patient.id","value":{"valueId":"q"}}]"#, "!", "the patch changes id"),
    (r#"[{"type":"swap","path":"Patient.id"}]"#, "!", "type 'swap' is not add, insert, delete, replace or move"),
    // What is beside a primitive.
    (r#"[{"type":"delete","path":"Patient.birthDate.extension.where(url='u')"}]"#, "_birthDate", "null"),
    (r#"[{"type":"delete","path":"Patient.birthDate.extension[0]"}]"#, "birthDate", r#""1980""#),
    (
        r#"[{"type":"replace","path":"Patient.birthDate.extension('u').value","value":{"valueString":"f"}}]"#,
        "_birthDate",
        r#"{"extension":[{"url":"u","valueString":"f"}]}"#,
    ),
    (
        r#"[{"type":"add","path":"Patient.birthDate","name":"extension","value":{"valueExtension":{"url":"v"}}}]"#,
        "_birthDate",
        r#"{"extension":[{"url":"u","valueString":"e"},{"url":"v"}]}"#,
    ),
    (r#"[{"type":"add","path":"Patient.active","name":"extension","value":{"valueExtension":{"url":"v"}}}]"#, "_active", r#"{"extension":[{"url":"v"}]}"#),
    (r#"[{"type":"insert","path":"Patient.active.extension","index":0,"value":{"valueExtension":{"url":"v"}}}]"#, "_active", r#"{"extension":[{"url":"v"}]}"#),
    (
        r#"[{"type":"add","path":"Patient.name[0].given[0]","name":"id","value":{"valueString":"b"}}]"#,
        "name",
        r#"[{"family":"A","given":["B","C"],"_given":[{"id":"b"},{"id":"c"}]},{"family":"D"}]"#,
    ),
    (r#"[{"type":"delete","path":"Patient.name[0].given[1].id"}]"#, "name", r#"[{"family":"A","given":["B","C"]},{"family":"D"}]"#),
    // A resource inside has its own elements.
    (r#"[{"type":"delete","path":"Patient.contained[0].id"}]"#, "contained", r#"[{"resourceType":"Organization","name":"N"}]"#),
    (
        r#"[{"type":"replace","path":"Patient.contained[0].name","value":{"valueString":"M"}}]"#,
        "contained",
        r#"[{"resourceType":"Organization","id":"o","name":"M"}]"#,
    ),
    (
        r#"[{"type":"add","path":"Patient.contained.where(id='o')","name":"alias","value":{"valueString":"M"}}]"#,
        "contained",
        r#"[{"resourceType":"Organization","id":"o","name":"N","alias":["M"]}]"#,
    ),
    // What no element or no value is.
    (r#"[{"type":"add","path":"Patient","name":"contact","value":{"valueHumanName":{"family":"X"}}}]"#, "!", "'contact' has no type of its own"),
    (r#"[{"type":"add","path":"Patient","name":"contained","value":{"valueHumanName":{"family":"X"}}}]"#, "!", "'contained' is a resource"),
    (
        r#"[{"type":"add","path":"Patient","name":"multipleBirth","value":{"valueboolean":true}}]"#,
        "!",
        "'multipleBirth' cannot be a boolean; it is one of boolean, integer",
    ),
    (
        r#"[{"type":"add","path":"Patient","name":"multipleBirthInteger","value":{"valueBoolean":true}}]"#,
        "!",
        "'multipleBirthInteger' is a integer and cannot be a Boolean",
    ),
    (r#"[{"type":"replace","path":"Patient.name[0]","value":{"valueHumanName":{}}}]"#, "!", "is an empty object"),
    (r#"[{"type":"replace","path":"Patient.birthDate","value":{"valueDate":null}}]"#, "!", "part 'value' with one value"),
    (r#"[{"type":"replace","path":"Patient.birthDate","value":{"valueDate":"1990","part":[]}}]"#, "!", "part 'value' with one value"),
    (r#"[{"type":"delete","path":"Patient.gendr"}]"#, "!", "'gendr' is no element of Patient; did you mean 'gender'?"),
    (r#"[{"type":"delete","path":"Patient.contact.nam.text"}]"#, "!", "the path names no element of Patient"),
    (r#"[{"type":"replace","path":"Patient.active","value":{"valueString":"x"}}]"#, "!", "a value of type boolean is a boolean in JSON"),
    (r#"[{"type":"replace","path":"Patient.name[0].family","value":{"valueString":""}}]"#, "!", "is an empty string"),
    (r#"[{"type":"replace","path":"Patient.name[0]","value":{"valueIdentifier":{}}}]"#, "!", "'name' is a HumanName and cannot be a Identifier"),
    (r#"[{"type":"replace","path":"Patient.name[0]","value":{"valueHumanName":"x"}}]"#, "!", "a HumanName is an object"),
    (r#"[{"type":"replace","path":"Patient.birthDate","value":{"valueString":"1990-13"}}]"#, "!", "is no date"),
    (r#"[{"type":"add","path":"Patient","name":"contained","value":[]}]"#, "!", "part 'value' with one value, or parts, is missing"),
    (r#"[{"type":"replace","path":"Patient.active","value":{"valueBoolean":true,"valueString":"x"}}]"#, "!", "part 'value' with one value"),
    (r#"[{"type":"delete","path":"Patient.active","valve":"x"}]"#, "!", "part 'valve' is none of type, path, name, value"),
    // The second one fails: the first one is not kept.
    (r#"[{"type":"delete","path":"Patient.active"},{"type":"delete","path":"Patient.name"}]"#, "!", "operation 1 of the patch"),
];

#[test]
fn fhirpath_patches_change_what_their_paths_lead_to() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    for (operations, member, expected) in CASES {
        put(&fhir);
        let said: Vec<Value> = serde_json::from_str(operations).unwrap();
        let patch = fhirpath(&said.iter().map(operation).collect::<Vec<_>>());
        let reply = send(&fhir, "application/fhir+json", &patch);
        if *member == "!" {
            assert!(matches!(reply.status, 400 | 422), "{operations}: {}", reply.text());
            assert!(reply.refusal().contains(expected), "{operations}: {}", reply.refusal());
        } else {
            assert_eq!(reply.expect(200).json()[*member], serde_json::from_str::<Value>(expected).unwrap(), "{operations}");
        }
    }
    let unnamed = fhirpath(&[json!({"name": "op"})]);
    assert!(send(&fhir, "application/fhir+json", &unnamed).expect(400).refusal().contains("each is named operation"));
    assert_eq!(fhir.get("/Patient/p").json()["active"], true);
}

/// A primitive without a value is where what is beside it says.
#[test]
fn a_fhirpath_patch_finds_primitives_that_have_only_extensions() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let unknown = json!({"extension": [{"url": "why", "valueCode": "unknown"}]});
    let patient = json!({"resourceType": "Patient", "id": "p", "active": true, "_birthDate": unknown,
        "name": [{"given": ["A", null, "C"], "_given": [null, unknown, {"id": "c"}]}]});
    let after = |operations: Value| {
        fhir.put("/Patient/p", &patient);
        let operations: Vec<Value> = operations.as_array().unwrap().iter().map(operation).collect();
        send(&fhir, "application/fhir+json", &fhirpath(&operations)).expect(200).json()
    };
    assert_eq!(after(json!([{"type": "delete", "path": "Patient.birthDate"}])).get("_birthDate"), None);
    assert_eq!(after(json!([{"type": "delete", "path": "Patient.birthDate.extension('why')"}])).get("_birthDate"), None);
    let replaced = after(json!([{"type": "replace", "path": "Patient.birthDate", "value": {"valueDate": "1980"}}]));
    assert_eq!((&replaced["birthDate"], replaced.get("_birthDate")), (&json!("1980"), None));
    let given = |operations| after(operations)["name"].clone();
    assert_eq!(given(json!([{"type": "delete", "path": "Patient.name.given[1]"}])), json!([{"given": ["A", "C"], "_given": [null, {"id": "c"}]}]));
    let deleted = given(json!([{"type": "delete", "path": "Patient.name.given[1].extension[0]"}]));
    assert_eq!(deleted, json!([{"given": ["A", "C"], "_given": [null, {"id": "c"}]}]), "neither value nor extension: gone");
    let deleted = given(json!([{"type": "delete", "path": "Patient.name.given[2].id"}]));
    assert_eq!(deleted, json!([{"given": ["A", null, "C"], "_given": [null, unknown, null]}]));
    let moved = given(json!([{"type": "move", "path": "Patient.name.given", "source": 1, "destination": 0}]));
    assert_eq!(moved, json!([{"given": [null, "A", "C"], "_given": [unknown, null, {"id": "c"}]}]));
    let replaced = given(json!([{"type": "replace", "path": "Patient.name.given[1]", "value": {"valueString": "B"}}]));
    assert_eq!(replaced, json!([{"given": ["A", "B", "C"], "_given": [null, null, {"id": "c"}]}]));
}

/// What is beside a value stays beside it, and what has no value is an element all the same.
#[test]
fn a_patch_leaves_the_neighbours_alone() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let kept = json!({"id": "keep", "extension": [{"url": "u", "valueString": "KEEP"}]});
    let of = |what: &str| json!({"extension": [{"url": "u", "valueString": what}]});
    let after = |name: Value, media: &str, patch: &Value| {
        fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true, "name": [name]}));
        send(&fhir, media, patch).expect(200).json()["name"].clone()
    };
    let by_path = |name: Value, operations: Value| {
        let operations: Vec<Value> = operations.as_array().unwrap().iter().map(operation).collect();
        after(name, "application/fhir+json", &fhirpath(&operations))
    };
    let deleted = json!([{"type": "delete", "path": "Patient.name[0].given[0]"}]);
    let mixed = json!({"family": "F", "given": ["a", null], "_given": [null, kept]});
    assert_eq!(by_path(mixed, deleted.clone()), json!([{"family": "F", "_given": [kept]}]));
    let two = json!({"given": [null, null], "_given": [of("1"), of("2")]});
    assert_eq!(by_path(two, deleted), json!([{"_given": [of("2")]}]));
    let shorter = json!({"given": ["A"], "_given": [null, kept]});
    let added = json!([{"type": "add", "path": "Patient.name[0]", "name": "given", "value": {"valueString": "I"}}]);
    assert_eq!(by_path(shorter, added), json!([{"given": ["A", null, "I"], "_given": [null, kept, null]}]));
    let by_pointer = |name: Value, patch: Value| after(name, "application/json-patch+json", &patch);
    let both = || json!({"given": ["a", "b"], "_given": [of("a"), of("b")]});
    let without = json!([{"given": ["a", "b"], "_given": [null, of("b")]}]);
    for patch in [
        json!([{"op": "remove", "path": "/name/0/_given/0/extension"}]),
        json!([{"op": "remove", "path": "/name/0/_given/0/extension/0"}]),
        json!([{"op": "replace", "path": "/name/0/_given/0", "value": {}}]),
    ] {
        assert_eq!(by_pointer(both(), patch.clone()), without, "{patch}");
    }
    let all = json!([{"op": "remove", "path": "/name/0/_given/0/extension"}, {"op": "remove", "path": "/name/0/_given/1/extension"}]);
    assert_eq!(by_pointer(both(), all), json!([{"given": ["a", "b"]}]));
    // Places shift while the patch goes on.
    let telecoms = json!({"resourceType": "Patient", "id": "p", "telecom": [{"value": "1"}, {"value": "2"}, {"value": "3"}]});
    for (patch, expected) in [
        (json!([{"op": "remove", "path": "/telecom/0/value"}, {"op": "remove", "path": "/telecom/1/value"}]), json!([{"value": "3"}])),
        (json!([{"op": "remove", "path": "/telecom/2/value"}, {"op": "remove", "path": "/telecom/0"}]), json!([{"value": "2"}])),
    ] {
        fhir.put("/Patient/p", &telecoms);
        assert_eq!(send(&fhir, "application/json-patch+json", &patch).expect(200).json()["telecom"], expected);
    }
    // A media type says how to read it, of a patch too.
    for (media, status) in [("application/json-patch+json; charset=iso-8859-1", 415), ("application/merge-patch+json; fhirVersion=5.0", 406)] {
        assert_eq!(send(&fhir, media, &json!([])).status, status, "{media}");
    }
}

/// Operations go through the whole resource: many on a large one would hold the simulator.
/// What an operation empties stays where it is until the end: the next one counts on.
#[test]
fn a_fhirpath_patch_counts_on_after_it_emptied_something() {
    let server = TestServer::start();
    let two = json!([{"gender": "male"}, {"name": {"family": "Second"}, "gender": "female"}]);
    let delete = |path: &str| operation(&json!({"type": "delete", "path": path}));
    let add = |path: &str, name: &str, value: Value| operation(&json!({"type": "add", "path": path, "name": name, "value": value}));
    let cases: [(&[Value], Value); 6] = [
        (
            &[delete("Patient.contact[0].gender"), add("Patient.contact[0]", "gender", json!({"valueCode": "other"}))],
            json!([{"gender": "other"}, {"name": {"family": "Second"}, "gender": "female"}]),
        ),
        (&[delete("Patient.contact[0].gender"), delete("Patient.contact[1].gender")], json!([{"name": {"family": "Second"}}])),
        (&[delete("Patient.contact[0].gender"), delete("Patient.contact[0]")], json!([{"name": {"family": "Second"}, "gender": "female"}])),
        (
            &[delete("Patient.contact[1].name.family"), add("Patient.contact[1].name", "text", json!({"valueString": "t"}))],
            json!([{"gender": "male"}, {"name": {"text": "t"}, "gender": "female"}]),
        ),
        (&[delete("Patient.contact[1].name.family")], json!([{"gender": "male"}, {"gender": "female"}])),
        (&[delete("Patient.contact[0].gender"), delete("Patient.contact[1].gender"), delete("Patient.contact[1].name.family")], Value::Null),
    ];
    for version in ["STU3", "R4", "R5"] {
        server.client().post("/api/sims", &json!({"id": format!("a__{version}"), "fhirVersion": version})).expect(201);
        let fhir = server.fhir(&format!("a__{version}"));
        for (n, (operations, expected)) in cases.iter().enumerate() {
            fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "active": true, "contact": two}));
            let patched = send(&fhir, "application/fhir+json", &fhirpath(operations)).expect(200).json();
            assert_eq!((&patched["contact"], &patched["active"]), (expected, &json!(true)), "{version} {n}");
        }
    }
}

#[test]
fn a_fhirpath_patch_of_too_much_work_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let identifiers: Vec<Value> = (0..20_000).map(|n| json!({"system": "s", "value": n.to_string()})).collect();
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "identifier": identifiers})).expect(201);
    let delete = |n: usize| operation(&json!({"type": "delete", "path": format!("Patient.identifier.where(value='{n}')")}));
    let patch = |n: usize| fhirpath(&(0..n).map(delete).collect::<Vec<_>>());
    assert!(send(&fhir, "application/fhir+json", &patch(1_000)).expect(403).refusal().contains("send fewer, or PUT the resource"));
    // What a path does for each of many is work, too.
    let names: Vec<Value> = (0..8_000).map(|n| json!({"family": format!("f{n}")})).collect();
    fhir.put("/Patient/q", &json!({"resourceType": "Patient", "id": "q", "name": names})).expect(201);
    let squared = fhirpath(&[operation(&json!({"type": "delete", "path": "Patient.name.where(family=%resource.name.family)"}))]);
    fhir.send("PATCH", "/Patient/q", &[], squared.to_string().as_bytes()).expect(403);
    assert_eq!(send(&fhir, "application/fhir+json", &patch(10)).expect(200).json()["identifier"].as_array().unwrap().len(), 19_990);
}

/// Expressions are read and evaluated by recursion: one that is too deep must not take the server along.
#[test]
fn a_fhirpath_patch_of_a_monstrous_path_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    put(&fhir);
    let nested = |open: &str, close: &str, n: usize| format!("{}Patient{}", open.repeat(n), close.repeat(n));
    for path in [
        format!("Patient.name{}", ".where(true)".repeat(5_000)),
        format!("Patient.name{}", "[0]".repeat(50_000)),
        format!("Patient.name.where(true{})", " and true".repeat(20_000)),
        format!("Patient.name{}", " | Patient.name".repeat(20_000)),
        nested("(", ")", 5_000),
        nested("Patient.where(", ")", 3_000),
    ] {
        let patch = fhirpath(&[operation(&json!({"type": "delete", "path": path}))]);
        let refused = send(&fhir, "application/fhir+json", &patch).expect(400).refusal();
        assert!(refused.contains("4000 bytes, 100 parentheses or 200 steps"), "{refused}");
        let bundle =
            json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": patch, "request": {"method": "PATCH", "url": "Patient/p"}}]});
        fhir.post("", &bundle).expect(400);
    }
    // What the limits leave is evaluated.
    for path in [format!("Patient.nothing{}", ".x".repeat(190)), format!("Patient.photo{}", " | Patient.photo".repeat(150)), nested("(", ")", 99)] {
        let patch = fhirpath(&[operation(&json!({"type": "delete", "path": path}))]);
        assert!(send(&fhir, "application/fhir+json", &patch).status < 500);
    }
    fhir.get("/Patient/p").expect(200);
}

#[test]
fn texts_of_a_path_may_have_any_character() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let names = json!([{"family": "O'Neil", "given": ["a"]}, {"family": "back\\slash", "given": ["b"]}]);
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p", "name": names})).expect(201);
    let delete = |path: &str| send(&fhir, "application/fhir+json", &fhirpath(&[operation(&json!({"type": "delete", "path": path}))]));
    for path in ["Patient.name.where(family='\\u004f\\'Neil').given", "Patient.name.where(family='back\\\\slash').given"] {
        delete(path).expect(200);
    }
    let left = fhir.get("/Patient/p").json();
    assert_eq!(left["name"], json!([{"family": "O'Neil"}, {"family": "back\\slash"}]));
    let refused = delete("Patient.name.where(family='\\x')").expect(422).refusal();
    assert!(refused.contains("backslash"), "{refused}");
    delete("Patient.name.where(true)[0].family").expect(200);
    assert_eq!(fhir.get("/Patient/p").json()["name"], json!([{"family": "back\\slash"}]));
}

fn one(kind: &str, path: &str, more: &[Value]) -> Value {
    let mut parts = vec![json!({"name": "type", "valueCode": kind}), json!({"name": "path", "valueString": path})];
    parts.extend_from_slice(more);
    json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]})
}

#[test]
fn a_value_in_parts_has_the_type_that_its_name_says() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let first = json!({"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "a"}, "valueQuantity": {"value": 1}});
    fhir.put("/Observation/o", &first).expect(201);
    let patch = |body: &Value| fhir.send("PATCH", "/Observation/o", &[("content-type", "application/fhir+json")], body.to_string().as_bytes());
    let three = json!({"name": "value", "part": [{"name": "value", "valueDecimal": 3}]});
    let done = patch(&one("replace", "Observation.value", std::slice::from_ref(&three))).expect(200).json();
    assert_eq!(done["valueQuantity"], json!({"value": 3}), "{done}");
    assert_eq!(fhir.ids("/Observation?value-quantity=3"), ["o"]);
    patch(&one("delete", "Observation.value", &[])).expect(200);
    let refused = patch(&one("add", "Observation", &[json!({"name": "name", "valueString": "value"}), three.clone()])).expect(422).refusal();
    assert!(refused.contains("such as valueQuantity"), "{refused}");
    let done = patch(&one("add", "Observation", &[json!({"name": "name", "valueString": "valueQuantity"}), three])).expect(200).json();
    assert_eq!(done["valueQuantity"], json!({"value": 3}));
    let extension = json!({"name": "value", "part": [{"name": "url", "valueUri": "http://x"}, {"name": "valuePeriod", "part": [{"name": "start", "valueDateTime": "2024"}]}]});
    let done = patch(&one("add", "Observation", &[json!({"name": "name", "valueString": "extension"}), extension])).expect(200).json();
    assert_eq!(done["extension"], json!([{"url": "http://x", "valuePeriod": {"start": "2024"}}]));
    // What asks for nothing does nothing.
    assert_eq!(patch(&json!({"resourceType": "Parameters"})).expect(200).json()["extension"], done["extension"]);
}

#[test]
fn differences_are_told_of_all_that_is_valid() {
    let server = TestServer::start();
    for version in ["STU3", "R4", "R4B", "R5"] {
        let sim = format!("v__{}", version.to_lowercase());
        server.client().put(&format!("/api/sims/{sim}"), &json!({"fhirVersion": version})).expect(201);
        let fhir = server.fhir(&sim);
        let given = |text: &str| json!({"resourceType": "Patient", "id": "p", "name": [{"id": "a_long[x]", "_given": [{"extension": [{"url": "http://a", "valueString": text}]}]}]});
        let element = |id: &str| json!({"resourceType": "StructureDefinition", "id": "x", "snapshot": {"element": [{"id": id, "path": "A.value[x]"}]}});
        for (path, first, second) in [("/Patient/p", given("1"), given("2")), ("/StructureDefinition/x", element("A"), element("A.value[x]"))] {
            fhir.put(path, &first).expect(201);
            fhir.put(path, &second).expect(200);
            let patch = fhir.get(&format!("{path}/$diff")).expect(200).json();
            fhir.put(path, &first).expect(200);
            let done = fhir.send("PATCH", path, &[("content-type", "application/fhir+json")], patch.to_string().as_bytes()).expect(200).json();
            assert_eq!((&done["name"], &done["snapshot"]), (&second["name"], &second["snapshot"]), "{version} {patch}");
        }
    }
}

#[test]
fn a_fhirpath_patch_that_is_no_array_is_refused() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &crate::support::patient("p", "A")).expect(201);
    let patch = json!({"resourceType": "Parameters", "parameter": {"name": "operation", "part": [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Patient.name"}]}});
    let refused = fhir.patch("/Patient/p", &patch).expect(400).refusal();
    assert!(refused.contains("[Parameters.parameter]: Parameters.parameter must be an array of operations, but is an object"), "{refused}");
    assert_eq!(fhir.get("/Patient/p").json()["meta"]["versionId"], "1");
}

#[test]
fn what_a_refused_patch_says_fits_the_patch_and_a_screen() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    put(&fhir);
    for (media, said) in
        [("application/json-patch+json", "a JSON Patch, an array of operations, was expected"), ("application/merge-patch+json", "a JSON Merge Patch")]
    {
        for body in [b"".as_slice(), b" \n "] {
            let refused = fhir.send("PATCH", "/Patient/p", &[("content-type", media)], body).expect(400).refusal();
            assert!(refused.contains("malformed-body: the patch is empty; ") && refused.contains(said), "{refused}");
        }
    }
    let long = "x".repeat(10_000);
    for operation in [
        json!({"op": "test", "path": format!("/{long}"), "value": 1}),
        json!({"op": "test", "path": "/active", "value": long}),
        json!({"op": "remove", "path": format!("/{long}")}),
        json!({"op": "replace", "path": format!("/name/{long}"), "value": long}),
        json!({"op": "copy", "from": format!("/{long}"), "path": "/name/0"}),
    ] {
        let refused = send(&fhir, "application/json-patch+json", &json!([operation])).expect(422).refusal();
        assert!(refused.contains("operation 0 of the patch, {\"op\":") && refused.contains("x...") && refused.len() < 500, "{refused}");
    }
}
