//! Faults that a simulator is told to have: which requests they befall, and what goes wrong. Decided from the request and the
//! number of requests that fitted before, so that the same requests in the same order fare the same.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind};
use crate::simdb::event::known_interaction;

/// Most rules of a simulator.
const MAX_RULES: usize = 100;
/// Longest delay in milliseconds.
const MAX_DELAY_MS: u64 = 300_000;

/// A fault: whom it befalls, and what it does. Of several the first that befalls a request counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// What events and the log call it; else it is named by its preset and place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which requests.
    #[serde(rename = "match", skip_serializing_if = "is_default")]
    pub matches: Match,
    /// An effect by its name, see [`PRESETS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// What goes wrong, where there is no preset.
    #[serde(skip_serializing_if = "is_default")]
    pub effect: Effect,
}

/// Which requests; what is empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Interactions by the names that events have, such as `read` or `$validate`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interaction: Vec<String>,
    /// HTTP methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub method: Vec<String>,
    /// Resource types that the URL names.
    #[serde(rename = "type", skip_serializing_if = "Vec::is_empty")]
    pub type_name: Vec<String>,
    /// A parameter of the URL, with this value if one is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<Named>,
    /// A header, with this value if one is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Named>,
    /// Passes over so many first.
    #[serde(skip_serializing_if = "is_default")]
    pub after: u64,
    /// Of those that are left, the nth alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Of those that are left, each nth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Of those that are left, so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Of those that are left, this share, from 0 to 1, by a sequence that `seed` determines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Determines the sequence.
    #[serde(skip_serializing_if = "is_default")]
    pub seed: u64,
}

/// A name, and perhaps a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What goes wrong; several at once where that makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Effect {
    /// The answer waits so many milliseconds,
    #[serde(skip_serializing_if = "is_default")]
    pub delay_ms: u64,
    /// and up to so many more, by a sequence that `seed` determines.
    #[serde(skip_serializing_if = "is_default")]
    pub spread_ms: u64,
    /// The answer has this status and an OperationOutcome instead of what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The issue code of that outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `Retry-After` in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// What was asked for is done all the same; only the answer is another, or none.
    #[serde(skip_serializing_if = "is_default")]
    pub performed: bool,
    /// The connection ends: before an answer, by a reset, in the middle of the body, or never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<Connection>,
    /// The body comes so slowly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// The body is not what its media type says.
    #[serde(skip_serializing_if = "is_default")]
    pub malformed: bool,
    /// The answer's `Content-Type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The answer's `ETag`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<Tag>,
    /// What is wrong with a page of a search or a history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Page>,
    /// A read answers as before the last event.
    #[serde(skip_serializing_if = "is_default")]
    pub stale: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// It is closed before an answer.
    Drop,
    /// It is reset before an answer.
    Reset,
    /// It is closed in the middle of the body.
    Truncate,
    /// Nothing comes after half of the body.
    Stall,
}

/// A wrong `ETag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tag {
    /// That of the version before.
    Stale,
    /// None.
    Missing,
}

/// A wrong page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Page {
    /// The last entry comes twice.
    DuplicateEntry,
    /// The last entry is not there.
    MissingEntry,
    /// The link to the next page leads nowhere; where there is none, there is one.
    BrokenNext,
    /// The total is one more.
    WrongTotal,
}

/// Effects by name, with what they are good for.
pub const PRESETS: &[(&str, &str)] = &[
    ("slow", "the answer waits 1 to 2 s"),
    ("timeout", "the answer waits 60 s"),
    ("unavailable", "503 with Retry-After, nothing done"),
    ("too-many-requests", "429 with Retry-After, nothing done"),
    ("internal-error", "500, nothing done"),
    ("lost-answer", "what is asked for is done, and the connection closed before an answer"),
    ("failed-answer", "what is asked for is done, and the answer is 500"),
    ("drop", "the connection is closed before an answer, nothing done"),
    ("reset", "the connection is reset before an answer, nothing done"),
    ("truncated", "the connection is closed in the middle of the body"),
    ("stall", "nothing comes after half of the body"),
    ("slow-body", "the body comes at 1,000 bytes a second"),
    ("malformed", "the body is cut and still has the length that it says"),
    ("html", "an HTML page of a proxy with status 502"),
    ("wrong-content-type", "FHIR as text/plain"),
    ("stale-etag", "the ETag of the version before"),
    ("no-etag", "no ETag"),
    ("version-conflict", "412, as if another had changed the resource meanwhile, nothing done"),
    ("duplicate-entry", "the last entry of a page comes twice"),
    ("missing-entry", "the last entry of a page is not there"),
    ("broken-next", "the link to the next page leads nowhere"),
    ("wrong-total", "the total of a page is one more"),
    ("expired-token", "401 with WWW-Authenticate, nothing done"),
    ("stale-read", "a read answers as before the last event"),
];

