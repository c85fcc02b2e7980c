//! How long an idle thread stays awake.
//!
//! Waiting awake as long as a wake-up costs is never worse than twice the best choice (ski rental). Beyond that a thread
//! learns: where calls came in gaps that it could have spun through, it spins through the next one. Where the gaps are longer and
//! all alike, it sleeps, and wakes up by itself shortly before the next call should come. Whoever else
//! wants the CPU goes first: if giving way once takes long, the thread sleeps at once. Where the user has named a time
//! (`spin_us`), it is that time and no less.
//!
//! A phase keeps a thread awake beyond its time. It gives way again and again then, so that whoever else wants the CPU
//! has most of it.

use super::params;
use crate::sync::yield_now;
use std::time::{Duration, Instant};

/// What a wake-up costs, measured on 2 virtual CPUs: 23-27 µs until the woken thread answers.
const LEAST: Duration = Duration::from_micros(20);
/// The longest that a thread stays awake for a gap, which is twice the gap.
const MOST: Duration = Duration::from_micros(250);
/// Gaps up to this long are foreseen. At 2 ms that took 1.6 % of a CPU (`bench-ours gap-2ms`, CPU time with and without), and the
/// longer the gap, the less.
const LONGEST: Duration = Duration::from_millis(20);
/// Gaps that stray further are not foreseen.
const DOUBT: Duration = Duration::from_micros(50);
/// So long before it expects a call a thread wakes up: of 1,000 timers of 1.9 ms on 2 virtual CPUs, with [`fine_timer`], half came
/// 23 µs late or later, a tenth 42.
///
/// [`fine_timer`]: crate::cpu::fine_timer
const EARLY: Duration = Duration::from_micros(60);
/// What a chunk of a map takes (`job/claims.rs`), and about what it takes until a caller that has parked goes on: 25 to 50 µs.
const CHUNK: Duration = Duration::from_micros(50);
/// After this long awake the thread gives way once. It also makes the kernel count the thread's time as it is: Linux
/// charges a whole tick to who runs when it comes.
const GIVE_WAY: Duration = Duration::from_micros(4);
/// Giving way took longer than this: somebody else ran.
const CROWDED: Duration = Duration::from_micros(20);

/// One thread's habit.
pub(super) struct Spin {
    gaps: Gaps,
    /// Whether the thread has looked at the clock since it became idle. Where calls come back to back it never does: it would not be
    /// ready in time for the next.
    is_timed: bool,
    /// How often work has come before it did, since it last had a gap to learn of.
    at_once: u32,
    idle_since: Instant,
    /// When it last looked at the clock since then.
    looked: Instant,
    /// The last gap, of which nothing has been learned yet.
    gap: Option<Duration>,
    /// When an alarm has rung since then.
    rang: Option<Instant>,
    /// Whether it has parked, and nothing but a wake-up has ended that.
    slept: bool,
}

impl Spin {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Spin {
            gaps: Gaps::new(),
            is_timed: false,
            at_once: 0,
            idle_since: now,
            looked: now,
            gap: None,
            rang: None,
            slept: false,
        }
    }

    /// The thread has become idle.
    pub(super) fn begin(&mut self) {
        (self.is_timed, self.rang, self.slept) = (false, None, false);
    }

    /// There is work.
    pub(super) fn end(&mut self) {
        if !self.is_timed {
            self.at_once = self.at_once.saturating_add(1);
            return;
        }
        // Who was awake has looked at the clock a microsecond or two ago. The time of a wake-up is none of the gap's.
        let end = if self.slept { Instant::now() - LEAST } else { self.looked };
        self.gap = Some(end.saturating_duration_since(self.idle_since));
    }

    /// Spins until `found`; false when it is time to sleep, which it never is while `stay_awake` holds.
    pub(super) fn wait(&mut self, found: impl Fn() -> bool, stay_awake: impl Fn() -> bool) -> bool {
        let asked = params::spin();
        if asked.is_some_and(|asked| asked.is_zero()) && !stay_awake() {
            return false;
        }
        if !self.is_timed {
            if look_often(&found) {
                return true;
            }
            self.learn();
        }
        let (since, budget) = match (asked, self.rang) {
            (Some(asked), _) => (self.idle_since, asked),
            (None, Some(rang)) => (rang, self.gaps.window()),
            (None, None) => (self.idle_since, self.gaps.budget()),
        };
        let mut vigil = Vigil { since, budget, defers: asked.is_none(), looked: self.looked };
        let found = vigil.keep(found, stay_awake);
        self.looked = vigil.looked;
        found
    }

    /// The thread is idle from now on, and has time to think of how it came to be.
    fn learn(&mut self) {
        self.gap.take().into_iter().for_each(|gap| self.gaps.learn(gap));
        // After eight there is a tenth left of what was known before.
        (0..self.at_once.min(8)).for_each(|_| self.gaps.learn(Duration::ZERO));
        self.idle_since = Instant::now();
        self.looked = self.idle_since;
        (self.is_timed, self.at_once) = (true, 0);
    }

    /// The thread parks. After this long it had better be awake, since the next call is near.
    pub(super) fn alarm(&mut self) -> Option<Duration> {
        self.slept = true;
        if cfg!(loom) || params::spin().is_some() || self.rang.is_some() {
            return None;
        }
        let left = self.gaps.next_call()?.checked_sub(self.idle_since.elapsed())?;
        (left > LEAST).then_some(left)
    }

    /// It has parked for so long and nobody has called.
    pub(super) fn ring(&mut self) {
        self.rang = Some(Instant::now());
        self.slept = false;
    }
}

