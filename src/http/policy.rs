//! Who may do what: the one place that decides from token, interaction and type. Interactions know nothing of it.

use actix_web::HttpRequest;
use actix_web::http::header;
use serde_json::{Value, json};

use super::smart::Keys;
use super::{App, routes};
use crate::clock::EventId;
use crate::fhir::id::clip;
use crate::fhir::{Definitions, Failure, Kind, ResourceId};
use crate::interaction::delete::Which;
use crate::interaction::target::{self, pairs};
use crate::interaction::{Interaction, Whom, bundle, history};
use crate::search::{Cursor, Search};
use crate::sim::find::From;
use crate::sim::{Auth, Sim, Snapshot};
use crate::simdb::event_index::Filter;
use crate::smart::{self, Access, Scope, Verdict, allows};

/// Something that must be allowed: a type, or all of them, and a letter of create, read, update, delete, search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need(pub Option<&'static str>, pub char);

/// Who asks, where that is asked for.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// The claims of their token.
    pub access: Access,
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// The bearer of a request's token; none where none is asked for.
///
/// # Errors
/// There is no token, or none that is good here and now.
pub fn bearer(request: &HttpRequest, sim: &Sim, app: &App) -> Result<Option<Bearer>, Failure> {
    if sim.profile().settings.auth == Auth::Off { Ok(None) } else { proven(request, sim, app).map(Some) }
}

