//! What clients prove themselves by stays out of what is recorded (setting `redact`): in headers, URLs and bodies, wherever it was sent.
//! All else stays byte for byte.

use std::ops::Range;
use std::sync::LazyLock;

use actix_web::HttpRequest;
use actix_web::web::Bytes;
use aho_corasick::AhoCorasick;
use serde_json::{Map, Value};

use crate::fhir::raw;

/// Headers whose value is a secret, besides those that say so by their name.
const HEADERS: [&str; 6] = ["authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", "ocp-apim-subscription-key"];
/// Parameters of forms and URLs whose value is a secret, RFC 6749, 6750, 7521 and 7636.
const CREDENTIALS: [&str; 8] = ["client_assertion", "client_secret", "access_token", "refresh_token", "id_token", "password", "code_verifier", "subject_token"];
/// Parameters of a Parameters resource that are secrets: what is sent along when files are fetched, and keys.
const PARAMETERS: [&str; 2] = ["fileRequestHeader", "fileEncryptionKey"];
const HIDDEN: &str = "[redacted]";

/// The headers of a request, for a record.
#[must_use]
pub fn headers(request: &HttpRequest, redact: bool) -> Map<String, Value> {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in request.headers() {
        let name = name.as_str();
        let is_secret = redact && (HEADERS.contains(&name) || ["token", "secret", "password"].iter().any(|word| name.contains(word)));
        let shown = if is_secret { HIDDEN.to_owned() } else { String::from_utf8_lossy(value.as_bytes()).into_owned() };
        match headers.get_mut(name) {
            Some(Value::String(before)) => before.push_str(&format!(", {shown}")),
            Some(_) | None => {
                headers.insert(name.to_owned(), shown.into());
            }
        }
    }
    headers
}

/// Path and query of a request, for a record.
#[must_use]
pub fn url(request: &HttpRequest, redact: bool) -> String {
    let url = request.uri().path_and_query().map_or("", |p| p.as_str());
    if redact { in_url(url) } else { url.to_owned() }
}

/// A URL without the credentials that some clients put there.
fn in_url(url: &str) -> String {
    match url.split_once('?') {
        Some((path, query)) if has(query.as_bytes(), &[Sign::Credential, Sign::Coded]) => {
            format!("{path}?{}", String::from_utf8_lossy(&of_form(query.as_bytes())))
        }
        _ => url.to_owned(),
    }
}

/// What a text may have that makes it worth to be read: in one pass, for every body that is recorded goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Credential,
    Parameter,
    /// An underscore that is coded in a URL or a form.
    Coded,
    /// A character that is coded in JSON.
    Escape,
    Grant,
}

fn has(text: &[u8], signs: &[Sign]) -> bool {
    static ALL: LazyLock<Option<(AhoCorasick, Vec<Sign>)>> = LazyLock::new(|| {
        let named = CREDENTIALS.iter().map(|name| (*name, Sign::Credential)).chain(PARAMETERS.iter().map(|name| (*name, Sign::Parameter)));
        let all: Vec<(&str, Sign)> = named.chain([("%5f", Sign::Coded), ("\\u", Sign::Escape), ("grant_type", Sign::Grant)]).collect();
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(all.iter().map(|(name, _)| name));
        finder.ok().map(|finder| (finder, all.iter().map(|(_, sign)| *sign).collect()))
    });
    // Without it everything is read.
    ALL.as_ref().is_none_or(|(finder, all)| finder.find_iter(text).any(|found| signs.contains(&all[found.pattern().as_usize()])))
}

/// A form without credentials; the code of a grant is one, too.
#[must_use]
pub fn form(body: Bytes) -> Bytes {
    if has(&body, &[Sign::Credential, Sign::Coded, Sign::Grant]) { of_form(&body).into() } else { body }
}

fn of_form(form: &[u8]) -> Vec<u8> {
    let name_of = |piece: &[u8]| piece.iter().position(|b| *b == b'=').unwrap_or(piece.len());
    let plain = |name: &[u8]| percent_encoding::percent_decode(name.trim_ascii()).decode_utf8_lossy().trim().to_ascii_lowercase();
    let pieces: Vec<&[u8]> = form.split(|b| *b == b'&').collect();
    let names: Vec<String> = pieces.iter().map(|piece| plain(&piece[..name_of(piece)])).collect();
    let is_grant = names.iter().any(|name| name == "grant_type");
    let kept = pieces.iter().zip(&names).map(|(piece, name)| {
        let is_secret = CREDENTIALS.contains(&name.as_str()) || (is_grant && matches!(name.as_str(), "code" | "assertion"));
        if is_secret { [&piece[..name_of(piece)], b"=", HIDDEN.as_bytes()].concat() } else { piece.to_vec() }
    });
    kept.collect::<Vec<_>>().join(&b'&')
}

