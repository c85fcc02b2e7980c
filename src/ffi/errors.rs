//! Section 1 of the header: versions and errors.

use super::abi;
use super::guard::guard;
use crate::status::{self, ItemFate, Status, pb_status};
use std::ffi::c_char;

/// The number that `pb_abi_version` returns for this header. It grows when the binary interface breaks.
pub const PB_ABI_VERSION: u32 = 1;

/// Success.
pub const PB_OK: pb_status = 0;
/// `pb_job_wait`, `pb_job_next`: not yet.
pub const PB_PENDING: pb_status = 1;
/// `pb_job_next`, `pb_job_claim`: nothing is left.
pub const PB_DONE: pb_status = 2;
/// An argument cannot be used; the text says which and why.
pub const PB_ERR_INVALID_ARGUMENT: pb_status = -1;
/// No backend of that name; the text lists the known ones.
pub const PB_ERR_UNKNOWN_BACKEND: pb_status = -2;
/// A known backend that cannot start here: the text says what is missing and how to get it.
pub const PB_ERR_BACKEND_UNAVAILABLE: pb_status = -3;
/// Popped out of order, twice, or on another thread; nothing was changed.
pub const PB_ERR_SCOPE: pb_status = -4;
/// A task returned non-zero: see `pb_last_error_info`.
pub const PB_ERR_TASK_FAILED: pb_status = -5;
/// The backend has no shared memory and the task, or its ctx, cannot be sent there: the text says how it could.
pub const PB_ERR_TASK_NOT_PORTABLE: pb_status = -6;
/// A worker died: the info has the item, the exit code or the signal.
pub const PB_ERR_WORKER_LOST: pb_status = -7;
/// A task ran longer than its timeout.
pub const PB_ERR_TIMEOUT: pb_status = -8;
/// Cancelled, by `pb_job_cancel`, a progress callback, or a cancelled map around this one.
pub const PB_ERR_CANCELLED: pb_status = -9;
/// Understood, but not to be had in this version or place.
pub const PB_ERR_UNSUPPORTED: pb_status = -10;
/// Memory ran out.
pub const PB_ERR_OUT_OF_MEMORY: pb_status = -11;
/// A file, a library or a process could not be reached.
pub const PB_ERR_IO: pb_status = -12;
/// A `struct_size` or `abi_version` does not fit.
pub const PB_ERR_ABI: pb_status = -13;
/// There is one of that name already.
pub const PB_ERR_EXISTS: pb_status = -14;
/// A bug here, caught at the boundary.
pub const PB_ERR_INTERNAL: pb_status = -15;

/// Details of this thread's last error. Set `struct_size` before the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct pb_error_info {
    /// `sizeof(pb_error_info)`, set by the caller.
    pub struct_size: usize,
    /// The failing call's status.
    pub status: pb_status,
    /// What the task returned.
    pub task_code: i32,
    /// Which item; SIZE_MAX where none.
    pub task_index: usize,
    /// Exit code of a lost worker; -1 where none.
    pub exit_code: i32,
    /// Signal that killed it; 0 where none.
    pub signal: i32,
    /// How many times the item was started.
    pub attempts: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: integers only, `struct_size` first.
unsafe impl abi::Sized0 for pb_error_info {}

/// The binary interface that the loaded library has; compare with PB_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn pb_abi_version() -> u32 {
    PB_ABI_VERSION
}

/// The loaded library's version, e.g. "0.1.0". A static text.
#[unsafe(no_mangle)]
pub extern "C" fn pb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The name of a status, e.g. "PB_ERR_TIMEOUT". A static text, never NULL: "PB_UNKNOWN_STATUS" for other numbers.
#[unsafe(no_mangle)]
pub extern "C" fn pb_status_name(status: pb_status) -> *const c_char {
    Status(status).c_name().as_ptr()
}

/// What was wrong in this thread's last failing call, and what to do about it. "" where none has failed. Valid until
/// the next failing call on this thread; a call that succeeds leaves it as it is.
#[unsafe(no_mangle)]
pub extern "C" fn pb_last_error() -> *const c_char {
    status::last_text()
}

/// Details of this thread's last failing call: status PB_OK where none has failed.
///
/// # Errors
/// PB_ERR_INVALID_ARGUMENT: `out` is NULL. PB_ERR_ABI: its `struct_size` is too small.
///
/// # Safety
/// `out` points to a pb_error_info whose `struct_size` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pb_last_error_info(out: *mut pb_error_info) -> pb_status {
    guard(|| {
        let last = status::last();
        let ItemFate { task_code, index, exit_code, signal, attempts } =
            last.as_ref().map(|error| error.item).unwrap_or_default();
        let info = pb_error_info {
            struct_size: 0,
            status: last.map_or(PB_OK, |error| error.status.0),
            task_code,
            task_index: index,
            exit_code,
            signal,
            attempts,
            reserved: 0,
        };
        // SAFETY: the caller promised a pb_error_info with its size set.
        unsafe { abi::write(out, info, size_of::<pb_error_info>(), "pb_error_info") }
    })
}
