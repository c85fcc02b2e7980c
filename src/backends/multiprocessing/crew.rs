//! The parent's side of a map: children are forked, heard, watched, buried, and replaced where one has died.
//!
//! Work goes in rounds. In the first, children claim all items; a child that dies is replaced while something is left to
//! claim. When all have left, what was claimed and neither finished nor failed (the rest of a dead child's chunk, or an item
//! that is to be tried again) is the list of the next round, item by item. Every death counts an attempt of the item
//! that it hit, or is counted itself where it hit none, so rounds come to an end.

use super::board::Layout;
use super::books::Books;
use super::child::Errand;
use super::fetch::fetch;
use super::ring::Record;
use crate::fork;
use crate::job::{Chunk, Claims, Ended, Job, Loss, now};
use crate::process::{self, Bell, Child, Exit};
use crate::shared::{self, Spare};
use crate::status::{Error, Result, Status};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

/// How long a task may go on that was asked to stop, before its process is killed.
const GRACE: Duration = Duration::from_millis(100);
/// How often the parent looks whether it was asked to stop; children wake it for everything else.
const TICK: Duration = Duration::from_millis(20);
/// The same where there are no descriptors left by which a child could.
const BLIND_TICK: Duration = Duration::from_millis(1);
/// Children that may die without having begun an item, each time that one of them has got further.
const IDLE_DEATHS: usize = 3;

struct Worker {
    child: Child,
    killed: Killed,
}

/// Why we have killed a child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    No,
    /// This item took too long.
    Late(usize),
    /// The job has stopped, and its task has not.
    Stopped,
}

pub(super) struct Crew<'a> {
    job: &'a Arc<Job>,
    area: Arc<Spare>,
    layout: Layout,
    staged: bool,
    bell: Option<Arc<Bell>>,
    workers: Vec<Option<Worker>>,
    books: Books,
    /// The items of a later round, and how many they are.
    again: Option<(Arc<[Chunk]>, usize)>,
    /// How often items were started whose worker has died.
    attempts: BTreeMap<usize, u32>,
    idle_deaths: usize,
    stopped_at: Option<Instant>,
    /// Tells this process from a fork of it.
    forks: u32,
}

