//! harness/peer.h, as the Rust peers see it.

use std::ffi::c_void;

/// `bench_body`.
#[repr(C)]
pub struct Body {
    call: unsafe extern "C" fn(*mut c_void, usize),
    task: unsafe extern "C" fn(*mut c_void, usize, *const c_void, *mut c_void) -> i32,
}

/// What a body works on.
#[derive(Clone, Copy)]
pub struct Context(pub *mut c_void);

// SAFETY: the harness gives contexts that any thread may use, several at once on different items.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Body {
    /// Runs item `i`.
    #[inline(always)]
    pub fn call(&self, context: Context, i: usize) {
        // SAFETY: the harness pairs every body with its own kind of context, and `i` is below the loop's length.
        unsafe { (self.call)(context.0, i) }
    }
}

/// `bench_branch`.
pub type Branch = unsafe extern "C" fn(*mut c_void) -> i32;

/// Runs a branch.
#[inline(always)]
pub fn run(branch: Branch, context: Context) {
    // SAFETY: the harness pairs every branch with its own kind of context.
    unsafe { branch(context.0) };
}
