//! Which items are taken, and how many to take at once.
//!
//! One cursor over [0, n). A chunk is sized so that it takes about [`TARGET_NS`], by the time that the last chunks
//! took, and never more than a fraction of what is left, so that the last chunks are small and the workers end
//! together (guided self-scheduling, Polychronopoulos and Kuck 1987, with a time bound instead of a fixed one).

use crate::sync::{AtomicU64, AtomicUsize, Ordering};

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

/// What is left to claim, and how large the next chunk should be. It may lie in memory that processes share.
pub struct Claims {
    /// Moves once a chunk, so it may share a line with what is only read: padding would make the job cost more to
    /// allocate than it saves.
    cursor: AtomicUsize,
    /// Picoseconds an item, averaged over the last chunks; 0 while nothing is known. Advisory: lost updates only
    /// make a chunk a little larger or smaller.
    pace: AtomicU64,
    n_items: usize,
    n_jobs: usize,
    batch_size: usize,
}

impl Claims {
    /// `n_items` items for `n_jobs` workers, in chunks of `batch_size`; 0 is adaptive.
    pub fn new(n_items: usize, n_jobs: usize, batch_size: usize) -> Self {
        Claims { cursor: AtomicUsize::new(0), pace: AtomicU64::new(0), n_items, n_jobs, batch_size }
    }

    /// The next chunk, or `None` when all are taken.
    pub fn next(&self) -> Option<Chunk> {
        self.take(|left| self.size(left))
    }

    /// So many items, or all that are left.
    pub(super) fn next_of(&self, items: usize) -> Option<Chunk> {
        self.take(|left| items.clamp(1, left))
    }

    fn take(&self, size: impl Fn(usize) -> usize) -> Option<Chunk> {
        let mut begin = self.cursor.load(Ordering::Relaxed);
        loop {
            if begin >= self.n_items {
                return None;
            }
            let end = begin + size(self.n_items - begin);
            // Relaxed: the cursor orders nothing; the arrays were written before the workers were called.
            match self.cursor.compare_exchange_weak(begin, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Chunk { begin, end }),
                Err(now) => begin = now,
            }
        }
    }

    /// Whether all are taken.
    pub fn is_empty(&self) -> bool {
        self.cursor.load(Ordering::Relaxed) >= self.n_items
    }

    fn size(&self, left: usize) -> usize {
        let wanted = match (self.batch_size, self.pace.load(Ordering::Relaxed)) {
            (0, 0) => 1,
            (0, pace) => {
                usize::try_from(TARGET_NS * 1000 / pace).unwrap_or(usize::MAX).min(left / (2 * self.n_jobs))
            }
            (batch, _) => batch,
        };
        wanted.clamp(1, left)
    }

    /// Learns from a chunk that ran.
    pub fn took(&self, items: usize, nanoseconds: u64) {
        if self.batch_size != 0 || items == 0 {
            return;
        }
        let now = (nanoseconds.saturating_mul(1000) / items as u64).max(1);
        let old = self.pace.load(Ordering::Relaxed);
        self.pace.store(if old == 0 { now } else { (old + now) / 2 }, Ordering::Relaxed);
    }

    pub(super) fn is_adaptive(&self) -> bool {
        self.batch_size == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn sizes(claims: &Claims, pace: u64) -> Vec<usize> {
        std::iter::from_fn(|| {
            let chunk = claims.next()?;
            claims.took(chunk.end - chunk.begin, (chunk.end - chunk.begin) as u64 * pace);
            Some(chunk.end - chunk.begin)
        })
        .collect()
    }

    #[test]
    fn chunks_cover_every_item_once() {
        for n in [0, 1, 2, 3, 517, 10_000] {
            for batch in [0, 1, 7, 100_000] {
                let claims = Claims::new(n, 4, batch);
                let mut at = 0;
                while let Some(chunk) = claims.next() {
                    assert_eq!(chunk.begin, at);
                    assert!(chunk.end > chunk.begin);
                    claims.took(chunk.end - chunk.begin, 1000);
                    at = chunk.end;
                }
                assert_eq!(at, n);
            }
        }
    }

    // joblib batching_auto_subprocesses: the size grows for no-op tasks; 1.8 of the reference: and stays 1 for slow ones.
    #[test]
    fn tiny_items_go_in_large_chunks_and_slow_ones_alone() {
        assert!(*sizes(&Claims::new(1_000_000, 2, 0), 2).iter().max().unwrap() > 10_000);
        assert!(sizes(&Claims::new(100, 2, 0), 1_000_000).iter().all(|size| *size == 1));
    }

    #[test]
    fn the_last_chunks_are_small() {
        let sizes = sizes(&Claims::new(100_000, 8, 0), 10);
        assert_eq!(sizes.last(), Some(&1));
    }

    #[test]
    fn a_batch_size_is_kept() {
        assert_eq!(sizes(&Claims::new(10, 2, 4), 1), [4, 4, 2]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_each_item_is_claimed_once() {
        loom::model(|| {
            let claims = Arc::new(Claims::new(3, 2, 0));
            let claim_all = |claims: &Claims| {
                std::iter::from_fn(|| claims.next()).map(|c| c.end - c.begin).sum::<usize>()
            };
            let others = claims.clone();
            let other = loom::thread::spawn(move || claim_all(&others));
            let mine = claim_all(&claims);
            assert_eq!(mine + other.join().unwrap(), 3);
        });
    }
}
