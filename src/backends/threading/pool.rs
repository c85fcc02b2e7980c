//! The pool: threads that wait for a place in somebody's map.
//!
//! What is queued is never an item but a ticket: "this call has places", or a submitted job to drive. Tickets travel
//! by crossbeam-deque: a pool thread pushes to its own deque, others to the injector, and whoever is idle steals.
//!
//! `wanted` counts places that are offered and not taken, `idle` threads that hold no ticket. Who offers raises
//! `wanted` first, then queues the ticket, then looks (under the lock) whether there are fewer idle threads than
//! wanted places, and starts the missing ones: so every place has a thread that will look for it, whatever the others
//! are busy with. A thread sleeps only after it has seen `wanted` at 0 under the lock, and who offers notifies under
//! the same lock after raising it: no wake-up is lost.

use super::gate::Gate;
use crate::job::Job;
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use std::cell::RefCell;
use std::sync::atomic::{AtomicIsize, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// More threads than this are never started; maps then run with fewer helpers.
const MAX_THREADS: usize = 1024;
/// What main threads usually have; untouched pages cost nothing.
const STACK_BYTES: usize = 8 << 20;
/// A thread beyond one for each CPU ends after this long without work.
const SPARE_IDLE: Duration = Duration::from_secs(5);
/// Looks for work before sleeping: a few microseconds, so that calls in quick succession find their helpers awake.
const LOOKS_BEFORE_SLEEP: u32 = 200;

static POOL: Mutex<Option<Arc<Pool>>> = Mutex::new(None);
/// Forks that this process is a child of, counted in the child.
static FORKS: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The deque of a pool thread, with the pool that it belongs to.
    static OWN: RefCell<Option<(Arc<Pool>, Worker<Ticket>)>> = const { RefCell::new(None) };
}

enum Ticket {
    /// Weak: a ticket that nobody took before its call ended must not keep the call, and so this pool, alive.
    Help(Weak<Call>),
    Run(Box<dyn FnOnce() + Send>),
}

/// A map that wants helpers.
pub(super) struct Call {
    job: Arc<Job>,
    gate: Gate,
    /// Places not taken yet. Only the thread that lowers it may lower the pool's `wanted` by as much.
    places: AtomicUsize,
    pool: Arc<Pool>,
    forks: u32,
}

struct Pool {
    injector: Injector<Ticket>,
    stealers: RwLock<Vec<(usize, Stealer<Ticket>)>>,
    wanted: AtomicIsize,
    idle: AtomicIsize,
    threads: Mutex<Threads>,
    work: Condvar,
    /// Threads that stay when idle.
    keep: usize,
}

#[derive(Default)]
struct Threads {
    alive: usize,
    asleep: usize,
    started: usize,
    ending: bool,
    handles: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn current() -> Arc<Pool> {
    let mut pool = lock(&POOL);
    pool.get_or_insert_with(|| {
        Arc::new(Pool {
            injector: Injector::new(),
            stealers: RwLock::default(),
            wanted: AtomicIsize::new(0),
            idle: AtomicIsize::new(0),
            threads: Mutex::default(),
            work: Condvar::new(),
            keep: usize::try_from(crate::cpu::count()).unwrap_or(1),
        })
    })
    .clone()
}

/// Offers places in a job to the pool's threads.
pub(super) fn offer(job: Arc<Job>, places: usize) -> Arc<Call> {
    let pool = current();
    let forks = FORKS.load(Ordering::Relaxed);
    let call = Arc::new(Call { job, gate: Gate::new(), places: AtomicUsize::new(places), pool, forks });
    call.pool.queue(Ticket::Help(Arc::downgrade(&call)), places);
    call
}

/// Runs `work` on a pool thread.
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    current().queue(Ticket::Run(Box::new(work)), 1);
}

impl Call {
    /// Takes back the places that are left and waits for the helpers inside; false in a forked child.
    pub(super) fn join(&self) -> bool {
        let left = self.places.swap(0, Ordering::Relaxed);
        self.pool.wanted.fetch_sub(left as isize, Ordering::Relaxed);
        self.gate.close(|| FORKS.load(Ordering::Relaxed) != self.forks)
    }

    /// Takes a place: how many are left after it, or `None` if there was none.
    fn take_place(&self) -> Option<usize> {
        let taken =
            self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |places| places.checked_sub(1));
        taken.ok().map(|before| before - 1)
    }
}

impl Pool {
    fn queue(self: &Arc<Self>, ticket: Ticket, places: usize) {
        self.wanted.fetch_add(places as isize, Ordering::SeqCst);
        self.push(ticket);
        let mut threads = lock(&self.threads);
        let short = self.wanted.load(Ordering::SeqCst) - self.idle.load(Ordering::SeqCst);
        for _ in 0..short.max(0) {
            if !self.start_thread(&mut threads) {
                break;
            }
        }
        match (places, threads.asleep) {
            (_, 0) => {}
            (1, _) => self.work.notify_one(),
            _ => self.work.notify_all(),
        }
    }

    fn push(self: &Arc<Self>, ticket: Ticket) {
        let mut ticket = Some(ticket);
        let _ = OWN.try_with(|own| {
            if let Some((pool, deque)) = &*own.borrow() {
                if Arc::ptr_eq(pool, self) {
                    ticket.take().into_iter().for_each(|ticket| deque.push(ticket));
                }
            }
        });
        ticket.into_iter().for_each(|ticket| self.injector.push(ticket));
    }

