//! FHIR XML at the edge: in, out, mixed with JSON, and refused.

use serde_json::{Value, json};

use crate::support::{Client, Reply, TestServer, only_event};

const PATIENT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- as a client sends it -->
<Patient xmlns="http://hl7.org/fhir">
  <id value="p"/>
  <text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml"><p>Ann &amp; <b>Bob</b> &lt;3</p></div></text>
  <extension url="http://x/weight"><valueDecimal value="1.50"/></extension>
  <active value="true"/>
  <name><given value="Ann"/><given><extension url="http://x/absent"><valueCode value="unknown"/></extension></given><family value="M&#xFC;ller"/></name>
  <birthDate value="1980-05"><extension url="http://x/note"><valueString value="a &quot;b&quot;&#10;c"/></extension></birthDate>
  <multipleBirthInteger value="2"/>
</Patient>"#;

fn xml(fhir: &Client, method: &str, path: &str, body: &str) -> Reply {
    fhir.send(method, path, &[("content-type", "application/fhir+xml"), ("accept", "application/fhir+xml")], body.as_bytes())
}

#[test]
fn xml_goes_in_and_out_and_json_sees_the_same() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let put = xml(&fhir, "PUT", "/Patient/p", PATIENT).expect(201);
    assert_eq!(put.header("content-type"), "application/fhir+xml; charset=utf-8");
    assert!(put.text().starts_with("<?xml") && put.text().contains("<versionId value=\"1\"/>"), "{}", put.text());
    let read = fhir.get("/Patient/p").expect(200).json();
    assert_eq!(
        read["name"][0],
        json!({"family": "Müller", "given": ["Ann", null], "_given": [null, {"extension": [{"url": "http://x/absent", "valueCode": "unknown"}]}]})
    );
    assert_eq!(read["text"]["div"], r#"<div xmlns="http://www.w3.org/1999/xhtml"><p>Ann &amp; <b>Bob</b> &lt;3</p></div>"#);
    assert_eq!(read["_birthDate"]["extension"][0]["valueString"], "a \"b\"\nc");
    assert!(fhir.get("/Patient/p").text().contains("\"valueDecimal\":1.50"), "digits survive");
    assert_eq!((read["multipleBirthInteger"].clone(), read["active"].clone()), (json!(2), json!(true)));
    // What was sent and what was answered is kept as it was.
    let folder = only_event(&server.simdb(), "a__b", "PUT");
    assert_eq!(std::fs::read_to_string(folder.join("request_body.xml")).unwrap(), PATIENT);
    assert_eq!(std::fs::read_to_string(folder.join("response_body.xml")).unwrap(), put.text());
    let stored: Value = serde_json::from_slice(&std::fs::read(folder.join("Patient1.json")).unwrap()).unwrap();
    assert_eq!(stored, read);
    let again = fhir.get("/Patient/p?_format=xml").expect(200);
    assert_eq!(again.text(), put.text());
    let pretty = fhir.get("/Patient/p?_format=xml&_pretty=true").expect(200);
    assert!(pretty.text().contains("\n  <name>\n    <family value=\"Müller\"/>\n    <given value=\"Ann\"/>"), "{}", pretty.text());
    let back = xml(&fhir, "PUT", "/Patient/p", pretty.text()).expect(200);
    assert_eq!(
        back.text().replace("versionId value=\"2\"", ""),
        put.text().replace("versionId value=\"1\"", "").replace(&last_updated(&put), &last_updated(&back))
    );
    assert_eq!(fhir.ids("/Patient?family=muller"), ["p"]);
}

