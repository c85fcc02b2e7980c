//! Phases: times in which idle threads stay awake, because somebody has said that calls will come.
//!
//! A phase wants a number of threads; the pool keeps awake as many as the largest open phase wants, which are those in the
//! first slots. An idle thread reads one word for that, which changes when phases begin and end and at no other time.
//!
//! **No thread sleeps through a phase.** Who begins one raises the word, fences, and wakes the threads that it finds
//! asleep. Who falls asleep says so, fences (`cell`), and reads the word before it parks: one of the two sees the other.
//! The end of a phase needs no such care: who is awake sees the word go down, in its own time.

use crate::scope::Token;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use crossbeam_utils::CachePadded;
use std::sync::PoisonError;

pub(super) struct Phases {
    /// Threads with a number below stay awake. Changed under the lock.
    awake: CachePadded<AtomicUsize>,
    /// The open phases, and how many threads each wants.
    open: Mutex<Vec<(Token, usize)>>,
}

impl Phases {
    pub(super) fn new() -> Self {
        Phases { awake: CachePadded::new(AtomicUsize::new(0)), open: Mutex::new(Vec::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Token, usize)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the idle thread of that number stays awake.
    pub(super) fn keep_awake(&self, number: usize) -> bool {
        number < self.awake.load(Ordering::Relaxed)
    }

    /// Begins a phase, by a token that no other has. Threads that sleep have to be woken after this.
    pub(super) fn begin(&self, token: Token, threads: usize) {
        let mut open = self.lock();
        open.push((token, threads));
        self.count(&open);
        drop(open);
        fence(Ordering::SeqCst);
    }

    /// Ends a phase; false if it is not open.
    pub(super) fn end(&self, token: Token) -> bool {
        let mut open = self.lock();
        let Some(place) = open.iter().position(|(other, _)| *other == token) else { return false };
        open.swap_remove(place);
        self.count(&open);
        true
    }

    fn count(&self, open: &[(Token, usize)]) {
        let most = open.iter().map(|(_, threads)| *threads).max();
        self.awake.store(most.unwrap_or(0), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_largest_open_phase_decides() {
        let phases = Phases::new();
        let awake = || (0..10).take_while(|number| phases.keep_awake(*number)).count();
        assert_eq!(awake(), 0);
        for (token, threads, most) in [(1, 2, 2), (2, 5, 5), (3, 0, 5), (4, 1, 5)] {
            phases.begin(token, threads);
            assert_eq!(awake(), most);
        }
        for (token, most) in [(2, 2), (3, 2), (1, 1), (4, 0)] {
            assert!(phases.end(token) && !phases.end(token));
            assert_eq!(awake(), most);
        }
    }
}
