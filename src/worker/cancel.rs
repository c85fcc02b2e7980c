//! Asking every chunk that runs in this process to stop, without a lock: also from a signal's handler.
//!
//! Chunks take numbers in turn. A cancel notes the next number; all below it are cancelled. Both counts only grow, and the
//! note is advice: no data hangs on it, so Relaxed will do.

use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);
static CANCELLED_BELOW: AtomicU64 = AtomicU64::new(0);

/// The number of a chunk that runs.
pub struct Ticket(u64);

impl Ticket {
    /// For a chunk that begins now.
    pub fn take() -> Self {
        Ticket(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a cancel came after its beginning.
    pub fn is_cancelled(&self) -> bool {
        self.0 < CANCELLED_BELOW.load(Ordering::Relaxed)
    }
}

/// Asks all chunks that run now to stop.
pub fn cancel_all() {
    CANCELLED_BELOW.fetch_max(NEXT.load(Ordering::Relaxed), Ordering::Relaxed);
}
