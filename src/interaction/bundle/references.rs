//! References between the entries of a transaction, rewritten to the ids that their targets get.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use rustc_hash::FxHashMap;
use serde_json::Value;

use super::super::Content;
use super::links::{self, Link};
use crate::fhir::id::clip;
use crate::fhir::reference::Reference;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, Resource, VersionId, raw};

/// What references shall say instead.
pub struct Renames {
    definitions: &'static Definitions,
    /// By `fullUrl`.
    full: FxHashMap<String, Renamed>,
    /// By the `Type/id` that a RESTful `fullUrl` ends in, for entries that have no base of their own.
    relative: FxHashMap<String, Renamed>,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// `Type/id`.
    pub uid: String,
    /// The version that was current before, and that the entry makes or finds, where versions have numbers.
    pub versions: Option<(VersionId, VersionId)>,
}

impl Renamed {
    /// What a reference to a version of it says: one that was there before stays, any other is the one that is made,
    /// <https://hl7.org/fhir/R4/http.html#trules>.
    fn at(&self, version: Option<&str>) -> String {
        let (Some(named), Some((before, made))) = (version, self.versions) else { return self.uid.clone() };
        let was_there = named.parse().ok().filter(|named: &VersionId| named.0 > 0 && *named <= before);
        format!("{}/_history/{}", self.uid, was_there.unwrap_or(made))
    }
}

impl Renames {
    pub fn new(definitions: &'static Definitions) -> Self {
        Self { definitions, full: FxHashMap::default(), relative: FxHashMap::default() }
    }

    /// Entries with `full_url` are about a resource.
    pub fn add(&mut self, full_url: &str, renamed: &Renamed) -> Result<(), Failure> {
        if let Some((_, relative)) = self.split_base(full_url) {
            self.relative.insert(relative.to_owned(), renamed.clone());
        }
        match self.full.insert(plain(full_url), renamed.clone()) {
            Some(other) if other.uid != renamed.uid => {
                Err(Failure::new(Kind::Invalid, format!("fullUrl '{}' is that of another entry too; each entry needs its own", clip(full_url))).at("fullUrl"))
            }
            _ => Ok(()),
        }
    }

