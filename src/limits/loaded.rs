//! The pools that are known, looked for again whenever an object has been loaded or unloaded.
//!
//! A pool that was found stays: its object is pinned. So the list only grows, and asking for it while nothing
//! has changed costs one question to the loader and one lock.

use super::find::{self, Generation, Loaded, Object};
use super::pool::Pool;
use super::{blis, flexiblas, ledger, mkl, openblas, openmp, tbb};
use crate::status::{Error, Result, Status};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// All pools, in the order in which they were found.
pub type Pools = Arc<[Arc<Pool>]>;

#[derive(Default)]
pub struct Known {
    generation: Option<Generation>,
    /// Bases of the objects that were looked into.
    judged: Vec<usize>,
    pools: Pools,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// Never held while anything else is locked or called, except by a fork guard.
pub fn lock() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The loads and unloads, in one word, at which no pool was known; 0 if one was.
static NOTHING: AtomicU64 = AtomicU64::new(0);

/// A generation in one word; 0 if it does not fit.
fn packed(now: Generation) -> u64 {
    if now.loads < 1 << 32 && now.unloads < 1 << 31 { now.loads << 32 | now.unloads << 1 | 1 } else { 0 }
}

/// Whether it is known, without a lock, that there is no pool.
pub fn nothing_known() -> bool {
    let nothing = NOTHING.load(Ordering::Relaxed);
    nothing != 0 && nothing == packed(find::generation())
}

/// Whether that was so when somebody last looked.
pub fn nothing_known_at_last_look() -> bool {
    NOTHING.load(Ordering::Relaxed) != 0
}

/// The pools as last seen.
pub fn last() -> Pools {
    lock().pools.clone()
}

thread_local!(static MAY_LOOK: Cell<bool> = const { Cell::new(true) });

/// Has [`current`] on this thread answer as [`last`] while `work` runs.
pub fn without_looking<R>(work: impl FnOnce() -> R) -> R {
    let may = MAY_LOOK.replace(false);
    let result = work();
    MAY_LOOK.set(may);
    result
}

/// The pools of the objects that are loaded now.
pub fn current() -> Pools {
    if !MAY_LOOK.try_with(Cell::get).unwrap_or(true) {
        return last();
    }
    let now = find::generation();
    {
        let known = lock();
        if known.generation == Some(now) {
            return known.pools.clone();
        }
    }
    look_again(now)
}

fn look_again(now: Generation) -> Pools {
    let (judged, pools) = {
        let mut known = lock();
        if known.generation.is_some_and(|last| last.unloads != now.unloads) {
            // Another object may lie now where an unloaded one did; those with pools are pinned.
            known.judged = known.pools.iter().map(|pool| pool.base).collect();
        }
        (known.judged.clone(), known.pools.clone())
    };
    let loaded = find::loaded();
    let opened: Vec<_> = loaded
        .iter()
        .filter(|object| !object.has_no_pool() && !judged.contains(&object.base))
        .filter_map(|object| Object::open(object).map(Arc::new))
        .collect();
    let mut found: Vec<_> = opened.iter().flat_map(|object| pools_in(object, &loaded)).collect();
    let asleep = pools.iter().filter(|pool| pool.asleep).filter_map(|pool| pool.object.as_ref());
    found.extend(asleep.filter_map(|object| mkl::find(object, &loaded)));
    let pools = {
        let mut known = lock();
        known.judged.extend(opened.iter().map(|object| object.base));
        known.generation = Some(now);
        known.pools = merge(&known.pools, found);
        NOTHING.store(if known.pools.is_empty() { packed(now) } else { 0 }, Ordering::Relaxed);
        known.pools.clone()
    };
    // What is in force applies to the newcomers too.
    ledger::settle(&pools);
    pools
}

/// The thread pools that live in one object.
fn pools_in(object: &Arc<Object>, loaded: &[Loaded]) -> Vec<Pool> {
    if let Some(front) = flexiblas::find(object) {
        return vec![front];
    }
    let found = [
        openblas::find(object),
        mkl::find(object, loaded),
        blis::find(object),
        openmp::find(object),
        tbb::find(object),
    ];
    found.into_iter().flatten().collect()
}

/// Adds what is new. Another thread may have found the same meanwhile: a library of one family at one base is
/// one pool. One that has woken up replaces its sleeping self.
fn merge(known: &Pools, found: Vec<Pool>) -> Pools {
    let mut pools = known.to_vec();
    for new in found {
        let same = |old: &&mut Arc<Pool>| old.base == new.base && old.internal_api == new.internal_api;
        match pools.iter_mut().find(same) {
            None => pools.push(Arc::new(new)),
            Some(old) if old.asleep && !new.asleep => *old = Arc::new(new),
            Some(_) => {}
        }
    }
    pools.into()
}

/// Adds a registered pool, whose name must be new among them.
pub fn add(pool: Pool) -> Result<()> {
    let pools = {
        let mut known = lock();
        if known.pools.iter().any(|old| old.object.is_none() && old.internal_api == pool.internal_api) {
            let name = &pool.internal_api;
            return Err(Error::new(
                Status::ERR_EXISTS,
                format!("a thread pool \"{name}\" is registered already"),
            ));
        }
        known.pools = merge(&known.pools, vec![pool]);
        NOTHING.store(0, Ordering::Relaxed);
        known.pools.clone()
    };
    ledger::settle(&pools);
    Ok(())
}
