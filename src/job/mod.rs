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
mod progress;
mod remote;
mod run;
mod seats;
mod stream;
mod timeline;

pub use claims::{Chunk, Claims};
pub use elsewhere::{Ended, Loss, StopLine};
pub use progress::{Progress, ProgressFn};
pub use remote::Cargo;
pub use run::{Seat, incomplete, set_text, take_text};
pub use stream::Next;

use crate::cpu::{FloatMode, nanoseconds};
use crate::limits::ThreadLimit;
use crate::message::{Around, Pieces};
use crate::shared::{Mapping, Spare};
use crate::status::{Error, ItemFate, Result, Status};
use deadline::Clock;
use outside::Outside;
use remote::Remote;
use seats::Seats;
use std::any::Any;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use stream::Watch;

/// The items of a map: the user's function with its arrays.
pub trait Task: Send + Sync {
    /// Tells this function from others.
    fn site(&self) -> usize;

    /// Runs one item; 0 is success.
    fn run(&self, index: usize) -> i32;

    /// Runs items until one fails or `flags` is no longer 0. Returns the first index that did not succeed here, with
    /// the code of the item that failed, if one did.
    fn run_range(&self, chunk: Chunk, flags: &AtomicU32) -> (usize, Option<i32>);

    /// Writes an item's fate where the caller wants it.
    fn record(&self, index: usize, status: i32);

    /// Whether it holds nothing but what belongs to the caller.
    fn holds_nothing(&self) -> bool {
        false
    }

    /// What texts call an item, and the number that errors give for it.
    fn name(&self, index: usize) -> (String, usize) {
        (format!("item {index}"), index)
    }

    /// What texts call several items.
    fn plural(&self) -> &'static str {
        "items"
    }

    /// What another process needs to run its items, or why it cannot.
    fn cargo(&self) -> Result<Cargo<'_>> {
        let why = "a call of this kind runs in its caller's process only";
        Err(Error::new(Status::ERR_TASK_NOT_PORTABLE, why))
    }

    /// The inputs of a chunk; `None` where there are none. Those of a map of bytes are packed for the way.
    fn inputs(&self, _chunk: Chunk) -> Option<Pieces<'_>> {
        None
    }

    /// Takes outputs that another process made, from item `first` on: whole elements, no more than there are items. Where they
    /// lie in a mapping of their own, `home`, that may be kept instead of a copy.
    fn store(&self, _first: usize, _outputs: &[u8], _home: Option<&Arc<Mapping>>) {}

    /// Where items write their outputs, and how much each.
    fn outputs(&self) -> Outputs {
        Outputs { address: 0, size: 0 }
    }

    /// Called before this process forks children that run the items.
    fn before_fork(&self) -> Result<()> {
        Ok(())
    }

    /// From now on items write their outputs to `area`, from `offset` on, as if the array began there.
    fn redirect_outputs(&self, _area: Arc<Spare>, _offset: usize) {}

    /// Called in a child, before the items of a chunk run: maps the shared memory that they use, where it is much.
    fn populate(&self, _chunk: Chunk) {}

    /// Copies the outputs of a chunk from such an area to where the caller wants them.
    fn fetch_outputs(&self, _chunk: Chunk, _area: &Spare, _offset: usize) {}
}

/// The array that items write their outputs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Its address; 0 where there is none.
    pub address: usize,
    /// Bytes of one item; 0 where there is no array.
    pub size: usize,
}

/// What a worker enters before its first item and leaves after its last: the context, the limits.
pub trait Surroundings: Send + Sync {
    /// Enters on this thread. `seat` is the worker's index.
    fn enter(&self, job: &Arc<Job>, seat: usize) -> Stay;

    /// Closes what an item has left open on this thread.
    fn tidy(&self, stay: &Stay);

    /// Leaves, on the same thread.
    fn leave(&self, stay: Stay);

    /// As what it is, for the room that made it.
    fn as_any(&self) -> &dyn Any;

    /// What a worker on `seat` of another process enters.
    fn describe(&self, seat: usize) -> Around;
}

/// What a worker found on its thread when it entered, and puts back when it leaves.
pub struct Stay {
    /// Scopes that were open.
    pub scopes: usize,
    /// Thread-limit scopes that were open.
    pub limit_scopes: usize,
    /// The worker's own limit.
    pub limit: Option<ThreadLimit>,
    /// The thread's floating-point mode.
    pub float: FloatMode,
}

