//! What a caller and its worker processes have in common: a segment of shared memory for orders, a socket for everything that
//! memory cannot carry (descriptors, versions, death), futexes to wake each other.
//!
//! **Orders.** The caller numbers its requests from 0; request `n` lies in slot `n % SLOTS`. A slot belongs to the caller
//! until the request is posted, to the worker until it is done, then to the caller again:
//!
//! ```text
//! caller: fills slot, posted = n + 1 (Release) ──► worker: sees posted > n (Acquire), runs, fills the reply
//! caller: sees done > n (Acquire), takes the reply ◄── worker: done = n + 1 (Release)
//! ```
//!
//! `posted` is written by the caller alone, `done` by the worker alone, so each side counts on from what it wrote itself.
//!
//! **Sleep.** A worker sleeps on `posted`, a caller on the bell that its call was given: many workers ring one bell. Both
//! follow the same pattern: who sleeps raises a flag, looks once more, and sleeps only if the word still has the value that was
//! looked at; who wakes changes the word first and looks at the flag after. All four are SeqCst, so in their single order
//! either the flag is raised before the waker looks, and it wakes; or the word changes before the sleeper looks, and it does
//! not sleep. A worker that is to leave is posted a request that is none, behind the flag that says so. A caller wakes every [`LOOK`] all the same, to look after workers that died: a dead process rings no bell.
//!
//! **What the other side writes is not trusted.** The caller looks at the worker's counters and reply only, checks both, and
//! takes sizes from its own records.

pub mod futex;
mod rights;
pub mod segment;
pub mod socket;
pub mod spawn;
pub mod stream;

use crate::message::Marks;
use crate::shared::Shareable;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Requests that one worker can have at a time: one that runs, one that waits.
pub const SLOTS: usize = 2;
/// Callers that can sleep without waking each other.
pub const BELLS: usize = 64;
/// How long a caller sleeps at most before it looks after its workers.
pub const LOOK: Duration = Duration::from_millis(20);
/// The block number of a slot's own area in messages; others are those of ctx copies and of `pb_alloc_shared`.
pub const AREA: u64 = 0;
/// Notes that a worker gets before anything else: its patience, the bells, its [`Control`].
pub const START_NOTES: u64 = 3;
/// Set in the block number of a ctx.
pub const CTX: u64 = 1 << 63;
/// Copies of ctx that a worker keeps: when it gets one more, it forgets the oldest. The caller counts along.
pub const CTX_KEPT: usize = 2;
/// The argument that makes a program a worker; the next ones are the depth and the caller's pid.
pub const WORKER_ARGUMENT: &str = "--pb-worker";
/// The descriptor of a worker's socket.
pub const WORKER_SOCKET: i32 = 3;

/// How deep this process is in maps on worker processes.
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// Processes around this one that run maps on workers such as this one is; 0 in a program.
pub fn depth() -> u32 {
    DEPTH.load(Ordering::Relaxed)
}

/// In a worker, at its beginning.
pub fn set_depth(depth: u32) {
    DEPTH.store(depth, Ordering::Relaxed);
}

/// Values of [`Answers::state`].
pub mod state {
    /// At work, or waiting for it.
    pub const ALIVE: u32 = 0;
    /// It has waited long enough, and ends: it begins no request any more.
    pub const LEAVING: u32 = 1;
}

/// A request. Offsets are into the slot's area.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Slot {
    /// Notes sent to the worker so far: it takes as many from the socket before it looks at the request.
    pub notes: AtomicU64,
    /// The request's bytes.
    pub request: AtomicU64,
    /// How many.
    pub request_len: AtomicU64,
    /// Room for the items' statuses, 4 bytes each.
    pub statuses: AtomicU64,
    /// Room for the reply.
    pub reply: AtomicU64,
    /// Its size.
    pub reply_room: AtomicU64,
    /// How large the reply has become; written by the worker.
    pub reply_len: AtomicU64,
    /// Whether the request is to end early; zeroed by the caller as it posts.
    pub cancelled: AtomicU32,
    /// How far the request has come; zeroed by the caller.
    pub marks: Marks,
}

/// The head of a worker's segment.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Control {
    /// Requests posted so far; the worker sleeps on it.
    pub posted: AtomicU32,
    /// Whether the worker sleeps.
    pub asleep: AtomicU32,
    /// Whether what is posted next is no request: the worker is to end.
    pub leave: AtomicU32,
    /// Which bell to ring.
    pub bell: AtomicU32,
    /// Which call the worker is lent to.
    pub call: AtomicU64,
    /// What the worker writes.
    pub worker: Answers,
    /// The requests.
    pub slots: [Slot; SLOTS],
}

/// What the worker writes into [`Control`], on lines of their own.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Answers {
    /// Requests done so far.
    pub done: AtomicU32,
    /// One of [`state`].
    pub state: AtomicU32,
}

/// Wakes a caller.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicU32,
    sleepers: AtomicU32,
}

// SAFETY: atomics only.
unsafe impl Shareable for Control {}
// SAFETY: as above.
unsafe impl Shareable for Bell {}

impl Bell {
    /// What the bell shows now, to be looked at before what it stands for.
    pub fn seen(&self) -> u32 {
        self.rung.load(Ordering::SeqCst)
    }

    /// Wakes those who sleep.
    pub fn ring(&self) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            futex::wake_all(&self.rung);
        }
    }

    /// Sleeps until the bell has rung since `seen`, or for `most`.
    pub fn sleep(&self, seen: u32, most: Duration) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if self.rung.load(Ordering::SeqCst) == seen {
            futex::wait(&self.rung, seen, most);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Control {
    /// The slot of request `number`.
    pub fn slot(&self, number: u32) -> &Slot {
        &self.slots[number as usize % SLOTS]
    }

    /// The caller's side: asks a request that was posted and not taken to end early.
    pub fn cancel(&self, number: u32) {
        self.slot(number).cancelled.store(1, Ordering::Relaxed);
    }

    /// The worker's side: whether the request that it runs is to end early.
    pub fn is_cancelled(&self, number: u32) -> bool {
        self.slot(number).cancelled.load(Ordering::Relaxed) != 0
    }

    /// The caller's side: hands request number `posted - 1` over.
    pub fn post(&self, posted: u32) {
        self.posted.store(posted, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) != 0 {
            futex::wake_all(&self.posted);
        }
    }

    /// The caller's side: asks an idle worker to end. Nothing can be posted to it any more.
    pub fn ask_to_leave(&self) {
        self.leave.store(1, Ordering::SeqCst);
        self.post(self.posted.load(Ordering::Relaxed).wrapping_add(1));
    }

    /// The worker's side: sleeps until more than `done` requests are posted, or for `most`.
    pub fn sleep(&self, done: u32, most: Duration) {
        self.asleep.store(1, Ordering::SeqCst);
        if self.posted.load(Ordering::SeqCst) == done {
            futex::wait(&self.posted, done, most);
        }
        self.asleep.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_to_leave_does_not_fall_asleep_over_it() {
        let control = Control::default();
        control.post(7);
        control.ask_to_leave();
        assert_ne!(control.posted.load(Ordering::SeqCst), 7, "the word that a worker sleeps on has changed");
        assert_eq!(control.leave.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_request_is_cancelled_if_it_was_and_whatever_its_number() {
        let control = Control::default();
        for number in [0, 1, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX] {
            assert!(!control.is_cancelled(number));
            control.cancel(number);
            assert!(control.is_cancelled(number) && !control.is_cancelled(number.wrapping_add(1)));
            control.slot(number).cancelled.store(0, Ordering::Relaxed);
        }
    }
}
