//! A region: an outermost join with the workers that serve it.

use super::beds::{ANYTHING, Beds};
use super::slot::{Branch, MOST_WORKERS, SharedBranch};
use super::worker::{Frames, Here, Loot, Worker};
use super::{Failure, Hooks};
use crate::call::{self, Request, Wishes};
use crate::context;
use crate::fork;
use crate::job::{Chunk, Rules, Task};
use crate::status::{Result, Status};
use crate::sync::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A join whose helpers come and go.
pub(super) struct Region {
    pub(super) hooks: &'static Hooks,
    pub(super) beds: Beds,
    root: [SharedBranch; 2],
    root_is_taken: AtomicBool,
    outcome: OnceLock<Option<Failure>>,
    over: AtomicBool,
    /// What each worker offers, once it is there.
    workers: Box<[OnceLock<Arc<Frames>>]>,
    forks: u32,
}

/// Runs both branches, perhaps at the same time, with helpers where there are some; returns when both are over: the failure
/// of a if it failed, else that of b. For a join that no region is around. Not to be inlined: its frame would be in every
/// level of a recursion.
#[cold]
#[inline(never)]
pub fn open(hooks: &'static Hooks, a: Branch, b: Branch) -> Result<Option<Failure>> {
    let wishes = Wishes { shared_memory: true, ..Wishes::default() };
    let workers = call::workers(wishes)?.min(MOST_WORKERS);
    let region = Arc::new(Region {
        hooks,
        beds: Beds::new(workers),
        root: [SharedBranch::new(a), SharedBranch::new(b)],
        root_is_taken: AtomicBool::new(false),
        outcome: OnceLock::new(),
        over: AtomicBool::new(false),
        workers: (0..workers).map(|_| OnceLock::new()).collect(),
        forks: fork::generation(),
    });
    let request = Request {
        n_items: workers,
        n_jobs: 0,
        wishes,
        // Not adaptive: nobody concludes from this region that the next one needs no help.
        rules: Rules { batch_size: 1, ..Rules::default() },
        progress: None,
    };
    let ran = call::run(Roles(region.clone()), &request);
    let Some(outcome) = region.outcome.get() else { return ran.map(|()| None) };
    // Once the root has run, all has: that helpers' items were cancelled is no news.
    match ran {
        Err(error) if error.status != Status::ERR_CANCELLED => Err(error),
        _ => Ok(outcome.clone()),
    }
}

/// The items of a region's job: the root for whoever comes first, help for the others.
struct Roles(Arc<Region>);

impl Task for Roles {
    fn site(&self) -> usize {
        0
    }

    fn run(&self, _index: usize) -> i32 {
        enter(&self.0);
        0
    }

    fn run_range(&self, chunk: Chunk, flags: &std::sync::atomic::AtomicU32) -> (usize, Option<i32>) {
        for index in chunk.begin..chunk.end {
            if flags.load(Ordering::Relaxed) != 0 {
                return (index, None);
            }
            self.run(index);
        }
        (chunk.end, None)
    }

    fn record(&self, _index: usize, _status: i32) {}
}

/// This thread becomes a worker of the region, until it is over.
fn enter(region: &Arc<Region>) {
    if region.is_over() {
        return;
    }
    let Some((job, seat)) = context::current_task() else { return };
    let Some(place) = region.workers.get(seat) else { return };
    let worker = Worker::new(region.clone(), job, seat);
    // A seat changes hands only when its holder has left the region, which is then over.
    let _ = place.set(worker.frames());
    let _here = Here::new(&worker, region.hooks);
    if region.root_is_taken.swap(true, Ordering::Relaxed) {
        worker.help();
        return;
    }
    let _end = End(region);
    let [a, b] = &region.root;
    let _ = region.outcome.set(worker.join(a.get(), b.get()));
}

/// Lets the helpers go, even if the root unwinds.
struct End<'a>(&'a Region);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        if !self.0.is_abandoned() {
            self.0.beds.wake(usize::MAX, |_| true);
        }
    }
}

impl Region {
    /// Whether the root's branches are over, and so all others.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether this process is a forked child: the region's other workers did not come along, and the locks of its beds
    /// may have stayed locked.
    pub(super) fn is_abandoned(&self) -> bool {
        fork::generation() != self.forks
    }

    pub(super) fn n_workers(&self) -> usize {
        self.workers.len()
    }

    /// What a worker offers, if it is there.
    pub(super) fn frames(&self, worker: usize) -> Option<&Frames> {
        self.workers.get(worker)?.get().map(|frames| &**frames)
    }

    /// Takes a branch of any other worker, its oldest.
    pub(super) fn steal(&self, thief: usize) -> Option<Loot> {
        let count = self.workers.len();
        let others = (thief + 1..thief + count).map(|other| other % count);
        others.into_iter().find_map(|other| self.frames(other)?.steal(other, thief, None))
    }

    pub(super) fn has_offers(&self) -> bool {
        (0..self.workers.len())
            .any(|worker| self.frames(worker).is_some_and(|frames| frames.has_offers(None)))
    }

    /// After `count` branches of this origin were offered: wakes as many who may take them.
    pub(super) fn wake_for(&self, count: usize, origin: u64) {
        if !self.is_abandoned() {
            self.beds.wake(count, |wish| wish == ANYTHING || wish == origin);
        }
    }

    /// After a stolen branch has ended: wakes its owner.
    pub(super) fn wake_owner(&self, branch: u64) {
        if !self.is_abandoned() {
            self.beds.wake(1, |wish| wish == branch);
        }
    }
}
