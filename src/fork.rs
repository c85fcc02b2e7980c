//! How many forks lie between this process and the one that first used the library: whoever waits for threads or
//! children of its own asks whether they came along.

use std::sync::atomic::{AtomicU32, Ordering};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// A number that is the same for as long as this is the same process.
pub fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// To be called in a child, before anything else runs there.
pub fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}
