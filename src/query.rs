//! The boolean tree that both indexes execute, and the keys of a resource that it is executed on.
//!
//! A resource is indexed under *terms* (strings that begin with the parameter they belong to, such as
//! `Patient.gender␟cfemale`) and *columns* (64-bit numbers under a name, such as the bounds of a date in microseconds).
//! `search` makes both the keys and the trees; `index` compares them without knowing what they mean.

use std::fmt;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHasher;

pub mod text;

pub use text::{Text, TextField};

/// Longest term in bytes; what is longer is cut and ends in a hash, so that equality still decides.
pub const MAX_TERM_BYTES: usize = 1_000;

/// What a search asks of one resource's keys.
#[derive(Clone, Debug)]
pub enum Query {
    /// Every resource.
    All,
    /// No resource.
    None,
    /// The resource has this term.
    Term(Box<str>),
    /// The resource has a term `t` with `from <= t < to`.
    TermRange {
        /// Least term.
        from: Box<str>,
        /// First term beyond; `None` is the end of all terms.
        to: Option<Box<str>>,
    },
    /// The resource has a term that begins with `prefix` and holds `part` after it.
    TermContains {
        /// What the term begins with.
        prefix: Box<str>,
        /// What the rest of the term contains.
        part: Box<str>,
        /// Whether the part must be its end.
        at_end: bool,
    },
    /// The resource has a term that is `prefix` and one of these.
    TermsOf {
        /// What the term begins with.
        prefix: Box<str>,
        /// What may follow; sorted, each once.
        rest: Arc<[Box<str>]>,
    },
    /// The resource's text fulfils this.
    Text(TextField, Arc<Text>),
    /// The resource has a value `v` in the column with `from <= v <= to`.
    Column {
        /// The column's name.
        column: Box<str>,
        /// Least value.
        from: i64,
        /// Greatest value.
        to: i64,
    },
    /// Every one of these.
    And(Vec<Query>),
    /// At least one of these.
    Or(Vec<Query>),
    /// Not this.
    Not(Box<Query>),
    /// Both the tree and an exact check of the stored resource, for what terms alone cannot decide.
    Verify(Box<Query>, Check),
}

/// A decision that needs the stored resource itself.
#[derive(Clone)]
pub struct Check(pub Arc<Decide>);

/// Decides from a stored resource, byte for byte.
pub type Decide = dyn Fn(&[u8]) -> bool + Send + Sync;

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check")
    }
}

impl Query {
    /// The resource has `term`.
    #[must_use]
    pub fn term(term: &str) -> Self {
        Self::Term(bounded(term).into())
    }

