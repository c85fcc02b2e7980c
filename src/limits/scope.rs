//! Limits that the program opens and closes by itself: `pb_push_thread_limit` and `pb_pop_thread_limit`.

use super::Limit;
use super::ledger::{self, ProcessLimit};
use super::thread::ThreadLimit;
use crate::scope::{ScopeStack, Token};
use crate::status::{Error, Result, Status};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

/// One open scope. Fields are dropped in this order, the opposite of the order in which they were entered.
struct Scope {
    thread: ThreadLimit,
    _process: ProcessLimit,
}

struct Scopes(ScopeStack<Scope>);

impl Drop for Scopes {
    /// The thread ends with scopes open: its own counts end with it, the process's have to be given back.
    fn drop(&mut self) {
        for scope in self.0.truncate(0) {
            scope.thread.abandon();
        }
    }
}

/// Whether any thread has ever opened one: until then none looks for its own.
static EVER: AtomicBool = AtomicBool::new(false);

thread_local!(static SCOPES: RefCell<Scopes> = const { RefCell::new(Scopes(ScopeStack::new())) });

/// Works on this thread's scopes. What is taken out of them must be dropped outside: it may call the user's
/// code.
fn with_scopes<R>(work: impl FnOnce(&mut ScopeStack<Scope>) -> R) -> Result<R> {
    SCOPES
        .try_with(|scopes| work(&mut scopes.borrow_mut().0))
        .map_err(|_| Error::new(Status::ERR_SCOPE, "this thread is ending: it can hold no scope any more"))
}

/// Opens a scope on the calling thread in which the thread pools of `user_api` (a mask; 0 for all) use
/// `limit` threads, more or fewer than before. Counts that the process shares are limited for all threads, to
/// the smallest that any thread or map asks for. The token closes the scope, on this thread.
///
/// Errors: `PB_ERR_INVALID_ARGUMENT` for a limit below 1 or unknown bits in `user_api`.
pub fn push(limit: i32, user_api: u32) -> Result<Token> {
    if limit < 1 {
        return Err(Error::invalid(format!("a thread limit of {limit}: it must be at least 1")));
    }
    let unknown = user_api & !(super::BLAS | super::OPENMP | super::TBB);
    if unknown != 0 {
        return Err(Error::invalid(format!(
            "unknown bits {unknown:#x} in user_api: use PB_API_BLAS, PB_API_OPENMP, PB_API_TBB or PB_API_ALL"
        )));
    }
    let limit = Limit { threads: limit, exact: true };
    let process = ledger::request(limit, user_api, true);
    let thread = ThreadLimit::enter(limit, user_api);
    EVER.store(true, Ordering::Relaxed);
    with_scopes(|scopes| scopes.push(Scope { thread, _process: process }))
}

/// Closes the calling thread's innermost scope, which `token` must name, and puts back what it changed.
///
/// Errors: `PB_ERR_SCOPE` if it is not the innermost, is closed already, or belongs to another thread;
/// nothing is changed then.
pub fn pop(token: Token) -> Result<()> {
    pop_above(token, 0)
}

/// As [`pop`], for a task that runs inside `floor` open scopes of its thread and must not close those.
pub fn pop_above(token: Token, floor: usize) -> Result<()> {
    let scope = with_scopes(|scopes| scopes.pop(token, floor, "thread_limit"))??;
    drop(scope);
    Ok(())
}

/// How many scopes the calling thread has open.
pub fn open_scopes() -> usize {
    if EVER.load(Ordering::Relaxed) { with_scopes(|scopes| scopes.len()).unwrap_or(0) } else { 0 }
}

/// Closes the calling thread's scopes above `depth`, innermost first: those that a task has left open.
pub fn close_above(depth: usize) {
    if let Ok(left) = with_scopes(|scopes| scopes.truncate(depth)) {
        left.for_each(drop);
    }
}
