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
use super::wakeups::{LATE, WAKING};
use crate::cpu::{nanoseconds, ticks};
use crate::sync::yield_now;
use std::cell::LazyCell;
use std::time::{Duration, Instant};

/// The longest that a thread stays awake for a gap, which is twice the gap.
const MOST: Duration = Duration::from_micros(250);
/// Gaps up to this long are foreseen. At 2 ms that took 1.6 % of a CPU (`bench-ours gap-2ms`, CPU time with and without), and the
/// longer the gap, the less.
const LONGEST: Duration = Duration::from_millis(20);
/// Gaps are alike where most of them differ by less than this. Chosen, not tuned, as are the next two.
const ALIKE: Duration = Duration::from_micros(100);
/// Gaps of which more than this part, one in so many, would be spent awake, since timers are late here, are not foreseen.
const AWAKE_PART: u32 = 8;
/// So long a thread stays awake without asking what its gaps were, which takes a while.
const AT_FIRST: Duration = Duration::from_micros(10);
/// What a chunk of a map takes (`job/claims.rs`).
const CHUNK: Duration = Duration::from_micros(50);
/// One in so many parts of its own time a caller waits awake for the others' last items: they are often about as long as its own were.
/// On 2 virtual CPUs that took `bench-ours heavy-tail` from 8.41 to 8.30 ms and `mandelbrot` from 27.1 to 26.6 (medians of 8
/// interleaved runs), mostly because the helper is still awake for the next call.
const WAITING_PART: u32 = 16;
/// But no longer than this (chosen, not tuned): then a wake-up is none of its worries.
const LONGEST_WAIT: Duration = Duration::from_millis(1);
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
    /// When it last parked since then, by [`ticks`].
    parked: Option<u64>,
    /// When to give up waiting, after it became idle, where an alarm has been set since then.
    last_call: Option<Duration>,
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
            parked: None,
            last_call: None,
        }
    }

    /// The thread has become idle.
    pub(super) fn begin(&mut self) {
        (self.is_timed, self.parked, self.last_call) = (false, None, None);
    }

    /// There is work. If the thread was asleep it was called at `called`, by [`ticks`].
    pub(super) fn end(&mut self, called: u64) {
        if !self.is_timed {
            self.at_once = self.at_once.saturating_add(1);
            return;
        }
        let end = match self.parked {
            // The time of a wake-up is none of the gap's.
            Some(parked) if called > parked => {
                let waking = nanoseconds(ticks().saturating_sub(called));
                WAKING.learn(waking);
                Instant::now().checked_sub(Duration::from_nanos(waking)).unwrap_or(self.looked)
            }
            // Who was awake has looked at the clock a microsecond or two ago.
            _ => self.looked,
        };
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
        let mut vigil = Vigil {
            since: self.idle_since,
            at_least: if asked.is_none() { AT_FIRST } else { Duration::ZERO },
            defers: asked.is_none(),
            looked: self.looked,
        };
        let budget = LazyCell::new(|| asked.or(self.last_call).unwrap_or_else(|| self.gaps.budget()));
        let found = vigil.keep(found, stay_awake, || *budget);
        self.looked = vigil.looked;
        found
    }

    /// The thread is idle from now on, and has time to think of how it came to be.
    fn learn(&mut self) {
        self.gap.take().into_iter().for_each(|gap| self.gaps.learn(gap));
        (0..self.at_once.min(Gaps::KEPT as u32)).for_each(|_| self.gaps.learn(Duration::ZERO));
        self.idle_since = Instant::now();
        self.looked = self.idle_since;
        (self.is_timed, self.at_once) = (true, 0);
    }

    /// The thread parks. After this long it had better be awake, since the next call is near.
    pub(super) fn alarm(&mut self) -> Option<Duration> {
        self.parked = Some(ticks());
        if cfg!(loom) || params::spin().is_some() {
            return None;
        }
        let (alarm, last_call) = self.gaps.next_call()?;
        let left = alarm.checked_sub(self.idle_since.elapsed()).filter(|left| *left > WAKING.get())?;
        self.last_call = Some(last_call);
        Some(left)
    }

    /// It wakes up so late after the time of its alarm.
    pub(super) fn ring(&mut self, late: Duration) {
        LATE.learn(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        self.looked = Instant::now();
    }
}

/// What a thread knows of the gaps between its pieces of work: the last ones. Most of them decide: a pause, or a time without a CPU,
/// undoes nothing, and a new rhythm is soon the usual one.
struct Gaps {
    last: [Duration; Gaps::KEPT],
    oldest: usize,
}

