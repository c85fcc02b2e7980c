//! Stands in for `linux` where the backends of worker processes do not run: no memory is shared with other processes.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

fn for_linux() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "memory of several processes is for Linux in this version")
}

/// Makes none.
pub fn nameless_file(_name: &CStr) -> io::Result<OwnedFd> {
    Err(for_linux())
}

/// Allocates nothing.
pub fn allocate(_file: BorrowedFd, _offset: u64, _len: usize) -> io::Result<()> {
    Err(for_linux())
}

/// Has nothing to give back.
pub fn give_back(_file: BorrowedFd, _offset: u64, _len: u64) {}

/// No limit is known.
pub fn memory() -> usize {
    usize::MAX
}

/// Pages fault as they are used.
pub fn populate(_begin: usize, _len: usize, _as_if_written: bool) {}
