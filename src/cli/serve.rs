//! `fhirsim serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::{demo, log};
use crate::clock::Clock;
use crate::config::{Overrides, ServeConfig};
use crate::http;
use crate::sim::Registry;
use crate::simdb::journal::Durability;

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen [default: 127.0.0.1:8080]
    #[arg(long)]
    addr: Option<SocketAddr>,
    /// The directory of simulators [default: simdb]
    #[arg(long)]
    simdb: Option<PathBuf>,
    /// The directory of archives, <name>.tar.zst, that simulators can begin as [default: testkits]
    #[arg(long)]
    templates: Option<PathBuf>,
    /// Make a simulator default__demo with data, and default__bulk for exports
    #[arg(long)]
    demo: bool,
    /// Make an unknown simulator on first use
    #[arg(long)]
    auto_create: bool,
    /// What an acknowledged write survives: the death of the process, or a power loss [default: process]
    #[arg(long)]
    durability: Option<Durability>,
    /// What URLs in answers begin with, behind a proxy
    #[arg(long)]
    public_url: Option<String>,
    /// What /api and the pages ask for; needed to listen beyond loopback
    #[arg(long)]
    admin_token: Option<String>,
    /// Hosts beyond this machine that the server itself may send to (replays, imports, keys), separated by commas [default: none]
    #[arg(long)]
    allow_outbound: Option<String>,
    /// Most bytes of a body [default: 67108864]
    #[arg(long)]
    max_body_bytes: Option<u64>,
    /// What one search may cost, in steps of roughly a tenth of a microsecond [default: 50000000]
    #[arg(long)]
    max_search_steps: Option<u64>,
    /// Seconds a client may take to send a body [default: 30]
    #[arg(long)]
    read_timeout_s: Option<u64>,
    /// Threads that serve [default: one a core]
    #[arg(long)]
    workers: Option<u64>,
    /// What to log: off, error, warn, info, debug [default: info]
    #[arg(long)]
    log: Option<String>,
    /// The settings' file
    #[arg(long, default_value = "fhirsim.toml")]
    config: String,
}

impl ServeArgs {
    fn overrides(&self) -> Overrides {
        let mut given = Overrides::new();
        given.extend(self.addr.map(|v| ("addr", v.to_string().into())));
        given.extend(self.simdb.as_ref().map(|v| ("simdb", v.to_string_lossy().into_owned().into())));
        given.extend(self.templates.as_ref().map(|v| ("templates", v.to_string_lossy().into_owned().into())));
        given.extend(self.demo.then(|| ("demo", true.into())));
        given.extend(self.auto_create.then(|| ("auto_create", true.into())));
        given.extend(self.durability.map(|v| ("durability", if v == Durability::Disk { "disk" } else { "process" }.into())));
        given.extend(self.public_url.clone().map(|v| ("public_url", v.into())));
        given.extend(self.admin_token.clone().map(|v| ("admin_token", v.into())));
        given.extend(self.allow_outbound.clone().map(|v| ("allow_outbound", v.into())));
        given.extend(self.max_body_bytes.map(|v| ("max_body_bytes", v.into())));
        given.extend(self.max_search_steps.map(|v| ("max_search_steps", v.into())));
        given.extend(self.read_timeout_s.map(|v| ("read_timeout_s", v.into())));
        given.extend(self.workers.map(|v| ("workers", v.into())));
        given.extend(self.log.clone().map(|v| ("log", v.into())));
        given
    }
}

pub fn run(args: &ServeArgs) -> Result<(), String> {
    let started = Instant::now();
    let config = ServeConfig::load(&args.config, args.overrides())?;
    let _lines = log::start(&config.log)?;
    raise_open_files();
    let (registry, restored) = Registry::open(&config.simdb, config.durability, Clock::system()).map_err(|e| format!("{}: {e}", config.simdb.display()))?;
    registry.limit_searches(config.max_search_steps);
    registry.take_templates_from(config.templates.clone());
    for event in restored {
        tracing::warn!(event, "recovered: the server or the machine had stopped before it was complete");
    }
    actix_web::rt::System::new().block_on(async {
        let server = http::start(registry.clone(), config.options()).map_err(|e| format!("{}: {e}", config.addr))?;
        let base = config.public_url.clone().unwrap_or_else(|| format!("http://{}", server.addr));
        println!(
            "fhirsim {} serves {} simulators of {} at http://{} (ready in {} ms)",
            env!("CARGO_PKG_VERSION"),
            registry.len(),
            config.simdb.display(),
            server.addr,
            started.elapsed().as_millis()
        );
        let running = actix_web::rt::spawn(server.running);
        if config.demo {
            let registry = registry.clone();
            let token = config.admin_token.clone();
            let server = format!("http://{}", server.addr);
            let made = actix_web::web::block(move || demo::make(&registry, &server, token)).await.map_err(|e| e.to_string())?;
            println!("{}", demo::what_to_try(&base, made?));
        }
        stop_signal().await;
        tracing::info!("stopping");
        server.stopping.send_replace(true);
        server.handle.stop(true).await;
        running.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    })?;
    registry.close();
    Ok(())
}

/// SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// As many open files as the system lets this process have: connections and indexes take some each.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