/// The bearer of a request's token, whether one is asked for now or not.
///
/// # Errors
/// As [`bearer`].
pub fn proven(request: &HttpRequest, sim: &Sim, app: &App) -> Result<Bearer, Failure> {
    let profile = sim.profile();
    let refused = |why: &str| Failure::new(Kind::Unauthorized, format!("{why}; POST …/auth/token gives one, as …/fhir/.well-known/smart-configuration says"));
    let given = routes::text(request, header::AUTHORIZATION).and_then(|h| h.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = given.ok_or_else(|| Failure { kind: Kind::NoToken, ..refused("this simulator asks for an access token, which is missing") })?;
    let access = Access::prove(token.trim(), &Keys::of(sim, app)?.public).map_err(|why| {
        // Each has a key of its own; what the token says for itself is good enough for a hint.
        let other = claimed_sim(token).filter(|other| other != sim.id().as_str()).map(|other| format!(", it says that it is for {}", clip(&other)));
        refused(&format!("the access token is not one of this simulator{}: {why}", other.unwrap_or_default()))
    })?;
    if access.sim != sim.id().as_str() || access.made != profile.created {
        return Err(refused(&format!("the access token is for simulator {}, as it was made at {}", access.sim, access.made)));
    }
    if access.exp.saturating_mul(1_000) <= sim.now_ms() {
        return Err(refused(&format!("the access token has expired at {}", crate::clock::instant(access.exp.saturating_mul(1_000)))));
    }
    match access.err.as_deref() {
        Some("request_invalid_token") => return Err(refused("the access token is invalid: the client registered to be told so")),
        Some("request_expired_token") => return Err(refused("the access token has expired: the client registered to be told so")),
        _ => {}
    }
    let scopes = Scope::parse_all(&access.scope, Definitions::of(profile.version()), true).map_err(|why| refused(&why))?;
    Ok(Bearer { access, scopes })
}

/// The simulator that a token claims to be for.
fn claimed_sim(token: &str) -> Option<String> {
    use base64::Engine as _;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?["sim"].as_str().map(str::to_owned)
}

/// What a record says of who asked.
#[must_use]
pub fn recorded(bearer: &Result<Option<Bearer>, Failure>) -> Option<Value> {
    match bearer {
        Ok(None) => None,
        Ok(Some(bearer)) => Some(json!({"claims": smart::shown(&bearer.access)})),
        Err(failure) => Some(json!({"refused": failure.diagnostics})),
    }
}

impl Bearer {
    /// Proves that the token allows all that is needed, wholly.
    ///
    /// # Errors
    /// What is missing.
    pub fn may(&self, needs: &[Need]) -> Result<(), Failure> {
        needs.iter().try_for_each(|need| match allows(&self.scopes, need.0, need.1) {
            Verdict::Yes => Ok(()),
            Verdict::No => Err(self.lacks(*need)),
            Verdict::Matching(search) => {
                let message = format!("the token allows this only where '{search}' matches, which cannot be told here; ask for a scope without a search");
                Err(Failure::new(Kind::OutOfScope, message))
            }
        })
    }

    /// Proves that a page is of no moment before the token: a restricted one is good for what is there now.
    fn began(&self, parameters: &[(String, String)], sim: &Sim) -> Result<(), Failure> {
        // Of several, whichever counts.
        let cursors = parameters.iter().filter(|(name, _)| name == "_cursor").filter_map(|(_, text)| text.parse::<Cursor>().ok());
        let first = cursors.map(|cursor| cursor.as_of).min();
        let Some(as_of) = first.filter(|_| self.scopes.iter().any(|scope| scope.restriction().is_some())) else { return Ok(()) };
        let (after, before) = (EventId::from_u64(as_of.to_u64().saturating_add(1)), EventId::first_of(self.access.iat.saturating_mul(1_000)));
        let failed = |e: std::io::Error| crate::sim::storage_failure("the events since the first page cannot be looked up", &e);
        if after >= before || sim.find_events(&Filter::default(), (after, before), false, 1).map_err(failed)?.is_empty() {
            return Ok(());
        }
        Err(Failure::new(
            Kind::OutOfScope,
            "the page is of a moment before the token was made, and a scope with a search is good for what is there now; search again",
        ))
    }

    /// Proves that the token does not rule out that a resource chooses what an export is of. The resource itself is not handed out, so none of
    /// its type need be allowed (clients of many servers ask for the types that they want alone); a scope with a search has to find it.
    ///
    /// # Errors
    /// The search does not find it.
    pub fn may_choose(&self, type_name: &'static str, id: &ResourceId, sim: &Sim) -> Result<(), Failure> {
        match allows(&self.scopes, Some(type_name), 'r') {
            Verdict::Matching(search) if !matches(&search, type_name, id, sim)? => Err(self.lacks(Need(Some(type_name), 'r'))),
            Verdict::Yes | Verdict::No | Verdict::Matching(_) => Ok(()),
        }
    }

    fn lacks(&self, Need(type_name, letter): Need) -> Failure {
        let message = format!("the token allows '{}', and this needs system/{}.{letter}", self.access.scope, type_name.unwrap_or("*"));
        Failure::new(Kind::OutOfScope, message)
    }

    /// The interaction, if the token allows it: of a search only what it allows to find. `past` is whether another moment is
    /// looked at than now.
    ///
    /// # Errors
    /// It does not.
    pub fn allowed(&self, asked: Interaction, past: bool, sim: &Sim) -> Result<Interaction, Failure> {
        match asked {
            Interaction::Search(mut search) => {
                self.may(&alongside(&search.parameters))?;
                self.began(&search.parameters, sim)?;
                match allows(&self.scopes, search.type_name, 's') {
                    Verdict::Yes => {}
                    Verdict::No => return Err(self.lacks(Need(search.type_name, 's'))),
                    // What was, is not looked at, and may have been another thing.
                    Verdict::Matching(_) if past => return Err(self.lacks(Need(search.type_name, 's'))),
                    // It would tell of what else there is.
                    Verdict::Matching(restriction) if search.parameters.iter().any(|(name, _)| name == "_explain") => {
                        let message =
                            format!("the token allows only to find what '{restriction}' matches, and _explain counts all that there is; leave it out");
                        return Err(Failure::new(Kind::OutOfScope, message));
                    }
                    Verdict::Matching(restriction) => {
                        let restriction = pairs(&restriction);
                        still(&restriction, search.type_name, sim)?;
                        search.parameters.extend(restriction);
                    }
                }
                Ok(Interaction::Search(search))
            }
            // Of what it is now; what it was is not looked at, and may have been another thing.
            Interaction::Read(type_name, ref id, ..) if !past => {
                match allows(&self.scopes, Some(type_name), 'r') {
                    Verdict::Yes => {}
                    Verdict::Matching(search) if matches(&search, type_name, id, sim)? => {}
                    Verdict::No | Verdict::Matching(_) => return Err(self.lacks(Need(Some(type_name), 'r'))),
                }
                Ok(asked)
            }
            asked => {
                self.may(&needs(&asked, sim))?;
                Ok(asked)
            }
        }
    }
}

/// What parameters of a search need besides its type: what comes along, what is led to, and what is inside, may be of any; so may be what
/// tells what is above or below, and what belongs to a value set.
fn alongside(parameters: &[(String, String)]) -> Vec<Need> {
    let leads = |(name, value): &(String, String)| {
        let (plain, modifier) = name.split_once(':').unwrap_or((name, ""));
        if matches!(modifier, "above" | "below" | "in" | "not-in") {
            return true;
        }
        matches!(plain, "_include" | "_revinclude" | "_has" | "_filter" | "_list" | "_in" | "_contained" | "_containedType")
            || name.contains('.')
            || (plain == "_sort" && value.contains('.'))
    };
    if parameters.iter().any(leads) { vec![Need(None, 's')] } else { Vec::new() }
}

/// Proves that the search of a scope is still one: its parameter may be gone since the token was made.
fn still(restriction: &[(String, String)], type_name: Option<&'static str>, sim: &Sim) -> Result<(), Failure> {
    let type_name = type_name.ok_or_else(|| Failure::new(Kind::OutOfScope, "the token allows searches of one type only; name it".to_owned()))?;
    condition(restriction, type_name, &sim.snapshot(), sim.now_ms()).map_err(no_longer)
}

fn no_longer(failure: Failure) -> Failure {
    let message = format!("the search in the token's scope means nothing here any more: {}; ask for another token", failure.diagnostics);
    Failure { kind: Kind::OutOfScope, diagnostics: message, ..failure }
}

/// Whether a resource is one that a search finds.
fn matches(search: &str, type_name: &'static str, id: &ResourceId, sim: &Sim) -> Result<bool, Failure> {
    let snapshot = sim.snapshot();
    let mut parameters = pairs(search);
    parameters.push(("_id".to_owned(), id.to_string()));
    let scope = crate::search::Scope { type_name: Some(type_name), compartment: None };
    let search = Search::parse(&parameters, scope, snapshot.params()).and_then(Search::strict).map_err(no_longer)?;
    Ok(snapshot.search(&search, From::default(), 1, sim.now_ms(), &snapshot.budget())?.total > 0)
}

/// Proves that the searches of scopes are conditions on resources of one type, and nothing else.
///
/// # Errors
/// One that is unknown, says how to answer, or leads elsewhere.
pub fn provable(scopes: &[Scope], sim: &Sim) -> Result<(), Failure> {
    scopes.iter().filter_map(Scope::restriction).try_for_each(|(type_name, search)| {
        let bad = |why: &str| Failure::new(Kind::BadValue, format!("the search '{}' of a scope {why}", crate::fhir::id::clip(search)));
        let type_name = type_name.ok_or_else(|| bad("restricts all types; name one"))?;
        condition(&pairs(search), type_name, &sim.snapshot(), sim.now_ms()).map_err(|f| bad(&format!("is no condition on {type_name}: {}", f.diagnostics)))
    })
}

/// Proves that parameters are conditions on resources of a type, and nothing else.
///
/// # Errors
/// What is unknown, says how to answer, or leads elsewhere.
pub fn condition(parameters: &[(String, String)], type_name: &'static str, snapshot: &Snapshot, now_ms: i64) -> Result<(), Failure> {
    if let Some((name, _)) = parameters.iter().find(|pair| !alongside(std::slice::from_ref(pair)).is_empty()) {
        let message = format!("parameter '{}' is no condition on the resource itself", crate::fhir::id::clip(name));
        return Err(Failure::new(Kind::BadValue, message));
    }
    search_of(parameters, type_name, snapshot, now_ms)
}

/// Proves that parameters are conditions on resources of a type, which may lead elsewhere.
///
/// # Errors
/// What is unknown, or says how to answer.
pub fn search_of(parameters: &[(String, String)], type_name: &'static str, snapshot: &Snapshot, now_ms: i64) -> Result<(), Failure> {
    let bad = |why: String| Failure::new(Kind::BadValue, why);
    if parameters.is_empty() {
        return Err(bad("it has no parameter".to_owned()));
    }
    let scope = crate::search::Scope { type_name: Some(type_name), compartment: None };
    for (name, value) in parameters {
        let search = Search::parse(&[(name.clone(), value.clone())], scope, snapshot.params())?.strict()?;
        if search.conditions.is_empty() {
            return Err(bad(format!("parameter '{}' is no condition", crate::fhir::id::clip(name))));
        }
        snapshot.compile(&search, now_ms, &snapshot.budget())?;
    }
    Ok(())
}

/// What an interaction needs; of a search also what it leads to.
fn needs(asked: &Interaction, sim: &Sim) -> Vec<Need> {
    match asked {
        Interaction::Capabilities => Vec::new(),
        Interaction::Read(type_name, ..) | Interaction::Vread(type_name, ..) => vec![Need(Some(type_name), 'r')],
        Interaction::Search(search) => {
            let mut needs = alongside(&search.parameters);
            needs.push(Need(search.type_name, 's'));
            needs
        }
        Interaction::History(request) => {
            let mut needs = alongside(&request.parameters);
            needs.push(match request.of {
                history::Of::Instance(type_name, _) => Need(Some(type_name), 'r'),
                history::Of::Type(type_name) => Need(Some(type_name), 's'),
                history::Of::System => Need(None, 's'),
            });
            needs
        }
        Interaction::Create(content, conditions) => {
            let mut needs = vec![Need(Some(content.type_name), 'c')];
            // Which there is already, and it may be shown.
            if let Some(query) = &conditions.if_none_exist {
                needs.extend([Need(Some(content.type_name), 'r'), Need(Some(content.type_name), 's')]);
                needs.extend(alongside(&parameters_of(Some(content.type_name), query)));
            }
            needs
        }
        // Of an unknown id it creates.
        Interaction::Update(whom, content, _) => whom_needs(whom, content.type_name, 'u'),
        // It is answered with what there is.
        Interaction::Patch(type_name, whom, ..) => {
            let mut needs = whom_needs(whom, type_name, 'u');
            needs.push(Need(Some(type_name), 'r'));
            needs
        }
        // What refers to it goes, too.
        Interaction::Delete(request) if request.cascade => vec![Need(None, 'd')],
        Interaction::Delete(request) => match &request.which {
            Which::Instance(type_name, _) => vec![Need(Some(type_name), 'd')],
            Which::Matching(type_name, query) => {
                let mut needs = vec![Need(*type_name, 'd'), Need(*type_name, 's')];
                needs.extend(alongside(&parameters_of(*type_name, query)));
                needs
            }
        },
        Interaction::Restore(_) => vec![Need(None, 'c'), Need(None, 'u'), Need(None, 'd')],
        Interaction::Batch(content) | Interaction::Transaction(content) => {
            let mut needs: Vec<Need> = bundle::interactions(content, sim.profile().version()).iter().flat_map(|one| self::needs(one, sim)).collect();
            referred(content.resource.value(), Definitions::of(sim.profile().version()), &mut needs);
            needs
        }
        Interaction::Operation(call) => match call.definition.code {
            "$convert" => Vec::new(),
            "$validate" | "$meta" | "$diff" => vec![Need(call.level.type_name(), 'r')],
            "$lastn" => vec![Need(call.level.type_name(), 's'), Need(None, 's')],
            // What belongs to it may be of any type.
            "$everything" => vec![Need(None, 'r'), Need(None, 's')],
            "$meta-add" | "$meta-delete" => vec![Need(call.level.type_name(), 'u')],
            _ => vec![Need(call.level.type_name(), 'd')],
        },
    }
}

/// The parameters of a condition.
fn parameters_of(type_name: Option<&str>, query: &str) -> Vec<(String, String)> {
    pairs(target::condition(type_name, query))
}

/// What it needs to find whom it is about, and to do it.
fn whom_needs(whom: &Whom, type_name: &'static str, letter: char) -> Vec<Need> {
    let mut needs = vec![Need(Some(type_name), letter)];
    if let Whom::Where(query) = whom {
        needs.push(Need(Some(type_name), 's'));
        needs.extend(alongside(&parameters_of(Some(type_name), query)));
    }
    needs
}

/// What conditional references in a Bundle need: `Patient?identifier=…` is a search.
fn referred(value: &Value, definitions: &'static Definitions, needs: &mut Vec<Need>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| referred(item, definitions, needs)),
        Value::Object(members) => {
            if let Some((type_name, query)) = members.get("reference").and_then(Value::as_str).and_then(|text| text.split_once('?')) {
                let type_name = definitions.find_resource_type(type_name);
                needs.push(Need(type_name, 's'));
                needs.extend(alongside(&parameters_of(type_name, query)));
            }
            members.values().for_each(|member| referred(member, definitions, needs));
        }
        _ => {}
    }
}
