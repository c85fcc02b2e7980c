//! Where workers of a region sleep who have nothing to do, and how they are woken.
//!
//! A sleeper says what it waits for (its wish) in its own bed. News are published first, then `wake` looks for one sleeper
//! whom they concern. No wake-up is lost, by Dekker's rule: the sleeper writes its wish, then, after a fence, looks for
//! the news once more; the publisher writes the news, then, after a fence, looks for wishes. The fences are in one total
//! order, so at least one of the two sees the other's writing. A sleeper whose wish is seen is woken under its bed's lock,
//! which it holds from before its wish is written until it sleeps, so the ring cannot come in between. Whoever rings takes
//! the wish away first: two pieces of news wake two sleepers. A worker that was awake after all when its wish was taken
//! passes the news on if there are more than it can use (`worker.rs`).

use crate::sync::{AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::sync::PoisonError;

/// No wish: awake.
const AWAKE: u64 = 0;
/// Wishes for any branch.
pub(super) const ANYTHING: u64 = u64::MAX;

struct Bed {
    wish: AtomicU64,
    lock: Mutex<()>,
    rung: Condvar,
}

pub(super) struct Beds {
    /// Read by everybody who has news, written by sleepers.
    sleepers: CachePadded<AtomicUsize>,
    beds: Box<[Bed]>,
}

impl Beds {
    pub(super) fn new(count: usize) -> Self {
        let bed = || Bed { wish: AtomicU64::new(AWAKE), lock: Mutex::new(()), rung: Condvar::new() };
        Beds { sleepers: CachePadded::new(AtomicUsize::new(0)), beds: (0..count).map(|_| bed()).collect() }
    }

    /// Sleeps until somebody grants the wish, unless `granted` says that it is already. The caller then looks anew.
    pub(super) fn sleep(&self, place: usize, wish: u64, granted: impl FnOnce() -> bool) {
        let bed = &self.beds[place];
        let mut lock = bed.lock.lock().unwrap_or_else(PoisonError::into_inner);
        bed.wish.store(wish, Ordering::Relaxed);
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !granted() {
            while bed.wish.load(Ordering::Relaxed) == wish {
                lock = bed.rung.wait(lock).unwrap_or_else(PoisonError::into_inner);
            }
        }
        bed.wish.store(AWAKE, Ordering::Relaxed);
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// After news were published: wakes up to `count` sleepers whose wishes they grant.
    pub(super) fn wake(&self, count: usize, grants: impl Fn(u64) -> bool) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.wake_some(count, grants);
        }
    }

    #[cold]
    fn wake_some(&self, mut count: usize, grants: impl Fn(u64) -> bool) {
        for bed in &self.beds {
            if count == 0 {
                return;
            }
            let wish = bed.wish.load(Ordering::Relaxed);
            if wish == AWAKE || !grants(wish) {
                continue;
            }
            let taken = bed.wish.compare_exchange(wish, AWAKE, Ordering::Relaxed, Ordering::Relaxed);
            if taken.is_ok() {
                drop(bed.lock.lock().unwrap_or_else(PoisonError::into_inner));
                bed.rung.notify_one();
                count -= 1;
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    fn news(count: usize) -> Arc<(Beds, AtomicUsize)> {
        Arc::new((Beds::new(count), AtomicUsize::new(0)))
    }

    /// Loom reports a deadlock if the waiter sleeps on although its branch is over.
    #[test]
    fn loom_who_waits_for_a_branch_hears_of_its_end() {
        loom::model(|| {
            let shared = news(1);
            let thief = shared.clone();
            let thief = loom::thread::spawn(move || {
                thief.1.store(1, Ordering::Release);
                thief.0.wake(1, |wish| wish == 9);
            });
            while shared.1.load(Ordering::Acquire) == 0 {
                shared.0.sleep(0, 9, || shared.1.load(Ordering::Acquire) != 0);
            }
            thief.join().unwrap();
        });
    }

    /// Two hungry workers, two branches offered one after the other: both are taken.
    #[test]
    fn loom_every_branch_that_is_offered_to_the_hungry_is_taken() {
        // All schedules with at most two preemptions: without the bound the model takes minutes.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let shared = news(2);
            let take = |offers: &AtomicUsize| {
                offers
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |offers| offers.checked_sub(1))
                    .is_ok()
            };
            let hungry: Vec<_> = (0..2)
                .map(|place| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        let (beds, offers) = (&shared.0, &shared.1);
                        while !take(offers) {
                            beds.sleep(place, ANYTHING, || offers.load(Ordering::Acquire) > 0);
                        }
                        // Somebody may have rung for this one while it was awake.
                        if offers.load(Ordering::Acquire) > 0 {
                            beds.wake(1, |wish| wish == ANYTHING);
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                shared.1.fetch_add(1, Ordering::Release);
                shared.0.wake(1, |wish| wish == ANYTHING);
            }
            hungry.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
