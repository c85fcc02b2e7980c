//! chili: the range halved by `join` down to a leaf, as its examples do with slices and trees.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::num::NonZero;
use std::ops::Range;
use std::sync::OnceLock;

use chili::{Config, Scope, ThreadPool};
use peer::{Body, Branch, Context};

/// Small enough for 128 leaves a thread, so that heartbeats find something to share; never so small that a cheap item
/// pays for a `join` of its own.
const LEAVES_PER_THREAD: usize = 128;
const LONGEST_LEAF: usize = 1024;

struct Peer {
    pool: ThreadPool,
    threads: usize,
}

static PEER: OnceLock<Peer> = OnceLock::new();

#[unsafe(no_mangle)]
extern "C" fn peer_version() -> *const std::ffi::c_char {
    CStr::as_ptr(c"chili 0.2.1")
}

#[unsafe(no_mangle)]
extern "C" fn peer_start(threads: c_int) {
    let threads = threads as usize;
    let config = Config { thread_count: NonZero::new(threads), ..Config::default() };
    PEER.get_or_init(|| Peer { pool: ThreadPool::with_config(config), threads });
}

fn halve(scope: &mut Scope<'_>, range: Range<usize>, leaf: usize, body: &Body, ctx: Context) {
    if range.len() <= leaf {
        for i in range {
            body.call(ctx, i);
        }
        return;
    }
    let middle = range.start + range.len() / 2;
    scope.join(
        |scope| halve(scope, range.start..middle, leaf, body, ctx),
        |scope| halve(scope, middle..range.end, leaf, body, ctx),
    );
}

#[unsafe(no_mangle)]
extern "C" fn peer_for(n: usize, body: &Body, ctx: *mut c_void) {
    let peer = PEER.get().expect("peer_start came first");
    let leaf = (n / (LEAVES_PER_THREAD * peer.threads)).clamp(1, LONGEST_LEAF);
    halve(&mut peer.pool.scope(), 0..n, leaf, body, Context(ctx));
}

#[unsafe(no_mangle)]
extern "C" fn peer_nested_for(n: usize, body: &Body, ctx: *mut c_void) {
    peer_for(n, body, ctx);
}

#[unsafe(no_mangle)]
extern "C" fn peer_takes_callers() -> c_int {
    1
}

thread_local! {
    /// The scope of the branch that runs here: chili hands it down as an argument, for which a C branch has no place.
    static SCOPE: Cell<*mut c_void> = const { Cell::new(std::ptr::null_mut()) };
}

fn run_in(scope: &mut Scope<'_>, branch: Branch, ctx: Context) {
    let outer = SCOPE.replace((&raw mut *scope).cast());
    peer::run(branch, ctx);
    SCOPE.set(outer);
}

#[unsafe(no_mangle)]
extern "C" fn peer_root(branch: Branch, ctx: *mut c_void) {
    let peer = PEER.get().expect("peer_start came first");
    run_in(&mut peer.pool.scope(), branch, Context(ctx));
}

#[unsafe(no_mangle)]
extern "C" fn peer_join(branch: Branch, a: *mut c_void, b: *mut c_void) {
    let (a, b) = (Context(a), Context(b));
    // SAFETY: the scope belongs to the branch that calls, which leaves it alone until this returns.
    let scope: &mut Scope<'_> = unsafe { &mut *SCOPE.get().cast() };
    scope.join(move |scope| run_in(scope, branch, a), move |scope| run_in(scope, branch, b));
}
