//! What a wake-up costs on this machine, and how late its timers are: learned while threads sleep and wake up.
//!
//! It differs too much to be known beforehand. On two virtual machines with the same kernel and two CPUs each, a thread that was
//! woken went on after 23 to 27 µs on one (a Xeon) and after 40 to 100 on the other (an EPYC, whose host takes its time), and timers
//! of 1.9 ms were 23 and 90 µs late.
//!
//! Advisory: each is one word that any thread reads and writes, and a lost update does not matter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// From when a parked thread is called until it goes on.
pub(super) static WAKING: Learned = Learned::waking();
/// How late a thread wakes up that has set itself an alarm: most of them are not as late as this.
pub(super) static LATE: Learned = Learned::late();

/// A time that is learned.
pub(super) struct Learned {
    nanoseconds: AtomicU64,
    least: u64,
    most: u64,
    /// What part of the way it goes where the truth was more; the faster it rises, the more of all times are below it.
    up: u64,
    down: u64,
}

impl Learned {
    /// Begins with what was measured on the Xeon. Bounds and rates were chosen, not tuned: the bounds hold what was seen on both.
    const fn waking() -> Self {
        Learned::new(25, 10..=100, 8, 8)
    }

    /// Likewise, with what nine of ten timers kept to.
    const fn late() -> Self {
        Learned::new(40, 10..=250, 2, 16)
    }

    /// `microseconds` at first, and never beyond these bounds.
    const fn new(microseconds: u64, bounds: std::ops::RangeInclusive<u64>, up: u64, down: u64) -> Self {
        let (least, most) = (*bounds.start() * 1000, *bounds.end() * 1000);
        Learned { nanoseconds: AtomicU64::new(microseconds * 1000), least, most, up, down }
    }

    pub(super) fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds())
    }

    /// It has been so long once. What is far beyond counts as twice what was thought: then something else came between.
    pub(super) fn learn(&self, nanoseconds: u64) {
        let old = self.nanoseconds();
        let new = match nanoseconds.min(2 * old) {
            more if more > old => old + (more - old) / self.up,
            less => old - (old - less) / self.down,
        };
        self.nanoseconds.store(new.clamp(self.least, self.most), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn learned(learned: Learned, times: impl IntoIterator<Item = u64>) -> u64 {
        times.into_iter().for_each(|time| learned.learn(time * 1000));
        learned.nanoseconds() / 1000
    }

    #[test]
    fn what_is_usual_is_learned() {
        assert!((58..=60).contains(&learned(Learned::waking(), [60; 100])));
        assert!((15..=17).contains(&learned(Learned::waking(), [15; 100])));
    }

    #[test]
    fn one_that_took_far_longer_changes_little() {
        assert!(learned(Learned::waking(), [25, 25, 5000, 25]) < 29);
    }

    #[test]
    fn there_are_bounds() {
        assert_eq!(learned(Learned::waking(), [10_000; 100]), 100);
        assert_eq!(learned(Learned::waking(), [0; 100]), 10);
    }

    #[test]
    fn most_are_not_as_late_as_is_learned() {
        let times = || (0..1000).map(|turn| 50 + turn * 37 % 100);
        let limit = learned(Learned::late(), times());
        let below = times().filter(|time| *time < limit).count();
        assert!((700..1000).contains(&below), "{below} of 1000 below {limit} µs");
    }
}
