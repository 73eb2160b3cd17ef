//! From the pairs of a query string to a typed search.

use std::fmt;
use std::str::FromStr;

use super::condition::{Condition, Reader};
use super::include::Include;
use super::param::{Prefix, reference, split_unescaped};
use super::params::{Param, Params};
use crate::clock::EventId;
use crate::fhir::definitions::ParamType;
use crate::fhir::id::clip;
use crate::fhir::subset::{self, Subset};
use crate::fhir::{Definitions, Failure, FhirVersion, Kind};

/// Most parameters of one search.
pub const MAX_PARAMETERS: usize = 500;
/// Most values of one parameter, separated by commas.
pub const MAX_VALUES: usize = 1_000;
/// Entries on a page where `_count` does not say.
pub const DEFAULT_COUNT: usize = 20;
/// Most entries on a page; a greater `_count` is cut to it.
pub const MAX_COUNT: usize = 1_000;

/// Most keys of an order.
const MAX_SORT: usize = 8;
/// Most names in `_elements`.
const MAX_ELEMENTS: usize = 200;
/// The parameters that shape the result, <https://hl7.org/fhir/R4/search.html#return>, and those that are this server's.
pub(super) const RESULT: [&str; 14] = [
    "_format",
    "_pretty",
    "_type",
    "_count",
    "_sort",
    "_total",
    "_summary",
    "_elements",
    "_contained",
    "_containedType",
    "_include",
    "_revinclude",
    "_cursor",
    "_explain",
];
/// Those that came with R5.
pub(super) const RESULT_R5: [&str; 2] = ["_maxresults", "_score"];
const FLAG: [(&str, bool); 2] = [("true", true), ("false", false)];

/// A search whose parameters are known, its values still text.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own")]
pub struct Search {
    /// The types searched; all of the version for a system search without `_type`.
    pub types: Vec<&'static str>,
    /// What must hold, all of it, with the parameter that asks for it.
    pub conditions: Vec<(String, Condition)>,
    /// The order.
    pub sort: Vec<Sort>,
    /// Entries on a page; 0 asks for the total alone.
    pub count: usize,
    /// Whether the total alone is wanted, whatever `_count` says.
    counted: bool,
    /// Most matches there may be in all.
    pub max_results: Option<usize>,
    /// Whether the Bundle has a total.
    pub total: Total,
    /// What of each resource is wanted.
    pub subset: Subset,
    /// What is to come along.
    pub includes: Vec<Include>,
    /// Whether something is asked to come along, understood or not.
    has_includes: bool,
    /// Whether resources inside others are searched.
    pub contained: Contained,
    /// Whether a match inside another is returned by itself, and not within the other.
    pub contained_alone: bool,
    /// Whether scores are wanted.
    pub score: bool,
    /// Whether the search is to be explained.
    pub explain: bool,
    /// Where the page begins.
    pub cursor: Option<Cursor>,
    /// The parameters that take effect, as they came: what the self link shows.
    pub applied: Vec<(String, String)>,
    /// What was not understood and left out.
    pub ignored: Vec<Failure>,
}

/// What changes how a parameter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modifier {
    /// Nothing.
    None,
    /// `:missing`.
    Missing,
    /// `:exact`.
    Exact,
    /// `:contains`.
    Contains,
    /// `:text`.
    Text,
    /// `:text-advanced`.
    TextAdvanced,
    /// `:code-text`.
    CodeText,
    /// `:not`.
    Not,
    /// `:above`.
    Above,
    /// `:below`.
    Below,
    /// `:in`.
    In,
    /// `:not-in`.
    NotIn,
    /// `:of-type`.
    OfType,
    /// `:identifier`.
    Identifier,
    /// `:Patient`.
    Type(&'static str),
}

