//! What clients prove themselves by stays out of what is recorded (setting `redact`): in headers, URLs and bodies, wherever it was sent.
//! All else stays byte for byte.

use std::ops::Range;
use std::sync::LazyLock;

use actix_web::HttpRequest;
use actix_web::web::Bytes;
use aho_corasick::AhoCorasick;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::fhir::raw;

/// Headers whose value is a secret, besides those that say so by their name.
const HEADERS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "ocp-apim-subscription-key"];
/// Words in the names of those that do, where an underscore is a hyphen.
const SAID: [&str; 12] =
    ["token", "secret", "password", "api-key", "apikey", "auth-key", "authorization", "credential", "assertion", "jwt", "dpop", "functions-key"];
/// Parameters of forms and URLs whose value is a secret, RFC 6749, 6750, 7521 and 7636.
const CREDENTIALS: [&str; 9] =
    ["client_assertion", "client_secret", "access_token", "refresh_token", "id_token", "password", "code_verifier", "subject_token", "api_key"];
/// Parameters of a Parameters resource that are secrets: what is sent along when files are fetched, and keys.
const PARAMETERS: [&str; 2] = ["fileRequestHeader", "fileEncryptionKey"];
const HIDDEN: &str = "[redacted]";

/// The headers of a request, for a record.
#[must_use]
pub fn headers(request: &HttpRequest, redact: bool) -> Map<String, Value> {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in request.headers() {
        let name = name.as_str();
        let spelled = name.replace('_', "-");
        let is_secret = redact && (HEADERS.contains(&name) || SAID.iter().any(|word| spelled.contains(word)));
        let shown = match String::from_utf8_lossy(value.as_bytes()).into_owned() {
            _ if is_secret => HIDDEN.to_owned(),
            query if redact && name == "if-none-exist" => String::from_utf8_lossy(&form(Bytes::from(query))).into_owned(),
            url if redact && url.contains('?') => in_url(&url),
            shown => shown,
        };
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
            let shown = String::from_utf8_lossy(&of_form(query.as_bytes())).into_owned();
            // A URL may stand in another.
            format!("{path}?{}", if shown.contains('?') { in_text(&shown).unwrap_or(shown) } else { shown })
        }
        _ => url.to_owned(),
    }
}

/// What a text may have that makes it worth to be read: in one pass, for every body that is recorded goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Credential,
    Parameter,
    /// A letter or an underscore that is coded in a URL or a form, which none has to be.
    Coded,
    /// A character that is coded in JSON.
    Escape,
    Grant,
}

fn has(text: &[u8], signs: &[Sign]) -> bool {
    static ALL: LazyLock<Option<(AhoCorasick, Vec<Sign>)>> = LazyLock::new(|| {
        let named = CREDENTIALS.iter().map(|name| (*name, Sign::Credential)).chain(PARAMETERS.iter().map(|name| (*name, Sign::Parameter)));
        let coded: Vec<String> = (b'a'..=b'z').chain(b'A'..=b'Z').chain([b'_']).map(|c| format!("%{c:02x}")).collect();
        let coded = coded.iter().map(|coded| (coded.as_str(), Sign::Coded));
        let all: Vec<(&str, Sign)> = named.chain(coded).chain([("\\u", Sign::Escape), ("grant_type", Sign::Grant)]).collect();
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(all.iter().map(|(name, _)| name));
        finder.ok().map(|finder| (finder, all.iter().map(|(_, sign)| *sign).collect()))
    });
    // Without it everything is read.
    ALL.as_ref().is_none_or(|(finder, all)| finder.find_iter(text).any(|found| signs.contains(&all[found.pattern().as_usize()])))
}

/// A form without credentials; the code of a grant is one, too.
fn form(body: Bytes) -> Bytes {
    if has(&body, &[Sign::Credential, Sign::Coded, Sign::Grant]) { of_form(&body).into() } else { body }
}

fn of_form(form: &[u8]) -> Vec<u8> {
    let name_of = |piece: &[u8]| piece.iter().position(|b| *b == b'=').unwrap_or(piece.len());
    let plain = |name: &[u8]| percent_encoding::percent_decode(name.trim_ascii()).decode_utf8_lossy().trim().to_ascii_lowercase();
    let pieces: Vec<&[u8]> = form.split(|b| *b == b'&').collect();
    let names: Vec<String> = pieces.iter().map(|piece| plain(&piece[..name_of(piece)])).collect();
    let is_grant = names.iter().any(|name| name == "grant_type");
    let kept = pieces.iter().zip(&names).map(|(piece, name)| {
        // A search may add a modifier.
        let is_secret = CREDENTIALS.contains(&name.split(':').next().unwrap_or_default()) || (is_grant && matches!(name.as_str(), "code" | "assertion"));
        if is_secret { [&piece[..name_of(piece)], b"=", HIDDEN.as_bytes()].concat() } else { piece.to_vec() }
    });
    kept.collect::<Vec<_>>().join(&b'&')
}

