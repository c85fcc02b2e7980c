//! Chunks in the hands of a backend written in C: each is claimed, then run here, or encoded and completed or returned, by
//! threads that we do not know.

use super::{Chunk, Job, Loss};
use crate::message::{Pieces, Reply};
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
    claimed: Vec<Claimed>,
    /// Threads that use the caller's arrays now: they run a chunk, or take what came of one.
    busy: usize,
    /// The bytes that stand for the task, once a chunk was encoded.
    task: Option<Vec<u8>>,
    /// Chunks encoded so far.
    encoded: usize,
}

struct Claimed {
    chunk: Chunk,
    shipped: Option<Shipped>,
}

/// A chunk on its way.
struct Shipped {
    message: Vec<u8>,
    /// The seat that it has, unless more chunks are on their way than there are workers.
    seat: Option<usize>,
}

impl State {
    fn place(&self, chunk: Chunk) -> Result<usize> {
        if !self.open {
            return Err(Error::invalid(CLOSED));
        }
        self.claimed.iter().position(|claimed| claimed.chunk == chunk).ok_or_else(|| {
            Error::invalid(format!(
                "chunk {}..{} was not claimed from this job, or has been run: pass what pb_job_claim wrote, once",
                chunk.begin, chunk.end
            ))
        })
    }
}

impl Outside {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that is counted in `busy`, until it is dropped. The thread has a reference to the job of its own, which may be over
/// as soon as nobody is counted.
struct Busy<'a>(&'a Outside);

impl<'a> Busy<'a> {
    /// `state` is that of `outside`.
    fn count(outside: &'a Outside, state: &mut State) -> Self {
        state.busy += 1;
        Busy(outside)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
        self.0.idle.notify_all();
    }
}

const CLOSED: &str =
    "this job takes no claims: pb_job_claim and what follows it are for a backend's run, while it runs";

impl Job {
    /// Lets a C backend claim, until [`Job::close_outside`].
    pub fn open_outside(&self) {
        self.outside.lock().open = true;
    }

    /// Ends claiming and waits for chunks that still run or are being completed: a `run` that returned too early must not
    /// leave a thread working on arrays that its caller has taken back.
    pub fn close_outside(&self) {
        let mut state = self.outside.lock();
        state.open = false;
        while state.busy > 0 {
            state = self.outside.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Claims a chunk for a C backend.
    pub fn claim_outside(&self) -> Result<Option<Chunk>> {
        let mut state = self.outside.lock();
        if !state.open {
            return Err(Error::invalid(CLOSED));
        }
        let chunk = self.claim_again();
        state.claimed.extend(chunk.map(|chunk| Claimed { chunk, shipped: None }));
        Ok(chunk)
    }

    /// Runs a chunk that [`Job::claim_outside`] gave, on this thread.
    pub fn run_outside(self: &Arc<Self>, chunk: Chunk) -> Result<()> {
        let mut state = self.outside.lock();
        let place = state.place(chunk)?;
        if state.claimed[place].shipped.is_some() {
            return Err(Error::invalid(format!(
                "chunk {}..{} was encoded and may run elsewhere: complete or return it",
                chunk.begin, chunk.end
            )));
        }
        state.claimed.swap_remove(place);
        let _busy = Busy::count(&self.outside, &mut state);
        drop(state);
        let seat = self.enter(0);
        if let Some(seat) = &seat {
            self.run(seat, chunk);
        }
        let seated = seat.is_some();
        drop(seat);
        if seated {
            return Ok(());
        }
        self.outside.lock().claimed.push(Claimed { chunk, shipped: None });
        Err(Error::invalid(format!(
            "{} threads run chunks of this job already, as many as pb_job_n_jobs allows: run the chunk again later",
            self.n_jobs()
        )))
    }

    /// Encodes a claimed chunk, for a worker whose number the backend knows or for any. The message stays where it is until the
    /// chunk is completed or returned.
    pub fn encode_outside(&self, chunk: Chunk, worker: Option<usize>) -> Result<(*const u8, usize)> {
        let task = self.outside.lock().task.take();
        let task = task.map_or_else(|| self.encode_task(), Ok)?;
        let mut state = self.outside.lock();
        let place = state.place(chunk)?;
        if state.claimed[place].shipped.is_none() {
            let seat = if worker.is_none() { self.tally.seats.take(0) } else { None };
            let number = worker.or(seat).unwrap_or(state.encoded % self.n_jobs());
            let inputs = self.plan.task.inputs(chunk).map(Pieces::into_bytes);
            let request = self.request(&task, number, chunk, inputs.as_deref());
            let message = request.map(|request| request.encode());
            let message = message
                .inspect_err(|_| seat.into_iter().for_each(|seat| self.tally.seats.give_back(seat)))?;
            state.encoded += 1;
            state.task = Some(task);
            state.claimed[place].shipped = Some(Shipped { message, seat });
        }
        let message = state.claimed[place].shipped.as_ref().map_or(&[][..], |shipped| &shipped.message);
        Ok((message.as_ptr(), message.len()))
    }

    /// Ends the way of an encoded chunk. The thread may use the caller's arrays until it drops what it gets.
    fn arrived(&self, chunk: Chunk) -> Result<Busy<'_>> {
        let mut state = self.outside.lock();
        let place = state.place(chunk)?;
        let shipped = state.claimed[place].shipped.as_ref();
        let seat = shipped.map(|shipped| shipped.seat).ok_or_else(|| {
            Error::invalid(format!(
                "chunk {}..{} was not encoded: pb_job_encode first",
                chunk.begin, chunk.end
            ))
        })?;
        state.claimed.swap_remove(place);
        let busy = Busy::count(&self.outside, &mut state);
        drop(state);
        seat.into_iter().for_each(|seat| self.tally.seats.give_back(seat));
        Ok(busy)
    }

    /// Takes the reply for an encoded chunk. Should it be none, the chunk stays as it is.
    pub fn complete_outside(self: &Arc<Self>, chunk: Chunk, reply: &[u8]) -> Result<()> {
        let reply = Reply::decode(reply)?;
        if reply.refused.is_none() {
            self.check_reply(chunk, &reply, false)?;
        }
        let _busy = self.arrived(chunk)?;
        self.complete(chunk, &reply, None)
    }

    /// Takes back an encoded chunk whose worker was lost.
    pub fn return_outside(self: &Arc<Self>, chunk: Chunk, loss: &Loss) -> Result<()> {
        let _busy = self.arrived(chunk)?;
        self.lose(chunk, loss);
        Ok(())
    }
}
