//! The pages for people.

use serde_json::json;

use crate::support::{Reply, TestServer, patient};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn press(server: &TestServer, form: &str) -> Reply {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
    let sent = agent.post(format!("{}/sims/a__b", server.url())).header(FORM.0, FORM.1).send(form.as_bytes()).unwrap();
    Reply { status: sent.status().as_u16(), headers: Vec::new(), bytes: sent.into_body().read_to_vec().unwrap() }
}

#[test]
fn a_simulators_page_shows_what_is_asked_for() {
    let server = TestServer::start();
    let (fhir, pages) = (server.fhir("a__b"), server.client());
    fhir.put("/Patient/p", &patient("p", "House")).expect(201);
    fhir.put("/Group/g", &json!({"resourceType": "Group", "id": "g"})).expect(201);
    fhir.post("/Patient", &json!({"resourceType": "Pateint"})).expect(400);
    let shown = |query: &str| {
        let page = pages.get(&format!("/sims/a__b?{query}")).expect(200);
        page.text().matches("<tr><td><a href=\"/sims/a__b/events/").count()
    };
    for (query, expected) in [
        ("", 3),
        ("type=Group", 1),
        ("status=4xx", 1),
        ("resource=Patient/p", 1),
        ("interaction=update&type=&since=", 2),
        ("request=name.family%3D%27House%27", 1),
        ("type=Basic", 0),
    ] {
        assert_eq!(shown(query), expected, "{query}");
    }
    // What was asked for is kept, as text.
    let hostile = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    let page = pages.get(&format!("/sims/a__b?type={hostile}")).expect(200);
    assert!(page.text().contains("&lt;script&gt;alert(1)") && !page.text().contains("<script>alert"), "{}", page.text());
    assert!(page.text().contains("data-stream=\"/api/sims/a__b/stream?type=%22%3E%3Cscript"), "{}", page.text());
    pages.get("/sims/a__b?status=never").expect(400);
}

