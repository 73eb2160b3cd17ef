//! `/api/sessions`: tokens of their own for sessions, and their end.

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, Path};
use serde::Deserialize;
use serde_json::{Value, json};

use super::App;
use super::access::Who;
use super::api::{Result, answer};
use super::respond::Answer;
use crate::clock::duration;
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind, instant};
use crate::sim::sessions::{Protects, Session, Token, Wish};

/// What a request says a session shall be.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Asked {
    /// `true`: a new one; `false`: none; text: this one.
    token: Option<Value>,
    protects: Option<Protects>,
    /// An instant, or how long from now; null: never. Absent is not null.
    #[serde(deserialize_with = "given")]
    expires: Option<Value>,
}

/// What is there, null too.
fn given<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl Asked {
    fn read(body: &Bytes) -> Result<Self> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let hint = "known: token (true: a new one, false: none, or the token itself), protects (management, all), expires (an instant, or from now such as 8h or 7d, or null)";
        serde_json::from_slice(body).map_err(|e| Failure::new(Kind::BadValue, format!("the body cannot be read: {e}; {hint}")))
    }

    fn wish(self, now_ms: i64) -> Result<Wish> {
        let token = match self.token {
            None => None,
            Some(Value::Bool(true)) => Some(Token::New),
            Some(Value::Bool(false)) => Some(Token::None),
            Some(Value::String(token)) => Some(Token::Chosen(token)),
            Some(_) => return Err(Failure::new(Kind::BadValue, "token is true, false or a text")),
        };
        let expires_ms = match self.expires {
            None => None,
            Some(Value::Null) => Some(None),
            Some(end) => {
                let text = end.as_str().unwrap_or_default();
                let from_now = duration(text).and_then(|ms| now_ms.checked_add(i64::try_from(ms).ok()?));
                let at = || instant::parse(text).map(|interval| interval.low.div_euclid(1_000));
                let hint = "is neither an instant such as 2026-11-28T18:00:00Z nor a time from now such as 8h or 7d";
                Some(Some(from_now.or_else(at).ok_or_else(|| Failure::new(Kind::BadValue, format!("expires '{}' {hint}", clip(&end.to_string()))))?))
            }
        };
        Ok(Wish { token, protects: self.protects, expires_ms })
    }
}

fn shown(name: &str, session: &Session, app: &App) -> Value {
    let (_, simulators) = app.registry.list(Some(name), &|_| true, None, 0);
    json!({"session": name, "hasToken": session.has_token(), "protects": session.protects, "expires": session.expires, "simulators": simulators})
}

/// `GET /api/sessions`: those that were told something.
pub async fn list(who: Who, app: Data<App>) -> HttpResponse {
    answer(move || {
        let sessions = app.registry.sessions();
        let theirs = sessions.names().into_iter().filter(|name| who.may(name, sessions).is_ok());
        let shown: Vec<Value> = theirs.map(|name| shown(&name, &sessions.get(&name), &app)).collect();
        Ok(Answer::json(200, &json!({"sessions": shown})))
    })
    .await
}

/// `GET /api/sessions/{session}`.
pub async fn show(who: Who, app: Data<App>, session: Path<String>) -> HttpResponse {
    answer(move || {
        who.may(&session, app.registry.sessions())?;
        Ok(Answer::json(200, &shown(&session, &app.registry.sessions().get(&session), &app)))
    })
    .await
}

/// `PUT /api/sessions/{session}`: what is not named stays as it is; a new token is told this once.
pub async fn put(who: Who, app: Data<App>, session: Path<String>, body: Bytes) -> HttpResponse {
    answer(move || {
        // Here too: the guard reads the path by itself, and might read another name.
        who.may(&session, app.registry.sessions())?;
        let now_ms = app.registry.clock().now_ms();
        let (changed, token) = app.registry.sessions().change(&session, &Asked::read(&body)?.wish(now_ms)?, now_ms)?;
        let mut value = shown(&session, &changed, &app);
        if let Some(token) = token {
            value["token"] = token.into();
        }
        Ok(Answer::json(200, &value))
    })
    .await
}

/// `DELETE /api/sessions/{session}`: its simulators, and what it was told.
pub async fn delete(who: Who, app: Data<App>, session: Path<String>) -> HttpResponse {
    answer(move || {
        who.may(&session, app.registry.sessions())?;
        let simulators = app.registry.end_session(&session)?;
        Ok(Answer::json(200, &json!({"session": *session, "deleted": simulators})))
    })
    .await
}
