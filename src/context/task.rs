//! What a task finds around it: its place in the tree of maps, its share, its limits.

use super::{Chosen, Frame, Place, STACK, Setting, with_stack};
use crate::cpu::{self, FloatMode, Pins};
use crate::job::{Job, Stay, Surroundings};
use crate::limits::{self, Limit, ThreadLimit};
use crate::message::Around;
use std::any::Any;
use std::sync::{Arc, OnceLock};

/// How the tasks of one map see the world; made once for a map, entered by every worker. Aligned to lines of the cache: what lies beside
/// it is written in every call.
#[repr(align(64))]
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

/// A task on a thread's stack of scopes, and what is put back when it leaves.
pub struct TaskFrame {
    job: Arc<Job>,
    seat: usize,
    /// Thread-limit scopes that were open on this thread before the worker entered.
    limit_scopes: usize,
    /// The worker's own limit; most have none, and a frame is copied when it is opened and closed.
    limit: Option<Box<ThreadLimit>>,
    /// The thread's floating-point mode before the worker entered.
    float: FloatMode,
    /// What the last call made here has kept for the next one.
    pub(super) shelf: Option<Box<dyn Any>>,
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
        let limit = self.limit(seat).map(|limit| Box::new(limits::enter_thread(limit)));
        let float = FloatMode::here();
        if float != self.float {
            self.float.set();
        }
        let entered = with_stack(move |stack| {
            let scopes = stack.len();
            if scopes == 0 {
                self.pin(seat);
            }
            let is_nested = stack.iter().any(|frame| matches!(frame, Frame::Task(_)));
            let frame = TaskFrame { job, seat, limit_scopes, limit, float, shelf: None };
            stack.push_unnamed(Frame::Task(frame));
            Stay { scopes, is_nested }
        });
        // A thread that is ending makes no map, and works in none.
        entered.unwrap_or(Stay { scopes: usize::MAX, is_nested: false })
    }

    fn tidy(&self, stay: Stay) {
        let own = with_stack(|stack| match stack.get(stay.scopes) {
            Some(Frame::Task(own)) => Some(own.limit_scopes),
            _ => None,
        });
        if let Ok(Some(limit_scopes)) = own {
            close_left_open(limit_scopes, stay.scopes + 1);
        }
    }

    fn leave(&self, stay: Stay) -> Option<Arc<Job>> {
        // Usually there is nothing above the task's own frame. It is dropped after the stack is free again.
        let mut own = with_stack(|stack| stack.pop_only(stay.scopes)).ok().flatten();
        if own.is_none() {
            self.tidy(stay);
            own = with_stack(|stack| stack.pop_only(stay.scopes)).ok().flatten();
        }
        let Some(Frame::Task(TaskFrame { job, limit, float, shelf, .. })) = own else { return None };
        // It refers to the job, which may be over when this worker is gone.
        drop(shelf);
        drop(limit);
        float.set();
        Some(job)
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
