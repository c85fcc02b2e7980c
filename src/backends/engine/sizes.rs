//! How many items go into a chunk, and how many chunks are on their way.
//!
//! An engine spends `slot_cost` on each task, on one scheduler for all its slots. So with `W` slots a chunk should take
//! `T = max(least, 5 W slot_cost)`: then the scheduler is busy for a fifth of the time. A map begins with single items, one a
//! slot; from then on a chunk has what takes `T` at the pace of the last ones, but at most eight times the items of the largest
//! that has come back, since the first items may not be like the others. Towards the end chunks get smaller, so that slots end
//! together: at most what is left divided by `2 W` (guided self-scheduling, Polychronopoulos and Kuck 1987), but not so small
//! that the scheduler would be the one that everybody waits for.
//!
//! While chunks still grow, one a slot is on its way, and no more are sent than the scheduler can have taken by now, and what
//! it takes in `least`: those that waited would be of yesterday's size.
//!
//! Afterwards two chunks a slot, and two more, are on their way: while one runs the next one waits beside it, and what is sent
//! goes in groups, for each message has its price. Where the map may use fewer workers than there are slots, exactly that many
//! are: no other way keeps the engine from running more at once. Where it asks for more than there are, so many are that a
//! cluster that adapts sees work for them, and grows.

use super::frames::Ready;

/// How many times more items a chunk may have than the largest before. A scheduler spends milliseconds on each of the small
/// ones: with 2, and chunks of 0.1 s at least, a map of 100,000 items of 0.1 ms on two slots of Dask took 1.18 times the best size's
/// time, with 8 and 0.5 s 1.02 to 1.04 times (`make bench-engines`).
const GROWTH: usize = 8;
/// How much of the time a scheduler may be busy: one part in so many.
const SHARE: f64 = 5.0;
/// The most chunks that wait for each other to be sent. A message costs Dask's scheduler about what a task in it costs: 200
/// tasks of 50 ms on two slots took 1.10 times the engine's own time one by one, 1.08 in twos.
const GROUP_MOST: usize = 16;
/// Chunks on their way for each worker that is wanted and not there. Dask's scheduler asks for a worker more for every 5 s of
/// work that wait (`target_duration` of `Adaptive`), and these are chunks of half a second and more.
const BACKLOG: usize = 12;
/// The weight of what was measured before, against the last chunk's.
const MEMORY: f64 = 0.8;
/// The shortest chunk at the end of a map, as a part of `least`.
const LAST: f64 = 1.0 / 16.0;

/// Chunks that run at once, or should: with `slots` slots, where so many workers are `wanted` (0: all that there are).
pub fn width(slots: usize, wanted: usize) -> usize {
    if wanted > 0 { wanted } else { slots.max(1) }
}

/// Chunks that may be on their way, with `slots` slots, where so many workers are `wanted` (0: all that there are).
pub fn window(slots: usize, wanted: usize) -> usize {
    match wanted {
        0 => 2 * slots.max(1) + 2,
        wanted if wanted < slots => wanted,
        wanted if wanted == slots => 2 * slots + 2,
        wanted => wanted.saturating_mul(BACKLOG),
    }
}

/// Chunks that are sent together, once there is room for them in the window. Enough are on their way meanwhile that each of
/// `width` slots has one, and half of them the next.
pub fn group(window: usize, width: usize) -> usize {
    (window.saturating_sub(width) / 2).clamp(1, GROUP_MOST)
}

/// The most bytes of one chunk, where `window` of them are on their way.
pub fn most_bytes(ready: &Ready, window: usize) -> u64 {
    ready.chunk_bytes.min(ready.credit / window.max(1) as u64)
}

/// The sizes of a map's chunks.
#[derive(Clone, Debug)]
pub struct Sizes {
    slot_cost: f64,
    least: f64,
    /// What the caller has fixed; 0 for nothing.
    batch: usize,
    /// Seconds and items, the newer ones counting for more.
    seconds: f64,
    items: f64,
    /// The most items that one chunk has brought back.
    largest: usize,
}

impl Sizes {
    /// For a map on an engine. `batch` is the caller's own size of chunks, 0 for none.
    pub fn new(ready: &Ready, batch: usize) -> Sizes {
        Sizes { slot_cost: ready.slot_cost, least: ready.least, batch, seconds: 0.0, items: 0.0, largest: 0 }
    }

    /// Learns from a chunk that has come back.
    pub fn took(&mut self, items: usize, seconds: f64) {
        if items > 0 {
            self.seconds = self.seconds * MEMORY + seconds.max(1e-9);
            self.items = self.items * MEMORY + items as f64;
            self.largest = self.largest.max(items);
        }
    }

    /// Whether nothing is known yet.
    fn is_probing(&self) -> bool {
        self.batch == 0 && self.largest == 0
    }

    /// The most items of a chunk, after those that have come back.
    fn most(&self) -> usize {
        self.largest.saturating_mul(GROWTH)
    }

    /// Whether the next chunk is small for want of knowledge.
    fn is_growing(&self, width: usize) -> bool {
        self.is_probing() || (self.batch == 0 && self.in_time(self.target(width)) > self.most())
    }

    /// Whether a chunk may be sent now, `elapsed` seconds after the first one, where `width` run at once: `on_their_way` of the
    /// `sent` ones are on their way, of `window` that may be.
    pub fn may_send(
        &self,
        on_their_way: usize,
        sent: usize,
        window: usize,
        elapsed: f64,
        width: usize,
    ) -> bool {
        if on_their_way == 0 || !self.is_growing(width) {
            return on_their_way < window;
        }
        on_their_way < width.min(window) && sent <= ((elapsed + self.least) / self.slot_cost) as usize
    }

