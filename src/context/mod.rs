//! The scoped choice: which backend, how many workers, how many threads inside each.
//!
//! Every thread has its own stack of scopes. A key (backend, n_jobs, inner limit) comes from the innermost scope
//! that set it, else from the process default, else from the environment, else from the built-in default. A task
//! sees a snapshot of what its map decided for it, whatever thread it runs on.

mod budget;
mod defaults;
mod task;

pub use budget::{normalise, share};
pub use defaults::{forget_backend, fork_guard, make_default, malformed_variables, set_default};
pub use task::{InnerLimit, TaskFrame, TaskSurroundings, close_left_open};

use crate::backends::OpenRequest;
use crate::cpu::Environment;
use crate::job::Job;
use crate::limits;
use crate::registry::{self, Opened};
use crate::scope::{ScopeStack, Token};
use crate::status::{Error, Result, Status};
use std::any::Any;
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

/// Maps nested deeper than this are taken for unbounded recursion and refused, before the stack runs out.
pub const MAX_DEPTH: u32 = 100;

/// The backend that some scope or default chose.
#[derive(Clone)]
pub enum Chosen {
    /// With a session of the scope's own.
    Opened(Arc<Opened>),
    /// By name: the first map finds or opens the name's shared session.
    Named(Cow<'static, str>),
}

impl Chosen {
    /// The backend's name.
    pub fn name(&self) -> Arc<str> {
        match self {
            Chosen::Opened(opened) => opened.name.clone(),
            Chosen::Named(name) => Arc::from(&**name),
        }
    }

    /// Its session.
    pub fn session(&self, n_jobs: i32, inner: i32) -> Result<Arc<Opened>> {
        match self {
            Chosen::Opened(opened) => Ok(opened.clone()),
            Chosen::Named(name) => registry::implicit(name, n_jobs, inner),
        }
    }
}

/// What one scope set. `None` leaves the key to the scopes around it.
#[derive(Clone, Default)]
pub struct Setting {
    /// Where maps run.
    pub backend: Option<Chosen>,
    /// How many workers: positive, or negative as joblib counts.
    pub n_jobs: Option<i32>,
    /// Threads of BLAS and OpenMP inside each task.
    pub inner: Option<i32>,
}

impl Setting {
    /// Fills the keys that are not set from an enclosing setting.
    fn inherit(&mut self, outer: &Setting) {
        if self.backend.is_none() {
            self.backend.clone_from(&outer.backend);
        }
        self.n_jobs = self.n_jobs.or(outer.n_jobs);
        self.inner = self.inner.or(outer.inner);
    }
}

/// Where in the tree of maps a thread stands.
#[derive(Clone, Default)]
pub struct Place {
    /// 0 outside any task.
    pub level: i32,
    /// CPUs that this place owns; `None` at the root: the whole process's.
    pub budget: Option<i32>,
    /// Maps around this place, sequential ones included.
    pub depth: u32,
    /// The map whose task runs here, and the worker seat it runs on.
    pub parent: Option<(Arc<Job>, usize)>,
}

impl Place {
    /// CPUs that a map started here may divide among its workers.
    pub fn cpus(&self) -> i32 {
        self.budget.unwrap_or_else(crate::cpu::count)
    }
}

/// A setting with every key that applies, and the place: all that a map or a captured context needs.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// The keys in force.
    pub setting: Setting,
    /// Where they are in force.
    pub place: Place,
    /// Whether some scope, default or variable chose the backend, rather than the built-in or the nesting rule.
    pub backend_was_chosen: bool,
}

/// Few bytes, since a task's is written and read in every call.
enum Frame {
    Scope(Box<Setting>),
    /// This and the next hide everything below them: what they hold is complete.
    Attached(Arc<Snapshot>),
    Task(TaskFrame),
}

thread_local! {
    static STACK: RefCell<ScopeStack<Frame>> = const { RefCell::new(ScopeStack::new()) };
}

/// In every call, so that what `f` puts on the stack is not copied on the way.
#[inline(always)]
fn with_stack<R>(f: impl FnOnce(&mut ScopeStack<Frame>) -> R) -> Result<R> {
    STACK
        .try_with(|stack| f(&mut stack.borrow_mut()))
        .map_err(|_| Error::new(Status::ERR_SCOPE, "this thread is ending: it has no scopes any more"))
}

/// Checks the arguments of `pb_push_backend` and `pb_set_default_backend` and opens the backend they name.
pub fn setting(backend: Option<&str>, n_jobs: i32, inner: i32, params: Option<&str>) -> Result<Setting> {
    if inner < 0 {
        return Err(Error::invalid(format!(
            "inner_max_num_threads is {inner}: it is a number of threads, or 0 for each worker's share of the CPUs"
        )));
    }
    let Some(name) = backend else {
        if let Some(params) = params.filter(|params| !params.trim().is_empty()) {
            return Err(Error::invalid(format!(
                "params '{params}' belong to a backend: name the backend in the same call"
            )));
        }
        return Ok(Setting {
            backend: None,
            n_jobs: (n_jobs != 0).then_some(n_jobs),
            inner: (inner != 0).then_some(inner),
        });
    };
    let n_jobs = if n_jobs == 0 { -1 } else { n_jobs };
    let opened = registry::open(name, &OpenRequest { n_jobs, inner_max_num_threads: inner, params })?;
    Ok(Setting {
        backend: Some(Chosen::Opened(opened)),
        n_jobs: Some(n_jobs),
        inner: (inner != 0).then_some(inner),
    })
}