impl Effect {
    fn preset(name: &str) -> Option<Self> {
        let refused = |status: u16, code: &str, text: &str, retry_after: Option<u64>| Self {
            status: Some(status),
            code: Some(code.to_owned()),
            text: Some(text.to_owned()),
            retry_after,
            ..Self::default()
        };
        let ends = |connection, performed| Self { connection: Some(connection), performed, ..Self::default() };
        let page = |page| Self { bundle: Some(page), ..Self::default() };
        Some(match name {
            "slow" => Self { delay_ms: 1_000, spread_ms: 1_000, ..Self::default() },
            "timeout" => Self { delay_ms: 60_000, ..Self::default() },
            "unavailable" => refused(503, "transient", "the server is not available now; try again later", Some(2)),
            "too-many-requests" => refused(429, "throttled", "too many requests; try again later", Some(2)),
            "internal-error" => refused(500, "exception", "the server made a mistake", None),
            "failed-answer" => Self { performed: true, ..refused(500, "exception", "the server made a mistake", None) },
            "lost-answer" => ends(Connection::Drop, true),
            "drop" => ends(Connection::Drop, false),
            "reset" => ends(Connection::Reset, false),
            "truncated" => ends(Connection::Truncate, true),
            "stall" => ends(Connection::Stall, true),
            "slow-body" => Self { bytes_per_second: Some(1_000), ..Self::default() },
            "malformed" => Self { malformed: true, ..Self::default() },
            "html" => {
                Self { content_type: Some("text/html".to_owned()), ..refused(502, "transient", "<html><body><h1>502 Bad Gateway</h1></body></html>", None) }
            }
            "wrong-content-type" => Self { content_type: Some("text/plain".to_owned()), ..Self::default() },
            "stale-etag" => Self { etag: Some(Tag::Stale), ..Self::default() },
            "no-etag" => Self { etag: Some(Tag::Missing), ..Self::default() },
            "version-conflict" => refused(412, "conflict", "another has changed the resource meanwhile; read it again", None),
            "duplicate-entry" => page(Page::DuplicateEntry),
            "missing-entry" => page(Page::MissingEntry),
            "broken-next" => page(Page::BrokenNext),
            "wrong-total" => page(Page::WrongTotal),
            "expired-token" => refused(401, "expired", "the token has expired", None),
            "stale-read" => Self { stale: true, ..Self::default() },
            _ => return None,
        })
    }
}

/// What a rule looks at of a request.
pub struct Looked<'a> {
    /// The interaction.
    pub interaction: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// The type that the URL names.
    pub type_name: Option<&'a str>,
    /// The parameters of the URL.
    pub parameters: &'a [(String, String)],
    /// The value of a header.
    pub header: &'a dyn Fn(&str) -> Option<String>,
}

/// A fault that befalls a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule that did it.
    pub rule: String,
    /// What it does.
    pub effect: Effect,
    /// How long the answer waits, in milliseconds.
    pub delay_ms: u64,
}

impl Rule {
    /// Whether there is a request that it can befall.
    fn can_befall(&self) -> bool {
        let effect = self.effect();
        let fits = |name: &String| (effect.bundle.is_none() || is_page(name)) && (!effect.stale || is_page(name) || matches!(name.as_str(), "read" | "vread"));
        self.matches.interaction.is_empty() || self.matches.interaction.iter().any(fits)
    }

    fn named(&self, at: usize) -> String {
        let preset = self.preset.as_deref().unwrap_or("rule");
        self.name.clone().unwrap_or_else(|| format!("{preset}-{at}"))
    }

