//! Who may use `/api`, the pages, and the FHIR endpoints of a protected session.
//!
//! Without an admin token the server listens on loopback only, and the danger is another site in the same browser: `Host` must be
//! a loopback name (so that no foreign name resolves here) and `Origin`, where there is one, this very server. With an admin
//! token every request must carry it, or the token of a session, which is good for that session's simulators.

use std::future::{Ready, ready};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, web};
use base64::Engine as _;

use super::{App, Options, pages, respond, routes};
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::sim::sessions::{Protects, Sessions};
use crate::simdb::SimId;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Who has the admin token.
    Admin,
    /// Who has the token of a session, which is named in lower case.
    Session(String),
    /// Whoever is on this machine, where there is no admin token.
    Local,
}

impl Who {
    /// Proves that a session's simulators are theirs to use.
    ///
    /// # Errors
    /// They are another's.
    pub fn may(&self, session: &str, sessions: &Sessions) -> Result<(), Failure> {
        match self {
            Self::Session(own) if !own.eq_ignore_ascii_case(session) => {
                Err(Failure::new(Kind::Forbidden, format!("the token is of session '{own}', and this is of session '{}'", crate::fhir::id::clip(session))))
            }
            Self::Local if sessions.get(session).has_token() => Err(needs_token(session)),
            Self::Admin | Self::Session(_) | Self::Local => Ok(()),
        }
    }

    /// The same for one simulator.
    ///
    /// # Errors
    /// As [`Who::may`].
    pub fn may_use(&self, id: &SimId, app: &App) -> Result<(), Failure> {
        self.may(id.session(), app.registry.sessions())
    }

    /// The session that lists are of: theirs, if they have but one; else the one that is asked for.
    ///
    /// # Errors
    /// Another than theirs is asked for.
    pub fn listed(&self, asked: Option<String>, app: &App) -> Result<Option<String>, Failure> {
        match (self, asked) {
            (Self::Session(own), None) => Ok(Some(own.clone())),
            (_, Some(asked)) => self.may(&asked, app.registry.sessions()).map(|()| Some(asked)),
            (Self::Admin | Self::Local, None) => Ok(None),
        }
    }
}

impl Who {
    /// Whether lists show them what a session has.
    #[must_use]
    pub fn sees(&self, session: &str, app: &App) -> bool {
        match self {
            Self::Admin => true,
            Self::Session(own) => own.eq_ignore_ascii_case(session),
            Self::Local => !app.registry.sessions().get(session).has_token(),
        }
    }
}

fn needs_token(session: &str) -> Failure {
    let message = format!(
        "session '{}' has a token of its own, which is missing or wrong; send Authorization: Bearer <token>, or give it as the password",
        crate::fhir::id::clip(session)
    );
    Failure::new(Kind::Unauthorized, message)
}

impl FromRequest for Who {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let unguarded = || actix_web::error::ErrorInternalServerError("nobody was asked for a token");
        ready(request.extensions().get::<Self>().cloned().ok_or_else(unguarded))
    }
}

/// Lets a request pass or refuses it.
pub async fn guard(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let app = request.app_data::<web::Data<App>>().cloned();
    let Some(app) = app else { return Err(actix_web::error::ErrorInternalServerError("there is no server")) };
    match check(request.request(), &app) {
        Ok(who) => {
            request.extensions_mut().insert(who);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        Err(failure) if request.path().starts_with("/api") => Ok(request.into_response(refusal(&failure))),
        Err(failure) => Ok(request.into_response(asking(&failure, pages::refusal(&app, &failure).into_response(None, None, false)))),
    }
}

/// A refusal that says how to show a token, if one is missing.
pub(super) fn refusal(failure: &Failure) -> HttpResponse {
    asking(failure, respond::failure(failure, FhirVersion::default()))
}

fn asking(failure: &Failure, mut response: HttpResponse) -> HttpResponse {
    if failure.kind == Kind::Unauthorized {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic realm=\"fhirsim\", Bearer"));
    }
    response
}

