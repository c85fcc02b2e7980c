//! An errand for one thread, which is awake and idle: the shortest way to have something done elsewhere.
//!
//! Each line of the cache that one of the two has written since the other had it takes a tenth of a microsecond to come over, and
//! a locked instruction waits for it. So the errand lies in a [`Parcel`] that stays where it is from one time to the next: what has
//! not changed is not written again, and both have it. What goes to and fro is the mailbox's word and the gate's.
//!
//! **What is lent**, a reference to what is run, the caller keeps; the thread that has begun the errand works with a copy that
//! nobody has counted. One of the two is dropped: the caller's, if the thread says that it has forgotten its own; else the
//! thread's, or it is lost with the thread. Whatever the caller takes back, which nobody has begun, is its own.
//!
//! **A parcel** is out with one caller at a time (`is_out`, taken with Acquire, given back with Release), who writes the letter while
//! nobody else can read it: before it posts the errand, and after the last one that has begun it has left. At that time `left` stands
//! still, so the caller knows the number that it will reach; and so does the thread, from the one that has left last (`left`).

use super::{Errand, Gate, IDLE, Leave, Lender, PARKED};
use crate::backends::threading::slots::Slot;
use crate::cpu::{nanoseconds, ticks};
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::trace::{self, What};
use std::mem::ManuallyDrop;
use std::ptr::null_mut;
use std::sync::Arc;

/// Something that is run in parts.
pub(in crate::backends::threading) trait Deal: Send + Sync + Sized {
    /// Runs the part of that number, and says yes or no; gives back the reference, if it still has it.
    fn run_part(&self, number: usize, own: Arc<Self>) -> (bool, Option<Arc<Self>>);
}

/// What one thread can be handed at a time.
#[repr(C)]
pub(in crate::backends::threading) struct Parcel<T> {
    letter: Letter<T>,
    gate: Apart<Gate>,
    /// What the gate's `left` should be, for the thread that has begun the errand.
    left: Apart<AtomicU64>,
    is_out: Apart<AtomicBool>,
}

/// What a thread reads; aligned, so that an address is none of the words of a mailbox.
#[repr(C, align(128))]
struct Letter<T> {
    errand: Errand,
    what: AtomicPtr<T>,
    number: AtomicUsize,
}

/// With lines of the cache to itself: two, since processors fetch pairs.
#[repr(C, align(128))]
struct Apart<T>(T);

impl<T: Deal> Parcel<T> {
    pub(in crate::backends::threading) fn new() -> Self {
        let errand = Errand { run: Self::run, gate: std::mem::offset_of!(Self, gate) };
        Parcel {
            letter: Letter { errand, what: AtomicPtr::new(null_mut()), number: AtomicUsize::new(0) },
            gate: Apart(Gate::new()),
            left: Apart(AtomicU64::new(0)),
            is_out: Apart(AtomicBool::new(false)),
        }
    }

    /// The errand to run that part, by whose address a thread will find the parcel.
    fn write(&self, what: &Arc<T>, number: usize) -> &Errand {
        let Letter { errand, what: last, number: last_number } = &self.letter;
        let what = Arc::as_ptr(what).cast_mut();
        if last.load(Ordering::Relaxed) != what || last_number.load(Ordering::Relaxed) != number {
            last.store(what, Ordering::Relaxed);
            last_number.store(number, Ordering::Relaxed);
        }
        std::ptr::from_ref(self).expose_provenance();
        errand
    }

    /// # Safety
    /// `errand` is that of a parcel of this kind, which stays as it is meanwhile; its caller keeps what is run.
    unsafe fn run(errand: *const Errand, _slot: usize) -> Leave {
        // SAFETY: as the caller promised; the errand comes first.
        let Parcel { letter, left: Apart(left), .. } = unsafe { &*errand.cast::<Self>() };
        let (what, number) = (letter.what.load(Ordering::Relaxed), letter.number.load(Ordering::Relaxed));
        // SAFETY: the caller keeps it, with the reference of which this is a copy: one of the two is forgotten.
        let (what, own) = unsafe { (&*what, Arc::from_raw(what.cast_const())) };
        let (yes, back) = what.run_part(number, own);
        let mut leave = Leave { seen: left.load(Ordering::Relaxed), say: if yes { YES } else { 0 } };
        if let Some(back) = back.filter(|back| std::ptr::eq(Arc::as_ptr(back), what)) {
            std::mem::forget(back);
            leave.say |= GIVEN_BACK;
        }
        left.store(leave.left(), Ordering::Relaxed);
        leave
    }