impl Modifier {
    /// The modifiers that the version's specification gives parameters like `param`, but for the names of types:
    /// <https://hl7.org/fhir/R4/search.html#modifiers>.
    #[must_use]
    pub fn of(param: &Param, version: FhirVersion) -> Vec<(&'static str, Self)> {
        let r4 = version >= FhirVersion::R4;
        let r5 = version >= FhirVersion::R5;
        let mut known = match param.kind {
            ParamType::Composite => return Vec::new(),
            ParamType::String => vec![("exact", true, Self::Exact), ("contains", true, Self::Contains), ("text", r5, Self::Text)],
            ParamType::Token => vec![
                ("text", true, Self::Text),
                ("not", true, Self::Not),
                ("above", true, Self::Above),
                ("below", true, Self::Below),
                ("in", true, Self::In),
                ("not-in", true, Self::NotIn),
                ("of-type", r4, Self::OfType),
                ("code-text", r5, Self::CodeText),
                ("text-advanced", r5, Self::TextAdvanced),
            ],
            ParamType::Reference => vec![
                ("identifier", r4, Self::Identifier),
                ("above", true, Self::Above),
                ("below", true, Self::Below),
                ("text", r5, Self::Text),
                ("code-text", r5, Self::CodeText),
                ("text-advanced", r5, Self::TextAdvanced),
            ],
            ParamType::Uri => vec![("above", true, Self::Above), ("below", true, Self::Below), ("contains", r5, Self::Contains)],
            ParamType::Number | ParamType::Date | ParamType::Quantity | ParamType::Special => Vec::new(),
        };
        known.insert(0, ("missing", true, Self::Missing));
        // Identifiers alone have a type, and not all that is referred to is part of something.
        let typed = param.path.types.iter().any(|t| t.base == "Identifier");
        let (above, below) = if param.kind == ParamType::Reference { reference::hierarchies(param, version) } else { (true, true) };
        let applies = |modifier: Self| match modifier {
            Self::OfType => typed,
            Self::Above => above,
            Self::Below => below,
            _ => true,
        };
        known
            .into_iter()
            .filter(|(name, there, modifier)| *there && applies(*modifier) && param.only.has_modifier(name))
            .map(|(name, _, modifier)| (name, modifier))
            .collect()
    }
}

/// `_contained`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Contained {
    /// Only resources that stand for themselves.
    #[default]
    False,
    /// Only those inside others.
    True,
    /// Both.
    Both,
}

/// One key of the order.
#[derive(Clone, Debug)]
pub struct Sort {
    /// The search parameter, or `_score`.
    pub code: String,
    /// Greatest first.
    pub descending: bool,
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.descending { "-" } else { "" }, self.code)
    }
}

/// `_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Total {
    /// Not wanted.
    None,
    /// An estimate would do; ours is always accurate.
    Estimate,
    /// Wanted.
    #[default]
    Accurate,
}

/// Where a page begins: as of which event, after how many matches, and where known after which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The simulator's last event when the first page was made.
    pub as_of: EventId,
    /// Matches before the page.
    pub offset: usize,
    /// The place of the last of them in the order, in the index's words: what comes before need not be sorted again.
    pub after: Option<String>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.as_of, self.offset)?;
        self.after.as_ref().map_or(Ok(()), |after| write!(f, ".{after}"))
    }
}

impl FromStr for Cursor {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let mut parts = text.splitn(3, '.');
        let parsed = (|| {
            let (as_of, offset) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { as_of, offset, after: parts.next().map(str::to_owned) })
        })();
        parsed.ok_or_else(|| Failure::new(Kind::BadValue, format!("_cursor '{}' is not one this server made; follow the links of a search result", clip(text))))
    }
}

/// What is searched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// A type; none is all.
    pub type_name: Option<&'static str>,
    /// The compartment of a resource.
    pub compartment: Option<(&'static str, &'a str)>,
}

