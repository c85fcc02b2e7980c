//! Which interpreter runs the bridge, and what it is given to run.

use super::params::Params;
use crate::link::WORKER_SOCKET;
use crate::link::spawn::{Command, in_path, text};
use crate::status::{Error, Result, Status};
use crate::tasks;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// What `python -c` runs: it reads the bridge's modules from the socket, so that no file needs to be anywhere.
const LOADER: &str = include_str!("loader.py");

// The files of `engine/parallel_backend_engine`, as MODULES: pairs of a module's name and its text.
include!(concat!(env!("OUT_DIR"), "/engine_modules.rs"));

/// The interpreter.
pub fn program(params: &Params) -> PathBuf {
    in_path(&params.python)
}

/// The library's file, which the bridge sends to workers that do not have it.
pub fn library() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("PB_LIBRARY").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let own = tasks::own_library().filter(|own| std::env::current_exe().is_ok_and(|program| program != *own));
    own.ok_or_else(|| {
        Error::new(
            Status::ERR_BACKEND_UNAVAILABLE,
            "this program has parallel_backend inside (the static library), but workers on a cluster need it as a shared one: \
             set PB_LIBRARY to the path of libparallel_backend.so of the same version",
        )
    })
}

/// The command that starts a bridge. Nothing in it tells where a cluster is, or how to enter it.
pub fn command(params: &Params) -> Command {
    let program = program(params).into_os_string();
    let arguments = ["-u", "-c", LOADER].map(OsString::from);
    let socket = OsString::from(WORKER_SOCKET.to_string());
    let environment = std::env::vars_os().map(|(mut entry, value)| {
        entry.push("=");
        entry.push(value);
        entry
    });
    Command {
        program: text(&program),
        arguments: [program].into_iter().chain(arguments).chain([socket]).map(text).collect(),
        environment: environment.map(text).collect(),
    }
}

/// What the bridge reads first: the length of its modules as JSON, and these.
pub fn modules() -> Result<Vec<u8>> {
    let modules: BTreeMap<&str, &str> = MODULES.iter().copied().collect();
    let json =
        serde_json::to_vec(&modules).map_err(|error| Error::new(Status::ERR_INTERNAL, error.to_string()))?;
    Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
}

/// Why the interpreter did not start.
pub fn cannot_start(params: &Params, error: &io::Error) -> Error {
    let advice = match error.raw_os_error() {
        Some(libc::ENOENT) => "there is no such file",
        Some(libc::EACCES | libc::ENOEXEC) => "it must be an executable program",
        Some(libc::EAGAIN) => "the limit on processes is reached (`ulimit -u`)",
        Some(libc::EMFILE) => "the limit on open files is reached (`ulimit -n`)",
        _ => "the system refused",
    };
    Error::new(
        Status::ERR_BACKEND_UNAVAILABLE,
        format!(
            "backend '{}' needs Python and cannot start '{}': {error}; {advice}. Set PB_PYTHON, or the parameter python=, to \
             an interpreter that has the engine",
            params.kind.name(),
            program(params).display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn the_command_has_no_address_in_it() {
        let params =
            Params::parse(Kind::Dask, Some("address=tcp://secret:1;tls_key=/secret;python=/p")).unwrap();
        let command = command(&params);
        assert_eq!(command.program.to_str().unwrap(), "/p");
        assert!(command.arguments.iter().all(|argument| !argument.to_str().unwrap().contains("secret")));
        assert_eq!(command.arguments.last().unwrap().to_str().unwrap(), "3");
    }

    #[test]
    fn all_modules_are_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/engine/parallel_backend_engine");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
        let names = files.filter_map(|name| name.strip_suffix(".py").map(str::to_owned));
        let mut names: Vec<_> = names
            .map(|name| match &name[..] {
                "__init__" => "parallel_backend_engine".to_owned(),
                name => format!("parallel_backend_engine.{name}"),
            })
            .collect();
        names.sort();
        assert_eq!(MODULES.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
        assert!(names.contains(&"parallel_backend_engine.bridge".to_owned()));
    }
}
