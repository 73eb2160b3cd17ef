//! Where the server itself may send: to this machine, and to hosts that it was started with (`--allow-outbound`).

use ureq::config::ConfigBuilder;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use ureq::{Agent, config};

use super::{App, access};
use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};

/// How it sends: never to where an answer redirects, for what was allowed is one place, and where that refers to is another; over TLS if
/// the system trusts the other's certificate; to the place itself, whatever proxy the environment names.
#[must_use]
pub fn configured() -> ConfigBuilder<AgentScope> {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    Agent::config_builder().max_redirects(0).http_status_as_error(false).tls_config(tls).proxy(None)
}

/// An agent that does so.
#[must_use]
pub fn agent(config: config::Config) -> Agent {
    config.into()
}

/// Scheme, `host:port`, host, and the path without its slash.
struct Url<'u> {
    is_secure: bool,
    authority: &'u str,
    host: &'u str,
    path: &'u str,
}

impl<'u> Url<'u> {
    fn of(url: &'u str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(authority, |(host, _)| host);
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        let is_secure = is("https");
        if !is_secure && !is("http") {
            return None;
        }
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let is_v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
        let found = Self { is_secure, authority, host, path: after.strip_prefix('/').unwrap_or(after) };
        ((is_name(host) || is_v6) && found.port().is_some()).then_some(found)
    }

    fn port(&self) -> Option<u16> {
        let usual = if self.is_secure { 443 } else { 80 };
        self.authority.strip_prefix(self.host)?.strip_prefix(':').map_or(Some(usual), |port| port.parse().ok())
    }
}

/// Proves that this server may send to a URL.
///
/// # Errors
/// It may not.
pub fn permitted(url: &str, app: &App) -> Result<(), Failure> {
    proven(url, app).map(|_| ())
}

fn proven<'u>(url: &'u str, app: &App) -> Result<Url<'u>, Failure> {
    let Some(there) = Url::of(url) else {
        let message = format!("'{}' is not a URL that begins with http:// or https:// and names no user", clip(url));
        return Err(Failure::new(Kind::BadValue, message));
    };
    let is_allowed = |allowed: &String| allowed.eq_ignore_ascii_case(there.host) || allowed.eq_ignore_ascii_case(there.authority);
    if access::is_loopback(there.authority) || app.options.allow_outbound.iter().any(is_allowed) {
        return Ok(there);
    }
    let message = format!("this server may not send to '{}'; start it with --allow-outbound {}", clip(there.host), there.host);
    Err(Failure::new(Kind::Forbidden, message))
}

/// Proves the same, and that it is none of this server's own pages or its API: what is sent there could send again.
///
/// # Errors
/// It may not.
pub fn fetchable(url: &str, app: &App) -> Result<(), Failure> {
    let there = proven(url, app)?;
    let is_own = access::is_loopback(there.authority) && there.port() == Some(app.options.addr.port());
    if is_own && !there.path.starts_with("sim/") {
        return Err(Failure::new(Kind::BadValue, format!("'{}' is of this server, and no endpoint: those are below /sim/", clip(url))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, expected) in [
            ("http://127.0.0.1:8080/sim/a", Some((false, "127.0.0.1:8080", "127.0.0.1", Some(8080), "sim/a"))),
            ("https://x.example", Some((true, "x.example", "x.example", Some(443), ""))),
            ("http://[::1]:80?q", Some((false, "[::1]:80", "[::1]", Some(80), "?q"))),
            ("http://[::1]/p", Some((false, "[::1]", "[::1]", Some(80), "p"))),
            ("http://x:99999/", None),
            ("http://127.0.0.1:80;x/", None),
            ("http://[::1]x/", None),
            ("http://u@x/", None),
            ("http://127.0.0.1\\@x/", None),
            ("http:///x", None),
            ("ftp://x/", None),
            ("file:///etc/passwd", None),
            ("HTTP://x/", Some((false, "x", "x", Some(80), ""))),
        ] {
            let found = Url::of(url);
            assert_eq!(found.as_ref().map(|u| (u.is_secure, u.authority, u.host, u.port(), u.path)), expected, "{url}");
        }
    }
}