    fn fits(&self, request: &Looked<'_>) -> bool {
        let m = &self.matches;
        let any = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v.eq_ignore_ascii_case(value));
        let parameter = |named: &Named| request.parameters.iter().any(|(n, v)| *n == named.name && named.value.as_ref().is_none_or(|wanted| wanted == v));
        let header = |named: &Named| (request.header)(&named.name).is_some_and(|v| named.value.as_ref().is_none_or(|wanted| *wanted == v));
        let is_read = is_page(request.interaction);
        // What would do nothing to a request does not befall it.
        let effect = self.effect();
        (effect.bundle.is_none() || is_read)
            && (!effect.stale || is_read || matches!(request.interaction, "read" | "vread"))
            && any(&m.interaction, request.interaction)
            && any(&m.method, request.method)
            && (m.type_name.is_empty() || request.type_name.is_some_and(|t| m.type_name.iter().any(|wanted| wanted == t)))
            && m.parameter.as_ref().is_none_or(parameter)
            && m.header.as_ref().is_none_or(header)
    }

    /// Whether it befalls the `number`th request that fits, from 1; and how long that one waits.
    fn befalls(&self, number: u64) -> Option<u64> {
        let m = &self.matches;
        let left = number.checked_sub(m.after).filter(|left| *left > 0)?;
        let chosen = m.nth.is_none_or(|nth| nth == left)
            && m.every.is_none_or(|every| left.is_multiple_of(every))
            && m.times.is_none_or(|times| left.div_ceil(m.every.unwrap_or(1)) <= times)
            && m.probability.is_none_or(|share| fraction(m.seed, number) < share);
        let effect = self.effect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "milliseconds, some minutes at most")]
        let spread = (fraction(m.seed.wrapping_add(1), number) * effect.spread_ms as f64) as u64;
        chosen.then_some(effect.delay_ms + spread)
    }

    fn effect(&self) -> Effect {
        self.preset.as_deref().and_then(Effect::preset).unwrap_or_else(|| self.effect.clone())
    }
}

/// Whether an interaction is answered with resources on pages.
fn is_page(interaction: &str) -> bool {
    interaction.starts_with("search") || interaction.starts_with("history") || matches!(interaction, "$everything" | "$lastn")
}

/// The `number`th of a sequence of numbers from 0 to below 1: splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
fn fraction(seed: u64, number: u64) -> f64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let high = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

/// Proves the rules of a simulator.
///
/// # Errors
/// What is wrong with which of them.
pub fn proven(rules: &[Rule]) -> Result<(), Failure> {
    if rules.len() > MAX_RULES {
        return Err(Failure::new(Kind::TooCostly, format!("{} faults; at most {MAX_RULES} are accepted", rules.len())));
    }
    for (at, rule) in rules.iter().enumerate() {
        let bad = |what: String| Err(Failure::new(Kind::BadValue, format!("fault {at}: {what}")).at(format!("faults[{at}]")));
        let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
        match &rule.preset {
            Some(preset) if Effect::preset(preset).is_none() => return bad(format!("preset '{}' is none of {}", clip(preset), names.join(", "))),
            Some(_) if rule.effect != Effect::default() => return bad("it has a preset and an effect; a rule has one of them".to_owned()),
            None if rule.effect == Effect::default() => return bad(format!("it has no effect; give one, or a preset: {}", names.join(", "))),
            _ => {}
        }
        let idle = Effect { retry_after: None, performed: false, text: None, code: None, ..rule.effect() };
        if idle == Effect::default() {
            return bad("retryAfter, performed, text and code are about the status, or the connection, that the effect has to have, too".to_owned());
        }
        let is_code = |code: &String| !code.is_empty() && code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if let Some(code) = rule.effect.code.iter().find(|code| !is_code(code)) {
            return bad(format!("code '{}' is none of http://hl7.org/fhir/issue-type, such as transient", clip(code)));
        }
        let name = rule.named(at);
        if rules[..at].iter().enumerate().any(|(other, rule)| rule.named(other) == name) {
            return bad(format!("another is called '{}', too; each needs a name of its own, by which it is counted", clip(&name)));
        }
        let (m, effect) = (&rule.matches, rule.effect());
        if let Some(Err(unknown)) = m.interaction.iter().map(|name| known_interaction(name)).find(Result::is_err) {
            return bad(unknown);
        }
        if !rule.can_befall() {
            return bad(format!("it is about pages of searches and histories, and of what is stale about reads, which {} is not", m.interaction.join(", ")));
        }
        if let Some(unknown) = m.method.iter().find(|method| !METHODS.iter().any(|known| known.eq_ignore_ascii_case(method))) {
            return bad(format!("method '{}' is none of {}", clip(unknown), METHODS.join(", ")));
        }
        if m.header.iter().chain(&m.parameter).any(|named| named.name.trim().is_empty()) {
            return bad("a header or parameter to match has a name".to_owned());
        }
        let is_type = |name: &String| FhirVersion::ALL.into_iter().any(|version| Definitions::of(version).find_resource_type(name).is_some());
        if let Some(unknown) = m.type_name.iter().find(|name| !is_type(name)) {
            return bad(format!("'{}' is a resource type of no version of FHIR", clip(unknown)));
        }
        if effect.status.is_some_and(|status| !(200..600).contains(&status)) {
            return bad(format!("status {} is not one from 200 to 599", effect.status.unwrap_or_default()));
        }
        if effect.delay_ms.saturating_add(effect.spread_ms) > MAX_DELAY_MS {
            return bad(format!("delayMs and spreadMs are more than {MAX_DELAY_MS} together"));
        }
        if effect.bytes_per_second == Some(0) || m.nth == Some(0) || m.every == Some(0) {
            return bad("bytesPerSecond, nth and every are from 1 on".to_owned());
        }
        if m.probability.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return bad("probability is not between 0 and 1".to_owned());
        }
        let legal = |text: &str| !text.is_empty() && text.len() <= 200 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
        if !rule.name.as_deref().is_none_or(legal) || !effect.content_type.as_deref().is_none_or(legal) {
            return bad("name and contentType have 1-200 printable characters of ASCII".to_owned());
        }
    }
    Ok(())
}

