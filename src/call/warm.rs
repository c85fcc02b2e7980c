//! What a thread's last call chose, kept for the next one that would choose the same.
//!
//! A loop that calls a map again and again resolves the same context each time. What the choice depends on is read at every
//! call, in a few nanoseconds each: the scopes of the thread, the process default, the environment, the floating-point mode,
//! whether there are libraries to limit. While that is the same, so is the choice; and the memory of the last job does for
//! the next.

use super::Request;
use super::Wishes;
use crate::context::{self, TaskSurroundings};
use crate::cpu::FloatMode;
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
}

impl Key {
    /// For a call on this thread, now. None where a choice cannot be kept: with libraries to limit each call counts CPUs.
    pub(super) fn here(request: &Request) -> Option<Key> {
        let version = context::version()?;
        let key = Key { version, float: FloatMode::here(), wishes: request.wishes, n_jobs: request.n_jobs };
        limits::nothing_to_limit().then_some(key)
    }
}

/// What a call chose.
pub(super) struct Warm {
    /// None if the next call has to choose anew.
    pub(super) key: Option<Key>,
    /// Workers that the call would have with items enough.
    pub(super) workers: i32,
    pub(super) opened: Arc<Opened>,
    pub(super) around: Arc<TaskSurroundings>,
    /// A job that is over.
    pub(super) spare: Option<Arc<Job>>,
}

impl Warm {
    /// What the last call on this thread chose, if this one would choose the same.
    pub(super) fn take(key: Option<Key>, n_items: usize) -> Option<Box<Warm>> {
        let last = LAST.try_with(Cell::take).ok().flatten()?;
        let seats = usize::try_from(last.workers).unwrap_or(1).min(n_items).max(1);
        // Somebody has counted the CPUs for the last call's tasks: the next call's want to know anew.
        let fresh = last.around.workers == seats && last.around.counted.get().is_none();
        (fresh && key.is_some() && last.key == key).then_some(last)
    }

    /// Keeps the choice, with a job that is over.
    pub(super) fn keep(mut self: Box<Self>, job: Arc<Job>) {
        if self.key.is_some() {
            self.spare = job.may_be_kept().then_some(job);
            let _ = LAST.try_with(|last| last.set(Some(self)));
        }
    }
}
