//! The time of each running item, from its own start.
//!
//! No thread watches the clock. Whoever is awake looks: a worker before it starts an item, a task that asks whether
//! it is cancelled, a caller that waits for a submitted job. A late item can only be asked to end, and nobody else
//! could act on the news.

use super::{Job, now};
use crate::status::{ItemFate, Status};
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

#[derive(Default)]
struct Running {
    /// When the item started, plus 1; 0 while no item runs.
    since: AtomicU64,
    index: AtomicUsize,
}

pub(super) struct Clock {
    /// Nanoseconds; 0 where there is no limit.
    timeout: u64,
    /// One for each seat, written by its holder only.
    running: Box<[CachePadded<Running>]>,
}

impl Clock {
    pub(super) fn new(seats: usize, timeout: f64) -> Self {
        let seats = if timeout > 0.0 { seats } else { 0 };
        // Saturates: a timeout beyond 584 years is none that anyone sees.
        let timeout = (timeout * 1e9) as u64;
        Clock { timeout, running: (0..seats).map(|_| CachePadded::default()).collect() }
    }

    pub(super) fn is_on(&self) -> bool {
        !self.running.is_empty()
    }

    /// Nanoseconds that an item may take, if there is a limit.
    pub(super) fn limit(&self) -> Option<u64> {
        self.is_on().then_some(self.timeout)
    }

    pub(super) fn item_starts(&self, seat: usize, index: usize, now: u64) {
        if let Some(running) = self.running.get(seat) {
            running.index.store(index, Ordering::Relaxed);
            // Release: who sees this start sees its index.
            running.since.store(now + 1, Ordering::Release);
        }
    }

    /// Ends the item on a seat; whether it took too long.
    pub(super) fn item_ends(&self, seat: usize, now: u64) -> bool {
        let late = self.is_late(seat, now);
        if let Some(running) = self.running.get(seat) {
            running.since.store(0, Ordering::Relaxed);
        }
        late
    }

    pub(super) fn is_late(&self, seat: usize, now: u64) -> bool {
        self.running.get(seat).is_some_and(|running| self.late(running, now))
    }

    fn late(&self, running: &Running, now: u64) -> bool {
        let since = running.since.load(Ordering::Acquire);
        since != 0 && now.saturating_sub(since - 1) > self.timeout
    }

    /// An item that has run too long, if there is one.
    fn late_item(&self, now: u64) -> Option<usize> {
        let late = self.running.iter().find(|running| self.late(running, now))?;
        Some(late.index.load(Ordering::Relaxed))
    }

    /// Nanoseconds until the next running item is late; `None` where none can be.
    fn until_next(&self, now: u64) -> Option<u64> {
        let starts = self
            .running
            .iter()
            .map(|running| running.since.load(Ordering::Acquire))
            .filter(|since| *since != 0);
        starts
            .map(|since| (since - 1).saturating_add(self.timeout).saturating_add(1).saturating_sub(now))
            .min()
    }
}

impl Job {
    /// Stops the job if an item is late. Where errors are collected a late item concerns only itself.
    pub(super) fn look_at_clock(&self) {
        if !self.clock.is_on() || self.plan.rules.collect_errors {
            return;
        }
        if let Some(index) = self.clock.late_item(now()) {
            let (message, fate) = self.timeout_error(index);
            self.fail(crate::status::Error::new(Status::ERR_TIMEOUT, message).at(fate));
        }
    }

    pub(super) fn timeout_error(&self, index: usize) -> (String, ItemFate) {
        let (name, index) = self.plan.task.name(index);
        let message = format!("{name} ran longer than the timeout of {} s", self.plan.rules.timeout);
        (message, ItemFate { index, attempts: 1, ..ItemFate::default() })
    }

    /// How long a waiting caller may sleep before it should look at the clock again.
    pub(super) fn next_deadline(&self) -> Option<std::time::Duration> {
        self.clock.until_next(now()).map(std::time::Duration::from_nanos)
    }
}