    /// The resource has a term that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        let prefix = cut(prefix, MAX_TERM_BYTES - 32);
        Self::TermRange { from: prefix.into(), to: Self::end_of(prefix) }
    }

    /// The first term beyond all that begin with `prefix`; none is the end of all terms.
    #[must_use]
    pub fn end_of(prefix: &str) -> Option<Box<str>> {
        successor(prefix).map(Into::into)
    }

    /// The resource has a term that is `prefix` and one of `rest`.
    #[must_use]
    pub fn terms_of(prefix: &str, mut rest: Vec<Box<str>>) -> Self {
        rest.sort_unstable();
        rest.dedup();
        match &rest[..] {
            [] => Self::None,
            [one] => Self::term(&format!("{prefix}{one}")),
            _ => Self::TermsOf { prefix: prefix.into(), rest: rest.into() },
        }
    }

    /// All of `parts`, flattened.
    #[must_use]
    pub fn and(parts: Vec<Self>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::All => {}
                Self::None => return Self::None,
                Self::And(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Self::All,
            1 => flat.remove(0),
            _ => Self::And(flat),
        }
    }

    /// Any of `parts`, flattened.
    #[must_use]
    pub fn or(parts: Vec<Self>) -> Self {
        let mut flat = Vec::with_capacity(parts.len());
        for part in parts {
            match part {
                Self::None => {}
                Self::All => return Self::All,
                Self::Or(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Self::None,
            1 => flat.remove(0),
            _ => Self::Or(flat),
        }
    }

    /// Not `part`.
    #[must_use]
    pub fn negate(part: Self) -> Self {
        match part {
            Self::All => Self::None,
            Self::None => Self::All,
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// The same without checks: whatever resource it wants, this wants, too.
    #[must_use]
    pub fn widened(&self) -> Self {
        match self {
            Self::Verify(inner, _) => inner.widened(),
            Self::And(parts) => Self::and(parts.iter().map(Self::widened).collect()),
            Self::Or(parts) => Self::or(parts.iter().map(Self::widened).collect()),
            // What is not wanted must not become more.
            Self::Not(inner) if inner.has_check() => Self::All,
            other => other.clone(),
        }
    }

    fn has_check(&self) -> bool {
        match self {
            Self::Verify(..) => true,
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::has_check),
            Self::Not(inner) => inner.has_check(),
            _ => false,
        }
    }

    /// What deciding for one resource costs, in steps of a budget.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::weight).sum(),
            Self::Not(part) => part.weight(),
            // What it is narrowed down by decides most of the time.
            Self::Verify(part, _) => part.weight() + 1,
            Self::Text(..) => 50,
            Self::All | Self::None | Self::Term(_) | Self::TermRange { .. } | Self::TermContains { .. } | Self::TermsOf { .. } | Self::Column { .. } => 1,
        }
    }

    /// How many times it looks through the terms of a resource instead of looking one up.
    #[must_use]
    pub fn scans(&self) -> u64 {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().map(Self::scans).sum(),
            Self::Not(part) | Self::Verify(part, _) => part.scans(),
            Self::TermContains { .. } | Self::TermsOf { .. } => 1,
            Self::All | Self::None | Self::Term(_) | Self::TermRange { .. } | Self::Column { .. } | Self::Text(..) => 0,
        }
    }

    /// Hashes of terms of which a wanted resource has at least one; `None` if there are no such terms.
    #[must_use]
    pub fn needed_terms(&self) -> Option<Vec<u64>> {
        match self {
            Self::None => Some(Vec::new()),
            Self::Term(term) => Some(vec![hash(term)]),
            Self::And(parts) => parts.iter().filter_map(Self::needed_terms).min_by_key(Vec::len),
            Self::Or(parts) => parts.iter().map(Self::needed_terms).collect::<Option<Vec<_>>>().map(|all| all.concat()),
            Self::Verify(part, _) => part.needed_terms(),
            Self::TermsOf { prefix, rest } if rest.len() <= 1_000 => Some(rest.iter().map(|r| hash(&format!("{prefix}{r}"))).collect()),
            Self::All | Self::TermRange { .. } | Self::TermContains { .. } | Self::TermsOf { .. } | Self::Column { .. } | Self::Not(_) | Self::Text(..) => None,
        }
    }

    /// Decides for the keys of a single value, whose bounds belong together without a check.
    #[must_use]
    pub fn matches_alone(&self, keys: &Keys) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|p| p.matches_alone(keys)),
            Self::Or(parts) => parts.iter().any(|p| p.matches_alone(keys)),
            Self::Not(part) => !part.matches_alone(keys),
            Self::Verify(part, _) => part.matches_alone(keys),
            other => other.matches(keys, &|| None),
        }
    }

    /// Decides for one resource's keys; `body` yields the stored resource for the exact checks.
    pub fn matches(&self, keys: &Keys, body: &dyn Fn() -> Option<Arc<[u8]>>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Term(term) => keys.has(term),
            Self::TermRange { from, to } => keys.terms_from(from).next().is_some_and(|t| to.as_deref().is_none_or(|to| t < to)),
            Self::TermContains { prefix, part, at_end } => {
                keys.terms_with(prefix).any(|rest| if *at_end { rest.ends_with(&**part) } else { rest.contains(&**part) })
            }
            Self::TermsOf { prefix, rest } => keys.terms_with(prefix).any(|found| rest.binary_search_by(|r| (**r).cmp(found)).is_ok()),
            Self::Text(field, text) => body().is_some_and(|bytes| text.matches(&text::words_of(&bytes, *field))),
            Self::Column { column, from, to } => keys.columns().any(|(name, v)| name == &**column && *from <= v && v <= *to),
            Self::And(parts) => parts.iter().all(|p| p.matches(keys, body)),
            Self::Or(parts) => parts.iter().any(|p| p.matches(keys, body)),
            Self::Not(part) => !part.matches(keys, body),
            Self::Verify(part, check) => part.matches(keys, body) && body().is_some_and(|bytes| (check.0)(&bytes)),
        }
    }
}

/// The terms and column values of one resource.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    text: Box<str>,
    /// Spans of the sorted, distinct terms in `text`.
    terms: Box<[Range<u32>]>,
    /// Hashes of the terms, sorted: most lookups end here.
    hashes: Box<[u64]>,
    columns: Box<[(Box<str>, i64)]>,
}

impl Keys {
    /// Whether the resource has `term`.
    #[must_use]
    pub fn has(&self, term: &str) -> bool {
        self.hashes.binary_search(&hash(term)).is_ok() && self.terms.binary_search_by(|span| self.slice(span).cmp(term)).is_ok()
    }

    /// How many terms it has.
    #[must_use]
    pub fn term_count(&self) -> usize {
        self.terms.len()
    }