/// A Bundle without the credentials that its requests have in their URLs, and those that an order in it has.
#[must_use]
pub fn bundle(body: Bytes) -> Bytes {
    if !has(&body, &[Sign::Credential, Sign::Coded, Sign::Parameter]) {
        return body;
    }
    let Ok(text) = std::str::from_utf8(&body) else { return body };
    if serde_json::from_str::<Value>(text).is_err() {
        return body;
    }
    let mut edits = Vec::new();
    let entries = raw::member(text, 0, "entry").filter(|span| text[span.clone()].starts_with('[')).map(|span| raw::elements(text, span.start));
    for entry in entries.into_iter().flatten().filter(|span| text[span.clone()].starts_with('{')) {
        let within = |at: usize, name: &str| raw::member(text, at, name);
        let Some(url) = within(entry.start, "request").filter(|span| text[span.clone()].starts_with('{')).and_then(|span| within(span.start, "url")) else {
            continue;
        };
        let named = raw::string(&text[url.clone()]).into_owned();
        let shown = in_url(&named);
        if shown != named {
            edits.push((url, raw::quote(&shown)));
        }
        let is_order = named.contains("bulk-submit") || named.contains("import");
        if let Some(span) = within(entry.start, "resource").filter(|_| is_order) {
            in_json(text, span, &mut edits);
        }
    }
    if edits.is_empty() { body } else { raw::apply(text, edits).into() }
}

/// The body of an order to fetch files, or of what was refused and may have been meant for another place. Where it cannot be told where a
/// secret stands, nothing of it is kept.
#[must_use]
pub fn order(body: Bytes) -> Bytes {
    let all = || PARAMETERS.iter().chain(&CREDENTIALS);
    // A name may be spelled by escapes; without them nothing has to be read.
    if !has(&body, &[Sign::Credential, Sign::Parameter, Sign::Escape]) {
        return body;
    }
    let text = String::from_utf8_lossy(&body);
    let plain = text.trim_start_matches('\u{feff}');
    if serde_json::from_str::<Value>(plain).is_ok() {
        let mut edits = Vec::new();
        in_json(plain, plain.len() - plain.trim_start().len()..plain.trim_end().len(), &mut edits);
        return if edits.is_empty() { body } else { raw::apply(plain, edits).into() };
    }
    let is_quoted = |name: &&&str| text.contains(&format!("\"{name}\"")) || text.contains(&format!("'{name}'"));
    if all().any(|name| is_quoted(&name)) {
        return Bytes::from_static(b"[redacted: it names secrets and is no JSON]");
    }
    let lower = text.to_ascii_lowercase();
    if CREDENTIALS.iter().any(|name| lower.contains(&format!("{name}="))) { of_form(&body).into() } else { body }
}

/// The places of secrets in a JSON value.
fn in_json(text: &str, span: Range<usize>, edits: &mut Vec<(Range<usize>, String)>) {
    match text.as_bytes().get(span.start) {
        Some(b'{') => {
            let name = raw::member(text, span.start, "name").map(|name| raw::string(&text[name]).into_owned());
            if name.is_some_and(|name| PARAMETERS.contains(&name.as_str())) {
                return hide(text, span, edits);
            }
            for member in raw::members(text, span.start) {
                let is_secret = CREDENTIALS.contains(&&*raw::string(&text[member.key.clone()]).to_ascii_lowercase());
                if is_secret { hide(text, member.value, edits) } else { in_json(text, member.value, edits) }
            }
        }
        Some(b'[') => raw::elements(text, span.start).into_iter().for_each(|item| in_json(text, item, edits)),
        _ => {}
    }
}

