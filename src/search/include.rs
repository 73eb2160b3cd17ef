//! `_include` and `_revinclude`, <https://hl7.org/fhir/R4/search.html#include>: what comes along with the matches.

use super::params::{Param, Params};
use crate::fhir::definitions::ParamType;
use crate::fhir::id::clip;
use crate::fhir::{Failure, FhirVersion, Kind};

/// What is to come along.
#[derive(Clone, Debug)]
pub struct Include {
    /// Resources that refer to the matches, and not those that the matches refer to.
    pub reverse: bool,
    /// Again for what came along.
    pub iterate: bool,
    /// The type of the resource that refers; none is any.
    pub source: Option<&'static str>,
    /// The parameter of the reference; none is all.
    pub code: Option<String>,
    /// The type that is referred to.
    pub target: Option<&'static str>,
}

impl Include {
    /// Reads `Observation:subject:Patient`; the inner error leaves it out.
    ///
    /// # Errors
    /// The modifier is unknown.
    pub fn read(reverse: bool, modifier: Option<&str>, value: &str, params: &Params) -> Result<Result<Self, Failure>, Failure> {
        let name = if reverse { "_revinclude" } else { "_include" };
        let again = if params.version == FhirVersion::Stu3 { "recurse" } else { "iterate" };
        let iterate = match modifier {
            None => false,
            Some(other) if other == again => true,
            Some(other) => {
                return Err(Failure::new(Kind::NotSupported, format!("modifier '{}' is not supported for {name}; known here: {again}", clip(other))));
            }
        };
        let left_out = |reason: String| Ok(Err(Failure::new(Kind::NotSupported, format!("{name} '{}': {reason}", clip(value)))));
        let mut include = Self { reverse, iterate, source: None, code: None, target: None };
        if value == "*" {
            return Ok(Ok(include));
        }
        let mut parts = value.split(':');
        let (source, code, target) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let Some(code) = code.filter(|_| parts.next().is_none()) else {
            return left_out("expected [type]:[parameter], [type]:[parameter]:[target type], [type]:* or *".to_owned());
        };
        let definitions = params.definitions();
        match definitions.resource_type(source) {
            Ok(source) => include.source = Some(source),
            Err(failure) => return left_out(failure.diagnostics),
        }
        if let Some(target) = target.filter(|t| !t.is_empty()) {
            match definitions.resource_type(target) {
                Ok(target) => include.target = Some(target),
                Err(failure) => return left_out(failure.diagnostics),
            }
        }
        if code != "*" {
            let own = params.of(source);
            match own.get(code) {
                Some(param) if param.kind != ParamType::Reference => {
                    return left_out(format!("'{code}' is a {} parameter; only references can be included", param.kind.code()));
                }
                Some(param) if include.target.is_some_and(|t| !param.can_target(t)) => {
                    return left_out(format!("'{code}' cannot refer to a {}", include.target.unwrap_or_default()));
                }
                Some(_) => include.code = Some(code.to_owned()),
                None => {
                    let known: Vec<&str> = own.list.iter().filter(|p| p.kind == ParamType::Reference).map(|p| &*p.code).collect();
                    return left_out(format!("unknown search parameter '{}' for {source}; references are {}", clip(code), known.join(", ")));
                }
            }
        }
        Ok(Ok(include))
    }

    /// The reference parameters of `source` that it is about.
    pub fn params<'p>(&'p self, source: &str, params: &'p Params) -> impl Iterator<Item = &'p std::sync::Arc<Param>> + 'p {
        let wanted = self.source.is_none_or(|s| s == source);
        let all = params.of(source).list.iter().filter(move |p| wanted && p.kind == ParamType::Reference);
        all.filter(|p| self.code.as_ref().is_none_or(|code| *code == *p.code) && self.target.is_none_or(|t| p.can_target(t)))
    }
}
