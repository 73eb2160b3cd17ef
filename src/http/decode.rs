//! From method, path, headers and body to an [`Interaction`].

use actix_web::HttpRequest;
use actix_web::http::{Method, header};
use actix_web::web::Bytes;
use base64::Engine as _;

use super::negotiate::{Prefer, Sent, sent, unsupported};
use super::routes::text;
use serde_json::Value;

use crate::fhir::id::clip;
use crate::fhir::raw::{self, quote};
use crate::fhir::subset::Subset;
use crate::fhir::validate::Issue;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind, Resource, ResourceId, json, xml};
use crate::interaction::conditions::Tag;
use crate::interaction::delete::{self, Which};
use crate::interaction::operation::{self, Definition};
use crate::interaction::search::Request as SearchRequest;
use crate::interaction::target::{pairs, readable};
use crate::interaction::{Conditions, Content, Interaction, Patch, Target, Whom, history};

/// The parts of a request that decide what it asks for.
pub struct Parts<'a> {
    /// Headers and method.
    pub request: &'a HttpRequest,
    /// What the path names.
    pub target: Target,
    /// The pairs of the query.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: &'a Bytes,
    /// The body as a resource, where that was read aside because it is large.
    pub parsed: Option<Result<Read, Failure>>,
    /// The simulator's version.
    pub version: FhirVersion,
    /// What the client prefers.
    pub prefer: Prefer,
}

