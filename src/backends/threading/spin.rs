//! How long an idle thread stays awake.
//!
//! Waiting awake as long as a wake-up costs is never worse than twice the best choice (ski rental). Beyond that a thread
//! learns: where calls came in gaps that it could have spun through, it spins through the next one. Whoever else
//! wants the CPU goes first: if giving way once takes long, the thread sleeps at once. Where the user has named a time
//! (`spin_us`), it is that time and no less.
//!
//! A phase keeps a thread awake beyond its time. It gives way again and again then, so that whoever else wants the CPU
//! has most of it.

use super::params;
use crate::cpu::{nanoseconds, ticks};
use crate::sync::yield_now;
use std::time::{Duration, Instant};

/// What a wake-up costs, measured on 2 virtual CPUs: 23-27 µs until the woken thread answers.
const LEAST: Duration = Duration::from_micros(20);
/// The longest gap that is worth while to spin through: beyond it 25 µs for a wake-up no longer matter to the caller.
const MOST: Duration = Duration::from_micros(200);
/// What a chunk of a map takes (`job/claims.rs`), and about what it takes until a caller that has parked goes on: 25 to 50 µs.
const CHUNK: Duration = Duration::from_micros(50);
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
    /// The same by [`ticks`], which a thread that has got work reads sooner.
    since: u64,
}

impl Spin {
    pub(super) fn new() -> Self {
        Spin { gap: Duration::ZERO, idle_since: Instant::now(), since: ticks() }
    }

    /// The thread has become idle.
    pub(super) fn begin(&mut self) {
        self.idle_since = Instant::now();
        self.since = ticks();
    }

    /// There is work.
    pub(super) fn end(&mut self) {
        let idle = Duration::from_nanos(nanoseconds(ticks().saturating_sub(self.since)));
        self.gap = (self.gap * 3 + idle.min(MOST * 8)) / 4;
    }

    fn budget(&self) -> Duration {
        if self.gap * 2 <= MOST { (self.gap * 2).max(LEAST) } else { LEAST }
    }

    /// Spins until `found`; false when it is time to sleep, which it never is while `stay_awake` holds.
    pub(super) fn wait(&self, found: impl Fn() -> bool, stay_awake: impl Fn() -> bool) -> bool {
        let asked = params::spin();
        let budget = asked.unwrap_or_else(|| self.budget());
        if budget.is_zero() && !stay_awake() {
            return false;
        }
        Vigil { since: self.idle_since, budget, defers: asked.is_none() }.keep(found, stay_awake)
    }
}

/// Waits for threads that are in their last chunk: awake for as long as one takes, since it would take as long to wake up.
/// False when it is time to sleep.
pub(super) fn wait_for_a_chunk(found: impl Fn() -> bool) -> bool {
    if found() {
        return true;
    }
    let budget = params::spin().map_or(CHUNK, |asked| asked.min(CHUNK));
    Vigil { since: Instant::now(), budget, defers: true }.keep(found, || false)
}

/// One time of waiting awake.
struct Vigil {
    since: Instant,
    budget: Duration,
    /// Whether others who want the CPU end it.
    defers: bool,
}

impl Vigil {
    fn keep(&self, found: impl Fn() -> bool, stay_awake: impl Fn() -> bool) -> bool {
        if cfg!(loom) {
            // There is no time: a thread sleeps at once, or leaves the others a turn.
            let stays = stay_awake();
            if stays {
                yield_now();
            }
            return stays;
        }
        let mut gave_way = Duration::ZERO;
        loop {
            for _ in 0..LOOKS {
                if found() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let awake = self.since.elapsed();
            let stays = stay_awake();
            if awake > self.budget && !stays {
                return false;
            }
            if (stays || gave_way.is_zero()) && awake > gave_way + GIVE_WAY {
                yield_now();
                gave_way = self.since.elapsed();
                if self.defers && !stays && gave_way > awake + CROWDED {
                    return found();
                }
            }
        }
    }
}