    /// How many will have left when the next one has.
    fn next(&self) -> u32 {
        let Gate { left, .. } = &self.gate.0;
        if left.load(Ordering::Relaxed) as u32 >= PARKED / 2 {
            // Nobody is inside: the count may begin anew.
            left.store(0, Ordering::Relaxed);
            self.left.0.store(0, Ordering::Relaxed);
        }
        left.load(Ordering::Relaxed) as u32 + 1
    }
}

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

/// Usually the thread has begun and is about to leave, which the caller sees sooner if it does not look into the mailbox. So many looks
/// take 0.3 µs on a Xeon, about what a helper is behind its caller.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 16 };
/// In less no thread has begun (that takes 0.2 to 0.4 µs on a Xeon): whose own part took less takes the other one back, and will know
/// for the next time that it is sooner done alone.
const BEGINNING_NS: u64 = 200;

/// How often to look, where the caller's own part took so many nanoseconds. (A model of loom has no time.)
fn looks(took: u64) -> u32 {
    if took < BEGINNING_NS && !cfg!(loom) { 0 } else { LOOKS }
}

/// Said by the thread: it has not dropped what it was lent.
const GIVEN_BACK: u32 = 1;
/// Said by the thread: what the work said.
const YES: u32 = 2;

/// Hands one part of `own` to one idle thread while `body` runs. The parcel is out with nobody else: else nobody is there.
pub(in crate::backends::threading) fn hand<P: Lender, T: Deal>(
    pool: &P,
    parcel: &Parcel<T>,
    own: Arc<T>,
    number: usize,
    body: impl FnOnce(),
) -> Handed<T> {
    let is_out = &parcel.is_out.0;
    if is_out.swap(true, Ordering::Acquire) {
        return Handed::Nobody;
    }
    let (errand, gate) = (parcel.write(&own, number), &parcel.gate.0);
    let own = ManuallyDrop::new(own);
    let all = parcel.next();
    let slots = pool.slots();
    let mut numbers = slots.numbers_from(pool.first_slot()).map_while(|number| slots.get(number));
    // The first is the one who did it last time, in a loop of such calls.
    let first = numbers.next().filter(|slot| slot.mail.post_unseen(errand, IDLE));
    let Some(slot) = first.or_else(|| numbers.find(|slot| slot.mail.post(errand, IDLE))) else {
        is_out.store(false, Ordering::Release);
        drop(ManuallyDrop::into_inner(own));
        return Handed::Nobody;
    };
    // The thread is a little behind, so there is time to look at the clock.
    let mut hand =
        Hand { pool, slot, errand, gate, all, forks: pool.forks(), began: ticks(), looks: 0, open: true };
    body();
    hand.looks = looks(nanoseconds(ticks().wrapping_sub(hand.began)));
    let end = hand.close();
    drop(hand);
    let handed = match end {
        // Threads that are not here have the parcel for ever.
        End::Abandoned => return Handed::Abandoned,
        End::Back => Handed::Back(ManuallyDrop::into_inner(own)),
        End::Left => {
            let said = gate.said();
            if said & GIVEN_BACK != 0 {
                drop(ManuallyDrop::into_inner(own));
            }
            Handed::Done(said & YES != 0)
        }
    };
    is_out.store(false, Ordering::Release);
    handed
}

struct Hand<'a, P: Lender> {
    pool: &'a P,
    slot: &'a Slot,
    errand: &'a Errand,
    gate: &'a Gate,
    /// How many will have left when the thread has.
    all: u32,
    forks: u32,
    /// When the caller began its own part, by [`ticks`].
    began: u64,
    /// How often it looks whether the thread has left before it looks into the mailbox.
    looks: u32,
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
        let has_left = |_| {
            std::hint::spin_loop();
            self.gate.left() == self.all
        };
        if (0..self.looks).any(has_left) {
            return End::Left;
        }
        if self.slot.mail.take_back(self.errand) {
            return End::Back;
        }
        let _timeline = trace::span(|| What::Join);
        if self.gate.wait(self.all, self.began, &abandoned) { End::Left } else { End::Abandoned }
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
