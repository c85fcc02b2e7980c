//! The pool: threads that wait in their slots, and what starts and ends them.

use super::board::{Board, Order};
use super::cell::{self, Deal, Handed, Leaked, Lender, Mail, Parcel, Visits};
use super::params;
use super::phases::Phases;
use super::slots::{Slots, Wakeup};
use super::spin::Spin;
use super::wakeups::WAKING;
use crate::cpu::{Birth, SignalsBlocked, fine_timer};
use crate::fork;
use crate::scope::{self, Token};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The most threads that are ever started.
pub(super) const MAX_THREADS: usize = Slots::MAX;
/// A thread beyond those that stay ends after this long without work.
const SPARE_IDLE: Duration = Duration::from_secs(5);

static POOL: Leaked<Pool> = Leaked::new();

thread_local! {
    /// The slot of a pool thread.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

pub(super) struct Pool {
    slots: Slots,
    board: Board,
    phases: Phases,
    threads: Mutex<Threads>,
    /// A thread has ended.
    ended: Condvar,
    /// Threads that were started and do not run yet.
    starting: AtomicUsize,
    /// Shutdowns so far: a thread of an earlier time ends.
    shutdowns: AtomicU32,
    /// How many threads stay when idle: asked by the first thread that has nothing to do, since counting CPUs takes longer
    /// than a first call should.
    stays: OnceLock<usize>,
}

#[derive(Default)]
struct Threads {
    /// By slot: how many shutdowns there had been when the thread was started, while it is alive.
    alive: Vec<Option<u32>>,
    handles: Vec<JoinHandle<()>>,
}

fn pool() -> &'static Pool {
    POOL.get_or_make(|| Pool {
        slots: Slots::new(),
        board: Board::new(),
        phases: Phases::new(),
        threads: Mutex::default(),
        ended: Condvar::new(),
        starting: AtomicUsize::new(0),
        shutdowns: AtomicU32::new(0),
        stays: OnceLock::new(),
    })
}

/// Lends `work` to up to `places` pool threads while `body` runs on this one.
pub(super) fn lend(places: usize, work: impl Fn(usize) + Sync, body: impl FnOnce()) -> Visits {
    cell::lend(&pool(), places, work, body)
}

/// Hands one part of `own` to one pool thread that is awake while `body` runs on this one.
pub(super) fn hand<T: Deal>(
    parcel: &Parcel<T>,
    own: Arc<T>,
    number: usize,
    body: impl FnOnce(),
) -> Handed<T> {
    cell::hand(&pool(), parcel, own, number, body)
}

/// Runs `work` on a pool thread; false if there is none, and none can be started.
pub fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    let pool = pool();
    let number = pool.board.queue(Box::new(work));
    pool.want_runner();
    // With no thread alive nobody will come; if it is gone, somebody has.
    pool.lock().alive.iter().any(Option::is_some) || pool.board.take_back(number).is_none()
}

/// Begins a phase: as many threads as a map of `workers` would ask for stay awake until it ends. Starts and wakes those
/// that do not run yet, as far as the system lets it.
pub fn begin_phase(workers: usize) -> Token {
    let token = scope::issue();
    let helpers = workers.saturating_sub(1).min(MAX_THREADS);
    // A thread of the pool that begins one is no helper of its own.
    let threads = helpers + usize::from(OWN.get().is_some_and(|own| own < helpers));
    let pool = pool();
    pool.phases.begin(token, threads);
    pool.slots.wake(threads);
    let _ = (pool.free_threads()..helpers).all(|_| pool.start_thread());
    token
}

/// Ends a phase that this process has begun; false if it is not open.
pub fn end_phase(token: Token) -> bool {
    POOL.get().is_some_and(|pool| pool.phases.end(token))
}

/// Whether a map had better be shared.
#[derive(PartialEq, Eq)]
pub(super) enum Help {
    /// Its caller is done sooner alone.
    Useless,
    /// Only if a helper is awake: to wake one takes longer.
    IfAwake,
    Useful,
}

/// Whether help is of use to a map that takes one thread so many nanoseconds: not below what handing over costs both sides,
/// which is less where items are dealt (measured on 2 virtual CPUs). Waking a helper costs the caller, and takes time.
pub(super) fn help(nanoseconds: u64, is_dealt: bool) -> Help {
    let waking = WAKING.nanoseconds() * 6 / 5;
    let handing_over = if is_dealt { 1_400 } else { 2_500 };
    match nanoseconds {
        quick if quick < handing_over => Help::Useless,
        short if short < waking => Help::IfAwake,
        _ => Help::Useful,
    }
}

/// Whether a helper is awake and idle, as far as a short look can tell.
pub(super) fn is_awake() -> bool {
    POOL.get().is_some_and(|pool| pool.slots.iter().take(8).any(|slot| slot.mail.is_idle()))
}

