//! Chunks in the hands of a backend written in C: each is claimed once and run once, by threads that we do not know.

use super::{Chunk, Job};
use crate::status::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
pub(super) struct Outside {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Default)]
struct State {
    /// Between the beginning and the end of the backend's `run`.
    open: bool,
    claimed: Vec<Chunk>,
    running: usize,
}

impl Outside {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CLOSED: &str =
    "this job takes no claims: pb_job_claim and pb_job_run are for a backend's run, while it runs";

impl Job {
    /// Lets a C backend claim, until [`Job::close_outside`].
    pub fn open_outside(&self) {
        self.outside.lock().open = true;
    }

    /// Ends claiming and waits for chunks that still run: a `run` that returned too early must not leave a task
    /// working on arrays that its caller has taken back.
    pub fn close_outside(&self) {
        let mut state = self.outside.lock();
        state.open = false;
        while state.running > 0 {
            state = self.outside.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Claims a chunk for a C backend.
    pub fn claim_outside(&self) -> Result<Option<Chunk>> {
        let mut state = self.outside.lock();
        if !state.open {
            return Err(Error::invalid(CLOSED));
        }
        let chunk = self.claim(0);
        state.claimed.extend(chunk);
        Ok(chunk)
    }

    /// Runs a chunk that [`Job::claim_outside`] gave, on this thread.
    pub fn run_outside(self: &Arc<Self>, chunk: Chunk) -> Result<()> {
        let place = |state: &State| state.claimed.iter().position(|claimed| *claimed == chunk);
        let mut state = self.outside.lock();
        if !state.open {
            return Err(Error::invalid(CLOSED));
        }
        let claimed = place(&state).ok_or_else(|| {
            Error::invalid(format!(
                "chunk {}..{} was not claimed from this job, or has been run: pass what pb_job_claim wrote, once",
                chunk.begin, chunk.end
            ))
        })?;
        state.claimed.swap_remove(claimed);
        state.running += 1;
        drop(state);
        let seat = self.enter(0);
        if let Some(seat) = &seat {
            self.run(seat, chunk);
        }
        let seated = seat.is_some();
        drop(seat);
        let mut state = self.outside.lock();
        state.running -= 1;
        if !seated {
            state.claimed.push(chunk);
        }
        drop(state);
        self.outside.idle.notify_all();
        if seated {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{} threads run chunks of this job already, as many as pb_job_n_jobs allows: run the chunk again later",
            self.n_jobs()
        )))
    }
}