impl Search {
    /// Reads a search of `scope`.
    ///
    /// # Errors
    /// A value of a result parameter or a modifier that cannot be understood; what is merely unknown goes to `ignored`.
    pub fn parse(pairs: &[(String, String)], scope: Scope<'_>, params: &Params) -> Result<Self, Failure> {
        if pairs.len() > MAX_PARAMETERS {
            return Err(Failure::new(Kind::TooCostly, format!("{} search parameters; at most {MAX_PARAMETERS} are accepted", pairs.len())));
        }
        let mut search = Self {
            types: types_of(pairs, scope, params.version)?,
            conditions: Vec::new(),
            sort: Vec::new(),
            count: DEFAULT_COUNT,
            counted: false,
            max_results: None,
            total: Total::default(),
            subset: Subset::All,
            includes: Vec::new(),
            has_includes: pairs.iter().any(|(name, _)| name.starts_with("_include") || name.starts_with("_revinclude")),
            contained: Contained::default(),
            contained_alone: false,
            score: false,
            explain: false,
            cursor: None,
            applied: Vec::new(),
            ignored: Vec::new(),
        };
        if let Some((type_name, id)) = scope.compartment {
            search.conditions.push((String::new(), Condition::Compartment(type_name, id.to_owned())));
        }
        let stu3 = params.version == FhirVersion::Stu3;
        for (name, value) in pairs {
            let place = if stu3 { Nearby::of(name) } else { None };
            match (name.as_str(), place) {
                ("_containedType", _) if !pairs.iter().any(|(n, v)| n == "_contained" && v != "false") => {
                    let message =
                        format!("_containedType '{}' was left out: it is about contained matches; ask for them by _contained=true or both", clip(value));
                    search.ignored.push(Failure::new(Kind::NotSupported, message));
                }
                ("_summary" | "_elements", _) if search.subset != Subset::All => {
                    let message = format!("{name} '{}' was left out: of _summary and _elements the first counts", clip(value));
                    search.ignored.push(Failure::new(Kind::NotSupported, message));
                }
                ("_type", _) if scope.type_name.is_some() => {
                    let message = format!("_type '{}' was left out: the URL names the type; without it, _type chooses among all", clip(value));
                    search.ignored.push(Failure::new(Kind::NotSupported, message));
                }
                // The distance belongs to the position.
                (_, Some(Nearby::Distance(of))) => search.distance(name, value, of, pairs),
                (_, Some(Nearby::Position(of))) => {
                    let distance = pairs.iter().find(|(n, v)| Nearby::of(n) == Some(Nearby::Distance(of)) && !v.is_empty());
                    match distance {
                        Some((_, distance)) => search.near(name, value, distance, params)?,
                        None => search.parameter(name, value, params)?,
                    }
                }
                _ => search.parameter(name, value, params)?,
            }
        }
        // <https://hl7.org/fhir/R4/search.html#summary>
        if search.subset == Subset::Text && !search.includes.is_empty() {
            search.includes.clear();
            search.applied.retain(|(name, _)| !name.starts_with("_include") && !name.starts_with("_revinclude"));
            let message = "_include and _revinclude were left out: they cannot be mixed with _summary=text; leave that out, or use _elements";
            search.ignored.push(Failure::new(Kind::NotSupported, message));
        }
        Ok(search)
    }

    /// Takes in STU3's `near-distance`, which `near` has read.
    fn distance(&mut self, name: &str, value: &str, of: &str, pairs: &[(String, String)]) {
        let message = match pairs.iter().find(|(n, v)| n == name && !v.is_empty()) {
            None => return self.ignored.push(no_value(name)),
            Some(_) if !pairs.iter().any(|(n, _)| Nearby::of(n) == Some(Nearby::Position(of))) => {
                format!("{} '{}' was left out: it is the distance of '{}near', which is not there", clip(name), clip(value), clip(of))
            }
            Some((_, first)) if first != value => {
                format!("{} '{}' was left out: it is given more than once, and the first counts", clip(name), clip(value))
            }
            Some(_) => return self.applied.push((name.to_owned(), value.to_owned())),
        };
        self.ignored.push(Failure::new(Kind::NotSupported, message));
    }

