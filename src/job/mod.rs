//! One map call: what to run, what is claimed, what is done, how it ended.
//!
//! Every backend pulls from the same [`Job`]: it enters a seat, claims chunks, runs them. The blocking call, the
//! submitted job and its streams are views of this object, not other code paths.
//!
//! Who writes what: the claim cursor moves by compare-and-swap, so each index is claimed once. Each seat is held by
//! one thread at a time (a bit taken with Acquire and given back with Release), and only that thread writes the
//! seat's clock. Counters and flags are advisory until the job is over: the driver reads them after the backend's
//! `run` has joined its workers, and that join orders all their writes before.

mod callsite;
mod claims;
mod deadline;
mod elsewhere;
mod outside;
mod plan;
mod progress;
mod remote;
mod repeat;
mod run;
mod seats;
mod stream;
mod task;
mod timeline;

pub use claims::{Chunk, Claims};
pub use elsewhere::{Ended, Loss, StopLine};
pub use plan::{Items, Parent, Plan, Rules, Stream};
pub use progress::{Progress, ProgressFn};
pub use remote::Cargo;
pub use repeat::Repeat;
pub use run::{Seat, incomplete, set_text, take_text};
pub use stream::Next;
pub use task::{Outputs, Stay, Surroundings, Task};

use crate::cpu::nanoseconds;
use crate::status::{Error, ItemFate, Result, Status};
use claims::update;
use deadline::Clock;
use outside::Outside;
use remote::Remote;
use seats::Seats;
use std::any::Any;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use stream::Watch;

/// No further item starts.
const STOP: u32 = 1;
/// Somebody asked for it: the job ends as cancelled unless an error came first.
const CANCELLED: u32 = 2;
/// A task has done something that must not reach the next item: it has left a text for a failure, or opened a scope. Stays
/// set, since each worker has to look.
const UNTIDY: u32 = 4;
/// The job as a whole has failed, not only an item whose error is collected.
const FAILED: u32 = 8;

/// Maps of the same function that begin so short a time one after the other are a row: a helper that one of them has would still be
/// awake for the next (`backends/threading/spin.rs`).
const SOON_NS: u64 = 50_000;
/// After a row of so long a helper is woken for the next of them: that costs the caller some 5 µs, 1 % of the row should it be
/// in vain.
const MANY_NS: u64 = 500_000;

