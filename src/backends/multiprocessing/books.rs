//! Which items are accounted for: ranges that grow together, so that gaps are what was claimed and lost.

use crate::job::Chunk;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Books {
    /// Begin to end; no two touch.
    ranges: BTreeMap<usize, usize>,
}

impl Books {
    /// Enters a chunk; the parts of it that are new.
    pub fn enter(&mut self, chunk: Chunk) -> Vec<Chunk> {
        let Chunk { begin, end } = chunk;
        if begin >= end {
            return Vec::new();
        }
        let (mut fresh, mut from) = (Vec::new(), begin);
        let (mut low, mut high) = (begin, end);
        // All ranges that overlap or touch the chunk lie before its end; the first of them may begin before it.
        let first = self.ranges.range(..=begin).next_back().filter(|(_, reach)| **reach >= begin);
        let first = first.map_or(begin, |(start, _)| *start);
        let met: Vec<_> = self.ranges.range(first..=end).map(|(start, reach)| (*start, *reach)).collect();
        for (start, reach) in met {
            if start > from {
                fresh.push(Chunk { begin: from, end: start });
            }
            from = from.max(reach);
            (low, high) = (low.min(start), high.max(reach));
            self.ranges.remove(&start);
        }
        if from < end {
            fresh.push(Chunk { begin: from, end });
        }
        self.ranges.insert(low, high);
        fresh
    }

    /// What is in.
    pub fn ranges(&self) -> impl Iterator<Item = Chunk> {
        self.ranges.iter().map(|(begin, end)| Chunk { begin: *begin, end: *end })
    }

    /// What is missing below `n_items`.
    pub fn gaps(&self, n_items: usize) -> Vec<Chunk> {
        let mut from = 0;
        let mut gaps = Vec::new();
        for Chunk { begin, end } in self.ranges().chain([Chunk { begin: n_items, end: n_items }]) {
            if begin > from {
                gaps.push(Chunk { begin: from, end: begin });
            }
            from = end;
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(pairs: &[(usize, usize)]) -> Vec<Chunk> {
        pairs.iter().map(|(begin, end)| Chunk { begin: *begin, end: *end }).collect()
    }

    #[test]
    fn what_is_entered_is_in_and_the_rest_are_gaps() {
        let mut books = Books::default();
        let mut enter = |begin, end| books.enter(Chunk { begin, end });
        assert_eq!(enter(5, 10), chunks(&[(5, 10)]));
        assert_eq!(enter(20, 30), chunks(&[(20, 30)]));
        assert_eq!(enter(7, 25), chunks(&[(10, 20)]));
        assert_eq!(enter(0, 2), chunks(&[(0, 2)]));
        assert_eq!(enter(30, 31), chunks(&[(30, 31)]));
        assert_eq!(enter(1, 6), chunks(&[(2, 5)]));
        assert_eq!(enter(3, 3), chunks(&[]));
        assert_eq!(enter(0, 31), chunks(&[]));
        assert_eq!(enter(40, 41), chunks(&[(40, 41)]));
        assert_eq!(books.ranges().collect::<Vec<_>>(), chunks(&[(0, 31), (40, 41)]));
        assert_eq!(books.gaps(50), chunks(&[(31, 40), (41, 50)]));
        assert_eq!(books.gaps(41), chunks(&[(31, 40)]));
        assert_eq!(Books::default().gaps(0), chunks(&[]));
    }

    /// Against a list of flags, for chunks of a fixed pseudo-random sequence.
    #[test]
    fn any_order_comes_to_the_same() {
        let (mut books, mut flags, mut seed) = (Books::default(), [false; 200], 7_u32);
        for _ in 0..300 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let begin = (seed >> 16) as usize % 190;
            let chunk = Chunk { begin, end: begin + (seed >> 8) as usize % 10 };
            for fresh in books.enter(chunk) {
                let fresh = &mut flags[fresh.begin..fresh.end];
                assert!(fresh.iter().all(|flag| !flag), "entered twice");
                fresh.fill(true);
            }
            assert!((chunk.begin..chunk.end).all(|index| flags[index]));
            let count: usize = books.ranges().map(|chunk| chunk.end - chunk.begin).sum();
            assert_eq!(count, flags.iter().filter(|flag| **flag).count());
        }
    }
}
