//! The bridges of this process: one for each set of parameters and interpreter, shared by the calls of all threads.
//!
//! One lock guards the list; it is held over forks. Bridges are waited for without it.

use super::bridge::Bridge;
use super::frames::Ready;
use super::params::Params;
use crate::status::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

static BRIDGES: Mutex<Vec<Arc<Bridge>>> = Mutex::new(Vec::new());

fn lock() -> MutexGuard<'static, Vec<Arc<Bridge>>> {
    BRIDGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bridge with these parameters and what it has said of its engine; starts one, if there is none.
pub fn get(params: &Params) -> Result<(Arc<Bridge>, Arc<Ready>)> {
    // One that is shut down while we wait for it is no reason to fail.
    loop {
        let bridge = find_or_start(params)?;
        if let Some(ready) = bridge.wait()? {
            return Ok((bridge, ready));
        }
    }
}

fn find_or_start(params: &Params) -> Result<Arc<Bridge>> {
    let mut bridges = lock();
    let (gone, kept) = bridges.drain(..).partition::<Vec<_>, _>(|bridge| bridge.is_gone());
    *bridges = kept;
    let found = bridges.iter().find(|bridge| bridge.serves(params)).cloned();
    let bridge = found.map_or_else(|| Bridge::start(params), Ok)?;
    if !bridges.iter().any(|other| Arc::ptr_eq(other, &bridge)) {
        bridges.push(bridge.clone());
    }
    drop(bridges);
    for bridge in &gone {
        bridge.join();
    }
    Ok(bridge)
}

/// Ends all bridges that no call uses, and waits for them; the others end after their last call.
pub fn shutdown() {
    let bridges = lock().clone();
    bridges.iter().for_each(|bridge| bridge.dismiss());
    for bridge in &bridges {
        bridge.join();
    }
    lock().retain(|bridge| !bridge.is_gone());
}

/// The lock, held over a fork.
pub struct ForkGuard(MutexGuard<'static, Vec<Arc<Bridge>>>);

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> ForkGuard {
    ForkGuard(lock())
}

impl ForkGuard {
    /// In the child: the bridges are the parent's.
    pub fn in_child(mut self) {
        self.0.drain(..).for_each(Bridge::forget_in_child);
    }
}
