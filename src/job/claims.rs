//! Which items are taken, and how many to take at once.
//!
//! Items lie in ranges, one for each seat once the job is [spread](Claims::spread); before, all are in the first. A worker
//! claims chunks from the front of its own range, and when that is empty steals half of another one from the back. So
//! workers meet only when they run out, and the same map called again gives the same items to the same seat.
//!
//! A range is one word, so a claim or a steal is one compare-and-swap, and an item belongs to whoever took it out of a
//! word. Only its owner fills an empty range, with what it stole; a word that comes to have the same value again stands
//! for the same items again, so an old look at it does no harm. While a thief has its loot in hand nobody else sees it:
//! others may leave the job then, which costs balance at most, since the thief works it off.
//!
//! A chunk takes about [`TARGET_NS`] by the time that the last chunks took, and never more than a part of what is left in its
//! range, so that others find something to steal (guided self-scheduling, Polychronopoulos and Kuck 1987, with a bound
//! in time).

use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;
use std::sync::OnceLock;

/// Items `begin..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// First index.
    pub begin: usize,
    /// One past the last.
    pub end: usize,
}

/// Time that a chunk should take: far above the cost of a claim (about 0.1 µs), far below what a person or a
/// progress bar notices.
const TARGET_NS: u64 = 50_000;
/// The same where a map has one worker, inside a task or in a process of its own: nobody waits for the end of a chunk, but for who
/// cancels the map around it. (On an EPYC a nested map of 1,000 items of 1 µs took 8 µs less than with chunks of 50 µs;
/// see `docs/threading.md`.)
const LONE_TARGET_NS: u64 = 200_000;
/// Such a chunk has so many times the items at most that were claimed before: the first ones may have been quicker than the rest.
const LONE_GROWTH: usize = 8;
/// A thief looks at so many neighbours at a time and takes from the fullest: near in number is near in the machine where
/// workers are pinned, and one who has run out does not read the lines of all others.
const NEIGHBOURS: usize = 16;

/// Writes what is not there yet: a line of the cache that nobody has written stays with those who read it.
pub(super) fn update<T: PartialEq>(place: &mut T, value: T) {
    if *place != value {
        *place = value;
    }
}

/// Items that take so many nanoseconds, at so many picoseconds each.
fn items_in(nanoseconds: u64, pace: u64) -> usize {
    usize::try_from(nanoseconds * 1000 / pace).unwrap_or(usize::MAX)
}

/// Units `begin..end` in one word: the end above, the begin below.
struct Range(AtomicU64);

impl Range {
    fn new(begin: u64, end: u64) -> Self {
        Range(AtomicU64::new(end << 32 | begin))
    }

    fn of(word: u64) -> (u64, u64) {
        (word & 0xffff_ffff, word >> 32)
    }

    fn left(&self) -> u64 {
        let (begin, end) = Range::of(self.0.load(Ordering::Relaxed));
        end.saturating_sub(begin)
    }

    /// Takes the units that `split` says: it is given what is left and returns what to leave.
    fn take(&self, split: impl Fn(u64, u64) -> (u64, u64)) -> Option<((u64, u64), (u64, u64))> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (begin, end) = Range::of(word);
            if begin >= end {
                return None;
            }
            let (new_begin, new_end) = split(begin, end);
            // Relaxed: ranges order nothing; the arrays were written before the workers were called.
            let new = new_end << 32 | new_begin;
            match self.0.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(((begin, end), (new_begin, new_end))),
                Err(now) => word = now,
            }
        }
    }

    /// By the owner of an empty range, or of a job that nobody else is in yet.
    fn fill(&self, begin: u64, end: u64) {
        self.0.store(end << 32 | begin, Ordering::Relaxed);
    }
}

/// What is left to claim, and how large the next chunk should be. It may lie in memory that processes share, as long as it is
/// not spread. Fields up to `first` change seldom while a job runs: see the lines of `Job`.
#[repr(C)]
pub struct Claims {
    n_items: usize,
    batch_size: usize,
    /// The ranges of the other seats, made when first needed.
    others: OnceLock<Box<[CachePadded<Range>]>>,
    /// Picoseconds an item, averaged over the last chunks; 0 while nothing is known. Advisory: lost updates only
    /// make a chunk a little larger or smaller.
    pace: AtomicU64,
    n_jobs: u32,
    /// Ranges count in units of `1 << unit` items, so that any number of items fits.
    unit: u8,
    /// Written by a thread that is alone in the job, as those ranges are.
    is_spread: AtomicBool,
    first: Range,
}

