//! Settings of the server: a flag over `FHIRSIM_*` over `fhirsim.toml` over the default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use config::{Config, Environment, File};
use serde::Deserialize;

use crate::http::Options;
use crate::simdb::journal::Durability;

/// What `fhirsim serve` can be told.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The directory of simulators.
    pub simdb: PathBuf,
    /// The directory of archives that simulators can begin as.
    pub templates: PathBuf,
    /// Whether the demo simulator is made.
    pub demo: bool,
    /// Whether an unknown simulator is made on first use.
    pub auto_create: bool,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// What URLs begin with, if not what a request says.
    pub public_url: Option<String>,
    /// What `/api` and the pages ask for.
    pub admin_token: Option<String>,
    /// Hosts beyond this machine that the server itself may send to, separated by commas.
    pub allow_outbound: String,
    /// Most bytes of a body.
    pub max_body_bytes: usize,
    /// What one search may cost, in steps of roughly a tenth of a microsecond.
    pub max_search_steps: u64,
    /// Seconds a client may take to send a body.
    pub read_timeout_s: u64,
    /// Threads that serve; 0 is one a core.
    pub workers: usize,
    /// What is logged: `off`, `error`, `warn`, `info`, `debug`, or a filter of the tracing crate.
    pub log: String,
}

/// What was given on the command line.
pub type Overrides = Vec<(&'static str, config::Value)>;

impl ServeConfig {
    /// Merges the sources.
    ///
    /// # Errors
    /// A value that cannot be read, or an address beyond loopback without an admin token.
    pub fn load(file: &str, overrides: Overrides) -> Result<Self, String> {
        let fail = |e: config::ConfigError| e.to_string();
        let mut builder = Config::builder()
            .set_default("addr", "127.0.0.1:8080")
            .and_then(|b| b.set_default("simdb", "simdb"))
            .and_then(|b| b.set_default("templates", "testkits"))
            .and_then(|b| b.set_default("demo", false))
            .and_then(|b| b.set_default("auto_create", false))
            .and_then(|b| b.set_default("durability", "process"))
            .and_then(|b| b.set_default("allow_outbound", ""))
            .and_then(|b| b.set_default("max_body_bytes", 64_u64 << 20))
            .and_then(|b| b.set_default("max_search_steps", crate::sim::registry::SEARCH_STEPS))
            .and_then(|b| b.set_default("read_timeout_s", 30))
            .and_then(|b| b.set_default("workers", 0))
            .and_then(|b| b.set_default("log", "info"))
            .map_err(fail)?
            .add_source(File::with_name(file).required(file != "fhirsim.toml"));
        // FHIRSIM_SERVER is the client's, so the environment is taken name by name.
        let ours = [
            "addr",
            "simdb",
            "templates",
            "demo",
            "auto_create",
            "durability",
            "public_url",
            "admin_token",
            "allow_outbound",
            "max_body_bytes",
            "max_search_steps",
            "read_timeout_s",
            "workers",
            "log",
        ];
        let set =
            ours.iter().filter_map(|name| Some((format!("FHIRSIM_{}", name.to_uppercase()), std::env::var(format!("FHIRSIM_{}", name.to_uppercase())).ok()?)));
        builder = builder.add_source(Environment::with_prefix("FHIRSIM").try_parsing(true).source(Some(set.collect())));
        for (name, value) in overrides {
            builder = builder.set_override(name, value).map_err(fail)?;
        }
        let config: Self = builder.build().and_then(Config::try_deserialize).map_err(fail)?;
        if !config.addr.ip().is_loopback() && config.admin_token.as_deref().is_none_or(str::is_empty) {
            return Err(format!("{} can be reached from other machines: give --admin-token to protect /api and the pages", config.addr));
        }
        if let Some(url) = config.public_url.as_deref().filter(|u| !u.starts_with("http://") && !u.starts_with("https://")) {
            return Err(format!("--public-url '{url}' does not begin with http:// or https://"));
        }
        Ok(config)
    }

    /// What the HTTP side needs of it.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            addr: self.addr,
            public_url: self.public_url.clone(),
            auto_create: self.auto_create,
            admin_token: self.admin_token.clone().filter(|t| !t.is_empty()),
            allow_outbound: self.allow_outbound.split(',').map(str::trim).filter(|host| !host.is_empty()).map(str::to_owned).collect(),
            max_body_bytes: self.max_body_bytes,
            read_timeout: Duration::from_secs(self.read_timeout_s),
            workers: self.workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("x.toml");
        std::fs::write(&file, "workers = 3\nlog = \"warn\"\ndurability = \"disk\"\n")?;
        let config = ServeConfig::load(&file.to_string_lossy(), vec![("log", "error".into())])?;
        assert_eq!((config.workers, config.log.as_str(), config.durability, config.demo), (3, "error", Durability::Disk, false));
        Ok(())
    }

    #[test]
    fn other_addresses_need_a_token() {
        let given = |overrides: Overrides| ServeConfig::load("fhirsim.toml", overrides);
        assert!(given(vec![("addr", "0.0.0.0:80".into())]).is_err_and(|e| e.contains("--admin-token")));
        assert!(given(vec![("addr", "0.0.0.0:80".into()), ("admin_token", "s3cret".into())]).is_ok());
    }
}
