//! How a map is to be run, and what makes a job of it.

use super::{Job, Progress, Surroundings, Task};
use std::any::Any;
use std::sync::Arc;

/// How a map is to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// Run everything, whatever fails.
    pub collect_errors: bool,
    /// Fixed chunk size; 0 is adaptive.
    pub batch_size: usize,
    /// Seconds that one item may take from its own start; 0 is for ever.
    pub timeout: f64,
    /// Whether `statuses` were asked for.
    pub record: bool,
    /// How often an item whose worker died is started again.
    pub retries: u32,
    /// Whether no item may be started twice, whatever `retries` says.
    pub once_only: bool,
    /// Whether finished items are kept for `next`: in index order, in order of completion, or not at all.
    pub stream: Stream,
}

/// The order in which finished items are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// A blocking call: nobody asks.
    #[default]
    None,
    /// By index.
    Ordered,
    /// As they finish.
    Unordered,
}

/// The task that made a call, if one did: its job, whose cancellation is ours, and its seat.
pub type Parent = Option<(Arc<Job>, usize)>;

/// What one call differs in from the one before, besides its task. It refers to what the caller keeps: each copy of as much
/// would be felt in the shortest of calls.
pub struct Items<'a> {
    /// How many there are.
    pub n_items: usize,
    /// How to run them.
    pub rules: &'a Rules,
    /// See [`Plan::most_workers`].
    pub most_workers: usize,
    /// Who wants to hear of progress.
    pub progress: Option<&'a Arc<Progress>>,
    /// When the call began, by [`crate::cpu::ticks`].
    pub started: u64,
}

/// What makes a [`Job`]. What workers ask for comes first, in one line of the cache (`job/mod.rs`).
#[repr(C)]
pub struct Plan {
    /// The items.
    pub task: Box<dyn Task>,
    /// What workers enter.
    pub around: Arc<dyn Surroundings>,
    /// How many there are.
    pub n_items: usize,
    /// The most threads that run items at the same time.
    pub n_jobs: usize,
    /// The task that made this call.
    pub parent: Parent,
    /// How to run them.
    pub rules: Rules,
    /// Workers at most that the caller has asked for, however many there will be; 0: all that there are.
    pub most_workers: usize,
    /// Who wants to hear of progress.
    pub progress: Option<Arc<Progress>>,
    /// When the call began, by [`crate::cpu::ticks`].
    pub started: u64,
}

impl Plan {
    /// Another task, in the memory of the last one if it is of the same kind; the same one is not written again, so that its
    /// line of the cache stays with the workers. Says whether its function is the same.
    pub(super) fn put<T: Task>(&mut self, task: T) -> bool {
        let place: &mut dyn Any = &mut *self.task;
        let Some(place) = place.downcast_mut::<T>() else {
            self.task = Box::new(task);
            return false;
        };
        let same_function = place.site() == task.site();
        if !place.is_same(&task) {
            *place = task;
        }
        same_function
    }

    pub(super) fn is_watched(&self) -> bool {
        let rules = &self.rules;
        // A chunk of a fixed size may take long: between its items the maps around this one may be cancelled.
        let outlasts_a_cancel = self.parent.is_some() && rules.batch_size != 0;
        rules.timeout > 0.0
            || rules.collect_errors
            || rules.record
            || rules.stream != Stream::None
            || self.progress.is_some()
            || outlasts_a_cancel
    }

    /// One worker with nobody above it who could stop it between two chunks takes all at once.
    pub(super) fn batch_size(&self) -> usize {
        let alone = self.n_jobs == 1 && self.parent.is_none();
        if alone && self.rules.batch_size == 0 { self.n_items } else { self.rules.batch_size }
    }
}