    /// Items that take so many seconds.
    fn in_time(&self, seconds: f64) -> usize {
        (seconds * self.items / self.seconds) as usize
    }

    /// Seconds that a chunk should take where `width` run at once.
    pub fn target(&self, width: usize) -> f64 {
        self.least.max(SHARE * self.slot_cost * width as f64)
    }

    /// Items of the next chunk, of `left` that are left, where `width` chunks run at once.
    pub fn next(&self, left: usize, width: usize) -> usize {
        if self.batch > 0 || self.is_probing() {
            return self.batch.max(1);
        }
        let shortest = (self.least * LAST).max(self.slot_cost * width as f64);
        let fair = (left / (2 * width.max(1))).max(self.in_time(shortest));
        self.in_time(self.target(width)).min(fair).clamp(1, self.most())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            engine: "dask".into(),
            engine_version: String::new(),
            python: String::new(),
            slots: 4,
            slot_cost: 0.0005,
            least: 0.2,
            chunk_bytes: 8 << 20,
            credit: 64 << 20,
        }
    }

    /// Sizes at a pace, after many chunks have come back in turn.
    fn learned(pace: f64, width: usize) -> Sizes {
        let mut sizes = Sizes::new(&ready(), 0);
        for _ in 0..70 {
            let items = sizes.next(usize::MAX, width);
            sizes.took(items, items as f64 * pace);
        }
        sizes
    }

    #[test]
    fn a_map_begins_with_single_items_and_grows_fast() {
        let mut sizes = Sizes::new(&ready(), 0);
        let mut seen = Vec::new();
        for _ in 0..6 {
            let items = sizes.next(1_000_000, 4);
            seen.push(items);
            sizes.took(items, items as f64 * 1e-5);
        }
        assert_eq!(seen, [1, 8, 64, 512, 4096, 20_000]);
    }

    #[test]
    fn chunks_take_the_shortest_sensible_time() {
        assert!((1990..=2000).contains(&learned(1e-4, 4).next(10_000_000, 4)));
        assert_eq!(learned(10.0, 4).next(10_000_000, 4), 1);
    }

    #[test]
    fn many_slots_need_longer_chunks() {
        let sizes = learned(1e-3, 10_000);
        assert_eq!(sizes.target(4), 0.2);
        assert_eq!(sizes.target(400), 1.0);
        assert!((990..=1000).contains(&sizes.next(usize::MAX, 400)));
        assert!((24_900..=25_000).contains(&sizes.next(usize::MAX, 10_000)));
    }

    #[test]
    fn the_last_chunks_are_smaller_but_not_tiny() {
        let sizes = learned(1e-4, 4);
        assert_eq!(sizes.next(8000, 4), 1000);
        // 1/16 of the shortest sensible time: 12.5 ms of items.
        assert!((120..=125).contains(&sizes.next(8, 4)));
        // Where many wait for one scheduler, what it can just serve.
        assert!((4_950..=5_000).contains(&learned(1e-3, 10_000).next(8, 10_000)));
    }

    #[test]
    fn growing_chunks_do_not_queue_up() {
        let mut sizes = Sizes::new(&ready(), 0);
        let most = |sizes: &Sizes, elapsed, width| {
            let mut sent = 0;
            while sent < 1_000_000 && sizes.may_send(sent, sent, 1_000_000, elapsed, width) {
                sent += 1;
            }
            sent
        };
        assert_eq!(most(&sizes, 0.0, 10_000), 401);
        assert_eq!(most(&sizes, 1.0, 10_000), 2401);
        assert_eq!(most(&sizes, 1.0, 100), 100);
        sizes.took(1, 0.001);
        assert_eq!(most(&sizes, 1.0, 10_000), 2401);
        assert_eq!(most(&sizes, 1.0, 4), 4);
        assert_eq!(most(&learned(1e-3, 10_000), 0.0, 10_000), 1_000_000);
        assert_eq!(most(&Sizes::new(&ready(), 3), 0.0, 4), 1_000_000);
    }

    #[test]
    fn a_batch_size_is_kept() {
        let mut sizes = Sizes::new(&ready(), 7);
        assert_eq!((sizes.next(100, 4), sizes.is_probing()), (7, false));
        sizes.took(7, 100.0);
        assert_eq!(sizes.next(100, 4), 7);
    }

    #[test]
    fn items_that_take_no_time_do_no_harm() {
        let sizes = learned(0.0, 4);
        assert!(sizes.next(usize::MAX, 4) >= 1 << 30);
    }

    #[test]
    fn the_window_is_two_a_slot_or_what_the_caller_allows() {
        assert_eq!((width(4, 0), window(4, 0)), (4, 10));
        assert_eq!((width(4, 4), window(4, 4)), (4, 10));
        assert_eq!((width(4, 3), window(4, 3)), (3, 3));
        assert_eq!((width(0, 0), window(0, 0)), (1, 4));
    }

    #[test]
    fn more_workers_than_there_are_get_their_work_too() {
        assert_eq!((width(4, 8), window(4, 8)), (8, 96));
        assert_eq!(window(0, usize::MAX), usize::MAX);
    }

    #[test]
    fn chunks_are_sent_in_groups_but_no_slot_waits_for_that() {
        assert_eq!(group(window(2, 0), 2), 2);
        assert_eq!(group(window(1, 0), 1), 1);
        assert_eq!(group(window(1000, 0), 1000), 16);
        // Exactly as many as may run: each is missed.
        assert_eq!(group(window(4, 3), 3), 1);
    }

    #[test]
    fn bytes_on_their_way_are_shared_by_the_window() {
        assert_eq!(most_bytes(&ready(), 4), 8 << 20);
        assert_eq!(most_bytes(&ready(), 64), 1 << 20);
    }
}
