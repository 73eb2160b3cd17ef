//! Edits of a JSON text that leave every other byte as it came.
//!
//! The text has been read by [`super::json::parse`] before, so these scanners need not judge it: they find spans. That
//! keeps key order, white space, `1.00` and `1e3` as the client wrote them, and is a hundred times cheaper than writing
//! a parsed value again.

use std::borrow::Cow;
use std::ops::Range;

use rustc_hash::FxHashMap;
use serde_json::Value;

/// One member of an object: spans of the key (with its quotes) and of the value.
#[derive(Clone, Debug)]
pub struct Member {
    /// The key, quotes included.
    pub key: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

impl Member {
    /// Whether the key is `name`, escapes undone.
    #[must_use]
    pub fn is(&self, text: &str, name: &str) -> bool {
        string(&text[self.key.clone()]) == name
    }
}

/// The members of the object that `text[at..]` begins with; spans are positions in `text`.
pub fn members(text: &str, at: usize) -> impl Iterator<Item = Member> + '_ {
    let mut here = skip_space(text, at) + 1;
    std::iter::from_fn(move || {
        here = skip_space(text, here);
        if byte(text, here) == b',' {
            here = skip_space(text, here + 1);
        }
        if byte(text, here) != b'"' {
            return None;
        }
        let key = here..skip_string(text, here);
        let start = skip_space(text, skip_space(text, key.end) + 1);
        let value = start..skip_value(text, start);
        here = value.end;
        Some(Member { key, value })
    })
}

/// The member `name` of the object that `text[at..]` begins with; what comes after it is not looked at.
#[must_use]
pub fn member(text: &str, at: usize, name: &str) -> Option<Range<usize>> {
    members(text, at).find(|m| m.is(text, name)).map(|m| m.value)
}

/// The elements of the array that `text[at..]` begins with.
#[must_use]
pub fn elements(text: &str, at: usize) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut here = skip_space(text, at) + 1;
    loop {
        here = skip_space(text, here);
        match byte(text, here) {
            b',' => here += 1,
            b']' | 0 => return found,
            _ => {
                let end = skip_value(text, here);
                found.push(here..end);
                here = end;
            }
        }
    }
}

/// A JSON string's content, escapes undone.
#[must_use]
pub fn string(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.strip_prefix('"').and_then(|s| s.strip_suffix('"')).unwrap_or(quoted);
    if inner.contains('\\') {
        return Cow::Owned(serde_json::from_str(quoted).unwrap_or_default());
    }
    Cow::Borrowed(inner)
}

/// `text` as a JSON string, quotes included.
#[must_use]
pub fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// The resource `body` with `id`, `meta.versionId` and `meta.lastUpdated` set and all else untouched; without a `version`,
/// `meta` has none.
///
/// `meta`, where there is one, is an object: [`super::Resource`] has proven it.
#[must_use]
pub fn with_identity(body: &str, id: &str, version: Option<&str>, last_updated: &str) -> String {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body).trim();
    let members: Vec<Member> = members(body, 0).collect();
    let find = |name: &str| members.iter().find(|m| m.is(body, name));
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut inserted = String::new();
    match find("id") {
        Some(m) => edits.push((m.value.clone(), quote(id))),
        None => inserted = format!(",\"id\":{}", quote(id)),
    }
    let stamps = [("versionId", version), ("lastUpdated", Some(last_updated))];
    if let Some(m) = find("meta") {
        edits.extend(meta_edits(body, m.value.start, stamps));
    } else {
        let all: Vec<String> = stamps.iter().filter_map(|(key, value)| Some(format!("\"{key}\":{}", quote((*value)?)))).collect();
        inserted.push_str(&format!(",\"meta\":{{{}}}", all.join(",")));
    }
    if let Some(m) = find("resourceType")
        && !inserted.is_empty()
    {
        edits.push((m.value.end..m.value.end, inserted));
    }
    apply(body, edits)
}

