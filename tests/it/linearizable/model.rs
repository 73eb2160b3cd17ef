//! A simulator of Patients, one request after the other.

use std::collections::BTreeMap;

use serde_json::json;

use crate::naive::rng::Rng;

/// A request.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        ident: String,
        family: String,
        unless: bool,
    },
    Put {
        id: String,
        ident: String,
        family: String,
        if_match: Option<u64>,
        only_new: bool,
    },
    PutWhere {
        ident: String,
        family: String,
    },
    Patch {
        id: String,
        family: String,
    },
    PatchWhere {
        ident: String,
        family: String,
    },
    Delete {
        id: String,
        if_match: Option<u64>,
    },
    DeleteWhere {
        ident: String,
    },
    /// An update by id and one by condition, together.
    Transaction {
        id: String,
        ident: String,
        family: String,
        wanted: String,
    },
    Read {
        id: String,
    },
    Vread {
        id: String,
        version: u64,
    },
    History {
        id: String,
    },
    Search {
        ident: String,
    },
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub status: u16,
    pub found: Vec<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub id: String,
    pub number: u64,
    /// Empty where the answer does not tell, `-` of a deletion.
    pub family: String,
}

const IDS: &[&str] = &["a", "b", "c"];
const IDENTS: &[&str] = &["x", "y"];

impl Op {
    /// Any of them; `unique` tells its content from all others.
    pub fn random(rng: &mut Rng, unique: usize) -> Self {
        let (id, ident, family) = ((*rng.pick(IDS)).to_owned(), (*rng.pick(IDENTS)).to_owned(), format!("F{unique}"));
        let if_match = *rng.pick(&[None, None, Some(1), Some(2), Some(3)]);
        match rng.below(16) {
            0 | 1 => Self::Create { ident, family, unless: rng.chance(80) },
            2 | 3 => Self::Put { id, ident, family, if_match, only_new: rng.chance(15) },
            4 | 5 => Self::PutWhere { ident, family },
            6 => Self::Patch { id, family },
            7 => Self::PatchWhere { ident, family },
            8 => Self::Delete { id, if_match },
            9 => Self::DeleteWhere { ident },
            10 | 11 => Self::Transaction { id, ident, family, wanted: (*rng.pick(IDENTS)).to_owned() },
            12 => Self::Read { id },
            13 => Self::Vread { id, version: 1 + rng.below(3) as u64 },
            14 => Self::History { id },
            _ => Self::Search { ident },
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Put { .. } => "put",
            Self::PutWhere { .. } => "put-where",
            Self::Patch { .. } => "patch",
            Self::PatchWhere { .. } => "patch-where",
            Self::Delete { .. } => "delete",
            Self::DeleteWhere { .. } => "delete-where",
            Self::Transaction { .. } => "transaction",
            Self::Read { .. } => "read",
            Self::Vread { .. } => "vread",
            Self::History { .. } => "history",
            Self::Search { .. } => "search",
        }
    }

    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Vread { .. } | Self::History { .. } | Self::Search { .. })
    }

    /// Method, path, headers and body.
    pub fn request(&self) -> (&'static str, String, Vec<(&'static str, String)>, String) {
        let patient = |id: Option<&String>, ident: &str, family: &str| {
            let mut patient = json!({"resourceType": "Patient", "identifier": [{"value": ident}], "name": [{"family": family}]});
            if let Some(id) = id {
                patient["id"] = id.as_str().into();
            }
            patient
        };
        let matching = |version: &Option<u64>| version.map(|v| ("if-match", format!("W/\"{v}\""))).into_iter().collect::<Vec<_>>();
        let patch = |family: &str| json!([{"op": "replace", "path": "/name/0/family", "value": family}]).to_string();
        let patched = || vec![("content-type", "application/json-patch+json".to_owned())];
        match self {
            Self::Create { ident, family, unless } => {
                let headers = unless.then(|| ("if-none-exist", format!("identifier={ident}"))).into_iter().collect();
                ("POST", "/Patient".to_owned(), headers, patient(None, ident, family).to_string())
            }
            Self::Put { id, ident, family, if_match, only_new } => {
                let mut headers = matching(if_match);
                headers.extend(only_new.then(|| ("if-none-match", "*".to_owned())));
                ("PUT", format!("/Patient/{id}"), headers, patient(Some(id), ident, family).to_string())
            }
            Self::PutWhere { ident, family } => ("PUT", format!("/Patient?identifier={ident}"), Vec::new(), patient(None, ident, family).to_string()),
            Self::Patch { id, family } => ("PATCH", format!("/Patient/{id}"), patched(), patch(family)),
            Self::PatchWhere { ident, family } => ("PATCH", format!("/Patient?identifier={ident}"), patched(), patch(family)),
            Self::Delete { id, if_match } => ("DELETE", format!("/Patient/{id}"), matching(if_match), String::new()),
            Self::DeleteWhere { ident } => ("DELETE", format!("/Patient?identifier={ident}"), Vec::new(), String::new()),
            Self::Transaction { id, ident, family, wanted } => {
                let entry = |url: String, resource| json!({"resource": resource, "request": {"method": "PUT", "url": url}});
                let entries = [
                    entry(format!("Patient/{id}"), patient(Some(id), ident, family)),
                    entry(format!("Patient?identifier={wanted}"), patient(None, wanted, &format!("{family}w"))),
                ];
                ("POST", String::new(), Vec::new(), json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string())
            }
            Self::Read { id } => ("GET", format!("/Patient/{id}"), Vec::new(), String::new()),
            Self::Vread { id, version } => ("GET", format!("/Patient/{id}/_history/{version}"), Vec::new(), String::new()),
            Self::History { id } => ("GET", format!("/Patient/{id}/_history?_count=100"), Vec::new(), String::new()),
            Self::Search { ident } => ("GET", format!("/Patient?identifier={ident}&_count=100"), Vec::new(), String::new()),
        }
    }
}

