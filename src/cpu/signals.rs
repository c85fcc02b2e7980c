//! Signals and pool threads: a signal to the process is for a thread that the program knows.
//!
//! A handler may take any time and use any lock of the program; on a pool thread it would hold up somebody's map, or meet
//! the locks of a task. So a pool thread is started with everything blocked, from its first instruction on, but for
//! - SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, which the thread causes itself: blocked, they would kill the process
//!   before its crash handler, or its garbage collector's page guard, could look;
//! - SIGPROF, which asks the thread that computes what it is at: with it blocked, a sampling profiler would find all time
//!   spent in threads that wait.
//!
//! abort() unblocks SIGABRT by itself. The C library keeps its own signals out of any set.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

const LEFT: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS, libc::SIGPROF];

/// While it lives, threads that this one starts have their signals blocked. Dropping it, on the same thread, puts this
/// thread's mask back.
#[must_use = "the mask is put back when this is dropped"]
pub struct SignalsBlocked {
    before: Option<libc::sigset_t>,
    on_its_thread: PhantomData<*mut ()>,
}

impl SignalsBlocked {
    /// Blocks the calling thread's signals.
    pub fn enter() -> Self {
        let mut set = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset makes the set a value before it is used, and pthread_sigmask writes `before` when it
        // returns 0; the numbers are signals.
        let before = unsafe {
            libc::sigfillset(set.as_mut_ptr());
            for signal in LEFT {
                libc::sigdelset(set.as_mut_ptr(), signal);
            }
            let status = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), before.as_mut_ptr());
            (status == 0).then(|| before.assume_init())
        };
        SignalsBlocked { before, on_its_thread: PhantomData }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: `before` is a set that pthread_sigmask wrote; the old mask is not asked for.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: libc::c_int) -> bool {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: without a new set pthread_sigmask only writes the present one.
        unsafe {
            assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr()), 0);
            libc::sigismember(mask.as_ptr(), signal) == 1
        }
    }

    #[test]
    fn a_new_thread_has_them_blocked_and_this_one_as_before() {
        let blocked = SignalsBlocked::enter();
        let child = std::thread::spawn(|| [libc::SIGUSR1, libc::SIGINT, libc::SIGPROF].map(is_blocked));
        drop(blocked);
        assert_eq!(child.join().unwrap(), [true, true, false]);
        assert_eq!([libc::SIGUSR1, libc::SIGINT].map(is_blocked), [false, false]);
    }
}
