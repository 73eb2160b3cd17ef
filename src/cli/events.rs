//! `fhirsim events`.

use clap::Args;
use serde_json::Value;

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
    let page = client.expect("GET", &format!("{}/events?limit={}", path(&args.sim), args.limit), None)?;
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
