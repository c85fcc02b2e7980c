//! Items that run in another process: what runs one there, and how its end comes into the books here.

use super::{Chunk, Job, Seat, now};
use crate::status::{ItemFate, Status};
use std::sync::Arc;

/// How an item ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned 0.
    Done,
    /// It returned another code, with the text that it attached.
    Returned(i32, Option<String>),
    /// The same, after it had been asked to end: that may be the only reason.
    Asked(i32, Option<String>),
    /// It took longer than the job allows.
    Late,
    /// Its worker died.
    Lost(Loss),
}

/// The death of a worker, said of the item that it was running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// How the worker ended, e.g. "was killed by signal 11 (SIGSEGV)".
    pub how: String,
    /// Its exit code; -1 where there is none.
    pub exit_code: i32,
    /// The signal that killed it; 0 where there is none.
    pub signal: i32,
    /// How often the item was started.
    pub attempts: u32,
}

/// Tells whether a job was stopped in the process that it belongs to.
pub type StopLine = Box<dyn Fn() -> bool + Send + Sync>;

impl Job {
    /// In a worker process, on its copy of a job: also counts as stopped when `asked` says so.
    pub fn stop_also_when(&self, asked: StopLine) {
        let _ = self.stop_line.set(asked);
    }

    /// In a worker process: works as worker `number`, which no other worker of the job is.
    pub fn enter_as(self: &Arc<Self>, number: usize) -> Seat<'_> {
        self.take_seat(number)
    }

    /// Runs one item on this thread and says how it ended; the books stay as they are.
    pub fn run_item(&self, seat: &Seat, index: usize) -> Ended {
        if self.clock.is_on() {
            return self.run_item_at(seat, index, &mut now());
        }
        let code = self.plan.task.run(index);
        self.ended(seat, code, false)
    }

    /// Whether each item's end is to be told as it comes, rather than that of a whole chunk.
    pub fn wants_each_item(&self) -> bool {
        self.is_watched()
    }

    /// Takes note of items that succeeded elsewhere. What they wrote is where the caller will look for it.
    pub fn items_done(&self, chunk: Chunk) {
        if !self.plan.rules.record && !self.watch.is_streaming() {
            self.count_done(chunk.end - chunk.begin);
            return;
        }
        (chunk.begin..chunk.end).for_each(|index| self.settle(index, Ended::Done));
    }

    /// Takes note of how an item ended.
    pub fn settle(&self, index: usize, ended: Ended) {
        let succeeded = ended == Ended::Done;
        match ended {
            Ended::Done => {
                self.plan.task.record(index, 0);
                self.count_done(1);
            }
            Ended::Returned(code, text) => {
                self.plan.task.record(index, code);
                self.item_returned(index, code, text, self.is_stopped());
            }
            Ended::Asked(code, text) => {
                self.plan.task.record(index, code);
                self.item_returned(index, code, text, true);
            }
            Ended::Late => {
                self.plan.task.record(index, Status::ERR_TIMEOUT.0);
                let (message, fate) = self.timeout_error(index);
                self.item_failed(Status::ERR_TIMEOUT, message, fate, self.is_stopped());
            }
            Ended::Lost(loss) => {
                self.plan.task.record(index, Status::ERR_WORKER_LOST.0);
                let Loss { how, exit_code, signal, attempts } = loss;
                let again = if attempts > 1 { format!(", after {attempts} attempts") } else { String::new() };
                let message = format!("item {index} was lost: its worker process {how}{again}");
                let fate = ItemFate { index, exit_code, signal, attempts, ..ItemFate::default() };
                self.item_failed(Status::ERR_WORKER_LOST, message, fate, self.is_stopped());
            }
        }
        if succeeded || self.plan.rules.collect_errors {
            self.watch.item_finished(index).unwrap_or_else(|error| self.fail(error));
        }
    }

    /// Whether it is time to tell of progress.
    pub fn has_news(&self) -> bool {
        self.plan.progress.as_ref().is_some_and(|progress| progress.is_due(now() - self.begun))
    }

    /// Tells of progress, if it is time.
    pub fn tell(&self) {
        if self.plan.progress.is_some() {
            self.tell_progress(now());
        }
    }

    /// The caller's items.
    pub fn task(&self) -> &dyn super::Task {
        &*self.plan.task
    }

    /// How the job is to be run.
    pub fn rules(&self) -> &super::Rules {
        &self.plan.rules
    }

    /// Workers at most that the caller has asked for, however many there will be; 0: all that there are.
    pub fn most_workers(&self) -> usize {
        self.plan.most_workers
    }

    /// Nanoseconds that one item may take; `None` where there is no limit.
    pub fn item_limit(&self) -> Option<u64> {
        self.clock.limit()
    }
}
