//! What this program itself can be for its workers.

use std::sync::atomic::{AtomicBool, Ordering};

static CAN_RERUN: AtomicBool = AtomicBool::new(false);

/// The program has called `pb_worker_main`: started again as a worker, it becomes one.
pub fn note_rerun() {
    CAN_RERUN.store(true, Ordering::Relaxed);
}

/// Whether workers may be this program started again, and so can run its own functions.
pub fn can_rerun() -> bool {
    CAN_RERUN.load(Ordering::Relaxed)
}
