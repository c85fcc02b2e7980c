//! Section 1 of the header: versions and errors.

use crate::status;
use std::ffi::c_char;

/// The number of the binary interface that this library was built with; compare with `PB_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn pb_abi_version() -> u32 {
    1
}

/// The library's version, e.g. "0.1.0". A static string.
#[unsafe(no_mangle)]
pub extern "C" fn pb_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// This thread's error text, valid until its next failing call; "" where none.
#[unsafe(no_mangle)]
pub extern "C" fn pb_last_error() -> *const c_char {
    status::last_text()
}
