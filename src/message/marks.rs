//! How far a chunk has come.

use std::sync::atomic::AtomicU64;

/// How far a chunk has come, for whoever must say what a dead worker was doing. Written by the worker alone, item by item:
/// `begun` before the task is called, `ended` (Release, so that its output and status are seen by who sees the count) after it.
/// A failed item ends where its status is in memory that both sides see; where only the reply has it, it never does.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Marks {
    /// Items begun.
    pub begun: AtomicU64,
    /// Items ended, with all that is to be known of them.
    pub ended: AtomicU64,
}
