//! `fhirsim load`: files into a simulator, several at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use flate2::read::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use walkdir::WalkDir;

use super::Remote;
use super::client::{Client, reason};

/// Resources that are sent together where a file does not say.
const BATCH: usize = 200;

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// <session>__<name>
    sim: String,
    /// Files or directories: Bundles of any type, single resources, NDJSON; each may be gzipped
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Files sent at the same time
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
    #[command(flatten)]
    remote: Remote,
}

/// What came of it.
#[derive(Default)]
struct Tally {
    stored: BTreeMap<String, usize>,
    refused: BTreeMap<String, usize>,
    again: Vec<PathBuf>,
}

pub fn run(args: &LoadArgs) -> Result<(), String> {
    let files = find(&args.paths)?;
    let client = args.remote.client();
    client.expect("GET", &super::sims::path(&args.sim), None)?;
    let started = Instant::now();
    let bar = ProgressBar::new(files.len() as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} files {elapsed}").map_err(|e| e.to_string())?);
    let tally = Mutex::new(Tally::default());
    send_all(&files, args, &client, &bar, &tally, true);
    // What referred to something that another file brings can be stored now.
    let again = tally.lock().map(|mut t| std::mem::take(&mut t.again)).unwrap_or_default();
    send_all(&again, args, &client, &bar, &tally, false);
    bar.finish_and_clear();
    let tally = tally.into_inner().map_err(|e| e.to_string())?;
    report(&tally, files.len(), started)
}

fn report(tally: &Tally, files: usize, started: Instant) -> Result<(), String> {
    let stored: usize = tally.stored.values().sum();
    let took = started.elapsed();
    let rate = stored as u128 * 1_000 / took.as_millis().max(1);
    println!("{stored} resources stored from {files} files in {:.1} s ({rate} a second)", took.as_secs_f64());
    for (type_name, n) in &tally.stored {
        println!("  {type_name:<30} {n:>8}");
    }
    let refused: usize = tally.refused.values().sum();
    if refused == 0 {
        return Ok(());
    }
    println!("{refused} refused:");
    for (why, n) in &tally.refused {
        println!("  {n:>8}  {why}");
    }
    Err(format!("{refused} refused"))
}

fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in paths {
        if !path.exists() {
            return Err(format!("{} does not exist", path.display()));
        }
        for entry in WalkDir::new(path).sort_by_file_name() {
            let entry = entry.map_err(|e| e.to_string())?;
            let name = entry.file_name().to_string_lossy();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            if entry.file_type().is_file() && (path.is_file() || plain.ends_with(".json") || plain.ends_with(".ndjson")) {
                found.push(entry.into_path());
            }
        }
    }
    Ok(found)
}

fn send_all(files: &[PathBuf], args: &LoadArgs, client: &Client, bar: &ProgressBar, tally: &Mutex<Tally>, may_retry: bool) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.concurrency.clamp(1, 64).min(files.len()) {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = send_file(path, &args.sim, client, tally);
                    let Ok(mut tally) = tally.lock() else { return };
                    match outcome {
                        Ok(()) => {}
                        Err(Refusal { status: 412, .. }) if may_retry => tally.again.push(path.clone()),
                        Err(refusal) => *tally.refused.entry(format!("{}: {}", path.display(), refusal.why)).or_default() += 1,
                    }
                    bar.inc(u64::from(may_retry));
                }
            });
        }
    });
}

/// Why a whole file was refused.
struct Refusal {
    status: u16,
    why: String,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { status: 0, why }
    }
}

fn send_file(path: &Path, sim: &str, client: &Client, tally: &Mutex<Tally>) -> Result<(), Refusal> {
    let text = read(path).map_err(|e| e.to_string())?;
    let name = path.to_string_lossy();
    let base = format!("/sim/{sim}/fhir");
    if name.trim_end_matches(".gz").ends_with(".ndjson") {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        return send_batches(&lines, &base, client, tally);
    }
    let kind = |member: &str| crate::fhir::raw::member(&text, 0, member).map(|span| crate::fhir::raw::string(&text[span]).into_owned());
    if !text.trim_start().starts_with('{') {
        return Err("not a JSON object".to_owned().into());
    }
    let is_bundle = kind("resourceType").as_deref() == Some("Bundle");
    match kind("type").as_deref() {
        Some("transaction" | "batch") if is_bundle => send_bundle(text.as_bytes(), &base, client, tally),
        _ if is_bundle => {
            let entries = crate::fhir::raw::member(&text, 0, "entry").map(|span| crate::fhir::raw::elements(&text, span.start)).unwrap_or_default();
            let resources: Vec<&str> = entries.into_iter().filter_map(|e| crate::fhir::raw::member(&text, e.start, "resource").map(|r| &text[r])).collect();
            send_batches(&resources, &base, client, tally)
        }
        _ => send_batches(&[text.trim()], &base, client, tally),
    }
}

/// Sends resources as batches: those with an id keep it.
fn send_batches(resources: &[&str], base: &str, client: &Client, tally: &Mutex<Tally>) -> Result<(), Refusal> {
    for chunk in resources.chunks(BATCH) {
        let mut entries = Vec::with_capacity(chunk.len());
        for text in chunk {
            let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
            let type_name = value["resourceType"].as_str().unwrap_or_default();
            let request = match value["id"].as_str() {
                Some(id) => json!({"method": "PUT", "url": format!("{type_name}/{id}")}),
                None => json!({"method": "POST", "url": type_name}),
            };
            entries.push(format!("{{\"resource\":{text},\"request\":{request}}}"));
        }
        let bundle = format!("{{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":[{}]}}", entries.join(","));
        send_bundle(bundle.as_bytes(), base, client, tally)?;
    }
    Ok(())
}

fn send_bundle(body: &[u8], base: &str, client: &Client, tally: &Mutex<Tally>) -> Result<(), Refusal> {
    let (status, answer) = client.call("POST", base, Some(body))?;
    if status != 200 {
        return Err(Refusal { status, why: format!("{status}: {}", reason(&answer)) });
    }
    let Ok(mut tally) = tally.lock() else { return Ok(()) };
    for entry in answer["entry"].as_array().into_iter().flatten() {
        let response = &entry["response"];
        let code = response["status"].as_str().unwrap_or_default();
        if code.starts_with('2') {
            let type_name = response["location"].as_str().and_then(|l| l.split('/').next()).unwrap_or("other");
            *tally.stored.entry(type_name.to_owned()).or_default() += 1;
        } else {
            *tally.refused.entry(format!("{code}: {}", reason(&response["outcome"]))).or_default() += 1;
        }
    }
    Ok(())
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = BufReader::new(File::open(path)?);
    if path.extension().is_some_and(|e| e == "gz") {
        MultiGzDecoder::new(file).read_to_string(&mut text)?;
    } else {
        let mut file = file;
        file.read_to_string(&mut text)?;
    }
    Ok(text)
}