/// Opens a scope on this thread.
pub fn push(setting: Setting) -> Result<Token> {
    open(Frame::Scope(Box::new(setting)))
}

fn open(frame: Frame) -> Result<Token> {
    opens_scope();
    with_stack(|stack| stack.push(frame))
}

/// To be called before a task opens a scope of any kind, so that its job closes what the task leaves open.
fn opens_scope() {
    if let Some((job, _)) = current_task() {
        job.untidy();
    }
}

/// Opens a thread-limit scope on this thread.
pub fn push_thread_limit(limit: i32, user_api: u32) -> Result<Token> {
    opens_scope();
    limits::push(limit, user_api)
}

/// How many scopes, attached contexts and tasks are on this thread's stack.
#[inline]
pub fn open_scopes() -> usize {
    STACK.try_with(|stack| stack.borrow().len()).unwrap_or(0)
}

/// Closes the innermost scope of this thread, if `token` is its own.
pub fn pop(token: Token) -> Result<()> {
    // The frame is dropped after the stack is free again: closing a session may run foreign code.
    let frame = with_stack(|stack| {
        let task = stack.iter().position(|frame| matches!(frame, Frame::Task(_)));
        let floor = task.map_or(0, |above| stack.len() - above);
        stack.pop(token, floor, "backend")
    })??;
    drop(frame);
    Ok(())
}

/// Puts a captured context in force on this thread until the token is popped.
pub fn attach(snapshot: Arc<Snapshot>) -> Result<Token> {
    open(Frame::Attached(snapshot))
}

/// What a thread's choice depends on: while it holds [`resolve`] says the same.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    scope: Token,
    defaults: u64,
    environment: Environment,
}

impl Version {
    /// The version in force on this thread; none where that cannot be told.
    pub fn here() -> Option<Version> {
        let (scope, defaults) = (innermost()?, defaults::changes());
        Some(Version { scope, defaults, environment: Environment::here()? })
    }

    /// Whether it is in force on this thread, on which it was made. `lately`: whether it was a moment ago.
    #[inline]
    pub fn holds(&self, lately: bool) -> bool {
        innermost() == Some(self.scope)
            && defaults::changes() == self.defaults
            && (lately && self.environment.is_same_at_a_glance() || self.environment.is_same())
    }
}

/// Names what is open on this thread.
fn innermost() -> Option<Token> {
    STACK.try_with(|stack| stack.borrow().top()).ok()
}

/// All that is in force on this thread now.
pub fn resolve() -> Result<Snapshot> {
    let (mut found, hidden) = look_at_stack()?;
    if !hidden {
        defaults::fill(&mut found.setting)?;
        found.backend_was_chosen = found.setting.backend.is_some();
    }
    Ok(found)
}

/// Where in the tree of maps this thread stands, whether or not its context can be used.
pub fn place() -> Result<Place> {
    Ok(look_at_stack()?.0.place)
}

/// What this thread's stack says, and whether that hides the defaults.
fn look_at_stack() -> Result<(Snapshot, bool)> {
    let mut found = Snapshot::default();
    let mut hidden = false;
    with_stack(|stack| {
        for frame in stack.iter() {
            let chosen_above = found.setting.backend.is_some();
            match frame {
                Frame::Scope(setting) => {
                    found.setting.inherit(setting);
                    continue;
                }
                Frame::Attached(snapshot) => {
                    found.setting.inherit(&snapshot.setting);
                    found.place = snapshot.place.clone();
                    found.backend_was_chosen = chosen_above || snapshot.backend_was_chosen;
                }
                Frame::Task(task) => {
                    found.place = task.place();
                    if let Some(around) = task.around() {
                        found.setting.inherit(&around.setting);
                        found.backend_was_chosen = chosen_above || around.backend_was_chosen;
                    }
                }
            }
            hidden = true;
            break;
        }
    })?;
    Ok((found, hidden))
}

/// The task that runs on this thread now, if any: its job and its seat.
pub fn current_task() -> Option<(Arc<Job>, usize)> {
    STACK
        .try_with(|stack| {
            stack.borrow().iter().find_map(|frame| match frame {
                Frame::Task(task) => Some(task.seat()),
                _ => None,
            })
        })
        .ok()
        .flatten()
}

/// Shows `f` what the last call has kept of those that a task made right inside its worker's stay here: with no scope of its own
/// around them, so that all that a call's choice depends on is what it was, but for what the call itself says. None elsewhere.
/// `f` only takes or puts.
#[inline]
pub fn with_shelf<R>(f: impl FnOnce(&mut Option<Box<dyn Any>>) -> R) -> Option<R> {
    let show = |stack: &mut ScopeStack<Frame>| match stack.last_mut() {
        Some(Frame::Task(task)) => Some(f(&mut task.shelf)),
        _ => None,
    };
    STACK.try_with(|stack| show(&mut stack.borrow_mut())).ok().flatten()
}

/// Closes a thread-limit scope, unless it was opened outside the task that runs on this thread.
pub fn pop_thread_limit(token: Token) -> Result<()> {
    let floor = with_stack(|stack| {
        stack.iter().find_map(|frame| match frame {
            Frame::Task(task) => Some(task.limit_scopes()),
            _ => None,
        })
    })?;
    limits::pop_above(token, floor.unwrap_or(0))
}

/// The name of the backend in force on this thread.
pub fn current_backend() -> Result<Arc<str>> {
    Ok(resolve()?.setting.backend.map_or_else(|| "threading".into(), |chosen| chosen.name()))
}