/// How a map is to be run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Run everything, whatever fails.
    pub collect_errors: bool,
    /// Fixed chunk size; 0 is adaptive.
    pub batch_size: usize,
    /// Seconds that one item may take from its own start; 0 is for ever.
    pub timeout: f64,
    /// Whether `statuses` were asked for.
    pub record: bool,
    /// How often an item whose worker died is started again.
    pub retries: u32,
    /// Whether no item may be started twice, whatever `retries` says.
    pub once_only: bool,
    /// Workers at most that the caller has asked for, however many there will be; 0: all that there are.
    pub most_workers: usize,
    /// Whether finished items are kept for `next`: in index order, in order of completion, or not at all.
    pub stream: Stream,
}

/// The order in which finished items are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// A blocking call: nobody asks.
    #[default]
    None,
    /// By index.
    Ordered,
    /// As they finish.
    Unordered,
}

/// No further item starts.
const STOP: u32 = 1;
/// Somebody asked for it: the job ends as cancelled unless an error came first.
const CANCELLED: u32 = 2;
/// A task has done something that must not reach the next item: it has left a text for a failure, or opened a scope. Stays
/// set, since each worker has to look.
const UNTIDY: u32 = 4;
/// The job as a whole has failed, not only an item whose error is collected.
const FAILED: u32 = 8;

/// A map of two items whose like began so short a time before is a quick one: it need not be timed. (With more items the first
/// tells whether the others had better be shared.)
const ROUTINE_NS: u64 = 2_000;

/// The task that made a call, if one did: its job, whose cancellation is ours, and its seat.
pub type Parent = Option<(Arc<Job>, usize)>;

/// The items of a call, and how to run them.
pub struct Items {
    /// The function with its arrays.
    pub task: Box<dyn Task>,
    /// How many there are.
    pub n_items: usize,
    /// How to run them.
    pub rules: Rules,
    /// Who wants to hear of progress.
    pub progress: Option<Progress>,
    /// When the call began, by [`crate::cpu::ticks`].
    pub started: u64,
}

/// What makes a [`Job`].
pub struct Plan {
    /// The items.
    pub task: Box<dyn Task>,
    /// How many there are.
    pub n_items: usize,
    /// The most threads that run items at the same time.
    pub n_jobs: usize,
    /// How to run them.
    pub rules: Rules,
    /// What workers enter.
    pub around: Arc<dyn Surroundings>,
    /// The task that made this call.
    pub parent: Parent,
    /// Who wants to hear of progress.
    pub progress: Option<Progress>,
    /// When the call began, by [`crate::cpu::ticks`].
    pub started: u64,
}

impl Plan {
    fn is_watched(&self) -> bool {
        let rules = &self.rules;
        // A chunk of a fixed size may take long: between its items the maps around this one may be cancelled.
        let outlasts_a_cancel = self.parent.is_some() && rules.batch_size != 0;
        rules.timeout > 0.0
            || rules.collect_errors
            || rules.record
            || rules.stream != Stream::None
            || self.progress.is_some()
            || outlasts_a_cancel
    }
}

