//! What a thread's last call chose, kept for the next one that would choose the same.
//!
//! A loop that calls a map again and again resolves the same context each time. What the choice depends on is read at every
//! call, in a few nanoseconds each: the scopes of the thread, the process default, the environment, the floating-point mode,
//! whether there are libraries to limit. While that is the same, so is the choice; and the memory of the last job does for
//! the next.

use super::Request;
use super::Wishes;
use crate::context::{self, TaskSurroundings};
use crate::cpu::{FloatMode, nanoseconds};
use crate::job::Job;
use crate::limits;
use crate::registry::Opened;
use std::cell::Cell;
use std::sync::Arc;

thread_local! {
    static LAST: Cell<Option<Box<Warm>>> = const { Cell::new(None) };
}

/// All that a choice depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    version: context::Version,
    float: FloatMode,
    wishes: Wishes,
    n_jobs: i32,
    /// When it was last asked whether libraries have been loaded, by [`ticks`](crate::cpu::ticks).
    looked: u64,
}

/// For so long the answer to that question stands: nobody gets a library loaded, initialised and used in less, and the
/// question has to take the loader's lock.
const LOOK_NS: u64 = 2_000;

impl Key {
    /// For a call on this thread that began at `now`, after the call `last`. None where a choice cannot be kept: with
    /// libraries to limit each call counts CPUs.
    pub(super) fn here(request: &Request, now: u64, last: Option<&Warm>) -> Option<Key> {
        let version = context::version()?;
        let looked = last.and_then(|last| Some(last.key?.looked)).filter(|looked| {
            nanoseconds(now.wrapping_sub(*looked)) < LOOK_NS && limits::nothing_known_at_last_look()
        });
        let looked = looked.or_else(|| limits::nothing_to_limit().then_some(now))?;
        Some(Key {
            version,
            float: FloatMode::here(),
            wishes: request.wishes,
            n_jobs: request.n_jobs,
            looked,
        })
    }

    fn is_like(&self, other: &Key) -> bool {
        *self == Key { looked: self.looked, ..*other }
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
    /// A job that is over.
    pub(super) spare: Option<Arc<Job>>,
}

impl Warm {
    /// What the last call on this thread chose.
    pub(super) fn last() -> Option<Box<Warm>> {
        LAST.try_with(Cell::take).ok().flatten()
    }

    /// The same for a call with this key, if it would choose the same.
    pub(super) fn again(mut self: Box<Self>, key: Option<Key>, n_items: usize) -> Option<Box<Warm>> {
        let seats = usize::try_from(self.workers).unwrap_or(1).min(n_items).max(1);
        // Somebody has counted the CPUs for the last call's tasks: the next call's want to know anew.
        let fresh = self.around.workers == seats && self.around.counted.get().is_none();
        let same = key?.is_like(&self.key?);
        self.key = key;
        (fresh && same).then_some(self)
    }

    /// Keeps the choice, with a job that is over.
    pub(super) fn keep(mut self: Box<Self>, job: Arc<Job>) {
        if self.key.is_some() {
            self.spare = job.may_be_kept().then_some(job);
            let _ = LAST.try_with(|last| last.set(Some(self)));
        }
    }
}
