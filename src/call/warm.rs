//! What a thread's last call chose, kept for the next one that would choose the same.
//!
//! A loop that calls a map again and again resolves the same context each time. What the choice depends on is read at every
//! call, in a few nanoseconds each: the scopes of the thread, the process default, the environment, the floating-point mode,
//! whether there are libraries to limit. While that is the same, so is the choice; and the memory of the last job does for
//! the next.
//!
//! Inside a task most of that stays as it is, and what calls keep lies on the task's frame: it goes when the worker leaves. So maps
//! with one worker inside the tasks of many share no lock and no count, after the first one of each.

use super::Request;
use super::Wishes;
use crate::context::{self, InnerLimit, TaskSurroundings};
use crate::cpu::{FloatMode, nanoseconds};
use crate::job::{Items, Job, Parent, Repeat, Task};
use crate::limits;
use crate::registry::Opened;
use crate::status::Result;
use crate::trace;
use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static LAST: Cell<Option<Box<Warm>>> = const { Cell::new(None) };
}

/// All that a choice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// None right inside a task.
    version: Option<context::Version>,
    float: FloatMode,
    wishes: Wishes,
    n_jobs: i32,
    /// When it was last asked whether libraries have been loaded, by [`ticks`](crate::cpu::ticks).
    looked: u64,
}

/// For so long the answer to that question stands, since it has to take the loader's lock. Nobody gets a library loaded in less: an
/// object with nothing in it takes 14 µs (`dlopen` on a Xeon), libgomp, which is the smallest that has threads, 52. Nor does
/// anybody rearrange the environment in less.
const LOOK_NS: u64 = 10_000;

impl Key {
    /// For a call on this thread that began at `now`. None where a choice cannot be kept: with libraries to limit each call counts
    /// CPUs.
    pub(super) fn here(request: &Request, now: u64) -> Option<Key> {
        let version = match context::with_shelf(|_| ()) {
            Some(()) => None,
            None if limits::nothing_to_limit() => Some(context::Version::here()?),
            None => return None,
        };
        let Request { wishes, n_jobs, .. } = *request;
        Some(Key { version, float: FloatMode::here(), wishes, n_jobs, looked: now })
    }

    /// Whether it is one of calls right inside a task.
    pub(super) fn is_in_task(&self) -> bool {
        self.version.is_none()
    }

    /// Whether a call that began at `now`, on the thread that it was made on, has the same.
    fn holds(&mut self, request: &Request, now: u64) -> bool {
        self.n_jobs == request.n_jobs
            && self.wishes == request.wishes
            && self.float == FloatMode::here()
            && self.version.is_none_or(|version| self.still_holds(version, now))
    }

    fn still_holds(&mut self, version: context::Version, now: u64) -> bool {
        let since = nanoseconds(now.wrapping_sub(self.looked));
        let lately = since < LOOK_NS && limits::nothing_known_at_last_look();
        if !lately {
            self.looked = now;
        }
        version.holds(lately) && (lately || limits::nothing_to_limit())
    }
}

/// What a call chose.
pub(super) struct Warm {
    /// None if the next call has to choose anew.
    pub(super) key: Option<Key>,
    /// Workers that the call would have with items enough.
    pub(super) workers: i32,
    /// See [`Plan::most_workers`](crate::job::Plan::most_workers).
    pub(super) most: usize,
    pub(super) opened: Arc<Opened>,
    pub(super) around: Arc<TaskSurroundings>,
    /// When the call began, by [`ticks`](crate::cpu::ticks).
    pub(super) began: u64,
    /// A job that is over.
    pub(super) spare: Option<Arc<Job>>,
    /// The same, for the frame of its task: in maps that are repeated nobody counts who has it.
    pub(super) twin: Option<Arc<Job>>,
}

/// A call that began so short a time before the next one was less than what handing over costs (`backends/threading`): if its
/// caller has run it alone, the same call is run likewise, and not even timed.
const QUICK_NS: u64 = 1_500;
/// Where it was dealt: helpers stay awake for as long (`backends/threading/spin.rs`).
const AWAKE_NS: u64 = 20_000;
/// After so long it has no place in a row of such calls any more, and none has to be counted (`job/mod.rs`).
const PAUSE_NS: u64 = 50_000;

