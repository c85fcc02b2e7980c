//! How far a chunk has come.

use std::sync::atomic::AtomicU64;

/// How far a chunk has come, for whoever must say what a dead worker was doing. Written by the worker alone, item by item:
/// `begun` before the task is called, `ended` (Release, so that its output is seen by who sees the count) after it.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Marks {
    /// Items begun.
    pub begun: AtomicU64,
    /// Items ended.
    pub ended: AtomicU64,
}