    /// Hashes of the terms, sorted.
    #[must_use]
    pub fn term_hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// All terms, sorted.
    pub fn terms(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|span| self.slice(span))
    }

    /// The terms from `from` on, sorted.
    pub fn terms_from(&self, from: &str) -> impl Iterator<Item = &str> {
        let start = self.terms.partition_point(|span| self.slice(span) < from);
        self.terms[start..].iter().map(|span| self.slice(span))
    }

    /// What follows `prefix` in the terms that begin with it, sorted.
    pub fn terms_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.terms_from(prefix).map_while(move |t| t.strip_prefix(prefix))
    }

    /// All column values, with the name of their column.
    pub fn columns(&self) -> impl Iterator<Item = (&str, i64)> {
        self.columns.iter().map(|(name, value)| (&**name, *value))
    }

    fn slice(&self, span: &Range<u32>) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }
}

/// Collects the keys of one resource.
#[derive(Debug, Default)]
pub struct KeysBuilder {
    text: String,
    terms: Vec<Range<u32>>,
    columns: Vec<(Box<str>, i64)>,
}

impl KeysBuilder {
    /// Adds the term that is the concatenation of `parts`.
    pub fn term(&mut self, parts: &[&str]) {
        let start = self.text.len();
        for part in parts {
            self.text.push_str(part);
        }
        if self.text.len() - start > MAX_TERM_BYTES {
            let short = bounded(&self.text[start..]).into_owned();
            self.text.truncate(start);
            self.text.push_str(&short);
        }
        // Keys of one resource beyond 4 GiB of text cannot come from a body within any limit.
        let span = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.terms.push(span(start)..span(self.text.len()));
    }

    /// Adds a value to a column.
    pub fn column(&mut self, name: &str, value: i64) {
        self.columns.push((name.into(), value));
    }

    /// The finished keys.
    #[must_use]
    pub fn build(self) -> Keys {
        let Self { text, mut terms, columns } = self;
        let slice = |span: &Range<u32>| &text[span.start as usize..span.end as usize];
        // Parameters come by name, so most of it is in order: a sort that sees that is the faster one here.
        terms.sort_by(|a, b| slice(a).cmp(slice(b)));
        terms.dedup_by(|a, b| slice(a) == slice(b));
        let mut hashes: Vec<u64> = terms.iter().map(|span| hash(slice(span))).collect();
        hashes.sort_unstable();
        Keys { hashes: hashes.into(), terms: terms.into(), columns: columns.into(), text: text.into() }
    }
}

fn hash(term: &str) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(term.as_bytes());
    hasher.finish()
}

/// `term`, or where it is too long its beginning and a hash of the whole.
fn bounded(term: &str) -> std::borrow::Cow<'_, str> {
    if term.len() <= MAX_TERM_BYTES {
        return term.into();
    }
    format!("{}#{:016x}", cut(term, MAX_TERM_BYTES - 32), hash(term)).into()
}

fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The least string greater than every string that begins with `prefix`.
fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let mut b = KeysBuilder::default();
        b.term(&["name", "\u{1f}", "anna"]);
        b.term(&["name", "\u{1f}", "zoë"]);
        b.term(&["name", "\u{1f}", "anna"]);
        b.column("date", 5);
        b.build()
    }

    #[test]
    fn trees_decide() {
        let k = keys();
        let no_body: &dyn Fn() -> Option<Arc<[u8]>> = &|| None;
        assert_eq!(k.terms().count(), 2);
        for (query, expected) in [
            (Query::term("name\u{1f}anna"), true),
            (Query::term("name\u{1f}ann"), false),
            (Query::prefix("name\u{1f}zo"), true),
            (Query::prefix("name\u{1f}b"), false),
            (Query::TermContains { prefix: "name\u{1f}".into(), part: "nn".into(), at_end: false }, true),
            (Query::TermContains { prefix: "name\u{1f}".into(), part: "name".into(), at_end: false }, false),
            (Query::TermContains { prefix: "name\u{1f}".into(), part: "na".into(), at_end: true }, true),
            (Query::terms_of("name\u{1f}", vec!["bob".into(), "anna".into()]), true),
            (Query::terms_of("name\u{1f}", vec!["bob".into(), "an".into()]), false),
            (Query::Column { column: "date".into(), from: 5, to: 5 }, true),
            (Query::Column { column: "date".into(), from: 6, to: 9 }, false),
            (Query::negate(Query::and(vec![Query::All, Query::term("x")])), true),
            (Query::or(vec![Query::None, Query::None]), false),
        ] {
            assert_eq!(query.matches(&k, no_body), expected, "{query:?}");
        }
    }

    #[test]
    fn long_terms_stay_distinct() {
        let (a, b) = ("x".repeat(5_000), "x".repeat(4_999) + "y");
        let mut builder = KeysBuilder::default();
        builder.term(&[&a]);
        let keys = builder.build();
        let no_body: &dyn Fn() -> Option<Arc<[u8]>> = &|| None;
        assert!(Query::term(&a).matches(&keys, no_body) && !Query::term(&b).matches(&keys, no_body));
        assert!(keys.terms().all(|t| t.len() <= MAX_TERM_BYTES));
    }
}
