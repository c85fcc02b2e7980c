//! An errand for one thread, which is awake and idle: the shortest way to have something done elsewhere.
//!
//! **The work and its result** lie in one place. Before the errand is posted it is the caller's; the thread that has begun the
//! errand alone uses it until it leaves, and the caller again once it has taken the errand back (nobody has begun it, nor will), or
//! has seen the thread leave (`left`, Release and Acquire).

use super::{Errand, IDLE, Lender, Lent, Work};
use crate::backends::threading::slots::Slot;
use crate::sync::Ordering;
use crate::trace::{self, What};
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;

/// What became of work that was to be handed over.
pub(in crate::backends::threading) enum Handed<W, R> {
    /// No thread is awake and idle. The body has not run.
    Nobody,
    /// A thread was there, but has not begun while the body ran.
    Back(W),
    /// The thread has done it.
    Done(R),
    /// A thread has begun and will not end: this is a forked child.
    Abandoned,
}

/// Hands `work` to one idle thread while `body` runs.
pub(in crate::backends::threading) fn hand<P: Lender, R: Send, W: FnOnce() -> R + Send>(
    pool: &P,
    work: W,
    body: impl FnOnce(),
) -> Handed<W, R> {
    // Dropped by hand: abandoned, it is as the thread has left it in the parent process, half way maybe.
    let lent = ManuallyDrop::new(Lent::new(Parcel(UnsafeCell::new(State::Work(work)))));
    let (slots, errand) = (pool.slots(), lent.errand());
    let mut numbers = slots.numbers_from(pool.first_slot()).map_while(|number| slots.get(number));
    // The first is the one who did it last time, in a loop of such calls.
    let first = numbers.next().filter(|slot| slot.mail.post_unseen(errand, IDLE));
    let Some(slot) = first.or_else(|| numbers.find(|slot| slot.mail.post(errand, IDLE))) else {
        drop(ManuallyDrop::into_inner(lent));
        return Handed::Nobody;
    };
    let mut hand = Hand { pool, slot, errand, forks: pool.forks(), open: true };
    body();
    if !hand.close() {
        return Handed::Abandoned;
    }
    drop(hand);
    ManuallyDrop::into_inner(lent).work.handed()
}

struct Parcel<W, R>(UnsafeCell<State<W, R>>);

enum State<W, R> {
    Work(W),
    Begun,
    Done(R),
}

// SAFETY: one thread at a time uses what is inside (see above), so it has to be fit for moving only.
unsafe impl<W: Send, R: Send> Sync for Parcel<W, R> {}

impl<R: Send, W: FnOnce() -> R + Send> Work for Parcel<W, R> {
    fn run(&self, _errand: &Errand, _number: usize) {
        let state = self.0.get();
        // SAFETY: this thread has begun the errand and has not left: it alone uses the place. No reference outlives a statement.
        if let State::Work(work) = unsafe { std::mem::replace(&mut *state, State::Begun) } {
            let done = State::Done(work());
            // SAFETY: as above.
            unsafe { *state = done };
        }
    }
}

impl<W, R> Parcel<W, R> {
    /// What it holds, now that it is the caller's again.
    fn handed(self) -> Handed<W, R> {
        match self.0.into_inner() {
            State::Work(work) => Handed::Back(work),
            State::Done(result) => Handed::Done(result),
            State::Begun => Handed::Abandoned,
        }
    }
}

struct Hand<'a, P: Lender> {
    pool: &'a P,
    slot: &'a Slot,
    errand: &'a Errand,
    forks: u32,
    open: bool,
}

impl<P: Lender> Hand<'_, P> {
    /// Whether the errand is back, begun or not; false if it never will be.
    fn close(&mut self) -> bool {
        self.open = false;
        let abandoned = || self.pool.forks() != self.forks;
        if abandoned() {
            return false;
        }
        // Usually the thread has begun and is about to leave, which the caller sees sooner if it does not look into the mailbox.
        // So many looks take 0.3 µs on a Xeon, about what a helper is behind its caller.
        const LOOKS: u32 = if cfg!(loom) { 1 } else { 16 };
        let has_left = |_| {
            std::hint::spin_loop();
            self.errand.left.load(Ordering::Acquire) == 1
        };
        if (0..LOOKS).any(has_left) || self.slot.mail.take_back(self.errand) {
            return true;
        }
        let _timeline = trace::span(|| What::Join);
        self.errand.wait(1, &abandoned)
    }
}

/// Should the caller unwind, no thread may keep an errand whose stack is taken down.
impl<P: Lender> Drop for Hand<'_, P> {
    fn drop(&mut self) {
        if self.open {
            self.close();
        }
    }
}
