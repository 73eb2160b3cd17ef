//! Why a request is refused, without a word about HTTP: `http` maps a [`Kind`] to a status.

use std::fmt;

use super::validate::Issue;

/// What kind of refusal it is. Each has a stable id that a client's test may assert on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The body is not well-formed JSON, or not a resource at all.
    Malformed,
    /// The content contradicts the request or itself.
    Invalid,
    /// A header, parameter or search value cannot be understood.
    BadValue,
    /// A search parameter, modifier or feature this server does not have.
    NotSupported,
    /// No resource type of this name in the simulator's FHIR version.
    UnknownType,
    /// No simulator of this name.
    UnknownSimulator,
    /// Nothing at this URL.
    NotFound,
    /// The resource was deleted.
    Deleted,
    /// The method is not allowed at this URL.
    MethodNotAllowed,
    /// None of the accepted media types can be produced.
    NotAcceptable,
    /// The state forbids it.
    Conflict,
    /// `If-Match` or the like did not hold.
    PreconditionFailed,
    /// `If-Match` is missing and must be there.
    PreconditionRequired,
    /// A condition that must match at most one resource matched several.
    MultipleMatches,
    /// The body is over the limit.
    TooLarge,
    /// The request asks for more work than the limit allows.
    TooCostly,
    /// Too many requests of this kind, or too often.
    TooMany,
    /// The media type of the body is not understood.
    UnsupportedMediaType,
    /// The content is well-formed and cannot be processed.
    Unprocessable,
    /// The caller is not who may do this.
    Forbidden,
    /// What a token allows is not enough for this.
    OutOfScope,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// There is no token where one is asked for.
    NoToken,
    /// The client was too slow or hung up.
    Timeout,
    /// The disk refused, for example because it is full.
    Storage,
    /// What was stored cannot be read back whole.
    Damaged,
    /// A fault of the server.
    Internal,
}

impl Kind {
    /// The id in `OperationOutcome.issue.details.coding.code`.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-body",
            Self::Invalid => "invalid-content",
            Self::BadValue => "bad-value",
            Self::NotSupported => "not-supported",
            Self::UnknownType => "unknown-resource-type",
            Self::UnknownSimulator => "unknown-simulator",
            Self::NotFound => "not-found",
            Self::Deleted => "deleted",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotAcceptable => "not-acceptable",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition-failed",
            Self::PreconditionRequired => "precondition-required",
            Self::MultipleMatches => "multiple-matches",
            Self::TooLarge => "body-too-large",
            Self::TooCostly => "too-costly",
            Self::TooMany => "too-many-requests",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Unprocessable => "unprocessable",
            Self::Forbidden | Self::OutOfScope => "forbidden",
            Self::Unauthorized | Self::NoToken => "unauthorized",
            Self::Timeout => "timeout",
            Self::Storage => "storage-failed",
            Self::Damaged => "damaged-event",
            Self::Internal => "internal-error",
        }
    }

    /// The `OperationOutcome.issue.code`, from <http://hl7.org/fhir/issue-type>, as every FHIR version has it.
    #[must_use]
    pub fn issue_code(self) -> &'static str {
        match self {
            Self::Malformed => "structure",
            Self::Invalid => "invalid",
            Self::BadValue => "value",
            Self::NotSupported | Self::UnknownType | Self::MethodNotAllowed | Self::NotAcceptable | Self::UnsupportedMediaType => "not-supported",
            // `deleted` and `multiple-matches` are issue types only from R4 on; `for_version` picks the older word.
            Self::UnknownSimulator | Self::NotFound => "not-found",
            Self::Deleted => "deleted",
            Self::MultipleMatches => "multiple-matches",
            Self::Conflict | Self::PreconditionFailed => "conflict",
            Self::PreconditionRequired => "required",
            Self::TooLarge => "too-long",
            Self::TooCostly => "too-costly",
            Self::TooMany => "throttled",
            Self::Unprocessable => "processing",
            Self::Forbidden | Self::OutOfScope => "forbidden",
            Self::Unauthorized | Self::NoToken => "login",
            Self::Timeout => "timeout",
            Self::Storage => "no-store",
            Self::Damaged | Self::Internal => "exception",
        }
    }
}

