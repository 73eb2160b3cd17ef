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
use crate::fhir::raw;

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
    super::say(&format!("{stored} resources stored from {files} files in {:.1} s ({rate} a second)", took.as_secs_f64()));
    for (type_name, n) in &tally.stored {
        super::say(&format!("  {type_name:<30} {n:>8}"));
    }
    let refused: usize = tally.refused.values().sum();
    if refused == 0 {
        return Ok(());
    }
    super::say(&format!("{refused} refused:"));
    for (why, n) in &tally.refused {
        super::say(&format!("  {n:>8}  {why}"));
    }
    Err(format!("{refused} refused"))
}

fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for path in paths {
        if !path.exists() {
            return Err(format!("{} does not exist", path.display()));
        }
        if !path.is_file() && !path.is_dir() {
            return Err(format!("{} is neither a file nor a directory", path.display()));
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
    let text = text.trim_start_matches('\u{feff}').trim();
    let target = Target { file: path.display().to_string(), base: format!("/sim/{sim}/fhir"), client, tally };
    if path.to_string_lossy().trim_end_matches(".gz").ends_with(".ndjson") {
        let lines = (1..).zip(text.lines()).map(|(n, line)| (format!("line {n}"), line.trim()));
        return target.batches(lines.filter(|(_, line)| !line.is_empty()).collect());
    }
    if let Err(e) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return Err(format!("malformed JSON: {e}").into());
    }
    if !text.starts_with('{') {
        return Err("not a JSON object".to_owned().into());
    }
    let word = |member: &str| raw::member(text, 0, member).map(|span| raw::string(&text[span]).into_owned());
    if word("resourceType").as_deref() != Some("Bundle") {
        return target.batches(vec![(String::new(), text)]);
    }
    match word("type").as_deref() {
        Some("transaction" | "batch") => target.bundle(text.as_bytes(), &[]),
        Some("history") => Err("a history Bundle cannot be loaded: it says what happened, not what is to be stored".to_owned().into()),
        _ => target.collection(text),
    }
}

/// Where a file's resources go.
struct Target<'a> {
    file: String,
    base: String,
    client: &'a Client,
    tally: &'a Mutex<Tally>,
}

impl Target<'_> {
    /// A Bundle that only holds resources: as a transaction, so that references between them are kept.
    fn collection(&self, text: &str) -> Result<(), Refusal> {
        let spans = raw::member(text, 0, "entry").map(|span| raw::elements(text, span.start)).unwrap_or_default();
        let mut entries = Vec::with_capacity(spans.len());
        for span in spans {
            let Some(resource) = raw::member(text, span.start, "resource").map(|r| &text[r]) else { continue };
            let full_url = raw::member(text, span.start, "fullUrl").map(|u| format!("\"fullUrl\":{},", &text[u])).unwrap_or_default();
            entries.push(format!("{{{full_url}\"resource\":{resource},\"request\":{}}}", request_of(resource)?));
        }
        let bundle = format!("{{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[{}]}}", entries.join(","));
        self.bundle(bundle.as_bytes(), &[])
    }

    /// Resources of their own, many at a time; what cannot be read is refused by itself.
    fn batches(&self, resources: Vec<(String, &str)>) -> Result<(), Refusal> {
        let mut readable = Vec::with_capacity(resources.len());
        for (place, text) in resources {
            match request_of(text) {
                Ok(request) => readable.push((place, format!("{{\"resource\":{text},\"request\":{request}}}"))),
                Err(why) => self.refuse(&place, &why),
            }
        }
        for chunk in readable.chunks(BATCH) {
            let (places, entries): (Vec<&str>, Vec<&str>) = chunk.iter().map(|(p, e)| (p.as_str(), e.as_str())).unzip();
            let bundle = format!("{{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":[{}]}}", entries.join(","));
            self.bundle(bundle.as_bytes(), &places)?;
        }
        Ok(())
    }

    fn refuse(&self, place: &str, why: &str) {
        if let Ok(mut tally) = self.tally.lock() {
            let gap = if place.is_empty() { "" } else { " " };
            *tally.refused.entry(format!("{}{gap}{place}: {why}", self.file)).or_default() += 1;
        }
    }

    /// Sends a Bundle and counts what came of its entries, which stand at `places` in the file.
    fn bundle(&self, body: &[u8], places: &[&str]) -> Result<(), Refusal> {
        let (status, answer) = self.client.call("POST", &self.base, Some(body))?;
        if status != 200 {
            return Err(Refusal { status, why: format!("{status}: {}", reason(&answer)) });
        }
        for (at, entry) in answer["entry"].as_array().into_iter().flatten().enumerate() {
            let response = &entry["response"];
            let code = response["status"].as_str().unwrap_or_default();
            if code.starts_with('2') {
                let type_name = response["location"].as_str().and_then(|l| l.split('/').next()).unwrap_or("other");
                if let Ok(mut tally) = self.tally.lock() {
                    *tally.stored.entry(type_name.to_owned()).or_default() += 1;
                }
            } else {
                let place = places.get(at).map_or_else(|| format!("entry {at}"), ToString::to_string);
                self.refuse(&place, &format!("{code}: {}", reason(&response["outcome"])));
            }
        }
        Ok(())
    }
}

/// How a resource is stored: one with an id keeps it.
fn request_of(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("malformed JSON: {e}"))?;
    let type_name = value["resourceType"].as_str().unwrap_or_default();
    Ok(match value["id"].as_str() {
        Some(id) => json!({"method": "PUT", "url": format!("{type_name}/{id}")}),
        None => json!({"method": "POST", "url": type_name}),
    })
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