fn check(request: &HttpRequest, app: &App) -> Result<Who, Failure> {
    let who = who(request, app)?;
    // As whoever answers will read it: decoded.
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let below = path.strip_prefix("/api").unwrap_or(&path);
    if let Some(rest) = below.strip_prefix("/sims/")
        && who != Who::Admin
    {
        let id: SimId = rest.split('/').next().unwrap_or_default().parse()?;
        who.may_use(&id, app)?;
    }
    if let Some(session) = below.strip_prefix("/sessions/") {
        who.may(session, app.registry.sessions())?;
    }
    Ok(who)
}

fn who(request: &HttpRequest, app: &App) -> Result<Who, Failure> {
    let options: &Options = &app.options;
    let host = routes::text(request, header::HOST).or_else(|| request.uri().authority().map(actix_web::http::uri::Authority::as_str)).unwrap_or_default();
    let own = options.public_url.as_deref().and_then(authority);
    if let Some(origin) = routes::text(request, header::ORIGIN)
        && authority(origin).is_none_or(|origin| origin != host && Some(origin) != own)
    {
        return Err(Failure::new(
            Kind::Forbidden,
            format!("Origin '{}' is not this server; the management API is not for other sites' scripts", crate::fhir::id::clip(origin)),
        ));
    }
    if options.admin_token.is_none() && !is_loopback(host) && Some(host) != own {
        let message = format!("Host '{}' is not this server; use 127.0.0.1, or start it with --public-url", crate::fhir::id::clip(host));
        return Err(Failure::new(Kind::Forbidden, message));
    }
    let given = carried(request);
    let token = given.as_deref().unwrap_or_default();
    match &options.admin_token {
        Some(admin) if is_same(token, admin) => Ok(Who::Admin),
        admin => match (app.registry.sessions().of_token(token), admin) {
            (Some(session), _) => Ok(Who::Session(session)),
            (None, None) => Ok(Who::Local),
            (None, Some(_)) => {
                let message = "the admin token, or that of a session, is missing or wrong; send Authorization: Bearer <token>, or give it as the password";
                Err(Failure::new(Kind::Unauthorized, message))
            }
        },
    }
}

/// Proves that a request may use a FHIR endpoint of a session, or make a simulator there: `makes`.
///
/// # Errors
/// The session asks for its token, and the request has neither that nor the admin's.
pub(super) fn may_call(request: &HttpRequest, id: &SimId, app: &App, makes: bool) -> Result<(), Failure> {
    let session = app.registry.sessions().get(id.session());
    if !session.has_token() || (session.protects == Protects::Management && !makes) {
        return Ok(());
    }
    let token = carried(request).unwrap_or_default();
    let is_admin = app.options.admin_token.as_deref().is_some_and(|admin| is_same(&token, admin));
    let is_theirs = app.registry.sessions().of_token(&token).is_some_and(|own| own.eq_ignore_ascii_case(id.session()));
    if is_admin || is_theirs { Ok(()) } else { Err(needs_token(id.session())) }
}

/// The token that a request carries, as `Bearer` or as a password.
fn carried(request: &HttpRequest) -> Option<String> {
    let (scheme, credentials) = routes::text(request, header::AUTHORIZATION).and_then(|h| h.split_once(' '))?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.trim().to_owned());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim()).ok().and_then(|b| String::from_utf8(b).ok())?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// Every byte is compared whatever came before, so that time tells nothing.
fn is_same(given: &str, token: &str) -> bool {
    given.len() == token.len() && given.bytes().zip(token.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    Some(rest.split('/').next().unwrap_or(rest))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_known() {
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.8.8.8", "[::1]:80"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in ["", "example.org", "127.0.0.1.example.org", "localhost.evil.org:80", "[::2]", "10.0.0.1"] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
