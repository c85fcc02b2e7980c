//! Who asked for what: the one place that sets counts which a whole process shares.
//!
//! Scopes that each saved and restored such a count by themselves would, where they overlap, restore each
//! other's limits. Here every scope and every map enters a request instead. While there are requests, a count
//! is the smallest that any of them allows; the count before the first of them comes back after the last, in
//! whatever order they end, unless somebody else has changed it meanwhile.

use super::Limit;
use super::loaded;
use super::pool::{Pool, Reach, Saved};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Request {
    id: u64,
    /// The thread that entered it.
    thread: u64,
    /// Whether it is a scope of that thread: then an inner one counts in place of an outer one.
    is_scope: bool,
    user_api: u32,
    limit: Limit,
}

/// A count that is under control.
struct Held {
    pool: Arc<Pool>,
    /// The count before the first request.
    baseline: i32,
    /// The count that we last wanted.
    wanted: i32,
    /// Once we have changed it: what puts it back, and what it then read (a library may clamp).
    changed: Option<(Saved, i32)>,
}

pub struct Ledger {
    requests: Vec<Request>,
    held: Vec<Held>,
    /// Registered pools that some thread is setting at this moment.
    busy: Vec<Arc<Pool>>,
    next_id: u64,
}

static LEDGER: Mutex<Ledger> =
    Mutex::new(Ledger { requests: Vec::new(), held: Vec::new(), busy: Vec::new(), next_id: 0 });

pub fn lock() -> MutexGuard<'static, Ledger> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a library's function that only one thread may be in.
pub fn serially<R>(call: impl FnOnce() -> R) -> R {
    let _ledger = lock();
    call()
}

/// A number that no other thread of this process has had.
fn this_thread() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local!(static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed));
    THREAD.try_with(|number| *number).unwrap_or(0)
}

/// The process-wide half of a limit, in force until it is dropped, on any thread.
#[derive(Debug)]
#[must_use = "the limit ends when this is dropped"]
pub struct ProcessLimit {
    id: u64,
}

/// Enters a request and sets what it changes.
pub fn request(limit: Limit, user_api: u32, is_scope: bool) -> ProcessLimit {
    let thread = this_thread();
    loaded::current();
    let id = {
        let mut ledger = lock();
        ledger.next_id += 1;
        let id = ledger.next_id;
        ledger.requests.push(Request { id, thread, is_scope, user_api, limit });
        id
    };
    settle(&loaded::last());
    ProcessLimit { id }
}

impl Drop for ProcessLimit {
    fn drop(&mut self) {
        lock().requests.retain(|request| request.id != self.id);
        settle(&loaded::last());
    }
}

/// Brings every shared count to what the requests say now.
pub fn settle(pools: &[Arc<Pool>]) {
    let shared = || pools.iter().filter(|pool| pool.reach != Reach::Thread && pool.controllable);
    {
        let mut ledger = lock();
        for pool in shared().filter(|pool| pool.object.is_some()) {
            while let Some(step) = ledger.next_step(pool) {
                let done = step.take(pool);
                ledger.record(pool, done);
            }
        }
    }
    shared().filter(|pool| pool.object.is_none()).for_each(settle_registered);
}

/// The same for a registered pool, whose functions are called without the lock. The thread that has begun
/// goes on until nothing is left to do; another one that comes meanwhile leaves its request to it and does
/// not wait, because the user's function may itself be what that other thread is in.
fn settle_registered(pool: &Arc<Pool>) {
    let is_this = |other: &Arc<Pool>| Arc::ptr_eq(other, pool);
    {
        let mut ledger = lock();
        if ledger.busy.iter().any(is_this) {
            return;
        }
        ledger.busy.push(pool.clone());
    }
    loop {
        let step = {
            let mut ledger = lock();
            let step = ledger.next_step(pool);
            if step.is_none() {
                ledger.busy.retain(|other| !is_this(other));
            }
            step
        };
        let Some(step) = step else { return };
        let done = step.take(pool);
        lock().record(pool, done);
    }
}

/// One call, or two, into a library.
enum Step {
    /// Find out what to come back to.
    Read,
    Write(i32),
    PutBack(Saved, i32),
}

/// What came of it.
enum Done {
    Read(i32),
    Wrote { wanted: i32, before: Saved, seen: i32 },
    PutBack,
}