    /// `http://host/fhir/` and `Patient/1` of a RESTful URL.
    fn split_base<'u>(&self, url: &'u str) -> Option<(&'u str, &'u str)> {
        let (before, _) = url.rsplit_once('/')?;
        let start = before.rfind('/').map_or(0, |at| at + 1);
        self.definitions.find_resource_type(&before[start..]).map(|_| url.split_at(start))
    }

    /// Rewrites the references of a resource, the conditional ones by what `find` finds, if it looks. Besides references these are elements
    /// of type uri, url, oid and uuid, and links of the narrative and of Markdown; canonicals are left alone,
    /// <https://hl7.org/fhir/R4/http.html#trules>. Of a patch, `patched` is the type of what it changes.
    pub fn rewrite(
        &self,
        content: &mut Content,
        full_url: Option<&str>,
        patched: Option<&'static str>,
        version: FhirVersion,
        mut find: impl FnMut(&'static str, &str) -> Result<Option<String>, Failure>,
    ) -> Result<(), Failure> {
        let base = full_url.and_then(|url| self.split_base(url)).map_or("", |(base, _)| base);
        let type_name = content.resource.type_name();
        let mut failed = None;
        let mut refers = |text: &str| {
            if let Some(uid) = self.target(text, base) {
                return Some(uid);
            }
            match Reference::parse(text, self.definitions) {
                Reference::Conditional { type_name, query } => {
                    let type_name = self.definitions.find_resource_type(type_name)?;
                    find(type_name, query).unwrap_or_else(|f| {
                        failed = Some((text.to_owned(), f));
                        None
                    })
                }
                // A misspelled type.
                Reference::Other(text) if text.split_once('?').is_some_and(|(head, _)| !head.is_empty() && head.bytes().all(|b| b.is_ascii_alphabetic())) => {
                    let head = text.split('?').next().unwrap_or_default();
                    let refused = |f: Failure| {
                        let diagnostics = format!("the conditional reference '{}': {}", clip(text), f.diagnostics);
                        (text.to_owned(), Failure { kind: Kind::Invalid, diagnostics, ..f })
                    };
                    failed = self.definitions.resource_type(head).err().map(refused);
                    None
                }
                Reference::Local { .. } | Reference::Contained(_) | Reference::Other(_) => None,
            }
        };
        let mut is_given = false;
        if patched.is_some() && type_name == "Parameters" {
            let mut parameters = content.resource.value().clone();
            is_given = rewrite_given(&mut parameters, &mut refers);
            if is_given {
                content.text = parameters.to_string();
            }
        }
        let mut rewritten = |of: &'static str, path: &[Cow<'_, str>], text: &str| {
            let key = path.last().map_or("", |k| &**k);
            // What a Bundle holds refers to what is in it, and is not this server's.
            if of == "Bundle" && path.first().is_some_and(|first| first == "entry") {
                return None;
            }
            if key == "div" {
                return self.relinked(text, links::in_xhtml(text), base);
            }
            if key != "reference" {
                if let Some(Renamed { uid, .. }) = self.full.get(&plain(text)) {
                    return matches!(self.type_at(of, path), Some("uri" | "url" | "oid" | "uuid")).then(|| uid.clone());
                }
                // Looked at only where there is a link at all.
                let may = text.contains("](") || text.contains("]:") || text.contains('<');
                let is_markdown = may && self.type_at(of, path) == Some("markdown");
                return is_markdown.then(|| self.relinked(text, links::in_markdown(text), base)).flatten();
            }
            refers(text)
        };
        let edits = match patched.filter(|_| type_name == "Binary").and_then(|of| Some((of, json_patch_in(&content.text)?))) {
            Some((of, (data, patch))) => {
                let edits = patch_edits(&patch, &mut |path, text| rewritten(of, path, text));
                let encoded = || base64::engine::general_purpose::STANDARD.encode(raw::apply(&patch, edits.clone()));
                if edits.is_empty() { Vec::new() } else { vec![(data, raw::quote(&encoded()))] }
            }
            None => raw::string_edits(&content.text, &mut |path, text| rewritten(type_name, path, text)),
        };
        if let Some((text, failure)) = failed {
            let mut place = type_name.to_owned();
            return Err(if find_text(content.resource.value(), &text, &mut place) { failure.at(place) } else { failure });
        }
        if !edits.is_empty() || is_given {
            content.text = raw::apply(&content.text, edits);
            content.resource = Resource::parse(content.text.as_bytes(), version)?;
        }
        Ok(())
    }

    /// The resource that a reference within an entry at `base` means, if it is one of the Bundle's.
    fn target(&self, text: &str, base: &str) -> Option<String> {
        let (text, version) = text.split_once("/_history/").map_or((text, None), |(resource, version)| (resource, Some(version)));
        let found = self.full.get(&plain(text));
        // A relative reference is relative to the entry that holds it.
        let found = found.or_else(|| if base.is_empty() { self.relative.get(text) } else { self.full.get(&format!("{base}{text}")) });
        found.map(|renamed| renamed.at(version))
    }

    /// A text with the links in it that lead to the Bundle's resources rewritten, if there are any.
    fn relinked(&self, text: &str, links: Vec<Link<'_>>, base: &str) -> Option<String> {
        let instead = |(span, target): (Range<usize>, Cow<'_, str>)| {
            let uid = self.target(&target, base)?;
            let is_autolink = text[span.clone()].starts_with('<');
            Some((span, if is_autolink { format!("[{uid}]({uid})") } else { uid }))
        };
        let edits: Vec<_> = links.into_iter().filter_map(instead).collect();
        (!edits.is_empty()).then(|| raw::apply(text, edits))
    }

    /// The type of the element that `path` leads to, as far as the definitions tell.
    fn type_at(&self, type_name: &'static str, path: &[Cow<'_, str>]) -> Option<&'static str> {
        let (mut base, mut prefix) = (type_name, String::new());
        let mut found = None;
        for key in path {
            let def = self.definitions.type_def(base)?;
            let full = if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
            let types = match def.element(&full) {
                Some(element) => element.types,
                // A choice: the name says which type it is.
                None => def.elements.iter().find_map(|element| {
                    let suffix = full.strip_prefix(element.path.strip_suffix("[x]")?)?;
                    element.types.split('|').find(|t| t.eq_ignore_ascii_case(suffix))
                })?,
            };
            match types.strip_prefix('#') {
                Some(path) => path.clone_into(&mut prefix),
                None if matches!(types, "BackboneElement" | "Element") => prefix = full,
                None => {
                    (base, prefix) = (types, String::new());
                    found = Some(types);
                }
            }
        }
        found
    }
}

