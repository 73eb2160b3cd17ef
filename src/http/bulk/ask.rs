//! What is asked for when an export is begun.

use actix_web::http::Method;
use actix_web::web::Bytes;
use serde_json::Value;

use super::{Knobs, Level, Result, bad, group};
use crate::fhir::id::clip;
use crate::fhir::subset;
use crate::fhir::{Definitions, Failure, Kind, ResourceId, instant};
use crate::http::policy::{self, Bearer, Need};
use crate::interaction::target::pairs;
use crate::sim::Snapshot;
use crate::sim::bulk::export::{Associated, MAX_FILES, OfType, Order, Whose};
use crate::sim::profile::{Bulk, Ig};
use crate::smart::{Verdict, allows};

/// A request that begins something, for other threads.
pub struct Asked {
    pub method: Method,
    pub accept: String,
    pub content_type: String,
    pub prefer: String,
    pub query: String,
    pub url: String,
    pub body: Bytes,
}

/// What an export shall be, and how its client wants to be told of it.
pub struct Wanted {
    pub order: Order,
    /// Several manifests, and early ones.
    pub partial: bool,
    /// The types that the group's filters search.
    pub searched: Vec<&'static str>,
}

impl Asked {
    /// What the headers must say; the reference server insists on all of it.
    pub fn headers(&self, insists: bool) -> Result<()> {
        let accepts = |name: &str| self.accept.split(',').any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(name));
        if !(accepts("application/fhir+json") || !insists && (self.accept.is_empty() || accepts("application/json") || accepts("*/*"))) {
            return Err(
                bad(format!("Accept '{}' is not application/fhir+json, which is what an export is answered with", clip(&self.accept))).at("http.Accept")
            );
        }
        if !self.prefers("respond-async") && (insists || !self.prefer.trim().is_empty() && self.prefer.contains("respond-")) {
            return Err(bad("an export is asynchronous; send Prefer: respond-async".to_owned()).at("http.Prefer"));
        }
        Ok(())
    }

    pub fn prefers(&self, what: &str) -> bool {
        self.prefer.split([',', ';']).any(|part| part.trim() == what)
    }

    /// Whether some patients are chosen by their ids.
    pub fn chooses_patients(&self) -> Result<bool> {
        Ok(self.parameters()?.iter().any(|(name, _)| name == "patient"))
    }

    fn is_lenient(&self) -> bool {
        self.prefers("handling=lenient")
    }

    /// The parameters, of the URL or of the Parameters resource that was posted.
    fn parameters(&self) -> Result<Vec<(String, String)>> {
        if self.method == Method::GET {
            return Ok(pairs(&self.query));
        }
        if self.method != Method::POST {
            return Err(not_allowed(&self.method, "GET, POST"));
        }
        let mut found = pairs(&self.query);
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(found);
        }
        let posted = posted(&self.body, "$export")?;
        let all = match &posted["parameter"] {
            Value::Null => return Ok(found),
            Value::Array(all) => all,
            _ => return Err(bad("Parameters.parameter is no array".to_owned()).at("Parameters.parameter")),
        };
        for (at, parameter) in all.iter().enumerate() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let text = match value_of(parameter) {
                Some(Value::String(text)) => Some(text.clone()),
                Some(Value::Object(reference)) if name == "patient" => reference.get("reference").and_then(Value::as_str).map(str::to_owned),
                Some(value @ (Value::Bool(_) | Value::Number(_))) => Some(value.to_string()),
                _ => None,
            };
            // One that is not understood must not widen what is exported.
            let text = text.filter(|text| !text.is_empty()).ok_or_else(|| {
                let wanted = if name == "patient" { "valueReference with a reference" } else { "value, such as valueString" };
                bad(format!("parameter '{}' has no {wanted}", clip(name))).at(format!("Parameters.parameter[{at}]"))
            })?;
            found.push((name.to_owned(), text));
        }
        Ok(found)
    }
}

fn not_allowed(method: &Method, allow: &'static str) -> Failure {
    Failure { allow: Some(allow), ..Failure::new(Kind::MethodNotAllowed, format!("{method} is not allowed here; {allow} begins an export")) }
}

/// The Parameters resource in a body.
pub fn posted(body: &[u8], operation: &str) -> Result<Value> {
    let value: Value = serde_json::from_slice(body).map_err(|e| Failure::new(Kind::Malformed, format!("the body is no JSON: {e}")))?;
    if value["resourceType"] == "Parameters" { Ok(value) } else { Err(bad(format!("the body of {operation} is a Parameters resource"))) }
}

/// The value of a parameter, whatever its type.
pub fn value_of(parameter: &Value) -> Option<&Value> {
    parameter.as_object()?.iter().find(|(key, _)| key.starts_with("value")).map(|(_, value)| value)
}

