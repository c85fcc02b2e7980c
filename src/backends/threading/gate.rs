//! Joining a call without waiting for those who never came.
//!
//! The caller of a map opens a gate; helpers go in while it is open and come out when no item is left. The caller
//! works too, then closes the gate and waits for those inside only: a helper that was asleep, or busy elsewhere,
//! finds the gate closed and never delays the call.
//!
//! `state` counts helpers inside; its top bit says closed, the next one that somebody was inside once. Helpers enter by compare-and-swap on an open state, so
//! after `close` has set the bit the count can only fall. Each `leave` releases the helper's writes; the closing
//! caller acquires them when it reads the count, so results are complete when `close` returns. No wake-up is lost:
//! the helper that takes the count to zero on a closed gate unparks the caller after its decrement, and an unpark
//! before the park makes the park return at once.

use crate::sync::{AtomicU32, Ordering, Thread, current, park};
use crate::trace::{self, What};

const CLOSED: u32 = 1 << 31;
const VISITED: u32 = 1 << 30;

/// Who was inside a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visits {
    /// Nobody: the caller did everything.
    None,
    /// Helpers, and all have come out.
    Some,
    /// Helpers, who will not come out: this is a forked child.
    Abandoned,
}

pub(super) struct Gate {
    state: AtomicU32,
    caller: Thread,
}

impl Gate {
    /// An open gate that the current thread will close.
    pub(super) fn new() -> Self {
        Gate { state: AtomicU32::new(0), caller: current() }
    }

    /// Goes in, unless the gate is closed.
    pub(super) fn enter(&self) -> bool {
        let mut seen = self.state.load(Ordering::Relaxed);
        while seen & CLOSED == 0 {
            let inside = (seen | VISITED) + 1;
            match self.state.compare_exchange_weak(seen, inside, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Comes out.
    pub(super) fn leave(&self) {
        if self.state.fetch_sub(1, Ordering::Release) == CLOSED | VISITED | 1 {
            self.caller.unpark();
        }
    }

    /// Shuts the gate and waits until nobody is inside. `abandoned` is asked before each wait: a forked child has
    /// none of its parent's threads, and nobody would come out.
    pub(super) fn close(&self, abandoned: impl Fn() -> bool) -> Visits {
        if self.state.fetch_or(CLOSED, Ordering::Relaxed) & VISITED == 0 {
            return Visits::None;
        }
        let _timeline = trace::span(|| What::Join);
        let still_inside = || self.state.load(Ordering::Acquire) != CLOSED | VISITED;
        #[cfg(not(loom))]
        {
            // Most helpers are about to finish a chunk: a short spin saves the caller a trip through the kernel.
            let backoff = crossbeam_utils::Backoff::new();
            while still_inside() && !backoff.is_completed() {
                backoff.snooze();
            }
        }
        while still_inside() {
            if abandoned() {
                return Visits::Abandoned;
            }
            park();
        }
        Visits::Some
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    #[test]
    fn loom_close_sees_the_work_of_all_who_entered_and_none_enters_after() {
        // All schedules with at most three preemptions, which take a second; all of them take two minutes, and pass.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let gate = Arc::new(Gate::new());
            let work = Arc::new(AtomicUsize::new(0));
            let entered = Arc::new(AtomicUsize::new(0));
            let helpers: Vec<_> = (0..2)
                .map(|_| {
                    let (gate, work, entered) = (gate.clone(), work.clone(), entered.clone());
                    loom::thread::spawn(move || {
                        if gate.enter() {
                            entered.fetch_add(1, Ordering::Relaxed);
                            work.fetch_add(1, Ordering::Relaxed);
                            gate.leave();
                        }
                    })
                })
                .collect();
            let visits = gate.close(|| false);
            let seen = work.load(Ordering::Relaxed);
            assert_eq!(visits == Visits::Some, seen > 0);
            helpers.into_iter().for_each(|helper| helper.join().unwrap());
            assert_eq!(seen, work.load(Ordering::Relaxed), "work went on after close");
            assert_eq!(seen, entered.load(Ordering::Relaxed));
        });
    }
}
