//! Which documents of the index that another builds on count no more: beside the other's commits, one file for each, which
//! the commit names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "hidden-";

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{name}"))
}

/// Reads the file of that name.
pub fn read(folder: &Path, name: &str) -> io::Result<imbl::HashSet<u64>> {
    let bytes = fs::read(file(folder, name))?;
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(io::Error::other("the file of hidden documents was cut short"));
    }
    Ok(numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
}

/// Writes the file of that name, before the commit that names it.
pub fn write(folder: &Path, name: &str, hidden: &imbl::HashSet<u64>) -> io::Result<()> {
    let bytes: Vec<u8> = hidden.iter().flat_map(|number| number.to_le_bytes()).collect();
    fs::write(file(folder, name), bytes)
}

/// Removes those of other names, which went with earlier commits; what cannot be removed is removed the next time.
pub fn sweep(folder: &Path, name: &str) {
    let current = file(folder, name);
    let is_old = |path: &PathBuf| *path != current && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(PREFIX));
    let found = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    found.filter(is_old).for_each(|path| drop(fs::remove_file(path)));
}