impl Step {
    fn take(self, pool: &Pool) -> Done {
        match self {
            Step::Read => Done::Read(pool.knob.get()),
            Step::Write(wanted) => {
                let before = pool.knob.set(wanted);
                Done::Wrote { wanted, before, seen: pool.knob.get() }
            }
            Step::PutBack(saved, seen) => {
                pool.knob.restore_unless_changed(saved, seen);
                Done::PutBack
            }
        }
    }
}

impl Ledger {
    /// What has to be done next with one count, if anything.
    fn next_step(&mut self, pool: &Arc<Pool>) -> Option<Step> {
        let place = self.held.iter().position(|held| Arc::ptr_eq(&held.pool, pool));
        match (place, self.allowed(pool)) {
            (None, None) => None,
            (None, Some(_)) => Some(Step::Read),
            (Some(place), Some(allowed)) => {
                let held = &self.held[place];
                let wanted = allowed.of(held.baseline);
                // A library is left alone while it does what is wanted: some start threads when told a count.
                (wanted != held.wanted).then_some(Step::Write(wanted))
            }
            (Some(place), None) => {
                let held = self.held.swap_remove(place);
                held.changed.map(|(saved, seen)| Step::PutBack(saved, seen))
            }
        }
    }

    fn record(&mut self, pool: &Arc<Pool>, done: Done) {
        match done {
            Done::Read(baseline) => {
                self.held.push(Held { pool: pool.clone(), baseline, wanted: baseline, changed: None });
            }
            Done::Wrote { wanted, before, seen } => {
                let held = self.held.iter_mut().find(|held| Arc::ptr_eq(&held.pool, pool));
                if let Some(held) = held {
                    let original = held.changed.map_or(before, |(original, _)| original);
                    (held.wanted, held.changed) = (wanted, Some((original, seen)));
                }
            }
            Done::PutBack => {}
        }
    }

    /// What the requests of the moment, taken together, allow a pool; `None` where none concerns it.
    fn allowed(&self, pool: &Pool) -> Option<Allowed> {
        let mut allowed = None;
        for (i, request) in self.requests.iter().enumerate() {
            let concerns = |request: &Request| pool.is_asked_by(request.user_api);
            let is_inside = |inner: &Request| inner.is_scope && inner.thread == request.thread;
            let is_replaced = request.is_scope
                && self.requests[i + 1..].iter().any(|inner| is_inside(inner) && concerns(inner));
            if concerns(request) && !is_replaced {
                allowed.get_or_insert_with(Allowed::default).and(request.limit);
            }
        }
        allowed
    }

    /// For a fork child: threads that are not there any more want nothing. The counts themselves are left as
    /// they are until the next request comes or goes, since setting one may start threads.
    pub fn keep_only_this_thread(&mut self) {
        let thread = this_thread();
        self.requests.retain(|request| request.thread == thread);
        self.busy.clear();
    }
}

/// The smallest of several limits.
#[derive(Clone, Copy, Default)]
struct Allowed {
    exact: Option<i32>,
    cap: Option<i32>,
}

impl Allowed {
    fn and(&mut self, limit: Limit) {
        let side = if limit.exact { &mut self.exact } else { &mut self.cap };
        *side = Some(side.map_or(limit.threads, |smallest| smallest.min(limit.threads)));
    }

    /// The count for a pool that had `baseline`: only exact limits raise it.
    fn of(self, baseline: i32) -> i32 {
        let count = self.exact.unwrap_or(baseline);
        let count = self.cap.map_or(count, |cap| cap.min(count));
        // A count that cannot be told could not be put back either.
        if baseline > 0 { count } else { baseline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limits: &[(i32, bool)], baseline: i32) -> i32 {
        let mut allowed = Allowed::default();
        limits.iter().for_each(|(threads, exact)| allowed.and(Limit { threads: *threads, exact: *exact }));
        allowed.of(baseline)
    }

    #[test]
    fn a_cap_lowers_and_an_exact_limit_also_raises() {
        assert_eq!(allowed(&[(2, false)], 8), 2);
        assert_eq!(allowed(&[(8, false)], 2), 2);
        assert_eq!(allowed(&[(4, true)], 2), 4);
    }

    #[test]
    fn the_smallest_of_several_limits_counts() {
        assert_eq!(allowed(&[(4, true), (1, false)], 8), 1);
        assert_eq!(allowed(&[(4, true), (2, true)], 8), 2);
        assert_eq!(allowed(&[(4, true), (8, false)], 2), 4);
    }
}
