//! A Bundle of type history, posted: versions of one resource that come back or are replaced. The newest becomes current.
//! Only where the setting `historyModifications` allows it.

use serde_json::Value;

use super::super::rewrite::{self, Rewritten};
use super::super::target::Target;
use super::super::{Content, Done, Env, Reply, structure};
use super::entry::{self, RawEntry};
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, Resource, ResourceId, VersionId, instant, raw};
use crate::sim::{Rewrites, Snapshot, Validation, Versioning};
use crate::version::{Change, Version};

/// Most entries of a Bundle of type history.
const MAX_VERSIONS: usize = 100;

/// A version that is to be there.
struct Given {
    type_name: &'static str,
    id: ResourceId,
    version: Option<VersionId>,
    change: Change,
    modified_ms: i64,
    /// The resource as it came.
    text: Option<String>,
}

/// Inserts or replaces versions; the answer has no body.
///
/// # Errors
/// The setting does not allow it; an entry is broken, or of another resource.
pub fn perform(content: &Content, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let settings = snapshot.settings();
    if !settings.history_modifications || settings.versioning == Versioning::NoVersion {
        let message = if settings.history_modifications {
            "this simulator does not let its history be modified: its setting 'versioning' is no-version, so there is none"
        } else {
            "this simulator does not let its history be modified: its setting 'historyModifications' is false; with true it takes a Bundle of type history"
        };
        return Err(Failure::new(Kind::Forbidden, message).at("Bundle.type"));
    }
    let raw = entry::split(content)?;
    if raw.len() > MAX_VERSIONS {
        return Err(Failure::new(Kind::TooCostly, format!("the Bundle has {} versions; at most {MAX_VERSIONS} are accepted", raw.len())).at("Bundle.entry"));
    }
    let mut given = Vec::with_capacity(raw.len());
    for (at, raw) in raw.iter().enumerate() {
        let version = read(raw, snapshot.version()).map_err(|f| f.within(&super::named(at)))?;
        if let Some(first) = given.first().filter(|f: &&Given| f.type_name != version.type_name || f.id != version.id) {
            let message =
                format!("{}/{} is another resource than {}/{}; a Bundle is of the history of one", version.type_name, version.id, first.type_name, first.id);
            return Err(Failure::new(Kind::Invalid, message).within(&super::named(at)));
        }
        if version.modified_ms > env.now_ms {
            let message = "meta.lastUpdated lies in the future: what is written next would be older than this version";
            return Err(Failure::new(Kind::Invalid, message).within(&super::named(at)));
        }
        let same = |f: &&Given| match (f.version, version.version) {
            (Some(first), Some(second)) => first == second,
            _ => f.modified_ms == version.modified_ms,
        };
        if given.iter().any(|f| same(&f)) {
            let message = "another entry of the Bundle has the same versionId or the same lastUpdated; a version has its own";
            return Err(Failure::new(Kind::Invalid, message).within(&super::named(at)));
        }
        given.push(version);
    }
    let Some(first) = given.first() else { return Ok(Reply::new(Done::Ok)) };
    let (type_name, id) = (first.type_name, first.id.clone());
    // What an update would be refused for: it may become current.
    let is_looked_at = type_name == "SearchParameter" || snapshot.settings().validation != Validation::Off;
    let mut issues = structure::check_bundle(content, snapshot)?;
    for (at, (text, raw)) in given.iter().zip(&raw).enumerate().filter_map(|(at, (g, raw))| Some((at, (g.text.as_deref()?, raw)))).filter(|_| is_looked_at) {
        let resource: Value = serde_json::from_str(text).map_err(|e| Failure::new(Kind::Malformed, e.to_string()))?;
        let found = structure::check(&resource, raw.disorder(), snapshot).map_err(|f| f.within(&super::named(at)))?;
        issues.extend(found.into_iter().map(|mut issue| {
            issue.move_into(&format!("{}.resource", super::named(at)));
            issue
        }));
        if type_name == "SearchParameter" {
            snapshot.params_of(&resource, id.as_str()).map_err(|f| f.within(&super::named(at)))?;
        }
    }
    let history = merged(type_name, &id, given, snapshot)?;
    Ok(Reply { changes: rewrite::changes(type_name, &id, history, Rewrites::History, snapshot)?, issues, ..Reply::new(Done::Ok) })
}