    /// Starts a thread, which counts as idle from here on. False if the system refuses or there are enough.
    fn start_thread(self: &Arc<Self>, threads: &mut Threads) -> bool {
        if threads.alive >= MAX_THREADS {
            return false;
        }
        let number = threads.started;
        let pool = self.clone();
        let builder = std::thread::Builder::new().name(format!("pb-{number}")).stack_size(STACK_BYTES);
        let Ok(handle) = builder.spawn(move || pool.live(number)) else { return false };
        threads.started += 1;
        threads.alive += 1;
        threads.handles.retain(|handle| !handle.is_finished());
        threads.handles.push(handle);
        self.idle.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// The life of a pool thread.
    fn live(self: Arc<Self>, number: usize) {
        let deque = Worker::new_lifo();
        self.stealers.write().unwrap_or_else(PoisonError::into_inner).push((number, deque.stealer()));
        OWN.with(|own| own.replace(Some((self.clone(), deque))));
        // A panic here would leave a call waiting for ever: better a core dump that names the place.
        let guard = AbortOnUnwind;
        while self.wait_for_work() {
            match self.find(number) {
                Some(ticket) => self.serve(ticket),
                // On its way from one deque to another.
                None => std::thread::yield_now(),
            }
        }
        std::mem::forget(guard);
        OWN.with(RefCell::take);
        self.stealers.write().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != number);
    }

    /// Sleeps until there is work; false when the thread should end.
    fn wait_for_work(&self) -> bool {
        for _ in 0..LOOKS_BEFORE_SLEEP {
            if self.wanted.load(Ordering::Relaxed) > 0 {
                return true;
            }
            std::hint::spin_loop();
        }
        let mut threads = lock(&self.threads);
        loop {
            if self.wanted.load(Ordering::SeqCst) > 0 {
                return true;
            }
            let spare = threads.alive > self.keep;
            threads.asleep += 1;
            let timed_out = if threads.ending {
                true
            } else if spare {
                let (guard, wait) =
                    self.work.wait_timeout(threads, SPARE_IDLE).unwrap_or_else(PoisonError::into_inner);
                threads = guard;
                wait.timed_out()
            } else {
                threads = self.work.wait(threads).unwrap_or_else(PoisonError::into_inner);
                false
            };
            threads.asleep -= 1;
            if timed_out && self.wanted.load(Ordering::SeqCst) <= 0 {
                threads.alive -= 1;
                self.idle.fetch_sub(1, Ordering::SeqCst);
                self.work.notify_all(); // `shutdown` may be waiting for the last idle thread
                return false;
            }
        }
    }

    fn find(&self, number: usize) -> Option<Ticket> {
        let own = OWN.with(|own| own.borrow().as_ref().and_then(|(_, deque)| deque.pop()));
        own.or_else(|| steal(|| self.injector.steal())).or_else(|| {
            let stealers = self.stealers.read().unwrap_or_else(PoisonError::into_inner);
            let others = stealers.iter().filter(|(other, deque)| *other != number && !deque.is_empty());
            others.into_iter().find_map(|(_, deque)| steal(|| deque.steal()))
        })
    }

    /// Does what a ticket asks for. This thread is idle before and after.
    fn serve(self: &Arc<Self>, ticket: Ticket) {
        match ticket {
            Ticket::Run(work) => {
                self.take(1);
                work();
            }
            Ticket::Help(call) => {
                let Some(call) = call.upgrade() else { return };
                let Some(left) = call.take_place() else { return };
                self.take(1);
                if left > 0 {
                    self.push(Ticket::Help(Arc::downgrade(&call)));
                }
                if call.gate.enter() {
                    call.job.work();
                    call.gate.leave();
                }
            }
        }
        self.idle.fetch_add(1, Ordering::SeqCst);
    }

    /// This thread takes a place: first no longer idle, then the place no longer wanted, so that who compares the two
    /// in between starts a thread too many rather than one too few.
    fn take(&self, places: isize) {
        self.idle.fetch_sub(1, Ordering::SeqCst);
        self.wanted.fetch_sub(places, Ordering::SeqCst);
    }
}

fn steal(mut attempt: impl FnMut() -> Steal<Ticket>) -> Option<Ticket> {
    loop {
        match attempt() {
            Steal::Success(ticket) => return Some(ticket),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Ends the pool's idle threads and waits for them; a thread that still runs a task ends by itself after it. The next
/// call starts a new pool.
pub fn shutdown() {
    let Some(pool) = lock(&POOL).take() else { return };
    let mut threads = lock(&pool.threads);
    threads.ending = true;
    pool.work.notify_all();
    while pool.idle.load(Ordering::SeqCst) > 0 {
        threads = pool
            .work
            .wait_timeout(threads, Duration::from_millis(50))
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    let handles = std::mem::take(&mut threads.handles);
    let alive = threads.alive;
    drop(threads);
    // With a task still running, its thread cannot be told from the others: they end on their own.
    if alive == 0 {
        handles.into_iter().for_each(|handle| drop(handle.join()));
    }
}

/// The pool's lock, held over a fork.
pub struct ForkGuard(MutexGuard<'static, Option<Arc<Pool>>>);

/// Holds the pool's lock over a fork, so that the child finds it free.
pub fn fork_guard() -> ForkGuard {
    ForkGuard(lock(&POOL))
}

impl ForkGuard {
    /// In the child: the pool's threads did not come along, and the next call starts a new pool.
    pub fn in_child(mut self) {
        // Locks inside the pool may be held by threads that do not exist here: it is never touched again.
        std::mem::forget(self.0.take());
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
}
