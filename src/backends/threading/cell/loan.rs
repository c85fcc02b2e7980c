//! One errand for many threads: those that are idle, awake or asleep, and those that will be.

use super::{ASLEEP, Errand, Gate, IDLE, Leave, Lender, SLEPT, Visit};
use crate::backends::threading::slots::Slots;
use crate::cpu::ticks;
use crate::sync::{AtomicUsize, Ordering};
use crate::trace::{self, What};

/// An errand on the board, for threads that become idle after it was lent.
pub(in crate::backends::threading) struct Late {
    address: usize,
    places: usize,
    began: u32,
}

impl Late {
    /// Begins a visit if a place is left. Under the board's lock, as is the caller's taking it down
    /// (`Board::take_down`): who began is counted.
    pub(in crate::backends::threading) fn begin(&mut self) -> Option<Visit> {
        self.places = self.places.checked_sub(1)?;
        self.began += 1;
        // SAFETY: `lend` takes this down before it counts who began.
        Some(unsafe { Visit::begin(self.address) })
    }

    pub(in crate::backends::threading) fn places(&self) -> usize {
        self.places
    }
}

/// Who took part in a call besides its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backends::threading) enum Visits {
    /// Nobody: the caller did everything.
    None,
    /// Pool threads, and all have left.
    Some,
    /// Pool threads, who will not leave: this is a forked child.
    Abandoned,
}

impl Visits {
    /// Of two parts of a call.
    pub(in crate::backends::threading) fn and(self, other: Visits) -> Visits {
        match (self, other) {
            (Visits::Abandoned, _) | (_, Visits::Abandoned) => Visits::Abandoned,
            (Visits::None, Visits::None) => Visits::None,
            _ => Visits::Some,
        }
    }
}

/// Lends `work` to up to `places` threads while `body` runs. Each thread runs it once, with its slot's number.
pub(in crate::backends::threading) fn lend<P: Lender + Sync>(
    pool: &P,
    places: usize,
    work: impl Fn(usize) + Sync,
    body: impl FnOnce(),
) -> Visits {
    let lent = Lent::new(pool.slots(), work);
    let mut loan = Loan {
        pool,
        errand: lent.errand(),
        gate: &lent.gate,
        wake: &lent.wake,
        posted: Default::default(),
        late: false,
        forks: pool.forks(),
        began: 0,
        open: true,
    };
    loan.post(places);
    loan.began = ticks();
    body();
    loan.close()
}

/// Work that many threads share, on its caller's stack; aligned, so that an address is none of the words of a mailbox.
#[repr(C, align(64))]
struct Lent<'a, W> {
    errand: Errand,
    gate: Gate,
    wake: Wake,
    slots: &'a Slots,
    work: W,
}

impl<'a, W: Fn(usize) + Sync> Lent<'a, W> {
    fn new(slots: &'a Slots, work: W) -> Self {
        let errand = Errand { run: Self::run, gate: std::mem::offset_of!(Self, gate) };
        Lent { errand, gate: Gate::new(), wake: Wake::default(), slots, work }
    }

    /// The errand, by whose address threads will find the rest too.
    fn errand(&self) -> &Errand {
        std::ptr::from_ref(self).expose_provenance();
        &self.errand
    }

    /// # Safety
    /// `errand` is that of a loan like this one, which stays as it is meanwhile.
    unsafe fn run(errand: *const Errand, number: usize) -> Leave {
        // SAFETY: as the caller promised; the errand comes first.
        let lent = unsafe { &*errand.cast::<Self>() };
        lent.wake.two(&lent.errand, lent.slots);
        (lent.work)(number);
        Leave::default()
    }
}

/// Who is still to be woken of those that were posted to while they slept.
#[derive(Default)]
struct Wake {
    asleep: AtomicUsize,
    /// The next slot to look at.
    next: AtomicUsize,
}

impl Wake {
    /// Wakes two. The caller does, and each of them in turn: so many wake in the time of a few.
    fn two(&self, errand: &Errand, slots: &Slots) {
        if self.asleep.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut woken = 0;
        while woken < 2 {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(number) else { return };
            if slot.mail.word.load(Ordering::Relaxed) == errand.address() | SLEPT {
                slot.unpark();
                woken += 1;
            }
        }
    }
}

struct Loan<'a, P: Lender> {
    pool: &'a P,
    errand: &'a Errand,
    gate: &'a Gate,
    wake: &'a Wake,
    /// A bit for each slot that it was posted to.
    posted: [u64; Slots::MAX / 64],
    /// Whether it is on the board.
    late: bool,
    forks: u32,
    /// When the caller began its own part, by [`ticks`].
    began: u64,
    open: bool,
}

impl<P: Lender> Loan<'_, P> {
    fn post(&mut self, places: usize) {
        let mut missing = places;
        self.post_to(IDLE, &mut missing);
        if missing > 0 {
            let before = missing;
            self.post_to(ASLEEP, &mut missing);
            self.wake.asleep.store(before - missing, Ordering::Relaxed);
            self.wake.two(self.errand, self.pool.slots());
        }
        if missing > 0 {
            self.late = true;
            self.pool.board().put(Late { address: self.errand.address(), places: missing, began: 0 });
            self.pool.want_threads(missing);
        }
    }

    fn post_to(&mut self, from: usize, missing: &mut usize) {
        let slots = self.pool.slots();
        for number in slots.numbers_from(self.pool.first_slot()) {
            if *missing == 0 {
                return;
            }
            let (word, bit) = (number / 64, 1 << (number % 64));
            // Who has been there meanwhile, and is idle again, is not asked twice: a bit counts one visit.
            let is_new = self.posted[word] & bit == 0;
            if is_new && slots.get(number).is_some_and(|slot| slot.mail.post(self.errand, from)) {
                self.posted[word] |= bit;
                *missing -= 1;
            }
        }
    }

    fn close(&mut self) -> Visits {
        self.open = false;
        let abandoned = || self.pool.forks() != self.forks;
        if abandoned() {
            // The pool's locks may be held by threads that do not exist here.
            return Visits::Abandoned;
        }
        let mut began = 0;
        for (word, bits) in self.posted.iter().enumerate() {
            let mut bits = *bits;
            while bits != 0 {
                let number = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let slot = self.pool.slots().get(number);
                began += u32::from(slot.is_some_and(|slot| !slot.mail.take_back(self.errand)));
            }
        }
        if self.late {
            let address = self.errand.address();
            began += self.pool.board().take_down(|late| late.address == address).map_or(0, |late| late.began);
        }
        let _timeline = (began > 0).then(|| trace::span(|| What::Join));
        match began {
            0 => Visits::None,
            _ if self.gate.wait(began, self.began, &abandoned) => Visits::Some,
            _ => Visits::Abandoned,
        }
    }
}

/// Should the caller unwind, no thread may keep an errand whose stack is taken down.
impl<P: Lender> Drop for Loan<'_, P> {
    fn drop(&mut self) {
        if self.open {
            self.close();
        }
    }
}