impl Claims {
    /// Where that begins which changes.
    #[cfg(all(target_pointer_width = "64", not(loom)))]
    pub(super) const FIRST: usize = std::mem::offset_of!(Claims, first);

    /// `n_items` items for `n_jobs` workers, in chunks of `batch_size`; 0 is adaptive.
    pub fn new(n_items: usize, n_jobs: usize, batch_size: usize) -> Self {
        let unit = usize::BITS.saturating_sub(n_items.leading_zeros()).saturating_sub(31) as u8;
        Claims {
            first: Range::new(0, n_items.div_ceil(1 << unit) as u64),
            others: OnceLock::new(),
            is_spread: AtomicBool::new(false),
            pace: AtomicU64::new(0),
            n_items,
            n_jobs: u32::try_from(n_jobs).unwrap_or(u32::MAX),
            batch_size,
            unit,
        }
    }

    /// The same for other items, once the job is over. What it does not change is not written, see [`Job`](super::Job).
    pub(super) fn renew(&mut self, n_items: usize, batch_size: usize) {
        let Claims { unit, first, .. } = Claims::new(n_items, self.n_jobs as usize, batch_size);
        update(&mut self.n_items, n_items);
        update(&mut self.batch_size, batch_size);
        update(&mut self.unit, unit);
        if self.pace.load(Ordering::Relaxed) != 0 {
            self.pace.store(0, Ordering::Relaxed);
        }
        if self.is_spread.load(Ordering::Relaxed) {
            self.is_spread.store(false, Ordering::Relaxed);
        }
        self.first = first;
    }

    /// Leaves the first items only, by the only thread that is in the job so far. There are few: a unit is one.
    pub(super) fn keep_first(&self, items: usize) {
        self.first.fill(0, items as u64);
    }

    /// Gives each seat a part, by the only thread that is in the job so far. Not where the order in which items begin was
    /// asked for: a batch size.
    pub(super) fn spread(&self) {
        let (begin, end) = Range::of(self.first.0.load(Ordering::Relaxed));
        let seats = self.n_jobs as u64;
        if self.batch_size != 0 || seats < 2 || end - begin < seats {
            return;
        }
        let edge = |seat: u64| begin + ((end - begin) as u128 * seat as u128 / seats as u128) as u64;
        let others =
            self.others.get_or_init(|| (1..seats).map(|_| CachePadded::new(Range::new(0, 0))).collect());
        for (seat, range) in (1..seats).zip(others) {
            range.fill(edge(seat), edge(seat + 1));
        }
        self.first.fill(begin, edge(1));
        self.is_spread.store(true, Ordering::Relaxed);
    }

    /// The other seats' ranges, where there is something in them.
    fn others(&self) -> &[CachePadded<Range>] {
        let others = if self.is_spread.load(Ordering::Relaxed) { self.others.get() } else { None };
        others.map_or(&[], |others| others)
    }

    /// The next chunk for a seat, or `None` when all are taken. `stolen` hears whose it was, if not the seat's own.
    pub fn next(&self, seat: usize, stolen: impl FnOnce(usize)) -> Option<Chunk> {
        let own = if seat == 0 { Some(&self.first) } else { self.other(seat) };
        let own = own.unwrap_or(&self.first);
        self.take_front(own, |left| self.size(left)).or_else(|| self.steal(seat, own, stolen))
    }

    /// So many items from the front, or all that are left, for the only thread that is in the job so far.
    pub(super) fn next_alone(&self, items: usize) -> Option<Chunk> {
        let (begin, end) = Range::of(self.first.0.load(Ordering::Relaxed));
        let middle = end.min(begin.saturating_add(self.units(items)));
        self.first.fill(middle, end);
        (begin < end).then(|| self.chunk(begin, middle))
    }

    /// The next chunk, for the only worker of a job.
    pub(super) fn next_lone(&self) -> Option<Chunk> {
        let left = self.items(self.first.left());
        if left == 0 { None } else { self.next_alone(self.size(left)) }
    }

    /// So many items from the front, or all that are left, of a job that is not spread.
    pub(super) fn next_sized(&self, items: usize) -> Option<Chunk> {
        self.take_front(&self.first, |left| left.min(items.max(1)))
    }

    fn other(&self, seat: usize) -> Option<&Range> {
        self.others().get(seat.checked_sub(1)?).map(|range| &**range)
    }

    fn take_front(&self, range: &Range, size: impl Fn(usize) -> usize) -> Option<Chunk> {
        let ((begin, _), (end, _)) = range.take(|begin, end| {
            let items = size(self.items(end - begin));
            (end.min(begin + self.units(items)), end)
        })?;
        Some(self.chunk(begin, end))
    }

