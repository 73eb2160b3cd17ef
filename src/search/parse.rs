//! From the pairs of a query string to a typed search.

use std::fmt;
use std::str::FromStr;

use super::param::split_unescaped;
use super::params::TypeParams;
use crate::clock::EventId;
use crate::fhir::definitions::{ParamType, nearest};
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, FhirVersion, Kind};

/// Most parameters of one search.
pub const MAX_PARAMETERS: usize = 500;
/// Most values of one parameter, separated by commas.
pub const MAX_VALUES: usize = 1_000;
/// Entries on a page where `_count` does not say.
pub const DEFAULT_COUNT: usize = 20;
/// Most entries on a page; a greater `_count` is cut to it.
pub const MAX_COUNT: usize = 1_000;

/// A search whose parameters are known, its values still text.
#[derive(Clone, Debug)]
pub struct Search {
    /// The FHIR version whose definitions it was read by.
    pub version: FhirVersion,
    /// The types searched; all of the version for a system search without `_type`.
    pub types: Vec<&'static str>,
    /// What must hold, all of it.
    pub filters: Vec<Filter>,
    /// The order.
    pub sort: Vec<Sort>,
    /// Entries on a page; 0 asks for the total alone.
    pub count: usize,
    /// Whether the Bundle has a total.
    pub total: Total,
    /// Where the page begins.
    pub cursor: Option<Cursor>,
    /// The parameters that take effect, as they came: what the self link shows.
    pub applied: Vec<(String, String)>,
    /// What was not understood and left out.
    pub ignored: Vec<Failure>,
}

/// One condition.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The search parameter.
    pub code: String,
    /// Its modifier.
    pub modifier: Modifier,
    /// Alternatives; escapes not yet undone.
    pub values: Vec<String>,
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
    /// `:not`.
    Not,
    /// `:Patient`.
    Type(&'static str),
}

/// One key of the order.
#[derive(Clone, Debug)]
pub struct Sort {
    /// The search parameter.
    pub code: String,
    /// Greatest first.
    pub descending: bool,
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

/// Where a page begins: as of which event, and after how many matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The simulator's last event when the first page was made.
    pub as_of: EventId,
    /// Matches before the page.
    pub offset: usize,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.as_of, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parsed = text.split_once('.').and_then(|(event, offset)| Some(Self { as_of: event.parse().ok()?, offset: offset.parse().ok()? }));
        parsed.ok_or_else(|| Failure::new(Kind::BadValue, format!("_cursor '{}' is not one this server made; follow the links of a search result", clip(text))))
    }
}

