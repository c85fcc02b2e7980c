//! Pools that the program registers itself: a getter, a setter, and how far they reach.
//!
//! These functions are the user's, and may call back into this library: none of its locks is held meanwhile.

use super::loaded;
use super::pool::{Knob, Pool, Reach, Saved};
use crate::status::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A thread pool that no symbol table tells of.
pub struct CustomPool {
    /// `"blas"`, `"openmp"` or `"tbb"`: which limits apply to it.
    pub user_api: String,
    /// A name of its own.
    pub internal_api: String,
    /// What `set` reaches: `"thread"`, `"process"` or `"shared-pool"`.
    pub scope: String,
    /// The count in force; on the calling thread, where that is the scope.
    pub get: Box<dyn Fn() -> i32 + Send + Sync>,
    /// Sets the count; called with what `get` has returned to put it back.
    pub set: Box<dyn Fn(i32) + Send + Sync>,
}

impl Knob for CustomPool {
    fn get(&self) -> i32 {
        // A count that cannot be told is one that is left alone.
        catch_unwind(AssertUnwindSafe(|| (self.get)())).unwrap_or(0)
    }

    fn set(&self, threads: i32) -> Saved {
        let before = Saved::Count(self.get());
        self.restore(Saved::Count(threads));
        before
    }

    fn restore(&self, saved: Saved) {
        if let Saved::Count(threads) = saved {
            // A setter that fails changes nothing for us: its count is read back.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.set)(threads)));
        }
    }
}

/// Adds a pool for the life of the process. Limits that are in force apply to it at once.
///
/// Errors: `PB_ERR_INVALID_ARGUMENT` for an empty `internal_api` or an unknown `user_api` or `scope`,
/// `PB_ERR_EXISTS` for an `internal_api` that is registered already.
pub fn register(pool: CustomPool) -> Result<()> {
    let user_api = super::api_number(&pool.user_api)?;
    let reach = [Reach::Thread, Reach::Process, Reach::SharedPool]
        .into_iter()
        .find(|reach| reach.name() == pool.scope)
        .ok_or_else(|| {
            let scope = &pool.scope;
            Error::invalid(format!(
                "unknown scope \"{scope}\": use \"thread\", \"process\" or \"shared-pool\""
            ))
        })?;
    if pool.internal_api.is_empty() {
        return Err(Error::invalid("internal_api is empty: give the pool a name"));
    }
    loaded::add(Pool {
        base: 0,
        user_api,
        internal_api: pool.internal_api.clone(),
        prefix: String::new(),
        filepath: String::new(),
        version: None,
        threading_layer: None,
        architecture: None,
        reach,
        controllable: true,
        asleep: false,
        pause: None,
        knob: Box::new(pool),
        object: None,
    })
}