/// What the order is read into.
struct Reading<'a> {
    asked: &'a Asked,
    level: &'a Level,
    snapshot: &'a Snapshot,
    now_ms: i64,
    ig: Ig,
    order: Order,
    chosen: Option<Vec<String>>,
    partial: bool,
    /// Whether filters may lead to resources of any type.
    may_lead: bool,
}

/// What a request asks for.
///
/// # Errors
/// It cannot be understood, is not supported, or would have too many files.
pub fn order(asked: &Asked, level: &Level, snapshot: &Snapshot, now_ms: i64, ig: Ig, may_lead: bool) -> Result<Wanted> {
    if ig == Ig::V4 && asked.method == Method::GET {
        return Err(not_allowed(&asked.method, "POST"));
    }
    let mut reading = Reading { asked, level, snapshot, now_ms, ig, order: Order::default(), chosen: None, partial: false, may_lead };
    for (name, value) in asked.parameters()? {
        reading.parameter(&name, &value)?;
    }
    let Reading { mut order, chosen, partial, .. } = reading;
    let (whose, searched) = whose(level, chosen, snapshot, now_ms)?;
    order.whose = whose;
    if let Level::Group(id) = level {
        order.group = Some(id.to_string());
    }
    let definitions = snapshot.definitions();
    let members = definitions.compartment_types("Patient");
    let belongs = |t: &String| *level == Level::System || t == "Patient" || members.is_some_and(|members| members.contains_key(t.as_str()));
    let all = || definitions.resource_types().iter().map(|t| (*t).to_owned()).collect();
    if let Some(stranger) = order.types.iter().find(|t| !belongs(t)).cloned() {
        let message =
            format!("_type: {stranger} does not belong to patients, and this export is of what belongs to them; ask at the system level, [base]/$export");
        // What remains is exported all the same.
        if order.types.iter().any(&belongs) { order.notes.push(message) } else { return Err(bad(message)) }
    }
    order.gone = if order.types.is_empty() { all() } else { order.types.clone() };
    order.gone.retain(belongs);
    order.types = those(std::mem::take(&mut order.types), &order.filters, snapshot);
    order.types.retain(|t| belongs(t) && !(order.associated.is_some() && t == "Provenance"));
    Ok(Wanted { order, partial, searched })
}

