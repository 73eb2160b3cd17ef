//! Who may use `/api` and the pages.
//!
//! Without a token the server listens on loopback only, and the danger is another site in the same browser: `Host` must be
//! a loopback name (so that no foreign name resolves here) and `Origin`, where there is one, this very server. With a token
//! every request must carry it.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{HttpRequest, web};
use base64::Engine as _;

use super::{App, Options, respond, routes};
use crate::fhir::{Failure, FhirVersion, Kind};

/// Lets a request pass or refuses it.
pub async fn guard(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let app = request.app_data::<web::Data<App>>().cloned();
    let verdict = app.map_or(Ok(()), |app| check(request.request(), &app.options));
    match verdict {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(failure) => {
            let mut response = respond::failure(&failure, FhirVersion::default());
            if failure.kind == Kind::Unauthorized {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Basic realm=\"fhirsim\", Bearer"));
            }
            Ok(request.into_response(response))
        }
    }
}

fn check(request: &HttpRequest, options: &Options) -> Result<(), Failure> {
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
    if let Some(token) = &options.admin_token {
        if carries(request, token) {
            return Ok(());
        }
        Err(Failure::new(Kind::Unauthorized, "the admin token is missing or wrong; send Authorization: Bearer <token>, or give it as the password"))
    } else {
        if is_loopback(host) || Some(host) == own {
            return Ok(());
        }
        Err(Failure::new(Kind::Forbidden, format!("Host '{}' is not this server; use 127.0.0.1, or start it with --public-url", crate::fhir::id::clip(host))))
    }
}

fn carries(request: &HttpRequest, token: &str) -> bool {
    let Some((scheme, credentials)) = routes::text(request, header::AUTHORIZATION).and_then(|h| h.split_once(' ')) else { return false };
    let given = if scheme.eq_ignore_ascii_case("bearer") {
        Some(credentials.trim().to_owned())
    } else {
        let decoded = base64::engine::general_purpose::STANDARD.decode(credentials.trim()).ok().and_then(|b| String::from_utf8(b).ok());
        decoded.and_then(|pair| pair.split_once(':').map(|(_, password)| password.to_owned()))
    };
    // Every byte is compared whatever came before, so that time tells nothing.
    given.is_some_and(|given| given.len() == token.len() && given.bytes().zip(token.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0)
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    Some(rest.split('/').next().unwrap_or(rest))
}

fn is_loopback(host: &str) -> bool {
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