impl Parts<'_> {
    /// The interaction that is asked for.
    ///
    /// # Errors
    /// There is none, or its content cannot be read.
    pub fn interaction(mut self) -> Result<Interaction, Failure> {
        let conditions = self.conditions()?;
        let method = self.request.method();
        let is_read = method == Method::GET || method == Method::HEAD;
        if self.prefer.strict {
            self.target.refuse_unknown(&self.query, is_read, *method == Method::POST, *method == Method::DELETE)?;
        }
        if let Some(of) = self.target.history().filter(|_| is_read) {
            return Ok(Interaction::History(history::Request { of, parameters: self.query }));
        }
        match self.target.clone() {
            Target::Metadata if is_read => Ok(Interaction::Capabilities),
            Target::Instance(type_name, id) if is_read => Ok(Interaction::Read(type_name, id, conditions, self.subset(type_name)?)),
            Target::Version(type_name, id, version) if is_read => Ok(Interaction::Vread(type_name, id, version.parse()?, conditions, self.subset(type_name)?)),
            Target::Type(type_name) if is_read => Ok(self.search(Some(type_name), None)),
            Target::System | Target::SystemSearch if is_read => Ok(self.search(None, None)),
            Target::Compartment(of, id, type_name) | Target::CompartmentSearch(of, id, type_name) if is_read => Ok(self.search(type_name, Some((of, id)))),
            Target::TypeSearch(type_name) if method == Method::POST => self.posted_search(Some(type_name), None),
            Target::SystemSearch if method == Method::POST => self.posted_search(None, None),
            Target::CompartmentSearch(of, id, type_name) if method == Method::POST => self.posted_search(type_name, Some((of, id))),
            Target::TypeSearch(type_name) if is_read => Ok(self.search(Some(type_name), None)),
            Target::Type(type_name) if method == Method::POST => Ok(Interaction::Create(self.content(type_name, None)?, conditions)),
            Target::System if method == Method::POST => self.bundle(),
            Target::Instance(type_name, id) if method == Method::PUT => {
                let content = self.content(type_name, Some(&id))?;
                Ok(Interaction::Update(Whom::Id(id), content, conditions))
            }
            Target::Type(type_name) if method == Method::PUT && !self.query.is_empty() => {
                let content = self.content(type_name, None)?;
                Ok(Interaction::Update(self.matching(), content, conditions))
            }
            Target::Instance(type_name, id) if method == Method::PATCH => Ok(Interaction::Patch(type_name, Whom::Id(id), self.patch()?, conditions)),
            Target::Type(type_name) if method == Method::PATCH && !self.query.is_empty() => {
                Ok(Interaction::Patch(type_name, self.matching(), self.patch()?, conditions))
            }
            Target::Instance(type_name, id) if method == Method::DELETE => self.deletion(Which::Instance(type_name, id), conditions),
            Target::Type(type_name) if method == Method::DELETE && !self.query.is_empty() => {
                self.deletion(Which::Matching(Some(type_name), self.request.query_string().to_owned()), conditions)
            }
            Target::System if method == Method::DELETE && !self.query.is_empty() => {
                self.deletion(Which::Matching(None, self.request.query_string().to_owned()), conditions)
            }
            Target::Operation(level, name) if is_read || method == Method::POST => {
                let definition = Definition::find(&name, &level)?;
                if is_read && definition.affects_state {
                    return Err(self.not_allowed(&Target::Operation(level, name)));
                }
                let input = if self.body.is_empty() { None } else { Some(self.input()?) };
                let definitions = Definitions::of(self.version);
                operation::Call::new(definition, level, self.query, input, conditions, definitions).map(Interaction::Operation)
            }
            other => Err(self.not_allowed(&other)),
        }
    }

    fn deletion(&self, which: Which, conditions: Conditions) -> Result<Interaction, Failure> {
        delete::Request::new(which, conditions, self.request.query_string()).map(Interaction::Delete)
    }

    /// The resource that the condition in the URL finds.
    fn matching(&self) -> Whom {
        Whom::Where(self.request.query_string().to_owned())
    }

    /// The patch in the body.
    fn patch(&mut self) -> Result<Patch, Failure> {
        let content_type = text(self.request, header::CONTENT_TYPE).unwrap_or("application/fhir+json");
        // Its charset and FHIR version, whatever it is.
        sent(self.request, self.version)?;
        let body = || std::str::from_utf8(self.body).map_err(|_| Failure::new(Kind::Malformed, "the patch is not UTF-8"));
        let is_array = self.body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json-patch+json" => Patch::json(body()?),
            "application/merge-patch+json" => Patch::merge(body()?),
            // An array can only be a JSON Patch, which says so.
            _ if !is_array && matches!(sent(self.request, self.version)?, Sent::Json | Sent::Xml) => match self.input() {
                Err(failure) if failure.expression.as_deref() == Some("resourceType") && self.is_untyped() => {
                    Err(no_patch(content_type, " for an object without resourceType"))
                }
                input => Patch::fhirpath(&input?),
            },
            _ => Err(no_patch(content_type, if is_array { " for an array" } else { "" })),
        }
    }

    /// Whether the body is an object that does not say its type: it was hardly meant for a resource.
    fn is_untyped(&self) -> bool {
        let text = std::str::from_utf8(self.body).unwrap_or_default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
        text.starts_with('{') && raw::member(text, 0, "resourceType").is_none()
    }

    fn not_allowed(&self, target: &Target) -> Failure {
        let method = self.request.method();
        let (allow, hint) = match target {
            Target::System => ("GET, HEAD, POST", "POST takes a batch or transaction Bundle, DELETE a condition"),
            Target::Metadata => ("GET, HEAD", ""),
            Target::Compartment(..) => ("GET, HEAD", "to search by POST, add /_search"),
            Target::Type(_) => ("GET, HEAD, POST", "to update, patch or delete, name the resource, [type]/[id], or a condition, [type]?identifier=…"),
            Target::Instance(..) => ("GET, HEAD, PUT, PATCH, DELETE", "to create, POST to the type, or PUT with an id"),
            Target::SystemHistory | Target::TypeHistory(_) | Target::InstanceHistory(..) | Target::Version(..) => ("GET, HEAD", "versions cannot be changed"),
            Target::Operation(level, name) if Definition::find(name, level).is_ok_and(|d| d.affects_state) => ("POST", "it changes something"),
            Target::Operation(..) | Target::SystemSearch | Target::TypeSearch(_) | Target::CompartmentSearch(..) => ("GET, HEAD, POST", ""),
        };
        let hint = if hint.is_empty() { String::new() } else { format!("; {hint}") };
        let mut failure = Failure::new(Kind::MethodNotAllowed, format!("{method} is not allowed here; allowed: {allow}{hint}"));
        failure.allow = Some(allow);
        failure
    }

    fn conditions(&self) -> Result<Conditions, Failure> {
        let headers = self.request.headers();
        // Nearly every request has none.
        if headers.is_empty() {
            return Ok(Conditions::default());
        }
        let tags = |name: &'static str| {
            let values = self.preconditions(name)?;
            values.iter().flat_map(|v| v.split(',')).map(|tag| Tag::parse(tag, name)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Conditions {
            if_match: tags("If-Match")?,
            if_none_match: tags("If-None-Match")?,
            if_modified_since_ms: self.preconditions("If-Modified-Since")?.first().and_then(|t| t.parse::<header::HttpDate>().ok()).map(|date| {
                let time = std::time::SystemTime::from(date);
                time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
            }),
            if_none_exist: self.if_none_exist()?,
        })
    }

    /// The values of a precondition. One that cannot be read must not be passed over.
    fn preconditions(&self, name: &'static str) -> Result<Vec<&str>, Failure> {
        let refused = |_| {
            let send = if name == "If-Modified-Since" { "a date as Last-Modified shows it" } else { "an entity tag as ETag shows it, for example W/\"3\"" };
            Failure::new(Kind::BadValue, format!("{name} has characters that are not ASCII; send one readable header, {send}")).at(format!("http.{name}"))
        };
        self.request.headers().get_all(name).map(|value| value.to_str().map_err(refused)).collect()
    }

    /// The one condition that a create may have. What cannot be read must not create.
    fn if_none_exist(&self) -> Result<Option<String>, Failure> {
        let refused = |why: &str| Failure::new(Kind::BadValue, format!("If-None-Exist {why}")).at("http.If-None-Exist");
        let mut values = self.request.headers().get_all("if-none-exist");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(refused("is sent more than once; send one, and join its parameters by '&'"));
        }
        let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refused("is not UTF-8; percent-code what is not ASCII, for example ü as %C3%BC"))?;
        Ok(Some(text.to_owned()))
    }

    fn search(self, type_name: Option<&'static str>, compartment: Option<(&'static str, ResourceId)>) -> Interaction {
        Interaction::Search(SearchRequest { type_name, compartment, parameters: self.query, strict: self.prefer.strict })
    }

    fn posted_search(mut self, type_name: Option<&'static str>, compartment: Option<(&'static str, ResourceId)>) -> Result<Interaction, Failure> {
        match sent(self.request, self.version)? {
            _ if self.body.is_empty() => {}
            Sent::Form => {
                let form = std::str::from_utf8(self.body).map_err(|_| Failure::new(Kind::Malformed, "the form is not UTF-8"))?;
                readable(form)?;
                self.query.extend(pairs(form));
            }
            Sent::Json | Sent::Xml => return Err(not_a_form(text(self.request, header::CONTENT_TYPE).unwrap_or("application/fhir+json"))),
            Sent::Other(content_type) => return Err(not_a_form(&content_type)),
        }
        Ok(self.search(type_name, compartment))
    }

    /// The resource in the body, which is JSON or XML.
    fn resource(&mut self, sent: &Sent) -> Result<Content, Failure> {
        let read = self.parsed.take().unwrap_or_else(|| Read::of(self.body, sent, self.version))?;
        let text = read.converted.unwrap_or_else(|| text_of(self.body));
        let resource = Resource::from_value(read.value, self.version)?;
        Ok(Content { type_name: resource.type_name(), resource, text, disorder: read.disorder })
    }

    /// The resource that an operation is given.
    fn input(&mut self) -> Result<Content, Failure> {
        match sent(self.request, self.version)? {
            sent @ (Sent::Json | Sent::Xml) => self.resource(&sent),
            Sent::Form => Err(unsupported("application/x-www-form-urlencoded")),
            Sent::Other(content_type) => Err(unsupported(&content_type)),
        }
    }

    /// The part of a resource that is asked for.
    fn subset(&self, type_name: &'static str) -> Result<Subset, Failure> {
        Subset::of_read(&self.query, &[type_name], self.prefer.strict, Definitions::of(self.version))
    }

    /// The resource in the body; for a Binary, the body itself.
    fn content(&mut self, type_name: &'static str, id: Option<&ResourceId>) -> Result<Content, Failure> {
        match sent(self.request, self.version)? {
            sent @ (Sent::Json | Sent::Xml) if type_name != "Binary" || self.looks_like_resource(&sent) => Ok(Content { type_name, ..self.resource(&sent)? }),
            Sent::Json | Sent::Xml => self.binary(text(self.request, header::CONTENT_TYPE).unwrap_or("application/octet-stream"), id),
            Sent::Other(content_type) if type_name == "Binary" => self.binary(&content_type, id),
            Sent::Form => Err(unsupported("application/x-www-form-urlencoded")),
            Sent::Other(content_type) => Err(unsupported(&content_type)),
        }
    }

    /// What is posted to `/Binary` is a Binary resource if it says so, and else content that happens to be JSON or XML; but
    /// a FHIR media type always means a resource.
    fn looks_like_resource(&self, sent: &Sent) -> bool {
        let fhir = text(self.request, header::CONTENT_TYPE).is_none_or(|t| t.contains("fhir"));
        fhir || Read::of(self.body, sent, self.version).is_ok_and(|read| Resource::from_value(read.value, self.version).is_ok())
    }

    fn binary(&self, content_type: &str, id: Option<&ResourceId>) -> Result<Content, Failure> {
        let element = if self.version == FhirVersion::Stu3 { "content" } else { "data" };
        let data = base64::engine::general_purpose::STANDARD.encode(self.body);
        let id = id.map(|id| format!(",\"id\":\"{id}\"")).unwrap_or_default();
        let context = text(self.request, "x-security-context").map(|c| format!(",\"securityContext\":{{\"reference\":{}}}", quote(c))).unwrap_or_default();
        let text = format!("{{\"resourceType\":\"Binary\"{id},\"contentType\":{}{context},\"{element}\":\"{data}\"}}", quote(content_type));
        Ok(Content { type_name: "Binary", resource: Resource::parse(text.as_bytes(), self.version)?, text, disorder: Vec::new() })
    }

    fn bundle(&mut self) -> Result<Interaction, Failure> {
        let content = self.input()?;
        let resource = &content.resource;
        if resource.type_name() != "Bundle" {
            let message =
                format!("the endpoint itself takes a Bundle of type batch or transaction, but resourceType is '{0}'; POST it to /{0}", resource.type_name());
            return Err(Failure::new(Kind::Invalid, message).at("resourceType"));
        }
        let kind = resource.value().get("type").and_then(Value::as_str).map(str::to_owned);
        match kind.as_deref() {
            Some("transaction") => Ok(Interaction::Transaction(content)),
            Some("batch") => Ok(Interaction::Batch(content)),
            Some("history") => Ok(Interaction::Restore(content)),
            other => {
                let shown = other.map_or("missing".to_owned(), |t| format!("'{}'", clip(t)));
                let message = format!("Bundle.type is {shown}; the endpoint itself takes batch or transaction. To store a Bundle as it is, POST it to /Bundle");
                Err(Failure::new(Kind::Invalid, message).at("Bundle.type"))
            }
        }
    }
}