fn meta_edits(body: &str, at: usize, stamps: [(&str, Option<&str>); 2]) -> Vec<(Range<usize>, String)> {
    let inner: Vec<Member> = members(body, at).collect();
    let mut edits = Vec::new();
    let mut missing = Vec::new();
    let mut left = inner.len();
    for (key, value) in stamps {
        let place = inner.iter().position(|m| m.is(body, key));
        match (place, value) {
            (Some(at), Some(value)) => edits.push((inner[at].value.clone(), quote(value))),
            (Some(at), None) => {
                edits.push((span_of(&inner, at), String::new()));
                left -= 1;
            }
            (None, None) => {}
            (None, Some(value)) => missing.push(format!("\"{key}\":{}", quote(value))),
        }
    }
    if !missing.is_empty() {
        let comma = if left == 0 { "" } else { "," };
        edits.push((at + 1..at + 1, missing.join(",") + comma));
    }
    edits
}

/// The span of a member with the comma that goes when it goes.
fn span_of(members: &[Member], at: usize) -> Range<usize> {
    match (at.checked_sub(1), members.get(at + 1)) {
        (_, Some(next)) => members[at].key.start..next.key.start,
        (Some(before), None) => members[before].value.end..members[at].value.end,
        (None, None) => members[at].key.start..members[at].value.end,
    }
}

/// `text` with each span replaced; spans do not overlap.
#[must_use]
pub fn apply(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(span, _)| (span.start, span.end));
    let mut out = String::with_capacity(text.len() + edits.iter().map(|(_, new)| new.len()).sum::<usize>());
    let mut here = 0;
    for (span, new) in edits {
        out.push_str(&text[here..span.start]);
        out.push_str(&new);
        here = span.end;
    }
    out.push_str(&text[here..]);
    out
}

/// `value` as text. Its numbers are spelled as in the texts that it came from: the parser keeps every digit but has a way of
/// its own with exponents.
#[must_use]
pub fn write(value: &Value, sources: &[&str]) -> String {
    let mut spellings = Spellings::default();
    for text in sources {
        spellings.collect(text);
    }
    if spellings.0.is_empty() {
        return value.to_string();
    }
    let mut out = String::new();
    spellings.write(value, &mut out);
    out
}

/// Numbers with an exponent, by what the parser makes of them.
#[derive(Default)]
struct Spellings<'t>(FxHashMap<String, &'t str>);

impl<'t> Spellings<'t> {
    fn collect(&mut self, text: &'t str) {
        let mut here = 0;
        while here < text.len() {
            match byte(text, here) {
                b'"' => here = skip_string(text, here),
                b'-' | b'0'..=b'9' => {
                    let end = skip_value(text, here);
                    let number = &text[here..end];
                    if number.contains(['e', 'E'])
                        && let Ok(parsed) = serde_json::from_str::<serde_json::Number>(number)
                    {
                        self.0.insert(parsed.as_str().to_owned(), number);
                    }
                    here = end;
                }
                _ => here += 1,
            }
        }
    }

    fn write(&self, value: &Value, out: &mut String) {
        match value {
            Value::Number(number) => out.push_str(self.0.get(number.as_str()).copied().unwrap_or(number.as_str())),
            Value::Array(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    self.write(item, out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (n, (key, item)) in members.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    out.push_str(&quote(key));
                    out.push(':');
                    self.write(item, out);
                }
                out.push('}');
            }
            Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
        }
    }
}

/// Decides on a string value: given the keys that lead to it (an array has none of its own) and its content.
pub type Replace<'a> = dyn FnMut(&[Cow<'_, str>], &str) -> Option<String> + 'a;

/// Finds the string values that `replace` answers for. Returns the edits to [`apply`].
pub fn string_edits(text: &str, replace: &mut Replace<'_>) -> Vec<(Range<usize>, String)> {
    let mut edits = Vec::new();
    walk(text, skip_space(text, 0), &mut Vec::new(), replace, &mut edits);
    edits
}

