//! The commands. `serve` owns the directory of simulators; the others talk to it.

mod client;
mod demo;
mod events;
mod load;
mod log;
mod reindex;
mod replay;
mod serve;
mod sims;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use client::Client;

/// Many isolated FHIR simulators in one fast server.
#[derive(Debug, Parser)]
#[command(name = "fhirsim", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the simulators of a directory
    Serve(serve::ServeArgs),
    /// Make, list, show, empty and delete simulators
    #[command(subcommand)]
    Sim(sims::SimCommand),
    /// Load Bundles, resources and NDJSON into a simulator
    Load(load::LoadArgs),
    /// Build a simulator's index anew from its events
    Reindex(reindex::ReindexArgs),
    /// List a simulator's events, or show one
    Events(events::EventsArgs),
    /// Send a simulator's recorded requests again, to another or to any FHIR server, and compare the answers
    Replay(replay::ReplayArgs),
}

/// How to reach the server.
#[derive(Clone, Debug, Args)]
struct Remote {
    /// URL of the server
    #[arg(long, env = "FHIRSIM_SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The server's admin token
    #[arg(long, env = "FHIRSIM_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

impl Remote {
    fn client(&self) -> Client {
        Client::new(&self.server, self.admin_token.clone())
    }
}

/// Prints a line. When nobody reads any more (`| head`), that is a quiet end.
fn say(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// Runs the command that was given.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Sim(command) => sims::run(command),
        Command::Load(args) => load::run(&args),
        Command::Reindex(args) => reindex::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Replay(args) => replay::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("fhirsim: {message}");
            ExitCode::FAILURE
        }
    }
}