impl Gaps {
    const KEPT: usize = 8;
    const MOST: usize = 6;

    fn new() -> Self {
        Gaps { last: [Duration::MAX; Gaps::KEPT], oldest: 0 }
    }

    fn learn(&mut self, gap: Duration) {
        self.last[self.oldest] = gap;
        self.oldest = (self.oldest + 1) % Gaps::KEPT;
    }

    fn sorted(&self) -> [Duration; Gaps::KEPT] {
        let mut sorted = self.last;
        sorted.sort_unstable();
        sorted
    }

    /// How long to stay awake at first.
    fn budget(&self) -> Duration {
        let usual = self.sorted()[Gaps::MOST - 1];
        if usual <= MOST / 2 { (usual * 2).max(WAKING.get()) } else { WAKING.get() }
    }

    /// The shortest and the longest of most gaps: those that lie closest together.
    fn most(&self) -> (Duration, Duration) {
        let sorted = self.sorted();
        let windows = sorted.windows(Gaps::MOST).map(|most| (most[0], most[Gaps::MOST - 1]));
        windows.min_by_key(|(shortest, longest)| *longest - *shortest).unwrap_or_default()
    }

    /// How long after becoming idle to set an alarm for, so as to be awake for the next call, where calls come regularly; and when to
    /// expect it no more.
    fn next_call(&self) -> Option<(Duration, Duration)> {
        let ((shortest, longest), early) = (self.most(), LATE.get());
        let is_regular = longest <= LONGEST && longest - shortest <= ALIKE && early * AWAKE_PART <= shortest;
        is_regular.then(|| (shortest - early, longest + WAKING.get()))
    }
}

/// Waits for threads that are in their last chunk or item, where the caller began its own part at `began`, by [`ticks`]: awake for as
/// long as a chunk takes, or as it would take to wake up, or for a small part of the time that its own took: whatever it waits
/// for, it has not burnt more than that. False when it is time to sleep.
pub(super) fn wait_for_the_last(began: u64, found: impl Fn() -> bool) -> bool {
    if found() {
        return true;
    }
    let worked = Duration::from_nanos(nanoseconds(ticks().saturating_sub(began)));
    let budget = CHUNK.max(WAKING.get()).max((worked / WAITING_PART).min(LONGEST_WAIT));
    let budget = params::spin().map_or(budget, |asked| asked.min(budget));
    let now = Instant::now();
    Vigil { since: now, at_least: Duration::ZERO, defers: true, looked: now }.keep(found, || false, || budget)
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
    /// It does not ask before for how long.
    at_least: Duration,
    /// Whether others who want the CPU end it.
    defers: bool,
    /// When it last looked at the clock.
    looked: Instant,
}

impl Vigil {
    fn keep(
        &mut self,
        found: impl Fn() -> bool,
        stay_awake: impl Fn() -> bool,
        budget: impl Fn() -> Duration,
    ) -> bool {
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
            if !stays && awake > self.at_least && awake > budget() {
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
        let least = Duration::from_micros(100);
        assert!(Gaps::new().budget() <= least);
        assert!(learned([100; 8]).budget() > Duration::from_micros(195));
        assert!(learned([300; 8]).budget() <= least);
    }

    #[test]
    fn long_gaps_that_are_alike_are_foreseen() {
        let (alarm, last) = learned((0..8).map(|turn| 4000 + turn)).next_call().unwrap();
        let micros = Duration::from_micros;
        assert!(alarm < micros(4000) && alarm >= micros(4000 - 250), "{alarm:?}");
        assert!(last > micros(4005) && last <= micros(4007 + 100), "{last:?}");
    }

    #[test]
    fn others_are_not() {
        assert_eq!(Gaps::new().next_call(), None);
        assert_eq!(learned((0..8).map(|turn| 1000 + turn % 2 * 1000)).next_call(), None);
        assert_eq!(learned([50_000; 8]).next_call(), None);
        assert_eq!(learned([20; 8]).next_call(), None, "timers are too late for that");
    }

    #[test]
    fn one_pause_changes_nothing_and_a_new_rhythm_is_soon_learned() {
        let after = |others: Vec<u64>| learned(std::iter::repeat_n(4000, 8).chain(others)).next_call();
        let before = after(vec![]).unwrap();
        assert_eq!(after(vec![1_000_000]).unwrap().1, before.1);
        assert_eq!(after(vec![8000; 3]), None);
        assert_eq!(after(vec![8000; 6]).unwrap().1 - before.1, Duration::from_millis(4));
    }
}
