//! What the client sends and accepts: media types, `_format`, `Prefer`.

use actix_web::HttpRequest;
use actix_web::http::header;

use super::routes::text;
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};
use crate::interaction::Return;

/// The shape of the response.
#[derive(Clone, Debug, Default)]
pub struct Format {
    /// The media type to answer with.
    pub media_type: Media,
    /// Laid out for a person.
    pub pretty: bool,
    /// The client named the FHIR version in the media type.
    pub names_version: bool,
    /// The client asked for a FHIR media type, or by `_format`.
    pub is_explicit: bool,
}

/// The media types of FHIR JSON and FHIR XML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Media {
    /// `application/fhir+json`.
    #[default]
    FhirJson,
    /// `application/json`.
    Json,
    /// `text/json`.
    TextJson,
    /// `application/fhir+xml`.
    FhirXml,
    /// `application/xml`.
    Xml,
    /// `text/xml`.
    TextXml,
}

impl Media {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FhirJson => "application/fhir+json",
            Self::Json => "application/json",
            Self::TextJson => "text/json",
            Self::FhirXml => "application/fhir+xml",
            Self::Xml => "application/xml",
            Self::TextXml => "text/xml",
        }
    }

    /// Whether it is FHIR XML.
    #[must_use]
    pub fn is_xml(self) -> bool {
        matches!(self, Self::FhirXml | Self::Xml | Self::TextXml)
    }

    fn parse(essence: &str) -> Option<Self> {
        match essence.to_ascii_lowercase().as_str() {
            "application/fhir+json" | "application/json+fhir" | "json" => Some(Self::FhirJson),
            "application/json" => Some(Self::Json),
            "text/json" => Some(Self::TextJson),
            "application/fhir+xml" | "application/xml+fhir" | "xml" => Some(Self::FhirXml),
            "application/xml" => Some(Self::Xml),
            "text/xml" => Some(Self::TextXml),
            _ => None,
        }
    }
}

/// `Prefer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefer {
    /// `return=`.
    pub returns: Return,
    /// `handling=strict`.
    pub strict: bool,
}

/// What to answer with.
///
/// # Errors
/// [`Kind::NotAcceptable`]: nothing the client accepts can be produced.
pub fn format(request: &HttpRequest, query: &[(String, String)], version: FhirVersion, is_binary: bool) -> Result<Format, Failure> {
    let mut format = Format { pretty: query.iter().any(|(n, v)| n == "_pretty" && v == "true"), ..Format::default() };
    if let Some((_, wanted)) = query.iter().find(|(n, _)| n == "_format") {
        // A plus in a query stands for a blank unless it is encoded; clients forget that here more than anywhere.
        let mut parts = wanted.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().replace(' ', "+");
        format.media_type = Media::parse(&essence).ok_or_else(|| not_acceptable("_format", wanted))?;
        for named in parts.filter_map(|p| p.strip_prefix("fhirVersion=")) {
            check_version(named, version).map_err(|f| f.at("http._format"))?;
        }
        format.is_explicit = true;
        return Ok(format);
    }
    if let Some(value) = unreadable(request, header::ACCEPT) {
        return Err(not_acceptable("Accept", &value));
    }
    let accept = Accept::of(request);
    if accept.ranges.is_empty() {
        return Ok(format);
    }
    // A browser takes any XML; a person who looks at an answer is better off with JSON.
    let is_browser = accept.names("text/html");
    let mut other_version = None;
    let mut best: Option<(f32, Format)> = None;
    for range in &accept.ranges {
        if let Some(Err(failure)) = range.fhir_version.as_ref().map(|named| check_version(named, version)) {
            other_version.get_or_insert(failure);
            continue;
        }
        let exact = Media::parse(&range.essence).filter(|media| !(is_browser && matches!(media, Media::Xml | Media::TextXml)));
        // What is named by itself is not meant by a range that holds it, RFC 9110, 12.5.1.
        let meant = |media: &Media| {
            range.wildcards() > 0 && range.holds(media.name()) && accept.most_specific(media.name()).is_some_and(|best| best.essence == range.essence)
        };
        let Some(media_type) = exact.or_else(|| ALL.into_iter().find(meant)).filter(|_| range.quality > 0.0) else { continue };
        if best.as_ref().is_none_or(|(quality, _)| range.quality > *quality) {
            best = Some((range.quality, Format { media_type, names_version: range.fhir_version.is_some(), is_explicit: exact.is_some(), ..format.clone() }));
        }
    }
    match best {
        Some((_, format)) => Ok(format),
        // A Binary may be what is accepted; that shows when it is read.
        None if is_binary => Ok(format),
        None => Err(other_version.unwrap_or_else(|| not_acceptable("Accept", &accept.text))),
    }
}

