//! An errand for one thread, which is awake and idle: the shortest way to have something done elsewhere.
//!
//! **What is lent**, a reference to what the work needs, lies with the errand as its caller has it; the thread that has begun the errand
//! works with a copy that nobody has counted. One of the two is dropped: the caller's, if the thread says that it has forgotten its
//! own; else the thread's, or it is lost with the thread. Whatever the caller takes back, which nobody has begun, is its own.
//! So a thread that is handed something writes one word of what it shares with the caller.

use super::{Errand, IDLE, Lender, Lent, Work};
use crate::backends::threading::slots::Slot;
use crate::trace::{self, What};
use std::mem::ManuallyDrop;
use std::sync::Arc;

/// What became of work that was to be handed over.
pub(in crate::backends::threading) enum Handed<T> {
    /// No thread is awake and idle. The body has not run.
    Nobody,
    /// A thread was there, but has not begun while the body ran.
    Back(Arc<T>),
    /// The thread has done it, and this is what the work said.
    Done(bool),
    /// A thread has begun and will not end: this is a forked child.
    Abandoned,
}

/// Said by the thread: it has not dropped what it was lent.
const GIVEN_BACK: u32 = 1;
/// Said by the thread: what the work said.
const YES: u32 = 2;

/// Hands `work` with a reference to one idle thread while `body` runs. The work says yes or no, and gives the reference back, if it
/// still has it.
pub(in crate::backends::threading) fn hand<P: Lender, T: Send + Sync>(
    pool: &P,
    own: Arc<T>,
    work: impl Fn(Arc<T>) -> (bool, Option<Arc<T>>) + Sync,
    body: impl FnOnce(),
) -> Handed<T> {
    let lent = Lent::new(Parcel { own: ManuallyDrop::new(own), work });
    let (slots, errand) = (pool.slots(), lent.errand());
    let mut numbers = slots.numbers_from(pool.first_slot()).map_while(|number| slots.get(number));
    // The first is the one who did it last time, in a loop of such calls.
    let first = numbers.next().filter(|slot| slot.mail.post_unseen(errand, IDLE));
    let Some(slot) = first.or_else(|| numbers.find(|slot| slot.mail.post(errand, IDLE))) else {
        drop(ManuallyDrop::into_inner(lent.work.own));
        return Handed::Nobody;
    };
    let mut hand = Hand { pool, slot, errand, forks: pool.forks(), open: true };
    body();
    let end = hand.close();
    drop(hand);
    match end {
        End::Back => Handed::Back(ManuallyDrop::into_inner(lent.work.own)),
        End::Abandoned => Handed::Abandoned,
        End::Left => {
            let said = lent.errand.said();
            if said & GIVEN_BACK != 0 {
                drop(ManuallyDrop::into_inner(lent.work.own));
            }
            Handed::Done(said & YES != 0)
        }
    }
}

struct Parcel<T, W> {
    own: ManuallyDrop<Arc<T>>,
    work: W,
}

impl<T: Send + Sync, W: Fn(Arc<T>) -> (bool, Option<Arc<T>>) + Sync> Work for Parcel<T, W> {
    fn run(&self, _errand: &Errand, _number: usize) -> u32 {
        // SAFETY: an errand is run once, by the thread that has begun it; the caller drops its own only if this one was forgotten.
        let own = ManuallyDrop::into_inner(unsafe { std::ptr::read(&self.own) });
        let lent = Arc::as_ptr(&own);
        let (yes, back) = (self.work)(own);
        let mut said = if yes { YES } else { 0 };
        if let Some(back) = back.filter(|back| Arc::as_ptr(back) == lent) {
            std::mem::forget(back);
            said |= GIVEN_BACK;
        }
        said
    }
}

struct Hand<'a, P: Lender> {
    pool: &'a P,
    slot: &'a Slot,
    errand: &'a Errand,
    forks: u32,
    open: bool,
}

/// How an errand came back.
#[derive(PartialEq, Eq)]
enum End {
    /// Nobody has begun it, nor will.
    Back,
    /// The thread has left.
    Left,
    /// It never will.
    Abandoned,
}

impl<P: Lender> Hand<'_, P> {
    fn close(&mut self) -> End {
        self.open = false;
        let abandoned = || self.pool.forks() != self.forks;
        if abandoned() {
            return End::Abandoned;
        }
        // Usually the thread has begun and is about to leave, which the caller sees sooner if it does not look into the mailbox.
        // So many looks take 0.3 µs on a Xeon, about what a helper is behind its caller.
        const LOOKS: u32 = if cfg!(loom) { 1 } else { 16 };
        let has_left = |_| {
            std::hint::spin_loop();
            self.errand.left() == 1
        };
        if (0..LOOKS).any(has_left) {
            return End::Left;
        }
        if self.slot.mail.take_back(self.errand) {
            return End::Back;
        }
        let _timeline = trace::span(|| What::Join);
        if self.errand.wait(1, &abandoned) { End::Left } else { End::Abandoned }
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
