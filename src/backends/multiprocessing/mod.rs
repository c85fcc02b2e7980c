//! `multiprocessing`: every map forks its workers, as R's mclapply and Python's fork pools do.
//!
//! The function, ctx and inputs are the caller's own, copied by the system when somebody writes to them, so nothing is
//! serialised and whatever the caller can call can be a task. Outputs are written into memory that the children share
//! with the parent (`board.rs`), who copies them to the caller's array when all children have left; where that array lies in a
//! block of `pb_alloc_shared` children write there, and nothing is copied. A child that dies takes with it nothing but
//! the item that it was running (`crew.rs`).

mod board;
mod books;
mod child;
mod crew;
mod fetch;
mod ring;

use super::{Backend, OpenRequest, Session, parse_params};
use crate::job::Job;
use crate::limits;
use crate::status::{Error, Result, Status};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// More children than this are not forked for one map.
const MAX_CHILDREN: i32 = 1024;
/// Children of children of ...: deeper than this is refused, before the machine is full of processes.
const MAX_DEPTH: u32 = 10;

/// How many maps on this backend are around this process.
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// The backend `multiprocessing`.
#[derive(Debug)]
pub struct Multiprocessing;

impl Backend for Multiprocessing {
    fn shares_memory(&self) -> bool {
        false
    }

    fn inherits(&self) -> bool {
        true
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        parse_params("multiprocessing", request.params, &[])?;
        Ok(Box::new(Multiprocessing))
    }
}

impl Session for Multiprocessing {
    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        Ok(n_jobs.min(MAX_CHILDREN))
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        if DEPTH.load(Ordering::Relaxed) >= MAX_DEPTH {
            return Err(Error::new(
                Status::ERR_UNSUPPORTED,
                format!(
                    "worker processes are nested {MAX_DEPTH} deep: this looks like a task that calls itself without end"
                ),
            ));
        }
        limits::before_fork();
        crew::Crew::new(job)?.run()
    }
}
