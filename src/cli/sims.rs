//! `fhirsim sim ...`.

use std::path::PathBuf;

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
        /// Begin as another simulator is, or as a snapshot of it: lab__one or lab__one@loaded
        #[arg(long)]
        from: Option<String>,
        /// Begin as a template
        #[arg(long, conflicts_with = "from")]
        template: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make, show or forget a template, which simulators can begin as; without a name, list them
    Template {
        /// The name
        name: Option<String>,
        /// Make it of what an export has written
        #[arg(long, requires = "name")]
        file: Option<PathBuf>,
        /// Make it of a simulator, or of a snapshot of one: lab__one or lab__one@loaded
        #[arg(long, requires = "name", conflicts_with = "file")]
        from: Option<String>,
        /// Forget it
        #[arg(long, requires = "name", conflicts_with_all = ["file", "from"])]
        delete: bool,
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
    /// Empty a simulator, or make it what a snapshot of it was
    Reset {
        /// <session>__<name>
        id: String,
        /// The snapshot
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Write a simulator, with all its events, into a file
    Export {
        /// <session>__<name>
        id: String,
        /// Such as lab__one.tar.zst
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
    /// Write chosen events into a zip with a page that shows them and the SHA-256 of every file
    Evidence {
        /// <session>__<name>
        id: String,
        /// Such as lab__one-evidence.zip
        file: PathBuf,
        /// Which events: filters as the list of events has them, such as status=4xx&since=marker:start; without any, all
        #[arg(long, default_value = "")]
        filter: String,
        /// What to call it
        #[arg(long)]
        title: Option<String>,
        /// Sign it with the server's key
        #[arg(long)]
        sign: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Make a simulator of what an export has written
    Import {
        /// <session>__<name>
        id: String,
        /// What an export has written
        file: PathBuf,
        #[command(flatten)]
        remote: Remote,
    },
    /// Tell a simulator to go wrong: by presets and files of rules, in this order; without any, show the rules
    Faults {
        /// <session>__<name>
        id: String,
        /// Names of presets, or JSON files of rules
        rules: Vec<String>,
        /// No faults
        #[arg(long, conflicts_with = "rules")]
        clear: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Say what lies further back than the simulator's retention, or remove it now
    Retention {
        /// <session>__<name>
        id: String,
        /// Remove it
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Give a session a token of its own, or an end; or end it now
    Session {
        /// The first part of its simulators' names
        name: String,
        /// A new token, which is shown this once
        #[arg(long)]
        token: bool,
        /// No token any more
        #[arg(long, conflicts_with = "token")]
        no_token: bool,
        /// What the token is asked for: management (the API and the pages), or all (the FHIR endpoints too)
        #[arg(long)]
        protects: Option<String>,
        /// When its simulators are deleted: an instant, or from now such as 8h or 7d, or never
        #[arg(long)]
        expires: Option<String>,
        /// Delete its simulators now
        #[arg(long, conflicts_with_all = ["token", "no_token", "protects", "expires"])]
        delete: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Give the state of a simulator a name, to reset it to or to clone
    Snapshot {
        /// <session>__<name>
        id: String,
        /// The name; without one the snapshots are listed
        name: Option<String>,
        /// Forget the snapshot of that name
        #[arg(long, requires = "name")]
        delete: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

pub fn run(command: SimCommand) -> Result<(), String> {
    match command {
        SimCommand::Create { id, fhir_version, from, template, remote } => {
            let mut wish = json!({"id": id});
            let given = [("fhirVersion", fhir_version), ("from", from), ("template", template)];
            given.into_iter().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| wish[name] = value.into());
            let made = remote.client().expect("POST", "/api/sims", Some(wish.to_string().as_bytes()))?;
            super::say(text(&made, "base"));
            Ok(())
        }
        SimCommand::Template { name, file, from, delete, remote } => template(name.as_deref(), file.as_deref(), from.as_deref(), delete, &remote),
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
        SimCommand::Reset { id, to, remote } => {
            let body = to.as_ref().map(|name| json!({"snapshot": name}).to_string());
            remote.client().expect("POST", &format!("{}/reset", path(&id)), body.as_deref().map(str::as_bytes))?;
            super::say(&to.map_or_else(|| format!("{id} is empty"), |name| format!("{id} is as its snapshot {name}")));
            Ok(())
        }
        SimCommand::Export { id, file, remote } => {
            let bytes = remote.client().download(&format!("{}/archive", path(&id)), &file)?;
            super::say(&format!("{id} is in {}, {bytes} bytes", file.display()));
            Ok(())
        }
        SimCommand::Evidence { id, file, filter, title, sign, remote } => {
            let mut query = form_urlencoded::Serializer::new(filter);
            query.extend_pairs(title.map(|title| ("title", title)));
            query.extend_pairs(sign.then_some(("sign", "true")));
            let bytes = remote.client().download(&format!("{}/evidence?{}", path(&id), query.finish()), &file)?;
            super::say(&format!("{} has {bytes} bytes", file.display()));
            Ok(())
        }
        SimCommand::Import { id, file, remote } => {
            let made = remote.client().upload(&format!("{}/archive", path(&id)), &file)?;
            super::say(&format!("{}: {} events", text(&made, "base"), made["events"]));
            Ok(())
        }
        SimCommand::Faults { id, rules, clear, remote } => faults(&id, &rules, clear, &remote),
        SimCommand::Retention { id, now, remote } => {
            let method = if now { "POST" } else { "GET" };
            let shown = remote.client().expect(method, &format!("{}/retention", path(&id)), now.then_some(&b""[..]))?;
            super::say(&crate::fhir::raw::pretty(&shown.to_string()));
            Ok(())
        }
        SimCommand::Session { name, token, no_token, protects, expires, delete, remote } => {
            let mut wish = serde_json::Map::new();
            if token || no_token {
                wish.insert("token".to_owned(), token.into());
            }
            wish.extend(protects.map(|p| ("protects".to_owned(), p.into())));
            wish.extend(expires.map(|e| ("expires".to_owned(), if e == "never" { Value::Null } else { e.into() })));
            session(&name, wish, delete, &remote)
        }
        SimCommand::Snapshot { id, name, delete, remote } => snapshot(&id, name.as_deref(), delete, &remote),
    }
}

fn session(name: &str, wish: serde_json::Map<String, Value>, delete: bool, remote: &Remote) -> Result<(), String> {
    let place = format!("/api/sessions/{}", percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC));
    let client = remote.client();
    if delete {
        let ended = client.expect("DELETE", &place, None)?;
        super::say(&format!("session {name} is ended; simulators deleted: {}", ended["deleted"]));
        return Ok(());
    }
    let (method, body) = if wish.is_empty() { ("GET", None) } else { ("PUT", Some(Value::from(wish).to_string())) };
    let shown = client.expect(method, &place, body.as_deref().map(str::as_bytes))?;
    super::say(&crate::fhir::raw::pretty(&shown.to_string()));
    Ok(())
}

fn template(name: Option<&str>, file: Option<&std::path::Path>, from: Option<&str>, delete: bool, remote: &Remote) -> Result<(), String> {
    let client = remote.client();
    let Some(name) = name else {
        for name in client.expect("GET", "/api/templates", None)?["templates"].as_array().into_iter().flatten() {
            super::say(name.as_str().unwrap_or_default());
        }
        return Ok(());
    };
    let place = format!("/api/templates/{}", percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC));
    if delete {
        client.expect("DELETE", &place, None)?;
        super::say(&format!("the template {name} is forgotten"));
        return Ok(());
    }
    let shown = match (file, from) {
        (Some(file), _) => client.upload(&place, file)?,
        (None, Some(from)) => client.expect("PUT", &place, Some(json!({"from": from}).to_string().as_bytes()))?,
        (None, None) => client.expect("GET", &place, None)?,
    };
    super::say(&format!("template {name}: {} resources, {} events", resources(&shown), shown["events"]));
    Ok(())
}

/// How many resources there are by type, in all.
fn resources(of: &Value) -> u64 {
    of["counts"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum()
}

fn faults(id: &str, rules: &[String], clear: bool, remote: &Remote) -> Result<(), String> {
    let (client, place) = (remote.client(), format!("{}/faults", path(id)));
    if clear {
        client.expect("DELETE", &place, None)?;
        super::say(&format!("{id} has no faults"));
        return Ok(());
    }
    if !rules.is_empty() {
        let mut all: Vec<Value> = Vec::new();
        for rule in rules {
            if std::path::Path::new(rule).extension().is_none_or(|e| e != "json") {
                all.push(json!({"preset": rule}));
                continue;
            }
            let text = std::fs::read_to_string(rule).map_err(|e| format!("{rule}: {e}"))?;
            match serde_json::from_str(&text).map_err(|e| format!("{rule}: {e}"))? {
                Value::Array(rules) => all.extend(rules),
                other => all.push(other),
            }
        }
        client.expect("PUT", &place, Some(Value::from(all).to_string().as_bytes()))?;
    }
    super::say(&crate::fhir::raw::pretty(&client.expect("GET", &place, None)?["faults"].to_string()));
    Ok(())
}

fn snapshot(id: &str, name: Option<&str>, delete: bool, remote: &Remote) -> Result<(), String> {
    let (client, place) = (remote.client(), format!("{}/snapshots", path(id)));
    match name {
        Some(name) if delete => {
            client.expect("DELETE", &format!("{place}/{name}"), None)?;
            super::say(&format!("the snapshot {name} of {id} is forgotten"));
        }
        Some(name) => {
            let made = client.expect("POST", &place, Some(json!({"name": name}).to_string().as_bytes()))?;
            super::say(&format!("{id}@{name}: {} resources, {} events", resources(&made), made["events"]));
        }
        None => {
            super::say(&format!("{:<30} {:>9} {:>9}  MADE", "SNAPSHOT", "RESOURCES", "EVENTS"));
            for one in client.expect("GET", &place, None)?["snapshots"].as_array().into_iter().flatten() {
                super::say(&format!("{:<30} {:>9} {:>9}  {}", text(one, "name"), resources(one), one["events"].to_string(), text(one, "created")));
            }
        }
    }
    Ok(())
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
            super::say(&format!(
                "{:<40} {:>5} {:>9} {:>9}  {}",
                text(sim, "id"),
                text(sim, "fhirVersion"),
                resources(sim),
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
