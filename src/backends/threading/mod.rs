//! `threading`: the caller and helpers from one pool of threads, which starts when first needed and stays.
//!
//! A map of k workers lends itself to k-1 pool threads and begins to work at once (`cell`). They claim chunks of the
//! same job; when nothing is left to claim, the caller takes the map back from those who have not begun, and waits
//! only for those who have. Waits therefore go only from a map to threads that run its own items, and from those to maps
//! inside their items: a tree, which cannot deadlock, however deep maps nest and however few threads there are.

mod board;
mod cell;
mod deal;
#[cfg(all(test, loom))]
mod loom_tests;
mod params;
mod phases;
mod pool;
mod slots;
mod spin;
mod wakeups;

pub use params::{malformed_variables, variables};
pub use pool::{begin_phase, end_phase, forget_after_fork, fork_guard, shutdown, spawn};

use super::{Backend, OpenRequest, Session};
use crate::cpu::Pins;
use crate::job::Job;
use crate::status::{Error, Result, Status};
use cell::Visits;
use params::Params;
use pool::Help;
use std::sync::Arc;

/// The backend `threading`.
#[derive(Debug)]
pub struct Threading;

impl Backend for Threading {
    fn shares_memory(&self) -> bool {
        true
    }

    fn open(&self, request: &OpenRequest) -> Result<Box<dyn Session>> {
        Ok(Box::new(Open(Params::new(request.params)?)))
    }
}

/// A session: the pool, with one scope's parameters.
struct Open(Params);

impl Session for Open {
    fn is_steady(&self) -> bool {
        true
    }

    fn pins(&self) -> Option<Arc<Pins>> {
        self.0.pins.clone()
    }

    fn effective_n_jobs(&self, n_jobs: i32) -> Result<i32> {
        Ok(n_jobs.min(pool::MAX_THREADS as i32 + 1))
    }

    fn run(&self, job: &Arc<Job>) -> Result<()> {
        let helpers = job.n_jobs() - 1;
        if helpers == 0 {
            job.work_lone();
            return Ok(());
        }
        let expected = job.estimate();
        let is_dealt = job.has_an_item_each();
        if is_dealt && expected.is_none_or(|nanoseconds| pool::help(nanoseconds, is_dealt) != Help::Useless) {
            self.take_effect(job);
            if let Some(visits) = deal::deal_all(job) {
                return end(job, visits);
            }
        }
        if let Some(nanoseconds) = expected {
            let alone = match pool::help(nanoseconds, is_dealt) {
                Help::Useless => true,
                Help::Useful => false,
                Help::IfAwake => !pool::is_awake() && !job.is_one_of_many(),
            };
            if alone && job.work_alone(nanoseconds) {
                return Ok(());
            }
        }
        self.take_effect(job);
        job.spread();
        end(job, deal::lend(job, job.n_jobs()))
    }

    fn run_again(&self, job: &Arc<Job>) -> Result<()> {
        self.take_effect(job);
        match deal::deal_all(job) {
            Some(visits) => end(job, visits),
            None => self.run(job),
        }
    }
}

impl Open {
    fn take_effect(&self, job: &Job) {
        if !job.is_nested() {
            self.0.take_effect();
        }
    }
}

/// The end of a map that was not meant to be run by its caller alone.
fn end(job: &Job, visits: Visits) -> Result<()> {
    match visits {
        Visits::None => job.ran_alone(),
        Visits::Some => {}
        Visits::Abandoned => return Err(forked()),
    }
    Ok(())
}

fn forked() -> Error {
    Error::new(
        Status::ERR_WORKER_LOST,
        "the process was forked by a task of this map: the child has none of the map's other workers",
    )
}