/// What a thread learns of the gaps between its pieces of work.
struct Gaps {
    average: Duration,
    /// How far they are from that on average.
    stray: Duration,
}

impl Gaps {
    fn new() -> Self {
        Gaps { average: Duration::ZERO, stray: LONGEST }
    }

    fn learn(&mut self, gap: Duration) {
        let gap = gap.min(LONGEST * 2);
        self.stray = (self.stray * 3 + gap.abs_diff(self.average)) / 4;
        self.average = (self.average * 3 + gap) / 4;
    }

    /// How long to stay awake at first.
    fn budget(&self) -> Duration {
        if self.average * 2 <= MOST { (self.average * 2).max(LEAST) } else { LEAST }
    }

    /// How long before and after its expected time a call may come.
    fn doubt(&self) -> Duration {
        self.stray * 2
    }

    /// How long after becoming idle to wake up for the next call, where calls come regularly.
    fn next_call(&self) -> Option<Duration> {
        let is_regular = self.average <= LONGEST && self.doubt() <= DOUBT;
        if is_regular { self.average.checked_sub(EARLY + self.doubt()) } else { None }
    }

    /// How long to stay awake after that.
    fn window(&self) -> Duration {
        EARLY + self.doubt() * 2 + LEAST
    }
}

/// Waits for threads that are in their last chunk: awake for as long as one takes, since it would take as long to wake up.
/// False when it is time to sleep.
pub(super) fn wait_for_a_chunk(found: impl Fn() -> bool) -> bool {
    if found() {
        return true;
    }
    let budget = params::spin().map_or(CHUNK, |asked| asked.min(CHUNK));
    let now = Instant::now();
    Vigil { since: now, budget, defers: true, looked: now }.keep(found, || false)
}

/// Looks for as long as two readings of the clock lie apart.
fn look_often(found: impl Fn() -> bool) -> bool {
    const LOOKS: u32 = if cfg!(loom) { 0 } else { 32 };
    (0..LOOKS).any(|_| {
        let found = found();
        if !found {
            std::hint::spin_loop();
        }
        found
    })
}

/// One time of waiting awake.
struct Vigil {
    since: Instant,
    budget: Duration,
    /// Whether others who want the CPU end it.
    defers: bool,
    /// When it last looked at the clock.
    looked: Instant,
}

impl Vigil {
    fn keep(&mut self, found: impl Fn() -> bool, stay_awake: impl Fn() -> bool) -> bool {
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
            if look_often(&found) {
                return true;
            }
            self.looked = Instant::now();
            let awake = self.looked.saturating_duration_since(self.since);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn learned(gaps: impl IntoIterator<Item = u64>) -> Gaps {
        let mut learned = Gaps::new();
        gaps.into_iter().for_each(|gap| learned.learn(Duration::from_micros(gap)));
        learned
    }

    #[test]
    fn short_gaps_are_spun_through() {
        assert_eq!(Gaps::new().budget(), LEAST);
        assert!(learned([100; 30]).budget() > Duration::from_micros(195));
        assert_eq!(learned([300; 30]).budget(), LEAST);
    }

    #[test]
    fn long_gaps_that_are_alike_are_foreseen() {
        let gaps = learned((0..60).map(|turn| 2000 + turn % 3));
        let next = gaps.next_call().unwrap();
        assert!(next < Duration::from_micros(2000) - EARLY && next > Duration::from_micros(1900), "{next:?}");
        assert!(next + gaps.window() > Duration::from_micros(2000), "it is awake when the call comes");
        assert!(gaps.window() < Duration::from_micros(100), "and not for long");
    }

    #[test]
    fn others_are_not() {
        assert_eq!(Gaps::new().next_call(), None);
        assert_eq!(learned((0..60).map(|turn| 1000 + turn % 2 * 1000)).next_call(), None);
        assert_eq!(learned([50_000; 100]).next_call(), None);
        let after_a_pause = learned(std::iter::repeat_n(2000, 60).chain([1_000_000]));
        assert_eq!(after_a_pause.next_call(), None);
    }
}
