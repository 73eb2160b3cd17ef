//! The parameter types: one file each, with how values are indexed and how a search value is compiled.
//!
//! The keys of a parameter begin with its name and a letter for the class of key:
//!
//! | class | key |
//! |---|---|
//! | `!` | the parameter has a value |
//! | `#` | it has several intervals, so that both bounds of one must be checked exactly |
//! | `c` `t` `y` | token: code; `system\|code`; system |
//! | `s` `x` | string: normalised; exact |
//! | `r` `i` `u` | reference: `Type/id`; id; absolute URL or canonical |
//! | `l` | uri |
//! | `a` `b` | number: low and high bound as sortable text |
//! | columns `<` `>` | date: low and high bound in microseconds |

pub mod date;
pub mod number;
pub mod reference;
pub mod string;
pub mod token;
pub mod uri;

use crate::fhir::id::clip;
use crate::fhir::{Failure, Kind};
use crate::query::{Check, Query};

use super::params::Param;

/// How a search value compares, <https://hl7.org/fhir/R4/search.html#prefix>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// The value lies within the search value's interval.
    Eq,
    /// It does not.
    Ne,
    /// Some of it is beyond the interval.
    Gt,
    /// Some of it is before the interval.
    Lt,
    /// `Gt` or `Eq`.
    Ge,
    /// `Lt` or `Eq`.
    Le,
    /// All of it is beyond the interval.
    Sa,
    /// All of it is before the interval.
    Eb,
    /// It overlaps the interval widened by a tenth.
    Ap,
}

impl Prefix {
    /// All nine, with their spelling.
    pub const ALL: [(&'static str, Self); 9] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("gt", Self::Gt),
        ("lt", Self::Lt),
        ("ge", Self::Ge),
        ("le", Self::Le),
        ("sa", Self::Sa),
        ("eb", Self::Eb),
        ("ap", Self::Ap),
    ];

    /// Takes the prefix off a search value; without one it is `Eq`.
    #[must_use]
    pub fn split(text: &str) -> (Self, &str) {
        for (spelling, prefix) in Self::ALL {
            if let Some(rest) = text.strip_prefix(spelling) {
                return (prefix, rest);
            }
        }
        (Self::Eq, text)
    }
}

/// A search value that its type cannot read.
#[must_use]
pub fn bad_value(param: &Param, value: &str, expected: &str) -> Failure {
    Failure::new(Kind::BadValue, format!("search parameter '{}': '{}' is not {expected}", param.def.code, clip(value)))
}

/// Splits at each `separator` that no backslash escapes; the parts keep their escapes.
#[must_use]
pub fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == separator {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Undoes `\,` `\|` `\$` `\\`, <https://hl7.org/fhir/R4/search.html#escaping>; another backslash stands for itself.
#[must_use]
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next) if c == '\\' && matches!(next, ',' | '|' | '$' | '\\') => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}

/// Two conditions on the bounds of one interval: exact by themselves for a resource with a single interval, to be checked
/// on the resource where there are several.
#[must_use]
pub fn paired(param: &Param, conditions: Vec<Query>, check: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Query {
    let both = Query::and(conditions);
    let several = Query::term(&param.key('#', ""));
    let checked = Query::Verify(Box::new(Query::and(vec![both.clone(), several.clone()])), Check(std::sync::Arc::new(check)));
    Query::or(vec![Query::and(vec![both, Query::negate(several)]), checked])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_after_splitting() {
        let parts: Vec<String> = split_unescaped(r"a\,b,c\\,d\x", ',').into_iter().map(unescape).collect();
        assert_eq!(parts, ["a,b", r"c\", r"d\x"]);
        assert_eq!(split_unescaped("", ','), [""]);
    }
}
