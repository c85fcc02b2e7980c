//! `dask` and `ray`: maps on the clusters of these engines, which speak Python.
//!
//! A bridge, one Python process for each set of parameters, speaks to the engine (`bridge.rs`; `docs/bridge.md` has the
//! protocol). A map cuts its items into chunks (`sizes.rs`), sends them as messages (`message`), and takes what comes back
//! (`call.rs`). Nothing of Python is in this process, and no port is opened.

mod bridge;
mod bridges;
mod call;
pub mod frames;
mod life;
mod line;
mod params;
mod python;
pub mod sizes;
mod tail;

pub use bridges::{ForkGuard, fork_guard, shutdown};

use super::{Backend, OpenRequest, Session};
use crate::job::Job;
use crate::status::Result;
use params::Params;
use std::sync::Arc;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Dask's `distributed`.
    Dask,
    /// Ray.
    Ray,
}

impl Kind {
    /// The backend's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dask => "dask",
            Kind::Ray => "ray",
        }
    }

    /// What a scope on it may say.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Kind::Dask => &[
                "address",
                "engine_timeout",
                "idle_timeout",
                "python",
                "scheduler_file",
                "stall_timeout",
                "start_timeout",
                "threads",
                "tls_ca",
                "tls_cert",
                "tls_key",
            ],
            Kind::Ray => {
                &["address", "engine_timeout", "idle_timeout", "python", "stall_timeout", "start_timeout"]
            }
        }
    }
}

/// A backend on an engine.
#[derive(Debug)]
pub struct Engine(pub Kind);

impl Backend for Engine {
    fn shares_memory(&self) -> bool {
        false
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        Ok(Box::new(Open { params: Params::parse(self.0, request.params)? }))
    }
}

struct Open {
    params: Params,
}

impl Session for Open {
    fn max_n_jobs(&self) -> Result<Option<i32>> {
        let (bridge, _) = bridges::get(&self.params)?;
        let (slots, _) = bridge.slots();
        // Where there are none now, chunks that wait may bring some (adaptive clusters).
        Ok(Some(i32::try_from(slots).unwrap_or(i32::MAX).max(1)))
    }

    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        Ok(n_jobs.min(self.max_n_jobs()?.unwrap_or(1)))
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        call::check(self.params.kind, job)?;
        // A bridge may end between the look at it and the call: of old age, or with its engine.
        loop {
            let (bridge, ready) = bridges::get(&self.params)?;
            if let Some(line) = bridge.open(job.call()) {
                return call::Call::new(job, line, ready, &self.params)?.run();
            }
        }
    }
}
