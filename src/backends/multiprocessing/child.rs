//! The life of a child: claim, run, publish, until nothing is left or the parent says stop.

use super::DEPTH;
use super::board::{Board, Layout, Slot};
use super::ring::{Record, Ring};
use crate::fork;
use crate::job::{Chunk, Ended, Job, Seat, now};
use crate::limits;
use crate::process::{self, Bell};
use crate::shared::Spare;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// What a child is forked for. It has copies of all of this, and shares the area.
pub(super) struct Errand {
    pub job: Arc<Job>,
    pub area: Arc<Spare>,
    pub layout: Layout,
    /// Whether outputs are written to the area.
    pub staged: bool,
    pub bell: Option<Arc<Bell>>,
    /// Items to be claimed one by one; `None` in the first round.
    pub again: Option<Arc<[Chunk]>>,
    pub seat: usize,
}

impl Errand {
    /// What the child does; returns its exit code.
    pub fn run(self) -> i32 {
        DEPTH.fetch_add(1, Ordering::Relaxed);
        let (area, layout) = (self.area.clone(), self.layout);
        self.job.stop_also_when(Box::new(move || layout.board(&area).stop.load(Ordering::Relaxed) != 0));
        if self.staged {
            self.job.task().redirect_outputs(self.area.clone(), self.layout.outputs);
        }
        // Another thread of the parent may have been in the dynamic loader, whose lock would then never be free here.
        let seat = limits::without_looking(|| self.job.enter_as(self.seat));
        let worker = Worker {
            job: &self.job,
            board: self.layout.board(&self.area),
            slot: self.layout.slot(&self.area, self.seat),
            ring: self.layout.ring(&self.area, self.seat),
            bell: self.bell.as_deref(),
            each: self.job.wants_each_item(),
            timed: self.job.item_limit().is_some(),
            forks: fork::generation(),
        };
        while let Some(chunk) = self.claim(worker.board) {
            self.job.task().populate(chunk);
            if !worker.run(&seat, chunk) {
                break;
            }
        }
        // Release: who sees this sees all records.
        worker.slot.finished.store(1, Ordering::Release);
        // The process ends: nothing is put back.
        std::mem::forget(seat);
        0
    }

    fn claim(&self, board: &Board) -> Option<Chunk> {
        if board.stop.load(Ordering::Relaxed) != 0 {
            return None;
        }
        let Some(list) = &self.again else { return board.claims.next(0, |_| {}) };
        let mut place = board.again.fetch_add(1, Ordering::Relaxed);
        list.iter().find_map(|chunk| {
            let items = chunk.end - chunk.begin;
            if place < items {
                let begin = chunk.begin + place;
                return Some(Chunk { begin, end: begin + 1 });
            }
            place -= items;
            None
        })
    }
}

struct Worker<'a> {
    job: &'a Arc<Job>,
    board: &'a Board,
    slot: &'a Slot,
    ring: Ring<'a>,
    bell: Option<&'a Bell>,
    /// Whether the parent wants to hear of each item as it ends.
    each: bool,
    timed: bool,
    forks: u32,
}

impl Worker<'_> {
    /// Runs a chunk; false if no further one is to be claimed.
    fn run(&self, seat: &Seat, chunk: Chunk) -> bool {
        let slot = self.slot;
        let begin = now();
        // First item that succeeded and was not told of.
        let mut untold = chunk.begin;
        slot.unpublished.store(untold, Ordering::Relaxed);
        for index in chunk.begin..chunk.end {
            if self.board.stop.load(Ordering::Relaxed) != 0 {
                self.tell_done(untold, index);
                return false;
            }
            // Release: who finds this item running finds the outputs of those before it.
            slot.running.store(index + 1, Ordering::Release);
            if self.timed {
                slot.since.store(now() + 1, Ordering::Release);
            }
            let ended = self.ended(self.job.run_item(seat, index));
            if fork::generation() != self.forks {
                // The task has forked, and this is its child: the rest is its parent's to do.
                process::leave(0);
            }
            if self.timed {
                slot.since.store(0, Ordering::Relaxed);
            }
            let failed = ended != Ended::Done;
            if failed {
                self.tell_done(untold, index);
                self.tell(&Record::Ended(index, ended), true);
            } else if self.each {
                self.tell_done(index, index + 1);
            }
            if failed || self.each {
                untold = index + 1;
                slot.unpublished.store(untold, Ordering::Relaxed);
            }
            if failed && !self.job.rules().collect_errors {
                self.board.stop.store(1, Ordering::Release);
                return false;
            }
        }
        self.tell_done(untold, chunk.end);
        slot.running.store(0, Ordering::Relaxed);
        self.board.claims.took(chunk.end - chunk.begin, now() - begin);
        true
    }

    /// How an item ended that has just done so. Who asks the others to end has published why before: so the parent tells the failure
    /// that came first from those that only followed, in whichever order it reads them.
    fn ended(&self, ended: Ended) -> Ended {
        match ended {
            Ended::Returned(code, text) if self.board.stop.load(Ordering::Acquire) != 0 => {
                Ended::Asked(code, text)
            }
            ended => ended,
        }
    }

    fn tell_done(&self, begin: usize, end: usize) {
        if begin < end {
            self.tell(&Record::Done(Chunk { begin, end }), self.each);
        }
    }

    /// Publishes a record; `now` if the parent should look at it at once.
    fn tell(&self, record: &Record, now: bool) {
        while !self.ring.write(record) {
            // The parent empties the ring whenever it is awake; if it dies, so do we.
            self.wake_parent();
            std::thread::sleep(Duration::from_micros(50));
        }
        if now || self.ring.is_filling() {
            self.wake_parent();
        }
    }

    /// The fence orders the record before the look at `asleep`, and the parent's orders `asleep` before its look at the
    /// rings: so either the parent sees the record, or we see that it sleeps.
    fn wake_parent(&self) {
        fence(Ordering::SeqCst);
        if self.board.asleep.load(Ordering::Relaxed) != 0 && self.board.asleep.swap(0, Ordering::Relaxed) != 0
        {
            self.bell.iter().for_each(|bell| bell.ring());
        }
    }
}