/// A body that was read: as a value, and as JSON where it was something else.
pub struct Read {
    value: Value,
    converted: Option<String>,
    disorder: Vec<Issue>,
}

impl Read {
    /// Reads a body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn of(body: &[u8], sent: &Sent, version: FhirVersion) -> Result<Self, Failure> {
        if *sent != Sent::Xml {
            return Ok(Self { value: json::parse(body)?, converted: None, disorder: Vec::new() });
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::new(Kind::Malformed, "the body is empty; a FHIR resource in XML was expected"));
        }
        let (converted, disorder) = xml::read(body, version)?;
        Ok(Self { value: json::parse(converted.as_bytes())?, converted: Some(converted), disorder })
    }
}

/// The refusal of a search whose body is no form.
fn not_a_form(content_type: &str) -> Failure {
    let message = format!("Content-Type '{}' is not supported here; send application/x-www-form-urlencoded", clip(content_type));
    Failure::new(Kind::UnsupportedMediaType, message).at("http.Content-Type")
}

/// The refusal of a patch that is sent as what no patch is.
fn no_patch(content_type: &str, what: &str) -> Failure {
    let message = format!(
        "Content-Type '{}' is not supported here{what}; a patch is application/json-patch+json, application/merge-patch+json, or Parameters in application/fhir+json",
        clip(content_type)
    );
    Failure::new(Kind::UnsupportedMediaType, message).at("http.Content-Type")
}

/// The body as text; it was proven UTF-8 when it was parsed.
fn text_of(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}
