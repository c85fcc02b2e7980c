//! Running a job's items on a thread that has a seat.

use super::{Chunk, Ended, Job, Stay, UNTIDY, callsite, now};
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
        self.untidy();
    }

    /// A task of this job has opened a scope on its thread: should it leave it open, it is closed after the item.
    pub fn untidy(&self) {
        self.flags.fetch_or(UNTIDY, Ordering::Relaxed);
    }

    /// Takes a seat on this thread, or `None` if as many threads as the job has workers are in it already.
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        Some(self.sit_down(self.seats.take()?))
    }

    pub(super) fn sit_down(self: &Arc<Self>, number: usize) -> Seat {
        let stay = self.plan.around.clone().enter(self, number);
        Seat { job: self.clone(), number, outer_text: take_text(), stay: Some(stay) }
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

    /// Nanoseconds that one thread would take for the whole job, where that is known and nobody watches its items.
    pub fn estimate(&self) -> Option<u64> {
        if !self.claims.is_adaptive() || self.is_watched() {
            return None;
        }
        let pace = callsite::recall(self.plan.task.site())?;
        Some((pace as u128 * self.n_items() as u128 / 1000).try_into().unwrap_or(u64::MAX))
    }

    /// Works alone in a job that should take `nanoseconds`. False if it takes much longer, and others should help: chunks
    /// grow from one item, so that a function whose items have become slow is found out by the first of them.
    pub fn work_alone(self: &Arc<Self>, nanoseconds: u64) -> bool {
        let Some(seat) = self.enter() else { return true };
        let begin = now();
        let (mut ran, mut next) = (0, 1);
        while let Some(chunk) = if self.is_stopped() { None } else { self.claims.next_of(next) } {
            self.run_chunk(&seat, chunk);
            ran += chunk.end - chunk.begin;
            let took = now() - begin;
            self.ran_alone(ran, took);
            if took > 4 * nanoseconds + 1000 {
                break;
            }
            next = ran.saturating_mul(8);
        }
        self.claims.is_empty() || self.is_stopped()
    }

    /// Remembers for the next map of the same function what its items took when one thread ran them all.
    pub fn ran_alone(&self, items: usize, nanoseconds: u64) {
        // One item tells nothing of whether two wait for each other.
        if self.n_items() == 1 || self.is_watched() || self.is_stopped() || !self.claims.is_adaptive() {
            return;
        }
        if let Some(pace) = nanoseconds.saturating_mul(1000).checked_div(items as u64) {
            callsite::remember(self.plan.task.site(), pace);
        }
    }

    fn run_chunk(&self, seat: &Seat, chunk: Chunk) {
        let rest = if self.is_watched() { chunk } else { self.run_plain(seat, chunk) };
        if rest.begin < rest.end {
            self.run_watched(seat, rest);
        }
    }

    /// Runs a claimed chunk, up to where the job stops.
    pub fn run(&self, seat: &Seat, chunk: Chunk) {
        let begin = self.claims.is_adaptive().then(now);
        self.run_chunk(seat, chunk);
        if let Some(begin) = begin {
            self.claims.took(chunk.end - chunk.begin, now() - begin);
        }
    }

    /// Whether somebody wants to know of each item.
    pub(super) fn is_watched(&self) -> bool {
        let rules = &self.plan.rules;
        // A chunk of a fixed size may take long: between its items the maps around this one may be cancelled.
        let outlasts_a_cancel = self.plan.parent.is_some() && !self.claims.is_adaptive();
        self.clock.is_on()
            || rules.collect_errors
            || rules.record
            || self.plan.progress.is_some()
            || self.watch.is_streaming()
            || outlasts_a_cancel
            || self.flags.load(Ordering::Relaxed) & UNTIDY != 0
    }

    /// The tight loop: nothing between two items but a look at the flags. Returns what is left of the chunk when a task
    /// has left something behind: from then on every item is watched, lest another one finds it.
    fn run_plain(&self, seat: &Seat, chunk: Chunk) -> Chunk {
        let (reached, code) = self.plan.task.run_range(chunk, &self.flags);
        self.count_done(reached - chunk.begin);
        if let Some(code) = code {
            self.item_returned(reached, code, take_text());
            return Chunk { begin: chunk.end, end: chunk.end };
        }
        self.tidy(seat);
        Chunk { begin: reached, end: chunk.end }
    }

    /// Clears away what an item has left on this thread, if one has.
    fn tidy(&self, seat: &Seat) {
        if self.flags.load(Ordering::Relaxed) & UNTIDY != 0 {
            take_text();
            seat.stay.iter().for_each(|stay| self.plan.around.tidy(stay));
        }
    }

    /// One item at a time, with all that somebody wants to know of each.
    fn run_watched(&self, seat: &Seat, chunk: Chunk) {
        let mut time = now();
        for index in chunk.begin..chunk.end {
            self.look_at_clock();
            if self.is_stopped() {
                return;
            }
            let ended = self.run_item_at(seat, index, &mut time);
            self.settle(index, ended);
            self.tell_progress(time);
        }
    }

    /// Runs one item, which starts at `time` and moves it to its end.
    pub(super) fn run_item_at(&self, seat: &Seat, index: usize, time: &mut u64) -> Ended {
        self.clock.item_starts(seat.number, index, *time);
        let code = self.plan.task.run(index);
        *time = now();
        let late = self.clock.item_ends(seat.number, *time);
        self.ended(seat, code, late)
    }

    /// Clears up after an item.
    pub(super) fn ended(&self, seat: &Seat, code: i32, late: bool) -> Ended {
        let text = if code != 0 { take_text() } else { None };
        self.tidy(seat);
        match code {
            _ if late => Ended::Late,
            0 => Ended::Done,
            code => Ended::Returned(code, text),
        }
    }

    pub(super) fn count_done(&self, items: usize) {
        self.done.fetch_add(items, Ordering::Relaxed);
    }

    pub(super) fn item_returned(&self, index: usize, code: i32, text: Option<String>) {
        let message = match text {
            Some(text) => format!("item {index} failed with code {code}: {text}"),
            None => format!("item {index} failed with code {code}"),
        };
        let fate = ItemFate { task_code: code, index, attempts: 1, ..ItemFate::default() };
        self.item_failed(Status::ERR_TASK_FAILED, message, fate);
    }
}
