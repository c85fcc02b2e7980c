//! One frame of a join: the branch that its owner may run later, or a thief now.
//!
//! The owner writes `call` and `ctx`, and `origin` before it offers; a thief reads them between a look at `state` and a
//! compare-and-swap on it. Every offer has a generation of its own, so a compare-and-swap that succeeds on generation g
//! proves that what was read belongs to g: the owner writes anew only after it has taken g back, which would have changed
//! `state`, or after it has seen the thief's end, which comes after the thief's reading.
//!
//! ```text
//!   IDLE ──offer──► OFFERED ──take_back (owner)──► IDLE
//!                      └────steal (thief)──► TAKEN ──finish (thief)──► DONE or FAILED ──owner──► IDLE
//! ```
//!
//! Orderings: `offer` releases what the owner wrote, the branch's data included, and `steal` acquires it. `finish` releases
//! what the branch wrote, and `outcome` acquires it. `take_back` needs neither: nobody else has been inside.

use super::Failure;
use crate::sync::{AtomicPtr, AtomicU64, Mutex, Ordering};
use std::sync::PoisonError;

/// A function and its argument, as the caller of a join gave them. What they are is the business of who calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The function.
    pub call: *mut (),
    /// Its argument.
    pub ctx: *mut (),
}

/// A branch that several threads may read.
pub(super) struct SharedBranch {
    call: AtomicPtr<()>,
    ctx: AtomicPtr<()>,
}

impl SharedBranch {
    pub(super) fn new(branch: Branch) -> Self {
        SharedBranch { call: AtomicPtr::new(branch.call), ctx: AtomicPtr::new(branch.ctx) }
    }

    pub(super) fn get(&self) -> Branch {
        Branch { call: self.call.load(Ordering::Relaxed), ctx: self.ctx.load(Ordering::Relaxed) }
    }

    fn set(&self, branch: Branch) {
        self.call.store(branch.call, Ordering::Relaxed);
        self.ctx.store(branch.ctx, Ordering::Relaxed);
    }
}

const IDLE: u64 = 0;
const OFFERED: u64 = 1;
const TAKEN: u64 = 2;
const DONE: u64 = 3;
const FAILED: u64 = 4;
const PHASE: u64 = 0xf;
const THIEF_SHIFT: u32 = 4;
const GENERATION_SHIFT: u32 = 20;
/// Workers of a region that thieves can be numbered for.
pub(super) const MOST_WORKERS: usize = 1 << (GENERATION_SHIFT - THIEF_SHIFT);

