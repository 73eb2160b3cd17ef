//! One entry of a batch or transaction: text becomes an interaction.

use serde_json::Value;

use super::super::conditions::{Conditions, Tag};
use super::super::delete::{self, Which};
use super::super::target::{Target, pairs, readable};
use super::super::{Content, Interaction, Patch, Reply, Whom, history, operation, search, structure};
use super::MAX_ENTRIES;
use crate::fhir::id::clip;
use crate::fhir::subset::Subset;
use crate::fhir::validate::Issue;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, Resource, instant, raw};

/// The methods of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// As HTTP writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// An entry as it came: parsed, and the text of its resource.
pub struct RawEntry<'a> {
    value: &'a Value,
    resource_text: Option<&'a str>,
    /// What of its XML is out of order.
    disorder: Vec<Issue>,
}

/// An entry that is a request.
#[derive(Debug)]
pub struct Entry {
    pub method: Method,
    pub target: Target,
    pub full_url: Option<String>,
    pub conditions: Conditions,
    pub content: Option<Content>,
    /// What follows the question mark.
    pub query: String,
    /// Whether what is read is not wanted, only that it can be.
    is_head: bool,
}

impl<'a> RawEntry<'a> {
    /// The entry.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Its resource as it came.
    pub fn resource_text(&self) -> Option<&'a str> {
        self.resource_text
    }

    /// What of its resource's XML is out of order.
    pub fn disorder(&self) -> &[Issue] {
        &self.disorder
    }
}

/// The entries of a Bundle.
pub fn split(content: &Content) -> Result<Vec<RawEntry<'_>>, Failure> {
    let text = content.text.strip_prefix('\u{feff}').unwrap_or(&content.text);
    let entries = match content.resource.value().get("entry") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(Failure::new(Kind::Invalid, "Bundle.entry must be an array").at("Bundle.entry")),
    };
    if entries.len() > MAX_ENTRIES {
        return Err(Failure::new(
            Kind::TooCostly,
            format!("the Bundle has {} entries; at most {MAX_ENTRIES} are accepted, send several Bundles", entries.len()),
        )
        .at("Bundle.entry"));
    }
    let spans = raw::member(text, 0, "entry").map(|span| raw::elements(text, span.start)).unwrap_or_default();
    let texts = spans.into_iter().map(|span| raw::member(text, span.start, "resource").map(|r| &text[r]).filter(|t| t.starts_with('{')));
    let mut split: Vec<_> = entries.iter().zip(texts).map(|(value, resource_text)| RawEntry { value, resource_text, disorder: Vec::new() }).collect();
    for issue in &content.disorder {
        if let Some((at, place)) = structure::in_entry(issue)
            && let Some(entry) = split.get_mut(at)
        {
            let of = entry.value.pointer("/resource/resourceType").and_then(Value::as_str).unwrap_or_default();
            entry.disorder.push(Issue { expression: format!("{of}.{place}"), ..issue.clone() });
        }
    }
    Ok(split)
}