impl Lender for &'static Pool {
    fn slots(&self) -> &Slots {
        &self.slots
    }

    fn board(&self) -> &Board {
        &self.board
    }

    fn first_slot(&self) -> usize {
        OWN.get().map_or(0, |own| own + 1)
    }

    fn want_threads(&self, places: usize) {
        let missing = self.slots.ask_idle(places);
        // Each place has a thread of its own that will look for it, and so has all else on the board; those that start have not
        // looked yet.
        let starting = self.starting.load(Ordering::SeqCst);
        let missing = missing.min(self.board.wanted().saturating_sub(starting));
        let _ = (0..missing).all(|_| self.start_thread());
    }

    fn forks(&self) -> u32 {
        fork::generation()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each submitted job has a thread of its own that will look for it: those that run already may wait for this one.
    fn want_runner(&'static self) {
        if self.slots.ask_idle(1) > 0 {
            self.start_thread();
        }
    }

    /// Starts a thread; false if there are too many, or the system refuses.
    fn start_thread(&'static self) -> bool {
        let mut threads = self.lock();
        let number = threads.alive.iter().position(Option::is_none).unwrap_or(threads.alive.len());
        if self.slots.make(number).is_none() {
            return false;
        }
        let shutdowns = self.shutdowns.load(Ordering::Relaxed);
        self.starting.fetch_add(1, Ordering::Relaxed);
        let builder =
            std::thread::Builder::new().name(format!("pb-{number}")).stack_size(params::stack_size());
        let birth = Birth::prepare();
        let blocked = SignalsBlocked::enter();
        let spawned = builder.spawn(move || {
            birth.begin();
            self.live(number, shutdowns);
        });
        drop(blocked);
        let Ok(handle) = spawned else {
            self.starting.fetch_sub(1, Ordering::Relaxed);
            return false;
        };
        if number == threads.alive.len() {
            threads.alive.push(None);
        }
        threads.alive[number] = Some(shutdowns);
        threads.handles.retain(|handle| !handle.is_finished());
        threads.handles.push(handle);
        true
    }

    /// How many threads are in nobody's work.
    fn free_threads(&self) -> usize {
        let threads = self.lock();
        let alive = threads.alive.iter().zip(self.slots.iter()).filter(|(since, _)| since.is_some());
        alive.filter(|(_, slot)| !slot.working.load(Ordering::Relaxed)).count()
    }

    /// The life of a pool thread.
    fn live(&'static self, number: usize, shutdowns: u32) {
        let Some(slot) = self.slots.get(number) else { return };
        OWN.set(Some(number));
        slot.occupy();
        fine_timer();
        // A panic here would leave a call waiting for ever: better a core dump that names the place.
        let guard = AbortOnUnwind;
        let mut spin = Spin::new();
        let is_over = || self.shutdowns.load(Ordering::Relaxed) != shutdowns;
        // Before it looks: from then on it may be busy for long.
        self.starting.fetch_sub(1, Ordering::SeqCst);
        self.serve_board(number);
        loop {
            let patience = || (number >= self.stays()).then_some(SPARE_IDLE);
            let more = || self.board.wants() || is_over();
            match slot.wait(&mut spin, more, || self.phases.keep_awake(number), patience) {
                Wakeup::Mail(Mail::Visit(visit)) => {
                    slot.working.store(true, Ordering::Relaxed);
                    visit.run(number);
                    slot.working.store(false, Ordering::Relaxed);
                }
                Wakeup::Mail(_) if !is_over() => {}
                _ => break,
            }
            self.serve_board(number);
        }
        self.end(number);
        std::mem::forget(guard);
        self.ended.notify_all();
    }

    /// The thread of this slot is alive no more. Who relies on a thread that is alive looks for one under this lock, after he has put
    /// his order on the board: so it is done here, and not by a new thread, which would outlive a shutdown.
    fn end(&self, number: usize) {
        loop {
            self.serve_board(number);
            let mut threads = self.lock();
            if !self.board.wants() {
                threads.alive[number] = None;
                return;
            }
        }
    }

    /// Does what is on the board until there is nothing.
    fn serve_board(&self, number: usize) {
        let Some(slot) = self.slots.get(number) else { return };
        while let Some(order) = self.board.take() {
            slot.working.store(true, Ordering::Relaxed);
            match order {
                Order::Visit(visit) => visit.run(number),
                Order::Run(run) => run(),
            }
            slot.working.store(false, Ordering::Relaxed);
        }
    }

    fn stays(&self) -> usize {
        *self.stays.get_or_init(|| usize::try_from(crate::cpu::count()).unwrap_or(1))
    }
}

struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Ends the pool's idle threads and waits for them; a thread that still runs a task ends by itself after it. The next
/// call starts new threads.
pub fn shutdown() {
    let Some(pool) = POOL.get() else { return };
    let now = pool.shutdowns.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    fence(Ordering::SeqCst);
    pool.slots.ask_idle(Slots::MAX);
    let mut threads = pool.lock();
    // Those of other callers that were started after this are none of our business.
    let is_old = |since: &Option<u32>| since.is_some_and(|since| (since.wrapping_sub(now) as i32) < 0);
    let is_working = |number| pool.slots.get(number).is_some_and(|slot| slot.working.load(Ordering::Relaxed));
    let waits = |threads: &Threads| {
        threads.alive.iter().enumerate().any(|(number, since)| is_old(since) && !is_working(number))
    };
    while waits(&threads) {
        // With a limit, since a thread that begins to work makes no noise.
        let wait = pool.ended.wait_timeout(threads, Duration::from_millis(20));
        threads = wait.unwrap_or_else(PoisonError::into_inner).0;
    }
    // While a task runs its thread cannot be told from the others: they end on their own then.
    let all_ended = threads.alive.iter().all(Option::is_none);
    let handles = if all_ended { std::mem::take(&mut threads.handles) } else { Vec::new() };
    drop(threads);
    handles.into_iter().for_each(|handle| drop(handle.join()));
}

/// Holds the lock under which threads are started over a fork. glibc (2.36, for one) reuses the stack of a thread that has ended, and
/// frees what that one's thread-local variables had, before it takes note of it: a child that was forked in between frees it again.
pub fn fork_guard() -> impl Sized + 'static {
    POOL.get().map(Pool::lock)
}

/// In a forked child: the pool's threads did not come along, and their locks may be held by them for ever. The next call
/// makes a new pool.
pub fn forget_after_fork() {
    POOL.forget();
}
