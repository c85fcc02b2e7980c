//! Telling the caller how far a map has come: rate-limited, from one thread at a time, without a lock.

use super::Job;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Done, failed, total, seconds since the start; true asks to cancel.
pub type ProgressFn = Box<dyn Fn(usize, usize, usize, f64) -> bool + Send + Sync>;

/// At most twenty calls a second: smooth for an eye, nothing for a machine.
const INTERVAL_NS: u64 = 50_000_000;

#[derive(Clone, Copy)]
pub(super) struct Report {
    pub done: usize,
    pub failed: usize,
    pub total: usize,
    pub elapsed: f64,
}

/// A caller's callback.
pub struct Progress {
    call: ProgressFn,
    /// Held by the thread that is in the callback. Acquire on taking, Release on leaving, so that the callback's own
    /// data needs no lock of its own.
    busy: AtomicBool,
    /// Nanoseconds from the job's start before which nobody calls again.
    next: AtomicU64,
}

impl Progress {
    /// Wraps a callback.
    pub fn new(call: ProgressFn) -> Self {
        Progress { call, busy: AtomicBool::new(false), next: AtomicU64::new(INTERVAL_NS) }
    }

    /// The call that ends a map. All workers have left, so nobody else is in the callback; nothing is left to cancel.
    pub(super) fn last(&self, report: Report) {
        (self.call)(report.done, report.failed, report.total, report.elapsed);
    }

    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.next.load(Ordering::Relaxed)
    }

    /// Calls, unless another thread is in the callback. Whether it asks to cancel.
    fn call(&self, now: u64, report: Report) -> bool {
        if self.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        // Another thread may have called between the look at `next` and here.
        let stop = self.is_due(now) && {
            self.next.store(now + INTERVAL_NS, Ordering::Relaxed);
            (self.call)(report.done, report.failed, report.total, report.elapsed)
        };
        self.busy.store(false, Ordering::Release);
        stop
    }
}

impl Job {
    /// Tells of progress if it is time. The last item's own call is left to `finish`.
    pub(super) fn tell_progress(&self, time: u64) {
        let Some(progress) = &self.plan.progress else { return };
        let now = time - self.begun;
        if progress.is_due(now) && progress.call(now, self.report()) {
            self.cancel();
        }
    }
}
