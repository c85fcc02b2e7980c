//! Running a job's items on a thread that has a seat.

use super::{Chunk, Ended, Job, MANY_NS, Repeat, Stay, Stream, UNTIDY, callsite, now};
use crate::cpu::{nanoseconds, ticks};
use crate::status::{Error, ItemFate, Status};
use crate::trace::{self, What};
use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;

thread_local! {
    /// What the running task said of the failure that it is about to return.
    static TASK_TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A thread's stay in a job as one of its workers. Dropping it leaves.
pub struct Seat<'j> {
    job: &'j Job,
    number: usize,
    /// Items that succeeded here and that nobody watched: the job is told when the worker leaves.
    done: Cell<usize>,
    /// The text of an item around this job, put aside while this job's own items run here.
    outer_text: Option<String>,
    stay: Stay,
    hold: Hold,
}

/// How a seat is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its bit is taken.
    Taken,
    /// Its bit is taken, and nobody else is in the job, nor will be meanwhile: there is nobody to lock out.
    Alone,
    /// It was given to this thread, and nobody else looks for it. What has been done here is told by other means.
    Dealt,
}

impl Seat<'_> {
    /// The worker's index.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Leaves, and gives back the job.
    #[inline(always)]
    pub(super) fn leave(self) -> Option<Arc<Job>> {
        ManuallyDrop::new(self).stand_up()
    }

    /// Tells the job what was done, puts back what was on the thread before, gives back the seat.
    #[inline(always)]
    fn stand_up(&mut self) -> Option<Arc<Job>> {
        let tally = &self.job.tally;
        match (self.hold, self.done.get()) {
            (Hold::Dealt, _) | (_, 0) => {}
            (Hold::Alone, done) => {
                tally.done.store(tally.done.load(Ordering::Relaxed) + done, Ordering::Relaxed);
            }
            (Hold::Taken, done) => self.job.count_done(done),
        }
        if self.stay.is_nested {
            self.put_text_back();
        }
        let own = self.job.plan.around.leave(self.stay);
        match self.hold {
            Hold::Taken => tally.seats.give_back(self.number),
            Hold::Alone => tally.seats.give_back_alone(),
            Hold::Dealt => {}
        }
        own
    }

    #[cold]
    fn put_text_back(&mut self) {
        let outer = self.outer_text.take();
        let _ = TASK_TEXT.try_with(|text| text.replace(outer));
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.stand_up();
    }
}

/// Takes the text away that the task on this thread has attached, if it has.
pub fn take_text() -> Option<String> {
    TASK_TEXT.try_with(RefCell::take).ok().flatten()
}

/// Attaches a text to the failure that the task on this thread is returning.
pub fn set_text(message: String) {
    let _ = TASK_TEXT.try_with(|text| text.replace(Some(message)));
}

