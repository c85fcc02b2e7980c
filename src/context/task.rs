//! What a task finds around it: its place in the tree of maps, its share, its limits.

use super::{Chosen, Frame, Place, STACK, Setting, with_stack};
use crate::cpu::{self, FloatMode, Pins};
use crate::job::{Job, Stay, Surroundings};
use crate::limits::{self, Limit};
use crate::message::Around;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// How the tasks of one map see the world; made once for a map, entered by every worker.
pub struct TaskSurroundings {
    /// What maps inside the tasks start from.
    pub setting: Setting,
    /// Whether that has a backend which somebody chose, rather than the nesting rule.
    pub backend_was_chosen: bool,
    /// Nesting level of the tasks.
    pub level: i32,
    /// CPUs that the workers divide; `None` for the whole process's, counted when somebody asks.
    pub budget: Option<i32>,
    /// The process's CPUs, once counted.
    pub counted: OnceLock<i32>,
    /// Maps around the tasks, this one included.
    pub depth: u32,
    /// Workers of the map.
    pub workers: usize,
    /// What the inner limit is to be on each worker.
    pub limit: InnerLimit,
    /// The floating-point mode of the caller.
    pub float: FloatMode,
    /// Where pool threads run that work in the map. Only for a map outside any task: what is inside one has no CPUs of its own
    /// beside its parent's.
    pub pins: Option<Arc<Pins>>,
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
    /// Sees to it that a pool thread with no other task is where it should be. The thread of a caller is left alone.
    fn pin(&self, seat: usize) {
        match &self.pins {
            Some(pins) => pins.enter(seat, self.workers),
            None => cpu::leave_pins(),
        }
    }

    /// CPUs of one worker.
    fn share(&self, seat: usize) -> Option<i32> {
        if self.workers == 1 {
            return self.budget;
        }
        let cpus = self.budget.unwrap_or_else(|| *self.counted.get_or_init(crate::cpu::count));
        Some(super::share(cpus, self.workers, seat))
    }

    /// The limit on one worker.
    pub fn limit(&self, seat: usize) -> Option<Limit> {
        match self.limit {
            InnerLimit::None => None,
            InnerLimit::Exact(threads) => Some(Limit { threads, exact: true }),
            InnerLimit::Share => {
                let threads = self.share(seat).unwrap_or_else(crate::cpu::count);
                Some(Limit { threads, exact: false })
            }
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
    /// Thread-limit scopes that were open on this thread before the worker entered.
    limit_scopes: usize,
}

impl TaskFrame {
    pub(super) fn place(&self) -> Place {
        let around = self.around();
        Place {
            level: around.map_or(0, |around| around.level),
            budget: around.and_then(|around| around.share(self.seat)),
            depth: around.map_or(0, |around| around.depth),
            parent: Some(self.seat()),
        }
    }

    /// There always is one: this room makes the surroundings of all jobs.
    pub(super) fn around(&self) -> Option<&TaskSurroundings> {
        self.job.surroundings().as_any().downcast_ref()
    }

    pub(super) fn limit_scopes(&self) -> usize {
        self.limit_scopes
    }

    pub(super) fn seat(&self) -> (Arc<Job>, usize) {
        (self.job.clone(), self.seat)
    }
}

impl Surroundings for TaskSurroundings {
    fn enter(&self, job: Arc<Job>, seat: usize) -> Stay {
        let limit_scopes = limits::open_scopes();
        let limit = self.limit(seat).map(limits::enter_thread);
        let float = FloatMode::here();
        if float != self.float {
            self.float.set();
        }
        let scopes = with_stack(|stack| {
            let depth = stack.len();
            if depth == 0 {
                self.pin(seat);
            }
            stack.push(Frame::Task(TaskFrame { job, seat, limit_scopes }));
            depth
        });
        Stay { scopes: scopes.unwrap_or(usize::MAX), limit_scopes, limit, float }
    }

    fn tidy(&self, stay: &Stay) {
        close_left_open(stay.limit_scopes, stay.scopes.saturating_add(1));
    }

    fn leave(&self, stay: Stay) -> Option<Arc<Job>> {
        // Usually there is nothing above the task's own frame. It is dropped after the stack is free again.
        let own = STACK.try_with(|stack| stack.borrow_mut().pop_only(stay.scopes));
        if !matches!(own, Ok(Some(_))) {
            close_left_open(stay.limit_scopes, stay.scopes);
        }
        drop(stay.limit);
        stay.float.set();
        match own {
            Ok(Some(Frame::Task(frame))) => Some(frame.job),
            _ => None,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn describe(&self, seat: usize) -> Around {
        let limit = self.limit(seat);
        Around {
            level: self.level,
            depth: self.depth,
            cpus: self.share(seat).unwrap_or_else(crate::cpu::count),
            limit: limit.map_or(0, |limit| limit.threads),
            limit_is_exact: limit.is_some_and(|limit| limit.exact),
            backend: self
                .setting
                .backend
                .as_ref()
                .map_or(String::new(), |chosen| chosen.name().as_ref().to_owned()),
            n_jobs: self.setting.n_jobs.unwrap_or(0),
            inner: self.setting.inner.unwrap_or(0),
            backend_was_chosen: self.backend_was_chosen,
            float: self.float.bits(),
        }
    }
}

impl TaskSurroundings {
    /// What the tasks of a chunk that came from another process find around them.
    pub fn from_outside(around: &Around) -> Self {
        let set = |number: i32| (number != 0).then_some(number);
        let backend = (!around.backend.is_empty()).then(|| Chosen::Named(around.backend.clone().into()));
        TaskSurroundings {
            setting: Setting { backend, n_jobs: set(around.n_jobs), inner: set(around.inner) },
            backend_was_chosen: around.backend_was_chosen,
            level: around.level,
            budget: Some(around.cpus),
            counted: OnceLock::new(),
            depth: around.depth,
            // The division among workers was made where the chunk comes from.
            workers: 1,
            limit: match around.limit {
                0 => InnerLimit::None,
                threads if around.limit_is_exact => InnerLimit::Exact(threads),
                _ => InnerLimit::Share,
            },
            float: FloatMode::from_bits(around.float),
            pins: None,
        }
    }
}

/// Closes scopes above these numbers on this thread, innermost first.
pub fn close_left_open(limit_scopes: usize, scopes: usize) {
    limits::close_above(limit_scopes);
    // Frames are dropped after the stack is free again: closing a session may run foreign code.
    let left = STACK.try_with(|stack| stack.borrow_mut().truncate(scopes));
    drop(left);
}
