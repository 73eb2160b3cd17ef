//! Sessions that have a token of their own, or an end: `.sessions.json` beside the simulators.
//!
//! A session is the first part of its simulators' names and needs no entry; it has one once it is told something. Names of
//! sessions do not count case, as those of simulators do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::registry::Registry;
use super::storage_failure;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, instant};
use crate::simdb::SimId;
use crate::simdb::write::replace_file;

/// The shortest token that somebody may choose.
const SHORTEST: usize = 16;

/// What a session was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The SHA-256 of its token, in hexadecimal digits: the token itself is nowhere.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    token_sha256: Option<String>,
    /// What the token is asked for.
    #[serde(default)]
    pub protects: Protects,
    /// When its simulators are deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<String>,
}

/// What the token of a session is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protects {
    /// The management API and the pages: systems under test often have no token to send.
    #[default]
    Management,
    /// The FHIR endpoints too.
    All,
}

/// What becomes of the token of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// There is a new one, chosen by the server.
    New,
    /// There is this one.
    Chosen(String),
    /// There is none any more.
    None,
}

/// What a session shall be; absent stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Its token.
    pub token: Option<Token>,
    /// What the token is asked for.
    pub protects: Option<Protects>,
    /// Its end, in milliseconds since 1970; `Some(None)`: it has none.
    pub expires_ms: Option<Option<i64>>,
}

/// The sessions of a directory of simulators that were told something.
#[derive(Debug)]
pub struct Sessions {
    file: PathBuf,
    all: RwLock<BTreeMap<String, Session>>,
    /// Those that are being ended: nothing is made in them, and nothing is told them.
    ending: Mutex<BTreeSet<String>>,
}

impl Sessions {
    /// Reads them.
    ///
    /// # Errors
    /// The file cannot be read: protected sessions must not stand open for that.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let file = root.join(".sessions.json");
        let all = match fs::read(&file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(e),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", file.display())))?,
        };
        Ok(Self { file, all: RwLock::new(all), ending: Mutex::default() })
    }

    /// What a session was told; nothing, mostly.
    #[must_use]
    pub fn get(&self, session: &str) -> Session {
        self.all.read().get(&session.to_ascii_lowercase()).cloned().unwrap_or_default()
    }

    /// The names of those that were told something, in lower case.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.all.read().keys().cloned().collect()
    }

    /// The session that a token is of.
    #[must_use]
    pub fn of_token(&self, token: &str) -> Option<String> {
        let digest = digest(token);
        // What is compared is a digest: how long it takes tells nothing of the token.
        self.all.read().iter().find(|(_, session)| session.token_sha256.as_ref() == Some(&digest)).map(|(name, _)| name.clone())
    }

    /// Tells a session something; returns what it is now, and its token if there is a new one, which is never told again.
    ///
    /// # Errors
    /// The name, the token or the end cannot be; the disk refuses.
    pub fn change(&self, session: &str, wish: &Wish, now_ms: i64) -> Result<(Session, Option<String>), Failure> {
        proven(session)?;
        let mut all = self.all.write();
        self.refuse_ending(session)?;
        let mut next = all.get(&session.to_ascii_lowercase()).cloned().unwrap_or_default();
        let mut told = None;
        match &wish.token {
            None => {}
            Some(Token::None) => next.token_sha256 = None,
            Some(Token::New) => told = Some(format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())),
            Some(Token::Chosen(token)) if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return Err(Failure::new(
                    Kind::BadValue,
                    format!("a token has at least {SHORTEST} visible ASCII characters; send {{\"token\":true}} and one is made"),
                ));
            }
            Some(Token::Chosen(token)) => told = Some(token.clone()),
        }
        if let Some(token) = &told {
            let digest = digest(token);
            if all.iter().any(|(name, other)| other.token_sha256.as_ref() == Some(&digest) && !name.eq_ignore_ascii_case(session)) {
                return Err(Failure::new(Kind::BadValue, "another session has this token; choose another, or send {\"token\":true} and one is made"));
            }
            next.token_sha256 = Some(digest);
        }
        next.protects = wish.protects.unwrap_or(next.protects);
        match wish.expires_ms {
            None => {}
            Some(Some(end)) if end <= now_ms => {
                return Err(Failure::new(
                    Kind::BadValue,
                    format!("expires {} is past; DELETE /api/sessions/{session} ends it now", crate::clock::instant(end)),
                ));
            }
            // Far enough away, an instant cannot be written any more.
            Some(Some(end)) if instant::parse(&crate::clock::instant(end)).is_none_or(|i| i.low.div_euclid(1_000) != end) => {
                return Err(Failure::new(Kind::BadValue, "expires is too far away; the year 9999 is the last"));
            }
            Some(end) => next.expires = end.map(crate::clock::instant),
        }
        let mut changed = all.clone();
        changed.insert(session.to_ascii_lowercase(), next.clone());
        self.write(&changed)?;
        *all = changed;
        Ok((next, told))
    }

    /// Refuses what is asked of a session that is being ended.
    pub(super) fn refuse_ending(&self, session: &str) -> Result<(), Failure> {
        if self.ending.lock().contains(&session.to_ascii_lowercase()) {
            return Err(Failure::new(Kind::Conflict, format!("session '{}' is being ended, with all its simulators", clip(session))));
        }
        Ok(())
    }

    /// Forgets what a session was told.
    fn forget(&self, session: &str) -> Result<(), Failure> {
        let mut all = self.all.write();
        let mut changed = all.clone();
        if changed.remove(&session.to_ascii_lowercase()).is_some() {
            self.write(&changed)?;
            *all = changed;
        }
        Ok(())
    }

    fn write(&self, all: &BTreeMap<String, Session>) -> Result<(), Failure> {
        let bytes = serde_json::to_vec_pretty(all).unwrap_or_default();
        replace_file(&self.file, &bytes).map_err(|e| storage_failure(".sessions.json cannot be written", &e))
    }

    /// Those whose end has come.
    fn ended(&self, now_ms: i64) -> Vec<String> {
        let is_over = |session: &Session| {
            let end = session.expires.as_deref().and_then(instant::parse);
            end.is_some_and(|end| end.low.div_euclid(1_000) <= now_ms)
        };
        self.all.read().iter().filter(|(_, session)| is_over(session)).map(|(name, _)| name.clone()).collect()
    }
}