pub(super) struct Slot {
    /// The generation of the last offer, above its thief, above the phase.
    state: AtomicU64,
    branch: SharedBranch,
    /// The stolen branch that the offered one was forked under: see `worker.rs`.
    origin: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Slot {
    pub(super) fn new() -> Self {
        let nothing = Branch { call: std::ptr::null_mut(), ctx: std::ptr::null_mut() };
        Slot {
            state: AtomicU64::new(IDLE),
            branch: SharedBranch::new(nothing),
            origin: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    fn phase(&self) -> u64 {
        self.state.load(Ordering::Acquire) & PHASE
    }

    /// The owner puts a branch here for itself.
    pub(super) fn set(&self, branch: Branch) {
        self.branch.set(branch);
    }

    /// The owner lets thieves take the branch. `generation` grows with every offer of this slot.
    pub(super) fn offer(&self, generation: u64, origin: u64) {
        self.origin.store(origin, Ordering::Relaxed);
        self.state.store(generation << GENERATION_SHIFT | OFFERED, Ordering::Release);
    }

    /// The owner wants its offer back; false if a thief was faster.
    pub(super) fn take_back(&self) -> bool {
        let seen = self.state.load(Ordering::Relaxed);
        seen & PHASE == OFFERED
            && self
                .state
                .compare_exchange(seen, seen & !PHASE | IDLE, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// Whether a thief could take the branch: any, or one of this origin.
    pub(super) fn is_offered(&self, origin: Option<u64>) -> bool {
        self.phase() == OFFERED && origin.is_none_or(|origin| self.origin.load(Ordering::Relaxed) == origin)
    }

    /// A thief takes the branch, if it is offered and of this origin. Returns it with the offer's generation.
    pub(super) fn steal(&self, thief: usize, origin: Option<u64>) -> Option<(Branch, u64)> {
        let seen = self.state.load(Ordering::Acquire);
        if seen & PHASE != OFFERED {
            return None;
        }
        let branch = self.branch.get();
        if origin.is_some_and(|origin| self.origin.load(Ordering::Relaxed) != origin) {
            return None;
        }
        let taken = seen & !PHASE | (thief as u64) << THIEF_SHIFT | TAKEN;
        self.state.compare_exchange(seen, taken, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        Some((branch, seen >> GENERATION_SHIFT))
    }

    /// The thief has run the branch. It must not touch the slot after this.
    pub(super) fn finish(&self, failure: Option<Failure>) {
        let phase = if failure.is_some() { FAILED } else { DONE };
        if failure.is_some() {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        }
        let seen = self.state.load(Ordering::Relaxed);
        self.state.store(seen & !PHASE | phase, Ordering::Release);
    }

    /// Whether the thief has finished.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.phase(), DONE | FAILED)
    }

    /// How a finished branch ended.
    pub(super) fn outcome(&self) -> Option<Failure> {
        if self.phase() != FAILED {
            return None;
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The generation of the last offer.
    pub(super) fn generation(&self) -> u64 {
        self.state.load(Ordering::Relaxed) >> GENERATION_SHIFT
    }

    /// Which worker took the branch. Only for a branch that was taken.
    pub(super) fn thief(&self) -> usize {
        // Acquire: what the thief did before it took the branch, such as saying where its own offers are, is seen too.
        (self.state.load(Ordering::Acquire) >> THIEF_SHIFT) as usize % MOST_WORKERS
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicUsize;
    use loom::sync::Arc;

    fn branch(number: usize) -> Branch {
        Branch {
            call: std::ptr::without_provenance_mut(number),
            ctx: std::ptr::without_provenance_mut(number),
        }
    }

    /// The owner offers two branches in the same slot, one after the other; a thief may get either. Each runs once, a
    /// thief never gets halves of two, and its work is seen by the owner.
    #[test]
    fn loom_a_branch_is_run_once_by_its_owner_or_by_a_thief() {
        loom::model(|| {
            let slot = Arc::new(Slot::new());
            let work = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)]);
            let run = |work: &[AtomicUsize; 3], branch: Branch| {
                assert_eq!(branch.call, branch.ctx);
                let done = &work[branch.call.addr()];
                done.store(done.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            };
            let (others, load) = (slot.clone(), work.clone());
            let thief = loom::thread::spawn(move || {
                let Some((branch, generation)) = others.steal(7, None) else { return };
                assert_eq!(generation, branch.call.addr() as u64);
                run(&load, branch);
                others.finish(None);
            });
            for number in 1..=2 {
                slot.set(branch(number));
                slot.offer(number as u64, 0);
                if slot.take_back() {
                    run(&work, branch(number));
                } else {
                    assert_eq!(slot.thief(), 7);
                    while !slot.is_finished() {
                        loom::thread::yield_now();
                    }
                    assert!(slot.outcome().is_none());
                }
                assert_eq!(work[number].load(Ordering::Relaxed), 1);
            }
            thief.join().unwrap();
        });
    }

    #[test]
    fn loom_a_thief_that_is_waiting_takes_only_what_comes_from_its_own_branch() {
        loom::model(|| {
            let slot = Arc::new(Slot::new());
            let others = slot.clone();
            let thief =
                loom::thread::spawn(move || others.steal(1, Some(5)).map(|(branch, _)| branch.call.addr()));
            slot.set(branch(1));
            slot.offer(1, 4);
            let kept = slot.take_back();
            assert!(kept, "of another origin");
            slot.set(branch(2));
            slot.offer(2, 5);
            let stolen = !slot.take_back();
            assert_eq!(thief.join().unwrap(), stolen.then_some(2));
        });
    }
}