/// What a wildcard stands for, the first that is not refused.
const ALL: [Media; 6] = [Media::FhirJson, Media::Json, Media::TextJson, Media::FhirXml, Media::Xml, Media::TextXml];

/// `Accept`, <https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1>.
#[derive(Clone, Debug, Default)]
pub struct Accept {
    text: String,
    ranges: Vec<Range>,
}

/// A media range that is accepted, or with the quality 0 is not.
#[derive(Clone, Debug)]
struct Range {
    /// In lower case, such as `text/plain`, `text/*` or `*/*`.
    essence: String,
    quality: f32,
    fhir_version: Option<String>,
}

impl Accept {
    /// What a request says.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Self {
        let lines: Vec<&str> = request.headers().get_all(header::ACCEPT).filter_map(|v| v.to_str().ok()).collect();
        let text = lines.join(",");
        Self { ranges: text.split(',').map(Range::parse).filter(|range| !range.essence.is_empty()).collect(), text }
    }

    /// Whether a media type is named, by no wildcard.
    fn names(&self, essence: &str) -> bool {
        self.ranges.iter().any(|range| range.essence == essence)
    }

    /// The range that says how much a media type is liked.
    fn most_specific(&self, essence: &str) -> Option<&Range> {
        let holding = self.ranges.iter().filter(|range| range.holds(essence));
        holding.reduce(|best, range| if range.wildcards() < best.wildcards() { range } else { best })
    }

    /// Whether content of this media type is to be answered with rather than FHIR in `format`.
    #[must_use]
    pub fn prefers(&self, essence: &str, format: &Format) -> bool {
        let essence = essence.to_ascii_lowercase();
        let quality = |essence: &str| self.most_specific(essence).map_or(0.0, |range| range.quality);
        if !format.is_explicit {
            return self.most_specific(&essence).is_none_or(|range| range.quality > 0.0);
        }
        self.names(&essence) && quality(&essence) > 0.0 && quality(&essence) >= quality(format.media_type.name())
    }
}

impl Range {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self { essence: parts.next().unwrap_or_default().to_ascii_lowercase(), quality: 1.0, fhir_version: None };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => range.quality = value.trim().parse().unwrap_or(0.0),
                "fhirversion" => range.fhir_version = Some(value.trim().trim_matches('"').to_owned()),
                _ => {}
            }
        }
        range
    }

    fn wildcards(&self) -> usize {
        self.essence.matches('*').count()
    }

    /// Whether a media type is in it. FHIR JSON and FHIR XML have older names, too.
    fn holds(&self, essence: &str) -> bool {
        let is_alias = || Media::parse(&self.essence).is_some_and(|media| media.name() == essence);
        self.essence == "*/*" || self.essence == essence || self.essence.strip_suffix('*').is_some_and(|kind| essence.starts_with(kind)) || is_alias()
    }
}

fn check_version(named: &str, version: FhirVersion) -> Result<(), Failure> {
    if named == version.mime_parameter() || named == version.number() {
        return Ok(());
    }
    let message = format!("fhirVersion={} is not that of this simulator, which is FHIR {version} (fhirVersion={})", clip(named), version.mime_parameter());
    Err(Failure::new(Kind::NotAcceptable, message).at("http.Accept"))
}

fn not_acceptable(what: &str, value: &str) -> Failure {
    let message = format!("{what} '{}' asks for a format that is not supported; use application/fhir+json or application/fhir+xml", clip(value));
    Failure::new(Kind::NotAcceptable, message).at(format!("http.{what}"))
}

