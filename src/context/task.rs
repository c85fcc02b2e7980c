//! What a task finds around it: its place in the tree of maps, its share, its limits.

use super::{Frame, Place, STACK, Setting, with_stack};
use crate::job::{Job, Surroundings};
use crate::limits::{self, Limit};
use std::any::Any;
use std::sync::Arc;

/// How the tasks of one map see the world; made once for a map, entered by every worker.
pub struct TaskSurroundings {
    /// What maps inside the tasks start from.
    pub setting: Setting,
    /// Whether that has a backend which somebody chose, rather than the nesting rule.
    pub backend_was_chosen: bool,
    /// Nesting level of the tasks.
    pub level: i32,
    /// CPUs that the workers divide; `None` for the whole process's, where there is but one worker.
    pub budget: Option<i32>,
    /// Maps around the tasks, this one included.
    pub depth: u32,
    /// Workers of the map.
    pub workers: usize,
    /// What the inner limit is to be on each worker.
    pub limit: InnerLimit,
}

/// The limit of BLAS and OpenMP threads inside a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerLimit {
    /// Leave every library as it is.
    None,
    /// Never above the worker's share of the CPUs.
    Share,
    /// What the caller named.
    Exact(i32),
}

impl TaskSurroundings {
    /// CPUs of one worker.
    fn share(&self, seat: usize) -> Option<i32> {
        self.budget.map(|cpus| super::share(cpus, self.workers, seat))
    }

    /// The limit on one worker.
    pub fn limit(&self, seat: usize) -> Option<Limit> {
        match self.limit {
            InnerLimit::None => None,
            InnerLimit::Exact(threads) => Some(Limit { threads, exact: true }),
            InnerLimit::Share => self.share(seat).map(|threads| Limit { threads, exact: false }),
        }
    }

    /// The limit for what all workers share: the smallest of theirs.
    pub fn process_limit(&self) -> Option<Limit> {
        self.limit(self.workers.saturating_sub(1))
    }
}

/// A task on a thread's stack of scopes.
pub struct TaskFrame {
    job: Arc<Job>,
    seat: usize,
    share: Option<i32>,
    /// Thread-limit scopes that were open on this thread before the worker entered.
    limit_scopes: usize,
    around: Arc<TaskSurroundings>,
}

impl TaskFrame {
    pub(super) fn place(&self) -> Place {
        Place {
            level: self.around.level,
            budget: self.share,
            depth: self.around.depth,
            parent: Some((self.job.clone(), self.seat)),
        }
    }

    pub(super) fn around(&self) -> &TaskSurroundings {
        &self.around
    }

    pub(super) fn limit_scopes(&self) -> usize {
        self.limit_scopes
    }

    pub(super) fn seat(&self) -> (Arc<Job>, usize) {
        (self.job.clone(), self.seat)
    }
}

/// A worker's stay in a map: dropping it leaves, and closes what its tasks left open.
struct Stay {
    scopes: usize,
    limit_scopes: usize,
    _limit: Option<limits::ThreadLimit>,
}

impl Surroundings for Arc<TaskSurroundings> {
    fn enter(&self, job: &Arc<Job>, seat: usize) -> Box<dyn Any> {
        let limit_scopes = limits::open_scopes();
        let frame =
            TaskFrame { job: job.clone(), seat, share: self.share(seat), limit_scopes, around: self.clone() };
        let scopes = with_stack(|stack| {
            let depth = stack.len();
            stack.push(Frame::Task(frame));
            depth
        });
        Box::new(Stay {
            scopes: scopes.unwrap_or(usize::MAX),
            limit_scopes,
            _limit: self.limit(seat).map(limits::enter_thread),
        })
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        limits::close_above(self.limit_scopes);
        // Frames are dropped after the stack is free again: closing a session may run foreign code.
        let left = STACK.try_with(|stack| stack.borrow_mut().truncate(self.scopes).collect::<Vec<_>>());
        drop(left);
    }
}
