//! The one table from outcomes to HTTP status codes, which FHIR also writes into the entries of a Bundle.

use super::Done;
use crate::fhir::Kind;

/// The status of a refusal, <https://hl7.org/fhir/R4/http.html#Status-Codes>.
#[must_use]
pub fn of_failure(kind: Kind) -> u16 {
    match kind {
        Kind::Malformed | Kind::Invalid | Kind::BadValue | Kind::NotSupported => 400,
        Kind::Unauthorized | Kind::NoToken => 401,
        Kind::Forbidden | Kind::OutOfScope | Kind::TooCostly => 403,
        Kind::UnknownType | Kind::UnknownSimulator | Kind::NotFound => 404,
        Kind::MethodNotAllowed => 405,
        Kind::NotAcceptable => 406,
        Kind::Timeout => 408,
        Kind::Conflict => 409,
        Kind::Deleted => 410,
        Kind::PreconditionFailed | Kind::MultipleMatches => 412,
        Kind::TooLarge => 413,
        Kind::UnsupportedMediaType => 415,
        Kind::Unprocessable => 422,
        Kind::PreconditionRequired => 428,
        Kind::TooMany => 429,
        Kind::Damaged | Kind::Internal => 500,
        Kind::Storage => 507,
    }
}

/// The status of a success whose response has a body, or not.
#[must_use]
pub fn of_success(done: Done, has_body: bool) -> u16 {
    match done {
        Done::Ok => 200,
        Done::Created => 201,
        Done::Deleted if has_body => 200,
        Done::Deleted => 204,
        Done::NotModified => 304,
    }
}

/// The status with its phrase, as `Bundle.entry.response.status` shows it.
#[must_use]
pub fn line(status: u16) -> String {
    let phrase = match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        422 => "Unprocessable Entity",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        507 => "Insufficient Storage",
        _ => "",
    };
    format!("{status} {phrase}").trim_end().to_owned()
}
