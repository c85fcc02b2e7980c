//! Chunks that leave the process: what is sent, what comes back, and what is done about those that get lost.
//!
//! A chunk on its way belongs to whoever claimed it, who ends the claim in one of three ways: [`Job::complete`] with the
//! worker's reply, [`Job::lose`] when the worker is gone and nobody knows which of its items is to blame, or - where the
//! carrier saw how far the worker came - [`Job::lose_item`] for the one item that ran, and [`Job::put_back`] for those
//! that had not begun. What is put back is claimed again, before new items.

use super::{Chunk, Ended, FAILED, Job, Loss};
use crate::message::{Around, Data, Failure, Kind, Reply, Request, Statuses, unpack};
use crate::shared::Mapping;
use crate::status::{Error, ItemFate, Result, Status};
use crate::tasks;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What another process needs to run the items of a map.
#[derive(Clone, Copy, Debug)]
pub struct Cargo<'a> {
    /// The function.
    pub address: usize,
    /// What is called.
    pub kind: Kind,
    /// The name that the caller gave for it.
    pub name: Option<&'a str>,
    /// The bytes of ctx; `None` where it is NULL.
    pub ctx: Option<&'a [u8]>,
    /// Bytes of an input; 0 where there are none.
    pub input_size: usize,
    /// Bytes of an output; 0 where there are none.
    pub output_size: usize,
}

#[derive(Default)]
pub(super) struct Remote {
    state: Mutex<State>,
    /// How many chunks were put back and not claimed again: read before each claim.
    waiting: AtomicUsize,
    /// What workers call this call; made when it is first asked for.
    call: OnceLock<u64>,
    /// Whether chunks are sent without ctx.
    ctx_goes_apart: AtomicBool,
}

/// A number that no other call has, here or in any other process: 63 random bits, never 0.
fn random_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // The hasher's keys come from the system; a forked child has its parent's, so its own pid goes in.
    let seed = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    RandomState::new().hash_one(seed) | 1
}

#[derive(Default)]
struct State {
    put_back: VecDeque<Chunk>,
    /// How often items were lost.
    losses: HashMap<usize, u32>,
    /// What the job's error, should it have one, is to say besides.
    remark: Option<String>,
}