    /// Takes in STU3's `near`, whose positions all have the one distance.
    fn near(&mut self, name: &str, value: &str, distance: &str, params: &Params) -> Result<(), Failure> {
        let (before, distance) = (self.applied.len(), distance_of(distance)?);
        let positions = split_unescaped(value, ',').into_iter().filter(|position| !position.trim().is_empty());
        let nearby: Vec<String> = positions.map(|position| format!("{position}|{distance}")).collect();
        self.parameter(name, &nearby.join(","), params)?;
        if let Some(last) = self.applied.get_mut(before) {
            value.clone_into(&mut last.1);
        }
        Ok(())
    }

    /// The refusal of `handling=strict`, if there is something to refuse.
    ///
    /// # Errors
    /// Something was ignored.
    pub fn strict(self) -> Result<Self, Failure> {
        match self.ignored.first() {
            Some(first) => Err(first.clone()),
            None => Ok(self),
        }
    }

    /// Whether it asks something of the resources.
    #[must_use]
    pub fn has_conditions(&self) -> bool {
        !self.conditions.is_empty()
    }

    fn parameter(&mut self, name: &str, value: &str, params: &Params) -> Result<(), Failure> {
        let read = match self.result_parameter(name, value, params)? {
            Some(shaped) => shaped,
            None => Reader { params, types: &self.types, any: false, depth: 0 }
                .read(name, value)?
                .map(|condition| self.conditions.push((name.to_owned(), condition))),
        };
        if let Err(ignored) = read {
            self.ignored.push(ignored);
            return Ok(());
        }
        let is_text = matches!(name, "_text" | "_content" | "_filter" | "_cursor" | "_format" | "_include" | "_revinclude");
        if !is_text && split_unescaped(value, ',').iter().any(|part| part.trim().is_empty()) {
            let message = format!("'{}': the value '{}' has nothing between two commas, or before or after one, which was left out", clip(name), clip(value));
            self.ignored.push(Failure::new(Kind::BadValue, message));
        }
        // What is left out of a list is no part of what was executed.
        let executed = match (name, &self.subset) {
            ("_cursor", _) => return Ok(()),
            ("_sort", _) => self.sort.iter().map(Sort::to_string).collect::<Vec<_>>().join(","),
            ("_elements", Subset::Elements(names)) => names.join(","),
            _ if is_text => value.to_owned(),
            _ => split_unescaped(value, ',').into_iter().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join(","),
        };
        let pair = (name.to_owned(), executed);
        if !self.applied.contains(&pair) {
            self.applied.push(pair);
        }
        Ok(())
    }

