//! The layer table of `src/lib.rs` is true: every `use crate::...` goes down.

use std::collections::BTreeMap;
use std::path::Path;

use walkdir::WalkDir;

#[test]
fn imports_go_strictly_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table = layers(&std::fs::read_to_string(root.join("lib.rs")).unwrap());
    assert!(table.len() >= 12, "{table:?}");
    let mut wrong = Vec::new();
    let mut imports = 0;
    for entry in WalkDir::new(&root).into_iter().map(Result::unwrap).filter(|e| e.path().extension().is_some_and(|x| x == "rs")) {
        let path = entry.path().strip_prefix(&root).unwrap();
        let module = path.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let here = *table.get(&module).unwrap_or_else(|| panic!("{module} is in no layer of src/lib.rs"));
        for (number, line) in std::fs::read_to_string(entry.path()).unwrap().lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(there) = table.get(&used) else { continue };
                imports += 1;
                if used != module && *there >= here {
                    wrong.push(format!("{}:{}: {module} (L{here}) uses {used} (L{there})", path.display(), number + 1));
                }
            }
        }
    }
    assert!(imports > 100, "{imports}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Module to layer, from the lines `//! | L<n> | modules | ...` of the table.
fn layers(lib: &str) -> BTreeMap<String, u32> {
    let rows = lib.lines().filter_map(|l| l.strip_prefix("//! | L"));
    rows.flat_map(|row| {
        let mut cells = row.split('|');
        let layer: u32 = cells.next().unwrap().trim().parse().unwrap();
        let names: Vec<String> = cells.next().unwrap().split('`').skip(1).step_by(2).map(|n| n.trim_start_matches("crate::").to_owned()).collect();
        names.into_iter().map(move |name| (name, layer))
    })
    .collect()
}

#[test]
fn files_and_functions_stay_small_enough_to_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in WalkDir::new(&root).into_iter().map(Result::unwrap).filter(|e| e.path().extension().is_some_and(|x| x == "rs")) {
        let lines = std::fs::read_to_string(entry.path()).unwrap().lines().count();
        assert!(lines <= 650, "{} has {lines} lines", entry.path().display());
        assert_ne!(entry.file_name(), "mod.rs");
    }
}
