//! `fhirsim reindex`: by the server, or on a directory that no server holds.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use super::Remote;
use super::sims::path;
use crate::clock::Clock;
use crate::sim::Registry;
use crate::simdb::SimId;
use crate::simdb::journal::Durability;

#[derive(Debug, Args)]
pub struct ReindexArgs {
    /// <session>__<name>
    sim: String,
    /// Work on this directory, which no server may hold, instead of asking the server
    #[arg(long)]
    simdb: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

pub fn run(args: &ReindexArgs) -> Result<(), String> {
    let bar = ProgressBar::new_spinner().with_message(format!("{} is being indexed", args.sim));
    bar.enable_steady_tick(Duration::from_millis(100));
    let events = match &args.simdb {
        None => {
            let done = args.remote.client().expect("POST", &format!("{}/reindex", path(&args.sim)), None)?;
            done["events"].to_string()
        }
        Some(simdb) => {
            let id: SimId = args.sim.parse().map_err(|f: crate::fhir::Failure| f.diagnostics)?;
            if !simdb.is_dir() {
                return Err(format!("{} is not a directory", simdb.display()));
            }
            let (registry, _) = Registry::open(simdb, Durability::Process, Clock::system()).map_err(|e| e.to_string())?;
            let events = registry.reindex(&id).map_err(|f| f.diagnostics)?;
            let damages = registry.get(&id).map_err(|f| f.diagnostics)?.damages().to_vec();
            for damage in damages {
                eprintln!("set aside: {}: {}", damage.folder, damage.reason);
            }
            registry.close();
            events.to_string()
        }
    };
    bar.finish_and_clear();
    super::say(&format!("{}: the index holds {events} events", args.sim));
    Ok(())
}