#[test]
fn an_events_page_says_what_was_wrong_and_how_to_send_it_again() {
    let server = TestServer::start();
    let (fhir, pages) = (server.fhir("a__b"), server.client());
    let first = fhir.put("/Patient/p", &patient("p", "O'Neill")).expect(201).header("x-fhirsim-event").to_owned();
    let refused = fhir.send("POST", "/Patient", &[("x-own", "it's")], br#"{"resourceType":"Pateint"}"#).expect(400).header("x-fhirsim-event").to_owned();
    let page = pages
        .get(&format!("/sims/a__b/events/{refused}"))
        .expect(200)
        .text()
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&quot;", "\"")
        .replace("&#x2F;", "/");
    for part in [
        "did you mean 'Patient'?",
        "at <code>resourceType</code>",
        "x-own: it's",
        "-H 'x-own: it'\\''s'",
        "--data-raw '{\"resourceType\":\"Pateint\"}'",
        &format!("href=\"/sims/a__b/events/{first}\" rel=\"prev\""),
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let page = pages.get(&format!("/sims/a__b/events/{first}")).expect(200);
    assert!(page.text().contains(&format!("/sim/a__b@{first}/fhir/Patient/p")), "{}", page.text());
}

#[test]
fn buttons_do_what_they_say() {
    let server = TestServer::start();
    let fhir = server.fhir("a__b");
    fhir.put("/Patient/p", &patient("p", "One")).expect(201);
    assert_eq!(press(&server, "do=snapshot&snapshot=loaded").status, 303);
    fhir.delete("/Patient/p").expect(204);
    assert!(server.client().get("/sims/a__b").text().contains("Reset to it"));
    assert_eq!(press(&server, "do=reset&snapshot=loaded").status, 303);
    fhir.get("/Patient/p").expect(200);
    assert_eq!(press(&server, "do=fault&fault=unavailable").status, 303);
    fhir.get("/Patient/p").expect(503);
    assert_eq!(press(&server, "do=mend").status, 303);
    fhir.get("/Patient/p").expect(200);
    assert_eq!(press(&server, "do=forget&snapshot=loaded").status, 303);
    for (form, status) in [("do=reset&snapshot=loaded", 404), ("do=fault&fault=none", 400), ("do=harm", 400)] {
        assert_eq!(press(&server, form).status, status, "{form}");
    }
    // Another site's form does nothing.
    server.client().send("POST", "/sims/a__b", &[FORM, ("origin", "http://evil.example")], b"do=snapshot&snapshot=x").expect(403);
}

#[test]
fn recorded_requests_go_to_other_tools() {
    let server = TestServer::start();
    let (fhir, api) = (server.fhir("a__b"), server.client());
    let body = patient("p", "O'Neill");
    let event = fhir
        .send("PUT", "/Patient/p?_pretty=true", &[("authorization", "Bearer secret"), ("x-own", "it's")], body.to_string().as_bytes())
        .expect(201)
        .header("x-fhirsim-event")
        .to_owned();
    fhir.delete("/Patient/p").expect(204);
    let shown = |form: &str| api.get(&format!("/api/sims/a__b/events/{event}?as={form}")).expect(200);
    // What the shell makes of it does the same again.
    let curl = shown("curl").text().to_owned();
    let done = std::process::Command::new("sh").arg("-c").arg(format!("{curl} -s -o /dev/null -w '%{{http_code}}'").replace("\n -s", " -s")).output();
    if let Ok(done) = done.map(|d| String::from_utf8_lossy(&d.stdout).into_owned())
        && !done.is_empty()
    {
        assert_eq!(done, "201", "{curl}");
        assert_eq!(fhir.get("/Patient/p").json()["name"], body["name"]);
    }
    assert!(!curl.contains("secret") && curl.contains("-H 'x-own: it'\\''s'"), "{curl}");
    let http = shown("http").text().to_owned();
    assert!(http.contains(&format!("PUT {}/sim/a__b/fhir/Patient/p?_pretty=true\n", server.url())) && http.contains(&body.to_string()), "{http}");
    let har = api.get("/api/sims/a__b/har?resource=Patient/p").expect(200).json();
    let entries = har["log"]["entries"].as_array().unwrap();
    let first = &entries[0];
    assert_eq!((&first["request"]["method"], &first["response"]["status"]), (&json!("PUT"), &json!(201)));
    assert_eq!(first["request"]["postData"]["text"], json!(body.to_string()));
    assert_eq!(first["request"]["queryString"], json!([{"name": "_pretty", "value": "true"}]));
    assert!(first["response"]["content"]["text"].as_str().unwrap().contains("O'Neill"));
    assert_eq!(entries[1]["request"]["method"], "DELETE");
    // What does not fit is said.
    let part = api.get("/api/sims/a__b/har?limit=1").expect(200).json();
    assert_eq!((part["log"]["entries"].as_array().unwrap().len(), &part["log"]["_next"]), (1, &json!(event)));
    assert_eq!(har["log"].get("_next"), None);
    api.get(&format!("/api/sims/a__b/events/{event}?as=fax")).expect(400);
    // A body may look like the name of a file to curl, and a URL like a pattern.
    let event = fhir.send("POST", "/Patient?x={a,b}", &[], b"@/etc/hostname").expect(400).header("x-fhirsim-event").to_owned();
    for curl in [api.get(&format!("/api/sims/a__b/events/{event}?as=curl")).text(), api.get(&format!("/sims/a__b/events/{event}")).text()] {
        assert!(curl.contains("--data-raw") && curl.contains("curl -g -X POST") && !curl.contains("--data-binary"), "{curl}");
    }
    // One too long to be repeated is named.
    let long = format!("{{\"resourceType\":\"Patient\",\"language\":\"{}\"", "x".repeat(1_100_000));
    let event = fhir.send("POST", "/Patient", &[], long.as_bytes()).expect(400).header("x-fhirsim-event").to_owned();
    let curl = api.get(&format!("/api/sims/a__b/events/{event}?as=curl")).text().to_owned();
    assert!(curl.contains("--data-binary '@") && curl.contains(&format!("/POST/{event}/request_body")), "{curl}");
}