impl Session {
    /// Whether it has a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token_sha256.is_some()
    }
}

impl Registry {
    /// Deletes all simulators of a session and what it was told; returns how many there were.
    ///
    /// # Errors
    /// The disk's refusal; what is left can be deleted again.
    pub fn end_session(&self, session: &str) -> Result<usize, Failure> {
        proven(session)?;
        // From here on nothing is made in it: what is listed now is all.
        if !self.sessions().ending.lock().insert(session.to_ascii_lowercase()) {
            return Err(Failure::new(Kind::Conflict, format!("session '{session}' is being ended already")));
        }
        let ended = self.delete_all(session).and_then(|deleted| self.sessions().forget(session).map(|()| deleted));
        self.sessions().ending.lock().remove(&session.to_ascii_lowercase());
        ended
    }

    fn delete_all(&self, session: &str) -> Result<usize, Failure> {
        let of_it = |id: &SimId| id.session().eq_ignore_ascii_case(session);
        let ids: Vec<SimId> = self.sims.write().values().map(|slot| slot.id.clone()).filter(of_it).collect();
        for id in &ids {
            match self.delete(id) {
                // Somebody else was first.
                Err(failure) if failure.kind == Kind::UnknownSimulator => {}
                done => done?,
            }
        }
        Ok(ids.len())
    }

    /// Ends the sessions whose time is over.
    pub(super) fn end_sessions(&self) {
        for session in self.sessions().ended(self.clock().now_ms()) {
            match self.end_session(&session) {
                Ok(simulators) => tracing::info!(session, simulators, "the session has expired; its simulators are deleted"),
                Err(failure) => tracing::error!(session, failure = failure.diagnostics, "the session has expired, and its simulators cannot be deleted"),
            }
        }
    }
}

/// Proves the name of a session.
fn proven(session: &str) -> Result<(), Failure> {
    let is_name = format!("{session}__x").parse::<SimId>().is_ok_and(|id| id.session() == session);
    if is_name {
        return Ok(());
    }
    let rule = "the name of a session is 1-64 of A-Z a-z 0-9 . _ -, begins and ends with a letter or digit and holds no double underscore";
    Err(Failure::new(Kind::BadValue, format!("'{}' is not the name of a session: {rule}", clip(session))))
}

fn digest(token: &str) -> String {
    base16ct::lower::encode_string(&Sha256::digest(token))
}
