//! Who is wanted, who is idle, who sleeps: so that no place that is offered goes unseen.
//!
//! `wanted` counts places that are offered and not taken, `idle` threads that hold no ticket. Who offers raises
//! `wanted`, queues the ticket, then rings: under the lock it compares the two, starts the missing threads, and wakes
//! sleepers. So every place has an idle thread that will look for it, whatever the others are busy with.
//!
//! No wake-up is lost: a thread sleeps only after it has seen `wanted` at 0 under the lock, and who rings has raised
//! `wanted` before taking the same lock. Either the sleeper took the lock first, and is asleep when the bell rings; or
//! the ringer did, and the sleeper sees `wanted` raised.

use crate::sync::{AtomicIsize, Condvar, Mutex, MutexGuard, Ordering};
use crate::trace::{self, What};
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

/// A thread beyond those that stay ends after this long without work.
const SPARE_IDLE: Duration = Duration::from_secs(5);
/// A thread looks for work this long before it sleeps, so that calls in quick succession find their helpers awake. About
/// what it costs to wake one, measured on 2 virtual CPUs: so waiting awake costs at most twice the best.
const AWAKE: Duration = Duration::from_micros(20);
/// Looks between two readings of the clock.
const LOOKS: u32 = 32;

pub(super) struct Bell {
    wanted: AtomicIsize,
    idle: AtomicIsize,
    /// Changed under the lock.
    asleep: AtomicIsize,
    threads: Mutex<Threads>,
    rung: Condvar,
    /// How many threads stay when idle: asked by the first thread that has nothing to do, since counting CPUs takes longer
    /// than a first call should.
    count_stays: fn() -> usize,
    stays: OnceLock<usize>,
}

#[derive(Default)]
struct Threads {
    alive: usize,
    ending: bool,
}

