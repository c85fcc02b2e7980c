//! `PB_TRACE`: the file of a timeline of the whole process, looked at by its first map.
//!
//! Processes inherit the variable, and must not write over each other's files. `%p` in the path stands for the process's
//! number. Where there is none, a child that was forked from a process that used the library puts its number before the
//! extension; one that runs no map of its own writes nothing.

use super::timeline::cannot_write;
use super::{READ, RUNNING, SWITCH, lock, start_in};
use crate::status::{Error, Result};
use std::ffi::OsString;
use std::fs::{OpenOptions, remove_file};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable.
pub const VARIABLE: &str = "PB_TRACE";

static FORKED: AtomicBool = AtomicBool::new(false);

/// In a forked child.
pub(super) fn forked() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Looks at the variable, unless somebody has meanwhile.
#[cold]
pub(super) fn heed() -> Result<()> {
    let mut running = lock(&RUNNING);
    if SWITCH.load(Ordering::Relaxed) & READ != 0 {
        return Ok(());
    }
    match path() {
        Some(path) => start_in(&mut running, path).map_err(named),
        None => {
            SWITCH.fetch_or(READ, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// Whether the variable, if it is set, names a file that can be written: the error that the first map would end with. A
/// file that is there stays as it is.
pub fn check() -> Result<()> {
    let Some(path) = path() else { return Ok(()) };
    let there = path.exists();
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    opened.map_err(|error| named(cannot_write(&path, &error)))?;
    if !there {
        // Should it stay, it is empty and where the user wants one.
        let _ = remove_file(&path);
    }
    Ok(())
}

fn named(error: Error) -> Error {
    error.in_words(|said| format!("the environment variable {VARIABLE}: {said}"))
}

/// The file that the variable names for this process; empty is unset.
fn path() -> Option<PathBuf> {
    let value = std::env::var_os(VARIABLE).filter(|value| !value.to_string_lossy().trim().is_empty())?;
    Some(for_process(value, std::process::id(), FORKED.load(Ordering::Relaxed)))
}

fn for_process(value: OsString, process: u32, forked: bool) -> PathBuf {
    match value.to_str().map(str::trim) {
        Some(text) if text.contains("%p") => text.replace("%p", &process.to_string()).into(),
        Some(text) if !forked => text.into(),
        // What is not UTF-8 is a path all the same.
        None if !forked => value.into(),
        _ => with_number(Path::new(&value), process),
    }
}

/// `trace.json` as `trace.123.json`.
fn with_number(path: &Path, process: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!(".{process}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_a_file_of_its_own() {
        let path = |value: &str, forked| for_process(value.into(), 12, forked);
        assert_eq!(path(" a/t.json ", false), Path::new("a/t.json"));
        assert_eq!(path("a.b/t.json", true), Path::new("a.b/t.12.json"));
        assert_eq!(path("a.b/t", true), Path::new("a.b/t.12"));
        assert_eq!(path("t-%p.json", false), Path::new("t-12.json"));
        assert_eq!(path("t-%p.json", true), Path::new("t-12.json"));
    }
}