    /// Takes in a parameter that shapes the result, or says why it is left out; none if it is not of that kind.
    fn result_parameter(&mut self, name: &str, value: &str, params: &Params) -> Result<Option<Result<(), Failure>>, Failure> {
        let (code, modifier) = name.split_once(':').map_or((name, None), |(code, modifier)| (code, Some(modifier)));
        if !RESULT.contains(&code) && (params.version < FhirVersion::R5 || !RESULT_R5.contains(&code)) {
            return Ok(None);
        }
        if let Some(modifier) = modifier.filter(|_| !matches!(code, "_include" | "_revinclude")) {
            let message = format!("modifier '{}' is not supported for '{code}'; known here: none", clip(modifier));
            return Err(Failure::new(Kind::NotSupported, message));
        }
        let is_list = matches!(code, "_type" | "_sort" | "_elements");
        if code != "_format" && value.trim_matches(|c| is_list && c == ',').is_empty() {
            return Ok(Some(Err(no_value(name))));
        }
        let before = self.applied.iter().find(|(before, _)| before == name);
        if !matches!(code, "_include" | "_revinclude" | "_type") && before.is_some_and(|(_, before)| before != value) {
            let message = format!("{code} '{}' was left out: {code} is given more than once, and the first counts", clip(value));
            return Ok(Some(Err(Failure::new(Kind::NotSupported, message))));
        }
        match code {
            "_count" if self.counted => _ = number(name, value)?,
            "_count" => self.count = number(name, value)?.min(MAX_COUNT),
            "_maxresults" => self.max_results = Some(number(name, value)?),
            "_total" => self.total = one_of(name, value, &[("none", Total::None), ("estimate", Total::Estimate), ("accurate", Total::Accurate)])?,
            "_summary" if value == "count" => (self.count, self.counted) = (0, true),
            "_summary" => self.subset = Subset::of_summary(value).ok_or_else(|| refused(name, value, "true, text, data, count or false"))?,
            "_elements" => return self.elements(value, self.has_includes, params).map(Some),
            "_contained" => self.contained = one_of(name, value, &[("false", Contained::False), ("true", Contained::True), ("both", Contained::Both)])?,
            "_containedType" => self.contained_alone = one_of(name, value, &[("container", false), ("contained", true)])?,
            "_score" => self.score = one_of(name, value, &FLAG)?,
            "_explain" => self.explain = one_of(name, value, &FLAG)?,
            "_cursor" => self.cursor = Some(value.parse()?),
            "_pretty" if !FLAG.iter().any(|(word, _)| *word == value) => return Ok(Some(Err(refused(name, value, "true or false")))),
            "_sort" => return self.sort(value, params).map(Some),
            "_include" | "_revinclude" => {
                let include = Include::read(code == "_revinclude", modifier, value, params)?;
                return Ok(Some(include.map(|include| self.includes.push(include))));
            }
            // Of no effect here, but a page's links must be answered as the page was.
            _ => {}
        }
        Ok(Some(Ok(())))
    }

    /// Takes in the elements; if none of them is known, says so.
    fn elements(&mut self, value: &str, has_includes: bool, params: &Params) -> Result<Result<(), Failure>, Failure> {
        let mut names = Subset::names(value);
        if names.len() > MAX_ELEMENTS {
            return Err(Failure::new(Kind::TooCostly, format!("_elements has {} names; at most {MAX_ELEMENTS} are accepted", names.len())));
        }
        let definitions = params.definitions();
        let mut left_out = Vec::new();
        names.retain(|name| {
            // Of another type, it is about what comes along.
            let other = name.split_once('.').and_then(|(of, _)| definitions.find_resource_type(of)).filter(|_| has_includes);
            let known = subset::is_element(name, &self.types, definitions) || other.is_some_and(|of| subset::is_element(name, &[of], definitions));
            if !known {
                left_out.push(subset::no_element(name, &self.types));
            }
            known
        });
        let last = if names.is_empty() { left_out.pop() } else { None };
        self.ignored.extend(left_out);
        if last.is_none() {
            self.subset = Subset::Elements(names);
        }
        Ok(last.map_or(Ok(()), Err))
    }

    /// Takes in the order; if nothing of it is known, says so.
    fn sort(&mut self, value: &str, params: &Params) -> Result<Result<(), Failure>, Failure> {
        let wanted = value.split(',').filter(|p| !p.is_empty()).count();
        if wanted > MAX_SORT {
            return Err(Failure::new(Kind::TooCostly, format!("_sort has {wanted} keys; at most {MAX_SORT} are accepted")));
        }
        let mut keys = Vec::new();
        let mut left_out = Vec::new();
        for part in value.split(',').filter(|p| !p.is_empty()) {
            let (code, descending) = match part.strip_prefix('-') {
                Some(code) => (code, true),
                None => (part, false),
            };
            let reader = Reader { params, types: &self.types, any: false, depth: 0 };
            let found = reader.with(code).map(|params| params[0].kind);
            match found {
                _ if code == "_score" => {}
                Some(ParamType::Composite | ParamType::Special) => {
                    left_out.push(Failure::new(Kind::NotSupported, format!("_sort: the values of '{}' have no order", clip(code))));
                    continue;
                }
                Some(_) => {}
                None => {
                    let unknown = reader.unknown(code);
                    left_out.push(Failure { diagnostics: format!("_sort: {}", unknown.diagnostics), ..unknown });
                    continue;
                }
            }
            keys.push(Sort { code: code.to_owned(), descending });
        }
        self.sort = keys;
        let last = if self.sort.is_empty() { left_out.pop() } else { None };
        self.ignored.extend(left_out);
        Ok(last.map_or(Ok(()), Err))
    }
}

