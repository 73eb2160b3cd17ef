//! `fhirsim sim ...`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Remote;

#[derive(Debug, Subcommand)]
pub enum SimCommand {
    /// Make a simulator
    Create {
        /// <session>__<name>
        id: String,
        /// STU3, R4, R4B or R5
        #[arg(long)]
        fhir_version: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// List the simulators
    List {
        /// Of this session only
        #[arg(long)]
        session: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show a simulator
    Show {
        /// <session>__<name>
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete a simulator and all its events
    Delete {
        /// <session>__<name>
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
    /// Empty a simulator
    Reset {
        /// <session>__<name>
        id: String,
        #[command(flatten)]
        remote: Remote,
    },
}

pub fn run(command: SimCommand) -> Result<(), String> {
    match command {
        SimCommand::Create { id, fhir_version, remote } => {
            let mut wish = json!({"id": id});
            if let Some(version) = fhir_version {
                wish["fhirVersion"] = version.into();
            }
            let made = remote.client().expect("POST", "/api/sims", Some(wish.to_string().as_bytes()))?;
            super::say(text(&made, "base"));
            Ok(())
        }
        SimCommand::List { session, remote } => list(session.as_deref(), &remote),
        SimCommand::Show { id, remote } => {
            let shown = remote.client().expect("GET", &path(&id), None)?;
            super::say(&crate::fhir::raw::pretty(&shown.to_string()));
            Ok(())
        }
        SimCommand::Delete { id, remote } => {
            remote.client().expect("DELETE", &path(&id), None)?;
            super::say(&format!("{id} is deleted"));
            Ok(())
        }
        SimCommand::Reset { id, remote } => {
            remote.client().expect("POST", &format!("{}/reset", path(&id)), None)?;
            super::say(&format!("{id} is empty"));
            Ok(())
        }
    }
}

fn list(session: Option<&str>, remote: &Remote) -> Result<(), String> {
    let client = remote.client();
    let mut after = String::new();
    super::say(&format!("{:<40} {:>5} {:>9} {:>9}  BASE", "SIMULATOR", "FHIR", "RESOURCES", "EVENTS"));
    loop {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(session.map(|s| ("session", s)));
        query.extend_pairs((!after.is_empty()).then_some(("after", &after)));
        let page = client.expect("GET", &format!("/api/sims?{}", query.finish()), None)?;
        for sim in page["sims"].as_array().into_iter().flatten() {
            let resources: u64 = sim["counts"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
            super::say(&format!(
                "{:<40} {:>5} {:>9} {:>9}  {}",
                text(sim, "id"),
                text(sim, "fhirVersion"),
                resources,
                sim["eventCount"].to_string(),
                text(sim, "base")
            ));
        }
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
}

/// The path of a simulator in the API.
pub fn path(id: &str) -> String {
    format!("/api/sims/{}", percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC))
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}