fn walk<'t>(text: &'t str, at: usize, path: &mut Vec<Cow<'t, str>>, replace: &mut Replace<'_>, edits: &mut Vec<(Range<usize>, String)>) {
    match byte(text, at) {
        b'{' => {
            for m in members(text, at) {
                path.push(string(&text[m.key.clone()]));
                walk(text, m.value.start, path, replace, edits);
                path.pop();
            }
        }
        b'[' => {
            for span in elements(text, at) {
                walk(text, span.start, path, replace, edits);
            }
        }
        b'"' => {
            let span = at..skip_string(text, at);
            if let Some(new) = replace(path, &string(&text[span.clone()])) {
                edits.push((span, quote(&new)));
            }
        }
        _ => {}
    }
}

/// Where lines are laid out for a person, how deep they are set in at most: what is nested without end must not become endless.
pub(super) const MAX_INDENT: usize = 20;

/// The text with white space laid out for a person; everything else as it is.
#[must_use]
pub fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0_usize;
    let mut here = 0;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
    };
    while here < text.len() {
        let start = here;
        here += 1;
        match byte(text, start) {
            b'"' => {
                here = skip_string(text, start);
                out.push_str(&text[start..here]);
            }
            open @ (b'{' | b'[') => {
                out.push(char::from(open));
                let next = skip_space(text, here);
                if matches!(byte(text, next), b'}' | b']') {
                    out.push(char::from(byte(text, next)));
                    here = next + 1;
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            close @ (b'}' | b']') => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(char::from(close));
            }
            b',' => {
                out.push(',');
                line(&mut out, depth);
            }
            b':' => out.push_str(": "),
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                while here < text.len() && !matches!(byte(text, here), b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                    here += 1;
                }
                out.push_str(&text[start..here]);
            }
        }
    }
    out
}

/// The byte at `at`, 0 beyond the end.
fn byte(text: &str, at: usize) -> u8 {
    text.as_bytes().get(at).copied().unwrap_or(0)
}

fn skip_space(text: &str, mut at: usize) -> usize {
    while matches!(byte(text, at), b' ' | b'\t' | b'\n' | b'\r') {
        at += 1;
    }
    at
}

fn skip_string(text: &str, at: usize) -> usize {
    let mut here = at + 1;
    loop {
        match byte(text, here) {
            b'\\' => here += 2,
            b'"' => return here + 1,
            0 if here >= text.len() => return text.len(),
            _ => here += 1,
        }
    }
}

