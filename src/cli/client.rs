//! The client of the management API and of FHIR endpoints.

use std::time::Duration;

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

    fn unreachable(&self, url: &str, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                format!("no server answers at {}; start one with `fhirsim serve`, or name another with --server", self.server)
            }
            other => format!("{url}: {other}"),
        }
    }
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
