//! Waiting for a job, and taking its items as they finish.
//!
//! One lock guards the finished items and the outcome; whoever changes either does so under the lock and wakes those
//! who wait for it, so no wake-up can be lost between a look and a wait.

use super::{Job, Stream};
use crate::status::{Error, Result, Status};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Called once, when the job is over.
type Notify = Box<dyn FnOnce() + Send>;
/// What starts a submitted job: run by a pool thread, or by a caller that waits before one is free.
type Driver = Box<dyn FnOnce() + Send>;

pub(super) struct Watch {
    state: Mutex<State>,
    changed: Condvar,
    order: Stream,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<()>>,
    waiting: usize,
    /// Finished items in order of completion (unordered streams).
    finished: VecDeque<usize>,
    /// A bit for each item up to the last that finished, and the first that was not handed out yet (ordered streams).
    bits: Vec<u64>,
    head: usize,
    notify: Vec<Notify>,
    driver: Option<Driver>,
}

impl State {
    /// Notes a finished item of an ordered stream. The bits grow as items finish: a map may be far longer than what
    /// anyone lets it run.
    fn mark(&mut self, index: usize) -> Result<()> {
        let words = index / 64 + 1;
        if let Some(missing) = words.checked_sub(self.bits.len()) {
            self.bits.try_reserve(missing).map_err(|_| {
                Error::new(Status::ERR_OUT_OF_MEMORY, format!("no memory for a stream up to item {index}"))
            })?;
            self.bits.resize(words, 0);
        }
        self.bits[index / 64] |= 1 << (index % 64);
        Ok(())
    }
}

/// What waiting brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This item has finished.
    Item(usize),
    /// Nothing yet.
    Pending,
    /// All items were handed out.
    Done,
}

impl Watch {
    pub(super) fn new(order: Stream) -> Self {
        Watch { state: Mutex::default(), changed: Condvar::new(), order }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.order != Stream::None
    }

    /// Hands a finished item to whoever asks next.
    pub(super) fn item_finished(&self, index: usize) -> Result<()> {
        let mut state = self.lock();
        match self.order {
            Stream::None => return Ok(()),
            Stream::Unordered => state.finished.push_back(index),
            Stream::Ordered => state.mark(index)?,
        }
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Makes those who wait look again.
    pub(super) fn wake(&self) {
        let state = self.lock();
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    pub(super) fn over(&self, outcome: Result<()>) {
        let mut state = self.lock();
        state.outcome = Some(outcome);
        let notify = std::mem::take(&mut state.notify);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        drop(state);
        notify.into_iter().for_each(|call| call());
    }

    fn take_next(&self, state: &mut State, n_items: usize) -> Result<Option<Next>> {
        let item = match self.order {
            Stream::Unordered => state.finished.pop_front(),
            _ => {
                let head = state.head;
                let done = head < n_items
                    && state.bits.get(head / 64).is_some_and(|word| word >> (head % 64) & 1 == 1);
                done.then_some(head)
            }
        };
        if let Some(index) = item {
            state.head += 1;
            return Ok(Some(Next::Item(index)));
        }
        match &state.outcome {
            _ if state.head == n_items => Ok(Some(Next::Done)),
            Some(outcome) => outcome.clone().map(|()| Some(Next::Done)),
            None => Ok(None),
        }
    }
}

/// When to stop waiting; `None` is never.
fn deadline(timeout: f64) -> Option<Instant> {
    let timeout = Duration::try_from_secs_f64(timeout).ok()?;
    Instant::now().checked_add(timeout)
}

impl Job {
    /// Gives the job what starts it.
    pub fn set_driver(&self, driver: impl FnOnce() + Send + 'static) {
        self.watch.lock().driver = Some(Box::new(driver));
    }

    /// Starts the job here, unless it was started already.
    pub fn drive(&self) {
        let driver = self.watch.lock().driver.take();
        if let Some(driver) = driver {
            driver();
        }
    }

    /// The job will not be started.
    pub fn forget_driver(&self) {
        let driver = self.watch.lock().driver.take();
        drop(driver);
    }

    /// Waits until the job is over: its outcome, or `None` when the time is up. Below 0 is for ever; a thread that
    /// waits for ever starts the job itself if no other thread has.
    pub fn wait(self: &Arc<Self>, timeout: f64) -> Option<Result<()>> {
        if timeout < 0.0 {
            self.drive();
        }
        self.wait_for(timeout, |state| state.outcome.clone())
    }

    /// The next finished item.
    pub fn next(self: &Arc<Self>, timeout: f64) -> Result<Next> {
        let n_items = self.n_items();
        let next = self.wait_for(timeout, |state| self.watch.take_next(state, n_items).transpose());
        next.unwrap_or(Ok(Next::Pending))
    }

    fn wait_for<R>(&self, timeout: f64, mut look: impl FnMut(&mut State) -> Option<R>) -> Option<R> {
        let end = deadline(timeout);
        let mut state = self.watch.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            // An item may come due while everybody sleeps: wake for it, and let the job know.
            drop(state);
            self.look_at_clock();
            let sleep = [left, self.next_deadline().filter(|due| !due.is_zero())].into_iter().flatten().min();
            state = self.watch.lock();
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            state.waiting += 1;
            state = match sleep {
                None => self.watch.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(sleep) => {
                    self.watch.changed.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waiting -= 1;
        }
    }

    /// Whether the job is over.
    pub fn is_over(&self) -> bool {
        self.watch.lock().outcome.is_some()
    }

    /// Has `call` called once when the job is over: at once, on this thread, if it is already.
    pub fn notify(&self, call: Notify) {
        let mut state = self.watch.lock();
        if state.outcome.is_none() {
            state.notify.push(call);
            return;
        }
        drop(state);
        call();
    }

    /// Refuses a wait that could never end: by a task for the job that it belongs to.
    pub fn check_waiter(self: &Arc<Self>, task: Option<(Arc<Job>, usize)>) -> Result<()> {
        let mut around = task.map(|(job, _)| job);
        while let Some(job) = around {
            if Arc::ptr_eq(&job, self) {
                return Err(Error::new(
                    Status::ERR_INVALID_ARGUMENT,
                    "a task cannot wait for the job that it belongs to: the job waits for the task",
                ));
            }
            around = job.plan.parent.as_ref().map(|(parent, _)| parent.clone());
        }
        Ok(())
    }
}