fn skip_value(text: &str, at: usize) -> usize {
    let mut depth = 0_usize;
    let mut here = at;
    loop {
        match byte(text, here) {
            b'"' => here = skip_string(text, here),
            b'{' | b'[' => {
                depth += 1;
                here += 1;
                continue;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                here += 1;
            }
            0 if here >= text.len() => return here,
            _ if depth > 0 => {
                here += 1;
                continue;
            }
            _ => {
                while !matches!(byte(text, here), b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') && here < text.len() {
                    here += 1;
                }
            }
        }
        if depth == 0 {
            return here;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(body: &str) -> String {
        with_identity(body, "7", Some("2"), "T")
    }

    #[test]
    fn identity_is_spliced_in() {
        assert_eq!(stamped(r#"{"resourceType":"A"}"#), r#"{"resourceType":"A","id":"7","meta":{"versionId":"2","lastUpdated":"T"}}"#);
        assert_eq!(
            stamped("{ \"x\" : 1.00 ,\n \"id\":\"old\", \"meta\":{\"tag\":[{\"a\":\"}\"}], \"versionId\" :\"9\"},\"resourceType\":\"A\" }\n"),
            "{ \"x\" : 1.00 ,\n \"id\":\"7\", \"meta\":{\"lastUpdated\":\"T\",\"tag\":[{\"a\":\"}\"}], \"versionId\" :\"2\"},\"resourceType\":\"A\" }"
        );
        assert_eq!(stamped(r#"{"meta":{},"resourceType":"A"}"#), r#"{"meta":{"versionId":"2","lastUpdated":"T"},"resourceType":"A","id":"7"}"#);
        // A key may be written with escapes, and a nested member of the same name is another thing.
        assert_eq!(
            stamped(r#"{"resourceType":"A","\u0069d":"x","sub":{"id":"y","meta":1}}"#),
            r#"{"resourceType":"A","meta":{"versionId":"2","lastUpdated":"T"},"\u0069d":"7","sub":{"id":"y","meta":1}}"#
        );
    }

    #[test]
    fn a_version_that_is_not_shown_leaves_no_trace() {
        for (meta, expected) in [
            (r#"{"versionId":"9"}"#, r#"{"lastUpdated":"T"}"#),
            (r#"{"versionId":"9","tag":[]}"#, r#"{"lastUpdated":"T","tag":[]}"#),
            (r#"{"tag":[], "versionId" : "9" }"#, r#"{"lastUpdated":"T","tag":[] }"#),
            (r#"{"lastUpdated":"U","versionId":"9"}"#, r#"{"lastUpdated":"T"}"#),
        ] {
            let body = format!(r#"{{"resourceType":"A","id":"7","meta":{meta}}}"#);
            assert_eq!(with_identity(&body, "7", None, "T"), format!(r#"{{"resourceType":"A","id":"7","meta":{expected}}}"#), "{meta}");
        }
        assert_eq!(with_identity(r#"{"resourceType":"A"}"#, "7", None, "T"), r#"{"resourceType":"A","id":"7","meta":{"lastUpdated":"T"}}"#);
    }

    #[test]
    fn spans_are_found() {
        let text = r#" { "a" : [ 1e3 , "x\"]" , { } , [] , true ] , "b":null }"#;
        let a = member(text, 0, "a").unwrap_or_default();
        let parts: Vec<&str> = elements(text, a.start).into_iter().map(|s| &text[s]).collect();
        assert_eq!(parts, ["1e3", r#""x\"]""#, "{ }", "[]", "true"]);
        assert_eq!(member(text, 0, "b").map(|s| &text[s]), Some("null"));
    }

    #[test]
    fn numbers_are_written_as_they_were_spelled() {
        let text = r#"{"a":[1.00,1e3,-1.5E+02,0],"b":"1e3"}"#;
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        assert_eq!(write(&value, &["{}", text]), text);
        assert_eq!(write(&value, &[r#"{"e":"1e3"}"#]), value.to_string());
    }

    #[test]
    fn pretty_moves_white_space_only() {
        assert_eq!(pretty(r#"{"a":[1.00,{}, [ ],"x:{y"],"b":1e3 }"#), "{\n  \"a\": [\n    1.00,\n    {},\n    [],\n    \"x:{y\"\n  ],\n  \"b\": 1e3\n}");
    }

    #[test]
    fn strings_are_rewritten_in_place() {
        let text = r#"{"reference":"urn:x","n":1.0,"list":["urn:x","k"],"text":"urn:x"}"#;
        let edits = string_edits(text, &mut |path, s| (path[0] != "text" && s == "urn:x").then(|| "P/1".to_owned()));
        assert_eq!(apply(text, edits), r#"{"reference":"P/1","n":1.0,"list":["P/1","k"],"text":"urn:x"}"#);
    }

    proptest::proptest! {
        #[test]
        fn any_object_stays_what_it_was(keys in proptest::collection::btree_map(".{0,6}", ".{0,9}", 0..6)) {
            let mut object = serde_json::Map::new();
            object.insert("resourceType".into(), "A".into());
            for (k, v) in &keys {
                object.entry(k.clone()).or_insert(v.clone().into());
            }
            object.shift_remove("meta");
            let pretty = serde_json::to_string_pretty(&object).unwrap_or_default();
            let mut after: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&stamped(&pretty)).unwrap_or_default();
            proptest::prop_assert_eq!(after.shift_remove("id"), Some("7".into()));
            proptest::prop_assert!(after.shift_remove("meta").is_some());
            object.shift_remove("id");
            proptest::prop_assert_eq!(after, object);
        }
    }
}
