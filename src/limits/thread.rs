//! Limits of one thread: set on it, put back on it.

use super::Limit;
use super::loaded;
use super::pool::{Pool, Reach, Saved};
use std::marker::PhantomData;
use std::sync::Arc;

/// The per-thread half of a limit. Dropping it, on the thread that entered it, puts every count that it
/// lowered or raised back to what was there before, even if code inside has set it once more.
#[must_use = "the limit ends when this is dropped"]
pub struct ThreadLimit {
    changed: Vec<(Arc<Pool>, Saved)>,
    /// Counts of a thread cannot be put back from another one: not `Send`.
    on_its_thread: PhantomData<*mut ()>,
}

impl ThreadLimit {
    /// Limits the calling thread in all pools that `user_api` asks for.
    pub(super) fn enter(limit: Limit, user_api: u32) -> ThreadLimit {
        let mut changed = Vec::new();
        let pools = loaded::current();
        let own = pools.iter().filter(|pool| pool.reach == Reach::Thread && pool.controllable);
        for pool in own.filter(|pool| pool.is_asked_by(user_api)) {
            let in_force = pool.knob.get();
            let differs = if limit.exact { in_force != limit.threads } else { in_force > limit.threads };
            if differs && in_force > 0 {
                changed.push((pool.clone(), pool.knob.set(limit.threads)));
            }
        }
        ThreadLimit { changed, on_its_thread: PhantomData }
    }

    /// Leaves the counts as they are: for a thread that ends.
    pub(super) fn abandon(mut self) {
        self.changed.clear();
    }
}

impl Drop for ThreadLimit {
    fn drop(&mut self) {
        // Two pools may share a count, as OpenBLAS on OpenMP does with its runtime: the first one saved what
        // was there.
        for (pool, saved) in self.changed.drain(..).rev() {
            pool.knob.restore(saved);
        }
    }
}
