//! Section 10 of the header: memory shared with worker processes.

use super::abi::writable;
use super::guard::{guard, guard_value};
use crate::shared;
use crate::status::pb_status;
use std::ffi::c_void;

/// Allocates memory that worker processes share: arrays and ctx inside such a block reach them by reference, without a
/// copy in or out. Otherwise it is like any memory: all zero at first, aligned to a page, readable and writable by all
/// threads; its pages are taken from the system when they are first touched. A process that was forked by others sees the
/// same memory, not a copy.
///
/// @param size  bytes; 0 is refused
/// @param block  receives the address, to be freed by `pb_free_shared`
///
/// Errors: PB_ERR_INVALID_ARGUMENT; PB_ERR_OUT_OF_MEMORY for more than the machine's memory and swap, or when the system
/// refuses (each block holds a file descriptor). It does not depend on `/dev/shm`.
///
/// # Safety
/// `block` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_alloc_shared(size: usize, block: *mut *mut c_void) -> pb_status {
    guard(|| {
        writable(block, "block")?;
        let base = shared::alloc(size)?;
        // SAFETY: checked not NULL, and the caller promised that it is writable.
        unsafe { *block = base.cast() };
        Ok(())
    })
}

/// Frees a block of `pb_alloc_shared`. NULL is fine. Anything else that is no block, or was freed before, is left alone:
/// nothing happens but that `pb_last_error` says so. No map may use the block any more.
///
/// # Safety
/// Nothing uses the block's memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_free_shared(block: *mut c_void) {
    guard_value(|_| (), || if block.is_null() { Ok(()) } else { shared::free(block.cast()) });
}