/// Rewrites the references that a FHIRPath Patch gives as texts: for an element `reference` that a path ends in, or that a part is
/// called. Whether there were any.
fn rewrite_given(parameters: &mut Value, refers: &mut impl FnMut(&str) -> Option<String>) -> bool {
    let mut any = false;
    for operation in list_of(parameters, "parameter") {
        let parts = list_of(operation, "part");
        let said = |name: &str| parts.iter().find(|part| part["name"] == *name).and_then(text_in).unwrap_or_default();
        // What chooses one of one changes nothing.
        let path = [".first()", ".last()", ".single()", "[0]"].iter().fold(said("path").trim().to_owned(), |path, end| path.trim_end_matches(end).to_owned());
        let is_reference = path.ends_with(".reference") || said("name") == "reference";
        for value in parts.iter_mut().filter(|part| part["name"] == "value") {
            any |= is_reference && rewrite_text(value, refers);
            any |= rewrite_parts(value, refers);
        }
    }
    any
}

/// The same in the parts of a value.
fn rewrite_parts(value: &mut Value, refers: &mut impl FnMut(&str) -> Option<String>) -> bool {
    let mut any = false;
    for part in list_of(value, "part") {
        any |= part["name"] == "reference" && rewrite_text(part, refers);
        any |= rewrite_parts(part, refers);
    }
    any
}

fn rewrite_text(part: &mut Value, refers: &mut impl FnMut(&str) -> Option<String>) -> bool {
    let Some(new) = text_in(part).and_then(|text| refers(&text)) else { return false };
    let members = part.as_object_mut().into_iter().flatten().find(|(key, _)| key.starts_with("value"));
    members.map(|(_, value)| *value = new.into()).is_some()
}

fn list_of<'v>(value: &'v mut Value, name: &str) -> &'v mut [Value] {
    value.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}

/// Goes on to the first place below `place` that says `text`, if there is one.
fn find_text(value: &Value, text: &str, place: &mut String) -> bool {
    let before = place.len();
    let mut is_below = |step: &str, inner: &Value| {
        place.truncate(before);
        place.push_str(step);
        find_text(inner, text, place)
    };
    match value {
        Value::String(own) => own == text,
        Value::Array(items) => items.iter().enumerate().any(|(at, item)| is_below(&format!("[{at}]"), item)),
        Value::Object(members) => members.iter().any(|(key, inner)| is_below(&format!(".{key}"), inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn text_in(part: &Value) -> Option<String> {
    part.as_object()?.iter().find(|(key, _)| key.starts_with("value"))?.1.as_str().map(str::to_owned)
}

/// The JSON Patch or JSON Merge Patch in a Binary, and where in its text that is.
fn json_patch_in(text: &str) -> Option<(Range<usize>, String)> {
    let string = |name: &str| raw::member(text, 0, name).map(|span| (span.clone(), raw::string(&text[span]).into_owned()));
    string("contentType").filter(|(_, media)| media.contains("-patch+json"))?;
    let (span, data) = string("data")?;
    let compact: String = data.split_ascii_whitespace().collect();
    let patch = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(compact).ok()?).ok()?;
    // What is no JSON is refused when it is applied.
    serde_json::from_str::<serde::de::IgnoredAny>(&patch).ok()?;
    Some((span, patch))
}

/// What `replace` makes of the strings of a patch, given the keys that lead to where they are put.
fn patch_edits(patch: &str, replace: &mut raw::Replace<'_>) -> Vec<(Range<usize>, String)> {
    if !patch.trim_start().starts_with('[') {
        return raw::string_edits(patch, replace);
    }
    let mut edits = Vec::new();
    for operation in raw::elements(patch, 0).into_iter().filter(|span| patch[span.clone()].starts_with('{')) {
        let member = |name: &str| raw::member(patch, operation.start, name);
        let (Some(path), Some(value)) = (member("path").filter(|span| patch[span.clone()].starts_with('"')), member("value")) else { continue };
        let pointer = raw::string(&patch[path]);
        // Positions in arrays are no keys.
        let is_key = |part: &&str| *part != "-" && !part.bytes().all(|b| b.is_ascii_digit());
        let keys: Vec<Cow<'_, str>> = pointer.split('/').filter(is_key).map(|part| part.replace("~1", "/").replace("~0", "~").into()).collect();
        let found = raw::string_edits(&patch[value.clone()], &mut |inner, text| replace(&[&keys[..], inner].concat(), text));
        edits.extend(found.into_iter().map(|(span, new)| (span.start + value.start..span.end + value.start, new)));
    }
    edits
}

/// A URL as it is compared: the digits of a UUID have no case.
fn plain(url: &str) -> String {
    if url.starts_with("urn:uuid:") { url.to_ascii_lowercase() } else { url.to_owned() }
}