/// What a body is, for whoever keeps secrets out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One that is kept as it came.
    Plain,
    /// A form.
    Form,
    /// A Bundle of requests.
    Bundle,
    /// An order to fetch files, or what was refused and may have been meant for another place.
    Order,
}

impl Kind {
    /// A body without secrets.
    #[must_use]
    pub fn redacted(self, body: &Bytes) -> Bytes {
        match self {
            Self::Plain => body.clone(),
            Self::Form => form(body.clone()),
            Self::Bundle => bundle(body.clone()),
            Self::Order => order(body.clone()),
        }
    }
}

/// A Bundle without the credentials that its requests have in their URLs, and those that an order in it has.
fn bundle(body: Bytes) -> Bytes {
    if !has(&body, &[Sign::Credential, Sign::Coded, Sign::Escape, Sign::Parameter]) {
        return body;
    }
    let Ok(text) = std::str::from_utf8(&body) else { return body };
    let plain = text.trim_start_matches('\u{feff}').trim();
    if plain.starts_with('<') {
        return in_text(text).map_or(body, Bytes::from);
    }
    if !plain.starts_with('{') || serde_json::from_str::<IgnoredAny>(plain).is_err() {
        return body;
    }
    let mut edits = Vec::new();
    let list = |name: &str| raw::member(plain, 0, name).filter(|span| plain[span.clone()].starts_with('[')).map(|span| raw::elements(plain, span.start));
    for link in list("link").into_iter().flatten().filter(|span| plain[span.clone()].starts_with('{')) {
        if let Some(span) = raw::member(plain, link.start, "url").filter(|span| plain[span.clone()].starts_with('"')) {
            let said = raw::string(&plain[span.clone()]).into_owned();
            push_changed(span, &said, &in_url(&said), &mut edits);
        }
    }
    for entry in list("entry").into_iter().flatten().filter(|span| plain[span.clone()].starts_with('{')) {
        let of = |text: &Range<usize>, name: &str| raw::member(plain, text.start, name);
        let request = of(&entry, "request").filter(|span| plain[span.clone()].starts_with('{'));
        let member = |name: &str| request.as_ref().and_then(|request| of(request, name)).filter(|span| plain[span.clone()].starts_with('"'));
        let url = member("url");
        for span in [url.clone(), of(&entry, "fullUrl").filter(|span| plain[span.clone()].starts_with('"'))].into_iter().flatten() {
            let said = raw::string(&plain[span.clone()]).into_owned();
            push_changed(span, &said, &in_url(&said), &mut edits);
        }
        if let Some(span) = member("ifNoneExist") {
            let said = raw::string(&plain[span.clone()]).into_owned();
            push_changed(span, &said, &String::from_utf8_lossy(&of_form(said.as_bytes())), &mut edits);
        }
        let named = url.map(|span| raw::string(&plain[span]).into_owned()).unwrap_or_default();
        let is_order = named.contains("bulk-submit") || named.contains("import");
        if let Some(span) = of(&entry, "resource").filter(|_| is_order) {
            edits.extend(secrets_in(plain, span));
        }
    }
    if edits.is_empty() { body } else { raw::apply(plain, edits).into() }
}

fn push_changed(span: Range<usize>, said: &str, shown: &str, edits: &mut Edits) {
    if shown != said {
        edits.push((span, raw::quote(shown)));
    }
}

/// The body of an order, or of what was refused. Where it cannot be told where a secret stands, nothing of it is kept.
#[must_use]
pub fn order(body: Bytes) -> Bytes {
    // A name may be spelled by escapes; without them nothing has to be read.
    if !has(&body, &[Sign::Credential, Sign::Coded, Sign::Parameter, Sign::Escape]) {
        return body;
    }
    let text = String::from_utf8_lossy(&body);
    let plain = text.trim_start_matches('\u{feff}').trim();
    if serde_json::from_str::<IgnoredAny>(plain).is_ok() {
        let edits = secrets_in(plain, 0..plain.len());
        return if edits.is_empty() { body } else { raw::apply(plain, edits).into() };
    }
    if names_one(&text) {
        return Bytes::from_static(b"[redacted: it names secrets and is no JSON]");
    }
    in_text(&text).map_or(body, Bytes::from)
}

