//! Assertions that were used: each is good once.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;

use parking_lot::Mutex;
use serde_json::json;

use crate::fhir::id::clip;
use crate::simdb::SimId;
use crate::simdb::write::replace_file;
use crate::smart::Refused;

/// Most assertions of a simulator that are remembered as used.
const MAX_USED: usize = 100_000;

/// Which assertions were used, by simulator and `jti`, each until it ends, in seconds since 1970; a file remembers them over a
/// restart.
#[derive(Debug)]
pub struct Used {
    known: Mutex<Assertions>,
    file: PathBuf,
}

#[derive(Debug, Default)]
struct Assertions {
    by_sim: HashMap<SimId, HashMap<String, i64>>,
    /// Lines of the file.
    lines: usize,
}

impl Assertions {
    /// Each as a line.
    fn all(&self) -> String {
        let of = |(sim, all): (&SimId, &HashMap<String, i64>)| all.iter().map(|(jti, ends)| line(sim, jti, *ends)).collect::<String>();
        self.by_sim.iter().map(of).collect()
    }
}

fn line(sim: &SimId, jti: &str, ends: i64) -> String {
    json!([sim.as_str(), jti, ends]).to_string() + "\n"
}

impl Used {
    /// Those that `root` remembers.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(root: &std::path::Path) -> std::io::Result<Self> {
        let file = root.join(".assertions");
        let bytes = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let mut known = Assertions { lines: text.lines().count(), ..Assertions::default() };
        // What was cut off when it was written was not answered.
        for (sim, jti, ends) in text.lines().filter_map(|line| serde_json::from_str::<(String, String, i64)>(line).ok()) {
            if let Ok(sim) = sim.parse() {
                known.by_sim.entry(sim).or_default().insert(jti, ends);
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            replace_file(&file, known.all().as_bytes())?;
        }
        Ok(Self { known: Mutex::new(known), file })
    }

    /// Takes note of one; each is good once.
    pub(super) fn first(&self, sim: &SimId, jti: &str, ends: i64, now: i64) -> std::result::Result<(), Refused> {
        let failed = |e: std::io::Error| Refused::new("server_error", format!("the assertion cannot be noted: {e}"));
        let mut known = self.known.lock();
        let of = |known: &Assertions| known.by_sim.get(sim).map_or((0, i64::MAX), |all| (all.len(), all.values().copied().min().unwrap_or(i64::MAX)));
        if known.lines >= MAX_USED && (known.lines >= 2 * known.by_sim.values().map(HashMap::len).sum::<usize>() || of(&known).1 < now) {
            known.by_sim.values_mut().for_each(|all| all.retain(|_, ends| *ends >= now));
            known.by_sim.retain(|_, all| !all.is_empty());
            let text = known.all();
            replace_file(&self.file, text.as_bytes()).map_err(failed)?;
            known.lines = text.lines().count();
        }
        if known.by_sim.get(sim).and_then(|all| all.get(jti)).is_some_and(|ends| *ends >= now) {
            let said = clip(jti.split_once(' ').map_or(jti, |(_, jti)| jti));
            return Err(Refused::new("invalid_grant", format!("the jti '{said}' was used before; each assertion is good once")));
        }
        let (there, next) = of(&known);
        if there >= MAX_USED {
            let when = crate::clock::instant(next.saturating_mul(1_000));
            return Err(Refused::new(
                "invalid_grant",
                format!("{MAX_USED} assertions of this simulator are in use, which is the most; the first of them ends at {when}"),
            ));
        }
        let this = line(sim, jti, ends);
        std::fs::File::options().create(true).append(true).open(&self.file).and_then(|mut file| file.write_all(this.as_bytes())).map_err(failed)?;
        known.by_sim.entry(sim.clone()).or_default().insert(jti.to_owned(), ends);
        known.lines += 1;
        Ok(())
    }
}