/// What a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A resource in JSON.
    Json,
    /// A resource in XML.
    Xml,
    /// A form.
    Form,
    /// Something else, of this media type.
    Other(String),
}

/// The value of a header that has something else than ASCII in it: it must not count as one that is missing.
fn unreadable(request: &HttpRequest, name: header::HeaderName) -> Option<String> {
    let value = request.headers().get_all(name).find(|value| value.to_str().is_err())?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// What `Content-Type` says.
///
/// # Errors
/// [`Kind::NotAcceptable`]: the body is of another FHIR version; [`Kind::UnsupportedMediaType`]: it cannot be read.
pub fn sent(request: &HttpRequest, version: FhirVersion) -> Result<Sent, Failure> {
    if let Some(value) = unreadable(request, header::CONTENT_TYPE) {
        return Err(unsupported(&value));
    }
    let Some(content_type) = text(request, header::CONTENT_TYPE) else { return Ok(Sent::Json) };
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let (media, is_form) = (Media::parse(essence), essence.eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let is_patch = essence.to_ascii_lowercase().ends_with("-patch+json");
    if media.is_some() || is_form || is_patch {
        for (name, v) in parts.filter_map(|p| p.split_once('=')) {
            let v = v.trim_matches('"');
            if name.eq_ignore_ascii_case("fhirVersion") {
                check_version(v, version).map_err(|f| f.at("http.Content-Type"))?;
            }
            if name.eq_ignore_ascii_case("charset") && !["utf-8", "utf8", "us-ascii"].contains(&v.to_ascii_lowercase().as_str()) {
                let message = format!("charset={} is not supported; FHIR is sent as UTF-8", clip(v));
                return Err(Failure::new(Kind::UnsupportedMediaType, message).at("http.Content-Type"));
            }
        }
    }
    if let Some(media) = media {
        return Ok(if media.is_xml() { Sent::Xml } else { Sent::Json });
    }
    if is_form {
        return Ok(Sent::Form);
    }
    Ok(Sent::Other(content_type.to_owned()))
}

/// The refusal of a body that is no FHIR.
#[must_use]
pub fn unsupported(content_type: &str) -> Failure {
    let message = format!("Content-Type '{}' is not supported here; send application/fhir+json or application/fhir+xml", clip(content_type));
    Failure::new(Kind::UnsupportedMediaType, message).at("http.Content-Type")
}

/// What `Prefer` says.
///
/// # Errors
/// A value of `handling` that does not exist; under `handling=strict`, one of `return`.
pub fn prefer(request: &HttpRequest) -> Result<Prefer, Failure> {
    let mut prefer = Prefer::default();
    let mut handling = None;
    let mut odd = None;
    for value in request.headers().get_all("prefer").filter_map(|v| v.to_str().ok()) {
        for part in value.split([',', ';']).map(str::trim) {
            let Some((name, v)) = part.split_once('=') else { continue };
            let v = v.trim().trim_matches('"');
            let bad = |known: &str| Failure::new(Kind::BadValue, format!("Prefer '{}' is not understood; use {known}", clip(part))).at("http.Prefer");
            // Of a preference that is said twice the first counts, RFC 7240.
            match name.trim().to_ascii_lowercase().as_str() {
                "return" => {
                    let known = [("representation", Return::Representation), ("minimal", Return::Minimal), ("OperationOutcome", Return::Outcome)];
                    let found = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(v)).map(|(_, r)| r);
                    let Some(returns) = found else {
                        // What is not understood is ignored, RFC 7240, but for whom asks to be told.
                        odd.get_or_insert_with(|| bad("return=representation, minimal or OperationOutcome"));
                        continue;
                    };
                    if prefer.returns == Return::Unsaid {
                        prefer.returns = returns;
                    }
                }
                "handling" => {
                    let strict = v.eq_ignore_ascii_case("strict");
                    if !strict && !v.eq_ignore_ascii_case("lenient") {
                        return Err(bad("handling=strict or lenient"));
                    }
                    prefer.strict = *handling.get_or_insert(strict);
                }
                _ => {}
            }
        }
    }
    odd.filter(|_| prefer.strict).map_or(Ok(prefer), Err)
}
