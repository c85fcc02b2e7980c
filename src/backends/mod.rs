//! The one seam between a map call and where it runs.
//!
//! A [`Backend`] is what a name stands for; [`Backend::open`] makes a [`Session`], which a scope holds for as long
//! as it is open. A session *pulls* work: [`Session::run`] claims chunks of the [`Job`] and runs them until none
//! is left. The C vtable is this trait with C types (`foreign.rs`); no built-in backend has a side door.

#[cfg(target_os = "linux")]
pub mod engine;
pub mod foreign;
#[cfg(target_os = "linux")]
pub mod loky;
#[cfg(target_os = "linux")]
pub mod multiprocessing;
pub mod sequential;
pub mod threading;

use crate::cpu::Pins;
use crate::job::Job;
use crate::status::{Error, Result};
use std::sync::Arc;

/// What a scope asks of a backend when it opens a session.
#[derive(Clone, Copy, Debug)]
pub struct OpenRequest<'a> {
    /// Workers asked for: positive, or negative as joblib counts (-1 all, -2 all but one).
    pub n_jobs: i32,
    /// Threads for BLAS and OpenMP inside each task; 0 where the caller did not say.
    pub inner_max_num_threads: i32,
    /// `key=value;key=value` as the caller wrote it, or `None`.
    pub params: Option<&'a str>,
}

/// A place where maps can run. Shared by all threads.
pub trait Backend: Send + Sync {
    /// Whether tasks run in this process, on the caller's own function, ctx and arrays.
    fn shares_memory(&self) -> bool;

    /// Whether workers have the libraries and limits of this process: because they are in it, or forks of it.
    fn inherits(&self) -> bool {
        self.shares_memory()
    }

    /// Whether the backend applies `inner_max_num_threads` itself; otherwise the job does, on each worker.
    fn applies_inner_limits(&self) -> bool {
        false
    }

    /// `pb_shutdown` was called: ends what is idle.
    fn shutdown(&self) {}

    /// Starts a session, or says what is wrong with the parameters or missing on this machine.
    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>>;
}

/// An open backend. Dropping it closes it. Maps of several threads may run in one session at once.
pub trait Session: Send + Sync {
    /// How many workers a map that asks for `n_jobs` (positive) would really get; below 1: there is none to be had.
    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        Ok(n_jobs)
    }

    /// Workers that n_jobs = -1 stands for; `None`: the CPUs of the caller's share.
    fn max_n_jobs(&self) -> Result<Option<i32>> {
        Ok(None)
    }

    /// Whether the other questions get the same answers at any time, so that they need not be asked at every call.
    fn is_steady(&self) -> bool {
        false
    }

    /// Runs the job: returns when every item has run, or the job has stopped and no item runs any more.
    fn run(&self, job: &Arc<Job>) -> Result<()>;

    /// The same, where the last map of this thread was the same a moment ago, and its items were [dealt](Job::was_dealt).
    fn run_again(&self, job: &Arc<Job>) -> Result<()> {
        self.run(job)
    }

    /// Where the threads of its own that work in a map outside any task are to run; `None`: where the system puts them.
    fn pins(&self) -> Option<Arc<Pins>> {
        None
    }

    /// The backend for maps inside this session's tasks at nesting level `level` (1 or more); `None` leaves it
    /// to the default rule: `threading` at level 1, `sequential` below.
    fn nested_backend(&self, _level: i32) -> Result<Option<String>> {
        Ok(None)
    }
}

/// Splits `key=value;key=value` and checks each key against those that `backend` knows.
pub fn parse_params<'a>(
    backend: &str,
    params: Option<&'a str>,
    known: &[&str],
) -> Result<Vec<(&'a str, &'a str)>> {
    let pairs = params.unwrap_or_default().split(';').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())).ok_or_else(|| {
                Error::invalid(format!("params of backend '{backend}': '{pair}' is not key=value (pairs are separated by ';')"))
            })?;
            if known.contains(&key) {
                return Ok((key, value));
            }
            let help = match known {
                [] => "it takes no parameters".to_owned(),
                known => format!("it knows: {}", known.join(", ")),
            };
            Err(Error::invalid(format!("backend '{backend}' has no parameter '{key}'; {help}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_name_what_is_wrong_with_them() {
        assert_eq!(parse_params("b", Some("x=1; y = 2;"), &["x", "y"]).unwrap(), [("x", "1"), ("y", "2")]);
        let text = |params| parse_params("b", Some(params), &["x"]).unwrap_err().message.clone();
        assert!(text("x").contains("'x' is not key=value"));
        assert!(text("z=1").contains("no parameter 'z'; it knows: x"));
        assert!(parse_params("b", Some("z=1"), &[]).unwrap_err().message.contains("takes no parameters"));
    }
}
