//! A thread in a region: its frames, what it offers of them, and what it does while it waits.
//!
//! Frames form a stack, `slots[..depth]`, of which `slots[..public]` have been offered to thieves. Only the owner moves the
//! two; thieves see `public` as a hint where to look. Offers are made and taken from the bottom, so if a frame was stolen
//! all below it were: when an owner waits it has nothing private, and whatever it forks then, in branches that it takes
//! meanwhile, comes from those. That is what `origin` records: each frame offered carries the identity of the stolen branch
//! that its owner was running (0 for the root), and a worker that waits for a branch takes only frames with that branch's
//! identity, which are its descendants. An identity is never used twice (worker, slot, and generation of the offer).
//!
//! How many are offered adapts: as many as there are workers at first and whenever something was stolen, half as many
//! each time that the owner takes one back itself, down to one. An owner looks when it enters a join and before it runs a
//! branch b itself. So a few coarse branches are all offered at once, and a deep recursion with nobody hungry pays for
//! one offer in many joins.

use super::beds::ANYTHING;
use super::region::Region;
use super::slot::{Branch, Slot};
use super::{Failure, Hooks, failure, of_branch};
use crate::context;
use crate::job::{self, Job};
use crate::limits;
use crate::status::{Error, Status};
use crate::sync::{AtomicUsize, Ordering};
use crossbeam_utils::CachePadded;
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Joins that are nested deeper on one thread run their branches there, one after the other: the older ones are larger.
const MOST_FRAMES: usize = 64;
/// A worker looks for work, or for the end of what it waits for, this long before it sleeps: about what it costs to wake it.
const PATIENCE: Duration = Duration::from_micros(20);
/// Looks between two readings of the clock.
const LOOKS: u32 = 32;

/// A thread's stay in a region.
pub(super) struct Here<'a> {
    hooks: &'static Hooks,
    before: *const Worker,
    _worker: &'a Worker,
}

impl<'a> Here<'a> {
    pub(super) fn new(worker: &'a Worker, hooks: &'static Hooks) -> Self {
        Here { hooks, before: (hooks.settle)(worker), _worker: worker }
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        (self.hooks.settle)(self.before);
    }
}

/// The part of a worker that others see.
pub(super) struct Frames {
    slots: Box<[Slot]>,
    /// How many slots from the bottom have been offered.
    public: AtomicUsize,
    /// How many were ever stolen. Written by thieves only.
    steals: CachePadded<AtomicUsize>,
}

/// A stolen branch.
pub(super) struct Loot {
    branch: Branch,
    owner: usize,
    slot: usize,
    id: u64,
}

/// The identity of an offer. Neither 0, since generations begin with 1, nor that of a wish for anything.
fn identity(owner: usize, slot: usize, generation: u64) -> u64 {
    (owner as u64) << 48 | (slot as u64) << 40 | generation & ((1 << 40) - 1)
}

impl Frames {
    fn offered(&self) -> &[Slot] {
        &self.slots[..self.public.load(Ordering::Acquire)]
    }

    /// Takes the oldest frame that is offered, or that of this origin.
    pub(super) fn steal(&self, owner: usize, thief: usize, origin: Option<u64>) -> Option<Loot> {
        let mut slots = self.offered().iter().enumerate();
        let (slot, (branch, generation)) =
            slots.find_map(|(index, slot)| Some((index, slot.steal(thief, origin)?)))?;
        self.steals.fetch_add(1, Ordering::Relaxed);
        Some(Loot { branch, owner, slot, id: identity(owner, slot, generation) })
    }

    pub(super) fn has_offers(&self, origin: Option<u64>) -> bool {
        self.offered().iter().any(|slot| slot.is_offered(origin))
    }
}

/// A thread in a region. It stays on that thread.
pub struct Worker {
    region: Arc<Region>,
    job: Arc<Job>,
    seat: usize,
    /// Open scopes of this thread's context when it entered.
    scopes: usize,
    limit_scopes: usize,
    frames: Arc<Frames>,
    depth: Cell<usize>,
    public: Cell<usize>,
    /// Offers that were neither taken back nor, as far as the owner knows, stolen; and how many there should be.
    open: Cell<isize>,
    target: Cell<isize>,
    /// Steals that `open` knows of.
    seen_steals: Cell<usize>,
    generation: Cell<u64>,
    /// The stolen branch that runs here; 0 for the root.
    origin: Cell<u64>,
    /// The last join that failed in the branch that runs here.
    failed_join: Cell<Option<Failure>>,
}

