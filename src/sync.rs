//! The primitives of protocols between threads: the standard ones, or loom's when the protocols are model-checked
//! (`RUSTFLAGS="--cfg loom" cargo test --release --lib loom`).

#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Thread, current, park, yield_now},
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence},
    sync::{Condvar, Mutex, MutexGuard},
    thread::{Thread, current, park, yield_now},
};