impl Reading<'_> {
    /// The values of a parameter that may be repeated.
    fn several<'v>(&self, name: &str, value: &'v str) -> Result<Vec<&'v str>> {
        if self.ig == Ig::V4 && value.contains(',') {
            return Err(bad(format!("{name} '{}' has a comma; version 4.0 of the guide repeats the parameter instead", clip(value))));
        }
        Ok(value.split(',').map(str::trim).filter(|one| !one.is_empty()).collect())
    }

    fn pass_over(&mut self, message: String) -> Result<()> {
        if !self.asked.is_lenient() {
            return Err(bad(format!("{message}; with Prefer: handling=lenient it is passed over and reported")));
        }
        self.order.notes.push(message);
        Ok(())
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<()> {
        let is_of_later = matches!(name, "_until" | "organizeOutputBy" | "allowPartialManifests");
        if is_of_later && self.ig == Ig::V2 {
            return self.pass_over(format!("parameter '{name}' came with version 3.0 of the guide, and this simulator follows 2.0 (setting bulk.ig)"));
        }
        match name {
            // A plus that a client forgot to encode arrives as a blank.
            "_outputFormat" | "outputFormat" if matches!(&*value.replace(' ', "+"), "application/fhir+ndjson" | "application/ndjson" | "ndjson") => {}
            "_outputFormat" | "outputFormat" => return Err(bad(format!("_outputFormat '{}' is not application/fhir+ndjson", clip(value)))),
            "_since" => self.order.since_ms = Some(moment("_since", value, self.now_ms)?),
            "_until" => self.order.until_ms = Some(moment("_until", value, i64::MAX)?),
            "_type" => {
                for one in self.several(name, value)? {
                    match self.snapshot.definitions().resource_type(one) {
                        Ok(type_name) => self.order.types.push(type_name.to_owned()),
                        Err(failure) if self.asked.is_lenient() => self.order.notes.push(format!("_type: {}", failure.diagnostics)),
                        Err(failure) => return Err(bad(format!("_type: {}", failure.diagnostics))),
                    }
                }
                // Of no type is not of all.
                if self.order.types.is_empty() {
                    return Err(bad(format!("_type '{}' names no resource type; leave it out to export all", clip(value))));
                }
            }
            "_elements" => {
                for one in self.several(name, value)? {
                    let definitions = self.snapshot.definitions();
                    if !subset::is_element(one, definitions.resource_types(), definitions) {
                        self.pass_over(format!("_elements: '{}' is no element of a resource type", clip(one)))?;
                        continue;
                    }
                    let (of, name) = one.split_once('.').map_or((None, one), |(of, name)| (Some(of.to_owned()), name));
                    self.order.elements.push((of, name.to_owned()));
                }
            }
            "_typeFilter" => self.filter(value)?,
            "patient" => self.patients(value)?,
            "includeAssociatedData" => {
                for one in self.several(name, value)? {
                    match one {
                        "RelevantProvenanceResources" => self.order.associated = Some(Associated::RelevantProvenanceResources),
                        "LatestProvenanceResources" => {
                            self.order.associated.get_or_insert(Associated::LatestProvenanceResources);
                        }
                        other => {
                            let known = "LatestProvenanceResources and RelevantProvenanceResources";
                            self.pass_over(format!("includeAssociatedData '{}' is not supported; {known} are", clip(other)))?;
                        }
                    }
                }
            }
            "organizeOutputBy" => {
                let by = self.snapshot.definitions().resource_type(value.trim()).map_err(|f| bad(format!("organizeOutputBy: {}", f.diagnostics)))?;
                self.order.organized_by = Some(by.to_owned());
            }
            "allowPartialManifests" => {
                let message = || bad(format!("allowPartialManifests '{}' is neither true nor false", clip(value)));
                self.partial = value.trim().parse().map_err(|_| message())?;
            }
            "_format" | "_pretty" => {}
            other => self.pass_over(format!("parameter '{}' is not supported by this export", clip(other)))?,
        }
        Ok(())
    }

    fn filter(&mut self, value: &str) -> Result<()> {
        let definitions = self.snapshot.definitions();
        let all = if self.ig == Ig::V4 { vec![filter(value, definitions)?] } else { filters(value, definitions)? };
        for (type_name, pairs) in all {
            let name = definitions.resource_type(&type_name)?;
            let proven = if self.may_lead { policy::search_of } else { policy::condition };
            proven(&pairs, name, self.snapshot, self.now_ms).map_err(|f| bad(format!("_typeFilter of {name}: {}", f.diagnostics)))?;
            self.order.filters.push((type_name, pairs));
        }
        Ok(())
    }

    fn patients(&mut self, value: &str) -> Result<()> {
        if self.asked.method != Method::POST || *self.level == Level::System {
            return Err(bad("patient chooses among patients: it is for POST, and for Patient/$export or Group/[id]/$export".to_owned()));
        }
        let mut chosen = self.chosen.take().unwrap_or_default();
        for one in self.several("patient", value)? {
            let own = self.snapshot.origin().local_part(one).unwrap_or(one);
            let id = own.strip_prefix("Patient/").unwrap_or(own);
            let id: ResourceId = id.parse().map_err(|_| bad(format!("patient '{}' is no reference such as Patient/123", clip(one))))?;
            if self.snapshot.latest("Patient", &id).is_none_or(|v| v.is_deletion()) {
                return Err(bad(format!("patient: there is no Patient/{id} in this simulator")));
            }
            chosen.push(id.to_string());
        }
        self.chosen = Some(chosen);
        Ok(())
    }
}

/// Whose resources are exported, and which types were searched to know that.
fn whose(level: &Level, chosen: Option<Vec<String>>, snapshot: &Snapshot, now_ms: i64) -> Result<(Whose, Vec<&'static str>)> {
    let Level::Group(id) = level else {
        let all = if *level == Level::System { Whose::Anyones } else { Whose::Patients };
        return Ok((chosen.map_or(all, Whose::Of), Vec::new()));
    };
    let group::Members { patients, searched } = group::members(id, snapshot, now_ms)?;
    if let Some(stranger) = chosen.iter().flatten().find(|id| !patients.contains(*id)) {
        return Err(bad(format!("patient: Patient/{stranger} is no member of Group/{id}")));
    }
    Ok((Whose::Of(chosen.unwrap_or_else(|| patients.into_iter().collect())), searched.into_iter().collect()))
}

/// The types that are exported: those that are asked for, else all of which there is something.
fn those(asked: Vec<String>, filters: &[OfType], snapshot: &Snapshot) -> Vec<String> {
    let mut types = asked;
    if types.is_empty() {
        types = snapshot.counts().map(|(there, _)| there.to_owned()).collect();
        types.extend(filters.iter().map(|(t, _)| t.clone()));
    }
    types.sort_unstable();
    types.dedup();
    types
}

/// An instant, not in the future.
fn moment(name: &str, text: &str, latest_ms: i64) -> Result<i64> {
    // A plus that a client forgot to encode arrives as a blank.
    let found = instant::parse(&text.replace(' ', "+")).map(|interval| interval.low.div_euclid(1_000));
    let ms = found.ok_or_else(|| bad(format!("{name} '{}' is no instant such as 2026-11-26T10:00:00Z", clip(text))))?;
    if ms > latest_ms {
        return Err(bad(format!("{name} '{}' lies in the future", clip(text))));
    }
    Ok(ms)
}

