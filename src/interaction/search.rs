//! Search, <https://hl7.org/fhir/R4/http.html#search>: from a typed search to a Bundle with links.

use form_urlencoded::Serializer;
use serde_json::json;

use super::{Done, Env, Reply};
use crate::fhir::raw::{self, quote};
use crate::fhir::{Failure, Kind, ResourceId, outcome};
use crate::search::{Cursor, Search, Total};
use crate::sim::{Page, Snapshot, Stored};

/// A search as it was asked.
#[derive(Debug)]
pub struct Request {
    /// The type searched; none is all.
    pub type_name: Option<&'static str>,
    /// The parameters of URL and body.
    pub parameters: Vec<(String, String)>,
    /// `Prefer: handling=strict`: what is unknown is refused.
    pub strict: bool,
}

/// Searches, and makes the page.
///
/// # Errors
/// A value that cannot be read; with `strict`, a parameter that is unknown.
pub fn perform(request: &Request, snapshot: &Snapshot, env: &Env<'_>) -> Result<Reply, Failure> {
    let mut search = Search::parse(&request.parameters, request.type_name, snapshot.version())?;
    if request.strict {
        search = search.strict()?;
    }
    // Within a Bundle, that is the event it becomes.
    let cursor = search.cursor.unwrap_or(Cursor { as_of: env.stamp.event, offset: 0 });
    let page = if cursor.as_of < snapshot.last_event() {
        snapshot.as_of(cursor.as_of)?.search(&search, cursor.offset, search.count, env.now_ms)?
    } else {
        snapshot.search(&search, cursor.offset, search.count, env.now_ms)?
    };
    let text = bundle(request, &search, cursor, &page, env)?;
    Ok(Reply { body: Some(text.into_bytes().into()), ..Reply::new(Done::Ok) })
}

/// The first `most` resources that a condition in the form of a search matches; what is unknown in it is refused, for a
/// condition that is left out would match everything.
pub(super) fn matching(type_name: &'static str, query: &str, what: &str, most: usize, snapshot: &Snapshot, env: &Env<'_>) -> Result<Page, Failure> {
    let query = query.strip_prefix('?').unwrap_or(query);
    let query = query.strip_prefix(type_name).and_then(|q| q.strip_prefix('?')).unwrap_or(query);
    let named = |f: Failure| Failure { diagnostics: format!("{what}: {}", f.diagnostics), ..f };
    let search = Search::parse(&super::target::pairs(query), Some(type_name), snapshot.version()).and_then(Search::strict).map_err(named)?;
    if search.filters.is_empty() {
        let message = format!("{what} '{}' has no search parameter; a condition must name at least one", crate::fhir::id::clip(query));
        return Err(Failure::new(Kind::BadValue, message));
    }
    snapshot.search(&search, 0, most, env.now_ms)
}

/// The id that a stored resource says it has.
pub(super) fn id_of(stored: &Stored) -> Result<ResourceId, Failure> {
    let text = std::str::from_utf8(&stored.body).unwrap_or_default();
    let id = raw::member(text, 0, "id").map(|span| raw::string(&text[span]).into_owned()).unwrap_or_default();
    id.parse().map_err(|f: Failure| Failure { kind: Kind::Damaged, ..f })
}

fn bundle(request: &Request, search: &Search, cursor: Cursor, page: &Page, env: &Env<'_>) -> Result<String, Failure> {
    let links = Links { request, search, cursor, total: page.total, env };
    let mut out = String::with_capacity(1_024 + page.hits.iter().map(|h| h.body.len() + 150).sum::<usize>());
    out.push_str("{\"resourceType\":\"Bundle\",\"id\":\"");
    out.push_str(ResourceId::random().as_str());
    out.push_str("\",\"meta\":{\"lastUpdated\":\"");
    out.push_str(&crate::clock::instant(env.now_ms));
    out.push_str("\"},\"type\":\"searchset\"");
    if search.total != Total::None {
        out.push_str(&format!(",\"total\":{}", page.total));
    }
    out.push_str(",\"link\":[");
    out.push_str(&links.all());
    out.push(']');
    let mut entries = Vec::with_capacity(page.hits.len() + 1);
    for hit in &page.hits {
        let id = id_of(hit)?;
        let body = std::str::from_utf8(&hit.body).map_err(|e| Failure::new(Kind::Damaged, e.to_string()))?;
        entries
            .push(format!("{{\"fullUrl\":{},\"resource\":{body},\"search\":{{\"mode\":\"match\"}}}}", quote(&format!("{}/{}/{id}", env.base, hit.type_name))));
    }
    if !search.ignored.is_empty() {
        let messages: Vec<String> = search.ignored.iter().map(|f| f.diagnostics.clone()).collect();
        let outcome = outcome::informational("warning", "not-supported", &messages);
        entries.push(json!({"resource": outcome, "search": {"mode": "outcome"}}).to_string());
    }
    if !entries.is_empty() {
        out.push_str(",\"entry\":[");
        out.push_str(&entries.join(","));
        out.push(']');
    }
    out.push('}');
    Ok(out)
}

/// The links of a page. They repeat what was executed and say as of which event, so that a page neither skips nor repeats
/// while others write.
struct Links<'a> {
    request: &'a Request,
    search: &'a Search,
    cursor: Cursor,
    total: usize,
    env: &'a Env<'a>,
}

impl Links<'_> {
    fn all(&self) -> String {
        let count = self.search.count;
        let here = self.cursor.offset;
        let mut links = vec![("self", self.url((here > 0).then_some(here)))];
        if count > 0 {
            links.push(("first", self.url(Some(0))));
            if here > 0 {
                links.push(("previous", self.url(Some(here.saturating_sub(count)))));
            }
            if here.saturating_add(count) < self.total {
                links.push(("next", self.url(Some(here + count))));
            }
            // Pages are counted from where this one began.
            let ahead = self.total.saturating_sub(1).saturating_sub(here % count) / count * count;
            links.push(("last", self.url(Some(if self.total > here % count { here % count + ahead } else { 0 }))));
        }
        let shown: Vec<String> = links.into_iter().map(|(relation, url)| format!("{{\"relation\":\"{relation}\",\"url\":{}}}", quote(&url))).collect();
        shown.join(",")
    }

    fn url(&self, offset: Option<usize>) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in &self.search.applied {
            // The count is shown as it was executed, cut to the limit.
            if name != "_count" {
                query.append_pair(name, value);
            }
        }
        query.append_pair("_count", &self.search.count.to_string());
        if let Some(offset) = offset {
            query.append_pair("_cursor", &Cursor { offset, ..self.cursor }.to_string());
        }
        let path = self.request.type_name.map(|t| format!("/{t}")).unwrap_or_default();
        format!("{}{path}?{}", self.env.base, query.finish())
    }
}