fn last_updated(reply: &Reply) -> String {
    reply.text().split("<lastUpdated value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

#[test]
fn every_kind_of_answer_is_xml_when_asked_for() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    xml(&fhir, "PUT", "/Patient/p", PATIENT).expect(201);
    for (accept, expected) in [
        ("application/fhir+xml", "application/fhir+xml"),
        ("application/xml", "application/xml"),
        ("text/xml", "text/xml"),
        ("application/fhir+json;q=0.5, application/fhir+xml", "application/fhir+xml"),
        // What a browser sends is no wish for FHIR XML.
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/fhir+json"),
        ("application/*;q=0, application/fhir+json", "application/fhir+json"),
        ("text/*, */*;q=0", "text/json"),
        ("application/fhir+json;Q=0, */*", "application/json"),
        ("application/json+fhir;q=0, */*;q=0.2", "application/json"),
        ("*/*", "application/fhir+json"),
    ] {
        let reply = fhir.send("GET", "/Patient/p", &[("accept", accept)], b"").expect(200);
        assert!(reply.header("content-type").starts_with(expected), "{accept}: {}", reply.header("content-type"));
    }
    for (path, start) in [
        ("/Patient?family=muller", "<Bundle xmlns=\"http://hl7.org/fhir\">"),
        ("/Patient/p/_history", "<Bundle"),
        ("/Patient/none", "<OperationOutcome"),
        ("/metadata", "<CapabilityStatement"),
        ("/Patient/p/$everything", "<Bundle"),
        ("/Patient/p/$meta", "<Parameters"),
        ("/SearchParameter/individual-birthdate", "<SearchParameter"),
    ] {
        let reply = fhir.send("GET", path, &[("accept", "application/fhir+xml")], b"");
        assert!(reply.text().contains(start), "{path}: {}", reply.text().chars().take(200).collect::<String>());
    }
    let bundle = r#"<Bundle xmlns="http://hl7.org/fhir"><type value="transaction"/><entry><fullUrl value="urn:uuid:1"/><resource><Patient><name><family value="New"/></name></Patient></resource>
        <request><method value="POST"/><url value="Patient"/></request></entry><entry><resource><Observation><status value="final"/><code><text value="x"/></code><subject><reference value="urn:uuid:1"/></subject></Observation></resource>
        <request><method value="POST"/><url value="Observation"/></request></entry></Bundle>"#;
    let answer = xml(&fhir, "POST", "", bundle).expect(200);
    assert!(answer.text().contains("<status value=\"201 Created\"/>"), "{}", answer.text());
    let new = fhir.ids("/Patient?family=new");
    assert_eq!(fhir.ids(&format!("/Observation?subject=Patient/{}", new[0])).len(), 1);
    let patch = r#"<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/><part><name value="type"/><valueCode value="delete"/></part><part><name value="path"/><valueString value="Patient.active"/></part></parameter></Parameters>"#;
    xml(&fhir, "PATCH", "/Patient/p", patch).expect(200);
    assert_eq!(fhir.get("/Patient/p").json().get("active"), None);
    let converted = fhir.send(
        "POST",
        "/$convert",
        &[("content-type", "application/fhir+json"), ("accept", "application/fhir+xml")],
        br#"{"resourceType":"Patient","active":true}"#,
    );
    assert!(converted.expect(200).text().ends_with("<Patient xmlns=\"http://hl7.org/fhir\"><active value=\"true\"/></Patient>"));
    let validated = xml(&fhir, "POST", "/Patient/$validate", r#"<Patient xmlns="http://hl7.org/fhir"><gender value="x"/></Patient>"#).expect(200);
    assert!(validated.text().contains("code-invalid"), "{}", validated.text());
}

#[test]
fn xml_that_cannot_be_taken_is_refused_with_its_place() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let laughs = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><Patient xmlns="http://hl7.org/fhir"><name><family value="&b;"/></name></Patient>"#;
    let external = r#"<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><Patient xmlns="http://hl7.org/fhir"><name><family value="&a;"/></name></Patient>"#;
    let deep = format!("<Patient xmlns=\"http://hl7.org/fhir\">{}</Patient>", "<extension url=\"x\">".repeat(200) + &"</extension>".repeat(200));
    for (body, said) in [
        (laughs, "at line 1 column 1"),
        (external, "at line 1 column 1"),
        ("<Patient xmlns=\"http://hl7.org/fhir\">\n  <active value=\"true\">\n</Patient>", "at line 3"),
        ("<Patient><active value=\"true\"/></Patient>", "http://hl7.org/fhir"),
        ("<Patient xmlns=\"http://hl7.org/fhir\"><active valu=\"true\"/></Patient>", "valu"),
        ("<Patient xmlns=\"http://hl7.org/fhir\">text</Patient>", "line 1 column"),
        ("<Pateint xmlns=\"http://hl7.org/fhir\"/>", "did you mean 'Patient'?"),
        (&deep, "100"),
        ("  ", "the body is empty"),
        ("{}", "malformed XML"),
    ] {
        let reply = xml(&fhir, "POST", "/Patient", body).expect(400);
        assert!(reply.text().contains("<OperationOutcome") && reply.text().contains(said), "{body}: {}", reply.text());
    }
    for media in ["application/json", "application/fhir+json"] {
        let reply = fhir.send("POST", "/Patient", &[("content-type", media)], b"<Patient xmlns=\"http://hl7.org/fhir\"/>").expect(400);
        assert!(reply.refusal().contains("looks like XML, which is sent with Content-Type application/fhir+xml"), "{}", reply.text());
    }
    assert_eq!(fhir.get("/Patient").json()["total"], 0);
    // What JSON can say and XML cannot is kept, and refused in XML only.
    fhir.send("PUT", "/Patient/c", &[], br#"{"resourceType":"Patient","id":"c","name":[{"family":"a\u0001b"}]}"#).expect(201);
    let refused = fhir.send("GET", "/Patient/c", &[("accept", "application/fhir+xml")], b"").expect(406);
    assert!(refused.text().contains("Patient.name[0].family cannot be said in XML"), "{}", refused.text());
    fhir.get("/Patient/c").expect(200);
    fhir.send("POST", "/Patient/_search", &[("content-type", "application/xml")], b"<x/>").expect(415);
    fhir.send("POST", "/Binary", &[("content-type", "application/xml")], b"<any><xml/></any>").expect(201);
}

#[test]
fn a_posted_search_says_its_format_in_the_form() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let reply = fhir.send("POST", "/Patient/_search", &headers, b"family=a&_format=xml").expect(200);
    assert!(reply.text().contains("<Bundle xmlns=\"http://hl7.org/fhir\">"), "{}", reply.text());
}

#[test]
fn elements_out_of_order_are_judged_as_the_setting_says() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    let validation = |how: &str| api.send("PATCH", "/api/sims/a__b", &[], json!({"settings": {"validation": how}}).to_string().as_bytes()).expect(200);
    let wrong = r#"<Patient xmlns="http://hl7.org/fhir"><gender value="male"/><name><family value="F"/></name></Patient>"#;
    let send = |method: &str, path: &str, body: &str| fhir.send(method, path, &[("content-type", "application/fhir+xml")], body.as_bytes());
    assert_eq!(send("POST", "/Patient", wrong).expect(201).json()["name"][0]["family"], "F");
    let said = send("POST", "/Patient/$validate", wrong).expect(200).json();
    assert_eq!((&said["issue"][0]["severity"], &said["issue"][0]["expression"]), (&json!("error"), &json!(["Patient.name[0]"])), "{said}");
    validation("strict");
    let refused = send("POST", "/Patient", wrong).expect(422).json();
    assert_eq!(refused["issue"][0]["expression"], json!(["Patient.name[0]"]));
    assert!(refused["issue"][0]["diagnostics"].as_str().unwrap().contains("'name' goes before 'gender'"), "{refused}");
    let entry = format!(r#"<entry><resource>{wrong}</resource><request><method value="POST"/><url value="Patient"/></request></entry>"#);
    let bundle = format!(r#"<Bundle xmlns="http://hl7.org/fhir"><type value="transaction"/>{entry}</Bundle>"#);
    let refused = send("POST", "/", &bundle).expect(422).json();
    assert_eq!(refused["issue"][0]["expression"], json!(["Bundle.entry[0].resource.name[0]"]));
    // In a batch, each for itself.
    let right = r#"<Patient xmlns="http://hl7.org/fhir"><name><family value="F"/></name><gender value="male"/></Patient>"#;
    let batch = format!(r#"<Bundle xmlns="http://hl7.org/fhir"><type value="batch"/>{}{entry}</Bundle>"#, entry.replace(wrong, right));
    let answer = send("POST", "/", &batch).expect(200).json();
    assert_eq!(
        (&answer["entry"][0]["response"]["status"], &answer["entry"][1]["response"]["status"]),
        (&json!("201 Created"), &json!("422 Unprocessable Entity"))
    );
    assert_eq!(answer["entry"][1]["response"]["outcome"]["issue"][0]["expression"], json!(["Bundle.entry[1].resource.name[0]"]), "{answer}");
    validation("warn");
    send("POST", "/Patient", wrong).expect(201);
    assert_eq!(send("POST", "/", &batch).expect(200).json()["entry"][1]["response"]["status"], "201 Created");
    let events = api.get("/api/sims/a__b/events?interaction=batch&limit=1000").expect(200).json();
    assert!(events["events"].to_string().contains("Bundle.entry[1].resource.name[0]"), "{events}");
    let events = api.get("/api/sims/a__b/events?interaction=create&limit=1000").expect(200).json();
    let warned = events["events"].as_array().unwrap().iter().find(|e| !e["issues"].is_null() && e["response"]["status"] == 201).unwrap();
    assert!(warned["issues"].to_string().contains("Patient.name[0]"), "{warned}");
    validation("strict");
    for (inner, at, why) in [
        (r#"<extension><url value="http://x"/><valueInteger value="1"/></extension>"#, "Patient.extension[0].url", "'url' is an attribute in XML"),
        (r#"<name><id value="i"/><text value="a"/></name>"#, "Patient.name[0].id", "'id' is an attribute in XML"),
        (r#"<photo url="http://x"/>"#, "Patient.photo[0].url", "'url' is an element in XML and no attribute"),
        (r#"<birthDate value="2000"><id value="i"/></birthDate>"#, "Patient.birthDate.id", "'id' is an attribute in XML"),
        (r#"<_birthDate><extension url="http://x"><valueString value="q"/></extension></_birthDate>"#, "Patient._birthDate", "a name of JSON; in XML"),
        (
            "<contained><Basic><id value=\"a\"/></Basic><Basic><id value=\"b\"/></Basic></contained>",
            "Patient.contained[0]",
            "each resource has a 'contained' of its own",
        ),
        (
            r#"<extension url="u"><valueDecimal value="+1.0"/></extension>"#,
            "Patient.extension[0].value",
            "'+1.0' is a string, but a value of type decimal is a number",
        ),
    ] {
        let wrong = format!(r#"<Patient xmlns="http://hl7.org/fhir">{inner}</Patient>"#);
        let refused = send("POST", "/Patient", &wrong).expect(422).json();
        let issues = refused["issue"].as_array().unwrap();
        let says = |issue: &Value| issue["expression"] == json!([at]) && issue["diagnostics"].as_str().unwrap().contains(why);
        assert!(issues.iter().any(says), "{at}: {refused}");
        let validated = send("POST", "/Patient/$validate", &wrong).expect(200).json();
        assert!(validated["issue"].as_array().unwrap().iter().any(says), "{at}: {validated}");
    }
    send("POST", "/Patient", r#"<Patient xmlns="http://hl7.org/fhir" id="x"/>"#).expect(400);
    let right = r#"<Patient xmlns="http://hl7.org/fhir"><id value="x"/><name id="i"><family id="f" value="F"/></name></Patient>"#;
    send("POST", "/Patient", right).expect(201);
    // JSON has no order.
    fhir.post("/Patient", &json!({"resourceType": "Patient", "gender": "male", "name": [{"family": "F"}]})).expect(201);
}

#[test]
fn what_is_not_accepted_is_not_sent() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &json!({"resourceType": "Patient", "id": "p"})).expect(201);
    for (accept, expected) in [
        ("application/json;q=0, application/fhir+json;q=0, text/json;q=0, */*;q=0.1", "application/fhir+xml"),
        ("application/fhir+json;q=0, */*", "application/json"),
        ("application/fhir+xml;q=0, application/xml", "application/xml"),
        ("*/*", "application/fhir+json"),
    ] {
        let reply = fhir.send("GET", "/Patient/p", &[("accept", accept)], b"").expect(200);
        assert!(reply.header("content-type").starts_with(expected), "{accept}: {}", reply.header("content-type"));
        let vary: String = reply.headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| format!("{value},")).collect();
        assert!(vary.split(',').any(|name| name.trim().eq_ignore_ascii_case("accept")), "{vary}");
    }
    fhir.send("GET", "/Patient/p", &[("accept", "application/fhir+json;q=0")], b"").expect(406);
    assert!(fhir.send("GET", "/Patient/p", &[("accept", "application/*;q=0, */*")], b"").expect(200).header("content-type").starts_with("text/json"));
    fhir.get("/Patient?birthdate=a%22b%26%3Cc&_format=xml").expect(400);
    let why = server.client().get("/api/sims/a__b/log").json()["entries"][0]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("'a\"b&<c' is not a date"), "{why}");
    let narrative = "<Patient xmlns=\"http://hl7.org/fhir\"><id value=\"n\"/><text><status value=\"generated\"/><div xmlns=\"http://www.w3.org/1999/xhtml\">a\r\nb\rc</div></text><multipleBirthInteger value=\"+2\"/></Patient>";
    xml(&fhir, "PUT", "/Patient/n", narrative).expect(201);
    let read = fhir.get("/Patient/n").json();
    // What is declared around a narrative goes along.
    let around = "<Patient xmlns=\"http://hl7.org/fhir\" xmlns:h=\"http://www.w3.org/1999/xhtml\" xmlns:other=\"http://o\"><id value=\"h\"/><text><status value=\"generated\"/><div xmlns=\"http://www.w3.org/1999/xhtml\"><h:p>a</h:p></div></text></Patient>";
    xml(&fhir, "PUT", "/Patient/h", around).expect(201);
    let prefixed = "<div xmlns:h=\"http://www.w3.org/1999/xhtml\" xmlns=\"http://www.w3.org/1999/xhtml\"><h:p>a</h:p></div>";
    assert_eq!(fhir.get("/Patient/h").json()["text"]["div"], prefixed);
    assert!(fhir.get("/Patient/h?_format=xml").expect(200).text().contains(prefixed));
    assert_eq!(read["text"]["div"], "<div xmlns=\"http://www.w3.org/1999/xhtml\">a\nb\nc</div>");
    assert_eq!(read["multipleBirthInteger"], 2);
}