/// `Patient?active=true,Observation?status=final`; a comma within a search is coded twice, as %2C.
fn filters(text: &str, definitions: &'static Definitions) -> Result<Vec<OfType>> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = part.split_once('?').is_some_and(|(name, _)| definitions.find_resource_type(name.trim()).is_some());
        match parts.last_mut().filter(|_| !begins) {
            Some(last) => last.push_str(&format!(",{part}")),
            None => parts.push(part.to_owned()),
        }
    }
    parts.into_iter().map(|part| filter(&part, definitions)).collect()
}

/// One search, with its type.
fn filter(text: &str, definitions: &'static Definitions) -> Result<OfType> {
    let (name, query) = text.split_once('?').ok_or_else(|| bad(format!("_typeFilter '{}' is not a search such as Patient?active=true", clip(text))))?;
    let type_name = definitions.resource_type(name.trim()).map_err(|f| bad(format!("_typeFilter: {}", f.diagnostics)))?;
    Ok((type_name.to_owned(), pairs(query)))
}

/// Parameters as a query.
pub fn shown(pairs: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Leaves of an order what the token allows: what was asked for by name must be allowed, of all types those that are.
///
/// # Errors
/// Something that was asked for is not.
pub fn permitted(bearer: &Bearer, order: &mut Order, asked: &Asked, definitions: &'static Definitions) -> Result<()> {
    let named = asked.parameters()?.iter().any(|(name, _)| name == "_type");
    let mut types = Vec::new();
    let associated = order.associated.map(|_| "Provenance".to_owned());
    for name in order.types.iter().chain(&associated) {
        match allows(&bearer.scopes, Some(name), 'r') {
            Verdict::Yes => types.push(name.clone()),
            Verdict::Matching(search) => {
                order.restrictions.insert(name.clone(), pairs(&search));
                types.push(name.clone());
            }
            Verdict::No if named || associated.as_ref() == Some(name) => bearer.may(&[Need(definitions.find_resource_type(name), 'r')])?,
            Verdict::No => {}
        }
    }
    types.retain(|name| associated.as_ref() != Some(name));
    if types.is_empty() && !order.types.is_empty() {
        bearer.may(&[Need(None, 'r')])?;
    }
    order.gone.retain(|name| allows(&bearer.scopes, Some(name), 'r') == Verdict::Yes);
    order.types = types;
    Ok(())
}

/// What the settings and the URL say of the files.
///
/// # Errors
/// There would be too many, as far as that can be told now.
pub fn furnish(order: &mut Order, knobs: &Knobs, bulk: &Bulk, snapshot: &Snapshot) -> Result<()> {
    order.page = knobs.page.unwrap_or(bulk.page).max(1);
    order.some_fail = knobs.err == "some_file_generation_failed";
    order.times = knobs.m.unwrap_or(1).clamp(1, 100) as usize;
    order.deleted_percent = u64::from(knobs.del.unwrap_or(0).min(100));
    let is_plain = order.whose == Whose::Anyones && order.since_ms.is_none() && order.until_ms.is_none() && order.organized_by.is_none();
    let wanted =
        |name: &str| order.types.iter().any(|t| t == name) && !order.filters.iter().any(|(of, _)| of == name) && !order.restrictions.contains_key(name);
    let files_of = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).div_ceil(order.page);
    let files: usize = snapshot.counts().filter(|(name, _)| wanted(name)).map(|(_, count)| files_of(count)).sum();
    if is_plain && files * order.times > MAX_FILES {
        let message = format!(
            "this would be {} files, and an export has {MAX_FILES} at most; ask for fewer types, or let files be longer: the setting bulk.page",
            files * order.times
        );
        return Err(Failure::new(Kind::TooLarge, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fhir::FhirVersion;

    #[test]
    fn filters_are_separated_by_commas_that_begin_a_type() {
        let read = |text: &str| {
            filters(text, Definitions::of(FhirVersion::R4)).map(|all| all.into_iter().map(|(t, p)| format!("{t}:{p:?}")).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            read("Patient?gender=male,Observation?status=final,amended&code=x").ok().as_deref(),
            Some(r#"Patient:[("gender", "male")] Observation:[("status", "final,amended"), ("code", "x")]"#)
        );
        assert_eq!(read("Observation?status=final%2Camended").ok().as_deref(), Some(r#"Observation:[("status", "final,amended")]"#));
        assert!(read("nonsense").is_err() && read("Pateint?x=y").is_err());
    }
}