impl<'a> Crew<'a> {
    /// A crew for a job, with the memory that it needs; nobody works yet.
    pub fn new(job: &'a Arc<Job>) -> Result<Crew<'a>> {
        let count = job.n_jobs();
        job.task().before_fork()?;
        let outputs = job.task().outputs();
        let bytes = outputs.size.saturating_mul(job.n_items());
        // What lies in a block that children share is written by them in its place.
        let staged = bytes > 0 && shared::find(outputs.address, bytes).is_none();
        let layout = Layout::new(count, if staged { bytes } else { 0 })?;
        let mut area = shared::borrow(layout.len).map_err(|error| {
            error.in_words(|said| {
                format!("{said}; the outputs of a map on 'multiprocessing' need it, unless they are in a block of pb_alloc_shared")
            })
        })?;
        layout.clear(&mut area, Claims::new(job.n_items(), count, job.rules().batch_size));
        Ok(Crew {
            job,
            area: Arc::new(area),
            layout,
            staged,
            bell: Bell::new().map(Arc::new),
            workers: (0..count).map(|_| None).collect(),
            books: Books::default(),
            again: None,
            attempts: BTreeMap::new(),
            idle_deaths: 0,
            stopped_at: None,
            forks: fork::generation(),
        })
    }

    /// Runs the job to its end, and all children to theirs.
    pub fn run(mut self) -> Result<()> {
        let ended = self.rounds();
        // Whatever has happened, what has finished keeps its results.
        if self.staged && !self.hands_out() {
            fetch(self.job, self.books.ranges(), &self.area, self.layout.outputs);
        }
        ended
    }

    fn rounds(&mut self) -> Result<()> {
        loop {
            self.round()?;
            let left = self.books.gaps(self.job.n_items());
            if left.is_empty() || self.job.is_stopped() {
                return Ok(());
            }
            let items = left.iter().map(|chunk| chunk.end - chunk.begin).sum();
            self.again = Some((left.into(), items));
            self.layout.board(&self.area).again.store(0, Ordering::Relaxed);
        }
    }

    fn round(&mut self) -> Result<()> {
        self.staff()?;
        while self.workers.iter().any(Option::is_some) {
            let ended = self.sleep();
            (0..self.workers.len()).for_each(|slot| self.hear(slot));
            (0..self.workers.len()).for_each(|slot| self.bury(slot, &ended));
            self.look_at_job();
            self.look_at_clock();
            // The callback may fork: in its child this map has no workers, and must not get any.
            self.job.tell();
            if fork::generation() != self.forks {
                return Err(self.forked());
            }
            self.staff()?;
        }
        Ok(())
    }

    /// Forks a child for every free seat, as long as something is left to claim.
    fn staff(&mut self) -> Result<()> {
        for slot in 0..self.workers.len() {
            if self.workers[slot].is_some() {
                continue;
            }
            if !self.is_anything_left() || self.job.is_stopped() {
                break;
            }
            self.layout.slot(&self.area, slot).clear();
            self.layout.ring(&self.area, slot).reset();
            let errand = Errand {
                job: self.job.clone(),
                area: self.area.clone(),
                layout: self.layout,
                staged: self.staged,
                bell: self.bell.clone(),
                again: self.again.as_ref().map(|(list, _)| list.clone()),
                seat: slot,
            };
            match process::fork(move || errand.run()) {
                Ok(child) => self.workers[slot] = Some(Worker { child, killed: Killed::No }),
                // With fewer, then: the others do the rest.
                Err(_) if self.workers.iter().any(Option::is_some) => break,
                Err(error) => return Err(cannot_fork(&error)),
            }
        }
        Ok(())
    }

    fn is_anything_left(&self) -> bool {
        let board = self.layout.board(&self.area);
        match &self.again {
            None => !board.claims.is_empty(),
            Some((_, items)) => board.again.load(Ordering::Relaxed) < *items,
        }
    }

    /// Sleeps until a child has something to say or has ended, or it is time to look around. Returns the descriptors of
    /// those that have ended.
    fn sleep(&self) -> Vec<RawFd> {
        let board = self.layout.board(&self.area);
        board.asleep.store(1, Ordering::Relaxed);
        // See `Worker::wake_parent`.
        fence(Ordering::SeqCst);
        let quiet = (0..self.workers.len()).all(|slot| self.layout.ring(&self.area, slot).is_empty());
        let children = self.workers.iter().flatten().map(|worker| &worker.child);
        let blind = self.bell.is_none() || children.clone().any(|child| child.descriptor().is_none());
        let time = match (quiet, blind) {
            (false, _) => Duration::ZERO,
            (true, false) => self.until_due().map_or(TICK, |due| due.min(TICK)),
            (true, true) => BLIND_TICK,
        };
        let ended = Bell::wait(self.bell.as_deref(), children.filter_map(Child::descriptor), time);
        board.asleep.store(0, Ordering::Relaxed);
        ended
    }

    /// Takes note of what a child has told.
    fn hear(&mut self, slot: usize) {
        let area = self.area.clone();
        let ring = self.layout.ring(&area, slot);
        while let Some(record) = ring.read() {
            match record {
                Record::Done(chunk) => self.done(chunk),
                Record::Ended(index, ended) => self.settle(index, ended),
            }
        }
    }

    fn done(&mut self, chunk: Chunk) {
        // A task may have written over what its process tells us.
        if chunk.end > self.job.n_items() {
            return;
        }
        self.idle_deaths = 0;
        for fresh in self.books.enter(chunk) {
            if self.staged && self.hands_out() {
                self.job.task().fetch_outputs(fresh, &self.area, self.layout.outputs);
            }
            self.job.items_done(fresh);
        }
    }

    fn settle(&mut self, index: usize, ended: Ended) {
        if index < self.job.n_items() && !self.books.enter(Chunk { begin: index, end: index + 1 }).is_empty()
        {
            self.job.settle(index, ended);
        }
    }

    /// Whether the caller may look at an item's output before the map is over.
    fn hands_out(&self) -> bool {
        self.job.rules().stream != crate::job::Stream::None
    }

    /// Reaps a child that has ended, and finds out what its end means.
    fn bury(&mut self, slot: usize, ended: &[RawFd]) {
        let Some(worker) = &mut self.workers[slot] else { return };
        if worker.child.descriptor().is_some_and(|fd| !ended.contains(&fd)) {
            return;
        }
        let Some(exit) = worker.child.try_wait() else { return };
        let killed = worker.killed;
        self.workers[slot] = None;
        // Its last words, which may have come after we last listened.
        self.hear(slot);
        let area = self.area.clone();
        let left = self.layout.slot(&area, slot);
        if left.finished.load(Ordering::Acquire) != 0 {
            return;
        }
        match left.running.load(Ordering::Acquire) {
            0 => self.died_idle(exit),
            running => {
                let index = running - 1;
                self.done(Chunk { begin: left.unpublished.load(Ordering::Relaxed), end: index });
                self.died_in(index, exit, killed);
            }
        }
    }

    fn died_in(&mut self, index: usize, exit: Exit, killed: Killed) {
        let rules = self.job.rules();
        match killed {
            Killed::Late(late) if late == index => return self.settle(index, Ended::Late),
            // It has not finished, like those that were not started.
            Killed::Stopped => return,
            // The late item did end just before: this one was started and is not to blame.
            Killed::Late(_) if !rules.once_only => return,
            Killed::Late(_) | Killed::No => {}
        }
        let attempts = *self.attempts.entry(index).and_modify(|attempts| *attempts += 1).or_insert(1);
        if rules.once_only || attempts > rules.retries {
            self.settle(index, Ended::Lost(loss(exit, attempts)));
        }
    }

    /// A child that died before its first item or between two: nothing is to blame, but it must not go on for ever.
    fn died_idle(&mut self, exit: Exit) {
        self.idle_deaths += 1;
        if self.idle_deaths > IDLE_DEATHS + self.workers.len() && !self.job.is_stopped() {
            let Loss { how, exit_code, signal, .. } = loss(exit, 0);
            let error = Error::new(
                Status::ERR_WORKER_LOST,
                format!(
                    "{} worker processes died before they began an item; the last {how}",
                    self.idle_deaths
                ),
            );
            let fate = crate::status::ItemFate { exit_code, signal, ..Default::default() };
            self.job.fail(error.at(fate));
        }
    }

    /// Hands on that the job has stopped, and ends those who do not listen.
    fn look_at_job(&mut self) {
        if !self.job.is_stopped() {
            return;
        }
        let since = *self.stopped_at.get_or_insert_with(Instant::now);
        self.layout.board(&self.area).stop.store(1, Ordering::Relaxed);
        if since.elapsed() >= GRACE {
            for worker in self.workers.iter_mut().flatten().filter(|worker| worker.killed == Killed::No) {
                worker.killed = Killed::Stopped;
                worker.child.kill();
            }
        }
    }

    /// Items that run, with their seats, and when they were started.
    fn running(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let seats = (0..self.workers.len()).filter(|slot| self.workers[*slot].is_some());
        seats.filter_map(|seat| {
            let slot = self.layout.slot(&self.area, seat);
            let since = slot.since.load(Ordering::Acquire);
            let running = slot.running.load(Ordering::Acquire);
            // The same start before and after: so the item is the one that was started then.
            let steady = since != 0 && running != 0 && slot.since.load(Ordering::Acquire) == since;
            steady.then(|| (seat, running - 1, since - 1))
        })
    }

    /// Acts on items that take too long.
    fn look_at_clock(&mut self) {
        let Some(limit) = self.job.item_limit() else { return };
        let time = now();
        let late: Vec<_> =
            self.running().filter(|(_, _, since)| time.saturating_sub(*since) > limit).collect();
        for (seat, index, since) in late {
            if !self.job.rules().collect_errors {
                // Ends the map: all are asked to stop, and have their grace.
                self.settle(index, Ended::Late);
                continue;
            }
            let grace = limit.saturating_add(GRACE.as_nanos() as u64);
            if let Some(worker) = self.workers[seat].as_mut().filter(|worker| worker.killed == Killed::No) {
                if time.saturating_sub(since) > grace {
                    worker.killed = Killed::Late(index);
                    worker.child.kill();
                }
            }
        }
        self.look_at_job();
    }

    /// Time until an item is late, if items have a limit.
    fn until_due(&self) -> Option<Duration> {
        let limit = self.job.item_limit()?;
        let time = now();
        let due = self.running().map(|(_, _, since)| since.saturating_add(limit).saturating_sub(time));
        due.filter(|left| *left > 0).min().map(|left| Duration::from_nanos(left + 1))
    }

    /// This process is a fork of the one that runs the map: its children are not ours.
    fn forked(&mut self) -> Error {
        self.workers.drain(..).flatten().for_each(|worker| worker.child.disown());
        Error::new(
            Status::ERR_WORKER_LOST,
            "the process was forked by a callback of this map: the child has none of the map's workers",
        )
    }
}

fn loss(exit: Exit, attempts: u32) -> Loss {
    let (exit_code, signal) = match exit {
        Exit::Code(code) => (code, 0),
        Exit::Signal(signal) => (-1, signal),
        Exit::Unknown => (-1, 0),
    };
    Loss { how: exit.to_string(), exit_code, signal, attempts }
}

fn cannot_fork(error: &io::Error) -> Error {
    if error.raw_os_error() == Some(libc::ENOMEM) {
        return Error::new(
            Status::ERR_OUT_OF_MEMORY,
            format!(
                "no memory to fork a worker process ({error}): backend 'threading' needs none of its own"
            ),
        );
    }
    Error::new(
        Status::ERR_BACKEND_UNAVAILABLE,
        format!(
            "cannot fork a single worker process: {error}. The limit on processes is reached (`ulimit -u`, or the pids \
             limit of the container): raise it, or use backend 'threading'"
        ),
    )
}
