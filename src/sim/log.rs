//! The request log: the newest exchanges of a simulator that wrote nothing, in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

/// Entries kept.
pub const KEPT: usize = 1_000;

/// A read or a search.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// The id in `X-Fhirsim-Event`: `log-<number>`, or the event's where it was recorded.
    pub id: String,
    /// When it was answered.
    pub instant: String,
    /// The interaction.
    pub interaction: &'static str,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// How long it took.
    pub duration_us: u64,
    /// The client's address.
    pub client: String,
    /// The fault that befell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who asked: the claims of a token, or why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Value>,
}

/// A bounded log. It belongs to the name of a simulator: a snapshot or a clone does not end it, and its numbers go on.
#[derive(Clone, Debug, Default)]
pub struct RequestLog {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Waiting>,
    count: u64,
}

/// What a log entry needs until someone looks: formatting waits for that.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The number of the entry, or the event's name.
    pub event: Option<crate::clock::EventId>,
    /// Number in the log.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The interaction.
    pub interaction: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub url: Box<str>,
    /// HTTP status.
    pub status: u16,
    /// How long it took.
    pub duration_us: u64,
    /// The client's address.
    pub client: Option<std::net::IpAddr>,
    /// The fault that befell it.
    pub fault: Option<Box<str>>,
    /// Why it was refused.
    pub why: Option<Box<str>>,
    /// Who asked.
    pub authorization: Option<Box<Value>>,
}

impl Waiting {
    /// For people and programs.
    #[must_use]
    pub fn shown(&self) -> LogEntry {
        LogEntry {
            id: self.event.map_or_else(|| format!("log-{}", self.number), |e| e.to_string()),
            instant: crate::clock::instant(self.at_ms),
            interaction: self.interaction,
            method: self.method.to_owned(),
            url: self.url.to_string(),
            status: self.status,
            duration_us: self.duration_us,
            client: self.client.map(|c| c.to_string()).unwrap_or_default(),
            fault: self.fault.as_ref().map(ToString::to_string),
            why: self.why.as_ref().map(ToString::to_string),
            authorization: self.authorization.as_deref().cloned(),
        }
    }
}

impl RequestLog {
    /// Adds an entry, dropping the oldest beyond [`KEPT`], and calls `tell` with it, numbered; returns its number.
    pub fn push(&self, mut entry: Waiting, tell: impl FnOnce(&Waiting)) -> u64 {
        let mut state = self.state.lock();
        state.count += 1;
        entry.number = state.count;
        tell(&entry);
        if state.entries.len() == KEPT {
            state.entries.pop_front();
        }
        state.entries.push_back(entry);
        state.count
    }

    /// Forgets the entries; numbers go on.
    pub fn forget(&self) {
        self.state.lock().entries = VecDeque::new();
    }

    /// The newest `most` entries, newest first.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<LogEntry> {
        let waiting: Vec<Waiting> = self.state.lock().entries.iter().rev().take(most).cloned().collect();
        waiting.iter().map(Waiting::shown).collect()
    }
}