impl Warm {
    /// What the last call on this thread chose, if a call like this one would choose the same. It began at `now`.
    pub(super) fn last(request: &Request, now: u64) -> Option<Box<Warm>> {
        let mut last: Box<Warm> = match context::with_shelf(Option::take) {
            Some(kept) => kept?.downcast().ok()?,
            None => LAST.try_with(Cell::take).ok().flatten()?,
        };
        if last.fits(request, now) {
            return Some(last);
        }
        if last.is_in_task() {
            // For a call like it that comes later; this one may be of a kind that keeps nothing.
            last.put_back();
        }
        None
    }

    fn fits(&mut self, request: &Request, now: u64) -> bool {
        let seats = usize::try_from(self.workers).unwrap_or(1).min(request.n_items).max(1);
        // Somebody has counted the CPUs for the last call's tasks: the next call's want to know anew.
        let fresh = self.around.workers == seats && self.around.counted.get().is_none();
        fresh && self.key.as_mut().is_some_and(|key| key.holds(request, now))
    }

    /// Runs a call that is the last one once more; gives back what that one chose where it is another.
    pub(super) fn repeat<T: Task>(
        mut self: Box<Self>,
        items: &Items,
        is_same: impl FnOnce(&T) -> bool,
    ) -> std::result::Result<Result<()>, Box<Warm>> {
        let since = nanoseconds(items.started.wrapping_sub(self.began));
        let Some((mut job, how)) = self.repeated_by(items, since, is_same) else { return Err(self) };
        let mut ran = Ok(());
        match how {
            Repeat::Alone => {
                let own = self.twin.take().unwrap_or_else(|| job.clone());
                self.twin = job.run_alone_again(own);
            }
            Repeat::Dealt if since < AWAKE_NS || Job::begin_row(&mut job, items.started) => {
                job.begin_again();
                ran = self.opened.session.run_again(&job);
            }
            Repeat::Dealt => {
                self.spare = Some(job);
                return Err(self);
            }
        }
        self.began = items.started;
        let result = job.finish(&self.opened.name, ran);
        self.spare = Some(job);
        self.put_back();
        Ok(result)
    }

    /// The last call's job, if this call, so many nanoseconds after it, may repeat it, and how.
    fn repeated_by<T: Task>(
        &mut self,
        items: &Items,
        since: u64,
        is_same: impl FnOnce(&T) -> bool,
    ) -> Option<(Arc<Job>, Repeat)> {
        let is_counted = (AWAKE_NS..PAUSE_NS).contains(&since);
        if is_counted || self.around.limit != InnerLimit::None || trace::is_on() {
            return None;
        }
        let shares = 1 + usize::from(self.twin.is_some());
        let how = self.spare.as_ref()?.is_repeated_by(items, shares, is_same)?;
        if how == Repeat::Alone && since >= QUICK_NS {
            return None;
        }
        Some((self.spare.take()?, how))
    }

    /// Keeps the choice, with a job that is over.
    pub(super) fn keep(mut self: Box<Self>, job: Arc<Job>) {
        if self.key.is_some() {
            self.spare = job.may_be_kept().then_some(job);
            self.put_back();
        }
    }

    /// The task that makes the call.
    pub(super) fn parent(&self) -> Parent {
        if self.is_in_task() { context::current_task() } else { None }
    }

    fn is_in_task(&self) -> bool {
        self.key.is_some_and(|key| key.is_in_task())
    }

    fn put_back(self: Box<Self>) {
        if self.is_in_task() {
            // What lay there goes when the shelf is free again.
            let mut kept: Option<Box<dyn Any>> = Some(self);
            let _ = context::with_shelf(|shelf| std::mem::swap(shelf, &mut kept));
        } else {
            let _ = LAST.try_with(|last| last.set(Some(self)));
        }
    }
}