fn types_of(pairs: &[(String, String)], scope: Scope<'_>, version: FhirVersion) -> Result<Vec<&'static str>, Failure> {
    if let Some(name) = scope.type_name {
        return Ok(vec![name]);
    }
    let definitions = Definitions::of(version);
    let mut types = Vec::new();
    for (_, value) in pairs.iter().filter(|(name, _)| name == "_type") {
        for name in value.split(',').filter(|n| !n.is_empty()) {
            types.push(definitions.resource_type(name).map_err(|f| Failure { kind: Kind::BadValue, diagnostics: format!("_type: {}", f.diagnostics), ..f })?);
        }
    }
    if !types.is_empty() {
        types.sort_unstable();
        types.dedup();
        return Ok(types);
    }
    Ok(match scope.compartment.and_then(|(name, _)| definitions.compartment_types(name)) {
        Some(members) => {
            let mut members: Vec<&'static str> = members.keys().copied().collect();
            members.sort_unstable();
            members
        }
        None => definitions.resource_types().to_vec(),
    })
}

/// What STU3 says in two parameters, at the end of a chain, too: what is before their names is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nearby<'n> {
    Position(&'n str),
    Distance(&'n str),
}

impl<'n> Nearby<'n> {
    fn of(name: &'n str) -> Option<Self> {
        let before = |of: &&str| of.is_empty() || of.ends_with(['.', ':']);
        let distance = name.strip_suffix("near-distance").filter(before).map(Self::Distance);
        distance.or_else(|| name.strip_suffix("near").filter(before).map(Self::Position))
    }
}

/// STU3's `near-distance`, a quantity, in the words of `near`.
fn distance_of(quantity: &str) -> Result<String, Failure> {
    let (prefix, number) = Prefix::split(quantity);
    if !matches!(prefix, Prefix::Eq | Prefix::Le | Prefix::Lt) || number.contains(',') {
        return Err(Failure::new(Kind::BadValue, format!("near-distance '{}' is no distance to be within, such as 10||km", clip(quantity))));
    }
    let mut parts = number.split('|');
    let number = parts.next().unwrap_or_default();
    Ok(format!("{number}|{}", parts.next_back().unwrap_or("km")))
}

/// The report of a parameter without a value.
#[must_use]
pub fn no_value(name: &str) -> Failure {
    Failure::new(Kind::BadValue, format!("search parameter '{}' has no value; give it one, or leave it out", clip(name)))
}

/// The value that a word stands for.
fn one_of<T: Copy>(name: &str, value: &str, known: &[(&str, T)]) -> Result<T, Failure> {
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    let expected = match &words[..] {
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => String::new(),
    };
    known.iter().find(|(word, _)| *word == value).map(|(_, v)| *v).ok_or_else(|| refused(name, value, &expected))
}

fn refused(name: &str, value: &str, expected: &str) -> Failure {
    Failure::new(Kind::BadValue, format!("{} '{}' is not {expected}", clip(name), clip(value)))
}

fn number(name: &str, value: &str) -> Result<usize, Failure> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(refused(name, value, "a number from 0 on"));
    }
    Ok(value.parse().unwrap_or(usize::MAX))
}