fn read(entry: &RawEntry<'_>, fhir: FhirVersion) -> Result<Given, Failure> {
    let value = entry.value();
    let text = |part: &str, name: &str| value.get(part).and_then(|p| p.get(name)).and_then(Value::as_str);
    let url = text("request", "url").unwrap_or_default();
    let named = match Target::parse(url.split('?').next().unwrap_or_default(), Definitions::of(fhir)) {
        Ok(Target::Instance(type_name, id) | Target::Version(type_name, id, _)) => Some((type_name, id)),
        _ => None,
    };
    let resource = value.get("resource").map(|r| Resource::from_value(r.clone(), fhir)).transpose()?;
    let stated = resource.as_ref().and_then(|r| Some((r.type_name(), r.id()?.parse::<ResourceId>().ok()?)));
    let (type_name, id) = match (named, stated) {
        (Some(named), Some(stated)) if named != stated => {
            return Err(Failure::new(Kind::Invalid, format!("request.url is '{}', but the resource is {}/{}", clip(url), stated.0, stated.1)));
        }
        (_, Some(one)) | (Some(one), None) => one,
        (None, None) => return Err(Failure::new(Kind::Invalid, "neither request.url nor the resource says which resource this is a version of")),
    };
    let meta = |name: &str| resource.as_ref().and_then(|r| r.value().get("meta")?.get(name)?.as_str());
    let when = meta("lastUpdated").or_else(|| text("response", "lastModified"));
    let modified_ms = when.filter(|when| when.contains('T')).and_then(instant::parse).map(|i| i.low.div_euclid(1_000));
    let modified_ms = modified_ms.ok_or_else(|| {
        let found = when.map_or("missing".to_owned(), |when| format!("'{}', which is no instant", clip(when)));
        Failure::new(Kind::Invalid, format!("meta.lastUpdated or response.lastModified is {found}; an instant is needed, such as 2020-01-02T03:04:05Z"))
    })?;
    if modified_ms < 0 {
        return Err(Failure::new(Kind::Invalid, format!("'{}' is before 1970: no version here can be that old", clip(when.unwrap_or_default()))));
    }
    let etag = text("response", "etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    let version = meta("versionId").or(etag).map(number).transpose()?;
    let change = match text("request", "method") {
        Some("DELETE") => Change::Delete,
        Some("POST") => Change::Create,
        _ => Change::Update,
    };
    if (change == Change::Delete) == resource.is_some() {
        return Err(Failure::new(Kind::Invalid, "a version has a resource, a deletion has none"));
    }
    Ok(Given { type_name, id, version, change, modified_ms, text: entry.resource_text().map(str::to_owned) })
}

/// The number of a version.
fn number(text: &str) -> Result<VersionId, Failure> {
    let number = text.parse::<u64>().ok().filter(|n| (1..=MAX_NUMBER).contains(n));
    number.map(VersionId).ok_or_else(|| {
        let message = format!(
            "versionId '{}' is not a number from 1 to {MAX_NUMBER}, which is what versions are called here; leave it out to have it chosen",
            clip(text)
        );
        Failure::new(Kind::Invalid, message).at("meta.versionId")
    })
}

/// The greatest number of a version.
const MAX_NUMBER: u64 = 1_000_000_000_000_000;

/// What is there and what is given, oldest first. A version that has the number or the instant of one that is there replaces
/// it. The numbers stay if they ascend; else all are counted anew.
fn merged(type_name: &'static str, id: &ResourceId, given: Vec<Given>, snapshot: &Snapshot) -> Result<Vec<Rewritten>, Failure> {
    let mut all: Vec<(Rewritten, Option<String>)> = Vec::new();
    let versions = snapshot.versions(type_name, id);
    let is_there = |number: VersionId| versions.iter().any(|v| v.id == number);
    // Which of several is meant, only a number tells.
    let is_one_of_several = |g: &&Given| !g.version.is_some_and(is_there) && versions.iter().filter(|v| v.modified_ms == g.modified_ms).count() > 1;
    if let Some(unclear) = given.iter().find(is_one_of_several) {
        let message =
            format!("{type_name}/{id} has several versions of {}; meta.versionId must name the one that is meant", crate::clock::instant(unclear.modified_ms));
        return Err(Failure::new(Kind::Invalid, message).at("Bundle.entry.resource.meta.versionId"));
    }
    for version in &versions {
        // Versions may be of one instant: who names one means that.
        let means = |g: &Given| g.version == Some(version.id) || g.modified_ms == version.modified_ms && !g.version.is_some_and(is_there);
        if !given.iter().any(means) {
            all.push((Rewritten::of(type_name, version, snapshot)?, None));
        }
    }
    for new in given {
        let version = new.version.unwrap_or_default();
        // One that was there stays where it was.
        let is_it = |v: &&Version| v.modified_ms == new.modified_ms && new.version.is_none_or(|number| number == v.id);
        let made = versions.iter().find(is_it).map(|v| v.made);
        all.push((Rewritten { version, change: new.change, modified_ms: new.modified_ms, made, body: None }, new.text));
    }
    all.sort_by_key(|(v, _)| (v.modified_ms, v.version));
    let ascending = all.windows(2).all(|w| w[0].0.version < w[1].0.version) && all.first().is_some_and(|(v, _)| v.version.0 > 0);
    let numbered = (1..).zip(all).map(|(number, (mut version, text))| {
        if !ascending {
            version.version = VersionId(number);
        }
        let old = version.body.as_ref().and_then(|b| std::str::from_utf8(b).ok()).map(str::to_owned);
        version.body = text.or(old).map(|text| {
            let stamped = raw::with_identity(&text, id.as_str(), Some(&version.version.to_string()), &crate::clock::instant(version.modified_ms));
            stamped.into_bytes().into()
        });
        version
    });
    Ok(numbered.collect())
}
