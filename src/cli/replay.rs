//! `fhirsim replay`: the recorded requests of a simulator are sent again from here, which may be elsewhere than the server.

use std::time::{Duration, Instant};

use clap::Args;

use super::Remote;
use super::sims::path;
use crate::clock::EventId;
use crate::http::replay::Replay;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The simulator whose events are sent again: <session>__<name>
    sim: String,
    /// Where to: the URL of a FHIR endpoint, or the name of a simulator of this server
    to: String,
    /// Only events of which this holds, such as since=marker:start or type=Patient; may be repeated
    #[arg(long = "filter", value_name = "NAME=VALUE")]
    filters: Vec<String>,
    /// A header to send, such as 'Authorization: Bearer …', which is not recorded; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// With the pauses that there were, instead of as fast as it goes
    #[arg(long)]
    timed: bool,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: &ReplayArgs) -> Result<(), String> {
    let client = args.remote.client();
    let base = if args.to.contains("://") {
        args.to.trim_end_matches('/').to_owned()
    } else {
        format!("{}/sim/{}/fhir", args.remote.server.trim_end_matches('/'), args.to)
    };
    let headers: Vec<(String, String)> = args
        .headers
        .iter()
        .map(|h| h.split_once(':').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())).ok_or_else(|| format!("--header {h}: write name: value")))
        .collect::<Result<_, _>>()?;
    let version = client.expect("GET", &path(&args.sim), None)?["fhirVersion"].as_str().and_then(|name| name.parse().ok()).unwrap_or_default();
    if !args.to.contains("://") {
        client.expect("GET", &path(&args.to), None)?;
    }
    let mut replay = Replay::to(&base, headers, version);
    let (mut count, mut different, mut since) = (0, 0, None::<String>);
    // What is sent may come to be events of the same simulator, which are not to be sent again.
    let newest = client.expect("GET", &format!("{}/events?limit=1", path(&args.sim)), None)?["events"][0]["event"].as_str().map(str::to_owned);
    let until = newest.filter(|_| !args.filters.iter().any(|f| f.starts_with("until=")));
    let mut begun: Option<(Instant, i64)> = None;
    loop {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("order", "asc").append_pair("limit", "100");
        for filter in args.filters.iter().filter(|f| since.is_none() || !f.starts_with("since=")) {
            let (name, value) = filter.split_once('=').ok_or_else(|| format!("--filter {filter}: write name=value"))?;
            query.append_pair(name, value);
        }
        query.extend_pairs(since.iter().map(|since| ("since", since)));
        query.extend_pairs(until.iter().map(|until| ("until", until)));
        let page = client.expect("GET", &format!("{}/events?{}", path(&args.sim), query.finish()), None)?;
        for listed in page["events"].as_array().into_iter().flatten() {
            let name = listed["event"].as_str().unwrap_or_default();
            let event = client.expect("GET", &format!("{}/events/{name}?include=bodies", path(&args.sim)), None)?;
            if args.timed {
                let at = name.parse::<EventId>().map_or(0, EventId::millis);
                let (started, first) = *begun.get_or_insert((Instant::now(), at));
                let due = Duration::from_millis(u64::try_from(at - first).unwrap_or(0));
                std::thread::sleep(due.saturating_sub(started.elapsed()));
            }
            count += 1;
            let body = match event["request"]["body"].as_str() {
                Some(file) => client.bytes(&format!("{}/events/{name}/files/{file}", path(&args.sim)))?,
                None => Vec::new(),
            };
            let differences = replay.again(&event, body)?.differences;
            different += usize::from(!differences.is_empty());
            let said = if differences.is_empty() { "same".to_owned() } else { format!("different: {}", differences.join("; ")) };
            super::say(&format!(
                "{name} {} {}: {said}",
                event["request"]["method"].as_str().unwrap_or_default(),
                event["request"]["url"].as_str().unwrap_or_default()
            ));
        }
        match page["next"].as_str() {
            Some(next) => since = Some(next.to_owned()),
            None => break,
        }
    }
    super::say(&format!("{count} sent again to {base}, {different} answered differently"));
    if different == 0 { Ok(()) } else { Err(format!("{different} of {count} exchanges differ")) }
}