/// A refusal: what is wrong, with which element, and the way out, in one sentence for a person.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of refusal it is.
    pub kind: Kind,
    /// The sentence: lowercase, names the value, says what would be accepted.
    pub diagnostics: String,
    /// FHIRPath of the element, or the name of the header or parameter (`http.If-Match`), if there is one.
    pub expression: Option<String>,
    /// For [`Kind::MethodNotAllowed`]: what is allowed.
    pub allow: Option<&'static str>,
    /// For [`Kind::TooMany`]: after how many seconds there may be room.
    pub retry_after_s: Option<u64>,
    /// What is wrong, one by one, where that is several things.
    pub issues: Vec<Issue>,
}

impl Failure {
    /// A refusal of `kind`.
    pub fn new(kind: Kind, diagnostics: impl Into<String>) -> Self {
        Self { kind, diagnostics: diagnostics.into(), expression: None, allow: None, retry_after_s: None, issues: Vec::new() }
    }

    /// The same, naming the element.
    #[must_use]
    pub fn at(mut self, expression: impl Into<String>) -> Self {
        self.expression = Some(expression.into());
        self
    }

    /// The same, inside the element `parent` of a Bundle, `Bundle.entry[7]`, which the sentence names, too.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.diagnostics = format!("{parent}: {}", self.diagnostics);
        self.moved_into(parent)
    }

    /// The same, inside the element `parent` of a Bundle, where the sentence is said of that alone.
    #[must_use]
    pub fn moved_into(mut self, parent: &str) -> Self {
        for issue in &mut self.issues {
            issue.move_into(&format!("{parent}.resource"));
        }
        self.expression = Some(self.expression.map_or_else(|| parent.to_owned(), |inner| in_entry(parent, &inner)));
        self
    }
}

/// Where in an entry of a Bundle is what a request by itself has at `inner`: in a header, or in its resource.
fn in_entry(parent: &str, inner: &str) -> String {
    match inner {
        "http.If-Match" => format!("{parent}.request.ifMatch"),
        "http.If-None-Match" => format!("{parent}.request.ifNoneMatch"),
        "http.If-None-Exist" => format!("{parent}.request.ifNoneExist"),
        _ if inner.starts_with("http.") => parent.to_owned(),
        // Of the entry itself.
        "fullUrl" => format!("{parent}.fullUrl"),
        _ if inner.starts_with("request.") => format!("{parent}.{inner}"),
        // An element that its type is not named with, such as resourceType.
        _ if inner.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{parent}.resource.{inner}"),
        _ => inner.split_once('.').map_or_else(|| format!("{parent}.resource"), |(_, rest)| format!("{parent}.resource.{rest}")),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostics)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_what_a_request_has_in_headers_and_body() {
        for (inner, expected) in [
            ("Patient.name[0].given", "Bundle.entry[7].resource.name[0].given"),
            ("Patient", "Bundle.entry[7].resource"),
            ("resourceType", "Bundle.entry[7].resource.resourceType"),
            ("meta.versionId", "Bundle.entry[7].resource.meta.versionId"),
            ("http.If-Match", "Bundle.entry[7].request.ifMatch"),
            ("http.If-None-Match", "Bundle.entry[7].request.ifNoneMatch"),
            ("http.If-None-Exist", "Bundle.entry[7].request.ifNoneExist"),
            ("http.Prefer", "Bundle.entry[7]"),
            ("request.url", "Bundle.entry[7].request.url"),
            ("fullUrl", "Bundle.entry[7].fullUrl"),
        ] {
            let failure = Failure::new(Kind::Invalid, "wrong").at(inner).within("Bundle.entry[7]");
            assert_eq!((failure.expression.as_deref(), &*failure.diagnostics), (Some(expected), "Bundle.entry[7]: wrong"));
        }
        let moved = Failure::new(Kind::Invalid, "wrong").moved_into("Bundle.entry[7]");
        assert_eq!((moved.expression.as_deref(), &*moved.diagnostics), (Some("Bundle.entry[7]"), "wrong"));
    }
}