/// The methods of requests.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// How many requests have fitted each rule so far. They belong to the name of a simulator, as its log does.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<HashMap<String, u64>>>);

impl Counts {
    /// Begins anew: the rules are others.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// The fault that befalls a request, if one does. Each rule that a request fits counts it.
    #[must_use]
    pub fn decide(&self, rules: &[Rule], request: &Looked<'_>) -> Option<Fault> {
        if rules.is_empty() {
            return None;
        }
        let mut counts = self.0.lock();
        let mut found = None;
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.fits(request)) {
            let name = rule.named(at);
            let count = counts.entry(name.clone()).or_insert(0);
            *count += 1;
            if found.is_none() {
                found = rule.befalls(*count).map(|delay_ms| Fault { rule: name, effect: rule.effect(), delay_ms });
            }
        }
        found
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn befallen(rule: &str) -> Vec<usize> {
        let rules: Vec<Rule> = serde_json::from_str(&format!("[{rule}]")).unwrap_or_default();
        let counts = Counts::default();
        let looked = |interaction| Looked { interaction, method: "GET", type_name: Some("Patient"), parameters: &[], header: &|_| None };
        (1..=12).filter(|n| counts.decide(&rules, &looked(if *n == 5 { "vread" } else { "read" })).is_some()).collect()
    }

    #[test]
    fn rules_choose_their_requests() {
        for (matches, expected) in [
            ("{}", vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
            (r#"{"interaction":["vread"]}"#, vec![5]),
            (r#"{"interaction":["read"],"nth":5}"#, vec![6]),
            (r#"{"every":4}"#, vec![4, 8, 12]),
            (r#"{"every":4,"times":2}"#, vec![4, 8]),
            (r#"{"after":3,"times":2}"#, vec![4, 5]),
            (r#"{"type":["Group"]}"#, vec![]),
            (r#"{"method":["get"],"times":1}"#, vec![1]),
            (r#"{"probability":0}"#, vec![]),
            (r#"{"header":{"name":"x"}}"#, vec![]),
        ] {
            assert_eq!(befallen(&format!(r#"{{"match":{matches},"preset":"slow"}}"#)), expected, "{matches}");
        }
        let some = |seed: u64| befallen(&format!(r#"{{"match":{{"probability":0.5,"seed":{seed}}},"preset":"slow"}}"#));
        assert!((1..12).contains(&some(1).len()) && some(1) == some(1) && (2..9).any(|seed| some(seed) != some(1)));
    }

    #[test]
    fn every_preset_has_an_effect_and_passes() {
        for (name, _) in PRESETS {
            assert!(Effect::preset(name).is_some_and(|e| e != Effect::default()), "{name}");
            assert!(proven(&[Rule { preset: Some((*name).to_owned()), ..Rule::default() }]).is_ok(), "{name}");
        }
    }
}