#[derive(Clone, Debug)]
struct Content {
    ident: String,
    family: String,
}

/// Every version of every Patient; a deletion has no content.
#[derive(Clone, Debug, Default)]
pub struct Model(BTreeMap<String, Vec<Option<Content>>>);

fn status(status: u16) -> Seen {
    Seen { status, found: Vec::new() }
}

impl Model {
    fn current(&self, id: &str) -> Option<&Content> {
        self.0.get(id)?.last()?.as_ref()
    }

    fn number(&self, id: &str) -> u64 {
        self.0.get(id).map_or(0, |versions| versions.len() as u64)
    }

    fn matching(&self, ident: &str) -> Vec<String> {
        self.0.keys().filter(|id| self.current(id).is_some_and(|c| c.ident == ident)).cloned().collect()
    }

    fn store(&mut self, id: &str, ident: &str, family: &str) -> Version {
        self.0.entry(id.to_owned()).or_default().push(Some(Content { ident: ident.to_owned(), family: family.to_owned() }));
        Version { id: id.to_owned(), number: self.number(id), family: family.to_owned() }
    }

    /// The version of a Patient that is there.
    fn now(&self, id: &str) -> Version {
        Version { id: id.to_owned(), number: self.number(id), family: self.current(id).map(|c| c.family.clone()).unwrap_or_default() }
    }

    fn holds(&self, id: &str, if_match: Option<u64>) -> bool {
        if_match.is_none_or(|wanted| self.current(id).is_some() && self.number(id) == wanted)
    }

