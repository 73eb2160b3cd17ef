//! `fhirsim events`.

use clap::Args;
use serde_json::{Value, json};

use super::Remote;
use super::sims::path;

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// <session>__<name>
    sim: String,
    /// Show this event
    event: Option<String>,
    /// How many to list
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// Only events of which this holds, such as type=Patient, status=4xx or since=marker:start; may be repeated
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// Wait so long for an event if there is none, such as 30s; ends with 1 if none comes
    #[arg(long)]
    wait: Option<String>,
    /// Give this moment a name, to ask for what happened since, and do nothing else
    #[arg(long, conflicts_with_all = ["event", "filters", "wait"])]
    mark: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: &EventsArgs) -> Result<(), String> {
    let client = args.remote.client();
    if let Some(event) = &args.event {
        let shown = client.expect("GET", &format!("{}/events/{event}", path(&args.sim)), None)?;
        super::say(&crate::fhir::raw::pretty(&shown.to_string()));
        return Ok(());
    }
    if let Some(name) = &args.mark {
        let marker = client.expect("POST", &format!("{}/markers", path(&args.sim)), Some(json!({"name": name}).to_string().as_bytes()))?;
        super::say(&format!("{} is after all events up to {}", name, marker["event"].as_str().unwrap_or_default()));
        return Ok(());
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &args.limit.to_string());
    for filter in &args.filters {
        let (name, value) = filter.split_once('=').ok_or_else(|| format!("--filter {filter}: write name=value"))?;
        query.append_pair(name, value);
    }
    query.extend_pairs(args.wait.iter().map(|wait| ("wait", wait)));
    let page = client.expect("GET", &format!("{}/events?{}", path(&args.sim), query.finish()), None)?;
    if page["timedOut"] == true {
        return Err(format!("no such event within {}", args.wait.as_deref().unwrap_or_default()));
    }
    super::say(&format!("{:<27} {:>6}  {:<12} REQUEST", "EVENT", "STATUS", "INTERACTION"));
    for event in page["events"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        super::say(&format!(
            "{:<27} {:>6}  {:<12} {} {}",
            text(&event["event"]),
            event["response"]["status"].to_string(),
            text(&event["interaction"]),
            text(&event["request"]["method"]),
            text(&event["request"]["url"])
        ));
    }
    Ok(())
}
