//! OpenMP runtimes: libgomp, LLVM's libomp, Intel's libiomp5.
//!
//! The count is an "internal control variable" of the calling thread. A thread that the program starts begins
//! with the environment's value, never with the main thread's, so a limit has to be set on every worker.

use super::find::Object;
use super::pool::{Count, Pool, Reach};
use std::sync::Arc;

/// The count of the runtime that calls from `object` go to: its own, or the one it depends on.
pub fn bound_to(object: &Object) -> Option<Count> {
    // SAFETY: these are the types that the OpenMP standard gives, and any thread may call them. The object that defines
    // them is a pool of its own, and pools keep their objects pinned.
    unsafe { Some(Count::new(object.bound("omp_get_max_threads")?, object.bound("omp_set_num_threads")?)) }
}

/// The OpenMP runtime that `object` is, or has linked into it.
pub fn find(object: &Arc<Object>) -> Option<Pool> {
    // Others may export the one function or the other, for instance as a stub: a runtime has both.
    if !object.defines("omp_get_max_threads") || !object.defines("omp_set_num_threads") {
        return None;
    }
    let runtime = bound_to(object)?;
    Some(Pool::of(
        object,
        super::OPENMP,
        "openmp",
        &["libiomp5", "libgomp", "libomp"],
        Reach::Thread,
        Box::new(runtime),
    ))
}