impl Search {
    /// Reads a search of resources of `type_name`, or of all types.
    ///
    /// # Errors
    /// A value of a result parameter or a modifier that cannot be understood; what is merely unknown goes to `ignored`.
    pub fn parse(pairs: &[(String, String)], type_name: Option<&'static str>, version: FhirVersion) -> Result<Self, Failure> {
        if pairs.len() > MAX_PARAMETERS {
            return Err(Failure::new(Kind::TooCostly, format!("{} search parameters; at most {MAX_PARAMETERS} are accepted", pairs.len())));
        }
        let mut search = Self {
            version,
            types: types_of(pairs, type_name, version)?,
            filters: Vec::new(),
            sort: Vec::new(),
            count: DEFAULT_COUNT,
            total: Total::default(),
            cursor: None,
            applied: Vec::new(),
            ignored: Vec::new(),
        };
        for (name, value) in pairs {
            search.parameter(name, value)?;
        }
        Ok(search)
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

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        match name {
            // Of no effect here, but a page's links must be answered as the page was.
            "_format" | "_pretty" | "_type" => {}
            "_count" | "_sort" | "_total" if value.is_empty() => {
                self.ignored.push(no_value(name));
                return Ok(());
            }
            "_count" => self.count = count(value)?,
            "_total" => {
                self.total = match value {
                    "none" => Total::None,
                    "estimate" => Total::Estimate,
                    "accurate" => Total::Accurate,
                    _ => return Err(Failure::new(Kind::BadValue, format!("_total '{}' is not none, estimate or accurate", clip(value)))),
                }
            }
            "_summary" if value == "count" => self.count = 0,
            "_summary" if value == "false" => {}
            "_cursor" => {
                self.cursor = Some(value.parse()?);
                return Ok(());
            }
            "_sort" => {
                self.sort = self.sort(value)?;
                if self.sort.is_empty() {
                    return Ok(());
                }
            }
            _ => match self.filter(name, value)? {
                Ok(filter) => self.filters.push(filter),
                Err(ignored) => {
                    self.ignored.push(ignored);
                    return Ok(());
                }
            },
        }
        self.applied.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// The outer error refuses the search, the inner one leaves the parameter out.
    fn filter(&self, name: &str, value: &str) -> Result<Result<Filter, Failure>, Failure> {
        let (code, modifier) = match name.split_once(':') {
            Some((code, modifier)) => (code, Some(modifier)),
            None => (name, None),
        };
        let Some(kind) = self.kind_of(code) else { return Ok(Err(self.unknown(code))) };
        if value.is_empty() {
            return Ok(Err(no_value(name)));
        }
        let modifier = match modifier {
            None => Modifier::None,
            Some(text) => self.modifier(code, kind, text)?,
        };
        let values: Vec<String> = split_unescaped(value, ',').into_iter().filter(|v| !v.is_empty()).map(str::to_owned).collect();
        if values.len() > MAX_VALUES {
            return Err(Failure::new(Kind::TooCostly, format!("search parameter '{name}' has {} values; at most {MAX_VALUES} are accepted", values.len())));
        }
        if modifier == Modifier::Missing && !matches!(value, "true" | "false") {
            return Err(Failure::new(Kind::BadValue, format!("'{name}' must be true or false, but is '{}'", clip(value))));
        }
        Ok(Ok(Filter { code: code.to_owned(), modifier, values }))
    }

    /// How `code` compares, if all types searched have it.
    fn kind_of(&self, code: &str) -> Option<ParamType> {
        let mut kind = None;
        for type_name in &self.types {
            kind = Some(TypeParams::of(self.version, type_name).get(code)?.def.kind);
        }
        kind
    }

    fn modifier(&self, code: &str, kind: ParamType, text: &str) -> Result<Modifier, Failure> {
        let found = match (text, kind) {
            ("missing", _) => Some(Modifier::Missing),
            ("exact", ParamType::String) => Some(Modifier::Exact),
            ("contains", ParamType::String) => Some(Modifier::Contains),
            ("not", ParamType::Token) => Some(Modifier::Not),
            (name, ParamType::Reference) => {
                Definitions::of(self.version).resource_type(name).ok().filter(|name| self.can_target(code, name)).map(Modifier::Type)
            }
            _ => None,
        };
        found.ok_or_else(|| {
            let known = match kind {
                ParamType::String => "missing, exact, contains",
                ParamType::Token => "missing, not",
                ParamType::Reference => "missing, or the name of a type it can refer to",
                _ => "missing",
            };
            Failure::new(
                Kind::NotSupported,
                format!("modifier '{}' is not supported for the {} parameter '{code}'; known here: {known}", clip(text), kind.code()),
            )
        })
    }

    fn can_target(&self, code: &str, type_name: &str) -> bool {
        let params = self.types.iter().filter_map(|t| TypeParams::of(self.version, t).get(code));
        params.into_iter().any(|p| p.def.targets.is_empty() || p.def.targets.contains(&type_name) || p.def.targets.contains(&"Resource"))
    }

    fn sort(&mut self, value: &str) -> Result<Vec<Sort>, Failure> {
        let mut keys = Vec::new();
        for part in value.split(',').filter(|p| !p.is_empty()) {
            let (code, descending) = match part.strip_prefix('-') {
                Some(code) => (code, true),
                None => (part, false),
            };
            if self.kind_of(code).is_none() {
                let unknown = self.unknown(code);
                self.ignored.push(Failure { diagnostics: format!("_sort: {}", unknown.diagnostics), ..unknown });
                continue;
            }
            keys.push(Sort { code: code.to_owned(), descending });
        }
        if keys.len() > 8 {
            return Err(Failure::new(Kind::TooCostly, format!("_sort has {} keys; at most 8 are accepted", keys.len())));
        }
        Ok(keys)
    }

    fn unknown(&self, code: &str) -> Failure {
        let of = match self.types[..] {
            [one] => format!(" for {one}"),
            _ => " for all the types searched".to_owned(),
        };
        let definitions = Definitions::of(self.version);
        let defined = self.types.iter().any(|t| definitions.search_params(t).any(|p| p.code == code));
        if defined && self.types.len() == 1 {
            return Failure::new(Kind::NotSupported, format!("search parameter '{}'{of} is not supported by this server", clip(code)));
        }
        let known = self.types.first().map(|t| &TypeParams::of(self.version, t).list[..]).unwrap_or_default();
        let mut message = format!("unknown search parameter '{}'{of}", clip(code));
        if let Some(near) = nearest(code, known.iter().map(|p| p.def.code)) {
            message.push_str(&format!("; did you mean '{near}'?"));
        } else {
            let names: Vec<&str> = known.iter().map(|p| p.def.code).collect();
            message.push_str(&format!("; known: {}", names.join(", ")));
        }
        Failure::new(Kind::NotSupported, message)
    }
}

fn types_of(pairs: &[(String, String)], type_name: Option<&'static str>, version: FhirVersion) -> Result<Vec<&'static str>, Failure> {
    if let Some(name) = type_name {
        return Ok(vec![name]);
    }
    let definitions = Definitions::of(version);
    let mut types = Vec::new();
    for (_, value) in pairs.iter().filter(|(name, _)| name == "_type") {
        for name in value.split(',') {
            types.push(definitions.resource_type(name).map_err(|f| Failure { kind: Kind::BadValue, diagnostics: format!("_type: {}", f.diagnostics), ..f })?);
        }
    }
    Ok(if types.is_empty() { definitions.resource_types().to_vec() } else { types })
}

fn no_value(name: &str) -> Failure {
    Failure::new(Kind::BadValue, format!("search parameter '{}' has no value and was left out", clip(name)))
}

fn count(value: &str) -> Result<usize, Failure> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(Failure::new(Kind::BadValue, format!("_count '{}' is not a number from 0 on", clip(value))));
    }
    Ok(value.parse().unwrap_or(MAX_COUNT).min(MAX_COUNT))
}
