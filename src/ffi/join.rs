//! Section 12 of the header: two branches.

use super::abi;
use super::guard::guard;
use super::task::{THREW, contain};
use crate::join::{self, Branch, Hooks, Worker};
use crate::status::pb_status;
use std::cell::Cell;
use std::ffi::c_void;

/// One branch of a `pb_join`. 0 is success; any other code is the branch's failure, to which `pb_task_fail` attaches a
/// text. It may run on any thread, at the same time as the other branch; it must not throw or longjmp.
pub type pb_branch_fn = Option<unsafe extern "C-unwind" fn(ctx: *mut c_void) -> i32>;

/// Runs `fn_a(ctx_a)` and `fn_b(ctx_b)`, perhaps at the same time, and returns when both are over. Both always run, whether
/// or not the other fails: but for a join that is called where all was cancelled before, which runs neither.
///
/// It is made for recursion: branches call `pb_join` again, to any depth, and such an inner join costs some ten nanoseconds
/// where no worker is free to take a branch. The outermost join costs as much as a map, and is one: it runs on the backend
/// and with the workers that the calling thread's context says (`threading` where that one does not share memory), and
/// never more than so many threads run branches of it, at any depth. `sequential`, and one worker, run a and then b on the
/// calling thread. Inside a branch the nesting level, the worker's index and share, the limits on BLAS and OpenMP, and
/// `pb_cancelled` are those of a map's task; scopes that it leaves open are closed after it. Inner joins use the workers
/// of the outermost one, unless a scope was opened in between, or a map: from there on a join is an outermost one again.
///
/// A thread that waits for a branch which another thread has taken runs, meanwhile, only branches that were forked under
/// that one. So a lock may be held around a join, if neither branch wants it.
///
/// Errors: PB_ERR_TASK_FAILED if a branch returned non-zero: the failure of a if a failed, else that of b;
/// `pb_last_error_info` has its code, and 0 for a, 1 for b as its index. A branch that returns the status of a failed
/// `pb_join` inside it passes that join's failure on as it is. PB_ERR_CANCELLED, PB_ERR_INVALID_ARGUMENT,
/// PB_ERR_UNSUPPORTED, PB_ERR_WORKER_LOST in a child that a branch has forked, and what the backend says.
///
/// # Safety
/// The functions may be called with their arguments on any thread, at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_join(
    fn_a: pb_branch_fn,
    ctx_a: *mut c_void,
    fn_b: pb_branch_fn,
    ctx_b: *mut c_void,
) -> pb_status {
    guard(|| {
        let a = fn_a.ok_or_else(|| abi::null("fn_a"))?;
        let b = fn_b.ok_or_else(|| abi::null("fn_b"))?;
        let branch = |call: unsafe extern "C-unwind" fn(*mut c_void) -> i32, ctx: *mut c_void| Branch {
            call: call as *mut (),
            ctx: ctx.cast(),
        };
        let (a, b) = (branch(a, ctx_a), branch(b, ctx_b));
        let failure = match worker().filter(|worker| worker.is_here()) {
            Some(worker) => worker.join(a, b),
            None => join::open(&HOOKS, a, b)?,
        };
        failure.map_or(Ok(()), |failure| Err(*failure))
    })
}

static HOOKS: Hooks = Hooks { run, settle };

thread_local! {
    /// This thread as a worker of the innermost region that it is in.
    static WORKER: Cell<*const Worker> = const { Cell::new(std::ptr::null()) };
}

fn settle(worker: *const Worker) -> *const Worker {
    WORKER.replace(worker)
}

/// This thread's worker.
fn worker<'a>() -> Option<&'a Worker> {
    // SAFETY: NULL or a worker that the code around this call, on this thread's stack, has settled and will let go of
    // before it is gone; the reference is used inside this call only.
    unsafe { WORKER.get().as_ref() }
}

/// Runs a branch that `pb_join` made.
fn run(branch: Branch) -> i32 {
    // SAFETY: `call` is the function of this type that `pb_join` put there.
    let call: unsafe extern "C-unwind" fn(*mut c_void) -> i32 = unsafe { std::mem::transmute(branch.call) };
    // SAFETY: the caller of `pb_join` promised that the function may be called so, from this thread too.
    contain(|| unsafe { call(branch.ctx.cast()) }, THREW)
}
