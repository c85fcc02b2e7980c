//! What a worker process holds for calls whose chunks come one by one, in messages: each call's ctx, whether it was cancelled,
//! and which worker's numbers its chunks have that run. A call is known by a random number that its caller gave it. And what
//! CPUs of this machine a chunk has.

use crate::message::Around;
use crate::status::{Error, Result};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many cancelled calls are remembered: a chunk that comes later than so many other cancels runs in vain, no worse.
const REMEMBERED: usize = 1024;

struct Ctx {
    call: u64,
    address: usize,
    size: usize,
}

struct Held {
    ctxs: Vec<Ctx>,
    cancelled: VecDeque<u64>,
    /// The calls and seats of chunks that run.
    seats: Vec<(u64, u32)>,
}

static HELD: Mutex<Held> =
    Mutex::new(Held { ctxs: Vec::new(), cancelled: VecDeque::new(), seats: Vec::new() });

/// How many cancels there were. It grows after the call is in the list, so who has read a number and did not find the call
/// then need not look again until the number is another one.
static CANCELS: AtomicU64 = AtomicU64::new(0);

fn lock() -> MutexGuard<'static, Held> {
    // Nothing that can panic runs under the lock.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> impl Sized + 'static {
    lock()
}

/// Notes where the ctx of a call lies. The same call again: it lies elsewhere from now on.
pub fn put_ctx(call: u64, address: usize, size: usize) {
    let mut held = lock();
    held.ctxs.retain(|ctx| ctx.call != call);
    held.ctxs.push(Ctx { call, address, size });
}

/// Forgets the ctx of a call.
pub fn drop_ctx(call: u64) {
    lock().ctxs.retain(|ctx| ctx.call != call);
}

/// Where `size` bytes of ctx of a call lie.
pub(super) fn ctx(call: u64, size: u64) -> Result<usize> {
    let found = lock().ctxs.iter().find(|ctx| ctx.call == call).map(|ctx| (ctx.address, ctx.size));
    match found {
        Some((address, found)) if found as u64 == size => Ok(address),
        Some((_, found)) => Err(Error::invalid(format!(
            "the worker was given {found} bytes of ctx (pb_worker_put_ctx), the chunk's call has {size}"
        ))),
        None => Err(Error::invalid(
            "the chunk's ctx is not in its message, and not in this worker: pb_worker_put_ctx first",
        )),
    }
}

/// The number that the tasks of a chunk have for their worker, until it is dropped.
pub(super) struct Seat {
    call: u64,
    pub number: u32,
}

/// A number that no other chunk of the call has which runs in this process: the one that its caller gave it, if that can be.
/// A caller that does not choose the workers of its chunks cannot know which of them will run at the same time, nor how many
/// where its cluster grows: so there is always another number.
pub(super) fn sit(call: u64, given: u32) -> Seat {
    let mut held = lock();
    let is_free = |number: &u32| !held.seats.contains(&(call, *number));
    let number = std::iter::once(given).chain(0..).find(is_free).unwrap_or(given);
    held.seats.push((call, number));
    Seat { call, number }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = lock();
        if let Some(place) = held.seats.iter().position(|seat| *seat == (self.call, self.number)) {
            held.seats.swap_remove(place);
        }
    }
}

/// CPUs of a chunk's tasks where this worker says so; 0: as many as its caller's share has.
static CPUS: AtomicI32 = AtomicI32::new(0);

/// From now on each chunk has so many CPUs of this machine, whatever its caller's machine is like.
pub fn set_cpus(cpus: i32) {
    CPUS.store(cpus, Ordering::Relaxed);
}

/// The share of a chunk's tasks in this process.
pub(super) fn at_home(around: &Around) -> Around {
    match CPUS.load(Ordering::Relaxed) {
        0 => around.clone(),
        cpus if around.limit_is_exact => Around { cpus, ..around.clone() },
        cpus => Around { cpus, limit: cpus, ..around.clone() },
    }
}

/// Asks the chunks of one call to stop: those that run, and those that come.
pub fn cancel_call(call: u64) {
    let mut held = lock();
    held.cancelled.push_back(call);
    if held.cancelled.len() > REMEMBERED {
        held.cancelled.pop_front();
    }
    drop(held);
    CANCELS.fetch_add(1, Ordering::Release);
}

/// A chunk's look at whether its call was cancelled: one load, while nobody cancels anything.
pub(super) struct Watch {
    call: u64,
    /// The count of cancels at which the call was not among them.
    seen: AtomicU64,
}

impl Watch {
    pub(super) fn new(call: u64) -> Self {
        Watch { call, seen: AtomicU64::new(0) }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        let count = CANCELS.load(Ordering::Acquire);
        if count == self.seen.load(Ordering::Relaxed) {
            return false;
        }
        let cancelled = lock().cancelled.contains(&self.call);
        if !cancelled {
            self.seen.store(count, Ordering::Relaxed);
        }
        cancelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ctx_is_found_by_its_call_and_size() {
        let bytes = [1_u8, 2, 3];
        put_ctx(7001, bytes.as_ptr() as usize, bytes.len());
        assert_eq!(ctx(7001, 3), Ok(bytes.as_ptr() as usize));
        assert!(ctx(7001, 4).unwrap_err().message.contains("3 bytes"));
        drop_ctx(7001);
        assert!(ctx(7001, 3).unwrap_err().message.contains("pb_worker_put_ctx"));
    }

    /// For tests that cancel: all share one list, of which old entries fall out.
    static CANCELLING: Mutex<()> = Mutex::new(());

    #[test]
    fn a_cancel_reaches_its_call_only_and_chunks_that_come_later_too() {
        let _cancelling = CANCELLING.lock().unwrap_or_else(PoisonError::into_inner);
        let (one, other) = (Watch::new(8001), Watch::new(8002));
        assert!(!one.is_cancelled() && !other.is_cancelled());
        cancel_call(8001);
        assert!(one.is_cancelled() && one.is_cancelled());
        assert!(!other.is_cancelled() && !other.is_cancelled());
        assert!(Watch::new(8001).is_cancelled());
    }

    #[test]
    fn chunks_that_run_at_the_same_time_have_different_numbers() {
        let first = sit(9001, 1);
        let second = sit(9001, 1);
        let third = sit(9001, 2);
        assert_eq!([first.number, second.number, third.number], [1, 0, 2]);
        assert_eq!(sit(9002, 1).number, 1);
        let fourth = sit(9001, 1);
        assert_eq!(fourth.number, 3);
        drop(second);
        assert_eq!(sit(9001, 1).number, 0);
        drop((first, third, fourth));
        assert!(!lock().seats.iter().any(|(call, _)| *call == 9001));
    }

    #[test]
    fn only_the_newest_cancels_are_remembered() {
        let _cancelling = CANCELLING.lock().unwrap_or_else(PoisonError::into_inner);
        (0..REMEMBERED as u64 + 10).for_each(|call| cancel_call((1 << 40) + call));
        assert!(lock().cancelled.len() <= REMEMBERED);
        assert!(Watch::new((1 << 40) + REMEMBERED as u64).is_cancelled());
    }
}
