//! OpenMP runtimes: libgomp, LLVM's libomp, Intel's libiomp5.
//!
//! The count is an "internal control variable" of the calling thread. A thread that the program starts begins
//! with the environment's value, never with the main thread's, so a limit has to be set on every worker.

use super::find::Object;
use super::pool::{Count, Pause, Pool, Reach};
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
    let prefixes = &["libiomp5", "libgomp", "libomp"];
    let pool = Pool::of(object, super::OPENMP, "openmp", prefixes, Reach::Thread, Box::new(runtime));
    Some(Pool { pause: pause(object), ..pool })
}

/// How to end the calling thread's helpers before a fork, for libgomp, whose threads a child would wait for in vain. LLVM's
/// runtime (which has libgomp's functions too) sees to itself.
fn pause(object: &Object) -> Option<Pause> {
    let is_libgomp = object.defines("GOMP_parallel") && !object.defines("__kmpc_fork_call");
    if !is_libgomp {
        return None;
    }
    // SAFETY: this is the type that OpenMP 5.0 gives; the pool keeps its object pinned.
    unsafe { object.own("omp_pause_resource_all").map(|function| Pause::new(function)) }
}