    /// Steals the back half of the fullest range in the nearest neighbourhood that has something, keeps it as its own, and
    /// claims from that.
    fn steal(&self, seat: usize, own: &Range, stolen: impl FnOnce(usize)) -> Option<Chunk> {
        let seats = self.others().len() + 1;
        let victim = |step: usize| {
            let number = (seat + step) % seats;
            Some((number, self.seat_range(number)?))
        };
        let mut step = 1;
        while step < seats {
            let near = step..seats.min(step + NEIGHBOURS);
            let fullest = near.clone().rev().filter_map(victim).max_by_key(|(_, range)| range.left());
            let Some((number, range)) = fullest.filter(|(_, range)| range.left() > 0) else {
                step = near.end;
                continue;
            };
            // Lost to another thief: look again.
            let Some(((_, end), (_, middle))) = range.take(|begin, end| (begin, begin + (end - begin) / 2))
            else {
                continue;
            };
            let claimed = (end - middle).min(self.units(self.size(self.items(end - middle))));
            own.fill(middle + claimed, end);
            stolen(number);
            return Some(self.chunk(middle, middle + claimed));
        }
        None
    }

    fn seat_range(&self, seat: usize) -> Option<&Range> {
        if seat == 0 { Some(&self.first) } else { self.other(seat) }
    }

    fn chunk(&self, begin: u64, end: u64) -> Chunk {
        let item = |unit: u64| ((u128::from(unit) << self.unit).min(self.n_items as u128)) as usize;
        Chunk { begin: item(begin), end: item(end) }
    }

    fn items(&self, units: u64) -> usize {
        usize::try_from(units).map_or(usize::MAX, |units| units.saturating_mul(1 << self.unit))
    }

    fn units(&self, items: usize) -> u64 {
        items.div_ceil(1 << self.unit) as u64
    }

    /// Whether all are taken, as far as one can see.
    pub fn is_empty(&self) -> bool {
        self.first.left() == 0 && self.others().iter().all(|range| range.left() == 0)
    }

    fn size(&self, left: usize) -> usize {
        let wanted = match (self.batch_size, self.pace.load(Ordering::Relaxed)) {
            (0, 0) => 1,
            (0, pace) if self.n_jobs == 1 => {
                let claimed = self.n_items.saturating_sub(left);
                items_in(LONE_TARGET_NS, pace).min(claimed.saturating_mul(LONE_GROWTH))
            }
            (0, pace) => {
                // What is left is one seat's where the job is spread, and everybody's where it is not.
                let sharers = if self.others().is_empty() { self.n_jobs as usize } else { 1 };
                items_in(TARGET_NS, pace).min(left / (2 * sharers))
            }
            (batch, _) => batch,
        };
        wanted.clamp(1, left)
    }

    /// Learns from a chunk that ran. Written only where it changes by a sixteenth or more: all workers read it for each chunk.
    pub fn took(&self, items: usize, nanoseconds: u64) {
        if self.batch_size != 0 || items == 0 {
            return;
        }
        let now = (nanoseconds.saturating_mul(1000) / items as u64).max(1);
        let old = self.pace.load(Ordering::Relaxed);
        let pace = if old == 0 { now } else { old.midpoint(now) };
        if pace.abs_diff(old) >= old.div_ceil(16) {
            self.pace.store(pace, Ordering::Relaxed);
        }
    }

    /// Picoseconds an item; 0 while nothing is known.
    pub(super) fn pace(&self) -> u64 {
        self.pace.load(Ordering::Relaxed)
    }