impl Bell {
    pub(super) fn new(count_stays: fn() -> usize) -> Self {
        Bell {
            wanted: AtomicIsize::new(0),
            idle: AtomicIsize::new(0),
            asleep: AtomicIsize::new(0),
            threads: Mutex::new(Threads::default()),
            rung: Condvar::new(),
            count_stays,
            stays: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a ticket is queued: so many more places are wanted.
    pub(super) fn want(&self, places: usize) {
        self.wanted.fetch_add(places as isize, Ordering::SeqCst);
    }

    /// Places that nobody took are no longer wanted.
    pub(super) fn unwant(&self, places: usize) {
        self.wanted.fetch_sub(places as isize, Ordering::SeqCst);
    }

    /// After the ticket is queued: wakes sleepers, and has `start` start threads where too few are idle; each one counts
    /// as idle from then on. `start` says no when it cannot.
    pub(super) fn ring(&self, places: usize, mut start: impl FnMut(usize) -> bool) {
        let mut threads = self.lock();
        while self.wanted.load(Ordering::SeqCst) > self.idle.load(Ordering::SeqCst) && start(threads.alive) {
            threads.alive += 1;
            self.idle.fetch_add(1, Ordering::SeqCst);
        }
        match (places, self.asleep.load(Ordering::Relaxed)) {
            (_, 0) => {}
            (1, _) => self.rung.notify_one(),
            _ => self.rung.notify_all(),
        }
    }

    /// An idle thread takes a place: first it is no longer idle, then the place no longer wanted, so that who compares
    /// the two in between starts a thread too many rather than one too few.
    pub(super) fn take(&self) {
        self.idle.fetch_sub(1, Ordering::SeqCst);
        self.wanted.fetch_sub(1, Ordering::SeqCst);
    }

    /// The thread has done what the ticket asked for.
    pub(super) fn idle_again(&self) {
        self.idle.fetch_add(1, Ordering::SeqCst);
    }

    /// Sleeps until places are wanted, or were; false when the thread is to end.
    pub(super) fn wait(&self) -> bool {
        if self.wait_awake() {
            return true;
        }
        let stays = *self.stays.get_or_init(self.count_stays);
        let mut threads = self.lock();
        if self.wanted.load(Ordering::SeqCst) > 0 {
            return true;
        }
        if threads.ending {
            return self.leave(&mut threads);
        }
        self.asleep.fetch_add(1, Ordering::Relaxed);
        let parked = trace::span(|| What::Park);
        let (mut threads, timed_out) = self.sleep(threads, stays);
        self.asleep.fetch_sub(1, Ordering::Relaxed);
        drop(parked);
        if timed_out && self.wanted.load(Ordering::SeqCst) <= 0 {
            return self.leave(&mut threads);
        }
        true
    }

    #[cfg(loom)]
    fn wait_awake(&self) -> bool {
        false
    }

    #[cfg(not(loom))]
    fn wait_awake(&self) -> bool {
        // Whoever else is runnable goes first.
        std::thread::yield_now();
        let begin = std::time::Instant::now();
        loop {
            for _ in 0..LOOKS {
                if self.wanted.load(Ordering::Relaxed) > 0 {
                    return true;
                }
                std::hint::spin_loop();
            }
            if begin.elapsed() > AWAKE {
                return false;
            }
        }
    }

    /// Whether an idle thread is awake.
    pub(super) fn is_hot(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > self.asleep.load(Ordering::Relaxed)
    }

    /// Sleeps once; a thread that is one too many not for ever.
    fn sleep<'a>(&self, threads: MutexGuard<'a, Threads>, stays: usize) -> (MutexGuard<'a, Threads>, bool) {
        if threads.alive <= stays {
            return (self.rung.wait(threads).unwrap_or_else(PoisonError::into_inner), false);
        }
        let (threads, wait) =
            self.rung.wait_timeout(threads, SPARE_IDLE).unwrap_or_else(PoisonError::into_inner);
        (threads, wait.timed_out())
    }

    fn leave(&self, threads: &mut Threads) -> bool {
        threads.alive -= 1;
        self.idle.fetch_sub(1, Ordering::SeqCst);
        self.rung.notify_all(); // `end` may be waiting for the last idle thread
        false
    }

    /// Has idle threads end and waits until they have; those that hold a ticket end after it. Whether all have ended.
    pub(super) fn end(&self) -> bool {
        let mut threads = self.lock();
        threads.ending = true;
        self.rung.notify_all();
        while self.idle.load(Ordering::SeqCst) > 0 {
            // With a limit, since a thread that becomes busy makes no noise.
            let wait = self.rung.wait_timeout(threads, Duration::from_millis(20));
            threads = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        threads.alive == 0
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicUsize;
    use loom::sync::Arc;

    /// A pool thread, less the pool: looks for a ticket until told to end. Returns how many it found.
    fn live(bell: &Bell, queue: &AtomicUsize) -> usize {
        let mut found = 0;
        while bell.wait() {
            let ticket =
                queue.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |tickets| tickets.checked_sub(1));
            if ticket.is_ok() {
                bell.take();
                found += 1;
                bell.idle_again();
            } else {
                loom::thread::yield_now();
            }
        }
        found
    }

    /// Loom reports a deadlock if a ticket is queued and everybody sleeps.
    #[test]
    fn loom_every_ticket_is_found() {
        // All schedules with at most two preemptions: without the bound the model does not end in a day.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let bell = Arc::new(Bell::new(|| 8));
            let queue = Arc::new(AtomicUsize::new(0));
            let mut threads = Vec::new();
            for _ in 0..2 {
                bell.want(1);
                queue.fetch_add(1, Ordering::SeqCst);
                bell.ring(1, |alive| {
                    let (bell, queue) = (bell.clone(), queue.clone());
                    threads.push(loom::thread::spawn(move || live(&bell, &queue)));
                    alive < 8
                });
            }
            // Ended once the tickets are gone, as `shutdown` does.
            let mut state = bell.lock();
            state.ending = true;
            bell.rung.notify_all();
            drop(state);
            let found: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(found, 2);
        });
    }
}
