//! URI parameters, <https://hl7.org/fhir/R4/search.html#uri>: the whole URI, case and all.

use std::sync::Arc;

use serde_json::Value;

use super::super::params::Param;
use super::super::parse::Modifier;
use super::super::path::Node;
use super::{Env, bad_value, unescape};
use crate::fhir::Failure;
use crate::query::text::normalise;
use crate::query::{KeysBuilder, Query};

/// Adds the key of a value; returns whether it was a URI.
pub fn index(param: &Param, node: &Node<'_>, keys: &mut KeysBuilder) -> usize {
    let Value::String(text) = node.value else { return 0 };
    keys.term(&[&param.name, "\u{1f}l", text]);
    1
}

/// The query of one search value; of a definition, its version may follow, <https://hl7.org/fhir/R4/references.html#canonical>.
#[must_use]
pub fn query(param: &Param, value: &str) -> Query {
    let url = unescape(value);
    let whole = Query::term(&param.key('l', &url));
    let (Some(type_name), Some((url, version))) = (param.name.strip_suffix("/url"), url.split_once('|')) else { return whole };
    Query::or(vec![whole, Query::and(vec![Query::term(&param.key('l', url)), Query::term(&format!("{type_name}/version\u{1f}c{version}"))])])
}

/// The query of one search value with a modifier.
///
/// # Errors
/// `:above` and `:below` of what has no hierarchy, a URN.
pub fn modified(param: &Arc<Param>, modifier: Modifier, value: &str, env: &Env<'_>) -> Result<Query, Failure> {
    let url = unescape(value);
    match modifier {
        Modifier::Above | Modifier::Below if !url.contains("://") => {
            Err(bad_value(param, value, "a URL: only URLs have something above and below, not URNs and names; leave the modifier out"))
        }
        Modifier::Below => Ok(Query::or(vec![Query::term(&param.key('l', url.trim_end_matches('/'))), Query::prefix(&param.key('l', &directory(&url)))])),
        Modifier::Above => {
            let authority = url.find("://").map_or(0, |at| at + 3);
            let ends = url.match_indices('/').map(|(at, _)| at).filter(|at| *at > authority);
            // `http://a/b` is above `http://a/b/c`, written with or without the slash.
            let mut above: Vec<Box<str>> = ends.flat_map(|at| [url[..at].into(), url[..=at].into()]).collect();
            above.push(url.as_str().into());
            Ok(Query::terms_of(&param.key('l', ""), above))
        }
        // Without case and accents, as of strings, <https://hl7.org/fhir/R5/search.html#modifiers>.
        Modifier::Contains => {
            let wanted = normalise(&url);
            let holds = move |found: &[Node<'_>]| found.iter().filter_map(|n| n.value.as_str()).any(|text| normalise(text).contains(&wanted));
            Ok(Query::Verify(Box::new(Query::prefix(&param.key('l', ""))), env.on_values(param, holds)))
        }
        _ => Ok(query(param, value)),
    }
}

fn directory(url: &str) -> String {
    format!("{}/", url.trim_end_matches('/'))
}
