//! Fork Union: `for_n`, or `for_n_dynamic` where BENCH_FORK_UNION=dynamic. It has no loops inside loops, and takes one
//! caller at a time.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use fork_union::ThreadPool;
use peer::{Body, Branch, Context};

/// Set once by `peer_start` and never freed: its threads spin until the process ends.
static POOL: AtomicPtr<ThreadPool> = AtomicPtr::new(std::ptr::null_mut());
static DYNAMIC: AtomicBool = AtomicBool::new(false);

#[unsafe(no_mangle)]
extern "C" fn peer_version() -> *const std::ffi::c_char {
    CStr::as_ptr(c"fork_union 2.3.1")
}

#[unsafe(no_mangle)]
extern "C" fn peer_start(threads: c_int) {
    let dynamic = std::env::var_os("BENCH_FORK_UNION").is_some_and(|kind| kind == "dynamic");
    DYNAMIC.store(dynamic, Ordering::Relaxed);
    let pool = ThreadPool::try_spawn(threads as usize).expect("Fork Union starts its threads");
    POOL.store(Box::into_raw(Box::new(pool)), Ordering::Release);
}

#[unsafe(no_mangle)]
extern "C" fn peer_for(n: usize, body: &Body, ctx: *mut c_void) {
    let ctx = Context(ctx);
    // SAFETY: peer_start stored a pool that is never freed, and the harness lets one caller in at a time.
    let pool = unsafe { &mut *POOL.load(Ordering::Acquire) };
    // The loops run when what these return is dropped.
    if DYNAMIC.load(Ordering::Relaxed) {
        drop(pool.for_n_dynamic(n, |prong| body.call(ctx, prong.task_index)));
    } else {
        drop(pool.for_n(n, |prong| body.call(ctx, prong.task_index)));
    }
}

#[unsafe(no_mangle)]
extern "C" fn peer_nested_for(n: usize, body: &Body, ctx: *mut c_void) {
    for i in 0..n {
        body.call(Context(ctx), i);
    }
}

#[unsafe(no_mangle)]
extern "C" fn peer_takes_callers() -> c_int {
    0
}

// It has no recursion: it takes no part in that row, and needs the two functions only to be linked.

#[unsafe(no_mangle)]
extern "C" fn peer_root(branch: Branch, ctx: *mut c_void) {
    peer::run(branch, Context(ctx));
}

#[unsafe(no_mangle)]
extern "C" fn peer_join(branch: Branch, a: *mut c_void, b: *mut c_void) {
    peer::run(branch, Context(a));
    peer::run(branch, Context(b));
}
