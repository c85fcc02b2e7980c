//! `loky`: worker processes that stay, isolated from the caller and from each other.
//!
//! Workers are programs of their own, started by posix_spawn; they find the task by name or by its place in a library
//! (`tasks`), get chunks as messages (`message`) through shared memory (`link`), and write outputs there. One executor for
//! each set of parameters is kept between calls (`executor.rs`); a call borrows workers from it and drives them from the
//! caller's own thread (`call.rs`). A worker that dies takes with it no more than the item that it was running; another one
//! takes its place.

mod call;
mod command;
mod executor;
mod hand;
mod losses;
mod params;

pub use executor::{ForkGuard, fork_guard, shutdown};

use super::{Backend, OpenRequest, Session};
use crate::job::{Job, Task};
use crate::link;
use crate::status::{Error, Result, Status};
use params::Params;
use std::sync::Arc;

/// More workers than this are not started.
const MAX_WORKERS: i32 = 1024;
/// Workers of workers of ...: deeper than this is refused, before the machine is full of processes.
const MAX_DEPTH: u32 = 10;

/// The backend `loky`.
#[derive(Debug)]
pub struct Loky;

impl Backend for Loky {
    fn shares_memory(&self) -> bool {
        false
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        Ok(Box::new(Open { params: Params::parse(request.params)? }))
    }
}

/// Whether this task could run here: for those who would rather have worker processes, but need not.
pub fn can_run(task: &dyn Task) -> bool {
    call::check(task).is_ok() && command::program(&Params::default()).is_ok()
}

struct Open {
    params: Params,
}

impl Session for Open {
    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        Ok(n_jobs.min(MAX_WORKERS))
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        if link::depth() >= MAX_DEPTH {
            return Err(Error::new(
                Status::ERR_UNSUPPORTED,
                format!(
                    "worker processes are nested {MAX_DEPTH} deep: this looks like a task that calls itself without end"
                ),
            ));
        }
        call::Call::new(job, executor::get(&self.params))?.run()
    }
}