/// Nanoseconds since the library first looked at the clock; a forked child counts on.
pub fn now() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(FIRST.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A map in being.
///
/// The order of fields is that of their lines in the cache. A helper that comes to a map of few items has to wait for each line
/// that the caller has written since the last map: there is one that is hardly written while the map runs (flags, what there is to
/// claim), one that the caller claims from, one that all workers write, and one that says what they run. What follows is left as it
/// is from one map to the next, or is the caller's alone.
#[repr(C, align(64))]
pub struct Job {
    /// Read before every chunk, by most loops before every item; written once or twice in a job's life.
    flags: AtomicU32,
    /// Whether somebody wants to know of each item.
    watched: bool,
    claims: Claims,
    /// What the timeline calls it.
    number: u64,
    /// When the job was made, by [`Job::now`], where somebody will ask.
    begun: u64,
    /// Nanoseconds that the thread has made maps of this function, one soon after the other, since one was last shared for that.
    in_a_row: u64,
    /// How the same map may be run once more without being made anew, as a [`Repeat`]; 0: not at all.
    repeat: AtomicU8,
    tally: Tally,
    plan: Plan,
    clock: Clock,
    first_error: Mutex<Option<Error>>,
    watch: Watch,
    outside: Outside,
    remote: Remote,
    /// In a worker process: asks the process that the job belongs to.
    stop_line: OnceLock<StopLine>,
    /// What the backend keeps from one map to the next.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// What workers write when they come and go.
#[repr(C, align(64))]
struct Tally {
    seats: Seats,
    done: AtomicUsize,
    failed: AtomicUsize,
}

#[cfg(all(target_pointer_width = "64", not(loom)))]
const _: () = assert!(
    std::mem::offset_of!(Job, claims) + Claims::FIRST == 64
        && std::mem::offset_of!(Job, tally) == 128
        && std::mem::offset_of!(Job, plan) == 192
);

impl Job {
    /// A job of which nothing has run yet.
    pub fn new(plan: Plan) -> Arc<Job> {
        Arc::new(Job {
            number: crate::trace::map_number(),
            begun: if plan.progress.is_some() { now() } else { 0 },
            watched: plan.is_watched(),
            repeat: AtomicU8::new(0),
            in_a_row: 0,
            flags: AtomicU32::new(0),
            claims: Claims::new(plan.n_items, plan.n_jobs, plan.batch_size()),
            tally: Tally {
                seats: Seats::new(plan.n_jobs),
                done: AtomicUsize::new(0),
                failed: AtomicUsize::new(0),
            },
            clock: Clock::new(plan.n_jobs, plan.rules.timeout),
            first_error: Mutex::new(None),
            watch: Watch::new(plan.rules.stream),
            outside: Outside::default(),
            remote: Remote::default(),
            stop_line: OnceLock::new(),
            kept: OnceLock::new(),
            plan,
        })
    }

    /// A job that is over, made ready for another task with the same workers and surroundings; the task comes back where
    /// somebody else still has the job. It was one that [may be kept](Job::may_be_kept).
    pub fn again<T: Task>(mut self: Arc<Self>, task: T, items: &Items) -> std::result::Result<Arc<Job>, T> {
        let Some(job) = Arc::get_mut(&mut self) else { return Err(task) };
        let plan = &mut job.plan;
        let is_same = plan.put(task) && items.n_items == plan.n_items;
        let since = nanoseconds(items.started.wrapping_sub(plan.started));
        let goes_on = is_same && since < SOON_NS && job.in_a_row <= MANY_NS;
        job.in_a_row = if goes_on { job.in_a_row + since } else { 0 };
        update(&mut plan.n_items, items.n_items);
        plan.rules = *items.rules;
        plan.most_workers = items.most_workers;
        plan.progress = items.progress.cloned();
        plan.started = items.started;
        update(&mut job.watched, plan.is_watched());
        job.begin_anew();
        Ok(self)
    }

    /// Whether a thread may keep the job for its next call, in the same task if it was made in one: it holds nothing that anybody
    /// waits to see freed, and what [`Job::begin_anew`] leaves alone was not used.
    pub fn may_be_kept(&self) -> bool {
        let plan = &self.plan;
        let is_plain = plan.task.holds_nothing() && plan.progress.is_none();
        is_plain && !self.watch.is_streaming() && !self.clock.is_on() && self.remote.is_unused()
    }

    /// Puts back what a map has left. Kept jobs were not streamed, had no limit of time, and did not leave the process.
    fn begin_anew(&mut self) {
        let Job { plan, number, begun, repeat, flags, claims, clock, tally, .. } = self;
        *number = crate::trace::map_number();
        *begun = if plan.progress.is_some() { now() } else { 0 };
        if *flags.get_mut() != 0 {
            *flags.get_mut() = 0;
            plan.task.resume();
        }
        *repeat.get_mut() = 0;
        claims.renew(plan.n_items, plan.batch_size());
        tally.seats.renew();
        if plan.rules.timeout > 0.0 {
            *clock = Clock::new(plan.n_jobs, plan.rules.timeout);
        }
        *tally.done.get_mut() = 0;
        *tally.failed.get_mut() = 0;
        let first_error = self.first_error.get_mut().unwrap_or_else(PoisonError::into_inner);
        if first_error.is_some() {
            *first_error = None;
        }
        if plan.rules.stream != Stream::None {
            self.watch = Watch::new(plan.rules.stream);
        }
    }

    /// The most threads that may run items of this job at the same time.
    pub fn n_jobs(&self) -> usize {
        self.plan.n_jobs
    }

    /// What its workers enter.
    pub fn surroundings(&self) -> &dyn Surroundings {
        &*self.plan.around
    }

    /// What the backend that runs the job keeps with it, for the next map that has its memory: made when first asked for. None if
    /// it is something else.
    pub fn kept<K: Any + Send + Sync>(&self, make: impl FnOnce() -> K) -> Option<&K> {
        self.kept.get_or_init(|| Box::new(make())).downcast_ref()
    }

    /// How many items the job has.
    pub fn n_items(&self) -> usize {
        self.plan.n_items
    }

    /// Whether a task made this map.
    pub fn is_nested(&self) -> bool {
        self.plan.parent.is_some()
    }

    /// Asks the job to stop: no further item starts; those that run see `pb_cancelled`.
    pub fn cancel(&self) {
        self.raise(CANCELLED | STOP);
        self.watch.wake();
    }

    /// Sets flags, and ends loops that run: the flags that were set before.
    fn raise(&self, flags: u32) -> u32 {
        let before = self.flags.fetch_or(flags, Ordering::Relaxed);
        self.plan.task.halt();
        before
    }

    /// Whether no further item is to start, here or in a map around this one.
    pub fn is_stopped(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & STOP != 0
            || self.plan.parent.as_ref().is_some_and(|(parent, seat)| parent.item_should_stop(*seat))
            || self.stop_line.get().is_some_and(|asked| asked())
    }

    /// Whether the item on `seat` should end early: its job has stopped, or its own time is up.
    pub fn item_should_stop(&self, seat: usize) -> bool {
        self.look_at_clock();
        (self.clock.is_on() && self.clock.is_late(seat, now())) || self.is_stopped()
    }

    /// The backend's own failure, or any other that concerns the whole job. The first one counts, and more than an
    /// item's error that was collected.
    pub fn fail(&self, error: Error) {
        let mut first = self.lock_error();
        if self.raise(FAILED | STOP) & FAILED == 0 {
            *first = Some(error);
        }
    }

    fn lock_error(&self) -> MutexGuard<'_, Option<Error>> {
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the job, once `run` of its backend has returned, and says how it ended.
    #[inline]
    pub fn finish(&self, backend: &str, run: Result<()>) -> Result<()> {
        let all_well = run.is_ok()
            && self.tally.done.load(Ordering::Relaxed) == self.n_items()
            && self.flags.load(Ordering::Relaxed) & (STOP | FAILED) == 0;
        // Of a blocking call nobody hears but its caller.
        if all_well && self.plan.progress.is_none() && !self.watch.is_streaming() {
            return Ok(());
        }
        self.say_how_it_ended(backend, run, all_well)
    }

    fn say_how_it_ended(&self, backend: &str, run: Result<()>, all_well: bool) -> Result<()> {
        let result = if all_well { Ok(()) } else { self.outcome(backend, run) };
        let result = result.map_err(|error| self.with_remark(error));
        if let Some(progress) = &self.plan.progress {
            progress.last(self.report());
        }
        if self.watch.is_streaming() {
            self.watch.over(result.clone());
        }
        result
    }

    fn outcome(&self, backend: &str, run: Result<()>) -> Result<()> {
        let done = self.tally.done.load(Ordering::Relaxed);
        let failed = self.tally.failed.load(Ordering::Relaxed);
        let first = self.lock_error().clone();
        if let Some(error) = first.clone().filter(|_| self.flags.load(Ordering::Relaxed) & FAILED != 0) {
            return Err(error);
        }
        run?;
        // Items that ended early because they were asked to are not finished; where errors are collected a failed item
        // is, but does not hide that others were not run.
        let finished = if self.plan.rules.collect_errors { done + failed } else { done };
        if finished < self.n_items() {
            let kept = first.filter(|_| !self.plan.rules.collect_errors);
            return Err(match kept {
                _ if self.is_stopped() => self.cancelled(done),
                Some(error) => error,
                None => self.left_undone(backend, self.n_items() - finished),
            });
        }
        first.map_or(Ok(()), |first| Err(self.collected(first, failed)))
    }

    fn left_undone(&self, backend: &str, items: usize) -> Error {
        Error::new(
            Status::ERR_INTERNAL,
            format!(
                "backend '{backend}' returned from run with {items} of {} items not run: it must claim until PB_DONE \
                 and run every chunk that it claimed",
                self.n_items()
            ),
        )
    }

    fn collected(&self, first: Error, failed: usize) -> Error {
        if failed < 2 {
            return first;
        }
        first.in_words(|said| format!("{failed} of {} items failed; the first: {said}", self.n_items()))
    }

    fn cancelled(&self, done: usize) -> Error {
        Error::new(
            Status::ERR_CANCELLED,
            format!("cancelled: {done} of {} {} were finished", self.n_items(), self.plan.task.plural()),
        )
    }

    /// Takes note of a failed item. `fate.index` is the item; `asked` is as in [`Job::take_failure`].
    fn item_failed(&self, status: Status, message: String, fate: ItemFate, asked: bool) {
        self.take_failure(Error::new(status, message).at(fate), asked);
    }

    /// Takes note of an item's error. `asked`: the item had been asked to end early, and may have failed for that reason only,
    /// which is no news unless nothing else says why the map is not whole.
    fn take_failure(&self, error: Error, asked: bool) {
        self.tally.failed.fetch_add(1, Ordering::Relaxed);
        let collects = self.plan.rules.collect_errors;
        if !collects && !asked {
            return self.fail(error);
        }
        // A call that collects ends as "task failed", whatever the first failure was: `statuses` has the fates.
        let status = if collects { Status::ERR_TASK_FAILED } else { error.status };
        self.lock_error().get_or_insert(error.with_status(status));
    }

    fn report(&self) -> progress::Report {
        progress::Report {
            done: self.tally.done.load(Ordering::Relaxed),
            failed: self.tally.failed.load(Ordering::Relaxed),
            total: self.n_items(),
            elapsed: (now() - self.begun) as f64 * 1e-9,
        }
    }
}