/// Whether a secret's name stands where something is named: before a colon or as a form's field, but for what [`in_text`] finds.
fn names_one(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_named = |name: &str| {
        lower.match_indices(&name.to_ascii_lowercase()).any(|(at, found)| {
            let before = lower[..at].trim_end_matches(['"', '\'']).trim_end();
            let after = lower[at + found.len()..].trim_start_matches(['"', '\'']).trim_start();
            // The key itself, a part of a form, or what a parameter is called in JSON or XML.
            let called = before.strip_suffix(':').map(|before| before.trim_end().trim_end_matches(['"', '\'']));
            after.starts_with(':')
                || before.ends_with(['<', '/']) && (after.starts_with('>') || after.starts_with("value"))
                || before.ends_with("name=")
                || before.ends_with("<name value=")
                || called.is_some_and(|before| before.ends_with("name"))
        })
    };
    CREDENTIALS.iter().chain(&PARAMETERS).any(|name| is_named(name))
}

/// A text without the values of credentials that are written as in a URL, if there are any.
fn in_text(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let names = CREDENTIALS.iter().flat_map(|name| [format!("{name}="), format!("{}=", name.replace('_', "%5f"))]);
    let mut edits: Edits = Vec::new();
    for name in names {
        for (at, found) in lower.match_indices(&name) {
            let from = at + found.len();
            let length = text[from..].find(['&', '"', '\'', '<', '>', ' ', '\t', '\r', '\n']).unwrap_or(text.len() - from);
            edits.push((from..from + length, HIDDEN.to_owned()));
        }
    }
    // One may stand in the value of another.
    edits.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
    let mut outer = 0;
    edits.retain(|(span, _)| {
        let is_outer = span.start >= outer;
        outer = outer.max(span.end);
        is_outer
    });
    (!edits.is_empty()).then(|| raw::apply(text, edits))
}

/// What shall stand instead of parts of a text.
type Edits = Vec<(Range<usize>, String)>;

/// An object or a list that is open.
struct Open {
    start: usize,
    is_object: bool,
    /// The key whose value comes next.
    key: Option<String>,
    /// Whether it is one of [`PARAMETERS`].
    is_secret: bool,
}

/// What of a value is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hidden {
    Whole,
    /// Of a parameter all but names.
    Parameter,
}

/// What is to be hidden in a JSON value, which is well-formed: found in one pass, however deep it is.
fn secrets_in(text: &str, within: Range<usize>) -> Edits {
    let bytes = text.as_bytes();
    let mut open: Vec<Open> = Vec::new();
    let mut secret: Vec<(Range<usize>, Hidden)> = Vec::new();
    let mut edits = Edits::new();
    let mut at = within.start;
    while at < within.end {
        let start = at;
        let value = match bytes[at] {
            b'{' | b'[' => {
                open.push(Open { start, is_object: bytes[at] == b'{', key: None, is_secret: false });
                at += 1;
                continue;
            }
            b'}' | b']' => {
                at += 1;
                let Some(done) = open.pop() else { break };
                if done.is_secret {
                    secret.push((done.start..at, Hidden::Parameter));
                }
                done.start..at
            }
            b'"' => {
                at = string_end(bytes, at);
                if let Some(object) = open.last_mut().filter(|o| o.is_object && o.key.is_none()) {
                    object.key = Some(raw::string(&text[start..at]).into_owned());
                    continue;
                }
                start..at
            }
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            _ => {
                at += bytes[at..within.end].iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n')).unwrap_or(within.end - at);
                start..at
            }
        };
        let said = bytes[value.start] == b'"';
        let key = open.last_mut().filter(|o| o.is_object).and_then(|o| o.key.take());
        if key.as_ref().is_some_and(|key| CREDENTIALS.contains(&key.to_ascii_lowercase().as_str())) {
            secret.push((value, Hidden::Whole));
        } else if said && key.as_deref() == Some("name") {
            let name = raw::string(&text[value]);
            if let Some(object) = open.last_mut().filter(|_| PARAMETERS.contains(&name.trim())) {
                object.is_secret = true;
            }
        } else if let Some(shown) = Some(raw::string(&text[value.clone()])).filter(|_| said).and_then(|plain| in_text(&plain).filter(|shown| *shown != plain)) {
            edits.push((value, raw::quote(&shown)));
        }
    }
    applied(text, secret, edits)
}

/// The edits that hide what is secret, and those that lie outside of it.
fn applied(text: &str, mut secret: Vec<(Range<usize>, Hidden)>, mut edits: Edits) -> Edits {
    // Those that hold others come later.
    secret.sort_by_key(|(span, _)| (span.start, std::cmp::Reverse(span.end)));
    let mut outer = 0;
    secret.retain(|(span, _)| {
        let is_outer = span.start >= outer;
        outer = outer.max(span.end);
        is_outer
    });
    let is_within =
        |span: &Range<usize>| secret[..secret.partition_point(|(outer, _)| outer.start <= span.start)].last().is_some_and(|(outer, _)| span.end <= outer.end);
    edits.retain(|(span, _)| !is_within(span));
    for (span, how) in secret {
        match how {
            Hidden::Whole => edits.push((span, raw::quote(HIDDEN))),
            Hidden::Parameter => hide(text, span, &mut edits),
        }
    }
    edits
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += 1 + usize::from(bytes[at] == b'\\');
    }
    (at + 1).min(bytes.len())
}

