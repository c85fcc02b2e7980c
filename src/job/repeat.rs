//! The same map once more, by the thread that made the last one: what has not been used is not made anew.
//!
//! A loop over a small map makes the same call again and again. Where its caller ran the whole map alone, or dealt the items, nobody
//! has claimed anything, or all is claimed, and no seat is taken: what is left is to count from 0 again.

use super::run::Hold;
use super::{Chunk, Items, Job, Task};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a map may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// By its caller alone ([`Job::run_alone_again`]): it has two items, and was run so. (With more items the first tells whether the
    /// others had better be shared.)
    Alone = 1,
    /// As any map ([`Job::begin_again`]): its items were dealt, all of them.
    Dealt = 2,
}

impl Job {
    /// How the map may be repeated by a call that begins now: the same one, after one without a failure. `shares` is how many references
    /// to the job the caller has: all that there are. `is_same` says whether its task is the call's.
    pub fn is_repeated_by<T: Task>(
        self: &Arc<Self>,
        items: &Items,
        shares: usize,
        is_same: impl FnOnce(&T) -> bool,
    ) -> Option<Repeat> {
        let own: &dyn Any = &*self.plan.task;
        let is_same = self.flags.load(Ordering::Relaxed) == 0
            && Arc::strong_count(self) == shares
            && items.n_items == self.n_items()
            && items.progress.is_none()
            && *items.rules == self.plan.rules
            && own.downcast_ref().is_some_and(is_same);
        let kept = self.repeat.load(Ordering::Relaxed);
        [Repeat::Alone, Repeat::Dealt].into_iter().find(|how| is_same && *how as u8 == kept)
    }

    /// By the caller, at the end of a map that went so.
    pub(super) fn went(&self, how: Repeat) {
        self.repeat.store(how as u8, Ordering::Relaxed);
    }

    /// The items were dealt: all of them, unless somebody has claimed what was left.
    pub fn was_dealt(&self) {
        if !self.claims.is_empty() {
            self.went(Repeat::Dealt);
        }
    }

    /// Runs the whole map once more. Nothing is claimed, since nobody else comes. `own` is this job, and comes back.
    pub fn run_alone_again(&self, own: Arc<Job>) -> Option<Arc<Job>> {
        self.tally.done.store(0, Ordering::Relaxed);
        let seat = self.sit_down(0, Hold::Alone, own);
        self.run_chunk(&seat, Chunk { begin: 0, end: self.n_items() });
        seat.leave()
    }

    /// The same map begins at `started`, by [`ticks`](crate::cpu::ticks), after a time without any: the first of a new row. False if
    /// somebody else has the job.
    pub fn begin_row(job: &mut Arc<Job>, started: u64) -> bool {
        let Some(job) = Arc::get_mut(job) else { return false };
        (job.plan.started, job.in_a_row) = (started, 0);
        true
    }

    /// Makes the job ready for the same map.
    pub fn begin_again(&self) {
        self.repeat.store(0, Ordering::Relaxed);
        self.tally.done.store(0, Ordering::Relaxed);
    }
}
