//! How late the kernel may wake a thread whose time is up.

/// The calling thread's timed waits end within a microsecond rather than 50, which Linux allows itself otherwise to wake several
/// threads at once.
pub fn fine_timer() {
    #[cfg(target_os = "linux")]
    {
        const SLACK_NS: libc::c_ulong = 1_000;
        const NONE: libc::c_ulong = 0;
        // All five, since the C library passes on as many.
        // SAFETY: concerns the calling thread only, and takes no pointer. Where it fails timers stay as they were.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS, NONE, NONE, NONE) };
    }
}