    /// Performs a write. The id of a new Patient is what the answer says, if it is new.
    pub fn write(&mut self, op: &Op, seen: &Seen) -> Seen {
        let new = |model: &Self, n: usize| {
            seen.found.get(n).map(|v| v.id.clone()).filter(|id| !model.0.contains_key(id) && !IDS.contains(&id.as_str())).unwrap_or_default()
        };
        match op {
            Op::Create { ident, family, unless } => match (&self.matching(ident)[..], unless) {
                ([], _) | (_, false) => Seen { status: 201, found: vec![self.store(&new(self, 0), ident, family)] },
                ([one], true) => Seen { status: 200, found: vec![self.now(one)] },
                (_, true) => status(412),
            },
            Op::Put { .. } if !self.may_put(op) => status(412),
            Op::Put { id, ident, family, .. } => {
                let made = self.current(id).is_none();
                Seen { status: if made { 201 } else { 200 }, found: vec![self.store(id, ident, family)] }
            }
            Op::PutWhere { ident, family } => match &self.matching(ident)[..] {
                [] => Seen { status: 201, found: vec![self.store(&new(self, 0), ident, family)] },
                [one] => Seen { status: 200, found: vec![self.store(one, ident, family)] },
                _ => status(412),
            },
            Op::Patch { id, family } => self.patch(id, family),
            Op::PatchWhere { ident, family } => match &self.matching(ident)[..] {
                [] => status(404),
                [one] => self.patch(one, family),
                _ => status(412),
            },
            Op::Delete { id, if_match } if !self.holds(id, *if_match) => status(412),
            Op::Delete { id, .. } => self.delete(id),
            Op::DeleteWhere { ident } => match &self.matching(ident)[..] {
                [] => status(204),
                [one] => self.delete(one),
                _ => status(412),
            },
            Op::Transaction { id, ident, family, wanted } => {
                let target = match &self.matching(wanted)[..] {
                    [] => None,
                    [one] => Some(one.clone()),
                    _ => return status(412),
                };
                // Neither may the condition find what the other entry writes, nor match it where one of them creates.
                let is_met = ident == wanted && (self.current(id).is_none() || target.is_none());
                if target.as_ref() == Some(id) || is_met {
                    return status(400);
                }
                let target = target.unwrap_or_else(|| new(self, 1));
                let found = vec![self.store(id, ident, family), self.store(&target, wanted, &format!("{family}w"))];
                Seen { status: 200, found: found.into_iter().map(|v| Version { family: String::new(), ..v }).collect() }
            }
            Op::Read { .. } | Op::Vread { .. } | Op::History { .. } | Op::Search { .. } => self.read(op),
        }
    }

    fn may_put(&self, op: &Op) -> bool {
        let Op::Put { id, if_match, only_new, .. } = op else { return true };
        self.holds(id, *if_match) && !(*only_new && self.current(id).is_some())
    }

    fn patch(&mut self, id: &str, family: &str) -> Seen {
        match (self.0.contains_key(id), self.current(id).cloned()) {
            (false, _) => status(404),
            (true, None) => status(410),
            (true, Some(content)) => Seen { status: 200, found: vec![self.store(id, &content.ident, family)] },
        }
    }

    fn delete(&mut self, id: &str) -> Seen {
        if self.current(id).is_some() {
            self.0.entry(id.to_owned()).or_default().push(None);
        }
        status(204)
    }

    /// What a read sees.
    pub fn read(&self, op: &Op) -> Seen {
        let version = |id: &str, number: u64| match self.0.get(id).and_then(|all| all.get(usize::try_from(number).ok()?.checked_sub(1)?)) {
            None => status(404),
            Some(None) => status(410),
            Some(Some(content)) => Seen { status: 200, found: vec![Version { id: id.to_owned(), number, family: content.family.clone() }] },
        };
        match op {
            Op::Read { id } => version(id, self.number(id)),
            Op::Vread { id, version: number } => version(id, *number),
            Op::History { id } => match self.0.get(id) {
                None => status(404),
                Some(all) => {
                    let shown = |(n, content): (usize, &Option<Content>)| Version {
                        id: id.clone(),
                        number: n as u64 + 1,
                        family: content.as_ref().map_or("-".to_owned(), |c| c.family.clone()),
                    };
                    Seen { status: 200, found: all.iter().enumerate().map(shown).rev().collect() }
                }
            },
            Op::Search { ident } => Seen { status: 200, found: self.matching(ident).iter().map(|id| self.now(id)).collect() },
            _ => unreachable!("{op:?} is a write"),
        }
    }

    /// Whether every Patient that was made got an id of its own.
    pub fn ids_are_new(&self) -> Result<(), String> {
        if self.0.contains_key("") { Err("an answer named the id of another for what it made".to_owned()) } else { Ok(()) }
    }
}