impl Remote {
    /// Whether no chunk was sent: each is sent with the call's number.
    pub(super) fn is_unused(&self) -> bool {
        self.call.get().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// The seconds that one item may take; 0 for any.
    pub fn timeout(&self) -> f64 {
        self.plan.rules.timeout
    }

    /// Whether items go on after one has failed.
    pub fn collects_errors(&self) -> bool {
        self.plan.rules.collect_errors
    }

    /// The bytes by which workers find the task.
    pub fn encode_task(&self) -> Result<Vec<u8>> {
        let Cargo { address, name, .. } = self.plan.task.cargo()?;
        Ok(Request::encode_task(&tasks::reference(address, name)?))
    }

    /// What workers call this call: a random number.
    pub fn call(&self) -> u64 {
        *self.remote.call.get_or_init(random_number)
    }

    /// From now on chunks are sent without ctx: whoever carries them brings it to each worker once, by the number of
    /// [`Job::call`]. Returns its bytes; `None` where ctx is NULL.
    pub fn detach_ctx(&self) -> Result<Option<&[u8]>> {
        let ctx = self.plan.task.cargo()?.ctx;
        self.remote.ctx_goes_apart.store(ctx.is_some(), Ordering::Relaxed);
        Ok(ctx)
    }

    /// The request for a chunk with everything inline, but for a detached ctx. `task` are the bytes of [`Job::encode_task`],
    /// `inputs` those of the chunk.
    pub fn request<'a>(
        &'a self,
        task: &'a [u8],
        seat: usize,
        chunk: Chunk,
        inputs: Option<&'a [u8]>,
    ) -> Result<Request<'a>> {
        let cargo = self.plan.task.cargo()?;
        let inline = |bytes: Option<&'a [u8]>| bytes.map_or(Data::None, Data::Inline);
        let call = self.call();
        let ctx = match cargo.ctx {
            Some(ctx) if self.remote.ctx_goes_apart.load(Ordering::Relaxed) => {
                Data::Shared { block: call, offset: 0, len: ctx.len() as u64 }
            }
            ctx => inline(ctx),
        };
        Ok(Request {
            kind: cargo.kind,
            call,
            task,
            around: self.plan.around.describe(seat),
            seat: seat as u32,
            seats: self.n_jobs() as u32,
            collect_errors: self.plan.rules.collect_errors,
            timeout: self.plan.rules.timeout,
            ctx,
            begin: chunk.begin as u64,
            end: chunk.end as u64,
            inputs: inline(inputs),
            input_size: cargo.input_size as u64,
            outputs: if self.plan.task.outputs().address == 0 { Data::None } else { Data::Inline(&[]) },
            output_size: cargo.output_size as u64,
        })
    }

    /// What a worker on a seat finds around its tasks.
    pub fn around(&self, seat: usize) -> Around {
        self.plan.around.describe(seat)
    }

    /// The request for one item without arrays of a task that is not this job's, in its surroundings.
    pub fn request_elsewhere<'a>(&self, task: &'a [u8], seat: usize) -> Request<'a> {
        let (seats, around) = (self.n_jobs() as u32, self.around(seat));
        Request { task, around, seat: seat as u32, seats, end: 1, ..Request::default() }
    }

    /// The next chunk for a worker elsewhere, or `None` when none is left now: one that is on its way may still be put back.
    pub fn claim_again(&self) -> Option<Chunk> {
        if self.remote.waiting.load(Ordering::Acquire) > 0 && !self.is_stopped() {
            let mut state = self.remote.lock();
            if let Some(chunk) = state.put_back.pop_front() {
                self.remote.waiting.fetch_sub(1, Ordering::Relaxed);
                return Some(chunk);
            }
        }
        self.claim(0)
    }

    /// The same, of `most` items at most, whatever the job itself thinks of their pace.
    pub fn claim_sized(&self, most: usize) -> Option<Chunk> {
        if self.is_stopped() {
            return None;
        }
        if self.remote.waiting.load(Ordering::Acquire) > 0 {
            let mut state = self.remote.lock();
            if let Some(chunk) = state.put_back.front_mut() {
                let first = Chunk { end: chunk.end.min(chunk.begin.saturating_add(most)), ..*chunk };
                chunk.begin = first.end;
                if chunk.begin == chunk.end {
                    state.put_back.pop_front();
                    self.remote.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                return Some(first);
            }
        }
        self.claims.next_sized(most)
    }

    /// Has the job's error, if it ends with one, say this too.
    pub fn remark(&self, text: String) {
        self.remote.lock().remark = Some(text);
    }

    pub(super) fn with_remark(&self, error: Error) -> Error {
        match &self.remote.lock().remark {
            Some(remark) => error.in_words(|said| format!("{said}; {remark}")),
            None => error,
        }
    }

    /// Gives back items that have not begun.
    pub fn put_back(&self, chunk: Chunk) {
        if chunk.begin < chunk.end {
            let mut state = self.remote.lock();
            state.put_back.push_back(chunk);
            self.remote.waiting.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes a worker's reply, as [`Job::take_reply`], and tells of progress if it is time.
    pub fn complete(&self, chunk: Chunk, reply: &Reply, home: Option<&Arc<Mapping>>) -> Result<()> {
        self.take_reply(chunk, reply, home)?;
        self.tell();
        Ok(())
    }

    /// Takes a worker's reply: results, statuses, failures. An error is about the reply itself, and then nothing was done.
    /// Outputs that are not in the reply were stored before.
    /// `home` is the mapping of the reply where it has one of its own, which may be kept.
    pub fn take_reply(&self, chunk: Chunk, reply: &Reply, home: Option<&Arc<Mapping>>) -> Result<()> {
        if let Some((status, text)) = reply.refused {
            self.fail(Error::new(status, text));
            return Ok(());
        }
        self.check_reply(chunk, reply, true)?;
        let ran = reply.ran as usize;
        self.plan.task.store(chunk.begin, reply.outputs, home);
        self.take_statuses(Chunk { end: chunk.begin + ran, ..chunk }, reply);
        self.claims.took(ran, reply.nanoseconds);
        // The worker stopped early without a failure of its own: it was asked to.
        if !self.is_stopped() {
            self.put_back(Chunk { begin: chunk.begin + ran, ..chunk });
        }
        Ok(())
    }

    /// Whether a reply can be one for this chunk. It may have no outputs where they came another way.
    pub(super) fn check_reply(
        &self,
        chunk: Chunk,
        reply: &Reply,
        outputs_may_be_elsewhere: bool,
    ) -> Result<()> {
        let Cargo { kind, output_size, .. } = self.plan.task.cargo()?;
        let items = chunk.end - chunk.begin;
        if kind == Kind::Bytes && reply.ran <= items as u64 {
            return unpack(reply.outputs, reply.ran).map(drop);
        }
        let outputs = reply.outputs.len();
        let fits = (outputs == 0 && outputs_may_be_elsewhere)
            || Some(outputs as u64) == reply.ran.checked_mul(output_size as u64);
        if reply.ran <= items as u64 && fits {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the reply is for another chunk: {} items with {outputs} bytes of outputs, where {items} of {output_size} bytes were \
             sent",
            reply.ran
        )))
    }

    /// Notes how the items of a chunk ended that have all run.
    fn take_statuses(&self, ran: Chunk, reply: &Reply) {
        let watched = self.plan.rules.record || self.watch.is_streaming();
        if reply.failure.is_none() && reply.statuses == Statuses::AllGood && !watched {
            self.tally.done.fetch_add(ran.end - ran.begin, Ordering::Relaxed);
            return;
        }
        for index in ran.begin..ran.end {
            let item = index - ran.begin;
            let failure = reply.failure.as_ref().filter(|failure| failure.item == item as u64);
            let code = match (failure, reply.statuses) {
                (Some(failure), _) if failure.status == Status::ERR_TIMEOUT => Status::ERR_TIMEOUT.0,
                (Some(failure), Statuses::AllGood) => failure.code,
                (_, statuses) => statuses.get(item),
            };
            self.end_item(index, code, failure.cloned());
        }
    }

    fn end_item(&self, index: usize, code: i32, failure: Option<Failure>) {
        let lost = self.remote.lock().losses.get(&index).copied().unwrap_or(0);
        match failure {
            _ if code == Status::ERR_TIMEOUT.0 && self.plan.rules.timeout > 0.0 => {
                self.settle(index, Ended::Late)
            }
            Some(Failure { status, message, asked, .. }) => {
                let asked = asked || self.is_stopped();
                self.plan.task.record(index, code);
                let fate = ItemFate { task_code: code, index, attempts: lost + 1, ..ItemFate::default() };
                self.take_failure(Error::new(status, message).at(fate), asked);
                if self.plan.rules.collect_errors {
                    self.hand_out(index);
                }
            }
            None if code == 0 => self.settle(index, Ended::Done),
            None => self.settle(index, Ended::Returned(code, None)),
        }
    }

    /// The first items of a chunk have ended well, and their outputs are stored, though their worker never said so.
    pub fn salvage(&self, ran: Chunk, statuses: Statuses) {
        self.take_statuses(ran, &Reply { statuses, ..Reply::default() });
    }

    /// The worker died in this item: it is started again as often as the caller allows. `loss.attempts` is counted here.
    pub fn lose_item(&self, index: usize, loss: &Loss) {
        let rules = &self.plan.rules;
        let attempts = {
            let mut state = self.remote.lock();
            let losses = state.losses.entry(index).or_insert(0);
            *losses += 1;
            *losses
        };
        if attempts <= rules.retries && !rules.once_only {
            self.put_back(Chunk { begin: index, end: index + 1 });
            return;
        }
        self.settle(index, Ended::Lost(Loss { attempts, ..loss.clone() }));
    }

    /// A chunk is lost, and nobody knows how far it came. Its items are started again one by one, so that one that always
    /// kills its worker is found; where they may not be, all are lost.
    pub fn lose(&self, chunk: Chunk, loss: &Loss) {
        let items = chunk.begin..chunk.end;
        let how = match items.len() {
            1 => loss.how.clone(),
            _ => format!("{} (and with it items {} to {})", loss.how, chunk.begin, chunk.end - 1),
        };
        let loss = Loss { how, ..loss.clone() };
        items.for_each(|index| self.lose_item(index, &loss));
    }

    /// Keeps a finished item for `pb_job_next`.
    fn hand_out(&self, index: usize) {
        self.watch.item_finished(index).unwrap_or_else(|error| self.fail(error));
    }

    /// The first failure of this job, whatever became of the rest; and whether its item had been asked to end early.
    pub fn first_failure(&self) -> Option<(Error, bool)> {
        let asked = !self.plan.rules.collect_errors && self.flags.load(Ordering::Relaxed) & FAILED == 0;
        self.lock_error().clone().map(|error| (error, asked))
    }
}