impl Entry {
    /// Reads an entry.
    pub fn read(entry: &RawEntry<'_>, version: FhirVersion) -> Result<Self, Failure> {
        let definitions = Definitions::of(version);
        let request = entry.value.get("request").filter(|r| r.is_object());
        let request = request.ok_or_else(|| Failure::new(Kind::Invalid, "request is missing; an entry of a batch or transaction says method and url"))?;
        let text = |name: &str| match request.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Failure::new(Kind::Invalid, format!("request.{name} must be a string")).at(format!("request.{name}"))),
        };
        let method = method(text("method")?, version).map_err(|f| f.at("request.method"))?;
        let url = text("url")?.ok_or_else(|| Failure::new(Kind::Invalid, "request.url is missing").at("request.url"))?;
        if url.contains("://") && !url.contains('?') {
            let message = format!("request.url '{}' is absolute; it is relative to this endpoint, such as Patient/123", clip(url));
            return Err(Failure::new(Kind::Invalid, message).at("request.url"));
        }
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let in_url = |f: Failure| Failure {
            kind: if f.kind == Kind::UnknownType { Kind::Invalid } else { f.kind },
            diagnostics: format!("request.url '{}': {}", clip(url), f.diagnostics),
            ..f.at("request.url")
        };
        let target = Target::parse(path, definitions).map_err(in_url)?;
        readable(query).map_err(in_url)?;
        let full_url = entry.value.get("fullUrl").and_then(Value::as_str).map(str::to_owned);
        let tag = |name: &str, header: &str| text(name)?.map(|t| Tag::parse(t, header)).transpose();
        let conditions = Conditions {
            if_match: tag("ifMatch", "If-Match")?.into_iter().collect(),
            if_none_match: tag("ifNoneMatch", "If-None-Match")?.into_iter().collect(),
            if_modified_since_ms: text("ifModifiedSince")?.and_then(instant::parse).map(|i| i.low.div_euclid(1_000)),
            if_none_exist: text("ifNoneExist")?.map(str::to_owned),
        };
        let content = match (method, entry.value.get("resource")) {
            (Method::Post | Method::Put | Method::Patch, Some(value)) => {
                let resource = Resource::from_value(value.clone(), version)?;
                let type_name = target.type_name().filter(|_| method != Method::Patch).unwrap_or(resource.type_name());
                Some(Content { type_name, resource, text: entry.resource_text.unwrap_or_default().to_owned(), disorder: entry.disorder.clone() })
            }
            (Method::Post, None) if matches!(target, Target::Operation(..)) => None,
            (Method::Post | Method::Put | Method::Patch, None) => {
                return Err(Failure::new(Kind::Invalid, format!("resource is missing; {} needs one", method.name())));
            }
            (Method::Get | Method::Delete, _) => None,
        };
        let is_head = text("method")? == Some("HEAD");
        Ok(Self { method, target, full_url, conditions, content, query: query.to_owned(), is_head })
    }

    /// Whether what it is answered with is what it asks for, and not what it wrote.
    pub fn is_answered(&self) -> bool {
        self.method == Method::Get || matches!(self.target, Target::Operation(..))
    }

    /// What is shown of what it came to.
    pub fn shown(&self, reply: Reply) -> Reply {
        if self.is_head { Reply { body: None, ..reply } } else { reply }
    }

    /// A failure of this entry, with the URL named where what that says is refused: what is read or deleted, and conditions.
    pub fn blamed(&self, failure: Failure) -> Failure {
        let is_of_url = match self.method {
            Method::Get | Method::Delete => true,
            Method::Put | Method::Patch => {
                matches!(failure.kind, Kind::NotFound | Kind::Deleted)
                    || !self.query.is_empty() && matches!(failure.kind, Kind::MultipleMatches | Kind::BadValue | Kind::NotSupported | Kind::TooCostly)
            }
            Method::Post => false,
        };
        if is_of_url && failure.expression.is_none() && failure.issues.is_empty() { failure.at("request.url") } else { failure }
    }

    /// Refuses the parameters that would be passed over.
    pub fn refuse_unknown(&self) -> Result<(), Failure> {
        let method = self.method;
        self.target.refuse_unknown(&pairs(&self.query), method == Method::Get, method == Method::Post, method == Method::Delete)
    }

    /// The interaction it stands for; under `strict`, a search refuses what it does not know.
    pub fn interaction(&mut self, strict: bool, definitions: &Definitions) -> Result<Interaction, Failure> {
        let conditions = self.conditions.clone();
        let taken = self.content.take();
        if let (Method::Get | Method::Post, Target::Operation(level, name)) = (self.method, &self.target) {
            let definition = operation::Definition::find(name, level)?;
            if definition.affects_state && self.method == Method::Get {
                return Err(Failure::new(Kind::MethodNotAllowed, format!("{} changes something; POST it", definition.code)));
            }
            return operation::Call::new(definition, level.clone(), pairs(&self.query), taken, conditions, definitions).map(Interaction::Operation);
        }
        let content = || taken.ok_or_else(|| Failure::new(Kind::Invalid, "resource is missing"));
        let search = |type_name, compartment| Interaction::Search(search::Request { type_name, compartment, parameters: pairs(&self.query), strict });
        let conditional = !self.query.is_empty();
        let deletion = |which| delete::Request::new(which, self.conditions.clone(), &self.query).map(Interaction::Delete);
        let matching = || Whom::Where(self.query.clone());
        let subset = |type_name| Subset::of_read(&pairs(&self.query), &[type_name], strict, definitions);
        match (self.method, &self.target) {
            (Method::Post, Target::Type(_)) => Ok(Interaction::Create(content()?, conditions)),
            (Method::Put, Target::Instance(_, id)) => Ok(Interaction::Update(Whom::Id(id.clone()), content()?, conditions)),
            (Method::Put, Target::Type(_)) if conditional => Ok(Interaction::Update(matching(), content()?, conditions)),
            (Method::Patch, Target::Instance(type_name, id)) => {
                Ok(Interaction::Patch(type_name, Whom::Id(id.clone()), Patch::of_entry(&content()?)?, conditions))
            }
            (Method::Patch, Target::Type(type_name)) if conditional => Ok(Interaction::Patch(type_name, matching(), Patch::of_entry(&content()?)?, conditions)),
            (Method::Delete, Target::Instance(type_name, id)) => deletion(Which::Instance(type_name, id.clone())),
            (Method::Delete, Target::Type(type_name)) if conditional => deletion(Which::Matching(Some(type_name), self.query.clone())),
            (Method::Get, Target::Instance(type_name, id)) => Ok(Interaction::Read(type_name, id.clone(), conditions, subset(type_name)?)),
            (Method::Get, Target::Version(type_name, id, version)) => {
                Ok(Interaction::Vread(type_name, id.clone(), version.parse()?, conditions, subset(type_name)?))
            }
            (Method::Get, target) if let Some(of) = target.history() => Ok(Interaction::History(history::Request { of, parameters: pairs(&self.query) })),
            (Method::Get, Target::Type(type_name) | Target::TypeSearch(type_name)) => Ok(search(Some(type_name), None)),
            (Method::Get, Target::Compartment(of, id, type_name)) => Ok(search(*type_name, Some((of, id.clone())))),
            (Method::Get, Target::System | Target::SystemSearch) => Ok(search(None, None)),
            (Method::Get, Target::Metadata) => Ok(Interaction::Capabilities),
            (method, _) => {
                let message = format!(
                    "{} of this url is not supported in a Bundle; supported: POST [type], PUT, PATCH and DELETE [type]/[id] or [type]?[condition], GET of resources, versions, histories and searches",
                    method.name()
                );
                Err(Failure::new(Kind::NotSupported, message))
            }
        }
    }
}

/// The methods of entries that a version has.
fn method(text: Option<&str>, version: FhirVersion) -> Result<Method, Failure> {
    let known = if version == FhirVersion::Stu3 { "GET, POST, PUT or DELETE" } else { "GET, HEAD, POST, PUT, PATCH or DELETE" };
    match text {
        Some("GET") => Ok(Method::Get),
        Some("HEAD") if version != FhirVersion::Stu3 => Ok(Method::Get),
        Some("POST") => Ok(Method::Post),
        Some("PUT") => Ok(Method::Put),
        Some("PATCH") if version != FhirVersion::Stu3 => Ok(Method::Patch),
        Some("DELETE") => Ok(Method::Delete),
        Some(other) => {
            Err(Failure::new(Kind::NotSupported, format!("request.method '{}' is not supported in a Bundle of FHIR {version}; use {known}", clip(other))))
        }
        None => Err(Failure::new(Kind::Invalid, format!("request.method is missing; use {known}"))),
    }
}
