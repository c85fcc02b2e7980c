//! Lending what belongs to a caller to pool threads, and getting it back.
//!
//! The caller has an [`Errand`] and posts its address into the mailboxes of idle threads. It works itself, then takes back
//! what nobody began and waits for those who did. Only [`lend`] (one errand for many threads, and for those that become idle
//! later; it lies on the caller's stack) and [`hand`] (for one; it lies in a [`Parcel`], which the caller keeps) give the address away,
//! and they do not return before nobody has it: that is why threads may follow it.
//!
//! **A mailbox** is one word. Its owner alone moves it from BUSY to IDLE, and between IDLE and ASLEEP. A caller moves IDLE or
//! ASLEEP to its errand (Release: what the errand shows is written before), and takes it back by moving the errand to what was
//! there. The owner begins an errand by moving it to BUSY (Acquire). All but the first are compare-and-swap on the
//! same word, so of the caller who takes back and the owner who begins one wins, and both know who. The same address
//! posted again later is an errand in force: who finds it there may begin it, whenever he first looked.
//! An errand is posted once to a mailbox at most: whoever the errand cannot be taken back from has begun it once.
//!
//! **The join.** Each thread that began adds 1 to `left` of the errand's [`Gate`] when it is done (Release), and never touches
//! either after; the caller knows how many began, and so the number that `left` will reach, and reads it until then (Acquire):
//! their results are complete. Before the caller parks it says so, by moving `left` on, so far that the last one will make it PARKED:
//! that one unparks the caller by a handle that it took before. No wake-up is lost: either the last thread left before that
//! move, and the caller sees PARKED as its result, or it sees the move, and unparks. Nobody is inside when the caller moves `left`
//! back, as if it had not parked.
//! What a thread has to say besides comes with the same write, in the upper half of `left`: the caller looks at that word, so
//! a second write to its line would have to wait for it once more. So would a look before the write: who leaves guesses what is
//! there, and looks only if that was wrong.

mod hand;
mod leaked;
mod loan;

pub(super) use hand::{Deal, Handed, Parcel, hand};
pub(super) use leaked::Leaked;
pub(super) use loan::{Late, Visits, lend};

use super::board::Board;
use super::slots::Slots;
use super::spin;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, Thread, current, fence, park};
use std::sync::PoisonError;

/// The owner works, looks around, or is not there.
const BUSY: usize = 0;
/// The owner is awake and waits.
const IDLE: usize = 2;
/// The owner is parked, or about to park: who changes the word unparks it.
const ASLEEP: usize = 4;
/// There is something on the board.
const LOOK: usize = 6;
/// A bit beside an errand's address: the owner was asleep.
const SLEPT: usize = 1;

/// In `left`: the caller waits parked.
const PARKED: u32 = 1 << 31;
/// In `left`: where the counting ends.
const SAID: u32 = 32;

/// What a caller gives away: the beginning of what is run.
#[repr(C)]
pub(super) struct Errand {
    /// Does the work that begins with this errand, as the thread of a slot.
    run: unsafe fn(*const Errand, usize) -> Leave,
    /// So many bytes behind the errand is its gate.
    gate: usize,
}

/// How a thread leaves.
#[derive(Default)]
struct Leave {
    /// What `left` should be before.
    seen: u64,
    /// What the caller hears; 0 where many have begun.
    say: u32,
}

impl Leave {
    /// What `left` is after.
    fn left(&self) -> u64 {
        u64::from(self.seen as u32 + 1) | (u64::from(self.say) << SAID)
    }
}

/// Where those leave who have begun an errand.
struct Gate {
    /// How many have left, and above that what the last one has said.
    left: AtomicU64,
    caller: Mutex<Option<Thread>>,
}

impl Errand {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Gate {
    fn new() -> Self {
        Gate { left: AtomicU64::new(0), caller: Mutex::new(None) }
    }

    fn caller(&self) -> MutexGuard<'_, Option<Thread>> {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many have left.
    fn left(&self) -> u32 {
        self.left.load(Ordering::Acquire) as u32
    }

    /// What the last one has said.
    fn said(&self) -> u32 {
        (self.left.load(Ordering::Relaxed) >> SAID) as u32
    }

    /// The thread that calls is done with the errand.
    fn leave(&self, mut leave: Leave) {
        loop {
            let left = leave.left();
            // Taken before leaving: afterwards the gate may be gone.
            let caller = if left as u32 == PARKED { self.caller().clone() } else { None };
            match self.left.compare_exchange_weak(leave.seen, left, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return caller.iter().for_each(Thread::unpark),
                Err(now) => leave.seen = now,
            }
        }
    }

