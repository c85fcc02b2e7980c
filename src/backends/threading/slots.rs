//! A slot for each pool thread: its mailbox, and how it waits there.
//!
//! An idle thread stays awake for a while, so that calls in quick succession find it without a trip through the
//! kernel, then parks, unless a phase keeps it awake. It spins on its own mailbox, which nobody else touches until there is
//! mail, and looks now and then at the word of the phases, which hardly ever changes.

use super::cell::{Mail, Mailbox};
use super::spin::Spin;
use crate::cpu::ticks;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering, Thread, current};
use crate::trace::{self, What};
use crossbeam_utils::CachePadded;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

pub(super) struct Slot {
    pub(super) mail: Mailbox,
    /// Written by the owner: whether it is inside somebody's work.
    pub(super) working: AtomicBool,
    thread: Mutex<Option<Thread>>,
    /// When the owner was last woken, by [`ticks`]. Not of the protocol: who reads an old value learns nothing from it.
    called: std::sync::atomic::AtomicU64,
}

/// Why a thread stops waiting.
pub(super) enum Wakeup {
    Mail(Mail),
    /// It waited in vain for as long as it should.
    TimedOut,
}

impl Slot {
    fn new() -> Self {
        Slot {
            mail: Mailbox::new(),
            working: AtomicBool::new(false),
            thread: Mutex::new(None),
            called: std::sync::atomic::AtomicU64::new(0),
        }
    }

    fn thread(&self) -> crate::sync::MutexGuard<'_, Option<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current thread owns the slot from now on.
    pub(super) fn occupy(&self) {
        *self.thread() = Some(current());
    }

    pub(super) fn unpark(&self) {
        self.called.store(ticks(), Relaxed);
        self.thread().iter().for_each(Thread::unpark);
    }

    /// Waits, idle, until there is mail or `more` says that there is something else to do. The thread does not park while
    /// `stay_awake` holds; once it does not, who makes it hold again unparks the thread. `patience` is asked before it parks:
    /// after that time it waited in vain.
    pub(super) fn wait(
        &self,
        spin: &mut Spin,
        more: impl Fn() -> bool,
        stay_awake: impl Fn() -> bool,
        patience: impl Fn() -> Option<Duration>,
    ) -> Wakeup {
        self.mail.become_idle();
        spin.begin();
        loop {
            if more() && self.mail.become_busy() {
                return Wakeup::Mail(Mail::Look);
            }
            match self.mail.take() {
                Mail::Idle => {
                    if !spin.wait(|| !self.mail.is_idle(), &stay_awake) {
                        self.mail.fall_asleep();
                    }
                }
                Mail::Asleep if stay_awake() => self.mail.wake_up(),
                Mail::Asleep => match spin.alarm() {
                    Some(time) => {
                        if let Some(late) = rest(Some(time)) {
                            spin.ring(late);
                            self.mail.wake_up();
                        }
                    }
                    None if rest(patience()).is_some() && self.mail.become_busy() => return Wakeup::TimedOut,
                    // Woken for what others have done meanwhile: who has wanted it once will soon again.
                    None if self.mail.is_asleep() => {
                        self.mail.wake_up();
                        spin.begin();
                    }
                    None => {}
                },
                mail => {
                    spin.end(self.called.load(Relaxed));
                    return Wakeup::Mail(mail);
                }
            }
        }
    }
}

/// Parks. When the time is up: by how much that is past.
fn rest(patience: Option<Duration>) -> Option<Duration> {
    let _timeline = trace::span(|| What::Park);
    #[cfg(not(loom))]
    if let Some(patience) = patience {
        let begin = std::time::Instant::now();
        std::thread::park_timeout(patience);
        return begin.elapsed().checked_sub(patience);
    }
    let _ = patience;
    crate::sync::park();
    None
}

/// Slots by number. Their memory comes in blocks and stays.
pub(super) struct Slots {
    blocks: [OnceLock<Box<[CachePadded<Slot>]>>; Slots::MAX / Slots::BLOCK],
    /// Numbers that are, or were, in use are below.
    end: AtomicUsize,
}

impl Slots {
    /// More threads than this are never started; maps then run with fewer helpers.
    pub(super) const MAX: usize = 1024;
    const BLOCK: usize = if cfg!(loom) { 2 } else { 64 };

    pub(super) fn new() -> Self {
        Slots { blocks: [const { OnceLock::new() }; Slots::MAX / Slots::BLOCK], end: AtomicUsize::new(0) }
    }

    /// The slot of that number, if it is, or was, in use.
    pub(super) fn get(&self, number: usize) -> Option<&Slot> {
        if number >= self.end.load(Ordering::Relaxed) {
            return None;
        }
        let block = self.blocks.get(number / Slots::BLOCK)?.get()?;
        block.get(number % Slots::BLOCK).map(|slot| &**slot)
    }

    /// The slot of that number, made if need be.
    pub(super) fn make(&self, number: usize) -> Option<&Slot> {
        let block = self.blocks.get(number / Slots::BLOCK)?;
        block.get_or_init(|| (0..Slots::BLOCK).map(|_| CachePadded::new(Slot::new())).collect());
        self.end.fetch_max(number + 1, Ordering::Relaxed);
        self.get(number)
    }

    /// The numbers in use, from `first` on and around: not more than a caller should look at, were all of them busy.
    pub(super) fn numbers_from(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        const LOOKS: usize = 256;
        let end = self.end.load(Ordering::Relaxed);
        let first = if first < end { first } else { 0 };
        (first..end).chain(0..first).take(LOOKS)
    }

    /// Asks so many idle threads to look at the board. How many are missing.
    pub(super) fn ask_idle(&self, count: usize) -> usize {
        let mut missing = count;
        for slot in self.iter() {
            if missing == 0 {
                break;
            }
            if let Some(asleep) = slot.mail.ask_to_look() {
                missing -= 1;
                if asleep {
                    slot.unpark();
                }
            }
        }
        missing
    }

    /// Has those of the first `count` threads that sleep look around.
    pub(super) fn wake(&self, count: usize) {
        self.iter().take(count).filter(|slot| slot.mail.is_asleep()).for_each(Slot::unpark);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        (0..self.end.load(Ordering::Relaxed)).filter_map(|number| self.get(number))
    }
}
