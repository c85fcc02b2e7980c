//! Which program is a worker, and in what environment.

use super::params::Params;
use crate::link::spawn::{Command, in_path, text};
use crate::link::{self, WORKER_ARGUMENT};
use crate::status::{Error, Result, Status};
use crate::tasks;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables by which native libraries learn, when they are loaded, how many threads they may use.
const THREAD_VARIABLES: [&str; 8] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "JULIA_NUM_THREADS",
    "RCPP_PARALLEL_NUM_THREADS",
];

/// Where an installation has the program, seen from the folder of the library: `lib/`, `lib/TRIPLET/`, a build tree.
const PLACES: [&str; 5] = [
    "../libexec/parallel_backend/pb-worker",
    "../../libexec/parallel_backend/pb-worker",
    "../../../libexec/parallel_backend/pb-worker",
    "pb-worker",
    "../bin/pb-worker",
];

/// Threads that a worker's native libraries may use.
#[derive(Clone, Copy)]
pub struct Threads {
    pub count: i32,
    /// Whether the caller named the number: then it beats what the environment says.
    pub is_exact: bool,
}

/// The command that starts a worker.
pub fn command(params: &Params, threads: Threads) -> Result<Command> {
    let (program, arguments) = program(params)?;
    let own = [WORKER_ARGUMENT.to_owned(), (link::depth() + 1).to_string(), std::process::id().to_string()];
    let arguments =
        [program.clone().into_os_string()].into_iter().chain(arguments).chain(own.map(OsString::from));
    Ok(Command {
        program: text(&program),
        arguments: arguments.map(text).collect(),
        environment: environment(threads).map(text).collect(),
    })
}

fn environment(threads: Threads) -> impl Iterator<Item = OsString> {
    let ours = move |name: &str| {
        let is_set = std::env::var_os(name).is_some_and(|value| !value.is_empty());
        threads.count > 0 && (threads.is_exact || !is_set)
    };
    let theirs = std::env::vars_os().filter(move |(name, _)| {
        let name = name.to_str().unwrap_or_default();
        !(THREAD_VARIABLES.contains(&name) && ours(name))
    });
    let theirs = theirs.map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        entry
    });
    let set = THREAD_VARIABLES.into_iter().filter(move |name| ours(name));
    theirs.chain(set.map(move |name| format!("{name}={}", threads.count).into()))
}

/// The program with the arguments that come before ours.
pub fn program(params: &Params) -> Result<(PathBuf, Vec<OsString>)> {
    if let [program, arguments @ ..] = &params.worker[..] {
        return Ok((in_path(program), arguments.iter().map(OsString::from).collect()));
    }
    if let Some(path) = std::env::var_os("PB_WORKER").filter(|path| !path.is_empty()) {
        return Ok((path.into(), Vec::new()));
    }
    if tasks::can_rerun() {
        return Ok((this_program(), Vec::new()));
    }
    let folders = [tasks::own_library(), std::env::current_exe().ok()];
    let folders = folders.into_iter().flatten().filter_map(|file| file.parent().map(Path::to_owned));
    let places: Vec<_> = folders.flat_map(|folder| PLACES.map(|place| folder.join(place))).collect();
    let found = places.iter().find(|place| place.is_file()).cloned();
    found.map(|program| (program, Vec::new())).ok_or_else(|| {
        Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            format!(
                "backend 'loky' found no pb-worker: looked for {} and others; set PB_WORKER to its path, or call \
                 pb_worker_main first in main(), so that workers are the program itself",
                places.first().map_or_else(|| PLACES[0].into(), |place| place.display().to_string())
            ),
        )
    })
}

/// The program that runs here, even if its file was replaced meanwhile.
fn this_program() -> PathBuf {
    const OWN: &str = "/proc/self/exe";
    let path = std::env::current_exe().unwrap_or_else(|_| OWN.into());
    // A file that is gone has a word behind its name; through /proc it can still be started.
    if path.is_file() { path } else { OWN.into() }
}