/// Takes every value out but names, and the name of a header.
fn hide(text: &str, span: Range<usize>, edits: &mut Vec<(Range<usize>, String)>) {
    match text.as_bytes().get(span.start) {
        Some(b'{') => {
            let is_name = raw::member(text, span.start, "name").is_some_and(|name| raw::string(&text[name]) == "headerName");
            let members = raw::members(text, span.start).filter(|m| !is_name && raw::string(&text[m.key.clone()]) != "name");
            members.for_each(|member| hide(text, member.value, edits));
        }
        Some(b'[') => raw::elements(text, span.start).into_iter().for_each(|item| hide(text, item, edits)),
        Some(b'n') | None => {}
        Some(_) => edits.push((span, raw::quote(HIDDEN))),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::web::Bytes;

    use super::{bundle, form, in_url, order};

    fn told(of: fn(Bytes) -> Bytes, body: &str) -> String {
        String::from_utf8_lossy(&of(Bytes::copy_from_slice(body.as_bytes()))).into_owned()
    }

    #[test]
    fn what_holds_no_secret_stays_as_it_is() {
        for body in [
            "[]",
            "5",
            "null",
            "\"x\"",
            "{}",
            "not json",
            "",
            r#"{"parameter":[{"name":"x","valueString":"y"}]}"#,
            r#"{"resourceType":"Pateint",  "n": 1.00, "note":"how to use fileRequestHeader, client_secret and \u0041"}"#,
            "<Patient><note value='about fileRequestHeader'/></Patient>",
        ] {
            assert_eq!(told(order, body), body);
        }
        assert_eq!(told(form, "code=1234&name=password&_id=%41"), "code=1234&name=password&_id=%41");
        assert_eq!(in_url("/sim/a__b/fhir/Patient?name=access_token&code=x%7Cy"), "/sim/a__b/fhir/Patient?name=access_token&code=x%7Cy");
        let data = r#"{"entry":[ {"request":{"url":"Parameters"},"resource":{"parameter":[{"name":"fileRequestHeader","valueString":"data"}]}}]}"#;
        assert_eq!(told(bundle, data), data);
    }

    #[test]
    fn secrets_do_not_stay_whatever_form_they_have() {
        for body in [
            r#"{"parameter":[{"name":"fileRequestHeader","part":[{"name":"headerName","valueString":"X"},{"name":"headerValue","valueString":"hush"}]}]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","part":[{"name":"headerValue","part":[{"name":"y","valueString":"hush"}]}]}]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}]}"#,
            r#"{"parameter":{"name":"fileRequestHeader","valueString":"hush"}}"#,
            r#"{"parameter":[{"name":"file\u0052equestHeader","valueString":"hush"}]}"#,
            r#"{"parameter":[{"name":"fileEncryptionKey","part":[{"name":"value","valueString":"hush"}]}]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}],"parameter":[]}"#,
            r#"{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}"#,
            "\u{feff}{\"parameter\":[{\"name\":\"fileRequestHeader\",\"valueString\":\"hush\"}]}",
            "<Parameters><parameter><name value='fileRequestHeader'/><valueString value='hush'/></parameter></Parameters>",
            r#"{"client_assertion":"hush","x":1}"#,
            r#"{"a":[{"Client_Secret":{"b":["hush"]}}]}"#,
            "grant_type=client_credentials&client_assertion=hush",
            "--b\r\nContent-Disposition: form-data; name=\"client_secret\"\r\n\r\nhush\r\n--b--",
        ] {
            let kept = told(order, body);
            assert!(!kept.contains("hush") && kept.contains("redacted"), "{kept}");
        }
        let spaced = r#"{ "parameter" : [ {"name":"fileRequestHeader", "valueString" : "hush" }, {"name":"x","valueDecimal":1.00} ] }"#;
        assert_eq!(told(order, spaced), spaced.replace("hush", "[redacted]"), "all else stays");
        for (body, expected) in [
            ("client_secret=hush&x=1", "client_secret=[redacted]&x=1"),
            ("Access%5FToken=hush", "Access%5FToken=[redacted]"),
            ("grant_type=authorization_code&code=hush&x", "grant_type=authorization_code&code=[redacted]&x"),
        ] {
            assert_eq!(told(form, body), expected);
        }
        assert_eq!(in_url("/p?a=1&access%5Ftoken=hush&id_token=hush"), "/p?a=1&access%5Ftoken=[redacted]&id_token=[redacted]");
        let order = r#"{"type":"batch","entry":[ {"request":{"method":"GET","url":"Patient?access_token=hush&_id=1"}},
            {"request":{"method":"POST","url":"$bulk-submit"},"resource":{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}]}} ]}"#;
        assert_eq!(told(bundle, order), order.replace("hush", "[redacted]"));
    }
}
