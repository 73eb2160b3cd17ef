//! A server on a free port with a directory of its own, and a client of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

/// The certificates that the server trusts.
const TRUSTED: &str = "trusted.pem";

/// A running server; killed when dropped.
pub struct TestServer {
    child: Child,
    url: String,
    dir: TempDir,
    arguments: Vec<String>,
}

impl TestServer {
    /// Starts a server that makes simulators on first use.
    pub fn start() -> Self {
        Self::with(&["--auto-create"])
    }

    /// Starts a server with these arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let (child, url) = spawn(dir.path(), &arguments);
        Self { child, url, dir, arguments }
    }

    /// Lets it trust who signs with the key of this certificate, from its first connection on.
    pub fn trust(&self, pem: &str) {
        std::fs::write(self.dir.path().join(TRUSTED), pem).unwrap();
    }

    /// Ends it as a power cut would, for the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as the system asks it to.
    pub fn stop(&mut self) {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        assert!(self.child.wait().unwrap().success(), "a clean stop");
    }

    /// Starts it again on the same directory.
    pub fn restart(&mut self) {
        let (child, url) = spawn(self.dir.path(), &self.arguments);
        self.child = child;
        self.url = url;
    }

    /// The directory of simulators.
    pub fn simdb(&self) -> PathBuf {
        self.dir.path().join("simdb")
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of the server itself.
    pub fn client(&self) -> Client {
        Client { agent: agent(), base: self.url.clone() }
    }

    /// A client of the endpoint of a simulator.
    pub fn fhir(&self, sim: &str) -> Client {
        Client { agent: agent(), base: format!("{}/sim/{sim}/fhir", self.url) }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, arguments: &[String]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fhirsim"))
        .args(["serve", "--addr", "127.0.0.1:0", "--simdb"])
        .arg(dir.join("simdb"))
        .args(["--log", "warn"])
        .args(arguments)
        .current_dir(dir)
        .env("SSL_CERT_FILE", dir.join(TRUSTED))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    // The rest of what it prints is not waited for, but must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_else(|| panic!("no URL in {line:?}"));
    (child, url.to_owned())
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).build().into()
}

/// A client of one base URL.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    pub base: String,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub bytes: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The status and what the OperationOutcome says.
    pub fn refusal(&self) -> String {
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{outcome}");
        let issue = &outcome["issue"][0];
        assert_eq!(issue["diagnostics"], issue["details"]["text"]);
        let expression = issue["expression"][0].as_str().map(|e| format!(" [{e}]")).unwrap_or_default();
        format!(
            "{} {} {}{expression}: {}",
            self.status,
            issue["code"].as_str().unwrap(),
            issue["details"]["coding"][0]["code"].as_str().unwrap(),
            issue["diagnostics"].as_str().unwrap()
        )
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }
}

impl Client {
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.try_send(method, path, headers, body).unwrap()
    }

    pub fn try_send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, ureq::Error> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() && !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/fhir+json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body).unwrap())?;
        let headers = response.headers().iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap_or("").to_owned())).collect();
        Ok(Reply { status: response.status().as_u16(), headers, bytes: response.body_mut().read_to_vec()? })
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], body.to_string().as_bytes())
    }

    pub fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, &[], body.to_string().as_bytes())
    }

    pub fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send("PATCH", path, &[], body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], b"")
    }

    /// The ids of the matches of a search, in order.
    pub fn ids(&self, path: &str) -> Vec<String> {
        let bundle = self.get(path).expect(200).json();
        ids(&bundle)
    }
}

/// The ids of the matches in a Bundle, in order.
pub fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    entries.iter().filter(|e| e["search"]["mode"] == "match").map(|e| e["resource"]["id"].as_str().unwrap().to_owned()).collect()
}

/// The URL of a Bundle's link, if it has one.
pub fn link<'b>(bundle: &'b Value, relation: &str) -> Option<&'b str> {
    bundle["link"].as_array()?.iter().find(|l| l["relation"] == relation)?["url"].as_str()
}

/// A small Patient.
pub fn patient(id: &str, family: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "name": [{"family": family}]})
}

/// The only event folder of an operation.
pub fn only_event(simdb: &Path, sim: &str, operation: &str) -> PathBuf {
    let mut found = events(simdb, sim, operation);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The event folders of an operation, oldest first.
pub fn events(simdb: &Path, sim: &str, operation: &str) -> Vec<PathBuf> {
    let folder = simdb.join(sim).join("fhir").join(operation);
    let Ok(listed) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = listed.map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}
