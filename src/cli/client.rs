//! The client of the management API and of FHIR endpoints.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Response;

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    server: String,
    token: Option<String>,
}

/// Status and body of a response.
pub type Answer = (u16, Value);

impl Client {
    pub fn new(server: &str, token: Option<String>) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5))).build();
        Self { agent: config.into(), server: server.trim_end_matches('/').to_owned(), token }
    }

    /// `GET`, `POST` and so on, of a path of the server.
    pub fn call(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, String> {
        let url = format!("{}{path}", self.server);
        let mut request = ureq::http::Request::builder().method(method).uri(&url).header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/fhir+json");
        }
        let request = request.body(body.unwrap_or_default()).map_err(|e| format!("{url}: {e}"))?;
        let response = self.agent.run(request).map_err(|e| self.unreachable(&url, &e))?;
        read(response).map_err(|e| format!("{url}: {e}"))
    }

    /// The same, refusing what is no success.
    pub fn expect(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Value, String> {
        match self.call(method, path, body)? {
            (200..=299, value) => Ok(value),
            (status, value) => Err(format!("{status}: {}", reason(&value))),
        }
    }

    /// `GET`, as it comes.
    pub fn bytes(&self, path: &str) -> Result<Vec<u8>, String> {
        let (url, mut response) = self.get(path)?;
        response.body_mut().with_config().limit(u64::MAX).read_to_vec().map_err(|e| format!("{url}: {e}"))
    }

    /// `GET`, into a file; returns how many bytes it is.
    pub fn download(&self, path: &str, file: &Path) -> Result<u64, String> {
        let (_, mut response) = self.get(path)?;
        // What is there already is not lost to half a file.
        let beside = file.with_extension("part");
        let bar = bar(None);
        let body = response.body_mut().with_config().limit(u64::MAX).reader();
        let written = File::create(&beside).and_then(|mut out| io::copy(&mut bar.wrap_read(body), &mut out));
        bar.finish_and_clear();
        let written = written.and_then(|bytes| std::fs::rename(&beside, file).map(|()| bytes));
        written.inspect_err(|_| drop(std::fs::remove_file(&beside))).map_err(|e| format!("{}: {e}", file.display()))
    }

    /// `GET`: the URL, and what it answers with success.
    fn get(&self, path: &str) -> Result<(String, Response<ureq::Body>), String> {
        let url = format!("{}{path}", self.server);
        let mut request = self.agent.get(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().map_err(|e| self.unreachable(&url, &e))?;
        if !response.status().is_success() {
            let (status, value) = read(response).map_err(|e| format!("{url}: {e}"))?;
            return Err(format!("{status}: {}", reason(&value)));
        }
        Ok((url, response))
    }

    /// `PUT`, of a file.
    pub fn upload(&self, path: &str, file: &Path) -> Result<Value, String> {
        let url = format!("{}{path}", self.server);
        let body = File::open(file).map_err(|e| format!("{}: {e}", file.display()))?;
        let mut request = self.agent.put(&url).content_type("application/zstd");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bar = bar(body.metadata().ok().map(|m| m.len()));
        let sent = request.send(ureq::SendBody::from_reader(&mut bar.wrap_read(body)));
        bar.finish_and_clear();
        let response = sent.map_err(|e| self.unreachable(&url, &e))?;
        match read(response).map_err(|e| format!("{url}: {e}"))? {
            (200..=299, value) => Ok(value),
            (status, value) => Err(format!("{status}: {}", reason(&value))),
        }
    }

    fn unreachable(&self, url: &str, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                format!("no server answers at {}; start one with `fhirsim serve`, or name another with --server", self.server)
            }
            other => format!("{url}: {other}"),
        }
    }
}

/// How far a transfer is, of as many bytes as are known, for who looks at a terminal.
fn bar(bytes: Option<u64>) -> ProgressBar {
    let shown = if bytes.is_some() {
        "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}"
    } else {
        "{spinner} {binary_bytes}, {binary_bytes_per_sec}"
    };
    let bar = bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_style(ProgressStyle::with_template(shown).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn read(mut response: Response<ureq::Body>) -> Result<Answer, String> {
    let status = response.status().as_u16();
    let bytes = response.body_mut().with_config().limit(u64::MAX).read_to_vec().map_err(|e| e.to_string())?;
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()))))
}

/// What an OperationOutcome says.
pub fn reason(outcome: &Value) -> String {
    let said = outcome["issue"].as_array().into_iter().flatten().filter_map(|i| i["diagnostics"].as_str()).collect::<Vec<_>>().join("; ");
    if said.is_empty() { outcome.to_string() } else { said }
}
