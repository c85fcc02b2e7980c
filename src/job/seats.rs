//! Seats for workers: a job of `n` workers has `n` seats, so never more than `n` threads run its items, whatever the
//! backend does. A seat's number is the worker index that a task sees.

use crate::sync::{AtomicU64, Ordering};

#[repr(C)]
pub(super) struct Seats {
    /// A bit for each seat; set while it is taken.
    first: AtomicU64,
    /// For maps of more than 64 workers.
    more: Box<[AtomicU64]>,
    count: usize,
}

impl Seats {
    pub(super) fn new(count: usize) -> Self {
        let more = (1..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Seats { first: AtomicU64::new(0), more, count }
    }

    /// Takes a seat: that of the wished number if it is free, else the lowest that is.
    pub(super) fn take(&self, wish: usize) -> Option<usize> {
        let wish = wish % self.count;
        if wish < 64 {
            let bit = 1 << wish;
            let seen = self.first.load(Ordering::Relaxed);
            let taken =
                |seen| self.first.compare_exchange(seen, seen | bit, Ordering::Acquire, Ordering::Relaxed);
            if seen & bit == 0 && taken(seen).is_ok() {
                return Some(wish);
            }
        }
        for (word, bits) in std::iter::once(&self.first).chain(&self.more).enumerate() {
            let mut seen = bits.load(Ordering::Relaxed);
            while seen != u64::MAX {
                let free = seen.trailing_ones() as usize;
                if word * 64 + free >= self.count {
                    return None;
                }
                // Acquire: what the seat's last holder wrote is visible to this one.
                match bits.compare_exchange_weak(seen, seen | 1 << free, Ordering::Acquire, Ordering::Relaxed)
                {
                    Ok(_) => return Some(word * 64 + free),
                    Err(now) => seen = now,
                }
            }
        }
        None
    }

    /// Takes the first seat, by the only thread that is in the job so far: without the price of a locked instruction.
    pub(super) fn take_alone(&self) -> usize {
        self.first.store(1, Ordering::Relaxed);
        0
    }

    /// Takes all seats from that number on, by the only thread that is in the job: their holders are known.
    pub(super) fn keep_from(&self, first: usize) {
        self.first.store(u64::MAX.checked_shl(first as u32).unwrap_or(0), Ordering::Relaxed);
    }

    /// All are free again, once the job is over.
    pub(super) fn renew(&self) {
        if self.first.load(Ordering::Relaxed) != 0 {
            self.first.store(0, Ordering::Relaxed);
        }
    }

    /// Gives it back before others have been asked to come.
    pub(super) fn give_back_alone(&self) {
        self.first.store(0, Ordering::Relaxed);
    }

    /// Gives a seat back.
    pub(super) fn give_back(&self, seat: usize) {
        let bits = if seat < 64 { &self.first } else { &self.more[seat / 64 - 1] };
        bits.fetch_and(!(1 << (seat % 64)), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn there_are_exactly_as_many_as_workers() {
        for count in [1, 2, 63, 64, 65, 130] {
            let seats = Seats::new(count);
            assert_eq!(
                (0..count).map(|_| seats.take(0).unwrap()).collect::<Vec<_>>(),
                (0..count).collect::<Vec<_>>()
            );
            assert_eq!(seats.take(0), None);
            seats.give_back(count / 2);
            assert_eq!(seats.take(count - 1), Some(count / 2));
        }
    }

    #[test]
    fn a_wish_is_granted_while_it_can_be() {
        let seats = Seats::new(4);
        assert_eq!(
            [seats.take(2), seats.take(2), seats.take(7), seats.take(2)],
            [Some(2), Some(0), Some(3), Some(1)]
        );
        assert_eq!(seats.take(0), None);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicUsize;
    use loom::sync::Arc;

    /// The count is read and written apart, without an ordering of its own: it comes out right only if one thread at a
    /// time is on the seat, and sees what the last one left there.
    #[test]
    fn loom_a_seat_has_one_holder_and_hands_over_what_it_wrote() {
        loom::model(|| {
            let seats = Arc::new(Seats::new(1));
            let scratch = Arc::new(AtomicUsize::new(0));
            let sit = |seats: &Seats, scratch: &AtomicUsize| {
                let Some(seat) = seats.take(0) else { return 0 };
                scratch.store(scratch.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                seats.give_back(seat);
                1
            };
            let (others, place) = (seats.clone(), scratch.clone());
            let other = loom::thread::spawn(move || sit(&others, &place));
            let sat = sit(&seats, &scratch) + other.join().unwrap();
            assert_eq!(scratch.load(Ordering::Relaxed), sat);
        });
    }
}
