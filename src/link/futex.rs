//! Waiting on a word in memory that processes share.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while the word has this value, for `most` at most. It may wake without a reason: look again.
pub fn wait(word: &AtomicU32, value: u32, most: Duration) {
    let time = libc::timespec {
        tv_sec: most.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: the word and the time live over the call; FUTEX_WAIT without the private flag works between processes.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time) };
}

/// Wakes all who sleep on the word.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: the word lives over the call, which only looks up who sleeps on its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
