//! Who may do what: the one place that decides from token, interaction and type. Interactions know nothing of it.

use actix_web::HttpRequest;
use actix_web::http::header;
use serde_json::{Value, json};

use super::smart::Keys;
use super::{App, routes};
use crate::fhir::{Definitions, Failure, Kind, ResourceId};
use crate::interaction::delete::Which;
use crate::interaction::search::Request;
use crate::interaction::target::{Target, pairs};
use crate::interaction::{Interaction, history};
use crate::search::Search;
use crate::sim::find::From;
use crate::sim::{Auth, Sim};
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
    let profile = sim.profile();
    if profile.settings.auth == Auth::Off {
        return Ok(None);
    }
    let refused = |why: &str| Failure::new(Kind::Unauthorized, format!("{why}; POST …/auth/token gives one, as …/fhir/.well-known/smart-configuration says"));
    let given = routes::text(request, header::AUTHORIZATION).and_then(|h| h.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let (_, token) = given.ok_or_else(|| refused("this simulator asks for an access token, which is missing"))?;
    let access = Access::prove(token.trim(), &Keys::of(app)?.public).map_err(|why| refused(&format!("the access token is not one of this server: {why}")))?;
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
    Ok(Some(Bearer { access, scopes }))
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
                Err(Failure::new(Kind::Forbidden, message))
            }
        })
    }

    fn lacks(&self, Need(type_name, letter): Need) -> Failure {
        let message = format!("the token allows '{}', and this needs system/{}.{letter}", self.access.scope, type_name.unwrap_or("*"));
        Failure::new(Kind::Forbidden, message)
    }

    /// The interaction, if the token allows it: of a search only what it allows to find.
    ///
    /// # Errors
    /// It does not.
    pub fn allowed(&self, asked: Interaction, sim: &Sim) -> Result<Interaction, Failure> {
        match asked {
            Interaction::Search(mut search) => {
                self.search(&mut search)?;
                Ok(Interaction::Search(search))
            }
            Interaction::Read(type_name, ref id, ..) | Interaction::Vread(type_name, ref id, ..) => {
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

    fn search(&self, search: &mut Request) -> Result<(), Failure> {
        // What comes along may be of any type.
        if search.parameters.iter().any(|(name, _)| name.starts_with("_include") || name.starts_with("_revinclude")) {
            self.may(&[Need(None, 's')])?;
        }
        match allows(&self.scopes, search.type_name, 's') {
            Verdict::Yes => Ok(()),
            Verdict::No => Err(self.lacks(Need(search.type_name, 's'))),
            Verdict::Matching(restriction) => {
                search.parameters.extend(pairs(&restriction));
                Ok(())
            }
        }
    }
}

/// Whether a resource is one that a search finds.
fn matches(search: &str, type_name: &'static str, id: &ResourceId, sim: &Sim) -> Result<bool, Failure> {
    let snapshot = sim.snapshot();
    let mut parameters = pairs(search);
    parameters.push(("_id".to_owned(), id.to_string()));
    let scope = crate::search::Scope { type_name: Some(type_name), compartment: None };
    let search = Search::parse(&parameters, scope, snapshot.params())?;
    Ok(snapshot.search(&search, From::default(), 1, sim.now_ms(), &snapshot.budget())?.total > 0)
}

/// What an interaction needs, but for reads and searches, of which that depends on what they find.
fn needs(asked: &Interaction, sim: &Sim) -> Vec<Need> {
    match asked {
        Interaction::Capabilities => Vec::new(),
        Interaction::Read(type_name, ..) | Interaction::Vread(type_name, ..) => vec![Need(Some(type_name), 'r')],
        Interaction::Search(search) => vec![Need(search.type_name, 's')],
        Interaction::History(request) => match request.of {
            history::Of::Instance(type_name, _) => vec![Need(Some(type_name), 'r')],
            history::Of::Type(type_name) => vec![Need(Some(type_name), 's')],
            history::Of::System => vec![Need(None, 's')],
        },
        Interaction::Create(content, _) => vec![Need(Some(content.type_name), 'c')],
        // Of an unknown id it creates.
        Interaction::Update(_, content, _) => vec![Need(Some(content.type_name), 'u')],
        Interaction::Patch(type_name, ..) => vec![Need(Some(type_name), 'u')],
        Interaction::Delete(request) => match request.which {
            Which::Instance(type_name, _) => vec![Need(Some(type_name), 'd')],
            Which::Matching(type_name, _) => vec![Need(type_name, 'd')],
        },
        Interaction::Restore(_) => vec![Need(None, 'c'), Need(None, 'u'), Need(None, 'd')],
        Interaction::Batch(content) | Interaction::Transaction(content) => of_entries(content.resource.value(), Definitions::of(sim.profile().version())),
        Interaction::Operation(call) => match call.definition.code {
            "$convert" => Vec::new(),
            "$validate" | "$meta" | "$diff" => vec![Need(call.level.type_name(), 'r')],
            "$lastn" => vec![Need(call.level.type_name(), 's')],
            // What belongs to it may be of any type.
            "$everything" => vec![Need(None, 'r'), Need(None, 's')],
            "$meta-add" | "$meta-delete" => vec![Need(call.level.type_name(), 'u')],
            _ => vec![Need(call.level.type_name(), 'd')],
        },
    }
}

/// What the entries of a Bundle need.
fn of_entries(bundle: &Value, definitions: &'static Definitions) -> Vec<Need> {
    let mut needs = Vec::new();
    for entry in bundle["entry"].as_array().into_iter().flatten() {
        let url = entry["request"]["url"].as_str().unwrap_or_default();
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let target = Target::parse(path, definitions).ok();
        let type_name = target.as_ref().and_then(Target::type_name);
        let is_instance = matches!(target, Some(Target::Instance(..) | Target::Version(..)));
        let letter = match entry["request"]["method"].as_str().unwrap_or_default() {
            "POST" => 'c',
            "PUT" | "PATCH" => 'u',
            "DELETE" => 'd',
            _ if is_instance => 'r',
            _ => 's',
        };
        let need = Need(type_name, letter);
        if !needs.contains(&need) {
            needs.push(need);
        }
        // What comes along may be of any type.
        if url.contains("include") && !needs.contains(&Need(None, 's')) {
            needs.push(Need(None, 's'));
        }
    }
    needs
}
