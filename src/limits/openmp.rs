//! OpenMP runtimes: libgomp, LLVM's libomp, Intel's libiomp5.
//!
//! The count is an "internal control variable" of the calling thread. A thread that the program starts begins
//! with the environment's value, never with the main thread's, so a limit has to be set on every worker.

use super::find::Object;
use super::pool::{Get, Knob, Pool, Reach, Saved, Set};
use std::sync::Arc;

/// `omp_get_max_threads` and `omp_set_num_threads` of one runtime.
#[derive(Clone, Copy)]
pub struct Openmp {
    get: Get,
    set: Set,
}

impl Openmp {
    /// The runtime that calls from `object` go to: its own, or the one it depends on.
    pub fn bound_to(object: &Object) -> Option<Openmp> {
        // SAFETY: these are the types that the OpenMP standard gives. The object that defines them is a pool
        // of its own, and pools keep their objects pinned.
        unsafe {
            Some(Openmp {
                get: object.bound("omp_get_max_threads")?,
                set: object.bound("omp_set_num_threads")?,
            })
        }
    }
}

impl Knob for Openmp {
    fn get(&self) -> i32 {
        // SAFETY: the runtime is pinned, and any thread may ask.
        unsafe { (self.get)() }
    }

    fn set(&self, threads: i32) -> Saved {
        let before = self.get();
        // SAFETY: as above; the call concerns this thread only.
        unsafe { (self.set)(threads) };
        Saved::Count(before)
    }

    fn restore(&self, saved: Saved) {
        if let Saved::Count(before) = saved {
            // SAFETY: as above.
            unsafe { (self.set)(before) };
        }
    }
}

/// The OpenMP runtime that `object` is, or has linked into it.
pub fn find(object: &Arc<Object>) -> Option<Pool> {
    // Others may export the one function or the other, for instance as a stub: a runtime has both.
    if !object.defines("omp_get_max_threads") || !object.defines("omp_set_num_threads") {
        return None;
    }
    let runtime = Openmp::bound_to(object)?;
    Some(Pool::of(
        object,
        super::OPENMP,
        "openmp",
        &["libiomp5", "libgomp", "libomp"],
        Reach::Thread,
        Box::new(runtime),
    ))
}