/// The code of an item that returned `code`, where there was no room for all of its result: it fails, and says why, unless
/// the task says more.
pub fn incomplete(code: i32, broken: Option<Error>) -> i32 {
    let Some(error) = broken else { return code };
    let said = take_text().filter(|_| code != 0);
    set_text(said.unwrap_or_else(|| format!("its result is not whole: {}", error.message)));
    if code == 0 { error.status.0 } else { code }
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
        self.raise(UNTIDY);
    }

    /// Whether a task has, or may have, left something on its thread that must not reach the next one.
    pub fn is_untidy(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & UNTIDY != 0
    }

    /// Takes a seat on this thread, or `None` if as many threads as the job has workers are in it already. `wish` is the
    /// number that it would like.
    pub fn enter(self: &Arc<Self>, wish: usize) -> Option<Seat<'_>> {
        Some(self.take_seat(self.tally.seats.take(wish)?))
    }

    /// Sits down on a seat whose bit is taken.
    pub(super) fn take_seat(self: &Arc<Self>, number: usize) -> Seat<'_> {
        self.sit_down(number, Hold::Taken, self.clone())
    }

    pub(super) fn sit_down(&self, number: usize, hold: Hold, own: Arc<Job>) -> Seat<'_> {
        let stay = self.plan.around.enter(own, number);
        let outer_text = if stay.is_nested { take_text() } else { None };
        Seat { job: self, number, done: Cell::new(0), outer_text, stay, hold }
    }

    /// The next chunk to run, or `None` when none is left or the job has stopped.
    pub fn claim(&self, seat: usize) -> Option<Chunk> {
        if self.is_stopped() {
            None
        } else {
            self.claims.next(seat, |from| trace::instant(|| What::Steal { from }))
        }
    }

    /// Gives each seat its part of the items: by the thread that is alone in the job, before others come. Not where items
    /// are handed out in order: then they had better begin in order.
    pub fn spread(&self) {
        if self.plan.rules.stream != Stream::Ordered {
            self.claims.spread();
        }
    }

    /// Works in the job until nothing is left to claim, on the seat of that number if it is free.
    pub fn work(self: &Arc<Self>, wish: usize) {
        // A latecomer to a finished job does not disturb its limits.
        if self.claims.is_empty() || self.is_stopped() {
            return;
        }
        // Without a seat there are as many workers as asked for, and they will do the rest.
        let Some(seat) = self.enter(wish) else { return };
        let mut time = self.claims.is_adaptive().then(ticks);
        while let Some(chunk) = self.claim(seat.number) {
            self.run_chunk(&seat, chunk);
            if let Some(begin) = &mut time {
                let end = ticks();
                self.claims.took(chunk.end - chunk.begin, nanoseconds(end.saturating_sub(*begin)));
                *begin = end;
            }
        }
    }

    /// Works in a job of one worker, which nobody else is in, until nothing is left to claim.
    pub fn work_lone(self: &Arc<Self>) {
        if self.is_stopped() {
            return;
        }
        let seat = self.sit_down(self.tally.seats.take_alone(), Hold::Alone, self.clone());
        let mut begin = ticks();
        while let Some(chunk) = self.claims.next_lone() {
            self.run_chunk(&seat, chunk);
            if self.claims.is_empty() || self.is_stopped() {
                return;
            }
            let end = ticks();
            self.claims.took(chunk.end - chunk.begin, nanoseconds(end.saturating_sub(begin)));
            begin = end;
        }
    }

    /// Nanoseconds that one thread would take for the whole job, where that is known and nobody watches its items.
    pub fn estimate(&self) -> Option<u64> {
        if !self.claims.is_adaptive() || self.is_watched() {
            return None;
        }
        let pace = callsite::recall(self.plan.task.site())?;
        Some(pace.saturating_mul(self.n_items() as u64) / 1000)
    }

    /// Works alone in a job that nobody else is in, and that should take `expected` nanoseconds. False if it takes much longer, and others should help: chunks
    /// grow from one item, so that a function whose items have become slow is found out by the first of them.
    pub fn work_alone(self: &Arc<Self>, expected: u64) -> bool {
        let seat = self.sit_down(self.tally.seats.take_alone(), Hold::Alone, self.clone());
        let (begin, mut ran, mut next) = (ticks(), 0, 1);
        while let Some(chunk) = if self.is_stopped() { None } else { self.claims.next_alone(next) } {
            self.run_chunk(&seat, chunk);
            ran += chunk.end - chunk.begin;
            if self.claims.is_empty() {
                if self.n_items() <= 2 {
                    self.went(Repeat::Alone);
                }
                return true;
            }
            let took = nanoseconds(ticks().saturating_sub(begin));
            self.remember(took.saturating_mul(1000) / ran as u64);
            if took > 4 * expected + 1000 {
                return false;
            }
            next = ran.saturating_mul(8);
        }
        true
    }

    /// Whether each worker has one item, and nobody wants to know of it before the job is over: then items can be dealt.
    pub fn has_an_item_each(&self) -> bool {
        // Each is posted and waited for by itself. Not tuned: two CPUs cannot tell from where on one errand for all is better.
        const MOST: usize = 16;
        let (items, batch) = (self.n_items(), self.plan.rules.batch_size);
        items == self.n_jobs() && items <= MOST && batch <= 1 && !self.is_watched()
    }

    /// Items from `first` on, and the seats of these numbers, are dealt: what is left to claim lies before. By the thread that is
    /// alone in the job, before others come to claim.
    pub fn deal_from(&self, first: usize) {
        self.claims.keep_first(first);
        self.tally.seats.keep_from(first);
    }

    /// Runs the item of that number on the seat of that number, which were dealt to this thread: whether it succeeded. `own` is
    /// this job, and comes back: who has it counts, on a line of the cache that no two workers should write in turn.
    pub fn run_dealt(&self, number: usize, own: Arc<Job>) -> (bool, Option<Arc<Job>>) {
        let seat = self.sit_down(number, Hold::Dealt, own);
        let succeeds = || {
            let _timeline = self.chunk_span(&seat, Chunk { begin: number, end: number + 1 });
            let code = self.plan.task.run(number);
            if code != 0 {
                self.item_returned(number, code, take_text(), self.is_stopped());
            }
            self.tidy(&seat);
            code == 0
        };
        let succeeded = !self.is_stopped() && succeeds();
        (succeeded, seat.leave())
    }

    /// The dealer takes note of what has been done. Nobody else does meanwhile: whoever claims, of what was not dealt, has left.
    pub fn take_back(&self, succeeded: bool) {
        let done = &self.tally.done;
        done.store(done.load(Ordering::Relaxed) + usize::from(succeeded), Ordering::Relaxed);
    }

    /// Whether the thread has made maps of this function one soon after the other for so long that the next ones had better have
    /// help, even if a helper has to be woken.
    pub fn is_one_of_many(&self) -> bool {
        self.in_a_row > MANY_NS
    }

    /// Nobody came to help: remembers for the next map of the same function what its items took.
    pub fn ran_alone(&self) {
        let took = || nanoseconds(ticks().saturating_sub(self.plan.started));
        let per_item = || took().saturating_mul(1000) / self.n_items().max(1) as u64;
        self.remember(if self.claims.pace() == 0 { per_item() } else { self.claims.pace() });
    }

    fn remember(&self, pace: u64) {
        // One item tells nothing of whether two wait for each other.
        if self.n_items() > 1 && !self.is_watched() && !self.is_stopped() && self.claims.is_adaptive() {
            callsite::remember(self.plan.task.site(), pace);
        }
    }

    pub(super) fn run_chunk(&self, seat: &Seat, chunk: Chunk) {
        let _timeline = self.chunk_span(seat, chunk);
        let rest = if self.is_watched() { chunk } else { self.run_plain(seat, chunk) };
        if rest.begin < rest.end {
            self.run_watched(seat, rest);
        }
    }

    /// Runs a claimed chunk, up to where the job stops.
    pub fn run(&self, seat: &Seat, chunk: Chunk) {
        let begin = self.claims.is_adaptive().then(ticks);
        self.run_chunk(seat, chunk);
        if let Some(begin) = begin {
            self.claims.took(chunk.end - chunk.begin, nanoseconds(ticks().saturating_sub(begin)));
        }
    }

    /// Whether somebody wants to know of each item, or has to.
    pub(super) fn is_watched(&self) -> bool {
        self.watched || self.flags.load(Ordering::Relaxed) & UNTIDY != 0
    }

    /// The tight loop: nothing between two items but a look at whether to go on. Returns what is left of the chunk when a task
    /// has left something behind: from then on every item is watched, lest another one finds it.
    fn run_plain(&self, seat: &Seat, chunk: Chunk) -> Chunk {
        let (reached, code) = self.plan.task.run_range(chunk, &self.flags);
        seat.done.set(seat.done.get() + (reached - chunk.begin));
        if let Some(code) = code {
            self.item_returned(reached, code, take_text(), self.is_stopped());
            return Chunk { begin: chunk.end, end: chunk.end };
        }
        self.tidy(seat);
        Chunk { begin: reached, end: chunk.end }
    }

    /// Clears away what an item has left on this thread, if one has.
    #[inline]
    fn tidy(&self, seat: &Seat) {
        if self.flags.load(Ordering::Relaxed) & UNTIDY != 0 {
            take_text();
            self.plan.around.tidy(seat.stay);
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
        self.tally.done.fetch_add(items, Ordering::Relaxed);
    }

    pub(super) fn item_returned(&self, index: usize, code: i32, text: Option<String>, asked: bool) {
        let (name, index) = self.plan.task.name(index);
        let message = match text {
            Some(text) => format!("{name} failed with code {code}: {text}"),
            None => format!("{name} failed with code {code}"),
        };
        let fate = ItemFate { task_code: code, index, attempts: 1, ..ItemFate::default() };
        self.item_failed(Status::ERR_TASK_FAILED, message, fate, asked);
    }
}
