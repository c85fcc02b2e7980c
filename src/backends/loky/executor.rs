//! Executors: the workers of each set of parameters, kept between calls.
//!
//! A call borrows idle workers and gives them back. There are never more workers than the largest number that one call has
//! asked for; calls of several threads share them, and a call that finds none idle waits for the first that comes back. It
//! holds none meanwhile, and who holds one gives it back without waiting for anybody: so nobody waits for ever.
//!
//! Only a progress callback may wait for anything, another call among it, while its own call holds workers. As long as one
//! runs, a call that has no worker and finds none idle does not wait, but starts one.
//!
//! One lock guards everything; it is held over forks. Processes are started and waited for without it.

use super::command::Threads;
use super::hand::{Bells, Hand};
use super::params::Params;
use crate::link::{CTX, CTX_KEPT, segment};
use crate::shared::Mapping;
use crate::status::Result;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long dismissed workers have to end by themselves.
const FAREWELL: Duration = Duration::from_secs(2);

/// What calls with equal parameters have in common.
pub struct Executor {
    pub params: Params,
    pub bells: Bells,
    number: u64,
    /// Callbacks that run while their calls hold workers.
    callbacks: AtomicUsize,
}

/// A callback, as long as it runs.
pub struct Callback<'a>(&'a AtomicUsize);

impl Drop for Callback<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A ctx in memory that workers map.
pub struct CtxCopy {
    /// As messages name it.
    pub id: u64,
    pub file: OwnedFd,
    pub len: usize,
    mapping: Mapping,
}

struct Crew {
    executor: Arc<Executor>,
    /// The one that was used last comes last: it is the most likely to be awake.
    idle: Vec<Hand>,
    /// Idle, lent, and about to be started.
    total: usize,
    /// The last ones: what the next call brings is often the same.
    ctxs: Vec<Arc<CtxCopy>>,
}

static CREWS: Mutex<Vec<Crew>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();
static NUMBERS: AtomicU64 = AtomicU64::new(1);

fn lock() -> MutexGuard<'static, Vec<Crew>> {
    CREWS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that nothing else has had.
pub fn next_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// The executor with these parameters.
pub fn get(params: &Params) -> Result<Arc<Executor>> {
    let find = |crews: &[Crew]| {
        crews.iter().find(|crew| crew.executor.params == *params).map(|crew| crew.executor.clone())
    };
    if let Some(executor) = find(&lock()) {
        return Ok(executor);
    }
    let (bells, number) = (Bells::new()?, next_number());
    let executor =
        Arc::new(Executor { params: params.clone(), bells, number, callbacks: AtomicUsize::new(0) });
    let mut crews = lock();
    if let Some(executor) = find(&crews) {
        return Ok(executor);
    }
    crews.push(Crew { executor: executor.clone(), idle: Vec::new(), total: 0, ctxs: Vec::new() });
    Ok(executor)
}

impl Executor {
    /// This executor's crew, unless it was shut down meanwhile.
    fn crew<'a>(&self, crews: &'a mut [Crew]) -> Option<&'a mut Crew> {
        crews.iter_mut().find(|crew| crew.executor.number == self.number)
    }

    /// To be held while a callback runs whose call holds workers.
    pub fn in_callback(&self) -> Callback<'_> {
        self.callbacks.fetch_add(1, Ordering::Relaxed);
        Callback(&self.callbacks)
    }

    /// Whether a call must not wait until a worker comes back: its holder may be waiting for the call.
    fn may_be_awaited(&self) -> bool {
        self.callbacks.load(Ordering::Relaxed) > 0
    }

    /// Borrows or starts a worker for a call that wants `wanted` in all and may have some already. `None` where all are lent
    /// to others.
    pub fn borrow(&self, wanted: usize, has_some: bool, threads: Threads) -> Result<Option<Hand>> {
        {
            let mut crews = lock();
            match self.crew(&mut crews) {
                Some(crew) => {
                    if let Some(hand) = crew.idle.pop() {
                        return Ok(Some(hand));
                    }
                    if crew.total >= wanted && (has_some || !self.may_be_awaited()) {
                        return Ok(None);
                    }
                    crew.total += 1;
                }
                // After a shutdown a call that still runs starts what it needs for itself.
                None => drop(crews),
            }
        }
        let started = Hand::start(&self.params, threads, &self.bells);
        if started.is_err() {
            self.gone(1);
        }
        started.map(Some)
    }

    /// Waits until a call that wants `wanted` workers can borrow or start one, or for a while.
    pub fn wait(&self, wanted: usize) {
        let crews = lock();
        let _ = GIVEN_BACK.wait_timeout_while(crews, Duration::from_millis(100), |crews| {
            let is_free = |crew: &mut Crew| !crew.idle.is_empty() || crew.total < wanted;
            !self.may_be_awaited() && !self.crew(crews).is_none_or(is_free)
        });
    }

    /// Gives a worker back.
    pub fn give_back(&self, hand: Hand) {
        let mut crews = lock();
        match self.crew(&mut crews) {
            Some(crew) => crew.idle.push(hand),
            None => {
                drop(crews);
                hand.dismiss();
                hand.bury(Instant::now() + FAREWELL);
                return;
            }
        }
        drop(crews);
        GIVEN_BACK.notify_all();
    }

    /// So many workers are no more.
    pub fn gone(&self, count: usize) {
        if let Some(crew) = self.crew(&mut lock()) {
            crew.total = crew.total.saturating_sub(count);
        }
        GIVEN_BACK.notify_all();
    }

    /// A copy of `bytes` that workers can map: one of the last calls', if that was the same.
    pub fn ctx(&self, bytes: &[u8]) -> Result<Arc<CtxCopy>> {
        let kept = self.crew(&mut lock()).map(|crew| crew.ctxs.clone()).unwrap_or_default();
        let same = |copy: &&Arc<CtxCopy>| copy.len == bytes.len() && copy.mapping.bytes(0, copy.len) == bytes;
        if let Some(copy) = kept.iter().find(same) {
            return Ok(copy.clone());
        }
        let (file, mapping) = segment::create(bytes.len())?;
        mapping.write(0, bytes);
        let copy = Arc::new(CtxCopy { id: CTX | next_number(), file, len: bytes.len(), mapping });
        if let Some(crew) = self.crew(&mut lock()) {
            crew.ctxs.truncate(CTX_KEPT - 1);
            crew.ctxs.insert(0, copy.clone());
        }
        Ok(copy)
    }
}

/// Ends all idle workers and waits for them; those that are lent end when they are given back.
pub fn shutdown() {
    let crews = std::mem::take(&mut *lock());
    let hands: Vec<_> = crews.into_iter().flat_map(|crew| crew.idle).collect();
    GIVEN_BACK.notify_all();
    hands.iter().for_each(Hand::dismiss);
    let until = Instant::now() + FAREWELL;
    hands.into_iter().for_each(|hand| hand.bury(until));
}

/// The lock, held over a fork.
pub struct ForkGuard(MutexGuard<'static, Vec<Crew>>);

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> ForkGuard {
    ForkGuard(lock())
}

impl ForkGuard {
    /// In the child: the workers are the parent's.
    pub fn in_child(mut self) {
        self.0.clear();
    }
}