/// Nanoseconds since the library first looked at the clock; a forked child counts on.
pub fn now() -> u64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(FIRST.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// One worker with nobody above it who could stop it between two chunks takes all at once.
fn batch_size(plan: &Plan) -> usize {
    let alone = plan.n_jobs == 1 && plan.parent.is_none();
    if alone && plan.rules.batch_size == 0 { plan.n_items } else { plan.rules.batch_size }
}

/// A map in being.
pub struct Job {
    plan: Plan,
    /// What the timeline calls it.
    number: u64,
    /// When the job was made, by [`Job::now`], where somebody will ask.
    begun: u64,
    /// Whether somebody wants to know of each item.
    watched: bool,
    /// Whether the thread's last map was the same and went so quickly that this one need not be timed.
    is_routine: bool,
    /// Read before every item, written once or twice in a job's life.
    flags: AtomicU32,
    claims: Claims,
    seats: Seats,
    clock: Clock,
    done: AtomicUsize,
    failed: AtomicUsize,
    first_error: Mutex<Option<Error>>,
    watch: Watch,
    outside: Outside,
    remote: Remote,
    /// In a worker process: asks the process that the job belongs to.
    stop_line: OnceLock<StopLine>,
}

impl Job {
    /// A job of which nothing has run yet.
    pub fn new(plan: Plan) -> Arc<Job> {
        Arc::new(Job {
            number: crate::trace::map_number(),
            begun: if plan.progress.is_some() { now() } else { 0 },
            watched: plan.is_watched(),
            is_routine: false,
            flags: AtomicU32::new(0),
            claims: Claims::new(plan.n_items, plan.n_jobs, batch_size(&plan)),
            seats: Seats::new(plan.n_jobs),
            clock: Clock::new(plan.n_jobs, plan.rules.timeout),
            done: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            first_error: Mutex::new(None),
            watch: Watch::new(plan.rules.stream),
            outside: Outside::default(),
            remote: Remote::default(),
            stop_line: OnceLock::new(),
            plan,
        })
    }

    /// A job that is over, made ready for other items with the same workers and surroundings, unless somebody else still has
    /// it.
    pub fn again(mut self: Arc<Self>, items: Items) -> std::result::Result<Arc<Job>, Items> {
        let Some(job) = Arc::get_mut(&mut self) else { return Err(items) };
        let plan = &mut job.plan;
        let Items { task, n_items, rules, progress, started } = items;
        let is_same = n_items == plan.n_items && task.site() == plan.task.site();
        let since = nanoseconds(started.wrapping_sub(plan.started));
        job.is_routine = is_same && n_items <= 2 && since < ROUTINE_NS;
        (plan.task, plan.n_items, plan.rules, plan.progress, plan.started) =
            (task, n_items, rules, progress, started);
        job.begin_anew();
        Ok(self)
    }

    /// Whether a thread may keep the job for its next call: it holds nothing that anybody waits to see freed.
    pub fn may_be_kept(&self) -> bool {
        self.plan.task.holds_nothing() && self.plan.parent.is_none() && self.plan.progress.is_none()
    }

    /// Puts back what a map has left, but for what it gives back itself.
    fn begin_anew(&mut self) {
        let Job { plan, number, begun, watched, flags, claims, clock, done, failed, .. } = self;
        *number = crate::trace::map_number();
        *begun = if plan.progress.is_some() { now() } else { 0 };
        *watched = plan.is_watched();
        *flags.get_mut() = 0;
        claims.renew(plan.n_items, batch_size(plan));
        *clock = Clock::new(plan.n_jobs, plan.rules.timeout);
        *done.get_mut() = 0;
        *failed.get_mut() = 0;
        *self.first_error.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.watch = Watch::new(self.plan.rules.stream);
        self.outside = Outside::default();
        self.remote = Remote::default();
    }

    /// The most threads that may run items of this job at the same time.
    pub fn n_jobs(&self) -> usize {
        self.plan.n_jobs
    }

    /// What its workers enter.
    pub fn surroundings(&self) -> &dyn Surroundings {
        &*self.plan.around
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
        self.flags.fetch_or(CANCELLED | STOP, Ordering::Relaxed);
        self.watch.wake();
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
        if self.flags.fetch_or(FAILED | STOP, Ordering::Relaxed) & FAILED == 0 {
            *first = Some(error);
        }
    }

    fn lock_error(&self) -> MutexGuard<'_, Option<Error>> {
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the job, once `run` of its backend has returned, and says how it ended.
    pub fn finish(&self, backend: &str, run: Result<()>) -> Result<()> {
        let all_well = run.is_ok()
            && self.done.load(Ordering::Relaxed) == self.n_items()
            && self.flags.load(Ordering::Relaxed) & (STOP | FAILED) == 0;
        // Of a blocking call nobody hears but its caller.
        if all_well && self.plan.progress.is_none() && !self.watch.is_streaming() {
            return Ok(());
        }
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
        let done = self.done.load(Ordering::Relaxed);
        let failed = self.failed.load(Ordering::Relaxed);
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
        let message = format!("{failed} of {} items failed; the first: {}", self.n_items(), first.message);
        Error { message, ..first }
    }

    fn cancelled(&self, done: usize) -> Error {
        Error::new(
            Status::ERR_CANCELLED,
            format!("cancelled: {done} of {} {} were finished", self.n_items(), self.plan.task.plural()),
        )
    }

    /// Takes note of a failed item. `fate.index` is the item.
    fn item_failed(&self, status: Status, message: String, fate: ItemFate) {
        self.take_failure(Error::new(status, message).at(fate), self.is_stopped());
    }

    /// Takes note of an item's error. `asked`: the item had been asked to end early, and may have failed for that reason only,
    /// which is no news unless nothing else says why the map is not whole.
    fn take_failure(&self, error: Error, asked: bool) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let collects = self.plan.rules.collect_errors;
        if !collects && !asked {
            return self.fail(error);
        }
        // A call that collects ends as "task failed", whatever the first failure was: `statuses` has the fates.
        let status = if collects { Status::ERR_TASK_FAILED } else { error.status };
        self.lock_error().get_or_insert(Error { status, ..error });
    }

    fn report(&self) -> progress::Report {
        progress::Report {
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            total: self.n_items(),
            elapsed: (now() - self.begun) as f64 * 1e-9,
        }
    }
}