    /// Waits until so many have left as `all`, where the caller began its own part at `began`; false if they never will, because this
    /// process is a fork.
    fn wait(&self, all: u32, began: u64, abandoned: &dyn Fn() -> bool) -> bool {
        if spin::wait_for_the_last(began, || self.left() == all) {
            return true;
        }
        if abandoned() {
            return false;
        }
        *self.caller() = Some(current());
        // Release: who sees that the caller waits sees its handle.
        let is_over = self.left.fetch_add((PARKED - all).into(), Ordering::AcqRel) as u32 == all;
        while !is_over && self.left() != PARKED {
            if abandoned() {
                return false;
            }
            park();
        }
        // As if it had not parked: the count goes on.
        self.left.fetch_sub((PARKED - all).into(), Ordering::Relaxed);
        true
    }
}

/// An errand in the hands of a thread that has begun it. Dropping it leaves.
pub(super) struct Visit {
    errand: *const Errand,
    leave: Leave,
}

impl Visit {
    /// # Safety
    /// `address` is an errand's whose caller counts this visit among those that began.
    unsafe fn begin(address: usize) -> Visit {
        Visit { errand: std::ptr::with_exposed_provenance(address), leave: Leave::default() }
    }

    /// Does the work as the thread of slot `number`.
    pub(super) fn run(mut self, number: usize) {
        // SAFETY: the errand was made with its work; who gave it away waits until this visit has left, and both stay until then.
        self.leave = unsafe { ((*self.errand).run)(self.errand, number) };
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // SAFETY: as above, and so does the gate, which lies there.
        let gate = unsafe { &*self.errand.byte_add((*self.errand).gate).cast::<Gate>() };
        gate.leave(std::mem::take(&mut self.leave));
    }
}

/// What a thread found in its mailbox.
pub(super) enum Mail {
    /// It is still idle, and awake.
    Idle,
    /// It may park: who changes the word unparks it.
    Asleep,
    /// An errand, which it has begun.
    Visit(Visit),
    /// There is something on the board.
    Look,
}

/// Where a caller leaves an errand for one thread.
pub(super) struct Mailbox {
    word: AtomicUsize,
}

impl Mailbox {
    pub(super) fn new() -> Self {
        Mailbox { word: AtomicUsize::new(BUSY) }
    }

    /// The owner has nothing to do. It has to look at the board after this: who puts something there looks for idle
    /// threads after it (both fence in between), so one of the two sees the other.
    pub(super) fn become_idle(&self) {
        self.word.store(IDLE, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The owner, idle, will park, unless there is mail. As after [`Mailbox::become_idle`], it has to look at the board.
    pub(super) fn fall_asleep(&self) {
        let _ = self.word.compare_exchange(IDLE, ASLEEP, Ordering::Release, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner, asleep, will not park after all, unless there is mail. It has to look at the board, as before: who found
    /// the word between two states may have counted on nobody here.
    pub(super) fn wake_up(&self) {
        let _ = self.word.compare_exchange(ASLEEP, IDLE, Ordering::Release, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the owner is parked, or about to park.
    pub(super) fn is_asleep(&self) -> bool {
        self.word.load(Ordering::Relaxed) == ASLEEP
    }

    /// The owner has something else to do; false if there is mail, which it has to take first.
    pub(super) fn become_busy(&self) -> bool {
        let busy =
            |from| self.word.compare_exchange(from, BUSY, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        busy(IDLE) || busy(ASLEEP)
    }

    /// Whether a caller could post here, without waking anybody.
    pub(super) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Relaxed) == IDLE
    }

    /// The owner looks.
    pub(super) fn take(&self) -> Mail {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            match word {
                IDLE => return Mail::Idle,
                ASLEEP => return Mail::Asleep,
                // Nobody but the owner changes these two.
                BUSY | LOOK => {
                    self.word.store(BUSY, Ordering::Relaxed);
                    return Mail::Look;
                }
                errand => {
                    match self.word.compare_exchange(errand, BUSY, Ordering::Acquire, Ordering::Relaxed) {
                        // SAFETY: posted by one who counts a mailbox whose errand he cannot take back.
                        Ok(_) => return Mail::Visit(unsafe { Visit::begin(errand & !SLEPT) }),
                        Err(now) => word = now,
                    }
                }
            }
        }
    }

    /// Asks an idle owner to look at the board. None if it is not idle; else whether it has to be unparked.
    pub(super) fn ask_to_look(&self) -> Option<bool> {
        let ask = |from| self.word.compare_exchange(from, LOOK, Ordering::Release, Ordering::Relaxed).is_ok();
        if ask(IDLE) { Some(false) } else { ask(ASLEEP).then_some(true) }
    }

    fn post(&self, errand: &Errand, from: usize) -> bool {
        self.word.load(Ordering::Relaxed) == from && self.post_unseen(errand, from)
    }

    /// The same without a look before, which would have to wait for the line once more than the post itself.
    fn post_unseen(&self, errand: &Errand, from: usize) -> bool {
        let word = errand.address() | if from == ASLEEP { SLEPT } else { 0 };
        self.word.compare_exchange(from, word, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Takes an errand back; false if the owner has begun it.
    fn take_back(&self, errand: &Errand) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        let before = if word & SLEPT == 0 { IDLE } else { ASLEEP };
        word & !SLEPT == errand.address()
            && self.word.compare_exchange(word, before, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// What giving work away needs of the pool.
pub(super) trait Lender {
    fn slots(&self) -> &Slots;
    fn board(&self) -> &Board;
    /// The slot to ask first; the others follow in the order of their numbers, and around.
    fn first_slot(&self) -> usize;
    /// As many threads more are wanted: they will look at the board.
    fn want_threads(&self, count: usize);
    /// Whether this process has been forked since the loan began.
    fn forks(&self) -> u32;
}
