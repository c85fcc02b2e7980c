//! What no idle thread was there for: places in calls that go on, and submitted jobs.
//!
//! Rare next to calls that find their helpers idle, so one lock will do. `wanted` says from outside whether it is worth
//! while to take it. Who puts something here raises `wanted`, fences, and looks for idle threads; who becomes idle says
//! so, fences, and looks at `wanted` (`cell`): one of the two sees the other.

use super::cell::{Late, Visit};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use std::collections::VecDeque;
use std::sync::PoisonError;

/// A submitted job to drive.
pub(super) type Run = Box<dyn FnOnce() + Send>;

/// Something for a thread that has nothing to do.
pub(super) enum Order {
    Visit(Visit),
    Run(Run),
}

pub(super) struct Board {
    /// Places and runs that are there to be taken. Changed under the lock.
    wanted: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    late: Vec<Late>,
    runs: VecDeque<(u64, Run)>,
    queued: u64,
}

impl Board {
    pub(super) fn new() -> Self {
        Board { wanted: AtomicUsize::new(0), state: Mutex::new(State::default()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are wanted.
    pub(super) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether somebody is wanted.
    pub(super) fn wants(&self) -> bool {
        self.wanted() > 0
    }

    /// Leaves an errand for threads that become idle.
    pub(super) fn put(&self, late: Late) {
        let mut state = self.lock();
        self.wanted.fetch_add(late.places(), Ordering::Relaxed);
        state.late.push(late);
        drop(state);
        fence(Ordering::SeqCst);
    }

    /// Takes an errand down: nobody begins it after that.
    pub(super) fn take_down(&self, is_it: impl Fn(&Late) -> bool) -> Option<Late> {
        let mut state = self.lock();
        let place = state.late.iter().position(is_it)?;
        let late = state.late.swap_remove(place);
        self.wanted.fetch_sub(late.places(), Ordering::Relaxed);
        Some(late)
    }

    /// Queues a job; the number takes it back.
    pub(super) fn queue(&self, run: Run) -> u64 {
        let mut state = self.lock();
        self.wanted.fetch_add(1, Ordering::Relaxed);
        state.queued += 1;
        let number = state.queued;
        state.runs.push_back((number, run));
        drop(state);
        fence(Ordering::SeqCst);
        number
    }

    /// Takes a job back that no thread has begun.
    pub(super) fn take_back(&self, number: u64) -> Option<Run> {
        let mut state = self.lock();
        let place = state.runs.iter().position(|(other, _)| *other == number)?;
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        state.runs.remove(place).map(|(_, run)| run)
    }

    /// Something to do: submitted jobs first, since nobody works on those yet; then the call that has waited longest.
    pub(super) fn take(&self) -> Option<Order> {
        if !self.wants() {
            return None;
        }
        let mut state = self.lock();
        let order = match state.runs.pop_front() {
            Some((_, run)) => Order::Run(run),
            None => Order::Visit(state.late.iter_mut().find_map(Late::begin)?),
        };
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        Some(order)
    }
}
