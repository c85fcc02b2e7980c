//! The pool: threads that wait for a place in somebody's map.
//!
//! What is queued is never an item but a ticket: "this call has places", or a submitted job to drive. Tickets travel
//! by crossbeam-deque: a pool thread pushes to its own deque, others to the injector, and whoever is idle steals. When
//! to wake, start and end threads is decided in `bell.rs`.

use super::bell::Bell;
use super::gate::{Gate, Visits};
use crate::fork;
use crate::job::Job;
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;

/// More threads than this are never started; maps then run with fewer helpers.
pub(super) const MAX_THREADS: usize = 1024;
/// What main threads usually have; untouched pages cost nothing.
const STACK_BYTES: usize = 8 << 20;

static POOL: Mutex<Option<Arc<Pool>>> = Mutex::new(None);

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
struct Call {
    job: Arc<Job>,
    gate: Gate,
    /// Places not taken yet. Only the thread that lowers it may lower the pool's `wanted` by as much.
    places: AtomicUsize,
}

/// The caller's end of a call. The pool belongs here, not to the call: a ticket that nobody came for stays in the
/// pool's queue, and must not keep the pool that keeps it.
pub(super) struct Offer {
    call: Arc<Call>,
    pool: Arc<Pool>,
    forks: u32,
}

struct Pool {
    injector: Injector<Ticket>,
    stealers: RwLock<Vec<(usize, Stealer<Ticket>)>>,
    bell: Bell,
    started: AtomicUsize,
    handles: Mutex<Vec<JoinHandle<()>>>,
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
            bell: Bell::new(|| usize::try_from(crate::cpu::count()).unwrap_or(1)),
            started: AtomicUsize::new(0),
            handles: Mutex::default(),
        })
    })
    .clone()
}

/// Offers places in a job to the pool's threads.
pub(super) fn offer(job: Arc<Job>, places: usize) -> Offer {
    let pool = current();
    let forks = fork::generation();
    let call = Arc::new(Call { job, gate: Gate::new(), places: AtomicUsize::new(places) });
    pool.queue(Ticket::Help(Arc::downgrade(&call)), places);
    Offer { call, pool, forks }
}

/// Runs `work` on a pool thread.
pub fn spawn(work: impl FnOnce() + Send + 'static) {
    current().queue(Ticket::Run(Box::new(work)), 1);
}

/// Nanoseconds that a whole map must take before it is worth while to ask for help: with a helper awake, twice what handing
/// over costs both sides; else what waking one costs the caller, and the time until it is there. Measured on 2 virtual
/// CPUs: two tasks of 1 µs took 4.1 µs together and 2.9 µs alone.
pub(super) fn worth_help() -> u64 {
    const AWAKE: u64 = 5_000;
    const ASLEEP: u64 = 30_000;
    let pool = lock(&POOL);
    if pool.as_ref().is_some_and(|pool| pool.bell.is_hot()) { AWAKE } else { ASLEEP }
}

impl Offer {
    /// Takes back the places that are left and waits for the helpers inside.
    pub(super) fn join(&self) -> Visits {
        let left = self.call.places.swap(0, Ordering::Relaxed);
        self.pool.bell.unwant(left);
        self.call.gate.close(|| fork::generation() != self.forks)
    }
}

/// Should the caller unwind, no helper may stay in a job whose arrays its caller takes back. Joining twice does no harm.
impl Drop for Offer {
    fn drop(&mut self) {
        self.join();
    }
}

impl Call {
    /// Takes a place: how many are left after it, or `None` if there was none.
    fn take_place(&self) -> Option<usize> {
        let taken =
            self.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |places| places.checked_sub(1));
        taken.ok().map(|before| before - 1)
    }
}

impl Pool {
    fn queue(self: &Arc<Self>, ticket: Ticket, places: usize) {
        self.bell.want(places);
        self.push(ticket);
        self.bell.ring(places, |alive| alive < MAX_THREADS && self.start_thread());
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

    /// Starts a thread; false if the system refuses.
    fn start_thread(self: &Arc<Self>) -> bool {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let pool = self.clone();
        let builder = std::thread::Builder::new().name(format!("pb-{number}")).stack_size(STACK_BYTES);
        let Ok(handle) = builder.spawn(move || pool.live(number)) else { return false };
        let mut handles = lock(&self.handles);
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        true
    }

    /// The life of a pool thread.
    fn live(self: Arc<Self>, number: usize) {
        let deque = Worker::new_lifo();
        self.stealers.write().unwrap_or_else(PoisonError::into_inner).push((number, deque.stealer()));
        OWN.with(|own| own.replace(Some((self.clone(), deque))));
        // A panic here would leave a call waiting for ever: better a core dump that names the place.
        let guard = AbortOnUnwind;
        while self.bell.wait() {
            match self.find(number) {
                Some(ticket) => self.serve(ticket),
                // On its way from one deque to another.
                None => std::thread::yield_now(),
            }
            // Tickets of maps that were over before a helper came: small, but none is left lying.
            while let Some(ticket) = self.find(number) {
                self.serve(ticket);
            }
        }
        std::mem::forget(guard);
        OWN.with(RefCell::take);
        self.stealers.write().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != number);
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
                self.bell.take();
                work();
            }
            Ticket::Help(call) => {
                let Some(call) = call.upgrade() else { return };
                let Some(left) = call.take_place() else { return };
                self.bell.take();
                if left > 0 {
                    self.push(Ticket::Help(Arc::downgrade(&call)));
                }
                if call.gate.enter() {
                    call.job.work();
                    call.gate.leave();
                }
            }
        }
        self.bell.idle_again();
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
    let all_ended = pool.bell.end();
    let handles = std::mem::take(&mut *lock(&pool.handles));
    // While a task runs its thread cannot be told from the others: they end on their own then.
    if all_ended {
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
    }
}