    pub(super) fn is_adaptive(&self) -> bool {
        self.batch_size == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The sizes of the chunks that seats get in turn, where an item takes so many nanoseconds.
    fn sizes(claims: &Claims, pace: u64) -> Vec<usize> {
        (0..)
            .map_while(|turn| {
                let chunk = claims.next(turn % claims.n_jobs as usize, |_| {})?;
                claims.took(chunk.end - chunk.begin, (chunk.end - chunk.begin) as u64 * pace);
                Some(chunk.end - chunk.begin)
            })
            .collect()
    }

    #[test]
    fn unspread_chunks_cover_every_item_once_in_order() {
        for n in [0, 1, 2, 3, 517, 10_000] {
            for batch in [0, 1, 7, 100_000] {
                let claims = Claims::new(n, 4, batch);
                let mut at = 0;
                while let Some(chunk) = claims.next(3, |_| {}) {
                    assert_eq!(chunk.begin, at);
                    assert!(chunk.end > chunk.begin);
                    claims.took(chunk.end - chunk.begin, 1000);
                    at = chunk.end;
                }
                assert_eq!(at, n);
            }
        }
    }

    /// Seats claim as `turns` says; whoever finds nothing has left.
    fn claim_all(claims: &Claims, turns: impl Fn(usize) -> usize) -> Vec<usize> {
        let mut claimed = vec![0; claims.n_items];
        for turn in 0.. {
            let Some(chunk) = claims.next(turns(turn), |_| {}) else { break };
            claimed[chunk.begin..chunk.end].iter_mut().for_each(|times| *times += 1);
            claims.took(chunk.end - chunk.begin, 1000 * (chunk.end - chunk.begin) as u64);
        }
        claimed
    }

    #[test]
    fn spread_chunks_cover_every_item_once_whoever_claims() {
        for n in [1, 2, 3, 517, 10_000] {
            for seats in [1, 2, 3, 40] {
                for turns in [|_| 0, |turn| turn, |turn| turn * turn / 3] {
                    let claims = Claims::new(n, seats, 0);
                    claims.spread();
                    assert_eq!(claim_all(&claims, |turn| turns(turn) % seats), vec![1; n], "{n} on {seats}");
                    assert!(claims.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_seat_begins_with_its_own_part_and_a_thief_with_the_back_half_of_the_fullest() {
        let claims = Claims::new(90, 3, 0);
        claims.spread();
        let begins: Vec<_> = (0..3).map(|seat| claims.next(seat, |_| {}).unwrap().begin).collect();
        assert_eq!(begins, [0, 30, 60]);
        while claims.first.left() > 0 {
            claims.next(0, |_| {});
        }
        assert_eq!(claims.next(0, |_| {}), Some(Chunk { begin: 45, end: 46 }));
    }

    #[test]
    fn any_number_of_items_fits() {
        for n in [u32::MAX as usize, 1 << 32, (1 << 40) + 1, usize::MAX] {
            let claims = Claims::new(n, 2, 0);
            claims.spread();
            let last = claims.others()[0].take(|begin, _| (begin, begin)).unwrap();
            let (first, last) = (claims.next(0, |_| {}).unwrap(), claims.chunk(last.1.1, last.0.1));
            assert_eq!(first.begin, 0);
            assert_eq!(last.end, n);
            assert!(last.begin.abs_diff(n / 2) <= 1 << claims.unit);
        }
    }

    // joblib batching_auto_subprocesses: the size grows for no-op tasks; 1.8 of the reference: and stays 1 for slow ones.
    #[test]
    fn tiny_items_go_in_large_chunks_and_slow_ones_alone() {
        assert!(*sizes(&Claims::new(1_000_000, 2, 0), 2).iter().max().unwrap() > 10_000);
        assert!(sizes(&Claims::new(100, 2, 0), 1_000_000).iter().all(|size| *size == 1));
    }

    #[test]
    fn one_worker_takes_longer_chunks_after_shorter_ones() {
        assert_eq!(sizes(&Claims::new(1000, 1, 0), 1000), [1, 8, 72, 200, 200, 200, 200, 119]);
    }

    #[test]
    fn a_pace_that_stays_about_the_same_is_not_written_again() {
        let claims = Claims::new(100, 2, 0);
        let after = |nanoseconds| {
            claims.took(10, nanoseconds);
            claims.pace()
        };
        assert_eq!([10_000, 11_000, 9_000, 14_000].map(after), [1_000_000, 1_000_000, 1_000_000, 1_200_000]);
    }

    #[test]
    fn the_last_chunks_are_small() {
        let sizes = sizes(&Claims::new(100_000, 8, 0), 1000);
        assert_eq!(sizes.last(), Some(&1));
    }

    #[test]
    fn a_batch_size_is_kept() {
        let claims = Claims::new(10, 2, 4);
        claims.spread();
        assert_eq!(sizes(&claims, 1), [4, 4, 2]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// Owners, and thieves of what thieves stole: two seats with two items each.
    #[test]
    fn loom_each_item_is_claimed_once() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let claims = Arc::new(Claims::new(4, 2, 0));
            claims.spread();
            let claim_all = |claims: &Claims, seat| {
                std::iter::from_fn(|| claims.next(seat, |_| {}))
                    .map(|chunk| chunk.end - chunk.begin)
                    .sum::<usize>()
            };
            let others = claims.clone();
            let other = loom::thread::spawn(move || claim_all(&others, 1));
            let mine = claim_all(&claims, 0);
            assert_eq!(mine + other.join().unwrap(), 4);
        });
    }
}
