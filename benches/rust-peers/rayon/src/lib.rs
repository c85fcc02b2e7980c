//! rayon: a parallel iterator over the indices, on its global pool.

use std::ffi::{CStr, c_int, c_void};

use peer::{Body, Branch, Context};
use rayon::prelude::*;

#[unsafe(no_mangle)]
extern "C" fn peer_version() -> *const std::ffi::c_char {
    CStr::as_ptr(c"rayon 1.12.0")
}

#[unsafe(no_mangle)]
extern "C" fn peer_start(threads: c_int) {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads as usize)
        .build_global()
        .expect("rayon has no pool yet");
}

#[unsafe(no_mangle)]
extern "C" fn peer_for(n: usize, body: &Body, ctx: *mut c_void) {
    let ctx = Context(ctx);
    (0..n).into_par_iter().for_each(|i| body.call(ctx, i));
}

#[unsafe(no_mangle)]
extern "C" fn peer_nested_for(n: usize, body: &Body, ctx: *mut c_void) {
    peer_for(n, body, ctx);
}

#[unsafe(no_mangle)]
extern "C" fn peer_takes_callers() -> c_int {
    1
}

#[unsafe(no_mangle)]
extern "C" fn peer_root(branch: Branch, ctx: *mut c_void) {
    peer::run(branch, Context(ctx));
}

#[unsafe(no_mangle)]
extern "C" fn peer_join(branch: Branch, a: *mut c_void, b: *mut c_void) {
    let (a, b) = (Context(a), Context(b));
    rayon::join(move || peer::run(branch, a), move || peer::run(branch, b));
}
