//! How long an idle thread stays awake.
//!
//! Waiting awake as long as a wake-up costs is never worse than twice the best choice (ski rental). Beyond that a thread
//! learns: where calls came in gaps that it could have spun through, it spins through the next one. Whoever else
//! wants the CPU goes first: if giving way once takes long, the thread sleeps at once. Where the user has named a time
//! (`spin_us`), it is that time and no less.

use super::params;
use std::time::{Duration, Instant};

/// What a wake-up costs, measured on 2 virtual CPUs: 23-27 µs until the woken thread answers.
const LEAST: Duration = Duration::from_micros(20);
/// The longest gap that is worth while to spin through: beyond it 25 µs for a wake-up no longer matter to the caller.
const MOST: Duration = Duration::from_micros(200);
/// After this long awake the thread gives way once. It also makes the kernel count the thread's time as it is: Linux
/// charges a whole tick to who runs when it comes.
const GIVE_WAY: Duration = Duration::from_micros(4);
/// Giving way took longer than this: somebody else ran.
const CROWDED: Duration = Duration::from_micros(20);
/// Looks between two readings of the clock.
const LOOKS: u32 = 32;

/// One thread's habit.
pub(super) struct Spin {
    /// Average gap between the end of one piece of work and the beginning of the next.
    gap: Duration,
    idle_since: Instant,
}

impl Spin {
    pub(super) fn new() -> Self {
        Spin { gap: Duration::ZERO, idle_since: Instant::now() }
    }

    /// The thread has become idle.
    pub(super) fn begin(&mut self) {
        self.idle_since = Instant::now();
    }

    /// There is work.
    pub(super) fn end(&mut self) {
        self.gap = (self.gap * 3 + self.idle_since.elapsed().min(MOST * 8)) / 4;
    }

    fn budget(&self) -> Duration {
        if self.gap * 2 <= MOST { (self.gap * 2).max(LEAST) } else { LEAST }
    }

    /// Spins until `found`; false when it is time to sleep.
    pub(super) fn wait(&self, found: impl Fn() -> bool) -> bool {
        if cfg!(loom) {
            return false;
        }
        let asked = params::spin();
        let budget = asked.unwrap_or_else(|| self.budget());
        if budget.is_zero() {
            return false;
        }
        let mut gave_way = false;
        loop {
            for _ in 0..LOOKS {
                if found() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let awake = self.idle_since.elapsed();
            if awake > budget {
                return false;
            }
            if !gave_way && awake > GIVE_WAY {
                gave_way = true;
                std::thread::yield_now();
                if asked.is_none() && self.idle_since.elapsed() > awake + CROWDED {
                    return found();
                }
            }
        }
    }
}
