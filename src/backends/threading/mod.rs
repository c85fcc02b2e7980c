//! `threading`: the caller and helpers from one pool of threads, which starts when first needed and stays.
//!
//! A map of k workers offers k-1 places to the pool and begins to work at once. Whoever is free takes a place and
//! claims chunks from the same job; when nothing is left to claim, the caller takes back the places that nobody took
//! and waits only for helpers that are still running an item (`gate.rs`). Waits therefore go only from a map to
//! threads that run its own items, and from those to maps inside their items: a tree, which cannot deadlock, however
//! deep maps nest and however few threads there are.

mod bell;
mod gate;
mod pool;

pub use pool::{ForkGuard, fork_guard, forks, shutdown, spawn};

use super::{Backend, OpenRequest, Session, parse_params};
use crate::job::Job;
use crate::status::{Error, Result, Status};
use gate::Visits;
use std::sync::Arc;
use std::time::Instant;

/// The backend `threading`.
#[derive(Debug)]
pub struct Threading;

impl Backend for Threading {
    fn shares_memory(&self) -> bool {
        true
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        parse_params("threading", request.params, &[])?;
        Ok(Box::new(Threading))
    }
}

impl Session for Threading {
    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        Ok(n_jobs.min(pool::MAX_THREADS as i32 + 1))
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        let helpers = job.n_jobs() - 1;
        if helpers == 0 {
            job.work();
            return Ok(());
        }
        if let Some(nanoseconds) = job.estimate() {
            if nanoseconds < pool::worth_help() && job.work_alone(nanoseconds) {
                return Ok(());
            }
        }
        let offer = pool::offer(job.clone(), helpers);
        let begin = Instant::now();
        job.work();
        match offer.join() {
            Visits::None => job.ran_alone(job.n_items(), begin.elapsed().as_nanos() as u64),
            Visits::Some => {}
            Visits::Abandoned => return Err(forked()),
        }
        Ok(())
    }
}

fn forked() -> Error {
    Error::new(
        Status::ERR_WORKER_LOST,
        "the process was forked by a task of this map: the child has none of the map's other workers",
    )
}
