//! Files organized by the resources of a type, <https://hl7.org/fhir/uv/bulkdata/export.html>: a block for each.

use serde_json::json;

use super::{BATCH, Export, Lines, failed, suffix, uid_of};
use crate::fhir::Failure;
use crate::index::Hit;
use crate::query::Query;
use crate::search::condition::Condition;
use crate::search::extract::{refers_term, type_term};

impl Export<'_> {
    /// Makes files in which each resource of a type is followed by what belongs to it, <https://hl7.org/fhir/uv/bulkdata/export.html>. What belongs
    /// to none is left out.
    pub(super) fn organized(&mut self, by: &'static str, queries: &[(&'static str, Query)], errors: &mut Vec<String>) -> Result<(), Failure> {
        let own = queries.iter().find(|(type_name, _)| *type_name == by).map(|(_, query)| query.clone());
        // Of those that are not exported themselves, what refers to them is.
        let headers = match &own {
            Some(own) => own.clone(),
            // Of patients those whose resources are wanted.
            None if by == "Patient" => self.query(by)?,
            None => Query::term(&type_term(by)),
        };
        let mut file: Option<Lines> = None;
        for copy in 0..self.order.times.max(1) {
            let mut after = None;
            loop {
                let found = self.found(&headers, after.as_ref(), BATCH)?;
                for hit in &found.hits {
                    if let Some(full) = file.take_if(|f| f.count >= self.order.page.max(1)) {
                        self.finish(full, "", errors)?;
                    }
                    let mut lines = match file.take() {
                        Some(lines) => lines,
                        None => self.next_file("output")?,
                    };
                    self.block(by, hit, own.as_ref(), queries, copy, &mut lines)?;
                    file = Some(lines);
                }
                if found.hits.len() < BATCH {
                    break;
                }
                after = found.last;
            }
        }
        file.map_or(Ok(()), |last| self.finish(last, "", errors))
    }

    /// A header, the resource it names if that is wanted, and what belongs to it; nothing if nothing does.
    fn block(
        &mut self,
        by: &'static str,
        header: &Hit,
        own: Option<&Query>,
        queries: &[(&'static str, Query)],
        copy: usize,
        out: &mut Lines,
    ) -> Result<(), Failure> {
        let uid = uid_of(by, &self.text(by, &header.version)?);
        let named = format!("{uid}{}", suffix(copy));
        let title = json!({"resourceType": "Parameters", "parameter": [{"name": "header", "valueReference": {"reference": named}}]}).to_string();
        let mut is_begun = false;
        let mut put = |line: Option<String>, out: &mut Lines| -> Result<(), Failure> {
            let Some(line) = line else { return Ok(()) };
            if !std::mem::replace(&mut is_begun, true) {
                out.add(&title).map_err(failed)?;
            }
            out.add(&line).map_err(failed)
        };
        if own.is_some() && self.is_wanted(header) {
            let line = self.resource(by, header, copy)?;
            put(line, out)?;
        }
        for (type_name, query) in queries.iter().filter(|(type_name, _)| *type_name != by) {
            let query = Query::and(vec![self.belonging(by, &uid, type_name)?, query.clone()]);
            let mut after = None;
            loop {
                let (found, wanted) = self.hits(&query, after.as_ref(), BATCH)?;
                for hit in &wanted {
                    let line = self.resource(type_name, hit, copy)?;
                    put(line, out)?;
                }
                if found.hits.len() < BATCH {
                    break;
                }
                after = found.last;
            }
        }
        Ok(())
    }

    /// Which resources of a type belong to another resource: of a patient what the compartment says, of others what refers to them.
    fn belonging(&self, by: &'static str, uid: &str, type_name: &'static str) -> Result<Query, Failure> {
        if by != "Patient" {
            return Ok(Query::term(&refers_term(uid)));
        }
        let id = uid.rsplit('/').next().unwrap_or_default().to_owned();
        self.compiled(&[], Some(Condition::Compartment(by, id)), type_name)
    }
}
