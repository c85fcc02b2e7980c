//! Running a job's items on a thread that has a seat.

use super::{Chunk, Job, Stay, TEXT};
use crate::status::{ItemFate, Status};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

thread_local! {
    /// What the running task said of the failure that it is about to return.
    static TASK_TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A thread's stay in a job as one of its workers. Dropping it leaves.
pub struct Seat {
    job: Arc<Job>,
    number: usize,
    /// The text of an item around this job, put aside while this job's own items run here.
    outer_text: Option<String>,
    stay: Option<Stay>,
}

impl Seat {
    /// The worker's index.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(stay) = self.stay.take() {
            self.job.plan.around.leave(stay);
        }
        let outer = self.outer_text.take();
        let _ = TASK_TEXT.try_with(|text| text.replace(outer));
        self.job.seats.give_back(self.number);
    }
}

fn take_text() -> Option<String> {
    TASK_TEXT.try_with(RefCell::take).ok().flatten()
}

/// Attaches a text to the failure that the task on this thread is returning.
pub fn set_text(message: String) {
    let _ = TASK_TEXT.try_with(|text| text.replace(Some(message)));
}

impl Job {
    /// Attaches a text to the failure that a task of this job, on this thread, is about to return. Should it return 0
    /// after all, the text goes.
    pub fn task_says(&self, message: String) {
        set_text(message);
        self.flags.fetch_or(TEXT, Ordering::Relaxed);
    }

    /// Takes a seat on this thread, or `None` if as many threads as the job has workers are in it already.
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        let number = self.seats.take()?;
        let stay = self.plan.around.clone().enter(self, number);
        Some(Seat { job: self.clone(), number, outer_text: take_text(), stay: Some(stay) })
    }

    /// The next chunk to run, or `None` when none is left or the job has stopped.
    pub fn claim(&self) -> Option<Chunk> {
        if self.is_stopped() { None } else { self.claims.next() }
    }

    /// Works in the job until nothing is left to claim.
    pub fn work(self: &Arc<Self>) {
        // A latecomer to a finished job does not disturb its limits.
        if self.claims.is_empty() || self.is_stopped() {
            return;
        }
        // Without a seat there are as many workers as asked for, and they will do the rest.
        let Some(seat) = self.enter() else { return };
        while let Some(chunk) = self.claim() {
            self.run(&seat, chunk);
        }
    }

    /// Runs a claimed chunk, up to where the job stops.
    pub fn run(&self, seat: &Seat, chunk: Chunk) {
        let begin = self.claims.is_adaptive().then(|| self.now());
        let rest = if self.is_watched() { chunk } else { self.run_plain(chunk) };
        if rest.begin < rest.end {
            self.run_watched(seat, rest);
        }
        if let Some(begin) = begin {
            self.claims.took(chunk.end - chunk.begin, self.now() - begin);
        }
    }

    /// Whether somebody wants to know of each item.
    fn is_watched(&self) -> bool {
        let rules = &self.plan.rules;
        // A chunk of a fixed size may take long: between its items the maps around this one may be cancelled.
        let outlasts_a_cancel = self.plan.parent.is_some() && !self.claims.is_adaptive();
        self.clock.is_on()
            || rules.collect_errors
            || rules.record
            || self.plan.progress.is_some()
            || self.watch.is_streaming()
            || outlasts_a_cancel
            || self.flags.load(Ordering::Relaxed) & TEXT != 0
    }

    /// The tight loop: nothing between two items but a look at the flags. Returns what is left of the chunk when a task
    /// has spoken without failing: from then on every item is watched, lest its words are taken for another's.
    fn run_plain(&self, chunk: Chunk) -> Chunk {
        let (reached, code) = self.plan.task.run_range(chunk, &self.flags);
        self.done.fetch_add(reached - chunk.begin, Ordering::Relaxed);
        if let Some(code) = code {
            self.item_returned(reached, code, take_text());
            return Chunk { begin: chunk.end, end: chunk.end };
        }
        if self.flags.load(Ordering::Relaxed) & TEXT != 0 {
            take_text();
        }
        Chunk { begin: reached, end: chunk.end }
    }

    /// One item at a time, with all that somebody wants to know of each.
    fn run_watched(&self, seat: &Seat, chunk: Chunk) {
        let mut now = self.now();
        for index in chunk.begin..chunk.end {
            self.look_at_clock();
            if self.is_stopped() {
                return;
            }
            self.clock.item_starts(seat.number, index, now);
            let code = self.plan.task.run(index);
            now = self.now();
            let late = self.clock.item_ends(seat.number, now);
            let text =
                if code != 0 || self.flags.load(Ordering::Relaxed) & TEXT != 0 { take_text() } else { None };
            if late {
                self.plan.task.record(index, Status::ERR_TIMEOUT.0);
                let (message, fate) = self.timeout_error(index);
                self.item_failed(Status::ERR_TIMEOUT, message, fate);
            } else {
                self.plan.task.record(index, code);
                if code == 0 {
                    self.done.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.item_returned(index, code, text);
                }
            }
            if (code == 0 && !late) || self.plan.rules.collect_errors {
                self.watch.item_finished(index).unwrap_or_else(|error| self.fail(error));
            }
            self.tell_progress(now);
        }
    }

    fn item_returned(&self, index: usize, code: i32, text: Option<String>) {
        let message = match text {
            Some(text) => format!("item {index} failed with code {code}: {text}"),
            None => format!("item {index} failed with code {code}"),
        };
        let fate = ItemFate { task_code: code, index, attempts: 1, ..ItemFate::default() };
        self.item_failed(Status::ERR_TASK_FAILED, message, fate);
    }
}
