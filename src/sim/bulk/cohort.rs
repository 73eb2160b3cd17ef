//! Whose resources those of some patients are, and which patients a search means.

use std::collections::BTreeSet;

use crate::fhir::Failure;
use crate::query::Query;
use crate::search::condition::Condition;
use crate::search::extract::type_term;
use crate::search::{Scope, Search};
use crate::sim::find::within;
use crate::sim::snapshot::Snapshot;
use crate::sim::storage_failure;
use crate::version::Version;

impl Snapshot {
    /// The resources of a type that belong to one of these patients.
    pub(super) fn of_patients(&self, ids: &[String], type_name: &str) -> Query {
        let params = self.params().of(type_name);
        let references = || ids.iter().map(|id| format!("Patient/{id}").into()).collect();
        let themselves = || Query::terms_of(&format!("{type_name}/_id\u{1f}c"), ids.iter().map(|id| id.as_str().into()).collect());
        let codes = self.definitions().compartment("Patient", type_name).unwrap_or_default();
        // Another who is linked to one of them is none of them.
        if type_name == "Patient" {
            return themselves();
        }
        let mut any: Vec<Query> = codes.iter().filter_map(|code| params.get(code)).map(|param| Query::terms_of(&param.key('r', ""), references())).collect();
        if codes.contains(&"{def}") {
            any.push(themselves());
        }
        Query::or(any)
    }

    /// The ids of the patients that a search finds, or whose compartment has what it finds.
    ///
    /// # Errors
    /// It cannot be searched by; it is too costly.
    pub fn patients_by(&self, type_name: &'static str, parameters: &[(String, String)], now_ms: i64) -> Result<BTreeSet<String>, Failure> {
        let budget = self.budget();
        let scope = Scope { type_name: Some(type_name), compartment: None };
        let mut search = Search::parse(parameters, scope, self.params())?.strict()?;
        search.conditions.push((String::new(), Condition::Compartments("Patient")));
        let query = Query::and(vec![Query::term(&type_term(type_name)), self.compile(&search, now_ms, &budget)?.query]);
        let body = |type_name: &'static str, version: &Version| self.body_for(type_name, version, &budget);
        let unreadable = |e| storage_failure("the index cannot be read", &e);
        let mut found = BTreeSet::new();
        if type_name == "Patient" {
            let uids = self.view.uids(&query, &body, &budget).map_err(unreadable)?;
            found.extend(uids.iter().filter_map(|uid| uid.strip_prefix("Patient/")).map(str::to_owned));
        }
        let params = self.params().of(type_name);
        let codes = self.definitions().compartment("Patient", type_name).unwrap_or_default();
        for param in codes.iter().filter_map(|code| params.get(code)).filter(|_| type_name != "Patient") {
            let terms = self.view.terms(&query, &param.key('r', "Patient/"), &body, &budget).map_err(unreadable)?;
            found.extend(terms.iter().map(ToString::to_string));
        }
        within(&budget, found)
    }
}