/// What a branch must find again when one inside it has ended.
struct Around {
    text: Option<String>,
    failed_join: Option<Failure>,
    limit_scopes: usize,
}

impl Worker {
    pub(super) fn new(region: Arc<Region>, job: Arc<Job>, seat: usize) -> Self {
        // Alone it has nobody to offer to.
        let target = if region.n_workers() > 1 { region.n_workers() as isize } else { 0 };
        let frames = Frames {
            slots: (0..MOST_FRAMES).map(|_| Slot::new()).collect(),
            public: AtomicUsize::new(0),
            steals: CachePadded::new(AtomicUsize::new(0)),
        };
        Worker {
            region,
            job,
            seat,
            scopes: context::open_scopes(),
            limit_scopes: limits::open_scopes(),
            frames: Arc::new(frames),
            depth: Cell::new(0),
            public: Cell::new(0),
            open: Cell::new(0),
            target: Cell::new(target),
            seen_steals: Cell::new(0),
            generation: Cell::new(0),
            origin: Cell::new(0),
            failed_join: Cell::new(None),
        }
    }

    pub(super) fn frames(&self) -> Arc<Frames> {
        self.frames.clone()
    }

    /// Whether a join of this thread belongs to the worker's region: no scope was opened since, no task has begun.
    #[inline]
    pub fn is_here(&self) -> bool {
        self.scopes == context::open_scopes()
    }

    /// Runs both branches, perhaps at the same time, and returns when both are over: the failure of a if it failed, else
    /// that of b.
    #[inline]
    pub fn join(&self, a: Branch, b: Branch) -> Option<Failure> {
        let depth = self.depth.get();
        if depth == MOST_FRAMES {
            self.look();
            let failure = self.run(a);
            return self.both(failure, self.run(b));
        }
        self.frames.slots[depth].set(b);
        self.depth.set(depth + 1);
        self.look();
        let first = self.run(a);
        let second = if self.take_back(depth) {
            self.look();
            self.run(b)
        } else {
            self.wait(depth)
        };
        self.both(first, second)
    }

    /// Sees to it that enough is offered.
    #[inline]
    fn look(&self) {
        let stolen = self.frames.steals.load(Ordering::Relaxed) != self.seen_steals.get();
        if stolen || (self.open.get() < self.target.get() && self.public.get() < self.depth.get()) {
            self.offer();
        }
    }

    #[cold]
    fn offer(&self) {
        let steals = self.frames.steals.load(Ordering::Relaxed);
        let news = steals.wrapping_sub(self.seen_steals.replace(steals)) as isize;
        self.open.set(self.open.get() - news);
        if news > 0 {
            self.target.set(self.region.n_workers() as isize);
        }
        let first = self.public.get();
        let count =
            usize::try_from(self.target.get() - self.open.get()).unwrap_or(0).min(self.depth.get() - first);
        if count == 0 {
            return;
        }
        for slot in &self.frames.slots[first..first + count] {
            self.generation.set(self.generation.get() + 1);
            slot.offer(self.generation.get(), self.origin.get());
        }
        self.open.set(self.open.get() + count as isize);
        self.set_public(first + count);
        self.region.wake_for(count, self.origin.get());
    }

    fn set_public(&self, public: usize) {
        self.public.set(public);
        self.frames.public.store(public, Ordering::Release);
    }

    /// Takes the top frame off the stack; false if it was stolen.
    #[inline]
    fn take_back(&self, depth: usize) -> bool {
        if self.public.get() > depth && !self.take_back_offer(depth) {
            return false;
        }
        self.depth.set(depth);
        true
    }

    fn take_back_offer(&self, depth: usize) -> bool {
        if !self.frames.slots[depth].take_back() {
            return false;
        }
        self.set_public(depth);
        self.open.set(self.open.get() - 1);
        self.target.set((self.target.get() / 2).max(1));
        true
    }

