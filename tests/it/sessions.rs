//! Sessions with a token of their own, and an end.

use serde_json::json;

use crate::support::{Client, Reply, TestServer, patient};

fn ask(client: &Client, token: &str, method: &str, path: &str, body: &str) -> Reply {
    client.send(method, path, &[("authorization", &format!("Bearer {token}")), ("content-type", "application/json")], body.as_bytes())
}

#[test]
fn the_token_of_a_session_is_good_for_its_simulators_only() {
    let server = TestServer::with(&["--admin-token", "s3cret"]);
    let api = server.client();
    let told = ask(&api, "s3cret", "PUT", "/api/sessions/red", r#"{"token":true}"#).expect(200).json();
    let red = told["token"].as_str().unwrap().to_owned();
    ask(&api, "s3cret", "PUT", "/api/sessions/blue", r#"{"token":"blue-blue-blue-blue"}"#).expect(200);
    let (red, blue) = (red.as_str(), "blue-blue-blue-blue");
    assert!(!std::fs::read_to_string(server.simdb().join(".sessions.json")).unwrap().contains(red));
    // Told once.
    assert!(ask(&api, "s3cret", "GET", "/api/sessions/red", "").expect(200).json().get("token").is_none());

    ask(&api, red, "PUT", "/api/sims/red__one", "").expect(201);
    ask(&api, blue, "PUT", "/api/sims/blue__one", "").expect(201);
    ask(&api, blue, "POST", "/api/sims/blue__one/snapshots", r#"{"name":"x"}"#).expect(201);
    // Names do not count case, so neither do the sessions in them.
    ask(&api, red, "PUT", "/api/sims/RED__two", "").expect(201);
    for (method, path, body) in [
        ("PUT", "/api/sims/blue__two", ""),
        ("POST", "/api/sims", r#"{"id":"blue__two"}"#),
        ("POST", "/api/sims", r#"{"id":"Blue__two"}"#),
        ("PUT", "/api/sims/red__three", r#"{"from":"blue__one"}"#),
        ("POST", "/api/sims/red__one/reset", r#"{"snapshot":"blue__one@x"}"#),
        ("GET", "/api/sims/blue__one", ""),
        ("GET", "/api/sims/bl%75e__one", ""),
        ("GET", "/%61pi/sims/blue__one", ""),
        ("GET", "/api/sims/blue__one/events", ""),
        ("GET", "/api/sims/blue__one/archive", ""),
        ("PUT", "/api/sims/blue__three/archive", ""),
        ("DELETE", "/api/sims/blue__one", ""),
        ("GET", "/api/sims?session=blue", ""),
        ("GET", "/sims/blue__one", ""),
        ("PUT", "/api/sessions/blue", r#"{"token":false}"#),
        ("DELETE", "/api/sessions/blue", ""),
        ("GET", "/?session=blue", ""),
    ] {
        let reply = ask(&api, red, method, path, body);
        assert_eq!(reply.status, 403, "{method} {path} {body}: {}", reply.text());
    }
    let form = [("authorization", format!("Bearer {red}")), ("content-type", "application/x-www-form-urlencoded".to_owned())];
    let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    api.send("POST", "/", &form, b"session=blue&name=two&version=R4").expect(403);

    let names = |token: &str| -> Vec<String> {
        let listed = ask(&api, token, "GET", "/api/sims", "").expect(200).json();
        listed["sims"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(red), ["red__one", "RED__two"]);
    assert_eq!(names("s3cret"), ["blue__one", "red__one", "RED__two"]);
    let page = ask(&api, red, "GET", "/", "").expect(200);
    assert!(page.text().contains("red__one") && !page.text().contains("blue__one"));
    assert_eq!(ask(&api, red, "GET", "/api/sessions", "").json()["sessions"].as_array().unwrap().len(), 1);
    // As a password, too; and a wrong one is good for nothing.
    ask(&api, "wrong-wrong-wrong-wrong", "GET", "/api/sims", "").expect(401).refusal();
    ask(&api, red, "GET", "/api/sims/red__one/events", "").expect(200);
    // The endpoints stand open, unless it is said that they do not.
    server.fhir("blue__one").get("/Patient").expect(200);
}

#[test]
fn a_session_may_protect_its_endpoints_too() {
    let server = TestServer::start();
    let api = server.client();
    server.fhir("red__one").put("/Patient/p", &patient("p", "A")).expect(201);
    api.put("/api/sessions/red", &json!({"token": "red-red-red-red-red"})).expect(200);
    // Without an admin token, who is on this machine may do all but what is protected.
    api.get("/api/sims/red__one").expect(401).refusal();
    api.put("/api/sessions/red", &json!({"token": false})).expect(401);
    api.put("/api/sims/other__one", &json!({})).expect(201);
    // An endpoint stands open, but none is made in it.
    server.fhir("red__one").get("/Patient/p").expect(200);
    server.fhir("red__new").get("/Patient").expect(401);

    let red = "red-red-red-red-red";
    ask(&api, red, "PUT", "/api/sessions/Red", r#"{"protects":"all"}"#).expect(200);
    let refused = server.fhir("red__one").get("/Patient/p").expect(401);
    assert!(refused.refusal().contains("session 'red' has a token") && refused.header("www-authenticate").contains("Bearer"));
    server.fhir("RED__one").get("/Patient/p").expect(401);
    server.client().get("/sim/red__one@2030-01-01T00:00:00Z/fhir/Patient/p").expect(401);
    ask(&server.fhir("red__one"), red, "GET", "/Patient/p", "").expect(200);
    ask(&server.fhir("red__new"), red, "GET", "/Patient", "").expect(200);
    // Nothing of it is in a record.
    ask(&server.fhir("red__one"), red, "PUT", "/Patient/q", r#"{"resourceType":"Patient","id":"q"}"#).expect(201);
    let events = ask(&api, red, "GET", "/api/sims/red__one/events", "").expect(200);
    assert!(!events.text().contains(red) && events.text().contains("[redacted]"));
}

#[test]
fn a_session_ends_with_all_its_simulators() {
    let mut server = TestServer::start();
    let api = server.client();
    for sim in ["red__one", "Red__two", "blue__one"] {
        server.fhir(sim).get("/Patient").expect(200);
    }
    for bad in [json!({"expires": "2001-01-01T00:00:00Z"}), json!({"expires": "soon"}), json!({"expires": 5}), json!({"token": "short"}), json!({"tokn": true})]
    {
        api.put("/api/sessions/red", &bad).expect(400).refusal();
    }
    api.put("/api/sessions/a__b", &json!({})).expect(400).refusal();
    let told = api.put("/api/sessions/red", &json!({"expires": "8h"})).expect(200).json();
    let end = told["expires"].as_str().unwrap().to_owned();
    // What is about to go is said.
    assert_eq!(api.get("/api/sims/Red__two").json()["expires"], end.as_str());
    assert!(api.get("/sims/red__one").text().contains(&format!("is deleted with its session at {end}")));
    assert!(api.get("/api/sims/blue__one").json().get("expires").is_none());
    server.kill();
    server.restart();
    let api = server.client();
    assert_eq!(api.get("/api/sessions/red").json()["expires"], end.as_str());
    assert!(api.put("/api/sessions/red", &json!({"expires": null})).json()["expires"].is_null());

    api.put("/api/sessions/red", &json!({"expires": "1ms"})).expect(200);
    // Its simulators go first, then it.
    while api.get("/api/sessions").json()["sessions"].as_array().unwrap().iter().any(|s| s["session"] == "red") {
        std::thread::yield_now();
    }
    assert_eq!(api.get("/api/sims?session=red").json()["total"], 0);
    assert!(!server.simdb().join("red__one").exists());
    server.fhir("blue__one").get("/Patient").expect(200);
    assert_eq!(api.delete("/api/sessions/blue").expect(200).json()["deleted"], 1);
    api.get("/api/sims/blue__one").expect(404);
}

#[test]
fn a_name_that_is_coded_twice_is_no_way_around_a_token() {
    let server = TestServer::start();
    server.fhir("red__one").put("/Patient/p", &patient("p", "A")).expect(201);
    server.client().put("/api/sessions/red", &json!({"token": "red-red-red-red-red"})).expect(200);
    let (host, mut statuses) = (server.url().trim_start_matches("http://").to_owned(), Vec::new());
    for (method, path) in [("PUT", "%%37%32ed"), ("DELETE", "%%37%32ed"), ("GET", "%%37%32ed"), ("PUT", "%2572ed"), ("DELETE", "%72ed"), ("DELETE", "RED")] {
        // As it stands: clients of HTTP mend such paths.
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(&host).unwrap();
        let body = "{\"token\":true}";
        write!(
            socket,
            "{method} /api/sessions/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        statuses.push(answer.split(' ').nth(1).unwrap().to_owned());
    }
    assert!(statuses.iter().all(|s| s == "401" || s == "400"), "{statuses:?}");
    server.fhir("red__one").get("/Patient/p").expect(200);
}

#[test]
fn nothing_survives_the_end_of_a_session_and_no_end_comes_too_early() {
    let server = TestServer::start();
    let api = server.client();
    let token = "red-red-red-red-red";
    for round in 0..3 {
        api.put("/api/sessions/red", &json!({"token": token, "protects": "all"})).expect(200);
        for n in 0..30 {
            ask(&api, token, "PUT", &format!("/api/sims/red__n{n}"), "").expect(201);
        }
        let made = std::thread::scope(|scope| {
            let maker =
                scope.spawn(|| (0..60).filter(|n| ask(&server.client(), token, "PUT", &format!("/api/sims/red__late{round}x{n}"), "").status == 201).count());
            ask(&api, token, "DELETE", "/api/sessions/red", "").expect(200);
            maker.join().unwrap()
        });
        // What was made afterwards was made by whoever is on this machine: the token is good for nothing any more.
        let left = api.get("/api/sims?session=red&limit=1000").expect(200).json();
        assert!(left["total"].as_u64().unwrap() as usize <= made);
        assert!(left["sims"].as_array().unwrap().iter().all(|s| s["id"].as_str().unwrap().starts_with("red__late")), "{left}");
        api.delete("/api/sessions/red").expect(200);
    }
    server.fhir("blue__one").get("/metadata").expect(200);
    for far in ["100000000d", "3000000d", "18446744073709551615d"] {
        assert!(api.put("/api/sessions/blue", &json!({"expires": far})).expect(400).refusal().contains("expires"), "{far}");
    }
    assert!(api.put("/api/sessions/blue", &json!({"expires": "9999-01-01T00:00:00Z"})).expect(200).json()["expires"].as_str().unwrap().starts_with("9999"));
    server.fhir("blue__one").get("/metadata").expect(200);
}

#[test]
fn what_a_session_protects_is_listed_to_nobody_else() {
    let server = TestServer::start();
    let client = server.client();
    let token = client.put("/api/sessions/blue", &json!({"token": true, "protects": "all"})).expect(200).json()["token"].as_str().unwrap().to_owned();
    ask(&client, &token, "PUT", "/api/sims/blue__one", "").expect(201);
    client.put("/api/sims/red__one", &json!({})).expect(201);
    let listed = |token: &str| {
        let list = ask(&client, token, "GET", "/api/sims", "").expect(200).json();
        let ids = list["sims"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(list["total"], ids.len());
        ids
    };
    assert_eq!((listed(""), listed(&token)), (vec!["red__one".to_owned()], vec!["blue__one".to_owned()]));
    assert!(!client.get("/").text().contains("blue__one"));
}