/// Takes every value out of a parameter but its name, and the names of headers; of what is long, all.
fn hide(text: &str, span: Range<usize>, edits: &mut Edits) {
    /// What is longer is not looked at piece by piece.
    const SHORT: usize = 16 << 10;
    match text.as_bytes().get(span.start) {
        Some(b'{') if span.len() <= SHORT && raw::member(text, span.start, "name").is_some() => {
            let is_name = raw::member(text, span.start, "name").is_some_and(|name| raw::string(&text[name]) == "headerName");
            let members = raw::members(text, span.start).filter(|m| !is_name && raw::string(&text[m.key.clone()]) != "name");
            members.for_each(|member| hide(text, member.value, edits));
        }
        Some(b'[') if span.len() <= SHORT => raw::elements(text, span.start).into_iter().for_each(|item| hide(text, item, edits)),
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
            r#"{"resourceType":"Questionnaire","status":"draft","item":[{"linkId":"password","type":"string"}],}"#,
            r#"<Questionnaire><item><linkId value="password"/></item>"#,
        ] {
            assert_eq!(told(order, body), body);
        }
        assert_eq!(told(form, "code=1234&name=password&_id=%41"), "code=1234&name=password&_id=%41");
        assert_eq!(in_url("/sim/a__b/fhir/Patient?name=access_token&code=x%7Cy"), "/sim/a__b/fhir/Patient?name=access_token&code=x%7Cy");
        let data = r#"{"entry":[ {"request":{"url":"Parameters"},"resource":{"parameter":[{"name":"fileRequestHeader","valueString":"data"}]}}]}"#;
        assert_eq!(told(bundle, data), data);
    }

    #[test]
    fn what_is_deep_or_long_costs_what_it_is_long() {
        let deep = |depth: usize| format!(r#"{{"n":"\u0041","a":{}"{}"{}}}"#, r#"{"a":"#.repeat(depth), "x".repeat(1 << 20), "}".repeat(depth));
        // A pass for every level would take minutes.
        for depth in [1, 60, 120] {
            assert_eq!(told(order, &deep(depth)), deep(depth));
        }
        let many = format!("[{}]", vec![r#"{"password":"hush"}"#; 20_000].join(","));
        assert!(!told(order, &many).contains("hush"));
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
            r#"{"client_secret" : {"name":"hush"}}"#,
            "{client_secret: 'hush'}",
            "<Patient xmlns='http://hl7.org/fhir'><client_secret value='hush'/></Patient>",
            "<x><password>hush</password></x>",
            "--b\r\nContent-Disposition: form-data; name=client_secret\r\n\r\nhush\r\n--b--",
            r#"{"resourceType":"Bundle","type":"transactoin","entry":[{"request":{"method":"GET","url":"Patient?access_token=hush&_id=1"}}]}"#,
            r#"{"manifestUrl":"http://x/m?access\u005ftoken=hush"}"#,
            "<Bundle><url value=\"Patient?access_token=hush&amp;_id=1\"/></Bundle>",
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
            ("pass%77ord=hush&a=%41", "pass%77ord=[redacted]&a=%41"),
            ("client_secret:contains=hush", "client_secret:contains=[redacted]"),
            ("grant_type=authorization_code&code=hush&x", "grant_type=authorization_code&code=[redacted]&x"),
        ] {
            assert_eq!(told(form, body), expected);
        }
        assert_eq!(in_url("/p?a=1&access%5Ftoken=hush&id_token=hush"), "/p?a=1&access%5Ftoken=[redacted]&id_token=[redacted]");
        assert_eq!(in_url("/p?ap%69_key=hush&x=1?access_token=hush&y=2"), "/p?ap%69_key=[redacted]&x=1?access_token=[redacted]&y=2");
        let order = r#"{"type":"batch","link":[{"relation":"self","url":"http://x?access_token=hush"}],"entry":[ {"request":{"url":"Patient?pass%77ord=hush"}}, {"request":{"method":"GET","url":"Patient?access_token=hush&_id=1"}},
            {"fullUrl":"http://x/Patient?access_token=hush","request":{"method":"POST","url":"Patient","ifNoneExist":"access_token=hush&_id=7"}},
            {"request":{"method":"GET","url":"Patient?access\u005ftoken=[redacted]"}},
            {"request":{"method":"POST","url":"$bulk-submit"},"resource":{"parameter":[{"name":"fileRequestHeader","valueString":"hush"}]}} ]}"#;
        assert_eq!(told(bundle, order), order.replace("hush", "[redacted]"));
    }
}