    /// Waits for the thief of the top frame, and helps with what it forks.
    #[cold]
    fn wait(&self, depth: usize) -> Option<Failure> {
        let slot = &self.frames.slots[depth];
        let id = identity(self.seat, depth, slot.generation());
        let thief = slot.thief();
        let theirs = self.region.frames(thief);
        let mut patience = Patience::new();
        while !slot.is_finished() {
            if self.region.is_abandoned() {
                break;
            }
            if let Some(loot) = theirs.and_then(|frames| frames.steal(thief, self.seat, Some(id))) {
                self.serve(loot);
                patience = Patience::new();
            } else if !patience.lasts() {
                self.region.beds.sleep(self.seat, id, || {
                    slot.is_finished() || theirs.is_some_and(|frames| frames.has_offers(Some(id)))
                });
                patience = Patience::new();
            }
        }
        self.set_public(depth);
        self.depth.set(depth);
        if slot.is_finished() { slot.outcome() } else { Some(forked()) }
    }

    /// Runs branches of others until the region is over.
    pub(super) fn help(&self) {
        let region = &self.region;
        let mut patience = Patience::new();
        while !region.is_over() && !region.is_abandoned() {
            if let Some(loot) = region.steal(self.seat) {
                self.serve(loot);
                patience = Patience::new();
            } else if !patience.lasts() {
                region.beds.sleep(self.seat, ANYTHING, || region.is_over() || region.has_offers());
                patience = Patience::new();
            }
        }
    }

    fn serve(&self, loot: Loot) {
        let Loot { branch, owner, slot, id } = loot;
        // Somebody may have woken this worker for another branch than the one that it took.
        if self.region.has_offers() {
            self.region.wake_for(1, ANYTHING);
        }
        let outer = self.origin.replace(id);
        let failure = self.run(branch);
        self.origin.set(outer);
        if let Some(frames) = self.region.frames(owner) {
            frames.slots[slot].finish(failure);
            self.region.wake_owner(id);
        }
    }

    /// Runs one branch. Until one of them leaves something behind, nothing but a look at a flag is between two.
    #[inline]
    fn run(&self, branch: Branch) -> Option<Failure> {
        if self.job.is_untidy() {
            return self.run_and_tidy(branch);
        }
        let code = (self.region.hooks.run)(branch);
        if code == 0 && !self.job.is_untidy() {
            return None;
        }
        self.tidy(code, Around { text: None, failed_join: None, limit_scopes: self.limit_scopes })
    }

    #[cold]
    fn run_and_tidy(&self, branch: Branch) -> Option<Failure> {
        let around = Around {
            text: job::take_text(),
            failed_join: self.failed_join.take(),
            limit_scopes: limits::open_scopes(),
        };
        let code = (self.region.hooks.run)(branch);
        self.tidy(code, around)
    }

    /// Clears away what a branch that returned `code` has left on this thread. Its failure, if it failed.
    #[cold]
    fn tidy(&self, code: i32, around: Around) -> Option<Failure> {
        let text = job::take_text();
        let inner = self.failed_join.replace(around.failed_join);
        context::close_left_open(around.limit_scopes, self.scopes);
        around.text.into_iter().for_each(job::set_text);
        match (code, inner) {
            (0, _) => None,
            // It only passes on what a join inside it returned: that one's failure says more.
            (code, Some(inner)) if code == inner.status.0 && text.is_none() => Some(inner),
            (code, _) => Some(failure(code, text)),
        }
    }

    /// The join's failure, if either branch failed. Kept for the branch around the join, whose own code may only pass it on.
    #[inline]
    fn both(&self, a: Option<Failure>, b: Option<Failure>) -> Option<Failure> {
        match (a, b) {
            (None, None) => None,
            (Some(a), _) => Some(self.failed(a, 0)),
            (None, Some(b)) => Some(self.failed(b, 1)),
        }
    }

    #[cold]
    fn failed(&self, failure: Failure, branch: usize) -> Failure {
        let failure = of_branch(failure, branch);
        self.failed_join.set(Some(failure.clone()));
        self.job.untidy();
        failure
    }
}

fn forked() -> Failure {
    Box::new(Error::new(
        Status::ERR_WORKER_LOST,
        "the process was forked by a branch of a join: the child has none of the join's other workers",
    ))
}

/// Looking around awake, for a while.
struct Patience {
    looks: u32,
    begin: Option<Instant>,
}

impl Patience {
    fn new() -> Self {
        Patience { looks: 0, begin: None }
    }

    /// Lets a moment go by; false when it is time to sleep.
    fn lasts(&mut self) -> bool {
        self.looks += 1;
        if self.looks % LOOKS != 0 {
            std::hint::spin_loop();
            return true;
        }
        // Whoever else is runnable goes first.
        std::thread::yield_now();
        self.begin.get_or_insert_with(Instant::now).elapsed() < PATIENCE
    }
}
