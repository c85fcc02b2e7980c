//! Scopes of one thread: what was pushed, and tokens that make a wrong pop an error instead of a mess.
//!
//! A token names the thread that pushed and the place in that thread's sequence of pushes, so that a pop can
//! tell "on another thread" from "out of order" from "already popped". No two scopes of a process share one,
//! whatever room they belong to. 0 is never a token. A scope that belongs to no thread (a phase) has one of these tokens too.

use crate::status::{Error, Result, Status};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// A token as C holds it: the thread's number above, its push number below.
pub type Token = u64;

/// In the place of a token: no thread has that number.
const UNNAMED: Token = Token::MAX;

static THREADS: AtomicU32 = AtomicU32::new(1);

thread_local! {
    static THREAD: u32 = THREADS.fetch_add(1, Ordering::Relaxed);
    static PUSHES: Cell<u32> = const { Cell::new(0) };
}

fn thread_part() -> u64 {
    THREAD.try_with(|number| u64::from(*number)).unwrap_or(0) << 32
}

/// A new token of this thread.
pub fn issue() -> Token {
    let push = PUSHES.try_with(|pushes| {
        pushes.set(pushes.get().wrapping_add(1).max(1));
        pushes.get()
    });
    thread_part() | u64::from(push.unwrap_or(1))
}

/// The open scopes of one kind on one thread, innermost last.
#[derive(Debug)]
pub struct ScopeStack<T> {
    open: Vec<(Token, T)>,
}

impl<T> Default for ScopeStack<T> {
    fn default() -> Self {
        ScopeStack::new()
    }
}

impl<T> ScopeStack<T> {
    /// No scope is open.
    pub const fn new() -> Self {
        ScopeStack { open: Vec::new() }
    }

    /// Opens a scope; the token closes it.
    pub fn push(&mut self, value: T) -> Token {
        let token = issue();
        self.open.push((token, value));
        token
    }

    /// Opens a scope that no token closes.
    pub fn push_unnamed(&mut self, value: T) {
        self.open.push((UNNAMED, value));
    }

    /// Closes the innermost scope above `floor` if `token` is its own; otherwise changes nothing and says why.
    /// `what` names the functions for the text, e.g. `"backend"` for `pb_push_backend`.
    pub fn pop(&mut self, token: Token, floor: usize, what: &str) -> Result<T> {
        let wrong = |why: String| Err(Error::new(Status::ERR_SCOPE, why));
        if token == 0 {
            return wrong(format!("0 is never a scope: pass the token that pb_push_{what} wrote"));
        }
        if token & !0xffff_ffff != thread_part() {
            return wrong(format!(
                "this scope was pushed on another thread: call pb_pop_{what} on the thread that called pb_push_{what}"
            ));
        }
        match self.open.iter().rposition(|(open, _)| *open == token) {
            None => wrong(format!(
                "this scope is not open: it was popped already, or pb_push_{what} did not make it"
            )),
            Some(place) if place < floor => wrong(
                "this scope was opened outside the task that now runs: it can be popped only there".into(),
            ),
            Some(place) if place + 1 < self.open.len() => wrong(format!(
                "out of order: {} inner scope(s) are still open; pop those first",
                self.open.len() - place - 1
            )),
            Some(place) => Ok(self.open.remove(place).1),
        }
    }

    /// How many scopes are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The token of the innermost scope; 0 where none is open. Two equal readings on one thread mean the same open scopes, unless that
    /// one is unnamed.
    pub fn top(&self) -> Token {
        self.open.last().map_or(0, |(token, _)| *token)
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The scope that so many others are around.
    pub fn get(&self, outer: usize) -> Option<&T> {
        self.open.get(outer).map(|(_, value)| value)
    }

    /// Takes the innermost scope if it is the only one above `len`.
    pub fn pop_only(&mut self, len: usize) -> Option<T> {
        if self.open.len() == len + 1 { self.open.pop().map(|(_, value)| value) } else { None }
    }

    /// Takes all scopes above `len`, innermost first: for scopes that a task left open.
    pub fn truncate(&mut self, len: usize) -> impl Iterator<Item = T> + use<T> {
        // The usual case is one scope, which needs no memory.
        let last = self.pop_only(len);
        let cut = self.open.split_off(len.min(self.open.len()));
        last.into_iter().chain(cut.into_iter().rev().map(|(_, value)| value))
    }

    /// The open scopes, innermost first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.open.iter().rev().map(|(_, value)| value)
    }

    /// The innermost scope, to be changed in place.
    pub fn last_mut(&mut self) -> Option<&mut T> {
        self.open.last_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The cases of rustls-ffi's userdata stack: nested, out of order, twice, another thread.
    #[test]
    fn a_wrong_pop_changes_nothing_and_says_why() {
        let mut stack = ScopeStack::default();
        let outer = stack.push("outer");
        let inner = stack.push("inner");
        let text = |result: Result<&str>| result.unwrap_err().message.clone();
        assert!(text(stack.pop(outer, 0, "backend")).contains("out of order: 1 inner"));
        assert!(text(stack.pop(0, 0, "backend")).contains("0 is never"));
        assert_eq!(stack.pop(inner, 0, "backend").unwrap(), "inner");
        assert!(text(stack.pop(inner, 0, "backend")).contains("popped already"));
        assert!(text(stack.pop(outer, 1, "backend")).contains("outside the task"));
        std::thread::scope(|threads| {
            threads.spawn(|| assert!(text(stack.pop(outer, 0, "backend")).contains("another thread")));
        });
        assert_eq!(stack.pop(outer, 0, "backend").unwrap(), "outer");
        assert!(stack.is_empty());
    }
}
