//! What an item of a task function took when its map was last run by one thread alone.
//!
//! A map whose items are known to take less altogether than it costs to wake a helper is run by its caller. Only maps that
//! one thread did run alone count: so a function whose items wait for each other, which a caller's choice of `sequential`
//! would never finish either, is not taken for a quick one because its threads met quickly.
//!
//! One word for each slot, written and read whole: a lost or stale entry costs time, never correctness.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots; two functions that share one forget each other.
const SLOTS: usize = 256;

/// A function's tag above, picoseconds an item (at most 4 ms) below.
static SITES: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];

/// Fibonacci hashing: functions lie close together and aligned, the product's upper bits do not.
fn hash(key: usize) -> u64 {
    (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn slot(hash: u64) -> &'static AtomicU64 {
    &SITES[(hash >> 56) as usize % SLOTS]
}

/// The lower half of the hash's upper bits; never 0, which is an empty slot.
fn tag(hash: u64) -> u64 {
    (hash >> 24 & 0xffff_ffff) | 1
}

/// Picoseconds an item, if known.
pub(super) fn recall(key: usize) -> Option<u64> {
    let hash = hash(key);
    let entry = slot(hash).load(Ordering::Relaxed);
    (entry >> 32 == tag(hash)).then_some(entry & 0xffff_ffff)
}

pub(super) fn remember(key: usize, picoseconds: u64) {
    let hash = hash(key);
    let pace = picoseconds.clamp(1, 0xffff_ffff);
    // What is about right stays, so that callers in many threads share the line.
    let is_right = |known: u64| known.abs_diff(pace) <= known / 4;
    if !recall(key).is_some_and(is_right) {
        slot(hash).store(tag(hash) << 32 | pace, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_recalled_with_its_pace() {
        let key = 0x5555_0000_1230;
        assert_eq!(recall(key), None);
        remember(key, 1500);
        assert_eq!(recall(key), Some(1500));
        remember(key, u64::MAX);
        assert_eq!(recall(key), Some(0xffff_ffff));
    }
}
